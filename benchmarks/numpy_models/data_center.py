"""Servers with setup in NumPy: the independent models of ``envs_jax.domains.data_center``.

Written from the equations (docs/domains/data_center.md), not from the JAX code: ``LoopModel`` is one farm in plain
Python and float64, with an absolute clock and a list of completion times a server; ``BatchModel`` is a batch of farms
in float32 that share the number of the job. Both take the parameters by name and the uniforms from outside.
"""

from __future__ import annotations

import math

import numpy as np

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

QUEUE = 24
URGENCY, SLACK, SUPPLIER, DEMAND = columns("urgency", "slack", "role_supplier", "role_demand")
LEVEL, CAPACITY, OUTFLOW, WAITING, AGE = columns("level", "capacity", "outflow", "waiting", "age")
UNIT_COST, UNIT_VALUE, IS_TURN, PROGRESS, LAST_REWARD = columns(
    "unit_cost", "unit_value", "is_turn", "progress", "last_reward"
)
IN_SETUP, WORKING, ZONE, LAST_CHOICE = columns("private_a", "private_b", "private_c", "private_d")


class LoopModel(numpy_model.LoopModel):
    """One farm. ``params``: the leaves of DataCenterParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 128, queue: int = QUEUE) -> None:
        self.mu, self.delta, self.busy_power, self.setup_power, self.kappa = (
            np.asarray(params[k], float).tolist()
            for k in ("speed", "setup_rate", "busy_power", "setup_power", "cooling")
        )
        self.w_t, self.w_e, self.lam = (float(params[k]) for k in ("delay_price", "energy_price", "arrival_rate"))
        self.zone = np.asarray(params["zone"]).tolist()
        self.n, self.num_periods, self.queue = len(self.mu), num_periods, queue

    def reset(self, uniforms: np.ndarray) -> None:
        """All servers off; nothing is drawn."""
        del uniforms
        self.now = 0.0
        # A server: completion times of its jobs in order of arrival, when it went on, when its setup ends or ended.
        self.completions: list[list[float]] = [[] for _ in range(self.n)]
        self.switched_on, self.ready = [0.0] * self.n, [0.0] * self.n
        self.finished, self.choice = [0] * self.n, -1
        self.gap = self.power = self.last_reward = 0.0
        self.time = 0

    def action_mask(self) -> np.ndarray:
        """``bool[N]``: a job may be sent anywhere."""
        return np.ones(self.n, bool)

    def expected_cost(self) -> float:
        """Mean cost until the next arrival (after the last: until empty), by the law of each job's departure."""
        end = self.time == self.num_periods - 1
        total = 0.0
        for i, jobs in enumerate(self.completions):
            watts, prepare = self.w_e * self.kappa[i], 0.0
            in_setup = bool(jobs) and self.ready[i] > self.now
            in_time = 1.0  # chance that what went before is over when the next job arrives
            if in_setup:
                in_time = 0.0 if end else self.delta[i] / (self.delta[i] + self.lam)
                prepare = 1.0 / self.delta[i] if end else (1.0 - in_time) / self.lam
                total += watts * self.setup_power[i] * prepare
            stay = prepare
            for _ in jobs:
                if end:
                    serve = 1.0 / self.mu[i]
                else:
                    then = in_time * self.mu[i] / (self.mu[i] + self.lam)
                    serve, in_time = (in_time - then) / self.lam, then
                stay += serve
                total += self.w_t * stay + watts * self.busy_power[i] * serve
        return total

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """Sends the job; ``uniforms[3]`` draw the time to the next one, the job's size and a setup."""
        gap, size, setup = (-math.log(float(u)) for u in uniforms)
        lengths = [len(jobs) for jobs in self.completions]
        i = int(action) if lengths[int(action)] < self.queue else lengths.index(min(lengths))
        jobs, was_off = self.completions[i], not self.completions[i]
        if was_off:
            self.switched_on[i], self.ready[i] = self.now, self.now + setup / self.delta[i]
        jobs.append((self.ready[i] if was_off else jobs[-1]) + size / self.mu[i])
        end = self.time == self.num_periods - 1
        then = max(c for row in self.completions for c in row) if end else self.now + gap / self.lam
        info = {"expected_reward": -self.expected_cost(), "setups": float(was_off)}
        info["in_system"] = float(sum(lengths) + 1)
        info["delay"] = sum(min(c, then) - self.now for row in self.completions for c in row)
        info["energy"] = 0.0
        self.finished = [0] * self.n
        for k, row in enumerate(self.completions):
            if not row:
                continue
            preparing = max(min(self.ready[k], then) - self.now, 0.0)
            working = min(row[-1], then) - self.now - preparing
            info["energy"] += self.kappa[k] * (self.setup_power[k] * preparing + self.busy_power[k] * working)
            left = [c for c in row if c > then]
            self.finished[k], self.completions[k] = len(row) - len(left), left
        self.gap = info["gap"] = then - self.now
        self.power = info["energy"] / self.gap
        self.last_reward = -(self.w_t * info["delay"] + self.w_e * info["energy"])
        self.now, self.choice = then, i
        self.time += 1
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[N+1, columns]``: servers, then the job."""
        out = np.zeros((self.n + 1, NUM_TOKEN_FEATURES), np.float32)
        queued = 0
        for i, jobs in enumerate(self.completions):
            n = len(jobs)
            preparing = n > 0 and self.ready[i] > self.now
            waiting = n if preparing or n == 0 else n - 1
            queued += waiting
            out[i, [SUPPLIER, CAPACITY]] = 1.0
            out[i, [URGENCY, SLACK, LEVEL]] = self.w_t * waiting, 1 - n / self.queue if n else 0.0, n / 8
            out[i, [IN_SETUP, WORKING]] = preparing, n > 0 and not preparing
            out[i, [OUTFLOW, WAITING, ZONE]] = self.finished[i] / 4, waiting / 8, (-1, 1)[self.zone[i]]
            out[i, AGE] = min((self.now - self.switched_on[i]) / 16, 10.0) if n else 0.0
            out[i, LAST_CHOICE] = i == self.choice
        job = out[-1]
        job[[DEMAND, IS_TURN]] = 1.0
        job[[URGENCY, WAITING]] = self.w_t, queued / 16
        job[[LEVEL, OUTFLOW, AGE]] = min(self.power / 16, 10.0), min(sum(self.finished) / 8, 10.0), min(self.gap, 10.0)
        job[[UNIT_COST, UNIT_VALUE]] = min(self.w_e / 4, 10.0), min(self.w_t, 10.0)
        out[:, PROGRESS] = min(self.time / self.num_periods, 1.0)
        out[:, LAST_REWARD] = min(max(self.last_reward / 10, -10.0), 10.0)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` farms in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 128, queue: int = QUEUE) -> None:
        given = {name: np.asarray(value, np.float32) for name, value in params.items()}
        self.mu, self.delta, self.lam = given["speed"], given["setup_rate"], given["arrival_rate"]
        self.batch, self.n = self.mu.shape
        self.num_periods, self.queue = num_periods, queue
        self.w_t, self.w_e = given["delay_price"], given["energy_price"]
        self.watts_setup, self.watts_busy = (given["cooling"] * given[k] for k in ("setup_power", "busy_power"))
        self.stays = self.mu / (self.mu + self.lam[:, None])
        self.done_in_time = self.delta / (self.delta + self.lam[:, None])
        self.farm = np.arange(self.batch)
        self.mask = np.ones((self.batch, self.n), bool)
        # Everything constant over an episode is written once; step() refreshes the rest.
        self.table = np.zeros((self.batch, self.n + 1, NUM_TOKEN_FEATURES), np.float32)
        self.rows, self.job = self.table[:, :-1], self.table[:, -1]
        self.rows[..., SUPPLIER] = self.rows[..., CAPACITY] = self.job[:, DEMAND] = self.job[:, IS_TURN] = 1
        self.rows[..., ZONE] = 2 * given["zone"] - 1
        self.job[:, UNIT_COST] = np.minimum(self.w_e / 4, 10)
        self.job[:, UNIT_VALUE] = np.minimum(self.w_t, 10)

    def reset(self, uniforms: np.ndarray) -> None:
        """All servers off; nothing is drawn."""
        del uniforms
        shape = (self.batch, self.n)
        self.left = np.zeros((*shape, self.queue), np.float32)  # seconds to each job's completion
        self.on, self.setup, self.age = (np.zeros(shape, np.float32) for _ in range(3))  # seconds till off, till ready
        self.jobs, self.sent = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.time = 0
        for column in (URGENCY, LEVEL, IN_SETUP, OUTFLOW, WAITING, AGE, WORKING, LAST_CHOICE):
            self.rows[..., column] = 0
        self.rows[..., SLACK] = 0
        self.job[:, URGENCY] = self.w_t
        for column in (LEVEL, OUTFLOW, WAITING, AGE):
            self.job[:, column] = 0
        self.table[..., PROGRESS] = self.table[..., LAST_REWARD] = 0
        relative(self.table)

    def action_mask(self) -> np.ndarray:
        """``bool[B, N]``: a job may be sent anywhere."""
        return self.mask

    def _expected_cost(self, end: bool) -> np.ndarray:
        n, preparing = self.jobs, self.setup > 0
        if end:
            setup = np.where(preparing, 1 / self.delta, 0)
            seconds, busy = n * setup + n * (n + 1) / (2 * self.mu), n / self.mu
        else:
            lam = self.lam[:, None]
            in_time = np.where(preparing, self.done_in_time, 1)
            busy, setup = in_time * (1 - self.stays**n) / lam, (1 - in_time) / lam
            seconds = (n - self.mu * busy) / lam
        energy = (self.watts_setup * setup + self.watts_busy * busy).sum(1)
        return self.w_t * seconds.sum(1) + self.w_e * energy

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Sends a job each, ``action[B]``; ``uniforms[B, 3]`` draw the times to the next ones, sizes and setups."""
        gap, size, setup = -np.log(uniforms.T)
        at = self.farm
        to = np.where(self.jobs[at, action] < self.queue, action, self.jobs.argmin(1))
        was_off = self.jobs[at, to] == 0
        preparing = setup / self.delta[at, to]
        self.setup[at, to] = np.where(was_off, preparing, self.setup[at, to])
        self.on[at, to] = np.where(was_off, preparing, self.on[at, to]) + size / self.mu[at, to]
        self.left[at, to, self.sent[at, to] % self.queue] = self.on[at, to]
        self.sent[at, to] += 1
        self.jobs[at, to] += 1
        end = self.time == self.num_periods - 1
        gap = self.on.max(1) if end else gap / self.lam
        wide = gap[:, None]
        delay = np.minimum(self.left, wide[..., None]).sum((1, 2))
        setup_time = np.minimum(self.setup, wide)
        energy = (self.watts_setup * setup_time + self.watts_busy * (np.minimum(self.on, wide) - setup_time)).sum(1)
        reward = -(self.w_t * delay + self.w_e * energy)
        info = {
            "expected_reward": -self._expected_cost(end),
            "delay": delay,
            "energy": energy,
            "setups": was_off.astype(np.float32),
            "in_system": self.jobs.sum(1).astype(np.float32),
            "gap": gap,
        }
        for clock in (self.left, self.on, self.setup):
            clock -= wide if clock.ndim == 2 else wide[..., None]
            np.maximum(clock, 0, out=clock)
        jobs = (self.left > 0).sum(2, dtype=np.int32)
        finished = self.jobs - jobs
        self.jobs = jobs
        self.age = np.where(jobs > 0, self.age + wide, 0)
        self.time += 1
        self._show(finished, to, gap, energy / gap, reward)
        return reward, info

    def _show(
        self, finished: np.ndarray, to: np.ndarray, gap: np.ndarray, power: np.ndarray, reward: np.ndarray
    ) -> None:
        preparing = self.setup > 0
        working = (self.jobs > 0) & ~preparing
        waiting = self.jobs - working
        rows, job = self.rows, self.job
        rows[..., URGENCY] = self.w_t[:, None] * waiting
        rows[..., SLACK], rows[..., LEVEL] = np.where(self.jobs > 0, 1 - self.jobs / self.queue, 0), self.jobs / 8
        rows[..., IN_SETUP], rows[..., WORKING] = preparing, working
        rows[..., OUTFLOW], rows[..., WAITING] = finished / 4, waiting / 8
        rows[..., AGE] = np.minimum(self.age / 16, 10)
        rows[..., LAST_CHOICE] = 0
        rows[self.farm, to, LAST_CHOICE] = 1
        job[:, URGENCY], job[:, WAITING] = self.w_t, waiting.sum(1) / 16
        job[:, LEVEL], job[:, AGE] = np.minimum(power / 16, 10), np.minimum(gap, 10)
        job[:, OUTFLOW] = np.minimum(finished.sum(1) / 8, 10.0)
        self.table[..., PROGRESS] = min(self.time / self.num_periods, 1.0)
        self.table[..., LAST_REWARD] = np.clip(reward / 10, -10, 10)[:, None]
        relative(self.table)

    def tokens(self) -> np.ndarray:
        """``f32[B, N+1, columns]``, a view that the next step overwrites."""
        return self.table
