"""A bed manager who learns within the episode what placements cost, and tries those that promise something.

Charges are exact: what a ward was charged for its patients of another class in the last epoch, per patient, is the cost
b of that pair of class and ward from then on. Arrivals and stays are believed to be the average ones, which is nearly
as good as knowing them; the values V of the wards as separate pools (:mod:`envs_jax.references.bed_pools`) then depend
on the beds alone, up to the holding cost, and are tabulated once. A choice is valued as the reference values it, with
``assumed`` for a cost b not known yet, less what it is worth to learn it,

    curiosity (1 - progress) E max(saved - b, 0),    saved = V_j(n_j) - V_j(n_j - 1) - burden (V_w(n_w + 1) - V_w(n_w)),

b log-uniform over its range: what a patient could be placed for with a gain, as often as ``curiosity`` says.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.references import bed_pools

TABULATED_DAYS = 4
"""What is further away than this does not enter the values."""


class Rule(NamedTuple):
    """Constants.

    assumed: cost of a placement that was never made [cost units].
    curiosity: times that a cheap pair will be used again, at the start of an episode.
    saving: scale of the pools' values.
    burden: how much longer a patient is believed to stay in another ward than its own patients.
    """

    assumed: float
    curiosity: float
    saving: float
    burden: float


class Memory(NamedTuple):
    """Of an episode.

    overflow: ``f32[W, W]`` b, class by ward, 0 where it is not known [cost units].
    known: ``bool[W, W]`` where it is.
    placed: ``i32[W]`` class that each ward took in this epoch so far, -1 for none.
    """

    overflow: chex.Array
    known: chex.Array
    placed: chex.Array


def start(num_wards: int) -> Memory:
    """Nothing is known."""
    pairs = (num_wards, num_wards)
    return Memory(jnp.zeros(pairs, jnp.float32), jnp.zeros(pairs, bool), jnp.full((num_wards,), -1, jnp.int32))


def epoch_seen(memory: Memory, charged: chex.Array) -> Memory:
    """What is known at the beginning of an epoch, ``charged f32[W]`` a patient by each ward for the last one."""
    wards = jnp.arange(memory.placed.shape[0], dtype=jnp.int32)
    used = memory.placed[None, :] == wards[:, None]
    overflow = jnp.where(used, charged[None, :], memory.overflow)
    return Memory(overflow, memory.known | used, jnp.full_like(memory.placed, -1))


def placed(memory: Memory, turn: chex.Array, patients: chex.Array) -> Memory:
    """After ward ``turn`` has taken patients of a class, or -1."""
    here = jnp.arange(memory.placed.shape[0], dtype=jnp.int32) == turn
    return memory._replace(placed=jnp.where(here, patients, memory.placed))


def pool_values(
    load: float, stay: float, profiles: tuple[np.ndarray, np.ndarray], num_days: int, size: int, max_beds: int
) -> np.ndarray:
    """Values ``f32[T, max_beds, size]`` of pools of 1..max_beds beds, T epochs before the end, holding cost 1.

    Args:
      load: arrivals over what the beds can discharge.
      stay: mean stay [days].
      profiles: of discharges and arrivals, ``f32[E]`` each.
      num_days: of an episode; at most :data:`TABULATED_DAYS` are tabulated.
      size: censuses.
      max_beds: most beds.
    """
    discharge, arrive = (np.asarray(profile, np.float32) for profile in profiles)
    beds = np.arange(1, max_beds + 1, dtype=np.int32)
    chance = np.repeat(np.minimum(discharge / stay, 1.0)[:, None], max_beds, axis=1)
    arrivals = (arrive[:, None] * load * beds / stay).astype(np.float32)
    with jax.ensure_compile_time_eval():
        leaves = (beds, chance.astype(np.float32), arrivals, np.ones(max_beds, np.float32))
        pools = bed_pools.Pools(*(jnp.asarray(leaf) for leaf in leaves))
        periods = min(num_days, TABULATED_DAYS) * len(discharge)
        return np.asarray(bed_pools.values(pools, periods, size, max_beds))


def value_now(table: np.ndarray, period: chex.Array, num_periods: int, epochs: int, beds: chex.Array) -> chex.Array:
    """Values ``f32[W, size]`` in a period ``i32[]`` for ``beds i32[W]``, from :func:`pool_values`."""
    left = num_periods - period
    row = jnp.where(left > len(table), period % epochs, len(table) - left)
    return jnp.asarray(table)[jnp.clip(row, 0, len(table) - 1), jnp.clip(beds, 1, table.shape[1]) - 1]


def chance_of_gain(saved: chex.Array, limits: tuple[float, float]) -> chex.Array:
    """``E max(saved - b, 0)`` for b log-uniform between ``limits``, elementwise."""
    low, high = limits
    width = math.log(high / low)
    inside = jnp.clip(saved, low, high)
    return (inside * jnp.log(inside / low) - (inside - low)) / width + jnp.maximum(saved - high, 0.0)


def choice(
    rule: Rule,
    memory: Memory,
    value: chex.Array,
    world: tuple[chex.Array, chex.Array, chex.Array, chex.Array],
    legal: chex.Array,
    left: chex.Array,
    choices: tuple[chex.Array, chex.Array],
    limits: tuple[float, float],
    moves: int,
) -> chex.Array:
    """The choice ``i32[]`` of the ward in turn.

    Args:
      rule: constants.
      memory: what is known.
      value: ``f32[W, size]`` of the pools.
      world: turn ``i32[]``, waiting patients ``i32[W]``, free beds of later wards ``i32[W]``, censuses ``i32[W]``.
      legal: ``bool[A]``.
      left: ``f32[]`` share of the episode that is left.
      choices: class and number of patients of each choice, ``i32[A]``.
      limits: range of b.
      moves: see :func:`envs_jax.references.bed_pools.placement_costs`.
    """
    (turn, waiting, later, census), (sender, size) = world, choices
    value = rule.saving * value
    own = jnp.eye(waiting.shape[0], dtype=bool)
    burden = jnp.where(own, 1.0, rule.burden)
    overflow = jnp.where(own, 0.0, jnp.where(memory.known, memory.overflow, rule.assumed))
    cost = bed_pools.placement_costs(value, waiting, later, census, overflow, burden, (sender, turn, size), moves)
    saved = -bed_pools.gains(value, census, jnp.zeros_like(overflow), burden)
    lesson = jnp.where(memory.known, 0.0, rule.curiosity * left * chance_of_gain(saved, limits))
    cost -= jnp.where(size > 0, lesson[sender, turn], 0.0)
    trial = ~memory.known[sender, turn] & (size > 1)  # one patient tells as much as four
    return jnp.argmin(jnp.where(legal & ~trial, cost, jnp.inf)).astype(jnp.int32)
