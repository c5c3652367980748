"""Interest evolution in NumPy: the independent models of ``envs_jax.domains.recommender``.

Written from the equations (docs/domains/recommender.md), not from the JAX code: ``LoopModel`` is one user in plain
Python loops and float64, ``BatchModel`` a batch of users in float32 that share a clock. Both take the parameters by
name and the uniforms from outside, so they can be fed the very draws of another implementation.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

URGENCY, SLACK, SUPPLIER, DEMAND, LEVEL, CAPACITY, OUTFLOW, AGE = columns(
    "urgency", "slack", "role_supplier", "role_demand", "level", "capacity", "outflow", "age"
)
UNIT_COST, UNIT_VALUE, IS_TURN, DECIDED, PROGRESS, LAST_REWARD = columns(
    "unit_cost", "unit_value", "is_turn", "decided", "progress", "last_reward"
)
LAST_QUALITY, MEAN_QUALITY, SHOWN, WATCHED_SHARE = columns("private_a", "private_b", "private_c", "private_d")
(CHOOSINESS,) = columns("private_e")
PRESENT = LAST_QUALITY  # of the user
BEST = 3.4
PATIENCE = 5.0


class LoopModel(numpy_model.LoopModel):
    """One user. ``params``: the leaves of RecommenderParams by name, unbatched; m and k are those of the domain."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 45, num_candidates: int = 10, slate_size: int = 3
    ) -> None:
        for name in ("minutes", "skip", "bonus", "quality_sd", "no_click", "logit", "interest_spread"):
            setattr(self, name, float(params[name]))
        self.start_budget, self.beta = float(params["budget"]), float(params["sharpness"])
        self.y = float(params["interest_step"])
        self.topic_quality = np.asarray(params["topic_quality"], float).tolist()
        self.start_interests = np.asarray(params["interests"], float).tolist()
        self.g, self.m, self.k, self.num_periods = len(self.topic_quality), num_candidates, slate_size, num_periods

    def offer(self, uniforms: np.ndarray) -> list[int]:
        """The candidates' topics."""
        return [min(int(np.float32(u) * np.float32(self.g)), self.g - 1) for u in uniforms]

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[m + G]`` draw the candidates and the interests."""
        self.candidates = self.offer(uniforms[: self.m])
        self.u = [
            min(max(base + self.interest_spread * (2.0 * float(draw) - 1.0), -1.0), 1.0)
            for base, draw in zip(self.start_interests, uniforms[self.m :], strict=True)
        ]
        self.budget, self.here = self.start_budget, True
        self.slate: list[int] = []
        self.impressions, self.watched = [0] * self.g, [0] * self.g
        self.quality_sum = [0.0] * self.g
        self.last: tuple[int, float] | None = None
        self.quiet, self.time, self.last_reward = 0, 0, 0.0

    def action_mask(self) -> np.ndarray:
        """``bool[G + 1]`` topics with a candidate left; an empty slot is always possible."""
        left = [self.candidates.count(topic) > self.slate.count(topic) for topic in range(self.g)]
        return np.array([*left, True])

    def weight(self, topic: int) -> float:
        """Weight of a document in the user's choice."""
        return math.exp(self.beta * self.u[topic]) if self.logit else 1.0 + self.u[topic]

    def step(self, action: int, uniforms: np.ndarray) -> tuple[float, dict[str, float]]:
        """One slot; on the period's last turn the user answers: ``uniforms[m + 3]``."""
        if action < self.g:
            self.slate.append(int(action))
        self.time += 1
        if self.time % self.k:
            return 0.0, {}
        none = math.exp(self.no_click) if self.logit else 1.0 + self.no_click
        total = none + sum(self.weight(topic) for topic in self.slate)
        choice, luck, direction = (float(u) for u in uniforms[self.m :])
        shares = [self.slate.count(t) / len(self.slate) for t in set(self.slate)]
        info = {
            "expected_reward": 0.0,
            "click": 0.0,
            "click_probability": 0.0,
            "quality": 0.0,
            "diversity": 0.0,
            "response_time": 0.0,
            "session": float(self.here),
        }
        self.last, self.last_reward = None, 0.0
        if self.here:
            length = min(self.budget, self.minutes)
            info["click_probability"] = 1.0 - none / total
            info["expected_reward"] = info["click_probability"] * length
            info["diversity"] = -sum(share * math.log(share) for share in shares)
            for topic in self.slate:
                self.impressions[topic] += 1
            self.quiet += 1
            threshold, clicked = choice * total, None
            for topic in sorted(self.slate):
                threshold -= self.weight(topic)
                if threshold < 0.0:
                    clicked = topic
                    break
            if clicked is None:
                self.budget -= self.skip
            else:
                quality = self.topic_quality[clicked] + self.quality_sd * float(ndtri(luck))
                info |= {"click": 1.0, "quality": quality, "response_time": float(self.quiet)}
                self.quiet, self.last, self.last_reward = 0, (clicked, quality), length
                self.watched[clicked] += 1
                self.quality_sum[clicked] += quality
                self.budget += -length + self.bonus * length * quality
                u = self.u[clicked]
                towards = self.y * (1.0 - abs(u)) * (1.0 - u)
                u = u + towards if direction < (u + 1.0) / 2.0 else u - towards
                self.u[clicked] = min(max(u, -1.0), 1.0)
            self.here = self.budget > 0.0
        self.candidates, self.slate = self.offer(uniforms[: self.m]), []
        return self.last_reward, info

    def tokens(self) -> np.ndarray:
        """``f32[G + 1, columns]``: topics, user."""
        out = np.zeros((self.g + 1, NUM_TOKEN_FEATURES), np.float32)
        shown, clicks = sum(self.impressions), sum(self.watched)
        for t in range(self.g):
            n, w = self.impressions[t], self.watched[t]
            offered, taken = self.candidates.count(t), self.slate.count(t)
            out[t, [SUPPLIER, SLACK, CAPACITY]] = 1, (offered - taken) / offered if offered else 0, offered
            out[t, [LEVEL, DECIDED]] = (offered - taken) / self.k, taken / self.k
            if self.last is not None and self.last[0] == t:
                out[t, [OUTFLOW, LAST_QUALITY]] = 1.0, self.last[1] / BEST
            out[t, MEAN_QUALITY] = self.quality_sum[t] / w / BEST if w else 0.0
            out[t, [SHOWN, WATCHED_SHARE]] = 4 * n / (self.k * self.num_periods), w / max(n, 1)
        user = out[-1]
        user[[DEMAND, URGENCY, PRESENT, CAPACITY]] = 1.0, self.skip * self.here, self.here, self.k
        user[[LEVEL, OUTFLOW, AGE]] = len(self.slate) / self.k, self.last is not None, min(self.quiet / PATIENCE, 10)
        user[MEAN_QUALITY] = sum(self.quality_sum) / clicks / BEST if clicks else 0.0
        user[[SHOWN, WATCHED_SHARE]] = shown / (self.k * self.num_periods), clicks / max(shown, 1)
        user[[IS_TURN, DECIDED, CHOOSINESS]] = 1.0, self.time % self.k / self.k, math.tanh(self.no_click)
        user[UNIT_COST], out[:, UNIT_VALUE] = self.skip / self.minutes, self.minutes / 4.0
        out[:, PROGRESS] = min(self.time / (self.k * self.num_periods), 1.0)
        out[:, LAST_REWARD] = self.last_reward / self.minutes
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` users in lockstep. ``params`` have a leading axis B; arrays are float32."""

    def __init__(
        self, params: dict[str, np.ndarray], num_periods: int = 45, num_candidates: int = 10, slate_size: int = 3
    ) -> None:
        self.p = {name: np.asarray(value, np.float32) for name, value in params.items()}
        self.batch, self.g = self.p["topic_quality"].shape
        self.m, self.k, self.num_periods = num_candidates, slate_size, num_periods
        self.rows = np.arange(self.batch)
        n, self.is_logit = self.p["no_click"], self.p["logit"] > 0
        self.none = np.where(self.is_logit, np.exp(n), 1 + n).astype(np.float32)
        # Everything constant over an episode is written once; step() refreshes the rest.
        self.table = np.zeros((self.batch, self.g + 1, NUM_TOKEN_FEATURES), np.float32)
        self.topics, self.user = self.table[:, :-1], self.table[:, -1]
        self.topics[..., SUPPLIER] = 1
        self.user[:, [DEMAND, IS_TURN, CAPACITY]] = 1
        self.user[:, CHOOSINESS] = np.tanh(n)
        self.user[:, UNIT_COST] = self.p["skip"] / self.p["minutes"]
        self.table[..., UNIT_VALUE] = (self.p["minutes"] / 4)[:, None]

    def _offer(self, uniforms: np.ndarray) -> None:
        topics = np.minimum((uniforms * np.float32(self.g)).astype(np.int64), self.g - 1)
        flat = topics + self.g * self.rows[:, None]
        self.offered = np.bincount(flat.ravel(), minlength=self.g * self.batch).reshape(self.batch, self.g)
        self.slate = np.zeros_like(self.offered)
        self.topics[..., LEVEL] = self.offered / self.k
        self.topics[..., CAPACITY] = self.offered / self.offered.max(1, keepdims=True)
        self.topics[..., SLACK] = self.offered > 0
        self.topics[..., DECIDED] = 0
        self.user[:, LEVEL] = 0

    def reset(self, uniforms: np.ndarray) -> None:
        """``uniforms[B, m + G]`` draw the candidates and the interests."""
        self.time = 0
        self._offer(uniforms[:, : self.m])
        draw = 2 * uniforms[:, self.m :] - 1
        self.u = np.clip(self.p["interests"] + self.p["interest_spread"][:, None] * draw, -1, 1).astype(np.float32)
        self.budget = self.p["budget"].copy()
        self.here = np.ones(self.batch, bool)
        self.quiet = np.zeros(self.batch, np.int64)
        self.impressions = np.zeros((self.batch, self.g), np.int64)
        self.watched = np.zeros_like(self.impressions)
        self.quality_sum = np.zeros((self.batch, self.g), np.float32)
        for column in (OUTFLOW, LAST_QUALITY, PROGRESS, LAST_REWARD, AGE, DECIDED):
            self.table[..., column] = 0
        self._show_counts()

    def _show_counts(self) -> None:
        n, w = self.impressions, self.watched
        total, clicks = n.sum(1), w.sum(1)
        self.topics[..., MEAN_QUALITY] = self.quality_sum / (BEST * np.maximum(w, 1))
        self.topics[..., SHOWN] = n * (4 / (self.k * self.num_periods))
        self.topics[..., WATCHED_SHARE] = w / np.maximum(n, 1)
        # The user alone can be urgent, so 1 is what its urgency is relative to.
        self.user[:, PRESENT], self.user[:, URGENCY] = self.here, self.here & (self.p["skip"] > 0)
        self.user[:, AGE] = np.minimum(self.quiet / PATIENCE, 10)
        self.user[:, MEAN_QUALITY] = self.quality_sum.sum(1) / (BEST * np.maximum(clicks, 1))
        self.user[:, SHOWN] = total / (self.k * self.num_periods)
        self.user[:, WATCHED_SHARE] = clicks / np.maximum(total, 1)

    def action_mask(self) -> np.ndarray:
        """``bool[B, G + 1]``."""
        return np.concatenate([self.slate < self.offered, np.ones((self.batch, 1), bool)], axis=1)

    def step(self, action: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One slot ``action[B]`` each; on the period's last turn the users answer: ``uniforms[B, m + 3]``."""
        rows = self.rows[action < self.g]
        topic = action[action < self.g]
        self.slate[rows, topic] += 1
        left = self.offered[rows, topic] - self.slate[rows, topic]
        self.topics[rows, topic, LEVEL] = left / self.k
        self.topics[rows, topic, SLACK] = left / self.offered[rows, topic]
        self.topics[rows, topic, DECIDED] = self.slate[rows, topic] / self.k
        self.user[rows, LEVEL] += np.float32(1 / self.k)
        self.time += 1
        self.user[:, DECIDED] = self.time % self.k / self.k
        self.table[..., PROGRESS] = min(self.time / (self.k * self.num_periods), 1.0)
        if self.time % self.k:
            return np.zeros(self.batch, np.float32), {}
        beta = self.p["sharpness"][:, None]
        mass = self.slate * np.where(self.is_logit[:, None], np.exp(beta * self.u), 1 + self.u)
        upto = mass.cumsum(1)
        total = upto[:, -1] + self.none
        choice, luck, direction = uniforms[:, self.m :].T
        chosen = (upto <= (choice * total)[:, None]).sum(1)
        click = self.here & (chosen < self.g)
        at = np.minimum(chosen, self.g - 1)
        length = np.minimum(self.budget, self.p["minutes"])
        quality = self.p["topic_quality"][self.rows, at] + self.p["quality_sd"] * ndtri(luck)
        probability = self.here * upto[:, -1] / total
        share = self.slate / np.maximum(self.slate.sum(1, keepdims=True), 1)
        self.quiet += self.here
        info = {
            "expected_reward": probability * length,
            "click": click,
            "click_probability": probability,
            "quality": click * quality,
            "diversity": self.here * -(share * np.log(np.where(share > 0, share, 1))).sum(1),
            "response_time": click * self.quiet,
            "session": self.here,
        }
        reward = (click * length).astype(np.float32)
        self.impressions += self.slate * self.here[:, None]
        self.quiet[click] = 0
        self.topics[..., OUTFLOW] = self.topics[..., LAST_QUALITY] = 0
        rows, at, gained = self.rows[click], at[click], quality[click]
        self.watched[rows, at] += 1
        self.quality_sum[rows, at] += gained
        self.topics[rows, at, OUTFLOW], self.topics[rows, at, LAST_QUALITY] = 1, gained / BEST
        u = self.u[rows, at]
        move = self.p["interest_step"][rows] * (1 - np.abs(u)) * (1 - u)
        self.u[rows, at] = np.clip(u + np.where(direction[rows] < (1 + u) / 2, move, -move), -1, 1)
        cost = np.where(click, length * (1 - self.p["bonus"] * quality), self.p["skip"])
        self.budget = np.where(self.here, self.budget - cost, self.budget).astype(np.float32)
        self.here = self.here & (self.budget > 0)
        self.user[:, OUTFLOW] = click
        self.table[..., LAST_REWARD] = (reward / self.p["minutes"])[:, None]
        self._show_counts()
        self._offer(uniforms[:, : self.m])
        return reward, info

    def tokens(self) -> np.ndarray:
        """``f32[B, G + 1, columns]``, a view that the next step overwrites."""
        return self.table
