"""What is recorded of episodes, and what learners are given of it. Networks, losses and learners all read it."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.observation import Observation

MASKED = -1e9
"""Logit or value of what must not be chosen: finite, because -inf inside a ``where`` gives NaN gradients."""

REWARD_SCALE = 0.2
"""Normalised rewards have this standard deviation under the random policy, which keeps Q of order one."""


@struct.dataclass
class RewardScale:
    """Mean and standard deviation of a period's reward under the random policy, ``f32[...]`` each.

    NaN stands for the scale of a domain that was not trained on, see :func:`metarl_jax.rewards.prepare_support`.
    """

    mean: chex.Array
    sd: chex.Array

    def normalise(self, reward: chex.Array, periods: chex.Numeric = 1.0) -> chex.Array:
        """``0.2 (r - mean * periods) / sd`` of rewards added up over so many periods."""
        return REWARD_SCALE * (reward - self.mean * periods) / jnp.maximum(self.sd, 1e-6)


@struct.dataclass
class PeriodHistory:
    """Episodes of one task at the resolution of periods. Leading batch axes may stand before each shape.

    Attributes:
      tokens: ``f32[K, P+1, N, F]`` tokens at the start of each period and after the last.
      token_mask: ``bool[N]`` which tokens exist.
      decisions: ``f32[K, P, N, G]`` descriptions of the actions chosen in a period, added to the token they concern.
      reward: ``f32[K, P]`` reward of each period.
      valid: ``bool[K, P]`` which periods exist and may be used.
    """

    tokens: chex.Array
    token_mask: chex.Array
    decisions: chex.Array
    reward: chex.Array
    valid: chex.Array


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


@struct.dataclass
class Trajectory:
    """Every choice of an episode in order. Leading batch axes may stand before each shape.

    Attributes:
      observation: ``[L, ...]`` what was seen.
      action: ``i32[L]`` what was chosen.
      reward: ``f32[L]``; 0 but on a period's last turn.
      discount: ``f32[L]``: 1 within a period, gamma on its last turn, 0 where nothing that follows counts.
      period_end: ``bool[L]`` whether it was a period's last turn.
      reference: ``i32[L]`` what the reference policy would have chosen, if that was asked for.
      valid: ``bool[L]`` False beyond the domain's own horizon.
      final: the observation after the last choice, ``[...]`` without the axis L; ``()`` where nobody needs it.
    """

    observation: Observation
    action: chex.Array
    reward: chex.Array
    discount: chex.Array
    period_end: chex.Array
    reference: chex.Array
    valid: chex.Array
    final: Any


@struct.dataclass
class Rows:
    """Every choice of an episode as a row of a regression. Leading batch axes may stand before each shape.

    The k-th outcome of a row is ``outcome_k + discount_k V(state of the row later_k)`` with a value V that is fitted.

    Attributes:
      features: ``f16[L, D]`` of the action chosen, centred over the legal ones.
      state: ``f16[L, S]`` of the state in which it was chosen.
      outcome: ``f32[L, M]`` discounted sum of the rewards of some periods from this one on, cut at the horizon.
      span: ``f32[L, M]`` sum of the discounts of those periods.
      discount: ``f32[L, M]`` of the value that follows; 0 for a plain return, and where the horizon comes first.
      later: ``i32[L, M]`` the row of the same turn, those periods later.
      weight: ``f32[L]`` 1, or 0 to leave it out.
    """

    features: chex.Array
    state: chex.Array
    outcome: chex.Array
    span: chex.Array
    discount: chex.Array
    later: chex.Array
    weight: chex.Array


@struct.dataclass
class Support:
    """What is kept of K episodes of a task, axes ``[K, ...]``; of B tasks, ``[B, K, ...]``.

    Which of the last three is recorded is the learner's :class:`~metarl_jax.recording.Recorder`. A support without any
    is for learners that are not to take gradient steps: nothing was seen, or this phase of training leaves them out.

    Attributes:
      history: for a memory.
      transitions: sampled choices in no order, axes ``[K, S, ...]``, or None.
      trajectory: all choices in order, axes ``[K, L, ...]``, or None.
      rows: all choices as rows of a regression, axes ``[K, L, ...]``, or None.
    """

    history: PeriodHistory
    transitions: Transition | None = None
    trajectory: Trajectory | None = None
    rows: Rows | None = None

    def first(self, episodes: chex.Array) -> Support:
        """Keeps the first ``episodes i32[]`` of one task's support and masks the rest."""
        kept = jnp.arange(self.history.valid.shape[0]) < episodes
        result = self.replace(history=self.history.replace(valid=self.history.valid & kept[:, None]))
        if self.transitions is not None:
            weight = self.transitions.weight * kept[:, None]
            result = result.replace(transitions=self.transitions.replace(weight=weight))
        if self.trajectory is not None:
            valid = self.trajectory.valid & kept[:, None]
            result = result.replace(trajectory=self.trajectory.replace(valid=valid))
        if self.rows is not None:
            result = result.replace(rows=self.rows.replace(weight=self.rows.weight * kept[:, None]))
        return result

    def without_gradients(self) -> Support:
        """The same, with nothing to take gradient steps on."""
        return self.replace(transitions=None, trajectory=None, rows=None)


@struct.dataclass
class MetaBatch:
    """What a meta-iteration learns from: M tasks of one domain, rewards normalised.

    Attributes:
      support: axes ``[M, K, ...]``; None for learners that need none to train.
      query: transitions ``[M, S]`` of other episodes of the same tasks, or trajectories ``[M, E, L]``.
      known: ``i32[M]`` support episodes that the policy knew which played the query episodes.
      reward: ``f32[]`` mean reward of a query period.
    """

    support: Support | None
    query: Any
    known: chex.Array
    reward: chex.Array


@struct.dataclass
class TaskGroup:
    """M tasks for each of S gradient steps, of domains that share padded shapes. Numbers may be of half precision.

    Attributes:
      support: axes ``[S, M, K, ...]``, rewards normalised.
      query: transitions ``[S, M, Q]`` of other episodes of the same tasks, in random order.
      weight: ``f32[S, M]`` of a task in the mean over all tasks of a step.
    """

    support: Support
    query: Transition
    weight: chex.Array


@struct.dataclass
class FrozenBatch:
    """What a meta-iteration of S gradient steps learns from frozen data: each step tasks of every training domain.

    Attributes:
      groups: tasks by shape; the weights of a step's tasks add up to 1 over the groups.
    """

    groups: tuple[TaskGroup, ...]


def flatten_axes(tree: Any, first: int, count: int) -> Any:
    """Joins ``count`` axes of every leaf from axis ``first`` on."""
    return jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:first], -1, *leaf.shape[first + count :]), tree)
