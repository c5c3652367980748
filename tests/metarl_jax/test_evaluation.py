"""The evaluator scores the policy, tasks and noise that it says it scores."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.anchors import PolicyName, policy
from envs_jax.domains.energy_trading import EnergyTrading
from envs_jax.domains.portfolio import Portfolio
from envs_jax.domains.supply_chain import SupplyChain
from envs_jax.environment import EnvParams
from envs_jax.observation import TOKEN_COLUMNS, Observation
from envs_jax.suite import Act, Suite, rollout
from metarl_jax import evaluation
from metarl_jax import experience as xp
from metarl_jax.evaluation import Condition
from metarl_jax.learners.base import Learner
from tests.envs_jax.toys import Toy, ToyParams

TASKS, SUPPORT, QUERY = 3, 2, 4
LAST_REWARD = TOKEN_COLUMNS.index("last_reward")


@dataclasses.dataclass(frozen=True)
class FollowingSuite(Suite):
    """One domain whose query episodes follow named policies, one a condition, whatever the learner wants."""

    follows: tuple[PolicyName, ...] = ()
    tasks: EnvParams | None = dataclasses.field(default=None, compare=False)

    def batched(self, act: Callable[..., chex.Array]) -> Act:
        (env,), count = self.envs, len(self.follows)
        tasks: Any = self.tasks
        policies = [policy(env, name, tasks) for name in self.follows]

        def follow(seen: Any, states: Any, key: chex.PRNGKey) -> tuple[chex.Array, ...]:
            assert seen[0].token_mask.shape[0] == count * TASKS
            actions: list[chex.Array] = []
            for i, one in enumerate(policies):
                cut = functools.partial(lambda i, leaf: leaf[i * TASKS : (i + 1) * TASKS] if leaf.ndim else leaf, i)
                actions += one(jax.tree.map(cut, seen), jax.tree.map(cut, states), key)
            return (jnp.concatenate(actions),)

        return follow


def nothing(*args: Any) -> Any:
    raise NotImplementedError


def fake(act: Callable[..., chex.Array]) -> Learner:
    """A learner that learns nothing: its "policy" of a task is how many support episodes it was given."""
    return Learner(
        init=nothing,
        prepare=nothing,
        collect=nothing,
        update=nothing,
        stage=lambda progress: "none",
        params=nothing,
        adapt=lambda trained, support: support.periods.valid.any(-1).sum(),
        act=act,
        support_epsilon=1.0,
        hyper=None,
    )


def first_legal(trained: Any, policy: Any, seen: Observation, key: chex.PRNGKey, epsilon: chex.Numeric) -> chex.Array:
    return jnp.argmax(seen.action_mask, axis=-1).astype(jnp.int32)


@pytest.mark.slow
def test_every_domain_returns_its_own_known_figures() -> None:
    """All evaluators are built before the first is used: a closure over the loop variable once scored all on one."""
    envs = (
        SupplyChain(num_stages=2, num_periods=4, max_lead_time=2, max_adjustment=3),
        EnergyTrading(num_periods=6, num_devices=2, max_capacity=6, num_prices=5),
        Portfolio(num_assets=2, num_factors=1, num_periods=4),
    )
    suite = Suite.of(envs)
    names: tuple[PolicyName, ...] = ("noop", "reference", "random")
    trials = [evaluation.make_trials(suite, env.name, jax.random.key(1), TASKS, SUPPORT, 8) for env in envs]
    following = [
        dataclasses.replace(one, suite=FollowingSuite(**vars(one.suite), follows=names, tasks=one.tasks))
        for one in trials
    ]
    asked = (Condition(0), Condition(1), Condition(SUPPORT, "swap"))
    learner, trained = fake(first_legal), {"nothing": jnp.zeros(1)}
    scored = [evaluation.evaluate(learner, [trained], None, one, asked, 2, 1, jax.random.key(2)) for one in following]
    for env, one, score in zip(envs, trials, scored, strict=True):
        assert one.env is env
        assert score.shape == (1, len(asked), TASKS, 8)
        noop, reference, random = score[0]
        np.testing.assert_allclose(noop.mean(-1), one.anchors.noop, rtol=1e-4, atol=1e-4, err_msg=one.name)
        np.testing.assert_allclose(reference.mean(-1), one.anchors.reference, rtol=1e-4, atol=1e-4, err_msg=one.name)
        # Random choices are drawn anew: five standard errors of the difference of two means.
        error = 5.0 * random.std(-1).max() * np.sqrt(2 / random.size)
        np.testing.assert_allclose(random.mean(), one.anchors.random.mean(), atol=error, err_msg=one.name)
    known = np.array([score[0].mean((-1, -2)) for score in scored])
    assert np.unique(known[:, 1:].round(3)).size == known[:, 1:].size, "these figures cannot tell domains apart"


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
    del key
    assert epsilon == 0.0, "exploration is off in query episodes"
    wanted = jnp.full(seen.action_mask.shape[:-1], policy, jnp.int32) + trained["offset"]
    legal = jnp.take_along_axis(seen.action_mask, wanted[..., None], axis=-1)[..., 0]
    return jnp.where(legal, wanted, 0)


def test_conditions_members_and_tasks_keep_their_places() -> None:
    """In the toy, action 1 pays gain - toll on both turns, action 2 pays 1 on the second."""
    trials = evaluation.make_trials(SUITE, "toy", jax.random.key(3), TASKS, SUPPORT, QUERY)
    asked = evaluation.conditions((0, 1))
    trained = {"offset": jnp.array([0, 1], jnp.int32)}
    score = evaluation.evaluate(fake(known_episodes), [trained], None, trials, asked, 2, 1, jax.random.key(4))
    assert score.shape == (2, len(asked), TASKS, QUERY)
    gain = np.asarray(trials.tasks.gain - trials.tasks.toll)
    assert np.ptp(gain) > 0.1
    pays = {0: np.zeros(TASKS), 1: TOY.num_periods * 2 * gain, 2: np.full(TASKS, TOY.num_periods * 1.0)}
    for member in (0, 1):
        for c, condition in enumerate(asked):
            expected = np.broadcast_to(pays[condition.episodes + member][:, None], (TASKS, QUERY))
            np.testing.assert_allclose(score[member, c], expected, rtol=1e-5, atol=1e-5, err_msg=condition.label)


def test_each_condition_adapts_the_candidate_it_names() -> None:
    trials = evaluation.make_trials(SUITE, "toy", jax.random.key(3), TASKS, SUPPORT, QUERY)
    learner = fake(known_episodes)._replace(adapt=lambda trained, support: trained["action"])
    candidates = [{"action": jnp.full(1, i), "offset": jnp.zeros(1, jnp.int32)} for i in (2, 0)]
    asked = (Condition(1, candidate=1), Condition(1, candidate=0))
    idle, second = evaluation.evaluate(learner, candidates, None, trials, asked, 2, 1, jax.random.key(4))[0]
    np.testing.assert_array_equal(idle, 0.0)
    np.testing.assert_array_equal(second, TOY.num_periods)


class Supports(NamedTuple):
    given: dict[str, xp.Support]  # by label: axes [B, K, ...]
    rewards: np.ndarray  # realised, [B, K, P]


@pytest.fixture(scope="module")
def supports() -> Supports:
    """What every condition gives, in a domain that was not trained on."""
    tasks = jax.vmap(TOY.sample_params)(jax.random.split(jax.random.key(5), TASKS))
    keys = jax.random.split(jax.random.key(6), (TASKS, SUPPORT))
    asked = evaluation.conditions((0, 1, 2))

    @jax.jit
    def program() -> tuple[Any, ...]:
        (recorded,), (final,) = rollout(
            (TOY,), (tasks,), (keys,), SUITE.random_act, jax.random.key(7), lambda d, step: xp.Episodes.of(step)
        )
        given = jax.vmap(
            lambda condition: evaluation.support_of(
                SUITE, recorded, final, condition, evaluation.UNKNOWN_SCALE, jax.random.key(8), 2, 1
            )
        )(evaluation.Asked.of(asked))
        return given, xp.period_rewards(TOY, recorded.reward)

    given, rewards = jax.device_get(program())
    by_label = {c.label: jax.tree.map(lambda leaf, i=i: leaf[i], given) for i, c in enumerate(asked)}
    return Supports(by_label, rewards)


def test_only_the_episodes_asked_for_may_be_used(supports: Supports) -> None:
    for episodes in (0, 1, 2):
        given = supports.given[f"K={episodes}"]
        kept = np.broadcast_to(np.arange(SUPPORT) < episodes, (TASKS, SUPPORT))
        np.testing.assert_array_equal(given.periods.valid.all(-1), kept)
        np.testing.assert_array_equal(given.periods.valid.any(-1), kept)
        np.testing.assert_array_equal(given.transitions.weight.max(-1), kept)


@pytest.mark.parametrize("episodes", [1, 2])
def test_unseen_domains_are_normalised_by_the_own_support_alone(supports: Supports, episodes: int) -> None:
    used = supports.rewards[:, :episodes].reshape(TASKS, -1)
    mean, sd = used.mean(-1)[:, None, None], used.std(-1)[:, None, None]
    reward = supports.given[f"K={episodes}"].periods.reward
    np.testing.assert_allclose(reward, 0.2 * (supports.rewards - mean) / sd, rtol=1e-3, atol=1e-5)


def test_swap_gives_the_support_of_the_task_before(supports: Supports) -> None:
    rolled = jax.tree.map(lambda leaf: np.roll(leaf, 1, axis=0), supports.given["K=2"])
    chex.assert_trees_all_close(supports.given["K=2 swap"], rolled, rtol=1e-6)


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
