"""Scores, verdicts, tables, figures and the page, on results whose numbers are known beforehand."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
import pathlib
from typing import get_args

import numpy as np
import pytest
from experiments.config import PRESETS, Protocol, TransferConfig
from experiments.plan import LEFT_OUT, OTHER, OWN
from experiments.results import Results, Target
from rich.console import Console

from experiments import figures, plan, report, results, runs, tables
from metarl_jax.evaluation import Condition, conditions

DOMAINS = ("energy_trading", "portfolio", "supply_chain")
SEEDS, TASKS, EPISODES = 3, 12, 2
ARMS = ("reference", "rl-only")
SHOTS = conditions((0, 1, 5))


def target(headroom: float = 2.0) -> Target:
    """Floor -10 by no-op, reference ``headroom`` above it in every task."""
    floor = np.full(TASKS, -10.0, np.float32)
    anchors = {"random": floor - 5, "noop": floor, "heuristic": floor + 0.25 * headroom, "reference": floor + headroom}
    return Target(anchors, "EUR", "optimal")


def skill(agent: plan.Agent, at: str, given: Condition) -> float:
    """The story that the numbers tell: agents adapt at home, from their own support with rewards, and nowhere else."""
    if agent.role == "multitask":
        return 0.3
    if agent.role == "source" and agent.place(at) != OTHER:
        return 0.2 + (0.12 * given.episodes if given.control == "none" else 0.0)
    return 0.1 if agent.role == "source" else 0.0


def story(protocol: Protocol = "pairs", headroom: dict[str, float] | None = None, noise: float = 0.02) -> Results:
    targets = {name: target((headroom or {}).get(name, 2.0)) for name in DOMAINS}
    everyone = plan.agents(protocol, DOMAINS)
    rng = np.random.default_rng(0)
    returns = {}
    for agent in everyone:
        for name in agent.tested_on(DOMAINS):
            at = targets[name]
            scores = np.array([skill(agent, name, given) for given in SHOTS])[None, :, None, None]
            shape = (len(ARMS) * SEEDS, len(SHOTS), TASKS, EPISODES)
            scores = scores + noise * rng.standard_normal(shape)
            span = (at.reference - at.floor)[:, None]
            returns[agent.id, name] = (at.floor[:, None] + scores * span).astype(np.float32)
    return Results(protocol, SEEDS, ARMS, SHOTS, everyone, targets, returns)


@pytest.fixture(scope="module")
def pairs() -> Results:
    return story()


def test_scores_are_the_story(pairs: Results) -> None:
    agent = pairs.sources[1]
    own = pairs.score(agent, "rl-only", "portfolio", Condition(5))
    assert own.estimate == pytest.approx(0.8, abs=0.02)
    assert own.low < own.estimate < own.high
    assert pairs.seed_scores(agent, "reference", "portfolio", Condition(5, "swap")) == pytest.approx(
        [0.2] * 3, abs=0.02
    )
    assert pairs.anchor_score("heuristic", "portfolio") == pytest.approx(0.25)
    assert pairs.anchor_score("reference", "portfolio") == pytest.approx(1.0)
    assert pairs.anchor_score("noop", "portfolio") == pytest.approx(0.0)
    gain = pairs.gain(
        "portfolio",
        pairs.task_returns(agent, "reference", "portfolio", Condition(5)),
        pairs.task_returns(agent, "reference", "portfolio", Condition(0)),
    )
    assert gain.estimate == pytest.approx(0.6, abs=0.02)


def test_members_of_an_arm_and_condition_are_the_ones_asked_for(pairs: Results) -> None:
    agent = pairs.sources[0]
    raw = pairs.returns[agent.id, "portfolio"]
    asked = pairs.task_returns(agent, "rl-only", "portfolio", Condition(5))
    np.testing.assert_allclose(asked, raw[SEEDS:, SHOTS.index(Condition(5))].astype(np.float64).mean(-1))


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_verdict_counts_the_story(protocol: Protocol) -> None:
    found = tables.verdicts(story(protocol))
    asked = {"pairs": {OWN, OTHER}, "leave-out": {LEFT_OUT}, "both": {OWN, OTHER, LEFT_OUT}}[protocol]
    assert {place for arm, place in found if arm == "reference"} == asked
    for place in asked - {OTHER}:
        home = found["reference", place]
        assert len(home.cells) == 3
        assert home.beats_both == home.beats_zero_shot == home.swap_collapses == home.zero_collapses == home.cells
        assert home.beats_multitask == home.cells
        assert (home.strict, home.trials) == (9, 9)
    if OTHER not in asked:
        return
    away = found["reference", OTHER]
    assert len(away.cells) == 6
    assert away.beats_zero_shot == away.swap_collapses == away.beats_multitask == []
    assert away.beats_random == away.cells
    assert (away.strict, away.trials) == (0, 18)


def test_domains_are_left_out_in_groups() -> None:
    names = tuple("abcdefg")
    assert plan.left_out(names, 3) == (("a", "d", "g"), ("b", "e"), ("c", "f"))
    assert plan.left_out(names, 0) == plan.left_out(names, 9) == tuple((name,) for name in names)
    agents = plan.agents("both", names, 3)
    assert [(a.role, len(a.trained_on), a.left_out) for a in agents[9:]] == [
        (role, 7 - len(group), group) for role in ("source", "multitask") for group in plan.left_out(names, 3)
    ]
    assert len({agent.id for agent in agents}) == len(agents) == 1 + 7 + 1 + 3 + 3
    for agent in agents[9:]:
        assert not set(agent.trained_on) & set(agent.tested_on(names))
        assert plan.multitask_beside(agent, agents).trained_on == agent.trained_on


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_every_protocol_has_its_tables_and_figures(protocol: Protocol) -> None:
    told = story(protocol)
    made = [table.title.split(" [")[0] for table in tables.scores(told, "reference")]
    asked = {"pairs": ["Score K=0 → K=5"], "leave-out": ["Score in the domain left out"]}
    assert made == asked.get(protocol, [*asked["pairs"], *asked["leave-out"]])
    for place in {OWN, LEFT_OUT} & set(told.places):
        rows = {
            row[0]: [float(cell.split()[0]) for cell in row[1:]]
            for row in tables.controls(told, "reference", place).rows
        }
        assert rows["agent K=5"] == pytest.approx([0.8] * 3, abs=0.03)
        assert rows["agent K=0"] == pytest.approx([0.2] * 3, abs=0.03)
    figures.heat_map(told, "reference").savefig(io.BytesIO())
    figures.adaptation_curves(told).savefig(io.BytesIO())


def test_overall_is_the_interquartile_mean_of_cells(pairs: Results) -> None:
    home = pairs.overall("reference", pairs.cells(OWN), Condition(5))
    assert home.estimate == pytest.approx(0.8, abs=0.02)
    away = pairs.overall("reference", pairs.cells(OTHER), Condition(5))
    assert away.estimate == pytest.approx(0.1, abs=0.02)


def test_a_domain_without_headroom_is_named_and_not_scored() -> None:
    broken = story(headroom={"portfolio": 0.0})
    assert tables.shown(broken.score(broken.sources[0], "reference", "portfolio", Condition(5))) == "n/a"
    assert not np.isnan(broken.overall("reference", broken.cells(OWN), Condition(5)).estimate)
    assert "portfolio -> portfolio" not in tables.verdicts(broken)["reference", OWN].beats_both
    row = next(row for row in tables.anchors(broken).rows if row[0] == "portfolio")
    assert row[-1] == f"{TASKS} of {TASKS}"
    for found in tables.matrix(broken, "reference").rows:
        assert found[2] == "n/a → n/a"
    figures.heat_map(broken, "reference").savefig(io.BytesIO())
    figures.adaptation_curves(broken).savefig(io.BytesIO())


def test_nothing_to_score_at_all() -> None:
    empty = story(headroom=dict.fromkeys(DOMAINS, 0.0))
    assert np.isnan(empty.overall("reference", empty.cells(OWN), Condition(5)).estimate)
    assert all(row[1] == "n/a" for row in tables.aggregate(empty).rows)
    figures.heat_map(empty, "rl-only").savefig(io.BytesIO())


def test_few_seeds_are_admitted(pairs: Results) -> None:
    assert any("about 75 %" in line for line in tables.headline(pairs, tables.verdicts(pairs)))
    one = dataclasses.replace(pairs, seeds=1, returns={key: a[::SEEDS] for key, a in pairs.returns.items()})
    assert any(line.startswith("One seed") for line in tables.headline(one, tables.verdicts(one)))


def test_one_domain_has_no_other_cells() -> None:
    whole = story()
    everyone = plan.agents("pairs", ("portfolio",))
    returns = {(agent.id, "portfolio"): whole.returns["multitask-all", "portfolio"] for agent in everyone}
    single = dataclasses.replace(
        whole, agents=everyone, targets={"portfolio": whole.targets["portfolio"]}, returns=returns
    )
    assert single.cells(OTHER) == []
    assert all(row[2] == "none" for row in tables.aggregate(single).rows)
    assert len(tables.headline(single, tables.verdicts(single))) == 2 + 2  # an own-domain line an arm, two notes


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


@pytest.fixture(scope="module")
def written(pairs: Results, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, TransferConfig]:
    config = dataclasses.replace(PRESETS["smoke"], name="<run> & co")
    path = tmp_path_factory.mktemp("results") / "run"
    with runs.RunFolder(path, config, resume=False) as folder:
        folder.write_json(runs.VERSIONS, {"python": "3"})
        entry = {"seconds": 1.0, "compiling": 0.0, "updates_per_second": 2.0, "env_steps_per_second": 3.0}
        for iteration in (1, 2):
            folder.log("source-portfolio", iteration, {**entry, "metrics": {"loss": [1.0, 2.0]}})
        report.write(pairs, config, folder, {"seconds_of_this_process": 1.0})
    return path, config


def test_page_is_self_contained(written: tuple[pathlib.Path, TransferConfig]) -> None:
    text = (written[0] / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.sources) == 4  # two heat maps, adaptation, training
    assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert "&lt;run&gt; &amp; co" in text
    assert "<run>" not in text


def test_files_of_a_run(written: tuple[pathlib.Path, TransferConfig], pairs: Results) -> None:
    path, _ = written
    figures_there = {file.name for file in (path / "figures").iterdir()}
    assert figures_there == {"matrix_reference.png", "matrix_rl-only.png", "adaptation.png", "training.png"}
    raw = results.load_arrays(path / "returns.npz")
    assert raw is not None
    np.testing.assert_array_equal(raw["returns/multitask-all/portfolio"], pairs.returns["multitask-all", "portfolio"])
    np.testing.assert_array_equal(raw["anchors/portfolio/noop"], pairs.targets["portfolio"].anchors["noop"])
    summary = json.loads((path / "summary.json").read_text())
    assert summary["verdicts"]["reference"]["own domain, new tasks"]["strict"] == 9
    assert summary["scores"]["source: portfolio"]["reference"]["portfolio"]["K=5"][0] == pytest.approx(0.8, abs=0.02)


def test_scores_in_long_format(written: tuple[pathlib.Path, TransferConfig], pairs: Results) -> None:
    with (written[0] / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(pairs.agents) * len(DOMAINS) * len(ARMS) * len(SHOTS) * SEEDS
    asked = {"role": "source", "trained_on": "portfolio", "target": "portfolio", "arm": "reference", "K": "5"}
    mine = [row for row in rows if asked.items() <= row.items() and row["control"] == "none"]
    scores = pairs.seed_scores(pairs.sources[1], "reference", "portfolio", Condition(5))
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


def test_damaged_arrays_are_measured_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "returns.npz"
    assert results.load_arrays(path) is None
    arrays = {"portfolio": np.arange(1000.0)}
    results.save_arrays(path, arrays)
    first = path.read_bytes()
    results.save_arrays(path, arrays)
    assert path.read_bytes() == first
    loaded = results.load_arrays(path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded["portfolio"], arrays["portfolio"])
    path.write_bytes(first[: len(first) // 2])
    assert results.load_arrays(path) is None
    flipped = bytearray(first)
    flipped[len(first) // 2] ^= 1
    path.write_bytes(bytes(flipped))
    assert results.load_arrays(path) is None
    assert not list(tmp_path.glob(".*"))
