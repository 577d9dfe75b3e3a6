"""What figures are made of: bursts in turn, ratios within a round, contenders that fail."""

import json
import sys

import pytest

from benchmarks import harness

# Answers 1, 2, 3, ... times its argument; the first round, which does not count, is the 1.
COUNTER = """
import sys
from benchmarks import harness
seen = []
def burst():
    seen.append(float(sys.argv[1]))
    return {"seconds": sum(seen)}
print("noise on the way up")
harness.serve({"name": sys.argv[1]}, burst)
"""


def counter(unit: float) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-c", COUNTER, str(unit)], {}


def test_contenders_alternate_and_the_first_round_does_not_count():
    found = harness.alternate({"slow": counter(2), "fast": counter(1)}, rounds=3)
    assert [each["slow"]["seconds"] for each in found["rounds"]] == [4, 6, 8]
    assert [each["fast"]["seconds"] for each in found["rounds"]] == [2, 3, 4]
    assert found["facts"]["slow"] == {"name": "2"}
    assert harness.ratio(found["rounds"], "fast", "slow") == harness.Summary(2, 2, 2)
    assert 0 <= found["state"]["steal"] <= 1


def test_a_contender_that_cannot_start_is_named():
    broken = [sys.executable, "-c", "raise SystemExit(7)"]
    found = harness.alternate({"ours": counter(1), "theirs": (broken, {})}, rounds=1)
    assert list(found["rounds"][0]) == ["ours"]
    assert found["missing"]["theirs"].endswith("ended with 7")


def test_a_contender_that_ends_on_the_way_is_an_error():
    once = "import sys; print('{}', flush=True); sys.stdin.readline()"
    with pytest.raises(harness.Unavailable):
        harness.alternate({"short": ([sys.executable, "-c", once], {})}, rounds=1)


def test_ratios_are_taken_within_a_round():
    """A machine that halves its speed half-way changes no ratio, but every time."""
    rounds = [{"a": {"seconds": s}, "b": {"seconds": 3 * s}} for s in (1, 1, 2, 2)]
    assert harness.ratio(rounds, "a", "b") == harness.Summary(3, 3, 3)
    assert harness.summary([each["a"]["seconds"] for each in rounds]).median == 1.5


def test_what_is_written_says_where_it_is_from(tmp_path):
    place = tmp_path / "found.json"
    harness.write(place, {"answer": 1})
    kept = json.loads(place.read_text())
    assert kept["answer"] == 1
    assert kept["machine"]["cores"] > 0
    assert "jax" in kept["machine"]["versions"]
