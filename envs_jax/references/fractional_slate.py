"""Slates that maximise a ratio (Dinkelbach), and the value of a session's remaining attention budget.

A user shown a slate with ``a_g`` documents of topic g clicks one of topic g with probability ``a_g v_g / (sum a v +
v_0)`` (a choice model with an outside option). If a click on g is worth ``h_g`` and no click ``h_0``, the slate earns

    (sum_g a_g v_g h_g + v_0 h_0) / (sum_g a_g v_g + v_0).

The best slate of at most k documents is a fractional programme under a matroid constraint. It beats a given ratio r if
``sum_g a_g v_g (h_g - r) > v_0 (r - h_0)``, and the left side is largest for the k documents of largest positive
``v_g (h_g - r)``. Dinkelbach (1967): take that slate, let r be its ratio, repeat; r never falls, and it stops changing
at the optimum. That such slates can be optimised fast is one of the points of SlateQ (Ie et al., 2019; recalled).
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax.arrays import aligned, vary_like


def largest(values: chex.Array, available: chex.Array, slots: chex.Numeric, most: int) -> chex.Array:
    """Fills ``slots`` with the documents of largest positive value, the first of equal topics: amounts ``f32[..., G]``.

    Args:
      values: ``f32[..., G]`` value of a document of each topic.
      available: ``f32[..., G]`` documents of each topic.
      slots: documents wanted, at most.
      most: an upper bound of ``slots`` (static): one pick after another, which on CPU beats ranking.
    """
    values, available, topics = aligned(values, available, jnp.arange(values.shape[-1], dtype=jnp.int32))
    taken = jnp.zeros_like(values)
    for pick in range(most):
        left = jnp.where(taken < available, values, 0.0)
        top = jnp.max(left, axis=-1, keepdims=True)
        first = jnp.min(jnp.where(left == top, topics, topics.size), axis=-1, keepdims=True)
        taken += ((topics == first) & (top > 0.0) & (pick < slots)).astype(values.dtype)
    return taken


def best_slate(
    weights: chex.Array,
    gains: chex.Array,
    outside_weight: chex.Array,
    outside_gain: chex.Array,
    available: chex.Array,
    slots: chex.Numeric,
    most: int,
    fixed: chex.Array | float = 0.0,
    start: chex.Array | None = None,
    iterations: int = 5,
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """The best completion of a slate. Leading axes broadcast.

    Args:
      weights: ``f32[..., G]`` v, non-negative.
      gains: ``f32[..., G]`` h.
      outside_weight: ``f32[...]`` v_0, positive.
      outside_gain: ``f32[...]`` h_0.
      available: ``f32[..., G]`` documents of each topic that may be added.
      slots: how many, at most.
      most: an upper bound of ``slots`` (static).
      fixed: ``f32[..., G]`` documents on the slate already.
      start: ``f32[...]`` a first guess of the ratio; any number will do, a near one saves iterations.
      iterations: Dinkelbach steps (static). Five reach float32's fixed point from the ratio of the fixed part.

    Returns:
      The ratio ``f32[...]``, the amounts to add ``f32[..., G]``, and what one more document of a topic is worth at that
      ratio, ``v (h - ratio)`` ``f32[..., G]``.
    """
    weights, gains, available, fixed = aligned(weights, gains, available, fixed)
    outside_weight, outside_gain = (aligned(x, weights[..., 0])[0] for x in (outside_weight, outside_gain))

    def ratio_of(slate: chex.Array) -> chex.Array:
        mass = slate * weights
        total = jnp.sum(mass * gains, axis=-1) + outside_weight * outside_gain
        return total / (jnp.sum(mass, axis=-1) + outside_weight)

    def improve(_: object, found: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        ratio, _ = found
        added = largest(weights * (gains - ratio[..., None]), available, slots, most)
        return ratio_of(fixed + added), added

    nothing = jnp.zeros_like(available)
    first = ratio_of(fixed + nothing) if start is None else start
    given = (weights, gains, outside_weight, outside_gain, available, slots, fixed, first)
    start = vary_like((first, nothing), given)
    # A loop, not unrolled: the program is a fifth the size and compiles that much faster.
    ratio, added = jax.lax.fori_loop(0, iterations, improve, start)
    return ratio, added, weights * (gains - ratio[..., None])


def candidate_sets(topics: int, candidates: int, count: int) -> np.ndarray:
    """``f32[count, topics]`` sets of ``candidates`` documents of random topics, every topic equally often over all.

    A fixed sample (seed 0) for expectations. Dealt from one shuffled pack, so that no topic is over-represented.
    """
    pack = np.random.default_rng(0).permutation(np.arange(candidates * count) % topics).reshape(count, candidates)
    return np.stack([np.bincount(row, minlength=topics) for row in pack]).astype(np.float32)


def interpolate(values: chex.Array, budget: chex.Array, largest_budget: chex.Array) -> chex.Array:
    """``values f32[L]`` on an even grid of [0, largest_budget], read linearly at ``budget`` of any shape."""
    last = values.shape[0] - 1
    position = jnp.clip(budget / largest_budget * last, 0.0, last)
    low = jnp.minimum(position.astype(jnp.int32), last - 1)
    share = position - low.astype(jnp.float32)
    return values[low] * (1.0 - share) + values[low + 1] * share


@struct.dataclass
class Session:
    """A user whose interests stay as they are.

    Attributes:
      weights: ``f32[G]`` v.
      outside_weight: ``f32[]`` v_0.
      kept: ``f32[G]`` budget that a watched minute of each topic uses up.
      minutes: ``f32[]`` length of a document.
      skip: ``f32[]`` budget that a slate without a click uses up.
      budget: ``f32[]`` at the start, top of the grid.
    """

    weights: chex.Array
    outside_weight: chex.Array
    kept: chex.Array
    minutes: chex.Array
    skip: chex.Array
    budget: chex.Array


def session_values(session: Session, sets: np.ndarray, slots: int, periods: int, levels: int) -> chex.Array:
    """Expected minutes still to be watched under the best slates, ``f32[periods + 1, levels]``.

    Backward induction over periods left and budget b; the candidates of a period are one of ``sets``, equally likely,
    and the slate is the best for each. A click on topic g watches ``w = min(b, minutes)`` and costs ``w kept_g`` of the
    budget, no click costs ``skip``. At ``b <= 0`` the session is over.

    Args:
      session: the user.
      sets: ``f32[S, G]`` documents of each topic on offer.
      slots: length of a slate (static).
      periods: slates of a session (static).
      levels: points of an even grid of [0, budget] (static).
    """
    weights, outside, budget = session.weights, session.outside_weight, session.budget
    grid = budget * jnp.arange(levels, dtype=jnp.float32) / (levels - 1)
    watched = jnp.minimum(grid, session.minutes)
    after = grid[:, None] - watched[:, None] * session.kept[None, :]
    offered = jnp.broadcast_to(jnp.asarray(sets)[:, None], (sets.shape[0], levels, sets.shape[1]))

    def backwards(value: chex.Array, _: object) -> tuple[chex.Array, chex.Array]:
        gains = watched[:, None] + interpolate(value, after, budget)
        none = interpolate(value, grid - session.skip, budget)
        # The value with a period less is a good first guess of the ratio.
        start = jnp.broadcast_to(value, (sets.shape[0], levels))
        ratio, *_ = best_slate(weights, gains, outside, none, offered, slots, slots, start=start, iterations=3)
        now = jnp.where(grid > 0.0, ratio.mean(0), 0.0)
        return now, now

    end = vary_like(jnp.zeros((levels,), jnp.float32), session)
    _, values = jax.lax.scan(backwards, end, None, length=periods)
    return jnp.concatenate([values[::-1], end[None]])
