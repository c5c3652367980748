"""Limited water for several fields: each solved exactly against a price of water, the price tied to the permit.

Fields are coupled only by what a day's pump and the season's permit allow. With a price ``lambda`` on every set of
water and ``mu_t`` on the pump on day t, the fields separate, and each is a stochastic programme over one number, its
depletion x:

    Q_t(x, 0) = r_t(x) + E V_{t+1}(x'),    Q_t(x, 1) = r_t(x) - lambda - mu_t + E V_{t+1}(x''),    V_t = max Q_t.

For every ``lambda, mu >= 0`` the number ``sum_f V_0(x_f) + lambda n + sum_t mu_t`` is an upper bound of what *any*
policy without foreknowledge can expect from n sets (Lagrangian relaxation; Hawkins 2003, Adelman & Mersereau 2008,
both recalled). The rule: each day take the lambda that makes the bound of the present state smallest, and give the
day's set to the field with the largest advantage ``Q(1) - Q(0)``, if any is positive.

Two things are simplified: V is interpolated between grid points, and ETo is taken at its mean.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax.arrays import vary_like
from envs_jax.references import fao56

RAIN_POINTS = 3
"""Rainy days stand for this many equally likely depths."""
PATIENCE = 0.7
"""Share of the pump's shadow price that the rule reckons with."""


@struct.dataclass
class Farm:
    """What the programme needs to know. ``F`` fields, ``P`` days; depths in mm.

    Attributes:
      demand: ``f32[F, P]`` mean crop evapotranspiration ETc; 0 once mature.
      worth: ``f32[F]`` loss per mm of ETc that is not met.
      available: ``f32[F]`` TAW.
      fraction: ``f32[F]`` p.
      gain: ``f32[F]`` net depth of a set.
      rain_chance: ``f32[]`` of a day.
      rain_depth: ``f32[]`` mean depth of a rainy day, exponentially distributed.
    """

    demand: chex.Array
    worth: chex.Array
    available: chex.Array
    fraction: chex.Array
    gain: chex.Array
    rain_chance: chex.Array
    rain_depth: chex.Array


@struct.dataclass
class Plan:
    """Attributes:
    farm: what was planned for.
    price: ``f32[L]`` lambda, rising from 0.
    pump: ``f32[P]`` mu.
    value: ``f32[P + 1, F, G, L]`` V, at depletions spread evenly from 0 to TAW.
    """

    farm: Farm
    price: chex.Array
    pump: chex.Array
    value: chex.Array


def rain_law(farm: Farm) -> tuple[chex.Array, chex.Array]:
    """Depths ``f32[W]`` and chances ``f32[W]`` that stand for a day's rain: dry, or a quantile group's mean depth."""
    edges = np.arange(RAIN_POINTS + 1) / RAIN_POINTS
    left = 1.0 - edges  # share of rainy days above an edge
    tail = np.where(left > 0, left * (1.0 - np.log(np.maximum(left, 1e-300))), 0.0)
    groups = jnp.asarray(RAIN_POINTS * (tail[:-1] - tail[1:]), jnp.float32)
    depth = jnp.concatenate([jnp.zeros(1, jnp.float32), farm.rain_depth * groups])
    wet = jnp.full((RAIN_POINTS,), farm.rain_chance / RAIN_POINTS)
    return depth, jnp.concatenate([1.0 - farm.rain_chance[None], wet])


def _place(farm: Farm, depletion: chex.Array, points: int) -> tuple[chex.Array, chex.Array]:
    """Grid point below ``depletion [F, X]``, clipped to [0, TAW], and the share of the way to the next."""
    at = jnp.clip(depletion / farm.available[:, None], 0.0, 1.0) * (points - 1)
    low = jnp.minimum(at.astype(jnp.int32), points - 2)
    return low, at - low.astype(jnp.float32)


