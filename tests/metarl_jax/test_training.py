"""The training loop: interrupted runs end bitwise where others do, nothing is traced twice, bad numbers are named."""

from __future__ import annotations

import pathlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import arena, learners, training
from metarl_jax.checkpointing import Checkpointer
from metarl_jax.collection import Collector
from metarl_jax.configs import AdaptationConfig, QLearningConfig, TransformerMamlDqnConfig
from metarl_jax.learners.base import Learner
from metarl_jax.training import DivergedError, Interval, Stopped, train
from tests.metarl_jax import probes, small

ITERATIONS = 3
CONFIG = TransformerMamlDqnConfig(
    network=small.NETWORK,
    data=QLearningConfig(tasks=2, episodes=1, samples=2, num_steps=1, updates=2, replay=2),
    adaptation=AdaptationConfig(steps=1),
    order="first",
    context_share=0.6,  # the last of three iterations takes inner steps
)
KEY = jax.random.key(5)


SUITE = Suite.of((probes.Match(), probes.Hidden()))


@pytest.fixture(scope="module")
def learner() -> Learner:
    return learners.make("transformer_maml_dqn", CONFIG, SUITE)


def hyper(learner: Learner, *rates: float) -> Any:
    own = learner.hyper.replace(iterations=jnp.float32(ITERATIONS))
    return training.stack([own.replace(learning_rate=jnp.float32(rate)) for rate in rates])


def run(learner: Learner, rates: tuple[float, ...] = (1e-3, 1e-2), names: Any = ("match",), **more: Any) -> Any:
    collector = Collector(learner, SUITE, len(rates))
    arenas = [arena.make(SUITE, name, learner.act, learner.data, len(rates)) for name in names]
    asked = {"iterations": ITERATIONS, "interval": 1, **more}
    return train(learner, collector, arenas, KEY, hyper(learner, *rates), **asked)


class Watched:
    """A learner whose functions count how often they are traced, and the intervals of a run."""

    def __init__(self, learner: Learner):
        self.traces = {"act": 0, "adapt": 0, "update": 0}
        self.intervals: list[Interval] = []
        self.learner = learner._replace(**{name: self._counted(name, getattr(learner, name)) for name in self.traces})

    def _counted(self, name: str, function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.traces[name] += 1
            return function(*args, **kwargs)

        return wrapper


@pytest.fixture(scope="module")
def uninterrupted(learner: Learner) -> tuple[Watched, Any]:
    watched = Watched(learner)
    return watched, run(watched.learner, on_interval=watched.intervals.append)


@pytest.mark.slow
def test_nothing_is_traced_again_after_the_first_iteration(uninterrupted: tuple[Watched, Any]) -> None:
    watched, _ = uninterrupted
    before = dict(watched.traces)
    # A few traces (for shapes, to compile), all before training: with three iterations every one would show.
    assert before["update"] <= 2 * len(training.stages(watched.learner, ITERATIONS))
    run(watched.learner)
    assert watched.traces["update"] == before["update"], "a second run of the same learner must not trace again"
    assert watched.traces["act"] == before["act"]
    run(watched.learner, names=("hidden", "match"))
    assert watched.traces["update"] == before["update"], "other training domains must not need other updates"
    assert watched.traces["act"] > before["act"], "the counter sees that another domain is played for the first time"


@pytest.mark.slow
def test_training_domains_take_turns_and_keep_their_scales(learner: Learner) -> None:
    watched = run(learner, names=("match", "hidden"))
    assert watched.scales.mean.shape == watched.scales.sd.shape == (2, 2)
    swapped = run(learner, names=("hidden", "match"))
    np.testing.assert_allclose(watched.scales.mean, swapped.scales.mean[:, ::-1], atol=0.5)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(watched.learner.params, swapped.learner.params, rtol=1e-3)


@pytest.mark.slow
def test_intervals_report_every_member_and_stage(uninterrupted: tuple[Watched, Any]) -> None:
    watched, state = uninterrupted
    assert [i.iteration for i in watched.intervals] == [1, 2, 3]
    assert [i.stage for i in watched.intervals] == ["none", "none", "first"]
    assert watched.intervals[0].compiling > 0 == watched.intervals[1].compiling
    for interval in watched.intervals:
        assert interval.metrics["td_loss"].shape == (2,)
        assert np.all(np.isfinite(interval.metrics["loss"]))
    np.testing.assert_array_equal(state.learner.iteration, [ITERATIONS, ITERATIONS])


@pytest.mark.slow
def test_resumed_run_ends_bitwise_equal(
    learner: Learner, uninterrupted: tuple[Watched, Any], tmp_path: pathlib.Path
) -> None:
    checkpointer = Checkpointer(tmp_path / "run")
    done: list[int] = []

    def count(interval: Interval) -> None:
        done.append(interval.iteration)

    with pytest.raises(Stopped) as stopped:
        run(
            learner,
            checkpointer=checkpointer,
            checkpoint_every=10,
            on_interval=count,
            should_stop=lambda: len(done) == 2,
        )
    assert stopped.value.iteration == 2
    state = run(learner, checkpointer=checkpointer, resume=True, on_interval=count)
    assert done == [1, 2, 3]
    chex.assert_trees_all_equal(state, uninterrupted[1])
    # A finished run only restores.
    again = run(learner, checkpointer=checkpointer, resume=True, on_interval=count)
    assert done == [1, 2, 3]
    chex.assert_trees_all_equal(again, state)


@pytest.mark.slow
def test_members_do_not_meet(learner: Learner, uninterrupted: tuple[Watched, Any]) -> None:
    """Changing one member's learning rate leaves the other bitwise as it was."""
    state = run(learner, (1e-3, 5e-2))
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], (state, uninterrupted[1])) for i in (0, 1))
    chex.assert_trees_all_equal(*first)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(second[0].learner.params, second[1].learner.params, rtol=1e-3)


