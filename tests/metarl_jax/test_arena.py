"""A domain's two programs do for every player what is asked, and nothing is compiled twice for it."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import TOKEN_COLUMNS, Observation
from envs_jax.suite import Suite
from metarl_jax import arena
from metarl_jax.arena import Arena, Conduct, Who
from metarl_jax.configs import QLearningConfig
from metarl_jax.lanes import place
from tests.metarl_jax import probes

LANES, TASKS, EPISODES = 2, 3, 4
DATA = QLearningConfig(tasks=TASKS, episodes=EPISODES, samples=8, periods=3, num_steps=1)
SUITE = Suite.of((probes.Match(), probes.Choice()))
SHOWN = TOKEN_COLUMNS.index("signal_a")


def constant(shared: Any, policy: Any, seen: Observation, key: chex.PRNGKey, epsilon: chex.Numeric) -> chex.Array:
    """Plays the task's action, or what the lane adds to it, and explores by choosing the other one."""
    del key
    chosen = (policy + shared) % 2
    return jnp.broadcast_to(jnp.where(epsilon > 0, 1 - chosen, chosen), seen.token_mask.shape[:-1]).astype(jnp.int32)


@pytest.fixture(scope="module")
def match() -> Arena:
    return arena.make(SUITE, "match", constant, DATA, LANES)


def play(match: Arena, who: Who, epsilon: float = 0.0, labelled: bool = False) -> Any:
    keys = place(jax.random.split(jax.random.key(1), (LANES, TASKS, EPISODES)), LANES)
    own = place(jax.random.split(jax.random.key(2), LANES), LANES)
    shared = place(jnp.arange(LANES), LANES)
    policies = place(jnp.tile(jnp.arange(TASKS) % 2, (LANES, 1)), LANES)
    tasks, plans = match.draw(keys[:, :, 0])
    conduct = Conduct.of(who, epsilon, labelled)
    return jax.device_get(match.play(shared, policies, tasks, plans, keys, own, conduct))


def test_every_player_is_recorded_as_it_plays(match: Arena) -> None:
    played = {who: play(match, who, labelled=True) for who in arena.PLAYERS}
    for who, one in played.items():
        batch = one.support.transitions
        assert batch.action.shape == (LANES, TASKS, EPISODES, DATA.samples)
        best = (batch.observation.tokens[..., 0, SHOWN] > 0).astype(int)
        np.testing.assert_array_equal(batch.reference, best, err_msg=f"{who}: the label is the reference's choice")
        np.testing.assert_array_equal(batch.immediate, batch.action == best, err_msg=who)
        expected = {"reference": best, "noop": np.zeros_like(best), "heuristic": np.zeros_like(best)}.get(who)
        if expected is not None:
            np.testing.assert_array_equal(batch.action, expected, err_msg=who)
    np.testing.assert_array_equal(played["reference"].score, probes.Match.num_periods)
    assert set(np.unique(played["random"].support.transitions.action)) == {0, 1}
    own = (np.arange(TASKS) % 2)[None, :] + np.arange(LANES)[:, None]
    np.testing.assert_array_equal(
        played["learner"].support.transitions.action,
        np.broadcast_to((own % 2)[:, :, None, None], (LANES, TASKS, EPISODES, DATA.samples)),
        err_msg="lanes have learners of their own, tasks policies of their own",
    )


def test_exploration_is_the_learners_business(match: Arena) -> None:
    greedy, other = (play(match, "learner", epsilon).support.transitions for epsilon in (0.0, 0.5))
    np.testing.assert_array_equal(other.action, 1 - greedy.action)
    np.testing.assert_array_equal(play(match, "random", 0.0).score, play(match, "random", 0.5).score)


def test_without_a_label_nothing_of_the_reference_is_told(match: Arena) -> None:
    batch = play(match, "random").support.transitions
    np.testing.assert_array_equal(batch.reference, 0)


def test_players_meet_the_same_noise(match: Arena) -> None:
    shown = [play(match, who).support.transitions.observation.tokens[..., SHOWN] for who in ("random", "heuristic")]
    np.testing.assert_array_equal(*shown)


def test_all_players_share_one_program(match: Arena) -> None:
    for who in arena.PLAYERS:
        play(match, who, 0.1, labelled=who == "learner")
    assert match.play._cache_size() == 1  # type: ignore[attr-defined]
    again = arena.make(SUITE, "match", constant, DATA, LANES)
    assert again.play is match.play
    assert again.draw is match.draw
