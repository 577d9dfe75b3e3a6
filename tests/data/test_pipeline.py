"""A made corpus through every stage: what was planted is found, whoever runs the stages."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import corpus as benchmark
from benchmarks import planted
from configs.corpus import Dedup, GopherQuality
from data import corpus, pipeline, store
from data.engine.beam import Beam
from data.engine.flow import out
from data.engine.local import Local, open_local
from data.report import HTML, JSON

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with 2 MB of documents, of which shards of 400 kB are made."""
    folder = tmp_path_factory.mktemp("made")
    planted.make(folder, 2, files=3)
    return folder


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(pipeline, "SHARD_BYTES", 400_000)


@pytest.fixture(scope="module")
def built(made, tmp_path_factory):
    """The store that one process builds, and what was counted."""
    out = tmp_path_factory.mktemp("built") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SHARD_BYTES", 400_000)
        return out, corpus.build(benchmark.recipe(made, "bpe:400"), out, Local())


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "work" not in path.parts
    }


def test_what_was_planted_is_found(made, built):
    before, after = benchmark.made(made), benchmark.left(built[0])
    left = {kind: [0, 0] for kind in planted.KINDS}
    for name, (url, _) in before.items():
        left[benchmark.kind(url)][0] += 1
        left[benchmark.kind(url)][1] += name in after
    assert all(count > 0 for count, _ in left.values())
    for kind in ("page", "person", "passage"):
        assert left[kind][0] == left[kind][1], kind
    for kind in ("exact", "contaminated", *planted.JUNK):
        assert left[kind][1] == 0, kind
    for similarity, (count, stays) in benchmark.by_similarity(before, after).items():
        if similarity < 0.65:
            assert stays == count
        if similarity >= 0.85:
            assert stays <= 0.05 * count
    people = "".join(text for name, text in after.items() if "person" in before[name][0])
    assert "@mail" not in people
    assert "(212)" not in people


def test_passages_stay_once(made, built):
    """Of each of the planted passages one occurrence is left in the ids."""
    opened = store.open_store(built[0])
    decode = opened.tokenizer().decode
    text = " ".join(decode(shard_ids(opened, split)) for split in store.SPLITS)
    before = " ".join(text for _, text in benchmark.made(made).values())
    repeated = [passage for passage in planted.passages(0) if before.count(passage) > 1]
    assert len(repeated) >= 3
    for passage in repeated:
        middle = " ".join(passage.split()[30:60])
        assert text.count(middle) == 1


def shard_ids(opened, split):
    stream = opened.stream(split)
    ids = np.empty(stream.tokens, np.int32)
    stream.read(0, ids)
    return ids.tolist()


def test_counts_add_up(built):
    out, summary = built
    report = json.loads((out / JSON).read_text())
    for one, other in zip(report["funnel"], report["funnel"][1:], strict=False):
        assert one["documents"][1] == other["documents"][0]
        assert one["text_bytes"][1] == other["text_bytes"][0]
    assert report["funnel"][-1]["tokens"][1] == summary["tokens"]
    dropped = sum(count for count, _ in report["dropped"].values())
    first, last = report["funnel"][0]["documents"][1], report["funnel"][-1]["documents"][1]
    assert first - dropped == last == summary["documents"]
    page = (out / HTML).read_text()
    for reason, samples in report["samples"].items():
        assert reason in page
        assert len(samples) == min(10, report["dropped"][reason][0])
    store.open_store(out).verify()


class Backwards(Local):
    """One process that does the last task first."""

    def _all(self, name, actions, folder):
        outs = [out(folder, number) for number in range(len(actions))]
        found = [action(path) for action, path in reversed(list(zip(actions, outs, strict=True)))]
        return found[::-1]


@pytest.mark.parametrize("workers", [2, "beam", "backwards"])
def test_whoever_builds_it_the_store_is_the_same(made, built, tmp_path, workers):
    recipe = benchmark.recipe(made, "bpe:400")
    if workers == "beam":
        corpus.build(recipe, tmp_path / "store", Beam("FnApiRunner"))
    elif workers == "backwards":
        corpus.build(recipe, tmp_path / "store", Backwards())
    else:
        with open_local(workers) as engine:
            corpus.build(recipe, tmp_path / "store", engine)
    assert content(tmp_path / "store") == content(built[0])


def test_other_thresholds_begin_at_the_selection(made, tmp_path):
    recipe = replace(benchmark.recipe(made, "bytes"), dedup=Dedup())
    corpus.build(recipe, tmp_path / "one", Local(), tmp_path / "work")
    before = {path.name for path in (tmp_path / "work").iterdir()}
    longer = replace(recipe.clean, gopher_quality=GopherQuality(min_words=500))
    summary = corpus.build(
        replace(recipe, clean=longer), tmp_path / "two", Local(), tmp_path / "work"
    )
    added = {path.name for path in (tmp_path / "work").iterdir()} - before
    assert {name.partition("-")[0] for name in added} == {"select", "encode"}
    assert summary["counters"]["dropped"]["gopher_quality: min_words"][0] > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("runner", "options"),
    [
        ("FnApiRunner", ("--direct_running_mode=multi_processing", "--direct_num_workers=2")),
        ("PortableRunner", ("--job_endpoint=embed", "--environment_type=LOOPBACK")),
    ],
)
def test_beam_with_workers_of_its_own_builds_the_same(made, built, tmp_path, runner, options):
    corpus.build(benchmark.recipe(made, "bpe:400"), tmp_path / "store", Beam(runner, options))
    assert content(tmp_path / "store") == content(built[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_the_store_is_the_same(made, tmp_path):
    """The command with two workers, killed with all its processes, and run again to the end."""
    recipe = tmp_path / "recipe.py"
    config = benchmark.recipe(made, "bpe:400")
    recipe.write_text(f"from configs.corpus import *\nget_config = lambda: {config!r}\n")
    command = [sys.executable, "-m", "data.build", f"--config={recipe}", "--workers=2"]

    def start(out):
        return subprocess.Popen(
            [*command, f"--out={out}"],
            cwd=REPOSITORY,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(process):
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    began = time.monotonic()
    finish(start(tmp_path / "straight"))
    whole = time.monotonic() - began
    rng = random.Random(os.getpid())
    kills = 0
    while kills < 8:
        process = start(tmp_path / "store")
        try:
            process.communicate(timeout=rng.uniform(0.1, 0.9) * whole)
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
    finish(start(tmp_path / "store"))
    assert kills >= 2
    assert content(tmp_path / "store") == content(tmp_path / "straight")
