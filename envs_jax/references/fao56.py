"""Crop water use after FAO-56: reference and crop evapotranspiration, water stress, the root zone's water balance.

All functions are elementwise. Equation numbers are those of R. G. Allen, L. S. Pereira, D. Raes, M. Smith, *Crop
evapotranspiration*, FAO Irrigation and Drainage Paper 56, 1998 (equations recalled; the worked examples that they
reproduce are in ``tests/envs_jax/test_agriculture.py``).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

SOLAR_CONSTANT = 0.0820
"""MJ m-2 min-1."""
STEFAN_BOLTZMANN = 4.903e-9
"""MJ K-4 m-2 day-1."""

CROPS: dict[str, tuple[tuple[int, ...], tuple[float, ...], tuple[float, float], float, float]] = {
    "maize": ((20, 35, 40, 30), (0.30, 1.20, 0.35), (1.0, 1.7), 0.55, 1.25),
    "tomato": ((30, 40, 40, 25), (0.60, 1.15, 0.80), (0.7, 1.5), 0.40, 1.05),
    "sorghum": ((20, 35, 40, 30), (0.30, 1.05, 0.55), (1.0, 2.0), 0.55, 0.90),
    "soybean": ((20, 35, 60, 25), (0.50, 1.15, 0.50), (0.6, 1.3), 0.50, 0.85),
    "potato": ((25, 30, 45, 30), (0.50, 1.15, 0.75), (0.4, 0.6), 0.35, 1.10),
    "sunflower": ((25, 35, 45, 25), (0.35, 1.10, 0.35), (0.8, 1.5), 0.45, 0.95),
    "spring wheat": ((20, 25, 60, 30), (0.30, 1.15, 0.25), (1.0, 1.5), 0.55, 1.15),
    "cotton": ((30, 50, 55, 45), (0.35, 1.17, 0.60), (1.0, 1.7), 0.65, 0.85),
}
"""Stage lengths [days], Kc (initial, mid, end), range of root depth Zr [m], depletion fraction p, seasonal Ky."""

SOILS: dict[str, tuple[float, float]] = {
    "sand": (50.0, 110.0),
    "loamy sand": (60.0, 120.0),
    "sandy loam": (110.0, 150.0),
    "loam": (130.0, 180.0),
    "silt loam": (130.0, 190.0),
    "clay": (120.0, 200.0),
}
"""Available water, field capacity less wilting point [mm of water per m of soil]."""


def saturation_pressure(temperature: chex.Numeric) -> chex.Array:
    """Saturation vapour pressure [kPa] at ``temperature`` [C] (11)."""
    return 0.6108 * jnp.exp(17.27 * temperature / (temperature + 237.3))


def extraterrestrial_radiation(latitude: chex.Numeric, day: chex.Numeric) -> tuple[chex.Array, chex.Array]:
    """Daily radiation above the atmosphere ``Ra`` [MJ m-2 day-1] and hours of daylight ``N`` (21-25, 34).

    Args:
      latitude: [rad], negative in the south; between the polar circles.
      day: number of the day in the year, 1 to 366.
    """
    angle = 2.0 * jnp.pi / 365.0 * day
    distance = 1.0 + 0.033 * jnp.cos(angle)
    declination = 0.409 * jnp.sin(angle - 1.39)
    sunset = jnp.arccos(-jnp.tan(latitude) * jnp.tan(declination))
    vertical = sunset * jnp.sin(latitude) * jnp.sin(declination)
    slanting = jnp.cos(latitude) * jnp.cos(declination) * jnp.sin(sunset)
    radiation = 24.0 * 60.0 / jnp.pi * SOLAR_CONSTANT * distance * (vertical + slanting)
    return radiation, 24.0 / jnp.pi * sunset


class Evapotranspiration(NamedTuple):
    """Result of :func:`penman_monteith`: ``eto`` [mm/day]; solar ``rs`` and net ``rn`` radiation [MJ m-2 day-1]."""

    eto: chex.Array
    rs: chex.Array
    rn: chex.Array


def penman_monteith(
    t_max: chex.Numeric,
    t_min: chex.Numeric,
    vapour: chex.Numeric,
    wind: chex.Numeric,
    sunshine: chex.Numeric,
    altitude: chex.Numeric,
    latitude: chex.Numeric,
    day: chex.Numeric,
    soil_heat: chex.Numeric = 0.0,
) -> Evapotranspiration:
    """Evapotranspiration of the reference grass (6), with radiation from sunshine hours (35-40).

    Args:
      t_max: daily maximum temperature [C].
      t_min: daily minimum temperature [C].
      vapour: actual vapour pressure [kPa].
      wind: speed at 2 m [m/s].
      sunshine: hours of bright sunshine.
      altitude: above the sea [m].
      latitude: [rad].
      day: number of the day in the year.
      soil_heat: flux G into the soil [MJ m-2 day-1].
    """
    mean = 0.5 * (t_max + t_min)
    slope = 4098.0 * saturation_pressure(mean) / (mean + 237.3) ** 2
    psychrometric = 0.665e-3 * 101.3 * ((293.0 - 0.0065 * altitude) / 293.0) ** 5.26
    saturation = 0.5 * (saturation_pressure(t_max) + saturation_pressure(t_min))
    above, daylight = extraterrestrial_radiation(latitude, day)
    solar = (0.25 + 0.5 * sunshine / daylight) * above
    clear = (0.75 + 2e-5 * altitude) * above
    black = STEFAN_BOLTZMANN * 0.5 * ((t_max + 273.16) ** 4 + (t_min + 273.16) ** 4)
    longwave = black * (0.34 - 0.14 * jnp.sqrt(vapour)) * (1.35 * solar / clear - 0.35)
    net = 0.77 * solar - longwave
    energy = 0.408 * slope * (net - soil_heat)
    drying = psychrometric * 900.0 / (mean + 273.0) * wind * (saturation - vapour)
    return Evapotranspiration((energy + drying) / (slope + psychrometric * (1.0 + 0.34 * wind)), solar, net)


def wind_at_two_metres(speed: chex.Numeric, height: chex.Numeric) -> chex.Array:
    """Wind speed 2 m above ground [m/s] from ``speed`` [m/s] measured at ``height`` [m] (47)."""
    return speed * 4.87 / jnp.log(67.8 * height - 5.42)


def crop_coefficient(age: chex.Numeric, lengths: chex.Array, levels: chex.Array) -> chex.Array:
    """Single crop coefficient ``Kc``, piecewise linear over the season (66); 0 from maturity on.

    Args:
      age: days since planting, 0 or more ``f32[...]``.
      lengths: days of the initial, development, mid-season and late stages ``f32[..., 4]``.
      levels: Kc of the initial stage, of mid-season and at the end ``f32[..., 3]``.
    """
    ends = jnp.cumsum(lengths, axis=-1)
    grown = jnp.clip((age - ends[..., 0]) / lengths[..., 1], 0.0, 1.0)
    faded = jnp.clip((age - ends[..., 2]) / lengths[..., 3], 0.0, 1.0)
    first, middle, last = levels[..., 0], levels[..., 1], levels[..., 2]
    return jnp.where(age < ends[..., 3], first + (middle - first) * grown + (last - middle) * faded, 0.0)


@functools.partial(jax.jit, static_argnames="days")
def season(crop: chex.Array, harvest: chex.Array, days: int) -> tuple[chex.Array, chex.Array]:
    """Kc by day ``f32[F, days]`` and its sums from a day on ``f32[F, days + 1]``.

    Args:
      crop: ``i32[F]`` place in :data:`CROPS`.
      harvest: ``f32[F]`` day on which it is mature; it was planted its season's length earlier, 0 before that.
      days: how many (static).
    """
    lengths, levels = (jnp.asarray(np.array([row[k] for row in CROPS.values()], np.float32))[crop] for k in (0, 1))
    age = jnp.arange(days, dtype=jnp.float32)[None, :] - (harvest - lengths.sum(-1))[:, None]
    kc = jnp.where(age >= 0, crop_coefficient(age, lengths[:, None], levels[:, None]), 0.0)
    left = jnp.cumsum(kc[:, ::-1], axis=1)[:, ::-1]
    return kc, jnp.pad(left, ((0, 0), (0, 1)))


def water_stress(depletion: chex.Array, available: chex.Array, fraction: chex.Array) -> chex.Array:
    """Stress coefficient ``Ks`` in [0, 1] (84): 1 until ``depletion`` [mm] exceeds RAW, then falling to 0 at TAW.

    Args:
      depletion: root zone depletion Dr [mm].
      available: total available water TAW [mm] (82).
      fraction: p, the share of TAW that is readily available, in (0, 1) (83).
    """
    return jnp.clip((available - depletion) / ((1.0 - fraction) * available), 0.0, 1.0)


def mean_stress(depletion: chex.Array, fraction: chex.Array, least: chex.Numeric, most: chex.Numeric) -> chex.Array:
    """Mean of ``1 - Ks`` (84) over soils whose available water a is uniform, in [0, 1].

    Soils of ``a < d`` are empty, those of ``a > d / p`` without stress; between them 1 - Ks = (d / a - p) / (1 - p).

    Args:
      depletion: d, root zone depletion by depth of roots [mm/m].
      fraction: p, the share of a that is readily available, in (0, 1) (83).
      least: smallest a [mm/m], above 0.
      most: largest a [mm/m], above ``least``.
    """
    empty, unstressed = (jnp.clip(bound, least, most) for bound in (depletion, depletion / fraction))
    between = (depletion * jnp.log(unstressed / empty) - fraction * (unstressed - empty)) / (1.0 - fraction)
    return jnp.maximum(empty - least + between, 0.0) / (most - least)


def water_balance(
    depletion: chex.Array, gain: chex.Array, use: chex.Array, available: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Depletion at the end of a day and what percolated below the roots, both [mm] (85, 86, 88); no runoff.

    Args:
      depletion: Dr at the start of the day [mm].
      gain: rain plus net irrigation P + I [mm].
      use: actual evapotranspiration ETa [mm].
      available: TAW [mm].
    """
    after = depletion - gain + use
    return jnp.clip(after, 0.0, available), jnp.maximum(-after, 0.0)
