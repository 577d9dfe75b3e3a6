"""From a corpus recipe to a complete token store, or to one sentence that says why not."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.schema import Corpus, InputError, require, to_dict
from data import sources, store, tokenizer
from data.encode import encode
from data.survey import Survey, choose_split, survey

_MARK = "building.json"  # lies in a folder as long as the store in it is not complete


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
            store.read_manifest(out).get("build", {}).get("settings") == settings,
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
