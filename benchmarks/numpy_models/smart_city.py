"""Signals on a 2 x 2 grid in NumPy: the independent models of ``envs_jax.domains.smart_city``.

Written from the equations (docs/domains/smart_city.md), not from the JAX code. ``LoopModel`` is one city in plain
Python loops and float64 that thinks in compass sides and follows every flow from approach to approach; ``BatchModel``
is a batch of cities in float32 that share a clock and follows the eight inner roads by index tables. Both take the
parameters by name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.numpy_models.inversion import binomial, binomial_cdf, poisson, poisson_cdf
from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

CYCLE = (0, 0, 0, 1, 2, 2, 2, 3)
URGENCY, SLACK, DEMAND, LEVEL, INFLOW, OUTFLOW, WAITING, AGE = columns(
    "urgency", "slack", "role_demand", "level", "inflow", "outflow", "waiting", "age"
)
IS_TURN, DECIDED, SIN, COS, PROGRESS, LAST_REWARD = columns(
    "is_turn", "decided", "cycle_sin", "cycle_cos", "progress", "last_reward"
)
ROADS_AHEAD, SIDES_APART = columns("private_a", "private_b")
NORTH, EAST, SOUTH, WEST = range(4)
# Who lies beyond a compass side of NW, NE, SE, SW.
NEIGHBOUR = {
    (0, EAST): 1,
    (0, SOUTH): 3,
    (1, SOUTH): 2,
    (1, WEST): 0,
    (2, WEST): 3,
    (2, NORTH): 1,
    (3, NORTH): 0,
    (3, EAST): 2,
}


class LoopModel(numpy_model.LoopModel):
    """One city. ``params``: the leaves of SmartCityParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 48) -> None:
        self.demand, self.saturation, self.occupancy = (
            np.asarray(params[k], float).tolist() for k in ("demand", "saturation", "occupancy")
        )
        self.left, self.right, self.lost = (float(params[k]) for k in ("left_share", "right_share", "lost"))
        self.start, self.num_periods = int(params["start_queue"]), num_periods

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[32]`` draw the queues, by intersection, side clockwise from its first outer one, lane."""
        self.x = {}
        for i in range(4):
            for r in range(4):
                for lane in range(2):
                    u = float(uniforms[8 * i + 2 * r + lane])
                    self.x[i, (i + r) % 4, lane] = min(int(u * (self.start + 1)), self.start)
        self.time, self.last_reward = 0, 0.0
        self.green = [self.planned(i) for i in range(4)]
        self.chosen = list(self.green)
        self.red = [[0] * 4 for _ in range(4)]
        self.passed, self.joined = dict.fromkeys(self.x, 0), dict.fromkeys(self.x, 0)

    def planned(self, i: int) -> int:
        """The plan's phase now."""
        return CYCLE[(self.time // 4 + (4 if i % 2 else 0)) % 8]

    def action_mask(self) -> np.ndarray:
        """``bool[4]``: every phase is always allowed."""
        return np.ones(4, bool)

    @staticmethod
    def lanes(i: int, phase: int) -> list[tuple[int, int, int]]:
        """The two movements (intersection, compass side, lane) that a phase serves, first side first."""
        return [(i, (i + phase // 2 + opposite) % 4, phase % 2) for opposite in (0, 2)]

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One choice; on the slot's last turn ``uniforms[40]`` move the traffic."""
        turn = self.time % 4
        self.chosen[turn] = (self.planned(turn) + int(action)) % 4
        if turn < 3:
            self.time += 1
            return 0.0, {}
        u = [float(v) for v in uniforms]
        self.passed, self.joined = dict.fromkeys(self.x, 0), dict.fromkeys(self.x, 0)
        reaching: dict[tuple[int, int], int] = {}
        exited = switches = arrived = 0
        for i in range(4):
            phase = self.chosen[i]
            switched = phase != self.green[i]
            switches += switched
            rate = self.saturation[i][phase] * (1.0 - (self.lost if switched else 0.0))
            for which, (_, side, lane) in enumerate(self.lanes(i, phase)):
                passing = min(self.x[i, side, lane], math.floor(rate + u[2 * i + which]))
                self.passed[i, side, lane] = passing
                if lane == 1:
                    flows = {(side + 1) % 4: passing}
                else:
                    turning = binomial(u[8 + 2 * i + which], passing, self.right)
                    flows = {(side + 2) % 4: passing - turning, (side + 3) % 4: turning}
                for exit_side, vehicles in flows.items():
                    if (i, exit_side) in NEIGHBOUR:
                        entry = (NEIGHBOUR[i, exit_side], (exit_side + 2) % 4)
                        reaching[entry] = reaching.get(entry, 0) + vehicles
                    else:
                        exited += vehicles
        for i in range(4):
            for r in range(4):
                side = (i + r) % 4
                if (i, side) in NEIGHBOUR:
                    total = reaching.get((i, side), 0)
                    turning = binomial(u[16 + 2 * i + r - 1], total, self.left)
                    self.joined[i, side, 0], self.joined[i, side, 1] = total - turning, turning
                else:
                    for lane, share in enumerate((1.0 - self.left, self.left)):
                        draw = u[24 + 4 * i + 2 * (r // 3) + lane]
                        self.joined[i, side, lane] = poisson(draw, self.demand[side] * share, 14)
                        arrived += self.joined[i, side, lane]
        persons = 0.0
        for i in range(4):
            for phase in range(4):
                self.red[i][phase] = 0 if phase == self.chosen[i] else self.red[i][phase] + 1
                for m in self.lanes(i, phase):
                    self.x[m] += self.joined[m] - self.passed[m]
                    persons += self.occupancy[i][phase] * self.x[m]
        self.green = list(self.chosen)
        self.time += 1
        self.last_reward = -persons / 32.0
        info = {"queue": sum(self.x.values()), "persons": persons, "arrived": arrived, "exited": exited}
        return self.last_reward, {name: float(v) for name, v in info.items()} | {"switches": float(switches)}

    def tokens(self) -> np.ndarray:
        """``f32[16, columns]``: the phases of NW, then NE, SE, SW."""
        out = np.zeros((16, NUM_TOKEN_FEATURES), np.float32)
        turn = self.time % 4
        for i in range(4):
            for phase in range(4):
                row, lanes = out[4 * i + phase], self.lanes(i, phase)
                first, second = (self.x[m] for m in lanes)
                waiting = first + second
                beyond = 0
                for _, side, lane in lanes:
                    exit_side = (side + 2 - lane) % 4
                    if (i, exit_side) in NEIGHBOUR:
                        road = NEIGHBOUR[i, exit_side], (exit_side + 2) % 4
                        beyond += self.x[*road, 0] + self.x[*road, 1]
                row[[URGENCY, SLACK, DEMAND]] = waiting, 10.0 / (waiting + 10.0), 1.0
                row[LEVEL], row[IS_TURN] = phase == self.green[i], phase == self.green[i] and i == turn
                joined, passed = (sum(flow[m] for m in lanes) for flow in (self.joined, self.passed))
                row[INFLOW], row[OUTFLOW] = joined / 10.0, passed / 10.0
                row[ROADS_AHEAD], row[WAITING] = min(beyond / 20.0, 10.0), min(waiting / 20.0, 10.0)
                row[AGE] = min(self.red[i][phase] / 16.0, 1.0)
                row[SIDES_APART] = min(max((first - second) / 20.0, -10.0), 10.0)
                if i < turn:
                    row[DECIDED] = 1.0 if self.chosen[i] == phase else -1.0
        angle = 2.0 * math.pi * (self.time // 4) / 8.0
        out[:, SIN], out[:, COS] = math.sin(angle), math.cos(angle)
        out[:, PROGRESS] = min(self.time / (4 * self.num_periods), 1.0)
        out[:, LAST_REWARD] = min(max(self.last_reward / 8.0, -10.0), 10.0)
        return relative(out)


# BatchModel numbers the queues 8 i + 2 r + lane, r clockwise from the intersection's first outer side.
_QUEUES = np.array(
    [[[8 * i + 2 * (phase // 2 + opposite) + phase % 2 for opposite in (0, 2)] for phase in range(4)] for i in range(4)]
)


def _exit(i: int, r: int) -> int:
    """Where leaving i by its side r leads: number of the road 4 j + r', or 16 for outside."""
    beyond = NEIGHBOUR.get((i, (i + r) % 4))
    return 16 if beyond is None else 4 * beyond + (i + r + 2 - beyond) % 4


_ROAD = np.array([[_exit(i, r % 4) for r in range(4)] for i in range(4)])
# By intersection, phase and its first or second side: the road of those who go straight or left, and of who turn right.
_MAIN, _RIGHT = (
    np.array(
        [
            [
                [_ROAD[i, (phase // 2 + opposite + (turn if turn == 3 else 2 - phase % 2)) % 4] for opposite in (0, 2)]
                for phase in range(4)
            ]
            for i in range(4)
        ]
    )
    for turn in (2, 3)
)
_INNER = np.array([4 * i + r for i in range(4) for r in (1, 2)])
_OUTER = np.array([4 * i + r for i in range(4) for r in (0, 3)])
_SIDE = np.array([(i + r) % 4 for i in range(4) for r in (0, 3)])


class BatchModel(numpy_model.BatchModel):
    """``B`` cities in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 48) -> None:
        given = {name: np.asarray(value, np.float32) for name, value in params.items()}
        self.batch, self.num_periods = len(given["lost"]), num_periods
        self.start, self.saturation, self.lost = given["start_queue"], given["saturation"], given["lost"][:, None]
        self.occupancy = given["occupancy"].reshape(self.batch, 16)
        left, right = given["left_share"], given["right_share"]
        rate = given["demand"][:, _SIDE, None] * np.stack([1 - left, left], axis=-1)[:, None]  # [B, 8, lane]
        self.arrival_cdf = poisson_cdf(rate, 14).astype(np.float32)
        self.left_cdf, self.right_cdf = (binomial_cdf(share, 8).astype(np.float32) for share in (left, right))
        self.rows = np.arange(self.batch)[:, None]
        self.table = np.zeros((self.batch, 16, NUM_TOKEN_FEATURES), np.float32)
        self.table[..., DEMAND] = 1

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, 32]`` draw the queues."""
        start = self.start[:, None]
        self.x = np.minimum(uniforms * (start + 1), start).astype(np.int32)
        self.time = 0
        self.green = np.broadcast_to(self.planned(), (self.batch, 4)).copy()
        self.chosen = self.green.copy()
        self.red = np.zeros((self.batch, 4, 4), np.int32)
        for column in (INFLOW, OUTFLOW, AGE, DECIDED, SIN, PROGRESS, LAST_REWARD):
            self.table[..., column] = 0
        self.table[..., COS] = 1
        self._show()
        self._turn()

    def planned(self) -> np.ndarray:
        """The plan's phases now, ``[4]``."""
        return np.array([CYCLE[(self.time // 4 + 4 * (i % 2)) % 8] for i in range(4)])

    def action_mask(self) -> np.ndarray:
        """``bool[B, 4]``."""
        return np.ones((self.batch, 4), bool)

    def _show(self) -> None:
        """Queues and greens, at the start of a slot."""
        first, second = self.x[:, _QUEUES[..., 0]], self.x[:, _QUEUES[..., 1]]  # [B, i, phase]
        waiting = (first + second).reshape(self.batch, 16)
        roads = np.concatenate([self.x[:, ::2] + self.x[:, 1::2], np.zeros((self.batch, 1), np.int32)], axis=1)
        beyond = roads[:, _MAIN].sum(-1).reshape(self.batch, 16)
        self.table[..., URGENCY] = waiting / np.maximum(waiting.max(1, keepdims=True), 1)
        self.table[..., SLACK] = np.float32(10) / (waiting + np.float32(10))
        self.table[..., WAITING] = np.minimum(waiting / np.float32(20), 10)
        self.table[..., ROADS_AHEAD] = np.minimum(beyond / np.float32(20), 10)
        self.table[..., SIDES_APART] = np.clip((first - second).reshape(self.batch, 16) / np.float32(20), -10, 10)
        self.table[..., LEVEL] = (self.green[..., None] == np.arange(4)).reshape(self.batch, 16)

    def _turn(self) -> None:
        """Marks what is green now at the intersection in turn."""
        turn = self.time % 4
        self.table[..., IS_TURN] = 0
        self.table[self.rows[:, 0], 4 * turn + self.green[:, turn], IS_TURN] = 1

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One choice ``action[B]`` each; on the slot's last turn ``uniforms[B, 40]`` move the traffic."""
        turn = self.time % 4
        phase = (self.planned()[turn] + action) % 4
        self.chosen[:, turn] = phase
        self.table[:, 4 * turn : 4 * turn + 4, DECIDED] = np.where(phase[:, None] == np.arange(4), 1, -1)
        self.time += 1
        self.table[..., PROGRESS] = min(self.time / (4 * self.num_periods), 1.0)
        if turn < 3:
            self._turn()
            return np.zeros(self.batch, np.float32), {}
        city = np.arange(4)
        switched = self.chosen != self.green
        rate = np.take_along_axis(self.saturation, self.chosen[..., None], -1)[..., 0] * (1 - self.lost * switched)
        queues = _QUEUES[city, self.chosen].reshape(self.batch, 8)  # green queues, two an intersection
        most = np.floor(np.repeat(rate, 2, axis=1) + uniforms[:, :8]).astype(np.int32)
        passed = np.minimum(self.x[self.rows, queues], most)
        right = (uniforms[:, 8:16, None] > self.right_cdf[self.rows, passed]).sum(-1)
        right[np.repeat(self.chosen % 2 == 1, 2, axis=1)] = 0
        reaching = np.zeros((self.batch, 17), np.int32)
        # Only one green queue leads to any one road, but several lead outside.
        for vehicles, roads in ((passed - right, _MAIN), (right, _RIGHT)):
            to = roads[city, self.chosen].reshape(self.batch, 8)
            np.add.at(reaching, (self.rows, to), vehicles)
        entering = reaching[:, _INNER]
        left = (uniforms[:, 16:24, None] > self.left_cdf[self.rows, entering]).sum(-1)
        draws = uniforms[:, 24:].reshape(self.batch, 8, 2, 1)
        outside = (draws > self.arrival_cdf).sum(-1)
        by_road = np.zeros((self.batch, 16, 2), np.int32)
        by_road[:, _INNER, 0], by_road[:, _INNER, 1] = entering - left, left
        by_road[:, _OUTER] = outside
        joined = by_road.reshape(self.batch, 32)
        self.x += joined
        self.x[self.rows, queues] -= passed
        waiting = self.x[:, _QUEUES].sum(-1).reshape(self.batch, 16)
        persons = np.einsum("bp,bp->b", self.occupancy, waiting.astype(np.float32))
        reward = -persons / 32
        info = {
            "queue": waiting.sum(1),
            "persons": persons,
            "arrived": outside.sum((1, 2)),
            "exited": reaching[:, 16],
            "switches": switched.sum(1),
        }
        self.green[:] = self.chosen
        is_green = self.chosen[..., None] == np.arange(4)
        self.red += 1
        self.red[is_green] = 0
        outflow = (is_green * passed.reshape(self.batch, 4, 2).sum(-1)[..., None]).reshape(self.batch, 16)
        self.table[..., OUTFLOW] = outflow / np.float32(10)
        inflow = joined[:, _QUEUES].sum(-1).reshape(self.batch, 16)
        self.table[..., INFLOW] = inflow / np.float32(10)
        self.table[..., AGE] = np.minimum(self.red.reshape(self.batch, 16) / np.float32(16), 1)
        self.table[..., DECIDED] = 0
        angle = 2 * math.pi * (self.time // 4) / 8
        self.table[..., SIN], self.table[..., COS] = math.sin(angle), math.cos(angle)
        self.table[..., LAST_REWARD] = np.clip(reward / 8, -10, 10)[:, None]
        self._show()
        self._turn()
        return reward, info

    def tokens(self) -> np.ndarray:
        """``f32[B, 16, columns]``, a view that the next step overwrites."""
        return self.table
