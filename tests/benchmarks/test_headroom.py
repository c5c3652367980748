"""Headroom on a domain whose returns are known by hand (see tests/envs_jax/toys.py)."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

import envs_jax
from benchmarks.quality import headroom
from benchmarks.quality.headroom import Config
from tests.envs_jax.toys import Toy


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envs_jax, "make", lambda name: (Toy(num_turns=2, num_periods=3), None))
        return headroom.measure("toy", Config(tasks=16, episodes=2, population=64))


def test_policies_come_out_in_order_and_anchors_at_their_places(rows):
    assert [row.policy for row in rows] == ["random", "noop", "urgent", "heuristic", "average", "reference"]
    by_name = {row.policy: row for row in rows}
    assert (by_name["reference"].score, by_name["reference"].low, by_name["reference"].high) == (1.0, 1.0, 1.0)
    assert by_name["noop"].mean_return == 0.0
    assert by_name["random"].score <= 0
    assert by_name["noop"].score <= 0
    assert by_name["average"].score < 1
    for row in rows:
        assert row.low <= row.score <= row.high


def test_headroom_is_what_the_better_blind_policy_leaves(rows):
    blind = max(row.score for row in rows if row.policy in ("urgent", "heuristic", "average"))
    assert headroom.headroom(rows) == pytest.approx(1 - blind)
    assert 0 < headroom.headroom(rows) < 1


def test_table_has_a_line_a_policy_and_the_headroom_once_a_domain(rows):
    lines = headroom.table([rows, rows]).splitlines()
    assert len(lines) == 2 + 2 * 6
    filled = [line for line in lines[2:] if line.split("|")[-2].strip()]
    assert len(filled) == 2
    assert f"{headroom.headroom(rows):.2f}" in filled[0]
    assert "-0.000" not in "".join(lines)
    assert np.unique([line.count("|") for line in lines]).tolist() == [7]


def test_settings_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match="tasks must be from 1 to 1000000, got 0"):
        Config(tasks=0)


def test_results_are_stored_beside_the_page_and_other_domains_stay(tmp_path, monkeypatch, capsys, rows):
    monkeypatch.setattr(headroom, "measure", lambda name, config: [dataclasses.replace(r, domain=name) for r in rows])
    out = tmp_path / "headroom.md"
    headroom.main(["--domains", "smart_grid", "--out", str(out)])
    headroom.main(["--domains", "portfolio", "--out", str(out)])
    stored = headroom.load(tmp_path / "headroom.md")
    assert list(stored["domains"]) == ["portfolio", "smart_grid"]  # the registry's order
    assert stored["domains"]["portfolio"]["headroom"] == headroom.headroom(rows)
    assert headroom.document(stored) == out.read_text()
    assert "`python -m benchmarks.quality.headroom --domains portfolio smart_grid`" in out.read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        headroom.main(["--domains", "portfolio", "--seed", "1", "--out", str(out)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"stored with other settings .*: smart_grid; choose another --out", line)
    assert headroom.load(tmp_path / "headroom.md") == stored


def test_results_state_the_version_of_the_worlds_and_versions_are_not_mixed(tmp_path, monkeypatch, capsys, rows):
    monkeypatch.setattr(headroom, "measure", lambda name, config: [dataclasses.replace(r, domain=name) for r in rows])
    out = tmp_path / "headroom.md"
    headroom.main(["--domains", "smart_grid", "--out", str(out)])
    assert headroom.load(out)["version"] == envs_jax.VERSION
    assert f"Worlds of version {envs_jax.VERSION}." in out.read_text()
    monkeypatch.setattr(headroom.command, "version", lambda: "3.0")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        headroom.main(["--domains", "portfolio", "--out", str(out)])
    assert stop.value.code == 2
    assert f"stored of worlds {envs_jax.VERSION}, not 3.0: smart_grid" in capsys.readouterr().err
    headroom.main(["--domains", "smart_grid", "--out", str(out)])  # nothing old is left
    assert headroom.load(out)["version"] == "3.0"


def test_the_page_in_docs_is_that_of_the_stored_results():
    docs = pathlib.Path(__file__).parents[2] / "docs"
    assert headroom.document(headroom.load(docs / "headroom.md")) == (docs / "headroom.md").read_text()
