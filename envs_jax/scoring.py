"""Returns of the policies to which scores refer: random, no-op, heuristic, reference.

A learner's score on a task is ``(J - floor) / (J_reference - floor)`` with ``floor = max(J_random, J_noop)``, every J
an undiscounted episode return under common random numbers. Where a domain states a noise-free ``expected_reward``,
returns add that up instead of the realised reward: the same expectation, far less noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import policies as rules
from envs_jax.environment import EnvParams, ResourceEnv
from envs_jax.policies import PolicyName, policy
from envs_jax.rollout import Step, recurrent_rollout

Scored = Literal["random", "noop", "heuristic", "reference"]
SCORED: tuple[Scored, ...] = ("random", "noop", "heuristic", "reference")
"""The policies whose returns a score refers to, or that stand beside it in every table."""


@struct.dataclass
class ReferenceReturns:
    """Returns of a task's baseline policies: means over episodes ``f32[B]``, or each episode's ``f32[B, E]``."""

    random: chex.Array
    noop: chex.Array
    heuristic: chex.Array
    reference: chex.Array

    @classmethod
    def measured(cls, play: Callable[[Scored], Any]) -> ReferenceReturns:
        """From whatever plays a policy by name and returns its returns."""
        return cls(**{name: play(name) for name in SCORED})

    @property
    def floor(self) -> chex.Array:
        """``max(random, no-op)``, per task."""
        return jnp.maximum(self.random, self.noop)


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
    act, memory = policy(env, name, tasks, population), rules.memory(env, *keys.shape)
    (rewards,), *_ = recurrent_rollout(
        (env,), (tasks,), (keys,), act, memory, jax.random.fold_in(keys[0, 0], 1), record=score_reward
    )
    return jnp.sum(rewards, axis=0)


@functools.partial(jax.jit, static_argnames=("env",))
def reference_returns(env: ResourceEnv, tasks: EnvParams, keys: chex.PRNGKey) -> ReferenceReturns:
    """Baseline returns ``f32[B]`` of ``tasks[B]``, each a mean over the episodes of ``keys[B, E]``."""
    return jax.tree.map(lambda returns: returns.mean(-1), reference_episodes(env, tasks, keys))


@functools.partial(jax.jit, static_argnames=("env",))
def reference_episodes(env: ResourceEnv, tasks: EnvParams, keys: chex.PRNGKey) -> ReferenceReturns:
    """Baseline returns ``f32[B, E]`` of ``tasks[B]`` in each of the episodes of ``keys[B, E]``, all in one roll-out."""
    policies = [policy(env, name, tasks) for name in SCORED]
    _, episodes = keys.shape

    def act(seen: Any, states: Any, carry: Any, key: chex.PRNGKey) -> tuple[tuple[chex.Array], Any, Any]:
        actions: list[chex.Array] = []
        for i, one in enumerate(policies):
            block = slice(i * episodes, (i + 1) * episodes)
            cut = functools.partial(lambda block, leaf: leaf[:, block] if leaf.ndim else leaf, block)
            # The same draws as when a policy runs alone; only the heuristic changes the carry.
            chosen, _, carry = one(jax.tree.map(cut, seen), jax.tree.map(cut, states), carry, key)
            actions += chosen
        return (jnp.concatenate(actions, axis=1),), (), carry

    repeated = jnp.concatenate([keys] * len(SCORED), axis=1)
    memory, act_key = rules.memory(env, *keys.shape), jax.random.fold_in(keys[0, 0], 1)
    (rewards,), *_ = recurrent_rollout((env,), (tasks,), (repeated,), act, memory, act_key, record=score_reward)
    totals = rewards.sum(0).reshape(-1, len(SCORED), episodes)
    return ReferenceReturns.measured(lambda name: totals[:, SCORED.index(name)])
