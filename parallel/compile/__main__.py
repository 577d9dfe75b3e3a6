"""Compile a run's train step for devices that are not there, and say what it would do on them.

    python -m parallel.compile --config=configs/llama_8b.py --topology=v5e:16x16 \\
        --config.mesh.data=1 --config.mesh.fsdp=-1 [--json=FILE]
    python -m parallel.compile --config=configs/llama_8b.py --topology=v5e:16x16 --search

Topologies: v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB, tpu7x:AxBxC (libtpu compiles for them, no TPU is
needed), SLICES*CHIP:SHAPE for several, h100:GPUS, h200:NODESxGPUS (with JAX's CUDA plugin), cpu:N.
It prints memory against what the chip has, operations, collectives by mesh axis, and the seconds
that an update should take; docs/compile.md says how to read it and what it does not know.

Exit codes: 0 it fits (or the chip's memory is unknown); 2 wrong input, with one sentence; 4 it does
not fit.
"""

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

from absl import flags

from configs import flags as config_flags
from configs.schema import Config, InputError
from parallel import compiler_flags
from parallel.compile import topology as topologies

FITS = 0
DOES_NOT_FIT = 4

_RECIPE = config_flags.define_recipe(Config)
_TOPOLOGY = flags.DEFINE_string("topology", None, "what to compile for, see above", required=True)
_JSON = flags.DEFINE_string("json", "", "a file for the report as JSON")
_HLO = flags.DEFINE_string("hlo", "", "a file for the text of the compiled program")
_SEARCH = flags.DEFINE_boolean(
    "search", False, "try meshes, microbatches and remat policies instead; rank those that fit"
)
_CHIP_OPTIONS = flags.DEFINE_boolean(
    "chip_options", True, "tell a TPU's compiler what parallel/compiler_flags.py has for the chip"
)
_MINUTES = flags.DEFINE_float("minutes", 14.0, "how long --search may take")


def run() -> int:
    """The command."""
    where = topologies.parse(_TOPOLOGY.value)
    # Before the first import of JAX, which reads them once.
    os.environ.update(topologies.environment(where, os.environ.get("XLA_FLAGS", "")))
    config = topologies.with_slices(_RECIPE.load(), where)
    present = os.environ.get(compiler_flags.VARIABLE, "")
    options = compiler_flags.chosen(where.family, present) if _CHIP_OPTIONS.value else {}
    compile_one = functools.partial(compile_step, options=options)
    if _SEARCH.value:
        from parallel.compile.search import search

        found = search(config, where, _MINUTES.value, compile_one)
        _write(found)
        return FITS if found["choices"] else DOES_NOT_FIT
    report = compile_one(config, where, hlo=_HLO.value)
    from parallel.compile.report import to_text

    print(to_text(report))
    _write(report)
    return DOES_NOT_FIT if report["fits"] is False else FITS


def _write(report: dict[str, Any]) -> None:
    if _JSON.value:
        _save("json", _JSON.value, json.dumps(report, indent=1) + "\n")
        print(f"the report as JSON: {_JSON.value}")


def _save(flag: str, path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise InputError(f"--{flag}={path}: {error.strerror}; choose another file") from error


def compile_step(
    config: Config,
    where: topologies.Topology,
    *,
    options: compiler_flags.Options | None = None,
    hlo: str = "",
) -> dict[str, Any]:
    """Compile the train step of a run and report on it (parallel.compile.report.to_json).

    Args:
        config: the run.
        where: what to compile for; its environment is set.
        options: what the compiler is told beyond its defaults.
        hlo: a file for the program's text, or nothing.

    Raises:
        InputError: model, batch and devices do not go together, or nothing can compile for them.
    """
    import jax
    import jax.numpy as jnp

    import model
    from parallel import chips
    from parallel.compile import costs, estimate, report
    from parallel.mesh import make_mesh, row_sharding
    from parallel.rules import placement
    from train.state import abstract
    from train.step import make_step

    mesh = make_mesh(config, topologies.devices(where))
    chip = chips.find(mesh.devices.flat[0].device_kind)
    place = placement(config, mesh, config.batch.microbatch)
    facts: dict[str, Any] = {
        "attention": model.attention_backend(config.model, place),
        "options": options or {},
    }
    shape = (config.batch.size, config.model.context + 1)
    batch = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=row_sharding(mesh))
    state = abstract(config, mesh)
    began = time.monotonic()
    try:
        step: Any = make_step(config, 0, mesh)
        compiled = step.lower(state, batch).compile(compiler_options=options or None)
    except jax.errors.JaxRuntimeError as error:
        needed = estimate.exceeded(error, config, mesh, state, batch, chip)
        if needed is None:
            raise
        facts |= {"notes": ["the compiler gave up: it found no way to fit the step into memory"]}
        times = None
    else:
        text = compiled.as_text()
        if hlo:
            _save("hlo", hlo, text)
        found = costs.costs(text, mesh)
        needed = estimate.memory(compiled, config, mesh, state, batch, chip)
        times = estimate.estimate(config, mesh, found, where, chip)
        facts |= {"notes": _notes(found)}
    facts |= {
        "compile_seconds": time.monotonic() - began,
        "advice": estimate.advice(config, mesh, needed),
    }
    return report.to_json(config, mesh, where.name, chip, needed, times, facts)


def _notes(found: Any) -> list[str]:
    notes = []
    if found.kernels:
        targets = ", ".join(sorted({target for target, _ in found.kernels}))
        notes.append(
            f"the operations of kernels ({targets}) are not in the program's text: attention is "
            "counted by formula, at the chip's peak, which no kernel reaches"
        )
    if found.unread:
        notes.append(
            f"{found.unread} parts of the program are called in a way that is not known here; what "
            "they do is missing above"
        )
    if found.endless:
        notes.append(f"{found.endless} loops of unknown length are counted as one round")
    return notes


if __name__ == "__main__":
    config_flags.main(run, _RECIPE)
