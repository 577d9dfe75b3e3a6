"""The way of a corpus from its sources to the shards of a token store, stage after stage.

    sources -> read -> clean -> select -> unique -> learn -> encode -> repeats -> write -> store

Each arrow is a stage of data/stages, which an engine of data/engine runs over all shards.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from configs.corpus import Corpus, Decontaminate
from configs.schema import InputError, require
from data import duplicates, sources, store, tokenizer
from data.disk import place
from data.disk import write as write_file
from data.engine.flow import Flow, Stage
from data.stages import clean, encode, learn, publish, read, select, write
from data.stages.unique import Selected

WORK = "work"  # the folder in a store's folder where stages write, unless told another
PIECE_BYTES = 64_000_000  # that a task reads of a file that can be cut
SHARD_BYTES = 32_000_000  # of text that a task of most stages holds at a time
MANY_DOCUMENTS = 1_000  # from here on, whole documents are held out

MakeTokenizer = Callable[[str, list[str]], tokenizer.Tokenizer]  # from characters, a sample


@dataclass(frozen=True)
class Pipeline:
    """One build, stage after stage.

    Attributes:
        corpus: the recipe.
        target: the folder of the store.
        flow: runs stages, and keeps what they write.
        make_tokenizer: from the characters of all text, or from a sample of what is trained on.
    """

    corpus: Corpus
    target: Path
    flow: Flow
    make_tokenizer: MakeTokenizer

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sources, in order."""
        return tuple(map(sources.name, self.corpus.sources))

    @property
    def _final(self) -> Flow:
        """Marks of what is written into the store lie with it, wherever those of others lie."""
        return replace(self.flow, work=self.target / WORK)

    def run(self) -> tuple[tokenizer.Tokenizer, list[store.Shard], dict[str, Any]]:
        """The tokenizer, the shards of the store, and what was counted on the way."""
        counters: dict[str, Any] = {}
        reading = self._read(counters)
        selecting, selected = self._select(reading, counters)
        last, selected = self._unique(selecting, selected, counters)
        split = self._split(counters)
        known, path = self._learn(last, selected, split, counters)
        encoding = self._encode(last, selected, split, path, counters)
        if self.corpus.dedup.substrings:
            encoding = self._repeats(encoding, path, counters)
        if self.corpus.documents:
            self._final.map(
                "publish",
                partial(publish.publish_shard, folder=self.target, split=split),
                selected,
                depends=(split, str(self.target)),
                after=(last,),
            )
        return known, self._write(encoding, known), counters

    def _read(self, counters: dict[str, Any]) -> Stage:
        corpus = self.corpus
        bounds = corpus.max_document_bytes, corpus.max_faults, SHARD_BYTES
        pieces = [p for s in corpus.sources for p in sources.pieces(s, PIECE_BYTES)]
        stage = self.flow.map(
            "read",
            partial(
                read.read_pieces, max_bytes=bounds[0], max_faults=bounds[1], shard_bytes=bounds[2]
            ),
            read.together(pieces, SHARD_BYTES),
            depends=(*bounds, corpus.sources, [sources.fingerprint(s) for s in corpus.sources]),
        )
        by_source = {name: {"documents": 0, "text_bytes": 0, "empty": 0} for name in self.names}
        faults = []
        for found in stage.results:
            here = by_source[found["source"]]
            here["empty"] += found["empty"]
            here["documents"] += sum(each["documents"] for each in found["shards"])
            here["text_bytes"] += sum(each["text_bytes"] for each in found["shards"])
            faults += found["faults"]
        _check_faults(faults, corpus.max_faults)
        for name, here in by_source.items():
            print(f"{name}: {here['documents']:,} documents of {here['text_bytes']:,} bytes")
            require(
                here["text_bytes"] > 0,
                f"the source {name} holds no text: check what it points to",
            )
        counters |= {"read": by_source, "faults": faults}
        return stage

    def _select(self, reading: Stage, counters: dict[str, Any]) -> tuple[Stage, list[Selected]]:
        settings, against = self.corpus.clean, self.corpus.decontaminate
        files = [
            read.shard(out, number)
            for out, found in zip(reading.outs(), reading.results, strict=True)
            for number in range(len(found["shards"]))
        ]
        index, indexing = self._index(against)
        measured = clean.without_thresholds(settings)
        cleaning = self.flow.map(
            "clean",
            partial(clean.clean_shard, clean=measured, decontaminate=against, index=index),
            files,
            depends=(measured, against.ngram, *contents(settings.words, settings.classifier)),
            after=(reading, *indexing),
        )
        sets = tuple(map(sources.name, against.against))
        selecting = self.flow.map(
            "select",
            partial(select.select_shard, clean=settings, sets=sets),
            cleaning.outs(),
            depends=(settings, sets),
            after=(cleaning,),
        )
        counters["edits"] = {}
        for found in cleaning.results:
            select.add(counters["edits"], found["edits"])
        counters["selected"] = {}
        for found in selecting.results:
            select.add(counters["selected"], {k: v for k, v in found.items() if k != "samples"})
        counters["samples"] = select.merge_samples([f["samples"] for f in selecting.results])
        counters["evaluation_ngrams"] = [found["ngrams"] for s in indexing for found in s.results]
        selected = [
            Selected(number, *outs)
            for number, outs in enumerate(zip(cleaning.outs(), selecting.outs(), strict=True))
        ]
        return selecting, selected

    def _index(self, against: Decontaminate) -> tuple[Path | None, tuple[Stage, ...]]:
        """The n-grams of the evaluation sets: their folder, and the stage that wrote them."""
        if not against.against:
            return None, ()
        known = [sources.fingerprint(source) for source in against.against]
        stage = self.flow.map(
            "index",
            partial(clean.index_set, ngram=against.ngram, max_bytes=self.corpus.max_document_bytes),
            against.against,
            depends=(against, known),
        )
        return stage.folder, (stage,)

    def _unique(
        self, selecting: Stage, selected: list[Selected], counters: dict[str, Any]
    ) -> tuple[Stage, list[Selected]]:
        """Leave out duplicates: the last stage that decides, and the shards after it."""
        dedup, last = self.corpus.dedup, selecting
        counters["duplicates"] = {}
        documents, _ = _left(counters)
        if dedup.exact:
            last = duplicates.exact(self.flow, last, selected, documents)
            self._count_duplicates("exact", last, selected, counters)
            selected = [replace(shard, doomed=last.outs()) for shard in selected]
        if dedup.fuzzy:
            last = duplicates.near(self.flow, last, selected, documents, dedup)
            self._count_duplicates("near", last, selected, counters)
            selected = [replace(s, doomed=(*s.doomed, *last.outs())) for s in selected]
        return last, selected

    def _count_duplicates(
        self, kind: str, stage: Stage, selected: list[Selected], counters: dict[str, Any]
    ) -> None:
        counters["duplicates"][kind] = duplicates.dropped(stage)
        if counters["duplicates"][kind][0]:
            cleaned = selected[0].cleaned.parent
            counters["samples"][f"{kind} duplicate"] = duplicates.samples(stage, cleaned)

    def _split(self, counters: dict[str, Any]) -> encode.Split:
        corpus, (documents, _) = self.corpus, _left(counters)
        gone = counters["selected"]["dropped"] | counters["duplicates"]
        reasons = ", ".join(f"{why} {count[0]:,}" for why, count in gone.items() if count[0])
        print(f"{documents:,} documents stay" + (f"; dropped: {reasons}" if reasons else ""))
        require(documents > 0, f"no document is left of those read: all went for {reasons}")
        how, why = corpus.split, "as asked for"
        if how == "auto":
            many = documents >= MANY_DOCUMENTS
            how = "documents" if many else "tail"
            fewer = "" if many else f", fewer than {MANY_DOCUMENTS:,}"
            why = f"for there are {documents:,} documents{fewer}"
        print(f"split: {how}, {why}")
        counters["split"] = how
        return encode.Split(how, corpus.validation, corpus.seed)

    def _learn(
        self,
        last: Stage,
        selected: list[Selected],
        split: encode.Split,
        counters: dict[str, Any],
    ) -> tuple[tokenizer.Tokenizer, Path]:
        """The tokenizer, and the file that the stages load it from."""
        spec, size = self.corpus.tokenizer, self.corpus.tokenizer_bytes
        characters, texts = "", []
        if spec == "chars" or _is_trained(spec):
            # A tenth more than fits, for the draw varies; the sample is then cut to size.
            share = min(1.0, 1.1 * size / _left(counters)[1]) if _is_trained(spec) else 0.0
            learning = self.flow.map(
                "learn",
                partial(learn.learn_shard, split=split, share=share),
                selected,
                depends=(split, share),
                after=(last,),
            )
            characters = "".join(sorted({c for f in learning.results for c in f["characters"]}))
            texts = learn.sample(learning.outs(), size) if _is_trained(spec) else []
        known = self.make_tokenizer(characters, texts)
        print(f"tokenizer: {spec}, {known.vocab:,} ids")
        if not known.lossless:
            print("this tokenizer does not bring every text back as it was (it normalises)")
        suffix = Path(known.file).suffix
        path = self.flow.work / f"tokenizer-{known.fingerprint[:16]}{suffix}"
        for each in (path, self.target / known.file):
            write_file(each, known.serialized)
        return known, path

    def _encode(
        self,
        last: Stage,
        selected: list[Selected],
        split: encode.Split,
        known: Path,
        counters: dict[str, Any],
    ) -> Stage:
        encoding = self.flow.map(
            "encode",
            partial(encode.encode_shard, known=known, sources=self.names, split=split),
            selected,
            depends=(known.name, self.names, split),
            after=(last,),
        )
        got = {int(group) % len(store.SPLITS) for group in _groups(encoding)}
        wanted = store.SPLITS if self.corpus.validation else store.SPLITS[:1]
        for index, name in enumerate(wanted):
            require(
                index in got,
                f"validation={self.corpus.validation} of {_left(counters)[0]} documents leaves no "
                f"{name} text: choose another share, or --split=tail to hold out a part of every "
                "document",
            )
        return encoding

    def _repeats(self, encoding: Stage, known: Path, counters: dict[str, Any]) -> Stage:
        length = self.corpus.dedup.substrings
        tokens = sum(count for _, count, _ in _groups(encoding).values())
        cutting = duplicates.repeats(self.flow, encoding, tokens, length, known)
        removed = [found["removed"] for found in cutting.results]
        counters["repeats"] = dict(
            zip(("stretches", "tokens", "parts"), map(sum, zip(*removed, strict=True)), strict=True)
        )
        return cutting

    def _write(self, encoding: Stage, known: tokenizer.Tokenizer) -> list[store.Shard]:
        cells: list[write.Cell] = []
        numbers: dict[int, tuple[int, int]] = {}
        groups = _groups(encoding)
        for split in store.SPLITS:
            number = 0
            for source, name in enumerate(self.names):
                group = encode.group(source, split)
                tokens = groups.get(str(group), [0, 0, 0])[1]
                count = -(-tokens // self.corpus.shard_tokens)
                numbers[group] = len(cells), count
                cells += [write.Cell(split, number + i, name) for i in range(count)]
                number += count
        dtype = store.dtype_for(known.vocab).str
        writing = self._final.group(
            "write",
            partial(write.send_parts, cells=numbers),
            partial(write.write_cell, cells=cells, folder=self.target, dtype=dtype),
            encoding.outs(),
            len(cells),
            depends=(cells, dtype, str(self.target)),
            after=(encoding,),
        )
        found = [result["shard"] for result in writing.results]
        return [store.Shard(**shard) for shard in found if shard is not None]


def _left(counters: dict[str, Any]) -> tuple[int, int]:
    """Documents and bytes that are left after all that has been counted."""
    kept = [count["kept"] for count in counters["selected"]["sources"].values()]
    gone = counters.get("duplicates", {}).values()
    documents, text_bytes = (
        sum(k[i] for k in kept) - sum(count[i] for count in gone) for i in range(2)
    )
    return documents, text_bytes


def _groups(encoding: Stage) -> dict[str, list[int]]:
    """[parts, tokens, text_bytes] of each group of a stage of encoded shards."""
    groups: dict[str, Any] = {}
    for found in encoding.results:
        select.add(groups, found["groups"])
    return groups


def _check_faults(faults: list[str], limit: int) -> None:
    for fault in faults[:20]:
        print(f"left out: {fault}")
    if len(faults) > 20:
        print(f"left out: {len(faults) - 20} more")
    if len(faults) > limit:
        several = f"{len(faults)} records or files" if limit else "a record or file"
        raise InputError(
            f"{several} could not be used, more than max_faults={limit}: mend what is wrong, or "
            f"raise max_faults; the first: {faults[0]}"
        )


def contents(*paths: str) -> list[str]:
    """Hashes of files that settings name; of no file, nothing. Raises InputError."""
    found = []
    for path in filter(None, paths):
        try:
            found.append(hashlib.sha256(place(path).read_bytes()).hexdigest())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    return found


def _is_trained(spec: str) -> bool:
    return spec.startswith(("bpe:", "unigram:"))
