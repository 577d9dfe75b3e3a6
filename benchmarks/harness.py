"""Contenders in turn on one machine: medians over rounds, and ratios within a round.

A machine that is shared changes its speed from minute to minute. So every contender works a short
while in each round, ratios are taken within a round, and what is reported is their median and
range. Each contender is a process of its own, so that none warms another's caches or threads; it
waits, without using the machine, until it is asked for its next burst. All of them keep the memory
that they free, as `python -m train` does.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from train import cpu

ROOT = Path(__file__).resolve().parent.parent


class Unavailable(Exception):
    """A contender cannot run here, and why."""


class Contender:
    """A process that answers each line it reads with a line of JSON, after one that says ready."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = command
        variables = {**os.environ, **cpu.KEEP, **cpu.ONE_ARENA, **(environment or {})}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={name: value for name, value in variables.items() if value},
        )
        self.facts = self._answer()

    def burst(self) -> dict[str, float]:
        """What the contender measured this time."""
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        code = self.process.wait()
        self._close()
        raise Unavailable(f"{' '.join(self.command)} ended with {code}")

    def _close(self) -> None:
        with self.process:  # waits, and closes the pipes
            self.process.kill()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


def serve(facts: dict[str, Any], burst: Callable[[], dict[str, float]]) -> None:
    """The other side: say ready, then measure each time a line comes, until there is no more."""
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(json.dumps(burst()), flush=True)


class Steal(NamedTuple):
    """Time of all cores since the machine started, in ticks, and what of it others took."""

    stolen: int
    total: int

    @classmethod
    def now(cls) -> "Steal":
        """Read it; zeros where the system does not tell."""
        place = Path("/proc/stat")
        if not place.exists():
            return cls(0, 0)
        ticks = [int(value) for value in place.read_text().split("\n")[0].split()[1:9]]
        return cls(ticks[7], sum(ticks))

    def share_since(self, before: "Steal") -> float:
        """The share of the time that was taken since then."""
        return (self.stolen - before.stolen) / max(1, self.total - before.total)


def alternate(
    commands: Mapping[str, tuple[Sequence[str], Mapping[str, str]]], rounds: int
) -> dict[str, Any]:
    """Bursts of every contender in each of `rounds`, after one round that does not count.

    A contender is a command and variables of its environment; an empty one is taken away.
    A contender that cannot start is named with the reason and left out.
    """
    before = Steal.now()
    with ExitStack() as stack:
        running: dict[str, Contender] = {}
        missing: dict[str, str] = {}
        for name, (command, environment) in commands.items():
            try:
                running[name] = stack.enter_context(Contender(command, environment))
            except Unavailable as reason:
                missing[name] = str(reason)
        found = [
            {name: contender.burst() for name, contender in running.items()}
            for _ in range(rounds + 1)
        ][1:]
        facts = {name: contender.facts for name, contender in running.items()}
    state = {"load": os.getloadavg()[0], "steal": Steal.now().share_since(before)}
    return {"facts": facts, "missing": missing, "rounds": found, "state": state}


class Summary(NamedTuple):
    """Middle and ends of what was seen."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g} to {self.high:.3g}]"


def summary(values: Sequence[float]) -> Summary:
    """Their median, least and most."""
    return Summary(statistics.median(values), min(values), max(values))


def ratio(rounds: Sequence[Mapping], name: str, peer: str, key: str = "seconds") -> Summary:
    """How many times the speed of the peer a contender has: the peer's seconds over its own."""
    return summary([each[peer][key] / each[name][key] for each in rounds])


def machine() -> dict[str, Any]:
    """What a figure has to be read with."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in info.split("\n") if "model name" in line]
    packages = ("jax", "flax", "optax", "torch", "transformers", "tensorflow-cpu", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": next(iter(names), platform.machine()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned for people who read it as it is."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def write(path: Path | None, results: dict[str, Any]) -> None:
    """The results with the machine they are from, where a file was asked for."""
    if path:
        path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
        print(f"as JSON: {path}")


def parser(doc: str | None, rounds: int = 8) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=rounds, help="that count")
    made.add_argument("--json", type=Path, help="write all of it to this file")
    return made
