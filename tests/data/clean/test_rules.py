"""Verdicts: thresholds, their order, and real text as the rules are meant."""

import dataclasses
import inspect

import numpy as np
import pytest

from configs.corpus import RULES, Clean, GopherRepetition
from configs.schema import InputError
from data.clean import quality, rules

PROSE = """The committee that met on Monday said it would have to look at the budget again. Members
of the public were asked to send their comments with a name and an address before the month ends.
Nobody could say how many would write, and few of those present seemed to mind the wait.

After lunch a second group took the stage to describe what it had found along the river. Its boats
had counted birds, measured the depth of the water, and spoken with farmers on both banks.
"""
LINES = PROSE.splitlines()
FIRST = "\n".join(LINES[:3])


def phrase(words, every):
    """A phrase nine times, each followed by new words of three letters to so many in all."""
    new = iter(range(100, 999))
    fill = every - len(words.split())
    return "".join(f"{words} " + "".join(f"{next(new)} " for _ in range(fill)) for _ in range(9))


def first_reasons(texts, clean):
    first, names = rules.verdicts(quality.measure(texts), clean)
    return [names[index] if index >= 0 else "" for index in first]


def test_prose_passes_all_rules():
    assert first_reasons([PROSE], Clean(rules=RULES)) == [""]


@pytest.mark.parametrize(
    ("rule", "reason", "text"),
    [
        ("gopher_quality", "min_words", "the cat and the dog"),
        ("gopher_quality", "max_words", "of the " * 50_001),
        ("gopher_quality", "min_word_length", "to be or " * 40),
        ("gopher_quality", "max_word_length", "incomprehensibilities " * 60),
        ("gopher_quality", "hashes", PROSE + "# " * 20),
        ("gopher_quality", "ellipses", PROSE + "so ... " * 40),
        ("gopher_quality", "bullet_lines", "".join(f"- {s}\n" for s in PROSE.split(" "))),
        ("gopher_quality", "ellipsis_lines", PROSE.replace("\n", "...\n")),
        ("gopher_quality", "alphabetic", PROSE + "120 " * 60),
        ("gopher_quality", "stop_words", "Seven brown foxes jumped over lazy sleeping dogs. " * 9),
        ("gopher_repetition", "empty", ""),
        ("gopher_repetition", "paragraphs", "a b\n\na b\n\na b\n\n" + PROSE),
        ("gopher_repetition", "paragraph_characters", f"{PROSE}\n{FIRST}\n\nIts end.\n\nIt is."),
        ("gopher_repetition", "lines", PROSE + "a\nb\n" * 4),
        ("gopher_repetition", "line_characters", f"{LINES[0]}\n1\n2\n3\n4\n{LINES[0]}\n5"),
        ("gopher_repetition", "top_2gram", "".join(f"Elephant trunks {k}\n" for k in range(9))),
        ("gopher_repetition", "top_3gram", phrase("red fox ran", 12)),
        ("gopher_repetition", "top_4gram", phrase("red fox ran off", 20)),
        ("gopher_repetition", "duplicate_5gram", phrase("now our red fox ran off", 30)),
        ("c4", "lorem_ipsum", PROSE + "LOREM IPSUM dolor."),
        ("c4", "curly_brace", PROSE + "if (x) {"),
        ("c4", "min_sentences", "One is here. Two is there"),
        ("c4", "max_characters", PROSE * 500),
        ("fineweb", "empty", "\n \n"),
        ("fineweb", "punctuated_lines", "No stop at the end\n" * 3),
        ("fineweb", "short_lines", "Short.\n" * 20 + PROSE),
        ("fineweb", "repeated_lines", PROSE + "\n" + PROSE),
        ("fineweb", "newlines", "\n" * 90 + PROSE),
    ],
)  # fmt: skip
def test_each_reason(rule, reason, text):
    assert first_reasons([PROSE, text], Clean(rules=(rule,))) == ["", f"{rule}: {reason}"]


def columns(**values):
    """Columns of one document that passes, but for some values."""
    passing = {
        "characters": 1000, "words": 100, "mean_word_length": 5.0, "hash_per_word": 0.0,
        "ellipsis_per_word": 0.0, "bullet_lines": 0.0, "ellipsis_lines": 0.0,
        "alphabetic_words": 1.0, "stop_words": 8, "duplicate_lines": 0.0,
        "duplicate_paragraphs": 0.0, "duplicate_line_characters": 0.0,
        "duplicate_paragraph_characters": 0.0, "sentences": 9, "lorem_ipsum": 0,
        "curly_braces": 0, "lines": 9, "punctuated_lines": 1.0, "short_lines": 0.0,
        "repeated_line_characters": 0.0, "newlines_per_word": 0.0,
        **{f"top_{n}gram": 0.0 for n in quality.TOP},
        **{f"duplicate_{n}gram": 0.0 for n in quality.DUPLICATE},
    }  # fmt: skip
    assert passing.keys() == quality.measure([]).keys()
    merged = {**passing, **values}
    return {
        name: np.array([value], np.float32 if isinstance(value, float) else np.int32)
        for name, value in merged.items()
    }


