"""The search for a heuristic's constants, on a toy whose best constant is known."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from benchmarks.quality import headroom
from benchmarks.studies import tune_heuristics
from benchmarks.studies.tune_heuristics import Config
from envs_jax import scoring
from tests.envs_jax.toys import RememberingToy, Toy


class ToyRule(NamedTuple):
    """``wait``: choices before it earns; ``idle``: without effect."""

    wait: float
    idle: float


class TunableToy(RememberingToy):
    """Earns from choice number ``wait`` of an episode on, so that less of it is better."""

    rule: ClassVar[ToyRule] = ToyRule(wait=1.2, idle=0.0)

    def heuristic_by(self, rule, memory, observation, key):
        served = self.heuristic_action(observation, key)
        return jnp.where(memory < rule.wait, self.noop_action, served), memory + 1

    def heuristic_step(self, memory, observation, key):
        return self.heuristic_by(self.rule, memory, observation, key)


ENV = TunableToy(num_turns=2, num_periods=3)
SMALL = Config(iterations=8, candidates=16, tasks=8, fresh_tasks=32, episodes=2, population=16)


def test_candidates_are_played_side_by_side_as_each_would_be_alone():
    tasks, keys = tune_heuristics.draw(ENV, jax.random.key(0), 4, 3)
    rules = [ENV.rule, ToyRule(0.0, 0.0), ToyRule(100.0, 0.0)]
    found = tune_heuristics.returns(ENV, tune_heuristics.stacked(rules), tasks, keys)
    alone = scoring.returns(ENV, "heuristic", tasks, keys).mean(-1)
    at_once = scoring.returns(Toy(num_turns=2, num_periods=3), "heuristic", tasks, keys).mean(-1)
    np.testing.assert_allclose(found, jnp.stack([alone, at_once, jnp.zeros(4)]), rtol=1e-6)


def test_the_search_finds_what_is_better_and_the_scores_say_so():
    lines = []
    found = tune_heuristics.tuned(ENV, ENV.rule, SMALL, lines.append)
    assert 0.0 < found.wait < 1.0
    assert len(lines) == SMALL.iterations
    (old, new), average, gain = tune_heuristics.scored(ENV, (ENV.rule, found), SMALL)
    assert gain.estimate == pytest.approx(new.estimate - old.estimate)
    assert gain.low > 0.0
    assert old.low <= old.estimate <= old.high
    assert average.estimate <= 1.0


def test_its_tasks_are_not_those_of_the_headroom():
    base = jax.random.fold_in(jax.random.key(0), tune_heuristics.STREAM)
    ours, _ = tune_heuristics.draw(ENV, base, 16, 1)
    theirs, population, _ = headroom.frozen(ENV, headroom.Config(tasks=16, population=16))
    assert not np.isin(ours.gain, jnp.append(theirs.gain, population.gain)).any()


def test_the_command_prints_scores_and_constants_to_paste(monkeypatch, capsys):
    monkeypatch.setattr(envs_jax, "make", lambda name: (ENV, None))
    small = "--domain=healthcare --iterations=1 --candidates=4 --tasks=2 --fresh-tasks=8 --episodes=1 --population=4"
    tune_heuristics.main(small.split())
    printed = capsys.readouterr().out.splitlines()
    assert [line[:16].strip() for line in printed[-6:-2]] == ["present", "tuned", "tuned - present", "average"]
    assert isinstance(eval(printed[-1]), ToyRule)


def test_a_heuristic_without_constants_and_numbers_without_a_meaning_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(envs_jax, "make", lambda name: (Toy(), None))
    with pytest.raises(SystemExit) as stop:
        tune_heuristics.main(["--domain", "agriculture"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: domain: the heuristic of agriculture has no constants that can be tuned\n"
    for name, value, least in (("tasks", 0, 1), ("candidates", 3, 4), ("iterations", -1, 0)):
        with pytest.raises(ValueError, match=f"{name} must be from {least} to .*, got {value}"):
            Config(**{name: value})
    with pytest.raises(ValueError, match="unknown domain 'helthcare'"):
        Config(domain="helthcare")
