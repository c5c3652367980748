"""Several computations of one kind side by side in one program, spread over the devices.

Replicas are the members of a training run (seeds, and whatever numeric hyperparameters differ between them), or blocks
of an evaluation set. They never communicate. Small programs do not use two cores otherwise.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "replicas"

_MOVING = threading.Lock()
"""JAX fills an array's list of buffers when it is first moved, and twice if two threads move it at once."""


def replica_mesh(replicas: int) -> Mesh:
    """A mesh over as many devices as divide the number of replicas."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if replicas % n == 0)
    return Mesh(np.array(devices[:count]), (AXIS,))


def map_replicas(function: Callable[..., Any], replicas: int, donate: tuple[int, ...] = (), shared: int = 0) -> Any:
    """Jits ``function`` with a leading axis of replicas on its arguments and results, sharded over devices.

    Within a device, replicas are vmapped on an accelerator and mapped one after another on a CPU, where a batched
    matrix product of small matrices is slower than several plain ones. Arguments are to be given as :func:`place` puts
    them: one that lies elsewhere would be compiled for anew.

    Args:
      function: of one replica.
      replicas: R.
      donate: positions of arguments whose buffers may be reused.
      shared: how many of the last arguments are the same for all replicas and have no such axis.
    """
    mesh = replica_mesh(replicas)
    each, same = PartitionSpec(AXIS), PartitionSpec()

    def local(*arguments: Any) -> Any:
        own = arguments[: len(arguments) - shared]
        common = arguments[len(arguments) - shared :]
        if jax.tree.leaves(own)[0].shape[0] == 1:  # lax.map over one element still copies its carry
            alone = jax.tree.map(lambda leaf: leaf[0], own)
            return jax.tree.map(lambda leaf: leaf[None], function(*alone, *common))
        if jax.default_backend() == "cpu":
            return jax.lax.map(lambda one: function(*one, *common), own)
        return jax.vmap(lambda *one: function(*one, *common))(*own)

    def sharded(*arguments: Any) -> Any:
        specs = (each,) * (len(arguments) - shared) + (same,) * shared
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False)(*arguments)

    return jax.jit(sharded, donate_argnums=donate, out_shardings=NamedSharding(mesh, each))


def place(tree: Any, replicas: int) -> Any:
    """Puts a pytree with leading axis R on the devices as :func:`map_replicas` wants it. One thread at a time moves."""
    with _MOVING:
        return jax.device_put(tree, NamedSharding(replica_mesh(replicas), PartitionSpec(AXIS)))


def release_memory() -> None:
    """Gives memory that compiling has freed back to the system: glibc would keep a gigabyte of it for itself."""
    libc = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(libc), "malloc_trim", None) if libc else None
    if trim is not None:
        trim(0)
