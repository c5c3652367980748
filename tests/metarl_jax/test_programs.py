"""Programs are shared by what they do, whoever asks, and never by the identity of a function."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.suite import Suite
from metarl_jax import evaluation, learners
from metarl_jax.collection import Collector
from metarl_jax.configs import (
    ContextConfig,
    DataConfig,
    DqnConfig,
    FineTuningConfig,
    QLearningConfig,
    TransformerDqnConfig,
    TransformerMamlDqnConfig,
)
from metarl_jax.evaluation import Condition
from metarl_jax.learners.base import Learner
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place
from metarl_jax.training import stack
from metarl_jax.types import RewardScale
from tests.metarl_jax import probes, small

SUITE = Suite.of((probes.Match(),))
SHARED: dict[str, Any] = {
    "network": small.NETWORK,
    "data": DataConfig(tasks=2, episodes=1),
    "learning": QLearningConfig(samples=2, num_steps=1, updates=1, replay=1),
}


def doubled() -> Callable[[chex.Array], chex.Array]:
    return lambda x: 2.0 * x


def test_equal_specifications_share_one_program() -> None:
    programs, made = Programs(2), 0

    def make() -> Callable[[chex.Array], chex.Array]:
        nonlocal made
        made += 1
        return doubled()

    one = programs.get("double", ("x", 1), make)
    assert programs.get("double", ("x", 1), make) is one
    assert programs.get("double", ("x", 2), make) is not one
    assert programs.get("twice", ("x", 1), make) is not one
    assert made == 3
    assert programs.built == {"double": 2, "twice": 1}
    np.testing.assert_array_equal(one(jnp.array([1.0, 3.0])), [2.0, 6.0])
    assert Programs(2).get("double", ("x", 1), make) is not one, "programs belong to a run"


def test_threads_that_ask_at_once_get_one_program() -> None:
    programs, together, found = Programs(1), threading.Barrier(8), []

    def ask() -> None:
        together.wait()
        found.append(programs.get("double", "x", doubled))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert programs.built["double"] == 1


def test_a_program_is_compiled_ahead_once_a_shape() -> None:
    programs = Programs(1)
    program = programs.get("double", "x", doubled)
    short, long = (place(np.ones((1, n), np.float32), 1) for n in (2, 3))
    ahead = programs.compiled(program, short)
    assert programs.compiled(program, place(np.zeros((1, 2), np.float32), 1)) is ahead
    assert programs.compiled(program, long) is not ahead
    np.testing.assert_array_equal(ahead(short), 2.0)


def states_of(learner: Learner) -> Any:
    hyperparams = stack([learner.hyperparams(1, False)])
    state = jax.jit(jax.vmap(learner.init))(jax.random.split(jax.random.key(0), 1), hyperparams)
    return place(learner.params(state), 1)


def cache_size(programs: Programs, domain: DomainPrograms, learner: Learner) -> int:
    """How many programs XLA compiled for acting in a domain."""
    nobody: Any = None
    return programs.get("play", (domain.env, learner.actor), nobody)._cache_size()


def test_another_learner_of_the_shared_network_compiles_no_acting_program() -> None:
    """Whoever learns, trains and is tested: who acts is one specification, and all its arrays have the same shapes."""
    programs = Programs(1)
    domain = DomainPrograms.of(SUITE, "match", programs)
    scale = place(RewardScale(np.zeros(1, np.float32), np.ones(1, np.float32)), 1)
    tuning = FineTuningConfig(step_sizes=(0.1,), steps=(1,), adapt=("head",))
    configs = {
        "transformer_maml_dqn": TransformerMamlDqnConfig(**SHARED),
        "transformer_dqn": TransformerDqnConfig(**SHARED, fine_tuning=tuning),
        "dqn": DqnConfig(**SHARED, fine_tuning=tuning),
        "context": ContextConfig(**SHARED),
    }
    for name, config in configs.items():
        learner = learners.make(name, config, SUITE)
        collector, trained = Collector(learner, SUITE, programs), states_of(learner)
        for seed in range(2):
            keys = place(jax.random.split(jax.random.key(seed), 1), 1)
            collector.collect(domain, trained, scale, keys, inner_steps=seed == 1)
        tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(3), 2, 1, 1)
        support = evaluation.random_support(tests, collector)
        candidates = [place(candidate, 1) for candidate in learner.candidates(trained).values()]
        asked = evaluation.conditions((0, 1))
        evaluation.evaluate(collector, candidates, scale, tests, support, asked, jax.random.key(4))
        assert programs.built["play"] == 1, name
        assert cache_size(programs, domain, learner) == 1, name
        assert programs.built["draw"] == programs.built["record"] == programs.built["keys"] == 1, name
    assert programs.built["adapt"] == 4, "how they adapt is their own"


def test_actor_critics_compile_no_acting_program_either() -> None:
    """Learners that play as many episodes at a time share what is compiled; ppo and a2c play twice as many."""
    programs = Programs(1)
    domain = DomainPrograms.of(SUITE, "match", programs)
    scale = place(RewardScale(np.zeros(1, np.float32), np.ones(1, np.float32)), 1)
    keys = place(jax.random.split(jax.random.key(0), 1), 1)
    shapes = {"transformer_dqn": 1, "sac": 1, "maml_pg": 1, "ppo": 2, "a2c": 2}
    for name, expected in shapes.items():
        kind = learners.config_class(name)
        own = {key: value for key, value in SHARED.items() if key in {field.name for field in dataclasses.fields(kind)}}
        learner = learners.make(name, kind(**own), SUITE)
        inner = learner.schedule(0.0).inner_steps
        Collector(learner, SUITE, programs).collect(domain, states_of(learner), scale, keys, inner_steps=inner)
        assert programs.built["play"] == 1, name
        assert cache_size(programs, domain, learner) == expected, name


def test_another_network_is_another_acting_program() -> None:
    programs = Programs(1)
    domain = DomainPrograms.of(SUITE, "match", programs)
    scale = place(RewardScale(np.zeros(1, np.float32), np.ones(1, np.float32)), 1)
    keys = place(jax.random.split(jax.random.key(0), 1), 1)
    for width in (8, 4):
        own = SHARED | {"network": dataclasses.replace(small.NETWORK, width=width)}
        learner = learners.make("transformer_dqn", TransformerDqnConfig(**own), SUITE)
        Collector(learner, SUITE, programs).collect(domain, states_of(learner), scale, keys, inner_steps=False)
    assert programs.built["play"] == 2
    assert programs.built["draw"] == 1


def test_fine_tuning_of_the_trunk_needs_one_more_acting_program_and_no_third() -> None:
    """Its policies carry a trunk of their own, a pytree of another structure; all such candidates share it."""
    programs = Programs(1)
    domain = DomainPrograms.of(SUITE, "match", programs)
    tuning = FineTuningConfig(step_sizes=(0.1, 0.2), steps=(1, 2), adapt=("head", "all"))
    learner = learners.make("transformer_dqn", TransformerDqnConfig(**SHARED, fine_tuning=tuning), SUITE)
    collector, trained = Collector(learner, SUITE, programs), states_of(learner)
    tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(3), 2, 1, 1)
    support = evaluation.random_support(tests, collector)
    candidates = [place(candidate, 1) for candidate in learner.candidates(trained).values()]
    assert len(candidates) == 8
    asked = tuple(Condition(1, candidate=i) for i in range(8))
    evaluation.evaluate(collector, candidates, None, tests, support, asked, jax.random.key(4))
    assert cache_size(programs, domain, learner) == 2
    assert programs.get("adapt", learner.spec, lambda: None)._cache_size() == 2
