"""A text classifier trained from labelled lines: of toxicity, of quality, of anything else.

    python -m data.clean.classifier --train=label.jsonl --out=toxic.npz

It is fastText's supervised model (Joulin et al. 2017, arXiv:1607.01759): hashed words and pairs of
neighbouring words, the mean of their embeddings, softmax. Lines of the input look like
{"text": "...", "label": "toxic"}; a share of them, --holdout, measures the result.

Suffixes: b bytes, t tokens, n features, d documents, f hash buckets, h embedding, c labels.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from configs.flags import main
from configs.schema import InputError, require
from data import order

FORMAT = 1  # of the file, and of what is hashed to which bucket
_CHARACTERS = 2**18  # of a document; what follows tells little more and takes memory
_BLOCK = 2**20  # bytes hashed at a time, and up to one document more
_MOST_FEATURES = 2**14  # of a document in training
_MOST_LABELS = 256
_BATCH = 64  # documents
_BASE = order.GOLDEN  # of the hash of a word, a polynomial modulo 2**64; odd, so it has an inverse
_PAIR = np.uint64(0xD1342543DE82EF95)

# Kinds of bytes: white space and controls; letters, digits and the later bytes of a character;
# punctuation, a token each; first bytes of characters from U+3000 on, such as Han and kana, which
# are written without spaces: a token each, too.
_SPACE, _WORD, _SINGLE, _WIDE = range(4)
_KINDS = np.array(
    [
        _SPACE if byte <= 32 or byte == 127
        else _WIDE if byte >= 0xE3
        else _WORD if byte >= 128 or chr(byte).isalnum() or chr(byte) == "_"
        else _SINGLE
        for byte in range(256)
    ],
    np.uint8,
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How to train. The defaults suit some thousand to some million lines."""

    dim: int = 16
    buckets: int = 2**18
    epochs: int = 3
    learning_rate: float = 0.1  # of Adagrad, falling linearly to none
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.dim > 0, f"--dim={self.dim}: at least 1")
        require(0 < self.buckets <= 2**30, f"--buckets={self.buckets}: 1 to 2**30")
        require(self.epochs > 0, f"--epochs={self.epochs}: at least 1")
        require(self.learning_rate > 0, f"--learning_rate={self.learning_rate}: above 0")


@dataclass(frozen=True)
class Model:
    """A trained classifier, ready to be applied."""

    labels: tuple[str, ...]
    scores_cf: np.ndarray  # what a feature says for each label, float32


def load(path: str | Path) -> Model:
    """Read a model. Raises InputError where the file is none of this version's."""
    try:
        with Path(path).open("rb") as raw, np.load(raw) as file:
            found = int(file["format"])
            require(
                found == FORMAT,
                f"{path} has format {found}, and this version reads format {FORMAT}: train it anew",
            )
            table_fh, output_hc = (file[key].astype(np.float32) for key in ("table", "output"))
            labels = tuple(map(str, file["labels"]))
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"no classifier at {path}: train one with python -m data.clean.classifier"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no classifier, or damaged: train it anew") from error
    # The mean of embeddings times the output is the mean of embeddings-times-output, and there are
    # fewer labels than dimensions.
    return Model(labels, np.ascontiguousarray((table_fh @ output_hc).T))


def probabilities(model: Model, texts: Sequence[str]) -> np.ndarray:
    """How probable each label is, float32 [documents, labels].

    The first 2**18 characters of a text count. A text without any token has equal probabilities.
    """
    logits_dc = np.zeros((len(texts), len(model.labels)), np.float32)
    done = 0
    for ids_n, counts_d in _hashed(texts, model.scores_cf.shape[1]):
        full_d = np.flatnonzero(counts_d)
        starts_d = (np.cumsum(counts_d) - counts_d)[full_d]
        if len(full_d):
            for label, scores_f in enumerate(model.scores_cf):
                sums_d = np.add.reduceat(scores_f[ids_n], starts_d)
                logits_dc[done + full_d, label] = sums_d / counts_d[full_d]
        done += len(counts_d)
    logits_dc -= logits_dc.max(axis=1, keepdims=True)
    np.exp(logits_dc, out=logits_dc)
    return logits_dc / logits_dc.sum(axis=1, keepdims=True)


