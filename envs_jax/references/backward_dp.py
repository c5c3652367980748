"""Finite-horizon backward dynamic programming over a small discrete chain and an own state.

The world is ``(z, s)``: a Markov chain ``z in 0..Z-1`` that no action moves (a price, a demand regime), an own state
``s in 0..S-1`` that moves deterministically once the chain's next value is known (a stock, a charge). With
``W_t(z', s, a) = r_t(z', s, a) + V_{t+1}(z', s'(z', s, a))`` Bellman's equation reads

    Q_t(z, s, a) = sum_z' T(z, z') W_t(z', s, a),   V_t(z, s) = max_a Q_t(z, s, a),   V_P = salvage.

The caller supplies ``V_{t+1} -> Q_t`` (its rewards, its moves); :func:`solve` does the recursion and keeps nothing but
the maximising actions, one byte each. Everything is pure ``jnp``: vmap it over tasks and devices.

Sources: R. Bellman, Dynamic Programming (1957); G. Tauchen, Finite state Markov-chain approximations to univariate and
vector autoregressions, Economics Letters 20 (1986) 177-181 (both recalled, not re-read).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np


class Plan(NamedTuple):
    """What :func:`solve` returns.

    Attributes:
      value: ``f32[Z, S]`` optimal expected return from period 0.
      actions: ``i8[P, Z, S]`` an optimal action in every state, the lowest index among equals.
    """

    value: chex.Array
    actions: chex.Array


def solve(stage: Callable[[chex.Array, chex.Array], chex.Array], salvage: chex.Array, num_periods: int) -> Plan:
    """Solves ``num_periods`` periods backwards.

    Args:
      stage: ``(t i32[], V_{t+1} f32[Z, S]) -> Q_t f32[Z, S, A]`` with at most 127 actions; ``-inf`` bars an action.
      salvage: ``f32[Z, S]`` value of the state after the last period.
      num_periods: ``P`` (static).

    Raises:
      ValueError: for more actions, which a byte could not number.
    """

    def backward(value: chex.Array, t: chex.Array) -> tuple[chex.Array, chex.Array]:
        q = stage(t, value)
        if q.shape[-1] > 127:
            raise ValueError(f"backward_dp.solve: stage must have at most 127 actions (a byte), got {q.shape[-1]}")
        return q.max(-1), q.argmax(-1).astype(jnp.int8)

    value, actions = jax.lax.scan(backward, salvage, jnp.arange(num_periods, dtype=jnp.int32), reverse=True)
    return Plan(value, actions)


class Move(NamedTuple):
    """What a trade does in each own state.

    Attributes:
      successor: ``i32[S]`` own state after it.
      cash_per_price: ``f32[S]`` cash earned per unit of price.
      reward: ``f32[S]`` what it earns besides (a cost is negative).
    """

    successor: chex.Array
    cash_per_price: chex.Array
    reward: chex.Array


def orders(
    transition: chex.Array,
    price: chex.Array,
    chance: chex.Array,
    levels: chex.Array,
    value: chex.Array,
    buy: Move,
    sell: Move,
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Action values of orders placed before the price is known: "buy if ``P <= lo``" and "sell if ``P >= hi``".

    With ``lo < hi`` never both happen, so ``Q`` separates. With ``G`` the gain of a move over staying put,

        Q(z, s, lo, hi) = E V + E[G_buy 1(P <= lo)] + E[G_sell 1(P >= hi)],  G = cash P + reward + V(z', s') - V(z', s),

    and ``2 L`` expectations give the values of all pairs of ``L`` levels.

    Args:
      transition: ``f32[Z, Z']``.
      price: ``f32[Z', J]`` price at the chain's next value and an independent event ``j`` (a spike).
      chance: ``f32[J]`` probabilities of the events.
      levels: ``f32[L]`` increasing.
      value: ``f32[Z', S]`` next period's value.
      buy: what buying does.
      sell: what selling does.

    Returns:
      ``f32[Z, S]`` for no order, and what is added by an order to buy (never, l1..lL) and one to sell (l1..lL, never):
      ``f32[Z, S, L + 1]`` each.
    """

    def gain(trades: chex.Array, move: Move) -> chex.Array:
        # [Z', J, L]: chance that the event happens and the order trades.
        weight = trades.astype(jnp.float32) * chance[None, :, None]
        paid = jnp.einsum("zjl,zj->zl", weight, price, precision=jax.lax.Precision.HIGHEST)
        worth = value[:, move.successor] - value + move.reward[None, :]
        return paid[:, None] * move.cash_per_price[None, :, None] + weight.sum(1)[:, None] * worth[..., None]

    at, levels = price[..., None], levels[None, None, :]
    buying, selling = gain(at <= levels, buy), gain(at >= levels, sell)
    expected = expect(transition, jnp.concatenate([value[..., None], buying, selling], axis=-1))
    hold, buying, selling = jnp.split(expected, [1, 1 + levels.size], axis=-1)
    never = jnp.zeros_like(hold)
    return hold[..., 0], jnp.concatenate([never, buying], -1), jnp.concatenate([selling, never], -1)


