"""The training loop: one jitted interval on the device, then log, checkpoint and show progress on the host.

Members (training seeds, and whatever numeric hyperparameters differ between them) train side by side, a lane each, see
:mod:`metarl_jax.lanes`. Members never communicate.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metarl_jax.arena import Arena
from metarl_jax.checkpointing import Checkpointer
from metarl_jax.collection import Collector
from metarl_jax.experience import RewardScale
from metarl_jax.lanes import over_lanes, place, release_memory
from metarl_jax.learners.base import Learner


class Stopped(Exception):  # noqa: N818 - not an error, somebody asked
    """Training was asked to stop; everything up to ``iteration`` is saved if there is a checkpointer."""

    def __init__(self, iteration: int):
        super().__init__(f"stopped after iteration {iteration}")
        self.iteration = iteration


class DivergedError(RuntimeError):
    """A metric became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """What the host learns after each interval.

    Attributes:
      iteration: meta-iterations done.
      iterations: meta-iterations of the whole run.
      stage: the program that ran last.
      metrics: means over the interval, ``f32[S]`` each, one entry a member.
      seconds: wall time of the interval.
      compiling: wall time spent compiling before the first interval, 0 later.
    """

    iteration: int
    iterations: int
    stage: Hashable
    metrics: dict[str, np.ndarray]
    seconds: float
    compiling: float


@functools.cache
def staged(update: Callable[..., Any], stage: Hashable) -> Callable[..., Any]:
    """``update`` with its static stage bound; cached so that its identity, hence its program, is shared."""
    return functools.partial(update, stage=stage)


def stages(learner: Learner, iterations: int) -> tuple[Hashable, ...]:
    """The different stages of a run, in order of first appearance."""
    return tuple(dict.fromkeys(learner.stage(i / iterations) for i in range(iterations)))


@struct.dataclass
class Run:
    """Everything a training run carries, stacked over members.

    Attributes:
      learner: the learner's train states.
      scales: reward scales of the training domains under the support's exploration, leaves ``f32[S, D]``.
    """

    learner: Any
    scales: RewardScale


@functools.cache
def _compiled(program: Any, shapes: tuple[Any, ...], structure: Any) -> Any:
    return program.lower(*jax.tree.unflatten(structure, shapes)).compile()


def compiled(program: Any, *arguments: Any) -> Any:
    """A jitted program compiled ahead for arguments of these shapes; once, whoever asks."""
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)) for x in leaves)
    return _compiled(program, shapes, structure)


def updates_of(learner: Learner, run: Run, experience: Any, keys: chex.PRNGKey, iterations: int) -> list[Any]:
    """The programs of all stages' updates, as functions that compile them."""
    members = keys.shape[0]
    arguments = (run.learner, experience, keys)

    def program(stage: Hashable) -> Any:
        update = over_lanes(staged(learner.update, stage), members, donate=(0,))
        return stage, compiled(update, *arguments)

    return [functools.partial(program, stage) for stage in stages(learner, iterations)]


def member_keys(key: chex.PRNGKey, members: int, iteration: int, purpose: int) -> chex.PRNGKey:
    """Keys ``[members]`` for one purpose of one iteration: a pure function, so a resumed run draws the same."""
    key = jax.random.fold_in(jax.random.fold_in(key, purpose), iteration)
    return jax.random.split(key, members)


def initial_states(learner: Learner, keys: chex.PRNGKey, hyper: Any) -> Any:
    """Stacked initial states, one a key and hyperparameter set, sharded over devices."""
    members = keys.shape[0]
    return over_lanes(learner.init, members)(place(keys, members), place(hyper, members))


def _check_finite(metrics: dict[str, np.ndarray], first: int, last: int) -> None:
    bad = sorted(name for name, value in metrics.items() if not np.all(np.isfinite(value)))
    if bad:
        where = {name: np.flatnonzero(~np.isfinite(metrics[name])).tolist() for name in bad}
        raise DivergedError(
            f"not finite in iterations {first}-{last}: {', '.join(bad)} (members {where}); nothing was saved"
        )


