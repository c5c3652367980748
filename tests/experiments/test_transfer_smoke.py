"""Two whole runs as a user starts them: one undisturbed, one interrupted in every phase, killed, damaged and resumed.

Scores must agree to the last bit. No moment is left to chance: signals come when a phase begins.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from experiments.harness.runs import faults, open_line

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
ARGUMENTS = ("--preset", "smoke", "--domains", "portfolio", "--name", "run")
RUN = "results/transfer/run"
LINES = 8  # of the metrics: two agents of four intervals
LIMIT = 900.0


def command(folder: pathlib.Path, *arguments: str) -> tuple[int, str]:
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    # A variable that would change every number must change none.
    chosen = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | chosen,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout


def signalled(folder: pathlib.Path, phase: str, name: str, *arguments: str) -> str:
    code, output = command(folder, "tests.experiments.signalled", phase, name, *arguments)
    assert code == (-signal.SIGKILL if name == "SIGKILL" else 128 + signal.Signals[name]), output
    if name != "SIGKILL":
        state = "saved" if phase == "training" else f"stopped while {phase}"
        go_on = f"go on with: python -m experiments.transfer --resume {RUN}"
        assert output.splitlines()[-1] == f"{name}: {state}; {go_on}"
    return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    code, output = command(folder, "experiments.transfer", *ARGUMENTS)
    assert code == 0, output
    for text in ("Score K=0 → K=2", "Controls", "Interquartile mean", "random weights", "report: "):
        assert text in output
    return folder / RUN


def test_everything_is_there_and_sealed(whole: pathlib.Path) -> None:
    there = {path.name for path in whole.iterdir()}
    assert {"config.yaml", "versions.json", "metrics.jsonl", "scores.csv", "returns.npz", "report.html"} <= there
    assert {"summary.json", "figures", "agents", "manifest.sha256"} <= there
    assert faults(whole) == []
    with np.load(whole / "returns.npz") as raw:
        returns = raw["returns/source-portfolio/portfolio"]
        assert returns.shape == (4, 5, 4, 2)  # two arms of two seeds, conditions, tasks, episodes
        assert returns.dtype == np.float32
        assert np.isfinite(returns).all()


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_interrupted_killed_damaged_and_resumed(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / RUN
    signalled(tmp_path, "loading", "SIGTERM", *ARGUMENTS)
    signalled(tmp_path, "building", "SIGINT", "--resume")
    signalled(tmp_path, "compiling", "SIGTERM", "--resume")
    signalled(tmp_path, "training", "SIGINT", "--resume")
    assert len((run / "metrics.jsonl").read_bytes().splitlines()) == 1
    signalled(tmp_path, "training", "SIGKILL", "--resume")

    newest = max((run / "agents/source-portfolio/checkpoints").iterdir())
    flip(max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size))
    output = signalled(tmp_path, "testing", "SIGTERM", "--resume")
    assert f"{newest.name}: skipped, " in output

    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([lines[0], lines[1][:-20] + b"\xff" + lines[1][-19:], *lines[2:]]))
    flip(run / "agents/random-weights/returns.npz")
    output = signalled(tmp_path, "reporting", "SIGTERM", "--resume")
    assert "metrics.jsonl line 2 is damaged; it is dropped" in output
    assert "agents/random-weights/returns.npz is damaged" in output
    assert "random weights is measured anew" in output

    code, output = command(tmp_path, "experiments.transfer", "--resume")
    assert code == 0, output
    assert "all agents were finished before" in output
    assert (whole / "scores.csv").read_bytes() == (run / "scores.csv").read_bytes()
    assert (whole / "returns.npz").read_bytes() == (run / "returns.npz").read_bytes()
    assert faults(run) == []
    logged = [open_line(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    assert all(line is not None for line in logged)
    assert len({(line["agent"], line["iteration"]) for line in logged if line}) == len(logged) == LINES - 1
    assert (
        json.loads((run / "summary.json").read_text())["scores"]
        == json.loads((whole / "summary.json").read_text())["scores"]
    )
