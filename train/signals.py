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

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        for asking in _ASKING:
            signal.signal(asking, signal.SIG_DFL)

    before = {asking: signal.signal(asking, note) for asking in _ASKING}
    try:
        yield request
    finally:
        for asking, handler in before.items():
            signal.signal(asking, handler)
