"""Quality rules beside datatrove's four filters: speed, and whether they drop the same documents.

    python -m benchmarks.quality --peer_python=/path/to/venv/bin/python --documents DIR FILE.bz2

The peer's environment has datatrove and spacy; neither downloads anything for this. Documents are
the files given, or those of folders, cut at line ends to pieces of about --characters; without any,
the standard library's sources. Some made of random words are added.

Both sides have one process on one core and the thresholds of configs.corpus, run every rule on
every document, and take turns on the same sample; the processor's time counts. Timed are the four
verdicts on the same documents ("verdicts": measuring them, dropping lines as C4 does, and measuring
what is left) and the work of a pipeline on as much text ("one pass": dropping lines, and measuring
the whole documents once). The table counts the documents that both keep, both drop, and one alone
drops, and the cause of each difference:

    words       datatrove given our words decides as we do
    apostrophe  its C4 without lines that end in an apostrophe does
    once        it drops for a top n-gram, and none occurs twice
    n-grams     another share of n-grams decides
    length      C4's largest page, which datatrove does not have
    lines       empty lines
    marks       what is a mark and what a word
"""

import argparse
import bz2
import dataclasses
import json
import os
import platform
import random
import statistics
import subprocess
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from configs.corpus import RULES, Clean
from data.clean import lines, quality, rules, wordsplit

# Reads a request a line, {"texts", "words" or null}; answers {"seconds", "dropped": RULES x texts}.
PEER = """
import importlib, json, os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
limits = json.loads(sys.argv[2])
from datatrove.data import Document
import numpy; numpy.seterr(all="ignore")
import warnings; warnings.simplefilter("ignore")
names = {"gopher_repetition": "gopher_repetition_filter", "gopher_quality": "gopher_quality_filter",
         "c4": "c4_filters", "fineweb": "fineweb_quality_filter"}
modules = {name: importlib.import_module("datatrove.pipeline.filters." + file)
           for name, file in names.items()}
c4, web = limits["c4"], limits["fineweb"]
make = {
    "gopher_repetition": modules["gopher_repetition"].GopherRepetitionFilter,
    "gopher_quality": modules["gopher_quality"].GopherQualityFilter,
    "c4": lambda: modules["c4"].C4QualityFilter(
        filter_no_terminal_punct=c4["terminal_punctuation"],
        min_num_sentences=c4["min_sentences"], min_words_per_line=c4["min_line_words"],
        max_word_length=c4["max_word_characters"]),
    "fineweb": lambda: modules["fineweb"].FineWebQualityFilter(
        line_punct_thr=web["min_punctuated_lines"], short_line_thr=web["max_short_lines"],
        char_duplicates_ratio=web["max_repeated_lines"], new_line_ratio=web["max_newlines"]),
}
filters = {name: make[name]() for name in limits["rules"]}
split = modules["fineweb"].split_into_words
def decide(filter_, text):
    try:
        answer = filter_.filter(Document(text=text, id=""))
    except (ZeroDivisionError, ValueError, IndexError) as error:
        return "error"
    return "" if answer is True else answer[1]
for line in sys.stdin:
    request = json.loads(line)
    words = request["words"] and dict(zip(request["texts"], request["words"]))
    for module in modules.values():
        module.split_into_words = (lambda text, language: words[text]) if words else split
    modules["c4"].END_PUNCTUATION = (".", "?", "!", '"') if words else (".", "?", "!", '"', "'")
    start = time.process_time()
    dropped = [[decide(filter_, text) for filter_ in filters.values()] for text in request["texts"]]
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "dropped": list(zip(*dropped))}), flush=True)
"""


def pieces(path: Path, characters: int) -> Iterator[str]:
    """The file's text, cut at line ends."""
    data = path.read_bytes()
    text = (bz2.decompress(data) if path.suffix == ".bz2" else data).decode(errors="replace")
    piece: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        piece.append(line)
        size += len(line)
        if size > characters or path.suffix == ".cor":  # a document a line
            yield "".join(piece)
            piece, size = [], 0
    yield "".join(piece)


def made(count: int) -> Iterator[str]:
    """Documents of random words: with few different ones, short lines, bullets, ellipses."""
    chance = random.Random(0)
    words = ["the", "of", "and", "to", "that", "have", "with", "river", "Privacy", "12", "don't"]
    separators = [" "], [" ", "\n"], [" ", ". ", "\n\n"], [" ", "...\n", "# "], [" ", "\n- "]
    for _ in range(count):
        some = words[: chance.choice([2, 5, len(words)])]
        between = chance.choice(separators)
        size = chance.randint(1, 400)
        yield "".join(chance.choice(some) + chance.choice(between) for _ in range(size))


