"""Bounds of the vehicle fleet by linear programmes."""

import numpy as np
import scipy.sparse as sp
from scipy import optimize, stats

from benchmarks.contestants import leaves_by_name
from benchmarks.peers.vehicle_fleet import Scalar


def best_flows(idle, arriving, demand, price, trip_time, move_time, cost, first=0):
    """Most profit of whole or fractional flows over H periods of known ``demand[H, N, N]``; first empty moves.

    Vehicles may go to several regions at once and leave requests of higher fare aside: a bound for every policy.
    None is moved before period ``first``.
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
    found = optimize.linprog(-worth, A_eq=matrix, b_eq=supply.ravel(), bounds=np.c_[np.zeros_like(high), high])
    assert found.status == 0, found.message
    return -found.fun, found.x[:flows].reshape(demand.shape)[0]


def clairvoyant(params, demand, first=0):
    p = leaves_by_name(params)
    nothing = np.zeros((1, demand.shape[1]))
    tables = (p[name] for name in ("price", "trip_time", "move_time", "cost"))
    return best_flows(p["initial"], nothing, demand, *tables, first)[0]


def equal_distribution(idle, move_time):
    """The least driving that leaves at least ``floor(sum(idle) / N)`` vehicles in every region."""
    n = len(idle)
    change = np.kron(np.eye(n), np.ones(n)) - np.tile(np.eye(n), n)  # what leaves each region less what comes
    lacking = idle - idle.sum() // n
    return optimize.linprog(move_time.ravel(), A_ub=change, b_ub=lacking, bounds=(0, None)).x.reshape(n, n)


def with_flows(env, params, demand, moves, closing=False):
    """Return of ``moves(period, idle, arriving) -> [N, N]`` free of the menu; the world is :class:`Scalar`'s.

    ``closing`` adds what the moves after the last period cost.
    """
    city = Scalar(leaves_by_name(params), env.num_periods, env.fractions, env.max_requests)
    city.reset(None)
    # Uniforms that draw just this demand: the middle of its step of the distribution function.
    top = [stats.poisson.cdf(demand - d, city.rate) for d in (0, 1)]
    uniforms = np.clip(0.5 * (top[0] + top[1]), 0, 1 - 1e-12).reshape(env.num_periods, -1)
    total, n = 0.0, city.n
    for t in range(env.num_periods):
        due = np.zeros((60, n))
        for when, region in city.on_the_way:
            due[when - t, region] += 1
        plan = np.rint(moves(t, np.array(city.idle), due)).astype(int)
        for i, j in np.argwhere(plan * (1 - np.eye(n, dtype=int))):
            amount = min(plan[i, j], city.idle[i])
            city.idle[i] -= amount
            city.driven += amount * city.move_time[i][j]
            city.on_the_way += [(t + city.move_time[i][j], j)] * int(amount)
        for turn in range(n):
            total += city.step(0, uniforms[t] if turn == n - 1 else None)[0]
    if closing:
        total -= city.cost * (moves(env.num_periods, np.array(city.idle), due) * city.move_time).sum()
    return total
