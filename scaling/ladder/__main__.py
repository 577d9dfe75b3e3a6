"""Train a family of small runs, fit a law to them, and see whether it predicts the largest.

    python -m scaling.ladder --config=configs/ladder.py --out=runs/ladder \\
        --sizes=4x32,4x48,4x64,4x96 --tokens=300e3,600e3,12e5,24e5 --target=4x128:5e6
    python -m scaling.ladder ... --design=isoflop --budgets=1e12,3e12,1e13
    python -m scaling.ladder ... --commands=jobs.sh     a line a size, for a cluster
    python -m scaling.ladder ... --dry_run              only what it would do and cost

Sizes are LAYERSxWIDTH or numbers of parameters; tokens are numbers, or "20x" for 20 a parameter.
Each size has one trunk at a constant rate, from which each run branches off with its own decay: it
is the same, bit for bit, as if it had been trained alone. The base recipe needs schedule.kind=wsd.

The same command goes on after an interruption or a kill, takes up more sizes and tokens, and, once
the runs are there, collects them again: OUT/runs.csv (for scaling.fit), OUT/fit.json (for
scaling.predict, scaling.plan and scaling.report) and OUT/ladder.json (all of it).
"""

import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from absl import flags

from configs import flags as config_flags
from configs.schema import Config, InputError, require
from scaling import record
from scaling.ladder import collect, design, lock, timing, words, work
from scaling.ladder.collect import Count
from scaling.ladder.design import Run, Trunk
from scaling.ladder.judge import judge
from scaling.plan import recipe

_RECIPE = config_flags.define_recipe(Config)
_OUT = flags.DEFINE_string("out", None, "the ladder's folder", required=True)
_DESIGN = flags.DEFINE_enum("design", "grid", ["grid", "isoflop"], "tokens, or budgets, a size")
_SIZES = flags.DEFINE_list("sizes", [], "4x32,4x64 (layers x width), or numbers of parameters")
_TOKENS = flags.DEFINE_list("tokens", [], "of each size; 20x: so many a parameter")
_BUDGETS = flags.DEFINE_list("budgets", [], "operations of a run, for --design=isoflop")
_TARGET = flags.DEFINE_string("target", "", "one run more, SIZE:TOKENS, such as 4x128:8e6")
_HOLDOUT = flags.DEFINE_integer("holdout", 1, "runs of most operations to predict", lower_bound=0)
_DECAY = flags.DEFINE_float("decay", 0.2, "share of each run in which the rate falls")
_COUNT = flags.DEFINE_enum(
    "count", "parameters", ["parameters", "non_embedding"], "what N is in runs.csv and in the fit"
)
_WORKERS = flags.DEFINE_integer("workers", 1, "runs at once, on shares of the CPU", lower_bound=1)
_TIME = flags.DEFINE_bool("time", True, "time a few updates of each size first")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "say what would be done, and write nothing")
_COMMANDS = flags.DEFINE_string("commands", "", "write a shell file with a job a size, and stop")
_JOB = flags.DEFINE_string("job", "", "train this size alone, as a line of --commands does")
_JSON = flags.DEFINE_string("json", "", "write OUT/ladder.json to this file, too")
_OWN = ("workers", "time", "notime", "dry_run", "commands", "job", "json")  # not of the design


