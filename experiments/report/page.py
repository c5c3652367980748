"""Everything a finished transfer run leaves behind: tables, figures, raw returns and one page that reads on its own."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from experiments import figures, tables
from experiments.cli import to_mapping
from experiments.config import TransferConfig
from experiments.plan import LEFT_OUT, OWN, Place
from experiments.results import Results, save_arrays
from experiments.runs import METRICS, VALIDATION, VERSIONS, RunFolder, write_atomically
from experiments.tables import Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #1c1c1c }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 13px; margin: .8em 0 } caption { text-align: left; font-weight: 600 }
th, td { border: 1px solid #d5d5d5; padding: .25em .6em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead { background: #f2f2f2 }
div.scroll { overflow-x: auto } img { max-width: 100% } pre { font-size: 12px; background: #f7f7f7; padding: 1em }
dt { font-weight: 600 }
p.note { color: #555; font-size: 13px; margin-top: 0 }
ul.headline { background: #f3f7fb; padding: 1em 1em 1em 2em }
"""

HOW_TO_READ = """
<p>Rows of the matrix are what an agent was trained on, columns the domain on whose new tasks it was tested. Agents that
were trained on all domains but some were tested on these: they alone show transfer from many fields to a new one.
Few-shot adaptation shows as a score at the largest K above the score at K=0 and above random weights, lost when the
support is another task's or carries no rewards. A high score at K=0 is skill that needs no adaptation. Negative
scores are worse than the better of random and doing nothing.</p>
"""

DEFINITIONS = """
<dl>
<dt>Task</dt><dd>A domain with its hidden parameters drawn anew; agents never see these parameters.</dd>
<dt>K</dt><dd>Support episodes: whole episodes of the task that the agent plays before it is tested. K=0 is the
agent without adaptation (zero-shot).</dd>
<dt>Score</dt><dd>(J - floor) / (J_reference - floor). J is the undiscounted return of query episodes on fresh noise
with exploration off, floor the better of random and no-op. Numerator and denominator are summed over the tasks of a
domain before they are divided. All policies meet the same tasks and the same noise. Nothing is clipped.</dd>
<dt>cost_ratio (in scores.csv)</dt><dd>J / J_reference. Where returns are costs, 1.1 is ten per cent dearer.</dd>
<dt>Interval</dt><dd>95 % percentile bootstrap, 2000 resamples, training seeds and evaluation tasks resampled
independently.</dd>
<dt>Arms reference and rl-only</dt><dd>With and without the cross-entropy to the reference policy's action in the
outer loss. The reference is used in training only; adaptation and tests never see it.</dd>
<dt>Random weights</dt><dd>The source agents' network before training, adapted on the same K episodes; each arm is
compared with as many draws of its own as it has seeds.</dd>
<dt>Multitask</dt><dd>The same network without memory and without meta-learning, trained on many domains; fine-tuned
by as many gradient steps on the same episodes, with the best of a few step sizes on validation tasks of its training
domains.</dd>
<dt>Other task's support</dt><dd>The K episodes come from another task of the domain. What is left of the score is
not knowledge of the task.</dd>
<dt>Rewards zeroed</dt><dd>The K episodes without their rewards.</dd>
<dt>Strict success</dt><dd>A (seed, cell) pair with a score of 0.5 or more at the largest K, whose paired 95 %
interval over tasks lies above 0 both against the multitask agent at K=0 and against the heuristic that does not
know the task.</dd>
</dl>
"""

LIMITATIONS = """
<ul>
<li>Seeds are the unit of evidence. With fewer than about ten, percentile intervals are shorter than they should
be.</li>
<li>An agent in a domain it was not trained on normalises rewards by the mean and deviation of its K support
episodes; in its own domain it uses the scale it met in training. Random weights always use the former.</li>
<li>Random weights adapt with the initial inner step sizes, trained agents with those they learned.</li>
<li>Intervals of different cells are not corrected for their number; of many cells some differ by chance.</li>
<li>Scores are relative to the reference of each domain; where that is a heuristic, 1 is not the optimum.</li>
<li>All agents are tested on the same tasks: another draw of tasks is another benchmark.</li>
</ul>
"""


