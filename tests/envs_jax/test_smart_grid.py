"""Smart grid: published figures, invariants, and step-by-step agreement with two independent NumPy models."""

import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

from benchmarks.numpy_models.smart_grid import BatchModel, LoopModel, chain
from envs_jax import policies, sampling
from envs_jax.data import ieee14
from envs_jax.domains.smart_grid import OVERLOAD_COST, SHED_COST, SmartGrid
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import backward_dp, dc_network, storage_lattice
from envs_jax.testing import Recording, Tolerances, check_numpy_model
from tests.envs_jax.smart_grid_programs import serve

ENV = SmartGrid()
D, P = ENV.num_turns, ENV.num_periods
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)

reset = jax.jit(ENV.reset_env)
advance = jax.jit(ENV.advance)
observe = jax.jit(ENV.observation)
sample = jax.jit(ENV.sample_params)
solve = jax.jit(ENV.solve)
# The storages in another order; a cycle, which is not its own inverse.
SHUFFLED = SmartGrid(storage_buses=tuple(ENV.storage_buses[i] for i in (2, 0, 1)))
shuffled_advance, shuffled_observe = jax.jit(SHUFFLED.advance), jax.jit(SHUFFLED.observation)
foresight = jax.jit(jax.vmap(ENV.foresight, (None, 0)))


@jax.jit
def play(params, key, policy_key, push):
    """One episode of random legal choices; ``push`` 1 (2) charges (discharges) all that is legal."""

    def body(carry, time):
        seen, state = carry
        random = policies.random_actions(seen, jax.random.fold_in(policy_key, time))
        pushed = jnp.where(seen.action_mask[push], push, 0)
        action = jnp.where(push == 0, random, pushed).astype(jnp.int32)
        uniforms = sampling.uniforms(key, time // D, ENV.num_uniforms)
        after, following, reward, terminated, info = ENV.step_env(key, state, action, params)
        return (after, following), (seen, state, action, uniforms, reward, terminated, info)

    last, trace = jax.lax.scan(body, ENV.reset_env(key, params), jnp.arange(ENV.horizon))
    return sampling.uniforms(key, sampling.RESET_INDEX, ENV.num_reset_uniforms), trace, last


@jax.jit
def follow(plan, params, keys):
    """Returns ``[E]`` of the reference policy with ``plan``."""

    def episode(key):
        def body(state, _):
            action = ENV.reference_action(plan, state, params, key)
            _, state, reward, *_ = ENV.step_env(key, state, action, params)
            return state, reward

        return jax.lax.scan(body, ENV.reset_env(key, params)[1], None, length=ENV.horizon)[1].sum()

    return jax.vmap(episode)(keys)


@hypothesis.given(seed=SEEDS, slack=st.integers(1, 13))
def test_flows_balance_every_bus_whatever_the_slack(seed, slack):
    ends = ieee14.LINES[:, 0] - 1, ieee14.LINES[:, 1] - 1
    injection = np.random.default_rng(seed).normal(size=14) * 50
    injection -= injection.mean()
    flow = dc_network.transfer_factors(*ends, ieee14.REACTANCE) @ injection
    np.testing.assert_allclose(dc_network.transfer_factors(*ends, ieee14.REACTANCE, slack) @ injection, flow, atol=1e-9)
    leaving = np.zeros(14)
    np.add.at(leaving, ends[0], flow)
    np.add.at(leaving, ends[1], -flow)
    np.testing.assert_allclose(leaving, injection, atol=1e-9)


@hypothesis.given(seed=SEEDS)
def test_dispatch_is_optimal_and_its_cost_convex(seed):
    params = sample(jax.random.key(seed))
    supply = jax.device_get(jax.jit(ENV.supply)(params))
    demand = np.linspace(0.5, float(supply.total[-1]) - 0.5, 41).astype(np.float32)
    served, cost = jax.device_get(serve(supply, demand))
    high = np.asarray(params.available) * ieee14.UNIT_MAX
    a, b = (np.asarray(params.fuel, float) * x for x in ieee14.UNIT_COST.T)
    np.testing.assert_allclose(served.output.sum(1), demand, atol=1e-3)
    own = 2 * a * served.output + b
    price = served.price[:, None]
    # Karush-Kuhn-Tucker: lambda between what one MW less saves and one MW more costs.
    assert (own <= price + 1e-3)[served.output > 1e-2].all()
    assert (own >= price - 1e-3)[served.output < high - 1e-2].all()
    np.testing.assert_allclose(cost, (a * served.output**2 + b * served.output).sum(1), rtol=1e-5, atol=0.02)
    assert (np.diff(cost) > 0).all()
    assert (np.diff(cost, 2) > -0.01).all()
    assert (served.participation >= 0).all()
    np.testing.assert_allclose(served.participation.sum(1), 1.0, atol=1e-5)


def test_supply_curve_of_a_task_is_that_of_its_units():
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 64))
    average = jax.jit(jax.vmap(ENV.average_task, (0, None)))(tasks, tasks)
    np.testing.assert_allclose(average.fuel[0], np.asarray(tasks.fuel).mean(0), rtol=1e-5)
    for some in (tasks, average, jax.tree.map(lambda x: x[None], ENV.default_params)):
        high = some.available * ieee14.UNIT_MAX
        a, b = (np.asarray(some.fuel, float) * x for x in ieee14.UNIT_COST.T)
        np.testing.assert_allclose(some.supply_price, np.sort(np.concatenate([b, b + 2 * a * high], 1), 1), rtol=1e-6)
        at = np.asarray(some.supply_price, float)[..., None]
        output = np.clip((at - b[:, None]) / (2 * a[:, None]), 0, high[:, None])
        # Units 3-5 raise their output by 50 MW per $/MWh and more: 1e-6 of the price is 2e-3 MW.
        np.testing.assert_allclose(some.supply_output, output, atol=1e-2)
        np.testing.assert_allclose(some.supply_total, np.asarray(some.supply_output).sum(-1), rtol=1e-6)


