"""A domain's programs do for every policy what is asked, and nothing is compiled twice for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import TOKEN_COLUMNS, Observation
from envs_jax.suite import Suite
from metarl_jax import rollouts
from metarl_jax.learners.base import Exploration
from metarl_jax.networks.actor import ActingMode
from metarl_jax.recording import Recorder
from metarl_jax.rollouts import DomainPrograms, PolicyName, RolloutMode, Rollouts
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place
from metarl_jax.types import Trajectory
from tests.envs_jax.toys import RememberingToy
from tests.metarl_jax import planted, probes

REPLICAS, TASKS, EPISODES = 2, 3, 4
SUITE = Suite.of((probes.Match(), probes.Choice()))
PERIODS = probes.Match.num_periods
SHOWN, LAST_REWARD = TOKEN_COLUMNS.index("private_a"), TOKEN_COLUMNS.index("last_reward")


def told(params: Any, policy: Any, seen: Observation, key: chex.PRNGKey, mode: ActingMode) -> chex.Array:
    """Plays the task's action, or what the replica adds to it, and explores by choosing the other one."""
    del key
    chosen = (policy + params) % 2
    return jnp.broadcast_to(jnp.where(mode.epsilon > 0, 1 - chosen, chosen), seen.token_mask.shape[:-1])


ACTOR = planted.Rule(told)


@pytest.fixture(scope="module")
def match() -> DomainPrograms:
    return DomainPrograms.of(SUITE, "match", Programs(REPLICAS))


def play(
    match: DomainPrograms, policy: PolicyName, epsilon: float = 0.0, labelled: bool = False, actor: Any = ACTOR
) -> Rollouts:
    keys = place(jax.random.split(jax.random.key(1), (REPLICAS, TASKS, EPISODES)), REPLICAS)
    own = place(jax.random.split(jax.random.key(2), REPLICAS), REPLICAS)
    params = place(jnp.arange(REPLICAS), REPLICAS)
    policies = place(jnp.tile(jnp.arange(TASKS) % 2, (REPLICAS, 1)), REPLICAS)
    tasks, plans = match.draw(keys[:, :, 0])
    mode = RolloutMode.of(policy, Exploration(epsilon), labelled)
    return jax.device_get(match.play(actor, params, policies, (), tasks, plans, keys, own, mode))


