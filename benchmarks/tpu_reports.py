"""The train step compiled for TPU pods that are not here, beside MaxText's: same model and chips.

    python -m benchmarks.tpu_reports --cases=16b_v5e --rows=ours,plain [--maxtext=PYTHON]
        [--json=FILE] > docs/reports/maxtext_16b_v5e.txt

A case is a model, a batch and a pod for which MaxText (github.com/AI-Hypercomputer/maxtext)
publishes settings and a measurement. A row is one program: `ours` with the compiler's options for
the chip (parallel/compiler_flags.py), `plain` without them, `none`, `full`, `dots`, `attention`
with that remat policy, and `maxtext` (where --maxtext names a Python that has it and the same
libtpu): MaxText's own train_compile with its published settings. Programs of both are read by the
same rules: memory as the compiler states it, products, collectives and predicted seconds as in
docs/compile.md. A prediction is no measurement: what MaxText published was measured, with other
versions, and stands apart.

Needs libtpu, no TPU: 1 to 6 minutes of two free cores a row, and 4 GB. The Python for --maxtext:
pip install "maxtext[tpu]==0.2.5" jax==0.12.0.1 jaxlib==0.12.0.1 libtpu==0.0.50.1 (Python 3.12).
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import harness
from configs.schema import Batch, Config, Data, Mesh, Model, Optimizer
from parallel import compiler_flags
from parallel.compile import hlo, topology
from parallel.compile.topology import Topology

GIB = 2**30

_GATHERS = (
    "--xla_tpu_enable_async_collective_fusion=true "
    "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true "
    "--xla_tpu_enable_async_collective_fusion_multiple_steps=true "
    "--xla_tpu_overlap_compute_collective_tc=true --xla_enable_async_all_gather=true"
)
_REPLICAS = (
    "--xla_tpu_enable_data_parallel_all_reduce_opt=true "
    "--xla_tpu_data_parallel_opt_different_sized_ops=true"
)
# Its settings for v5p and v6e ask for _GATHERS too, which libtpu 0.0.50.1 refuses on any chip but
# v5e; these are its options for the same end that pass (ENABLE_SPARSECORE_OFFLOADING_FOR_RS_AG_AR).
_SPARSE_CORES = " ".join(
    f"--xla_tpu_enable_sparse_core_collective_offload_{kind}=true"
    for kind in ("all_gather", "reduce_scatter", "all_reduce")
)
_LLAMA = {"ffn": "swiglu", "norm": "rmsnorm", "positions": "rotary", "bias": False, "tied": False}


@dataclass(frozen=True)
class Case:
    """What MaxText published, and the same for us.

    Attributes:
        topology: ours; `theirs` is MaxText's name of it.
        shape: of the model.
        windows: that a device has at once.
        remat: our policy that is nearest to theirs.
        settings: MaxText's, beside those that all cases share.
        options: LIBTPU_INIT_ARGS of theirs.
        measured: published with these settings.
        source: where in its repository.
        mesh: of ours, beside fsdp over what is left.
    """

    topology: str
    theirs: str
    shape: dict[str, Any]
    windows: int
    remat: str
    settings: tuple[str, ...]
    options: str
    measured: str
    source: str
    mesh: dict[str, int] = field(default_factory=dict)


_OF_30B = {"vocab": 32_000, "context": 2048, "layers": 32, "heads": 64, "head_dim": 128,
           "ffn_width": 28_672}  # fmt: skip
CASES = {
    "16b_v5e": Case(
        "v5e:16x16", "v5e-256", _OF_30B | {"width": 4096}, 6, "full",
        ("remat_policy=full", "global_parameter_scale=16"), f"{_REPLICAS} {_GATHERS}",
        "120 TFLOP/s a chip, MFU 61.1 %", "src/maxtext/configs/tpu/v5e/16b.sh and README.md",
    ),
    "32b_v5e": Case(
        "v5e:16x16", "v5e-256", _OF_30B | {"width": 8192}, 4, "full",
        ("remat_policy=full", "global_parameter_scale=32"), f"{_REPLICAS} {_GATHERS}",
        "132 TFLOP/s a chip, MFU 66.9 %", "src/maxtext/configs/tpu/v5e/32b.sh and README.md",
    ),
    "32b_v5p": Case(
        "v5p:4x4x4", "v5p-128", _OF_30B | {"width": 8192}, 6, "dots",
        ("remat_policy=minimal", "global_parameter_scale=32", "ici_tensor_parallelism=4"),
        f"{_REPLICAS} {_SPARSE_CORES} --xla_tpu_megacore_fusion_allow_ags=false "
        "--xla_enable_async_collective_permute=true --xla_tpu_enable_ag_backward_pipelining=true",
        "328 TFLOP/s a chip, MFU 71.5 %", "src/maxtext/configs/tpu/v5p/32b.sh and README.md",
        {"tensor": 4},
    ),
    "llama8b_v6e": Case(
        "v6e:16x16", "v6e-256",
        {"vocab": 128_256, "context": 8192, "layers": 32, "width": 4096, "heads": 32,
         "kv_heads": 8, "ffn_width": 14_336, "rotary_base": 500_000.0}, 4, "full",
        ("model_name=llama3.1-8b", "remat_policy=custom", "decoder_layer_input=offload",
         "out_proj=offload", "query_proj=offload", "key_proj=offload", "value_proj=offload",
         "sa_use_fused_bwd_kernel=True",
         *(f"sa_block_{side}=2048" for side in ("q", "kv", "kv_compute", "q_dkv", "kv_dkv",
                                                "kv_dkv_compute", "q_dq", "kv_dq"))),
        f"--xla_tpu_scoped_vmem_limit_kib=98304 {_REPLICAS} {_SPARSE_CORES}",
        "7,207 tokens a second and chip, MFU 45.5 %",
        "benchmarks/maxtext_trillium_model_configs.py (llama3_1-8b-8192) and "
        "docs/reference/models/tiering.md",
        {"data": 2},
    ),
}  # fmt: skip
_SHARED = ("enable_checkpointing=false", "use_iota_embed=true", "dataset_type=synthetic",
           "attention=flash", "steps=5", "log_config=false", "compile_topology_num_slices=1",
           "base_output_directory=/tmp/maxtext", "run_name=report")  # fmt: skip


def settings(case: Case) -> list[str]:
    """What MaxText is told, on its command line."""
    of_case = (f"compile_topology={case.theirs}", f"per_device_batch_size={case.windows}",
               f"max_target_length={case.shape['context']}",
               f"compile_xla_flags={case.options}")  # fmt: skip
    return [*of_case, *case.settings, *_SHARED]


def config_of(case: Case, devices: int, remat: str) -> Config:
    """The case as a run of ours."""
    rest = devices // math.prod(case.mesh.values())
    return Config(
        model=Model(**_LLAMA, **case.shape, scan=True, remat=remat, compute_dtype="bfloat16"),  # type: ignore[arg-type]
        data=Data(path="synthetic", attend_across=False),
        batch=Batch(size=case.windows * devices),  # devices that share a window count each
        mesh=Mesh(**{"data": 1, "fsdp": rest} | case.mesh),
        optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1),
        steps=1,
    )


def waited(
    text: str,
    needs: Callable[[hlo.Instruction, hlo.Program, str], float],
    cycle: float,
) -> float:
    """Seconds of a program in which the products' core waits for collectives of other cores.

    The program is walked in its order: what it fuses takes the cycles that the compiler expects,
    attention kernels nothing, and collectives are done one after another as they were started. So
    it is the part, of what docs/compile.md counts as beside products, that is not.

    Args:
        text: of the compiled program.
        needs: seconds of the collective that an instruction starts, 0 where it starts none; it is
            given the instruction, the program and the name of the computation.
        cycle: seconds of one.
    """
    program, entry = hlo.parse(text)

    def walk(computation: str) -> float:
        now, free, waits = 0.0, 0.0, 0.0
        ends: dict[str, float] = {}  # of collectives under way, by all names they go by
        for name, one in program[computation].items():
            begun = next((operand for operand in one.operands if operand in ends), "")
            if one.opcode == "while":
                loop = hlo.called(one)
                waits += walk(loop["body"]) * (hlo.rounds(one, program[loop["condition"]]) or 1)
            elif one.opcode.endswith("-start"):
                seconds = needs(one, program, computation)
                if seconds:
                    free = ends[name] = max(now, free) + seconds
            elif begun and one.opcode.endswith("-done"):
                waits += max(ends[begun] - now, 0.0)
                now = max(ends[begun], now)
            elif begun:
                ends[name] = ends[begun]
            elif cycles := re.search(r'"estimated_cycles":"(\d+)"', one.rest):
                now += int(cycles[1]) * cycle
        return waits

    return walk(entry)


def waited_for(text: str, config: Config, where: Topology) -> float:
    """`waited` of a step that was compiled for a topology."""
    from parallel import chips
    from parallel.compile import costs, wires
    from parallel.mesh import make_mesh

    mesh = make_mesh(config, topology.devices(where))
    chip = chips.find(mesh.devices.flat[0].device_kind)
    if chip is None or not chip.per_cycle:
        return 0.0

    def needs(one: hlo.Instruction, program: hlo.Program, computation: str) -> float:
        @functools.cache
        def of(name: str) -> costs.Costs:
            found = (read(i, name) for i in program[name].values())
            return sum(found, costs.Costs())

        def read(i: hlo.Instruction, name: str) -> costs.Costs:
            return costs._instruction_costs(i, program, mesh, of, name)

        return sum(
            c.count * wires.seconds(c, wires.wires(mesh, c.axes, where, chip))
            for c in read(one, computation).collectives
        )

    return waited(text, needs, chip.per_cycle / chip.flops)


def read_theirs(case: Case, config: Config, where: Topology, into: Path) -> dict[str, Any]:
    """MaxText's program by the rules that ours is read by; see parallel.compile.report.to_json."""
    from parallel import chips
    from parallel.compile import costs, estimate, report
    from parallel.mesh import make_mesh
    from train.state import abstract

    mesh = make_mesh(config, topology.devices(where))
    chip = chips.find(mesh.devices.flat[0].device_kind)
    sizes = json.loads((into / "memory.json").read_text())
    program = SimpleNamespace(memory_analysis=lambda: SimpleNamespace(**sizes))
    needed = estimate.memory(program, config, mesh, abstract(config, mesh), (), chip)
    found = costs.costs((into / "step.hlo").read_text(), mesh)
    times = estimate.estimate(config, mesh, found, where, chip)
    facts = {
        "attention": "MaxText's splash",
        "options": dict(o.removeprefix("--").split("=") for o in case.options.split()),
        "compile_seconds": sizes["seconds"],
        "host": sizes.get("host_temp_size_in_bytes", 0),
        "advice": [],
        "notes": [],
    }
    return report.to_json(config, mesh, where.name, chip, needed, times, facts)


