"""The registry of domains: one file a domain, one line in ``names.py``. Modules load on first use."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable

import gymnax
import numpy as np

from envs_jax import checks
from envs_jax.data import readers
from envs_jax.domains.names import DOMAINS
from envs_jax.environment import EnvParams, ResourceEnv

_registered: dict[str, Callable[..., ResourceEnv]] = {}
"""Domains of other packages."""


def registered() -> tuple[str, ...]:
    """Names of all domains, in the order in which suites list them; those of other packages last."""
    return (*DOMAINS, *_registered)


def register(name: str, factory: Callable[..., ResourceEnv]) -> None:
    """Makes a domain of another package known to :func:`make`, to suites and to ``gymnax.make``, in this process.

    Args:
      name: a new name; the domain's own ``name``.
      factory: the domain's class, or a function of its constructor arguments.

    Raises:
      ValueError: if a domain or a gymnax environment has that name.
    """
    if name in registered():
        raise ValueError(f"a domain {name!r} is registered already")
    gymnax.register(name, functools.partial(_construct, name))
    _registered[name] = factory


def _construct(name: str, **static: object) -> ResourceEnv:
    names = registered()
    if not isinstance(name, str) or name not in names:
        raise ValueError(
            f"unknown domain {checks.shown(name)}; registered: {', '.join(names)}{checks.near(name, names)}"
        )
    if name in _registered:
        domain: Callable[..., ResourceEnv] = _registered[name]
    else:
        domain = getattr(importlib.import_module(f"envs_jax.domains.{name}"), DOMAINS[name])
    checks.known(name, static, inspect.signature(domain).parameters)
    plain = {field: _plain(value) for field, value in static.items()}
    files = [field for field in getattr(domain, "data_files", ()) if field in plain]
    plain |= {field: readers.path_of(plain[field]) for field in files}
    try:
        hash(tuple(plain.values()))
    except TypeError:  # nothing that a constructor takes: let it say so
        return domain(**static)
    # A file that has changed since is another instance.
    return _instance(domain, tuple(readers.digest(plain[field]) for field in files), **plain)


# gymnax jits ``step`` on the environment's identity: one instance per (class, shapes) means one trace. ``typed``, or
# 4.0 and True would find what 4 and 1 have made before the constructor could refuse them.
@functools.lru_cache(maxsize=None, typed=True)
def _instance(domain: Callable[..., ResourceEnv], digests: tuple[str | None, ...], /, **static: object) -> ResourceEnv:
    del digests
    return domain(**static)


def _plain(value: object) -> object:
    """Lists and NumPy's values as hashable Python ones, so that equal arguments find the same instance."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def make(name: str, **static: object) -> tuple[ResourceEnv, EnvParams]:
    """Builds a domain and its faithful default task.

    Args:
      name: one of :func:`registered`.
      **static: the domain's constructor arguments (shapes, paths of one's own files: docs/own_data.md); the same
        arguments, and files of the same content, return the same instance.

    Raises:
      ValueError: if no domain has that name, the domain has no such argument, or it does not take that value.
    """
    env = _construct(name, **static)
    return env, env.default_params


def _register_with_gymnax() -> None:
    for name in DOMAINS:
        if name not in gymnax.registered_envs:
            gymnax.register(name, functools.partial(_construct, name))


_register_with_gymnax()
