"""The registry of learners: one file a learner, one line here. Importing it loads no jax; making a learner does."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from metarl_jax import configs

if TYPE_CHECKING:
    from envs_jax.suite import Suite
    from metarl_jax.learners.base import Learner

_LEARNERS: dict[str, str] = {
    "transformer_maml_dqn": "TransformerMamlDqnConfig",
    "transformer_dqn": "TransformerDqnConfig",
    "ppo": "PpoConfig",
    "rl2": "Rl2Config",
    "a2c": "A2cConfig",
    "sac": "SacConfig",
    "maml_pg": "MamlPgConfig",
    "bayes_readout": "BayesReadoutConfig",
    "dqn": "DqnConfig",
    "double_dueling_dqn": "DoubleDuelingDqnConfig",
    "decision_pretrained": "DecisionPretrainedConfig",
    "context": "ContextConfig",
    "optimizer_gating": "OptimizerGatingConfig",
    "learned_optimizer": "LearnedOptimizerConfig",
    "reptile": "ReptileConfig",
    "maml_dqn": "MamlDqnConfig",
}
"""Name of a learner, which is also its module here, and its configuration class: of ``configs``, or of its module.

A learner of another package gives its module too: ``"package.module:Class"``.
"""


def registered() -> tuple[str, ...]:
    """Names of all learners."""
    return tuple(_LEARNERS)


def _check(name: str) -> None:
    if name not in _LEARNERS:
        near = difflib.get_close_matches(str(name), _LEARNERS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown learner {name!r}{hint}; registered: {', '.join(_LEARNERS)}")


def register(name: str, config: str) -> None:
    """Adds a learner of another package for this process: what a line of the registry does for one that lives here.

    Args:
      name: of the learner.
      config: ``"package.module:Class"``: the module has ``make(config, suite)`` and the configuration's class.

    Raises:
      ValueError: if the name is taken, or the module is not named.
    """
    if name in _LEARNERS:
        raise ValueError(f"learner {name!r} is registered already")
    if ":" not in config:
        raise ValueError(f"config must be 'package.module:Class', got {config!r}")
    _LEARNERS[name] = config


def _module(name: str) -> Any:
    module, _, _ = _LEARNERS[name].rpartition(":")
    return importlib.import_module(module or f"metarl_jax.learners.{name}")


def config_class(name: str) -> type:
    """The frozen dataclass that configures a learner.

    Raises:
      ValueError: for an unknown name.
    """
    _check(name)
    module, _, own = _LEARNERS[name].rpartition(":")
    found = None if module else getattr(configs, own, None)
    return getattr(_module(name), own) if found is None else found


def make(name: str, config: Any, suite: Suite) -> Learner:
    """Builds a learner for the training domains of ``suite``; all its arrays have the suite's padded shapes.

    Raises:
      ValueError: for an unknown name or a configuration of another learner.
    """
    expected = config_class(name)
    if not isinstance(config, expected):
        raise ValueError(f"learner {name!r} takes a {expected.__name__}, got a {type(config).__name__}")
    return _module(name).make(config, suite)


__all__ = ["config_class", "make", "register", "registered"]
