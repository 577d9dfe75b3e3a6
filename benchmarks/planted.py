"""A made corpus in which it is known what is wrong with each document.

Text is drawn from the words of the Python standard library by frequency, in sentences and
paragraphs, so that any amount of it can be made and no two documents are alike by chance. What was
planted stands in the url of a document: http://KIND.example/NUMBER, or http://near-85.example/NUMBER
for a copy at a Jaccard similarity of .85 (of word 5-grams) of http://page.example/NUMBER.
"""

import json
import re
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np

SPANISH = """de la que el en y a
los del se las por un para con no una su al lo como más pero sus le ya o
este sí porque esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos
durante todos uno les ni contra otros ese eso ante ellos e esto mí antes"""
STOP = "the be to of and that have with in for it is as on at by this from are or not an"
LINK = "Share this page with your friends and sign up for our weekly letter to hear of new stories"

# kind: share of documents
KINDS = {
    "page": 0.72,
    "exact": 0.05,
    "near-95": 0.03,
    "near-85": 0.03,
    "near-55": 0.03,
    "contaminated": 0.01,
    "person": 0.03,
    "passage": 0.03,
    "repeating": 0.02,
    "symbols": 0.02,
    "short": 0.02,
    "spanish": 0.01,
}
JUNK = ("repeating", "symbols", "short", "spanish")


class Maker:
    """Draws text. Everything follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        counts: Counter[str] = Counter()
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            counts.update(re.findall("[a-z]{3,12}", path.read_text()))
        known = [word for word, count in counts.most_common(20_000) if count > 2]
        self.words = np.array(STOP.split() + known, object)
        weights = 1 / (np.arange(len(self.words)) + 8.0)
        self.cumulative = np.cumsum(weights / weights.sum())

    def draw(self, count: int) -> list[str]:
        """So many words."""
        at = np.searchsorted(self.cumulative, self.random.random(count))
        return self.words[np.minimum(at, len(self.words) - 1)].tolist()

    def text(self, words: list[str]) -> str:
        """Words as sentences of 8 to 24, four sentences to a paragraph."""
        sentences = []
        at = 0
        while at < len(words):
            size = int(self.random.integers(8, 25))
            sentences.append(" ".join(words[at : at + size]).capitalize() + ".")
            at += size
        paragraphs = [" ".join(sentences[i : i + 4]) for i in range(0, len(sentences), 4)]
        return "\n".join(paragraphs) + "\n"

    def length(self) -> int:
        """Words of a document: lognormal, 400 in the median."""
        return int(np.clip(self.random.lognormal(6.0, 0.6), 80, 5_000))


def similar(words: list[str], jaccard: float, maker: Maker) -> list[str]:
    """A copy with words replaced, so that it shares so much of all word 5-grams of both."""
    shared = 2 * jaccard / (1 + jaccard)  # of each one's 5-grams
    changed = maker.random.random(len(words)) < 1 - shared ** (1 / 5)
    return [
        new if change else old
        for old, new, change in zip(words, maker.draw(len(words)), changed, strict=True)
    ]


def passages(seed: int) -> list[str]:
    """The passages that documents of kind passage share."""
    maker = Maker(seed + 1)
    return [" ".join(maker.draw(90)) for _ in range(8)]


def make(folder: Path, megabytes: int, seed: int = 0, files: int = 8) -> None:
    """Write pages-0.jsonl and so on, and eval.jsonl, the evaluation set, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(seed)
    evaluation = [maker.draw(120) for _ in range(200)]
    lines = [json.dumps({"text": maker.text(words)}) for words in evaluation]
    (folder / "eval.jsonl").write_text("\n".join(lines) + "\n")
    known = passages(seed)
    pages: list[tuple[int, list[str], str]] = []  # some to copy
    kinds, shares = list(KINDS), np.array(list(KINDS.values()))
    number = 0
    for file in range(files):
        size = 0
        with (folder / f"pages-{file}.jsonl").open("w") as out:
            while size < megabytes * 1e6 / files:
                kind = str(maker.random.choice(kinds, p=shares)) if len(pages) > 100 else "page"
                number += 1
                name = number
                words = maker.draw(maker.length())
                text = maker.text(words)
                if kind == "page" and (len(pages) < 3_000 or maker.random.random() < 0.01):
                    pages.append((number, words, text))
                elif kind == "exact" or kind.startswith("near"):
                    name, words, text = pages[int(maker.random.integers(len(pages)))]
                    if kind != "exact":
                        level = int(kind[5:]) / 100
                        text = maker.text(similar(words, level, maker))
                else:
                    text = _spoil(kind, text, words, evaluation, known, maker)
                line = json.dumps({"text": text, "url": f"http://{kind}.example/{name}"}) + "\n"
                out.write(line)
                size += len(line)


def _spoil(
    kind: str,
    text: str,
    words: list[str],
    evaluation: list[list[str]],
    known: list[str],
    maker: Maker,
) -> str:
    """The text with what its kind plants."""
    paragraphs = text.splitlines()
    at = int(maker.random.integers(len(paragraphs)))
    if kind == "contaminated":
        found = evaluation[int(maker.random.integers(len(evaluation)))]
        start = int(maker.random.integers(len(found) - 30))
        paragraphs[at] += f" {' '.join(found[start : start + 30])}."
    elif kind == "person":
        one, two = maker.random.integers(100, 999, 2)
        paragraphs[at] += (
            f" Write to {words[0]}.{words[1]}@mail{one}.com or call (212) {one}-{two}4 today, "
            f"our server is 8.8.{one % 250}.{two % 250} and always on."
        )
    elif kind == "passage":
        paragraphs.insert(at, known[int(maker.random.integers(len(known)))] + ".")
    elif kind == "repeating":
        return "\n".join([LINK + "."] * 40 + paragraphs[:2])
    elif kind == "symbols":
        return "\n".join(
            f"{a} # {b} ... | # {c} > 100 % #" for a, b, c in zip(*[iter(words)] * 3, strict=False)
        )
    elif kind == "short":
        return " ".join(words[:20])
    elif kind == "spanish":
        return maker.text(maker.random.choice(SPANISH.split(), len(words)).tolist())
    return "\n".join(paragraphs) + "\n"
