"""Exact allocation from two plants: a continuous knapsack, solved by sorting.

With ``t_i = x_i1`` the cost is ``sum_i d_i c_i2 + sum_i t_i (c_i1 - c_i2)`` with ``0 <= t_i <= d_i`` and
``D - s_2 <= sum t <= s_1``: the first plant serves demands in the order of ``c_i1 - c_i2`` until none gains, it is
empty, or what is left fits the second. This is why the document's 3x2 example is a sorting problem.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

from envs_jax.allocation import transport
from envs_jax.allocation.transport import Solution, Transport


def solve(cost: chex.Array, demand: chex.Array, supply: chex.Array) -> Solution:
    """The optimum for two plants.

    Args:
      cost: ``f32[..., n, 2]`` [money/MWh].
      demand: ``f32[..., n]`` [MW].
      supply: ``f32[..., 2]`` [MW].

    Returns:
      The optimum with prices that prove it: the gap is 0 up to rounding (about 1e-6), or ``inf`` where demand is above
      supply.

    Raises:
      ValueError: for another number of plants.
    """
    if cost.shape[-1] != 2:
        raise ValueError(f"transport_exact.cost must be of 2 plants (interior_point takes any), got {cost.shape[-1]}")
    problem = Transport(cost, demand, supply)
    saving = cost[..., 0] - cost[..., 1]  # of moving a MW to the second plant
    gaining = jnp.sum(jnp.where(saving < 0, demand, 0.0), axis=-1)
    least, most = jnp.sum(demand, axis=-1) - supply[..., 1], supply[..., 0]
    first = jnp.clip(gaining, jnp.maximum(least, 0.0), jnp.maximum(most, 0.0))[..., None]
    before = transport.before(demand, saving)
    t = jnp.clip(first - before, 0.0, demand)
    # The demand at which filling stops is indifferent at the scarce plant's price.
    cheaper = jnp.where(gaining[..., None] > first, before + demand >= first, before >= first)
    stopped = jnp.where(cheaper & (demand > 0), saving, jnp.inf)
    last = jnp.where((before < first) & (demand > 0), saving, -jnp.inf)
    at_first = jnp.where(gaining > most, jnp.maximum(-jnp.min(stopped, axis=-1), 0.0), 0.0)
    at_second = jnp.where(gaining < least, jnp.maximum(jnp.max(last, axis=-1), 0.0), 0.0)
    prices = jnp.nan_to_num(jnp.stack([at_first, at_second], axis=-1), posinf=0.0, neginf=0.0)
    return transport.certify(problem, jnp.stack([t, demand - t], axis=-1), prices)
