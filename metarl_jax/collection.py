"""Collecting what a learner trains on: support and query episodes of fresh tasks of one domain.

Orchestrated on the host from programs that all domains or all learners share, so that a new combination of learner and
training domains compiles nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from envs_jax.suite import Suite
from metarl_jax import rewards
from metarl_jax.learners.base import Carry, Learner, Needs, blamed_on
from metarl_jax.recording import empty_support, join_trial
from metarl_jax.rewards import KNOWN_SCALE, prepare_support
from metarl_jax.rollouts import ActingError, DomainPrograms, PolicyName, RolloutMode, Rollouts
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place
from metarl_jax.types import REWARD_SCALE, MetaBatch, RewardScale, Support


def _prepared(learner: Learner) -> Callable[..., Any]:
    def prepared(trained: Any, support: Support, scale: RewardScale, episodes: chex.Array, zero: chex.Array) -> Any:
        known = prepare_support(support, scale, episodes, zero)
        with blamed_on(learner.name, "adapt"):
            return jax.vmap(learner.adapt, in_axes=(None, 0))(trained, known)

    return prepared


def _keys(needs: Needs) -> Callable[[chex.PRNGKey], tuple[Any, ...]]:
    def keys(key: chex.PRNGKey) -> tuple[Any, ...]:
        task_key, support_key, query_key, known_key, key = jax.random.split(key, 5)
        return (
            jax.random.split(task_key, needs.tasks),
            jax.random.split(support_key, (needs.tasks, needs.support_episodes)),
            jax.random.split(query_key, (needs.tasks, needs.query_episodes)),
            # The policy that collects knows a random number of support episodes, as the one that is trained.
            jax.random.randint(known_key, (needs.tasks,), 0, needs.support_episodes + 1),
            *jax.random.split(key, 2),
        )

    return keys


def _trial_keys(trials: int) -> Callable[..., Any]:
    def trial_keys(keys: chex.PRNGKey, key: chex.PRNGKey) -> tuple[tuple[chex.PRNGKey, ...], tuple[chex.PRNGKey, ...]]:
        """Keys ``[B, E]`` of every support episode from ``[B, K]``, and a key for the choices of each."""
        spread = jax.vmap(jax.vmap(lambda key: jax.random.split(key, trials)))(keys)
        support = keys.shape[1]
        return tuple(spread[:, k] for k in range(support)), tuple(jax.random.fold_in(key, k) for k in range(support))

    return trial_keys


def _normalised(one: Support, scale: RewardScale) -> Support:
    tasks, episodes = one.history.valid.shape[:2]
    return prepare_support(one, scale, jnp.full(tasks, episodes), jnp.bool_(False))


def _batch(support: Support | None, query: Support, scale: RewardScale, known: chex.Array) -> MetaBatch:
    """From the recorded support and query episodes of the tasks."""
    query = _normalised(query, scale)
    choices = query.transitions if query.trajectory is None else query.trajectory
    paid = query.history.reward.mean(where=query.history.valid)
    return MetaBatch(None if support is None else _normalised(support, scale), choices, known, paid)


def _trial_batch(episodes: tuple[Support, ...], scale: RewardScale, known: chex.Array) -> MetaBatch:
    """From all episodes of the tasks' trials, in order: one trajectory a trial."""
    normalised = [_normalised(one, scale) for one in episodes]
    history = normalised[-1].history
    trial = join_trial([one.trajectory for one in normalised])
    return MetaBatch(None, trial, known, history.reward.mean(where=history.valid))


