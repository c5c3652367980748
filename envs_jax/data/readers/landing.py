"""Aircraft-landing instances of the OR-Library (``airlandN.txt``).

All numbers stand one after another, broken into lines anyhow: the number of aircraft n and the freeze time; then for
each aircraft its appearance, earliest, target and latest time, cost per unit early, cost per unit late, and its row of
n separations to a later landing of each other aircraft. What follows ``#`` is a comment.

Source: J. E. Beasley et al., Transportation Science 34(2), 2000, and the OR-Library's page of the format (recalled; the
shipped files were read).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from envs_jax import checks
from envs_jax.data.readers.text import Words, lines_of, refusal

MOST = 1000
"""Aircraft, so that a wrong first number does not read for long."""
LATEST = 1_000_000
"""Largest time: whole numbers that single precision holds exactly."""
AIRCRAFT, TOKENS = 20, 32
"""Of a bank, and of an observation: one an aircraft, one an airline, one for the tower."""
CLASSES, SEPARATION = 3, 23
"""What domain and reference are made for: wake classes; slots, which may become 1.4 times as many."""


@dataclasses.dataclass(frozen=True, eq=False)
class Landing:
    """An instance, aircraft in the order of their targets (ties as in the file).

    Attributes:
      earliest: ``f64[n]`` whole numbers [time units], as are target and latest.
      target: see ``earliest``.
      latest: see ``earliest``.
      early: ``f64[n]`` cost per unit before the target.
      late: ``f64[n]`` cost per unit after it.
      separation: ``f64[n, n]`` from a landing (row) to a later one, zero on the diagonal; whole numbers.
    """

    earliest: np.ndarray
    target: np.ndarray
    latest: np.ndarray
    early: np.ndarray
    late: np.ndarray
    separation: np.ndarray

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Wake classes: the fewest, C, such that a separation follows from the classes of both aircraft.

        Returns:
          The class of each aircraft ``i64[n]``, classes in the order of falling separation between two of their own (of
          a single one: of its largest separation), and the separations by class ``f64[C, C]``; where no pair of
          aircraft says one, the largest of all.
        """
        n, pairs = len(self.target), self.separation
        groups: list[list[int]] = []
        for i in range(n):
            for group in groups:
                if all(self._alike(i, j) for j in group):
                    group.append(i)
                    break
            else:
                groups.append([i])
        own = [pairs[g[0], g[1]] if len(g) > 1 else pairs[g[0]].max(initial=0.0) for g in groups]
        groups = [groups[i] for i in np.argsort(-np.array(own), kind="stable")]
        wake = np.zeros(n, int)
        for number, group in enumerate(groups):
            wake[group] = number
        table = np.full((len(groups), len(groups)), pairs.max())
        for i, j in np.argwhere(~np.eye(n, dtype=bool)):
            table[wake[i], wake[j]] = pairs[i, j]
        return wake, table

    def slots(self, count: int, inflation: float) -> int:
        """Time units after the first earliest time in which the first ``count`` have landed at least cost.

        However they are ordered: nobody waits longer than for all others, at separations ``inflation`` times as long.
        """
        last = self.target[:count].max() + (count - 1) * (inflation * self.separation.max() + 1)
        return math.ceil(last - self.earliest[:count].min()) + 1

    def sizes(self, owner: str, num_aircraft: object, num_airlines: object) -> tuple[int, int]:
        """Aircraft and airlines of an environment: all of the file's, or what is asked for where it is not None.

        Raises:
          ValueError: for more aircraft or fewer airlines than there are, or more than an observation has tokens for.
        """
        count, costs = len(self.target), len(np.unique(self.late))
        if num_aircraft is None:
            if count > AIRCRAFT:
                allowed = f"given, at most {AIRCRAFT}, to take the first of the file's {count} aircraft"
                raise checks.refusal(owner, "num_aircraft", allowed, "None")
            num_aircraft = count
        aircraft = checks.whole_number(owner, "num_aircraft", num_aircraft, 2, min(count, AIRCRAFT))
        if num_airlines is None:
            num_airlines = max(3, costs)
        airlines = checks.whole_number(owner, "num_airlines", num_airlines, max(2, costs), 100)
        if aircraft + airlines + 1 > TOKENS:
            got = f"{aircraft} + {airlines} (the file has {costs} different costs per unit late)"
            raise checks.refusal(owner, "num_aircraft + num_airlines", f"at most {TOKENS - 1}", got)
        return aircraft, airlines

    def by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`classes` with a table of :data:`CLASSES`; classes that no aircraft has keep the largest separation."""
        wake, blocks = self.classes()
        table = np.full((CLASSES, CLASSES), self.separation.max())
        table[: len(blocks), : len(blocks)] = blocks
        return wake, table

    @property
    def mean_separation(self) -> float:
        """Over all pairs of different aircraft."""
        count = len(self.target)
        return float(self.separation.sum() / (count * (count - 1)))

    def _alike(self, i: int, j: int) -> bool:
        """Whether two aircraft may be exchanged without changing a separation."""
        others = np.setdiff1d(np.arange(len(self.target)), (i, j))
        s = self.separation
        same = (s[i, others] == s[j, others]).all() and (s[others, i] == s[others, j]).all()
        return bool(same and s[i, j] == s[j, i])


def parse(text: str, where: str) -> Landing:
    """An instance from the text of a file.

    Raises:
      ValueError: for missing or further numbers, words, times that do not increase from earliest to latest, negative
        costs or separations; named by line and aircraft.
    """
    words = Words(where, lines_of(text))
    count = words.take_whole("number of aircraft", 1, MOST)
    words.take("freeze time", 0.0)
    rows = np.zeros((count, 5 + count))
    for i in range(count):
        of = f"of aircraft {i + 1}"
        words.take(f"appearance time {of}", 0.0)
        low = 0
        for column, name in enumerate(("earliest", "target", "latest")):
            low = words.take_whole(f"{name} time {of}", low, LATEST)
            rows[i, column] = low
        rows[i, 3] = words.take(f"cost per unit early {of}", 0.0)
        rows[i, 4] = words.take(f"cost per unit late {of}", 0.0)
        for j in range(count):
            rows[i, 5 + j] = words.take_whole(f"separation from aircraft {i + 1} to {j + 1}", 0, LATEST)
    words.end(f"what follows the last of {count} aircraft")
    order = np.argsort(rows[:, 1], kind="stable")
    separation = rows[:, 5:][np.ix_(order, order)]
    np.fill_diagonal(separation, 0.0)
    return Landing(*rows[order, :5].T, separation=separation)


def read(text: str, where: str) -> Landing:
    """:func:`parse`, of what the domain can play.

    Raises:
      ValueError: for a single aircraft, a cost per unit late of 0, costs per unit early in no one ratio to them,
        separations that are all 0, above :data:`SEPARATION` or do not follow from :data:`CLASSES` wake classes.
    """
    landing = parse(text, where)
    if len(landing.target) < 2:
        raise refusal(where, 0, "the number of aircraft", "2 or more", "1")
    if (landing.late <= 0).any():
        raise refusal(where, 0, "every cost per unit late", "above 0", f"{landing.late.min():g}")
    ratios = landing.early / landing.late
    if np.ptp(ratios) > 1e-6 * ratios.max():
        got = f"ratios from {ratios.min():g} to {ratios.max():g}"
        raise refusal(where, 0, "cost per unit early / cost per unit late", "the same for all aircraft", got)
    largest = landing.separation.max()
    if not 0 < largest <= SEPARATION:
        allowed = f"from 1 to {SEPARATION} time units (write times in larger units)"
        raise refusal(where, 0, "the largest separation", allowed, f"{largest:g}")
    _, table = landing.classes()
    if len(table) > CLASSES:
        raise refusal(where, 0, "separations", f"those of at most {CLASSES} wake classes", f"{len(table)} classes")
    return landing
