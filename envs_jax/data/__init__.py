"""Small records from the field that domains offer as named instances; each file's head names its source."""

from __future__ import annotations

import pathlib

import numpy as np


def pjm_prices(hours: int = 192) -> np.ndarray:
    """The first ``hours`` of the PJM real-time price, ``f64[hours]`` in $/MWh, from 2005-01-01.

    Raises:
      ValueError: if the record has fewer hours.
    """
    prices = np.loadtxt(pathlib.Path(__file__).parent / "pjm_rt_lmp.csv", delimiter=",", usecols=1)
    if not 1 <= hours <= len(prices):
        raise ValueError(f"hours={hours!r}: must be in [1, {len(prices)}]")
    return prices[:hours]


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
