"""Energy trading: check figures, the exact solver, invariants, and agreement with two independent NumPy models."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks.numpy_models.energy_trading import BatchModel, LoopModel
from envs_jax import policies, sampling, scoring
from envs_jax.data import pjm_prices
from envs_jax.domains.energy_trading import PAIRS, TWO_PEAK, EnergyTrading
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import backward_dp
from envs_jax.testing import Recording, Tolerances, check_numpy_model

ENV = EnergyTrading()
D, P = ENV.num_devices, ENV.num_periods
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
CANONICAL = EnergyTrading(num_periods=168, num_devices=1, max_capacity=10)
SEEDS = st.integers(0, 2**31 - 1)

sample = jax.jit(ENV.sample_params)
sample_many = jax.jit(jax.vmap(ENV.sample_params))
reset = jax.jit(ENV.reset_env)
solve = jax.jit(ENV.solve)
observe = jax.jit(ENV.observation)


@jax.jit
def play(params, key, policy_key):
    """One episode of random bids: what was seen, chosen, drawn and paid at every choice, and the last state."""

    def body(carry, time):
        seen, state = carry
        action = policies.random_actions(seen, jax.random.fold_in(policy_key, time))
        uniforms = sampling.uniforms(key, time // D, ENV.num_uniforms)
        after, following, reward, terminated, info = ENV.step_env(key, state, action, params)
        return (after, following), (seen, state, action, uniforms, reward, terminated, info)

    last, trace = jax.lax.scan(body, ENV.reset_env(key, params), jnp.arange(ENV.horizon))
    return trace, last


def leaves(params):
    return {f.name: np.asarray(getattr(params, f.name)) for f in dataclasses.fields(params)}


# ---- an independent backward recursion in float64, over moves rather than separated gains ---------------------------


def numpy_chain(phi, size):
    grid = np.linspace(-4, 4, size)
    edges = np.r_[-np.inf, (grid[1:] + grid[:-1]) / 2, np.inf]
    return grid, np.diff(stats.norm.cdf((edges[None] - phi * grid[:, None]) / np.sqrt(1 - phi**2)), axis=1)


def numpy_outcomes(params, t, size):
    """Prices ``[Z, J]``, their chances ``[J]`` and the levels 0..6 of one hour."""
    p = leaves(params)
    grid, _ = numpy_chain(float(p["persistence"]), size)
    residual = grid * p["innovation_sd"] / np.sqrt(1 - p["persistence"] ** 2)
    price = p["profile"][(t + 1) % len(p["profile"])] + residual[:, None] + p["spike_size"] * np.arange(2)
    chance = np.array([1 - p["spike_probability"], p["spike_probability"]])
    levels = np.r_[-np.inf, np.rint(float(p["reference_price"]) * np.array([0.45, 0.67, 0.88, 1.09, 1.30])), np.inf]
    return price, chance, levels


def numpy_values(params, device, num_periods, size, choose):
    """``V_0 [Z, S]`` where ``choose(Q [A, Z, S])`` is the max (optimum), the mean (random) or one entry (constant)."""
    p = leaves(params)
    n, k, eta, wear = (p[name][device] for name in ("capacity", "power", "efficiency", "wear_cost"))
    _, transition = numpy_chain(float(p["persistence"]), size)
    charge = np.arange(n + 1)
    bought, sold = np.minimum(k, n - charge), np.minimum(k, charge)
    value = np.zeros((size, n + 1))
    for t in reversed(range(num_periods)):
        price, chance, levels = numpy_outcomes(params, t, size)
        q = np.zeros((len(PAIRS), size, n + 1))
        for a, (lo, hi) in enumerate(PAIRS):
            for j in range(2):
                now = price[:, j, None]
                buy = -now * bought / eta - wear * bought + value[:, charge + bought]
                sell = now * sold * eta - wear * sold + value[:, charge - sold]
                outcome = np.where(now <= levels[lo], buy, np.where(now >= levels[hi], sell, value))
                q[a] += chance[j] * (transition @ outcome)
        value = choose(q)
    return value


@pytest.mark.parametrize("seed", [0, 1])
def test_plan_is_the_optimum_of_an_independent_recursion(seed):
    task = sample(jax.random.key(seed))
    plan = solve(task)
    middle = ENV.num_prices // 2
    for d in range(D):
        n = int(task.capacity[d])
        exact = numpy_values(task, d, P, ENV.num_prices, lambda q: q.max(0))
        np.testing.assert_allclose(plan.value[d, :, : n + 1], exact, rtol=2e-5, atol=2e-2)
        assert exact[middle, 0] > -1e-9
    assert plan.actions.dtype == jnp.int8
    assert plan.actions.shape == (D, P, ENV.num_prices, ENV.max_capacity + 1)


def test_canonical_figures():
    params = CANONICAL.default_params
    optimum = float(jax.jit(CANONICAL.solve)(params).value[0, 15, 0])
    assert abs(optimum - 2960.0) < 0.05
    figures = {
        2960.0: (lambda q: q.max(0), 0.05),
        # Simulated, the specification has 1880.4 and 2640.0 for these two.
        1888.53: (lambda q: q.mean(0), 0.05),
        2630.83: (lambda q: q[PAIRS.index((3, 4))], 0.05),
        0.0: (lambda q: q[ENV.noop_action], 0.0),
    }
    for figure, (choose, tolerance) in figures.items():
        assert abs(numpy_values(params, 0, 168, 31, choose)[15, 0] - figure) <= tolerance


@jax.jit
def canonical_returns(plan, keys, random):
    """Episode returns ``[E]`` of the canonical market under random or optimal bids."""
    params = CANONICAL.default_params

    def episode(key):
        def body(state, time):
            best = CANONICAL.reference_action(plan, state, params, key)
            drawn = jax.random.randint(jax.random.fold_in(key, 10_000 + time), (), 0, len(PAIRS))
            _, state, reward, *_ = CANONICAL.step_env(key, state, jnp.where(random, drawn, best), params)
            return state, reward

        return jax.lax.scan(body, CANONICAL.reset_env(key, params)[1], jnp.arange(168))[1].sum()

    return jax.vmap(episode)(keys)


def test_simulated_canonical_returns_are_the_exact_expectations():
    params = CANONICAL.default_params
    plan, keys = jax.jit(CANONICAL.solve)(params), jax.random.split(jax.random.key(5), 3000)
    for random, choose in ((False, lambda q: q.max(0)), (True, lambda q: q.mean(0))):
        returns = np.asarray(canonical_returns(plan, keys, random))
        error = returns.std() / np.sqrt(returns.size)
        assert error < 10.0  # one part in 300 of the optimum
        assert abs(returns.mean() - numpy_values(params, 0, 168, 31, choose)[15, 0]) < 4 * error


def dispatch_stage(price, capacity, power, eta, transition):
    """Stage of the problem in which amounts ``-k..k`` are chosen after the price ``f32[P, Z]`` is seen."""
    charge, amounts = jnp.arange(capacity + 1), jnp.arange(-power, power + 1)
    moved = jnp.clip(amounts, -charge[:, None], capacity - charge[:, None])  # [S, A]
    cash = jnp.where(moved > 0, -moved / eta, -moved * eta)

    def stage(t, value):
        return price[t][:, None, None] * cash + backward_dp.expect(transition, value)[:, charge[:, None] + moved]

    return stage


def test_dispatch_after_the_price_is_worth_little_more_than_bids():
    grid, transition = backward_dp.tauchen(0.64, 31, 4.0)
    residual = grid * 13.0 / np.sqrt(1 - 0.64**2)
    mean = 33.0 + jnp.asarray(TWO_PEAK, jnp.float32)[jnp.arange(168) % 24]
    price = (mean[:, None, None] + residual[:, None] + 80.0 * jnp.arange(2)).reshape(168, 62)
    both = jnp.kron(transition, jnp.array([[0.98, 0.02], [0.98, 0.02]]))
    plan = backward_dp.solve(dispatch_stage(price, 10, 3, 0.9, both), jnp.zeros((62, 11)), 168)
    assert abs(float(plan.value[30, 0]) - 3015.69) < 0.05


def linear_programme(prices, capacity, power, eta, start=0):
    """Perfect-foresight value: bought and sold amounts each hour, charge within its bounds."""
    hours = len(prices)
    running = np.tril(np.ones((hours, hours)))
    charge = np.hstack([running, -running])
    result = optimize.linprog(
        np.r_[prices / eta, -prices * eta],
        A_ub=np.vstack([charge, -charge]),
        b_ub=np.r_[np.full(hours, capacity - start), np.full(hours, start)],
        bounds=(0, power),
        method="highs",
    )
    return -result.fun


@pytest.mark.parametrize("seed", range(3))
def test_dynamic_programme_equals_linear_programme_on_a_known_path(seed):
    prices = np.maximum(33 + 10 * np.random.default_rng(seed).normal(size=48), 0.5)
    stage = dispatch_stage(jnp.asarray(prices, jnp.float32)[:, None], 10, 3, 0.9, jnp.ones((1, 1)))
    plan = backward_dp.solve(stage, jnp.zeros((1, 11)), 48)
    np.testing.assert_allclose(float(plan.value[0, 0]), linear_programme(prices, 10, 3, 0.9), rtol=1e-6)


def test_perfect_foresight_on_the_pjm_record():
    prices = pjm_prices(192)
    np.testing.assert_allclose(
        [prices.mean(), prices.std(), prices.min(), prices.max()], [33.07, 9.66, 19.45, 72.89], atol=5e-3
    )
    empty, full = 0.0, 0.0  # value of a one-unit battery, hour by hour backwards
    for price in prices[::-1]:
        empty, full = max(empty, full - price / 0.9), max(full, empty + price * 0.9)
    stage = dispatch_stage(jnp.asarray(prices, jnp.float32)[:, None], 1, 1, 0.9, jnp.ones((1, 1)))
    plan = backward_dp.solve(stage, jnp.zeros((1, 2)), 192)
    np.testing.assert_allclose(plan.value[0], [empty, full], rtol=1e-6)
    np.testing.assert_allclose(full, linear_programme(prices, 1, 1, 0.9, start=1), rtol=1e-9)
    assert abs(full - 222.714) < 1e-3


def test_bids_on_the_replayed_pjm_record_reach_perfect_foresight():
    env = EnergyTrading(num_periods=192, num_devices=1, max_capacity=1, cycle_hours=192)
    params = env.replay_params(pjm_prices(192))
    params = params.replace(initial_charge=jnp.ones((1,), jnp.int32))
    plan, key = jax.jit(env.solve)(params), jax.random.key(0)

    def body(state, _):
        action = env.reference_action(plan, state, params, key)
        _, state, reward, _, info = env.step_env(key, state, action, params)
        return state, (info["price"], reward)

    _, (price, reward) = jax.jit(lambda: jax.lax.scan(body, env.reset_env(key, params)[1], length=192))()
    np.testing.assert_allclose(price, pjm_prices(192), rtol=1e-6)
    np.testing.assert_allclose(reward.sum(), plan.value[0, 15, 1], rtol=1e-5)
    np.testing.assert_allclose(plan.value[0, 15, 1], 222.71444, rtol=1e-5)


def test_two_price_cycle():
    env = EnergyTrading(num_periods=24, num_devices=1, cycle_hours=2)
    params = env.replay_params(np.array([10.0, 30.0])).replace(reference_price=jnp.float32(22.0))
    exact = 12 * 3 * (30 * 0.9 - 10 / 0.9)
    assert abs(exact - 572.0) < 1e-9
    np.testing.assert_allclose(jax.jit(env.solve)(params).value[0, 15, 0], exact, rtol=1e-6)
    tasks = jax.tree.map(lambda x: x[None], params)
    keys = jax.random.split(jax.random.key(0), (1, 1))
    np.testing.assert_allclose(scoring.returns(env, "reference", tasks, keys), exact, rtol=1e-6)


def test_never_trades_when_prices_are_flat():
    zero = jnp.float32(0.0)
    flat = ENV.default_params.replace(profile=jnp.full((24,), 29.0), innovation_sd=zero, spike_probability=zero)
    plan = solve(flat)
    np.testing.assert_array_equal(plan.value[:, :, 0], 0.0)
    np.testing.assert_array_equal(plan.actions[:, :, :, 0], ENV.noop_action)
    # A device that gained energy in storage would trade: the zeros above are not for want of bids that could clear.
    gaining = solve(flat.replace(efficiency=jnp.full((D,), 1.2)))
    assert float(gaining.value[:, 15, 0].min()) > 1.0


def test_value_never_falls_with_charge_capacity_power_or_efficiency():
    base = ENV.default_params

    def values(**fields):
        return np.asarray(solve(base.replace(**fields)).value[:, 15])

    charge = values()[0, :11]
    assert np.all(np.diff(charge) > 0)
    for name, ladder in (
        ("capacity", np.array([6, 10, 16], np.int32)),
        ("power", np.array([1, 2, 4], np.int32)),
        ("efficiency", np.array([0.8, 0.9, 0.97], np.float32)),
        ("wear_cost", np.array([3.0, 1.0, 0.0], np.float32)),
    ):
        assert np.all(np.diff(values(**{name: jnp.asarray(ladder)})[:, 0]) > 1.0), name


def test_sum_of_device_plans_is_the_joint_optimum():
    env = EnergyTrading(num_periods=6, num_devices=2, max_capacity=6, num_prices=5)
    params = env.default_params.replace(
        power=jnp.array([2, 3], jnp.int32),
        efficiency=jnp.array([0.8, 0.95]),
        wear_cost=jnp.array([2.0, 0.5]),
    )
    p, (_, transition) = leaves(params), numpy_chain(0.64, 5)
    first, second = (axis.ravel() for axis in np.meshgrid(np.arange(7), np.arange(7), indexing="ij"))
    value = np.zeros((5, 49))
    for t in reversed(range(6)):
        price, chance, levels = numpy_outcomes(params, t, 5)
        best = np.full((5, 49), -np.inf)
        for one in PAIRS:
            for two in PAIRS:
                q = np.zeros((5, 49))
                for j in range(2):
                    now, cash, to = price[:, j, None], 0.0, []
                    for d, (charge, (lo, hi)) in enumerate(((first, one), (second, two))):
                        k, eta, wear = p["power"][d], p["efficiency"][d], p["wear_cost"][d]
                        bought = np.where(now <= levels[lo], np.minimum(k, 6 - charge), 0)
                        sold = np.where(now >= levels[hi], np.minimum(k, charge), 0)
                        cash = cash + now * (sold * eta - bought / eta) - wear * (bought + sold)
                        to.append(charge + bought - sold)
                    q += chance[j] * (transition @ (cash + np.take_along_axis(value, to[0] * 7 + to[1], 1)))
                best = np.maximum(best, q)
        value = best
    single = np.asarray(jax.jit(env.solve)(params).value)
    np.testing.assert_allclose(value, single[0][:, first] + single[1][:, second], rtol=1e-5, atol=1e-3)
    assert value[2, 0] > 50.0


@pytest.mark.parametrize("phi", [0.4, 0.64, 0.9])
def test_residual_has_the_stationary_deviation_of_its_autoregression(phi):
    grid, transition = map(np.asarray, backward_dp.tauchen(phi, 31, 4.0))
    np.testing.assert_allclose(transition, numpy_chain(phi, 31)[1], atol=1e-6)
    np.testing.assert_allclose(transition.sum(1), 1.0, atol=1e-6)
    stationary = np.linalg.matrix_power(transition.astype(float), 400)[15]
    spacing = grid[1] - grid[0]
    np.testing.assert_allclose(stationary @ grid, 0.0, atol=1e-5)
    np.testing.assert_allclose(stationary @ grid**2, 1 + spacing**2 / 12 / (1 - phi**2), rtol=2e-3)


def test_simulated_residual_follows_the_chain():
    env = EnergyTrading(num_periods=4000, num_devices=1)
    params = env.default_params

    def body(state, t):
        state, _, info = env.advance(state, sampling.uniforms(state.key, t, 2), params)
        return state, (state.residual, info["spike"])

    key = jax.random.key(3)
    start = env.init_state(key, jnp.zeros((0,)), params)
    _, (node, spike) = jax.lax.scan(body, start, jnp.arange(4000))
    node = np.asarray(node)
    _, transition = numpy_chain(0.64, 31)
    for now in (13, 15, 17):
        after = node[1:][node[:-1] == now]
        counts = np.bincount(after, minlength=31)
        kept = transition[now] * after.size > 5
        observed = np.r_[counts[kept], counts[~kept].sum()]
        expected = np.r_[transition[now][kept], transition[now][~kept].sum()] * after.size
        assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3
    assert abs(float(spike.mean()) - 0.02) < 4 * np.sqrt(0.02 * 0.98 / 4000)


# ---- the environment against its NumPy models -----------------------------------------------------------------------


def models_agree(params, key):
    trace, (last, _) = jax.device_get(play(params, key, jax.random.fold_in(key, 9)))
    seen, _, actions, uniforms, rewards, terminated, info = trace
    recording = Recording.of(params, np.zeros(0), seen, actions, uniforms, rewards, info, last)
    tolerances = Tolerances(reward=(1e-5, 1e-3), figures=(1e-5, 1e-3))
    check_numpy_model(ENV, LoopModel, BatchModel, [recording], tolerances)
    assert not terminated.any()
    assert np.abs(rewards).sum() > 100.0


def test_models_agree_on_the_default_task():
    models_agree(ENV.default_params, jax.random.key(1))


@hypothesis.settings(max_examples=6)
@hypothesis.given(SEEDS)
def test_models_agree_on_sampled_tasks(seed):
    key = jax.random.key(seed)
    task = sample(key)
    models_agree(task.replace(initial_charge=task.capacity // 2), jax.random.fold_in(key, 1))


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(SEEDS)
def test_books_balance(seed):
    key = jax.random.key(seed)
    task = sample(key)
    (seen, states, actions, _, rewards, _, info), (_, end) = jax.device_get(play(task, key, key))
    charge = np.concatenate([states.charge, end.charge[None]])
    assert np.all((charge >= 0) & (charge <= task.capacity))
    start, stop = charge[:-1:D], charge[D::D]  # at the start of each period and of the next
    moved = stop - start
    bought, sold = np.maximum(moved, 0), np.maximum(-moved, 0)
    assert np.all(np.abs(moved) <= task.power)
    last = slice(D - 1, None, D)
    np.testing.assert_array_equal(bought.sum(1), info["units_bought"][last])
    np.testing.assert_array_equal(sold.sum(1), info["units_sold"][last])
    price, eta = info["price"][last][:, None], np.asarray(task.efficiency)
    # Trades happen where the bids say, by the amounts that power and charge allow, and are paid at the price.
    pairs = np.array(PAIRS)[actions.reshape(P, D)]
    levels = np.r_[
        -np.inf, np.rint(np.asarray(task.reference_price) * np.float32((0.45, 0.67, 0.88, 1.09, 1.3))), np.inf
    ]
    buys, sells = price <= levels[pairs[..., 0]], price >= levels[pairs[..., 1]]
    assert not np.any(buys & sells)
    np.testing.assert_array_equal(bought, np.where(buys, np.minimum(task.power, task.capacity - start), 0))
    np.testing.assert_array_equal(sold, np.where(sells, np.minimum(task.power, start), 0))
    cash = price * (sold * eta - bought / eta) - np.asarray(task.wear_cost) * np.abs(moved)
    np.testing.assert_allclose(cash.sum(1), rewards[last], rtol=1e-4, atol=1e-2)
    others = np.arange(ENV.horizon) % D != D - 1
    np.testing.assert_array_equal(rewards[others], 0.0)
    assert ENV.observation_space().contains(jax.tree.map(lambda x: x[-1], seen))


@hypothesis.given(SEEDS, st.permutations(range(D)))
def test_permuting_devices_permutes_tokens(seed, order):
    key, order = jax.random.key(seed), jnp.asarray(order)
    task = sample(key)
    shuffled = jax.tree.map(lambda x: x[order] if x.shape == (D,) else x, task)
    (_, states, *_), _ = play(task, key, key)
    middle = jax.tree.map(lambda x: x[60], states)  # a period's start: nothing is decided yet
    other = middle.replace(charge=middle.charge[order], moved=middle.moved[order], settled=middle.settled[order])
    left, right = observe(middle, task).tokens, observe(other, shuffled).tokens
    turn = [COLUMN["is_turn"], COLUMN["is_candidate"]]
    left, right = left.at[:, turn].set(0), right.at[:, turn].set(0)
    np.testing.assert_allclose(left[:D][order], right[:D], atol=1e-6)
    np.testing.assert_allclose(left[D:], right[D:], atol=1e-6)
    assert float(jnp.abs(left[:D] - left[0]).max()) > 0.01


@hypothesis.given(SEEDS)
def test_nothing_hidden_is_seen(seed):
    key = jax.random.key(seed)
    task, other = sample(key), sample(jax.random.fold_in(key, 1))
    changed = task.replace(**{name: getattr(other, name) for name in ENV.hidden})
    (_, states, *_), _ = play(task, key, key)
    for time in (0, 1, 73):
        state = jax.tree.map(lambda x, t=time: x[t], states)
        jax.tree.map(np.testing.assert_array_equal, observe(state, task), observe(state, changed))
    first, _ = reset(key, task)
    second, _ = reset(key, changed)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert np.any(np.asarray(solve(task).actions) != np.asarray(solve(changed).actions))


def test_noise_does_not_depend_on_actions_and_states_past_the_horizon_stay_finite():
    task, key = sample(jax.random.key(4)), jax.random.key(7)
    (*_, one), (_, state) = play(task, key, jax.random.key(0))
    (*_, two), _ = play(task, key, jax.random.key(1))
    np.testing.assert_array_equal(one["price"], two["price"])
    step, plan = jax.jit(ENV.step_env), solve(task)
    for _ in range(2 * D):
        seen, state, reward, _, _ = step(key, state, jnp.int32(9), task)
        assert np.isfinite(reward)
        assert np.all(np.isfinite(seen.tokens))
        assert int(ENV.reference_action(plan, state, task, key)) in range(len(PAIRS))
    assert float(seen.column("progress")[0]) == 1.0


def test_five_episodes_of_random_bids_identify_what_is_hidden():
    task = sample(jax.random.key(11))
    sums, counts = np.zeros(24), np.zeros(24)
    rows = [[] for _ in range(D)]
    for episode in range(5):
        (seen, *_), (after, _) = jax.device_get(play(task, jax.random.key(episode), jax.random.key(99 + episode)))
        tokens = np.concatenate([seen.tokens[D::D], after.tokens[None]])  # after each of the periods
        price = tokens[:, D, COLUMN["unit_value"]] * 50
        np.add.at(sums, np.arange(1, P + 1) % 24, price)
        np.add.at(counts, np.arange(1, P + 1) % 24, 1)
        for d in range(D):
            row, power = tokens[:, d], float(task.power[d])
            own = row[:, COLUMN["unit_value"]] * 50 * power
            into, out = row[:, COLUMN["private_c"]] * 4, row[:, COLUMN["outflow"]] * 4
            # own = price * out * eta - price * into / eta - wear * (into + out) is linear in (eta, 1 / eta, wear)
            rows[d].append(np.stack([price * out, -price * into, -(into + out), own], axis=1))
    for d in range(D):
        table = np.concatenate(rows[d])
        (eta, inverse, wear), *_ = np.linalg.lstsq(table[:, :3], table[:, 3], rcond=None)
        np.testing.assert_allclose([eta, inverse], [task.efficiency[d], 1 / task.efficiency[d]], atol=1e-3)
        np.testing.assert_allclose(wear, task.wear_cost[d], atol=0.05)
    assert np.corrcoef(sums / counts, task.profile)[0, 1] > 0.9
    assert abs((sums / counts).mean() - float(task.profile.mean())) < 6.0


# ---- headroom and interface -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_knowing_the_task_is_worth_a_tenth_of_the_score():
    tasks = sample_many(jax.random.split(jax.random.key(1), 32))
    population = sample_many(jax.random.split(jax.random.key(2), 256))
    keys = jax.random.split(jax.random.key(3), (32, 4))
    mean = {name: float(scoring.returns(ENV, name, tasks, keys, population).mean()) for name in policies.POLICIES}
    floor = max(mean["random"], mean["noop"])
    best_blind = max(mean["heuristic"], mean["average"])
    assert mean["noop"] == 0.0
    assert floor < best_blind
    assert (best_blind - floor) / (mean["reference"] - floor) < 0.9


def test_energy_is_urgent_where_prices_are_high_or_hours_few():
    task = ENV.default_params.replace(power=jnp.array([3, 3, 2], jnp.int32))
    _, state = reset(jax.random.key(0), task)
    state = state.replace(time=jnp.int32(10 * D), charge=jnp.array([10, 0, 1], jnp.int32), mean_price=jnp.float32(33.0))
    for price, urgency, slack in ((43.0, [1, 0, 1 / 3], 0), (33.0, [0, 0, 0], 0), (26.4, [0, 0, 0], 0.2)):
        seen = observe(state.replace(price=jnp.float32(price)), task)
        np.testing.assert_allclose(seen.column("urgency")[:D], urgency, atol=1e-6)
        np.testing.assert_allclose(seen.column("slack")[:D], slack, atol=1e-6)
    # Three hours are left: 4 of 10 units can be sold in no later one, so that 3 lose all by waiting.
    late = observe(state.replace(time=jnp.int32((P - 3) * D), price=jnp.float32(26.4)), task)
    np.testing.assert_allclose(late.column("urgency")[:D], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(late.column("slack")[:D], [0, 0.2, 0.2], atol=1e-6)


def test_actions_are_described():
    seen, _ = reset(jax.random.key(0), ENV.default_params)
    assert len(PAIRS) == len(set(PAIRS)) == ENV.num_actions == 21
    assert all(lo < hi for lo, hi in PAIRS)
    by_pair = dict(zip(PAIRS, np.asarray(seen.actions), strict=True))
    np.testing.assert_allclose(by_pair[0, 6][:5], [1, 0, 0, 0, 0])
    np.testing.assert_allclose(by_pair[5, 6][:5], [0, 1, -1, 1.30, 0], atol=1e-6)
    np.testing.assert_allclose(by_pair[0, 1][:5], [0, 1, 1, 0, 0.45], atol=1e-6)
    np.testing.assert_allclose(by_pair[2, 5][:5], [0, 0.6, -0.2, 0.67, 1.30], atol=1e-6)
    np.testing.assert_array_equal(seen.action_target, 0)


def test_tasks_are_in_their_ranges_and_differ():
    tasks = sample_many(jax.random.split(jax.random.key(0), 200))
    ranges = {
        "reference_price": (25, 45),
        "persistence": (0.4, 0.9),
        "innovation_sd": (2, 8),
        "spike_probability": (0, 0.04),
        "spike_size": (40, 120),
        "efficiency": (0.70, 0.97),
        "wear_cost": (0, 12),
    }
    for name, (low, high) in ranges.items():
        drawn = np.asarray(getattr(tasks, name))
        assert low <= drawn.min() < low + 0.1 * (high - low), name
        assert high - 0.1 * (high - low) < drawn.max() <= high, name
    assert set(np.unique(tasks.capacity)) == {6, 10, 16}
    assert set(np.unique(tasks.power)) == {1, 2, 3, 4}
    for leaf, default in zip(jax.tree.leaves(tasks), jax.tree.leaves(ENV.default_params), strict=True):
        assert leaf.shape[1:] == default.shape
        assert leaf.dtype == default.dtype


def test_state_is_stable_under_scan_and_step_traces_once():
    task, key = sample(jax.random.key(0)), jax.random.key(1)
    traces = []

    @jax.jit
    def step(state, action):
        traces.append(1)
        return ENV.step_env(key, state, action, task)

    _, state = reset(key, task)
    for time in range(2 * D):
        before = jax.tree.map(lambda x: (x.shape, x.dtype), state)
        _, state, *_ = step(state, jnp.int32(time))
        assert before == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_periods", 0), ("num_devices", 0), ("max_capacity", 0), ("num_prices", 30), ("cycle_hours", 2.5)],
)
def test_wrong_shapes_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        EnergyTrading(**{field: value})


def test_wrong_records_are_refused():
    with pytest.raises(ValueError, match="prices"):
        ENV.replay_params(np.ones(23))
    with pytest.raises(ValueError, match="hours"):
        pjm_prices(10_000)
