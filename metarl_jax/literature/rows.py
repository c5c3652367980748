"""One row a task: what is measured there, what was published, and where a learner passes. Free of jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

Band = tuple[float | None, float | None]
"""Least and largest figure that pass; None where that end is open."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What the literature says of a task, and what is asked for here.

    Attributes:
      measure: what the figure is.
      published: figures that were published, or computed for this project where it says so.
      source: of them.
      passes: bands by learner; ``""`` holds for all others.
      steps: length of training that the row asks for: environment steps, of ``sine`` meta-iterations.
      seeds: training seeds that it asks for.
      statistic: over seeds. "iqm" is the interquartile mean.
      least_seed: no seed may be below it.
      bound: largest mean return that is possible, or what is earned by who knows the task; an agent above it by more
        than 3 standard errors has found a leak.
    """

    measure: str
    published: str
    source: str
    passes: Mapping[str, Band]
    steps: int
    seeds: int = 5
    statistic: Literal["mean", "iqm"] = "mean"
    least_seed: float | None = None
    bound: float | None = None

    def band(self, learner: str) -> Band:
        """Where a learner passes."""
        return self.passes.get(learner, self.passes.get("", (None, None)))


SINE = "sine"
"""The one task that is supervised: its learners are inner loops."""

INNER_LOOPS = ("maml", "fomaml", "meta_sgd", "gated", "learned")
"""Learners of :data:`SINE`; see :mod:`metarl_jax.literature.sine`."""

_GREEDY = "undiscounted return of 100 greedy episodes; interquartile mean over seeds"
_BANDIT = "expected reward of one trial of {} pulls, greedy in what the recurrent state prefers, on new bandits"
_BANDIT_PUBLISHED = (
    "(pulls, arms) random / Gittins / Thompson / UCB1 / RL2, recalled: (10, 5) 5.0 / 6.6 / 5.7 / 6.7 / 6.7; "
    "(100, 5) 49.9 / 78.3 / 74.7 / 78.0 / 78.7"
)
_BANDIT_SOURCE = "Duan et al. 2016 (RL2), table 1; Thompson sampling computed for this project: 74.95 at (100, 5)"

ROWS: dict[str, Row] = {
    "cartpole": Row(
        _GREEDY,
        "dqn_jax 498.4 +- 2.3, dqn 488.7 +- 16.1, ppo 490.0 +- 6.1 (500k steps)",
        "vwxyzjn/cleanrl fe8d8a03",
        {"": (475.0, None)},
        steps=500_000,
        statistic="iqm",
        least_seed=450.0,
    ),
    "acrobot": Row(
        _GREEDY,
        "dqn_jax -88.9 +- 1.6, ppo -86.4 +- 1.3 (500k steps); ppo -80",
        "vwxyzjn/cleanrl fe8d8a03; RobertTLange/gymnax 086ad95",
        {"": (-95.0, None)},
        steps=500_000,
        statistic="iqm",
    ),
    "catch": Row(
        _GREEDY,
        "ppo 1.0 (100k steps)",
        "RobertTLange/gymnax 086ad95",
        {"": (0.95, None)},
        steps=100_000,
        statistic="iqm",
        bound=1.0,
    ),
    "bandit-10x5": Row(
        _BANDIT.format(10),
        f"{_BANDIT_PUBLISHED}. Exact optimum 6.660; the greedy rule on posterior means 6.62",
        f"{_BANDIT_SOURCE}; optimum by dynamic programming, envs_jax/foreign/bandits.py",
        {"rl2": (6.55, None)},
        steps=1_250_000,
        bound=6.659988,
    ),
    "bandit-100x5": Row(
        _BANDIT.format(100),
        f"{_BANDIT_PUBLISHED}. The greedy rule on posterior means 75.95",
        _BANDIT_SOURCE,
        {"rl2": (77.0, None)},
        steps=25_000_000,
        bound=100 * 5 / 6,
    ),
    "navigation": Row(
        "return of an episode of 100 moves after adapting to 20 of its own; K=0 beside it",
        "after 0 / 1 / 2 / 3 gradient steps, read off a figure: MAML -40 / -11.6 / -3.3 / -3.2, pretrained -40 / -19.6 "
        "/ -11.6 / -8.5, oracle -2.3, of another environment: continuous moves and an end near the goal",
        "Finn et al. 2017 (MAML), figure 4; cbfinn/maml_rl point_env_randgoal",
        {"": (-16.0, None)},
        steps=8_000_000,
        bound=-1.275,
    ),
    "gridnavi": Row(
        "return of the third episode of a trial of four; the first beside it",
        "goal known 11.071 an episode; best possible first episode 4.000 (both exact); VariBAD trains 2e7 frames",
        "lmzintgraf/varibad; exact figures: envs_jax/foreign/grid_navigation.py",
        {"": (9.0, None)},
        steps=5_000_000,
        bound=232.5 / 21,
    ),
    SINE: Row(
        "mean squared error on new points of 2000 new sines after one step on K=10 points",
        "computed for this project, one seed: before 2.96, after 1 / 10 steps .327 / .107, first order .411 / .121; "
        "the paper has a figure only",
        "Finn et al. 2017 (MAML), section 5.1; cbfinn/maml",
        {"maml": (0.28, 0.38), "meta_sgd": (None, 0.327), "gated": (None, 0.327)},
        steps=70_000,
    ),
}
"""The tasks by name."""
