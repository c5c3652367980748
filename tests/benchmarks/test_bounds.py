"""The page of bounds: what a row says, what is refused, and that the stored results are the page's."""

import json
import pathlib

import jax
import numpy as np
import pytest

import envs_jax
from benchmarks.quality import bounds, headroom
from benchmarks.quality.bounds import BOUNDS, WITHOUT, Bound, Config
from envs_jax import scoring
from envs_jax.domains.names import DOMAINS
from tests.envs_jax.toys import Toy

DOCS = pathlib.Path(__file__).parents[2] / "docs"
ENV = Toy(num_turns=2, num_periods=3)
EARNED = {
    "random": np.array([[0.0, 2.0], [3.0, 5.0]]),
    "noop": np.array([[2.0, 2.0], [1.0, 1.0]]),
    "heuristic": np.array([[4.0, 4.0], [4.0, 6.0]]),
    "reference": np.array([[6.0, 8.0], [5.0, 7.0]]),
}


def test_a_row_by_hand():
    bound = Bound("by hand", "foresight bound", "none.none")
    row = bounds.score(ENV, bound, np.array([[7.0, 9.0], [9.0, 7.5]]), EARNED, 0)
    # Floors 2 and 4, reference 7 and 6, bound 8 and 8.25.
    assert row.score == pytest.approx((6 + 4.25) / (5 + 2))
    assert row.low <= row.score <= row.high
    assert (row.tasks, row.episodes, row.mean_return, row.reference, row.floor) == (2, 2, 8.125, 6.5, 3.0)
    assert row.least_gap == pytest.approx(0.5)


def test_a_bound_that_a_policy_beats_in_one_episode_is_an_error_unless_it_bounds_the_mean():
    values = np.array([[7.0, 7.5], [9.0, 9.0]])  # the second episode earned 8
    with pytest.raises(RuntimeError, match=r"earned 0\.5 more than the bound 'wrong'"):
        bounds.score(ENV, Bound("wrong", "foresight bound", "none.none"), values, EARNED, 0)
    assert bounds.score(ENV, Bound("mean", "relaxation", "none.none"), values, EARNED, 0).least_gap is None
    assert bounds.score(ENV, Bound("found", "best found", "none.none"), values, EARNED, 0).least_gap == -0.5


def test_every_domain_has_a_bound_or_a_reason():
    assert sorted([*BOUNDS, *WITHOUT]) == sorted(DOMAINS)
    for name, several in BOUNDS.items():
        for bound in several:
            assert callable(bounds.oracle(bound)), name


def test_episodes_are_the_first_of_those_that_headroom_is_measured_on(monkeypatch):
    tasks, _, keys = headroom.frozen(ENV, headroom.Config())
    assert keys.shape == (64, 8)
    met = []

    def compute(env, task, keys):
        met.append((task, keys))
        return np.full(len(keys), 100.0)

    monkeypatch.setattr(envs_jax, "make", lambda name: (ENV, None))
    monkeypatch.setattr(bounds, "oracle", lambda bound: compute)
    monkeypatch.setitem(BOUNDS, "toy", (Bound("a", "foresight bound", "", 5, 3), Bound("b", "best found", "", 2, 4)))
    first, second = bounds.measure("toy", Config(tasks=4))
    assert [(row.tasks, row.episodes, row.kind) for row in (first, second)] == [
        (4, 3, "foresight bound"),
        (2, 4, "best found"),
    ]
    for i, (task, seen) in enumerate(met[:4]):
        jax.tree.map(np.testing.assert_array_equal, task, jax.tree.map(lambda x, i=i: x[i], tasks))
        assert (seen == keys[i, :3]).all()
    assert [len(seen) for _, seen in met] == [3] * 4 + [4] * 2
    found = scoring.reference_episodes(ENV, jax.tree.map(lambda x: x[:4], tasks), keys[:4, :4])
    np.testing.assert_allclose(first.reference, np.mean(found.reference[:, :3]), rtol=1e-6)
    np.testing.assert_allclose(second.reference, np.mean(found.reference[:2]), rtol=1e-6)


def test_options_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match="tasks must be from 1 to 64, got 65"):
        Config(tasks=65)
    with pytest.raises(ValueError, match="no bound for 'air_traffic'; there is one for agriculture"):
        Config(domains=("air_traffic",))


def test_results_are_stored_beside_the_page_and_other_domains_stay(tmp_path, monkeypatch, capsys):
    row = bounds.score(ENV, Bound("b", "relaxation", "none.none"), EARNED["reference"] + 1, EARNED, 0)
    monkeypatch.setattr(bounds, "measure", lambda name, config: [row])
    out = tmp_path / "bounds.md"
    bounds.main(["--domains", "smart_grid", "--tasks", "4", "--out", str(out)])
    bounds.main(["--domains", "portfolio", "--tasks", "4", "--out", str(out)])
    stored = json.loads((tmp_path / "bounds.json").read_text())
    assert list(stored["domains"]) == ["portfolio", "smart_grid"]
    assert bounds.document(stored) == out.read_text()
    assert "`python -m benchmarks.quality.bounds --domains portfolio smart_grid --tasks 4`" in out.read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        bounds.main(["--domains", "portfolio", "--tasks", "5", "--out", str(out)])
    assert stop.value.code == 2
    assert "stored with other settings" in capsys.readouterr().err


def test_the_page_in_docs_is_that_of_the_stored_results():
    stored = json.loads((DOCS / "bounds.json").read_text())
    assert bounds.document(stored) == (DOCS / "bounds.md").read_text()
    assert sorted(stored["domains"]) == sorted(BOUNDS)
    for entry in stored["domains"].values():
        for row in entry["rows"]:
            # What holds in every episode holds on average, what holds on average within the interval.
            if row["kind"] == "foresight bound":
                assert row["mean_return"] >= row["reference"]
            assert row["high"] >= 1
