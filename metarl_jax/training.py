"""The training loop: one jitted interval on the device, then log, checkpoint and show progress on the host.

Replicas (training seeds, and whatever numeric hyperparameters differ between them) train side by side, see
:mod:`metarl_jax.runtime.replicas`. They never communicate.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metarl_jax.collection import Collector
from metarl_jax.learners.base import Learner, Phase, blamed_on
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.checkpointing import Checkpointer
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place, release_memory
from metarl_jax.sources import CollectedSource, Source
from metarl_jax.types import RewardScale


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
      phase: name of the phase that ran last.
      metrics: means over the interval, ``f32[R]`` each, one entry a replica.
      seconds: wall time of the interval.
      compiling: wall time spent compiling before the first interval, 0 later.
    """

    iteration: int
    iterations: int
    phase: str
    metrics: dict[str, np.ndarray]
    seconds: float
    compiling: float


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long is trained, and how often the host looks.

    Attributes:
      iterations: meta-iterations.
      interval: meta-iterations between two looks of the host.
      checkpoint_every: intervals between two checkpoints; the last is always saved.
    """

    iterations: int
    interval: int
    checkpoint_every: int = 1


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the host does beside training.

    Attributes:
      on_interval: called after each interval.
      on_phase: called with "compile" and "train".
      should_stop: asked after each interval.
      on_run: called after each interval with the iterations done and what is trained so far, which it must not keep:
        the next update takes its buffers.
    """

    on_interval: Callable[[Interval], None] = lambda interval: None
    on_phase: Callable[[str], None] = lambda phase: None
    should_stop: Callable[[], bool] = lambda: False
    on_run: Callable[[int, Run], object] = lambda iteration, run: None


@struct.dataclass
class Run:
    """Everything a training run carries, stacked over replicas.

    Attributes:
      learner: the learner's train states.
      scales: reward scales of the training domains under random choices, leaves ``f32[R, D]``.
      pool: what its source of batches gathered, on the host.
    """

    learner: Any
    scales: RewardScale
    pool: Any = ()


def phases(learner: Learner, iterations: int) -> tuple[Phase, ...]:
    """The different phases of a run, in order of first appearance."""
    return tuple(dict.fromkeys(learner.schedule(i / iterations) for i in range(iterations)))


def updates_of(
    learner: Learner, programs: Programs, state: Any, batch: Any, keys: chex.PRNGKey, iterations: int
) -> list[Callable[[], tuple[Phase, Any]]]:
    """The programs of all phases' updates, as functions that compile them."""

    def program(phase: Phase) -> tuple[Phase, Any]:
        def update(state: Any, batch: Any, key: chex.PRNGKey) -> Any:
            return learner.update(state, batch, key, phase)

        jitted = programs.get("update", (learner.spec, phase), lambda: update, donate=(0,))
        with blamed_on(learner.name, "update"):
            return phase, programs.compiled(jitted, state, batch, keys)

    return [functools.partial(program, phase) for phase in phases(learner, iterations)]


def replica_keys(key: chex.PRNGKey, replicas: int, iteration: int, purpose: int) -> chex.PRNGKey:
    """Keys ``[replicas]`` for one purpose of one iteration: a pure function, so a resumed run draws the same."""
    key = jax.random.fold_in(jax.random.fold_in(key, purpose), iteration)
    return jax.random.split(key, replicas)


def _check_finite(metrics: dict[str, np.ndarray], first: int, last: int) -> None:
    bad = sorted(name for name, value in metrics.items() if not np.all(np.isfinite(value)))
    if bad:
        where = {name: np.flatnonzero(~np.isfinite(metrics[name])).tolist() for name in bad}
        raise DivergedError(
            f"not finite in iterations {first}-{last}: {', '.join(bad)} (replicas {where}); nothing was saved"
        )


