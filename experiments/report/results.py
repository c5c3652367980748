"""What a transfer run measured, and the scores, intervals and verdicts that follow from it. Free of jax.

Raw returns stay as they were measured, ``f32[M, C, B, E]``: replicas (arms times seeds), conditions, tasks, query
episodes. Everything else is computed from them here, by :mod:`metarl_jax.statistics`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from experiments.harness.plan import HELD_OUT, ONE_AGENT, SETTINGS, Setting, TrainingRun, multitask_beside
from metarl_jax import statistics
from metarl_jax.statistics import Floats, Interval

BASELINES = ("random", "noop", "heuristic", "reference")
"""Policies that every domain's returns are compared with."""

Control = Literal["none", "swap", "zero"]


@dataclasses.dataclass(frozen=True)
class Condition:
    """What an agent was given before its query episodes: ``metarl_jax.evaluation.Condition`` without jax.

    Attributes:
      episodes: K, support episodes of the task.
      control: "none": the task's own support; "swap": another task's; "zero": its own with every reward set to 0.
    """

    episodes: int
    control: Control = "none"

    @property
    def label(self) -> str:
        """Short name for tables: ``K=5``, ``K=5 swap``."""
        return f"K={self.episodes}" + ("" if self.control == "none" else f" {self.control}")


def conditions(support_episodes: Sequence[int]) -> tuple[Condition, ...]:
    """Own support at every K, and both controls at the largest: the order of the axis C of returns."""
    most = max(support_episodes)
    controls = (Condition(most, "swap"), Condition(most, "zero")) if most > 0 else ()
    return tuple(Condition(k) for k in sorted(support_episodes)) + controls


@dataclasses.dataclass(frozen=True)
class DomainBaselines:
    """What the returns in one domain are compared with.

    Attributes:
      returns: mean return ``f32[B]`` per task of each policy of :data:`BASELINES`.
      unit: of the returns.
      reference_kind: "optimal" or "heuristic".
    """

    returns: Mapping[str, np.ndarray]
    unit: str
    reference_kind: str

    @property
    def floor(self) -> np.ndarray:
        """``max(random, no-op)`` per task."""
        return np.maximum(self.returns["random"], self.returns["noop"])

    @property
    def reference(self) -> np.ndarray:
        """Return of the reference policy per task."""
        return self.returns["reference"]


