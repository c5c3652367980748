"""Garleanu-Pedersen trading in NumPy: the independent models of ``envs_jax.domains.portfolio``.

Written from the equations (docs/domains/portfolio.md), not from the JAX code: ``LoopModel`` is one market in plain
Python loops and float64, ``BatchModel`` a batch of markets in float32 that share a clock. Both take the parameters by
name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

LEVELS = 9
HOLD = 4
URGENCY, STORE, MARKET, CLOCK = columns("urgency", "role_store", "role_market", "role_clock")
LEVEL, CAPACITY, UNIT_COST, IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns(
    "level", "capacity", "unit_cost", "is_turn", "decided", "progress", "last_reward"
)
RETURN, FIRST, SECOND, TOLERANCE, RATE = columns(*(f"private_{letter}" for letter in "abcde"))  # of assets
CHANGE, LARGEST, CORRELATION = columns("private_a", "private_a", "private_b")  # of factors; of the mandate


class LoopModel(numpy_model.LoopModel):
    """One market. ``params``: the leaves of PortfolioParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 32) -> None:
        self.loadings = np.asarray(params["loadings"], float).tolist()
        self.phi = np.asarray(params["mean_reversion"], float).tolist()
        self.gamma, self.lam, self.c, self.unit, self.limit = (
            float(params[k])
            for k in ("risk_aversion", "cost_multiplier", "correlation", "trade_unit", "position_limit")
        )
        self.n, self.k, self.num_periods = len(self.loadings), len(self.phi), num_periods

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[K]`` draw the factors."""
        self.f = [float(ndtri(float(u))) for u in uniforms]
        self.f_before = list(self.f)
        self.x, self.x_start, self.r = [0.0] * self.n, [0.0] * self.n, [0.0] * self.n
        self.time, self.last_reward = 0, 0.0

    def action_mask(self) -> np.ndarray:
        """``bool[9]`` trades of the asset in turn that keep it within the limit."""
        x = self.x[self.time % self.n]
        return np.array([abs(x + (a - HOLD) * self.unit) < self.limit + 0.01 * self.unit for a in range(LEVELS)])

    def quadratic(self, v: list[float]) -> float:
        """``v' Sigma v`` with unit variances and correlation c."""
        return sum(v[i] * v[j] * (1.0 if i == j else self.c) for i in range(self.n) for j in range(self.n))

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One trade; on the period's last turn ``uniforms[N+K]`` move the market."""
        turn = self.time % self.n
        self.x[turn] += (int(action) - HOLD) * self.unit
        self.time += 1
        if turn < self.n - 1:
            return 0.0, {}
        z = [float(ndtri(float(u))) for u in uniforms]
        # Sigma's square root: a common part along (1, .., 1) and an idiosyncratic part across it.
        mean = sum(z[: self.n]) / self.n
        along, across = math.sqrt(1.0 + (self.n - 1) * self.c), math.sqrt(1.0 - self.c)
        forecast = [sum(self.loadings[i][k] * self.f[k] for k in range(self.k)) for i in range(self.n)]
        self.r = [forecast[i] + along * mean + across * (z[i] - mean) for i in range(self.n)]
        dx = [now - before for now, before in zip(self.x, self.x_start, strict=True)]
        risk, cost = 0.5 * self.gamma * self.quadratic(self.x), 0.5 * self.lam * self.quadratic(dx)
        profit = sum(x * r for x, r in zip(self.x, self.r, strict=True))
        predicted = sum(x * m for x, m in zip(self.x, forecast, strict=True))
        self.last_reward = profit - risk - cost
        info = {
            "expected_reward": predicted - risk - cost,
            "profit": profit,
            "cost": cost,
            "risk": risk,
            "turnover": sum(abs(d) for d in dx),
            "gross": sum(abs(x) for x in self.x),
        }
        self.f_before = self.f
        self.f = [
            (1.0 - p) * f + math.sqrt(1.0 - (1.0 - p) ** 2) * e
            for f, p, e in zip(self.f, self.phi, z[self.n :], strict=True)
        ]
        self.x_start = list(self.x)
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[N+K+1, columns]``: assets, factors, mandate."""
        out = np.zeros((self.n + self.k + 1, NUM_TOKEN_FEATURES), np.float32)
        largest = 4.0 * self.unit
        a = (-self.gamma + math.sqrt(self.gamma**2 + 4.0 * self.gamma * self.lam)) / 2.0
        for i in range(self.n):
            exposure = sum(self.x[j] * (1.0 if i == j else self.c) for j in range(self.n))
            out[i, URGENCY] = max(0.5 * self.gamma * self.x[i] * exposure, 0.0)
            out[i, [STORE, LEVEL, CAPACITY]] = 1.0, self.x[i] / self.limit, self.limit
            out[i, [RETURN, FIRST]] = self.r[i] / 2.0, self.f[0] / 2.0
            out[i, SECOND] = self.f[1] / 2.0 if self.k > 1 else 0.0
            out[i, IS_TURN] = float(i == self.time % self.n)
            out[i, DECIDED] = (self.x[i] - self.x_start[i]) / largest
        for k in range(self.k):
            out[self.n + k, [MARKET, LEVEL, CHANGE]] = 1.0, self.f[k] / 2.0, (self.f[k] - self.f_before[k]) / 2.0
        out[-1, [CLOCK, LARGEST, CORRELATION]] = 1.0, largest / self.limit, self.c
        for i in [*range(self.n), self.n + self.k]:
            out[i, [UNIT_COST, TOLERANCE, RATE]] = self.lam / 2.0, 1.0 / (self.gamma * self.limit), a / self.lam
        out[:, PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        out[:, LAST_REWARD] = min(max(self.last_reward / 5.0, -10.0), 10.0)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` markets in lockstep. ``params`` have a leading axis B; arrays are float32 and updated in place."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 32) -> None:
        given = {name: np.asarray(value, np.float32) for name, value in params.items()}
        self.loadings, self.unit, self.limit = given["loadings"], given["trade_unit"], given["position_limit"]
        self.batch, self.n, self.k = self.loadings.shape
        self.num_periods = num_periods
        gamma, lam, self.c = given["risk_aversion"], given["cost_multiplier"], given["correlation"]
        self.half_gamma, self.half_lambda = gamma / 2, lam / 2
        self.persistence = 1 - given["mean_reversion"]
        self.shock = np.sqrt(1 - self.persistence**2)
        self.across = np.sqrt(1 - self.c)[:, None]
        self.shift = np.sqrt(1 + (self.n - 1) * self.c)[:, None] - self.across
        self.menu = self.unit[:, None] * np.arange(-HOLD, HOLD + 1, dtype=np.float32)
        self.cap = (self.limit + np.float32(0.01) * self.unit)[:, None]
        self.inverse_limit, self.inverse_largest = 1 / self.limit, 1 / (4 * self.unit)
        # Everything constant over an episode is written once; step() refreshes the rest.
        self.table = np.zeros((self.batch, self.n + self.k + 1, NUM_TOKEN_FEATURES), np.float32)
        self.assets, self.signals = self.table[:, : self.n], self.table[:, self.n : -1]
        self.assets[..., STORE] = self.assets[..., CAPACITY] = self.signals[..., MARKET] = 1  # one limit for all assets
        self.table[:, -1, CLOCK] = 1
        self.table[:, -1, LARGEST] = 4 * self.unit / self.limit
        self.table[:, -1, CORRELATION] = self.c
        for rows in (self.assets, self.table[:, -1:]):
            rows[..., UNIT_COST] = self.half_lambda[:, None]
            rows[..., TOLERANCE] = (1 / (gamma * self.limit))[:, None]
            rows[..., RATE] = ((np.sqrt(gamma**2 + 4 * gamma * lam) - gamma) / (2 * lam))[:, None]

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, K]`` draw the factors."""
        self.time = 0
        self.f = ndtri(uniforms, dtype=np.float32)
        self.x = np.zeros((self.batch, self.n), np.float32)
        self.dx = np.zeros_like(self.x)
        for column in (URGENCY, LEVEL, RETURN, IS_TURN, DECIDED):
            self.assets[..., column] = 0
        self.signals[..., CHANGE] = 0
        self.table[..., PROGRESS] = self.table[..., LAST_REWARD] = 0
        self.assets[:, 0, IS_TURN] = 1
        self._show_factors()

    def _show_factors(self) -> None:
        half = self.f / 2
        self.signals[..., LEVEL] = half
        self.assets[..., FIRST : FIRST + min(self.k, 2)] = half[:, None, :2]

    def action_mask(self) -> np.ndarray:
        """``bool[B, 9]``."""
        return np.abs(self.x[:, self.time % self.n, None] + self.menu) < self.cap

    def _quadratic(self, v: np.ndarray) -> np.ndarray:
        total = v.sum(1)
        return (1 - self.c) * np.einsum("bn,bn->b", v, v) + self.c * total * total

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One trade ``action[B]`` each; on the period's last turn ``uniforms[B, N+K]`` move the markets."""
        turn = self.time % self.n
        trade = (action - HOLD) * self.unit
        self.dx[:, turn] = trade
        self.x[:, turn] += trade
        row, c = self.assets[:, turn], self.c[:, None]
        row[:, LEVEL], row[:, DECIDED], row[:, IS_TURN] = (
            self.x[:, turn] * self.inverse_limit,
            trade * self.inverse_largest,
            0,
        )
        share = self.x * ((1 - c) * self.x + c * self.x.sum(1, keepdims=True))  # of the risk, by asset
        self.assets[..., URGENCY] = np.maximum(self.half_gamma[:, None] * share, 0)
        relative(self.table)
        self.time += 1
        self.assets[:, self.time % self.n, IS_TURN] = 1
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.n), 1.0)
        if turn < self.n - 1:
            return np.zeros(self.batch, np.float32), {}
        z = ndtri(uniforms, dtype=np.float32)
        idiosyncratic = z[:, : self.n]
        forecast = np.einsum("bnk,bk->bn", self.loadings, self.f)
        returns = forecast + self.across * idiosyncratic + self.shift * idiosyncratic.mean(1, keepdims=True)
        risk, cost = self.half_gamma * self._quadratic(self.x), self.half_lambda * self._quadratic(self.dx)
        profit = np.einsum("bn,bn->b", self.x, returns)
        reward = profit - risk - cost
        info = {
            "expected_reward": np.einsum("bn,bn->b", self.x, forecast) - risk - cost,
            "profit": profit,
            "cost": cost,
            "risk": risk,
            "turnover": np.abs(self.dx).sum(1),
            "gross": np.abs(self.x).sum(1),
        }
        before = self.f
        self.f = self.persistence * before + self.shock * z[:, self.n :]
        self.dx[:] = 0
        self.assets[..., RETURN] = returns / 2
        self.assets[..., DECIDED] = 0
        self.signals[..., CHANGE] = (self.f - before) / 2
        self.table[..., LAST_REWARD] = np.clip(reward / 5, -10, 10)[:, None]
        self._show_factors()
        return reward, info

    def tokens(self) -> np.ndarray:
        """``f32[B, N+K+1, columns]``, a view that the next step overwrites."""
        return self.table
