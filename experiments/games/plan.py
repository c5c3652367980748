"""The parts of a run of games, and what its summary says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.games.configuration import GamesConfig
from experiments.harness.study import Part
from experiments.harness.values import unknown

COSTLY = {"soccer": ("nash", "ce-")}
"""Operators, by their beginning, whose stage games are too large to be solved a million times: exact values only."""


def check(config: GamesConfig) -> None:
    """Refuses unknown names."""
    from metarl_jax import equilibria, equilibrium_study

    for game in config.game:
        if game not in equilibrium_study.GAMES:
            raise ValueError(f"game: {unknown('game', game, equilibrium_study.GAMES)}")
    for operator in config.operators:
        if operator != "independent":
            equilibria.get(operator)


def announce(config: GamesConfig) -> str:
    """What will be done, in one line."""
    return f"games: {', '.join(config.game)}; exact values" + (
        f", then learning with {config.seeds} seeds" if config.learn else ""
    )


def parts(config: GamesConfig) -> Sequence[Part]:
    """For every game the exact values by every operator, then a learner with each."""
    found = []
    for game in config.game:
        found += [_exact(config, game, name) for name in config.operators_of(game) if name != "independent"]
        for operator in config.operators_of(game) if config.learn else ():
            if not operator.startswith(COSTLY.get(game, ())):
                behaviours = ("random-opponent", "explore") if game == "soccer" else ("explore",)
                found += [_learned(config, game, operator, behaviour) for behaviour in behaviours]
    return found


def _exact(config: GamesConfig, game: str, operator: str) -> Part:
    def compute(results: Mapping[str, Any]) -> dict[str, Any]:
        from metarl_jax import equilibrium_study

        return equilibrium_study.exact_values(game, operator, config.sweeps)

    return Part(f"{game}.exact.{operator}", compute)


def _learned(config: GamesConfig, game: str, operator: str, behaviour: str) -> Part:
    def compute(results: Mapping[str, Any]) -> dict[str, Any]:
        from metarl_jax import equilibrium_study
        from metarl_jax.equilibrium_q import Settings

        if game == "soccer":
            settings = Settings(behaviour=behaviour, initial=1.0)  # as Littman: hope makes it try
        else:
            settings = Settings(behaviour=behaviour, schedule="visits", power=0.6, explore=0.5)
        solved = results.get(f"{game}.exact.{operator}", {})
        truth = solved.get("value") if solved.get("converged") else None
        steps = config.steps if game == "soccer" else config.grid_steps
        return equilibrium_study.learn(game, operator, settings, steps, config.looks, config.seeds, config.seed, truth)

    return Part(f"{game}.learn.{operator}.{behaviour}", compute)


def summary(config: GamesConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of ``summary.json``: ``values`` by operator, by game first if there are several."""
    values: dict[str, Any] = {}
    solved: dict[str, Any] = {}
    for game in config.game:
        own = {name.split(".exact.")[1]: part for name, part in results.items() if name.startswith(f"{game}.exact.")}
        values[game] = {operator: part.get("start") for operator, part in own.items()}
        solved[game] = {
            operator: {key: value for key, value in part.items() if key != "value"} for operator, part in own.items()
        }
    return {"values": values[config.game[0]] if len(config.game) == 1 else values, "exact": solved}
