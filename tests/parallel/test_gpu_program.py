"""What the step becomes on Hopper, read from programs compiled without a GPU."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)),
        reason="needs JAX's CUDA wheels",
    ),
]

TOKENS, VOCAB = 4 * 512, 200_064  # of a microbatch; logits of all: 1.5 GiB, over a chunk's 1 GiB
PROGRAM = """
import json, sys
from configs.schema import Batch, Config, Data, Mesh, Model, Optimizer
from parallel.compile import topology
from parallel.compile.__main__ import compile_step

name, hlo = sys.argv[1:3]
changes, mesh = map(json.loads, sys.argv[3:])
where = topology.parse(name)
devices = where.shape[0]
shape = {"vocab": 200_064, "context": 512, "layers": 2, "width": 256, "heads": 4, "kv_heads": 2}
network = Model(**shape, ffn="swiglu", ffn_width=512, bias=False, positions="rotary",
                attention="cudnn", compute_dtype="bfloat16", tied=False, **changes)
config = Config(model=network, data=Data(path="synthetic"), mesh=Mesh(**mesh),
                batch=Batch(size=16 * devices, microbatch=4 * devices),
                optimizer=Optimizer(learning_rate=1e-3), steps=1)
options = {"xla_gpu_enable_triton_gemm": False}
report = compile_step(config, where, options=options, hlo=hlo)
from train.state import abstract
from parallel.mesh import make_mesh
import jax
leaves = len(jax.tree.leaves(abstract(config, make_mesh(config, topology.devices(where)))))
print(json.dumps({"report": report, "leaves": leaves}))
"""


def build(tmp_path: Path, topology: str, changes: dict, mesh: dict) -> tuple[dict, str]:
    hlo = tmp_path / "step.hlo"
    arguments = (topology, str(hlo), json.dumps(changes), json.dumps(mesh))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), hlo.read_text()


def computations(text: str) -> dict[str, str]:
    """The bodies of a program's computations by name; the entry is "ENTRY"."""
    found = re.findall(r"^(ENTRY |)%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S)
    return {"ENTRY" if entry else name: body for entry, name, body in found}


def reached(parts: dict[str, str], start: str) -> str:
    """A computation's text with that of all it calls."""
    seen: list[str] = []
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in parts and name not in seen:
            seen.append(name)
            waiting += re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", parts[name])
    return "".join(parts[name] for name in seen)


def accumulation(parts: dict[str, str]) -> str:
    """The loop over microbatches, with all it calls: what holds the attention kernels."""
    bodies = re.findall(r" while\(.*?body=%?([\w.\-]+)", parts["ENTRY"])
    texts = [reached(parts, body) for body in bodies]
    (loop,) = [text for text in texts if "__cudnn$fmha" in text]
    return loop


@pytest.fixture(scope="module")
def float8(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    return build(tmp_path_factory.mktemp("one"), "h200:1", {"matrix_dtype": "float8"}, {})


def test_every_matrix_of_the_blocks_is_multiplied_in_8_bits(float8):
    """Forward, and for the gradients of input and weight.

    XLA makes one product of those that share a factor: query, key and value, gate and up. So it is
    the operations that are complete, and the products in 16 bits that are counted.
    """
    found, text = float8
    # The head's: logits, and two for its gradients.
    assert len(re.findall(r'custom_call_target="__cublas\$(?:gemm|lt\$matmul)"', text)) == 3
    assert not re.search(r" dot\(", text)
    assert text.count('custom_call_target="__cublas$lt$matmul$f8"') >= 2 * (4 + 7 + 4)
    assert found["report"]["flops_per_device"]["ratio"] == pytest.approx(1, abs=0.01)


def test_weights_are_rounded_outside_the_loop_over_microbatches(float8):
    """Inside, what comes out of a conversion to 8 bits is a microbatch's, never a matrix."""
    text = float8[1]
    loop = accumulation(computations(text))
    made = r"= f8e4m3fn\[([\d,]+)\]\S* convert\("
    assert {shape.rpartition(",")[0] for shape in re.findall(made, loop)} <= {"4,512", "4,512,4"}
    assert {"256,512", "512,256"} < set(re.findall(made, text))


def test_attention_is_cudnn_forward_and_backward(float8):
    assert len(re.findall(r'custom_call_target="__cudnn\$fmha', float8[1])) == 2 * 2


def test_the_state_is_updated_in_place(float8):
    found, text = float8
    header = text[: text.index("\n")]
    assert len(re.findall(r"\{\d*\}: \(\d+, \{\}", header)) == found["leaves"]


def test_logits_are_never_all_there(float8):
    shapes = set(re.findall(r"\b(?:f32|bf16)\[([\d,]+)\]", float8[1]))
    assert f"{TOKENS // 2},{VOCAB}" in shapes  # of a chunk
    assert max(math.prod(map(int, shape.split(","))) for shape in shapes) == TOKENS // 2 * VOCAB


@pytest.mark.parametrize("mesh", [{}, {"data": 1, "fsdp": 8}])
def test_gradients_are_reduced_once_an_update(tmp_path, mesh):
    """Replicas: no reduction inside the loop. Slices: each matrix is, where it is used."""
    text = build(tmp_path, "h200:8", {}, mesh)[1]
    parts = computations(text)
    loop = accumulation(parts)
    reductions = r" (?:all-reduce|reduce-scatter)(?:-start)?\("
    inside = len(re.findall(reductions, loop))
    assert re.search(reductions, text)
    assert (inside == 0) == (not mesh)


def test_slices_of_matrices_are_gathered_in_8_bits(tmp_path):
    """None of the blocks' in more: table and head stay in 16 bits."""
    text = build(tmp_path, "h200:8", {"matrix_dtype": "float8"}, {"data": 1, "fsdp": 8})[1]
    gathers = [line for line in text.splitlines() if re.search(r" all-gather(?:-start)?\(", line)]
    eights: list[int] = []
    others: list[int] = []
    for line in gathers:
        into = line[: line.index(" all-gather")]
        for dtype, shape in re.findall(r"\b(f8e4m3fn|s8|u8|bf16|f32)\[([\d,]+)\]", into):
            size = math.prod(map(int, shape.split(",")))
            (eights if dtype in ("f8e4m3fn", "s8", "u8") else others).append(size)
    assert len(eights) >= 2
    assert all(size < 256 * 128 or size % VOCAB == 0 for size in others), others
