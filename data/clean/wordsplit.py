"""Words of many documents at once: what characters are, where words are, and their hashes.

Words are those of spaCy's English tokenizer, by the characters alone. Spaces part words. Off the
ends of what lies between spaces, marks are cut one by one (dots in a row are one), and n't, 's, 'll
and the like. Inside, a word parts at hyphens between letters, at : < > = / before a letter, at a
comma between letters, at arithmetic between digits, at symbols and at dots in a row, but not in a
word that starts like an address. A full stop after an abbreviation stays with it.

Legend of suffixes: c per code point, k per chunk (what lies between spaces).
"""

import functools
import unicodedata
from collections.abc import Callable

import numpy as np

from data.order import GOLDEN, splitmix64

Hashes = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of what lies between starts and stops
Spans = tuple[np.ndarray, np.ndarray]  # starts and stops, int64

_INVERSE = pow(GOLDEN, -1, 2**64)  # GOLDEN is odd

_FLAGS = tuple(1 << bit for bit in range(18))
(SPACE, BREAK, LETTER, UPPER, LOWER, DIGIT, WORDLIKE, TERMINAL, NO_PUNCTUATION) = _FLAGS[:9]
(_LEADING, _TRAILING, _MARK, _QUOTE, _SYMBOL, _HYPHEN, _JOINER, _SIGN, _AMOUNT) = _FLAGS[9:]

# Ranges of the code points that have Unicode's property Sentence_Terminal, in hexadecimal.
_TERMINAL = """21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368
166e 1735-1736 17d4-17d6 17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e
1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877
a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57
10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd 111de-111df
11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11944
11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 16b37-16b38
16b44 16e98 1bc9f 1da88"""
# Marks that are words of their own at the ends of others, in the same notation.
_MARKS = """21 23 26 28-2a 2c 3a-3c 3e 3f 5b 5d 5f 7b 7d a1 b7 bf 60c 61b 61f 66a 6d4 964 2026 3001
3002 ff01 ff0c ff1a ff1b ff1f ff5e"""
_QUOTES = "22 27 60 ab b4 bb 2018-201e 3008-3011 3014-3015 ff08-ff09"
_DASHES = "2013-2014"
_HYPHENS = "2d 7e 2013-2014"

_ABBREVIATIONS = """a.m. p.m. e.g. i.e. E.g. I.e. v.s. vs. co. Co. Corp. Inc. Ltd. Bros. Mr. Mrs.
Ms. Dr. Prof. St. Mt. Jr. Gen. Gov. Adm. Sen. Rep. Rev. Messrs. Mo. Md. Mont. Jan. Feb. Mar. Apr.
Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Ill.
Ind. Kan. Ky. La. Mass. Mich. Minn. Miss. Neb. Nev. Okla. Ore. Pa. Tenn. Va. Wash. Wis. Ph.D."""
_CLITICS = ("'s", "'S", "'d", "'ll", "'re", "'em")  # that stand alone, in text already split
_ADDRESSES = ("http", "ftp:", "www.")
_DOT, _COMMA, _PLUS, _MINUS = map(ord, ".,+-")
_BEFORE_DOT = np.array([*map(ord, "%+-\u00b2")], np.uint32)
_APOSTROPHES = np.array([*map(ord, "'\u2019")], np.uint32)


@functools.cache
def _codes(ranges: str) -> frozenset[int]:
    """The code points of ranges in hexadecimal, such as "21 3a-3b"."""
    ends = ([int(end, 16) for end in item.split("-")] for item in ranges.split())
    return frozenset(code for end in ends for code in range(end[0], end[-1] + 1))


@functools.lru_cache(2**16)
def _flags_of(code: int) -> int:
    """What a character is: the constants above, or-ed."""
    char, category = chr(code), unicodedata.category(chr(code))
    if char.isspace():
        return SPACE | BREAK * (len(f"a{char}a".splitlines()) == 2)
    letter, quote = char.isalpha(), code in _codes(_QUOTES)
    mark = quote or code in _codes(_MARKS)
    alone = mark or category == "So" or code in _codes(_DASHES)  # a word of its own at either end
    money = category == "Sc"
    return (
        LETTER * letter
        | UPPER * (letter and not char.islower())  # also letters of scripts without case
        | LOWER * (letter and not char.isupper())
        | DIGIT * (char in "0123456789")
        | WORDLIKE * (category[0] not in "PSC")
        | TERMINAL * (code in _codes(_TERMINAL))
        | NO_PUNCTUATION * (category[0] != "P")
        | _LEADING * (alone or money or char in "%=+\u00a7")
        | _TRAILING * alone
        | _MARK * mark
        | _QUOTE * quote
        | _SYMBOL * (category == "So" or char == "\u2026")
        | _HYPHEN * (code in _codes(_HYPHENS))
        | _JOINER * (char in ":<>=/")
        | _SIGN * (char in "+-*^")
        | _AMOUNT * (money or char in "+%")
    )


