"""A shuffled order that is computed, not stored: keyed permutations of range(n).

`permute` is a Feistel network, which is a bijection of [0, 2**bits) whatever its round function is,
walked along its cycles until the image lies below n (Black and Rogaway, "Ciphers with arbitrary
finite domains", 2002). Any index of any epoch costs the same and needs no memory, so a run resumes
at any step at once and every host computes its own share of the same order.
"""

import hashlib

import numpy as np

_ROUNDS = 6  # with four, neighbouring outputs are still visibly correlated
_WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15  # increment of splitmix64


def key(*parts: object) -> int:
    """A 64-bit key from whatever names a permutation, such as (seed, split, epoch).

    A hash rather than a sum: with seed + epoch, epoch 1 of one seed would be epoch 0 of the next.
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def permute(indices: np.ndarray, n: int, key: int) -> np.ndarray:
    """Images of `indices` (integers in [0, n)) under the permutation of range(n) named by `key`.

    Returns int64, of the same shape. Raises ValueError for an index outside [0, n).
    """
    indices = np.asarray(indices, np.int64)
    if indices.size and not 0 <= indices.min() <= indices.max() < n:
        raise ValueError(f"indices must lie in [0, {n})")
    images = _feistel(indices.astype(np.uint64).ravel(), n, key)
    outside = np.flatnonzero(images >= n)
    while outside.size:
        images[outside] = _feistel(images[outside], n, key)
        outside = outside[images[outside] >= n]
    return images.astype(np.int64).reshape(indices.shape)


def _feistel(words: np.ndarray, n: int, key: int) -> np.ndarray:
    """One pass of the network over uint64 words below 2**bits, the smallest such power >= n."""
    bits = max(2, (n - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low, high = np.uint64(2 ** (bits // 2) - 1), np.uint64(2 ** (bits - bits // 2) - 1)
    left, right = words >> low_bits, words & low
    for round_index in range(1, _ROUNDS + 1):
        round_key = np.uint64((key + round_index * GOLDEN) % _WORD)
        left, right = right, left ^ (splitmix64(right + round_key) & high)
        low, high = high, low  # the halves trade places, and where bits is odd, widths
    return (left << low_bits) | right


def splitmix64(words: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): mixes the bits of uint64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
