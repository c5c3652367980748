"""The training loop: interrupted runs end bitwise where others do, nothing is traced twice, bad numbers are named."""

from __future__ import annotations

import pathlib
from collections import Counter
from typing import Any

import chex
import jax
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import learners, training
from metarl_jax.collection import Collector
from metarl_jax.configs import AdaptationConfig, DataConfig, QLearningConfig, TransformerMamlDqnConfig
from metarl_jax.learners.base import Learner
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.checkpointing import Checkpointer
from metarl_jax.runtime.programs import Programs
from metarl_jax.training import DivergedError, Hooks, Interval, Pace, Stopped, train
from tests.metarl_jax import probes, small

ITERATIONS, REPLICAS = 3, 2
CONFIG = TransformerMamlDqnConfig(
    network=small.NETWORK,
    data=DataConfig(tasks=2, episodes=1),
    learning=QLearningConfig(samples=2, num_steps=1, updates=2, replay=2),
    adaptation=AdaptationConfig(steps=1),
    order="first",
    context_share=0.6,  # the last of three iterations takes inner steps
)
KEY = jax.random.key(5)
PACE = Pace(ITERATIONS, interval=1)


class Fee(probes.Match):
    """As Match, but another reward scale: it pays 10 and 20."""

    name = "fee"

    def pay(self, state: probes.ProbeState, params: probes.ProbeParams) -> chex.Array:
        return 10.0 + 10.0 * super().pay(state, params)


SUITE = Suite.of((probes.Match(), probes.Hidden(), Fee()))


@pytest.fixture(scope="module")
def programs() -> Programs:
    return Programs(REPLICAS)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return learners.make("transformer_maml_dqn", CONFIG, SUITE)


def run(
    learner: Learner,
    programs: Programs,
    rates: tuple[float, ...] = (1e-3, 1e-2),
    names: Any = ("match",),
    pace: Pace = PACE,
    **more: Any,
) -> Any:
    collector = Collector(learner, SUITE, programs)
    domains = [DomainPrograms.of(SUITE, name, programs) for name in names]
    own = learner.hyperparams(ITERATIONS, True)
    hyperparams = training.stack([own.replace(learning_rate=np.float32(rate)) for rate in rates])
    return train(learner, collector, domains, KEY, hyperparams, pace, **more)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


