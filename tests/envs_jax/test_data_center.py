"""Data centre: closed forms, invariants, the distance to the optimum, agreement with two independent NumPy models."""

import dataclasses
import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.numpy_models.data_center import BatchModel, LoopModel
from benchmarks.studies import dispatch_gap
from envs_jax import sampling
from envs_jax.domains.data_center import DataCenter, cooling_factor
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import setup_queue as sq
from envs_jax.testing import Recording, Tolerances, check_numpy_model

ENV = DataCenter()
N, P, Q = ENV.num_servers, ENV.num_periods, ENV.queue
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)
# Arrival rate, speed and setup rate of the check figures: mean number in the system, share of time in setup.
ARRIVALS = 800
ROWS = ((0.5, 1.0, 0.2, 3.5, 0.3571), (0.8, 1.0, 1.0, 4.8, 0.0889), (0.3, 2.0, 0.1, 3.17647, 0.6375))

sample = jax.jit(ENV.sample_params)
reset = jax.jit(ENV.reset_env)
solve = jax.jit(ENV.solve)
mean_cost, marginal_costs = jax.jit(sq.mean_cost), jax.jit(sq.marginal_costs)
split = jax.jit(sq.split, static_argnames="grid")


@jax.jit
def play(params, key, actions):
    """One episode of given choices ``i32[P]``: what was seen, states after, rewards, key figures, uniforms."""

    def body(carry, xs):
        seen, state = carry
        action, number = xs
        after, following, reward, _, info = ENV.step_env(key, state, action, params)
        return (after, following), (seen.tokens, following, reward, info, sampling.uniforms(key, number, 3))

    (last, _), trace = jax.lax.scan(body, ENV.reset_env(key, params), (actions, jnp.arange(P)))
    return *trace, last.tokens


def by_name(params):
    return {f.name: np.asarray(getattr(params, f.name)) for f in dataclasses.fields(params)}


def choices(seed, kind="random"):
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.integers(0, N, P).astype(np.int32)
    if kind == "two":
        return rng.integers(0, 2, P).astype(np.int32)
    return np.full(P, seed % N, np.int32)


@functools.partial(jax.jit, static_argnames=("env", "arrivals", "rule"))
def long_run(env, params, keys, arrivals, rates=None, rule=None):
    """Sums ``[batch]`` of each key figure over ``arrivals`` jobs after as many to forget the empty start.

    Jobs are sent by chance, by marginal costs at ``rates``, or where ``rule(state, uniform)`` says. The clock stands
    still, so no job is the last.
    """

    @jax.vmap
    def run(key):
        def body(state, number):
            u = jax.random.uniform(jax.random.fold_in(key, number), (4,), minval=1e-7)
            if rule is not None:
                action = rule(state, u[3])
            elif rates is None:
                action = jnp.minimum(jnp.floor(u[3] * env.num_servers), env.num_servers - 1).astype(jnp.int32)
            else:
                action = env.reference_action(rates, state, params, key)
            state, reward, info = env.advance(env.choose(state, 0, action, params), u[:3], params)
            return state, info | {"cost": -reward}

        _, info = jax.lax.scan(body, env.init_state(key, jnp.zeros(0), params), jnp.arange(2 * arrivals))
        return {name: x[arrivals:].sum() for name, x in info.items()}

    return run(keys)


def keys(seed, batch=256):
    return jax.random.split(jax.random.key(seed), batch)


def ratio(figure, per):
    """Ratio of means over independent runs, with four standard errors."""
    figure, per = np.asarray(figure, float), np.asarray(per, float)
    value = figure.sum() / per.sum()
    return value, 4 * (figure - value * per).std() / np.sqrt(len(per)) / per.mean()


ONE = DataCenter(num_servers=1, num_periods=64, queue=64)


