"""M/M/1 queues that switch off when empty and need a setup to come back: costs, values, and dispatching among them.

A job that meets an *off* server starts its setup, Exp(delta); then jobs, Exp(mu), are served first come, first served
until none is left, and the server is off at once ("InstantOff"). A job in the system costs ``holding`` per second, a
server in setup or busy its power's price. With Poisson arrivals of rate l, r = mu - l and a = l / delta, an off
server's next cycle costs A and is B seconds of setup and work long,

    A = w [1/delta + l/delta^2 + (1+a)^2 / r + (1+a) l / r^2] + c_s / delta + c_b (1+a) / r,    B = 1/delta + (1+a)/r,

so 1 + l B jobs share it, and the mean cost per second is g = l A / (1 + l B). The relative values v of a server's
states follow; one more job raises the cost to come by

    off:                  A / (1 + l B)                               (v(setup, 1) - v(off) = g / l)
    in setup, n jobs:     w [1/delta + (n + 1 + a) / r + l / r^2] + (c_b - g) / r
    busy, n jobs:         w [(n + 1) / r + l / r^2] + (c_b - g) / r

Sending every job where this is least is one step of policy improvement over "server i gets every job with chance
l_i / sum l" (*first policy iteration*, FPI).

Sources: E. Hyytia, R. Righter, S. Aalto, "Task assignment in a heterogeneous server farm with switching delays and
general energy-aware cost structure", Performance Evaluation 75-76, 2014 (abstract read; that paper has M/G/1 queues and
constant delays). The values above, for exponential setups, are derived here. A. Gandhi, M. Harchol-Balter, I. Adan,
"Server farms with setup costs", Performance Evaluation 67, 2010 (abstract read) is the queue with setups.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.arrays import vary_like

_FULL = 0.98
"""Largest load a split may give a server: relative values need a stable queue."""


@struct.dataclass
class Servers:
    """N servers, or one; all leaves of one shape.

    Attributes:
      speed: mu [jobs/s].
      setup_rate: delta [1/s].
      busy_cost: c_b, of a busy server [cost/s].
      setup_cost: c_s, of a server in setup [cost/s].
      holding: w, of a job in the system [cost/s].
    """

    speed: chex.Array
    setup_rate: chex.Array
    busy_cost: chex.Array
    setup_cost: chex.Array
    holding: chex.Array


def _cycle(servers: Servers, arrivals: chex.Array) -> tuple[chex.Array, chex.Array]:
    """A and B of the module's docstring."""
    w, delta, room = servers.holding, servers.setup_rate, servers.speed - arrivals
    grown = 1.0 + arrivals / delta
    delay = grown / delta + grown**2 / room + grown * arrivals / room**2
    cost = w * delay + servers.setup_cost / delta + servers.busy_cost * grown / room
    return cost, 1.0 / delta + grown / room


def mean_cost(servers: Servers, arrivals: chex.Array) -> chex.Array:
    """g, long-run cost per second of a server with Poisson ``arrivals`` below its speed [jobs/s]; elementwise."""
    cost, length = _cycle(servers, arrivals)
    return arrivals * cost / (1.0 + arrivals * length)


def marginal_costs(servers: Servers, arrivals: chex.Array, jobs: chex.Array, in_setup: chex.Array) -> chex.Array:
    """What one more job costs a server that gets Poisson ``arrivals`` afterwards; elementwise.

    Args:
      servers: the servers.
      arrivals: l [jobs/s], below the speed; 0 is allowed.
      jobs: n, jobs there; with none the server is off.
      in_setup: whether it is in setup.
    """
    cost, length = _cycle(servers, arrivals)
    opening = cost / (1.0 + arrivals * length)
    room, delta, w = servers.speed - arrivals, servers.setup_rate, servers.holding
    joining = (
        w * ((jobs + 1).astype(jnp.float32) / room + arrivals / room**2)
        + (servers.busy_cost - arrivals * opening) / room
    )
    waiting = joining + w * (1.0 / delta + arrivals / (delta * room))
    return jnp.where(jobs == 0, opening, jnp.where(in_setup, waiting, joining))


def split(servers: Servers, arrivals: chex.Array, grid: int = 32) -> chex.Array:
    """Rates ``f32[N]`` of the best split of Poisson ``arrivals`` by chance, in multiples of ``arrivals / grid``.

    Exact on that grid: the servers are added one after another (min-plus convolution), since a server's mean cost is
    concave where jobs are few (they pay for setups) and local search would stop early.
    """
    size = grid + 1
    rates = arrivals * jnp.arange(size, dtype=jnp.float32) / grid

    def on_grid(server: Servers) -> chex.Array:
        stable = rates < _FULL * server.speed
        return jnp.where(stable, mean_cost(server, jnp.where(stable, rates, 0.0)), jnp.inf)

    costs = jax.vmap(on_grid)(servers)
    units = jnp.arange(size, dtype=jnp.int32)
    total, part = units[:, None], units[None, :]
    rest = jnp.maximum(total - part, 0)

    def add(best: chex.Array, cost: chex.Array) -> tuple[chex.Array, chex.Array]:
        together = jnp.where(part <= total, best[rest] + cost[None, :], jnp.inf)
        return together.min(1), together.argmin(1).astype(jnp.int32)

    nothing = jnp.where(jnp.arange(size, dtype=jnp.int32) == 0, 0.0, jnp.inf)
    _, given = jax.lax.scan(add, vary_like(nothing, costs), costs)

    def trace(left: chex.Array, given: chex.Array) -> tuple[chex.Array, chex.Array]:
        return left - given[left], given[left]

    _, units = jax.lax.scan(trace, vary_like(jnp.int32(grid), given), given.astype(jnp.int32), reverse=True)
    return arrivals * units.astype(jnp.float32) / grid


def until_next_arrival(
    servers: Servers, arrivals: chex.Array, jobs: chex.Array, in_setup: chex.Array
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Expected job-seconds, setup seconds and busy seconds of a server before the farm's next arrival; elementwise.

    The j-th job leaves before the next arrival with chance s q^j, where q = mu / (mu + lambda) and s is the chance
    that the setup ends in time (1 if there is none).

    Args:
      servers: the servers.
      arrivals: lambda, rate of the next arrival at the farm [jobs/s].
      jobs: n, jobs at each server, those just sent included.
      in_setup: whether each is in setup.
    """
    in_time = jnp.where(in_setup, servers.setup_rate / (servers.setup_rate + arrivals), 1.0)
    gone = in_time * (1.0 - (servers.speed / (servers.speed + arrivals)) ** jobs.astype(jnp.float32))
    left = (jobs.astype(jnp.float32) - gone * servers.speed / arrivals) / arrivals
    return left, (1.0 - in_time) / arrivals, gone / arrivals


def until_empty(servers: Servers, jobs: chex.Array, in_setup: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Expected job-seconds, setup seconds and busy seconds of a server until it is off, if nothing arrives any more."""
    setup = jnp.where(in_setup, 1.0 / servers.setup_rate, 0.0)
    return (
        (jobs * (jobs + 1)).astype(jnp.float32) / (2.0 * servers.speed) + jobs.astype(jnp.float32) * setup,
        setup,
        jobs.astype(jnp.float32) / servers.speed,
    )
