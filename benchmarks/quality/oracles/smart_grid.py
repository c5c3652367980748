"""Smart grid: the exact optimum of an episode whose weather is known (``SmartGrid.foresight``)."""

from __future__ import annotations

import functools

import chex
import jax
import numpy as np

from benchmarks.quality.oracles import Floats
from envs_jax.domains.smart_grid import SmartGrid, SmartGridParams


@functools.partial(jax.jit, static_argnames="env")
def _foresight(env: SmartGrid, params: SmartGridParams, keys: chex.PRNGKey) -> chex.Array:
    # One after another: the table of an hour's joint moves is large.
    return jax.lax.map(functools.partial(env.foresight, params), keys)


def foresight(env: SmartGrid, params: SmartGridParams, keys: chex.PRNGKey) -> Floats:
    """Return ``f64[E]`` [100 $] of the best plan for each episode's weather, by dynamic programming: attained."""
    return np.asarray(_foresight(env, params, keys), np.float64)
