"""Rollout by enumeration, the action axis over devices.

The costs of all ``A`` joint flows in a state are shared out over ``H`` devices: the list of flows is padded to a
multiple of ``H``, every device weighs ``A / H`` of them, ``all_gather`` puts the costs together on every device, and
every device takes the smallest, the first among ties. So the policy is the same on all of them, and, because no number
is summed across devices, the same bit for bit for every ``H``.

Enumeration visits ``|X| A`` pairs and is here to show that, and to weigh flows by sampled next states.
:func:`envs_jax.references.warehouse.improve` finds the same minimum in ``n (cap + 1) |X|`` operations. Devices that are
threads of one CPU (``jax_num_cpu_devices``) show that the result is right, not that it is fast.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from envs_jax.games import warehouse as model
from envs_jax.games.warehouse import Warehouse
from envs_jax.references import warehouse as exact

AXIS = "actions"

BLOCK_BYTES = 64 * 2**20
"""Memory for the costs of a block of states [bytes]."""


class Speedup(NamedTuple):
    """What ``H`` devices gain: ``S_H = T_1 / T_H`` and the efficiency ``S_H / H``.

    Attributes:
      devices: ``H``.
      seconds: ``T_H``.
      speedup: ``S_H``.
      efficiency: ``S_H / H``.
      gathered_bytes: what each device receives from the others.
    """

    devices: int
    seconds: float
    speedup: float
    efficiency: float
    gathered_bytes: int


def check_devices(count: int) -> None:
    """Raises ``ValueError`` if there are fewer than ``count`` devices."""
    available = len(jax.devices())
    if not 1 <= count <= available:
        raise ValueError(
            f"devices = {count}: 1 to {available} are there (on a CPU, set jax_num_cpu_devices before JAX starts)"
        )


def padded_count(num_actions: int, devices: int) -> int:
    """The number of joint flows after padding: the next multiple of ``devices``."""
    return -(-num_actions // devices) * devices


def gathered_bytes(warehouse: Warehouse, devices: int) -> int:
    """What each device receives in one improvement [bytes]: the costs that the others computed."""
    actions = padded_count(len(model.joint_flows(warehouse)), devices)
    return 8 * warehouse.num_states * (actions - actions // devices)


def improve(
    warehouse: Warehouse, potentials: np.ndarray, *, devices: int = 0, samples: int = 0, key: chex.PRNGKey | None = None
) -> np.ndarray:
    """The flows ``i8[n, |X|]`` that minimise ``f(x, a) + E g(x')``, by enumeration of all joint flows.

    Args:
      warehouse: the model.
      potentials: ``f64[|X|]``.
      devices: over how many devices to share the joint flows; 0 for a serial program without a mesh.
      samples: 0 for the expectation under the model, else the mean over so many next states drawn for every pair.
      key: for the samples; pair ``(x, a)`` draws from the key folded with both indices, whatever the device.

    Raises:
      ValueError: more devices than there are; samples without a key.
    """
    if devices:
        check_devices(devices)
    if samples and key is None:
        raise ValueError(f"samples = {samples}: sampled next states need a key")
    flows = model.joint_flows(warehouse)
    count = padded_count(len(flows), max(devices, 1))
    listed = np.concatenate([flows, np.full((count - len(flows), flows.shape[1]), -1, flows.dtype)])
    block = int(np.clip(BLOCK_BYTES // (8 * count * (1 + samples)), 1, warehouse.num_states))
    stock = model.states(warehouse)
    blocks = -(-len(stock) // block)
    stock = np.concatenate([stock, np.repeat(stock[:1], blocks * block - len(stock), axis=0)])
    law, cost = model.tables(warehouse)
    with jax.enable_x64(True):
        if samples:
            worth = exact.padded(warehouse, potentials)
        else:
            worth = exact.padded(warehouse, exact.lookahead(warehouse, potentials))
        step = functools.partial(
            _choose, warehouse=warehouse, samples=samples, block=block, axis=AXIS if devices else None
        )
        if devices:
            mesh = Mesh(np.asarray(jax.devices()[:devices]), (AXIS,))
            whole, shared = PartitionSpec(), PartitionSpec(AXIS)
            specs = (shared, shared, whole, whole, whole, whole, whole)
            step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)
        if key is None:
            key = jax.random.key(0)
        numbers = np.arange(count)
        best = jax.jit(step)(listed, numbers, stock.reshape(blocks, block, -1), worth, np.cumsum(law, -1), cost, key)
        chosen = np.asarray(best).reshape(-1)[: warehouse.num_states]
    return listed[chosen].T.astype(exact.flow_dtype(warehouse.side))


def _choose(
    flows: chex.Array,
    numbers: chex.Array,
    stock: chex.Array,
    worth: chex.Array,
    cdf: chex.Array,
    cost: chex.Array,
    key: chex.PRNGKey,
    *,
    warehouse: Warehouse,
    samples: int,
    block: int,
    axis: str | None,
) -> chex.Array:
    """The number of the best joint flow in every state ``i32[blocks, block]``, on one device.

    Args:
      flows: ``i32[A / H, n]`` this device's joint flows; -1 marks padding.
      numbers: ``i32[A / H]`` their numbers.
      stock: ``i32[blocks, block, n]``.
      worth: ``f64[side ** n]`` cost to come by ``y``, or the potentials by ``x'`` if sampled.
      cdf: ``f64[n, side, side]`` distribution functions of the next stock.
      cost: ``f64[n, side]`` holding and shortage by ``y``.
      key: for sampling.
      warehouse: the model (static).
      samples: next states a pair (static).
      block: states at a time (static).
      axis: the mesh axis, or None (static).
    """
    caps = jnp.asarray(warehouse.caps)
    strides = jnp.asarray(model.strides(warehouse))
    paid = flows @ jnp.asarray(warehouse.unit_cost) + (flows > 0) @ jnp.asarray(warehouse.order_cost)
    level = jnp.arange(warehouse.num_levels)

    def one(own: tuple[chex.Array, chex.Array]) -> chex.Array:
        stock, first = own  # [block, n]
        y = stock[:, None] + flows[None]
        feasible = (flows >= 0).all(-1)[None] & jnp.ones(stock.shape[:1], bool)[:, None]
        if warehouse.is_chain:
            y = y.at[..., :-1].add(-flows[None, :, 1:])
            feasible &= (flows[None, :, 1:] <= stock[:, None, :-1]).all(-1)
        feasible &= (y <= caps).all(-1)
        y = jnp.clip(y, 0, caps)
        if samples:

            def pair(x: chex.Array, number: chex.Array, y: chex.Array) -> chex.Array:
                own_key = jax.random.fold_in(jax.random.fold_in(key, x), number)
                uniform = jax.random.uniform(own_key, (samples, warehouse.num_levels), jnp.float32)
                after = jnp.sum(uniform[..., None] > cdf[level, y], axis=-1)
                return jnp.mean(worth[jnp.minimum(after, y) @ strides])

            here = first + jnp.arange(block)
            coming = jax.vmap(jax.vmap(pair, (None, 0, 0)), (0, None, 0))(here, numbers, y)
            coming += cost[level, y].sum(-1)
        else:
            coming = worth[y @ strides]
        costs = jnp.where(feasible, paid + coming, jnp.inf)
        if axis is not None:
            costs = jax.lax.all_gather(costs, axis, axis=1, tiled=True)
        # The first of those that are as cheap as the cheapest but for rounding.
        return jnp.argmax(costs <= costs.min(1, keepdims=True) + exact.TIE, axis=1).astype(jnp.int32)

    return jax.lax.map(one, (stock, jnp.arange(stock.shape[0]) * block))
