"""What several processes have to agree on. Alone, each function is what its argument says.

All of these are collective: every process calls them, in the same order, or all of them hang.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.schema import InputError

_LONGEST = 1024  # bytes of a sentence


def is_first() -> bool:
    """Whether this process writes the records."""
    return jax.process_index() == 0


def first(compute: Callable[[], Any]) -> Any:
    """What `compute` returns in process 0, the only one that calls it; it is plain JSON.

    Raises:
        InputError: process 0 raised it, on all processes.
    """
    if jax.process_count() == 1:
        return compute()
    answer = None
    if is_first():
        try:
            answer = {"value": compute()}
        except InputError as error:
            answer = {"error": str(error)}
    answer = json.loads(_broadcast(json.dumps(answer).encode()))
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["value"]


def _broadcast(text: bytes) -> bytes:
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(1 << length.bit_length(), np.uint8)  # few sizes to compile for
    if is_first():
        padded[:length] = np.frombuffer(text, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded)[:length].tobytes()


def gather(sentence: str) -> list[str]:
    """Each process's sentence, by the number of the process."""
    if jax.process_count() == 1:
        return [sentence]
    mine = np.zeros(_LONGEST, np.uint8)
    text = np.frombuffer(sentence.encode()[:_LONGEST], np.uint8)
    mine[: len(text)] = text
    rows = multihost_utils.process_allgather(mine)
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def all_or_none(failure: InputError | None) -> None:
    """Raise the failure of one process on all of them."""
    sentences = [sentence for sentence in gather(str(failure or "")) if sentence]
    if sentences:
        raise failure or InputError(sentences[0])


def check_same(what: str, value: str) -> None:
    """Raise InputError on all processes unless all have the same value, of at most 1 kB."""
    values = gather(value)
    others = [str(process) for process, theirs in enumerate(values) if theirs != values[0]]
    if others:
        raise InputError(
            f"process {', '.join(others)} was started with another {what} than process 0: run the "
            "same command everywhere"
        )


class Poll:
    """The largest number that any process puts in, known to all of them one round later.

    The answer travels with the updates, so that no device and no host waits for it.
    """

    def __init__(self, mesh: Mesh) -> None:
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=everywhere)
        self._waiting: jax.Array | None = None

    def ask(self, number: int) -> int:
        """Put in a number; returns the largest of the round before, alone: this one."""
        if jax.process_count() == 1:
            return number
        numbers = jax.make_array_from_callback(
            (jax.device_count(),), self._sharding, lambda _: np.full(1, number, np.int32)
        )
        last, self._waiting = self._waiting, self._largest(numbers)
        return 0 if last is None else int(jax.device_get(last))
