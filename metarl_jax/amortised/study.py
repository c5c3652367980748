"""The parts of a study of learned solvers: each trains or measures one thing and returns what JSON can hold."""

from __future__ import annotations

import base64
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from envs_jax.allocation import family, transport
from envs_jax.allocation.transport import Transport
from envs_jax.heuristics import transport as rules
from envs_jax.references import interior_point
from metarl_jax import update_rules
from metarl_jax.amortised import training, unrolled
from metarl_jax.amortised.prices import PriceNetwork, merit_order, scaled
from metarl_jax.amortised.training import DIRECT, Source
from metarl_jax.amortised.unrolled import Solver

NETWORK = PriceNetwork()
INNER_STEPS = 2
INNER_SIZE = 3e-3
SUPPORT = 5
"""Past periods that adapting may see, at most."""
POOL = 4096
"""Instances that solvers are trained on."""
FEW = 10
"""Instances of the rival that learns one schedule of step sizes from few (Sambharya & Stellato 2024)."""
BATCH = 64
TEST_KEY, POOL_KEY = 2**31 - 1, 2**31 - 2
"""Seeds of test sites and of solvers' instances, beyond those of trainings."""
EXACT = 1e-4
"""A solve of the interior point above this certified gap failed."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of a study.

    Attributes:
      source: family and size.
      iterations: of a price network.
      solver_iterations: of an unrolled solver.
      meta_iterations: of adapting to a site.
      sites: new ones, for tests.
      shots: K.
    """

    source: Source
    iterations: int
    solver_iterations: int
    meta_iterations: int
    sites: int
    shots: tuple[int, ...]


def pack(tree: Any) -> str:
    """Trained parameters as text: float32 in base64."""
    flat, _ = ravel_pytree(tree)
    return base64.b64encode(np.asarray(flat, "<f4").tobytes()).decode()


def unpack(text: str, like: Any) -> Any:
    """The parameters of :func:`pack`, shaped as ``like``."""
    _, restore = ravel_pytree(like)
    return restore(jnp.asarray(np.frombuffer(base64.b64decode(text), "<f4")))


