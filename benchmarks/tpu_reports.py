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

Needs libtpu, no TPU: 1 to 6 minutes of two free cores a row, and 4 GB.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import harness
from configs.schema import Batch, Config, Data, Mesh, Model, Optimizer
from parallel import compiler_flags
from parallel.compile import topology
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
    rows = devices // case.mesh.get("tensor", 1)
    return Config(
        model=Model(**_LLAMA, **case.shape, scan=True, remat=remat, compute_dtype="bfloat16"),  # type: ignore[arg-type]
        data=Data(path="synthetic", attend_across=False),
        batch=Batch(size=case.windows * devices),  # devices that share a window count each
        mesh=Mesh(data=1, fsdp=rows, **case.mesh),
        optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1),
        steps=1,
    )


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
    config = config_of(case, devices, policy)
    if label != "maxtext":
        options = {} if label == "plain" else compiler_flags.chosen(where.family)
        return compile_step(config, where, options=options)
    if not python:
        return {"missing": "--maxtext names no Python that has it"}
    with tempfile.TemporaryDirectory() as folder:
        command = [python, str(harness.ROOT / "benchmarks/peer_maxtext.py"), folder]
        done = subprocess.run(
            [*command, *settings(case)], check=False, capture_output=True, text=True
        )
        if not (Path(folder) / "step.hlo").exists():
            return {"missing": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
        return read_theirs(case, config, where, Path(folder))


def to_text(name: str, case: Case, rows: dict[str, dict[str, Any]]) -> str:
    """The case as a Markdown table."""
    head = ("program", "memory, GiB", "host, GiB", "GB sent", "of it beside products",
            "products, T", "compiler, s", "network alone, s", "predicted, s",
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
