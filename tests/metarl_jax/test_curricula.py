"""Curricula: which tasks are trained on, as functions of scores; and through collection, on one small domain."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import curricula, learners, training
from metarl_jax.collection import Collector
from metarl_jax.configs import CurriculumConfig, DataConfig, NetworkConfig, PpoConfig, QLearningConfig
from metarl_jax.configs import TransformerMamlDqnConfig as Config
from metarl_jax.curricula import NEVER, Buffer, CurriculumSource, window
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place


def buffer(scores: list[float], scored: list[int]) -> Buffer:
    count = len(scores)
    keys = np.arange(2 * count, dtype=np.uint32).reshape(count, 2)
    return Buffer(keys, np.array(scores, np.float32), np.array(scored, np.int32))


def test_probabilities_are_those_of_prioritised_level_replay() -> None:
    own = buffer([0.1, 0.9, 0.0, 0.5], [4, 8, NEVER, 10])
    by_score = np.array([3.0, 1.0, 2.0]) ** (-1 / 0.3)
    by_age = np.array([6.0, 2.0, 0.0]) / 8.0
    expected = 0.7 * by_score / by_score.sum() + 0.3 * by_age
    np.testing.assert_allclose(own.probabilities(10, 0.3, 0.3), expected, rtol=1e-12)
    # Just scored all: staleness says nothing; and a small beta picks the best.
    np.testing.assert_allclose(buffer([1.0, 2.0], [3, 3]).probabilities(3, 1e-3, 0.5), [0.25, 0.75])


def test_a_key_is_kept_once_and_the_lowest_score_gives_way() -> None:
    own = buffer([0.1, 0.9, 0.0], [4, 8, NEVER])
    first, new = own.keys[0].copy(), np.array([100, 101], np.uint32)
    own.insert(first, 0.4, 9)
    assert (float(own.score[0]), own.scored.tolist()) == (pytest.approx(0.4), [9, 8, NEVER])
    own.insert(new, 0.2, 10)
    assert own.scored.tolist() == [9, 8, 10]
    own.insert(np.array([7, 7], np.uint32), 0.1, 11)  # below all: it is let go
    assert own.scored.tolist() == [9, 8, 10]
    own.insert(np.array([7, 7], np.uint32), 0.3, 12)
    assert (own.keys[2].tolist(), own.scored.tolist()) == ([7, 7], [9, 8, 12])
    assert own.filled.tolist() == [0, 1, 2]


def test_the_window_opens_over_the_first_half() -> None:
    assert [window(p, 8, 0.25) for p in (0.0, 0.25, 0.5, 1.0)] == [2, 5, 8, 8]
    assert window(0.0, 8, 0.0) == 1


SUITE = Suite.make(("portfolio",))
REPLICAS, ITERATIONS = 2, 8
SMALL: dict[str, Any] = {
    "network": NetworkConfig(width=8, layers=1, heads=2, channels=2, head_width=8, hidden=8),
    "data": DataConfig(tasks=4, episodes=2, periods=8),
}


def test_a_learner_that_trains_without_support_cannot_score_tasks_by_it() -> None:
    learner = learners.make("ppo", PpoConfig(**SMALL), SUITE)
    curricula.check(CurriculumConfig(kind="ordered"), learner)
    with pytest.raises(ValueError, match=r"prioritised scores tasks by what support is worth; learner ppo trains"):
        curricula.check(CurriculumConfig(kind="prioritised"), learner)


@pytest.fixture(scope="module")
def collector() -> Collector:
    config = Config(**SMALL, learning=QLearningConfig(samples=2, num_steps=2, updates=1, replay=2), order="none")
    return Collector(learners.make("transformer_maml_dqn", config, SUITE), SUITE, Programs(REPLICAS))


def started(collector: Collector, config: CurriculumConfig) -> tuple[CurriculumSource, training.Run, Any]:
    source = CurriculumSource(collector, [DomainPrograms.of(SUITE, "portfolio", collector.programs)], config)

    def keys(iteration: int, purpose: int) -> Any:
        return place(training.replica_keys(jax.random.key(3), REPLICAS, iteration, purpose), REPLICAS)

    learner = collector.learner
    hyperparams = place(training.stack([learner.hyperparams(ITERATIONS, False)] * REPLICAS), REPLICAS)
    state = collector.programs.get("init", learner.spec, lambda: learner.init)(keys(0, 0), hyperparams)
    return source, training.Run(state, place(source.scales(keys), REPLICAS), source.pool()), keys


@pytest.mark.slow
def test_tasks_of_the_buffer_come_again_with_what_support_was_worth(collector: Collector) -> None:
    config = CurriculumConfig(kind="prioritised", buffer=8, fill=0.5, replay=1.0)
    source, run, keys = started(collector, config)
    batch, pool = source.batch(0, ITERATIONS, run, keys)
    fresh = np.asarray(jax.random.key_data(collector.task_keys(keys(0, 2))))
    np.testing.assert_array_equal(pool["keys"][:, 0, :4], fresh)
    assert (pool["scored"][:, 0] == [0] * 4 + [NEVER] * 4).all()
    assert (run.pool["scored"] == NEVER).all()  # the pool before is not changed
    # Nothing was chosen yet, so what is collected is what is collected without a curriculum.
    domain, scale = source._domains[0], place(jax.tree.map(lambda leaf: leaf[:, 0], run.scales), REPLICAS)
    trained = collector.learner.params(run.learner)
    plain = collector.collect(domain, trained, scale, keys(0, 2), False)
    jax.tree.map(np.testing.assert_array_equal, batch, plain)
    # The scores are J(K) - J(0), replica by replica.
    worth = collector.worth_of_support(
        domain, trained, scale, keys(0, 6), place(collector.task_keys(keys(0, 2)), 2), False
    )
    np.testing.assert_array_equal(pool["score"][:, 0, :4], np.asarray(worth))
    assert np.abs(worth).max() > 0
    # Half full: every task of the next meta-iteration is one of them again.
    again, after = source.batch(1, ITERATIONS, run.replace(pool=pool), keys)
    assert (after["scored"][:, 0] == [1] * 4 + [NEVER] * 4).all()
    np.testing.assert_array_equal(np.sort(after["keys"][:, 0, :4], axis=1), np.sort(fresh, axis=1))
    assert not np.array_equal(np.asarray(again.reward), np.asarray(batch.reward))
    same, once_more = source.batch(1, ITERATIONS, run.replace(pool=pool), keys)
    jax.tree.map(np.testing.assert_array_equal, (again, after), (same, once_more))


@pytest.mark.slow
def test_the_easiest_come_first_and_after_half_of_training_all_are_fresh(collector: Collector) -> None:
    source, run, keys = started(collector, CurriculumConfig(kind="ordered", buffer=16, start=0.25))
    assert source.pool() == ()
    ordered = source._by_headroom(0, keys)
    domain, known = source._domains[0], {}
    for block in range(2):  # of REPLICAS x tasks keys each
        own = place(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys(0, 7), block), REPLICAS)
        words = np.asarray(jax.random.key_data(collector.task_keys(own))).reshape(-1, 2)
        known |= dict(zip(map(tuple, words.tolist()), np.asarray(collector.headroom(domain, own)).ravel(), strict=True))
    found = [known[tuple(key)] for key in ordered.tolist()]
    assert len(known) == len(found) == 16
    assert found == sorted(found)
    assert found[0] < found[-1]
    rng = np.random.default_rng(0)
    fresh = np.zeros((4, 2), np.uint32)
    first = source._chosen(0, 0, fresh, rng, (), 0, ITERATIONS, keys)
    assert {tuple(key) for key in first} == {tuple(key) for key in ordered[:4]}
    np.testing.assert_array_equal(source._chosen(0, 0, fresh, rng, (), 4, ITERATIONS, keys), fresh)
    source.batch(0, ITERATIONS, run, keys)
