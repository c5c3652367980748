"""Dynamic trading with predictable returns and quadratic costs: closed form and Riccati recursions.

Garleanu & Pedersen, "Dynamic Trading with Predictable Returns and Transaction Costs", Journal of Finance 68(6), 2013
(the equations below are recalled and re-derived, the paper itself was not re-read). Per period, with factors ``f``
known when the holding ``x`` is chosen and ``rho`` the discount rate, the agent collects, in risk-adjusted return units,

    (1 - rho) (x' B f - gamma/2 x' Sigma x) - 1/2 (x - x_prev)' Lambda (x - x_prev),     f' = (I - Phi) f + eps.

The value before trading is quadratic, ``V = -1/2 x' A x + x' G f + 1/2 f' C f + c``, and each backward step is

    J  = (1-rho)(gamma Sigma + A) + Lambda                 curvature of the objective in x
    g  = (1-rho)(B + G (I-Phi))                            discounted return forecast, carried on by later holdings
    x* = J^-1 (Lambda x_prev + g f)                        the optimal holding
    A <- Lambda - Lambda J^-1 Lambda,   G <- Lambda J^-1 g
    C <- g' J^-1 g + (1-rho)(I-Phi)' C (I-Phi),   c <- (1-rho)(c + 1/2 tr(C Omega)).

With ``Lambda = lambda Sigma`` the stationary solution is closed form: ``A = a Sigma`` and
``x* = (1 - a/lambda) x_prev + (a/lambda) aim f``, "trade partially toward the aim".

Arrays take the dtype of their inputs; nothing here is specific to float32.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.arrays import vary_like


@struct.dataclass
class TradingProblem:
    """N assets, K factors.

    Attributes:
      loadings: ``[N, K]`` B, expected return of a holding per unit of factor.
      mean_reversion: ``[K, K]`` Phi, share of a factor lost per period.
      innovation: ``[K, K]`` Omega, covariance of the factor shocks.
      covariance: ``[N, N]`` Sigma, of the unpredictable returns.
      cost: ``[N, N]`` Lambda, symmetric positive definite.
      risk_aversion: ``[]`` gamma.
      discount_rate: ``[]`` rho, 0 for undiscounted.
    """

    loadings: chex.Array
    mean_reversion: chex.Array
    innovation: chex.Array
    covariance: chex.Array
    cost: chex.Array
    risk_aversion: chex.Array
    discount_rate: chex.Array


@struct.dataclass
class Value:
    """``V(x, f) = -1/2 x' A x + x' G f + 1/2 f' C f + c`` before trading: ``A [N,N], G [N,K], C [K,K], c []``."""

    holding: chex.Array
    cross: chex.Array
    factor: chex.Array
    constant: chex.Array


@struct.dataclass
class Rule:
    """Optimal holding ``x* = keep x_prev + aim f``: ``keep [..., N, N]``, ``aim [..., N, K]``."""

    keep: chex.Array
    aim: chex.Array


def trading_rate(risk_aversion: chex.Numeric, cost: chex.Numeric, discount_rate: chex.Numeric = 0.0) -> chex.Array:
    """``a/lambda``: the share of the gap to the aim traded each period, for ``Lambda = lambda Sigma``.

    ``a = (-b + sqrt(b^2 + 4 gamma lambda (1-rho)^2)) / (2 (1-rho))`` with ``b = gamma (1-rho) + lambda rho``, written
    without the cancellation and without dividing by ``lambda``: at no cost the rate is 1.
    """
    kept = 1.0 - discount_rate
    b = risk_aversion * kept + cost * discount_rate
    return 2.0 * risk_aversion * kept / (b + jnp.sqrt(b**2 + 4.0 * risk_aversion * cost * kept**2))


def closed_form(problem: TradingProblem, cost_multiplier: chex.Numeric) -> Rule:
    """The stationary rule for ``Lambda = cost_multiplier * Sigma`` (``problem.cost`` is not used).

    ``aim = (gamma Sigma)^-1 B (I + Phi a/gamma)^-1``: quickly reverting factors count for less.
    """
    rate = trading_rate(problem.risk_aversion, cost_multiplier, problem.discount_rate)
    (assets, factors) = problem.loadings.shape
    faded = jnp.eye(factors, dtype=jnp.float32) + problem.mean_reversion * (
        rate * cost_multiplier / problem.risk_aversion
    )
    aim = jnp.linalg.solve(problem.risk_aversion * problem.covariance, problem.loadings) @ jnp.linalg.inv(faded)
    return Rule(keep=(1.0 - rate) * jnp.eye(assets, dtype=aim.dtype), aim=rate * aim)


