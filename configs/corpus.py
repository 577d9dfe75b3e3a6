"""What a corpus is made of and how: typed, frozen, checked when it is made."""

from dataclasses import dataclass, field
from typing import Literal

from configs.schema import require

RULES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One origin of documents: a kind of reader and what it reads."""

    kind: str  # one of data.sources.KINDS
    pattern: str = ""  # a path or glob, also gs://; for tfds and huggingface a name; stdlib: empty
    name: str = ""  # how reports call it; empty: kind and pattern
    licence: str = ""  # of documents that do not state their own
    text: str = "text"  # the field that holds the text, of jsonl, parquet, tfds and huggingface


@dataclass(frozen=True, kw_only=True)
class GopherQuality:
    """Thresholds of Rae et al. 2021 (arXiv:2112.11446), appendix A1.1."""

    min_words: int = 50
    max_words: int = 100_000
    min_word_length: float = 3.0  # mean
    max_word_length: float = 10.0
    max_symbols: float = 0.1  # hashes, and ellipses, per word
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic: float = 0.8  # words with a letter
    min_stop_words: int = 2  # different ones among the, be, to, of, and, that, have, with


@dataclass(frozen=True, kw_only=True)
class GopherRepetition:
    """Thresholds of Rae et al. 2021, table A1. Shares of lines, paragraphs or characters."""

    lines: float = 0.3
    paragraphs: float = 0.3
    line_characters: float = 0.2
    paragraph_characters: float = 0.2
    top: tuple[float, ...] = (0.2, 0.18, 0.16)  # in the most frequent 2-, 3-, 4-gram
    duplicates: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)  # repeated 5- to 10-grams


@dataclass(frozen=True, kw_only=True)
class C4:
    """Rules of Raffel et al. 2020 (arXiv:1910.10683), section 2.2, as in TFDS's c4_utils."""

    terminal_punctuation: bool = True  # lines must end with . ? ! or "; FineWeb does without
    min_line_words: int = 5
    max_word_characters: int = 1000
    min_sentences: int = 3
    max_characters: int = 190_000


@dataclass(frozen=True, kw_only=True)
class FineWeb:
    """Thresholds of Penedo et al. 2024 (arXiv:2406.17557), section 3.6, as in datatrove."""

    min_punctuated_lines: float = 0.12  # lines that end with terminal punctuation
    max_short_lines: float = 0.67  # lines of at most 30 characters
    max_repeated_lines: float = 0.1  # characters in repeated lines; datatrove's code says 0.01
    max_newlines: float = 0.3  # newlines per word


@dataclass(frozen=True, kw_only=True)
class Pii:
    """What becomes of e-mail addresses, phone numbers and IP addresses."""

    action: Literal["keep", "replace"] = "keep"
    max_hits: int = 0  # a document with more is dropped; 0: none is


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Which documents are kept, and what is changed in them. All of it is off unless asked for."""

    repair: bool = False  # mend mojibake and broken Unicode (ftfy), one kind of newline
    languages: tuple[str, ...] = ()  # codes of those to keep, such as en; empty: all
    min_language_score: float = 0.65
    rules: tuple[str, ...] = ()  # of RULES
    c4_lines: bool = False  # drop the lines that C4 drops, before the rules c4 and fineweb
    gopher_quality: GopherQuality = field(default_factory=GopherQuality)
    gopher_repetition: GopherRepetition = field(default_factory=GopherRepetition)
    c4: C4 = field(default_factory=C4)
    fineweb: FineWeb = field(default_factory=FineWeb)
    pii: Pii = field(default_factory=Pii)
    words: str = ""  # a file with a word or phrase a line
    max_words: int = 0  # a document with more of them is dropped
    classifier: str = ""  # a model trained by python -m data.clean.classifier
    reject: str = ""  # its label to drop
    max_probability: float = 0.5  # of that label
    allow_licences: tuple[str, ...] = ()  # globs; empty: all, also unknown ones
    deny_licences: tuple[str, ...] = ()
    allow_domains: tuple[str, ...] = ()  # with those below them; empty: all, also unknown ones
    deny_domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for rule in self.rules:
            require(rule in RULES, f"clean.rules: {rule!r} is none of {', '.join(RULES)}")
        require(
            not self.reject or bool(self.classifier),
            f"clean.reject={self.reject!r} needs clean.classifier, the model that knows the label",
        )


@dataclass(frozen=True, kw_only=True)
class Dedup:
    """Which documents, and parts of documents, are there once only. All off unless asked for."""

    exact: bool = False
    fuzzy: bool = False  # MinHash over word n-grams
    ngram: int = 5
    bands: int = 14  # documents meet when one band of their signatures agrees ...
    rows: int = 8
    similarity: float = 0.7  # ... and join when this share of the whole signature does
    max_shingles: int = 20_000  # of one document; longer ones are known by that many
    substrings: int = 0  # tokens, such as 50: longer repeats are cut out of all but the first

    def __post_init__(self) -> None:
        require(min(self.ngram, self.bands, self.rows) > 0, "dedup: ngram, bands, rows: at least 1")
        require(0 < self.similarity <= 1, f"dedup.similarity={self.similarity}: in (0, 1]")
        require(
            self.substrings == 0 or self.substrings >= 16,
            f"dedup.substrings={self.substrings}: 0, or at least 16 tokens",
        )


@dataclass(frozen=True, kw_only=True)
class Decontaminate:
    """Evaluation sets that must not be in the corpus."""

    against: tuple[Source, ...] = ()
    ngram: int = 13  # words; one shared n-gram drops a document (Brown et al. 2020, appendix C)

    def __post_init__(self) -> None:
        require(self.ngram > 0, f"decontaminate.ngram={self.ngram} must be positive")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Text to token store."""

    sources: tuple[Source, ...]
    tokenizer: str  # bytes, chars, bpe:SIZE, unigram:SIZE, or the path of a .model file
    clean: Clean = field(default_factory=Clean)
    dedup: Dedup = field(default_factory=Dedup)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    validation: float = 0.01  # share held out
    split: Literal["auto", "documents", "tail"] = "auto"  # whole documents, or each one's tail
    tokenizer_bytes: int = 50_000_000  # text the tokenizer is trained on, at most
    max_document_bytes: int = 256_000_000  # a longer document is left out as a fault
    max_faults: int = 100  # records and files that cannot be read; one more ends the build
    shard_tokens: int = 100_000_000  # of the store, about
    documents: bool = False  # keep the documents too, as Parquet in the folder of the store
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.sources) > 0, "a corpus needs at least one source")
        require(0 <= self.validation < 1, f"validation={self.validation} must lie in [0, 1)")
        require(self.shard_tokens > 0, f"shard_tokens={self.shard_tokens} must be positive")
