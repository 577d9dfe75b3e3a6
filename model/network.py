"""The functions the rest of the project knows the network by. What is behind them can change.

Shapes: b batch, t time, v padded vocabulary. Parameters are nested dicts of float32 arrays.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from configs.schema import Model
from model import float8, lstm, transformer
from model import turned as turned_matrices
from model.attention import choose, scores
from model.inputs import Inputs, Targets, split, token_keys
from model.layers import Embedding, FeedForward
from model.linear import linear_float32
from model.loss import Sums, cross_entropy, logits
from model.parameters import Declared, Parameter
from model.pipeline import share, unshare
from model.placement import Placement, here

Params = dict[str, Any]
Declarations = dict[str, Any]  # the same tree with a Parameter at each leaf


class Cache(NamedTuple):
    """What generation remembers: the layers' state and how many tokens each row has read."""

    layers: tuple
    length_b: jax.Array


def attention_backend(config: Model, placement: Placement) -> str:
    """The attention that runs there: what was asked for, or what "auto" stands for.

    Raises:
        InputError: the one asked for cannot run there.
    """
    return choose(config, placement) if config.kind == "transformer" else "none"


def _network(config: Model, placement: Placement) -> nn.Module:
    kind = lstm.LSTM if config.kind == "lstm" else transformer.Transformer
    return kind(config, placement)


def _boxed(config: Model, key: jax.Array) -> Any:
    token = jnp.zeros((1, 1), jnp.int32)
    # Kernels need more than one token, and what is returned does not depend on the attention.
    network = _network(dataclasses.replace(config, attention="xla"), here())
    return network.init(key, Inputs(token, None, token), None)["params"]


@functools.cache  # tracing a network takes a tenth of a second
def declare(config: Model) -> Declarations:
    """Every parameter's declaration. Nothing is allocated."""
    boxes = jax.eval_shape(lambda: _boxed(config, jax.random.key(0)))
    return jax.tree.map(lambda box: box.parameter, boxes, is_leaf=_is_box)


def round_matrices(config: Model, params: Params, placement: Placement) -> Any:
    """What the blocks multiply with in place of their float32 matrices; None: with these.

    Raises:
        InputError: 8-bit products are asked for where they would not be fast.
    """
    float8.check(config, placement)
    if config.matrix_dtype != "float8":
        return None
    return float8.prepare(params, declare(config), placement)


def with_rounded(params: Params, rounded: Any) -> Params:
    """Parameters for `loss` with what round_matrices made of them; gradients are the former's."""
    return params if rounded is None else float8.join(params, rounded)


def init(config: Model, key: jax.Array) -> Params:
    """Initial parameters; each one's key derives from `key` and its path."""
    return jax.tree.map(Declared.unbox, _boxed(config, key), is_leaf=_is_box)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, Declared)


def features(
    config: Model, params: Params, inputs: Inputs, placement: Placement
) -> tuple[jax.Array, jax.Array]:
    """Final hidden states [b, t, d] and the float32 output table [v, d], or the shares of these."""
    x_btd, head_vd, _ = _run(_network(config, placement), params, inputs, None)
    return x_btd, head_vd


def _run(network: nn.Module, params: Params, *args: Any, **collections: Params) -> Any:
    return network.apply({"params": params, **collections}, *args)


def loss(
    config: Model,
    params: Params,
    window_bt: jax.Array,
    *,
    eod: int,
    attend_across: bool,
    placement: Placement | None = None,
    key: jax.Array | None = None,
    rows_b: jax.Array | None = None,
    z_loss: float = 0.0,
) -> tuple[jax.Array, Sums]:
    """Next-token cross-entropy of int32 windows [b, t + 1], -1 where padded.

    Args:
        config: the network.
        params: this device's share, as `placement` splits them.
        window_bt: whole windows, also where the sequence is split.
        eod: the end-of-document id.
        attend_across: whether a document may look into the ones before it in the window.
        placement: how the network is split over devices; None: not at all.
        key: turns dropout on.
        rows_b: with a key: which windows of the batch these are, int32.
        z_loss: see model.loss.cross_entropy.

    Returns:
        The float32 sum over targets to differentiate, in nats, or this device's part of it, and
        each window's sums `loss`, `weight` and `correct`, [b], that reports are made of.
    """
    placement = placement or here()
    inputs, targets = split(window_bt, eod, attend_across, placement)
    if key is not None and config.dropout:
        rows_b = jnp.arange(len(window_bt)) if rows_b is None else rows_b
        keys_bt = token_keys(key, rows_b, window_bt.shape[1] - 1, placement)
        inputs = inputs._replace(keys_bt=keys_bt)
    x_btd, head_vd = features(config, params, inputs, placement)
    targets = Targets(*(share(placement, part) for part in targets))
    total, sums = cross_entropy(config, z_loss, placement, x_btd, head_vd, targets)

    def whole(sum_b: jax.Array) -> jax.Array:
        return unshare(placement, placement.sequence_sum(sum_b), len(window_bt))

    return total, {name: whole(sum_b) for name, sum_b in sums.items()}


