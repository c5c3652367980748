"""The page and the figure of a run of literature, from its stored parts alone, without jax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.harness.runs import RunFolder
from experiments.literature import plan
from experiments.literature.configuration import LiteratureConfig
from experiments.report.markdown import band, image, table
from metarl_jax.literature.rows import SINE


def write(config: LiteratureConfig, results: Mapping[str, Any], folder: RunFolder) -> None:
    """Writes ``report.md`` and ``figures/curve.png``."""
    found = plan.summary(config, results)
    page = [
        f"# {config.learner} on {config.task}\n",
        f"{_verdict(found)}\n",
        table(["", "figure", "95 % over seeds", "by seed"], [_figure(found)]),
        f"Measure: {found['measure']}.\n",
        f"Published: {found['published']} ({found['source']}).\n",
        f"Passes: {_line(found)}.\n",
        image(folder, "curve", _curve(config, found)),
        *_beside(found),
        f"`python -m experiments.literature --learner {config.learner} --task {config.task}"
        f"{f' --steps {config.steps}' if config.steps else ''} --seeds {config.seeds}`\n",
    ]
    folder.write("report.md", "\n".join(page).encode())


def _verdict(found: Mapping[str, Any]) -> str:
    less = f" It asks less than the row: {', '.join(found['less_than_asked'])}." if found["less_than_asked"] else ""
    said = {True: "**Passes.**", False: "**Does not pass.**", None: "No line is drawn for this learner."}
    leaks = " **Above what is possible: a leak.**" if any(found.get("above_the_bound", ())) else ""
    return f"{said[found['passed']]}{less}{leaks}"


def _figure(found: Mapping[str, Any]) -> list[str]:
    ends = found["interval"]
    between = "one seed" if ends is None else f"[{ends[0]:.4g}, {ends[1]:.4g}]"
    by_seed = " ".join(f"{value:.4g}" for value in found["by_seed"])
    return [found["learner"], f"{found['figure']:.4g} ({found['statistic']})", between, by_seed]


def _line(found: Mapping[str, Any]) -> str:
    line = found["pass"]
    said = [
        f"{name.replace('_', ' ')} {line[name]:g}"
        for name in ("at_least", "at_most", "no_seed_below")
        if line[name] is not None
    ]
    if "bound" in found:
        said.append(f"not above what is possible, {found['bound']:.5g}, by more than {plan.LEAK:g} standard errors")
    return ", ".join(said) or "no line"


def _curve(config: LiteratureConfig, found: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    values = np.array(found["curve"]["figures"])
    band(
        axes, found["curve"]["steps"], values.mean(0), values.min(0), values.max(0), f"{config.learner}, mean and range"
    )
    for name in ("at_least", "at_most"):
        if found["pass"][name] is not None:
            axes.axhline(found["pass"][name], color="#6b6b6b", linestyle="--", linewidth=0.8)
    if "bound" in found:
        axes.axhline(found["bound"], color="#3a7d44", linewidth=0.8, label="the best possible")
    unit = "meta-iterations" if config.task == SINE else "environment steps"
    axes.set(xlabel=unit, ylabel=found["measure"].split(";")[0][:60], title=f"{config.learner} on {config.task}")
    axes.legend(fontsize=8)
    return figure


def _beside(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, values in found["beside"].items():
        if all(isinstance(value, int | float) for value in values):
            rows.append([name, float(np.mean(values)), f"{min(values):.4g} to {max(values):.4g}"])
        else:
            rows.append([name, "; ".join(dict.fromkeys(map(str, values))), ""])
    return ["Beside it, mean over seeds and range:\n", table(["", "mean", "range"], rows)] if rows else []
