"""Checkpoints: bitwise, or refused; damage is found, named, and passed over."""

import os
import random
import shutil
import sys
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import (
    Batch,
    Checkpoints,
    Config,
    Data,
    InputError,
    Model,
    Optimizer,
)
from model import Parameter
from train import checkpoint, manifests, optimizers
from train.checkpoint import Reader, open_checkpoints

DECLARATIONS = {
    "matrix": Parameter(
        (2, 8, 4), ("layers", "in", "out"), "matrix", True, matrix_axes=((1,), (2,))
    ),
    "scale": Parameter((8,), ("in",), "vector", False),
}


def draw(seed=0):
    """A small state: parameters, an optimizer's nested tuples, and a count."""
    keys = jax.random.split(jax.random.key(seed))
    params = {
        name: jax.random.normal(key, declared.shape)
        for key, (name, declared) in zip(keys, DECLARATIONS.items(), strict=True)
    }
    config = Config(
        model=Model(vocab=8, context=4, layers=1, width=4),
        data=Data(path="synthetic"),
        batch=Batch(size=1),
        optimizer=Optimizer(learning_rate=0.1),
        steps=1,
    )
    optimizer = optimizers.build(config, DECLARATIONS)
    return {"params": params, "optimizer": optimizer.init(params), "step": jnp.int32(seed)}


