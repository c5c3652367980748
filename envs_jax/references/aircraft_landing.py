"""The static aircraft-landing problem: exact landing times of a sequence, and an exact search over sequences.

Aircraft i pays ``g_i`` per unit of time that it lands before its target and ``h_i`` per unit after it; past its latest
time a unit costs ``10 h_i``, so that every sequence stays feasible. It never lands before its earliest time. Between
one landing and the next on the same runway lies at least the wake separation of the pair; as separations satisfy the
triangle inequality, consecutive pairs are enough. A single-runway cost is convex and piecewise linear in the times.

Source: J. E. Beasley, M. Krishnamoorthy, Y. M. Sharaiha, D. Abramson, "Scheduling Aircraft Landings - The Static Case",
Transportation Science 34(2), 2000 (the problem; recalled, not re-read). Both methods are derived in the docstrings.
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

from envs_jax.arrays import aligned, vary_like

PAST_LATEST = 10.0
"""Cost per unit of time past the latest time, in multiples of the late cost."""
MAX_SEPARATION = 32
"""Largest separation, in slots, that the search over sequences allows for."""


def deviation(time: chex.Array, target: chex.Array, latest: chex.Array, early_ratio: chex.Numeric) -> chex.Array:
    """Late-equivalent deviation ``c_i(t) / h_i`` [time units], elementwise, without the bound of the earliest time."""
    time, target, latest = aligned(time, target, latest)
    late = jnp.maximum(time - target, 0.0) + (PAST_LATEST - 1.0) * jnp.maximum(time - latest, 0.0)
    return late + early_ratio * jnp.maximum(target - time, 0.0)


def landing_times(
    earliest: chex.Array,
    target: chex.Array,
    latest: chex.Array,
    late: chex.Array,
    early_ratio: chex.Numeric,
    gap: chex.Array,
) -> tuple[chex.Array, chex.Array]:
    """Cheapest landing times of a given sequence.

    With ``y_k = t_k - (gap_1 + .. + gap_k)`` the separations become ``y_1 <= y_2 <= ..``: an isotonic regression with
    piecewise-linear costs, which has an optimum where every ``y_k`` is a break point of some aircraft's cost. Over
    those 3n candidates the recursion ``V_k(y) = c_k(y) + min_{y' <= y} V_{k-1}(y')`` is exact, for any real times.

    Args:
      earliest: ``f32[n]`` E, in the order of landing like all that follows.
      target: ``f32[n]`` T.
      latest: ``f32[n]`` L.
      late: ``f32[n]`` h, cost per unit late; an aircraft that is not on the runway has 0.
      early_ratio: g / h.
      gap: ``f32[n]`` separation from the landing before, 0 for the first.

    Returns:
      Times ``f32[n]``, the earliest of the optimal ones, and the cost ``f32[]``.
    """
    offset = jnp.cumsum(gap)
    # In order, so that the least of all earlier candidates is a running minimum, not a table of pairs.
    y = _ascending(jnp.concatenate([earliest - offset, target - offset, latest - offset]))
    time = y[None, :] + offset[:, None]  # [n, 3n]
    cost = late[:, None] * deviation(time, target[:, None], latest[:, None], early_ratio)
    # A thousandth forgives the rounding of non-integer offsets.
    cost = jnp.where((time < earliest[:, None] - 1e-3) & (late[:, None] > 0), jnp.inf, cost)

    def forward(best: chex.Array, cost: chex.Array) -> tuple[chex.Array, chex.Array]:
        value = best + cost
        return _running_minimum(value), value

    best, values = jax.lax.scan(forward, vary_like(jnp.zeros_like(y), y, cost), cost)

    def backward(bound: chex.Array, value: chex.Array) -> tuple[chex.Array, chex.Array]:
        value = jnp.where(y <= bound, value, jnp.inf)
        chosen = jnp.min(jnp.where(value == jnp.min(value), y, jnp.inf))
        return chosen, chosen

    _, chosen = jax.lax.scan(backward, vary_like(jnp.max(y), values), values, reverse=True)
    return chosen + offset, jnp.min(best)


def _ascending(values: chex.Array) -> chex.Array:
    """Sorts ``f32[n]`` by Batcher's bitonic network: log2(n)^2 / 2 passes, on CPU a tenth of what XLA's sort takes."""
    count = len(values)
    size = 1 << (count - 1).bit_length()
    values = jnp.concatenate([values, jnp.full((size - count,), jnp.inf, values.dtype)])
    block = 2
    while block <= size:
        span = block // 2
        while span:
            low, high = jnp.moveaxis(values.reshape(-1, 2, span), 1, 0)
            mirrored = span == block // 2  # two ascending halves meet as one that rises and falls
            high = high[:, ::-1] if mirrored else high
            low, high = jnp.minimum(low, high), jnp.maximum(low, high)
            values = jnp.stack([low, high[:, ::-1] if mirrored else high], axis=1).reshape(size)
            # Else XLA would fuse the passes, and each number would go through all before it again.
            values = jax.lax.optimization_barrier(values)
            span //= 2
        block *= 2
    return values[:count]


def _running_minimum(values: chex.Array) -> chex.Array:
    """The least of ``f32[n]`` so far, ``f32[n]``; log4 n passes, as XLA's own has n of them on CPU."""
    reach = 1
    while reach < len(values):
        ahead = jnp.concatenate([jnp.full((3 * reach,), jnp.inf, values.dtype), values])
        window = [ahead[(3 - i) * reach : (3 - i) * reach + len(values)] for i in range(4)]
        # Else XLA would fuse the passes, and each number would look at all before it again.
        values = jax.lax.optimization_barrier(functools.reduce(jnp.minimum, window))
        reach *= 4
    return values


