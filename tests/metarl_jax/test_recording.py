"""Histories, n-step transitions and trajectories of recorded toy episodes, against plain Python loops."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import policies
from envs_jax.observation import Observation
from envs_jax.rollout import Step, rollout
from envs_jax.suite import Suite
from metarl_jax import recording
from metarl_jax.recording import Outcome, Recorder
from metarl_jax.types import Support, Trajectory
from tests.envs_jax.toys import Toy, ToyParams

TASKS, EPISODES, COUNT = 2, 3, 200
KEY = jax.random.key(9)


class AnywhereToy(Toy):
    """Its first action concerns no entity."""

    def observation(self, state: Any, params: ToyParams) -> Observation:
        seen = super().observation(state, params)
        return seen.replace(action_target=seen.action_target.at[0].set(-1))


class WindowToy(AnywhereToy):
    """Its episodes are windows of longer ones."""

    horizon_terminates = False


class Recorded(NamedTuple):
    suite: Suite
    env: Toy
    played: Trajectory  # of the shorter domain, recorded beside a longer one


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    env, longer = AnywhereToy(num_turns=2, num_periods=4), Toy(num_turns=3, num_periods=5, num_actions=4)
    suite = Suite.of((env, longer), ("short", "long"))
    tasks = tuple(jax.tree.map(lambda *x: jnp.stack(x), e.task(2.0, 0.5), e.task(1.0, 0.0)) for e in suite.envs)
    keys = suite.episode_keys(jax.random.key(1), TASKS, EPISODES)

    def record(domain: int, step: Step) -> Trajectory:
        turns = suite.envs[domain].num_turns
        ends = jnp.broadcast_to(step.state.time % turns == turns - 1, step.action.shape)
        seen, discount = step.observation, step.info["discount"]
        return Trajectory(seen, step.action, step.reward, discount, ends, step.action, jnp.ones_like(ends), ())

    @jax.jit
    def program() -> Any:
        episodes, finals = rollout(suite.envs, tasks, keys, policies.random_act, jax.random.key(2), record)
        return episodes[0].replace(final=finals[0])

    return Recorded(suite, env, jax.device_get(program()))


def paid_by_period(recorded: Recorded) -> np.ndarray:
    """``[B, K, P]`` by loops; the reward of a period arrives on its last turn."""
    env, reward = recorded.env, recorded.played.reward
    result = np.zeros((TASKS, EPISODES, env.num_periods))
    for b in range(TASKS):
        for k in range(EPISODES):
            for p in range(env.num_periods):
                result[b, k, p] = sum(reward[p * env.num_turns + i, b, k] for i in range(env.num_turns))
    return result


def test_recording_goes_on_beyond_the_shorter_horizon(recorded: Recorded) -> None:
    assert recorded.played.reward.shape == (recorded.suite.horizon, TASKS, EPISODES)
    assert recorded.env.horizon < recorded.suite.horizon
    assert np.ptp(paid_by_period(recorded)) > 0.1


def test_period_history(recorded: Recorded) -> None:
    suite, env, played = recorded
    program = jax.jit(lambda e: recording.period_history(suite, env, e, KEY, suite.num_periods))
    seen = jax.device_get(program(played))
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
                    seen.tokens[b, k, p, : env.num_tokens], played.observation.tokens[start, b, k]
                )
                decisions = np.zeros((suite.num_tokens, seen.decisions.shape[-1]))
                for t in range(start, start + env.num_turns):
                    action = played.action[t, b, k]
                    target = played.observation.action_target[t, b, k, action]
                    # An action that concerns no entity is told to all of them.
                    for token in range(env.num_tokens) if target < 0 else (target,):
                        decisions[token] += played.observation.actions[t, b, k, action]
                np.testing.assert_allclose(seen.decisions[b, k, p], decisions, rtol=1e-6)
            last = played.final.tokens[b, k]
            np.testing.assert_array_equal(seen.tokens[b, k, env.num_periods, : env.num_tokens], last)
    # What pads is zero.
    assert not np.any(seen.tokens[:, :, :, env.num_tokens :])
    assert not np.any(seen.tokens[:, :, env.num_periods + 1 :])
    assert not np.any(seen.decisions[:, :, env.num_periods :])
    assert not np.any(seen.reward[:, :, env.num_periods :])


def test_of_a_long_episode_a_random_stretch_is_kept(recorded: Recorded) -> None:
    suite, env, played = recorded
    length = 2
    whole = jax.device_get(jax.jit(lambda e: recording.period_history(suite, env, e, KEY, env.num_periods))(played))
    program = jax.jit(lambda e, key: recording.period_history(suite, env, e, key, length))
    starts = set()
    for seed in range(12):
        cut = jax.device_get(program(played, jax.random.key(seed)))
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


def time_of(played: Trajectory, env: Toy, b: int, k: int, observation: Observation) -> int:
    """The choice at which something was seen: tokens show turn and progress, so they never repeat in an episode."""
    tokens = played.observation.tokens[: env.horizon, b, k]
    (at,) = np.flatnonzero((tokens == observation.tokens[: env.num_tokens]).all((1, 2)))
    return int(at)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 6])
def test_transitions(recorded: Recorded, num_steps: int) -> None:
    suite, env, played = recorded
    key = jax.random.key(3)
    program = jax.jit(lambda e: recording.transitions(suite, env, e, key, COUNT, num_steps))
    sampled = jax.device_get(program(played))
    reward, gamma = paid_by_period(recorded), env.discount_factor
    assert sampled.action.shape == (TASKS, EPISODES, COUNT)
    met = set()
    for b in range(TASKS):
        for k in range(EPISODES):
            for i in range(COUNT // (TASKS * EPISODES)):
                one = jax.tree.map(lambda leaf, at=(b, k, i): leaf[at], sampled)
                time = time_of(played, env, b, k, one.observation)
                met.add(time)
                period, later = time // env.num_turns, time + num_steps * env.num_turns
                ahead = range(period, min(period + num_steps, env.num_periods))
                np.testing.assert_allclose(
                    one.reward, sum(gamma ** (q - period) * reward[b, k, q] for q in ahead), 1e-5
                )
                np.testing.assert_allclose(one.span, sum(gamma ** (q - period) for q in ahead), 1e-6)
                np.testing.assert_allclose(one.immediate, reward[b, k, period], rtol=1e-5)
                assert one.action == one.reference == played.action[time, b, k]
                assert one.weight == 1
                assert one.observation.action_mask[one.action]
                np.testing.assert_array_equal(one.observation.token_mask, [True, True, False])
                np.testing.assert_array_equal(one.observation.action_mask[env.num_actions :], False)
                if later < env.horizon:
                    np.testing.assert_allclose(one.discount, gamma**num_steps, rtol=1e-6)
                    assert time_of(played, env, b, k, one.next_observation) == later
                else:
                    assert one.discount == 0, "nothing is bootstrapped beyond the horizon"
    assert met == set(range(env.horizon)), "every choice of an episode can be sampled"


@pytest.mark.parametrize("num_steps", [1, 3])
def test_transitions_of_windows_stop_at_terminations_and_bootstrap_past_the_horizon(
    recorded: Recorded, num_steps: int
) -> None:
    env, discount = WindowToy(num_turns=2, num_periods=4), np.array(recorded.played.discount)
    ended = 1  # the period after which another episode begins, in the first window of the first task
    discount[ended * env.num_turns + env.num_turns - 1, 0, 0] = 0.0
    played = recorded.played.replace(discount=discount)
    program = jax.jit(lambda e: recording.transitions(recorded.suite, env, e, KEY, COUNT, num_steps))
    sampled = jax.device_get(program(played))
    paid, gamma, met = paid_by_period(recorded), env.discount_factor, set()
    for b in range(TASKS):
        for k in range(EPISODES):
            for i in range(COUNT // (TASKS * EPISODES)):
                one = jax.tree.map(lambda leaf, at=(b, k, i): leaf[at], sampled)
                time = time_of(played, env, b, k, one.observation)
                start, later = time // env.num_turns, time + num_steps * env.num_turns
                total, weight = 0.0, 1.0
                for p in range(start, min(start + num_steps, env.num_periods)):
                    total += weight * paid[b, k, p]
                    weight *= 0.0 if (b, k, p) == (0, 0, ended) else gamma
                np.testing.assert_allclose(one.reward, total, rtol=1e-5, atol=1e-6)
                np.testing.assert_allclose(one.discount, weight, rtol=1e-6)
                after = played.observation.tokens[later, b, k] if later < env.horizon else played.final.tokens[b, k]
                np.testing.assert_array_equal(one.next_observation.tokens[: env.num_tokens], after)
                met.add((weight > 0, later < env.horizon))
    assert met >= {(True, True), (True, False), (False, True)}


def pad_by_loops(recorded: Recorded, b: int, k: int, ends: bool) -> dict[str, np.ndarray]:
    """One episode ``[L]`` of the suite's length: what is not there is zero, and does not exist."""
    suite, env, played = recorded
    rows: dict[str, list[Any]] = {name: [] for name in ("action", "reward", "discount", "period_end", "valid")}
    for t in range(suite.horizon):
        exists, last_turn = t < env.horizon, t % env.num_turns == env.num_turns - 1
        rows["valid"].append(exists)
        rows["action"].append(played.action[t, b, k] if exists else 0)
        rows["reward"].append(played.reward[t, b, k] if exists else 0.0)
        rows["period_end"].append(exists and last_turn)
        discount = env.discount_factor if last_turn else 1.0
        rows["discount"].append(0.0 if not exists or (ends and t == env.horizon - 1) else discount)
    return {name: np.asarray(row) for name, row in rows.items()}


