"""Wards as separate pools: periodic census chains, their values, and what moving a patient between them is worth.

A *pool* is a ward with its own class of patients. Its census ``n`` counts the ward's occupied beds and the waiting
patients of its class. As long as nobody is moved and no bed stays empty while own patients wait, ``min(n, N)`` beds are
occupied and

    n' = n - Bin(min(n, N), p_t) + Poisson(a_t)

is a Markov chain of its own (with one step a day: the midnight census), with a cost to go ``V_t(n)`` that is exact for
the policy that moves nobody. Moving a patient of class j into ward w changes the sum of these costs by

    b_jw + V_j(n_j - 1) - V_j(n_j) + burden_jw (V_w(n_w + 1) - V_w(n_w)),

and moving where that is negative is one step of policy improvement. ``burden`` is how much longer the patient stays
than the ward's own: the one thing that a census does not know of a patient, kept to first order.

Sources: policy improvement from separate queues is classical in routing (T. J. Ott and K. R. Krishnan, 1985;
recalled). Values of single pools as features of a learned value function: J. Sun, P. Shi, J. G. Dai, arXiv 2410.13767
(abstract read).
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.arrays import vary_like


@struct.dataclass
class Pools:
    """W wards with their classes; one day of E epochs.

    Attributes:
      beds: ``i32[W]`` N.
      discharge: ``f32[E, W]`` p, chance that a patient in the ward leaves at the start of an epoch.
      arrivals: ``f32[E, W]`` a, mean arrivals of the class at the start of an epoch [patients].
      holding: ``f32[W]`` cost of a waiting patient per epoch.
    """

    beds: chex.Array
    discharge: chex.Array
    arrivals: chex.Array
    holding: chex.Array


def census_transition(
    beds: chex.Numeric, discharge: chex.Numeric, arrivals: chex.Numeric, size: int, max_beds: int
) -> chex.Array:
    """``[size, size]``: law of the next census from each of ``0..size-1``; the last state absorbs what is beyond.

    The law has the precision of its two rates. Those of a task are float32 in every mode of JAX, and their law with
    them; with numbers in float64 under ``jax.enable_x64`` its rows sum to 1 to 1e-12.

    Args:
      beds: N, at most ``max_beds``.
      discharge: p, in [0, 1], a floating-point number.
      arrivals: a [patients], of the same type.
      size: censuses (static).
      max_beds: most patients that can leave at once (static).
    """
    census = jnp.arange(size, dtype=jnp.int32)
    difference = census[:, None] - census[None, :]  # of the row's and the column's
    present = jnp.minimum(census, jnp.minimum(beds, max_beds))
    lgamma, xlogy, xlog1py = (getattr(jax.scipy.special, name) for name in ("gammaln", "xlogy", "xlog1py"))

    def law(k: chex.Array, possible: chex.Array, logarithm: Callable[[chex.Array], chex.Array]) -> chex.Array:
        return jnp.where(possible, jnp.exp(logarithm(jnp.where(possible, k, 0).astype(arrivals.dtype))), 0.0)

    discharge, arrivals = jnp.asarray(discharge), jnp.asarray(arrivals)
    n = present[:, None].astype(arrivals.dtype)
    stay = law(
        difference,
        (difference >= 0) & (difference <= present[:, None]),
        lambda d: (
            lgamma(n + 1.0)
            - lgamma(d + 1.0)
            - lgamma(n - d + 1.0)
            + xlogy(d, discharge)
            + xlog1py(n - d, -jnp.minimum(discharge, 1.0 - 1e-6))
        ),
    )
    come = law(-difference, difference <= 0, lambda a: xlogy(a, arrivals) - arrivals - lgamma(a + 1.0))
    come = come.at[:, -1].add(1.0 - come.sum(-1))
    return stay @ come


def values(pools: Pools, num_periods: int, size: int, max_beds: int) -> chex.Array:
    """Cost to go ``f32[P, W, size]`` of each pool from its census before the decisions of a period, nobody ever moved.

    Args:
      pools: the task.
      num_periods: P; period t is epoch ``t % E`` and starts after that epoch's discharges and arrivals.
      size: censuses (static); more than the largest that matters.
      max_beds: most beds of a ward (static).
    """
    epochs, _ = pools.discharge.shape
    over_wards = jax.vmap(census_transition, in_axes=(0, 0, 0, None, None))
    table = jax.vmap(over_wards, in_axes=(None, 0, 0, None, None))(
        pools.beds, pools.discharge, pools.arrivals, size, max_beds
    )
    waiting = jnp.maximum(jnp.arange(size, dtype=jnp.int32)[None, :] - pools.beds[:, None], 0).astype(jnp.float32)

    def backward(value: chex.Array, period: chex.Array) -> tuple[chex.Array, chex.Array]:
        value = pools.holding[:, None] * waiting + jnp.einsum("wnm,wm->wn", table[(period + 1) % epochs], value)
        return value, value

    end = vary_like(jnp.zeros_like(waiting), pools)
    _, value = jax.lax.scan(backward, end, jnp.arange(num_periods, dtype=jnp.int32), reverse=True)
    return value


def gains(value: chex.Array, census: chex.Array, overflow: chex.Array, burden: chex.Array) -> chex.Array:
    """Change of cost ``f32[W, W]`` by moving one patient of class j into ward w, on values ``f32[W, size]``."""
    # Beyond the last census the value is that of the last; an index beyond it would read NaN.
    here, less, more = (
        jnp.take_along_axis(value, jnp.clip(census + change, 0, value.shape[1] - 1)[:, None], axis=1)[:, 0]
        for change in (0, -1, 1)
    )
    return overflow + (less - here)[:, None] + burden * (more - here)[None, :]


def completion(
    value: chex.Array,
    waiting: chex.Array,
    free: chex.Array,
    census: chex.Array,
    overflow: chex.Array,
    burden: chex.Array,
    moves: int,
) -> chex.Array:
    """Cost ``f32[]`` that the best single moves can still save (at most 0), one after another, ``moves`` at most.

    Args:
      value: ``f32[W, size]`` of the present period.
      waiting: ``i32[W]`` patients of each class.
      free: ``i32[W]`` beds that may still be given away.
      census: ``i32[W]``.
      overflow: ``f32[W, W]``.
      burden: ``f32[W, W]``.
      moves: static.
    """
    wards = waiting.shape[0]
    pairs = jnp.arange(wards * wards, dtype=jnp.int32).reshape(wards, wards)
    own = jnp.eye(wards, dtype=bool)

    def move(carry: tuple[chex.Array, ...], _: None) -> tuple[tuple[chex.Array, ...], chex.Array]:
        waiting, free, census = carry
        legal = (waiting > 0)[:, None] & (free > 0)[None, :] & ~own
        gain = jnp.where(legal, gains(value, census, overflow, burden), 0.0)
        best = jnp.min(gain)
        chosen = (pairs == jnp.argmin(gain).astype(jnp.int32)) & (best < 0.0)
        sent, received = chosen.sum(1, dtype=jnp.int32), chosen.sum(0, dtype=jnp.int32)
        return (waiting - sent, free - received, census - sent + received), best

    start = vary_like((waiting, free, census), value, waiting, free, census, overflow, burden)
    _, saved = jax.lax.scan(move, start, None, length=moves)
    return jnp.sum(saved)


def placement_costs(
    value: chex.Array,
    waiting: chex.Array,
    free: chex.Array,
    census: chex.Array,
    overflow: chex.Array,
    burden: chex.Array,
    choices: tuple[chex.Array, chex.Array, chex.Array],
    moves: int,
) -> chex.Array:
    """Change of cost ``f32[A]`` by each of A choices and the best single moves after it; arguments as above.

    Args:
      value: see :func:`completion`.
      waiting: likewise.
      free: beds that may still be given away *after* the choice.
      census: likewise.
      overflow: likewise.
      burden: likewise.
      choices: class ``i32[A]``, ward ``i32[]`` and number of patients ``i32[A]`` of each choice.
      moves: static.
    """
    sender, ward, size = choices
    wards = jnp.arange(waiting.shape[0], dtype=jnp.int32)
    before = value[wards, census]

    def one(patients: chex.Array, number: chex.Array) -> chex.Array:
        sent = number * (wards == patients).astype(jnp.int32)
        after = census - sent + number * (wards == ward).astype(jnp.int32)
        weight = jnp.where(wards == ward, burden[patients, ward], 1.0)
        moved = number.astype(jnp.float32) * overflow[patients, ward] + jnp.sum(weight * (value[wards, after] - before))
        return moved + completion(value, waiting - sent, free, after, overflow, burden, moves)

    return jax.vmap(one)(sender, size)


def index_choice(
    worth: chex.Array,
    waiting: chex.Array,
    cost: chex.Array,
    legal: chex.Array,
    room: chex.Numeric,
    sender: chex.Array,
    size: chex.Array,
) -> chex.Array:
    """The index rule's choice for one ward: ``i32[]``.

    A patient of class j is moved while ``worth_j Q_j >= cost_j``, Q_j counting itself, and ``room`` lasts; of classes
    the one whose first patient gains most.

    Args:
      worth: ``f32[W]`` of moving one patient, per patient waiting.
      waiting: ``i32[W]`` Q.
      cost: ``f32[W]``.
      legal: ``bool[A]`` choices.
      room: ``f32[]`` beds that may be given away.
      sender: ``i32[A]`` class of each choice.
      size: ``i32[A]`` patients of each choice, 0 for nobody.
    """
    first = (worth * waiting - cost)[sender]
    last = first - worth[sender] * (size - 1).astype(jnp.float32)
    wanted = legal & (size > 0) & (last >= 0.0) & (size.astype(jnp.float32) <= room + 1e-3)
    best = jnp.argmax(jnp.where(wanted, first + 1e-3 * size, -jnp.inf)).astype(jnp.int32)  # as many as may be
    return jnp.where(wanted.any(), best, jnp.argmin(size).astype(jnp.int32)).astype(jnp.int32)
