"""Scores, verdicts, tables, figures and the page, on results whose numbers are known beforehand."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
import pathlib
import shutil
from typing import get_args

import numpy as np
import pytest
from rich.console import Console

from experiments.harness import returns as stored
from experiments.harness import runs
from experiments.harness.plan import CROSS_DOMAIN, HELD_OUT, IN_DOMAIN, ONE_AGENT, TrainingRun, multitask_beside
from experiments.harness.returns import Measured
from experiments.report import figures, means, opening, results, tables
from experiments.report.results import Condition, DomainBaselines, Results, conditions
from experiments.transfer import plan, sections
from experiments.transfer.__main__ import command
from experiments.transfer.configuration import PRESETS, Protocol
from metarl_jax import evaluation

DOMAINS = ("energy_trading", "portfolio", "supply_chain")
SEEDS, TASKS, EPISODES = 3, 12, 2
ARMS = ("reference", "rl-only")
CONDITIONS = conditions((0, 1, 5))


def target(headroom: float = 2.0) -> DomainBaselines:
    """Floor -10 by no-op, reference ``headroom`` above it in every task."""
    floor = np.full(TASKS, -10.0, np.float32)
    returns = {"random": floor - 5, "noop": floor, "heuristic": floor + 0.25 * headroom, "reference": floor + headroom}
    return DomainBaselines(returns, "EUR", "optimal")


def skill(agent: TrainingRun, at: str, given: Condition) -> float:
    """The story that the numbers tell: agents adapt at home, from their own support with rewards, and nowhere else."""
    if agent.role == "multitask":
        return 0.3
    if agent.role == "source" and agent.setting(at) != CROSS_DOMAIN:
        return 0.2 + (0.12 * given.episodes if given.control == "none" else 0.0)
    return 0.1 if agent.role == "source" else 0.0


def story(protocol: Protocol = "pairs", headroom: dict[str, float] | None = None, noise: float = 0.02) -> Results:
    targets = {name: target((headroom or {}).get(name, 2.0)) for name in DOMAINS}
    everyone = plan.training_runs(protocol, DOMAINS)
    rng = np.random.default_rng(0)
    returns = {}
    for agent in everyone:
        for name in agent.tested_on(DOMAINS):
            at = targets[name]
            scores = np.array([skill(agent, name, given) for given in CONDITIONS])[None, :, None, None]
            shape = (len(ARMS) * SEEDS, len(CONDITIONS), TASKS, EPISODES)
            scores = scores + noise * rng.standard_normal(shape)
            span = (at.reference - at.floor)[:, None]
            returns[agent.id, name] = (at.floor[:, None] + scores * span).astype(np.float32)
    return Results(protocol, SEEDS, ARMS, CONDITIONS, everyone, targets, returns)


@pytest.fixture(scope="module")
def pairs() -> Results:
    return story()


def single(told: Results, domain: str = "portfolio") -> TrainingRun:
    return next(agent for agent in told.sources if agent.trained_on == (domain,))


def test_scores_are_the_story(pairs: Results) -> None:
    agent = single(pairs)
    own = pairs.score(agent, "rl-only", "portfolio", Condition(5))
    assert own.estimate == pytest.approx(0.8, abs=0.02)
    assert own.low < own.estimate < own.high
    assert pairs.seed_scores(agent, "reference", "portfolio", Condition(5, "swap")) == pytest.approx(
        [0.2] * 3, abs=0.02
    )
    assert pairs.baseline_score("heuristic", "portfolio") == pytest.approx(0.25)
    assert pairs.baseline_score("reference", "portfolio") == pytest.approx(1.0)
    assert pairs.baseline_score("noop", "portfolio") == pytest.approx(0.0)
    gain = pairs.gain(
        "portfolio",
        pairs.task_returns(agent, "reference", "portfolio", Condition(5)),
        pairs.task_returns(agent, "reference", "portfolio", Condition(0)),
    )
    assert gain.estimate == pytest.approx(0.6, abs=0.02)


def test_replicas_of_an_arm_and_condition_are_the_ones_asked_for(pairs: Results) -> None:
    agent = pairs.sources[0]
    raw = pairs.returns[agent.id, "portfolio"]
    asked = pairs.task_returns(agent, "rl-only", "portfolio", Condition(5))
    np.testing.assert_allclose(asked, raw[SEEDS:, CONDITIONS.index(Condition(5))].astype(np.float64).mean(-1))


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_verdict_counts_the_story(protocol: Protocol) -> None:
    found = tables.verdicts(story(protocol))
    known = {ONE_AGENT, IN_DOMAIN, CROSS_DOMAIN}
    asked = {"pairs": known, "leave-out": {HELD_OUT}, "both": known | {HELD_OUT}}[protocol]
    assert {setting for arm, setting in found if arm == "reference"} == asked
    for setting in asked - {CROSS_DOMAIN}:
        home = found["reference", setting]
        assert len(home.cells) == 3
        assert home.beats_both == home.beats_zero_shot == home.swap_collapses == home.zero_collapses == home.cells
        assert home.beats_multitask == home.cells
        assert (home.strict, home.trials) == (9, 9)
    if CROSS_DOMAIN not in asked:
        return
    away = found["reference", CROSS_DOMAIN]
    assert len(away.cells) == 6
    assert away.beats_zero_shot == away.swap_collapses == away.beats_multitask == []
    assert away.beats_random == away.cells
    assert (away.strict, away.trials) == (0, 18)


def test_domains_are_left_out_in_groups() -> None:
    names = tuple("abcdefg")
    assert plan.left_out(names, 3) == (("a", "d", "g"), ("b", "e"), ("c", "f"))
    assert plan.left_out(names, 0) == plan.left_out(names, 9) == tuple((name,) for name in names)
    agents = plan.training_runs("both", names, 3)
    assert [(a.role, len(a.trained_on), a.left_out) for a in agents[10:]] == [
        (role, 7 - len(group), group) for role in ("source", "multitask") for group in plan.left_out(names, 3)
    ]
    assert len({agent.id for agent in agents}) == len(agents) == 1 + 1 + 7 + 1 + 3 + 3
    for agent in agents[10:]:
        assert not set(agent.trained_on) & set(agent.tested_on(names))
        assert multitask_beside(agent, agents).trained_on == agent.trained_on


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_every_protocol_has_its_tables_and_figures(protocol: Protocol) -> None:
    told = story(protocol)
    made = [table.title.split(" [")[0] for table in tables.scores(told, "reference")]
    one, unseen = "One agent for all domains, score on new tasks", "Score in the domain left out"
    matrix = "Score K=0 → K=5"
    asked = {"pairs": [one, matrix], "leave-out": [unseen], "both": [one, unseen, matrix]}
    assert made == asked[protocol]
    for setting in {ONE_AGENT, IN_DOMAIN, HELD_OUT} & set(told.settings):
        rows = {
            row[0]: [float(cell.split()[0]) for cell in row[1:]]
            for row in tables.controls(told, "reference", setting).rows
        }
        assert rows["agent K=5"] == pytest.approx([0.8] * 3, abs=0.03)
        assert rows["agent K=0"] == pytest.approx([0.2] * 3, abs=0.03)
    figures.heat_map(told, "reference").savefig(io.BytesIO())
    for setting in {ONE_AGENT, HELD_OUT} & set(told.settings):
        figures.domain_curves(told, setting).savefig(io.BytesIO())
    if protocol != "leave-out":
        figures.adaptation_curves(told).savefig(io.BytesIO())


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_one_agent_and_left_out_for_programs(protocol: Protocol) -> None:
    """``{domain: {"K=5": [estimate, low, high]}}`` of the first arm; empty where the run has none."""
    told = story(protocol)
    assert (told.one_agent is None) == (protocol == "leave-out")
    there = {
        ONE_AGENT: () if protocol == "leave-out" else DOMAINS,
        HELD_OUT: () if protocol == "pairs" else DOMAINS,
    }
    for setting, domains in there.items():
        found = means.by_domain(told, setting)
        assert tuple(found) == domains
        for at in domains:
            assert list(found[at]) == ["K=0", "K=1", "K=5", "K=5 swap", "K=5 zero"]
            estimate, low, high = found[at]["K=5"]
            assert estimate == pytest.approx(0.8, abs=0.02)
            assert low < estimate < high
            assert found[at]["K=5 swap"][0] == pytest.approx(0.2, abs=0.02)
    groups = means.by_group(told, "reference")
    assert (
        set(groups)
        == {"pairs": {"one_agent", "single"}, "leave-out": {"left_out"}, "both": {"one_agent", "single", "left_out"}}[
            protocol
        ]
    )
    for group in groups.values():
        assert group["K=5"][0] == pytest.approx(0.8, abs=0.02)
        counted = group["counts"]
        assert [counted[name] for name in ("domains", "gains", "swap_lowers", "own_above_swapped")] == [3] * 4
        assert [counted[name] for name in ("above_floor", "above_floor_by_interval", "below_floor_by_interval")] == [
            3,
            3,
            0,
        ]


def test_a_mean_is_of_domains_and_clipped_on_demand(pairs: Results) -> None:
    """One domain far below the floor rules the mean, and the clipped mean by no more than -1."""
    one = pairs.one_agent
    assert one is not None
    at = pairs.baselines["portfolio"]
    bad = pairs.returns | {
        (one.id, "portfolio"): pairs.returns[one.id, "portfolio"] - 20 * (at.reference - at.floor)[0]
    }
    sunk = dataclasses.replace(pairs, returns=bad)
    cells, most = sunk.cells(ONE_AGENT), Condition(5)
    scores = [sunk.score(agent, "reference", target, most).estimate for agent, target in cells]
    mean, clipped = (means.mean(sunk, "reference", cells, most, limit) for limit in (np.inf, 1.0))
    assert mean.estimate == pytest.approx(np.mean(scores))
    assert clipped.estimate == pytest.approx(np.clip(scores, -1, 1).mean())
    assert mean.estimate < -5 < -1 < clipped.estimate
    for found in (mean, clipped):
        assert found.low < found.estimate < found.high
    counted = means.count(sunk, "reference", cells)
    assert (counted.above_floor, counted.below_floor_by_interval, counted.lowest_in) == (2, 1, "portfolio")


def test_seeds_of_one_agent_are_resampled_together() -> None:
    """What a training run does in all domains is one piece of evidence: the interval is as wide as that of one domain.

    Agents of one domain each have runs of their own, so the interval of their mean shrinks by the root of the domains.
    """
    told = story(noise=0.0)
    shift = np.array([-0.3, 0.0, 0.3], np.float32)[:, None, None, None] * 2.0
    moved = {key: (array + np.tile(shift, (len(ARMS), 1, 1, 1))).astype("f4") for key, array in told.returns.items()}
    told = dataclasses.replace(told, returns=moved)
    width = {
        setting: (lambda found: found.high - found.low)(
            means.mean(told, "reference", told.cells(setting), Condition(5))
        )
        for setting in (ONE_AGENT, IN_DOMAIN)
    }
    alone = told.score(single(told), "reference", "portfolio", Condition(5))
    assert width[ONE_AGENT] == pytest.approx(alone.high - alone.low, rel=0.05)
    assert width[IN_DOMAIN] == pytest.approx(width[ONE_AGENT] / np.sqrt(3), rel=0.2)


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_the_opening_says_what_came_out(protocol: Protocol) -> None:
    asked, came_out, beware = opening.sentences(story(protocol))
    assert ("3 kinds of allocation problem" in asked) == (protocol != "leave-out")
    assert ("left out of its training" in asked) == (protocol != "pairs")
    assert "0.80" in came_out
    assert ("left out agents score 0.8" in came_out) == (protocol != "pairs")
    assert ("this run tested none" in beware) == (protocol == "pairs")
    assert "there are 3 training runs" in beware


def test_what_agents_with_domains_left_out_know() -> None:
    told = story("both")
    agents = [agent for agent, _ in told.cells(HELD_OUT)]
    kept = {
        agent.id: {"reference": {"training domains": {"K=5": score, "K=0": 0.1}}}
        for agent, score in zip(agents, (0.4, 0.6, 0.8), strict=True)
    }
    assert means.at_home(told, "reference", kept) == pytest.approx({"K=5": 0.6, "K=0": 0.1})
    assert means.at_home(told, "rl-only", kept) == {}
    assert means.at_home(told, "reference", kept | {agents[0].id: None}) == {}
    assert any("score 0.60 at K=5, 0.10 at K=0" in line for line in tables.headline(told, {}, kept))


def test_overall_is_the_interquartile_mean_of_cells(pairs: Results) -> None:
    home = pairs.overall("reference", pairs.cells(IN_DOMAIN), Condition(5))
    assert home.estimate == pytest.approx(0.8, abs=0.02)
    away = pairs.overall("reference", pairs.cells(CROSS_DOMAIN), Condition(5))
    assert away.estimate == pytest.approx(0.1, abs=0.02)


def test_a_domain_without_headroom_is_named_and_not_scored() -> None:
    broken = story(headroom={"portfolio": 0.0})
    assert tables.shown(broken.score(broken.sources[0], "reference", "portfolio", Condition(5))) == "n/a"
    assert not np.isnan(broken.overall("reference", broken.cells(IN_DOMAIN), Condition(5)).estimate)
    assert "portfolio -> portfolio" not in tables.verdicts(broken)["reference", IN_DOMAIN].beats_both
    row = next(row for row in tables.baselines(broken).rows if row[0] == "portfolio")
    assert row[-1] == f"{TASKS} of {TASKS}"
    for found in tables.matrix(broken, "reference").rows:
        assert found[2] == "n/a → n/a"
    figures.heat_map(broken, "reference").savefig(io.BytesIO())
    figures.adaptation_curves(broken).savefig(io.BytesIO())


def test_nothing_to_score_at_all() -> None:
    empty = story(headroom=dict.fromkeys(DOMAINS, 0.0))
    assert np.isnan(empty.overall("reference", empty.cells(IN_DOMAIN), Condition(5)).estimate)
    assert all(row[1] == "n/a" for row in tables.aggregate(empty).rows)
    figures.heat_map(empty, "rl-only").savefig(io.BytesIO())


def test_few_seeds_are_admitted(pairs: Results) -> None:
    assert any("about 75 %" in line for line in tables.headline(pairs, tables.verdicts(pairs), {}))
    one = dataclasses.replace(pairs, seeds=1, returns={key: a[::SEEDS] for key, a in pairs.returns.items()})
    assert any(line.startswith("One seed") for line in tables.headline(one, tables.verdicts(one), {}))


def test_one_domain_has_no_other_cells() -> None:
    whole = story()
    everyone = plan.training_runs("pairs", ("portfolio",))
    returns = {(agent.id, "portfolio"): whole.returns["multitask-all", "portfolio"] for agent in everyone}
    alone = dataclasses.replace(
        whole, agents=everyone, baselines={"portfolio": whole.baselines["portfolio"]}, returns=returns
    )
    assert alone.cells(CROSS_DOMAIN) == []
    assert alone.one_agent is None
    assert alone.settings == (IN_DOMAIN,)
    assert all(len(row) == 2 for row in tables.aggregate(alone).rows)
    assert len(opening.sentences(alone)) == 3
    assert len(tables.headline(alone, tables.verdicts(alone), {})) == 2 + 2  # an own-domain line an arm, two notes


class Tags(html.parser.HTMLParser):
    """Notes every address a page would load, and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


