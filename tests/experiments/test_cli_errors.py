"""The command as a user meets it: one line, exit code 2, at once."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest

from experiments import runs, transfer
from experiments.cli import UsageError
from experiments.config import PRESETS, domain_names

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 3.0


def run(*arguments: str, folder: pathlib.Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Output and CPU seconds: what the command costs, whatever else the machine is doing."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "experiments.transfer", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return done, used


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "bad.yaml").write_text("agent: {data: {taks: 3}}")
    (tmp_path / "file").write_text("in the way of a folder")
    old = tmp_path / "results/transfer/old"
    with runs.RunFolder(old, PRESETS["smoke"], resume=False):
        return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--sedes 3", "--sedes"),
        ("--sedes 3", "did you mean --seeds"),
        ("--seeds three", "--seeds"),
        ("--seeds 0", "seeds must be at least 1, got 0"),
        ("--seeds", "--seeds"),
        ("stray", "stray"),
        ("--agent.adaptation.adapt everything", "('head', 'all')"),
        ("--agent.adaptation.steps -1", "adaptation.steps must be 0 or more, got -1"),
        ("--domains portfolio atlantis", f"unknown domain 'atlantis'; allowed: {', '.join(domain_names())}"),
        ("--evaluation.shots 0 -1", "evaluation.shots must be 0 and at least one larger K, none negative, got 0 -1"),
        ("--evaluation.shots 0 x", "--evaluation.shots"),
        ("--preset tpu", "unknown preset 'tpu'"),
        ("--protocol triples", "('both', 'pairs', 'leave-out')"),
        ("--config missing.yaml", "cannot read missing.yaml"),
        ("--config bad.yaml", "unknown key 'agent.data.taks' (did you mean agent.data.tasks?)"),
        ("--results file/x", "results: cannot write to file/x/transfer"),
        ("--cache-dir file/x", "cache_dir: cannot write to file/x"),
        ("--resume nowhere", "resume: nowhere is not the folder of a run"),
        ("--resume --results empty", "resume: there is no run in empty/transfer"),
        ("--resume --seeds 5", "was started with seeds=2, not 5"),
        ("--resume old --preset three", "was started with groups=0, not 5; agent.network.width=8, not 32"),
        ("--preset smoke --name old", "holds a run already"),
    ],
)
def test_one_line_and_exit_code_two(arguments: str, expected: str, folder: pathlib.Path) -> None:
    done, seconds = run(*arguments.split(), folder=folder)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert not done.stdout
    assert seconds < SECONDS


def test_help_comes_at_once(folder: pathlib.Path) -> None:
    done, seconds = run("--help", folder=folder)
    assert done.returncode == 0
    for flag in ("--preset", "--config", "--resume", "--domains", "--seeds", "--protocol", "--agent.data.tasks"):
        assert flag in done.stdout
    assert seconds < SECONDS


def test_first_line_comes_before_anything_is_loaded(folder: pathlib.Path) -> None:
    start = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "experiments.transfer", "--preset", "smoke"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line.startswith("transfer (pairs): 4 agents x 2 arms x 2 seeds")
    assert time.monotonic() - start < 10


def test_a_run_is_held_by_one_process(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    with (
        runs.RunFolder(path, PRESETS["smoke"], resume=False),
        pytest.raises(UsageError, match="in use by another process"),
    ):
        runs.RunFolder(path, PRESETS["smoke"], resume=True)


def test_metrics_are_logged_once_and_a_torn_line_is_dropped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    with runs.RunFolder(path, PRESETS["smoke"], resume=False) as folder:
        folder.log("a", 1, {"loss": 1.0})
    with (path / runs.METRICS).open("a") as file:
        file.write('{"agent": "a", "iterat')
    with runs.RunFolder(path, PRESETS["smoke"], resume=True) as folder:
        folder.log("a", 1, {"loss": 2.0})
        folder.log("a", 2, {"loss": 3.0})
        assert [(entry["iteration"], entry["loss"]) for entry in folder.metrics()] == [(1, 1.0), (2, 3.0)]


def test_the_newest_run_is_resumed(tmp_path: pathlib.Path) -> None:
    for age, name in enumerate(("new", "old")):
        with runs.RunFolder(tmp_path / "transfer" / name, PRESETS["smoke"], resume=False) as folder:
            os.utime(folder.path / runs.CONFIG, (1000 - age, 1000 - age))
    assert runs.find("transfer", "latest", tmp_path).name == "new"
    assert runs.find("transfer", "old", tmp_path).name == "old"
    config, folder, _ = transfer.open_run(["--resume", "--results", str(tmp_path)])
    with folder:
        assert folder.path.name == "new"
        assert config == PRESETS["smoke"]