def apply(config: Model, params: Params, inputs: Inputs) -> jax.Array:
    """Float32 logits [b, t, v] of every position: for inspection and tests, not for training."""
    x_btd, head_vd = features(config, params, inputs, here())
    return logits(config, x_btd, head_vd)


def activations(config: Model, params: Params, inputs: Inputs) -> dict[str, jax.Array]:
    """What flows through a transformer with unrolled layers, to look at.

    Returns:
        By name: "embedding", what the first layer reads, [b, t, d]; "stream", the residual stream
        after each layer, and "attention" and "ffn", what these wrote, [l, b, t, d]; "scores", what
        goes into the softmax of attention for each token and those before it, [l, b, k, g, pairs];
        "logits" [b, t, vocab].
    """
    network = _network(config, here())
    wanted = (transformer.Block, transformer.Attention, FeedForward, Embedding)
    (x_btd, head_vd, _), kept = network.apply(
        {"params": params},
        inputs,
        None,
        mutable=["intermediates"],
        capture_intermediates=lambda module, name: (
            isinstance(module, wanted) and name in ("__call__", "embed")
        ),
    )
    layers = [kept["intermediates"][f"layer_{i}"] for i in range(config.layers)]
    attended = [layer["attention"] for layer in layers]
    later, earlier = jnp.tril_indices(inputs.tokens_bt.shape[1])
    return {
        "embedding": kept["intermediates"]["embedding"]["embed"][0],
        "stream": jnp.stack([layer["__call__"][0][0] for layer in layers]),
        "attention": jnp.stack([layer["__call__"][0][0] for layer in attended]),
        "ffn": jnp.stack([layer["ffn"]["__call__"][0] for layer in layers]),
        "scores": jnp.stack(
            [scores(a["queries"][0], a["keys"][0])[..., later, earlier] for a in attended]
        ),
        "logits": logits(config, x_btd, head_vd)[..., : config.vocab],
    }


def start_cache(config: Model, batch: int, length: int) -> Cache:
    """An empty memory for `batch` rows of up to `length` tokens."""
    if config.kind == "lstm":
        layers: tuple = lstm.empty_cache(config, batch)
    else:
        layers = transformer.empty_cache(config, batch, length)
    return Cache(layers, jnp.zeros(batch, jnp.int32))


def turn(config: Model, params: Params, rows: int) -> Params | None:
    """What `decode` with t = 1 is faster with for so many rows; None where it would not be."""
    if not turned_matrices.serves(config, rows):
        return None
    return turned_matrices.turn(params, declare(config))


def decode(
    config: Model,
    params: Params,
    cache: Cache,
    tokens_bt: jax.Array,
    lengths_b: jax.Array,
    turned: Params | None = None,
) -> tuple[jax.Array, Cache]:
    """Read a few tokens more and say what comes next.

    Args:
        tokens_bt: int32 ids; row i holds lengths_b[i] of them, the rest is padding. A prompt is
            read in one call, generation goes on with t = 1. The cache must have room for t more
            in every row, padding included.
        lengths_b: int32, at least 1.
        turned: what `turn` made of params, where many tokens will be read one by one.

    Returns:
        Float32 logits [b, v] after each row's last token, and the memory with the tokens added.
        What padding wrote lies beyond `length_b` and is overwritten by the tokens that follow.
    """
    steps_t = jnp.arange(tokens_bt.shape[1])
    positions_bt = cache.length_b[:, None] + steps_t[None]
    inputs = Inputs(tokens_bt, None, positions_bt)
    extra = (steps_t[None] < lengths_b[:, None],) if config.kind == "lstm" else ()
    network = _network(config, here())
    collections = {} if turned is None else {turned_matrices.COLLECTION: turned}
    x_btd, head_vd, layers = _run(network, params, inputs, cache.layers, *extra, **collections)
    multiply: Callable[[jax.Array, jax.Array], jax.Array] = linear_float32
    if turned is not None:
        multiply = turned_matrices.few  # the output table is [v, d] as it is
    last_b1d = jnp.take_along_axis(x_btd, (lengths_b - 1)[:, None, None], axis=1)
    logits_bv = logits(config, last_b1d, head_vd, multiply)[:, 0]
    return logits_bv, Cache(layers, cache.length_b + lengths_b)


__all__ = [
    "Cache",
    "Declarations",
    "Parameter",
    "Params",
    "activations",
    "apply",
    "attention_backend",
    "declare",
    "decode",
    "features",
    "init",
    "loss",
    "round_matrices",
    "start_cache",
    "turn",
    "with_rounded",
]
