"""What a run of games may be asked to do, and presets. Free of jax."""

from __future__ import annotations

import dataclasses

from experiments.harness.study import StudyConfig
from metarl_jax.checks import whole

GENERAL = (
    *("nash", "foe", "friend", "team", "ce-utilitarian", "ce-egalitarian", "ce-republican", "ce-libertarian"),
    "independent",
)
DEFAULT_OPERATORS = {
    "soccer": ("minimax", "nash", "friend", "ce-utilitarian", "independent"),
    "grid": GENERAL,
    "matrix": GENERAL,
}
"""Operators by kind of game."""


@dataclasses.dataclass(frozen=True)
class GamesConfig(StudyConfig):
    """Which games, and by which value operators.

    Attributes:
      game: soccer, grid1, grid2 or a matrix game; several.
      operators: value operators; those that suit the game if not given.
      steps: of learning soccer.
      grid_steps: of learning the other games.
      looks: points of a learning curve.
      seeds: independent runs.
      sweeps: value iteration gives up beyond; not every operator converges.
      learn: also learn, not only solve.
    """

    game: tuple[str, ...] = ("soccer", "grid1", "grid2")
    operators: tuple[str, ...] = ()
    steps: int = whole(300_000, 1, 10**9)
    grid_steps: int = whole(16_000, 1, 10**9)
    looks: int = whole(20, 1, 10_000)
    seeds: int = whole(4, 1, 1000)
    sweeps: int = whole(150, 1, 10**6)
    learn: bool = True

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return "-".join(self.game)[:60]

    def __post_init__(self) -> None:
        """Refuses values that have no meaning; unknown names are refused by ``plan.check``."""
        super().__post_init__()
        if min(self.steps, self.grid_steps) < self.looks:
            raise ValueError(
                f"looks must be at most the number of steps ({min(self.steps, self.grid_steps)}), got {self.looks}"
            )
        for field in ("game", "operators"):
            names = getattr(self, field)
            if len(set(names)) != len(names):
                raise ValueError(f"{field} must not repeat a name, got {' '.join(names)}")
        if not self.game:
            raise ValueError("game must name at least one")

    def operators_of(self, game: str) -> tuple[str, ...]:
        """The operators for one game."""
        kind = "soccer" if game == "soccer" else "grid" if game.startswith("grid") else "matrix"
        return self.operators or DEFAULT_OPERATORS[kind]


PRESETS: dict[str, GamesConfig] = {
    "default": GamesConfig(),
    "smoke": GamesConfig(
        game=("grid2", "chicken"), operators=("nash", "ce-utilitarian"), grid_steps=400, looks=4, seeds=2, sweeps=30
    ),
}
