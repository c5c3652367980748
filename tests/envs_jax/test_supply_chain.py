"""Supply chain: published levels and costs, exactness of the solvers, invariants, agreement with two NumPy models."""

import dataclasses
import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from benchmarks.numpy_models.supply_chain import BatchModel, LoopModel
from envs_jax import policies, sampling, scoring
from envs_jax import rollout as engine
from envs_jax.domains.supply_chain import SupplyChain
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import base_stock
from envs_jax.testing import Recording, Tolerances, check_numpy_model

ENV = SupplyChain()
N, P = ENV.num_turns, ENV.num_periods
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)
HIDDEN = st.tuples(st.floats(0.75, 6.0), st.floats(2.0, 40.0))
# demand mean, echelon holding costs and lead times (customers' end first), backlog cost; S*, C* of stockpyl 1.0.2.
INSTANCES = (
    (4, (1, 1), (1, 1), 20, (8, 12), 14.326),
    (5, (1, 1), (1, 1), 20, (9, 15), 16.3841),
    (5, (1, 1), (2, 1), 20, (16, 21), 24.335),
    (5, (3, 2, 2), (1, 1, 2), 37.12, (9, 15, 26), 72.0435),
    (5, (0.25,) * 4, (1,) * 4, 9, (10, 16, 22, 27), 14.9135),
    (16, (0.25,) * 4, (1,) * 4, 9, (24, 43, 60, 77), 36.9251),
)

reset = jax.jit(ENV.reset_env)
step = jax.jit(ENV.step_env)
advance = jax.jit(ENV.advance)
observe = jax.jit(ENV.observation)
sample = jax.jit(ENV.sample_params)
sample_many = jax.jit(jax.vmap(ENV.sample_params))
solve = jax.jit(ENV.solve)
uniforms = jax.jit(sampling.uniforms, static_argnums=2)
poisson_cdf = jax.jit(sampling.poisson_cdf, static_argnums=1)
stationary = jax.jit(base_stock.stationary, static_argnums=(4, 5))
newsvendor = jax.jit(base_stock.newsvendor, static_argnums=(4, 5))
finite_horizon = jax.jit(base_stock.finite_horizon, static_argnums=(4, 5, 6))


