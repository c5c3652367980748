"""Heuristics that estimate a model within the episode and plan with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import policies, scoring
from envs_jax.domains.energy_trading import LEVELS, PAIRS
from envs_jax.domains.portfolio import PortfolioMemory
from envs_jax.domains.smart_grid import SmartGrid
from envs_jax.heuristics import energy_trading as trader
from envs_jax.heuristics import smart_grid as planner


@functools.cache
def domain(name):
    return envs_jax.make(name)[0]


def drawn(env, tasks, episodes):
    """Tasks and episode keys that neither tuning nor the measurement of headroom draws."""
    task_keys = jax.random.split(jax.random.key(20_261_128), tasks)
    return jax.vmap(env.sample_params)(task_keys), jax.random.split(jax.random.key(20_261_129), (tasks, episodes))


@pytest.mark.parametrize(
    ("name", "stateless"),
    [
        ("portfolio", 0.14),
        *(pytest.param(name, 0.45, marks=pytest.mark.slow) for name in ("energy_trading", "smart_grid")),
    ],
)
def test_what_is_learned_within_the_episode_earns_more_than_the_best_stateless_rule(name, stateless):
    """``stateless``: score of the rule without a memory that stood here before, on 256 tasks x 4 episodes."""
    env = domain(name)
    tasks, keys = drawn(env, 32, 2)
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


def test_smart_grid_identifies_the_network_within_two_days():
    env = SmartGrid(num_periods=48)
    tasks, _ = drawn(env, 6, 1)

    @jax.jit
    @jax.vmap
    def play(task, key):
        def step(carry, key):
            state, memory = carry
            seen = env.observation(state, task)
            _, memory = env.heuristic_step(memory, seen, key)
            action = policies.random_actions(seen, key)
            _, state, *_ = env.step_env(key, state, action, task)
            return (state, memory), state.output

        start = (env.reset_env(key, task)[1], env.heuristic_start())
        (_, memory), output = jax.lax.scan(step, start, jax.random.split(key, env.horizon))
        return planner.believe(env.rule, env._public, memory, jnp.bool_(True)), output, memory.rating, memory.loaded

    found, output, least, loaded = map(jax.device_get, play(tasks, jax.random.split(jax.random.key(5), 6)))
    for name in ("profile", "wind_capacity", "efficiency"):
        np.testing.assert_allclose(getattr(found, name), getattr(tasks, name), rtol=2e-3, atol=1e-3, err_msg=name)
    # What is believed of a line stands to the truth from below: no line can be rated less than it was seen to carry.
    assert (least <= tasks.rating * 1.003).all()
    known = np.isclose(least, tasks.rating, rtol=3e-3)
    np.testing.assert_allclose(found.rating[known & loaded], tasks.rating[known & loaded], rtol=3e-3)
    assert known[loaded].mean() > 0.5
    assert (known & loaded).any(1).all()
    # The last hour is not remembered; a unit off its limits was priced at its own cost, one at its limit shows that.
    output, most = output[:, : -env.num_turns], tasks.available * env._public.unit_max
    at_limit = (output > 0.999 * most[:, None]).any(1)
    inside = ((output > 0.5) & (output < 0.99 * most[:, None])).any(1)
    assert inside.any(0).sum() >= 3
    assert (inside & at_limit).any()
    np.testing.assert_allclose(found.fuel[inside], tasks.fuel[inside], rtol=2e-3)
    both = inside & at_limit
    np.testing.assert_allclose(found.available[both], tasks.available[both], rtol=2e-3)


def test_energy_trading_learns_prices_and_devices_within_two_days():
    env = domain("energy_trading")
    tasks, _ = drawn(env, 32, 1)
    public = env._public()

    @jax.jit
    @jax.vmap
    def play(task, key):
        def step(carry, key):
            state, memory = carry
            seen = env.observation(state, task)
            _, memory = env.heuristic_step(memory, seen, key)
            action = policies.random_actions(seen, key)
            _, state, *_ = env.step_env(key, state, action, task)
            return (state, memory), None

        start = (env.reset_env(key, task)[1], env.heuristic_start())
        (_, memory), _ = jax.lax.scan(step, start, jax.random.split(key, env.horizon))
        # A day ahead, when little is left of the present residual: the profile itself.
        period = jnp.int32(env.num_periods - 1)
        return memory, trader.forecast(env.rule, public, memory, task.reference_price, period, 36)

    memory, foreseen = play(tasks, jax.random.split(jax.random.key(6), 32))
    hours = (env.num_periods - 1 + np.arange(13, 37)) % 24
    error = foreseen.mean[:, 12:] - np.take_along_axis(np.asarray(tasks.profile), hours[None, :], 1)
    inside = np.abs(error) < 2.0 * foreseen.sd[:, 12:]
    assert np.sqrt((error**2).mean()) < 0.6 * np.asarray(tasks.profile).std(-1).mean()
    assert inside.mean() > 0.95  # the forecast's deviation holds that of prices, too
    # Of devices that have bought and sold, settlements tell both unknowns; others stay as unsure as they say.
    sure = np.sqrt(np.diagonal(memory.device_covariance, axis1=-2, axis2=-1))
    error = np.abs(memory.device - np.stack([tasks.efficiency, tasks.wear_cost], -1))
    assert (error < 5.0 * sure).all()
    assert (sure < np.array([0.02, 0.5])).all(-1).mean() > 0.5


@pytest.mark.parametrize(
    ("charge", "hours_left", "price", "pair"),
    [(0, 20, 80.0, (0, 6)), (4, 1, 80.0, (0, 1)), (0, 1, 5.0, (0, 6)), (0, 2, 5.0, (1, 2))],
    ids=["nothing to gain", "sells out", "nothing after the end", "buys for a dearer hour"],
)
def test_energy_trading_bids_as_the_forecast_says(charge, hours_left, price, pair):
    """Prices known beforehand: flat, or ``price`` now and 40 in the hour after it."""
    env = domain("energy_trading")
    mean = jnp.full(36, 40.0).at[0].set(price) if price < 40.0 else jnp.full(36, price)
    foreseen = trader.Forecast(mean, jnp.full(36, 0.01), jnp.float32(0.0), jnp.float32(80.0))
    device = (jnp.int32(charge), jnp.int32(10), jnp.int32(4), jnp.float32(0.9), jnp.float32(1.0))
    levels = jnp.round(33.0 * jnp.array(LEVELS))
    found = jax.jit(functools.partial(trader.bid, env._public()))(foreseen, levels, jnp.int32(hours_left), device)
    assert PAIRS[int(found)] == pair
