"""Hour-ahead bidding of storage in NumPy: the independent models of ``envs_jax.domains.energy_trading``.

Written from the equations (docs/domains/energy_trading.md), not from the JAX code: ``LoopModel`` is one market in plain
Python loops and float64, ``BatchModel`` a batch of markets in float32 that share a clock. Both take the parameters by
name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

LEVELS = (0.45, 0.67, 0.88, 1.09, 1.30)
BIDS = [(0, 6)] + [(lo, hi) for lo in range(6) for hi in range(lo + 1, 7) if hi - lo < 6]
SHOWN, SPAN = 8, 4.0
URGENCY, SLACK, STORE, MARKET, LEVEL, CAPACITY, OUTFLOW, WAITING = columns(
    "urgency", "slack", "role_store", "role_market", "level", "capacity", "outflow", "waiting"
)
UNIT_COST, UNIT_VALUE, IS_TURN, DECIDED, SIN, COS, PROGRESS, LAST_REWARD = columns(
    "unit_cost", "unit_value", "is_turn", "decided", "cycle_sin", "cycle_cos", "progress", "last_reward"
)
SIZE, POWER, BOUGHT, CHANGE, PREMIUM, ABOVE = columns(*(f"private_{letter}" for letter in "abcdef"))  # of stores
AHEAD, SPIKE = columns("private_a", "private_b")  # of hours, which show CHANGE and PREMIUM too


class LoopModel(numpy_model.LoopModel):
    """One market. ``params``: the leaves of EnergyTradingParams by name, unbatched."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 48, max_capacity: int = 16, num_prices: int = 31
    ) -> None:
        self.p = {name: np.asarray(value).tolist() for name, value in params.items()}
        self.d, self.num_periods, self.max_capacity = len(self.p["capacity"]), num_periods, max_capacity
        self.half = num_prices // 2

    def reset(self, uniforms: np.ndarray) -> None:
        """Nothing of the start is random."""
        del uniforms
        self.charge = list(self.p["initial_charge"])
        self.bids, self.moved, self.settled = [0] * self.d, [0] * self.d, [0.0] * self.d
        self.node, self.spike, self.time, self.last_reward = 0, 0, 0, 0.0
        self.price = self.price_before = self.p["reference_price"]
        self.seen = [self.price]  # all prices shown

    def action_mask(self) -> np.ndarray:
        """``bool[21]``: every bid is legal."""
        return np.ones(len(BIDS), bool)

    def level(self, i: int) -> float:
        """Bid level ``i`` in whole $/MWh: 0 is below every price, 6 above."""
        if i == 0:
            return -math.inf
        return math.inf if i == 6 else float(round(self.p["reference_price"] * LEVELS[i - 1]))

    def clear(self, uniforms: np.ndarray) -> float:
        """Price of the next hour, $/MWh."""
        p, hour = self.p, self.time // self.d + 1
        deviation = p["innovation_sd"] / math.sqrt(1 - p["persistence"] ** 2)  # stationary, $/MWh
        width = SPAN / self.half  # of a cell, in stationary standard deviations
        target = p["persistence"] * self.node * width
        target += math.sqrt(1 - p["persistence"] ** 2) * float(ndtri(float(uniforms[0])))
        self.node = max(-self.half, min(self.half, round(target / width)))
        self.spike = int(float(uniforms[1]) < p["spike_probability"])
        mean = p["profile"][hour % len(p["profile"])]
        return mean + self.node * width * deviation + self.spike * p["spike_size"]

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One pair of bids; on the period's last turn ``uniforms[2]`` clear the next hour."""
        turn = self.time % self.d
        self.bids[turn] = int(action)
        if turn < self.d - 1:
            self.time += 1
            return 0.0, {}
        p, price = self.p, self.clear(uniforms)
        info = dict.fromkeys(("units_bought", "units_sold", "purchases", "sales", "wear"), 0.0)
        for d in range(self.d):
            lo, hi = (self.level(i) for i in BIDS[self.bids[d]])
            self.moved[d], self.settled[d] = 0, 0.0
            if price <= lo:
                units = min(p["power"][d], p["capacity"][d] - self.charge[d])
                paid, wear = price * units / p["efficiency"][d], p["wear_cost"][d] * units
                self.moved[d], self.settled[d] = units, -paid - wear
                info["units_bought"] += units
                info["purchases"] += paid
                info["wear"] += wear
            elif price >= hi:
                units = min(p["power"][d], self.charge[d])
                earned, wear = price * units * p["efficiency"][d], p["wear_cost"][d] * units
                self.moved[d], self.settled[d] = -units, earned - wear
                info["units_sold"] += units
                info["sales"] += earned
                info["wear"] += wear
            self.charge[d] += self.moved[d]
        self.bids = [0] * self.d
        self.price_before, self.price = self.price, price
        self.seen.append(price)
        self.last_reward = sum(self.settled)
        self.time += 1
        return self.last_reward, {"price": price, "spike": float(self.spike), **info}

    def tokens(self) -> np.ndarray:
        """``f32[D+8, columns]``: devices, then the published prices."""
        p, hour, out = self.p, self.time // self.d, np.zeros((self.d + SHOWN, NUM_TOKEN_FEATURES))
        reference, published = p["reference_price"], p["day_ahead"]
        change = (self.price - self.price_before) / 50
        mean = sum(self.seen) / len(self.seen)
        for d in range(self.d):
            row, charge, size, power = out[d], self.charge[d], p["capacity"][d], p["power"][d]
            lo, hi = BIDS[self.bids[d]]
            now = min(power, charge)  # what can be sold in the coming hour, and how much of it at no later one
            never = min(now, max(charge - power * (self.num_periods - hour - 1), 0))
            row[STORE], row[CAPACITY] = 1, size
            row[URGENCY] = max(self.price - mean, 0) * (now - never) + max(self.price, 0) * never
            row[SLACK] = 0 if never else min(max(mean - self.price, 0) / reference, 1)
            row[LEVEL], row[WAITING], row[SIZE], row[POWER] = (
                charge / size,
                charge / self.max_capacity,
                size / self.max_capacity,
                power / 4,
            )
            row[BOUGHT], row[OUTFLOW] = max(self.moved[d], 0) / 4, max(-self.moved[d], 0) / 4
            row[CHANGE], row[PREMIUM] = change, (published[(hour + 1) % len(published)] - reference) / 50
            row[ABOVE], row[UNIT_VALUE] = (self.price - reference) / 50, self.settled[d] / (50 * power)
            row[IS_TURN], row[DECIDED] = d == self.time % self.d, (6 - hi) / 5 - lo / 5
        for j in range(SHOWN):
            premium = published[(hour + j) % len(published)] - reference
            out[self.d + j, [MARKET, AHEAD, PREMIUM]] = 1, j / SHOWN, premium / 50
        out[self.d, [CHANGE, SPIKE, UNIT_VALUE]] = change, self.spike, self.price / 50
        relative(out)
        for i in range(self.d + SHOWN):
            angle = 2 * math.pi * ((hour + max(i - self.d, 0)) % 24) / 24
            out[i, SIN], out[i, COS], out[i, UNIT_COST] = math.sin(angle), math.cos(angle), reference / 50
            out[i, PROGRESS] = min(self.time / (self.num_periods * self.d), 1)
            out[i, LAST_REWARD] = self.last_reward / (reference * sum(p["power"]))
        return np.clip(out, -10, 10).astype(np.float32)


