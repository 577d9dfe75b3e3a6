"""The network as pure functions: declare, init, loss, apply, decode, counts."""

from model.count import Counts, counts
from model.inputs import Inputs
from model.network import (
    Cache,
    Declarations,
    Params,
    activations,
    apply,
    attention_backend,
    declare,
    decode,
    init,
    loss,
    round_matrices,
    start_cache,
    turn,
    with_rounded,
)
from model.parameters import Parameter
from model.placement import Placement

__all__ = [
    "Cache",
    "Counts",
    "Declarations",
    "Inputs",
    "Parameter",
    "Params",
    "Placement",
    "activations",
    "apply",
    "attention_backend",
    "counts",
    "declare",
    "decode",
    "init",
    "loss",
    "round_matrices",
    "start_cache",
    "turn",
    "with_rounded",
]
