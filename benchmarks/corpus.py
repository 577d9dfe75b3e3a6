"""A made corpus through the whole pipeline: what of the planted is found, and what it costs.

    python -m benchmarks.corpus --megabytes=300 --workers=2 --folder=/tmp/planted

Builds the corpus of benchmarks/planted.py with the recipe of configs/corpora/web.py, and reads the
documents that are left: for each kind of document how many were made and how many are left, how
many near copies are dropped by their true similarity, and whether what identifies people is gone.
Prints the seconds and the peak memory of all processes together (resident, pages that several share
counted once).
"""

import json
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from absl import app, flags

from benchmarks import planted
from configs.corpus import Corpus, Decontaminate, Dedup, Source
from configs.flags import load
from data import corpus
from data.engine.local import open_local
from data.stages import publish, shards

_MEGABYTES = flags.DEFINE_integer("megabytes", 300, "text to make")
_WORKERS = flags.DEFINE_integer("workers", 2, "processes")
_FOLDER = flags.DEFINE_string("folder", None, "an empty or missing folder", required=True)
_TOKENIZER = flags.DEFINE_string("tokenizer", "unigram:8192", "as in data.build")


def recipe(folder: Path, tokenizer: str) -> Corpus:
    """Everything switched on."""
    web = load("configs/corpora/web.py")
    assert isinstance(web, Corpus)
    source = Source(kind="jsonl", pattern=str(folder / "pages-*.jsonl"), name="made")
    against = Source(kind="jsonl", pattern=str(folder / "eval.jsonl"), name="eval")
    return replace(
        web,
        sources=(source,),
        decontaminate=Decontaminate(against=(against,)),
        dedup=Dedup(exact=True, fuzzy=True, substrings=50),
        tokenizer=tokenizer,
        tokenizer_bytes=5_000_000,
        shard_tokens=20_000_000,  # so that corpora of 100 MB have several, as large ones do
        split="documents",
        validation=0.05,
        documents=True,
    )


class Memory(threading.Thread):
    """The most that this process and its children held at one time, in bytes (Linux)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        """Look five times a second."""
        while True:
            self.peak = max(self.peak, sum(map(_held, _family("self"))))
            time.sleep(0.2)


def _family(pid: str) -> list[str]:
    try:
        children = Path(f"/proc/{pid}/task").glob("*/children")
        return [
            pid,
            *(c for path in children for one in path.read_text().split() for c in _family(one)),
        ]
    except OSError:
        return []


def _held(pid: str) -> int:
    """Proportional set size: pages shared by n processes count 1/n in each."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * int(
        next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]
    )


def made(folder: Path) -> dict[str, tuple[str, str]]:
    """(url, text) of every document by its id."""
    documents = {}
    for path in sorted(folder.glob("pages-*.jsonl")):
        with path.open() as lines:
            for number, line in enumerate(lines, start=1):
                record = json.loads(line)
                documents[f"{path.name}:{number}"] = (record["url"], record["text"])
    return documents


def left(store: Path) -> dict[str, str]:
    """The text of every document that is left, by its id."""
    documents: dict[str, str] = {}
    for path in sorted((store / publish.FOLDER).glob("*")):
        columns = shards.load(path, ("id", "text"))
        documents |= dict(zip(columns["id"], columns["text"], strict=True))
    return documents


def kind(url: str) -> str:
    """What was planted."""
    return url.partition("//")[2].partition(".example")[0]


def grams(text: str) -> set[tuple[str, ...]]:
    """The word 5-grams of a text, without punctuation and case."""
    words = re.findall("[a-z]+", text.lower())
    return set(zip(*(words[i:] for i in range(5)), strict=False))


def by_similarity(
    before: dict[str, tuple[str, str]], after: dict[str, str]
) -> dict[float, list[int]]:
    """Near copies [made, left] by the true similarity to their original, in steps of .05."""
    wanted = {_original(url) for url, _ in before.values() if kind(url).startswith("near")}
    pages = {url: grams(text) for url, text in before.values() if url in wanted}
    found: dict[float, list[int]] = {}
    for name, (url, text) in before.items():
        if kind(url).startswith("near"):
            one, other = grams(text), pages[_original(url)]
            step = int(20 * len(one & other) / len(one | other)) / 20
            count = found.setdefault(step, [0, 0])
            count[0] += 1
            count[1] += name in after
    return found


def _original(url: str) -> str:
    return "http://page.example/" + url.rpartition("/")[2]


def print_found(before: dict[str, tuple[str, str]], after: dict[str, str]) -> None:
    """What of the planted is left."""
    kinds = Counter(kind(url) for url, _ in before.values())
    still = Counter(kind(before[name][0]) for name in after)
    print(f"\n{'kind':14}{'made':>9}{'left':>9}  share left")
    for name in planted.KINDS:
        print(f"{name:14}{kinds[name]:9,}{still[name]:9,}{still[name] / max(kinds[name], 1):9.2%}")
    people = [text for name, text in after.items() if kind(before[name][0]) == "person"]
    for what, pattern in (("e-mail", r"@mail\d"), ("phone", r"\(212\)"), ("ip", r"\b8\.8\.")):
        print(f"{what} still there: {sum(bool(re.search(pattern, text)) for text in people)}")
    print(f"\n{'similarity':14}{'made':>9}{'dropped':>9}  share dropped")
    for step, (count, stays) in sorted(by_similarity(before, after).items()):
        print(f"from {step:.2f}{count:14,}{count - stays:9,}{1 - stays / count:9.2%}")


def main(_: list[str]) -> None:
    folder = Path(_FOLDER.value)
    planted.make(folder, _MEGABYTES.value)
    memory = Memory()
    memory.start()
    start = time.monotonic()
    with open_local(_WORKERS.value) as engine:
        summary = corpus.build(recipe(folder, _TOKENIZER.value), folder / "store", engine)
    seconds, peak = time.monotonic() - start, memory.peak
    print_found(made(folder), left(folder / "store"))
    repeats = summary["counters"]["repeats"]
    print(f"repeats cut: {repeats}")
    print(f"{_MEGABYTES.value} MB in {seconds:.0f} s with {_WORKERS.value} workers: ", end="")
    print(f"{_MEGABYTES.value / seconds:.2f} MB/s, peak memory {peak / 1e6:,.0f} MB")


if __name__ == "__main__":
    app.run(main)
