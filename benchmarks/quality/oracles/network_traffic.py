"""Network traffic: what slots could earn if arrivals, links and acknowledgements were known, by linear programmes."""

from __future__ import annotations

import chex
import jax
import numpy as np
import scipy.sparse as sp

from benchmarks.quality.oracles import Floats, least, unattended
from envs_jax.domains.network_traffic import NetworkTraffic, NetworkTrafficParams


def least_cost(
    start: np.ndarray,
    arrived: np.ndarray,
    acknowledged: np.ndarray,
    connected: np.ndarray,
    weight: np.ndarray,
    loss: float,
    buffer: float,
) -> float:
    """Least weighted packets left and lost, if all draws were known and grants divisible: a bound for every policy.

    Args:
      start: ``[K]`` packets at first.
      arrived: ``[P, K]``.
      acknowledged: ``[P, K, R + 1]`` packets acknowledged if 0..R are sent.
      connected: ``bool[P, K]``.
      weight: ``[K]`` a packet left costs.
      loss: a packet dropped costs so many times more.
      buffer: packets.
    """
    frames, flows, choices = acknowledged.shape
    # Variables: how much of each number of grants is chosen [P, K, R + 1]; packets left [P, K]; dropped [P, K].
    grants = np.arange(frames * flows * choices).reshape(frames, flows, choices)
    left = grants.size + np.arange(frames * flows).reshape(frames, flows)
    dropped = left + left.size
    total = grants.size + 2 * left.size
    one = sp.csr_matrix((np.ones(grants.size), (grants.ravel() // choices, grants.ravel())), (left.size, total))
    sent = sp.csr_matrix((np.tile(np.arange(choices), left.size), one.nonzero()), one.shape)
    acked = sp.csr_matrix((acknowledged.ravel(), one.nonzero()), one.shape)
    pick = lambda columns: sp.csr_matrix((np.ones(left.size), (np.arange(left.size), columns.ravel())), one.shape)  # noqa: E731
    # A frame begins with what the last one left and what has come since, less what found no room.
    shift = sp.eye(left.size, k=-flows)
    carried = shift @ (pick(left) - pick(dropped))
    came = np.concatenate([start, arrived[:-1].ravel()])
    cost = np.zeros(total)
    cost[left], cost[dropped] = weight, loss * weight
    high = np.full(total, np.inf)
    high[grants] = np.where(connected[..., None] | (np.arange(choices) == 0), 1.0, 0.0)
    found = least(
        cost,
        A_eq=sp.vstack([one, pick(left) + acked - carried]),
        b_eq=np.concatenate([np.ones(left.size), came]),
        A_ub=sp.vstack(
            [sent - carried, sp.kron(sp.identity(frames), np.ones((1, flows))) @ sent, pick(left) - pick(dropped)]
        ),
        b_ub=np.concatenate([came, np.full(frames, choices - 1.0), buffer - arrived.ravel()]),
        bounds=np.stack([np.zeros(total), high], 1),
    )
    return found.fun


def hindsight(env: NetworkTraffic, params: NetworkTrafficParams, keys: chex.PRNGKey) -> Floats:
    """Return ``f64[E]`` [weighted packets per flow] that nobody exceeds, were all that chance brings known.

    For activations of one flow each, as in the tasks.
    """
    if env.largest != 1:
        raise ValueError("activations of several flows: the programme shares slots among single flows")
    episode = unattended(env, params, keys)
    states, end = (jax.device_get(x.replace(key=None)) for x in (episode.states, episode.end))
    counts = np.concatenate([states.arrivals, end.arrivals[:, None]], axis=1)  # packets come whatever is sent
    success = np.asarray(episode.uniforms)[..., : env.num_flows]
    acknowledged = (success[..., None, None] > np.asarray(params.success_cdf)).sum(-1)
    weight = np.asarray(params.class_weight, np.float64)[np.asarray(params.service_class)]
    weight = weight * np.asarray(params.contract, np.float64)
    known = zip(states.queue[:, 0], np.diff(counts, axis=1), acknowledged, states.connected, strict=True)
    costs = [least_cost(*draws, weight, float(params.loss), float(params.buffer)) for draws in known]
    return -np.array(costs) / env.num_flows
