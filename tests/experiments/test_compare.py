"""The comparison of learners: who takes part, what may not differ, and what the table says, on numbers known before."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from experiments.compare import sections
from experiments.compare.__main__ import command
from experiments.compare.configuration import OURS, PRESETS, CompareConfig, RewardConfig
from experiments.compare.plan import announce, learners_in, plan, resolve
from experiments.harness import cli, learners, memory, runs, treatment, values
from experiments.harness.errors import UnequalTreatmentError, UsageError
from experiments.harness.plan import TrainingRun
from experiments.harness.returns import Measured
from experiments.harness.treatment import Treatment
from experiments.report import comparison, means, tables
from experiments.report.results import Condition, DomainBaselines, Results, conditions
from metarl_jax import learners as registry
from metarl_jax.configs import TransformerDqnConfig

ROOT = pathlib.Path(__file__).parents[2]
SMOKE, CPU = PRESETS["smoke"], PRESETS["cpu"]


def parsed(*arguments: str) -> CompareConfig[Any]:
    return cli.parse("compare", PRESETS, arguments, "prog", "text").run


# Who takes part.


@pytest.mark.parametrize("preset", PRESETS)
def test_every_registered_learner_is_compared_where_it_can_learn(preset: str) -> None:
    config = resolve(PRESETS[preset])
    assert set(config.learners) == set(registry.registered())
    for arm in config.arms:
        for name in learners_in(config, arm):
            kind = learners.config_class(name)
            assert learners.uses_labels(kind) if arm == "reference" else learners.learns_from_reward(kind)
    assert {"ppo", "rl2"}.isdisjoint(learners_in(config, "reference"))
    assert {"ppo", "rl2", OURS} <= set(learners_in(config, "rl-only"))
    everyone = plan(config)
    assert len({run.id for run in everyone}) == len(everyone)
    assert {run.trained_on for run in everyone} == {config.domains}
    assert all(name in announce(config) for name in config.learners)


def test_learners_are_chosen_with_commas_or_spaces() -> None:
    assert parsed("--learners", "ppo,rl2").learners == parsed("--learners", "ppo", "rl2").learners == ("ppo", "rl2")
    assert resolve(parsed("--learners", "ppo")).arms == ("rl-only",)
    assert [run.label for run in plan(resolve(parsed("--learners", "transformer_dqn,ppo")))] == [
        *("transformer_dqn: reference", "transformer_dqn: rl-only", "ppo: rl-only")
    ]


def test_a_learner_that_only_imitates_is_in_no_table_of_reward_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformerDqnConfig, "needs_labels", True, raising=False)
    config = resolve(parsed("--learners", "transformer_dqn,ppo"))
    assert [(run.learner, run.arm) for run in plan(config)] == [("transformer_dqn", "reference"), ("ppo", "rl-only")]


FIXED = {
    "optimizer_gating": (("adaptation", "rule"),),
    "learned_optimizer": (("adaptation", "rule"),),
    "maml_dqn": (("network", "mixing"), ("adaptation", "adapt")),
}
"""Part and field that a learner does not leave open."""


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_yaml_and_fit(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(PRESETS[name])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values.to_mapping(config)))
    assert parsed("--config", str(path)) == config
    monkeypatch.setattr("experiments.harness.machine.memory_limits", lambda: {"memory": 8 * 2**30})
    memory.check(config, len(plan(config)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--learners", "ppo,ppoo"], "learners: unknown learner 'ppoo' (did you mean ppo?)"),
        (["--learners", "ppo", "ppo"], "learners must not repeat a value, got ppo ppo"),
        (["--learners", "ppo,"], "learners: unknown learner ''"),
        (["--learners"], "--learners takes at least one value"),
        (["--learners", "ppo", "--arms", "reference"], "arms: none of ppo learns in arm reference"),
        (["--learner", "ppo"], "learner must be transformer_maml_dqn"),
        (["--reward.data", "mixed"], "--reward.data must be one of collected, frozen, got 'mixed'"),
        (["--collected", "-1"], "--collected must be a whole number"),
        (["--preset", "gpu"], "preset: unknown preset 'gpu' (did you mean cpu?); allowed: cpu, smoke"),
    ],
)
def test_refused_by_name(
    arguments: list[str], expected: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([*arguments, "--results", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert expected in line
    assert not any(tmp_path.iterdir())


def test_an_unknown_learner_is_refused_before_jax_loads() -> None:
    script = (
        "import sys\nfrom experiments.compare.__main__ import command\n"
        "print(command(['--learners', 'ppoo']), [name for name in ('jax', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "2 []", done.stderr


def test_a_learner_that_loads_jax_with_its_configuration_changes_nothing() -> None:
    script = (
        "from experiments.harness import learners, machine\nlearners.config_class('bayes_readout')\n"
        "import sys\nassert 'jax' in sys.modules\nmachine.prepare_jax(None)\nimport jax, jax.numpy\n"
        "print(jax.device_count() == machine.cores(), jax.numpy.arange(2.0).dtype)"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True float32", done.stderr


def test_a_learner_without_data_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Other:
        size: int = 1

    known = learners.config_class
    monkeypatch.setattr(learners, "registered", lambda: (*registry.registered(), "other"))
    monkeypatch.setattr(learners, "config_class", lambda name: Other if name == "other" else known(name))
    monkeypatch.setattr("experiments.compare.plan.registered", lambda: (*registry.registered(), "other"))
    monkeypatch.setattr("experiments.compare.configuration.registered", lambda: (*registry.registered(), "other"))
    assert "other" not in resolve(SMOKE).learners
    with pytest.raises(UsageError, match="learners: other cannot be compared here: its configuration has no data"):
        resolve(dataclasses.replace(SMOKE, learners=("other", "ppo")))


# What they share.


def run_of(name: str, arm: str, config: CompareConfig[Any] = CPU) -> TrainingRun:
    return TrainingRun("compared", name, config.domains, arm=arm)


@pytest.mark.parametrize("name", registry.registered())
def test_a_learner_shares_what_it_has_in_common_with_ours(name: str) -> None:
    with_labels, alone = (CPU.agent_of(run_of(name, arm)) for arm in ("reference", "rl-only"))
    assert isinstance(alone, learners.config_class(name))
    for part in ("network", "data", "adaptation", "fine_tuning"):
        own, ours = getattr(alone, part, None), getattr(CPU.agent, part)
        fixed = {key: getattr(own, key) for owner, key in FIXED.get(name, ()) if owner == part}
        assert own in (dataclasses.replace(ours, **fixed), None)
    if hasattr(alone, "frozen"):
        assert with_labels.frozen == CPU.agent.frozen
        assert alone.frozen.tasks == 0  # the reference played a part of the frozen data
        assert (with_labels.learning_rate, with_labels.learning) == (CPU.agent.learning_rate, CPU.agent.learning)
        assert (alone.learning_rate, alone.learning) == (CPU.reward.learning_rate, CPU.reward.learning)
        given = dataclasses.replace(CPU, reward=RewardConfig(data="frozen")).agent_of(run_of(name, "rl-only"))
        assert given == dataclasses.replace(with_labels, frozen=dataclasses.replace(CPU.agent.frozen, td_share=1.0))
        assert with_labels.reference_weight == CPU.agent.reference_weight


def test_both_kinds_of_data_are_as_many_episodes() -> None:
    config = dataclasses.replace(CPU, collected=0)
    labelled, alone = run_of(OURS, "reference"), run_of(OURS, "rl-only")
    data, frozen, domains = CPU.agent.data, CPU.agent.frozen, len(CPU.domains)
    held = domains * (frozen.tasks * 2 * data.episodes + frozen.rounds * frozen.round_tasks * data.episodes)
    assert config.iterations_of(labelled) == config.training.iterations
    assert abs(config.iterations_of(alone) * data.tasks * 2 * data.episodes - held) <= data.tasks * 2 * data.episodes
    assert config.iterations_of(run_of("ppo", "rl-only")) == config.iterations_of(alone)
    assert CPU.iterations_of(run_of("ppo", "rl-only")) == CPU.iterations_of(alone) == CPU.collected
    assert CPU.iterations_of(labelled) == CPU.training.iterations
    assert CPU.replicas == CPU.seeds


# What may not differ.


def given_to(arm: str = "rl-only", **changes: Any) -> Treatment:
    same = Treatment(
        labels=arm == "reference",
        trained_on=["a", "b"],
        seeds=2,
        tests={"a": "0", "b": "1"},
        conditions=["K=0", "K=5"],
        validated_on=[],
        candidates=1,
        most_support=5,
        trained_support=5,
        support="random",
        data="collected",
        iterations=10,
        choices=1000.0,
        parameters=99,
    )
    return dataclasses.replace(same, **changes)


ONE, OTHER = run_of("one", "rl-only"), run_of("other", "rl-only")


def test_what_may_differ_passes() -> None:
    other = given_to(
        trained_support=0, support="own", candidates=9, validated_on=["a"], choices=9e9, parameters=1, iterations=3
    )
    labelled = run_of("one", "reference")
    treatment.check({ONE: given_to(), OTHER: other, labelled: given_to("reference", data="frozen")})
    treatment.check({})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"tests": {"a": "0", "b": "2"}},
            "other: rl-only was tested on other tasks or keys than one: rl-only (tests: b)",
        ),
        ({"conditions": ["K=0", "K=9"]}, "was tested under other conditions than one: rl-only"),
        ({"most_support": 9}, "is given other numbers of support episodes than one: rl-only (most_support: 9, not 5)"),
        ({"trained_on": ["a"]}, "was trained on other domains"),
        ({"seeds": 3}, "has other seeds"),
        ({"trained_support": 6}, "trains with 6 support episodes, tests give 5"),
        ({"validated_on": ["a", "z"]}, "was validated on domains that it is not trained on (z)"),
        ({"validated_on": ["b"]}, "was validated on other domains than one: rl-only"),
        ({"labels": True}, "is in arm rl-only with labels"),
    ],
)
def test_what_may_not_differ_stops_the_run_by_name(changes: dict[str, Any], told: str) -> None:
    first = given_to(validated_on=["a"], candidates=2)
    with pytest.raises(UnequalTreatmentError) as caught:
        treatment.check({ONE: first, OTHER: dataclasses.replace(first, **changes)})
    assert str(caught.value).startswith("equal treatment: other: rl-only ")
    assert told in str(caught.value)


def test_a_run_that_goes_on_under_other_code_is_told(tmp_path: pathlib.Path) -> None:
    notes: list[str] = []
    with runs.RunFolder(tmp_path / "run", SMOKE, resume=False, notify=notes.append) as folder:
        assert treatment.stored(folder, ONE, "anew") is None
        treatment.store(folder, ONE, given_to())
        its = treatment.stored(folder, ONE, "anew")
        assert its == given_to()
        folder.write_json(treatment.file_of(OTHER), {"labels": True})
        assert treatment.stored(folder, OTHER, "it is measured anew") is None
    assert notes[-1].endswith("is of another version; it is measured anew")
    treatment.check_stored(ONE, its, given_to())
    with pytest.raises(
        UnequalTreatmentError, match=r"one: rl-only was measured before .*\(tests: a\): start a new run"
    ):
        treatment.check_stored(ONE, its, given_to(tests={"a": "9", "b": "1"}))


@pytest.mark.slow
def test_a_learner_that_wants_more_is_found_by_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's word, not the configuration's: needs are patched after the learner was made."""
    from experiments.harness.session import Session

    monkeypatch.setattr(Session, "_digest", lambda self, name: "0")  # compiles a domain, which is not asked here
    config = resolve(dataclasses.replace(SMOKE, domains=("portfolio",), learners=(OURS, "transformer_dqn", "ppo")))
    session, (labelled, _, ours, plain, ppo) = Session(config), plan(config)
    given = {run: session.treatment(run) for run in plan(config)}
    treatment.check(given)
    assert [given[run].data for run in (labelled, ours, plain, ppo)] == ["frozen", *["collected"] * 3]
    assert [given[run].candidates for run in (ours, plain, ppo)] == [1, 2, 2]
    assert given[ppo].trained_support == 0
    assert given[ppo].support == "own"
    # tasks x (support + query episodes) x horizon, in every meta-iteration
    horizon = session.suite.envs[0].horizon
    assert {given[run].choices for run in (ours, plain, ppo)} == {4 * 4 * 2 * 2 * horizon}
    rounds = 4 * 2
    assert given[labelled].choices == horizon * (4 * 2 * 2 + rounds)
    assert given[plain].parameters < given[ours].parameters < given[labelled].parameters + 1

    collector = session.collector(ppo)
    patched = collector.learner._replace(needs=dataclasses.replace(collector.learner.needs, support_episodes=9))
    monkeypatch.setattr(collector, "learner", patched)
    with pytest.raises(UnequalTreatmentError, match="ppo: rl-only trains with 9 support episodes, tests give 2"):
        treatment.check({run: session.treatment(run) for run in plan(config)})
    greedy = dataclasses.replace(collector.learner.needs, support_episodes=0, frozen=config.agent.frozen)
    monkeypatch.setattr(collector, "learner", patched._replace(needs=greedy))
    with pytest.raises(
        UnequalTreatmentError, match="ppo: rl-only wants 4 tasks of frozen data, its configuration says 0"
    ):
        session.treatment(ppo)


