"""Means over domains and counts of domains: what a run comes to, for each kind of cell. Free of jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.plan import HELD_OUT, IN_DOMAIN, ONE_AGENT, Setting, TrainingRun
from experiments.report.results import Condition, Results, above
from metarl_jax import statistics
from metarl_jax.statistics import Floats, Interval

Cells = Sequence[tuple[TrainingRun, str]]

GROUPS: Mapping[str, Setting] = {"one_agent": ONE_AGENT, "single": IN_DOMAIN, "left_out": HELD_OUT}
"""Names for programs of the kinds of cells with one agent for each target."""

VIEW = 1.0
"""Figures show scores from minus to plus this, and clipped means are clipped there: random weights may be a hundred
times worse than doing nothing."""

RESAMPLES = 2000
HIGH = 0.8
"""A score that is counted as high."""

TOLERANCE = 1e-6
"""Headroom up to this fraction of the returns themselves is none; see ``metarl_jax.statistics.pooled_score``."""


def mean(results: Results, arm: str, cells: Cells, condition: Condition, limit: float = np.inf) -> Interval:
    """Mean over cells of the pooled score, with its 95 % interval over seeds and tasks.

    Seeds are resampled once for each agent: what one training run does in several domains is not independent evidence.
    Tasks are resampled for each cell. The domains are those of the suite and are not resampled. Domains without
    headroom have no score and are left out; so are the resamples in which another one has none.

    Args:
      results: of the run.
      arm: whose replicas.
      cells: agents and targets.
      condition: what the agents were given.
      limit: each cell's score is clipped to plus or minus this before the mean is taken; infinity clips nothing.
    """
    groups = [
        {target: results.task_returns(agent, arm, target, condition) for its, target in cells if its == agent}
        for agent in dict.fromkeys(agent for agent, _ in cells)
    ]
    return mean_of(results, groups, limit)


def mean_of(
    results: Results,
    groups: Sequence[Mapping[str, Floats]],
    limit: float = np.inf,
    less: Mapping[str, Floats] | None = None,
) -> Interval:
    """:func:`mean` of any task returns, or of what they are above others.

    Args:
      results: of the run.
      groups: of each agent or policy, task returns ``[S, B]`` by target.
      limit: see :func:`mean`.
      less: task returns ``[S, B]`` or ``[B]`` by target whose score is taken off; seeds and tasks are resampled
        together.
    """
    rng = np.random.default_rng(0)
    estimates: list[float] = []
    draws: list[Floats] = []
    for returns_of in groups:
        count = len(next(iter(returns_of.values())))
        seeds = _counts(rng, count)
        for target, returns in returns_of.items():
            at = results.baselines[target]
            floor, reference = (np.asarray(a, np.float64) for a in (at.floor, at.reference))
            tasks = _counts(rng, len(floor))
            other = None if less is None else np.broadcast_to(np.asarray(less[target], np.float64), returns.shape)
            # Nothing is resampled for the estimate.
            score = statistics.hierarchical_bootstrap(returns, floor, reference, other, resamples=1).estimate
            if np.isnan(score):
                continue
            base = floor if other is None else other
            gain = ((seeds @ (returns - base)) * tasks).sum(-1)
            headroom = count * (tasks @ (reference - floor))
            usable = headroom > TOLERANCE * count * (tasks @ (np.abs(reference) + np.abs(floor)))
            draws.append(np.divide(gain, headroom, out=np.full(RESAMPLES, np.nan), where=usable))
            estimates.append(score)
    if not estimates:
        return Interval(np.nan, np.nan, np.nan)
    resampled = np.clip(np.stack(draws), -limit, limit).mean(0)  # NaN stays NaN
    finite = resampled[~np.isnan(resampled)]
    low, high = np.quantile(finite, [0.025, 0.975]) if finite.size else (np.nan, np.nan)
    estimate = float(np.clip(estimates, -limit, limit).mean())
    return Interval(estimate, float(low), float(high), degenerate=RESAMPLES - finite.size)


def _counts(rng: np.random.Generator, units: int) -> Floats:
    """How often each unit was drawn, ``f64[RESAMPLES, units]``."""
    return rng.multinomial(units, np.full(units, 1 / units), size=RESAMPLES).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Counts:
    """In how many domains what is hoped for came true, of a group of cells of one arm. K is the largest one.

    "By interval" and "apart" are about 95 % intervals over seeds and tasks, the latter about two that do not overlap.

    Attributes:
      domains: cells that have a score.
      gains: K lies above K=0, intervals apart.
      swap_lowers: another task's support lowers the score at K, intervals apart.
      own_above_swapped: own support scores higher than another task's, by the estimates.
      above_floor: the score at K is above 0, by the estimate.
      above_floor_by_interval: its whole interval is.
      below_floor_by_interval: its whole interval is below 0.
      high: the score at K is at least :data:`HIGH`.
      lowest: the lowest score at K.
      lowest_in: the domain that has it.
    """

    domains: int
    gains: int
    swap_lowers: int
    own_above_swapped: int
    above_floor: int
    above_floor_by_interval: int
    below_floor_by_interval: int
    high: int
    lowest: float | None
    lowest_in: str | None


def count(results: Results, arm: str, cells: Cells) -> Counts:
    """Counts for a group of cells."""
    most = results.most

    def scores(condition: Condition) -> list[Interval]:
        return [results.score(agent, arm, target, condition) for agent, target in cells]

    every = zip(scores(Condition(most)), scores(Condition(0)), scores(Condition(most, "swap")), cells, strict=True)
    scored = [row for row in every if not np.isnan(row[0].estimate)]
    lowest = min(scored, key=lambda row: row[0].estimate, default=None)
    return Counts(
        domains=len(scored),
        gains=sum(above(own, before) for own, before, _, _ in scored),
        swap_lowers=sum(above(own, swapped) for own, _, swapped, _ in scored),
        own_above_swapped=sum(own.estimate > swapped.estimate for own, _, swapped, _ in scored),
        above_floor=sum(own.estimate > 0 for own, *_ in scored),
        above_floor_by_interval=sum(own.low > 0 for own, *_ in scored),
        below_floor_by_interval=sum(own.high < 0 for own, *_ in scored),
        high=sum(own.estimate >= HIGH for own, *_ in scored),
        lowest=None if lowest is None else lowest[0].estimate,
        lowest_in=None if lowest is None else lowest[3][1],
    )


def rounded(found: Interval) -> list[float | None]:
    """``[estimate, low, high]`` for programs; undefined numbers are None."""
    return [None if np.isnan(x) else round(x, 6) for x in (found.estimate, found.low, found.high)]


def by_domain(results: Results, setting: Setting) -> dict[str, dict[str, list[float | None]]]:
    """``{domain: {"K=0": [estimate, low, high], ...}}`` of the first arm; empty where the run has no such cells."""
    arm = results.arms[0]
    return {
        target: {c.label: rounded(results.score(agent, arm, target, c)) for c in results.conditions}
        for agent, target in results.cells(setting)
    }


def by_group(results: Results, arm: str) -> dict[str, dict[str, Any]]:
    """Of each group of cells that the run has: means over its domains, and counts."""
    found: dict[str, dict[str, Any]] = {}
    most = Condition(results.most)
    for name, setting in GROUPS.items():
        if cells := results.cells(setting):
            means = {c.label: rounded(mean(results, arm, cells, c)) for c in results.conditions}
            means[f"{most.label} clipped to [-1, 1]"] = rounded(mean(results, arm, cells, most, VIEW))
            untrained = [(results.untrained, target) for _, target in cells]
            means[f"random weights {most.label}"] = rounded(mean(results, arm, untrained, most))
            found[name] = means | {"counts": dataclasses.asdict(count(results, arm, cells))}
    return found


def at_home(results: Results, arm: str, validated: Mapping[str, Any]) -> dict[str, float]:
    """Mean score ``{"K=5": ..., "K=0": ...}`` of the agents with domains left out in the domains they were trained on.

    They are not tested there, but scored on validation tasks. Empty where that was not kept.

    Args:
      results: of the run.
      arm: whose replicas.
      validated: what :func:`experiments.report.tables.validation` takes.
    """
    agents = dict.fromkeys(agent for agent, _ in results.cells(HELD_OUT))
    found = [((validated.get(agent.id) or {}).get(arm) or {}).get("training domains") for agent in agents]
    known = [scores for scores in found if scores]
    if not known or len(known) < len(agents):
        return {}
    return {label: float(np.mean([scores[label] for scores in known])) for label in known[0]}
