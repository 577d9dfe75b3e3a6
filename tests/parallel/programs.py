"""What recipes compile to on eight virtual devices; started by test_program.py.

    python -m tests.parallel.programs RECIPE '{"fsdp": 8, "data": 1}' ...

Prints for each mesh the operations of a device, those of one device that does it all, the bubble of
the pipeline, and every kind of collective with its axes and the bytes that it sends in an update.
"""

import json
import sys
from collections import defaultdict
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from configs import schema
from configs.flags import load
from configs.schema import Config
from model.pipeline import bubble
from parallel.compile.costs import Costs, costs
from parallel.mesh import make_mesh, row_sharding
from train.state import abstract
from train.step import make_step


def program(config: Config, devices: int) -> Costs:
    mesh = make_mesh(config, jax.devices()[:devices])
    shape = (config.batch.size, config.model.context + 1)
    batch = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=row_sharding(mesh))
    step: Any = make_step(config, 0, mesh)
    compiled = step.lower(abstract(config, mesh), batch).compile()
    return costs(compiled.as_text(), mesh)


def describe(config: Config, whole: Costs, mesh: dict[str, int]) -> dict[str, Any]:
    config = replace(config, mesh=schema.Mesh(**mesh))
    own = program(config, 8)
    sent: dict[str, float] = defaultdict(float)
    for found in own.collectives:
        sent[f"{found.kind} over {' '.join(found.axes)}"] += found.sent_bytes * found.count
    microbatches = config.batch.size // config.batch.microbatch
    idle = bubble(microbatches, config.mesh.stage, config.mesh.rounds)
    return {"flops": own.flops, "alone": whole.flops, "bubble": idle, "sent": sent}


def main(recipe: str, *meshes: str) -> None:
    config = load(f"configs/{recipe}.py")
    assert isinstance(config, Config)
    # On an accelerator attention is a kernel; here it is whichever of ours the CPU would take.
    whole = program(replace(config, mesh=schema.Mesh(data=1)), 1)
    for mesh in meshes:
        print(json.dumps(describe(config, whole, json.loads(mesh))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
