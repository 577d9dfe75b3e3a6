"""The first reading of a corpus: what it holds, and what of it is held out.

Whatever is wrong with a document comes to light here, before any token is written.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from configs.schema import Corpus, InputError, require
from data import order, sources, store, tokenizer
from data.progress import Progress

MANY_DOCUMENTS = 1_000  # from here on, whole documents are held out
_CHUNK = 4_096  # characters the tokenizer's sample takes or leaves together


@dataclass(frozen=True)
class Part:
    """A document, or the part of one, that goes into one split."""

    split: str
    source: str
    text: str


@dataclass
class Survey:
    """What is known of a corpus after reading it once."""

    documents: int = 0
    empty: int = 0  # documents without text, which are left out
    text_bytes: int = 0
    splits: set[str] = field(default_factory=set)  # that got any text
    characters: set[str] = field(default_factory=set)  # where the tokenizer wants them
    sample: list[str] = field(default_factory=list)  # of training text, likewise


def documents(corpus: Corpus) -> Iterator[sources.Document]:
    """The documents of all sources, one source after another."""
    for source in corpus.sources:
        yield from sources.documents(source, corpus.max_document_bytes)


def choose_split(corpus: Corpus) -> tuple[str, str]:
    """How to hold text out, "documents" or "tail", and why."""
    if corpus.split != "auto":
        return corpus.split, "as asked for"
    found = sum(1 for _ in islice(documents(corpus), MANY_DOCUMENTS))
    if found == MANY_DOCUMENTS:
        return "documents", f"for there are at least {MANY_DOCUMENTS:,} documents"
    return "tail", f"for there are {found:,} documents, fewer than {MANY_DOCUMENTS:,}"


def parts(corpus: Corpus, split: str, document: sources.Document) -> list[Part]:
    """What of a document is for training and what is held out; empty parts are left out."""
    train, validation = store.SPLITS
    if split == "documents":
        drawn = order.key(corpus.seed, "split", document.id) / 2**64
        cut = 0 if drawn < corpus.validation else len(document.text)
    else:
        cut = int(len(document.text) * (1 - corpus.validation))
    texts = {train: document.text[:cut], validation: document.text[cut:]}
    return [Part(name, document.source, text) for name, text in texts.items() if text]


def survey(corpus: Corpus, split: str) -> Survey:
    """Read everything once. Raises InputError for what cannot be used, such as an empty corpus."""
    seen = Survey()
    sample = _Sample(corpus.tokenizer_bytes)
    progress = Progress("reading")
    for source in corpus.sources:
        before = seen.text_bytes
        for document in sources.documents(source, corpus.max_document_bytes):
            text_bytes = len(document.text.encode())
            seen.documents += 1
            seen.empty += not document.text
            seen.text_bytes += text_bytes
            if corpus.tokenizer == "chars":
                seen.characters.update(document.text)
            for part in parts(corpus, split, document):
                seen.splits.add(part.split)
                if part.split == "train" and corpus.tokenizer.startswith(("bpe:", "unigram:")):
                    sample.offer_all(tokenizer.chunks(part.text, _CHUNK), corpus.seed, document.id)
            progress.add(text_bytes)
        require(
            seen.text_bytes > before,
            f"the source {sources.name(source)} holds no text: check what it points to",
        )
    wanted = set(store.SPLITS if corpus.validation else store.SPLITS[:1])
    for empty in sorted(wanted - seen.splits):
        raise InputError(
            f"validation={corpus.validation} of {seen.documents} documents leaves no {empty} text: "
            "choose another share, or --split=tail to hold out a part of every document"
        )
    seen.sample = sample.texts()
    return seen


class _Sample:
    """A random sample of at most `size` bytes out of any number of texts: those of lowest key."""

    def __init__(self, size: int) -> None:
        self._room = size
        self._offered = 0
        self._heap: list[tuple[int, int, str]] = []  # (-key, when offered, text)

    def offer_all(self, texts: Iterable[str], *name: object) -> None:
        """Take texts into the sample, at the cost of others if need be. `name` draws the keys."""
        for number, text in enumerate(texts):
            self._offered += 1
            heapq.heappush(self._heap, (-order.key(*name, number), self._offered, text))
            self._room -= len(text.encode())
            while self._room < 0:
                self._room += len(heapq.heappop(self._heap)[2].encode())

    def texts(self) -> list[str]:
        """The sample in the order in which it was offered."""
        return [text for _, _, text in sorted(self._heap, key=lambda entry: entry[1])]
