"""The page of bounds: what a row says, what is refused, and that the stored results are the page's."""

import json
import pathlib

import jax
import numpy as np
import pytest

from benchmarks import bounds, headroom
from benchmarks.bounds import BOUNDS, WITHOUT, Bound, Config
from envs_jax import anchors
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
            assert callable(bounds.programme(bound)), name


def test_episodes_are_the_first_of_those_that_headroom_is_measured_on():
    (row,) = bounds.measure("vehicle_fleet", Config(domains=("vehicle_fleet",), tasks=2, episodes=3))
    import envs_jax

    env, _ = envs_jax.make("vehicle_fleet")
    tasks, _, keys = headroom.frozen(env, headroom.Config())
    assert keys.shape == (64, 8)
    first = jax.tree.map(lambda x: x[:2], tasks)
    found = anchors.anchors(env, first, keys[:2, :3])
    np.testing.assert_allclose(row.reference, np.mean(found.reference), rtol=1e-6)
    assert (row.tasks, row.episodes, row.kind) == (2, 3, "foresight bound")
    assert row.score > 1


def test_options_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match="tasks must be from 1 to 64, got 65"):
        Config(tasks=65)
    with pytest.raises(ValueError, match="no bound for 'air_traffic'; there is one for agriculture"):
        Config(domains=("air_traffic",))


def test_results_are_stored_beside_the_page_and_other_domains_stay(tmp_path, monkeypatch):
    row = bounds.score(ENV, Bound("b", "relaxation", "none.none"), EARNED["reference"] + 1, EARNED, 0)
    monkeypatch.setattr(bounds, "measure", lambda name, config: [row])
    out = tmp_path / "bounds.md"
    bounds.main(["--domains", "smart_grid", "--tasks", "4", "--out", str(out)])
    bounds.main(["--domains", "portfolio", "--tasks", "4", "--out", str(out)])
    stored = json.loads((tmp_path / "bounds.json").read_text())
    assert list(stored["domains"]) == ["portfolio", "smart_grid"]
    assert bounds.document(stored) == out.read_text()
    assert "`python -m benchmarks.bounds --domains portfolio smart_grid --tasks 4`" in out.read_text()
    with pytest.raises(SystemExit, match="stored with other settings"):
        bounds.main(["--domains", "portfolio", "--tasks", "5", "--out", str(out)])


def test_the_page_in_docs_is_that_of_the_stored_results():
    stored = json.loads((DOCS / "bounds.json").read_text())
    assert bounds.document(stored) == (DOCS / "bounds.md").read_text()
    assert sorted(stored["domains"]) == sorted(BOUNDS)
    for entry in stored["domains"].values():
        for row in entry["rows"]:
            # Nothing proven is less than what a policy that knows less attains on average.
            assert row["mean_return"] >= row["reference"] or row["kind"] == "best found"
