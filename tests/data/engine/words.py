"""Stages that count words, where worker processes can import them."""

import signal
from collections import Counter
from pathlib import Path

from configs.schema import InputError
from data.disk import write


def count(text, out):
    """The number of words, which is also written to a file."""
    write(out.with_name(f"{out.name}.txt"), str(len(text.split())).encode())
    return {"words": len(text.split())}


def refuse(text, out):
    if text == "bad":
        raise InputError("bad is no text: leave it out")
    return count(text, out)


def die(text, out):
    signal.raise_signal(signal.SIGKILL)


def send(text):
    """Each word to the partition of its first letter."""
    for partition in range(3):
        words = [word for word in text.split() if ord(word[0]) % 3 == partition]
        if words:
            yield partition, " ".join(words).encode()


def tally(sent, out: Path):
    words = b" ".join(sent).decode().split()
    write(out.with_name(f"{out.name}.txt"), " ".join(words).encode())  # in the order of tasks
    return {"words": dict(sorted(Counter(words).items()))}
