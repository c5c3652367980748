"""An index rule for jobs of several kinds that cannot be stopped, when the sum of slowdowns is what counts.

A job of kind k with duration L costs 1/L per tick in the system, so in expectation w_k = E[1/L]. With one machine, all
jobs there and no arrivals, serving in order of w_k / E[L] is optimal (Smith's weighted shortest processing time, W. E.
Smith 1956, recalled). With arrivals a started long job blocks the short ones that come after it, and it can be better
to keep the machine free; DeepRM's agent learned to, its authors report (recalled). So a job is valued by

    index_k = w_k sqrt(ticks left after it) / (E[L] (blocked_k + idle)),
    blocked_k = sum over shorter kinds i of w_i (waiting_i + arrivals of i expected while it runs),

and started only if that exceeds a threshold. The form is a heuristic; root, idle and threshold were tuned.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
from flax import struct

THRESHOLD = 0.1
"""Least index of a job that is started."""
_IDLE = 0.05  # blocked weight when nothing shorter waits or will come: keeps the index finite
_TOO_LATE = 0.3  # ticks left that a job is credited with although it is not expected to finish in time


@struct.dataclass
class Moments:
    """What the rule needs to know of M kinds.

    Attributes:
      mean: ``f32[M]`` E[L], ticks.
      weight: ``f32[M]`` E[1/L], per tick.
      before: ``f32[M, M]`` 1 where kind j is shorter than kind i.
      inflow: ``f32[M]`` weight expected to arrive in a tick.
    """

    mean: chex.Array
    weight: chex.Array
    before: chex.Array
    inflow: chex.Array


def moments(shortest: chex.Array, longest: chex.Array, arrivals: chex.Array, largest: int) -> Moments:
    """Moments of durations uniform on ``shortest i32[M] .. longest i32[M]``, at most ``largest`` ticks.

    Args:
      shortest: ticks.
      longest: ticks.
      arrivals: ``f32[M]`` expected arrivals of each kind in a tick.
      largest: static bound of all durations.
    """
    ticks = jnp.arange(1, largest + 1, dtype=jnp.int32)[None, :]
    inside = ((ticks >= shortest[:, None]) & (ticks <= longest[:, None])).astype(jnp.float32)
    law = inside / jnp.sum(inside, axis=-1, keepdims=True)
    ticks = ticks.astype(jnp.float32)
    mean, weight = jnp.sum(law * ticks, axis=-1), jnp.sum(law / ticks, axis=-1)
    before = (mean[None, :] < mean[:, None]).astype(jnp.float32)
    return Moments(mean=mean, weight=weight, before=before, inflow=arrivals * weight)


def index(known: Moments, waiting: chex.Array, ticks_left: chex.Array, arrivals_left: chex.Array) -> chex.Array:
    """The index ``f32[M]`` of a job of each kind.

    Args:
      known: the kinds.
      waiting: ``i32[M]`` waiting jobs of each.
      ticks_left: ``i32[]`` until the end of the episode.
      arrivals_left: ``i32[]`` ticks in which jobs may still arrive, 0 or more.
    """
    meanwhile = jnp.minimum(known.mean, arrivals_left.astype(jnp.float32))
    blocked = known.before @ (known.weight * waiting.astype(jnp.float32)) + meanwhile * (known.before @ known.inflow)
    credit = jnp.sqrt(jnp.maximum(ticks_left.astype(jnp.float32) - known.mean, _TOO_LATE))
    return known.weight * credit / (known.mean * (blocked + _IDLE))
