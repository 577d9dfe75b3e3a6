"""Whatever the mesh, a run computes what one device computes: losses, parameters, validation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EIGHT = "--xla_force_host_platform_device_count=8"
EVERY_MESH = [
    {"data": 8},
    {"data": 1, "fsdp": 8},
    {"data": 4, "tensor": 2},
    {"data": 2, "sequence": 4},
    {"data": 2, "stage": 4},
    {"data": 4, "stage": 2, "rounds": 2},
    {"slices": 2, "data": 2, "fsdp": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"data": 2, "fsdp": 2, "stage": 2},
    {"data": 2, "fsdp": 2, "sequence": 2},
    {"data": 2, "tensor": 2, "stage": 2},
    {"data": 1, "sequence": 2, "tensor": 2, "stage": 2},
]


def check(task: str, network: str, meshes: list[dict]) -> None:
    # gpt is trained with Muon, which brings small singular values up, and their rounding with them.
    tolerance = 5e-5 if network == "gpt" else 1e-5
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.eight", task, network, *map(json.dumps, meshes)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {EIGHT}",
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    ways = [meshes] if task == "travel" else meshes
    for mesh, line in zip(ways, lines, strict=True):
        for name, distance in json.loads(line).items():
            assert distance < tolerance, f"{network} on {mesh}: {name} is off by {distance}"


def test_a_run_that_moves_between_meshes_goes_on_as_on_one_device():
    """From 8 devices to 4 to 1 and back, each axis once; with packed documents and dropout."""
    way = [
        {"slices": 2, "fsdp": 2, "tensor": 2},
        {"data": 2, "sequence": 2},
        {"data": 1},
        {"data": 2, "fsdp": 2, "stage": 2, "rounds": 2},
    ]
    check("travel", "packed", way)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("network", ["packed", "gpt"])
def test_every_mesh_computes_what_one_device_does(network):
    # Its two windows make a group of layers two layers deep.
    shallow = (m for m in EVERY_MESH if m.get("stage", 1) * m.get("rounds", 1) <= 2)
    fits = EVERY_MESH if network == "packed" else [*shallow]
    check("each", network, fits)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_lstm_is_split_by_windows_and_width():
    check("each", "lstm", [{"data": 2, "fsdp": 4}, {"slices": 2, "data": 4}])


@pytest.mark.slow
def test_the_tpus_kernel_reads_over_a_split_sequence():
    """Interpreted; forward and backward, full and within a window, packed documents."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.splash"],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {EIGHT}",
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert max(json.loads(done.stdout)) < 1e-5
