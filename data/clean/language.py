"""Which language a text is in: py3langid's model, run over many documents at once.

The model (Lui and Baldwin, "langid.py", ACL 2012; 97 languages) counts byte n-grams with an
automaton that takes one step a byte, and scores the counts with naive Bayes. Two facts let NumPy
take the steps of many places together. The byte 0xff, which is in no UTF-8, brings every state back
to the first; so documents joined by it are one text. And the state after some byte depends on the
few bytes before it alone, six in this model; so that text may be cut anywhere into lanes of one
length, when each begins a few bytes early.

Suffixes: b bytes, s steps, l lanes, d documents, f features, c classes, n the nonzero counts.
"""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

_RESET = 0xFF
_EARLY = 8  # bytes a lane begins before the first whose state it keeps
_LANE = 512  # bytes, at most
_BLOCK = 2**21  # bytes walked at a time: about 50 MB of states, features and counts
_DOCUMENTS = 2**15  # at a time; so many times the features, 100053, is below 2**32


@dataclass(frozen=True)
class _Model:
    """The arrays of py3langid's model, laid out for gathers."""

    rows_s: np.ndarray  # of a state: where its row begins in `moves`, int32
    moves: np.ndarray  # the next state by row and byte, int32
    features_s: np.ndarray  # what a state counts, int32; -1: nothing
    table_fc: np.ndarray  # log likelihoods, float32
    prior_c: np.ndarray
    codes_c: tuple[str, ...]
    twins: tuple[tuple[int, int], ...]  # classes of one code, such as Serbian in its two scripts


