"""The transportation problem of energy: bounds from prices, feasible allocations, and the certified gap between them.

``min sum_ij c_ij x_ij`` [money] subject to ``sum_j x_ij = d_i``, ``sum_i x_ij <= s_j``, ``x >= 0``, of n demands and m
plants; d, s, x in MW, c in money/MWh over one hour. With a price ``v_j >= 0`` [money/MWh] for the capacity of plant j,

    q(v) = sum_i d_i min_j (c_ij + v_j) - sum_j s_j v_j  <=  optimum  <=  c . complete(x) = U,

for every v and x, so that ``(U - q) / U`` bounds how far the allocation is from optimal without the optimum being
known. ``q_eps``, with ``-eps log sum_j exp(-(c_ij + v_j) / eps)`` in place of the minimum, is smooth and concave, at
most ``eps D log m`` below q, and its gradient is load less supply.

All functions take arrays with any leading batch axes and are pure. Zero demands and zero supplies are padding: they
change no result, whatever their costs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import checks

ROUNDS = 4
"""Times that :func:`complete` scales rows and cuts columns before it fills what is still missing."""


class Transport(NamedTuple):
    """One instance, or a batch of them.

    Attributes:
      cost: ``f32[..., n, m]`` c_ij, not negative [money/MWh].
      demand: ``f32[..., n]`` d_i, not negative [MW].
      supply: ``f32[..., m]`` s_j, not negative, in all at least the demand [MW].
    """

    cost: chex.Array
    demand: chex.Array
    supply: chex.Array


class Solution(NamedTuple):
    """An allocation and a proof of how good it is.

    Attributes:
      allocation: ``f32[..., n, m]`` x_ij, feasible [MW].
      prices: ``f32[..., m]`` v_j of the plants' capacity, which prove the bound [money/MWh].
      cost: ``f32[...]`` U of the allocation [money].
      gap: ``f32[...]`` ``(U - q) / U``, at least 0 up to rounding: the optimum is within this share below U. ``inf``
        where nothing is proved: demand above supply, or numbers that are not finite.
    """

    allocation: chex.Array
    prices: chex.Array
    cost: chex.Array
    gap: chex.Array


def total_cost(problem: Transport, allocation: chex.Array) -> chex.Array:
    """``sum_ij c_ij x_ij`` [money]."""
    return jnp.sum(problem.cost * allocation, axis=(-2, -1))


def _usable(problem: Transport) -> chex.Array:
    """``bool[..., 1, m]`` plants that can give anything."""
    return (problem.supply > 0)[..., None, :]


def lower_bound(problem: Transport, prices: chex.Array) -> chex.Array:
    """``q(v)`` [money] for ``prices f32[..., m]`` of at least 0; the price of a plant without supply is not read."""
    priced = jnp.where(_usable(problem), problem.cost + prices[..., None, :], jnp.inf)
    best = jnp.min(priced, axis=-1)
    # Without demand nothing is bought, also where no plant could sell: 0, not 0 times infinity.
    bought = jnp.where(problem.demand > 0, problem.demand * jnp.where(problem.demand > 0, best, 0.0), 0.0)
    return jnp.sum(bought, axis=-1) - jnp.sum(problem.supply * prices, axis=-1)


def shares(problem: Transport, prices: chex.Array, eps: chex.Numeric) -> chex.Array:
    """``softmax_j(-(c_ij + v_j) / eps)``, ``f32[..., n, m]``: who serves a demand at these prices; eps [money/MWh]."""
    logits = -(problem.cost + prices[..., None, :]) / eps
    return jax.nn.softmax(jnp.where(_usable(problem), logits, -1e9), axis=-1)


def priced_allocation(problem: Transport, prices: chex.Array, eps: chex.Numeric) -> chex.Array:
    """``x_ij = d_i softmax_j(-(c_ij + v_j) / eps)`` [MW]: serves all demand and may exceed supplies."""
    return problem.demand[..., None] * shares(problem, prices, eps)


def smoothed_bound(problem: Transport, prices: chex.Array, eps: chex.Numeric) -> chex.Array:
    """``q_eps(v)`` [money]; its gradient in v is the load of :func:`priced_allocation` less supply [MW]."""
    logits = jnp.where(_usable(problem), -(problem.cost + prices[..., None, :]) / eps, -jnp.inf)
    served = jnp.where(problem.demand > 0, -eps * jax.nn.logsumexp(logits, axis=-1), 0.0)
    return jnp.sum(problem.demand * served, axis=-1) - jnp.sum(problem.supply * prices, axis=-1)


def _share(above: chex.Array, below: chex.Array, where: chex.Array, other: float) -> chex.Array:
    """``above / below`` where that is wanted, else ``other``; its gradient is finite everywhere."""
    return jnp.where(where, above / jnp.where(where, below, 1.0), other)


def _cut(allocation: chex.Array, supply: chex.Array) -> chex.Array:
    """Columns scaled down to their supply where they exceed it."""
    load = jnp.sum(allocation, axis=-2)
    return allocation * _share(supply, load, load > supply, 1.0)[..., None, :]


def _filled(allocation: chex.Array, demand: chex.Array) -> chex.Array:
    """Rows scaled to their demand; one that has next to nothing is left, to be served from spare supply."""
    served = jnp.sum(allocation, axis=-1)
    return allocation * _share(demand, served, served > 1e-9 * demand, 1.0)[..., None]


def before(amount: chex.Array, key: chex.Array) -> chex.Array:
    """What comes before each entry in the order of ``key``, ties in the order of entries: ``f32[..., k]``."""
    earlier = np.tri(amount.shape[-1], k=-1, dtype=bool)
    first = (key[..., None, :] < key[..., :, None]) | ((key[..., None, :] == key[..., :, None]) & earlier)
    return jnp.sum(jnp.where(first, amount[..., None, :], 0.0), axis=-1)


def complete(problem: Transport, allocation: chex.Array) -> chex.Array:
    """The feasible allocation near any ``allocation f32[..., n, m]`` [MW]; one that is feasible stays as it is.

    :data:`ROUNDS` times rows are scaled to their demand and columns cut to their supply. What is then missing is laid
    on spare supply, the cheapest plants first and the demands with the largest gap first (north-west corner rule).
    Demand is met and supply kept up to rounding of the totals, if total supply covers total demand.
    """

    def again(x: chex.Array, _: None) -> tuple[chex.Array, None]:
        return _cut(_filled(x, problem.demand), problem.supply), None

    x, _ = jax.lax.scan(again, jnp.maximum(jnp.nan_to_num(allocation), 0.0), None, length=ROUNDS)
    missing = jnp.maximum(problem.demand - jnp.sum(x, axis=-1), 0.0)
    spare = jnp.maximum(problem.supply - jnp.sum(x, axis=-2), 0.0)
    price = jnp.sum(problem.demand[..., None] * problem.cost, axis=-2)
    start_i, start_j = before(missing, -missing)[..., None], before(spare, price)[..., None, :]
    ends = jnp.minimum(start_i + missing[..., None], start_j + spare[..., None, :])
    return x + jnp.maximum(ends - jnp.maximum(start_i, start_j), 0.0)


def violation(problem: Transport, allocation: chex.Array) -> chex.Array:
    """Largest excess over a supply or miss of a demand [MW], ``f32[...]``; negative power counts too."""
    missed = jnp.abs(jnp.sum(allocation, axis=-1) - problem.demand)
    above = jnp.sum(allocation, axis=-2) - problem.supply
    worst = jnp.maximum(jnp.max(missed, axis=-1), jnp.max(above, axis=-1))
    return jnp.maximum(worst, -jnp.min(allocation, axis=(-2, -1)))


def gap(upper: chex.Array, lower: chex.Array) -> chex.Array:
    """``(U - q) / U``; 0 where both are 0, ``inf`` where either is not finite."""
    share = jnp.where(upper > 0, (upper - lower) / jnp.where(upper > 0, upper, 1.0), jnp.where(lower < 0, jnp.inf, 0.0))
    return jnp.where(jnp.isfinite(upper) & jnp.isfinite(lower), share, jnp.inf)


def certify(problem: Transport, allocation: chex.Array, prices: chex.Array) -> Solution:
    """Completes any allocation, takes any prices as at least 0, and proves what both are worth together."""
    x, v = complete(problem, allocation), jnp.maximum(jnp.nan_to_num(prices), 0.0)
    cost = total_cost(problem, x)
    short = jnp.sum(problem.demand, axis=-1) > jnp.sum(problem.supply, axis=-1) * (1.0 + 1e-6)
    return Solution(x, v, cost, jnp.where(short, jnp.inf, gap(cost, lower_bound(problem, v))))


def check(owner: str, cost: Any, demand: Any, supply: Any) -> Transport:
    """An instance, or a batch, from anything like arrays, or what is wrong with it. On the host, before any compile.

    Args:
      owner: who refuses, for the message.
      cost: ``[..., n, m]`` [money/MWh].
      demand: ``[..., n]`` [MW].
      supply: ``[..., m]`` [MW].

    Raises:
      ValueError: for empty sides, shapes that do not fit, numbers that are negative or not finite (with their index),
        and demand above supply (with the MW missing and the index of the instance, which along a path is the period).
    """
    arrays = {}
    for field, value, axes in (("cost", cost, 2), ("demand", demand, 1), ("supply", supply, 1)):
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise checks.refusal(owner, field, "an array of numbers", checks.shown(value)) from error
        if array.ndim < axes or 0 in array.shape[-axes:]:
            side = "an array [..., n, m] with n and m at least 1" if axes == 2 else "an array with at least 1 entry"
            raise checks.refusal(owner, field, side, f"shape {array.shape}")
        bad = ~np.isfinite(array) | (array < 0)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise checks.refusal(owner, field, "finite and not negative", f"{array[at]:g} at {list(at)}")
        arrays[field] = array
    n, m = arrays["cost"].shape[-2:]
    batch = arrays["cost"].shape[:-2]
    for field, size in (("demand", n), ("supply", m)):
        if arrays[field].shape != (*batch, size):
            raise checks.refusal(owner, field, f"of shape {(*batch, size)}, as cost says", f"{arrays[field].shape}")
    missing = arrays["demand"].sum(-1) - arrays["supply"].sum(-1)
    short = missing > 1e-6 * arrays["demand"].sum(-1)
    if short.any():
        index = tuple(int(i) for i in np.argwhere(short)[0])
        where = f" at {list(index)}" if index else ""
        raise checks.refusal(owner, "supply", "at least the demand in all", f"{missing[index]:g} MW too little{where}")
    return Transport(*(jnp.asarray(arrays[field], jnp.float32) for field in ("cost", "demand", "supply")))
