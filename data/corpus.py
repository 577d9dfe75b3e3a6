"""From a corpus recipe to a complete token store, or to one sentence that says why not.

The stages in between are those of data/pipeline.py; here is what comes before and after them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from configs.corpus import Clean, Corpus
from configs.schema import InputError, require, to_dict
from data import report, sources, store, tokenizer
from data.clean import classifier, language, words
from data.disk import remove, writing
from data.engine.flow import Engine, Flow
from data.engine.local import Local
from data.pipeline import WORK, MakeTokenizer, Pipeline, contents

_MARK = "building.json"  # lies in a folder as long as the store in it is not complete


def build(
    corpus: Corpus, target: Path, engine: Engine | None = None, work: Path | None = None
) -> dict[str, Any]:
    """Build the store that `corpus` describes in the folder `target` and summarise it.

    The store does not depend on the engine. A build that was interrupted goes on where it was.

    Args:
        corpus: the recipe.
        target: a folder that is empty, missing, or holds such a store or build.
        engine: runs the stages; None: this process does.
        work: for intermediate results, which are kept there, so that a build with other settings
            uses what it shares with this one; None: in `target`, and deleted at the end.

    Raises:
        InputError: bad input, or a folder in use.
    """
    names = tuple(sources.name(source) for source in corpus.sources)
    require(len(set(names)) == len(names), f"a source is named twice in {', '.join(names)}")
    make_tokenizer = _tokenizer_maker(corpus.tokenizer)
    _check_names(corpus.clean)
    settings = _settings(corpus)
    if (target / store.MANIFEST).exists():
        require(
            store.read_manifest(target).get("build", {}).get("settings") == settings,
            f"{target} holds a store built with other settings or from other text: choose another "
            "--out, or delete it",
        )
        print("this store is complete already: nothing to do")
        return report.summarise(target)
    _prepare(target, settings)
    whole = Pipeline(corpus, target, Flow(engine or Local(), work or target / WORK), make_tokenizer)
    known, written, counters = whole.run()
    report.write(target, corpus, written, counters)
    how = {"settings": settings, "corpus": to_dict(corpus), "split": counters["split"]}
    store.write_manifest(target, known, written, how | {"counters": report.brief(counters)})
    remove(target / WORK)
    (target / _MARK).unlink()
    return report.summarise(target)


def _check_names(clean: Clean) -> None:
    """Refuse languages and labels that nothing will ever have."""
    unknown = sorted(set(clean.languages) - language.known()) if clean.languages else []
    require(
        not unknown,
        f"clean.languages: {', '.join(unknown)} is none of the languages that are told apart: "
        "write ISO 639-1 codes, such as en",
    )
    if clean.reject:
        labels = classifier.load(clean.classifier).labels
        require(
            clean.reject in labels,
            f"clean.reject: {clean.classifier} knows no label {clean.reject!r}: choose one of "
            f"{', '.join(labels)}",
        )
    if clean.words:
        words.load(clean.words)


def _settings(corpus: Corpus) -> str:
    """A hash of all that decides what is in the store: the recipe and the files it reads."""
    parts: list[Any] = [store.FORMAT, to_dict(corpus)]
    every = (*corpus.sources, *corpus.decontaminate.against)
    parts += [sources.fingerprint(source) for source in every]
    parts += contents(corpus.clean.words, corpus.clean.classifier)
    if Path(corpus.tokenizer).is_file():
        parts.append(tokenizer.load(corpus.tokenizer).fingerprint)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _tokenizer_maker(spec: str) -> MakeTokenizer:
    """How to get the tokenizer that `spec` asks for, once the text is known."""
    kind, _, size = spec.partition(":")
    if spec == "bytes":
        return lambda characters, sample: tokenizer.utf8()
    if spec == "chars":
        return lambda characters, sample: tokenizer.characters(characters)
    if kind in ("bpe", "unigram"):
        require(
            size.isdecimal() and int(size) > 0,
            f"tokenizer {spec!r} has no size: write the number of ids, as in {kind}:8192",
        )
        return lambda characters, sample: tokenizer.train(kind, int(size), sample)
    require(
        Path(spec).suffix in (".model", ".json"),
        f"unknown tokenizer {spec!r}: write bytes, chars, bpe:SIZE, unigram:SIZE or the path of a "
        ".model file",
    )
    loaded = tokenizer.load(spec)
    return lambda characters, sample: loaded


def _prepare(target: Path, settings: str) -> None:
    """Make `target` a folder that is marked as ours."""
    mark = json.dumps({"settings": settings}) + "\n"
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        if (target / _MARK).exists():
            if (target / _MARK).read_text() == mark:
                print(f"going on with the build in {target} that was interrupted")
                return
            print(f"starting anew: {target} holds a build with other settings")
            for name in store.SPLITS:
                remove(target / name)
            for left in target.glob("tokenizer.*"):
                left.unlink()
            for marks in target.glob(f"{WORK}/write-*"):
                remove(marks)
        elif any(target.iterdir()):
            raise InputError(
                f"{target} is not empty and holds no token store: choose another --out"
            )
        (target / _MARK).write_text(mark)
        for name in store.SPLITS:
            (target / name).mkdir(exist_ok=True)
