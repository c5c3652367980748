"""Tables and sentences of a transfer run, as text: the console and the HTML report show the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from experiments.harness.plan import HELD_OUT, IN_DOMAIN, ONE_AGENT, Setting, TrainingRun
from experiments.report import means
from experiments.report.results import Condition, Results, Verdict, verdict
from metarl_jax.statistics import Interval

COVERAGE = ((3, 75), (5, 84), (10, 90), (32, 94))
"""Measured coverage in % of a nominal 95 % percentile interval over n runs; see ``metarl_jax.statistics``."""

WIDE = 6
"""More targets than this do not fit a console with intervals."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def number(value: float) -> str:
    """Two decimals; ``n/a`` where undefined."""
    return "n/a" if value != value else f"{value:z.2f}"


def shown(interval: Interval) -> str:
    """``0.45 [0.30, 0.61]``."""
    if interval.estimate != interval.estimate:
        return "n/a"
    return f"{number(interval.estimate)} [{number(interval.low)}, {number(interval.high)}]"


SCALE = "0 = better of random and doing nothing, 1 = reference policy that knows the task; not clipped."


CONTROLS = {"none": "", "swap": ", other task's support", "zero": ", rewards zeroed"}
"""What a column says of a condition's control."""


def scores(results: Results, arm: str) -> list[Table]:
    """Score of every agent in every domain it was tested in: the one agent, the domains left out, the matrix."""
    made = {ONE_AGENT: one_agent, HELD_OUT: unseen, IN_DOMAIN: matrix}
    return [make(results, arm) for setting, make in made.items() if setting in results.settings]


def one_agent(results: Results, arm: str) -> Table:
    """Domains in rows; the score of the agent of all domains under every condition, and the means."""
    cells, head = results.cells(ONE_AGENT), [f"K={c.episodes}{CONTROLS[c.control]}" for c in results.conditions]
    rows = [
        [
            target,
            *(shown(results.score(agent, arm, target, c)) for c in results.conditions),
            _heuristic(results, [(agent, target)]),
        ]
        for agent, target in cells
    ]
    mean = [shown(means.mean(results, arm, cells, c)) for c in results.conditions]
    return Table(
        f"One agent for all domains, score on new tasks [95 %], arm {arm}",
        ["domain", *head, "heuristic"],
        [*rows, ["mean", *mean, _heuristic(results, cells)]],
        f"{SCALE} {MEANS}",
    )


MEANS = "The mean is over domains; its interval resamples seeds and tasks, not domains."


def _heuristic(results: Results, cells: means.Cells) -> str:
    """Mean score of the heuristic over the targets that have a score."""
    found = [results.baseline_score("heuristic", target) for _, target in cells]
    kept = [score for score in found if score == score]
    return number(sum(kept) / len(kept)) if kept else "n/a"


def unseen(results: Results, arm: str) -> Table:
    """Domains left out in rows; score under every condition, and the means as they are and clipped."""
    cells, most = results.cells(HELD_OUT), Condition(results.most)
    untrained = [(results.untrained, target) for _, target in cells]

    def mean(limit: float = float("inf")) -> list[str]:
        asked = [(cells, c) for c in results.conditions] + [(untrained, most)]
        return [shown(means.mean(results, arm, those, c, limit)) for those, c in asked]

    rows = [
        [
            target,
            *(shown(results.score(agent, arm, target, c)) for c in results.conditions),
            shown(results.score(results.untrained, arm, target, most)),
            _heuristic(results, [(agent, target)]),
        ]
        for agent, target in cells
    ]
    groups = dict.fromkeys(", ".join(agent.left_out) for agent, _ in cells if len(agent.left_out) > 1)
    together = f" Left out together: {'; '.join(groups)}." if groups else ""
    clipped = f"mean of scores clipped to [-{means.VIEW:.0f}, {means.VIEW:.0f}]"
    return Table(
        f"Score in the domain left out [95 %], arm {arm}",
        [
            *("left out", *(f"K={c.episodes}{CONTROLS[c.control]}" for c in results.conditions)),
            *(f"random weights, {most.label}", "heuristic"),
        ],
        [*rows, ["mean", *mean(), _heuristic(results, cells)], [clipped, *mean(means.VIEW), ""]],
        f"{SCALE} {MEANS}{together}",
    )


