"""Rewards as learners see them, against plain Python loops on random records."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import TOKEN_COLUMNS, Observation
from envs_jax.suite import Suite
from metarl_jax import rewards
from metarl_jax.recording import Recorder, empty_support
from metarl_jax.rewards import UNKNOWN_SCALE, prepare_support
from metarl_jax.types import PeriodHistory, RewardScale, Support, Trajectory
from tests.envs_jax.toys import Toy
from tests.metarl_jax import small

TASKS, EPISODES, PERIODS, TURNS, SAMPLES = 2, 3, 2, 2, 4
LENGTH = TURNS * PERIODS + 1  # the last choice does not exist
MEAN, SD = 1.5, 2.5
LAST_REWARD = TOKEN_COLUMNS.index("last_reward")
PREPARE = jax.jit(prepare_support)


def seen(rng: np.random.Generator, *batch: int) -> Observation:
    return small.observations(rng, *batch)


@pytest.fixture(scope="module")
def support() -> Support:
    """A support ``[B, K, ...]`` with everything in it; the last period of the second episode is not to be used."""
    rng = np.random.default_rng(0)
    each = (TASKS, EPISODES)

    def numbers(*shape: int) -> chex.Array:
        return jnp.asarray(3.0 + 2.0 * rng.normal(size=shape), jnp.float32)

    paid = jnp.arange(LENGTH) % TURNS == TURNS - 1
    trajectory = Trajectory(
        observation=seen(rng, *each, LENGTH),
        action=jnp.zeros((*each, LENGTH), jnp.int32),
        reward=jnp.where(paid, numbers(*each, LENGTH), 0.0),
        discount=jnp.ones((*each, LENGTH)),
        period_end=jnp.broadcast_to(paid, (*each, LENGTH)),
        reference=jnp.zeros((*each, LENGTH), jnp.int32),
        valid=jnp.broadcast_to(jnp.arange(LENGTH) < LENGTH - 1, (*each, LENGTH)),
        final=seen(rng, *each),
    )
    one = small.history(rng, EPISODES)
    history = PeriodHistory(
        tokens=jnp.stack([one.tokens] * TASKS),
        token_mask=jnp.stack([one.token_mask] * TASKS),
        decisions=jnp.stack([one.decisions] * TASKS),
        reward=numbers(*each, PERIODS),
        valid=jnp.ones((*each, PERIODS), bool).at[:, 1, 1].set(False),
    )
    transitions = small.transitions(rng, *each, SAMPLES).replace(span=jnp.abs(numbers(*each, SAMPLES)))
    return jax.device_get(Support(history, transitions, trajectory))


def scales_by_loops(support: Support, episodes: int) -> list[tuple[float, float]]:
    """Mean and standard deviation of each task's used periods."""
    result = []
    for b in range(TASKS):
        used = [
            float(support.history.reward[b, k, p])
            for k in range(episodes)
            for p in range(PERIODS)
            if support.history.valid[b, k, p]
        ]
        mean = sum(used) / len(used)
        result.append((mean, (sum((x - mean) ** 2 for x in used) / len(used)) ** 0.5))
    return result


def test_reward_scale_by_hand() -> None:
    scale = RewardScale(jnp.float32(10.0), jnp.float32(4.0))
    np.testing.assert_allclose(scale.normalise(jnp.array([10.0, 14.0, 2.0])), [0.0, 0.2, -0.4])
    # Three periods, discounted to 2.5: the mean is taken off for each.
    np.testing.assert_allclose(scale.normalise(jnp.float32(45.0), 2.5), 0.2 * (45.0 - 25.0) / 4.0)
    constant = RewardScale(jnp.float32(1.0), jnp.float32(0.0))
    assert constant.normalise(jnp.float32(1.0)) == 0.0


def test_calibration_is_mean_and_deviation_of_all_used_periods(support: Support) -> None:
    scale = jax.jit(rewards.calibrate)(support.history)
    used = [x for x, valid in zip(support.history.reward.flat, support.history.valid.flat, strict=True) if valid]
    assert len(used) == TASKS * (EPISODES * PERIODS - 1)
    np.testing.assert_allclose([scale.mean, scale.sd], [np.mean(used), np.std(used)], rtol=1e-5)


