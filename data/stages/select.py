"""What is known of documents -> which are kept, and why the others are not."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.corpus import Clean
from data import order
from data.clean import licences, rules
from data.stages import shards

KEPT = -1
SAMPLES = 10  # documents shown of those that were dropped for a reason
EXCERPT = 300  # characters of each
_DOMAINS = 1_000  # counted in each shard; rarer ones are not reported


def select_shard(tagged: Path, out: Path, clean: Clean, sets: tuple[str, ...]) -> dict[str, Any]:
    """Decide about each document of a shard.

    Args:
        tagged: what the files of clean_shard begin with.
        out: OUT.npy gets an int16 a document: KEPT, or the index of a reason.
        clean: thresholds.
        sets: names of the evaluation sets.

    Returns:
        What `tally` says, with samples: {reason: [[key, id, source, excerpt], ...]}.
    """
    tags = shards.load_arrays(shards.path(tagged, "tags"))
    fates, reasons = decide(tags, clean, sets)
    shards.save_array(out.with_name(f"{out.name}.npy"), fates)
    counted = tally(tags, fates, reasons)
    counted["samples"] = _samples(shards.path(tagged), fates, reasons)
    return counted


def decide(
    tags: Mapping[str, np.ndarray], clean: Clean, sets: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The fate of each document, int16 [documents], and the reasons it counts in.

    The first reason that holds is the one given, in the order in which they are listed.
    """
    fates = np.full(len(tags["text_bytes"]), KEPT, np.int16)
    names: list[str] = []

    def drop(reason: str, which: np.ndarray) -> None:
        fates[(fates == KEPT) & which] = len(names)
        names.append(reason)

    drop("nothing left after cleaning", tags["text_bytes"] == 0)
    failed, why = licences.keep(list(tags["licence"]), list(tags["domain"]), clean)
    for index, reason in enumerate(why):
        drop(reason, failed == index)
    if clean.languages:
        drop("language", ~np.isin(tags["language"].astype(str), clean.languages))
        drop("language: uncertain", tags["language_score"] < clean.min_language_score)
    if clean.reject:
        drop(f"classifier: {clean.reject}", tags[f"label {clean.reject}"] > clean.max_probability)
    if clean.words:
        drop("words", tags["words_found"] > clean.max_words)
    if clean.rules:
        failed, why = rules.verdicts(tags, clean)
        for index, reason in enumerate(why):
            drop(reason, failed == index)
    if clean.pii.max_hits:
        drop("pii", tags["pii"] > clean.pii.max_hits)
    for index, name in enumerate(sets):
        drop(f"contamination: {name}", tags[f"shared {index}"] > 0)
    return fates, tuple(names)


def tally(
    tags: Mapping[str, np.ndarray], fates: np.ndarray, reasons: Sequence[str]
) -> dict[str, Any]:
    """Counts, each [documents, bytes].

    Returns:
        sources: {source: {"in": count, "kept": count}}; dropped: {reason: count};
        languages, domains: {name: {"in": count, "kept": count}}; histograms: {measure: {lower edge
        of a bin: documents in}}; pii: documents in which some was found.
    """
    size, kept = tags["text_bytes"], fates == KEPT
    dropped = {}
    for index, reason in enumerate(reasons):
        if (which := fates == index).any():
            dropped[reason] = _count(size, which)
    domains = Counter(tags["domain"].tolist())
    common = {name for name, _ in domains.most_common(_DOMAINS) if name}
    return {
        "sources": _shares(tags["source"], size, kept),
        "languages": _shares(tags["language"], size, kept) if "language" in tags else {},
        "domains": {
            name: count
            for name, count in _shares(tags["domain"], size, kept).items()
            if name in common
        },
        "dropped": dropped,
        "contaminated": {
            name: int((tags[name] > 0).sum()) for name in tags if name.startswith("shared ")
        },
        "pii": int((tags["pii"] > 0).sum()),
        "histograms": {name: _histogram(tags[name]) for name in tags if _is_measure(name, tags)},
    }


