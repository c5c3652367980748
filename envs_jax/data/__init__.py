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
