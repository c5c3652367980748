"""From roll-outs to what losses take: support periods for the memory, sampled transitions for the TD losses.

Support and query of a task are stored together: mixing the transitions of tasks would silently turn meta-learning into
multitask learning. Losses take a sample of a task's transitions instead of whole episodes, so an update costs the same
whatever the domain's horizon, and all shapes are the suite's padded ones, so its compiled program serves every domain.

What a roll-out records is in the domain's unit of reward; :func:`given` makes of it what a learner is given.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import observation as vocabulary
from envs_jax.environment import ResourceEnv
from envs_jax.observation import NUM_ACTION_FEATURES, NUM_TOKEN_FEATURES, TOKEN_COLUMNS, Observation
from envs_jax.suite import Suite
from metarl_jax.configs import QLearningConfig
from metarl_jax.networks.memory import Periods

REWARD_SCALE = 0.2
"""Normalised rewards have this standard deviation under the random policy, which keeps Q of order one."""


@struct.dataclass
class RewardScale:
    """Mean and standard deviation of a period's reward under the random policy, ``f32[...]`` each."""

    mean: chex.Array
    sd: chex.Array

    def normalise(self, reward: chex.Array, periods: chex.Numeric = 1.0) -> chex.Array:
        """``0.2 (r - mean * periods) / sd`` of rewards added up over so many periods."""
        return REWARD_SCALE * (reward - self.mean * periods) / jnp.maximum(self.sd, 1e-6)


@struct.dataclass
class Transition:
    """Choices and their n-period outcomes. Leading batch axes may stand before each shape.

    Attributes:
      observation: where the choice was made.
      action: ``i32[]``.
      reward: ``f32[]`` ``sum_{i<n} gamma^i r_{p+i}``, cut at the horizon.
      span: ``f32[]`` ``sum_{i<n} gamma^i``, cut likewise: the periods that the reward adds up.
      discount: ``f32[]`` ``gamma^n``, 0 if the horizon comes first (it is part of the task: progress is observed).
      next_observation: same turn, n periods later.
      immediate: ``f32[]`` reward of the choice's own period.
      reference: ``i32[]`` what the reference policy would have chosen (training tasks only; else the action itself).
      weight: ``f32[]`` 1, or 0 to leave it out.
    """

    observation: Observation
    action: chex.Array
    reward: chex.Array
    span: chex.Array
    discount: chex.Array
    next_observation: Observation
    immediate: chex.Array
    reference: chex.Array
    weight: chex.Array

    def normalised(self, scale: RewardScale) -> Transition:
        """With rewards in the unit that learners see."""
        return self.replace(reward=scale.normalise(self.reward, self.span), immediate=scale.normalise(self.immediate))


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


def _by_period(env: ResourceEnv, leaf: chex.Array) -> chex.Array:
    """``[T, B, E, ...]`` (T of the suite) to ``[P, turns, B, E, ...]`` of the domain."""
    return leaf[: env.horizon].reshape(env.num_periods, env.num_turns, *leaf.shape[1:])


def period_rewards(env: ResourceEnv, reward: chex.Array) -> chex.Array:
    """Realised rewards ``[T, B, E]`` to ``[B, E, P]``, one a period."""
    return jnp.moveaxis(_by_period(env, reward).sum(1), 0, -1)


