"""Exact average-cost dynamic programming for :mod:`envs_jax.games.warehouse`, by structure instead of by enumeration.

A policy's gain ``eta`` [money/period] and its potentials ``g`` solve Poisson's equation ``(I - P) g + eta 1 = f`` with
``g(0) = 0`` (X.-R. Cao, Stochastic Learning and Optimization, Springer 2007). Two steps make up every sweep:

* **Expectation.** Demands are independent, so ``E g((y - D)^+)`` is ``n`` contractions with tables of ``side x side``.
* **Minimum.** The joint minimum over flows is ``n`` one-dimensional ones. Let the flows happen one after another, into
  level ``n`` first: each then meets exactly the stocks that bound it, and it moves stock between neighbours only. So
  the minimum over the flow into level 1 is taken first for every intermediate stock, that into level ``n`` last. With
  costs ``c a + K 1[a > 0]`` the best of all positive flows follows from the best one unit further on.

A sweep costs ``O(n (cap + 1) |X|)``, never ``|X| |A|``. Levels differ by data alone: one ``scan`` body serves them all
while the level axis is rolled, so that compiling takes as long for ten levels as for two. Unequal caps are padded.

Gains carry bounds: for any ``v``, ``min (T v - v) <= eta <= max (T v - v)`` (A. R. Odoni, Operations Research 17, 1969;
recalled). All arithmetic is float64, switched on locally; public functions take and return NumPy arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.games import warehouse as model
from envs_jax.games.warehouse import Warehouse

FORBIDDEN = 1e30
"""Cost of a stock above the cap: finite, because 0 times infinity is not 0 in a contraction."""

TIE = 1e-9
"""Costs closer than this are ties, which the smaller flow wins, into level ``n`` first. Far above rounding."""

WORKING_ARRAYS = 7
"""Arrays of one float64 per state that a solution holds at the same time."""


class MultichainError(ValueError):
    """A policy with several recurrent classes: its gain depends on where it starts and potentials do not exist."""


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


class Solution(NamedTuple):
    """A gain with its potentials.

    Attributes:
      gain: long-run average cost [money/period].
      lower: a lower bound on it.
      upper: an upper bound on it.
      potentials: ``f64[|X|]`` relative to the empty warehouse, in the order of :func:`model.states`.
      sweeps: sweeps it took.
    """

    gain: float
    lower: float
    upper: float
    potentials: np.ndarray
    sweeps: int


class Iterate(NamedTuple):
    """One policy of a policy iteration: its flows ``i8[n, |X|]`` and the solution of its Poisson equation."""

    flows: np.ndarray
    solution: Solution


def flow_dtype(side: int) -> type[np.signedinteger]:
    """The smallest type that holds a flow: ``i8`` up to caps of 126, else ``i16``."""
    return np.int8 if side < 128 else np.int16


# --- the two halves of a sweep ---------------------------------------------------------------------------------------


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
            count = further(jnp.where(more, count + 1, 1).astype(count.dtype), 0)
        moves = order + best < value - TIE
        least = jnp.minimum(value, order + best)
        return (value, best, count), (least, jnp.where(moves, count, 0) if with_flows else count)

    count = jnp.zeros(value.shape[1:] if with_flows else (), flow_dtype(value.shape[0]))
    start = (jnp.full(value.shape[1:], jnp.inf), jnp.full(value.shape[1:], jnp.inf), count)
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

    last = jnp.zeros(side ** tables.cost.shape[0], tables.cost.dtype)
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
    index = np.arange(size)
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


def post_decision(warehouse: Warehouse, flows: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Where flows lead, and what they cost.

    Args:
      warehouse: the model.
      flows: ``i8[n, side ** n]``, padded.

    Returns:
      Padded index of ``y`` ``i64[side ** n]`` and order cost ``f64[side ** n]`` [money]. Entries that are no states
      stay where they are.
    """
    stride = model.strides(warehouse)
    gain = stride.copy()
    if warehouse.is_chain:
        gain[1:] -= stride[:-1]
    index = np.arange(flows.shape[1])
    cost = np.zeros(flows.shape[1])
    for i in range(warehouse.num_levels):
        index = index + flows[i] * gain[i]
        cost += warehouse.unit_cost[i] * flows[i] + warehouse.order_cost[i] * (flows[i] > 0)
    return index, cost


