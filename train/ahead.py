"""What a run needs soon, begun at once: programs are compiled and modules imported beside it.

A short run spends most of its time before and after its updates; one after the other, imports and
compilers leave cores idle. Only a process that trains alone and on a CPU compiles ahead: compilers
for accelerators time kernels on the device, and must not be timed together.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from configs.schema import Config
from data.tokenizer import Tokenizer
from parallel.mesh import row_sharding
from train.samples import compile_sample
from train.state import abstract

SLOW_IMPORTS = ("matplotlib.figure",)  # of what a run needs at its end


def begin(
    config: Config,
    mesh: jax.sharding.Mesh,
    update: Any,
    window_sums: Any | None,
    tokenizer: Tokenizer | None,
    step: int,
) -> Callable[[], Any]:
    """Begin to compile and import in a thread; calls of the programs then find them compiled.

    One thread, in the order in which things are needed: tracing and importing hold Python's lock,
    and the update is what the run waits for.

    Args:
        config: the run.
        mesh: what its arrays lie on.
        update: from train.step.make_step.
        window_sums: from train.step.make_evaluation; None: the run evaluates nothing.
        tokenizer: of the samples; None: the run writes none.
        step: where the run goes on; a batch of another size is compiled when it comes.

    Returns:
        A function that waits for `update`, and raises what compiling it raised.
    """
    alone = jax.process_count() == 1 and jax.default_backend() == "cpu"
    if not alone or step >= config.steps:
        return lambda: None
    state = abstract(config, mesh)

    def lower(program: Any, part: Any, rows: int) -> Any:
        shape = (rows, config.model.context + 1)
        windows_bt = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=row_sharding(mesh))
        return program.lower(part, windows_bt)

    def rest() -> None:
        if window_sums:
            rows = config.evaluation.batch or config.batch.microbatch
            lower(window_sums, state.params, rows).compile()
        if tokenizer:
            compile_sample(config, state.params, tokenizer)
        for name in SLOW_IMPORTS:
            import_module(name)

    thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    # Traced here, undisturbed: the caller traces other things next.
    first = thread.submit(lower(update, state, config.batch.size_at(step)).compile)
    thread.submit(rest)
    thread.shutdown(wait=False)
    return first.result
