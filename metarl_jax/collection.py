"""Collecting what a learner trains on: support and query episodes of fresh tasks of one domain.

Orchestrated on the host from programs that all domains or all learners share, so that a new combination of learner and
training domains compiles nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from envs_jax.suite import Suite
from metarl_jax import experience as xp
from metarl_jax.arena import Arena, Conduct
from metarl_jax.configs import QLearningConfig
from metarl_jax.lanes import over_lanes, place
from metarl_jax.learners.base import Learner


@functools.cache
def _adapted(adapt: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(
        trained: Any,
        support: xp.Support,
        scale: xp.RewardScale,
        episodes: chex.Array,
        zero: chex.Array,
        inner: chex.Array,
    ) -> Any:
        known = xp.given(support, scale, episodes, zero)
        return jax.vmap(adapt, in_axes=(None, 0, None))(trained, known, inner)

    return adapted


@functools.cache
def _keys(data: QLearningConfig) -> Callable[[chex.PRNGKey], tuple[Any, ...]]:
    def keys(key: chex.PRNGKey) -> tuple[Any, ...]:
        task_key, support_key, query_key, known_key, key = jax.random.split(key, 5)
        each = (data.tasks, data.episodes)
        return (
            jax.random.split(task_key, data.tasks),
            jax.random.split(support_key, each),
            jax.random.split(query_key, each),
            # The policy that collects knows a random number of support episodes, as the one that is trained.
            jax.random.randint(known_key, (data.tasks,), 0, data.episodes + 1),
            *jax.random.split(key, 2),
        )

    return keys


class Collector:
    """What a learner does with the episodes of any domain: adapt to them, store them.

    Attributes:
      lanes: members side by side.
      adapted: params ``[L]``, recorded support ``[L, B, K, ...]``, reward scale ``[L]``, episodes given ``i32[L, B]``;
        whether to remove rewards and whether to take inner steps, ``bool[]`` each -> policies ``[L, B, ...]``.
      idle: policies of tasks of which nothing is known, of a network of zeros: for players that need none.
    """

    def __init__(self, learner: Learner, suite: Suite, lanes: int):
        self.learner, self.lanes = learner, lanes
        self.adapted = over_lanes(_adapted(learner.adapt), lanes, shared=2)
        self._experience = over_lanes(xp.Experience.of, lanes)
        self._calibrate = over_lanes(xp.calibrate, lanes)
        self._keys = over_lanes(_keys(learner.data), lanes)
        self._nothing = xp.no_support(suite, learner.data)
        key = jax.eval_shape(lambda: jax.random.key(0))
        trained = jax.eval_shape(lambda key: learner.params(learner.init(key, learner.hyper)), key)
        policies = jax.eval_shape(
            jax.vmap(learner.adapt, in_axes=(None, 0, None)), trained, self._nothing, jnp.bool_(False)
        )
        zeros = lambda leaf: jnp.zeros((lanes, *leaf.shape), leaf.dtype)  # noqa: E731
        self._shared: Any = place(jax.tree.map(zeros, learner.shared(trained)), lanes)
        self.idle: Any = place(jax.tree.map(zeros, policies), lanes)

    def watch(self, arena: Arena, who: str, tasks: Any, plans: Any, keys: Any, key: Any) -> Any:
        """Episodes of a player that is not the learner: random, noop, heuristic or reference."""
        return arena.play(self._shared, self.idle, tasks, plans, keys, key, Conduct.of(who))  # type: ignore[arg-type]

    def explore(
        self, arena: Arena, trained: Any, tasks: Any, plans: Any, keys: chex.PRNGKey, key: chex.PRNGKey
    ) -> xp.Support:
        """Support episodes as the learner collects them, random or from the policy that an empty support gives."""
        epsilon = self.learner.data.support_epsilon
        if epsilon == 1.0:
            return self.watch(arena, "random", tasks, plans, keys, key).support
        blank = lambda leaf: jnp.broadcast_to(leaf, (self.lanes, *leaf.shape))  # noqa: E731
        nothing = place(
            jax.tree.map(blank, (self._nothing, xp.RewardScale(jnp.float32(0), jnp.float32(1)))), self.lanes
        )
        none = place(jnp.zeros(tasks.max_steps_in_episode.shape, jnp.int32), self.lanes)
        policies = self.adapted(trained, *nothing, none, jnp.bool_(False), jnp.bool_(False))
        conduct = Conduct.of("learner", epsilon)
        return arena.play(self.learner.shared(trained), policies, tasks, plans, keys, key, conduct).support

    def scale(self, arena: Arena, trained: Any, keys: chex.PRNGKey) -> xp.RewardScale:
        """Reward scale ``[L]`` of a domain, from a first collection of support."""
        task_keys, support_keys, _, _, key, _ = self._keys(keys)
        return self._calibrate(self.explore(arena, trained, *arena.draw(task_keys), support_keys, key))

    def collect(
        self, arena: Arena, trained: Any, scale: xp.RewardScale, keys: chex.PRNGKey, inner: bool
    ) -> xp.Experience:
        """Support, then query episodes by the policy adapted to it, of fresh tasks: a function of its arguments.

        Args:
          arena: the domain.
          trained: ``learner.params(state)``, stacked ``[L]``.
          scale: ``[L]`` the domain's.
          keys: ``[L]``.
          inner: whether the policy that collects takes inner steps.
        """
        task_keys, support_keys, query_keys, known, first, second = self._keys(keys)
        tasks, plans = arena.draw(task_keys)
        support = self.explore(arena, trained, tasks, plans, support_keys, first)
        policies = self.adapted(trained, support, scale, known, jnp.bool_(False), jnp.bool_(inner))
        conduct = Conduct.of("learner", self.learner.data.epsilon, labelled=True)
        query = arena.play(self.learner.shared(trained), policies, tasks, plans, query_keys, second, conduct)
        return self._experience(support, query.support, scale)
