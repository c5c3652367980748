"""Max-weight scheduling of constrained queues: activate the set of queues with the largest sum of weights.

A *menu* lists the sets of queues that may be served at the same time. Serving the set with the largest sum of queue
lengths (times service rates) stabilises the queues whenever that is possible at all. Longest-queue-first, priority
rules and the matching of an input-queued switch are special cases.

Source: L. Tassiulas, A. Ephremides, "Stability properties of constrained queueing systems and scheduling policies for
maximum throughput in multihop radio networks", IEEE Transactions on Automatic Control 37(12), 1992 (recalled, not
re-read).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import chex
import jax.numpy as jnp
import numpy as np


def crossbar(ports: int) -> tuple[tuple[int, ...], ...]:
    """Activations of an input-queued switch: its ``ports!`` matchings, in the order of ``itertools.permutations``.

    Queue ``i * ports + j`` holds what goes from input i to output j.
    """
    return tuple(
        tuple(i * ports + j for i, j in enumerate(matching)) for matching in itertools.permutations(range(ports))
    )


def menu(activations: Sequence[Sequence[int]], num_queues: int) -> np.ndarray:
    """Sets of queues as the rows of a ``bool[len(activations), num_queues]``.

    Raises:
      ValueError: for an empty set, a queue that is named twice in one, or one that does not exist.
    """
    table = np.zeros((len(activations), num_queues), bool)
    for row, queues in zip(table, activations, strict=True):
        if not queues or len(set(queues)) < len(queues) or not all(0 <= k < num_queues for k in queues):
            raise ValueError(f"activations has {queues!r}: must be distinct queues from 0 to {num_queues - 1}")
        row[list(queues)] = True
    return table


def sums(menu: np.ndarray, value: chex.Array) -> chex.Array:
    """Sum of ``value [K]`` over the queues of each row of ``menu bool[M, K]``: ``[M]``."""
    if np.array_equal(menu, np.eye(len(menu))):
        return value  # one queue a row, in order: nothing to add up
    return jnp.sum(jnp.where(menu, value, 0), axis=-1)


def best(menu: np.ndarray, weight: chex.Array, ready: chex.Array) -> chex.Array:
    """Row ``i32[]`` of ``menu bool[M, K]`` with the largest sum of positive ``weight f32[K]`` over ``ready bool[K]``.

    The first of equals; ``M`` if no queue of any row is ready.
    """
    total = sums(menu, jnp.where(ready, weight, 0.0))
    return jnp.where(jnp.any(total > 0), jnp.argmax(total).astype(jnp.int32), menu.shape[0]).astype(jnp.int32)
