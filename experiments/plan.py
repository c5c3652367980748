"""Which agents an experiment trains. Free of jax, so that a run can say what it will do before it loads anything."""

from __future__ import annotations

import dataclasses
from typing import Literal

from experiments.config import Protocol

Role = Literal["source", "multitask", "random weights"]
LEARNERS: dict[Role, str] = {
    "source": "transformer_maml_dqn",
    "multitask": "transformer_dqn",
    "random weights": "transformer_maml_dqn",
}
"""The learner behind each role. Random weights are the source agents' network before any training: each arm is compared
with draws of its own, as many as it has seeds."""


@dataclasses.dataclass(frozen=True)
class Agent:
    """One training run: all seeds of all arms, side by side.

    Attributes:
      role: what it is for.
      trained_on: its training domains.
      left_out: the domain that was left out of the suite for it, if the protocol leaves one out.
    """

    role: Role
    trained_on: tuple[str, ...]
    left_out: str = ""

    @property
    def learner(self) -> str:
        """Name of its learner."""
        return LEARNERS[self.role]

    @property
    def domain(self) -> str:
        """Name of its row in the matrix."""
        if self.role == "random weights":
            return "none"
        if self.left_out:
            return f"all but {self.left_out}"
        return self.trained_on[0] if len(self.trained_on) == 1 else "all"

    @property
    def label(self) -> str:
        """Name for people."""
        return self.role if self.role == "random weights" else f"{self.role}: {self.domain}"

    @property
    def id(self) -> str:
        """Name for files."""
        return self.label.replace(": ", "-").replace(" ", "-")

    def tested_on(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """The domains whose new tasks it is tested on: all, or the one left out for it."""
        return (self.left_out,) if self.left_out else domains

    def at_home(self, target: str) -> bool:
        """Whether the protocol's main claim is about this target: its own domain, or the one left out."""
        return target == self.left_out if self.left_out else self.role == "source" and target in self.trained_on


UNTRAINED = Agent("random weights", ())
"""The random-weights control; its learner is that of the sources."""


def agents(protocol: Protocol, domains: tuple[str, ...]) -> tuple[Agent, ...]:
    """All agents in the order in which they are trained; random weights, which need no training, come first."""
    if protocol == "pairs":
        return (UNTRAINED, *(Agent("source", (d,)) for d in domains), Agent("multitask", domains))
    rests = [(tuple(other for other in domains if other != left_out), left_out) for left_out in domains]
    return (
        UNTRAINED,
        *(Agent("source", rest, left_out) for rest, left_out in rests),
        *(Agent("multitask", rest, left_out) for rest, left_out in rests),
    )


def multitask_beside(agent: Agent, everyone: tuple[Agent, ...]) -> Agent:
    """The multitask control of a source agent: trained on all domains, or on the same as the agent's."""
    return next(other for other in everyone if other.role == "multitask" and other.left_out == agent.left_out)
