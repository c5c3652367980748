"""Independent NumPy models of the domains, written from their equations, one file a domain.

Every file has a ``LoopModel`` and a ``BatchModel`` by the protocols of :mod:`envs_jax.testing.numpy_model`. They are
what the environments are tested against and, under :mod:`benchmarks.speed.throughput`, timed against.
"""

from __future__ import annotations

import importlib
import importlib.util

from envs_jax.testing.numpy_model import BatchModel, LoopModel


def has_models(name: str) -> bool:
    """Whether the domain of this name has NumPy models."""
    return importlib.util.find_spec(f"{__name__}.{name}") is not None


def models(name: str) -> tuple[type[LoopModel], type[BatchModel]]:
    """The ``LoopModel`` and the ``BatchModel`` of a domain.

    Raises:
      ModuleNotFoundError: if it has none.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    return module.LoopModel, module.BatchModel