def periods(
    suite: Suite, env: ResourceEnv, episodes: Episodes, final: Observation, key: chex.PRNGKey, length: int
) -> Periods:
    """A domain's support at the resolution of periods, padded to the suite: axes ``[B, K, length, ...]``.

    Of an episode with more than ``length`` periods a random stretch is kept.

    Args:
      suite: whose shapes to pad to.
      env: the domain.
      episodes: recorded choices ``[T, B, K, ...]``.
      final: the observation after the last choice ``[B, K, ...]``.
      key: which stretch.
      length: periods to keep and to pad to.
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
    reward = period_rewards(env, episodes.reward)
    batch, kept = reward.shape[:2], min(env.num_periods, length)
    if kept < env.num_periods:
        first = jax.random.randint(key, batch, 0, env.num_periods - kept + 1)

        def stretch(leaf: chex.Array, count: int) -> chex.Array:
            cut = lambda one, start: jax.lax.dynamic_slice_in_dim(one, start, count)  # noqa: E731
            return jax.vmap(jax.vmap(cut))(leaf, first)

        tokens, decisions, reward = stretch(tokens, kept + 1), stretch(decisions, kept), stretch(reward, kept)

    more_tokens, more_periods = suite.num_tokens - env.num_tokens, length - kept
    return Periods(
        tokens=jnp.pad(tokens, ((0, 0), (0, 0), (0, more_periods), (0, more_tokens), (0, 0))),
        token_mask=jnp.pad(final.token_mask[:, 0], ((0, 0), (0, more_tokens))),
        decisions=jnp.pad(decisions, ((0, 0), (0, 0), (0, more_periods), (0, more_tokens), (0, 0))),
        reward=jnp.pad(reward, ((0, 0), (0, 0), (0, more_periods))),
        valid=jnp.broadcast_to(jnp.arange(length) < kept, (*batch, length)),
    )


def transitions(
    suite: Suite, env: ResourceEnv, episodes: Episodes, key: chex.PRNGKey, count: int, num_steps: int
) -> Transition:
    """``count`` random choices of every episode with their ``num_steps``-period outcomes: axes ``[B, E, count]``."""
    reward = period_rewards(env, episodes.reward)  # [B, E, P]
    gamma = env.discount_factor
    steps = range(min(num_steps, env.num_periods))
    n_step = sum(gamma**i * jnp.pad(reward[..., i:], ((0, 0), (0, 0), (0, i))) for i in steps)
    spans = sum(gamma**i * (jnp.arange(env.num_periods) + i < env.num_periods) for i in steps)
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
        span=jnp.asarray(spans, jnp.float32)[period],
        discount=jnp.where(inside, jnp.float32(gamma**num_steps), 0.0),
        next_observation=padded(at(jnp.minimum(later, env.horizon - 1), episodes.observation)),
        immediate=jnp.take_along_axis(reward, period, axis=-1),
        reference=at(time, episodes.reference),
        weight=jnp.ones(time.shape, jnp.float32),
    )


def remembered(suite: Suite, config: QLearningConfig) -> int:
    """Periods that are kept of an episode, and padded to, in every domain of a suite."""
    return min(config.periods, suite.num_periods)


def no_support(suite: Suite, config: QLearningConfig) -> Support:
    """A support of a suite's shapes from which nothing may be used: axes ``[tasks, episodes, ...]``."""
    tokens, actions = suite.num_tokens, suite.num_actions
    tasks, episodes, samples, length = config.tasks, config.episodes, config.samples, remembered(suite, config)

    def seen(*batch: int) -> Observation:
        return Observation(
            tokens=jnp.zeros((*batch, tokens, NUM_TOKEN_FEATURES)),
            token_mask=jnp.zeros((*batch, tokens), bool),
            actions=jnp.zeros((*batch, actions, NUM_ACTION_FEATURES)),
            action_target=jnp.zeros((*batch, actions), jnp.int32),
            action_mask=jnp.zeros((*batch, actions), bool),
        )

    every, each = (tasks, episodes, length), (tasks, episodes, samples)
    number, whole = jnp.zeros(each), jnp.zeros(each, jnp.int32)
    return Support(
        Periods(
            tokens=jnp.zeros((tasks, episodes, length + 1, tokens, NUM_TOKEN_FEATURES)),
            token_mask=jnp.zeros((tasks, tokens), bool),
            decisions=jnp.zeros((*every, tokens, NUM_ACTION_FEATURES)),
            reward=jnp.zeros(every),
            valid=jnp.zeros(every, bool),
        ),
        Transition(seen(*each), whole, number, number, number, seen(*each), number, whole, number),
    )


UNKNOWN_SCALE = RewardScale(jnp.nan, jnp.nan)
"""Reward scale of a domain that was not trained on."""


