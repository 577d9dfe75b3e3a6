"""A shard -> the shard with its texts mended, and what is known of each document.

What is measured is the text as it would be trained on: after repair, after C4's rules for lines,
after replacing what identifies people. Nothing is decided here, so that thresholds can change
without reading the text again.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from configs.corpus import C4, RULES, Clean, Decontaminate, Pii, Source
from configs.schema import InputError, require
from data import sources
from data.clean import classifier, language, licences, lines, pii, quality, words
from data.clean.repair import repair
from data.dedup import contamination, exact
from data.stages import shards
from data.stages.unique import array_of

# Characters of a document that are measured. Each takes some 50 bytes meanwhile, and with 10 M the
# bounds on words and characters have long been passed.
_MEASURED = 10_000_000


def without_thresholds(clean: Clean) -> Clean:
    """The part of the settings that decides what this stage writes."""
    if clean == Clean():
        return clean
    return Clean(
        repair=clean.repair,
        c4_lines=clean.c4_lines,
        c4=clean.c4 if clean.c4_lines else C4(),
        pii=Pii(action=clean.pii.action, max_hits=min(clean.pii.max_hits, 1)),
        words=clean.words,
        classifier=clean.classifier,
        rules=RULES,  # all are measured, whichever are applied
    )


def clean_shard(
    shard: Path, out: Path, clean: Clean, decontaminate: Decontaminate, index: Path | None
) -> dict[str, Any]:
    """Clean and measure a shard.

    Args:
        shard: from read_piece.
        out: OUT.parquet gets the documents, OUT.tags.parquet what is known of them.
        clean: from without_thresholds.
        decontaminate: the evaluation sets.
        index: the folder of their n-grams, a file a set.

    Returns:
        edits: how often each change was made to a text.
    """
    columns = shards.load(shard)
    edits: Counter[str] = Counter()
    texts, hits = _edit(columns["text"], clean, edits)
    keys = exact.keys(texts)
    tags: dict[str, Any] = {
        "key": keys[:, 0],
        "key_2": keys[:, 1],
        "text_bytes": np.array([len(text.encode()) for text in texts], np.int64),
        "source": columns["source"],
        "licence": columns["licence"],
        "domain": [licences.domain(url) for url in columns["url"]],
        "pii": hits,
    }
    if clean != Clean():
        tags["language"], tags["language_score"] = language.identify(texts)
        tags |= quality.measure([text[:_MEASURED] for text in texts])
    if clean.words:
        tags["words_found"] = words.count(texts, words.load(clean.words))
    if clean.classifier:
        model = classifier.load(clean.classifier)
        scores = classifier.probabilities(model, texts)
        tags |= {f"label {name}": scores[:, i] for i, name in enumerate(model.labels)}
    if index:
        known = [_load_index(index / f"{n:05d}.npy") for n in range(len(decontaminate.against))]
        found = contamination.hits(texts, known)
        tags |= {f"shared {n}": found[:, n] for n in range(len(known))}
    shards.save(shards.path(out), columns | {"text": texts})
    shards.save(shards.path(out, "tags"), tags)
    return {"edits": dict(edits)}


def _edit(texts: list[str], clean: Clean, edits: Counter[str]) -> tuple[list[str], np.ndarray]:
    """The texts with all changes made, and how much of each identified people."""
    hits = np.zeros(len(texts), np.int32)
    edited = []
    for number, text in enumerate(texts):
        if clean.repair:
            before, text = text, repair(text)
            edits["documents repaired"] += text != before
        if clean.c4_lines:
            text, dropped = lines.c4_lines(text, clean.c4)
            edits.update({f"lines dropped: {why}": count for why, count in dropped.items()})
        if clean.pii.action == "replace" or clean.pii.max_hits:
            replaced, found = pii.replace(text)
            hits[number] = sum(found.values())
            if clean.pii.action == "replace":
                text = replaced
                edits.update({f"{kind} replaced": count for kind, count in found.items()})
        edited.append(text)
    return edited, hits


def index_set(source: Source, out: Path, ngram: int, max_bytes: int) -> dict[str, Any]:
    """Write the n-grams of an evaluation set to OUT.npy. Raises InputError for a bad record."""
    texts = []
    for piece in sources.pieces(source, max_bytes):
        for read in sources.read(piece, max_bytes):
            if isinstance(read, sources.Fault):
                raise InputError(f"in the evaluation set {sources.name(source)}, {read}")
            texts.append(read.text)
    known, short = contamination.index(texts, ngram)
    require(
        bool(known),
        f"the evaluation set {sources.name(source)} has no text of enough words to look for",
    )
    flat = [np.stack([np.full_like(h, length), h], axis=1) for length, h in known.items()]
    shards.save_array(array_of(out), np.concatenate(flat))
    return {"ngrams": sum(map(len, flat)), "short": short}


def _load_index(file: Path) -> contamination.Index:
    rows = shards.load_array(file)
    lengths = np.unique(rows[:, 0]).tolist()
    return {int(length): rows[rows[:, 0] == length, 1] for length in lengths}
