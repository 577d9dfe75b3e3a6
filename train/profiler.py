"""The profiler window: a few updates, watched by JAX's own profiler."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from configs.schema import InputError, require


class Profile(NamedTuple):
    """Which updates are watched: `updates` of them after step `start`."""

    start: int
    updates: int


def parse(text: str) -> Profile | None:
    """START:COUNT, or nothing.

    Raises:
        InputError: it is neither.
    """
    if not text:
        return None
    try:
        start, updates = (int(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"--profile={text} is not START:COUNT, such as 20:5") from None
    require(start >= 0 and updates > 0, f"--profile={text}: START from 0 on, COUNT at least 1")
    return Profile(start, updates)


class Profiler:
    """Starts and stops the trace, which `tensorboard --logdir` shows under Profile."""

    def __init__(self, folder: Path, profile: Profile | None):
        self._folder = folder
        self._profile = profile
        self._running = False

    def before(self, step: int, wait: Callable[[], None]) -> None:
        """To be called before each update is dispatched.

        Args:
            step: the step that the update leads to.
            wait: waits for the updates dispatched so far.
        """
        if not self._profile:
            return
        if step == self._profile.start + 1:
            wait()
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        if step == self._profile.start + self._profile.updates + 1:
            wait()
            self.stop()

    def stop(self) -> None:
        """Write the trace, if one is being taken."""
        if self._running:
            jax.profiler.stop_trace()
        self._running = False
