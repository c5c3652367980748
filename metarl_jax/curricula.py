"""Task curricula: on which tasks a learner that collects is trained. Never in evaluation.

A task is a function of its key, so keys are all that is kept: drawing tasks stays one program, and no task is stored.
Domains still take turns; each has keys of its own.

* *uniform*: fresh tasks.
* *ordered*: of a fixed set, those with the least headroom (return of the reference less the better of random and no-op)
  first; a window that grows to all of them over the first half of training; then fresh tasks.
* *prioritised* (prioritised level replay, Jiang 2021): a buffer of keys with scores. A task is taken from it with a
  chance, by ``P = (1 - rho) P_S + rho P_C``: ``P_S`` falls with the rank of the score, ``rank^(-1 / beta)``, and
  ``P_C`` grows with the time since it was scored. The score is what support is worth, ``J(K) - J(0)`` on the same
  noise, which is the regret at K=0 less that at K, whatever the reference. The regret itself, which the paper
  estimates, would chase what cannot be known: the reference knows the hidden task, so an optimal learner keeps some.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.collection import Collector
from metarl_jax.configs import CurriculumConfig
from metarl_jax.learners.base import Learner, Needs
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.replicas import place
from metarl_jax.sources import CollectedSource, Keys

NEVER = -1
"""Iteration in which an empty place of a buffer was scored."""


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Keys of one domain and one replica, with their scores: views of the pool's arrays, changed in place.

    Attributes:
      keys: words of the tasks' keys ``u32[N, W]``.
      score: ``f32[N]``.
      scored: iteration of the last score ``i32[N]``; :data:`NEVER` where there is none.
    """

    keys: np.ndarray
    score: np.ndarray
    scored: np.ndarray

    @property
    def filled(self) -> np.ndarray:
        """Places that hold a key."""
        return np.flatnonzero(self.scored != NEVER)

    def probabilities(self, iteration: int, beta: float, rho: float) -> np.ndarray:
        """Of each filled place ``f64[F]``, in their order."""
        own = self.filled
        rank = np.empty(own.size)
        rank[np.argsort(-self.score[own], kind="stable")] = np.arange(1, own.size + 1)
        # In the logarithm: rank^(-1 / beta) of the last ranks is too small a number for a small beta.
        log = -np.log(rank) / beta
        by_score = np.exp(log - log.max())
        by_age = (iteration - self.scored[own]).astype(np.float64)
        by_age = by_age / by_age.sum() if by_age.sum() > 0 else np.full(own.size, 1.0 / own.size)
        return (1.0 - rho) * by_score / by_score.sum() + rho * by_age

    def insert(self, key: np.ndarray, score: float, iteration: int) -> None:
        """Keeps a key: its new score if it is there, else in an empty place or in that of the lowest score below it."""
        same = np.flatnonzero((self.keys == key).all(-1) & (self.scored != NEVER))
        empty = np.flatnonzero(self.scored == NEVER)
        at = int(same[0]) if same.size else int(empty[0]) if empty.size else int(self.score.argmin())
        if same.size or empty.size or self.score[at] < score:
            self.keys[at], self.score[at], self.scored[at] = key, score, iteration


def window(progress: float, count: int, start: float) -> int:
    """How many of ``count`` ordered tasks are open; from the share ``start``, all of them after half of training."""
    share = start + (1.0 - start) * min(2.0 * progress, 1.0)
    return max(1, min(count, round(share * count)))


def check(config: CurriculumConfig, learner: Learner) -> None:
    """Refuses to prioritise tasks for a learner that trains without support, by which they are scored.

    Raises:
      ValueError: naming the learner.
    """
    if config.kind == "prioritised" and not learner.needs.support_episodes:
        told = f"learner {learner.name} trains without"
        raise ValueError(f"curriculum.kind prioritised scores tasks by what support is worth; {told}")


