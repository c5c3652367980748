"""What a comparison of learners may be asked to do, and presets."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from experiments.harness.learners import agent_like, registered
from experiments.harness.plan import TrainingRun
from experiments.harness.settings import AgentT, EvaluationConfig, ExperimentConfig, TrainingConfig
from experiments.harness.values import unknown
from metarl_jax.checks import choice, whole
from metarl_jax.configs import (
    AdaptationConfig,
    DataConfig,
    FineTuningConfig,
    FrozenConfig,
    NetworkConfig,
    QLearningConfig,
    TransformerMamlDqnConfig,
)

OURS = "transformer_maml_dqn"
"""The learner whose configuration is ``agent``, and which the others are set against."""

SCALARS = ("learning_rate", "reference_weight")
"""Numbers that Q-learners of one network and one set of data share too, as the multitask control of transfer does."""


@dataclasses.dataclass(frozen=True)
class CompareConfig(ExperimentConfig[AgentT]):
    """Which learners are trained, and for how long.

    Attributes:
      learners: their names, also as ``a,b,c``; none given takes all that are registered and can be compared.
      collected: meta-iterations of a learner that collects while it trains; 0 takes as many as play what the frozen
        data and rounds of the others hold.
      reward_data: what learners train on in arm rl-only: "collected", all what they play themselves; or "frozen" for
        those that can, whose data were partly played by the reference.
    """

    learners: tuple[str, ...] = ()
    collected: int = whole(0, 0, 10_000_000)
    reward_data: Literal["collected", "frozen"] = choice("collected", ("collected", "frozen"))

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
        if run.learner == self.learner:
            agent: Any = self.agent
        else:
            agent = agent_like(self.agent, run.learner)
            if hasattr(agent, "frozen"):
                agent = dataclasses.replace(
                    agent, **{name: getattr(self.agent, name) for name in SCALARS if hasattr(agent, name)}
                )
        if run.arm == "rl-only" and self.reward_data == "collected" and hasattr(agent, "frozen"):
            agent = dataclasses.replace(agent, frozen=FrozenConfig())
        return agent

    def iterations_of(self, run: TrainingRun) -> int:
        """Meta-iterations of a training run; on either kind of data, as many episodes are played."""
        frozen = getattr(self.agent_of(run), "frozen", FrozenConfig())
        if frozen.tasks:
            return self.training.iterations
        if self.collected:
            return self.collected
        ours: Any = self.agent
        held = 2 * ours.frozen.tasks + ours.frozen.rounds * ours.frozen.round_tasks if ours.frozen.tasks else 0
        return math.ceil(len(self.domains) * held / (2 * ours.data.tasks)) or self.training.iterations

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
    agent=TransformerMamlDqnConfig(
        network=NetworkConfig(layers=1),
        data=DataConfig(tasks=8),
        frozen=FrozenConfig(tasks=64, rounds=4, td_share=1.0),
        # Tuning the trunk too would compile an acting program of its own for every domain.
        fine_tuning=FineTuningConfig(adapt=("head",)),
        order="none",
        learning_rate=4e-3,
        reference_weight=1.0,
    ),
    training=TrainingConfig(iterations=120, interval=10, checkpoint_every=6),
    # As many query episodes as support episodes: training's programs then serve the tests.
    evaluation=EvaluationConfig(support_episodes=(0, 3, 5), tasks=16, episodes=5),
)
"""All registered learners on all standard domains, two cores: both arms, two seeds, a small network."""

SMOKE = CompareConfig(
    domains=("energy_trading", "portfolio", "supply_chain"),
    seeds=2,
    agent=TransformerMamlDqnConfig(
        network=NetworkConfig(width=8, layers=1, heads=2, channels=2, head_width=8, hidden=8),
        data=DataConfig(tasks=4, episodes=2, periods=8),
        frozen=FrozenConfig(
            tasks=4, batch=3, steps=1, queries=2, samples=2, kept=4, stretch=3, buckets=1, rounds=1, round_tasks=4
        ),
        learning=QLearningConfig(samples=2, num_steps=2, updates=1, replay=2),
        adaptation=AdaptationConfig(steps=1),
        fine_tuning=FineTuningConfig(step_sizes=(0.01,), steps=(1, 2), adapt=("head",)),
        order="first",
        context_share=0.5,
        first_order_share=0.5,
    ),
    training=TrainingConfig(iterations=4, interval=2, checkpoint_every=1),
    collected=4,
    evaluation=EvaluationConfig(support_episodes=(0, 1, 2), tasks=4, episodes=2),
)
"""Seconds of training: shows that everything runs. Its scores mean nothing."""

PRESETS: dict[str, CompareConfig] = {"cpu": CPU, "smoke": SMOKE}