def zero_value(problem: TradingProblem) -> Value:
    """The value when nothing follows: holdings are neither paid for nor liquidated."""
    loadings = problem.loadings
    return Value(
        holding=jnp.zeros_like(problem.covariance),
        cross=jnp.zeros_like(loadings),
        factor=jnp.zeros_like(problem.mean_reversion),
        constant=jnp.zeros((), loadings.dtype),
    )


def backward_step(problem: TradingProblem, value: Value) -> tuple[Value, Rule]:
    """One period back: the value before it and the optimal rule in it, from the value after it."""
    kept = 1.0 - problem.discount_rate
    persistence = jnp.eye(problem.mean_reversion.shape[-1], dtype=problem.loadings.dtype) - problem.mean_reversion
    curvature = kept * (problem.risk_aversion * problem.covariance + value.holding) + problem.cost
    forecast = kept * (problem.loadings + value.cross @ persistence)
    keep = jnp.linalg.solve(curvature, problem.cost)
    aim = jnp.linalg.solve(curvature, forecast)
    holding = problem.cost - problem.cost @ keep
    factor = forecast.T @ aim + kept * persistence.T @ value.factor @ persistence
    before = Value(
        holding=0.5 * (holding + holding.T),  # rounding would otherwise let the asymmetric part grow
        cross=problem.cost @ aim,
        factor=0.5 * (factor + factor.T),
        constant=kept * (value.constant + 0.5 * jnp.sum(value.factor * problem.innovation)),
    )
    return before, Rule(keep=keep, aim=aim)


def finite_horizon(problem: TradingProblem, num_periods: int) -> tuple[Value, Rule]:
    """Exact solution over ``num_periods`` (static): value at the start, rules ``[num_periods, ...]`` in time order."""

    def body(value: Value, _: None) -> tuple[Value, Rule]:
        return backward_step(problem, value)

    return jax.lax.scan(body, vary_like(zero_value(problem), problem), None, length=num_periods, reverse=True)


def infinite_horizon(problem: TradingProblem, tolerance: float = 1e-6, limit: int = 5000) -> tuple[Value, Rule]:
    """Iterates :func:`backward_step` until neither rule nor ``A, G, C`` move by more than ``tolerance``.

    Undiscounted, the mean reward a period of the stationary rule is ``1/2 tr(C Omega)``; ``constant`` then holds the
    sum over the iterations made and has no limit.
    """
    start = vary_like(zero_value(problem), problem)

    def unsettled(carry: tuple[Value, Rule, chex.Array, chex.Array]) -> chex.Array:
        *_, gap, count = carry
        return (gap > tolerance) & (count < limit)

    def body(carry: tuple[Value, Rule, chex.Array, chex.Array]) -> tuple[Value, Rule, chex.Array, chex.Array]:
        value, rule, _, count = carry
        after, following = backward_step(problem, value)
        new = (after.holding, after.cross, after.factor, following.keep, following.aim)
        old = (value.holding, value.cross, value.factor, rule.keep, rule.aim)
        gap = jnp.max(jnp.stack([jnp.max(jnp.abs(a - b)) for a, b in zip(new, old, strict=True)]))
        return after, following, gap, count + 1

    rule = Rule(keep=jnp.zeros_like(problem.covariance), aim=jnp.zeros_like(problem.loadings))
    gap = jnp.full((), jnp.inf, problem.loadings.dtype)
    value, rule, _, _ = jax.lax.while_loop(
        unsettled, body, (start, vary_like(rule, problem), vary_like(gap, problem), jnp.int32(0))
    )
    return value, rule


def expected_value(value: Value, factor_covariance: chex.Array) -> chex.Array:
    """Expected value at the start from no holdings: ``1/2 tr(C S) + c`` with ``S [K, K]`` the covariance of ``f``."""
    return 0.5 * jnp.sum(value.factor * factor_covariance) + value.constant


def rounding_carry(curvature: chex.Array) -> chex.Array:
    """Strictly lower ``W [N, N]`` for rounding one coordinate after another.

    Having fixed the first i coordinates at ``target + error``, the minimiser of ``(x-target)' H (x-target)`` over the
    rest has ``x_i = target_i + sum_j<i W_ij error_j``: nearest-plane rounding (Babai, 1986). ``curvature`` is H up to a
    positive factor.
    """
    lower = jnp.linalg.cholesky(jnp.linalg.inv(curvature))
    unit = lower / jnp.diagonal(lower)[None, :]
    return jnp.eye(curvature.shape[-1], dtype=curvature.dtype) - jnp.linalg.inv(unit)
