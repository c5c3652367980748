"""The entry point ``literature``: refusals in one line before jax is loaded, and what a run leaves behind."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from experiments.literature import plan
from experiments.literature.__main__ import command
from experiments.literature.configuration import PRESETS, LiteratureConfig
from metarl_jax.literature.rows import ROWS

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--task", "cartpol"], "task: unknown task 'cartpol' (did you mean cartpole?)"),
        (["--learner", "poo"], "learner: unknown learner 'poo' (did you mean ppo?)"),
        (["--learner", "ppo", "--task", "sine"], "learner: ppo does not learn sine; allowed: maml, fomaml"),
        (["--learner", "maml", "--task", "catch"], "learner: maml does not learn catch; allowed: transformer_maml_dqn"),
        (["--task", "catch", "--steps", "5"], "looks must be at most the number of steps (5), got 10"),
        (["--seeds", "0"], "--seeds must be a whole number at least 1"),
    ],
)
def test_refuses_by_name(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    assert command([*arguments, "--results", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert named in text
    assert not any(tmp_path.iterdir())


def test_unknown_names_are_refused_before_jax_is_loaded() -> None:
    script = (
        "import sys\nfrom experiments.literature.__main__ import command\n"
        "print(command(['--task', 'chess']), command(['--learner', 'chess']), 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "2 2 False", done.stderr


def test_a_run_says_figure_published_line_and_what_it_left_out(tmp_path: pathlib.Path) -> None:
    arguments = ["--learner", "fomaml", "--task", "sine", "--steps", "6", "--seeds", "2", "--looks", "2"]
    assert command([*arguments, "--results", str(tmp_path), "--name", "run"]) == 0
    folder = tmp_path / "literature" / "run"
    found = json.loads((folder / "summary.json").read_text())
    assert found["figure"] == pytest.approx(sum(found["by_seed"]) / 2)
    assert found["interval"][0] < found["figure"] < found["interval"][1]
    assert found["less_than_asked"] == ["2 of 5 seeds", "6 of 70000 steps of training"]
    assert found["passed"] is None, "no line is drawn for first order"
    assert found["published"] == ROWS["sine"].published
    assert found["curve"]["steps"] == [3, 6]
    page = (folder / "report.md").read_text()
    assert "It asks less than the row: 2 of 5 seeds" in page
    assert (folder / "figures" / "curve.png").is_file()
    assert command(["--report", str(folder)]) == 0
    assert (folder / "report.md").read_text() == page


def seed(figure: float, error: float = 0.01) -> dict[str, object]:
    return {"figure": figure, "standard_error": error, "curve": [[1, figure]]}


def test_lines_least_seeds_and_leaks() -> None:
    config = LiteratureConfig(task="cartpole", learner="ppo")
    good = plan.summary(config, {str(i): seed(value) for i, value in enumerate([500, 490, 480, 470, 460])})
    assert good["passed"]
    assert good["less_than_asked"] == []
    assert good["figure"] == pytest.approx(480)  # interquartile mean
    assert not plan.summary(config, {str(i): seed(value) for i, value in enumerate([500, 500, 500, 500, 440])})[
        "passed"
    ]
    bandit = LiteratureConfig(task="bandit-10x5", learner="rl2", seeds=2)
    assert plan.summary(bandit, {"0": seed(6.68), "1": seed(6.70)})["above_the_bound"] == [False, True]
    sine = LiteratureConfig(task="sine", learner="maml", seeds=1)
    assert plan.summary(sine, {"0": seed(0.33)})["passed"]
    assert not plan.summary(sine, {"0": seed(0.2)})["passed"], "better than what was computed is suspicious too"
    assert plan.summary(sine, {"0": seed(0.33)})["interval"] is None


def test_presets_are_pairs_that_exist() -> None:
    for preset in PRESETS.values():
        preset.check_pair()
