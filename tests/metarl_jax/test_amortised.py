"""Learned solvers: what must hold whatever was learned, gradients through the steps, and that training helps."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.allocation import transport
from envs_jax.allocation.transport import Transport
from envs_jax.references import interior_point
from metarl_jax import update_rules
from metarl_jax.amortised import training, unrolled
from metarl_jax.amortised.prices import PriceNetwork, merit_order, scaled
from metarl_jax.amortised.training import Source
from metarl_jax.amortised.unrolled import Solver
from tests.metarl_jax import small

NETWORK = PriceNetwork(width=8, blocks=1, heads=2)
SOURCE = Source("dispatch", 4, 3)
SOLVER = Solver("gated", 3)


@pytest.fixture(scope="module")
def setting() -> tuple[Any, Any, Transport]:
    """Parameters and weights that are not those of the start, and instances in MW and money."""

    @jax.jit
    def make(key: Any) -> Any:
        params = NETWORK.init(key, SOURCE.instances(key, 1))
        weights = unrolled.init(SOLVER, key)
        leaves, structure = jax.tree.flatten((params, weights))
        keys = jax.random.split(key, len(leaves))
        moved = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        return structure.unflatten(moved), SOURCE.instances(key, 6)

    (params, weights), problem = make(jax.random.key(0))
    return params, weights, Transport(problem.cost * 30.0, problem.demand * 400.0, problem.supply * 400.0)


@jax.jit
def solve(params: Any, weights: Any, problem: Transport) -> Any:
    return unrolled.solve(SOLVER, weights, lambda own: NETWORK.apply(params, own), problem, rule_based=True)


def test_whatever_was_learned_the_gap_is_certified_and_the_allocation_feasible(setting):
    params, weights, problem = setting
    found = solve(params, weights, problem)
    best = interior_point.solve(*problem)
    assert np.max(transport.violation(problem, found.allocation) / problem.demand.sum(-1)) < 1e-6
    assert np.all(found.cost >= best.cost * (1 - 1e-4))
    assert np.all(transport.lower_bound(problem, found.prices) <= best.cost * (1 + 1e-5))
    assert np.all(found.cost / best.cost - 1 <= found.gap + 1e-4)


def test_relabelling_units_and_padding(setting):
    params, weights, problem = setting
    found = solve(params, weights, problem)
    rows, columns = np.array([2, 0, 3, 1]), np.array([3, 1, 0, 2])
    named = Transport(problem.cost[:, rows][:, :, columns], problem.demand[:, rows], problem.supply[:, columns])
    again = solve(params, weights, named)
    np.testing.assert_allclose(again.prices, found.prices[:, columns], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(again.cost, found.cost, rtol=1e-4)
    units = Transport(problem.cost * 7.0, problem.demand * 0.01, problem.supply * 0.01)
    again = solve(params, weights, units)
    np.testing.assert_allclose(again.prices, found.prices * 7.0, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(again.gap, found.gap, rtol=1e-3, atol=1e-4)


def test_padding_plants_changes_no_price(setting):
    params, _, problem = setting
    own = scaled(problem)
    wide = Transport(
        jnp.pad(problem.cost, ((0, 0), (0, 0), (0, 2)), constant_values=5.0),
        problem.demand,
        jnp.pad(problem.supply, ((0, 0), (0, 2))),
    )
    np.testing.assert_allclose(scaled(wide).cost[..., :4], own.cost, rtol=1e-6)
    np.testing.assert_allclose(merit_order(scaled(wide))[:, :4], merit_order(own), atol=1e-5)
    found, padded = (jax.jit(NETWORK.apply)(params, one) for one in (own, scaled(wide)))
    np.testing.assert_allclose(padded[:, :4], found, rtol=1e-3, atol=1e-4)
    assert not padded[:, 4:].any()


def test_an_open_gate_is_the_plain_solver_bitwise():
    problem = SOURCE.instances(jax.random.key(1), 5)
    first = merit_order(problem)
    ends = []
    for rule in ("meta_sgd", "gated"):
        solver = Solver(rule, 3)
        weights = unrolled.init(solver, jax.random.key(0))
        ends.append(jax.jit(lambda w, solver=solver: unrolled.run(solver, w, problem, first)[:2])(weights))
    for plain, gated in zip(*ends, strict=True):
        np.testing.assert_array_equal(plain, gated)


def test_the_gradient_through_all_steps_equals_finite_differences():
    with jax.enable_x64(True):
        problem = small.as_float64(SOURCE.instances(jax.random.key(2), 3))
        weights = small.as_float64(unrolled.init(SOLVER, jax.random.key(0)))
        first = merit_order(problem) + 0.01
        rng = np.random.default_rng(0)
        leaves, structure = jax.tree.flatten(weights)
        leaves = [leaf + 0.05 * rng.normal(size=leaf.shape) for leaf in leaves]
        direction = [rng.normal(size=leaf.shape) for leaf in leaves]

        def along(amount: Any) -> Any:
            moved = [leaf + amount * d for leaf, d in zip(leaves, direction, strict=True)]
            v, allocation, _ = unrolled.run(SOLVER, structure.unflatten(moved), problem, first)
            return jnp.mean(transport.smoothed_bound(problem, v, 0.05)) + jnp.sum(jnp.square(allocation))

        program, slope = jax.jit(along), jax.jit(jax.grad(along))
        numeric = (program(jnp.float64(1e-6)) - program(jnp.float64(-1e-6))) / 2e-6
        np.testing.assert_allclose(slope(jnp.float64(0.0)), numeric, rtol=1e-5)


@pytest.mark.slow
def test_training_a_network_and_a_solver_lowers_the_gap_on_new_sites():
    train = jax.jit(lambda key: training.train_prices(NETWORK, SOURCE, key, 150, 32))
    params, losses = train(jax.random.key(0))
    assert losses[-20:].mean() < 0.8 * losses[:20].mean()
    pool = SOURCE.instances(jax.random.key(1), 256)
    first = jax.jit(NETWORK.apply)(params["network"], pool)
    solver = Solver("meta_sgd", 5)
    _, losses = jax.jit(lambda key: training.train_solver(solver, pool, first, key, 100, 32))(jax.random.key(2))
    assert losses[-20:].mean() < losses[:20].mean()


@pytest.mark.slow
def test_adapting_without_support_changes_nothing_and_learns_from_it_otherwise():
    rule = update_rules.make("meta_sgd", 0.001)
    params = jax.jit(lambda key: training.init_prices(NETWORK, key, SOURCE))(jax.random.key(0))
    meta = {"params": params, "psi": rule.learnable(jax.random.key(0), params, 2)}
    past = jax.tree.map(lambda a: a[0], SOURCE.paths(jax.random.key(1), 1, 5))

    # Without XLA's optimisation this gradient is NaN in some runs, and finite wherever a part of it is looked at.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    def adapted(weight: Any) -> Any:
        own = training.adapt(NETWORK, rule, meta, past, weight, 2)
        return own, jnp.mean(training.direct_gap(NETWORK, own, past))

    same, before = adapted(jnp.zeros(5))
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert adapted(jnp.ones(5))[1] < before