# What the table says.

DOMAINS = SMOKE.domains
TASKS, EPISODES = 8, 2
TOLD = dataclasses.replace(
    SMOKE,
    seeds=3,
    learners=(OURS, "transformer_dqn", "ppo"),
    evaluation=dataclasses.replace(SMOKE.evaluation, tasks=TASKS, episodes=EPISODES),
)
SKILL = {OURS: 0.5, "transformer_dqn": 0.1, "ppo": 0.8}
"""Scores at K=2 of the story: one learner beats ours, one is beaten, and the heuristic lies between."""


def story() -> Measured:
    """Adapts by K=1 half of the way; ours alone is as good as ppo in the first domain."""
    floor = np.full(TASKS, -10.0, np.float32)
    rules = {"random": floor - 5, "noop": floor, "heuristic": floor + 0.6, "reference": floor + 2.0}
    rng = np.random.default_rng(0)
    returns = {}
    doses = conditions(TOLD.evaluation.support_episodes)
    for run in plan(TOLD):
        for name in DOMAINS:
            top = SKILL["ppo"] if (run.learner, name) == (OURS, DOMAINS[0]) else SKILL[run.learner]
            at = np.array([top * c.episodes / 2 if c.control == "none" else 0.0 for c in doses])
            scores = at[None, :, None, None] + 0.01 * rng.standard_normal((3, len(doses), TASKS, EPISODES))
            returns[run.id, name] = (floor[:, None] + 2.0 * scores).astype(np.float32)
    return Measured({name: DomainBaselines(rules, "EUR", "optimal") for name in DOMAINS}, returns)


