"""Edge computing: what annealing finds when rates and all noise are known, and a bound no plan can beat."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import numpy as np
import scipy.sparse as sp

from benchmarks.quality.oracles import Floats, least, unattended
from envs_jax.domains.edge_computing import EdgeComputing, EdgeComputingParams
from envs_jax.references import offloading

MOVES = 20_000
"""Of an annealing; the table of bounds states the number."""


@functools.partial(jax.jit, static_argnames=("env", "moves"))
def _annealed(env: EdgeComputing, params: EdgeComputingParams, keys: chex.PRNGKey, moves: int) -> chex.Array:
    states, rates = unattended(env, params, keys).states, env.rates(params)

    def makespan(graph: offloading.Graph, noise: chex.Array, key: chex.PRNGKey) -> chex.Array:
        start = offloading.greedy_plan(graph, rates, "roll_out")
        return offloading.anneal(graph, rates, start, key, moves, factors=noise)[1]

    searches = jax.vmap(lambda key: jax.random.split(key, env.num_periods))(keys)
    return jax.vmap(jax.vmap(makespan))(states.graph, states.noise, searches)


def _returns(graph: offloading.Graph, makespan: np.ndarray) -> Floats:
    """Returns ``f64[E]`` of episodes whose applications take ``makespan [E, P]`` [s]: the scale is nominal time."""
    return -(np.asarray(makespan, np.float64) / np.asarray(graph.size, np.float64).sum(-1)).sum(-1)


def best_found(env: EdgeComputing, params: EdgeComputingParams, keys: chex.PRNGKey, moves: int = MOVES) -> Floats:
    """Return ``f64[E]`` of the plans that simulated annealing finds, noise known: can be attained, and beaten."""
    return _returns(unattended(env, params, keys).states.graph, np.asarray(_annealed(env, params, keys, moves)))


def earliest(work: np.ndarray, send: np.ndarray, back: np.ndarray, parents: np.ndarray) -> tuple[Floats, Floats]:
    """When each task could be done at each place, and its result home, if nothing ever queued [s].

    Args:
      work: ``[n, 1 + S]`` time of computing; column 0 is the device.
      send: ``[n, 1 + S]`` of sending; 0 for the device.
      back: ``[n, 1 + S]`` of the way back; 0 for the device.
      parents: ``bool[n, n]``, topologically ordered.

    Returns:
      ``done`` and ``home``, both ``[n, 1 + S]``. Every child may have its parents where it likes them best, so these
      are lower bounds for every plan in which the task runs at that place.
    """
    done, home = np.zeros_like(work), np.zeros_like(work)
    for i in range(len(work)):
        start = send[i].copy()
        for j in np.flatnonzero(parents[i]):
            for k in range(len(start)):
                there = done[j, k]
                elsewhere = np.delete(home[j], k).min() + send[i, k]
                start[k] = max(start[k], min(there, elsewhere))
        done[i] = start + work[i]
        home[i] = done[i] + back[i]
    return done, home


def shortest(graph: Any, rates: Any, factors: np.ndarray) -> float:
    """No plan for this application has a smaller makespan [s], were all ``factors [n, 3]`` known.

    A linear programme: tasks may be divided among places, x_ik. Then a task is done no earlier than its parents plus
    its own work, nor than :func:`earliest`; device, links and processors take what they are given within the makespan.
    """
    size, result, parents = (np.asarray(x) for x in (graph.size, graph.result, graph.parents))
    link, speed = (np.asarray(x, np.float64) for x in (rates.link, np.append(rates.device, rates.server)))
    n, places = len(size), len(speed)
    upload, working, download = (factors.astype(np.float64) * np.stack([size, size, result], 1)).T
    zero = np.zeros((n, 1))
    send, back = (np.hstack([zero, x[:, None] / link]) for x in (upload, download))
    work = working[:, None] / speed
    done, home = earliest(work, send, back, parents)
    # Variables: x [n, 1 + S], when each task is done [n], the makespan.
    x, end = np.arange(n * places).reshape(n, places), n * places + np.arange(n)
    rows: list[tuple[np.ndarray, np.ndarray]] = []  # columns and coefficients of terms that add up to at most 0
    for i in range(n):
        rows.append((np.append(x[i], end[i]), np.append(done[i], -1.0)))
        rows.append((np.append(x[i], n * places + n), np.append(home[i], -1.0)))
        rows.append((np.concatenate([x[i], [end[i], n * places + n]]), np.append(back[i], [1.0, -1.0])))
        for j in np.flatnonzero(parents[i]):
            rows.append((np.concatenate([x[i], [end[j], end[i]]]), np.append(work[i], [1.0, -1.0])))
    for k in range(places):
        rows.append((np.append(x[:, k], n * places + n), np.append(work[:, k], -1.0)))
        if k:
            rows.append((np.append(x[:, k], n * places + n), np.append(send[:, k], -1.0)))
    index = np.concatenate([np.full(len(columns), r) for r, (columns, _) in enumerate(rows)])
    columns, values = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
    cost = np.zeros(n * places + n + 1)
    cost[-1] = 1.0
    return least(
        cost,
        A_ub=sp.csr_matrix((values, (index, columns)), shape=(len(rows), len(cost))),
        b_ub=np.zeros(len(rows)),
        A_eq=sp.csr_matrix((np.ones(x.size), (np.repeat(np.arange(n), places), x.ravel())), shape=(n, len(cost))),
        b_eq=np.ones(n),
    ).fun


def hindsight(env: EdgeComputing, params: EdgeComputingParams, keys: chex.PRNGKey) -> Floats:
    """Return ``f64[E]`` that no plan exceeds, rates and noise known."""
    states, rates = jax.device_get((unattended(env, params, keys).states.replace(key=None), env.rates(params)))
    makespan = [
        [
            shortest(jax.tree.map(lambda leaf, e=e, t=t: leaf[e, t], states.graph), rates, states.noise[e, t])
            for t in range(env.num_periods)
        ]
        for e in range(len(keys))
    ]
    return _returns(states.graph, np.array(makespan))
