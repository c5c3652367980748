"""How a policy on the shared network acts. One specification, hence one acting program a domain, for all its learners.

The dueling head is an actor-critic as it stands: its masked Q are logits (a softmax ignores the value in them), and the
mean of Q over legal actions is the value.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.observation import NUM_ACTION_FEATURES, Observation
from envs_jax.policies import random_actions
from metarl_jax.configs import NetworkConfig
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.networks.memory import Memory


@struct.dataclass
class Policy:
    """What adaptation makes of one task's support. All learners on the shared network fill in the same leaves.

    Attributes:
      adapted: the parameters that differ from the shared ones (a subset of the top-level names).
      memory: context memory of the task; zero for learners without.
      hidden: ``f32[H]`` recurrent state with which a trial starts; zero for learners without.
    """

    adapted: Params
    memory: Memory
    hidden: chex.Array

    def parameters(self, shared: Params) -> Params:
        """All parameters: the shared ones with the adapted ones in their place."""
        return {**shared, **self.adapted}


@struct.dataclass
class Carry:
    """What is carried from choice to choice.

    Attributes:
      hidden: ``f32[..., H]`` recurrent state.
      last: ``f32[..., G]`` description of the last action.
    """

    hidden: chex.Array
    last: chex.Array


@struct.dataclass
class ActingMode:
    """How choices are made, traced ``f32[]``.

    Attributes:
      epsilon: chance of a random legal choice.
      temperature: choices are drawn from ``softmax(Q / temperature)``; 0 is greedy.
    """

    epsilon: chex.Array
    temperature: chex.Array


def epsilon_greedy(q: chex.Array, seen: Observation, key: chex.PRNGKey, epsilon: chex.Numeric) -> chex.Array:
    """Greedy choices ``i32[...]`` of ``q f32[..., A]``, each replaced by a random legal one with chance ``epsilon``."""
    explore_key, action_key = jax.random.split(key)
    greedy = jnp.argmax(q, axis=-1).astype(jnp.int32)
    explore = jax.random.uniform(explore_key, greedy.shape) < epsilon
    return jnp.where(explore, random_actions(seen, action_key), greedy)


def choose(q: chex.Array, seen: Observation, key: chex.PRNGKey, mode: ActingMode) -> chex.Array:
    """Choices ``i32[...]`` from ``q f32[..., A]``: ``argmax(q + temperature * Gumbel)``, then the epsilon mix."""

    def noisy() -> chex.Array:
        return q + mode.temperature * jax.random.gumbel(jax.random.fold_in(key, 2), q.shape)

    preferred = jax.lax.cond(mode.temperature > 0, noisy, lambda: q)
    return jax.lax.cond(
        mode.epsilon > 0,
        lambda: epsilon_greedy(preferred, seen, key, mode.epsilon),
        lambda: jnp.argmax(preferred, axis=-1).astype(jnp.int32),
    )


@dataclasses.dataclass(frozen=True)
class TransformerActor:
    """Acting with :class:`~metarl_jax.networks.agent.AgentNetwork`.

    Acting parameters are ``{"trunk", "head", "cell", "recurrent"}``: see :func:`acting_parameters`.

    Attributes:
      network: shape of the network.
      action_features: G, columns of an action's description.
    """

    network: NetworkConfig
    action_features: int = NUM_ACTION_FEATURES

    def start(self, params: Params, policy: Policy) -> Carry:
        """The carry with which a trial of a task begins."""
        del params
        return Carry(policy.hidden, jnp.zeros(self.action_features))

    def act(
        self, params: Params, policy: Policy, carry: Carry, seen: Observation, key: chex.PRNGKey, mode: ActingMode
    ) -> tuple[chex.Array, Carry]:
        """Choices ``i32[E]`` in a batch of one task's observations, and the next carry ``[E, ...]``."""
        network = AgentNetwork(self.network)
        own = policy.parameters({name: params[name] for name in ("trunk", "head")})
        # Adaptation knows the suite's padded entities; a domain's own are the first of them.
        memory = jax.tree.map(lambda leaf: leaf[: seen.tokens.shape[-2]], policy.memory)

        def remembering() -> tuple[chex.Array, chex.Array]:
            hidden = network.recur(params, carry.hidden, network.recurrent_inputs(params, seen, carry.last))
            return hidden, network.recurrent_answer(params, hidden)

        def memoryless() -> tuple[chex.Array, chex.Array]:
            return carry.hidden, jnp.zeros((*carry.hidden.shape[:-1], self.network.width))

        hidden, extra = jax.lax.cond(params["recurrent"], remembering, memoryless)
        q, _ = network.head(own, network.trunk(own, seen, memory, extra), seen)
        action = choose(q, seen, key, mode)
        last = jnp.take_along_axis(seen.actions, action[:, None, None], axis=1)[:, 0]
        return action, Carry(hidden, last)


def acting_parameters(network: AgentNetwork, params: Params, token_features: int, action_features: int) -> Params:
    """What acting reads of a network's parameters, with leaves that do not depend on which learner trained them."""
    acting = {name: params[name] for name in ("trunk", "head")}
    if network.recurrent:
        return {**acting, "cell": params["cell"], "recurrent": jnp.bool_(True)}
    recurrent = AgentNetwork(network.config, recurrent=True)
    sizes = (1, 1, token_features, action_features)
    shapes: Any = jax.eval_shape(lambda: recurrent.init(jax.random.key(0), *sizes))["cell"]
    cell = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return {**acting, "cell": cell, "recurrent": jnp.bool_(False)}
