"""Laws of the same kind at other means: exponential tilting of a law of counts.

``q(k) = p(k) exp(theta k) / Z`` keeps the values that can occur and moves the mean, which rises with theta. Tilting a
Poisson law gives the Poisson laws, so a family around an observed law is to it what those of all means are to one.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.arrays import vary_like

_STEPS = 40
_STEEPEST = 200.0  # of theta, for counts as shares of the largest


def tilted(law: np.ndarray, mean: chex.Numeric) -> chex.Array:
    """The law ``f32[K]`` of mean ``mean`` in the family of ``law f64[K]``, by bisection.

    Args:
      law: probabilities of 0..K-1, at least two of them above 0.
      mean: ``f32[]`` strictly between the least and the largest count that can occur; what is beyond gives the law
        that is nearest.
    """
    with np.errstate(divide="ignore"):
        weight = jnp.asarray(np.log(law), jnp.float32)
    share = jnp.arange(len(law), dtype=jnp.float32) / max(len(law) - 1, 1)
    wanted = jnp.asarray(mean, jnp.float32) / max(len(law) - 1, 1)

    def halve(_: chex.Array, ends: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        below = jnp.sum(share * jax.nn.softmax(weight + middle * share)) < wanted
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    start = vary_like((jnp.float32(-_STEEPEST), jnp.float32(_STEEPEST)), wanted)
    low, high = jax.lax.fori_loop(jnp.int32(0), jnp.int32(_STEPS), halve, start)
    return jax.nn.softmax(weight + 0.5 * (low + high) * share)


def spread(law: np.ndarray, mean: float) -> float:
    """Standard deviation of :func:`tilted`, on the host in double precision."""
    share = np.arange(len(law)) / max(len(law) - 1, 1)
    low, high, tilt = -_STEEPEST, _STEEPEST, law
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        tilt = law * np.exp(middle * share - max(middle, 0.0))
        tilt = tilt / tilt.sum()
        low, high = (middle, high) if share @ tilt < mean / max(len(law) - 1, 1) else (low, middle)
    counts = np.arange(len(law))
    return float(np.sqrt(tilt @ (counts - tilt @ counts) ** 2))
