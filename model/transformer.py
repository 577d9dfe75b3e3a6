"""The decoder-only transformer.

Shapes: b batch, t time, d width, n heads, k key/value heads, h head width, s cache length.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.ad_checkpoint
import jax.numpy as jnp

from configs.schema import Model
from model.attention import ATTENTION_OUTPUT, attention, choose, visible, weigh
from model.inputs import Inputs
from model.layers import (
    LINEAR_OUTPUT,
    Embedding,
    FeedForward,
    Linear,
    Norm,
    dropout,
    residual_std,
    rotate,
)
from model.pipeline import pipeline
from model.placement import Placement
from model.turned import COLLECTION

REMAT_POLICIES = {
    "full": None,  # keep only each block's input
    # By name: the policies that look for products do not see into linear's own derivative.
    "dots": jax.checkpoint_policies.save_only_these_names(LINEAR_OUTPUT),
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION_OUTPUT),
}


class KeyValues(NamedTuple):
    """Keys and values of past tokens, of one layer or stacked over layers.

    Heads come before time, so that a head's past is one piece of memory: XLA:CPU would copy the
    whole cache into that order for each token.
    """

    k_bksh: jax.Array
    v_bksh: jax.Array


# One entry a layer; with scanned layers one an entry of the window pattern, stacked over its
# repetitions.
Cache = tuple[KeyValues, ...]


class Attention(nn.Module):
    """Multi-head, grouped-query (Ainslie et al. 2023) or multi-query attention."""

    config: Model
    window: int
    placement: Placement

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, inputs: Inputs, past: KeyValues | None
    ) -> tuple[jax.Array, KeyValues | None]:
        """What every token read, and the past with these tokens added when there is one."""
        c, placement = self.config, self.placement
        x_btd = placement.enter(x_btd)

        def project(name: str, heads: int) -> jax.Array:
            axes = ("width", "heads" if name == "query" else "kv_heads", "head_dim")
            shape = (heads, c.head_dim)
            return Linear(c, placement, (c.width,), shape, axes, c.init_std, name=name)(x_btd)

        q_btnh = project("query", c.heads)
        k_btkh = project("key", c.kv_heads)
        v_btkh = project("value", c.kv_heads)
        if c.qk_norm:
            q_btnh = Norm(c, "rmsnorm", "head_dim", name="query_norm")(q_btnh)
            k_btkh = Norm(c, "rmsnorm", "head_dim", name="key_norm")(k_btkh)
        if c.positions == "rotary":
            q_btnh = rotate(q_btnh, inputs.positions_bt, c.rotary_base)
            k_btkh = rotate(k_btkh, inputs.positions_bt, c.rotary_base)
        if c.head_ratio != 1:  # muP: 1 / h, since queries and keys come to agree as they learn
            q_btnh = q_btnh * c.head_ratio**-0.5
        self.sow("intermediates", "queries", q_btnh)  # nothing, but where someone looks
        self.sow("intermediates", "keys", k_btkh)
        if past is None:
            read_btnh = attention(
                q_btnh,
                k_btkh,
                v_btkh,
                inputs.segments_bt,
                self.window,
                choose(c, placement),
                placement,
            )
        else:
            past = remember(past, k_btkh, v_btkh, inputs.positions_bt)
            slots_1s = jnp.arange(past.k_bksh.shape[2])[None]
            mask_bts = visible(inputs.positions_bt, slots_1s, self.window)
            k_bskh, v_bskh = (jnp.swapaxes(x, 1, 2) for x in past)  # views: nothing is moved
            read_btnh = weigh(q_btnh, k_bskh, v_bskh, mask_bts)
        read_btnh = jax.ad_checkpoint.checkpoint_name(read_btnh, ATTENTION_OUTPUT)
        axes = ("heads", "head_dim", "width")
        shape, std = (c.heads, c.head_dim), residual_std(c)
        out = Linear(c, placement, shape, (c.width,), axes, std, name="output")
        return out(read_btnh), past


def remember(
    past: KeyValues, k_btkh: jax.Array, v_btkh: jax.Array, positions_bt: jax.Array
) -> KeyValues:
    """Write new keys and values at their positions, row by row."""

    @jax.vmap
    def write(old_ksh: jax.Array, new_tkh: jax.Array, start: jax.Array) -> jax.Array:
        new_kth = jnp.swapaxes(new_tkh, 0, 1)
        return jax.lax.dynamic_update_slice(old_ksh, new_kth, (0, start, 0))

    starts_b = positions_bt[:, 0]
    return KeyValues(write(past.k_bksh, k_btkh, starts_b), write(past.v_bksh, v_btkh, starts_b))


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream.

    Pre-norm (Radford et al. 2019): x + f(norm(x)). Post-norm (Vaswani et al. 2017): norm(x + f(x)).
    Depth-muP divides f by the ratio of layers to the base's: CompleteP (Dey et al. 2025,
    arXiv:2505.01618, alpha = 1), in which rates stay as they are. With the root of the ratio
    (alpha = 1/2, Yang et al. 2023, arXiv:2310.02244) rates would have to fall with depth too, and
    what a block learns would become linear in its weights.
    """

    config: Model
    window: int
    placement: Placement

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, inputs: Inputs, past: KeyValues | None, layer: jax.Array | int
    ) -> tuple[jax.Array, KeyValues | None]:
        """The residual stream after this layer, and its past; layers are numbered from 0."""
        c = self.config
        attend = Attention(c, self.window, self.placement, name="attention")
        feed = FeedForward(c, self.placement, name="ffn")
        attention_norm = Norm(c, c.norm, name="attention_norm")
        ffn_norm = Norm(c, c.norm, name="ffn_norm")

        def drop(y_btd: jax.Array, number: int) -> jax.Array:
            if c.depth_ratio != 1:  # depth-muP: what all layers add up to stays the same
                y_btd = y_btd / c.depth_ratio
            return dropout(y_btd, c.dropout, inputs.keys_bt, 2 * layer + number)

        if c.norm_order == "pre":
            read_btd, past = attend(attention_norm(x_btd), inputs, past)
            x_btd = x_btd + drop(read_btd, 1)
            x_btd = x_btd + drop(feed(ffn_norm(x_btd)), 2)
        else:
            read_btd, past = attend(x_btd, inputs, past)
            x_btd = attention_norm(x_btd + drop(read_btd, 1))
            x_btd = ffn_norm(x_btd + drop(feed(x_btd), 2))
        return x_btd, past


