"""The batch size that a run's own gradients ask for.

    python -m scaling.batch --workdir=RUN --json=batch.json

The run must have measured its gradient noise (--config.batch.noise_scale=true). Printed are the
noise scale B_simple = tr(Sigma) / |G|^2 as it grew, the critical batch over the run, and what other
batches would cost in time and in data to reach the same loss. B_simple stands for the critical
batch where the loss is equally curved in all directions and the learning rate is tuned to each
batch (McCandlish et al. 2018): take it for right within a factor of a few.
"""

import dataclasses

import numpy as np
from absl import flags

from configs.flags import main
from configs.schema import InputError
from scaling import record
from scaling.batch.run import Measured, measure

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory")
_STRETCHES = flags.DEFINE_integer("stretches", 4, "that the run is cut into", lower_bound=1)
_LEVEL = flags.DEFINE_float("level", 0.95, "of the intervals")
_JSON = flags.DEFINE_string("json", "", "write what was found to this file")


def run() -> None:
    """The command."""
    if not _WORKDIR.value:
        raise InputError("no run: name its directory with --workdir=RUN")
    found = measure(_WORKDIR.value, _STRETCHES.value, _LEVEL.value)
    for line in lines(found, _LEVEL.value):
        print(line)
    record.write(_JSON.value, "json", values(found))


def lines(found: Measured, level: float) -> list[str]:
    """What is printed."""
    out = [f"{'updates':>17}  {'loss':>7}  noise scale in tokens ({level:.0%} interval)"]
    for each in found.stretches:
        low, high = each.interval
        out.append(
            f"{each.first_step:>8}-{each.last_step:<8}  {each.loss:7.4f}  {each.noise.value:.4g} "
            f"({low:.4g} to {high:.4g})"
        )
    if np.isfinite(found.growth):
        out.append(f"it goes as loss^{found.growth:.2f} (Kaplan et al. 2020: loss^-4.76)")
    used = found.stretches[-1].batch
    low, high = found.interval
    out.append(
        f"critical batch over the run: {found.critical:.4g} tokens ({low:.4g} to {high:.4g}), "
        f"{found.critical / found.window:.4g} windows; the run used {used:.4g} tokens at the end"
    )
    out.append(f"suggested: batch.size={found.suggested}, at twice the least time and data")
    out.append(f"{'batch (tokens)':>16}{'updates':>12}{'data (tokens)':>16}")
    for steps, data, at in found.trades():
        out.append(f"{at.batch:>16.4g}{steps:>12.4g}{data:>16.4g}")
    return out


def values(found: Measured) -> dict:
    """The same as plain values."""
    out = dataclasses.asdict(found) | {"suggested_windows": found.suggested}
    for shown, each in zip(out["stretches"], found.stretches, strict=True):
        shown["interval"] = list(each.interval)
    trades = [
        {"batch": at.batch, "steps": steps, "data": data} for steps, data, at in found.trades()
    ]
    return out | {
        "stretches": list(out["stretches"]),
        "interval": list(found.interval),
        "trades": trades,
    }


if __name__ == "__main__":
    main(run)