class CurriculumSource(CollectedSource):
    """Tasks of one training domain a meta-iteration, in turns, chosen by a curriculum.

    Args:
      collector: of the learner.
      domains: its training domains.
      config: which curriculum.

    Raises:
      ValueError: if tasks are to be prioritised for a learner that trains without support, by which they are scored.
    """

    def __init__(self, collector: Collector, domains: Sequence[DomainPrograms], config: CurriculumConfig):
        super().__init__(collector, domains)
        check(config, collector.learner)
        self._config = config
        self._words = int(jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape[-1])
        self._ordered: dict[int, np.ndarray] = {}

    def pool(self) -> Any:
        """Empty buffers of all domains ``[R, D, N, ...]``; nothing where no scores are kept."""
        if self._config.kind != "prioritised":
            return ()
        size = (self._collector.replicas, len(self._domains), self._config.buffer)
        return {
            "keys": np.zeros((*size, self._words), np.uint32),
            "score": np.zeros(size, np.float32),
            "scored": np.full(size, NEVER, np.int32),
        }

    def batch(self, iteration: int, iterations: int, run: Any, keys: Keys) -> tuple[Any, Any]:
        """Chooses the tasks, collects in them, and scores them if that is asked."""
        collector, d = self._collector, iteration % len(self._domains)
        domain, pool = self._domains[d], run.pool
        fresh = np.asarray(jax.random.key_data(collector.task_keys(keys(iteration, 2))))  # u32[R, B, W]
        words = np.asarray(jax.random.key_data(keys(iteration, 5))).reshape(collector.replicas, -1)
        rngs = [np.random.default_rng(own.tolist()) for own in words]
        if self._config.kind == "prioritised":
            pool = jax.tree.map(np.array, pool)
        chosen = np.stack(
            [self._chosen(d, r, fresh[r], rng, pool, iteration, iterations, keys) for r, rng in enumerate(rngs)]
        )
        task_keys = place(jax.random.wrap_key_data(jnp.asarray(chosen)), collector.replicas)
        scale = place(jax.tree.map(lambda leaf: leaf[:, d], run.scales), collector.replicas)
        inner_steps = collector.learner.schedule(iteration / iterations).inner_steps
        trained = collector.learner.params(run.learner)
        if self._config.kind == "prioritised":
            worth = collector.worth_of_support(domain, trained, scale, keys(iteration, 6), task_keys, inner_steps)
            for r in range(collector.replicas):
                for key, score in zip(chosen[r], np.asarray(worth[r]), strict=True):
                    self._buffer(pool, r, d).insert(key, float(score), iteration)
        batch = collector.collect(domain, trained, scale, keys(iteration, 2), inner_steps, task_keys)
        return batch, pool

    def _buffer(self, pool: Any, replica: int, d: int) -> Buffer:
        return Buffer(*(pool[name][replica, d] for name in ("keys", "score", "scored")))

    def _chosen(
        self,
        d: int,
        replica: int,
        fresh: np.ndarray,
        rng: np.random.Generator,
        pool: Any,
        iteration: int,
        iterations: int,
        keys: Keys,
    ) -> np.ndarray:
        """Words of the tasks' keys ``u32[B, W]`` of one replica."""
        config, count = self._config, len(fresh)
        if config.kind == "ordered":
            progress = iteration / iterations
            if progress >= 0.5:
                return fresh
            ordered = self._by_headroom(d, keys)
            some = window(progress, len(ordered), config.start)
            return ordered[rng.choice(some, count, replace=some < count)]
        buffer = self._buffer(pool, replica, d)
        known = buffer.filled
        if known.size < max(1.0, config.fill * config.buffer):
            return fresh
        again = rng.random(count) < config.replay
        taken = min(int(again.sum()), known.size)
        places = rng.choice(
            known, taken, replace=False, p=buffer.probabilities(iteration, config.temperature, config.staleness)
        )
        return np.concatenate([buffer.keys[places], fresh[taken:]])

    def _by_headroom(self, d: int, keys: Keys) -> np.ndarray:
        """Words of the keys of a domain's fixed tasks ``u32[N, W]``, the same for all replicas, by their headroom."""
        if d not in self._ordered:
            collector, found, headroom = self._collector, [], []
            block = collector.replicas * collector.needs.tasks
            for i in range(-(-self._config.buffer // block)):
                own = place(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys(d, 7), i), collector.replicas)
                found.append(np.asarray(jax.random.key_data(collector.task_keys(own))).reshape(-1, self._words))
                headroom.append(np.asarray(collector.headroom(self._domains[d], own)).reshape(-1))
            order = np.argsort(np.concatenate(headroom)[: self._config.buffer], kind="stable")
            self._ordered[d] = np.concatenate(found)[order]
        return self._ordered[d]


def episodes(config: CurriculumConfig, needs: Needs) -> tuple[int, int]:
    """Episodes that a curriculum plays beyond those that are trained on: in a meta-iteration, and once for a domain."""
    if config.kind == "prioritised":
        # Learners that play in order play the support of each trial.
        support = needs.support_episodes * (needs.query_episodes if needs.order == "sequential" else 1)
        return needs.tasks * (support + 2 * needs.query_episodes), 0
    return 0, 3 * config.buffer * needs.query_episodes if config.kind == "ordered" else 0
