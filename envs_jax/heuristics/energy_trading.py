"""The heuristic of energy_trading: learns the node's prices and the devices hour by hour, and plans its bids with them.

The price is taken as in the field's own model, ``P = f_h + X``, ``X' = phi X + eps``, beside rare spikes. The daily
profile ``f`` is a level and two typical curves, shifted by unknown hours; ``phi`` is one of a few values. For each pair
of shift and ``phi`` the three coefficients follow from a Bayesian regression of ``P' - phi P`` with unknown noise
(normal and inverse gamma, as in any text on it), and how well it foretells prices is the pair's weight.
A device's efficiency and wear follow from what its purchases and sales were settled at (an extended Kalman filter of
two unknowns).

Bids are the best of a dynamic programme over the charge of the device alone, for prices that are independent and normal
with the forecast's means and variances, and spikes.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.arrays import vary_like
from envs_jax.observation import Observation

LOOK_AHEAD = 24
"""Hours that are planned; fewer near the end."""
SHIFTS = np.arange(-8, 9)
"""Hours by which the typical curves may be shifted."""
PERSISTENCES = np.array([0.48, 0.65, 0.82], np.float32)


class EnergyTradingRule(NamedTuple):
    """What is believed before anything is seen: moments of ``EnergyTrading.sample_params``.

    But for ``spread`` and ``spike_probability``, which were tuned: the plan takes prices of different hours to be
    independent, and so expects too much of waiting for a better one.

    Attributes:
      level_sd: of the node's mean price [reference price], about 1.
      height, height_sd, height_covariance: of the coefficients of the two typical curves.
      noise: standard deviation of the hourly innovations [$/MWh].
      noise_weight: observations that ``noise`` counts for.
      spike_probability, spike_size: chance of a spike in an hour, and its height [$/MWh].
      spike_weight: hours that ``spike_probability`` counts for.
      efficiency, efficiency_sd: of a device, one way.
      wear, wear_sd: $ per unit moved.
      spread: factor on the standard deviations of the forecasts.
    """

    level_sd: float = 0.29
    height: float = 1.0
    height_sd: float = 0.667
    height_covariance: float = -0.278
    noise: float = 5.3
    noise_weight: float = 6.0
    spike_probability: float = 0.005
    spike_size: float = 80.0
    spike_weight: float = 50.0
    efficiency: float = 0.835
    efficiency_sd: float = 0.078
    wear: float = 6.0
    wear_sd: float = 3.5
    spread: float = 0.7


class EnergyTradingMemory(NamedTuple):
    """Beliefs of C combinations of shift and persistence, and of D devices.

    Attributes:
      mean: ``f32[C, 3]`` coefficients of reference price and typical curves.
      covariance: ``f32[C, 3, 3]`` of these, in noise variances.
      square: ``f32[C]`` scale b of the noise variance's law, [($/MWh)^2].
      evidence: ``f32[C]`` log-likelihood of the prices so far.
      residual: ``f32[C]`` of the last price without a spike, faded since [$/MWh].
      count: ``f32[]`` prices that these rest on.
      price: ``f32[]`` the last one [$/MWh].
      clean: ``f32[]`` 1 if it carried no spike.
      spikes: ``f32[2]`` how many, and the sum of their heights [$/MWh].
      device: ``f32[D, 2]`` efficiency and wear.
      device_covariance: ``f32[D, 2, 2]`` of these.
    """

    mean: chex.Array
    covariance: chex.Array
    square: chex.Array
    evidence: chex.Array
    residual: chex.Array
    count: chex.Array
    price: chex.Array
    clean: chex.Array
    spikes: chex.Array
    device: chex.Array
    device_covariance: chex.Array


class Public(NamedTuple):
    """What is published of the market, and the units of the observation's features.

    Attributes:
      levels: bid levels [reference price].
      low, high: ``i32[A]`` numbers of a pair's levels, from 1, and 0 or one past the last for "never".
      curves: ``f32[2, 24]`` typical deviations by hour of the day [$/MWh].
      devices: D.
      periods: P.
      max_capacity: largest capacity [units].
      price, power: what 1 stands for [$/MWh, units per hour].
    """

    levels: np.ndarray
    low: np.ndarray
    high: np.ndarray
    curves: np.ndarray
    devices: int
    periods: int
    max_capacity: int
    price: float
    power: float


class Forecast(NamedTuple):
    """Prices of the next hours ``f32[L]``: ``mean`` and ``sd`` without spikes, and spikes' ``chance`` and ``size``."""

    mean: chex.Array
    sd: chex.Array
    chance: chex.Array
    size: chex.Array


