"""Statistics of joined documents are those of each document alone, counted in plain Python."""

import functools
import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.clean import quality, wordsplit

MARKS = "!#&()*,:;<>?_{}\"'\u2019\u2026"
SYMBOL = "\u263a"
LETTER = "A-Za-z\u00e9\u4e2d"
LEADING = rf"(?:[{MARKS}{SYMBOL}\u2014%=$]|\+(?!\d)|\.(?=\.)|(?<=\.)\.)*"
TRAILING = (
    rf"(?:[{MARKS}{SYMBOL}\u2014]|(?<=\d)[+%$]|\.(?=\.)|(?<=\.)\."
    rf"|(?<=[a-z\u00e9\u4e2d\d{MARKS}%+\-])\.|(?<=[A-Z\u4e2d]{{2}})\.)*\Z"
)
INSIDE = (
    rf"(?<=[{LETTER}\d])[:<>=/](?=[{LETTER}])",
    rf"(?<=[{LETTER}]),(?=[{LETTER}])",
    r"(?<=\d)[+\-*^](?=[\d-])",
    r"(?<=[a-z\u00e9\u4e2d])\.(?=[A-Z\u4e2d'\"\u2019])",
    rf"(?<=[{LETTER}\d])[-~\u2014]{{1,3}}(?=[{LETTER}])",
)
PIECES = [
    *"az\u00e9\u4e2dBT3.,'-/:()#+%$\"\u2019\u2014\u2026*_=|\u2022\0",
    SYMBOL,
    "..",
    "n't",
    "'s",
]
PIECES += ["'ll", "www.", "http://a/b", "Mr.", "p.m.", "the", "and", "{", "Lorem ipsum"]
SPACES = [" ", " ", " ", "\n", "\n\n", "\r\n", "\r", "\t", "\u2028", "\x85", "...\n", "\n- ", ". "]

words_ = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
spaced = st.lists(st.tuples(words_, st.sampled_from(SPACES)), max_size=12)
sentences = spaced.map(lambda pairs: "".join(word + space for word, space in pairs))
repeats = st.lists(st.sampled_from(["a b", "a", "the dog", "b c d e f g ", "\n", "\n\n", " "]))
texts = sentences | repeats.map("".join) | st.text(max_size=20)


@functools.lru_cache(10_000)
def words_of(text):
    text = f" {text}  "
    chars = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    flags = wordsplit.flags(chars)
    spans = wordsplit.split(chars, flags, wordsplit.chunks(flags), wordsplit.hasher(chars))
    return [text[start:stop] for start, stop in zip(*spans, strict=True)]


def chunk_words(chunk):
    start = len(re.findall(LEADING, chunk)[0])
    stop = max(start, len(re.sub(TRAILING, "", chunk)))
    core = chunk[start:stop]
    if core and chunk[stop : stop + 1] == "." and chunk[stop + 1 : stop + 2] != ".":
        one = len(core) == 1 and core.isalpha()
        stop += one or core + "." in ("Mr.", "a.m.", "p.m.")
    if chunk[:stop] in ("'s", "'S", "'d", "'ll", "'re", "'em"):
        start = 0
    core = chunk[start:stop]
    cuts = {0, len(core)}
    if ending := re.search(r"(?<=.)(n['\u2019]t|['\u2019](?:s|S|m|d|ll|re|ve))\Z", core):
        cuts.add(ending.start())
    inside = () if core.startswith(("http", "ftp:", "www.")) else INSIDE
    for pattern in (*inside, rf"[{SYMBOL}\u2026]", r"\.{2,}"):
        cuts.update(end for match in re.finditer(pattern, core) for end in match.span())
    parts = [core[a:b] for a, b in itertools.pairwise(sorted(cuts))]
    marks = r"(?s)\.+|."
    return re.findall(marks, chunk[:start]) + parts + re.findall(marks, chunk[stop:])


def ngrams(words):
    total = max(1, sum(map(len, words)))
    values = {}
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        most = max(counts.values(), default=0)
        longest = max((sum(map(len, g)) for g, c in counts.items() if c == most), default=0)
        covered = {i + k for i, gram in enumerate(grams) if counts[gram] > 1 for k in range(n)}
        if n < 5:
            values[f"top_{n}gram"] = most * longest / total if most > 1 else 0
        else:
            values[f"duplicate_{n}gram"] = sum(len(words[i]) for i in covered) / total
    return values


def later(items):
    return [item for i, item in enumerate(items) if item in items[:i]]


@functools.cache
def kind(character):
    return wordsplit.flags(np.array([ord(character)], np.uint32))[0]


def sentence_count(line):
    count, ended = 1, False
    for word in words_of(line):
        if word in (".", "!", "?"):
            ended = True
        elif any(kind(character) & wordsplit.NO_PUNCTUATION for character in word):
            count, ended = count + ended, False
    return count


