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