class BatchModel(numpy_model.BatchModel):
    """``B`` markets in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 48, max_capacity: int = 16, num_prices: int = 31
    ) -> None:
        p = {name: np.asarray(value) for name, value in params.items()}
        self.capacity, self.power, self.start = p["capacity"], p["power"], p["initial_charge"]
        self.batch, self.d = self.capacity.shape
        self.num_periods, self.half = num_periods, num_prices // 2
        self.eta, self.one_over_eta, self.wear = p["efficiency"], 1 / p["efficiency"], p["wear_cost"]
        self.reference, self.chance, self.jump = p["reference_price"], p["spike_probability"], p["spike_size"]
        width, scatter = SPAN / self.half, np.sqrt(1 - p["persistence"] ** 2)
        self.phi, self.push = p["persistence"], scatter / np.float32(width)
        self.cell = np.float32(width) / scatter * p["innovation_sd"]  # $/MWh of a cell
        # One contiguous row an hour: the prices of all markets.
        self.profile = np.ascontiguousarray(p["profile"].T)
        premium = p["day_ahead"] - self.reference[:, None]
        self.cycle = premium.shape[1]
        levels = np.rint(self.reference[:, None] * np.array(LEVELS, np.float32))
        never = np.full((self.batch, 1), np.inf, np.float32)
        ladder = np.concatenate([-never, levels, never], axis=1)  # 0 .. 6
        self.lo, self.hi = (np.ascontiguousarray(ladder[:, list(side)]) for side in zip(*BIDS, strict=True))
        self.rows = np.arange(self.batch)
        self.eager = np.array([(6 - hi - lo) / 5 for lo, hi in BIDS], np.float32)
        self.inverse_capacity = (1 / self.capacity).astype(np.float32)
        self.max_capacity = np.float32(max_capacity)
        self.inverse_power = (1 / (50 * self.power)).astype(np.float32)
        self.inverse_scale = 1 / (self.reference * self.power.sum(1))
        angle = 2 * np.pi * np.arange(24 + SHOWN) / 24
        self.sin, self.cos = np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32)
        # Windows of the published curve by hour; columns that never change are written once.
        around = (np.arange(self.cycle)[:, None] + np.arange(SHOWN)) % self.cycle
        self.shown = np.ascontiguousarray((premium / 50)[:, around].swapaxes(0, 1))
        self.table = np.zeros((self.batch, self.d + SHOWN, NUM_TOKEN_FEATURES), np.float32)
        self.stores, self.markets = self.table[:, : self.d], self.table[:, self.d :]
        self.stores[..., STORE] = self.markets[..., MARKET] = 1
        self.stores[..., CAPACITY], self.stores[..., POWER] = self.capacity, self.power / 4
        self.stores[..., SIZE] = self.capacity / max_capacity
        self.markets[..., AHEAD] = np.arange(SHOWN) / SHOWN
        self.table[..., UNIT_COST] = self.reference[:, None] / 50

    def reset(self, uniforms: np.ndarray) -> None:
        """Nothing of the start is random."""
        del uniforms
        self.charge, self.time = self.start.copy(), 0
        self.low, self.high = np.zeros((2, self.batch, self.d), np.float32)
        self.node, self.price = np.zeros(self.batch, np.float32), self.reference
        self.total = self.reference.copy()  # of all prices shown
        nothing, moved = np.zeros(self.batch, np.float32), np.zeros((self.batch, self.d), np.float32)
        self._show_hour(self.price, nothing, moved, moved, nothing)
        self.stores[..., [IS_TURN, DECIDED]] = self.table[..., [PROGRESS]] = 0
        self.stores[:, 0, IS_TURN] = 1

    def action_mask(self) -> np.ndarray:
        """``bool[B, 21]``: every bid is legal."""
        return np.ones((self.batch, len(BIDS)), bool)

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One pair ``action[B]`` each; on the period's last turn ``uniforms[B, 2]`` clear the next hour."""
        turn = self.time % self.d
        self.low[:, turn], self.high[:, turn] = self.lo[self.rows, action], self.hi[self.rows, action]
        self.stores[:, turn, DECIDED], self.stores[:, turn, IS_TURN] = self.eager[action], 0
        self.time += 1
        self.stores[:, self.time % self.d, IS_TURN] = 1
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.d), 1.0)
        if turn < self.d - 1:
            return np.zeros(self.batch, np.float32), {}
        shock = ndtri(uniforms[:, 0], dtype=np.float32)
        self.node = np.clip(np.rint(self.phi * self.node + self.push * shock), -self.half, self.half)
        spike = (uniforms[:, 1] < self.chance).astype(np.float32)
        before = self.price
        self.price = self.profile[self.time // self.d % self.cycle] + self.node * self.cell + self.jump * spike
        price = self.price[:, None]
        bought = np.where(price <= self.low, np.minimum(self.power, self.capacity - self.charge), 0)
        sold = np.where(price >= self.high, np.minimum(self.power, self.charge), 0)
        self.total += self.price
        moved = bought - sold
        purchases, sales = price * (bought * self.one_over_eta), price * (sold * self.eta)
        wear = self.wear * (bought + sold)
        settled = sales - purchases - wear
        reward = settled.sum(1)
        self.charge += moved
        self.stores[..., DECIDED] = 0
        self._show_hour(before, spike, moved, settled, reward)
        return reward, {
            "price": self.price,
            "spike": spike,
            "units_bought": bought.sum(1),
            "units_sold": sold.sum(1),
            "purchases": purchases.sum(1),
            "sales": sales.sum(1),
            "wear": wear.sum(1),
        }

    def _show_hour(
        self, before: np.ndarray, spike: np.ndarray, moved: np.ndarray, settled: np.ndarray, reward: np.ndarray
    ) -> None:
        hour = self.time // self.d
        at, phase = hour % self.cycle, hour % 24
        stores, markets = self.stores, self.markets
        mean, price = (self.total / (hour + 1))[:, None], self.price[:, None]
        now = np.minimum(self.power, self.charge)
        never = np.clip(self.charge - self.power * (self.num_periods - hour - 1), 0, now)
        stores[..., URGENCY] = np.maximum(price - mean, 0) * (now - never) + np.maximum(price, 0) * never
        below = np.clip((mean - price) / self.reference[:, None], 0, 1)
        stores[..., SLACK] = np.where(never > 0, 0, below)
        stores[..., LEVEL] = self.charge * self.inverse_capacity
        stores[..., WAITING] = self.charge / self.max_capacity
        stores[..., BOUGHT], stores[..., OUTFLOW] = np.maximum(moved, 0) / 4, np.maximum(-moved, 0) / 4
        stores[..., UNIT_VALUE] = np.clip(settled * self.inverse_power, -10, 10)
        change = np.clip((self.price - before) / 50, -10, 10)
        stores[..., CHANGE], stores[..., PREMIUM] = change[:, None], self.shown[at, :, 1, None]
        stores[..., ABOVE] = np.clip((self.price - self.reference) / 50, -10, 10)[:, None]
        stores[..., SIN], stores[..., COS] = self.sin[phase], self.cos[phase]
        markets[..., PREMIUM] = self.shown[at]
        markets[..., SIN], markets[..., COS] = self.sin[phase : phase + SHOWN], self.cos[phase : phase + SHOWN]
        markets[:, 0, CHANGE], markets[:, 0, SPIKE] = change, spike
        markets[:, 0, UNIT_VALUE] = np.clip(self.price / 50, -10, 10)
        relative(self.table)
        self.table[..., LAST_REWARD] = np.clip(reward * self.inverse_scale, -10, 10)[:, None]

    def tokens(self) -> np.ndarray:
        """``f32[B, D+8, columns]``, a view that the next step overwrites."""
        return self.table
