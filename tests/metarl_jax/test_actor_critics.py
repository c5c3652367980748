"""Losses of actor-critics against plain loops, and learners on tasks that show which part of them is broken."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.adapters import GymnaxTask
from envs_jax.environment import ResourceEnv
from envs_jax.suite import Suite
from metarl_jax import evaluation, learners, training
from metarl_jax.collection import Collector
from metarl_jax.configs import DataConfig, FineTuningConfig, NetworkConfig, QLearningConfig
from metarl_jax.evaluation import Condition
from metarl_jax.losses import policy
from metarl_jax.losses.baseline import fitted_values
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.types import Trajectory
from tests.metarl_jax import probes, small

TRACE, GAMMA = 0.8, 0.9


def trajectory(valid: list[bool], terminal: bool) -> tuple[Trajectory, np.ndarray, float]:
    """Periods of two turns, reward on the second; some choices do not exist. With values of the states."""
    rng = np.random.default_rng(3)
    length = len(valid)
    period_end = np.arange(length) % 2 == 1
    discount = np.where(period_end, GAMMA, 1.0)
    last = max(i for i in range(length) if valid[i])
    discount[last] = 0.0 if terminal else discount[last]
    one = Trajectory(
        observation=(),
        action=jnp.zeros(length, jnp.int32),
        reward=jnp.asarray(np.where(period_end & valid, rng.normal(size=length), 0.0), jnp.float32),
        discount=jnp.asarray(discount, jnp.float32),
        period_end=jnp.asarray(period_end),
        reference=jnp.zeros(length, jnp.int32),
        valid=jnp.asarray(valid),
        final=(),
    )
    return one, rng.normal(size=length).astype(np.float32), 0.7


CASES = {
    "whole": ([True] * 6, True),
    "bootstrapped": ([True] * 6, False),
    "padded": ([True] * 4 + [False] * 4, True),
    "trial with padding between its episodes": ([True] * 2 + [False] * 2 + [True] * 4, False),
}


@pytest.mark.parametrize("case", CASES)
def test_generalised_advantage_is_the_sum_over_periods(case: str) -> None:
    one, value, final = trajectory(*CASES[case])
    found = policy.generalised_advantage(one, jnp.asarray(value), jnp.float32(final), TRACE)
    steps = [i for i, kept in enumerate(one.valid) if kept]
    expected = np.zeros(len(value))
    for position, start in enumerate(steps):
        weight = 1.0
        for at in range(position, len(steps)):
            i = steps[at]
            following = value[steps[at + 1]] if at + 1 < len(steps) else final
            expected[start] += weight * (float(one.reward[i]) + float(one.discount[i]) * following - value[i])
            weight *= float(one.discount[i]) * (TRACE if one.period_end[i] else 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_turns_within_a_period_share_its_whole_advantage() -> None:
    """With a trace between turns, the first of many would see almost nothing of what the period pays."""
    length = 20
    one = Trajectory(
        (), jnp.zeros(length, jnp.int32), jnp.zeros(length).at[-1].set(1.0), jnp.ones(length).at[-1].set(0.0),
        jnp.arange(length) == length - 1, jnp.zeros(length, jnp.int32), jnp.ones(length, bool), (),
    )  # fmt: skip
    found = policy.generalised_advantage(one, jnp.zeros(length), jnp.float32(0.0), 0.95)
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)


def test_windows_bootstrap_where_they_end() -> None:
    """A3C's return: what is paid up to the end of the window, and the value of the state after it."""
    one, value, final = trajectory([True] * 10 + [False] * 2, False)
    trace = policy.cut_trace(one, 1.0, 2)
    found = policy.generalised_advantage(one, jnp.asarray(value), jnp.float32(final), trace)
    expected = np.zeros(len(value))
    for start in range(10):
        end = min((start // 4 + 1) * 4, 10)  # windows of two periods, of two turns each; the last is cut short
        weight = 1.0
        for i in range(start, end):
            expected[start] += weight * float(one.reward[i])
            weight *= float(one.discount[i])
        expected[start] += weight * (value[end] if end < 10 else final) - value[start]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(policy.cut_trace(one, TRACE, 0), np.float32(TRACE))


MASK = np.array([[True, True, False], [True, True, True], [True, False, False]])


def test_the_dueling_head_is_an_actor_critic() -> None:
    rng = np.random.default_rng(0)
    q = np.where(MASK, rng.normal(size=MASK.shape), -1e9).astype(np.float32)
    distribution = policy.categorical(jnp.asarray(q), jnp.asarray(MASK))
    weights = np.where(MASK, np.exp(q), 0.0)
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(distribution.probs, weights, atol=1e-6)
    safe = np.where(weights > 0, weights, 1.0)
    entropy = -(weights * np.log(safe)).sum(-1)
    np.testing.assert_allclose(policy.entropy(jnp.asarray(q), jnp.asarray(MASK)), entropy, atol=1e-6)
    np.testing.assert_allclose(distribution.entropy(), entropy, atol=1e-6)
    value = [q[i][MASK[i]].mean() for i in range(3)]
    np.testing.assert_allclose(policy.state_value(jnp.asarray(q), jnp.asarray(MASK)), value, rtol=1e-5)


def test_clipped_surrogate_by_hand() -> None:
    rng = np.random.default_rng(1)
    q = np.where(MASK, rng.normal(size=MASK.shape), -1e9).astype(np.float32)
    action, valid = np.array([1, 2, 0]), np.array([True, True, False])
    old_log, old_value = np.array([-1.5, -0.4, -3.0]), np.array([0.2, -0.5, 9.0])
    advantage = np.array([1.0, -2.0, 50.0])
    targets = policy.Targets(*(jnp.asarray(x, jnp.float32) for x in (old_log, old_value, advantage)))
    arguments = (jnp.asarray(q), jnp.asarray(MASK), jnp.asarray(action), jnp.asarray(valid), targets)
    loss, parts = policy.clipped_surrogate(*arguments, clip=0.2, value_weight=0.5, entropy_weight=0.01)
    log = [q[i, action[i]] - np.log(np.exp(q[i][MASK[i]]).sum()) for i in range(2)]
    own, gains, squares = (advantage[:2] - advantage[:2].mean()) / advantage[:2].std(), [], []
    for i in range(2):
        ratio = np.exp(log[i] - old_log[i])
        gains.append(min(ratio * own[i], np.clip(ratio, 0.8, 1.2) * own[i]))
        value, goal = q[i][MASK[i]].mean(), advantage[i] + old_value[i]
        near = old_value[i] + np.clip(value - old_value[i], -0.2, 0.2)
        squares.append(0.5 * max((value - goal) ** 2, (near - goal) ** 2))
    np.testing.assert_allclose(parts["policy_loss"], -np.mean(gains), rtol=1e-4)
    np.testing.assert_allclose(parts["value_loss"], np.mean(squares), rtol=1e-4)
    entropy = float(policy.entropy(jnp.asarray(q), jnp.asarray(MASK))[:2].mean())
    np.testing.assert_allclose(loss, -np.mean(gains) + 0.5 * np.mean(squares) - 0.01 * entropy, rtol=1e-4)


def test_advantage_actor_critic_by_hand() -> None:
    rng = np.random.default_rng(2)
    q = np.where(MASK, rng.normal(size=MASK.shape), -1e9).astype(np.float32)
    action, valid = np.array([1, 2, 0]), np.array([True, True, False])
    old_log, old_value, advantage = (
        np.array([-1.5, -0.4, -3.0]),
        np.array([0.2, -0.5, 9.0]),
        np.array([1.0, -2.0, 50.0]),
    )
    targets = policy.Targets(*(jnp.asarray(x, jnp.float32) for x in (old_log, old_value, advantage)))

    def loss(q: Any) -> Any:
        arguments = (q, jnp.asarray(MASK), jnp.asarray(action), jnp.asarray(valid), targets)
        return policy.advantage_actor_critic(*arguments, value_weight=0.5, entropy_weight=0.01)

    (found, parts), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(q))
    log = np.array([q[i, action[i]] - np.log(np.exp(q[i][MASK[i]]).sum()) for i in range(2)])
    squares = [(advantage[i] + old_value[i] - q[i][MASK[i]].mean()) ** 2 for i in range(2)]
    np.testing.assert_allclose(parts["policy_loss"], -np.mean(log * advantage[:2]), rtol=1e-5)
    np.testing.assert_allclose(parts["ratio_error"], np.abs(np.exp(log - old_log[:2]) - 1).mean(), rtol=1e-5)
    expected = -np.mean(log * advantage[:2]) + 0.5 * np.mean(squares) - 0.01 * float(parts["entropy"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[~MASK], 0.0)


def test_the_ratio_has_the_second_derivative_of_the_expected_return() -> None:
    """What MAML's outer gradient goes through: log pi in place of the ratio has the first derivative alone."""
    mask, logits = jnp.array([True, True, True, False]), jnp.array([0.3, -0.5, 0.1, 9.0])
    advantage = jnp.array([1.0, -2.0, 0.7, 0.0])
    pi = np.asarray(policy.categorical(logits, mask).probs)
    old = policy.Targets(jnp.log(jnp.maximum(pi, 1e-30)), jnp.zeros(4), advantage)

    def expected_return(logits: Any) -> Any:
        return -jnp.sum(policy.categorical(logits, mask).probs * advantage)

    def by_ratio(logits: Any) -> Any:  # the mean over choices drawn from pi, exactly: each with its probability
        def of(a: int) -> Any:
            one = jax.tree.map(lambda leaf: leaf[a], old)
            return policy.likelihood_ratio_loss(logits, mask, jnp.int32(a), jnp.bool_(True), one)

        return sum(pi[a] * of(a) for a in range(3))

    def by_log(logits: Any) -> Any:
        return -jnp.sum(pi[:3] * policy.categorical(logits, mask).logits[:3] * advantage[:3])

    first, second = jax.grad(expected_return)(logits), jax.hessian(expected_return)(logits)
    np.testing.assert_allclose(jax.grad(by_ratio)(logits), first, atol=1e-6)
    np.testing.assert_allclose(jax.grad(by_log)(logits), first, atol=1e-6)
    np.testing.assert_allclose(jax.hessian(by_ratio)(logits), second, atol=1e-6)
    assert np.abs(jax.hessian(by_log)(logits) - second).max() > 0.1


def test_a_fitted_baseline_explains_returns_and_leaves_few_alone() -> None:
    """Against ridge regression by numpy; choices that do not exist count for nothing."""
    rng = np.random.default_rng(4)
    episodes, length, columns = 30, 10, 3
    seen = small.observations(rng, episodes, length)
    tokens = jnp.asarray(rng.normal(size=(episodes, length, small.TOKENS, columns)), jnp.float32)
    seen = seen.replace(tokens=tokens)
    period_end = np.arange(length) % 2 == 1
    valid = np.arange(length) < rng.integers(5, length + 1, episodes)[:, None] // 2 * 2
    reward = np.where(period_end & valid, tokens.mean((2,))[..., 0] + 0.01 * rng.normal(size=valid.shape), 0.0)
    whole = Trajectory(
        observation=seen,
        action=jnp.zeros(valid.shape, jnp.int32),
        reward=jnp.asarray(reward, jnp.float32),
        discount=jnp.broadcast_to(jnp.where(period_end, GAMMA, 1.0), valid.shape),
        period_end=jnp.broadcast_to(period_end, valid.shape) & valid,
        reference=jnp.zeros(valid.shape, jnp.int32),
        valid=jnp.asarray(valid),
        final=jax.tree.map(lambda leaf: leaf[:, -1], seen),
    )
    found, final = jax.jit(fitted_values)(whole)
    returns = np.zeros(valid.shape)
    for e in range(episodes):
        after = 0.0
        for t in reversed(range(length)):
            if valid[e, t]:
                after = returns[e, t] = reward[e, t] + float(whole.discount[e, t]) * after
    ended = np.cumsum(period_end & valid, axis=1)
    o, t = np.asarray(tokens).mean(2), ((ended - (period_end & valid)) / 100)[..., None]
    x = np.concatenate([o, o**2, t, t**2, t**3], axis=-1)
    some, goal = x[valid], returns[valid]
    mean, deviation = some.mean(0), some.std(0)
    unit = np.where(deviation > 1e-6, 1.0 / np.maximum(deviation, 1e-6), 0.0)
    z = (some - mean) * unit
    w = np.linalg.solve(z.T @ z + z.shape[1] * np.eye(z.shape[1]), z.T @ (goal - goal.mean()))
    np.testing.assert_allclose(np.asarray(found)[valid], goal.mean() + z @ w, atol=2e-3)
    explained = 1 - np.var(goal - np.asarray(found)[valid]) / np.var(goal)
    assert explained > 0.0, "returns are mostly later tokens, which nothing here foretells"
    assert final.shape == (episodes,)
    few, _ = jax.jit(fitted_values)(jax.tree.map(lambda leaf: leaf[:1], whole))
    own, z = returns[0][valid[0]], np.concatenate([x[0], np.ones((length, 1))], axis=-1)[valid[0]]
    free = np.var(own - z @ np.linalg.lstsq(z, own, rcond=None)[0])
    left = np.var(own - np.asarray(few)[0][valid[0]])
    assert free < 1e-3 * np.var(own) < 0.1 * left, "a free fit to one episode would leave no advantage"


SMALL = NetworkConfig(width=16, layers=1, heads=2, channels=2, head_width=16, slots=2, hidden=16)

MORE: dict[str, dict[str, Any]] = {
    "sac": {
        "learning": QLearningConfig(samples=4, num_steps=1, updates=8, replay=4, polyak=0.9),
        "fine_tuning": FineTuningConfig((0.1,), (30,), ("head",)),
    }
}


@functools.cache
def learned(name: str, probe: str, iterations: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Metrics of a training run on a probe, and the returns ``[B, E]`` under each condition."""
    (env,) = (one for one in probes.PROBES if one.name == probe)
    suite, programs = Suite.of((env,)), Programs(1)
    config = learners.config_class(name)(
        network=SMALL, data=DataConfig(tasks=16, episodes=2, periods=4), learning_rate=1e-2, **MORE.get(name, {})
    )
    learner = learners.make(name, config, suite)
    collector, domain = Collector(learner, suite, programs), DomainPrograms.of(suite, probe, programs)
    metrics: list[dict[str, Any]] = []
    run = training.train(
        learner,
        collector,
        [domain],
        jax.random.key(0),
        training.stack([learner.hyperparams(iterations, False)]),
        training.Pace(iterations, iterations // 4),
        hooks=training.Hooks(on_interval=lambda interval: metrics.append(interval.metrics)),
    )
    tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(7), 24, 2, 4)
    asked = evaluation.conditions((0, 1, 2))
    scale = jax.tree.map(lambda leaf: np.asarray(leaf[:, 0]), run.scales)
    trained = [learner.params(run.learner)]
    support = None if learner.needs.support == "own" else evaluation.random_support(tests, collector)
    returns = evaluation.evaluate(collector, trained, scale, tests, support, asked, jax.random.key(8))[0]
    return metrics, dict(zip((condition.label for condition in asked), returns, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_learns_what_depends_on_the_observation(name: str) -> None:
    metrics, returns = learned(name, "match", 40)
    assert returns["K=0"].mean() > 0.95 * probes.Probe.num_periods
    if name == "sac":
        (entropy,) = metrics[-1]["entropy"]
        assert entropy == pytest.approx(0.7 * np.log(2), abs=0.1), "the temperature does not hold the target entropy"
        return
    assert all(one["first_ratio_error"] < 1e-5 for one in metrics), "old probabilities are not those that collected"


@pytest.mark.slow
def test_maml_pg_learns_what_one_step_on_its_own_episodes_tells() -> None:
    metrics, returns = learned("maml_pg", "hidden", 150)
    best = probes.Probe.num_periods
    assert all(one["first_ratio_error"] < 1e-5 for one in metrics), "the adapted policy is not recomputed as it acted"
    assert returns["K=0"].mean() < 0.7 * best, "something on show gives the task away"
    assert returns["K=2"].mean() > 0.9 * best, "a step on the support does not tell the task"
    assert returns["K=2 swap"].mean() < 0.7 * best, "another task's support is not believed"
    assert returns["K=2 zero"].mean() < 0.7 * best, "the step does not come from rewards"


@pytest.mark.slow
def test_rl2_remembers_the_task_over_the_episodes_of_a_trial() -> None:
    metrics, returns = learned("rl2", "felt", 120)
    best = probes.Probe.num_periods
    assert all(one["first_ratio_error"] < 1e-5 for one in metrics), "the unrolled state is not the one that acted"
    assert 0.7 * best < returns["K=0"].mean() < 0.97 * best, "the first choice of a first episode is a guess"
    assert returns["K=1"].mean() > 0.98 * best, "a remembered episode tells the task"
    assert returns["K=2"].mean() > 0.98 * best
    assert returns["K=2 swap"].mean() < 0.85 * best, "another task's memory is not believed"
    # An agent that knows nothing loses half a period on average, 1 / 8 of the best, as in a first episode.
    assert returns["K=2 zero"].mean() < 0.97 * best, "what is remembered does not come from rewards"


@functools.cache
def cartpole() -> ResourceEnv:
    return GymnaxTask("CartPole-v1")


def test_a_window_goes_on_after_termination_and_counts_the_first_episode() -> None:
    env = cartpole()
    params = env.default_params

    @jax.jit
    def always_left(key: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            _, state, reward, _, info = env.step_env(key, state, jnp.int32(0), params)
            return state, (reward, info["expected_reward"], info["discount"])

        return jax.lax.scan(step, env.reset_env(key, params)[1], None, length=env.horizon)[1]

    reward, counted, discount = jax.device_get(always_left(jax.random.key(0)))
    ends = np.flatnonzero(discount == 0)
    assert len(ends) > 10, "pushing left only, the pole falls again and again"
    np.testing.assert_array_equal(reward, 1.0)
    np.testing.assert_array_equal(counted, np.arange(env.horizon) <= ends[0])
    np.testing.assert_allclose(discount[discount > 0], 0.99)


def test_foreign_tasks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="num_periods must be from 1 to 500, its time limit, got 501"):
        GymnaxTask("CartPole-v1", num_periods=501)
    with pytest.raises(ValueError, match="actions must be discrete"):
        GymnaxTask("Pendulum-v1")


POLE: dict[str, tuple[int, dict[str, Any]]] = {
    "ppo": (60, {"data": DataConfig(tasks=1, episodes=4, periods=1)}),  # 240,000 steps; CleanRL: 490 in 500,000
}
"""Iterations and settings of who is shown to reach 475. a2c came to 303 and sac to 469 (one seed): not shown yet."""


@pytest.mark.slow
@pytest.mark.parametrize("name", POLE)
def test_balances_the_pole(name: str) -> None:
    """The same code as in the suite, through the adapter."""
    suite, programs, (iterations, own) = Suite.of((cartpole(),)), Programs(1), POLE[name]
    network = NetworkConfig(width=64, layers=0, heads=1, channels=2, head_width=64, slots=1, hidden=1)
    learner = learners.make(name, learners.config_class(name)(network=network, **own), suite)
    collector, domain = Collector(learner, suite, programs), DomainPrograms.of(suite, "CartPole-v1", programs)
    hyperparams = training.stack([learner.hyperparams(iterations, False)])
    pace = training.Pace(iterations, iterations)
    run = training.train(learner, collector, [domain], jax.random.key(0), hyperparams, pace)
    tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(5), 1, 0, 100)
    trained = [learner.params(run.learner)]
    returns = evaluation.evaluate(collector, trained, None, tests, None, (Condition(0),), jax.random.key(1))
    assert returns.shape == (1, 1, 1, 100)
    assert returns.mean() >= 475
