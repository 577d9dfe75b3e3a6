"""Checkpoints that are complete, intact and just what was asked for, or are not used.

    <step>/state/         the arrays, written by Orbax under the names of their paths in the state
    <step>/manifest.json  every file with its size and SHA-256, every array with its dtype and
                          shape, the validation loss, and what the run noted
    <step>.saving/        a save under way, or cut short by a kill
    <step>.deleting/      a deletion, likewise
    <step>.aside-<n>/     damaged, or in the way of a later save of the same step; never deleted
    lock                  held by the process that trains here, which it names

A directory named by a bare step appears by one rename, once all of it has reached the disk, and
disappears by one, so a kill at any moment leaves the other checkpoints as they were. The rest is
checked on the way back, because Orbax loads flipped bits and casts dtypes without a word.
One run writes a directory, on a local or mounted file system. Where several processes train, each
writes and reads the shards of its own devices, and all else is done by the first; every method of a
Writer but `check` is then called by all of them in the same order.
"""

import errno
import itertools
import json
import logging
import os
import re
import shutil
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
import tensorstore as ts

from configs.schema import Checkpoints, InputError, require
from parallel import agreement
from train import lock, manifests

FORMAT = 1  # of what this module writes
STATE = "state"
FILE_BYTES = 2**26  # of a file of arrays, about: hashing takes all cores only where there are many

# Here one sentence reports a failure. Orbax logs a stack for it, asyncio one for each other write
# that fails and that Orbax does not ask for, and Python warns of writes that it does not begin.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())
warnings.filterwarnings("ignore", "coroutine 'async_serialize", RuntimeWarning)
# Orbax closes its event loop, too: Python would print a stack for each call that TensorStore makes.
_show = sys.unraisablehook
sys.unraisablehook = lambda lost: (
    None if str(lost.exc_value) == "Event loop is closed" else _show(lost)
)


class Restored(NamedTuple):
    """A checkpoint in memory."""

    step: int
    state: Any
    notes: dict[str, Any]


class Reader:
    """The checkpoints of a run, to look at; safe beside the process that writes them."""

    def __init__(self, directory: Path, report: Callable[[str], None] = print) -> None:
        """Read `directory`, which need not exist; `report` is told what is found damaged."""
        self.directory = directory.absolute()
        self.report = report

    def steps(self) -> list[int]:
        """The steps on disk, rising. Whether one is intact shows when it is restored."""
        names = (path.name for path in self.directory.glob("*"))
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))

    def latest(self) -> int | None:
        """The newest step on disk."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step of the lowest validation loss, None where none was noted."""
        return _lowest(self._losses())

    def restore(self, wanted: Any, step: int | None = None) -> Restored:
        """Load a checkpoint, bit for bit.

        Args:
            wanted: a tree of arrays or `jax.ShapeDtypeStruct`. The checkpoint must hold just these
                leaves, in these shapes and dtypes; each is put where its sharding says, or on the
                first device.
            step: which one; None: the newest that is intact, each damaged one being reported.

        Raises:
            InputError: there is none, none is intact, or it holds something else.
        """
        # One process reads every byte to verify it, and the others take its word: as many readings
        # as there are hosts would make the file system the slowest part of going on.
        chosen, manifest = agreement.first(lambda: self._newest_intact(step))
        path = self.directory / str(chosen)
        return Restored(chosen, _load(path, manifest, wanted), manifest["notes"])

    def _newest_intact(self, step: int | None) -> tuple[int, dict[str, Any]]:
        """The checkpoint to restore and its manifest; each damaged one is passed over."""
        steps = self.steps() if step is None else [step]
        require(len(steps) > 0, f"there is no checkpoint in {self.directory}: check the directory")
        for candidate in reversed(steps):
            path = self.directory / str(candidate)
            try:
                return candidate, manifests.verify(path)
            except manifests.DamagedError as damage:
                if step is None and not path.exists():  # deleted meanwhile, so there are newer ones
                    return self._newest_intact(None)
                self._pass_over(path, damage)
        raise InputError(
            f"no checkpoint in {self.directory} is intact (looked at "
            f"{', '.join(map(str, reversed(steps)))}): bring one back from a copy, or start again "
            "in another directory"
        )

    def _losses(self) -> dict[int, float | None]:
        """The validation losses by step, rising, as far as manifests are readable."""
        losses = {}
        for step in self.steps():
            with suppress(manifests.DamagedError):
                losses[step] = manifests.read(self.directory / str(step))["validation_loss"]
        return losses

    def _pass_over(self, path: Path, damage: manifests.DamagedError) -> None:
        self.report(f"checkpoint {path.name} is passed over, because {damage}")