def chosen_and_best(one: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(one.action), (one.observation.tokens[..., 0, SHOWN] > 0).astype(int)


def test_every_policy_is_recorded_as_it_plays(match: DomainPrograms) -> None:
    played = {policy: play(match, policy, labelled=True) for policy in rollouts.POLICIES}
    for policy, rollout in played.items():
        one = rollout.trajectory
        action, best = chosen_and_best(one)
        assert action.shape == (REPLICAS, PERIODS, TASKS, EPISODES)
        np.testing.assert_array_equal(one.reference, best, err_msg=f"{policy}: the label is the reference's choice")
        np.testing.assert_array_equal(one.reward, action == best, err_msg=policy)
        np.testing.assert_array_equal(rollout.score, (action == best).sum(1), err_msg=policy)
        np.testing.assert_array_equal(one.discount, np.float32(probes.Probe.discount_factor), err_msg=policy)
        assert one.valid.all()
        assert one.period_end.all(), "these probes choose once a period"
        expected = {"reference": best, "noop": np.zeros_like(best), "heuristic": np.zeros_like(best)}.get(policy)
        if expected is not None:
            np.testing.assert_array_equal(action, expected, err_msg=policy)
    np.testing.assert_array_equal(played["reference"].score, PERIODS)
    assert set(np.unique(played["random"].trajectory.action)) == {0, 1}
    own = (np.arange(TASKS) % 2)[None, :] + np.arange(REPLICAS)[:, None]
    np.testing.assert_array_equal(
        played["learner"].trajectory.action,
        np.broadcast_to((own % 2)[:, None, :, None], (REPLICAS, PERIODS, TASKS, EPISODES)),
        err_msg="replicas have learners of their own, tasks policies of their own",
    )


def test_what_follows_the_last_choice_is_recorded(match: DomainPrograms) -> None:
    """A probe shows what was chosen in the period before."""
    one = play(match, "random").trajectory
    before = TOKEN_COLUMNS.index("level")
    np.testing.assert_array_equal(one.final.tokens[..., 0, before], 2.0 * one.action[:, -1] - 1.0)
    np.testing.assert_array_equal(one.observation.tokens[:, 1:, ..., 0, before], 2.0 * one.action[:, :-1] - 1.0)


def test_exploration_is_the_learners_business(match: DomainPrograms) -> None:
    greedy, other = (play(match, "learner", epsilon).trajectory for epsilon in (0.0, 0.5))
    np.testing.assert_array_equal(other.action, 1 - greedy.action)
    np.testing.assert_array_equal(play(match, "random", 0.0).score, play(match, "random", 0.5).score)


def test_without_a_label_nothing_of_the_reference_is_told(match: DomainPrograms) -> None:
    one = play(match, "random").trajectory
    assert chosen_and_best(one)[1].any()
    np.testing.assert_array_equal(one.reference, 0)


def test_policies_meet_the_same_noise(match: DomainPrograms) -> None:
    shown = [play(match, name).trajectory.observation.tokens[..., SHOWN] for name in ("random", "heuristic")]
    np.testing.assert_array_equal(*shown)


def test_all_policies_share_one_program(match: DomainPrograms) -> None:
    for policy in rollouts.POLICIES:
        play(match, policy, 0.1, labelled=policy == "learner")
    assert match.programs.built["play"] == match.programs.built["draw"] == 1
    nobody: Any = None
    assert match.programs.get("play", (match.env, ACTOR), nobody)._cache_size() == 1
    again = DomainPrograms.of(SUITE, "match", match.programs)
    assert again == match
    play(again, "learner")
    assert match.programs.built["play"] == 1


def test_another_actor_is_another_program(match: DomainPrograms) -> None:
    """A program that is found by less than who acts would let one learner play for another."""
    programs = Programs(REPLICAS)
    own = DomainPrograms.of(SUITE, "match", programs)
    first = play(own, "learner", actor=planted.Rule(planted.first_legal))
    second = play(own, "learner")
    np.testing.assert_array_equal(first.trajectory.action, 0)
    np.testing.assert_array_equal(second.trajectory.action, play(match, "learner").trajectory.action)
    assert programs.built["play"] == 2


class Carried(NamedTuple):
    first: Rollouts
    second: Rollouts


@pytest.fixture(scope="module")
def carried() -> Carried:
    """Two episodes of each trial, one after another."""
    programs = Programs(1)
    own = DomainPrograms.of(SUITE, "match", programs)
    actor = planted.Counter(turns=3, actions=2)
    keys = jax.random.split(jax.random.key(1), (1, TASKS, EPISODES))
    tasks, plans = own.draw(keys[:, :, 0])
    nothing, key = jnp.zeros((1, TASKS)), jax.random.split(jax.random.key(2), 1)
    mode = RolloutMode.of("learner")
    start = place(jnp.tile(jnp.arange(EPISODES), (1, TASKS, 1)), 1)  # every trial remembers something else
    episodes = []
    for _ in range(2):
        episodes.append(own.play(actor, jnp.zeros(1), nothing, start, tasks, plans, keys, key, mode))
        start = episodes[-1].carry
    assert programs.get("play", (own.env, actor), lambda: planted.nothing)._cache_size() == 1
    return Carried(*jax.device_get(episodes))


def test_what_an_actor_remembers_goes_from_choice_to_choice_and_episode_to_episode(carried: Carried) -> None:
    for episode, played in enumerate(carried):
        seen_before = np.arange(EPISODES) + episode * PERIODS  # choices, counted from where each trial starts
        np.testing.assert_array_equal(played.carry[0], np.tile(seen_before + PERIODS, (TASKS, 1)))
        for time in range(PERIODS):
            expected = (seen_before + time) // 3 % 2
            np.testing.assert_array_equal(played.trajectory.action[0, time], np.tile(expected, (TASKS, 1)))


def by_last_reward(params: Any, policy: Any, seen: Observation, key: chex.PRNGKey, mode: ActingMode) -> chex.Array:
    """1 if the last reward was positive."""
    del params, policy, key, mode
    return (seen.tokens[:, 0, LAST_REWARD] > 0).astype(jnp.int32)


class ShowsReward(probes.Match):
    """As Match, but the last reward is on show."""

    name = "shows_reward"

    def observation(self, state: Any, params: Any) -> Observation:
        seen = super().observation(state, params)
        return seen.replace(tokens=seen.tokens.at[:, LAST_REWARD].set(state.last_reward))


@pytest.mark.parametrize("blank", [False, True])
def test_rewards_may_be_hidden_from_the_learner_and_stay_in_the_record(blank: bool) -> None:
    own = DomainPrograms.of(Suite.of((ShowsReward(),)), "shows_reward", Programs(1))
    keys = jax.random.split(jax.random.key(1), (1, TASKS, EPISODES))
    tasks, plans = own.draw(keys[:, :, 0])
    nothing, key = jnp.zeros((1, TASKS)), jax.random.split(jax.random.key(2), 1)
    mode = RolloutMode.of("learner", blank_rewards=blank)
    actor = planted.Rule(by_last_reward)
    played = jax.device_get(own.play(actor, jnp.zeros(1), nothing, (), tasks, plans, keys, key, mode))
    one = jax.tree.map(lambda leaf: leaf[0], played.trajectory)
    paid = np.concatenate([np.zeros((1, TASKS, EPISODES)), one.reward[:-1]])
    np.testing.assert_array_equal(one.observation.tokens[..., 0, LAST_REWARD], paid)
    assert paid.any()
    np.testing.assert_array_equal(one.action, 0 if blank else paid > 0)


def test_one_rollout_is_recorded_for_everyone_who_asks(match: DomainPrograms) -> None:
    """What is kept is no matter of the acting program: two recorders of one roll-out tell of the same episodes."""
    played = play(match, "random")
    key = place(jax.random.split(jax.random.key(2), REPLICAS), REPLICAS)
    sampled, ordered = Recorder(3, samples=8), Recorder(PERIODS, ordered=True)
    some, all_ = match.record(sampled, played, key), match.record(ordered, played, key)
    again = match.record(Recorder(3, samples=8), played, key)
    chex.assert_trees_all_equal(again, some)
    assert match.programs.built["record"] == 2
    assert some.history.reward.shape == (REPLICAS, TASKS, EPISODES, 3)
    assert some.transitions.action.shape == (REPLICAS, TASKS, EPISODES, 8)
    assert some.trajectory is None
    assert all_.transitions is None
    np.testing.assert_array_equal(all_.trajectory.action, np.moveaxis(played.trajectory.action, 1, -1))
    np.testing.assert_array_equal(all_.history.reward, np.moveaxis(played.trajectory.reward, 1, -1))


def test_a_heuristic_remembers_within_an_episode_beside_the_actor() -> None:
    env = RememberingToy(num_turns=2, num_periods=3)
    domain = DomainPrograms.of(Suite.of((env,)), env.name, Programs(REPLICAS))
    tasks = jax.tree.map(lambda x: jnp.broadcast_to(x, (REPLICAS, TASKS, *x.shape)), env.task(2.0, 0.5))
    keys = jax.random.split(jax.random.key(0), (REPLICAS, TASKS, EPISODES))
    nothing = jnp.zeros((REPLICAS, TASKS), jnp.int32)
    arguments = (jnp.zeros(REPLICAS, jnp.int32), nothing, (), tasks, nothing + 1.5, keys, keys[:, 0, 0])
    played = domain.play(ACTOR, *place(arguments, REPLICAS), RolloutMode.of("heuristic"))
    # The net gain is 1.5 and turn 1 pays 1 more; the first of three periods is left out.
    np.testing.assert_allclose(played.score, 2 * 2.5, rtol=1e-6)
