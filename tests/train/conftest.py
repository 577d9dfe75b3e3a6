"""A small corpus and a small run over it, for the tests of what happens in time."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.corpus import Corpus, Source
from configs.schema import Batch, Checkpoints, Config, Data, Evaluation, Model, Optimizer, Schedule
from data.corpus import build
from train.checkpoint import Reader
from train.metrics import read_rows
from train.record import METRICS
from train.state import State, abstract

REPOSITORY = Path(__file__).resolve().parents[2]
WORDS = ["the", "a", "cat", "dog", "bird", "sees", "hears", "small", "green", "and", "or", "not"]


def write_corpus(folder: Path, seed: int) -> Path:
    """A byte-level store with two sources, each of many short documents."""
    rng = random.Random(seed)
    for source in ("verse", "prose"):
        (folder / source).mkdir(parents=True)
        for number in range(40):
            text = " ".join(rng.choices(WORDS, k=40))
            (folder / source / f"{number:02}.txt").write_text(text)
    sources = tuple(
        Source(kind="text", pattern=str(folder / name / "*.txt"), name=name)
        for name in ("verse", "prose")
    )
    build(Corpus(sources=sources, tokenizer="bytes", validation=0.2), folder / "store")
    return folder / "store"


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), seed=0)


@pytest.fixture(scope="session")
def other_store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def config(store_path: Path) -> Config:
    """A run of a second: 24 updates, evaluated every 8 and saved every 6."""
    return Config(
        model=Model(vocab=257, context=32, layers=1, width=16, heads=2, dropout=0.1),
        data=Data(path=str(store_path)),
        batch=Batch(size=4, microbatch=2, ramp=((10, 2),)),
        optimizer=Optimizer(learning_rate=3e-3, weight_decay=0.1),
        schedule=Schedule(warmup=4),
        evaluation=Evaluation(every=8, windows=16, sample_tokens=8),
        checkpoints=Checkpoints(every=6),
        steps=24,
        log_every=1,
    )


@pytest.fixture
def short(config: Config) -> Config:
    """The same without what takes time: 6 updates, no evaluation before the end, no sample."""
    return replace(
        config,
        steps=6,
        batch=Batch(size=2),
        evaluation=Evaluation(windows=4, sample_tokens=0),
        checkpoints=Checkpoints(every=2, keep=5),
    )


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """launch(config, workdir, *flags, launcher=(), **environment): the training command, under way.

    What still runs when the test ends is killed.
    """
    started = []

    def begin(config, workdir, *flags, launcher=(), **environment):
        recipe = tmp_path / "recipe.py"
        recipe.write_text(f"from configs.schema import *\nget_config = lambda: {config!r}\n")
        command = [sys.executable, "-m", "train", f"--config={recipe}", f"--workdir={workdir}"]
        process = subprocess.Popen(
            [*launcher, *command, *flags],
            cwd=REPOSITORY,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def wait_for_step() -> Callable[[subprocess.Popen, Path, int], None]:
    """wait_for_step(process, workdir, step): until its row is there, or the process has ended."""

    def wait(process, workdir, step):
        while process.poll() is None:
            if any(row["step"] >= step for row in read_rows(workdir / METRICS)):
                return
            time.sleep(0.002)

    return wait


@pytest.fixture
def rows() -> Callable[..., list[dict]]:
    """rows(workdir, kind): the rows of metrics.jsonl, each line of which must be whole."""

    def read(workdir: Path, kind: str) -> list[dict]:
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if row["kind"] == kind]

    return read


@pytest.fixture
def final_state() -> Callable[[Config, Path], State]:
    """final_state(config, workdir): the state at the newest checkpoint."""

    def read(config: Config, workdir: Path) -> State:
        return Reader(workdir / "checkpoints").restore(abstract(config)).state

    return read


@pytest.fixture
def same() -> Callable[[object, object], bool]:
    """same(a, b): whether two trees are equal, bit for bit."""

    def compare(a: object, b: object) -> bool:
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)

    return compare