def _pairs() -> tuple[np.ndarray, np.ndarray]:
    """Shift ``i32[C]`` and persistence ``f32[C]`` of each combination."""
    shift, persistence = np.meshgrid(SHIFTS, PERSISTENCES, indexing="ij")
    return shift.ravel().astype(np.int32), persistence.ravel()


def start(public: Public) -> EnergyTradingMemory:
    """Nothing; beliefs before the first price are made in the first hour, of the rule's constants."""
    c, d = len(SHIFTS) * len(PERSISTENCES), public.devices
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)  # noqa: E731
    return EnergyTradingMemory(
        mean=zeros(c, 3),
        covariance=zeros(c, 3, 3),
        square=zeros(c) + 1.0,
        evidence=zeros(c),
        residual=zeros(c),
        count=zeros(),
        price=zeros(),
        clean=zeros(),
        spikes=zeros(2),
        device=zeros(d, 2) + 1.0,
        device_covariance=zeros(d, 2, 2),
    )


def prior(rule: EnergyTradingRule, public: Public, price: chex.Array) -> EnergyTradingMemory:
    """Before the first hour; ``price f32[]`` is on display."""
    number = lambda value: jnp.asarray(value, jnp.float32)  # noqa: E731
    variance, both = number(rule.height_sd) ** 2, number(rule.height_covariance)
    zero, one, height = number(0.0), number(1.0), number(rule.height)
    rows = [[number(rule.level_sd) ** 2, zero, zero], [zero, variance, both], [zero, both, variance]]
    covariance = jnp.stack([jnp.stack(row) for row in rows]) / number(rule.noise) ** 2
    device = jnp.stack([number(rule.efficiency), number(rule.wear)])
    spread = jnp.diag(jnp.stack([number(rule.efficiency_sd), number(rule.wear_sd)]) ** 2)
    empty = start(public)
    return empty._replace(
        mean=jnp.broadcast_to(jnp.stack([one, height, height])[None, :], empty.mean.shape),
        covariance=jnp.broadcast_to(covariance[None], empty.covariance.shape),
        square=jnp.broadcast_to(0.5 * number(rule.noise_weight) * number(rule.noise) ** 2, empty.square.shape),
        price=price,
        clean=one,
        device=jnp.broadcast_to(device[None, :], empty.device.shape),
        device_covariance=jnp.broadcast_to(spread[None], empty.device_covariance.shape),
    )


def regressors(public: Public, reference: chex.Array, hour: chex.Array) -> chex.Array:
    """``f32[C, ..., 3]``: reference price and typical curves of each combination at hours of the day ``i32[...]``."""
    shift, _ = _pairs()
    at = (jnp.expand_dims(hour, 0) + shift.reshape(-1, *(1 for _ in jnp.shape(hour)))) % 24
    curves = jnp.asarray(public.curves, jnp.float32)
    return jnp.stack([jnp.broadcast_to(reference, at.shape), curves[0][at], curves[1][at]], axis=-1)


def learn_price(
    rule: EnergyTradingRule,
    public: Public,
    memory: EnergyTradingMemory,
    reference: chex.Array,
    price: chex.Array,
    spike: chex.Array,
    period: chex.Array,
) -> EnergyTradingMemory:
    """The memory with the price of the hour that ended as period ``period`` began, the first excepted."""
    _, persistence = _pairs()
    phi = jnp.asarray(persistence) * (period > 1).astype(jnp.float32)  # the first residual starts from 0
    now, before = (regressors(public, reference, hour % 24) for hour in (period, period - 1))
    x = now - phi[:, None] * before
    error = price - phi * memory.price - jnp.sum(x * memory.mean, -1)
    reach = jnp.sum(memory.covariance * x[:, None, :], -1)
    width = 1.0 + jnp.sum(reach * x, -1)
    clean = 1.0 - spike
    use = clean * memory.clean
    gain = reach / width[:, None] * use
    half = 0.5 * (rule.noise_weight + memory.count)
    likelihood = -0.5 * jnp.log(memory.square * width) - (half + 0.5) * jnp.log1p(
        0.5 * error**2 / (memory.square * width)
    )
    mean = memory.mean + gain * error[:, None]
    usual = jnp.sum(jax.nn.softmax(memory.evidence) * (jnp.sum(now * memory.mean, -1) + phi * memory.residual))
    height = jnp.maximum(price - usual, 0.0)
    return memory._replace(
        mean=mean,
        covariance=memory.covariance - gain[:, :, None] * reach[:, None, :],
        square=memory.square + 0.5 * use * error**2 / width,
        evidence=memory.evidence + use * likelihood,
        residual=jnp.where(spike > 0.0, phi * memory.residual, price - jnp.sum(now * mean, -1)),
        count=memory.count + use,
        price=price,
        clean=clean,
        spikes=memory.spikes + spike * jnp.stack([jnp.ones_like(height), height]),
    )