@jax.jit
def play(params, key, policy_key, plan, follow):
    """One episode, and two periods beyond it: random legal choices, or the reference's if ``follow``."""

    def body(carry, time):
        seen, state = carry
        random = policies.random_actions(seen, jax.random.fold_in(policy_key, time))
        reference = ENV.reference_action(plan, state, params, key)
        action = jnp.where(follow, reference, random)
        heuristic = ENV.heuristic_action(seen, key)
        noise = sampling.uniforms(key, time // N, ENV.num_uniforms)
        after, following, reward, terminated, info = ENV.step_env(key, state, action, params)
        trace = {
            "seen": seen,
            "state": state,
            "action": action,
            "reference": reference,
            "heuristic": heuristic,
            "uniforms": noise,
            "reward": reward,
            "terminated": terminated,
            "info": info,
        }
        return (after, following), trace

    (last, _), trace = jax.lax.scan(body, ENV.reset_env(key, params), jnp.arange(ENV.horizon + 2 * N))
    return sampling.uniforms(key, sampling.RESET_INDEX, N), trace, last


def episode(seed, hidden=None, follow=False):
    task = sample(jax.random.key(seed))
    if hidden is not None:
        mean, cost = (jnp.float32(x) for x in hidden)
        table = poisson_cdf(mean, ENV.max_demand + 1)
        task = task.replace(demand_mean=mean, backlog_cost=cost, demand_cdf=table / table[-1])
    plan = solve(task) if follow else jnp.zeros((P, N), jnp.int32)
    start, trace, last = play(task, jax.random.key(seed + 1), jax.random.key(seed + 2), plan, follow)
    return task, *jax.tree.map(np.asarray, (start, trace, last))


def leaves(params):
    return {field.name: np.asarray(getattr(params, field.name)) for field in dataclasses.fields(params)}


def case(mean, echelon_cost, lead_time, backlog_cost):
    cdf = poisson_cdf(mean, 48)
    return (
        cdf,
        jnp.array(echelon_cost, jnp.float32),
        jnp.float32(backlog_cost),
        jnp.array(lead_time),
    )


# ---- solvers --------------------------------------------------------------------------------------------------------


def chen_zheng(pmf, echelon_cost, backlog_cost, lead_time, size=128):
    """The recursion again, in float64 and as sums over demand: levels and cost."""
    x = np.arange(size) - 1.0
    induced = (backlog_cost + sum(echelon_cost)) * np.maximum(-x, 0)
    levels = []
    for cost, lead in zip(echelon_cost, lead_time, strict=True):
        function = cost * x + induced
        for _ in range(lead):
            left = function[0] - (function[1] - function[0]) * np.arange(len(pmf) - 1, 0, -1)
            padded = np.concatenate([left, function])
            function = np.array([padded[g : g + len(pmf)][::-1] @ pmf for g in range(size)])
        best = function.argmin()
        induced = function[np.minimum(np.arange(size), best)]
        levels.append(best - 1)
    return levels, induced[-1]


@pytest.mark.parametrize(("mean", "echelon_cost", "lead_time", "backlog_cost", "levels", "cost"), INSTANCES)
def test_published_levels_and_costs(mean, echelon_cost, lead_time, backlog_cost, levels, cost):
    found, value = stationary(*case(mean, echelon_cost, lead_time, backlog_cost), 2, 128)
    np.testing.assert_array_equal(found, levels)
    # stockpyl cuts the tails of lead-time demand, which costs it the fifth digit.
    np.testing.assert_allclose(value, cost, rtol=1.5e-4)
    exact = chen_zheng(scipy.stats.poisson.pmf(np.arange(64), mean), echelon_cost, backlog_cost, lead_time)
    np.testing.assert_array_equal(found, exact[0])
    np.testing.assert_allclose(value, exact[1], rtol=1e-5)


def test_snyder_shen_example_with_normal_demand():
    unit = 0.1  # the solver's grid of integers stands for multiples of it
    demand = np.arange(0, 101) * unit
    cdf = jnp.asarray(scipy.stats.norm.cdf(demand + unit / 2, 5.0, 1.0), jnp.float32)
    costs = jnp.array([3.0, 2.0, 2.0]) * unit
    levels, cost = stationary(cdf, costs, jnp.float32(37.12 * unit), jnp.array([1, 1, 2]), 2, 256)
    # Published: 47.65; 47.6654 and these levels were computed on stockpyl's default grid.
    np.testing.assert_allclose(cost, 47.665, atol=0.02)
    np.testing.assert_allclose(levels * unit, [6.484, 12.028, 22.72], atol=2 * unit)


@pytest.mark.parametrize("instance", INSTANCES)
def test_shang_song_is_within_a_unit_of_the_optimum(instance):
    levels = newsvendor(*case(*instance[:4]), 2, 128)
    np.testing.assert_allclose(levels, instance[4], atol=1.0)


def test_newsvendor_levels_of_two_stages_by_hand():
    # Poisson(5) at 21/22 = 0.9545: 9. Poisson(10) at 20/22 = 0.909 and 20/21 = 0.952: 14 and 16.
    np.testing.assert_array_equal(newsvendor(*case(5, (1, 1), (1, 1), 20), 2, 128), [9.0, 15.0])


@hypothesis.given(SEEDS)
@hypothesis.settings(max_examples=10)
def test_levels_rise_with_the_backlog_cost(seed):
    task = sample(jax.random.key(seed))
    low, high = solve(task), solve(task.replace(backlog_cost=task.backlog_cost * 1.5))
    assert np.all(np.asarray(high) >= np.asarray(low))
    assert np.any(np.asarray(high) > np.asarray(low))
    assert np.asarray(high).max() < ENV.grid_size - 2


def test_different_hidden_parameters_need_different_policies():
    task = sample(jax.random.key(0))
    rich = task.replace(demand_cdf=poisson_cdf(6.0, ENV.max_demand + 1))
    poor = task.replace(demand_cdf=poisson_cdf(0.75, ENV.max_demand + 1))
    assert np.all(np.asarray(solve(rich))[0] > 2 * np.asarray(solve(poor))[0])


def brute_force(pmf, echelon_cost, backlog_cost, lead_time, on_hand, periods, most):
    """Least expected cost of a two-stage system with local accounting, over all orders up to ``most``."""
    h0, h1 = sum(echelon_cost), echelon_cost[1]

    @functools.cache
    def cost_to_go(period, net, upstream, pipe0, pipe1):
        """``net`` is stage 0's stock less backlog; ``pipe`` what is under way, next arrival first."""
        if period == periods:
            return 0.0
        best = np.inf
        for q0, q1 in itertools.product(range(min(upstream, most) + 1), range(most + 1)):
            arriving0, *rest0 = (*pipe0, q0)
            arriving1, *rest1 = (*pipe1, q1)
            stock = upstream - q0 + arriving1
            total = 0.0
            for demand, probability in enumerate(pmf):
                after = net + arriving0 - demand
                now = h0 * max(after, 0) + backlog_cost * max(-after, 0) + h1 * (stock + sum(rest0))
                total += probability * (now + cost_to_go(period + 1, after, stock, tuple(rest0), tuple(rest1)))
            best = min(best, total)
        return best

    return cost_to_go(0, on_hand[0], on_hand[1], (0,) * (lead_time[0] - 1), (0,) * (lead_time[1] - 1))


@pytest.mark.parametrize(
    ("lead_time", "on_hand", "periods"),
    [((1, 1), (1, 1), 4), ((1, 1), (0, 3), 3), ((2, 1), (2, 1), 4), ((1, 2), (1, 1), 4), ((2, 2), (1, 2), 3)],
)
def test_finite_horizon_is_the_optimum_over_all_policies(lead_time, on_hand, periods):
    pmf, costs, backlog_cost = np.array([0.3, 0.5, 0.2]), (0.4, 0.3), 3.0
    plan = finite_horizon(
        jnp.asarray(np.cumsum(pmf), jnp.float32),
        jnp.array(costs, jnp.float32),
        jnp.float32(backlog_cost),
        jnp.array(lead_time),
        2,
        32,
        periods,
    )
    echelon = np.cumsum(on_hand)
    value = sum(float(plan.value[i, echelon[i] + 1]) for i in range(2))
    best = brute_force(tuple(pmf), costs, backlog_cost, lead_time, on_hand, periods, most=5)
    np.testing.assert_allclose(value, best, rtol=2e-6)


def test_stages_stop_ordering_when_nothing_can_arrive_in_time():
    plan = finite_horizon(*case(5, (3, 2, 2), (1, 1, 2), 37.12), 2, 128, 12)
    np.testing.assert_array_equal(plan.levels[0], [9, 15, 26])
    stops = 12 - (np.asarray(plan.levels) == base_stock.NEVER).sum(axis=0)
    np.testing.assert_array_equal(stops, [12, 11, 9])  # an order of stage i is of use for 1 + .. + L_i periods more


# ---- simulation against theory --------------------------------------------------------------------------------------


@functools.cache
def simulator(stages, periods, episodes):
    env = SupplyChain(num_stages=stages, num_periods=periods, max_lead_time=2, max_adjustment=15, max_demand=63)

    @jax.jit
    def simulate(params, plan, key):
        """Mean expected reward of each period ``f32[P, E]`` when the reference policy follows ``plan``."""
        tasks, plans = jax.tree.map(lambda x: x[None], (params, plan))
        keys = jax.random.split(key, (1, episodes))
        _, state = engine.lockstep_reset(env, tasks, keys)

        def body(state, _):
            action = policies.reference_actions(env, plans, state, tasks, key)
            _, state, reward, info = engine.lockstep_step(env, tasks, state, action)
            return state, (info["expected_reward"][0], reward[0])

        _, (expected, realised) = jax.lax.scan(body, state, jnp.arange(env.horizon))
        return expected[stages - 1 :: stages], realised[stages - 1 :: stages]

    return env, simulate


@pytest.mark.parametrize(("mean", "echelon_cost", "lead_time", "backlog_cost", "levels", "cost"), INSTANCES)
def test_simulated_base_stock_costs_what_theory_says(mean, echelon_cost, lead_time, backlog_cost, levels, cost):
    periods, warm_up = 1200, 200
    env, simulate = simulator(len(levels), periods, 512)
    params = env.instance(mean, jnp.array(echelon_cost), jnp.array(lead_time), backlog_cost)
    plan = jnp.broadcast_to(jnp.array(levels), (periods, len(levels)))
    for rewards in simulate(params, plan, jax.random.key(0)):
        means = -np.asarray(rewards)[warm_up:].mean(axis=0, dtype=np.float64)
        error = means.std(ddof=1) / np.sqrt(means.size)
        assert error < 2e-3 * cost
        assert abs(means.mean() - cost) < 3 * error
        if mean == 5 and lead_time == (1, 1):
            assert means.mean() - two_stages(reship=True) > 0.8


@functools.cache
def two_stages(reship):
    """Mean cost of S* = (9, 15) at Poisson(5), L = 1, 1; ``reship``: stage 0 may have what stage 1 gets this period."""
    rng, chains = np.random.default_rng(0), 4000
    net, upstream, costs = np.full(chains, 9), np.full(chains, 6), []
    for _ in range(150):
        bought = np.maximum(15 - net - upstream, 0)
        available = upstream + bought if reship else upstream
        moved = np.minimum(np.maximum(9 - net, 0), available)
        upstream = upstream + bought - moved
        net = net + moved - rng.poisson(5, chains)
        costs.append((2 * np.maximum(net, 0) + 20 * np.maximum(-net, 0) + upstream).mean())
    return np.mean(costs[30:])


def test_reshipping_in_the_same_period_is_another_system():
    np.testing.assert_allclose(two_stages(reship=False), 16.385, atol=0.05)
    np.testing.assert_allclose(two_stages(reship=True), 15.198, atol=0.05)
    # And here: stage 0 cannot have what reaches stage 1 in the same period.
    task = ENV.default_params
    _, state = reset(jax.random.key(0), task)
    state = state.replace(on_hand=jnp.array([0, 0, 9, 9]), pipe=state.pipe.at[1, 0].set(7))
    legal = np.flatnonzero(observe(state, task).action_mask)
    np.testing.assert_array_equal(legal, [1, ENV.noop_action])  # after a demand of 5: x = -5, nothing, and the no-op
    _, state, *_ = step(jax.random.key(0), state, ENV.noop_action, task)
    assert int(state.orders[0]) == 0


def test_the_reference_earns_its_computed_value():
    env, simulate = simulator(3, 16, 4096)
    params = env.instance(4.0, jnp.array([0.4, 0.2, 0.3]), jnp.array([2, 1, 2]), 12.0)
    params = params.replace(start_low=jnp.array([6, 5, 7]), start_high=jnp.array([6, 5, 7]))
    costs = jnp.array([0.4, 0.2, 0.3])
    plan = finite_horizon(params.demand_cdf, costs, params.backlog_cost, params.lead_time, 2, 96, 16)
    returns = -np.asarray(simulate(params, plan.levels, jax.random.key(1))[0]).sum(axis=0, dtype=np.float64)
    value = sum(float(plan.value[i, x + 1]) for i, x in enumerate((6, 11, 18)))
    assert abs(returns.mean() - value) < 3 * returns.std() / np.sqrt(returns.size)
    longrun, _ = stationary(params.demand_cdf, costs, params.backlog_cost, params.lead_time, 2, 96)
    kept = simulate(params, jnp.broadcast_to(longrun, (16, 3)), jax.random.key(1))[0]
    assert -np.asarray(kept).sum(axis=0).mean() > value * 1.02  # long-run levels buy what is never used


# ---- agreement with the independent models --------------------------------------------------------------------------

CLOSE = Tolerances(tokens=(2e-5, 2e-5), reward=(1e-5, 1e-4), figures=(2e-4, 2e-3))


def recorded(seed, follow):
    task, start, trace, _ = episode(seed, follow=follow)
    names = ("seen", "action", "uniforms", "reward", "info")
    return Recording.of(task, start, *(trace[name] for name in names))


@hypothesis.given(SEEDS, st.booleans())
@hypothesis.settings(max_examples=6)
def test_both_numpy_models_agree_step_by_step(seed, follow):
    check_numpy_model(ENV, LoopModel, BatchModel, [recorded(seed, follow)], CLOSE)


def test_rows_of_a_batch_are_tasks_of_their_own():
    check_numpy_model(ENV, LoopModel, BatchModel, [recorded(seed, seed % 2 == 0) for seed in range(40, 46)], CLOSE)


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(SEEDS, HIDDEN, st.booleans())
def test_invariants_of_a_period(seed, hidden, follow):
    _, _, trace, _ = episode(seed, hidden, follow)
    state, info = trace["state"], {k: v[N - 1 :: N] for k, v in trace["info"].items()}
    on_hand, pipe, backlog = state.on_hand[::N], state.pipe[::N], state.backlog[::N]
    orders = state.shipped[::N]  # of stage i - 1, a period later
    stock = (on_hand.sum(axis=1) + pipe.sum(axis=(1, 2))).astype(float)
    np.testing.assert_array_equal(info["bought"][:-1] - info["served"][:-1], np.diff(stock))
    assert np.all(on_hand[1:, 0] * backlog[1:] == 0)
    assert np.all(orders[1:, 1:] <= on_hand[:-1, 1:])
    assert np.all(on_hand >= 0)
    assert np.all(pipe >= 0)
    position = stock - backlog
    np.testing.assert_array_equal(np.diff(position), info["bought"][:-1] - info["demand"][:-1])
    assert np.all(trace["reward"] <= 0)
    waiting = np.arange(len(trace["reward"])) % N != N - 1
    assert np.all(trace["reward"][waiting] == 0)
    np.testing.assert_allclose(
        trace["reward"][N - 1 :: N], -(info["holding_cost"] + info["backlog_cost"]), rtol=1e-6, atol=1e-6
    )
    assert not trace["terminated"].any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((info, trace["seen"], trace["reward"])))


