"""Compiling is measured in fresh processes, cold and warm, and the sum over domains is a sum."""

import json
import pathlib

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks.speed import compile_suite
from benchmarks.speed.compile_suite import TOGETHER, Config, Measurement
from envs_jax.suite import Suite
from tests.envs_jax.toys import Toy

TOYS = Suite.of((Toy(num_turns=2, num_periods=3), Toy(num_turns=3, num_periods=4, num_actions=5)), ("short", "long"))


def row(program, policy, cache, trace, compiling, from_cache=False):
    return Measurement(
        program, policy, cache, from_cache, trace, 0.5, compiling, (3.0, 1.0, 2.0), 1000, 10, 2**20, 2**22
    )


@pytest.mark.parametrize("policy", compile_suite.POLICIES)
def test_the_program_plays_every_domain_and_reads_what_is_seen(policy):
    key = jax.random.key(0)
    tasks, keys = TOYS.sample_tasks(key, 3), TOYS.episode_keys(key, 3, 2)
    played = jax.jit(compile_suite.play(TOYS, policy))(tasks, keys, key)
    assert [returns.shape for returns, _ in played] == [(3, 2), (3, 2)]
    for returns, checksum in played:
        assert np.isfinite(returns).all()
        assert np.asarray(checksum).any()


def test_the_reference_earns_more_than_chance():
    key = jax.random.key(1)
    tasks, keys = TOYS.sample_tasks(key, 16), TOYS.episode_keys(key, 16, 4)
    by_policy = [jax.jit(compile_suite.play(TOYS, policy))(tasks, keys, key) for policy in ("random", "reference")]
    for (random, _), (reference, _) in zip(*by_policy, strict=True):
        assert float(reference.mean()) > float(random.mean())


def test_the_table_adds_up_domains_alone_and_marks_a_cache_that_missed():
    rows = [
        row(TOGETHER, "random", "cold", 1.0, 20.0),
        row(TOGETHER, "random", "warm", 1.0, 0.25, from_cache=True),
        row("portfolio", "random", "cold", 1.25, 4.0),
        row("smart_grid", "random", "cold", 2.25, 7.0),
        row(TOGETHER, "reference", "warm", 1.0, 19.0),
    ]
    console = Console(record=True, width=150)
    console.print(compile_suite.table(rows))
    lines = console.export_text().splitlines()
    (total,) = [line for line in lines if "sum of 2 alone" in line]
    assert all(text in total for text in ("3.50", "1.00", "11.00", "4.0000", "2,000"))
    (missed,) = [line for line in lines if "MISSED" in line]
    assert "reference" in missed


@pytest.mark.parametrize("name", ["batch", "repeats"])
def test_settings_without_a_meaning_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be from 1 to .*, got 0"):
        Config(**{name: 0})


def test_unknown_domains_are_named_in_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        compile_suite.main(["--domains", "atlantis", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "unknown domain 'atlantis'" in capsys.readouterr().err


def test_standard_domains_are_the_default_and_each_process_is_asked_once(tmp_path, monkeypatch):
    asked = []

    def fresh(folder, **wanted):
        asked.append((wanted["policy"], wanted["program"], wanted["cache"]))
        assert pathlib.Path(folder).is_dir()
        found = row(wanted["program"], wanted["policy"], wanted["cache"], 1.0, 1.0, wanted["cache"] == "warm")
        return found, {"devices": ["cpu"], "cores": 2}

    names = {"DOMAINS": {"a": "A", "extra": "E", "b": "B"}, "EXTRAS": frozenset({"extra"})}
    monkeypatch.setattr(compile_suite.command, "registry", lambda: names)
    monkeypatch.setattr(compile_suite, "fresh", fresh)
    compile_suite.main(["--out", str(tmp_path)])
    once = [(TOGETHER, "cold"), (TOGETHER, "warm"), ("a", "cold"), ("b", "cold")]
    assert asked == [(policy, *which) for policy in compile_suite.POLICIES for which in once]
    result = json.loads((tmp_path / "compile.json").read_text())
    assert result["config"]["domains"] == ["a", "b"]
    assert len(result["compile"]) == 8
    assert "sum of 2 alone" in (tmp_path / "compile.txt").read_text()


@pytest.mark.slow
def test_the_whole_command_on_two_domains(tmp_path):
    compile_suite.main(
        ["--domains", "portfolio", "energy_trading", "--batch", "2", "--repeats", "1", "--out", str(tmp_path)]
    )
    rows = [Measurement(**found) for found in json.loads((tmp_path / "compile.json").read_text())["compile"]]
    assert len(rows) == 8
    for found in rows:
        assert found.from_cache == (found.cache == "warm")
        assert found.trace_seconds > 0
        assert found.instructions > 100
        assert found.peak_bytes >= found.start_bytes > 2**20
        assert len(found.run_seconds) == 1
    for policy in compile_suite.POLICIES:
        cold, warm, *alone = [found for found in rows if found.policy == policy]
        assert (cold.program, warm.program) == (TOGETHER, TOGETHER)
        assert cold.stablehlo_lines == warm.stablehlo_lines
        assert max(one.stablehlo_lines for one in alone) < cold.stablehlo_lines
        assert warm.compile_seconds < cold.compile_seconds
