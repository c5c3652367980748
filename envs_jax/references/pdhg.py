"""Linear programs of a general form by a restarted primal-dual method, with a certified gap.

    min c.x   subject to   A x = b,  G x <= h,  l <= x <= u,

with l and u finite. A and G are operators: any function that is linear in x, so that structure need not be written out
as a matrix. For multipliers y of the equations and p >= 0 of the inequalities,

    q(y, p) = b.y - h.p + sum_k min over x_k in [l_k, u_k] of r_k x_k,     r = c - A' y + G' p,

is a lower bound for any y and p, because the box is bounded: no multiplier needs to be feasible.

The primal-dual hybrid gradient (Chambolle & Pock 2011) with Halpern's anchoring and reflection, restarted when the
fixed-point residual has fallen to a fifth since the last restart (Lu & Yang 2024, "restarted Halpern PDHG", recalled);
at a restart the primal weight moves towards the ratio of how far dual and primal have travelled (PDLP, Applegate 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from envs_jax.allocation.transport import Transport

Operator = Callable[[chex.Array], chex.Array]


class Program(NamedTuple):
    """A linear program over ``x f32[N]``; all but the operators are arrays.

    Attributes:
      cost: ``f32[N]``.
      equal: x -> ``A x f32[E]``, linear.
      right: ``f32[E]`` b.
      below: x -> ``G x f32[I]``, linear.
      limit: ``f32[I]`` h.
      low: ``f32[N]`` l, finite.
      high: ``f32[N]`` u, finite.
    """

    cost: chex.Array
    equal: Operator
    right: chex.Array
    below: Operator
    limit: chex.Array
    low: chex.Array
    high: chex.Array


class Answer(NamedTuple):
    """What the method found.

    Attributes:
      x: ``f32[N]`` within its box; it misses rows by ``residual``.
      equal_price: ``f32[E]`` y.
      below_price: ``f32[I]`` p, at least 0.
      cost: ``f32[]`` ``c.x``.
      bound: ``f32[]`` the best lower bound met, which holds whatever x is.
      residual: ``f32[]`` largest miss of a row, in units of the right-hand sides.
      iterations: ``i32[]``.
    """

    x: chex.Array
    equal_price: chex.Array
    below_price: chex.Array
    cost: chex.Array
    bound: chex.Array
    residual: chex.Array
    iterations: chex.Array


class _State(NamedTuple):
    x: chex.Array
    dual: chex.Array
    anchor_x: chex.Array
    anchor_dual: chex.Array
    since: chex.Array
    first: chex.Array  # residual at the last restart
    weight: chex.Array
    best: chex.Array
    best_dual: chex.Array
    iteration: chex.Array
    done: chex.Array


def transport_program(problem: Transport) -> Program:
    """One instance of the transportation problem in the general form: ``x f32[n m]``."""
    n, m = problem.cost.shape
    most = jnp.minimum(problem.demand[:, None], problem.supply[None])
    return Program(
        problem.cost.ravel(),
        lambda x: x.reshape(n, m).sum(1),
        problem.demand,
        lambda x: x.reshape(n, m).sum(0),
        problem.supply,
        jnp.zeros(n * m),
        most.ravel(),
    )


def solve(
    program: Program,
    start: tuple[chex.Array, chex.Array, chex.Array] | None = None,
    *,
    tolerance: float = 1e-4,
    iterations: int = 4000,
    every: int = 40,
) -> Answer:
    """Solves one program; pure, may be jitted and vmapped; float32.

    A start, from last period or from a network, changes how long it takes and never what it converges to: the method
    is the same from anywhere, and a start that is not finite is replaced by zeros.

    Args:
      program: what to solve.
      start: x, y and p to begin with; None begins at zero within the box.
      tolerance: relative, of the rows' residual and of ``c.x`` less bound.
      iterations: at most.
      every: iterations between two looks at restart and end.

    Returns:
      :class:`Answer`. It failed where ``iterations`` is the most allowed and cost, bound and residual are not within
      the tolerance; the bound holds all the same.
    """
    rows = program.right.shape[0]
    scale_c = jnp.maximum(jnp.max(jnp.abs(program.cost)), 1e-30)
    right = jnp.concatenate([program.right, program.limit])
    scale_b = jnp.maximum(jnp.max(jnp.abs(right)), 1e-30)
    c, b = program.cost / scale_c, right / scale_b
    low, high = program.low / scale_b, program.high / scale_b

    def forward(x: chex.Array) -> chex.Array:
        return jnp.concatenate([program.equal(x), program.below(x)])

    transpose = jax.linear_transpose(forward, jnp.zeros_like(c))

    def backward(dual: chex.Array) -> chex.Array:
        (found,) = transpose(dual)
        return found

    signed = jnp.arange(b.shape[0]) >= rows

    def power(_: chex.Array, x: chex.Array) -> chex.Array:
        y = backward(forward(x))
        return y / jnp.maximum(jnp.linalg.norm(y), 1e-30)

    begin = jnp.ones_like(c) + 0.1 * jnp.cos(jnp.arange(c.shape[0], dtype=c.dtype))
    vector = jax.lax.fori_loop(0, 30, power, begin)
    norm = 1.05 * jnp.sqrt(jnp.linalg.norm(backward(forward(vector))) / jnp.maximum(jnp.linalg.norm(vector), 1e-30))
    pace = 1.0 / jnp.maximum(norm, 1e-30)

    # dual: of "b - K x >= 0" with sign: multipliers of inequalities are p >= 0, of equations -y.
    def step(x: chex.Array, dual: chex.Array, weight: chex.Array) -> tuple[chex.Array, chex.Array]:
        new = jnp.clip(x - pace / weight * (c + backward(dual)), low, high)
        moved = dual + pace * weight * (forward(2.0 * new - x) - b)
        return new, jnp.where(signed, jnp.maximum(moved, 0.0), moved)

    def bound_of(dual: chex.Array) -> chex.Array:
        reduced = c + backward(dual)
        return jnp.sum(jnp.minimum(reduced * low, reduced * high)) - jnp.sum(b * dual)

    def miss(x: chex.Array) -> chex.Array:
        off = forward(x) - b
        return jnp.max(jnp.where(signed, jnp.maximum(off, 0.0), jnp.abs(off)), initial=0.0)

    def distance(x: chex.Array, dual: chex.Array, weight: chex.Array) -> chex.Array:
        return jnp.sqrt(weight * jnp.sum(jnp.square(x)) + jnp.sum(jnp.square(dual)) / weight)

    def some(state: _State) -> _State:
        def one(_: chex.Array, now: tuple[chex.Array, ...]) -> tuple[chex.Array, ...]:
            x, dual, since = now
            new_x, new_dual = step(x, dual, state.weight)
            share = (since + 1.0) / (since + 2.0)
            x = share * (2.0 * new_x - x) + (1.0 - share) * state.anchor_x
            dual = share * (2.0 * new_dual - dual) + (1.0 - share) * state.anchor_dual
            return x, dual, since + 1.0

        x, dual, since = jax.lax.fori_loop(0, every, one, (state.x, state.dual, state.since))
        new_x, new_dual = step(x, dual, state.weight)
        residual = distance(new_x - x, new_dual - dual, state.weight)
        value = bound_of(new_dual)
        better = value > state.best
        restart = (residual < 0.2 * state.first) | (since > 0.5 * (state.iteration + every) + every)
        far_x = jnp.linalg.norm(new_x - state.anchor_x)
        far_dual = jnp.linalg.norm(new_dual - state.anchor_dual)
        ratio = jnp.clip(far_dual / jnp.maximum(far_x, 1e-12), 1e-4, 1e4)
        moved = (far_x > 1e-10) & (far_dual > 1e-10)
        weight = jnp.where(restart & moved, jnp.sqrt(ratio * state.weight), state.weight)
        best = jnp.maximum(value, state.best)
        cost = jnp.sum(c * new_x)
        close = (miss(new_x) <= tolerance) & (jnp.abs(cost - best) <= tolerance * jnp.maximum(jnp.abs(cost), 1e-6))
        return _State(
            jnp.where(restart | close, new_x, x),
            jnp.where(restart | close, new_dual, dual),
            jnp.where(restart, new_x, state.anchor_x),
            jnp.where(restart, new_dual, state.anchor_dual),
            jnp.where(restart, 0.0, since),
            jnp.where(restart, residual, jnp.where(state.first == jnp.inf, residual, state.first)),
            weight,
            best,
            jnp.where(better, new_dual, state.best_dual),
            state.iteration + every,
            close,
        )

    if start is None:
        x, dual = jnp.clip(jnp.zeros_like(c), low, high), jnp.zeros_like(b)
    else:
        x = jnp.clip(jnp.nan_to_num(start[0] / scale_b), low, high)
        dual = jnp.nan_to_num(jnp.concatenate([-start[1], jnp.maximum(start[2], 0.0)]) / scale_c)
    weight = jnp.maximum(jnp.linalg.norm(c), 1e-12) / jnp.maximum(jnp.linalg.norm(b), 1e-12)
    zero, inf = jnp.float32(0.0), jnp.float32(jnp.inf)
    state = _State(x, dual, x, dual, zero, inf, weight, bound_of(dual), dual, jnp.int32(0), jnp.bool_(False))
    end = jax.lax.while_loop(lambda now: ~now.done & (now.iteration < iterations), some, state)
    x = jnp.clip(end.x, low, high)
    return Answer(
        x * scale_b,
        -end.best_dual[:rows] * scale_c,
        end.best_dual[rows:] * scale_c,
        jnp.sum(c * x) * scale_c * scale_b,
        end.best * scale_c * scale_b,
        miss(x),
        end.iteration,
    )
