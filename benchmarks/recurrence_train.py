"""The networks of benchmarks/recurrence.py, and what is timed and trained of them."""

import argparse
import dataclasses
import functools
import sysconfig
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.schema import Batch, Config, Data, Model, Optimizer, Schedule

VOCAB = 257  # bytes, and an end of document that does not occur
CONTENDERS = ("full", "chunked", "window", "LSTM parameters", "LSTM operations")
OURS = CONTENDERS[3]
PEER = "PyTorch LSTM"
HELD = 32_768  # bytes of text that a loss is taken over
MARKS = 4  # losses of a run, at equal distances
PATIENCE = 20.0  # seconds; an update that takes longer is not repeated


class Point(NamedTuple):
    """Windows of a batch, and tokens of a window."""

    windows: int
    length: int

    @property
    def tokens(self) -> int:
        """Of an update."""
        return self.windows * self.length

    def __str__(self) -> str:
        return f"{self.windows}x{self.length}"


def numbers(text: str) -> list[int]:
    """What a flag lists."""
    return [int(each) for each in text.split(",") if each]


def over_length(options: argparse.Namespace, lengths: str) -> list[Point]:
    """Windows of these lengths, equal tokens in an update."""
    return [Point(max(1, options.tokens // length), length) for length in numbers(lengths)]


def over_batch(options: argparse.Namespace, batches: str) -> list[Point]:
    """As many windows of one length."""
    return [Point(windows, options.length) for windows in numbers(batches)]


def points(options: argparse.Namespace, name: str) -> list[Point]:
    """What a contender is timed at, each once.

    Chunks and windows are for lengths beyond the window; a window is no less than all before that.
    """
    found = over_length(options, options.lengths) + over_batch(options, options.batches)
    beyond = name in ("chunked", "window")
    return [p for p in dict.fromkeys(found) if not beyond or p.length > options.window]


def trained(options: argparse.Namespace, name: str) -> list[Point]:
    """What it is trained at, of those; full attention in chunks is the same beyond the window."""
    if name == PEER or options.loss == "off":
        return []
    lengths = over_length(options, options.loss_lengths)
    wanted = {*lengths, *over_batch(options, options.loss_batches)}
    if name == "full" and "chunked" in options.contenders.split(","):
        wanted -= {point for point in lengths if point.length > options.window}
    return [point for point in points(options, name) if point in wanted]


def sized(options: argparse.Namespace, name: str, context: int) -> Model:
    """A contender's network for windows of `context` tokens."""
    import jax

    import model

    usual: dict[str, Any] = {"vocab": VOCAB, "context": context, "bias": False}
    heads = max(1, options.width // 64)
    kept = "xla_kept" if jax.default_backend() == "cpu" else "xla"
    usual_attention: Any = {"attention": kept if name == "full" else "xla_chunked"}
    window: Any = {"windows": (options.window,)} if name == "window" else {}
    transformer = Model(
        **usual, **usual_attention, **window,
        layers=options.layers, width=options.width, heads=heads, positions="rotary",
    )  # fmt: skip
    if not name.startswith("LSTM"):
        return transformer

    def lstm(eighths: int) -> Model:
        layers = -(-3 * options.layers // 2)  # 8 d^2 a layer against 12 d^2
        return Model(**usual, kind="lstm", layers=layers, width=8 * eighths)

    def size(config: Model) -> int:
        counts = model.counts(config)
        return counts.parameters if name == OURS else counts.flops_per_token("strict")

    low, high = 1, 1024
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(lstm(middle)) <= size(transformer) else (low, middle)
    return min((lstm(low), lstm(high)), key=lambda one: abs(size(one) - size(transformer)))


def configure(options: argparse.Namespace, name: str, point: Point) -> Config:
    """The run at a point; rates go with the root of a batch (Malladi et al. 2022)."""
    steps = max(1, options.loss_tokens // point.tokens)
    rate = options.lstm_rate if name.startswith("LSTM") else options.rate
    return Config(
        model=sized(options, name, point.length),
        data=Data(path="synthetic"),
        batch=Batch(size=point.windows),
        optimizer=Optimizer(
            learning_rate=rate * (point.tokens / options.tokens) ** 0.5, weight_decay=0.1
        ),
        schedule=Schedule(kind="linear", warmup=steps // 10, final=0.0),
        steps=steps,
    )


def read_text(path: Path | None) -> np.ndarray:
    """Bytes of a file, or of the standard library's source, in the order of its names."""
    places = [path] if path else sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return np.frombuffer(b"".join(place.read_bytes() for place in places), np.uint8)


@functools.cache
def _created(config: Config) -> Any:
    from parallel.mesh import make_mesh
    from train.state import create

    return create(config, make_mesh(config))


class Runner:
    """The compiled update at one point: timed on one batch, then trained from the start."""

    def __init__(self, options: argparse.Namespace, name: str, point: Point) -> None:
        from parallel.mesh import make_mesh, shard_batch
        from train.step import make_step

        self.point, self.config = point, configure(options, name, point)
        mesh = make_mesh(self.config)
        # Compiled once for all points of equal parameters, which know nothing of the length.
        plain = dataclasses.replace(self.config.model, context=HELD, attention="auto")
        self.initial = _created(
            Config(
                model=plain,
                data=Data(path="synthetic"),
                batch=Batch(size=1),
                optimizer=Optimizer(learning_rate=1.0, weight_decay=0.1),
                steps=1,
            )
        )
        self.text = read_text(options.text)
        self.split = len(self.text) * 9 // 10
        self.place = lambda window_bt: shard_batch(mesh, window_bt)
        self.state, self.batch = self._copy(self.initial), self._cut(np.arange(point.windows))
        step: Any = make_step(self.config, VOCAB - 1, mesh)
        self.step = step.lower(self.state, self.batch).compile()
        self.seconds, self.least = 0.0, options.seconds

    def _copy(self, state: Any) -> Any:
        import jax

        return jax.tree.map(lambda leaf: leaf.copy(), state)

    def _cut(self, starts_b: np.ndarray) -> Any:
        places_bt = starts_b[:, None] + np.arange(self.point.length + 1)
        return self.place(self.text[places_bt].astype(np.int32))

    def _update(self, state: Any, batch: Any) -> tuple[Any, float, float]:
        """The next state, the loss of this one, and the seconds taken."""
        began = time.perf_counter()
        state, metrics = self.step(state, batch)
        loss = float(metrics["loss"])
        return state, loss, time.perf_counter() - began

    def burst(self) -> float:
        """Seconds of an update, the mean of as many as fill a burst."""
        if self.seconds > PATIENCE:
            return self.seconds
        taken: list[float] = []
        while sum(taken) < self.least:
            self.state, _, seconds = self._update(self.state, self.batch)
            taken.append(seconds)
        self.seconds = sum(taken) / len(taken)
        return self.seconds

    def train(self) -> list[dict[str, float]]:
        """Held-out loss (nats a byte) with the tokens and seconds spent by then.

        The same update says it of held-out text, from a copy of the state: another program would
        have to be compiled for it.
        """
        windows, length = self.point
        random, state = np.random.default_rng(0), self._copy(self.initial)
        count = max(1, HELD // self.point.tokens)
        starts = self.split + length * np.arange(count * windows)
        held = [self._cut(part_b) for part_b in starts.reshape(-1, windows)]
        marks = {-(-self.config.steps * mark // MARKS) for mark in range(1, MARKS + 1)}
        spent, curve = 0.0, []
        for number in range(1, self.config.steps + 1):
            batch = self._cut(random.integers(0, self.split - length - 1, windows))
            state, _, seconds = self._update(state, batch)
            spent += seconds
            if number in marks:
                losses = [self._update(self._copy(state), batch)[1] for batch in held]
                tokens, loss = number * self.point.tokens, float(np.mean(losses))
                curve.append({"tokens": tokens, "seconds": spent, "loss": loss})
        return curve
