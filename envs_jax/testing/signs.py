"""What random play and the reference say about urgency, slack and the direction of actions: statistics of a domain.

Notation: in a state with legal actions L, a score f of actions has the *excess* ``f(a) - mean of f over L``. Under
uniformly random choices its mean is 0 in every state, whatever f is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from envs_jax.observation import ROLES, Observation
from envs_jax.testing.evidence import Evidence

AHEAD = 8
"""Periods whose discounted reward is what a choice has brought."""


class Interval(NamedTuple):
    """A mean over tasks, with the ends of its 95 % interval (two standard errors)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Interval | None:
        """None without two values."""
        if len(values) < 2:
            return None
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
        return cls(mean, mean - 2 * error, mean + 2 * error)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of a vector's values, ties at their mean, less the mean of all ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    middle = upto - (counts - 1) / 2.0
    return middle[inverse.reshape(values.shape)] - (len(values) + 1) / 2.0


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Of two vectors about their zero; None if one is 0 everywhere."""
    size = np.sqrt(np.sum(one**2) * np.sum(other**2))
    return float(np.sum(one * other) / size) if size > 0 else None


def excess(score: np.ndarray, seen: Observation, action: np.ndarray) -> np.ndarray:
    """``score f[..., A]`` of the chosen actions ``i[...]``, less its mean over legal ones."""
    legal = np.asarray(seen.action_mask, np.float64)
    chosen = np.take_along_axis(score, action[..., None], -1)[..., 0]
    return chosen - (score * legal).sum(-1) / legal.sum(-1)


def value_of_serving(seen: Observation) -> np.ndarray:
    """``(urgency - slack)[target] x signed`` of every action, ``f64[..., A]``; 0 for those without a target."""
    need = np.asarray(seen.column("urgency") - seen.column("slack"), np.float64)
    at_target = np.take_along_axis(need, np.maximum(seen.action_target, 0), -1)
    return np.where(seen.action_target >= 0, at_target, 0.0) * seen.action_column("signed")


def what_serving_brings(k: Evidence) -> float | None:
    """The t-value of ``(urgency - slack)[target] x signed`` on returns under random play; None if it is 0 always.

    Returns are the discounted rewards of the next :data:`AHEAD` periods, expected ones where the domain states them,
    less their mean over episodes of the same task at the same time, in units of their spread in that task. The
    regressor is the excess of the chosen action. Errors of an episode depend on each other: its sum is one observation.
    """
    sums = []
    discount = k.env.discount_factor ** np.arange(AHEAD)
    for plays in k.random_choices():
        serving, returns = [], []
        for seen, action, reward in plays:
            apart = (len(action), k.env.num_periods, k.env.num_turns)
            serving.append(excess(value_of_serving(seen), seen, action).reshape(apart).sum(-1))
            paid = np.asarray(reward, np.float64).reshape(apart).sum(-1)
            returns.append(np.stack([np.convolve(x[::-1], discount)[: x.size][::-1] for x in paid]))
        ahead = np.stack(returns)  # [LUCKS, TASKS, P]
        ahead -= ahead.mean(0)
        spread = ahead.std((0, 2), keepdims=True)
        sums.append((np.stack(serving) * ahead / np.where(spread > 0, spread, 1.0)).sum(-1).ravel())
    total = np.concatenate(sums)
    error = np.sqrt(np.sum(total**2))
    return float(total.sum() / error) if error > 0 else None


def serving_of_the_reference(k: Evidence) -> Interval | None:
    """Correlation of an entity's rank of urgency with how much more than chance the reference serves it.

    In every choice, of every entity that a legal action may concern: the excess of ``signed`` towards it, which is
    negative where the reference loads it more than chance would. Ranks are taken over all choices and candidates of a
    task's episodes, so it counts both whom the reference serves and when. Random play has 0. Where the urgency of
    candidates never varies, as that of suppliers, ranks are those of less slack; None if that does not vary either.

    The reference is asked in the states of others' play, blind to what is seen. Along its own, urgency would be what it
    has left over: whom it serves best has none, whom it rightly neglects has most.
    """
    found: list[float] = []
    for seen, choice, *_ in k.trials:
        signed = np.asarray(seen.action_column("signed"), np.float64)
        entities = range(seen.tokens.shape[-2])
        served = np.stack([excess(np.where(seen.action_target == i, signed, 0.0), seen, choice) for i in entities], -1)
        candidate = seen.column("is_candidate") > 0
        for task in range(choice.shape[1]):
            may = candidate[:, task]
            needs = (ranks(need[:, task][may]) for need in (seen.column("urgency"), -seen.column("slack")))
            values = (correlation(need, served[:, task][may]) for need in needs if need.any())
            found += [value for value in values if value is not None][:1]
    return Interval.of(found)


def urgency_against_slack(k: Evidence) -> Interval | None:
    """Rank correlation of urgency and slack over entities of one role and times; None if they never vary together."""
    urgency, slack, present = k.seen.column("urgency"), k.seen.column("slack"), k.seen.token_mask
    found: list[float] = []
    for task in range(len(urgency)):
        for role in ROLES:
            own = present[task] & (k.seen.column(f"role_{role}")[task] == 1)
            value = correlation(ranks(urgency[task][own]), ranks(slack[task][own])) if own.any() else None
            found += [] if value is None else [value]
    return Interval.of(found)


def heuristic_against(k: Evidence, other: str) -> Interval:
    """Mean return of the heuristic less that of ``random`` or ``noop``, on the same tasks and noise."""
    gains: list[float] = []
    for trial in k.trials:
        own = trial.returns["heuristic"]
        gains += list(own[:, 0] - trial.random if other == "random" else (own - trial.returns[other]).mean(-1))
    interval = Interval.of(gains)
    assert interval is not None
    return interval
