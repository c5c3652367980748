"""What JAX's strict modes ask of a program: that broadcasting is said, and loops under ``shard_map`` keep their types.

Inside ``jax.shard_map`` JAX types every array by the mesh axes over which it varies, and asks that the carry of a loop
and the branches of a condition keep their types. A loop that starts from constants and fills them with a device's own
values does not: :func:`vary_like` marks its start as what it is about to become. Elsewhere it changes nothing.
"""

from __future__ import annotations

from typing import TypeVar

import chex
import jax
import jax.numpy as jnp

TreeT = TypeVar("TreeT")


def aligned(*arrays: chex.Array) -> tuple[chex.Array, ...]:
    """Arrays of one rank, by leading axes of length 1, for functions whose leading axes broadcast.

    What ``jax_numpy_rank_promotion="raise"`` asks to be said.
    """
    rank = max(map(jnp.ndim, arrays))
    return tuple(jnp.expand_dims(x, range(rank - jnp.ndim(x))) for x in arrays)


def vary_like(tree: TreeT, *like: chex.ArrayTree) -> TreeT:
    """``tree``, each leaf typed as varying over all mesh axes over which any leaf of ``like`` varies."""
    axes = frozenset[str]().union(*(_axes(leaf) for leaf in jax.tree.leaves(like)))
    return jax.tree.map(lambda leaf: _cast(leaf, axes), tree) if axes else tree


def _axes(leaf: chex.Numeric) -> frozenset[str]:
    kind = jax.typeof(leaf)
    # JAX 0.10 on; up to 0.9 the set itself, and a type without either (a Python number's) varies over nothing.
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else getattr(kind, "vma", frozenset())


def _cast(leaf: chex.Array, axes: frozenset[str]) -> chex.Array:
    missing = tuple(sorted(axes - _axes(leaf)))
    if not missing:
        return leaf
    # The older name of the same operation, up to JAX 0.8.
    return jax.lax.pcast(leaf, missing, to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(leaf, missing)