CONFIG = dataclasses.replace(
    PRESETS["smoke"],
    name="run & co",
    seeds=SEEDS,
    evaluation=dataclasses.replace(PRESETS["smoke"].evaluation, support_episodes=(0, 1, 5), tasks=TASKS),
)
USAGE = {"seconds_of_this_process": 1.0}
ENTRY = {"seconds": 1.0, "compiling": 0.0, "gradient_steps_per_second": 2.0, "env_steps_per_second": 3.0}


@pytest.fixture(scope="module")
def written(pairs: Results, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("results") / "transfer" / CONFIG.name
    measured = Measured(pairs.baselines, pairs.returns)
    with runs.RunFolder(path, CONFIG, resume=False) as folder:
        folder.write_json(runs.VERSIONS, {"python": "<3>"})
        folder.write_json(
            f"agents/source-portfolio/{runs.VALIDATION}", {"reference": {"chosen": "it", "scores": {"it": 0.5}}}
        )
        for iteration in (1, 2):
            folder.log("source-portfolio", iteration, {**ENTRY, "metrics": {"loss": [1.0, 2.0]}})
        stored.store(folder, CONFIG, measured)
        sections.write(CONFIG, pairs.agents, measured, folder, USAGE)
    return path


def test_page_is_self_contained(written: pathlib.Path) -> None:
    text = (written / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.sources) == 5  # the one agent, two heat maps, single sources, training
    order = ["Asked: ", "Came out, ", "Do not conclude ", 'alt="one_agent"', 'alt="matrix_reference"', "<table>"]
    assert sorted(order, key=text.index) == order
    assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert "run &amp; co" in text
    assert "&lt;3&gt;" in text
    assert "<3>" not in text


def test_files_of_a_run(written: pathlib.Path, pairs: Results) -> None:
    figures_there = {file.name for file in (written / "figures").iterdir()}
    assert figures_there == {
        f"{n}.png" for n in ("one_agent", "matrix_reference", "matrix_rl-only", "adaptation", "training")
    }
    assert runs.faults(written) == []
    with np.load(written / runs.RETURNS) as raw:
        kept = raw["returns/multitask-all/portfolio"]
        np.testing.assert_array_equal(kept, pairs.returns["multitask-all", "portfolio"])
        np.testing.assert_array_equal(raw["anchors/portfolio/noop"], pairs.baselines["portfolio"].returns["noop"])
    summary = json.loads((written / "summary.json").read_text())
    assert list(summary["one_agent"]) == list(DOMAINS)
    assert summary["left_out"] == summary["at_home"]["reference"] == {}
    assert summary["one_agent"]["portfolio"] == summary["scores"]["source: all"]["reference"]["portfolio"]
    assert set(summary["means"]) == set(ARMS)
    assert summary["verdicts"]["reference"]["own domain, new tasks"]["strict"] == 9
    assert summary["scores"]["source: portfolio"]["reference"]["portfolio"]["K=5"][0] == pytest.approx(0.8, abs=0.02)


def test_scores_in_long_format(written: pathlib.Path, pairs: Results) -> None:
    with (written / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(pairs.agents) * len(DOMAINS) * len(ARMS) * len(CONDITIONS) * SEEDS
    asked = {"role": "source", "trained_on": "portfolio", "target": "portfolio", "arm": "reference", "K": "5"}
    mine = [row for row in rows if asked.items() <= row.items() and row["control"] == "none"]
    scores = pairs.seed_scores(single(pairs), "reference", "portfolio", Condition(5))
    assert [float(row["score"]) for row in mine] == scores.tolist()
    for row in mine:
        pooled = (float(row["return"]) - float(row["floor"])) / (float(row["reference"]) - float(row["floor"]))
        assert float(row["score"]) == pytest.approx(pooled)
        assert float(row["cost_ratio"]) == pytest.approx(float(row["return"]) / float(row["reference"]))
        assert (row["target_seen"], row["unit"], row["left_out"]) == ("True", "EUR", "")


def test_console_shows_all_tables_and_sentences(pairs: Results) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    tables.on_console([tables.matrix(pairs, "reference"), tables.aggregate(pairs)], ["a line"], console)
    for text in ("Score K=0 → K=5", "Interquartile mean", "• a line", "portfolio"):
        assert text in stream.getvalue()


DRAWN = ("figures/one_agent.png", "figures/matrix_reference.png", "figures/adaptation.png")
MADE = ("scores.csv", "summary.json", "report.html", *DRAWN)


def _report(path: pathlib.Path) -> int:
    return command(["--report", str(path)])


def test_the_report_is_made_again_from_what_is_committed(
    written: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its page, figures and checkpoints a run's folder is small, and the command brings all of them back."""
    before = {name: (written / name).read_bytes() for name in MADE}
    path = pathlib.Path(shutil.copytree(written, tmp_path / "run"))
    for name in MADE:
        if name != "summary.json":  # from which the cost of the run is taken
            (path / name).unlink()
    assert _report(path) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "Interquartile mean" in shown.out
    assert {name: (path / name).read_bytes() for name in MADE} == before
    assert runs.faults(path) == []


@pytest.mark.parametrize("name", [*MADE, runs.VERSIONS, runs.METRICS])
def test_what_is_damaged_of_a_report_is_named_or_written_anew(
    name: str, written: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pathlib.Path(shutil.copytree(written, tmp_path / "run"))
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:10] + bytes([content[10] ^ 1]) + content[11:])
    assert len(runs.faults(path)) == 1
    assert _report(path) == 0
    said = capsys.readouterr().err
    if name in (runs.VERSIONS, runs.METRICS, "summary.json"):  # that are read
        assert name in said
        assert "damaged" in said
    if name in DRAWN or name == "scores.csv":
        assert (path / name).read_bytes() == content
    assert all(name == runs.VERSIONS and name in fault for fault in runs.faults(path))


def test_damaged_returns_are_not_reported(
    written: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pathlib.Path(shutil.copytree(written, tmp_path / "run"))
    content = (path / runs.RETURNS).read_bytes()
    (path / runs.RETURNS).write_bytes(content[:-1] + b"\1")
    assert _report(path) == 2
    told = capsys.readouterr().err.splitlines()
    assert "returns.npz is damaged" in told[0]
    assert "holds no usable returns.npz; go on with: python -m experiments.transfer --resume" in told[-1]


def test_conditions_are_those_of_the_protocol() -> None:
    for doses in ((0, 1, 5), (0,), (5, 0, 3)):
        ours, theirs = results.conditions(doses), evaluation.conditions(doses)
        assert [(c.episodes, c.control, c.label) for c in ours] == [(c.episodes, c.control, c.label) for c in theirs]