@pytest.mark.parametrize(
    ("domain_terminates", "terminal"), [(True, True), (True, False), (False, True)], ids=["horizon", "trial", "window"]
)
def test_padded_trajectory(recorded: Recorded, domain_terminates: bool, terminal: bool) -> None:
    """Nothing counts after the horizon only where both the domain and the recorder say so."""
    suite, env, played = recorded
    env = env if domain_terminates else WindowToy(num_turns=env.num_turns, num_periods=env.num_periods)
    program = jax.jit(lambda e: recording.padded_trajectory(suite, env, e, terminal))
    padded = jax.device_get(program(played))
    assert padded.action.shape == (TASKS, EPISODES, suite.horizon)
    for b in range(TASKS):
        for k in range(EPISODES):
            for name, expected in pad_by_loops(recorded, b, k, domain_terminates and terminal).items():
                np.testing.assert_allclose(getattr(padded, name)[b, k], expected, rtol=1e-6, err_msg=name)
            np.testing.assert_array_equal(padded.reference[b, k], padded.action[b, k])
            for t in range(env.horizon):
                seen = jax.tree.map(lambda leaf, at=(b, k, t): leaf[at], padded.observation)
                assert time_of(played, env, b, k, seen) == t
                np.testing.assert_array_equal(seen.token_mask, [True, True, False])
                own = played.observation.action_mask[t, b, k]
                np.testing.assert_array_equal(seen.action_mask, [*own, False])
            np.testing.assert_array_equal(padded.final.tokens[b, k, : env.num_tokens], played.final.tokens[b, k])
    assert not padded.observation.action_mask[:, :, env.horizon :].any()
    assert padded.final.tokens.shape == (TASKS, EPISODES, suite.num_tokens, padded.final.tokens.shape[-1])


