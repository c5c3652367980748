"""What a transfer run may be asked to do, and presets."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from experiments.harness.settings import AgentT, EvaluationConfig, ExperimentConfig, TrainingConfig
from experiments.harness.values import unknown
from metarl_jax.checks import whole
from metarl_jax.configs import (
    AdaptationConfig,
    DataConfig,
    FineTuningConfig,
    FrozenConfig,
    NetworkConfig,
    QLearningConfig,
    TransformerMamlDqnConfig,
)

Protocol = Literal["both", "pairs", "leave-out"]


@dataclasses.dataclass(frozen=True)
class TransferConfig(ExperimentConfig[AgentT]):
    """Which agents are trained, and on which domains each is tested.

    Attributes:
      protocol: "pairs" trains an agent on each domain and tests it on new tasks of every domain; "leave-out" trains on
        all domains but some and tests on those; "both" does both.
      groups: domains are left out in so many groups, one at a time, or in as many as there are domains; 0 leaves out
        each alone (leave-one-out).
    """

    protocol: Protocol = "both"
    groups: int = whole(0, 0, 1000)

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return self.protocol

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, by name, before anything is compiled."""
        super().__post_init__()
        if self.protocol not in get_args(Protocol):
            raise ValueError(unknown("protocol", self.protocol, get_args(Protocol)))
        if self.groups == 1:
            raise ValueError("groups must be 0 or at least 2, got 1")
        if self.protocol != "pairs" and len(self.domains) < 2:
            only = f"got {', '.join(self.domains)}; or give --protocol pairs"
            raise ValueError(f"domains: protocol {self.protocol} needs at least 2 domains, {only}")


SMALL = ("energy_trading", "portfolio", "supply_chain")
"""Domains of the small presets: cheap, references exact but for rounding. ``--domains`` takes others."""

_ON_CPU = TransformerMamlDqnConfig(
    network=NetworkConfig(layers=1),
    data=DataConfig(tasks=8),
    # Tasks seen again and again in other parts: what few-shot adaptation is learned from.
    frozen=FrozenConfig(tasks=256),
    # Tuning the trunk too would compile an acting program of its own for every domain.
    fine_tuning=FineTuningConfig(adapt=("head",)),
    # After as many steps it agrees with the labels more often than Adam.
    learning=QLearningConfig(optimiser="muon"),
    # The memory adapts; what inner steps add to it has not been shown to be worth their time.
    order="none",
    learning_rate=1e-2,
    # Values of states that a poor policy met are noisy targets: the labels are to weigh more than they.
    reference_weight=4.0,
)

CPU = TransferConfig(
    groups=5,
    seeds=2,
    arms=("reference",),
    agent=_ON_CPU,
    training=TrainingConfig(iterations=500, single=40, left_out=120, interval=10, checkpoint_every=10),
    # As many query episodes as support episodes: training's programs then serve the tests.
    evaluation=EvaluationConfig(support_episodes=(0, 3, 5), tasks=16, episodes=5),
)
"""All standard domains on two cores: one arm, two seeds, a small network, one agent for all, five groups left out."""

LONG = dataclasses.replace(
    CPU,
    agent=dataclasses.replace(_ON_CPU, frozen=FrozenConfig(tasks=512, rounds=16)),
    training=TrainingConfig(iterations=2500, single=80, left_out=600, interval=25, checkpoint_every=10),
)
"""As ``cpu``, with five times the training: hours on two cores."""

THREE = dataclasses.replace(
    CPU,
    protocol="pairs",
    domains=SMALL,
    arms=("reference", "rl-only"),
    # Reward alone needs the TD error of every query; both arms share one program.
    agent=dataclasses.replace(_ON_CPU, frozen=FrozenConfig(tasks=256, td_share=1.0)),
    training=TrainingConfig(iterations=104, interval=4, checkpoint_every=8),
    evaluation=EvaluationConfig(tasks=48, episodes=5),
)
"""Three domains on two cores in a quarter of an hour: both arms, longer training."""

SMOKE = TransferConfig(
    protocol="pairs",
    domains=SMALL,
    seeds=2,
    agent=TransformerMamlDqnConfig(
        network=NetworkConfig(width=8, layers=1, heads=2, channels=2, head_width=8),
        data=DataConfig(tasks=4, episodes=2, periods=8),
        frozen=FrozenConfig(
            tasks=4,
            batch=3,
            steps=1,
            queries=2,
            samples=2,
            kept=4,
            stretch=3,
            td_share=1.0,
            buckets=1,
            rounds=1,
            round_tasks=4,
        ),
        learning=QLearningConfig(samples=2, num_steps=2, updates=1, replay=2),
        adaptation=AdaptationConfig(steps=1),
        fine_tuning=FineTuningConfig(step_sizes=(0.01,), steps=(1, 2)),
        order="first",
        context_share=0.5,
        first_order_share=0.5,
    ),
    training=TrainingConfig(iterations=4, interval=1, checkpoint_every=1),
    evaluation=EvaluationConfig(support_episodes=(0, 1, 2), tasks=4, episodes=2),
)
"""Seconds of training: shows that everything runs. Its scores mean nothing."""

GPU = TransferConfig(
    groups=5,
    seeds=10,
    agent=TransformerMamlDqnConfig(
        network=NetworkConfig(width=64, layers=3, channels=16, head_width=128),
        data=DataConfig(tasks=48, periods=128),
        frozen=FrozenConfig(tasks=1024, batch=64, steps=25, rounds=16, round_tasks=48),
        learning=QLearningConfig(samples=16),
    ),
    training=TrainingConfig(iterations=3000, interval=50),
    evaluation=EvaluationConfig(tasks=256, episodes=16),
)
"""One accelerator; not timed yet. ``--groups 0`` leaves out each domain alone, at three times the cost."""

PRESETS: dict[str, TransferConfig] = {"cpu": CPU, "long": LONG, "three": THREE, "smoke": SMOKE, "gpu": GPU}
