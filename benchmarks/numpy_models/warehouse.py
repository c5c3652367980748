"""A warehouse run by a team, in NumPy: the oracle and the benchmark's opponent of ``envs_jax.domains.warehouse``.

Written from the equations (docs/domains/warehouse.md), not from the JAX code: ``LoopModel`` is one warehouse in plain
Python loops and float64, ``BatchModel`` a batch in float32 that shares a clock. Both take parameters by name and
uniforms from outside. Demands are drawn by adding up point masses until they exceed the uniform.
"""

from __future__ import annotations

import math

import numpy as np

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

STORE, URGENCY, SLACK, LEVEL, CAPACITY, OUTFLOW = columns(
    "role_store", "urgency", "slack", "level", "capacity", "outflow"
)
UNIT_COST, IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns(
    "unit_cost", "is_turn", "decided", "progress", "last_reward"
)
PLACE, SUPPLY = columns("private_a", "private_b")
NOMINAL = 2.4 / math.log(25.0)
"""Units a period that are expected to be asked for: mean of rates from .1 to 2.5 that are log-uniform."""
DEMANDS = 32
"""Demands are at most one less."""


class LoopModel(numpy_model.LoopModel):
    """One warehouse. ``params``: the leaves of WarehouseParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 24, cap: int = 6) -> None:
        self.h, self.rates, self.p, self.k = (
            [float(value) for value in params[name]] for name in ("holding", "rates", "shortage", "order_cost")
        )
        self.n, self.cap, self.num_periods = len(self.h), cap, num_periods

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[N]`` draw the stocks."""
        self.stock = [min(int(float(u) * (self.cap + 1)), self.cap) for u in uniforms]
        self.flow, self.sales = [0] * self.n, [0] * self.n
        self.time, self.last_reward = 0, 0.0

    def level(self) -> int:
        """Whose turn it is: the last level first."""
        return self.n - 1 - self.time % self.n

    def action_mask(self) -> np.ndarray:
        """``bool[cap + 1]`` amounts that there is room for and that the supplier has."""
        i = self.level()
        return np.array(
            [self.stock[i] + a <= self.cap and (i == 0 or a <= self.stock[i - 1]) for a in range(self.cap + 1)]
        )

    def step(self, action: int, uniforms: np.ndarray | None) -> tuple[float, dict[str, float]]:
        """One flow; on the period's last turn ``uniforms[N]`` draw the demands."""
        i = self.level()
        self.stock[i] += int(action)
        self.flow[i] += int(action)
        if i > 0:
            self.stock[i - 1] -= int(action)
        self.time += 1
        if uniforms is None:
            return 0.0, {}
        info = dict.fromkeys(("ordering", "holding", "shortage", "sales", "lost", "expected_reward"), 0.0)
        info["bought"] = float(self.flow[0])
        for j in range(self.n):
            y, demand, mass = self.stock[j], 0, math.exp(-self.rates[j])
            below = mass
            while float(uniforms[j]) > below and demand < DEMANDS - 1:
                demand += 1
                mass *= self.rates[j] / demand
                below += mass
            sold = min(y, demand)
            ordering = self.k[j] if self.flow[j] > 0 else 0.0
            info["ordering"] += ordering
            info["holding"] += self.h[j] * (y - sold)
            info["shortage"] += self.p[j] * (demand - sold)
            info["sales"] += sold
            info["lost"] += demand - sold
            chance = [math.exp(-self.rates[j]) * self.rates[j] ** d / math.factorial(d) for d in range(80)]
            info["expected_reward"] -= ordering + sum(
                q * (self.h[j] * max(y - d, 0) + self.p[j] * max(d - y, 0)) for d, q in enumerate(chance)
            )
            self.stock[j], self.sales[j] = y - sold, sold
        self.flow = [0] * self.n
        self.last_reward = -(info["ordering"] + info["holding"] + info["shortage"])
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[N, columns]``, level 1 first."""
        out = np.zeros((self.n, NUM_TOKEN_FEATURES))
        for i in range(self.n):
            row = out[i]
            row[STORE], row[CAPACITY] = 1, self.cap
            row[URGENCY] = max(NOMINAL - self.stock[i], 0)
            row[SLACK] = row[LEVEL] = self.stock[i] / self.cap
            row[DECIDED], row[OUTFLOW] = self.flow[i] / self.cap, self.sales[i] / self.cap
            row[PLACE] = i / max(self.n - 1, 1)
            row[SUPPLY] = 1 if i == 0 else self.stock[i - 1] / self.cap
            row[UNIT_COST] = self.h[i] / 10
            row[IS_TURN] = i == self.level()
        out[:, PROGRESS] = min(self.time / (self.n * self.num_periods), 1)
        out[:, LAST_REWARD] = self.last_reward / 20
        return np.clip(relative(out), -10, 10).astype(np.float32)


class BatchModel(numpy_model.BatchModel):
    """A batch of warehouses that share a clock. ``params``: leaves with a leading batch axis.

    :meth:`tokens` returns the same buffer every time.
    """

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 24, cap: int = 6) -> None:
        self.h, self.rates, self.p, self.k = (
            np.asarray(params[name], np.float32) for name in ("holding", "rates", "shortage", "order_cost")
        )
        self.batch, self.n = self.h.shape
        self.cap, self.num_periods = cap, num_periods
        counts, rates = np.arange(DEMANDS), self.rates[..., None].astype(float)
        self.below = np.cumsum(
            np.exp(-rates) * rates**counts / np.cumprod(np.maximum(counts, 1).astype(float)), axis=-1
        )
        # E(D - y)^+ = lam - y + E(y - D)^+, and E(y - D)^+ adds up the distribution function below y.
        stock = np.arange(cap + 1)
        left = np.concatenate([np.zeros_like(rates), np.cumsum(self.below, axis=-1)[..., :cap]], axis=-1)
        self.expected = (self.h[..., None] * left + self.p[..., None] * (rates - stock + left)).astype(np.float32)
        self.below = self.below.astype(np.float32)
        self.rows = np.arange(self.batch)[:, None], np.arange(self.n)[None]
        self.amounts = np.arange(cap + 1)
        self.buffer = np.zeros((self.batch, self.n, NUM_TOKEN_FEATURES), np.float32)
        self.buffer[:, :, [STORE, CAPACITY]] = 1
        self.buffer[:, :, PLACE] = np.arange(self.n) / max(self.n - 1, 1)
        self.buffer[:, 0, SUPPLY] = 1
        self.buffer[:, :, UNIT_COST] = np.minimum(self.h / 10, 10)

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, N]`` draw the stocks."""
        self.stock = np.minimum((uniforms * (self.cap + 1)).astype(np.int32), self.cap)
        self.flow, self.sales = np.zeros_like(self.stock), np.zeros_like(self.stock)
        self.last_reward = np.zeros(self.batch, np.float32)
        self.time = 0

    def _level(self) -> int:
        return self.n - 1 - self.time % self.n

    def action_mask(self) -> np.ndarray:
        """``bool[B, cap + 1]`` amounts that there is room for and that the supplier has."""
        i = self._level()
        most = self.cap - self.stock[:, i]
        if i > 0:
            most = np.minimum(most, self.stock[:, i - 1])
        return self.amounts <= most[:, None]

    def step(self, action: np.ndarray, uniforms: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One flow each; on the period's last turn ``uniforms[B, N]`` draw the demands."""
        i = self._level()
        self.stock[:, i] += action
        self.flow[:, i] += action
        if i > 0:
            self.stock[:, i - 1] -= action
        self.time += 1
        if uniforms is None:
            return np.zeros(self.batch, np.float32), {}
        demand = np.minimum((uniforms[..., None] > self.below).sum(-1), DEMANDS - 1).astype(np.int32)
        self.sales = np.minimum(self.stock, demand)
        left, lost = self.stock - self.sales, demand - self.sales
        ordering, holding, shortage = (
            (self.k * (self.flow > 0)).sum(-1),
            (self.h * left).sum(-1),
            (self.p * lost).sum(-1),
        )
        info = {
            "ordering": ordering,
            "holding": holding,
            "shortage": shortage,
            "sales": self.sales.sum(-1),
            "lost": lost.sum(-1),
            "bought": self.flow[:, 0].copy(),
            "expected_reward": -ordering - self.expected[(*self.rows, self.stock)].sum(-1),
        }
        self.stock, self.flow = left, np.zeros_like(self.flow)
        self.last_reward = -(ordering + holding + shortage)
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[B, N, columns]``, level 1 first."""
        share, out = self.stock / np.float32(self.cap), self.buffer
        out[:, :, URGENCY] = np.maximum(np.float32(NOMINAL) - self.stock, 0)
        out[:, :, SLACK] = out[:, :, LEVEL] = share
        out[:, 1:, SUPPLY] = share[:, :-1]
        out[:, :, DECIDED] = self.flow / np.float32(self.cap)
        out[:, :, OUTFLOW] = self.sales / np.float32(self.cap)
        out[:, :, IS_TURN] = np.arange(self.n) == self._level()
        out[:, :, PROGRESS] = min(self.time / (self.n * self.num_periods), 1)
        out[:, :, LAST_REWARD] = np.clip(self.last_reward / 20, -10, 10)[:, None]
        return relative(out)
