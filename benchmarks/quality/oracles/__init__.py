"""Upper bounds from oracles that see the noise, one file a domain.

Every file has functions ``(env, params, keys) -> f64[E]``: for one task and the keys of E episodes, a bound on the
return of each. They solve linear programmes with HiGHS, or search, too slow for jit: ``python -m
benchmarks.quality.bounds`` runs them on frozen tasks and stores what comes out. What chance brings in an episode is
drawn by the environment itself, from the very uniforms of the episode's key: :func:`unattended`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from envs_jax import sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv

Floats = NDArray[np.float64]


class Episode(NamedTuple):
    """Episodes in which nobody chooses anything, ``[E, P, ...]`` but for ``end``.

    Attributes:
      states: at the beginning of each period.
      uniforms: ``f32[E, P, num_uniforms]`` of each period.
      info: key figures of each period.
      end: the states ``[E, ...]`` after the last.
    """

    states: EnvState
    uniforms: chex.Array
    info: dict[str, chex.Array]
    end: EnvState


@functools.partial(jax.jit, static_argnames="env")
def unattended(env: ResourceEnv, params: EnvParams, keys: chex.PRNGKey) -> Episode:
    """Episodes ``keys[E]`` of one task in which no choice is ever recorded: what chance brings, brings it here too."""

    def one(key: chex.PRNGKey) -> Episode:
        def period(state: EnvState, time: chex.Array) -> tuple[EnvState, tuple[Any, ...]]:
            uniforms = sampling.uniforms(key, time, env.num_uniforms)
            after, _, info = env.advance(state, uniforms, params)
            return after.replace(time=state.time + env.num_turns), (state, uniforms, info)

        end, (states, uniforms, info) = jax.lax.scan(period, env.reset_env(key, params)[1], jnp.arange(env.num_periods))
        return Episode(states, uniforms, info, end)

    return jax.vmap(one)(keys)


def least(cost: Floats, **constraints: Any) -> Any:
    """``scipy.optimize.linprog`` with HiGHS: the solution of a linear programme that has one.

    Args:
      cost: what to minimise, a number a variable.
      **constraints: of ``linprog``.

    Raises:
      RuntimeError: if no optimum was found.
    """
    from scipy import optimize

    found = optimize.linprog(cost, method="highs", **constraints)
    if found.status != 0:
        raise RuntimeError(f"linear programme without an optimum: {found.message}")
    return found
