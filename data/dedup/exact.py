"""Documents that are equal but for whitespace."""

import hashlib

import numpy as np


def keys(texts: list[str]) -> np.ndarray:
    """128-bit keys of texts, uint64 [texts, 2]: equal where texts are, whitespace aside.

    BLAKE2b of the words joined by single spaces. At 128 bits, no two different documents of any
    corpus meet: among 10**12 the chance is 10**-15.
    """
    digests = b"".join(
        hashlib.blake2b(
            " ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16
        ).digest()
        for text in texts
    )
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def duplicates(keys: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All but the smallest place of each key: (doomed places, their surviving places), uint64 [m].

    `keys` is [n, 2], `places` [n]. Doomed places rise, whatever the order of the input.
    """
    order = np.lexsort((places, keys[:, 1], keys[:, 0]))
    keys, places = keys[order], places[order]
    first = np.ones(len(keys), bool)
    first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    survivors = places[np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0))]
    rising = np.argsort(places[~first])
    return places[~first][rising], survivors[~first][rising]
