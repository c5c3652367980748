"""Is an exact allocation exact, or marked where it is not? ``python -m benchmarks.studies.exact_allocation``.

Draws ``--instances`` random transportation problems of eight kinds (the families of :mod:`envs_jax.allocation.family`,
and kinds chosen to hurt: supply that just covers demand, ties, costs over six decades, zeros, many demands on few
plants), solves them in batches by the interior point of :mod:`envs_jax.references.interior_point`, and each by SciPy's
HiGHS in float64, on the same float32 numbers. A solve whose certified gap is above the solver's own tolerance is
*flagged*. An *unflagged error* is a solve that is not, whose cost is further than ``--limit`` from the optimum
(relative), or whose allocation misses demands or supplies by more than ``--limit`` of all demand. Exit code 1 if there
is any, or if HiGHS left an instance unsolved.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import command


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      instances: in all, shared out over the kinds.
      batch: instances solved side by side.
      limit: relative error above which an answer is wrong.
      seed: of the instances.
      out: folder for exact_allocation.json; none is written without it.
    """

    instances: int = 10_000
    batch: int = 250
    limit: float = 1e-4
    seed: int = 0
    out: pathlib.Path | None = None

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 8, 10**7, "instances")
        command.check_range(self, 1, 10**5, "batch")
        command.check_range(self, 1e-6, 0.1, "limit")
        command.check_seed(self)


