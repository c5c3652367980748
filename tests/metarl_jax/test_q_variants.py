"""What tells the Q-learners of the field apart: the gate, the decoder, the settings of one inner loop, frozen data."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import dataset, learners, training
from metarl_jax.collection import Collector
from metarl_jax.configs import (
    AdaptationConfig,
    ContextConfig,
    DataConfig,
    FrozenConfig,
    QLearningConfig,
    TransformerMamlDqnConfig,
)
from metarl_jax.learners.base import Learner
from metarl_jax.learners.context import decoding
from metarl_jax.networks.agent import AgentNetwork
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.sources import FrozenSource
from metarl_jax.training import Pace
from tests.metarl_jax import probes, small

SUITE = Suite.of((probes.Hidden(),))
SHARED: dict[str, Any] = {
    "network": small.NETWORK,
    "data": DataConfig(tasks=2, episodes=2),
    "learning": QLearningConfig(samples=2, num_steps=1),
}


def made(name: str, **own: Any) -> tuple[Learner, Any]:
    """A learner and what it has learned before training."""
    learner = learners.make(name, learners.config_class(name)(**(SHARED | own)), SUITE)
    return learner, learner.params(jax.jit(learner.init)(jax.random.key(0), learner.hyperparams(10, True)))


@pytest.mark.slow
def test_gates_of_a_half_with_doubled_steps_are_maml_exactly() -> None:
    """Whole learners, from a task's support to its policy: all gates are 2 sigmoid(0) = 1 at first, bit by bit."""
    inner, task = AdaptationConfig(steps=2, step_size=0.3), small.support(np.random.default_rng(0), actions=2)
    (maml, trained), (gated, its) = (
        made(name, adaptation=inner) for name in ("transformer_maml_dqn", "optimizer_gating")
    )
    chex.assert_trees_all_equal(trained["params"], its["params"])
    expected, adapt = jax.jit(maml.adapt)(trained, task), jax.jit(gated.adapt)
    chex.assert_trees_all_equal(adapt(its, task), expected)
    assert np.any(expected.adapted["head"]["value"]["kernel"] != trained["params"]["head"]["value"]["kernel"])
    gate = its["step_sizes"]["gate"]
    shut = {**its, "step_sizes": {**its["step_sizes"], "gate": {**gate, "out_bias": gate["out_bias"] - 100.0}}}
    chex.assert_trees_all_equal(adapt(shut, task).adapted["head"], trained["params"]["head"])


@pytest.mark.parametrize(
    ("rule", "adapt", "shape"),
    [
        ("meta_sgd", "head", (2,)),
        ("meta_sgd_elementwise", "head", (2, 8, 2)),
        ("meta_sgd_elementwise", "all", (2, 8, 2)),
    ],
)
def test_step_sizes_are_of_leaves_or_of_parameters(rule: Any, adapt: Any, shape: tuple[int, ...]) -> None:
    """ANIL, first order and Meta-SGD are settings of one inner loop."""
    inner = AdaptationConfig(steps=2, rule=rule, adapt=adapt)
    config = TransformerMamlDqnConfig(**SHARED, adaptation=inner, order="first")
    learner = learners.make("transformer_maml_dqn", config, SUITE)
    hyperparams = learner.hyperparams(10, True)
    sizes = jax.eval_shape(learner.init, jax.random.key(0), hyperparams).step_sizes
    assert set(sizes) == ({"head"} if adapt == "head" else {"head", "trunk"})
    assert sizes["head"]["advantage"]["kernel"].shape == shape
    assert {learner.schedule(i / 10).name for i in range(10)} == {"none", "first"}


@pytest.mark.slow
def test_what_is_decoded_comes_from_the_memory() -> None:
    rng = np.random.default_rng(0)
    auxiliary = decoding(ContextConfig(**SHARED, reward_decoding=2.0, token_decoding=0.5))
    network, suite = AgentNetwork(small.NETWORK), Suite.of((probes.Match(),))
    support, query = small.support(rng, actions=2), small.transitions(rng, 6, actions=2)
    support = support.history.replace(token_mask=jnp.array([True, True]))
    params = small.init(network, jax.random.key(0))
    own = jax.jit(lambda key: auxiliary.init(key, suite))(jax.random.key(1))

    @jax.jit
    def loss(own: Any, params: Any, query: Any) -> tuple[chex.Array, Any]:
        return auxiliary.loss(own, network.remember(params, support), query)

    value, parts = loss(own, params, query)
    np.testing.assert_allclose(value, 2.0 * parts["reward_decoding"] + 0.5 * parts["token_decoding"], rtol=1e-6)
    slope, _ = jax.jit(jax.grad(loss, argnums=1, has_aux=True))(own, params, query)
    steep = {name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(own)) for name, own in slope.items()}
    assert steep["memory"] > 1e-6
    assert steep["trunk"] == steep["head"] == 0.0, "the decoder shares nothing with who acts"

    # What follows the horizon, and what an entity is that does not exist, was not seen.
    def with_next(query: Any, tokens: chex.Array) -> Any:
        return query.replace(next_observation=query.next_observation.replace(tokens=tokens))

    changed = with_next(query, query.next_observation.tokens.at[0].add(1.0))
    over = lambda query: query.replace(discount=query.discount.at[0].set(0.0))  # noqa: E731
    assert loss(own, params, changed)[0] != value
    assert loss(own, params, over(changed))[0] == loss(own, params, over(query))[0]
    absent = query.replace(
        observation=query.observation.replace(token_mask=query.observation.token_mask.at[:, 1].set(False))
    )
    elsewhere = with_next(absent, absent.next_observation.tokens.at[:, 1].add(1.0))
    assert loss(own, params, elsewhere)[0] == loss(own, params, absent)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn", "context", "reptile"])
def test_trains_on_frozen_data(name: str) -> None:
    programs = Programs(1)
    own = FrozenConfig(tasks=4, batch=2, steps=2, queries=3, samples=2, kept=3, stretch=2, rounds=1, round_tasks=2)
    steps = {"reptile": {"steps": 2}}.get(name, {})
    learner, _ = made(name, frozen=own, **steps)
    collector, domain = Collector(learner, SUITE, programs), DomainPrograms.of(SUITE, "hidden", programs)
    key, inner_steps = jax.random.key(7), learner.schedule(0.0).inner_steps
    data = dataset.make(collector, domain, key, inner_steps)
    assert data is not None
    assert (data.support.transitions is not None) == inner_steps == (name == "reptile")
    source = FrozenSource(collector, [domain], [data], [key])
    metrics: list[Any] = []
    hooks = training.Hooks(lambda interval: metrics.append(interval.metrics))
    hyperparams = training.stack([learner.hyperparams(2, True)])
    run = training.train(
        *(learner, collector, [domain], jax.random.key(0), hyperparams, Pace(2, 1)), hooks=hooks, source=source
    )
    assert int(run.learner.iteration[0]) == 2
    assert all(entry["cross_entropy"] > 0 and entry["td_loss"] > 0 for entry in metrics)
    before = jax.jit(learner.init)(training.replica_keys(jax.random.key(0), 1, 0, 0)[0], learner.hyperparams(2, True))
    moved = jax.tree.map(lambda a, b: float(np.abs(a[0] - b).max()), run.learner.params, before.params)
    assert max(jax.tree.leaves(moved["head"])) > 1e-5
