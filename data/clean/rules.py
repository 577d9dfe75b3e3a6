"""Which documents the rules of quality drop, and why: thresholds over what quality.measure says.

The rules are those of Rae et al. 2021, appendix A1.1 (gopher_quality, gopher_repetition), Raffel et
al. 2020, section 2.2 (c4; its lines are in data/clean/lines.py) and Penedo et al. 2024, section 3.6
(fineweb). A value at its threshold passes, as in datatrove.
"""

from collections.abc import Callable, Mapping

import numpy as np

from configs.corpus import C4, Clean, FineWeb, GopherQuality, GopherRepetition
from configs.schema import require
from data.clean.quality import DUPLICATE, TOP

Checks = list[tuple[str, str, float, bool]]  # reason, statistic, threshold, and whether a maximum


def verdicts(
    measured: Mapping[str, np.ndarray], clean: Clean
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The first rule that each document fails, in the order of clean.rules.

    Args:
        measured: what quality.measure says, each [documents].
        clean: the rules and their thresholds.

    Returns:
        int32 [documents], an index into the reasons or -1 where every rule passes, and `reasons`
        of the configuration.

    Raises:
        InputError: a list of thresholds has not one for each length of n-gram.
    """
    checks = _checks(clean)
    first_d = np.full(len(measured["characters"]), -1, np.int32)
    for index, (_, statistic, threshold, is_maximum) in reversed([*enumerate(checks)]):
        values_d = measured[statistic]
        # NumPy compares in float32, so that a share exactly at the threshold equals it.
        first_d[values_d > threshold if is_maximum else values_d < threshold] = index
    return first_d, tuple(reason for reason, *_ in checks)


def reasons(clean: Clean) -> tuple[str, ...]:
    """Every reason that `verdicts` can give, such as "gopher_quality: min_words", in its order."""
    return tuple(reason for reason, *_ in _checks(clean))


def _checks(clean: Clean) -> Checks:
    rules: dict[str, Callable[[], Checks]] = {
        "gopher_quality": lambda: _gopher_quality(clean.gopher_quality),
        "gopher_repetition": lambda: _gopher_repetition(clean.gopher_repetition),
        "c4": lambda: _c4(clean.c4),
        "fineweb": lambda: _fineweb(clean.fineweb),
    }
    return [
        (f"{rule}: {reason}", statistic, threshold, is_maximum)
        for rule in clean.rules
        for reason, statistic, threshold, is_maximum in rules[rule]()
    ]


def _gopher_quality(limits: GopherQuality) -> Checks:
    return [
        ("min_words", "words", limits.min_words, False),
        ("max_words", "words", limits.max_words, True),
        ("min_word_length", "mean_word_length", limits.min_word_length, False),
        ("max_word_length", "mean_word_length", limits.max_word_length, True),
        ("hashes", "hash_per_word", limits.max_symbols, True),
        ("ellipses", "ellipsis_per_word", limits.max_symbols, True),
        ("bullet_lines", "bullet_lines", limits.max_bullet_lines, True),
        ("ellipsis_lines", "ellipsis_lines", limits.max_ellipsis_lines, True),
        ("alphabetic", "alphabetic_words", limits.min_alphabetic, False),
        ("stop_words", "stop_words", limits.min_stop_words, False),
    ]


def _gopher_repetition(limits: GopherRepetition) -> Checks:
    for name, lengths in (("top", TOP), ("duplicates", DUPLICATE)):
        count = len(getattr(limits, name))
        require(
            count == len(lengths),
            f"clean.gopher_repetition.{name} has {count} thresholds; it needs {len(lengths)}, for "
            f"n-grams of {lengths[0]} to {lengths[-1]} words",
        )
    line_chars, paragraph_chars = limits.line_characters, limits.paragraph_characters
    checks = [
        ("empty", "characters", 1.0, False),
        ("paragraphs", "duplicate_paragraphs", limits.paragraphs, True),
        ("paragraph_characters", "duplicate_paragraph_characters", paragraph_chars, True),
        ("lines", "duplicate_lines", limits.lines, True),
        ("line_characters", "duplicate_line_characters", line_chars, True),
    ]
    names = [f"top_{n}gram" for n in TOP] + [f"duplicate_{n}gram" for n in DUPLICATE]
    thresholds = limits.top + limits.duplicates
    return checks + [
        (name, name, limit, True) for name, limit in zip(names, thresholds, strict=True)
    ]


def _c4(limits: C4) -> Checks:
    return [
        ("lorem_ipsum", "lorem_ipsum", 0, True),
        ("curly_brace", "curly_braces", 0, True),
        ("min_sentences", "sentences", limits.min_sentences, False),
        ("max_characters", "characters", limits.max_characters, True),
    ]


def _fineweb(limits: FineWeb) -> Checks:
    return [
        ("empty", "lines", 1, False),
        ("punctuated_lines", "punctuated_lines", limits.min_punctuated_lines, False),
        ("short_lines", "short_lines", limits.max_short_lines, True),
        ("repeated_lines", "repeated_line_characters", limits.max_repeated_lines, True),
        ("newlines", "newlines_per_word", limits.max_newlines, True),
    ]