def test_outside_the_supply_curve_power_is_free_or_scarce():
    supply = ENV.supply(ENV.default_params)
    served, cost = serve(supply, jnp.float32([-30.0, 782.4, 772.4]))
    np.testing.assert_array_equal(served.price[:2], [0.0, SHED_COST])
    assert cost[0] == 0.0
    np.testing.assert_allclose(cost[1] - cost[2], 10 * SHED_COST, rtol=1e-4)


def test_rouwenhorst_keeps_variance_and_autocorrelation():
    for phi, size in ((0.9, 5), (0.9, 3), (-0.3, 4), (0.5, 1)):
        one = backward_dp.rouwenhorst(phi, size)
        values, transition, law = chain(size, phi)
        np.testing.assert_allclose(one.transition, transition, atol=1e-12)
        np.testing.assert_allclose(one.grid, values, atol=1e-6)
        np.testing.assert_allclose(one.law, np.cumsum(law), atol=1e-6)
        np.testing.assert_allclose(np.array(law) @ transition, law, atol=1e-12)
        np.testing.assert_allclose(np.array(transition) @ values, phi * np.array(values), atol=1e-12)
        assert abs(np.array(law) @ np.square(values) - (size > 1)) < 1e-12


# ---- the environment against its NumPy models -----------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "push"), [(None, 0), (None, 1), (0, 0), (1, 1), (2, 2), (3, 0), (4, 0)])
def test_agrees_with_the_independent_models(seed, push):
    params = ENV.default_params if seed is None else sample(jax.random.key(seed))
    if push == 2:
        params = params.replace(initial_charge=jnp.full((D,), 4, jnp.int32))
    start, trace, (last, _) = jax.device_get(play(params, jax.random.key(5), jax.random.key(6), push))
    seen, _, actions, uniforms, rewards, terminated, info = trace
    recording = Recording.of(params, start, seen, actions, uniforms, rewards, info, last)
    tolerances = Tolerances(tokens=(1e-4, 2e-5), reward=(1e-4, 1e-4), figures=(1e-5, 1e-3))
    check_numpy_model(ENV, LoopModel, BatchModel, [recording], tolerances)
    assert not terminated.any()
    if push:
        assert not seen.action_mask[-D:, push].any()  # pushed to the end of the lattice, where the mask bites


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(seed=SEEDS, push=st.sampled_from([0, 0, 1]))
def test_energy_is_conserved_and_charge_stays_on_its_lattice(seed, push):
    params = sample(jax.random.key(seed))
    _, trace, (_, last) = jax.device_get(play(params, jax.random.key(seed + 1), jax.random.key(seed), push))
    looks, states, actions, _, rewards, _, info = trace
    moves = storage_lattice.MOVES[actions].reshape(P, D)
    held = np.concatenate([states.charge[::D], last.charge[None]])
    np.testing.assert_array_equal(np.diff(held, axis=0), moves)
    assert (held >= 0).all()
    assert (held <= ENV.levels - 1).all()
    # What each hour measured stands in the state that follows it.
    after = {name: np.concatenate([getattr(states, name)[D::D], getattr(last, name)[None]]) for name in MEASURED}
    quantum, eta = np.asarray(params.capacity) / (ENV.levels - 1), np.asarray(params.efficiency)
    drawn = np.where(moves > 0, quantum / eta, quantum * eta) * moves
    np.testing.assert_allclose(after["drawn"], drawn, rtol=1e-6)
    curtailed, unserved, net = (info[k][D - 1 :: D] for k in ("curtailed", "unserved", "net_load"))
    fed = after["green"].sum(1) - curtailed
    balance = after["output"].sum(1) + fed - drawn.sum(1) - (after["load"] - unserved)
    np.testing.assert_allclose(balance, 0.0, atol=1e-3)
    assert (curtailed >= 0).all()
    assert (fed >= -1e-4).all()
    np.testing.assert_allclose(after["output"].sum(1), np.clip(net, 0, None), atol=1e-3)
    idle = (moves == 0).all(1)
    np.testing.assert_array_equal(rewards[D - 1 :: D][idle], 0.0)
    assert (rewards.reshape(P, D)[:, :-1] == 0).all()
    assert looks.action_mask[np.arange(ENV.horizon), actions].all()


