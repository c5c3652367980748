"""Exact average-cost dynamic programming for :mod:`envs_jax.games.warehouse`, by structure instead of by enumeration.

A policy's gain ``eta`` [money/period] and its potentials ``g`` solve Poisson's equation ``(I - P) g + eta 1 = f`` with
``g(0) = 0`` (X.-R. Cao, Stochastic Learning and Optimization, Springer 2007). A sweep,
:mod:`envs_jax.references.warehouse_sweep`, costs ``O(n (cap + 1) |X|)``, never ``|X| |A|``.

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
from envs_jax.references.warehouse_sweep import TIE, Tables, build, expected, flow_dtype, minimum

WORKING_ARRAYS = 7
"""Arrays of one float64 per state that a solution holds at the same time."""


class MultichainError(ValueError):
    """A policy with several recurrent classes: its gain depends on where it starts and potentials do not exist."""


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
