"""Build a token store, what python -m train reads: documents -> cleaned, deduplicated -> ids.

    python -m data.build --config=configs/corpora/quickstart.py --out=runs/quickstart/data
    python -m data.build --sources=text:poems/*.txt --tokenizer=bpe:8192 --out=runs/poems/data
    python -m data.build --sources=jsonl:a.jsonl.zst,tfds:lm1b --tokenizer=bytes --out=DIR
    python -m data.build --config=configs/corpora/web.py --sources=warc:*.warc.gz --out=DIR

Without a recipe, --sources and --tokenizer say what to read, and nothing is cleaned unless a
setting such as --config.dedup.exact=True asks for it. With one, flags that are given replace what
it says. Building the same store again does nothing; a build that was interrupted goes on where it
was; a folder that holds anything else is left alone. DIR/report.html shows what became of the
documents.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags

from configs.corpus import Corpus, Decontaminate, Source
from configs.flags import define_recipe, main
from configs.schema import InputError, require
from data import report, sources
from data.corpus import build
from data.disk import place, write
from data.engine.flow import Engine
from data.engine.local import open_local

_RECIPE = define_recipe(Corpus, optional=True)
_SOURCES = flags.DEFINE_list(
    "sources", None, "kind:pattern,kind:pattern with kinds " + ", ".join(sources.KINDS)
)
_OUT = flags.DEFINE_string("out", None, "the folder of the token store")
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "bytes, chars, bpe:SIZE, unigram:SIZE or the path of a .model file"
)
_VALIDATION = flags.DEFINE_float("validation", None, "share of the text held out")
_SPLIT = flags.DEFINE_enum(
    "split",
    None,
    ["auto", "documents", "tail"],
    "hold out whole documents, or the tail of each; auto: documents where there are many",
)
_AGAINST = flags.DEFINE_list(
    "against", None, "evaluation sets, as in --sources: documents that share text with them go"
)
_WORKERS = flags.DEFINE_integer("workers", 2, "processes of this machine", lower_bound=1)
_WORK = flags.DEFINE_string(
    "work", None, "where intermediate results are kept for later builds; unset: deleted at the end"
)
_RUNNER = flags.DEFINE_string(
    "runner", None, "a runner of Apache Beam, such as DataflowRunner; unset: processes here"
)
_BEAM = flags.DEFINE_multi_string("beam", [], "an option of Beam, such as --beam=--project=NAME")
_JSON = flags.DEFINE_string("json", None, "write the summary to this file, too")


def run() -> None:
    """The command."""
    if not _OUT.value:
        raise InputError("no folder for the store: name one with --out=DIR")
    start = time.monotonic()
    work = place(_WORK.value) if _WORK.value else None
    with _engine() as engine:
        summary = build(_corpus(), place(_OUT.value), engine, work)
    summary["seconds"] = round(time.monotonic() - start, 2)
    _print_summary(summary)
    if _JSON.value:
        write(Path(_JSON.value), (json.dumps(summary, indent=1) + "\n").encode())


@contextmanager
def _engine() -> Iterator[Engine]:
    """What runs the stages."""
    if _RUNNER.value:
        from data.engine.beam import Beam

        yield Beam(_RUNNER.value, _BEAM.value)
        return
    with open_local(_WORKERS.value) as local:
        yield local


def _corpus() -> Corpus:
    """The recipe with the flags in place, or the flags alone."""
    given: dict[str, Any] = {
        "sources": None if _SOURCES.value is None else tuple(map(_source, _SOURCES.value)),
        "tokenizer": _TOKENIZER.value,
        "validation": _VALIDATION.value,
        "split": _SPLIT.value,
        "decontaminate": _against(),
    }
    given = {key: value for key, value in given.items() if value is not None}
    if _RECIPE.path:
        return dataclasses.replace(_RECIPE.load(), **given)
    for key in ("sources", "tokenizer"):
        require(key in given, f"nothing says what to build: give --config=FILE, or --{key}=...")
    return _RECIPE.change(Corpus(**given))


def _against() -> Decontaminate | None:
    """The evaluation sets that --against names."""
    if _AGAINST.value is None:
        return None
    return Decontaminate(against=tuple(map(_source, _AGAINST.value)))


def _source(text: str) -> Source:
    kind, _, pattern = text.partition(":")
    return Source(kind=kind, pattern=pattern)


def _print_summary(summary: dict[str, Any]) -> None:
    width = max(map(len, summary["sources"]))
    print(f"\n{'source':{width}}  split       documents          tokens  bytes/token")
    for name, splits in summary["sources"].items():
        for split, found in splits.items():
            ratio = found["text_bytes"] / max(found["tokens"], 1)
            row = f"{found['documents']:10,}  {found['tokens']:14,}  {ratio:11.2f}"
            print(f"{name:{width}}  {split:10} {row}")
    print(
        f"\n{summary['tokens']:,} tokens of {summary['vocab']:,} kinds are in {summary['out']} "
        f"after {summary['seconds']:.1f} s; what became of the documents is in "
        f"{place(summary['out']) / report.HTML}"
    )


if __name__ == "__main__":
    main(run, _RECIPE)
