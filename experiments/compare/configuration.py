"""What a comparison of learners may be asked to do, and presets."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from experiments.harness.learners import agent_like, registered
from experiments.harness.plan import TrainingRun
from experiments.harness.settings import AgentT, ExperimentConfig, TrainingConfig
from experiments.harness.values import unknown
from experiments.transfer import configuration as transfer
from metarl_jax.checks import check_fields, choice, number, whole
from metarl_jax.configs import FineTuningConfig, FrozenConfig, QLearningConfig

OURS = "transformer_maml_dqn"
"""The learner whose configuration is ``agent``, and which the others are set against."""

SCALARS = ("learning_rate", "reference_weight")
"""Numbers that Q-learners of one network and one set of data share too, as the multitask control of transfer does."""


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """How Q-learners learn in arm rl-only; learners that cannot train on frozen data have rates of their own.

    Attributes:
      data: "collected" lets all play what they train on; "frozen" gives those that can the data of arm reference, which
        the reference partly played.
      learning: from what is collected, in the place of the agent's, which is chosen for frozen data.
      learning_rate: likewise.
    """

    data: Literal["collected", "frozen"] = choice("collected", ("collected", "frozen"))
    learning: QLearningConfig = QLearningConfig()
    learning_rate: float = number(2e-3, 0.0, 1e3, open_low=True)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "reward.")


@dataclasses.dataclass(frozen=True)
class CompareConfig(ExperimentConfig[AgentT]):
    """Which learners are trained, and for how long.

    Attributes:
      learners: their names, also as ``a,b,c``; none given takes all that are registered and can be compared.
      collected: meta-iterations of a learner that collects while it trains; 0 takes as many as play what the frozen
        data and rounds of the others hold.
      reward: how is learned without labels.
    """

    learners: tuple[str, ...] = ()
    collected: int = whole(0, 0, 10_000_000)
    reward: RewardConfig = RewardConfig()

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return "compare"

    @property
    def replicas(self) -> int:
        """Replicas of a training run: one a seed. An agent is trained for one arm, so that arms share programs."""
        return self.seeds

    def agent_of(self, run: TrainingRun) -> Any:
        """A learner's configuration: what it has in common with ``agent``, else its own defaults."""
        agent: Any = self.agent if run.learner == self.learner else agent_like(self.agent, run.learner)
        if not hasattr(agent, "frozen"):
            return agent
        shared: dict[str, Any] = {name: getattr(self.agent, name) for name in SCALARS}
        if run.arm == "rl-only" and self.reward.data == "collected":
            shared |= {"frozen": FrozenConfig(), "learning": self.reward.learning}
            shared["learning_rate"] = self.reward.learning_rate
        elif run.arm == "rl-only":  # reward alone needs the TD error of every query
            shared["frozen"] = dataclasses.replace(agent.frozen, td_share=1.0)
        return dataclasses.replace(agent, **{name: value for name, value in shared.items() if hasattr(agent, name)})

    def iterations_of(self, run: TrainingRun) -> int:
        """Meta-iterations of a training run; on either kind of data, as many episodes are played."""
        if getattr(self.agent_of(run), "frozen", FrozenConfig()).tasks:
            return self.training.iterations
        ours: Any = self.agent
        held = 2 * ours.frozen.tasks + ours.frozen.rounds * ours.frozen.round_tasks if ours.frozen.tasks else 0
        equal = math.ceil(len(self.domains) * held / (2 * ours.data.tasks))
        return self.collected or equal or self.training.iterations

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, by name, before anything is compiled."""
        if self.learner != OURS:
            raise ValueError(f"learner must be {OURS}, whose parts all share; --learners says which are compared")
        names = tuple(name for item in self.learners for name in item.split(","))
        object.__setattr__(self, "learners", names)
        super().__post_init__()
        for name in names:
            if name not in registered():
                raise ValueError(f"learners: {unknown('learner', name, registered())}")
        if len(set(names)) != len(names):
            raise ValueError(f"learners must not repeat a value, got {' '.join(names)}")


CPU = CompareConfig(
    seeds=2,
    agent=dataclasses.replace(transfer.CPU.agent, frozen=FrozenConfig(tasks=48, rounds=2)),
    training=TrainingConfig(iterations=48, interval=8, checkpoint_every=3),
    # Two thirds of what the frozen data hold: arms are not compared, and within that of reward alone all take as many.
    collected=80,
    evaluation=transfer.CPU.evaluation,
)
"""All registered learners on all standard domains, two cores: both arms, two seeds, transfer's agent, less data."""

SMOKE = CompareConfig(
    domains=transfer.SMALL,
    seeds=2,
    # Inner steps too, of one order: a program of the second would double the time.
    agent=dataclasses.replace(
        transfer.SMOKE.agent, fine_tuning=FineTuningConfig(step_sizes=(0.01,), steps=(1, 2), adapt=("head",))
    ),
    reward=RewardConfig(learning=transfer.SMOKE.agent.learning),
    training=TrainingConfig(iterations=4, interval=2, checkpoint_every=1),
    collected=4,
    evaluation=transfer.SMOKE.evaluation,
)
"""Seconds of training: shows that everything runs. Its scores mean nothing."""

PRESETS: dict[str, CompareConfig] = {"cpu": CPU, "smoke": SMOKE}
