"""Job-shop dispatching in NumPy: the independent models of ``envs_jax.domains.manufacturing``.

Written from the equations (docs/domains/manufacturing.md), not from the JAX code: ``LoopModel`` is one shop in plain
Python loops and float64 that keeps a log of every operation, ``BatchModel`` a batch of shops in float32 that make their
choices in lockstep, each on its own clock. Both take the parameters by name and the uniforms from outside.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

STOPS = 2
MEAN_WEIGHT = 7 / 3  # of sampled tasks
URGENCY, SLACK, SUPPLIER, DEMAND, CLOCK, LEVEL = columns(
    "urgency", "slack", "role_supplier", "role_demand", "role_clock", "level"
)
OUTFLOW, WAITING, AGE, UNIT_VALUE, IS_TURN, PROGRESS, LAST_REWARD = columns(
    "outflow", "waiting", "age", "unit_value", "is_turn", "progress", "last_reward"
)
LATE, LEFT, LATER, OUTCOME, LABEL, SPEED = columns(*(f"private_{letter}" for letter in "abcdef"))  # of jobs
COUNT = BEHIND = LATE  # of machines, which show OUTCOME, LABEL and SPEED too; of the shop


def between(low: float, x: float, high: float) -> float:
    """``x``, not below ``low`` or above ``high``."""
    return min(max(x, low), high)


class LoopModel(numpy_model.LoopModel):
    """One shop. ``params``: the leaves of ManufacturingParams by name, unbatched.

    ``log`` lists every started operation: job, place in its route, machine, start, end [min].
    """

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 38) -> None:
        order = np.asarray(params["order"])
        self.jobs, self.machines = order.shape
        self.route = [[int(m) for m in np.argsort(row)] for row in order]
        nominal = np.asarray(params["nominal"], float)
        self.plan = [[float(nominal[j, m]) for m in self.route[j]] for j in range(self.jobs)]
        self.mean = sum(map(sum, self.plan)) / (self.jobs * self.machines)
        self.weight = np.asarray(params["weight"], float).tolist()
        self.due = np.asarray(params["due"], float).tolist()
        self.factor = np.asarray(params["factor"], float).tolist()
        self.share = np.asarray(params["repair_share"], float).tolist()
        self.repair, self.cv = float(params["repair_time"]), float(params["variation"])
        self.num_periods = num_periods
        self.max_holds = num_periods - self.jobs * self.machines

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[4 J M]`` draw how long every operation will take."""
        u = np.asarray(uniforms, float).reshape(2 + STOPS, self.jobs, self.machines)
        sd = math.sqrt(math.log(1.0 + self.cv**2))
        self.takes: list[list[float]] = []
        for j in range(self.jobs):
            row = []
            for plan, m in zip(self.plan[j], self.route[j], strict=True):
                running = plan * self.factor[m] * math.exp(sd * float(ndtri(u[0, j, m])) - sd * sd / 2.0)
                minutes = running
                if self.share[m] > 0.0:
                    mean = running * self.share[m] / (self.repair * (1.0 - self.share[m]))
                    none, one = math.exp(-mean), math.exp(-mean) * (1.0 + mean)
                    for i in range(int(u[1, j, m] > none) + int(u[1, j, m] > one)):
                        minutes -= self.repair * math.log(u[2 + i, j, m])
                row.append(minutes)
            self.takes.append(row)
        self.log: list[tuple[int, int, int, float, float]] = []
        self.t, self.before, self.holds, self.time, self.last_reward = 0.0, 0.0, self.max_holds, 0, 0.0
        self.bill = [0.0] * self.jobs

    def started(self, j: int) -> list[tuple[int, int, int, float, float]]:
        """The job's operations that were started, in order."""
        return [entry for entry in self.log if entry[0] == j]

    def when(self, j: int) -> float:
        """When the job's next operation finds the job and its machine free; inf if it has none left."""
        done = self.started(j)
        if len(done) == self.machines:
            return math.inf
        machine = self.route[j][len(done)]
        return max([0.0, *(e[4] for e in done), *(e[4] for e in self.log if e[2] == machine)])

    def action_mask(self) -> np.ndarray:
        """``bool[J+1]`` jobs that can be started now; holding always."""
        return np.array([*(self.when(j) <= self.t for j in range(self.jobs)), True])

    def step(self, action: int, uniforms: np.ndarray | None) -> tuple[float, dict[str, float]]:
        """One choice."""
        del uniforms
        legal = [j for j in range(self.jobs) if self.when(j) <= self.t]
        coming = [e[4] for e in self.log if e[4] > self.t]
        holding = action not in legal and bool(coming) and self.holds > 0
        if holding:
            self.holds -= 1
        elif legal:
            ends = {j: max([0.0, *(e[4] for e in self.started(j))]) for j in legal}
            j = int(action) if action in legal else min(legal, key=lambda j: (ends[j], j))
            k = len(self.started(j))
            self.log.append((j, k, self.route[j][k], self.t, self.t + self.takes[j][k]))
        at = min(self.when(j) for j in range(self.jobs))
        if math.isinf(at):
            at = max(e[4] for e in self.log)
        now = max(self.t, at, min(coming) if holding else 0.0)
        cost = 0.0
        for j in range(self.jobs):
            done = self.started(j)
            end = done[-1][4] if len(done) == self.machines else math.inf
            billed = self.weight[j] * (max(min(now, end) - self.due[j], 0) - max(min(self.t, end) - self.due[j], 0))
            self.bill[j] += billed
            cost += billed
        ended = [e for e in self.log if self.t < e[4] <= now]
        finished = [e for e in ended if e[1] == self.machines - 1]
        info = {
            "weighted_tardiness": cost,
            "minutes": now - self.t,
            "operations": float(len(ended)),
            "finished_jobs": float(len(finished)),
            "tardy_jobs": float(sum(e[4] > self.due[e[0]] for e in finished)),
            "holds": float(holding),
        }
        self.before, self.t, self.time = self.t, now, self.time + 1
        self.last_reward = -cost / self.mean
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[J+M+1, columns]``: jobs, machines, the shop."""
        out = np.zeros((self.jobs + self.machines + 1, NUM_TOKEN_FEATURES), np.float32)
        length, double, t = self.machines * self.mean, 2.0 * self.mean, self.t
        over = [e for e in self.log if e[4] <= t]
        label = [(2.0 * m + 1.0) / self.machines - 1.0 for m in range(self.machines)]
        speed, behind = [], 0
        for m in range(self.machines):
            own = [e for e in over if e[2] == m]
            actual = sum(e[4] - e[3] for e in own)
            speed.append(sum(self.plan[e[0]][e[1]] for e in own) / actual if own else 1.0)
            row = out[self.jobs + m]
            row[[SUPPLIER, SLACK, LABEL, COUNT, SPEED]] = 1, 1, label[m], len(own) / self.jobs, min(speed[m], 10)
        for j in range(self.jobs):
            row, done = out[j], self.started(j)
            row[DEMAND] = 1
            runs = bool(done) and done[-1][4] > t
            rest = list(zip(self.plan[j], self.route[j], strict=True))[len(done) :]
            left = max(done[-1][3] + self.plan[j][len(done) - 1] - t, 0.0) if runs else 0.0
            work = left + sum(p for p, _ in rest)
            if rest or runs:
                slack = (self.due[j] - t - work) / length
                behind += slack < 0
                row[LATE], row[SLACK] = between(0, -slack, 1), between(0, slack, 1)
            row[LEVEL], row[LEFT], row[LATER] = work / length, left / double, sum(p for p, _ in rest[1:]) / length
            late = max((t if rest or runs else done[-1][4]) - self.due[j], 0.0)
            price = self.bill[j] / late if late > 0 else MEAN_WEIGHT
            row[UNIT_VALUE] = min(price / 4.0, 10.0) if late > 0 else 0.0
            if rest:
                plan, m = rest[0]
                row[LABEL], row[SPEED] = label[m], min(speed[m], 10.0)
                if not runs:
                    row[URGENCY] = price * (1 - between(0, slack, 1))
                    row[WAITING] = plan / double
                    row[AGE] = min((t - (done[-1][4] if done else 0.0)) / length, 10.0)
                    out[self.jobs + m, WAITING] += plan / double
            if done:
                _, k, m, start, end = done[-1]
                machine = out[self.jobs + m]
                if runs:
                    row[AGE] = min((t - start) / length, 10.0)
                    machine[[SLACK, LEVEL, AGE]] = 0, left / double, min((t - start) / double, 10.0)
                elif end > self.before:
                    ratio = between(-10, math.log((end - start) / self.plan[j][k]), 10)
                    row[OUTFLOW], row[OUTCOME], machine[OUTFLOW], machine[OUTCOME] = 1, ratio, 1, ratio
        out[self.jobs : -1, WAITING] = np.minimum(out[self.jobs : -1, WAITING], 10)
        share = len(self.log) / (self.jobs * self.machines)
        out[-1, [CLOCK, IS_TURN, BEHIND]] = 1, 1, behind / self.jobs
        out[-1, [LEVEL, WAITING]] = self.holds / max(self.max_holds, 1), 1 - share
        out[:, PROGRESS] = min(self.time / self.num_periods, 1.0)
        out[:, LAST_REWARD] = between(-10, self.last_reward / 4.0, 10)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` shops. ``params`` have a leading axis B; arrays are float32.

    A job carries the number of its next machine; M, a machine that is free at infinity, once it has none left. What a
    job's n-th operation is, is looked up in tables by route.
    """

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 38) -> None:
        given = {name: np.asarray(value, np.float32) for name, value in params.items()}
        order = np.asarray(params["order"])
        self.batch, self.jobs, self.machines = order.shape
        b, j, m = self.batch, self.jobs, self.machines
        self.given, self.num_periods, self.max_holds = given, num_periods, num_periods - j * m
        self.due, self.weight = given["due"], given["weight"]
        self.mean = given["nominal"].mean((1, 2))
        self.length, self.double = (m * self.mean)[:, None], (2 * self.mean)[:, None]
        self.by_route = np.argsort(order, axis=2)
        none = np.full((b, j, 1), m)
        self.route = np.concatenate([none, self.by_route, none], axis=2)  # place 0: before the first operation
        plan = np.take_along_axis(given["nominal"], self.by_route, 2)
        zero = np.zeros((b, j, 1), np.float32)
        self.plan = np.concatenate([zero, plan, zero], axis=2)
        after = plan[..., ::-1].cumsum(2)[..., ::-1]
        self.rest = np.concatenate([after, zero], axis=2)  # planned minutes from the k-th operation on
        self.index, self.one = np.arange(b)[:, None], np.arange(b)
        self.label = np.append((2 * np.arange(m) + 1) / m - 1, 0).astype(np.float32)
        self.table = np.zeros((b, j + m + 1, NUM_TOKEN_FEATURES), np.float32)
        self.table[:, :j, DEMAND] = self.table[:, j:-1, SUPPLIER] = self.table[:, -1, CLOCK] = 1
        self.table[:, j:-1, LABEL] = self.label[:-1]
        self.table[:, -1, IS_TURN] = 1

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, 4 J M]`` draw how long every operation will take."""
        b, j, m, given = self.batch, self.jobs, self.machines, self.given
        u = np.asarray(uniforms, np.float32).reshape(b, 2 + STOPS, j, m)
        cv, repair = given["variation"][:, None, None], given["repair_time"][:, None, None]
        variance, share = np.log1p(cv * cv), given["repair_share"][:, None]
        shock = np.sqrt(variance) * ndtri(u[:, 0], dtype=np.float32) - variance / 2
        running = given["nominal"] * given["factor"][:, None] * np.exp(shock)
        mean = running * share / (repair * (1 - share))
        none = np.exp(-mean)
        stops = ((u[:, 1] > none) & (share > 0)).astype(np.int8) + ((u[:, 1] > none * (1 + mean)) & (share > 0))
        repairs = -repair * np.log(u[:, 2:].swapaxes(0, 1))
        takes = running + (stops > 0) * repairs[0] + (stops > 1) * repairs[1]
        zero = np.zeros((b, j, 1), np.float32)
        self.takes = np.concatenate([np.take_along_axis(takes, self.by_route, 2), zero], axis=2)
        self.k = np.zeros((b, j), np.int64)
        self.began, self.ready = np.zeros((b, j), np.float32), np.zeros((b, j), np.float32)
        self.free = np.zeros((b, m + 1), np.float32)
        self.free[:, m] = np.inf
        self.t, self.before, self.paid = (np.zeros(b, np.float32) for _ in range(3))
        self.worked, self.spent = np.zeros((b, m + 1), np.float32), np.zeros((b, m + 1), np.float32)
        self.count = np.zeros((b, m + 1), np.float32)
        self.bill = np.zeros((b, j), np.float32)
        self.holds, self.time = np.full(b, self.max_holds), 0
        self._look()

    def _look(self) -> None:
        """What is next, and when it can start."""
        self.next = np.take_along_axis(self.route, self.k[..., None] + 1, 2)[..., 0]
        self.when = np.maximum(self.ready, self.free[self.index, self.next])
        self.legal = self.when <= self.t[:, None]

    def action_mask(self) -> np.ndarray:
        """``bool[B, J+1]``."""
        return np.concatenate([self.legal, np.ones((self.batch, 1), bool)], axis=1)

    def step(self, action: np.ndarray, uniforms: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One choice ``action[B]`` each."""
        del uniforms
        job = np.minimum(action, self.jobs - 1)
        asked = (action < self.jobs) & self.legal[self.one, job]
        coming = self.ready > self.t[:, None]
        holding = ~asked & coming.any(1) & (self.holds > 0)
        next_end = np.where(coming & holding[:, None], self.ready, np.inf).min(1)
        longest = np.where(self.legal, self.ready, np.inf).argmin(1)
        job = np.where(asked, job, longest)
        (rows,) = np.nonzero(~holding & self.legal.any(1))
        jobs = job[rows]
        end = self.t[rows] + self.takes[rows, jobs, self.k[rows, jobs]]
        self.began[rows, jobs], self.ready[rows, jobs] = self.t[rows], end
        self.free[rows, self.next[rows, jobs]] = end
        self.k[rows, jobs] += 1
        self.holds = self.holds - holding
        self._look()
        at = self.when.min(1)
        at = np.where(np.isinf(at), self.ready.max(1), at)
        now = np.maximum(np.maximum(self.t, at), np.where(holding, next_end, 0)).astype(np.float32)
        completion = np.where(self.k == self.machines, self.ready, np.inf)
        late = [np.maximum(np.minimum(t[:, None], completion) - self.due, 0) for t in (self.t, now)]
        billed = self.weight * (late[1] - late[0])
        self.bill += billed
        cost = billed.sum(1)
        ended = (self.ready > self.t[:, None]) & (self.ready <= now[:, None])
        rows, jobs = np.nonzero(ended)
        places = self.k[rows, jobs]
        machines = self.route[rows, jobs, places]
        self.worked[rows, machines] += self.plan[rows, jobs, places]
        self.spent[rows, machines] += self.ready[rows, jobs] - self.began[rows, jobs]
        self.count[rows, machines] += 1
        finished = ended & (self.k == self.machines)
        info = {
            "weighted_tardiness": cost,
            "minutes": now - self.t,
            "operations": ended.sum(1).astype(np.float32),
            "finished_jobs": finished.sum(1).astype(np.float32),
            "tardy_jobs": (finished & (self.ready > self.due)).sum(1).astype(np.float32),
            "holds": holding.astype(np.float32),
        }
        self.before, self.t, self.time = self.t, now, self.time + 1
        self.legal = self.when <= now[:, None]
        self.paid = -cost / self.mean
        return self.paid, info

    def tokens(self) -> np.ndarray:
        """``f32[B, J+M+1, columns]``, a view that the next call overwrites."""
        j, t, length, double = self.jobs, self.t[:, None], self.length, self.double
        work, machines = self.table[:, :j], self.table[:, j:-1]
        place = self.k[..., None]
        last = np.take_along_axis(self.route, place, 2)[..., 0]
        plan = np.take_along_axis(self.plan, place, 2)[..., 0]
        rest = np.take_along_axis(self.rest, place, 2)[..., 0]
        first = np.take_along_axis(self.plan, place + 1, 2)[..., 0]
        runs, more = self.ready > t, self.k < self.machines
        open_, waits = runs | more, more & ~runs
        left = np.maximum(self.began + plan - t, 0) * runs
        slack = np.where(open_, (self.due - t - rest - left) / length, 0)
        work[..., LATE], work[..., SLACK] = np.clip(-slack, 0, 1), np.clip(slack, 0, 1)
        work[..., LEVEL], work[..., LEFT] = (rest + left) / length, left / double
        work[..., LATER] = (rest - first) / length
        work[..., WAITING] = first * waits / double
        work[..., AGE] = np.minimum((t - np.where(runs, self.began, self.ready)) * open_ / length, 10)
        ended = (self.k > 0) & ~runs & (self.ready > self.before[:, None])
        ratio = np.where(ended, (self.ready - self.began) / np.where(ended, plan, 1), 1)
        work[..., OUTFLOW], work[..., OUTCOME] = ended, np.clip(np.log(ratio), -10, 10)
        work[..., LABEL] = self.label[self.next]
        late = np.maximum(np.where(open_, t, self.ready) - self.due, 0)
        price = np.where(late > 0, self.bill / np.where(late > 0, late, 1), np.float32(MEAN_WEIGHT))
        work[..., UNIT_VALUE] = np.where(late > 0, np.minimum(price / 4, 10), 0)
        work[..., URGENCY] = price * waits * (1 - np.clip(slack, 0, 1))
        speed = np.where(self.spent > 0, self.worked / np.where(self.spent > 0, self.spent, 1), 1)
        speed = np.minimum(speed, 10)
        work[..., SPEED] = speed[self.index, self.next] * more
        # A place too many in every row takes what concerns no machine.
        wide = np.zeros((self.batch, self.machines + 1, NUM_TOKEN_FEATURES), np.float32)
        wide[..., SLACK] = 1
        rows, jobs = np.nonzero(waits)
        flat = rows * (self.machines + 1) + self.next[rows, jobs]
        queue = np.bincount(flat, first[rows, jobs] / double[rows, 0], self.batch * (self.machines + 1))
        wide[..., WAITING] = np.minimum(queue.reshape(self.batch, -1), 10)
        rows, jobs = np.nonzero(runs)
        at = last[rows, jobs]
        wide[rows, at, SLACK] = 0
        wide[rows, at, LEVEL] = left[rows, jobs] / double[rows, 0]
        wide[rows, at, AGE] = np.minimum((self.t[rows] - self.began[rows, jobs]) / double[rows, 0], 10)
        rows, jobs = np.nonzero(ended)
        wide[rows, last[rows, jobs], OUTFLOW] = 1
        wide[rows, last[rows, jobs], OUTCOME] = work[rows, jobs, OUTCOME]
        for column in (SLACK, LEVEL, WAITING, AGE, OUTFLOW, OUTCOME):
            machines[..., column] = wide[:, :-1, column]
        machines[..., COUNT], machines[..., SPEED] = self.count[:, :-1] / j, speed[:, :-1]
        self.table[:, -1, BEHIND] = (slack < 0).sum(1) / j
        self.table[:, -1, LEVEL] = self.holds / max(self.max_holds, 1)
        self.table[:, -1, WAITING] = 1 - self.k.sum(1) / (j * self.machines)
        self.table[..., PROGRESS] = min(self.time / self.num_periods, 1.0)
        self.table[..., LAST_REWARD] = np.clip(self.paid / 4, -10, 10)[:, None]
        return relative(self.table)
