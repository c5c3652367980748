"""Which learner an experiment studies: its configuration class, and a preset switched from one learner to another.

Free of jax: the flags of the chosen learner must be known before anything is loaded.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from experiments.harness.errors import UsageError
from experiments.harness.machine import before_jax
from experiments.harness.values import unknown
from metarl_jax import learners

ConfigT = TypeVar("ConfigT")


def registered() -> tuple[str, ...]:
    """Names of all learners."""
    return learners.registered()


def config_class(name: str) -> type:
    """The frozen dataclass that configures a learner.

    Raises:
      UsageError: for an unknown name, with the one that was probably meant.
    """
    if name not in registered():
        raise UsageError(f"learner: {unknown('learner', name, registered())}")
    before_jax()
    return learners.config_class(name)


def uses_labels(agent: type) -> bool:
    """Whether a learner can take the cross-entropy to the reference action into its loss (arm "reference")."""
    return bool(getattr(agent, "labels", True))


def needs_labels(agent: type) -> bool:
    """Whether a learner learns from the reference's actions alone, so that arm "rl-only" has nothing for it."""
    return bool(getattr(agent, "needs_labels", False))


def learns_from_reward(agent: type) -> bool:
    """Whether a learner can do without labels: arm "rl-only"."""
    return not needs_labels(agent)


def agent_like(given: Any, name: str) -> Any:
    """The configuration of a learner that holds whatever dataclass it has in common with another's, by name.

    Args:
      given: the other learner's configuration.
      name: of the learner wanted; what it does not share is its own default.

    Raises:
      UsageError: for an unknown name.
      ValueError: if the learner refuses what is kept.
    """
    agent: Any = config_class(name)()
    kept = {
        field.name: value
        for field in dataclasses.fields(agent)
        if dataclasses.is_dataclass(value := getattr(given, field.name, None))
        and type(value) is type(getattr(agent, field.name))
    }
    return dataclasses.replace(agent, **kept)


def for_learner(preset: ConfigT, name: str) -> ConfigT:
    """A preset of one learner as one of another.

    Whatever dataclass both learners' configurations hold under one name (network, data, adaptation, ...) is kept, so
    that both are as large and see as much; the rest is the other learner's default. A learner that takes no labels
    trains the arm "rl-only" alone, one that learns from labels alone the arm "reference".

    Args:
      preset: a configuration with the fields ``learner``, ``agent`` and ``arms``; of a study that has learners but no
        agent, with the method ``with_learner(name)``.
      name: of the learner wanted.

    Raises:
      UsageError: for an unknown name, or if the learner refuses what is kept.
    """
    given: Any = preset
    if hasattr(given, "with_learner"):
        try:
            return given.with_learner(name)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if given.learner == name:
        return preset
    kind = config_class(name)
    arms = given.arms if uses_labels(kind) else ("rl-only",)
    arms = ("reference",) if needs_labels(kind) else arms
    try:
        return dataclasses.replace(given, learner=name, agent=agent_like(given.agent, name), arms=arms)
    except ValueError as error:
        raise UsageError(f"learner: {name} does not fit this preset: {error}") from error
