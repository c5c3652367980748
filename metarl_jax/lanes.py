"""Several computations of one kind side by side in one program, spread over the devices.

Lanes are the members of a training run (seeds, and whatever numeric hyperparameters differ between them), or blocks of
an evaluation set. They never communicate. Small programs do not use two cores otherwise.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "lanes"


def lane_mesh(lanes: int) -> Mesh:
    """A mesh over as many devices as divide the number of lanes."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if lanes % n == 0)
    return Mesh(np.array(devices[:count]), (AXIS,))


@functools.cache
def over_lanes(function: Callable[..., Any], lanes: int, donate: tuple[int, ...] = (), shared: int = 0) -> Any:
    """Jits ``function`` with a leading axis of lanes on its arguments and results, sharded over devices.

    Within a device, lanes are vmapped on an accelerator and mapped one after another on a CPU, where a batched matrix
    product of small matrices is slower than several plain ones. Cached: equal functions share programs. Arguments are
    to be given as :func:`place` puts them: one that lies elsewhere would be compiled for anew.

    Args:
      function: of one lane.
      lanes: L.
      donate: positions of arguments whose buffers may be reused.
      shared: how many of the last arguments are the same for all lanes and have no such axis.
    """
    mesh = lane_mesh(lanes)
    each, same = PartitionSpec(AXIS), PartitionSpec()

    def local(*arguments: Any) -> Any:
        own = arguments[: len(arguments) - shared]
        common = arguments[len(arguments) - shared :]
        if jax.tree.leaves(own)[0].shape[0] == 1:  # a loop of one would copy all that it carries
            alone = jax.tree.map(lambda leaf: leaf[0], own)
            return jax.tree.map(lambda leaf: leaf[None], function(*alone, *common))
        if jax.default_backend() == "cpu":
            return jax.lax.map(lambda one: function(*one, *common), own)
        return jax.vmap(lambda *one: function(*one, *common))(*own)

    def sharded(*arguments: Any) -> Any:
        specs = (each,) * (len(arguments) - shared) + (same,) * shared
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False)(*arguments)

    return jax.jit(sharded, donate_argnums=donate, out_shardings=NamedSharding(mesh, each))


def place(tree: Any, lanes: int) -> Any:
    """Puts a pytree with leading axis L on the devices as :func:`over_lanes` wants it."""
    return jax.device_put(tree, NamedSharding(lane_mesh(lanes), PartitionSpec(AXIS)))


def release_memory() -> None:
    """Gives memory that compiling has freed back to the system: glibc would keep a gigabyte of it for itself."""
    libc = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(libc), "malloc_trim", None) if libc else None
    if trim is not None:
        trim(0)
