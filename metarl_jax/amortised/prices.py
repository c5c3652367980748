"""A Transformer over plants that predicts the prices of their capacity from an instance alone.

Each block asks every plant's demands: at the present prices v and several temperatures, what load would come,
``load_j = sum_i d_i softmax_j(-(c_ij + v_j) / eps)``, and what the plant's customers would pay more elsewhere. That is
attention over demands whose logits are costs and prices themselves. Then plants attend to each other, and a head
changes the prices. No size is built in: the same parameters serve any n and m. Inputs are made dimensionless, so that
prices scale with money and do not change with the unit of power.
"""

from __future__ import annotations

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from envs_jax.allocation import transport
from envs_jax.allocation.transport import Transport
from metarl_jax.networks.transformer import Block

TEMPERATURES = (0.01, 0.04, 0.15)
"""eps at which loads are asked, in units of the mean cost."""


def units(problem: Transport) -> tuple[chex.Array, chex.Array]:
    """What a unit of money per MWh and of power is: mean cost over usable plants, total demand: ``f32[...]`` each."""
    usable = (problem.supply > 0).astype(problem.cost.dtype)
    power = jnp.maximum(jnp.sum(problem.demand, axis=-1), 1e-30)
    weight = problem.demand[..., :, None] * usable[..., None, :]
    mean = jnp.sum(weight * problem.cost, axis=(-2, -1)) / jnp.maximum(jnp.sum(weight, axis=(-2, -1)), 1e-30)
    return jnp.where(mean > 0, mean, 1.0), power


def scaled(problem: Transport) -> Transport:
    """The instance with costs and power in their own units; a supply beyond all demand is as good as all demand."""
    money, power = units(problem)
    return Transport(
        problem.cost / money[..., None, None],
        problem.demand / power[..., None],
        jnp.minimum(problem.supply / power[..., None], 1.0),
    )


def merit_order(problem: Transport) -> chex.Array:
    """Prices ``max(lambda - mean cost_j, 0)``: what clears if distance did not matter, plants in merit order."""
    share = problem.demand / jnp.maximum(jnp.sum(problem.demand, axis=-1, keepdims=True), 1e-30)
    mean = jnp.sum(share[..., None] * problem.cost, axis=-2)
    mean = jnp.where(problem.supply > 0, mean, jnp.inf)
    before = transport.before(problem.supply, mean)
    needed = before < jnp.sum(problem.demand, axis=-1, keepdims=True) * (1.0 - 1e-6)
    clearing = jnp.max(jnp.where(needed & (problem.supply > 0), mean, -jnp.inf), axis=-1, keepdims=True)
    return jnp.where(problem.supply > 0, jnp.maximum(jnp.nan_to_num(clearing - mean), 0.0), 0.0)


def log_ratio(load: chex.Array, supply: chex.Array) -> chex.Array:
    """``log(load / supply)`` between -4 and 4, 0 where there is neither."""
    return jnp.clip(jnp.log((load + 1e-6) / (supply + 1e-6)), -4.0, 4.0)


def _elsewhere(problem: Transport, prices: chex.Array) -> chex.Array:
    """How much more each demand would pay without a plant: ``min_{k != j} (c_ik + v_k) - c_ij``, ``f32[..., n, m]``."""
    usable = (problem.supply > 0)[..., None, :]
    priced = jnp.where(usable, problem.cost + prices[..., None, :], 1e3)
    best = jnp.min(priced, axis=-1, keepdims=True)
    first = priced == best
    second = jnp.min(jnp.where(first, 1e3, priced), axis=-1, keepdims=True)
    return jnp.where(first, second, best) - problem.cost


def describe(problem: Transport, prices: chex.Array) -> chex.Array:
    """What a block is told of each plant at ``prices f32[..., m]``: ``f32[..., m, F]``, of a scaled instance."""
    share = problem.demand[..., None]
    columns = [
        jnp.sum(share * problem.cost, axis=-2),
        jnp.min(problem.cost, axis=-2),
        jnp.log(problem.supply + 1e-3),
        10.0 * problem.supply,
        prices,
        jnp.broadcast_to(jnp.sum(problem.supply, axis=-1, keepdims=True) - 1.5, prices.shape),
    ]
    bids = jnp.clip(_elsewhere(problem, prices), -2.0, 2.0)
    for eps in TEMPERATURES:
        served = transport.priced_allocation(problem, prices, eps)
        load = jnp.sum(served, axis=-2)
        columns.append(log_ratio(load, problem.supply))
        columns.append(jnp.sum(served * bids, axis=-2) / (load + 1e-4))
    # Price at which a quarter, half, ... of the demand that the plant could serve would still buy from it.
    order = jnp.sum(share * jax.nn.sigmoid((bids - prices[..., None, :]) / 0.05), axis=-2)
    columns.append(log_ratio(order, problem.supply))
    return jnp.stack(columns, axis=-1)


class PriceNetwork(nn.Module):
    """Predicts prices of a scaled instance.

    Attributes:
      width: of a plant's token.
      blocks: rounds of asking, attending and changing the prices.
      heads: of attention.
    """

    width: int = 32
    blocks: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, problem: Transport) -> chex.Array:
        """Prices ``f32[..., m]`` of an instance with any leading axes, in units of its mean cost."""
        usable = problem.supply > 0
        raw = merit_order(problem)
        token: Any = 0.0
        for block in range(self.blocks):
            told = nn.Dense(self.width, name=f"ask_{block}")(describe(problem, soft_positive(raw)))
            token = Block(self.heads, 2, name=f"block_{block}")(token + told, usable)
            # A hundredth of the default keeps the first predictions near the merit order.
            small = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
            raw = raw + nn.Dense(1, kernel_init=small, name=f"price_{block}")(nn.gelu(token))[..., 0]
        return jnp.where(usable, soft_positive(raw), 0.0)


def soft_positive(raw: chex.Array) -> chex.Array:
    """A price of at least 0 with a gradient everywhere: softplus of width .02."""
    return 0.02 * nn.softplus(raw / 0.02)
