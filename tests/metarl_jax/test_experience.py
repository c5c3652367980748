"""Support periods and n-step transitions of recorded toy episodes, against plain Python loops."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import Observation
from envs_jax.suite import Suite, rollout
from metarl_jax import experience as xp
from metarl_jax.configs import QLearningConfig
from tests.envs_jax.toys import Toy, ToyParams

TASKS, EPISODES, COUNT = 2, 3, 200
KEY = jax.random.key(9)
MEAN, SD = 1.5, 2.5


class AnywhereToy(Toy):
    """Its first action concerns no entity."""

    def observation(self, state: Any, params: ToyParams) -> Observation:
        seen = super().observation(state, params)
        return seen.replace(action_target=seen.action_target.at[0].set(-1))


class Recorded(NamedTuple):
    suite: Suite
    env: Toy
    episodes: xp.Episodes  # of the shorter domain, recorded beside a longer one
    final: Observation


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    env, longer = AnywhereToy(num_turns=2, num_periods=4), Toy(num_turns=3, num_periods=5, num_actions=4)
    suite = Suite.of((env, longer), ("short", "long"))
    tasks = tuple(jax.tree.map(lambda *x: jnp.stack(x), e.task(2.0, 0.5), e.task(1.0, 0.0)) for e in suite.envs)
    keys = suite.episode_keys(jax.random.key(1), TASKS, EPISODES)

    @jax.jit
    def program() -> Any:
        record = lambda d, step: xp.Episodes(step.observation, step.action, step.reward, step.action)  # noqa: E731
        episodes, finals = rollout(suite.envs, tasks, keys, suite.random_act, jax.random.key(2), record)
        return episodes[0], finals[0]

    episodes, final = jax.device_get(program())
    return Recorded(suite, env, episodes, final)


def paid_by_period(recorded: Recorded) -> np.ndarray:
    """``[B, K, P]`` by loops; the reward of a period arrives on its last turn."""
    env, reward = recorded.env, recorded.episodes.reward
    result = np.zeros((TASKS, EPISODES, env.num_periods))
    for b in range(TASKS):
        for k in range(EPISODES):
            for p in range(env.num_periods):
                result[b, k, p] = sum(reward[p * env.num_turns + i, b, k] for i in range(env.num_turns))
    return result


def test_recording_goes_on_beyond_the_shorter_horizon(recorded: Recorded) -> None:
    assert recorded.episodes.reward.shape == (recorded.suite.horizon, TASKS, EPISODES)
    assert recorded.env.horizon < recorded.suite.horizon
    assert np.ptp(paid_by_period(recorded)) > 0.1


def test_periods(recorded: Recorded) -> None:
    suite, env, episodes, final = recorded
    program = jax.jit(lambda e, f: xp.periods(suite, env, e, f, KEY, suite.num_periods))
    seen = jax.device_get(program(episodes, final))
    reward = paid_by_period(recorded)
    assert seen.tokens.shape[:4] == (TASKS, EPISODES, suite.num_periods + 1, suite.num_tokens)
    for b in range(TASKS):
        np.testing.assert_array_equal(seen.token_mask[b], [True, True, False])
        for k in range(EPISODES):
            np.testing.assert_array_equal(seen.valid[b, k], [True] * 4 + [False])
            np.testing.assert_allclose(seen.reward[b, k, :4], reward[b, k], rtol=1e-5)
            for p in range(env.num_periods):
                start = p * env.num_turns
                np.testing.assert_array_equal(
                    seen.tokens[b, k, p, : env.num_tokens], episodes.observation.tokens[start, b, k]
                )
                decisions = np.zeros((suite.num_tokens, seen.decisions.shape[-1]))
                for t in range(start, start + env.num_turns):
                    action = episodes.action[t, b, k]
                    target = episodes.observation.action_target[t, b, k, action]
                    # An action that concerns no entity is told to all of them.
                    for token in range(env.num_tokens) if target < 0 else (target,):
                        decisions[token] += episodes.observation.actions[t, b, k, action]
                np.testing.assert_allclose(seen.decisions[b, k, p], decisions, rtol=1e-6)
            np.testing.assert_array_equal(seen.tokens[b, k, env.num_periods, : env.num_tokens], final.tokens[b, k])
    # What pads is zero.
    assert not np.any(seen.tokens[:, :, :, env.num_tokens :])
    assert not np.any(seen.tokens[:, :, env.num_periods + 1 :])
    assert not np.any(seen.decisions[:, :, env.num_periods :])
    assert not np.any(seen.reward[:, :, env.num_periods :])


def test_of_a_long_episode_a_random_stretch_is_kept(recorded: Recorded) -> None:
    suite, env, episodes, final = recorded
    length = 2
    whole = jax.device_get(jax.jit(lambda e, f: xp.periods(suite, env, e, f, KEY, env.num_periods))(episodes, final))
    program = jax.jit(lambda e, f, key: xp.periods(suite, env, e, f, key, length))
    starts = set()
    for seed in range(12):
        cut = jax.device_get(program(episodes, final, jax.random.key(seed)))
        assert cut.valid.all()
        for b in range(TASKS):
            for k in range(EPISODES):
                fits = [
                    at
                    for at in range(env.num_periods - length + 1)
                    if np.array_equal(cut.tokens[b, k], whole.tokens[b, k, at : at + length + 1])
                ]
                (at,) = fits  # tokens show progress, so they never repeat
                starts.add(at)
                np.testing.assert_array_equal(cut.decisions[b, k], whole.decisions[b, k, at : at + length])
                np.testing.assert_array_equal(cut.reward[b, k], whole.reward[b, k, at : at + length])
    assert starts == set(range(env.num_periods - length + 1))


def time_of(episodes: xp.Episodes, env: Toy, b: int, k: int, observation: Observation) -> int:
    """The choice at which something was seen: tokens show turn and progress, so they never repeat in an episode."""
    tokens = episodes.observation.tokens[: env.horizon, b, k]
    (at,) = np.flatnonzero((tokens == observation.tokens[: env.num_tokens]).all((1, 2)))
    return int(at)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 6])
def test_transitions(recorded: Recorded, num_steps: int) -> None:
    suite, env, episodes, _ = recorded
    key = jax.random.key(3)
    program = jax.jit(lambda e: xp.transitions(suite, env, e, key, COUNT, num_steps))
    sampled = jax.device_get(program(episodes))
    reward, gamma = paid_by_period(recorded), env.discount_factor
    assert sampled.action.shape == (TASKS, EPISODES, COUNT)
    met = set()
    for b in range(TASKS):
        for k in range(EPISODES):
            for i in range(COUNT // (TASKS * EPISODES)):
                one = jax.tree.map(lambda leaf, at=(b, k, i): leaf[at], sampled)
                time = time_of(episodes, env, b, k, one.observation)
                met.add(time)
                period, later = time // env.num_turns, time + num_steps * env.num_turns
                ahead = range(period, min(period + num_steps, env.num_periods))
                np.testing.assert_allclose(
                    one.reward, sum(gamma ** (q - period) * reward[b, k, q] for q in ahead), 1e-5
                )
                np.testing.assert_allclose(one.span, sum(gamma ** (q - period) for q in ahead), 1e-6)
                np.testing.assert_allclose(one.immediate, reward[b, k, period], rtol=1e-5)
                assert one.action == one.reference == episodes.action[time, b, k]
                assert one.weight == 1
                assert one.observation.action_mask[one.action]
                np.testing.assert_array_equal(one.observation.token_mask, [True, True, False])
                np.testing.assert_array_equal(one.observation.action_mask[env.num_actions :], False)
                if later < env.horizon:
                    np.testing.assert_allclose(one.discount, gamma**num_steps, rtol=1e-6)
                    assert time_of(episodes, env, b, k, one.next_observation) == later
                else:
                    assert one.discount == 0, "nothing is bootstrapped beyond the horizon"
    assert met == set(range(env.horizon)), "every choice of an episode can be sampled"


def test_reward_scale_by_hand() -> None:
    scale = xp.RewardScale(jnp.float32(10.0), jnp.float32(4.0))
    np.testing.assert_allclose(scale.normalise(jnp.array([10.0, 14.0, 2.0])), [0.0, 0.2, -0.4])
    constant = xp.RewardScale(jnp.float32(1.0), jnp.float32(0.0))
    assert constant.normalise(jnp.float32(1.0)) == 0.0


@pytest.fixture(scope="module")
def support(recorded: Recorded) -> xp.Support:
    suite, env, episodes, final = recorded

    @jax.jit
    def program(episodes: xp.Episodes, final: Observation) -> xp.Support:
        return xp.Support(
            xp.periods(suite, env, episodes, final, KEY, suite.num_periods),
            xp.transitions(suite, env, episodes, KEY, 4, 2),
        )

    return jax.device_get(program(episodes, final))


def test_calibration_is_mean_and_deviation_of_all_periods(recorded: Recorded, support: xp.Support) -> None:
    scale, paid = jax.jit(xp.calibrate)(support), paid_by_period(recorded)
    np.testing.assert_allclose([scale.mean, scale.sd], [paid.mean(), paid.std()], rtol=1e-5)


def test_rewards_are_normalised_once_for_every_period_they_add_up(support: xp.Support) -> None:
    scale = xp.RewardScale(jnp.float32(MEAN), jnp.float32(SD))
    every = jnp.full(TASKS, EPISODES)
    known = jax.device_get(jax.jit(xp.given)(support, scale, every, jnp.bool_(False)))
    batch, raw = known.transitions, support.transitions
    np.testing.assert_allclose(batch.immediate, 0.2 * (raw.immediate - MEAN) / SD, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.reward, 0.2 * (raw.reward - MEAN * raw.span) / SD, rtol=1e-5, atol=1e-6)
    expected = np.where(support.periods.valid, 0.2 * (support.periods.reward - MEAN) / SD, 0.0)
    np.testing.assert_allclose(known.periods.reward, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(batch.observation, raw.observation)


def test_experience_joins_the_query_episodes_of_a_task(support: xp.Support) -> None:
    scale = xp.RewardScale(jnp.float32(MEAN), jnp.float32(SD))
    made = jax.device_get(jax.jit(xp.Experience.of)(support, support, scale))
    assert made.query.weight.shape == (TASKS, EPISODES * 4)
    np.testing.assert_array_equal(made.query.action, support.transitions.action.reshape(TASKS, -1))
    used = made.support.periods.reward[support.periods.valid]
    np.testing.assert_allclose(made.reward, used.mean(), rtol=1e-5)
    nothing = jax.eval_shape(
        lambda: xp.no_experience(
            Suite.of((AnywhereToy(num_turns=2, num_periods=4), Toy(num_turns=3, num_periods=5, num_actions=4)), "ab"),
            QLearningConfig(tasks=TASKS, episodes=EPISODES, samples=4),
        )
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(nothing, made)


def test_from_no_support_everything_stays_finite() -> None:
    nothing = xp.no_support(Suite.of((AnywhereToy(),)), QLearningConfig(tasks=2, episodes=2, samples=2))
    known = xp.given(nothing, xp.UNKNOWN_SCALE, jnp.zeros(2, jnp.int32), jnp.bool_(False))
    chex.assert_tree_all_finite(known)


@pytest.mark.parametrize("episodes", [0, 1, 2, 3, 5])
def test_first_masks_the_other_episodes(support: xp.Support, episodes: int) -> None:
    task = jax.tree.map(lambda leaf: leaf[0], support)
    kept = jax.jit(xp.Support.first)(task, jnp.int32(episodes))
    expected = np.arange(EPISODES) < episodes
    np.testing.assert_array_equal(kept.periods.valid, expected[:, None] & task.periods.valid)
    np.testing.assert_array_equal(kept.transitions.weight, np.broadcast_to(expected[:, None], (EPISODES, 4)))
    chex.assert_trees_all_equal(kept.periods.tokens, task.periods.tokens)
