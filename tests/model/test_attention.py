"""Attention: what it computes, that its backends agree, and which of them is chosen."""

import functools
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import InputError, Model
from model.attention import attention, choose, chunked, kept, splash, visible, weigh
from model.placement import Placement, here


def draw(t, heads=4, kv_heads=2, width=8, batch=2, seed=0, dtype=jnp.float32):
    """Queries, keys, values and a cotangent for the output."""
    keys = jax.random.split(jax.random.key(seed), 4)
    counts = (heads, kv_heads, kv_heads, heads)
    drawn = [
        jax.random.normal(key, (batch, t, n, width)) for key, n in zip(keys, counts, strict=True)
    ]
    return [array.astype(dtype) for array in drawn]


def documents(t, batch=2):
    """Three documents a window, cut elsewhere in each."""
    time = np.arange(t)[None]
    cuts = np.arange(batch)[:, None]
    return jnp.array((time > t // 3 + cuts).astype(np.int32) + (time > t // 2 + cuts))


def definition(q_btnh, k_bskh, v_bskh, segments_bt, window):
    """Attention one query at a time, in float64."""
    q_btnh, k_bskh, v_bskh = (np.asarray(a, np.float64) for a in (q_btnh, k_bskh, v_bskh))
    b, t, n, h = q_btnh.shape
    group = n // k_bskh.shape[2]
    out_btnh = np.zeros_like(q_btnh)
    for row in range(b):
        for head in range(n):
            for i in range(t):
                seen = [
                    j
                    for j in range(i + 1)
                    if (window == 0 or i - j < window)
                    and (segments_bt is None or segments_bt[row, i] == segments_bt[row, j])
                ]
                scores = k_bskh[row, seen, head // group] @ q_btnh[row, i, head] / math.sqrt(h)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                out_btnh[row, i, head] = weights @ v_bskh[row, seen, head // group]
    return out_btnh


@functools.partial(jax.jit, static_argnums=(5, 6))
def forward_and_backward(q, k, v, cotangent, segments, window, backend):
    """The output and the gradients of q, k and v."""
    place = here()
    out, pull = jax.vjp(
        lambda q, k, v: attention(q, k, v, segments, window, backend, place), q, k, v
    )
    return out, *pull(cotangent)


def worst(got, want):
    """The largest difference between two lists of arrays."""
    return max(
        float(jnp.max(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32))))
        for a, b in zip(got, want, strict=True)
    )


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of 8 queries, and nothing compiled with another length."""
    monkeypatch.setattr(chunked, "CHUNK", 8)
    monkeypatch.setattr(kept, "CHUNK", 8)
    program: Any = forward_and_backward
    program.clear_cache()
    yield
    program.clear_cache()


class TestMathematics:
    @pytest.mark.parametrize(
        ("window", "packed", "kv_heads"),
        [(0, False, 4), (0, True, 2), (1, False, 1), (3, False, 2), (3, True, 1)],
    )
    def test_the_reference_is_the_definition(self, window, packed, kv_heads):
        q, k, v, _ = draw(11, kv_heads=kv_heads)
        segments = documents(11) if packed else None
        got = attention(q, k, v, segments, window, "xla", here())
        np.testing.assert_allclose(got, definition(q, k, v, segments, window), atol=2e-6)

    def test_textbook_example(self):
        """Three tokens, worked out by hand."""
        x = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
        q = x @ [[0.1, 0.2], [0.3, 0.4]]
        k = x @ [[0.5, 0.6], [0.7, 0.8]]
        v = x @ [[0.9, 0.1], [0.2, 0.3]]
        np.testing.assert_allclose(q[0], [0.07, 0.10])
        np.testing.assert_allclose(k, [[0.19, 0.22], [0.43, 0.50], [0.67, 0.78]])
        np.testing.assert_allclose(v, [[0.13, 0.07], [0.35, 0.15], [0.57, 0.23]])
        # .07 * .19 + .10 * .22, .07 * .43 + .10 * .50, .07 * .67 + .10 * .78
        np.testing.assert_allclose(q[0] @ k.T, [0.0353, 0.0801, 0.1249])
        q_btnh, k_bskh, v_bskh = (jnp.array(a, jnp.float32)[None, :, None] for a in (q, k, v))

        # The first token sees itself. The second weighs .0769 and .1745 over sqrt(2), so
        # 1 / (1 + exp(-.069013)) = .517246 goes to itself. The third sees .1185, .2689 and .4193,
        # equally far apart: exp(.106349) = 1.112210 and its square, so .298577, .332080, .369343.
        by_hand = [[0.13, 0.07], [0.243794, 0.111380], [0.365569, 0.155661]]
        got = attention(q_btnh, k_bskh, v_bskh, None, 0, "xla", here())[0, :, 0]
        np.testing.assert_allclose(got, np.array(by_hand), atol=1e-6)

        # Without the mask the first token weighs exp of .024961, .056639 and .088318 (over their
        # sum 3.175884): .322831, .333222, .343947.
        everything = jnp.ones((1, 3, 3), bool)
        first = weigh(q_btnh, k_bskh, v_bskh, everything)[0, 0, 0]
        np.testing.assert_allclose(first, np.array([0.354646, 0.151689]), atol=1e-6)

    def test_scores_are_float32_in_bfloat16(self):
        """With bfloat16 scores the two keys would tie and the output be 1 / 2."""
        q = jnp.ones((1, 2, 1, 4), jnp.bfloat16) * 16
        k = jnp.array([[64.0, 64, 64, 64], [64, 64, 64, 63.75]], jnp.bfloat16)[None, :, None]
        v = jnp.array([[0.0] * 4, [1.0] * 4], jnp.bfloat16)[None, :, None]
        got = float(attention(q, k, v, None, 0, "xla", here())[0, 1, 0, 0])
        assert got == pytest.approx(1 / (1 + math.exp(16 * 0.25 / 2)), abs=2e-3)

    @pytest.mark.parametrize("backend", ["xla", "xla_kept", "xla_chunked"])
    @pytest.mark.parametrize("window", [0, 3])
    @pytest.mark.parametrize("packed", [False, True])
    def test_a_query_reads_exactly_what_it_may(self, backend, window, packed, short_chunks):
        """By gradient: zero is exact, and all that is visible has some."""
        t = 19
        q, k, v, _ = draw(t, batch=1)
        segments = documents(t, batch=1) if packed else None

        def outputs(k, v):
            return jnp.sum(attention(q, k, v, segments, window, backend, here()), axis=(0, 2, 3))

        reads_t = jax.jit(jax.jacrev(outputs, argnums=(0, 1)))(k, v)
        seen_ts = np.array(visible(jnp.arange(t), jnp.arange(t), window))
        if segments is not None:
            seen_ts &= np.array(segments[0, :, None] == segments[0, None])
        alone_t = seen_ts.sum(1) == 1  # a single score has weight 1 whatever the key is
        for read, expected in zip(reads_t, (seen_ts & ~alone_t[:, None], seen_ts), strict=True):
            np.testing.assert_array_equal(np.abs(read[:, 0]).sum((2, 3)) > 0, expected)


class TestChunks:
    @pytest.mark.parametrize("backend", ["xla_kept", "xla_chunked"])
    @pytest.mark.parametrize(
        ("t", "window", "packed", "kv_heads"),
        [
            (8, 0, False, 1),
            (21, 0, True, 2),
            (21, 5, True, 1),
            (21, 9, False, 4),
        ],
    )
    def test_equal_the_reference_forward_and_backward(
        self, backend, t, window, packed, kv_heads, short_chunks
    ):
        arrays = draw(t, kv_heads=kv_heads)
        segments = documents(t) if packed else None
        got = forward_and_backward(*arrays, segments, window, backend)
        want = forward_and_backward(*arrays, segments, window, "xla")
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)

    def test_memory_grows_with_length_and_not_with_its_square(self, monkeypatch):
        """Of two layers in a loop, which may keep what does not depend on their input."""
        monkeypatch.setattr(chunked, "CHUNK", 32)
        monkeypatch.setattr(chunked, "LOOPS", 2)  # few to compile, and as many for both lengths

        def temporary(backend, t):
            def loss(q, k, v):
                def layer(x, _):
                    return attention(x, k, v, None, 0, backend, here()), None

                return jnp.sum(jax.lax.scan(layer, q, length=2)[0])

            arrays = [jax.ShapeDtypeStruct((1, t, 2, 8), jnp.float32)] * 3
            compiled = jax.jit(jax.grad(loss)).lower(*arrays).compile()
            memory: Any = compiled.memory_analysis()
            return memory.temp_size_in_bytes

        assert temporary("xla", 2048) > 10 * temporary("xla", 512)
        assert temporary("xla_chunked", 2048) < 5 * temporary("xla_chunked", 512)


def settings(**changes) -> Model:
    usual = {"vocab": 128, "context": 512, "layers": 1, "width": 64, "heads": 1}
    return Model(**{**usual, "compute_dtype": "bfloat16", **changes})


class TestChoice:
    @pytest.mark.parametrize(
        ("platform", "changes", "backend"),
        [
            ("cpu", {}, "xla_kept"),
            ("cpu", {"context": 1023}, "xla_kept"),
            ("cpu", {"context": 1024}, "xla_chunked"),
            ("gpu", {}, "cudnn"),
            ("gpu", {"context": 8192}, "cudnn"),
            ("gpu", {"compute_dtype": "float32"}, "xla"),
            ("gpu", {"compute_dtype": "float32", "context": 2048}, "xla_chunked"),
            ("gpu", {"head_dim": 20}, "xla"),
            ("gpu", {"head_dim": 264}, "xla"),
            ("gpu", {"head_dim": 256}, "cudnn"),
            ("gpu", {"context": 511}, "xla"),
            ("tpu", {}, "splash"),
            ("tpu", {"compute_dtype": "float32"}, "splash"),
            ("tpu", {"context": 64}, "xla"),
            ("tpu", {"context": 2000}, "xla_chunked"),
        ],
    )
    def test_auto(self, platform, changes, backend):
        assert choose(settings(**changes), Placement(platform)) == backend

    def test_whole_windows(self):
        """A backend that needs them gives way where the sequence is split, or is refused."""
        split = Placement("cpu", sequence=2)
        assert choose(settings(), split) == "xla"
        with pytest.raises(InputError, match=r"mesh\.sequence=2 splits them"):
            choose(settings(attention="xla_kept"), split)

    @pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
    @pytest.mark.parametrize("backend", ["xla", "xla_chunked"])
    def test_xla_runs_everywhere(self, platform, backend):
        assert choose(settings(attention=backend), Placement(platform)) == backend

    @pytest.mark.parametrize(
        ("backend", "platform", "changes", "why"),
        [
            ("cudnn", "cpu", {}, "cuDNN needs a GPU and this is cpu"),
            ("cudnn", "tpu", {}, "cuDNN needs a GPU and this is tpu"),
            (
                "cudnn",
                "gpu",
                {"compute_dtype": "float32"},
                "cuDNN needs model.compute_dtype=bfloat16, not float32",
            ),
            (
                "cudnn",
                "gpu",
                {"head_dim": 20},
                "cuDNN needs a head_dim that is a multiple of 8 up to 256, not 20",
            ),
            ("cudnn", "gpu", {"context": 511}, "cuDNN needs an even context, not 511"),
            ("xla_kept", "gpu", {}, "it is made for CPUs and this is gpu"),
            ("splash", "cpu", {}, "splash attention needs a TPU and this is cpu"),
            (
                "splash",
                "tpu",
                {"context": 100},
                "splash attention needs a context that is a multiple of 128, not 100",
            ),
        ],
    )
    def test_what_is_asked_for_runs_or_is_refused(self, backend, platform, changes, why):
        with pytest.raises(InputError) as refused:
            choose(settings(attention=backend, **changes), Placement(platform))
        sentence = f"model.attention={backend} cannot run: {why}; choose auto or xla"
        assert str(refused.value) == sentence


def check_against_float32(backend, window, packed, t=256, heads=4, kv_heads=2, width=64):
    """A kernel in bfloat16 errs about as much as the reference does in bfloat16."""
    exact = draw(t, heads, kv_heads, width)
    rounded = draw(t, heads, kv_heads, width, dtype=jnp.bfloat16)
    segments = documents(t) if packed else None
    want = forward_and_backward(*exact, segments, window, "xla")
    usual = worst(forward_and_backward(*rounded, segments, window, "xla"), want)
    got = forward_and_backward(*rounded, segments, window, backend)
    assert [a.shape for a in got] == [a.shape for a in want]
    assert worst(got, want) < 2 * usual + 1e-3


KERNEL_CASES = pytest.mark.parametrize(
    ("window", "packed", "kv_heads"),
    [(0, False, 4), (0, False, 1), (0, True, 2), (1, False, 2), (96, False, 4), (96, True, 2)],
)


class TestKept:
    @pytest.mark.parametrize(("window", "packed"), [(0, False), (96, True)])
    def test_bfloat16_errs_as_the_reference_does(self, window, packed):
        check_against_float32("xla_kept", window, packed)

    def test_no_gradient_crosses_documents(self):
        check_isolation("xla_kept")


@pytest.mark.skipif(
    jax.default_backend() != "gpu", reason=f"cuDNN needs a GPU, and this is {jax.default_backend()}"
)
class TestCudnn:
    @KERNEL_CASES
    def test_equals_the_reference(self, window, packed, kv_heads):
        check_against_float32("cudnn", window, packed, kv_heads=kv_heads)

    def test_no_gradient_crosses_documents(self):
        check_isolation("cudnn")


@pytest.mark.skipif(
    jax.default_backend() != "tpu",
    reason=f"splash needs a TPU, and this is {jax.default_backend()}",
)
class TestSplashOnTPU:
    @KERNEL_CASES
    def test_equals_the_reference(self, window, packed, kv_heads):
        check_against_float32("splash", window, packed, kv_heads=kv_heads)

    def test_no_gradient_crosses_documents(self):
        check_isolation("splash")


def check_isolation(backend, t=256, width=64):
    """Another first document changes no bit of what the second one reads, or of its gradients."""
    q, k, v, cotangent = draw(t, width=width, dtype=jnp.bfloat16)
    first = (np.arange(t) < t // 2)[None, :, None, None]
    segments = jnp.broadcast_to(jnp.arange(t)[None] >= t // 2, (2, t)).astype(jnp.int32)
    cotangent = jnp.where(first, 0, cotangent)
    others = draw(t, width=width, dtype=jnp.bfloat16, seed=1)
    changed = [jnp.where(first, b, a) for a, b in zip((q, k, v), others, strict=False)]
    before = forward_and_backward(q, k, v, cotangent, segments, 0, backend)
    after = forward_and_backward(*changed, cotangent, segments, 0, backend)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.where(first, 0, a), np.where(first, 0, b))
    for gradient in after[1:]:
        assert not np.any(np.where(first, gradient, 0))


class TestSplashInterpreted:
    """The TPU's kernel run by its interpreter: its mathematics, without its speed."""

    @pytest.fixture(autouse=True)
    def interpreter(self, monkeypatch):
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

        interpreted = functools.partial(splash_attention_kernel.make_splash_mqa, interpret=True)
        monkeypatch.setattr(splash_attention_kernel, "make_splash_mqa", interpreted)
        splash._splash_kernel.cache_clear()
        yield
        splash._splash_kernel.cache_clear()

    def test_equals_the_reference(self):
        check_against_float32("splash", window=96, packed=True, heads=2, kv_heads=1)

    def test_no_gradient_crosses_documents(self):
        check_isolation("splash")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install libtpu"
)
def test_a_step_with_splash_compiles_for_a_tpu():
    """Ahead of time, in a process of its own since the TPU's compiler wants its own environment."""
    here = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=root, env={**os.environ, **here}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    # Forward once, backward twice (dq; dk and dv) in each of the two kinds of layers, packed or
    # not: with remat="attention" what the backward kernels need is kept.
    assert done.stdout.decode().split() == ["6", "6"]


COMPILE = """
import jax, jax.numpy as jnp, model
from jax.experimental import topologies
from configs.schema import Model

topology = topologies.get_topology_desc(
    platform="tpu", topology_name="v5e:2x2", chip_config_name="default",
    chips_per_host_bounds=(2, 2, 1), num_slices=1, wrap=(False,) * 3)
here = jax.sharding.SingleDeviceSharding(topology.devices[0])
tpu = model.Placement("tpu")
config = Model(vocab=256, context=256, layers=4, width=128, heads=2, kv_heads=1,
               windows=(128, 0), compute_dtype="bfloat16", scan=True, remat="attention")

def on_tpu(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)

params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
params = jax.tree.map(on_tpu, params)
windows = on_tpu(jax.ShapeDtypeStruct((2, 257), jnp.int32))
for across in (True, False):
    loss = lambda p, w: model.loss(config, p, w, eod=0, attend_across=across, placement=tpu)[0]
    compiled = jax.jit(jax.grad(loss)).lower(params, windows).compile()
    print(compiled.as_text().count("tpu_custom_call"))
"""