@pytest.mark.parametrize("known", [True, False], ids=["trained on", "unseen"])
@pytest.mark.parametrize("episodes", [1, 2, 3])
def test_prepare_support(support: Support, known: bool, episodes: int) -> None:
    """Every reward by loops: a domain's scale, or that of the task's own first episodes and nothing else."""
    scale = RewardScale(jnp.float32(MEAN), jnp.float32(SD)) if known else UNKNOWN_SCALE
    prepared = jax.device_get(PREPARE(support, scale, jnp.full(TASKS, episodes), jnp.bool_(False)))
    own = [(MEAN, SD)] * TASKS if known else scales_by_loops(support, episodes)
    assert known or abs(own[0][0] - own[1][0]) > 1e-3, "the tasks' own scales are alike"
    close = {"rtol": 2e-4, "atol": 2e-5}
    for b, (mean, sd) in enumerate(own):
        for k in range(EPISODES):
            for p in range(PERIODS):
                usable = bool(support.history.valid[b, k, p])
                expected = 0.2 * (support.history.reward[b, k, p] - mean) / sd if usable else 0.0
                np.testing.assert_allclose(prepared.history.reward[b, k, p], expected, **close)
                assert prepared.history.valid[b, k, p] == (usable and k < episodes)
            raw, batch = (jax.tree.map(lambda leaf, at=(b, k): leaf[at], s.transitions) for s in (support, prepared))
            for i in range(SAMPLES):
                np.testing.assert_allclose(batch.immediate[i], 0.2 * (raw.immediate[i] - mean) / sd, **close)
                several = 0.2 * (raw.reward[i] - mean * raw.span[i]) / sd  # once for every period it adds up
                np.testing.assert_allclose(batch.reward[i], several, **close)
                assert batch.weight[i] == (k < episodes)
            for t in range(LENGTH):
                reward = support.trajectory.reward[b, k, t]
                # The mean is taken off on a period's last turn only: twenty turns would subtract it twenty times.
                paid = t % TURNS == TURNS - 1 and t < LENGTH - 1
                expected = 0.2 * (reward - mean) / sd if paid else 0.0
                np.testing.assert_allclose(prepared.trajectory.reward[b, k, t], expected, **close)
                assert prepared.trajectory.valid[b, k, t] == (t < LENGTH - 1 and k < episodes)
    for part in ("transitions", "trajectory"):
        chex.assert_trees_all_equal(getattr(prepared, part).observation, getattr(support, part).observation)
    chex.assert_trees_all_equal(prepared.history.tokens, support.history.tokens)


def test_tasks_may_be_given_different_numbers_of_episodes(support: Support) -> None:
    together = PREPARE(support, UNKNOWN_SCALE, jnp.array([1, 3]), jnp.bool_(False))
    for b, episodes in enumerate((1, 3)):
        alone = PREPARE(support, UNKNOWN_SCALE, jnp.full(TASKS, episodes), jnp.bool_(False))
        chex.assert_trees_all_equal(*(jax.tree.map(lambda leaf, b=b: leaf[b], s) for s in (together, alone)))


def test_zero_removes_rewards_everywhere_and_nothing_else(support: Support) -> None:
    every, scale = jnp.full(TASKS, EPISODES), RewardScale(jnp.float32(MEAN), jnp.float32(SD))
    own, zero = (jax.device_get(PREPARE(support, scale, every, jnp.bool_(flag))) for flag in (False, True))

    def rewards_of(support: Support) -> dict[str, Any]:
        batch, trajectory = support.transitions, support.trajectory
        tokens = {
            "history": support.history.tokens,
            "observation": batch.observation.tokens,
            "next": batch.next_observation.tokens,
            "trajectory": trajectory.observation.tokens,
            "final": trajectory.final.tokens,
        }
        shown = {name: leaf[..., LAST_REWARD] for name, leaf in tokens.items()}
        paid = {"periods": support.history.reward, "n-step": batch.reward, "immediate": batch.immediate}
        return shown | paid | {"choices": trajectory.reward}

    for name, leaf in rewards_of(own).items():
        assert np.any(leaf), f"{name}: there is nothing to remove"
    for name, leaf in rewards_of(zero).items():
        assert not np.any(leaf), name

    def blank(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if name.endswith("tokens"):
            return np.delete(leaf, LAST_REWARD, axis=-1)
        return None if name.endswith(("reward", "immediate")) else leaf

    rest = [jax.tree_util.tree_map_with_path(blank, support) for support in (own, zero)]
    assert len(jax.tree.leaves(rest[0])) == len(jax.tree.leaves(own)) - 4
    chex.assert_trees_all_equal(*rest)


def test_from_no_support_everything_stays_finite() -> None:
    nothing = empty_support(Suite.of((Toy(),)), Recorder(64, samples=2, ordered=True), 2, 2)
    prepared = PREPARE(nothing, UNKNOWN_SCALE, jnp.zeros(2, jnp.int32), jnp.bool_(False))
    chex.assert_tree_all_finite(prepared)
