"""Statistics of documents that the quality rules need, of many documents at once.

`measure` joins the documents to one array of code points and computes every statistic of every
document with passes over that array. None depends on a threshold: data/clean/rules.py has those.
Words are those of data/clean/wordsplit.py. Those that are nothing but marks (punctuation, symbols,
control characters) are words for ratios "per word" and for "alphabetic_words", as in datatrove, but
not for the count of words, their mean length and n-grams.

Where this differs from datatrove's filters, on purpose:
- words: no list of emoticons, units and contractions without apostrophe;
- marks: by Unicode's categories, so that a bullet or an emoji is no word;
- repeated n-grams: the characters of words in n-grams that occur twice, at every occurrence, each
  word once, over those of all words (Rae et al. 2021, A1.1, as RedPajama reads it); datatrove
  leaves the first occurrence and what overlaps out, and divides by all characters;
- the top n-gram: the most frequent one that occurs twice, the longest of several, over the
  characters of words; datatrove takes one also where none occurs twice, so few words never pass;
- repeated lines: empty ones do not count; datatrove counts that before or after all newlines.

Legend of suffixes: c per code point, t per word or mark, w per word, l per line, d per document.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data.clean import wordsplit
from data.order import splitmix64

TOP = (2, 3, 4)  # lengths of the n-grams whose most frequent one is measured
DUPLICATE = (5, 6, 7, 8, 9, 10)  # and of those whose repeats are
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
SHORT_LINE = 30  # characters
_BLOCK = 2**18  # characters at a time: bounds the memory, and stays near the processor


@dataclass(frozen=True)
class _Text:
    """Documents joined, with a newline before each and after the last, and a space."""

    texts: list[str]
    chars_c: np.ndarray
    flags_c: np.ndarray
    start_d: np.ndarray
    stop_d: np.ndarray
    chunk: wordsplit.Spans
    hashes: wordsplit.Hashes

    def documents(self, at: np.ndarray) -> np.ndarray:
        """Which document each of the positions lies in, or on the newline after."""
        return np.searchsorted(self.stop_d, at)

    def count(self, documents: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """How often each document is among `documents`, or the sum of the weights there."""
        return np.bincount(documents, weights, minlength=len(self.texts))

    def occurrences(self, what: str) -> np.ndarray:
        """How often each document has the string."""
        return np.fromiter((text.count(what) for text in self.texts), np.int64, len(self.texts))


def measure(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """The statistics of each document, each [documents]: int32 what is counted, else float32.

    Lengths are in characters (code points). Shares of nothing are 0. Takes about 50 bytes of
    memory a character of the longest document, or of 250,000 of them.

    Raises:
        UnicodeEncodeError: a text has lone surrogates.
    """
    columns = [_measure(block) for block in _blocks(texts)]
    return {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    """The documents in lists of about _BLOCK characters; one empty list if there are none."""
    block: list[str] = []
    size = 0
    for text in texts:
        if block and size + len(text) > _BLOCK:
            yield block
            block, size = [], 0
        block.append(text)
        size += len(text)
    yield block


def _measure(texts: list[str]) -> dict[str, np.ndarray]:
    characters_d = np.fromiter(map(len, texts), np.int64, len(texts))
    joined = "\n" + "".join(text + "\n" for text in texts) + " "  # so that neighbours exist
    chars_c = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
    flags_c = wordsplit.flags(chars_c)
    stop_d = np.cumsum(characters_d + 1)
    chunk, hashes = wordsplit.chunks(flags_c), wordsplit.hasher(chars_c)
    text = _Text(texts, chars_c, flags_c, stop_d - characters_d, stop_d, chunk, hashes)
    columns = {"characters": characters_d} | _words(text) | _lines(text) | _newline_lines(text)
    return {
        name: column.astype(np.int32 if column.dtype.kind in "iu" else np.float32)
        for name, column in columns.items()
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, 1)


def _words(text: _Text) -> dict[str, np.ndarray]:
    """What depends on words: all n-grams, Gopher's quality, sentences."""
    start_t, stop_t = wordsplit.split(text.chars_c, text.flags_c, text.chunk, text.hashes)
    flags_t = np.bitwise_or.reduceat(text.flags_c, start_t) if start_t.size else start_t
    hash_t = text.hashes(start_t, stop_t)
    tokens_d = np.searchsorted(start_t, text.stop_d) - np.searchsorted(start_t, text.start_d)
    doc_t = np.repeat(np.arange(len(text.texts)), tokens_d)
    known = [text.count(doc_t[hash_t == hash_]) > 0 for hash_ in wordsplit.hashes_of(STOP_WORDS)]
    is_word = flags_t & wordsplit.WORDLIKE != 0
    doc_w, hash_w, chars_w = doc_t[is_word], hash_t[is_word], (stop_t - start_t)[is_word]
    words_d, total_d = text.count(doc_w), text.count(doc_w, chars_w)
    ellipses_d = text.occurrences("...") + text.occurrences("\u2026")
    return {
        "words": words_d,
        "mean_word_length": _share(total_d, words_d),
        "hash_per_word": _share(text.occurrences("#"), tokens_d),
        "ellipsis_per_word": _share(ellipses_d, tokens_d),
        "alphabetic_words": _share(text.count(doc_t[flags_t & wordsplit.LETTER != 0]), tokens_d),
        "stop_words": np.sum(known, axis=0),
        "newlines_per_word": _share(text.occurrences("\n"), tokens_d),
        "sentences": _sentences(text, start_t, stop_t, flags_t),
    } | _ngrams(doc_w, hash_w, chars_w, total_d)


