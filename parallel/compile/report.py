"""A compiled step's report, for people and as JSON (docs/compile.md has the keys)."""

import collections
from typing import Any

from jax.sharding import Mesh

from configs.schema import Config
from parallel.chips import GIB, Chip
from parallel.compile.estimate import Estimate, Memory

FORMAT = 1


def to_json(
    config: Config,
    mesh: Mesh,
    topology: str,
    chip: Chip | None,
    needed: Memory,
    times: Estimate | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The report as plain values.

    Args:
        config: the run.
        mesh: what it was compiled for.
        topology: its name.
        chip: whose figures were used.
        needed: bytes of a device.
        times: None where the compiler refused the step.
        facts: what else is known: attention, options, compile_seconds, advice, notes.
    """
    kinds = (
        *("parameters", "optimizer", "batch", "activations", "temporaries", "code", "other"),
        *("total", "limit"),
    )
    known: dict[str, Any] = {
        "format": FORMAT,
        "topology": topology,
        "chip": chip.kind if chip else "unknown",
        "devices": mesh.size,
        "mesh": dict(mesh.shape) | {"rounds": config.mesh.rounds},
        "batch": {"size": config.batch.size, "microbatch": config.batch.microbatch},
        "context": config.model.context,
        "remat": config.model.remat,
        "fits": needed.fits,
        "bytes_per_device": {kind: round(getattr(needed, kind)) for kind in kinds},
    }
    return known | (_times(config, mesh, times) if times else {}) | facts


def _times(config: Config, mesh: Mesh, times: Estimate) -> dict[str, Any]:
    tokens = config.batch.size * config.model.context
    by_axis: dict[str, float] = collections.defaultdict(float)
    for collective, time in times.network:
        by_axis["+".join(collective.axes)] += time
    return {
        "flops_per_device": {
            "products": times.products,
            "attention_kernels": times.kernels,
            "model": times.model_flops,
            "ratio": (times.products + times.kernels) / times.model_flops["strict"],
        },
        "bubble": times.bubble,
        "collectives": [
            {
                "kind": c.kind,
                "axes": list(c.axes),
                "group": c.group,
                "operand_bytes": round(c.operand_bytes),
                "sent_bytes": round(c.sent_bytes),
                "count": c.count,
                "overlapped": c.overlapped,
                "seconds": time,
                "operation": c.name,
            }
            for c, time in times.network
        ],
        "seconds": {
            "compute": times.compute,
            "memory": times.traffic,
            "compiler": times.compiler,
            "network": dict(by_axis),
            "network_overlapped": times.overlapped,
            "network_exposed": times.exposed,
            "step": times.step or None,
        },
        "mfu": times.mfu or None,
        "tokens_per_second_per_device": tokens / mesh.size / times.step if times.step else None,
    }


def to_text(report: dict[str, Any]) -> str:
    """The report for people, from what to_json made."""
    mesh = " x ".join(f"{axis}={size}" for axis, size in report["mesh"].items() if size > 1)
    batch = report["batch"]
    told = " ".join(f"{name}={value}" for name, value in report["options"].items())
    lines = [
        f"{report['topology']}: {report['devices']} devices ({report['chip']}), mesh {mesh or '1'}",
        f"{batch['size']} windows of {report['context']} tokens, {batch['microbatch']} at once; "
        f"remat {report['remat']}, attention {report['attention']}; compiled in "
        f"{report['compile_seconds']:.0f} s",
        *([f"told to the compiler: {told}"] if told else []),
        "",
        *_memory_lines(report),
    ]
    if "seconds" in report:
        lines += ["", *_flops_lines(report), "", *_collective_lines(report)]
        if report["seconds"]["step"]:
            lines += ["", *_time_lines(report)]
    lines += [f"note: {note}" for note in report["notes"]]
    lines += [f"to make it fit: {change}" for change in report["advice"]]
    return "\n".join(lines)


def _memory_lines(report: dict[str, Any]) -> list[str]:
    sizes = report["bytes_per_device"]
    lines = ["memory of a device, GiB"]
    lines += [f"  {kind:<12}{size / GIB:>9.3f}" for kind, size in sizes.items() if kind != "limit"]
    if report["fits"] is None:
        return [*lines, "  how much such a device has is not known"]
    share = sizes["total"] / sizes["limit"]
    verdict = "FITS" if report["fits"] else "DOES NOT FIT"
    return [
        *lines,
        f"  {verdict}: {share:.1%} of the {sizes['limit'] / GIB:.2f} that a program may use",
    ]


def _flops_lines(report: dict[str, Any]) -> list[str]:
    flops = report["flops_per_device"]
    lines = [
        f"operations of a device: {flops['products']:.4g} in products, "
        f"{flops['attention_kernels']:.4g} in attention kernels (by formula)",
        f"  {flops['ratio']:.3f} x what the model needs (strict counting, shared by all devices): "
        "recomputation, and the masked half of attention where no kernel skips it",
    ]
    if report["mesh"]["stage"] > 1:
        lines.append(f"  a pipeline's stage is idle {report['bubble']:.1%} of the time")
    return lines


def _collective_lines(report: dict[str, Any]) -> list[str]:
    sums: dict[tuple, list[float]] = {}
    for c in report["collectives"]:
        row = sums.setdefault((" ".join(c["axes"]), c["kind"], c["overlapped"]), [0.0, 0.0, 0.0])
        for place, amount in enumerate((c["count"], c["count"] * c["sent_bytes"], c["seconds"])):
            row[place] += amount
    if not sums:
        return ["no collectives"]
    header = f"  {'axes':<20}{'kind':<20}{'runs':<12}{'times':>8}{'GB sent':>10}{'seconds':>10}"
    rows = [
        f"  {axes:<20}{kind:<20}{'beside' if beside else 'alone':<12}{count:>8.0f}"
        f"{sent / 1e9:>10.3f}{time:>10.4f}"
        for (axes, kind, beside), (count, sent, time) in sorted(
            sums.items(), key=lambda item: -item[1][1]
        )
    ]
    return ["what each device sends in one update", header, *rows]


def _time_lines(report: dict[str, Any]) -> list[str]:
    s, mfu = report["seconds"], report["mfu"]
    compiler = "none" if s["compiler"] is None else f"{s['compiler']:.4g}"
    return [
        "seconds of one update, at least",
        f"  products and kernels at the chip's peak  {s['compute']:.4g}",
        f"  memory                                   {s['memory']:.4g}",
        f"  the compiler's own prediction            {compiler}",
        f"  network, beside products                 {s['network_overlapped']:.4g}",
        f"  network, alone                           {s['network_exposed']:.4g}",
        f"  predicted                                {s['step']:.4g}",
        f"  MFU {mfu['palm']:.1%} (PaLM), {mfu['strict']:.1%} (strict); "
        f"{report['tokens_per_second_per_device']:,.0f} tokens a second and device",
    ]
