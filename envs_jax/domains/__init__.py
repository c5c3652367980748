"""The registry of domains: one file a domain, one line in ``names.py``. Modules load on first use."""

from __future__ import annotations

import functools
import importlib
import inspect

import gymnax
import numpy as np

from envs_jax import checks
from envs_jax.domains.names import DOMAINS
from envs_jax.environment import EnvParams, ResourceEnv


def registered() -> tuple[str, ...]:
    """Names of all domains, in the order in which suites list them."""
    return tuple(DOMAINS)


def _construct(name: str, **static: object) -> ResourceEnv:
    if not isinstance(name, str) or name not in DOMAINS:
        raise ValueError(
            f"unknown domain {checks.shown(name)}; registered: {', '.join(DOMAINS)}{checks.near(name, DOMAINS)}"
        )
    domain = getattr(importlib.import_module(f"envs_jax.domains.{name}"), DOMAINS[name])
    checks.known(name, static, inspect.signature(domain).parameters)
    plain = {field: _plain(value) for field, value in static.items()}
    try:
        hash(tuple(plain.values()))
    except TypeError:  # nothing that a constructor takes: let it say so
        return domain(**static)
    return _instance(domain, **plain)


# gymnax jits ``step`` on the environment's identity: one instance per (class, shapes) means one trace. ``typed``, or
# 4.0 and True would find what 4 and 1 have made before the constructor could refuse them.
@functools.lru_cache(maxsize=None, typed=True)
def _instance(domain: type[ResourceEnv], **static: object) -> ResourceEnv:
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
      **static: the domain's constructor arguments (shapes); the same arguments return the same instance.

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
