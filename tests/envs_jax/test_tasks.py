"""Frozen task sets: the same on every machine, apart from each other, and sealed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from benchmarks.quality import task_sets
from envs_jax import tasks
from envs_jax.domains.names import DOMAINS


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_draws_the_tasks_that_were_sealed(name):
    env, default = envs_jax.make(name)
    for split, count in tasks.SPLITS.items():
        drawn = envs_jax.load_tasks(name, split)
        assert isinstance(drawn, type(default))
        for one, stacked in zip(jax.tree.leaves(default), jax.tree.leaves(drawn), strict=True):
            assert (stacked.shape, stacked.dtype) == ((count, *one.shape), one.dtype)
        assert (drawn.max_steps_in_episode == env.horizon).all()


def test_no_two_splits_share_a_task():
    rows = [np.asarray(envs_jax.load_tasks("supply_chain", split).demand_mean) for split in tasks.SPLITS]
    assert [len(row) for row in rows] == [512, 64, 256]
    everything = np.concatenate(rows)
    assert len(np.unique(everything)) == len(everything)


def test_fewer_tasks_are_the_first_ones():
    some, every = (envs_jax.load_tasks("supply_chain", num=num) for num in (3, None))
    jax.tree.map(lambda few, all_: np.testing.assert_array_equal(few, all_[:3]), some, every)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "supply_chian"}, r"load_tasks\.domain must be one of agriculture, .*did you mean 'supply_chain'"),
        (
            {"split": "tset"},
            r"load_tasks\.split must be one of train, validation, test, got 'tset'; did you mean 'test'",
        ),
        ({"version": "v0"}, r"load_tasks\.version must be one of v1, got 'v0'"),
        ({"num": 257}, r"load_tasks\.num must be a whole number from 1 to 256, got 257"),
        ({"num": 0}, r"load_tasks\.num must be a whole number from 1 to 256, got 0"),
    ],
)
def test_what_there_is_not_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        envs_jax.load_tasks(**{"domain": "supply_chain", **arguments})


def test_a_seal_forgives_last_bits_and_finds_changes():
    drawn = tasks.draw("supply_chain", "test", "v1")
    sealed = tasks.seal(drawn)
    assert (
        tasks.differences(jax.tree.map(lambda x: x * (1 + 1e-6) if x.dtype == jnp.float32 else x, drawn), sealed) == []
    )
    assert tasks.differences(drawn.replace(backlog_cost=1.01 * drawn.backlog_cost), sealed) == [".backlog_cost"]
    assert ".demand_mean" in tasks.differences(jax.tree.map(lambda x: jnp.roll(x, 1, 0), drawn), sealed)
    assert tasks.differences(drawn.replace(backlog_cost=drawn.backlog_cost * jnp.nan), sealed) == [".backlog_cost"]
    assert tasks.differences(drawn, {**sealed, ".gone": [0.0, 0.0]}) == [".gone"]


def test_changed_tasks_are_not_handed_out(monkeypatch):
    drawn = tasks.draw("supply_chain", "test", "v1")
    monkeypatch.setattr(tasks, "draw", lambda *_: drawn.replace(demand_mean=drawn.demand_mean + 0.1))
    with pytest.raises(ValueError, match=r"does not draw the test tasks of 'supply_chain' .* v1: \.demand_mean differ"):
        envs_jax.load_tasks("supply_chain")


def _changed(drawn):
    return drawn.replace(nominal_demand=drawn.demand_mean)


def test_sealing_writes_what_is_new_and_replaces_nothing_unasked(tmp_path, monkeypatch):
    file, config = tmp_path / "sets.json", task_sets.Config(domains=("supply_chain",))
    assert task_sets.write(config, file) == ["supply_chain"]
    committed = json.loads(task_sets.FILE.read_text(encoding="utf-8"))["v1"]["supply_chain"]
    written = json.loads(file.read_text(encoding="utf-8"))["v1"]["supply_chain"]
    assert written.keys() == committed.keys() == tasks.SPLITS.keys()
    assert all(tasks.differences(tasks.draw("supply_chain", split, "v1"), committed[split]) == [] for split in written)
    before = file.read_bytes()
    assert task_sets.write(config, file) == []
    assert file.read_bytes() == before
    draw = tasks.draw
    monkeypatch.setattr(tasks, "draw", lambda *which, **how: _changed(draw(*which, **how)))
    with pytest.raises(ValueError, match="supply_chain draws other tasks than were sealed as v1"):
        task_sets.write(config, file)
    assert file.read_bytes() == before
    assert task_sets.write(task_sets.Config("v2", ("supply_chain",)), file) == ["supply_chain"]
    assert set(json.loads(file.read_text(encoding="utf-8"))) == {"v1", "v2"}
