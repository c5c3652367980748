"""Flows over randomly connected links in NumPy: the independent models of ``envs_jax.domains.network_traffic``.

Written from the equations (docs/domains/network_traffic.md), not from the JAX code: ``LoopModel`` is one transmitter in
plain Python loops and float64, ``BatchModel`` a batch of them in float32 that share a clock. Both take the parameters
by name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

URGENCY, SLACK, DEMAND, CARRIER = columns("urgency", "slack", "role_demand", "role_carrier")
LEVEL, CAPACITY, INFLOW, OUTFLOW, WAITING = columns("level", "capacity", "inflow", "outflow", "waiting")
IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns("is_turn", "decided", "progress", "last_reward")
IN_VAIN, CHANGE, HIGH_DIGIT, LOW_DIGIT, ACKED_SHARE, CONNECTION = columns(
    "private_a", "private_b", "private_c", "private_d", "private_e", "private_f"
)

Activations = Sequence[Sequence[int]]


class LoopModel(numpy_model.LoopModel):
    """One transmitter. ``params``: the leaves of NetworkTrafficParams by name, unbatched."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 24, activations: Activations | None = None
    ) -> None:
        self.p = [float(x) for x in params["connectivity"]]
        self.classes = [int(x) for x in params["service_class"]]
        self.c = [float(params["class_weight"][i] * v) for i, v in zip(self.classes, params["contract"], strict=True)]
        self.success_cdf = np.asarray(params["success_cdf"], float).tolist()
        self.arrival_cdf = np.asarray(params["arrival_cdf"], float).tolist()
        self.f, self.on_length, self.loss = (float(params[n]) for n in ("on_fraction", "on_length", "loss"))
        self.start, self.buffer = int(params["start"]), int(params["buffer"])
        self.k, self.slots, self.num_periods = len(self.p), len(self.arrival_cdf[0]) - 1, num_periods
        self.activations = [[k] for k in range(self.k)] if activations is None else [list(a) for a in activations]

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[2 K]`` draw the queues, then the sources."""
        self.q = [min(int(float(u) * (self.start + 1)), self.start) for u in uniforms[: self.k]]
        self.on = [float(u) < self.f for u in uniforms[self.k :]]
        self.link = [True] * self.k
        self.n, self.sent, self.lost, self.change = ([0] * self.k for _ in range(4))
        self.tried, self.succeeded, self.arrived, self.up = ([0] * self.k for _ in range(4))
        self.time, self.last_reward = 0, 0.0

    def ready(self, k: int) -> bool:
        """Whether flow k's link is up and it has a packet not yet granted."""
        return self.link[k] and self.q[k] > self.n[k]

    def action_mask(self) -> np.ndarray:
        """``bool[A]``: activations with a ready flow, and the transmitter's own rule."""
        return np.array([any(self.ready(k) for k in flows) for flows in self.activations] + [True])

    def own_rule(self) -> list[int]:
        """The activation of the largest sum of queues; no flow if none is ready."""
        best, longest = [], 0
        for flows in self.activations:
            total = sum(self.q[k] - self.n[k] for k in flows if self.ready(k))
            if total > longest:
                best, longest = flows, total
        return best

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One slot; on the frame's last, ``uniforms[4 K]`` draw acknowledgements, arrivals, links and sources."""
        flows = self.own_rule() if int(action) == len(self.activations) else self.activations[int(action)]
        for k in flows:
            if self.ready(k):
                self.n[k] += 1
        self.time += 1
        if self.time % self.slots:
            return 0.0, {}
        holding = loss = arrived_now = dropped_now = 0.0
        for k in range(self.k):
            u_success, u_arrival, u_link, u_source = (float(uniforms[part * self.k + k]) for part in range(4))
            done = 0
            while done < self.n[k] and u_success > self.success_cdf[k][self.n[k]][done]:
                done += 1
            left, new = self.q[k] - done, 0
            while self.on[k] and new < self.slots and u_arrival > self.arrival_cdf[k][new]:
                new += 1
            drop = max(left + new - self.buffer, 0)
            holding += self.c[k] * left
            loss += self.loss * self.c[k] * drop
            arrived_now, dropped_now = arrived_now + new, dropped_now + drop
            self.sent[k], self.lost[k] = done, self.n[k] - done
            self.change[k] = left + new - drop - self.q[k]
            self.q[k] = left + new - drop
            self.tried[k] += self.n[k]
            self.succeeded[k] += done
            self.arrived[k] += new
            self.link[k] = u_link < self.p[k]
            self.up[k] += self.link[k]
            if self.f < 1.0:
                # On for on_length frames, off for as long as makes the share of time on f.
                off_length = max(self.on_length * (1.0 - self.f) / self.f, 1.0)
                self.on[k] = u_source >= 1.0 / self.on_length if self.on[k] else u_source < 1.0 / off_length
        info = {
            "granted": sum(self.n),
            "acked": sum(self.sent),
            "arrived": arrived_now,
            "dropped": dropped_now,
            "backlog": sum(self.q),
            "holding_cost": holding,
            "loss_cost": loss,
        }
        self.n = [0] * self.k
        self.last_reward = -(holding + loss) / self.k
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[K + 1, columns]``: flows, then the transmitter."""
        out = np.zeros((self.k + 1, NUM_TOKEN_FEATURES), np.float32)
        frames, r = self.time // self.slots, self.slots
        for k in range(self.k):
            row, w = out[k], self.q[k] - self.n[k]
            row[URGENCY], row[WAITING] = w, min(w / 10, 10.0)
            row[DEMAND], row[LEVEL], row[SLACK] = 1.0, self.q[k] / self.buffer, 1.0 - self.q[k] / self.buffer
            row[CAPACITY] = self.buffer
            row[INFLOW] = self.arrived[k] / max(frames, 1) / r
            row[IN_VAIN], row[OUTFLOW], row[CHANGE] = self.lost[k] / r, self.sent[k] / r, self.change[k] / r
            apart = min((frames + 2) / (self.up[k] + 1) / 10, 10.0)
            row[CONNECTION] = apart if self.link[k] else -apart
            row[HIGH_DIGIT] = 1.0 if self.classes[k] in (2, 3) else -1.0
            row[LOW_DIGIT] = 1.0 if self.classes[k] in (1, 3) else -1.0
            row[ACKED_SHARE] = (self.succeeded[k] + 1) / (self.tried[k] + 2)
            row[DECIDED] = self.n[k] / r
        row, total, given = out[-1], sum(self.q) - sum(self.n), self.time % r / r
        row[WAITING] = min(total / self.k / 10, 10.0)
        row[SLACK] = row[LEVEL] = 1.0 - given
        row[CARRIER] = row[IS_TURN] = 1.0
        row[CAPACITY], row[OUTFLOW], row[DECIDED] = r, sum(self.sent) / r, given
        out[:, PROGRESS] = min(self.time / (self.num_periods * r), 1.0)
        out[:, LAST_REWARD] = max(self.last_reward, -10.0)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` transmitters in lockstep. ``params`` have a leading axis B; arrays are updated in place."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 24, activations: Activations | None = None
    ) -> None:
        self.p = np.asarray(params["connectivity"], np.float32)
        self.batch, self.k = self.p.shape
        classes = np.asarray(params["service_class"])
        self.c = np.take_along_axis(np.asarray(params["class_weight"], np.float32), classes, axis=1)
        self.c = self.c * np.asarray(params["contract"], np.float32)
        self.success_cdf = np.asarray(params["success_cdf"], np.float32)
        self.arrival_cdf = np.asarray(params["arrival_cdf"], np.float32)
        self.slots, self.num_periods = self.arrival_cdf.shape[-1] - 1, num_periods
        f, length, self.loss = (np.asarray(params[n], np.float32) for n in ("on_fraction", "on_length", "loss"))
        off = np.maximum(1 - f, np.float32(1e-6))
        self.f = f[:, None]
        self.stop = np.where(f < 1, 1 / length, 0)[:, None].astype(np.float32)
        self.go = np.minimum(f / (off * length), 1)[:, None].astype(np.float32)
        self.start, self.buffer = np.asarray(params["start"])[:, None], np.asarray(params["buffer"])[:, None]
        self.inverse_buffer = (1 / self.buffer).astype(np.float32)
        names = [[k] for k in range(self.k)] if activations is None else activations
        # With one flow each, in order, a choice is the flow itself and no table is needed.
        self.single = activations is None
        self.table = np.zeros((len(names), self.k), np.float32)
        for row, flows in zip(self.table, names, strict=True):
            row[list(flows)] = 1
        self.mask = np.ones((self.batch, len(names) + 1), bool)
        self.everyone = np.arange(self.batch)
        # Everything constant over an episode is written once; step() refreshes the rest.
        self.out = np.zeros((self.batch, self.k + 1, NUM_TOKEN_FEATURES), np.float32)
        self.flows, self.link_row = self.out[:, : self.k], self.out[:, self.k]
        self.flows[..., DEMAND] = self.flows[..., CAPACITY] = 1  # all buffers are alike
        self.flows[..., HIGH_DIGIT] = np.where(classes >= 2, 1, -1)
        self.flows[..., LOW_DIGIT] = np.where(classes % 2 == 1, 1, -1)
        self.link_row[:, [CARRIER, CAPACITY, IS_TURN]] = 1

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, 2 K]`` draw the queues, then the sources."""
        queue, source = np.split(np.asarray(uniforms, np.float32), 2, axis=1)
        shape = (self.batch, self.k)
        self.q = np.minimum((queue * (self.start + 1)).astype(np.int32), self.start).astype(np.int32)
        self.on = source < self.f
        self.link = np.ones(shape, bool)
        self.n, self.tried, self.succeeded, self.arrived, self.up = (np.zeros(shape, np.int32) for _ in range(5))
        self.time = 0
        none = np.zeros(shape, np.int32)
        self._show_frame(none, none, none, np.zeros(self.batch, np.float32))
        self._show_slot()

    def action_mask(self) -> np.ndarray:
        """``bool[B, A]``, a view that the next step overwrites."""
        return self.mask

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One slot ``action[B]`` each; on the frame's last, ``uniforms[B, 4 K]`` move the world."""
        waiting = np.where(self.ready, self.q - self.n, 0)
        sums = waiting if self.single else waiting @ self.table.T
        chosen = np.where(action == len(self.table), sums.argmax(1), action)
        if self.single:
            self.n[self.everyone, chosen] += self.ready[self.everyone, chosen]
        else:
            self.n += self.ready & (self.table[chosen] > 0)
        self.time += 1
        if self.time % self.slots:
            self._show_slot()
            return np.zeros(self.batch, np.float32), {}
        success, arrival, link, source = np.asarray(uniforms, np.float32).reshape(self.batch, 4, self.k).swapaxes(0, 1)
        law = np.take_along_axis(self.success_cdf, self.n[..., None, None], axis=2)[:, :, 0]
        done = (success[..., None] > law).sum(-1, dtype=np.int32)
        new = np.minimum((arrival[..., None] > self.arrival_cdf).sum(-1, dtype=np.int32), self.slots) * self.on
        left = self.q - done
        queue = np.minimum(left + new, self.buffer).astype(np.int32)
        drop = left + new - queue
        holding, loss = (self.c * left).sum(1), self.loss * (self.c * drop).sum(1)
        failed, change = self.n - done, queue - self.q
        self.tried += self.n
        self.succeeded += done
        self.arrived += new
        self.link = link < self.p
        self.up += self.link
        self.on = np.where(self.on, source >= self.stop, source < self.go)
        info = {
            "granted": self.n.sum(1),
            "acked": done.sum(1),
            "arrived": new.sum(1),
            "dropped": drop.sum(1),
            "backlog": queue.sum(1),
            "holding_cost": holding,
            "loss_cost": loss,
        }
        self.q, self.n = queue, np.zeros_like(queue)
        reward = -(holding + loss) / self.k
        self._show_frame(done, failed, change, reward)
        self._show_slot()
        return reward, info

    def _show_frame(self, done: np.ndarray, failed: np.ndarray, change: np.ndarray, reward: np.ndarray) -> None:
        """Columns that change once a frame."""
        frames, r = self.time // self.slots, np.float32(self.slots)
        rows, level = self.flows, self.q * self.inverse_buffer
        rows[..., LEVEL], rows[..., SLACK] = level, 1 - level
        rows[..., INFLOW] = self.arrived / (r * max(frames, 1))
        rows[..., IN_VAIN], rows[..., OUTFLOW], rows[..., CHANGE] = failed / r, done / r, change / r
        apart = np.minimum((frames + 2) / (np.float32(10) * (self.up + 1)), 10)
        rows[..., CONNECTION] = np.where(self.link, apart, -apart)
        rows[..., ACKED_SHARE] = (self.succeeded + 1) / (self.tried + 2)
        self.link_row[:, OUTFLOW] = done.sum(1) / r
        self.out[..., LAST_REWARD] = np.maximum(reward, -10)[:, None]

    def _show_slot(self) -> None:
        """Columns that change with every slot, and the mask."""
        r, rows, row = np.float32(self.slots), self.flows, self.link_row
        waiting = self.q - self.n
        self.ready = self.link & (waiting > 0)
        self.mask[:, :-1] = self.ready if self.single else self.ready @ self.table.T > 0
        rows[..., URGENCY] = waiting / np.maximum(waiting.max(1, keepdims=True), 1)
        rows[..., WAITING] = np.minimum(waiting / np.float32(10), 10)
        rows[..., DECIDED] = self.n / r
        total, given = waiting.sum(1), self.time % self.slots / self.slots
        row[:, WAITING] = np.minimum(total / np.float32(10 * self.k), 10)
        row[:, SLACK] = row[:, LEVEL] = 1 - given
        row[:, DECIDED] = given
        self.out[..., PROGRESS] = min(self.time / (self.num_periods * self.slots), 1.0)

    def tokens(self) -> np.ndarray:
        """``f32[B, K + 1, columns]``, a view that the next step overwrites."""
        return self.out
