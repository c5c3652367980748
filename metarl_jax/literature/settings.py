"""The tasks as environments, and the settings with which learners meet them: what a run's figure depends on.

A learner without settings of its own takes those of the task, where its configuration has such fields, and else its
defaults: a new learner runs on every task without a line here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from envs_jax.adapters import GymnaxTask
from envs_jax.environment import ResourceEnv
from envs_jax.foreign import BernoulliBandit, GridNavigation, PointNavigation
from metarl_jax import learners
from metarl_jax.configs import DataConfig, FineTuningConfig, NetworkConfig

ENVIRONMENTS: Mapping[str, Callable[[], ResourceEnv]] = {
    "cartpole": lambda: GymnaxTask("CartPole-v1"),
    "acrobot": lambda: GymnaxTask("Acrobot-v1"),
    "catch": lambda: GymnaxTask("Catch-bsuite", num_periods=128),
    "bandit-10x5": lambda: BernoulliBandit(10, 5),
    "bandit-100x5": lambda: BernoulliBandit(100, 5),
    "navigation": PointNavigation,
    "gridnavi": GridNavigation,
}
"""By the task's name; catch is played in windows of 128 steps, each of about 14 games."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a trained learner is tested.

    Attributes:
      support: episodes of a task that it plays before the one that counts.
      tasks: new tasks; 1 where there is one task.
      episodes: query episodes of each.
      beside: smaller numbers of support episodes, tested too.
    """

    support: int
    tasks: int
    episodes: int
    beside: tuple[int, ...] = ()


PROTOCOLS: Mapping[str, Protocol] = {
    "cartpole": Protocol(0, 1, 100),
    "acrobot": Protocol(0, 1, 100),
    "catch": Protocol(0, 1, 100),
    "bandit-10x5": Protocol(0, 4096, 2),
    "bandit-100x5": Protocol(0, 1024, 2),
    "navigation": Protocol(20, 64, 2, (0,)),
    "gridnavi": Protocol(2, 256, 2, (0, 1, 3)),
}

MLP = NetworkConfig(width=64, layers=0, heads=1, channels=2, head_width=64, slots=1, hidden=64)
"""Of one token, a multilayer perceptron."""

TASK_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "cartpole": {"network": MLP, "data": DataConfig(tasks=1, episodes=4, periods=1)},
    "acrobot": {"network": MLP, "data": DataConfig(tasks=1, episodes=4, periods=1)},
    "catch": {"network": MLP, "data": DataConfig(tasks=1, episodes=8, periods=1)},
    "bandit-10x5": {"network": MLP, "data": DataConfig(tasks=512, episodes=1, periods=10)},
    "bandit-100x5": {"network": MLP, "data": DataConfig(tasks=128, episodes=1, periods=100)},
    "navigation": {
        "network": MLP,
        "data": DataConfig(tasks=20, episodes=20, periods=100),
        "fine_tuning": FineTuningConfig(step_sizes=(0.01, 0.1, 0.5), steps=(1, 3, 10)),
    },
    "gridnavi": {"network": MLP, "data": DataConfig(tasks=64, episodes=3, periods=15)},
}
"""Network, and what an iteration collects."""

LEARNER_SETTINGS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("bandit-10x5", "rl2"): {"minibatches": 4, "entropy_weight": 0.002},
    ("bandit-100x5", "rl2"): {"minibatches": 4, "entropy_weight": 0.002},
}
"""What a learner needs beyond, by task and learner."""


def configuration(task: str, learner: str) -> Any:
    """The configuration with which a learner meets a task.

    Raises:
      ValueError: if the learner refuses it.
    """
    kind = learners.config_class(learner)
    known = {field.name for field in dataclasses.fields(kind)}
    settings = {**TASK_SETTINGS[task], **LEARNER_SETTINGS.get((task, learner), {})}
    return kind(**{name: value for name, value in settings.items() if name in known})
