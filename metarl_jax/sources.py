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
    found = []
    for bucket in suite.buckets(buckets):
        own = tuple(i for i, name in enumerate(names) if name in bucket.names)
        if own:
            most = 2 * len(names) > len(suite.names) and len(suite.names) > 1
            share = (
                max(1, batch // len(suite.names)) * len(bucket.names) if most else round(batch * len(own) / len(names))
            )
            found.append(Group(bucket, own, max(share, 1 if most else len(own))))
    return tuple(found)


def put(out: Any, at: tuple[Any, ...], values: Any) -> None:
    """Writes ``values [n, ...]`` to the rows ``at`` of larger arrays ``out``, from the front of every other axis."""

    def one(target: np.ndarray, value: np.ndarray) -> None:
        target[(*at, *(slice(0, size) for size in value.shape[1:]))] = value

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
        """Room for all rounds."""
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
        frozen, needs = self._frozen, self._collector.needs
        lead, own = (frozen.steps, group.slots), group.domains
        # Every domain equally often: one permutation of them after another.
        turns = np.concatenate([rng.permutation(own) for _ in range(math.ceil(lead[0] * lead[1] / len(own)))])
        turns = turns[: lead[0] * lead[1]].reshape(lead)
        count = min(frozen.queries, self._data[own[0]].query.action.shape[1])
        like = self._data[own[0]]
        shapes = _shapes(group.suite, needs.support_episodes, frozen.stretch, like.support.transitions, count)
        support, query = (
            _room(template, of, lead, drop) for template, of, drop in zip(shapes, like[1:], (1, 2), strict=True)
        )
        for d in own:
            steps, slots = np.nonzero(turns == d)
            data, n = self._data[d], steps.size
            row = rng.integers(frozen.tasks, size=n)
            played, choices = pool[d]
            again = np.flatnonzero(rng.random(n) < frozen.round_share * (filled > 0))
            entry = rng.integers(max(filled, 1), size=n)
            row[again] = played[replica, entry[again]]
            put(support, (steps, slots), _stretches(data.support, row, frozen.stretch, rng))
            columns = rng.permuted(np.tile(np.arange(data.query.action.shape[1]), (n, 1)), axis=1)[:, :count]
            drawn = jax.tree.map(lambda leaf, row=row, columns=columns: leaf[row[:, None], columns], data.query)
            if again.size:
                at = (replica, entry[again][:, None], columns[again])
                own_choices = jax.tree.map(lambda leaf, at=at: leaf[at], choices)
                jax.tree.map(lambda leaf, new, again=again: leaf.__setitem__(again, new), drawn, own_choices)
            put(query, (steps, slots), drawn)
        share = len(own) / (len(self._domains) * group.slots)
        return TaskGroup(support, query, np.full(lead, share, np.float32))

    def _play(self, number: int, iteration: int, iterations: int, run: Any, pool: Pool, keys: Keys) -> Pool:
        """An on-policy round: the learner plays tasks of the data, the reference labels what it met."""
        collector, frozen = self._collector, self._frozen
        learner, needs, replicas = collector.learner, collector.needs, collector.replicas
        trained = learner.params(run.learner)
        acting, recorder = collector.acting(trained), query_recorder(collector)
        inner_steps = learner.schedule(iteration / iterations).inner_steps
        mode = RolloutMode.of("learner", Exploration(epsilon=frozen.round_epsilon), labelled=True)
        result = []
        for d, (domain, data, (played, choices)) in enumerate(zip(self._domains, self._data, pool, strict=True)):
            played, choices = played.copy(), jax.tree.map(np.copy, choices)
            for block in range(0, frozen.round_tasks, needs.tasks):
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), d), block)
                words = jax.vmap(lambda own, key=key: jax.random.fold_in(own, jax.random.bits(key)))(keys(iteration, 4))
                row_key, known_key, episode_key, act_key = (
                    jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(words) for i in range(4)
                )
                rows = jax.vmap(lambda k: jax.random.randint(k, (needs.tasks,), 0, frozen.tasks))(row_key)
                known = jax.vmap(lambda k: jax.random.randint(k, (needs.tasks,), 0, needs.support_episodes + 1))(
                    known_key
                )
                episodes = jax.vmap(lambda k: jax.random.split(k, (needs.tasks, needs.query_episodes)))(episode_key)
                tasks, plans = domain.draw(place(task_keys(self._keys[d], frozen.tasks)[rows], replicas))
                support = self._padded(data.support, np.asarray(rows), inner_steps)
                scale = place(jax.tree.map(lambda leaf: jnp.full(replicas, leaf), KNOWN_SCALE), replicas)
                policies = collector.adapted(trained, support, scale, place(known, replicas), inner_steps=inner_steps)
                episodes, act_key = place(episodes, replicas), place(act_key, replicas)
                carry = collector.start(acting, policies, episodes)
                rollouts = collector.rollout(domain, acting, policies, carry, tasks, plans, episodes, act_key, mode)
                met = jax.device_get(tight(domain).record(recorder, rollouts, act_key).transitions)
                met = compact(host(normalised_transitions(flatten_axes(met, 2, 2), data.scale)))
                kept = min(needs.tasks, frozen.round_tasks - block)
                at = slice(number * frozen.round_tasks + block, number * frozen.round_tasks + block + kept)
                played[:, at] = np.asarray(rows)[:, :kept]
                jax.tree.map(lambda old, new: old.__setitem__((slice(None), at), new[:, :kept]), choices, met)
            result.append((played, choices))
        return tuple(result)

    def _padded(self, support: Support, rows: np.ndarray, inner_steps: bool) -> Support:
        """Recorded support ``[R, B, K, ...]`` of rows of the data, in the suite's shapes."""
        needs, (replicas, count) = self._collector.needs, rows.shape
        own = support if inner_steps else support.without_gradients()
        template = jax.eval_shape(lambda: empty_support(self._collector.suite, needs.record, 1, needs.support_episodes))
        template = template if inner_steps else template.without_gradients()
        # Single precision: what the programs of the tests take.
        room = jax.tree.map(lambda to: np.zeros((replicas * count, *to.shape[1:]), to.dtype), template)
        put(room, (np.arange(replicas * count),), jax.tree.map(lambda leaf: leaf[rows.reshape(-1)], own))
        return place(jax.tree.map(lambda leaf: leaf.reshape(replicas, count, *leaf.shape[1:]), room), replicas)


def _shapes(suite: Suite, episodes: int, stretch: int, transitions: Transition | None, queries: int) -> tuple[Any, Any]:
    """Padded shapes ``[1, K, ...]`` of a task's support and ``[1, 1, Q, ...]`` of its queries."""
    samples = 0 if transitions is None else transitions.action.shape[2]
    support = jax.eval_shape(lambda: empty_support(suite, Recorder(stretch, samples), 1, episodes))
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