def calibrate(support: Support) -> RewardScale:
    """Reward scale ``f32[]`` of a domain from support episodes of some of its tasks, recorded in its unit.

    It is exact for uniformly random support; with greedier exploration it is the scale of that exploration.
    """
    return _scale(support.periods.reward, support.periods.valid)


def _scale(reward: chex.Array, used: chex.Array) -> RewardScale:
    """Mean and standard deviation of the rewards that are used; finite where none is."""
    count = jnp.maximum(used.sum(), 1)
    mean = jnp.sum(reward, where=used) / count
    return RewardScale(mean, jnp.sqrt(jnp.sum(jnp.square(reward - mean), where=used) / count))


def given(support: Support, scale: RewardScale, episodes: chex.Array, zero: chex.Array) -> Support:
    """What learners are given of the recorded support of B tasks, axes ``[B, K, ...]``.

    Where the domain was not trained on, ``scale`` is NaN and rewards are normalised by the mean and standard deviation
    of the task's own support episodes that it is given: nothing else of an unseen domain may be used.

    Args:
      support: as recorded, rewards in the domain's unit.
      scale: ``f32[]`` the domain's, or :data:`UNKNOWN_SCALE`.
      episodes: ``i32[B]`` how many support episodes each task is given.
      zero: ``bool[]`` whether to remove the rewards, also where observations repeat them.
    """

    def of_task(support: Support, episodes: chex.Array) -> Support:
        periods = support.periods
        # Without an episode nothing is used; the first one's rewards keep the numbers finite.
        used = periods.valid & (jnp.arange(periods.valid.shape[0]) < jnp.maximum(episodes, 1))[:, None]
        own = _scale(periods.reward, used)
        chosen = jax.tree.map(lambda known, own: jnp.where(jnp.isnan(known), own, known), scale, own)
        normalised = Support(
            # What pads stays zero.
            periods.replace(reward=jnp.where(periods.valid, chosen.normalise(periods.reward), 0.0)),
            support.transitions.normalised(chosen),
        )
        return normalised.first(episodes)

    whole = jax.vmap(of_task)(support, episodes)
    return jax.tree.map(lambda with_, without: jnp.where(zero, without, with_), whole, _without_rewards(whole))


def _without_rewards(support: Support) -> Support:
    column = TOKEN_COLUMNS.index("last_reward")

    def blank(tokens: chex.Array) -> chex.Array:
        return tokens.at[..., column].set(0.0)

    def blank_seen(seen: Observation) -> Observation:
        return seen.replace(tokens=blank(seen.tokens))

    periods, batch = support.periods, support.transitions
    return Support(
        periods=periods.replace(tokens=blank(periods.tokens), reward=jnp.zeros_like(periods.reward)),
        transitions=batch.replace(
            observation=blank_seen(batch.observation),
            next_observation=blank_seen(batch.next_observation),
            reward=jnp.zeros_like(batch.reward),
            immediate=jnp.zeros_like(batch.immediate),
        ),
    )


@struct.dataclass
class Experience:
    """What a meta-iteration learns from: M tasks of one domain, rewards normalised.

    Attributes:
      support: axes ``[M, K, ...]``.
      query: transitions ``[M, S]`` of other episodes of the same tasks.
      reward: ``f32[]`` mean reward of a query period.
    """

    support: Support
    query: Transition
    reward: chex.Array

    @classmethod
    def of(cls, support: Support, query: Support, scale: RewardScale) -> Experience:
        """From the recorded support and query episodes of the tasks."""
        tasks, episodes = support.periods.valid.shape[:2]
        every, no = jnp.full(tasks, episodes), jnp.bool_(False)
        support, query = (given(one, scale, every, no) for one in (support, query))
        flat = jax.tree.map(lambda leaf: leaf.reshape(tasks, -1, *leaf.shape[3:]), query.transitions)
        return cls(support, flat, query.periods.reward.mean(where=query.periods.valid))


def no_experience(suite: Suite, config: QLearningConfig) -> Experience:
    """An experience of a suite's shapes, all zero."""
    nothing = no_support(suite, config)
    return Experience.of(nothing, nothing, RewardScale(jnp.float32(0.0), jnp.float32(1.0)))
