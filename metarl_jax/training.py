"""The training loop: one jitted interval on the device, then log, checkpoint and show progress on the host.

Members (training seeds, and whatever numeric hyperparameters differ between them) train side by side in one program.
The member axis is sharded over the devices, on a CPU over its virtual devices, one a core: small programs do not use
two cores otherwise. Members never communicate.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import ctypes.util
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Hashable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metarl_jax.checkpointing import Checkpointer
from metarl_jax.learners.base import Learner

AXIS = "members"


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


def member_mesh(members: int) -> Mesh:
    """A mesh over as many devices as divide the number of members."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if members % n == 0)
    return Mesh(np.array(devices[:count]), (AXIS,))


@functools.cache
def over_members(function: Callable[..., Any], members: int, donate: tuple[int, ...] = (), shared: int = 0) -> Any:
    """Jits ``function`` with a leading member axis on its arguments and results, sharded over devices.

    Within a device, members are vmapped on an accelerator and mapped one after another on a CPU, where a batched matrix
    product of small matrices is slower than several plain ones. Cached: equal functions share programs.

    Args:
      function: of one member.
      members: length of the member axis.
      donate: positions of arguments whose buffers may be reused.
      shared: how many of the last arguments are the same for all members and have no member axis.
    """
    mesh = member_mesh(members)
    each, same = PartitionSpec(AXIS), PartitionSpec()

    def local(*arguments: Any) -> Any:
        own = arguments[: len(arguments) - shared]
        common = arguments[len(arguments) - shared :]
        if jax.default_backend() == "cpu":
            return jax.lax.map(lambda one: function(*one, *common), own)
        return jax.vmap(lambda *one: function(*one, *common))(*own)

    def sharded(*arguments: Any) -> Any:
        specs = (each,) * (len(arguments) - shared) + (same,) * shared
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False)(*arguments)

    return jax.jit(sharded, donate_argnums=donate, out_shardings=NamedSharding(mesh, each))


@functools.cache
def staged(update: Callable[..., Any], stage: Hashable) -> Callable[..., Any]:
    """``update`` with its static stage bound; cached so that its identity, hence its program, is shared."""
    return functools.partial(update, stage=stage)


def stages(learner: Learner, iterations: int) -> tuple[Hashable, ...]:
    """The different stages of a run, in order of first appearance."""
    return tuple(dict.fromkeys(learner.stage(i / iterations) for i in range(iterations)))


@dataclasses.dataclass(frozen=True)
class Programs:
    """Compiled programs of a run: ``collect``, ``prepare``, and ``update`` for each stage."""

    collect: Any
    prepare: Any
    update: dict[Hashable, Any]


def release_memory() -> None:
    """Gives memory that compiling has freed back to the system: glibc would keep a gigabyte of it for itself."""
    libc = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(libc), "malloc_trim", None) if libc else None
    if trim is not None:
        trim(0)


def _compile(function: Any, arguments: tuple[Any, ...]) -> Any:
    return function.lower(*arguments).compile()


def compile_programs(learner: Learner, state: Any, keys: chex.PRNGKey, iterations: int, workers: int = 2) -> Programs:
    """Compiles everything a run needs, several programs at a time (XLA compiles each on one core).

    Args:
      learner: the learner.
      state: stacked train states.
      keys: one key a member.
      iterations: length of the run, which decides the stages.
      workers: programs compiled at once.
    """
    members = keys.shape[0]
    collect = over_members(learner.collect, members)
    experience = jax.eval_shape(collect, state, keys)
    jobs: dict[Any, tuple[Any, tuple[Any, ...]]] = {
        "collect": (collect, (state, keys)),
        "prepare": (over_members(learner.prepare, members), (state, experience)),
    }
    for stage in stages(learner, iterations):
        update = over_members(staged(learner.update, stage), members, donate=(0,))
        jobs["update", stage] = (update, (state, experience, keys))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = {name: pool.submit(_compile, *job) for name, job in jobs.items()}
        compiled = {name: future.result() for name, future in futures.items()}
    updates = {name[1]: program for name, program in compiled.items() if isinstance(name, tuple)}
    return Programs(compiled["collect"], compiled["prepare"], updates)


def member_keys(key: chex.PRNGKey, members: int, iteration: int, purpose: int) -> chex.PRNGKey:
    """Keys ``[members]`` for one purpose of one iteration: a pure function, so a resumed run draws the same."""
    key = jax.random.fold_in(jax.random.fold_in(key, purpose), iteration)
    return jax.random.split(key, members)


def initial_states(learner: Learner, keys: chex.PRNGKey, hyper: Any) -> Any:
    """Stacked initial states, one a key and hyperparameter set, sharded over devices."""
    return over_members(learner.init, keys.shape[0])(keys, hyper)


def _check_finite(metrics: dict[str, np.ndarray], first: int, last: int) -> None:
    bad = sorted(name for name, value in metrics.items() if not np.all(np.isfinite(value)))
    if bad:
        where = {name: np.flatnonzero(~np.isfinite(metrics[name])).tolist() for name in bad}
        raise DivergedError(
            f"not finite in iterations {first}-{last}: {', '.join(bad)} (members {where}); nothing was saved"
        )


def train(
    learner: Learner,
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
) -> Any:
    """Trains all members and returns their stacked states.

    Args:
      learner: the learner.
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

    Raises:
      Stopped: if ``should_stop`` turned true, after saving.
      DivergedError: if a metric is not finite; the checkpoint before stays.
    """
    members = jax.tree.leaves(hyper)[0].shape[0]
    seeds = member_keys(key, members, 0, 0)
    on_phase("compile")
    compile_start = time.perf_counter()
    start = 0
    template = jax.eval_shape(jax.vmap(learner.init), seeds, hyper)
    saved = checkpointer.latest_valid(template) if checkpointer is not None and resume else None
    sharding = NamedSharding(member_mesh(members), PartitionSpec(AXIS))
    if saved is not None:
        start, state = saved.step, jax.device_put(saved.tree, sharding)
        if start >= iterations:
            return state
    else:
        state = initial_states(learner, seeds, hyper)
    programs = compile_programs(learner, state, jax.device_put(seeds, sharding), iterations)
    if saved is None:
        first = programs.collect(state, jax.device_put(member_keys(key, members, 0, 1), sharding))
        state = programs.prepare(state, first)
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
            experience = programs.collect(state, jax.device_put(member_keys(key, members, i, 2), sharding))
            update_keys = jax.device_put(member_keys(key, members, i, 3), sharding)
            state, metrics = programs.update[stage](state, experience, update_keys)
            collected.append(metrics)
        stacked = jax.device_get(collected)
        means = {name: np.mean([m[name] for m in stacked], axis=0) for name in stacked[0]}
        _check_finite(means, begin, end)
        on_interval(Interval(end, iterations, stage, means, time.perf_counter() - clock, compiling))
        compiling = 0.0
        due = math.ceil(end / interval) % checkpoint_every == 0
        stopping = end < iterations and should_stop()
        if checkpointer is not None and (due or stopping or end == iterations):
            checkpointer.save(end, state)
        if stopping:
            raise Stopped(end)
    return state


def stack(values: list[Any]) -> Any:
    """Stacks equal pytrees along a new member axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *values)
