"""Serial inventory in NumPy: the independent models of ``envs_jax.domains.supply_chain``.

Written from the equations (docs/domains/supply_chain.md), not from the JAX code: ``LoopModel`` is one chain as lists of
moving orders in plain Python and float64, ``BatchModel`` a batch of chains as arrays that share a clock. Both take the
parameters by name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

URGENCY, SLACK, DEMAND, STORE, CLOCK = columns("urgency", "slack", "role_demand", "role_store", "role_clock")
LEVEL, INFLOW, OUTFLOW, WAITING, UNIT_COST = columns("level", "inflow", "outflow", "waiting", "unit_cost")
LATER, OWN_LEAD, LEAD, COVER, LAST_DEMAND, MISSING = columns(*(f"private_{letter}" for letter in "abcdef"))
IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns("is_turn", "decided", "progress", "last_reward")


class LoopModel(numpy_model.LoopModel):
    """One chain. ``params``: the leaves of SupplyChainParams by name, unbatched."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 32, max_lead_time: int = 3, max_adjustment: int = 6
    ) -> None:
        self.lead = [int(v) for v in params["lead_time"]]
        self.h = [float(v) for v in params["holding_cost"]]
        self.low = [int(v) for v in params["start_low"]]
        self.high = [int(v) for v in params["start_high"]]
        self.cdf = [float(v) for v in params["demand_cdf"]]
        self.b, self.nominal = float(params["backlog_cost"]), float(params["nominal_demand"])
        self.n, self.num_periods = len(self.lead), num_periods
        self.max_lead, self.reach = max_lead_time, max_adjustment

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[N]`` draw the initial stocks."""
        self.on_hand = []
        for low, high, u in zip(self.low, self.high, uniforms, strict=True):
            span = high - low + 1
            self.on_hand.append(low + min(math.floor(np.float32(u) * np.float32(span)), span - 1))
        # (stage it goes to, period it arrives in, units)
        self.moving: list[tuple[int, int, int]] = []
        self.orders = [0] * self.n
        self.shipped = [0] * self.n
        self.backlog, self.last_demand = 0, round(self.nominal)
        self.time, self.last_reward = 0, 0.0

    def supplier_stock(self, stage: int) -> float:
        """What the stage's supplier held at the start of the period."""
        return self.on_hand[stage + 1] if stage + 1 < self.n else math.inf

    def action_mask(self) -> np.ndarray:
        """``bool[A]``: orders within 0 and the supplier's stock, and passing demand on."""
        stock = self.supplier_stock(self.time % self.n)
        changes = range(-self.reach, self.reach + 1)
        return np.array([x == 0 or 0 <= self.last_demand + x <= stock for x in changes])

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One order; on the period's last turn ``uniforms[1]`` draws the demand."""
        stage, period = self.time % self.n, self.time // self.n
        wish = self.last_demand + int(action) - self.reach
        self.orders[stage] = int(min(max(wish, 0), self.supplier_stock(stage)))
        self.time += 1
        if stage < self.n - 1:
            return 0.0, {}
        # Orders leave the suppliers' shelves.
        for i, q in enumerate(self.orders):
            self.moving.append((i, period + self.lead[i] - 1, q))
            if i + 1 < self.n:
                self.on_hand[i + 1] -= q
                self.shipped[i + 1] = q
        # Demand arises, what is due arrives, customers are served.
        demand = 0
        while demand < len(self.cdf) - 1 and uniforms[0] > self.cdf[demand]:
            demand += 1
        for i, due, q in self.moving:
            if due == period:
                self.on_hand[i] += q
        self.moving = [m for m in self.moving if m[1] > period]
        wanted = self.backlog + demand
        served = min(wanted, self.on_hand[0])
        expected = self._expected_cost(self.on_hand[0], self.backlog)
        self.on_hand[0] -= served
        self.backlog = wanted - served
        # Costs at the end of the period.
        held = sum(h * x for h, x in zip(self.h, self.on_hand, strict=True))
        for i, _, q in self.moving:
            held += self.h[i + 1] * q if i + 1 < self.n else 0.0
        owed = self.b * self.backlog
        reward = -(held + owed)
        rest = held - self.h[0] * self.on_hand[0]
        info = {
            "demand": demand,
            "served": served,
            "bought": self.orders[-1],
            "backlog": self.backlog,
            "on_hand": sum(self.on_hand),
            "moving": sum(q for _, _, q in self.moving),
            "holding_cost": held,
            "backlog_cost": owed,
            "fill_rate": served / max(wanted, 1),
            "expected_reward": -(rest + expected),
        }
        self.shipped[0] = served
        self.last_demand, self.last_reward, self.orders = demand, reward, [0] * self.n
        return reward, info

    def _expected_cost(self, stock: int, backlog: int) -> float:
        """Mean over demand of stage 0's holding and the backlog's cost [money]."""
        cost, below = 0.0, 0.0
        for d, upto in enumerate(self.cdf):
            net = stock - backlog - d
            cost += (upto - below) * (self.h[0] * max(net, 0) + self.b * max(-net, 0))
            below = upto
        return cost

    def tokens(self) -> np.ndarray:
        """``f32[N + 2, columns]``: stages, customers, clock."""
        out = np.zeros((self.n + 2, NUM_TOKEN_FEATURES))
        turn, period = self.time % self.n, self.time // self.n
        below, lead, most = -self.backlog, 0, self.n * self.max_lead
        for i in range(self.n):
            # In (i, due, q) an order due this period or later is still moving.
            soon = sum(q for j, due, q in self.moving if j == i and due == period)
            late = sum(q for j, due, q in self.moving if j == i and due > period)
            below += self.on_hand[i] + soon + late
            position = below + self.orders[i]
            lead += self.lead[i]
            mean = (self.last_demand + self.nominal) / 2 * lead
            need = mean + 2 * math.sqrt(mean)
            row = out[i]
            row[STORE] = 1
            row[URGENCY] = max(need - position, 0)
            row[MISSING] = min(max(need - position, 0) / need, 1)
            row[SLACK] = min(max(position - need, 0) / need, 1)
            row[LEVEL], row[LEAD], row[OWN_LEAD] = self.on_hand[i] / 10, lead / most, self.lead[i] / self.max_lead
            row[INFLOW], row[LATER], row[OUTFLOW] = soon / 10, late / 10, self.shipped[i] / 10
            row[COVER], row[UNIT_COST] = position / lead / 10, self.h[i] / 2
            row[IS_TURN], row[DECIDED] = turn == i, self.orders[i] / 10
        out[:-1, WAITING], out[:-1, LAST_DEMAND] = self.backlog / 10, self.last_demand / 10
        customers, clock = out[-2], out[-1]
        customers[DEMAND] = clock[CLOCK] = 1
        customers[URGENCY], customers[INFLOW] = self.backlog, self.nominal / 10
        customers[SLACK] = 1 - self.backlog / max(self.backlog + self.shipped[0], 1)
        customers[OUTFLOW] = self.shipped[0] / 10
        out[:, PROGRESS] = min(self.time / (self.n * self.num_periods), 1)
        out[:, LAST_REWARD] = self.last_reward / 100
        relative(out)
        return np.clip(out, -10, 10).astype(np.float32)


