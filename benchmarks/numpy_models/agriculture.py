"""Irrigation after FAO-56 in NumPy: the independent models of ``envs_jax.domains.agriculture``.

Written from the equations (docs/domains/agriculture.md), not from the JAX code: ``LoopModel`` is one farm in plain
Python and float64, ``BatchModel`` a batch of farms in float32 that share a clock. Both take the parameters by name and
the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

URGENCY, SLACK, SUPPLIER, DEMAND, CLOCK = columns("urgency", "slack", "role_supplier", "role_demand", "role_clock")
LEVEL, CAPACITY, INFLOW, OUTFLOW, AGE = columns("level", "capacity", "inflow", "outflow", "age")
UNIT_VALUE, IS_TURN, PROGRESS, LAST_REWARD = columns("unit_value", "is_turn", "progress", "last_reward")
# A field's own columns, the source's, the weather's.
KC_LEFT, CHANGE, CANOPY, KC, FRACTION, ROOTS = columns(*(f"private_{letter}" for letter in "abcdef"))
(PERMIT,) = columns("private_a")
USUAL_ETO, RAIN = columns("private_a", "private_b")
SOIL, LEAST_SOIL, MOST_SOIL = 130.0, 50.0, 200.0
"""Available water that features assume, and the range of soils over which they take means [mm/m]."""
FIRST_WEATHER = (5.25, 1.4)
BAD_DAY = 0.05


def soil_mean_stress(missing: float, p: float) -> float:
    """Mean of 1 - Ks over soils of 50 to 200 mm/m of which ``missing`` [mm/m] is gone."""
    if missing <= 0:
        return 0.0
    # Soils up to the first bound are empty, those beyond the second are not stressed; 1 - Ks = (missing/a - p) / (1-p).
    empty, unstressed = (min(max(bound, LEAST_SOIL), MOST_SOIL) for bound in (missing, missing / p))
    between = (missing * math.log(unstressed / empty) - p * (unstressed - empty)) / (1 - p)
    return max(empty - LEAST_SOIL + between, 0.0) / (MOST_SOIL - LEAST_SOIL)


class LoopModel(numpy_model.LoopModel):
    """One farm. ``params``: the leaves of AgricultureParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 120) -> None:
        lists = (
            "kc",
            "kc_left",
            "root_depth",
            "fraction",
            "response",
            "value",
            "available_water",
            "efficiency",
            "sensitivity",
        )
        for name in lists:
            setattr(self, name, np.asarray(params[name], float).tolist())
        numbers = (
            "set_depth",
            "permit",
            "probe_noise",
            "canopy_noise",
            "variation",
            "eto",
            "rain_chance",
            "rain_depth",
        )
        for name in numbers:
            setattr(self, name, float(params[name]))
        self.num_periods, self.n = num_periods, len(self.kc)
        self.taw = [a * z for a, z in zip(self.available_water, self.root_depth, strict=True)]

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[F]`` are the probes' first errors."""
        self.day, self.sets, self.last_reward = 0, self.permit, 0.0
        self.dr, self.probe_before = [0.0] * self.n, [0.0] * self.n
        self.probe = [self.probe_noise * float(ndtri(float(u))) for u in uniforms]
        self.canopy, self.idle = [0.0] * self.n, [0] * self.n
        self.weather = self.mean = FIRST_WEATHER

    def action_mask(self) -> np.ndarray:
        """``bool[F + 1]``: nothing, or a field that is growing, while water is left."""
        growing = [self.kc_left[f][self.day] > 0 for f in range(self.n)]
        return np.array([True, *(g and self.sets >= 1 for g in growing)])

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One day; ``uniforms[2 + 2F]``: rain, ETo, probes, canopies."""
        u = [float(x) for x in uniforms]
        rain = self.rain_depth * math.log(self.rain_chance / u[0]) if u[0] < self.rain_chance else 0.0
        eto = self.eto * (1 - self.variation + 2 * self.variation * u[1])
        loss = use = demand = drained = stressed = 0.0
        probe = []
        for f in range(self.n):
            taw, dr, etc = self.taw[f], self.dr[f], self.kc[f][self.day] * eto
            raw = self.fraction[f] * taw
            ks = 1.0 if dr <= raw else max((taw - dr) / (taw - raw), 0.0)
            eta = ks * etc
            water = rain + (self.efficiency[f] * self.set_depth if action == f + 1 else 0.0)
            self.dr[f] = min(max(dr - water + eta, 0.0), taw)
            drained += max(water - eta - dr, 0.0)
            use, demand, stressed = use + eta, demand + etc, stressed + float(ks < 1 and etc > 0)
            loss += self.value[f] * self.sensitivity[f] * self.response[f] * (etc - eta) / (self.eto * sum(self.kc[f]))
            probe.append(self.dr[f] + self.probe_noise * float(ndtri(u[2 + f])))
            self.canopy[f] = 1 - ks + self.canopy_noise * float(ndtri(u[2 + self.n + f]))
            self.idle[f] = 0 if action == f + 1 else self.idle[f] + 1
        self.probe_before, self.probe = self.probe, probe
        self.sets -= action > 0
        self.weather = (eto, rain)
        self.mean = (6 / 7 * self.mean[0] + eto / 7, 6 / 7 * self.mean[1] + rain / 7)
        self.day += 1
        self.last_reward = -loss
        info = {
            "yield_loss": loss,
            "evapotranspiration": use,
            "demand": demand,
            "irrigation": self.set_depth * float(action > 0),
            "rain": rain,
            "percolation": drained,
            "stressed_fields": stressed,
        }
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[F + 2, columns]``: fields, water source, weather."""
        out = np.zeros((self.n + 2, NUM_TOKEN_FEATURES), np.float32)
        last = self.num_periods - 1
        for f in range(self.n):
            taw, p, row = SOIL * self.root_depth[f], self.fraction[f], out[f]
            missing = self.probe[f] / taw
            kc_before, kc, kc_next = (self.kc[f][min(max(self.day + ahead, 0), last)] for ahead in (-1, 0, 1))
            worth = self.value[f] * self.response[f] / sum(self.kc[f])
            stress = soil_mean_stress((self.probe[f] + kc * self.weather[0]) / self.root_depth[f], p)
            row[[DEMAND, LEVEL]] = 1.0, 1 - missing
            row[URGENCY] = worth * kc_next * stress if self.day < last else 0.0
            row[[SLACK, CAPACITY]] = min(max(1 - missing / p, 0.0), 1.0), taw
            row[[OUTFLOW, AGE, UNIT_VALUE]] = kc_before * self.weather[0] / 10, self.idle[f] / 30, 50 * worth
            row[[KC_LEFT, KC]] = self.kc_left[f][self.day] / 100, kc
            row[[CHANGE, CANOPY]] = (self.probe[f] - self.probe_before[f]) / self.set_depth, self.canopy[f]
            row[[FRACTION, ROOTS]] = p, self.root_depth[f] / 2
        days = max(self.num_periods - self.day, 1)
        out[-2, [SUPPLIER, IS_TURN]] = 1.0
        out[-2, [LEVEL, SLACK]] = self.sets / self.permit, min(self.sets / days, 1.0)
        out[-2, [CAPACITY, PERMIT]] = self.permit, self.permit / self.num_periods
        out[-1, [CLOCK, INFLOW, OUTFLOW]] = 1.0, self.mean[1] / 10, self.weather[0] / 10
        out[-1, [USUAL_ETO, RAIN]] = self.mean[0] / 10, self.weather[1] / 30
        out[:, PROGRESS] = min(self.day / self.num_periods, 1.0)
        out[:, LAST_REWARD] = self.last_reward / BAD_DAY
        return np.clip(relative(out), -10, 10)