@hypothesis.given(SEEDS, HIDDEN, st.booleans())
def test_policies_choose_legal_actions_and_features_are_bounded(seed, hidden, follow):
    _, _, trace, _ = episode(seed, hidden, follow)
    seen, steps = trace["seen"], np.arange(ENV.horizon + 2 * N)
    assert np.all(seen.action_mask[:, ENV.noop_action])
    assert np.all(seen.action_mask[steps, trace["reference"]])
    assert np.all(seen.action_mask[steps, trace["heuristic"]])
    assert np.all(np.abs(seen.tokens) <= 10)
    assert np.all(np.abs(seen.actions) <= 10)
    for column in ("urgency", "slack", "progress"):
        values = seen.tokens[..., COLUMN[column]]
        assert np.all((values >= 0) & (values <= 1))
    np.testing.assert_array_equal(seen.action_target, np.repeat((steps % N)[:, None], ENV.num_actions, axis=1))
    np.testing.assert_array_equal(seen.tokens[:, :N, COLUMN["is_turn"]].argmax(axis=1), steps % N)
    np.testing.assert_array_equal(seen.tokens[:, :, COLUMN["is_turn"]].sum(axis=1), 1)


@hypothesis.given(SEEDS, HIDDEN, HIDDEN)
@hypothesis.settings(max_examples=10)
def test_nothing_hidden_is_shown(seed, one, other):
    _, _, first, _ = episode(seed, one)
    task, _, second, _ = episode(seed, other)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), first["seen"], second["seen"])
    # Nor is it later: given the state, the observation is the same whatever is hidden.
    at = jax.tree.map(lambda x: x[37], first["state"]).replace(key=jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[37], b), first["seen"], observe(at, task))


