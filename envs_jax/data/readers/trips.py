"""Trips of a city as CSV: who asks for a trip when, from where to where; and how long empty vehicles drive.

*Trips*: a line that names the columns ``period, origin, destination, requests, fare, trip_periods`` (in any order;
others are not read), then a row for every period and pair of regions between which somebody asks. Periods and regions
are counted from 0. *Driving*: a matrix of N rows of N periods, from row to column.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs_jax import checks
from envs_jax.data import AmodCity
from envs_jax.data.readers import series
from envs_jax.data.readers.text import Word, lines_of, load, number, refusal

REGIONS, PERIODS, LONGEST = 31, 10_000, 1000
"""Of a city, of its record, and of a trip [periods]."""
_COLUMNS = {
    "period": (0, PERIODS - 1, True),
    "origin": (0, REGIONS - 1, True),
    "destination": (0, REGIONS - 1, True),
    "requests": (0.0, 128.0, False),
    "fare": (0.0, 1e6, False),
    "trip_periods": (1, LONGEST, True),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Trips:
    """A record of P periods in N regions.

    Attributes:
      requests: ``f64[P, N, N]`` mean trips asked for from i to j.
      fare: ``f64[P, N, N]`` mean fare, $; 0 where nobody asks.
      trip_time: ``i64[P, N, N]`` periods that a trip takes; 1 where nobody asks.
    """

    requests: np.ndarray
    fare: np.ndarray
    trip_time: np.ndarray


def parse(text: str, where: str) -> Trips:
    """A record from the text of a file.

    Raises:
      ValueError: as :func:`envs_jax.data.readers.series.parse_table`; for regions or periods that do not exist,
        trips within a region, a row that is there twice, less than two regions, no requests.
    """
    columns = series.parse_table(text, where, _COLUMNS)
    at = tuple(columns[name].astype(int) for name in ("period", "origin", "destination"))
    count, regions = int(at[0].max()) + 1, int(max(at[1].max(), at[2].max())) + 1
    if (within := np.flatnonzero(at[1] == at[2])).size:
        got = f"{at[1][within[0]]} to itself in period {at[0][within[0]]}"
        raise refusal(where, 0, "trips", "between two different regions", got)
    found, times = np.unique(np.stack(at), axis=1, return_counts=True)
    if (times > 1).any():
        period, start, end = found[:, int(np.argmax(times > 1))].tolist()
        raise refusal(where, 0, "a row", "there once", f"{start} to {end} in period {period} again")
    if not columns["requests"].any():
        raise refusal(where, 0, "requests", "above 0 at least once", "0 always")

    def table(empty: float, values: np.ndarray) -> np.ndarray:
        filled = np.full((count, regions, regions), empty)
        filled[at] = values
        return filled

    return Trips(
        requests=table(0.0, columns["requests"]),
        fare=table(0.0, columns["fare"]),
        trip_time=table(1.0, columns["trip_periods"]).astype(int),
    )


def parse_driving(text: str, where: str) -> np.ndarray:
    """Periods that an empty vehicle drives, ``i64[N, N]``, from the text of a file.

    Raises:
      ValueError: for a matrix that is not square, times that are not whole numbers of 1 or more.
    """
    rows = [(at, words) for at, words in lines_of(text.replace(",", " "))]
    if not 2 <= len(rows) <= REGIONS:
        raise refusal(where, 0, "the matrix", f"of 2 to {REGIONS} rows", str(len(rows)))
    for at, words in rows:
        if len(words) != len(rows):
            raise refusal(where, at, "the row", f"{len(rows)} periods, one a region", str(len(words)))
    what = "driving time"
    return np.array(
        [[int(number(where, Word(x, at), what, 1, LONGEST, whole=True)) for x in words] for at, words in rows]
    )


def driving_of(trips: Trips, where: str) -> np.ndarray:
    """What empty vehicles drive, ``i64[N, N]``, if nothing is known but trips: the shortest way over recorded ones.

    Raises:
      ValueError: if no trips lead from one region to another.
    """
    asked = trips.requests > 0
    time = np.where(asked.any(0), np.where(asked, trips.trip_time, LONGEST).min(0), np.inf)
    np.fill_diagonal(time, 0.0)
    for middle in range(len(time)):
        time = np.minimum(time, time[:, middle, None] + time[None, middle])
    if np.isinf(time).any():
        start, end = np.argwhere(np.isinf(time))[0].tolist()
        allowed = "such that some lead from everywhere to everywhere where no driving is given"
        raise refusal(where, 0, "trips", allowed, f"none from {start} to {end}")
    return np.maximum(time, 1).astype(int)


def city(
    owner: str, demand: object, driving: object, num_periods: object, vehicles: int, driving_cost: float | None
) -> AmodCity:
    """The first ``num_periods`` (None: all) of the city that two files, or one and None, describe.

    Raises:
      ValueError: for files that are no such, that have other regions than each other, or fewer periods.
    """
    trips = load(owner, "demand", demand, parse)
    if driving is None:
        move_time = load(owner, "demand", demand, lambda text, where: driving_of(trips, where))
    else:
        move_time = load(owner, "driving", driving, parse_driving)
    count, regions = trips.requests.shape[:2]
    if len(move_time) != regions:
        raise checks.refusal(owner, "driving", f"a matrix of the {regions} regions of demand", f"{len(move_time)} rows")
    periods = checks.whole_number(owner, "num_periods", count if num_periods is None else num_periods, 1, count)
    if not trips.requests[:periods].any():
        raise checks.refusal(owner, "num_periods", "long enough for the first request of demand", str(periods))
    return AmodCity(
        requests=trips.requests[:periods],
        price=trips.fare[:periods],
        trip_time=trips.trip_time[:periods],
        move_time=move_time,
        vehicles=vehicles,
        driving_cost=driving_cost or 0.0,
    )
