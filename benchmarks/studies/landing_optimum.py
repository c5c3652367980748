"""Least costs of OR-Library's landing instances, proven: ``python -m benchmarks.studies.landing_optimum``.

Neither the order nor the runways are given. In airland1 to airland4 separation and penalty depend on two classes alone,
which makes the search small. Let aircraft i and j be of one class, and i not behind j in any of E, T, L. Where j lands
before i the two can change places: both times stay allowed, no separation changes, and as c_i - c_j never falls with
time the cost does not rise. So only sets that contain i with j need be looked at, at most 200 of 2^20. In time order,
slot by slot,

    F_t(M, w) = least cost with the set M landed by slot t and runways that have waited w,

where a runway's w is the class of its last landing and the slots since, up to the largest separation: from then on it
is free for everybody. Either a slot passes or an aircraft lands on a runway that has waited long enough. Times may be
whole: for a given order and given runways the times solve a linear programme with a totally unimodular matrix. Runways
are alike, and landings on different ones need no separation. Latest times are soft as in the environment: past them a
slot costs tenfold; where the optimum keeps to them, it is the optimum with hard ones too.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time

import numpy as np

from benchmarks import command

PUBLISHED = {1: (700, 90, 0), 2: (1480, 210, 0), 3: (820, 60, 0), 4: (2520, 640, 130)}
"""Published optima of airland1 to airland4 on one, two and three runways."""
PAST_LATEST = 10.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      instances: of airland1 to airland4.
      runways: how many.
    """

    instances: tuple[int, ...] = (1, 2, 3, 4)
    runways: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        """Refuses instances that are not there, and numbers without a meaning."""
        command.check_range(self, 1, len(PUBLISHED), "instances")
        command.check_range(self, 1, 5, "runways")


@dataclasses.dataclass(frozen=True)
class Runways:
    """What R runways may be waiting for, and what becomes of it: gathers over the multisets of their states.

    Attributes:
      size: number of multisets; 0 is all runways free.
      passing: ``i64[size]`` multisets in the order of what a slot turns them into, for ``first``.
      first: ``i64[..]`` where in ``passing`` those that become the same begin.
      becomes: ``i64[..]`` that same one.
      landing: for each class the multisets ``i64[K]`` after a landing and ``i64[K, ..]`` all that may precede them.
    """

    size: int
    passing: np.ndarray
    first: np.ndarray
    becomes: np.ndarray
    landing: tuple[tuple[np.ndarray, np.ndarray], ...]


def runway_states(separation: np.ndarray, runways: int) -> Runways:
    """Tables for R runways and class separations ``i64[C, C]``, leader by row."""
    classes = len(separation)
    reach = separation.max(1)
    # One runway: 0 free, else (class of the last landing, slots since).
    single: list[tuple[int, int]] = [(-1, 0)] + [(a, lag) for a in range(classes) for lag in range(reach[a])]
    number = {state: i for i, state in enumerate(single)}
    later = [0] + [number.get((a, lag + 1), 0) for a, lag in single[1:]]
    multisets = list(itertools.combinations_with_replacement(range(len(single)), runways))
    index = {states: i for i, states in enumerate(multisets)}

    def after(states: tuple[int, ...]) -> int:
        return index[tuple(sorted(states))]

    target = np.array([after(tuple(later[s] for s in states)) for states in multisets])
    passing = np.argsort(target, kind="stable")
    becomes, first = np.unique(target[passing], return_index=True)
    landing = []
    for k in range(classes):
        fresh = number[k, 0]
        may = [s for s, (a, lag) in enumerate(single) if a < 0 or lag >= separation[a, k]]
        ends = [states for states in multisets if fresh in states]
        rest = [tuple(s for i, s in enumerate(states) if i != states.index(fresh)) for states in ends]
        before = [[after((*others, s)) for s in may] for others in rest]
        landing.append((np.array([index[states] for states in ends]), np.array(before)))
    return Runways(len(multisets), passing, first, becomes, tuple(landing))


