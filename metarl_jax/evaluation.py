"""The adaptation protocol: K support episodes of a new task, then query episodes on fresh noise, exploration off.

Everything is measured on one target domain at a time, for a stack of replicas (training seeds) at once, block by block
of as many tasks as training collects, so that the programs are those of training. All replicas, learners and conditions
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

from envs_jax.environment import EnvParams, ResourceEnv
from envs_jax.scoring import SCORED, ReferenceReturns
from metarl_jax.collection import Collector
from metarl_jax.rewards import UNKNOWN_SCALE
from metarl_jax.rollouts import DomainPrograms, RolloutMode
from metarl_jax.runtime.replicas import place
from metarl_jax.types import RewardScale, Support

Control = Literal["none", "swap", "zero"]


@dataclasses.dataclass(frozen=True)
class Condition:
    """What an agent is given before its query episodes.

    Attributes:
      episodes: K, support episodes of the task.
      control: "none" gives the task's own support; "swap" gives another task's of the same domain; "zero" sets every
        reward in the support to 0 (also where observations repeat it).
      candidate: which of the trained parameters under comparison adapt; see ``Learner.candidates``.
    """

    episodes: int
    control: Control = "none"
    candidate: int = 0

    @property
    def label(self) -> str:
        """Short name for tables: ``K=5``, ``K=5 swap``."""
        return f"K={self.episodes}" + ("" if self.control == "none" else f" {self.control}")


def conditions(support_episodes: tuple[int, ...]) -> tuple[Condition, ...]:
    """Own support at every K, and both controls at the largest.

    Raises:
      ValueError: for a negative K, a repeated one, or none.
    """
    asked = set(support_episodes)
    if not asked or min(asked) < 0 or len(asked) != len(support_episodes):
        raise ValueError(f"support_episodes must be different numbers, 0 or more; got {support_episodes}")
    most = max(asked)
    controls = (Condition(most, "swap"), Condition(most, "zero")) if most > 0 else ()
    return tuple(Condition(k) for k in sorted(asked)) + controls


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The frozen evaluation set of one domain: tasks, episode keys, baseline returns.

    Arrays are on the host but for keys.

    Attributes:
      domain: its programs.
      tasks: stacked tasks ``[B]``.
      plans: the reference's plans for them.
      support_keys: ``[B, K]`` keys of the support episodes.
      query_keys: ``[B, E]`` keys of the query episodes; the baselines were measured on the same.
      play_key: of the choices of random policies.
      baselines: mean returns of random, no-op, heuristic and reference per task.
    """

    domain: DomainPrograms
    tasks: EnvParams
    plans: Any
    support_keys: chex.PRNGKey
    query_keys: chex.PRNGKey
    play_key: chex.PRNGKey
    baselines: ReferenceReturns

    @property
    def env(self) -> ResourceEnv:
        """The domain."""
        return self.domain.env

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.domain.name


def blocks(count: int, rows: int) -> Iterator[np.ndarray]:
    """Indices of ``count`` things in blocks of ``rows``; the last block is filled up with the first things."""
    for start in range(0, count, rows):
        yield np.arange(start, start + rows) % count


def _take(tree: Any, index: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def join(parts: Sequence[Any], count: int) -> Any:
    """Blocks ``[R, rows, ...]`` back to ``[count, ...]``, on the host."""
    flat = [jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), part) for part in parts]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *flat)


def spread(collector: Collector, index: np.ndarray, tree: Any) -> Any:
    """A block of tasks, replicas taking rows of it in turns: leaves ``[R, rows, ...]``."""
    shape = (collector.replicas, collector.needs.tasks)
    return place(
        jax.tree.map(lambda leaf: leaf[index].reshape(*shape, *leaf.shape[1:]), tree),
        collector.replicas,
    )


def _play_keys(collector: Collector, key: chex.PRNGKey, block: int) -> chex.PRNGKey:
    keys = jax.random.split(jax.random.fold_in(key, block), collector.replicas)
    return place(keys, collector.replicas)


def make_evaluation_set(
    domain: DomainPrograms, collector: Collector, key: chex.PRNGKey, tasks: int, support: int, episodes: int
) -> EvaluationSet:
    """Draws the evaluation set of a domain and measures the baselines on it.

    Args:
      domain: its programs.
      collector: of any learner; only how many tasks it collects and who acts matters, so that programs are shared.
      key: seed of the evaluation set; training must use other keys.
      tasks: B.
      support: largest K.
      episodes: E query episodes a task.
    """
    task_key, support_key, query_key, play_key = jax.random.split(key, 4)
    task_keys = jax.random.split(task_key, tasks)
    support_keys = jax.random.split(support_key, (tasks, max(support, 1)))
    query_keys = jax.random.split(query_key, (tasks, episodes))
    drawn: list[Any] = []
    scores: dict[str, list[chex.Array]] = {policy: [] for policy in SCORED}
    for i, index in enumerate(blocks(tasks, collector.replicas * collector.needs.tasks)):
        keys, queries = _play_keys(collector, play_key, i), spread(collector, index, query_keys)
        block_tasks, block_plans = domain.draw(spread(collector, index, task_keys))
        drawn.append((block_tasks, block_plans))
        for policy in SCORED:
            played = collector.rollout_policy(domain, policy, block_tasks, block_plans, queries, keys)
            scores[policy].append(played.score)
    params, plans = join(drawn, tasks)
    return EvaluationSet(
        domain=domain,
        tasks=params,
        plans=plans,
        support_keys=support_keys,
        query_keys=query_keys,
        play_key=play_key,
        baselines=ReferenceReturns.measured(lambda policy: join(scores[policy], tasks).mean(-1)),
    )