def results(arm: str) -> Results:
    return sections.results_of(TOLD, plan(TOLD), story(), arm)


def test_arms_are_never_mixed() -> None:
    assert [run.learner for run in results("reference").agents] == [OURS, "transformer_dqn"]
    assert {run.arm for run in results("rl-only").agents} == {"rl-only"}


def test_where_ours_is_beaten_is_said_first() -> None:
    first = comparison.sentence(results("rl-only"), OURS)
    assert first.startswith(
        f"Trained from reward alone, K=2: {OURS} is beaten by ppo on average and in 2 of 3 domains ("
    )
    assert f"({', '.join(DOMAINS[1:])}), mean difference 0.20 [" in first
    assert "it beats heuristic, transformer_dqn, noop, random on average" in first
    assert "ppo" not in comparison.sentence(results("reference"), OURS)
    assert f"{OURS} is beaten by none of 4 others, in no domain" in comparison.sentence(results("reference"), OURS)
    assert comparison.sentence(results("rl-only"), "sac").endswith("sac is not among the learners.")
    duels = {duel.by: duel for duel in comparison.beaten(results("rl-only"), OURS)}
    assert list(duels) == ["ppo", "heuristic", "transformer_dqn", "noop", "random"]
    assert (duels["ppo"].domains, duels["ppo"].behind) == (list(DOMAINS[1:]), [])
    assert duels["transformer_dqn"].behind == list(DOMAINS)
    assert duels["heuristic"].mean.estimate == pytest.approx(0.3 - 0.6, abs=0.01)