class BatchModel(numpy_model.BatchModel):
    """``B`` farms in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 120) -> None:
        g = {name: np.asarray(value, np.float32) for name, value in params.items()}
        self.kc, self.left = np.moveaxis(g["kc"], 2, 0).copy(), np.moveaxis(g["kc_left"], 2, 0).copy()
        self.batch, self.n = g["value"].shape
        self.num_periods, self.permit, self.eto, self.swing = num_periods, g["permit"], g["eto"], g["variation"]
        self.chance, self.depth, self.set_depth = g["rain_chance"], g["rain_depth"], g["set_depth"][:, None]
        self.taw = g["available_water"] * g["root_depth"]
        self.slope = 1 / ((1 - g["fraction"]) * self.taw)
        self.net = g["efficiency"] * self.set_depth
        self.price = g["value"] * g["sensitivity"] * g["response"] / (self.eto[:, None] * self.left[0])
        self.sigma = np.concatenate([np.repeat(g[k][:, None], self.n, 1) for k in ("probe_noise", "canopy_noise")], 1)
        self.roots = g["root_depth"]
        self.to_taw = 1 / (np.float32(SOIL) * g["root_depth"])
        self.to_raw = self.to_taw / g["fraction"]
        # Everything constant over an episode is written once; step() refreshes the rest.
        self.table = np.zeros((self.batch, self.n + 2, NUM_TOKEN_FEATURES), np.float32)
        self.fields, self.source, self.sky = self.table[:, :-2], self.table[:, -2], self.table[:, -1]
        self.fields[..., DEMAND] = self.source[:, SUPPLIER] = self.source[:, IS_TURN] = self.sky[:, CLOCK] = 1
        self.fields[..., CAPACITY] = self.fields[..., ROOTS] = g["root_depth"] / 2
        self.fields[..., FRACTION] = self.fraction = g["fraction"]
        self.worth = g["value"] * g["response"] / self.left[0]
        self.fields[..., UNIT_VALUE] = 50 * self.worth
        self.source[:, PERMIT] = self.source[:, CAPACITY] = self.permit / num_periods
        self.mask = np.ones((self.batch, self.n + 1), bool)
        self.columns = np.arange(1, self.n + 1)

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, F]`` are the probes' first errors."""
        self.day, self.sets = 0, self.permit.copy()
        self.dr, self.idle = np.zeros((self.batch, self.n), np.float32), np.zeros((self.batch, self.n), np.float32)
        self.mean = np.tile(np.array(FIRST_WEATHER, np.float32), (self.batch, 1))
        self.probe = np.zeros_like(self.dr)
        self.table[..., LAST_REWARD] = self.fields[..., CANOPY] = 0
        self._show(self.sigma[:, : self.n] * ndtri(uniforms, dtype=np.float32), self.mean)

    def _show(self, probe: np.ndarray, weather: np.ndarray) -> None:
        left, last = self.left[self.day], self.num_periods - 1
        kc_before, kc, kc_next = (self.kc[min(max(self.day + ahead, 0), last)] for ahead in (-1, 0, 1))
        np.logical_and(left > 0, (self.sets >= 1)[:, None], out=self.mask[:, 1:])
        t, s, w = self.fields, self.source, self.sky
        empty = probe * self.to_taw
        t[..., SLACK] = np.clip(1 - probe * self.to_raw, 0, 1)
        missing, p = (probe + kc * weather[:, :1]) / self.roots, self.fraction
        one, two = np.clip(missing, LEAST_SOIL, MOST_SOIL), np.clip(missing / p, LEAST_SOIL, MOST_SOIL)
        stress = one - LEAST_SOIL + (missing * np.log(two / one) - p * (two - one)) / (1 - p)
        t[..., URGENCY] = self.worth * kc_next * np.maximum(stress, 0) * (self.day < last)
        t[..., LEVEL], t[..., KC_LEFT], t[..., OUTFLOW] = 1 - empty, left / 100, kc_before * weather[:, :1] / 10
        t[..., AGE], t[..., CHANGE] = self.idle / 30, (probe - self.probe) / self.set_depth
        t[..., KC] = kc
        s[:, LEVEL] = self.sets / self.permit
        s[:, SLACK] = np.minimum(self.sets / max(self.num_periods - self.day, 1), 1)
        w[:, INFLOW], w[:, USUAL_ETO] = self.mean[:, 1] / 10, self.mean[:, 0] / 10
        w[:, OUTFLOW], w[:, RAIN] = weather[:, 0] / 10, np.minimum(weather[:, 1] / 30, 10)
        relative(self.table)
        self.table[..., PROGRESS] = min(self.day / self.num_periods, 1)
        self.probe = probe

    def action_mask(self) -> np.ndarray:
        """``bool[B, F + 1]``, overwritten by the next step."""
        return self.mask

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A day with ``action[B]`` and ``uniforms[B, 2 + 2F]``."""
        wet = np.minimum(uniforms[:, 0] / self.chance, 1)
        weather = np.stack([self.eto * (1 + self.swing * (2 * uniforms[:, 1] - 1)), -self.depth * np.log(wet)], 1)
        demand = self.kc[self.day] * weather[:, :1]
        ks = np.clip((self.taw - self.dr) * self.slope, 0, 1)
        use = ks * demand
        given = action[:, None] == self.columns
        after = self.dr - weather[:, 1:] - self.net * given + use
        self.dr = np.clip(after, 0, self.taw)
        loss = np.einsum("bf,bf->b", self.price, demand - use)
        watered = action > 0
        self.sets -= watered
        info = {
            "yield_loss": loss,
            "evapotranspiration": use.sum(1),
            "demand": demand.sum(1),
            "irrigation": self.set_depth[:, 0] * watered,
            "rain": weather[:, 1],
            "percolation": np.maximum(-after, 0).sum(1),
            "stressed_fields": ((ks < 1) & (demand > 0)).sum(1),
        }
        noise = self.sigma * ndtri(uniforms[:, 2:], dtype=np.float32)
        self.fields[..., CANOPY] = 1 - ks + noise[:, self.n :]
        self.idle = np.where(given, np.float32(0), self.idle + 1)
        self.mean += (weather - self.mean) / 7
        self.table[..., LAST_REWARD] = np.maximum(-loss / BAD_DAY, -10)[:, None]
        self.day += 1
        self._show(self.dr + noise[:, : self.n], weather)
        return -loss, info

    def tokens(self) -> np.ndarray:
        """``f32[B, F + 2, columns]``, a view that the next step overwrites."""
        return self.table
