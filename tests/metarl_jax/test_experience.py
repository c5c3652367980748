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
from tests.envs_jax.toys import Toy, ToyParams

TASKS, EPISODES, COUNT = 2, 3, 200
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
    scale: xp.RewardScale


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    env, longer = AnywhereToy(num_turns=2, num_periods=4), Toy(num_turns=3, num_periods=5, num_actions=4)
    suite = Suite.of((env, longer), ("short", "long"))
    tasks = tuple(jax.tree.map(lambda *x: jnp.stack(x), e.task(2.0, 0.5), e.task(1.0, 0.0)) for e in suite.envs)
    keys = suite.episode_keys(jax.random.key(1), TASKS, EPISODES)

    @jax.jit
    def program() -> Any:
        record = lambda d, step: xp.Episodes.of(step)  # noqa: E731
        episodes, finals = rollout(suite.envs, tasks, keys, suite.random_act, jax.random.key(2), record)
        return episodes[0], finals[0]

    episodes, final = jax.device_get(program())
    return Recorded(suite, env, episodes, final, xp.RewardScale(jnp.float32(MEAN), jnp.float32(SD)))


def normalised(recorded: Recorded) -> np.ndarray:
    """``[B, K, P]`` by loops; the reward of a period arrives on its last turn."""
    env, reward = recorded.env, recorded.episodes.reward
    result = np.zeros((TASKS, EPISODES, env.num_periods))
    for b in range(TASKS):
        for k in range(EPISODES):
            for p in range(env.num_periods):
                paid = sum(reward[p * env.num_turns + i, b, k] for i in range(env.num_turns))
                result[b, k, p] = 0.2 * (paid - MEAN) / SD
    return result


def test_recording_goes_on_beyond_the_shorter_horizon(recorded: Recorded) -> None:
    assert recorded.episodes.reward.shape == (recorded.suite.horizon, TASKS, EPISODES)
    assert recorded.env.horizon < recorded.suite.horizon
    assert np.ptp(normalised(recorded)) > 0.1


def test_periods(recorded: Recorded) -> None:
    suite, env, episodes, final, scale = recorded
    seen = jax.device_get(jax.jit(lambda e, f: xp.periods(suite, env, e, f, scale))(episodes, final))
    reward = normalised(recorded)
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


def time_of(episodes: xp.Episodes, env: Toy, b: int, k: int, observation: Observation) -> int:
    """The choice at which something was seen: tokens show turn and progress, so they never repeat in an episode."""
    tokens = episodes.observation.tokens[: env.horizon, b, k]
    (at,) = np.flatnonzero((tokens == observation.tokens[: env.num_tokens]).all((1, 2)))
    return int(at)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 6])
def test_transitions(recorded: Recorded, num_steps: int) -> None:
    suite, env, episodes, _, scale = recorded
    key = jax.random.key(3)
    program = jax.jit(lambda e: xp.transitions(suite, env, e, scale, key, COUNT, num_steps))
    sampled = jax.device_get(program(episodes))
    reward, gamma = normalised(recorded), env.discount_factor
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
    """Of both domains: the second with the first's episodes, so that nothing more need be compiled."""
    suite = Suite.of((recorded.env, recorded.env), ("one", "other"))

    @jax.jit
    def program(episodes: xp.Episodes, final: Observation) -> xp.Support:
        two = 2 * [episodes], 2 * [final], 2 * [recorded.scale]
        return xp.support(suite, *two, jax.random.key(4), 2, 2)

    return program(recorded.episodes, recorded.final)


def test_support_joins_the_domains(support: xp.Support) -> None:
    assert support.periods.valid.shape == (2 * TASKS, EPISODES, 4)
    assert support.transitions.weight.shape == (2 * TASKS, EPISODES, 2)
    halves = [jax.tree.map(lambda leaf, at=at: leaf[at], support) for at in (slice(0, TASKS), slice(TASKS, None))]
    chex.assert_trees_all_equal(halves[0].periods, halves[1].periods)
    assert np.any(halves[0].transitions.reward != halves[1].transitions.reward), "domains share sampling noise"


@pytest.mark.parametrize("episodes", [0, 1, 2, 3, 5])
def test_first_masks_the_other_episodes(support: xp.Support, episodes: int) -> None:
    task = jax.tree.map(lambda leaf: leaf[0], support)
    kept = jax.jit(xp.Support.first)(task, jnp.int32(episodes))
    expected = np.arange(EPISODES) < episodes
    np.testing.assert_array_equal(kept.periods.valid, np.broadcast_to(expected[:, None], (EPISODES, 4)))
    np.testing.assert_array_equal(kept.transitions.weight, np.broadcast_to(expected[:, None], (EPISODES, 2)))
    chex.assert_trees_all_equal(kept.periods.tokens, task.periods.tokens)
