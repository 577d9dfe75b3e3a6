"""What every test shares: JAX's strictness, a cache of compiled programs, and shared data.

Tests see one device. What needs several starts a subprocess with
XLA_FLAGS=--xla_force_host_platform_device_count=8, since the count is fixed once JAX has started.
"""

import os
from pathlib import Path

import jax
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

jax.config.update("jax_numpy_rank_promotion", "raise")
# XLA reads this with the first program, here and in the commands that tests run. Most of their time
# is the compiler's, and code that LLVM leaves as it is computes the same.
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}"
# The second run of the suite compiles next to nothing. Set here and not in the environment, so that
# subprocesses, which some tests kill at any moment, cannot leave half an entry behind.
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets beside the clone; tests that need it are skipped without it."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"needs the data sets in {path}, which is not there")
    return path