def add(totals: dict[str, Any], counted: Mapping[str, Any]) -> dict[str, Any]:
    """Sum nested counts: numbers and lists of numbers add up, dictionaries key by key."""
    for key, value in counted.items():
        if isinstance(value, Mapping):
            totals[key] = add(totals.get(key, {}), value)
        elif isinstance(value, list):
            totals[key] = [
                a + b for a, b in zip(totals.get(key, [0] * len(value)), value, strict=True)
            ]
        else:
            totals[key] = totals.get(key, 0) + value
    return totals


def merge_samples(several: Sequence[Mapping[str, list]]) -> dict[str, list]:
    """The samples of lowest key over all shards, for each reason."""
    merged: dict[str, list] = {}
    for samples in several:
        for reason, found in samples.items():
            merged[reason] = sorted([*merged.get(reason, []), *found])[:SAMPLES]
    return merged


def _count(size: np.ndarray, which: np.ndarray) -> list[int]:
    return [int(which.sum()), int(size[which].sum())]


def _shares(names: np.ndarray, size: np.ndarray, kept: np.ndarray) -> dict[str, dict[str, list]]:
    labels, which = np.unique(names.astype(str), return_inverse=True)
    documents, text = np.bincount(which), np.bincount(which, size)
    kept_documents, kept_text = np.bincount(which, kept), np.bincount(which, size * kept)
    return {
        str(label): {
            "in": [int(documents[i]), int(text[i])],
            "kept": [int(kept_documents[i]), int(kept_text[i])],
        }
        for i, label in enumerate(labels)
    }


def _is_measure(name: str, tags: Mapping[str, np.ndarray]) -> bool:
    """Whether a histogram of it says something: numbers, but neither hashes nor n-gram counts."""
    return tags[name].dtype.kind in "iuf" and not name.startswith(("key", "shared "))


def _histogram(values: np.ndarray) -> dict[str, int]:
    """Counts by the lower edges of bins, see `edges`."""
    if values.dtype.kind in "iu":
        lower = np.where(values > 0, 2 ** np.floor(np.log2(np.maximum(values, 1))), 0)
    else:
        twentieths = np.floor(values * 20 + 1e-4) / 20
        powers = 2 ** np.floor(np.log2(np.maximum(values, 1)))
        lower = np.where(values < 1, twentieths, np.where(values < 16, np.floor(values), powers))
    found, counts = np.unique(np.round(lower.astype(np.float64), 2), return_counts=True)
    return {f"{edge:.12g}": int(count) for edge, count in zip(found, counts, strict=True)}


def edges(found: Collection[float]) -> list[float]:
    """All lower edges from the first to the last of those found in a histogram.

    Whole numbers are counted by powers of two; others below 1 by twentieths, below 16 by ones.
    """
    low, high = min(found), max(found)
    powers = [2.0**i for i in range(max(int(high), 1).bit_length())]
    if all(edge >= 1 and math.log2(edge).is_integer() for edge in found if edge):
        every = [0.0, *powers]
    else:
        ones = [float(i) for i in range(1, 16)]
        every = [*(i / 20 for i in range(20)), *ones, *(edge for edge in powers if edge >= 16)]
    return [edge for edge in every if low <= edge <= high]


def _samples(file: Path, fates: np.ndarray, reasons: Sequence[str]) -> dict[str, list]:
    """Some documents of each reason, drawn by their ids."""
    if (fates == KEPT).all():
        return {}
    columns = shards.load(file, ("id", "source", "text"))
    samples = {}
    for index, reason in enumerate(reasons):
        keys = {
            int(row): order.key("sample", columns["id"][row])
            for row in np.flatnonzero(fates == index)
        }
        chosen = sorted(keys, key=lambda row: keys[row])[:SAMPLES]
        if chosen:
            samples[reason] = [
                [
                    keys[row],
                    columns["id"][row],
                    columns["source"][row],
                    columns["text"][row][:EXCERPT],
                ]
                for row in chosen
            ]
    return samples
