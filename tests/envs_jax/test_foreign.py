"""Tasks of the meta-learning literature against exact optima, closed forms and recomputed figures."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import policies
from envs_jax.adapters import GymnaxTask
from envs_jax.environment import ResourceEnv
from envs_jax.foreign import BernoulliBandit, GridNavigation, PointNavigation
from envs_jax.foreign.bandits import bayes_optimum
from envs_jax.foreign.grid_navigation import GOALS, NEAR, GridParams
from envs_jax.foreign.point_navigation import STEPS
from envs_jax.rollout import recurrent_rollout


def played(env: ResourceEnv, policy: policies.PolicyName, tasks: Any, key: int = 0) -> dict[str, np.ndarray]:
    """One episode of each of B tasks: expected and realised rewards, positions and choices, ``[T, B]``."""
    count = jax.tree.leaves(tasks)[0].shape[0]

    @jax.jit
    def run(tasks: Any, keys: Any) -> Any:
        act = policies.policy(env, policy, tasks)
        carry = policies.memory(env, count, 1)

        def record(_: int, step: Any) -> Any:
            return {"expected": step.info["expected_reward"], "reward": step.reward, "action": step.action}

        (recorded,), _, _ = recurrent_rollout((env,), (tasks,), (keys,), act, carry, jax.random.key(key), record)
        return recorded

    keys = jax.random.split(jax.random.key(key + 1), (count, 1))
    return {name: np.asarray(leaf)[..., 0] for name, leaf in run(tasks, keys).items()}


def sampled(env: ResourceEnv, count: int) -> Any:
    return jax.vmap(env.sample_params)(jax.random.split(jax.random.key(3), count))


def test_exact_optimum_of_bandits() -> None:
    assert bayes_optimum(1, 5) == pytest.approx(0.5)
    # Two pulls: after a payment the same arm pays with 2/3, after none a new one with 1/2.
    assert bayes_optimum(2, 2) == pytest.approx(0.5 + 0.5 * 2 / 3 + 0.5 * 0.5)
    assert bayes_optimum(10, 5) == pytest.approx(6.660, abs=5e-4)
    assert bayes_optimum(10, 10) == pytest.approx(6.714, abs=5e-4)
    assert bayes_optimum(10, 12) == pytest.approx(bayes_optimum(10, 10))


def test_thompson_sampling_and_the_best_arm_earn_what_is_known() -> None:
    env = BernoulliBandit(100, 5)
    tasks = sampled(env, 512)
    best = np.asarray(tasks.probabilities).max(-1)
    by_thompson = played(env, "heuristic", tasks)
    regret = 100 * best - by_thompson["expected"].sum(0)
    error = float(regret.std(ddof=1)) / math.sqrt(len(regret))
    assert error < 0.25
    assert regret.mean() == pytest.approx(100 * 5 / 6 - 74.95, abs=3 * error)  # the best of five arms pays 5/6
    paid = (by_thompson["reward"] - by_thompson["expected"]).mean()
    assert abs(paid) < 3 * 0.5 / math.sqrt(by_thompson["reward"].size)
    assert set(np.unique(by_thompson["reward"])) == {0.0, 1.0}


def test_the_best_arm_is_the_reference_and_nothing_on_show_tells_it() -> None:
    env = BernoulliBandit(3, 4)
    tasks = sampled(env, 64)
    np.testing.assert_allclose(
        played(env, "reference", tasks)["expected"], np.tile(np.asarray(tasks.probabilities).max(-1), (3, 1)), rtol=1e-6
    )
    seen = jax.vmap(lambda task: env.reset_env(jax.random.key(0), task)[0])(tasks)
    assert all(np.ptp(np.asarray(leaf), axis=0).max() == 0 for leaf in jax.tree.leaves(seen) if leaf.dtype != bool)


def test_grid_navigation_by_hand() -> None:
    env = GridNavigation()
    assert len(GOALS) == 21
    goals = jnp.array(GOALS, jnp.int32)
    tasks = GridParams(jnp.full(21, env.horizon, jnp.int32), goals)
    known = played(env, "reference", tasks)["reward"].sum(0)
    distance = np.array(GOALS).sum(-1)
    np.testing.assert_allclose(known, (16 - distance) - 0.1 * (distance - 1), rtol=1e-5)
    assert known.mean() == pytest.approx(11.071, abs=5e-4)
    # Of 15 steps the first enters no goal; each of the others at most one new one.
    bound = sum(17.6 - 1.1 * step for step in range(2, 16)) / 21 - 1.5
    assert bound == pytest.approx(4.0)
    assert played(env, "heuristic", tasks)["reward"].sum(0).mean() == pytest.approx(bound, rel=1e-5)
    assert played(env, "noop", tasks)["reward"].sum(0) == pytest.approx(-1.5)


def test_grid_navigation_stays_within_its_edges_and_draws_every_goal() -> None:
    env = GridNavigation()
    drawn = {tuple(goal) for goal in np.asarray(sampled(env, 400).goal)}
    assert drawn == set(GOALS)
    assert not drawn & set(NEAR)

    @jax.jit
    def walked(action: Any) -> Any:
        step = lambda state, _: (env.step_env(state.key, state, action, env.default_params)[1], None)  # noqa: E731
        return jax.lax.scan(step, env.reset_env(jax.random.key(0), env.default_params)[1], None, 6)[0].position

    ends = [tuple(np.asarray(walked(jnp.int32(action)))) for action in range(5)]
    assert ends == [(0, 0), (0, 4), (4, 0), (0, 0), (0, 0)]


def test_point_navigation_against_closed_forms() -> None:
    env = PointNavigation()
    tasks = sampled(env, 400)
    goals = np.asarray(tasks.goal)
    assert np.abs(goals).max() <= 0.5
    stay = played(env, "noop", tasks)["reward"].sum(0)
    np.testing.assert_allclose(stay, -100 * np.linalg.norm(goals, axis=-1), rtol=1e-4)
    # The mean distance from the centre of a unit square is (sqrt 2 + arsinh 1) / 6.
    expected = -100 * (math.sqrt(2) + math.asinh(1.0)) / 6
    assert expected == pytest.approx(-38.26, abs=5e-3)
    assert stay.mean() == pytest.approx(expected, abs=3 * float(stay.std()) / math.sqrt(len(stay)))

    # Nearest that any t moves can bring one coordinate: no sequence is nearer at any time, so the reference is optimal.
    nearest = np.full((env.horizon + 1, *goals.shape), np.inf)
    for tens, fifths in itertools.product(range(-6, 7), range(-6, 7)):
        moves = abs(tens) + abs(fifths)
        nearest[moves:] = np.minimum(nearest[moves:], np.abs(0.1 * tens + 0.02 * fifths - goals))
    best = -np.linalg.norm(nearest[1:], axis=-1)
    np.testing.assert_allclose(played(env, "reference", tasks)["reward"], best, atol=2e-5)
    assert best.sum(0).mean() == pytest.approx(-1.275, abs=0.07)

    coarse = np.full((env.horizon + 1, *goals.shape), np.inf)  # the nine moves of .1 alone
    for tens in range(-6, 7):
        coarse[abs(tens) :] = np.minimum(coarse[abs(tens) :], np.abs(0.1 * tens - goals))
    assert -np.linalg.norm(coarse[1:], axis=-1).sum(0).mean() == pytest.approx(-4.2, abs=0.15)
    assert max(STEPS) == 0.1


def test_sizes_that_have_no_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="arms"):
        BernoulliBandit(10, 1)
    with pytest.raises(ValueError, match="pulls"):
        BernoulliBandit(0, 5)
    with pytest.raises(ValueError, match="num_periods"):
        PointNavigation(0)
    with pytest.raises(ValueError, match="sticky must be at least 0 and below 1, got 1"):
        GymnaxTask("CartPole-v1", sticky=1.0)


def test_sticky_actions_repeat_the_action_carried_out_before() -> None:
    env = GymnaxTask("Breakout-MinAtar", num_periods=400, sticky=0.25, use_minimal_action_set=False)
    assert (env.num_actions, env.num_token_features) == (6, 400)
    params = env.default_params

    @jax.jit
    def run(key: Any) -> Any:
        def step(state: Any, chosen: Any) -> Any:
            following, *_, info = env.step_env(state.key, state, chosen, params)[1:]
            return following, (state.before, following.action, info["discount"])

        chosen = jnp.arange(env.horizon, dtype=jnp.int32) % 6
        return (chosen, *jax.lax.scan(step, env.reset_env(key, params)[1], chosen)[1])

    chosen, before, carried_out, discount = (np.asarray(leaf) for leaf in run(jax.random.key(0)))
    repeated = carried_out == before
    assert np.all(repeated | (carried_out == chosen))
    differs = chosen != before
    assert repeated[differs].mean() == pytest.approx(0.25, abs=3 * math.sqrt(0.25 * 0.75 / differs.sum()))
    ended = np.flatnonzero(discount[:-1] == 0)
    assert len(ended)
    assert np.all(before[ended + 1] == 0), "an episode begins without an action before it"
