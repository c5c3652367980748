"""Learners side by side in one arm: one table, where one of them is beaten, and what each was given. Free of jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.plan import TrainingRun
from experiments.harness.treatment import TOLERANCE, Treatment
from experiments.report import means
from experiments.report.opening import ARMS
from experiments.report.results import BASELINES, Condition, Results
from experiments.report.tables import CONTROLS, MEANS, SCALE, WIDE, Table, number, shown
from metarl_jax.statistics import Floats, Interval


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the training of one agent took, all seeds together but for gradient steps; see ``metrics.jsonl``.

    Attributes:
      gradient_steps: of one seed.
      cpu_seconds: of training, without compiling.
      cpu_compiling: before the first step: compiling, and the first batch.
    """

    gradient_steps: float
    cpu_seconds: float
    cpu_compiling: float


@dataclasses.dataclass(frozen=True)
class Beaten:
    """Where a learner is beaten by another learner or by a rule: paired 95 % intervals of the difference above 0.

    Attributes:
      by: the other's name.
      mean: the other's score less the learner's, a mean over domains.
      domains: where the other's is higher.
      behind: where the other's is lower.
      scored: how many domains have a score.
    """

    by: str
    mean: Interval
    domains: list[str]
    behind: list[str]
    scored: int


def costs(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Cost]:
    """What training took, by training run's id, over all interruptions."""
    found: dict[str, Cost] = {}
    for agent in dict.fromkeys(entry["agent"] for entry in metrics):
        lines = sorted((e for e in metrics if e["agent"] == agent), key=lambda e: e["iteration"])
        before = [0, *(line["iteration"] for line in lines)]
        steps = [np.mean(line["metrics"].get("gradient_steps", 0.0)) for line in lines]
        found[agent] = Cost(
            float(sum((line["iteration"] - b) * s for line, b, s in zip(lines, before, steps, strict=False))),
            sum(line["cpu_seconds"] for line in lines),
            sum(line["cpu_compiling"] for line in lines),
        )
    return found


def adapted(results: Results, agent: TrainingRun, condition: Condition) -> dict[str, Floats]:
    """Task returns ``[S, B]`` of an agent by domain."""
    (arm,) = results.arms
    return {target: results.task_returns(agent, arm, target, condition) for target in results.tested(agent)}


def of_rule(results: Results, policy: str) -> dict[str, Floats]:
    """Task returns ``[1, B]`` of a rule by domain: it has no seeds."""
    return {target: np.asarray(at.returns[policy], np.float64)[None] for target, at in results.baselines.items()}


def against(results: Results, ours: TrainingRun, name: str, theirs: Mapping[str, Floats]) -> Beaten:
    """Where ours is beaten by another, at the largest K."""
    own = adapted(results, ours, Condition(results.most))
    full = {target: np.broadcast_to(theirs[target], returns.shape) for target, returns in own.items()}
    gains = {target: results.gain(target, full[target], returns) for target, returns in own.items()}
    return Beaten(
        name,
        means.mean_of(results, [full], less=own),
        [target for target, gain in gains.items() if gain.low > 0],
        [target for target, gain in gains.items() if gain.high < 0],
        sum(gain.estimate == gain.estimate for gain in gains.values()),
    )


def beaten(results: Results, name: str) -> list[Beaten]:
    """One learner against every other and against the rules that do not know the task, the hardest first.

    Empty if it is not among the learners.
    """
    ours = next((agent for agent in results.agents if agent.learner == name), None)
    if ours is None:
        return []
    others = {agent.learner: adapted(results, agent, Condition(results.most)) for agent in results.agents}
    del others[name]
    others |= {rule: of_rule(results, rule) for rule in BASELINES if rule != "reference"}
    found = [against(results, ours, other, theirs) for other, theirs in others.items()]
    return sorted(found, key=lambda one: -one.mean.estimate)


def _in(names: Sequence[str], scored: int) -> str:
    return f"in {len(names)} of {scored} domains" + (f" ({', '.join(names)})" if 0 < len(names) <= 4 else "")


def sentence(results: Results, name: str) -> str:
    """Where a learner is beaten, first; then whom it beats. Of one arm, computed from the results."""
    (arm,) = results.arms
    told = ARMS[arm].capitalize()
    duels = beaten(results, name)
    if not duels:
        return f"{told}: {name} is not among the learners."
    worse = [duel for duel in duels if duel.mean.low > 0 or duel.domains]
    better = [duel.by for duel in duels if duel.mean.high < 0]
    open_ = [duel.by for duel in duels if duel.mean.low <= 0 <= duel.mean.high]
    lost = "; ".join(
        f"by {duel.by} {'on average and ' if duel.mean.low > 0 else ''}{_in(duel.domains, duel.scored)}, "
        f"mean difference {shown(duel.mean)}"
        for duel in worse
    )
    parts = [
        f"{name} is beaten {lost}" if worse else f"{name} is beaten by none of {len(duels)} others, in no domain",
        *([f"it beats {', '.join(better)} on average"] if better else []),
        *([f"on average it cannot be told from {', '.join(open_)}"] if open_ else []),
    ]
    return f"{told}, K={results.most}: {'; '.join(parts)}."


