"""Names of topologies become devices or one sentence; a device finds its chip's figures."""

import importlib.util
import re

import pytest

from configs.schema import InputError
from parallel.chips import CHIPS, find
from parallel.compile.topology import Topology, devices, environment, gpu_target, parse


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("v5e:16x16", ("v5e", 1, (16, 16))),
        ("2*v6e:4x8", ("v6e", 2, (4, 8))),
        ("v5p:8x8x16", ("v5p", 1, (8, 8, 16))),
        ("tpu7x:2x2x1", ("tpu7x", 1, (2, 2, 1))),
        ("h100:8", ("h100", 1, (8,))),
        ("h200:2x8", ("h200", 2, (8,))),
        ("cpu:8", ("cpu", 1, (8,))),
    ],
)
def test_a_name_has_parts(name, parts):
    assert parse(name) == Topology(name, *parts)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v9:4x4", "--topology=v9:4x4: no such topology; write CHIP:SHAPE with a chip of v4, v5e"),
        ("v5e", "--topology=v5e: no such topology"),
        ("v5e:3x5", "--topology=v5e:3x5: no such slice; v5e has 1x1, 2x2, 2x4,"),
        ("v6e:4x4x4", "--topology=v6e:4x4x4: no such slice"),
        ("v5p:8x4x4", "--topology=v5p:8x4x4: no such slice; v5p has 2x2x1, 2x2x2, 2x2x4, 2x4x4"),
        ("v4:16x16x20", "--topology=v4:16x16x20: no such slice"),
        ("0*v5e:4x4", "--topology=0*v5e:4x4: sizes must be positive"),
        ("h100:16", "--topology=h100:16: a node has at most 8 GPUs"),
        ("2*h100:8", "--topology=2*h100:8: write h100:GPUS or h100:NODESxGPUS"),
        ("cpu:2x4", "--topology=cpu:2x4: write cpu:DEVICES"),
    ],
)
def test_no_such_topology(name, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        parse(name)


def test_rings_close_where_all_chips_are_there():
    assert parse("v5e:8x16").wrap == (False, True)
    assert parse("v5p:4x4x8").wrap == (True, True, True)
    assert parse("v5p:2x4x4").wrap == (False, False, False)


def test_the_environment_is_complete_before_jax_starts():
    assert environment(parse("cpu:4"), "--xla_a=1")["XLA_FLAGS"] == (
        "--xla_a=1 --xla_force_host_platform_device_count=4"
    )
    assert environment(parse("v5e:4x4"))["TPU_SKIP_MDS_QUERY"] == "1"
    assert {
        environment(parse(name))["JAX_PLATFORMS"] for name in ("cpu:1", "v5e:4x4", "h100:8")
    } == {"cpu"}


@pytest.mark.parametrize(
    ("name", "module", "sentence"),
    [
        ("v5e:4x4", "libtpu", "compiling for a TPU needs libtpu, which is not installed"),
        ("h200:8", "jax_cuda12_plugin", "compiling for a GPU needs JAX's CUDA plugin, which is"),
    ],
)
def test_what_is_not_installed_is_said(monkeypatch, name, module, sentence):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=sentence):
        devices(parse(name))


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU7x", 1153.5e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA L40S", 362e12),
    ],
)
def test_a_device_is_found_by_the_beginning_of_its_kind(kind, flops):
    chip = find(kind)
    assert chip is not None
    assert chip.flops == flops


def test_an_unknown_device_has_no_figures():
    assert find("cpu") is None


def test_no_chip_hides_behind_one_before_it():
    for chip in CHIPS:
        assert find(chip.kind) is chip


def test_a_gpu_is_described_with_the_figures_of_the_table():
    text = gpu_target("h200")
    assert "memory_bandwidth: 4800000000000" in text
    assert "device_memory_size: 141000000000" in text
    assert text.count("{") == text.count("}")
