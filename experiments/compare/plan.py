"""Which agents a comparison trains: one of every learner for each arm that it can learn in, on all domains."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.compare.configuration import CompareConfig
from experiments.harness.errors import UsageError
from experiments.harness.learners import agent_like, config_class, learns_from_reward, registered, uses_labels
from experiments.harness.plan import TrainingRun


def obstacle(config: CompareConfig[Any], name: str) -> str:
    """Why a learner cannot take part; empty if it can."""
    try:
        agent = agent_like(config.agent, name)
    except ValueError as error:
        return str(error)
    if getattr(agent, "data", None) != config.agent.data:
        return "its configuration has no data: what a meta-iteration collects is not to be set"
    return ""


def resolve(config: CompareConfig[Any]) -> CompareConfig[Any]:
    """A configuration that names its learners.

    Raises:
      UsageError: for a learner that was asked for and cannot take part, or if none can.
    """
    for name in config.learners:
        if told := obstacle(config, name):
            raise UsageError(f"learners: {name} cannot be compared here: {told}")
    names = config.learners or tuple(name for name in registered() if not obstacle(config, name))
    found = dataclasses.replace(config, learners=names)
    if empty := [arm for arm in config.arms if not learners_in(found, arm)]:
        if config.learners and len(empty) == len(config.arms):
            raise UsageError(f"arms: none of {', '.join(names)} learns in arm {', '.join(empty)}")
        found = dataclasses.replace(found, arms=tuple(arm for arm in config.arms if arm not in empty))
    return found


def learners_in(config: CompareConfig[Any], arm: str) -> tuple[str, ...]:
    """The learners of an arm: one that takes no labels learns from reward only, one that imitates only with them."""
    fits = uses_labels if arm == "reference" else learns_from_reward
    return tuple(name for name in config.learners if fits(config_class(name)))


def plan(config: CompareConfig[Any]) -> tuple[TrainingRun, ...]:
    """All agents, arm by arm."""
    return tuple(
        TrainingRun("compared", name, config.domains, arm=arm)
        for arm in config.arms
        for name in learners_in(config, arm)
    )


def announce(config: CompareConfig[Any]) -> str:
    """What will be done, in one line."""
    doses = ", ".join(map(str, config.evaluation.support_episodes))
    arms = "; ".join(f"{arm}: {', '.join(learners_in(config, arm))}" for arm in config.arms)
    iterations = sorted({config.iterations_of(run) for run in plan(config)})
    return (
        f"compare: {len(plan(config))} agents ({arms}) x {config.seeds} seeds, "
        f"{' or '.join(map(str, iterations))} meta-iterations each; trained and tested on {', '.join(config.domains)} "
        f"with K = {doses} support episodes, {config.evaluation.tasks} tasks x {config.evaluation.episodes} episodes"
    )
