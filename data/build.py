"""Build a token store: documents -> tokenizer -> ids on disk, what python -m train reads.

    python -m data.build --config=configs/corpora/quickstart.py --out=runs/quickstart/data
    python -m data.build --sources=text:poems/*.txt --tokenizer=bpe:8192 --out=runs/poems/data
    python -m data.build --sources=jsonl:a.jsonl.zst,tfds:lm1b --tokenizer=bytes --out=DIR

Without a recipe, --sources and --tokenizer say what to read. With one, flags that are given take
the place of what it says. Building the same store again does nothing; a build that was interrupted
starts anew; a folder that holds anything else is left alone.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from absl import flags

from configs.flags import define_recipe, main
from configs.schema import Corpus, InputError, Source, require
from data import store
from data.corpus import build

_RECIPE = define_recipe(Corpus)
_SOURCES = flags.DEFINE_list(
    "sources", None, "kind:pattern,kind:pattern with kinds text, jsonl, tfds, stdlib"
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
_WORKERS = flags.DEFINE_integer("workers", 2, "processes that encode", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "write the summary to this file, too")


def run() -> None:
    """The command."""
    if not _OUT.value:
        raise InputError("no folder for the store: name one with --out=DIR")
    start = time.monotonic()
    summary = build(_corpus(), Path(_OUT.value), _WORKERS.value)
    summary["seconds"] = round(time.monotonic() - start, 2)
    _print_summary(summary)
    if _JSON.value:
        with store.writing(Path(_JSON.value)):
            Path(_JSON.value).write_text(json.dumps(summary, indent=1) + "\n")


def _corpus() -> Corpus:
    """The recipe with the flags in place, or the flags alone."""
    given: dict[str, Any] = {
        "sources": None if _SOURCES.value is None else tuple(map(_source, _SOURCES.value)),
        "tokenizer": _TOKENIZER.value,
        "validation": _VALIDATION.value,
        "split": _SPLIT.value,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if _RECIPE.path:
        return dataclasses.replace(_RECIPE.load(), **given)
    for key in ("sources", "tokenizer"):
        require(key in given, f"nothing says what to build: give --config=FILE, or --{key}=...")
    return Corpus(**given)


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
        f"after {summary['seconds']:.1f} s"
    )


if __name__ == "__main__":
    main(run, _RECIPE)