def one_queue(arrivals, speed, setup_rate, **fixed):
    values = {"arrival_rate": arrivals, "speed": [speed], "setup_rate": [setup_rate], "energy_price": 0.0} | fixed
    return ONE, ONE.default_params.replace(**{k: jnp.asarray(v, jnp.float32) for k, v in values.items()})


def servers64(mu, delta, busy=0.0, setup=0.0, holding=0.0):
    """Servers in float64; call under ``jax.enable_x64``."""
    return sq.Servers(*(jnp.asarray(x, jnp.float64) for x in (mu, delta, busy, setup, holding)))


# ---- the queue with setup -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arrivals", "mu", "delta", "number", "share"), ROWS)
def test_closed_forms_give_the_check_figures(arrivals, mu, delta, number, share):
    with jax.enable_x64(True):
        jobs = float(mean_cost(servers64(mu, delta, holding=1.0), jnp.float64(arrivals)))
        setup = float(mean_cost(servers64(mu, delta, setup=1.0), jnp.float64(arrivals)))
        busy = float(mean_cost(servers64(mu, delta, busy=1.0), jnp.float64(arrivals)))
    assert abs(jobs - number) < 5e-6
    assert abs(jobs - arrivals * (1 / (mu - arrivals) + 1 / delta)) < 1e-12
    a, rho = arrivals / delta, arrivals / mu
    assert abs(setup - (1 - rho) * a / (1 + a)) < 1e-12
    assert abs(setup - share) < 5e-5
    assert abs(busy - rho) < 1e-12


@pytest.mark.parametrize(("arrivals", "mu", "delta", "number", "share"), ROWS)
def test_a_queue_with_setup_simulated_is_within_sampling_error(arrivals, mu, delta, number, share):
    env, params = one_queue(arrivals, mu, delta, energy_price=1.0, setup_power=[1.0], busy_power=[0.0])
    run = long_run(env, params, keys(1), ARRIVALS)
    for figure, expected in (("delay", number), ("energy", share)):
        value, error = ratio(run[figure], run["gap"])
        print(f"lambda {arrivals}, mu {mu}, delta {delta}: {figure} {value:.4f} +- {error:.4f}, exact {expected}")
        assert error < 0.1 * expected  # or the next line would hold for anything
        assert abs(value - expected) < error
    # Arrivals see time averages.
    seen, error = ratio(run["in_system"] - ARRIVALS, np.full(256, float(ARRIVALS)))
    assert abs(seen - number) < error


def test_without_setup_a_split_by_chance_is_a_row_of_plain_queues():
    env = DataCenter(num_servers=4, num_periods=64, queue=64)
    params = env.default_params.replace(arrival_rate=jnp.float32(2.4), setup_rate=jnp.full(4, 1e6, jnp.float32))
    run = long_run(env, params, keys(2), 400)
    value, error = ratio(run["delay"], run["gap"])
    assert error < 0.06 * 6.0
    assert abs(value - 4 * 0.6 / 0.4) < error


def test_jobs_sent_to_the_server_that_is_free_first_are_a_shared_queue():
    """Then nobody waits while a server idles: M/M/2 (Erlang C), lambda = 1.5, mu = 1."""
    env, offered = DataCenter(num_servers=2, num_periods=64, queue=64), 1.5
    params = env.default_params.replace(arrival_rate=jnp.float32(offered), setup_rate=jnp.full(2, 1e6, jnp.float32))
    waits = offered**2 / 2 / (1 - offered / 2)  # against the states of 0 and 1 jobs
    waits /= 1 + offered + waits
    response = 1 + waits / (2 - offered)
    np.testing.assert_allclose([waits, response], [0.642857, 2.285714], atol=1e-6)
    runs = keys(3, 512)
    run = long_run(env, params, runs, ARRIVALS, rule=lambda state, _: jnp.argmin(state.remaining.max(-1)))
    value, error = ratio(run["delay"], np.full(len(runs), float(ARRIVALS)))
    print(f"M/M/2: mean response {value:.4f} +- {error:.4f} s, Erlang {response:.6f}")
    assert error < 0.05 * response
    assert abs(value - response) < error