def _read(farm: Farm, table: chex.Array, depletion: chex.Array) -> chex.Array:
    """``table [F, G, L]`` interpolated at ``depletion [F, X]``: ``[F, X, L]``."""
    low, share = _place(farm, depletion, table.shape[1])
    below, above = (jnp.take_along_axis(table, (low + k)[..., None], axis=1) for k in (0, 1))
    return below + share[..., None] * (above - below)


def _use(farm: Farm, demand: chex.Array, depletion: chex.Array) -> chex.Array:
    """ETa ``[F, X]`` at ``depletion [F, X]`` for ``demand [F]``."""
    return fao56.water_stress(depletion, farm.available[:, None], farm.fraction[:, None]) * demand[:, None]


def _backward(farm: Farm, price: chex.Array, pump: chex.Array, points: int) -> tuple[chex.Array, chex.Array]:
    """``V [P + 1, F, G, L]`` and advantages ``[P, F, G, L]`` for prices ``[L]``."""
    grid = jnp.linspace(0.0, 1.0, points, dtype=jnp.float32)[None, :] * farm.available[:, None]
    stress = fao56.water_stress(grid, farm.available[:, None], farm.fraction[:, None])
    # What rain does to a grid point is the same every day: a matrix.
    rain, chance = rain_law(farm)
    low, share = _place(farm, (grid[:, :, None] - rain[None, None, :]).reshape(grid.shape[0], -1), points)
    at = low.astype(jnp.float32) + share
    weight = jnp.maximum(1.0 - jnp.abs(at[..., None] - jnp.arange(points, dtype=jnp.float32)[None, None, :]), 0.0)
    wetting = jnp.einsum("fgwh,w->fgh", weight.reshape(*grid.shape, -1, points), chance)

    def day(value: chex.Array, xs: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        demand, toll = xs
        table = wetting @ value
        used = grid + stress * demand[:, None]
        dry = _read(farm, table, used)
        advantage = _read(farm, table, used - farm.gain[:, None]) - dry - price[None, None, :] - toll
        advantage = jnp.where((demand > 0)[:, None, None], advantage, -jnp.inf)
        paid = ((stress - 1.0) * (farm.worth * demand)[:, None])[..., None]
        value = paid + dry + jnp.maximum(advantage, 0.0)
        return value, (value, advantage)

    last = vary_like(jnp.zeros((*grid.shape, price.shape[0]), jnp.float32), farm, price, pump)
    _, (value, advantage) = jax.lax.scan(day, last, (farm.demand.T, pump), reverse=True)
    return jnp.concatenate([value, last[None]]), advantage


def _usage(farm: Farm, advantage: chex.Array, rain: chex.Array) -> chex.Array:
    """Expected sets by day ``f32[P]`` if every field takes water when its advantage ``[P, F, G]`` says so.

    ``rain f32[P, S]`` [mm] are S sampled seasons.
    """
    top = advantage.shape[2] - 1
    available = farm.available[:, None]

    def day(depletion: chex.Array, xs: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
        table, demand, rain = xs
        nearest = jnp.round(depletion / available * top).astype(jnp.int32)
        takes = jnp.take_along_axis(table, nearest, axis=1) > 0
        gain = rain[None, :] + farm.gain[:, None] * takes.astype(jnp.float32)
        depletion, _ = fao56.water_balance(depletion, gain, _use(farm, demand, depletion), available)
        return depletion, takes.astype(jnp.float32).mean(-1).sum(0)

    start = vary_like(jnp.zeros((farm.available.shape[0], rain.shape[1]), jnp.float32), farm, advantage, rain)
    return jax.lax.scan(day, start, (advantage, farm.demand.T, rain))[1]


def weather_rain(uniform: chex.Array, chance: chex.Array, depth: chex.Array) -> chex.Array:
    """Rain [mm] of a day from one uniform: 0 unless ``uniform < chance``, then exponential with mean ``depth``."""
    return jnp.where(uniform < chance, -depth * jnp.log(jnp.minimum(uniform / chance, 1.0)), 0.0)


def solve(farm: Farm, sets: chex.Array, points: int = 40, prices: int = 8, rounds: int = 24, seasons: int = 16) -> Plan:
    """Prices the pump by the day for ``sets`` of water at the start, then tabulates V for a grid of water prices.

    The pump's price rises on days when more fields would take water than one, and falls on others: subgradient steps on
    the bound, jointly with the water price. Their average is spread over a fortnight, because a field can advance or
    put off a set, and lowered, because waiting costs less than the bound allows for; both were tuned on simulated
    returns.

    Args:
      farm: the problem.
      sets: ``f32[]`` n, sets permitted at the start.
      points: G, depletions (static).
      prices: L, water prices (static).
      rounds: price adjustments; 0 leaves the pump free (static).
      seasons: sampled seasons that tell what is used at a price (static).
    """
    days = farm.demand.shape[1]
    uniforms = jax.random.uniform(jax.random.key(0), (days, seasons), jnp.float32, minval=1e-6)
    rain = weather_rain(uniforms, farm.rain_chance, farm.rain_depth)
    largest = jnp.max(farm.worth * farm.gain)

    def adjust(carry: tuple[chex.Array, ...], k: chex.Array) -> tuple[tuple[chex.Array, ...], None]:
        water, pump, total = carry
        _, advantage = _backward(farm, water[None], pump, points)
        used = _usage(farm, advantage[..., 0], rain)
        step = largest / (1.0 + 0.1 * k)
        water = jnp.clip(water + 0.6 * step * jnp.clip((used.sum() - sets) / days, -0.5, 0.5), 0.0, largest)
        pump = jnp.clip(pump + 0.03 * step * jnp.clip(used - 1.0, -1.0, 1.0), 0.0, largest)
        return (water, pump, total + jnp.where(k >= rounds // 2, pump, 0.0)), None

    start = vary_like((0.3 * largest, jnp.zeros(days, jnp.float32), jnp.zeros(days, jnp.float32)), farm, sets)
    (_, _, total), _ = jax.lax.scan(adjust, start, jnp.arange(rounds, dtype=jnp.float32))
    spread = jnp.convolve(total / max(rounds - rounds // 2, 1), jnp.ones(15, jnp.float32) / 15.0, mode="full")[
        7 : 7 + days
    ]
    pump = PATIENCE * spread
    price = largest * jnp.linspace(0.0, 1.0, prices, dtype=jnp.float32) ** 1.5
    value, _ = _backward(farm, price, pump, points)
    return Plan(farm, price, pump, value)


def bounds(plan: Plan, day: chex.Array, depletion: chex.Array, sets: chex.Array) -> chex.Array:
    """Bounds ``f32[L]``, one a water price, of what can be expected from ``day`` on, given ``depletion f32[F]``."""
    ahead = jnp.sum(_read(plan.farm, plan.value[day], depletion[:, None])[:, 0], axis=0)
    toll = jnp.sum(jnp.where(jnp.arange(plan.pump.shape[0], dtype=jnp.int32) >= day, plan.pump, 0.0))
    return ahead + plan.price * sets + toll


def advantages(plan: Plan, day: chex.Array, depletion: chex.Array, sets: chex.Array) -> chex.Array:
    """What a set today is worth to each field beyond its price, ``f32[F]``; the price fits the sets that are left."""
    best = jnp.argmin(bounds(plan, day, depletion, sets)).astype(jnp.int32)
    farm, value = plan.farm, plan.value[day + 1][..., best][..., None]
    rain, chance = rain_law(farm)
    after = depletion[:, None] + _use(farm, farm.demand[:, day], depletion[:, None]) - rain[None, :]
    gained = _read(farm, value, after - farm.gain[:, None]) - _read(farm, value, after)
    return jnp.sum(gained[..., 0] * chance[None, :], axis=1) - plan.price[best] - plan.pump[day]


def upper_bound(plan: Plan, sets: chex.Array) -> chex.Array:
    """Least of the bounds at the start of a season with full soils, ``f32[]``."""
    start = jnp.zeros_like(plan.farm.available)
    return jnp.min(bounds(plan, jnp.int32(0), start, sets))
