"""From roll-outs to what losses take: support periods for the memory, sampled transitions for the TD losses.

Support and query of a task are stored together: mixing the transitions of tasks would silently turn meta-learning into
multitask learning. Losses take a sample of a task's transitions instead of whole episodes, so an update costs the same
whatever the domain's horizon, and all shapes are the suite's padded ones, so its compiled program serves every domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import observation as vocabulary
from envs_jax.environment import ResourceEnv
from envs_jax.observation import Observation
from envs_jax.suite import Step, Suite
from metarl_jax.networks.memory import Periods

REWARD_SCALE = 0.2
"""Normalised rewards have this standard deviation under the random policy, which keeps Q of order one."""


@struct.dataclass
class RewardScale:
    """Mean and standard deviation of a period's reward under the random policy, ``f32[...]`` each."""

    mean: chex.Array
    sd: chex.Array

    def normalise(self, reward: chex.Array) -> chex.Array:
        """``0.2 (r - mean) / sd``."""
        return REWARD_SCALE * (reward - self.mean) / jnp.maximum(self.sd, 1e-6)


@struct.dataclass
class Transition:
    """Choices and their n-period outcomes. Leading batch axes may stand before each shape.

    Attributes:
      observation: where the choice was made.
      action: ``i32[]``.
      reward: ``f32[]`` ``sum_{i<n} gamma^i r_{p+i}``, normalised, cut at the horizon.
      discount: ``f32[]`` ``gamma^n``, 0 if the horizon comes first (it is part of the task: progress is observed).
      next_observation: same turn, n periods later.
      immediate: ``f32[]`` normalised reward of the choice's own period.
      reference: ``i32[]`` what the reference policy would have chosen (training tasks only; else the action itself).
      weight: ``f32[]`` 1, or 0 to leave it out.
    """

    observation: Observation
    action: chex.Array
    reward: chex.Array
    discount: chex.Array
    next_observation: Observation
    immediate: chex.Array
    reference: chex.Array
    weight: chex.Array


@struct.dataclass
class Support:
    """K support episodes of a task: ``periods`` (axes ``[K, P]``) and sampled ``transitions`` (axes ``[K, S]``)."""

    periods: Periods
    transitions: Transition

    def first(self, episodes: chex.Array) -> Support:
        """Keeps the first ``episodes i32[]`` of one task's support and masks the rest."""
        kept = jnp.arange(self.periods.valid.shape[0]) < episodes
        return Support(
            periods=self.periods.replace(valid=self.periods.valid & kept[:, None]),
            transitions=self.transitions.replace(weight=self.transitions.weight * kept[:, None]),
        )


@struct.dataclass
class Episodes:
    """Recorded choices of one domain: leaves ``[T, B, E, ...]``.

    Attributes:
      observation: what was seen.
      action: ``i32`` what was chosen.
      reward: ``f32`` realised, in the domain's unit.
      reference: ``i32`` the reference policy's choice.
    """

    observation: Observation
    action: chex.Array
    reward: chex.Array
    reference: chex.Array

    @classmethod
    def of(cls, step: Step, reference: chex.Array | None = None) -> Episodes:
        """Keeps of a roll-out's step what learning needs."""
        return cls(step.observation, step.action, step.reward, step.action if reference is None else reference)


def _by_period(env: ResourceEnv, leaf: chex.Array) -> chex.Array:
    """``[T, B, E, ...]`` (T of the suite) to ``[P, turns, B, E, ...]`` of the domain."""
    return leaf[: env.horizon].reshape(env.num_periods, env.num_turns, *leaf.shape[1:])


def period_rewards(env: ResourceEnv, reward: chex.Array) -> chex.Array:
    """Realised rewards ``[T, B, E]`` to ``[B, E, P]``, one a period."""
    return jnp.moveaxis(_by_period(env, reward).sum(1), 0, -1)


