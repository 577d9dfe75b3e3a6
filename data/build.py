"""Build a token store: documents -> tokenizer -> ids on disk, what python -m train reads.

    python -m data.build --config=configs/corpora/quickstart.py --out=runs/quickstart/data
    python -m data.build --sources=text:poems/*.txt --tokenizer=bpe:8192 --out=runs/poems/data
    python -m data.build --sources=jsonl:a.jsonl.zst,tfds:wikitext --tokenizer=bytes --out=DIR

Without a recipe, --sources and --tokenizer say what to read. With one, flags that are given take
the place of what it says. Building the same store again does nothing; a build that was interrupted
starts anew; a folder that holds anything else is left alone.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from configs.flags import define_recipe, main
from configs.schema import Corpus, InputError, Source, require, to_dict
from data import sources, store, tokenizer
from data.encode import encode
from data.survey import Survey, choose_split, survey

_MARK = "building.json"  # lies in a folder as long as the store in it is not complete

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


def build(corpus: Corpus, out: Path, workers: int = 2) -> dict[str, Any]:
    """Build the store that `corpus` describes in the folder `out` and summarise it.

    The store does not depend on `workers`. Raises InputError for bad input or a folder in use.
    """
    names = [sources.name(source) for source in corpus.sources]
    require(len(set(names)) == len(names), f"a source is named twice in {', '.join(names)}")
    make_tokenizer = _tokenizer_maker(corpus.tokenizer)
    settings = _settings(corpus)
    if (out / store.MANIFEST).exists():
        require(
            store.read_manifest(out)["build"]["settings"] == settings,
            f"{out} holds a store built with other settings or from other text: choose another "
            "--out, or delete it",
        )
        print("this store is complete already: nothing to do")
        return summarise(out)
    _prepare(out, settings)
    split, why = choose_split(corpus)
    print(f"split: {split}, {why}")
    seen = survey(corpus, split)
    print(f"read {seen.documents:,} documents of {seen.text_bytes:,} bytes ({seen.empty} empty)")
    known = make_tokenizer(seen)
    print(f"tokenizer: {corpus.tokenizer}, {known.vocab:,} ids")
    if not known.lossless:
        print("this tokenizer does not bring every text back as it was (it normalises)")
    with store.writing(out):
        (out / known.file).write_bytes(known.serialized)
    shards = encode(corpus, split, seen, known, out, workers)
    how = {"settings": settings, "corpus": to_dict(corpus), "split": split}
    store.write_manifest(out, known, shards, how)
    (out / _MARK).unlink()
    return summarise(out)


def _settings(corpus: Corpus) -> str:
    """A hash of all that decides what is in the store: the recipe and the files it reads."""
    parts: list[Any] = [store.FORMAT, to_dict(corpus)]
    parts += [sources.fingerprint(source) for source in corpus.sources]
    if Path(corpus.tokenizer).is_file():
        parts.append(tokenizer.load(corpus.tokenizer).fingerprint)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _tokenizer_maker(spec: str) -> Callable[[Survey], tokenizer.Tokenizer]:
    """How to get the tokenizer that `spec` asks for, once the text is known."""
    kind, _, size = spec.partition(":")
    if spec == "bytes":
        return lambda seen: tokenizer.utf8()
    if spec == "chars":
        return lambda seen: tokenizer.characters("".join(seen.characters))
    if kind in ("bpe", "unigram"):
        require(
            size.isdecimal() and int(size) > 0,
            f"tokenizer {spec!r} has no size: write the number of ids, as in {kind}:8192",
        )
        return lambda seen: tokenizer.train(kind, int(size), seen.sample)
    require(
        Path(spec).suffix in (".model", ".json"),
        f"unknown tokenizer {spec!r}: write bytes, chars, bpe:SIZE, unigram:SIZE or the path of a "
        ".model file",
    )
    loaded = tokenizer.load(spec)
    return lambda seen: loaded


def _prepare(out: Path, settings: str) -> None:
    """Make `out` an empty folder that is marked as ours."""
    with store.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if (out / _MARK).exists():
            print(f"starting anew: {out} holds a build that was interrupted")
            for name in store.SPLITS:
                shutil.rmtree(out / name, ignore_errors=True)
            for left in out.glob("tokenizer.*"):
                left.unlink()
        elif any(out.iterdir()):
            raise InputError(f"{out} is not empty and holds no token store: choose another --out")
        (out / _MARK).write_text(json.dumps({"settings": settings}) + "\n")
        for name in store.SPLITS:
            (out / name).mkdir()


def summarise(out: Path) -> dict[str, Any]:
    """What the store in `out` holds, as plain values."""
    built = store.open_store(out)
    how = store.read_manifest(out)["build"]
    counted = {
        name: {
            split: {
                "documents": built.documents(split, name),
                "tokens": built.tokens(split, name),
                "text_bytes": built.bytes(split, name),
            }
            for split in store.SPLITS
        }
        for name in built.sources
    }
    return {
        "out": str(out),
        "fingerprint": built.fingerprint,
        "vocab": built.vocab,
        "eod": built.eod,
        "tokenizer": how["corpus"]["tokenizer"],
        "lossless": built.tokenizer().lossless,
        "split": how["split"],
        "documents": sum(map(built.documents, store.SPLITS)),
        "tokens": sum(map(built.tokens, store.SPLITS)),
        "text_bytes": sum(map(built.bytes, store.SPLITS)),
        "sources": counted,
    }


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
