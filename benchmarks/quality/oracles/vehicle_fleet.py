"""Vehicle fleet: linear programmes for demand that is known, on the network of regions and periods."""

from __future__ import annotations

import functools

import chex
import jax
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from benchmarks.quality.oracles import Floats, least, unattended
from envs_jax import sampling
from envs_jax.domains.vehicle_fleet import VehicleFleet, VehicleFleetParams
from envs_jax.testing import leaves_by_name


def best_flows(
    idle: ArrayLike,
    arriving: np.ndarray,
    demand: np.ndarray,
    price: np.ndarray,
    trip_time: np.ndarray,
    move_time: np.ndarray,
    cost: float,
    first: int = 0,
) -> tuple[float, np.ndarray]:
    """Most profit [$] of whole or fractional flows over H periods of known demand, and the first empty moves.

    Vehicles may go to several regions at once and leave requests of higher fare aside: a bound for every policy.

    Args:
      idle: ``[N]`` vehicles that stand in each region.
      arriving: ``[L, N]`` those that come in periods 0, 1, ...
      demand: ``[H, N, N]`` requests; ``price`` [$] and ``trip_time`` [periods] likewise.
      price: see ``demand``.
      trip_time: see ``demand``.
      move_time: ``[N, N]`` [periods].
      cost: of driving [$ a period].
      first: period before which none is moved.

    Returns:
      Profit, and the empty moves ``[N, N]`` of period 0.
    """
    periods, n, _ = demand.shape
    k, i, j = (x.ravel() for x in np.indices(demand.shape))
    ks, s = (x.ravel() for x in np.indices((periods, n)))
    flows, stays = periods * n * n, periods * n
    before, after = 2 * (k * n + i), 2 * (k * n + i) + 1  # rows: vehicles before moves; those at the matching
    moves, trips, kept, left = np.split(np.arange(2 * flows + 2 * stays), np.cumsum([flows, flows, stays]))
    entries = [(before, moves, 1.0), (after, trips, 1.0)]
    entries += [(2 * (ks * n + s), kept, 1.0), (2 * (ks * n + s) + 1, kept, -1.0), (2 * (ks * n + s) + 1, left, 1.0)]
    entries += [(2 * ((ks + 1) * n + s)[ks < periods - 1], left[ks < periods - 1], -1.0)]
    for columns, arrival in ((moves, k + move_time[i, j]), (trips, k + trip_time.ravel() + 1)):
        there = arrival < periods
        entries.append((2 * (arrival * n + j)[there] + 1, columns[there], -1.0))
    rows, columns = (np.concatenate([e[x] for e in entries]) for x in (0, 1))
    values = np.concatenate([np.full(len(r), v) for r, _, v in entries])
    supply = np.zeros((periods, n, 2))
    supply[0, :, 0] = idle
    known = arriving[:periods]
    supply[: len(known), :, 1] = known
    high = np.concatenate([np.where((i == j) | (k < first), 0.0, np.inf), demand.ravel(), np.full(2 * stays, np.inf)])
    worth = np.concatenate([-cost * move_time[i, j], (price - cost * trip_time).ravel(), np.zeros(2 * stays)])
    matrix = sp.csr_matrix((values, (rows, columns)), shape=(2 * stays, len(high)))
    found = least(-worth, A_eq=matrix, b_eq=supply.ravel(), bounds=np.c_[np.zeros_like(high), high])
    return -found.fun, found.x[:flows].reshape(demand.shape)[0]


@functools.partial(jax.jit, static_argnames="env")
def _requests(env: VehicleFleet, params: VehicleFleetParams, keys: chex.PRNGKey) -> chex.Array:
    uniforms = unattended(env, params, keys).uniforms
    return sampling.poisson(uniforms.reshape(-1, *params.rate.shape), params.rate, env.max_requests)


def requests(env: VehicleFleet, params: VehicleFleetParams, keys: chex.PRNGKey) -> np.ndarray:
    """Trips asked for ``[E, P, N, N]`` in the episodes ``keys[E]``."""
    return np.asarray(_requests(env, params, keys))


def clairvoyant(params: VehicleFleetParams, demand: np.ndarray, first: int = 0) -> float:
    """Most profit [$] of an episode with ``demand [P, N, N]``; nothing moves before period ``first``."""
    p = leaves_by_name(params)
    nothing = np.zeros((1, demand.shape[1]))
    price, trip_time, move_time = (p[name] for name in ("price", "trip_time", "move_time"))
    return best_flows(p["initial"], nothing, demand, price, trip_time, move_time, float(p["cost"]), first)[0]


def hindsight(env: VehicleFleet, params: VehicleFleetParams, keys: chex.PRNGKey) -> Floats:
    """Most profit ``f64[E]`` [$] for somebody who knows all requests beforehand."""
    return np.array([clairvoyant(params, demand) for demand in requests(env, params, keys)])