def row(case: Case, label: str, python: str | None) -> dict[str, Any]:
    """Compile one program and read it."""
    from parallel.compile.__main__ import compile_step

    where = topology.parse(case.topology)
    os.environ.update(topology.environment(where))
    devices = len(topology.devices(where))
    policy = label if label in ("none", "full", "dots", "attention") else case.remat
    # MaxText splits its state over all devices that do not share a window.
    mesh = {axis: size for axis, size in case.mesh.items() if label != "maxtext" or axis != "data"}
    config = config_of(dataclasses.replace(case, mesh=mesh), devices, policy)
    if label == "maxtext" and not python:
        return {"missing": "--maxtext names no Python that has it"}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "step.hlo"
        if label != "maxtext":
            options = {} if label == "plain" else compiler_flags.chosen(where.family)
            report = compile_step(config, where, options=options, hlo=str(text))
            if text.exists():
                report["waited"] = waited_for(text.read_text(), config, where)
            return report
        command = [str(python), str(harness.ROOT / "benchmarks/peer_maxtext.py"), folder]
        done = subprocess.run(
            [*command, *settings(case)], check=False, capture_output=True, text=True
        )
        if not text.exists():
            return {"missing": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
        theirs = read_theirs(case, config, where, Path(folder))
        return theirs | {"waited": waited_for(text.read_text(), config, where)}


def to_text(name: str, case: Case, rows: dict[str, dict[str, Any]]) -> str:
    """The case as a Markdown table."""
    head = ("program", "memory, GiB", "host, GiB", "GB sent", "of it beside products",
            "waited for, s", "products, T", "compiler, s", "network alone, s", "predicted, s",
            "MFU PaLM / strict")  # fmt: skip
    lines = []
    for label, r in rows.items():
        if "seconds" not in r:
            what = r.get("missing") or f"{r['bytes_per_device']['total'] / GIB:.2f}, refused"
            lines.append((label, what, *[""] * (len(head) - 2)))
            continue
        sent = [(c["count"] * c["sent_bytes"] / 1e9, c["overlapped"]) for c in r["collectives"]]
        s, total = r["seconds"], sum(size for size, _ in sent)
        lines.append((
            label,
            f"{r['bytes_per_device']['total'] / GIB:.2f}",
            f"{r.get('host', 0) / GIB:.2f}",
            f"{total:.1f}",
            f"{sum(size for size, beside in sent if beside) / max(total, 1e-9):.0%}",
            f"{r.get('waited', 0.0):.3f}",
            f"{r['flops_per_device']['products'] / 1e12:.0f}",
            f"{s['compiler']:.3f}",
            f"{s['network_exposed']:.3f}",
            f"{s['step']:.3f}",
            f"{r['mfu']['palm']:.1%} / {r['mfu']['strict']:.1%}",
        ))  # fmt: skip
    return (
        f"{name}: {case.topology}, {case.windows} windows of {case.shape['context']} a device\n\n"
        f"{harness.table(head, lines)}\n\n"
        f"Measured by MaxText on such a pod: {case.measured}\n({case.source}).\n"
        "All others are predictions from compiled programs (docs/compile.md).\n"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="16b_v5e", help=", ".join(CASES))
    parser.add_argument("--rows", default="ours,plain", help="see above")
    parser.add_argument("--maxtext", help="a Python that has MaxText and libtpu")
    parser.add_argument("--json", type=Path, help="write all of it to this file")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name in arguments.cases.split(","):
        case, rows = CASES[name], {}
        for label in arguments.rows.split(","):
            rows[label] = row(case, label, arguments.maxtext)
        found[name] = {"case": dataclasses.asdict(case), "rows": rows}
        print(to_text(name, case, rows), flush=True)
    harness.write(arguments.json, found)


if __name__ == "__main__":
    main()