def test_hidden_parameters_can_be_told_from_observations():
    costs, demands, mean, cost = [], [], 3.5, 17.0
    for seed in range(8):
        _, _, trace, _ = episode(seed, (mean, cost))
        tokens = trace["seen"].tokens[N : ENV.horizon : N]
        column = {name: tokens[:, :, i] for name, i in COLUMN.items()}
        demands.append(10 * column["private_e"][:, 0])
        # The reward less holding costs, all of which are shown, per unit that waits.
        rates, moving = 2 * column["unit_cost"][:, :N], 10 * (column["inflow"] + column["private_a"])[:, :N]
        held = (rates * 10 * column["level"][:, :N]).sum(axis=1) + (rates[:, 1:] * moving[:, :-1]).sum(axis=1)
        waiting, reward = 10 * column["waiting"][:, 0], 100 * column["last_reward"][:, 0]
        usable = (waiting > 0) & (reward > -1000) & (column["level"].max(axis=1) < 10)
        costs.append((-reward - held)[usable] / waiting[usable])
    np.testing.assert_allclose(np.concatenate(costs), cost, rtol=1e-3)
    assert len(np.concatenate(costs)) > 10
    demands = np.concatenate(demands)
    assert abs(demands.mean() - mean) < 3 * np.sqrt(mean / demands.size)


