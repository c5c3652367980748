"""Small records from the field that domains offer as named instances; each file's head names its source."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np

_FOLDER = pathlib.Path(__file__).parent


def pjm_prices(hours: int = 192) -> np.ndarray:
    """The first ``hours`` of the PJM real-time price, ``f64[hours]`` in $/MWh, from 2005-01-01.

    Raises:
      ValueError: if the record has fewer hours.
    """
    prices = np.loadtxt(_FOLDER / "pjm_rt_lmp.csv", delimiter=",", usecols=1)
    if not 1 <= hours <= len(prices):
        raise ValueError(f"hours={hours!r}: must be in [1, {len(prices)}]")
    return prices[:hours]


class AmodCity(NamedTuple):
    """An hour and more of a city's taxi trips in 20 steps, ``N`` regions.

    Attributes:
      requests: ``f64[20, N, N]`` mean trips asked for from region i to j in a step, scaled up as the source does.
      price: ``f64[20, N, N]`` mean fare, $; 0 where nobody asks.
      trip_time: ``i64[20, N, N]`` steps a trip takes, at least 1; 1 where nobody asks.
      move_time: ``i64[N, N]`` steps an empty vehicle takes, at least 1.
      vehicles: of each region at the start.
      driving_cost: $ per vehicle and step of driving.
    """

    requests: np.ndarray
    price: np.ndarray
    trip_time: np.ndarray
    move_time: np.ndarray
    vehicles: int
    driving_cost: float


# Minutes a step, demand ratio, $ a minute of driving, vehicles a region: test settings of the source's main.py.
_AMOD_CITIES = {"nyc_brooklyn": (4, 9.0, 0.5, 107), "san_francisco": (3, 2.0, 0.2, 37)}


def amod_city(name: str) -> AmodCity:
    """One of the cities that Gammelli et al. (KDD 2022) test on: "nyc_brooklyn" (N = 14) or "san_francisco" (N = 10).

    Raises:
      ValueError: for another name.
    """
    if name not in _AMOD_CITIES:
        raise ValueError(f"name={name!r}: must be one of {', '.join(_AMOD_CITIES)}")
    minutes, ratio, cost_per_minute, vehicles = _AMOD_CITIES[name]
    driving = np.loadtxt(_FOLDER / f"amod_{name}_driving.csv", delimiter=",")
    trips = np.loadtxt(_FOLDER / f"amod_{name}.csv", delimiter=",")
    at = tuple(trips[:, :3].astype(int).T)

    def table(empty: float, values: np.ndarray) -> np.ndarray:
        filled = np.full((20, *driving.shape), empty)
        filled[at] = values
        return filled

    def steps(time: np.ndarray) -> np.ndarray:
        return np.maximum(np.rint(time / minutes), 1).astype(int)

    return AmodCity(
        requests=table(0.0, ratio * trips[:, 3]),
        price=table(0.0, trips[:, 4]),
        trip_time=steps(table(0.0, trips[:, 5])),
        move_time=steps(driving),
        vehicles=vehicles,
        driving_cost=cost_per_minute * minutes,
    )


def airland(number: int) -> dict[str, np.ndarray]:
    """An aircraft-landing instance of the OR-Library, aircraft in the order of their targets (ties as in the file).

    Args:
      number: 1 to 4.

    Returns:
      ``earliest``, ``target``, ``latest`` (time units), ``early``, ``late`` (cost per unit), each ``f64[n]``, and
      ``separation f64[n, n]`` from a landing (row) to a later one, zero on the diagonal.

    Raises:
      ValueError: for any other number.
    """
    if number not in (1, 2, 3, 4):
        raise ValueError(f"number={number!r}: must be one of 1, 2, 3, 4")
    lines = (pathlib.Path(__file__).parent / f"airland{number}.txt").read_text().splitlines()
    values = np.array(" ".join(line for line in lines if not line.startswith("#")).split(), float)
    count = int(values[0])
    rows = values[2:].reshape(count, 6 + count)
    order = np.argsort(rows[:, 2], kind="stable")
    separation = rows[:, 6:][np.ix_(order, order)]
    np.fill_diagonal(separation, 0.0)
    columns = ("earliest", "target", "latest", "early", "late")
    return {name: rows[order, 1 + i] for i, name in enumerate(columns)} | {"separation": separation}


def job_shop(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A published job-shop instance of J jobs on M machines: routes ``i32[J, M]`` and minutes ``i32[J, M]``.

    Entry ``[j, k]`` is the machine, and the time on it, of job j's k-th operation.

    Raises:
      ValueError: for an unknown name.
    """
    lines = (pathlib.Path(__file__).parent / "job_shops.txt").read_text().splitlines()
    heads = {line.split()[0]: i for i, line in enumerate(lines) if line[0].isalpha()}
    if name not in heads:
        raise ValueError(f"name = {name!r}: must be one of {', '.join(heads)}")
    jobs = int(lines[heads[name]].split()[1])
    table = np.array([line.split() for line in lines[heads[name] + 1 :][:jobs]], np.int32)
    return table[:, ::2], table[:, 1::2]
