"""List scheduling of a task graph on a device and its edge servers: timing, earliest finish, roll-out, annealing.

Tasks are placed in index order, which must be topological. With ``s_i`` and ``e_i`` the sizes of task i's input and
result [MiB], ``r_k`` and ``f_k`` the rates of server k's link and processor, ``f_0`` the device's [MiB/s], and factors
``a_i, b_i, c_i`` (1 without noise) on task i's upload, work and download:

    on the device   home_i = max(device, max_{j parent} home_j) + b_i s_i / f_0
    on server k     sent_i = max(link_k, max_{j parent, not on k} home_j) + a_i s_i / r_k
                    done_i = max(sent_i, processor_k, max_{j parent, on k} done_j) + b_i s_i / f_k
                    home_i = done_i + c_i e_i / r_k

``home_i`` is when the result is on the device [s]. Link, processor and device take one task at a time and are free
again at ``sent_i``, ``done_i``, ``home_i``; downloads do not queue. All functions are pure; batch them with ``vmap``.

Sources: J. Wang et al., "Fast Adaptive Task Offloading in Edge Computing Based on Meta Reinforcement Learning", IEEE
TPDS 32(1), 2021 (the timing; code read); H. Topcuoglu, S. Hariri, M.-Y. Wu, IEEE TPDS 13(3), 2002 (upward rank and
earliest finish time, HEFT; recalled); D. P. Bertsekas, J. N. Tsitsiklis, C. Wu, J. Heuristics 3, 1997 (roll-out;
recalled).
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.arrays import vary_like


@struct.dataclass
class Graph:
    """An application of n tasks, in the order in which they are placed.

    Attributes:
      size: ``f32[n]`` input of a task, sent with it if it is offloaded, and its work [MiB].
      result: ``f32[n]`` what comes back [MiB].
      parents: ``bool[n, n]``, entry ``[i, j]``: task i needs the result of task j.
    """

    size: chex.Array
    result: chex.Array
    parents: chex.Array


@struct.dataclass
class Rates:
    """How fast everything is [MiB/s].

    Attributes:
      link: ``f32[S]`` of each server, the same up and down.
      server: ``f32[S]``.
      device: ``f32[]``.
    """

    link: chex.Array
    server: chex.Array
    device: chex.Array


@struct.dataclass
class Schedule:
    """What has been placed so far, and until when everything is taken [s since the application began].

    Attributes:
      place: ``i32[n]`` 0 the device, k server k, -1 not placed yet.
      home: ``f32[n]`` when a task's result is on the device; 0 if not placed.
      done: ``f32[n]`` when it is on its server; 0 elsewhere.
      device: ``f32[]`` until when the device computes.
      link: ``f32[S]`` until when each uplink sends.
      processor: ``f32[S]`` until when each server computes.
    """

    place: chex.Array
    home: chex.Array
    done: chex.Array
    device: chex.Array
    link: chex.Array
    processor: chex.Array

    @property
    def makespan(self) -> chex.Array:
        """When all results so far are on the device, ``f32[]`` [s]."""
        return jnp.max(self.home, axis=-1)


class Options(NamedTuple):
    """A task's times wherever it were placed [s]: ``home f32[1 + S]``, ``sent`` and ``done`` ``f32[S]``."""

    home: chex.Array
    sent: chex.Array
    done: chex.Array


def empty(num_tasks: int, num_servers: int) -> Schedule:
    """Nothing placed, everything free."""
    idle = jnp.zeros((num_servers,), jnp.float32)
    no_time = jnp.zeros((num_tasks,), jnp.float32)
    return Schedule(
        place=jnp.full((num_tasks,), -1, jnp.int32),
        home=no_time,
        done=no_time,
        device=jnp.float32(0.0),
        link=idle,
        processor=idle,
    )


