"""The parts of a run of literature, one a training seed, and what its summary says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.study import Part
from experiments.literature.configuration import LiteratureConfig
from metarl_jax.literature.rows import SINE

LEAK = 3.0
"""Standard errors above what is possible at which an agent must have seen what is hidden."""


def check(config: LiteratureConfig) -> None:
    """Refuses a learner that the task does not have, or whose configuration does not fit it."""
    config.check_pair()
    if config.task != SINE:
        from metarl_jax.literature import settings

        settings.configuration(config.task, config.learner)


def announce(config: LiteratureConfig) -> str:
    """What will be done, in one line."""
    unit = "meta-iterations" if config.task == SINE else "steps"
    return f"literature: {config.learner} on {config.task}, {config.seeds} seeds of {config.length} {unit}"


def parts(config: LiteratureConfig) -> Sequence[Part]:
    """One training seed after another."""
    if config.task == SINE:
        return [_sine(config, config.seed + i) for i in range(config.seeds)]
    shared: list[Any] = []  # programs are compiled for the first seed that is not stored
    return [_seed(config, config.seed + i, shared) for i in range(config.seeds)]


def _sine(config: LiteratureConfig, seed: int) -> Part:
    def compute(results: Mapping[str, Any]) -> dict[str, Any]:
        from metarl_jax.literature import sine

        return sine.learn(config.learner, config.length, config.looks, seed)

    return Part(f"seed{seed}", compute)


def _seed(config: LiteratureConfig, seed: int, shared: list[Any]) -> Part:
    def compute(results: Mapping[str, Any]) -> dict[str, Any]:
        from metarl_jax.literature import study

        if not shared:
            shared.append(study.Bench.of(config.task, config.learner, config.episodes))
        return shared[0].learn(config.length, config.looks, seed)

    return Part(f"seed{seed}", compute)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean over seeds by Student's t (percentiles of few seeds undercover); None of one seed."""
    from scipy import stats

    if len(values) < 2:
        return None
    x = np.asarray(values, np.float64)
    half = float(stats.t.ppf(0.975, len(x) - 1)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()) - half, float(x.mean()) + half


def shortfalls(config: LiteratureConfig) -> list[str]:
    """In what a run asks less of itself than the row does, a sentence each."""
    row, found = config.row, []
    if config.seeds < row.seeds:
        found.append(f"{config.seeds} of {row.seeds} seeds")
    if config.length < row.steps:
        found.append(f"{config.length} of {row.steps} steps of training")
    return found


def summary(config: LiteratureConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of ``summary.json``."""
    from metarl_jax.statistics import interquartile_mean

    row, seeds = config.row, list(results.values())
    values = [seed["figure"] for seed in seeds]
    figure = float(interquartile_mean(values)) if row.statistic == "iqm" else float(np.mean(values))
    low, high = row.band(config.learner)
    inside = (low is None or figure >= low) and (high is None or figure <= high)
    if row.least_seed is not None:
        inside = inside and min(values) >= row.least_seed
    found: dict[str, Any] = {
        "task": config.task,
        "learner": config.learner,
        "measure": row.measure,
        "figure": figure,
        "statistic": row.statistic,
        "interval": interval(values),
        "by_seed": values,
        "published": row.published,
        "source": row.source,
        "pass": {"at_least": low, "at_most": high, "no_seed_below": row.least_seed},
        "passed": inside if (low, high) != (None, None) else None,
        "less_than_asked": shortfalls(config),
        "curve": {"steps": [x for x, _ in seeds[0]["curve"]], "figures": [[y for _, y in s["curve"]] for s in seeds]},
        "beside": {
            name: [seed[name] for seed in seeds] for name in seeds[0] if name not in ("figure", "curve", "agent")
        },
    }
    if row.bound is not None and all(seed["standard_error"] is not None for seed in seeds):
        above = [seed["figure"] - row.bound - LEAK * seed["standard_error"] for seed in seeds]
        found |= {"bound": row.bound, "above_the_bound": [value > 0 for value in above]}
    if "agent" in seeds[0]:
        found["agent"] = seeds[0]["agent"]
    return found
