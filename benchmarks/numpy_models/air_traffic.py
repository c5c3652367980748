"""Aircraft landing in NumPy: the independent models of ``envs_jax.domains.air_traffic``.

Written from the equations (docs/domains/air_traffic.md), not from the JAX code. ``LoopModel`` is one airport in plain
Python loops and float64; it finds landing times slot by slot on a time grid. ``BatchModel`` is a batch of airports in
float32 that share a clock; it finds them among sorted break points. Both take the parameters by name and the uniforms
from outside, so they can be fed the very draws of another implementation. Times and separations are whole slots.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.special import ndtri

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

LARGEST_WEIGHT = 30.0
URGENCY, SLACK, DEMAND, MARKET, CLOCK, LEVEL, WAITING = columns(
    "urgency", "slack", "role_demand", "role_market", "role_clock", "level", "waiting"
)
UNIT_COST, UNIT_VALUE, IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns(
    "unit_cost", "unit_value", "is_turn", "decided", "progress", "last_reward"
)
# An aircraft's own columns, an airline's, the tower's.
AIRLINE, DUE, EARLIER, LATEST, CLASS, RUNWAY = columns(*(f"private_{letter}" for letter in "abcdef"))
LATE_SLOTS, CHARGED = columns("private_b", "private_c")
TIGHTNESS, NOISE = columns("private_a", "private_b")


def timing(cost: list[list[float]], gaps: list[int]) -> list[int]:
    """Earliest cheapest slots of a sequence: ``cost[k][t]`` of landing k-th in slot t, ``gaps[k]`` before landing k."""
    slots = len(cost[0])
    values: list[list[float]] = []
    best = [0.0] * slots  # cheapest so far with the last landing at or before t
    for own, gap in zip(cost, gaps, strict=True):
        reached = [best[t - gap] if t >= gap else (0.0 if not values else math.inf) for t in range(slots)]
        values.append([c + b for c, b in zip(own, reached, strict=True)])
        best, low = [], math.inf
        for value in values[-1]:
            low = min(low, value)
            best.append(low)
    times, last = [], slots - 1
    for row, gap in zip(reversed(values), reversed(gaps), strict=True):
        last = min(range(last + 1), key=row.__getitem__)
        times.append(last)
        last -= gap
    return times[::-1]


class LoopModel(numpy_model.LoopModel):
    """One airport. ``params``: the leaves of AirTrafficParams by name, unbatched."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 8, window: int = 6, num_runways: int = 1
    ) -> None:
        self.earliest, self.target, self.latest = (
            np.asarray(params[k], float).tolist() for k in ("earliest", "target", "latest")
        )
        self.wake, self.airline = (np.asarray(params[k]).tolist() for k in ("wake", "airline"))
        self.weight = np.asarray(params["weight"], float).tolist()
        self.published = np.asarray(params["separation"], float).tolist()
        # Half a slot decides: the product is rounded as the definition says, in single precision.
        needed = np.float32(params["inflation"]) * np.asarray(params["separation"], np.float32)
        self.needed = np.round(needed).astype(int).tolist()
        self.early_ratio, self.sigma, self.time_scale, self.cost_scale = (
            float(params[k]) for k in ("early_ratio", "charge_noise", "time_scale", "cost_scale")
        )
        self.num_periods, self.window, self.runways = num_periods, window, num_runways
        self.n, self.q = len(self.target[0]), len(self.weight)

    def reset(self, uniforms: np.ndarray) -> None:
        """Takes no uniforms."""
        assert len(uniforms) == 0
        self.sequence: list[tuple[int, int]] = []  # (aircraft, runway)
        self.charge, self.slots, self.tightness = [0.0] * self.q, [0.0] * self.q, 0.0
        self.time, self.last_reward = 0, 0.0

    def waiting(self) -> list[int]:
        """Aircraft without a place, in target order."""
        placed = {i for i, _ in self.sequence}
        return [i for i in range(self.n) if i not in placed]

    def action_mask(self) -> np.ndarray:
        """``bool[W R]``."""
        left = len(self.waiting())
        return np.array([k < left for k in range(self.window) for _ in range(self.runways)])

    def deviation(self, bank: int, i: int, t: float) -> float:
        """Late-equivalent slots of aircraft i landing at t."""
        early, late = max(self.target[bank][i] - t, 0.0), max(t - self.target[bank][i], 0.0)
        return self.early_ratio * early + late + 9.0 * max(t - self.latest[bank][i], 0.0)

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One place in the order; on the bank's last turn ``uniforms[n]`` draw the charges."""
        self.sequence.append((self.waiting()[int(action) // self.runways], int(action) % self.runways))
        bank = min(self.time // self.n, self.num_periods - 1)
        self.time += 1
        if self.time % self.n:
            return 0.0, {}
        first = int(min(self.earliest[bank]))
        span = int(max(self.target[bank])) - first + 1 + self.n * max(map(max, self.needed))
        landed: dict[int, float] = {}
        self.tightness = 3.0
        for runway in range(self.runways):
            own = [i for i, r in self.sequence if r == runway]
            if not own:
                continue
            kinds = [self.wake[bank][i] for i in own]
            gaps = [0, *(self.needed[a][b] for a, b in itertools.pairwise(kinds))]
            cost = [
                [
                    self.weight[self.airline[bank][i]] * self.deviation(bank, i, t)
                    if t >= self.earliest[bank][i]
                    else math.inf
                    for t in range(first, first + span)
                ]
                for i in own
            ]
            times = [first + t for t in timing(cost, gaps)]
            landed.update(zip(own, times, strict=True))
            for k in range(1, len(own)):
                self.tightness = min(self.tightness, (times[k] - times[k - 1]) / self.published[kinds[k - 1]][kinds[k]])
        self.charge, self.slots = [0.0] * self.q, [0.0] * self.q
        total = 0.0
        for (i, _), uniform in zip(self.sequence, uniforms, strict=True):
            airline, slots = self.airline[bank][i], self.deviation(bank, i, landed[i])
            cost_i = self.weight[airline] * slots
            total += cost_i
            self.slots[airline] += slots
            self.charge[airline] += cost_i * math.exp(self.sigma * float(ndtri(float(uniform))) - self.sigma**2 / 2)
        self.last_reward = -sum(self.charge) / self.cost_scale
        late = [landed[i] - self.target[bank][i] for i in range(self.n)]
        info = {
            "expected_reward": -total / self.cost_scale,
            "cost": total,
            "delay": sum(max(d, 0.0) for d in late),
            "earliness": sum(max(-d, 0.0) for d in late),
            "makespan": max(landed.values()) - self.target[bank][0],
            "position_shift": sum(abs(i - k) for k, (i, _) in enumerate(self.sequence)) / self.n,
        }
        self.landed, self.sequence = landed, []
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[n+Q+1, columns]``: aircraft, airlines, tower."""
        out = np.zeros((self.n + self.q + 1, NUM_TOKEN_FEATURES), np.float32)
        bank = min(self.time // self.n, self.num_periods - 1)
        target, waiting = self.target[bank], self.waiting()
        head = min((target[i] for i in waiting), default=0.0)
        rate = [
            math.log1p(c / s) / math.log1p(LARGEST_WEIGHT) if s > 0 else 0.0
            for c, s in zip(self.charge, self.slots, strict=True)
        ]
        code = [2.0 * q / (self.q - 1) - 1.0 for q in range(self.q)]
        for i in range(self.n):
            airline, row = self.airline[bank][i], out[i]
            row[[DEMAND, AIRLINE, UNIT_VALUE]] = 1.0, code[airline], rate[airline]
            row[DUE] = min((target[i] - target[0]) / self.time_scale, 10.0)
            row[EARLIER] = (target[i] - self.earliest[bank][i]) / self.time_scale
            row[CLASS], row[SLACK] = (3 - self.wake[bank][i]) / 3.0, 1.0
            if i in waiting:
                row[WAITING] = 1.0
                row[URGENCY] = max(head + self.time_scale - target[i], 0.0)
                row[SLACK] = min((target[i] - head) / self.time_scale, 1.0)
                row[LATEST] = min((self.latest[bank][i] - head) / self.time_scale / 2.0, 1.0)
        for place, (i, runway) in enumerate(self.sequence):
            out[i, [DECIDED, RUNWAY]] = (place + 1) / self.n, runway / max(self.runways - 1, 1)
        for q in range(self.q):
            share = sum(self.airline[bank][i] == q for i in waiting) / max(len(waiting), 1)
            row = [1.0, code[q], share, self.slots[q] / self.time_scale, self.charge[q] / self.cost_scale, rate[q]]
            out[self.n + q, [MARKET, AIRLINE, WAITING, LATE_SLOTS, CHARGED, UNIT_VALUE]] = np.minimum(row, 10.0)
        out[-1, [CLOCK, IS_TURN]] = 1.0
        out[-1, [LEVEL, TIGHTNESS]] = len(self.sequence) / self.n, self.tightness
        out[-1, [UNIT_COST, NOISE]] = self.early_ratio, self.sigma
        out[:, PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        out[:, LAST_REWARD] = max(self.last_reward, -10.0)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` airports with one runway in lockstep. ``params`` have a leading axis B; arrays are float32."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 8, window: int = 6) -> None:
        whole = ("wake", "airline")
        given: dict[str, np.ndarray] = {k: v.astype(np.intp if k in whole else np.float32) for k, v in params.items()}
        self.earliest, self.target, self.latest = given["earliest"], given["target"], given["latest"]
        self.wake, self.airline, self.published = given["wake"], given["airline"], given["separation"]
        self.needed = np.round(given["inflation"][:, None, None] * self.published)
        self.cost_per_slot = np.take_along_axis(given["weight"][:, None], self.airline, axis=2)
        self.ratio, self.sigma = given["early_ratio"][:, None], given["charge_noise"][:, None]
        self.time_unit, self.cost_unit = 1 / given["time_scale"][:, None], 1 / given["cost_scale"][:, None]
        self.num_periods, self.window = num_periods, window
        self.batch, _, self.n = self.target.shape
        self.q = given["weight"].shape[1]
        self.rows = np.arange(self.batch)
        self.code = (2 * np.arange(self.q, dtype=np.float32) / (self.q - 1)) - 1
        self.table = np.zeros((self.batch, self.n + self.q + 1, NUM_TOKEN_FEATURES), np.float32)
        self.aircraft, self.airlines, self.tower = (
            self.table[:, : self.n],
            self.table[:, self.n : -1],
            self.table[:, -1],
        )
        self.aircraft[..., DEMAND] = self.airlines[..., MARKET] = self.tower[:, CLOCK] = 1
        self.tower[:, IS_TURN] = 1
        self.airlines[..., AIRLINE] = self.code
        self.tower[:, UNIT_COST], self.tower[:, NOISE] = self.ratio[:, 0], self.sigma[:, 0]

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, 0]``."""
        assert uniforms.shape[1] == 0
        self.time = 0
        self.order = np.zeros((self.batch, self.n), np.intp)
        self.charge = np.zeros((self.batch, self.q), np.float32)
        self.slots = np.zeros_like(self.charge)
        self.table[..., PROGRESS] = self.table[..., LAST_REWARD] = 0
        self.tower[:, TIGHTNESS] = 0
        self._approach()

    def _approach(self) -> None:
        """The bank's timetable and the last bank's charges, once a bank."""
        self.bank = bank = min(self.time // self.n, self.num_periods - 1)
        self.waits = np.ones((self.batch, self.n), bool)
        target, unit = self.target[:, bank], self.time_unit
        rows = self.aircraft
        rows[..., DUE] = np.minimum((target - target[:, :1]) * unit, 10)
        rows[..., EARLIER] = np.minimum((target - self.earliest[:, bank]) * unit, 10)
        rows[..., CLASS] = 1 - self.wake[:, bank] / np.float32(3)
        rows[..., AIRLINE] = self.code[self.airline[:, bank]]
        rows[..., DECIDED] = 0
        rate = np.log1p(self.charge / np.maximum(self.slots, 1e-6)) / np.log1p(np.float32(LARGEST_WEIGHT))
        rows[..., UNIT_VALUE] = np.take_along_axis(rate, self.airline[:, bank], axis=1)
        self.airlines[..., UNIT_VALUE] = rate
        self.airlines[..., LATE_SLOTS] = np.minimum(self.slots * unit, 10)
        self.airlines[..., CHARGED] = np.minimum(self.charge * self.cost_unit, 10)
        self.whose = self.airline[:, bank, :, None] == np.arange(self.q)
        self._wait()

    def _wait(self) -> None:
        """What changes with every place given."""
        waits, target = self.waits, self.target[:, self.bank]
        head = np.where(waits, target, np.inf).min(1, keepdims=True).astype(np.float32)
        rows = self.aircraft
        away = np.clip((target - head) * self.time_unit, 0, 1)
        # The first of those that wait has a whole bank's time, and so is the largest.
        rows[..., URGENCY], rows[..., SLACK] = waits * (1 - away), np.where(waits, away, 1)
        rows[..., LATEST] = waits * np.clip((self.latest[:, self.bank] - head) * self.time_unit / 2, 0, 1)
        rows[..., WAITING] = waits
        self.upto = np.cumsum(waits, axis=1)
        left = self.n - self.time % self.n
        self.airlines[..., WAITING] = np.einsum("bnq,bn->bq", self.whose, waits.astype(np.float32)) / left
        self.tower[:, LEVEL] = 1 - left / self.n

    def action_mask(self) -> np.ndarray:
        """``bool[B, W]``."""
        left = self.n - self.time % self.n
        return np.broadcast_to(np.arange(self.window) < left, (self.batch, self.window))

    def _land(self) -> tuple[np.ndarray, np.ndarray]:
        """Times ``[B, n]`` and late-equivalent slots, in the order of landing."""
        pick = lambda x: np.take_along_axis(x[:, self.bank], self.order, axis=1)  # noqa: E731
        earliest, target, latest, wake = map(pick, (self.earliest, self.target, self.latest, self.wake))
        pair = (self.rows[:, None], wake[:, :-1], wake[:, 1:])
        offset = np.zeros_like(target)
        np.cumsum(self.needed[pair], axis=1, out=offset[:, 1:])
        points = np.sort(np.concatenate([earliest - offset, target - offset, latest - offset], axis=1), axis=1)
        late = pick(self.cost_per_slot)

        def slots(time: np.ndarray, k: slice | int) -> np.ndarray:
            behind = time - target[:, k]
            return np.maximum(behind, -self.ratio * behind) + 9 * np.maximum(time - latest[:, k], 0)

        best, values = np.zeros_like(points), []
        for k in range(self.n):
            own = slice(k, k + 1)
            time = points + offset[:, own]
            value = best + late[:, own] * slots(time, own)
            value[time < earliest[:, own]] = np.inf
            values.append(value)
            best = np.minimum.accumulate(value, axis=1)
        chosen, bound = np.empty_like(target), np.full((self.batch, 1), np.inf, np.float32)
        for k in range(self.n - 1, -1, -1):
            cheapest = np.where(points <= bound, values[k], np.inf).argmin(1)
            bound = points[self.rows, cheapest][:, None]
            chosen[:, k] = bound[:, 0]
        time = chosen + offset
        published = self.published[pair]
        self.tower[:, TIGHTNESS] = np.minimum((np.diff(time, axis=1) / published).min(1), 3)
        return time, slots(time, slice(None))

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One place ``action[B]`` each; on the bank's last turn ``uniforms[B, n]`` draw the charges."""
        place = self.time % self.n
        aircraft = (self.upto > np.asarray(action)[:, None]).argmax(1)
        self.order[:, place] = aircraft
        self.waits[self.rows, aircraft] = False
        self.aircraft[self.rows, aircraft, DECIDED] = (place + 1) / self.n
        self.time += 1
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        if place < self.n - 1:
            self._wait()
            return np.zeros(self.batch, np.float32), {}
        time, slots = self._land()
        pick = lambda x: np.take_along_axis(x[:, self.bank], self.order, axis=1)  # noqa: E731
        cost = pick(self.cost_per_slot) * slots
        charge = cost * np.exp(self.sigma * ndtri(uniforms, dtype=np.float32) - self.sigma**2 / 2)
        whose = np.take_along_axis(self.whose, self.order[:, :, None], axis=1)
        self.charge = np.einsum("bnq,bn->bq", whose, charge)
        self.slots = np.einsum("bnq,bn->bq", whose, slots)
        reward = -charge.sum(1) * self.cost_unit[:, 0]
        late = time - pick(self.target)
        info = {
            "expected_reward": -cost.sum(1) * self.cost_unit[:, 0],
            "cost": cost.sum(1),
            "delay": np.maximum(late, 0).sum(1),
            "earliness": np.maximum(-late, 0).sum(1),
            "makespan": time.max(1) - self.target[:, self.bank, 0],
            "position_shift": np.abs(self.order - np.arange(self.n)).mean(1),
        }
        self.table[..., LAST_REWARD] = np.maximum(reward, -10)[:, None]
        self._approach()
        return reward, info

    def tokens(self) -> np.ndarray:
        """``f32[B, n+Q+1, columns]``, a view that the next step overwrites."""
        return self.table