def _ngrams(
    doc_w: np.ndarray, hash_w: np.ndarray, chars_w: np.ndarray, total_d: np.ndarray
) -> dict[str, np.ndarray]:
    """Shares of the characters of words in the top n-gram, and in those that occur twice.

    An n-gram occurs twice only where the two shorter ones in it do, so that each n sorts what the
    one before has left, which soon is little.
    """
    columns = {}
    prefix_w = np.concatenate([[0], np.cumsum(chars_w)])
    at = np.flatnonzero(doc_w[1:] == doc_w[:-1])
    keys = hash_w[at] + splitmix64(doc_w[at].astype(np.uint64))
    for n in range(2, DUPLICATE[-1] + 1):
        keys = splitmix64(keys) + hash_w[at + n - 1]
        order = np.argsort(keys)
        first = np.flatnonzero(np.concatenate([[True], np.diff(keys[order]) != 0])[: at.size])
        count = np.diff(np.append(first, at.size))
        twice = np.repeat(count > 1, count)
        if n in TOP:
            top = at[order[first[count > 1]]]
            ranked = (count[count > 1] << 32) + prefix_w[top + n] - prefix_w[top]
            best_d = np.zeros(total_d.size, np.int64)
            np.maximum.at(best_d, doc_w[top], ranked)
            columns[f"top_{n}gram"] = _share((best_d >> 32) * (best_d & 0xFFFFFFFF), total_d)
        keep = np.sort(order[twice])
        at, keys = at[keep], keys[keep]
        if n in DUPLICATE:
            # Where n-grams overlap, the words of the one before are left out.
            from_ = np.maximum(at, np.concatenate([[0], at + n])[: at.size])
            covered_d = np.bincount(doc_w[at], prefix_w[at + n] - prefix_w[from_], total_d.size)
            columns[f"duplicate_{n}gram"] = _share(covered_d, total_d)
        longer = np.append(at[1:] == at[:-1] + 1, False)[: at.size]
        at, keys = at[longer], keys[longer]
    return columns


def _sentences(
    text: _Text, start_t: np.ndarray, stop_t: np.ndarray, flags_t: np.ndarray
) -> np.ndarray:
    """Sentences of each document: one a line, one more at each word after a full stop in it.

    As spaCy's sentencizer: the word follows . ! ? or other terminal punctuation, and punctuation
    (quotes, brackets, an ellipsis) may stand between.
    """
    ends_t = (flags_t & wordsplit.TERMINAL != 0) & (stop_t - start_t == 1)
    weighty = np.flatnonzero(ends_t | (flags_t & wordsplit.NO_PUNCTUATION != 0))
    follows = np.flatnonzero(ends_t[weighty[:-1]] & ~ends_t[weighty[1:]])
    breaks = np.flatnonzero(text.flags_c & wordsplit.BREAK != 0)
    end, start = start_t[weighty[follows]], start_t[weighty[follows + 1]]
    same_line = np.searchsorted(breaks, end) == np.searchsorted(breaks, start)
    lines = np.flatnonzero(np.diff(np.searchsorted(text.chunk[0], breaks))) + 1  # not blank
    return text.count(text.documents(start[same_line])) + text.count(text.documents(breaks[lines]))


def _ends(text: _Text, start_l: np.ndarray, stop_l: np.ndarray) -> wordsplit.Spans:
    """Positions of the first character of each line that is no space, and after the last one.

    A line with spaces alone has its stop and its start.
    """
    start_k, stop_k = text.chunk
    first_l = np.append(start_k, text.chars_c.size)[np.searchsorted(start_k, start_l)]
    last_l = np.concatenate([[0], stop_k])[np.searchsorted(stop_k, stop_l, "right")]
    return np.minimum(first_l, stop_l), np.maximum(last_l, start_l)


