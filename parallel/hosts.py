"""Several processes that train together, one or more a host.

A process of such a run is two: one that computes, and one that started it and waits. JAX aborts the
first without a word of Python when a peer is lost; the second says in one sentence what that means.
This module imports JAX only where it has to: until then, how JAX starts can be chosen.
"""

import ctypes
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from configs.schema import InputError, require
from parallel import rollcall

LOST = 75  # EX_TEMPFAIL of sysexits.h: try again
# What the waiting process sends on when it is asked to stop. Launchers often send a signal to both;
# were it the same signal, it would look like a second one, which means "now".
FORWARDED = {signal.SIGTERM: signal.SIGUSR1, signal.SIGINT: signal.SIGUSR2}

_LOST_SENTENCE = (
    "error: another process of this run has ended or cannot be reached any more, and its own "
    "output says why; then run the same command again on all hosts, which goes on from the newest "
    "checkpoint"
)
_WORKER = "ISOFLOP_WORKER"  # in the environment of the one that computes: the other's process id
_SHUTDOWN_SECONDS = 30  # all leave at the same moment: this is for slow machines
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class Cluster(NamedTuple):
    """This process among the others."""

    processes: int
    process: int = 0
    coordinator: str = ""  # HOST:PORT of process 0; empty: JAX knows, as on a TPU pod
    devices: tuple[int, ...] | None = None  # the local ones that are this process's; None: all


