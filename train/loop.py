"""A training run: from its first update, or its newest checkpoint, to its last."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

import model
from configs.schema import Config
from data.disk import writing
from data.loader import SYNTHETIC_EOD, train_batches
from data.store import Store
from parallel import agreement
from parallel.mesh import host_share, make_mesh, shard_batch
from train import ahead, setup
from train.checkpoint import Writer, open_checkpoints
from train.evaluation import VALIDATION, evaluate
from train.logbook import Logbook, NonFiniteError
from train.metrics import Console, Meter, Sinks, truncate
from train.peak import device_peak
from train.profiler import Profile, Profiler
from train.record import CHECKPOINTS, METRICS, TENSORBOARD
from train.report import report
from train.samples import write_sample
from train.signals import StopRequest, stop_on_signal
from train.state import State, abstract, create
from train.step import make_evaluation, make_step
from train.stopping import EarlyEnd

DONE = 0
NOT_FINITE = 3
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


class Run(NamedTuple):
    """What stays the same during a run."""

    config: Config
    workdir: Path
    store: Store | None
    mesh: jax.sharding.Mesh
    update: Callable[[State, jax.Array], tuple[State, dict[str, jax.Array]]]
    window_sums: Callable[[model.Params, jax.Array], dict[str, jax.Array]]
    compiled: Callable[[], None]  # waits for the update
    checkpoints: Writer
    log: Logbook
    profiler: Profiler
    poll: agreement.Poll  # of the signals that the processes got
    early: EarlyEnd


def train(
    config: Config, workdir: Path, profile: Profile | None = None, allow_change: bool = False
) -> int:
    """Train until the last step, a signal, or too many updates that are not finite.

    Returns:
        The exit code: DONE, NOT_FINITE or STOPPED.

    Raises:
        InputError: the run cannot start, go on, or be saved.
    """
    console, meter = Console(), Meter()
    with (
        open_checkpoints(workdir / CHECKPOINTS, config.checkpoints, console.say) as checkpoints,
        stop_on_signal() as stop,
    ):
        store = setup.open_data(config)
        setup.check_all_same(config, store)
        latest = agreement.first(checkpoints.latest)
        resumed = latest is not None
        changes = []
        if resumed:
            changes = agreement.first(
                lambda: setup.check_same_run(workdir, config, store, allow_change)
            )
        mesh = make_mesh(config)
        peak = device_peak(config.model.compute_dtype)  # before anything else uses the cores
        eod = store.eod if store else SYNTHETIC_EOD
        update, window_sums = make_step(config, eod, mesh), make_evaluation(config, eod, mesh)
        validation = bool(store and store.tokens(VALIDATION))
        evaluation = window_sums if validation else None
        tokenizer = store.tokenizer() if store else None
        compiled = ahead.begin(config, mesh, update, evaluation, tokenizer, latest or 0)
        state, first, seconds = _first_state(config, mesh, checkpoints, resumed)
        early = EarlyEnd(config, workdir / METRICS, first, validation)
        if first >= config.steps or early.reason:
            if agreement.is_first():
                why = "" if first >= config.steps else f", stopped early: {early.reason}"
                console.say(f"the run in {workdir} is complete{why}\n\n{report(workdir)}")
            return DONE
        facts = setup.describe(config, store, mesh, peak)
        with writing(workdir):
            if agreement.is_first():
                setup.write_record(workdir, config, store, facts)
                truncate(workdir / METRICS, first)
            sinks = Sinks(workdir, first, writing=agreement.is_first())
        console.say(setup.decisions(config, facts))
        console.say(f"{workdir}: {f'going on from step {first}' if resumed else 'a new run'}")
        meter.add(seconds)
        log = Logbook(config, sinks, console, meter, facts)
        run = Run(
            config,
            workdir,
            store,
            mesh,
            update,
            window_sums,
            compiled,
            checkpoints,
            log,
            Profiler(workdir / TENSORBOARD, profile if agreement.is_first() else None),
            agreement.Poll(mesh),
            early,
        )
        log.event(first, "resumed" if resumed else "started", changes=changes)
        try:
            step, asked = _updates(run, state, first, stop)
            with meter.waiting("save"):
                checkpoints.wait()
            return _close(run, step, asked)
        except NonFiniteError as error:
            return _give_up(run, error)
        finally:
            run.profiler.stop()
            log.close()


def _first_state(
    config: Config, mesh: jax.sharding.Mesh, checkpoints: Writer, resumed: bool
) -> tuple[State, int, float]:
    """The state to start from, its step, and the seconds that were spent to get there."""
    if not resumed:
        return create(config, mesh), 0, 0.0
    wanted = abstract(config, mesh)
    restored = checkpoints.restore(wanted)
    return restored.state, restored.step, restored.notes["seconds"]


def _updates(run: Run, state: State, first: int, stop: StopRequest) -> tuple[int, int]:
    """Make update after update; returns the step at which they ended, and the signal or 0.

    Nothing waits for the device but the metrics, and those of a step are read when the next one is
    under way.
    """
    config, step, asked, compiled = run.config, first, 0, set[int]()
    # On a CPU, threads: TensorFlow takes longer to import than a short run takes to train.
    threads = jax.default_backend() == "cpu"
    batches = train_batches(run.store, config, first, host_share(run.mesh), threads)
    for step, rows_bt in enumerate(run.log.meter.awaited(batches), first + 1):
        run.profiler.before(step, run.log.flush)
        began = time.monotonic()
        run.compiled()
        batch = shard_batch(run.mesh, rows_bt)
        with jax.transfer_guard("disallow"):  # an array that moves unasked costs every update
            state, metrics = run.update(state, batch)
            if len(rows_bt) not in compiled:  # each size of the batch ramp is compiled once
                compiled.add(len(rows_bt))
                run.log.compiled(time.monotonic() - began)
            run.log.add(step, metrics)
        asked = run.poll.ask(stop.number)
        run.checkpoints.check()
        last, stopping = step == config.steps, bool(asked)
        evaluating = last or _due(step, config.evaluation.every)
        saving = last or stopping or _due(step, config.checkpoints.every)
        if evaluating or saving:
            run.log.flush()
            loss = _evaluate(run, step, state.params) if evaluating else None
            stopping = _ends_early(run, step) or stopping
            if saving or stopping:
                _save(run, step, state, loss)
            if evaluating and run.store:
                tokenizer = run.store.tokenizer()
                write_sample(run.workdir, step, config, state.params, tokenizer)
            run.log.meter.pause()
        if stopping:
            break
    return step, asked


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _evaluate(run: Run, step: int, params: model.Params) -> float | None:
    """The validation loss, where there is a validation split."""
    if not (run.store and run.store.tokens(VALIDATION)):
        return None
    with run.log.meter.waiting("evaluation"):
        result = evaluate(run.config, run.store, params, run.window_sums, run.mesh)
    run.log.evaluation(step, result)
    run.early.add(step, result)
    return result["loss"]


def _ends_early(run: Run, step: int) -> bool:
    """Whether the evaluations end the run, written down before the checkpoint that seals it."""
    if not run.early.reason or step == run.config.steps:
        return False
    run.log.event(step, "stopped_early", reason=run.early.reason)
    return True


def _save(run: Run, step: int, state: State, validation_loss: float | None) -> None:
    """Start a checkpoint. The rows up to it are made durable first, so that none can be missing."""
    with run.log.meter.waiting("save"):
        run.log.sync()
        run.checkpoints.save(step, state, {"seconds": run.log.meter.seconds}, validation_loss)


def _close(run: Run, step: int, asked: int) -> int:
    """Say how it ended and where everything lies."""
    if step < run.config.steps and not run.early.reason:
        name = signal.Signals(asked).name
        run.log.event(step, "stopped", signal=name)
        run.log.console.say(f"{name}: saved step {step} in {run.workdir}; the same command goes on")
        return STOPPED
    if step < run.config.steps:
        run.log.console.say(f"stopped early at step {step}: {run.early.reason}")
    else:
        run.log.event(step, "finished")
    if agreement.is_first():
        run.log.console.say("\n" + report(run.workdir))
    return DONE


def _give_up(run: Run, error: NonFiniteError) -> int:
    """Leave the checkpoints from before the trouble as they are."""
    run.log.event(error.step, "gave up", reason=str(error))
    run.checkpoints.wait()
    saved = run.checkpoints.latest()
    goes_on = "no checkpoint was saved before" if saved is None else f"step {saved} is saved"
    if agreement.is_first():
        print(
            f"error: {error}; {goes_on} in {run.workdir}: lower optimizer.learning_rate and go on "
            "with --allow_change, or begin anew elsewhere",
            file=sys.stderr,
        )
    return NOT_FINITE