CHOICES = ((0.5, 1.26569), (0.7, 1.61445), (0.8, 1.94736), (0.9, 2.61406), (0.95, 3.38305), (0.99, 5.43200))
"""Load, mean response of the shorter of two random queues among infinitely many."""


def test_the_shorter_of_two_random_queues():
    """Mitzenmacher 1996: sum_i rho^(2^i - 2) with infinitely many servers; 128 of them are 1 % away."""
    for rho, figure in CHOICES:
        assert abs(sum(rho ** (2.0**i - 2) for i in range(1, 30)) - figure) < 5e-6
    n, (rho, limit) = 128, CHOICES[1]
    env = DataCenter(num_servers=n, num_periods=64, queue=12)
    params = env.default_params.replace(arrival_rate=jnp.float32(rho * n), setup_rate=jnp.full(n, 1e6, jnp.float32))

    def shorter(state, uniform):
        first, second = jnp.floor(uniform * n), jnp.floor((uniform * n) % 1.0 * n)
        pair = jnp.stack([first, second]).astype(jnp.int32)
        return pair[jnp.argmin((state.remaining[pair] > 0).sum(-1))]

    runs, jobs = keys(4, 64), 4000
    run = long_run(env, params, runs, jobs, rule=shorter)
    value, error = ratio(run["delay"], np.full(len(runs), float(jobs)))
    print(f"two choices, load {rho}: mean response {value:.4f} +- {error:.4f} s, limit {limit}")
    assert error < 0.02 * limit
    assert abs(value - limit) < error + 0.01 * limit


@pytest.mark.parametrize("seed", range(3))
def test_marginal_costs_are_differences_of_relative_values(seed):
    rng = np.random.default_rng(seed)
    mu, delta, busy, setup, w = rng.uniform(0.5, 2), rng.uniform(0.05, 1), *rng.uniform(0, 4, 3)
    arrivals, size = 0.5 * mu, 200
    jobs, in_setup = dispatch_gap.states(size)
    here = np.arange(len(jobs))
    joined = np.where(jobs == size, here, here + 1)
    joined[0] = size + 1
    left = np.where(in_setup, jobs, here - 1)
    leave = np.where(in_setup, delta, np.where(jobs > 0, mu, 0.0))
    cost = w * jobs + np.where(in_setup, setup, np.where(jobs > 0, busy, 0.0))
    # cost - g + arrivals (v(joined) - v) + leave (v(left) - v) = 0 with v(off) = 0, g in the place of v(off).
    system = np.zeros((len(jobs),) * 2)
    np.add.at(system, (here, joined), arrivals)
    np.add.at(system, (here, left), leave)
    system[here, here] -= arrivals + leave
    system[:, 0] = -1.0
    value = np.linalg.solve(system, -cost)
    g, value[0] = value[0], 0.0
    with jax.enable_x64(True):
        servers = servers64(mu, delta, busy, setup, w)
        closed = np.asarray(marginal_costs(servers, jnp.float64(arrivals), jnp.asarray(jobs), jnp.asarray(in_setup)))
        assert abs(float(mean_cost(servers, jnp.float64(arrivals))) - g) < 1e-9
    small = jobs <= 40  # far from where the table ends
    np.testing.assert_allclose(closed[small], (value[joined] - value)[small], rtol=1e-9)
    assert (np.diff(closed[1:size]) > 0).all()


def test_expected_costs_until_the_next_arrival_tend_to_those_until_empty():
    servers = sq.Servers(*(jnp.full(8, x) for x in (1.3, 0.2, 1.0, 1.0, 1.0)))
    jobs, in_setup = jnp.arange(8), jnp.arange(8) % 2 == 1
    until_next, until_empty = jax.jit(sq.until_next_arrival), jax.jit(sq.until_empty)
    rare = until_next(servers, jnp.float32(2e-3), jobs, in_setup)
    np.testing.assert_allclose(rare, until_empty(servers, jobs, in_setup), rtol=0.05, atol=1e-3)
    # No time, no cost: with arrivals all the time, n jobs cost n times the gap.
    often = until_next(servers, jnp.float32(1e3), jobs, in_setup)
    np.testing.assert_allclose(often[0], jobs / 1e3, rtol=5e-3)


