"""Fleet rebalancing in NumPy: the independent models of ``envs_jax.domains.vehicle_fleet``.

Written from the equations (docs/domains/vehicle_fleet.md), not from the JAX code: ``LoopModel`` is one city in plain
Python loops that follows every vehicle, ``BatchModel`` a batch of cities with a common clock. Both take the parameters
by name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.numpy_models.inversion import poisson, poisson_counts
from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

URGENCY, SLACK, PLACE, CLOCK = columns("urgency", "slack", "role_place", "role_clock")
LEVEL, INFLOW, OUTFLOW, UNIT_COST, UNIT_VALUE = columns("level", "inflow", "outflow", "unit_cost", "unit_value")
LATER, DRIVE, FROM_HERE, TO_HERE, LOST, FLEET = columns(*(f"private_{letter}" for letter in "abcdef"))
IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns("is_turn", "decided", "progress", "last_reward")
SMOOTHING, TIME_SCALE, VEHICLE_SCALE = 0.3, 10.0, 20.0


def cut(value: float) -> float:
    """Into [-10, 10]."""
    return min(max(value, -10.0), 10.0)


class LoopModel(numpy_model.LoopModel):
    """One city. ``params``: the leaves of VehicleFleetParams by name, unbatched."""

    def __init__(
        self,
        params: dict[str, np.ndarray],
        num_periods: int = 20,
        fractions: tuple[float, ...] = (0.5, 1.0),
        max_requests: int = 48,
    ) -> None:
        self.start, self.move_time, self.trip_time = (
            np.asarray(params[name], int).tolist() for name in ("initial", "move_time", "trip_time")
        )
        self.rate, self.price = (np.asarray(params[name], float).tolist() for name in ("rate", "price"))
        self.cost, self.fare_scale = float(params["cost"]), float(params["price_scale"])
        self.n, self.num_periods, self.fractions = len(self.start), num_periods, fractions
        self.max_requests, self.fleet = max_requests, sum(self.start)
        pairs = [(i, j) for i in range(self.n) for j in range(self.n) if i != j]
        self.capacity = self.fleet / (sum(self.move_time[i][j] for i, j in pairs) / len(pairs))

    def reset(self, uniforms: np.ndarray) -> None:
        """All vehicles idle; ``uniforms`` are empty."""
        del uniforms
        self.idle = list(self.start)
        self.on_the_way: list[tuple[int, int]] = []  # (period in which it can be matched, region) of every vehicle
        self.requests, self.served, self.moved = [0] * self.n, [0] * self.n, [0] * self.n
        self.fare = [self.fare_scale] * self.n
        self.out_average = [0.75 * self.capacity / self.n] * self.n
        self.in_average = list(self.out_average)
        self.time, self.driven, self.last_reward = 0, 0, 0.0

    def menu(self) -> list[tuple[int, int, bool]]:
        """Vehicles, destination and legality of each action of the region in turn."""
        here = self.time % self.n
        out, smaller = [(0, here, True)], 0
        for fraction in self.fractions:
            amount = math.floor(fraction * self.idle[here])
            out += [(amount, j, amount > smaller) for j in range(self.n) if j != here]
            smaller = amount
        return out

    def action_mask(self) -> np.ndarray:
        """``bool[A]``."""
        return np.array([legal for _, _, legal in self.menu()])

    def step(self, action: int, uniforms: np.ndarray | None) -> tuple[float, dict[str, float]]:
        """Sends vehicles; on the period's last turn ``uniforms[N * N]`` draw the requests, which are then matched."""
        here, now = self.time % self.n, self.time // self.n
        amount, there, _ = self.menu()[int(action)]
        if amount and there != here:
            drive = self.move_time[here][there]
            self.idle[here] -= amount
            self.moved[here] -= amount
            self.moved[there] += amount
            self.driven += amount * drive
            self.on_the_way += [(now + drive, there)] * amount
        self.time += 1
        if here < self.n - 1:
            return 0.0, {}
        assert uniforms is not None
        for _, region in (vehicle for vehicle in self.on_the_way if vehicle[0] == now):
            self.idle[region] += 1
        self.on_the_way = [vehicle for vehicle in self.on_the_way if vehicle[0] > now]
        demand = [
            [poisson(float(u), rate, self.max_requests - 1) for u, rate in zip(row, rates, strict=True)]
            for row, rates in zip(np.reshape(uniforms, (self.n, self.n)), self.rate[now], strict=True)
        ]
        revenue = trip_cost = 0.0
        for i in range(self.n):
            self.requests[i], self.served[i], earned = sum(demand[i]), 0, 0.0
            for j in sorted(range(self.n), key=lambda j, i=i: (-self.price[now][i][j], j)):
                for _ in range(demand[i][j]):
                    if self.idle[i] == 0:
                        break
                    self.idle[i] -= 1
                    self.served[i] += 1
                    self.on_the_way.append((now + self.trip_time[now][i][j] + 1, j))
                    earned += self.price[now][i][j]
                    trip_cost += self.cost * self.trip_time[now][i][j]
            revenue += earned
            if self.served[i]:
                self.fare[i] = earned / self.served[i]
            arrivals = sum(row[i] for row in demand)
            self.out_average[i] += SMOOTHING * (self.requests[i] - self.out_average[i])
            self.in_average[i] += SMOOTHING * (arrivals - self.in_average[i])
        info = {
            "revenue": revenue,
            "trip_cost": trip_cost,
            "rebalancing_cost": self.cost * self.driven,
            "requests": float(sum(self.requests)),
            "served": float(sum(self.served)),
            "driven": float(self.driven),
            "idle": float(sum(self.idle)),
        }
        self.last_reward = revenue - trip_cost - info["rebalancing_cost"]
        self.driven, self.moved = 0, [0] * self.n
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[N+1, columns]``: regions, then the city."""
        out = np.zeros((self.n + 1, NUM_TOKEN_FEATURES), np.float32)
        here, now = self.time % self.n, self.time // self.n
        unit = self.n / self.fleet
        for i in range(self.n):
            due = sum(1 for when, region in self.on_the_way if region == i and when == now)
            later = sum(1 for when, region in self.on_the_way if region == i and when > now)
            lost = self.requests[i] - self.served[i]
            drive = self.move_time[here][i] if i != here else 0
            out[i, URGENCY] = max(self.out_average[i] - self.idle[i] - due, 0) * self.fare[i]
            out[i, SLACK] = self.idle[i] / max(self.idle[i] + self.out_average[i], 1.0)
            counts = (self.idle[i], due, later, self.served[i], lost)
            out[i, [LEVEL, INFLOW, LATER, OUTFLOW, LOST]] = [cut(x * unit) for x in counts]
            out[i, [DRIVE, UNIT_COST]] = cut(drive / TIME_SCALE), cut(self.cost * drive / self.fare_scale)
            out[i, [FROM_HERE, TO_HERE]] = cut(self.out_average[i] * unit), cut(self.in_average[i] * unit)
            out[i, [PLACE, UNIT_VALUE]] = 1.0, cut(self.fare[i] / self.fare_scale)
            out[i, [IS_TURN, DECIDED]] = float(i == here), cut(self.moved[i] * unit)
            out[-1, [LEVEL, INFLOW, LATER, OUTFLOW, LOST]] += np.array(counts) / self.fleet
        out[-1, [CLOCK, FLEET, UNIT_COST]] = 1.0, cut(1 / (unit * VEHICLE_SCALE)), cut(self.cost / self.fare_scale)
        out[:, PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        out[:, LAST_REWARD] = cut(10 * self.last_reward / (self.fleet * self.fare_scale))
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` cities in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(
        self,
        params: dict[str, np.ndarray],
        num_periods: int = 20,
        fractions: tuple[float, ...] = (0.5, 1.0),
        max_requests: int = 48,
    ) -> None:
        self.start = np.asarray(params["initial"], np.int32)
        self.batch, self.n = self.start.shape
        self.cities, self.num_periods = np.arange(self.batch), num_periods
        self.move_time, self.trip_time = (np.asarray(params[name], np.int32) for name in ("move_time", "trip_time"))
        self.cost, self.fare_scale = (np.asarray(params[name], np.float32) for name in ("cost", "price_scale"))
        price = np.asarray(params["price"], np.float32)
        # Destinations from the highest fare down, ties by number; everything about a trip is stored in that order.
        self.order = np.argsort(-price, axis=-1, kind="stable")
        self.price = np.take_along_axis(price, self.order, axis=-1)
        self.rate = np.take_along_axis(np.asarray(params["rate"], np.float32), self.order, axis=-1)
        self.ranked_time = np.take_along_axis(self.trip_time, self.order, axis=-1)
        self.max_requests = max_requests
        self.share = np.repeat(np.array([0, *fractions], np.float32), [1] + [self.n - 1] * len(fractions))
        self.other = np.array([0, *list(range(self.n - 1)) * len(fractions)])
        self.longest = int(max(self.move_time.max(), self.trip_time.max())) + 1
        away = ~np.eye(self.n, dtype=bool)
        self.fleet = self.start.sum(1).astype(np.float32)
        self.prior = 0.75 / self.n * self.fleet / self.move_time[:, away].mean(1, dtype=np.float32)
        self.unit = (self.n / self.fleet)[:, None]
        self.table = np.zeros((self.batch, self.n + 1, NUM_TOKEN_FEATURES), np.float32)
        self.regions, self.city = self.table[:, : self.n], self.table[:, self.n]
        self.regions[..., PLACE] = self.city[:, CLOCK] = 1
        self.city[:, FLEET] = np.minimum(1 / (self.unit[:, 0] * VEHICLE_SCALE), 10)
        self.city[:, UNIT_COST] = np.clip(self.cost / self.fare_scale, -10, 10)
        self.drive = np.where(away, self.move_time, 0).astype(np.float32)

    def reset(self, uniforms: np.ndarray) -> None:
        """All vehicles idle; ``uniforms`` are empty."""
        del uniforms
        self.time = 0
        self.idle = self.start.copy()
        self.ahead = np.zeros((self.batch, self.longest + 1, self.n), np.int32)
        self.moved = np.zeros_like(self.idle)
        self.driven = np.zeros(self.batch, np.int32)
        self.fare = np.repeat(self.fare_scale[:, None], self.n, axis=1)
        self.out_average = np.repeat(self.prior[:, None], self.n, axis=1)
        self.in_average = self.out_average.copy()
        self.reward = np.zeros(self.batch, np.float32)
        none = np.zeros_like(self.idle)
        self._show_world(none, none)
        self._show_choice()

    def _amounts(self) -> np.ndarray:
        return np.floor(self.share * self.idle[:, self.time % self.n, None]).astype(np.int32)

    def action_mask(self) -> np.ndarray:
        """``bool[B, A]``."""
        amounts = self._amounts()
        mask = amounts > 0
        width = self.n - 1
        mask[:, 1 + width :] &= amounts[:, 1 + width :] > amounts[:, 1:-width]
        mask[:, 0] = True
        return mask

    def step(self, action: np.ndarray, uniforms: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One decision ``action[B]`` each; on the period's last turn ``uniforms[B, N * N]`` draw the requests."""
        turn = self.time % self.n
        amount = self._amounts()[self.cities, action]
        there = self.other[action] + (self.other[action] >= turn)
        there[action == 0] = turn
        drive = self.move_time[self.cities, turn, there]
        self.idle[:, turn] -= amount
        self.moved[:, turn] -= amount
        self.moved[self.cities, there] += amount
        self.ahead[self.cities, drive, there] += amount
        self.driven += amount * drive
        self.time += 1
        if turn < self.n - 1:
            self._show_choice()
            return np.zeros(self.batch, np.float32), {}
        assert uniforms is not None
        now = self.time // self.n - 1
        order, trip_time = self.order[:, now], self.ranked_time[:, now]
        rate, price = self.rate[:, now], self.price[:, now]
        draws = np.take_along_axis(uniforms.reshape(self.batch, self.n, self.n), order, axis=-1)
        requests = poisson_counts(draws, rate, self.max_requests - 1)
        vehicles = self.idle + self.ahead[:, 0]
        upto = np.minimum(np.cumsum(requests, axis=-1), vehicles[..., None])
        trips = np.diff(upto, axis=-1, prepend=0)
        self.ahead[:, :-1] = self.ahead[:, 1:]
        self.ahead[:, -1] = 0
        np.add.at(self.ahead, (self.cities[:, None, None], trip_time, order), trips)
        asked, served = requests.sum(-1), upto[..., -1]
        arrivals = np.zeros_like(asked)
        np.add.at(arrivals, (self.cities[:, None, None], order), requests)
        earned = (trips * price).sum(-1)
        self.idle = vehicles - served
        info = {
            "revenue": earned.sum(1),
            "trip_cost": self.cost * (trips * trip_time).sum((1, 2)),
            "rebalancing_cost": self.cost * self.driven,
            "requests": asked.sum(1),
            "served": served.sum(1),
            "driven": self.driven.copy(),
            "idle": self.idle.sum(1),
        }
        self.reward = info["revenue"] - info["trip_cost"] - info["rebalancing_cost"]
        np.divide(earned, served, out=self.fare, where=served > 0)
        self.out_average += np.float32(SMOOTHING) * (asked - self.out_average)
        self.in_average += np.float32(SMOOTHING) * (arrivals - self.in_average)
        self.moved[:] = 0
        self.driven[:] = 0
        self._show_world(asked, served)
        self._show_choice()
        return self.reward, info

    def _show_world(self, asked: np.ndarray, served: np.ndarray) -> None:
        """What changes once a period."""
        lost = asked - served
        for column, count in ((OUTFLOW, served), (LOST, lost)):
            self.regions[..., column] = np.minimum(count * self.unit, 10)
            self.city[:, column] = np.minimum(count.sum(1) / self.fleet, 10)
        self.regions[..., FROM_HERE] = np.minimum(self.out_average * self.unit, 10)
        self.regions[..., TO_HERE] = np.minimum(self.in_average * self.unit, 10)
        self.regions[..., UNIT_VALUE] = np.clip(self.fare / self.fare_scale[:, None], -10, 10)
        self.table[..., LAST_REWARD] = np.clip(10 * self.reward / (self.fleet * self.fare_scale), -10, 10)[:, None]

    def _show_choice(self) -> None:
        """What changes with every choice."""
        turn = self.time % self.n
        short = np.maximum(self.out_average - self.idle - self.ahead[:, 0], 0)
        self.regions[..., URGENCY] = short * self.fare
        self.regions[..., SLACK] = self.idle / np.maximum(self.idle + self.out_average, 1)
        for column, count in (
            (LEVEL, self.idle),
            (INFLOW, self.ahead[:, 0]),
            (LATER, self.ahead[:, 1:].sum(1)),
        ):
            self.regions[..., column] = np.minimum(count * self.unit, 10)
            self.city[:, column] = np.minimum(count.sum(1) / self.fleet, 10)
        self.regions[..., DECIDED] = np.clip(self.moved * self.unit, -10, 10)
        drive = self.drive[:, turn]
        self.regions[..., DRIVE] = np.minimum(drive / np.float32(TIME_SCALE), 10)
        self.regions[..., UNIT_COST] = np.clip(drive * (self.cost / self.fare_scale)[:, None], -10, 10)
        self.regions[..., IS_TURN] = 0
        self.regions[:, turn, IS_TURN] = 1
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        relative(self.table)

    def tokens(self) -> np.ndarray:
        """``f32[B, N+1, columns]``, a view that the next step overwrites."""
        return self.table