def upward_rank(work: chex.Array, parents: chex.Array) -> chex.Array:
    """Longest path of ``work f32[n]`` [s] from each task to the end, itself included: ``f32[n]``.

    ``parents bool[n, n]`` must be topologically ordered. Descending rank is an order of placing, again topological.
    """
    count = work.shape[0]

    def visit(i: chex.Array, rank: chex.Array) -> chex.Array:
        task = count - 1 - i
        return rank.at[task].set(work[task] + jnp.max(jnp.where(parents[:, task], rank, 0.0)))

    return jax.lax.fori_loop(0, count, visit, vary_like(jnp.zeros_like(work), work, parents))


def ready(graph: Graph, schedule: Schedule, task: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
    """When task ``task i32[]`` could start on the device ``f32[]``, be sent ``f32[S]``, be run on servers ``f32[S]``.

    The last regardless of its own upload.
    """
    parent = graph.parents[task]
    home = jnp.where(parent, schedule.home, 0.0)
    servers = jnp.arange(1, schedule.link.shape[0] + 1, dtype=jnp.int32)
    there = parent[:, None] & (schedule.place[:, None] == servers[None, :])
    send = jnp.maximum(schedule.link, jnp.max(jnp.where(there, 0.0, home[:, None]), axis=0))
    run = jnp.maximum(schedule.processor, jnp.max(jnp.where(there, schedule.done[:, None], 0.0), axis=0))
    return jnp.maximum(schedule.device, jnp.max(home)), send, run


def options(
    graph: Graph, schedule: Schedule, task: chex.Array, rates: Rates, factors: chex.Array | None = None
) -> Options:
    """Times of ``task`` at every place; ``factors f32[3]`` multiply upload, work and download."""
    local, send, run = ready(graph, schedule, task)
    size, result = graph.size[task], graph.result[task]
    upload, work, download = (size, size, result) if factors is None else factors * jnp.stack([size, size, result])
    sent = send + upload / rates.link
    done = jnp.maximum(sent, run) + work / rates.server
    home = jnp.append(local + work / rates.device, done + download / rates.link)
    return Options(home=home, sent=sent, done=done)


def place(schedule: Schedule, task: chex.Array, choice: chex.Array, times: Options) -> Schedule:
    """Puts ``task`` at ``choice i32[]`` (0 the device, k server k), with the ``times`` of :func:`options`."""
    here = jnp.arange(schedule.place.shape[0], dtype=jnp.int32) == task
    chosen = jnp.arange(1, schedule.link.shape[0] + 1, dtype=jnp.int32) == choice
    home = times.home[choice]
    done = jnp.sum(jnp.where(chosen, times.done, 0.0))
    return Schedule(
        place=jnp.where(here, choice, schedule.place),
        home=jnp.where(here, home, schedule.home),
        done=jnp.where(here, done, schedule.done),
        device=jnp.where(choice == 0, home, schedule.device),
        link=jnp.where(chosen, times.sent, schedule.link),
        processor=jnp.where(chosen, times.done, schedule.processor),
    )


def earliest_finish(graph: Graph, schedule: Schedule, task: chex.Array, rates: Rates) -> chex.Array:
    """Where the result of ``task`` would be home first (HEFT's rule): ``i32[]``."""
    return jnp.argmin(options(graph, schedule, task, rates).home).astype(jnp.int32)


def roll_out(graph: Graph, schedule: Schedule, task: chex.Array, rates: Rates) -> chex.Array:
    """Where to place ``task`` so that, all later tasks placed by earliest finish, the makespan is least: ``i32[]``.

    The later tasks are timed without noise. Where makespans tie, which they often do, the earlier finish decides.
    """
    count = graph.size.shape[0]
    now = options(graph, schedule, task, rates)

    def complete(choice: chex.Array) -> chex.Array:
        def greedy(later: chex.Array, partial: Schedule) -> Schedule:
            times = options(graph, partial, later, rates)
            return place(partial, later, jnp.argmin(times.home).astype(jnp.int32), times)

        # A loop of the tasks left; the bound is not batched where episodes run in lockstep.
        end = jax.lax.fori_loop(
            task + 1, count, greedy, vary_like(place(schedule, task, choice, now), graph, schedule, rates, now)
        )
        return end.makespan

    spans = jax.vmap(complete)(jnp.arange(now.home.shape[0], dtype=jnp.int32))
    return jnp.argmin(spans + 1e-3 * now.home).astype(jnp.int32)


def makespan(graph: Graph, rates: Rates, plan: chex.Array, factors: chex.Array | None = None) -> chex.Array:
    """Makespan ``f32[]`` [s] of the places ``plan i32[n]``; without noise, or with the ``factors f32[n, 3]`` known."""
    count, servers = graph.size.shape[0], rates.link.shape[0]
    factors = jnp.ones((count, 3), jnp.float32) if factors is None else factors

    def body(schedule: Schedule, step: tuple[chex.Array, ...]) -> tuple[Schedule, None]:
        task, choice, own = step
        return place(schedule, task, choice, options(graph, schedule, task, rates, own)), None

    start = vary_like(empty(count, servers), graph, rates, plan, factors)
    return jax.lax.scan(body, start, (jnp.arange(count, dtype=jnp.int32), plan, factors))[0].makespan


def greedy_plan(graph: Graph, rates: Rates, rule: str = "earliest_finish") -> chex.Array:
    """Places ``i32[n]`` of the whole application by ``earliest_finish`` or ``roll_out``, without noise."""
    choose = {"earliest_finish": earliest_finish, "roll_out": roll_out}[rule]
    count, servers = graph.size.shape[0], rates.link.shape[0]

    def body(task: chex.Array, schedule: Schedule) -> Schedule:
        times = options(graph, schedule, task, rates)
        return place(schedule, task, choose(graph, schedule, task, rates), times)

    return jax.lax.fori_loop(0, count, body, vary_like(empty(count, servers), graph, rates)).place


def anneal(
    graph: Graph,
    rates: Rates,
    plan: chex.Array,
    key: chex.PRNGKey,
    moves: int = 20_000,
    temperatures: tuple[float, float] = (0.1, 0.001),
    factors: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array]:
    """Simulated annealing from ``plan i32[n]``: the best plan found and its makespan [s].

    A move puts one random task at another random place; the temperature falls geometrically between the two given, as
    fractions of the first plan's makespan. A good plan for known rates and no noise (or noise that is known, see
    :func:`makespan`), not a proven optimum: it plans with the whole application before it, so it is what an adaptive
    rule is compared with, not what it plays.
    """
    count, places = graph.size.shape[0], rates.link.shape[0] + 1
    start = makespan(graph, rates, plan, factors)
    hot, cold = temperatures

    def move(i: chex.Array, carry: tuple[chex.Array, ...]) -> tuple[chex.Array, ...]:
        plan, span, best, best_span = carry
        u = jax.random.uniform(jax.random.fold_in(key, i), (3,))
        task = jnp.minimum((u[0] * count).astype(jnp.int32), count - 1)
        shift = 1 + jnp.minimum((u[1] * (places - 1)).astype(jnp.int32), places - 2)
        other = plan.at[task].set((plan[task] + shift) % places)
        other_span = makespan(graph, rates, other, factors)
        temperature = start * hot * (cold / hot) ** (i / moves)
        taken = jnp.log(u[2]) * temperature < span - other_span
        plan, span = jnp.where(taken, other, plan), jnp.where(taken, other_span, span)
        better = span < best_span
        return plan, span, jnp.where(better, plan, best), jnp.where(better, span, best_span)

    _, _, best, best_span = jax.lax.fori_loop(0, moves, move, (plan, start, plan, start))
    return best, best_span


def lower_bound(graph: Graph, rates: Rates) -> chex.Array:
    """No plan has a smaller makespan [s], noise aside: ``f32[]``.

    The longest path, each task at the fastest processor and nothing ever sent; or all input through device and links at
    full rate, which share it in some way.
    """
    fastest = jnp.maximum(rates.device, jnp.max(rates.server))
    path = jnp.max(upward_rank(graph.size / fastest, graph.parents))
    return jnp.maximum(path, jnp.sum(graph.size) / (rates.device + jnp.sum(rates.link)))
