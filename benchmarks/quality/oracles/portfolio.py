"""Portfolio: the expected return of the optimal continuous trades, in closed form (``Portfolio.upper_bound``)."""

from __future__ import annotations

import functools

import chex
import jax
import numpy as np

from benchmarks.quality.oracles import Floats
from envs_jax.domains.portfolio import Portfolio, PortfolioParams


@functools.partial(jax.jit, static_argnames="env")
def _upper_bound(env: Portfolio, params: PortfolioParams) -> chex.Array:
    return env.upper_bound(params)


def continuous(env: Portfolio, params: PortfolioParams, keys: chex.PRNGKey) -> Floats:
    """The *expected* return that no policy exceeds, E times: trades need not be of the menu's sizes."""
    return np.full(len(keys), float(_upper_bound(env, params)))