@hypothesis.given(SEEDS, st.integers(0, 40), st.integers(0, 40))
@hypothesis.settings(max_examples=10)
def test_expected_reward_is_the_mean_over_demand(seed, on_hand, backlog):
    task = sample(jax.random.key(seed))
    _, state = reset(jax.random.key(seed), task)
    state = state.replace(on_hand=state.on_hand.at[0].set(on_hand), backlog=jnp.int32(backlog))
    edges = np.concatenate([[0.0], np.asarray(task.demand_cdf, np.float64)])
    total = 0.0
    for lower, upper in itertools.pairwise(edges):
        _, reward, info = advance(state, jnp.full(1, (lower + upper) / 2, jnp.float32), task)
        total += (upper - lower) * float(reward)
    np.testing.assert_allclose(info["expected_reward"], total, rtol=1e-4, atol=1e-3)


def test_nothing_happens_without_demand_and_orders():
    task = ENV.default_params
    task = task.replace(demand_mean=jnp.float32(0.0), demand_cdf=jnp.ones_like(task.demand_cdf))
    _, state = reset(jax.random.key(3), task)
    state = state.replace(last_demand=jnp.int32(0))
    before, rewards = state, []
    for _ in range(3 * N):
        _, state, reward, *_ = step(jax.random.key(3), state, ENV.noop_action, task)
        rewards.append(float(reward))
    np.testing.assert_array_equal(before.on_hand, state.on_hand)
    cost = float(jnp.dot(task.holding_cost, before.on_hand))
    np.testing.assert_allclose(rewards[N - 1 :: N], -cost, rtol=1e-6)


