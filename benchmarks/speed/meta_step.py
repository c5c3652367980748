"""Cost of a meta-gradient step without inner steps, and with inner steps of first and of second order."""

from __future__ import annotations

import dataclasses
import resource
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from envs_jax.suite import Suite
    from metarl_jax.learners.base import Phase

STAGES = ("none", "first", "second")
LIMIT = 2.6
"""Largest ratio of a second-order to a first-order step that we promise."""


@dataclasses.dataclass(frozen=True)
class MetaStep:
    """One stage's outer update of ``transformer_maml_dqn`` in its default configuration.

    Attributes:
      stage: "none" (context only), "first" or "second" order inner steps.
      tasks: tasks a meta-gradient step averages over.
      meta_steps_per_second: outer gradient steps a second, median over rounds.
      tasks_per_second: tasks adapted to and differentiated through a second.
      wall: seconds a meta-gradient step, one number a round.
      cpu: CPU seconds likewise.
      compile_seconds: trace and compile.
      temp_bytes: XLA's scratch memory.
      flops: XLA's count, in which the body of a loop counts once.
      peak_bytes: largest resident memory of the whole process so far, compiler included.
    """

    stage: str
    tasks: int
    meta_steps_per_second: float
    tasks_per_second: float
    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    compile_seconds: float
    temp_bytes: int
    flops: float
    peak_bytes: int


def measure(
    suite: Suite,
    repeats: int,
    seconds: float,
    say: Callable[[str], None],
    config: Any = None,
    stages: Sequence[str] = STAGES,
) -> list[MetaStep]:
    """Times the stages in turns, on what the untrained learner collected.

    Args:
      suite: the training domains.
      repeats: rounds.
      seconds: length of a timed stretch.
      say: shows progress.
      config: of ``transformer_maml_dqn``; None is the default one.
      stages: which.
    """
    import jax

    from benchmarks.speed import timing
    from metarl_jax import learners
    from metarl_jax.collection import Collector
    from metarl_jax.learners import q_learning
    from metarl_jax.rollouts import DomainPrograms
    from metarl_jax.runtime.programs import Programs

    config = learners.config_class("transformer_maml_dqn")() if config is None else config
    learner = learners.make("transformer_maml_dqn", config, suite)
    key = jax.random.key(0)
    say("meta-step: collecting")
    state = jax.jit(learner.init)(key, learner.hyperparams(1, True))
    collector = Collector(learner, suite, Programs(1))
    trained = jax.tree.map(lambda leaf: leaf[None], learner.params(state))

    def at(phase: Phase) -> Callable[..., Any]:
        return lambda state, batch, key: learner.update(state, batch, key, phase)[0]

    fill = jax.jit(at(q_learning.CONTEXT))
    for name in suite.names[: config.learning.replay]:  # one meta-iteration of each domain, as many as the replay holds
        domain = DomainPrograms.of(suite, name, collector.programs)
        batch = collector.collect(domain, trained, collector.scale(domain, key[None]), key[None], inner_steps=False)
        batch = jax.tree.map(lambda leaf: leaf[0], batch)
        state = fill(state, batch, key)

    programs, peaks = [], []
    for stage in stages:
        say(f"meta-step: compiling stage {stage}")
        phase = {"none": q_learning.CONTEXT, "first": q_learning.FIRST_ORDER, "second": q_learning.SECOND_ORDER}[stage]
        programs.append(timing.compiled(at(phase), state, batch, key))
        programs[-1].call()
        # Linux counts kilobytes, macOS bytes.
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    say(f"meta-step: timing {len(stages)} stages in {repeats} rounds")
    timings = timing.interleaved([program.call for program in programs], repeats, seconds)
    steps, tasks = config.learning.updates, config.data.tasks
    return [
        MetaStep(
            stage=stage,
            tasks=tasks,
            meta_steps_per_second=steps / timed.median_wall,
            tasks_per_second=tasks * steps / timed.median_wall,
            wall=tuple(t / steps for t in timed.wall),
            cpu=tuple(t / steps for t in timed.cpu),
            compile_seconds=program.trace_seconds + program.compile_seconds,
            temp_bytes=program.temp_bytes,
            flops=program.flops,
            peak_bytes=peak,
        )
        for stage, program, timed, peak in zip(stages, programs, timings, peaks, strict=True)
    ]


def ratios(steps: Sequence[MetaStep]) -> list[tuple[str, float, float, float]]:
    """Name, wall-clock ratio, CPU ratio and limit of what is promised of second against first order."""
    from benchmarks.speed.timing import ratio

    by_stage = {step.stage: step for step in steps}
    if not {"first", "second"} <= by_stage.keys():
        return []
    first, second = by_stage["first"], by_stage["second"]
    name = "meta-gradient step, second / first order"
    return [(name, ratio(second.wall, first.wall), ratio(second.cpu, first.cpu), LIMIT)]


def table(steps: Sequence[MetaStep]) -> Table:
    """One line a stage."""
    from rich.table import Table

    shown = Table(title=f"Outer update of transformer_maml_dqn, {steps[0].tasks if steps else 0} tasks a step; medians")
    for column in ("inner steps", "meta-steps/s", "tasks/s", "CPU-s/step", "compile s", "scratch MB", "peak RSS MB"):
        shown.add_column(column, justify="right")
    for step in steps:
        shown.add_row(
            step.stage,
            f"{step.meta_steps_per_second:.3g}",
            f"{step.tasks_per_second:.3g}",
            f"{sorted(step.cpu)[len(step.cpu) // 2]:.3g}",
            f"{step.compile_seconds:.1f}",
            f"{step.temp_bytes / 1e6:.1f}",
            f"{step.peak_bytes / 1e6:,.0f}",
        )
    return shown
