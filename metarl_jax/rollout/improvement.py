"""Rollout of a team: what all agents do next, given the potentials of what they do now.

With ``W(y)`` = holding and shortage cost of stock ``y`` plus the potential of what demand leaves of it, a joint flow
``a`` at stock ``x`` costs ``sum_i c_i a_i + K_i 1[a_i > 0] + W(y(x, a))``. Two ways to choose it:

* :func:`joint`: the minimum over all joint flows, found by structure (:mod:`envs_jax.references.warehouse`).
* :func:`agent_by_agent`: the agents choose in turn, each knowing what those before it have chosen and holding the
  others to the present policy (D. P. Bertsekas, Multiagent reinforcement learning: rollout and policy iteration,
  IEEE/CAA J. Automatica Sinica 8(2), 2021; recalled). A state then costs a sum instead of a product of choices. With
  exact potentials gains never rise, but it may stop at a policy that no agent alone can improve: person-by-person
  optimal, not optimal.

Both resolve ties in favour of the smaller flow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.games.warehouse import Warehouse
from envs_jax.references import warehouse as exact

IMPROVEMENTS = ("joint", "agents")

Improvement = Callable[[Warehouse, np.ndarray, np.ndarray], np.ndarray]
"""``(warehouse, flows, potentials) -> flows``."""


def joint(warehouse: Warehouse, flows: np.ndarray, potentials: np.ndarray) -> np.ndarray:
    """The best joint flows ``i8[n, |X|]`` under ``potentials f64[|X|]``, whatever the present ones are."""
    del flows
    return exact.improve(warehouse, potentials)


@functools.partial(jax.jit, static_argnames=("side", "is_chain"))
def _in_turn(
    tables: exact.Tables,
    flows: chex.Array,
    potentials: chex.Array,
    turns: chex.Array,
    caps: chex.Array,
    side: int,
    is_chain: bool,
) -> chex.Array:
    """Padded tables throughout; entries that are no states get flows without meaning."""
    n, size = flows.shape
    worth = exact.expected(tables, potentials)
    state = jnp.arange(size)
    level = jnp.arange(n)
    stride = side ** (n - 1 - level)
    # What one unit of flow adds to the index of the stock after orders.
    gain = stride - jnp.where(is_chain & (level > 0), side * stride, 0)

    def turn(carry: tuple[chex.Array, chex.Array], i: chex.Array) -> tuple[tuple[chex.Array, chex.Array], None]:
        flows, after = carry
        present = flows[i].astype(jnp.int32)
        own = state // stride[i] % side
        least, most = jnp.zeros_like(present), caps[i] - own
        if is_chain:
            below, above = jnp.minimum(i + 1, n - 1), jnp.maximum(i - 1, 0)
            most = most + jnp.where(i + 1 < n, flows[below], 0)
            supplier = state // stride[above] % side
            most = jnp.where(i > 0, jnp.minimum(most, supplier), most)
            # What the supplier receives is held, so it must find room there.
            least = jnp.where(i > 0, jnp.maximum(supplier + flows[above] - caps[above], 0), least)

        def candidate(best: tuple[chex.Array, chex.Array], amount: chex.Array) -> tuple[tuple, None]:
            cost, choice = best
            index = jnp.clip(after + (amount - present) * gain[i], 0, size - 1)
            here = tables.unit[i] * amount + tables.order[i] * (amount > 0) + worth[index]
            better = (amount >= least) & (amount <= most) & (here < cost - exact.TIE)
            return (jnp.where(better, here, cost), jnp.where(better, amount, choice)), None

        start = (jnp.full(size, jnp.inf, worth.dtype), present)
        (_, choice), _ = jax.lax.scan(candidate, start, jnp.arange(side, dtype=jnp.int32))
        return (flows.at[i].set(choice.astype(flows.dtype)), after + (choice - present) * gain[i]), None

    after = state + jnp.sum(flows * gain[:, None], axis=0)
    return jax.lax.scan(turn, (flows, after), turns)[0][0]


def agent_by_agent(
    warehouse: Warehouse, flows: np.ndarray, potentials: np.ndarray, *, order: Sequence[int] | None = None
) -> np.ndarray:
    """One round of choices in turn, starting from the policy whose potentials these are.

    Args:
      warehouse: the model.
      flows: ``i8[n, |X|]`` the present policy.
      potentials: ``f64[|X|]`` its potentials.
      order: the levels (from 0) in the order of their turns; level 1 first if None.

    Returns:
      ``i8[n, |X|]``.
    """
    turns = check_order(warehouse, order)
    with jax.enable_x64(True):
        padded = exact.padded(warehouse, flows)
        better = _in_turn(
            exact.build(warehouse),
            padded,
            exact.padded(warehouse, potentials),
            np.asarray(turns),
            np.asarray(warehouse.caps),
            warehouse.side,
            warehouse.is_chain,
        )
        return exact.unpadded(warehouse, better)


def check_order(warehouse: Warehouse, order: Sequence[int] | None) -> tuple[int, ...]:
    """The order of turns, checked: a permutation of the levels ``0..n-1``."""
    levels = tuple(range(warehouse.num_levels))
    if order is None:
        return levels
    if tuple(sorted(order)) != levels:
        raise ValueError(f"order = {tuple(order)}: must name each of the levels {levels} once")
    return tuple(order)


def choices_per_state(warehouse: Warehouse, improvement: str) -> int:
    """Choices that enumeration would weigh in a state, at most: a product for ``joint``, a sum for ``agents``."""
    sizes = [cap + 1 for cap in warehouse.caps]
    return math.prod(sizes) if improvement == "joint" else sum(sizes)


def get(name: str, order: Sequence[int] | None = None) -> Improvement:
    """The improvement called ``joint`` or ``agents``.

    Raises:
      ValueError: for any other name. Agents of a chain who all chose at the same moment, each holding the others to
        what they do now, could take the same units twice; so there is no ``simultaneous``.
    """
    if name == "joint":
        return joint
    if name == "agents":
        return functools.partial(agent_by_agent, order=order)
    why = " (moves chosen at the same moment may be infeasible together)" if name == "simultaneous" else ""
    raise ValueError(f"improve = {name!r}: allowed are {', '.join(IMPROVEMENTS)}{why}")
