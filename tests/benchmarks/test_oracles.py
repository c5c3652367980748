"""Oracles that bound returns: nobody earns more in any episode, and who plays the best plan earns as much."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.quality import oracles
from benchmarks.quality.oracles import (
    agriculture,
    cloud_scheduling,
    edge_computing,
    maritime,
    network_traffic,
    portfolio,
    smart_grid,
    supply_chain,
    vehicle_fleet,
)
from envs_jax import scoring
from envs_jax.domains.agriculture import Agriculture
from envs_jax.domains.cloud_scheduling import CloudScheduling
from envs_jax.domains.edge_computing import EdgeComputing
from envs_jax.domains.maritime import Maritime
from envs_jax.domains.network_traffic import NetworkTraffic
from envs_jax.domains.portfolio import Portfolio
from envs_jax.domains.smart_grid import SmartGrid
from envs_jax.domains.supply_chain import SupplyChain
from envs_jax.domains.vehicle_fleet import VehicleFleet
from envs_jax.references import offloading

KEYS = jax.random.split(jax.random.key(1), 3)


@functools.partial(jax.jit, static_argnames="env")
def replay(env, params, key, sequences):
    """Returns ``[S]`` of action sequences ``[S, T]`` in one episode."""

    def one(actions):
        def step(state, action):
            _, state, reward, _, _ = env.step_env(key, state, action, params)
            return state, reward

        return jax.lax.scan(step, env.reset_env(key, params)[1], actions)[1].sum()

    return jax.vmap(one)(sequences)


def all_sequences(env):
    return jnp.asarray(list(itertools.product(range(env.num_actions), repeat=env.horizon)), jnp.int32)


def returns(env, params, keys, name):
    """Returns ``[E]`` of a named policy."""
    return np.asarray(scoring.returns(env, name, jax.tree.map(lambda x: x[None], params), keys[None]))[0]


SMALL = [
    (VehicleFleet(rows=1, columns=3, num_periods=6), vehicle_fleet.hindsight),
    (EdgeComputing(num_tasks=6, num_servers=2, num_periods=2, window=2), edge_computing.hindsight),
    (SmartGrid(num_periods=12, storage_buses=(3, 9), levels=3, num_wind=3), smart_grid.foresight),
    (Maritime("4p", num_periods=5), maritime.hindsight),
    (Agriculture(num_fields=2, num_periods=40), agriculture.hindsight),
    (CloudScheduling(num_slots=3, num_periods=24, num_arrivals=16), cloud_scheduling.hindsight),
    (NetworkTraffic(num_flows=3, num_periods=10), network_traffic.hindsight),
]


@pytest.mark.parametrize(("env", "bound"), SMALL, ids=[env.name for env, _ in SMALL])
def test_no_policy_beats_the_bound_in_any_episode(env, bound):
    # Small instances: what the weather or the sources bring in three episodes can outweigh all that is to be decided.
    count = 16
    tasks = jax.jit(jax.vmap(env.sample_params))(jax.random.split(jax.random.key(0), count))
    keys = jax.random.split(jax.random.key(1), (count, 3))
    earned = vars(scoring.reference_episodes(env, tasks, keys))
    possible = np.stack([bound(env, jax.tree.map(lambda x, i=i: x[i], tasks), keys[i]) for i in range(count)])
    for name, total in earned.items():
        assert (total <= possible + 1e-4 * (1 + np.abs(possible))).all(), name
    # It is a bound on what can be earned, not any large number: the reference gets the better part of the way.
    floor = np.maximum(np.mean(earned["random"]), np.mean(earned["noop"]))
    share = (np.mean(earned["reference"]) - floor) / (possible.mean() - floor)
    print(f"{env.name}: reference {np.mean(earned['reference']):.4g}, bound {possible.mean():.4g}, share {share:.2f}")
    assert 0.3 < share <= 1 + 1e-4


IN_EXPECTATION = [
    (Agriculture(num_fields=2, num_periods=40), agriculture.lagrangian),
    (Portfolio(num_periods=12), portfolio.continuous),
    (SupplyChain(num_periods=12), supply_chain.any_order),
]


@pytest.mark.parametrize(("env", "bound"), IN_EXPECTATION, ids=[env.name for env, _ in IN_EXPECTATION])
def test_relaxations_bound_mean_returns_and_are_near(env, bound):
    params, keys = env.sample_params(jax.random.key(8)), jax.random.split(jax.random.key(9), 512)
    earned, idle = (returns(env, params, keys, name) for name in ("reference", "noop"))
    possible = bound(env, params, keys)
    assert possible.shape == (512,)
    error = (possible - earned).std() / np.sqrt(512)
    print(f"{env.name}: reference {earned.mean():.4g}, bound {possible.mean():.4g}, error {error:.2g}")
    assert earned.mean() < possible.mean() + 3 * error
    assert earned.mean() + 4 * error > possible.mean() - 0.5 * (possible.mean() - idle.mean())


def test_what_an_unattended_episode_brings_is_what_any_policy_meets():
    env = SMALL[0][0]
    params = env.sample_params(jax.random.key(2))
    drawn = vehicle_fleet.requests(env, params, KEYS)
    assert drawn.shape == (3, env.num_periods, 3, 3)
    asked = oracles.unattended(env, params, KEYS).info["requests"]
    np.testing.assert_array_equal(drawn.sum((2, 3)), asked)
    busy = jax.random.randint(jax.random.key(3), (1, env.horizon), 0, env.num_actions)

    @jax.jit
    def requests(key):
        def step(state, action):
            _, state, _, _, info = env.step_env(key, state, action, params)
            return state, info["requests"]

        return jax.lax.scan(step, env.reset_env(key, params)[1], busy[0])[1]

    for key, of_episode in zip(KEYS, drawn, strict=True):
        np.testing.assert_array_equal(requests(key)[env.num_turns - 1 :: env.num_turns], of_episode.sum((1, 2)))


def test_two_vehicles_between_two_regions_can_earn_the_bound():
    """With two vehicles the menu (none, half, all) has every number; with equal fares serving never hurts."""
    env = VehicleFleet(rows=1, columns=2, num_periods=4, max_requests=4)
    rate = jnp.zeros((4, 2, 2)).at[:, 0, 1].set(0.5).at[:, 1, 0].set(jnp.array([0.1, 0.2, 0.9, 0.9]))
    params = env.default_params.replace(rate=rate, initial=jnp.array([2, 0]), cost=jnp.float32(0.2))
    possible = vehicle_fleet.hindsight(env, params, KEYS)
    best = [float(replay(env, params, key, all_sequences(env)).max()) for key in KEYS]
    np.testing.assert_allclose(best, possible, rtol=1e-5)
    assert (possible > returns(env, params, KEYS, "noop") + 0.5).any()


@pytest.mark.parametrize("seed", range(2))
def test_the_best_plan_of_one_storage_earns_the_foresight_bound(seed):
    env = SmartGrid(num_periods=6, storage_buses=(3,), levels=3)
    params = env.sample_params(jax.random.key(seed)).replace(initial_charge=jnp.array([1]))
    possible = smart_grid.foresight(env, params, KEYS)
    best = [float(replay(env, params, key, all_sequences(env)).max()) for key in KEYS]
    np.testing.assert_allclose(best, possible, rtol=1e-4, atol=1e-5)
    assert possible.min() > 0


def test_one_task_at_its_best_place_earns_the_bound_and_more_tasks_stay_below():
    for count in (1, 4):
        env = EdgeComputing(num_tasks=count, num_servers=2, num_periods=1, window=1)
        params = env.sample_params(jax.random.key(3))
        best = np.array([float(replay(env, params, key, all_sequences(env)).max()) for key in KEYS])
        possible = edge_computing.hindsight(env, params, KEYS)
        found = edge_computing.best_found(env, params, KEYS, moves=1000)
        assert (best <= possible + 1e-5).all()
        assert (possible < 0.5 * best).all()  # costs: more than half of the best plan's
        np.testing.assert_allclose(found, best, rtol=1e-5)
        if count == 1:
            np.testing.assert_allclose(possible, best, rtol=1e-5)


def test_the_bound_on_a_makespan_is_no_weaker_than_path_and_capacity():
    env = EdgeComputing(num_periods=1)
    params = env.sample_params(jax.random.key(4)).replace(noise_sd=jnp.float32(0.0))
    graph = oracles.unattended(env, params, KEYS).states.graph
    for e in range(len(KEYS)):
        one, rates = jax.tree.map(lambda x, e=e: x[e, 0], graph), env.rates(params)
        bound = edge_computing.shortest(one, rates, np.ones((env.num_turns, 3)))
        assert bound >= 0.9999 * float(offloading.lower_bound(one, rates))
        plans = jax.random.randint(jax.random.key(e), (500, env.num_turns), 0, env.num_actions)
        spans = jax.vmap(lambda plan, one=one, rates=rates: offloading.makespan(one, rates, plan))(plans)
        assert bound <= float(spans.min()) * 1.0001


def test_orders_that_the_ports_hold_enough_for_are_all_served_by_staying():
    env = Maritime("4p", num_periods=4)
    params = env.sample_params(jax.random.key(5))
    params = params.replace(start=jnp.full((env.num_ports,), 1e6))
    possible = maritime.hindsight(env, params, KEYS)
    np.testing.assert_allclose(possible, maritime.orders(env, params, KEYS).sum((1, 2)) / 1000, rtol=1e-6)
    np.testing.assert_allclose(returns(env, params, KEYS, "noop"), possible, rtol=1e-5)


def test_a_dry_field_watered_every_day_loses_just_what_the_oracle_says():
    env = Agriculture(num_fields=1, num_periods=60)
    params = env.sample_params(jax.random.key(6)).replace(
        set_depth=jnp.float32(2.0), permit=jnp.float32(60), rain_chance=jnp.float32(1e-6), efficiency=jnp.array([0.9])
    )
    (earned,) = (np.asarray(replay(env, params, key, jnp.ones((1, 60), jnp.int32))) for key in KEYS[:1])
    possible = agriculture.hindsight(env, params, KEYS[:1])
    assert possible[0] < -0.05
    np.testing.assert_allclose(earned, possible, rtol=1e-4)


def test_jobs_of_full_size_and_one_length_are_best_started_as_they_come():
    env = CloudScheduling(num_slots=2, num_resources=1, num_picks=1, num_periods=40, num_arrivals=20)
    params = env.default_params.replace(
        dominant_low=jnp.int32(10), shortest=jnp.array([2, 2]), longest=jnp.array([2, 2]), arrival_rate=jnp.float32(0.6)
    )
    possible = cloud_scheduling.hindsight(env, params, KEYS)
    earned = returns(env, params, KEYS, "reference")
    np.testing.assert_allclose(earned, possible, rtol=1e-5)
    alone = -np.asarray(oracles.unattended(env, params, KEYS).info["arrived"]).sum(1)
    assert (possible < alone - 1).all()  # they do wait


def test_with_sure_service_the_dearest_packet_first_earns_the_bound():
    env = NetworkTraffic(num_flows=4, num_periods=12)
    params = env.instance(
        jnp.array([1.2, 0.8, 1.0, 0.9]), class_weight=jnp.array([0.3, 1.0, 2.0, 0.7]), start=4, buffer=50
    )
    possible = network_traffic.hindsight(env, params, KEYS)
    np.testing.assert_allclose(returns(env, params, KEYS, "reference"), possible, rtol=1e-5)
    assert (possible > returns(env, params, KEYS, "random")).all()


def test_oracles_refuse_what_they_do_not_describe():
    switch = NetworkTraffic(4, 1, activations=((0, 3), (1, 2)))
    with pytest.raises(ValueError, match="activations"):
        network_traffic.hindsight(switch, switch.default_params, KEYS)
    booking = CloudScheduling(deeprm=True)
    with pytest.raises(ValueError, match="deeprm"):
        cloud_scheduling.hindsight(booking, booking.default_params, KEYS)
    with pytest.raises(RuntimeError, match="without an optimum"):
        oracles.least(np.array([1.0]), A_ub=[[1.0]], b_ub=[-1.0], bounds=(0, None))