def test_the_split_is_the_best_of_its_grid():
    with jax.enable_x64(True):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            servers = servers64(*(rng.uniform(a, b, 3) for a, b in ((0.5, 2), (0.05, 1), (0, 4), (0, 4), (1, 1))))
            arrivals = 0.5 * float(servers.speed.sum())
            given = np.asarray(split(servers, jnp.float64(arrivals), grid=12))
            assert abs(given.sum() - arrivals) < 1e-12
            units = [u for u in itertools.product(range(13), repeat=3) if sum(u) == 12]
            rates = arrivals * np.array(units) / 12
            rates = rates[(rates < 0.98 * np.asarray(servers.speed)).all(1)]
            best = np.asarray(mean_cost(servers, jnp.asarray(rates))).sum(1).min()
            assert abs(float(mean_cost(servers, jnp.asarray(given)).sum()) - best) < 1e-12


def test_cooling_factors_of_the_warmest_and_coldest_supply():
    assert abs(float(cooling_factor(15.0)) - (1 + 1 / 2.0)) < 1e-6  # COP(15) = 1.53 + .012 + .458
    assert abs(float(cooling_factor(25.0)) - (1 + 1 / 4.728)) < 1e-6


# ---- agreement with NumPy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "kind"), [(0, "random"), (1, "random"), (2, "two"), (3, "one")])
def test_two_numpy_models_agree_step_by_step(seed, kind):
    params, actions = sample(jax.random.key(seed)), choices(seed, kind)
    tokens, states, rewards, info, uniforms, last = jax.device_get(play(params, jax.random.key(seed + 10), actions))
    recording = Recording(
        by_name(params),
        np.zeros(0),
        np.concatenate([tokens, last[None]]),
        np.ones((P + 1, N), bool),
        actions,
        uniforms,
        rewards,
        info,
    )

    def server_chosen(model, t):
        assert t == 0 or states.choice[t - 1] == model.choice

    (loop,) = check_numpy_model(
        ENV,
        LoopModel,
        BatchModel,
        [recording],
        Tolerances(tokens=(0.0, 2e-5), reward=(1e-4, 1e-4), figures=(1e-4, 1e-4)),
        inspect=server_chosen,
    )
    assert states.choice[-1] == loop.choice
    assert (kind == "random") or (states.choice != actions).any()  # jobs were passed on by full servers


# ---- invariants ---------------------------------------------------------------------------------------------------