def counts(results: Results) -> Table:
    """Of every arm and group of cells: the mean score, and in how many domains what is hoped for came true."""
    most = Condition(results.most)
    rows = []
    for arm in results.arms:
        for setting in means.GROUPS.values():
            if not (cells := results.cells(setting)):
                continue
            found = means.count(results, arm, cells)
            lowest = "n/a" if found.lowest is None else f"{number(found.lowest)} {found.lowest_in}"
            rows.append(
                [
                    f"{arm}: {setting}",
                    *(shown(means.mean(results, arm, cells, c)) for c in (Condition(0), most)),
                    *(f"{n} of {found.domains}" for n in (found.gains, found.swap_lowers, found.own_above_swapped)),
                    *(str(n) for n in (found.above_floor, found.above_floor_by_interval, found.high)),
                    lowest,
                ]
            )
    return Table(
        "Means and counts over domains",
        [
            *("arm: cells", "mean K=0", f"mean {most.label}", f"{most.label} above K=0"),
            *("another task's support lowers", "own above swapped"),
            *("above 0", "above 0 by interval", f"at least {means.HIGH}", "lowest"),
        ],
        rows,
        'First two counts: intervals apart. "Own above swapped" and "above 0": by the estimates. '
        f"All counts are of scores at {most.label}.",
    )


def matrix(results: Results, arm: str) -> Table:
    """Sources in rows, targets in columns; score at K=0 and at the largest K with its interval."""
    most = results.most
    short = len(results.baselines) > WIDE

    def cell(agent: TrainingRun, target: str) -> str:
        before = number(results.score(agent, arm, target, Condition(0)).estimate)
        adapted = results.score(agent, arm, target, Condition(most))
        return f"{before} → {number(adapted.estimate) if short else shown(adapted)}"

    return Table(
        f"Score K=0 → K={most} [95 %], arm {arm}",
        ["trained on \\ tested on", *results.baselines],
        [
            [agent.domain, *(cell(agent, target) for target in results.baselines)]
            for agent in results.sources
            if not agent.left_out
        ],
        SCALE,
    )


def comparisons(results: Results, agent: TrainingRun) -> list[tuple[str, TrainingRun, Condition]]:
    """A source agent and its controls: label, agent, condition."""
    most, multitask = results.most, results.multitask(agent)
    return [
        ("agent K=0", agent, Condition(0)),
        (f"agent K={most}", agent, Condition(most)),
        (f"agent K={most}, other task's support", agent, Condition(most, "swap")),
        (f"agent K={most}, rewards zeroed", agent, Condition(most, "zero")),
        (f"random weights K={most}", results.untrained, Condition(most)),
        ("multitask K=0", multitask, Condition(0)),
        (f"multitask K={most}, fine-tuned", multitask, Condition(most)),
    ]


def controls(results: Results, arm: str, setting: Setting) -> Table:
    """Every control of a kind of cells with one agent for each target: controls in rows, targets in columns."""
    cells = results.cells(setting)
    short = len(cells) > WIDE
    columns = []
    for agent, target in cells:
        scores = [results.score(who, arm, target, given) for _, who, given in comparisons(results, agent)]
        heuristic = number(results.baseline_score("heuristic", target))
        columns.append([*(number(s.estimate) if short else shown(s) for s in scores), heuristic])
    labels = [label for label, *_ in comparisons(results, results.sources[0])]
    return Table(
        f"Controls, {setting}, arm {arm}",
        ["", *(target for _, target in cells)],
        [list(row) for row in zip([*labels, "heuristic"], *columns, strict=True)],
        "Heuristic: the strongest rule known that sees only what an agent sees.",
    )


