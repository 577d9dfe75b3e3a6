"""It learns, says what JAX says, and is the same again from the same seed."""

import ast
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import InputError
from data import order
from data.clean import classifier

SMALL = classifier.Settings(dim=8, buckets=2**14, epochs=4)


@pytest.fixture(scope="module")
def lines():
    """Lines of Python's own modules: what docstrings say, and code."""
    found = []
    for path in sorted(Path(os.__file__).parent.glob("[a-t]*.py"))[::5]:
        source = path.read_text(errors="replace")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                said = ast.get_docstring(node) or ""
                found += [(line, "prose") for line in said.split("\n") if len(line.split()) >= 6]
                rest = "\n".join(map(ast.unparse, node.body[bool(said) :])).split("\n")
                found += [(line.strip(), "code") for line in rest if len(line.split()) >= 4]
    random.Random(0).shuffle(found)
    return found[:3000]


@pytest.fixture(scope="module")
def trained(lines, tmp_path_factory):
    """A model's file, and the lines it did not see."""
    path = tmp_path_factory.mktemp("classifier") / "model.npz"
    held = len(lines) // 5
    texts, labels = zip(*lines[held:], strict=True)
    classifier.save(path, classifier.train(texts, labels, SMALL))
    classifier.save(path.with_name("again.npz"), classifier.train(texts, labels, SMALL))
    return path, lines[:held]


def test_it_tells_prose_from_code(trained):
    path, held = trained
    model = classifier.load(path)
    chosen = classifier.probabilities(model, [text for text, _ in held]).argmax(axis=1)
    right = [model.labels[i] == label for i, (_, label) in zip(chosen, held, strict=True)]
    assert len(held) > 200
    assert min(sum(label == kind for _, label in held) for kind in model.labels) > 50
    assert np.mean(right) > 0.95


def test_the_same_seed_gives_the_same_bytes(trained):
    path, _ = trained
    assert path.read_bytes() == path.with_name("again.npz").read_bytes()


def test_it_scores_as_jax_does(trained):
    path, held = trained
    texts = ["", "one", *(text for text, _ in held[:60])]
    found = classifier.probabilities(classifier.load(path), texts)
    with np.load(path) as file:
        table, output = (jnp.asarray(file[key], jnp.float32) for key in ("table", "output"))
    [(ids, counts)] = classifier._hashed(texts, len(table))
    documents = np.repeat(np.arange(len(texts)), counts)
    logits = jax.jit(classifier._forward)(table[ids], output, documents)[: len(texts)]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[0], 0.5)
    assert found.dtype == np.float32


def test_a_step_follows_adagrad_by_hand():
    """One batch, whose gradients are known in closed form."""
    draw = np.random.default_rng(0)
    table, output = draw.normal(size=(5, 3)), draw.normal(size=(3, 2))
    state = tuple(map(jnp.float32, (table, output, np.full(5, 0.5), np.full((3, 2), 0.25))))
    ids, documents = np.array([0, 1, 1, 4, 2, 0]), np.array([0, 0, 1, 1, 1, 64])
    targets, weights = np.zeros(64, np.int32), np.zeros(64, np.float32)
    targets[1], weights[:2] = 1, 1
    found = jax.jit(classifier._step)(state, ids, documents, targets, weights, np.float32(0.1))

    means = np.array([table[[0, 1]].mean(0), table[[1, 4, 2]].mean(0)])
    chances = np.exp(means @ output)
    errors = chances / chances.sum(1, keepdims=True) - np.eye(2)
    rows = np.repeat(errors @ output.T / [[2], [3]], [2, 3], axis=0)
    squares = np.full(5, 0.5)
    np.add.at(squares, ids[:5], (rows**2).mean(1))
    np.add.at(table, ids[:5], -0.1 * rows / np.sqrt(squares[ids[:5]])[:, None])
    gradient = means.T @ errors
    output -= 0.1 * gradient / np.sqrt(0.25 + gradient**2)
    for ours, expected in zip(found, (table, output, squares, 0.25 + gradient**2), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4)


def _features(text, buckets):
    """What `_hashed` returns for one text, a token at a time."""
    text = text[: 2**18].lower()
    data = text.encode(errors="surrogatepass").decode("latin-1")
    words = re.findall(
        r"[\xe3-\xff][\w\x80-\xe2]*|[0-9a-z_\x80-\xe2]+|[!-/:-@\[-^`{-~]", data, re.A
    )
    hashes = []
    for word in words:
        value = sum((ord(c) + 1) * pow(classifier._BASE, i, 2**64) for i, c in enumerate(word))
        hashes.append(int(order.splitmix64(np.array([value % 2**64], np.uint64))[0]))
    found = []
    for i, word in enumerate(hashes):
        found.append(word)
        if i + 1 < len(hashes):
            pair = (word * int(classifier._PAIR) + hashes[i + 1]) % 2**64
            found.append(int(order.splitmix64(np.array([pair], np.uint64))[0]))
    return [(value >> 32) * buckets >> 32 for value in found]


