"""Each probe environment is learned in seconds from reward alone, or names the part of the learner that is broken."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax import evaluation, learners
from metarl_jax.collection import Collector
from metarl_jax.configs import AdaptationConfig, DataConfig, NetworkConfig, QLearningConfig, TransformerMamlDqnConfig
from metarl_jax.networks.agent import AgentNetwork
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.training import Pace, Run, stack, train
from tests.metarl_jax import probes

ITERATIONS = {"hidden": 160}  # what to make of a support is learned after about a hundred
DEFAULT_ITERATIONS = 50
CONFIG = TransformerMamlDqnConfig(
    network=NetworkConfig(width=16, layers=1, heads=2, channels=8, head_width=16, slots=2),
    data=DataConfig(tasks=16, episodes=2),
    learning=QLearningConfig(samples=4, num_steps=1, updates=8, replay=4, epsilon=0.5, polyak=0.9),
    adaptation=AdaptationConfig(steps=1, step_size=0.01),
    order="first",
    context_share=0.75,
    first_order_share=0.25,
    learning_rate=5e-3,
)


class Learned(NamedTuple):
    env: probes.Probe
    collector: Collector
    domain: DomainPrograms
    run: Run  # stacked, one replica


PROGRAMS = Programs(1)


@functools.cache
def learn(name: str) -> Learned:
    """Trains on one probe. All share what is compiled but for the roll-outs of each."""
    (env,) = (probe for probe in probes.PROBES if probe.name == name)
    suite = Suite.of((env,))
    config = CONFIG if name == "hidden" else dataclasses.replace(CONFIG, order="none")
    learner = learners.make("transformer_maml_dqn", config, suite)
    collector, domain = Collector(learner, suite, PROGRAMS), DomainPrograms.of(suite, name, PROGRAMS)
    iterations = ITERATIONS.get(name, DEFAULT_ITERATIONS)
    hyperparams = stack([learner.hyperparams(iterations, False)])  # from reward alone
    run = train(learner, collector, [domain], jax.random.key(0), hyperparams, Pace(iterations, iterations))
    return Learned(env, collector, domain, run)


STATES = list(itertools.product((-1.0, 1.0), (0, 1), range(probes.Probe.num_periods)))


@jax.jit
def q_without_support(params: Any, seen: Observation) -> chex.Array:
    network = AgentNetwork(CONFIG.network)
    return network.q_values(params, seen, network.no_memory(probes.Probe.num_tokens))


def q_values(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q ``[states, 2]`` of everything that can be seen in a probe, and what is shown and the period there."""
    env, _, _, run = learn(name)
    shown, before, period = (np.array(x) for x in zip(*STATES, strict=True))
    states = jax.vmap(lambda s, b, p: probes.ProbeState(p, jax.random.key(0), jnp.float32(0.0), s, jnp.int32(0), b))(
        jnp.float32(shown), jnp.int32(before), jnp.int32(period)
    )
    seen = jax.vmap(env.observation, in_axes=(0, None))(states, env.default_params)
    q = q_without_support(jax.tree.map(lambda leaf: leaf[0], run.learner.params), seen)
    return np.asarray(q), shown, period


def normalised(name: str, reward: float) -> float:
    return float(learn(name).run.scales.normalise(jnp.float32(reward))[0, 0])


@pytest.mark.slow
def test_value_of_an_observation() -> None:
    q, shown, _ = q_values("shown")
    gap = q[shown > 0].mean() - q[shown < 0].mean()
    expected = normalised("shown", 1.0) - normalised("shown", -1.0)
    assert gap == pytest.approx(expected, rel=0.25), "value does not follow what is observed: encoder or TD loss"


@pytest.mark.slow
def test_value_of_later_periods() -> None:
    q, _, period = q_values("late")
    expected = [normalised("late", 1.0)]
    while len(expected) < probes.Probe.num_periods:
        expected.append(normalised("late", 0.0) + probes.Probe.discount_factor * expected[-1])
    value = [q[period == p].mean() for p in range(probes.Probe.num_periods)]
    assert value[-1] == pytest.approx(expected[0], abs=0.06), "the last period's value: reward or horizon cut"
    np.testing.assert_allclose(value, expected[::-1], atol=0.06, err_msg="bootstrapping or the discount is broken")


@pytest.mark.slow
def test_choice() -> None:
    q, _, _ = q_values("choice")
    assert np.all(q[:, 1] > q[:, 0]), "the better action is not preferred: advantages or action descriptions"


@pytest.mark.slow
def test_choice_that_depends_on_the_observation() -> None:
    q, shown, _ = q_values("match")
    np.testing.assert_array_equal(q.argmax(-1), shown > 0, "the choice ignores the observation: trunk or attention")


@pytest.mark.slow
def test_hidden_task_needs_one_adaptation() -> None:
    env, collector, domain, run = learn("hidden")
    tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(7), tasks=24, support=2, episodes=4)
    support = evaluation.random_support(tests, collector)
    asked = evaluation.conditions((0, 1, 2))
    scale = jax.tree.map(lambda leaf: leaf[:, 0], run.scales)
    trained = [collector.learner.params(run.learner)]
    returns = evaluation.evaluate(collector, trained, scale, tests, support, asked, jax.random.key(8))[0].mean(-1)
    score = {condition.label: row for condition, row in zip(asked, returns, strict=True)}
    bit, best = np.asarray(tests.tasks.bit), float(env.num_periods)
    assert 0 < bit.sum() < len(bit)

    def chance(row: np.ndarray) -> float:
        """Who does not know the task earns together in both what is there to be had once."""
        return (row[bit == 0].mean() + row[bit == 1].mean()) / 2

    assert chance(score["K=0"]) == pytest.approx(best / 2, abs=0.2 * best), "something on show gives the task away"
    assert score["K=1"].mean() > 0.9 * best, "one support episode does not tell the task: memory or adaptation"
    assert score["K=2"].mean() > 0.9 * best
    assert chance(score["K=2 zero"]) < 0.75 * best, "adaptation does not come from rewards"
    other = np.roll(bit, 1) != bit
    assert other.any()
    assert score["K=2 swap"][other].mean() < 0.1 * best, "another task's support is not believed"
    assert score["K=2 swap"][~other].mean() > 0.9 * best
