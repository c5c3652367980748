"""The heuristic of smart_grid: identifies the network from the control room's measurements and plans a day ahead.

Model-predictive control, as an operator with public data would do it. Published are the network, the units' cost curves
and typical days of load; measured in every hour are load, wind and sun that were available, lambda, outputs, the line
loaded most and what storages drew. From these follow, one after another,

    load        least squares on the typical days, weighted by how well each fits; hours already seen are known
    wind        what was available over what the wind index makes of a MW
    sun         least squares of what was available on (1, .2 y), y the cloud index
    fuel        lambda over the published incremental cost at a unit's output: the least seen, it is more at a limit
    in service  a unit's output while lambda was above its incremental cost
    ratings     a line's published loading over the measured loading of the line loaded most: no factor is less, and
                that of the line which was loaded most is the largest such quotient; which line it was is told by how
                local prices differ where one line alone is overloaded, else by what is believed of the ratings
    efficiency  a storage's quantum over what it drew

Before that the means of the field stand in (:class:`SmartGridRule`). Wind and cloud are expected to go back to their
mean by their public persistence, and the joint moves of the next hours are planned as if all this were certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.observation import Observation
from envs_jax.references import dc_network, storage_lattice

if TYPE_CHECKING:
    from envs_jax.domains.smart_grid import SmartGrid

MANY = 1e6
"""Stands for a bound that is not known yet."""
LOOK_AHEAD = 24
"""Hours that are planned; fewer near the end."""


class SmartGridRule(NamedTuple):
    """What is believed before anything is measured: means of ``SmartGrid.sample_params``.

    Attributes:
      peak: of the load [the network's].
      wind, sun: capacity [the unit of power of an observation: 100 MW, more on a larger network].
      clearness: mean clearness of the sky.
      cheap_fuel, dear_fuel: fuel factors of the units that are large, and of the others.
      dearest_cheap_fuel: largest factor of a large unit: a higher quotient of lambda and incremental cost is a limit's.
      first_in_service, second_in_service: of the two large units.
      rating: factor on the lines' ratings.
      efficiency: of a storage, one way.
    """

    peak: float = 1.1
    wind: float = 0.8
    sun: float = 1.2
    clearness: float = 0.7
    cheap_fuel: float = 1.0
    dear_fuel: float = 2.5
    dearest_cheap_fuel: float = 1.2
    first_in_service: float = 0.5
    second_in_service: float = 0.65
    rating: float = 0.6
    efficiency: float = 0.885


class SmartGridMemory(NamedTuple):
    """What has been measured so far; 0 where nothing has, unless said otherwise.

    Attributes:
      load: ``f32[24]`` by hour of the day [MW].
      weather: ``f32[2]`` output of a MW of wind, and cloud index, of the last hour seen.
      wind: ``f32[]`` capacity [MW].
      sun_moments: ``f32[2, 2]`` sums of x x', x = (1, .2 y), over hours of daylight.
      sun_products: ``f32[2]`` sums of x times sun that was available over its clear-sky share [MW].
      quotient: ``f32[n]`` least quotient of lambda and published incremental cost while on; MANY if never on.
      floor: ``f32[n]`` largest such quotient while off: no fuel factor is below.
      most: ``f32[n]`` largest output [share of capacity].
      limit: ``f32[n]`` output while lambda was above the unit's incremental cost [share]; MANY if never.
      rating: ``f32[L]`` the least that the factor on each line's rating can be.
      loaded: ``bool[L]`` whether the line is believed to have been the one loaded most.
      efficiency: ``f32[D]``.
    """

    load: chex.Array
    weather: chex.Array
    wind: chex.Array
    sun_moments: chex.Array
    sun_products: chex.Array
    quotient: chex.Array
    floor: chex.Array
    most: chex.Array
    limit: chex.Array
    rating: chex.Array
    loaded: chex.Array
    efficiency: chex.Array


class Units(NamedTuple):
    """What 1 stands for in an observation: ``price`` $/MWh, ``power`` MW of a plant, ``store`` MW, ``size`` MWh of a
    storage, ``load`` MW.
    """

    price: float
    power: float
    store: float
    size: float
    load: float


class Public(NamedTuple):
    """What is published of a network.

    Attributes:
      network: flows.
      load: of the whole network at its peak [MW].
      shapes: ``f32[S, 24]`` typical days, relative to their peak.
      unit_max: ``f32[n]`` [MW].
      unit_cost: ``f32[n, 2]`` a, b of ``a P^2 + b P`` $/h.
      large: ``bool[n]`` the two largest units.
      rating: ``f32[L]`` of the lines [MW].
      sun: ``f32[24]`` clear-sky output by hour of the day.
      persistence: of wind and cloud index.
      toll: of a MW above a line's rating [$/MWh].
      units: of the observation's features.
    """

    network: dc_network.Network
    load: float
    shapes: np.ndarray
    unit_max: np.ndarray
    unit_cost: np.ndarray
    large: np.ndarray
    rating: np.ndarray
    sun: np.ndarray
    persistence: float
    toll: float
    units: Units


class Measured(NamedTuple):
    """An observation in its units.

    Attributes:
      period: ``i32[]``.
      load: ``f32[]`` [MW], of the last hour, as all but ``weather`` and ``size``.
      green: ``f32[2]`` [MW].
      price: ``f32[]`` [$/MWh].
      local_price: ``f32[D]`` at the storages' buses [$/MWh].
      share: ``f32[n]`` outputs [capacity].
      loading: ``f32[]`` of the line loaded most.
      drawn: ``f32[D]`` [MW].
      quantum: ``f32[D]`` of a storage [MWh].
      weather: ``f32[2]`` output of a MW of wind, and cloud index, of this hour.
      wind_index: ``f32[]`` of this hour.
    """

    period: chex.Array
    load: chex.Array
    green: chex.Array
    price: chex.Array
    local_price: chex.Array
    share: chex.Array
    loading: chex.Array
    drawn: chex.Array
    quantum: chex.Array
    weather: chex.Array
    wind_index: chex.Array


class Estimate(NamedTuple):
    """The hidden fields of a task, under their names in ``SmartGridParams``."""

    profile: chex.Array
    fuel: chex.Array
    available: chex.Array
    wind_capacity: chex.Array
    solar_capacity: chex.Array
    clearness: chex.Array
    efficiency: chex.Array
    rating: chex.Array


def start(public: Public, storages: int) -> SmartGridMemory:
    """Nothing measured yet."""
    units = len(public.unit_max)
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)  # noqa: E731
    return SmartGridMemory(
        load=zeros(24),
        weather=zeros(2),
        wind=zeros(),
        sun_moments=zeros(2, 2),
        sun_products=zeros(2),
        quotient=zeros(units) + MANY,
        floor=zeros(units),
        most=zeros(units),
        limit=zeros(units) + MANY,
        rating=zeros(len(public.rating)),
        loaded=jnp.zeros((len(public.rating),), bool),
        efficiency=zeros(storages),
    )


def choose(
    env: SmartGrid, public: Public, rule: SmartGridRule, memory: SmartGridMemory, observation: Observation
) -> tuple[chex.Array, SmartGridMemory]:
    """The choice ``i32[]`` of the storage whose turn it is, and what is remembered then."""
    column, storages, levels = observation.column, env.num_turns, env.levels
    time = jnp.round(column("progress")[0] * env.horizon).astype(jnp.int32)
    turn, seen = time % storages, measured(public, observation, time // storages, storages, levels)
    updated, new = remember(rule, public, memory, seen), (turn == 0) & (seen.period > 0)
    memory = jax.tree.map(lambda after, before: jnp.where(new, after, before), updated, memory)
    memory = memory._replace(weather=seen.weather)

    estimate, hours = believe(rule, public, memory, seen.period > 0), min(env.num_periods, LOOK_AHEAD)
    load, green = forecast(public, estimate, seen, hours)
    task = env.default_params.replace(capacity=seen.quantum * (levels - 1), **estimate._asdict())
    rewards = env.rewards(env.with_supply(task), load, green)
    left = jnp.arange(hours, dtype=jnp.int32) < env.num_periods - seen.period
    rewards, certain = jnp.where(left[:, None], rewards, 0.0)[:, None], jnp.ones((1, 1), jnp.float32)
    plan = storage_lattice.plan(rewards, certain, storages, levels, hours)
    charge = jnp.round(column("level")[:storages] * (levels - 1)).astype(jnp.int32)
    # Choices of earlier turns are this plan's own: it is made from the same measurements in every turn of an hour.
    wish = storage_lattice.part(plan.actions[0, 0, storage_lattice.index(charge, levels)], turn, storages)
    return jnp.where(observation.action_mask[wish], wish, 0).astype(jnp.int32), memory


def measured(public: Public, observation: Observation, period: chex.Array, storages: int, levels: int) -> Measured:
    """An observation in its units."""
    column, first = observation.column, storages + len(public.unit_max)
    plants, units = slice(first, first + 2), public.units
    share, index = column("level")[plants], 2.0 * column("private_c")[plants]
    return Measured(
        period=period,
        load=units.load * column("level")[-1],
        green=units.power * column("private_d")[plants],
        price=units.price * column("unit_value")[-1],
        local_price=units.price * column("unit_value")[:storages],
        share=column("level")[storages:first],
        loading=column("level")[-2],
        drawn=units.store * (column("private_b")[:storages] - column("outflow")[:storages]),
        quantum=units.size * column("private_a")[:storages] / (levels - 1),
        weather=jnp.stack([share[0], index[1]]),
        wind_index=index[0],
    )


def remember(rule: SmartGridRule, public: Public, memory: SmartGridMemory, seen: Measured) -> SmartGridMemory:
    """The memory with what was measured in the hour before ``seen.period``, which is not the first."""
    hour = (seen.period - 1) % 24
    quadratic, linear = jnp.asarray(public.unit_cost.T, jnp.float32)
    output = seen.share * jnp.asarray(public.unit_max, jnp.float32)
    quotient, on = seen.price / (2.0 * quadratic * output + linear), seen.share > 1e-6
    # Lambda is a unit's own incremental cost, or above it while the unit is at its limit: now, or when it was before.
    limit = jnp.where(on & (quotient > 1.003 * memory.quotient), seen.share, memory.limit)
    was = on & (quotient < 0.997 * memory.quotient) & (memory.quotient < MANY)
    limit = jnp.where(was, memory.most, limit)

    wind_share, cloud = memory.weather
    sky = jnp.asarray(public.sun)[hour]
    daylight = sky > 1e-3
    row = jnp.stack([jnp.ones_like(cloud), 0.2 * cloud]) * daylight.astype(jnp.float32)
    sun = seen.green[1] / jnp.where(daylight, sky, 1.0)

    balance = seen.load + jnp.sum(seen.drawn) - jnp.sum(output) - jnp.sum(seen.green)  # + shed, - curtailed
    fed = seen.green * (1.0 - jnp.maximum(-balance, 0.0) / jnp.maximum(jnp.sum(seen.green), 1e-6))
    served = seen.load - jnp.maximum(balance, 0.0)
    power = jnp.concatenate([output, fed, -served[None], -seen.drawn])
    net = public.network
    factors = np.concatenate([net.of_unit, net.of_green, net.of_load[:, None], net.of_storage], 1)
    flow = jnp.matmul(jnp.asarray(factors), power, precision=jax.lax.Precision.HIGHEST)
    published = jnp.abs(flow) / jnp.asarray(public.rating, jnp.float32)
    least = jnp.where(seen.loading > 0.01, published / jnp.maximum(seen.loading, 0.01), 0.0)
    most_loaded = overloaded_line(public, seen, flow, jnp.argmax(published / ratings(rule, memory)))
    is_most = (jnp.arange(len(public.rating), dtype=jnp.int32) == most_loaded) & (seen.loading > 0.01)

    into, out = seen.quantum / jnp.maximum(seen.drawn, 1e-6), -seen.drawn / seen.quantum
    efficiency = jnp.where(seen.drawn > 0.0, into, out)
    return SmartGridMemory(
        load=jnp.where(jnp.arange(24, dtype=jnp.int32) == hour, seen.load, memory.load),
        weather=memory.weather,
        wind=seen.green[0] / jnp.maximum(wind_share, 1e-3),
        sun_moments=memory.sun_moments + row[:, None] * row[None, :],
        sun_products=memory.sun_products + sun * row,
        quotient=jnp.where(on, jnp.minimum(quotient, memory.quotient), memory.quotient),
        floor=jnp.where(on, memory.floor, jnp.maximum(memory.floor, seen.price / linear)),
        most=jnp.maximum(memory.most, seen.share),
        limit=limit,
        rating=jnp.maximum(memory.rating, least),
        loaded=memory.loaded | is_most,
        efficiency=jnp.where(jnp.abs(seen.drawn) > 1e-3, jnp.clip(efficiency, 0.1, 1.0), memory.efficiency),
    )


def overloaded_line(public: Public, seen: Measured, flow: chex.Array, otherwise: chex.Array) -> chex.Array:
    """The line ``i32[]`` whose overload explains how local prices differ; ``otherwise`` where no line alone does.

    A MW drawn at storage d in place of d' changes line l's flow by ``of_storage[l, d'] - of_storage[l, d]``: whatever
    units give it.
    """
    centred = lambda x: x - jnp.mean(x, -1, keepdims=True)  # noqa: E731
    prices = centred(seen.local_price)
    of_line = -public.toll * jnp.sign(flow)[:, None] * centred(jnp.asarray(public.network.of_storage))
    error = jnp.sum((of_line - prices[None, :]) ** 2, -1)
    clear = (jnp.sum(prices**2) > 1.0) & (jnp.min(error) < 0.01 * jnp.sum(prices**2))
    return jnp.where(clear, jnp.argmin(error), otherwise).astype(jnp.int32)


def ratings(rule: SmartGridRule, memory: SmartGridMemory) -> chex.Array:
    """Factors on the lines' ratings ``f32[L]``: the prior's where nothing speaks against it."""
    prior = jnp.asarray(rule.rating, jnp.float32)
    return jnp.where(memory.loaded, memory.rating, jnp.maximum(memory.rating, prior))


def believe(rule: SmartGridRule, public: Public, memory: SmartGridMemory, any_hour: chex.Array) -> Estimate:
    """What the memory says of the task; ``any_hour bool[]``: whether an hour has passed."""
    shapes, known = jnp.asarray(public.shapes, jnp.float32), memory.load > 0.0
    # A typical day each: its scale by least squares towards the prior peak, its weight by the error that remains.
    square = jnp.sum(jnp.where(known[None, :], shapes**2, 0.0), -1)
    share = memory.load / public.load
    product = jnp.sum(jnp.where(known[None, :], shapes * share[None, :], 0.0), -1)
    scale = (product + 1e-3 * rule.peak) / (square + 1e-3)
    error = jnp.where(known[None, :], share[None, :] - scale[:, None] * shapes, 0.0)
    weight = jax.nn.softmax(-0.5 * jnp.sum(error**2, -1) / 1e-4)
    day = jnp.sum((weight * scale)[:, None] * shapes, 0)

    # Two unknowns, S clearness and S, drawn to their prior means by next to nothing: measurements are exact.
    sun = jnp.asarray(rule.sun * public.units.power, jnp.float32)
    prior = jnp.stack([rule.clearness * sun, sun])
    moments = memory.sun_moments + 1e-3 * jnp.eye(2, dtype=jnp.float32)
    mean, full = jnp.linalg.solve(moments, memory.sun_products + 1e-3 * prior)
    full = jnp.maximum(full, jnp.maximum(mean, 1e-3))

    large = jnp.asarray(public.large)
    first = jnp.cumsum(large, dtype=jnp.int32) == 1
    believed = jnp.where(large, rule.cheap_fuel, rule.dear_fuel).astype(jnp.float32)
    always_full = large & (memory.quotient > rule.dearest_cheap_fuel)
    unseen = (memory.quotient >= MANY) | always_full
    fuel = jnp.where(unseen, jnp.maximum(believed, memory.floor), memory.quotient)
    in_service = jnp.where(first, rule.first_in_service, rule.second_in_service)
    available = jnp.where(large, in_service, 1.0).astype(jnp.float32)
    available = jnp.where(always_full & (memory.quotient < MANY), memory.most, jnp.maximum(available, memory.most))
    return Estimate(
        profile=jnp.where(known, share, day),
        fuel=fuel,
        available=jnp.clip(jnp.where(memory.limit < MANY, memory.limit, available), 0.01, 1.0),
        wind_capacity=jnp.where(any_hour, memory.wind, rule.wind * public.units.power).astype(jnp.float32),
        solar_capacity=full,
        clearness=jnp.clip(mean / full, 0.0, 1.0),
        efficiency=jnp.where(memory.efficiency > 0.0, memory.efficiency, rule.efficiency).astype(jnp.float32),
        rating=ratings(rule, memory),
    )


def forecast(public: Public, estimate: Estimate, seen: Measured, hours: int) -> tuple[chex.Array, chex.Array]:
    """Load ``f32[hours]`` and expected wind and sun ``f32[hours, 2]`` [MW] of this hour and the next."""
    ahead = jnp.arange(hours, dtype=jnp.int32)
    hour = (seen.period + ahead) % 24
    kept = jnp.asarray(public.persistence ** np.arange(hours), jnp.float32)
    # The mean of a logistic function of a normal variable, by its probit approximation.
    width = jnp.sqrt(1.0 + np.float32(np.pi / 8.0 * 1.2**2) * (1.0 - kept**2))
    wind = estimate.wind_capacity * jax.nn.sigmoid((1.2 * kept * seen.wind_index - 0.5) / width)
    sky = jnp.clip(estimate.clearness + 0.2 * kept * seen.weather[1], 0.0, 1.0)
    sun = estimate.solar_capacity * jnp.asarray(public.sun)[hour] * sky
    return public.load * estimate.profile[hour], jnp.stack([wind, sun], -1)