class _Arrays(ocp.type_handlers.ArrayHandler):
    """Arrays as Orbax writes them, but brought to disk by the seal, while it hashes them."""

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
        # Of several processes each syncs its own: the first cannot do so with another host's cache.
        settings = {"file_io_sync": jax.process_count() > 1}
        context = ts.Context(settings, parent=infos[0].ts_context)
        infos = [info.replace(ts_context=context) for info in infos]
        return await super().serialize(values, infos, args)


class Writer(Reader):
    """The checkpoints of a run, for the process that trains it: see `open_checkpoints`."""

    def __init__(
        self,
        directory: Path,
        settings: Checkpoints,
        report: Callable[[str], None],
        orbax: ocp.AsyncCheckpointer,
        thread: Executor,
    ) -> None:
        super().__init__(directory, report)
        self._settings, self._orbax, self._thread = settings, orbax, thread
        self._pending: tuple[int, Future[None]] | None = None
        self._unconfirmed = False  # whether the others may not know yet how a save ended
        self._present: int | None = None  # the step last saved or restored here

    def save(
        self, step: int, state: Any, notes: dict[str, Any], validation_loss: float | None = None
    ) -> None:
        """Copy the state and write it in the background; the state may be donated at once.

        Waits for the save before it. The step that was saved or restored last is not saved again.

        Args:
            step: updates finished.
            state: a tree of `jax.Array`.
            notes: anything that JSON holds; `restore` gives it back.
            validation_loss: what `best` goes by, where known.

        Raises:
            InputError: this save or the one before it failed; earlier checkpoints are untouched.
        """
        self.wait()
        if step == self._present:
            return
        arrays = _named(state)
        manifest = {
            "format": FORMAT,
            "orbax": version("orbax-checkpoint"),
            "step": step,
            "validation_loss": None if validation_loss is None else float(validation_loss),
            "notes": json.loads(json.dumps(notes)),
            "arrays": {name: _describe(array) for name, array in arrays.items()},
        }
        draft = self.directory / f"{step}.saving"
        with self._explained(step, draft):
            if agreement.is_first():
                draft.mkdir()
            args = ocp.args.PyTreeSave(arrays, ocdbt_target_data_file_size=FILE_BYTES)
            # There, since the threads that Orbax starts inherit the priority.
            self._thread.submit(self._orbax.save, draft / STATE, args=args).result()
        self._pending = step, self._thread.submit(self._finish, step, draft, manifest)
        self._unconfirmed = True

    def check(self) -> None:
        """Raise the InputError of a save that has failed meanwhile, here; never waits."""
        if self._pending and self._pending[1].done():
            self.settle()

    def wait(self) -> None:
        """Wait until the pending save, if any, is complete on disk, for all processes.

        Raises:
            InputError: it failed; earlier checkpoints are untouched.
        """
        failure = None
        try:
            self.settle()
        except InputError as error:
            failure = error
        if self._unconfirmed:
            self._unconfirmed = False
            agreement.all_or_none(failure)

    def settle(self) -> None:
        """Wait for this process's part of the pending save, whatever the others do.

        Raises:
            InputError: it failed.
        """
        if self._pending:
            step, future = self._pending
            future.exception()  # waits; should an interrupt come here, the save stays pending
            self._pending = None
            future.result()
            self._present = step

    def restore(self, wanted: Any, step: int | None = None) -> Restored:
        """As a Reader does, but put aside what is damaged; the run goes on from there."""
        self.wait()
        restored = super().restore(wanted, step)
        self._present = restored.step
        return restored

    def _finish(self, step: int, draft: Path, manifest: dict[str, Any]) -> None:
        """Seal what Orbax has written, give it its name, and delete what need not be kept."""
        final = draft.with_name(str(step))
        with self._explained(step, draft):
            self._orbax.wait_until_finished()  # by all processes
            if not agreement.is_first():
                return
            manifests.seal(draft, manifest)
            if final.exists():
                self._put_aside(final, "this run now saves another one of that step")
            manifests.rename(draft, final)
        self._prune(step)

    def _pass_over(self, path: Path, damage: manifests.DamagedError) -> None:
        self._put_aside(path, str(damage))

    def _put_aside(self, path: Path, reason: str) -> None:
        names = (path.with_name(f"{path.name}.aside-{n}") for n in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        manifests.rename(path, aside)
        self.report(f"checkpoint {path.name} is put aside as {aside.name}, because {reason}")

    def _prune(self, newest: int) -> None:
        """Delete what the settings do not keep, but nothing damaged or after the newest."""
        losses = {step: loss for step, loss in self._losses().items() if step <= newest}
        every = self._settings.keep_every
        kept = {*list(losses)[-self._settings.keep :], _lowest(losses)}
        kept |= {step for step in losses if every and step % every == 0}
        for step in losses.keys() - kept:
            doomed = self.directory / f"{step}.deleting"
            try:
                manifests.rename(self.directory / str(step), doomed)
                shutil.rmtree(doomed)
            except OSError as error:
                self.report(f"{doomed} could not be deleted ({error.strerror}): delete it yourself")

    @contextmanager
    def _explained(self, step: int, draft: Path) -> Iterator[None]:
        """Clear away a save that fails and say in one sentence why, and what is left."""
        try:
            yield
        except Exception as error:
            if agreement.is_first():
                shutil.rmtree(draft, ignore_errors=True)
            latest = self.latest()
            goes_on = "starts anew" if latest is None else f"goes on from step {latest}"
            if _is_full(error):
                raise InputError(
                    f"no space left while saving step {step} in {self.directory}: free some and "
                    f"run again, which {goes_on}"
                ) from error
            raise InputError(
                f"step {step} could not be saved in {self.directory} "
                f"({_brief(error)}): mend that and run again, which {goes_on}"
            ) from error


@contextmanager
def open_checkpoints(
    directory: Path, settings: Checkpoints, report: Callable[[str], None] = print
) -> Iterator[Writer]:
    """Take hold of a run's checkpoints, to save and restore them in a `with` block.

    At its end the pending save is finished, also when an exception passes through; should the save
    then fail too, that is reported and the exception goes on.

    Args:
        directory: made where missing; what kills left there is cleared away.
        settings: what is kept.
        report: is told, in sentences, what is found damaged and what is put aside.

    Raises:
        InputError: the directory cannot be written or is not the same for all processes, or
            another run is training there; at the end: the pending save failed.
    """
    # Weights hardly compress, and trying takes longer than all else and cores from the training.
    # Replicas share the writing, but those of a CPU are threads of one memory.
    arrays = _Arrays(use_replica_parallel=jax.default_backend() != "cpu")
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
    with ExitStack() as held:
        agreement.first(lambda: held.enter_context(lock.take(directory)) and None)
        _check_shared(directory)
        orbax = held.enter_context(ocp.AsyncCheckpointer(handler))
        thread = held.enter_context(ThreadPoolExecutor(1, "save", _give_way))
        writer = Writer(directory, settings, report, orbax, thread)
        try:
            yield writer
        except BaseException:
            try:
                writer.settle()
            except InputError as unsaved:
                report(str(unsaved))
            raise
        writer.wait()


def _give_way() -> None:
    """Give the calling thread, and those that it starts, only the time that all others leave."""
    if sys.platform == "linux":  # elsewhere a priority is that of a process
        with suppress(OSError):  # some sandboxes have no such call
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _check_shared(directory: Path) -> None:
    """Raise InputError unless what process 0 writes into the directory is seen by all."""
    if jax.process_count() == 1:
        return
    probe = directory / agreement.first(lambda: f"probe-{uuid.uuid4().hex}")
    agreement.first(probe.touch)
    seen = agreement.gather("seen" if probe.exists() else "")
    agreement.first(probe.unlink)
    blind = ", ".join(str(process) for process, answer in enumerate(seen) if not answer)
    require(
        not blind,
        f"{directory} on process {blind} is not what process 0 has there: let --workdir be on a "
        "file system that all hosts mount",
    )


def _named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, such as params/block/query."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) < len(leaves):
        raise ValueError("two leaves of the state have the same path")
    return named


def _describe(array: Any) -> str:
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def _lowest(losses: dict[int, float | None]) -> int | None:
    """The step of the lowest loss, the first of equals."""
    known = {step: loss for step, loss in losses.items() if loss is not None and isfinite(loss)}
    return min(known, key=lambda step: known[step], default=None)


def _load(path: Path, manifest: dict[str, Any], wanted: Any) -> Any:
    """The arrays of a verified checkpoint, as `wanted` describes them."""
    require(
        manifest["format"] == FORMAT,
        f"{path} is in format {manifest['format']}, and this version reads format {FORMAT}: use "
        "the version that wrote it",
    )
    targets, stored = _named(wanted), manifest["arrays"]
    for name in sorted(targets.keys() | stored.keys()):
        has = stored.get(name, "nothing")
        wants = _describe(targets[name]) if name in targets else "nothing"
        require(
            has == wants,
            f"{path} does not fit: at {name} it holds {has} where {wants} is wanted; use the "
            "config that it was saved with",
        )
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        name: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here
        )
        for name, leaf in targets.items()
    }
    try:
        with ocp.StandardCheckpointer() as orbax:
            arrays = orbax.restore(path / STATE, abstract)
    except Exception as error:
        raise InputError(
            f"{path} is intact, but Orbax {version('orbax-checkpoint')} cannot read what Orbax "
            f"{manifest['orbax']} wrote ({_brief(error)}): install that version"
        ) from error
    return jax.tree.unflatten(jax.tree.structure(wanted), [arrays[name] for name in targets])


def _is_full(error: BaseException) -> bool:
    """Whether an error, maybe one of TensorStore's, says that a disk, quota or file is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in full or any(os.strerror(e) in str(error) for e in full)


def _brief(error: BaseException) -> str:
    """The beginning of an error's message; TensorStore's run to pages."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
