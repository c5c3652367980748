"""Whole runs as a user starts them: finished, killed, stopped, damaged, resumed; scores must agree to the last bit."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
ARGUMENTS = ("--preset", "smoke", "--domains", "portfolio")
LINES = 8  # of the metrics: two agents of four intervals
LIMIT = 900.0


def start(folder: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.transfer", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=LIMIT)
    return output


def run_in(folder: pathlib.Path) -> pathlib.Path:
    (run,) = (folder / "results/transfer").iterdir()
    return run


def logged(folder: pathlib.Path) -> int:
    files = list(folder.glob("results/transfer/*/metrics.jsonl"))
    return len(files[0].read_text().splitlines()) if files else 0


def wait_for(process: subprocess.Popen[str], folder: pathlib.Path, lines: int) -> None:
    end = time.monotonic() + LIMIT
    there = "results/transfer/*/config.yaml"  # before that there is no run to resume
    while not list(folder.glob(there)) or (logged(folder) < lines and process.poll() is None):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder, *ARGUMENTS)
    output = finish(process)
    assert process.returncode == 0, output
    for text in ("Score K=0 → K=2", "Controls", "Interquartile mean", "random weights", "report: "):
        assert text in output
    return run_in(folder)


def same_scores(one: pathlib.Path, other: pathlib.Path) -> None:
    assert (one / "scores.csv").read_bytes() == (other / "scores.csv").read_bytes()
    with np.load(one / "returns.npz") as a, np.load(other / "returns.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            assert a[name].tobytes() == b[name].tobytes(), name


def resumed(folder: pathlib.Path) -> str:
    process = start(folder, "--resume")
    output = finish(process)
    assert process.returncode == 0, output
    lines = [json.loads(line) for line in (run_in(folder) / "metrics.jsonl").read_text().splitlines()]
    assert len({(line["agent"], line["iteration"]) for line in lines}) == len(lines) == LINES
    return output


def test_everything_is_there(whole: pathlib.Path) -> None:
    there = {path.name for path in whole.iterdir()}
    assert {"config.yaml", "versions.json", "metrics.jsonl", "scores.csv", "returns.npz", "report.html"} <= there
    assert {"summary.json", "figures", "agents"} <= there
    with np.load(whole / "returns.npz") as raw:
        returns = raw["returns/source-portfolio/portfolio"]
        assert returns.shape == (4, 5, 4, 2)  # two arms of two seeds, conditions, tasks, episodes
        assert np.isfinite(returns).all()


def test_killed_at_a_random_moment_and_resumed(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines, wait = random.randint(0, LINES), random.uniform(0.0, 1.0)
    process = start(tmp_path, *ARGUMENTS)
    wait_for(process, tmp_path, lines)
    time.sleep(wait)
    process.kill()
    finish(process)
    print(f"killed {wait:.2f} s after {lines} intervals")
    resumed(tmp_path)
    same_scores(whole, run_in(tmp_path))


def test_stopped_then_damaged_then_resumed(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    process = start(tmp_path, *ARGUMENTS)
    wait_for(process, tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert f"--resume {run_in(tmp_path).relative_to(tmp_path)}" in output

    checkpoints = run_in(tmp_path) / "agents/source-portfolio/checkpoints"
    newest = max(checkpoints.iterdir())
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(bytes(damaged))
    output = resumed(tmp_path)
    assert f"{newest.name}: skipped, " in output
    same_scores(whole, run_in(tmp_path))


def test_a_finished_run_is_reported_again(whole: pathlib.Path) -> None:
    before = (whole / "scores.csv").read_bytes()
    process = start(whole, "--resume", str(whole))
    output = finish(process)
    assert process.returncode == 0, output
    assert "source: portfolio: finished before" in output
    assert (whole / "scores.csv").read_bytes() == before
