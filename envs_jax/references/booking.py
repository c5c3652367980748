"""Booking of jobs with known durations into a resource calendar, as the public code of DeepRM does it.

Source: ``environment.py`` of DeepRM (H. Mao and others, HotNets 2016), read; its two peculiarities are kept, because
published figures were made with them.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def first_window(room: chex.Array, need: chex.Array, duration: chex.Array) -> chex.Array:
    """First tick from which a job fits for its whole duration: ``i32[]``, -1 if there is none.

    Peculiarity: the last window, which ends with the calendar, is never tried.

    Args:
      room: ``i32[H, R]`` units of each resource that are not booked in each of the next H ticks.
      need: ``i32[R]`` the job's demands, units.
      duration: ``i32[]`` ticks.
    """
    horizon = room.shape[0]
    clashes = jnp.pad(jnp.cumsum(jnp.any(need > room, axis=-1)), (1, 0))
    end = jnp.arange(horizon, dtype=jnp.int32) + duration
    clear = (clashes[jnp.minimum(end, horizon)] == clashes[:-1]) & (end < horizon)
    return jnp.where(jnp.any(clear), jnp.argmax(clear).astype(jnp.int32), -1).astype(jnp.int32)


def remove_while_iterating(listed: chex.Array, finished: chex.Array) -> chex.Array:
    """Finished jobs leave the list of running ones; peculiarity: removing one skips the next, which stays.

    So of a row of neighbours in the list that have all finished, the first, third, fifth, ... go.

    Args:
      listed: ``i32[J]`` rank of each job in the list, 0 if it is not there.
      finished: ``bool[J]``.

    Returns:
      ``listed`` with 0 for those that left; the others keep their (relative) ranks.
    """
    order = jnp.argsort(jnp.where(listed > 0, listed, jnp.iinfo(jnp.int32).max))
    gone, place = (finished & (listed > 0))[order], jnp.arange(listed.shape[0], dtype=jnp.int32)
    in_row = place - jax.lax.cummax(jnp.where(gone, -1, place))
    return listed.at[order].set(jnp.where(gone & (in_row % 2 == 1), 0, listed[order]))
