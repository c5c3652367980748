"""Exact allocation of energy, checked and timed against HiGHS: ``python -m benchmarks.speed.dispatch_speed``.

Draws ``--instances`` instances of the family ``dispatch`` at each of ``--sizes``, solves them in batches by the
interior point, and the first ``--checked`` by HiGHS as well (SciPy, float64). An error above ``--tolerance`` that the
interior point's own certificate does not admit is a fault: the command then ends with exit code 1. Times are CPU
seconds of one process, compiling left out; highspy is timed too where it is installed, with and without the basis kept.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.studies.exact_allocation import by_highs


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      sizes: demands x plants, without the import.
      instances: solved by the interior point.
      checked: of these, also by HiGHS.
      batch: instances solved side by side.
      tolerance: certified gap asked for.
      seed: of the instances.
    """

    sizes: tuple[str, ...] = ("10x10",)
    instances: int = 10_000
    checked: int = 10_000
    batch: int = 200
    tolerance: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 1, 10**7, "instances", "checked", "batch")
        command.check_range(self, 1e-6, 0.1, "tolerance")
        command.check_seed(self)
        for size in self.sizes:
            sides = size.split("x")
            if len(sides) != 2 or not all(side.isdecimal() and 1 <= int(side) <= 500 for side in sides):
                raise ValueError(f"sizes must be demands x plants of 1 to 500 each, as 10x10, got {size!r}")


def measure(config: Config, size: str) -> bool:
    """Prints one size's figures; returns whether every error was certified."""
    import jax

    from envs_jax.allocation import family, transport
    from envs_jax.references import interior_point
    from metarl_jax.amortised import front

    n, m = (int(side) for side in size.split("x"))
    batches = -(-config.instances // config.batch)
    count = batches * config.batch
    sites = -(-count // 24)

    @jax.jit
    def draw(key: Any) -> Any:
        paths = family.dispatch_paths(key, sites, n, m)
        return jax.tree.map(lambda leaf: leaf[:, ::4].reshape(-1, *leaf.shape[2:])[:count], paths)

    @jax.jit
    def solve(problem: Any) -> Any:
        batched = jax.tree.map(lambda leaf: leaf.reshape(batches, config.batch, *leaf.shape[1:]), problem)
        found = jax.lax.map(lambda one: interior_point.solve(*one, tolerance=config.tolerance), batched)
        return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), found)

    problem = jax.block_until_ready(draw(jax.random.key(config.seed)))
    solution = jax.block_until_ready(solve(problem))
    start = time.process_time()
    jax.block_until_ready(solve(problem))
    own = 1e6 * (time.process_time() - start) / count
    gap = np.asarray(solution.gap)
    violation = float(np.max(transport.violation(problem, solution.allocation) / problem.demand.sum(-1)))
    print(f"{size}: {count} instances of {sites} sites, gap median {np.median(gap):.1e}, largest {gap.max():.1e}")
    print(f"  marked as failed: {int(np.sum(gap > config.tolerance))}; violation at most {violation:.1e} of the demand")
    checked = min(config.checked, count)
    optima, seconds = by_highs(jax.tree.map(lambda leaf: leaf[:checked], problem))
    error = np.asarray(solution.cost[:checked], float) / optima - 1.0
    wrong = int(np.sum((np.abs(error) > config.tolerance + 1e-6) & (gap[:checked] <= config.tolerance)))
    print(f"  against HiGHS on {checked}: largest error {np.nanmax(np.abs(error)):.1e}, unmarked above: {wrong}")
    print(f"  CPU us an instance: interior point {own:.0f}, HiGHS by SciPy {1e6 * seconds / checked:.0f}")
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf[: min(checked, 500)], float), problem)
    for warm in (False, True):
        try:
            seconds, _ = front.highspy_seconds(arrays, warm)
        except ImportError:
            print("  highspy is not installed")
            break
        each = 1e6 * seconds / len(arrays.demand)
        print(
            f"  highspy {'warm' if warm else 'cold'} {each:.0f}: the interior point is {each / own:.1f} times as fast"
        )
    return wrong == 0


def main() -> None:
    """The command."""
    config = command.parse(Config, __doc__ or "")
    fine = [measure(config, size) for size in config.sizes]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
