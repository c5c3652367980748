"""Lookahead for a fleet that serves random trips: a fluid forecast, a base policy fitted to it, and its improvement.

The forecast replaces numbers of vehicles by their means. Of ``x`` vehicles at a region where trips of mean ``m`` are
asked for, it serves a smooth minimum of the two,

    served(x, m) = (x + m - sqrt((x - m)^2 + s x m / (x + m))) / 2,

which lies below ``min(x, m)`` by about the loss that the noise of demand and supply causes (``s`` = SPREAD; a Poisson
demand of mean ``m = x`` alone costs about ``.4 sqrt(m)``, which is s = 1.27). Trips of higher priority come first, so
a pair gets the difference of two such minima. The base policy sends fixed shares of a region's idle vehicles to the
others in every period; the shares are fitted by gradient ascent on the fluid profit (:func:`base_policy`). One step of
policy improvement then compares the forecasts after each possible decision (:func:`profit`): rollout in the sense of
Bertsekas. Nothing here is proven optimal; tests compare it with linear programmes.

Notation: N regions, P periods, H periods of lookahead, L = longest travel time + 1; ``i`` origin, ``j`` destination.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.arrays import aligned, vary_like

LOOKAHEAD = 10
"""Periods that :func:`profit` is meant to look ahead: several times a typical trip."""
SPREAD = 1.5
"""The constant s above; 3 gave the same returns within .1 %."""
_ITERATIONS, _STEP = 20, 0.6  # of the fit; 15 or 40 iterations gave the same returns within .1 %


@struct.dataclass
class Forecast:
    """What a forecast needs to know of each period; all leaves but the last two have a leading axis of periods.

    Attributes:
      rate: ``f32[P, N, N]`` mean trips asked for.
      before: ``f32[P, N, N]`` mean trips from the same origin that have priority over those to j.
      margin: ``f32[P, N, N]`` fare less driving cost of a trip, in any unit of money.
      trip_time: ``i32[P, N, N]`` periods; a trip that starts in period k is over at the start of ``k + time + 1``.
      shares: ``f32[P, N, N]`` the base policy: share of the idle vehicles at i that is sent to j; 0 on the diagonal.
      move_time: ``i32[N, N]`` periods; an empty vehicle sent in period k arrives before trips start in ``k + time``.
      move_cost: ``f32[N, N]`` cost of sending one, same unit.
    """

    rate: chex.Array
    before: chex.Array
    margin: chex.Array
    trip_time: chex.Array
    shares: chex.Array
    move_time: chex.Array
    move_cost: chex.Array

    def window(self, period: chex.Array) -> Forecast:
        """The :data:`LOOKAHEAD` periods from ``period i32[]`` on; nothing is asked for after the last one."""

        def cut(x: chex.Array) -> chex.Array:
            padded = jnp.concatenate([x, jnp.zeros((LOOKAHEAD, *x.shape[1:]), x.dtype)])
            return jax.lax.dynamic_slice_in_dim(padded, period, LOOKAHEAD)

        fields = ("rate", "before", "margin", "trip_time", "shares")
        return self.replace(**{name: cut(getattr(self, name)) for name in fields})


def before(amount: chex.Array, price: chex.Array) -> chex.Array:
    """Sum of ``amount[..., i, k]`` over the destinations k that are served before j: ``[..., N, N]``.

    A loop over k, because XLA on CPU would compute a plain sum anew for each of its several uses.
    """
    n = price.shape[-1]
    first = jnp.arange(n, dtype=jnp.int32)
    _, own = aligned(price, first)

    def add(total: chex.Array, other: tuple[chex.Array, ...]) -> tuple[chex.Array, None]:
        k, amount_k, price_k = other[0], other[1][..., None], other[2][..., None]
        ahead = (price_k > price) | ((price_k == price) & (k < own))
        return total + jnp.where(ahead, amount_k, jnp.zeros_like(amount_k)), None

    columns = (first, jnp.moveaxis(amount, -1, 0), jnp.moveaxis(price, -1, 0))
    total, _ = jax.lax.scan(add, vary_like(jnp.zeros_like(amount), amount, price), columns)
    return total


def match(vehicles: chex.Array, requests: chex.Array, price: chex.Array) -> chex.Array:
    """Trips ``i32[N, N]`` of most revenue from ``vehicles i32[N]`` for ``requests i32[N, N]``: highest fares first.

    The matching linear programme separates by origin into knapsacks with unit weights, which this order solves.
    """
    return jnp.clip(vehicles[:, None] - before(requests, price), 0, requests)


def served(vehicles: chex.Array, trips: chex.Array) -> chex.Array:
    """Smooth minimum of two means, see the module; 0 if either is 0."""
    spread = SPREAD * vehicles * trips / (vehicles + trips + 1e-6)
    return 0.5 * (vehicles + trips - jnp.sqrt((vehicles - trips) ** 2 + spread + 1e-12))


def forecast(
    rate: chex.Array, price: chex.Array, trip_time: chex.Array, move_time: chex.Array, cost: chex.Numeric
) -> Forecast:
    """A forecast under which nobody moves, from fares and the cost of driving for a period in one unit of money."""
    return Forecast(
        rate=rate,
        before=before(rate, price),
        margin=price - cost * trip_time.astype(jnp.float32),
        trip_time=trip_time,
        shares=jnp.zeros_like(rate),
        move_time=move_time,
        move_cost=cost * move_time.astype(jnp.float32),
    )


def profit(forecast: Forecast, idle: chex.Array, arriving: chex.Array, may_move: chex.Array) -> chex.Array:
    """Fluid profit ``f32[]`` of following the base policy through all periods of ``forecast``.

    Args:
      forecast: H periods.
      idle: ``f32[N]`` vehicles at each region.
      arriving: ``f32[L, N]`` vehicles that arrive in the present and the following periods, before trips start.
      may_move: ``f32[N]`` 1 where vehicles may still be sent away in the first period, else 0.
    """
    length, n = arriving.shape

    def due(lag: chex.Array) -> chex.Array:
        """Which (lag, region) a vehicle from i to j is due at: one-hot ``f32[..., N * N, L * N]``."""
        place = jnp.eye(n, dtype=bool).reshape(*[1] * (lag.ndim - 1), n, 1, n)
        periods = jnp.arange(length, dtype=jnp.int32).reshape(*[1] * lag.ndim, length, 1)
        table = (lag[..., None, None] == periods) & place
        return table.reshape(*lag.shape[:-2], n * n, length * n).astype(jnp.float32)

    # Products with tables that no decision or episode changes: under vmap, one multiplication of matrices.
    move_due, trip_due = due(forecast.move_time - 1), due(forecast.trip_time)

    def period(carry: tuple[chex.Array, ...], now: tuple[chex.Array, ...]) -> tuple[tuple[chex.Array, ...], None]:
        idle, arriving, may_move, total = carry
        rate, before, margin, trip_due, shares = now
        moved = (idle * may_move)[:, None] * shares
        vehicles = jnp.maximum(idle - jnp.sum(moved, axis=1) + arriving[0], 0.0)
        most = vehicles[:, None]
        trips = jnp.maximum(served(most, before + rate) - served(most, before), 0.0)
        total = total + jnp.sum(trips * margin - moved * forecast.move_cost)
        started = moved.reshape(-1) @ move_due + trips.reshape(-1) @ trip_due
        arriving = jnp.concatenate([arriving[1:], jnp.zeros((1, n), jnp.float32)]) + started.reshape(length, n)
        return (vehicles - jnp.sum(trips, axis=1), arriving, vary_like(jnp.ones((n,), jnp.float32), idle), total), None

    start = vary_like((idle, arriving, may_move, jnp.float32(0.0)), forecast, idle, arriving, may_move)
    periods = (forecast.rate, forecast.before, forecast.margin, trip_due, forecast.shares)
    (_, _, _, total), _ = jax.lax.scan(period, start, periods)
    return total


def base_policy(forecast: Forecast, idle: chex.Array, longest: int) -> Forecast:
    """``forecast`` with shares fitted to it from ``idle f32[N]`` vehicles and none on the way.

    Shares are a softmax over destinations, the region itself included; Adam climbs the fluid profit, which should be in
    units of a typical fare.

    Args:
      forecast: all P periods; its shares are not looked at.
      idle: vehicles at the start.
      longest: longest travel time, static.
    """
    n = idle.shape[0]
    away = 1.0 - jnp.eye(n, dtype=jnp.float32)
    arriving, all_may = jnp.zeros((longest + 1, n), jnp.float32), jnp.ones((n,), jnp.float32)

    def shares(logits: chex.Array) -> chex.Array:
        return jax.nn.softmax(logits) * away[None, :, :]

    def value(logits: chex.Array) -> chex.Array:
        return profit(forecast.replace(shares=shares(logits)), idle, arriving, all_may)

    def climb(carry: tuple[chex.Array, ...], step: chex.Array) -> tuple[tuple[chex.Array, ...], None]:
        logits, mean, square = carry
        slope = jax.grad(value)(logits)
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
        scaled = (mean / (1.0 - 0.9**step)) / (jnp.sqrt(square / (1.0 - 0.99**step)) + 1e-6)
        return (logits + _STEP * scaled, mean, square), None

    # At first nearly all stay, and rather near regions are served: moving pays only where demand calls for it.
    start = jnp.where(away > 0, -0.3 * forecast.move_time.astype(jnp.float32), 3.0)
    start = jnp.broadcast_to(start, forecast.rate.shape).astype(jnp.float32)
    zeros = jnp.zeros_like(start)
    (logits, _, _), _ = jax.lax.scan(
        climb, vary_like((start, zeros, zeros), forecast, idle), jnp.arange(1.0, _ITERATIONS + 1.0, dtype=jnp.float32)
    )
    return forecast.replace(shares=shares(logits))
