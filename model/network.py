"""The functions the rest of the project knows the network by. What is behind them can change.

Shapes: b batch, t time, v padded vocabulary. Parameters are nested dicts of float32 arrays.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from configs.schema import Model
from model import lstm, transformer
from model.attention import choose
from model.inputs import Inputs, split
from model.loss import Sums, cross_entropy, logits
from model.parameters import Declared, Parameter

Params = dict[str, Any]
Declarations = dict[str, Any]  # the same tree with a Parameter at each leaf


class Cache(NamedTuple):
    """What generation remembers: the layers' state and how many tokens each row has read."""

    layers: tuple
    length_b: jax.Array


def attention_backend(config: Model) -> str:
    """The attention that runs here: what was asked for, or what "auto" stands for.

    Raises:
        InputError: the one asked for cannot run here.
    """
    return choose(config, jax.default_backend()) if config.kind == "transformer" else "none"


def _network(config: Model, backend: str, train: bool = False) -> nn.Module:
    if config.kind == "lstm":
        return lstm.LSTM(config, train)
    return transformer.Transformer(config, backend, train)


def _boxed(config: Model, key: jax.Array) -> Any:
    token = jnp.zeros((1, 1), jnp.int32)
    return _network(config, "xla").init(key, Inputs(token, None, token), None)["params"]


def declare(config: Model) -> Declarations:
    """Every parameter's declaration. Nothing is allocated."""
    boxes = jax.eval_shape(lambda: _boxed(config, jax.random.key(0)))
    return jax.tree.map(lambda box: box.parameter, boxes, is_leaf=_is_box)


def init(config: Model, key: jax.Array) -> Params:
    """Initial parameters; each one's key derives from `key` and its path."""
    return jax.tree.map(Declared.unbox, _boxed(config, key), is_leaf=_is_box)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, Declared)


def features(
    config: Model, params: Params, inputs: Inputs, key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Final hidden states [b, t, d] and the float32 output table [v, d].

    A key turns dropout on.
    """
    train = key is not None and config.dropout > 0
    rngs = {"dropout": key} if key is not None and train else None
    network = _network(config, attention_backend(config), train)
    x_btd, head_vd, _ = _run(network, params, inputs, None, rngs=rngs)
    return x_btd, head_vd


def _run(network: nn.Module, params: Params, *args: Any, **options: Any) -> Any:
    return network.apply({"params": params}, *args, **options)


def loss(
    config: Model,
    params: Params,
    window_bt: jax.Array,
    *,
    eod: int,
    attend_across: bool,
    key: jax.Array | None = None,
    z_loss: float = 0.0,
) -> tuple[jax.Array, Sums]:
    """Next-token cross-entropy of int32 windows [b, t + 1], -1 where padded.

    Returns:
        The float32 sum over targets to differentiate, in nats, and each window's sums `loss`,
        `weight` and `correct`, [b], that reports are made of (see model.loss.cross_entropy).
    """
    inputs, targets = split(window_bt, eod, attend_across)
    x_btd, head_vd = features(config, params, inputs, key)
    return cross_entropy(config, z_loss, x_btd, head_vd, targets)


def apply(config: Model, params: Params, inputs: Inputs) -> jax.Array:
    """Float32 logits [b, t, v] of every position: for inspection and tests, not for training."""
    x_btd, head_vd = features(config, params, inputs)
    return logits(config, x_btd, head_vd)


def start_cache(config: Model, batch: int, length: int) -> Cache:
    """An empty memory for `batch` rows of up to `length` tokens."""
    if config.kind == "lstm":
        layers: tuple = lstm.empty_cache(config, batch)
    else:
        layers = transformer.empty_cache(config, batch, length)
    return Cache(layers, jnp.zeros(batch, jnp.int32))


def decode(
    config: Model, params: Params, cache: Cache, tokens_bt: jax.Array, lengths_b: jax.Array
) -> tuple[jax.Array, Cache]:
    """Read a few tokens more and say what comes next.

    Args:
        tokens_bt: int32 ids; row i holds lengths_b[i] of them, the rest is padding. A prompt is
            read in one call, generation goes on with t = 1. The cache must have room for t more
            in every row, padding included.
        lengths_b: int32, at least 1.

    Returns:
        Float32 logits [b, v] after each row's last token, and the memory with the tokens added.
        What padding wrote lies beyond `length_b` and is overwritten by the tokens that follow.
    """
    steps_t = jnp.arange(tokens_bt.shape[1])
    positions_bt = cache.length_b[:, None] + steps_t[None]
    inputs = Inputs(tokens_bt, None, positions_bt)
    extra = (steps_t[None] < lengths_b[:, None],) if config.kind == "lstm" else ()
    network = _network(config, "xla")  # with a cache there is no other
    x_btd, head_vd, layers = _run(network, params, inputs, cache.layers, *extra)
    last_b1d = jnp.take_along_axis(x_btd, (lengths_b - 1)[:, None, None], axis=1)
    return logits(config, last_b1d, head_vd)[:, 0], Cache(layers, cache.length_b + lengths_b)


__all__ = [
    "Cache",
    "Declarations",
    "Parameter",
    "Params",
    "apply",
    "attention_backend",
    "declare",
    "decode",
    "features",
    "init",
    "loss",
    "start_cache",
]
