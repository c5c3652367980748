"""Tables and grids of the solvers hold what constructors and tasks ask of them, or say what does not fit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import envs_jax
from envs_jax import checks
from envs_jax.data import amod_city
from envs_jax.domains import air_traffic, cloud_scheduling, healthcare, smart_city, warehouse
from envs_jax.domains.names import DOMAINS
from envs_jax.references import aircraft_landing, backward_dp, bed_pools, fractional_slate, liner_services, setup_queue

# ---- supply_chain ---------------------------------------------------------------------------------------------------


def clark_scarf(mean, echelon_cost, lead_time, backlog_cost):
    """Stationary echelon base-stock levels: the recursion on a plain grid that nothing reaches the ends of."""
    low, high = -600, 600
    x = np.arange(low, high + 1)
    count = np.arange(400)
    pmf = np.exp(count * math.log(mean) - mean - np.cumsum(np.log(np.maximum(count, 1))))
    induced = (backlog_cost + sum(echelon_cost)) * np.maximum(-x, 0.0)
    levels = []
    for echelon, lead in zip(echelon_cost, lead_time, strict=True):
        law = np.ones(1)
        for _ in range(lead):
            law = np.convolve(law, pmf)[:600]
        cost = echelon * x + induced
        believed = np.arange(law.size, x.size)  # far enough from the left end
        expected = np.full(x.size, np.inf)
        expected[believed] = [cost[y - np.arange(law.size)] @ law for y in believed]
        best = int(np.argmin(expected))
        levels.append(int(x[best]))
        # Further left all demand meets a shortage: the cost is a straight line.
        left, (first, second) = np.arange(law.size), expected[law.size :][:2]
        expected[left] = first + (second - first) * (left - law.size)
        induced = expected[np.minimum(np.arange(x.size), best)]
    return levels


@pytest.mark.parametrize(
    ("mean", "lead_time", "max_demand", "levels"),
    [
        (16.0, [1, 1, 1, 1], 63, [24, 43, 60, 77]),
        (5.0, [1, 1, 1, 1], 31, None),
        (12.0, [2, 1], 63, None),
        (40.0, [1, 2], 127, None),
    ],
)
def test_the_grid_of_supply_chain_follows_its_demand_table(mean, lead_time, max_demand, levels):
    n = len(lead_time)
    env, _ = envs_jax.make("supply_chain", num_stages=n, max_lead_time=max(lead_time), max_demand=max_demand)
    plan = np.asarray(env.solve(env.instance(mean, [0.25] * n, lead_time, 9.0)))
    want = clark_scarf(mean, [0.25] * n, lead_time, 9.0)
    assert levels in (None, want)
    # Far from the episode's end the optimum of the finite horizon is that of the long run.
    np.testing.assert_array_equal(plan[0], want)


def test_demand_or_levels_that_do_not_fit_are_refused_by_name():
    small, _ = envs_jax.make("supply_chain")
    with pytest.raises(ValueError, match=r"supply_chain.demand_mean must .* max_demand=31, .* mean of 16.* 33 or more"):
        small.instance(16.0, [0.25] * 4, [1] * 4, 9.0)
    with pytest.raises(
        ValueError, match=r"demand_mean x lead_time must .* at most 120 .*got 12 x \[3, 3, 3, 3\] periods"
    ):
        small.instance(12.0, [0.25] * 4, [3] * 4, 9.0)
    # A dear backlog asks for more than the same demand with a cheap one.
    tight = {"demand_mean": 8.0, "echelon_cost": [0.25] * 4, "lead_time": [3] * 4}
    assert np.asarray(small.solve(small.instance(**tight, backlog_cost=1.0))).max() < small.grid_size - 3
    with pytest.raises(ValueError, match=r"levels of up to 12[1-9]"):
        small.instance(**tight, backlog_cost=40.0)


def test_whatever_instance_accepts_has_room_to_the_right_of_its_levels():
    rng = np.random.default_rng(0)
    accepted = 0
    env, _ = envs_jax.make("supply_chain", num_stages=3, max_lead_time=2, max_demand=40)
    solve = jax.jit(env.solve)
    for _ in range(60):
        echelon, lead = rng.uniform(0.01, 0.5, 3), rng.integers(1, 3, 3)
        try:
            task = env.instance(rng.uniform(1.0, 30.0), echelon, lead, 10.0 ** rng.uniform(0.0, 3.0))
        except ValueError:
            continue
        accepted += 1
        assert np.asarray(solve(task)).max() <= env.grid_size - 3
    assert 15 < accepted < 55


def test_sizes_of_default_environments_are_as_they_were():
    assert envs_jax.make("supply_chain")[0].grid_size == 123
    hospital, _ = envs_jax.make("healthcare")
    assert (hospital.max_arrivals, hospital.pool_size) == (15, 48)
    assert envs_jax.make("air_traffic")[0].num_slots == 176
    assert envs_jax.make("recommender")[0].sets.shape == (16, 10)


# ---- air_traffic ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 11])
def test_a_bank_as_spread_as_tasks_get_is_searched_to_its_end(n):
    """Targets 20 slots apart, the most that a task has, but for a dear aircraft beside a cheap one: it goes first."""
    env, task = envs_jax.make("air_traffic", num_aircraft=n, num_periods=1)
    target = 12.0 + 20.0 * np.arange(n, dtype=np.float32)[None]
    target[0, 4] = target[0, 3]
    airline = np.ones((1, n), np.int32)
    airline[0, 4] = 0
    spread = task.replace(
        target=jnp.asarray(target),
        earliest=jnp.asarray(target - 12.0),
        latest=jnp.asarray(target + 60.0),
        airline=jnp.asarray(airline),
        wake=jnp.zeros((1, n), jnp.int32),
        early_ratio=jnp.float32(2.0),
    )
    want = np.arange(n)
    want[[3, 4]] = 4, 3
    np.testing.assert_array_equal(env.solve(spread)[0], want)


def test_an_instance_beyond_the_searched_slots_is_refused():
    env = air_traffic.AirTraffic(num_aircraft=2, window=2)
    env.num_slots = 40
    with pytest.raises(
        ValueError, match=r"air_traffic.num_slots must be at least [0-9]+, for the targets of airland1, got 40"
    ):
        env.instance(1)


# ---- healthcare -----------------------------------------------------------------------------------------------------


def test_beyond_the_last_census_a_pools_value_is_constant_and_not_nan():
    value = jnp.cumsum(jnp.arange(2.0 * 6).reshape(2, 6), axis=1)
    overflow, burden = jnp.ones((2, 2)), jnp.ones((2, 2))
    at_end, beyond = (bed_pools.gains(value, jnp.array([census, 2]), overflow, burden) for census in (6, 40))
    assert np.isfinite(beyond).all()
    np.testing.assert_array_equal(beyond[0, 0], 1.0)  # nothing changes there: the cost of moving alone
    np.testing.assert_array_equal(at_end[0], beyond[0])
    inside = bed_pools.gains(value, jnp.array([3, 2]), overflow, burden)
    np.testing.assert_array_equal(inside[0, 1], 1.0 + (value[0, 2] - value[0, 3]) + (value[1, 3] - value[1, 2]))


def test_moves_out_of_a_queue_beyond_the_grid_are_still_compared():
    """Where the grid ends a queue is worth no relief, but moving where it costs less than nothing still is."""
    value = jnp.cumsum(jnp.arange(2.0 * 6).reshape(2, 6), axis=1)
    waiting, free, census = jnp.array([40, 2]), jnp.array([3, 0]), jnp.array([46, 5])
    overflow = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    saved = bed_pools.completion(value, waiting, free, census, overflow, jnp.ones((2, 2)), 3)
    # Two patients of class 1 move into ward 0, whose own value no longer changes; then nobody of that class waits.
    relief = (value[1, 5] - value[1, 4]) + (value[1, 4] - value[1, 3])
    np.testing.assert_allclose(saved, 2.0 * 1.0 - relief)


def pool_values(beds, discharge, arrivals, periods, size):
    """Cost to go ``f64[size]`` of one pool with unit holding cost, nobody moved."""
    value = np.zeros(size)
    waiting = np.maximum(np.arange(size) - beds, 0)
    for period in reversed(range(periods)):
        p, a = discharge[(period + 1) % len(discharge)], arrivals[(period + 1) % len(arrivals)]
        come = stats.poisson.pmf(np.arange(size), a)
        ahead = np.array(
            [come[: size - k] @ value[k:] + (1.0 - come[: size - k].sum()) * value[-1] for k in range(size)]
        )
        leave = [stats.binom.pmf(np.arange(min(n, beds) + 1), min(n, beds), p) for n in range(size)]
        value = waiting + np.array([law @ ahead[n - np.arange(law.size)] for n, law in enumerate(leave)])
    return value


def test_pools_of_a_long_episode_tell_longer_queues_apart():
    env, _ = envs_jax.make("healthcare", num_wards=1, num_days=30)
    task = env.instance(arrival_rate=1.3 * 14 / 4.3)
    assert env.pool_size == 84  # every census there can be: up to 20 beds and 63 waiting
    value = np.asarray(jax.jit(env.solve)(task))[:, 0]
    assert value.shape == (240, 84)
    queue = 14 + healthcare.POOL_QUEUE + 20
    assert value[0, queue] > value[0, queue - 10] + 1.0
    # Two days before the end, against a model with room for any queue.
    discharge, arrivals = (
        np.asarray(profile, np.float64) for profile in (task.discharge_profile, task.arrival_profile)
    )
    want = pool_values(14, discharge / 4.3, arrivals * 1.3 * 14 / 4.3, 16, 160)
    # What one more patient costs: the values themselves share an offset of 0.003, since in single precision some 1e-7
    # of every row's mass is rounded into the last census.
    np.testing.assert_allclose(np.diff(value[-16, :61]), np.diff(want[:61]), rtol=1e-4, atol=1e-4)


def test_the_table_of_arrivals_follows_epochs_and_beds():
    daily, _ = envs_jax.make("healthcare", epochs_per_day=1)
    busiest = 1.3 * 20 / 3.6
    assert checks.poisson_tail(busiest, 15) > checks.TAIL > checks.poisson_tail(busiest, daily.max_arrivals)
    tasks = jax.jit(jax.vmap(daily.sample_params))(jax.random.split(jax.random.key(0), 256))
    assert (1.0 - np.asarray(tasks.arrival_cdf)[..., -1]).max() < checks.TAIL + 1e-6


# ---- the rest -------------------------------------------------------------------------------------------------------


def test_candidate_sets_offer_every_topic():
    env, _ = envs_jax.make("recommender", num_topics=333, num_candidates=10)
    assert (env.sets.sum(0) > 0).all()
    np.testing.assert_array_equal(env.sets.sum(1), 10)
    np.testing.assert_array_equal(envs_jax.make("recommender")[0].sets, fractional_slate.candidate_sets(10, 10, 16))


def test_backward_dp_refuses_actions_that_a_byte_cannot_number():
    def plan(actions):
        stage = lambda t, value: jnp.arange(actions) + value[..., None] + 0.0 * t  # noqa: E731
        return backward_dp.solve(stage, jnp.zeros((1, 1)), 2).actions

    np.testing.assert_array_equal(plan(127), 126)
    with pytest.raises(ValueError, match=r"at most 127 actions .*got 128"):
        plan(128)


def test_a_citys_demand_must_fit_the_table_of_requests():
    sizes = {"columns": 7, "max_travel_time": 17}
    env, _ = envs_jax.make("vehicle_fleet", **sizes, max_requests=48)
    with pytest.raises(
        ValueError, match=r"city.requests must be .*max_requests - 1=47, got a mean of 43.2.* 70 or more"
    ):
        env.city_params(amod_city("nyc_brooklyn"))
    env, _ = envs_jax.make("vehicle_fleet", **sizes, max_requests=96)
    env.city_params(amod_city("nyc_brooklyn"))


def inside(name, tasks):
    """Largest of what tasks ask for, and what the domain's fixed tables hold."""
    match name:
        case "air_traffic":
            needed = np.round(np.asarray(tasks.inflation)[:, None, None] * np.asarray(tasks.separation))
            return needed.max(), aircraft_landing.MAX_SEPARATION
        case "cloud_scheduling":
            return np.max(tasks.longest), cloud_scheduling.LONGEST
        case "data_center":
            return np.max(tasks.arrival_rate / np.sum(tasks.speed, axis=1)), setup_queue._FULL
        case "energy_trading":
            return np.max(tasks.capacity), envs_jax.make(name)[0].max_capacity
        case "healthcare":
            return 1.0 - np.min(tasks.arrival_cdf[..., -1]), checks.TAIL
        case "maritime":
            return max(np.max(tasks.shipper_days), np.max(tasks.consignee_days)), liner_services.MAX_DELAY
        case "network_traffic":
            return np.max(tasks.arrival_rate / np.asarray(tasks.on_fraction)[:, None]), envs_jax.make(name)[0].num_turns
        case "smart_city":
            # Arrivals of a lane in a slot; a green lane serves at most its saturation, rounded up by chance.
            assert np.max(tasks.saturation) + 1.0 < smart_city.MOST_SERVED
            rate = float(np.max(np.asarray(tasks.demand).max(1) * (1.0 - np.asarray(tasks.left_share))))
            return checks.poisson_tail(rate, smart_city.MOST_ARRIVALS), checks.TAIL
        case "supply_chain":
            env, _ = envs_jax.make(name)
            levels = np.asarray(jax.jit(jax.vmap(env.solve))(jax.tree.map(lambda leaf: leaf[:32], tasks)))
            assert levels.max() <= env.grid_size - 3
            return checks.poisson_tail(float(np.max(tasks.demand_mean)), env.max_demand), checks.TAIL
        case "vehicle_fleet":
            return np.max(tasks.move_time), envs_jax.make(name)[0].max_travel_time
        case "warehouse":
            return checks.poisson_tail(float(np.max(tasks.rates)), warehouse.DEMANDS - 1), checks.TAIL
    raise KeyError(name)


# The grids of the other six span what the task is: soil water, menus, task graphs, job tables, budgets, charges.
SPANNING = {"agriculture", "edge_computing", "manufacturing", "portfolio", "recommender", "smart_grid"}


@pytest.mark.parametrize("name", [name for name in DOMAINS if name not in SPANNING])
def test_what_tasks_draw_fits_the_tables_of_fixed_size(name):
    env, _ = envs_jax.make(name)
    found = inside(name, jax.device_get(jax.jit(jax.vmap(env.sample_params))(jax.random.split(jax.random.key(5), 512))))
    assert found[0] <= found[1]
