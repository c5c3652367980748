"""What a meta-iteration learns from: freshly collected tasks of one domain, or parts of frozen data of all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.suite import Suite
from metarl_jax.collection import Collector
from metarl_jax.dataset import DomainData, compact, host, query_recorder, task_keys, tight
from metarl_jax.learners.base import Exploration
from metarl_jax.recording import Recorder, empty_support
from metarl_jax.rewards import KNOWN_SCALE, normalised_transitions
from metarl_jax.rollouts import DomainPrograms, RolloutMode
from metarl_jax.runtime.replicas import place
from metarl_jax.types import FrozenBatch, RewardScale, Support, TaskGroup, Transition, flatten_axes

Keys = Callable[[int, int], chex.PRNGKey]
"""``(iteration, purpose) -> keys [R]``."""

Pool = tuple[tuple[np.ndarray, Transition], ...]
"""Of every training domain the rows ``i32[R, C]`` of tasks that were played in on-policy rounds, and choices
``[R, C, Q, ...]`` in them, labelled."""


class Source(Protocol):
    """Where batches come from. Everything is a function of its arguments, so that a resumed run goes on the same."""

    def scales(self, keys: Keys) -> RewardScale:
        """Reward scales of the training domains, ``[R, D]``."""

    def pool(self) -> Any:
        """What is gathered while training, before it begins: a pytree on the host, part of every checkpoint."""

    def batch(self, iteration: int, iterations: int, run: Any, keys: Keys) -> tuple[Any, Any]:
        """A meta-iteration's batch, stacked over replicas and placed, and the pool after it."""


class CollectedSource:
    """Fresh tasks of one training domain a meta-iteration, in turns.

    Args:
      collector: of the learner.
      domains: its training domains.
    """

    def __init__(self, collector: Collector, domains: Sequence[DomainPrograms]):
        self._collector, self._domains = collector, domains

    def scales(self, keys: Keys) -> RewardScale:
        """Measured on a first collection of each domain."""
        found = [self._collector.scale(domain, keys(d, 1)) for d, domain in enumerate(self._domains)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *found)

    def pool(self) -> Any:
        """Nothing."""
        return ()

    def batch(self, iteration: int, iterations: int, run: Any, keys: Keys) -> tuple[Any, Any]:
        """Collects."""
        learner, d = self._collector.learner, iteration % len(self._domains)
        scale = place(jax.tree.map(lambda leaf: leaf[:, d], run.scales), self._collector.replicas)
        inner_steps = learner.schedule(iteration / iterations).inner_steps
        trained = learner.params(run.learner)
        return self._collector.collect(self._domains[d], trained, scale, keys(iteration, 2), inner_steps), run.pool


@dataclasses.dataclass(frozen=True)
class Group:
    """The training domains of a bucket, and how many tasks of them a gradient step takes.

    Attributes:
      suite: the bucket, whose shapes the tasks are padded to.
      domains: indices among the training domains.
      slots: tasks of a gradient step.
    """

    suite: Suite
    domains: tuple[int, ...]
    slots: int


