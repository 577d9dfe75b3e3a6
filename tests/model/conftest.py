"""Small networks and random parameters, shared by the tests of the network."""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from configs.schema import Model


def small(**changes) -> Model:
    usual: dict = {"vocab": 50, "context": 16, "layers": 2, "width": 16, "heads": 4}
    return Model(**{**usual, **changes})


VARIANTS = {
    "gpt2": small(),
    "post_norm": small(norm_order="post", ffn="relu2", attention="xla_chunked"),
    "llama": small(
        norm="rmsnorm",
        ffn="swiglu",
        ffn_width=24,
        positions="rotary",
        kv_heads=2,
        bias=False,
        tied=False,
        scan=True,
        remat="full",
    ),
    "windows": small(
        windows=(3, 0),
        layers=4,
        scan=True,
        kv_heads=1,
        qk_norm=True,
        logit_softcap=5.0,
        positions="none",
    ),
    "lstm": small(kind="lstm"),
}


def draw(config: Model, seed: int = 0) -> model.Params:
    """Random parameters of a size that makes everything matter, biases and scales included."""

    def value(path, parameter):
        name = jax.tree_util.keystr(path).encode()
        rng = np.random.default_rng([seed, zlib.crc32(name)])
        # Matrices keep the size of what passes through them.
        inputs = [parameter.shape[dim] for dim in parameter.matrix_axes[0]]
        deviation = np.prod(inputs) ** -0.5 if inputs else 0.3
        drawn = parameter.constant + deviation * rng.standard_normal(parameter.shape)
        return jnp.asarray(drawn, jnp.float32)

    return jax.tree.map_with_path(value, model.declare(config))


@pytest.fixture(scope="session", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Model:
    """Each kind of network in turn."""
    return VARIANTS[request.param]


@pytest.fixture(scope="session")
def make() -> Callable[..., Model]:
    """A small network with some settings changed."""
    return small


@pytest.fixture(scope="session")
def random_params() -> Callable[..., model.Params]:
    """Random parameters for a config."""
    return draw
