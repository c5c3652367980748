"""The compiled programs of a run, by what they do: an explicit object instead of caches on functions.

A program is asked for by a specification: a hashable value that says everything it depends on (domain, network, what is
kept, shapes). Equal specifications share one program, whoever asks; the identity of a function plays no part.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import jax

from metarl_jax.runtime.replicas import map_replicas


class Programs:
    """Programs over R replicas.

    Args:
      replicas: R, the leading axis of all arguments that are not shared.

    Attributes:
      built: how many programs were made, by kind.
    """

    def __init__(self, replicas: int):
        self.replicas = replicas
        self.built: Counter[str] = Counter()
        self._programs: dict[Hashable, Any] = {}
        self._compiled: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(
        self,
        kind: str,
        spec: Hashable,
        function: Callable[[], Callable[..., Any]],
        *,
        donate: tuple[int, ...] = (),
        shared: int = 0,
    ) -> Any:
        """The program of a specification, see :func:`~metarl_jax.runtime.replicas.map_replicas`.

        Args:
          kind: what sort of program; part of the specification.
          spec: everything else that it depends on.
          function: makes the function of one replica; called the first time only.
          donate: positions of arguments whose buffers may be reused.
          shared: how many of the last arguments are the same for all replicas.
        """
        with self._lock:
            if (kind, spec) not in self._programs:
                self.built[kind] += 1
                self._programs[kind, spec] = map_replicas(function(), self.replicas, donate, shared)
            return self._programs[kind, spec]

    def clear(self) -> None:
        """Lets go of all programs; whoever asks again gets them anew."""
        with self._lock:
            self._programs.clear()
            self._compiled.clear()

    def compiled(self, program: Any, *arguments: Any) -> Any:
        """A program of :meth:`get` compiled ahead for arguments of these shapes; once, whoever asks."""
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)) for x in leaves)
        key = (program, shapes, structure)
        if key not in self._compiled:
            self._compiled[key] = program.lower(*jax.tree.unflatten(structure, shapes)).compile()
        return self._compiled[key]
