"""Job shops: Taillard's generator, the apparent-tardiness-cost rule, and what a partial schedule will cost under it.

A shop has J jobs and M machines; every job visits every machine once. Tables are indexed by *machine*: ``order[j, m]``
is the place (0..M-1) of machine m in job j's route and ``minutes[j, m]`` the time it takes there. In this form what a
job needs next is a comparison and a sum over machines, without gathers, which is what makes a roll-out cheap.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import sampling
from envs_jax.arrays import aligned, vary_like

STOPS = 2
"""Most breakdowns of one operation; a third is rare as long as an operation is short beside the time between two."""
LOOK_AHEADS, LEAD = (1.0, 3.0), 2.0
"""Of the roll-outs' ATC rules: mean operation times, and minutes allowed for a minute of later operations."""
VARIANTS, BIAS = 8, 0.5
"""Number of ATC rules that finish each roll-out, and the sd of the log-factors by which they weigh the jobs."""
OVERDUE = 0.3
"""Share of its expected time that an operation is thought to need still, at least, however long it has been running."""
MODULUS = 2**31 - 1
"""Modulus of Taillard's generator; its states are 1..MODULUS-1."""


def taillard_uniform(state: chex.Array, low: chex.Numeric, high: int) -> tuple[chex.Array, chex.Array]:
    """One draw of Taillard's (1993) generator: its next state ``i32[]`` and an integer in ``[low, high]``, ``i32[]``.

    ``x <- 16807 x mod (2^31 - 1)``, the draw is ``low + floor(x (high - low + 1) / (2^31 - 1))``; both are exact in
    32-bit integers for ranges of up to 2^15 integers.
    """
    state = 16807 * (state % 127773) - 2836 * (state // 127773)
    state = jnp.where(state < 0, state + MODULUS, state)
    # x n in two halves of 16 bits, divided by 2^31 first; one more if the remainder also holds a modulus.
    x, n = state.astype(jnp.uint32), jnp.asarray(high - low + 1, jnp.uint32)
    top = (x >> 16) * n + (((x & 0xFFFF) * n) >> 16)
    quotient = top >> 15
    remainder = ((top & 0x7FFF) << 16) | (((x & 0xFFFF) * n) & 0xFFFF)
    quotient = quotient + (quotient + remainder >= MODULUS).astype(jnp.uint32)
    return state, jnp.asarray(low, jnp.int32) + quotient.astype(jnp.int32)


def taillard(
    time_seed: chex.Array, machine_seed: chex.Array, num_jobs: int, num_machines: int
) -> tuple[chex.Array, chex.Array]:
    """An instance of Taillard's (1993) job-shop distribution: routes and minutes ``i32[J, M]``, in the order of routes.

    Minutes are uniform on 1..99; routes are random permutations. His published pairs of seeds give his instances.

    Args:
      time_seed: ``i32[]`` in [1, 2^31 - 2].
      machine_seed: likewise.
      num_jobs: J.
      num_machines: M.
    """
    operations = jnp.arange(num_jobs * num_machines, dtype=jnp.int32)
    _, minutes = jax.lax.scan(lambda state, _: taillard_uniform(state, 1, 99), time_seed.astype(jnp.int32), operations)
    machines = jnp.arange(num_machines, dtype=jnp.int32)

    def swap(carry: tuple[chex.Array, chex.Array], k: chex.Array) -> tuple[tuple[chex.Array, chex.Array], chex.Array]:
        state, row = carry
        row = jnp.where(k == 0, machines, row)
        state, other = taillard_uniform(state, k, num_machines - 1)
        here, there = row[k], row[other]
        row = row.at[k].set(there).at[other].set(here)
        return (state, row), row

    _, rows = jax.lax.scan(
        swap, vary_like((machine_seed.astype(jnp.int32), machines), machine_seed), operations % num_machines
    )
    shape = (num_jobs, num_machines)
    return rows[num_machines - 1 :: num_machines], minutes.reshape(shape)


def weights(num_jobs: int) -> chex.Array:
    """``f32[J]``: 4 for the first fifth of the jobs, 1 for the last, else 2 (Singer & Pinedo's convention)."""
    fifth = round(0.2 * num_jobs)
    return jnp.asarray(np.repeat([4.0, 2.0, 1.0], [fifth, num_jobs - 2 * fifth, fifth]), jnp.float32)


def by_machine(route: chex.Array, minutes: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Routes and minutes ``[J, M]`` in the order of the route -> ``order``, ``minutes`` ``[J, M]`` by machine."""
    order = jnp.argsort(jnp.asarray(route), axis=1).astype(jnp.int32)
    return order, jnp.take_along_axis(jnp.asarray(minutes, jnp.float32), order, axis=1)


@struct.dataclass
class Shop:
    """What has to be done, all times in minutes.

    Attributes:
      order: ``i32[J, M]`` place of machine m in job j's route.
      minutes: ``f32[J, M]`` (expected) time of job j on machine m.
      weight: ``f32[J]`` cost of a minute of tardiness.
      due: ``f32[J]`` due dates.
    """

    order: chex.Array
    minutes: chex.Array
    weight: chex.Array
    due: chex.Array


@struct.dataclass
class Progress:
    """A partial schedule: what has been started.

    Attributes:
      clock: ``f32[]`` nothing can start earlier.
      started: ``i32[J]`` operations started of each job.
      ready: ``f32[J]`` end of each job's last started operation, 0 if none.
      free: ``f32[M]`` end of each machine's last started operation, 0 if none.
    """

    clock: chex.Array
    started: chex.Array
    ready: chex.Array
    free: chex.Array


def atc_index(
    weight: chex.Array,
    minutes: chex.Array,
    slack: chex.Array,
    look_ahead: chex.Numeric,
) -> chex.Array:
    """Apparent tardiness cost (Vepsalainen & Morton 1987), elementwise: ``w / p exp(-max(slack, 0) / look_ahead)``.

    Args:
      weight: cost of a minute of tardiness.
      minutes: p, time of the next operation.
      slack: due date minus now, p and the lead time allowed for the operations after it [min].
      look_ahead: how far ahead due dates count [min], usually a few mean operation times.
    """
    return weight / minutes * jnp.exp(-jnp.maximum(slack, 0.0) / look_ahead)


def start(shop: Shop, progress: Progress, now: chex.Array, chosen: chex.Array) -> Progress:
    """Starts at ``now f32[]`` the next operation of the job that is marked in ``chosen bool[J]`` (none: no change)."""
    here = chosen[:, None] & (shop.order == progress.started[:, None])
    end = now + jnp.sum(jnp.where(here, shop.minutes, 0.0))
    return Progress(
        clock=now,
        started=progress.started + chosen.astype(jnp.int32),
        ready=jnp.where(chosen, end, progress.ready),
        free=jnp.where(here.any(0), end, progress.free),
    )


def earliest(order: chex.Array, progress: Progress) -> chex.Array:
    """When each job's next operation finds job and machine free, ``f32[J]``; inf for a job that has none left."""
    here = order == progress.started[:, None]
    machine = jnp.sum(jnp.where(here, progress.free, 0.0), axis=1)
    return jnp.where(here.any(1), jnp.maximum(progress.ready, machine), jnp.inf)


def total(mask: chex.Array, values: chex.Array, axis: int) -> chex.Array:
    """Sum of ``values`` where ``mask``, along an axis."""
    return jnp.sum(jnp.where(mask, values, 0.0), axis=axis)


@struct.dataclass
class Floor:
    """What a dispatcher knows of a shop floor who is told when operations end, not when they will.

    Attributes:
      following: ``bool[J, M]`` the machine of each job's next operation.
      last: ``bool[J, M]`` of its last started operation.
      complete: ``bool[J, M]`` ended operations.
      busy: ``bool[J, M]`` running operations.
      queue: ``bool[J, M]`` operations whose job waits for them.
      running: ``bool[J]``.
      open: ``bool[J]`` not yet done.
      left: ``f32[J]`` planned minutes left of what runs, at least 0.
      later: ``f32[J]`` planned minutes of the operations after the next.
      work: ``f32[J]`` all planned minutes left.
      ended: ``bool[J]`` an operation of the job ended in the clock's last move.
      outcome: ``f32[J]`` ln(actual / planned minutes) of that operation, else 0.
    """

    following: chex.Array
    last: chex.Array
    complete: chex.Array
    busy: chex.Array
    queue: chex.Array
    running: chex.Array
    open: chex.Array
    left: chex.Array
    later: chex.Array
    work: chex.Array
    ended: chex.Array
    outcome: chex.Array


def floor(order: chex.Array, planned: chex.Array, progress: Progress, began: chex.Array, previous: chex.Array) -> Floor:
    """Looks at a shop floor.

    Args:
      order: ``i32[J, M]`` see :class:`Shop`.
      planned: ``f32[J, M]`` planned minutes.
      progress: what has been started; its ends are used where they are not in the future.
      began: ``f32[J]`` start of each job's last started operation.
      previous: ``f32[]`` the clock before its last move.
    """
    started = progress.started[:, None]
    following, last, running = order == started, order == started - 1, progress.ready > progress.clock
    busy = last & running[:, None]
    plan = total(last, planned, 1)
    left = jnp.where(running, jnp.maximum(began + plan - progress.clock, 0.0), 0.0)
    later = total(order > started, planned, 1)
    ended = last.any(1) & ~running & (progress.ready > previous)
    ratio = jnp.where(ended, (progress.ready - began) / jnp.maximum(plan, 1e-6), 1.0)
    return Floor(
        following=following,
        last=last,
        complete=(order < started) & ~busy,
        busy=busy,
        queue=following & ~running[:, None],
        running=running,
        open=running | following.any(1),
        left=left,
        later=later,
        work=total(following, planned, 1) + later + left,
        ended=ended,
        outcome=jnp.log(ratio),
    )


def expect(shop: Shop, progress: Progress, began: chex.Array) -> Progress:
    """``progress`` with the ends that lie in the future, unknown to a dispatcher, replaced by expected ones.

    What runs is expected to end as planned from its start, but not before another :data:`OVERDUE` of its time.

    Args:
      shop: with expected minutes.
      progress: what has been started.
      began: ``f32[J]`` start of each job's last started operation.
    """
    running = progress.ready > progress.clock
    last = shop.order == progress.started[:, None] - 1
    whole = total(last, shop.minutes, 1)
    end = jnp.maximum(began + whole, progress.clock + OVERDUE * whole)
    busy = last & running[:, None]
    return progress.replace(
        ready=jnp.where(running, end, progress.ready),
        free=jnp.where(busy.any(0), total(busy, end[:, None], 0), progress.free),
    )


def complete(
    shop: Shop, progress: Progress, look_ahead: chex.Numeric, lead: chex.Numeric, steps: chex.Numeric
) -> Progress:
    """Finishes a partial schedule without delays, always starting the job of the largest apparent tardiness cost.

    Args:
      shop: the shop.
      progress: what has been started.
      look_ahead: see :func:`atc_index` [min].
      lead: lead time allowed for later operations, as a multiple of their minutes.
      steps: at least the number of operations left; an index that is not batched keeps the loop free of selects.
    """

    def body(_: chex.Array, progress: Progress) -> Progress:
        when = earliest(shop.order, progress)
        now = jnp.maximum(progress.clock, when.min())
        next_minutes = jnp.sum(jnp.where(shop.order == progress.started[:, None], shop.minutes, 0.0), axis=1)
        later = jnp.sum(jnp.where(shop.order > progress.started[:, None], shop.minutes, 0.0), axis=1)
        slack = shop.due - now - next_minutes - lead * later
        index = atc_index(shop.weight, jnp.maximum(next_minutes, 1e-3), slack, look_ahead)
        index = jnp.where(when <= now, index, -1.0)
        best = jnp.arange(index.shape[0], dtype=jnp.int32) == jnp.argmax(index).astype(jnp.int32)
        # Past the last operation nobody can start and the clock stays.
        open_ = jnp.isfinite(now)
        return start(shop, progress, jnp.where(open_, now, progress.clock), best & open_)

    return jax.lax.fori_loop(0, steps, body, vary_like(progress, shop, look_ahead))


def weighted_tardiness(shop: Shop, progress: Progress) -> chex.Array:
    """Total weighted tardiness ``f32[]`` of a finished schedule."""
    return jnp.sum(shop.weight * jnp.maximum(progress.ready - shop.due, 0.0))


def rollout_costs(shop: Shop, progress: Progress, began: chex.Array, steps: chex.Numeric) -> chex.Array:
    """What each choice leads to: the least weighted tardiness ``f32[J+1]`` over :data:`VARIANTS` ATC rules.

    The rules weigh the jobs by a fixed table of factors, the first ones truly. As the table is fixed, the best schedule
    found at one choice is among those looked at after the next: if all ends come as expected the found cost never rises
    (with :data:`OVERDUE` 0; otherwise ends that are near are put off, which pays where times vary).

    Args:
      shop: with expected minutes.
      progress: what has been started; choice j starts job j at its clock, legal or not, choice J waits for the next
        expected end. Its ends in the future are not used.
      began: ``f32[J]`` start of each job's last started operation.
      steps: see :func:`complete`.
    """
    jobs, running = progress.started.shape[0], progress.ready > progress.clock
    progress = expect(shop, progress, began)
    resume = jnp.where(running, progress.ready, jnp.inf).min()
    bias = BIAS * np.random.default_rng(0).normal(size=(VARIANTS, jobs))
    bias[: len(LOOK_AHEADS)] = 0.0
    rules = shop.weight[None, :] * jnp.asarray(np.exp(bias), jnp.float32)
    look_aheads = jnp.asarray(np.resize(LOOK_AHEADS, VARIANTS), jnp.float32) * shop.minutes.mean()

    def follow(choice: chex.Array, weight: chex.Array, look_ahead: chex.Array) -> chex.Array:
        after = start(shop, progress, progress.clock, jnp.arange(jobs, dtype=jnp.int32) == choice)
        after = after.replace(clock=jnp.where(choice == jobs, resume, progress.clock))
        end = complete(shop.replace(weight=weight), after, look_ahead, LEAD, steps)
        return weighted_tardiness(shop, end)

    over_rules = jax.vmap(follow, in_axes=(None, 0, 0))
    return jax.vmap(over_rules, in_axes=(0, None, None))(jnp.arange(jobs + 1, dtype=jnp.int32), rules, look_aheads).min(
        1
    )


def realised_minutes(
    uniforms: chex.Array,
    running: chex.Array,
    variation: chex.Array,
    repair_share: chex.Array,
    repair_time: chex.Array,
) -> chex.Array:
    """Minutes that operations take: lognormal running times, and repairs after breakdowns while running.

    Args:
      uniforms: ``f32[2 + STOPS, ...]`` running time, number of stops, time of each repair.
      running: ``f32[...]`` mean running times.
      variation: their coefficient of variation.
      repair_share: share A of busy time in repair; stops come at a mean distance of R (1 - A) / A of running time.
      repair_time: R, mean of the exponential repair times.
    """
    running, variation, repair_share, repair_time = aligned(running, variation, repair_share, repair_time)
    variance = jnp.log1p(variation**2)
    running = running * jnp.exp(jnp.sqrt(variance) * sampling.normal(uniforms[0]) - 0.5 * variance)
    rate = repair_share / ((1.0 - repair_share) * repair_time)
    stops = sampling.categorical(uniforms[1], sampling.poisson_cdf(running * rate, STOPS + 1))
    # Rounding may leave a stop for a uniform next to 1 even at rate 0.
    stops = jnp.where(rate > 0.0, stops, 0)
    repairs = -repair_time[None] * jnp.log(uniforms[2:])
    index = jnp.arange(STOPS, dtype=jnp.int32).reshape(-1, *[1] * running.ndim)
    return running + jnp.sum(jnp.where(index < stops[None], repairs, 0.0), axis=0)