def cost(steps: float = 40.0) -> comparison.Cost:
    return comparison.Cost(steps, 12.0, 30.0)


def test_the_table_has_every_learner_every_rule_and_what_each_was_given() -> None:
    told = results("rl-only")
    given = {
        OURS: given_to(),
        "transformer_dqn": given_to(choices=1200.0),
        "ppo": given_to(choices=400.0, support="own"),
    }
    spent = {OURS: cost(), "transformer_dqn": cost(41.0), "ppo": cost(160.0)}
    made = comparison.table(told, OURS, given, spent)
    assert [row[0] for row in made.rows] == ["ppo", OURS, "transformer_dqn", "random", "noop", "heuristic", "reference"]
    assert all(len(row) == len(made.header) for row in made.rows)
    cells = dict(zip(made.header, made.rows[0], strict=True))
    assert cells["K=2"].startswith("0.80 [0.")
    assert cells["K=2, other task's support"].startswith("0.00 [")
    assert cells["domains above / below it"] == "2 / 0 of 3"
    assert cells["support episodes"] == "5 own, trained with 5"
    assert (cells["choices"], cells["gradient steps"], cells["parameters"]) == ("400", "160", "99")
    assert (cells["training CPU-s"], cells["compiling CPU-s"]) == ("12", "30")
    assert made.rows[-1][1].startswith("1.00 [1.00, 1.00]")
    assert "0.30 [0.30, 0.30]" in made.rows[-2][1]
    assert "Not equal (differ by more than 25%)" in made.note
    assert f"environment choices, times as many as {OURS}: ppo 0.4; " in made.note
    assert f"gradient steps, times as many as {OURS}: ppo 4" in made.note
    assert "transformer_dqn" not in made.note
    equal = comparison.table(told, OURS, dict.fromkeys(given, given_to()), dict.fromkeys(given, cost()))
    assert "No choices or gradient steps differ by more than 25%" in equal.note
    assert [row[0] for row in comparison.by_domain(told).rows] == list(DOMAINS)
    scores, beside = comparison.halves(made)
    assert [len(scores.header) + len(beside.header), len(beside.rows)] == [len(made.header) + 1, 3]
    assert beside.rows[0] == [made.rows[0][0], *made.rows[0][8:]]


