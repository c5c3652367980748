"""Maritime: the best that perfect foresight could do, a linear programme on the time-expanded network."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from benchmarks.quality.oracles import Floats, least, unattended
from envs_jax.domains.maritime import Maritime, MaritimeParams
from envs_jax.references.liner_services import WEEK


@dataclasses.dataclass(frozen=True)
class Network:
    """Where containers can go in a number of days.

    Attributes:
      index: of each kind of variable, by name: ``served [days, L]``, ``empty [days, P]`` at the end of a day; at each
        week's call ``full [W + 1, L]`` (left behind) and ``ship [W + 1, L]``, and by vessel ``aboard``, ``on``, ``off``
        ``[W + 1, V]`` (empties carried on, loaded, discharged).
      size: how many variables.
      limits: the constraints of ``scipy.optimize.linprog``.
    """

    index: dict[str, np.ndarray]
    size: int
    limits: dict[str, Any]


def constraints(env: Maritime, params: MaritimeParams, days: int) -> Network:
    """The constraints of ``days = 8 + 7 (num_periods - 1)`` days, all but what is ordered.

    Laden containers are loaded as the programme likes (a vessel must take them in a fixed order), containers are
    divisible, and a vessel may land empties free (as one short of room does).
    """
    lanes, ports, vessels, weeks = env.num_lanes, env.num_ports, env.num_turns, (days - 1) // WEEK
    routes = env.network.routes
    pack, unpack = (np.round(np.asarray(x)).astype(int) for x in (params.shipper_days, params.consignee_days))
    sizes = {"served": (days, lanes), "empty": (days, ports), "full": (weeks + 1, lanes), "ship": (weeks + 1, lanes)}
    sizes |= dict.fromkeys(("aboard", "on", "off"), (weeks + 1, vessels))
    index: dict[str, np.ndarray] = {}
    total = 0
    for name, shape in sizes.items():
        index[name] = np.arange(total, total + np.prod(shape)).reshape(shape)
        total += int(np.prod(shape))
    equal: list[tuple[list[tuple[int, float]], float]] = []
    most: list[tuple[list[tuple[int, float]], float]] = []
    lane = {pair: k for k, pair in enumerate(env.services.lanes)}
    returns: dict[tuple[int, int], list[int]] = {(d, p): [] for d in range(days) for p in range(ports)}
    afloat: dict[tuple[int, int], list[int]] = {(w, v): [] for w in range(1, weeks + 1) for v in range(vessels)}
    for w in range(1, weeks + 1):
        for v, (route, first) in enumerate(env.network.vessels):
            calls = routes[route]
            here = calls[(first + w) % len(calls)]
            for stops in range(1, len(calls)):
                there = calls[(first + w + stops) % len(calls)]
                variable = index["ship"][w, lane[here, there]]
                for later in range(w, min(w + stops, weeks + 1)):
                    afloat[later, v].append(variable)
                back = WEEK * (w + stops) + unpack[there]
                if back < days:
                    returns[back, there].append(variable)
    for d in range(days):
        for p in range(ports):
            terms = [(index["empty"][d, p], 1.0)]
            terms += [(index["served"][d, k], 1.0) for k in np.flatnonzero(env.services.origin == p)]
            terms += [(x, -1.0) for x in returns[d, p]]
            if d:
                terms.append((index["empty"][d - 1, p], -1.0))
            if d and d % WEEK == 0:
                for v, (route, first) in enumerate(env.network.vessels):
                    if routes[route][(first + d // WEEK) % len(routes[route])] == p:
                        terms += [(index["off"][d // WEEK, v], -1.0), (index["on"][d // WEEK, v], 1.0)]
            equal.append((terms, 0.0 if d else float(params.start[p])))
    for w in range(weeks + 1):
        for k in range(lanes):
            terms = [(index["full"][w, k], 1.0), (index["ship"][w, k], 1.0)]
            terms += [(index["full"][w - 1, k], -1.0)] if w else []
            delay = pack[env.services.origin[k]]
            due = [d for d in range(days) if w and WEEK * (w - 1) < d + delay <= WEEK * w]
            equal.append((terms + [(index["served"][d, k], -1.0) for d in due], 0.0))
        for v in range(vessels):
            terms = [(index["aboard"][w, v], 1.0), (index["off"][w, v], 1.0), (index["on"][w, v], -1.0)]
            equal.append((terms + ([(index["aboard"][w - 1, v], -1.0)] if w else []), 0.0))
            if w:
                room = [(x, 1.0) for x in (*afloat[w, v], index["aboard"][w, v])]
                most.append((room, float(params.capacity[v])))

    def matrix(rows: list[tuple[list[tuple[int, float]], float]]) -> sp.csr_matrix:
        r, c, x = zip(*((r, c, x) for r, (terms, _) in enumerate(rows) for c, x in terms), strict=True)
        return sp.csr_matrix((x, (r, c)), shape=(len(rows), total))

    limits = {"A_eq": matrix(equal), "b_eq": [b for _, b in equal], "A_ub": matrix(most), "b_ub": [b for _, b in most]}
    return Network(index, total, limits)


def most_served(net: Network, orders: Floats, move_cost: float) -> tuple[float, float]:
    """Largest ``served - lost - c loaded`` given all ``orders [days, L]``, and what it loses [containers].

    Discharges cost nothing, so this is an upper bound on every policy's return.
    """
    high = np.full(net.size, np.inf)
    high[net.index["served"]] = orders
    for name in ("on", "off", "ship"):
        high[net.index[name][0]] = 0.0  # no calls on day 0
    cost = np.zeros(net.size)
    cost[net.index["served"]] = -2.0
    cost[net.index["on"]] = move_cost
    found = least(cost, bounds=np.stack([np.zeros(net.size), high], axis=1), **net.limits)
    return -found.fun - orders.sum(), orders.sum() - found.x[net.index["served"]].sum()


@functools.partial(jax.jit, static_argnames="env")
def _orders(env: Maritime, params: MaritimeParams, keys: chex.PRNGKey) -> chex.Array:
    rows = unattended(env, params, keys).uniforms.reshape(len(keys), env.num_periods, 1 + WEEK, -1)
    # The first row is that of day 0, in week 0 alone.
    daily = jnp.concatenate([rows[:, 0, :1], rows[:, :, 1:].reshape(len(keys), env.num_periods * WEEK, -1)], axis=1)
    days = jnp.arange(daily.shape[1])
    return jax.vmap(jax.vmap(env.orders, in_axes=(0, 0, None)), in_axes=(None, 0, None))(days, daily, params)


def orders(env: Maritime, params: MaritimeParams, keys: chex.PRNGKey) -> Floats:
    """Containers ordered ``[E, days, L]`` in the episodes ``keys[E]``."""
    return np.asarray(_orders(env, params, keys), np.float64)


def hindsight(env: Maritime, params: MaritimeParams, keys: chex.PRNGKey) -> Floats:
    """Return ``f64[E]`` [thousand containers] that nobody exceeds, were all orders known."""
    drawn = orders(env, params, keys)
    net = constraints(env, params, drawn.shape[1])
    return np.array([most_served(net, wanted, float(params.move_cost))[0] for wanted in drawn]) / 1000.0
