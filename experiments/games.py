"""General games: exact values with every operator, and the same operators learning by one tabular update.

``python -m experiments.games [--game soccer|grid1|grid2|.. --operators minimax nash ..]``. ``summary.json`` holds
``values``: by operator the agents' exact values of the first state (of soccer, with the ball at A); ``report.md`` holds
learning curves, exploitability, and games won beside the published.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.study import Section, Study, run

GENERAL = (
    *("nash", "foe", "friend", "team", "ce-utilitarian", "ce-egalitarian", "ce-republican", "ce-libertarian"),
    "independent",
)
DEFAULT_OPERATORS = {
    "soccer": ("minimax", "nash", "friend", "ce-utilitarian", "independent"),
    "grid": GENERAL,
    "matrix": GENERAL,
}

COSTLY = {"soccer": ("nash", "ce-")}
"""Operators, by their beginning, whose stage games are too large to be solved a million times: exact values only."""


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class GamesConfig:
    """What is run; every flag is one of these fields."""

    game: tuple[str, ...] = _setting(("soccer", "grid1", "grid2"), "soccer, grid1, grid2 or a matrix game; several")
    operators: tuple[str, ...] = _setting((), "value operators; those that suit the game if not given")
    steps: int = _setting(300_000, "steps of learning soccer")
    grid_steps: int = _setting(20_000, "steps of learning the other games")
    looks: int = _setting(20, "points of a learning curve")
    seeds: int = _setting(4, "independent runs")
    seed: int = _setting(0, "of all randomness")
    sweeps: int = _setting(400, "value iteration gives up beyond; not every operator converges")
    learn: bool = _setting(True, "also learn, not only solve")
    results: pathlib.Path = _setting(pathlib.Path("results"), "folder of all runs")
    name: str = _setting("", "of the run")

    def __post_init__(self) -> None:
        """Refuses values that have no meaning; names are refused by :func:`prepare`."""
        for field in ("steps", "grid_steps", "looks", "seeds", "sweeps"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} = {getattr(self, field)}: at least 1")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}: at least 0")
        if min(self.steps, self.grid_steps) < self.looks:
            raise ValueError(f"looks = {self.looks}: no more than steps ({min(self.steps, self.grid_steps)})")


PRESETS = {
    "default": GamesConfig(),
    "smoke": GamesConfig(
        game=("grid2", "chicken"), operators=("nash", "ce-utilitarian"), grid_steps=400, looks=4, seeds=2, sweeps=30
    ),
}


def operators_of(config: GamesConfig, game: str) -> tuple[str, ...]:
    """The operators for one game."""
    kind = "soccer" if game == "soccer" else "grid" if game.startswith("grid") else "matrix"
    return config.operators or DEFAULT_OPERATORS[kind]


def prepare(config: GamesConfig) -> None:
    """Refuses unknown names."""
    from experiments.games_sections import GAMES
    from metarl_jax import equilibria

    for game in config.game:
        if game not in GAMES:
            raise ValueError(f"game = {game!r}: allowed are {', '.join(GAMES)}")
    for operator in config.operators:
        if operator != "independent":
            equilibria.get(operator)


def sections(config: GamesConfig) -> Sequence[Section]:
    """The parts of a run: for every game and operator the exact values, then a learner."""
    from experiments import games_sections as parts
    from metarl_jax.learners.equilibrium_q import Settings

    found = []
    for game in config.game:
        steps = config.steps if game == "soccer" else config.grid_steps
        for operator in operators_of(config, game):
            if operator != "independent":
                found.append(
                    Section(
                        f"{game}.exact.{operator}",
                        lambda _, game=game, operator=operator: parts.exact_values(game, operator, config.sweeps),
                    )
                )
        if not config.learn:
            continue
        for operator in operators_of(config, game):
            if operator.startswith(COSTLY.get(game, ())):
                continue
            behaviours = ("random-opponent", "explore") if game == "soccer" else ("explore",)
            for behaviour in behaviours:
                settings = Settings(behaviour=behaviour, initial=1.0)  # as Littman: hope makes it try
                if game != "soccer":
                    settings = Settings(behaviour=behaviour, schedule="visits", power=0.6, explore=0.5)

                def compute(
                    done: Mapping[str, Any], game=game, operator=operator, settings=settings, steps=steps
                ) -> dict[str, Any]:
                    solved = done.get(f"{game}.exact.{operator}", {}).get("result", {})
                    truth = solved.get("value") if solved.get("converged") else None
                    return parts.learn(game, operator, settings, steps, config.looks, config.seeds, config.seed, truth)

                found.append(Section(f"{game}.learn.{operator}.{behaviour}", compute))
    return found


def summary(config: GamesConfig, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of ``summary.json``: ``values`` by operator, by game first if there are several."""
    values: dict[str, Any] = {}
    solved: dict[str, Any] = {}
    for game in config.game:
        own = {name.split(".exact.")[1]: part for name, part in parts.items() if name.startswith(f"{game}.exact.")}
        values[game] = {operator: part.get("start") for operator, part in own.items()}
        solved[game] = {
            operator: {key: value for key, value in part.items() if key != "value"} for operator, part in own.items()
        }
    return {"values": values[config.game[0]] if len(config.game) == 1 else values, "exact": solved}


def report(config: GamesConfig, parts: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes ``report.md`` and its figures."""
    from experiments import games_report

    games_report.write_report(config, parts, folder)


STUDY = Study(
    "games",
    "General games: exact values and equilibrium Q-learning with every operator.",
    PRESETS,
    prepare,
    sections,
    summary,
    report,
)

if __name__ == "__main__":
    sys.exit(run(STUDY))
