"""What a build did to its documents: DIR/report.json for programs, DIR/report.html for people."""

import json
from pathlib import Path
from typing import Any

from configs.corpus import Corpus
from configs.schema import to_dict
from data import store
from data.disk import write as write_file
from data.report.page import page

FORMAT = 1
JSON, HTML = "report.json", "report.html"
_DOMAINS = 50  # named in the report


def write(
    target: Path, corpus: Corpus, written: list[store.Shard], counters: dict[str, Any]
) -> None:
    """Write both files into the folder of a store, from what the pipeline counted."""
    found = collect(corpus, written, counters)
    write_file(target / JSON, (json.dumps(found, indent=1) + "\n").encode())
    write_file(target / HTML, page(found).encode())


def collect(corpus: Corpus, written: list[store.Shard], counters: dict[str, Any]) -> dict[str, Any]:
    """The report. Counts of text are [documents, bytes].

    Tokens before the encoding are estimated from bytes by the ratio of what was encoded.
    """
    selected = counters["selected"]
    bytes_written = sum(shard.text_bytes for shard in written)
    tokens_written = sum(shard.tokens for shard in written)
    cut = counters.get("repeats", {}).get("tokens", 0)
    ratio = tokens_written / max(bytes_written, 1)
    domains = sorted(selected["domains"].items(), key=lambda item: (-item[1]["in"][0], item[0]))
    return {
        "format": FORMAT,
        "corpus": to_dict(corpus),
        "split": counters["split"],
        "funnel": _funnel(counters, ratio, [tokens_written, cut], bytes_written),
        "tokens_per_byte": ratio,
        "dropped": selected["dropped"] | _duplicates(counters),
        "samples": {
            reason: [{"id": i, "source": source, "text": text} for _, i, source, text in several]
            for reason, several in counters["samples"].items()
        },
        "sources": {
            name: {
                "read": [read["documents"], read["text_bytes"]],
                "empty": read["empty"],
                "selected": selected["sources"].get(name, {"kept": [0, 0]})["kept"],
                "written": _written(written, name),
            }
            for name, read in counters["read"].items()
        },
        "languages": selected["languages"],
        "domains": dict(domains[:_DOMAINS]),
        "histograms": selected["histograms"],
        "edits": counters["edits"],
        "pii_documents": selected["pii"],
        "contamination": {
            source.name or source.pattern: {"ngrams": ngrams, "documents": count}
            for source, ngrams, count in zip(
                corpus.decontaminate.against,
                counters["evaluation_ngrams"],
                selected["contaminated"].values(),
                strict=True,
            )
        },
        "repeats": counters.get("repeats", {}),
        "faults": counters["faults"],
    }


def brief(counters: dict[str, Any]) -> dict[str, Any]:
    """What of the counters belongs into the manifest: the numbers, without text."""
    selected = counters["selected"]
    return {
        "read": counters["read"],
        "faults": len(counters["faults"]),
        "edits": counters["edits"],
        "dropped": selected["dropped"] | _duplicates(counters),
        "repeats": counters.get("repeats", {}),
    }


def summarise(target: Path) -> dict[str, Any]:
    """What the store in a folder holds, as plain values."""
    built = store.open_store(target)
    how = store.read_manifest(target)["build"]
    return {
        "out": str(target),
        "fingerprint": built.fingerprint,
        "vocab": built.vocab,
        "eod": built.eod,
        "tokenizer": how["corpus"]["tokenizer"],
        "lossless": built.tokenizer().lossless,
        "split": how["split"],
        "documents": sum(map(built.documents, store.SPLITS)),
        "tokens": sum(map(built.tokens, store.SPLITS)),
        "text_bytes": sum(map(built.bytes, store.SPLITS)),
        "sources": {
            name: {
                split: {
                    "documents": built.documents(split, name),
                    "tokens": built.tokens(split, name),
                    "text_bytes": built.bytes(split, name),
                }
                for split in store.SPLITS
            }
            for name in built.sources
        },
        "counters": how["counters"],
    }


def _funnel(
    counters: dict[str, Any], ratio: float, tokens: list[int], bytes_written: int
) -> list[dict[str, Any]]:
    """Each step with what came in and what went out."""
    read = counters["read"].values()
    here = [sum(r["documents"] for r in read), sum(r["text_bytes"] for r in read)]
    steps = [
        {
            "step": "read",
            "documents": [
                here[0] + sum(r["empty"] for r in read) + len(counters["faults"]),
                here[0],
            ],
            "text_bytes": [here[1], here[1]],
            "tokens": [round(here[1] * ratio)] * 2,
        }
    ]

    def step(name: str, documents: int, text_bytes: int) -> None:
        after = [here[0] - documents, here[1] - text_bytes]
        pairs = {"documents": [here[0], after[0]], "text_bytes": [here[1], after[1]]}
        estimate = [round(size * ratio) for size in pairs["text_bytes"]]
        steps.append({"step": name} | pairs | {"tokens": estimate})
        here[:] = after

    kept = [count["in"] for count in counters["selected"]["sources"].values()]
    step("clean", here[0] - sum(k[0] for k in kept), here[1] - sum(k[1] for k in kept))
    groups: dict[str, list[int]] = {}
    for reason, (documents, text_bytes) in counters["selected"]["dropped"].items():
        total = groups.setdefault(reason.partition(":")[0], [0, 0])
        total[0] += documents
        total[1] += text_bytes
    for name, (documents, text_bytes) in (groups | _duplicates(counters)).items():
        step(name, documents, text_bytes)
    if "repeats" in counters:
        step("repeated stretches", 0, here[1] - bytes_written)
        steps[-1]["tokens"] = [tokens[0] + tokens[1], tokens[0]]
    steps.append(
        {
            "step": "written",
            "documents": [here[0], here[0]],
            "text_bytes": [here[1], bytes_written],
            "tokens": [tokens[0], tokens[0]],
        }
    )
    return steps


def _duplicates(counters: dict[str, Any]) -> dict[str, list[int]]:
    return {f"{kind} duplicate": count for kind, count in counters["duplicates"].items()}


def _written(written: list[store.Shard], source: str) -> dict[str, list[int]]:
    """{split: [documents, bytes, tokens]} of a source."""
    return {
        split: [
            sum(s.documents for s in written if (s.split, s.source) == (split, source)),
            sum(s.text_bytes for s in written if (s.split, s.source) == (split, source)),
            sum(s.tokens for s in written if (s.split, s.source) == (split, source)),
        ]
        for split in store.SPLITS
    }