def least_cost(
    earliest: np.ndarray,
    target: np.ndarray,
    latest: np.ndarray,
    penalty: np.ndarray,
    wake: np.ndarray,
    separation: np.ndarray,
    runways: int,
    bound: float,
) -> float:
    """Least cost of landing all, or inf if it is above ``bound``.

    Args:
      earliest: ``[n]`` E, whole numbers like all times.
      target: ``[n]`` T.
      latest: ``[n]`` L; soft.
      penalty: ``[n]`` cost per slot early or late; the same within a class, positive.
      wake: ``i64[n]`` class of each.
      separation: ``i64[C, C]`` slots from a landing (row) to the next (column) on its runway; at least 1, with the
        triangle inequality.
      runways: R.
      bound: what is dearer is not followed.

    Raises:
      ValueError: if penalties differ within a class.
    """
    n, times = len(target), (earliest, target, latest)
    for a in np.unique(wake):
        if len(np.unique(penalty[wake == a])) > 1:
            raise ValueError(f"penalties of class {a} differ: {np.unique(penalty[wake == a])}")

    def leads(i: int, j: int) -> bool:
        ties = all(x[i] == x[j] for x in times)
        return i != j and wake[i] == wake[j] and all(x[i] <= x[j] for x in times) and (not ties or i < j)

    before = [sum(1 << i for i in range(n) if leads(i, j)) for j in range(n)]
    sets = {0: 0}
    edges: list[tuple[int, int, int]] = []
    for landed in (queue := [0]):  # grows as it is read: by size, smaller sets first
        for j in range(n):
            if not landed >> j & 1 and not before[j] & ~landed:
                more = landed | 1 << j
                if more not in sets:
                    sets[more] = len(queue)
                    queue.append(more)
                edges.append((sets[landed], sets[more], j))
    tables = runway_states(separation, runways)
    cost = np.full((len(sets), tables.size), np.inf)
    cost[0, 0] = 0.0
    alive = np.arange(len(sets)) == 0
    best = math.inf
    for now in range(int(earliest.min()), int(np.max(target + bound / penalty)) + 1):
        late: np.ndarray = now - target
        price = penalty * (np.abs(late) + (PAST_LATEST - 1.0) * np.maximum(now - latest, 0))
        price = np.where(earliest <= now, price, np.inf)
        for source, more, j in edges:
            if alive[source] and price[j] <= bound:
                ends, starts = tables.landing[wake[j]]
                found = cost[source][starts].min(1) + price[j]
                cost[more, ends] = np.minimum(cost[more, ends], np.where(found <= bound, found, np.inf))
                alive[more] |= found.min() <= bound
        best = min(best, float(cost[sets[(1 << n) - 1]].min()))
        passed = np.minimum.reduceat(cost[alive][:, tables.passing], tables.first, axis=1)
        cost[alive] = np.inf
        cost[np.ix_(alive, tables.becomes)] = passed
    return best


@functools.cache
def airland(number: int) -> dict[str, np.ndarray]:
    """OR-Library's instance as arguments of :func:`least_cost`; classes by penalty."""
    from envs_jax import data

    record = data.airland(number)
    if not np.array_equal(record["early"], record["late"]):
        raise ValueError(f"airland{number}: early and late penalties differ")
    penalties, wake = np.unique(record["late"], return_inverse=True)
    separation: np.ndarray = np.zeros((len(penalties),) * 2, int)
    off: np.ndarray = ~np.eye(len(wake), dtype=bool)
    for a, b in np.ndindex(separation.shape):
        values = np.unique(record["separation"][off & np.outer(wake == a, wake == b)])
        if len(values) != 1:
            raise ValueError(f"airland{number}: separations of classes {a}, {b} differ: {values}")
        separation[a, b] = values[0]
    times = {name: record[name].astype(int) for name in ("earliest", "target", "latest")}
    return times | {"penalty": record["late"], "wake": wake, "separation": separation}


def main() -> None:
    """Command line."""
    config = command.parse(Config, __doc__)
    print("| instance | runways | least cost, proven | published | seconds |\n|---|---:|---:|---:|---:|")
    for number, runways in itertools.product(config.instances, config.runways):
        began = time.perf_counter()
        published = PUBLISHED[number][runways - 1] if runways <= 3 else PUBLISHED[number][-1]
        found = least_cost(**airland(number), runways=runways, bound=published)
        print(f"| airland{number} | {runways} | {found:.0f} | {published} | {time.perf_counter() - began:.1f} |")


if __name__ == "__main__":
    main()