@hypothesis.given(SEEDS)
def test_rewards_are_the_responses_and_energies_of_all_jobs_in_order_of_arrival(seed):
    """The recursion of a FIFO server, job by job: start when the one before is done, or after the setup."""
    params = sample(jax.random.key(seed))
    _, states, rewards, info, uniforms, _ = jax.device_get(
        play(params, jax.random.key(seed + 1), choices(seed, "random" if seed % 3 else "one"))
    )
    task = {name: x.astype(float) for name, x in by_name(params).items()}
    gap, size, setup = -np.log(uniforms.astype(float).T)
    now, free, cost, setups, completions = 0.0, np.zeros(N), 0.0, 0, []
    for k, i in enumerate(states.choice):
        off = free[i] <= now
        prepare = off * setup[k] / task["setup_rate"][i]
        work = size[k] / task["speed"][i]
        before, free[i] = free[i], max(free[i], now) + prepare + work
        now_ends = info["gap"][: k + 1].sum(dtype=float)
        stays = float(states.remaining[k][i].max())
        if stays > 0:  # work conservation: the environment's server is done when this one is
            assert abs(stays + now_ends - free[i]) < 1e-4 * free[i] + 1e-3
        assert free[i] > before
        completions.append(free[i])
        slack = 1e-4 * now + 1e-3  # of float32
        after = [(np.array(completions) > now + shift).sum() for shift in (slack, -slack)]
        assert after[0] <= info["in_system"][k] <= after[1]
        cost += task["delay_price"] * (free[i] - now)
        cost += (
            task["energy_price"]
            * task["cooling"][i]
            * (task["setup_power"][i] * prepare + task["busy_power"][i] * work)
        )
        setups += off
        now += gap[k] / task["arrival_rate"]
    np.testing.assert_allclose(-rewards.astype(float).sum(), cost, rtol=1e-4)
    assert info["setups"].sum() == setups
    # Jobs are conserved, and the last of them has left when the episode ends.
    there = (states.remaining > 0).sum((1, 2))
    np.testing.assert_array_equal(states.finished.sum(1).cumsum() + there, np.arange(1, P + 1))
    np.testing.assert_array_equal(states.sent.sum(1), np.arange(1, P + 1))
    assert there[-1] == 0
    assert ((states.setup > 0) <= (states.remaining > 0).any(-1)).all()
    np.testing.assert_allclose(states.power * info["gap"], info["energy"], rtol=1e-5)


def test_jobs_leave_a_server_in_the_order_in_which_they_came():
    params, key = sample(jax.random.key(5)), jax.random.key(6)
    _, states, _, _, _, _ = jax.device_get(play(params, key, choices(5, "two")))
    overtaken = compared = 0
    for remaining, sent, i in zip(states.remaining, states.sent, states.choice, strict=True):
        newest = (sent[i] - 1) % Q
        others = np.delete(remaining[i], newest)
        overtaken += (others > remaining[i][newest]).sum()
        compared += (others > 0).sum()
    assert compared > 100
    assert overtaken == 0


