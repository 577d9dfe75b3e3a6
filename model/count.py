"""Exact counts of parameters and of floating-point operations, from the declarations.

A multiply-add is two operations. Padding of the vocabulary is left out: it is memory, not model.
Training costs three forward passes (Kaplan et al. 2020, 2.1): one forward, two for the gradients.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax

from configs.schema import Model
from model.network import declare
from model.parameters import Parameter

Convention = Literal["6n", "palm", "strict"]


@dataclass(frozen=True)
class Counts:
    """What a model holds and what one token costs.

    Parameters, by use: `embedding` (token table, also the head when tied), `positions` (learned
    table), `head` (output table when untied), `matrices` (of the blocks), `vectors` (scales and
    biases). Operations of the forward pass for one token of a full window: `flops_matrices`,
    `flops_head`, `flops_attention` (all pairs of tokens within the windows) and
    `flops_attention_causal` (only the pairs that are not masked).
    """

    embedding: int
    positions: int
    head: int
    matrices: int
    vectors: int
    flops_matrices: int
    flops_head: int
    flops_attention: int
    flops_attention_causal: int

    @property
    def parameters(self) -> int:
        """All of them: what a checkpoint holds."""
        return self.embedding + self.positions + self.head + self.matrices + self.vectors

    @property
    def non_embedding(self) -> int:
        """Without the token, position and output tables (Kaplan et al. 2020)."""
        return self.matrices + self.vectors

    @property
    def forward_flops(self) -> int:
        """Operations of the forward pass for one token, attention counted in full."""
        return self.flops_matrices + self.flops_head + self.flops_attention

    def flops_per_token(self, convention: Convention = "palm") -> int:
        """Training operations for one token.

        6n: 6 * all parameters (Kaplan et al. 2020). palm: adds attention over all pairs (Chowdhery
        et al. 2022, appendix B). strict: only what is multiplied (no lookup tables, the head
        included) and only the pairs that causality and windows leave.
        """
        if convention == "6n":
            return 6 * self.parameters
        if convention == "palm":
            return 6 * self.parameters + 3 * self.flops_attention
        return 3 * (self.flops_matrices + self.flops_head + self.flops_attention_causal)


def counts(config: Model) -> Counts:
    """Count a model. Nothing is allocated: sizes come from the declarations."""
    sizes = {"embedding": 0, "positions": 0, "head": 0, "matrices": 0, "vectors": 0}
    for path, parameter in jax.tree.leaves_with_path(declare(config)):
        sizes[_use(path, parameter)] += _size(config, parameter)
    scores = 4 * config.heads * config.head_dim if config.kind == "transformer" else 0
    spans = [config.windows[i % len(config.windows)] for i in range(config.layers)]
    return Counts(
        **sizes,
        flops_matrices=2 * sizes["matrices"],
        flops_head=2 * config.vocab * config.width,
        flops_attention=sum(scores * min(w or config.context, config.context) for w in spans),
        flops_attention_causal=round(sum(scores * _mean_span(config.context, w) for w in spans)),
    )


def _mean_span(context: int, window: int) -> float:
    """Tokens seen on average: half the context, or nearly the window when that is shorter."""
    reach = min(window or context, context)
    return reach - reach**2 / (2 * context)


def _use(path: tuple[Any, ...], parameter: Parameter) -> str:
    if parameter.kind == "embedding":
        return "positions" if path[-1].key == "positions" else "embedding"
    return {"matrix": "matrices", "vector": "vectors", "head": "head"}[parameter.kind]


def _size(config: Model, parameter: Parameter) -> int:
    sizes = zip(parameter.axes, parameter.shape, strict=True)
    return math.prod(config.vocab if axis == "vocab" else size for axis, size in sizes)