MEASURED = ("drawn", "green", "output", "load")


def random_hour(seed):
    """A task, a state in mid-episode with room to move, and uniforms."""
    params = sample(jax.random.key(seed))
    _, state = reset(jax.random.key(seed + 1), params)
    rng = np.random.default_rng(seed)
    state = state.replace(
        time=jnp.int32(3 * rng.integers(1, 40) + 2),
        charge=jnp.asarray(rng.integers(1, 4, D), jnp.int32),
        move=jnp.asarray(rng.integers(-1, 2, D), jnp.int32),
    )
    return params, state, jnp.asarray(rng.uniform(0.01, 0.99, 2), jnp.float32)


@jax.jit
def hour_of(params, state):
    load, green = ENV.conditions(params, ENV.period(state), state.wind, state.cloud)
    draw = ENV.draw(params, state.move)
    bump = 0.05 * jnp.eye(D)
    saved, hours = ENV.savings(params, load, green, draw + jnp.concatenate([jnp.zeros((1, D)), bump, -bump]))
    return load, green, draw, saved, hours


@hypothesis.given(seed=SEEDS)
def test_every_bus_is_balanced_and_local_prices_are_marginal_costs(seed):
    params, state, uniforms = random_hour(seed)
    load, _, draw, saved, hours = jax.device_get(hour_of(params, state))
    hour = jax.tree.map(lambda x: x[0], hours)
    injection = -ieee14.BUS_LOAD / ieee14.BUS_LOAD.sum() * (load - hour.unserved)
    np.add.at(injection, ieee14.UNIT_BUS - 1, hour.dispatch.output)
    np.add.at(injection, [5, 8], hour.fed)
    np.add.at(injection, np.array(ENV.storage_buses) - 1, -draw)
    assert abs(injection.sum()) < 1e-3
    leaving = np.zeros(14)
    np.add.at(leaving, ieee14.LINES[:, 0] - 1, hour.flow)
    np.add.at(leaving, ieee14.LINES[:, 1] - 1, -hour.flow)
    np.testing.assert_allclose(leaving, injection, atol=1e-3)
    local = advance(state, uniforms, params)[0].local_price
    up, down = saved[1 : 1 + D], saved[1 + D :]
    # Where the cost bends within 50 kW the derivative is neither side's, but between them.
    more, less = 100 * (saved[0] - up) / 0.05, 100 * (down - saved[0]) / 0.05
    slack = 0.2 + 2e-3 * np.abs(local)
    assert (local <= np.maximum(more, less) + slack).all()
    assert (local >= np.minimum(more, less) - slack).all()


