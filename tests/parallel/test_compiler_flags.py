"""Options for a TPU's compiler: which chip, what the user set, what this libtpu knows."""

import importlib.util
from pathlib import Path

import pytest

from configs.schema import Batch, Config, Data, Model, Optimizer
from parallel import compiler_flags
from parallel.compiler_flags import OPTIONS, VARIABLE, attached, chosen, variables
from parallel.mesh import make_mesh
from train import setup
from train.peak import Peak

UNKNOWN = "xla_tpu_use_tc_device_shape_on_sc"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A libtpu that knows all options but one, of which it has a longer namesake."""
    names = {name for options in OPTIONS.values() for name in options}
    names -= {UNKNOWN}
    path = tmp_path / "libtpu.so"
    path.write_bytes(b"\0".join([b"", *(n.encode() for n in sorted(names)), b""]))
    path.write_bytes(path.read_bytes() + UNKNOWN.encode() + b"_more\0")
    return path


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    """The PCI bus of a host of v6e chips."""
    for address, vendor, device in (
        ("0000:00:01.0", "0x8086", "0x0063"),  # another vendor's device of a v5e's number
        ("0000:00:04.0", "0x1ae0", "0x0042"),  # Google's network card
        ("0000:00:05.0", "0x1ae0", "0x006f"),
    ):
        place = tmp_path / "bus" / address
        place.mkdir(parents=True)
        (place / "vendor").write_text(vendor + "\n")
        (place / "device").write_text(device + "\n")
    return tmp_path / "bus"


def test_the_chip_is_found_on_the_bus(bus, tmp_path):
    assert attached(bus) == "v6e"
    assert attached(tmp_path / "none") == ""


def test_a_name_that_libtpu_does_not_know_is_left_out(library):
    assert chosen("v6e", library=library) == {
        name: value for name, value in OPTIONS["v6e"].items() if name != UNKNOWN
    }
    assert chosen("cpu", library=library) == {}


def test_what_the_user_set_stays(bus, library):
    gather = "xla_tpu_enable_sparse_core_collective_offload_all_gather"
    own = f"--{gather}=false --noxla_sc_disable_megacore_partitioning --other"
    environment = {VARIABLE: own, "TPU_LIBRARY_PATH": str(library)}
    text = variables(environment, bus)[VARIABLE]
    assert text.startswith(own + " --")
    assert text.count(gather) == 1
    assert text.count("xla_sc_disable_megacore_partitioning") == 1
    assert variables({**environment, VARIABLE: text}, bus) == {}  # a second time adds nothing
    assert variables({**environment, "JAX_PLATFORMS": "cpu"}, bus) == {}


def test_without_libtpu_nothing_is_set(bus, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert variables({}, bus) == {}


@pytest.mark.skipif(compiler_flags.installed() is None, reason="libtpu is not installed")
@pytest.mark.parametrize("family", sorted(OPTIONS))
def test_the_installed_libtpu_knows_all_of_them(family):
    assert chosen(family) == OPTIONS[family]


def test_a_run_says_and_records_what_the_compiler_was_told(monkeypatch):
    config = Config(
        model=Model(vocab=128, context=8, layers=1, width=8),
        data=Data(path="synthetic"),
        batch=Batch(size=8),
        optimizer=Optimizer(learning_rate=1e-3),
        steps=1,
    )
    mesh = make_mesh(config)  # JAX has started: libtpu, where installed, ends at such a name
    monkeypatch.setenv(VARIABLE, "--some_option=1")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    run = setup.describe(config, None, mesh, Peak(1.0, "none"))
    assert run["compiler"] == {VARIABLE: "--some_option=1"}
    assert "options   --some_option=1" in setup.decisions(config, run).splitlines()