def learn_devices(
    memory: EnergyTradingMemory, price: chex.Array, bought: chex.Array, sold: chex.Array, settled: chex.Array
) -> EnergyTradingMemory:
    """The memory with what units ``bought`` and ``sold f32[D]`` at ``price`` were ``settled f32[D]`` at [$]."""
    eta, wear = memory.device[:, 0], memory.device[:, 1]
    moved, buys = bought + sold, bought > 0.0
    each = jnp.where(buys, -settled, settled) / jnp.maximum(moved, 1.0)
    expected = jnp.where(buys, price / eta + wear, price * eta - wear)
    slope = jnp.stack([jnp.where(buys, -price / eta**2, price), jnp.where(buys, 1.0, -1.0)], -1)
    reach = jnp.sum(memory.device_covariance * slope[:, None, :], -1)
    noise = 0.25  # [$^2] of the linearisation: settlements carry none
    gain = reach / (jnp.sum(reach * slope, -1) + noise)[:, None] * (moved > 0.0).astype(jnp.float32)[:, None]
    device = memory.device + gain * (each - expected)[:, None]
    device = jnp.stack([jnp.clip(device[:, 0], 0.3, 1.0), jnp.maximum(device[:, 1], 0.0)], -1)
    covariance = memory.device_covariance - gain[:, :, None] * reach[:, None, :]
    return memory._replace(device=device, device_covariance=covariance)


def forecast(
    rule: EnergyTradingRule,
    public: Public,
    memory: EnergyTradingMemory,
    reference: chex.Array,
    period: chex.Array,
    hours: int,
) -> Forecast:
    """Prices at which the bids of ``period`` and the next clear."""
    _, persistence = _pairs()
    ahead = np.arange(1, hours + 1)
    kept = jnp.asarray(persistence[:, None] ** ahead, jnp.float32)
    spread = jnp.asarray((1.0 - persistence[:, None] ** (2 * ahead)) / (1.0 - persistence[:, None] ** 2), jnp.float32)
    later = regressors(public, reference, (period + jnp.asarray(ahead, jnp.int32)) % 24)
    now = regressors(public, reference, period % 24)
    mean = jnp.sum(later * memory.mean[:, None, :], -1) + kept * memory.residual[:, None]
    x = later - kept[:, :, None] * now[:, None, :]
    unsure = jnp.sum(jnp.sum(memory.covariance[:, None] * x[:, :, None, :], -1) * x, -1)
    noise = 2.0 * memory.square / (rule.noise_weight + memory.count)
    weight = jax.nn.softmax(memory.evidence)[:, None]
    middle = jnp.sum(weight * mean, 0)
    variance = jnp.sum(weight * (noise[:, None] * (spread + unsure) + (mean - middle[None, :]) ** 2), 0)
    chance = rule.spike_probability * rule.spike_weight + memory.spikes[0]
    chance = chance / (rule.spike_weight + period.astype(jnp.float32))
    size = (rule.spike_size + memory.spikes[1]) / (1.0 + memory.spikes[0])
    return Forecast(middle, rule.spread * jnp.sqrt(variance), chance, size)


