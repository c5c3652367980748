"""A few steps of a learned rule on the smoothed bound: from prices to better prices and to an allocation.

Step t asks the loads at the present prices and temperature ``eps_t``, and moves the prices by an update rule on the
gradient of ``-q_eps``, ``s - load``, in the metric ``(s + load) / (2 eps)`` of each plant, about its curvature.
Temperatures, momentum and the weight of each step's allocation are learned beside the rule, one number a step; the
rule's context are what a plant knows of itself. Everything is differentiated through, of second order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.allocation import transport
from envs_jax.allocation.transport import Solution, Transport
from envs_jax.heuristics.transport import least_cost
from metarl_jax import update_rules
from metarl_jax.amortised.prices import log_ratio, scaled, units

CONTEXT = 5
"""Features of a plant that a rule may read."""
STEP_SIZES = {"sgd": 1.5, "meta_sgd": 1.5, "gated": 1.5, "learned": 0.02}
"""Where rules begin: a share of Newton's step on the diagonal; of ``learned``, units of the mean cost."""

Weights = dict[str, Any]


class Solver(NamedTuple):
    """A rule unrolled for so many steps.

    Attributes:
      rule: its update rule, a name of :mod:`metarl_jax.update_rules`.
      steps: S; 0 only makes an allocation of the prices it is given.
      optimiser: what a gate opens and closes.
    """

    rule: str
    steps: int
    optimiser: str = "sgd"

    @property
    def update(self) -> update_rules.UpdateRule:
        """The rule."""
        return update_rules.make(self.rule, STEP_SIZES[self.rule], self.optimiser, CONTEXT)  # type: ignore[arg-type]


def init(solver: Solver, key: chex.PRNGKey) -> Weights:
    """What is learned of a solver: psi of the rule, and numbers a step."""
    steps = solver.steps
    # Prices are an array of any length, of which a rule holds one size a step.
    psi = solver.update.learnable(key, jnp.zeros(1), steps)
    return {
        "psi": psi,
        "log_eps": jnp.linspace(np.log(0.06), np.log(0.01), steps + 1, dtype=jnp.float32),
        "momentum": jnp.full((steps,), 0.3, jnp.float32),
        "weight": jnp.zeros((steps + 1,), jnp.float32),
    }


def _context(problem: Transport, load: chex.Array) -> chex.Array:
    """``f32[..., m, CONTEXT]``."""
    mean = jnp.sum(problem.demand[..., None] * problem.cost, axis=-2)
    return jnp.stack(
        [
            log_ratio(load, problem.supply),
            jnp.log(problem.supply + 1e-3),
            mean,
            jnp.min(problem.cost, axis=-2),
            jnp.broadcast_to(jnp.sum(problem.supply, axis=-1, keepdims=True) - 1.5, load.shape),
        ],
        axis=-1,
    )


def run(
    solver: Solver, weights: Weights, problem: Transport, prices: chex.Array
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Runs the steps on scaled instances with any leading axes.

    Args:
      solver: the rule and its steps.
      weights: of :func:`init`, trained or not.
      problem: scaled, see :func:`metarl_jax.amortised.prices.scaled`.
      prices: ``f32[..., m]`` to begin with.

    Returns:
      Prices ``f32[..., m]``, an allocation ``f32[..., n, m]`` that is not completed yet, and the prices after every
      step, ``f32[S + 1, ..., m]``.
    """
    rule, psi = solver.update, weights["psi"]
    usable = problem.supply > 0

    def serve(v: chex.Array, eps: chex.Array) -> tuple[chex.Array, chex.Array]:
        served = transport.priced_allocation(problem, v, eps)
        return served, jnp.sum(served, axis=-2)

    def one(carry: tuple[Any, ...], now: tuple[Any, ...]) -> tuple[tuple[Any, ...], chex.Array]:
        v, velocity, state, mean = carry
        psi_now, log_eps, momentum, weight, step = now
        ahead = jnp.maximum(v + momentum * velocity, 0.0)
        eps = jnp.exp(log_eps)
        served, load = serve(ahead, eps)
        g = jnp.where(usable, 2.0 * eps * (problem.supply - load) / (problem.supply + load + 1e-6), 0.0)
        delta, state = rule.update(psi, psi_now, state, g, ahead, _context(problem, load), step)
        new = jnp.where(usable, jnp.maximum(ahead - delta, 0.0), 0.0)
        share = jax.nn.sigmoid(weight)
        return (new, new - v, state, (1.0 - share) * mean + share * served), new

    steps = solver.steps
    along = (
        *(rule.by_step(psi), weights["log_eps"][:steps], weights["momentum"], weights["weight"][:steps]),
        jnp.arange(steps, dtype=jnp.int32),
    )
    start = (prices, jnp.zeros_like(prices), rule.init(prices), jnp.zeros_like(problem.cost))
    if steps:
        (v, _, _, mean), path = jax.lax.scan(jax.checkpoint(one), start, along, length=steps)
    else:  # compiled without XLA's optimisation, the gradient of an empty loop was NaN
        v, mean, path = prices, start[-1], jnp.zeros((0, *prices.shape))
    served, _ = serve(v, jnp.exp(weights["log_eps"][steps]))
    share = jax.nn.sigmoid(weights["weight"][steps]) if steps else 1.0
    return v, (1.0 - share) * mean + share * served, jnp.concatenate([prices[None], path])


def solve(
    solver: Solver,
    weights: Weights,
    predict: Callable[[Transport], chex.Array],
    problem: Transport,
    prices: chex.Array | None = None,
    rule_based: bool = False,
) -> Solution:
    """An allocation of each instance, completed and certified, in MW and money.

    Args:
      solver: the rule and its steps.
      weights: of the solver.
      predict: prices of a scaled instance, to begin with.
      problem: instances with any leading axes.
      prices: ``f32[..., m]`` [money/MWh] to begin with instead.
      rule_based: also make the least-cost rule's allocation, and take the cheaper of the two.
    """
    money, power = units(problem)
    own = scaled(problem)
    first = predict(own) if prices is None else prices / money[..., None]
    v, allocation, _ = run(solver, weights, own, first)
    found = transport.certify(problem, allocation * power[..., None, None], v * money[..., None])
    if not rule_based:
        return found
    # Which of two allocations is cheaper is known, so that the better one is taken; the bound serves both.
    simple = transport.certify(problem, least_cost(problem), found.prices)
    cheaper = simple.cost < found.cost
    allocation = jnp.where(cheaper[..., None, None], simple.allocation, found.allocation)
    return Solution(allocation, found.prices, jnp.minimum(simple.cost, found.cost), jnp.minimum(simple.gap, found.gap))


def loss(solver: Solver, weights: Weights, problem: Transport, prices: chex.Array) -> chex.Array:
    """The certified gap after the steps, ``f32[...]``: needs no optimum. Of scaled instances and prices."""
    v, allocation, _ = run(solver, weights, problem, prices)
    upper = transport.total_cost(problem, transport.complete(problem, allocation))
    return (upper - transport.lower_bound(problem, v)) / jnp.maximum(upper, 1e-6)