def test_lead_times_and_accounting_by_hand():
    """One period and a half on paper: an order of lead 1 serves this period's demand, one of lead 2 the next's."""
    env = SupplyChain(num_stages=2, num_periods=4, max_lead_time=2, max_adjustment=3)
    task = env.instance(3.0, jnp.array([0.5, 0.25]), jnp.array([2, 1]), 10.0, start=(1.0, 1.0))
    task = task.replace(demand_cdf=(jnp.arange(32) >= 3).astype(jnp.float32))  # always three
    _, state = jax.jit(env.reset_env)(jax.random.key(0), task)
    np.testing.assert_array_equal(state.on_hand, [10, 5])
    state = state.replace(on_hand=jnp.array([4, 5]), last_demand=jnp.int32(3))
    move = jax.jit(env.step_env)
    _, state, *_ = move(state.key, state, 3 + 1, task)  # stage 0 orders 4
    _, state, reward, _, _ = move(state.key, state, 3 - 1, task)  # stage 1 orders 2
    # 4 - 3 = 1 left at stage 0, 5 - 4 + 2 = 3 at stage 1, 4 moving at stage 1's rate.
    np.testing.assert_array_equal(state.on_hand, [1, 3])
    np.testing.assert_allclose(reward, -(0.75 * 1 + 0.25 * (3 + 4)))
    _, state, *_ = move(state.key, state, 3, task)  # stage 0 orders 3
    _, state, reward, _, _ = move(state.key, state, 0, task)  # stage 1 orders nothing
    # 1 + 4 - 3 = 2 and 3 - 3 = 0, 3 moving.
    np.testing.assert_array_equal(state.on_hand, [2, 0])
    np.testing.assert_allclose(reward, -(0.75 * 2 + 0.25 * 3))


# ---- tasks and shapes -----------------------------------------------------------------------------------------------


def test_default_task_is_the_published_one():
    task = ENV.default_params
    np.testing.assert_allclose(task.holding_cost, [1.0, 0.75, 0.5, 0.25])
    law = scipy.stats.poisson.cdf(np.arange(32), 5.0)
    np.testing.assert_allclose(task.demand_cdf, law, atol=1e-6)
    np.testing.assert_array_equal(solve(task)[0], [10, 16, 22, 27])


