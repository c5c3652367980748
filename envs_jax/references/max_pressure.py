"""Signal control by pressure, with hysteresis and look-ahead for the time that a switch loses.

Max-pressure (Varaiya 2013) gives green to the phase with the largest ``sum_m s_m w_m`` over its movements, ``w_m`` the
value of the queue less the mean value of the queues its vehicles join next. It keeps every demand stable that any
control can, knowing no demand, *if switching costs nothing*; where a switch loses time it can fail. Two remedies:

* hysteresis: the green phase is kept until another one's index is more than ``1 + h`` times its own;
* look-ahead: the index is the best mean value over ``n`` slots of what would pass in them, set-up time deducted,
  ``max_n (1/n) sum_m w_m min(x_m, s_m (n - delay))``, as index rules for queues with set-up times have it.

The value of a queue of ``x`` vehicles with ``o`` persons each is ``o x^a``: ``a = 1`` is max-pressure's (weighted by
occupancy), ``a = 0`` counts persons moved.

Sources: P. Varaiya, Transportation Research C 36, 2013; T. Ahmed, H. Liu, V. V. Gayah, arXiv 2406.19269 (weights,
abstract read); I. Duenyas, M. P. Van Oyen, Management Science 42(6), 1996 (set-ups). Recalled where not said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax.numpy as jnp
from flax import struct

HORIZONS = (1, 2, 3, 4, 6)
"""Slots ``n`` over which the look-ahead index is maximised."""


@struct.dataclass
class Rule:
    """One rule of the family. Leaves ``f32[]``, or with leading axes for several rules.

    Attributes:
      exponent: ``a`` of the value ``o x^a`` of a queue.
      downstream: share of the next queues' value that is deducted; 1 in max-pressure.
      hysteresis: ``h``.
      look_ahead: 1 for the look-ahead index, 0 for the pressure ``sum s w``.
      fixed: 1 for the fixed-time plan; the rest is then unused.
    """

    exponent: chex.Array
    downstream: chex.Array
    hysteresis: chex.Array
    look_ahead: chex.Array
    fixed: chex.Array


def rules(*rows: tuple[float, float, float, float, float]) -> Rule:
    """Several rules from rows in the order of the fields, stacked ``f32[rows]``."""
    return Rule(*jnp.asarray(rows, jnp.float32).T)


def value(queue: chex.Array, occupancy: chex.Numeric, exponent: chex.Numeric) -> chex.Array:
    """``o x^a`` elementwise [persons x vehicles^(a-1)], with ``0^0 = 1``."""
    return occupancy * jnp.where(exponent == 0, 1.0, jnp.maximum(queue, 0.0) ** exponent)


def passing(queue: chex.Array, saturation: chex.Numeric, delay: chex.Array, slots: float) -> chex.Array:
    """Vehicles per slot that pass in ``slots`` slots of green, the first ``delay`` of them lost; elementwise."""
    return jnp.minimum(queue, saturation * jnp.maximum(slots - delay, 0.0)) / slots


def index(
    rule: Rule,
    weight: chex.Array,
    queue: chex.Array,
    saturation: chex.Numeric,
    delay: chex.Array,
    by_phase: Callable[[chex.Array], chex.Array],
) -> chex.Array:
    """A rule's index of every phase.

    Args:
      rule: which one.
      weight: ``w`` of every movement, in any shape.
      queue: vehicles waiting, likewise.
      saturation: vehicles per slot of green.
      delay: slots lost before the movement's phase discharges: 0 if it is green.
      by_phase: adds up the movements of each phase.
    """
    best = [by_phase(weight * passing(queue, saturation, delay, slots)) for slots in HORIZONS]
    return jnp.where(rule.look_ahead > 0, jnp.stack(best).max(axis=0), by_phase(weight * saturation))


def hold_or_switch(index: chex.Array, green: chex.Array, hysteresis: chex.Numeric) -> chex.Array:
    """The phase of largest ``index f32[..., P]`` if it is more than ``1 + h`` times that of ``green i32[...]``."""
    own = jnp.take_along_axis(index, green[..., None], axis=-1)[..., 0]
    switch = index.max(axis=-1) > (1.0 + hysteresis) * own
    return jnp.where(switch, index.argmax(axis=-1).astype(jnp.int32), green).astype(jnp.int32)
