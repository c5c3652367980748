"""From roll-outs to what learners take: a history of periods for the memory, sampled transitions or whole trajectories.

Support and query of a task are stored together: mixing the transitions of tasks would silently turn meta-learning into
multitask learning. Losses of value learners take a sample of a task's transitions instead of whole episodes, so an
update costs the same whatever the domain's horizon. All shapes are the suite's padded ones, so a learner's compiled
programs serve every domain. Rewards stay in the domain's unit; see :mod:`metarl_jax.rewards`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp

from envs_jax import observation as vocabulary
from envs_jax.environment import ResourceEnv
from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax.types import PeriodHistory, Rows, Support, Trajectory, Transition


class Basis(Protocol):
    """Fixed features of a regression: frozen, hashable. They must not repeat the last reward."""

    def __hash__(self) -> int:
        """Equal bases have equal hashes."""

    def chosen(self, seen: Observation, action: chex.Array) -> chex.Array:
        """Features ``f32[..., D]`` of the actions ``i32[...]`` that were chosen."""

    def state(self, seen: Observation) -> chex.Array:
        """Features ``f32[..., S]`` of the state."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a row of a regression says followed a choice.

    Attributes:
      periods: n, whose rewards are added up.
      bootstrap: whether the value of the state that follows is added.
    """

    periods: int
    bootstrap: bool = False


@dataclasses.dataclass(frozen=True)
class Recorder:
    """What is kept of an episode.

    Attributes:
      periods: periods kept for the memory; of a longer episode, a random stretch.
      samples: choices sampled for losses that take transitions; 0 keeps none.
      num_steps: n of the transitions' n-period outcomes.
      ordered: whether all choices are kept in order.
      terminal: whether nothing counts after the horizon, where the domain says so; False within a longer trial.
      forced: whether choices between one legal action are sampled too: they teach nothing about choosing.
      basis: features in which all choices are kept as rows of a regression; None keeps no rows.
      outcomes: of each row.
    """

    periods: int
    samples: int = 0
    num_steps: int = 1
    ordered: bool = False
    terminal: bool = True
    forced: bool = True
    basis: Basis | None = None
    outcomes: tuple[Outcome, ...] = (Outcome(1),)

    def record(self, suite: Suite, env: ResourceEnv, played: Trajectory, key: chex.PRNGKey) -> Support:
        """What is kept of ``played [T, B, E, ...]`` of a domain, padded to the suite: axes ``[B, E, ...]``."""
        history_key, sample_key, _ = jax.random.split(key, 3)
        return Support(
            history=period_history(suite, env, played, history_key, history_length(suite, self.periods)),
            transitions=transitions(suite, env, played, sample_key, self.samples, self.num_steps, self.forced)
            if self.samples
            else None,
            trajectory=padded_trajectory(suite, env, played, self.terminal) if self.ordered else None,
            rows=regression_rows(suite, env, played, self.basis, self.outcomes) if self.basis is not None else None,
        )


def _by_period(env: ResourceEnv, leaf: chex.Array) -> chex.Array:
    """``[T, B, E, ...]`` (T of the suite) to ``[P, turns, B, E, ...]`` of the domain."""
    return leaf[: env.horizon].reshape(env.num_periods, env.num_turns, *leaf.shape[1:])


def period_rewards(env: ResourceEnv, reward: chex.Array) -> chex.Array:
    """Realised rewards ``[T, B, E]`` to ``[B, E, P]``, one a period."""
    return jnp.moveaxis(_by_period(env, reward).sum(1), 0, -1)


def period_history(suite: Suite, env: ResourceEnv, played: Trajectory, key: chex.PRNGKey, length: int) -> PeriodHistory:
    """A domain's episodes at the resolution of periods, padded to the suite: axes ``[B, K, length, ...]``.

    Of an episode with more than ``length`` periods a random stretch is kept.

    Args:
      suite: whose shapes to pad to.
      env: the domain.
      played: recorded choices ``[T, B, K, ...]``.
      key: which stretch.
      length: periods to keep and to pad to.
    """
    starts = _by_period(env, played.observation.tokens)[:, 0]
    tokens = jnp.moveaxis(jnp.concatenate([starts, played.final.tokens[None]]), 0, 2)

    def chosen(table: chex.Array, action: chex.Array) -> chex.Array:
        return jnp.take_along_axis(table, action.reshape(*action.shape, *(1,) * (table.ndim - action.ndim)), 3)[
            :, :, :, 0
        ]

    description = chosen(played.observation.actions, played.action)  # [T, B, K, G]
    target = chosen(played.observation.action_target, played.action)  # [T, B, K]
    concerns = (jnp.arange(env.num_tokens) == target[..., None]) | (target[..., None] < 0)
    decisions = _by_period(env, concerns[..., None] * description[..., None, :]).sum(1)
    decisions = jnp.moveaxis(decisions, 0, 2)  # [B, K, P, N, G]
    reward = period_rewards(env, played.reward)
    batch, kept = reward.shape[:2], min(env.num_periods, length)
    if kept < env.num_periods:
        first = jax.random.randint(key, batch, 0, env.num_periods - kept + 1)

        def stretch(leaf: chex.Array, count: int) -> chex.Array:
            cut = lambda one, start: jax.lax.dynamic_slice_in_dim(one, start, count)  # noqa: E731
            return jax.vmap(jax.vmap(cut))(leaf, first)

        tokens, decisions, reward = stretch(tokens, kept + 1), stretch(decisions, kept), stretch(reward, kept)

    more_tokens, more_periods = suite.num_tokens - env.num_tokens, length - kept
    return PeriodHistory(
        tokens=jnp.pad(tokens, ((0, 0), (0, 0), (0, more_periods), (0, more_tokens), (0, 0))),
        token_mask=jnp.pad(played.final.token_mask[:, 0], ((0, 0), (0, more_tokens))),
        decisions=jnp.pad(decisions, ((0, 0), (0, 0), (0, more_periods), (0, more_tokens), (0, 0))),
        reward=jnp.pad(reward, ((0, 0), (0, 0), (0, more_periods))),
        valid=jnp.broadcast_to(jnp.arange(length) < kept, (*batch, length)),
    )


def transitions(
    suite: Suite,
    env: ResourceEnv,
    played: Trajectory,
    key: chex.PRNGKey,
    count: int,
    num_steps: int,
    forced: bool = True,
) -> Transition:
    """``count`` random choices of every episode with their ``num_steps``-period outcomes: axes ``[B, E, count]``.

    Where the horizon does not terminate, fewer periods are added up before it and what is seen at its end bootstraps;
    where another episode begins within the periods, nothing after that counts. Without the ``forced`` ones, an episode
    in which nothing was to be chosen gives transitions of weight 0.
    """
    reward = period_rewards(env, played.reward)  # [B, E, P]
    gamma = env.discount_factor
    steps = range(min(num_steps, env.num_periods))
    n_step = sum(gamma**i * jnp.pad(reward[..., i:], ((0, 0), (0, 0), (0, i))) for i in steps)
    spans = sum(gamma**i * (jnp.arange(env.num_periods) + i < env.num_periods) for i in steps)
    batch = reward.shape[:2]
    continued: chex.Array | None = None
    if not env.horizon_terminates:
        n_step, continued = _until_termination(env, played, reward, len(steps))
    weight = jnp.ones((*batch, count), jnp.float32)
    if forced:
        time = jax.random.randint(key, (*batch, count), 0, env.horizon)
    else:
        free = played.observation.action_mask[: env.horizon].sum(-1) > 1
        upto = jnp.cumsum(free, axis=0, dtype=jnp.int32)  # [T, B, E]
        there = upto[-1][..., None]
        rank = jnp.floor(jax.random.uniform(key, (*batch, count)) * there).astype(jnp.int32)
        time = jnp.minimum(jnp.sum(upto[..., None] <= rank, axis=0), env.horizon - 1)
        weight = jnp.where(there > 0, weight, 0.0)
    later = time + num_steps * env.num_turns
    inside = later < env.horizon
    period = time // env.num_turns
    rows, columns = jnp.arange(batch[0])[:, None, None], jnp.arange(batch[1])[None, :, None]

    def at(time: chex.Array, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[time, rows, columns], tree)

    def padded(seen: Observation) -> Observation:
        return vocabulary.pad(seen, suite.num_tokens, suite.num_actions)

    discount = jnp.where(inside, jnp.float32(gamma**num_steps), 0.0)
    following = at(jnp.minimum(later, env.horizon - 1), played.observation)
    if continued is not None:
        discount = jnp.take_along_axis(continued, period, axis=-1)

        def or_final(seen: chex.Array, final: chex.Array) -> chex.Array:
            return jnp.where(inside.reshape(*inside.shape, *(1,) * (seen.ndim - 3)), seen, final[:, :, None])

        following = jax.tree.map(or_final, following, played.final)
    return Transition(
        observation=padded(at(time, played.observation)),
        action=at(time, played.action),
        reward=jnp.take_along_axis(n_step, period, axis=-1),
        span=jnp.asarray(spans, jnp.float32)[period],
        discount=discount,
        next_observation=padded(following),
        immediate=jnp.take_along_axis(reward, period, axis=-1),
        reference=at(time, played.reference),
        weight=weight,
    )


def _until_termination(
    env: ResourceEnv, played: Trajectory, reward: chex.Array, num_steps: int
) -> tuple[chex.Array, chex.Array]:
    """Discounted rewards of up to so many periods from each on, ``f32[B, E, P]``, and the discount of what follows."""
    goes_on = jnp.moveaxis(_by_period(env, played.discount)[:, -1] > 0, 0, -1)
    outcome, continued = jnp.zeros_like(reward), jnp.ones_like(reward)
    for i in range(num_steps):
        ahead = ((0, 0), (0, 0), (0, i))
        outcome += continued * jnp.pad(reward[..., i:], ahead)
        there = jnp.arange(env.num_periods) + i < env.num_periods
        continued *= jnp.where(there, env.discount_factor * jnp.pad(goes_on[..., i:], ahead), 1.0)
    return outcome, continued


def padded_trajectory(suite: Suite, env: ResourceEnv, played: Trajectory, terminal: bool) -> Trajectory:
    """All choices in order, padded to the suite: axes ``[B, E, L, ...]``; the discount is 0 at a terminal horizon."""

    def in_order(leaf: chex.Array) -> chex.Array:
        leaf = jnp.moveaxis(leaf[: env.horizon], 0, 2)
        return jnp.pad(leaf, [(0, suite.horizon - env.horizon if axis == 2 else 0) for axis in range(leaf.ndim)])

    def padded(seen: Observation) -> Observation:
        return vocabulary.pad(seen, suite.num_tokens, suite.num_actions)

    ends = (jnp.arange(suite.horizon) == env.horizon - 1) & (terminal and env.horizon_terminates)
    final = padded(played.final)
    ordered = jax.tree.map(in_order, played.replace(final=None))
    return ordered.replace(
        observation=padded(ordered.observation), discount=jnp.where(ends, 0.0, ordered.discount), final=final
    )


def regression_rows(
    suite: Suite, env: ResourceEnv, played: Trajectory, basis: Basis, outcomes: Sequence[Outcome]
) -> Rows:
    """All choices in order as rows of a regression, padded to the suite: axes ``[B, E, L, ...]``.

    A row takes as much memory as its features, in float16, and a fifth of an observation.
    """

    def in_order(leaf: chex.Array) -> chex.Array:
        leaf = jnp.moveaxis(leaf, 0, 2)
        return jnp.pad(leaf, [(0, suite.horizon - env.horizon if axis == 2 else 0) for axis in range(leaf.ndim)])

    def features(choice: tuple[Observation, chex.Array]) -> tuple[chex.Array, chex.Array]:
        seen, action = choice
        return basis.chosen(seen, action).astype(jnp.float16), basis.state(seen).astype(jnp.float16)

    # One choice of the episodes after another: the features of all actions at once would take a hundred megabytes.
    choices = jax.tree.map(lambda leaf: leaf[: env.horizon], (played.observation, played.action))
    chosen, state = jax.tree.map(in_order, jax.lax.map(features, choices))
    reward, gamma = period_rewards(env, played.reward), env.discount_factor
    time = jnp.arange(env.horizon)
    period, lag = time // env.num_turns, jnp.arange(env.num_periods) - jnp.arange(env.num_periods)[:, None]
    outcome, span, discount, later = [], [], [], []
    for kind in outcomes:
        n = kind.periods
        counted = jnp.where((lag >= 0) & (lag < n), gamma ** jnp.maximum(lag, 0), 0.0)  # [P, P], from each period on
        outcome.append(jnp.matmul(reward, counted.T, precision="highest")[..., period])
        span.append(counted.sum(-1)[period])
        discount.append(jnp.where((period + n < env.num_periods) & kind.bootstrap, gamma**n, 0.0))
        later.append(jnp.minimum(time + n * env.num_turns, env.horizon - 1))

    def each(leaves: list[chex.Array]) -> chex.Array:
        """Of every episode ``[B, E, L, M]``."""
        table = jnp.stack(leaves, axis=-1)
        return in_order(jnp.moveaxis(jnp.broadcast_to(table, (*reward.shape[:2], *table.shape[-2:])), 2, 0))

    return Rows(
        features=chosen,
        state=state,
        outcome=each(outcome),
        span=each(span),
        discount=each(discount),
        later=each(later),
        weight=in_order(jnp.ones(played.action[: env.horizon].shape)),
    )


def join_trial(episodes: Sequence[Trajectory]) -> Trajectory:
    """Episodes ``[B, E, L, ...]`` that followed one another as one trajectory ``[B, E, L K, ...]``."""
    joined = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves, axis=2), *(episode.replace(final=None) for episode in episodes)
    )
    return joined.replace(final=episodes[-1].final)


def history_length(suite: Suite, periods: int) -> int:
    """Periods that are kept of an episode, and padded to, in every domain of a suite."""
    return min(periods, suite.num_periods)


def empty_support(suite: Suite, recorder: Recorder, tasks: int, episodes: int) -> Support:
    """A support of a suite's shapes from which nothing may be used: axes ``[tasks, episodes, ...]``."""
    tokens, actions = suite.num_tokens, suite.num_actions
    columns, features = suite.token_features, suite.action_features
    length = history_length(suite, recorder.periods)

    def seen(*batch: int) -> Observation:
        return Observation(
            tokens=jnp.zeros((*batch, tokens, columns)),
            token_mask=jnp.zeros((*batch, tokens), bool),
            actions=jnp.zeros((*batch, actions, features)),
            action_target=jnp.zeros((*batch, actions), jnp.int32),
            action_mask=jnp.zeros((*batch, actions), bool),
        )

    def numbers(*batch: int) -> chex.Array:
        return jnp.zeros(batch)

    def whole(*batch: int) -> chex.Array:
        return jnp.zeros(batch, jnp.int32)

    each = (tasks, episodes)
    history = PeriodHistory(
        tokens=jnp.zeros((*each, length + 1, tokens, columns)),
        token_mask=jnp.zeros((tasks, tokens), bool),
        decisions=jnp.zeros((*each, length, tokens, features)),
        reward=numbers(*each, length),
        valid=jnp.zeros((*each, length), bool),
    )
    result = Support(history)
    if recorder.samples:
        at = (*each, recorder.samples)
        number = numbers(*at)
        batch = Transition(seen(*at), whole(*at), number, number, number, seen(*at), number, whole(*at), number)
        result = result.replace(transitions=batch)
    if recorder.ordered:
        at = (*each, suite.horizon)
        flags, number = jnp.zeros(at, bool), numbers(*at)
        trajectory = Trajectory(seen(*at), whole(*at), number, number, flags, whole(*at), flags, seen(*each))
        result = result.replace(trajectory=trajectory)
    if (basis := recorder.basis) is not None:
        at = (*each, suite.horizon)
        features, state = jax.eval_shape(
            lambda seen, action: (basis.chosen(seen, action), basis.state(seen)), seen(), whole()
        )
        outcomes = (*at, len(recorder.outcomes))
        rows = Rows(
            features=jnp.zeros((*at, *features.shape), jnp.float16),
            state=jnp.zeros((*at, *state.shape), jnp.float16),
            outcome=numbers(*outcomes),
            span=numbers(*outcomes),
            discount=numbers(*outcomes),
            later=whole(*outcomes),
            weight=numbers(*at),
        )
        result = result.replace(rows=rows)
    return result