def find(
    coordinator: str | None,
    process: int | None,
    count: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """The run's processes as three flags say, or Slurm, or a TPU pod; None: this one is alone.

    Raises:
        InputError: the flags are incomplete or contradict one another.
    """
    flags = {"coordinator": coordinator, "process_id": process, "num_processes": count}
    missing = ", ".join(f"--{name}" for name, value in flags.items() if value is None)
    if coordinator is not None and process is not None and count is not None:
        return _from_flags(coordinator, process, count)
    require(
        len(missing.split()) == len(flags),
        "--coordinator, --process_id and --num_processes are given together, and "
        f"{missing} {'is' if missing.count('-') == 2 else 'are'} missing",
    )
    return _slurm(environment) or _tpu(environment)


def _from_flags(coordinator: str, process: int, count: int) -> Cluster | None:
    require(count > 0, f"--num_processes={count} must be at least 1")
    require(
        0 <= process < count,
        f"--process_id={process} is none of 0 to {count - 1}, which --num_processes={count} allows",
    )
    host, _, port = coordinator.rpartition(":")
    require(
        bool(host) and port.isdecimal() and 0 < int(port) < 65536,
        f"--coordinator={coordinator} is not HOST:PORT of process 0, such as 10.0.0.1:8476",
    )
    return Cluster(count, process, coordinator) if count > 1 else None


def _slurm(environment: Mapping[str, str]) -> Cluster | None:
    """The tasks of a Slurm job step, found as JAX does, but with all devices for a lone task."""
    names = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    values = [environment.get(f"SLURM_{name}") for name in names]
    if None in values:
        return None
    job, nodes, count, process, local = (str(value) for value in values)
    if int(count) == 1:
        return None
    head, bracket, rest = nodes.partition("[")  # n1,n2 or n[01-04,7],m3: the first name
    first = head.split(",")[0]
    if first == head and bracket:
        first += rest.replace("-", ",").replace("]", ",").split(",")[0]
    port = 61440 + int(job) % 4096
    # Tasks that share a host and see all its GPUs take one each.
    tasks = re.sub(r"\(x\d+\)", "", environment.get("SLURM_STEP_TASKS_PER_NODE", "1")).split(",")
    several = "," in environment.get("CUDA_VISIBLE_DEVICES", ",")
    devices = (int(local),) if several and set(tasks) != {"1"} else None
    return Cluster(int(count), int(process), f"{first}:{port}", devices)


def _tpu(environment: Mapping[str, str]) -> Cluster | None:
    """The hosts of a TPU pod or of several slices, where there is more than one."""
    chips = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    if not chips or importlib.util.find_spec("libtpu") is None:
        return None
    if "tpu" not in (environment.get("JAX_PLATFORMS") or "tpu"):
        return None
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    slices = environment.get("MEGASCALE_NUM_SLICES")
    if workers is None:
        workers = _metadata("worker-network-endpoints")
        lines = (line.partition(":") for line in _metadata("tpu-env").splitlines())
        found = {name.strip(): value.strip(" '\"") for name, _, value in lines}
        slices = slices or found.get("MEGASCALE_NUM_SLICES")
    count = len(workers.split(",")) * int(slices or 1)
    return Cluster(count) if count > 1 else None


def _metadata(key: str) -> str:
    """An attribute of this Google Cloud machine, empty where there is none."""
    host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    url = f"http://{host}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def is_worker() -> bool:
    """Whether this is the process that computes, started by the one that waits."""
    return os.environ.get(_WORKER) == str(os.getppid())


def supervise(cluster: Cluster, start_timeout: float) -> int:
    """Meet the other processes, then run this command as a child, and explain how that ends.

    Returns:
        The child's exit code; LOST where JAX aborted it.

    Raises:
        InputError: the others did not come, or do not fit.
    """
    if cluster.coordinator:
        host, _, port = cluster.coordinator.rpartition(":")
        address = host.strip("[]"), int(port)
        rollcall.meet(address, cluster.process, cluster.processes, start_timeout)
    command = [sys.executable, *sys.orig_argv[1:]]
    child = subprocess.Popen(command, env={**os.environ, _WORKER: str(os.getpid())})

    def forward(number: int, _frame: FrameType | None) -> None:
        child.send_signal(FORWARDED[signal.Signals(number)])
        signal.signal(number, lambda again, _: child.send_signal(again))

    for asking in FORWARDED:
        if signal.getsignal(asking) is not signal.SIG_IGN:
            signal.signal(asking, forward)
    code = child.wait()
    if code == -signal.SIGABRT:
        print(_LOST_SENTENCE, file=sys.stderr)
        return LOST
    if code < 0:
        ended = signal.Signals(-code).name
        print(f"error: this process of the run was ended by {ended}", file=sys.stderr)
        return 128 - code
    return code


@contextmanager
def joined(cluster: Cluster | None, start_timeout: float, peer_timeout: float) -> Iterator[None]:
    """Within the block JAX sees the devices of all processes; only process 0 prints.

    A block that ends with an exception ends the process: the others wait for it in a collective,
    and an orderly end would wait for them.

    Args:
        cluster: from `find`; None: this process is alone, and nothing happens.
        start_timeout: seconds to wait for the others.
        peer_timeout: seconds of silence after which a process counts as dead.
    """
    if cluster is None:
        yield
        return
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    import jax
    from jax.experimental import multihost_utils

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    known = bool(cluster.coordinator)
    jax.distributed.initialize(
        coordinator_address=cluster.coordinator if known else None,
        num_processes=cluster.processes if known else None,
        process_id=cluster.process if known else None,
        local_device_ids=cluster.devices,
        cluster_detection_method="deactivate" if known else None,
        initialization_timeout=round(start_timeout),
        heartbeat_timeout_seconds=round(peer_timeout),
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    primary = jax.process_index() == 0
    if not primary:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        yield
        multihost_utils.sync_global_devices("end")
        jax.distributed.shutdown()
    except BaseException as error:  # noqa: BLE001
        code = _explain(error)
        sys.stdout.flush()
        # What went wrong everywhere is said everywhere, before process 0 takes the others along.
        time.sleep(3 if primary else 1)
        os._exit(code)


def _explain(error: BaseException) -> int:
    """Print what ended this process; returns its exit code."""
    if isinstance(error, InputError):
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    lost = ("Gloo", "coordination service", "CoordinationService")
    if any(word in str(error) for word in lost):
        print(_LOST_SENTENCE, file=sys.stderr, flush=True)
        return LOST
    traceback.print_exception(error)
    return 1
