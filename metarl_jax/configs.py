"""Configuration of networks, learners and adaptation: frozen dataclasses that say what is allowed and refuse the rest.

They live apart from the code they configure because that imports jax: a command line built on them shows its help and
refuses a wrong value at once. Structure is static and hashable; numbers that may be vmapped become traced
hyperparameters of the learner. A learner that is tried out may state its class in its own file instead.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

from metarl_jax.checks import check_fields, choice, choices, number, numbers, whole, wholes

AdaptSet = Literal["head", "all"]
Order = Literal["none", "first", "second"]
Rule = Literal["sgd", "meta_sgd", "meta_sgd_elementwise", "gated", "learned"]
Mixing = Literal["attention", "mean"]
Optimiser = Literal["adam", "muon"]
Curriculum = Literal["uniform", "ordered", "prioritised"]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network.

    Attributes:
      width: token width d.
      layers: blocks; 0 leaves an encoder of each token alone.
      mixing: how a block lets tokens know of each other: by attention (a Transformer), or by their mean (a DeepSet).
      heads: attention heads.
      expansion: hidden width of a block's MLP relative to d.
      channels: size of the context memory's keys and values.
      head_width: hidden width of the dueling head.
      slots: largest number of entities (size of the slot embedding).
      hidden: size of the recurrent state; only recurrent learners use it.
    """

    width: int = whole(32, 1, 4096)
    layers: int = whole(2, 0, 64)
    mixing: Mixing = choice("attention", get_args(Mixing))
    heads: int = whole(4, 1, 64)
    expansion: int = whole(2, 1, 16)
    channels: int = whole(16, 2, 512)
    head_width: int = whole(64, 1, 4096)
    slots: int = whole(32, 1, 1024)
    hidden: int = whole(32, 1, 4096)

    def __post_init__(self) -> None:
        """Refuses shapes that cannot be built."""
        check_fields(self, "network.")
        if self.width % self.heads:
            raise ValueError(f"network.width must be a multiple of network.heads={self.heads}, got {self.width}")
        if self.channels % 2:
            raise ValueError(f"network.channels must be even, got {self.channels}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a meta-iteration collects; the same for all learners that are compared.

    Attributes:
      tasks: tasks collected per meta-iteration, all of one domain; several training domains take turns.
      episodes: support episodes (largest K), and as many query episodes, per task.
      periods: periods kept of each episode for the memory; of a longer episode, a random stretch.
    """

    tasks: int = whole(16, 1, 65536)
    episodes: int = whole(5, 1, 4096)
    periods: int = whole(64, 1, 65536)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "data.")


@dataclasses.dataclass(frozen=True)
class FrozenConfig:
    """Frozen data: what a Q-learner trains on instead of what each meta-iteration collects.

    Of every training domain the data hold ``tasks`` tasks: random support episodes, and query choices of a mixture of
    behaviours that the reference labelled. The learner's own choices are added in a few on-policy rounds.

    Attributes:
      tasks: of each domain; 0 keeps no data and collects anew in each meta-iteration.
      batch: tasks of a gradient step, shared out among the training domains, at least one of each.
      steps: gradient steps of a meta-iteration: one compiled scan.
      queries: choices of a task that a gradient step takes.
      samples: choices kept of each query episode, forced ones left out.
      kept: periods kept of each support episode; of a longer one, a random stretch.
      stretch: periods of each support episode that the memory sees in a gradient step, a random stretch.
      td_share: share of the queries that also take part in the TD error.
      buckets: most groups of domains of like shape.
      rounds: on-policy rounds (DAgger, Ross 2011) of the whole run, at equal distances; 0 for none.
      rounds_from: share of the meta-iterations before the first round.
      round_tasks: tasks of each domain that the learner plays in a round.
      round_epsilon: exploration in it.
      round_share: share of a gradient step's tasks whose queries come from the rounds, once there are any.
    """

    tasks: int = whole(0, 0, 1_000_000)
    batch: int = whole(16, 1, 65536)
    steps: int = whole(20, 1, 65536)
    queries: int = whole(20, 1, 65536)
    samples: int = whole(8, 1, 65536)
    kept: int = whole(24, 1, 65536)
    stretch: int = whole(12, 1, 65536)
    td_share: float = number(0.25, 0.0, 1.0)
    buckets: int = whole(3, 1, 1000)
    rounds: int = whole(8, 0, 100_000)
    rounds_from: float = number(0.1, 0.0, 1.0)
    round_tasks: int = whole(16, 1, 65536)
    round_epsilon: float = number(0.05, 0.0, 1.0)
    round_share: float = number(0.5, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "frozen.")
        if self.stretch > self.kept:
            raise ValueError(f"frozen.stretch must be at most frozen.kept={self.kept}, got {self.stretch}")


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """On which tasks a learner that collects is trained; see :mod:`metarl_jax.curricula`.

    Attributes:
      kind: "uniform" draws fresh tasks; "ordered" begins with those of least headroom; "prioritised" repeats those in
        which support is worth most.
      buffer: keys of tasks that are kept of each domain.
      fill: share of it that must be filled before a task is repeated.
      replay: chance that a task is a repeated one.
      temperature: beta of the ranks: 0 would repeat the best alone.
      staleness: rho, weight of the time since a task was scored.
      start: share of the ordered tasks that are open at the start.
    """

    kind: Curriculum = choice("uniform", get_args(Curriculum))
    buffer: int = whole(128, 1, 1_000_000)
    fill: float = number(0.5, 0.0, 1.0)
    replay: float = number(0.5, 0.0, 1.0)
    temperature: float = number(0.3, 0.0, 1e3, open_low=True)
    staleness: float = number(0.3, 0.0, 1.0)
    start: float = number(0.25, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "curriculum.")


@dataclasses.dataclass(frozen=True)
class QLearningConfig:
    """How a Q-learner learns from what was collected.

    Attributes:
      samples: transitions kept of each episode for the losses.
      num_steps: n of the n-step targets, in periods.
      updates: gradient steps per meta-iteration.
      replay: meta-iterations whose tasks stay in the replay; never fewer than there are training domains.
      epsilon: exploration of the query episodes.
      support_epsilon: exploration of the support episodes, in training and in evaluation; 1 is uniformly random.
      polyak: how much of the target network is kept at each gradient step.
      temperature: of the cross-entropy to the reference action.
      max_grad_norm: global-norm clip of the outer gradient.
      optimiser: of the outer loop. "muon" (Jordan 2024) makes the momentum of every matrix orthogonal, at the root mean
        square that Adam's steps have (Liu 2025); what is no matrix it leaves to Adam with Nesterov's momentum.
    """

    samples: int = whole(8, 1, 65536)
    num_steps: int = whole(5, 1, 65536)
    updates: int = whole(8, 1, 65536)
    replay: int = whole(8, 1, 65536)
    epsilon: float = number(0.15, 0.0, 1.0)
    support_epsilon: float = number(1.0, 0.0, 1.0)
    polyak: float = number(0.98, 0.0, 1.0)
    temperature: float = number(0.1, 0.0, 1e6, open_low=True)
    max_grad_norm: float = number(1.0, 0.0, 1e6, open_low=True)
    optimiser: Optimiser = choice("adam", get_args(Optimiser))

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "learning.")


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """The inner loop.

    Attributes:
      adapt: which parameters the inner steps change.
      steps: inner gradient steps S.
      step_size: initial step size of every leaf and step.
      rule: how the parameters move by their gradient, see :mod:`metarl_jax.update_rules`.
      reward_weight: weight of the reward-prediction error in the inner loss.
      unroll: unroll the inner loop (runs faster, compiles longer) instead of scanning it.
    """

    adapt: AdaptSet = choice("head", get_args(AdaptSet))
    steps: int = whole(3, 0, 10000)
    step_size: float = number(0.01, 0.0, 1e3, open_low=True)
    rule: Rule = choice("meta_sgd", get_args(Rule))
    reward_weight: float = number(0.1, 0.0, 1e6)
    unroll: bool = False

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "adaptation.")


@dataclasses.dataclass(frozen=True)
class FineTuningConfig:
    """How a learner that does not meta-learn adapts: plain gradient steps of its own loss on the support.

    All combinations are candidates, among which validation on tasks of the training domains chooses.

    Attributes:
      step_sizes: of plain gradient descent.
      steps: numbers of steps.
      adapt: which parameters the steps change.
    """

    step_sizes: tuple[float, ...] = numbers((0.001, 0.01, 0.1), 0.0, 1e3, open_low=True, distinct=True)
    steps: tuple[int, ...] = wholes((3, 30, 300), 1, 100_000)
    adapt: tuple[AdaptSet, ...] = choices(("head", "all"), get_args(AdaptSet))

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "fine_tuning.")


@dataclasses.dataclass(frozen=True)
class TransformerMamlDqnConfig:
    """Configuration of ``transformer_maml_dqn``.

    Attributes:
      network: shape of the network.
      data: what is collected.
      frozen: the data that training uses instead, if any.
      learning: how is learned from it.
      adaptation: the inner loop.
      fine_tuning: of the multitask control that an experiment trains beside it, which takes its settings from here.
      order: highest derivative order of the meta-gradient: "none" (context only), "first" or "second".
      context_share: share of the meta-iterations without inner steps.
      first_order_share: share with first-order inner steps; the rest is of the highest order.
      learning_rate: peak outer rate.
      reference_weight: weight of the cross-entropy to the reference action, in the arm that uses labels.
    """

    labels: ClassVar[bool] = True

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    frozen: FrozenConfig = FrozenConfig()
    learning: QLearningConfig = QLearningConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    order: Order = choice("second", get_args(Order))
    context_share: float = number(0.8, 0.0, 1.0)
    first_order_share: float = number(0.1, 0.0, 1.0)
    learning_rate: float = number(2e-3, 0.0, 1e3, open_low=True)
    reference_weight: float = number(0.2, 0.0, 1e6)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, and shares that do not add up."""
        check_fields(self)
        if self.context_share + self.first_order_share > 1:
            total = self.context_share + self.first_order_share
            raise ValueError(f"context_share + first_order_share must be at most 1, got {total}")


@dataclasses.dataclass(frozen=True)
class TransformerDqnConfig:
    """Configuration of ``transformer_dqn``.

    Attributes:
      network: shape of the network.
      data: what is collected.
      frozen: the data that training uses instead, if any.
      learning: how is learned from it.
      adaptation: only the weight of the reward-prediction error is read.
      fine_tuning: how it adapts, to choose from by validation on training domains.
      learning_rate: peak outer rate.
      reference_weight: weight of the cross-entropy to the reference action, in the arm that uses labels.
    """

    labels: ClassVar[bool] = True

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    frozen: FrozenConfig = FrozenConfig()
    learning: QLearningConfig = QLearningConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    learning_rate: float = number(2e-3, 0.0, 1e3, open_low=True)
    reference_weight: float = number(0.2, 0.0, 1e6)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self)