# --- iteration to a fixed point --------------------------------------------------------------------------------------


def _relative(
    operator: Callable[[chex.Array], chex.Array],
    value: chex.Array,
    valid: chex.Array | None,
    tolerance: chex.Array,
    max_sweeps: int,
    damping: chex.Array,
) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array]:
    """Relative value iteration: ``v <- (1 - damping) v + damping T v``, kept at 0 in the first state."""

    def sweep(carry: tuple[chex.Array, ...]) -> tuple[chex.Array, ...]:
        value, _, _, count = carry
        change = operator(value) - value
        if valid is not None:
            change = jnp.where(valid, change, change[0])
        value = value + damping * (change - change[0])
        return value, change.min(), change.max(), count + 1

    def unfinished(carry: tuple[chex.Array, ...]) -> chex.Array:
        _, low, high, count = carry
        return (high - low > tolerance) & (count < max_sweeps)

    return jax.lax.while_loop(unfinished, sweep, (value, -jnp.inf, jnp.inf, 0))


@functools.partial(jax.jit, static_argnames=("is_chain", "max_sweeps"), donate_argnames="value")
def _optimise(
    tables: Tables, value: chex.Array, tolerance: chex.Array, damping: chex.Array, is_chain: bool, max_sweeps: int
) -> tuple[chex.Array, ...]:
    return _relative(
        lambda v: minimum(tables, expected(tables, v), is_chain)[0], value, tables.valid, tolerance, max_sweeps, damping
    )


@functools.partial(jax.jit, static_argnames="max_sweeps", donate_argnames="value")
def _evaluate(
    tables: Tables,
    index: chex.Array,
    cost: chex.Array,
    value: chex.Array,
    tolerance: chex.Array,
    damping: chex.Array,
    max_sweeps: int,
) -> tuple[chex.Array, ...]:
    return _relative(lambda v: cost + expected(tables, v)[index], value, tables.valid, tolerance, max_sweeps, damping)