def test_a_mean_of_returns_is_the_mean_of_cells_and_a_difference_is_paired() -> None:
    told, most = results("rl-only"), Condition(2)
    ours, _, ppo = told.agents
    cells = [(ppo, target) for target in DOMAINS]
    own, theirs = (comparison.adapted(told, agent, most) for agent in (ours, ppo))
    assert means.mean_of(told, [theirs]) == means.mean(told, "rl-only", cells, most)
    apart = means.mean_of(told, [theirs], less=own)
    assert apart.estimate == pytest.approx(
        means.mean_of(told, [theirs]).estimate - means.mean_of(told, [own]).estimate, abs=1e-9
    )
    assert apart.low < apart.estimate < apart.high
    assert means.mean_of(told, [own], less=own).estimate == 0.0


def test_costs_are_summed_over_intervals() -> None:
    lines = [
        {"agent": "x", "iteration": i, "metrics": {"gradient_steps": [s, s]}, "cpu_seconds": 2.0, "cpu_compiling": c}
        for i, s, c in ((30, 3.0, 0.0), (10, 4.0, 9.0), (20, 4.0, 1.0))
    ]
    assert comparison.costs(lines) == {"x": comparison.Cost(10 * 4 + 10 * 4 + 10 * 3, 6.0, 10.0)}


