"""The adaptation protocol: K support episodes of a new task, then query episodes on fresh noise, exploration off.

Everything is measured on one target domain at a time, for a stack of members (training seeds) at once, block by block
of as many tasks as training collects, so that the programs are those of training. All members, learners and conditions
meet the same tasks and the same noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.anchors import Anchors
from envs_jax.environment import EnvParams, ResourceEnv
from metarl_jax import experience as xp
from metarl_jax.arena import Arena, Conduct
from metarl_jax.collection import Collector
from metarl_jax.experience import UNKNOWN_SCALE, RewardScale
from metarl_jax.lanes import place

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
    """The frozen evaluation set of one domain: tasks, episode keys, support, anchor returns.

    Arrays are on the host but for keys.

    Attributes:
      arena: programs of the domain.
      tasks: stacked tasks ``[B]``.
      plans: the reference's plans for them.
      support_keys: ``[B, K]`` keys of the support episodes.
      query_keys: ``[B, E]`` keys of the query episodes; the anchors were measured on the same.
      support: recorded support of random choices ``[B, K, ...]``, the same for all learners and members; None where the
        learner explores by itself.
      anchors: mean returns of random, no-op, heuristic and reference per task.
    """

    arena: Arena
    tasks: EnvParams
    plans: Any
    support_keys: chex.PRNGKey
    query_keys: chex.PRNGKey
    support: xp.Support | None
    anchors: Anchors

    @property
    def env(self) -> ResourceEnv:
        """The domain."""
        return self.arena.env

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.arena.name


def _blocks(count: int, rows: int) -> Iterator[np.ndarray]:
    """Indices of ``count`` things in blocks of ``rows``; the last block is filled up with the first things."""
    for start in range(0, count, rows):
        yield np.arange(start, start + rows) % count


def _take(tree: Any, index: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _join(parts: Sequence[Any], count: int) -> Any:
    """Blocks ``[L, rows, ...]`` back to ``[count, ...]``, on the host."""
    flat = [jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), part) for part in parts]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *flat)


def make_trials(
    arena: Arena, collector: Collector, key: chex.PRNGKey, tasks: int, support: int, episodes: int
) -> Trials:
    """Draws the evaluation set of a domain, records the support and measures the anchors, lanes taking tasks in turns.

    Args:
      arena: programs of the domain.
      collector: of the learners that will be tested.
      key: seed of the evaluation set; training must use other keys.
      tasks: B.
      support: largest K.
      episodes: E query episodes a task.
    """
    task_key, support_key, query_key, play_key = jax.random.split(key, 4)
    lanes, rows = arena.lanes, collector.learner.data.tasks
    task_keys = jax.random.split(task_key, tasks)
    support_keys = jax.random.split(support_key, (tasks, max(support, 1)))
    query_keys = jax.random.split(query_key, (tasks, episodes))
    by_chance = collector.learner.data.support_epsilon == 1.0
    players = ("random", "noop", "heuristic", "reference")
    drawn, supports = [], []
    scores: dict[str, list[chex.Array]] = {player: [] for player in players}
    for i, index in enumerate(_blocks(tasks, lanes * rows)):
        in_lanes = lambda leaf, index=index: place(leaf[index].reshape(lanes, rows, *leaf.shape[1:]), lanes)  # noqa: E731
        keys = place(jax.random.split(jax.random.fold_in(play_key, i), lanes), lanes)
        those = arena.draw(in_lanes(task_keys))
        drawn.append(those)
        if by_chance:
            supports.append(collector.watch(arena, "random", *those, in_lanes(support_keys), keys).support)
        for player in players:
            scores[player].append(collector.watch(arena, player, *those, in_lanes(query_keys), keys).score)
    params, plans = _join(drawn, tasks)
    return Trials(
        arena=arena,
        tasks=params,
        plans=plans,
        support_keys=support_keys,
        query_keys=query_keys,
        support=_join(supports, tasks) if by_chance else None,
        anchors=Anchors(**{player: _join(found, tasks).mean(-1) for player, found in scores.items()}),
    )


def evaluate(
    collector: Collector,
    candidates: Sequence[Any],
    scale: RewardScale | None,
    trials: Trials,
    asked: tuple[Condition, ...],
    key: chex.PRNGKey,
) -> np.ndarray:
    """Undiscounted query returns ``f32[S, C, B, E]`` of S members under C conditions on the trials' B tasks.

    Args:
      collector: of the learner.
      candidates: stacked ``learner.params(state)``, leading axis S: usually one, or several to compare, of which each
        condition names one. They may differ in what ``adapt`` reads, not in what acting reads.
      scale: stacked reward scales of the domain if the members were trained on it, else None.
      trials: the evaluation set.
      asked: the conditions.
      key: exploration of learners that explore by themselves: the same for all members and learners.
    """
    learner, members, arena = collector.learner, collector.lanes, trials.arena
    rows, count = learner.data.tasks, trials.query_keys.shape[0]
    if scale is None:
        scale = jax.tree.map(lambda leaf: jnp.full(members, leaf, jnp.float32), UNKNOWN_SCALE)
    scale, candidates = place(scale, members), [place(one, members) for one in candidates]
    shared = learner.shared(candidates[0])

    def to_all(tree: Any) -> Any:
        return place(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), tree), members)

    def support(index: np.ndarray) -> xp.Support:
        if trials.support is not None:
            return to_all(_take(trials.support, index))
        those = to_all((*_take((trials.tasks, trials.plans), index), trials.support_keys[index], key))
        return collector.explore(arena, candidates[0], *those)

    greedy, returns = Conduct.of("learner"), []
    for index in _blocks(count, rows):
        tasks, plans, keys, own_key = to_all(
            (*_take((trials.tasks, trials.plans), index), trials.query_keys[index], key)
        )
        # Swapped: the support of the task before.
        supports = {swap: support((index - swap) % count) for swap in {int(c.control == "swap") for c in asked}}
        scores = []
        for condition in asked:
            episodes = to_all(jnp.full(rows, condition.episodes, jnp.int32))
            policies = collector.adapted(
                candidates[condition.candidate],
                *(supports[int(condition.control == "swap")], scale, episodes),
                # Inner steps on nothing change nothing; they are left out to save their time.
                *(jnp.bool_(condition.control == "zero"), jnp.bool_(condition.episodes > 0)),
            )
            scores.append(arena.play(shared, policies, tasks, plans, keys, own_key, greedy).score)
        returns.append([np.asarray(score) for score in scores])  # C arrays [S, rows, E]
    joined = np.concatenate([np.stack(block, axis=1) for block in returns], axis=2)
    return joined[:, :, :count]
