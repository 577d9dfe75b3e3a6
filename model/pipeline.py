"""Layers on different devices: microbatches pass from stage to stage (Huang et al. 2019, GPipe).

With several rounds each stage holds as many groups of layers, and a microbatch passes through all
stages that often (the circular schedule of Narayanan et al. 2021, 2.2): group g of S x R groups
lies on stage g mod S. A step of the pipeline is a tick: every stage runs one group on one
microbatch and hands the result to the next stage. In tick k stage s works on job k - s; the jobs of
round r are the microbatches, in order, and then nothing until S ticks have passed, since the first
stage needs what the last one made of them.

    ticks = max(M, S) (R - 1) + M + S - 1        M microbatches, S stages, R rounds
    bubble = 1 - M R / ticks                     the share of ticks in which a stage is idle

Idle stages compute on whatever they hold, and nothing of it is used.

Shapes: m microbatches, b windows of one, t tokens, d width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.inputs import Inputs
from model.placement import STAGE, Placement

Run = Callable[[Any, jax.Array, Inputs, jax.Array], jax.Array]


def ticks(microbatches: int, stages: int, rounds: int) -> int:
    """How many ticks a batch takes, see above."""
    return max(microbatches, stages) * (rounds - 1) + microbatches + stages - 1


def bubble(microbatches: int, stages: int, rounds: int) -> float:
    """The share of ticks in which a stage is idle."""
    return 1 - microbatches * rounds / ticks(microbatches, stages, rounds)


def pipeline(
    placement: Placement, run: Run, layers: Any, x_btd: jax.Array, inputs: Inputs
) -> jax.Array:
    """What all layers make of all microbatches.

    Args:
        placement: the stages, the rounds and the windows of a microbatch.
        run: (layers of a group, x, inputs, number of its first layer) -> x.
        layers: this stage's share of the stacked layers, in their order.
        x_btd: all windows of this device; only the first stage's count.
        inputs: of the same windows.

    Returns:
        This stage's share of the windows, as `share` cuts them, after the last layer.
    """
    stages, rounds = placement.stage, placement.rounds
    x_mbtd = _microbatches(placement, x_btd)
    inputs_m = jax.tree.map(lambda a: _microbatches(placement, a), inputs)
    count = len(x_mbtd)
    layers = _deal(placement, layers)
    per_group = jax.tree.leaves(layers)[0].shape[1]
    stage = placement.index(STAGE)
    period = max(count, stages)
    onward = [(s, (s + 1) % stages) for s in range(stages)]

    def at(tick: jax.Array, stage: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The round and the microbatch that a stage works on, and whether these exist."""
        job = tick - stage
        turn, microbatch = job // period, job % period
        real = (job >= 0) & (microbatch < count) & (turn < rounds)
        return jnp.clip(turn, 0, rounds - 1), jnp.minimum(microbatch, count - 1), real

    def put_away(x_mbtd: jax.Array, arrived_btd: jax.Array, tick: jax.Array) -> jax.Array:
        """Keep what the last stage has made, for its next round or as the result."""
        _, microbatch, real = at(tick - 1, stages - 1)
        old_btd = jax.lax.dynamic_index_in_dim(x_mbtd, microbatch, keepdims=False)
        new_btd = jnp.where(real, arrived_btd, old_btd)
        return jax.lax.dynamic_update_index_in_dim(x_mbtd, new_btd, microbatch, 0)

    def one(carry: tuple[jax.Array, jax.Array], tick: jax.Array) -> tuple[Any, None]:
        x_mbtd, arrived_btd = carry
        x_mbtd = put_away(x_mbtd, arrived_btd, tick)
        turn, microbatch, _ = at(tick, stage)
        first_btd = jax.lax.dynamic_index_in_dim(x_mbtd, microbatch, keepdims=False)
        x_btd = jnp.where(stage == 0, first_btd, arrived_btd)
        group, own = jax.tree.map(
            lambda a, i: jax.lax.dynamic_index_in_dim(a, i, keepdims=False),
            (layers, inputs_m),
            (
                jax.tree.map(lambda _: turn, layers),
                jax.tree.map(lambda _: microbatch, inputs_m),
            ),
        )
        x_btd = run(group, x_btd, own, (turn * stages + stage) * per_group)
        return (x_mbtd, jax.lax.ppermute(x_btd, STAGE, onward)), None

    total = ticks(count, stages, rounds)
    start = (x_mbtd, jnp.zeros_like(x_mbtd[0]))
    x_mbtd, arrived_btd = jax.lax.scan(one, start, jnp.arange(total))[0]
    x_mbtd = put_away(x_mbtd, arrived_btd, jnp.int32(total))
    padded = jnp.pad(x_mbtd, [(0, -count % stages)] + [(0, 0)] * 3)
    # The first stage hands each stage its share; what the others hold is of no use.
    shared = jax.lax.psum_scatter(
        jnp.where(stage == 0, padded, 0), STAGE, scatter_dimension=0, tiled=True
    )
    return shared.reshape(-1, *x_btd.shape[1:])


