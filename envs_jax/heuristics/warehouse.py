"""The heuristic of warehouse: estimates demand and costs from sales and bills, and plans a few periods ahead.

What a stock keeper with a ledger can do. Of every level it knows the stock before the customers came, y, and the sales:
fewer sales than y are the demand, sales of y say that it was at least y. That gives, on a grid of rates, the posterior
of each level's rate, and of what was lost where nothing was left. What a period cost beyond the holding that is known
is linear in the costs of an order and of a lost sale,

    -R - sum_i h_i left_i = sum_i K_i 1(a_i > 0) + sum_i p_i lost_i,

so recursive least squares estimate K and p, with the expected lost sales and, as noise, what their spread makes of it.
Flows are those of the exact dynamic programme of the next periods with the demands expected now and these costs.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.heuristics import least_squares
from envs_jax.references import warehouse_sweep as sweep

LOOK_AHEAD = 6
"""Periods that are planned; fewer near the end."""
NUM_RATES = 16
"""Points of the grid of rates."""
LARGEST_DEMAND = 80
"""At the largest rates the mass beyond is below float64's resolution."""
NOISE = 1e-2
"""Variance of a bill whose lost sales are known [money^2]."""


class WarehouseRule(NamedTuple):
    """What is believed of a level's costs before the first bill.

    Attributes:
      shortage, order_cost: their means [money].
      shortage_spread, order_cost_spread: standard deviations [money].
      least_shortage: least cost of a lost sale that is believed [money].
    """

    shortage: float
    shortage_spread: float
    order_cost: float
    order_cost_spread: float
    least_shortage: float


class WarehouseMemory(NamedTuple):
    """Of an episode, N levels, G rates.

    Attributes:
      stock: ``f32[N]`` at the beginning of the period, before any flow [units].
      likelihood: ``f32[N, G]`` logarithm, of each rate.
      costs: what is believed of K, then p: ``[2 N]`` and ``[2 N, 2 N]``.
    """

    stock: chex.Array
    likelihood: chex.Array
    costs: least_squares.Belief


class Demand(NamedTuple):
    """Tables by rate and stock y of 0 to the cap, ``f32[G, cap + 1]`` unless said otherwise.

    Attributes:
      law: ``f32[G, cap + 1, cap + 1]`` of the next stock.
      left, lost: expected units after the demand, and short of it.
      equal: logarithm of the chance that the demand is y.
      reaches: that it is y or more.
      beyond, beyond_square: mean of the demand less y, and of its square, if it is y or more.
    """

    law: np.ndarray
    left: np.ndarray
    lost: np.ndarray
    equal: np.ndarray
    reaches: np.ndarray
    beyond: np.ndarray
    beyond_square: np.ndarray


def demand_tables(rates: np.ndarray, cap: int) -> Demand:
    """The tables of Poisson demands of these ``rates f[G]`` [units/period]."""
    count, stock = np.arange(LARGEST_DEMAND), np.arange(cap + 1)
    factorial = np.cumsum(np.log(np.maximum(count, 1)))
    mass = np.exp(np.outer(np.log(rates), count) - rates[:, None] - factorial)
    short, spare = (np.maximum(sign * (count[:, None] - stock), 0) for sign in (1, -1))
    after = np.eye(cap + 1)[spare]
    reaches = np.stack([mass[:, y:].sum(-1) for y in stock], -1)
    tables = Demand(
        law=np.einsum("gd,dyx->gyx", mass, after),
        left=mass @ spare,
        lost=mass @ short,
        equal=np.log(mass[:, : cap + 1]),
        reaches=np.log(reaches),
        beyond=mass @ short / reaches,
        beyond_square=mass @ short**2 / reaches,
    )
    return Demand(*(table.astype(np.float32) for table in tables))


def start(rule: WarehouseRule, num_levels: int) -> WarehouseMemory:
    """Before an episode: all rates of the grid are equally likely."""
    mean, spread = (
        jnp.repeat(jnp.stack([jnp.asarray(x, jnp.float32) for x in pair]), num_levels)
        for pair in ((rule.order_cost, rule.shortage), (rule.order_cost_spread, rule.shortage_spread))
    )
    zeros = jnp.zeros((num_levels,), jnp.float32)
    costs = least_squares.Belief(mean, jnp.diag(spread**2))
    return WarehouseMemory(zeros, jnp.zeros((num_levels, NUM_RATES), jnp.float32), costs)


def remember(
    demand: Demand,
    memory: WarehouseMemory,
    holding: chex.Array,
    stock: chex.Array,
    sales: chex.Array,
    cost: chex.Array,
    valid: chex.Array,
) -> WarehouseMemory:
    """The memory with what is seen at the beginning of a period.

    Args:
      demand: tables.
      memory: at the beginning of the period before.
      holding: ``f32[N]`` h.
      stock: ``f32[N]`` units now.
      sales: ``f32[N]`` of the period before.
      cost: ``f32[]`` of the period before.
      valid: ``bool[]`` whether there was one.
    """
    before = (stock + sales).astype(jnp.int32)
    sold_out = stock <= 0.0
    sold = sales.astype(jnp.int32)
    seen = jnp.where(sold_out[:, None], jnp.asarray(demand.reaches).T[before], jnp.asarray(demand.equal).T[sold])
    likelihood = memory.likelihood + jnp.where(valid, seen, 0.0)

    chance = jax.nn.softmax(likelihood)
    lost, square = (
        jnp.where(sold_out, jnp.sum(chance * jnp.asarray(table).T[before], -1), 0.0)
        for table in (demand.beyond, demand.beyond_square)
    )
    # What came into a level: what its stock grew by, and what it gave to the next.
    grown = stock + sales - memory.stock
    flow = jnp.cumsum(grown[::-1])[::-1]
    shortage, variance = (jnp.split(x, 2)[1] for x in (memory.costs.mean, jnp.diagonal(memory.costs.covariance)))
    noise = NOISE + jnp.sum((shortage**2 + variance) * (square - lost**2))
    row = jnp.concatenate([(flow > 0.5).astype(jnp.float32), lost])
    bill = cost - jnp.sum(holding * stock)
    return WarehouseMemory(stock, likelihood, least_squares.observed(memory.costs, row, bill, noise, valid))


def flows(
    rule: WarehouseRule, demand: Demand, memory: WarehouseMemory, holding: chex.Array, left: chex.Array
) -> chex.Array:
    """The best flow into every level by the stocks that it meets in its turn, ``i8[N, (cap + 1) ** N]``.

    Args:
      rule: constants.
      demand: tables.
      memory: what is known.
      holding: ``f32[N]`` h.
      left: ``i32[]`` periods left, this one included.
    """
    chance = jax.nn.softmax(memory.likelihood)
    law, spare, lost = (jnp.tensordot(chance, jnp.asarray(x), 1) for x in (demand.law, demand.left, demand.lost))
    order_cost, shortage = jnp.split(memory.costs.mean, 2)
    order_cost, shortage = jnp.maximum(order_cost, 0.0), jnp.maximum(shortage, rule.least_shortage)
    cost = holding[:, None] * spare + shortage[:, None] * lost
    tables = sweep.Tables(law, cost, jnp.zeros_like(order_cost), order_cost, None)
    plan = sweep.finite_horizon(tables, LOOK_AHEAD, is_chain=True)[1]
    return plan[LOOK_AHEAD - jnp.clip(left, 1, LOOK_AHEAD)]
