"""Time and memory of the exact optimum against the number of levels of a chain.

``python -m benchmarks.studies.rollout_scale --levels 2 3 4 5 6 7``: one process a size, so that the peak of memory is
its own. Prints a Markdown table: first call (with compiling), warm call, CPU seconds, peak memory, and the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np


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


def main() -> None:
    """Measures the sizes asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7])
    parser.add_argument("--here", action="store_true", help="measure in this process and print JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(asked.levels[0])))
        return
    rows = []
    for levels in asked.levels:
        command = [sys.executable, "-m", "benchmarks.studies.rollout_scale", "--here", "--levels", str(levels)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
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
