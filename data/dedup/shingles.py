"""Word n-grams as 64-bit hashes: what MinHash and contamination compare texts by.

Both work on arrays of characters, not on strings. A table maps every code point to its folded one;
words are what lies between spaces; a word's hash is a polynomial in its characters, an n-gram's a
polynomial in the hashes of its words, both modulo 2**64 and taken from prefix sums:

    prefix[i] = sum of x[j] * base**j, j < i
    hash of x[a:b] = (prefix[b] - prefix[a]) * base**-a

so that a text costs a fixed number of passes whatever n is. Each hash is mixed afterwards, as the
low bits of such a polynomial depend on the low bits of its terms alone.

Letters after an underscore: c character, w word, g n-gram, d document, p piece of a document.
"""

import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Literal

import numpy as np

from data.order import splitmix64

Fold = Literal["fineweb", "gpt3"]

_DROPPED, _SPACE, _DIGIT = 0, 32, 48
_BATCH = 1 << 17  # characters: what their passes need stays in the processor's cache
_PIECE = 1 << 20  # of a longer document, so that memory follows its words and not its characters
_CHARACTER_BASE, _WORD_BASE = 0x8BB84B93962EACC9, 0xD1342543DE82EF95  # odd, so they have inverses
_IDEOGRAPHS = (  # with kana: scripts without spaces, of which each character is a word
    (0x3040, 0x3100),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x40000),
)


def batches(texts: list[str]) -> Iterator[slice]:
    """Slices of `texts` of enough characters to make vectors of, and few enough for the cache."""
    start = characters = 0
    for stop, text in enumerate(texts, 1):
        characters += len(text)
        if characters >= _BATCH or stop == len(texts):
            yield slice(start, stop)
            start, characters = stop, 0