@functools.partial(jax.jit, static_argnames="is_chain")
def _discounted(
    tables: Tables, value: chex.Array, discount: chex.Array, tolerance: chex.Array, is_chain: bool
) -> tuple:
    def sweep(carry: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        value, _ = carry
        after = minimum(tables, expected(tables, discount * value), is_chain)[0]
        if tables.valid is not None:
            after = jnp.where(tables.valid, after, 0.0)
        return after, jnp.abs(after - value).max()

    return jax.lax.while_loop(lambda carry: carry[1] > tolerance, sweep, (value, jnp.inf))


@functools.partial(jax.jit, static_argnames="is_chain")
def _greedy(tables: Tables, value: chex.Array, is_chain: bool) -> chex.Array:
    return minimum(tables, expected(tables, value), is_chain, with_flows=True)[1]


_expected = jax.jit(expected)


def padded(warehouse: Warehouse, values: np.ndarray | None) -> np.ndarray:
    """A table ``[..., |X|]`` as ``[..., side ** n]``, zero where there is no state; zeros ``f64`` for None."""
    size = warehouse.side**warehouse.num_levels
    if values is None:
        return np.zeros(size)
    if not warehouse.is_ragged:
        return np.asarray(values)
    out = np.zeros((*values.shape[:-1], size), values.dtype)
    out[..., model.padded_index(warehouse)] = values
    return out


def unpadded(warehouse: Warehouse, values: chex.Array) -> np.ndarray:
    """The states' entries of a padded table."""
    out = np.asarray(values)
    return out[..., model.padded_index(warehouse)] if warehouse.is_ragged else out


def _solution(warehouse: Warehouse, result: tuple[chex.Array, ...], tolerance: float, max_sweeps: int) -> Solution:
    value, low, high, count = result
    low, high, count = float(low), float(high), int(count)
    if not high - low <= tolerance:
        raise ArithmeticError(
            f"the bounds on the gain, {low} and {high}, are still {high - low:.1e} apart after {count} sweeps "
            f"(tolerance {tolerance}, max_sweeps {max_sweeps})"
        )
    return Solution((low + high) / 2, low, high, unpadded(warehouse, value), count)


def _damping(warehouse: Warehouse) -> float:
    """1 where every policy is aperiodic (some day all stock is sold), else 1/2, which makes any chain aperiodic."""
    return 1.0 if min(warehouse.rates) > 0 else 0.5


def working_bytes(warehouse: Warehouse) -> int:
    """Memory that the joint tables of a warehouse take while it is solved [bytes]."""
    return WORKING_ARRAYS * 8 * warehouse.side**warehouse.num_levels


def optimum(
    warehouse: Warehouse, *, start: np.ndarray | None = None, tolerance: float = 1e-11, max_sweeps: int = 100_000
) -> Solution:
    """The smallest gain of any policy, by relative value iteration on the joint stock.

    Args:
      warehouse: the model.
      start: ``f64[|X|]`` potentials to start from.
      tolerance: how far apart the bounds on the gain may be [money/period]; no less than rounding allows, which grows
        with the potentials.
      max_sweeps: gives up beyond.

    Raises:
      ArithmeticError: if it gives up.
    """
    with jax.enable_x64(True):
        tolerance = max(tolerance, 0.0)
        value = jnp.array(padded(warehouse, start))
        result = _optimise(
            build(warehouse), value, tolerance, _damping(warehouse), warehouse.is_chain, max_sweeps=max_sweeps
        )
        return _solution(warehouse, result, tolerance, max_sweeps)


def evaluate(
    warehouse: Warehouse,
    flows: np.ndarray,
    *,
    start: np.ndarray | None = None,
    tolerance: float = 1e-11,
    max_sweeps: int = 100_000,
) -> Solution:
    """A policy's gain and potentials.

    Args:
      warehouse: the model.
      flows: ``i8[n, |X|]``, in the order of :func:`model.states`.
      start: ``f64[|X|]`` potentials to start from, such as those of a similar policy.
      tolerance: as in :func:`optimum`.
      max_sweeps: as in :func:`optimum`.

    Raises:
      ValueError: flows that are not feasible, with the first such state.
      MultichainError: if the policy has several recurrent classes.
      ArithmeticError: if it gives up.
    """
    check_feasible(warehouse, flows)
    check_unichain(warehouse, flows)
    with jax.enable_x64(True):
        index, cost = post_decision(warehouse, padded(warehouse, flows))
        value = jnp.array(padded(warehouse, start))
        result = _evaluate(build(warehouse), index, cost, value, tolerance, _damping(warehouse), max_sweeps=max_sweeps)
        return _solution(warehouse, result, tolerance, max_sweeps)


def discounted(warehouse: Warehouse, discount: float, tolerance: float = 1e-8) -> np.ndarray:
    """The least discounted cost of every stock ``f64[|X|]`` [money], to within ``tolerance``.

    Raises:
      ValueError: ``discount`` outside [0, 1).
    """
    if not 0.0 <= discount < 1.0:
        raise ValueError(f"discount = {discount}: must lie in [0, 1)")
    with jax.enable_x64(True):
        start = padded(warehouse, None)
        stop = tolerance * (1.0 - discount)
        return unpadded(warehouse, _discounted(build(warehouse), start, discount, stop, warehouse.is_chain)[0])


def improve(warehouse: Warehouse, potentials: np.ndarray) -> np.ndarray:
    """Rollout: the flows ``i8[n, |X|]`` that minimise ``f(x, a) + E g(x')`` jointly, the smallest among ties."""
    with jax.enable_x64(True):
        return unpadded(
            warehouse, _greedy(build(warehouse), jnp.asarray(padded(warehouse, potentials)), warehouse.is_chain)
        )


def lookahead(warehouse: Warehouse, potentials: np.ndarray) -> np.ndarray:
    """``W(y) = holding and shortage at y + E g((y - D)^+)`` for every joint stock ``y``: ``f64[|X|]``."""
    with jax.enable_x64(True):
        return unpadded(warehouse, _expected(build(warehouse), jnp.asarray(padded(warehouse, potentials))))


def poisson_residual(warehouse: Warehouse, flows: np.ndarray, solution: Solution) -> float:
    """Largest ``|f - eta + P g - g|`` over all states [money]: how well a solution solves Poisson's equation."""
    index, cost = post_decision(warehouse, padded(warehouse, flows))
    worth = padded(warehouse, lookahead(warehouse, solution.potentials))
    after = unpadded(warehouse, cost + worth[index])
    return float(np.abs(after - solution.gain - solution.potentials).max())


# --- policies --------------------------------------------------------------------------------------------------------


def order_nothing(warehouse: Warehouse) -> np.ndarray:
    """The policy that never moves anything: ``i8[n, |X|]`` zeros."""
    return np.zeros((warehouse.num_levels, warehouse.num_states), flow_dtype(warehouse.side))


def base_stock(warehouse: Warehouse, levels: tuple[int, ...]) -> np.ndarray:
    """Order up to ``levels``, each level by itself: ``i8[n, |X|]``; for independent levels."""
    return np.maximum(np.asarray(levels)[:, None] - model.states(warehouse).T, 0).astype(flow_dtype(warehouse.side))


def check_feasible(warehouse: Warehouse, flows: np.ndarray) -> None:
    """Raises ``ValueError`` at the first state where ``flows`` cannot all be done at once."""
    expected_shape = (warehouse.num_levels, warehouse.num_states)
    if flows.shape != expected_shape:
        raise ValueError(f"flows: shape {flows.shape}, expected {expected_shape}")
    stock = model.states(warehouse)
    bad = np.flatnonzero(~model.is_feasible(warehouse, stock, flows.T.astype(np.int32)))
    if bad.size:
        x, a = stock[bad[0]].tolist(), flows[:, bad[0]].tolist()
        raise ValueError(f"flows {a} at stock {x} are not feasible ({warehouse.supply}, caps {warehouse.caps})")


def check_unichain(warehouse: Warehouse, flows: np.ndarray) -> None:
    """Raises :class:`MultichainError` if a policy has more than one recurrent class.

    Where every rate is positive all stock may be sold in any period, so state 0 is reached from everywhere. Else, from
    any stock, everything may be sold that can be; what follows is a map of the stocks of the other levels onto
    themselves, and every recurrent class contains one of its cycles. Classes are then told apart by what their cycles
    reach.
    """
    if min(warehouse.rates) > 0:
        return
    sold = np.asarray(warehouse.rates) > 0
    index, _ = post_decision(warehouse, padded(warehouse, flows))
    stride, side = model.strides(warehouse), warehouse.side
    own = model.padded_index(warehouse)
    kept = sum((index // stride[i] % side) * stride[i] for i in range(warehouse.num_levels) if not sold[i])
    kept = np.broadcast_to(np.asarray(kept, np.int64), index.shape)
    current = np.unique(kept[own])
    while (after := np.unique(kept[current])).size < current.size:
        current = after
    classes: list[np.ndarray] = []
    for state in current:
        reached = np.zeros(index.size, bool)
        reached[state] = True
        while True:
            after = np.zeros_like(reached)
            after[index[reached]] = True
            for i in np.flatnonzero(sold):  # any number of units may be sold
                stock = after.reshape(-1, side, int(stride[i]))
                after = np.logical_or.accumulate(stock[:, ::-1], axis=1)[:, ::-1].reshape(-1)
            if not (after & ~reached).any():
                break
            reached |= after
        classes.append(reached)
    # A cycle lies in a recurrent class if all that it reaches reaches it; two classes share nothing.
    recurrent: list[int] = []
    for state, reached in zip(current, classes, strict=True):
        others = [k for k, other in enumerate(current) if reached[other]]
        if all(classes[k][state] for k in others) and not any(reached[other] for other in recurrent):
            recurrent.append(state)
    if len(recurrent) > 1:
        raise MultichainError(
            f"{len(recurrent)} recurrent classes, so no potentials: stock at levels of rate 0 is never sold "
            f"(rates = {warehouse.rates}; every rate above 0 makes every policy unichain)"
        )


def policy_iteration(
    warehouse: Warehouse,
    flows: np.ndarray | None = None,
    *,
    improvement: Callable[[Warehouse, np.ndarray, np.ndarray], np.ndarray] | None = None,
    tolerance: float = 1e-11,
    max_policies: int = 1000,
) -> Iterator[Iterate]:
    """Policies from ``flows`` (from "order nothing") on, each a rollout of the one before, until nothing improves.

    Args:
      warehouse: the model.
      flows: ``i8[n, |X|]`` the first policy.
      improvement: ``(warehouse, flows, potentials) -> flows``; :func:`improve` if None.
      tolerance: as in :func:`optimum`.
      max_policies: stops there.

    Yields:
      Every policy with its gain, up to the first that the improvement leaves as it is, or changes without lowering
      either the gain or, at the same gain, any potential (states that are not visited may improve first).
    """
    flows = order_nothing(warehouse) if flows is None else flows
    solution: Solution | None = None
    for _ in range(max_policies):
        start = None if solution is None else solution.potentials
        after = evaluate(warehouse, flows, start=start, tolerance=tolerance)
        if solution is not None and _is_no_better(after, solution, tolerance):
            return
        solution = after
        yield Iterate(flows, solution)
        potentials = solution.potentials
        better = improve(warehouse, potentials) if improvement is None else improvement(warehouse, flows, potentials)
        if np.array_equal(better, flows):
            return
        flows = better


def successive_gains(iterates: Sequence[Iterate], tolerance: float = 1e-9) -> list[float]:
    """Gains of a policy iteration, without those at its end which no longer differ."""
    gains = [iterate.solution.gain for iterate in iterates]
    while len(gains) > 1 and abs(gains[-2] - gains[-1]) <= tolerance:
        gains.pop()
    return gains


def sum_of_levels(gains: Sequence[Sequence[float]]) -> list[float]:
    """Gains of a warehouse of independent levels from those of its levels; a finished level keeps its last policy.

    Rollout of independent levels is rollout level by level: if potentials are a sum over levels, so is what follows.
    """
    length = max(map(len, gains))
    return [sum(own[min(k, len(own) - 1)] for own in gains) for k in range(length)]


def _is_no_better(after: Solution, before: Solution, tolerance: float) -> bool:
    if abs(after.gain - before.gain) > 2 * tolerance:
        return after.gain > before.gain
    return bool((after.potentials > before.potentials - TIE).all())


def newsvendor(warehouse: Warehouse) -> tuple[float, tuple[int, ...]]:
    """Closed form for independent levels without cost an order: gain, and what each level orders up to.

    ``c rate + min_S [h E(S - D)^+ + (p - c) E(D - S)^+]`` a level, ``S = min{S: F(S) >= (p - c) / (p - c + h)}``, or
    the cap; a level whose unit costs more than a lost sale orders nothing.
    """
    if warehouse.is_chain or any(warehouse.order_cost):
        raise ValueError(f"supply = {warehouse.supply}, order_cost = {warehouse.order_cost}: independent and 0 only")
    total, levels = 0.0, []
    for i, cap in enumerate(warehouse.caps):
        rate, c, h = warehouse.rates[i], warehouse.unit_cost[i], warehouse.holding[i]
        margin = warehouse.shortage[i] - c
        mass = model.demand_masses(rate, cap + 1)
        ratio = margin / (margin + h) if margin > 0 else 0.0
        level = min(int(np.sum(np.cumsum(mass) < ratio)), cap) if margin > 0 else 0
        left = float(np.arange(level, 0, -1) @ mass[:level])
        total += c * rate + h * left + margin * (rate - level + left)
        levels.append(level)
    return total, tuple(levels)
