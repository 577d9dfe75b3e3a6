"""Try meshes, microbatches and remat policies: formulas rank all, the compiler judges the best."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from configs.schema import Config, InputError, require
from parallel import chips
from parallel.chips import GIB
from parallel.compile import topology
from parallel.compile.plan import EFFICIENCY, Guess, choices, guess
from parallel.mesh import make_mesh

SHOWN = 10


@dataclasses.dataclass
class Scale:
    """How far the formulas are off, by what was compiled so far with each remat policy."""

    efficiency: dict[str, float] = dataclasses.field(default_factory=dict)
    temporaries: dict[str, float] = dataclasses.field(default_factory=dict)

    def step(self, config: Config, guessed: Guess) -> float:
        """Corrected seconds of an update."""
        return guessed.step(self.efficiency.get(config.model.remat, EFFICIENCY))

    def memory(self, config: Config, guessed: Guess) -> float:
        """Corrected bytes of a device."""
        factors = list(self.temporaries.values()) or [1.0]
        factor = self.temporaries.get(config.model.remat, sum(factors) / len(factors))
        return guessed.state + factor * guessed.temporaries

    def learn(self, config: Config, guessed: Guess, report: dict[str, Any]) -> None:
        """Take in a compiled report."""
        total = report["bytes_per_device"]["total"]
        self.temporaries[config.model.remat] = (total - guessed.state) / guessed.temporaries
        if "seconds" in report:
            s = report["seconds"]
            spent = s["step"] - s["network_exposed"]
            reached = min(1.0, max(0.2, guessed.busy / spent))
            self.efficiency[config.model.remat] = reached


def search(
    config: Config,
    where: topology.Topology,
    minutes: float,
    compile_step: Callable[[Config, topology.Topology], dict[str, Any]],
) -> dict[str, Any]:
    """Rank what fits by the predicted seconds of an update.

    Args:
        config: the run; its mesh (but for slices), microbatch and remat are what is chosen.
        where: what for.
        minutes: after which no further compilation is begun.
        compile_step: parallel.compile.__main__.compile_step.

    Returns:
        JSON: `choices` (compiled and fitting, fastest first; reports with `flags`), `refused`
        (compiled and too large), `considered`, `minutes`.

    Raises:
        InputError: nothing divides, or the chip's figures are unknown.
    """
    began = time.monotonic()
    devices = topology.devices(where)
    chip = chips.find(devices[0].device_kind)
    if chip is None or not chip.memory:
        raise InputError(f"--search: nothing is known of {where.name}'s chip: choose a TPU or GPU")
    guesses = _guess_all(config, devices, where, chip)
    require(bool(guesses), f"--search: no mesh of {len(devices)} devices divides this model and "
            "batch: change batch.size or the topology")  # fmt: skip
    print(f"{len(guesses)} choices; compiling the best for {minutes:g} minutes")
    scale, longest = Scale(), 0.0
    fitting: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    tried: list[Config] = []
    while (time.monotonic() - began + longest) / 60 < minutes:
        best = _next(guesses, tried, scale, chip.memory)
        if best is None or (fitting and scale.step(*best) > 1.2 * _fastest(fitting)):
            break
        candidate, guessed = best
        tried.append(candidate)
        print(f"compiling {flags(candidate)}", flush=True)
        start = time.monotonic()
        report = compile_step(candidate, where) | {"flags": flags(candidate)}
        longest = max(longest, time.monotonic() - start)
        scale.learn(candidate, guessed, report)
        (fitting if report["fits"] else refused).append(report)
        print(f"  {_row(report)}", flush=True)
    fitting.sort(key=lambda report: report["seconds"]["step"])
    print(_table(fitting))
    return {
        "choices": fitting,
        "refused": refused,
        "considered": len(guesses),
        "minutes": (time.monotonic() - began) / 60,
    }


def _guess_all(
    config: Config, devices: list[Any], where: topology.Topology, chip: chips.Chip
) -> list[tuple[Config, Guess]]:
    meshes: dict[Any, Mesh] = {}
    found = []
    for choice in choices(config, len(devices)):
        mesh = meshes.get(choice.mesh)
        if mesh is None:
            try:
                mesh = make_mesh(choice, devices)
            except InputError:  # the wires have no such shape
                continue
            meshes[choice.mesh] = mesh
        found.append((choice, guess(choice, mesh, where, chip)))
    return found


def _next(
    guesses: list[tuple[Config, Guess]],
    tried: list[Config],
    scale: Scale,
    limit: float,
) -> tuple[Config, Guess] | None:
    """The fastest choice, as far as the formulas know, that should fit and was not tried."""
    left = [
        (choice, guessed)
        for choice, guessed in guesses
        if choice not in tried and scale.memory(choice, guessed) <= limit
    ]
    return min(left, key=lambda pair: scale.step(*pair), default=None)


def _fastest(fitting: list[dict[str, Any]]) -> float:
    return min(report["seconds"]["step"] for report in fitting)


def flags(config: Config) -> str:
    """The choice as flags to copy."""
    mesh = dataclasses.asdict(config.mesh)
    shown = {f"mesh.{axis}": size for axis, size in mesh.items() if size != 1 or axis == "data"}
    shown |= {"batch.microbatch": config.batch.microbatch, "model.remat": config.model.remat}
    return " ".join(f"--config.{name}={value}" for name, value in shown.items())


def _row(report: dict[str, Any]) -> str:
    size = f"{report['bytes_per_device']['total'] / GIB:8.2f} GiB"
    if "seconds" not in report:
        return f"{size}  does not fit"
    verdict = "" if report["fits"] else "  does not fit"
    return (
        f"{size} {report['seconds']['step']:9.3f} s  MFU {report['mfu']['palm']:6.1%} (PaLM) "
        f"{report['mfu']['strict']:6.1%} (strict){verdict}"
    )


def _table(fitting: list[dict[str, Any]]) -> str:
    if not fitting:
        return "nothing that was compiled fits: more devices, or a smaller model"
    rows = [f"{_row(report)}  {report['flags']}" for report in fitting[:SHOWN]]
    return "\nwhat fits, fastest first\n" + "\n".join(rows)
