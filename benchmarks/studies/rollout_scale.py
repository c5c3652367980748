"""Time and memory of the exact optimum against the number of levels of a chain.

``python -m benchmarks.studies.rollout_scale --levels 2 3 4 5 6 7``: one process a size, so that the peak of memory is
its own. Prints a Markdown table: first call (with compiling), warm call, CPU seconds, peak memory, and the machine.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import command


def measure(levels: int) -> dict[str, float]:
    """The optimum of CHAIN(``levels``), solved twice in this process."""
    import jax

    from envs_jax.games import warehouse as model
    from envs_jax.references import warehouse as exact

    warehouse = model.make("chain", "R5", levels)
    with jax.enable_x64(True):
        tables, value = exact.build(warehouse), np.zeros(warehouse.side**levels)
        lowered = exact._optimise.lower(tables, value, 1e-11, 1.0, is_chain=True, max_sweeps=100_000)
        start = time.perf_counter()
        lowered.compile()
        compiling = time.perf_counter() - start
    exact.optimum(warehouse)
    start, cpu = time.perf_counter(), time.process_time()
    solution = exact.optimum(warehouse)
    return {
        "levels": levels,
        "states": warehouse.num_states,
        "gain": solution.gain,
        "sweeps": solution.sweeps,
        "compile_seconds": compiling,
        "warm_seconds": time.perf_counter() - start,
        "warm_cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      levels: sizes of the chain.
      here: measure the first size in this process and print JSON.
    """

    levels: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
    here: bool = False

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 1, 10, "levels")
        command.check_once("levels", self.levels)
        if not self.levels:
            raise ValueError("levels must hold at least one, got none")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the sizes asked for, each in a process of its own."""
    asked = command.parse(Config, __doc__, arguments)
    if asked.here:
        print(json.dumps(measure(asked.levels[0])))
        return
    rows = []
    for levels in asked.levels:
        one_size = [sys.executable, "-m", "benchmarks.studies.rollout_scale", "--here", "--levels", str(levels)]
        done = subprocess.run(one_size, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
        print("| " + " | ".join(f"{value:.10g}" for value in rows[-1].values()) + " |", flush=True)
    print("| " + " | ".join(rows[0]) + " |")
    if len(rows) > 1:
        late = rows[-3:]
        slope = np.polyfit([row["levels"] for row in late], np.log([row["warm_cpu_seconds"] for row in late]), 1)[0]
        print(f"one more level takes {np.exp(slope):.2f} times as long")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
