"""What the runs of a ladder came to, as rows that scaling.fit reads."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from configs.schema import Config, InputError, require, to_dict
from scaling.ladder import jobs
from scaling.ladder.design import Run, step_tokens

Row = dict[str, Any]
Count = Literal["parameters", "non_embedding"]
DESIGN = "design.json"
TABLE = "runs.csv"
_FREE = ("log_every", "checkpoints.", "mesh.", "data.path")  # what no loss depends on
_STORE = "index.json"  # of a token store


def rows(
    out: Path, config: Config, planned: Sequence[Run], count: Count, failures: dict[str, str]
) -> tuple[list[Row], dict[str, str]]:
    """A row a finished run, and why each of the others has none.

    N is the count asked for; D tokens; loss nats a token on the validation split, with its standard
    error over windows; flops as if the run had been trained alone (PaLM's convention).
    """
    found, left_out = [], {}
    for run in planned:
        workdir = out / "runs" / run.name
        if not jobs.finished(workdir, run.steps):
            why = jobs.failed(out, run) or failures.get(run.size.name, "it is not finished")
            left_out[run.name] = why
            continue
        last = [r for r in jobs.rows(workdir) if r["kind"] == "eval" and r["step"] == run.steps]
        if not last or last[-1]["loss"] is None:
            left_out[run.name] = (
                "its validation loss is not finite: it diverged"
                if last
                else "it was not evaluated: the store has no validation split"
            )
            continue
        found.append(_row(run, config, count, last[-1]))
    return found, left_out


def _row(run: Run, config: Config, count: Count, last: dict[str, Any]) -> Row:
    return {
        "run": run.name,
        "N": getattr(run.size, count),
        "D": run.tokens,
        "loss": last["loss"],
        "standard_error": last["standard_error"],
        "bits_per_byte": last.get("bits_per_byte"),
        "parameters": run.size.parameters,
        "non_embedding": run.size.non_embedding,
        "flops": run.flops,
        "steps": run.steps,
        "decay": run.decay,
        "depth": run.size.model.layers,
        "width": run.size.model.width,
        "batch": step_tokens(config),
        "warmup": config.schedule.warmup * step_tokens(config),
        "seconds": last["seconds"],
        "schedule": config.schedule.kind,
        "held_out": int(run.held_out),
    }


def write_table(out: Path, found: Sequence[Row]) -> Path:
    """Write the rows as CSV, for `python -m scaling.fit --table=...`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    path = out / TABLE
    save(path, text.getvalue())
    return path


def save(path: Path, text: str) -> None:
    """Write a file that is never seen half written. Raises InputError where that fails."""
    draft = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; make room or choose another place") from error


def check_base(out: Path, config: Config, write: bool = True) -> None:
    """Refuse a folder whose ladder has another base recipe; the shapes and tokens may differ.

    Raises InputError with what differs.
    """
    path = out / DESIGN
    base = json.loads(json.dumps(_settings(config)))
    if not path.exists():
        if write:
            save(path, json.dumps({"format": 1, "base": base}, indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text())["base"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is no design of a ladder ({error}): choose another --out"
        ) from error
    changes = [
        f"{key} {before.get(key)} -> {base.get(key)}"
        for key in {**before, **base}
        if before.get(key) != base.get(key)
    ]
    require(
        not changes,
        f"{out} holds a ladder of another base recipe ({'; '.join(changes)}): undo that, or choose "
        "another --out",
    )


def available(config: Config) -> int | None:
    """Tokens of the store's training split; None for random tokens.

    Raises InputError where there is no store.
    """
    if config.data.path == "synthetic":
        return None
    path = Path(config.data.path) / _STORE
    try:
        shards = json.loads(path.read_text())["shards"]
        return sum(shard["tokens"] for shard in shards if shard["split"] == "train")
    except OSError as error:
        raise InputError(
            f"{config.data.path}: no token store there ({error.strerror}): build it with python -m "
            "data.build, or name another with --config.data.path"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): build the store anew") from error


def _settings(config: Config) -> dict[str, Any]:
    """What the loss of a run depends on, by dotted names, but for what a ladder sets itself."""
    flat: dict[str, Any] = {}
    for name, part in to_dict(config).items():
        inner = part.items() if isinstance(part, dict) else [("", part)]
        flat |= {f"{name}.{key}" if key else name: value for key, value in inner}
    shape = ("layers", "width", "heads", "kv_heads", "ffn_width")
    own = ("steps", "schedule.decay", *(f"model.{name}" for name in shape))
    return {k: v for k, v in flat.items() if k not in own and not k.startswith(_FREE)}
