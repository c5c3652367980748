"""The front: certified gap against CPU time an instance, of learned solvers and of every rival, on one clock.

All methods get the same instances, in a batch, in one process; times are CPU seconds of the process (the least of three
runs) divided by instances, compiling left out. HiGHS gets one instance after another, as its interface wants.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.allocation import transport
from envs_jax.allocation.transport import Solution, Transport
from envs_jax.references import interior_point, pdhg
from metarl_jax.amortised import study
from metarl_jax.amortised.prices import merit_order, scaled, units
from metarl_jax.amortised.training import DIRECT
from metarl_jax.amortised.unrolled import Solver

REPEATS = 3
HIGHS_INSTANCES = 64
TOLERANCES = (0.1, 3e-2, 1e-2, 1e-3, 1e-4)
"""Of the interior point."""
PDHG_ITERATIONS = (80, 400, 2000)


def timed(run: Callable[..., Solution], *arguments: Any) -> dict[str, Any]:
    """Gap and CPU microseconds an instance of a compiled program."""
    solution = jax.block_until_ready(run(*arguments))
    seconds = [study.cpu(lambda: run(*arguments))[1] for _ in range(REPEATS)]
    gap = np.asarray(solution.gap)
    proved = np.isfinite(gap)
    return {
        "mean": float(gap[proved].mean()),
        "median": float(np.median(gap[proved])),
        "p90": float(np.quantile(gap[proved], 0.9)),
        "failed": int(np.sum(~proved)),
        "microseconds": 1e6 * min(seconds) / len(gap),
    }


def _rule(rule: Callable[[Transport], Any]) -> Any:
    """A rule's allocation, bounded by merit-order prices, which cost next to nothing."""
    return jax.jit(lambda problem: transport.certify(problem, rule(problem), merit_order(problem)))


def _pdhg(problem: Transport, prices: Any, iterations: Any) -> Solution:
    """Restarted PDHG on each instance from prices; its allocation is completed, its bound is the better of both."""

    def one(problem: Transport, prices: Any) -> tuple[Any, Any]:
        usable = (problem.supply > 0)[None]
        served = jnp.min(jnp.where(usable, problem.cost + prices[None], jnp.inf), axis=1)
        x = transport.complete(problem, transport.priced_allocation(problem, prices, 0.02 * units(problem)[0]))
        start = (jnp.where(jnp.any(prices > 0), x.ravel(), 0.0), served, prices)
        program = pdhg.transport_program(problem)
        answer = pdhg.solve(program, start, tolerance=study.EXACT, iterations=iterations)
        return answer.x.reshape(problem.cost.shape), answer.below_price

    allocation, price = jax.vmap(one)(problem, prices)
    return transport.certify(problem, allocation, price)


def previous_prices(plan: study.Plan) -> tuple[Transport, Any]:
    """Test instances with the optimal prices of the period before each."""
    paths = study.test_paths(plan)
    at = np.arange(study.SUPPORT, paths.demand.shape[1], 7)
    before = jax.tree.map(lambda a: a[:, at - 1].reshape(-1, *a.shape[2:]), paths)
    return study.later(plan), study.exact(before)[1].prices


