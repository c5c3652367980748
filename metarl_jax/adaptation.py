"""From K support episodes of one task to an adapted policy: context memory and inner gradient steps.

The inner loop is differentiable plain gradient descent on the support's TD loss (MAML, Finn 2017) with a learned step
size for every parameter leaf and step (Meta-SGD, Li 2017; MAML++, Antoniou 2019). Which parameters adapt is a setting:
the head alone (ANIL, Raghu 2020), which reuses the trunk's features over all steps, or all of them. First order stops
the gradient of the inner gradient.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from metarl_jax import losses
from metarl_jax.configs import AdaptationConfig, Order
from metarl_jax.experience import Support, Transition
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.networks.memory import Memory

StepSizes = dict[str, Params]


@struct.dataclass
class Policy:
    """What adaptation makes of one task's support.

    Attributes:
      adapted: the parameters that differ from the shared ones (a subset of the top-level names; may be empty).
      memory: context memory of the task.
    """

    adapted: Params
    memory: Memory

    def parameters(self, shared: Params) -> Params:
        """All parameters: the shared ones with the adapted ones in their place."""
        return {**shared, **self.adapted}


def adapted_names(config: AdaptationConfig) -> tuple[str, ...]:
    """Top-level parameter names that the inner steps change. The memory is fed by data; it does not adapt."""
    return ("head",) if config.adapt == "head" else ("head", "trunk")


def init_step_sizes(params: Params, config: AdaptationConfig) -> StepSizes:
    """Logarithms of the step sizes: for every adapted leaf ``f32[steps]``."""
    subset = {name: params[name] for name in adapted_names(config)}
    return jax.tree.map(lambda _: jnp.full((config.steps,), jnp.log(config.step_size), jnp.float32), subset)


def td_targets(
    network: AgentNetwork,
    online: Params,
    online_memory: Memory,
    target: Params,
    target_memory: Memory,
    batch: Transition,
) -> chex.Array:
    """Double-Q targets ``f32[S]`` of one task's transitions."""
    next_online = network.q_values(online, batch.next_observation, online_memory)
    next_target = network.q_values(target, batch.next_observation, target_memory)
    return jax.vmap(losses.double_q_target)(batch.reward, batch.discount, next_online, next_target)


def weighted_mean(x: chex.Array, weight: chex.Array) -> chex.Array:
    """Mean of ``x`` with ``weight``; 0 if there is no weight."""
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def inner_loss(
    q: chex.Array, predicted: chex.Array, batch: Transition, targets: chex.Array, reward_weight: float
) -> chex.Array:
    """TD error plus reward-prediction error of one task's support: scalar."""
    td = jax.vmap(losses.squared_td_error)(q, batch.action, targets)
    reward = jnp.take_along_axis(predicted, batch.action[:, None], axis=-1)[:, 0]
    return weighted_mean(td + reward_weight * jnp.square(reward - batch.immediate), batch.weight)


def adapt(
    network: AgentNetwork,
    params: Params,
    target: Params,
    step_sizes: StepSizes,
    support: Support,
    config: AdaptationConfig,
    order: Order,
) -> Policy:
    """Adapts to one task.

    Args:
      network: the agent network.
      params: shared parameters theta.
      target: slowly moving copy theta^-, which bootstraps the inner targets.
      step_sizes: from :func:`init_step_sizes`.
      support: the task's support, masked to the episodes that may be used.
      config: the inner loop.
      order: "none" takes no gradient step (context alone), "first" and "second" take ``config.steps``.

    Returns:
      The adapted policy. With no usable transition the inner gradient is 0 and the policy is theta's own.
    """
    memory = network.remember(params, support.periods)
    if order == "none" or config.steps == 0:
        return Policy({}, memory)
    batch: Transition = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), support.transitions)
    targets = td_targets(network, params, memory, target, network.remember(target, support.periods), batch)
    subset = {name: params[name] for name in adapted_names(config)}
    fixed = None if "trunk" in subset else network.trunk(params, batch.observation, memory)

    def loss(subset: Params) -> chex.Array:
        current = {**params, **subset}
        features = network.trunk(current, batch.observation, memory) if fixed is None else fixed
        q, predicted = network.head(current, features, batch.observation)
        return inner_loss(q, predicted, batch, targets, config.reward_weight)

    def step(subset: Params, log_sizes: StepSizes) -> tuple[Params, None]:
        gradient = jax.grad(loss)(subset)
        if order == "first":
            gradient = jax.lax.stop_gradient(gradient)
        moved = jax.tree.map(lambda p, g, size: p - jnp.exp(size) * g, subset, gradient, log_sizes)
        return moved, None

    # Recomputing a whole network in the backward pass is cheaper than storing it for every step; a head is not.
    body = step if config.unroll or fixed is not None else jax.checkpoint(step)
    adapted, _ = jax.lax.scan(body, subset, step_sizes, length=config.steps, unroll=config.unroll)
    return Policy(adapted, memory)
