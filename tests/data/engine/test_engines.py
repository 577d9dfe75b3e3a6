"""The same tasks on every engine, done once each, whatever interrupts them."""

import json

import pytest

from configs.schema import InputError
from data.engine.beam import Beam
from data.engine.flow import Flow
from data.engine.local import Local, open_local
from tests.data.engine import words

TEXTS = ["to be or not to be", "that is the question", "", "whether tis nobler in the mind"]
COUNTS = [{"words": n} for n in (6, 4, 0, 6)]


def content(folder):
    return {
        p.relative_to(folder): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and "sent" not in p.parts
    }


def both(engine, folder):
    """The results of a map and of a group."""
    flow = Flow(engine, folder)
    mapped = flow.map("count", words.count, TEXTS)
    grouped = flow.group("tally", words.send, words.tally, TEXTS, 3, after=(mapped,))
    return mapped.results, grouped.results


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What one process computes, and what it leaves."""
    folder = tmp_path_factory.mktemp("straight")
    return both(Local(), folder), content(folder)


def test_one_process_counts(straight):
    (mapped, grouped), files = straight
    assert mapped == COUNTS
    counted = {word: n for found in grouped for word, n in found["words"].items()}
    assert counted == {w: " ".join(TEXTS).split().count(w) for w in " ".join(TEXTS).split()}
    assert not [path for path in files if path.suffix in (".parts", ".tmp")]


def test_processes_do_the_same(straight, tmp_path):
    with open_local(2) as engine:
        assert both(engine, tmp_path) == straight[0]
    assert content(tmp_path) == straight[1]


def test_beam_does_the_same(straight, tmp_path):
    assert both(Beam("FnApiRunner"), tmp_path) == straight[0]
    assert content(tmp_path) == straight[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runner", "options"),
    [
        ("FnApiRunner", ("--direct_running_mode=multi_processing", "--direct_num_workers=2")),
        ("PortableRunner", ("--job_endpoint=embed", "--environment_type=LOOPBACK")),
    ],
)
def test_beam_with_workers_of_its_own_does_the_same(straight, tmp_path, runner, options):
    assert both(Beam(runner, options), tmp_path) == straight[0]
    assert content(tmp_path) == straight[1]


@pytest.mark.parametrize("make", [Local, lambda: Beam("FnApiRunner")])
def test_only_what_is_missing_is_done_again(make, tmp_path):
    flow = Flow(make(), tmp_path)
    stage = flow.map("count", words.count, TEXTS)
    (stage.folder / "stage.json").unlink()
    (stage.folder / "00001.json").write_text(json.dumps({"words": "kept"}))
    (stage.folder / "00002.json").unlink()
    again = flow.map("count", words.count, TEXTS)
    assert again.results == [COUNTS[0], {"words": "kept"}, *COUNTS[2:]]


def test_settings_and_earlier_stages_name_the_folder(tmp_path):
    flow = Flow(Local(), tmp_path)
    one = flow.map("count", words.count, TEXTS, depends=(1,))
    other = flow.map("count", words.count, TEXTS, depends=(2,))
    after = [flow.map("count", words.count, TEXTS, after=(stage,)) for stage in (one, other)]
    assert len({stage.folder for stage in (one, other, *after)}) == 4
    assert flow.map("count", words.count, [], depends=(1,)) == one  # it is not run again


@pytest.mark.parametrize("make", [Local, lambda: Beam("FnApiRunner")])
def test_what_is_wrong_with_a_task_is_one_sentence(make, tmp_path):
    flow = Flow(make(), tmp_path)
    with pytest.raises(InputError, match="bad is no text: leave it out"):
        flow.map("count", words.refuse, ["good", "bad", "good"])
    assert not list(tmp_path.rglob("stage.json"))
    assert flow.map("count", words.refuse, ["good", "mended", "good"]).results == [{"words": 1}] * 3


def test_a_worker_that_dies_is_one_sentence(tmp_path):
    with open_local(2) as engine, pytest.raises(InputError, match="a worker process was killed"):
        Flow(engine, tmp_path).map("die", words.die, TEXTS)


def test_a_missing_beam_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match="--runner=DataflowRunner needs Apache Beam: pip install"):
        Beam("DataflowRunner")