def _hashed(texts: Sequence[str], buckets: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Buckets of the features of some texts at a time, int64, and how many each text has."""
    block: list[bytes] = []
    size = 0
    for text in texts:
        block.append(text[:_CHARACTERS].lower().encode(errors="surrogatepass") + b"\n")
        size += len(block[-1])
        if size >= _BLOCK:
            yield _hash_block(block, buckets)
            block, size = [], 0
    if block:
        yield _hash_block(block, buckets)


def _hash_block(block: list[bytes], buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Words and pairs of words, in the order of the text."""
    text_b = np.frombuffer(b"".join(block), np.uint8)
    kinds_b = _KINDS[text_b]
    first_b = kinds_b >= _SINGLE
    first_b[0] |= kinds_b[0] == _WORD
    first_b[1:] |= (kinds_b[1:] == _WORD) & ((kinds_b == _SPACE) | (kinds_b == _SINGLE))[:-1]
    # A token ends before the next one and before white space.
    last_b = kinds_b != _SPACE
    last_b[:-1] &= first_b[1:] | (kinds_b[1:] == _SPACE)
    starts_t, lasts_t = np.flatnonzero(first_b), np.flatnonzero(last_b)
    powers_b, inverses_b = _powers(1 << len(text_b).bit_length())
    sums_b = np.cumsum((text_b + np.uint64(1)) * powers_b[: len(text_b)])
    before_t = np.where(starts_t > 0, sums_b[starts_t - 1], np.uint64(0))
    words_t = order.splitmix64((sums_b[lasts_t] - before_t) * inverses_b[starts_t])
    hashes_t2 = np.empty((len(words_t), 2), np.uint64)
    hashes_t2[:, 0] = words_t
    hashes_t2[:-1, 1] = order.splitmix64(words_t[:-1] * _PAIR + words_t[1:])
    counts_d = np.diff(np.searchsorted(starts_t, np.cumsum([0, *map(len, block)])))
    present_t2 = np.ones(hashes_t2.shape, bool)
    present_t2[np.cumsum(counts_d)[counts_d > 0] - 1, 1] = False  # the last word has no next
    # The upper half of a hash times the buckets, shifted back: a remainder, without a division.
    ids_t2 = ((hashes_t2 >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)
    return ids_t2[present_t2].astype(np.int64), np.maximum(2 * counts_d - 1, 0)


@cache
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse modulo 2**64, of which block sizes need few lengths."""
    inverse = pow(_BASE, -1, 2**64)
    tables = (np.full(size, base, np.uint64) for base in (_BASE, inverse))
    powers, inverses = (np.cumprod(table) for table in tables)
    return powers, inverses


def train(texts: Sequence[str], labels: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Train a classifier; returns the arrays of its file.

    On the CPU, where adding many rows into few is done in one order: the same texts, labels and
    settings give the same bytes. Raises InputError where there are fewer than two labels.
    """
    import jax

    names = sorted(set(labels))
    require(
        1 < len(names) <= _MOST_LABELS,
        f"labels to train on: {len(names)}; a classifier needs 2 to {_MOST_LABELS}",
    )
    targets_d = np.searchsorted(names, labels)
    parts = [
        ids_n[start : start + min(count, _MOST_FEATURES)].astype(np.int32)
        for ids_n, counts_d in _hashed(texts, settings.buckets)
        for start, count in zip(np.cumsum(counts_d) - counts_d, counts_d, strict=True)
    ]
    sizes_d = np.array([len(part) for part in parts])
    # Features of a batch: one number for all, so that there is one program.
    capacity = int(max(sizes_d.max(), _BATCH * sizes_d.mean(), 1))
    batches = [
        batch
        for epoch in range(settings.epochs)
        for batch in _batches(sizes_d, capacity, order.key(settings.seed, "train", epoch))
    ]
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        state = _initial(settings, len(names))
        step = jax.jit(_step, donate_argnums=0)
        for number, batch_d in enumerate(batches):
            rate = np.float32(settings.learning_rate * (1 - number / len(batches)))
            state = step(state, *_padded(parts, targets_d, batch_d, capacity), rate)
    table_fh, output_hc = (np.asarray(array).astype(np.float16) for array in state[:2])
    return {
        "format": FORMAT,
        "labels": np.array(names),
        "table": table_fh,
        "output": output_hc,
        "settings": json.dumps(vars(settings), sort_keys=True),
    }


def save(path: str | Path, arrays: dict[str, Any]) -> None:
    """Write what `train` returned. Raises InputError where the disk refuses."""
    try:
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _batches(sizes_d: np.ndarray, capacity: int, key: int) -> Iterator[np.ndarray]:
    """Documents in shuffled order, as many at a time as fit."""
    shuffled_d = order.permute(np.arange(len(sizes_d)), len(sizes_d), key)
    start, features = 0, 0
    for place, size in enumerate(sizes_d[shuffled_d]):
        if place - start == _BATCH or features + size > capacity:
            yield shuffled_d[start:place]
            start, features = place, 0
        features += size
    yield shuffled_d[start:]


def _padded(
    parts: list[np.ndarray], targets_d: np.ndarray, batch_d: np.ndarray, capacity: int
) -> tuple[np.ndarray, ...]:
    """Features and the document of each, padding being in none; then targets and weights."""
    ids_n, documents_n = np.zeros(capacity, np.int32), np.full(capacity, _BATCH, np.int32)
    found = np.concatenate([parts[d] for d in batch_d])
    ids_n[: len(found)] = found
    documents_n[: len(found)] = np.repeat(np.arange(len(batch_d)), [len(parts[d]) for d in batch_d])
    padded_d, weights_d = np.zeros(_BATCH, np.int32), np.zeros(_BATCH, np.float32)
    padded_d[: len(batch_d)] = targets_d[batch_d]
    weights_d[: len(batch_d)] = 1
    return ids_n, documents_n, padded_d, weights_d


def _initial(settings: Settings, labels: int) -> tuple[np.ndarray, ...]:
    """Embeddings, output, and Adagrad's sums of squares for each.

    Embeddings begin at zero, so that what training never saw says nothing; the random output tells
    the dimensions apart.
    """
    random = np.random.default_rng(settings.seed)
    output_hc = random.normal(size=(settings.dim, labels)).astype(np.float32)
    table_fh = np.zeros((settings.buckets, settings.dim), np.float32)
    return table_fh, output_hc, np.zeros(settings.buckets, np.float32), np.zeros_like(output_hc)


def _forward(rows_nh: Any, output_hc: Any, documents_n: Any) -> Any:
    """Logits [_BATCH, labels] from the embeddings of all features and the document of each."""
    import jax
    import jax.numpy as jnp

    sums_dh = jax.ops.segment_sum(rows_nh, documents_n, _BATCH + 1)[:_BATCH]
    counts_d = jnp.zeros(_BATCH + 1).at[documents_n].add(1.0)[:_BATCH]
    return sums_dh / jnp.maximum(counts_d, 1)[:, None] @ output_hc


def _step(
    state: Any, ids_n: Any, documents_n: Any, targets_d: Any, weights_d: Any, rate: Any
) -> Any:
    """One step of Adagrad (Duchi et al. 2011), in which a row of the embeddings has one sum.

    Only rows that the batch uses are read and written.
    """
    import jax
    import jax.numpy as jnp

    table_fh, output_hc, squares_f, squares_hc = state

    def loss(rows_nh: Any, output_hc: Any) -> Any:
        logs_dc = jax.nn.log_softmax(_forward(rows_nh, output_hc, documents_n))
        return -jnp.sum(weights_d * jnp.take_along_axis(logs_dc, targets_d[:, None], 1)[:, 0])

    rows_nh, gradient_hc = jax.grad(loss, argnums=(0, 1))(table_fh[ids_n], output_hc)
    squares_f = squares_f.at[ids_n].add(jnp.mean(rows_nh**2, axis=1))
    squares_hc = squares_hc + gradient_hc**2
    scales_n = rate * jax.lax.rsqrt(squares_f[ids_n] + 1e-12)
    table_fh = table_fh.at[ids_n].add(-scales_n[:, None] * rows_nh)
    output_hc = output_hc - rate * gradient_hc * jax.lax.rsqrt(squares_hc + 1e-12)
    return table_fh, output_hc, squares_f, squares_hc


def read(path: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    """Texts and labels of a JSON-lines file, from the fields so named.

    A label is a string, a whole number or a truth value. Raises InputError for the first line that
    is none of that.
    """
    texts, labels = [], []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path}, line {number}: no JSON ({error})") from error
                for field, kinds in ((text, (str,)), (label, (str, int))):
                    found = record.get(field) if isinstance(record, dict) else None
                    require(
                        isinstance(found, kinds),
                        f"{path}, line {number}: no field {field!r} of the kind needed; name the "
                        "fields with --text and --label",
                    )
                texts.append(record[text])
                found = record[label]
                labels.append(found if isinstance(found, str) else json.dumps(found))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    require(bool(texts), f"{path} has no lines")
    return texts, labels


def report(model: Model, texts: Sequence[str], labels: Sequence[str]) -> str:
    """How well a model does on labelled texts: accuracy, each label, and calibration.

    The expected calibration error is that of Guo et al. 2017 (arXiv:1706.04599), over ten bins of
    the probability of the label that was chosen.
    """
    probabilities_dc = probabilities(model, texts)
    chosen_d = np.array(model.labels)[probabilities_dc.argmax(axis=1)]
    right_d = chosen_d == np.array(labels)
    lines = [f"{len(texts):,} held-out lines: {right_d.mean():.2%} right", ""]
    width = max(map(len, (*model.labels, "label")))
    lines.append(f"{'label':{width}}  precision  recall   lines")
    for label in model.labels:
        chosen, true = chosen_d == label, np.array(labels) == label
        both = int((chosen & true).sum())
        precision, recall = (
            f"{both / n:.1%}" if (n := int(of.sum())) else "-" for of in (chosen, true)
        )
        lines.append(f"{label:{width}}  {precision:>9}  {recall:>6}  {true.sum():6,}")
    confidence_d = probabilities_dc.max(axis=1)
    bins_d = np.minimum((confidence_d * 10).astype(int), 9)
    lines += ["", "confidence  lines   mean   right"]
    error = 0.0
    for bin_ in np.unique(bins_d):
        inside_d = bins_d == bin_
        mean, right = confidence_d[inside_d].mean(), right_d[inside_d].mean()
        error += abs(mean - right) * inside_d.mean()
        edges = f"{bin_ / 10:.1f} to {(bin_ + 1) / 10:.1f}"
        lines.append(f"{edges}  {inside_d.sum():5,}  {mean:.3f}  {right:.3f}")
    lines.append(f"expected calibration error {error:.4f}")
    return "\n".join(lines)


def run() -> None:
    """The command."""
    values = flags.FLAGS
    for name in ("train", "out"):
        require(bool(values[name].value), f"--{name}=FILE is missing, see --help")
    require(0 <= values.holdout < 1, f"--holdout={values.holdout}: from 0 to below 1")
    given: dict[str, Any] = {field.name: values[field.name].value for field in fields(Settings)}
    settings = Settings(**given)
    texts, labels = read(Path(values.train), values.text, values.label)
    shuffled = order.permute(np.arange(len(texts)), len(texts), order.key(settings.seed, "holdout"))
    held = round(len(texts) * values.holdout)
    (tests, trained) = (
        [[column[i] for i in part] for column in (texts, labels)]
        for part in (shuffled[:held], shuffled[held:])
    )
    arrays = train(trained[0], trained[1], settings)
    save(values.out, arrays)
    print(f"{values.out}: {len(trained[0]):,} lines, labels {', '.join(arrays['labels'])}")
    if held:
        print(report(load(values.out), tests[0], tests[1]))


if __name__ == "__main__":  # flags are declared only here: commands that import this have an --out
    flags.DEFINE_string("train", None, "labelled lines: a .jsonl file")
    flags.DEFINE_string("out", None, "the file to write, .npz")
    flags.DEFINE_string("text", "text", "the field that holds the text")
    flags.DEFINE_string("label", "label", "the field that holds the label")
    flags.DEFINE_float("holdout", 0.1, "share of the lines that measures the result")
    flags.DEFINE_integer("dim", Settings.dim, "width of the embeddings")
    flags.DEFINE_integer("buckets", Settings.buckets, "rows of the table that words hash to")
    flags.DEFINE_integer("epochs", Settings.epochs, "passes over the lines")
    flags.DEFINE_float("learning_rate", Settings.learning_rate, "of Adagrad, at the start")
    flags.DEFINE_integer("seed", Settings.seed, "of the shuffles and the first weights")
    main(run)
