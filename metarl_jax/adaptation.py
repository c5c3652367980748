"""From K support episodes of one task to an adapted policy: context memory and inner gradient steps.

The inner loop is differentiable descent on the support's loss (MAML, Finn 2017) by a rule of
:mod:`metarl_jax.update_rules`, by default with a learned step size for every parameter leaf and step (Meta-SGD, Li
2017; MAML++, Antoniou 2019). Which parameters adapt is a setting: the
head alone (ANIL, Raghu 2020), which reuses the trunk's features over all steps, or all of them. First order stops the
gradient of the inner gradient. Fine-tuning is the same descent with one plain step size and any number of steps.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import struct

from metarl_jax import update_rules
from metarl_jax.configs import AdaptationConfig, AdaptSet, FineTuningConfig
from metarl_jax.losses import value
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.networks.memory import Memory
from metarl_jax.types import Support, Transition, flatten_axes

StepSizes = dict[str, Params]

EPSILON = 1e-5
"""Added to a root mean square: gradients that are nothing but rounding are no direction."""

TdTarget = Callable[[chex.Array, chex.Array, chex.Array, chex.Array], chex.Array]
TdLoss = Callable[[chex.Array, chex.Array, chex.Array], chex.Array]


def adapted_names(adapt: AdaptSet) -> tuple[str, ...]:
    """Top-level parameter names that the inner steps change. The memory is fed by data; it does not adapt."""
    return ("head",) if adapt == "head" else ("head", "trunk")


def init_step_sizes(params: Params, adapt: AdaptSet, steps: int, step_size: float) -> StepSizes:
    """Logarithms of the step sizes: for every adapted leaf ``f32[steps]``."""
    return update_rules.log_sizes({name: params[name] for name in adapted_names(adapt)}, steps, step_size)


def inner_rule(config: AdaptationConfig, context: int) -> update_rules.UpdateRule:
    """The rule of the inner steps; ``context``: features of what it may know of the task."""
    return update_rules.make(config.rule, config.step_size, context=context)


def weighted_mean(x: chex.Array, weight: chex.Array) -> chex.Array:
    """Mean of ``x`` with ``weight``; 0 if there is no weight."""
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)


@dataclasses.dataclass(frozen=True)
class InnerLoss:
    """The loss that a Q-learner descends on one task's support, and the targets of its outer loss.

    Attributes:
      network: the agent network.
      td_target: of one transition, see :func:`metarl_jax.losses.value.double_q_target`.
      td_loss: of one transition, see :func:`metarl_jax.losses.value.squared_td_error`.
      reward_weight: weight of the reward-prediction error.
    """

    network: AgentNetwork
    td_target: TdTarget = value.double_q_target
    td_loss: TdLoss = value.squared_td_error
    reward_weight: float = 0.1

    def targets(
        self, online: Params, online_memory: Memory, target: Params, target_memory: Memory, batch: Transition
    ) -> chex.Array:
        """Targets ``f32[S]`` of one task's transitions."""
        next_online = self.network.q_values(online, batch.next_observation, online_memory)
        next_target = self.network.q_values(target, batch.next_observation, target_memory)
        return jax.vmap(self.td_target)(batch.reward, batch.discount, next_online, next_target)

    def of(self, q: chex.Array, predicted: chex.Array, batch: Transition, targets: chex.Array) -> chex.Array:
        """TD error plus reward-prediction error of one task's support: scalar."""
        td = jax.vmap(self.td_loss)(q, batch.action, targets)
        reward = jnp.take_along_axis(predicted, batch.action[:, None], axis=-1)[:, 0]
        return weighted_mean(td + self.reward_weight * jnp.square(reward - batch.immediate), batch.weight)

    def on(
        self, params: Params, target: Params, memory: Memory, support: Support, fixed_trunk: bool
    ) -> Callable[[Params], chex.Array]:
        """The loss on one task's support as a function of those parameters that adapt.

        Args:
          params: shared parameters theta.
          target: slowly moving copy theta^-, which bootstraps the targets.
          memory: of the task.
          support: with transitions.
          fixed_trunk: whether only the head will change, so that the trunk's features are computed once.
        """
        batch: Transition = flatten_axes(support.transitions, 0, 2)
        targets = self.targets(params, memory, target, self.network.remember(target, support.history), batch)
        fixed = self.network.trunk(params, batch.observation, memory) if fixed_trunk else None

        def loss(subset: Params) -> chex.Array:
            current = {**params, **subset}
            features = self.network.trunk(current, batch.observation, memory) if fixed is None else fixed
            q, predicted = self.network.head(current, features, batch.observation)
            return self.of(q, predicted, batch, targets)

        return loss