def _told_apart(given: Mapping[str, Treatment], spent: Mapping[str, Cost], name: str) -> str:
    """Whose choices and gradient steps differ from those of the learner by more than the tolerance."""
    if name not in given:
        return ""
    steps = {other: spent[other].gradient_steps if other in spent else 0.0 for other in given}
    compared = {
        "environment choices": ({other: its.choices for other, its in given.items()}, "times as many"),
        "gradient steps": (steps, "times as many"),
    }
    found = []
    for what, (of, times) in compared.items():
        if not of[name]:
            continue
        ratios = {other: value / of[name] for other, value in of.items()}
        apart = [f"{other} {ratio:.2g}" for other, ratio in ratios.items() if abs(ratio - 1) > TOLERANCE]
        if apart:
            found.append(f"{what}, {times} as {name}: {', '.join(apart)}")
    limit = f"differ by more than {TOLERANCE:.0%}"
    return f" Not equal ({limit}): {'; '.join(found)}." if found else f" No choices or gradient steps {limit}."


def table(
    results: Results, name: str, given: Mapping[str, Treatment], spent: Mapping[str, Cost], note: str = ""
) -> Table:
    """Learners in rows, the highest score first, then the rules; means over domains, and what each was given.

    Args:
      results: of one arm.
      name: the learner that the others are compared with.
      given: by learner.
      spent: by learner.
      note: more that must be known to read it.
    """
    (arm,) = results.arms
    most, duels = Condition(results.most), {duel.by: duel for duel in beaten(results, name)}

    def duel(other: str) -> list[str]:
        if other not in duels:
            return ["", ""]
        one = duels[other]
        return [shown(one.mean), f"{len(one.domains)} / {len(one.behind)} of {one.scored}"]

    rows = []
    for agent in results.agents:
        scores = {c: means.mean_of(results, [adapted(results, agent, c)]) for c in results.conditions}
        its, cost = given[agent.learner], spent.get(agent.learner, Cost(0.0, 0.0, 0.0))
        rows.append(
            (
                scores[most].estimate,
                [
                    *(agent.learner, *map(shown, scores.values()), *duel(agent.learner)),
                    f"{its.most_support} {its.support}, trained with {its.trained_support}",
                    *(its.data, f"{its.choices:,.0f}", f"{cost.gradient_steps:,.0f}", f"{its.parameters:,}"),
                    *(str(its.candidates), f"{cost.cpu_seconds:,.0f}", f"{cost.cpu_compiling:,.0f}"),
                ],
            )
        )
    ranked = [row for _, row in sorted(rows, key=lambda row: -row[0] if row[0] == row[0] else np.inf)]
    for rule in BASELINES:
        score = shown(means.mean_of(results, [of_rule(results, rule)]))
        ranked.append([rule, *[score] * len(results.conditions), *duel(rule), *[""] * 8])
    head = [f"K={c.episodes}{CONTROLS[c.control]}" for c in results.conditions]
    return Table(
        f"Learners {ARMS[arm]} (arm {arm}): mean score over {len(results.baselines)} domains, new tasks [95 %]",
        [
            *("learner", *head, f"{most.label} less {name}'s", "domains above / below it"),
            *("support episodes", "training data", "choices", "gradient steps", "parameters"),
            *("candidates", "training CPU-s", "compiling CPU-s"),
        ],
        ranked,
        f"{SCALE} {MEANS} Choices and gradient steps are of one seed, CPU-seconds of all {results.seeds}."
        f"{_told_apart(given, spent, name)}{note and ' ' + note}",
    )


def halves(whole: Table) -> list[Table]:
    """The table of :func:`table` as two that fit a console: scores, and what each learner was given."""
    cut = whole.header.index("support episodes")
    given = [[row[0], *row[cut:]] for row in whole.rows if any(row[cut:])]
    return [
        Table(whole.title, whole.header[:cut], [row[:cut] for row in whole.rows], whole.note),
        Table("What each was given", [whole.header[0], *whole.header[cut:]], given),
    ]


def by_domain(results: Results) -> Table:
    """Domains in rows, learners and rules in columns; scores at the largest K, of many learners without intervals."""
    (arm,) = results.arms
    most, short = Condition(results.most), len(results.agents) > WIDE

    def cell(agent: TrainingRun, target: str) -> str:
        score = results.score(agent, arm, target, most)
        return number(score.estimate) if short else shown(score)

    rows = [
        [
            target,
            *(cell(agent, target) for agent in results.agents),
            *(number(results.baseline_score(rule, target)) for rule in BASELINES),
        ]
        for target in results.baselines
    ]
    header = ["domain", *(agent.learner for agent in results.agents), *BASELINES]
    return Table(f"Score at {most.label} by domain [95 %], arm {arm}", header, rows, SCALE)


def summary(results: Results, name: str, given: Mapping[str, Treatment], spent: Mapping[str, Cost]) -> dict[str, Any]:
    """Numbers of one arm for programs; undefined ones are null."""
    (arm,), most = results.arms, Condition(results.most)

    def of(agent: TrainingRun) -> dict[str, Any]:
        scores = {
            c.label: means.rounded(means.mean_of(results, [adapted(results, agent, c)])) for c in results.conditions
        }
        domains = {t: means.rounded(results.score(agent, arm, t, most)) for t in results.tested(agent)}
        cost = dataclasses.asdict(spent[agent.learner]) if agent.learner in spent else None
        return {"mean": scores, "domains": domains, "given": dataclasses.asdict(given[agent.learner]), "cost": cost}

    duels = beaten(results, name)
    return {
        "learners": {agent.learner: of(agent) for agent in results.agents},
        "against": {d.by: dataclasses.asdict(d) | {"mean": means.rounded(d.mean)} for d in duels},
    }
