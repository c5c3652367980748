"""One hour of a network in the DC approximation: least-cost dispatch, then the flows that follow from it.

Voltages 1, no losses, flow = (angle at start - angle at end) / reactance: flows are linear in the injections, and the
matrix of :func:`transfer_factors` says how. Lines do not restrain the dispatch; what they carry above their ratings is
reported, for the caller to charge.

Source: the DC approximation as in MATPOWER's ``makeBdc`` and ``makePTDF`` (recalled, checked against PYPOWER's
``rundcpf`` on 100 random dispatches).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.references import economic_dispatch


def transfer_factors(start: np.ndarray, end: np.ndarray, reactance: np.ndarray, slack: int = 0) -> np.ndarray:
    """Flow on each line per MW injected at each bus and withdrawn at ``slack``: float64 ``[lines, buses]``.

    DC power flow: line flow = (angle at start - angle at end) / reactance, voltages 1, losses none.

    Args:
      start: bus where a line starts, from 0.
      end: bus where it ends.
      reactance: per unit, times the tap ratio for a transformer.
      slack: reference bus, whose angle is 0.
    """
    lines, buses = len(reactance), int(max(start.max(), end.max())) + 1
    incidence = np.zeros((lines, buses))
    incidence[np.arange(lines), start], incidence[np.arange(lines), end] = 1.0, -1.0
    weighted = incidence / np.asarray(reactance, float)[:, None]
    others = [bus for bus in range(buses) if bus != slack]
    factors = np.zeros((lines, buses))
    susceptance = incidence.T @ weighted
    factors[:, others] = np.linalg.solve(susceptance[np.ix_(others, others)], weighted[:, others].T).T
    return factors


class Network(NamedTuple):
    """Flow on each of L lines per MW at the places where power enters or leaves.

    Attributes:
      of_unit: ``f32[L, n]`` per MW of each thermal unit.
      of_green: ``f32[L, G]`` per MW of each renewable plant.
      of_load: ``f32[L]`` per MW of the whole load, spread over the buses by fixed shares.
      of_storage: ``f32[L, D]`` per MW fed in by each storage.
    """

    of_unit: np.ndarray
    of_green: np.ndarray
    of_load: np.ndarray
    of_storage: np.ndarray


def network(
    lines: np.ndarray,
    reactance: np.ndarray,
    units: Sequence[int] | np.ndarray,
    greens: Sequence[int] | np.ndarray,
    load: np.ndarray,
    storages: Sequence[int] | np.ndarray,
) -> Network:
    """The network whose ``lines i[L, 2]`` join buses counted from 1, as are those of units, renewables and storages.

    ``load f[buses]`` is the load's distribution, in any unit.
    """
    factors = transfer_factors(lines[:, 0] - 1, lines[:, 1] - 1, reactance)
    of_unit, of_green, of_storage = (factors[:, np.asarray(at) - 1] for at in (units, greens, storages))
    tables = (of_unit, of_green, factors @ load / np.sum(load), of_storage)
    return Network(*(table.astype(np.float32) for table in tables))


class Hour(NamedTuple):
    """One hour of a network.

    Attributes:
      net: ``f32[]`` what is left for the thermal units: load, minus wind and sun, plus what storages draw [MW].
      dispatch: lambda, outputs and participation of the thermal units.
      fed: ``f32[G]`` wind and solar power after curtailment [MW].
      unserved: ``f32[]`` load shed [MW].
      flow: ``f32[L]`` along each line [MW].
      overload: ``f32[L]`` above the line's rating [MW].
      fuel_cost: ``f32[]`` of the thermal units, with what is shed [$].
    """

    net: chex.Array
    dispatch: economic_dispatch.Dispatch
    fed: chex.Array
    unserved: chex.Array
    flow: chex.Array
    overload: chex.Array
    fuel_cost: chex.Array


def operate(
    network: Network,
    supply: economic_dispatch.Supply,
    load: chex.Array,
    green: chex.Array,
    draw: chex.Array,
    rating: chex.Array,
    scarcity: chex.Numeric,
) -> Hour:
    """Serves ``load f32[]`` from renewables ``green f32[G]``, storages drawing ``draw f32[D]``, and thermal units [MW].

    Surplus is curtailed from all renewables in proportion, shortage (worth ``scarcity`` $/MWh) shed from the load
    everywhere alike. ``rating f32[L]`` [MW].
    """
    net = load - jnp.sum(green) + jnp.sum(draw)
    dispatched = economic_dispatch.dispatch(supply, net, scarcity)
    fed = green * (1.0 - jnp.maximum(-net, 0.0) / jnp.maximum(jnp.sum(green), 1e-6))
    unserved = jnp.maximum(net - supply.total[-1], 0.0)
    # One product for all that enters or leaves, in full float32 on every backend.
    power = jnp.concatenate([dispatched.output, fed, (unserved - load)[None], -draw])
    factors = np.concatenate([network.of_unit, network.of_green, network.of_load[:, None], network.of_storage], 1)
    flow = jnp.matmul(jnp.asarray(factors), power, precision=jax.lax.Precision.HIGHEST)
    overload = jnp.maximum(jnp.abs(flow) - rating, 0.0)
    fuel_cost = economic_dispatch.cost_change(supply, jnp.zeros_like(net), net, scarcity)
    return Hour(net, dispatched, fed, unserved, flow, overload, fuel_cost)


def compare(
    network: Network,
    supply: economic_dispatch.Supply,
    load: chex.Array,
    green: chex.Array,
    draws: chex.Array,
    rating: chex.Array,
    scarcity: chex.Numeric,
    toll: chex.Numeric,
) -> tuple[chex.Array, Hour]:
    """What alternative ``draws f32[A, D]`` save against idle storages, ``f32[A]`` $, and the hours ``[A]`` they make.

    Fuel, shedding, and overloads at ``toll`` $/MWh; the other arguments as in :func:`operate`.
    """

    def one(draw: chex.Array) -> Hour:
        return operate(network, supply, load, green, draw, rating, scarcity)

    idle, then = one(jnp.zeros_like(draws[0])), jax.vmap(one)(draws)
    change = jax.vmap(economic_dispatch.cost_change, (None, None, 0, None))
    fuel = change(supply, idle.net, jnp.sum(draws, -1), scarcity)
    return toll * (jnp.sum(idle.overload) - jnp.sum(then.overload, -1)) - fuel, then


def congestion_price(network: Network, hour: Hour, toll: chex.Numeric) -> chex.Array:
    """What one more MW drawn at each storage costs in overloads, ``f32[D]`` $/MWh, at ``toll`` $ per MWh of overload.

    The MW comes from the units that participate, from what wind and sun are curtailed by, or from load that is shed,
    and shifts the flows from there to the storage's bus.
    """
    tolled = toll * jnp.sign(hour.flow) * (hour.overload > 0).astype(jnp.float32)
    places = np.concatenate([network.of_unit, network.of_green, network.of_load[:, None], network.of_storage], 1)
    relief = jnp.matmul(tolled, jnp.asarray(places), precision=jax.lax.Precision.HIGHEST)  # of a MW fed in at each
    curtailed = jnp.where(hour.net < 0.0, hour.fed / jnp.maximum(jnp.sum(hour.fed), 1e-6), 0.0)
    shed = (hour.unserved > 0.0).astype(jnp.float32)
    share = jnp.concatenate([hour.dispatch.participation, curtailed, shed[None]])
    return jnp.sum(relief[: share.size] * share) - relief[share.size :]