def flags(chars_c: np.ndarray) -> np.ndarray:
    """What each code point of `chars_c` (uint32) is, uint32: SPACE, LETTER and so on, or-ed."""
    seen = np.zeros(int(chars_c.max(initial=0)) + 1, bool)
    seen[chars_c] = True
    codes = np.flatnonzero(seen)  # each different character is looked up once
    table = np.zeros(seen.size, np.uint32)
    table[codes] = [_flags_of(code) for code in codes.tolist()]
    return table[chars_c]


def hasher(chars_c: np.ndarray) -> Hashes:
    """A function from starts and stops in `chars_c` to uint64 hashes of what lies between.

    Equal strings have equal hashes, in whatever text: polynomials of the code points in an odd
    base modulo 2**64, as differences of prefix sums times a power of the inverse of the base.
    """
    powers_c = np.full(chars_c.size, GOLDEN, np.uint64)
    powers_c[:1] = 1
    prefix_c = np.zeros(chars_c.size + 1, np.uint64)
    mixed_c = splitmix64(chars_c.astype(np.uint64))
    np.cumsum(mixed_c * np.cumprod(powers_c), out=prefix_c[1:])
    powers_c[1:] = _INVERSE
    inverse_c = np.cumprod(powers_c)

    def hashes(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        return splitmix64((prefix_c[stop] - prefix_c[start]) * inverse_c[start])

    return hashes


@functools.cache
def hashes_of(words: tuple[str, ...]) -> np.ndarray:
    """The hashes of these words, uint64 [words]."""
    stop = np.cumsum([len(word) for word in words])
    hashes = hasher(np.frombuffer("".join(words).encode("utf-32-le"), np.uint32))
    return hashes(np.concatenate([[0], stop[:-1]]), stop)


def chunks(flags_c: np.ndarray) -> Spans:
    """Where what lies between spaces starts and stops; the first and last character are spaces."""
    space_c = flags_c & SPACE != 0
    change = np.flatnonzero(space_c[1:] != space_c[:-1]) + 1
    return change[0::2], change[1::2]


def split(chars_c: np.ndarray, flags_c: np.ndarray, chunk: Spans, hashes: Hashes) -> Spans:
    """Where words start and stop, in order.

    Args:
        chars_c: code points, uint32; the first and the last two are spaces.
        flags_c: what `flags` says of them.
        chunk: what `chunks` says of those.
        hashes: the `hasher` of the characters.
    """
    start_k, stop_k = chunk
    core_start_k, core_stop_k = _cores(chars_c, flags_c, chunk)
    ends = np.flatnonzero((chars_c[core_stop_k] == _DOT) & (core_stop_k > core_start_k))
    from_, to = core_start_k[ends], core_stop_k[ends]
    one_letter = (to - from_ == 1) & (flags_c[from_] & LETTER != 0)
    known = np.isin(hashes(from_, to + 1), hashes_of(tuple(_ABBREVIATIONS.split())))
    core_stop_k[ends[(one_letter | known) & (chars_c[to + 1] != _DOT)]] += 1

    some = np.flatnonzero(chars_c[start_k] == _APOSTROPHES[0])
    known = np.isin(hashes(start_k[some], core_stop_k[some]), hashes_of(_CLITICS))
    core_start_k[some[known]] = start_k[some[known]]

    part_c = np.zeros(chars_c.size + 1, bool)  # a word starts here, or stops before
    for at in (start_k, stop_k, core_start_k, core_stop_k):
        part_c[at] = True
    cut = np.concatenate([_ranges(start_k, core_start_k), _ranges(core_stop_k, stop_k)])
    part_c[cut[(chars_c[cut] != _DOT) | (chars_c[cut - 1] != _DOT)]] = True
    _contractions(chars_c, start_k, (core_start_k, core_stop_k), part_c)
    _inside(chars_c, flags_c, core_start_k, part_c)
    at = np.flatnonzero(part_c)
    is_word = flags_c[at] & SPACE == 0
    return at[is_word], at[1:][is_word[:-1]]


def _ranges(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """All integers of the ranges [start, stop), one range after the other."""
    size = stop - start
    return np.repeat(stop - np.cumsum(size), size) + np.arange(size.sum())


def _cores(chars_c: np.ndarray, flags_c: np.ndarray, chunk: Spans) -> Spans:
    """Where chunks start and stop without the marks at their ends."""
    start_k, stop_k = chunk
    leading_c, trailing_c = flags_c & _LEADING != 0, flags_c & _TRAILING != 0
    at = np.flatnonzero(chars_c == _DOT)
    before = flags_c[at - 1]
    closes = before & (LOWER | DIGIT | _MARK) != 0
    closes |= before & flags_c[at - 2] & UPPER != 0
    closes |= np.isin(chars_c[at - 1], _BEFORE_DOT)
    leading_c[at] = (chars_c[at - 1] == _DOT) | (chars_c[at + 1] == _DOT)
    trailing_c[at] = leading_c[at] | closes
    at = np.flatnonzero(flags_c & _AMOUNT != 0)
    trailing_c[at] = flags_c[at - 1] & DIGIT != 0
    at = at[chars_c[at] == _PLUS]
    leading_c[at] = flags_c[at + 1] & DIGIT == 0

    core_start_k, core_stop_k = start_k.copy(), stop_k.copy()
    some = np.flatnonzero(leading_c[start_k])
    others = np.flatnonzero(~leading_c)
    core_start_k[some] = others[np.searchsorted(others, start_k[some])]
    some = np.flatnonzero(trailing_c[stop_k - 1])
    others = np.flatnonzero(~trailing_c)
    core_stop_k[some] = others[np.searchsorted(others, stop_k[some]) - 1] + 1
    return core_start_k, np.maximum(core_stop_k, core_start_k)


def _contractions(
    chars_c: np.ndarray, start_k: np.ndarray, core: Spans, part_c: np.ndarray
) -> None:
    """Parts n't and 's, 'm, 'd, 'll, 're, 've off the ends of cores."""
    at = np.flatnonzero((chars_c == _APOSTROPHES[0]) | (chars_c == _APOSTROPHES[1]))
    k = np.searchsorted(start_k, at, "right") - 1
    inside, left = at - core[0][k], core[1][k] - at
    at, inside, left = (
        array[(inside > 0) & (left > 1) & (left < 4)] for array in (at, inside, left)
    )
    next_, last = chars_c[at + 1], chars_c[at + left - 1]
    fits = (left == 2) & np.isin(last, [*map(ord, "smdS")])
    for one, other in ("ll", "re", "ve"):
        fits |= (left == 3) & (next_ == ord(one)) & (last == ord(other))
    part_c[at[fits]] = True
    fits = (left == 2) & (last == ord("t")) & (chars_c[at - 1] == ord("n"))
    part_c[at[fits] - 1] = True


def _inside(
    chars_c: np.ndarray, flags_c: np.ndarray, core_start_k: np.ndarray, part_c: np.ndarray
) -> None:
    """Parts words around what stands between their letters."""
    at = np.flatnonzero((flags_c & (_JOINER | _SIGN) != 0) | (chars_c == _COMMA))
    before, char, after = flags_c[at - 1], chars_c[at], flags_c[at + 1]
    fits = (flags_c[at] & _JOINER != 0) & (before & (LETTER | DIGIT) != 0) & (after & LETTER != 0)
    fits |= (char == _COMMA) & (before & after & LETTER != 0)
    to_number = (after & DIGIT != 0) | (chars_c[at + 1] == _MINUS)
    fits |= (flags_c[at] & _SIGN != 0) & (before & DIGIT != 0) & to_number
    dots = np.flatnonzero(chars_c == _DOT)
    ends_word = flags_c[dots - 1] & LOWER != 0
    dots = dots[ends_word & (flags_c[dots + 1] & (UPPER | _QUOTE) != 0)]
    first, last = _runs(flags_c & _HYPHEN != 0)
    joins = (flags_c[first - 1] & (LETTER | DIGIT) != 0) & (flags_c[last + 1] & LETTER != 0)
    joins &= last - first < 3
    first = np.concatenate([at[fits], dots, first[joins]])
    last = np.concatenate([at[fits], dots, last[joins]])

    start = core_start_k[np.searchsorted(core_start_k, first, "right") - 1]
    free = np.ones(first.size, bool)
    for beginning in _ADDRESSES:
        begins = np.ones(first.size, bool)
        for offset, letter in enumerate(beginning):
            begins &= chars_c[np.minimum(start + offset, first)] == ord(letter)
        free &= ~begins
    part_c[first[free]] = part_c[last[free] + 1] = True

    symbols = np.flatnonzero(flags_c & _SYMBOL != 0)
    first, last = _runs(chars_c == _DOT)
    row = last > first
    for starts, stops in ((symbols, symbols + 1), (first[row], last[row] + 1)):
        part_c[starts] = part_c[stops] = True


def _runs(is_c: np.ndarray) -> Spans:
    """The first and the last position of each run of true values, which touch neither end."""
    change = np.flatnonzero(is_c[1:] != is_c[:-1])
    return change[0::2] + 1, change[1::2]
