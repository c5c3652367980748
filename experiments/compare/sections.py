"""What the report of a comparison says: the page's texts, and everything that a finished run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from experiments.compare.configuration import CompareConfig
from experiments.harness import treatment
from experiments.harness.errors import UsageError
from experiments.harness.plan import TrainingRun
from experiments.harness.returns import Measured
from experiments.harness.runs import METRICS, VALIDATION, VERSIONS, RunFolder
from experiments.harness.treatment import Treatment
from experiments.harness.values import to_mapping
from experiments.report import comparison, tables
from experiments.report.page import bullets, csv_text, html_table, page, preformatted
from experiments.report.results import Results, conditions
from experiments.report.tables import Table

PLAYED = "Frozen data were partly played by the reference: with them, reward alone is not all that was learned from."

EQUAL = """
<ul>
<li>Checked before anything is trained, and a difference stops the run by name: training domains, seeds, numbers of
support episodes, tasks and keys of every test, domains on whose validation tasks candidates are compared, labels in
their arm only, no more support in training than in tests, frozen data only where the configuration says so.</li>
<li>Shared by all that have them: network, data, losses' settings, adaptation, fine-tuning; the learning rate and the
weight of the labels by all that train on frozen data. All else is each learner's own default, which nobody tuned
here.</li>
<li>Not equal, and told beside each row: choices, gradient steps, parameters, candidates, CPU-seconds.</li>
</ul>
"""

DEFINITIONS = """
<dl>
<dt>Score</dt><dd>(J - floor) / (J_reference - floor), J the undiscounted return of query episodes on fresh noise with
exploration off, floor the better of random and no-op; summed over a domain's tasks before dividing. All meet the same
tasks and the same noise. Nothing is clipped.</dd>
<dt>Interval</dt><dd>95 % percentile bootstrap, 2000 resamples, seeds and tasks resampled independently; of a
difference, both learners' together. A learner is beaten where the whole interval of the difference lies above 0.</dd>
<dt>Arms</dt><dd>With the reference's choices as labels of the outer loss, or from reward alone. Two tables: a learner
with labels is not compared with one without. Adaptation and tests never see the reference.</dd>
<dt>K, other task's support, rewards zeroed</dt><dd>Support episodes of the task before the test; those of another task
of the domain; the task's own without their rewards.</dd>
<dt>Support, random or own</dt><dd>Uniformly random choices, the same for all, or the learner's own.</dd>
<dt>Training data</dt><dd>Collected as it trains, or frozen: made before, of random support and of queries by a mixture
of behaviours, the reference among them. Frozen data count in full as choices of each learner.</dd>
<dt>Candidates</dt><dd>Ways to adapt, of which validation on tasks of training domains chooses before any test.</dd>
<dt>CPU-seconds</dt><dd>Of this process while it trained, all seeds together. Making frozen data is not in them: they
are made once for all. Compiling is kept apart, and is low where a program was compiled before.</dd>
</dl>
"""

LIMITATIONS = """
<ul>
<li>Tasks are new, domains are not: this says nothing about fields left out of training.</li>
<li>Seeds are the unit of evidence; with fewer than about ten, percentile intervals are too short.</li>
<li>Intervals are not corrected for the number of learners and domains; of many, some differ by chance.</li>
<li>Equal choices are not equal computation, and a budget that suits one learner may starve another.</li>
</ul>
"""


def results_of(config: CompareConfig[Any], plan: tuple[TrainingRun, ...], measured: Measured, arm: str) -> Results:
    """The results of one arm."""
    doses, own = conditions(config.evaluation.support_episodes), tuple(run for run in plan if run.arm == arm)
    return Results("compare", config.seeds, (arm,), doses, own, measured.baselines, measured.returns)


def given_to(folder: RunFolder, plan: tuple[TrainingRun, ...]) -> dict[TrainingRun, Treatment]:
    """What every training run was given, checked once more.

    Raises:
      UsageError: if that of one is missing.
      UnequalTreatmentError: if they were not given the same.
    """
    found = {}
    for run in plan:
        its = treatment.stored(folder, run, "go on with the run, which measures it anew")
        if its is None:
            raise UsageError(f"report: {folder.path / treatment.file_of(run)} is missing or damaged; resume the run")
        found[run] = its
    treatment.check(found)
    return found


def write(
    config: CompareConfig[Any],
    plan: tuple[TrainingRun, ...],
    measured: Measured,
    folder: RunFolder,
    usage: Mapping[str, Any],
) -> None:
    """Writes scores, summary and page of a finished run, and prints its tables."""
    given, spent, name = given_to(folder, plan), comparison.costs(folder.metrics()), config.learner
    said: list[str] = []
    compared: list[Table] = []
    details: list[Table] = []
    found: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for arm in config.arms:
        results = results_of(config, plan, measured, arm)
        own = {run.learner: given[run] for run in results.agents}
        took = {run.learner: spent[run.id] for run in results.agents if run.id in spent}
        validated = {run.id: folder.read_json(f"agents/{run.id}/{VALIDATION}", "it is left out") for run in plan}
        note = PLAYED if arm == "rl-only" and config.reward.data == "frozen" else ""
        said.append(comparison.sentence(results, name))
        compared.append(comparison.table(results, name, own, took, note))
        chosen = tables.validation(results, validated)
        details += [comparison.by_domain(results), *([chosen] if chosen.rows else [])]
        found[arm] = comparison.summary(results, name, own, took)
        rows += results.rows()
    told = [*said, *tables.few_seeds(config.seeds)]
    agents = {run.id: to_mapping(config.agent_of(run)) for run in plan}
    made_by = (folder.read_json(VERSIONS, "it is left out") or {}) | dict(usage)
    text = page(
        f"Learners compared: {len(config.learners)} learners, {len(config.domains)} domains",
        [
            ("What the run shows", bullets(told, "opening")),
            ("Side by side", "".join(map(html_table, compared))),
            ("Equal treatment", EQUAL),
            ("By domain, and what was chosen", "".join(map(html_table, details))),
            ("Anchors", html_table(tables.baselines(results))),
            ("Definitions", DEFINITIONS),
            ("Limitations", LIMITATIONS),
            ("Configuration", preformatted(to_mapping(config))),
            ("Configuration of every agent", preformatted(agents)),
            ("Versions and cost", preformatted(made_by)),
        ],
    )
    folder.write("scores.csv", csv_text(rows).encode())
    folder.write_json("summary.json", {"opening": told, "arms": found, "agents": agents, "usage": dict(usage)})
    folder.write("report.html", text.encode())
    console = Console()
    narrow = [half for whole in compared for half in comparison.halves(whole)]
    tables.on_console([*narrow, *details], [], console, told)
    written = (
        f"report: {folder.path / 'report.html'}; scores: {folder.path / 'scores.csv'}; log: {folder.path / METRICS}"
    )
    console.print(written, markup=False, highlight=False, soft_wrap=True)
