"""Limited water for several fields: each field solved exactly against a price of water, the prices tied to the budget.

Fields are coupled only by what a day's pump and the season's permit allow. With a price ``lambda`` on every set of water
and ``mu_t`` on the pump on day t, the fields separate, and each is a stochastic programme over one number, its
depletion x:

    Q_t(x, 0) = r_t(x) + E V_{t+1}(x'),    Q_t(x, 1) = r_t(x) - lambda - mu_t + E V_{t+1}(x''),    V_t = max Q_t.

For every ``lambda, mu >= 0`` the number ``sum_f V_0(x_f) + lambda n + sum_t mu_t`` is an upper bound of what *any* policy
without foreknowledge can expect from n sets (Lagrangian relaxation; Hawkins 2003, Adelman & Mersereau 2008, both
recalled). The rule: each day take the lambda that makes the bound of the present state smallest, and give the day's set
to the field with the largest advantage ``Q(1) - Q(0)``, if any is positive.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax.references import fao56

RAIN_POINTS = 3
"""Rainy days stand for this many equally likely depths."""
SPREAD = 1.0 / np.sqrt(3.0)
"""Two points at this distance integrate a uniform law on [-1, 1] exactly up to cubes."""


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
      variation: ``f32[]`` ETc of a day is uniform within plus and minus this share of its mean.
    """

    demand: chex.Array
    worth: chex.Array
    available: chex.Array
    fraction: chex.Array
    gain: chex.Array
    rain_chance: chex.Array
    rain_depth: chex.Array
    variation: chex.Array


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
    depth = jnp.concatenate([jnp.zeros(1), farm.rain_depth * groups])
    wet = jnp.full((RAIN_POINTS,), farm.rain_chance / RAIN_POINTS)
    return depth, jnp.concatenate([1.0 - farm.rain_chance[None], wet])


def _ahead(farm: Farm, value: chex.Array, demand: chex.Array, depletion: chex.Array) -> tuple[chex.Array, chex.Array]:
    """``E V(x')`` without and with a set, ``[F, X, L]`` each, from ``value [F, G, L]`` and ``depletion [F, X]``."""
    rain, chance = rain_law(farm)
    available = farm.available[:, None]
    stress = fao56.water_stress(depletion, available, farm.fraction[:, None])
    use = stress * demand[:, None]
    swing = farm.variation * jnp.float32(SPREAD)
    outcomes = [use * (1.0 - swing), use * (1.0 + swing)]
    top = value.shape[1] - 1

    def expect(gain: chex.Array) -> chex.Array:
        total = jnp.zeros(())
        for eta in outcomes:
            after = depletion + eta - gain
            for k in range(RAIN_POINTS + 1):
                at = jnp.clip((after - rain[k]) / available, 0.0, 1.0) * top
                low = jnp.minimum(at.astype(jnp.int32), top - 1)
                share = (at - low)[..., None]
                below = jnp.take_along_axis(value, low[..., None], axis=1)
                above = jnp.take_along_axis(value, low[..., None] + 1, axis=1)
                total = total + 0.5 * chance[k] * (below + share * (above - below))
        return total

    return expect(jnp.zeros(())), expect(farm.gain[:, None])


