"""All processes of a run meet before JAX starts: JAX itself would abort without a sentence.

Process 0 listens at the port that JAX's coordinator will have next, the others tell it who they
are, and it answers all of them at once: "" when everyone is there, else what is wrong.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from configs.schema import InputError, require

_PAUSE = 0.2  # seconds between attempts to reach process 0, which may start later


def meet(address: tuple[str, int], process: int, count: int, timeout: float) -> None:
    """Return when all processes are there.

    Args:
        address: host and port of process 0.
        process: this one's number.
        count: how many there are.
        timeout: seconds to wait for the others.

    Raises:
        InputError: the port is taken, someone did not come, or they do not fit together.
    """
    deadline = time.monotonic() + timeout
    try:
        sentence = (
            _receive(address[1], count, deadline)
            if process == 0
            else _report(address, process, count, deadline)
        )
    except TimeoutError:
        host, port = address
        sentence = (
            f"process 0 did not answer at {host}:{port} within {timeout:g} s: start it there, see "
            "that this port is open between the hosts, or wait longer with --start_timeout"
        )
    require(not sentence, sentence)


def _receive(port: int, count: int, deadline: float) -> str:
    """Process 0: collect the others, tell all of them the outcome, and return it."""
    try:
        if socket.has_dualstack_ipv6():
            server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            server = socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"process 0 cannot listen at port {port} of this host "
            f"({os.strerror(error.errno or 0)}): end what uses it, or give all processes another "
            "port in --coordinator"
        ) from None
    present: dict[int, socket.socket] = {}
    with server:
        sentence = ""
        while len(present) < count - 1 and not sentence:
            try:
                server.settimeout(max(deadline - time.monotonic(), 0.001))
                caller = server.accept()[0]
            except TimeoutError:
                missing = ", ".join(str(i) for i in range(1, count) if i not in present)
                sentence = (
                    f"of {count} processes these did not come in time: {missing}; see why on their "
                    "hosts, or wait longer with --start_timeout"
                )
                break
            try:
                caller.settimeout(5)
                with caller.makefile() as words:
                    process, their_count = json.loads(words.readline())
            except (OSError, ValueError, TypeError):  # a stranger
                caller.close()
                continue
            sentence = _misfit(process, their_count, count, present)
            present[count if sentence else process] = caller
        for caller in present.values():
            with suppress(OSError):
                caller.sendall((json.dumps(sentence) + "\n").encode())
                caller.recv(1)  # they hang up first, which leaves the port free at once
                caller.close()
    return sentence


def _misfit(process: int, their_count: int, count: int, present: dict[int, socket.socket]) -> str:
    if their_count != count:
        return (
            f"process {process} was started with --num_processes={their_count}, and process 0 with "
            f"{count}: give all the same"
        )
    if process in present or not 0 < process < count:
        return f"two processes have --process_id={process}: give each its own"
    return ""


def _report(address: tuple[str, int], process: int, count: int, deadline: float) -> str:
    """Another process: say who this is and wait for the outcome."""
    for _ in _attempts(deadline):
        # Not there yet, not known yet, or something else that answers at this port.
        with suppress(OSError, ValueError), _call(address, deadline) as server:
            server.sendall((json.dumps([process, count]) + "\n").encode())
            server.settimeout(max(deadline - time.monotonic(), 0) + 10)  # process 0 decides first
            with server.makefile() as words:
                answer = words.readline()
            if answer:
                return json.loads(answer)
    raise TimeoutError


def _call(address: tuple[str, int], deadline: float) -> socket.socket:
    return socket.create_connection(address, max(deadline - time.monotonic(), 0.001))


def _attempts(deadline: float) -> Iterator[None]:
    while time.monotonic() < deadline:
        yield
        time.sleep(_PAUSE)