class Watched:
    """A learner whose functions count how often they are traced, and the intervals of a run."""

    def __init__(self, learner: Learner):
        self.traces = {"adapt": 0, "update": 0, "init": 0, "acting": 0}
        self.intervals: list[Interval] = []
        self.learner = learner._replace(**{name: self._counted(name, getattr(learner, name)) for name in self.traces})

    def _counted(self, name: str, function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.traces[name] += 1
            return function(*args, **kwargs)

        return wrapper


@pytest.fixture(scope="module")
def uninterrupted(learner: Learner, programs: Programs) -> tuple[Watched, Any]:
    watched = Watched(learner)
    return watched, run(watched.learner, programs, hooks=Hooks(watched.intervals.append))


def compiled(programs: Programs) -> int:
    """How many programs XLA has compiled."""
    return sum(program._cache_size() for program in programs._programs.values())


def test_nothing_is_traced_again_after_the_first_iteration(
    uninterrupted: tuple[Watched, Any], programs: Programs
) -> None:
    watched, _ = uninterrupted
    before, built, ready = dict(watched.traces), Counter(programs.built), compiled(programs)
    # A few traces (for shapes, to compile), all before training: with three iterations every one would show.
    assert before["update"] <= 2 * len(training.phases(watched.learner, ITERATIONS))
    assert built["play"] == built["draw"] == built["record"] == built["adapt"] == 1
    assert built["update"] == 2
    run(watched.learner, programs)
    assert watched.traces["update"] == before["update"], "a second run of the same learner must not trace again"
    assert programs.built == built
    assert compiled(programs) == ready, "nor must XLA compile anything again"
    run(watched.learner, programs, names=("hidden", "match"))
    assert watched.traces["update"] == before["update"], "other training domains must not need other updates"
    # That the counter sees what is played for the first time shows that it counts.
    assert programs.built == built + Counter({"play": 1, "draw": 1, "record": 1})


@pytest.mark.slow
def test_training_domains_take_turns_and_keep_their_scales(
    learner: Learner, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iteration i collects of domain i mod D, normalised by that domain's own scale, wherever it stands in the list."""
    collected: list[tuple[str, Any]] = []
    collect = Collector.collect

    def watched(self: Collector, domain: DomainPrograms, trained: Any, scale: Any, *rest: Any, **more: Any) -> Any:
        collected.append((domain.name, jax.device_get(scale)))
        return collect(self, domain, trained, scale, *rest, **more)

    monkeypatch.setattr(Collector, "collect", watched)
    states = {}
    for names in (("match", "fee"), ("fee", "match")):
        collected.clear()
        states[names] = state = run(learner, programs, names=names)
        assert state.scales.mean.shape == state.scales.sd.shape == (REPLICAS, 2)
        assert [name for name, _ in collected] == [names[i % 2] for i in range(ITERATIONS)]
        for d, name in enumerate(names):
            low, step = {"match": (0.0, 1.0), "fee": (10.0, 10.0)}[name]
            mean, sd = np.asarray(state.scales.mean[:, d]), np.asarray(state.scales.sd[:, d])
            # It pays one of two amounts: a share q of the periods pays the higher, so the mean and the deviation
            # sqrt(q (1 - q)) belong together exactly, and q is a multiple of one in all support periods.
            share, periods = (mean - low) / step, 2 * probes.Probe.num_periods
            np.testing.assert_allclose(share * periods, np.round(share * periods), atol=1e-3, err_msg=name)
            assert np.all((share > 0) & (share < 1)), name
            np.testing.assert_allclose(sd / step, np.sqrt(share * (1 - share)), rtol=1e-3, err_msg=name)
            for used in (scale for who, scale in collected if who == name):
                np.testing.assert_array_equal(used.mean, mean, err_msg=name)
                np.testing.assert_array_equal(used.sd, sd, err_msg=name)
    params = [flat(state.learner.params) for state in states.values()]
    assert np.abs(params[0] - params[1]).max() > 1e-4, "the order of the domains makes no difference"


@pytest.mark.slow
def test_intervals_report_every_replica_and_phase(uninterrupted: tuple[Watched, Any]) -> None:
    watched, state = uninterrupted
    assert [i.iteration for i in watched.intervals] == [1, 2, 3]
    assert [i.phase for i in watched.intervals] == ["none", "none", "first"]
    assert watched.intervals[0].compiling > 0 == watched.intervals[1].compiling
    for interval in watched.intervals:
        assert interval.metrics["td_loss"].shape == (2,)
        assert np.all(np.isfinite(interval.metrics["loss"]))
    np.testing.assert_array_equal(state.learner.iteration, [ITERATIONS, ITERATIONS])


@pytest.mark.slow
def test_resumed_run_ends_bitwise_equal(
    learner: Learner, programs: Programs, uninterrupted: tuple[Watched, Any], tmp_path: pathlib.Path
) -> None:
    checkpointer = Checkpointer(tmp_path / "run")
    done: list[int] = []

    def count(interval: Interval) -> None:
        done.append(interval.iteration)

    with pytest.raises(Stopped) as stopped:
        run(
            learner,
            programs,
            checkpointer=checkpointer,
            pace=Pace(ITERATIONS, interval=1, checkpoint_every=10),
            hooks=Hooks(count, should_stop=lambda: len(done) == 2),
        )
    assert stopped.value.iteration == 2
    state = run(learner, programs, checkpointer=checkpointer, resume=True, hooks=Hooks(count))
    assert done == [1, 2, 3]
    chex.assert_trees_all_equal(state, uninterrupted[1])
    # A finished run only restores.
    again = run(learner, programs, checkpointer=checkpointer, resume=True, hooks=Hooks(count))
    assert done == [1, 2, 3]
    chex.assert_trees_all_equal(again, state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a2c", "sac", "maml_pg"])
def test_actor_critics_resume_bitwise(name: str, programs: Programs, tmp_path: pathlib.Path) -> None:
    kind = learners.config_class(name)
    own: dict[str, Any] = {"learning": CONFIG.learning} if name == "sac" else {"minibatches": 1}
    learner = learners.make(name, kind(network=CONFIG.network, data=CONFIG.data, **own), SUITE)
    whole = run(learner, programs)
    checkpointer, done = Checkpointer(tmp_path / "run"), []
    stop = Hooks(lambda interval: done.append(interval.iteration), should_stop=lambda: len(done) == 2)
    with pytest.raises(Stopped):
        run(learner, programs, checkpointer=checkpointer, hooks=stop)
    resumed = run(learner, programs, checkpointer=checkpointer, resume=True)
    assert done == [1, 2]
    chex.assert_trees_all_equal(resumed, whole)


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused(learner: Learner, programs: Programs, tmp_path: pathlib.Path) -> None:
    """The digest of a configuration is saved with every checkpoint: an edited configuration is another run."""
    checkpointer, own = Checkpointer(tmp_path / "run"), {"configuration": "abc", "agent": 1}
    pace = Pace(ITERATIONS, interval=1, checkpoint_every=10)
    stop = Hooks(should_stop=lambda: True)
    with pytest.raises(Stopped):
        run(learner, programs, checkpointer=checkpointer, metadata=own, pace=pace, hooks=stop)
    saved = sorted(path.name for path in (tmp_path / "run").iterdir())
    done: list[int] = []
    for other in ({"configuration": "abd", "agent": 1}, {"configuration": "abc"}, {}, None):
        with pytest.raises(ValueError, match=r"^the checkpoint of iteration 1 belongs to another run: .*'abc'"):
            run(
                learner,
                programs,
                checkpointer=checkpointer,
                metadata=other,
                resume=True,
                hooks=Hooks(lambda interval: done.append(interval.iteration)),
            )
    assert done == [], "nothing was trained"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == saved, "nothing was touched"
    hooks = Hooks(lambda interval: done.append(interval.iteration))
    run(learner, programs, checkpointer=checkpointer, metadata=dict(own), resume=True, hooks=hooks)
    assert done == [2, 3]


@pytest.mark.slow
def test_replicas_do_not_meet(learner: Learner, programs: Programs, uninterrupted: tuple[Watched, Any]) -> None:
    """Changing one replica's learning rate leaves the other bitwise as it was."""
    state = run(learner, programs, (1e-3, 5e-2))
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], (state, uninterrupted[1])) for i in (0, 1))
    chex.assert_trees_all_equal(*first)
    assert np.abs(flat(second[0].learner.params) - flat(second[1].learner.params)).max() > 1e-3