def _backward(farm: Farm, price: chex.Array, pump: chex.Array, points: int) -> tuple[chex.Array, chex.Array]:
    """``V [P + 1, F, G, L]`` and advantages ``[P, F, G, L]`` for prices ``[L]``."""
    grid = jnp.linspace(0.0, 1.0, points) * farm.available[:, None]
    short = 1.0 - fao56.water_stress(grid, farm.available[:, None], farm.fraction[:, None])

    def day(value: chex.Array, xs: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        demand, toll = xs
        dry, watered = _ahead(farm, value, demand, grid)
        advantage = jnp.where((demand > 0)[:, None, None], watered - dry - price - toll, -jnp.inf)
        paid = -(farm.worth * demand)[:, None, None] * short[..., None]
        value = paid + dry + jnp.maximum(advantage, 0.0)
        return value, (value, advantage)

    last = jnp.zeros((*grid.shape, price.shape[0]))
    _, (value, advantage) = jax.lax.scan(day, last, (farm.demand.T, pump), reverse=True)
    return jnp.concatenate([value, last[None]]), advantage


def _usage(farm: Farm, advantage: chex.Array, uniforms: chex.Array) -> chex.Array:
    """Expected sets by day ``f32[P]`` if every field takes water when its advantage ``[P, F, G]`` says so.

    ``uniforms f32[P, S, 2]`` are S sampled seasons.
    """
    top = advantage.shape[2] - 1
    available = farm.available[:, None]

    def day(depletion: chex.Array, xs: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
        table, demand, draw = xs
        at = jnp.clip(depletion / available, 0.0, 1.0) * top
        takes = jnp.take_along_axis(table, jnp.round(at).astype(jnp.int32), axis=1) > 0
        rain = weather_rain(draw[:, 0], farm.rain_chance, farm.rain_depth)
        eta = fao56.water_stress(depletion, available, farm.fraction[:, None]) * demand[:, None]
        eta = eta * (1.0 + farm.variation * (2.0 * draw[:, 1] - 1.0))
        depletion, _ = fao56.water_balance(depletion, rain + farm.gain[:, None] * takes, eta, available)
        return depletion, takes.mean(-1).sum(0)

    start = jnp.zeros((farm.available.shape[0], uniforms.shape[1]))
    return jax.lax.scan(day, start, (advantage, farm.demand.T, uniforms))[1]


def weather_rain(uniform: chex.Array, chance: chex.Array, depth: chex.Array) -> chex.Array:
    """Rain [mm] of a day from one uniform: 0 unless ``uniform < chance``, then exponential with mean ``depth``."""
    return jnp.where(uniform < chance, -depth * jnp.log(jnp.minimum(uniform / chance, 1.0)), 0.0)


def solve(
    farm: Farm, sets: chex.Array, points: int = 32, prices: int = 10, rounds: int = 24, seasons: int = 16
) -> Plan:
    """Prices the pump by the day for ``sets`` of water at the start, then tabulates V for a grid of water prices.

    Args:
      farm: the problem.
      sets: ``f32[]`` n, sets permitted at the start.
      points: G, depletions (static).
      prices: L, water prices (static).
      rounds: price adjustments (static).
      seasons: sampled seasons that tell a price's usage (static).
    """
    days = farm.demand.shape[1]
    uniforms = jax.random.uniform(jax.random.key(0), (days, seasons, 2), minval=1e-6)
    largest = jnp.max(farm.worth * farm.gain)

    def adjust(carry: tuple[chex.Array, chex.Array], k: chex.Array) -> tuple[tuple[chex.Array, chex.Array], None]:
        water, pump = carry
        _, advantage = _backward(farm, water[None], pump, points)
        used = _usage(farm, advantage[..., 0], uniforms)
        # A field can advance or put off a set by a day: what is scarce is the pump of a few days together.
        around = jnp.convolve(used, jnp.ones(7) / 7.0, mode="same")
        step = largest / jnp.sqrt(1.0 + k)
        water = jnp.clip(water + 1.5 * step * (used.sum() - sets) / days, 0.0, largest)
        pump = jnp.clip(pump + 0.15 * step * (around - 1.0), 0.0, largest)
        return (water, pump), None

    start = (0.3 * largest, jnp.zeros(days))
    (_, pump), _ = jax.lax.scan(adjust, start, jnp.arange(rounds, dtype=jnp.float32))
    price = largest * jnp.linspace(0.0, 1.0, prices) ** 1.5
    value, _ = _backward(farm, price, pump, points)
    return Plan(farm, price, pump, value)


def bounds(plan: Plan, day: chex.Array, depletion: chex.Array, sets: chex.Array) -> chex.Array:
    """Bounds ``f32[L]``, one a water price, of what can be expected from ``day`` on, given ``depletion f32[F]``."""
    top = plan.value.shape[2] - 1
    at = jnp.clip(depletion / plan.farm.available, 0.0, 1.0) * top
    low = jnp.minimum(at.astype(jnp.int32), top - 1)
    field = jnp.arange(depletion.shape[0])
    value = plan.value[day]
    below, above = value[field, low], value[field, low + 1]
    days = jnp.arange(plan.pump.shape[0])
    toll = jnp.sum(jnp.where(days >= day, plan.pump, 0.0))
    return (below + (at - low)[:, None] * (above - below)).sum(0) + plan.price * sets + toll


def advantages(plan: Plan, day: chex.Array, depletion: chex.Array, sets: chex.Array) -> chex.Array:
    """What a set today is worth to each field beyond its price, ``f32[F]``; the price fits the sets that are left."""
    best = jnp.argmin(bounds(plan, day, depletion, sets))
    farm, value = plan.farm, plan.value[day + 1][..., best][..., None]
    dry, watered = _ahead(farm, value, farm.demand[:, day], depletion[:, None])
    return (watered - dry)[:, 0, 0] - plan.price[best] - plan.pump[day]


def upper_bound(plan: Plan, sets: chex.Array) -> chex.Array:
    """Least of the bounds at the start of a season with full soils, ``f32[]``."""
    start = jnp.zeros_like(plan.farm.available)
    return jnp.min(bounds(plan, jnp.int32(0), start, sets))


def weighted_depletion(farm: Farm, day: chex.Array, depletion: chex.Array, level: chex.Array) -> chex.Array:
    """Index ``f32[F]`` of the classic rule: worth of a set where depletion exceeds ``level`` times RAW, else negative."""
    excess = depletion - level * farm.fraction * farm.available
    return jnp.where((excess > 0) & (farm.demand[:, day] > 0), farm.worth * farm.gain, -1.0)