def share(placement: Placement, a_b: jax.Array) -> jax.Array:
    """The part of something by windows that belongs to what `pipeline` returns here."""
    if placement.stage == 1:
        return a_b
    a_mb = _microbatches(placement, a_b)
    each = -(-len(a_mb) // placement.stage)
    padding = [(0, each * placement.stage - len(a_mb))] + [(0, 0)] * (a_mb.ndim - 1)
    own = jax.lax.dynamic_slice_in_dim(jnp.pad(a_mb, padding), placement.index(STAGE) * each, each)
    return own.reshape(-1, *a_b.shape[1:])


def unshare(placement: Placement, own_b: jax.Array, windows: int) -> jax.Array:
    """All stages' parts together again, in the order of the windows."""
    if placement.stage == 1:
        return own_b
    return jax.lax.all_gather(own_b, STAGE, tiled=True)[:windows]


def _microbatches(placement: Placement, a_b: jax.Array) -> jax.Array:
    size = min(placement.microbatch or len(a_b), len(a_b))
    return a_b.reshape(-1, size, *a_b.shape[1:])


def _deal(placement: Placement, layers: Any) -> Any:
    """From consecutive layers on each stage to groups dealt out in turn: [rounds, layers, ...].

    Checkpoints and optimizer know layers in their order, so they are exchanged in each update,
    which costs little beside sending every microbatch through.
    """
    stages, rounds = placement.stage, placement.rounds
    groups = jax.tree.map(lambda a: a.reshape(rounds, -1, *a.shape[1:]), layers)
    if rounds == 1:
        return groups
    # In turn `shift`, stage s sends to stage s + shift those of its groups that belong there.
    most = -(-rounds // stages)
    sent = np.zeros((stages, stages, most), np.int32)  # [shift, sender, n]: its n-th group to go
    slot = np.full((stages, stages, most), rounds, np.int32)  # [shift, receiver, n]: its place
    for shift in range(stages):
        for sender in range(stages):
            receiver = (sender + shift) % stages
            own = range(sender * rounds, (sender + 1) * rounds)
            going = [group for group in own if group % stages == receiver]
            for n, group in enumerate(going):
                sent[shift, sender, n] = group - sender * rounds
                slot[shift, receiver, n] = group // stages
    stage = placement.index(STAGE)

    def exchange(own: jax.Array) -> jax.Array:
        dealt = jnp.zeros_like(own)
        for shift in range(stages):
            going = jnp.take(own, jnp.asarray(sent)[shift, stage], axis=0, mode="clip")
            if shift:
                ways = [(s, (s + shift) % stages) for s in range(stages)]
                going = jax.lax.ppermute(going, STAGE, ways)
            dealt = dealt.at[jnp.asarray(slot)[shift, stage]].add(going, mode="drop")
        return dealt

    return jax.tree.map(exchange, groups)
