"""The benchmark measures what it says: turns, ratios, legal random play, every feature read, a report of all of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks.speed import meta_step, subjects, throughput, timing
from benchmarks.speed.throughput import BATCH, CARTPOLE, JAX, LOOP, MIXED, Config, Entry, Row
from benchmarks.speed.timing import Timing
from envs_jax import rollout as engine
from envs_jax.suite import Suite
from metarl_jax.configs import AdaptationConfig, DataConfig, QLearningConfig, TransformerMamlDqnConfig
from tests.envs_jax.toys import Toy
from tests.metarl_jax import probes, small

TOYS = Suite.of((Toy(num_turns=2, num_periods=3), Toy(num_turns=3, num_periods=4, num_actions=5)), ("short", "long"))


# ---- timing -------------------------------------------------------------------------------------------------------


def test_programs_take_turns_and_short_ones_are_repeated(monkeypatch):
    now, log = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: 2 * now[0])

    def run(name, seconds):
        log.append(name)
        now[0] += seconds

    long, short = timing.interleaved([lambda: run("long", 3.0), lambda: run("short", 0.5)], 2, 1.0)
    assert (long.calls, short.calls) == (1, 2)
    # Twice each to warm up and to see how long it takes, then in turns.
    assert log == ["long"] * 2 + ["short"] * 2 + (["long"] + ["short"] * 2) * 2
    assert long == Timing((3.0, 3.0), (6.0, 6.0), 1)
    assert short.median_wall == pytest.approx(0.5)
    assert short.median_cpu == pytest.approx(1.0)


def test_ratio_compares_within_rounds():
    # The machine was ten times slower in the last three rounds: the ratio of medians would be 20.
    assert timing.ratio([2.0, 2.0, 20.0, 20.0, 20.0], [1.0, 1.0, 10.0, 10.0, 1.0]) == 2.0


def test_compiling_is_apart_from_running():
    program = timing.compiled(lambda x: jnp.sin(x) @ x, jnp.ones(64))
    assert program.compile_seconds > 0
    assert program.trace_seconds > 0
    assert float(program.call()) == pytest.approx(64 * np.sin(1.0), rel=1e-5)


# ---- what is run --------------------------------------------------------------------------------------------------


def test_random_legal_is_uniform_over_legal_actions():
    mask = np.array([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0]], bool)
    actions = subjects.random_legal(np.tile(mask, (20_000, 1)), np.random.default_rng(0)).reshape(-1, 2)
    counts = np.bincount(actions[:, 0], minlength=5)
    assert (counts[~mask[0]] == 0).all()
    assert stats.chisquare(counts[mask[0]]).pvalue > 1e-3
    assert (actions[:, 1] == 0).all()


def test_every_feature_is_read():
    env = TOYS.envs[0]
    tasks, keys = TOYS.sample_tasks(jax.random.key(0), 2)[0], jax.random.split(jax.random.key(1), (2, 1))

    @jax.jit
    def sensitivity():
        seen, _ = engine.lockstep_reset(env, tasks, keys)

        def read(tokens, actions):
            return subjects.read_out(seen.replace(tokens=tokens, actions=actions), jax.random.key(2))

        return jax.grad(read, argnums=(0, 1))(seen.tokens, seen.actions)

    assert all((np.asarray(part) != 0).all() for part in sensitivity())


def test_lockstep_plays_every_domain():
    tasks, keys = TOYS.sample_tasks(jax.random.key(0), 4), TOYS.episode_keys(jax.random.key(1), 4, 1)
    play = jax.jit(subjects.lockstep, static_argnums=(0, 1))
    apart = tuple((one,) for one in tasks), tuple((one,) for one in keys)
    for suites, own_tasks, own_keys in (((TOYS,), (tasks,), (keys,)), (TOYS.buckets(2), *apart)):
        read, total = play(suites, TOYS.horizon, own_tasks, own_keys, jax.random.key(2))
        assert np.isfinite(read)
        # 12 choices in each of 2 x 4 episodes, each worth between -1 and 4: random ones earn about 1 on average.
        assert 0.3 < float(total) / (8 * 12) < 2


def test_a_batch_is_spread_over_devices_each_with_noise_of_its_own():
    spread, (keys, starts) = subjects.over_devices(
        lambda starts, key: jnp.sum(starts) + 100.0 * jax.random.uniform(key), 6, jax.random.key(0), jnp.arange(6.0)
    )
    checksums = np.asarray(jax.jit(spread)(keys, starts))
    assert len(checksums) == len(keys)
    noise = 100.0 * np.array([jax.random.uniform(key) for key in keys])
    np.testing.assert_allclose(checksums - noise, np.arange(6.0).reshape(len(keys), -1).sum(1), atol=1e-4)


def test_sizes_are_those_of_one_environment():
    env = TOYS.envs[0]
    # time, key (two words), last reward, earned, noise; tokens, actions, targets, two masks.
    assert subjects.bytes_of(env) == (4 * 6, 4 * (2 * 30 + 3 * 7 + 3) + 2 + 3)


# ---- what is reported ---------------------------------------------------------------------------------------------


def entry_row(domain, program, environments, wall, ours=None):
    timed = Timing(tuple(10 * w for w in wall), tuple(10 * w for w in wall), 1)
    return Entry(domain, program, environments, 10, lambda: None).row(1024, timed, ours)


def test_speed_ups_count_environments_and_floors_judge_them():
    ours = entry_row("d", JAX, 1024, [1.0] * 5)
    batch_row, loop_row = entry_row("d", BATCH, 1024, [0.5] * 5, ours), entry_row("d", LOOP, 1, [0.25] * 5, ours)
    other, mixed = entry_row("e", JAX, 1024, [3.0] * 5), entry_row(MIXED, JAX, 2048, [6.0] * 5)
    cart = entry_row(CARTPOLE, JAX, 1024, [9.0] * 5)
    assert ours.steps_per_second == 1024
    assert ours.jax_speedup is None
    assert batch_row.jax_speedup == 0.5
    assert loop_row.jax_speedup == 256  # one environment in a quarter of the time of 1024
    floors = throughput.floors([ours, batch_row, loop_row, other, mixed, cart])
    assert [(f.measured, f.limit, f.at_least, f.met) for f in floors] == [
        (0.5, 1.0, True, False),
        (256.0, 100.0, True, True),
        (1.5, 1.8, False, True),
    ]


def test_meta_steps_are_compared_second_against_first_order():
    def step(stage, wall):
        times = tuple([wall] * 5)
        return meta_step.MetaStep(stage, 12, 1 / wall, 12 / wall, times, times, 1.0, 10, 1.0, 100)

    steps = [step("none", 1.0), step("first", 2.0), step("second", 5.0)]
    assert meta_step.ratios(steps) == [("meta-gradient step, second / first order", 2.5, 2.5, 2.6)]
    assert meta_step.ratios(steps[:1]) == []
    assert meta_step.table(steps).row_count == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 4}, "repeats must be from 5 to 1000, got 4"),
        ({"batches": (64, 0)}, "batches must be from 1 to"),
        ({"steps": -1}, "steps must be from 0"),
        ({"seconds": float("nan")}, "seconds must be from 0 to 3600, got nan"),
        ({"domains": ("portfolioo",)}, "unknown domain 'portfolioo'; did you mean portfolio"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Config(**changes)


def test_unknown_domains_are_named_in_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        throughput.main(["--domains", "atlantis", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "unknown domain 'atlantis'; known: agriculture, " in capsys.readouterr().err


def test_suites_without_numpy_models_are_measured_against_each_other():
    rows = throughput.measure(TOYS, 2, Config(seconds=0.0), lambda message: None)
    assert [(row.domain, row.program, row.environments) for row in rows] == [
        ("short", JAX, 2),
        ("long", JAX, 2),
        (MIXED, JAX, 4),
        (CARTPOLE, JAX, 2),
    ]
    (floor,) = throughput.floors(rows)
    assert floor.measured > 0


@pytest.mark.slow
def test_the_whole_command_on_one_domain(tmp_path):
    arguments = ["--domains", "portfolio", "--batches", "3", "--steps", "4", "--seconds", "0", "--no-meta"]
    throughput.main([*arguments, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "throughput.json").read_text())
    rows = [Row(**row) for row in result["throughput"]]
    assert [(row.domain, row.program) for row in rows] == [
        ("portfolio", JAX),
        ("portfolio", BATCH),
        ("portfolio", LOOP),
        (CARTPOLE, JAX),
    ]
    for row in rows:
        assert row.steps_per_second > 0
        assert len(row.wall) == len(row.cpu) == 5
        assert (row.compile_seconds is not None) == (row.program == JAX)
    assert rows[0].state_bytes == 80
    assert len(result["floors"]) == 2
    assert {"machine", "config", "load_before", "load_after"} <= result.keys()
    assert "portfolio" in (tmp_path / "throughput.txt").read_text()


@pytest.mark.slow
def test_meta_steps_of_a_tiny_learner():
    config = TransformerMamlDqnConfig(
        network=small.NETWORK,
        data=DataConfig(tasks=2, episodes=1),
        learning=QLearningConfig(samples=2, num_steps=1, updates=1, replay=1),
        adaptation=AdaptationConfig(steps=1),
    )
    suite = Suite.of((probes.Match(),))
    steps = meta_step.measure(suite, 5, 0.0, lambda message: None, config, ("none", "first"))
    assert [step.stage for step in steps] == ["none", "first"]
    for step in steps:
        assert step.tasks_per_second == pytest.approx(2 * step.meta_steps_per_second)
        assert step.peak_bytes > step.temp_bytes > 0
    none, first = (step.flops for step in steps)
    assert none < first
