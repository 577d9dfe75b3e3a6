"""What a recipe takes on a machine: compiled for it where that is possible, else by its peak."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import InputError

# What training reaches of the dense peak, in published runs of dense models: 46 % PaLM 540B
# (Chowdhery et al. 2022, table 3), 38 to 43 % Llama 3 405B (Grattafiori et al. 2024, table 4),
# 55 % MegaScale 175B (Jiang et al. 2024, table 2), 33 % Gopher 280B (PaLM, table 3).
USUAL_MFU = (0.33, 0.4, 0.55)

_ENVIRONMENT = dict(os.environ)  # of the compiler, whatever this process sets for itself
_DONE, _TOO_LARGE = 0, 4  # exit codes of parallel.compile; 2: wrong input, or no compiler
_KINDS = {"v4": "TPU v4", "v5e": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6", "tpu7x": "TPU7x"}
_KINDS |= {"h100": "NVIDIA H100", "h200": "NVIDIA H200", "cpu": "cpu"}
_FIGURES = """
import json, math, sys
from parallel import chips
from parallel.compile import topology
from configs.schema import InputError
try:
    found = topology.parse(sys.argv[1])
except InputError as error:
    sys.exit(f"error: {error}")
chip = chips.find(json.loads(sys.argv[2])[found.family])
devices = found.slices * math.prod(found.shape) * (2 if found.family == "tpu7x" else 1)
print(json.dumps([devices, chip.flops if chip else 0.0]))
"""


@dataclass(frozen=True)
class Machine:
    """Devices, and the dense bfloat16 operations a second of one; 0 where nobody publishes it."""

    topology: str
    devices: int
    peak: float


@dataclass(frozen=True)
class Hours:
    """How long a run takes on the whole machine, and by what that is known."""

    hours: float
    lower: float
    upper: float
    why: str
    report: dict[str, Any] | None  # of parallel.compile, where it compiled
    fits: bool | None  # None: unknown


def describe(topology: str) -> Machine:
    """The machine of a topology's name. Raises InputError for a name there is none of."""
    done = _python("-c", _FIGURES, topology, json.dumps(_KINDS))
    if done.returncode:
        raise InputError(_sentence(done))
    devices, peak = json.loads(done.stdout.splitlines()[-1])
    return Machine(topology, devices, peak)


def hours(
    recipe: Path,
    steps: int,
    flops: float,
    machine: Machine,
    flags: Sequence[str] = (),
    search_minutes: float = 0,
) -> Hours:
    """The hours of `steps` updates by the compiled program, or of `flops` by the peak.

    The compiled program's seconds are a lower bound (docs/compile.md): the lower end of the
    interval. The upper end is what the least of the usual shares of the peak would take, and the
    expected time that of the middle one, or the compiled program's where that is more.

    Raises InputError where nothing is known of the machine's speed.
    """
    report, why = _compiled(recipe, machine.topology, flags, search_minutes)
    fits = report["fits"] if report else None
    step = (report.get("seconds") or {}).get("step") if report else None
    if not machine.peak and step is None:
        raise InputError(
            f"--topology={machine.topology}: nobody publishes the speed of these devices, so that "
            "no time can be predicted: name another, or time a few updates there"
        )
    if not machine.peak:
        own = steps * step / 3600  # type: ignore[operator]
        return Hours(own, own, own, why, report, fits)
    high, middle, low = (
        flops / (machine.devices * machine.peak * share * 3600) for share in USUAL_MFU
    )
    if step is None:
        return Hours(middle, low, high, why, report, fits)
    own = steps * step / 3600
    return Hours(max(middle, own), own, max(high, own), why, report, fits)


def _compiled(
    recipe: Path, topology: str, flags: Sequence[str], search_minutes: float
) -> tuple[dict[str, Any] | None, str]:
    """The report of parallel.compile, and what the hours rest on, in words."""
    low, middle, high = (f"{share:.0%}" for share in USUAL_MFU)
    usual = f"{middle} of the peak, {low} to {high} being usual"
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        out = Path(folder, "report.json")
        search = ["--search", f"--minutes={search_minutes:g}"] if search_minutes else []
        done = _python(
            *("-m", "parallel.compile", f"--config={recipe}", f"--topology={topology}"),
            *(f"--json={out}", *search, *flags),
        )
        if done.returncode not in (_DONE, _TOO_LARGE):
            return None, f"by {usual}; it could not be compiled: {_sentence(done)}"
        report = json.loads(out.read_text())
    if search:
        if not report["choices"]:
            return {"fits": False, **report}, f"by {usual}; no mesh that was tried fits"
        report = report["choices"][0]
    if not (report.get("seconds") or {}).get("step"):
        return report, f"by {usual}; the compiled program gives no time"
    bound = report["seconds"]["step"]
    return report, f"compiled: {bound:.4g} s an update at least; by {usual}"


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def _sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The error a program ended with, or its last line."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else lines[-1] if lines else f"exit code {done.returncode}"
