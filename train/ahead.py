"""What a run needs soon, begun at once: programs are compiled and modules imported side by side.

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
from parallel.mesh import row_sharding
from train.state import abstract

SLOW_IMPORTS = ("tensorboardX.event_file_writer", "matplotlib.figure")


def begin(
    config: Config, mesh: jax.sharding.Mesh, update: Any, window_sums: Any | None, step: int
) -> Callable[[], Any]:
    """Begin to compile and import in threads; calls of the two programs then find them compiled.

    Args:
        config: the run.
        mesh: what its arrays lie on.
        update: from train.step.make_step.
        window_sums: from train.step.make_evaluation; None: the run evaluates nothing.
        step: where the run goes on; a batch of another size is compiled when it comes.

    Returns:
        A function that waits for `update`, and raises what compiling it raised.
    """
    alone = jax.process_count() == 1 and jax.default_backend() == "cpu"
    if not alone or step >= config.steps:
        return lambda: None
    state = abstract(config, mesh)

    def compile_for(program: Any, part: Any, rows: int) -> None:
        shape = (rows, config.model.context + 1)
        windows_bt = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=row_sharding(mesh))
        program.lower(part, windows_bt).compile()

    threads = ThreadPoolExecutor(thread_name_prefix="ahead")
    first = threads.submit(compile_for, update, state, config.batch.size_at(step))
    if window_sums:
        rows = config.evaluation.batch or config.batch.microbatch
        threads.submit(compile_for, window_sums, state.params, rows)
    for name in SLOW_IMPORTS:
        threads.submit(import_module, name)
    threads.shutdown(wait=False)
    return first.result