def test_join_trial_puts_episodes_one_after_another(recorded: Recorded) -> None:
    suite, env, played = recorded
    kinds = (False, False, True)
    padded = jax.jit(lambda e: [recording.padded_trajectory(suite, env, e, ends) for ends in kinds])
    episodes = jax.device_get(padded(played))
    # Tell the episodes apart.
    episodes = [
        one.replace(
            action=one.action + 10 * i,
            observation=one.observation.replace(tokens=one.observation.tokens + i),
            final=one.final.replace(tokens=one.final.tokens + i),
        )
        for i, one in enumerate(episodes)
    ]
    joined, length = jax.device_get(jax.jit(recording.join_trial)(episodes)), suite.horizon
    for b in range(TASKS):
        for k in range(EPISODES):
            for i, one in enumerate(episodes):
                for t in range(length):
                    at = i * length + t
                    assert joined.action[b, k, at] == one.action[b, k, t]
                    assert joined.discount[b, k, at] == one.discount[b, k, t]
                    assert joined.valid[b, k, at] == (t < env.horizon)
                    seen = joined.observation.tokens[b, k, at]
                    np.testing.assert_array_equal(seen, one.observation.tokens[b, k, t])
            np.testing.assert_array_equal(joined.final.tokens[b, k], episodes[-1].final.tokens[b, k])
    assert joined.action.shape == (TASKS, EPISODES, len(kinds) * length)
    # The ends of episodes inside the trial do not cut it; its own does.
    last = np.asarray(joined.discount)[0, 0, env.horizon - 1 :: length]
    np.testing.assert_allclose(last, [env.discount_factor, env.discount_factor, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    "recorder",
    [Recorder(3), Recorder(64, samples=4), Recorder(64, samples=4, num_steps=2, ordered=True)],
    ids=["history", "samples", "all"],
)
def test_an_empty_support_has_the_shapes_of_a_recorded_one(recorded: Recorded, recorder: Recorder) -> None:
    suite, env, played = recorded
    program = jax.jit(lambda e: recorder.record(suite, env, e, KEY))
    made = jax.device_get(program(played))
    nothing = recording.empty_support(suite, recorder, TASKS, EPISODES)
    chex.assert_trees_all_equal_shapes_and_dtypes(nothing, made)
    assert (made.transitions is None, made.trajectory is None) == (recorder.samples == 0, not recorder.ordered)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))
    length = min(recorder.periods, suite.num_periods)
    assert recording.history_length(suite, recorder.periods) == length == made.history.valid.shape[-1]


