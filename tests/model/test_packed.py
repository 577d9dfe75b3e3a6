"""Packed documents on a GPU: which keys a query may see, and that the kernel is compared first."""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import Model
from model.attention import choose, packed, reference
from model.placement import Placement
from tests.conftest import REPOSITORY

HAS_TOKAMAX = importlib.util.find_spec("tokamax") is not None


@pytest.mark.parametrize("window", [0, 1, 3, 50])
def test_starts_say_what_the_mask_says(window):
    """Documents of one token, of many, up to the end; numbers need not be 0, 1, 2."""
    segments_bt = jnp.array([[4, 4, 4, 5, 7, 7, 7, 7, 7], [0] * 9, [*range(9)], [1] * 8 + [2]])
    starts_bt = packed.starts(segments_bt, window)
    keys_s, queries_t = jnp.arange(9)[None, None], jnp.arange(9)[None, :, None]
    seen = (keys_s >= starts_bt[..., None]) & (keys_s <= queries_t)
    mask = reference.visible_rows(jnp.arange(9), segments_bt, window, 0, 9)
    np.testing.assert_array_equal(seen, mask)


def settings(**changes) -> Model:
    usual = {"vocab": 128, "context": 512, "layers": 1, "width": 64, "heads": 1}
    return Model(**{**usual, "compute_dtype": "bfloat16", **changes})


class TestChoice:
    """On a GPU of this machine; the device is made up, the comparison with it is not run."""

    @pytest.fixture(autouse=True)
    def hopper(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(packed, "obstacle", lambda width: self.why)

    why = ""

    def test_auto_takes_it_where_it_agreed(self):
        assert choose(settings(), Placement("gpu")) == "packed"

    def test_auto_leaves_it_where_it_did_not(self, monkeypatch):
        monkeypatch.setattr(type(self), "why", "it errs")
        assert choose(settings(), Placement("gpu")) == "cudnn"

    def test_what_cudnn_cannot_run_is_no_case_for_it(self):
        assert choose(settings(compute_dtype="float32"), Placement("gpu")) == "xla"


def test_auto_trusts_no_kernel_that_was_not_compared():
    """As where one compiles for a GPU that is not here."""
    assert choose(settings(), Placement("gpu")) == "cudnn"


def test_a_wrong_result_and_a_kernel_that_fails_are_told(monkeypatch):
    monkeypatch.setattr(packed, "_worst_ratio", lambda width, kernel: 7.5)
    said = packed._disagreement.__wrapped__(64)
    assert said == (
        "on this device its result is 7.5 times as far from the reference as rounding to bfloat16 "
        "explains"
    )
    monkeypatch.undo()

    def fail(*_):
        raise NotImplementedError("only on Tuesdays")

    monkeypatch.setattr(packed, "_intervals", fail)
    said = packed._disagreement.__wrapped__(64)
    assert said == "its kernel does not run here (NotImplementedError: only on Tuesdays)"


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_comparison_sees_a_key_too_many(monkeypatch, wrong):
    """The reference itself as kernel, and one whose documents begin a token early."""

    def kernel(_, q_btnh, k_bskh, v_bskh, starts_bt):
        t = q_btnh.shape[1]
        keys_s, queries_t = jnp.arange(t)[None, None], jnp.arange(t)[None, :, None]
        mask_bts = (keys_s >= starts_bt[..., None] - wrong) & (keys_s <= queries_t)
        return reference.weigh(q_btnh, k_bskh, v_bskh, mask_bts)

    monkeypatch.setattr(packed, "_intervals", kernel)
    ratio = packed._worst_ratio(16, "any", length=64)
    assert ratio > 10 if wrong else ratio <= packed.TOLERANCE


@pytest.mark.skipif(not HAS_TOKAMAX, reason="tokamax is not installed")
def test_tokamax_reads_the_interval():
    """Its own reference, which runs on any platform, takes the same arguments as its kernel."""
    with jax.numpy_rank_promotion("allow"):  # it does that, and tests are stricter
        assert packed._worst_ratio(64, "xla", length=64) <= packed.TOLERANCE


@pytest.mark.skipif(
    jax.default_backend() != "gpu" or not HAS_TOKAMAX, reason="needs a Hopper GPU and tokamax"
)
@pytest.mark.parametrize("width", packed.WIDTHS)
def test_the_kernel_agrees_on_this_device(width):
    with jax.numpy_rank_promotion("allow"):
        assert packed.obstacle(width) == ""


COMPILE = """
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from model.attention import packed
from model.placement import Placement
from parallel.compile.topology import devices, parse

on = SingleDeviceSharding(devices(parse("h200:1"))[0])

def loss(q, k, v, segments):
    return packed.attend(q, k, v, segments, 0, Placement("gpu")).astype(jnp.float32).sum()

shapes = [(1, 4096, n, 128) for n in (8, 2, 2)]
arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=on) for shape in shapes]
segments = jax.ShapeDtypeStruct((1, 4096), jnp.int32, sharding=on)
made = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays, segments).compile()
assert made.as_text().count('custom_call_target="mosaic_gpu') == 3, made.as_text()
print(made.memory_analysis().temp_size_in_bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not HAS_TOKAMAX or importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="needs tokamax and JAX's CUDA wheels",
)
def test_compiled_for_hopper_it_holds_no_mask():
    """8 heads' scores would be 256 MiB in bfloat16, one mask of bytes 16 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = 2 * 4096 * 8 * 128 + 2 * 4 * 8 * 4096  # output and two statistics a query and head
    assert int(done.stdout) < kept + 2**23