def periods(suite: Suite, env: ResourceEnv, episodes: Episodes, final: Observation, scale: RewardScale) -> Periods:
    """A domain's support at the resolution of periods, padded to the suite: axes ``[B, K, P, ...]``.

    Args:
      suite: whose shapes to pad to.
      env: the domain.
      episodes: recorded choices ``[T, B, K, ...]``.
      final: the observation after the last choice ``[B, K, ...]``.
      scale: reward scale, leaves ``[]`` or ``[B, 1, 1]``.
    """
    starts = _by_period(env, episodes.observation.tokens)[:, 0]
    tokens = jnp.moveaxis(jnp.concatenate([starts, final.tokens[None]]), 0, 2)

    def chosen(table: chex.Array, action: chex.Array) -> chex.Array:
        return jnp.take_along_axis(table, action.reshape(*action.shape, *(1,) * (table.ndim - action.ndim)), 3)[
            :, :, :, 0
        ]

    description = chosen(episodes.observation.actions, episodes.action)  # [T, B, K, G]
    target = chosen(episodes.observation.action_target, episodes.action)  # [T, B, K]
    concerns = (jnp.arange(env.num_tokens) == target[..., None]) | (target[..., None] < 0)
    decisions = _by_period(env, concerns[..., None] * description[..., None, :]).sum(1)
    decisions = jnp.moveaxis(decisions, 0, 2)  # [B, K, P, N, G]

    reward = scale.normalise(period_rewards(env, episodes.reward))
    more_tokens, more_periods = suite.num_tokens - env.num_tokens, suite.num_periods - env.num_periods
    mask = final.token_mask[:, 0]
    batch = reward.shape[:2]
    return Periods(
        tokens=jnp.pad(tokens, ((0, 0), (0, 0), (0, more_periods), (0, more_tokens), (0, 0))),
        token_mask=jnp.pad(mask, ((0, 0), (0, more_tokens))),
        decisions=jnp.pad(decisions, ((0, 0), (0, 0), (0, more_periods), (0, more_tokens), (0, 0))),
        reward=jnp.pad(reward, ((0, 0), (0, 0), (0, more_periods))),
        valid=jnp.broadcast_to(jnp.arange(suite.num_periods) < env.num_periods, (*batch, suite.num_periods)),
    )


def transitions(
    suite: Suite,
    env: ResourceEnv,
    episodes: Episodes,
    scale: RewardScale,
    key: chex.PRNGKey,
    count: int,
    num_steps: int,
) -> Transition:
    """``count`` random choices of every episode with their ``num_steps``-period outcomes: axes ``[B, E, count]``."""
    reward = scale.normalise(period_rewards(env, episodes.reward))  # [B, E, P]
    gamma = env.discount_factor
    n_step = sum(
        gamma**i * jnp.pad(reward[..., i:], ((0, 0), (0, 0), (0, min(i, env.num_periods))))
        for i in range(min(num_steps, env.num_periods))
    )
    batch = reward.shape[:2]
    time = jax.random.randint(key, (*batch, count), 0, env.horizon)
    later = time + num_steps * env.num_turns
    inside = later < env.horizon
    period = time // env.num_turns
    rows, columns = jnp.arange(batch[0])[:, None, None], jnp.arange(batch[1])[None, :, None]

    def at(time: chex.Array, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[time, rows, columns], tree)

    def padded(seen: Observation) -> Observation:
        return vocabulary.pad(seen, suite.num_tokens, suite.num_actions)

    return Transition(
        observation=padded(at(time, episodes.observation)),
        action=at(time, episodes.action),
        reward=jnp.take_along_axis(n_step, period, axis=-1),
        discount=jnp.where(inside, jnp.float32(gamma**num_steps), 0.0),
        next_observation=padded(at(jnp.minimum(later, env.horizon - 1), episodes.observation)),
        immediate=jnp.take_along_axis(reward, period, axis=-1),
        reference=at(time, episodes.reference),
        weight=jnp.ones(time.shape, jnp.float32),
    )


def support(
    suite: Suite,
    episodes: Sequence[Episodes],
    finals: Sequence[Observation],
    scales: Sequence[RewardScale],
    key: chex.PRNGKey,
    count: int,
    num_steps: int,
) -> Support:
    """Support of all tasks of all domains: axes ``[M, K, ...]``."""
    parts = [
        Support(
            periods(suite, env, recorded, final, scale),
            transitions(suite, env, recorded, scale, jax.random.fold_in(key, d), count, num_steps),
        )
        for d, (env, recorded, final, scale) in enumerate(zip(suite.envs, episodes, finals, scales, strict=True))
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
