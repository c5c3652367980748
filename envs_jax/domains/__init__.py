"""The registry of domains: one file a domain, one line in ``names.py``. Modules load on first use."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import gymnax

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


@functools.cache
def _construct(name: str, **static: object) -> ResourceEnv:
    # gymnax jits ``step`` on the environment's identity: one instance per (name, shapes) means one trace.
    if name in _registered:
        return _registered[name](**static)
    module = importlib.import_module(f"envs_jax.domains.{name}")
    return getattr(module, DOMAINS[name])(**static)


def make(name: str, **static: object) -> tuple[ResourceEnv, EnvParams]:
    """Builds a domain and its faithful default task.

    Args:
      name: one of :func:`registered`.
      **static: the domain's constructor arguments (shapes); the same arguments return the same instance.

    Raises:
      ValueError: if no domain has that name.
    """
    if name not in registered():
        raise ValueError(f"unknown domain {name!r}; registered: {', '.join(registered())}")
    env = _construct(name, **static)
    return env, env.default_params


def _register_with_gymnax() -> None:
    for name in DOMAINS:
        if name not in gymnax.registered_envs:
            gymnax.register(name, functools.partial(_construct, name))


_register_with_gymnax()
