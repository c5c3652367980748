"""The IEEE 14-bus network with storages in NumPy: the independent models of ``envs_jax.domains.smart_grid``.

Written from the equations (docs/domains/smart_grid.md), not from the JAX code: ``LoopModel`` is one network in float64,
with lambda by bisection and flows from the nodal angles; ``BatchModel`` a batch of networks in float32 that share a
clock, with supply curves tabulated once. Both take the parameters by name and the uniforms from outside, so they can be
fed the very draws of another implementation.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from envs_jax.data import ieee14
from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

MOVE = (0, 1, -1)
WIND_AT, SUN_AT = 6, 9
SHED, OVER = 1000.0, 100.0
URGENCY, SLACK, LEVEL, CAPACITY, OUTFLOW, WAITING, UNIT_VALUE = columns(
    "urgency", "slack", "level", "capacity", "outflow", "waiting", "unit_value"
)
SUPPLIER, STORE, CARRIER, MARKET = columns("role_supplier", "role_store", "role_carrier", "role_market")
SIZE, DRAWN, WEATHER, POWER, MEAN, SPREAD = columns(*(f"private_{letter}" for letter in "abcdef"))
IS_TURN, DECIDED, SIN, COS, PROGRESS, LAST_REWARD = columns(
    "is_turn", "decided", "cycle_sin", "cycle_cos", "progress", "last_reward"
)


def chain(size: int, phi: float = 0.9) -> tuple[list[float], list[list[float]], list[float]]:
    """A sum of ``size - 1`` switches of +-1, scaled to variance 1: values, transition and stationary distribution.

    By enumeration of the switches: each keeps its side with probability ``(1 + phi) / 2``.
    """
    n = size - 1
    transition = [[0.0] * size for _ in range(size)]
    for up in range(size):
        for after in itertools.product((0, 1), repeat=n):
            before = [1] * up + [0] * (n - up)
            chance = 1.0
            for x, y in zip(before, after, strict=True):
                chance *= (1 + phi) / 2 if x == y else (1 - phi) / 2
            transition[up][sum(after)] += chance
    law = [math.comb(n, k) / 2**n for k in range(size)]
    return [(2 * k - n) / math.sqrt(n) if n else 0.0 for k in range(size)], transition, law


def below(uniform: float, chances: list[float]) -> int:
    """The value that a uniform draws from a distribution."""
    total = 0.0
    for k, chance in enumerate(chances):
        total += chance
        if uniform <= total:
            return k
    return len(chances) - 1


class LoopModel(numpy_model.LoopModel):
    """One network. ``params``: the leaves of SmartGridParams by name, unbatched."""

    def __init__(
        self,
        params: dict[str, np.ndarray],
        num_periods: int = 24,
        storage_buses: tuple[int, ...] = (3, 9, 14),
        levels: int = 5,
        num_wind: int = 5,
        num_cloud: int = 3,
    ) -> None:
        self.p = {name: np.asarray(value, float).tolist() for name, value in params.items()}
        self.num_periods, self.buses, self.full, self.d = num_periods, storage_buses, levels - 1, len(storage_buses)
        self.winds, self.clouds = chain(num_wind), chain(num_cloud)
        a, b = ieee14.UNIT_COST.T
        self.a = [f * x for f, x in zip(self.p["fuel"], a, strict=True)]
        self.b = [f * x for f, x in zip(self.p["fuel"], b, strict=True)]
        self.high = [s * x for s, x in zip(self.p["available"], ieee14.UNIT_MAX, strict=True)]
        # Nodal susceptances; bus 1 is the reference for the angles.
        matrix = np.zeros((14, 14))
        for (i, j), x in zip(ieee14.LINES - 1, ieee14.REACTANCE, strict=True):
            matrix[[i, j], [i, j]] += 1 / x
            matrix[[i, j], [j, i]] -= 1 / x
        self.inverse = np.linalg.inv(matrix[1:, 1:])

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[2]`` draw the weather of the first hour."""
        self.wind, self.cloud = below(float(uniforms[0]), self.winds[2]), below(float(uniforms[1]), self.clouds[2])
        self.charge, self.move = [int(c) for c in self.p["initial_charge"]], [0] * self.d
        self.time, self.last_reward = 0, 0.0
        self.load, self.green, self.output, self.drawn = 0.0, [0.0, 0.0], [0.0] * 5, [0.0] * self.d
        self.prices: list[float] = []
        self.loading, self.local = 0.0, [0.0] * self.d

    def action_mask(self) -> np.ndarray:
        """``bool[3]``: what keeps the storage in turn between empty and full."""
        held = self.charge[self.time % self.d]
        return np.array([0 <= held + m <= self.full for m in MOVE])

    def supplied(self, price: float) -> list[float]:
        """What the units give at a price."""
        return [
            min(max((price - b) / (2 * a), 0.0), high) for a, b, high in zip(self.a, self.b, self.high, strict=True)
        ]

    def operate(self, load: float, green: list[float], draw: list[float]) -> dict[str, Any]:
        """Cost, lambda, outputs and flows of an hour."""
        net = load - sum(green) + sum(draw)
        low, high = 0.0, max(b + 2 * a * top for a, b, top in zip(self.a, self.b, self.high, strict=True))
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(self.supplied(middle)) < net else (low, middle)
        output, price = self.supplied(high), high
        curtailed, unserved = max(-net, 0.0), max(net - sum(self.high), 0.0)
        if curtailed or unserved:
            price = 0.0 if curtailed else SHED
        kept = 1 - curtailed / sum(green) if curtailed else 1.0
        injection = -ieee14.BUS_LOAD * (load - unserved) / ieee14.BUS_LOAD.sum()
        for bus, power in zip(ieee14.UNIT_BUS, output, strict=True):
            injection[bus - 1] += power
        injection[WIND_AT - 1] += green[0] * kept
        injection[SUN_AT - 1] += green[1] * kept
        for bus, power in zip(self.buses, draw, strict=True):
            injection[bus - 1] -= power
        flow = self.flows(injection)
        over = np.maximum(np.abs(flow) - np.array(self.p["rating"]) * ieee14.RATING, 0.0)
        fuel = sum(a * p * p + b * p for a, b, p in zip(self.a, self.b, output, strict=True)) + SHED * unserved
        return {
            "net": net,
            "price": price,
            "output": output,
            "flow": flow,
            "over": over,
            "fuel": fuel,
            "cost": fuel + OVER * float(over.sum()),
            "curtailed": curtailed,
            "unserved": unserved,
            "injection": injection,
            "green": green,
        }

    def flows(self, injection: np.ndarray) -> np.ndarray:
        """Flow on each line from the angles that balance every bus, MW."""
        angle = np.concatenate([[0.0], self.inverse @ injection[1:]])
        return (angle[ieee14.LINES[:, 0] - 1] - angle[ieee14.LINES[:, 1] - 1]) / ieee14.REACTANCE

    def congestion(self, hour: dict[str, Any], bus: int) -> float:
        """Overload cost of one more MW drawn at a bus, $/MWh.

        It is served by the units off their limits, by wind and sun that are curtailed, or by load that is shed.
        """
        free = [
            1 / (2 * a) if b < hour["price"] < b + 2 * a * top else 0.0
            for a, b, top in zip(self.a, self.b, self.high, strict=True)
        ]
        shift = np.zeros(14)
        shift[bus - 1] -= 1
        for at, share in zip(ieee14.UNIT_BUS, free, strict=True):
            shift[at - 1] += share / sum(free) if sum(free) else 0.0
        if hour["curtailed"]:
            for at, power in zip((WIND_AT, SUN_AT), hour["green"], strict=True):
                shift[at - 1] += power / sum(hour["green"])
        if hour["unserved"]:
            shift += ieee14.BUS_LOAD / ieee14.BUS_LOAD.sum()
        return float(OVER * np.sum(np.sign(hour["flow"]) * (hour["over"] > 0) * self.flows(shift)))

    def conditions(self) -> tuple[float, list[float]]:
        """Load, and wind and sun, of the present hour, MW."""
        p, hour = self.p, self.time // self.d % 24
        sky = min(max(p["clearness"] + 0.2 * self.clouds[0][self.cloud], 0.0), 1.0)
        sun = p["solar_capacity"] * max(0.0, math.sin(math.pi * (hour - 6) / 12)) * sky
        return 259.0 * p["profile"][hour], [p["wind_capacity"] * self.wind_factor(), sun]

    def wind_factor(self) -> float:
        """Share of the wind capacity that blows."""
        return 1 / (1 + math.exp(0.5 - 1.2 * self.winds[0][self.wind]))

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One storage's move; on the period's last turn the hour is run and ``uniforms[2]`` move the weather."""
        turn = self.time % self.d
        self.move[turn] = MOVE[int(action)]
        if turn < self.d - 1:
            self.time += 1
            return 0.0, {}
        p = self.p
        load, green = self.conditions()
        self.drawn = []
        for d in range(self.d):
            quantum, eta = p["capacity"][d] / self.full, p["efficiency"][d]
            self.drawn.append({0: 0.0, 1: quantum / eta, -1: -quantum * eta}[self.move[d]])
        idle, hour = self.operate(load, green, [0.0] * self.d), self.operate(load, green, self.drawn)
        self.last_reward = (idle["cost"] - hour["cost"]) / 100
        self.load, self.green, self.output = load, green, hour["output"]
        self.loading = float(np.max(np.abs(hour["flow"]) / (np.array(p["rating"]) * ieee14.RATING)))
        self.prices.append(hour["price"])
        self.local = [hour["price"] + self.congestion(hour, bus) for bus in self.buses]
        self.charge = [c + m for c, m in zip(self.charge, self.move, strict=True)]
        self.move = [0] * self.d
        self.wind = below(float(uniforms[0]), self.winds[1][self.wind])
        self.cloud = below(float(uniforms[1]), self.clouds[1][self.cloud])
        self.time += 1
        return self.last_reward, {
            "price": hour["price"],
            "net_load": hour["net"],
            "fuel_cost": hour["fuel"],
            "overload": float(hour["over"].sum()),
            "curtailed": hour["curtailed"],
            "unserved": hour["unserved"],
        }

    def tokens(self) -> np.ndarray:
        """``f32[D+9, columns]``: storages, five units, wind, sun, line, market."""
        d, hour = self.d, self.time // self.d % 24
        out = np.zeros((d + 9, NUM_TOKEN_FEATURES))
        mean = sum(self.prices) / len(self.prices) if self.prices else 0.0
        for k in range(d):
            out[k, [STORE, LEVEL]] = 1, self.charge[k] / self.full
            quantum, local = self.p["capacity"][k] / self.full, self.local[k]
            left = self.num_periods - self.time // self.d
            if self.charge[k] >= max(left, 1):  # one an hour cannot empty it any more
                out[k, URGENCY] = quantum * max(local, 0.0)
            else:
                out[k, URGENCY] = quantum * max(local - mean, 0.0) if self.charge[k] else 0.0
                out[k, SLACK] = min(max(1 - local / mean, 0.0), 1.0) if mean > 0 else 0.0
            out[k, WAITING] = self.charge[k] * quantum / 80
            out[k, [CAPACITY, SIZE]] = self.p["capacity"][k], self.p["capacity"][k] / 80
            out[k, DRAWN], out[k, OUTFLOW] = max(self.drawn[k], 0) / 20, max(-self.drawn[k], 0) / 20
            out[k, UNIT_VALUE], out[k, IS_TURN], out[k, DECIDED] = self.local[k] / 100, k == self.time % d, self.move[k]
        for i in range(5):
            share = self.output[i] / ieee14.UNIT_MAX[i]
            out[d + i, [SUPPLIER, SLACK, LEVEL, CAPACITY]] = 1, 1 - share, share, ieee14.UNIT_MAX[i]
        sun = max(0.0, math.sin(math.pi * (hour - 6) / 12))
        wind, sky = self.winds[0][self.wind], self.clouds[0][self.cloud]
        for i, (level, power, index) in enumerate(
            [(self.wind_factor(), self.green[0], wind), (sun, self.green[1], sky)]
        ):
            out[d + 5 + i, [SUPPLIER, LEVEL, POWER, WEATHER]] = 1, level, power / 100, index / 2
        line, market = out[d + 7], out[d + 8]
        line[[CARRIER, URGENCY, SLACK, LEVEL]] = (
            1,
            OVER * 100 * max(self.loading - 1, 0),
            min(max(1 - self.loading, 0), 1),
            self.loading,
        )
        market[[MARKET, LEVEL]] = 1, self.load / 300
        if self.prices:
            market[UNIT_VALUE] = self.prices[-1] / 100
            market[MEAN] = mean / 100
            market[SPREAD] = (max(self.prices) - min(self.prices)) / 100
        out[:, SIN], out[:, COS] = math.sin(2 * math.pi * hour / 24), math.cos(2 * math.pi * hour / 24)
        out[:, PROGRESS] = min(self.time / (self.num_periods * d), 1)
        out[:, LAST_REWARD] = self.last_reward / 10
        relative(out)
        return np.clip(out, -10, 10).astype(np.float32)


class BatchModel(numpy_model.BatchModel):
    """``B`` networks in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(
        self,
        params: dict[str, np.ndarray],
        num_periods: int = 24,
        storage_buses: tuple[int, ...] = (3, 9, 14),
        levels: int = 5,
        num_wind: int = 5,
        num_cloud: int = 3,
    ) -> None:
        p = {name: np.asarray(value, np.float64) for name, value in params.items()}
        self.num_periods, self.full, self.d = num_periods, levels - 1, len(storage_buses)
        self.batch = len(p["rating"])
        self.rows = np.arange(self.batch)
        self._tabulate(p["fuel"], p["available"] * ieee14.UNIT_MAX)
        f32 = np.float32
        # Flow per MW at each bus, bus 1 taking it out again.
        lines = np.arange(20)
        incidence = np.zeros((20, 14))
        incidence[lines, ieee14.LINES[:, 0] - 1], incidence[lines, ieee14.LINES[:, 1] - 1] = 1, -1
        susceptance = incidence / ieee14.REACTANCE[:, None]
        self.per_bus = (susceptance @ np.linalg.pinv(incidence.T @ susceptance)).T.astype(f32)  # [14, 20]
        self.per_bus = self.per_bus - self.per_bus[:1]
        self.per_unit = self.per_bus[ieee14.UNIT_BUS - 1]
        self.per_green = self.per_bus[[WIND_AT - 1, SUN_AT - 1]]
        self.per_store = self.per_bus[np.array(storage_buses) - 1]
        self.per_load = (ieee14.BUS_LOAD / ieee14.BUS_LOAD.sum()).astype(f32) @ self.per_bus
        self.rating = (p["rating"] * ieee14.RATING).astype(f32)
        quantum, eta = p["capacity"] / self.full, p["efficiency"]
        self.by_move = np.stack([0 * eta, quantum / eta, -quantum * eta]).astype(f32)  # [3, B, D]; -1 comes last
        self.start = p["initial_charge"].astype(np.int32)
        winds, clouds = chain(num_wind), chain(num_cloud)
        self.wind_law, self.cloud_law = (np.cumsum(c[2]).astype(f32)[:-1] for c in (winds, clouds))
        self.wind_cdf, self.cloud_cdf = (np.cumsum(c[1], 1).astype(f32)[:, :-1] for c in (winds, clouds))
        self.winds, self.clouds = np.array(winds[0], f32), np.array(clouds[0], f32)
        self.blow = (1 / (1 + np.exp(0.5 - 1.2 * self.winds))).astype(f32)
        self.loads = np.ascontiguousarray((259 * p["profile"]).T).astype(f32)
        angle = np.pi * np.arange(24) / 12
        self.sun = np.maximum(np.sin(angle - np.pi / 2), 0).astype(f32)
        self.sin, self.cos = np.sin(angle).astype(f32), np.cos(angle).astype(f32)
        self.wind_capacity, solar = p["wind_capacity"].astype(f32), p["solar_capacity"][:, None]
        self.by_sky = (solar * np.clip(p["clearness"][:, None] + 0.2 * self.clouds, 0, 1)).astype(f32)
        self.table = np.zeros((self.batch, self.d + 9, NUM_TOKEN_FEATURES), f32)
        d = self.d
        self.stores, self.units, self.green_rows = (
            self.table[:, :d],
            self.table[:, d : d + 5],
            self.table[:, d + 5 : -2],
        )
        self.stores[..., STORE], self.stores[..., CAPACITY] = 1, p["capacity"]
        self.stores[..., SIZE], self.quantum = p["capacity"] / 80, quantum.astype(f32)
        self.units[..., SUPPLIER] = self.green_rows[..., SUPPLIER] = 1
        self.units[..., CAPACITY] = ieee14.UNIT_MAX
        self.table[:, -2, CARRIER] = self.table[:, -1, MARKET] = 1

    def _tabulate(self, fuel: np.ndarray, high: np.ndarray) -> None:
        """Supply curves: knots in the order of price, with outputs, their total and the cost up to there."""
        a, b = fuel * ieee14.UNIT_COST[:, 0], fuel * ieee14.UNIT_COST[:, 1]
        price = np.sort(np.concatenate([b, b + 2 * a * high], 1), 1)
        output = np.clip((price[..., None] - b[:, None]) / (2 * a[:, None]), 0, high[:, None])
        total = output.sum(-1)
        cost = (a[:, None] * output**2 + b[:, None] * output).sum(-1)
        width = np.diff(total)
        slope = np.where(width > 1e-6, np.diff(price) / np.maximum(width, 1e-6), 0)
        response = np.where(width > 1e-6, 1 / np.maximum(width, 1e-6), 0)[..., None] * np.diff(output, axis=1)
        names = ("k_price", "k_output", "k_total", "k_cost", "k_slope", "k_response", "k_width")
        for name, value in zip(names, (price, output, total, cost, slope, response, width), strict=True):
            setattr(self, name, np.ascontiguousarray(value, np.float32))

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, 2]`` draw the weather of the first hour."""
        self.time = 0
        self.wind = (uniforms[:, :1] > self.wind_law).sum(1)
        self.cloud = (uniforms[:, 1:] > self.cloud_law).sum(1)
        self.charge, self.move = self.start.copy(), np.zeros((self.batch, self.d), np.int32)
        for column in (URGENCY, SLACK, DRAWN, OUTFLOW, UNIT_VALUE, IS_TURN, DECIDED):
            self.stores[..., column] = 0
        self.units[..., LEVEL], self.units[..., SLACK] = 0, 1
        self.green_rows[..., POWER] = 0
        self.table[:, -2, [URGENCY, SLACK, LEVEL]] = 0, 1, 0
        self.table[:, -1, [LEVEL, MEAN, SPREAD, UNIT_VALUE]] = 0
        self.table[..., PROGRESS] = self.table[..., LAST_REWARD] = 0
        self.total_price = self.lowest = self.highest = np.zeros(self.batch, np.float32)
        self.stores[:, 0, IS_TURN] = 1
        relative(self.table)
        self._show_hour()

    def _show_hour(self) -> None:
        hour = self.time // self.d % 24
        self.stores[..., LEVEL] = self.charge / np.float32(self.full)
        self.stores[..., WAITING] = self.charge * self.quantum / 80
        self.green_rows[:, 0, LEVEL], self.green_rows[:, 1, LEVEL] = self.blow[self.wind], self.sun[hour]
        self.green_rows[:, 0, WEATHER] = self.winds[self.wind] / 2
        self.green_rows[:, 1, WEATHER] = self.clouds[self.cloud] / 2
        self.table[..., SIN], self.table[..., COS] = self.sin[hour], self.cos[hour]

    def action_mask(self) -> np.ndarray:
        """``bool[B, 3]``."""
        held = self.charge[:, self.time % self.d]
        return np.stack([held >= 0, held < self.full, held > 0], 1)

    def _operate(self, load: np.ndarray, green: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, ...]:
        net = load - green.sum(1) + draw.sum(1)
        at = np.clip((self.k_total <= net[:, None]).sum(1) - 1, 0, self.k_total.shape[1] - 2)
        spot = (self.rows, at)
        above = np.clip(net - self.k_total[spot], 0, self.k_width[spot])
        price = self.k_price[spot] + above * self.k_slope[spot]
        response = self.k_response[spot]
        output = self.k_output[spot] + above[:, None] * response
        cost = self.k_cost[spot] + above * (self.k_price[spot] + price) / 2
        unserved, curtailed = np.maximum(net - self.k_total[:, -1], 0), np.maximum(-net, 0)
        kept = 1 - curtailed / np.maximum(green.sum(1), np.float32(1e-6))
        outside = (net < 0) | (unserved > 0)
        if outside.any():
            price = np.where(net < 0, 0, np.where(unserved > 0, np.float32(SHED), price))
            response = np.where(outside[:, None], 0, response)
        flow = output @ self.per_unit + (green * kept[:, None]) @ self.per_green - draw @ self.per_store
        flow -= (load - unserved)[:, None] * self.per_load
        over = np.maximum(np.abs(flow) - self.rating, 0)
        return net, price, output, response, flow, over, cost + SHED * unserved, curtailed, unserved

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One move ``action[B]`` each; on the last turn the hour is run and ``uniforms[B, 2]`` move the weather."""
        turn = self.time % self.d
        self.move[:, turn] = np.where(action == 2, -1, action)
        self.stores[:, turn, DECIDED], self.stores[:, turn, IS_TURN] = self.move[:, turn], 0
        hour = self.time // self.d
        self.time += 1
        self.stores[:, self.time % self.d, IS_TURN] = 1
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.d), 1.0)
        if turn < self.d - 1:
            return np.zeros(self.batch, np.float32), {}
        load = self.loads[hour % 24]
        sun = self.by_sky[self.rows, self.cloud] * self.sun[hour % 24]
        green = np.stack([self.wind_capacity * self.blow[self.wind], sun], 1)
        draw = self.by_move[self.move, self.rows[:, None], np.arange(self.d)]
        *_, idle_over, idle_cost, _, _ = self._operate(load, green, np.zeros_like(draw))
        net, price, output, response, flow, over, cost, curtailed, unserved = self._operate(load, green, draw)
        total_over = over.sum(1)
        reward = (idle_cost - cost + OVER * (idle_over.sum(1) - total_over)) / 100
        toll = np.where(over > 0, np.float32(OVER) * np.sign(flow), 0)
        local = price + ((toll @ self.per_unit.T) * response).sum(1) + (unserved > 0) * (toll @ self.per_load)
        spare = (curtailed > 0)[:, None] * green / np.maximum(green.sum(1, keepdims=True), np.float32(1e-6))
        local += ((toll @ self.per_green.T) * spare).sum(1)
        self.charge += self.move
        self.move[:] = 0
        self.wind = (uniforms[:, :1] > self.wind_cdf[self.wind]).sum(1)
        self.cloud = (uniforms[:, 1:] > self.cloud_cdf[self.cloud]).sum(1)
        stores, market = self.stores, self.table[:, -1]
        stores[..., DECIDED] = 0
        stores[..., DRAWN], stores[..., OUTFLOW] = np.maximum(draw, 0) / 20, np.maximum(-draw, 0) / 20
        local = local[:, None] - toll @ self.per_store.T
        stores[..., UNIT_VALUE] = np.clip(local / 100, -10, 10)
        share = output * (1 / ieee14.UNIT_MAX).astype(np.float32)
        self.units[..., LEVEL], self.units[..., SLACK] = share, 1 - share
        self.green_rows[..., POWER] = green / 100
        loading = (np.abs(flow) / self.rating).max(1)
        line = self.table[:, -2]
        line[:, LEVEL] = np.minimum(loading, 10)
        line[:, URGENCY], line[:, SLACK] = OVER * 100 * np.maximum(loading - 1, 0), np.clip(1 - loading, 0, 1)
        first = hour == 0
        self.total_price = self.total_price + price
        self.lowest = price if first else np.minimum(self.lowest, price)
        self.highest = price if first else np.maximum(self.highest, price)
        market[:, LEVEL], market[:, UNIT_VALUE] = load / 300, np.clip(price / 100, -10, 10)
        mean = self.total_price / (hour + 1)
        late = self.charge >= max(self.num_periods - hour - 1, 1)
        against = np.where(late, 0, mean[:, None])
        stores[..., URGENCY] = self.quantum * np.maximum(local - against, 0) * (self.charge > 0)
        known = np.where(mean > 0, mean, 1)[:, None]
        stores[..., SLACK] = np.where(late | (mean <= 0)[:, None], 0, np.clip(1 - local / known, 0, 1))
        market[:, MEAN] = np.clip(mean / 100, -10, 10)
        market[:, SPREAD] = np.clip((self.highest - self.lowest) / 100, -10, 10)
        self.table[..., LAST_REWARD] = np.clip(reward / 10, -10, 10)[:, None]
        relative(self.table)
        self._show_hour()
        return reward, {
            "price": price,
            "net_load": net,
            "fuel_cost": cost,
            "overload": total_over,
            "curtailed": curtailed,
            "unserved": unserved,
        }

    def tokens(self) -> np.ndarray:
        """``f32[B, D+9, columns]``, a view that the next step overwrites."""
        return self.table