@dataclasses.dataclass(frozen=True)
class Results:
    """A finished run.

    Attributes:
      protocol: how agents were trained.
      seeds: S, independent runs of every arm.
      arms: objectives; every agent's replicas are arm by arm, S each.
      conditions: C, what agents were given before their query episodes.
      agents: all of them.
      baselines: of every domain, in the order of the tables.
      returns: ``f32[M, C, B, E]`` by agent id and target.
    """

    protocol: str
    seeds: int
    arms: tuple[str, ...]
    conditions: tuple[Condition, ...]
    agents: tuple[TrainingRun, ...]
    baselines: Mapping[str, DomainBaselines]
    returns: Mapping[tuple[str, str], np.ndarray]
    _known: dict[Any, Interval] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def most(self) -> int:
        """The largest K."""
        return max(condition.episodes for condition in self.conditions)

    @property
    def support_episodes(self) -> tuple[int, ...]:
        """All K, ascending."""
        return tuple(sorted({condition.episodes for condition in self.conditions}))

    @property
    def sources(self) -> tuple[TrainingRun, ...]:
        """The agents whose adaptation is measured; all others are controls."""
        return tuple(agent for agent in self.agents if agent.role == "source")

    @property
    def untrained(self) -> TrainingRun:
        """The random-weights control."""
        return next(agent for agent in self.agents if agent.role == "random weights")

    def multitask(self, agent: TrainingRun) -> TrainingRun:
        """The multitask control of a source agent."""
        return multitask_beside(agent, self.agents)

    def tested(self, agent: TrainingRun) -> list[str]:
        """The targets that an agent was tested on, in the order of the tables."""
        return [target for target in self.baselines if (agent.id, target) in self.returns]

    def task_returns(self, agent: TrainingRun, arm: str, target: str, condition: Condition) -> Floats:
        """Mean query return ``f64[S, B]`` of each seed on each task."""
        first = self.arms.index(arm) * self.seeds
        raw = self.returns[agent.id, target][first : first + self.seeds, self.conditions.index(condition)]
        return np.asarray(raw, np.float64).mean(-1)

    def seed_scores(self, agent: TrainingRun, arm: str, target: str, condition: Condition) -> Floats:
        """Pooled score ``f64[S]`` of each seed."""
        at = self.baselines[target]
        returns = self.task_returns(agent, arm, target, condition)
        return statistics.pooled_score(returns, at.floor, at.reference).score

    def score(self, agent: TrainingRun, arm: str, target: str, condition: Condition) -> Interval:
        """Pooled score with its interval over seeds and tasks."""
        asked = (agent, arm, target, condition)
        if asked not in self._known:  # tables and figures ask for the same ones
            at = self.baselines[target]
            self._known[asked] = statistics.hierarchical_bootstrap(self.task_returns(*asked), at.floor, at.reference)
        return self._known[asked]

    def gain(self, target: str, one: Floats, other: Floats) -> Interval:
        """Difference of two arms' scores, from their task returns ``[S, B]``, tasks and seeds resampled together."""
        at = self.baselines[target]
        return statistics.hierarchical_bootstrap(one, at.floor, at.reference, other)

    def baseline_score(self, policy: str, target: str) -> float:
        """Pooled score of a baseline policy."""
        at = self.baselines[target]
        return float(statistics.pooled_score(at.returns[policy], at.floor, at.reference).score)

    def cells(self, setting: Setting) -> list[tuple[TrainingRun, str]]:
        """Source agents and targets of one kind, by target in the order of the tables if there is one agent each."""
        found = [(agent, t) for agent in self.sources for t in self.tested(agent) if agent.setting(t) == setting]
        order = list(self.baselines)
        return sorted(found, key=lambda cell: order.index(cell[1])) if setting == HELD_OUT else found

    @property
    def one_agent(self) -> TrainingRun | None:
        """The source agent of all domains, if there is one."""
        return next((agent for agent, _ in self.cells(ONE_AGENT)), None)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The kinds of cells that this run has."""
        return tuple(setting for setting in SETTINGS if self.cells(setting))

    def overall(self, arm: str, cells: Sequence[tuple[TrainingRun, str]], condition: Condition) -> Interval:
        """Interquartile mean over cells and seeds.

        A training run's cells stay together when its seeds are resampled: what one run does in several domains is not
        independent evidence. Domains without headroom have no score and are left out.
        """
        strata = []
        for agent in dict.fromkeys(agent for agent, _ in cells):
            scores = [self.seed_scores(agent, arm, target, condition) for a, target in cells if a == agent]
            kept = [column for column in scores if not np.isnan(column).any()]
            if kept:
                strata.append(np.stack(kept, axis=-1))  # [S, targets]
        if not strata:
            return Interval(np.nan, np.nan, np.nan)

        def over_all(resampled: Sequence[Floats]) -> Floats:
            flat = [stratum.reshape(len(stratum), -1) for stratum in resampled]
            return statistics.interquartile_mean(np.concatenate(flat, axis=1), axis=1)

        return statistics.stratified_bootstrap(strata, over_all)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Scores in long format: a row for every agent, arm, target, condition and seed, pooled over tasks."""
        for agent in self.agents:
            for target in self.tested(agent):
                at = self.baselines[target]
                for arm in self.arms:
                    for condition in self.conditions:
                        returns = self.task_returns(agent, arm, target, condition)
                        scores = statistics.pooled_score(returns, at.floor, at.reference)
                        for seed in range(self.seeds):
                            mean, reference = float(returns[seed].mean()), float(at.reference.mean(dtype=np.float64))
                            yield {
                                "protocol": self.protocol,
                                "role": agent.role,
                                "learner": agent.learner,
                                "arm": arm,
                                "trained_on": "+".join(agent.trained_on),
                                "left_out": "+".join(agent.left_out),
                                "target": target,
                                "target_seen": target in agent.trained_on,
                                "seed": seed,
                                "K": condition.episodes,
                                "control": condition.control,
                                "score": float(scores.score[seed]),
                                "return": mean,
                                "floor": float(at.floor.mean(dtype=np.float64)),
                                "reference": reference,
                                "cost_ratio": mean / reference if reference else np.nan,
                                "tasks": scores.tasks,
                                "tasks_without_headroom": scores.degenerate,
                                "unit": at.unit,
                            }