PAPER = {  # Rae et al. 2021, table A1
    "duplicate_lines": 0.3, "duplicate_paragraphs": 0.3, "duplicate_line_characters": 0.2,
    "duplicate_paragraph_characters": 0.2, "top_2gram": 0.2, "top_3gram": 0.18, "top_4gram": 0.16,
    "duplicate_5gram": 0.15, "duplicate_6gram": 0.14, "duplicate_7gram": 0.13,
    "duplicate_8gram": 0.12, "duplicate_9gram": 0.11, "duplicate_10gram": 0.1,
}  # fmt: skip
MAXIMA = PAPER | {
    "hash_per_word": 0.1, "ellipsis_per_word": 0.1, "bullet_lines": 0.9, "ellipsis_lines": 0.3,
    "mean_word_length": 10.0, "words": 100_000, "characters": 190_000, "short_lines": 0.67,
    "repeated_line_characters": 0.1, "newlines_per_word": 0.3, "curly_braces": 0, "lorem_ipsum": 0,
}  # fmt: skip
MINIMA = {
    "words": 50, "mean_word_length": 3.0, "alphabetic_words": 0.8, "stop_words": 2, "sentences": 3,
    "punctuated_lines": 0.12, "lines": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "threshold", "sign"),
    [(n, t, 1) for n, t in MAXIMA.items()] + [(n, t, -1) for n, t in MINIMA.items()],
)
def test_a_value_at_the_published_threshold_passes_and_one_beyond_does_not(name, threshold, sign):
    clean = Clean(rules=RULES)
    beyond = threshold + sign * (1e-6 if isinstance(threshold, float) else 1)
    assert rules.verdicts(columns(**{name: threshold}), clean)[0].tolist() == [-1]
    assert rules.verdicts(columns(**{name: beyond}), clean)[0].tolist() != [-1]


ELSEWHERE = ("terminal_punctuation", "min_line_words", "max_word_characters")  # lines.py reads them


@pytest.mark.parametrize("rule", RULES)
def test_every_threshold_of_the_configuration_is_read(rule):
    """A document that passes fails when any one threshold is made impossible."""
    limits = getattr(Clean(), rule)
    for item in dataclasses.fields(limits):
        if item.name in ELSEWHERE:
            continue
        value, impossible = getattr(limits, item.name), 1e9 if item.name.startswith("min") else -1
        changes: list = [impossible]
        if isinstance(value, tuple):
            changes = [(*value[:k], impossible, *value[k + 1 :]) for k in range(len(value))]
        for change in changes:
            changed = dataclasses.replace(limits, **{item.name: change})
            clean = dataclasses.replace(Clean(rules=(rule,)), **{rule: changed})
            assert rules.verdicts(columns(), clean)[0].tolist() != [-1], (item.name, change)


def test_the_first_failure_in_the_order_of_the_rules_is_named():
    texts = ["{", PROSE]
    assert first_reasons(texts, Clean(rules=("c4", "gopher_quality"))) == ["c4: curly_brace", ""]
    turned = Clean(rules=("gopher_quality", "c4"))
    assert first_reasons(texts, turned) == ["gopher_quality: min_words", ""]


def test_reasons_are_those_of_the_verdicts():
    clean = Clean(rules=RULES)
    first, names = rules.verdicts(quality.measure([]), clean)
    assert first.shape == (0,)
    assert names == rules.reasons(clean)
    assert len(set(names)) == len(names) == 33
    assert rules.reasons(Clean()) == ()
    assert rules.verdicts(quality.measure(["", "{"]), Clean())[0].tolist() == [-1, -1]


def test_thresholds_of_missing_lengths_are_named():
    clean = Clean(rules=RULES, gopher_repetition=GopherRepetition(top=(0.2,)))
    with pytest.raises(
        InputError, match=r"top has 1 thresholds; it needs 3, for n-grams of 2 to 4"
    ):
        rules.verdicts(quality.measure([PROSE]), clean)
    with pytest.raises(InputError, match="duplicates has 0"):
        rules.reasons(Clean(rules=RULES, gopher_repetition=GopherRepetition(duplicates=())))


def test_news_passes_and_code_does_not(shared_data):
    news = (shared_data / "text/lee_background.cor").read_text(encoding="utf-8").splitlines()
    reasons = first_reasons(news, Clean(rules=("gopher_quality", "c4")))
    assert reasons.count("") > 0.9 * len(news)
    code = inspect.getsource(dataclasses)
    assert first_reasons([code], Clean(rules=("gopher_quality",))) != [""]
