"""8-bit products: what rounding costs, what it does not touch, and where it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import model
from configs.schema import Batch, Config, Data, InputError, Mesh, Model, Optimizer
from model import float8
from model.linear import linear
from model.placement import Placement, here
from parallel.mesh import make_mesh
from train.step import make_gradients


def both_ways(multiply, x, w, dy):
    y, pull = jax.vjp(lambda x, w: multiply(x, w, here(), 0), x, w)
    return (y, *pull(dy))


def error(got, want):
    return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want))


class TestScales:
    @pytest.mark.parametrize("dtype", [float8.FORWARD, float8.BACKWARD])
    @pytest.mark.parametrize("largest", [1.0, 3.7, 448.0, 449.0, 57344.0, 1e-12, 1e30])
    def test_the_least_power_of_two_that_fits(self, dtype, largest):
        scale = float(float8.scales(jnp.float32(largest), dtype))
        assert np.frexp(scale)[0] == 0.5
        top = float(jnp.finfo(dtype).max)
        assert largest / scale <= top < 2 * largest / scale

    def test_zeros_stay_zeros(self):
        assert float(float8.scales(jnp.float32(0), float8.FORWARD)) == 1

    @pytest.mark.parametrize("largest", [jnp.inf, jnp.nan])
    def test_what_is_not_finite_stays_so(self, largest):
        x = jnp.array([[[1.0, largest]]])
        assert not jnp.isfinite(float8.linear(x, jnp.ones((2, 3)), here(), 0)).any()


class TestLinear:
    def test_numbers_that_the_formats_hold_come_through_exactly(self):
        """Integers up to 8 have three significant bits in E4M3; 1, 2 and 3 have two in E5M2."""
        rng = np.random.default_rng(0)
        x, w = (jnp.array(rng.integers(-8, 9, s), jnp.float32) for s in ((2, 4, 16), (16, 32)))
        dy = jnp.array(rng.integers(-3, 4, (2, 4, 32)) * 2.0**-20, jnp.float32)
        got = both_ways(float8.linear, x * 2.0**-9, w * 2.0**7, dy)
        want = both_ways(linear, x * 2.0**-9, w * 2.0**7, dy)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_errs_as_the_formats_do(self):
        """Rounding errs by up to 2^-4 in E4M3, 2^-3 in E5M2, about .03 and .05 in the mean."""
        keys = jax.random.split(jax.random.key(0), 3)
        shapes = (2, 16, 128), (128, 64), (2, 16, 64)
        x, w, dy = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
        got, want = both_ways(float8.linear, x, w, dy), both_ways(linear, x, w, dy)
        for a, b, most in zip(got, want, (0.045, 0.07, 0.07), strict=True):
            assert 0.02 < error(a, b) < most
        assert got[2].dtype == jnp.float32


def run(**changes) -> Config:
    usual: dict = {"vocab": 50, "context": 8, "layers": 2, "width": 16, "heads": 2, "ffn_width": 48}
    usual |= {"scan": True, "attention": "xla"}
    return Config(
        model=Model(**{**usual, "matrix_dtype": "float8", **changes}),
        data=Data(path="synthetic"),
        batch=Batch(size=4, microbatch=2),
        mesh=Mesh(),
        optimizer=Optimizer(learning_rate=1e-3),
        steps=1,
    )


class TestNetwork:
    def test_what_is_rounded_before_is_what_would_be_rounded_in_place(self, random_params):
        """Layers are stacked, and each matrix has a scale of its own."""
        config = run().model
        params = random_params(config)
        params["layers"] = jax.tree.map(
            lambda p: p * jnp.array([1.0, 5.0]).reshape(2, *[1] * (p.ndim - 1)), params["layers"]
        )
        windows = jnp.arange(18, dtype=jnp.int32).reshape(2, 9)

        def loss(params, rounded):
            params = model.with_rounded(params, rounded)
            return model.loss(config, params, windows, eod=49, attend_across=True)[0]

        rounded = model.round_matrices(config, params, here())
        before, in_place = (jax.value_and_grad(loss)(params, r) for r in (rounded, None))
        jax.tree.map(np.testing.assert_array_equal, before, in_place)

    def test_weights_are_rounded_once_for_all_microbatches(self):
        config = run()
        params = model.init(config.model, jax.random.key(0))
        gradients = make_gradients(config, 49, make_mesh(config))
        windows = jnp.zeros((4, 9), jnp.int32)
        program = jax.make_jaxpr(gradients)(params, windows, jax.random.key(0))
        (loop,) = [equation for equation in program.eqns if equation.primitive.name == "scan"]
        inside = set(rounded(loop.params["jaxpr"].jaxpr))
        assert inside == {(2, 8, 16), (2, 8, 48)}  # of a microbatch, forward and backward
        stacked = {(2, 16, 2, 8), (2, 2, 8, 16), (2, 16, 48), (2, 48, 16)}
        assert stacked <= set(rounded(program.jaxpr))

    def test_it_is_not_made_for_the_lstm(self):
        with pytest.raises(InputError, match=r"matrix_dtype=float8 is made for"):
            run(kind="lstm")


def rounded(program) -> list[tuple[int, ...]]:
    """The shapes that a program, and those inside it, round to 8 bits."""
    found = []
    for equation in program.eqns:
        if equation.primitive.name == "convert_element_type":
            made = equation.outvars[0].aval
            found += [made.shape] if "float8" in str(made.dtype) else []
        for inner in jaxprs_in_params(equation.params):
            found += rounded(inner)
    return found


@pytest.mark.parametrize(
    ("platform", "capability", "why"),
    [
        ("cpu", "", ""),
        ("gpu", "9.0", ""),
        ("gpu", "8.9", ""),
        ("gpu", "", ""),
        ("gpu", "8.0", "this GPU, of compute capability 8.0, has no 8-bit units (from 8.9 on)"),
        ("tpu", "", "it is not made for TPUs"),
    ],
)
def test_where_it_runs(platform, capability, why):
    assert float8.obstacle(platform, capability) == why


def test_the_refusal_is_one_sentence():
    with pytest.raises(InputError) as refused:
        float8.check(run().model, Placement("tpu"))
    assert str(refused.value) == (
        "model.matrix_dtype=float8 cannot run: it is not made for TPUs; set "
        "model.matrix_dtype=compute"
    )