def reference(text):
    """Each statistic by its definition."""
    tokens = words_of(text)
    words = [t for t in tokens if any(kind(c) & wordsplit.WORDLIKE for c in t)]
    any_lines, lines = text.splitlines(), [line for line in text.split("\n") if line]
    paragraphs = [p for p in re.split("\n{2,}", text.strip()) if p]
    written = [line for line in lines if line.strip()]
    share = lambda part, whole: part / max(1, whole)  # noqa: E731
    return ngrams(words) | {
        "characters": len(text),
        "words": len(words),
        "mean_word_length": share(sum(map(len, words)), len(words)),
        "hash_per_word": share(text.count("#"), len(tokens)),
        "ellipsis_per_word": share(text.count("...") + text.count("\u2026"), len(tokens)),
        "alphabetic_words": share(sum(any(map(str.isalpha, t)) for t in tokens), len(tokens)),
        "stop_words": len(set(quality.STOP_WORDS) & set(tokens)),
        "newlines_per_word": share(text.count("\n"), len(tokens)),
        "sentences": sum(sentence_count(line) for line in any_lines if line.strip()),
        "bullet_lines": share(
            sum(s.lstrip().startswith(("\u2022", "-")) for s in any_lines), len(any_lines)
        ),
        "ellipsis_lines": share(
            sum(s.rstrip().endswith(("...", "\u2026")) for s in any_lines), len(any_lines)
        ),
        "lines": len(written),
        "duplicate_lines": share(len(later(lines)), len(lines)),
        "duplicate_line_characters": share(len("".join(later(lines))), len(text)),
        "duplicate_paragraphs": share(len(later(paragraphs)), len(paragraphs)),
        "duplicate_paragraph_characters": share(len("".join(later(paragraphs))), len(text)),
        "punctuated_lines": share(
            sum(bool(kind(line[-1]) & wordsplit.TERMINAL) for line in written), len(written)
        ),
        "short_lines": share(sum(len(line) <= 30 for line in written), len(written)),
        "repeated_line_characters": share(
            len("".join(later(written))), len(text.replace("\n", ""))
        ),
        "curly_braces": text.count("{"),
        "lorem_ipsum": text.lower().count("lorem ipsum"),
    }


@settings(max_examples=80, deadline=None)
@given(st.lists(texts, max_size=5))
@example(["", "\n", "   ", "\r", "a\r", "\ra", "a\n", "\n\na\n\n\n  \n\na\n "])
@example(["a b a b a b a", "a" * 31 + "\n\n" + "a" * 31 + "\n" + "a" * 30, "...", "x... \n.", "-"])
@example(["  a\n\na\n\nb  \n\nb", " \n \n \nxyz", "...\n..\n\u2026\n."])
@example(["one two three four five six seven eight nine ten " * 2, "one two three four five"])
def test_every_statistic_is_as_defined(documents):
    measured = quality.measure(documents)
    expected = [reference(text) for text in documents]
    for name, column in measured.items():
        assert column.shape == (len(documents),)
        assert column.dtype in (np.int32, np.float32)
        wanted = [values[name] for values in expected]
        np.testing.assert_allclose(column, wanted, rtol=1e-6, err_msg=name)
    assert all(measured.keys() == values.keys() for values in expected)


@settings(max_examples=200, deadline=None)
@given(sentences)
@example("a----b a---b +3 +a 'x 'xs b. T. 3. cannot a.b n't xn't. (a) ''a'' - -- a- -a 'll 'm")
@example(
    "... .. 'tis 'em. '' \"I 've...\" a.m. Mr.. B.B. BB. 3+4-5 a--b 3--a http://a.B/c-d www.a-b"
)
def test_words_are_cut_as_described(text):
    chunks = text.split()
    assert words_of(text) == [word for chunk in chunks for word in chunk_words(chunk)]


@pytest.mark.parametrize(
    ("text", "words"),
    [  # the first two from spaCy's documentation, the others what spaCy 3.8 says
        ("Let's go to N.Y.!", "Let 's go to N.Y. !"),
        (
            "Apple is looking at buying U.K. startup for $1 billion",
            "Apple is looking at buying U.K. startup for $ 1 billion",
        ),
        (
            "Mr. Smith didn't (really) pay 5% of well-known/new prices, "
            "\u201cthey\u2019ll see\u201d...",
            "Mr. Smith did n't ( really ) pay 5 % of well - known / new prices , "
            "\u201c they \u2019ll see \u201d ...",
        ),
    ],
)
def test_words_are_those_of_spacy(text, words):
    assert words_of(text) == words.split()


def test_a_block_of_documents_is_as_each_alone(monkeypatch):
    documents = [("the cat and " * k + "\n") * (k % 5) for k in range(40)]
    whole = quality.measure(documents)
    monkeypatch.setattr(quality, "_BLOCK", 100)
    blocks = quality.measure(documents)
    alone = [quality.measure([text]) for text in documents]
    for name, column in whole.items():
        np.testing.assert_array_equal(column, blocks[name])
        np.testing.assert_array_equal(column, np.concatenate([each[name] for each in alone]))


def test_no_documents_have_empty_columns():
    assert {column.shape for column in quality.measure([]).values()} == {(0,)}


def test_one_long_line():
    text = "word number three. " * 10_000 + "x" * 10_000
    measured = quality.measure([text, "#" * 300_000, "." * 300_000])
    assert measured["words"].tolist() == [30_001, 0, 0]
    assert measured["sentences"].tolist() == [10_001, 1, 1]
    assert measured["duplicate_10gram"][0] == pytest.approx(1 - 10_000 / 160_000)
    assert measured["hash_per_word"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", 2),
        ("\u4f60\u597d\u4e16\u754c\u3002 \u4f60\u597d\u3002", 2),
        ("\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u061f", 2),
        ("\0 \x01\x02 a\0b \x7f", 1),
        ("\U0001f600 \U0010fffd \ufeff", 0),
    ],
)
def test_other_scripts_and_control_characters(text, words):
    assert quality.measure([text])["words"].tolist() == [words]


def test_lone_surrogates_are_refused():
    with pytest.raises(UnicodeEncodeError):
        quality.measure(["\ud800"])
