"""Rules for the vehicle fleet that send vehicles free of the menu."""

import numpy as np
from scipy import optimize, stats

from benchmarks.numpy_models.vehicle_fleet import LoopModel
from envs_jax.testing import leaves_by_name


def equal_distribution(idle, move_time):
    """The least driving that leaves at least ``floor(sum(idle) / N)`` vehicles in every region."""
    n = len(idle)
    change = np.kron(np.eye(n), np.ones(n)) - np.tile(np.eye(n), n)  # what leaves each region less what comes
    lacking = idle - idle.sum() // n
    return optimize.linprog(move_time.ravel(), A_ub=change, b_ub=lacking, bounds=(0, None)).x.reshape(n, n)


def with_flows(env, params, demand, moves, closing=False):
    """Return of ``moves(period, idle, arriving) -> [N, N]`` free of the menu; the world is :class:`LoopModel`'s.

    ``closing`` adds what the moves after the last period cost.
    """
    city = LoopModel(leaves_by_name(params), env.num_periods, env.fractions, env.max_requests)
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
