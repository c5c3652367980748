"""Roads of four signalised intersections in a square, numbered so that a quarter turn of the city is a shift.

Intersections 0..3 are NW, NE, SE, SW; side r of intersection i is the compass side (i + r) mod 4 of N, E, S, W. Then,
for every i alike: sides 0 and 3 are outer roads; whoever leaves by side 1 arrives at side 2 of intersection i + 1, and
whoever leaves by side 2 at side 1 of intersection i - 1 (mod 4). Coming from side r, straight on is side r + 2, right
r + 3, left r + 1. Each side has two lanes, 0 through and right, 1 left; phase ``2 (r mod 2) + lane`` serves a lane of
the opposite sides r and r + 2. Arrays ``[4, 4, 2]`` are by intersection, side and lane, ``[4, 4]`` as said.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp


def by_movement(values: chex.Array) -> chex.Array:
    """``[4, 4 phases]`` -> ``[4, 4 sides, 2 lanes]``: each phase serves one lane of two opposite sides."""
    pair = values.reshape(4, 2, 2)
    return jnp.concatenate([pair, pair], axis=1)


def by_phase(values: chex.Array) -> chex.Array:
    """``[4, 4 sides, 2 lanes]`` -> ``[4, 4 phases]``, the sum over the two sides."""
    return (values[:, :2] + values[:, 2:]).reshape(4, 4)


def exits(straight: chex.Array, right: chex.Array, left: chex.Array) -> chex.Array:
    """Vehicles ``[4, 4]`` that leave each intersection by each side, from those ``[4, 4]`` that came from each side."""
    return jnp.roll(straight, 2, axis=1) + jnp.roll(right, -1, axis=1) + jnp.roll(left, 1, axis=1)


def between(leaving: chex.Array) -> chex.Array:
    """Those ``[4, 2]`` who reach sides 1 and 2 of each intersection from its neighbours, of ``leaving[4, 4]``."""
    return jnp.stack([jnp.roll(leaving[:, 2], -1), jnp.roll(leaving[:, 1], 1)], axis=-1)


def ahead(values: chex.Array, left_share: chex.Numeric, right_share: chex.Numeric) -> chex.Array:
    """Mean value of the queue that a vehicle of each movement joins next, 0 outside: ``[4, 4, 2]`` of the same."""
    link = (1.0 - left_share) * values[..., 0] + left_share * values[..., 1]
    nothing = jnp.zeros((4,), link.dtype)
    reached = jnp.stack([nothing, jnp.roll(link[:, 2], -1), jnp.roll(link[:, 1], 1), nothing], axis=-1)
    through = (1.0 - right_share) * jnp.roll(reached, 2, axis=1) + right_share * jnp.roll(reached, 1, axis=1)
    return jnp.stack([through, jnp.roll(reached, -1, axis=1)], axis=-1)
