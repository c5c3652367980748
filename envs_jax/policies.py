"""The policies that every domain comes with: one list, one way to follow them."""

from __future__ import annotations

from typing import Any, Literal, get_args

import chex
import jax
import jax.numpy as jnp

from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation
from envs_jax.rollout import RecurrentAct, state_axes
from envs_jax.spaces import random_actions

PolicyName = Literal["random", "noop", "urgent", "heuristic", "average", "reference"]
POLICIES: tuple[PolicyName, ...] = get_args(PolicyName)


def reference_actions(env: ResourceEnv, plan: Any, state: EnvState, params: EnvParams, key: chex.PRNGKey) -> chex.Array:
    """The reference's choices ``i32[B, E]`` in a lockstep batch of states, with ``plan`` and ``params`` ``[B]``."""
    axes = state_axes(env, params)
    over_episodes = jax.vmap(env.reference_action, in_axes=(None, axes, None, 0))
    keys = jax.random.split(key, state.last_reward.shape)
    return jax.vmap(over_episodes, in_axes=(0, axes, 0, 0))(plan, state, params, keys)


def urgent_action(observation: Observation, key: chex.PRNGKey | None = None) -> chex.Array:
    """Serves the most urgent, else does nothing: a rule that knows the vocabulary and no domain, and learns nothing.

    The legal action of the largest ``(urgency - slack)[target] x signed``, the first of equal ones; an action without
    a target has 0. Where none is above 0, the no-op if there is a real one (``is_noop``).

    Args:
      observation: with any leading dimensions.
      key: unused; here so that the rule can stand where a heuristic does.

    Returns:
      ``i32`` of the observation's batch shape.
    """
    del key
    target = observation.action_target
    need = observation.column("urgency") - observation.column("slack")
    # A sum over entities instead of a gather, which is slow in batches on accelerators; no target, no term.
    at_target = target[..., None] == jnp.arange(need.shape[-1], dtype=jnp.int32)
    value = jnp.sum(jnp.where(at_target, need[..., None, :], 0.0), axis=-1) * observation.action_column("signed")
    value = jnp.where(observation.action_mask, value, -jnp.inf)
    noop = observation.action_mask & (observation.action_column("is_noop") == 1.0)
    idle = jnp.any(noop, axis=-1) & (jnp.max(value, axis=-1) <= 0.0)
    chosen = jnp.where(idle, jnp.argmax(noop, axis=-1), jnp.argmax(value, axis=-1))
    return chosen.astype(jnp.int32)


def memory(env: ResourceEnv, *batch: int) -> Any:
    """What the heuristic remembers before an episode, of a batch of episodes: leaves ``[*batch, ...]``."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*batch, *jnp.shape(leaf))), env.heuristic_start())


def heuristic_actions(env: ResourceEnv, memory: Any, seen: Observation, key: chex.PRNGKey) -> tuple[chex.Array, Any]:
    """The heuristic's choices ``i32[B, E]`` and what it remembers then, ``[B, E, ...]``."""
    return jax.vmap(jax.vmap(env.heuristic_step))(memory, seen, jax.random.split(key, seen.token_mask.shape[:2]))


def actions(
    env: ResourceEnv,
    name: PolicyName,
    seen: Observation,
    state: EnvState,
    tasks: EnvParams,
    plan: Any,
    key: chex.PRNGKey,
) -> chex.Array:
    """What a named policy without a memory chooses in a lockstep batch: ``i32[B, E]``.

    Args:
      env: the domain.
      name: of the policy, all but the heuristic. ``average`` is the reference on the ``plan`` and ``tasks`` that it
        believes in.
      seen: observations ``[B, E, ...]``.
      state: states ``[B, E, ...]``, the clock not batched.
      tasks: stacked tasks ``[B]``.
      plan: ``env.solve`` of them; only ``average`` and ``reference`` need it.
      key: of this choice.
    """
    if name == "urgent":
        return urgent_action(seen)
    if name == "random":
        return random_actions(seen, key)
    if name == "noop":
        return jnp.full(seen.token_mask.shape[:2], env.noop_action, jnp.int32)
    return reference_actions(env, plan, state, tasks, key)


def policy(env: ResourceEnv, name: PolicyName, tasks: EnvParams, population: EnvParams | None = None) -> RecurrentAct:
    """A :data:`~envs_jax.rollout.RecurrentAct` of one domain that follows a named policy; its carry is :func:`memory`.

    Args:
      env: the domain.
      name: ``average`` is the reference planned for the task with its hidden fields averaged over ``population``.
      tasks: the stacked tasks ``[B]`` it will be run on.
      population: stacked tasks to average over; ``average`` alone needs it.

    Raises:
      ValueError: for an unknown name, or ``average`` without a population.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown policy {name!r}; known: {', '.join(POLICIES)}")
    believed = tasks
    if name == "average":
        if population is None:
            raise ValueError("policy 'average' needs a population of tasks to average over")
        believed = jax.vmap(env.average_task, in_axes=(0, None))(tasks, population)
    plan = jax.vmap(env.solve)(believed) if name in ("average", "reference") else None

    def act(seen: Any, states: Any, carry: Any, key: chex.PRNGKey) -> tuple[tuple[chex.Array], Any, Any]:
        (seen,), (state,) = seen, states
        if name == "heuristic":
            chosen, carry = heuristic_actions(env, carry, seen, key)
        else:
            chosen = actions(env, name, seen, state, believed, plan, key)
        return (chosen,), (), carry

    return act


def random_act(seen: tuple[Observation, ...], states: Any, key: chex.PRNGKey) -> tuple[chex.Array, ...]:
    """An :data:`~envs_jax.rollout.Act` of any number of domains: uniform over legal actions."""
    del states
    return tuple(random_actions(o, jax.random.fold_in(key, d)) for d, o in enumerate(seen))
