"""Scored policies on a domain whose returns are known by hand (see tests/envs_jax/toys.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import policies, scoring
from envs_jax.rollout import rollout
from tests.envs_jax.toys import RememberingToy, Toy

ENV = Toy(num_turns=2, num_periods=3)
P = ENV.num_periods
GAINS, TOLLS = jnp.array([-1.0, 0.6, 2.0, 4.0]), jnp.array([0.0, 0.1, 0.5, 1.0])
NET = np.asarray(GAINS - TOLLS)
TASKS = jax.vmap(lambda gain, toll: ENV.default_params.replace(gain=gain, toll=toll))(GAINS, TOLLS)
KEYS = jax.random.split(jax.random.key(5), (4, 3))
REFERENCE = P * (np.maximum(NET, 0) + np.maximum(NET, 1))


@pytest.mark.parametrize(
    ("name", "expected"), [("noop", 0 * NET), ("heuristic", P * (NET + 1)), ("reference", REFERENCE)]
)
def test_returns_are_those_worked_out_by_hand(name, expected):
    got = scoring.returns(ENV, name, TASKS, KEYS)
    # Realised rewards would differ between episodes: scores add up the noise-free expectation.
    np.testing.assert_allclose(got, np.broadcast_to(expected[:, None], (4, 3)), rtol=1e-5, atol=1e-5)


def test_random_policy_earns_the_mean_over_legal_actions():
    keys = jax.random.split(jax.random.key(6), (4, 1000))
    got = np.asarray(scoring.returns(ENV, "random", TASKS, keys))
    standard_error = got.std(axis=1) / np.sqrt(got.shape[1])
    assert (np.abs(got.mean(axis=1) - P * (NET / 2 + (NET + 1) / 3)) < 4 * standard_error).all()


def test_average_policy_plans_for_the_mean_of_the_hidden_fields_only():
    population = jax.vmap(lambda gain: ENV.task(gain, 9.0))(jnp.array([1.0, 3.0]))
    believed = jax.vmap(ENV.average_task, in_axes=(0, None))(TASKS, population)
    np.testing.assert_array_equal(believed.gain, np.full(4, 2.0))
    np.testing.assert_array_equal(believed.toll, TOLLS)
    np.testing.assert_array_equal(believed.max_steps_in_episode, TASKS.max_steps_in_episode)
    got = scoring.returns(ENV, "average", TASKS, KEYS, population)
    # It believes in a net gain of 2 - toll > 0, so it always serves on turn 0, and on turn 1 where that beats 1.
    serves = np.asarray(2.0 - TOLLS) > 1
    expected = P * (NET + np.where(serves, NET, 1.0))
    np.testing.assert_allclose(got, np.broadcast_to(expected[:, None], (4, 3)), rtol=1e-5, atol=1e-5)
    assert (got.mean(1) <= REFERENCE + 1e-5).all()
    assert (got.mean(1) < REFERENCE - 0.1).any()


def test_reference_returns_are_means_over_episodes_and_floor_is_the_better_of_two():
    found = scoring.reference_returns(ENV, TASKS, KEYS)
    for name in scoring.SCORED:
        np.testing.assert_allclose(getattr(found, name), scoring.returns(ENV, name, TASKS, KEYS).mean(-1), rtol=1e-6)
    np.testing.assert_array_equal(found.floor, np.maximum(found.random, found.noop))
    assert found.floor[0] == 0.0  # serving costs there, so doing nothing beats the random policy
    assert found.floor[3] == found.random[3] > 0.0


def test_returns_repeat_and_differ_between_tasks_not_between_calls():
    first, second = (np.asarray(scoring.returns(ENV, "random", TASKS, KEYS)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) > 4


def test_scores_stop_at_the_domains_own_horizon():
    longer = Toy(num_turns=2, num_periods=5)
    one = jax.tree.map(lambda x: x[None], longer.task(3.0, 0.0))
    act = [policies.policy(env, "heuristic", tasks) for env, tasks in ((ENV, TASKS), (longer, one))]

    def both(seen, states, key):
        return tuple(f((o,), (s,), (), key)[0][0] for f, o, s in zip(act, seen, states, strict=True))

    @jax.jit
    def play(keys):
        return rollout((ENV, longer), (TASKS, one), keys, both, KEYS[0, 0], record=scoring.score_reward)

    (short, _), _ = play((KEYS, KEYS[:1]))
    assert short.shape == (longer.horizon, 4, 3)
    np.testing.assert_allclose(short.sum(0)[:, 0], P * (NET + 1), rtol=1e-5, atol=1e-5)


def test_a_heuristic_remembers_within_an_episode_and_starts_anew():
    env = RememberingToy(num_turns=2, num_periods=3)
    expected = np.broadcast_to((P - 1) * (NET + 1)[:, None], (4, 3))
    np.testing.assert_allclose(scoring.returns(env, "heuristic", TASKS, KEYS), expected, rtol=1e-5, atol=1e-5)
    together = scoring.reference_episodes(env, TASKS, KEYS)
    np.testing.assert_allclose(together.heuristic, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(together.reference[:, 0], REFERENCE, rtol=1e-5, atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown policy 'best'; known: random, noop, urgent, heuristic, average, ref"):
        policies.policy(ENV, "best", TASKS)
    with pytest.raises(ValueError, match=r"'average' needs a population"):
        policies.policy(ENV, "average", TASKS)
