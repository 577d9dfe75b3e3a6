"""Shapes that exist: exact counts, and what may be built."""

import dataclasses

import pytest

import model
from configs.flags import load
from configs.schema import Config, InputError, Model
from scaling.shapes import by_depth, depth_threshold, equal_width, estimate, shapes_near


def base(name):
    config = load(f"configs/{name}.py")
    assert isinstance(config, Config)
    return config.model


def test_the_rule_of_thumb():
    """12 layers of 512 and 6 of 724 are one size by 12 L d^2; 724 makes no whole heads of 64."""
    assert estimate(12, 512) == 37_748_736
    assert estimate(6, 724) == 37_740_672
    assert equal_width(12, 512, 6) == pytest.approx(724.08, abs=0.01)


def test_gpt2_small_is_found_at_its_size():
    first = shapes_near(base("gpt2_small"), 124_337_664, size="parameters")[0]
    assert (first.model.layers, first.model.width, first.model.heads) == (12, 768, 12)
    assert first.N == first.parameters == 124_337_664
    assert first.aspect == 64


def test_llama_8b_is_found_with_its_groups_and_gated_width():
    given = base("llama_8b")
    found = shapes_near(given, 8.03e9, size="parameters", tolerance=0.002, ffn_multiple=256)
    assert given in [shape.model for shape in found]


def test_what_is_found_exists_and_is_counted():
    given = base("llama_1b")
    found = shapes_near(given, 4e8, tolerance=0.1, aspects=(30, 128), ffn_multiple=256)
    assert len(found) >= 3
    errors = [abs(shape.N / 4e8 - 1) for shape in found]
    assert max(errors) <= 0.1
    assert errors[0] == pytest.approx(min(errors))
    group = given.heads // given.kv_heads
    for shape in found:
        built = shape.model
        counts = model.counts(built)
        assert (shape.N, shape.parameters) == (counts.non_embedding, counts.parameters)
        assert shape.flops_per_token == counts.flops_per_token("palm")
        assert built.width == built.heads * given.head_dim
        assert built.heads == group * built.kv_heads
        assert built.ffn_width % 256 == 0
        assert built.ffn_width / built.width == pytest.approx(4, rel=0.1)
        assert 30 <= shape.aspect <= 128
        assert (built.vocab, built.context, built.tied) == (given.vocab, given.context, given.tied)


def test_no_other_depth_comes_nearer():
    """Feed-forward widths rounded to 256 make small blocks much unlike the square of the width."""
    given = dataclasses.replace(
        base("llama_1b"), width=512, heads=8, kv_heads=8, head_dim=64, ffn_width=1365, layers=4
    )
    found = shapes_near(given, 2.5e7, tolerance=0.2, aspects=(8, 60), ffn_multiple=256)
    assert len(found) >= 3
    for shape in found:
        deeper = dataclasses.replace(shape.model, layers=shape.model.layers + 1)
        block = model.counts(deeper).non_embedding - shape.N
        assert abs(shape.N - 2.5e7) <= block / 2


def test_depth_and_width_trade_at_one_size():
    found = by_depth(shapes_near(base("gpt2_small"), 37.7e6, aspects=(20, 250), tolerance=0.06))
    depths = [shape.model.layers for shape in found]
    assert depths == sorted(set(depths))
    assert len(depths) >= 3
    widths = [shape.model.width for shape in found]
    assert widths == sorted(widths, reverse=True)
    assert (12, 512) in zip(depths, widths, strict=True)
    # Attention costs 12 L d T a token: at one size the deeper model pays for more of it.
    assert found[-1].flops_per_token - 6 * found[-1].parameters > (
        found[0].flops_per_token - 6 * found[0].parameters
    )


def test_depth_threshold():
    assert depth_threshold(3**6) == pytest.approx(6)


def test_nothing_near_says_what_to_change():
    with pytest.raises(InputError, match="widen the tolerance"):
        shapes_near(base("gpt2_small"), 3e5, tolerance=0.001)
    with pytest.raises(InputError, match="transformers"):
        shapes_near(Model(kind="lstm", vocab=9, context=9, layers=1, width=9), 1e6)