@hypothesis.given(seed=SEEDS)
def test_a_round_trip_without_losses_at_a_flat_price_earns_nothing(seed):
    # Units 3-5 have nearly flat costs: alone in service, with their slope taken away, they make a flat price.
    params = ENV.with_supply(
        sample(jax.random.key(seed)).replace(
            fuel=jnp.float32([1, 1, 1e-3, 1e-3, 1e-3]),
            available=jnp.float32([1e-6, 1e-6, 1, 1, 1]),
            efficiency=jnp.ones(D),
            profile=jnp.full((24,), 0.7, jnp.float32),
            wind_capacity=jnp.float32(0),
            solar_capacity=jnp.float32(0),
            rating=jnp.float32(100),
        )
    )
    _, state, uniforms = random_hour(seed)
    charge, discharge = (state.replace(move=jnp.full((D,), m, jnp.int32)) for m in (1, -1))
    (_, paid, _), (_, earned, _) = (advance(s, uniforms, params) for s in (charge, discharge))
    assert paid < -1e-3
    # The remaining slope .02 fuel is worth .02 * 40^2 / 100 at most, to the factor 1e-3 that fuel is scaled by.
    assert abs(float(paid + earned)) < 0.02 * 40**2 / 100 * 1e-3
    lossy = params.replace(efficiency=jnp.full((D,), 0.9))
    assert sum(advance(s, uniforms, lossy)[1] for s in (charge, discharge)) < -1e-3


@hypothesis.given(seed=SEEDS)
def test_permuting_storages_permutes_tokens(seed):
    params, state, uniforms = random_hour(seed)
    order = np.array([2, 0, 1])
    after, reward, _ = advance(state, uniforms, params)
    swap = lambda tree, names: tree.replace(**{k: getattr(tree, k)[order] for k in names})  # noqa: E731
    params_ = swap(params, ("capacity", "efficiency", "initial_charge"))
    after_, reward_, _ = shuffled_advance(swap(state, ("charge", "move", "drawn", "local_price")), uniforms, params_)
    np.testing.assert_allclose(reward_, reward, rtol=1e-4, atol=1e-4)
    tokens, tokens_ = observe(after, params).tokens, shuffled_observe(after_, params_).tokens
    whose = jnp.asarray([COLUMN["is_turn"], COLUMN["is_candidate"]])  # the first storage's in both
    tokens, tokens_ = (t.at[:, whose].set(0) for t in (tokens, tokens_))
    np.testing.assert_allclose(tokens_, jnp.concatenate([tokens[:D][order], tokens[D:]]), rtol=1e-4, atol=1e-4)


def test_two_tasks_that_look_alike_want_different_actions():
    params, other = sample(jax.random.key(0)), sample(jax.random.key(1))
    twin = params.replace(**{name: getattr(other, name) for name in ENV.hidden})
    (seen, state), (seen_, _) = (reset(jax.random.key(9), p) for p in (params, twin))
    jax.tree.map(np.testing.assert_array_equal, seen, seen_)
    jax.tree.map(np.testing.assert_array_equal, observe(state, params), observe(state, twin))
    plan, plan_ = solve(params), solve(twin)
    assert (np.asarray(plan.actions) != np.asarray(plan_.actions)).mean() > 0.05


# ---- the solver -----------------------------------------------------------------------------------------------------


def brute_force(rewards, transition, storages, levels, periods, charge, z):
    """Best expected return by enumeration of all joint moves in every contingency, float64."""
    if periods == 0:
        return 0.0
    best = -np.inf
    for number, move in enumerate(itertools.product((0, 1, -1), repeat=storages)):
        after = np.array(charge) + move
        if ((after >= 0) & (after < levels)).all():
            ahead = sum(
                p * brute_force(rewards[1:], transition, storages, levels, periods - 1, after, k)
                for k, p in enumerate(transition[z])
            )
            best = max(best, rewards[0][z, number] + ahead)
    return best


