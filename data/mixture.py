"""Which source a sample of the run comes from, and how many of that source came before it.

A sample is a window in the order of training. The run has stages, each with its own weights of the
sources, and a stage is dealt in blocks of BLOCK samples. In every block each source has the same
whole number of samples, its quota, and a permutation keyed by (seed, stage, block) puts them in
order. So the proportions hold exactly in each block; the samples of a source, counted in the order
in which they come, have no gap and no double, also where a stage ends within a block; and any
sample of the run costs one block at most, which is kept for those that follow.

Legend: b samples asked for, m positions in a block, s sources.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor

import numpy as np

from configs.schema import Blend, require
from data import order

BLOCK = 2**16
BLOCKS_KEPT = 8  # 256 kB each: fetches under way are in two at most, and other runs have theirs


@dataclass(frozen=True)
class Stage:
    """A part of the run with one set of proportions."""

    first: int  # its first sample
    quotas: tuple[int, ...]  # samples of each source in a block
    before: tuple[int, ...]  # samples of each source in the stages before
    key: tuple[object, ...]  # with the number of a block, what that one's permutation is keyed by


def weights(blend: Blend, tokens: Mapping[str, int]) -> list[float]:
    """The weight of each source in `tokens`, which says how many tokens it has to train on.

    Given weights are taken as they are. Else a source weighs tokens ** (1 / temperature), as in
    multilingual BERT and mT5 (arXiv:2010.11934, section 3.2), up to a common factor.

    Raises:
        InputError: a source is not there, or has nothing to train on.
    """
    if not blend.weights:
        largest = max(tokens.values(), default=0)
        require(largest > 0, "data.mixture: the store has no tokens to train on: build it anew")
        return [(n / largest) ** (1 / blend.temperature) if n else 0.0 for n in tokens.values()]
    given = dict(blend.weights)
    for source, weight in given.items():
        require(
            source in tokens,
            f"data.mixture: the store has no source {source!r}: choose among "
            f"{', '.join(map(repr, tokens))}",
        )
        require(
            not weight or tokens[source] > 0,
            f"data.mixture: source {source!r} has weight {weight:g} but no window to train on: "
            "leave it out, or build the store with more of it",
        )
    return [given.get(source, 0.0) for source in tokens]


def quotas(weights_s: Sequence[float]) -> tuple[int, ...]:
    """Shares of BLOCK in whole numbers, by largest remainder; at least 1 where a weight is not 0.

    Ties go to the source named first. Exact in rational numbers, so the same on every machine.
    """
    positive = sum(weight > 0 for weight in weights_s)
    require(positive <= BLOCK, f"data.mixture: at most {BLOCK:,} sources can have a weight")
    total = sum(map(Fraction, weights_s))
    exact = [Fraction(weight) * BLOCK / total for weight in weights_s]
    found = [max(floor(share), int(share > 0)) for share in exact]
    missing = BLOCK - sum(found)
    by_remainder = sorted(range(len(found)), key=lambda s: found[s] - exact[s])
    for source in by_remainder[: max(0, missing)]:
        found[source] += 1
    for _ in range(-missing):  # what the least sources were given, the largest give
        found[found.index(max(found))] -= 1
    return tuple(found)


def deal(
    firsts: Sequence[int], weights_by_stage: Sequence[Sequence[float]], seed: int
) -> tuple[Stage, ...]:
    """The stages of a run, given the first sample of each and the weights of all sources in it."""
    stages: tuple[Stage, ...] = ()
    for index, (first, weights_s) in enumerate(zip(firsts, weights_by_stage, strict=True)):
        before = tuple(counts(stages, first).tolist()) if stages else (0,) * len(weights_s)
        stages += (Stage(first, quotas(weights_s), before, (seed, "mixture", index)),)
    return stages


def locate(stages: Sequence[Stage], first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of samples first .. first + count - 1: their sources_b, and how many of each came before_b.

    Both are int64. Sources are numbered as in the weights.
    """
    parts = []
    while count:
        stage, block, at, room = _find(stages, first)
        taken = min(count, room)
        sources_m, ranks_m = _block(stage.quotas, order.key(*stage.key, block))
        sources_b = sources_m[at : at + taken].astype(np.int64)
        start_s = np.array(stage.before) + block * np.array(stage.quotas)
        parts.append((sources_b, start_s[sources_b] + ranks_m[at : at + taken]))
        first, count = first + taken, count - taken
    sources, before = zip(*parts, strict=True)
    return np.concatenate(sources), np.concatenate(before)


def counts(stages: Sequence[Stage], samples: int) -> np.ndarray:
    """How many of the first `samples` samples of the run each source has: counts_s, int64."""
    stage, block, at, _ = _find(stages, samples)
    sources_m, _ = _block(stage.quotas, order.key(*stage.key, block))
    in_block_s = np.bincount(sources_m[:at], minlength=len(stage.quotas))
    return np.array(stage.before) + block * np.array(stage.quotas) + in_block_s


def _find(stages: Sequence[Stage], sample: int) -> tuple[Stage, int, int, int]:
    """Where a sample lies: its stage, block and place there; samples from it to the next edge."""
    index = bisect_right(stages, sample, key=lambda stage: stage.first) - 1
    stage = stages[index]
    block, at = divmod(sample - stage.first, BLOCK)
    ends = [BLOCK - at] + [later.first - sample for later in stages[index + 1 : index + 2]]
    return stage, block, at, min(ends)


@lru_cache(BLOCKS_KEPT)
def _block(quotas_s: tuple[int, ...], key: int) -> tuple[np.ndarray, np.ndarray]:
    """The source at each place of a block, and how many of it the block has before: uint16.

    A source owns as many of the values that the permutation takes as its quota. Within a source
    those values come in no order, so samples are counted in the order of their places instead: only
    then is what a stage uses of a block that it does not finish a run of numbers without gaps.
    """
    owners_m = np.repeat(np.arange(len(quotas_s)).astype(np.uint16), quotas_s)
    sources_m = owners_m[order.permute(np.arange(BLOCK), BLOCK, key)]
    ranks_m = np.empty(BLOCK, np.uint16)
    starts_s = np.cumsum(quotas_s) - quotas_s
    # A stable sort lists the places of each source in turn; numpy sorts 16 bits by radix.
    by_source_m = np.argsort(sources_m, kind="stable")
    ranks_m[by_source_m] = np.arange(BLOCK) - np.repeat(starts_s, quotas_s)
    for kept in (sources_m, ranks_m):
        kept.setflags(write=False)
    return sources_m, ranks_m
