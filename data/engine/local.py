"""Worker processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from configs.schema import InputError
from data.engine import task as tasks_of
from data.engine.flow import out
from data.engine.task import Emit, Reduce, Work
from data.progress import Progress


class Local:
    """An Engine: a pool of processes that are started with the first stage that has work for two.

    What is in memory at a time is what `workers` tasks hold.
    """

    def __init__(self, pool: Callable[[], ProcessPoolExecutor] | None = None) -> None:
        """Take what starts the pool; None: all is done in this process."""
        self._pool = pool

    def map(self, name: str, work: Work, tasks: Sequence[Any], folder: Path) -> list[dict]:
        """See Engine."""
        return self._all(name, [partial(tasks_of.do, work, task) for task in tasks], folder)

    def group(
        self,
        name: str,
        emit: Emit,
        reduce: Reduce,
        tasks: Sequence[Any],
        partitions: int,
        folder: Path,
    ) -> list[dict]:
        """See Engine. What is sent lies in one file a task until the stage is done."""
        sent = folder / "sent"
        spills = [partial(tasks_of.do, partial(tasks_of.spill, emit), task) for task in tasks]
        indices = self._all(f"{name}, sending", spills, sent)
        gathers = [
            partial(tasks_of.do, partial(tasks_of.gather, reduce), _pieces(indices, number, sent))
            for number in range(partitions)
        ]
        results = self._all(name, gathers, folder)
        tasks_of.clear([out(sent, number) for number in range(len(tasks))])
        return results

    def _all(
        self, name: str, actions: Sequence[Callable[[Path], dict]], folder: Path
    ) -> list[dict]:
        """Every action with its `out`, a few at a time."""
        outs = [out(folder, number) for number in range(len(actions))]
        found = [tasks_of.result(path) for path in outs]
        missing = [number for number, known in enumerate(found) if known is None]
        progress = Progress(name, len(actions), len(actions) - len(missing))
        if self._pool is None or len(missing) < 2:
            for number in missing:
                found[number] = actions[number](outs[number])
                progress.add(1)
        else:
            running = _submit(self._pool(), {n: partial(actions[n], outs[n]) for n in missing})
            for number, counted in running:
                found[number] = counted
                progress.add(1)
        return [counted for counted in found if counted is not None]


@contextmanager
def open_local(workers: int) -> Iterator[Local]:
    """An engine with so many processes. One process is this one."""
    started: list[ProcessPoolExecutor] = []

    def pool() -> ProcessPoolExecutor:
        if not started:
            context = multiprocessing.get_context("spawn")  # a fork would copy locks of threads
            initializer = _live_and_die_with_the_parent
            started.append(ProcessPoolExecutor(workers, context, initializer=initializer))
        return started[0]

    try:
        yield Local(pool if workers > 1 else None)
    finally:
        for each in started:
            each.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, actions: dict[int, Callable[[], dict]]
) -> Iterator[tuple[int, dict]]:
    """Results as they come. The first failure ends all, and is raised."""
    futures: dict[Future[dict], int] = {}
    try:
        futures = {pool.submit(action): number for number, action in actions.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, most likely for want of memory: run again, which goes "
            "on from here, with fewer --workers"
        ) from error
    finally:
        for future in futures:
            future.cancel()


def _pieces(indices: list[dict], partition: int, folder: Path) -> list[tuple[Path, int, int]]:
    """Where what was sent to a partition lies, in the order of the tasks that sent it."""
    return [
        (out(folder, number), *index["parts"][str(partition)])
        for number, index in enumerate(indices)
        if str(partition) in index["parts"]
    ]


def _live_and_die_with_the_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it has ended, however that came about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
