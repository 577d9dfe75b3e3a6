"""Products and collectives of compiled programs are counted as closed forms say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from parallel.compile.costs import costs
from parallel.compile.groups import axes_of, groups

# Programs on a mesh of 2 x 2 x 2 CPU devices, compiled and counted in one process.
PROGRAMS = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec as P
from parallel.compile.costs import costs

mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
alone = Mesh(np.array(jax.devices()[:1]), ("data",))
x, w = jnp.ones((16, 32)), jnp.ones((5, 32, 32))
found = {}

def count(name, f, *args, mesh=alone):
    text = jax.jit(f).lower(*args).compile().as_text()
    c = costs(text, mesh)
    found[name] = {
        "flops": c.flops,
        "endless": c.endless,
        "collectives": [
            [k.kind, k.axes, k.group, k.operand_bytes, k.count, k.sent_bytes] for k in c.collectives
        ],
    }

def layers(x, w, layer):
    return lax.scan(lambda x, w: (layer(x, w), None), x, w)[0].sum()

plain = lambda x, w: jnp.tanh(x @ w)
count("scan", lambda x, w: layers(x, w, plain), x, w)
count("gradient", jax.grad(lambda x, w: layers(x, w, plain), (0, 1)), x, w)
twice = jax.checkpoint(lambda x, w: jnp.tanh(jnp.sin(x @ w) @ w))
count("remat", jax.grad(lambda x, w: layers(x, w, twice), (0, 1)), x, w)
one, two = jnp.ones((2, 8, 3, 4)), jnp.ones((2, 6, 3, 4))
count("batched", lambda a, b: jnp.einsum("bthd,bshd->bhts", a, b), one, two)
pixels, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((5, 3, 3, 3))
count("image", lambda a, k: lax.conv_general_dilated(a, k, (1, 1), "SAME"), pixels, kernel)
short, long = lambda x, w: (x @ w[0]).sum(), lambda x, w: (x @ w[0] @ w[1]).sum()
count("branches", lambda p, x, w: lax.cond(p, short, long, x, w), True, x, w)
count("endless", lambda x, w: lax.while_loop(lambda x: x.sum() < 1e9, lambda x: x @ w[0], x), x, w)

def spread(name, body, out=P(None)):
    f = jax.shard_map(body, mesh=mesh, in_specs=P(), out_specs=out, check_vma=False)
    count(name, f, jnp.ones((8, 128)), mesh=mesh)

spread("psum", lambda x: lax.psum(x, "fsdp"))
spread("psum of two axes", lambda x: lax.psum(x, ("data", "tensor")))
spread("psum of all", lambda x: lax.psum(x, ("data", "fsdp", "tensor")))
spread("all_gather", lambda x: lax.all_gather(x, "tensor", tiled=True))
spread("all_gather of two axes", lambda x: lax.all_gather(x, ("data", "fsdp"), tiled=True))
spread("psum_scatter", lambda x: lax.psum_scatter(x, "data", tiled=True))
spread("all_to_all", lambda x: lax.all_to_all(x, "fsdp", 0, 1, tiled=True))
spread("ppermute", lambda x: lax.ppermute(x, "tensor", [(0, 1), (1, 0)]))
spread("in a loop", lambda x: lax.fori_loop(0, 7, lambda i, x: jnp.sin(lax.psum(x, "data")), x))
print(json.dumps(found))
"""
BYTES = 8 * 128 * 4  # of the array that the collectives above are given


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAMS],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


PRODUCT = 2 * 16 * 32 * 32


@pytest.mark.parametrize(
    ("program", "flops"),
    [
        ("scan", 5 * PRODUCT),
        ("gradient", 5 * 3 * PRODUCT),
        # Two products forward, the same again backward, and two gradients of each.
        ("remat", 5 * 8 * PRODUCT),
        ("batched", 2 * (2 * 3) * 8 * 6 * 4),
        # 3 x 3 kernels on 8 x 8 pixels meet padding at the edges: (3 * 8 - 2)^2 places.
        ("image", 2 * 5 * 3 * (3 * 8 - 2) ** 2),
        ("branches", 2 * PRODUCT),
        ("endless", PRODUCT),
    ],
)
def test_products_are_counted_as_often_as_they_run(found, program, flops):
    assert found[program]["flops"] == flops
    assert found[program]["endless"] == (program == "endless")