def kinds() -> dict[str, Callable[[int, int], Any]]:
    """Instances by kind: ``(count, seed) -> Transport`` of NumPy arrays, float32, with a leading axis ``[count]``."""
    import jax

    from envs_jax.allocation import family
    from envs_jax.allocation.transport import Transport

    def transport(cost: Any, demand: Any, supply: Any) -> Transport:
        return Transport(*(np.asarray(array, np.float32) for array in (cost, demand, supply)))

    def seed_family(demands: int, plants: int) -> Callable[[int, int], Transport]:
        def draw(count: int, seed: int) -> Transport:
            keys = jax.random.split(jax.random.key(seed), count)
            return transport(*jax.jit(jax.vmap(lambda key: family.seed_instance(key, demands, plants)))(keys))

        return draw

    def dispatch(demands: int, plants: int) -> Callable[[int, int], Transport]:
        def draw(count: int, seed: int) -> Transport:
            sites = -(-count // 24)  # 24 of a site's 96 quarter hours
            paths = jax.jit(lambda key: family.dispatch_paths(key, sites, demands, plants))(jax.random.key(seed))
            return transport(*(np.asarray(leaf)[:, ::4].reshape(-1, *leaf.shape[2:])[:count] for leaf in paths))

        return draw

    def scaled(supply: np.ndarray, demand: np.ndarray, times: Any) -> np.ndarray:
        return supply * (times * demand.sum(-1) / supply.sum(-1))[:, None]

    def tight(count: int, seed: int) -> Transport:
        rng = np.random.default_rng(seed)
        demand, supply = rng.uniform(1, 100, (count, 10)), rng.uniform(1, 100, (count, 10))
        return transport(rng.uniform(1, 100, (count, 10, 10)), demand, scaled(supply, demand, 1 + 1e-5))

    def ties(count: int, seed: int) -> Transport:
        rng = np.random.default_rng(seed)
        supply = np.full((count, 10), 10)  # equal demands and supplies: an assignment, as degenerate as can be
        return transport(rng.integers(1, 4, (count, 10, 10)), np.full((count, 10), 9), supply)

    def decades(count: int, seed: int) -> Transport:
        rng = np.random.default_rng(seed)
        demand, supply = 10 ** rng.uniform(-2, 2, (count, 10)), 10 ** rng.uniform(-2, 2, (count, 10))
        return transport(10 ** rng.uniform(-3, 3, (count, 10, 10)), demand, scaled(supply, demand, 1.2))

    def zeros(count: int, seed: int) -> Transport:
        rng = np.random.default_rng(seed)
        demand = rng.uniform(1, 100, (count, 10)) * (rng.random((count, 10)) < 0.7)
        supply = rng.uniform(1, 100, (count, 10)) * (rng.random((count, 10)) < 0.7)
        demand[:, 0], supply[:, 0] = 50, 50
        return transport(
            rng.uniform(1, 100, (count, 10, 10)), demand, scaled(supply, demand, rng.uniform(1, 3, count) + 1e-5)
        )

    def few_plants(count: int, seed: int) -> Transport:
        rng = np.random.default_rng(seed)
        demand, supply = rng.uniform(1, 100, (count, 40)), rng.uniform(1, 100, (count, 3))
        return transport(rng.uniform(1, 100, (count, 40, 3)), demand, scaled(supply, demand, 1.1))

    return {
        "seed 3x2": seed_family(3, 2),
        "dispatch 10x10": dispatch(10, 10),
        "dispatch 20x20": dispatch(20, 20),
        "supply covers demand by 1e-5, 10x10": tight,
        "ties: equal demands, equal supplies, costs 1 to 3, 10x10": ties,
        "costs over six decades, demands over four, 10x10": decades,
        "three in ten demands and plants are zero, 10x10": zeros,
        "many demands on few plants, 40x3": few_plants,
    }


def by_highs(problem: Any) -> tuple[np.ndarray, float]:
    """Optima by SciPy's HiGHS, NaN where it found none, and its CPU seconds.

    Args:
      problem: a :class:`~envs_jax.allocation.transport.Transport` with one leading axis.
    """
    from scipy import optimize, sparse

    n, m = problem.cost.shape[1:]
    rows = sparse.csr_matrix(sparse.kron(sparse.eye(n), np.ones((1, m))))
    columns = sparse.csr_matrix(sparse.kron(np.ones((1, n)), sparse.eye(m)))
    optima = []
    start = time.process_time()
    for c, d, s in zip(*(np.asarray(leaf, float) for leaf in problem), strict=True):
        found = optimize.linprog(c.ravel(), A_ub=columns, b_ub=s, A_eq=rows, b_eq=d, method="highs")
        optima.append(found.fun if found.status == 0 else np.nan)
    return np.asarray(optima), time.process_time() - start


def compare(problem: Any, solution: Any, optima: np.ndarray, tolerance: float, limit: float) -> dict[str, Any]:
    """How far solutions are from the optima, and what the solver says itself.

    Args:
      problem: instances, one leading axis.
      solution: a :class:`~envs_jax.allocation.transport.Solution` of them.
      optima: ``f64[B]``, NaN where there is none.
      tolerance: certified gap above which a solve is flagged.
      limit: relative error above which one that is not flagged is wrong.
    """
    cost, demand, supply = (np.asarray(leaf, np.float64) for leaf in problem)
    allocation = np.asarray(solution.allocation, np.float64)
    gap = np.asarray(solution.gap)
    total = demand.sum(-1)
    error = np.abs((cost * allocation).sum((1, 2)) / optima - 1)
    missed = np.abs(allocation.sum(2) - demand).max(-1)
    above = np.maximum(allocation.sum(1) - supply, 0).max(-1)
    violation = np.maximum(np.maximum(missed, above), -allocation.min((1, 2))) / total
    judged = np.isfinite(optima)
    flagged = ~(gap <= tolerance)
    wrong = (error > limit) | (violation > limit)
    trusted = judged & ~flagged
    return {
        "instances": len(gap),
        "flagged": int(flagged.sum()),
        "unflagged_errors": int((wrong & trusted).sum()),
        "errors_flagged": int((wrong & judged & flagged).sum()),
        "largest_unflagged_error": float(error[trusted].max(initial=0.0)),
        "largest_error": float(error[judged].max(initial=0.0)),
        "largest_violation": float(violation.max()),
        "largest_gap": float(gap.max()),
        "left_by_highs": int((~judged).sum()),
    }


def measure(config: Config) -> dict[str, dict[str, Any]]:
    """Figures by kind; prints one line each."""
    import jax

    from envs_jax.references import interior_point

    drawn = kinds()
    each = np.full(len(drawn), config.instances // len(drawn))
    each[: config.instances % len(drawn)] += 1
    solve = jax.jit(interior_point.solve)
    found = {}
    for which, (name, draw) in enumerate(drawn.items()):
        count = int(each[which])
        problem = draw(count, (config.seed + which * 7919) % 2**32)
        batch = min(config.batch, count)
        pick = np.arange(-(-count // batch) * batch) % count  # the last batch is filled up with the first instances
        solved = [solve(*(leaf[rows] for leaf in problem)) for rows in pick.reshape(-1, batch)]
        solution = jax.tree.map(lambda *leaves: np.concatenate(leaves), *solved)
        solution = jax.tree.map(lambda leaf, count=count: leaf[:count], solution)
        optima, seconds = by_highs(problem)
        own = compare(problem, solution, optima, interior_point.TOLERANCE, config.limit)
        found[name] = own | {"highs_cpu_seconds": round(seconds, 2)}
        print(
            f"{name}: {count} instances, {own['flagged']} flagged, {own['unflagged_errors']} unflagged errors; largest "
            f"error {own['largest_error']:.1e}, violation {own['largest_violation']:.1e} of the demand",
            flush=True,
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    config = command.parse(Config, __doc__, arguments)
    if config.out is not None:
        try:
            command.prepare_folder(config.out)
        except ValueError as error:
            command.refuse(error)

    import jax
    import scipy

    from envs_jax.references import interior_point

    found = measure(config)
    total = {key: sum(own[key] for own in found.values()) for key in ("instances", "flagged", "unflagged_errors")}
    left = sum(own["left_by_highs"] for own in found.values())
    print(
        f"{total['instances']} instances against HiGHS: {total['unflagged_errors']} unflagged errors above "
        f"{config.limit:g}, {total['flagged']} flagged by the solver, {left} left unsolved by HiGHS"
    )
    if config.out is not None:
        result = {
            "command": sys.argv[1:] if arguments is None else list(arguments),
            "config": {name: value for name, value in dataclasses.asdict(config).items() if name != "out"},
            "tolerance": interior_point.TOLERANCE,
            "versions": {"jax": jax.__version__, "scipy": scipy.__version__, "worlds": command.version()},
            "machine": {"device": jax.devices()[0].device_kind, "cores": os.cpu_count()},
            "total": total | {"left_by_highs": left},
            "kinds": found,
        }
        path = config.out / "exact_allocation.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}")
    sys.exit(1 if total["unflagged_errors"] or left else 0)


if __name__ == "__main__":
    main()
