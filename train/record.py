"""A run directory: where things lie in it, and its account of the run, config.json and run.json.

docs/run_directory.md lists every file and key.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.schema import Config, InputError, require, to_dict

CONFIG = "config.json"
RUN = "run.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
CURVE = "loss.png"
FORMAT = 1  # of run.json and metrics.jsonl

# What may differ when a run goes on: none of it touches the parameters, the mesh but by rounding.
# Where the store lies is one of them, because its fingerprint says whether it is the same store.
FREE = (
    *("log_every", "evaluation.", "checkpoints.", "early_stop.", "mesh.", "data.path"),
    "batch.noise_scale",
)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write_json(path: Path, value: Any) -> None:
    """Write a file that is never seen half written."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_config(workdir: Path) -> Config:
    """The config of the run in a directory.

    Raises:
        InputError: there is none, or it cannot be understood.
    """
    path = workdir / CONFIG
    require(path.is_file(), f"{workdir} holds no run ({CONFIG} is missing): check --workdir")
    try:
        return _build(Config, json.loads(path.read_bytes()))
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} is not a config that this version understands ({error}): "
            "check out the version named in run.json"
        ) from None


def _build(kind: Any, value: Any) -> Any:
    """Nested plain values as the dataclass `kind`, lists as tuples."""
    if dataclasses.is_dataclass(kind):
        kinds = typing.get_type_hints(kind)
        return kind(**{name: _build(kinds[name], part) for name, part in value.items()})  # type: ignore[operator]
    return tuple(_build(None, part) for part in value) if isinstance(value, list) else value


def read_run(workdir: Path) -> dict[str, Any]:
    """run.json, or an empty dict before there is one."""
    path = workdir / RUN
    return json.loads(path.read_bytes()) if path.is_file() else {}


def changes(workdir: Path, config: Config, fingerprint: str) -> list[str]:
    """How a run would go on other than it began, in words; empty when it would not.

    Args:
        workdir: of a run that began.
        config: what it is asked to go on with.
        fingerprint: of the token store it is asked to go on with.
    """
    before, after = (dict(_flat(to_dict(c))) for c in (read_config(workdir), config))
    found = [
        f"{key} {before[key]} -> {after[key]}"
        for key in after
        if before[key] != after[key] and not key.startswith(FREE)
    ]
    trained_on = read_run(workdir).get("data", {}).get("fingerprint", fingerprint)
    if trained_on != fingerprint:
        found.append(f"token store {trained_on[:12]} -> {fingerprint[:12]}")
    return found


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{prefix}{name}.")
        else:
            yield prefix + name, part


def versions() -> dict[str, str]:
    """What computed this: Python, the packages that matter, and this project's own commit."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found, "commit": _commit()}


def _commit() -> str:
    """The commit of the clone, "-dirty" with changes, empty where there is no git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()
