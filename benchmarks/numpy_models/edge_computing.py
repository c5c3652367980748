"""Task offloading in NumPy: the independent models of ``envs_jax.domains.edge_computing``.

Written from the equations (docs/domains/edge_computing.md), not from the JAX code: ``LoopModel`` is one device in plain
Python loops and float64, ``BatchModel`` a batch of devices in float32 that share a clock. Both take the parameters by
name and the uniforms from outside, so they can be fed the very draws of another implementation. ``one_server`` is the
published model with one server, with and without the fault of its code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

DRAWS = 7  # uniforms of a task: level width, number of parents, first parent, result, three factors
URGENCY, SLACK, SUPPLIER, DEMAND, PLACE, CLOCK = columns(
    "urgency", "slack", "role_supplier", "role_demand", "role_place", "role_clock"
)
LEVEL, CAPACITY, INFLOW, WAITING, AGE = columns("level", "capacity", "inflow", "waiting", "age")
IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns("is_turn", "decided", "progress", "last_reward")
# A resource's own columns, a task's.
START, RUN, SENDING, COMPUTING = columns("private_a", "private_b", "private_c", "private_d")
PARENTS, CHILDREN, RANK = columns("private_a", "private_b", "private_c")


def one_server(
    size: Sequence[float],
    result: Sequence[float],
    parents: Sequence[Sequence[int]],
    order: Sequence[int],
    plans: np.ndarray,
    *,
    link: float = 0.875,
    server: float = 10.0,
    device: float = 1.0,
    entry_upload_free: bool = False,
) -> np.ndarray:
    """Makespans ``[plans]`` [s] of the published model: one server, no noise.

    Args:
      size: of each task [MiB].
      result: of each task [MiB].
      parents: indices of each task's parents.
      order: in which tasks are placed.
      plans: ``[plans, n]``, 1 offloads the task at that place *in the order*; a column of NumPy arithmetic each.
      link: MiB/s (7 Mbit/s of 2^20 bits).
      server: MiB/s.
      device: MiB/s.
      entry_upload_free: the published code's fault. The upload of a task without parents does not keep the link busy,
        so that such uploads overlap and the next one starts as if there had been none.
    """
    nothing = np.zeros(len(plans))
    home: dict[int, np.ndarray] = {}
    sent: dict[int, np.ndarray] = {}
    done: dict[int, np.ndarray] = {}
    device_free, link_free, server_free = nothing, nothing, nothing
    for position, i in enumerate(order):
        away = plans[:, position].astype(bool)
        # A parent that ran on the device is at hand when it is home; one on the server when it had been sent (the link
        # is in order, so without the fault this never binds) and, for the computation, when it is done there.
        at_home, up_there, finished = nothing, nothing, nothing
        for j in parents[i]:
            was_away = sent[j] > 0
            at_home = np.maximum(at_home, home[j])
            up_there = np.maximum(up_there, np.where(was_away, sent[j], home[j]))
            finished = np.maximum(finished, np.where(was_away, done[j], 0.0))
        local = np.maximum(device_free, at_home) + size[i] / device
        upload = np.maximum(link_free, up_there) + size[i] / link
        computed = np.maximum(np.maximum(server_free, upload), finished) + size[i] / server
        home[i] = np.where(away, computed + result[i] / link, local)
        sent[i], done[i] = np.where(away, upload, 0.0), np.where(away, computed, 0.0)
        device_free = np.where(away, device_free, local)
        server_free = np.where(away, computed, server_free)
        if parents[i] or not entry_upload_free:
            link_free = np.where(away, upload, link_free)
    return np.max(list(home.values()), axis=0)


class LoopModel(numpy_model.LoopModel):
    """One device and its servers. ``params``: the leaves of EdgeComputingParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 5, window: int = 6) -> None:
        self.links = [float(x) / 8.0 for x in params["link_rate"]]  # MiB/s
        self.speeds = [float(params["device_speed"]), *(float(x) for x in params["server_speed"])]
        self.ratio, self.fat, self.density, self.sd = (
            float(params[name]) for name in ("result_ratio", "fat", "density", "noise_sd")
        )
        self.servers, self.num_periods, self.window = len(self.links), num_periods, window

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[7 n]`` draw the first application."""
        self.n = len(uniforms) // DRAWS
        self.time, self.last_reward = 0, 0.0
        self.sending, self.computing = [0.0] * (self.servers + 1), [0.0] * (self.servers + 1)
        self._begin(uniforms)

    def _begin(self, uniforms: np.ndarray) -> None:
        rows = [[float(u) for u in row] for row in np.reshape(uniforms, (self.n, DRAWS))]
        mean = math.floor(self.n**self.fat + 1e-6)
        levels: list[list[int]] = []
        while sum(map(len, levels)) < self.n:
            start = sum(map(len, levels))
            wide = max(1, math.floor(mean * (0.5 + rows[len(levels)][0])))
            levels.append(list(range(start, start + wide)))  # the last one may run past n: these tasks do not exist
        parents: dict[int, list[int]] = {i: [] for i in levels[0]}
        for above, level in itertools.pairwise(levels):
            for i in level:
                if i < self.n:
                    _, many, first, *_ = rows[i]
                    count = min(len(above), 1 + math.floor(many * self.density * len(above)))
                    from_ = math.floor(first * len(above))
                    parents[i] = [above[(from_ + k) % len(above)] for k in range(count)]
        result = [5.0 + 45.0 * row[3] for row in rows]
        size = [e / self.ratio for e in result]
        rank = [0.0] * self.n
        for i in reversed(range(self.n)):
            own = min(size[i], size[i] / 0.875 + size[i] / 10.0 + result[i] / 0.875)
            rank[i] = own + max((rank[c] for c in range(i + 1, self.n) if i in parents[c]), default=0.0)
        order = sorted(range(self.n), key=lambda i: -rank[i])
        position = {i: p for p, i in enumerate(order)}
        self.size, self.result, self.rank = ([values[i] for i in order] for values in (size, result, rank))
        self.parents = [[position[j] for j in parents[i]] for i in order]
        self.factors = [[math.exp(self.sd * float(ndtri(u))) for u in rows[p][4:]] for p in range(self.n)]
        self.place: list[int] = []
        self.home: list[float] = []
        self.done: list[float] = []
        self.free = [0.0] * (self.servers + 1)  # device and processors
        self.link_free = [0.0] * (self.servers + 1)

    def action_mask(self) -> np.ndarray:
        """``bool[1 + S]``: everything is always legal."""
        return np.ones(self.servers + 1, bool)

    def _earliest(self, i: int, k: int) -> tuple[float, float]:
        """When task i can be sent to (k > 0) or started at (k = 0) place k, and when it could run there."""
        data = [self.home[j] for j in self.parents[i] if k == 0 or self.place[j] != k]
        there = [self.done[j] for j in self.parents[i] if k > 0 and self.place[j] == k]
        start = max([self.link_free[k] if k else self.free[0], *data])
        return start, (max([self.free[k], *there]) if k else start)

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One task is placed; after the application's last one ``uniforms[7 n]`` draw the next application."""
        i, k = self.time % self.n, int(action)
        up, work, down = self.factors[i]
        start, run = self._earliest(i, k)
        if k:
            rate = self.links[k - 1]
            self.link_free[k] = start + up * self.size[i] / rate
            self.free[k] = max(self.link_free[k], run) + work * self.size[i] / self.speeds[k]
            self.home.append(self.free[k] + down * self.result[i] / rate)
        else:
            self.free[0] = start + work * self.size[i] / self.speeds[0]
            self.home.append(self.free[0])
        self.place.append(k)
        self.done.append(self.free[k])
        self.time += 1
        if i < self.n - 1:
            return 0.0, {}
        makespan, all_local = max(self.home), sum(self.size)
        self.sending, self.computing = [0.0] * (self.servers + 1), [0.0] * (self.servers + 1)
        for size, k, (up, work, _) in zip(self.size, self.place, self.factors, strict=True):
            self.computing[k] += work * size / self.speeds[k]
            self.sending[k] += up * size / self.links[k - 1] if k else 0.0
        self.last_reward = -makespan / all_local
        info = {
            "makespan": makespan,
            "all_local": all_local,
            "link_busy": sum(self.sending),
            "sent": sum(s for s, k in zip(self.size, self.place, strict=True) if k),
            "offloaded": sum(k > 0 for k in self.place) / self.n,
            "expected_reward": self.last_reward,
        }
        self._begin(uniforms)
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[1 + S + W + 1, columns]``: device, servers, next tasks, application."""
        out = np.zeros((self.servers + self.window + 2, NUM_TOKEN_FEATURES), np.float32)
        turn = self.time % self.n
        span = max(self.home, default=0.0)
        for k in range(self.servers + 1):
            start, run = self._earliest(turn, k)
            out[k, SUPPLIER if k else PLACE] = 1.0
            out[k, CAPACITY] = 10.0 if k else 1.0
            out[k, SLACK] = min(max(1.0 - start / max(span, 1e-6), 0.0), 1.0)
            out[k, [START, RUN]] = (start - span) / 250.0, (run - span) / 250.0
            out[k, [SENDING, COMPUTING]] = self.sending[k] / 1000.0, self.computing[k] / 1000.0
        shown = range(turn, min(turn + self.window, self.n))
        for row, i in enumerate(shown, start=self.servers + 1):
            children = sum(i in self.parents[c] for c in range(self.n))
            out[row, [DEMAND, URGENCY, IS_TURN]] = 1.0, self.rank[i], float(i == turn)
            out[row, [SLACK, RANK]] = 1.0 - self.rank[i] / self.rank[0], self.rank[i] / 1000.0
            out[row, [LEVEL, INFLOW]] = self.size[i] / 100.0, self.result[i] / 100.0
            out[row, [PARENTS, CHILDREN]] = len(self.parents[i]) / 10.0, children / 10.0
        left = sum(self.size[turn:]) / sum(self.size)
        out[-1, [CLOCK, WAITING, AGE, DECIDED]] = 1.0, left, span / 1000.0, turn / self.n
        present = [*range(self.servers + 1 + len(shown)), -1]
        out[present, PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        out[present, LAST_REWARD] = self.last_reward
        unbounded = [START, RUN, SENDING, COMPUTING, AGE, LEVEL, LAST_REWARD]
        relative(out)
        out[:, unbounded] = np.clip(out[:, unbounded], -10.0, 10.0)
        return out


class BatchModel(numpy_model.BatchModel):
    """``B`` devices in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 5, window: int = 6) -> None:
        given = {name: np.asarray(value, np.float32) for name, value in params.items()}
        self.batch, self.servers = given["link_rate"].shape
        self.num_periods, self.window = num_periods, window
        # One row of rates a place. Nothing is sent to the device: its link is never waited for.
        self.second_per_mib_sent = np.zeros((self.batch, self.servers + 1), np.float32)
        self.second_per_mib_sent[:, 1:] = 8 / given["link_rate"]
        speeds = np.concatenate([given["device_speed"][:, None], given["server_speed"]], 1)
        self.second_per_mib = 1 / speeds
        self.ratio, self.fat, self.density, self.sd = (
            given[name][:, None] for name in ("result_ratio", "fat", "density", "noise_sd")
        )
        self.everyone = np.arange(self.batch)
        self.table = np.zeros((self.batch, self.servers + window + 2, NUM_TOKEN_FEATURES), np.float32)
        self.resources, self.tasks = self.table[:, : self.servers + 1], self.table[:, self.servers + 1 : -1]
        self.resources[:, 0, PLACE] = self.resources[:, 1:, SUPPLIER] = self.resources[..., CAPACITY] = 1

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, 7 n]`` draw the first applications."""
        self.n, self.time = uniforms.shape[1] // DRAWS, 0
        self.resources[..., [SENDING, COMPUTING]] = 0
        self.last_reward = np.zeros(self.batch, np.float32)
        self._begin(uniforms)
        self._show()

    def _begin(self, uniforms: np.ndarray) -> None:
        n, index = self.n, np.arange(self.n)
        u = uniforms.reshape(self.batch, n, DRAWS)
        width = np.maximum(np.floor(np.floor(n**self.fat) * (np.float32(0.5) + u[..., 0])), 1).astype(int)
        stop = np.cumsum(width, 1)
        level = (stop[:, None, :] <= index[:, None]).sum(-1)
        above = np.maximum(level - 1, 0)
        wide = np.take_along_axis(width, above, 1)
        start = np.take_along_axis(stop - width, above, 1)
        count = np.minimum(1 + np.floor(u[..., 1] * self.density * wide), wide)
        skip = np.minimum(np.floor(u[..., 2] * wide), wide - 1)
        place = (index - start[..., None] - skip[..., None]) % wide[..., None]
        parents = (level[:, None, :] == level[..., None] - 1) & (place < count[..., None])
        result = 5 + 45 * u[..., 3]
        size = result / self.ratio
        rank = np.minimum(size, size / np.float32(0.875) + size / 10 + result / np.float32(0.875))
        for i in range(n - 2, -1, -1):
            rank[:, i] += (parents[:, :, i] * rank).max(1)
        order = np.argsort(-rank, axis=1, kind="stable")
        self.size, self.result, self.rank = (np.take_along_axis(x, order, 1) for x in (size, result, rank))
        by_child = np.take_along_axis(parents, order[:, :, None], 1)
        self.parents = np.take_along_axis(by_child, order[:, None, :], 2)
        self.degree = np.stack([self.parents.sum(2), self.parents.sum(1)], -1, dtype=np.float32) / 10
        self.factors = np.exp(self.sd[..., None] * ndtri(u[..., 4:], dtype=np.float32))
        self.left = np.cumsum(self.size[:, ::-1], 1)[:, ::-1] / self.size.sum(1, keepdims=True)
        self.where = np.full((self.batch, n), -1)
        self.home, self.done = (np.zeros((self.batch, n), np.float32) for _ in range(2))
        self.free, self.link_free = (np.zeros((self.batch, self.servers + 1), np.float32) for _ in range(2))
        self.span = np.zeros(self.batch, np.float32)

    def action_mask(self) -> np.ndarray:
        """``bool[B, 1 + S]``."""
        return np.ones((self.batch, self.servers + 1), bool)

    def _earliest(self) -> tuple[np.ndarray, np.ndarray]:
        """For the current task and every place ``[B, 1 + S]``: when it can be sent or started, and when run."""
        turn = self.time % self.n
        parent = self.parents[:, turn]
        home = np.where(parent, self.home, 0)
        start, run = self.link_free.copy(), self.free.copy()
        start[:, 0] = run[:, 0] = np.maximum(self.free[:, 0], home.max(1))
        for k in range(1, self.servers + 1):
            here = self.where == k
            start[:, k] = np.maximum(start[:, k], np.where(here, 0, home).max(1))
            run[:, k] = np.maximum(run[:, k], np.where(parent & here, self.done, 0).max(1))
        return start, run

    def step(self, action: np.ndarray, uniforms: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One task each is placed; after the applications' last ``uniforms[B, 7 n]`` draw the next."""
        turn, at = self.time % self.n, (self.everyone, action)
        up, work, down = self.factors[:, turn].T
        size, result = self.size[:, turn], self.result[:, turn]
        sent = self.start[at] + up * size * self.second_per_mib_sent[at]
        done = np.maximum(sent, self.run[at]) + work * size * self.second_per_mib[at]
        home = done + down * result * self.second_per_mib_sent[at]
        self.link_free[at], self.free[at] = sent, done
        self.home[:, turn], self.done[:, turn], self.where[:, turn] = home, done, action
        np.maximum(self.span, home, out=self.span)
        self.time += 1
        if turn < self.n - 1:
            self._show()
            return np.zeros(self.batch, np.float32), {}
        on = self.where[:, :, None] == np.arange(self.servers + 1)
        load = np.einsum("bns,bnf,bn->bfs", on, self.factors[..., :2], self.size)
        sending = load[:, 0] * self.second_per_mib_sent
        self.resources[..., SENDING] = np.minimum(sending / 1000, 10)
        self.resources[..., COMPUTING] = np.minimum(load[:, 1] * self.second_per_mib / 1000, 10)
        all_local = self.size.sum(1)
        self.last_reward = -self.span / all_local
        info = {
            "makespan": self.span,
            "all_local": all_local,
            "link_busy": sending.sum(1),
            "sent": ((self.where > 0) * self.size).sum(1),
            "offloaded": (self.where > 0).mean(1),
            "expected_reward": self.last_reward,
        }
        assert uniforms is not None
        self._begin(uniforms)
        self._show()
        return self.last_reward, info

    def _show(self) -> None:
        turn, span = self.time % self.n, self.span[:, None]
        self.start, self.run = self._earliest()
        self.resources[..., SLACK] = np.clip(1 - self.start / np.maximum(span, 1e-6), 0, 1)
        self.resources[..., START] = np.maximum((self.start - span) / 250, -10)
        self.resources[..., RUN] = np.maximum((self.run - span) / 250, -10)
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        self.table[..., LAST_REWARD] = np.maximum(self.last_reward, -10)[:, None]
        shown, rest = slice(turn, turn + self.window), max(turn + self.window - self.n, 0)
        rows = self.tasks[:, : self.window - rest]
        rank = self.rank[:, shown]
        rows[..., DEMAND], rows[..., URGENCY], rows[..., SLACK] = 1, rank, 1 - rank / self.rank[:, :1]
        rows[..., LEVEL], rows[..., INFLOW] = self.size[:, shown] / 100, self.result[:, shown] / 100
        rows[..., RANK] = np.minimum(rank / 1000, 10)
        rows[..., PARENTS : CHILDREN + 1] = self.degree[:, shown]
        self.tasks[:, self.window - rest :] = 0
        self.tasks[:, 0, IS_TURN] = 1
        self.table[:, -1, CLOCK] = 1
        self.table[:, -1, WAITING] = self.left[:, turn]
        self.table[:, -1, AGE] = np.minimum(self.span / 1000, 10)
        self.table[:, -1, DECIDED] = turn / self.n
        relative(self.table)

    def tokens(self) -> np.ndarray:
        """``f32[B, 1 + S + W + 1, columns]``, a view that the next step overwrites."""
        return self.table
