"""The decoder-only transformer.

Shapes: b batch, t time, d width, n heads, k key/value heads, h head width, s cache length.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.ad_checkpoint
import jax.numpy as jnp

from configs.schema import Model
from model.attention import ATTENTION_OUTPUT, attention, visible, weigh
from model.inputs import Inputs
from model.layers import (
    LINEAR_OUTPUT,
    Embedding,
    FeedForward,
    Linear,
    Norm,
    residual_std,
    rotate,
)

REMAT_POLICIES = {
    "full": None,  # keep only each block's input
    # By name: the policies that look for products do not see into linear's own derivative.
    "dots": jax.checkpoint_policies.save_only_these_names(LINEAR_OUTPUT),
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION_OUTPUT),
}


class KeyValues(NamedTuple):
    """Keys and values of past tokens, of one layer or stacked over layers."""

    k_bskh: jax.Array
    v_bskh: jax.Array


# One entry a layer; with scanned layers one an entry of the window pattern, stacked over its
# repetitions.
Cache = tuple[KeyValues, ...]


class Attention(nn.Module):
    """Multi-head, grouped-query (Ainslie et al. 2023) or multi-query attention."""

    config: Model
    window: int
    backend: str

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, inputs: Inputs, past: KeyValues | None
    ) -> tuple[jax.Array, KeyValues | None]:
        """What every token read, and the past with these tokens added when there is one."""
        c = self.config

        def project(name: str, heads: int) -> jax.Array:
            axes = ("width", "heads" if name == "query" else "kv_heads", "head_dim")
            return Linear(c, (c.width,), (heads, c.head_dim), axes, c.init_std, name=name)(x_btd)

        q_btnh = project("query", c.heads)
        k_btkh = project("key", c.kv_heads)
        v_btkh = project("value", c.kv_heads)
        if c.qk_norm:
            q_btnh = Norm(c, "rmsnorm", "head_dim", name="query_norm")(q_btnh)
            k_btkh = Norm(c, "rmsnorm", "head_dim", name="key_norm")(k_btkh)
        if c.positions == "rotary":
            q_btnh = rotate(q_btnh, inputs.positions_bt, c.rotary_base)
            k_btkh = rotate(k_btkh, inputs.positions_bt, c.rotary_base)
        if past is None:
            read_btnh = attention(
                q_btnh, k_btkh, v_btkh, inputs.segments_bt, self.window, self.backend
            )
        else:
            past = remember(past, k_btkh, v_btkh, inputs.positions_bt)
            slots_1s = jnp.arange(past.k_bskh.shape[1])[None]
            mask_bts = visible(inputs.positions_bt, slots_1s, self.window)
            read_btnh = weigh(q_btnh, *past, mask_bts)
        read_btnh = jax.ad_checkpoint.checkpoint_name(read_btnh, ATTENTION_OUTPUT)
        axes = ("heads", "head_dim", "width")
        out = Linear(c, (c.heads, c.head_dim), (c.width,), axes, residual_std(c), name="output")
        return out(read_btnh), past


def remember(
    past: KeyValues, k_btkh: jax.Array, v_btkh: jax.Array, positions_bt: jax.Array
) -> KeyValues:
    """Write new keys and values at their positions, row by row."""
    write = jax.vmap(lambda old, new, start: jax.lax.dynamic_update_slice(old, new, (start, 0, 0)))
    starts_b = positions_bt[:, 0]
    return KeyValues(write(past.k_bskh, k_btkh, starts_b), write(past.v_bskh, v_btkh, starts_b))


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream.

    Pre-norm (Radford et al. 2019): x + f(norm(x)). Post-norm (Vaswani et al. 2017): norm(x + f(x)).
    """

    config: Model
    window: int
    backend: str
    train: bool

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, inputs: Inputs, past: KeyValues | None
    ) -> tuple[jax.Array, KeyValues | None]:
        """The residual stream after this layer, and its past."""
        c = self.config
        attend = Attention(c, self.window, self.backend, name="attention")
        feed = FeedForward(c, name="ffn")
        attention_norm = Norm(c, c.norm, name="attention_norm")
        ffn_norm = Norm(c, c.norm, name="ffn_norm")
        drop = nn.Dropout(c.dropout, deterministic=not self.train)
        if c.norm_order == "pre":
            read_btd, past = attend(attention_norm(x_btd), inputs, past)
            x_btd = x_btd + drop(read_btd)
            x_btd = x_btd + drop(feed(ffn_norm(x_btd)))
        else:
            read_btd, past = attend(x_btd, inputs, past)
            x_btd = attention_norm(x_btd + drop(read_btd))
            x_btd = ffn_norm(x_btd + drop(feed(x_btd)))
        return x_btd, past


