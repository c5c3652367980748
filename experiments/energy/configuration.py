"""What a run of energy may be asked to do, and presets. Free of jax."""

from __future__ import annotations

import dataclasses
import re

from experiments.harness.study import StudyConfig
from metarl_jax.checks import choice, shown, whole, wholes

RULES = ("sgd", "meta_sgd", "gated", "learned")
MOST = 200
"""Demands or plants, at most."""


@dataclasses.dataclass(frozen=True)
class EnergyConfig(StudyConfig):
    """Which instances, and which learned solvers.

    Attributes:
      family: sites that drift, or the seed document's random instances.
      size: demands x plants, without the import.
      rules: update rules of unrolled solvers.
      steps: S of unrolled solvers; 0 takes the network's prices as they are.
      shots: K past periods that a network adapts to.
      inner_rule: update rule by which a network adapts.
      seeds: independent trainings.
      sites: new ones, for tests.
      iterations: of training a price network.
      solver_iterations: of training an unrolled solver.
      meta_iterations: of learning to adapt.
      shifts: also test on other sizes, on a plant out of order and on doubled drifts.
    """

    family: str = choice("dispatch", ("seed", "dispatch"))
    size: str = "10x10"
    rules: tuple[str, ...] = RULES
    steps: tuple[int, ...] = wholes((0, 10, 30), 0, 1000)
    shots: tuple[int, ...] = wholes((0, 1, 3, 5), 0, 5)
    inner_rule: str = "meta_sgd"
    seeds: int = whole(3, 1, 100)
    sites: int = whole(24, 2, 1000)
    iterations: int = whole(1000, 20, 10**7)
    solver_iterations: int = whole(300, 20, 10**7)
    meta_iterations: int = whole(200, 20, 10**7)
    shifts: bool = True

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return f"{self.family}-{self.size}"

    @property
    def sides(self) -> tuple[int, int]:
        """Demands and plants."""
        n, m = self.size.split("x")
        return int(n), int(m)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning; unknown rules are refused by ``plan.check``."""
        super().__post_init__()
        if not re.fullmatch(r"[0-9]{1,4}x[0-9]{1,4}", self.size):
            raise ValueError(f"size must be demands x plants, as 10x10, got {shown(self.size)}")
        if not all(1 <= side <= MOST for side in self.sides):
            raise ValueError(f"size must be of 1 to {MOST} demands and plants, got {self.size}")
        if self.family == "seed" and self.sides[1] < 2:
            raise ValueError(f"size must be of at least 2 plants in the family seed, got {self.size}")
        if len(set(self.rules)) != len(self.rules):
            raise ValueError(f"rules must not repeat a name, got {' '.join(self.rules)}")
        if not self.rules:
            raise ValueError("rules must name at least one")


PRESETS: dict[str, EnergyConfig] = {
    "default": EnergyConfig(),
    "smoke": EnergyConfig(
        size="4x3",
        rules=("gated",),
        steps=(0, 5),
        shots=(0, 1),
        seeds=1,
        sites=4,
        iterations=60,
        solver_iterations=40,
        meta_iterations=20,
        shifts=False,
    ),
}
