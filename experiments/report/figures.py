"""Figures of a transfer run. Drawn on ``Figure`` objects, without pyplot and its global state."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.plan import HELD_OUT, IN_DOMAIN, ONE_AGENT, Setting, TrainingRun
from experiments.report.means import VIEW
from experiments.report.results import Condition, Control, Results
from experiments.report.tables import WIDE, number

SCORE = "score (0 floor, 1 reference)"
COLOURS = ("#1b6ca8", "#c8553d")
GREY, GREEN = "#6b6b6b", "#3a7d44"
EDGE = 1.1 * VIEW
"""Where axes of scores end; what lies beyond is a triangle there."""

THIN: dict[str, Any] = {"linestyle": "--", "linewidth": 0.8}
"""Style of random weights, which often lie far outside."""

COLUMNS = 5
"""Panels side by side."""


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _rows(results: Results) -> list[tuple[str, dict[str, TrainingRun]]]:
    """Rows of the heat map: a label, and who was tested on each target."""
    rows = [
        ("one agent: all" if agent == results.one_agent else agent.label, dict.fromkeys(results.baselines, agent))
        for agent in results.agents
        if agent.role != "random weights" and not agent.left_out
    ]
    if cells := {target: agent for agent, target in results.cells(HELD_OUT)}:
        multitask = {target: results.multitask(agent) for target, agent in cells.items()}
        rows += [("source: all but the target", cells), ("multitask: all but the target", multitask)]
    return [*rows, (results.untrained.label, dict.fromkeys(results.baselines, results.untrained))]


def heat_map(results: Results, arm: str) -> Figure:
    """Score of every agent in every domain at K=0 and at the largest K, colours diverging from 0."""
    rows = _rows(results)
    targets = list(results.baselines)
    height, width = len(rows), len(targets)
    doses = (0, results.most)
    scores = [[[results.score(who[t], arm, t, Condition(k)) for t in targets] for _, who in rows] for k in doses]
    values = np.array([[[s.estimate for s in row] for row in panel] for panel in scores])

    if width <= WIDE:
        figure = Figure(figsize=(3.4 + 2 * max(1.25 * width, 2.0), 1.6 + 0.62 * height), layout="constrained")
        axes = figure.subplots(1, 2, squeeze=False)[0]
    else:  # one above the other, or nothing could be read
        figure = Figure(figsize=(4.4 + 0.75 * width, 2 * (1.0 + 0.34 * height)), layout="constrained")
        axes = figure.subplots(2, 1)
    for axis, k, panel, grid in zip(axes, doses, scores, values, strict=True):
        # A few cells far below the floor must not wash out all others; the number in the cell tells the truth.
        image = axis.imshow(grid, cmap="RdBu", vmin=-VIEW, vmax=VIEW, aspect="auto")
        axis.set_title(f"K={k} support episodes")
        axis.set_xticks(range(width), targets, rotation=30, ha="right")
        axis.set_yticks(range(height), [label for label, _ in rows] if k == 0 or width > WIDE else [""] * height)
        axis.set_xlabel("tested on (new tasks)")
        for i, row in enumerate(panel):
            for j, cell in enumerate(row):
                text = number(cell.estimate)
                if width <= WIDE and np.isfinite(cell.estimate):
                    text += f"\n[{number(cell.low)}, {number(cell.high)}]"
                colour = "white" if abs(cell.estimate) > 0.6 * VIEW else "black"
                weight = "bold" if abs(cell.estimate) > VIEW else "normal"
                axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour, weight=weight)
    axes[0].set_ylabel("trained on")
    label = f"{SCORE}; colours end at ±{VIEW:.0f}, numbers beyond are bold"
    figure.colorbar(image, ax=list(axes), label=label, shrink=0.9, extend="both", extendfrac=0.03)
    figure.suptitle(f"Who can do what before and after adapting, arm {arm}")
    return figure


def _outside(axis: Axes, x: float, score: float, colour: str) -> None:
    """Marks a score that lies outside the view at the view's edge."""
    if not abs(score) > EDGE:
        return
    edge, marker = (EDGE, "^") if score > 0 else (-EDGE, "v")
    axis.plot([x], [edge], marker, color=colour, clip_on=False, markersize=5)


def _curve(
    axis: Axes, results: Results, agent: TrainingRun, arm: str, target: str, label: str, color: str, **style: Any
) -> None:
    doses = results.support_episodes
    scores = [results.score(agent, arm, target, Condition(k)) for k in doses]
    axis.plot(doses, [s.estimate for s in scores], label=label, color=color, **style)
    axis.fill_between(doses, [s.low for s in scores], [s.high for s in scores], alpha=0.15, color=color)
    for k, score in zip(doses, scores, strict=True):
        _outside(axis, k, score.estimate, color)


def _controls(
    axis: Axes, results: Results, agent: TrainingRun, arm: str, target: str, color: str, markers: Mapping[Control, str]
) -> None:
    """The score at the largest K with another task's support or with rewards zeroed, a mark each."""
    for control, marker in markers.items():
        score = results.score(agent, arm, target, Condition(results.most, control)).estimate
        name = {"swap": "other task's support", "zero": "rewards zeroed"}[control]
        axis.plot([results.most], [score], marker, color=color, label=f"{name}, {arm}", markersize=7)
        _outside(axis, results.most, score, color)


