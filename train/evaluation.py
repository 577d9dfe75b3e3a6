"""Loss on held-out text, with its standard error.

Shapes: n windows.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import model
from configs.schema import Config, require
from data.loader import evaluation_batches
from data.store import Store
from parallel.mesh import host_share, replicated, shard_batch
from train.metrics import one_late

Sums = tuple[np.ndarray, np.ndarray]  # of each window with a target: its loss and its targets

VALIDATION = "validation"


def evaluate(
    config: Config,
    store: Store,
    params: model.Params,
    sums: Callable[[model.Params, jax.Array], dict[str, jax.Array]],
    mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
    """The loss on the validation split, over all of it and for each source.

    Args:
        config: `evaluation` and `model.context` are read.
        store: the corpus.
        params: on the mesh.
        sums: from train.step.make_evaluation.
        mesh: what batches are split over.

    Returns:
        What `summary` gives, and under "sources" the same by source.
    """
    by_source = {}
    for source in store.sources:
        if store.tokens(VALIDATION, source):
            by_source[source] = _windows(config, store, source, params, sums, mesh)
    require(bool(by_source), f"{store.path} holds no validation split: build it with one")
    loss_n, weight_n = (np.concatenate(parts) for parts in zip(*by_source.values(), strict=True))
    whole = summary(loss_n, weight_n, store.tokens(VALIDATION), store.bytes(VALIDATION))
    parts = {
        source: summary(*windows, store.tokens(VALIDATION, source), store.bytes(VALIDATION, source))
        for source, windows in by_source.items()
    }
    return {**whole, "sources": parts}


def _windows(
    config: Config,
    store: Store,
    source: str,
    params: model.Params,
    sums: Callable[[model.Params, jax.Array], dict[str, jax.Array]],
    mesh: jax.sharding.Mesh,
) -> Sums:
    """Loss and targets of each window of a source; it gets its share of evaluation.windows."""
    settings = config.evaluation
    share = store.tokens(VALIDATION, source) / store.tokens(VALIDATION)
    batches = evaluation_batches(
        store,
        VALIDATION,
        source,
        config.model.context,
        settings.batch or config.batch.microbatch,
        math.ceil(settings.windows * share),
        host_share(mesh),
    )
    results = (
        jax.device_put(sums(params, shard_batch(mesh, tokens_bt)), replicated(mesh))
        for tokens_bt in batches
    )
    fetched = [jax.device_get(result) for result in one_late(results)]
    loss_n = np.concatenate([part["loss"] for part in fetched])
    weight_n = np.concatenate([part["weight"] for part in fetched])
    return loss_n[weight_n > 0], weight_n[weight_n > 0]


def summary(loss_n: np.ndarray, weight_n: np.ndarray, tokens: int, text_bytes: int) -> dict:
    """What windows say about the text they were taken from.

    The loss is a ratio of sums, and its standard error that of a ratio estimator (Cochran 1977,
    Sampling Techniques, 6.13): windows are drawn, not tokens, which depend on one another.

    Args:
        loss_n: nats, summed over each window.
        weight_n: targets in each window.
        tokens: targets in all of the text.
        text_bytes: UTF-8 bytes of all of the text.

    Returns:
        loss (nats a token), standard_error (None for a single window), perplexity, bits_per_byte
        (None without bytes), targets, windows.
    """
    n = len(loss_n)
    weight = float(weight_n.sum(dtype=np.float64))
    loss = float(loss_n.sum(dtype=np.float64)) / weight
    residual_n = loss_n.astype(np.float64) - loss * weight_n.astype(np.float64)
    error = math.sqrt(n / (n - 1) * float(np.sum(residual_n**2))) / weight if n > 1 else None
    return {
        "loss": loss,
        "standard_error": error,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": loss / math.log(2) * tokens / text_bytes if text_bytes else None,
        "targets": int(weight),
        "windows": n,
    }