def train(
    learner: Learner,
    collector: Collector,
    domains: Sequence[DomainPrograms],
    key: chex.PRNGKey,
    hyperparams: Any,
    pace: Pace,
    *,
    checkpointer: Checkpointer | None = None,
    metadata: dict[str, Any] | None = None,
    resume: bool = False,
    hooks: Hooks = Hooks(),
    source: Source | None = None,
) -> Run:
    """Trains all replicas and returns their stacked states.

    Args:
      learner: the learner.
      collector: its programs.
      domains: its training domains.
      key: seed of the run.
      hyperparams: stacked numeric hyperparameters, leading axis R: one entry a replica.
      pace: how long.
      checkpointer: where to save; None saves nothing.
      metadata: saved with every checkpoint, such as the digest of a configuration.
      resume: continue from the newest good checkpoint, if there is one.
      hooks: what the host does beside.
      source: where batches come from; by default each meta-iteration collects tasks of one training domain, in turns.

    Raises:
      Stopped: if ``should_stop`` turned true, after saving.
      DivergedError: if a metric is not finite; the checkpoint before stays.
      ValueError: if the newest checkpoint has other metadata, or another learner's arrays.
    """
    programs, iterations = collector.programs, pace.iterations
    replicas = programs.replicas
    source = source or CollectedSource(collector, domains)

    def keys_of(iteration: int, purpose: int) -> chex.PRNGKey:
        return place(replica_keys(key, replicas, iteration, purpose), replicas)

    hooks.on_phase("compile")
    compile_start = time.perf_counter()
    start = 0
    template = Run(
        jax.eval_shape(jax.vmap(learner.init), keys_of(0, 0), hyperparams),
        RewardScale(*(jax.ShapeDtypeStruct((replicas, len(domains)), jnp.float32),) * 2),
        source.pool(),
    )
    saved = checkpointer.latest_valid(template) if checkpointer is not None and resume else None
    if saved is not None:
        if saved.metadata != (metadata or {}):
            raise ValueError(f"the checkpoint of iteration {saved.step} belongs to another run: {saved.metadata}")
        start, run = saved.step, saved.tree
        run = run.replace(learner=place(run.learner, replicas), scales=place(run.scales, replicas))
        if start >= iterations:
            return run
    else:
        initial = programs.get("init", learner.spec, lambda: learner.init)
        fresh = initial(keys_of(0, 0), place(hyperparams, replicas))
        run = Run(fresh, place(source.scales(keys_of), replicas), source.pool())

    first, pool = source.batch(start, iterations, run, keys_of)
    run = run.replace(pool=pool)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # XLA compiles each program on one core
        jobs = updates_of(learner, programs, run.learner, first, keys_of(start, 3), iterations)
        updates = dict(pool.map(lambda job: job(), jobs))
    release_memory()
    compiling = time.perf_counter() - compile_start

    hooks.on_phase("train")
    for begin in range(start, iterations, pace.interval):
        clock = time.perf_counter()
        end = min(begin + pace.interval, iterations)
        collected = []
        phase = learner.schedule(begin / iterations)
        for i in range(begin, end):
            phase = learner.schedule(i / iterations)
            batch, pool = (first, run.pool) if i == start else source.batch(i, iterations, run, keys_of)
            state, metrics = updates[phase](run.learner, batch, keys_of(i, 3))
            run = run.replace(learner=state, pool=pool)
            collected.append(metrics)
        stacked = jax.device_get(collected)
        means = {name: np.mean([m[name] for m in stacked], axis=0) for name in stacked[0]}
        _check_finite(means, begin, end)
        hooks.on_interval(Interval(end, iterations, phase.name, means, time.perf_counter() - clock, compiling))
        hooks.on_run(end, run)
        compiling = 0.0
        due = math.ceil(end / pace.interval) % pace.checkpoint_every == 0
        stopping = end < iterations and hooks.should_stop()
        if checkpointer is not None and (due or stopping or end == iterations):
            checkpointer.save(end, run, metadata)
        if stopping:
            raise Stopped(end)
    return run


def stack(values: list[Any]) -> Any:
    """Stacks equal pytrees along a new replica axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *values)
