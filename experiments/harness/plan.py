"""Training runs: what an experiment trains, and where each agent is tested. Free of jax."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

Role = Literal["source", "multitask", "random weights", "compared"]
Setting = Literal[
    "one agent for all domains, new tasks",
    "own domain, new tasks",
    "other domains, never seen",
    "domain left out, never seen",
]
ONE_AGENT, IN_DOMAIN, CROSS_DOMAIN, HELD_OUT = SETTINGS = get_args(Setting)
"""Where a source agent is tested, as seen from what it was trained on. Claims about transfer to a new field rest on the
last alone: those agents know many fields, but nothing of this one."""

MULTITASK_LEARNER = "transformer_dqn"
"""The multitask control, whatever is studied: the same network without memory and without meta-learning."""


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """One agent and how it is trained: all seeds of its arms, side by side, a replica each.

    Attributes:
      role: what it is for; those that are "compared" are given the same (:mod:`experiments.harness.treatment`).
      learner: name of its learner. Random weights are the source agents' network before any training: each arm is
        compared with draws of its own, as many as it has seeds.
      trained_on: its training domains.
      left_out: the domains that were left out of the suite for it, on which alone it is tested; none for the others.
      arm: the one arm that it is trained for; empty for all of the configuration.
    """

    role: Role
    learner: str
    trained_on: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    arm: str = ""

    @property
    def domain(self) -> str:
        """Name of its row in the matrix."""
        if self.role == "random weights":
            return "none"
        if self.left_out:
            return f"all but {', '.join(self.left_out)}"
        return self.trained_on[0] if len(self.trained_on) == 1 else "all"

    @property
    def label(self) -> str:
        """Name for people."""
        if self.role == "compared":
            return f"{self.learner}: {self.arm}"
        return self.role if self.role == "random weights" else f"{self.role}: {self.domain}"

    @property
    def id(self) -> str:
        """Name for files."""
        return self.label.replace(":", "").replace(",", "").replace(" ", "-")

    def tested_on(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """The domains whose new tasks it is tested on: all, or those left out for it."""
        return self.left_out or domains

    def setting(self, target: str) -> Setting:
        """Where a target lies, as seen from what it was trained on."""
        if target in self.left_out:
            return HELD_OUT
        if len(self.trained_on) > 1:
            return ONE_AGENT if target in self.trained_on else CROSS_DOMAIN
        return IN_DOMAIN if target in self.trained_on else CROSS_DOMAIN

    @property
    def is_compared(self) -> bool:
        """Whether it must be given the same as the others that are compared."""
        return self.role == "compared"

    @property
    def is_trained(self) -> bool:
        """Whether it takes any training."""
        return self.role != "random weights"


def untrained(learner: str) -> TrainingRun:
    """The random-weights control of a learner."""
    return TrainingRun("random weights", learner)


def multitask_beside(run: TrainingRun, everyone: tuple[TrainingRun, ...]) -> TrainingRun:
    """The multitask control of a source agent: trained on all domains, or on the same as the agent's."""
    return next(other for other in everyone if other.role == "multitask" and other.left_out == run.left_out)
