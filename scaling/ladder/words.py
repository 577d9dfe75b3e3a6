"""A ladder in words: its runs and their cost before it starts, what came of it afterwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.schema import Config
from scaling.ladder import jobs
from scaling.ladder.collect import Row
from scaling.ladder.design import Run, Trunk, step_tokens
from scaling.ladder.judge import STANDARD, Verdict
from scaling.ladder.timing import Timing, makespan, seconds_left


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def plan(
    out: Path,
    config: Config,
    planned: Sequence[Run],
    trunks: Sequence[Trunk],
    timings: Mapping[str, Timing],
    workers: int,
) -> str:
    """The table of runs, total operations, and the time that is left."""
    lines = [
        f"{'run':<16}{'N':>14}{'no embedding':>16}{'D':>15}{'D/N':>8}{'steps':>9}{'FLOPs':>11}"
    ]
    for run in planned:
        size = run.size
        note = "  held out" if run.held_out else ""
        note += "  finished" if jobs.finished(out / "runs" / run.name, run.steps) else ""
        lines.append(
            f"{run.name:<16}{size.parameters:>14,}{size.non_embedding:>16,}{run.tokens:>15,}"
            f"{run.tokens / size.parameters:>8.3g}{run.steps:>9,}{run.flops:>11.3g}{note}"
        )
    tokens = step_tokens(config)
    total, alone = sum(t.flops(tokens) for t in trunks), sum(run.flops for run in planned)
    lines.append(
        f"{len(planned)} runs, {total:.3g} FLOPs to train (PaLM's convention); {alone:.3g} without "
        "trunks in common"
    )
    left = [tokens * jobs.left(out, t) * t.size.flops_per_token for t in trunks]
    if sum(left) < total:
        lines.append(f"still to do: {sum(left):.3g} FLOPs")
    if all(trunk.size.name in timings for trunk in trunks):
        seconds = [seconds_left(out, trunk, timings[trunk.size.name]) for trunk in trunks]
        for trunk, each in zip(trunks, seconds, strict=True):
            timing = timings[trunk.size.name]
            rate = tokens * trunk.size.flops_per_token / timing.step
            lines.append(
                f"{trunk.size.name:<8} {1000 * timing.step:.4g} ms an update ({rate:.3g} FLOP/s), "
                f"{timing.start:.3g} s a start, {timing.evaluation:.3g} s an evaluation; "
                f"{duration(each)} left, by {timing.source}"
            )
        lines.append(f"time: about {duration(makespan(seconds, workers))} with {workers} at once")
    else:
        lines.append("time: not known, no size was timed")
    return "\n".join(lines)


def status(out: Path, trunks: Sequence[Trunk], timings: Mapping[str, Timing], workers: int) -> str:
    """How far the ladder is, for a line now and then."""
    runs = [run for trunk in trunks for run in trunk.runs]
    done = sum(jobs.finished(out / "runs" / run.name, run.steps) for run in runs)
    text = f"{done} of {len(runs)} runs are finished"
    if all(trunk.size.name in timings for trunk in trunks):
        seconds = [seconds_left(out, trunk, timings[trunk.size.name]) for trunk in trunks]
        text += f"; about {duration(makespan(seconds, workers))} left, less what is under way"
    return text


def outcome(rows: Sequence[Row], left_out: Mapping[str, str], verdict: Verdict) -> str:
    """What the runs came to, and how good the prediction was."""
    lines = [f"{'run':<16}{'N':>12}{'D':>12}{'loss':>9}{'+-':>9}"]
    for row in rows:
        error = "" if row["standard_error"] is None else f"{row['standard_error']:.4f}"
        note = "  held out" if row["held_out"] else ""
        lines.append(
            f"{row['run']:<16}{row['N']:>12,}{row['D']:>12,}{row['loss']:>9.4f}{error:>9}{note}"
        )
    lines += [f"left out: {name}: {why}" for name, why in left_out.items()]
    lines += [f"{f.severity}: {f.sentence} [{f.code}]" for f in verdict.findings]
    if verdict.fit is None:
        return "\n".join([*lines, f"no fit: {verdict.why_not}"])
    named = ", ".join(f"{name} = {value:.5g}" for name, value in verdict.fit.parameters.items())
    lines.append(f"{STANDARD[0]}, {STANDARD[1]}, {verdict.fit.n} runs: {named}")
    lines += [f"warn: {sentence}" for sentence in verdict.fit.flags.values()]
    lines += [_verdict(each) for each in verdict.held_out]
    for each in verdict.beside:
        said = ", ".join(f"{error:+.2%}" for error in each["errors"]) or each["why_not"]
        lines.append(f"beside: {each['law']}, {each['objective']}: {said}")
    return "\n".join(lines)


def _verdict(said: Mapping[str, Any]) -> str:
    inside = "inside" if said["inside"] else "OUTSIDE"
    text = (
        f"held out: {said['run']}, {said['compute_ratio']:.3g} times the operations of the largest "
        f"run that was fitted: predicted {said['prediction']:.4f} "
        f"({said['level']:.0%}: {said['lower']:.4f} to {said['upper']:.4f}), came out at "
        f"{said['loss']:.4f}: off by {said['error']:+.2%}, {inside} the interval"
    )
    return f"{text}\n  {said['why']}" + (f"\n  warn: {said['warning']}" if said["warning"] else "")
