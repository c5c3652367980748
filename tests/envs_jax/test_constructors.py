"""Every constructor and every factory of tasks refuses what it cannot take: by field, value and what is allowed."""

import importlib
import inspect
import math
import re
import subprocess
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import checks, data
from envs_jax.data import amod_city
from envs_jax.domains.names import DOMAINS

NAN, HUGE = math.nan, 10**9


def refused(call, field, got, allowed):
    """``call()`` raises a ValueError of one line that holds all three."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    message = str(error.value)
    for part in (field, got, allowed):
        assert part in message, message
    assert "\n" not in message
    assert len(message) < 400


def domain_class(name):
    return getattr(importlib.import_module(f"envs_jax.domains.{name}"), DOMAINS[name])


# ---- constructors ---------------------------------------------------------------------------------------------------

# domain: (arguments, field, value as shown, what is allowed)
CONSTRUCTORS = {
    "agriculture": [
        ({"num_fields": 0}, "num_fields", "got 0", "from 1 to 512"),
        ({"num_fields": 2.0}, "num_fields", "got 2.0", "a whole number"),
        ({"num_fields": "6"}, "num_fields", "got '6'", "a whole number"),
        ({"num_periods": True}, "num_periods", "got True", "a whole number"),
        ({"num_periods": NAN}, "num_periods", "got nan", "from 1 to 10000"),
        ({"num_periods": HUGE}, "num_periods", "got 1000000000", "from 1 to 10000"),
        ({"num_fields": 512, "num_periods": 9999}, "num_fields x num_periods", "= 5119488", "at most 262144"),
    ],
    "air_traffic": [
        ({"num_aircraft": 21}, "num_aircraft", "got 21", "from 2 to 20"),
        ({"num_aircraft": 8.5}, "num_aircraft", "got 8.5", "a whole number"),
        ({"num_airlines": 1}, "num_airlines", "got 1", "from 2 to 100"),
        ({"num_runways": np.bool_(True)}, "num_runways", "True", "from 1 to 20"),
        ({"window": 9}, "window", "got 9", "from 2 to 8"),
        ({"num_periods": HUGE}, "num_periods", "got 1000000000", "from 1 to 10000"),
        ({"num_aircraft": 12, "num_slots": 255}, "num_slots", "got 255", "from 256 to 4096"),
        ({"num_slots": 10**6}, "num_slots", "got 1000000", "from 176 to 4096"),
    ],
    "cloud_scheduling": [
        ({"num_slots": 1}, "num_slots", "got 1", "from 2 to 24"),
        ({"num_slots": 5.0}, "num_slots", "got 5.0", "a whole number"),
        ({"num_resources": 7}, "num_resources", "got 7", "from 1 to 6"),
        ({"num_picks": NAN}, "num_picks", "got nan", "from 1 to 1000"),
        ({"num_periods": True}, "num_periods", "got True", "from 1 to 100000"),
        ({"num_arrivals": 65}, "num_arrivals", "got 65", "from 1 to 64"),
        ({"deeprm": "no"}, "deeprm", "got 'no'", "True or False"),
    ],
    "data_center": [
        ({"num_servers": 0}, "num_servers", "got 0", "from 1 to 1024"),
        ({"num_servers": 6.0}, "num_servers", "got 6.0", "a whole number"),
        ({"num_periods": "128"}, "num_periods", "got '128'", "a whole number"),
        ({"queue": False}, "queue", "got False", "a whole number"),
        ({"queue": HUGE}, "queue", "got 1000000000", "from 1 to 1048576"),
        ({"num_servers": 2}, "num_servers x queue", "2 x 24 = 48", "at least num_periods = 128"),
        ({"num_servers": 1024, "queue": 2048}, "num_servers x queue", "= 2097152", "at most 1048576"),
    ],
    "edge_computing": [
        ({"num_tasks": 65}, "num_tasks", "got 65", "from 1 to 64"),
        ({"num_tasks": 20.0}, "num_tasks", "got 20.0", "a whole number"),
        ({"num_servers": 9}, "num_servers", "got 9", "from 1 to 8"),
        ({"num_servers": True}, "num_servers", "got True", "a whole number"),
        ({"num_periods": NAN}, "num_periods", "got nan", "from 1 to 10000"),
        ({"window": 21}, "window", "got 21", "from 1 to 20"),
        ({"num_tasks": 5}, "window", "got 6", "from 1 to 5"),
    ],
    "energy_trading": [
        ({"num_periods": 0}, "num_periods", "got 0", "from 1 to 99999"),
        ({"num_devices": 3.0}, "num_devices", "got 3.0", "from 1 to 24"),
        ({"max_capacity": "16"}, "max_capacity", "got '16'", "from 1 to 999"),
        ({"num_prices": 30}, "num_prices", "got 30", "odd"),
        ({"num_prices": True}, "num_prices", "got True", "from 3 to 999"),
        ({"cycle_hours": NAN}, "cycle_hours", "got nan", "from 1 to 99999"),
        (
            {"num_periods": 99_999, "num_prices": 999, "max_capacity": 999},
            "num_periods x num_devices x",
            "= 2993",
            "at most 1073741824",
        ),
    ],
    "healthcare": [
        ({"num_wards": 11}, "num_wards", "got 11", "from 1 to 10"),
        ({"num_wards": 4.0}, "num_wards", "got 4.0", "a whole number"),
        ({"num_days": True}, "num_days", "got True", "from 1 to 10000"),
        ({"epochs_per_day": NAN}, "epochs_per_day", "got nan", "from 1 to 1440"),
        ({"max_beds": 65}, "max_beds", "got 65", "from 1 to 64"),
        ({"max_arrivals": 3}, "max_arrivals", "got 3", "from 12 to 63"),
        (
            {"num_days": 10_000, "epochs_per_day": 1440},
            "num_days x epochs_per_day",
            "10000 x 1440 x",
            "at most 268435456",
        ),
    ],
    "manufacturing": [
        ({"num_jobs": 0}, "num_jobs", "got 0", "from 1 to 30"),
        ({"num_jobs": 6.0}, "num_jobs", "got 6.0", "a whole number"),
        ({"num_machines": "6"}, "num_machines", "got '6'", "a whole number"),
        ({"num_machines": True}, "num_machines", "got True", "a whole number"),
        ({"max_holds": -1}, "max_holds", "got -1", "from 0 to 10000"),
        ({"max_holds": NAN}, "max_holds", "got nan", "a whole number"),
        ({"num_jobs": 20, "num_machines": 12}, "num_jobs + num_machines", "20 + 12 = 32", "at most 31"),
    ],
    "maritime": [
        ({"network": "7p"}, "network", "got '7p'", "one of 4p, 5p, 6p"),
        ({"network": 5}, "network", "got 5", "one of 4p, 5p, 6p"),
        ({"num_periods": 1}, "num_periods", "got 1", "from 2 to 10000"),
        ({"num_periods": 17.0}, "num_periods", "got 17.0", "a whole number"),
        ({"season": 1}, "season", "got 1", "True or False"),
        ({"scarce": "yes"}, "scarce", "got 'yes'", "True or False"),
        ({"num_periods": HUGE}, "num_periods", "got 1000000000", "from 2 to 10000"),
    ],
    "network_traffic": [
        ({"num_flows": 32}, "num_flows", "got 32", "from 1 to 31"),
        ({"num_flows": 8.0}, "num_flows", "got 8.0", "a whole number"),
        ({"slots_per_frame": True}, "slots_per_frame", "got True", "from 1 to 16"),
        ({"num_periods": NAN}, "num_periods", "got nan", "a whole number"),
        ({"activations": ()}, "activations", "got 0 sets", "1 to 31 sets of flows"),
        ({"activations": 3}, "activations", "got 3", "1 to 31 sets of flows"),
        ({"activations": ((0,), 1)}, "activations[1]", "got 1", "whole numbers from 0 to 7"),
        ({"activations": [[0], [1, 8]]}, "activations[1][1]", "got 8", "from 0 to 7"),
        ({"activations": [[2, 2]]}, "activations[0]", "got (2, 2)", "distinct flows"),
    ],
    "portfolio": [
        ({"num_assets": 0}, "num_assets", "got 0", "from 1 to 256"),
        ({"num_assets": 4.0}, "num_assets", "got 4.0", "a whole number"),
        ({"num_factors": 32}, "num_factors", "got 32", "from 1 to 31"),
        ({"num_factors": True}, "num_factors", "got True", "a whole number"),
        ({"num_periods": NAN}, "num_periods", "got nan", "from 1 to 10000"),
        ({"num_periods": "32"}, "num_periods", "got '32'", "a whole number"),
        ({"num_assets": HUGE}, "num_assets", "got 1000000000", "from 1 to 256"),
    ],
    "recommender": [
        ({"num_topics": 1}, "num_topics", "got 1", "from 2 to 1000"),
        ({"num_topics": 10.0}, "num_topics", "got 10.0", "a whole number"),
        ({"num_candidates": True}, "num_candidates", "got True", "from 1 to 1000"),
        ({"slate_size": 11}, "slate_size", "got 11", "from 1 to 10"),
        ({"slate_size": 65, "num_candidates": 100}, "slate_size", "got 65", "from 1 to 64"),
        ({"num_periods": NAN}, "num_periods", "got nan", "from 1 to 10000"),
        ({"preset": "vidoe"}, "preset", "got 'vidoe'", "did you mean 'video'?"),
        ({"preset": None}, "preset", "got None", "one of video, "),
    ],
    "smart_city": [
        ({"num_periods": 0}, "num_periods", "got 0", "from 1 to 100000"),
        ({"num_periods": 48.0}, "num_periods", "got 48.0", "a whole number"),
        ({"num_periods": True}, "num_periods", "got True", "a whole number"),
        ({"num_periods": NAN}, "num_periods", "got nan", "a whole number"),
        ({"num_periods": "48"}, "num_periods", "got '48'", "a whole number"),
        ({"num_periods": HUGE}, "num_periods", "got 1000000000", "from 1 to 100000"),
        ({"num_periods": [48]}, "num_periods", "got (48,)", "a whole number"),
    ],
    "smart_grid": [
        ({"levels": 2.7}, "levels", "got 2.7", "a whole number from 2 to 1000"),
        ({"levels": 1}, "levels", "got 1", "from 2 to 1000"),
        ({"num_periods": True}, "num_periods", "got True", "from 1 to 100000"),
        ({"num_wind": NAN}, "num_wind", "got nan", "from 1 to 99"),
        ({"num_cloud": HUGE}, "num_cloud", "got 1000000000", "from 1 to 99"),
        ({"storage_buses": 3}, "storage_buses", "got 3", "1 to 4 whole numbers from 1 to 14"),
        ({"storage_buses": "39"}, "storage_buses", "got '39'", "1 to 4 whole numbers from 1 to 14"),
        ({"storage_buses": (3, 9.5)}, "storage_buses[1]", "got 9.5", "from 1 to 14"),
        ({"storage_buses": (1, 2, 3, 4, 5)}, "storage_buses", "got 5: (1, 2, 3, 4, 5)", "1 to 4 whole numbers"),
        ({"levels": 1000}, "num_periods x num_wind x num_cloud x levels^3", "x 1000000000 =", "at most 1073741824"),
    ],
    "supply_chain": [
        ({"num_stages": 2.7}, "num_stages", "got 2.7", "must be a whole number from 1 to 8"),
        ({"num_stages": True}, "num_stages", "got True", "from 1 to 8"),
        ({"num_periods": HUGE}, "num_periods", "got 1000000000", "from 1 to 10000"),
        ({"max_lead_time": 9}, "max_lead_time", "got 9", "from 1 to 8"),
        ({"max_adjustment": NAN}, "max_adjustment", "got nan", "from 1 to 15"),
        ({"max_demand": 16}, "max_demand", "got 16", "from 17 to 127"),
    ],
    "vehicle_fleet": [
        ({"rows": 0}, "rows", "got 0", "from 1 to 32"),
        ({"columns": 3.0}, "columns", "got 3.0", "a whole number"),
        ({"rows": 1, "columns": 1}, "rows x columns", "1 x 1 = 1", "at least 2"),
        ({"rows": 4, "columns": 5}, "fractions x", "2 x 19 = 38", "at most 31"),
        ({"num_periods": True}, "num_periods", "got True", "from 1 to 10000"),
        ({"fractions": (0.5, 0.5)}, "fractions", "got (0.5, 0.5)", "increase in (0, 1]"),
        ({"fractions": (0.5, 1.5)}, "fractions", "got 1.5 at [1]", "at most 1"),
        ({"fractions": (NAN, 1.0)}, "fractions", "got nan at [0]", "above 0"),
        ({"fractions": 0.5}, "fractions", "got 0.5", "increase in (0, 1]"),
        ({"max_travel_time": 5}, "max_travel_time", "got 5", "from 6 to 1000"),
        ({"max_requests": 129}, "max_requests", "got 129", "from 2 to 128"),
    ],
    "warehouse": [
        ({"num_levels": 0}, "num_levels", "got 0", "from 1 to 4"),
        ({"num_levels": 5}, "num_levels", "got 5", "from 1 to 4"),
        ({"num_levels": 3.0}, "num_levels", "got 3.0", "a whole number"),
        ({"cap": 32}, "cap", "got 32", "from 1 to 31"),
        ({"cap": NAN}, "cap", "got nan", "a whole number"),
        ({"num_periods": True}, "num_periods", "got True", "from 1 to 10000"),
        ({"num_levels": 4, "cap": 8}, "(cap + 1) ** num_levels", "got 9 ** 4 = 6561", "at most 4096"),
    ],
}


@pytest.mark.parametrize(
    ("name", "arguments", "field", "got", "allowed"),
    [(name, *case) for name, cases in CONSTRUCTORS.items() for case in cases],
)
def test_a_constructor_refuses_by_field_value_and_what_is_allowed(name, arguments, field, got, allowed):
    refused(lambda: envs_jax.make(name, **arguments), f"{name}.{field}", got, allowed)


def test_every_domain_has_at_least_six_bad_inputs():
    assert set(CONSTRUCTORS) == set(DOMAINS)
    assert min(map(len, CONSTRUCTORS.values())) >= 6


ARGUMENTS = [(name, field) for name in DOMAINS for field in inspect.signature(domain_class(name)).parameters]


@pytest.mark.parametrize(("name", "field"), ARGUMENTS)
def test_every_argument_of_every_constructor_is_checked(name, field):
    """Whatever a new argument means, these are no values of it."""
    default = inspect.signature(domain_class(name)).parameters[field].default
    wrong = [NAN, math.inf, -1, "zebra", b"4", {}, object(), [[]], 10**30, 10**5000, 1j]
    if not isinstance(default, float):
        wrong += [2.5]
    if not isinstance(default, bool):
        wrong += [True, np.bool_(False)]
    if default is not None:
        wrong += [None]
    for value in wrong:
        refused(lambda value=value: envs_jax.make(name, **{field: value}), f"{name}.{field}", "got ", " must be ")
        with pytest.raises(ValueError, match=f"{name}.{field}"):
            domain_class(name)(**{field: value})


def test_numpys_and_jaxs_integers_and_lists_are_as_good_as_pythons():
    env, _ = envs_jax.make("supply_chain", num_stages=3)
    for three in (np.int64(3), np.uint8(3), np.array(3)):
        same, _ = envs_jax.make("supply_chain", num_stages=three)
        assert same is env
    assert type(domain_class("supply_chain")(num_stages=np.int32(3)).num_turns) is int
    assert domain_class("supply_chain")(num_stages=jnp.int32(3)).num_turns == 3
    grid, _ = envs_jax.make("smart_grid", storage_buses=(3, 9))
    for buses in ([3, 9], np.array([3, 9])):
        assert envs_jax.make("smart_grid", storage_buses=buses)[0] is grid


def test_an_instance_made_before_does_not_let_its_equals_pass():
    """1 == 1.0 == True: a cache by equality would hand out what 1 has made."""
    envs_jax.make("portfolio", num_factors=1)
    for equal in (1.0, True):
        refused(
            lambda equal=equal: envs_jax.make("portfolio", num_factors=equal),
            "portfolio.num_factors",
            f"got {equal}",
            "a whole number from 1 to 31",
        )


@pytest.mark.parametrize("make", [envs_jax.make, gymnax.make])
def test_unknown_arguments_are_named_with_a_near_match(make):
    refused(
        lambda: make("portfolio", assetz=3),
        "portfolio has no argument 'assetz' (got assetz=3)",
        "num_assets, num_factors, num_periods",
        "did you mean 'num_assets'?",
    )
    refused(lambda: make("smart_city", zebra=1), "smart_city has no argument 'zebra'", "zebra=1", "one of num_periods")


def test_unknown_domains_are_named_with_a_near_match():
    refused(lambda: envs_jax.make("nope"), "'nope'", "registered: agriculture, ", "vehicle_fleet")
    refused(lambda: envs_jax.make("portfolo"), "'portfolo'", "registered: agriculture, ", "did you mean 'portfolio'?")
    refused(lambda: envs_jax.make(["portfolio"]), "['portfolio']", "unknown domain", "registered: agriculture, ")


# ---- factories of tasks ---------------------------------------------------------------------------------------------


def brooklyn(**changes):
    return {"city": amod_city("nyc_brooklyn")._replace(**changes)}


ROUTE, MINUTES = data.job_shop("ft06")
SUPPLY = {
    "demand_mean": 5.0,
    "echelon_cost": [0.25] * 4,
    "lead_time": [1, 2, 3, 1],
    "backlog_cost": 9.0,
    "nominal_demand": 5.0,
    "start": (0.0, 2.0),
}
TRAFFIC = {
    "arrival_rate": 0.4,
    "success_rate": 0.9,
    "connectivity": 0.5,
    "class_weight": (1.0, 2.0, 3.0, 4.0),
    "contract": 1.0,
    "service_class": [0, 1, 2, 3, 0, 1, 2, 3],
    "on_fraction": 0.5,
    "on_length": 2.0,
    "buffer": 50,
    "loss": 20.0,
    "start": 4,
}
HOSPITAL = {
    "beds": 10,
    "start_census": 9.0,
    "holding_cost": [1.0] * 4,
    "overflow_cost": np.full((4, 4), 15.0),
    "arrival_rate": 2.0,
    "discharge_rate": 0.25,
    "off_service": 1.1,
    "discharge_profile": [0.125] * 8,
    "arrival_profile": [0.125] * 8,
}
WAREHOUSE = {"rates": [1.0] * 4, "holding": [1.0] * 4, "shortage": [9.0] * 4, "order_cost": [3.0] * 4}
# domain: (arguments of its constructor, factory, arguments that it takes)
FACTORIES = {
    "air_traffic": ({}, "instance", {"number": 2}),
    "energy_trading": ({}, "replay_params", {"prices": np.linspace(-5.0, 90.0, 24)}),
    "healthcare": ({}, "instance", HOSPITAL),
    "manufacturing": ({}, "instance", {"route": ROUTE, "minutes": MINUTES, "tightness": 1.3, "weight": [1.0] * 6}),
    "network_traffic": ({}, "instance", TRAFFIC),
    "supply_chain": ({}, "instance", SUPPLY),
    "vehicle_fleet": ({"columns": 7, "max_travel_time": 17, "max_requests": 96}, "city_params", brooklyn()),
    "warehouse": ({"num_levels": 4}, "instance", WAREHOUSE),
}
FIELDS = [(name, field) for name, (_, _, given) in FACTORIES.items() for field in given if field != "city"]


def factory(name, **static):
    constructor, method, _ = FACTORIES[name]
    return getattr(envs_jax.make(name, **(constructor | static))[0], method)


def test_every_public_factory_of_tasks_is_tested_here():
    derived = {"default_params", "sample_params", "average_task", "with_supply"}  # of no input but a key or a task
    for name in DOMAINS:
        found = {
            method
            for method, function in vars(domain_class(name)).items()
            if inspect.isfunction(function)
            and not method.startswith("_")
            and str(inspect.signature(function).return_annotation).endswith("Params")
        }
        assert found - derived == ({FACTORIES[name][1]} if name in FACTORIES else set()), name


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_takes_good_values_and_names_unknown_ones(name):
    given = FACTORIES[name][2]
    task = factory(name)(**given)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(task) if leaf.dtype.kind == "f")
    if name == "healthcare":
        refused(lambda: factory(name)(bed=10), "healthcare.instance", "bed=10", "did you mean 'beds'?")


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_argument_of_every_factory_is_checked(name, field):
    given = FACTORIES[name][2]
    value = given[field]
    shape = np.shape(value)
    wrong = [NAN, math.inf, True, "zebra", 1j, -1e9, 1e39]
    if shape:
        wrong = [np.where(np.arange(np.size(value)).reshape(shape) == 1, x, value) for x in (NAN, math.inf, 1e39)]
        if name != "energy_trading":  # prices may be negative
            wrong.append(np.where(np.arange(np.size(value)).reshape(shape) == 1, -1, value))
        wrong += ["zebra", np.ones(shape, bool), np.ones((*shape, 2)), np.ones(3), [[1], [1, 2]]]
    elif field not in {"arrival_rate", "success_rate", "connectivity", "beds", "start_census", "discharge_rate"}:
        wrong.append([1.0, 1.0])
    for bad in wrong:
        refused(lambda bad=bad: factory(name)(**given | {field: bad}), f"{name}.{field}", "got ", " must be ")


@pytest.mark.parametrize(
    ("name", "changes", "field", "got", "allowed"),
    [
        ("air_traffic", {"number": 5}, "number", "got 5", "from 1 to 4"),
        ("energy_trading", {"prices": np.ones(23)}, "prices", "got 23 values", "24 finite numbers"),
        ("healthcare", {"beds": 99}, "beds", "got 99", "from 1 to 20"),
        ("healthcare", {"beds": [1, 2, 3]}, "beds", "got 3 values", "4 whole numbers"),
        ("healthcare", {"beds": 9.5}, "beds", "got 9.5", "whole number"),
        ("healthcare", {"arrival_rate": [1, 1, -2, 1]}, "arrival_rate", "got -2 at [2]", "0 "),
        ("healthcare", {"discharge_rate": 0.0}, "discharge_rate", "got 0", "above 0"),
        ("healthcare", {"overflow_cost": np.ones((3, 4))}, "overflow_cost", "got shape (3, 4)", "shape (4, 4)"),
        ("healthcare", {"arrival_rate": 80.0}, "arrival_rate x", "a mean of 10", "max_arrivals=15"),
        ("manufacturing", {"route": 0 * ROUTE}, "route", "[0, 0, 0, 0, 0, 0] for job 0", "every machine once"),
        ("manufacturing", {"route": ROUTE[:2]}, "route", "got shape (2, 6)", "shape (6, 6)"),
        ("manufacturing", {"minutes": -MINUTES}, "minutes", "at [0, 0]", "0 or more"),
        ("manufacturing", {"tightness": 0.0}, "tightness", "got 0", "above 0"),
        ("manufacturing", {"weight": [1.0] * 5}, "weight", "got 5 values", "6 numbers"),
        ("network_traffic", {"success_rate": 1.5}, "success_rate", "got 1.5", "from 0 to 1"),
        ("network_traffic", {"arrival_rate": [0.1] * 7}, "arrival_rate", "got 7 values", "8 numbers"),
        ("network_traffic", {"arrival_rate": 2.5}, "arrival_rate", "got 2.5", "on_fraction x slots_per_frame = 2"),
        ("network_traffic", {"class_weight": [1, 1, 1]}, "class_weight", "got 3 values", "4 numbers"),
        ("network_traffic", {"service_class": 4}, "service_class", "got 4", "from 0 to 3"),
        ("network_traffic", {"on_fraction": 0.0}, "on_fraction", "got 0", "above 0 and at most 1"),
        ("network_traffic", {"buffer": 0}, "buffer", "got 0", "from 1 to"),
        ("supply_chain", {"echelon_cost": [0.25] * 3}, "echelon_cost", "got 3 values", "4 numbers of 0 or more"),
        ("supply_chain", {"lead_time": [1, 1, 1, 4]}, "lead_time", "got 4 at [3]", "from 1 to 3"),
        ("supply_chain", {"lead_time": [1, 1, 1.5, 1]}, "lead_time", "got 1.5 at [2]", "whole numbers"),
        ("supply_chain", {"demand_mean": -1.0}, "demand_mean", "got -1", "from 0 to 1000"),
        ("supply_chain", {"start": (2.0, 1.0)}, "start", "got (2.0, 1.0)", "increasing"),
        ("vehicle_fleet", brooklyn(requests=np.ones((20, 6, 6))), "city.requests", "shape (20, 6, 6)", "(20, 14, 14)"),
        ("vehicle_fleet", brooklyn(vehicles=-1), "city.vehicles", "got -1", "from 0 to"),
        ("vehicle_fleet", brooklyn(driving_cost=NAN), "city.driving_cost", "got nan", "0 or more"),
        (
            "vehicle_fleet",
            brooklyn(move_time=np.full((14, 14), 18)),
            "city.move_time",
            "got 18 at [0, 0]",
            "from 1 to 17",
        ),
        ("warehouse", {"rates": [1.0, 1.0, 1.0, 16.0]}, "rates", "a mean of 16, which needs DEMANDS - 1 of", "ends at"),
        ("warehouse", {"holding": [1.0] * 2}, "holding", "got 2 values", "4 numbers of 0 or more, one a level"),
        ("warehouse", {"order_cost": [1.0, -1.0, 1.0, 1.0]}, "order_cost", "got -1 at [1]", "0 or more"),
    ],
)
def test_a_factory_refuses_by_field_value_and_what_is_allowed(name, changes, field, got, allowed):
    refused(lambda: factory(name)(**FACTORIES[name][2] | changes), f"{name}.{field}", got, allowed)


def test_under_a_trace_shapes_are_checked_and_values_pass():
    instance = factory("supply_chain")
    make = jax.jit(lambda mean, costs: instance(**SUPPLY | {"demand_mean": mean, "echelon_cost": costs}))
    want = instance(**SUPPLY)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), make(jnp.float32(5.0), jnp.full((4,), 0.25)), want
    )
    refused(lambda: make(5.0, jnp.ones(3)), "supply_chain.echelon_cost", "got 3 values", "4 numbers")
    stacked = jax.vmap(lambda mean: instance(**SUPPLY | {"demand_mean": mean}))(jnp.array([2.0, 5.0]))
    assert stacked.demand_cdf.shape[0] == 2


# ---- the helper -----------------------------------------------------------------------------------------------------


def test_checks_load_neither_jax_nor_the_package():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "sys.exit(any(name.split('.')[0] in ('jax', 'flax', 'gymnax', 'envs_jax') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, checks.__file__], check=False).returncode == 0


def test_poisson_tables_agree_with_sums_of_the_law():
    for rate in (0.0, 0.3, 6.0, 80.0):
        mass = [
            math.exp(-rate + (k * math.log(rate) if k else 0.0) - math.lgamma(k + 1)) if rate or not k else 0.0
            for k in range(300)
        ]
        for most in (0, 5, 17, 90):
            assert checks.poisson_tail(rate, most) == pytest.approx(sum(mass[most + 1 :]), abs=1e-12)
        for share in (0.1, 0.9, 0.9999):
            assert checks.poisson_quantile(rate, share) == int(np.searchsorted(np.cumsum(mass), share))
    checks.poisson_table("d", "rate", None, 3, "most")  # under a trace
    with pytest.raises(
        ValueError, match=re.escape("d.rate must be small enough for a table that ends at most=16, got")
    ):
        checks.poisson_table("d", "rate", np.array([1.0, 6.0]), 16, "most")
    checks.poisson_table("d", "rate", np.array([1.0, 6.0]), 17, "most")


def test_a_value_that_cannot_be_printed_is_still_refused_in_one_line():
    class Wrong:
        def __repr__(self):
            raise RuntimeError

    for value in (Wrong(), 10**5000, "a\nb" * 500, np.zeros(1000)):
        refused(lambda value=value: checks.whole_number("d", "f", value, 1, 2), "d.f", "got ", "from 1 to 2")