def expect(transition: chex.Array, outcome: chex.Array) -> chex.Array:
    """``sum_z' T(z, z') W(z', ...)`` for ``T f32[Z, Z']`` and ``W f32[Z', ...]``, in full float32 on every backend."""
    return jnp.tensordot(transition, outcome, axes=1, precision=jax.lax.Precision.HIGHEST)


class Chain(NamedTuple):
    """A Markov chain as tables, for drawing from it and for planning on it.

    Attributes:
      grid: ``f32[size]`` values of the states.
      transition: ``f64[size, size]``.
      rows: ``f32[size, size]`` distribution function of the next state, row by row.
      law: ``f32[size]`` distribution function of the stationary law.
    """

    grid: np.ndarray
    transition: np.ndarray
    rows: np.ndarray
    law: np.ndarray


def rouwenhorst(persistence: float, size: int) -> Chain:
    """A chain of few states with exactly the variance and the autocorrelation of an AR(1) of unit variance.

    Sum of ``size - 1`` independent switches, each of which flips with probability ``(1 - phi) / 2``: stationary law
    binomial, ``E[x' | x] = phi x``. On coarse grids, where :func:`tauchen` distorts both, this is the one to use.

    Source: K. G. Rouwenhorst, in Cooley (ed.), Frontiers of Business Cycle Research (1995) (recalled, not re-read).

    Args:
      persistence: ``phi`` in [-1, 1].
      size: number of grid points, at least 1; a single one is the mean.
    """
    stay, flip = (1.0 + persistence) / 2.0, (1.0 - persistence) / 2.0
    rows, law = [], np.ones(1)
    for up in range(size):  # switches that are up
        after = np.ones(1)
        for switch in range(size - 1):
            after = np.convolve(after, [flip, stay] if switch < up else [stay, flip])
        rows.append(after)
    for _ in range(size - 1):
        law = np.convolve(law, [0.5, 0.5])
    span, transition = np.sqrt(size - 1.0), np.stack(rows)
    tables = (np.linspace(-span, span, size), np.cumsum(transition, axis=1), np.cumsum(law))
    grid, cdf, start = (table.astype(np.float32) for table in tables)
    return Chain(grid, transition, cdf, start)


def tauchen(persistence: chex.Numeric, size: int, span: float) -> tuple[chex.Array, chex.Array]:
    """The chain "nearest grid point to an AR(1) step", in units of the AR(1)'s stationary standard deviation.

    ``x' = nearest(phi x + sqrt(1 - phi^2) z)``, ``z`` standard normal: the mass of a cell is the normal probability
    between its midpoints, and the outer cells take the tails (Tauchen's construction). Rounding adds ``h^2 / 12`` to
    the innovation's variance: the stationary variance is about ``1 + h^2 / (12 (1 - phi^2))``, ``h`` the spacing.

    Args:
      persistence: ``phi`` in (-1, 1).
      size: number of grid points (static, odd for a point at 0).
      span: the grid covers ``[-span, span]``.

    Returns:
      ``grid f32[size]`` and ``transition f32[size, size]``, rows summing to 1.
    """
    grid = jnp.linspace(-span, span, size, dtype=jnp.float32)
    midpoints = (grid[1:] + grid[:-1]) / 2.0
    phi = jnp.asarray(persistence, jnp.float32)
    below = jax.scipy.stats.norm.cdf((midpoints[None, :] - phi * grid[:, None]) / jnp.sqrt(1.0 - phi**2))
    ones = jnp.ones((size, 1), jnp.float32)
    return grid, jnp.diff(jnp.concatenate([0.0 * ones, below, ones], axis=1), axis=1)
