"""The report says what was counted, and shows text as text."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from data.report.page import page
from data.stages import select

REPORT = {
    "funnel": [{"step": "read", "documents": [3, 2], "text_bytes": [9, 8], "tokens": [4, 3]}],
    "tokens_per_byte": 0.4,
    "sources": {
        "a<b": {"read": [3, 9], "selected": [2, 8], "written": {"train": [2, 8, 3], "v": [0, 0, 0]}}
    },
    "dropped": {"words": [1, 1]},
    "samples": {"words": [{"id": "x:1", "source": "a<b", "text": "<script>alert(1)</script>"}]},
    "languages": {},
    "domains": {"a.example": {"in": [3, 9], "kept": [2, 8]}},
    "histograms": {"words": {"0": 1, "64": 2}},
    "edits": {"email replaced": 5},
    "pii_documents": 2,
    "contamination": {"eval": {"ngrams": 100, "documents": 1}},
    "repeats": {},
    "faults": ["x.jsonl:7 is not JSON"],
}


def test_the_page_shows_text_as_text():
    html = page(REPORT)
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    for told in ("a&lt;b", "x.jsonl:7 is not JSON", "a.example", "email replaced", "eval (100"):
        assert told in html
    opened, closed = (re.findall(pattern, html) for pattern in (r"<(\w+)", r"</(\w+)"))
    for tag in ("table", "tr", "td", "th", "figure", "svg", "details", "blockquote"):
        assert opened.count(tag) == closed.count(tag)


@given(
    st.sampled_from([np.int64, np.float32]).flatmap(
        lambda dtype: numpy_st.arrays(
            dtype,
            st.integers(1, 30),
            elements=st.integers(0, 10**7)
            if dtype == np.int64
            else st.one_of(st.floats(0, 1, width=32), st.floats(0, 2**20, width=32)),
        )
    )
)
def test_every_document_is_in_a_bar(values):
    bins = select._histogram(values)
    shown = select.edges([float(edge) for edge in bins])
    assert sum(bins.get(f"{edge:.12g}", 0) for edge in shown) == len(values)
    assert len(shown) < 60


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 3, "b": 3}),
        (
            {"a": {"x": [1, 2]}},
            {"a": {"x": [3, 4], "y": [5, 6]}},
            {"a": {"x": [4, 6], "y": [5, 6]}},
        ),
    ],
)
def test_counts_of_shards_add_up(one, other, total):
    assert select.add(select.add({}, one), other) == total
