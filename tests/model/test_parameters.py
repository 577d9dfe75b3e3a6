"""Declarations and initial values: a changed initializer shows here, and in review."""

import functools
import math
from pathlib import Path

import jax
import numpy as np
import pytest

import model
from configs.flags import load
from configs.schema import Config, Model

SNAPSHOT = Path(__file__).with_name("declarations.txt")


def small(**changes) -> Model:
    usual: dict = {"vocab": 256, "context": 64, "layers": 2, "width": 64, "heads": 4}
    return Model(**{**usual, **changes})


def named(tree) -> dict:
    """The leaves of a tree by their paths, such as layer_0/ffn/up/kernel."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@functools.cache
def init(config, seed=0):
    return jax.jit(model.init, static_argnums=0)(config, jax.random.key(seed))


def describe(parameter: model.Parameter) -> str:
    """One declaration on a line."""
    dimensions = [f"{a}={n}" for a, n in zip(parameter.axes, parameter.shape, strict=True)]
    start = parameter.constant if parameter.std is None else f"normal({parameter.std:.6g})"
    decays = "decays" if parameter.decay else "stays"
    ends = " ".join(str(list(dims)) for dims in parameter.matrix_axes if dims)
    return f"{parameter.kind} [{', '.join(dimensions)}] {start} {decays} {ends}".rstrip()


def test_declarations_are_those_on_file():
    """Each parameter of a recipe, with what matters about it.

    Where a change is meant, put what this test prints into the file.
    """
    config = load("configs/llama_1b.py")
    assert isinstance(config, Config)
    declared = named(model.declare(config.model))
    text = "".join(f"{path}: {describe(declared[path])}\n" for path in sorted(declared))
    print(text)
    assert text == SNAPSHOT.read_text()


@pytest.mark.parametrize(
    "changes",
    [{}, {"scan": True, "tied": False, "qk_norm": True}, {"kind": "lstm"}],
)
class TestDeclared:
    def test_values_are_as_declared(self, changes):
        config = small(**changes)
        declared, values = named(model.declare(config)), named(init(config))
        assert declared.keys() == values.keys()
        for path, parameter in declared.items():
            value = np.array(values[path])
            assert value.dtype == np.float32
            assert value.shape == parameter.shape
            assert len(parameter.axes) == len(parameter.shape)
            if parameter.std is None:
                assert np.all(value == parameter.constant)
            else:
                off = 5 / math.sqrt(2 * value.size)  # five standard errors of the deviation
                assert value.std() == pytest.approx(parameter.std, rel=off)
                assert abs(value.mean()) < 5 * parameter.std / math.sqrt(value.size)

    def test_matrices_decay_and_vectors_do_not(self, changes):
        for parameter in jax.tree.leaves(model.declare(small(**changes))):
            assert parameter.decay == (parameter.kind != "vector")

    def test_each_dimension_of_a_matrix_is_input_output_or_layers(self, changes):
        for parameter in jax.tree.leaves(model.declare(small(**changes))):
            inputs, outputs = parameter.matrix_axes
            stacked = [dim for dim, axis in enumerate(parameter.axes) if axis == "layers"]
            if parameter.kind == "matrix":
                assert sorted((*inputs, *outputs, *stacked)) == list(range(len(parameter.shape)))
                assert inputs
                assert outputs
            else:
                assert not inputs
                assert not outputs

    def test_no_two_arrays_are_drawn_alike(self, changes):
        """Neither two parameters nor two layers of a stack: correlations are noise."""
        drawn, values = [], named(init(small(**changes)))
        for path, parameter in named(model.declare(small(**changes))).items():
            value = np.array(values[path])
            if parameter.std is not None:
                drawn += list(value) if parameter.axes[0] == "layers" else [value]
        samples = np.stack([array.ravel()[:4096] / array.std() for array in drawn])
        correlations = samples @ samples.T / samples.shape[1] - np.eye(len(samples))
        assert np.abs(correlations).max() < 6 / math.sqrt(samples.shape[1])


class TestInitial:
    def test_usual_deviations(self):
        """Radford et al. 2019: .02, and what writes into the residual stream less with depth."""
        declared = named(model.declare(small(tied=False)))
        for path in ("embedding/tokens", "embedding/output", "embedding/positions"):
            assert declared[path].std == 0.02
        for name in ("attention/query", "attention/key", "attention/value", "ffn/up"):
            assert declared[f"layer_1/{name}/kernel"].std == 0.02
        for name in ("attention/output", "ffn/down"):
            assert declared[f"layer_1/{name}/kernel"].std == pytest.approx(0.02 / math.sqrt(4))

    def test_init_std_sets_them_all(self):
        usual, wide = (named(model.declare(small(init_std=std))) for std in (0.02, 0.05))
        for path, parameter in usual.items():
            if parameter.std is not None:
                assert wide[path].std == pytest.approx(2.5 * parameter.std)

    def test_the_lstm_draws_by_width(self):
        declared = named(model.declare(small(kind="lstm")))
        assert declared["layer_0/input/kernel"].std == declared["layer_0/recurrent"].std == 1 / 8

    def test_a_zero_start_silences_what_writes_into_the_stream(self):
        declared = named(model.declare(small(residual_init="zero")))
        silent = {path for path, p in declared.items() if p.kind == "matrix" and p.std is None}
        ends = ("attention/output/kernel", "ffn/down/kernel")
        assert silent == {f"layer_{i}/{end}" for i in range(2) for end in ends}
        assert all(declared[path].constant == 0 for path in silent)

    def test_the_key_decides(self):
        init.cache_clear()
        one, other = init(small()), init(small(), seed=1)
        init.cache_clear()
        jax.tree.map(np.testing.assert_array_equal, one, init(small()))
        for path, parameter in named(model.declare(small())).items():
            same = np.mean(named(one)[path] == named(other)[path])
            assert same == 1 if parameter.std is None else same < 0.01

    def test_another_layer_leaves_the_others_alone(self):
        """Keys derive from paths; what writes into the residual stream is then scaled."""
        one, two = named(init(small(layers=1))), named(init(small()))
        assert set(two) - set(one) == {path for path in two if path.startswith("layer_1")}
        for path, value in one.items():
            scale = 1.0
            if path.endswith(("attention/output/kernel", "ffn/down/kernel")):
                scale = math.sqrt(1 / 2)
            np.testing.assert_allclose(two[path], scale * value, rtol=1e-6)

    def test_the_vocabulary_is_padded_to_whole_tiles(self):
        for vocab, rows in ((130, 256), (128, 128)):
            assert named(model.declare(small(vocab=vocab)))["embedding/tokens"].shape == (rows, 64)
