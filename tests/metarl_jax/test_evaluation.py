"""The evaluator scores the policy, tasks and noise that it says it scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import anchors
from envs_jax.domains.energy_trading import EnergyTrading
from envs_jax.domains.portfolio import Portfolio
from envs_jax.domains.supply_chain import SupplyChain
from envs_jax.environment import ResourceEnv
from envs_jax.observation import TOKEN_COLUMNS, Observation
from envs_jax.suite import Suite, rollout
from metarl_jax import arena, evaluation
from metarl_jax import experience as xp
from metarl_jax.collection import Collector
from metarl_jax.configs import QLearningConfig
from metarl_jax.evaluation import Condition
from metarl_jax.learners.base import Learner
from tests.envs_jax.toys import Toy, ToyParams

TASKS, SUPPORT, QUERY = 3, 2, 4
DATA = QLearningConfig(tasks=2, episodes=SUPPORT, samples=2, num_steps=1)  # blocks of two: the last one is filled up
LAST_REWARD = TOKEN_COLUMNS.index("last_reward")


def nothing(*args: Any) -> Any:
    raise NotImplementedError


def fake(act: Callable[..., chex.Array], adapt: Callable[..., Any] | None = None, **trained: int) -> Learner:
    """A learner that learns nothing: its "policy" of a task is how many support episodes it was given."""

    def episodes(trained: Any, support: xp.Support, inner: chex.Array) -> chex.Array:
        del trained, inner
        return support.periods.valid.any(-1).sum()

    return Learner(
        init=lambda key, hyper: {name: jnp.int32(value) for name, value in trained.items()},
        update=nothing,
        stage=lambda progress: "none",
        params=lambda state: state,
        adapt=adapt or episodes,
        shared=lambda trained: trained,
        act=act,
        data=DATA,
        hyper=None,
    )


def first_legal(shared: Any, policy: Any, seen: Observation, key: chex.PRNGKey, epsilon: chex.Numeric) -> chex.Array:
    return jnp.argmax(seen.action_mask, axis=-1).astype(jnp.int32)


@pytest.mark.slow
def test_every_domain_returns_its_own_known_figures() -> None:
    """All evaluators are built before the first is used: a closure over the loop variable once scored all on one."""
    envs: tuple[ResourceEnv, ...] = (
        SupplyChain(num_stages=2, num_periods=4, max_lead_time=2, max_adjustment=3),
        EnergyTrading(num_periods=6, num_devices=2, max_capacity=6, num_prices=5),
        Portfolio(num_assets=2, num_factors=1, num_periods=4),
    )
    suite = Suite.of(envs)
    learner, members = fake(first_legal, nothing=0), 2
    collector = Collector(learner, suite, members)
    arenas = [arena.make(suite, env.name, learner.act, DATA, members) for env in envs]
    trials = [evaluation.make_trials(one, collector, jax.random.key(1), TASKS, SUPPORT, 8) for one in arenas]
    asked = (Condition(0), Condition(SUPPORT, "swap"))
    trained = {"nothing": jnp.zeros(members, jnp.int32)}
    scored = [evaluation.evaluate(collector, [trained], None, one, asked, jax.random.key(2)) for one in trials]
    known = []
    for env, one, score in zip(envs, trials, scored, strict=True):
        assert one.env is env
        figures = {name: anchors.returns(env, name, one.tasks, one.query_keys) for name in anchors.POLICIES[:3]}
        figures["reference"] = anchors.returns(env, "reference", one.tasks, one.query_keys)
        for name in ("noop", "heuristic", "reference"):
            found, expected = getattr(one.anchors, name), figures[name].mean(-1)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=f"{env.name}: {name}")
        # Random choices are drawn anew: five standard errors of the difference of two means.
        error = 5.0 * figures["random"].std(-1).max() * np.sqrt(2 / figures["random"].size)
        np.testing.assert_allclose(one.anchors.random.mean(), figures["random"].mean(), atol=error, err_msg=env.name)

        act = lambda seen, key: first_legal(None, None, seen, key, 0.0)  # noqa: E731
        (rewards,), _ = jax.jit(
            lambda tasks, keys, env=env, act=act: rollout(
                (env,), (tasks,), (keys,), Suite.of((env,)).batched(act), jax.random.key(0), anchors.score_reward
            )
        )(one.tasks, one.query_keys)
        assert score.shape == (members, len(asked), TASKS, 8)
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


def known_episodes(trained: Any, policy: Any, seen: Observation, key: chex.PRNGKey, epsilon: chex.Numeric) -> Any:
    """The action is the number of support episodes that the policy was adapted to, where that is legal."""
    del key, epsilon
    wanted = jnp.full(seen.action_mask.shape[:-1], policy, jnp.int32) + trained["offset"]
    legal = jnp.take_along_axis(seen.action_mask, wanted[..., None], axis=-1)[..., 0]
    return jnp.where(legal, wanted, 0)


def toy_trials(learner: Learner, members: int) -> tuple[Collector, evaluation.Trials]:
    collector = Collector(learner, SUITE, members)
    own = arena.make(SUITE, "toy", learner.act, DATA, members)
    return collector, evaluation.make_trials(own, collector, jax.random.key(3), TASKS, SUPPORT, QUERY)


def test_conditions_members_and_tasks_keep_their_places() -> None:
    """In the toy, action 1 pays gain - toll on both turns, action 2 pays 1 on the second."""
    collector, trials = toy_trials(fake(known_episodes, offset=0), 2)
    asked = evaluation.conditions((0, 1))
    trained = {"offset": jnp.array([0, 1], jnp.int32)}
    score = evaluation.evaluate(collector, [trained], None, trials, asked, jax.random.key(4))
    assert score.shape == (2, len(asked), TASKS, QUERY)
    gain = np.asarray(trials.tasks.gain - trials.tasks.toll)
    assert np.ptp(gain) > 0.1
    pays = {0: np.zeros(TASKS), 1: TOY.num_periods * 2 * gain, 2: np.full(TASKS, TOY.num_periods * 1.0)}
    for member in (0, 1):
        for c, condition in enumerate(asked):
            expected = np.broadcast_to(pays[condition.episodes + member][:, None], (TASKS, QUERY))
            np.testing.assert_allclose(score[member, c], expected, rtol=1e-5, atol=1e-5, err_msg=condition.label)


def test_each_condition_adapts_the_candidate_it_names() -> None:
    learner = fake(known_episodes, lambda trained, support, inner: trained["action"], action=0, offset=0)
    collector, trials = toy_trials(learner, 1)
    candidates = [{"action": jnp.full(1, i), "offset": jnp.zeros(1, jnp.int32)} for i in (2, 0)]
    asked = (Condition(1, candidate=1), Condition(1, candidate=0))
    idle, second = evaluation.evaluate(collector, candidates, None, trials, asked, jax.random.key(4))[0]
    np.testing.assert_array_equal(idle, 0.0)
    np.testing.assert_array_equal(second, TOY.num_periods)


def test_swap_gives_the_support_of_the_task_before() -> None:
    """Policies of a learner that hands on what it is given are those of the tasks before."""
    learner = fake(lambda *args: first_legal(*args), lambda trained, support, inner: support, offset=0)
    collector, trials = toy_trials(learner, 1)
    given: list[Any] = []
    adapted = collector.adapted

    def watch(trained: Any, support: Any, scale: Any, episodes: Any, zero: Any, inner: Any) -> Any:
        given.append(jax.device_get(support.periods.reward)[0])
        return adapted(trained, support, scale, episodes, zero, inner)

    collector.adapted = watch
    trained = {"offset": jnp.zeros(1, jnp.int32)}
    asked = (Condition(SUPPORT), Condition(SUPPORT, "swap"))
    evaluation.evaluate(collector, [trained], None, trials, asked, jax.random.key(4))
    assert trials.support is not None
    recorded = np.asarray(trials.support.periods.reward)
    assert len({task.tobytes() for task in recorded}) == TASKS
    own, swapped = (np.concatenate(given[i::2])[:TASKS] for i in (0, 1))
    np.testing.assert_array_equal(own, recorded)
    np.testing.assert_array_equal(swapped, np.roll(recorded, 1, axis=0))


@pytest.mark.slow
def test_support_of_one_s_own_is_collected_from_the_empty_policy() -> None:
    """A learner that explores by itself records what its policy without support does."""
    learner = fake(known_episodes, offset=0)._replace(data=dataclasses.replace(DATA, support_epsilon=0.0))
    collector, trials = toy_trials(learner, 1)
    assert trials.support is None
    trained = {"offset": jnp.full(1, 2, jnp.int32)}
    keys = jax.random.split(jax.random.key(1), (1, DATA.tasks, SUPPORT))
    tasks, plans = trials.arena.draw(keys[:, :, 0])
    support = collector.explore(trials.arena, trained, tasks, plans, keys, jax.random.split(jax.random.key(2), 1))
    batch = support.transitions
    assert batch.observation.action_mask[..., 2].any()
    np.testing.assert_array_equal(batch.action, np.where(batch.observation.action_mask[..., 2], 2, 0))


class Supports(NamedTuple):
    given: dict[str, xp.Support]  # by label: axes [B, K, ...]
    recorded: xp.Support


@pytest.fixture(scope="module")
def supports() -> Supports:
    """What every condition gives, in a domain that was not trained on."""
    _, trials = toy_trials(fake(first_legal, nothing=0), 1)
    recorded: Any = trials.support
    program = jax.jit(xp.given)
    asked = [c for c in evaluation.conditions((0, 1, 2)) if c.control != "swap"]
    by_label = {
        c.label: jax.device_get(
            program(recorded, xp.UNKNOWN_SCALE, jnp.full(TASKS, c.episodes), jnp.bool_(c.control == "zero"))
        )
        for c in asked
    }
    return Supports(by_label, recorded)


def test_only_the_episodes_asked_for_may_be_used(supports: Supports) -> None:
    for episodes in (0, 1, 2):
        given = supports.given[f"K={episodes}"]
        kept = np.broadcast_to(np.arange(SUPPORT) < episodes, (TASKS, SUPPORT))
        np.testing.assert_array_equal(given.periods.valid.all(-1), kept)
        np.testing.assert_array_equal(given.periods.valid.any(-1), kept)
        np.testing.assert_array_equal(given.transitions.weight.max(-1), kept)


@pytest.mark.parametrize("episodes", [1, 2])
def test_unseen_domains_are_normalised_by_the_own_support_alone(supports: Supports, episodes: int) -> None:
    recorded = supports.recorded.periods.reward
    assert supports.recorded.periods.valid.all()
    used = recorded[:, :episodes].reshape(TASKS, -1)
    mean, sd = used.mean(-1)[:, None, None], used.std(-1)[:, None, None]
    reward = supports.given[f"K={episodes}"].periods.reward
    np.testing.assert_allclose(reward, 0.2 * (recorded - mean) / sd, rtol=1e-3, atol=1e-5)


def test_zero_removes_rewards_everywhere_and_nothing_else(supports: Supports) -> None:
    own, zero = supports.given["K=2"], supports.given["K=2 zero"]
    batch = zero.transitions
    assert np.any(own.periods.tokens[..., LAST_REWARD])
    seen = (zero.periods.tokens, batch.observation.tokens, batch.next_observation.tokens)
    for reward in (zero.periods.reward, batch.reward, batch.immediate, *(tokens[..., LAST_REWARD] for tokens in seen)):
        assert not np.any(reward)
    others = np.arange(len(TOKEN_COLUMNS)) != LAST_REWARD
    np.testing.assert_array_equal(zero.periods.tokens[..., others], own.periods.tokens[..., others])
    np.testing.assert_array_equal(zero.periods.decisions, own.periods.decisions)
    np.testing.assert_array_equal(zero.periods.valid, own.periods.valid)
    np.testing.assert_array_equal(batch.action, own.transitions.action)
    np.testing.assert_array_equal(batch.weight, own.transitions.weight)


def test_labels_and_controls() -> None:
    assert [c.label for c in evaluation.conditions((5, 0, 1))] == ["K=0", "K=1", "K=5", "K=5 swap", "K=5 zero"]
    assert [c.label for c in evaluation.conditions((0,))] == ["K=0"]


@pytest.mark.parametrize("shots", [(), (-1, 2), (1, 1)])
def test_impossible_shots_are_refused(shots: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shots must be different numbers of support episodes, 0 or more"):
        evaluation.conditions(shots)
