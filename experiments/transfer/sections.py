"""What the report of a transfer run says: the page's texts, and everything that a finished run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from experiments.harness.plan import CROSS_DOMAIN, HELD_OUT, IN_DOMAIN, ONE_AGENT, TrainingRun
from experiments.harness.returns import Measured
from experiments.harness.runs import METRICS, VALIDATION, VERSIONS, RunFolder
from experiments.harness.values import to_mapping
from experiments.report import figures, opening, tables
from experiments.report.page import bullets, csv_text, html_table, image, page, preformatted, summary
from experiments.report.results import Results, conditions
from experiments.transfer.configuration import TransferConfig

HOW_TO_READ = f"""
<p class="note">{opening.SCALE} In the curves a band is a 95 % interval, × the score with another task's episodes, the
green line a heuristic that does not know the task. Axes end at ±1; what lies beyond is a triangle at the edge.
Rows of the matrix are what an agent was trained on, columns the domain on whose new tasks it was tested.
Adaptation shows as a score at the largest K above K=0 and above random weights, lost when the episodes are another
task's or carry no rewards. A high score at K=0 is skill that needs no adaptation.</p>
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


def results_of(config: TransferConfig[Any], plan: tuple[TrainingRun, ...], measured: Measured) -> Results:
    """The results that scores and verdicts are computed from."""
    doses = conditions(config.evaluation.support_episodes)
    return Results(config.protocol, config.seeds, config.arms, doses, plan, measured.baselines, measured.returns)


def write(
    config: TransferConfig[Any],
    plan: tuple[TrainingRun, ...],
    measured: Measured,
    folder: RunFolder,
    usage: Mapping[str, Any],
) -> None:
    """Writes scores, summary, figures and page of a finished run, and prints its tables."""
    results = results_of(config, plan, measured)
    verdicts = tables.verdicts(results)
    metrics = folder.metrics()
    validated = {run.id: folder.read_json(f"agents/{run.id}/{VALIDATION}", "it is left out") for run in plan}
    said, lines = opening.sentences(results), tables.headline(results, verdicts, validated)
    scores = [table for arm in results.arms for table in tables.scores(results, arm)]
    counts, aggregate = tables.counts(results), tables.aggregate(results)
    claimed = [setting for setting in results.settings if setting != CROSS_DOMAIN]
    controls = [tables.controls(results, arm, setting) for arm in results.arms for setting in claimed]

    curves = {"one_agent": ONE_AGENT, "left_out": HELD_OUT}
    drawn = {name: figures.domain_curves(results, its) for name, its in curves.items() if its in claimed}
    drawn |= {f"matrix_{arm}": figures.heat_map(results, arm) for arm in results.arms}
    if IN_DOMAIN in claimed:
        drawn["adaptation"] = figures.adaptation_curves(results)
    if (training := figures.training_curves(metrics)) is not None:
        drawn["training"] = training
    pngs = {name: figures.png(figure) for name, figure in drawn.items()}
    shown = {name: image(name, content) for name, content in pngs.items()}

    cost = html_table(tables.training_cost(metrics)) + html_table(tables.validation(results, validated))
    made_by = (folder.read_json(VERSIONS, "it is left out") or {}) | dict(usage)
    sections = [
        ("What the run shows", bullets(said, "opening") + HOW_TO_READ),
        ("One agent for all domains", shown.get("one_agent", "")),
        ("Domains left out", shown.get("left_out", "")),
        ("Who can do what where", "".join(shown[f"matrix_{arm}"] for arm in results.arms)),
        ("Counts", html_table(counts) + bullets(lines, "headline")),
        ("Scores", "".join(map(html_table, scores))),
        ("Single sources", shown.get("adaptation", "")),
        ("Controls", "".join(map(html_table, [*controls, aggregate]))),
        ("Differences", html_table(tables.gains(results))),
        ("Domains", html_table(tables.baselines(results))),
        ("Training", shown.get("training", "") + cost),
        ("Definitions", DEFINITIONS),
        ("Limitations", LIMITATIONS),
        ("Configuration", preformatted(to_mapping(config))),
        ("Versions and cost", preformatted(made_by)),
    ]
    kept = [(heading, content) for heading, content in sections if content]
    text = page(f"Transfer between domains: {config.protocol}, {len(config.domains)} domains", kept)

    folder.write("scores.csv", csv_text(results.rows()).encode())
    folder.write_json("summary.json", summary(results, verdicts, said, lines, validated) | {"usage": dict(usage)})
    for name, content in pngs.items():
        folder.write(f"figures/{name}.png", content)
    folder.write("report.html", text.encode())

    console = Console()
    tables.on_console([*scores, counts, *controls, aggregate], lines, console, said)
    written = (
        f"report: {folder.path / 'report.html'}; scores: {folder.path / 'scores.csv'}; log: {folder.path / METRICS}"
    )
    console.print(written, markup=False, highlight=False, soft_wrap=True)
