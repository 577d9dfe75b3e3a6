"""python -m data.build as a person or a script meets it."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data import store

REPOSITORY = Path(__file__).resolve().parents[2]


def _run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "data.build", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        **options,
    )


def _refused(*arguments, **options):
    """The sentence on stderr of a command that must fail."""
    result = _run(*arguments, **options)
    assert result.returncode == 2, result
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question:\n" * 100)
    return f"--sources=text:{tmp_path}/*.txt"


def test_a_store_is_built_and_reported(tmp_path, text):
    out = tmp_path / "store"
    command = [text, "--tokenizer=bpe:290", f"--out={out}", f"--json={tmp_path}/report.json"]
    result = _run(*command)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    built = store.open_store(out)
    built.verify()
    assert report["tokens"] == built.tokens("train") + built.tokens("validation")
    assert report["split"] == "tail"
    assert f"tokens of 290 kinds are in {out}" in result.stdout
    assert "fewer than 1,000" in result.stdout
    again = _run(*command)
    assert again.returncode == 0
    assert "complete already" in again.stdout


def test_the_recipe_of_the_quickstart_can_be_changed(tmp_path):
    recipe = "--config=configs/corpora/quickstart.py"
    result = _run(recipe, "--tokenizer=bytes", "--config.validation=0.1", f"--out={tmp_path}/store")
    assert result.returncode == 0, result.stderr
    assert "validation: 0.05 -> 0.1" in result.stdout
    built = store.open_store(tmp_path / "store")
    assert built.sources == ("stdlib",)
    assert 0.03 < built.bytes("validation") / built.bytes("train") < 0.3


def test_bad_commands_are_refused(tmp_path, text):
    out = f"--out={tmp_path}/store"
    assert "name one with --out=DIR" in _refused(text, "--tokenizer=bytes")
    assert "give --config=FILE, or --sources=" in _refused("--tokenizer=bytes", out)
    assert "give --config=FILE, or --tokenizer=" in _refused(text, out)
    assert "validation=1.5 must lie in" in _refused(
        text, "--tokenizer=bytes", "--validation=1.5", out
    )
    recipe = "--config=configs/corpora/quickstart.py"
    assert "--config.tokeniser" in _refused(recipe, "--config.tokeniser=bytes", out)
    assert not (tmp_path / "store").exists()


def test_bad_text_is_refused(tmp_path):
    common = ("--tokenizer=bytes", f"--out={tmp_path}/store")
    assert "no file matches" in _refused("--sources=text:/missing/*.txt", *common)
    (tmp_path / "bad.txt").write_bytes(b"ab\xffcd")
    sentence = _refused(f"--sources=text:{tmp_path}/bad.txt", *common)
    assert "holds no text" in sentence
    sentence = _refused(f"--sources=text:{tmp_path}/bad.txt", "--config.max_faults=0", *common)
    assert f"{tmp_path}/bad.txt is not UTF-8 (byte 0xff at offset 2)" in sentence
    (tmp_path / "bad.txt").write_bytes(b"")
    assert "holds no text" in _refused(f"--sources=text:{tmp_path}/bad.txt", *common)


def test_a_place_that_cannot_be_written_is_named(tmp_path, text):
    (tmp_path / "file").write_text("in the way")
    sentence = _refused(text, "--tokenizer=bytes", f"--out={tmp_path}/file/store")
    assert f"cannot write to {tmp_path}/file/store: Not a directory" in sentence


def test_a_full_disk_is_one_sentence_and_leaves_no_half_store(tmp_path, text):
    (tmp_path / "more.txt").write_text("x" * 3_000_000)

    def no_room():  # no file may grow beyond a megabyte
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    command = (text, "--tokenizer=bytes", f"--out={tmp_path}/store")
    sentence = _refused(*command, preexec_fn=no_room)
    assert f"cannot write to {tmp_path}/store/work/" in sentence
    assert "File too large; free space, or choose another place" in sentence
    assert not (tmp_path / "store" / store.MANIFEST).exists()
    assert _run(*command).returncode == 0
    store.open_store(tmp_path / "store").verify()


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc which processes run")
def test_a_killed_build_leaves_no_processes_and_no_half_store(tmp_path):
    (tmp_path / "text.txt").write_text("x" * 10_000_000)  # enough for workers to be started
    out = tmp_path / "store"
    command = [f"--sources=text:{tmp_path}/*.txt", "--tokenizer=bytes", f"--out={out}"]
    build = subprocess.Popen([sys.executable, "-m", "data.build", *command], cwd=REPOSITORY)
    while len(workers := _children(build.pid)) < 2:
        time.sleep(0.01)
    build.kill()
    build.wait()
    deadline = time.monotonic() + 20
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, workers))
    assert not (out / store.MANIFEST).exists()
    result = _run(*command)
    assert result.returncode == 0, result.stderr
    assert "going on with the build" in result.stdout
    store.open_store(out).verify()


def test_help_says_what_to_type():
    result = _run("--help")
    assert result.returncode == 0
    assert "python -m data.build --config=configs/corpora/quickstart.py" in result.stdout
    assert "--sources" in result.stdout
    assert "tokenizer_bytes" in result.stdout