def _finish(axis: Axes, results: Results, target: str, title: str) -> None:
    """The heuristic, the levels 0 and 1, the view, and the name of a panel."""
    heuristic = results.baseline_score("heuristic", target)
    axis.axhline(heuristic, color=GREEN, linewidth=0.9, linestyle="-.", label="heuristic, does not know the task")
    _outside(axis, results.most, heuristic, GREEN)
    for level in (0.0, 1.0):
        axis.axhline(level, color="black", linewidth=0.6)
    axis.set_ylim(-EDGE, EDGE)
    axis.set_yticks([-VIEW, 0.0, VIEW])
    axis.set_title(title, fontsize=9)
    axis.set_xticks(results.support_episodes)


def _grid(panels: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, row by row; the places left over are empty."""
    rows = -(-panels // columns)
    figure = Figure(figsize=(max(1.0 + 2.4 * columns, 7.0), 1.5 + 2.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for row in axes:
        row[0].set_ylabel("score", fontsize=8)
    flat = list(axes.flat)
    for axis in flat[panels:]:
        axis.set_visible(False)
    for axis in flat[max(panels - columns, 0) : panels]:  # the lowest of their columns
        axis.set_xlabel("K, support episodes", fontsize=8)
        axis.tick_params(labelbottom=True)
    return figure, flat[:panels]


def _close(figure: Figure, axes: list[Axes], title: str) -> Figure:
    """The legend of all panels below them, and what the figure is."""
    handles, labels = axes[0].get_legend_handles_labels()
    width = figure.get_figwidth()
    figure.legend(handles, labels, loc="outside lower center", ncols=int(width / 2.6), fontsize=8)
    figure.suptitle("\n".join(textwrap.wrap(title, int(11 * width))), fontsize=11)
    return figure


def domain_curves(results: Results, setting: Setting) -> Figure:
    """Score against K, a small panel for each domain: of the one agent, or of the agents that had it left out.

    The latter beside random weights adapted on as many episodes.
    """
    cells = results.cells(setting)
    figure, axes = _grid(len(cells), min(COLUMNS, len(cells)))
    for axis, (agent, target) in zip(axes, cells, strict=True):
        if setting == HELD_OUT:
            _curve(axis, results, results.untrained, results.arms[0], target, "random weights", GREY, **THIN)
        for arm, colour in zip(results.arms, COLOURS, strict=False):
            _curve(axis, results, agent, arm, target, f"agent, {arm}", colour, marker=".")
            _controls(axis, results, agent, arm, target, colour, {"swap": "x"})
        adapted = results.score(agent, results.arms[0], target, Condition(results.most)).estimate
        _finish(axis, results, target, f"{target}: {number(adapted)}")
    what = {ONE_AGENT: "One agent for all domains, new tasks of each", HELD_OUT: "Each domain by an agent without it"}
    title = f"{what[setting]}: {SCORE}, bands 95 %; above each panel the score at K={results.most}"
    return _close(figure, axes, title if len(results.arms) == 1 else f"{title}, arm {results.arms[0]}")


def adaptation_curves(results: Results) -> Figure:
    """Score of single sources against K beside all controls: of many domains, each in its own only."""
    few = len(results.baselines) <= WIDE
    cells = [(a, t) for a, _ in results.cells(IN_DOMAIN) for t in results.tested(a)]
    cells = cells if few else results.cells(IN_DOMAIN)
    figure, axes = _grid(len(cells), len(results.baselines) if few else COLUMNS)
    for axis, (agent, target) in zip(axes, cells, strict=True):
        for arm, colour in zip(results.arms, COLOURS, strict=False):
            _curve(axis, results, agent, arm, target, f"agent, {arm}", colour, marker=".")
            _curve(axis, results, results.multitask(agent), arm, target, f"multitask, {arm}", colour, linestyle=":")
            _controls(axis, results, agent, arm, target, colour, {"swap": "x", "zero": "+"})
        _curve(axis, results, results.untrained, results.arms[0], target, "random weights", GREY, **THIN)
        _finish(axis, results, target, f"{agent.domain} → {target}")
    return _close(figure, axes, "Single sources on new tasks (trained on → tested on), bands 95 % over seeds and tasks")


def training_curves(metrics: list[dict[str, object]]) -> Figure | None:
    """Loss and reward of the query episodes during training, a line an agent (mean over its replicas)."""
    if not metrics:
        return None
    shown = [name for name in ("loss", "query_reward") if name in metrics[0]["metrics"]]  # type: ignore[operator]
    if not shown:
        return None
    figure = Figure(figsize=(1 + 4.5 * len(shown), 3.6), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, name in zip(axes, shown, strict=True):
        for agent in dict.fromkeys(str(entry["agent"]) for entry in metrics):
            lines = [entry for entry in metrics if entry["agent"] == agent]
            values = [np.mean(entry["metrics"][name]) for entry in lines]  # type: ignore[index]
            axis.plot([entry["iteration"] for entry in lines], values, label=agent)
        axis.set_xlabel("meta-iteration")
        axis.set_ylabel({"loss": "outer loss", "query_reward": "query reward a period (normalised)"}[name])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure
