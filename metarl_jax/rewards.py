"""Rewards as learners see them: the scale of a domain, and what of a recorded support a learner is given.

What a roll-out records is in the domain's unit of reward.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from envs_jax.observation import TOKEN_COLUMNS, Observation
from metarl_jax.types import PeriodHistory, RewardScale, Support, Trajectory, Transition

UNKNOWN_SCALE = RewardScale(jnp.nan, jnp.nan)
"""Reward scale of a domain that was not trained on."""

KNOWN_SCALE = RewardScale(0.0, 1.0)
"""Reward scale of rewards that are normalised already."""


def calibrate(history: PeriodHistory) -> RewardScale:
    """Reward scale ``f32[]`` of a domain from episodes of some of its tasks, recorded in its unit.

    It is exact for uniformly random episodes; with greedier exploration it is the scale of that exploration.
    """
    return _scale(history.reward, history.valid)


def _scale(reward: chex.Array, used: chex.Array) -> RewardScale:
    """Mean and standard deviation of the rewards that are used; finite where none is."""
    count = jnp.maximum(used.sum(), 1)
    mean = jnp.sum(reward, where=used) / count
    return RewardScale(mean, jnp.sqrt(jnp.sum(jnp.square(reward - mean), where=used) / count))


def normalised_transitions(batch: Transition, scale: RewardScale) -> Transition:
    """With rewards in the unit that learners see."""
    reward = scale.normalise(batch.reward, batch.span)
    return batch.replace(reward=reward, immediate=scale.normalise(batch.immediate))


def normalised_trajectory(trajectory: Trajectory, scale: RewardScale) -> Trajectory:
    """With rewards in the unit that learners see. The mean is taken off once a period, on its last turn."""
    paid = trajectory.period_end & trajectory.valid
    return trajectory.replace(reward=jnp.where(paid, scale.normalise(trajectory.reward), 0.0))


def prepare_support(support: Support, scale: RewardScale, episodes: chex.Array, zero: chex.Array) -> Support:
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
        history = support.history
        # Without an episode nothing is used; the first one's rewards keep the numbers finite.
        used = history.valid & (jnp.arange(history.valid.shape[0]) < jnp.maximum(episodes, 1))[:, None]
        own = _scale(history.reward, used)
        chosen = jax.tree.map(lambda known, own: jnp.where(jnp.isnan(known), own, known), scale, own)
        normalised = support.replace(
            # What pads stays zero.
            history=history.replace(reward=jnp.where(history.valid, chosen.normalise(history.reward), 0.0))
        )
        if support.transitions is not None:
            normalised = normalised.replace(transitions=normalised_transitions(support.transitions, chosen))
        if support.trajectory is not None:
            normalised = normalised.replace(trajectory=normalised_trajectory(support.trajectory, chosen))
        if (rows := support.rows) is not None:
            normalised = normalised.replace(rows=rows.replace(outcome=chosen.normalise(rows.outcome, rows.span)))
        return normalised.first(episodes)

    whole = jax.vmap(of_task)(support, episodes)
    return jax.tree.map(lambda with_, without: jnp.where(zero, without, with_), whole, _without_rewards(whole))


def without_last_reward(seen: Observation) -> Observation:
    """An observation that does not repeat the last reward."""
    return seen.replace(tokens=_blank(seen.tokens))


def _blank(tokens: chex.Array) -> chex.Array:
    return tokens.at[..., TOKEN_COLUMNS.index("last_reward")].set(0.0)


def _without_rewards(support: Support) -> Support:
    history = support.history
    result = support.replace(
        history=history.replace(tokens=_blank(history.tokens), reward=jnp.zeros_like(history.reward))
    )
    if (batch := support.transitions) is not None:
        result = result.replace(
            transitions=batch.replace(
                observation=without_last_reward(batch.observation),
                next_observation=without_last_reward(batch.next_observation),
                reward=jnp.zeros_like(batch.reward),
                immediate=jnp.zeros_like(batch.immediate),
            )
        )
    if (trajectory := support.trajectory) is not None:
        result = result.replace(
            trajectory=trajectory.replace(
                observation=without_last_reward(trajectory.observation),
                final=without_last_reward(trajectory.final),
                reward=jnp.zeros_like(trajectory.reward),
            )
        )
    if (rows := support.rows) is not None:  # its features do not repeat the last reward, see ``recording.Basis``
        result = result.replace(rows=rows.replace(outcome=jnp.zeros_like(rows.outcome)))
    return result
