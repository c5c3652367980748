"""Allocations that people make without a solver: fast, feasible, and not optimal.

All take an instance of :mod:`envs_jax.allocation.transport` with any leading batch axes and return allocations
``f32[..., n, m]`` [MW] that meet demand and keep supplies, if supplies cover demand. Ties go to the first.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from envs_jax.allocation.transport import Transport


def _batched(rule: Callable[[Transport], chex.Array]) -> Callable[[Transport], chex.Array]:
    """A rule for one instance as one for a batch."""

    def of(problem: Transport) -> chex.Array:
        batch = problem.cost.shape[:-2]
        flat = Transport(*(leaf.reshape(-1, *leaf.shape[len(batch) :]) for leaf in problem))
        return jax.vmap(rule)(flat).reshape(problem.cost.shape)

    return of


def _fill(problem: Transport, cells: chex.Array) -> chex.Array:
    """Gives each of ``cells i32[n m]`` in turn what its demand still needs and its plant still has."""
    n, m = problem.cost.shape

    def give(left: tuple[chex.Array, chex.Array], cell: chex.Array) -> tuple[tuple[chex.Array, chex.Array], chex.Array]:
        demand, supply = left
        i, j = cell // m, cell % m
        amount = jnp.minimum(demand[i], supply[j])
        return (demand.at[i].add(-amount), supply.at[j].add(-amount)), amount

    _, amounts = jax.lax.scan(give, (problem.demand, problem.supply), cells)
    return jnp.zeros(n * m).at[cells].set(amounts).reshape(n, m)


def least_cost(problem: Transport) -> chex.Array:
    """The cheapest pair of demand and plant first, as much as goes, then the next (Dantzig's matrix minimum)."""
    return _batched(lambda one: _fill(one, jnp.argsort(one.cost.ravel(), stable=True)))(problem)


def row_by_row(problem: Transport) -> chex.Array:
    """Demands in their order, each from the cheapest plants that have something left."""

    def rule(one: Transport) -> chex.Array:
        n, m = one.cost.shape
        return _fill(one, (jnp.argsort(one.cost, axis=1, stable=True) + m * jnp.arange(n)[:, None]).ravel())

    return _batched(rule)(problem)


def proportional(problem: Transport) -> chex.Array:
    """Every plant gives every demand its share of the supply: ``d_i s_j / S``."""
    total = jnp.sum(problem.supply, axis=-1, keepdims=True)
    share = problem.supply / jnp.maximum(total, 1e-30)
    return problem.demand[..., :, None] * share[..., None, :]


def regret(problem: Transport) -> chex.Array:
    """The demand first that would lose most by its second cheapest plant, as much as goes; then anew (Vogel's rule)."""

    def rule(one: Transport) -> chex.Array:
        n, m = one.cost.shape

        def give(
            left: tuple[chex.Array, chex.Array, chex.Array], _: None
        ) -> tuple[tuple[chex.Array, chex.Array, chex.Array], None]:
            demand, supply, x = left
            open_cost = jnp.where((supply > 0)[None], one.cost, jnp.inf)
            best = jnp.argmin(open_cost, axis=1)
            cheapest = jnp.min(open_cost, axis=1)
            second = jnp.min(jnp.where(jnp.arange(m)[None] == best[:, None], jnp.inf, open_cost), axis=1)
            # With one plant left there is no second, and the order is of no matter.
            lost = jnp.where(jnp.isfinite(second), second - cheapest, jnp.finfo(jnp.float32).max)
            i = jnp.argmax(jnp.where((demand > 0) & jnp.isfinite(cheapest), lost, -1.0))
            j = best[i]
            amount = jnp.minimum(demand[i], supply[j])
            return (demand.at[i].add(-amount), supply.at[j].add(-amount), x.at[i, j].add(amount)), None

        # Every turn ends a demand or a plant.
        start = (one.demand, one.supply, jnp.zeros_like(one.cost))
        (_, _, x), _ = jax.lax.scan(give, start, None, length=n + m)
        return x

    return _batched(rule)(problem)
