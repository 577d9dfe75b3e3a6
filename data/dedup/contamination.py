"""Documents that share word n-grams with evaluation sets (Brown et al. 2020, appendix C).

Words are compared without case, punctuation and symbols: the fold "gpt3" of data.dedup.shingles.
"""

import numpy as np

from data.dedup import shingles

MIN_WORDS = 8  # of an evaluation text; shorter ones are common phrases
Index = dict[int, np.ndarray]  # number of words -> hashes of such n-grams, rising, uint64

_SLOTS = 16  # of the first test for each hash ...
_MOST_SLOTS = 1 << 27  # ... up to so many, of one byte


def index(texts: list[str], n: int) -> tuple[Index, int]:
    """The n-grams of an evaluation set, and how many of its texts are too short to look for.

    A text of 8 to n - 1 words counts as one n-gram of all its words. Shorter ones are left out.
    """
    hashes_w, ends_d = shingles.words(texts, "gpt3")
    words_d = np.diff(ends_d, prepend=0)
    hashes_g, ends_g = shingles.grams(hashes_w, ends_d, n, short=True)
    length_g = np.repeat(np.minimum(words_d, n), np.diff(ends_g, prepend=0))
    lengths = [length for length in np.unique(length_g).tolist() if length >= min(n, MIN_WORDS)]
    found = {length: np.unique(hashes_g[length_g == length]) for length in lengths}
    return found, int((words_d < min(n, MIN_WORDS)).sum())


def hits(texts: list[str], indexes: list[Index]) -> np.ndarray:
    """How many different n-grams of each set are in each text: int32 [texts, sets]."""
    counts = np.zeros((len(texts), len(indexes)), np.int32)
    tests = {
        length: _first_test([known[length] for known in indexes if length in known])
        for length in sorted({length for known in indexes for length in known})
    }
    for part in shingles.batches(texts):
        hashes_w, ends_d = shingles.words(texts[part], "gpt3")
        for length, test in tests.items():
            hashes_g, ends_g = shingles.grams(hashes_w, ends_d, length)
            likely = np.flatnonzero(test[hashes_g & (len(test) - 1)])
            documents = np.searchsorted(ends_g, likely, side="right") + part.start
            for which, known in enumerate(indexes):
                if length in known:
                    hashes = hashes_g[likely]
                    at = np.minimum(np.searchsorted(known[length], hashes), len(known[length]) - 1)
                    shared = known[length][at] == hashes
                    pairs = np.unique(
                        np.stack([documents[shared].astype(np.uint64), hashes[shared]]), axis=1
                    )
                    np.add.at(counts[:, which], pairs[0].astype(np.int64), 1)
    return counts


def _first_test(known: list[np.ndarray]) -> np.ndarray:
    """Bool per value of a hash's low bits: False where no hash has them, as for most n-grams."""
    hashes = np.concatenate(known)
    test = np.zeros(min(1 << (_SLOTS * len(hashes)).bit_length(), _MOST_SLOTS), bool)
    test[hashes & (len(test) - 1)] = True
    return test