def bits(tree):
    return [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def save(directory, *steps, keep=10, **settings):
    """Checkpoints of draw(step), each complete before the next begins."""
    with open_checkpoints(directory, Checkpoints(keep=keep, **settings)) as checkpoints:
        for step in steps:
            checkpoints.save(step, draw(step), {"step": step})


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """A directory with the intact checkpoints 1 and 2."""
    directory = tmp_path_factory.mktemp("saved")
    save(directory, 1, 2)
    return directory


@pytest.fixture
def two(two_saved, tmp_path):
    """A copy of it to damage."""
    return Path(shutil.copytree(two_saved, tmp_path / "checkpoints"))


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


class TestRoundTrip:
    def test_every_kind_of_leaf_comes_back_bit_for_bit(self, tmp_path):
        patterns = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x00000001, 0x7F800000], np.uint32)
        state = {
            "payloads": jnp.asarray(patterns).view(jnp.float32),  # NaNs, -0, a subnormal, infinity
            "half": jnp.asarray([0x7FC1, 0x8000, 0x0001], jnp.uint16).view(jnp.bfloat16),
            "count": jnp.int32(-3),
            "flag": jnp.array([True, False]),
            "empty": (),
            "none": None,
            "nested": [{"a.b": jnp.arange(3)}, (jnp.zeros((2, 0 + 1, 2)),)],
        }
        with open_checkpoints(tmp_path, Checkpoints()) as checkpoints:
            checkpoints.save(7, state, {"ä": [1, None, 0.1]}, validation_loss=1.5)
        restored = Reader(tmp_path).restore(jax.eval_shape(lambda: state))
        assert bits(restored.state) == bits(state)
        assert str(jax.tree.structure(restored.state)) == str(jax.tree.structure(state))
        assert (restored.step, restored.notes) == (7, {"ä": [1, None, 0.1]})

    @pytest.mark.parametrize(
        "name", ["adam", "adamw", "sgd", "rmsprop", "adafactor", "lion", "muon"]
    )
    def test_the_state_of_every_optimizer(self, name, tmp_path):
        config = Config(
            model=Model(vocab=8, context=4, layers=1, width=4),
            data=Data(path="synthetic"),
            batch=Batch(size=1),
            optimizer=Optimizer(name=name, learning_rate=0.1),
            steps=5,
        )
        optimizer = optimizers.build(config, DECLARATIONS)
        params = draw()["params"]
        _, state = optimizer.update(draw(1)["params"], optimizer.init(params), params)
        with open_checkpoints(tmp_path, Checkpoints()) as checkpoints:
            checkpoints.save(1, state, {})
        restored = Reader(tmp_path).restore(jax.eval_shape(lambda: optimizer.init(params)))
        assert bits(restored.state) == bits(state)

    def test_a_state_donated_right_after_the_save(self, tmp_path):
        """The save is asynchronous; what the next updates do to the buffers must not reach it."""
        update = jax.jit(lambda x: jax.tree.map(lambda a: a * 3 + 1, x), donate_argnums=0)
        state = {str(i): jax.random.normal(jax.random.key(i), (256, 1024)) for i in range(8)}
        before = bits(state)
        with open_checkpoints(tmp_path, Checkpoints()) as checkpoints:
            checkpoints.save(0, state, {})
            for _ in range(20):
                state = update(state)
        assert bits(Reader(tmp_path).restore(state).state) == before

    def test_arrays_are_spread_over_files_that_are_hashed_at_once(self, tmp_path, monkeypatch):
        monkeypatch.setattr("train.checkpoint.FILE_BYTES", 2**15)
        state = {str(i): jnp.full((2**12,), i, jnp.float32) for i in range(16)}
        with open_checkpoints(tmp_path, Checkpoints()) as checkpoints:
            checkpoints.save(1, state, {})
        sizes = [path.stat().st_size for path in files(tmp_path / "1" / "state")]
        assert sum(sizes) > 16 * 2**14
        assert max(sizes) < 2**15 + 2**14
        assert bits(Reader(tmp_path).restore(state).state) == bits(state)

    def test_all_of_it_is_brought_to_disk(self, tmp_path, monkeypatch):
        sync, synced = os.fsync, set()

        def noted(descriptor):
            synced.add(os.fstat(descriptor).st_ino)
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", noted)
        save(tmp_path, 1)
        assert {path.stat().st_ino for path in (tmp_path, *tmp_path.glob("1/**/*"))} <= synced

    @pytest.mark.skipif(sys.platform != "linux", reason="priorities are those of processes")
    def test_a_save_has_the_lowest_priority_and_its_caller_keeps_its_own(
        self, tmp_path, monkeypatch
    ):
        seen = {}

        def watch(owner, name):
            function = getattr(owner, name)

            def watched(*arguments):
                seen[name] = os.getpriority(os.PRIO_PROCESS, 0)  # of this thread
                return function(*arguments)

            monkeypatch.setattr(owner, name, watched)

        watch(checkpoint._Arrays, "serialize")
        watch(manifests, "_measure")
        before = os.getpriority(os.PRIO_PROCESS, 0)
        save(tmp_path, 1)
        assert seen == {"serialize": 19, "_measure": 19}
        assert os.getpriority(os.PRIO_PROCESS, 0) == before < 19

    def test_a_checkpoint_of_an_earlier_version(self, tmp_path):
        """Written once, when the format was new; every later version must read it."""
        with tarfile.open(Path(__file__).with_name("checkpoint_format_1.tar.gz")) as archive:
            archive.extractall(tmp_path, filter="data")
        wanted = {
            "half": jax.ShapeDtypeStruct((4,), jnp.bfloat16),
            "nested": [jax.ShapeDtypeStruct((2, 3), jnp.float32)],
            "step": jax.ShapeDtypeStruct((), jnp.int32),
        }
        step, state, notes = Reader(tmp_path).restore(wanted)
        assert (step, notes) == (20, {"config": {"seed": 1}})
        np.testing.assert_array_equal(state["half"].astype(jnp.float32), [0, 1, 2, 3])
        np.testing.assert_array_equal(state["nested"][0], np.arange(6.0).reshape(2, 3) / 8)
        assert state["step"] == 20


