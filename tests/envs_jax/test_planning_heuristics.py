"""Heuristics that estimate a model within the episode and plan with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import policies, scoring
from envs_jax.domains.portfolio import PortfolioMemory


@functools.cache
def domain(name):
    return envs_jax.make(name)[0]


def drawn(env, tasks, episodes):
    """Tasks and episode keys that neither tuning nor the measurement of headroom draws."""
    task_keys = jax.random.split(jax.random.key(20_261_128), tasks)
    return jax.vmap(env.sample_params)(task_keys), jax.random.split(jax.random.key(20_261_129), (tasks, episodes))


@pytest.mark.parametrize(("name", "stateless"), [("portfolio", 0.14)])
def test_what_is_learned_within_the_episode_earns_more_than_the_best_stateless_rule(name, stateless):
    """``stateless``: score of the rule without a memory that stood here before, on 256 tasks x 4 episodes."""
    env = domain(name)
    tasks, keys = drawn(env, 48, 2)
    found = jax.tree.map(np.asarray, scoring.reference_returns(env, tasks, keys))
    gain = (found.heuristic - found.floor) - stateless * (found.reference - found.floor)
    assert gain.mean() > 2.0 * gain.std() / np.sqrt(len(gain))


def test_portfolio_trades_as_the_reference_once_the_regression_has_seen_enough():
    env = domain("portfolio")
    task = env.sample_params(jax.random.key(3))
    plan, many = env.solve(task), 1e6
    eye, ones = jnp.eye(env.num_factors), jnp.ones(env.num_factors)
    sure = PortfolioMemory(many * eye, many * task.loadings, many * (1.0 - task.mean_reversion), many * ones)

    def step(state, key):
        action, _ = env.heuristic_step(sure, env.observation(state, task), key)
        best = env.reference_action(plan, state, task, key)
        _, state, *_ = env.step_env(key, state, best, task)
        return state, (action, best)

    @jax.jit
    def play(key):
        return jax.lax.scan(step, env.reset_env(key, task)[1], jax.random.split(key, env.horizon))[1]

    chosen, best = play(jax.random.key(4))
    assert len(np.unique(best)) > 4
    np.testing.assert_array_equal(chosen, best)


def test_portfolio_opens_nothing_before_it_has_seen_a_return():
    env = domain("portfolio")
    tasks, keys = drawn(env, 2, 3)
    seen, _ = jax.vmap(jax.vmap(env.reset_env, (0, None)))(keys, tasks)
    actions, memory = policies.heuristic_actions(env, policies.memory(env, 2, 3), seen, jax.random.key(0))
    np.testing.assert_array_equal(actions, env.noop_action)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(memory))
