"""Apache Beam: the same tasks, on Dataflow, Flink, Spark or Beam's own runner.

A map is Create, Reshuffle, Map; a group is FlatMap, GroupByKey, Map. Tasks read and write the
folder of the stage, which all workers must see: a gs:// path, or a file system that they mount.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from configs.schema import InputError
from data.engine import task as tasks_of
from data.engine.flow import out
from data.engine.task import Emit, Reduce, Work


class Beam:
    """An Engine on the runner that the options name."""

    def __init__(self, runner: str, options: Sequence[str] = ()) -> None:
        """Take a runner's name and Beam's own options, such as --project=P. Imports Beam."""
        try:
            from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
        except ImportError as error:
            raise InputError(
                f'--runner={runner} needs Apache Beam: pip install "isoflop[beam]", or leave '
                "--runner out to use this machine's processes"
            ) from error
        self._options = PipelineOptions([*options], runner=runner)
        self._options.view_as(SetupOptions).save_main_session = False

    def map(self, name: str, work: Work, tasks: Sequence[Any], folder: Path) -> list[dict]:
        """See Engine."""
        import apache_beam as beam

        missing = [n for n in range(len(tasks)) if tasks_of.result(out(folder, n)) is None]
        if missing:
            with self._pipeline(name) as pipeline:
                _ = (
                    pipeline
                    | "tasks" >> beam.Create([(n, tasks[n]) for n in missing])
                    | "spread" >> beam.Reshuffle()
                    | name >> beam.Map(partial(_do, work, folder))
                )
        return _results(folder, len(tasks))

    def group(
        self,
        name: str,
        emit: Emit,
        reduce: Reduce,
        tasks: Sequence[Any],
        partitions: int,
        folder: Path,
    ) -> list[dict]:
        """See Engine."""
        import apache_beam as beam

        with self._pipeline(name) as pipeline:
            nothing = pipeline | "partitions" >> beam.Create(
                [(partition, (-1, b"")) for partition in range(partitions)]
            )
            sent = (
                pipeline
                | "tasks" >> beam.Create(list(enumerate(tasks)))
                | "spread" >> beam.Reshuffle()
                | f"{name}, sending" >> beam.FlatMap(partial(_send, emit))
            )
            _ = (
                (sent, nothing)
                | "with none" >> beam.Flatten()
                | "group" >> beam.GroupByKey()
                | name >> beam.Map(partial(_reduce, reduce, folder))
            )
        return _results(folder, partitions)

    def _pipeline(self, name: str) -> Any:
        import apache_beam as beam

        print(f"{name}: on {self._options.get_all_options()['runner']}", flush=True)
        return beam.Pipeline(options=self._options)


def _do(work: Work, folder: Path, numbered: tuple[int, Any]) -> None:
    number, task = numbered
    tasks_of.try_to(partial(tasks_of.do, work), task, out=out(folder, number))


def _send(emit: Emit, numbered: tuple[int, Any]) -> Iterator[tuple[int, tuple[int, bytes]]]:
    number, task = numbered
    for partition, sent in emit(task):
        yield partition, (number, sent)


def _reduce(reduce: Reduce, folder: Path, group: tuple[int, Any]) -> None:
    partition, sent = group
    in_order = [content for number, content in sorted(sent) if number >= 0]
    tasks_of.try_to(partial(tasks_of.do, reduce), in_order, out=out(folder, partition))


def _results(folder: Path, count: int) -> list[dict]:
    """What the tasks counted; raises what one of them found wrong with its input."""
    found = [tasks_of.result(out(folder, number)) for number in range(count)]
    for number, counted in enumerate(found):
        if counted is None:
            error = folder / f"{out(folder, number).name}{tasks_of.ERROR}"
            said = error.read_bytes().decode() if error.exists() else ""
            error.unlink(missing_ok=True)
            raise InputError(said or f"task {number} of {folder} left no result: see Beam's log")
    return [counted for counted in found if counted is not None]
