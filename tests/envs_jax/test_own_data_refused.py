"""One's own data: a file that is damaged, or that the model cannot play, is refused in one line by name."""

import functools
import os

import hypothesis
import hypothesis.strategies as st
import pytest

import envs_jax
from envs_jax.data import readers
from tests.envs_jax.own_files import FILES, FOLDER, made


def refused(call, *parts):
    """One line that holds all parts."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    message = str(error.value)
    for part in parts:
        assert part in message, message
    assert " must be " in message
    assert "\n" not in message
    assert len(message) < 500


ARGUMENTS = [(name, field) for name, files in FILES.items() for field in files]


@pytest.mark.parametrize(("name", "field"), ARGUMENTS)
def test_what_is_no_text_file_is_refused_by_name(name, field, tmp_path):
    bad = tmp_path / "bad.txt"
    make = functools.partial(made, name, **{field: bad})
    refused(make, f"{name}.{field}", "where there is none")
    bad.mkdir()
    refused(make, f"{name}.{field}", "a folder")
    bad.rmdir()
    bad.write_bytes((FOLDER / FILES[name][field]).read_bytes() + b"\n\xff\xfe")
    refused(make, f"{name}.{field}", "bad.txt:", "UTF-8 text", "byte 0xff")
    bad.write_bytes(b"1 2\n3 \0")
    refused(make, "bad.txt:2", "a zero byte")
    bad.write_bytes(b"")
    refused(make, f"{name}.{field}", "bad.txt")
    for value in (5, b"bad.txt", ["bad.txt"]):
        refused(functools.partial(made, name, **{field: value}), f"{name}.{field}", "the path of a file")
    if hasattr(os, "mkfifo"):  # reading it would never end
        os.mkfifo(tmp_path / "pipe")
        refused(functools.partial(made, name, **{field: tmp_path / "pipe"}), "where there is none")


# (domain, argument): (in the file, in its place, what the refusal says)
DAMAGED = {
    ("air_traffic", "instance"): [
        ("10 10", "ten 10", ("bad:1:", "number of aircraft", "a whole number from 1 to 1000", "'ten'")),
        ("10 10", "11 10", ("bad:5:", "latest time of aircraft 2", "from 744")),
        ("54 129 155", "54 129 -155", ("bad:2:", "target time of aircraft 1", "from 129 to", "'-155'")),
        ("54 129 155", "54 160 155", ("target time of aircraft 1", "from 160")),
        ("559 10.00", "559 x", ("cost per unit early of aircraft 1", "'x'")),
        ("559 10.00", "559 -1", ("cost per unit early of aircraft 1", "0 or more")),
        ("54 129 155", "54 129.5 155", ("earliest time of aircraft 1", "a whole number", "'129.5'")),
        ("559 10.00 10.00", "559 10.00 0", ("every cost per unit late", "above 0")),
        ("559 10.00 10.00", "559 20.00 10.00", ("early / cost per unit late", "the same", "from 1 to 2")),
        ("99999 3 15", "99999 3 nan", ("separation from aircraft 1 to 3", "'nan'")),
        ("99999 3 15", "99999 3 24", ("the largest separation", "from 1 to 23", "larger units")),
        ("99999 3 15 15", "99999 5 14 13", ("wake classes", "at most 3")),
        (None, 60, ("must be there", "the end of the file")),
        ("\n 8 99999\n", "\n 8 99999 5\n", ("what follows the last of 10 aircraft", "the end of the file", "'5'")),
    ],
    ("manufacturing", "instance"): [
        ("6 6\n", "6\n", ("bad:2:", "the numbers of jobs and of machines")),
        ("6 6\n", "7 6\n", ("7 rows, one a job", "got 6")),
        ("6 6\n", "6 5\n", ("bad:3:", "job 0", "10 numbers", "got 12")),
        ("2 1 0 3", "2 -1 0 3", ("bad:3:", "time of job 0, operation 0", "above 0", "'-1'")),
        ("2 1 0 3", "6 1 0 3", ("machine of job 0, operation 0", "from 0 to 5", "'6'")),
        ("2 1 0 3", "2 1 2 3", ("job 0", "every machine once", "[2, 2,")),
        ("2 1 0 3", "2 1 0 three", ("time of job 0, operation 1", "'three'")),
        ("2 1 0 3", "2 1 0", ("job 0", "12 numbers", "got 11")),
        (None, 100, ("rows, one a job",)),
        ("6 6\n", "25 20\n", ("25 rows",)),
    ],
    ("smart_grid", "case"): [
        ("mpc.version = '2'", "mpc.version = '1'", ("bad:4:", "mpc.version must be '2'")),
        ("mpc.baseMVA = 100;", "", ("mpc.baseMVA", "none")),
        ("94.2", "94.x", ("Pd of bus 3", "'94.x'")),
        ("94.2", "-94.2", ("Pd of bus 3", "0 or more")),
        ("0.05917", "0", ("x of branch 1-2", "other than 0")),
        ("\t14\t1\t14.9", "\t13\t1\t14.9", ("bus number must be there once", "13 again")),
        ("\t13\t14\t0.17093", "\t13\t15\t0.17093", ("bus of a branch", "one of mpc.bus", "15")),
        ("0.932\t0\t1", "0.932\t30\t1", ("angle of branch 5-6", "phase shifters")),
        ("\t2\t0\t0\t3\t0.25\t20\t0;", "\t1\t0\t0\t3\t0.25\t20\t0;", ("cost model", "piecewise linear", "at bus 2")),
        ("\t2\t0\t0\t3\t0.25\t20\t0;", "\t2\t0\t0\t4\t1\t0.25\t20\t0;", ("second order",)),
        ("\t2\t0\t0\t3\t0.25\t20\t0;", "", ("5 rows, one a unit", "got 4")),
        ("\t2\t0\t0\t3\t0.25\t20\t0;", "\t2\t0\t0\t3\t-0.25\t20\t0;", ("coefficients of 0 or more",)),
        ("94.2", "9400", ("Pmax of all units", "772.4 MW for 9564.8 MW")),
        ("0.17615\t0\t167\t0\t0\t0\t0\t1", "0.17615\t0\t167\t0\t0\t0\t0\t0", ("connected", "bus 8")),
        ("mpc.gen = [", "mpc.gem = [", ("rows of mpc.gen",)),
        (None, 1500, ("closed by ']'", "the end of the file")),
        ("0.17615\t0\t167\t0\t0\t0\t0\t1\t-360\t360", "0.17615", ("a row of mpc.branch", "at least 11 numbers")),
    ],
    ("maritime", "topology"): [
        ("total_containers: 100000", "total_containers: many", ("total_containers", "whole number", "'many'")),
        ("total_containers: 100000", "", ("'total_containers'",)),
        ("proportion: 0.67", "proportion: -0.67", ("demand_port_002.order_distribution.source.proportion", "-0.67")),
        ("proportion: 0.67", "proportion: 0.6", ("adds up to 1", "0.93")),
        ("proportion: 0.8", "proportion: 0.7", ("targets whose proportions add up to 1", "0.9")),
        ("    port_name: supply_port_001\n", "", ("bad:81:", "'port_name'", "distance_to_next_port")),
        ("port_name: supply_port_002", "port_name: supply_port_003", ("a port of the file", "did you mean")),
        ("route_name: route_001", "route_name: route_009", ("a route of the file", "'route_009'")),
        ("speed: 10", "speed: 8", ("sailed in 6 days", "8 days at speed 8")),
        ("      noise: 0\n      speed", "      noise: 1\n      speed", ("sailing.noise must be 0", "not random")),
        ("buffer_ticks: 1", "buffer_ticks: 4", ("buffer_ticks", "from 1 to 3", "'4'")),
        ("dsch_cost_factor: 0.05", "dsch_cost_factor: 0.1", ("load_cost_factor, 0.05", "one cost")),
        ("order_generate_mode: fixed", "order_generate_mode: unfixed", ("'fixed'", "unfixed")),
        ("period: 112", "period: 100", ("a divisor of the season's 112 days",)),
        ("seed: 4096", "seed: [", ("YAML",)),
        ("seed: 4096", "total_containers: 5", ("there once",)),
        ("seed: 4096", "seed: &a 1\nother: *a", ("bad:2:", "written out", "alias")),
        (None, 2000, ("topology",)),
    ],
    ("energy_trading", "prices"): [
        ("25.7200", "cheap", ("bad:2:", "price_usd_per_mwh", "a number", "'cheap'")),
        ("25.7200", "nan", ("price_usd_per_mwh", "'nan'")),
        ("25.7200", "", ("price_usd_per_mwh", "''")),
        ("0,25.7200", "25.7200", ("the row", "2 values", "got 1")),
        ("25.7200", "1e9", ("from -100000 to 100000",)),
        (None, 30, ("2 to 100000 rows",)),
    ],
    ("smart_grid", "demand"): [
        ("173.53", "-173.53", ("bad:2:", "load_mw", "0 or more", "'-173.53'")),
        ("173.53", "many", ("load_mw", "'many'")),
        ("23,", "23,150.0\n24,", ("whole days", "got 25")),
        ("173.53", "1e5", ("at most 772.4 MW", "got 100000")),
        (None, 40, ("rows of numbers",)),
    ],
    ("supply_chain", "demand"): [
        ("1,4\n", "1,4.5\n", ("bad:2:", "cases", "a whole number from 0 to 127", "'4.5'")),
        ("1,4\n", "1,-4\n", ("'-4'",)),
        ("1,4\n", "1,128\n", ("'128'",)),
        ("1,4\n", "1,four\n", ("'four'",)),
        (None, 19, ("at least two different",)),
        (None, 14, ("2 to 100000 rows",)),
    ],
    ("vehicle_fleet", "demand"): [
        ("requests", "asks", ("the first line", "requests once")),
        ("0,2,1,0.4", "0,2,2,0.4", ("different regions", "2 to itself")),
        ("0,2,1,0.4", "0,2,1,-0.4", ("bad:2:", "requests", "'-0.4'")),
        ("0,2,1,0.4", "0,2,1,few", ("requests", "'few'")),
        ("0,2,1,0.4", "0,2,40,0.4", ("destination", "from 0 to 30", "'40'")),
        ("0,2,1,0.4", "0,2,11,0.4", ("driving", "a matrix of the 12 regions", "10 rows")),
        (None, 100, ("bad",)),
    ],
    ("vehicle_fleet", "driving"): [
        ("1,4", "1,0", ("bad:1:", "driving time", "from 1 to 1000", "'0'")),
        ("1,4", "1,x", ("driving time", "'x'")),
        ("1,4", "1", ("bad:1:", "10 periods, one a region", "got 9")),
        (None, 60, ("vehicle_fleet.driving",)),
    ],
}
CASES = [(*key, i) for key, cases in DAMAGED.items() for i in range(len(cases))]


def test_every_format_has_at_least_four_damaged_files():
    assert set(DAMAGED) == set(ARGUMENTS)
    assert min(map(len, DAMAGED.values())) >= 4


@pytest.mark.parametrize(("name", "field", "number"), CASES)
def test_a_damaged_file_is_refused_in_one_line_that_names_what_is_wrong(name, field, number, tmp_path):
    old, new, parts = DAMAGED[name, field][number]
    text = (FOLDER / FILES[name][field]).read_text()
    if old is None:
        damaged = text[:new]
    else:
        assert old in text
        damaged = text.replace(old, new, 1)
    (tmp_path / "bad").write_text(damaged)
    refused(functools.partial(made, name, **{field: tmp_path / "bad"}), f"{name}.", *parts)


PARSERS = {
    "airland1.txt": readers.landing.read,
    "ft06.txt": readers.job_shop.parse,
    "ta01.txt": readers.job_shop.parse,
    "case14.m": readers.matpower.parse,
    "cim_toy_4p.yml": readers.topology.read,
    "pjm_rt_lmp.csv": readers.series.parse_prices,
    "beer_game.csv": readers.series.parse_counts,
    "san_francisco_trips.csv": readers.trips.parse,
    "san_francisco_driving.csv": readers.trips.parse_driving,
}
SPLINTERS = [
    "",
    "-",
    "e9",
    "nan",
    "1e400",
    "'",
    '"',
    "[",
    "}",
    ":",
    "\n",
    "%",
    ";",
    "*a",
    "...",
    "½",
    "\r",
    "99999999999",
    "0",
]


@hypothesis.given(
    file=st.sampled_from(sorted(PARSERS)),
    at=st.floats(0, 1, exclude_max=True),
    cut=st.sampled_from([0, 1, 3, 30]),
    piece=st.sampled_from(SPLINTERS),
)
@hypothesis.settings(max_examples=100)
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_one_line(file, at, cut, piece):
    text = (FOLDER / file).read_text()
    place = int(at * len(text))
    try:
        PARSERS[file](text[:place] + piece + text[place + cut :], "here")
    except ValueError as error:
        message = str(error)
        assert message.startswith("here")
        assert " must be " in message
        assert "\n" not in message
        assert len(message) < 300


def test_sizes_that_do_not_fit_are_refused_with_what_the_file_has(tmp_path):
    make = envs_jax.make
    shop = tmp_path / "shop.txt"
    shop.write_text("20 15\n" + "\n".join(" ".join(f"{m} 5" for m in range(15)) for _ in range(20)))
    refused(lambda: make("manufacturing", instance=shop), "num_jobs + num_machines", "at most 31", "20 + 15 = 35")
    refused(lambda: make("manufacturing", instance=FOLDER / "ft06.txt", num_jobs=5), "the file's 6 and 6", "5, 6")
    bank = tmp_path / "bank.txt"
    row = "0 10 20 90 1 1 " + "3 " * 21
    bank.write_text("21 0\n" + f"{row}\n" * 21)
    refused(lambda: make("air_traffic", instance=bank), "num_aircraft", "the first of the file's 21 aircraft")
    assert make("air_traffic", instance=bank, num_aircraft=5)[0].num_turns == 5
    costs = [f"0 10 20 90 {i} {i} " + "3 " * 17 for i in range(1, 18)]
    bank.write_text("17 0\n" + "\n".join(costs))
    refused(lambda: make("air_traffic", instance=bank), "at most 31", "17 + 17", "17 different costs")
    refused(lambda: make("air_traffic", instance=bank, num_airlines=3), "num_airlines", "from 17", "got 3")
    case = (FOLDER / "case14.m").read_text()
    unit, cost = "\t8\t0\t17.4\t24\t-6\t1.09\t100\t1\t100\t0;\n", "\t2\t0\t0\t3\t0.01\t40\t0;\n"
    large = tmp_path / "case.m"
    large.write_text(case.replace(unit, unit * 22).replace(cost, cost * 22, 1))
    refused(lambda: make("smart_grid", case=large), "smart_grid.case", "at most 25 units", "26 units")
    refused(lambda: make("smart_grid", case=FOLDER / "case14.m", storage_buses=(3, 15)), "storage_buses[1]", "to 14")
    topology = FOLDER / "cim_toy_4p.yml"
    refused(lambda: make("maritime", topology=topology, season=True), "left out with a topology", "season=True")
    (tmp_path / "many.yml").write_text(ring(17))
    assert readers.topology.read(ring(15), "here").network.routes == (tuple(range(15)),)
    refused(lambda: make("maritime", topology=tmp_path / "many.yml"), "ports + vessels", "at most 31", "17 + 17")
    refused(lambda: make("vehicle_fleet", driving=FOLDER / "san_francisco_driving.csv"), "left out without demand")
    refused(lambda: made("vehicle_fleet", rows=3), "rows, columns", "left out with demand")
    refused(lambda: made("vehicle_fleet", num_periods=21), "num_periods", "from 1 to 20")
    refused(lambda: made("energy_trading", cycle_hours=201), "cycle_hours", "from 2 to 199", "got 201")
    cents = tmp_path / "cents.csv"
    cents.write_text("0.03\n0.04\n")
    refused(lambda: make("energy_trading", prices=cents), "the mean price", "$/MWh", "0.035")
    busy = tmp_path / "busy.csv"
    busy.write_text("100\n80\n")
    refused(lambda: make("supply_chain", demand=busy), "supply_chain.demand", "levels of at most 1024", "a mean of 90")


def ring(ports):
    """A topology of one route around so many ports, with as many vessels."""
    text = """total_containers: 1000
load_cost_factor: 0
dsch_cost_factor: 0
container_usage_proportion: {period: 7, sample_noise: 0, sample_nodes: [[0, 0.1], [6, 0.1]]}
"""
    share, names = 1 / ports, [f"p{i}" for i in range(ports)]
    stops = ", ".join(f"{{port_name: {name}, distance_to_next_port: 60}}" for name in names)
    text += f"routes: {{r: [{stops}]}}\nports:\n"
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        text += f"""  {name}:
    initial_container_proportion: {share!r}
    empty_return: {{buffer_ticks: 1, noise: 0}}
    full_return: {{buffer_ticks: 2, noise: 0}}
    order_distribution:
      source: {{proportion: {share!r}, noise: 0}}
      targets: {{{following}: {{proportion: 1, noise: 0}}}}
"""
    text += "vessels:\n"
    for i, name in enumerate(names):
        text += f"""  v{i}:
    capacity: 9
    parking: {{duration: 1, noise: 0}}
    sailing: {{speed: 10, noise: 0}}
    route: {{route_name: r, initial_port_name: {name}}}
"""
    return text
