"""The schema: what is derived, what is refused, and that a config cannot change once built."""

import dataclasses
import json

import pytest

from configs.schema import Batch, InputError, Model, Schedule, to_dict


def small(**settings) -> Model:
    return Model(**({"vocab": 256, "context": 32, "layers": 2, "width": 64, "heads": 4} | settings))


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small().layers = 3  # type: ignore[misc]


def test_zeros_are_derived():
    model = small()
    assert (model.kv_heads, model.head_dim, model.ffn_width) == (4, 16, 256)
    assert Batch(size=12).microbatch == 12
    assert Batch(size=12, ramp=((10, 4),)).microbatch == 4


def test_derived_numbers_follow_a_change_and_given_ones_stay():
    assert dataclasses.replace(small(), width=128, heads=2).head_dim == 64
    assert dataclasses.replace(small(), width=128).ffn_width == 512
    assert dataclasses.replace(small(head_dim=16), width=128).head_dim == 16
    assert dataclasses.replace(small(kv_heads=2), heads=8).kv_heads == 2
    assert dataclasses.replace(Batch(size=12), size=8).microbatch == 8
    assert dataclasses.replace(Batch(size=12, microbatch=4), size=8).microbatch == 4


def test_json_holds_the_derived_numbers():
    values = json.loads(json.dumps(to_dict(small())))
    assert (values["kv_heads"], values["head_dim"], values["ffn_width"]) == (4, 16, 256)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"heads": 3}, "model.heads=3 does not divide model.width=64"),
        ({"kv_heads": 3}, "model.kv_heads=3 does not divide model.heads=4"),
        ({"kv_heads": -4}, "model.kv_heads must be positive"),
        ({"layers": 0}, "model.layers must be positive"),
        ({"dropout": 1.0}, r"model.dropout=1.0 must lie in \[0, 1\)"),
        ({"positions": "rotary", "head_dim": 15}, "model.head_dim=15 is odd"),
        ({"windows": ()}, "must hold at least one length"),
        ({"scan": True, "layers": 3, "windows": (0, 8)}, "model.layers=3 is not a multiple of the"),
    ],
)
def test_an_impossible_model_is_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        small(**settings)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"batch\.microbatch=5 does not divide the batch of 12"):
        Batch(size=12, microbatch=5)
    with pytest.raises(InputError, match="rising steps"):
        Batch(size=12, ramp=((10, 4), (10, 8)))
    with pytest.raises(InputError, match=r"schedule.final=2.0 must lie in \[0, 1\]"):
        Schedule(final=2.0)


def test_windows_before_is_the_sum_of_the_sizes():
    batch = Batch(size=12, ramp=((3, 2), (5, 6)))
    sizes = [batch.size_at(step) for step in range(8)]
    assert sizes == [2, 2, 2, 6, 6, 12, 12, 12]
    assert [batch.windows_before(step) for step in range(9)] == [
        sum(sizes[:step]) for step in range(9)
    ]
