"""Recursive least squares: what is known of linear coefficients after each noisy sum of them.

Of coefficients with a normal prior, mean m and covariance P, one observation y = x'c + noise of variance s leaves

    g = P x / (s + x'Px),    m <- m + g (y - x'm),    P <- P - g (P x)'.

Source: the Kalman filter of constant coefficients (textbook knowledge, recalled).
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp


class Belief(NamedTuple):
    """Of n coefficients: ``mean f32[n]`` and ``covariance f32[n, n]``."""

    mean: chex.Array
    covariance: chex.Array


def observed(belief: Belief, x: chex.Array, y: chex.Numeric, noise: chex.Numeric, valid: chex.Array) -> Belief:
    """The belief after ``y = x'c`` with noise of a variance, unchanged where the observation is not ``valid``.

    Args:
      belief: before.
      x: ``f32[n]``.
      y: ``f32[]``.
      noise: its variance, above 0.
      valid: ``bool[]``.
    """
    known = belief.covariance @ x
    gain = jnp.where(valid, known / (noise + x @ known), 0.0)
    return Belief(belief.mean + gain * (y - x @ belief.mean), belief.covariance - gain[:, None] * known[None, :])