def words(texts: list[str], fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words of all texts, uint64 [words], and where texts end in them, int64 [texts].

    `fold` says what is equal. All: case, canonical Unicode forms, invisible format characters, and
    what kind of whitespace. "fineweb": also numbers, accents and punctuation, which separates words
    (Penedo et al. 2024, as in datatrove; a decimal part is a number of its own here, and every
    Unicode punctuation mark and symbol counts). "gpt3": punctuation and symbols vanish, so that
    "don't" is "dont" (Brown et al. 2020, appendix C). An ideograph or kana is a word.
    """
    hashes: list[np.ndarray] = []
    counts_d = np.zeros(len(texts), np.int64)
    for part in batches(texts):
        pieces, documents_p = [], []
        for document in range(part.start, part.stop):
            for piece in _pieces(texts[document]):
                pieces.append(piece)
                documents_p.append(document)
        if len(pieces) > part.stop - part.start:  # a long one: piece by piece
            groups = [slice(i, i + 1) for i in range(len(pieces))]
        else:
            groups = [slice(0, len(pieces))]
        for group in groups:
            hashes_w, counts_p = _hash_words(pieces[group], fold)
            hashes.append(hashes_w)
            np.add.at(counts_d, documents_p[group], counts_p)
    return np.concatenate([np.zeros(0, np.uint64), *hashes]), np.cumsum(counts_d)


def grams(
    hashes_w: np.ndarray, ends_d: np.ndarray, n: int, short: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all n-grams, uint64 [n-grams], and where texts end in them, int64 [texts].

    `hashes_w` and `ends_d` are of `words`. A text of fewer than `n` words has no n-gram; with
    `short`, all its words together are one, if there are any.
    """
    words_d = np.diff(ends_d, prepend=0)
    length_d = np.minimum(words_d, n) if short else np.full_like(words_d, n)
    grams_d = np.where(words_d > 0, np.maximum(words_d - length_d + 1, 0), 0)
    ends_g = np.cumsum(grams_d)
    starts_g = np.arange(grams_d.sum()) + np.repeat(ends_d - words_d - (ends_g - grams_d), grams_d)
    stops_g = starts_g + np.repeat(length_d, grams_d)
    hashes_g = np.empty(len(starts_g), np.uint64)
    for first in range(0, len(starts_g), _BATCH):
        part = slice(first, first + _BATCH)
        low, high = starts_g[first], stops_g[part][-1]
        hashes_g[part] = _ranges(
            hashes_w[low:high], starts_g[part] - low, stops_g[part] - low, _WORD_BASE
        )
    return hashes_g, ends_g


def _pieces(text: str) -> Iterator[str]:
    """A text in parts of bounded length, cut at whitespace where there is any."""
    start = 0
    while len(text) - start > _PIECE:
        stop = start + _PIECE
        stop = max(text.rfind(" ", start, stop), text.rfind("\n", start, stop)) + 1 or stop
        yield _composed(text[start:stop])
        start = stop
    yield _composed(text[start:])


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _hash_words(pieces: list[str], fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of words, uint64 [words], and how many each piece has, int64 [pieces]."""
    joined = "\n".join(["", *pieces, ""])
    codes_c = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    folded_c = np.take(_table(fold), codes_c)
    ends_p = np.cumsum([len(piece) + 1 for piece in pieces])
    dropped_c = folded_c == _DROPPED
    if fold == "fineweb":  # a number is one zero
        digit_c = folded_c == _DIGIT
        dropped_c[1:] |= digit_c[1:] & digit_c[:-1]
    if dropped_c.any():
        kept_c = ~dropped_c
        ends_p = np.cumsum(kept_c)[ends_p] - 1
        folded_c = folded_c[kept_c]
    word_c = folded_c != _SPACE
    if codes_c.max() < _IDEOGRAPHS[0][0]:
        edges = np.flatnonzero(word_c[1:] != word_c[:-1]) + 1
        starts_w, stops_w = edges[::2], edges[1::2]
    else:
        alone_c = np.zeros(len(word_c), bool)
        for low, high in _IDEOGRAPHS:
            alone_c |= (folded_c >= low) & (folded_c < high)
        edge_c = (word_c[1:] != word_c[:-1]) | alone_c[1:] | alone_c[:-1]
        starts_w = np.flatnonzero(edge_c & word_c[1:]) + 1
        stops_w = np.flatnonzero(edge_c & word_c[:-1]) + 1
    counts_p = np.diff(np.searchsorted(starts_w, ends_p), prepend=0)
    return _ranges(folded_c, starts_w, stops_w, _CHARACTER_BASE), counts_p


def _ranges(x: np.ndarray, starts: np.ndarray, stops: np.ndarray, base: int) -> np.ndarray:
    """Hashes of the ranges [start, stop) of `x`, uint64."""
    powers, inverses = powers_of(base, 1 << len(x).bit_length())
    prefix = np.zeros(len(x) + 1, np.uint64)
    np.cumsum(x * powers[: len(x)], out=prefix[1:])
    return splitmix64((prefix[stops] - prefix[starts]) * inverses[starts])


@cache
def powers_of(base: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` powers of `base` and of its inverse modulo 2**64, uint64."""
    powers = np.full((2, count), 1, np.uint64)
    powers[0, 1:], powers[1, 1:] = base, pow(base, -1, 2**64)
    powers, inverses = np.cumprod(powers, axis=1, dtype=np.uint64)
    return powers, inverses


@cache
def _table(fold: Fold) -> np.ndarray:
    """The folded code point of every code point, uint32: one character is one, or is dropped."""
    table = np.arange(0x110000, dtype=np.uint32)
    for low, high in ((0, 0x20000), (0xE0000, 0xE0200)):  # between: ideographs and unassigned
        table[low:high] = [_folded(chr(code), fold) for code in range(low, high)]
    return table


def _folded(character: str, fold: Fold) -> int:
    category = unicodedata.category(character)
    if category[0] == "Z" or category in ("Cc", "Cs"):
        return _SPACE
    if category == "Cf" or (category == "Mn" and fold == "fineweb"):
        return _DROPPED
    if category[0] in "PS":
        return _SPACE if fold == "fineweb" else _DROPPED
    if category == "Nd" and fold == "fineweb":
        return _DIGIT
    lower = character.lower()
    if fold == "gpt3":
        return ord(lower[0])
    letters = [c for c in unicodedata.normalize("NFD", lower) if unicodedata.category(c) != "Mn"]
    # Several: a syllable or vowel sign that composes again, which NFC has done.
    return ord(letters[0]) if len(letters) == 1 else ord(lower[0])