def _lines(text: _Text) -> dict[str, np.ndarray]:
    """Shares of the lines, as str.splitlines has them, that have bullets or end in an ellipsis."""
    chars_c = text.chars_c
    breaks = np.flatnonzero(text.flags_c & wordsplit.BREAK != 0)
    breaks = breaks[(chars_c[breaks] != ord("\r")) | (chars_c[breaks + 1] != ord("\n"))]
    start_l, stop_l = breaks[:-1] + 1, breaks[1:]
    doc_l = text.documents(start_l)
    some = (start_l < stop_l) | (stop_l < text.stop_d[doc_l])  # no line follows the last break
    start_l, stop_l, doc_l = start_l[some], stop_l[some], doc_l[some]
    first_l, last_l = _ends(text, start_l, stop_l)
    bullet_l = (first_l < stop_l) & np.isin(chars_c[first_l], (ord("-"), 0x2022))
    dots_l = np.ones(last_l.size, bool)
    for back in (1, 2, 3):  # in a shorter line, a break is among them
        dots_l &= chars_c[last_l - back] == ord(".")
    ellipsis_l = dots_l | (chars_c[last_l - 1] == 0x2026)
    lines_d = text.count(doc_l)
    return {
        "bullet_lines": _share(text.count(doc_l[bullet_l]), lines_d),
        "ellipsis_lines": _share(text.count(doc_l[ellipsis_l]), lines_d),
    }


def _newline_lines(text: _Text) -> dict[str, np.ndarray]:
    """What depends on lines between newlines and on paragraphs between empty lines."""
    newlines = np.flatnonzero(text.chars_c == ord("\n"))
    start_l, stop_l = newlines[:-1] + 1, newlines[1:]
    doc_l, full_l = text.documents(start_l), start_l < stop_l
    last_of_d = stop_l == text.stop_d[doc_l]
    starts = full_l & np.concatenate([[True], (~full_l | last_of_d)[:-1]])[: full_l.size]
    stops = full_l & (np.append(~full_l[1:], True)[: full_l.size] | last_of_d)
    first_d, last_d = _ends(text, text.start_d, text.stop_d)
    doc_p = doc_l[starts]
    start_p = np.maximum(start_l[starts], first_d[doc_p])
    stop_p = np.minimum(stop_l[stops], last_d[doc_p])
    inside = start_p < stop_p  # neither before the first word of the document nor after the last
    start_p, stop_p, doc_p = start_p[inside], stop_p[inside], doc_p[inside]

    start_l, stop_l, doc_l = start_l[full_l], stop_l[full_l], doc_l[full_l]
    written_l = _ends(text, start_l, stop_l)[0] < stop_l
    later_l, later_p = _later(text, start_l, stop_l, doc_l), _later(text, start_p, stop_p, doc_p)
    chars_l, chars_p = stop_l - start_l, stop_p - start_p
    characters_d = text.stop_d - text.start_d
    lines_d = text.count(doc_l[written_l])
    printed_d = characters_d - text.occurrences("\n")
    ends_l = written_l & (text.flags_c[stop_l - 1] & wordsplit.TERMINAL != 0)
    repeated_l = written_l & later_l
    repeated_d = text.count(doc_l[repeated_l], chars_l[repeated_l])
    lower = [text_.lower() for text_ in text.texts]
    return {
        "lines": lines_d,
        "duplicate_lines": _share(text.count(doc_l[later_l]), text.count(doc_l)),
        "duplicate_line_characters": _share(
            text.count(doc_l[later_l], chars_l[later_l]), characters_d
        ),
        "duplicate_paragraphs": _share(text.count(doc_p[later_p]), text.count(doc_p)),
        "duplicate_paragraph_characters": _share(
            text.count(doc_p[later_p], chars_p[later_p]), characters_d
        ),
        "punctuated_lines": _share(text.count(doc_l[ends_l]), lines_d),
        "short_lines": _share(text.count(doc_l[written_l & (chars_l <= SHORT_LINE)]), lines_d),
        "repeated_line_characters": _share(repeated_d, printed_d),
        "curly_braces": text.occurrences("{"),
        "lorem_ipsum": np.fromiter((t.count("lorem ipsum") for t in lower), np.int64, len(lower)),
    }


def _later(text: _Text, start: np.ndarray, stop: np.ndarray, doc: np.ndarray) -> np.ndarray:
    """Which spans of characters equal one that comes before them in the same document."""
    keys = text.hashes(start, stop) + splitmix64(doc.astype(np.uint64))
    order = np.argsort(keys, kind="stable")
    later = np.zeros(start.size, bool)
    later[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return later
