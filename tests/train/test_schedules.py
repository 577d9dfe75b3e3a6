"""Schedules: the rate at every boundary, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import Batch, Config, Data, Model, Optimizer, Schedule
from train.schedules import schedule

PEAK = 0.5


def config(steps: int, **settings) -> Config:
    return Config(
        model=Model(vocab=8, context=4, layers=1, width=4),
        data=Data(path="synthetic"),
        batch=Batch(size=1),
        optimizer=Optimizer(learning_rate=PEAK),
        schedule=Schedule(**settings),
        steps=steps,
    )


# kind and settings, steps, {update: share of the peak}
TABLE = [
    ({"kind": "constant"}, 10, {0: 1, 9: 1, 100: 1}),
    ({"kind": "constant", "warmup": 4}, 10, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 4: 1, 9: 1}),
    ({"kind": "constant", "warmup": 10}, 10, {0: 0.1, 8: 0.9, 9: 1}),
    ({"kind": "linear", "final": 0.0}, 11, {0: 1, 1: 0.9, 5: 0.5, 9: 0.1, 10: 0, 50: 0}),
    ({"kind": "linear", "final": 0.5}, 11, {0: 1, 5: 0.75, 10: 0.5, 11: 0.5}),
    # Warm-up of 3: the peak is update 2, the last update 12, ten equal falls between them.
    ({"kind": "linear", "final": 0.0, "warmup": 3}, 13, {0: 1 / 3, 1: 2 / 3, 2: 1, 3: 0.9, 12: 0}),
    ({"kind": "cosine", "final": 0.0}, 9, {0: 1, 2: 0.5 + 0.5**1.5, 4: 0.5, 8: 0, 20: 0}),
    ({"kind": "cosine", "final": 0.1}, 9, {0: 1, 4: 0.55, 8: 0.1, 20: 0.1}),
    ({"kind": "cosine", "final": 0.1, "warmup": 2}, 10, {0: 0.5, 1: 1, 5: 0.55, 9: 0.1}),
    ({"kind": "inverse_sqrt", "warmup": 4}, 100, {0: 0.25, 3: 1, 15: 0.5, 63: 0.25, 99: 0.2}),
    ({"kind": "inverse_sqrt"}, 100, {0: 1, 3: 0.5, 99: 0.1}),
    # Stable until update 5, then four equal falls to the last update, 9.
    (
        {"kind": "wsd", "decay": 4, "final": 0.0, "warmup": 2},
        10,
        {0: 0.5, 1: 1, 5: 1, 6: 0.75, 8: 0.25, 9: 0, 30: 0},
    ),
    ({"kind": "wsd", "decay": 4, "final": 0.2}, 10, {0: 1, 5: 1, 7: 0.6, 9: 0.2}),
    ({"kind": "wsd", "decay": 8, "warmup": 2, "final": 0.0}, 10, {0: 0.5, 1: 1, 2: 0.875, 9: 0}),
    ({"kind": "wsd"}, 10, {0: 1, 9: 1}),
    # Runs too short to fall run at the peak.
    ({"kind": "cosine", "final": 0.1}, 1, {0: 1}),
    ({"kind": "linear", "final": 0.1, "warmup": 3}, 3, {0: 1 / 3, 2: 1}),
    ({"kind": "cosine", "final": 0.1}, 2, {0: 1, 1: 0.1}),
]


@pytest.mark.parametrize(
    ("settings", "steps", "table"), TABLE, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_rate_at_the_boundaries(settings, steps, table):
    rate = schedule(config(steps, **settings))
    for step, share in table.items():
        np.testing.assert_allclose(rate(step), PEAK * share, rtol=1e-6, atol=1e-8, err_msg=step)


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.1, 0.3, 1.0])
def test_peak_and_final_are_exact(kind, final):
    rate = schedule(config(1000, kind=kind, final=final, warmup=100, decay=200))
    assert rate(99) == np.float32(PEAK)
    assert rate(999) == np.float32(PEAK) * np.float32(final)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "inverse_sqrt", "wsd"])
def test_rises_once_then_never_again(kind):
    rates = jax.vmap(schedule(config(50, kind=kind, warmup=10, decay=15)))(jnp.arange(50))
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[9:]) <= 0)
    assert np.all(rates > 0)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "inverse_sqrt", "wsd"])
def test_traced_step_gives_the_same_float32(kind):
    rate = schedule(config(20, kind=kind, warmup=5, decay=5))
    compiled = jax.jit(rate)
    for step in range(20):
        assert compiled(jnp.int32(step)).dtype == jnp.float32
        np.testing.assert_allclose(compiled(jnp.int32(step)), rate(step), rtol=1e-6)
