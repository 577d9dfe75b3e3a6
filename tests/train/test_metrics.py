"""Rows: whole, once each, and never in the way of the run."""

import io
import json
import math
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from train import metrics
from train.metrics import Console, JsonLines, Meter, Sinks, TensorBoard, read_rows, truncate


def write(path, *rows):
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def row(step, kind="train", **more):
    return {"kind": kind, "step": step, **more}


def test_results_are_read_after_the_next_was_asked_for():
    happened = []

    def asked():
        for k in range(3):
            happened.append(f"ask {k}")
            yield k

    happened += (f"read {k}" for k in metrics.one_late(asked()))
    assert happened == ["ask 0", "ask 1", "read 0", "ask 2", "read 1", "read 2"]


def test_truncation_drops_later_steps_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = [row(0, "event"), row(1, loss=1.5), row(2), row(2, "eval")]
    write(path, *kept, row(3), row(4))
    truncate(path, 2)
    assert list(read_rows(path)) == kept
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_truncation_survives_a_line_that_a_kill_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, row(1), row(2))
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    truncate(path, 2)
    file = JsonLines(path)
    file.write(row(3))
    file.close()
    assert [r["step"] for r in map(json.loads, path.read_text().splitlines())] == [1, 2, 3]


def test_a_crash_while_truncating_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, row(1), row(2))

    def crash(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.metrics.os.fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        truncate(path, 1)
    assert len(list(read_rows(path))) == 2


def test_without_rows_there_is_nothing_to_truncate(tmp_path):
    truncate(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    file = JsonLines(tmp_path / "m")
    file.write(row(1, loss=math.nan, norm=math.inf, rate=0.5))
    file.close()
    assert json.loads((tmp_path / "m").read_text()) == row(1, loss=None, norm=None, rate=0.5)


def test_after_a_row_cut_short_by_a_full_disk_the_next_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "m"
    file = JsonLines(path)

    real = file._file

    class Full:
        def write(self, data):
            return real.write(data[:5])

    monkeypatch.setattr(file, "_file", Full())
    with pytest.raises(OSError, match="disk is full"):
        file.write(row(1))
    monkeypatch.undo()
    file.write(row(2))
    file.close()
    assert list(read_rows(path)) == [row(2)]


def test_a_full_disk_is_warned_about_once_and_stops_nothing(tmp_path, capsys):
    sinks = Sinks(tmp_path, 0)
    lines = sinks._sinks[0]
    assert isinstance(lines, JsonLines)
    lines._file.close()
    lines._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115, PTH123
    for step in (1, 2, 3):
        sinks.write(row(step, loss=1.0))
    sinks.close()
    assert capsys.readouterr().err.count("JsonLines failed") == 1
    assert [event.step for event in tensorboard_events(tmp_path / "tensorboard")][1:] == [
        0,
        1,
        2,
        3,
    ]


def tensorboard_events(folder):
    """The events in a folder, by the framing of TFRecord: length, checksum, bytes, checksum."""
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_tensorboard_holds_the_numbers_and_forgets_what_comes_again(tmp_path):
    board = TensorBoard(tmp_path / "b", first_step=7)
    board.write(row(8, loss=2.5, event="text is left out", sources={"a": 1}))
    board.close()
    _, start, event = tensorboard_events(tmp_path / "b")
    assert (start.step, start.session_log.status) == (7, SessionLog.START)
    assert [(v.tag, v.simple_value) for v in event.summary.value] == [("train/loss", 2.5)]
    assert event.step == 8


def test_the_meter_times_updates_and_leaves_pauses_out(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("train.metrics.time.monotonic", lambda: now[0])
    meter = Meter()
    meter.add(50.0)

    def finish(step, seconds):
        now[0] += seconds
        meter.finished(step)

    finish(1, 9.0)  # compiled
    assert math.isnan(meter.lap())
    finish(2, 1.0)
    finish(3, 3.0)
    assert meter.lap() == 2.0
    meter.pause()
    finish(4, 60.0)  # after an evaluation
    assert math.isnan(meter.lap())
    finish(5, 0.5)
    assert meter.lap() == 0.5
    assert meter.seconds == 50.0 + 73.5


def test_the_meter_counts_what_the_loop_waits_for_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.metrics.time.monotonic", lambda: now[0])
    meter = Meter()

    def late():
        for seconds in (3.0, 4.0):
            now[0] += seconds
            yield seconds

    for _ in meter.awaited(late()):
        now[0] += 100.0  # the update
    with meter.waiting("save"):
        now[0] += 5.0
    assert meter.waits() == {"data_seconds": 7, "save_seconds": 5, "evaluation_seconds": 0}
    assert set(meter.waits().values()) == {0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_one_line_rewritten():
    out = Terminal()
    console = Console(out)
    console.progress("step 1")
    console.progress("step 2")
    console.say("done")
    assert out.getvalue() == "\r\x1b[Kstep 1\r\x1b[Kstep 2\ndone\n"


def test_a_run_outlives_the_terminal_it_was_started_in():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console = Console(Gone())
    console.say("nobody reads this")
    console.progress("nor this")


def test_a_file_has_a_line_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.metrics.time.monotonic", lambda: now[0])
    out = io.StringIO()
    console = Console(out, every_seconds=5)
    for now[0] in (0.0, 1.0, 4.9, 5.0, 6.0):
        console.progress(f"at {now[0]}")
    assert out.getvalue() == "at 0.0\nat 5.0\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (3599, "59m59s"), (3600, "1h00m")]
)
def test_durations_read_as_people_say_them(seconds, text):
    assert metrics.duration(seconds) == text


def test_quantities_are_short():
    assert [metrics.quantity(x) for x in (1.5, 999, 12_345, 4.56e6, 7e9, 1e15)] == [
        "1.5",
        "999",
        "12.3k",
        "4.56M",
        "7G",
        "1e+03T",
    ]
