"""Whatever happens while a checkpoint is written, the ones before it stay, and the user is told."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import Checkpoints, InputError
from train import manifests
from train.checkpoint import Reader, open_checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]
WANTED = {"x": jax.ShapeDtypeStruct((64, 64), jnp.float32)}


def draw(seed, size=64):
    """A state that differs by seed."""
    return {"x": jax.random.normal(jax.random.key(seed), (size, size))}


def large(seed=0):
    """4 MiB that do not compress."""
    return draw(seed, 1024)


def bits(state):
    return np.asarray(state["x"]).tobytes()


def save(directory, *steps):
    """Checkpoints of draw(step), each complete before the next begins."""
    with open_checkpoints(directory, Checkpoints(keep=10)) as checkpoints:
        for step in steps:
            checkpoints.save(step, draw(step), {})


def python(script, directory, **options):
    """Start a Python program with `directory` and what it needs defined."""
    preamble = """
        import sys, time
        from pathlib import Path
        import jax, jax.numpy as jnp
        from configs.schema import Checkpoints, InputError
        from train import checkpoint, manifests
        from train.checkpoint import Reader, open_checkpoints
        directory = Path(sys.argv[1])
        def draw(seed):
            return {"x": jax.random.normal(jax.random.key(seed), (64, 64))}
    """
    code = textwrap.dedent(preamble) + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, str(directory)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


class Crash(BaseException):
    """What a test throws to stop a save in its tracks; no `except Exception` catches it."""


def limited(function, left):
    """The function as long as `left` has entries; then it throws Crash."""

    def operation(*arguments, **options):
        if next(left, None) is None:
            raise Crash
        return function(*arguments, **options)

    return operation


class TestInterruption:
    @pytest.mark.parametrize("moment", ["writing", "sealing", "deleting"])
    def test_sigkill_leaves_what_was_complete(self, moment, tmp_path):
        """The lock of the killed process does not hold, and what it left half done goes."""
        script = f"""
            def stop(*_, **__):
                print("now", flush=True)
                time.sleep(100)
            with open_checkpoints(directory, Checkpoints(keep=1)) as checkpoints:
                checkpoints.save(1, draw(1), {{}})
                checkpoints.wait()
                if {moment!r} == "sealing":
                    manifests.seal = stop
                if {moment!r} == "deleting":
                    checkpoint.shutil.rmtree = stop
                checkpoints.save(2, draw(2), {{}})
                stop() if {moment!r} == "writing" else checkpoints.wait()
        """
        process = python(script, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.kill()
        process.communicate()
        with open_checkpoints(tmp_path, Checkpoints(), pytest.fail) as checkpoints:
            step, state, _ = checkpoints.restore(WANTED)
            if moment != "writing":  # which may have been over just before the kill
                assert step == {"sealing": 1, "deleting": 2}[moment]
            assert bits(state) == bits(draw(step))
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {*map(str, checkpoints.steps()), "lock"}

    def test_a_stop_between_any_two_file_operations(self, tmp_path, monkeypatch):
        """Save 3 over a damaged 3, which deletes 1, cut off after n operations, for every n."""
        save(tmp_path / "0", 1, 2, 3)
        (tmp_path / "0" / "3" / manifests.MANIFEST).unlink()
        for allowed in range(1000):
            directory = Path(shutil.copytree(tmp_path / "0", tmp_path / str(allowed + 1)))
            left = iter(range(allowed))
            with monkeypatch.context() as patch:
                try:
                    with open_checkpoints(directory, Checkpoints(keep=2), lambda _: None) as opened:
                        for name in ("fsync", "rename", "unlink", "rmdir"):
                            patch.setattr(os, name, limited(getattr(os, name), left))
                        opened.save(3, draw(30), {})
                        opened.wait()
                except Crash:
                    done = False
                else:
                    done = True
            with open_checkpoints(directory, Checkpoints(), lambda _: None) as opened:
                step, state, _ = opened.restore(WANTED)
                assert bits(state) == bits(draw({3: 30, 2: 2}[step]))
                for complete in opened.steps():
                    manifests.verify(directory / str(complete))
                assert not [*directory.glob("*.saving"), *directory.glob("*.deleting")]
            if done:
                break
        assert allowed > 20
        assert step == 3
        assert Reader(directory).steps() == [2, 3]

    def test_an_exception_waits_for_the_pending_save(self, tmp_path):
        """In a process of its own: nothing is lost at its exit, and nothing but the error shows."""
        script = """
            with open_checkpoints(directory, Checkpoints()) as checkpoints:
                checkpoints.save(5, draw(5), {})
                raise KeyError("in the next step")
        """
        process = python(script, tmp_path)
        output, errors = process.communicate()
        assert process.returncode == 1
        assert output == ""
        assert errors.count("Traceback") == 1
        assert errors.endswith("KeyError: 'in the next step'\n")
        assert bits(Reader(tmp_path).restore(WANTED).state) == bits(draw(5))

    def test_a_failed_save_does_not_hide_what_ended_the_run(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(5, "Input/output error")

        def run():
            with open_checkpoints(tmp_path, Checkpoints(), reports.append) as checkpoints:
                checkpoints.save(3, draw(3), {})
                raise KeyError

        save(tmp_path, 2)
        monkeypatch.setattr(manifests, "seal", fail)
        reports: list[str] = []
        with pytest.raises(KeyError):
            run()
        assert "step 3 could not be saved" in reports[0]
        assert "Input/output error" in reports[0]
        assert "goes on from step 2" in reports[0]


class TestFailure:
    def test_disk_full(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk]).returncode:
            pytest.skip("cannot mount a small disk here: needs root")
        try:
            with open_checkpoints(disk / "checkpoints", Checkpoints()) as checkpoints:
                checkpoints.save(1, draw(1), {})
                checkpoints.wait()
                checkpoints.save(2, large(), {})
                with pytest.raises(
                    InputError,
                    match=r"no space left while saving step 2 in .*/disk/checkpoints: free some "
                    r"and run again, which goes on from step 1",
                ):
                    checkpoints.wait()
                assert bits(checkpoints.restore(WANTED).state) == bits(draw(1))
                checkpoints.save(3, draw(3), {})  # there is space again
            assert Reader(disk / "checkpoints").steps() == [1, 3]
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_failed_save_surfaces_while_training_goes_on(self, tmp_path):
        """In a process of its own, which shows that Orbax logs nothing beside the one sentence."""
        script = """
            import gc, resource
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            many = {str(i): draw(i) for i in range(40)}
            with open_checkpoints(directory, Checkpoints()) as checkpoints:
                checkpoints.check()
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, hard))
                checkpoints.save(1, many, {})
                try:
                    while True:
                        checkpoints.check()
                except InputError as error:
                    print(error)
                gc.collect()
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                checkpoints.check()
                checkpoints.save(2, draw(2), {})
        """
        output, errors = python(script, tmp_path).communicate()
        assert output == (
            f"no space left while saving step 1 in {tmp_path}: free some and run again, which "
            "starts anew\n"
        )
        assert errors == ""
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "lock"]

    def test_directory_vanished(self, tmp_path):
        with open_checkpoints(tmp_path / "gone", Checkpoints()) as checkpoints:
            shutil.rmtree(tmp_path / "gone")
            with pytest.raises(InputError, match=r"step 1 could not be saved in .*/gone .*No such"):
                checkpoints.save(1, draw(1), {})

    def test_unwritable_directory(self, tmp_path):
        (tmp_path / "file").touch()
        directory = tmp_path / "file" / "checkpoints"
        with (
            pytest.raises(InputError, match=rf"cannot be written in {directory} \(Not a directory"),
            open_checkpoints(directory, Checkpoints()),
        ):
            pytest.fail("was opened")

    def test_second_trainer_is_refused_and_told_of_the_first(self, tmp_path):
        script = """
            with open_checkpoints(directory, Checkpoints()):
                print("open", flush=True)
                time.sleep(100)
        """
        first = python(script, tmp_path)
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        refused = rf"process {first.pid} on \S+ is training in {tmp_path}: wait for it"
        with (
            pytest.raises(InputError, match=refused),
            open_checkpoints(tmp_path, Checkpoints()),
        ):
            pytest.fail("was opened")
        first.send_signal(signal.SIGKILL)
        first.communicate()
        with open_checkpoints(tmp_path, Checkpoints()):
            pass


def test_restoring_onto_other_devices(tmp_path):
    """Values stay, bit for bit, from 4 x 2 devices to 2 x 4, 8, all of them, one, explicit axes."""
    script = """
        import numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        def place(shape, spec, kind=AxisType.Auto):
            return NamedSharding(jax.make_mesh(shape, ("a", "b"), axis_types=(kind,) * 2), spec)
        values = {"w": np.random.default_rng(0).standard_normal((16, 32), np.float32),
                  "b": np.arange(8, dtype=np.int32)}
        first = {"w": place((4, 2), P("a", "b")), "b": place((4, 2), P("b"))}
        with open_checkpoints(directory, Checkpoints()) as checkpoints:
            checkpoints.save(1, jax.device_put(values, first), {})
        one = jax.sharding.SingleDeviceSharding(jax.devices()[3])
        for shardings in (
            first,
            {"w": place((2, 4), P("b", "a")), "b": place((2, 4), P())},
            {"w": place((8, 1), P(("a", "b")), AxisType.Explicit), "b": one},
            {"w": place((8, 1), P()), "b": place((8, 1), P("a"))},
            {"w": None, "b": None},
        ):
            wanted = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name])
                      for name, x in values.items()}
            state = Reader(directory).restore(wanted).state
            for name, x in values.items():
                sharding = shardings[name] or jax.sharding.SingleDeviceSharding(jax.devices()[0])
                assert state[name].sharding == sharding, (state[name].sharding, sharding)
                assert np.asarray(state[name]).tobytes() == x.tobytes()
        print("equal")
    """
    environment = {
        "PATH": "",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    output, errors = python(script, tmp_path, env=environment).communicate()
    assert (output, errors) == ("equal\n", "")