def csv_text(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as CSV; numbers as the shortest text that reads back to the same bits."""
    rows = list(rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def html_table(table: Table) -> str:
    """One table as HTML."""

    def row(cells: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells)}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll"><table><caption>{html.escape(table.title)}</caption>'
        f"<thead>{row(table.header, 'th')}</thead><tbody>\n{body}\n</tbody></table></div>{note}"
    )


def image(path: pathlib.Path) -> str:
    """A PNG inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A page of headed sections, each HTML."""
    body = "\n".join(f"<h2>{html.escape(heading)}</h2>\n{content}" for heading, content in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def bullets(lines: Iterable[str], kind: str = "") -> str:
    """A list."""
    return f'<ul class="{kind}">{"".join(f"<li>{html.escape(line)}</li>" for line in lines)}</ul>'


def preformatted(content: Any) -> str:
    """Nested values as YAML."""
    return f"<pre>{html.escape(yaml.safe_dump(content, sort_keys=False))}</pre>"


def training_cost(metrics: list[dict[str, Any]]) -> Table:
    """What each agent's training took, over all interruptions."""
    rows = []
    for agent in dict.fromkeys(entry["agent"] for entry in metrics):
        lines = [entry for entry in metrics if entry["agent"] == agent]
        seconds = sum(entry["seconds"] for entry in lines)
        steps = sum(entry["env_steps_per_second"] * entry["seconds"] for entry in lines)
        updates = sum(entry["updates_per_second"] * entry["seconds"] for entry in lines)
        compiling = sum(entry["compiling"] for entry in lines)
        rows.append([agent, f"{seconds:,.0f}", f"{compiling:,.0f}", f"{updates:,.0f}", f"{steps:,.0f}"])
    header = ["agent (all members)", "training s", "compiling s", "outer gradient steps", "environment steps"]
    return Table("Cost of training", header, rows)


def validation(results: Results, folder: RunFolder) -> Table:
    """Scores on training domains of the agents that had something to choose there or were not tested there."""
    rows = []
    for agent in results.agents:
        for arm, found in (folder.read_json(f"agents/{agent.id}/{VALIDATION}") or {}).items():
            scores = ", ".join(f"{label}: {tables.number(score)}" for label, score in found["scores"].items())
            rows.append([agent.label, arm, found["chosen"], scores])
    return Table(
        "Validation tasks of the training domains",
        ["agent", "arm", "chosen", f"score at K={results.most} (and at K=0), mean over training domains"],
        rows,
    )


def summary(results: Results, verdicts: dict[tuple[str, Place], Any], lines: list[str]) -> dict[str, Any]:
    """The numbers of the console tables, for programs; undefined numbers are null."""

    def interval(agent: Any, arm: str, target: str, condition: Any) -> list[float | None]:
        found = results.score(agent, arm, target, condition)
        return [None if np.isnan(x) else round(x, 6) for x in (found.estimate, found.low, found.high)]

    scores: dict[str, Any] = {}
    for agent in results.agents:
        for arm in results.arms:
            scores.setdefault(agent.label, {})[arm] = {
                target: {c.label: interval(agent, arm, target, c) for c in results.conditions}
                for target in results.tested(agent)
            }
    return {
        "protocol": results.protocol,
        "seeds": results.seeds,
        "headline": lines,
        "verdicts": {
            arm: {place: dataclasses.asdict(v) for (its, place), v in verdicts.items() if its == arm}
            for arm in results.arms
        },
        "scores": scores,
    }


def write(results: Results, config: TransferConfig, folder: RunFolder, usage: dict[str, Any]) -> None:
    """Writes all files of a finished run and prints its tables."""
    verdicts = tables.verdicts(results)
    lines = tables.headline(results, verdicts)
    scores = {arm: tables.scores(results, arm) for arm in results.arms}
    claimed = [place for place in (OWN, LEFT_OUT) if results.cells(place)]
    controls = [tables.controls(results, arm, place) for arm in results.arms for place in claimed]
    aggregate = tables.aggregate(results)

    write_atomically(folder.path / "scores.csv", csv_text(results.rows()).encode())
    raw = {f"returns/{agent}/{target}": array for (agent, target), array in results.returns.items()}
    for name, target in results.targets.items():
        raw |= {f"anchors/{name}/{policy}": array for policy, array in target.anchors.items()}
    raw["conditions"] = np.array([condition.label for condition in results.conditions])
    save_arrays(folder.path / "returns.npz", raw)
    folder.write_json("summary.json", summary(results, verdicts, lines) | {"usage": usage})

    metrics = folder.metrics()
    heat_maps = {
        arm: figures.save(figures.heat_map(results, arm), folder.figures / f"matrix_{arm}.png") for arm in results.arms
    }
    curves = figures.save(figures.adaptation_curves(results), folder.figures / "adaptation.png")
    drawn = figures.training_curves(metrics)
    training = "" if drawn is None else image(figures.save(drawn, folder.figures / "training.png"))
    sections = [
        ("What the run shows", bullets(lines, "headline")),
        ("How to read it", HOW_TO_READ),
        (
            "Who can do what where",
            "".join(image(heat_maps[arm]) + "".join(map(html_table, its)) for arm, its in scores.items()),
        ),
        ("Adaptation curves", image(curves)),
        ("Controls", "".join(map(html_table, [*controls, aggregate]))),
        ("Differences", html_table(tables.gains(results))),
        ("Domains", html_table(tables.anchors(results))),
        ("Training", training + html_table(training_cost(metrics)) + html_table(validation(results, folder))),
        ("Definitions", DEFINITIONS),
        ("Limitations", LIMITATIONS),
        ("Configuration", preformatted(to_mapping(config))),
        ("Versions and cost", preformatted((folder.read_json(VERSIONS) or {}) | usage)),
    ]
    text = page(f"Transfer between domains: {config.protocol}, {len(config.domains)} domains", sections)
    write_atomically(folder.path / "report.html", text.encode())

    console = Console()
    tables.on_console([*itertools.chain(*scores.values()), *controls, aggregate], lines, console)
    console.print(
        f"report: {folder.path / 'report.html'}; scores: {folder.path / 'scores.csv'}; log: {folder.path / METRICS}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
