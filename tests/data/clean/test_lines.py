"""C4's lines: those that the reference code in tensorflow_datasets keeps."""

import pickle
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.corpus import C4
from data.clean.lines import DROPPED, c4_lines

GOOD = "This line has more than five words."


@pytest.mark.parametrize(
    ("line", "kept", "reason"),
    [
        (GOOD, GOOD, None),
        (f"  {GOOD}\t", GOOD, None),
        ("As known[12][] since[citation needed] long ago.[edit]", "As known since long ago.", None),
        ('It has \u201cquotes\u201d at the end"', 'It has \u201cquotes\u201d at the end"', None),
        ("Does this line ask anything at all?", "Does this line ask anything at all?", None),
        ("This line has an apostrophe at its end'", "", "no_terminal_punctuation"),
        ("This line has only just begun...", "", "no_terminal_punctuation"),
        ("This line has no full stop", "", "no_terminal_punctuation"),
        ("", "", "no_terminal_punctuation"),
        ("Just four words here.", "", "few_words"),
        ("Just five words are here.", "Just five words are here.", None),
        (f"{'x' * 1001} and four more words.", "", "long_word"),
        (f"{'x' * 1000} and four more words.", f"{'x' * 1000} and four more words.", None),
        ("Please enable JavaScript in your browser.", "", "javascript"),
        ("Read the Privacy Policy of this site.", "", "policy"),
        ("Read the Terms of Use of this site.", "", "policy"),
        ("This site and others USES COOKIES daily.", "", "policy"),
        # What the reference drops a whole page for must reach the rules of the page.
        ("Lorem ipsum in JavaScript is a page's end.", ..., None),
        ("The privacy policy { of } pages is out.", ..., None),
        ("The javascript { of } pages is out.", "", "javascript"),
    ],
)
def test_a_line(line, kept, reason):
    text, dropped = c4_lines(f"{GOOD}\n{line}\r\n{GOOD}", C4())
    kept = line if kept is ... else kept
    assert text == "\n".join([GOOD, kept, GOOD] if kept else [GOOD, GOOD])
    assert dropped == {name: int(name == reason) for name in DROPPED}


def test_the_settings_are_read():
    short = "No stop\nEnds here.\nA b c"
    relaxed = C4(terminal_punctuation=False, min_line_words=0)
    assert c4_lines(short, relaxed)[0] == short
    assert c4_lines(short, C4(terminal_punctuation=False, min_line_words=3))[0] == "A b c"
    assert c4_lines(short, C4(min_line_words=2))[0] == "Ends here."
    assert c4_lines("Ends here.", C4(min_line_words=1, max_word_characters=4))[0] == ""
    assert pickle.loads(pickle.dumps(c4_lines)) is c4_lines


PARTS = ["word", "x" * 1001, ".", '"', "...", "?", "'", "[1]", "[edit]", "[", "javascript", "{"]
PARTS += ["lorem ipsum", "use cookies", " ", " ", " ", "a b c d e", "\n", "\n", "\r\n", "\u2028"]


def reference(text, limits):
    """What c4_utils.clean_page does line by line, less its rules of whole pages."""
    kept, page_dropped = [], False
    for raw in text.splitlines():
        line = raw.strip()
        if any(len(word) > limits.max_word_characters for word in line.split()):
            continue
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if not line.endswith((".", "?", "!", '"')) or line.endswith("..."):
            continue
        if len(line.split()) < limits.min_line_words:
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            page_dropped = True
        elif "javascript" in lower:
            continue
        elif "{" in line:
            page_dropped = True
        elif "use cookies" in lower:
            continue
        kept.append(line)
    return "\n".join(kept).strip(), page_dropped


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=40).map("".join), st.integers(0, 6))
@example("a b c d e javascript { use cookies.", 5)
@example("a b c d e lorem ipsum javascript.\na b c d e use cookies {.", 5)
def test_lines_and_pages_are_those_of_the_reference(text, min_words):
    limits = C4(min_line_words=min_words)
    kept, page_dropped = reference(text, limits)
    ours, dropped = c4_lines(text, limits)
    assert ours == kept
    assert ("lorem ipsum" in ours.lower() or "{" in ours) == page_dropped
    assert all(count >= 0 for count in dropped.values())


def test_real_text_keeps_all_but_its_terms_of_use(shared_data):
    text = (shared_data / "text/gutenberg/972.txt").read_text(encoding="utf-8")
    kept, dropped = c4_lines(text, C4(terminal_punctuation=False, min_line_words=0))
    terms = [line.strip() for line in text.splitlines() if "terms of use" in line.lower()]
    assert dropped == dict.fromkeys(DROPPED, 0) | {"policy": len(terms)}
    lines = (line.strip() for line in text.splitlines())
    assert kept == "\n".join(line for line in lines if line not in terms).strip()