def identify(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The language of each text and how probable it is.

    Returns ISO 639-1 codes and probabilities, float32 [documents], as py3langid 0.4 gives them with
    norm_probs=True: the whole of a text counts, and a text without letters is nobody's language
    with a probability near 0.01. Memory is bounded by the longest text's size, not by its length
    times the features.
    """
    model = _model()
    codes: list[str] = []
    probabilities = [np.zeros(0, np.float32)]
    for block in _blocks(texts):
        scores_dc = _scores(model, block)
        lengths_d = np.maximum([len(text) for text in block], 1)
        # A temperature of sqrt(bytes) keeps probabilities calibrated at all lengths.
        scores_dc /= np.sqrt(lengths_d)[:, None].astype(np.float32)
        scores_dc = np.exp(scores_dc - scores_dc.max(axis=1, keepdims=True))
        scores_dc /= scores_dc.sum(axis=1, keepdims=True)
        for first, second in model.twins:
            scores_dc[:, first] += scores_dc[:, second]
            scores_dc[:, second] = 0
        best_d = scores_dc.argmax(axis=1)
        codes += [model.codes_c[best] for best in best_d]
        probabilities.append(scores_dc[np.arange(len(block)), best_d])
    return codes, np.concatenate(probabilities)


def known() -> frozenset[str]:
    """The codes that `identify` can return."""
    return frozenset(_model().codes_c)


@cache
def _model() -> _Model:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = LanguageIdentifier.from_model_file(MODEL_FILE)
    moves = np.asarray(found.tk_nextmove).astype(np.int32)
    if moves[_RESET::256].any():
        raise RuntimeError("py3langid's model has another form than that of version 0.4")
    codes = tuple(found.nb_classes)
    table_fc = found.nb_ptc.astype(np.float32)
    # What all classes have in common leaves probabilities as they are, and costs sums their digits.
    table_fc -= table_fc.mean(axis=1, keepdims=True)
    twins = ((codes.index(code), i) for i, code in enumerate(codes) if codes.index(code) < i)
    return _Model(
        rows_s=np.asarray(found.tk_row).astype(np.int32) << 8,
        moves=moves,
        features_s=np.array(found.tk_output, np.int32),
        table_fc=table_fc,
        prior_c=found.nb_pc.astype(np.float32),
        codes_c=codes,
        twins=tuple(twins),
    )


def _blocks(texts: Sequence[str]) -> Iterator[list[bytes]]:
    """The texts as bytes, in order, some at a time; a text longer than a block is one."""
    block: list[bytes] = []
    size = 0
    for text in texts:
        encoded = _encode(text)
        if block and (size + len(encoded) > _BLOCK or len(block) == _DOCUMENTS):
            yield block
            block, size = [], 0
        block.append(encoded)
        size += len(encoded) + 1
    if block:
        yield block


def _encode(text: str) -> bytes:
    """What the model was trained on: NFC, and shouting in lower case."""
    text = text.lower() if text.isupper() else text
    return unicodedata.normalize("NFC", text).encode(errors="surrogatepass")


def _scores(model: _Model, block: list[bytes]) -> np.ndarray:
    """Unnormalised log posteriors, float32 [documents, classes]."""
    from scipy.sparse import csr_array

    if len(block) == 1:
        keys_n, counts_n = _count_one(model, block[0])
    else:
        keys_n, counts_n = _count(model, block)
    documents_n, features_n = np.divmod(keys_n, np.uint32(len(model.table_fc)))
    sizes_d = np.bincount(documents_n, minlength=len(block))
    starts_d = np.concatenate([[0], np.cumsum(sizes_d)])
    counts_df = csr_array(
        (np.log1p(counts_n, dtype=np.float32), features_n.astype(np.int32), starts_d),
        shape=(len(block), len(model.table_fc)),
    )
    scores_dc = counts_df @ model.table_fc
    # Without any feature not even the prior counts: all classes are equal.
    scores_dc[sizes_d > 0] += model.prior_c
    return scores_dc


def _count(model: _Model, block: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Keys, document * features + feature, rising, and how often each occurs."""
    text_b = np.frombuffer(bytes([_RESET]).join(block), np.uint8)
    features_b = _walk(model, text_b)
    lengths_d = np.array([len(text) for text in block]) + 1
    # Keys of 32 bits sort twice as fast as those of 64.
    firsts_d = np.arange(len(block), dtype=np.uint32) * np.uint32(len(model.table_fc))
    keys_b = np.repeat(firsts_d, lengths_d)[: len(text_b)] + features_b.astype(np.uint32)
    keys_b = keys_b[features_b >= 0]
    keys_b.sort()
    first_b = np.ones(len(keys_b), bool)
    np.not_equal(keys_b[1:], keys_b[:-1], out=first_b[1:])
    places_n = np.flatnonzero(first_b)
    return keys_b[places_n], np.diff(places_n, append=len(keys_b))


def _count_one(model: _Model, text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The same of one document of any length, a block of its bytes at a time."""
    text_b = np.frombuffer(text, np.uint8)
    counts_f = np.zeros(len(model.table_fc), np.int64)
    for start in range(0, len(text_b), _BLOCK):
        early = min(start, _EARLY)
        features_b = _walk(model, text_b[start - early : start + _BLOCK])[early:]
        counts_f += np.bincount(features_b[features_b >= 0], minlength=len(counts_f))
    keys_n = np.flatnonzero(counts_f)
    return keys_n.astype(np.uint32), counts_f[keys_n]


def _walk(model: _Model, text_b: np.ndarray) -> np.ndarray:
    """The feature counted at each byte, int32, -1 where there is none."""
    lane = min(_LANE, max(_EARLY, math.isqrt(len(text_b))))
    lanes = -(-len(text_b) // lane)
    padded_b = np.full(_EARLY + lanes * lane, _RESET, np.uint8)
    padded_b[_EARLY : _EARLY + len(text_b)] = text_b
    windows = np.lib.stride_tricks.sliding_window_view(padded_b, _EARLY + lane)
    text_sl = np.ascontiguousarray(windows[::lane].T)
    states_sl = np.empty(text_sl.shape, np.int32)
    state_l, place_l = np.zeros(lanes, np.int32), np.empty(lanes, np.int32)
    for text_l, next_l in zip(text_sl, states_sl, strict=True):
        # Nothing is out of range; with mode="raise" NumPy would buffer what it writes to `out`.
        np.take(model.rows_s, state_l, out=place_l, mode="clip")
        place_l += text_l
        state_l = np.take(model.moves, place_l, out=next_l, mode="clip")
    return model.features_s[states_sl[_EARLY:].T.ravel()[: len(text_b)]]
