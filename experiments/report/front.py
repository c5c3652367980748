"""How good against how fast: the front of many methods, and means over seeds and test cases with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Front = Mapping[str, Mapping[str, Any]]
"""By method: ``mean``, ``median``, ``p90`` of a gap, ``microseconds`` a solve, ``failed`` solves, not in the mean."""


def interval(values: Any) -> tuple[float, float, float]:
    """Mean over seeds and cases ``[seeds][cases]``, and a 95 % bootstrap interval over cases."""
    by_case = np.asarray(values, float).mean(0)
    draws = np.random.default_rng(0).integers(0, len(by_case), (2000, len(by_case)))
    low, high = np.quantile(by_case[draws].mean(1), (0.025, 0.975))
    return float(by_case.mean()), float(low), float(high)


def percent(values: Any) -> str:
    """:func:`interval` as text."""
    mean, low, high = interval(values)
    return f"{100 * mean:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def ranked(front: Front) -> list[str]:
    """Names on the front: no other method is at once as fast and as close; the fastest first."""
    best, kept = np.inf, []
    for name in sorted(front, key=lambda name: (front[name]["microseconds"], front[name]["mean"])):
        if front[name]["mean"] < best:
            best = front[name]["mean"]
            kept.append(name)
    return kept


def plot(front: Front, least: float = 1e-6) -> Figure:
    """Gap against time on logarithmic axes, the front in red; gaps below ``least`` are drawn there."""
    kept = set(ranked(front))
    figure = Figure(figsize=(11, 6), layout="constrained")
    axis = figure.subplots()
    for name, point in front.items():
        gap = max(point["mean"], least)
        axis.loglog(point["microseconds"], gap, "o" if name in kept else ".", color="C3" if name in kept else "C0")
        axis.annotate(name, (point["microseconds"], gap), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axis.set(xlabel="CPU time an instance [us]", ylabel=f"mean certified gap; exact solvers at {least:g}")
    return figure


def rows(front: Front) -> list[list[Any]]:
    """Rows of a table, the fastest first: method, mean, median, 90 %, microseconds, failed, on the front."""
    kept = set(ranked(front))
    return [
        [
            name,
            *(f"{100 * p[k]:.3g} %" for k in ("mean", "median", "p90")),
            p["microseconds"],
            p["failed"],
            name in kept,
        ]
        for name, p in sorted(front.items(), key=lambda item: item[1]["microseconds"])
    ]


def advice(front: Front, rules: Sequence[str]) -> str:
    """Who should use the learned solvers of these rules and who should not, as this front says."""
    order = ranked(front)
    kept = [name for name in order if name.startswith(("network", *rules))]
    exact = min((front[name] for name in front if name.startswith("interior point")), key=lambda p: p["mean"])
    proof = f"{100 * exact['mean']:.1g} % in {exact['microseconds']:.0f} us"
    if not kept:
        return (
            "**On this clock the learned solvers are nowhere on the front: nobody should use them here; the interior "
            f"point certifies {proof}.**\n"
        )

    def point(name: str) -> str:
        return f"{name}: {100 * front[name]['mean']:.2g} % in {front[name]['microseconds']:.0f} us"

    def spend(name: str) -> str:
        return f"{front[name]['microseconds']:.0f} us"

    before, after = order[: order.index(kept[0])], order[order.index(kept[-1]) + 1 :]
    text = f"Who can spend {spend(kept[0])} of CPU on an instance{f' and not {spend(after[0])}' if after else ''} "
    text += f"should use the learned solver ({'; '.join(map(point, kept))}). "
    if before:
        text += f"Who can spend less should not ({point(before[-1])}). "
    if after:
        text += f"Who can spend more should not ({point(after[0])}). "
    text += f"Who needs all that can be proved should take the interior point ({proof})."
    return (
        f"**{text}** "
        "A gap is proved without the optimum for every instance, so that one that is too large can be solved again.\n"
    )
