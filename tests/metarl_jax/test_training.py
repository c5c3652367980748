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
from metarl_jax import learners, training
from metarl_jax.checkpointing import Checkpointer
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


@pytest.fixture(scope="module")
def learner() -> Learner:
    return learners.make("transformer_maml_dqn", CONFIG, Suite.of((probes.Match(),)))


def hyper(learner: Learner, *rates: float) -> Any:
    own = learner.hyper.replace(iterations=jnp.float32(ITERATIONS))
    return training.stack([own.replace(learning_rate=jnp.float32(rate)) for rate in rates])


def run(learner: Learner, rates: tuple[float, ...] = (1e-3, 1e-2), **more: Any) -> Any:
    return train(learner, KEY, hyper(learner, *rates), **{"iterations": ITERATIONS, "interval": 1, **more})


class Watched:
    """A learner whose functions count how often they are traced, and the intervals of a run."""

    def __init__(self, learner: Learner):
        self.traces = {"collect": 0, "update": 0}
        self.intervals: list[Interval] = []
        self.learner = learner._replace(
            collect=self._counted("collect", learner.collect), update=self._counted("update", learner.update)
        )

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
    # collect: for its output's shapes, in init for the replay's, and to compile; a few traces, all before training.
    before = dict(watched.traces)
    assert before["update"] <= 2 * len(training.stages(watched.learner, ITERATIONS))
    run(watched.learner)
    assert watched.traces["update"] == before["update"], "a second run of the same learner must not trace again"
    assert watched.traces["collect"] == before["collect"]


@pytest.mark.slow
def test_intervals_report_every_member_and_stage(uninterrupted: tuple[Watched, Any]) -> None:
    watched, state = uninterrupted
    assert [i.iteration for i in watched.intervals] == [1, 2, 3]
    assert [i.stage for i in watched.intervals] == ["none", "none", "first"]
    assert watched.intervals[0].compiling > 0 == watched.intervals[1].compiling
    for interval in watched.intervals:
        assert interval.metrics["td_loss"].shape == (2,)
        assert np.all(np.isfinite(interval.metrics["loss"]))
    np.testing.assert_array_equal(state.iteration, [ITERATIONS, ITERATIONS])


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
        chex.assert_trees_all_close(second[0].params, second[1].params, rtol=1e-3)


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


def test_over_members_maps_own_and_shares_common_arguments() -> None:
    def affine(slope: chex.Array, offset: chex.Array, x: chex.Array) -> chex.Array:
        return slope * x + offset

    program = training.over_members(affine, 3, shared=1)
    result = program(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 0.0, 1.0]), jnp.array([1.0, 10.0]))
    np.testing.assert_array_equal(result, [[1.0, 10.0], [2.0, 20.0], [4.0, 31.0]])
    assert training.over_members(affine, 3, shared=1) is program


@pytest.mark.parametrize("members", [1, 2, 3, 5, 8])
def test_the_mesh_divides_the_members(members: int) -> None:
    assert members % training.member_mesh(members).size == 0
