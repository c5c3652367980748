"""The registry, and the contract that every registered learner keeps, on one tiny suite."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import learners
from metarl_jax.configs import (
    AdaptationConfig,
    NetworkConfig,
    QLearningConfig,
    TransformerDqnConfig,
    TransformerMamlDqnConfig,
)
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner
from tests.metarl_jax import probes, small

DATA = QLearningConfig(tasks=3, episodes=2, samples=2, num_steps=1, updates=2, replay=2)
SUITE = Suite.of((probes.Match(), probes.Hidden()))


def make(name: str, suite: Suite = SUITE, **more: Any) -> Learner:
    config = learners.config_class(name)(network=small.NETWORK, data=DATA, adaptation=AdaptationConfig(steps=1), **more)
    return learners.make(name, config, suite)


class Iteration(NamedTuple):
    name: str
    learner: Learner
    start: Any
    experience: Any
    again: Any
    states: Any  # after the first update, after the second
    metrics: Any


@pytest.fixture(scope="module", params=learners.registered())
def iteration(request: pytest.FixtureRequest) -> Iteration:
    """Two meta-iterations of every registered learner, as the training loop runs them."""
    learner = make(request.param)
    collect, prepare = jax.jit(learner.collect), jax.jit(learner.prepare)
    update = jax.jit(learner.update, static_argnums=3)
    state = jax.jit(learner.init)(jax.random.key(0), learner.hyper)
    start = prepare(state, collect(state, jax.random.key(1)))
    experience, again = (collect(start, jax.random.key(2)) for _ in range(2))
    one, metrics = update(start, experience, jax.random.key(3), learner.stage(0.0))
    two, _ = update(one, experience, jax.random.key(4), learner.stage(0.0))
    return Iteration(request.param, learner, start, experience, again, (one, two), metrics)


@pytest.mark.slow
def test_an_iteration_changes_what_is_learned_and_keeps_its_type(iteration: Iteration) -> None:
    one, two = iteration.states
    chex.assert_trees_all_equal_shapes_and_dtypes(iteration.start, one)
    chex.assert_tree_all_finite((one.params, two.params, iteration.metrics))
    for before, after in ((iteration.start, one), (one, two)):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
        assert max(jax.tree.leaves(moved)) > 1e-5
    assert int(two.iteration) == 2
    assert {"loss", "td_loss", "cross_entropy", "agreement", "gradient_norm", "query_reward"} <= set(iteration.metrics)


@pytest.mark.slow
def test_collection_is_a_function_of_its_key(iteration: Iteration) -> None:
    chex.assert_trees_all_equal(iteration.experience, iteration.again)


@pytest.mark.slow
def test_replay_keeps_the_last_collections_task_by_task(iteration: Iteration) -> None:
    one, _ = iteration.states
    newest = jax.tree.map(lambda ring: ring[0], one.replay)
    chex.assert_trees_all_equal(newest, iteration.experience)
    empty = jax.tree.map(lambda ring: ring[1], one.replay)
    assert not np.any(empty.query.weight)
    support = iteration.experience.support
    assert support.transitions.weight.shape == (DATA.tasks, DATA.episodes, DATA.samples)
    assert iteration.experience.query.weight.shape == (DATA.tasks, DATA.episodes * DATA.samples)


@pytest.mark.slow
def test_calibration_normalises_each_domain(iteration: Iteration) -> None:
    """Both probes pay 0 or 1 with even chances, collected with uniformly random support."""
    for scale in iteration.start.scales:
        assert 0.2 < scale.mean < 0.8
        assert 0.3 < scale.sd <= 0.5


@pytest.mark.slow
def test_adapts_and_acts(iteration: Iteration) -> None:
    learner, state = iteration.learner, iteration.states[0]
    seen = small.observations(np.random.default_rng(0), 6, actions=2)
    task = jax.tree.map(lambda leaf: leaf[0], iteration.experience.support)

    @jax.jit
    def program(key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
        trained = learner.params(state)
        policy = learner.adapt(trained, task)
        return learner.act(trained, policy, seen, key, 0.0), learner.act(trained, policy, seen, key, 1.0)

    greedy, random = program(jax.random.key(0))
    assert greedy.dtype == random.dtype == jnp.int32
    for actions in (greedy, random):
        assert np.all(np.asarray(seen.action_mask)[np.arange(6), actions])
    np.testing.assert_array_equal(program(jax.random.key(1))[0], greedy)


@pytest.mark.slow
def test_who_has_a_memory(iteration: Iteration) -> None:
    assert ("memory" in iteration.start.params) == (iteration.name == "transformer_maml_dqn")


def test_transformer_dqn_never_meta_learns() -> None:
    learner = make("transformer_dqn")
    assert {learner.stage(x / 10) for x in range(10)} == {"none"}


@pytest.mark.parametrize("name", learners.registered())
def test_learners_of_other_domains_share_their_programs(name: str) -> None:
    whole, part = make(name), make(name, SUITE.subset(["hidden"]))
    assert whole.update is part.update
    assert whole.adapt is part.adapt
    assert whole.act is part.act


def test_registry() -> None:
    assert learners.registered() == ("transformer_maml_dqn", "transformer_dqn")
    assert learners.config_class("transformer_maml_dqn") is TransformerMamlDqnConfig
    assert learners.config_class("transformer_dqn") is TransformerDqnConfig
    with pytest.raises(ValueError, match="unknown learner 'dqn'; registered: transformer_maml_dqn, transformer_dqn"):
        learners.make("dqn", TransformerDqnConfig(), SUITE)
    with pytest.raises(ValueError, match="takes a TransformerDqnConfig, got a TransformerMamlDqnConfig"):
        learners.make("transformer_dqn", TransformerMamlDqnConfig(), SUITE)


def test_what_does_not_fit_the_suite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"network\.slots must be at least 2 for this suite, got 1"):
        learners.make("transformer_dqn", TransformerDqnConfig(network=NetworkConfig(slots=1)), SUITE)
    few = TransformerDqnConfig(data=dataclasses.replace(DATA, tasks=1))
    with pytest.raises(ValueError, match=r"data\.tasks must be at least the number of training domains \(2\), got 1"):
        learners.make("transformer_dqn", few, SUITE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"order": "third"}, "order must be one of none, first, second"),
        ({"context_share": -0.1}, "must not be negative"),
        ({"context_share": 0.9, "first_order_share": 0.2}, "must be at most 1, got 1.1"),
    ],
)
def test_impossible_schedules_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerMamlDqnConfig(**changed)


@pytest.mark.parametrize(("field", "value"), [("tasks", 0), ("replay", 0), ("epsilon", 1.5), ("polyak", -0.1)])
def test_impossible_data_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"data\.{field} must be .*, got {value}"):
        QLearningConfig(**{field: value})  # type: ignore[arg-type]


def test_tasks_are_shared_out_evenly() -> None:
    assert q_learning.shares(7, 3) == (3, 2, 2)
    assert q_learning.shares(6, 3) == (2, 2, 2)


def test_epsilon_greedy_explores_legal_actions_as_often_as_asked() -> None:
    seen = small.observations(np.random.default_rng(1), 4000)
    q = jnp.tile(jnp.array([0.0, 1.0, -1e9]), (4000, 1))
    chosen = jax.jit(q_learning.epsilon_greedy)(q, seen, jax.random.key(0), 0.5)
    share = np.bincount(chosen, minlength=3) / 4000
    np.testing.assert_allclose(share, [0.25, 0.75, 0.0], atol=0.03)