def documents(paths: list[Path], characters: int) -> list[str]:
    files = sorted(f for path in paths for f in (path.rglob("*") if path.is_dir() else [path]))
    texts = [text for file in files if file.is_file() for text in pieces(file, characters)]
    return [text for text in [*texts, *made(len(texts) // 8)] if text.strip()]


def ours(texts: list[str]) -> list[list[str]]:
    """Why each rule drops each document; empty: it does not."""
    measured = quality.measure(texts)
    page = quality.measure([lines.c4_lines(text, Clean().c4)[0] for text in texts])
    answers = []
    for rule in RULES:
        first, names = rules.verdicts(page if rule == "c4" else measured, Clean(rules=(rule,)))
        answers.append([names[index] if index >= 0 else "" for index in first])
    return answers


def one_pass(texts: list[str]) -> np.ndarray:
    """The first rule that each document fails."""
    clean = Clean(rules=RULES)
    for text in texts:
        lines.c4_lines(text, clean.c4)
    return rules.verdicts(quality.measure(texts), clean)[0]


def words_of(text: str) -> list[str]:
    text = f" {text}  "
    chars = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    flags = wordsplit.flags(chars)
    spans = wordsplit.split(chars, flags, wordsplit.chunks(flags), wordsplit.hasher(chars))
    return [text[start:stop] for start, stop in zip(*spans, strict=True)]


def cause(rule: str, text: str, our: str, peer: str, with_words: str) -> str:
    """Why the verdicts on a document differ."""
    if peer == "error":
        return "error of the peer"
    if our.endswith("max_characters"):
        return "length"
    if bool(with_words) == bool(our):
        return "apostrophe" if rule == "c4" else "words"
    if with_words.startswith("top_") and not our:
        top = quality.measure([text])[with_words.replace("_gram", "gram")]
        return "n-grams" if top[0] > 0 else "once"
    if "gram" in our + with_words:
        return "n-grams"
    if rule == "gopher_repetition":
        return "lines"
    return "marks" if rule == "gopher_quality" else "unknown"


def ask(peer: subprocess.Popen[str], texts: list[str], words: list[list[str]] | None) -> dict:
    to, from_ = peer.stdin, peer.stdout
    assert to is not None
    assert from_ is not None
    print(json.dumps({"texts": texts, "words": words}), file=to, flush=True)
    answer = from_.readline()
    if not answer:
        raise SystemExit("the peer has stopped: its environment needs datatrove and spacy")
    return json.loads(answer)


def compare(peer: subprocess.Popen[str], texts: list[str]) -> None:
    mine, theirs = ours(texts), ask(peer, texts, None)["dropped"]
    dropped = np.array([[bool(r) for r in rule] for side in (mine, theirs) for rule in side])
    differing = np.flatnonzero((dropped[: len(RULES)] != dropped[len(RULES) :]).any(0)).tolist()
    some = [texts[d] for d in differing]
    again = ask(peer, some, [words_of(text) for text in some])["dropped"] if some else theirs
    print(f"\n{'rule':<18}   both keep   both drop  ours alone  peer alone  agree  causes")
    for rule, our, peer_, with_words in zip(RULES, mine, theirs, again, strict=True):
        pairs = Counter((bool(a), bool(b)) for a, b in zip(our, peer_, strict=True))
        causes = Counter(
            cause(rule, texts[d], our[d], peer_[d], with_words[index])
            for index, d in enumerate(differing)
            if bool(our[d]) != bool(peer_[d])
        )
        agree = (pairs[False, False] + pairs[True, True]) / len(texts)
        row = "".join(
            f"{pairs[key]:>12}"
            for key in ((False, False), (True, True), (True, False), (False, True))
        )
        why = ", ".join(f"{name} {count}" for name, count in causes.most_common())
        print(f"{rule:<18}{row}  {agree:.3f}  {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality rules beside datatrove.")
    parser.add_argument("--peer_python", required=True, help="the Python that has datatrove")
    parser.add_argument("--documents", nargs="*", type=Path, default=[])
    parser.add_argument("--characters", type=int, default=8000)
    parser.add_argument("--sample", type=int, default=200, help="documents that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    paths = arguments.documents or [*Path(sysconfig.get_paths()["stdlib"]).glob("*.py")]
    texts = documents(paths, arguments.characters)
    sample = texts[:: max(1, len(texts) // arguments.sample)]
    megabytes = sum(len(text.encode()) for text in sample) / 1e6
    limits = dataclasses.asdict(Clean(rules=RULES))
    command = [arguments.peer_python, "-c", PEER, str(core), json.dumps(limits)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as peer:
        ours(sample[:5])  # what is made once: tables here, the tokenizer there
        ask(peer, sample[:5], None)
        seconds: dict[str, list[float]] = {"verdicts": [], "one pass": [], "datatrove": []}
        for _ in range(arguments.rounds):
            for name, work in (("verdicts", ours), ("one pass", one_pass)):
                start = time.process_time()
                work(sample)
                seconds[name].append(time.process_time() - start)
            seconds["datatrove"].append(ask(peer, sample, None)["seconds"])
        machine = platform.processor() or platform.machine()
        print(f"{machine}, one core; {len(sample)} of {len(texts)} documents, {megabytes:.2f} MB")
        for name, times in seconds.items():
            median = statistics.median(times)
            pairs = zip(seconds["datatrove"], times, strict=True)
            ratio = statistics.median(peer_ / our for peer_, our in pairs)
            rates = f"{len(sample) / median:>8.1f} documents/s  {megabytes / median:>7.2f} MB/s"
            print(f"{name:<10} {rates}  {ratio:>6.1f} x datatrove")
        compare(peer, texts)


if __name__ == "__main__":
    main()
