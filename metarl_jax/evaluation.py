"""The adaptation protocol: K support episodes of a new task, then query episodes on fresh noise, exploration off.

Everything is measured on one target domain at a time, for a stack of members (training seeds) at once, so that there is
one compiled program a domain and learner. All members, learners and conditions meet the same tasks and the same noise.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from envs_jax.anchors import Anchors, anchors, score_reward
from envs_jax.environment import EnvParams, ResourceEnv
from envs_jax.observation import TOKEN_COLUMNS, Observation
from envs_jax.suite import Suite, rollout
from metarl_jax import experience as xp
from metarl_jax.learners.base import Learner
from metarl_jax.training import AXIS, member_mesh, over_members, release_memory

Control = Literal["none", "swap", "zero"]


@dataclasses.dataclass(frozen=True)
class Condition:
    """What an agent is given before its query episodes.

    Attributes:
      episodes: K, support episodes of the task.
      control: "none" gives the task's own support; "swap" gives another task's of the same domain; "zero" sets every
        reward in the support to 0 (also where observations repeat it).
      candidate: which of the trained parameters under comparison adapt; see :attr:`Learner.candidates`.
    """

    episodes: int
    control: Control = "none"
    candidate: int = 0

    @property
    def label(self) -> str:
        """Short name for tables: ``K=5``, ``K=5 swap``."""
        return f"K={self.episodes}" + ("" if self.control == "none" else f" {self.control}")


def conditions(shots: tuple[int, ...]) -> tuple[Condition, ...]:
    """Own support at every K, and both controls at the largest.

    Raises:
      ValueError: for a negative K, a repeated one, or none.
    """
    if not shots or any(k < 0 for k in shots) or len(set(shots)) != len(shots):
        raise ValueError(f"shots must be different numbers of support episodes, 0 or more; got {shots}")
    most = max(shots)
    controls = (Condition(most, "swap"), Condition(most, "zero")) if most > 0 else ()
    return tuple(Condition(k) for k in sorted(shots)) + controls


@dataclasses.dataclass(frozen=True)
class Trials:
    """The frozen evaluation set of one domain: tasks, episode keys, anchor returns.

    Attributes:
      suite: the domain alone.
      tasks: stacked tasks ``[B]``.
      support_keys: ``[B, K]`` keys of the support episodes.
      query_keys: ``[B, E]`` keys of the query episodes; the anchors were measured on the same.
      anchors: mean returns of random, no-op and reference per task.
    """

    suite: Suite
    tasks: EnvParams
    support_keys: chex.PRNGKey
    query_keys: chex.PRNGKey
    anchors: Anchors

    @property
    def env(self) -> ResourceEnv:
        """The domain."""
        return self.suite.envs[0]

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.suite.names[0]


def make_trials(suite: Suite, name: str, key: chex.PRNGKey, tasks: int, support: int, episodes: int) -> Trials:
    """Draws the evaluation set of a domain and measures its anchors.

    Args:
      suite: a suite that holds the domain.
      name: the domain.
      key: seed of the evaluation set; training must use other keys.
      tasks: B.
      support: largest K.
      episodes: E query episodes a task.
    """
    alone = suite.subset([name], tight=True)
    (env,) = alone.envs
    task_key, support_key, query_key = jax.random.split(key, 3)
    params = jax.jit(jax.vmap(env.sample_params))(jax.random.split(task_key, tasks))
    query_keys = jax.random.split(query_key, (tasks, episodes))
    return Trials(
        suite=alone,
        tasks=params,
        support_keys=jax.random.split(support_key, (tasks, max(support, 1))),
        query_keys=query_keys,
        anchors=anchors(env, params, query_keys),
    )


def _without_rewards(support: xp.Support) -> xp.Support:
    column = TOKEN_COLUMNS.index("last_reward")

    def blank(tokens: chex.Array) -> chex.Array:
        return tokens.at[..., column].set(0.0)

    def blank_seen(seen: Observation) -> Observation:
        return seen.replace(tokens=blank(seen.tokens))

    periods, batch = support.periods, support.transitions
    return xp.Support(
        periods=periods.replace(tokens=blank(periods.tokens), reward=jnp.zeros_like(periods.reward)),
        transitions=batch.replace(
            observation=blank_seen(batch.observation),
            next_observation=blank_seen(batch.next_observation),
            reward=jnp.zeros_like(batch.reward),
            immediate=jnp.zeros_like(batch.immediate),
        ),
    )


@struct.dataclass
class Asked:
    """Conditions as arrays ``[C]``, or one as scalars: a program depends on how many there are, not on which."""

    episodes: chex.Array
    swap: chex.Array
    zero: chex.Array
    candidate: chex.Array

    @classmethod
    def of(cls, conditions: tuple[Condition, ...]) -> Asked:
        """The arrays of given conditions."""
        return cls(
            episodes=jnp.asarray([c.episodes for c in conditions], jnp.int32),
            swap=jnp.asarray([c.control == "swap" for c in conditions]),
            zero=jnp.asarray([c.control == "zero" for c in conditions]),
            candidate=jnp.asarray([c.candidate for c in conditions], jnp.int32),
        )


def support_of(
    suite: Suite,
    recorded: xp.Episodes,
    final: Observation,
    condition: Asked,
    scale: xp.RewardScale,
    key: chex.PRNGKey,
    samples: int,
    num_steps: int,
) -> xp.Support:
    """The supports that one condition gives to the B tasks of one domain: axes ``[B, K, ...]``.

    Where the domain was not trained on, ``scale`` is NaN and rewards are normalised by the mean and standard deviation
    of the task's own K support episodes: nothing else of an unseen domain may be used.
    """
    (env,) = suite.envs
    rewards = xp.period_rewards(env, recorded.reward)  # [B, K, P]

    used = (jnp.arange(rewards.shape[1]) < jnp.maximum(condition.episodes, 1))[:, None]
    own = xp.RewardScale(
        rewards.mean((1, 2), keepdims=True, where=used), rewards.std((1, 2), keepdims=True, where=used)
    )
    chosen = jax.tree.map(lambda known, own: jnp.where(jnp.isnan(known), own, known), scale, own)
    support = xp.support(suite, [recorded], [final], [chosen], key, samples, num_steps)
    support = jax.tree.map(lambda leaf: jnp.where(condition.swap, jnp.roll(leaf, 1, axis=0), leaf), support)
    support = jax.tree.map(
        lambda with_, without: jnp.where(condition.zero, without, with_), support, _without_rewards(support)
    )
    return jax.vmap(xp.Support.first, in_axes=(0, None))(support, condition.episodes)


UNKNOWN_SCALE = xp.RewardScale(np.float32(np.nan), np.float32(np.nan))
"""Reward scale of a domain that was not trained on."""


@functools.cache
def _random_support(suite: Suite) -> Callable[..., tuple[xp.Episodes, Observation]]:
    """Support episodes of random legal choices: the same for all learners and members, so no business of theirs."""

    def collect(params: EnvParams, keys: chex.PRNGKey, key: chex.PRNGKey) -> tuple[xp.Episodes, Observation]:
        recorded, finals = rollout(
            suite.envs, (params,), (keys,), suite.random_act, key, lambda d, step: xp.Episodes.of(step)
        )
        return recorded[0], finals[0]

    return jax.jit(collect)


@functools.cache
def _own_support(
    adapt: Callable[..., Any],
    act: Callable[..., chex.Array],
    suite: Suite,
    support_epsilon: float,
    samples: int,
    num_steps: int,
) -> Callable[..., tuple[xp.Episodes, Observation]]:
    """Support episodes of one member that explores from the policy which an empty support gives."""

    def collect(
        candidates: Any, params: EnvParams, keys: chex.PRNGKey, key: chex.PRNGKey
    ) -> tuple[xp.Episodes, Observation]:
        trained = jax.tree.map(lambda leaf: leaf[0], candidates)
        random = _random_support(suite)(params, keys, key)
        nothing = jax.tree.map(lambda leaf: leaf[0], Asked.of((Condition(0),)))
        empty = support_of(suite, *random, nothing, UNKNOWN_SCALE, key, samples, num_steps)
        policies = jax.vmap(adapt, in_axes=(None, 0))(trained, empty)

        def explore(seen: Observation, key: chex.PRNGKey) -> chex.Array:
            return jax.vmap(lambda policy, seen: act(trained, policy, seen, key, support_epsilon))(policies, seen)

        recorded, finals = rollout(
            suite.envs, (params,), (keys,), suite.batched(explore), key, lambda d, step: xp.Episodes.of(step)
        )
        return recorded[0], finals[0]

    return collect


@functools.cache
def _program(
    adapt: Callable[..., Any],
    act: Callable[..., chex.Array],
    suite: Suite,
    samples: int,
    num_steps: int,
) -> Callable[..., chex.Array]:
    """Returns of one member; cached, so that a learner and target domain share one compiled program."""

    def one_member(
        candidates: Any,
        scale: xp.RewardScale,
        recorded: xp.Episodes,
        final: Observation,
        params: EnvParams,
        query_keys: chex.PRNGKey,
        asked: Asked,
        key: chex.PRNGKey,
    ) -> chex.Array:
        sample_key, act_key = jax.random.split(key)

        def adapted(condition: Asked) -> Any:
            support = support_of(suite, recorded, final, condition, scale, sample_key, samples, num_steps)
            trained = jax.tree.map(lambda leaf: leaf[condition.candidate], candidates)
            return jax.vmap(adapt, in_axes=(None, 0))(trained, support)

        # One condition after another: all at once would hold C times the memory.
        policies = jax.lax.map(adapted, asked)
        policies = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), policies)  # [C * B, ...]
        count = len(asked.episodes)
        repeated = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * count), params)
        keys = jnp.concatenate([query_keys] * count)
        shared = jax.tree.map(lambda leaf: leaf[0], candidates)  # candidates differ in what adapts, not in what acts

        def greedy(seen: Observation, key: chex.PRNGKey) -> chex.Array:
            return jax.vmap(lambda policy, seen: act(shared, policy, seen, key, 0.0))(policies, seen)

        (rewards,), _ = rollout(suite.envs, (repeated,), (keys,), suite.batched(greedy), act_key, score_reward)
        return rewards.sum(0).reshape(count, -1, query_keys.shape[-1])

    return one_member


def evaluate(
    learner: Learner,
    candidates: Sequence[Any],
    scale: xp.RewardScale | None,
    trials: Trials,
    asked: tuple[Condition, ...],
    samples: int,
    num_steps: int,
    key: chex.PRNGKey,
) -> np.ndarray:
    """Undiscounted query returns ``f32[S, C, B, E]`` of S members under C conditions on the trials' B tasks.

    Args:
      learner: whose ``adapt`` and ``act`` to use.
      candidates: stacked ``learner.params(state)``, leading axis S: usually one, or several to compare, of which each
        condition names one. They may differ in what ``adapt`` reads, not in what ``act`` reads.
      scale: stacked reward scales of the domain if the members were trained on it, else None.
      trials: the evaluation set.
      asked: the conditions; the program depends on their number alone.
      samples: transitions kept of each support episode.
      num_steps: n of the n-step targets.
      key: exploration in the support and which transitions are kept: the same for all members and learners.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *candidates)  # [S, V, ...]
    members = jax.tree.leaves(stacked)[0].shape[0]
    if scale is None:  # NaN instead: one program then serves domains trained on and not
        scale = jax.tree.map(lambda leaf: jnp.full(members, leaf), UNKNOWN_SCALE)
    # Placed alike, or the program would be compiled anew for states that come from elsewhere than training.
    own = jax.device_put((stacked, scale), NamedSharding(member_mesh(members), PartitionSpec(AXIS)))
    support_key, key = jax.random.split(key)
    shared: tuple[Any, ...] = (trials.tasks, trials.query_keys, Asked.of(asked), key)
    what = (learner.adapt, learner.act, trials.suite)
    if learner.support_epsilon == 1.0:
        shared = (*_random_support(trials.suite)(trials.tasks, trials.support_keys, support_key), *shared)
    else:
        collect = _own_support(*what, learner.support_epsilon, samples, num_steps)
        asked_of = (trials.tasks, trials.support_keys, support_key)
        own += over_members(collect, members, shared=3)(own[0], *asked_of)
    program = over_members(_program(*what, samples, num_steps), members, shared=len(shared))
    returns = np.asarray(program(*own, *shared))
    release_memory()
    return returns
