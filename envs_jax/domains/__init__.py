"""The registry of domains: one file a domain, one line in ``names.py``. Modules load on first use."""

from __future__ import annotations

import functools
import importlib

import gymnax

from envs_jax.domains.names import DOMAINS
from envs_jax.environment import EnvParams, ResourceEnv


def registered() -> tuple[str, ...]:
    """Names of all domains, in the order in which suites list them."""
    return tuple(DOMAINS)


@functools.cache
def _construct(name: str, **static: object) -> ResourceEnv:
    # gymnax jits ``step`` on the environment's identity: one instance per (name, shapes) means one trace.
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
    if name not in DOMAINS:
        raise ValueError(f"unknown domain {name!r}; registered: {', '.join(DOMAINS)}")
    env = _construct(name, **static)
    return env, env.default_params


def _register_with_gymnax() -> None:
    for name in DOMAINS:
        if name not in gymnax.registered_envs:
            gymnax.register(name, functools.partial(_construct, name))


_register_with_gymnax()