def descend(
    loss: Callable[[Params], chex.Array],
    start: Params,
    step_sizes: StepSizes,
    *,
    second_order: bool,
    unroll: bool,
    checkpoint: bool,
) -> Params:
    """Gradient steps on ``loss`` by Meta-SGD that can be differentiated through.

    Args:
      loss: of the adapted parameters.
      start: adapted parameters before the first step.
      step_sizes: from :func:`init_step_sizes`; as many steps as they hold.
      second_order: whether the gradient of the steps' gradients is taken too.
      unroll: unroll the loop instead of scanning it.
      checkpoint: recompute a step in the backward pass: cheaper than storing a whole network for every step.
    """
    count = jax.tree.leaves(step_sizes)[0].shape[0]
    return update_rules.descend(
        *(update_rules.make("meta_sgd"), step_sizes, loss, start, count),
        second_order=second_order,
        unroll=unroll,
        checkpoint=checkpoint,
    )


@struct.dataclass
class SquareMean:
    """A running mean of squared gradients, what Adam without momentum divides by.

    Attributes:
      total: discounted sum of the squares, like the parameters.
      weight: ``f32[]`` of what was added up; 0 before any gradient.
    """

    total: Params
    weight: chex.Array

    @classmethod
    def like(cls, params: Params) -> SquareMean:
        """Of nothing."""
        return cls(jax.tree.map(jnp.zeros_like, params), jnp.float32(0.0))

    def seen(self, gradient: Params, decay: float = 0.999) -> SquareMean:
        """With one more gradient."""
        mean = lambda old, new: decay * old + (1.0 - decay) * new  # noqa: E731
        total = jax.tree.map(lambda old, g: mean(old, jnp.square(g)), self.total, gradient)
        return SquareMean(total, mean(self.weight, 1.0))

    def root(self) -> Params:
        """Root mean square of every element's gradient; 1 of nothing."""
        some = self.weight > 0
        weight = jnp.where(some, self.weight, 1.0)
        of = lambda total: jnp.where(some, jnp.sqrt(total / weight) + EPSILON, 1.0)  # noqa: E731
        return jax.tree.map(of, self.total)


def fine_tune(
    loss: Callable[[Params], chex.Array],
    start: Params,
    step_size: chex.Array,
    steps: chex.Array,
    scale: Params | None = None,
) -> Params:
    """``steps i32[]`` plain gradient steps of ``step_size f32[]``, both traced: one program for all candidates.

    Args:
      loss: of the adapted parameters.
      start: adapted parameters before the first step.
      step_size: of every step.
      steps: how many.
      scale: what gradients are divided by, like the parameters.
    """

    def step(_: chex.Array, subset: Params) -> Params:
        gradient = jax.grad(loss)(subset)
        if scale is not None:
            gradient = jax.tree.map(jnp.divide, gradient, scale)
        return jax.tree.map(lambda p, g: p - step_size * g, subset, gradient)

    return jax.lax.fori_loop(0, steps, step, start)


def tuning_candidates(config: FineTuningConfig, params: Params) -> dict[str, Params]:
    """Every way of fine-tuning that ``config`` names, for stacked ``params`` with leading axis R of replicas.

    A way is ``{name: {"size": f32[R], "steps": i32[R]}}`` for every top-level name of the parameters that it adapts:
    see :func:`fine_tune`.
    """
    replicas = jax.tree.leaves(params)[0].shape[0]
    found = {}
    for adapt, steps, size in itertools.product(config.adapt, config.steps, config.step_sizes):
        how = {"size": jnp.full(replicas, size, jnp.float32), "steps": jnp.full(replicas, steps, jnp.int32)}
        found[f"{adapt}, {steps} steps of {size:g}"] = dict.fromkeys(adapted_names(adapt), how)
    return found
