"""Hospital ward overflow in NumPy: the independent models of ``envs_jax.domains.healthcare``.

Written from the equations (docs/domains/healthcare.md), not from the JAX code: ``LoopModel`` is one hospital in plain
Python loops and float64, ``BatchModel`` a batch of hospitals in float32 that share a clock. Both take the parameters by
name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.numpy_models.inversion import binomial, binomial_counts, poisson, poisson_cdf
from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

SIZES = (1, 2, 4)
ROOM = 63  # patients of a class that can wait
URGENCY, SLACK, SUPPLIER, DEMAND, CLOCK, LEVEL, CAPACITY, OUTFLOW, WAITING = columns(
    "urgency", "slack", "role_supplier", "role_demand", "role_clock", "level", "capacity", "outflow", "waiting"
)
UNIT_COST, UNIT_VALUE, IS_TURN, DECIDED = columns("unit_cost", "unit_value", "is_turn", "decided")
BEDS, ARRIVED, STRANGERS = columns("private_a", "private_b", "private_c")
CYCLE_SIN, CYCLE_COS, PROGRESS, LAST_REWARD = columns("cycle_sin", "cycle_cos", "progress", "last_reward")


class LoopModel(numpy_model.LoopModel):
    """One hospital. ``params``: the leaves of HealthcareParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 32, max_beds: int = 20) -> None:
        self.beds = [int(n) for n in params["beds"]]
        self.hold, self.start, self.lam, self.mu, self.leave_share, self.come_share = (
            np.asarray(params[k], float).tolist()
            for k in (
                "holding_cost",
                "start_census",
                "arrival_rate",
                "discharge_rate",
                "discharge_profile",
                "arrival_profile",
            )
        )
        self.over = np.asarray(params["overflow_cost"], float).tolist()
        self.kappa = float(params["off_service"])
        self.wards, self.epochs = len(self.beds), len(self.leave_share)
        self.num_periods, self.max_beds = num_periods, max_beds

    def square(self) -> list[list[int]]:
        """A table of zeros, class by ward."""
        return [[0] * self.wards for _ in range(self.wards)]

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[W]`` draw the patients in the wards."""
        self.queue = [0] * self.wards
        self.ward = self.square()
        for w in range(self.wards):
            self.ward[w][w] = min(poisson(float(uniforms[w]), self.start[w], 200), self.beds[w])
        self.moved, self.left, self.before = self.square(), self.square(), self.square()
        self.came = [0] * self.wards
        self.time, self.last_reward = 0, 0.0

    def free(self, w: int) -> int:
        """Empty beds."""
        return self.beds[w] - sum(self.ward[j][w] for j in range(self.wards))

    def action_mask(self) -> np.ndarray:
        """``bool[1+3W]``: hold, then 1, 2, 4 patients of each class."""
        w = self.time % self.wards
        free = self.free(w)
        mask = [True]
        for j in range(self.wards):
            mask += [j != w and n <= self.queue[j] and n <= free for n in SIZES]
        return np.array(mask)

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One ward's choice; on the last turn ``uniforms[W*W+W]`` start the next epoch."""
        w = self.time % self.wards
        if action > 0:
            j, n = (int(action) - 1) // 3, SIZES[(int(action) - 1) % 3]
            self.queue[j] -= n
            self.ward[j][w] += n
            self.moved[j][w] += n
        self.time += 1
        if w < self.wards - 1:
            return 0.0, {}
        classes = range(self.wards)
        holding = sum(h * q for h, q in zip(self.hold, self.queue, strict=True))
        overflow = sum(self.over[i][v] * self.moved[i][v] for i in classes for v in classes)
        occupied = sum(map(sum, self.ward))
        info = {
            "waiting": float(sum(self.queue)),
            "overflowed": float(sum(map(sum, self.moved))),
            "in_beds": float(occupied),
            "off_service": float(sum(self.ward[i][v] for i in classes for v in classes if i != v)),
            "free_beds": float(sum(self.beds) - occupied),
            "holding_cost": holding,
            "overflow_cost": overflow,
        }
        epoch = (self.time // self.wards) % self.epochs
        for i in classes:
            for v in classes:
                rate = self.mu[i] if i == v else self.mu[i] / self.kappa
                chance = min(1.0, rate * self.leave_share[epoch])
                self.left[i][v] = binomial(float(uniforms[i * self.wards + v]), self.ward[i][v], chance)
        dropped = 0
        for i in classes:
            for v in classes:
                self.ward[i][v] -= self.left[i][v]
            self.came[i] = poisson(float(uniforms[self.wards**2 + i]), self.lam[i] * self.come_share[epoch], 200)
            self.queue[i] += self.came[i]
        for i in classes:
            admitted = min(self.queue[i], self.free(i))
            self.ward[i][i] += admitted
            self.queue[i] -= admitted
            dropped += max(self.queue[i] - ROOM, 0)
            self.queue[i] = min(self.queue[i], ROOM)
        info |= {
            "arrived": float(sum(self.came)),
            "discharged": float(sum(map(sum, self.left))),
            "dropped": float(dropped),
        }
        self.before, self.moved = self.moved, self.square()
        self.last_reward = -(holding + overflow)
        return self.last_reward, info | {"expected_reward": self.last_reward}

    def tokens(self) -> np.ndarray:
        """``f32[2W+1, columns]``: classes, wards, clock."""
        out = np.zeros((2 * self.wards + 1, NUM_TOKEN_FEATURES), np.float32)
        classes = range(self.wards)
        for k in classes:
            beds, own = self.beds[k], self.ward[k][k]
            there = sum(self.ward[j][k] for j in classes)
            sent, taken = self.before[k], [self.before[j][k] for j in classes]
            sent_cost = sum(b * n for b, n in zip(self.over[k], sent, strict=True))
            taken_cost = sum(self.over[j][k] * taken[j] for j in classes)
            for row in (out[k], out[self.wards + k]):
                row[[SLACK, WAITING]] = self.free(k) / beds, self.queue[k] / 8.0
                row[[BEDS, ARRIVED, UNIT_VALUE]] = beds / self.max_beds, self.came[k] / 8.0, self.hold[k] / 2.0
            out[k, URGENCY] = self.hold[k] * self.queue[k]
            out[k, [DEMAND, LEVEL, OUTFLOW]] = 1.0, sum(self.ward[k]) / beds, sum(self.left[k]) / 8.0
            out[k, [UNIT_COST, DECIDED]] = sent_cost / max(sum(sent), 1) / 40.0, sum(self.moved[k]) / 8.0
            ward = out[self.wards + k]
            ward[[SUPPLIER, CAPACITY, LEVEL, STRANGERS]] = 1.0, beds, there / beds, (there - own) / beds
            ward[OUTFLOW] = sum(self.left[j][k] for j in classes) / 8.0
            ward[DECIDED] = -sum(self.moved[j][k] for j in classes) / 8.0
            ward[[UNIT_COST, IS_TURN]] = taken_cost / max(sum(taken), 1) / 40.0, float(k == self.time % self.wards)
        angle = 2.0 * math.pi * (self.time // self.wards % self.epochs) / self.epochs
        out[-1, CLOCK] = 1.0
        out[:, CYCLE_SIN], out[:, CYCLE_COS] = math.sin(angle), math.cos(angle)
        out[:, PROGRESS] = min(self.time / (self.num_periods * self.wards), 1.0)
        out[:, LAST_REWARD] = max(self.last_reward / 10.0, -10.0)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` hospitals in lockstep. ``params`` have a leading axis B; arrays are updated in place."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 32, max_beds: int = 20) -> None:
        given = {name: np.asarray(value) for name, value in params.items()}
        self.beds, self.hold, self.over = given["beds"], given["holding_cost"], given["overflow_cost"]
        self.batch, self.wards = self.beds.shape
        own = np.eye(self.wards, dtype=bool)
        rate = given["discharge_rate"][:, :, None] / np.where(own, 1, given["off_service"][:, None, None])
        profile = given["discharge_profile"]
        self.epochs, self.num_periods = profile.shape[1], num_periods
        self.chance = np.minimum(profile.T[:, :, None, None] * rate, np.float32(1 - 1e-6)).astype(np.float32)
        self.odds, self.stay = self.chance / (1 - self.chance), np.log1p(-self.chance)
        mean = given["arrival_profile"].T[:, :, None] * given["arrival_rate"].astype(float)
        self.arrivals = poisson_cdf(mean, 16).astype(np.float32)
        self.initial = poisson_cdf(given["start_census"], max_beds + 1)
        self.diagonal = np.arange(self.wards)
        # Everything constant over an episode is written once; step() refreshes the rest.
        self.table = np.zeros((self.batch, 2 * self.wards + 1, NUM_TOKEN_FEATURES), np.float32)
        self.classes, self.rooms = self.table[:, : self.wards], self.table[:, self.wards : -1]
        self.classes[..., DEMAND] = self.rooms[..., SUPPLIER] = 1
        self.table[:, -1, CLOCK] = 1
        for rows in (self.classes, self.rooms):
            rows[..., BEDS], rows[..., UNIT_VALUE] = self.beds / max_beds, self.hold / 2
        self.rooms[..., CAPACITY] = self.beds
        self.inverse_beds = (1 / self.beds).astype(np.float32)

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, W]`` draw the patients in the wards."""
        self.time = 0
        self.queue = np.zeros((self.batch, self.wards), np.int32)
        self.ward = np.zeros((self.batch, self.wards, self.wards), np.int32)
        census = (uniforms[..., None] > self.initial).sum(-1)
        self.ward[:, self.diagonal, self.diagonal] = np.minimum(census, self.beds)
        self.free = self.beds - self.ward.sum(1, dtype=np.int32)
        self.moved = np.zeros_like(self.ward)
        for rows in (self.classes, self.rooms):
            rows[..., [ARRIVED, OUTFLOW, UNIT_COST, DECIDED, IS_TURN]] = 0
        self.rooms[:, 0, IS_TURN] = 1
        self.table[..., LAST_REWARD] = 0
        self._show()
        self._show_clock()

    def _show_clock(self) -> None:
        angle = 2 * math.pi * (self.time // self.wards % self.epochs) / self.epochs
        self.table[..., CYCLE_SIN], self.table[..., CYCLE_COS] = math.sin(angle), math.cos(angle)
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.wards), 1.0)

    def _show(self) -> None:
        waiting = self.queue * np.float32(1 / 8)
        for rows in (self.classes, self.rooms):
            rows[..., WAITING], rows[..., SLACK] = waiting, self.free * self.inverse_beds
        self.classes[..., URGENCY] = self.hold * self.queue
        self.classes[..., LEVEL] = self.ward.sum(2) * self.inverse_beds
        occupied = self.beds - self.free
        self.rooms[..., LEVEL] = occupied * self.inverse_beds
        self.rooms[..., STRANGERS] = (occupied - self.ward[:, self.diagonal, self.diagonal]) * self.inverse_beds
        relative(self.table)

    def action_mask(self) -> np.ndarray:
        """``bool[B, 1+3W]``."""
        turn = self.time % self.wards
        most = np.minimum(self.queue, self.free[:, turn, None])
        most[:, turn] = 0
        mask = np.ones((self.batch, 1 + 3 * self.wards), bool)
        np.greater_equal(most[..., None], SIZES, out=mask[:, 1:].reshape(self.batch, self.wards, 3))
        return mask

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One ward's choice ``action[B]`` each; on the last turn ``uniforms[B, W*W+W]`` start the next epoch."""
        turn = self.time % self.wards
        who = np.flatnonzero(action)
        sender, number = (action[who] - 1) // 3, np.array(SIZES, np.int32)[(action[who] - 1) % 3]
        self.queue[who, sender] -= number
        self.ward[who, sender, turn] += number
        self.moved[who, sender, turn] += number
        self.free[who, turn] -= number
        self.time += 1
        self.rooms[:, turn, IS_TURN] = 0
        self.rooms[:, self.time % self.wards, IS_TURN] = 1
        if turn < self.wards - 1:
            self.classes[..., DECIDED], self.rooms[..., DECIDED] = self.moved.sum(2) / 8, self.moved.sum(1) / -8
            self._show()
            self._show_clock()
            return np.zeros(self.batch, np.float32), {}
        charged = self.over * self.moved
        holding, overflow = np.einsum("bw,bw->b", self.hold, self.queue), charged.sum((1, 2))
        occupied = self.ward.sum((1, 2))
        info = {
            "waiting": self.queue.sum(1),
            "overflowed": self.moved.sum((1, 2)),
            "in_beds": occupied,
            "off_service": occupied - np.einsum("bww->b", self.ward),
            "free_beds": self.free.sum(1),
            "holding_cost": holding,
            "overflow_cost": overflow,
        }
        for rows, axis in ((self.classes, 2), (self.rooms, 1)):
            rows[..., UNIT_COST] = charged.sum(axis) / np.maximum(self.moved.sum(axis), 1) / 40
            rows[..., DECIDED] = 0
        epoch = self.time // self.wards % self.epochs
        draws = uniforms[:, : self.wards**2].reshape(self.ward.shape)
        left = binomial_counts(draws, self.ward, self.stay[epoch], self.odds[epoch])
        came = (uniforms[:, self.wards**2 :, None] > self.arrivals[epoch]).sum(-1, dtype=np.int32)
        np.minimum(came, 15, out=came)
        self.ward -= left
        self.queue += came
        self.free += left.sum(1, dtype=np.int32)
        admitted = np.minimum(self.queue, self.free)
        self.queue -= admitted
        self.free -= admitted
        self.ward[:, self.diagonal, self.diagonal] += admitted
        dropped = np.maximum(self.queue - ROOM, 0)
        self.queue -= dropped
        self.moved[:] = 0
        self.classes[..., OUTFLOW], self.rooms[..., OUTFLOW] = left.sum(2) / 8, left.sum(1) / 8
        self.classes[..., ARRIVED] = self.rooms[..., ARRIVED] = came / 8
        reward = -(holding + overflow)
        self.table[..., LAST_REWARD] = np.maximum(reward / 10, -10)[:, None]
        self._show()
        self._show_clock()
        info |= {"arrived": came.sum(1), "discharged": left.sum((1, 2)), "dropped": dropped.sum(1)}
        return reward, info | {"expected_reward": reward}

    def tokens(self) -> np.ndarray:
        """``f32[B, 2W+1, columns]``, a view that the next step overwrites."""
        return self.table
