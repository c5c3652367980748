"""Agriculture: the least loss when the season's weather is known, by a linear programme; and without foreknowledge."""

from __future__ import annotations

import functools

import chex
import jax
import numpy as np
import scipy.sparse as sp

from benchmarks.quality.oracles import Floats, least, unattended
from envs_jax.domains.agriculture import Agriculture, AgricultureParams
from envs_jax.testing import leaves_by_name


def least_loss(params: AgricultureParams, eto: Floats, rain: Floats, sets: float) -> float:
    """Least loss [yield value] with weather ``eto [P]`` and ``rain [P]`` [mm] known.

    Sets are divisible and ETa may be lower than what stress leaves of it: a bound for every policy.
    """
    p = {k: np.asarray(v, float) for k, v in leaves_by_name(params).items()}
    fields, days = p["kc"].shape
    etc = p["kc"].T * eto[:, None]  # [P, F]
    taw, n = p["available_water"] * p["root_depth"], days * fields
    worth = p["value"] * p["sensitivity"] * p["response"] / (p["eto"] * p["kc_left"][:, 0])
    # Variables: ETa, sets, percolation, Dr at the end of the day, each [P, F].
    one, none = sp.identity(n), sp.csr_matrix((n, n))
    before = sp.eye(n, k=-fields)
    gain = sp.diags(np.tile(p["efficiency"] * p["set_depth"], days))
    balance = sp.hstack([-one, gain, -one, one - before])
    slope = sp.diags((etc / ((1 - p["fraction"]) * taw)).ravel())
    stress = sp.hstack([one, none, none, slope @ before])
    pump = sp.kron(sp.identity(days), np.ones((1, fields)))
    wide = sp.hstack([sp.csr_matrix((days, n)), pump, sp.csr_matrix((days, 2 * n))])
    season = np.concatenate([np.zeros(n), np.ones(n), np.zeros(2 * n)])[None]
    high = np.concatenate([etc.ravel(), np.ones(n), np.full(n, np.inf), np.tile(taw, days)])
    found = least(
        np.concatenate([-np.tile(worth, days), np.zeros(3 * n)]),
        A_ub=sp.vstack([stress, wide, season]),
        b_ub=np.concatenate([(etc / (1 - p["fraction"])).ravel(), np.ones(days), [sets]]),
        A_eq=balance,
        b_eq=np.repeat(-rain, fields),
        bounds=np.stack([np.zeros(4 * n), high], 1),
    )
    # What each day falls short, not a difference of two sums: where nothing is lost that rounds to less than nothing.
    shortfall = np.maximum(etc - found.x[:n].reshape(etc.shape), 0.0)
    return float((shortfall * worth).sum())


def weather(env: Agriculture, params: AgricultureParams, keys: chex.PRNGKey) -> tuple[Floats, Floats]:
    """ETo and rain ``[E, P]`` [mm] of the episodes ``keys[E]``; ETo counts as 0 once all crops are mature."""
    info = unattended(env, params, keys).info
    demand, rain = (np.asarray(info[name], np.float64) for name in ("demand", "rain"))
    return demand / np.maximum(np.asarray(params.kc, np.float64).sum(0), 1e-9), rain


def hindsight(env: Agriculture, params: AgricultureParams, keys: chex.PRNGKey) -> Floats:
    """Return ``f64[E]`` [yield value] that nobody exceeds, were all weather known."""
    seasons = zip(*weather(env, params, keys), strict=True)
    return np.array([-least_loss(params, eto, rain, float(params.permit)) for eto, rain in seasons])


@functools.partial(jax.jit, static_argnames="env")
def _upper_bound(env: Agriculture, params: AgricultureParams) -> chex.Array:
    return env.upper_bound(params)


def lagrangian(env: Agriculture, params: AgricultureParams, keys: chex.PRNGKey) -> Floats:
    """The *expected* return that nobody exceeds without foreknowledge (``Agriculture.upper_bound``), E times."""
    return np.full(len(keys), float(_upper_bound(env, params)))
