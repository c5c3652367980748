"""The probe environments for the Q-learners of the field: seconds each; what fails names the part that is broken.

``maml_dqn`` is not among them: of what it was tried with (three inner steps of first order, 100 to 250 iterations) it
did not tell the hidden task reliably.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import evaluation, learners
from metarl_jax.collection import Collector
from metarl_jax.configs import AdaptationConfig, DataConfig, FineTuningConfig, NetworkConfig, QLearningConfig
from metarl_jax.evaluation import Condition
from metarl_jax.networks.agent import AgentNetwork
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place
from metarl_jax.training import Pace, Run, stack, train
from tests.metarl_jax import probes

NETWORK = NetworkConfig(width=16, layers=1, heads=2, channels=8, head_width=16, slots=2)
SHARED: dict[str, Any] = {
    "network": NETWORK,
    "data": DataConfig(tasks=16, episodes=2),
    "learning": QLearningConfig(samples=4, num_steps=1, updates=8, replay=4, epsilon=0.5, polyak=0.9),
    "learning_rate": 5e-3,
}
TUNED: dict[str, Any] = {"fine_tuning": FineTuningConfig(step_sizes=(0.1,), steps=(100,), adapt=("head",))}
META: dict[str, Any] = {
    "adaptation": AdaptationConfig(steps=1),
    "order": "first",
    "context_share": 0.0,  # one program of the update instead of two
    "first_order_share": 1.0,
}
OWN: dict[str, dict[str, Any]] = {
    "dqn": TUNED,
    "double_dueling_dqn": TUNED,
    # Its steps are normalised.
    "reptile": {
        "fine_tuning": FineTuningConfig((0.005,), (50,), ("head",)),
        "steps": 4,
        "inner_rate": 5e-3,
        "learning_rate": 1.0,
    },
    "context": {},
    "decision_pretrained": {},
    "optimizer_gating": META,
    "learned_optimizer": META,
}
MULTITASK = ("dqn", "double_dueling_dqn", "reptile")
ITERATIONS = {"match": 50, "late": 50, "hidden": 60}
MORE = {"context": 160, "optimizer_gating": 120, "learned_optimizer": 120, "decision_pretrained": 100}
PROGRAMS = Programs(1)


class Learned(NamedTuple):
    collector: Collector
    domain: DomainPrograms
    run: Run  # stacked, one replica


@functools.cache
def learn(name: str, probe: str) -> Learned:
    """Trains one learner on one probe; a learner's programs serve all of them but for the roll-outs."""
    (env,) = (own for own in probes.PROBES if own.name == probe)
    suite = Suite.of((env,))
    learner = learners.make(name, learners.config_class(name)(**(SHARED | OWN[name])), suite)
    collector, domain = Collector(learner, suite, PROGRAMS), DomainPrograms.of(suite, probe, PROGRAMS)
    iterations = MORE.get(name, ITERATIONS[probe])
    labels = name == "decision_pretrained"  # all others learn from reward alone
    hyperparams = stack([learner.hyperparams(iterations, labels)])
    run = train(learner, collector, [domain], jax.random.key(0), hyperparams, Pace(iterations, iterations))
    return Learned(collector, domain, run)


@functools.cache
def q_values(name: str, probe: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q ``[states, 2]`` of everything that can be seen in a probe, and what is shown and the period there."""
    run, env = learn(name, probe).run, learn(name, probe).domain.env
    shown, before, period = (
        leaf.ravel() for leaf in np.meshgrid([-1.0, 1.0], [0, 1], np.arange(env.num_periods), indexing="ij")
    )
    states = jax.vmap(lambda s, b, p: probes.ProbeState(p, jax.random.key(0), jnp.float32(0.0), s, jnp.int32(0), b))(
        jnp.float32(shown), jnp.int32(before), jnp.int32(period)
    )
    seen = jax.vmap(env.observation, in_axes=(0, None))(states, env.default_params)
    network = AgentNetwork(NETWORK, use_memory=False, dueling=name != "dqn")
    params = jax.tree.map(lambda leaf: leaf[0], run.learner.params)
    q = jax.jit(lambda params, seen: network.q_values(params, seen, network.no_memory(2)))(params, seen)
    return np.asarray(q), shown, period


def scores(name: str) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Returns a task of the hidden probe under each condition, the hidden bits, and the best there is to be had."""
    collector, domain, run = learn(name, "hidden")
    tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(7), tasks=16, support=2, episodes=2)
    support = evaluation.random_support(tests, collector)
    scale = jax.tree.map(lambda leaf: leaf[:, 0], run.scales)
    (way,) = collector.learner.candidates(collector.learner.params(run.learner)).values()
    asked = (*(Condition(k) for k in (0, 2)), Condition(2, "swap"))
    found = evaluation.evaluate(collector, [place(way, 1)], scale, tests, support, asked, jax.random.key(8))[0].mean(-1)
    return (
        {condition.label: row for condition, row in zip(asked, found, strict=True)},
        np.asarray(tests.tasks.bit),
        float(domain.env.num_periods),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MULTITASK)
def test_choice_that_depends_on_the_observation(name: str) -> None:
    q, shown, _ = q_values(name, "match")
    np.testing.assert_array_equal(q.argmax(-1), shown > 0, "the choice ignores the observation: trunk or TD loss")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn", "double_dueling_dqn"])
def test_value_of_later_periods(name: str) -> None:
    q, _, period = q_values(name, "late")
    env, scales = probes.Late(), learn(name, "late").run.scales
    paid, unpaid = (float(scales.normalise(jnp.float32(reward))[0, 0]) for reward in (1.0, 0.0))
    expected = [paid]
    while len(expected) < env.num_periods:
        expected.append(unpaid + env.discount_factor * expected[-1])
    value = [q[period == p].mean() for p in range(env.num_periods)]
    np.testing.assert_allclose(value, expected[::-1], atol=0.06, err_msg="bootstrapping or the discount is broken")


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_hidden_task_is_told_by_the_support(name: str) -> None:
    """By memory, by learned inner steps or by fine-tuning: with support, and with the right one, it is known."""
    score, bit, best = scores(name)
    assert 0 < bit.sum() < len(bit)
    guessed = (score["K=0"][bit == 0].mean() + score["K=0"][bit == 1].mean()) / 2
    assert guessed == pytest.approx(best / 2, abs=0.2 * best), "something on show gives the task away"
    assert score["K=2"].mean() > 0.9 * best, "support does not tell the task: adaptation"
    other = np.roll(bit, 1) != bit
    assert score["K=2 swap"][other].mean() < 0.1 * best, "another task's support is not believed"


@pytest.mark.slow
def test_decision_pretraining_is_blind_to_the_rewards_of_its_queries() -> None:
    """There is no TD error: whatever the query episodes paid, the update is bit by bit the same."""
    collector, domain, run = learn("decision_pretrained", "hidden")
    learner = collector.learner
    keys = place(jax.random.split(jax.random.key(3), 1), 1)
    scale = jax.tree.map(lambda leaf: leaf[:, 0], run.scales)
    batch = collector.collect(domain, learner.params(run.learner), scale, keys, inner_steps=False)
    phase = learner.schedule(0.0)
    update = jax.jit(jax.vmap(lambda state, batch, key: learner.update(state, batch, key, phase)))
    paid = batch.query.replace(reward=batch.query.reward + 1.0, immediate=batch.query.immediate - 1.0)
    one, other = (update(run.learner, own, keys)[0].params for own in (batch, batch.replace(query=paid)))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
