"""Every parameter of every recipe has its place, and what is ambiguous is refused."""

from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import model
from configs.flags import load
from configs.schema import Config
from model import Parameter
from parallel.mesh import AXES
from parallel.rules import spec, specs, state_shardings, summed_over
from train.state import abstract

RECIPES = sorted(
    path.stem
    for path in Path("configs").glob("*.py")
    if path.read_text().count("def get_config() -> Config:")
)


def named(tree, is_leaf=None):
    leaves = jax.tree.leaves_with_path(tree, is_leaf=is_leaf)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def test_each_dimension_follows_its_rule():
    config = load("configs/llama_8b.py")
    assert isinstance(config, Config)
    placed = named(specs(model.declare(config.model)))
    block = "layers/block_0"
    assert placed["embedding/tokens"] == PartitionSpec("tensor", "fsdp")
    assert placed[f"{block}/attention/query/kernel"] == PartitionSpec(
        "stage", "fsdp", "tensor", None
    )
    assert placed[f"{block}/attention/output/kernel"] == PartitionSpec(
        "stage", "tensor", None, "fsdp"
    )
    assert placed[f"{block}/ffn/down/kernel"] == PartitionSpec("stage", "tensor", "fsdp")
    assert placed[f"{block}/ffn_norm/scale"] == PartitionSpec("stage", None)
    assert placed["final_norm/scale"] == PartitionSpec(None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_parameter_and_its_moments_have_a_place(recipe):
    """Matrices are split over fsdp, and what the optimizer keeps of them lies with them."""
    config = load(f"configs/{recipe}.py")
    assert isinstance(config, Config)
    declarations = model.declare(config.model)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape((1,) * len(AXES)), AXES)
    state = abstract(config)
    placed = named(state_shardings(mesh, declarations, state))
    shapes = named(state)
    for path, parameter in named(declarations).items():
        assert ("fsdp" in spec(parameter)) == (parameter.kind != "vector"), path
        kept = [name for name in placed if name.endswith(path)]
        assert len(kept) >= 2, path
        for name in kept:
            assert shapes[name].shape == parameter.shape
            assert placed[name].spec == spec(parameter), name


def test_gradients_are_summed_over_what_does_not_split_them():
    matrix = Parameter((4, 4, 4), ("layers", "width", "ffn"), "matrix", decay=True)
    scale = Parameter((4,), ("channels",), "vector", decay=False)
    assert summed_over(matrix) == ("slice", "data", "sequence")
    assert summed_over(scale) == AXES


def test_an_axis_without_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"no rule says what .'colour'. of a parameter"):
        spec(Parameter((4, 4), ("width", "colour"), "matrix", decay=True))


def test_two_dimensions_on_one_mesh_axis_are_refused():
    with pytest.raises(ValueError, match=r"two dimensions of .* over the same mesh axis"):
        spec(Parameter((4, 4), ("heads", "ffn"), "matrix", decay=True))