@hypothesis.given(SEEDS)
def test_permuting_servers_permutes_everything(seed):
    params, actions = sample(jax.random.key(seed)), choices(seed)
    order = np.random.default_rng(seed).permutation(N)
    key = jax.random.key(seed + 1)
    moved = params.replace(**{name: x[order] for name, x in vars(params).items() if x.shape == (N,)})
    tokens, states, rewards, info, *_ = jax.device_get(play(params, key, actions))
    where = np.argsort(order)
    tokens2, states2, rewards2, info2, *_ = jax.device_get(play(moved, key, where[actions].astype(np.int32)))
    np.testing.assert_allclose(tokens2[:, :N], tokens[:, order], atol=1e-5)
    np.testing.assert_allclose(tokens2[:, N], tokens[:, N], atol=1e-5)
    np.testing.assert_allclose(states2.remaining, states.remaining[:, order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rewards2, rewards, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(info2["expected_reward"], info["expected_reward"], rtol=1e-4, atol=1e-4)
    rates, rates2 = solve(params), solve(moved)
    # Equal splits may exist; then any of them will do.
    cost = lambda p, r: mean_cost(ENV.servers(p), r).sum()  # noqa: E731
    np.testing.assert_allclose(cost(params, rates), cost(moved, rates2), rtol=1e-4)


@hypothesis.given(SEEDS, st.floats(1.05, 3.0))
def test_faster_servers_without_setups_leave_no_job_longer_and_prices_only_weigh(seed, factor):
    params, actions, key = sample(jax.random.key(seed)), choices(seed), jax.random.key(seed + 1)
    instant = params.replace(setup_rate=jnp.full(N, 1e8, jnp.float32))
    slow = jax.device_get(play(instant, key, actions))
    fast = jax.device_get(play(instant.replace(speed=instant.speed * factor), key, actions))
    assert (fast[3]["in_system"] <= slow[3]["in_system"]).all()
    assert fast[3]["delay"].sum() < slow[3]["delay"].sum()
    dear = params.replace(energy_price=params.energy_price * factor)
    cheap, dear_run = jax.device_get(play(params, key, actions)), jax.device_get(play(dear, key, actions))
    np.testing.assert_array_equal(cheap[1].remaining, dear_run[1].remaining)
    extra = cheap[2] - float(params.energy_price) * (np.float32(factor) - 1) * cheap[3]["energy"]
    np.testing.assert_allclose(dear_run[2], extra, rtol=1e-4, atol=1e-4)


def test_a_full_server_passes_a_job_on_to_the_emptiest():
    params = sample(jax.random.key(0)).replace(arrival_rate=jnp.float32(1e4), setup_rate=jnp.full(N, 1e-3, jnp.float32))
    _, states, *_ = jax.device_get(play(params, jax.random.key(1), choices(2, "one")))
    jobs = (states.remaining > 0).sum(-1)
    assert jobs[Q - 1, 2] == Q
    assert (states.choice[:Q] == 2).all()
    np.testing.assert_array_equal(states.choice[Q : Q + 5], [0, 1, 3, 4, 5])
    assert jobs.max() == Q


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="num_servers must be a whole number from 1 to 1024, got 0"):
        DataCenter(num_servers=0)
    with pytest.raises(ValueError, match=r"num_servers x queue must be at least num_periods = 128, .*got 2 x 24 = 48"):
        DataCenter(num_servers=2)


# ---- policies -----------------------------------------------------------------------------------------------------


def test_two_servers_first_policy_iteration_is_close_to_the_optimum_and_simulates_as_its_chain_predicts():
    env = DataCenter(num_servers=2, num_periods=24, queue=12)
    rows, draw, solved = [], jax.jit(env.sample_params), jax.jit(env.solve)
    for seed in (0, 1, 2):
        task = draw(jax.random.key(seed))
        task = task.replace(arrival_rate=0.35 * task.speed.sum())  # queues of 12 are enough
        rows.append(dispatch_gap.compare(env, task, 12, tolerance=1e-4))
        print("  ".join(f"{name} {value:.4f}" for name, value in rows[-1].items()))
    gaps = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name in ("FPI", "own delay", "shorter queue", "best split"):
        assert (gaps[name] > 1 - 2e-4).all()  # nothing is better than optimal
    assert gaps["FPI"].mean() < 1.06
    assert gaps["FPI"].max() < 1.12
    assert gaps["FPI"].mean() < min(gaps[name].mean() for name in ("own delay", "shorter queue", "best split"))
    run = long_run(env, task, keys(9), 300, rates=solved(task))
    value, error = ratio(run["cost"], run["gap"])
    assert error < 0.05 * value
    assert abs(value - rows[-1]["FPI"] * rows[-1]["optimum"]) < error


def test_tasks_that_look_alike_want_different_servers():
    params = sample(jax.random.key(0))
    turned = params.replace(**{name: getattr(params, name)[::-1] for name in ("speed", "setup_rate", "busy_power")})
    turned = turned.replace(setup_power=turned.busy_power)
    seen, state = reset(jax.random.key(1), params)
    other, _ = reset(jax.random.key(1), turned)
    np.testing.assert_array_equal(seen.tokens, other.tokens)
    act = jax.jit(ENV.reference_action)
    first, second = (int(act(solve(p), state, p, jax.random.key(0))) for p in (params, turned))
    assert first != second


def test_default_farm_is_a_row_of_the_queues_of_the_check_figures():
    params = ENV.default_params
    np.testing.assert_allclose(params.arrival_rate / N, ROWS[0][0])
    np.testing.assert_allclose(params.speed, ROWS[0][1])
    np.testing.assert_allclose(params.setup_rate, ROWS[0][2])
    even = jnp.full(N, params.arrival_rate / N)
    servers = ENV.servers(params.replace(energy_price=jnp.float32(0.0)))
    np.testing.assert_allclose(mean_cost(servers, even), ROWS[0][3], rtol=1e-5)
