"""What is written is what is read; what is damaged is refused in one sentence."""

import json
import shutil

import numpy as np
import pytest

from configs.schema import InputError
from data import store as stores
from data import tokenizer

LENGTHS = {
    ("train", "a"): [5, 60, 30, 20, 1],
    ("train", "b"): [7, 9],
    ("validation", "b"): [4],
}


def test_streams_return_the_documents_in_order(make_store):
    store = make_store(LENGTHS)
    assert [(s.file, s.source, s.documents) for s in store.shards] == [
        ("train/00000", "a", 1),  # the next document would exceed the 50 tokens of a shard
        ("train/00001", "a", 1),
        ("train/00002", "a", 2),
        ("train/00003", "a", 1),
        ("train/00004", "b", 2),
        ("validation/00000", "b", 1),
    ]
    stream = store.stream("train")
    np.testing.assert_array_equal(stream.ends, np.cumsum([5, 60, 30, 20, 1, 7, 9]))
    whole = np.empty(stream.tokens, np.int32)
    stream.read(0, whole)
    assert np.flatnonzero(whole == store.eod).tolist() == (stream.ends - 1).tolist()
    for start in range(stream.tokens):
        some = np.empty(min(40, stream.tokens - start), np.int32)
        stream.read(start, some)
        np.testing.assert_array_equal(some, whole[start : start + 40])
    before = np.empty(4, np.int32)
    stream.read(-1, before)
    np.testing.assert_array_equal(before, [store.eod, *whole[:3]])


def test_counts_add_up_over_splits_and_sources(make_store):
    store = make_store(LENGTHS)
    assert store.sources == ("a", "b")
    assert store.tokens("train") == 132
    assert (store.tokens("train", "a"), store.tokens("train", "b")) == (116, 16)
    assert store.documents("train", "a") == 5
    assert store.bytes("train", "b") == 14
    assert store.tokens("validation", "a") == 0


@pytest.mark.parametrize(("vocab", "dtype"), [(257, "<u2"), (2**16, "<u2"), (2**16 + 1, "<u4")])
def test_ids_take_as_few_bytes_as_they_can(vocab, dtype):
    assert stores.dtype_for(vocab) == np.dtype(dtype)
    assert np.array([vocab - 1]).astype(stores.dtype_for(vocab)) == vocab - 1


def test_the_fingerprint_is_that_of_the_content(make_store, tmp_path):
    one = make_store(LENGTHS)
    same = make_store(LENGTHS, path=tmp_path / "same")
    other = make_store({**LENGTHS, ("validation", "b"): [5]}, path=tmp_path / "other")
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_a_store_without_a_manifest_is_not_one(tmp_path):
    with pytest.raises(InputError, match=r"no token store at .*data\.build --out="):
        stores.open_store(tmp_path)


def test_a_shard_cut_short_is_named_with_its_sizes(make_store):
    store = make_store(LENGTHS)
    shard = store.path / "train" / "00002.tok"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(
        InputError, match=r"00002\.tok has 98 bytes and should have 100: .*cut short"
    ):
        stores.open_store(store.path)
    shard.unlink()
    with pytest.raises(InputError, match=r"00002\.tok is missing"):
        stores.open_store(store.path)


def test_another_tokenizer_does_not_match(make_store):
    store = make_store(LENGTHS)
    (store.path / store.tokenizer_file).write_bytes(tokenizer.characters("abc").serialized)
    with pytest.raises(InputError, match=r"tokenizer\.json is not the tokenizer this store was"):
        stores.open_store(store.path)
    (store.path / store.tokenizer_file).unlink()
    with pytest.raises(InputError, match=r"cannot read the tokenizer .*tokenizer\.json"):
        stores.open_store(store.path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "cannot read"),
        (lambda text: json.dumps({**json.loads(text), "format": 2}), "has format 2"),
        (lambda text: json.dumps({**json.loads(text), "shards": [{}]}), "is damaged"),
        (lambda text: "[]", "has format None"),
    ],
)
def test_a_damaged_manifest_is_refused(make_store, damage, sentence):
    store = make_store(LENGTHS)
    manifest = store.path / stores.MANIFEST
    manifest.write_text(damage(manifest.read_text()))
    with pytest.raises(InputError, match=sentence):
        stores.open_store(store.path)


@pytest.mark.parametrize("suffix", [".tok", ".idx"])
def test_verify_finds_a_single_flipped_bit(make_store, suffix):
    store = make_store(LENGTHS)
    store.verify()
    path = store.path / f"train/00001{suffix}"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"00001{suffix} was altered or damaged"):
        stores.open_store(store.path).verify()


def test_a_store_can_be_moved(make_store, tmp_path):
    store = make_store(LENGTHS)
    moved = stores.open_store(shutil.move(store.path, tmp_path / "moved"))
    assert moved.fingerprint == store.fingerprint
    moved.verify()