class Period(nn.Module):
    """One block for each entry of the window pattern: what a scan repeats."""

    config: Model
    placement: Placement

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        inputs: Inputs,
        pasts: tuple[KeyValues | None, ...],
        number: jax.Array,
    ) -> tuple[jax.Array, tuple[KeyValues | None, ...]]:
        """The residual stream after these layers, and their pasts; periods are numbered from 0."""
        c, new = self.config, []
        for i, (window, past) in enumerate(zip(c.windows, pasts, strict=True)):
            block = _block_class(c)(c, window, self.placement, name=f"block_{i}")
            x_btd, past = block(x_btd, inputs, past, number * len(c.windows) + i)
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
    placement: Placement

    @nn.compact
    def __call__(
        self, inputs: Inputs, cache: Cache | None
    ) -> tuple[jax.Array, jax.Array, Cache | None]:
        """Returns the final hidden states [b, t, d], the output table [v, d], and the new cache."""
        c = self.config
        embedding = Embedding(c, self.placement, name="embedding")
        x_btd = dropout(embedding.embed(inputs), c.dropout, inputs.keys_bt, 0)
        if self.placement.stage > 1:
            x_btd = self._staged(x_btd, inputs)
        else:
            run = self._scanned if c.scan else self._unrolled
            x_btd, cache = run(x_btd, inputs, cache)
        if c.norm_order == "pre":
            x_btd = Norm(c, c.norm, name="final_norm")(x_btd)
        return x_btd, embedding.head(), cache

    def _scanned(
        self, x_btd: jax.Array, inputs: Inputs, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        period = len(self.config.windows)
        count = self.config.layers // period
        layers = nn.scan(
            Period,
            variable_axes={"params": 0, COLLECTION: 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0, 0),
            length=count,
            metadata_params={"length": count},
        )
        pasts: Any = (None,) * period if cache is None else cache
        x_btd, pasts = layers(self.config, self.placement, name="layers")(
            x_btd, inputs, pasts, jnp.arange(count)
        )
        return x_btd, None if cache is None else pasts

    def _unrolled(
        self, x_btd: jax.Array, inputs: Inputs, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        c = self.config
        new = []
        for i in range(c.layers):
            window = c.windows[i % len(c.windows)]
            block = _block_class(c)(c, window, self.placement, name=f"layer_{i}")
            past = None if cache is None else cache[i]
            x_btd, past = block(x_btd, inputs, past, i)
            new.append(past)
        return x_btd, None if cache is None else tuple(new)

    def _staged(self, x_btd: jax.Array, inputs: Inputs) -> jax.Array:
        """The layers of all stages, for all microbatches; this device gets its share of these."""
        c = self.config
        period = Period(c, self.placement, parent=None)

        def run(params: Any, x_btd: jax.Array, inputs: Inputs, first: jax.Array) -> jax.Array:
            def one(x_btd: jax.Array, layer: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
                weights, number = layer
                pasts = (None,) * len(c.windows)
                return period.apply({"params": weights}, x_btd, inputs, pasts, number)[0], None

            count = jax.tree.leaves(params)[0].shape[0]
            return jax.lax.scan(one, x_btd, (params, first + jnp.arange(count)))[0]

        return pipeline(self.placement, run, self.variables["params"]["layers"], x_btd, inputs)


def empty_cache(config: Model, batch: int, length: int) -> Cache:
    """Room for `length` past tokens of `batch` rows, in the layout the layers are run in."""
    entries = len(config.windows) if config.scan else config.layers
    stacked = (config.layers // entries,) if config.scan else ()
    shape = (*stacked, batch, config.kv_heads, length, config.head_dim)
    return tuple(
        KeyValues(jnp.zeros(shape, config.compute_dtype), jnp.zeros(shape, config.compute_dtype))
        for _ in range(entries)
    )
