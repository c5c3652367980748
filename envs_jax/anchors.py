"""Returns of the policies that scores are anchored to: random, no-op, heuristic, reference.

A learner's score on a task is ``(J - floor) / (J_reference - floor)`` with ``floor = max(J_random, J_noop)``, every J
an undiscounted episode return under common random numbers. Where a domain states a noise-free ``expected_reward``,
returns add that up instead of the realised reward: the same expectation, far less noise.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.environment import EnvParams, ResourceEnv
from envs_jax.suite import Act, Step, random_actions, reference_actions, rollout

PolicyName = Literal["random", "noop", "heuristic", "average", "reference"]
POLICIES: tuple[PolicyName, ...] = get_args(PolicyName)


@struct.dataclass
class Anchors:
    """Returns of a task's anchor policies: means over episodes ``f32[B]``, or each episode's ``f32[B, E]``."""

    random: chex.Array
    noop: chex.Array
    heuristic: chex.Array
    reference: chex.Array

    @property
    def floor(self) -> chex.Array:
        """``max(random, no-op)``, per task."""
        return jnp.maximum(self.random, self.noop)


def policy(env: ResourceEnv, name: PolicyName, tasks: EnvParams, population: EnvParams | None = None) -> Act:
    """An :data:`~envs_jax.suite.Act` of one domain that follows a named policy.

    Args:
      env: the domain.
      name: ``average`` is the reference planned for the task with its hidden fields averaged over ``population``.
      tasks: the stacked tasks ``[B]`` it will be run on.
      population: stacked tasks to average over; ``average`` alone needs it.
    """
    if name not in POLICIES:
        raise ValueError(f"unknown policy {name!r}; known: {', '.join(POLICIES)}")
    believed = tasks
    if name == "average":
        if population is None:
            raise ValueError("policy 'average' needs a population of tasks to average over")
        believed = jax.vmap(env.average_task, in_axes=(0, None))(tasks, population)
    plan = jax.vmap(env.solve)(believed) if name in ("average", "reference") else None

    def act(seen: Any, states: Any, key: chex.PRNGKey) -> tuple[chex.Array]:
        (seen,), (state,) = seen, states
        batch = seen.token_mask.shape[:2]
        if name == "random":
            return (random_actions(seen, key),)
        if name == "noop":
            return (jnp.full(batch, env.noop_action, jnp.int32),)
        if name == "heuristic":
            return (jax.vmap(jax.vmap(env.heuristic_action))(seen, jax.random.split(key, batch)),)
        return (reference_actions(env, plan, state, believed, key),)

    return act


def score_reward(domain: int, step: Step) -> chex.Array:
    """What scores add up: the noise-free expected reward, 0 beyond the horizon."""
    del domain
    return jnp.where(step.valid, step.info["expected_reward"], 0.0)


@functools.partial(jax.jit, static_argnames=("env", "name"))
def returns(
    env: ResourceEnv,
    name: PolicyName,
    tasks: EnvParams,
    keys: chex.PRNGKey,
    population: EnvParams | None = None,
) -> chex.Array:
    """Undiscounted returns ``f32[B, E]`` of a named policy on ``tasks[B]`` and episode ``keys[B, E]``."""
    act = policy(env, name, tasks, population)
    (rewards,), _ = rollout((env,), (tasks,), (keys,), act, jax.random.fold_in(keys[0, 0], 1), record=score_reward)
    return jnp.sum(rewards, axis=0)


@functools.partial(jax.jit, static_argnames=("env",))
def anchors(env: ResourceEnv, tasks: EnvParams, keys: chex.PRNGKey) -> Anchors:
    """Anchor returns ``f32[B]`` of ``tasks[B]``, each a mean over the episodes of ``keys[B, E]``."""
    return jax.tree.map(lambda returns: returns.mean(-1), anchor_episodes(env, tasks, keys))


@functools.partial(jax.jit, static_argnames=("env",))
def anchor_episodes(env: ResourceEnv, tasks: EnvParams, keys: chex.PRNGKey) -> Anchors:
    """Anchor returns ``f32[B, E]`` of ``tasks[B]`` in each of the episodes of ``keys[B, E]``, all in one roll-out."""
    names: tuple[PolicyName, ...] = ("random", "noop", "heuristic", "reference")
    policies = [policy(env, name, tasks) for name in names]
    _, episodes = keys.shape

    def act(seen: Any, states: Any, key: chex.PRNGKey) -> tuple[chex.Array]:
        actions: list[chex.Array] = []
        for i, one in enumerate(policies):
            block = slice(i * episodes, (i + 1) * episodes)
            cut = functools.partial(lambda block, leaf: leaf[:, block] if leaf.ndim else leaf, block)
            actions += one(
                jax.tree.map(cut, seen), jax.tree.map(cut, states), key
            )  # the same draws as when a policy runs alone
        return (jnp.concatenate(actions, axis=1),)

    repeated = jnp.concatenate([keys] * len(names), axis=1)
    (rewards,), _ = rollout((env,), (tasks,), (repeated,), act, jax.random.fold_in(keys[0, 0], 1), record=score_reward)
    totals = rewards.sum(0).reshape(-1, len(names), episodes)
    return Anchors(**{name: totals[:, i] for i, name in enumerate(names)})
