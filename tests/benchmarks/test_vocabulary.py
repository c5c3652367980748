"""The page of the vocabulary: made of docstrings and stored statistics, and up to date."""

import json

import pytest

from benchmarks.quality import vocabulary
from benchmarks.quality.vocabulary import ROOT, WITHOUT_EXCHANGE

DOMAIN = '''"""A domain."""


class {name}:
    """A domain of ports.

    ===== =========== =======================
    token column      quantity
    ===== =========== =======================
    port  urgency     orders lost [3 units]
    port  private_a   what is | afloat
    all   progress    share of the episode gone
    ===== =========== =======================

    Roles: port ``store``. Action a loads port a.
    """

    exceptions = {{"serving_the_urgent_pays": "Loading " "costs."}}
'''
STATISTICS = {
    "t": 3.21,
    "served": [0.5, 0.4, 0.6],
    "slack": None,
    "reads": {"tokens": ["urgency"], "actions": ["amount"]},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary.command, "registry", lambda: {"DOMAINS": {"maritime": "Maritime", "grid": "Grid"}})
    for folder in ("docs", "envs_jax/domains", "tests/envs_jax"):
        (tmp_path / folder).mkdir(parents=True)
    for name, of in (("maritime", "Maritime"), ("grid", "Grid")):
        (tmp_path / f"envs_jax/domains/{name}.py").write_text(DOMAIN.format(name=of))
    (tmp_path / "tests/envs_jax/test_grid_power.py").write_text(
        "def test_permuting_lines_permutes_tokens():\n    pass\n"
    )
    return tmp_path


def test_the_page_says_what_a_column_is_in_every_domain(root):
    page = vocabulary.document(root, {"maritime": STATISTICS})
    section = page.split("## Entities: urgency")[1].split("##")[0]
    assert "| `maritime` | port | orders lost | 3 units |" in section
    assert "| `grid` | port | orders lost | 3 units |" in section
    assert "| token | port | `private_a` | what is \\| afloat |  |" in page.split("### maritime")[1]
    assert "| `maritime` | 3.2 | 0.50 [0.40, 0.60] | - | `urgency`, `amount` |" in page
    assert "| `grid` | not measured |" in page
    assert "`test_grid_power.py::test_permuting_lines_permutes_tokens`" in page
    assert WITHOUT_EXCHANGE["maritime"] in page
    assert "- `grid`, serving the urgent pays: Loading costs.\n" in page


def test_check_fails_until_the_page_is_written_anew(root):
    with pytest.raises(SystemExit, match="is out of date"):
        vocabulary.main(["--check"], root)
    vocabulary.main(["--no-measure"], root)
    vocabulary.main(["--check"], root)
    file = root / "envs_jax/domains/grid.py"
    file.write_text(file.read_text().replace("orders lost", "orders late"))
    with pytest.raises(SystemExit, match="is out of date"):
        vocabulary.main(["--check"], root)


def test_measured_domains_join_the_stored_ones_in_the_registrys_order(root, monkeypatch):
    monkeypatch.setattr(vocabulary, "measure", lambda name: STATISTICS)
    monkeypatch.setattr(vocabulary.command, "check_domains", lambda names: None)
    vocabulary.main(["--domains", "grid"], root)
    vocabulary.main(["--domains", "maritime"], root)
    stored = json.loads((root / "docs/vocabulary.json").read_text())
    assert list(stored["domains"]) == ["maritime", "grid"]
    assert stored["version"] == vocabulary.command.version()


def test_a_docstring_that_cannot_be_read_is_refused_in_one_line(root, capsys):
    file = root / "envs_jax/domains/grid.py"
    file.write_text(file.read_text().replace("port  urgency ", "port  urgncy  "))
    with pytest.raises(SystemExit) as stop:
        vocabulary.main(["--no-measure"], root)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: grid: unknown column 'urgncy' in this line")


def test_every_domain_has_a_test_of_exchange_or_a_reason_why_not():
    for name in vocabulary.command.registry()["DOMAINS"]:
        tests = vocabulary.exchange_tests(ROOT, name)
        assert bool(tests) != (name in WITHOUT_EXCHANGE), (name, tests)


def test_the_page_in_docs_is_up_to_date():
    vocabulary.main(["--check"])
