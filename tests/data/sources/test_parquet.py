"""Parquet: rows in order, by row groups; damage costs a row group or the file, never silently."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TEXTS = [f"text {i} é\n" for i in range(1000)]


def _write(path, table, **settings):
    pq.write_table(pa.table(table), path, **settings)


def test_rows_are_documents_however_the_file_is_cut(tmp_path, gather, texts):
    _write(tmp_path / "a.parquet", {"text": TEXTS, "n": range(1000)}, row_group_size=90)
    whole = texts("parquet", tmp_path / "*.parquet")
    assert list(whole.values()) == TEXTS
    assert next(iter(whole)) == "a.parquet:0"
    for size in (1000, 5000):
        assert texts("parquet", tmp_path / "*.parquet", piece_bytes=size) == whole


def test_what_rows_say_of_themselves(tmp_path, gather):
    _write(
        tmp_path / "a.parquet",
        {
            "text": ["x", "y"],
            "url": ["http://e.org", None],
            "date": [datetime.datetime(2020, 1, 2), None],
            "meta": [{"license": "MIT"}, {"license": None}],
        },
    )
    documents, _ = gather("parquet", tmp_path / "a.parquet", licence="unknown")
    assert [(d.url, d.date, d.licence) for d in documents] == [
        ("http://e.org", "2020-01-02T00:00:00", "MIT"),
        ("", "", "unknown"),
    ]


def test_bad_rows_are_named_and_the_others_arrive(tmp_path, gather):
    column = pa.array([b"a", None, b"na\xefve", b"x" * 101, b"e"], pa.binary())
    _write(tmp_path / "a.parquet", {"body": column})
    documents, faults = gather("parquet", tmp_path / "a.parquet", text="body", max_bytes=100)
    assert [(d.id, d.text) for d in documents] == [("a.parquet:0", "a"), ("a.parquet:4", "e")]
    assert [fault.partition(": row ")[2].partition(":")[0] for fault in faults] == [
        '1 has no field "body" holding a string',
        "2 is not UTF-8 (byte 0xef at offset 2)",
        "3 is one document of 101 bytes, over max_document_bytes=100",
    ]


@pytest.mark.parametrize("piece_bytes", [10**9, 500])
def test_files_that_cannot_be_used(tmp_path, gather, piece_bytes):
    _write(tmp_path / "a.parquet", {"body": TEXTS})
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-20])
    _write(tmp_path / "c.parquet", {"text": ["fine"]})
    documents, faults = gather("parquet", tmp_path / "*.parquet", piece_bytes=piece_bytes)
    assert [document.text for document in documents] == ["fine"]
    assert faults[0] == f'{tmp_path}/a.parquet has no column "text", but body: name another as text'
    assert faults[1].startswith(f"{tmp_path}/b.parquet cannot be read: ")
    assert len(faults) == 2


def test_a_damaged_row_group_costs_no_other(tmp_path, gather):
    path = tmp_path / "a.parquet"
    _write(
        path, {"text": TEXTS}, row_group_size=250, compression="zstd", use_dictionary=False,
        write_page_checksum=True,
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[at + 5 : at + 105] = bytes(100)
    path.write_bytes(content)
    documents, faults = gather("parquet", path)
    assert [document.text for document in documents] == TEXTS[:250] + TEXTS[500:]
    assert documents[250].id == "a.parquet:500"
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}: row group 1 cannot be read: ")