class Collector:
    """What a learner does with the episodes of any domain: collect them, adapt to them, store them.

    Args:
      learner: the learner.
      suite: whose padded shapes all arrays have.
      programs: of the run.
    """

    def __init__(self, learner: Learner, suite: Suite, programs: Programs):
        self.learner, self.suite, self.programs = learner, suite, programs
        self.replicas, self.needs = programs.replicas, learner.needs
        needs, spec = learner.needs, learner.spec
        self._adapted = programs.get("adapt", spec, lambda: _prepared(learner))
        self._acting = programs.get("acting", spec, lambda: learner.acting)
        self._start = programs.get("start", learner.actor, lambda: self._start_of)
        of_trials = needs.order == "sequential"
        self._batch = programs.get("batch", (of_trials, suite.shapes), lambda: _trial_batch if of_trials else _batch)
        self._calibrate = programs.get("calibrate", suite.shapes, lambda: rewards.calibrate)
        self._keys = programs.get("keys", needs, lambda: _keys(needs))
        # What a policy is made from where nothing is known; also fills in what is not recorded.
        self.nothing = self._to_all(empty_support(suite, needs.record, needs.tasks, max(needs.support_episodes, 1)))
        key = jax.eval_shape(lambda: jax.random.key(0))
        hyperparams = jax.eval_shape(lambda: learner.hyperparams(1, True))
        with blamed_on(learner.name, "init"):
            trained = jax.eval_shape(lambda key, hyper: learner.params(learner.init(key, hyper)), key, hyperparams)
        one = jax.tree.map(lambda leaf: leaf[0], self.nothing.without_gradients())
        with blamed_on(learner.name, "adapt"):
            policies = jax.eval_shape(jax.vmap(learner.adapt, in_axes=(None, 0)), trained, one)
        zeros = lambda leaf: jnp.zeros((self.replicas, *leaf.shape), leaf.dtype)  # noqa: E731
        self._dummy_acting: Any = place(jax.tree.map(zeros, jax.eval_shape(learner.acting, trained)), self.replicas)
        self._dummy_policies: Any = place(jax.tree.map(zeros, policies), self.replicas)

    def _to_all(self, tree: Any) -> Any:
        """The same for every replica."""
        whole = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.replicas, *jnp.shape(leaf))), tree)
        return place(whole, self.replicas)

    def _start_of(self, acting: Any, policies: Any, keys: chex.PRNGKey) -> Carry:
        one = lambda policy, key: self.learner.actor.start(acting, policy)  # noqa: E731
        return jax.vmap(lambda policy, keys: jax.vmap(lambda key: one(policy, key))(keys))(policies, keys)

    def acting(self, trained: Any) -> Any:
        """The part of stacked ``learner.params(state)`` that acting reads."""
        return self._acting(trained)

    def adapted(
        self,
        trained: Any,
        support: Support,
        scale: RewardScale,
        episodes: chex.Array,
        zero: bool = False,
        inner_steps: bool = True,
    ) -> Any:
        """Policies ``[R, B, ...]``.

        Args:
          trained: stacked ``learner.params(state)``.
          support: as recorded ``[R, B, K, ...]``.
          scale: ``[R]``.
          episodes: support episodes that each task is given, ``i32[R, B]``.
          zero: whether rewards are removed.
          inner_steps: whether the learner may take gradient steps on it.
        """
        used = support if inner_steps else support.without_gradients()
        return self._adapted(trained, used, scale, episodes, self._to_all(jnp.bool_(zero)))

    def start(self, acting: Any, policies: Any, keys: chex.PRNGKey) -> Carry:
        """The carry ``[R, B, E, ...]`` with which trials begin, as many as there are ``keys [R, B, E]``."""
        return self._start(acting, policies, keys)

    def rollout_policy(
        self, domain: DomainPrograms, name: PolicyName, tasks: Any, plans: Any, keys: Any, key: Any
    ) -> Rollouts:
        """Episodes of a policy that is not the learner: random, noop, heuristic or reference."""
        acting, policies = self._dummy_acting, self._dummy_policies
        carry = self.start(acting, policies, keys)
        return self.rollout(domain, acting, policies, carry, tasks, plans, keys, key, RolloutMode.of(name))

    def rollout(
        self,
        domain: DomainPrograms,
        acting: Any,
        policies: Any,
        carry: Carry,
        tasks: Any,
        plans: Any,
        keys: Any,
        key: Any,
        mode: RolloutMode,
    ) -> Rollouts:
        """Episodes of the learner, or of whom the mode says.

        Raises:
          LearnerError: if the learner's actor raised.
        """
        try:
            return domain.play(self.learner.actor, acting, policies, carry, tasks, plans, keys, key, mode)
        except ActingError as error:
            with blamed_on(self.learner.name, "act"):
                raise error.__cause__ or error from None

    def unadapted(self, trained: Any, tasks: int) -> Any:
        """Policies ``[R, B, ...]`` of tasks of which nothing is known."""
        none = self._to_all(jnp.zeros(tasks, jnp.int32))
        nothing = jax.tree.map(lambda leaf: leaf[:, :tasks], self.nothing.without_gradients())
        return self.adapted(trained, nothing, self._to_all(KNOWN_SCALE), none, inner_steps=False)

    def collect_support(
        self, domain: DomainPrograms, trained: Any, tasks: Any, plans: Any, keys: chex.PRNGKey, key: chex.PRNGKey
    ) -> Support:
        """Support episodes, played side by side: random ones, or the learner's own that knows nothing yet."""
        if self.needs.support == "random":
            played = self.rollout_policy(domain, "random", tasks, plans, keys, key)
        else:
            acting, policies = self.acting(trained), self.unadapted(trained, keys.shape[1])
            mode = RolloutMode.of("learner", self.needs.explore_support)
            carry = self.start(acting, policies, keys)
            played = self.rollout(domain, acting, policies, carry, tasks, plans, keys, key, mode)
        return domain.record(self.needs.record, played, key)

    def sequential_trials(
        self,
        domain: DomainPrograms,
        trained: Any,
        tasks: Any,
        plans: Any,
        keys: chex.PRNGKey,
        query_keys: chex.PRNGKey,
        key: chex.PRNGKey,
        blank_rewards: bool = False,
    ) -> tuple[list[Rollouts], list[Carry]]:
        """Plays the K support episodes of E trials of each task one after another, handing the carry on.

        Args:
          domain: the domain.
          trained: stacked ``learner.params(state)``.
          tasks: ``[R, B]``.
          plans: for them.
          keys: of the support episodes ``[R, B, K]``; each trial meets noise of its own.
          query_keys: of the query episodes ``[R, B, E]``, one a trial; they are not played here.
          key: ``[R]``.
          blank_rewards: whether the learner sees no rewards.

        Returns:
          The K episodes ``[R, B, E, ...]`` and K + 1 carries: before any episode, and after each.
        """
        acting, policies = self.acting(trained), self.unadapted(trained, keys.shape[1])
        mode = RolloutMode.of("learner", self.needs.explore_support, blank_rewards=blank_rewards)
        trials, support = query_keys.shape[2], keys.shape[2]
        spread = self.programs.get("trial_keys", (trials, support), lambda: _trial_keys(trials))
        own_keys, own_key = spread(keys, key)
        episodes, carries = [], [self.start(acting, policies, query_keys)]
        for own, again in zip(own_keys, own_key, strict=True):
            played = self.rollout(domain, acting, policies, carries[-1], tasks, plans, own, again, mode)
            episodes.append(played)
            carries.append(played.carry)
        return episodes, carries

    def scale(self, domain: DomainPrograms, keys: chex.PRNGKey) -> RewardScale:
        """Reward scale ``[R]`` of a domain under uniformly random choices, from a first collection."""
        task_keys, support_keys, query_keys, _, key, _ = self._keys(keys)
        episodes = support_keys if self.needs.support_episodes else query_keys
        if domain.env.own_reward_scale:
            return self._to_all(RewardScale(jnp.float32(0.0), jnp.float32(REWARD_SCALE)))
        played = self.rollout_policy(domain, "random", *domain.draw(task_keys), episodes, key)
        return self._calibrate(domain.record(self.needs.record, played, key).history)

    def task_keys(self, keys: chex.PRNGKey) -> chex.PRNGKey:
        """Keys ``[R, B]`` of the tasks that :meth:`collect` draws from ``keys [R]``."""
        return self._keys(keys)[0]

    def headroom(self, domain: DomainPrograms, keys: chex.PRNGKey) -> chex.Array:
        """What the reference earns above the better of random and no-op ``f32[R, B]``, in the tasks of ``keys [R]``."""
        task_keys, _, query_keys, _, key, _ = self._keys(keys)
        drawn = domain.draw(task_keys)
        names: tuple[PolicyName, ...] = ("random", "noop", "reference")
        returns = [self.rollout_policy(domain, name, *drawn, query_keys, key).score.mean(-1) for name in names]
        return returns[2] - jnp.maximum(returns[0], returns[1])

    def worth_of_support(
        self,
        domain: DomainPrograms,
        trained: Any,
        scale: RewardScale,
        keys: chex.PRNGKey,
        task_keys: chex.PRNGKey,
        inner_steps: bool,
    ) -> chex.Array:
        """``J(K) - J(0)`` of each task ``f32[R, B]``: all support episodes and none, before the same query episodes.

        Args:
          domain: the domain.
          trained: stacked ``learner.params(state)``.
          scale: ``[R]`` the domain's.
          keys: ``[R]``, of episodes and choices.
          task_keys: ``[R, B]``.
          inner_steps: whether adaptation takes inner steps.
        """
        needs = self.needs
        _, support_keys, query_keys, _, first, second = self._keys(keys)
        tasks, plans = domain.draw(task_keys)
        acting, before = self.acting(trained), self.unadapted(trained, needs.tasks)
        if needs.order == "sequential":
            _, carries = self.sequential_trials(domain, trained, tasks, plans, support_keys, query_keys, first)
            known = [(before, carries[0]), (before, carries[-1])]
        else:
            support = self.collect_support(domain, trained, tasks, plans, support_keys, first)
            most = self._to_all(jnp.full(needs.tasks, needs.support_episodes, jnp.int32))
            after = self.adapted(trained, support, scale, most, inner_steps=inner_steps)
            known = [(policies, self.start(acting, policies, query_keys)) for policies in (before, after)]
        greedy = RolloutMode.of("learner")
        without, with_all = (
            self.rollout(domain, acting, policies, carry, tasks, plans, query_keys, second, greedy).score.mean(-1)
            for policies, carry in known
        )
        return with_all - without

    def collect(
        self,
        domain: DomainPrograms,
        trained: Any,
        scale: RewardScale,
        keys: chex.PRNGKey,
        inner_steps: bool,
        task_keys: chex.PRNGKey | None = None,
    ) -> MetaBatch:
        """Support, then query episodes by the policy adapted to it, of fresh tasks: a function of its arguments.

        Args:
          domain: the domain.
          trained: ``learner.params(state)``, stacked ``[R]``.
          scale: ``[R]`` the domain's.
          keys: ``[R]``.
          inner_steps: whether the policy that collects takes inner steps.
          task_keys: of the tasks ``[R, B]``; by default fresh ones.
        """
        needs = self.needs
        fresh, support_keys, query_keys, known, first, second = self._keys(keys)
        tasks, plans = domain.draw(fresh if task_keys is None else task_keys)
        mode = RolloutMode.of("learner", needs.explore_query, labelled=needs.labels)
        acting, support = self.acting(trained), None
        if needs.order == "sequential":
            before, carries = self.sequential_trials(domain, trained, tasks, plans, support_keys, query_keys, first)
            policies, carry = self.unadapted(trained, needs.tasks), carries[-1]
        else:
            if needs.support_episodes:
                support = self.collect_support(domain, trained, tasks, plans, support_keys, first)
                policies = self.adapted(trained, support, scale, known, inner_steps=inner_steps)
            else:
                policies = self.unadapted(trained, needs.tasks)
            carry = self.start(acting, policies, query_keys)
        query = self.rollout(domain, acting, policies, carry, tasks, plans, query_keys, second, mode)
        last = domain.record(needs.record, query, second)
        if needs.order == "sequential":
            within = dataclasses.replace(needs.record, terminal=False)
            episodes = (*(domain.record(within, one, first) for one in before), last)
            return self._batch(episodes, scale, known)
        return self._batch(support, last, scale, known)