def aggregate(results: Results) -> Table:
    """Interquartile means over cells and seeds."""
    groups = {setting: results.cells(setting) for setting in results.settings}
    rows = []
    for arm in results.arms:
        for i, (label, *_) in enumerate(comparisons(results, results.sources[0])):
            row = []
            for cells in groups.values():
                asked = [(comparisons(results, agent)[i], target) for agent, target in cells]
                those = list(dict.fromkeys((who, target) for (_, who, _), target in asked))
                row.append(shown(results.overall(arm, those, asked[0][0][2])) if asked else "none")
            rows.append([f"{arm}: {label}", *row])
    return Table(
        "Interquartile mean over cells and seeds [95 %, seeds resampled within each training run]",
        ["arm: condition", *groups],
        rows,
    )


def gains(results: Results) -> Table:
    """Paired differences of every cell."""
    most = Condition(results.most)
    rows = []
    for arm in results.arms:
        for agent in results.sources:
            for target in results.tested(agent):
                adapted = results.task_returns(agent, arm, target, most)
                others = [
                    results.task_returns(agent, arm, target, Condition(0)),
                    results.task_returns(results.untrained, arm, target, most),
                    results.task_returns(results.multitask(agent), arm, target, Condition(0)),
                    results.task_returns(results.multitask(agent), arm, target, most),
                ]
                cells = [shown(results.gain(target, adapted, other)) for other in others]
                rows.append([f"{arm}: {agent.domain} → {target}", *cells])
    return Table(
        f"Score at K={results.most} less that of ... [95 %, paired: seeds and tasks resampled together]",
        ["arm: cell", "itself at K=0", "random weights, same K", "multitask K=0", "multitask, same K"],
        rows,
    )


def baselines(results: Results) -> Table:
    """What scores are measured against."""
    rows = []
    for name, target in results.baselines.items():
        means = [f"{target.returns[policy].mean():,.4g}" for policy in ("random", "noop", "heuristic", "reference")]
        without = int((target.reference <= target.floor).sum())
        kind = "exact optimum" if target.reference_kind == "optimal" else "heuristic, scores may exceed 1"
        tasks = f"{without} of {len(target.reference)}"
        rows.append([name, target.unit, *means, number(results.baseline_score("heuristic", name)), kind, tasks])
    return Table(
        "Anchors: mean return of an episode over the evaluation tasks",
        [
            *("domain", "unit", "random", "no-op", "heuristic", "reference"),
            *("heuristic's score", "the reference is", "tasks without headroom"),
        ],
        rows,
    )


def _of(found: list[str], cells: list[str]) -> str:
    return f"{len(found)} of {len(cells)}"


def _sentence(results: Results, arm: str, setting: Setting, found: Verdict) -> str:
    most = results.most
    worse = f"; it is worse than K=0 in {', '.join(found.worse_than_zero_shot)}" if found.worse_than_zero_shot else ""
    both = f" ({', '.join(found.beats_both)})" if 0 < len(found.beats_both) <= WIDE else ""
    return (
        f"{arm}, {setting}: with {most} support episodes the agent beats itself at K=0 in "
        f"{_of(found.beats_zero_shot, found.cells)} cells, random weights adapted on as many episodes in "
        f"{_of(found.beats_random, found.cells)}, both in {_of(found.beats_both, found.cells)}{both}{worse}. "
        f"Given another task's support it falls in {_of(found.swap_collapses, found.cells)}, "
        f"with rewards zeroed in {_of(found.zero_collapses, found.cells)}. It beats the multitask agent without "
        f"adaptation in {_of(found.beats_multitask, found.cells)}. Strict successes: {found.strict} of {found.trials} "
        "(seed, cell) pairs."
    )