@pytest.mark.slow
def test_divergence_is_named_and_not_saved(learner: Learner, programs: Programs, tmp_path: pathlib.Path) -> None:
    checkpointer = Checkpointer(tmp_path / "run")
    with pytest.raises(DivergedError, match=r"iterations 0-1: .*loss.*'loss': \[1\].*nothing was saved"):
        run(learner, programs, (1e-3, np.nan), checkpointer=checkpointer)
    assert not list((tmp_path / "run").glob("step_*"))


def test_phases_follow_the_schedule() -> None:
    def schedule(order: Any, context: float, first: float, iterations: int = 10) -> list[str]:
        config = TransformerMamlDqnConfig(order=order, context_share=context, first_order_share=first)
        learner = learners.make("transformer_maml_dqn", config, Suite.of((probes.Match(),)))
        found = [learner.schedule(i / iterations) for i in range(iterations)]
        assert training.phases(learner, iterations) == tuple(dict.fromkeys(found))
        assert [phase.inner_steps for phase in found] == [phase.name != "none" for phase in found]
        return [phase.name for phase in found]

    assert schedule("second", 0.8, 0.1) == ["none"] * 8 + ["first"] + ["second"]
    assert schedule("first", 0.8, 0.1) == ["none"] * 8 + ["first"] * 2
    assert schedule("none", 0.8, 0.1) == ["none"] * 10
    assert schedule("second", 0.0, 0.0) == ["second"] * 10


def test_replica_keys_are_a_function_of_purpose_and_iteration() -> None:
    draws = [
        np.asarray(jax.random.key_data(training.replica_keys(KEY, 2, iteration, purpose)))
        for iteration in (0, 1)
        for purpose in (1, 2)
    ]
    assert len({tuple(key) for keys in draws for key in keys.reshape(2, -1).tolist()}) == 8
    again = jax.random.key_data(training.replica_keys(KEY, 2, 1, 2))
    np.testing.assert_array_equal(again, draws[-1])
