"""Shared set-up: CPU, a persistent compilation cache, and a deterministic hypothesis profile."""

import gc
import os
import pathlib
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

_CACHE = pathlib.Path(__file__).parent.parent / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(_CACHE)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Compiling is slow and the same examples must fail on every machine.
hypothesis.settings.register_profile("repo", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("repo")

MAPPINGS = 20_000
"""Linux gives a process 65,530 memory mappings, every compiled kernel takes some, and beyond XLA crashes."""


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Lets go of compiled programs after a file that left many; the persistent cache has them for the next."""
    yield
    mappings = pathlib.Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()
