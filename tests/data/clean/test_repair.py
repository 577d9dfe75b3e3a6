"""What is broken is mended, and what is not stays as it is."""

# ruff: noqa: RUF001 (letters of other scripts are what this is about)

import re
import unicodedata

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.clean import repair as repair_module
from data.clean.repair import repair

WHOLE = [
    "",
    "Plain text,\n\twith a tab.\n",
    "“Curly quotes” — and an ellipsis…",
    "ﬁne ligatures, ＦＵＬＬ width, ｶﾅ",
    "&amp; is an entity, &lt;b&gt; three",
    "naïve café, 10³ µm, ½",
    "Ünïcödé für Größe",
    "می‌خواهم",  # Persian with a zero-width non-joiner
    "👩\u200d👩\u200d👧 and 🏳️\u200d🌈",
    "क्\u200dष",
    "日本語。中文，한국어",
    "\u200fעברית\u200e",
]

BROKEN = {
    "sÃ³ voilÃ\xa0 le travail": "só voilà le travail",
    "Itâ€™s â€œbrokenâ€\x9d": "It’s “broken”",
    "ÐŸÑ€Ð¸Ð²ÐµÑ‚": "Привет",
    "caf\xe9 \x93quoted\x94": "café “quoted”",
    "Ã\xadndice": "índice",
    "voilÃ le travail": "voilà le travail",
    "ï»¿with a mark": "with a mark",
    "\ufeffwith a mark": "with a mark",
    "e\u0301t\u00e9": "été",
    "a\r\nb\rc\n\rd": "a\nb\nc\n\nd",
    "page one\x0cpage two\n\x0c\npage three\x0b": "page one\npage two\n\npage three\n",
    "line\u2028separator\u2029é": "line\nseparator\né",
    "bell\x07, null\x00, delete\x7f": "bell, null, delete",
    "\x1b[31;1mred\x1b[0m": "red",
    "zero\u200bwidth\u2060 jo\u200din\u200cer": "zerowidth joiner",
    "soft\xadhyphen": "softhyphen",
    "pair \ud83d\ude00, half \ud800": "pair 😀, half \ufffd",
}


@pytest.mark.parametrize("text", WHOLE)
def test_what_is_whole_stays(text):
    assert repair(text) == text


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_broken_is_mended(text):
    assert repair(text) == BROKEN[text]
    assert repair(BROKEN[text]) == BROKEN[text]


ENCODINGS = [
    "latin-1",
    "cp1252",
    "cp1251",
    "cp1250",
    "cp1253",
    "cp1254",
    "cp1257",
    "mac_roman",
    "cp437",
]
LINE = "Größe, “naïve” café – Привет, Ωμέγα, żółć, 日本語, 🙂… "


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lines_are_judged_alone_and_none_that_ftfy_would_mend_is_passed_over(encoding):
    for text in LINE.split():
        try:
            broken = text.encode().decode(encoding)
        except UnicodeDecodeError:
            continue
        mended = re.sub("[\x80-\x9f\xad]", "", ftfy.fix_text(broken, uncurl_quotes=False))
        assert repair(f"{LINE}\n{broken}\n{LINE}") == f"{LINE}\n{mended}\n{LINE}"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None)) | st.text("".join(BROKEN) + "‚ÄГвЂВŒœÂ ×²ΒΞ€β√±≈°"))
def test_passing_over_lines_changes_nothing(text):
    expected = _with_all_lines(text)
    assert repair(text) == expected


def _with_all_lines(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repair_module, "_DOUBTFUL", re.compile(""))
        return repair(text)


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(codec=None), max_size=80) | st.text("Ã©â€™\x9d\xad\u200b\r\n\x0c \x1b[m")
)
def test_every_result_is_clean(text):
    found = repair(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff\u2028]", found)
    assert unicodedata.is_normalized("NFC", found)
    found.encode()
