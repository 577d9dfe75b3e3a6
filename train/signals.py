"""SIGTERM and SIGINT ask the run to stop at the next step; asked twice, it stops at once.

A process of several is asked through the one that started it, too (parallel.hosts); that is not to
be taken for the second time.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from parallel import hosts

_ASKING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """0 until a signal comes, then its number."""

    number: int = 0


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within the block the first signal is noted, and the second acts as it does on any program."""
    request = StopRequest()
    before = {asking: signal.getsignal(asking) for asking in _ASKING}
    # A shell has what it starts in the background ignore the terminal's SIGINT: so be it.
    heeded = [asking for asking, handler in before.items() if handler is not signal.SIG_IGN]
    meant = {sent: asking for asking, sent in hosts.FORWARDED.items() if hosts.is_worker()}

    def note(number: int, _frame: FrameType | None) -> None:
        request.number = meant.get(signal.Signals(number), number)
        for asking in heeded:
            signal.signal(asking, signal.SIG_DFL)

    before |= {sent: signal.getsignal(sent) for sent in meant}
    for heard in (*heeded, *meant):
        signal.signal(heard, note)
    try:
        yield request
    finally:
        for heard in (*heeded, *meant):
            signal.signal(heard, before[heard])