def train(
    learner: Learner,
    collector: Collector,
    arenas: Sequence[Arena],
    key: chex.PRNGKey,
    hyper: Any,
    *,
    iterations: int,
    interval: int,
    checkpointer: Checkpointer | None = None,
    checkpoint_every: int = 1,
    resume: bool = False,
    on_interval: Callable[[Interval], None] = lambda interval: None,
    on_phase: Callable[[str], None] = lambda phase: None,
    should_stop: Callable[[], bool] = lambda: False,
    compilers: int = 2,
) -> Run:
    """Trains all members and returns their stacked states.

    Each meta-iteration collects tasks of one training domain, in turns; the replay mixes them.

    Args:
      learner: the learner.
      collector: its programs.
      arenas: its training domains.
      key: seed of the run.
      hyper: stacked numeric hyperparameters, leading axis S: one entry a member.
      iterations: meta-iterations.
      interval: meta-iterations between two looks of the host.
      checkpointer: where to save; None saves nothing.
      checkpoint_every: intervals between two checkpoints; the last is always saved.
      resume: continue from the newest good checkpoint, if there is one.
      on_interval: called after each interval.
      on_phase: called with "compile" and "train".
      should_stop: asked after each interval.
      compilers: programs compiled at once (XLA compiles each on one core).

    Raises:
      Stopped: if ``should_stop`` turned true, after saving.
      DivergedError: if a metric is not finite; the checkpoint before stays.
    """
    members = jax.tree.leaves(hyper)[0].shape[0]

    def keys_of(iteration: int, purpose: int) -> chex.PRNGKey:
        return place(member_keys(key, members, iteration, purpose), members)

    on_phase("compile")
    compile_start = time.perf_counter()
    start = 0
    template = Run(
        jax.eval_shape(jax.vmap(learner.init), keys_of(0, 0), hyper),
        RewardScale(*(jax.ShapeDtypeStruct((members, len(arenas)), jnp.float32),) * 2),
    )
    saved = checkpointer.latest_valid(template) if checkpointer is not None and resume else None
    if saved is not None:
        start, run = saved.step, place(saved.tree, members)
        if start >= iterations:
            return run
    else:
        fresh = initial_states(learner, keys_of(0, 0), hyper)
        scales = [collector.scale(arena, learner.params(fresh), keys_of(d, 1)) for d, arena in enumerate(arenas)]
        run = Run(fresh, place(jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *scales), members))

    scales = [place(jax.tree.map(lambda leaf, d=d: leaf[:, d], run.scales), members) for d in range(len(arenas))]

    def collect(i: int) -> Any:
        arena, scale = arenas[i % len(arenas)], scales[i % len(arenas)]
        inner = learner.stage(i / iterations) != "none"
        return collector.collect(arena, learner.params(run.learner), scale, keys_of(i, 2), inner)

    first = collect(start)
    with concurrent.futures.ThreadPoolExecutor(compilers) as pool:
        jobs = updates_of(learner, run, first, keys_of(start, 3), iterations)
        updates = dict(pool.map(lambda job: job(), jobs))
    release_memory()
    compiling = time.perf_counter() - compile_start

    on_phase("train")
    for begin in range(start, iterations, interval):
        clock = time.perf_counter()
        end = min(begin + interval, iterations)
        collected = []
        stage: Hashable = None
        for i in range(begin, end):
            stage = learner.stage(i / iterations)
            experience = first if i == start else collect(i)
            state, metrics = updates[stage](run.learner, experience, keys_of(i, 3))
            run = run.replace(learner=state)
            collected.append(metrics)
        stacked = jax.device_get(collected)
        means = {name: np.mean([m[name] for m in stacked], axis=0) for name in stacked[0]}
        _check_finite(means, begin, end)
        on_interval(Interval(end, iterations, stage, means, time.perf_counter() - clock, compiling))
        compiling = 0.0
        due = math.ceil(end / interval) % checkpoint_every == 0
        stopping = end < iterations and should_stop()
        if checkpointer is not None and (due or stopping or end == iterations):
            checkpointer.save(end, run)
        if stopping:
            raise Stopped(end)
    return run


def stack(values: list[Any]) -> Any:
    """Stacks equal pytrees along a new member axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *values)