@pytest.mark.parametrize(
    ("program", "kind", "axes", "group", "count", "sent"),
    [
        ("psum", "all-reduce", ["fsdp"], 2, 1, BYTES),
        ("psum of two axes", "all-reduce", ["data", "tensor"], 4, 1, 1.5 * BYTES),
        ("psum of all", "all-reduce", ["data", "fsdp", "tensor"], 8, 1, 1.75 * BYTES),
        ("all_gather", "all-gather", ["tensor"], 2, 1, BYTES),
        ("all_gather of two axes", "all-gather", ["data", "fsdp"], 4, 1, 3 * BYTES),
        ("psum_scatter", "reduce-scatter", ["data"], 2, 1, BYTES / 2),
        ("all_to_all", "all-to-all", ["fsdp"], 2, 1, BYTES / 2),
        ("ppermute", "collective-permute", ["tensor"], 2, 1, BYTES),
        ("in a loop", "all-reduce", ["data"], 2, 7, BYTES),
    ],
)
def test_collectives_have_axes_bytes_and_counts(found, program, kind, axes, group, count, sent):
    assert found[program]["collectives"] == [[kind, axes, group, BYTES, count, sent]]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("{}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("[4,2]<=[2,2,2]T(0,2,1)", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=4] {'a','b'}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=4] {'b':(1)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        (
            "mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'b'}",
            [[0, 1], [2, 3], [4, 5], [6, 7]],
        ),
        ("mesh['a'=2,'b'=4] {'b':(2)2}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ],
)
def test_every_way_to_write_groups(text, members):
    assert groups(text, 8).tolist() == members


@pytest.mark.parametrize("text", ["[8]<=[8]X(0)", "mesh['a'=8], device_ids=(7..0) {'a'}"])
def test_unknown_ways_to_write_groups_are_refused(text):
    with pytest.raises(ValueError, match="cannot read the groups"):
        groups(text, 8)


def mesh_of(**sizes: int) -> Any:
    devices = np.empty(tuple(sizes.values()), object)
    return SimpleNamespace(devices=devices, axis_names=tuple(sizes), size=devices.size)


def test_axes_are_those_along_which_a_group_differs():
    mesh = mesh_of(data=2, fsdp=2, tensor=2)
    assert axes_of(np.array([[0, 1], [2, 3], [4, 5], [6, 7]]), mesh) == ("tensor",)
    assert axes_of(np.array([[0, 5], [1, 4], [2, 7], [3, 6]]), mesh) == ("data", "tensor")
    assert axes_of(np.array([[0], [1]]), mesh) == ()


def test_what_a_tpu_compiler_writes():
    """tpu_program.txt: what libtpu makes of a scan, cut down.

    A loop without a known count, a product as a convolution, one over dilated windows, a
    reduce-scatter as a fused all-reduce, an all-gather woven into two fusions, another in an
    asynchronous computation, an all-reduce that a core of its own does (tpu7x), and one that hosts
    do between slices.
    """
    text = (Path(__file__).parent / "tpu_program.txt").read_text()
    mesh = mesh_of(slice=2, fsdp=2, tensor=4)
    found = costs(text, mesh)
    assert [
        (c.kind, c.axes, c.operand_bytes, c.count, c.overlapped) for c in found.collectives
    ] == [
        ("reduce-scatter", ("tensor",), 16 * 32 * 2, 6, False),
        ("all-gather", ("tensor",), 4 * 8 * 2, 6, True),
        ("all-gather", ("fsdp",), 128 * 4, 1, True),
        ("all-reduce", ("slice",), 128 * 4, 1, True),
        ("all-reduce", ("fsdp", "tensor"), 64 * 4, 1, True),
    ]
    assert found.flops == 6 * 2 * 16 * 8 * 32 + 3 * 2 * 16 * 16 * 8
    assert found.cycles == 6 * 700
    assert found.kernels == (("tpu_custom_call", 1.0),)
    assert found.endless == found.unread == 0
    assert costs(text.replace("call-start()", "call-somehow()"), mesh).unread == 1
