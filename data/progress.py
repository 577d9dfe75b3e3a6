"""How far a long job is."""

import sys
import time

_SECONDS = 2.0


class Progress:
    """A line on stderr every few seconds: how much is done, how fast, how long it will take."""

    def __init__(self, doing: str, total_bytes: int = 0) -> None:
        self._doing = doing
        self._total = total_bytes
        self._done = 0
        self._start = self._last = time.monotonic()

    def add(self, text_bytes: int) -> None:
        """So much more is done."""
        self._done += text_bytes
        now = time.monotonic()
        if now - self._last < _SECONDS:
            return
        self._last = now
        rate = self._done / (now - self._start)
        line = f"{self._doing}: {self._done / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
        if self._total:
            share, left = self._done / self._total, (self._total - self._done) / rate
            line += f", {share:.0%}, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)
