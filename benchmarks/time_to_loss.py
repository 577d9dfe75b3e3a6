"""Seconds to 1.88 nats/char on tiny Shakespeare: isoflop beside nanoGPT, alternated on one machine.

    python benchmarks/time_to_loss.py --text=tinyshakespeare.txt --nanogpt=CLONE --rounds=3

Both train on the first 90 % of the text and are judged on the last 10 %, context 64, on the CPU.
nanoGPT runs the CPU command of its README (2000 steps of 768 tokens; it needs PyTorch, the extra
`bench`) from an untouched clone; it reaches the target at the end of that run, and its own
estimate of the validation loss is printed beside. isoflop runs `python -m train` on
configs/shakespeare_char.py; its validation loss is over the whole held-out text. Both clocks start
when the process starts: imports, compilation and evaluations count. Each round runs both, in turn.
Round k uses seed k for ours; without --nanogpt only ours runs, which says how the loss varies.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 1.88  # nats a character
ROOT = Path(__file__).resolve().parent.parent
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


def run_nanogpt(clone: Path, text: Path, scratch: Path) -> dict:
    """One run of the peer: seconds to the end of its 2000 steps, and the loss it then reports."""
    home = scratch / "nanogpt"
    if not home.exists():
        shutil.copytree(clone, home, ignore=shutil.ignore_patterns(".git"))
        shutil.copy(text, home / "data/shakespeare_char/input.txt")
        prepare = [sys.executable, "data/shakespeare_char/prepare.py"]
        subprocess.run(prepare, cwd=home, check=True, stdout=subprocess.DEVNULL)
    start = time.monotonic()
    command = [sys.executable, "train.py", *README_COMMAND]
    out = subprocess.run(command, cwd=home, check=True, capture_output=True, text=True).stdout
    seconds = time.monotonic() - start
    losses = re.findall(r"^step (\d+): .*val loss ([\d.]+)", out, flags=re.MULTILINE)
    return {"seconds": seconds, "steps": int(losses[-1][0]), "loss": float(losses[-1][1])}


def run_isoflop(store: Path, scratch: Path, seed: int) -> dict:
    """One run of ours: seconds to the first evaluation at or below the target."""
    workdir = scratch / f"isoflop-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "train", "--config=configs/shakespeare_char.py"]
    command += [f"--workdir={workdir}", f"--config.data.path={store}", f"--config.seed={seed}"]
    start = time.monotonic()
    subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL).wait()
    total = time.monotonic() - start
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    ended = records[-1]["seconds"]
    evaluations = [r for r in records if r["kind"] == "eval"]
    reached = [r for r in evaluations if r["loss"] <= TARGET]
    first = reached[0] if reached else evaluations[-1]
    # The record's clock starts after the imports and stops before the closing report: both count.
    return {
        "seconds": total - (ended - first["seconds"]),
        "steps": first["step"],
        "loss": first["loss"],
        "final": evaluations[-1]["loss"],
        "reached": bool(reached),
    }


def build_store(text: Path, scratch: Path) -> Path:
    """The text as characters, last 10 % held out."""
    store = scratch / "store"
    command = [sys.executable, "-m", "data.build", f"--sources=text:{text}", f"--out={store}"]
    command += ["--tokenizer=chars", "--validation=0.1", "--split=tail"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return store


def main() -> None:
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    text = ROOT / "../shared/data/text/tinyshakespeare.txt"
    parser.add_argument("--text", type=Path, default=text)
    parser.add_argument("--nanogpt", type=Path, help="a clone of karpathy/nanoGPT; none: only ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.text.is_file():
        sys.exit(f"no text at {options.text}: give --text=FILE (tiny Shakespeare, 1.1 MB)")
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        store = build_store(options.text.resolve(), scratch)
        for seed in range(options.rounds):
            ours = run_isoflop(store, scratch, seed)
            line = f"seed {seed}: isoflop {ours['seconds']:.1f} s, step {ours['steps']}, "
            line += f"loss {ours['loss']:.4f}, at the end {ours['final']:.4f}"
            result = {"isoflop": ours}
            if options.nanogpt:
                peer = run_nanogpt(options.nanogpt.resolve(), options.text.resolve(), scratch)
                result |= {"nanogpt": peer, "ratio": ours["seconds"] / peer["seconds"]}
                line += f" | nanoGPT {peer['seconds']:.1f} s, loss {peer['loss']:.4f}"
                line += f" | ratio {result['ratio']:.2f}"
            rounds.append(result)
            print(line, flush=True)
    report = {
        "target": TARGET,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "rounds": rounds,
    }
    if options.nanogpt:
        report["median_ratio"] = statistics.median(r["ratio"] for r in rounds)
        print(f"median ratio of wall time, isoflop / nanoGPT: {report['median_ratio']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
