"""Fair timing on a machine that is not idle: interleaved repeats, wall and CPU seconds, ratios within a round."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Repeated measurements of one call.

    Attributes:
      wall: seconds a call, one number a repeat.
      cpu: seconds of CPU time a call, all threads of the process, one number a repeat.
      calls: calls that a repeat averages over.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    calls: int

    @property
    def median_wall(self) -> float:
        """Median over repeats, seconds a call."""
        return float(np.median(self.wall))

    @property
    def median_cpu(self) -> float:
        """Median over repeats, CPU seconds a call."""
        return float(np.median(self.cpu))


def interleaved(runs: Sequence[Callable[[], object]], repeats: int, seconds: float) -> list[Timing]:
    """Times every run ``repeats`` times, in rounds A B C, A B C, .., so that drifts of the machine hit all alike.

    Args:
      runs: each finishes its work before it returns. Its first call, untimed, is the warm-up.
      repeats: rounds.
      seconds: a run is called until it has taken about that long, so that short ones are not lost in the clock.
    """
    calls = []
    for run in runs:
        run()
        start = time.perf_counter()
        run()
        calls.append(max(1, math.ceil(seconds / max(time.perf_counter() - start, 1e-9))))
    wall, cpu = np.zeros((2, len(runs), repeats))
    for repeat in range(repeats):
        for i, run in enumerate(runs):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(calls[i]):
                run()
            wall[i, repeat] = (time.perf_counter() - wall_start) / calls[i]
            cpu[i, repeat] = (time.process_time() - cpu_start) / calls[i]
    return [Timing(tuple(w), tuple(c), n) for w, c, n in zip(wall.tolist(), cpu.tolist(), calls, strict=True)]


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Median over rounds of ``slower / faster``: paired, so that a busy minute cancels."""
    return float(np.median(np.divide(slower, np.maximum(faster, 1e-12))))


OutT = TypeVar("OutT")


@dataclasses.dataclass(frozen=True)
class Program(Generic[OutT]):
    """A jitted function compiled for its arguments, with what compiling took and what running needs.

    Attributes:
      call: runs it on those arguments and waits for the result.
      trace_seconds: Python to StableHLO.
      compile_seconds: StableHLO to machine code; the command line turns jax's persistent cache off.
      temp_bytes: XLA's scratch memory.
      flops: XLA's count; the body of a loop counts once, however often it runs.
    """

    call: Callable[[], OutT]
    trace_seconds: float
    compile_seconds: float
    temp_bytes: int
    flops: float


def compiled(function: Callable[..., OutT], *arguments: Any) -> Program[OutT]:
    """Compiles ``function`` ahead of time for ``arguments``."""
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    traced = time.perf_counter()
    program = lowered.compile()
    done = time.perf_counter()
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    return Program(
        call=lambda: jax.block_until_ready(program(*arguments)),
        trace_seconds=traced - start,
        compile_seconds=done - traced,
        temp_bytes=0 if memory is None else int(memory.temp_size_in_bytes),
        flops=float(cost.get("flops", math.nan)),
    )
