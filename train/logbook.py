"""From what the train step returns to rows, read one step late; an eye on non-finite updates."""

import math
from typing import Any

import jax

from configs.schema import Config
from train import noise
from train.metrics import Console, Meter, Row, Sinks, duration, quantity
from train.report import evaluation_line
from train.step import Metrics

COUNTED = ("targets", "skipped", "skipped_total")  # whole numbers among the step's metrics
CONVENTION = "palm"  # of counting operations, in rows and in MFU (model.count)


class NonFiniteError(Exception):
    """Too many updates in a row, up to `step`, were not finite."""

    def __init__(self, count: int, step: int):
        super().__init__(f"{count} updates in a row were not finite, up to step {step}")
        self.step = step


class Logbook:
    """Rows of one run.

    Args:
        config: the run.
        sinks: where rows go.
        console: where people look.
        meter: the run's clock.
        run: run.json, for what a token costs and what the devices could do.
    """

    def __init__(
        self,
        config: Config,
        sinks: Sinks,
        console: Console,
        meter: Meter,
        run: dict[str, Any],
    ):
        self.console = console
        self.meter = meter
        self._config = config
        self._sinks = sinks
        self._flops_per_token = run["flops_per_token"][CONVENTION]
        self._peak = run["peak"]["flops"] * run["devices"]["count"]
        self._waiting: tuple[int, Metrics] | None = None
        self._noise: dict[str, list[float]] = {name: [] for name in noise.METRICS}

    def add(self, step: int, metrics: Metrics) -> None:
        """Note a step that has just been dispatched, and report the one before it."""
        self.flush()
        self._waiting = (step, metrics)

    def flush(self) -> None:
        """Wait for the step noted last and report it.

        Raises:
            NonFiniteError: after as many skipped updates in a row as the config allows.
        """
        if not self._waiting:
            return
        (step, metrics), self._waiting = self._waiting, None
        values: dict[str, float] = {k: v.item() for k, v in jax.device_get(metrics).items()}
        values |= {name: int(values[name]) for name in COUNTED}
        self._note_noise(values)
        self.meter.finished(step)
        every = self._config.log_every
        skipped = values["skipped"]
        if step == 1 or step % every == 0 or step == self._config.steps or skipped:
            self._report(step, values)
        if skipped >= self._config.max_skipped:
            raise NonFiniteError(int(skipped), step)

    def compiled(self, seconds: float) -> None:
        """The update now under way had to be compiled first."""
        self.console.say(f"compiled in {seconds:.1f} s")
        self.meter.pause()

    def sync(self) -> None:
        """Make durable what was written, before a checkpoint is that presupposes it."""
        self._sinks.sync()

    def event(self, step: int, event: str, **details: Any) -> None:
        """Write down that something happened."""
        row = self._row("event", step) | {"event": event} | self.meter.waits()
        self._sinks.write(row | details)

    def evaluation(self, step: int, result: dict[str, Any]) -> None:
        """Report an evaluation."""
        self._sinks.write(self._row("eval", step) | result)
        self.console.say(f"step {step}: validation {evaluation_line(result)}")

    def close(self) -> None:
        """Close the files."""
        self._sinks.close()

    def _note_noise(self, values: dict[str, float]) -> None:
        """Keep the noise estimates of an update for the next row, which holds their means.

        A single estimate says little, and those of skipped updates or of a batch of one part, which
        are not finite, say nothing.
        """
        for name, kept in self._noise.items():
            if math.isfinite(values.get(name, math.nan)) and not values["skipped"]:
                kept.append(values[name])
            if name in values:
                values[name] = sum(kept) / len(kept) if kept else math.nan

    def _report(self, step: int, values: dict[str, float]) -> None:
        seconds = self.meter.lap()
        for kept in self._noise.values():
            kept.clear()
        batch_tokens = self._config.batch.size_at(step - 1) * self._config.model.context
        speed = batch_tokens / seconds
        mfu = speed * self._flops_per_token / self._peak
        self._sinks.write(
            self._row("train", step)
            | values
            | {"step_seconds": seconds, "tokens_per_second": speed, "mfu": mfu}
            | self.meter.waits()
        )
        left = (self._config.steps - step) * seconds
        rates = f"  {quantity(speed)} tokens/s  MFU {mfu:.1%}  {duration(left)} left"
        self.console.progress(
            f"step {step}/{self._config.steps}  loss {values['loss']:.4f}"
            + (rates if math.isfinite(seconds) else "")
            + (f"  {values['skipped']} skipped" if values["skipped"] else "")
        )

    def _row(self, kind: str, step: int) -> Row:
        tokens = self._config.batch.windows_before(step) * self._config.model.context
        flops = tokens * self._flops_per_token
        return {
            "kind": kind,
            "step": step,
            "tokens": tokens,
            "flops": flops,
            "seconds": self.meter.seconds,
        }
