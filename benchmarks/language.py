"""Speed of language identification on this machine, beside py3langid's own loop.

    python -m benchmarks.language --texts=book.txt --texts=wiki.txt --json=language.json

Documents are cut from Python's own modules, from made sentences in a dozen scripts and languages,
and from files given with --texts, to several lengths. Ours and py3langid's
`LanguageIdentifier.classify` take turns on the same documents in the same process; the median of
--rounds is printed, and how many labels differ. Loading the model is not counted.
"""

# ruff: noqa: RUF001 (letters of other scripts are what is measured)

import argparse
import json
import os
import platform
import random
import statistics
import time
from pathlib import Path

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from data.clean import language

LENGTHS = (60, 300, 1_000, 4_000, 20_000, 200_000)  # characters of a document
CHARACTERS = 800_000  # of all documents of one length, if these are eight or more

SENTENCES = (
    "The committee met on Thursday to discuss the budget for the coming year. ",
    "Der Ausschuss traf sich am Donnerstag, um über den Haushalt zu beraten. ",
    "Le comité s'est réuni jeudi pour discuter du budget de l'année prochaine. ",
    "El comité se reunió el jueves para debatir el presupuesto del año próximo. ",
    "Komitet zebrał się w czwartek, aby omówić budżet na przyszły rok. ",
    "Комитет собрался в четверг, чтобы обсудить бюджет на следующий год. ",
    "Η επιτροπή συνεδρίασε την Πέμπτη για να συζητήσει τον προϋπολογισμό. ",
    "اجتمعت اللجنة يوم الخميس لمناقشة ميزانية العام المقبل. ",
    "समिति ने अगले वर्ष के बजट पर चर्चा करने के लिए गुरुवार को बैठक की। ",
    "委员会星期四开会讨论明年的预算。",
    "委員会は木曜日に来年度の予算について話し合った。",
    "위원회는 목요일에 모여 내년 예산을 논의했다. ",
    "คณะกรรมการประชุมกันเมื่อวันพฤหัสบดีเพื่อหารือเรื่องงบประมาณ ",
)


def collection(paths: list[Path]) -> list[str]:
    """Long texts to cut documents from."""
    modules = sorted(Path(os.__file__).parent.glob("*.py"))[:60]
    texts = [path.read_text(errors="replace") for path in [*modules, *paths]]
    pick = random.Random(0)
    mixtures = ["".join(pick.choices(SENTENCES, k=8000)) for _ in range(3)]
    return [*texts, *mixtures, *(sentence * 5000 for sentence in SENTENCES)]


def documents(texts: list[str], length: int) -> list[str]:
    """Documents of about one length, from half of it to half more, in turn from each text."""
    pick = random.Random(length)
    texts = [text for text in texts if len(text) >= length]
    found = []
    for number in range(max(8, CHARACTERS // length)):
        text = texts[number % len(texts)]
        size = pick.randint(length // 2, length * 3 // 2)
        start = pick.randrange(max(1, len(text) - size))
        found.append(text[start : start + size])
    return found


def compare(texts: list[str], peer: LanguageIdentifier, rounds: int) -> dict[str, float]:
    """Medians over rounds in which the two take turns, after one that does not count."""
    rows = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        codes, scores = language.identify(texts)
        middle = time.perf_counter()
        expected = [peer.classify(text) for text in texts]
        rows.append((middle - start, time.perf_counter() - middle))
    ours, theirs = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    size = sum(len(text.encode()) for text in texts)
    return {
        "documents": len(texts),
        "bytes": size,
        "documents_per_s": len(texts) / ours,
        "MB_per_s": size / ours / 1e6,
        "peer_documents_per_s": len(texts) / theirs,
        "peer_MB_per_s": size / theirs / 1e6,
        "ratio": statistics.median(b / a for a, b in rows[1:]),
        "labels_that_differ": sum(a != b for a, (b, _) in zip(codes, expected, strict=True)),
        "largest_difference": float(np.abs(scores - [score for _, score in expected]).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    peer = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    texts = collection(arguments.texts)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}, NumPy {np.__version__}")
    print("characters  documents    ours/s  MB/s    peer/s  MB/s  ratio  labels differ  scores")
    results = {}
    for length in LENGTHS:
        row = results[length] = compare(documents(texts, length), peer, arguments.rounds)
        print(
            f"{length:10,} {row['documents']:10,} {row['documents_per_s']:9,.0f} "
            f"{row['MB_per_s']:5.1f} {row['peer_documents_per_s']:9,.0f} "
            f"{row['peer_MB_per_s']:5.1f} {row['ratio']:6.1f} {row['labels_that_differ']:14} "
            f"{row['largest_difference']:7.0e}"
        )
    if arguments.json:
        record = {"machine": machine, "date": time.strftime("%Y-%m-%d"), "lengths": results}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
