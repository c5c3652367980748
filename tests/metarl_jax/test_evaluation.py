"""The evaluator scores the policy, tasks and noise that it says it scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import scoring
from envs_jax.domains.energy_trading import EnergyTrading
from envs_jax.domains.portfolio import Portfolio
from envs_jax.domains.supply_chain import SupplyChain
from envs_jax.environment import ResourceEnv
from envs_jax.observation import TOKEN_COLUMNS, Observation
from envs_jax.rollout import rollout
from envs_jax.suite import Suite
from metarl_jax import evaluation
from metarl_jax.collection import Collector
from metarl_jax.evaluation import Condition, EvaluationSet
from metarl_jax.learners.base import Learner
from metarl_jax.recording import Recorder
from metarl_jax.rewards import UNKNOWN_SCALE, prepare_support
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.types import Support
from tests.envs_jax.toys import Toy, ToyParams
from tests.metarl_jax import planted

TASKS, SUPPORT, QUERY = 3, 2, 4  # blocks of two tasks: the last one is filled up
LAST_REWARD = TOKEN_COLUMNS.index("last_reward")
FIRST_LEGAL = planted.Rule(planted.first_legal)
OFFSET = planted.Rule(planted.offset_of_policy)


@pytest.mark.slow
def test_every_domain_returns_its_own_known_figures() -> None:
    """All evaluators are built before the first is used: a closure over the loop variable once scored all on one."""
    envs: tuple[ResourceEnv, ...] = (
        SupplyChain(num_stages=2, num_periods=4, max_lead_time=2, max_adjustment=3),
        EnergyTrading(num_periods=6, num_devices=2, max_capacity=6, num_prices=5),
        Portfolio(num_assets=2, num_factors=1, num_periods=4),
    )
    suite, replicas = Suite.of(envs), 2
    programs = Programs(replicas)
    collector = Collector(planted.make("first", FIRST_LEGAL, nothing=0), suite, programs)
    domains = [DomainPrograms.of(suite, env.name, programs) for env in envs]
    tests = [
        evaluation.make_evaluation_set(domain, collector, jax.random.key(1), TASKS, SUPPORT, 8) for domain in domains
    ]
    asked = (Condition(0), Condition(SUPPORT, "swap"))
    trained = {"nothing": jnp.zeros(replicas, jnp.int32), "iteration": jnp.zeros(replicas, jnp.int32)}
    scored = [
        evaluation.evaluate(
            collector, [trained], None, one, evaluation.random_support(one, collector), asked, jax.random.key(2)
        )
        for one in tests
    ]
    known = []
    for env, one, score in zip(envs, tests, scored, strict=True):
        assert one.env is env
        assert one.name == env.name
        figures = {name: scoring.returns(env, name, one.tasks, one.query_keys) for name in scoring.SCORED}
        for name in ("noop", "heuristic", "reference"):
            found, expected = getattr(one.baselines, name), figures[name].mean(-1)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=f"{env.name}: {name}")
        # Random choices are drawn anew: five standard errors of the difference of two means.
        error = 5.0 * figures["random"].std(-1).max() * np.sqrt(2 / figures["random"].size)
        np.testing.assert_allclose(one.baselines.random.mean(), figures["random"].mean(), atol=error, err_msg=env.name)

        def act(seens: Any, states: Any, key: Any) -> Any:
            return tuple(planted.first_legal(None, None, seen, key, None) for seen in seens)  # type: ignore[arg-type]

        (rewards,), _ = jax.jit(
            lambda tasks, keys, env=env, act=act: rollout(
                (env,), (tasks,), (keys,), act, jax.random.key(0), scoring.score_reward
            )
        )(one.tasks, one.query_keys)
        assert score.shape == (replicas, len(asked), TASKS, 8)
        np.testing.assert_allclose(score, np.broadcast_to(rewards.sum(0), score.shape), rtol=1e-4, atol=1e-4)
        known += [figures[name].mean() for name in ("random", "reference")]
    assert np.unique(np.round(known, 3)).size == len(known), "these figures cannot tell domains apart"


class SampledToy(Toy):
    """Shows the last reward; tasks differ in their gain."""

    def sample_params(self, key: chex.PRNGKey) -> ToyParams:
        return self.task(0.0, 0.5).replace(gain=jax.random.uniform(key, (), jnp.float32, 0.0, 5.0))

    def observation(self, state: Any, params: ToyParams) -> Observation:
        seen = super().observation(state, params)
        return seen.replace(tokens=seen.tokens.at[:, LAST_REWARD].set(state.last_reward))


TOY = SampledToy()
SUITE = Suite.of((TOY,))


class OnToy(NamedTuple):
    collector: Collector
    tests: EvaluationSet
    support: Support  # of random choices


def on_toy(learner: Learner, replicas: int) -> OnToy:
    programs = Programs(replicas)
    collector = Collector(learner, SUITE, programs)
    domain = DomainPrograms.of(SUITE, "toy", programs)
    tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(3), TASKS, SUPPORT, QUERY)
    return OnToy(collector, tests, evaluation.random_support(tests, collector))


def trained(**values: int) -> dict[str, Any]:
    """Of one replica."""
    return {name: jnp.full(1, value, jnp.int32) for name, value in (values | {"iteration": 0}).items()}


def test_conditions_replicas_and_tasks_keep_their_places() -> None:
    """In the toy, action 1 pays gain - toll on both turns, action 2 pays 1 on the second."""
    collector, tests, support = on_toy(planted.make("episodes", OFFSET, offset=0), 2)
    asked = evaluation.conditions((0, 1))
    both = {"offset": jnp.array([0, 1], jnp.int32), "iteration": jnp.zeros(2, jnp.int32)}
    score = evaluation.evaluate(collector, [both], None, tests, support, asked, jax.random.key(4))
    assert score.shape == (2, len(asked), TASKS, QUERY)
    gain = np.asarray(tests.tasks.gain - tests.tasks.toll)
    assert np.ptp(gain) > 0.1
    pays = {0: np.zeros(TASKS), 1: TOY.num_periods * 2 * gain, 2: np.full(TASKS, TOY.num_periods * 1.0)}
    for replica in (0, 1):
        for c, condition in enumerate(asked):
            expected = np.broadcast_to(pays[condition.episodes + replica][:, None], (TASKS, QUERY))
            np.testing.assert_allclose(score[replica, c], expected, rtol=1e-5, atol=1e-5, err_msg=condition.label)


@pytest.fixture(scope="module")
def toy() -> OnToy:
    """Its policies are what the candidate says, and it keeps all that can be recorded."""
    own = planted.needs(record=Recorder(64, samples=2, ordered=True))
    return on_toy(planted.make("told", OFFSET, lambda trained, support: trained["action"], own, action=0, offset=0), 1)


def test_each_condition_adapts_the_candidate_it_names(toy: OnToy) -> None:
    collector, tests, support = toy
    candidates = [trained(action=i, offset=0) for i in (2, 0)]
    asked = (Condition(1, candidate=1), Condition(1, candidate=0))
    idle, second = evaluation.evaluate(collector, candidates, None, tests, support, asked, jax.random.key(4))[0]
    np.testing.assert_array_equal(idle, 0.0)
    np.testing.assert_array_equal(second, TOY.num_periods)


def test_swap_gives_the_support_of_the_task_before(toy: OnToy, monkeypatch: pytest.MonkeyPatch) -> None:
    collector, tests, recorded = toy
    given: list[Any] = []
    adapted = collector.adapted

    def watched(trained: Any, support: Any, *arguments: Any, **options: Any) -> Any:
        given.append(jax.device_get(support.history.reward)[0])
        return adapted(trained, support, *arguments, **options)

    monkeypatch.setattr(collector, "adapted", watched)
    asked = (Condition(SUPPORT), Condition(SUPPORT, "swap"))
    candidates = [trained(action=0, offset=0)]
    evaluation.evaluate(collector, candidates, None, tests, recorded, asked, jax.random.key(4))
    reward = np.asarray(recorded.history.reward)
    assert len({task.tobytes() for task in reward}) == TASKS
    own, swapped = (np.concatenate(given[i::2])[:TASKS] for i in (0, 1))
    np.testing.assert_array_equal(own, reward)
    np.testing.assert_array_equal(swapped, np.roll(reward, 1, axis=0))


def test_trials_of_a_sequential_learner_under_every_condition() -> None:
    """In trial K choice K is made; without rewards in its support, nothing else changes; swapped support is played.

    The learner's carry counts choices, so its score says how many episodes it has gone through.
    """
    own = planted.needs(support="own", order="sequential", record=Recorder(64, ordered=True))
    actor = planted.Counter(turns=TOY.horizon, actions=3)
    collector, tests, _ = on_toy(planted.make("trials", actor, own=own, offset=0), 1)
    asked = evaluation.conditions((0, 1, 2))
    score = evaluation.evaluate(collector, [trained(offset=0)], None, tests, None, asked, jax.random.key(4))[0]
    gain = np.asarray(tests.tasks.gain - tests.tasks.toll)
    pays = {0: np.zeros(TASKS), 1: TOY.num_periods * 2 * gain, 2: np.full(TASKS, TOY.num_periods * 1.0)}
    for condition, row in zip(asked, score, strict=True):
        expected = np.broadcast_to(pays[condition.episodes][:, None], (TASKS, QUERY))
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5, err_msg=condition.label)


class Supports(NamedTuple):
    given: dict[str, Support]  # by label: axes [B, K, ...]
    recorded: Support


@pytest.fixture(scope="module")
def supports(toy: OnToy) -> Supports:
    """What every condition gives, in a domain that was not trained on."""
    program = jax.jit(prepare_support)
    asked = [c for c in evaluation.conditions((0, 1, 2)) if c.control != "swap"]
    by_label = {
        c.label: jax.device_get(
            program(toy.support, UNKNOWN_SCALE, jnp.full(TASKS, c.episodes), jnp.bool_(c.control == "zero"))
        )
        for c in asked
    }
    return Supports(by_label, toy.support)


def test_only_the_episodes_asked_for_may_be_used(supports: Supports) -> None:
    for episodes in (0, 1, 2):
        given = supports.given[f"K={episodes}"]
        kept = np.broadcast_to(np.arange(SUPPORT) < episodes, (TASKS, SUPPORT))
        np.testing.assert_array_equal(given.history.valid.all(-1), kept)
        np.testing.assert_array_equal(given.history.valid.any(-1), kept)
        np.testing.assert_array_equal(given.transitions.weight.max(-1), kept)
        np.testing.assert_array_equal(given.trajectory.valid.all(-1), kept)
        np.testing.assert_array_equal(given.trajectory.valid.any(-1), kept)


@pytest.mark.parametrize("episodes", [1, 2])
def test_unseen_domains_are_normalised_by_the_own_support_alone(supports: Supports, episodes: int) -> None:
    recorded = supports.recorded.history.reward
    assert supports.recorded.history.valid.all()
    used = recorded[:, :episodes].reshape(TASKS, -1)
    mean, sd = used.mean(-1)[:, None, None], used.std(-1)[:, None, None]
    reward = supports.given[f"K={episodes}"].history.reward
    np.testing.assert_allclose(reward, 0.2 * (recorded - mean) / sd, rtol=1e-3, atol=1e-5)


def test_zero_removes_rewards_everywhere_and_nothing_else(supports: Supports) -> None:
    own, zero = supports.given["K=2"], supports.given["K=2 zero"]
    batch = zero.transitions
    assert np.any(own.history.tokens[..., LAST_REWARD])
    seen = (zero.history.tokens, batch.observation.tokens, batch.next_observation.tokens)
    for reward in (zero.history.reward, batch.reward, batch.immediate, *(tokens[..., LAST_REWARD] for tokens in seen)):
        assert not np.any(reward)
    others = np.arange(len(TOKEN_COLUMNS)) != LAST_REWARD
    np.testing.assert_array_equal(zero.history.tokens[..., others], own.history.tokens[..., others])
    np.testing.assert_array_equal(zero.history.decisions, own.history.decisions)
    np.testing.assert_array_equal(zero.history.valid, own.history.valid)
    np.testing.assert_array_equal(batch.action, own.transitions.action)
    np.testing.assert_array_equal(batch.weight, own.transitions.weight)


def test_labels_and_controls() -> None:
    assert [c.label for c in evaluation.conditions((5, 0, 1))] == ["K=0", "K=1", "K=5", "K=5 swap", "K=5 zero"]
    assert [c.label for c in evaluation.conditions((0,))] == ["K=0"]


@pytest.mark.parametrize("episodes", [(), (-1, 2), (1, 1)])
def test_impossible_numbers_of_episodes_are_refused(episodes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="support_episodes must be different numbers, 0 or more; got"):
        evaluation.conditions(episodes)
