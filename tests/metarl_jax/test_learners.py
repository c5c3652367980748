"""The registry, and the contract that every registered learner keeps, on one tiny suite."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import arena, learners
from metarl_jax import experience as xp
from metarl_jax.collection import Collector
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
    scale: Any
    experience: Any
    again: Any
    states: Any  # after the first update, after the second
    metrics: Any


@pytest.fixture(scope="module", params=learners.registered())
def iteration(request: pytest.FixtureRequest) -> Iteration:
    """Two meta-iterations of every registered learner, as the training loop runs them."""
    learner = make(request.param)
    collector, hidden = Collector(learner, SUITE, 1), arena.make(SUITE, "hidden", learner.act, learner.data, 1)
    update = jax.jit(learner.update, static_argnums=3)
    start = jax.jit(learner.init)(jax.random.key(0), learner.hyper)
    trained = jax.tree.map(lambda leaf: leaf[None], learner.params(start))
    keys = jax.random.split(jax.random.key(1), 1)
    scale = collector.scale(hidden, trained, keys)
    experience, again = (
        jax.tree.map(lambda leaf: leaf[0], collector.collect(hidden, trained, scale, keys, inner=False))
        for _ in range(2)
    )
    one, metrics = update(start, experience, jax.random.key(3), learner.stage(0.0))
    two, _ = update(one, experience, jax.random.key(4), learner.stage(0.0))
    return Iteration(request.param, learner, start, scale, experience, again, (one, two), metrics)


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
def test_calibration_normalises_the_domain(iteration: Iteration) -> None:
    """The probe pays 0 or 1 with even chances, collected with uniformly random support."""
    assert 0.2 < iteration.scale.mean[0] < 0.8
    assert 0.3 < iteration.scale.sd[0] <= 0.5
    rewards = iteration.experience.support.periods.reward
    assert abs(rewards.mean()) < 0.2 * xp.REWARD_SCALE / 0.2
    assert 0.5 * xp.REWARD_SCALE < rewards.std() < 2.0 * xp.REWARD_SCALE


@pytest.mark.slow
def test_adapts_and_acts(iteration: Iteration) -> None:
    learner, state = iteration.learner, iteration.states[0]
    seen = small.observations(np.random.default_rng(0), 6, actions=2)
    task = jax.tree.map(lambda leaf: leaf[0], iteration.experience.support)

    @jax.jit
    def program(key: chex.PRNGKey, inner: chex.Array) -> tuple[chex.Array, ...]:
        trained = learner.params(state)
        policy = learner.adapt(trained, task, inner)
        shared = learner.shared(trained)
        moved = sum(
            jnp.abs(a - trained["params"]["head"][n][k]).max()
            for n, leaf in policy.adapted["head"].items()
            for k, a in leaf.items()
        )
        return *(learner.act(shared, policy, seen, key, jnp.float32(e)) for e in (0.0, 1.0)), moved

    greedy, random, moved = program(jax.random.key(0), jnp.bool_(True))
    assert moved > 0
    assert greedy.dtype == random.dtype == jnp.int32
    for actions in (greedy, random):
        assert np.all(np.asarray(seen.action_mask)[np.arange(6), actions])
    np.testing.assert_array_equal(program(jax.random.key(1), jnp.bool_(True))[0], greedy)
    assert program(jax.random.key(0), jnp.bool_(False))[2] == 0, "without inner steps nothing moves"


@pytest.mark.slow
def test_who_has_a_memory(iteration: Iteration) -> None:
    assert ("memory" in iteration.start.params) == (iteration.name == "transformer_maml_dqn")


def test_transformer_dqn_never_meta_learns() -> None:
    learner = make("transformer_dqn")
    assert {learner.stage(x / 10) for x in range(10)} == {"none"}


@pytest.mark.parametrize("name", learners.registered())
def test_equal_learners_share_their_programs(name: str) -> None:
    one, other = make(name), make(name)
    assert one.update is other.update
    assert one.adapt is other.adapt
    assert one.act is other.act


def test_all_learners_act_alike() -> None:
    assert make("transformer_dqn").act is make("transformer_maml_dqn").act, "each domain would be compiled for each"


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


def test_epsilon_greedy_explores_legal_actions_as_often_as_asked() -> None:
    seen = small.observations(np.random.default_rng(1), 4000)
    q = jnp.tile(jnp.array([0.0, 1.0, -1e9]), (4000, 1))
    chosen = jax.jit(q_learning.epsilon_greedy)(q, seen, jax.random.key(0), 0.5)
    share = np.bincount(chosen, minlength=3) / 4000
    np.testing.assert_allclose(share, [0.25, 0.75, 0.0], atol=0.03)
