"""Counts by inversion of uniforms, once for all NumPy models; written apart from :mod:`envs_jax.sampling` on purpose.

Single draws are in float64 for loop models, arrays of draws keep the precision of their arguments for batch models.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtr, pdtr


def poisson(uniform: float, mean: float, most: int) -> int:
    """The least k with ``P(K <= k) >= uniform`` for a Poisson K of this mean, no more than ``most``."""
    k, mass = 0, math.exp(-mean)
    below = mass
    while uniform > below and k < most:
        k += 1
        mass *= mean / k
        below += mass
    return k


def binomial(uniform: float, trials: int, probability: float) -> int:
    """The least k with ``P(K <= k) >= uniform`` for the successes K among ``trials``."""
    below = 0.0
    for k in range(trials):
        below += math.comb(trials, k) * probability**k * (1.0 - probability) ** (trials - k)
        if uniform <= below:
            return k
    return trials


def poisson_counts(uniforms: np.ndarray, means: np.ndarray, most: int) -> np.ndarray:
    """:func:`poisson` elementwise, ``i32`` of the common shape; as many passes as the largest count drawn."""
    count = np.zeros(means.shape, np.int32)
    mass = np.exp(-means)
    below = mass.copy()
    for k in range(1, most + 1):
        more = uniforms > below
        if not more.any():
            break
        count += more
        mass *= means / np.float32(k)
        below += mass
    return count


def binomial_counts(uniforms: np.ndarray, trials: np.ndarray, log_failure: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """:func:`binomial` elementwise, of the shape and type of ``trials``; as many passes as the largest count drawn.

    Args:
      uniforms: the draws.
      trials: integers.
      log_failure: ``log(1 - p)`` of each trial's probability p.
      odds: ``p / (1 - p)``.
    """
    n = trials.astype(np.float32)
    mass = np.exp(n * log_failure)
    below, k, count = mass.copy(), 0, np.zeros_like(trials)
    while (more := (uniforms > below) & (trials > k)).any():
        count += more
        mass *= odds * ((n - k) / (k + 1))
        below += mass
        k += 1
    return count


def poisson_cdf(means: np.ndarray, size: int) -> np.ndarray:
    """``f64[..., size]``: ``P(K <= k)`` for k = 0 .. size - 1."""
    return pdtr(np.arange(size), np.asarray(means, float)[..., None])


def binomial_cdf(probability: np.ndarray, most_trials: int) -> np.ndarray:
    """``f64[..., most_trials + 1, most_trials]``: ``P(K <= k)`` by trials and k; 2, above any uniform, where sure."""
    p = np.asarray(probability, float)[..., None, None]
    n, k = np.arange(most_trials + 1)[:, None], np.arange(most_trials)
    return np.where(k >= n, 2.0, bdtr(np.minimum(k, n), n, p))
