"""Speed of deduplication on this machine, on one core, beside datatrove's MinHash signatures.

    python -m benchmarks.dedup --peer_python=VENV/bin/python --json=dedup.json

Made up are English-like documents of log-normal length (mean about 3.6 kB; --text=FILES takes real
ones, cut to that length), a million signatures of which 300 000 are near-duplicates in groups of
Zipf-distributed size, and a shard of random ids. The peer runs in a Python of its own that has
datatrove[processing] and spacy; it and ours take turns, --rounds times, on the same documents.
Medians are printed. Times are of the processor, all threads together: other work on the machine
does not count, and more cores do not help.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np

from configs.corpus import Dedup
from data.dedup import clusters, contamination, exact, minhash, substrings

DOCUMENTS, PEER_DOCUMENTS = 4000, 200
SIGNATURES, DUPLICATES = 1_000_000, 300_000
TOKENS = 10_000_000

PEER = """
import json, sys, time
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
step = MinhashDedupSignature("/tmp", MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8))
texts = json.loads(sys.stdin.readline())
step.get_signature(step.get_shingles(texts[0]))
print("ready", flush=True)
for _ in sys.stdin:
    start = time.process_time()
    for text in texts:
        shingles = step.get_shingles(text)
        if shingles.size:
            step.get_signature(shingles)
    print(time.process_time() - start, flush=True)
"""


def made_texts() -> list[str]:
    random = np.random.default_rng(0)
    letters = list("etaoinshrdlucmfwypvbgk")
    vocabulary = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(30_000)]
    marks = np.array([" ", ", ", ". ", " - ", " 1984 ", "\n"])
    texts = []
    for words in np.maximum(20, random.lognormal(6, 0.7, DOCUMENTS)).astype(int):
        chosen = np.minimum(random.zipf(1.2, words), len(vocabulary)) - 1
        between = random.choice(marks, words, p=[0.84, 0.06, 0.05, 0.01, 0.02, 0.02])
        texts.append("".join(vocabulary[i] + mark for i, mark in zip(chosen, between, strict=True)))
    return texts


def real_texts(files: list[str]) -> list[str]:
    joined = "\n".join(Path(file).read_text() for file in files)
    return [joined[start : start + 3600] for start in range(0, len(joined), 3600)]


def made_signatures() -> np.ndarray:
    """Groups around a first document, from 50 to 100 % of whose values the others share."""
    random = np.random.default_rng(0)
    signatures = random.integers(0, 2**32 - 1, (SIGNATURES, 112), dtype=np.uint32)
    rows, start = random.permutation(SIGNATURES), 0
    while start < DUPLICATES:
        group = rows[start : start + min(1 + random.zipf(2.2), 3000)]
        similarity = random.uniform(0.5, 1, (len(group), 1))
        shared = random.random((len(group), 112)) < similarity
        signatures[group] = np.where(shared, signatures[group[0]], signatures[group])
        start += len(group)
    return signatures


def cluster(signatures: np.ndarray, dedup: Dedup) -> int:
    """From signatures to the places that go: how many."""
    places = np.arange(len(signatures), dtype=np.uint64)
    keys = minhash.band_keys(signatures, dedup.bands)
    found = [clusters.candidates(keys[:, band], places) for band in range(dedup.bands)]
    edges = clusters.distinct(np.concatenate(found))
    similar = clusters.agreements(edges, signatures, places) >= dedup.similarity
    return len(clusters.survivors(edges[similar])[0])


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def peer(python: str, texts: list[str]):  # type: ignore[no-untyped-def]
    """A function that lets the peer do its round, and returns its seconds."""
    process = subprocess.Popen(
        [python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    to, back = process.stdin, process.stdout
    assert to
    assert back

    def answer(line: str) -> str:
        with suppress(BrokenPipeError):
            to.write(line + "\n")
            to.flush()
        reply = back.readline()
        if not reply:
            sys.exit(f"{python} does not run datatrove: pip install 'datatrove[processing]' spacy")
        return reply

    answer(json.dumps(texts))
    try:
        yield lambda: float(answer("go"))
    finally:
        with suppress(BrokenPipeError):
            to.close()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--text", nargs="*", default=[], help="files to take text from")
    parser.add_argument("--peer_python", help="a Python that has datatrove[processing] and spacy")
    parser.add_argument("--json", help="where to write the figures")
    arguments = parser.parse_args()

    dedup = Dedup()
    texts = real_texts(arguments.text) if arguments.text else made_texts()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    sampled = texts[:: max(1, len(texts) // PEER_DOCUMENTS)]
    sampled_megabytes = sum(len(text.encode()) for text in sampled) / 1e6
    signatures = made_signatures()
    tokens = np.random.default_rng(0).integers(1, 2**16, TOKENS, dtype=np.uint16)
    ends = np.arange(1000, TOKENS + 1, 1000)
    evaluation, _ = contamination.index(texts[::100], 13)

    def per_megabyte(work: Callable[[], object]) -> Callable[[], float]:
        return lambda: megabytes / seconds(work)

    def per_token(work: Callable[[], object]) -> Callable[[], float]:
        return lambda: TOKENS / 1e6 / seconds(work)

    ways: dict[str, Callable[[], float]] = {
        "exact keys, MB/s": per_megabyte(lambda: exact.keys(texts)),
        "signatures, MB/s": per_megabyte(lambda: minhash.signatures(texts, dedup)),
        "contamination, MB/s": per_megabyte(lambda: contamination.hits(texts, [evaluation])),
        "clustering a million signatures, s": lambda: seconds(lambda: cluster(signatures, dedup)),
        "windows of 50, Mtokens/s": per_token(lambda: substrings.window_hashes(tokens, ends, 50)),
        "anchors of 50, Mtokens/s": per_token(lambda: substrings.anchors(tokens, ends, 50)),
    }
    used = peer(arguments.peer_python, sampled) if arguments.peer_python else nullcontext()
    with used as go:
        if go:
            ways["datatrove signatures, MB/s"] = lambda: sampled_megabytes / go()
        minhash.signatures(texts[:10], dedup)  # tables and powers, made once
        contamination.hits(texts[:10], [evaluation])
        measured: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, measure in ways.items():
                measured[name].append(measure())

    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; {len(texts)} documents, {megabytes:.1f} MB; {arguments.rounds} rounds")
    for name, figures in measured.items():
        low, high = min(figures), max(figures)
        print(f"{name:36} {statistics.median(figures):8.3g}   ({low:.3g} to {high:.3g})")
    if go:
        ours, theirs = measured["signatures, MB/s"], measured["datatrove signatures, MB/s"]
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"{'signatures, ratio to datatrove':36} {ratio:8.3g}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": machine, **measured}, indent=1))


if __name__ == "__main__":
    main()