def _fix(config: Any, part: str, field: str, value: str) -> None:
    """Sets a field of a part that a learner does not leave open. The field's default counts as not given.

    Raises:
      ValueError: if another value was given.
    """
    own = getattr(config, part)
    if (given := getattr(own, field)) not in (value, getattr(type(own)(), field)):
        raise ValueError(f"{part}.{field} must be {value} for this learner, got {given}")
    object.__setattr__(config, part, dataclasses.replace(own, **{field: value}))


@dataclasses.dataclass(frozen=True)
class OptimizerGatingConfig(TransformerMamlDqnConfig):
    """Configuration of ``optimizer_gating``; see :class:`TransformerMamlDqnConfig`. ``adaptation.rule`` is gated."""

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, and another rule."""
        super().__post_init__()
        _fix(self, "adaptation", "rule", "gated")


@dataclasses.dataclass(frozen=True)
class LearnedOptimizerConfig(TransformerMamlDqnConfig):
    """Configuration of ``learned_optimizer``; see :class:`TransformerMamlDqnConfig`. ``adaptation.rule`` is learned."""

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, and another rule."""
        super().__post_init__()
        _fix(self, "adaptation", "rule", "learned")


@dataclasses.dataclass(frozen=True)
class MamlDqnConfig(TransformerMamlDqnConfig):
    """Configuration of ``maml_dqn``; see :class:`TransformerMamlDqnConfig`.

    ``network.mixing`` is mean; ``adaptation.adapt`` is all, because what tells entities apart is in the trunk.

    Attributes:
      context_share: share of the meta-iterations without inner steps; there is no context to learn from.
      first_order_share: share with first-order inner steps; the rest is of the highest order.
    """

    context_share: float = number(0.0, 0.0, 1.0)
    first_order_share: float = number(0.8, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, another network and other parameters."""
        super().__post_init__()
        _fix(self, "network", "mixing", "mean")
        _fix(self, "adaptation", "adapt", "all")


@dataclasses.dataclass(frozen=True)
class QLearnerConfig:
    """What Q-learners have in common that take no learned inner steps.

    Attributes:
      network: shape of the network.
      data: what is collected.
      frozen: the data that training uses instead, if any.
      learning: how is learned from it.
      learning_rate: peak outer rate.
      reference_weight: weight of the cross-entropy to the reference action, in the arm that uses labels.
    """

    labels: ClassVar[bool] = True

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    frozen: FrozenConfig = FrozenConfig()
    learning: QLearningConfig = QLearningConfig()
    learning_rate: float = number(2e-3, 0.0, 1e3, open_low=True)
    reference_weight: float = number(0.2, 0.0, 1e6)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class DqnConfig(QLearnerConfig):
    """Configuration of ``dqn``; see :class:`QLearnerConfig`.

    Attributes:
      fine_tuning: how it adapts, to choose from by validation on training domains.
    """

    fine_tuning: FineTuningConfig = FineTuningConfig()


@dataclasses.dataclass(frozen=True)
class DoubleDuelingDqnConfig(DqnConfig):
    """Configuration of ``double_dueling_dqn``; see :class:`DqnConfig`."""


@dataclasses.dataclass(frozen=True)
class ContextConfig(QLearnerConfig):
    """Configuration of ``context``; see :class:`QLearnerConfig`.

    Attributes:
      reward_decoding: weight of the squared error of rewards that are predicted from the memory.
      token_decoding: weight of the squared error of later tokens that are predicted from it.
    """

    reward_decoding: float = number(1.0, 0.0, 1e6)
    token_decoding: float = number(0.1, 0.0, 1e6)


@dataclasses.dataclass(frozen=True)
class DecisionPretrainedConfig(QLearnerConfig):
    """Configuration of ``decision_pretrained``; see :class:`QLearnerConfig`. It has no use for rewards of its own.

    Attributes:
      reference_weight: weight of the cross-entropy to the reference action: the whole loss.
    """

    needs_labels: ClassVar[bool] = True
    """It learns from labels alone: without them there is nothing to learn."""

    reference_weight: float = number(1.0, 0.0, 1e6, open_low=True)


@dataclasses.dataclass(frozen=True)
class ReptileConfig(QLearnerConfig):
    """Configuration of ``reptile``; see :class:`QLearnerConfig`.

    Attributes:
      fine_tuning: how it adapts, to choose from by validation on training domains; step sizes are of inner steps.
      steps: inner steps S on a task, each on other choices: with one alone this would be plain multitask learning.
      inner_rate: size of the inner steps, whose gradients are divided by their root mean square.
      learning_rate: how far the outer step goes towards the adapted parameters, at first; it decays to 0 linearly.
    """

    fine_tuning: FineTuningConfig = FineTuningConfig()
    steps: int = whole(4, 2, 10000)
    inner_rate: float = number(1e-3, 0.0, 1e3, open_low=True)
    learning_rate: float = number(1.0, 0.0, 1.0, open_low=True)


@dataclasses.dataclass(frozen=True)
class ProximalConfig:
    """What the learners by proximal policy optimisation have in common.

    Attributes:
      network: shape of the network.
      data: what is collected.
      learning_rate: of Adam at the start; it decays to 0 linearly.
      epochs: passes over what a meta-iteration collected.
      minibatches: gradient steps an epoch.
      clip: of the probability ratio, and of the change of the value.
      trace: lambda of the generalised advantage estimate, between periods.
      value_weight: weight of the value loss.
      entropy_weight: weight of the entropy bonus.
      max_grad_norm: global-norm clip of the gradient.
    """

    labels: ClassVar[bool] = False

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    learning_rate: float = number(2.5e-3, 0.0, 1e3, open_low=True)
    epochs: int = whole(4, 1, 1000)
    minibatches: int = whole(4, 1, 65536)
    clip: float = number(0.2, 0.0, 1e3, open_low=True)
    trace: float = number(0.95, 0.0, 1.0)
    value_weight: float = number(0.5, 0.0, 1e6)
    entropy_weight: float = number(0.01, 0.0, 1e6)
    max_grad_norm: float = number(0.5, 0.0, 1e6, open_low=True)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class PpoConfig(ProximalConfig):
    """Configuration of ``ppo``; see :class:`ProximalConfig`.

    Attributes:
      fine_tuning: how it adapts, to choose from by validation on training domains.
    """

    fine_tuning: FineTuningConfig = FineTuningConfig()


@dataclasses.dataclass(frozen=True)
class Rl2Config(ProximalConfig):
    """Configuration of ``rl2``; see :class:`ProximalConfig`. ``network.hidden`` is the size of what it remembers.

    Attributes:
      learning_rate: of Adam at the start.
      trials: trials a task, each of all its support episodes and one more, in order; minibatches are of trials.
    """

    learning_rate: float = number(1e-3, 0.0, 1e3, open_low=True)
    trials: int = whole(2, 1, 4096)
