"""Hits of a word list in documents.

The list is the user's, a word or phrase a line. C4 (Raffel et al. 2020) used the "List of Dirty,
Naughty, Obscene, and Otherwise Bad Words" (LDNOOBW, github.com/LDNOOBW, CC BY 4.0), a file a
language, and dropped each page with one hit. Such lists also hit medicine, law, and what minorities
write about themselves (Dodge et al. 2021, arXiv:2104.08758), so one hit says little.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.schema import InputError, require

# Scripts that are written without spaces: Thai, Lao, Khmer, Burmese, kana, Han.
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
)
_WORD = re.compile(r"\w+")
_SPLIT = {ord(c): " " for c in map(chr, range(128)) if not _WORD.match(c)}  # the same, ASCII only


@dataclass(frozen=True)
class Words:
    """A word list, in lower case."""

    words: frozenset[str]  # of one word each
    phrases: frozenset[str]  # the rest: flanked by non-word characters, as words are
    substrings: frozenset[str]  # of scripts without spaces: found anywhere


def load(path: str | Path) -> Words:
    """Read a list: UTF-8, a word or phrase a line; empty lines and lines with # first do not count.

    Raises InputError where the file cannot be read, a line is no UTF-8, or there is no entry.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read the word list {path}: {error.strerror}") from error
    words, phrases, substrings = set(), set(), set()
    for number, line in enumerate(lines, 1):
        try:
            entry = line.decode("utf-8-sig").strip().lower()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: not UTF-8; save the list as UTF-8") from error
        if not entry or entry.startswith("#"):
            continue
        if _NO_SPACES.search(entry):
            substrings.add(entry)
        elif _WORD.fullmatch(entry):
            words.add(entry)
        else:
            phrases.add(" ".join(entry.split()))
    require(
        bool(words or phrases or substrings),
        f"{path} has no words: write a word or phrase a line",
    )
    return Words(frozenset(words), frozenset(phrases), frozenset(substrings))


def count(texts: Sequence[str], words: Words) -> np.ndarray:
    """Hits in each text, int32 [documents], without regard to case; repeated ones count again.

    A word or phrase counts where it is flanked by non-word characters, a phrase with any white
    space between its words; an entry in a script that is written without spaces counts anywhere.
    Each entry is counted for itself, also within another.
    """
    # A phrase is looked for where its first word is.
    heads: dict[str, list[str]] = {}
    for phrase in words.phrases:
        first = _WORD.search(phrase)
        heads.setdefault(first.group() if first else "", []).append(phrase)
    return np.array([_count(text.lower(), words, heads) for text in texts], np.int32)


def _count(text: str, words: Words, heads: dict[str, list[str]]) -> int:
    # Taking the text apart costs the same for ten words and ten thousand; an alternation of all
    # words is tried at each place anew.
    found = text.translate(_SPLIT).split() if text.isascii() else _WORD.findall(text)
    hits = sum(map(words.words.__contains__, found))
    near = heads.keys() & {"", *found} if heads else ()
    if near or words.substrings:
        text = " ".join(text.split())
    for phrase in (phrase for head in near for phrase in heads[head]):
        if phrase in text:
            hits += len(re.findall(rf"(?<!\w){re.escape(phrase)}(?!\w)", text))
    return hits + sum(map(text.count, words.substrings))