def measure(
    plan: study.Plan,
    network: Any,
    regression: Any,
    solvers: dict[str, tuple[Solver, Any]],
    schedule: tuple[Solver, Any] | None,
) -> dict[str, Any]:
    """Gap and time of every method.

    Args:
      plan: sizes.
      network: ``{"network", "direct"}``, a trained price network.
      regression: the same of the regression to optimal prices.
      solvers: trained solvers by label, started from the network.
      schedule: the schedule learned from few instances, started from the merit order.
    """
    problem, last = previous_prices(plan)
    found: dict[str, Any] = {}
    for name, rule in study.simple_rules().items():
        found[name] = timed(_rule(rule), problem)
    direct = study._solve(DIRECT)
    found["merit-order prices"] = timed(direct, network["direct"], None, problem, None)
    if plan.source.family != "seed":
        found["last optimum's prices"] = timed(direct, network["direct"], None, problem, last)
    found["regression to prices"] = timed(direct, regression["direct"], regression["network"], problem, None)
    found["network, S = 0"] = timed(direct, network["direct"], network["network"], problem, None)
    for label, (solver, weights) in solvers.items():
        found[label] = timed(study._solve(solver), weights, network["network"], problem, None)
    if schedule is not None:
        solver, weights = schedule
        label = f"schedule of {study.FEW} instances, S = {solver.steps}"
        found[label] = timed(study._solve(solver), weights, None, problem, None)
    point = jax.jit(lambda problem, tolerance: interior_point.solve(*problem, tolerance=tolerance))
    for tolerance in TOLERANCES:
        found[f"interior point, {tolerance:g}"] = timed(point, problem, jnp.float32(tolerance))
    first_order = jax.jit(_pdhg)
    money = units(problem)[0][:, None]
    predicted = jax.jit(lambda p, own: study.predict(p, own))(network["network"], scaled(problem)) * money
    starts = {"cold": jnp.zeros_like(last), "from the network": predicted}
    if plan.source.family != "seed":
        starts["from last optimum"] = last
    for iterations in PDHG_ITERATIONS:
        for label, prices in starts.items():
            found[f"PDHG {label}, {iterations}"] = timed(first_order, problem, prices, jnp.int32(iterations))
    return found | highs(jax.tree.map(lambda a: np.asarray(a[:HIGHS_INSTANCES], float), problem))


def _constraints(n: int, m: int) -> tuple[Any, Any]:
    from scipy import sparse

    rows, columns = sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))
    return sparse.csr_matrix(rows), sparse.csr_matrix(columns)


def highs(problem: Transport) -> dict[str, Any]:
    """HiGHS on one instance after another: by SciPy, and where it is installed by highspy with the basis kept."""
    from scipy import optimize

    n, m = problem.cost.shape[1:]
    rows, columns = _constraints(n, m)
    exact = {"mean": 0.0, "median": 0.0, "p90": 0.0, "failed": 0}

    def one(c: Any, d: Any, s: Any) -> Any:
        return optimize.linprog(c.ravel(), A_ub=columns, b_ub=s, A_eq=rows, b_eq=d, method="highs")

    one(*(a[0] for a in problem))
    start = time.process_time()
    failed = sum(one(*instance).status != 0 for instance in zip(*problem, strict=True))
    count = len(problem.demand)
    each = 1e6 * (time.process_time() - start) / count
    found = {"HiGHS by SciPy, cold": {**exact, "failed": int(failed), "microseconds": each}}
    for warm in (False, True):
        try:
            seconds, costs = highspy_seconds(problem, warm)
        except ImportError:
            break
        name = f"highspy, {'warm' if warm else 'cold'}"
        found[name] = {**exact, "failed": int(np.sum(~np.isfinite(costs))), "microseconds": 1e6 * seconds / count}
    return found


def highspy_seconds(problem: Transport, warm: bool) -> tuple[float, np.ndarray]:
    """CPU seconds of highspy over all instances, the model kept and changed, and its optima.

    Args:
      problem: NumPy arrays with one leading axis.
      warm: keep the basis of the instance before.

    Raises:
      ImportError: where highspy is not installed.
    """
    import highspy

    n, m = problem.cost.shape[1:]
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    inf = highspy.kHighsInf
    for _ in range(n * m):
        solver.addVar(0.0, inf)
    index = np.arange(n * m).reshape(n, m)
    for i in range(n):
        solver.addRow(0.0, 0.0, m, index[i].astype(np.int32), np.ones(m))
    for j in range(m):
        solver.addRow(-inf, 0.0, n, index[:, j].astype(np.int32), np.ones(n))
    every, costs = np.arange(n * m, dtype=np.int32), []
    start = time.process_time()
    for c, d, s in zip(*problem, strict=True):
        solver.changeColsCost(n * m, every, c.ravel())
        for i in range(n):
            solver.changeRowBounds(i, d[i], d[i])
        for j in range(m):
            solver.changeRowBounds(n + j, -inf, s[j])
        if not warm:
            solver.clearSolver()
        solver.run()
        done = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
        costs.append(solver.getInfo().objective_function_value if done else np.nan)
    return time.process_time() - start, np.asarray(costs)