@pytest.mark.parametrize(("storages", "levels"), [(1, 4), (2, 3)])
def test_plan_is_the_best_of_all_policies(storages, levels):
    rng = np.random.default_rng(storages)
    rewards = rng.normal(size=(3, 2, 3**storages)).astype(np.float32)
    transition = np.array([[0.7, 0.3], [0.2, 0.8]])
    plan = storage_lattice.plan(jnp.asarray(rewards), jnp.asarray(transition, jnp.float32), storages, levels, 3)
    for number, charge in enumerate(itertools.product(range(levels), repeat=storages)):
        assert storage_lattice.index(jnp.asarray(charge), levels) == number
        for z in range(2):
            best = brute_force(rewards.astype(float), transition, storages, levels, 3, charge, z)
            assert abs(plan.value[z, number] - best) < 1e-5


@pytest.mark.parametrize("seed", range(2))
def test_promised_value_is_what_the_environment_pays(seed):
    # Without weather an episode is certain, and the plan's value is its return.
    params = sample(jax.random.key(seed)).replace(
        wind_capacity=jnp.float32(0), solar_capacity=jnp.float32(0), initial_charge=jnp.full((D,), 2, jnp.int32)
    )
    plan = solve(params)
    keys = jax.random.split(jax.random.key(seed), 2)
    promised = plan.value[:, storage_lattice.index(params.initial_charge, ENV.levels)]
    np.testing.assert_allclose(follow(plan, params, keys), promised[0], rtol=1e-4)
    np.testing.assert_allclose(promised, promised[0], rtol=1e-5)
    np.testing.assert_allclose(foresight(params, keys), promised[0], rtol=1e-4)


def test_value_is_the_mean_return_and_foresight_bounds_every_episode():
    params = sample(jax.random.key(3))
    plan, keys = solve(params), jax.random.split(jax.random.key(4), 512)
    returns, bound = np.asarray(follow(plan, params, keys)), np.asarray(foresight(params, keys))
    law = np.outer(*(chain(n)[2] for n in (5, 3))).ravel()
    promised = float(law @ np.asarray(plan.value)[:, 0])
    assert abs(returns.mean() - promised) < 4 * returns.std() / np.sqrt(512)
    assert (returns <= bound + 1e-3).all()
    assert bound.mean() > returns.mean() * 1.001
    average = ENV.average_task(params, jax.vmap(ENV.sample_params)(jax.random.split(jax.random.key(5), 64)))
    assert np.asarray(follow(solve(average), params, keys)).mean() < returns.mean()


def continuous_bound(params, loads, greens):
    """Least cost of the hours with continuous storages, units and lines chosen together: a linear program.

    Costs are replaced by tangents below them, moves may be fractional, and the dispatch may heed the lines, so no
    policy on the lattice costs less. Variables an hour: P (5), cost (5), charged, discharged (D each), charge after
    (D), wind and sun fed (2), overload (20).
    """
    hours, width = len(loads), 5 + 5 + 3 * D + 2 + 20
    eta, capacity = np.asarray(params.efficiency, float), np.asarray(params.capacity, float)
    quantum, high = capacity / (ENV.levels - 1), np.asarray(params.available, float) * ieee14.UNIT_MAX
    a, b = (np.asarray(params.fuel, float) * x for x in ieee14.UNIT_COST.T)
    net, rating = ENV.network, np.asarray(params.rating, float) * ieee14.RATING
    cost = np.tile(np.r_[np.zeros(5), np.ones(5), np.zeros(3 * D + 2), np.full(20, OVERLOAD_COST)], hours)
    bounds, upper, upper_b, equal, equal_b = [], [], [], [], []
    for t in range(hours):
        at = t * width
        p, c, up, down, held, fed, over = np.split(at + np.arange(width), np.cumsum([5, 5, D, D, D, 2]))
        bounds += [(0, h) for h in high] + [(None, None)] * 5 + [(0, q) for q in quantum] * 2
        bounds += [(0, k) for k in capacity] + [(0, g) for g in greens[t]] + [(0, None)] * 20
        for i in range(5):
            for x in np.linspace(0, high[i], 40):
                upper.append({p[i]: 2 * a[i] * x + b[i], c[i]: -1.0})
                upper_b.append(a[i] * x * x)
        draws = {**{up[d]: 1 / eta[d] for d in range(D)}, **{down[d]: -eta[d] for d in range(D)}}
        equal.append({**dict.fromkeys([*p, *fed], 1.0), **{k: -v for k, v in draws.items()}})
        equal_b.append(loads[t])
        for d in range(D):
            before = {held[d] - width: -1.0} if t else {}
            equal.append({held[d]: 1.0, up[d]: -1.0, down[d]: 1.0, **before})
            equal_b.append(0.0)
        for line in range(20):
            flow = {**dict(zip(p, net.of_unit[line], strict=True)), **dict(zip(fed, net.of_green[line], strict=True))}
            for d in range(D):
                flow[up[d]], flow[down[d]] = -net.of_storage[line, d] / eta[d], net.of_storage[line, d] * eta[d]
            for sign in (1, -1):
                upper.append({**{k: sign * v for k, v in flow.items()}, over[line]: -1.0})
                upper_b.append(rating[line] + sign * net.of_load[line] * loads[t])

    def matrix(rows):
        entries = [(i, j, v) for i, row in enumerate(rows) for j, v in row.items()]
        i, j, v = zip(*entries, strict=True)
        return scipy.sparse.csr_matrix((v, (i, j)), (len(rows), hours * width))

    found = scipy.optimize.linprog(cost, matrix(upper), upper_b, matrix(equal), equal_b, bounds, method="highs")
    assert found.status == 0
    return found.fun