@pytest.mark.slow
def test_divergence_is_named_and_not_saved(learner: Learner, tmp_path: pathlib.Path) -> None:
    checkpointer = Checkpointer(tmp_path / "run")
    with pytest.raises(DivergedError, match=r"iterations 0-1: .*loss.*'loss': \[1\].*nothing was saved"):
        run(learner, (1e-3, np.nan), checkpointer=checkpointer)
    assert not list((tmp_path / "run").glob("step_*"))


def test_stages_follow_the_schedule() -> None:
    def schedule(order: Any, context: float, first: float, iterations: int = 10) -> list[Any]:
        config = TransformerMamlDqnConfig(order=order, context_share=context, first_order_share=first)
        learner = learners.make("transformer_maml_dqn", config, Suite.of((probes.Match(),)))
        assert training.stages(learner, iterations) == tuple(
            dict.fromkeys(learner.stage(i / iterations) for i in range(iterations))
        )
        return [learner.stage(i / iterations) for i in range(iterations)]

    assert schedule("second", 0.8, 0.1) == ["none"] * 8 + ["first"] + ["second"]
    assert schedule("first", 0.8, 0.1) == ["none"] * 8 + ["first"] * 2
    assert schedule("none", 0.8, 0.1) == ["none"] * 10
    assert schedule("second", 0.0, 0.0) == ["second"] * 10


def test_member_keys_are_a_function_of_purpose_and_iteration() -> None:
    draws = [
        np.asarray(jax.random.key_data(training.member_keys(KEY, 2, iteration, purpose)))
        for iteration in (0, 1)
        for purpose in (1, 2)
    ]
    assert len({tuple(key) for keys in draws for key in keys.reshape(2, -1).tolist()}) == 8
    again = jax.random.key_data(training.member_keys(KEY, 2, 1, 2))
    np.testing.assert_array_equal(again, draws[-1])
