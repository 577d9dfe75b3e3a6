"""Near-duplicates: MinHash signatures of documents, their band keys, and exact similarity.

The share of equal values of two signatures estimates the Jaccard similarity J of two documents'
sets of word n-grams (Broder 1997). Documents are compared where one band agrees, which happens with
probability 1 - (1 - J**rows)**bands: .99 at J = .85 and .21 at J = .6 for 14 bands of 8 rows.

An estimate from 112 values has a standard deviation of .04, so that of all pairs at J = .6 one in
a hundred has an agreement of .7 or more. Those whose agreement is `doubtful` are therefore settled
by `jaccard` of their `shingle_sets`.
"""

import math

import numpy as np

from configs.corpus import Dedup
from configs.schema import require
from data.dedup import shingles
from data.order import splitmix64

_ALGORITHM = 2  # of rensa, whose other versions give other signatures
_SEED = 0x1507
_EMPTY = np.uint32(2**32 - 1)  # every value of the signature of a document without words
_BASE = np.uint64(0x9E6C63D0676A9A99)
_KEYED = 1 << 16  # signatures whose keys are made together


def signatures(texts: list[str], dedup: Dedup) -> np.ndarray:
    """MinHash signatures, uint32 [texts, bands * rows], of word n-grams (fold "fineweb").

    A document of fewer than `dedup.ngram` words has one n-gram, all its words. Without words every
    value is 2**32 - 1, and `band_keys` has no keys for it. Of more than `dedup.max_shingles`
    different n-grams, those with the smallest hashes count. Which these are does not depend on
    where they stand, so that documents which share many n-grams keep many of the same; where
    lengths differ, the agreement is on average below the true similarity, never above. Raises
    InputError for a version of rensa whose signatures would not match others.
    """
    from rensa import RMinHash

    require(
        RMinHash.ALGORITHM_VERSION == _ALGORITHM,
        f"rensa has MinHash algorithm {RMinHash.ALGORITHM_VERSION}, and signatures here are of "
        f"algorithm {_ALGORITHM}: install rensa 0.5",
    )
    size = dedup.bands * dedup.rows
    result = np.empty((len(texts), size), np.uint32)
    for part in shingles.batches(texts):
        hashes_g, ends_d = _shingles(texts[part], dedup)
        if (np.diff(ends_d, prepend=0) > dedup.max_shingles).any():
            sets = [_smallest(found, dedup) for found in np.split(hashes_g, ends_d[:-1])]
            hashes_g = np.concatenate(sets)
            ends_d = np.cumsum([len(found) for found in sets])
        offsets = np.concatenate([[0], ends_d]).astype(np.uint64)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(hashes_g, offsets, size, _SEED)
        result[part] = digests.to_rows()
    return result


def band_keys(signatures: np.ndarray, bands: int) -> np.ndarray:
    """Keys under which documents meet, uint64 [documents, bands]; 0 where there is no signature.

    The number of the band is part of its key: all bands can go through one grouping.
    """
    rows = signatures.shape[1] // bands
    keys = np.empty((len(signatures), bands), np.uint64)
    for start in range(0, len(signatures), _KEYED):
        values = signatures[start : start + _KEYED].reshape(-1, bands, rows)
        key = np.tile(np.arange(1, bands + 1, dtype=np.uint64), (len(values), 1))
        for row in range(rows):
            key *= _BASE
            key += values[:, :, row]
        key = np.maximum(splitmix64(key), np.uint64(1))
        key[(signatures[start : start + _KEYED] == _EMPTY).all(axis=1)] = 0
        keys[start : start + _KEYED] = key
    return keys


def doubtful(agreement: np.ndarray, dedup: Dedup) -> np.ndarray:
    """Where shares of equal values lie within 3 standard deviations of `dedup.similarity`, bool.

    The deviation is that of a binomial share at the threshold.
    """
    deviation = math.sqrt(dedup.similarity * (1 - dedup.similarity) / (dedup.bands * dedup.rows))
    return np.abs(agreement - dedup.similarity) <= 3 * deviation


def shingle_sets(texts: list[str], dedup: Dedup) -> list[np.ndarray]:
    """What `signatures` are of: different n-gram hashes of each text, rising, uint64 [n-grams]."""
    sets: list[np.ndarray] = []
    for part in shingles.batches(texts):
        hashes_g, ends_d = _shingles(texts[part], dedup)
        sets += [_smallest(found, dedup) for found in np.split(hashes_g, ends_d[:-1])]
    return sets


def jaccard(a: np.ndarray, b: np.ndarray, dedup: Dedup) -> float:
    """Jaccard similarity of two of `shingle_sets`; of none with none 0.

    Exact up to `dedup.max_shingles` n-grams. Where a set was cut to its smallest hashes, both are
    compared below the largest hash of it, up to which both are complete: an unbiased estimate with
    a standard deviation of at most .5 / sqrt(max_shingles) (bottom-k sketches, Cohen and Kaplan
    2007), .004 by default.
    """
    cut = [found[-1] for found in (a, b) if len(found) == dedup.max_shingles]
    if cut:
        a, b = (found[: np.searchsorted(found, min(cut), side="right")] for found in (a, b))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


def _shingles(texts: list[str], dedup: Dedup) -> tuple[np.ndarray, np.ndarray]:
    return shingles.grams(*shingles.words(texts, "fineweb"), dedup.ngram, short=True)


def _smallest(hashes: np.ndarray, dedup: Dedup) -> np.ndarray:
    return np.unique(hashes)[: dedup.max_shingles]
