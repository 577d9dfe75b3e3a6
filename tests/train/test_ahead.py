"""What is compiled ahead is what the run then calls."""

import sys
import threading
from dataclasses import replace

import jax
import pytest

from data.loader import evaluation_batches, train_batches
from data.store import open_store
from parallel.mesh import make_mesh, shard_batch
from train import ahead
from train.samples import write_sample
from train.state import create
from train.step import make_evaluation, make_step

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """Events of compilations; a listener cannot be removed, so it is told to be quiet."""
    seen, listening = [], [True]

    def listen(event: str, duration_secs: float, **details: str | int) -> None:
        if event == COMPILED and listening[0]:
            seen.append(details)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    listening[0] = False


def test_the_loop_finds_its_programs_compiled(config, compilations, tmp_path):
    """Those for the size that the ramp has where the run goes on, for evaluation and sample."""
    mesh, store = make_mesh(config), open_store(config.data.path)
    update = make_step(config, store.eod, mesh)
    window_sums = make_evaluation(config, store.eod, mesh)
    state = create(config, mesh)
    batch = shard_batch(mesh, next(train_batches(store, config, 10, threads=True)))
    held_out = evaluation_batches(store, "validation", "verse", config.model.context, 2)
    held_out_bt = shard_batch(mesh, next(held_out))

    tokenizer = store.tokenizer()
    ready = ahead.begin(config, mesh, update, window_sums, tokenizer, 10)
    ready()
    for thread in threading.enumerate():
        if thread.name.startswith("ahead"):
            thread.join()
    before = len(compilations)
    assert before >= 3
    state, _ = update(state, batch)
    window_sums(state.params, held_out_bt)
    write_sample(tmp_path, 11, config, state.params, tokenizer)
    assert len(compilations) == before
    assert set(ahead.SLOW_IMPORTS) <= set(sys.modules)


def test_what_compiling_raises_is_raised_where_it_is_waited_for(config):
    class Broken:
        def lower(self, state, windows_bt):
            self.shape = windows_bt.shape
            return self

        def compile(self):
            raise ValueError(f"{self.shape}")

    ready = ahead.begin(config, make_mesh(config), Broken(), None, None, 0)
    with pytest.raises(ValueError, match=r"\(2, 33\)"):
        ready()


def test_a_run_that_is_complete_compiles_nothing(config):
    ready = ahead.begin(replace(config, steps=20), make_mesh(config), None, None, None, 20)
    assert ready() is None
