"""Containers on weekly liner services: where they are, what a day and a week's calls do to them, and a fluid forecast.

Used by the maritime domain for its world (whole containers) and for its plans (divisible ones). Full containers take
the vessel of a route that both their ports lie on; two ports share at most one route.

Notation: P ports, V vessels, L lanes (ordered pairs of ports of a route), D = MAX_DELAY days, W weeks.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax.arrays import vary_like

WEEK, MAX_DELAY = 7, 3
"""Days between calls; longest time at a shipper or consignee [days]."""


@struct.dataclass
class Stock:
    """Where all containers are; float32, exact for whole numbers up to 2^24.

    Attributes:
      empty: ``f32[P]`` in port, ready for orders.
      shipper: ``f32[D, L]`` by lane: due back, full, in 1..D days.
      full: ``f32[L]`` in port, waiting for a vessel.
      consignee: ``f32[D, P]`` due back, empty, in 1..D days.
      aboard: ``f32[V]`` empties on vessels.
      laden: ``f32[V, P]`` full ones on vessels, by destination.
    """

    empty: chex.Array
    shipper: chex.Array
    full: chex.Array
    consignee: chex.Array
    aboard: chex.Array
    laden: chex.Array


class Services:
    """The timetable.

    Attributes:
      lanes: L pairs of ports, in order of origin, then target: the order in which they are served.
      origin, target: ``[L]`` their ports.
      before: ``[L, L]`` 1 where the first lane has priority over the second at their common origin.
      from_port, to_port: ``[L, P]`` one-hot.
      on_route: ``[V, P]`` 1 where a vessel ever calls.
      cycle: weeks after which all vessels are back.
      port: ``[cycle, V]`` where each vessel calls in weeks 0, 1, ...
      loads: ``[cycle, V, L]`` 1 for the lanes that it loads there.
      sooner: ``[cycle, L, L]`` 1 where both lanes are loaded by the same vessel, the first for an earlier call.

    Args:
      routes: of each service the ports in the order of calls.
      vessels: ``(route, first call)``, the position in the route in week 0.
      num_ports: P.
    """

    def __init__(
        self, routes: tuple[tuple[int, ...], ...], vessels: tuple[tuple[int, int], ...], num_ports: int
    ) -> None:
        self.num_ports, self.num_vessels = num_ports, len(vessels)
        pairs = [(i, j) for route in routes for i in route for j in route if i != j]
        lanes = sorted(set(pairs))
        if len(lanes) < len(pairs):
            raise ValueError(f"routes={routes!r}: two ports must not share more than one route, nor a route repeat one")
        self.lanes, (self.origin, self.target) = tuple(lanes), np.array(lanes, np.int32).T
        same, number = self.origin[:, None] == self.origin, np.arange(len(lanes))
        self.before = np.float32(same & (number[:, None] < number))
        self.from_port = np.float32(self.origin[:, None] == np.arange(num_ports))
        self.to_port = np.float32(self.target[:, None] == np.arange(num_ports))
        self.on_route = np.array(
            [[port in routes[route] for port in range(num_ports)] for route, _ in vessels], np.float32
        )
        self.cycle = math.lcm(*map(len, routes))
        self.port = np.zeros((self.cycle, len(vessels)), np.int32)
        self.loads = np.zeros((self.cycle, len(vessels), len(lanes)), np.float32)
        self.sooner = np.zeros((self.cycle, len(lanes), len(lanes)), np.float32)
        for week in range(self.cycle):
            for vessel, (route, first) in enumerate(vessels):
                calls = routes[route]
                here, *ahead = [calls[(first + week + stop) % len(calls)] for stop in range(len(calls))]
                carried = [lanes.index((here, there)) for there in ahead]
                self.port[week, vessel] = here
                self.loads[week, vessel, carried] = 1
                for rank, lane in enumerate(carried):
                    self.sooner[week, carried[:rank], lane] = 1

    def here(self, week: chex.Array) -> chex.Array:
        """Where the vessels call in a week, one-hot ``f32[V, P]``."""
        return jax.nn.one_hot(jnp.asarray(self.port)[week % self.cycle], self.num_ports, dtype=jnp.float32)

    def start(self, empty: chex.Array) -> Stock:
        """All containers empty in the ports ``f32[P]``, on the morning of day 0."""
        p, v, lanes = self.num_ports, self.num_vessels, len(self.origin)
        shapes = {"shipper": (MAX_DELAY, lanes), "full": (lanes,), "consignee": (MAX_DELAY, p), "aboard": (v,)}
        return Stock(empty=empty, **{k: jnp.zeros(n, jnp.float32) for k, n in {**shapes, "laden": (v, p)}.items()})

    def day(self, stock: Stock, wanted: chex.Array, shipper_days: chex.Array) -> tuple[Stock, chex.Array]:
        """Returns from shippers and consignees, then orders ``wanted f32[L]``; and what is served, ``f32[L]``."""
        empty = stock.empty + stock.consignee[0]
        served = fill(empty @ self.from_port.T, wanted, self.before)
        shipper, consignee = (
            jnp.concatenate([pipeline[1:], jnp.zeros_like(pipeline[:1])])
            for pipeline in (stock.shipper, stock.consignee)
        )
        stock = stock.replace(
            empty=empty - served @ self.from_port,
            shipper=shipper + _slot(shipper_days)[:, self.origin] * served[None, :],
            full=stock.full + stock.shipper[0],
            consignee=consignee,
        )
        return stock, served

    def calls(self, stock: Stock, week: chex.Array, capacity: chex.Array, consignee_days: chex.Array) -> Stock:
        """In the evening all vessels ``capacity f32[V]`` land what is bound for here and load what they can.

        Full containers for the next calls come first; empties without room stay ashore.
        """
        here, loads = self.here(week), jnp.asarray(self.loads)[week % self.cycle]
        # A choice, not a product with ``here``: XLA makes sums of such products matrix products, on CPU far dearer.
        landed = total(jnp.where(here > 0, stock.laden, 0.0), 0)
        laden = jnp.where(here > 0, 0.0, stock.laden)
        room = (capacity - total(laden, -1)) @ loads
        taken = fill(room, stock.full * loads.sum(0), jnp.asarray(self.sooner)[week % self.cycle])
        laden = laden + (loads * taken[None, :]) @ self.to_port
        aboard = jnp.minimum(stock.aboard, capacity - total(laden, -1))
        return stock.replace(
            empty=stock.empty + (stock.aboard - aboard) @ here,
            full=stock.full - taken,
            consignee=stock.consignee + _slot(consignee_days) * landed[None, :],
            aboard=aboard,
            laden=laden,
        )

    def forecast(self, shares: chex.Array, orders: chex.Array, task: Any) -> chex.Array:
        """``served - lost - c moved`` ``f32[]`` [containers] of keeping shares of the empties at hand at each call.

        Containers are divisible, and decisions begin in week 1.

        Args:
          shares: ``f32[W, V]`` of the empties in port and on board, the part that is ashore after the call.
          orders: ``f32[7 W + 8, L]`` by day.
          task: has ``start, capacity, move_cost, shipper_days, consignee_days``, see the domain's parameters.
        """

        def day(stock: Stock, wanted: chex.Array) -> tuple[Stock, chex.Array]:
            stock, served = self.day(stock, wanted, task.shipper_days)
            return stock, jnp.sum(2.0 * served - wanted)

        def call(empty: chex.Array, step: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
            port, share, aboard, room = step
            carried = jnp.minimum((1.0 - share) * (empty @ port + aboard), room)
            return empty + port * (aboard - carried), carried

        def week(stock: Stock, step: tuple[chex.Array, ...]) -> tuple[Stock, chex.Array]:
            number, shares, orders = step
            stock = self.calls(stock, number, task.capacity, task.consignee_days)
            room = task.capacity - stock.laden.sum(-1)
            empty, aboard = jax.lax.scan(
                call, vary_like(stock.empty, stock, shares), (self.here(number), shares, stock.aboard, room)
            )
            cost = task.move_cost * jnp.abs(aboard - stock.aboard).sum()
            stock, value = jax.lax.scan(day, stock.replace(empty=empty, aboard=aboard), orders)
            return stock, value.sum() - cost

        first, rest = orders[: 1 + WEEK], orders[1 + WEEK :]
        start = vary_like(self.start(task.start), shares, orders, task)
        stock, _ = jax.lax.scan(day, start, first)
        weeks = (1 + jnp.arange(len(shares), dtype=jnp.int32), shares, rest.reshape(len(shares), WEEK, -1))
        return jax.lax.scan(week, stock, weeks)[1].sum()


def fill(available: chex.Array, wanted: chex.Array, before: chex.Array) -> chex.Array:
    """Serves ``wanted f32[K]`` one after another: what of it is ``available f32[K]``; ``before[k, l]``: k is first."""
    return jnp.clip(available - wanted @ before, 0.0, wanted)


def total(stock: chex.Array, axis: int) -> chex.Array:
    """Sum over a short axis, number by number: one pass with what reads it, where XLA's sums on CPU take one each."""
    return functools.reduce(jnp.add, jnp.moveaxis(stock, axis, 0))


def _slot(days: chex.Array) -> chex.Array:
    """Which row of a pipeline a delay of ``f32[P]`` days is: one-hot ``f32[D, P]``."""
    return (jnp.round(days)[None, :] == jnp.arange(1.0, MAX_DELAY + 1, dtype=jnp.float32)[:, None]).astype(jnp.float32)