class TestDamage:
    def test_a_flipped_bit_in_any_file_is_detected(self, two):
        chance = random.Random(0)
        for path in files(two / "2"):
            intact = path.read_bytes()
            for _ in range(100 if path.name == manifests.MANIFEST else 20):
                flipped = bytearray(intact)
                flipped[chance.randrange(len(intact))] ^= 1 << chance.randrange(8)
                path.write_bytes(flipped)
                with pytest.raises(manifests.DamagedError, match=str(path)):
                    manifests.verify(two / "2")
            path.write_bytes(intact)
        manifests.verify(two / "2")

    @pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "flipped"])
    def test_a_damaged_file_is_named_and_the_checkpoint_before_used(self, damage, two):
        for path in files(two / "2"):
            intact = path.read_bytes()
            match damage:
                case "missing":
                    path.unlink()
                case "empty":
                    path.write_bytes(b"")
                case "cut":
                    path.write_bytes(intact[: len(intact) // 2])
                case "longer":
                    path.write_bytes(intact + b"\n")
                case "flipped":
                    path.write_bytes(bytes([intact[0] ^ 1]) + intact[1:])
            reports: list[str] = []
            step, state, notes = Reader(two, reports.append).restore(draw())
            assert (step, bits(state), notes) == (1, bits(draw(1)), {"step": 1})
            assert len(reports) == 1
            assert str(path) in reports[0]
            path.write_bytes(intact)
        assert Reader(two, pytest.fail).restore(draw()).step == 2

    def test_a_copy_is_as_good(self, two):
        shutil.copytree(two / "2", two / "3")
        assert Reader(two, pytest.fail).restore(draw()).step == 3

    def test_a_reader_leaves_what_is_damaged_and_a_writer_puts_it_aside(self, two):
        (two / "2" / manifests.MANIFEST).unlink()
        before = files(two)
        reports: list[str] = []
        assert Reader(two, reports.append).restore(draw()).step == 1
        assert files(two) == before
        damaged = [path.read_bytes() for path in files(two / "2")]
        with open_checkpoints(two, Checkpoints(keep=1), reports.append) as checkpoints:
            assert checkpoints.latest() == 2
            assert checkpoints.restore(draw()).step == 1
            assert checkpoints.latest() == 1
            checkpoints.save(2, draw(2), {})
        assert Reader(two).steps() == [2]
        assert [path.read_bytes() for path in files(two / "2.aside-1")] == damaged
        assert len(reports) == 2
        assert "checkpoint 2 is put aside as 2.aside-1" in reports[1]

    def test_none_intact(self, two):
        for path in two.glob("[12]/manifest.json"):
            path.unlink()
        with pytest.raises(InputError, match=r"no checkpoint in .* is intact \(looked at 2, 1\)"):
            Reader(two).restore(draw())

    def test_the_asked_for_step_is_never_replaced_by_another(self, two):
        (two / "2" / manifests.MANIFEST).unlink()
        with pytest.raises(InputError, match=r"is intact \(looked at 2\)"):
            Reader(two).restore(draw(), step=2)
        assert Reader(two).restore(draw(), step=1).step == 1

    def test_none_at_all(self, tmp_path):
        reader = Reader(tmp_path / "nowhere")
        assert (reader.steps(), reader.latest(), reader.best()) == ([], None, None)
        with pytest.raises(InputError, match=r"there is no checkpoint in .*nowhere"):
            reader.restore(draw())

    def test_another_format_is_refused(self, two):
        notes = manifests.read(two / "2")
        (two / "2" / manifests.MANIFEST).unlink()
        manifests.seal(two / "2", {**notes, "format": 2})
        with pytest.raises(InputError, match="is in format 2, and this version reads format 1"):
            Reader(two).restore(draw())

    def test_a_checkpoint_deleted_while_it_is_read_gives_way_to_a_newer_one(self, two, monkeypatch):
        verify = manifests.verify

        def overtaken(path):
            if path.name == "2":
                path.rename(path.with_name("3"))
            return verify(path)

        monkeypatch.setattr(manifests, "verify", overtaken)
        assert Reader(two, pytest.fail).restore(draw()).step == 3


class TestMismatch:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                lambda s: s["params"].update(scale=jnp.zeros(9)),
                r"params/scale .* float32\[8\] .* float32\[9\]",
            ),
            (
                lambda s: s["params"].update(scale=jnp.zeros(8, jnp.bfloat16)),
                r"params/scale .* float32\[8\] .* bfloat16\[8\]",
            ),
            (lambda s: s.update(step=jnp.float32(0)), r"step .* int32\[\] .* float32\[\]"),
            (lambda s: s["params"].pop("scale"), r"params/scale .* float32\[8\] .* nothing"),
            (lambda s: s.update(more=jnp.zeros(1)), r"more .* nothing .* float32\[1\]"),
            (lambda s: s.update(optimizer=()), r"optimizer/1/count .* int32\[\] .* nothing"),
        ],
    )
    def test_is_refused_with_the_leaf_and_both_sides(self, change, sentence, two_saved):
        wanted = draw()
        change(wanted)
        with pytest.raises(InputError, match=sentence):
            Reader(two_saved, pytest.fail).restore(jax.eval_shape(lambda: wanted))