def test_linear_program_with_continuous_storage_bounds_the_lattice_optimum():
    params, key = sample(jax.random.key(2)), jax.random.key(8)
    _, trace, _ = jax.device_get(play(params, key, key, 0))
    states, last = trace[1], slice(D - 1, None, D)
    hours = [jax.device_get(ENV.conditions(params, t, states.wind[t * D], states.cloud[t * D])) for t in range(P)]
    loads, greens = (np.array(x, float) for x in zip(*hours, strict=True))
    idle = params.replace(initial_charge=jnp.zeros((D,), jnp.int32))
    scalar = LoopModel({f.name: np.asarray(getattr(idle, f.name)) for f in dataclasses.fields(idle)}, P)
    gross = sum(scalar.operate(load, list(green), [0.0] * D)["cost"] for load, green in zip(loads, greens, strict=True))
    best = gross - 100 * float(foresight(params, key[None])[0])
    random = gross - 100 * float(trace[4][last].sum())
    bound = continuous_bound(params, loads, greens)
    print(f"24 h, $: linear program {bound:.0f}, lattice optimum {best:.0f}, idle {gross:.0f}, random {random:.0f}")
    assert bound < best < gross < random


# ---- shapes and tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [("num_periods", 0), ("levels", 1), ("num_wind", 0), ("num_cloud", 0)])
def test_impossible_shapes_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a whole number from [12] to [0-9]+, got {value}"):
        SmartGrid(**{field: value})


@pytest.mark.parametrize("buses", [(), (0,), (15,), (1, 2, 3, 4, 5)])
def test_impossible_buses_are_refused(buses):
    with pytest.raises(ValueError, match="storage_buses"):
        SmartGrid(storage_buses=buses)


def test_sampled_tasks_keep_to_the_stated_ranges():
    tasks = jax.device_get(jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 2000)))
    ranges = {"wind_capacity": (0, 160), "solar_capacity": (0, 240), "clearness": (0.4, 1), "rating": (0.3, 0.9)}
    ranges["efficiency"] = (0.8, 0.97)
    for name, (low, high) in ranges.items():
        values, edge = getattr(tasks, name), 0.01 * (high - low)
        assert low <= values.min() < low + edge, name
        assert high - edge < values.max() <= high + 1e-6, name
    assert 0.9 <= tasks.profile.max(1).min() < 0.91
    assert 1.29 < tasks.profile.max(1).max() <= 1.3
    shapes = np.unique((tasks.profile / tasks.profile.max(1, keepdims=True)).round(2), axis=0)
    assert len(shapes) == 6
    np.testing.assert_array_equal(tasks.available[:, 2:], 1.0)
    assert tasks.available[:, 0].max() <= 0.7 < tasks.available[:, 1].max() <= 1.0
    assert 3.99 < tasks.fuel[:, 2:].max() <= 4.0
    assert 1.19 < tasks.fuel[:, :2].max() <= 1.2 + 1e-6
