"""Seconds to 1.88 nats/char on tiny Shakespeare: isoflop beside nanoGPT, alternated on one machine.

    python -m benchmarks.time_to_loss --nanogpt=CLONE --text=FILE --rounds=5 --json=loss.json

Both train on the first 90 % of the text and are judged on the last 10 %, with 4 layers, 4 heads,
width 128 and context 64, on the CPU. nanoGPT runs the CPU command of its README (2000 steps of 768
tokens) from an untouched clone and with --peer_python, which has PyTorch; it reaches the target at
the end of that run, and what it reports is its own estimate on 20 batches. isoflop runs
`python -m train --config=configs/shakespeare_char.py`; its loss is over the whole held-out text,
and round k uses seed k. Seconds are those of the whole process on both sides: imports, compiling,
evaluation, checkpoint, sample and closing report. No compilation cache is kept. Without --nanogpt
only ours runs. A round takes as long as both runs, two minutes on two cores.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import ROOT

TARGET = 1.88  # nats a character
SHARE = 0.25  # of the peer's time that ours may take
README_COMMAND = [
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=100",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
]


def prepare_nanogpt(options: argparse.Namespace, scratch: Path) -> Path:
    """A copy of the clone beside its prepared text."""
    home = scratch / "nanogpt"
    shutil.copytree(options.nanogpt, home, ignore=shutil.ignore_patterns(".git"))
    shutil.copy(options.text, home / "data/shakespeare_char/input.txt")
    prepare = [options.peer_python, "data/shakespeare_char/prepare.py"]
    subprocess.run(prepare, cwd=home, check=True, stdout=subprocess.DEVNULL)
    return home


def run_nanogpt(home: Path, python: str) -> dict[str, float]:
    """One run of the peer: seconds of its 2000 steps, and the loss that it then reports."""
    start = time.monotonic()
    command = [python, "train.py", *README_COMMAND]
    out = subprocess.run(command, cwd=home, check=True, capture_output=True, text=True).stdout
    seconds = time.monotonic() - start
    losses = re.findall(r"^step (\d+): .*val loss ([\d.]+)", out, flags=re.MULTILINE)
    return {"seconds": seconds, "steps": int(losses[-1][0]), "loss": float(losses[-1][1])}


def run_isoflop(store: Path, scratch: Path, seed: int) -> dict[str, float]:
    """One run of ours: seconds of the whole of it, of its parts, and the loss at its end."""
    workdir = scratch / f"isoflop-{seed}"
    command = [sys.executable, "-m", "train", "--config=configs/shakespeare_char.py"]
    command += [f"--workdir={workdir}", f"--config.data.path={store}", f"--config.seed={seed}"]
    kept = {key: value for key, value in os.environ.items() if "JAX_COMPILATION_CACHE" not in key}
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=kept, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    updates = [row["seconds"] for row in rows if row["kind"] == "train"]
    evaluation = [row for row in rows if row["kind"] == "eval"][-1]
    return {
        "seconds": seconds,
        "steps": evaluation["step"],
        "loss": evaluation["loss"],
        "updates": updates[-1] - updates[0],  # after the first, which waits for the compiler
        "evaluation": evaluation["seconds"] - updates[-1],
    }


def build_store(text: Path, scratch: Path) -> Path:
    """The text as characters, last 10 % held out."""
    store = scratch / "store"
    command = [sys.executable, "-m", "data.build", f"--sources=text:{text}", f"--out={store}"]
    command += ["--tokenizer=chars", "--validation=0.1", "--split=tail"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return store


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both, in turn, in each round; said as it goes."""
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        store = build_store(options.text.resolve(), scratch)
        home = prepare_nanogpt(options, scratch) if options.nanogpt else None
        for seed in range(options.rounds):
            found: dict[str, Any] = {"isoflop": run_isoflop(store, scratch, seed)}
            if home:
                found["nanoGPT"] = run_nanogpt(home, options.peer_python)
            rounds.append(found)
            said = [f"{run} {it['seconds']:.1f} s, {it['loss']:.4f}" for run, it in found.items()]
            print(f"seed {seed}: {'; '.join(said)}", file=sys.stderr, flush=True)
    return rounds


def main() -> None:
    parser = harness.parser(__doc__, rounds=5)
    text = ROOT / "tinyshakespeare.txt"
    parser.add_argument("--text", type=Path, default=text, help="tiny Shakespeare, 1.1 MB")
    parser.add_argument("--nanogpt", type=Path, help="a clone of karpathy/nanoGPT; none: only ours")
    parser.add_argument("--peer_python", default=sys.executable, help="one that has PyTorch")
    options = parser.parse_args()
    if not options.text.is_file():
        sys.exit(f"no text at {options.text}: give --text=FILE (tiny Shakespeare, 1.1 MB)")
    before = harness.Steal.now()
    rounds = measure(options)
    state = {"load": os.getloadavg()[0], "steal": harness.Steal.now().share_since(before)}
    rows = []
    for name in rounds[0]:
        runs = [found[name] for found in rounds]
        losses = harness.summary([run["loss"] for run in runs])
        mean = sum(run["loss"] for run in runs) / len(runs)
        rows.append(
            [
                *(name, str(runs[0]["steps"])),
                str(harness.summary([run["seconds"] for run in runs])),
                f"{mean:.4f} [{losses.low:.4f} to {losses.high:.4f}]",
                str(sum(run["loss"] <= TARGET for run in runs)) + f" of {len(runs)}",
            ]
        )
    head = ["run", "updates", "seconds", "nats/char, mean", f"at most {TARGET}"]
    print(harness.table(head, rows))
    for part in ("updates", "evaluation"):
        spent = harness.summary([found["isoflop"][part] for found in rounds])
        print(f"of ours, seconds of {part}: {spent}")
    if options.nanogpt:
        shares = [found["isoflop"]["seconds"] / found["nanoGPT"]["seconds"] for found in rounds]
        said = ", ".join(f"{share:.3f}" for share in shares)
        print(f"share of nanoGPT's time, by round: {said} (target: {SHARE})")
    print(f"load {state['load']:.1f}, steal {state['steal']:.1%}")
    harness.write(options.json, {"target": TARGET, "rounds": rounds, "state": state})


if __name__ == "__main__":
    main()