def above(one: Interval, other: Interval) -> bool:
    """Whether the whole interval of one lies above the other's; False where either is undefined."""
    return one.low > other.high


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How often adaptation did what is claimed of it, in a group of cells of one arm.

    "Beats" means that the two 95 % intervals do not overlap. Lists name the cells, ``source -> target``.

    Attributes:
      cells: how many cells.
      beats_zero_shot: K at its largest beats the same agent at K=0.
      beats_random: it beats random weights adapted on as many episodes.
      beats_both: both.
      worse_than_zero_shot: the same agent at K=0 beats it.
      swap_collapses: it beats itself given another task's support.
      zero_collapses: it beats itself given its support without rewards.
      beats_multitask: it beats the multitask agent at K=0.
      strict: (seed, cell) pairs with score 0.5 or more whose paired interval over tasks lies above 0 both against the
        multitask agent at K=0 and against the heuristic that does not know the task.
      trials: (seed, cell) pairs.
    """

    cells: list[str]
    beats_zero_shot: list[str]
    beats_random: list[str]
    beats_both: list[str]
    worse_than_zero_shot: list[str]
    swap_collapses: list[str]
    zero_collapses: list[str]
    beats_multitask: list[str]
    strict: int
    trials: int


def strict_successes(results: Results, agent: TrainingRun, arm: str, target: str) -> int:
    """Seeds that pass the strict test of :class:`Verdict` in one cell."""
    adapted = results.task_returns(agent, arm, target, Condition(results.most))
    multitask = results.task_returns(results.multitask(agent), arm, target, Condition(0))
    blind = np.asarray(results.baselines[target].returns["heuristic"], np.float64)
    scores = results.seed_scores(agent, arm, target, Condition(results.most))
    passed = 0
    for seed in range(results.seeds):
        one = adapted[seed : seed + 1]
        gains = [results.gain(target, one, other) for other in (multitask[seed : seed + 1], blind[None])]
        passed += bool(scores[seed] >= 0.5 and all(gain.low > 0 for gain in gains))
    return passed


def verdict(results: Results, arm: str, cells: Sequence[tuple[TrainingRun, str]]) -> Verdict:
    """Counts for a group of cells."""
    most = results.most
    found: dict[str, list[str]] = {field.name: [] for field in dataclasses.fields(Verdict)}
    strict = 0
    for agent, target in cells:
        name = f"{agent.domain} -> {target}"
        scores = {c: results.score(agent, arm, target, c) for c in results.conditions}
        adapted, before = scores[Condition(most)], scores[Condition(0)]
        random = results.score(results.untrained, arm, target, Condition(most))
        multitask = results.score(results.multitask(agent), arm, target, Condition(0))
        checks = {
            "cells": True,
            "beats_zero_shot": above(adapted, before),
            "beats_random": above(adapted, random),
            "beats_both": above(adapted, before) and above(adapted, random),
            "worse_than_zero_shot": above(before, adapted),
            "swap_collapses": above(adapted, scores[Condition(most, "swap")]),
            "zero_collapses": above(adapted, scores[Condition(most, "zero")]),
            "beats_multitask": above(adapted, multitask),
        }
        for check, holds in checks.items():
            if holds:
                found[check].append(name)
        strict += strict_successes(results, agent, arm, target)
    lists = {name: found[name] for name in found if name not in ("strict", "trials")}
    return Verdict(**lists, strict=strict, trials=len(cells) * results.seeds)