def test_sampled_tasks_stay_within_their_ranges():
    tasks = sample_many(jax.random.split(jax.random.key(0), 512))
    assert float(tasks.demand_mean.min()) >= 0.75
    assert float(tasks.demand_mean.max()) <= 6.0
    assert float(tasks.backlog_cost.min()) >= 2.0
    assert float(tasks.backlog_cost.max()) <= 40.0
    assert set(np.unique(tasks.lead_time)) == {1, 2, 3}
    np.testing.assert_allclose(np.log(tasks.demand_mean).mean(), np.log(np.sqrt(0.75 * 6.0)), atol=0.08)
    # The table loses nothing that matters at the largest demand.
    assert scipy.stats.poisson.sf(ENV.max_demand, 6.0) < 1e-11
    np.testing.assert_array_equal(tasks.start_low, 2 * np.ceil(2.25 * np.asarray(tasks.lead_time)))


def test_average_task_rebuilds_the_law_of_demand():
    tasks = sample_many(jax.random.split(jax.random.key(0), 512))
    task = jax.jit(ENV.average_task)(jax.tree.map(lambda x: x[0], tasks), tasks)
    np.testing.assert_allclose(task.demand_mean, tasks.demand_mean.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        task.demand_cdf, scipy.stats.poisson.cdf(np.arange(32), float(task.demand_mean)), atol=1e-6
    )
    np.testing.assert_array_equal(task.lead_time, tasks.lead_time[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_stages", 0),
        ("num_periods", 0),
        ("max_lead_time", 9),
        ("max_adjustment", 16),
        ("max_demand", 0),
        ("num_stages", 2.0),
    ],
)
def test_bad_shapes_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a whole number from [0-9]+ to [0-9]+, got {value}"):
        SupplyChain(**{field: value})


@jax.jit
def follow(tasks, keys, plans):
    """Mean expected return when the reference policy follows ``plans i32[B, P, N]``."""

    def act(seen, states, key):
        return (policies.reference_actions(ENV, plans, states[0], tasks, key),)

    (rewards,), _ = engine.rollout((ENV,), (tasks,), (keys,), act, keys[0, 0], record=scoring.score_reward)
    return rewards.sum(axis=0).mean()


@jax.jit
def blind(tasks, mean, safety):
    """Base stock for one mean demand, whatever the task: ``safety`` standard deviations above it."""
    lead = jnp.cumsum(tasks.lead_time, axis=1)
    levels = jnp.round(mean * lead + safety * jnp.sqrt(mean * lead)).astype(jnp.int32)
    return jnp.broadcast_to(levels[:, None], (levels.shape[0], P, N))


@jax.jit
def plug_in(tasks, keys):
    """The optimum for the mean demand of one episode, backlog cost known (one shortage is enough to tell it)."""

    def believed(task, key):
        draws = jax.vmap(lambda t: sampling.uniforms(key, t, 1)[0])(jnp.arange(P))
        mean = jnp.clip(sampling.categorical(draws, task.demand_cdf).mean(), 0.75, 6.0)
        table = sampling.poisson_cdf(mean, ENV.max_demand + 1)
        return task.replace(demand_mean=mean, demand_cdf=table / table[-1])

    return jax.vmap(ENV.solve)(jax.vmap(believed)(tasks, keys))


@pytest.mark.slow
def test_headroom_is_left_for_adaptation():
    tasks, population = (sample_many(jax.random.split(jax.random.key(k), n)) for k, n in ((10, 64), (12, 256)))
    keys = jax.random.split(jax.random.key(11), (64, 8))
    value = {name: float(scoring.returns(ENV, name, tasks, keys, population).mean()) for name in policies.POLICIES}
    rules = [blind(tasks, m, z) for m in (2.25, 3.0, 3.75, 4.5) for z in (0.0, 1.0, 2.0, 3.0)]
    value["blind"] = max(float(follow(tasks, keys, rule)) for rule in rules)
    value["plug_in"] = float(follow(tasks, keys, plug_in(tasks, jax.random.split(jax.random.key(13), 64))))
    floor = max(value["random"], value["noop"])
    score = {name: (v - floor) / (value["reference"] - floor) for name, v in value.items()}
    print({name: (round(v, 1), round(score[name], 3)) for name, v in value.items()})
    assert floor == value["noop"]
    assert max(score["heuristic"], score["average"], score["blind"]) < 0.65
    assert score["heuristic"] > 0.4
    assert score["plug_in"] > 0.9
