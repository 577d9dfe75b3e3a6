"""What recipes compile to: every device does its share, and talks only along the axes it is on."""

import pytest

# What an axis is for (docs/parallelism.md). Sums of scalars, scales and biases go over all of them.
EXPECTED = {
    "slice": {"all-reduce"},
    "data": {"all-reduce"},
    "fsdp": {"all-gather", "reduce-scatter", "all-to-all"},
    "sequence": {"all-gather", "reduce-scatter", "all-reduce"},
    "tensor": {"all-gather", "reduce-scatter"},
    "stage": {"collective-permute", "reduce-scatter", "all-gather", "all-reduce"},
}
MUON = {  # exchanges parts of matrices for whole ones, and gathers what replicas made
    **EXPECTED,
    "data": {"all-reduce", "all-gather"},
    "tensor": {"all-gather", "reduce-scatter", "all-to-all"},
}
RECIPES = [
    ("shakespeare_char", {"data": 8}, MUON),
    ("gpt2_small", {"data": 1, "fsdp": 8}, EXPECTED),
    ("gpt3_6b7", {"data": 2, "fsdp": 2, "tensor": 2}, EXPECTED),
    ("gpt3_175b", {"data": 1, "fsdp": 2, "tensor": 2, "stage": 2}, EXPECTED),
    ("llama_1b", {"data": 2, "fsdp": 4}, EXPECTED),
    ("llama_8b", {"slices": 2, "data": 1, "fsdp": 2, "tensor": 2}, EXPECTED),
]


def check(recipe: str, mesh: dict[str, int], expected: dict[str, set[str]], found: dict) -> None:
    share = found["alone"] / 8 / (1 - found["bubble"])
    assert found["flops"] == pytest.approx(share, rel=0.02), f"{recipe} on {mesh}"
    small = 1e-2 * max(found["sent"].values())
    for what, sent in found["sent"].items():
        kind, _, axes = what.partition(" over ")
        for axis in axes.split():
            name = "slices" if axis == "slice" else axis
            assert mesh.get(name, 1) > 1, f"{recipe} on {mesh}: {what}"
            known = kind in expected[axis] or (kind == "all-reduce" and sent < small)
            assert known, f"{recipe} on {mesh}: {what} sends {sent:.3g} bytes"


def test_the_quickstart_is_shared_evenly_and_sends_nothing_else(on_eight):
    meshes = [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}]
    for mesh, found in zip(meshes, on_eight("programs", "quickstart", *meshes), strict=True):
        check("quickstart", mesh, MUON, found)


def test_the_check_sees_replication_and_strange_collectives():
    found = {"flops": 1.0, "alone": 8.0, "bubble": 0.0, "sent": {"all-gather over data": 1e6}}
    with pytest.raises(AssertionError, match="all-gather over data sends 1e"):
        check("a recipe", {"data": 8}, EXPECTED, found)
    with pytest.raises(AssertionError, match="a recipe on"):
        check("a recipe", {"data": 8}, MUON, found | {"flops": 1.03})
    with pytest.raises(AssertionError, match="all-reduce over fsdp"):
        check("a recipe", {"data": 8}, MUON, found | {"sent": {"all-reduce over fsdp": 1.0}})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("recipe", "mesh", "expected"), RECIPES, ids=[r for r, _, _ in RECIPES])
def test_every_recipe_is_shared_evenly_and_sends_nothing_else(recipe, mesh, expected, on_eight):
    check(recipe, mesh, expected, on_eight("programs", recipe, mesh)[0])
