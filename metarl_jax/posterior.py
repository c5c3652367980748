"""Bayesian linear regression in closed form, from sums over rows alone.

    y = x'w + e,    e ~ N(0, s^2),    w ~ N(m, rho s^2 diag(precision)^-1),    s^2 ~ scaled Inv-chi^2(nu, 1)

(Gelman 2013, ch. 14). The posterior of w given s is Gaussian. The ratio rho of prior to noise variance is that of
largest evidence on a grid (type-II maximum likelihood, MacKay 1992): one eigendecomposition gives the evidence at all
of them, and the inverse at the best. The eigendecomposition itself is not differentiated, because the derivative of
eigenvectors does not exist where eigenvalues are equal, as all those are that no row has touched.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

RATIOS = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 5))
"""Grid of rho, 17 points, for features and outcomes of order one."""

PRIOR_ROWS = 1.0
"""nu: the prior of the noise variance counts for so many rows of unit variance."""

TYPICAL, DECADES = 1e-2, 2.0
"""Log-normal prior of rho, so wide that it decides only where there are no rows: centre and standard deviation."""


@struct.dataclass
class Moments:
    """Sums over the rows of a regression with M outcomes. Sums of disjoint sets of rows add up.

    Attributes:
      gram: ``f32[D, D]`` x x'.
      cross: ``f32[D, M]`` x y'.
      outer: ``f32[M, M]`` y y'.
      count: ``f32[]`` rows.
    """

    gram: chex.Array
    cross: chex.Array
    outer: chex.Array
    count: chex.Array

    @classmethod
    def of(cls, x: chex.Array, y: chex.Array, weight: chex.Array) -> Moments:
        """Of rows ``x f32[n, D]``, ``y f32[n, M]`` where ``weight f32[n]`` is 1, not where it is 0."""
        x, y = x * weight[:, None], y * weight[:, None]
        return cls(x.T @ x, x.T @ y, y.T @ y, weight.sum())

    def mixed(self, weights: chex.Array) -> Moments:
        """With the one outcome ``sum_k weights_k y_k``; ``weights f32[M]``."""
        return self.replace(cross=(self.cross @ weights)[:, None], outer=(weights @ self.outer @ weights)[None, None])


@struct.dataclass
class Posterior:
    """Of the weights w.

    Attributes:
      mean: ``f32[D]``.
      covariance: ``f32[D, D]``.
      noise: ``f32[]`` scale of e.
      log_ratio: ``f32[]`` natural logarithm of the chosen rho.
    """

    mean: chex.Array
    covariance: chex.Array
    noise: chex.Array
    log_ratio: chex.Array


class _Spectrum(NamedTuple):
    values: chex.Array  # [D]
    vectors: chex.Array  # [D, D], columns
    projected: chex.Array  # [D, M]


@jax.custom_batching.sequential_vmap
def _eigh(gram: chex.Array) -> tuple[chex.Array, chex.Array]:
    """One matrix after another, also inside ``vmap``.

    On CPU a batch is split over XLA's pool of threads by a call that itself holds one of them until all is done: as
    many such calls side by side as there are cores wait for each other forever (jaxlib 0.10, ``ParallelBatchMap``).
    """
    values, vectors = jnp.linalg.eigh(gram)
    return values, vectors


def _spectrum(gram: chex.Array, cross: chex.Array) -> _Spectrum:
    values, vectors = _eigh(gram)
    return _Spectrum(jnp.maximum(values, 0.0), vectors, vectors.T @ cross)


def _log_evidence(spectrum: _Spectrum, squares: chex.Array, count: chex.Array, ratios: chex.Array) -> chex.Array:
    grown = 1.0 + ratios[:, None] * spectrum.values  # [J, D]
    explained = (ratios[:, None] / grown) @ jnp.square(spectrum.projected)  # [J, M]
    left = PRIOR_ROWS + jnp.maximum(squares - explained, 0.0)
    return -0.5 * jnp.log(grown).sum(-1)[:, None] - 0.5 * (PRIOR_ROWS + count) * jnp.log(left)


def log_evidence(moments: Moments, ratios: chex.Array) -> chex.Array:
    """Logarithm ``f32[J, M]`` of each outcome's density at each rho, up to a constant; m = 0, precisions 1.

    ``log p(y) = -log|I + rho X X'| / 2 - (nu + n) log(nu + y'(I + rho X X')^-1 y) / 2 + const.``: a multivariate t.

    Args:
      moments: of the rows.
      ratios: ``f32[J]``.
    """
    spectrum = _spectrum(moments.gram, moments.cross)
    return _log_evidence(spectrum, jnp.diag(moments.outer), moments.count, ratios)


def _chosen(spectrum: _Spectrum, squares: chex.Array, count: chex.Array, ratios: chex.Array) -> chex.Array:
    """Ratios ``f32[M]`` of largest evidence times prior."""
    prior = -0.5 * jnp.square(jnp.log10(ratios / TYPICAL) / DECADES)
    return ratios[jnp.argmax(_log_evidence(spectrum, squares, count, ratios) + prior[:, None], axis=0)]


def ridge(moments: Moments) -> chex.Array:
    """Posterior means ``f32[D, M]``, each outcome with its own rho; m = 0, precisions 1. Not to be differentiated."""
    ratios = jnp.asarray(RATIOS, jnp.float32)
    spectrum = _spectrum(moments.gram, moments.cross)
    ratio = _chosen(spectrum, jnp.diag(moments.outer), moments.count, ratios)
    return spectrum.vectors @ (spectrum.projected * ratio / (1.0 + ratio * spectrum.values[:, None]))


def posterior(moments: Moments, precision: chex.Array, prior_mean: chex.Array) -> Posterior:
    """The posterior of a regression with one outcome; differentiable, rho held where the evidence puts it.

    Without rows it is the prior.

    Args:
      moments: of the rows, M = 1.
      precision: ``f32[D]`` positive.
      prior_mean: ``f32[D]`` m.
    """
    chex.assert_axis_dimension(moments.cross, -1, 1)
    ratios = jnp.asarray(RATIOS, jnp.float32)
    scale = jax.lax.rsqrt(precision)
    gram = moments.gram * scale * scale[:, None]
    shift = moments.gram @ prior_mean
    cross = scale * (moments.cross[:, 0] - shift)
    square = moments.outer[0, 0] - 2.0 * prior_mean @ moments.cross[:, 0] + prior_mean @ shift
    spectrum = _spectrum(*jax.lax.stop_gradient((gram, cross[:, None])))
    ratio = _chosen(spectrum, jax.lax.stop_gradient(square)[None], moments.count, ratios)[0]
    inverse = (spectrum.vectors / (spectrum.values + 1.0 / ratio)) @ spectrum.vectors.T
    # A Newton step for the inverse of A, 2 B - B A B: where B is that inverse, its derivative is that of the inverse.
    inverse = 2.0 * inverse - inverse @ (gram + jnp.eye(len(gram)) / ratio) @ inverse
    solved = inverse @ cross
    left = PRIOR_ROWS + jnp.maximum(square - cross @ solved, 0.0)
    variance = left / (PRIOR_ROWS + moments.count)
    covariance = variance * inverse * scale * scale[:, None]
    return Posterior(prior_mean + scale * solved, covariance, jnp.sqrt(variance), jnp.log(ratio))


def expected_log_loss(belief: Posterior, moments: Moments) -> chex.Array:
    """Mean over rows of ``-E log N(y | x'w, s^2)``, w by the posterior, s its noise, up to a constant; 0 of no rows.

    Args:
      belief: from other rows of the same task.
      moments: of the rows that are predicted, M = 1.
    """
    mean, square = belief.mean, moments.outer[0, 0]
    missed = square - 2.0 * mean @ moments.cross[:, 0] + mean @ moments.gram @ mean
    spread = jnp.sum(belief.covariance * moments.gram)
    count = jnp.maximum(moments.count, 1.0)
    lost = jnp.log(belief.noise) + 0.5 * (missed + spread) / (count * jnp.square(belief.noise))
    return jnp.where(moments.count > 0, lost, 0.0)