def groups_of(suite: Suite, names: Sequence[str], buckets: int, batch: int) -> tuple[Group, ...]:
    """How the tasks of a gradient step are shared out.

    An agent that is trained on most domains of the suite takes as many tasks of each bucket as one that is trained on
    all of them, so that both share a compiled program; within a bucket its domains take turns.

    Args:
      suite: all domains of the run.
      names: the training domains.
      buckets: most buckets.
      batch: tasks of a gradient step, if there are no more training domains.
    """
    everyone = len(suite.names)
    found = []
    for bucket in suite.buckets(buckets):
        own = tuple(i for i, name in enumerate(names) if name in bucket.names)
        if 2 * len(names) > everyone:
            slots = max(1, batch // everyone) * len(bucket.names)
        else:
            slots = max(len(own), round(batch * len(own) / len(names)))
        if own:
            found.append(Group(bucket, own, slots))
    return tuple(found)


def put(out: Any, at: tuple[Any, ...], values: Any, lead: int = 1) -> None:
    """Writes values to the places ``at`` of larger arrays ``out``, from the front of every other axis.

    Args:
      out: pytree of arrays, changed.
      at: index of the first axes of ``out``.
      values: pytree of arrays.
      lead: how many of their axes ``at`` stands for.
    """

    def one(target: np.ndarray, value: np.ndarray) -> None:
        target[(*at, *(slice(0, size) for size in value.shape[lead:]))] = value

    jax.tree.map(one, out, values)


def _room(template: Any, like: Any, lead: tuple[int, ...], drop: int) -> Any:
    """Zeros of a template's padded shapes with other leading axes, of the dtypes of the data."""
    return jax.tree.map(lambda to, of: np.zeros((*lead, *to.shape[drop:]), of.dtype), template, like)


class FrozenSource:
    """Gradient steps on frozen data of all training domains, and on what the learner met in on-policy rounds.

    Args:
      collector: of the learner.
      domains: its training domains.
      data: of these domains, and of no other.
    """

    def __init__(
        self,
        collector: Collector,
        domains: Sequence[DomainPrograms],
        data: Sequence[DomainData],
        keys: Sequence[chex.PRNGKey],
    ):
        self._collector, self._domains, self._data = collector, domains, data
        self._frozen, self._keys = collector.needs.frozen, keys
        names = [domain.name for domain in domains]
        self.groups = groups_of(domains[0].suite, names, self._frozen.buckets, self._frozen.batch)
        for domain, own in zip(domains, data, strict=True):
            if own.query.action.shape[0] != self._frozen.tasks:
                raise ValueError(
                    f"data of {domain.name} hold {own.query.action.shape[0]} tasks, not {self._frozen.tasks}"
                )

    @property
    def _capacity(self) -> int:
        return self._frozen.rounds * self._frozen.round_tasks

    def scales(self, keys: Keys) -> RewardScale:
        """Those of the data."""
        del keys
        replicas = self._collector.replicas
        found = [jax.tree.map(lambda leaf: np.full(replicas, leaf, np.float32), own.scale) for own in self._data]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *found)

    def pool(self) -> Pool:
        """Room for all rounds; nothing where there are none: a checkpoint holds no empty arrays."""
        if not self._capacity:
            return ()
        size = (self._collector.replicas, self._capacity)
        room = lambda leaf: np.zeros((*size, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
        return tuple((np.zeros(size, np.int32), jax.tree.map(room, own.query)) for own in self._data)

    def rounds_before(self, iteration: int, iterations: int) -> int:
        """Rounds that are played up to the meta-iteration, itself included."""
        return sum(start <= iteration for start in self._starts(iterations))

    def _starts(self, iterations: int) -> list[int]:
        first = math.ceil(self._frozen.rounds_from * iterations)
        return [first + r * (iterations - first) // self._frozen.rounds for r in range(self._frozen.rounds)]

    def batch(self, iteration: int, iterations: int, run: Any, keys: Keys) -> tuple[Any, Any]:
        """Plays the rounds that are due, then draws the tasks of the meta-iteration's gradient steps."""
        pool, starts = run.pool, self._starts(iterations)
        for r in [r for r, start in enumerate(starts) if start == iteration]:
            pool = self._play(r, iteration, iterations, run, pool, keys)
        filled = self.rounds_before(iteration, iterations) * self._frozen.round_tasks
        words = np.asarray(jax.random.key_data(keys(iteration, 2))).reshape(self._collector.replicas, -1)
        drawn = [self._draw(np.random.default_rng(own.tolist()), pool, r, filled) for r, own in enumerate(words)]
        return place(jax.tree.map(lambda *leaves: np.stack(leaves), *drawn), self._collector.replicas), pool

    def _draw(self, rng: np.random.Generator, pool: Pool, replica: int, filled: int) -> FrozenBatch:
        return FrozenBatch(tuple(self._group(group, rng, pool, replica, filled) for group in self.groups))

    def _group(self, group: Group, rng: np.random.Generator, pool: Pool, replica: int, filled: int) -> TaskGroup:
        frozen, lead = self._frozen, (self._frozen.steps, group.slots)
        # Every domain equally often: one permutation of them after another.
        turns = [rng.permutation(group.domains) for _ in range(math.ceil(math.prod(lead) / len(group.domains)))]
        turn = np.concatenate(turns)[: math.prod(lead)].reshape(lead)
        like = self._data[group.domains[0]]
        count = min(frozen.queries, like.query.action.shape[1])
        episodes, samples = self._collector.needs.support_episodes, 0
        if like.support.transitions is not None:
            samples = like.support.transitions.action.shape[2]
        of_support, of_query = _shapes(group.suite, episodes, Recorder(frozen.stretch, samples), count)
        support, query = _room(of_support, like.support, lead, 1), _room(of_query, like.query, lead, 2)
        for d in group.domains:
            steps, slots = np.nonzero(turn == d)
            row = rng.integers(frozen.tasks, size=steps.size)
            again = np.flatnonzero(rng.random(steps.size) < frozen.round_share * (filled > 0))
            entry = rng.integers(max(filled, 1), size=steps.size)[again]
            if again.size:
                row[again] = pool[d][0][replica, entry]
            known, choices = self._data[d].support, self._data[d].query
            put(support, (steps, slots), _stretches(known, row, frozen.stretch, rng))
            every = np.arange(choices.action.shape[1])
            column = rng.permuted(np.tile(every, (steps.size, 1)), axis=1)[:, :count]
            drawn = _at(choices, (row[:, None], column))
            if again.size:
                put(drawn, (again,), _at(pool[d][1], (replica, entry[:, None], column[again])))
            put(query, (steps, slots), drawn)
        share = len(group.domains) / (len(self._domains) * group.slots)
        return TaskGroup(support, query, np.full(lead, share, np.float32))

    def _play(self, number: int, iteration: int, iterations: int, run: Any, pool: Pool, keys: Keys) -> Pool:
        """An on-policy round: the learner plays tasks of the data, the reference labels what it met."""
        block, total = self._collector.needs.tasks, self._frozen.round_tasks
        inner_steps = self._collector.learner.schedule(iteration / iterations).inner_steps
        result = []
        for d, (played, met) in enumerate(pool):
            played, met = played.copy(), jax.tree.map(np.copy, met)
            for first in range(0, total, block):
                own = _folded(keys(iteration, 4), number, d, first)
                rows, choices = self._met(d, run, own, inner_steps)
                kept = min(block, total - first)
                at = (slice(None), slice(number * total + first, number * total + first + kept))
                played[at] = rows[:, :kept]
                put(met, at, _at(choices, (slice(None), slice(kept))), lead=2)
            result.append((played, met))
        return tuple(result)

    def _met(self, d: int, run: Any, keys: chex.PRNGKey, inner_steps: bool) -> tuple[np.ndarray, Transition]:
        """Rows ``[R, B]`` of tasks of the data and what the learner met: labelled choices ``[R, B, Q, ...]``."""
        collector, domain, data = self._collector, self._domains[d], self._data[d]
        needs, replicas = collector.needs, collector.replicas
        row_key, known_key, episode_key, act_key = (_folded(keys, i) for i in range(4))
        rows = _each(row_key, lambda key: jax.random.randint(key, (needs.tasks,), 0, self._frozen.tasks))
        known = _each(known_key, lambda key: jax.random.randint(key, (needs.tasks,), 0, needs.support_episodes + 1))
        episodes = _each(episode_key, lambda key: jax.random.split(key, (needs.tasks, needs.query_episodes)))
        episodes, act_key = place(episodes, replicas), place(act_key, replicas)
        tasks, plans = domain.draw(place(task_keys(self._keys[d], self._frozen.tasks)[rows], replicas))
        trained = collector.learner.params(run.learner)
        acting = collector.acting(trained)
        support = self._padded(data.support, np.asarray(rows), inner_steps)
        scale = place(jax.tree.map(lambda leaf: jnp.full(replicas, leaf), KNOWN_SCALE), replicas)
        policies = collector.adapted(trained, support, scale, place(known, replicas), inner_steps=inner_steps)
        mode = RolloutMode.of("learner", Exploration(epsilon=self._frozen.round_epsilon), labelled=True)
        carry = collector.start(acting, policies, episodes)
        rollouts = collector.rollout(domain, acting, policies, carry, tasks, plans, episodes, act_key, mode)
        recorded = tight(domain).record(query_recorder(collector), rollouts, act_key).transitions
        met = flatten_axes(jax.device_get(recorded), 2, 2)
        return np.asarray(rows), compact(host(normalised_transitions(met, data.scale)))

    def _padded(self, support: Support, rows: np.ndarray, inner_steps: bool) -> Support:
        """Recorded support ``[R, B, K, ...]`` of rows of the data, in the suite's shapes."""
        needs, (replicas, count) = self._collector.needs, rows.shape
        template = jax.eval_shape(lambda: empty_support(self._collector.suite, needs.record, 1, needs.support_episodes))
        if not inner_steps:
            support, template = support.without_gradients(), template.without_gradients()
        # Single precision: what the programs of the tests take.
        room = jax.tree.map(lambda to: np.zeros((replicas * count, *to.shape[1:]), to.dtype), template)
        put(room, (np.arange(replicas * count),), _at(support, rows.reshape(-1)))
        return place(jax.tree.map(lambda leaf: leaf.reshape(replicas, count, *leaf.shape[1:]), room), replicas)


def _at(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _each(keys: chex.PRNGKey, draw: Callable[[chex.PRNGKey], chex.Array]) -> chex.Array:
    return jax.vmap(draw)(keys)


def _folded(keys: chex.PRNGKey, *numbers: int) -> chex.PRNGKey:
    for number in numbers:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
    return keys


def _shapes(suite: Suite, episodes: int, recorder: Recorder, queries: int) -> tuple[Any, Any]:
    """Padded shapes ``[1, K, ...]`` of a task's support and ``[1, 1, Q, ...]`` of its queries."""
    support = jax.eval_shape(lambda: empty_support(suite, recorder, 1, episodes))
    return support, jax.eval_shape(lambda: empty_support(suite, Recorder(1, queries), 1, 1)).transitions


def _stretches(support: Support, row: np.ndarray, length: int, rng: np.random.Generator) -> Support:
    """Of each support episode of some rows a random stretch of so many periods, if it has more."""
    history = support.history
    episodes, periods = history.reward.shape[1:]
    kept = min(length, periods)
    start = rng.integers(periods - kept + 1, size=(row.size, episodes))
    at = (row[:, None, None], np.arange(episodes)[None, :, None])

    def cut(leaf: np.ndarray, more: int = 0) -> np.ndarray:
        return leaf[(*at, start[..., None] + np.arange(kept + more))]

    stretched = history.replace(
        tokens=cut(history.tokens, 1),
        token_mask=history.token_mask[row],
        decisions=cut(history.decisions),
        reward=cut(history.reward),
        valid=cut(history.valid),
    )
    transitions = None if support.transitions is None else jax.tree.map(lambda leaf: leaf[row], support.transitions)
    return support.replace(history=stretched, transitions=transitions)
