"""Which agents a transfer run trains: free of jax, so that it says what it will do before it loads anything."""

from __future__ import annotations

from typing import Any

from experiments.harness.plan import MULTITASK_LEARNER, TrainingRun, untrained
from experiments.transfer.configuration import Protocol, TransferConfig


def left_out(domains: tuple[str, ...], groups: int) -> tuple[tuple[str, ...], ...]:
    """The groups of domains that are left out, one at a time: every ``groups``-th; 0 leaves out each domain alone."""
    count = min(groups or len(domains), len(domains))
    return tuple(domains[first::count] for first in range(count))


def training_runs(
    protocol: Protocol, domains: tuple[str, ...], groups: int = 0, learner: str = "transformer_maml_dqn"
) -> tuple[TrainingRun, ...]:
    """All agents in the order in which they are trained; random weights, which need no training, come first."""
    found = [untrained(learner)]
    if protocol != "leave-out":
        if len(domains) > 1:
            found += [TrainingRun("source", learner, domains)]
        found += [*(TrainingRun("source", learner, (d,)) for d in domains)]
        found += [TrainingRun("multitask", MULTITASK_LEARNER, domains)]
    if protocol != "pairs":
        rests = [(tuple(d for d in domains if d not in group), group) for group in left_out(domains, groups)]
        found += [TrainingRun("source", learner, rest, group) for rest, group in rests]
        found += [TrainingRun("multitask", MULTITASK_LEARNER, rest, group) for rest, group in rests]
    return tuple(found)


def plan(config: TransferConfig[Any]) -> tuple[TrainingRun, ...]:
    """All agents of a configuration."""
    return training_runs(config.protocol, config.domains, config.groups, config.learner)


def announce(config: TransferConfig[Any]) -> str:
    """What will be done, in one line."""
    trained = sum(run.is_trained for run in plan(config))
    doses = ", ".join(map(str, config.evaluation.support_episodes))
    return (
        f"transfer ({config.protocol}): {config.learner}, {trained} agents x {len(config.arms)} arms x {config.seeds} "
        f"seeds, {config.training.iterations} meta-iterations each; tested on {', '.join(config.domains)} "
        f"with K = {doses} support episodes, {config.evaluation.tasks} tasks x {config.evaluation.episodes} episodes"
    )
