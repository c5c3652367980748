"""Frozen data of a domain: a pure function of a key, made once and shared by every learner that trains on the domain.

Of each task there are support episodes of uniformly random legal choices, and query choices of other episodes, played
by a mixture of behaviours (:class:`metarl_jax.rollouts.Behaviour`) and labelled with the reference's choice. Choices
between one legal action teach nothing and are left out. Many tasks, seen again and again in other stretches and other
queries, are what few-shot adaptation is learned from: a learner that sees a few dozen remembers them instead.

Arrays are on the host in the domain's own shapes, of half precision where it loses nothing that matters. Gradient steps
take small random parts of them, padded to the shapes of a bucket: see :class:`metarl_jax.sources.FrozenSource`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

import envs_jax
from metarl_jax.collection import Collector
from metarl_jax.evaluation import blocks, join, spread
from metarl_jax.recording import Recorder, empty_support
from metarl_jax.rewards import normalised_transitions
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.replicas import place
from metarl_jax.types import REWARD_SCALE, RewardScale, Support, Transition, flatten_axes

LAYOUT = 1
"""Version of what the data hold and of how they are drawn; part of :func:`specification`."""


class DomainData(NamedTuple):
    """The frozen data of one domain; leaves are NumPy arrays, rewards normalised.

    Attributes:
      scale: reward scale of the domain under random choices, ``f32[]``.
      support: axes ``[T, K, ...]``; transitions only if they were asked for.
      query: axes ``[T, Q, ...]``.
    """

    scale: RewardScale
    support: Support
    query: Transition


def template(collector: Collector, inner_steps: bool) -> DomainData:
    """The structure of the data, without their arrays."""
    needs = collector.needs
    support = jax.eval_shape(lambda: empty_support(collector.suite, needs.record, 1, needs.support_episodes))
    query = jax.eval_shape(lambda: empty_support(collector.suite, query_recorder(collector), 1, 1)).transitions
    kept = support if inner_steps else support.without_gradients()
    return DomainData(RewardScale(0.0, 0.0), kept.replace(trajectory=None), query)


def tight(domain: DomainPrograms) -> DomainPrograms:
    """The same programs, with records in the domain's own shapes."""
    return dataclasses.replace(domain, suite=domain.suite.subset([domain.name], tight=True))


def query_recorder(collector: Collector) -> Recorder:
    """What is kept of query episodes: choices that were free."""
    needs = collector.needs
    return Recorder(1, needs.frozen.samples, needs.record.num_steps, forced=False)


def specification(collector: Collector, domain: DomainPrograms, key: chex.PRNGKey, inner_steps: bool) -> dict[str, Any]:
    """Everything that the data are a function of, as JSON has it: equal specifications are equal data."""
    needs = collector.needs
    return {
        "layout": LAYOUT,
        "worlds": envs_jax.VERSION,
        "jax": jax.__version__,
        "domain": domain.name,
        "shapes": list(tight(domain).suite.shapes),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "tasks": needs.frozen.tasks,
        "block": needs.tasks,
        "episodes": [needs.support_episodes, needs.query_episodes],
        "kept": needs.frozen.kept,
        "samples": [needs.frozen.samples, needs.record.samples if inner_steps else 0],
        "num_steps": needs.record.num_steps,
    }


def compact(tree: Any) -> Any:
    """On the host, in few bytes: observations of half precision, whole numbers of sixteen bits."""

    def smaller(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        if array.dtype == np.int32:
            return array.astype(np.int16)
        return array

    def half(leaf: Any) -> np.ndarray:
        return np.asarray(leaf).astype(np.float16)

    def seen(observation: Any) -> Any:
        return observation.replace(tokens=half(observation.tokens), actions=half(observation.actions))

    tree = jax.tree.map(smaller, tree)
    if isinstance(tree, Transition):
        return tree.replace(observation=seen(tree.observation), next_observation=seen(tree.next_observation))
    history = tree.history
    history = history.replace(tokens=half(history.tokens), decisions=half(history.decisions))
    transitions = None if tree.transitions is None else compact(tree.transitions)
    return tree.replace(history=history, transitions=transitions)


def host(tree: Any) -> Any:
    """The same with NumPy leaves."""
    return jax.tree.map(np.asarray, tree)


def task_keys(key: chex.PRNGKey, tasks: int) -> chex.PRNGKey:
    """Keys ``[T]`` from which the tasks of the data of a key are drawn."""
    return jax.random.split(jax.random.fold_in(key, 0), tasks)


def make(
    collector: Collector,
    domain: DomainPrograms,
    key: chex.PRNGKey,
    inner_steps: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> DomainData | None:
    """Plays and records the data of a domain: a function of the key and of what the learner needs, not of replicas.

    Args:
      collector: of a learner with frozen data.
      domain: the domain.
      key: of the data.
      inner_steps: whether transitions of the support are kept, for learners that take gradient steps on it.
      should_stop: asked between blocks of tasks.

    Returns:
      The data; None if it was asked to stop.
    """
    needs, replicas, own = collector.needs, collector.replicas, tight(domain)
    count, rows = needs.frozen.tasks, needs.tasks
    _, support_key, query_key, play_key = (jax.random.fold_in(key, i) for i in range(4))
    keys = task_keys(key, count)
    support_keys = jax.random.split(support_key, (count, needs.support_episodes))
    query_keys = jax.random.split(query_key, (count, needs.query_episodes))
    samples = needs.record.samples if inner_steps else 0
    of_support = dataclasses.replace(needs.record, periods=needs.frozen.kept, samples=samples)
    of_query = query_recorder(collector)
    supports, queries = [], []
    for i, index in enumerate(blocks(count, replicas * rows)):
        if should_stop():
            return None
        # A key for every block of rows, whichever replica plays it.
        both = jax.vmap(lambda b: jax.random.split(jax.random.fold_in(play_key, b)))(
            i * replicas + jnp.arange(replicas)
        )
        first, second = place(both[:, 0], replicas), place(both[:, 1], replicas)
        tasks, plans = domain.draw(spread(collector, index, keys))
        played = collector.rollout_policy(domain, "random", tasks, plans, spread(collector, index, support_keys), first)
        supports.append(jax.device_get(own.record(of_support, played, first)))
        played = collector.rollout_policy(domain, "mixture", tasks, plans, spread(collector, index, query_keys), second)
        queries.append(jax.device_get(own.record(of_query, played, second).transitions))
    support, query = join(supports, count), flatten_axes(join(queries, count), 1, 2)
    scale = _scale(domain, support)
    history = support.history
    reward = np.where(history.valid, np.asarray(scale.normalise(history.reward)), 0.0).astype(np.float32)
    support = support.replace(history=history.replace(reward=reward))
    if support.transitions is not None:
        support = support.replace(transitions=host(normalised_transitions(support.transitions, scale)))
    return DomainData(scale, compact(support), compact(host(normalised_transitions(query, scale))))


def _scale(domain: DomainPrograms, support: Support) -> RewardScale:
    """The scale of a domain's rewards under random choices."""
    if domain.env.own_reward_scale:
        return RewardScale(np.float32(0.0), np.float32(REWARD_SCALE))
    reward = support.history.reward[support.history.valid].astype(np.float64)
    return RewardScale(np.float32(reward.mean()), np.float32(reward.std()))


def bytes_of(data: DomainData) -> int:
    """Bytes of all arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(data))
