"""Markdown of a study's report: tables, and figures as files beside the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.report.figures import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from experiments.harness.runs import RunFolder


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with eight digits."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(_cell(entry) for entry in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _cell(entry: Any) -> str:
    if isinstance(entry, bool) or entry is None:
        return {True: "yes", False: "no", None: ""}[entry]
    return f"{entry:.8g}" if isinstance(entry, float) else str(entry)


def image(folder: RunFolder, name: str, figure: Figure) -> str:
    """Writes ``figures/<name>.png``; returns its Markdown."""
    folder.write(f"figures/{name}.png", png(figure))
    return f"![{name}](figures/{name}.png)\n"


def band(axis: Axes, x: Sequence[float], middle: Any, low: Any, high: Any, label: str) -> None:
    """A line, and a band around it."""
    (line,) = axis.plot(x, middle, marker=".", label=label)
    axis.fill_between(x, low, high, alpha=0.2, color=line.get_color())
