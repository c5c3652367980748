"""The warehouse domain against independent models, its reference against enumeration, its costs by hand."""

import functools
import itertools

import jax
import numpy as np
import pytest

import envs_jax
from benchmarks.numpy_models.warehouse import BatchModel, LoopModel
from envs_jax import policies, scoring
from envs_jax.domains.warehouse import RATE_RANGE, Warehouse
from envs_jax.heuristics import warehouse as ledger
from envs_jax.testing import Tolerances, check_numpy_model, record_episode

ENV, DEFAULT = envs_jax.make("warehouse")
CLOSE = Tolerances(reward=(1e-5, 1e-4), figures=(1e-5, 1e-3))


def test_both_numpy_models_agree_step_by_step():
    tasks = [DEFAULT, *(ENV.sample_params(jax.random.key(seed)) for seed in (1, 2, 3))]
    recordings = [record_episode(ENV, task, jax.random.key(100 + seed)) for seed, task in enumerate(tasks)]
    check_numpy_model(ENV, LoopModel, BatchModel, recordings, CLOSE)


@pytest.mark.slow
def test_numpy_models_agree_for_other_sizes():
    env = Warehouse(num_levels=2, cap=9, num_periods=3)
    check_numpy_model(env, functools.partial(LoopModel, cap=9), functools.partial(BatchModel, cap=9), tolerances=CLOSE)


def test_the_reference_is_the_optimum_of_enumeration():
    env = Warehouse(num_levels=2, cap=2, num_periods=3)
    task = env.sample_params(jax.random.key(4))
    plan = np.asarray(env.solve(task))
    rates, h, p, k = (
        np.asarray(leaf, float).tolist() for leaf in (task.rates, task.holding, task.shortage, task.order_cost)
    )
    masses = [[np.exp(-r) * r**d / np.prod(range(1, d + 1), initial=1.0) for d in range(40)] for r in rates]
    stocks = list(itertools.product(range(3), repeat=2))
    value = dict.fromkeys(stocks, 0.0)
    for period in reversed(range(3)):
        after = {}
        for y in stocks:
            cost = sum(
                m * (h[i] * max(y[i] - d, 0) + p[i] * max(d - y[i], 0))
                for i in range(2)
                for d, m in enumerate(masses[i])
            )
            after[y] = cost + sum(
                a * b * value[(max(y[0] - d, 0), max(y[1] - e, 0))]
                for d, a in enumerate(masses[0])
                for e, b in enumerate(masses[1])
            )
        best = {}
        for x in stocks:
            choices = {
                (a, b): k[0] * (a > 0) + k[1] * (b > 0) + after[(x[0] + a - b, x[1] + b)]
                for a in range(5)
                for b in range(x[0] + 1)
                if x[0] + a - b <= 2 and x[1] + b <= 2
            }
            best[x] = min(choices.values())
            b = int(plan[period, 1, 3 * x[0] + x[1]])  # the last level takes first
            a = int(plan[period, 0, 3 * (x[0] - b) + x[1] + b])
            assert choices[(a, b)] == pytest.approx(best[x], abs=1e-4)
        value = best


def test_the_reference_beats_the_heuristic_and_earns_what_it_should():
    tasks = jax.tree.map(lambda leaf: leaf[None], DEFAULT)
    keys = jax.random.split(jax.random.key(0), (1, 256))
    found = scoring.reference_returns(ENV, tasks, keys)
    best, rule = float(found.reference[0]), float(found.heuristic[0])
    assert best > rule + 5
    assert rule > float(found.floor[0])
    # CHAIN(3) costs 13.19 a period for good; an episode may end with empty shelves and starts with half-full ones.
    assert -13.2 < best / ENV.num_periods < -12.0


def test_tables_of_demand_are_those_of_the_domain():
    rates = np.array([0.1, 1.0, 2.5])
    law, cost = ENV._tables(ENV.instance(rates, [1.0, 0.0, 2.0], [0.0, 1.0, 3.0], [0.0] * 3))
    found = ledger.demand_tables(rates, ENV.cap)
    np.testing.assert_allclose(found.law, law, atol=1e-6)
    np.testing.assert_allclose([1.0, 0.0, 2.0] * found.left.T + [0.0, 1.0, 3.0] * found.lost.T, cost.T, atol=1e-5)
    # Of what is lost on average, all comes from demands of y or more.
    np.testing.assert_allclose(found.beyond * np.exp(found.reaches), found.lost, rtol=1e-5)
    assert (found.beyond_square > found.beyond**2).all()


def test_a_long_episode_tells_the_heuristic_demand_and_order_costs():
    env = Warehouse(num_periods=600)
    task = env.instance([0.3, 1.2, 2.0], [1.0, 0.6, 1.4], [2.0, 9.0, 25.0], [1.0, 4.0, 8.0])

    def step(carry, key):
        state, memory = carry
        seen = env.observation(state, task)
        _, memory = env.heuristic_step(memory, seen, key)
        _, state, *_ = env.step_env(key, state, policies.random_actions(seen, key), task)
        return (state, memory), None

    @jax.jit
    def play(key):
        start = (env.reset_env(key, task)[1], env.heuristic_start())
        return jax.lax.scan(step, start, jax.random.split(key, env.horizon))[0][1]

    memory = play(jax.random.key(1))
    chance = np.asarray(jax.nn.softmax(memory.likelihood))
    grid = np.geomspace(*RATE_RANGE, ledger.NUM_RATES)
    np.testing.assert_allclose(chance @ grid, task.rates, rtol=0.15)
    error = memory.costs.mean - np.r_[task.order_cost, task.shortage]
    sure = np.sqrt(np.diagonal(memory.costs.covariance))
    assert (np.abs(error) < 4.0 * sure).all()
    assert (sure[:3] < 1.0).all()
    # A lost sale of the slow mover is rare: its cost stays nearly as unknown as it was.
    before = np.sqrt(np.diagonal(env.heuristic_start().costs.covariance))
    assert (sure < before).all()
    assert (sure[4:] < 2.0).all()
