"""Shared set-up: CPU, a persistent compilation cache, and a deterministic hypothesis profile."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax

_CACHE = pathlib.Path(__file__).parent.parent / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(_CACHE)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Compiling is slow and the same examples must fail on every machine.
hypothesis.settings.register_profile("repo", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("repo")
