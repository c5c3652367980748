"""The "toy" service networks of MARO's Container Inventory Management (CIM), as constants.

Source: microsoft/maro (MIT licence, commit 34c2dc9, October 2023), files ``topologies/toy.*/config.yml`` of the
scenario ``cim`` and their generator (read). Facts only: all legs are 60 long and sailed at speed 10, 6 days, and every
call takes a day, so that each route is a weekly service with as many vessels as it has ports.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CONTAINERS = 100_000
"""Containers in every network."""
SEASON_DAYS = 112
"""Days after which the numbers of orders repeat."""
_USAGE, _SEASON = 0.02, 0.005


class Network(NamedTuple):
    """Ports, weekly services, and the published trade between the ports.

    Attributes:
      ports: P names.
      routes: of each service the ports in the order of calls.
      vessels: ``(route, first call)``: position in the route on day 0.
      capacity: containers that each vessel carries, at level 0.0 (ample) and from level 0.2 on (scarce).
      start: share of all containers that lie empty in each port on day 0.
      source: share of all orders that each port ships.
      lanes: ``(from, to) -> share of the source's orders``.
    """

    ports: tuple[str, ...]
    routes: tuple[tuple[int, ...], ...]
    vessels: tuple[tuple[int, int], ...]
    capacity: tuple[tuple[int, ...], tuple[int, ...]]
    start: tuple[float, ...]
    source: tuple[float, ...]
    lanes: dict[tuple[int, int], float]


NETWORKS = {
    "4p": Network(
        ("D1", "D2", "S1", "S2"),
        ((2, 0), (2, 3, 1)),
        ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)),
        ((92_400, 92_400, 187_600, 187_600, 187_600), (6_237, 6_930, 15_477, 12_663, 14_070)),
        (0.25,) * 4,
        (0.33, 0.67, 0.0, 0.0),
        {(0, 2): 1.0, (1, 2): 0.2, (1, 3): 0.8},
    ),
    "5p": Network(
        ("D1", "D2", "S1", "S2", "T1"),
        ((4, 2, 3), (4, 0, 1)),
        ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)),
        ((140_000,) * 6, (9_450, 10_500, 11_550, 9_450, 10_500, 11_550)),
        (0.2,) * 5,
        (0.25, 0.25, 0.0, 0.0, 0.5),
        {(0, 4): 1.0, (1, 4): 1.0, (4, 2): 0.5, (4, 3): 0.5},
    ),
    "6p": Network(
        ("D1", "D2", "S1", "S2", "T1", "T2"),
        ((5, 2, 3), (4, 0, 1), (4, 5)),
        ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)),
        ((89_600,) * 3 + (95_200,) * 5, (6_048, 6_720, 7_392, 6_426, 7_140, 7_854, 6_426, 7_140)),
        (0.17, 0.17, 0.16, 0.16, 0.17, 0.17),
        (0.17, 0.17, 0.0, 0.0, 0.34, 0.32),
        {(0, 4): 1.0, (1, 4): 1.0, (4, 5): 1.0, (5, 2): 0.5, (5, 3): 0.5},
    ),
}
"""By name, as in ``toy.4p_ssdd``, ``toy.5p_ssddd``, ``toy.6p_sssbdd``."""


def orders(season: bool) -> np.ndarray:
    """Containers ordered on each day of the season, ``f64[112]``: constant (levels 0.0-0.2) or one wave (0.3-0.7)."""
    day = np.arange(SEASON_DAYS)
    wave = _SEASON * np.cos(day / (SEASON_DAYS // 2) * np.pi) if season else np.zeros(SEASON_DAYS)
    return (_USAGE - wave) * CONTAINERS
