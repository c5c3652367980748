"""Which agents an experiment trains. Free of jax, so that a run can say what it will do before it loads anything."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from experiments.config import Protocol

Role = Literal["source", "multitask", "random weights"]
Place = Literal["own domain, new tasks", "other domains, never seen", "domain left out, never seen"]
OWN, OTHER, LEFT_OUT = PLACES = get_args(Place)
"""Where a source agent is tested, as seen from what it was trained on. Claims about transfer to a new field rest on the
last alone: those agents know many fields, but nothing of this one."""

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
      left_out: the domains that were left out of the suite for it, on which alone it is tested; none for the others.
    """

    role: Role
    trained_on: tuple[str, ...]
    left_out: tuple[str, ...] = ()

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
            return f"all but {', '.join(self.left_out)}"
        return self.trained_on[0] if len(self.trained_on) == 1 else "all"

    @property
    def label(self) -> str:
        """Name for people."""
        return self.role if self.role == "random weights" else f"{self.role}: {self.domain}"

    @property
    def id(self) -> str:
        """Name for files."""
        return self.label.replace(":", "").replace(",", "").replace(" ", "-")

    def tested_on(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """The domains whose new tasks it is tested on: all, or those left out for it."""
        return self.left_out or domains

    def place(self, target: str) -> Place:
        """Where a target lies, as seen from what it was trained on."""
        if target in self.left_out:
            return LEFT_OUT
        return OWN if target in self.trained_on else OTHER


UNTRAINED = Agent("random weights", ())
"""The random-weights control; its learner is that of the sources."""


def left_out(domains: tuple[str, ...], groups: int) -> tuple[tuple[str, ...], ...]:
    """The groups of domains that are left out, one at a time: every ``groups``-th; 0 leaves out each domain alone."""
    count = min(groups or len(domains), len(domains))
    return tuple(domains[first::count] for first in range(count))


def agents(protocol: Protocol, domains: tuple[str, ...], groups: int = 0) -> tuple[Agent, ...]:
    """All agents in the order in which they are trained; random weights, which need no training, come first."""
    found = [UNTRAINED]
    if protocol != "leave-out":
        found += [*(Agent("source", (d,)) for d in domains), Agent("multitask", domains)]
    if protocol != "pairs":
        rests = [(tuple(d for d in domains if d not in group), group) for group in left_out(domains, groups)]
        for role in ("source", "multitask"):
            found += [Agent(role, rest, group) for rest, group in rests]
    return tuple(found)


def multitask_beside(agent: Agent, everyone: tuple[Agent, ...]) -> Agent:
    """The multitask control of a source agent: trained on all domains, or on the same as the agent's."""
    return next(other for other in everyone if other.role == "multitask" and other.left_out == agent.left_out)