class Period(nn.Module):
    """One block for each entry of the window pattern: what a scan repeats."""

    config: Model
    backend: str
    train: bool

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, inputs: Inputs, pasts: tuple[KeyValues | None, ...]
    ) -> tuple[jax.Array, tuple[KeyValues | None, ...]]:
        """The residual stream after these layers, and their pasts."""
        new = []
        for i, (window, past) in enumerate(zip(self.config.windows, pasts, strict=True)):
            block = _block_class(self.config)(
                self.config, window, self.backend, self.train, name=f"block_{i}"
            )
            x_btd, past = block(x_btd, inputs, past)
            new.append(past)
        return x_btd, tuple(new)


def _block_class(config: Model) -> type[nn.Module]:
    """Block, wrapped so that the backward pass recomputes what the policy does not keep."""
    if config.remat == "none":
        return Block
    return nn.remat(Block, policy=REMAT_POLICIES[config.remat], prevent_cse=not config.scan)


class Transformer(nn.Module):
    """Embedding, blocks, final norm (pre-norm only)."""

    config: Model
    backend: str
    train: bool = False

    @nn.compact
    def __call__(
        self, inputs: Inputs, cache: Cache | None
    ) -> tuple[jax.Array, jax.Array, Cache | None]:
        """Returns the final hidden states [b, t, d], the output table [v, d], and the new cache."""
        c = self.config
        embedding = Embedding(c, name="embedding")
        x_btd = embedding.embed(inputs.tokens_bt, inputs.positions_bt)
        x_btd = nn.Dropout(c.dropout, deterministic=not self.train)(x_btd)
        run = self._scanned if c.scan else self._unrolled
        x_btd, cache = run(x_btd, inputs, cache)
        if c.norm_order == "pre":
            x_btd = Norm(c, c.norm, name="final_norm")(x_btd)
        return x_btd, embedding.head(), cache

    def _scanned(
        self, x_btd: jax.Array, inputs: Inputs, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        period = len(self.config.windows)
        layers = nn.scan(
            Period,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, 0),
            length=self.config.layers // period,
            metadata_params={"length": self.config.layers // period},
        )
        pasts: Any = (None,) * period if cache is None else cache
        x_btd, pasts = layers(self.config, self.backend, self.train, name="layers")(
            x_btd, inputs, pasts
        )
        return x_btd, None if cache is None else pasts

    def _unrolled(
        self, x_btd: jax.Array, inputs: Inputs, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        c = self.config
        new = []
        for i in range(c.layers):
            window = c.windows[i % len(c.windows)]
            block = _block_class(c)(c, window, self.backend, self.train, name=f"layer_{i}")
            past = None if cache is None else cache[i]
            x_btd, past = block(x_btd, inputs, past)
            new.append(past)
        return x_btd, None if cache is None else tuple(new)


def empty_cache(config: Model, batch: int, length: int) -> Cache:
    """Room for `length` past tokens of `batch` rows, in the layout the layers are run in."""
    entries = len(config.windows) if config.scan else config.layers
    stacked = (config.layers // entries,) if config.scan else ()
    shape = (*stacked, batch, length, config.kv_heads, config.head_dim)
    return tuple(
        KeyValues(jnp.zeros(shape, config.compute_dtype), jnp.zeros(shape, config.compute_dtype))
        for _ in range(entries)
    )
