"""The entry points ``rollout``, ``games`` and ``energy``: figures, refusals in one line, and a kill at any moment."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from experiments.energy import sections
from experiments.energy.__main__ import command as energy
from experiments.energy.configuration import EnergyConfig
from experiments.games.__main__ import command as games
from experiments.rollout.__main__ import command as rollout

Command = Callable[[list[str]], int]
SMALL = ["--no-studies", "--example", "chain"]


def refused(command: Command, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert command(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--reading", "R3"], "--reading must be one of R1, R2, R2b, R4, R5, got 'R3'"),
        (["--example", "ex3"], "--example must be one of ex1, ex2, chain, got 'ex3'"),
        (["--levels", "0"], "levels = 0: at least 1"),
        (["--levels", "two"], "--levels must be a whole number, got 'two'"),
        (["--example", "ex1", "--levels", "3"], "levels = 3: ex1 has 2"),
        (["--levels", "40"], "joint stocks need"),
        (["--improve", "simultaneous"], "--improve must be one of joint, agents, got 'simultaneous'"),
        (["--potentials", "none"], "--potentials must be one of exact, path, network, got 'none'"),
        (["--devices", "99"], "devices must be at most 8, the most that a CPU is split into here, got 99"),
        (["--devices", "-1"], "--devices must be a whole number at least 0 and at most 4096, got -1"),
        (["--devices", "2", "--improve", "agents"], "devices must be 0 where improve is agents, got 2"),
        (["--devices", "2", "--levels", "6"], "enumeration would visit"),
        (["--order", "1", "1"], "--order must not repeat a value, got '1 1'"),
        (["--order", "1", "2"], "order must name each of the levels 1 to 3 once, got (1, 2)"),
        (["--name", "a/b"], "name must be one folder's name without slashes, got 'a/b'"),
        (["--seed", "-1"], "seed must be a whole number at least 0"),
        (["--preset", "huge"], "unknown preset 'huge'; allowed: default, smoke"),
        (["--resume", "nowhere"], "resume: 'nowhere' is not the folder of a run"),
        (["--levls", "2"], "unknown option --levls; did you mean --levels?"),
        (["--path", "x"], "--path must be a whole number, got 'x'"),
    ],
)
def test_rollout_refuses_by_name(arguments, named, capsys, tmp_path):
    assert named in refused(rollout, [*arguments, "--results", str(tmp_path)], capsys)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--game", "chess"], "game: unknown game 'chess'"),
        (["--game", "grid1", "grid1"], "game must not repeat a name"),
        (["--operators", "maximin"], "operator = 'maximin': allowed are team"),
        (["--steps", "0"], "--steps must be a whole number at least 1"),
        (["--looks", "500", "--grid-steps", "400"], "looks must be at most the number of steps (400), got 500"),
    ],
)
def test_games_refuses_by_name(arguments, named, capsys, tmp_path):
    assert named in refused(games, [*arguments, "--results", str(tmp_path)], capsys)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rules", "gatted"], "rules: unknown rule 'gatted' (did you mean gated?)"),
        (["--inner-rule", "sdg"], "inner_rule: unknown rule 'sdg' (did you mean sgd?)"),
        (["--rules", "sgd", "sgd"], "rules must not repeat a name, got sgd sgd"),
        (["--steps", "-1"], "steps must be a list, each a whole number at least 0 and at most 1000, got -1"),
        (["--shots", "6"], "shots must be a list, each a whole number at least 0 and at most 5, got 6"),
        (["--family", "storage"], "--family must be one of seed, dispatch, got 'storage'"),
        (["--size", "0x3"], "size must be of 1 to 200 demands and plants, got 0x3"),
        (["--size", "ten"], "size must be demands x plants, as 10x10, got 'ten'"),
    ],
)
def test_energy_refuses_by_name(arguments, named, capsys, tmp_path):
    assert named in refused(energy, [*arguments, "--results", str(tmp_path)], capsys)
    assert not any(tmp_path.iterdir())


def summary_of(command: Command, arguments: list[str], folder: pathlib.Path) -> dict:
    assert command([*arguments, "--results", str(folder), "--name", "run"]) == 0
    study = "games" if command is games else "rollout"
    return json.loads((folder / study / "run" / "summary.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "optimum", "gains"),
    [
        (["--example", "ex1", "--reading", "R4"], 62.7732733359, [160, 120.2676, 62.7733]),
        (
            ["--levels", "20", "--reading", "R4", "--example", "chain"],
            67.192627,
            [180, 137.946, 76.786, 68.020, 67.1926],
        ),
        (["--levels", "2", "--devices", "1"], 7.763715292, [18, 13.7514, 9.1440, 8.0505, 7.7681, 7.7637]),
    ],
)
def test_rollout_writes_optimum_and_gains(arguments, optimum, gains, tmp_path):
    summary = summary_of(rollout, [*arguments, "--no-studies"], tmp_path)
    assert summary["optimum"] == pytest.approx(optimum, abs=5.1e-7)
    assert summary["gains"] == pytest.approx(gains, abs=1.1e-3)
    assert (tmp_path / "rollout" / "run" / "report.md").is_file()


def test_agents_and_paths_stop_above_the_optimum(tmp_path):
    summary = summary_of(rollout, [*SMALL, "--levels", "2", "--improve", "agents"], tmp_path)
    assert summary["gains"][-1] == pytest.approx(7.785438, abs=5.1e-7)
    paths = [*SMALL, "--levels", "2", "--potentials", "path", "--seeds", "2", "--iterations", "3", "--path", "3000"]
    summary = summary_of(rollout, paths, tmp_path / "paths")
    assert len(summary["gains_by_seed"]) == 2
    assert min(summary["gains"]) >= summary["optimum"] - 1e-9


def test_games_writes_values(tmp_path):
    summary = summary_of(games, ["--game", "chicken", "--operators", "nash", "foe", "--no-learn"], tmp_path)
    assert summary["values"]["nash"] == pytest.approx([14 / 3, 14 / 3])
    assert summary["values"]["foe"] == pytest.approx([2, 2])


def test_a_name_is_not_used_twice_and_a_resumed_run_keeps_its_configuration(tmp_path, capsys):
    arguments = ["--game", "chicken", "--operators", "team", "--no-learn"]
    summary_of(games, arguments, tmp_path)
    assert "holds a run already" in refused(games, [*arguments, "--results", str(tmp_path), "--name", "run"], capsys)
    other = ["--resume", "run", "--results", str(tmp_path), "--seed", "3"]
    assert "was started with seed=0, not 3" in refused(games, other, capsys)


TIMES = ("usage", "seconds", "speedup", "efficiency", "factor_per_level")


def without_times(value: object) -> object:
    """What two runs of one configuration must have in common to the last bit."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES and not k.endswith("_seconds")}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "arguments", "last"),
    [
        ("rollout", ["--preset", "smoke", "--levels", "2", "--scale", "0"], "agents"),
        (
            "games",
            ["--preset", "smoke", "--game", "chicken", "--operators", "nash", "foe", "ce-egalitarian"],
            "chicken.learn.nash.explore",
        ),
    ],
)
def test_a_run_that_was_killed_goes_on_and_ends_the_same(study, arguments, last, tmp_path):
    command = [sys.executable, "-m", f"experiments.{study}"]
    folder = tmp_path / study / "killed"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    call = [*command, *arguments, "--results", str(tmp_path), "--name"]
    with subprocess.Popen([*call, "killed"], stdout=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None and not (folder / "parts" / f"{last}.json").exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    kept = (folder / "parts" / f"{last}.json").read_bytes()
    subprocess.run([*command, "--resume", str(folder)], check=True, stdout=subprocess.DEVNULL, env=environment)
    assert (folder / "parts" / f"{last}.json").read_bytes() == kept
    subprocess.run([*call, "whole"], check=True, stdout=subprocess.DEVNULL, env=environment)
    whole = folder.with_name("whole")
    names = sorted(path.name for path in (whole / "parts").iterdir())
    assert names == sorted(path.name for path in (folder / "parts").iterdir())
    for name in names:
        resumed, same = (without_times(json.loads((run / "parts" / name).read_text())) for run in (folder, whole))
        assert resumed == same, name
    resumed, same = (without_times(json.loads((run / "summary.json").read_text())) for run in (folder, whole))
    del resumed["config"], same["config"]  # they differ in their name
    assert resumed == same


def front_of(points: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    return {name: {"mean": gap, "microseconds": time} for name, (gap, time) in points.items()}


def test_energy_says_between_which_rivals_the_learned_solver_is_worth_it():
    rivals = {"least cost": (0.1, 10.0), "interior point, 0.01": (0.004, 50.0), "interior point, 0.0001": (3e-5, 90.0)}
    points = rivals | {"gated, S = 10": (0.02, 20.0), "gated, S = 30": (0.01, 30.0), "learned, S = 30": (0.02, 60.0)}
    text = sections.advice(front_of(points), EnergyConfig().rules)
    assert "can spend 20 us of CPU on an instance and not 50 us should use the learned solver (gated, S = 10" in text
    assert "less should not (least cost: 10 % in 10 us)" in text
    assert "more should not (interior point, 0.01: 0.4 % in 50 us)" in text
    assert "learned, S = 30" not in text, "it is not on the front"
    assert "take the interior point (0.003 % in 90 us)" in text
    text = sections.advice(front_of(rivals | {"gated, S = 10": (0.5, 20.0)}), EnergyConfig().rules)
    assert "nobody should use them here" in text


@pytest.mark.slow
def test_energy_goes_on_after_a_kill_and_reports_what_it_measured(tmp_path):
    """Times differ from run to run; everything that was trained or solved must not."""
    arguments = ["--preset", "smoke", "--iterations", "20", "--solver-iterations", "20", "--steps", "2", "--sites", "2"]
    command = [sys.executable, "-m", "experiments.energy"]
    folder = tmp_path / "energy" / "killed"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    call = [*command, *arguments, "--results", str(tmp_path), "--name", "killed"]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None and not (folder / "parts" / "prices.0.json").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    kept = (folder / "parts" / "prices.0.json").read_bytes()
    subprocess.run([*command, "--resume", str(folder)], check=True, stdout=subprocess.DEVNULL, env=environment)
    assert (folder / "parts" / "prices.0.json").read_bytes() == kept
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["violation"] <= 1e-6
    assert summary["failed_exact_solves"] == 0
    page = (folder / "report.md").read_text()
    assert page.index("should use") < page.index("## "), "the first page says who should use it"
    again = subprocess.run([*command, "--report", str(folder)], check=True, capture_output=True, env=environment)
    assert again.returncode == 0
    assert (folder / "report.md").read_text() == page
