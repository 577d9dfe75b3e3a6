"""What a run decides before its first update: what it is about, and whether it may go on."""

import hashlib
import os
from pathlib import Path
from typing import Any

import jax

import model
from configs.schema import Config, InputError, to_dict
from data.loader import check_vocab, open_mixture
from data.store import Store, open_store
from model.pipeline import bubble
from parallel import agreement
from parallel.rules import placement
from train import record
from train.metrics import quantity
from train.peak import Peak

SYNTHETIC = "synthetic"
_TO_COMPILER = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
REPEATS = 4  # epochs that cost little against new text (Muennighoff et al. 2023, arXiv:2305.16264)


def open_data(config: Config) -> Store | None:
    """The run's token store, or None where tokens are random.

    Raises:
        InputError: there is no such store, or it does not fit the model or the mixture.
    """
    if config.data.path == SYNTHETIC:
        return None
    store = open_store(config.data.path)
    check_vocab(store, config.model.vocab)
    if config.data.mixture:
        open_mixture(store, config)  # kept for the loader; here, what is wrong shows early
    return store


def check_all_same(config: Config, store: Store | None) -> None:
    """Raise InputError unless all processes train the same model on the same corpus."""
    agreement.check_same("config", hashlib.sha256(repr(config).encode()).hexdigest())
    agreement.check_same("corpus", store.fingerprint if store else SYNTHETIC)


def check_same_run(
    workdir: Path, config: Config, store: Store | None, allow_change: bool
) -> list[str]:
    """How the run would go on other than it began; refused unless allowed.

    Raises:
        InputError: config or corpus changed in a way that matters.
    """
    changes = record.changes(workdir, config, store.fingerprint if store else SYNTHETIC)
    if changes and not allow_change:
        raise InputError(
            f"{workdir} holds a run that began otherwise ({'; '.join(changes)}): undo that, choose "
            "another --workdir, or go on all the same with --allow_change"
        )
    return changes


def write_record(workdir: Path, config: Config, store: Store | None, run: dict[str, Any]) -> None:
    """Write config.json, run.json and the tokenizer: with them the directory needs no other."""
    record.write_json(workdir / record.CONFIG, to_dict(config))
    record.write_json(workdir / record.RUN, run)
    if store:
        tokenizer = store.tokenizer()
        (workdir / tokenizer.file).write_bytes(tokenizer.serialized)


def describe(config: Config, store: Store | None, mesh: jax.sharding.Mesh, peak: Peak) -> dict:
    """run.json: exact counts, machine, versions and fingerprints (docs/run_directory.md)."""
    place = placement(config, mesh, config.batch.microbatch)
    counts = model.counts(config.model)
    device = jax.devices()[0]
    return {
        "format": record.FORMAT,
        "parameters": {
            "total": counts.parameters,
            "non_embedding": counts.non_embedding,
            "active": counts.parameters,
        },
        "flops_per_token": {
            name: counts.flops_per_token(name) for name in ("6n", "palm", "strict")
        },
        "devices": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "hosts": jax.process_count(),
        },
        "mesh": dict(mesh.shape),
        "bubble": bubble(config.batch.size // config.batch.microbatch, place.stage, place.rounds),
        "attention": model.attention_backend(config.model, place),
        "peak": {"name": peak.name, "flops": peak.flops},
        "compiler": {name: os.environ[name] for name in _TO_COMPILER if name in os.environ},
        "data": _describe_data(config, store),
        "versions": record.versions(),
    }


def _describe_data(config: Config, store: Store | None) -> dict:
    if not store:
        return {"path": SYNTHETIC, "fingerprint": SYNTHETIC}
    tokenizer, samples = store.tokenizer(), config.batch.windows_before(config.steps)
    mixed = {"mixture": open_mixture(store, config).use(samples)} if config.data.mixture else {}
    return {
        "path": str(store.path),
        "fingerprint": store.fingerprint,
        "tokenizer": tokenizer.file,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "sources": list(store.sources),
        "tokens": {split: store.tokens(split) for split in ("train", "validation")},
        "bytes": {split: store.bytes(split) for split in ("train", "validation")},
        **mixed,
    }


def _mesh(run: dict[str, Any]) -> str:
    split = " x ".join(f"{axis}={size}" for axis, size in run["mesh"].items() if size > 1)
    bubble = f"; stages idle {run['bubble']:.0%} of the time" if run["bubble"] else ""
    return f", {split}{bubble}" if split else ""


def decisions(config: Config, run: dict[str, Any]) -> str:
    """What the run decided, for people."""
    devices, batch, context = run["devices"], config.batch, config.model.context
    tokens = batch.windows_before(config.steps) * context
    data, counts = run["data"], run["parameters"]
    lines = {
        "devices": f"{devices['count']} x {devices['kind']}" + _mesh(run),
        "model": f"{counts['total']:,} parameters, {counts['non_embedding']:,} "
        f"without embeddings; {quantity(run['flops_per_token']['palm'])}FLOPs a token (PaLM)",
        "compute": f"{config.model.compute_dtype}, attention: {run['attention']}",
        "data": data["path"],
        "updates": f"{config.steps:,} of {batch.size * context:,} tokens ({batch.size} windows of "
        f"{context}, {batch.microbatch} at once)",
        "peak": f"{quantity(run['peak']['flops'])}FLOP/s a device ({run['peak']['name']}), for MFU",
    }
    if "LIBTPU_INIT_ARGS" in run.get("compiler", {}):
        lines["options"] = run["compiler"]["LIBTPU_INIT_ARGS"]
    if "tokens" in data:
        train, validation = data["tokens"]["train"], data["tokens"]["validation"]
        lines["data"] += f", {quantity(train)} tokens, {quantity(validation)} held out"
        lines["updates"] += f", {tokens / train:.2g} epochs"
    if "mixture" in data:
        lines["mixture"] = _mixture(data["mixture"])
    return "\n".join(f"{name:<10}{text}" for name, text in lines.items())


def _mixture(sources: list[dict[str, Any]]) -> str:
    """A line a source, then one for each that is repeated more than costs little."""
    width = max(len(use["source"]) for use in sources)
    lines = [
        f"{use['source']:<{width}}  {use['share']:7.2%} of the samples; {use['windows']:,} windows "
        f"({quantity(use['tokens'])} tokens), {use['epochs']:.3g} epochs"
        for use in sources
    ]
    lines += [
        f"warning: {use['source']} is repeated {use['epochs']:.3g} times; beyond {REPEATS}, "
        "repeating is worth ever less than new text (arXiv:2305.16264)"
        for use in sources
        if use["epochs"] > REPEATS
    ]
    return f"\n{'':10}".join(lines)
