"""The table says what the registry and the stored results say, and the README holds it."""

import ast
import json
import pathlib

import pytest

from benchmarks.quality import domain_table
from benchmarks.quality.domain_table import BEGIN, DESCRIPTIONS, END, ROOT

HEADROOM = {
    "portfolio": {"reference_kind": "heuristic", "headroom": 0.849},
    "smart_grid": {"reference_kind": "optimal", "headroom": 0.6},
}


def speed(domain, batch, steps, program="JAX"):
    return {"domain": domain, "program": program, "batch": batch, "steps_per_second": steps}


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_a_line_a_domain_extras_last_and_gaps_said():
    names = ("atlantis", "portfolio", "smart_grid", "supply_chain")
    rows = [
        *(speed("portfolio", batch, 1234567.8 * batch) for batch in (1, 64, 1024)),
        *(speed("smart_grid", batch, 10.0 * batch) for batch in (64, 1)),
        speed("smart_grid", 4096, 1.0, program="NumPy, vectorised"),  # no batch of ours
        speed("all domains, one batch", 64, 2.0),
    ]
    header, _, *lines = cells(domain_table.table(names, frozenset({"atlantis"}), HEADROOM, rows))
    assert header[-1] == "environment steps/s (64 in parallel)"
    assert lines[0] == [
        "[`portfolio`](docs/domains/portfolio.md)",
        *DESCRIPTIONS["portfolio"],
        "heuristic",
        "0.85",
        "79,012,339",
    ]
    assert lines[1][-3:] == ["exact", "0.60", "640"]
    assert lines[2] == [
        "[`supply_chain`](docs/domains/supply_chain.md)",
        *DESCRIPTIONS["supply_chain"],
        *["not measured"] * 3,
    ]
    assert lines[3][:2] == ["[`atlantis`](docs/domains/atlantis.md) (extra)", "not described"]


def test_without_a_common_batch_no_speed_is_shown():
    rows = [speed("portfolio", 1, 5.0), speed("smart_grid", 2, 5.0)]
    text = domain_table.table(("portfolio", "smart_grid"), frozenset(), HEADROOM, rows)
    assert cells(text)[0][-1] == "environment steps/s"
    assert [row[-1] for row in cells(text)[2:]] == ["not measured"] * 2


def test_the_command_writes_between_the_markers_and_check_tells_what_is_stale(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "headroom.json").write_text(json.dumps({"domains": HEADROOM}))
    with pytest.raises(SystemExit, match="out of date"):
        domain_table.main(["--check"], tmp_path)
    assert "old" in readme.read_text()
    domain_table.main([], tmp_path)
    domain_table.main([], tmp_path)  # twice is once
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| domain |")
    assert text.endswith(f"|\n{END}\nafter\n")
    assert "0.85" in text
    domain_table.main(["--check"], tmp_path)
    (tmp_path / "docs" / "headroom.json").unlink()
    with pytest.raises(SystemExit, match="out of date"):
        domain_table.main(["--check"], tmp_path)


@pytest.mark.parametrize("text", ["none", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"])
def test_a_readme_without_its_markers_is_refused(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(SystemExit, match="needs one line"):
        domain_table.main([], tmp_path)
    assert (tmp_path / "README.md").read_text() == text


def test_the_readme_is_up_to_date():
    domain_table.main(["--check"])


def test_stored_kinds_are_those_of_the_classes():
    import envs_jax

    stored = json.loads((ROOT / "docs" / "headroom.json").read_text())["domains"]
    assert stored
    for name, entry in stored.items():
        assert entry["reference_kind"] == envs_jax.make(name)[0].reference_kind, name


def test_the_command_needs_no_import_that_takes_seconds():
    tree = ast.parse(pathlib.Path(domain_table.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    heavy = ("jax", "gymnax", "envs_jax", "metarl_jax", "experiments", "numpy")
    assert not {name for name in names if name.split(".")[0] in heavy}


def test_every_domain_is_described() -> None:
    names = set(domain_table.command.registry()["DOMAINS"])
    assert set(DESCRIPTIONS) == names
    assert all(map(all, DESCRIPTIONS.values()))
