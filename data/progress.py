"""How far a long job is."""

import sys
import time

_SECONDS = 2.0


class Progress:
    """A line on stderr every few seconds: how much is done, how long the rest will take."""

    def __init__(self, doing: str, total: int, done: int = 0) -> None:
        """`total` tasks, of which so many were `done` before."""
        self._doing = doing
        self._total = total
        self._before = self._done = done
        self._start = self._last = time.monotonic()

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if now - self._last < _SECONDS:
            return
        self._last = now
        left = (self._total - self._done) * (now - self._start) / (self._done - self._before)
        line = f"{self._doing}: {self._done:,} of {self._total:,}, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)
