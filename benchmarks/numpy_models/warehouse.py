"""A warehouse run by a team, in NumPy: the oracle and the benchmark's opponent of ``envs_jax.domains.warehouse``.

Written from the equations (docs/domains/warehouse.md), not from the JAX code: ``Scalar`` is one warehouse in plain
Python loops and float64, ``Vector`` a batch in float32 that shares a clock. Both take parameters by name and uniforms
from outside. Demands are drawn by adding up point masses until they exceed the uniform.
"""

from __future__ import annotations

import math

import numpy as np


class Scalar:
    """One warehouse. ``params``: the leaves of WarehouseParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], cap: int = 6, num_periods: int = 24) -> None:
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

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One flow; on the period's last turn ``uniforms[N]`` draw the demands."""
        i, last = self.level(), self.time % self.n == self.n - 1
        self.stock[i] += int(action)
        self.flow[i] += int(action)
        if i > 0:
            self.stock[i - 1] -= int(action)
        self.time += 1
        if not last:
            return 0.0, {}
        info = dict.fromkeys(("ordering", "holding", "shortage", "sales", "lost", "expected_reward"), 0.0)
        info["bought"] = float(self.flow[0])
        for j in range(self.n):
            y, demand, mass = self.stock[j], 0, math.exp(-self.rates[j])
            below = mass
            while float(uniforms[j]) > below and demand < 200:
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


class Vector:
    """A batch of warehouses that share a clock. ``params``: leaves with a leading batch axis."""

    def __init__(self, params: dict[str, np.ndarray], cap: int = 6, num_periods: int = 24) -> None:
        self.h, self.rates, self.p, self.k = (
            np.asarray(params[name], np.float32) for name in ("holding", "rates", "shortage", "order_cost")
        )
        self.batch, self.n = self.h.shape
        self.cap, self.num_periods = cap, num_periods
        counts = np.arange(32)
        factorial = np.cumprod(np.maximum(counts, 1).astype(float))
        mass = np.exp(-self.rates[..., None].astype(float)) * self.rates[..., None].astype(float) ** counts / factorial
        self.below = np.cumsum(mass, axis=-1).astype(np.float32)

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, N]`` draw the stocks."""
        self.stock = np.minimum((uniforms * (self.cap + 1)).astype(np.int32), self.cap)
        self.flow = np.zeros_like(self.stock)
        self.time = 0

    def step(self, actions: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """One flow of every warehouse ``i32[B]``; returns rewards ``f32[B]``."""
        turn = self.time % self.n
        i = self.n - 1 - turn
        self.stock[:, i] += actions
        self.flow[:, i] += actions
        if i > 0:
            self.stock[:, i - 1] -= actions
        self.time += 1
        if turn < self.n - 1:
            return np.zeros(self.batch, np.float32)
        demand = np.minimum((uniforms[..., None] > self.below).sum(-1), 31)
        left, lost = np.maximum(self.stock - demand, 0), np.maximum(demand - self.stock, 0)
        reward = -(self.k * (self.flow > 0) + self.h * left + self.p * lost).sum(-1)
        self.stock, self.flow = left.astype(np.int32), np.zeros_like(self.flow)
        return reward.astype(np.float32)