def random_support(evaluation_set: EvaluationSet, collector: Collector) -> Support:
    """Recorded support of random choices ``[B, K, ...]``, on the host: the same for all learners of equal records."""
    own, count = evaluation_set, evaluation_set.query_keys.shape[0]
    supports = []
    for i, index in enumerate(blocks(count, collector.replicas * collector.needs.tasks)):
        keys = _play_keys(collector, own.play_key, i)
        tasks, plans, episodes = spread(collector, index, (own.tasks, own.plans, own.support_keys))
        played = collector.rollout_policy(own.domain, "random", tasks, plans, episodes, keys)
        supports.append(own.domain.record(collector.needs.record, played, keys))
    return join(supports, count)


def evaluate(
    collector: Collector,
    candidates: Sequence[Any],
    scale: RewardScale | None,
    evaluation_set: EvaluationSet,
    support: Support | None,
    asked: tuple[Condition, ...],
    key: chex.PRNGKey,
) -> np.ndarray:
    """Undiscounted query returns ``f32[R, C, B, E]`` of R replicas under C conditions on the set's B tasks.

    Args:
      collector: of the learner.
      candidates: stacked ``learner.params(state)``, leading axis R, placed as its programs want them: usually one, or
        several to compare, of which each condition names one. They may differ in what ``adapt`` reads, not in acting.
      scale: stacked reward scales of the domain if the replicas were trained on it, else None.
      evaluation_set: the tasks.
      support: from :func:`random_support`; None lets the learner collect its own.
      asked: the conditions.
      key: exploration of learners that explore by themselves: the same for all replicas and learners.
    """
    replicas, rows, domain = collector.replicas, collector.needs.tasks, evaluation_set.domain
    count = evaluation_set.query_keys.shape[0]
    if scale is None:
        scale = jax.tree.map(lambda leaf: np.full(replicas, leaf, np.float32), UNKNOWN_SCALE)
    scale = place(scale, replicas)

    def to_all(tree: Any) -> Any:
        return place(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (replicas, *leaf.shape)), tree), replicas)

    def block(index: np.ndarray, support_index: np.ndarray) -> tuple[Any, ...]:
        own = evaluation_set
        support_of = _take((own.tasks, own.plans, own.support_keys), support_index)
        return to_all((*_take((own.tasks, own.plans, own.query_keys), index), support_of, key))

    greedy, returns = RolloutMode.of("learner"), []
    play = _sequential if collector.needs.order == "sequential" else _parallel
    for index in blocks(count, rows):
        scores: dict[Condition, chex.Array] = {}
        # Swapped: the support of the task before.
        for swap in sorted({condition.control == "swap" for condition in asked}):
            before = (index - swap) % count
            tasks, plans, queries, support_of, own_key = block(index, before)
            recorded = None if support is None else to_all(_take(support, before))
            some = tuple(condition for condition in asked if (condition.control == "swap") == swap)
            for condition, policies, carry in play(
                collector, domain, candidates, scale, some, recorded, support_of, queries, own_key
            ):
                acting = collector.acting(candidates[condition.candidate])
                played = collector.rollout(domain, acting, policies, carry, tasks, plans, queries, own_key, greedy)
                scores[condition] = played.score
        returns.append([np.asarray(scores[condition]) for condition in asked])  # C arrays [R, rows, E]
    joined = np.concatenate([np.stack(block, axis=1) for block in returns], axis=2)
    return joined[:, :, :count]


def _parallel(
    collector: Collector,
    domain: DomainPrograms,
    candidates: Sequence[Any],
    scale: RewardScale,
    asked: tuple[Condition, ...],
    recorded: Support | None,
    support_of: tuple[Any, Any, chex.PRNGKey],
    queries: chex.PRNGKey,
    key: chex.PRNGKey,
) -> Iterator[tuple[Condition, Any, Any]]:
    """Policies and carries of learners that adapt to support played side by side."""
    replicas, rows = queries.shape[:2]
    if recorded is None:
        recorded = collector.collect_support(domain, candidates[0], *support_of, key)
    for condition in asked:
        trained = candidates[condition.candidate]
        episodes = place(jnp.full((replicas, rows), condition.episodes, jnp.int32), replicas)
        # Inner steps on nothing change nothing; they are left out to save their time.
        policies = collector.adapted(
            trained, recorded, scale, episodes, condition.control == "zero", inner_steps=condition.episodes > 0
        )
        yield condition, policies, collector.start(collector.acting(trained), policies, queries)


def _sequential(
    collector: Collector,
    domain: DomainPrograms,
    candidates: Sequence[Any],
    scale: RewardScale,
    asked: tuple[Condition, ...],
    recorded: Support | None,
    support_of: tuple[Any, Any, chex.PRNGKey],
    queries: chex.PRNGKey,
    key: chex.PRNGKey,
) -> Iterator[tuple[Condition, Any, Any]]:
    """Policies and carries of learners that play their support, one episode after another in each trial."""
    del scale, recorded  # what they see is what the environment shows
    rows = queries.shape[1]
    played: dict[tuple[int, bool], list[Any]] = {}
    for condition in asked:
        which = (condition.candidate, condition.control == "zero")
        trained = candidates[condition.candidate]
        if which not in played:
            _, played[which] = collector.sequential_trials(
                domain, trained, *support_of, queries, key, blank_rewards=which[1]
            )
        yield condition, collector.unadapted(trained, rows), played[which][condition.episodes]
