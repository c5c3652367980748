"""Job scheduling in NumPy: the independent models of ``envs_jax.domains.cloud_scheduling``.

Written from the equations (docs/domains/cloud_scheduling.md), not from the JAX code. ``LoopModel`` is one cluster as a
simulation of events with lists of jobs, and can follow DeepRM's rules too; ``BatchModel`` is a batch of clusters that
share a clock. Both take the parameters by name and the uniforms from outside, so that they can be fed the very draws of
another implementation.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

UNITS, LONGEST, HORIZON = 10, 15, 20
SUPPOSED = 4  # ticks that a job of unknown duration is taken to last
URGENCY, SLACK, DEMAND, STORE, CLOCK = columns("urgency", "slack", "role_demand", "role_store", "role_clock")
LEVEL, CAPACITY, OUTFLOW, WAITING, AGE = columns("level", "capacity", "outflow", "waiting", "age")
IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns("is_turn", "decided", "progress", "last_reward")
ELAPSED, CHANGE, NEED_0, NEED_1, DURATION, MEAN_NEED = columns(*(f"private_{letter}" for letter in "abcdef"))
FIRST, SECOND = NEED_0, NEED_1  # which resource it is
(ARRIVING,) = columns("private_a")


@dataclasses.dataclass(eq=False)
class Job:
    """What one job needs and for how long; ``finish`` is None until it is started."""

    need: list[int]
    kind: int
    duration: int
    entered: int
    begun: int = -1
    finish: int | None = None


class LoopModel(numpy_model.LoopModel):
    """One cluster. ``params``: the leaves of CloudSchedulingParams by name, unbatched.

    With ``deeprm`` all kinds share the slots, durations are known, a picked job is booked into the first window of
    ``HORIZON`` ticks in which it fits, and finished jobs leave the list of running ones as in the published code.
    """

    def __init__(
        self,
        params: dict[str, np.ndarray],
        num_periods: int = 64,
        num_picks: int = 2,
        num_arrivals: int = 48,
        deeprm: bool = False,
    ) -> None:
        self.params = {name: np.asarray(value) for name, value in params.items()}
        self.kinds, self.resources = len(self.params["shortest"]), len(self.params["dominance"])
        self.num_periods, self.num_picks, self.num_arrivals = num_periods, num_picks, num_arrivals
        self.deeprm = deeprm

    def reset(self, uniforms: np.ndarray) -> None:
        """An empty cluster; nothing is drawn."""
        del uniforms
        self.slots: list[Job | None] = [None] * self.kinds
        self.backlog: list[Job] = []
        self.machine: list[Job] = []
        self.ended: list[Job] = []
        self.leaving: list[Job] = []
        self.entering: Job | None = None
        self.picked: list[int] = []
        self.time, self.last_reward = 0, 0.0

    @property
    def now(self) -> int:
        """The current tick."""
        return self.time // self.num_picks

    def unused(self, tick: int) -> list[int]:
        """Units of every resource that nobody holds during ``tick``."""
        held = [job for job in self.machine if job.finish is not None and job.begun <= tick < job.finish]
        return [UNITS - sum(job.need[r] for job in held) for r in range(self.resources)]

    def delay(self, job: Job | None) -> int | None:
        """Ticks until the job would start if it were picked now; None if it cannot be picked."""
        if job is None:
            return None
        waits, length = (range(HORIZON - job.duration), job.duration) if self.deeprm else (range(1), 1)
        ahead = [self.unused(self.now + i) for i in range(HORIZON if self.deeprm else 1)]
        fits = [all(need <= room for need, room in zip(job.need, left, strict=True)) for left in ahead]
        return next((wait for wait in waits if all(fits[wait : wait + length])), None)

    def action_mask(self) -> np.ndarray:
        """``bool[M+1]``: slots whose job can be picked; the last action, to pick nothing, always."""
        return np.array([self.delay(job) is not None for job in self.slots] + [True])

    def step(self, action: int, uniforms: np.ndarray | None) -> tuple[float, dict[str, float]]:
        """One pick; after the tick's last one ``uniforms[4+R]`` move the cluster."""
        job = self.slots[action] if action < self.kinds else None
        wait = self.delay(job)
        if job is not None and wait is not None:
            job.begun = self.now + wait
            job.finish = job.begun + job.duration
            self.machine.append(job)
            self.picked.append(job.kind)
            after = next((other for other in self.backlog if self.deeprm or other.kind == job.kind), None)
            self.slots[action] = after
            if after is not None:
                self.backlog.remove(after)
        self.time += 1
        if self.time % self.num_picks:
            return 0.0, {}
        assert uniforms is not None
        return self.tick([float(u) for u in uniforms])

    def tick(self, u: list[float]) -> tuple[float, dict[str, float]]:
        """Jobs leave, one may enter, everybody present pays one over the own duration."""
        self.picked = []
        self.leaving = [job for job in self.machine if job.finish == self.now]
        self.ended += self.leaving
        if self.deeprm:
            for job in self.machine:  # removing from the list in hand skips its next job, as in the published code
                if job.finish is not None and job.finish <= self.now:
                    self.machine.remove(job)
        else:
            self.machine = [job for job in self.machine if job not in self.leaving]
        self.entering = None
        if self.now <= self.num_arrivals and u[0] < np.float32(self.params["arrival_rate"]):
            self.entering = self.draw(u)
            mine = range(self.kinds) if self.deeprm else [self.entering.kind]
            empty = [m for m in mine if self.slots[m] is None]
            if empty:
                self.slots[empty[0]] = self.entering
            else:
                self.backlog.append(self.entering)
        queue = self.waiting()
        self.last_reward = -sum(1.0 / job.duration for job in [*self.machine, *queue])
        free = self.unused(self.now)
        return self.last_reward, {
            "arrived": float(self.entering is not None),
            "finished": float(len(self.leaving)),
            "waiting": float(len(queue)),
            "running": float(len(self.running())),
            "slowdown": sum((self.now - job.entered) / job.duration for job in self.leaving),
            "utilisation": 1.0 - sum(free) / (UNITS * self.resources),
        }

    def draw(self, u: list[float]) -> Job:
        """A job from its uniforms."""

        def index(share: np.ndarray, uniform: float) -> int:
            total = np.float32(0.0)
            for i, one in enumerate(share):
                total += one
                if uniform <= total:
                    return i
            return len(share) - 1

        def between(low: int, high: int, uniform: float) -> int:
            return low + min(int(np.float32(uniform) * np.float32(high - low + 1)), high - low)

        p = self.params
        kind, most = index(p["kind_share"], u[1]), index(p["dominance"], u[3])
        need = []
        for r in range(self.resources):
            law = "dominant" if r == most else "other"
            need.append(between(int(p[f"{law}_low"]), int(p[f"{law}_high"]), u[4 + r]))
        duration = between(int(p["shortest"][kind]), int(p["longest"][kind]), u[2])
        return Job(need, kind, duration, entered=self.now)

    def waiting(self) -> list[Job]:
        """Jobs that have not been picked."""
        return [job for job in self.slots if job is not None] + self.backlog

    def running(self) -> list[Job]:
        """Jobs that have been picked and have not finished."""
        return [job for job in self.machine if job.finish is not None and job.finish > self.now]

    def tokens(self) -> np.ndarray:
        """``f32[M+R+1, columns]``: queues, resources, clock."""
        out = np.zeros((self.kinds + self.resources + 1, NUM_TOKEN_FEATURES), np.float32)
        free = self.unused(self.now)
        total = [0] * self.resources
        for m, job in enumerate(self.slots):
            row = out[m]
            row[DEMAND] = 1.0
            kind = m
            if self.deeprm:
                kind = job.kind if job is not None else 0
                row[DURATION] = job.duration / LONGEST if job is not None else 0.0
            own = [j.duration for j in self.leaving if j.kind == kind]
            if not self.deeprm and own:
                row[DURATION] = sum(own) / len(own) / LONGEST
            queue = sum(j.kind == kind for j in self.waiting())
            active = [j for j in self.running() if j.kind == kind]
            row[WAITING], row[SLACK] = queue / 16.0, float(job is None)
            if job is not None:
                row[URGENCY] = 1.0 / (LONGEST * row[DURATION] if row[DURATION] > 0 else SUPPOSED)
            row[LEVEL], row[OUTFLOW] = len(active) / 4.0, len(own) / 4.0
            # Of those started in this tick nothing has elapsed, nor of those booked for later.
            old = [self.now - j.begun for j in active if j.begun < self.now]
            row[ELAPSED] = max(old) / LONGEST if old else 0.0
            entered = self.entering is not None and self.entering.kind == kind
            row[CHANGE] = (int(entered) - len(own)) / 4.0
            row[DECIDED] = self.picked.count(kind) / self.num_picks
            if job is None:
                continue
            total = [a + b for a, b in zip(total, job.need, strict=True)]
            row[AGE] = (self.now - job.entered) / self.num_periods
            row[NEED_0] = job.need[0] / UNITS
            row[NEED_1] = job.need[1] / UNITS if self.resources > 1 else 0.0
            row[MEAN_NEED] = sum(job.need) / UNITS / self.resources
        for r in range(self.resources):
            row = out[self.kinds + r]
            row[STORE], row[CAPACITY] = 1.0, UNITS
            row[SLACK], row[LEVEL] = free[r] / UNITS, 1.0 - free[r] / UNITS
            row[WAITING] = total[r] / UNITS / self.kinds
            row[FIRST], row[SECOND] = float(r == 0), float(r == 1)
        row = out[-1]
        row[[CLOCK, IS_TURN]] = 1.0
        row[WAITING], row[LEVEL] = len(self.waiting()) / 16.0, len(self.running()) / 4.0
        row[ARRIVING] = float(self.now < self.num_arrivals)
        row[DECIDED] = self.time % self.num_picks / self.num_picks
        out[:, PROGRESS] = self.time / (self.num_periods * self.num_picks)
        out[:, LAST_REWARD] = max(self.last_reward / 5.0, -10.0)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` clusters in lockstep. ``params`` have a leading axis B; arrays are updated in place.

    A cluster is a table of jobs with one row for every tick at which one can arrive; the benchmark's rules only.
    """

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 64, num_picks: int = 2, num_arrivals: int = 48
    ) -> None:
        self.given = {name: np.asarray(value) for name, value in params.items()}
        self.batch, self.kinds = self.given["shortest"].shape
        self.resources = self.given["dominance"].shape[1]
        self.num_periods, self.num_picks, self.num_arrivals = num_periods, num_picks, num_arrivals
        self.share = np.cumsum(self.given["kind_share"], axis=1, dtype=np.float32)[:, :-1]
        self.dominance = np.cumsum(self.given["dominance"], axis=1, dtype=np.float32)[:, :-1]
        self.all = np.arange(self.batch)

    def reset(self, uniforms: np.ndarray) -> None:
        """Empty clusters; nothing is drawn."""
        del uniforms
        b, m, r, jobs = self.batch, self.kinds, self.resources, self.num_arrivals
        self.time = self.now = 0
        # Jobs of each kind in order of arrival: kind m's i-th job is in row order[:, m, i].
        self.order = np.zeros((b, m, jobs), np.int16)
        self.came, self.gone = np.zeros((b, m), np.int16), np.zeros((b, m), np.int16)
        self.need = np.zeros((b, jobs, r), np.int8)
        self.kind, self.duration = np.zeros((b, jobs), np.int8), np.ones((b, jobs), np.int8)
        self.finish = np.full((b, jobs), 32_000, np.int16)
        self.cost, self.inside = np.zeros((b, jobs), np.float32), np.zeros((b, jobs), bool)
        self.free = np.full((b, r), UNITS, np.int8)
        self.running, self.picked = np.zeros((b, m), np.int8), np.zeros((b, m), np.int8)
        self.head, self.offers = np.zeros((b, m), np.int16), np.zeros((b, m), bool)
        self.ask = np.zeros((b, m, r), np.int8)
        self.table = np.zeros((b, m + r + 1, NUM_TOKEN_FEATURES), np.float32)
        self.queues, self.stores, self.clock = self.table[:, :m], self.table[:, m:-1], self.table[:, -1]
        self.queues[..., DEMAND] = self.stores[..., STORE] = self.stores[..., CAPACITY] = self.clock[:, CLOCK] = 1
        self.clock[:, IS_TURN] = self.clock[:, ARRIVING] = 1
        self.stores[:, 0, FIRST] = 1
        self.stores[:, 1:2, SECOND] = 1
        self._show()

    def action_mask(self) -> np.ndarray:
        """``bool[B, M+1]``."""
        return self.mask

    def _show(self) -> None:
        """Refreshes what a pick or a tick changes."""
        left = (self.free[:, None] - self.ask).min(2)
        may = self.offers & (left >= 0)
        self.mask = np.concatenate([may, np.ones((self.batch, 1), bool)], axis=1)
        waiting = self.came - self.gone
        q, s, c = self.queues, self.stores, self.clock
        q[..., URGENCY] = (waiting > 0) / np.where(q[..., DURATION] > 0, q[..., DURATION], SUPPOSED / LONGEST)
        q[..., WAITING], q[..., SLACK] = waiting * np.float32(1 / 16), waiting == 0
        q[..., LEVEL], q[..., DECIDED] = self.running * np.float32(0.25), self.picked / np.float32(self.num_picks)
        q[..., AGE] = np.where(self.offers, (self.now - 1 - self.head) / np.float32(self.num_periods), 0)
        q[..., NEED_0 : NEED_0 + min(self.resources, 2)] = self.ask[..., :2] * np.float32(1 / UNITS)
        q[..., MEAN_NEED] = self.ask.sum(2) * np.float32(1 / (UNITS * self.resources))
        free = self.free * np.float32(1 / UNITS)
        s[..., SLACK], s[..., LEVEL] = free, 1 - free
        s[..., WAITING] = self.ask.sum(1, dtype=np.int16) * np.float32(1 / (UNITS * self.kinds))
        c[:, WAITING], c[:, LEVEL] = waiting.sum(1) * np.float32(1 / 16), self.running.sum(1) * np.float32(0.25)
        c[:, DECIDED] = self.time % self.num_picks / self.num_picks
        self.table[..., PROGRESS] = self.time / (self.num_periods * self.num_picks)
        relative(self.table)

    def _offer(self, rows: np.ndarray, kinds: np.ndarray) -> None:
        """Looks up the heads of the queues ``kinds`` of clusters ``rows``."""
        at = self.gone[rows, kinds]
        some = at < self.came[rows, kinds]
        head = self.order[rows, kinds, np.minimum(at, self.num_arrivals - 1)]
        self.head[rows, kinds], self.offers[rows, kinds] = head, some
        self.ask[rows, kinds] = np.where(some[:, None], self.need[rows, head], 0)

    def step(self, action: np.ndarray, uniforms: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One pick ``action[B]`` each; after the tick's last one ``uniforms[B, 4+R]`` move the clusters."""
        rows = np.flatnonzero(self.mask[self.all, action] & (action < self.kinds))
        kinds = action[rows]
        job = self.head[rows, kinds]
        self.finish[rows, job] = self.now + self.duration[rows, job]
        self.free[rows] -= self.need[rows, job]
        self.gone[rows, kinds] += 1
        self.running[rows, kinds] += 1
        self.picked[rows, kinds] += 1
        self._offer(rows, kinds)
        self.time += 1
        reward = np.zeros(self.batch, np.float32)
        info: dict[str, np.ndarray] = {}
        if self.time % self.num_picks == 0:
            assert uniforms is not None
            reward, info = self._tick(uniforms)
        self._show()
        return reward, info

    def _tick(self, u: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        self.now += 1
        self.picked[:] = 0
        rows, job = np.nonzero(self.finish == self.now)
        kinds, ticks = self.kind[rows, job], self.duration[rows, job]
        self.inside[rows, job] = False
        left, spent, slowdown = (np.zeros(self.running.shape, np.float32) for _ in range(3))
        np.add.at(left, (rows, kinds), 1)
        np.add.at(spent, (rows, kinds), ticks)
        np.add.at(slowdown, (rows, kinds), (self.now - 1 - job) / ticks)
        np.add.at(self.free, rows, self.need[rows, job])
        self.running -= left.astype(np.int8)
        change = -left
        new = np.zeros(0, np.int64)
        if self.now <= self.num_arrivals:
            new = np.flatnonzero(u[:, 0] < self.given["arrival_rate"])
            change[new, self._arrive(new, u[new])] += 1
        # Starts have no order among jobs of a kind: the oldest is found over all that still run.
        begun = np.where((self.finish < 32_000) & self.inside, self.finish - self.duration, self.now)
        oldest = np.stack([np.where(self.kind == m, begun, self.now).min(1) for m in range(self.kinds)], axis=1)
        q = self.queues
        q[..., ELAPSED] = (self.now - oldest) * np.float32(1 / LONGEST)
        q[..., OUTFLOW], q[..., CHANGE] = left / 4, change / 4
        q[..., DURATION] = spent / np.maximum(left, 1) / LONGEST
        self.clock[:, ARRIVING] = float(self.now < self.num_arrivals)
        reward = -np.where(self.inside, self.cost, 0).sum(1)
        self.table[..., LAST_REWARD] = np.maximum(reward / 5, -10)[:, None]
        info = {
            "arrived": np.bincount(new, minlength=self.batch),
            "finished": left.sum(1),
            "waiting": (self.came - self.gone).sum(1),
            "running": self.running.sum(1),
            "slowdown": slowdown.sum(1),
            "utilisation": 1 - self.free.mean(1) / UNITS,
        }
        return reward, info

    def _arrive(self, new: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Adds a job to the clusters ``new``; its kind each."""
        row = self.now - 1
        kind = (u[:, 1, None] > self.share[new]).sum(1)
        most = (u[:, 3, None] > self.dominance[new]).sum(1)

        def between(low: np.ndarray, high: np.ndarray, uniform: np.ndarray) -> np.ndarray:
            span = (high - low + 1).astype(np.float32)
            return low + np.minimum(np.floor(uniform * span), span - 1).astype(np.int8)

        duration = between(self.given["shortest"][new, kind], self.given["longest"][new, kind], u[:, 2])
        needs = [
            between(self.given[f"{law}_low"][new, None], self.given[f"{law}_high"][new, None], u[:, 4:])
            for law in ("dominant", "other")
        ]
        self.need[new, row] = np.where(most[:, None] == np.arange(self.resources), *needs)
        self.kind[new, row], self.duration[new, row], self.inside[new, row] = kind, duration, True
        self.cost[new, row] = np.float32(1) / duration
        self.order[new, kind, self.came[new, kind]] = row
        self.came[new, kind] += 1
        self._offer(new, kind)
        return kind

    def tokens(self) -> np.ndarray:
        """``f32[B, M+R+1, columns]``, a view that the next step overwrites."""
        return self.table
