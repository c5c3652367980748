"""Figures of a transfer run. Drawn on ``Figure`` objects, without pyplot and its global state."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.plan import HELD_OUT, IN_DOMAIN, TrainingRun
from experiments.report.results import Condition, Results
from experiments.report.tables import WIDE, number

SCORE = "score (0 floor, 1 reference)"
COLOURS = ("#1b6ca8", "#c8553d")
GREY = "#6b6b6b"
VIEW = 2.0
"""Scores beyond plus or minus this are not drawn: random weights may be a hundred times worse than doing nothing."""


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _rows(results: Results) -> list[tuple[str, dict[str, TrainingRun]]]:
    """Rows of the heat map: a label, and who was tested on each target."""
    rows = [
        (agent.label, dict.fromkeys(results.baselines, agent))
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
    finite = values[np.isfinite(values)]
    # A few cells far below the floor must not wash out all others; the number in the cell tells the truth.
    limit = float(np.clip(np.abs(finite).max() if finite.size else 1.0, 1.0, 2.0))

    if width <= WIDE:
        figure = Figure(figsize=(3.4 + 2 * max(1.25 * width, 2.0), 1.6 + 0.62 * height), layout="constrained")
        axes = figure.subplots(1, 2, squeeze=False)[0]
    else:  # one above the other, or nothing could be read
        figure = Figure(figsize=(4.4 + 0.75 * width, 2 * (1.0 + 0.34 * height)), layout="constrained")
        axes = figure.subplots(2, 1)
    for axis, k, panel, grid in zip(axes, doses, scores, values, strict=True):
        image = axis.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        axis.set_title(f"K={k} support episodes")
        axis.set_xticks(range(width), targets, rotation=30, ha="right")
        axis.set_yticks(range(height), [label for label, _ in rows] if k == 0 or width > WIDE else [""] * height)
        axis.set_xlabel("tested on (new tasks)")
        for i, row in enumerate(panel):
            for j, cell in enumerate(row):
                text = number(cell.estimate)
                if width <= WIDE and np.isfinite(cell.estimate):
                    text += f"\n[{number(cell.low)}, {number(cell.high)}]"
                dark = np.isfinite(cell.estimate) and abs(cell.estimate) > 0.6 * limit
                axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes[0].set_ylabel("trained on")
    figure.colorbar(image, ax=list(axes), label=f"{SCORE}; colours end at ±{limit:.1f}", shrink=0.9)
    figure.suptitle(f"Who can do what before and after adapting, arm {arm}")
    return figure


def _curve(
    axis: Axes, results: Results, agent: TrainingRun, arm: str, target: str, label: str, **style: object
) -> None:
    scores = [results.score(agent, arm, target, Condition(k)) for k in results.support_episodes]
    axis.plot(results.support_episodes, [s.estimate for s in scores], label=label, **style)  # type: ignore[arg-type]
    axis.fill_between(
        results.support_episodes, [s.low for s in scores], [s.high for s in scores], alpha=0.15, color=style["color"]
    )


def _adaptation(axis: Axes, results: Results, agent: TrainingRun, target: str) -> None:
    most = results.most
    for arm, colour in zip(results.arms, COLOURS, strict=False):
        _curve(axis, results, agent, arm, target, f"agent, {arm}", color=colour, marker=".")
        _curve(axis, results, results.multitask(agent), arm, target, f"multitask, {arm}", color=colour, linestyle=":")
        for control, marker, name in (("swap", "x", "other task's support"), ("zero", "+", "rewards zeroed")):
            score = results.score(agent, arm, target, Condition(most, control))  # type: ignore[arg-type]
            axis.plot([most], [score.estimate], marker, color=colour, label=f"{name}, {arm}", markersize=7)
    _curve(axis, results, results.untrained, results.arms[0], target, "random weights", color=GREY, linestyle="--")
    heuristic = results.baseline_score("heuristic", target)
    axis.axhline(heuristic, color="#3a7d44", linewidth=0.9, linestyle="-.", label="heuristic, does not know the task")
    for level in (0.0, 1.0):
        axis.axhline(level, color="black", linewidth=0.6)
    bottom, top = axis.get_ylim()
    axis.set_ylim(max(bottom, -VIEW), min(top, VIEW))
    axis.set_title(f"{target} left out" if agent.left_out else f"{agent.domain} → {target}", fontsize=9)
    axis.set_xticks(results.support_episodes)


def adaptation_curves(results: Results) -> Figure:
    """Score against K: a panel for every cell, or of many domains only those that claims are about."""
    if len(results.baselines) <= WIDE:
        panels = [[(agent, target) for target in results.tested(agent)] for agent in results.sources]
    else:
        claimed = [results.cells(setting) for setting in (IN_DOMAIN, HELD_OUT)]
        panels = [cells[i : i + 5] for cells in claimed for i in range(0, len(cells), 5)]
    columns = max(len(row) for row in panels)
    size = (1.0 + 3.0 * columns, 1.5 + 2.4 * len(panels))
    figure = Figure(figsize=(max(size[0], 7.0), size[1]), layout="constrained")
    axes = figure.subplots(len(panels), columns, squeeze=False, sharex=True)
    for row, cells in zip(axes, panels, strict=True):
        for axis in row[len(cells) :]:
            axis.set_visible(False)
        for axis, (agent, target) in zip(row, cells, strict=False):
            _adaptation(axis, results, agent, target)
        row[0].set_ylabel(SCORE, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("K, support episodes")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(
        f"Adaptation to new tasks (trained on → tested on), bands 95 % over seeds and tasks; view ends at ±{VIEW:.0f}"
    )
    return figure


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
