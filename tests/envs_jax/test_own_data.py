"""One's own data: files give what the shipped instances give, and come back as they were written."""

import functools
import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from benchmarks.numpy_models.air_traffic import LoopModel
from benchmarks.studies import job_shop_optimum, landing_optimum
from envs_jax import data
from envs_jax.data import cim, ieee14, readers
from envs_jax.references import tilted_law
from envs_jax.testing import CHECKS, check_domain, leaves_by_name
from envs_jax.testing.meaning import EXCUSABLE
from tests.envs_jax.own_files import FILES, FOLDER, made

LANDINGS = {n: pathlib.Path(data.__file__).parent / f"airland{n}.txt" for n in (1, 2, 3, 4)}


def same(one, other):
    """Equal trees to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.map(lambda x: x.dtype, one) == jax.tree.map(lambda x: x.dtype, other)


# ---- files give what is shipped -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", LANDINGS)
def test_landing_files_are_the_shipped_instances_with_the_published_optima(number):
    env, params = envs_jax.make("air_traffic", instance=LANDINGS[number], num_periods=1)
    n = len(data.airland(number)["target"])
    assert (env.num_turns, env.num_airlines, env.window) == (n, 3, 6)
    shipped, _ = envs_jax.make("air_traffic", num_aircraft=n, num_periods=1)
    same(params, shipped.instance(number))
    some, _ = envs_jax.make("air_traffic", instance=LANDINGS[number], num_aircraft=8, num_periods=1)
    same(some.default_params, envs_jax.make("air_traffic", num_periods=1)[0].instance(number))
    # Two and three runways, taken in turns, attain the optimum; airland3's first two runways do not.
    for runways in (2, 3) if number != 3 else (3,):
        model = LoopModel(leaves_by_name(params), num_periods=1, window=n, num_runways=runways)
        model.reset(np.zeros(0))
        for i in range(n):
            _, info = model.step(model.waiting().index(i) * runways + i % runways, np.full(n, 0.5))
        assert info["cost"] == landing_optimum.PUBLISHED[number][runways - 1]


@pytest.mark.parametrize(("name", "makespan"), [("ft06", 55), ("la01", 666), ("ta01", 1231)])
def test_job_shop_files_are_the_shipped_instances_with_the_known_optima(name, makespan):
    env, params = envs_jax.make("manufacturing", instance=FOLDER / f"{name}.txt")
    route, minutes = data.job_shop(name)
    shipped, default = envs_jax.make("manufacturing", num_jobs=route.shape[0], num_machines=route.shape[1])
    same(params, default)
    assert (env.num_jobs, env.num_machines, env.horizon) == (*route.shape, shipped.horizon)
    kept = job_shop_optimum.stored()[f"{name} makespan"]
    end = np.array(kept["start"]) + np.asarray(params.nominal, int)
    assert end.max() == kept["value"] == makespan
    order = np.asarray(params.order)
    for job in range(env.num_jobs):  # the optimal schedule keeps to the file's routes
        by_place = np.argsort(order[job])
        assert (np.array(kept["start"])[job, by_place[1:]] >= end[job, by_place[:-1]]).all()
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(params.nominal, int), route, 1), minutes)


def test_taillards_form_and_the_standard_one_say_the_same():
    route, minutes = data.job_shop("ft06")
    found = readers.job_shop.parse(taillards_form(route, minutes), "here")
    np.testing.assert_array_equal(found.route, route)
    np.testing.assert_array_equal(found.minutes, minutes)


def test_case14_is_the_shipped_network():
    env, params = envs_jax.make("smart_grid", case=FOLDER / "case14.m")
    shipped, default = envs_jax.make("smart_grid")
    same(params, default)
    assert env.size == 1.0
    for one, other in zip(env.network, shipped.network, strict=True):
        np.testing.assert_array_equal(one, other)
    for field in ("load", "lines", "reactance", "rating", "unit_bus", "unit_max", "unit_cost"):
        np.testing.assert_array_equal(getattr(env.grid, field), getattr(shipped.grid, field), err_msg=field)
    same(jax.jit(env.sample_params)(jax.random.key(3)), jax.jit(shipped.sample_params)(jax.random.key(3)))


def test_buses_of_a_case_go_by_number_and_lines_without_limit_never_overload():
    text = (FOLDER / "case14.m").read_text().replace("\t472\t", "\t0\t")
    for name in ("	14	1	14.9", "	9	14	", "	13	14	"):  # bus 14 is called 140
        text = text.replace(
            name, name.replace("14	", "140	", 1) if name.startswith("	14") else name[:-3] + "140	"
        )
    case = readers.matpower.parse(text, "here")
    assert case.rating[0] == np.inf
    assert case.bus[-1] == 140
    np.testing.assert_array_equal(case.lines, ieee14.LINES)
    assert case.places("x", {"a": 140, "b": 3}) == (14, 3)
    with pytest.raises(ValueError, match=r"x.a must be one of the buses 1, 2, .* got 14"):
        case.places("x", {"a": 14})


def test_the_shipped_topology_is_the_file():
    env, params = made("maritime")
    shipped, default = envs_jax.make("maritime", network="4p")
    same(params, default)
    assert env.network.ports == ("demand_port_001", "demand_port_002", "supply_port_001", "supply_port_002")
    assert env.network.routes == shipped.network.routes
    assert env.network.vessels == shipped.network.vessels
    for field in ("lanes", "port", "loads", "sooner", "on_route"):
        np.testing.assert_array_equal(getattr(env.services, field), getattr(shipped.services, field))


def test_a_wave_of_orders_and_noise_are_read_as_the_source_generates_them():
    text = (FOLDER / "cim_toy_4p.yml").read_text()
    nodes = "\n".join(
        f"  - - {day}\n    - {float(share / cim.CONTAINERS)!r}" for day, share in enumerate(cim.orders(True))
    )
    wave = text.replace("  - - 0\n    - 0.02\n  - - 111\n    - 0.02", nodes)
    np.testing.assert_allclose(readers.topology.parse(wave, "here").orders, cim.orders(True), rtol=1e-15)
    found = readers.topology.parse(noisy(text), "here")
    np.testing.assert_allclose([found.order_noise, *found.source_noise], [0.1, 0.4, 0.2, 0, 0])


def noisy(text):
    for old, new in (
        ("sample_noise: 0", "sample_noise: 0.002"),
        ("noise: 0\n        proportion: 0.33", "noise: 0.132\n        proportion: 0.33"),
        ("noise: 0\n        proportion: 0.67", "noise: 0.134\n        proportion: 0.67"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def test_a_price_file_is_replayed_as_the_shipped_record():
    env, params = made("energy_trading", num_periods=192, num_devices=1, max_capacity=1, cycle_hours=192)
    shipped, _ = envs_jax.make("energy_trading", num_periods=192, num_devices=1, max_capacity=1, cycle_hours=192)
    same(params, shipped.replay_params(data.pjm_prices(192)))
    # What perfect foresight earns on it (tests/envs_jax/test_energy_trading.py), from a full battery.
    np.testing.assert_allclose(jax.jit(env.solve)(params).value[0, 15, 1], 222.71444, rtol=1e-5)
    whole, _ = made("energy_trading")
    assert whole.cycle_hours == len(np.loadtxt(FOLDER / "pjm_rt_lmp.csv", delimiter=",", skiprows=1))


def test_a_load_series_is_a_profile_by_hour_of_the_day():
    _, params = envs_jax.make("smart_grid", demand=FOLDER / "rts_winter_weekday.csv")
    same(params, envs_jax.make("smart_grid")[1])
    hours = np.arange(48.0).reshape(2, 24)
    text = "\n".join(map(str, hours.ravel()))
    np.testing.assert_array_equal(readers.series.parse_days(text, "here"), hours.mean(0))


def test_a_count_series_is_the_law_of_demand_and_tasks_tilt_it():
    env, params = made("supply_chain")
    law = np.diff(np.asarray(params.demand_cdf), prepend=0.0)
    np.testing.assert_allclose(law[[4, 8]], [4 / 36, 32 / 36], rtol=1e-6)
    assert law.sum() == 1.0
    assert float(params.demand_mean) == pytest.approx((4 * 4 + 32 * 8) / 36)
    tasks = jax.jit(jax.vmap(env.sample_params))(jax.random.split(jax.random.key(0), 64))
    laws = np.diff(np.asarray(tasks.demand_cdf, float), prepend=0.0)
    assert (np.delete(laws, [4, 8], axis=1) == 0).all()  # what never happened never does
    np.testing.assert_allclose(laws @ np.arange(9), tasks.demand_mean, rtol=1e-4)
    low, high = env.demand_range
    assert low < tasks.demand_mean.min() < 5.5 < 7.5 < tasks.demand_mean.max() < high
    average = jax.jit(env.average_task)(params, tasks)
    np.testing.assert_allclose(np.diff(average.demand_cdf, prepend=0.0) @ np.arange(9), average.demand_mean, rtol=1e-4)
    levels = jax.jit(jax.vmap(env.solve))(tasks)
    assert levels.max() < env.grid_size - 3  # the reference's grid cuts nothing


@hypothesis.given(rate=st.floats(1.0, 8.0), mean=st.floats(0.5, 16.0))
def test_tilted_poisson_laws_are_poisson_laws(rate, mean):
    counts = np.arange(80)
    log_factorial = np.cumsum(np.log(np.maximum(counts, 1)))

    def poisson(rate):
        return np.exp(counts * np.log(rate) - rate - log_factorial)

    found = np.asarray(tilt(poisson(rate), np.float32(mean)))
    np.testing.assert_allclose(found, poisson(mean), atol=2e-4)
    assert tilted_law.spread(poisson(rate), mean) == pytest.approx(np.sqrt(mean), rel=1e-3)


def tilt(law, mean):
    return tilted_law.tilted(law, mean)


def test_a_city_of_two_files_is_the_shipped_one():
    city = data.amod_city("san_francisco")
    given = {"vehicles": city.vehicles, "driving_cost": city.driving_cost}
    env, params = made("vehicle_fleet", **given)
    shipped, _ = envs_jax.make("vehicle_fleet", rows=1, columns=10, max_requests=env.max_requests)
    same(params, shipped.city_params(city))
    assert env.num_periods == 20
    with pytest.raises(ValueError, match="no driving is given, got none from 0 to 1"):
        envs_jax.make("vehicle_fleet", demand=FOLDER / "san_francisco_trips.csv")


def test_without_driving_times_empty_vehicles_take_the_shortest_way_over_trips(tmp_path):
    rows = ["0,0,1,1,5,2", "1,0,1,1,5,3", "0,1,2,1,5,2", "1,2,0,1,5,4", "1,0,2,1,5,9", "0,1,0,0,0,1"]
    path = tmp_path / "trips.csv"
    path.write_text("\n".join(["period,origin,destination,requests,fare,trip_periods", *rows]))
    env, params = envs_jax.make("vehicle_fleet", demand=path)
    # 1 to 0 was recorded, but nobody asked: round by 2. From 0 to 2 by 1: nobody drives nine periods.
    np.testing.assert_array_equal(params.move_time, [[1, 2, 4], [6, 1, 2], [4, 6, 1]])
    assert (env.num_regions, env.num_periods, env.max_travel_time) == (3, 2, 9)
    assert envs_jax.make("vehicle_fleet", demand=path, num_periods=1)[0].horizon == 3


# ---- what tasks are drawn from, and which environment is which ------------------------------------------------------

SHOWN = {  # but not in the file
    "air_traffic": {"charge_noise"},
    "energy_trading": {"capacity", "power", "initial_charge"},
    "supply_chain": {"lead_time", "holding_cost", "start_low", "start_high"},
}


@pytest.mark.parametrize("name", FILES)
def test_tasks_keep_what_the_file_shows_and_draw_what_is_hidden(name):
    env, params = made(name)
    tasks = jax.jit(jax.vmap(env.sample_params))(jax.random.split(jax.random.key(0), 3))
    for field, own in vars(params).items():
        drawn = getattr(tasks, field)
        assert drawn.dtype == own.dtype
        assert drawn.shape == (3, *own.shape)
        if field in env.hidden:
            assert (drawn != drawn[:1]).any(), field
        elif field not in SHOWN.get(name, ()):
            np.testing.assert_array_equal(drawn, np.broadcast_to(own, drawn.shape), err_msg=field)


def test_equal_files_are_the_same_environment_and_changed_ones_another(tmp_path, monkeypatch):
    path = tmp_path / "shop.txt"
    path.write_text((FOLDER / "ft06.txt").read_text())
    env, _ = envs_jax.make("manufacturing", instance=path)
    assert envs_jax.make("manufacturing", instance=str(path))[0] is env
    path.write_text(path.read_text().replace("2 1 0 3", "2 7 0 3"))
    other, params = envs_jax.make("manufacturing", instance=path)
    assert other is not env
    assert params.nominal[0, 2] == 7
    assert env.default_params.nominal[0, 2] == 1
    monkeypatch.setenv("HOME", str(tmp_path))
    assert envs_jax.make("manufacturing", instance="~/shop.txt")[1].nominal[0, 2] == 7
    assert hash(env) != hash(other)


# ---- round trips ----------------------------------------------------------------------------------------------------


def taillards_form(route, minutes):
    lines = ["Nb of jobs, Nb of Machines, Time seed, Machine seed, Upper bound, Lower bound"]
    lines += [f"{route.shape[0]} {route.shape[1]} 1 2 3 4", "Times", *(" ".join(map(str, row)) for row in minutes)]
    return "\n".join([*lines, "Machines", *(" ".join(map(str, row + 1)) for row in route)])


@hypothesis.given(seed=st.integers(0, 2**31), jobs=st.integers(1, 7), machines=st.integers(1, 7), own=st.booleans())
def test_job_shops_come_back_as_written(seed, jobs, machines, own):
    rng = np.random.default_rng(seed)
    route = np.array([rng.permutation(machines) for _ in range(jobs)])
    minutes = rng.integers(1, 100, route.shape)
    pairs = np.stack([route, minutes], 2).reshape(jobs, -1)
    standard = "\n".join(["instance x", f"{jobs} {machines}", *(" ".join(map(str, row)) for row in pairs), "# end"])
    found = readers.job_shop.parse(taillards_form(route, minutes) if own else standard, "here")
    np.testing.assert_array_equal(found.route, route)
    np.testing.assert_array_equal(found.minutes, minutes)


@hypothesis.given(seed=st.integers(0, 2**31), n=st.integers(2, 7), width=st.integers(1, 9))
def test_landings_come_back_as_written_however_lines_are_broken(seed, n, width):
    rng = np.random.default_rng(seed)
    wake = rng.integers(0, 3, n)
    table = rng.integers(1, 20, (3, 3))
    times = np.sort(rng.integers(0, 500, (n, 3)), axis=1)
    times = times[np.argsort(times[:, 1], kind="stable")]
    late = rng.uniform(1, 30, n)
    separation = table[np.ix_(wake, wake)]
    numbers = [n, 10]
    for i in range(n):
        numbers += [0, *times[i].tolist(), 0.5 * late[i], late[i], *separation[i].tolist()]
    text = "\n".join(" ".join(map(repr, map(float, numbers[i : i + width]))) for i in range(0, len(numbers), width))
    found = readers.landing.read(text, "here")
    np.testing.assert_array_equal(np.stack([found.earliest, found.target, found.latest], 1), times)
    np.testing.assert_array_equal(found.late, late)
    off = ~np.eye(n, dtype=bool)
    np.testing.assert_array_equal(found.separation[off], separation[off])
    kinds, blocks = found.classes()
    np.testing.assert_array_equal(blocks[np.ix_(kinds, kinds)][off], separation[off])
    assert len(blocks) <= len(np.unique(wake))


@hypothesis.given(seed=st.integers(0, 2**31), buses=st.integers(2, 8), mark=st.sampled_from(["\t", "  ", ", "]))
def test_networks_come_back_as_written(seed, buses, mark):
    rng = np.random.default_rng(seed)
    names = rng.permutation(99)[:buses] + 1
    load = rng.uniform(1, 50, buses)
    lines = [(i, int(rng.integers(0, i))) for i in range(1, buses)] + [(0, buses - 1)]
    x, rating = rng.uniform(0.01, 1, buses), rng.uniform(10, 99, buses)
    cost = rng.uniform(0.01, 30, (2, 2))
    rows = {
        "bus": [[name, 1, power, *[0] * 10] for name, power in zip(names, load, strict=True)],
        "gen": [[names[i], 0, 0, 0, 0, 1, 100, 1, 300, 0] for i in (0, buses - 1)] + [[7, 0, 0, 0, 0, 1, 100, 0, 9, 0]],
        "branch": [[names[a], names[b], 0, x[i], 0, rating[i], 0, 0, 0, 0, 1] for i, (a, b) in enumerate(lines)],
        "gencost": [[2, 0, 0, 3, *pair, 5] for pair in cost] + [[2, 0, 0, 2, 1, 0, 0]],
    }
    text = "mpc.baseMVA = 100; % MVA\nmpc.bus_name = {'a; b'};\n"
    for name, table in rows.items():
        text += f"mpc.{name} = [\n" + "".join(mark.join(map(str, row)) + "; % a row\n" for row in table) + "];\n"
    case = readers.matpower.parse(text, "here")
    np.testing.assert_array_equal(case.bus, names)
    np.testing.assert_array_equal(case.load, load)
    np.testing.assert_array_equal(case.lines, np.array(lines) + 1)
    np.testing.assert_array_equal(case.reactance, x)
    np.testing.assert_array_equal(case.rating, rating)
    np.testing.assert_array_equal(case.unit_bus, [1, buses])
    np.testing.assert_array_equal(case.unit_cost, cost)


@hypothesis.given(
    values=st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=30),
    mark=st.sampled_from([",", ";", "\t", " "]),
    named=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_series_come_back_as_written(values, mark, named, end):
    lines = [f"{i}{mark}{value!r}" for i, value in enumerate(values)]
    text = end.join(["# a comment", *([f"hour{mark}price"] if named else []), *lines, ""])
    np.testing.assert_array_equal(readers.series.parse(text, "here"), values)


# ---- the contract ---------------------------------------------------------------------------------------------------

SMALL = {
    "air_traffic": {"num_aircraft": 8, "num_periods": 3},
    "manufacturing": {},
    "smart_grid": {"num_periods": 24, "storage_buses": (3, 9), "levels": 3},
    "maritime": {"num_periods": 5},
    "energy_trading": {"num_periods": 12},
    "supply_chain": {"num_stages": 2, "num_periods": 24},
    "vehicle_fleet": {"num_periods": 6},
}

WHOLE = ("energy_trading", "supply_chain")
"""Domains whose every check is run with a file."""

OF_CODE = (
    "a_client_steps_through_the_time_limit",
    "jit_equals_no_jit",
    "legal_actions_can_be_sampled",
    "the_horizon_is_the_constructors",
    "views_show_what_the_domain_shows",
)
"""Checks of code that a file does not reach: test_conformance.py runs them on every domain."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_domain_keeps_its_contract_with_a_file(name, tmp_path):
    given = dict(SMALL[name])
    if name == "maritime":  # a file without noise has no other episodes for other keys, which the contract wants
        given["topology"] = tmp_path / "noisy.yml"
        given["topology"].write_text(noisy((FOLDER / "cim_toy_4p.yml").read_text()))
    if name == "supply_chain":  # of which some tasks ask for twice as much as usual, so that stocks do run out
        given["demand"] = tmp_path / "counts.csv"
        given["demand"].write_text("\n".join("0123421059"))
    # Signs, and which columns are ever set, are of a domain's own tasks at its own size, not of these small instances.
    other = (*EXCUSABLE, "private_columns_are_contiguous", "documents_its_columns")
    if name not in WHOLE:
        other += OF_CODE
    assert set(other) <= set(CHECKS)
    check_domain(made(name, **given)[0], only=[check for check in CHECKS if check not in other])


def test_a_network_ten_times_as_large_looks_the_same_and_pays_ten_times_as_much(tmp_path):
    """Loads, capacities and ratings tenfold, slopes of incremental costs a tenth: only the unit has changed."""
    column, lines, name = {"bus": 2, "gen": 8, "branch": 5, "gencost": 4}, [], ""
    for line in (FOLDER / "case14.m").read_text().splitlines():
        name = line[4:].split(" =")[0] if line.startswith("mpc.") else name
        if line.startswith("\t"):
            cells = line.strip("\t;").split("\t")
            at = column[name]
            cells[at] = repr(float(cells[at]) * (0.1 if name == "gencost" else 10))
            line = "\t".join(cells) + ";"
        lines.append(line)
    (tmp_path / "large.m").write_text("\n".join(lines))
    small, large = (
        envs_jax.make("smart_grid", case=path, num_periods=4)[0] for path in (FOLDER / "case14.m", tmp_path / "large.m")
    )
    assert large.size == pytest.approx(10.0)
    key, outcomes = jax.random.key(2), []
    for env in (small, large):
        task = jax.jit(env.sample_params)(key)

        def body(state, action, env=env, task=task):
            seen, state, reward, _, info = env.step_env(key, state, action, task)
            return state, (seen, reward, info["price"], info["overload"])

        _, trace = jax.jit(functools.partial(jax.lax.scan, body))(
            env.reset_env(key, task)[1], jnp.array([1, 0, 1, 2] * 3)
        )
        outcomes.append(trace)
    (seen, reward, price, overload), (seen_, reward_, price_, overload_) = outcomes
    assert float(jnp.abs(reward).sum()) > 1
    np.testing.assert_allclose(reward_, 10 * reward, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(price_, price, rtol=1e-4)
    np.testing.assert_allclose(overload_, 10 * overload, rtol=1e-3, atol=1e-2)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), seen_, seen)


def test_a_case_of_linear_costs_is_dispatched(tmp_path):
    text = (FOLDER / "case14.m").read_text()
    for cost in ("0.0430293", "0.25", "0.01"):
        text = text.replace(f"\t3\t{cost}\t", "\t3\t0\t")
    (tmp_path / "linear.m").write_text(text)
    env, params = envs_jax.make("smart_grid", case=tmp_path / "linear.m", num_periods=4)
    supply = env.supply(params)
    assert all(np.isfinite(leaf).all() for leaf in supply)
    load, green = jnp.float32(259.0), jnp.zeros((2,), jnp.float32)
    _, hours = jax.jit(env.savings)(params, load, green, jnp.zeros((1, 3), jnp.float32))
    assert float(hours.dispatch.output.sum()) == pytest.approx(259.0, rel=1e-5)
    # Units 1 and 2 cost 20 $/MWh, together 472 MW; the slope that the model adds is a few cents.
    assert float(hours.dispatch.price[0]) == pytest.approx(20.0, abs=0.1)
    assert float(hours.fuel_cost[0]) == pytest.approx(259 * 20.0, rel=2e-3)
