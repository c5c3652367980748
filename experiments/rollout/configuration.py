"""What a rollout run may be asked to do, and presets. Free of jax."""

from __future__ import annotations

import dataclasses

from experiments.harness.study import StudyConfig
from metarl_jax.checks import choice, whole, wholes

MOST_CPU_DEVICES = 8
"""Devices that a CPU is split into here, at most."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig(StudyConfig):
    """Which warehouse, and how its team improves.

    Attributes:
      example: two published warehouses, or a chain of equal levels.
      levels: of a chain (3 if not given), or the first so many of the others.
      reading: who supplies whom, and what the order cost is: see docs/multi_agent_rollout.md.
      improve: whether all choose jointly, or agents in turn.
      order: levels, from 1, in the order of their turns; level 1 first if not given.
      potentials: exact, from paths by a table and a linear fit, or from paths by a network.
      inputs: of a fit.
      devices: share the joint flows over so many devices; 0 improves by structure.
      path: periods of a path.
      iterations: policies improved upon from paths.
      seeds: independent runs from paths.
      scale: levels of the longest chain that is timed; 0 times none.
      studies: also the comparisons: agents, paths, devices, scale.
    """

    example: str = choice("chain", ("ex1", "ex2", "chain"))
    levels: int | None = None
    reading: str = choice("R5", ("R1", "R2", "R2b", "R4", "R5"))
    improve: str = choice("joint", ("joint", "agents"))
    order: tuple[int, ...] = wholes((), 1, 1000, fewest=0)
    potentials: str = choice("exact", ("exact", "path", "network"))
    inputs: str = choice("levels", ("levels", "seed28", "onehot"))
    devices: int = whole(0, 0, 4096)
    path: int = whole(20_000, 100, 10_000_000)
    iterations: int = whole(8, 1, 1000)
    seeds: int = whole(3, 1, 1000)
    scale: int = whole(6, 0, 12)
    studies: bool = True

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return f"{self.example}-{self.reading}"

    def __post_init__(self) -> None:
        """Refuses values that have no meaning; those of the warehouse are refused by ``plan.check``."""
        super().__post_init__()
        if self.devices and self.improve == "agents":
            raise ValueError(f"devices must be 0 where improve is agents, got {self.devices}: joint flows are shared")


PRESETS: dict[str, RolloutConfig] = {
    "default": RolloutConfig(),
    "smoke": RolloutConfig(path=2000, iterations=3, seeds=1, scale=4),
}