def test_the_page_and_the_summary(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    everyone = plan(TOLD)
    with runs.RunFolder(tmp_path / "run", TOLD, resume=False, notify=lambda text: None) as folder:
        for run in everyone[1:]:
            treatment.store(folder, run, given_to(run.arm, trained_support=2, most_support=2))
        with pytest.raises(UsageError, match=r"report: .*treatment\.json is missing or damaged; resume the run"):
            sections.write(TOLD, everyone, story(), folder, {})
        treatment.store(folder, everyone[0], given_to("reference", trained_support=2, most_support=2))
        sections.write(TOLD, everyone, story(), folder, {"seconds_of_this_process": 1.0})
        page = (folder.path / "report.html").read_text()
        summary = json.loads((folder.path / "summary.json").read_text())
        rows = (folder.path / "scores.csv").read_text().splitlines()
        assert runs.faults(folder.path) == []
    assert page.index("is beaten by ppo on average") < page.index("Side by side")
    assert page.count("<caption>Learners trained") == 2
    assert "3 seeds: intervals are too short" in summary["opening"][-1]
    assert list(summary["arms"]) == ["reference", "rl-only"]
    assert "ppo" not in summary["arms"]["reference"]["learners"]
    assert summary["arms"]["rl-only"]["against"]["ppo"]["domains"] == list(DOMAINS[1:])
    assert summary["arms"]["rl-only"]["learners"]["ppo"]["mean"]["K=2"][0] == pytest.approx(0.8, abs=0.01)
    assert len(rows) == 1 + len(everyone) * 3 * 3 * 5  # domains, seeds, conditions
    shown = capsys.readouterr().out
    assert shown.index("is beaten by ppo on average") < shown.index("Learners trained")
    tables.on_console([comparison.by_domain(results("rl-only"))], [], Console(width=200))


@pytest.mark.slow
def test_killed_and_resumed_ends_the_same(tmp_path: pathlib.Path) -> None:
    """Two learners in both arms, so that programs, data and treatments of several learners meet in one session."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    chosen = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
    asked = ["--preset", "smoke", "--domains", "portfolio", "--learners", f"{OURS},ppo", "--results", str(tmp_path)]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = (
            "import os, signal, sys\nfrom experiments.compare.__main__ import experiment\n"
            "from experiments.harness import main, runs\n"
            "at, arguments = int(sys.argv[1]), sys.argv[2:]\nwrite, count = runs.RunFolder.log, 0\n"
            "def log(*given):\n    global count\n    write(*given)\n    count += 1\n"
            "    if count == at:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
            "runs.RunFolder.log = log\nsys.exit(main.main(experiment, arguments))\n"
        )
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=ROOT,
            env=os.environ | chosen,
            capture_output=True,
            text=True,
        )

    whole = run("0", *asked, "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    assert f"Trained from reward alone, K=2: {OURS} " in whole.stdout
    killed = run("3", *asked, "--name", "killed")  # in the second agent
    assert killed.returncode == -9, killed.stderr
    folder = tmp_path / "compare/killed"
    assert [path.parent.name for path in folder.glob("agents/*/treatment.json")] == [f"{OURS}-reference"]
    done = run("0", "--resume", str(folder))
    assert done.returncode == 0, done.stderr
    for name in ("scores.csv", "returns.npz"):
        assert (folder / name).read_bytes() == (tmp_path / "compare/whole" / name).read_bytes()
    assert runs.faults(folder) == []
    with runs.RunFolder(folder, SMOKE, resume=True) as opened:
        its = f"agents/{OURS}-reference/treatment.json"
        opened.write_json(its, opened.read_json(its) | {"tests": {"portfolio": "other"}})
    report = run("0", "--report", str(folder))
    assert report.returncode == 1
    assert "equal treatment: " in report.stderr
    assert "was tested on other tasks or keys than" in report.stderr
