"""Families of instances: the seed document's random ones, and sites whose demand, supply and cost drift.

``seed``: whole numbers, d and s from 10 to 99 MW, c from 1 to 9 money/MWh, supplies times ``k D / S`` with k uniform in
(1.05, 2), rounded up, so that every instance is feasible (81.8 % of the document's own 3x2 instances are not).

``dispatch``: a *site* of n demands and m plants in the unit square and a path of quarter hours. A plant's cost is fuel
that drifts plus 20 money/MWh for each unit of distance; two fifths of the plants are cheap and vary as wind does. An
import of 150 money/MWh covers everything, so that every period is feasible: m + 1 plants in all. Drifts are AR(1) with
coefficient .98 a period and standard deviation 1.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.allocation.transport import Transport

PERIODS = 96
"""Quarter hours of a day."""
IMPORT_PRICE = 150.0
"""[money/MWh]"""
PERSISTENCE = 0.98
"""Of the drifts, a period."""


def seed_instance(key: chex.PRNGKey, demands: int, plants: int) -> Transport:
    """One instance of the family ``seed``."""
    keys = jax.random.split(key, 4)
    demand = jax.random.randint(keys[0], (demands,), 10, 100).astype(jnp.float32)
    supply = jax.random.randint(keys[1], (plants,), 10, 100).astype(jnp.float32)
    cost = jax.random.randint(keys[2], (demands, plants), 1, 10).astype(jnp.float32)
    reserve = jax.random.uniform(keys[3], minval=1.05, maxval=2.0)
    return Transport(cost, demand, jnp.ceil(supply * reserve * demand.sum() / supply.sum()))


@struct.dataclass
class Site:
    """What of a site does not change.

    Attributes:
      distance: ``f32[n, m]`` of each demand from each plant.
      fuel: ``f32[m]`` mean cost of fuel [money/MWh].
      demand: ``f32[n]`` mean demand [MW].
      capacity: ``f32[m]`` [MW].
      varies: ``bool[m]`` plants whose supply varies as wind does.
      phase: ``f32[n]`` of the daily cycle [rad].
    """

    distance: chex.Array
    fuel: chex.Array
    demand: chex.Array
    capacity: chex.Array
    varies: chex.Array
    phase: chex.Array


def sample_site(key: chex.PRNGKey, demands: int, plants: int) -> Site:
    """A site of the family ``dispatch``; ``plants`` without the import."""
    keys = jax.random.split(key, 9)
    places, plant_places = jax.random.uniform(keys[0], (demands, 2)), jax.random.uniform(keys[1], (plants, 2))
    squared = jnp.sum(jnp.square(places[:, None] - plant_places[None]), axis=-1)
    fuel = jax.random.uniform(keys[2], (plants,), minval=10.0, maxval=60.0)
    demand = jax.random.uniform(keys[3], (demands,), minval=10.0, maxval=100.0)
    capacity = jax.random.uniform(keys[4], (plants,), minval=10.0, maxval=100.0)
    capacity *= jax.random.uniform(keys[5], minval=1.3, maxval=1.8) * demand.sum() / capacity.sum()
    varies = jax.random.uniform(keys[6], (plants,)) < 0.4
    fuel = jnp.where(varies, jax.random.uniform(keys[7], (plants,), minval=0.0, maxval=5.0), fuel)
    phase = 0.2 * jax.random.uniform(keys[8], (demands,), maxval=2.0 * jnp.pi)
    return Site(jnp.sqrt(squared), fuel, demand, capacity, varies, phase)


def instance(site: Site, drift: chex.Array, period: chex.Numeric, strength: chex.Numeric = 1.0) -> Transport:
    """The instance of a site in one period.

    Args:
      site: of n demands and m plants.
      drift: ``f32[n + 2 m]`` of demands, fuel costs and variable supplies, of standard deviation 1.
      period: quarter hours since midnight.
      strength: multiplies the drift; 1 is the family.
    """
    n, m = site.distance.shape
    y = strength * drift
    cycle = 1.0 + 0.25 * jnp.sin(2.0 * jnp.pi * period / PERIODS + site.phase)
    demand = site.demand * cycle * jnp.exp(0.1 * y[:n])
    cost = 20.0 * site.distance + (site.fuel * jnp.exp(0.15 * y[n : n + m]))[None, :]
    supply = jnp.where(site.varies, site.capacity * jax.nn.sigmoid(0.5 + 1.4 * y[n + m :]), site.capacity)
    return Transport(
        jnp.concatenate([cost, jnp.full((n, 1), IMPORT_PRICE)], axis=1),
        demand,
        jnp.concatenate([supply, demand.sum()[None]]),
    )


def drifts(key: chex.PRNGKey, size: int, periods: int) -> chex.Array:
    """A stationary path of AR(1) drifts, ``f32[periods, size]``: ``y_0 = z_0, y_t = a y_{t-1} + sqrt(1 - a^2) z_t``."""
    noise = jax.random.normal(key, (periods, size))

    def step(y: chex.Array, z: chex.Array) -> tuple[chex.Array, chex.Array]:
        y = PERSISTENCE * y + jnp.sqrt(1.0 - PERSISTENCE**2) * z
        return y, y

    _, later = jax.lax.scan(step, noise[0], noise[1:])
    return jnp.concatenate([noise[:1], later])


def path(key: chex.PRNGKey, site: Site, periods: int = PERIODS, strength: chex.Numeric = 1.0) -> Transport:
    """A site's instances over ``periods`` quarter hours from midnight, stacked: a leading axis ``[periods]``."""
    n, m = site.distance.shape
    along = drifts(key, n + 2 * m, periods)
    return jax.vmap(instance, in_axes=(None, 0, 0, None))(site, along, jnp.arange(periods, dtype=jnp.float32), strength)


def dispatch_paths(
    key: chex.PRNGKey, sites: int, demands: int, plants: int, periods: int = PERIODS, strength: chex.Numeric = 1.0
) -> Transport:
    """Paths of ``sites`` new sites: arrays with leading axes ``[sites, periods]``; ``plants`` without the import."""

    def one(key: chex.PRNGKey) -> Transport:
        site_key, path_key = jax.random.split(key)
        return path(path_key, sample_site(site_key, demands, plants), periods, strength)

    return jax.vmap(one)(jax.random.split(key, sites))


def outage(problem: Transport, plant: chex.Numeric = 0) -> Transport:
    """The same instances with one plant out of order."""
    out = jnp.arange(problem.supply.shape[-1]) == plant
    return problem._replace(supply=jnp.where(out, 0.0, problem.supply))
