"""The command end to end: a report that adds up, exit codes, and one sentence on bad input."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.schema import InputError
from parallel.chips import find
from parallel.compile.estimate import advice, exceeded
from parallel.compile.topology import parse, with_slices
from tests.conftest import REPOSITORY

RECIPE = """
from configs.schema import Batch, Config, Data, Model, Optimizer

def get_config():
    return Config(
        model=Model(
            vocab=128, context=128, layers=4, width=64, heads=4, scan=True, remat="full",
            attention="xla",
        ),
        data=Data(path="synthetic"),
        batch=Batch(size=16),
        optimizer=Optimizer(learning_rate=1e-3),
        steps=1,
    )
"""


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    recipe = tmp_path / "tiny.py"
    recipe.write_text(RECIPE)
    return subprocess.run(
        [sys.executable, "-m", "parallel.compile", f"--config={recipe}", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("compile")
    mesh = ("--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2")
    done = run(folder, "--topology=cpu:8", *mesh, f"--json={folder / 'report.json'}")
    assert done.returncode == 0, done.stderr
    assert "tensor" in done.stdout
    return json.loads((folder / "report.json").read_text())


def test_the_state_is_split_and_its_bytes_are_known(report):
    sizes = report["bytes_per_device"]
    assert report["fits"] is None
    # Matrices and tables over fsdp x tensor; positions over fsdp; the vectors are small.
    matrices = 4 * (12 * 64 * 64) + 128 * 64
    assert 4 * matrices / 4 < sizes["parameters"] < 1.2 * (4 * matrices / 4)
    assert sizes["optimizer"] == pytest.approx(2 * sizes["parameters"], abs=16)
    assert sizes["batch"] == 16 // 4 * 129 * 4
    parts = ("parameters", "optimizer", "batch", "activations", "temporaries", "code", "other")
    assert sizes["total"] == pytest.approx(sum(sizes[part] for part in parts), abs=8)


def test_no_device_repeats_another_ones_products(report):
    """3 passes, and the layers once more but for the product that ends one, which nothing needs.

    The attention of `xla` takes the masked half too.
    """
    tokens = 16 * 128 / 8
    layers = 2 * 12 * 64 * 64 + 4 * 128 * 64
    last = 2 * 4 * 64 * 64
    expected = tokens * (4 * (4 * layers - last) + 3 * 2 * 128 * 64)
    assert report["flops_per_device"]["products"] == pytest.approx(expected, rel=0.001)


def test_collectives_run_along_the_axes_of_the_mesh(report):
    found = {(c["kind"], *c["axes"]) for c in report["collectives"]}
    assert {("all-gather", "fsdp"), ("all-gather", "tensor"), ("reduce-scatter", "fsdp")} <= found
    assert ("all-reduce", "data") in found
    kept = [c for c in report["collectives"] if c["kind"] == "all-gather" and c["axes"] == ["fsdp"]]
    assert all(c["sent_bytes"] == c["operand_bytes"] for c in kept)  # in groups of 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--topology=v5e:5x5",), "--topology=v5e:5x5: no such slice; v5e has"),
        (("--topology=cpu:6",), "batch.microbatch=16 cannot be shared evenly by 6 devices"),
        (("--topology=cpu:8", "--search"), "--search: nothing is known of cpu:8's chip"),
        (("--topology=cpu:8", "--config.mesh.tensor=3"), "8 devices are no multiple of 3"),
        (
            ("--topology=cpu:1", "--hlo=/dev/null/step.hlo"),
            "--hlo=/dev/null/step.hlo: Not a directory; choose another file",
        ),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, sentence):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


REFUSAL = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
    "required for HLO temporaries (20.50G) exceeds available HBM (15.75G)."
)


def test_a_refusal_says_what_was_needed_and_what_to_change():
    sizes = {"slice": 1, "data": 4, "fsdp": 2, "sequence": 1, "tensor": 1, "stage": 1}
    mesh: Any = SimpleNamespace(shape=sizes)
    nothing = SimpleNamespace(params=(), optimizer=())
    spec, chip = recipe_config(), find("TPU v5 lite")
    needed = exceeded(RuntimeError(REFUSAL), spec, mesh, nothing, (), chip)
    assert needed is not None
    assert needed.fits is False
    assert needed.total == 20.5 * 2**30
    assert advice(spec, mesh, needed) == [
        "batch.microbatch=8: one window at once on each device",
    ]
    full = dataclasses.replace(needed, parameters=4e9, optimizer=8e9)
    changed = dataclasses.replace(spec, model=dataclasses.replace(spec.model, remat="none"))
    first, second, *_, last = advice(changed, mesh, full)
    assert first.startswith("mesh.fsdp=8 with mesh.data=1")
    assert second.startswith("model.remat=full")
    assert last.startswith("more devices, or mesh.stage")
    little = dataclasses.replace(needed, activations=0.0, temporaries=0.0)
    assert advice(spec, mesh, little) == []
    assert exceeded(RuntimeError("INTERNAL: else"), spec, mesh, nothing, (), chip) is None


def recipe_config() -> Any:
    namespace: dict[str, Any] = {}
    exec(RECIPE, namespace)
    return namespace["get_config"]()


def test_slices_follow_the_topology():
    spec = recipe_config()
    assert with_slices(spec, parse("v5e:4x4")) is spec
    assert with_slices(spec, parse("2*v5e:4x4")).mesh.slices == 2
    assert with_slices(spec, parse("h200:2x8")) is spec
    three = dataclasses.replace(spec, mesh=dataclasses.replace(spec.mesh, slices=3))
    with pytest.raises(InputError, match=r"mesh.slices=3 and --topology=2\*v5e:4x4 has 2"):
        with_slices(three, parse("2*v5e:4x4"))


@pytest.mark.slow  # minutes on a busy machine
def test_a_tpu_is_compiled_for_without_one(tmp_path):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip('needs libtpu, which is not installed: pip install "jax[tpu]"')
    changes = ("--config.mesh.fsdp=4", "--config.model.compute_dtype=bfloat16")
    done = run(tmp_path, "--topology=v5e:2x4", *changes, f"--json={tmp_path / 'r.json'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["fits"] is True
    assert report["attention"] == "splash"
    assert report["seconds"]["compiler"] > report["seconds"]["compute"] > 0
    assert 0 < report["mfu"]["strict"] < 1
    assert {tuple(c["axes"]) for c in report["collectives"]} >= {("fsdp",), ("data",)}
    large = ("--config.mesh.fsdp=8", "--config.mesh.data=1", "--config.model.width=16384")
    too_large = run(tmp_path, "--topology=v5e:2x4", *large, "--config.model.layers=16")
    assert too_large.returncode == 4
    assert "to make it fit" in too_large.stdout
