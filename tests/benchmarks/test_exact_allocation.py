"""The check of exact allocations: what it counts, on planted answers, and the whole command."""

import json

import numpy as np
import pytest

from benchmarks.studies import exact_allocation
from envs_jax.allocation.transport import Solution, Transport

PROBLEM = Transport(*(np.float32([array] * 6) for array in ([[1.0, 3.0]], [2.0], [1.0, 5.0])))
"""Six times: 2 MW from a plant that gives 1 MW at 1 and one that gives 5 MW at 3; the optimum is 4."""


def test_errors_count_where_the_solver_did_not_flag_them():
    allocation = np.float32([[[1, 1]], [[0, 2]], [[0, 2]], [[2, 0]], [[1, 0.9]], [[1, 1]]])
    gap = np.float32([1e-6, 0.5, 1e-6, 1e-6, 1e-6, np.nan])
    solution = Solution(allocation, np.zeros((6, 2)), np.zeros(6), gap)
    optima = np.array([4.0, 4.0, 4.0, 4.0, 3.7, 4.0])
    found = exact_allocation.compare(PROBLEM, solution, optima, tolerance=1e-5, limit=1e-4)
    # Right; dear and flagged; dear; above a supply; a demand missed at the right cost; nothing proved, so flagged.
    assert found["instances"] == 6
    assert found["flagged"] == 2
    assert found["unflagged_errors"] == 3
    assert found["errors_flagged"] == 1
    assert found["largest_error"] == pytest.approx(0.5)
    assert found["largest_violation"] == pytest.approx(0.5)
    assert found["left_by_highs"] == 0
    found = exact_allocation.compare(PROBLEM, solution, np.full(6, np.nan), tolerance=1e-5, limit=1e-4)
    assert found["left_by_highs"] == 6


def test_highs_finds_the_optimum():
    optima, seconds = exact_allocation.by_highs(PROBLEM)
    np.testing.assert_allclose(optima, 4.0)
    assert seconds > 0


@pytest.mark.slow
def test_the_whole_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        exact_allocation.main(["--instances", "24", "--batch", "2", "--out", str(tmp_path)])
    assert ended.value.code == 0
    assert "24 instances against HiGHS: 0 unflagged errors above 0.0001" in capsys.readouterr().out
    written = json.loads((tmp_path / "exact_allocation.json").read_text())
    assert written["total"]["instances"] == sum(kind["instances"] for kind in written["kinds"].values()) == 24
    assert written["total"]["unflagged_errors"] == 0


def test_numbers_without_a_meaning_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        exact_allocation.main(["--instances", "3"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: instances must be from 8 to 10000000, got 3\n"
