"""The registry of learners: one file a learner, one line here."""

from __future__ import annotations

import importlib
from typing import Any

from envs_jax.suite import Suite
from metarl_jax.learners.base import Learner

_LEARNERS: dict[str, str] = {
    "transformer_maml_dqn": "TransformerMamlDqnConfig",
    "transformer_dqn": "TransformerDqnConfig",
}
"""Name of a learner, which is also its module here, and its configuration class."""


def registered() -> tuple[str, ...]:
    """Names of all learners."""
    return tuple(_LEARNERS)


def _module(name: str) -> Any:
    if name not in _LEARNERS:
        raise ValueError(f"unknown learner {name!r}; registered: {', '.join(_LEARNERS)}")
    return importlib.import_module(f"metarl_jax.learners.{name}")


def config_class(name: str) -> type:
    """The frozen dataclass that configures a learner."""
    return getattr(_module(name), _LEARNERS[name])


def make(name: str, config: Any, suite: Suite) -> Learner:
    """Builds a learner for the training domains of ``suite``.

    Raises:
      ValueError: for an unknown name or a configuration of another learner.
    """
    expected = config_class(name)
    if not isinstance(config, expected):
        raise ValueError(f"learner {name!r} takes a {expected.__name__}, got a {type(config).__name__}")
    return _module(name).make(config, suite)


__all__ = ["Learner", "config_class", "make", "registered"]