def bid(
    public: Public,
    foreseen: Forecast,
    levels: chex.Array,
    hours_left: chex.Array,
    device: tuple[chex.Array, ...],
) -> chex.Array:
    """The best pair ``i32[]`` of a device for the hour that comes.

    Args:
      public: the market.
      foreseen: prices of L hours.
      levels: ``f32[l]`` [$/MWh].
      hours_left: hours that bids can still be placed for; what is stored after them is worth nothing.
      device: charge, capacity, power ``i32[]``, efficiency, wear ``f32[]``.
    """
    charge, capacity, power, eta, wear = device
    lattice = jnp.arange(public.max_capacity + 1, dtype=jnp.int32)
    bought, sold = jnp.clip(capacity - lattice, 0, power), jnp.minimum(power, lattice)
    filled = jnp.minimum(lattice + bought, public.max_capacity)
    into, out = bought.astype(jnp.float32)[:, None], sold.astype(jnp.float32)[:, None]
    # Of each hour and level: the chance that the price is at most so high, and the mean of the price where it is.
    z = (levels[None, :] - foreseen.mean[:, None]) / foreseen.sd[:, None]
    usual = 1.0 - foreseen.chance
    below = jax.scipy.special.ndtr(z)
    density = jnp.exp(-0.5 * z**2) * np.float32(1.0 / np.sqrt(2.0 * np.pi))
    part = foreseen.mean[:, None] * below - foreseen.sd[:, None] * density
    buys, cost = usual * below, usual * part
    sells = usual * (1.0 - below) + foreseen.chance
    income = usual * (foreseen.mean[:, None] - part) + (foreseen.chance * (foreseen.mean + foreseen.size))[:, None]

    def worth(value: chex.Array, hour: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
        buys, cost, sells, income = (x[None, :] for x in hour)
        gained, lost = (value[filled] - value)[:, None], (value[lattice - sold] - value)[:, None]
        buying = buys * (gained - wear * into) - cost / eta * into
        selling = sells * (lost - wear * out) + income * eta * out
        return jnp.pad(buying, ((0, 0), (1, 0))), jnp.pad(selling, ((0, 0), (0, 1)))

    def back(value: chex.Array, hour: tuple[chex.Array, ...]) -> tuple[chex.Array, None]:
        number, *prices = hour
        buying, selling = worth(value, tuple(prices))
        sale, best = selling[:, -1], buying[:, -1] + selling[:, -1]
        for low in reversed(range(len(public.levels))):  # a pair buys below where it sells
            sale = jnp.maximum(sale, selling[:, low])
            best = jnp.maximum(best, buying[:, low] + sale)
        return jnp.where(number < hours_left, value + best, value), None

    prices = (buys, cost, sells, income)
    later = (jnp.arange(1, foreseen.mean.shape[0], dtype=jnp.int32), *(x[1:] for x in prices))
    nothing = vary_like(jnp.zeros(lattice.shape, jnp.float32), foreseen, levels, hours_left, device)
    value, _ = jax.lax.scan(back, nothing, later, reverse=True)
    buying, selling = (side[charge] for side in worth(value, tuple(x[0] for x in prices)))
    return jnp.argmax(buying[public.low] + selling[public.high - 1]).astype(jnp.int32)


def choose(
    public: Public, rule: EnergyTradingRule, memory: EnergyTradingMemory, observation: Observation
) -> tuple[chex.Array, EnergyTradingMemory]:
    """The pair ``i32[]`` of the device whose turn it is, and what is remembered then."""
    column, d = observation.column, public.devices
    time = jnp.round(column("progress")[0] * (public.periods * d)).astype(jnp.int32)
    turn, period = time % d, time // d
    reference, price = public.price * column("unit_cost")[0], public.price * column("unit_value")[d]
    power = jnp.round(public.power * column("private_b")[:d])
    bought, sold = (jnp.round(public.power * column(name)[:d]) for name in ("private_c", "outflow"))

    learned = learn_price(rule, public, memory, reference, price, column("private_b")[d], period)
    learned = learn_devices(learned, price, bought, sold, public.price * power * column("unit_value")[:d])
    opening = prior(rule, public, price)
    memory = jax.tree.map(
        lambda first, after, before: jnp.where(time == 0, first, jnp.where(turn == 0, after, before)),
        *(opening, learned, memory),
    )
    capacity = jnp.round(public.max_capacity * column("private_a")[turn])
    device = (
        jnp.round(column("level")[turn] * capacity).astype(jnp.int32),
        capacity.astype(jnp.int32),
        power[turn].astype(jnp.int32),
        memory.device[turn, 0],
        memory.device[turn, 1],
    )
    foreseen = forecast(rule, public, memory, reference, period, min(public.periods, LOOK_AHEAD))
    levels = jnp.round(reference * jnp.asarray(public.levels, jnp.float32))
    return bid(public, foreseen, levels, public.periods - period, device), memory
