"""Economic dispatch of thermal units.

Units with costs ``a P^2 + b P`` $/h and limits ``[low, high]`` MW serve a demand at least cost when all that are off
their limits have the same incremental cost ``lambda = 2 a P + b``. The least-cost supply is then a piecewise linear
curve in lambda whose knots are the prices at which a unit leaves a limit; :func:`merit_order` tabulates it and
:func:`dispatch` inverts it. Exact, without iterations.

Everything is an interpolation between knots, never ``(lambda - b) / 2a``: where units share a nearly flat cost, one
float32 rounding of lambda is worth 1e-4 MW. :func:`cost_change` integrates the price over a change of demand, which
keeps a saving of a few dollars exact beside a cost of thousands.

Sources: A. J. Wood, B. F. Wollenberg, Power Generation, Operation, and Control (economic dispatch, recalled, not
re-read).
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np


class Supply(NamedTuple):
    """The least-cost supply curve of ``n`` units, ``K = 2n`` knots in the order of price.

    Attributes:
      price: ``f32[K]`` lambda [$/MWh].
      output: ``f32[K, n]`` what each unit gives at that price [MW].
      total: ``f32[K]`` all units together [MW].
      slope: ``f32[K - 1]`` of lambda between knots [$/MWh per MW]; 0 where nothing is added between them.
      response: ``f32[K - 1, n]`` share of each unit in what is added between knots; 0 where that is nothing.
    """

    price: chex.Array
    output: chex.Array
    total: chex.Array
    slope: chex.Array
    response: chex.Array


def merit_order(quadratic: chex.Array, linear: chex.Array, low: chex.Array, high: chex.Array) -> Supply:
    """The supply curve of units with costs ``quadratic P^2 + linear P``, all four arguments ``f32[n]``.

    ``quadratic`` is positive: a unit of constant incremental cost would have a step, not a slope.
    """
    starts, ends = linear + 2.0 * quadratic * low, linear + 2.0 * quadratic * high
    knots = jnp.concatenate([starts, ends])
    # Sorted by counting, ties in the order of units: under vmap on CPU much cheaper than sorting rows of ten.
    earlier = np.tri(knots.shape[0], k=-1, dtype=bool)
    rank = jnp.sum((knots[None, :] < knots[:, None]) | ((knots[None, :] == knots[:, None]) & earlier), -1, jnp.int32)
    price = jnp.sum(jnp.where(rank[None, :] == jnp.arange(knots.shape[0], dtype=jnp.int32)[:, None], knots, 0.0), -1)
    at = price[:, None]
    low, high = low[None, :], high[None, :]
    between = jnp.clip((at - linear[None, :]) / (2.0 * quadratic)[None, :], low, high)
    # A unit's own two knots are its limits, free of rounding.
    output = jnp.where(at <= starts[None, :], low, jnp.where(at >= ends[None, :], high, between))
    total = jnp.sum(output, axis=-1)
    width = jnp.diff(total)
    per_mw = jnp.where(width > 0, 1.0 / jnp.where(width > 0, width, 1.0), 0.0)
    return Supply(price, output, total, per_mw * jnp.diff(price), per_mw[:, None] * jnp.diff(output, axis=0))


class Dispatch(NamedTuple):
    """Who serves a demand.

    Attributes:
      price: ``f32[]`` lambda [$/MWh]: what one more MWh costs.
      output: ``f32[n]`` [MW].
      participation: ``f32[n]`` share of each unit in one more MW; adds up to 1 on the curve, to 0 beyond its ends.
    """

    price: chex.Array
    output: chex.Array
    participation: chex.Array


def dispatch(supply: Supply, demand: chex.Array, scarcity: chex.Numeric) -> Dispatch:
    """Serves ``demand f32[]`` MW at least cost.

    Below the curve the units stay at its start and a MWh is worth nothing (surplus is curtailed); above it they stay
    at its end and a MWh is worth ``scarcity`` $ (it is shed).
    """
    # The stretch in which the demand is met; a price at which nothing is added is passed as soon as more is to serve.
    at = jnp.sum(supply.total[1:-1] < demand, dtype=jnp.int32)
    above = jnp.clip(demand, supply.total[0], supply.total[-1]) - supply.total[at]
    short, surplus = demand > supply.total[-1], demand < supply.total[0]
    price = jnp.where(short, scarcity, jnp.where(surplus, 0.0, supply.price[at] + above * supply.slope[at]))
    participation = jnp.where(short | surplus, 0.0, supply.response[at])
    return Dispatch(price, supply.output[at] + above * supply.response[at], participation)


def cost_change(supply: Supply, demand: chex.Array, extra: chex.Array, scarcity: chex.Numeric) -> chex.Array:
    """What ``extra`` MW (either sign) on top of ``demand`` MW cost for an hour: the integral of lambda, ``f32[]`` $.

    Beyond the ends of the curve as in :func:`dispatch`.
    """
    knots = supply.total - demand  # where the price bends, counted from the present demand
    start, end = (jnp.clip(x, knots[:-1], knots[1:]) for x in (jnp.zeros_like(demand), extra))
    middle = supply.price[:-1] + supply.slope * (0.5 * (start + end) - knots[:-1])
    shed = jnp.maximum(extra - knots[-1], 0.0) - jnp.maximum(-knots[-1], 0.0)
    return jnp.sum((end - start) * middle) + scarcity * shed
