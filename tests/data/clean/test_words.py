"""Words are counted as a slow reading of the rule counts them."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import InputError
from data.clean import words

LIST = "# a comment\n\ndarn\nHeck it\nf-word\n@$$\nÜbel\n畜生\nสัตว์\n"


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(LIST, encoding="utf-8")
    return words.load(path)


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("", 0),
        ("Darn! DARN, darn.", 3),
        ("darned, undarn, darn_it, darn2", 0),
        ("oh heck\n  it, heckit, check it", 1),
        ("f-word (F-WORD) f-words", 2),
        ("an @$$ hat, x@$$", 1),
        ("übel ÜBEL Kübel", 2),
        ("这个畜生畜生啊", 2),
        ("พวกสัตว์ร้าย", 1),
        ("# a comment", 0),
    ],
)
def test_hits(listed, text, hits):
    found = words.count([text, text], listed)
    assert found.tolist() == [hits, hits]
    assert found.dtype == np.int32


def test_no_texts(listed):
    assert words.count([], listed).shape == (0,)


def test_a_list_goes_to_other_processes(listed):
    assert pickle.loads(pickle.dumps(listed)) == listed


@given(
    text=st.text("abAB .-_\n\x1fé", max_size=40),
    entries=st.sets(st.text("ab.-_", min_size=1, max_size=3), min_size=1, max_size=5),
)
def test_against_a_walk_over_all_places(text, entries):
    single = {entry for entry in entries if entry.replace("_", "a").isalnum()}
    listed = words.Words(frozenset(single), frozenset(entries - single), frozenset())
    assert words.count([text], listed)[0] == sum(_places(text.lower(), entry) for entry in entries)


def _places(text, entry):
    """Occurrences that do not overlap, each flanked by non-word characters."""
    text = " ".join(text.split())
    place, hits = 0, 0
    while place < len(text):
        end = place + len(entry)
        flanked = not any(
            c.isalnum() or c == "_" for c in text[max(0, place - 1) : place] + text[end : end + 1]
        )
        if text[place:end] == entry and flanked:
            hits, place = hits + 1, end
        else:
            place += 1
    return hits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\nna\xefve\n", "line 2: not UTF-8"),
        (b"", "has no words"),
        (b"# nothing\n\n", "has no words"),
        (None, "cannot read the word list"),
    ],
)
def test_bad_lists(tmp_path, content, message):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        words.load(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffdarn\r\nheck\r\n".encode())
    assert words.load(path).words == {"darn", "heck"}
