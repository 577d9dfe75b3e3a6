"""Train a language model.

    python -m train --config=configs/quickstart.py --workdir=runs/mine [--config.steps=500 ...]

Run again with the same --workdir, it goes on from the newest checkpoint, bit for bit as if it had
never stopped. SIGTERM or Ctrl-C saves first; a second one ends it at once.

On several hosts, run the same command on each: on a TPU pod and under Slurm the processes find one
another, and elsewhere --coordinator, --process_id and --num_processes tell them (docs/tpu.md,
docs/gpu.md). The directory is one that all hosts share.

Exit codes: 0 done; 2 wrong input, with one sentence; 3 too many updates in a row were not finite;
75 saved after a signal, or another process was lost: run again to go on.
"""

import os
from contextlib import redirect_stdout
from pathlib import Path

from absl import flags

from configs import flags as config_flags
from configs.schema import Config
from parallel import compiler_flags, hosts
from train import cpu

_RECIPE = config_flags.define_recipe(Config)
_WORKDIR = flags.DEFINE_string("workdir", None, "where all about the run goes", required=True)
_PROFILE = flags.DEFINE_string(
    "profile", "", "START:COUNT: take a trace of COUNT updates after step START"
)
_ALLOW_CHANGE = flags.DEFINE_boolean(
    "allow_change", False, "go on though the config or the corpus is not the one the run began with"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where several processes train together"
)
_PROCESS = flags.DEFINE_integer("process_id", None, "which of them this is, from 0 on")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many they are")
_START_TIMEOUT = flags.DEFINE_float("start_timeout", 300.0, "seconds to wait for the others", 1.0)
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout", 100.0, "seconds of silence after which another process counts as dead", 5.0
)


def run() -> int:
    """The command."""
    cluster = hosts.find(_COORDINATOR.value, _PROCESS.value, _PROCESSES.value)
    if cluster and not hosts.is_worker():
        return hosts.supervise(cluster, _START_TIMEOUT.value)
    with redirect_stdout(None):  # what is changed is said by the process that goes on
        cpu.settle(_RECIPE.load(), alone=cluster is None)
    config = _RECIPE.load()
    os.environ.update(compiler_flags.variables(os.environ))
    with hosts.joined(cluster, _START_TIMEOUT.value, _PEER_TIMEOUT.value):
        from train.loop import train
        from train.profiler import parse

        profile = parse(_PROFILE.value)
        return train(config, Path(_WORKDIR.value), profile, _ALLOW_CHANGE.value)


if __name__ == "__main__":
    config_flags.main(run, _RECIPE)