def best_sequence(
    cost: chex.Array, wake: chex.Array, separation: chex.Array, window: int
) -> tuple[chex.Array, chex.Array]:
    """Cheapest sequence on one runway over a grid of time slots, by dynamic programming over sets of landed aircraft.

    ``F(M, a, t)`` is the least cost of landing the set M, the last one of class a and not after slot t:

        F(M, a, .) = cummin_t min_{i in M, class a} [ c_i(t) + min_b F(M - i, b, t - S[b, a]) ].

    2^n sets of C classes and H slots; exact if times and separations are whole slots and an optimum ends within H.

    Args:
      cost: ``f32[n, H]`` cost of landing in a slot, infinite before the earliest time; aircraft in target order.
      wake: ``i32[n]`` class of each, in [0, C).
      separation: ``i32[C, C]`` slots from a landing (row) to the next (column), at most MAX_SEPARATION.
      window: only the first ``window`` of those not yet landed may be next.

    Returns:
      The sequence ``i32[n]`` of aircraft and its cost ``f32[]``.
    """
    n, slots = cost.shape
    classes = separation.shape[0]
    each = jnp.arange(n, dtype=jnp.int32)
    is_class = wake[None, :] == jnp.arange(classes, dtype=jnp.int32)[:, None]  # [C, n]
    # Slots before the first stand on the left, so that a shift is one contiguous slice.
    table = jnp.full((2**n, classes, MAX_SEPARATION + slots), jnp.inf, jnp.float32).at[0].set(0.0)
    table = vary_like(table, cost, wake, separation)

    def last_is(table: chex.Array, landed: chex.Array) -> chex.Array:
        """Cost ``f32[n, H]`` of landing the set with aircraft i last, in slot t; infinite where not allowed."""
        rest = landed & ~(1 << each)
        earlier_landed = jax.lax.population_count(rest & ((1 << each) - 1))
        allowed = ((landed >> each) & 1 == 1) & (each - earlier_landed < window)

        def of(rest: chex.Array, to: chex.Array) -> chex.Array:
            shifted = [
                jax.lax.dynamic_slice(table, (rest, jnp.int32(a), MAX_SEPARATION - separation[a, to]), (1, 1, slots))[
                    0, 0
                ]
                for a in range(classes)
            ]
            return jnp.min(jnp.stack(shifted), axis=0)

        value = cost + jax.vmap(of)(rest, wake)
        return jnp.where(allowed[:, None], value, jnp.inf)

    def fill(landed: chex.Array, table: chex.Array) -> chex.Array:
        value = jnp.min(jnp.where(is_class[:, :, None], last_is(table, landed), jnp.inf), axis=1)
        at = (landed, jnp.int32(0), jnp.int32(MAX_SEPARATION))
        return jax.lax.dynamic_update_slice(table, jax.lax.cummin(value, axis=1)[None], at)

    table = jax.lax.fori_loop(jnp.int32(1), jnp.int32(2**n), fill, table)
    everybody = jnp.int32(2**n - 1)

    def back(carry: tuple[chex.Array, chex.Array], _: None) -> tuple[tuple[chex.Array, chex.Array], chex.Array]:
        landed, bound = carry  # bound i32[C]: the last slot for each class of the last of these
        value = jnp.where(
            jnp.arange(slots, dtype=jnp.int32)[None, :] <= bound[wake][:, None], last_is(table, landed), jnp.inf
        )
        chosen = jnp.argmin(value).astype(jnp.int32)
        last, slot = chosen // slots, chosen % slots
        return (landed & ~(1 << last), slot - separation[:, wake[last]]), last.astype(jnp.int32)

    start = vary_like((everybody, jnp.full((classes,), slots - 1, jnp.int32)), table)
    _, order = jax.lax.scan(back, start, None, length=n, reverse=True)
    return order, jnp.min(table[everybody, :, -1])
