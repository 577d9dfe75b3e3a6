"""One update.

Shapes: b windows in the batch, m windows in a microbatch, t tokens in a window.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

import model
from configs.schema import Config
from model.loss import Sums
from parallel.mesh import ROWS
from parallel.rules import placement, specs, summed_over
from train import noise
from train.optimizers import build
from train.schedules import schedule
from train.state import State, shardings

Metrics = dict[str, jax.Array]


def make_step(
    config: Config, eod: int, mesh: Mesh
) -> Callable[[State, jax.Array], tuple[State, Metrics]]:
    """The train step for windows int32 [b, t + 1]; b may be any size of the batch ramp.

    Args:
        config: the run.
        eod: the corpus's end-of-document id.
        mesh: what the batch, split by rows, and the state lie on.

    Returns:
        A jitted function of the state (donated) and a batch to the new state and float32 scalars:
        loss (nats a target, without z-loss), accuracy, targets, gradient_norm (before clipping),
        learning_rate, skipped and skipped_total; with batch.noise_scale also noise.METRICS.

    Raises:
        InputError: the noise scale is asked for, and the batch has no parts to compare.
    """
    noise.check(config, mesh)
    optimizer = build(config, model.declare(config.model), mesh)
    rate = schedule(config)
    gradients_of = make_gradients(config, eod, mesh)

    def step(state: State, window_bt: jax.Array) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        gradients, sums = gradients_of(state.params, window_bt, key)
        targets = jnp.maximum(sums["weight"], 1)
        gradients = jax.tree.map(lambda g: g / targets, gradients)
        norm = optax.tree.norm(gradients)

        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        updated = (optax.apply_updates(state.params, updates), moments)
        finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss"])
        params, moments = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), updated, (state.params, state.optimizer)
        )
        skipped = jnp.where(finite, 0, state.skipped + 1)
        skipped_total = state.skipped_total + jnp.where(finite, 0, 1)
        metrics = {
            "loss": sums["loss"] / targets,
            "accuracy": sums["correct"] / targets,
            "targets": sums["weight"],
            "gradient_norm": norm,
            "learning_rate": rate(state.step - state.skipped_total),
            "skipped": skipped,
            "skipped_total": skipped_total,
        }
        if config.batch.noise_scale:
            metrics |= noise.estimates(sums, norm)
        metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
        return State(state.step + 1, params, moments, skipped, skipped_total), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings(config, mesh), None))


def make_gradients(config: Config, eod: int, mesh: Mesh) -> Callable[..., tuple[Any, Sums]]:
    """A function of parameters, windows and a key to sums over the batch.

    It returns the sum of the gradients, which lie as the parameters do, and of what model.loss
    reports. Each device takes its own windows through its own share of the model.
    """
    declarations = model.declare(config.model)
    place = placement(config, mesh, config.batch.microbatch)
    of_part = noise.part_sums(mesh, declarations) if config.batch.noise_scale else None

    def loss(
        params: model.Params, window_bt: jax.Array, key: jax.Array, rows_b: jax.Array
    ) -> tuple[jax.Array, Sums]:
        return model.loss(
            config.model,
            params,
            window_bt,
            eod=eod,
            attend_across=config.data.attend_across,
            placement=place,
            key=key if config.model.dropout else None,
            rows_b=rows_b,
            z_loss=config.z_loss,
        )

    def share(
        params: model.Params, window_bt: jax.Array, key: jax.Array, rows_b: jax.Array
    ) -> tuple[Any, Sums]:
        rounded = model.round_matrices(config.model, params, place)  # once for all microbatches

        def loss_of(params: model.Params, *rest: jax.Array) -> tuple[jax.Array, Sums]:
            return loss(model.with_rounded(params, rounded), *rest)

        # A pipeline takes all microbatches at once, one after the other.
        at_once = len(window_bt) if place.stage > 1 else place.microbatch
        gradients, sums = accumulate(loss_of, params, window_bt, rows_b, at_once, key, of_part)
        if mesh.size == 1:
            return gradients, sums
        gradients = jax.tree.map(
            lambda g, declared: jax.lax.psum(g, summed_over(declared)), gradients, declarations
        )
        parts = {name: sums.pop(name) for name in noise.SUMS if name in sums}
        return gradients, jax.lax.psum(sums, ROWS) | jax.lax.psum(parts, noise.REPLICAS)

    mapped = share
    if mesh.size > 1:
        own, rows, everywhere = specs(declarations), PartitionSpec(ROWS), PartitionSpec()
        mapped = jax.shard_map(
            share,
            mesh=mesh,
            in_specs=(own, rows, everywhere, rows),
            out_specs=(own, everywhere),
            check_vma=False,
        )

    def gradients_of(params: Any, window_bt: jax.Array, key: jax.Array) -> tuple[Any, Sums]:
        return mapped(params, window_bt, key, jnp.arange(len(window_bt)))

    return gradients_of


def accumulate(
    loss: Callable[..., tuple[jax.Array, Sums]],
    params: model.Params,
    window_bt: jax.Array,
    rows_b: jax.Array,
    microbatch: int,
    key: jax.Array,
    of_part: Callable[[Any, jax.Array], Sums] | None = None,
) -> tuple[Any, Sums]:
    """Sums of gradients and of losses over the windows, one microbatch at a time.

    Sums and weights stay apart, so that microbatches with few targets do not count for more. What
    `of_part` makes of each microbatch's gradients and weight is summed with the losses.
    """
    gradient = jax.grad(loss, has_aux=True)

    def add(total: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        window_mt, rows_m = part
        gradients, sums = gradient(params, window_mt, key, rows_m)
        sums = {name: jnp.sum(sum_m) for name, sum_m in sums.items()}
        added = jax.tree.map(jnp.add, total[0], gradients)
        if of_part:
            # From what was added: a second reader of the gradients would have XLA sum them in
            # another order, and measuring must not change what is trained.
            part = jax.tree.map(jnp.subtract, jax.lax.optimization_barrier(added), total[0])
            sums |= of_part(part, sums["weight"])
        return (added, jax.tree.map(jnp.add, total[1], sums)), None

    names = ("loss", "weight", "correct", *(noise.SUMS if of_part else ()))
    zeros = {name: jnp.zeros(()) for name in names}
    start = (jax.tree.map(jnp.zeros_like, params), zeros)
    count = len(window_bt) // microbatch
    if count == 1:
        return add(start, (window_bt, rows_b))[0]
    parts = (window_bt.reshape(count, microbatch, -1), rows_b.reshape(count, microbatch))
    return jax.lax.scan(add, start, parts)[0]


def make_evaluation(
    config: Config, eod: int, mesh: Mesh
) -> Callable[[model.Params, jax.Array], Sums]:
    """A jitted function of parameters and windows to each window's sums (see model.loss)."""
    place = placement(config, mesh, config.evaluation.batch or config.batch.microbatch)

    def share(params: model.Params, window_bt: jax.Array) -> Sums:
        options: dict[str, Any] = {"eod": eod, "attend_across": config.data.attend_across}
        return model.loss(config.model, params, window_bt, placement=place, **options)[1]

    if mesh.size == 1:
        return jax.jit(share)
    rows = PartitionSpec(ROWS)
    own = specs(model.declare(config.model))
    mapped = jax.shard_map(share, mesh=mesh, in_specs=(own, rows), out_specs=rows, check_vma=False)
    return jax.jit(mapped)