def run() -> None:
    """The command."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # this process only counts: devices are for the runs
    config = _RECIPE.load()
    planned = _planned(config)
    trunks = design.trunks(planned)
    if _JOB.value:
        names = [trunk.size.name for trunk in trunks]
        require(_JOB.value in names, f"--job={_JOB.value} is none of {', '.join(names)}")
        trunks = tuple(trunk for trunk in trunks if trunk.size.name == _JOB.value)
    out = Path(_OUT.value)
    there = collect.available(config)
    if there and (warning := design.repeated(planned, there)):
        print(f"warn: {warning}")
    collect.check_base(out, config, write=False)
    if _DRY_RUN.value:
        with tempfile.TemporaryDirectory(prefix="ladder-") as folder:
            timings = _timings(Path(folder), out, config, trunks)
        print(words.plan(out, config, planned, trunks, timings, _WORKERS.value))
        return
    if _COMMANDS.value:
        print(words.plan(out, config, planned, trunks, timing.known(out, trunks), len(trunks)))
        _write_commands(trunks)
        return
    with lock.held(out, _JOB.value):
        collect.check_base(out, config)
        failures = _train(out, config, planned, trunks)
        if _JOB.value:
            for reason in failures.values():
                raise InputError(reason)
            return
        _conclude(out, config, planned, trunks, failures)


def _planned(config: Config) -> tuple[Run, ...]:
    budgets = []
    for text in _BUDGETS.value:
        try:
            budgets.append(float(text))
        except ValueError:
            raise InputError(f"--budgets: {text!r} must be a number of operations") from None
    grid = _DESIGN.value == "grid"
    require(
        bool(_TOKENS.value) == grid and bool(budgets) != grid,
        f"--design={_DESIGN.value} needs --{'tokens' if grid else 'budgets'}, and not "
        f"--{'budgets' if grid else 'tokens'}",
    )
    return design.runs(
        config,
        _SIZES.value,
        _TOKENS.value,
        budgets,
        _TARGET.value,
        _DECAY.value,
        _HOLDOUT.value,
    )


def _train(
    out: Path, config: Config, planned: tuple[Run, ...], trunks: tuple[Trunk, ...]
) -> dict[str, str]:
    """Train what is not trained yet; why sizes failed, where they did."""
    for trunk in trunks:
        says = f"The trunk of a ladder at {trunk.size.name}; python -m scaling.ladder wrote it."
        path = out / "recipes" / f"{trunk.size.name}.py"
        recipe.write(path, design.recipe(config, trunk.size), says)
    timings = _timings(out, out, config, trunks)
    if timings:
        timing.save(out, timings)
    workers = _WORKERS.value
    print(words.plan(out, config, planned, trunks, timings, workers), flush=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{words.duration(time.monotonic() - began)}] {text}", flush=True)

    return work.work(out, trunks, workers, say, lambda: words.status(out, trunks, timings, workers))


def _timings(
    folder: Path, out: Path, config: Config, trunks: tuple[Trunk, ...]
) -> dict[str, timing.Timing]:
    """Seconds of each size: known ones, and measured ones by recipes in `folder`."""
    found = timing.known(out, trunks)
    for trunk in trunks:
        size = trunk.size
        if not _TIME.value or size.name in found or not timing.seconds_left(out, trunk, _ONE):
            continue
        print(f"timing {size.name}", flush=True)
        path = folder / "recipes" / f"{size.name}.py"
        recipe.write(path, design.recipe(config, size), "A trunk, to be timed.")
        warmup, share = config.schedule.warmup, min(_WORKERS.value, len(trunks))
        found[size.name] = timing.measure(path, size, warmup, share, work.compiled(folder))
    return found


_ONE = timing.Timing(1.0, 1.0, 1.0, "")


def _write_commands(trunks: tuple[Trunk, ...]) -> None:
    """A shell file: a line a size, each of them a job that can be repeated."""
    kept = [a for a in sys.argv[1:] if a.lstrip("-").partition("=")[0] not in _OWN]
    command = shlex.join(["-m", "scaling.ladder", *kept])
    lines = [
        "#!/bin/sh",
        "# One job a line, independent of the others; each goes on where it was interrupted.",
        "# Afterwards collect and fit, with the same --out on a file system that all share:",
        f"#   python {command}",
        f"cd {shlex.quote(str(Path.cwd()))}",
    ]
    lines += [f'"${{PYTHON:-python}}" {command} --notime --job={t.size.name}' for t in trunks]
    path = Path(_COMMANDS.value)
    collect.save(path, "\n".join(lines) + "\n")
    print(f"{len(trunks)} jobs are in {path}; run its lines anywhere, in any order")


def _conclude(
    out: Path,
    config: Config,
    planned: tuple[Run, ...],
    trunks: tuple[Trunk, ...],
    failures: dict[str, str],
) -> None:
    """Collect, fit, judge, and say where it all lies."""
    count = cast(Count, _COUNT.value)
    rows, left_out = collect.rows(out, config, planned, count, failures)
    if not rows:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(f"no run of {out} is finished ({reasons}): see {out / 'logs'}")
    table = collect.write_table(out, rows)
    verdict = judge(rows, str(table), count)
    print("\n" + words.outcome(rows, left_out, verdict))
    tokens = design.step_tokens(config)
    values: dict[str, Any] = {
        "format": 1,
        "design": {
            "kind": _DESIGN.value,
            "count": count,
            "decay": _DECAY.value,
            "recipe": _RECIPE.path,
            "changes": list(_RECIPE.changes),
            "step_tokens": tokens,
            "workers": _WORKERS.value,
            "cores": os.cpu_count(),
            "flops": sum(trunk.flops(tokens) for trunk in trunks),
        },
        "runs": rows,
        "left_out": left_out,
        "why_no_fit": verdict.why_not,
        "fit": verdict.stored,
        "held_out": list(verdict.held_out),
        "beside": list(verdict.beside),
    }
    print(f"\nthe runs: {table}")
    if verdict.stored:
        record.write(str(out / "fit.json"), "out", verdict.stored)
    record.write(str(out / "ladder.json"), "out", values)
    record.write(_JSON.value, "json", values)


if __name__ == "__main__":
    config_flags.main(run, _RECIPE)
