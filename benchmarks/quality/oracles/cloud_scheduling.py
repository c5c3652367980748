"""Cloud scheduling: the least slowdown if all jobs to come and their durations were known, by linear programmes."""

from __future__ import annotations

import chex
import jax
import numpy as np
import scipy.sparse as sp

from benchmarks.quality.oracles import Floats, least, unattended
from envs_jax.domains.cloud_scheduling import UNITS, CloudScheduling, CloudSchedulingParams


def least_slowdown(need: np.ndarray, duration: np.ndarray, arrival: np.ndarray, ticks: int, picks: int) -> float:
    """Least sum, over ``ticks`` ticks, of 1 / duration of the jobs in the system: a bound for every policy.

    Variables are shares of a job that start at each tick; queues need not be first come, first served. At most
    ``picks`` start in a tick; what runs holds no more than there is, and of the jobs that need more than half of a
    resource no two run at once.

    Args:
      need: ``[J, R]`` units.
      duration: ``[J]`` ticks.
      arrival: ``[J]`` tick at whose end a job comes; it can start in the next.
      ticks: P.
      picks: starts in a tick.
    """
    if not len(need):
        return 0.0
    job, start = (np.concatenate(x) for x in zip(*_options(arrival, ticks), strict=True))
    paid = np.minimum(start + duration[job] - 1, ticks) - arrival[job]  # ticks in the system
    saved = ticks - arrival[job] - paid
    number, length = np.arange(len(job)), np.minimum(duration[job], ticks - start)
    held = np.repeat(number, length)  # every tick that an option would run
    within = np.arange(len(held)) - np.repeat(np.cumsum(length) - length, length)
    at = start[held] + within
    running = [
        sp.csr_matrix((values[job[held]], (at, held)), (ticks, len(job)))
        for values in (*need.T.astype(float), *(need.T > UNITS / 2).astype(float))
    ]
    once, starts = (sp.csr_matrix((np.ones(len(job)), (rows, number))) for rows in (job, start))
    limits = [UNITS] * need.shape[1] + [1.0] * need.shape[1]
    found = least(
        -saved / duration[job],
        A_ub=sp.vstack([once, starts, *running]),
        b_ub=np.concatenate([np.ones(once.shape[0]), np.full(starts.shape[0], picks), np.repeat(limits, ticks)]),
        bounds=(0, 1),
    )
    return float(((ticks - arrival) / duration).sum() + found.fun)


def _options(arrival: np.ndarray, ticks: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Job and tick of every start that is possible."""
    starts = [np.arange(first + 1, ticks) for first in arrival]
    return [(np.full(len(ticks_), j), ticks_) for j, ticks_ in enumerate(starts)]


def hindsight(env: CloudScheduling, params: CloudSchedulingParams, keys: chex.PRNGKey) -> Floats:
    """Return ``f64[E]`` [slowdown] that nobody exceeds, were all jobs known beforehand; not for ``deeprm=True``."""
    if env.deeprm:
        raise ValueError("deeprm=True: DeepRM's bookings and payments are not those of the programme")
    end = jax.device_get(unattended(env, params, keys).end.replace(key=None))
    costs = []
    for need, duration in zip(end.need, end.duration, strict=True):
        (came,) = np.nonzero(duration)
        costs.append(least_slowdown(need[came], duration[came], came, env.num_periods, env.num_turns))
    return -np.array(costs)
