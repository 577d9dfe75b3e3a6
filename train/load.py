"""A trained model back from its run directory."""

from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

import model
from configs.schema import Config, InputError, require
from data import tokenizer as tokenizers
from parallel.mesh import fitting_mesh
from train import record
from train.checkpoint import Reader
from train.state import abstract


class Trained(NamedTuple):
    """A checkpoint with what is needed to use it."""

    config: Config  # with the mesh that it lies on here
    mesh: Mesh
    step: int
    params: model.Params
    tokenizer: tokenizers.Tokenizer


def load_run(workdir: Path, which: str = "latest") -> Trained:
    """Load the parameters of a run, onto its own mesh or one that the devices here can make.

    Args:
        workdir: the run directory; nothing in it is changed.
        which: "latest" (the newest that is intact), "best" (by validation loss), or a step.

    Raises:
        InputError: there is no such run or checkpoint, or it is damaged.
    """
    config, mesh = fitting_mesh(record.read_config(workdir))
    reader = Reader(workdir / record.CHECKPOINTS)
    restored = reader.restore(abstract(config, mesh), _step(reader, which))
    return Trained(config, mesh, restored.step, restored.state.params, _tokenizer(workdir))


def _step(reader: Reader, which: str) -> int | None:
    if which == "latest":
        return None
    if which == "best":
        best = reader.best()
        require(best is not None, f"no checkpoint in {reader.directory} has a validation loss yet")
        return best
    steps = reader.steps()
    if which.isdecimal() and int(which) in steps:
        return int(which)
    raise InputError(
        f"--checkpoint={which} is neither latest, nor best, nor one of the steps in "
        f"{reader.directory}: {', '.join(map(str, steps)) or 'none yet'}"
    )


def _tokenizer(workdir: Path) -> tokenizers.Tokenizer:
    name = record.read_run(workdir).get("data", {}).get("tokenizer")
    require(bool(name), f"{workdir} was trained on random tokens: it has no text to read or write")
    return tokenizers.load(workdir / name)