TEXTS = st.lists(st.text(st.sampled_from("aZ_9 é漢字ไ.,\n\t\x00-#\ud800"), max_size=12), max_size=5)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, block=st.sampled_from([1, 20, 2**20]))
def test_hashing_against_a_walk_over_tokens(texts, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_BLOCK", block)
        found = list(classifier._hashed(texts, 1000))
    ids = [i for part, _ in found for i in part.tolist()]
    counts = [count for _, part in found for count in part.tolist()]
    expected = [_features(text, 1000) for text in texts]
    assert ids == [i for part in expected for i in part]
    assert counts == [len(part) for part in expected]


def test_blocks_do_not_matter(trained, monkeypatch):
    path, held = trained
    model = classifier.load(path)
    texts = [text for text, _ in held[:100]]
    whole = classifier.probabilities(model, texts)
    monkeypatch.setattr(classifier, "_BLOCK", 100)
    np.testing.assert_allclose(classifier.probabilities(model, texts), whole, rtol=1e-5)
    assert classifier.probabilities(model, []).shape == (0, 2)


def command(folder, lines, *flags):
    (folder / "lines.jsonl").write_text("".join(f"{line}\n" for line in lines))
    arguments = [f"--train={folder}/lines.jsonl", f"--out={folder}/model.npz", "--buckets=1024"]
    return subprocess.run(
        [sys.executable, "-m", "data.clean.classifier", *arguments, *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def test_the_command(tmp_path, lines):
    records = [json.dumps({"line": text, "kind": kind == "code"}) for text, kind in lines[:400]]
    flags = ("--text=line", "--label=kind", "--holdout=0.25", "--seed=3")
    done = command(tmp_path, records, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert "300 lines, labels false, true" in done.stdout
    assert "100 held-out lines: " in done.stdout
    assert re.search(r"^true +\d+\.\d% +\d+\.\d% +\d+$", done.stdout, re.M)
    assert "expected calibration error 0." in done.stdout
    assert classifier.load(tmp_path / "model.npz").labels == ("false", "true")


def test_the_report_by_hand():
    """Three of four right, at known confidences."""
    model = classifier.Model(("a", "b"), np.zeros((2, 8), np.float32))
    chances = np.array([[0.95, 0.05], [0.95, 0.05], [0.25, 0.75], [0.85, 0.15]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "probabilities", lambda *_: chances)
        found = classifier.report(model, ["w", "x", "y", "z"], ["a", "a", "b", "b"])
    error = (2 * 0.05 + 0.25 + 0.85) / 4
    assert found.split("\n") == [
        "4 held-out lines: 75.00% right",
        "",
        "label  precision  recall   lines",
        "a          66.7%  100.0%       2",
        "b         100.0%   50.0%       2",
        "",
        "confidence  lines   mean   right",
        "0.7 to 0.8      1  0.750  1.000",
        "0.8 to 0.9      1  0.850  0.000",
        "0.9 to 1.0      2  0.950  1.000",
        f"expected calibration error {error:.4f}",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": "b"}\n{"text"', "line 2: no JSON"),
        ('{"text": "a"}', "line 1: no field 'label'"),
        ('{"label": "a"}', "line 1: no field 'text'"),
        ('{"text": "a", "label": null}', "line 1: no field 'label'"),
        ('{"text": "a", "label": "b"}\n\n["a"]', "line 3: no field 'text'"),
        ("\n", "has no lines"),
        (None, "cannot read"),
    ],
)
def test_bad_lines(tmp_path, content, message):
    path = tmp_path / "lines.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        classifier.read(path, "text", "label")
    assert str(path) in str(caught.value)


def test_one_label_is_no_choice():
    with pytest.raises(InputError, match="labels to train on: 1;"):
        classifier.train(["a", "b"], ["x", "x"], SMALL)


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "other", "format"])
def test_bad_models(tmp_path, trained, damage):
    path = tmp_path / "model.npz"
    whole = trained[0].read_bytes()
    if damage == "text":
        path.write_text("no model")
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "other":
        np.savez(path, table=np.zeros(3))
    elif damage == "format":
        np.savez(path, format=99)
    message = {"missing": "no classifier at", "format": "has format 99"}
    with pytest.raises(InputError, match=message.get(damage, "is no classifier")):
        classifier.load(path)
