"""One sweep of the exact dynamic programme of :mod:`envs_jax.games.warehouse`, by structure instead of by enumeration.

A sweep is an expectation over the demands, then a minimum over the flows:

* **Expectation.** Demands are independent, so ``E g((y - D)^+)`` is ``n`` contractions with tables of ``side x side``.
* **Minimum.** The joint minimum over flows is ``n`` one-dimensional ones. Let the flows happen one after another, into
  level ``n`` first: each then meets exactly the stocks that bound it, and it moves stock between neighbours only. So
  the minimum over the flow into level 1 is taken first for every intermediate stock, that into level ``n`` last. With
  costs ``c a + K 1[a > 0]`` the best of all positive flows follows from the best one unit further on.

A sweep costs ``O(n (cap + 1) |X|)``, never ``|X| |A|``. Levels differ by data alone: one ``scan`` body serves them all
while the level axis is rolled, so that compiling takes as long for ten levels as for two. Unequal caps are padded.

Pure functions of arrays, in their precision; :mod:`envs_jax.references.warehouse` iterates them in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import arrays
from envs_jax.games import warehouse as model
from envs_jax.games.warehouse import Warehouse

FORBIDDEN = 1e30
"""Cost of a stock above the cap: finite, because 0 times infinity is not 0 in a contraction."""

TIE = 1e-9
"""Costs closer than this are ties, which the smaller flow wins, into level ``n`` first. Far above rounding."""


class Tables(NamedTuple):
    """A warehouse as arrays, level 1 first.

    Attributes:
      law: ``f64[n, side, side]`` law of the next stock (column) after stock ``y`` (row).
      cost: ``f64[n, side]`` holding and shortage cost by ``y`` [money/period]; :data:`FORBIDDEN` above the cap.
      unit: ``f64[n]`` cost a unit moved.
      order: ``f64[n]`` cost an order.
      valid: ``bool[side ** n]`` which padded entries are states; ``None`` if all are.
    """

    law: chex.Array
    cost: chex.Array
    unit: chex.Array
    order: chex.Array
    valid: chex.Array | None


def flow_dtype(side: int) -> type[np.signedinteger]:
    """The smallest type that holds a flow: ``i8`` up to caps of 126, else ``i16``."""
    return np.int8 if side < 128 else np.int16


def build(warehouse: Warehouse) -> Tables:
    """The tables of a warehouse, NumPy arrays."""
    law, cost = model.tables(warehouse)
    for i, cap in enumerate(warehouse.caps):
        cost[i, cap + 1 :] = FORBIDDEN
    valid = None
    if warehouse.is_ragged:
        valid = np.zeros(warehouse.side**warehouse.num_levels, bool)
        valid[model.padded_index(warehouse)] = True
    return Tables(law, cost, np.array(warehouse.unit_cost), np.array(warehouse.order_cost), valid)


def expected(tables: Tables, value: chex.Array) -> chex.Array:
    """``W(y) = holding and shortage at y + E value((y - D)^+)``: ``f64[side ** n]`` from the same shape.

    A level's cost may be added as soon as its own demand is averaged: the laws of the others sum to one.
    """
    side = tables.cost.shape[1]

    def level(value: chex.Array, own: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, None]:
        law, cost = own
        averaged = jnp.dot(law, value.reshape(-1, side).T, precision="highest")
        return (averaged + cost[:, None]).reshape(-1), None

    value = arrays.vary_like(value, tables)
    return jax.lax.scan(level, value, (tables.law, tables.cost), reverse=True)[0]


def _cheapest(
    value: chex.Array, unit: chex.Array, order: chex.Array, coupled: bool, with_flows: bool
) -> tuple[chex.Array, chex.Array]:
    """The minimum over one flow. Leading axis: the supplier's stock if ``coupled``, else the level's own.

    Let ``G(z)`` be the cost of the best flow of at least one unit. Its first unit leads to a stock from which either
    nothing more is moved or the best flow of at least one more: ``G(z) = c + min(V, G)`` one unit further on.

    Args:
      value: ``f64[side, side, R]`` by the supplier's stock and the level's own, or ``f64[side, 1, R]`` by its own.
      unit: ``f64[]``.
      order: ``f64[]``.
      coupled: whether a unit leaves the supplier (static).
      with_flows: whether to return the flows (static).

    Returns:
      The minimum, shaped as ``value``, and the minimising flows ``i8`` of that shape (a zero if not asked for).
    """

    def further(rows: chex.Array, fill: float | int) -> chex.Array:
        """The entries at one more unit of the level's own stock, within a row of the supplier's."""
        if not coupled:
            return rows
        return jnp.concatenate([rows[1:], jnp.full_like(rows[:1], fill)])

    def row(carry: tuple[chex.Array, ...], value: chex.Array) -> tuple[tuple[chex.Array, ...], tuple]:
        nearest, best, count = carry
        more = best < nearest - TIE
        best = unit + further(jnp.minimum(nearest, best), jnp.inf)
        if with_flows:
            count = further(jnp.where(more, count + 1, 1), 0)
        moves = order + best < value - TIE
        least = jnp.minimum(value, order + best)
        return (value, best, count), (least, jnp.where(moves, count, 0) if with_flows else count)

    count = jnp.zeros(value.shape[1:] if with_flows else (), flow_dtype(value.shape[0]))
    endless = jnp.full(value.shape[1:], jnp.inf, value.dtype)
    start = arrays.vary_like((endless, endless, count), value, unit, order)
    # A unit comes from the row of one unit less at the supplier; bought outside, it leads to that of one unit more.
    _, (least, flows) = jax.lax.scan(row, start, value, reverse=not coupled)
    return least, flows


def minimum(
    tables: Tables, value: chex.Array, is_chain: bool, with_flows: bool = False
) -> tuple[chex.Array, chex.Array]:
    """``M(x) = min over feasible flows of their cost + W(y)``.

    Args:
      tables: of the warehouse.
      value: ``f64[side ** n]``, :func:`expected`.
      is_chain: whether levels supply each other (static).
      with_flows: whether to return the minimising flows (static).

    Returns:
      ``f64[side ** n]`` and flows ``i8[n, side ** n]`` (or a zero). Entries that are no states are large.
    """
    value, flows = _in_turn(tables, value, is_chain, with_flows)
    return value, _unroll(flows, tables.cost.shape[1], is_chain) if with_flows else flows


def finite_horizon(tables: Tables, num_periods: int, is_chain: bool) -> tuple[chex.Array, chex.Array]:
    """The least expected cost of so many periods, nothing being worth anything afterwards, and the flows of each turn.

    Pure and vmappable over tables, in their precision.

    Args:
      tables: of the warehouse; equal caps.
      num_periods: ``P`` (static).
      is_chain: whether levels supply each other (static).

    Returns:
      ``f[side ** n]`` cost from the start, and ``i8[P, n, side ** n]`` the best flow into every level given the stock
      that it meets in its turn, into level ``n`` first: optimal whatever was done in the turns before.
    """
    side = tables.cost.shape[1]

    def period(value: chex.Array, _: None) -> tuple[chex.Array, chex.Array]:
        value, flows = _in_turn(tables, expected(tables, value), is_chain, with_flows=True)
        return value, _by_stock(flows, side, is_chain)

    last = arrays.vary_like(jnp.zeros(side ** tables.cost.shape[0], tables.cost.dtype), tables)
    value, flows = jax.lax.scan(period, last, None, length=num_periods)
    return value, flows[::-1]


def _in_turn(tables: Tables, value: chex.Array, is_chain: bool, with_flows: bool) -> tuple[chex.Array, chex.Array]:
    """:func:`minimum` with every flow by the stock it meets, in tables whose axes are rolled."""
    n, side = tables.cost.shape
    last = side ** max(n - 2, 0)

    def alone(value: chex.Array, own: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        least, flows = _cheapest(value.reshape(side, 1, -1), *own, coupled=False, with_flows=with_flows)
        return least.reshape(side, -1).T.reshape(-1), flows.reshape(-1)

    def coupled(value: chex.Array, own: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        least, flows = _cheapest(value.reshape(side, side, last), *own, coupled=True, with_flows=with_flows)
        return least.reshape(side, -1).T.reshape(-1), flows.reshape(-1)

    costs = (tables.unit, tables.order)
    if not is_chain or n == 1:
        value, flows = jax.lax.scan(alone, value, costs)
    else:
        # Level 1 is left in front for level 2's turn, so that the axes are rolled n times in all.
        first = _cheapest(value.reshape(side, 1, -1), tables.unit[0], tables.order[0], False, with_flows)
        value, flows = jax.lax.scan(coupled, first[0].reshape(-1), (tables.unit[1:], tables.order[1:]))
        value = value.reshape(side, -1).T.reshape(-1)
        flows = jnp.concatenate([first[1].reshape(1, -1), flows]) if with_flows else flows
    return value, flows


def _by_stock(flows: chex.Array, side: int, is_chain: bool) -> chex.Array:
    """Rolled tables of flows as tables by the stock that the flow meets."""
    n, size = flows.shape
    index = np.arange(size, dtype=np.int32)
    rows = []
    for level in range(n):
        front = max(level - 1, 0) if is_chain else level
        low = side ** (n - front)
        rows.append(flows[level][(index % low) * side**front + index // low])
    return jnp.stack(rows)


def _unroll(flows: chex.Array, side: int, is_chain: bool) -> chex.Array:
    """The flows from the joint stock at the start, out of those from the stocks that each flow meets in its turn.

    Flow ``i`` was tabulated with the axes rolled so that its plane leads: level ``i`` (``i - 1`` if coupled) first.
    """
    n, size = flows.shape
    level = jnp.arange(n)
    front = jnp.maximum(level - 1, 0) if is_chain else level
    stride = side ** (n - 1 - level)
    taken = jnp.where(is_chain & (level > 0), side * stride, 0)
    low = side ** (n - front)  # levels from `front` on count for indices below this

    def turn(index: chex.Array, own: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
        flows, stride, taken, front, low = own
        rolled = (index % low) * side**front + index // low
        amount = flows[rolled]
        return index + amount * (stride - taken), amount

    start = jnp.arange(size)
    return jax.lax.scan(turn, start, (flows, stride, taken, front, low), reverse=True)[1]