@pytest.fixture(scope="module")
def support(recorded: Recorded) -> Support:
    """All that can be recorded."""
    suite, env, played = recorded
    recorder = Recorder(64, samples=4, num_steps=2, ordered=True)
    return jax.device_get(jax.jit(lambda e: recorder.record(suite, env, e, KEY))(played))


@pytest.mark.parametrize("episodes", [0, 1, 2, 3, 5])
def test_first_masks_the_other_episodes(support: Support, episodes: int) -> None:
    task = jax.tree.map(lambda leaf: leaf[0], support)
    kept = jax.jit(Support.first)(task, jnp.int32(episodes))
    for k in range(EPISODES):
        for name, used, before in (
            ("history", kept.history.valid[k], task.history.valid[k]),
            ("transitions", kept.transitions.weight[k], task.transitions.weight[k]),
            ("trajectory", kept.trajectory.valid[k], task.trajectory.valid[k]),
        ):
            assert np.any(before), name
            np.testing.assert_array_equal(used, before if k < episodes else 0 * before, err_msg=name)
    unmasked = kept.replace(
        history=kept.history.replace(valid=task.history.valid),
        transitions=kept.transitions.replace(weight=task.transitions.weight),
        trajectory=kept.trajectory.replace(valid=task.trajectory.valid),
    )
    chex.assert_trees_all_equal(unmasked, task)


def test_without_gradients_only_the_history_is_left(support: Support) -> None:
    bare = support.without_gradients()
    assert bare.transitions is bare.trajectory is None
    chex.assert_trees_all_equal(bare.history, support.history)
    task = jax.tree.map(lambda leaf: leaf[0], bare)
    assert not task.first(0).history.valid.any(), "what is not there is not masked"


class Plain(NamedTuple):
    """A basis: the description of the action chosen, and the first column of all tokens."""

    def chosen(self, seen: Observation, action: chex.Array) -> chex.Array:
        return jnp.take_along_axis(seen.actions, action[..., None, None], axis=-2)[..., 0, :]

    def state(self, seen: Observation) -> chex.Array:
        return seen.tokens[..., :3].sum(-2)


def test_regression_rows(recorded: Recorded) -> None:
    suite, env, played = recorded
    kinds = (Outcome(1), Outcome(3), Outcome(9), Outcome(2, bootstrap=True))
    recorder = Recorder(periods=1, basis=Plain(), outcomes=kinds)
    support = jax.device_get(jax.jit(lambda e: recorder.record(suite, env, e, KEY))(played))
    rows, paid, gamma = support.rows, paid_by_period(recorded), env.discount_factor
    empty: Any = recording.empty_support(suite, recorder, TASKS, EPISODES)
    chex.assert_trees_all_equal_shapes_and_dtypes(empty, support)
    assert not np.any(empty.rows.weight)
    np.testing.assert_array_equal(
        rows.weight, np.broadcast_to(np.arange(suite.horizon) < env.horizon, rows.weight.shape)
    )
    for b in range(TASKS):
        for k in range(EPISODES):
            for t in range(env.horizon):
                seen, action = jax.tree.map(
                    lambda leaf, t=t, b=b, k=k: leaf[t, b, k], (played.observation, played.action)
                )
                np.testing.assert_allclose(rows.features[b, k, t], seen.actions[action], rtol=1e-3)
                np.testing.assert_allclose(rows.state[b, k, t], seen.tokens[:, :3].sum(0), rtol=1e-3)
                for m, kind in enumerate(kinds):
                    period = t // env.num_turns
                    inside = range(period, min(period + kind.periods, env.num_periods))
                    powers = [gamma ** (q - period) for q in inside]
                    total = sum(g * paid[b, k, q] for g, q in zip(powers, inside, strict=True))
                    assert rows.outcome[b, k, t, m] == pytest.approx(total, abs=1e-5)
                    assert rows.span[b, k, t, m] == pytest.approx(sum(powers), abs=1e-5)
                    follows = kind.bootstrap and period + kind.periods < env.num_periods
                    assert rows.discount[b, k, t, m] == pytest.approx(gamma**kind.periods if follows else 0.0)
                    if follows:
                        assert rows.later[b, k, t, m] == t + kind.periods * env.num_turns
    assert rows.later.max() < env.horizon
    assert not np.any(rows.features[:, :, env.horizon :])
