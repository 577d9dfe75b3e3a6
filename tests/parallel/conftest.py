"""Programs on several virtual devices, whose number is fixed when JAX starts."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def on_eight() -> Callable[..., list[Any]]:
    """on_eight(module, *arguments): what a module of this folder prints on eight devices, as JSON.

    Arguments that are no strings are handed over as JSON; each line of the answer is a value.
    """

    def run(module: str, *arguments: Any) -> list[Any]:
        texts = [a if isinstance(a, str) else json.dumps(a) for a in arguments]
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
        done = subprocess.run(
            [sys.executable, "-m", f"tests.parallel.{module}", *texts],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run
