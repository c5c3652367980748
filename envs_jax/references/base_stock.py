"""Echelon base-stock levels of a serial inventory system.

Stage 0 serves customers, stage ``i`` is supplied by stage ``i + 1``, the last one from outside without limit. An order
placed at the start of period ``t`` with lead time ``L`` is on the shelf when the demand of period ``t + L - 1`` is
served, so it has to cover ``L`` periods of demand. The *echelon* level ``x_i`` is everything on hand at ``i`` and below
or moving between those stages, less the backlog ``B``. A period costs ``sum_i e_i x_i + (b + sum_i e_i) x_0^-``, with
echelon holding costs ``e_i`` and backlog cost ``b`` [money/unit/period]; that is ``h_i = sum_{k >= i} e_k`` for a unit
on hand at ``i`` and ``h_{i+1}`` for a unit moving to ``i``.

Three solvers, all pure and vmappable over tasks:

* :func:`finite_horizon`: Clark and Scarf (1960), the exact optimum of an episode of ``P`` periods, levels by period.
* :func:`stationary`: Chen and Zheng (1994), the levels and cost that are optimal for the long-run average.
* :func:`newsvendor`: Shang and Song (2003), the mean of two newsvendor bounds.

The first two work with functions on the integer grid ``x = -1, 0, .., G - 2``. That needs no more room to the left,
because every function met is exactly linear for ``x <= 0``: :func:`demand_operator` continues them with the slope of
the first cell. The papers are recalled, not re-read; check figures: docs/domains/supply_chain.md.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.arrays import vary_like

NEVER = -(2**20)
"""The level of a stage which should not order, because nothing it orders can be of use before the episode ends."""

_OFFSET = 1  # the grid starts at x = -1


@struct.dataclass
class FiniteHorizon:
    """Optimal levels of an episode and what they cost.

    Attributes:
      levels: ``i32[P, N]`` order-up-to levels of the echelon inventory positions [units]; :data:`NEVER` for "do not".
      value: ``f32[N, G]`` expected cost of the episode [money] that stage ``i`` answers for, when it starts at echelon
        level ``x = g - 1`` with nothing under way; the episode costs ``sum_i value[i, x_i + 1]``.
    """

    levels: chex.Array
    value: chex.Array


def probabilities(cdf: chex.Array) -> chex.Array:
    """Point masses ``f32[K]`` of a tabulated law, scaled to sum to 1.

    Scaled rather than completed: in single precision the missing 1e-6 at demand 47 would add 0.002 to a cost of 14.
    """
    return jnp.diff(cdf, prepend=0.0) / cdf[-1]


def demand_operator(pmf: chex.Array, size: int) -> chex.Array:
    """The matrix ``f32[G, G]`` that takes ``f`` to ``y -> E f(y - D)`` on the grid, linear to the left of it."""
    (count,) = pmf.shape
    grid = jnp.arange(size, dtype=jnp.int32)
    difference = grid[:, None] - grid[None, :]
    inside = (difference >= 0) & (difference < count)
    matrix = jnp.where(inside, pmf[jnp.clip(difference, 0, count - 1)], 0.0)
    # Demand d > g leaves the grid: f(g - d) = f_0 + (g - d)(f_1 - f_0).
    below = jnp.minimum(difference[:, :1] - jnp.arange(count, dtype=jnp.int32)[None, :], 0)
    mass = jnp.sum(jnp.where(below < 0, pmf, 0.0), axis=1)
    moment = jnp.sum(below.astype(jnp.float32) * pmf[None, :], axis=1)
    return matrix.at[:, 0].add(mass - moment).at[:, 1].add(moment)


def _powers(matrix: chex.Array, count: int) -> chex.Array:
    """``matrix^1 .. matrix^count``, stacked."""
    out = [matrix]
    for _ in range(count - 1):
        out.append(jnp.matmul(out[-1], matrix, precision="highest"))
    return jnp.stack(out)


def stationary(
    cdf: chex.Array, echelon_cost: chex.Array, backlog_cost: chex.Array, lead_time: chex.Array, max_lead: int, size: int
) -> tuple[chex.Array, chex.Array]:
    """Chen and Zheng's recursion, downstream first, with ``f_{-1}(x) = (b + sum e) x^-``.

    ``C_i(y) = E[e_i x + f_{i-1}(x)]`` at ``x = y - D(L_i)``, ``S_i = argmin C_i``, ``f_i(x) = C_i(min(x, S_i))``.

    Args:
      cdf: ``f32[K]`` law of a period's demand [units].
      echelon_cost: ``f32[N]`` echelon holding costs ``e_i``.
      backlog_cost: ``f32[]`` backlog cost ``b``.
      lead_time: ``i32[N]`` in ``[1, max_lead]``.
      max_lead: bound on the lead times (static).
      size: grid points ``G`` (static); ``G - 2`` must exceed the last stage's level.

    Returns:
      Levels ``i32[N]`` and the long-run cost per period ``f32[]``.
    """
    x = jnp.arange(size, dtype=jnp.float32) - _OFFSET
    operators = _powers(demand_operator(probabilities(cdf), size), max_lead)

    def stage(induced: chex.Array, own: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        cost, lead = own
        expected = jnp.matmul(operators[lead - 1], cost * x + induced, precision="highest")
        best = jnp.argmin(expected).astype(jnp.int32)
        return expected[jnp.minimum(jnp.arange(size, dtype=jnp.int32), best)], best - _OFFSET

    shortage = (backlog_cost + echelon_cost.sum()) * jnp.maximum(-x, 0.0)
    induced, levels = jax.lax.scan(stage, vary_like(shortage, cdf, lead_time), (echelon_cost, lead_time))
    return levels.astype(jnp.int32), induced[-1]


def finite_horizon(
    cdf: chex.Array,
    echelon_cost: chex.Array,
    backlog_cost: chex.Array,
    lead_time: chex.Array,
    max_lead: int,
    size: int,
    num_periods: int,
) -> FiniteHorizon:
    """Clark and Scarf's decomposition: one dynamic programme per stage, the next one paying for this one's shortages.

    With ``c_i(t, x) = e_i x [t >= 1] + penalty_{i-1}(t, x)`` the cost of having echelon level ``x`` at time ``t``,
    ``J_i(t, y) = E c_i(t + L_i, y - D(L_i)) [t + L_i <= P] + E f_i(t + 1, y - D)``, ``S_i(t) = argmin J_i(t, .)``,
    ``f_i(t, x) = J_i(t, max(x, S_i))`` and ``penalty_i(t, x) = J_i(t, min(x, S_i)) - J_i(t, S_i)``, which is what stage
    ``i + 1`` causes by holding no more than ``x``. Undiscounted; nothing is worth anything after period ``P - 1``.
    Arguments as in :func:`stationary`; ``num_periods`` is ``P`` (static).
    """
    x = jnp.arange(size, dtype=jnp.float32) - _OFFSET
    index = jnp.arange(size, dtype=jnp.int32)
    one = demand_operator(probabilities(cdf), size)
    operators = _powers(one, max_lead)
    counted = (jnp.arange(num_periods + 1, dtype=jnp.int32) >= 1)[:, None]

    def back(carry: tuple[chex.Array, chex.Array], direct: chex.Array) -> tuple[tuple, tuple]:
        # The value is kept as a function that is 0 at its minimum and a constant: single precision needs it.
        shape, constant = carry
        cost = direct + jnp.matmul(one, shape, precision="highest")
        best = jnp.argmin(cost).astype(jnp.int32)
        excess = cost - cost[best]
        above = index > best
        return (jnp.where(above, excess, 0.0), constant + cost[best]), (best, jnp.where(above, 0.0, excess))

    def stage(penalty: chex.Array, own: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, tuple]:
        cost, lead = own
        charge = jnp.pad((cost * x)[None, :] * counted.astype(jnp.float32) + penalty, ((0, max_lead), (0, 0)))
        later = jax.lax.dynamic_slice_in_dim(charge, lead, num_periods)
        direct = jnp.matmul(later, operators[lead - 1].T, precision="highest")
        (value, constant), (best, penalty) = jax.lax.scan(
            back, vary_like((jnp.zeros(size, jnp.float32), jnp.float32(0.0)), direct), direct, reverse=True
        )
        value = value + constant
        # Until its first order can arrive a stage lives on what it has.
        for t in range(max_lead):
            expected = jnp.matmul(operators[t - 1], charge[t], precision="highest") if t else charge[0]
            value = value + jnp.where(t < lead, expected, 0.0)
        level = jnp.where(best == 0, NEVER, best - _OFFSET)
        return jnp.pad(penalty, ((0, 1), (0, 0))), (level, value)

    shortage = ((backlog_cost + echelon_cost.sum()) * jnp.maximum(-x, 0.0))[None, :] * counted.astype(jnp.float32)
    _, (levels, value) = jax.lax.scan(stage, vary_like(shortage, cdf, lead_time), (echelon_cost, lead_time))
    return FiniteHorizon(levels=levels.T.astype(jnp.int32), value=value)


def newsvendor(
    cdf: chex.Array, echelon_cost: chex.Array, backlog_cost: chex.Array, lead_time: chex.Array, max_lead: int, size: int
) -> chex.Array:
    """Shang and Song's heuristic levels ``f32[N]``: the mean of two quantiles of the demand over stages ``0..i``.

    Critical ratios ``(b + sum_{k > i} e_k) / (b + sum_k e_k)`` and ``(b + sum_{k > i} e_k) / (b + sum_{k >= i} e_k)``.
    Arguments as in :func:`stationary`; ``size`` bounds the levels.
    """
    pmf = jnp.zeros(size, jnp.float32).at[: cdf.shape[0]].set(probabilities(cdf)[:size])
    difference = jnp.arange(size, dtype=jnp.int32)[:, None] - jnp.arange(size, dtype=jnp.int32)[None, :]
    convolve = jnp.where(difference >= 0, pmf[jnp.maximum(difference, 0)], 0.0)

    def stage(law: chex.Array, own: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
        lead, ratios = own
        for k in range(max_lead):
            law = jnp.where(k < lead, jnp.matmul(convolve, law, precision="highest"), law)
        return law, jnp.sum(jnp.cumsum(law)[:, None] < ratios).astype(jnp.float32) / 2

    total = backlog_cost + echelon_cost.sum()
    upstream = total - jnp.cumsum(echelon_cost)
    ratios = jnp.stack([upstream / total, upstream / (upstream + echelon_cost)], axis=-1)
    nothing = vary_like(jnp.zeros(size, jnp.float32).at[0].set(1.0), cdf, lead_time, ratios)
    _, levels = jax.lax.scan(stage, nothing, (lead_time, ratios))
    return levels