class TestKeeping:
    @pytest.mark.parametrize(
        ("settings", "losses", "kept"),
        [
            ({"keep": 1}, [None] * 6, [6]),
            ({"keep": 3}, [None] * 6, [4, 5, 6]),
            ({"keep": 1, "keep_every": 2}, [None] * 5, [2, 4, 5]),
            ({"keep": 1}, [3.0, 2.0, 2.5, 2.0, 4.0], [2, 5]),
            ({"keep": 2}, [3.0, None, float("nan"), None, None], [1, 4, 5]),
            ({"keep": 1}, [3.0, 2.0, 1.0], [3]),
        ],
    )
    def test_newest_multiples_and_best(self, settings, losses, kept, tmp_path):
        state = {"x": jnp.zeros(1)}
        with open_checkpoints(tmp_path, Checkpoints(**settings)) as checkpoints:
            for step, loss in enumerate(losses, 1):
                checkpoints.save(step, state, {}, validation_loss=loss)
        reader = Reader(tmp_path)
        assert reader.steps() == kept
        assert reader.latest() == kept[-1]
        known = {s: x for s, x in enumerate(losses, 1) if x is not None and np.isfinite(x)}
        assert reader.best() == (min(known, key=lambda s: known[s]) if known else None)
        assert {path.name for path in tmp_path.iterdir()} == {*map(str, kept), "lock"}

    def test_what_is_saved_or_restored_is_not_saved_again(self, tmp_path):
        save(tmp_path, 1)
        written = (tmp_path / "1" / manifests.MANIFEST).stat().st_mtime_ns
        with open_checkpoints(tmp_path, Checkpoints(), pytest.fail) as checkpoints:
            checkpoints.restore(draw())
            checkpoints.save(1, draw(1), {})
            checkpoints.save(2, draw(2), {})
            checkpoints.save(2, draw(2), {})
        assert (tmp_path / "1" / manifests.MANIFEST).stat().st_mtime_ns == written
        assert Reader(tmp_path).steps() == [1, 2]

    def test_going_on_from_an_earlier_step_replaces_no_later_one_silently(self, two):
        reports: list[str] = []
        with open_checkpoints(two, Checkpoints(keep=1), reports.append) as checkpoints:
            checkpoints.restore(draw(), step=1)
            checkpoints.save(2, draw(9), {})
        assert bits(Reader(two).restore(draw()).state) == bits(draw(9))
        (two / "2.aside-1").rename(two / "3")
        assert bits(Reader(two).restore(draw()).state) == bits(draw(2))
        assert reports == [
            "checkpoint 2 is put aside as 2.aside-1, because this run now saves another one of "
            "that step"
        ]

    def test_later_steps_of_another_course_neither_count_nor_go(self, tmp_path):
        save(tmp_path, 1, 5)
        with open_checkpoints(tmp_path, Checkpoints(keep=1), pytest.fail) as checkpoints:
            checkpoints.restore(draw(), step=1)
            checkpoints.save(3, draw(3), {})
        assert Reader(tmp_path).steps() == [3, 5]

    def test_a_damaged_checkpoint_does_not_count_and_is_not_deleted(self, two):
        (two / "2" / manifests.MANIFEST).unlink()
        save(two, 3, 4, keep=2)
        assert Reader(two).steps() == [2, 3, 4]