def cpu(run: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the CPU seconds it took."""
    start = time.process_time()
    result = jax.block_until_ready(run())
    return result, time.process_time() - start


@functools.cache
def test_paths(plan: Plan) -> Transport:
    """Test instances, in MW and money: ``[sites, periods]``; the first :data:`SUPPORT` are the past."""

    def draw(key: Any) -> Transport:
        source = plan.source
        if source.family == "seed":
            make = functools.partial(family.seed_instance, demands=source.demands, plants=source.plants)
            keys = jax.random.split(key, plan.sites * 24).reshape(plan.sites, 24)
            return jax.vmap(jax.vmap(make))(keys)
        return family.dispatch_paths(key, plan.sites, source.demands, source.plants)

    return jax.jit(draw)(jax.random.key(TEST_KEY))


def later(plan: Plan) -> Transport:
    """Test instances after the past, every seventh period of every site: ``[sites * periods]``, MW and money."""
    paths = test_paths(plan)
    return jax.tree.map(lambda a: a[:, SUPPORT::7].reshape(-1, *a.shape[2:]), paths)


_exact = jax.jit(functools.partial(interior_point.solve, tolerance=EXACT / 2))


def exact(problem: Transport) -> tuple[np.ndarray, Any]:
    """Which instances were solved, and their solutions."""
    solution = _exact(*problem)
    return np.asarray(solution.gap <= EXACT), solution


def describe(plan: Plan) -> dict[str, Any]:
    """The test instances and their optima."""
    problem = later(plan)
    solved, solution = exact(problem)
    return {
        "instances": len(solved),
        "failed": int(np.sum(~solved)),
        "optimum": float(np.mean(np.asarray(solution.cost)[solved])),
        "largest_gap": float(np.max(np.asarray(solution.gap)[solved])),
        "binding": float(np.mean(np.sum(np.asarray(solution.prices) > 1e-3, axis=-1))),
    }


def gaps_by_site(plan: Plan, gap: Any) -> list[float]:
    """Mean certified gap of every test site."""
    return [float(x) for x in np.asarray(gap).reshape(plan.sites, -1).mean(1)]


# ---- price networks --------------------------------------------------------------------------------------------------


@functools.cache
def _trainer(plan: Plan, regression: bool) -> Any:
    train = training.train_regression if regression else training.train_prices
    program = jax.jit(lambda key: train(NETWORK, plan.source, key, plan.iterations, 2 * BATCH))
    return program.lower(jax.random.key(0)).compile()


@functools.cache
def _like(plan: Plan) -> Any:
    return jax.jit(lambda key: training.init_prices(NETWORK, key, plan.source))(jax.random.key(0))


@functools.cache
def _solve(solver: Solver) -> Any:
    """``(weights, network, problem, prices or None) -> Solution``, compiled once a solver and shape.

    Without a step the least-cost rule's allocation is made too, and the cheaper of the two taken.
    """
    rule_based = solver.steps == 0

    def run(weights: Any, network: Any, problem: Transport, prices: Any) -> Any:
        return unrolled.solve(solver, weights, lambda own: predict(network, own), problem, prices, rule_based)

    return jax.jit(run)


def predict(network: Any, problem: Transport) -> Any:
    """Prices of scaled instances: of a network, or in merit order where there is none."""
    return merit_order(problem) if network is None else NETWORK.apply(network, problem)


def train_prices(plan: Plan, seed: int, regression: bool = False) -> dict[str, Any]:
    """Trains a price network and tests it on new sites."""
    program = _trainer(plan, regression)
    (params, losses), seconds = cpu(lambda: program(jax.random.key(seed)))
    problem = later(plan)
    if regression:  # prices alone were learned: the temperature of the allocation is the one of an untrained solver
        params = {**params, "direct": {**params["direct"], "log_eps": jnp.full(1, jnp.log(0.02))}}
    found = _solve(DIRECT)(params["direct"], params["network"], problem, None)
    untrained = _like(plan)
    blank = _solve(DIRECT)(untrained["direct"], untrained["network"], problem, None)
    total = problem.demand.sum(-1)
    return {
        "weights": pack(params),
        "training_cpu_seconds": seconds,
        "losses": np.asarray(losses).reshape(-1, max(plan.iterations // 20, 1))[:, 0],
        "gaps": gaps_by_site(plan, found.gap),
        "untrained": float(np.mean(blank.gap)),
        "violation": float(np.max(transport.violation(problem, found.allocation) / total)),
    }


def restore(plan: Plan, part: dict[str, Any]) -> Any:
    """Parameters of :func:`train_prices`."""
    return unpack(part["weights"], _like(plan))


# ---- adapting to a site ----------------------------------------------------------------------------------------------


@functools.cache
def _meta(plan: Plan, rule: str) -> tuple[Any, Any]:
    inner = update_rules.make(rule, INNER_SIZE)
    sizes: dict[str, int] = {"iterations": plan.meta_iterations, "sites": 8, "support": SUPPORT, "query": 3}
    train = jax.jit(
        lambda params, key: training.meta_train(NETWORK, inner, params, plan.source, key, steps=INNER_STEPS, **sizes)
    )

    def tested(meta: Any, past: Transport, query: Transport, known: Any) -> Any:
        def of(past: Transport, query: Transport) -> Any:
            weight = (jnp.arange(SUPPORT) >= SUPPORT - known).astype(jnp.float32)
            own = training.adapt(NETWORK, inner, meta, past, weight, INNER_STEPS, second_order=False)
            return jnp.mean(training.direct_gap(NETWORK, own, query))

        return jax.vmap(of)(past, query)

    return train.lower(_like(plan), jax.random.key(0)).compile(), jax.jit(tested)


def adapt(plan: Plan, part: dict[str, Any], rule: str, seed: int) -> dict[str, Any]:
    """Meta-learns to adapt a price network to a site; gap by K, with controls, of network allocations alone."""
    train, tested = _meta(plan, rule)
    params = restore(plan, part)
    (meta, _), seconds = cpu(lambda: train(params, jax.random.key(seed)))
    paths = scaled(test_paths(plan))
    past = jax.tree.map(lambda a: a[:, :SUPPORT], paths)
    query = jax.tree.map(lambda a: a[:, SUPPORT::7], paths)
    swapped = jax.tree.map(lambda a: jnp.roll(a, 1, axis=0), past)
    most = jnp.float32(max(plan.shots))
    random = {"params": _like(plan), "psi": meta["psi"]}
    by_shots = {str(k): np.asarray(tested(meta, past, query, jnp.float32(k))) for k in plan.shots}
    return {
        "training_cpu_seconds": seconds,
        "by_shots": by_shots,
        "swapped": np.asarray(tested(meta, swapped, query, most)),
        "random_weights": np.asarray(tested(random, past, query, most)),
    }


# ---- unrolled solvers ------------------------------------------------------------------------------------------------


@functools.cache
def _pool(plan: Plan) -> Transport:
    return jax.jit(lambda key: plan.source.instances(key, POOL))(jax.random.key(POOL_KEY))


@functools.cache
def _solver_trainer(plan: Plan, solver: Solver) -> Any:
    program = jax.jit(
        lambda pool, first, key: training.train_solver(solver, pool, first, key, plan.solver_iterations, BATCH)
    )
    return program.lower(pool := _pool(plan), pool.supply, jax.random.key(0)).compile()


@functools.cache
def _bounds(solver: Solver) -> Any:
    """Lower bound after every step, ``f32[S + 1, B]``."""

    def run(weights: Any, problem: Transport, prices: Any) -> Any:
        path = unrolled.run(solver, weights, problem, prices)[2]
        return jax.vmap(transport.lower_bound, in_axes=(None, 0))(problem, path)

    return jax.jit(run)


_predict = jax.jit(predict)


def train_solver(plan: Plan, network: Any, solver: Solver, seed: int, few: int = 0) -> dict[str, Any]:
    """Trains a solver from a network's prices (None: from the merit order) and tests it on new sites.

    Args:
      plan: sizes.
      network: parameters of the price network, or None.
      solver: the rule and its steps.
      seed: of the training.
      few: train on so many instances alone; 0 takes :data:`POOL`.
    """
    # A few are repeated, so that one program trains on few and on many.
    pool = jax.tree.map(lambda a: jnp.resize(a[: few or POOL], a.shape), _pool(plan))
    first = _predict(network, pool)
    program = _solver_trainer(plan, solver)
    (weights, _), seconds = cpu(lambda: program(pool, first, jax.random.key(seed)))
    problem = later(plan)
    own = scaled(problem)
    optimum = np.asarray(exact(own)[1].cost)
    bounds = _bounds(solver)(weights, own, _predict(network, own))
    found = _solve(solver)(weights, network, problem, None)
    return {
        "weights": pack(weights),
        "training_cpu_seconds": seconds,
        "gaps": gaps_by_site(plan, found.gap),
        "bound_by_step": [gaps_by_site(plan, 1.0 - np.asarray(bound) / optimum) for bound in bounds],
        "violation": float(np.max(transport.violation(problem, found.allocation) / problem.demand.sum(-1))),
    }


def restore_solver(solver: Solver, part: dict[str, Any]) -> Any:
    """Weights of :func:`train_solver`."""
    return unpack(part["weights"], unrolled.init(solver, jax.random.key(0)))


# ---- other sizes, shifts, and a day ----------------------------------------------------------------------------------


def shifts(plan: Plan, network: Any, solvers: dict[str, tuple[Solver, Any]]) -> dict[str, Any]:
    """Certified gaps, by site, of what was trained at one size where size, plants or drifts are others."""
    n, m = plan.source.demands, plan.source.plants
    made = {
        f"{n}x{m}": (n, m, 1.0, False),
        f"{2 * n}x{2 * m}": (2 * n, 2 * m, 1.0, False),
        f"{5 * n}x{2 * m}": (5 * n, 2 * m, 1.0, False),
        "a plant out of order": (n, m, 1.0, True),
        "drifts doubled": (n, m, 2.0, False),
    }
    found: dict[str, Any] = {}
    for name, (demands, plants, strength, broken) in made.items():
        draw = functools.partial(
            family.dispatch_paths, sites=8, demands=demands, plants=plants, periods=48, strength=strength
        )
        problem = jax.tree.map(lambda a: a[:, ::6].reshape(-1, *a.shape[2:]), jax.jit(draw)(jax.random.key(TEST_KEY)))
        problem = family.outage(problem) if broken else problem
        found[name] = {}
        for label, (solver, weights) in solvers.items():
            gap = np.asarray(_solve(solver)(weights, network, problem, None).gap).reshape(8, -1).mean(1)
            found[name][label] = [float(x) for x in gap]
    return found


def day(plan: Plan, network: Any, solver: Solver, weights: Any) -> dict[str, Any]:
    """One day of the first test site: cost and prices of the learned dispatch beside the optimum, and where it errs."""
    count = len(later(plan).demand)
    periods = min(count, test_paths(plan).demand.shape[1])
    # Repeated to the number of test instances, for which there are programs.
    problem = jax.tree.map(lambda a: jnp.resize(a[0, :periods], (count, *a.shape[2:])), test_paths(plan))
    _, best = exact(problem)
    found = _solve(solver)(weights, network, problem, None)
    problem, best, found = jax.tree.map(lambda a: np.asarray(a[:periods]), (problem, best, found))
    moved = np.abs(found.allocation - best.allocation)
    return {
        "optimum": best.cost,
        "cost": found.cost,
        "gap": found.gap,
        "demand": problem.demand.sum(-1),
        "optimal_prices": best.prices,
        "prices": found.prices,
        "moved_by_plant": moved.sum(1).mean(0),
        "loading": (best.allocation.sum(1) / np.maximum(problem.supply, 1e-9)).mean(0),
    }


def simple_rules() -> dict[str, Callable[[Transport], Any]]:
    """What people have without a solver, by name: an allocation of each instance."""
    return {
        "least cost": rules.least_cost,
        "row regret": rules.regret,
        "proportional": rules.proportional,
    }