def headline(
    results: Results, verdicts: Mapping[tuple[str, Setting], Verdict], validated: Mapping[str, Any]
) -> list[str]:
    """What the run shows, computed from it: one sentence group for every arm and kind of cell.

    Args:
      results: of the run.
      verdicts: of every arm and kind of cell.
      validated: what :func:`validation` takes.
    """
    lines = [_sentence(results, arm, setting, found) for (arm, setting), found in verdicts.items() if found.cells]
    for arm in results.arms:
        if home := means.at_home(results, arm, validated):
            scored = ", ".join(f"{number(score)} at {label}" for label, score in home.items())
            lines.append(
                f"{arm}: agents with domains left out score {scored} in the domains they were trained on "
                "(means over agents; validation tasks)."
            )
    lines.append('"Beats" and "falls": the two 95 % intervals (over seeds and tasks) do not overlap.')
    return lines + few_seeds(results.seeds)


def few_seeds(seeds: int) -> list[str]:
    """What must be said of intervals over so few seeds; nothing where there are enough."""
    if seeds == 1:
        return ["One seed: intervals cover tasks only and say nothing about another training run."]
    if seeds >= COVERAGE[-1][0]:
        return []
    n, percent = max((c for c in COVERAGE if c[0] <= max(seeds, 3)), key=lambda c: c[0])
    return [f"{seeds} seeds: intervals are too short; over {n} runs a nominal 95 % covers about {percent} %."]


def verdicts(results: Results) -> dict[tuple[str, Setting], Verdict]:
    """A verdict for every arm and kind of cell."""
    return {
        (arm, setting): verdict(results, arm, results.cells(setting))
        for arm in results.arms
        for setting in results.settings
    }


def training_cost(metrics: list[dict[str, Any]]) -> Table:
    """What each agent's training took, over all interruptions."""
    rows = []
    for agent in dict.fromkeys(entry["agent"] for entry in metrics):
        lines = [entry for entry in metrics if entry["agent"] == agent]
        seconds = sum(entry["seconds"] for entry in lines)
        steps = sum(entry["env_steps_per_second"] * entry["seconds"] for entry in lines)
        updates = sum(entry["gradient_steps_per_second"] * entry["seconds"] for entry in lines)
        compiling = sum(entry["compiling"] for entry in lines)
        rows.append([agent, f"{seconds:,.0f}", f"{compiling:,.0f}", f"{updates:,.0f}", f"{steps:,.0f}"])
    header = ["agent (all replicas)", "training s", "compiling s", "outer gradient steps", "environment steps"]
    return Table("Cost of training", header, rows)


def validation(results: Results, validated: Mapping[str, Any]) -> Table:
    """Scores on training domains of the agents that had something to choose there or were not tested there.

    Args:
      results: of the run.
      validated: by training run's id: ``{arm: {"chosen": label, "scores": {label: score}}}``,
        and ``"training domains": {"K=5": score, "K=0": score}`` of agents that are tested elsewhere.
    """
    rows = []
    for agent in results.agents:
        for arm, found in (validated.get(agent.id) or {}).items():
            scores = ", ".join(f"{label}: {number(score)}" for label, score in found["scores"].items())
            known = ", ".join(f"{k}: {number(score)}" for k, score in found.get("training domains", {}).items())
            rows.append([agent.label, arm, found["chosen"], scores, known])
    compared = f"score at K={results.most} of what was compared, on a few training domains"
    return Table(
        "Validation tasks of the training domains",
        ["agent", "arm", "chosen", compared, "of the chosen one, on all training domains"],
        rows,
    )


def on_console(tables: Iterable[Table], lines: Iterable[str], console: Console, opening: Iterable[str] = ()) -> None:
    """Prints what the report opens with, then tables, then sentences."""
    if not console.is_terminal:
        console = Console(
            file=console.file, width=200
        )  # a pipe has no width; wrapped cells would be hard to read and to search
    for line in opening:
        console.print(f"{line}\n", markup=False, highlight=False)
    for table in tables:
        rich_table = RichTable(title=table.title, caption=table.note or None, title_justify="left")
        for i, name in enumerate(table.header):
            rich_table.add_column(name, justify="left" if i == 0 else "right")
        for row in table.rows:
            rich_table.add_row(*row)
        console.print(rich_table)
    for line in lines:
        console.print(f"• {line}", markup=False, highlight=False)
