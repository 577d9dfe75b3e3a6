"""SIGTERM and SIGINT ask the run to stop at the next step; asked twice, it stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Empty until a signal comes, then its name."""

    signal_name: str = ""


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within the block the first signal is noted, and the second acts as it does on any program."""
    request = StopRequest()
    before = {asking: signal.getsignal(asking) for asking in _ASKING}
    # A shell has what it starts in the background ignore the terminal's SIGINT: so be it.
    heeded = [asking for asking, handler in before.items() if handler is not signal.SIG_IGN]

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        for asking in heeded:
            signal.signal(asking, signal.SIG_DFL)

    for asking in heeded:
        signal.signal(asking, note)
    try:
        yield request
    finally:
        for asking in heeded:
            signal.signal(asking, before[asking])
