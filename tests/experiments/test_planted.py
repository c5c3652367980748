"""A learner that is planted comes out of the whole pipeline as planted, or stops it by name."""

from __future__ import annotations

import csv
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
ARGUMENTS = ("--preset", "smoke", "--learner", "planted", "--domains", "portfolio", "--name", "run")


def planted(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    chosen = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    return subprocess.run(
        [sys.executable, "-m", "tests.experiments.planted_learner", *ARGUMENTS, *arguments],
        cwd=folder,
        env=os.environ | chosen,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_known_scores_come_out_as_planted(tmp_path: pathlib.Path) -> None:
    """It plays the heuristic, whatever it is given. Beside it trains a learner with other needs: the control."""
    done = planted(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "results/transfer/run"
    with np.load(run / "returns.npz") as stored:
        returns, heuristic = stored["returns/source-portfolio/portfolio"], stored["anchors/portfolio/heuristic"]
        control = stored["returns/multitask-portfolio/portfolio"]
        floor = np.maximum(stored["anchors/portfolio/random"], stored["anchors/portfolio/noop"])
        reference = stored["anchors/portfolio/reference"]
    np.testing.assert_array_equal(returns.mean(-1), np.broadcast_to(heuristic, returns.shape[:-1]))
    assert not np.array_equal(control.mean(-1), returns.mean(-1))
    known = (heuristic - floor).sum() / (reference - floor).sum()
    with (run / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["role"] in ("source", "random weights")]
    assert len(rows) == 2 * 2 * 5  # two agents, two seeds, K=0, 1, 2, swapped, zeroed
    for row in rows:
        assert row["learner"] == "planted"
        assert float(row["score"]) == pytest.approx(known, abs=1e-5)


def test_a_learner_that_cannot_act_stops_the_run_by_name(tmp_path: pathlib.Path) -> None:
    done = planted(tmp_path, "--agent.fails")
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "learner planted: act raised ValueError: no idea" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results/transfer/run/scores.csv").exists()