class BatchModel(numpy_model.BatchModel):
    """A batch of chains. ``params``: the leaves of SupplyChainParams by name, with a leading batch axis.

    What does not change within a period, or ever, is written to the tokens once: :meth:`tokens` returns the same buffer
    every time.
    """

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 32, max_lead_time: int = 3, max_adjustment: int = 6
    ) -> None:
        p = {k: np.asarray(v) for k, v in params.items()}
        self.lead, self.h, self.cdf = p["lead_time"].astype(np.int32), p["holding_cost"], p["demand_cdf"]
        self.low, self.high, self.b, self.nominal = (
            p["start_low"],
            p["start_high"],
            p["backlog_cost"],
            p["nominal_demand"],
        )
        self.batch, self.n = self.lead.shape
        self.num_periods, self.slots, self.reach = num_periods, max_lead_time, max_adjustment
        # Column by column is contiguous for batch-first arithmetic, and so are the slots of the pipe.
        self.arrival = np.arange(max_lead_time)[:, None, None] == self.lead - 1
        self.echelon_lead = np.cumsum(self.lead, axis=1).astype(np.float32)
        self.mean_demand = (1.0 - self.cdf).sum(axis=1)
        self.changes = np.arange(-max_adjustment, max_adjustment + 1, dtype=np.int32)
        self.table = np.arange(self.cdf.shape[1])
        self.buffer = np.zeros((self.batch, self.n + 2, NUM_TOKEN_FEATURES), np.float32)
        stages = self.buffer[:, : self.n]
        stages[:, :, STORE] = 1
        stages[:, :, LEAD] = self.echelon_lead / (self.n * max_lead_time)
        stages[:, :, OWN_LEAD] = self.lead / np.float32(max_lead_time)
        stages[:, :, UNIT_COST] = self.h / 2
        self.buffer[:, -2, INFLOW] = self.nominal / 10
        self.buffer[:, -2, DEMAND] = self.buffer[:, -1, CLOCK] = 1

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, N]`` draw the initial stocks."""
        span = (self.high - self.low + 1).astype(np.float32)
        self.on_hand = self.low + np.minimum(np.floor(uniforms * span), span - 1).astype(np.int32)
        self.pipe = np.zeros((self.slots, self.batch, self.n), np.int32)
        self.orders = np.zeros((self.batch, self.n), np.int32)
        self.shipped = np.zeros((self.batch, self.n), np.int32)
        self.backlog = np.zeros(self.batch, np.int32)
        self.last_demand = np.rint(self.nominal).astype(np.int32)
        self.last_reward = np.zeros(self.batch, np.float32)
        self.time = 0
        self._write_period()
        self._write_turn()

    def action_mask(self) -> np.ndarray:
        """``bool[B, A]``: orders within 0 and the supplier's stock, and passing demand on."""
        turn = self.time % self.n
        order = self.last_demand[:, None] + self.changes
        mask = order >= 0
        if turn + 1 < self.n:
            mask &= order <= self.on_hand[:, turn + 1, None]
        mask[:, self.reach] = True
        return mask

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One order each; on the period's last turn ``uniforms[B, 1]`` draw the demands."""
        turn = self.time % self.n
        order = np.maximum(self.last_demand + action - self.reach, 0)
        if turn + 1 < self.n:
            np.minimum(order, self.on_hand[:, turn + 1], out=order)
        self.orders[:, turn] = order
        self.time += 1
        if turn < self.n - 1:
            self._write_turn()
            return np.zeros(self.batch, np.float32), {}
        self.pipe += self.arrival * self.orders
        self.shipped[:, 1:] = self.orders[:, :-1]
        self.on_hand[:, 1:] -= self.orders[:, :-1]
        self.on_hand += self.pipe[0]
        self.pipe[:-1] = self.pipe[1:]
        self.pipe[-1] = 0
        moving = self.pipe.sum(axis=0)
        demand = np.minimum((uniforms[:, :1] > self.cdf).sum(axis=1), self.cdf.shape[1] - 1).astype(np.int32)
        net = self.on_hand[:, 0] - self.backlog
        wanted = self.backlog + demand
        served = np.minimum(wanted, self.on_hand[:, 0])
        self.on_hand[:, 0] -= served
        self.backlog = wanted - served
        rest = (self.h[:, 1:] * (self.on_hand[:, 1:] + moving[:, :-1])).sum(axis=1)
        held = rest + self.h[:, 0] * self.on_hand[:, 0]
        owed = self.b * self.backlog
        over = (self.cdf * (self.table < net[:, None])).sum(axis=1) + np.maximum(net - self.cdf.shape[1], 0)
        expected = rest + self.h[:, 0] * over + self.b * (over - net + self.mean_demand)
        info = {
            "demand": demand,
            "served": served,
            "bought": self.orders[:, -1].copy(),
            "backlog": self.backlog,
            "on_hand": self.on_hand.sum(axis=1),
            "moving": moving.sum(axis=1),
            "holding_cost": held,
            "backlog_cost": owed,
            "fill_rate": served / np.maximum(wanted, 1),
            "expected_reward": -expected,
        }
        self.shipped[:, 0] = served
        self.last_demand, self.last_reward = demand, -(held + owed)
        self.orders[:] = 0
        self._write_period()
        self._write_turn()
        return self.last_reward, info

    def _write_period(self) -> None:
        """Columns that change once a period."""
        stages, customers = self.buffer[:, : self.n], self.buffer[:, -2]
        self.stock = np.cumsum(self.on_hand + self.pipe.sum(axis=0), axis=1) - self.backlog[:, None]
        mean = (0.5 * (self.last_demand + self.nominal))[:, None] * self.echelon_lead
        self.need = (mean + 2 * np.sqrt(mean)).astype(np.float32)
        stages[:, :, LEVEL] = np.minimum(self.on_hand / 10, 10)
        stages[:, :, INFLOW] = np.minimum(self.pipe[0] / 10, 10)
        stages[:, :, LATER] = np.minimum(self.pipe[1:].sum(axis=0) / 10, 10)
        stages[:, :, OUTFLOW] = np.minimum(self.shipped / 10, 10)
        self.buffer[:, :-1, WAITING] = np.minimum(self.backlog / 10, 10)[:, None]
        self.buffer[:, :-1, LAST_DEMAND] = self.last_demand[:, None] / 10
        unserved = self.backlog / np.maximum(self.backlog + self.shipped[:, 0], 1)
        customers[:, SLACK] = 1 - unserved
        customers[:, OUTFLOW] = stages[:, 0, OUTFLOW]
        self.buffer[:, :, LAST_REWARD] = np.clip(self.last_reward / 100, -10, 10)[:, None]

    def _write_turn(self) -> None:
        """Columns that change with every order."""
        stages, turn = self.buffer[:, : self.n], self.time % self.n
        position = self.stock + self.orders
        lacking = self.need - position
        self.buffer[:, -2, URGENCY] = self.backlog
        stages[:, :, URGENCY] = np.maximum(lacking, 0)
        stages[:, :, MISSING] = np.clip(lacking / self.need, 0, 1)
        stages[:, :, SLACK] = np.clip(-lacking / self.need, 0, 1)
        stages[:, :, COVER] = np.clip(position / self.echelon_lead / 10, -10, 10)
        stages[:, :, DECIDED] = np.minimum(self.orders / 10, 10)
        stages[:, :, IS_TURN] = np.arange(self.n) == turn
        self.buffer[:, :, PROGRESS] = min(self.time / (self.n * self.num_periods), 1)
        relative(self.buffer)

    def tokens(self) -> np.ndarray:
        """``f32[B, N + 2, columns]``: stages, customers, clock."""
        return self.buffer
