"""The page and the figures of a run of games, from its stored parts alone, without jax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.games.configuration import GamesConfig
from experiments.harness.runs import RunFolder
from experiments.report.markdown import band, image, table

PUBLISHED = {"minimax": ("99.3 (6,500)", "35.0"), "independent": ("99.4 (11,300)", "0.0")}
"""Littman (1994): % won against random play (games) and against the own challenger, trained against random play."""


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.10g}" for value in values) if values is not None else ""


def write(config: GamesConfig, results: Mapping[str, Any], folder: RunFolder) -> None:
    """Writes ``report.md`` and ``figures/``."""
    page = ["# General games\n"]
    for game in config.game:
        own = {name[len(game) + 1 :]: part for name, part in results.items() if name.startswith(f"{game}.")}
        page += [f"## {game}\n", *_exact(own), *_learned(game, own, folder)]
    folder.write("report.md", "\n".join(page).encode())


def _exact(own: Mapping[str, Any]) -> list[str]:
    rows, notes = [], []
    for name, part in own.items():
        if not name.startswith("exact."):
            continue
        operator = name.removeprefix("exact.")
        if "error" in part:
            rows.append([operator, part["error"], None, None, None, None])
            continue
        rows.append(
            [
                operator,
                _numbers(part["start"]),
                part["converged"],
                part["sweeps"],
                f"{part['change']:.1e}",
                "" if "exploitability" not in part else f"{part['exploitability']:.1e}",
            ]
        )
        if not part["converged"]:
            notes.append(
                f"**{operator} does not converge**: after {part['sweeps']} sweeps values still move by "
                f"{part['change']:.3g}.\n"
            )
        if "start_equilibria" in part:
            pairs = "; ".join(f"({_numbers(pair)})" for pair in part["start_equilibria"])
            notes.append(f"Payoffs of all extreme equilibria of the first stage game under {operator}: {pairs}.\n")
    head = ["operator", "values of the first state", "converged", "sweeps", "last change", "exploitability"]
    return ["Exact values by value iteration.\n", table(head, rows), *notes]


def _learned(game: str, own: Mapping[str, Any], folder: RunFolder) -> list[str]:
    learned = {name.removeprefix("learn."): part for name, part in own.items() if name.startswith("learn.")}
    if not learned:
        return []
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, part in learned.items():
        steps = [entry["step"] for entry in part["curve"]]
        value = np.array([np.array(entry["start"])[:, 0] for entry in part["curve"]])
        _band(axes[0], steps, value, name)
        if "start_error" in part["curve"][0]:
            _band(axes[1], steps, np.array([entry["start_error"] for entry in part["curve"]]), name)
    axes[0].set(xlabel="steps", ylabel="first agent's value of the first state")
    axes[1].set(xlabel="steps", ylabel="error of the first state's value")
    if any(line.get_ydata().max() > 0 for line in axes[1].lines):  # where no operator converges there is no error
        axes[1].set_yscale("log")
    axes[0].legend(fontsize=7)
    rows = [
        [
            name,
            _numbers(np.median(np.array(part["curve"][-1]["start"]), axis=0)),
            _spread(part["curve"][-1].get("start_error")),
            _spread(part.get("exploitability")),
        ]
        for name, part in learned.items()
    ]
    page = [
        "Learned; bands and brackets span the seeds. The error is against the operator's own exact values, where value "
        "iteration converges.\n",
        image(folder, game, figure),
        table(["operator and behaviour", "values of the first state", "their error", "exploitability"], rows),
    ]
    if game == "soccer":
        page += ["Games won by A [%], games without a draw in 100,000 steps, beside the published.\n", _won(learned)]
    return page


def _band(axis: Axes, steps: list[int], values: np.ndarray, name: str) -> None:
    band(axis, steps, np.median(values, axis=1), values.min(1), values.max(1), name)


def _spread(values: Any) -> str:
    return "" if values is None else f"{np.median(values):.3g} [{np.min(values):.3g}, {np.max(values):.3g}]"


def _won(learned: Mapping[str, Any]) -> str:
    rows = []
    for name, part in learned.items():
        if "won" not in part:
            continue
        against = {who: [100 * seed[who]["won"] for seed in part["won"]] for who in ("random", "challenger")}
        games = int(np.median([seed["random"]["games"] for seed in part["won"]]))
        published = PUBLISHED.get(name.split(".")[0], ("", "")) if name.endswith("random-opponent") else ("", "")
        rows.append(
            [name, _spread(against["random"]), games, published[0], _spread(against["challenger"]), published[1]]
        )
    head = ["learner", "against random", "games", "published", "against its challenger", "published"]
    return table(head, rows)
