"""Configuration of networks, learners and adaptation: frozen dataclasses that say what is allowed and refuse the rest.

They live apart from the code they configure because that imports jax: a command line built on them shows its help and
refuses a wrong value at once. Structure is static and hashable; numbers that may be vmapped become traced
hyperparameters of the learner.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

AdaptSet = Literal["head", "all"]
Order = Literal["none", "first", "second"]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network.

    Attributes:
      width: token width d.
      layers: Transformer blocks.
      heads: attention heads.
      expansion: hidden width of a block's MLP relative to d.
      channels: size of the context memory's keys and values.
      head_width: hidden width of the dueling head.
      slots: largest number of entities (size of the slot embedding).
    """

    width: int = 32
    layers: int = 2
    heads: int = 4
    expansion: int = 2
    channels: int = 16
    head_width: int = 64
    slots: int = 32

    def __post_init__(self) -> None:
        """Refuses shapes that cannot be built."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"network.{field.name} must be at least 1, got {value}")
        if self.width % self.heads:
            raise ValueError(f"network.width must be a multiple of network.heads={self.heads}, got {self.width}")
        if self.channels % 2:
            raise ValueError(f"network.channels must be even, got {self.channels}")


@dataclasses.dataclass(frozen=True)
class QLearningConfig:
    """Data and optimisation of a Q-learner.

    Attributes:
      tasks: tasks collected per meta-iteration, all of one domain; several training domains take turns.
      episodes: support episodes (largest K), and as many query episodes, per task.
      samples: transitions kept of each episode for the losses.
      periods: periods kept of each episode for the memory; of a longer episode, a random stretch.
      num_steps: n of the n-step targets, in periods.
      updates: gradient steps per meta-iteration.
      replay: meta-iterations whose tasks stay in the replay; at least one a training domain.
      epsilon: exploration of the query episodes.
      support_epsilon: exploration of the support episodes, in training and in evaluation; 1 is uniformly random.
      polyak: how much of the target network is kept at each gradient step.
      temperature: of the cross-entropy to the reference action.
      max_grad_norm: global-norm clip of the outer gradient.
    """

    tasks: int = 16
    episodes: int = 5
    samples: int = 8
    periods: int = 64
    num_steps: int = 5
    updates: int = 8
    replay: int = 8
    epsilon: float = 0.15
    support_epsilon: float = 1.0
    polyak: float = 0.98
    temperature: float = 0.1
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        for name in ("tasks", "episodes", "samples", "periods", "num_steps", "updates", "replay"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("epsilon", "support_epsilon", "polyak"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"data.{name} must be in [0, 1], got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """The inner loop.

    Attributes:
      adapt: which parameters the inner steps change.
      steps: inner gradient steps S.
      step_size: initial step size of every leaf and step.
      reward_weight: weight of the reward-prediction error in the inner loss.
      unroll: unroll the inner loop (runs faster, compiles longer) instead of scanning it.
    """

    adapt: AdaptSet = "head"
    steps: int = 3
    step_size: float = 0.01
    reward_weight: float = 0.1
    unroll: bool = False

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        if self.adapt not in get_args(AdaptSet):
            raise ValueError(f"adaptation.adapt must be one of {', '.join(get_args(AdaptSet))}, got {self.adapt!r}")
        if self.steps < 0:
            raise ValueError(f"adaptation.steps must be 0 or more, got {self.steps}")
        if self.step_size <= 0:
            raise ValueError(f"adaptation.step_size must be positive, got {self.step_size}")


@dataclasses.dataclass(frozen=True)
class TransformerMamlDqnConfig:
    """Configuration of ``transformer_maml_dqn``.

    Attributes:
      network: shape of the network.
      data: data and optimisation.
      adaptation: the inner loop.
      order: highest derivative order of the meta-gradient: "none" (context only), "first" or "second".
      context_share: share of the meta-iterations without inner steps.
      first_order_share: share with first-order inner steps; the rest is of the highest order.
      learning_rate: peak outer rate.
      reference_weight: weight of the cross-entropy to the reference action; 0 is the RL-only arm.
    """

    network: NetworkConfig = NetworkConfig()
    data: QLearningConfig = QLearningConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    order: Order = "second"
    context_share: float = 0.8
    first_order_share: float = 0.1
    learning_rate: float = 2e-3
    reference_weight: float = 0.2

    def __post_init__(self) -> None:
        """Refuses an unknown order, and shares that do not add up."""
        if self.order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {self.order!r}")
        if not (self.context_share >= 0 and self.first_order_share >= 0):
            raise ValueError("context_share and first_order_share must not be negative")
        if self.context_share + self.first_order_share > 1:
            total = self.context_share + self.first_order_share
            raise ValueError(f"context_share + first_order_share must be at most 1, got {total}")


@dataclasses.dataclass(frozen=True)
class TransformerDqnConfig:
    """Configuration of ``transformer_dqn``.

    Attributes:
      network: shape of the network.
      data: data and optimisation.
      adaptation: the fine-tuning: which parameters, how many steps.
      step_sizes: of the fine-tuning, to choose from by validation on training domains.
      learning_rate: peak outer rate.
      reference_weight: weight of the cross-entropy to the reference action; 0 is the RL-only arm.
    """

    network: NetworkConfig = NetworkConfig()
    data: QLearningConfig = QLearningConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    step_sizes: tuple[float, ...] = (0.001, 0.01, 0.1)
    learning_rate: float = 2e-3
    reference_weight: float = 0.2

    def __post_init__(self) -> None:
        """Refuses step sizes that have no meaning."""
        if not self.step_sizes or min(self.step_sizes) <= 0:
            raise ValueError(f"step_sizes must be positive and at least one, got {self.step_sizes}")
