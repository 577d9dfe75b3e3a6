"""The environment that a run on a CPU is started over in."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from configs.flags import load
from configs.schema import Mesh
from train import cpu

ROOT = Path(__file__).resolve().parents[2]
TINY = [f"--config.model.{name}=8" for name in ("width", "context")]


def recipe(name: str):
    return load(str(ROOT / "configs" / f"{name}.py"))


def test_large_updates_get_one_arena_and_small_ones_get_one_a_thread():
    assert cpu.memory(recipe("quickstart")) == cpu.KEEP | cpu.ONE_ARENA
    assert cpu.memory(recipe("shakespeare_char")) == cpu.KEEP


def test_devices_split_what_an_update_allocates(config):
    large = replace(config, model=replace(config.model, layers=40, context=512, width=32))
    assert cpu.memory(replace(large, mesh=Mesh(data=1))) == cpu.KEEP | cpu.ONE_ARENA
    assert cpu.memory(replace(large, mesh=Mesh(data=2))) == cpu.KEEP


def test_devices_are_those_that_the_mesh_asks_for(config, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert cpu.devices(replace(config, mesh=Mesh(data=2, tensor=2))) == {"JAX_NUM_CPU_DEVICES": "4"}
    assert cpu.devices(replace(config, mesh=Mesh(data=-1, tensor=2))) == {}
    assert cpu.devices(replace(config, mesh=Mesh(data=1))) == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert cpu.devices(replace(config, mesh=Mesh(data=2))) == {}


def test_a_run_has_the_devices_of_its_recipe_and_says_once_what_was_changed(tmp_path):
    names = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", *cpu.KEEP, *cpu.ONE_ARENA)
    clean = {name: value for name, value in os.environ.items() if name not in names}
    changes = [*TINY, "--config.steps=4", "--config.data.path=synthetic", "--config.model.heads=1"]
    command = [sys.executable, "-m", "train", "--config=configs/shakespeare_char.py", *changes]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}"],
        cwd=ROOT, env=clean | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("config.steps: ") == 1
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["devices"]["count"] == run["mesh"]["data"] == 2
