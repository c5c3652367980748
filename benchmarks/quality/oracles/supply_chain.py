"""Supply chain: the least expected cost of an episode if orders could be of any size (Clark and Scarf)."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.quality.oracles import Floats, unattended
from envs_jax.domains.supply_chain import SupplyChain, SupplyChainParams
from envs_jax.references import base_stock


@functools.partial(jax.jit, static_argnames="env")
def _optimum(env: SupplyChain, params: SupplyChainParams, keys: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
    """Expected cost of the episodes ``f32[E]`` and their echelon stocks at first ``i32[E, N]``."""
    echelon_cost = params.holding_cost - jnp.append(params.holding_cost[1:], 0.0)
    instance = (params.demand_cdf, echelon_cost, params.backlog_cost, params.lead_time)
    plan = base_stock.finite_horizon(*instance, env.max_lead_time, env.grid_size, env.num_periods)
    echelon = jnp.cumsum(unattended(env, params, keys).states.on_hand[:, 0], axis=-1)
    return plan.value[jnp.arange(env.num_turns), echelon + 1].sum(-1), echelon


def any_order(env: SupplyChain, params: SupplyChainParams, keys: chex.PRNGKey) -> Floats:
    """The *expected* return ``f64[E]`` [money] that no policy exceeds, given the stocks each episode begins with."""
    cost, echelon = jax.device_get(_optimum(env, params, keys))
    if echelon.max() + 1 >= env.grid_size:
        raise ValueError(f"echelon stock {echelon.max()} at first: beyond the {env.grid_size} points of the grid")
    return -np.asarray(cost, np.float64)
