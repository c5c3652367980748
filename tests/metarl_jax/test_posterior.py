"""The closed form of Bayesian regression against dense brute force in double precision."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax import posterior as module
from metarl_jax.posterior import (
    PRIOR_ROWS,
    RATIOS,
    Moments,
    Posterior,
    expected_log_loss,
    log_evidence,
    posterior,
    ridge,
)

ROWS, COLUMNS = 60, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, COLUMNS)) * np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.0])  # no row touches the last
WEIGHTS = np.array([0.3, -0.2, 0.1, 0.0, 0.0, 0.0])
Y = X @ WEIGHTS + RNG.normal(size=ROWS)
PRECISION = np.array([1.0, 2.0, 0.5, 4.0, 1.0, 3.0])
PRIOR_MEAN = np.array([0.1, 0.0, 0.0, -0.2, 0.0, 0.3])


def moments_of(x: np.ndarray, *outcomes: np.ndarray) -> Moments:
    rows = (jnp.asarray(leaf, jnp.float32) for leaf in (x, np.stack(outcomes, -1), np.ones(len(x))))
    return Moments.of(*rows)


@functools.cache
def posterior_of(rows: int) -> Posterior:
    found = moments_of(X[:rows], Y[:rows])
    return jax.jit(posterior)(found, jnp.asarray(PRECISION, jnp.float32), jnp.asarray(PRIOR_MEAN, jnp.float32))


def density(x: np.ndarray, y: np.ndarray, ratio: float) -> float:
    """Log evidence by the dense ``n x n`` covariance, up to a constant."""
    covariance = np.eye(len(y)) + ratio * x @ x.T
    _, size = np.linalg.slogdet(covariance)
    distance = y @ np.linalg.solve(covariance, y)
    return float(-0.5 * size - 0.5 * (PRIOR_ROWS + len(y)) * np.log(PRIOR_ROWS + distance))


def log_prior(ratio: float) -> float:
    return -0.5 * (np.log10(ratio / module.TYPICAL) / module.DECADES) ** 2


def test_evidence_is_the_density_of_the_outcomes() -> None:
    found = np.asarray(log_evidence(moments_of(X, Y, 3.0 * Y), jnp.asarray(RATIOS, jnp.float32)))
    for outcome, y in enumerate((Y, 3.0 * Y)):
        expected = [density(X, y, ratio) for ratio in RATIOS]
        np.testing.assert_allclose(found[:, outcome] - found[0, outcome], np.array(expected) - expected[0], atol=2e-3)


@pytest.mark.parametrize("rows", [3, 20, ROWS])
def test_posterior_is_that_of_a_dense_solve_at_the_best_ratio_of_the_grid(rows: int) -> None:
    x, y = X[:rows], Y[:rows]
    whitened, left = x / np.sqrt(PRECISION), y - x @ PRIOR_MEAN
    ratio = max(RATIOS, key=lambda ratio: density(whitened, left, ratio) + log_prior(ratio))
    inverse = np.linalg.inv(x.T @ x + np.diag(PRECISION) / ratio)
    mean = PRIOR_MEAN + inverse @ x.T @ left
    distance = left @ np.linalg.solve(np.eye(rows) + ratio * whitened @ whitened.T, left)
    variance = (PRIOR_ROWS + distance) / (PRIOR_ROWS + rows)
    found = posterior_of(rows)
    assert np.exp(found.log_ratio) == pytest.approx(ratio, rel=1e-4)
    np.testing.assert_allclose(found.mean, mean, atol=1e-4)
    np.testing.assert_allclose(found.covariance, variance * inverse, rtol=1e-3, atol=1e-5)
    assert found.noise**2 == pytest.approx(variance, rel=1e-4)


def test_without_rows_it_is_the_prior() -> None:
    found = posterior_of(0)
    np.testing.assert_allclose(found.mean, PRIOR_MEAN, atol=1e-6)
    np.testing.assert_allclose(found.covariance, np.diag(module.TYPICAL / PRECISION), rtol=1e-4, atol=1e-8)
    assert found.noise == pytest.approx(1.0)


def test_what_no_row_touches_keeps_its_prior_mean() -> None:
    assert posterior_of(ROWS).mean[-1] == pytest.approx(PRIOR_MEAN[-1])


def test_ridge_is_the_posterior_mean_of_each_outcome() -> None:
    other = X @ WEIGHTS[::-1] + 3.0 * RNG.normal(size=ROWS)
    found = jax.jit(ridge)(moments_of(X, Y, other))
    for outcome, y in enumerate((Y, other)):
        alone = jax.jit(posterior)(moments_of(X, y), jnp.ones(COLUMNS), jnp.zeros(COLUMNS))
        np.testing.assert_allclose(found[:, outcome], alone.mean, atol=1e-4)


def test_moments_add_up_and_mix() -> None:
    parts = [moments_of(X[:20], Y[:20], -(Y[:20] ** 2)), moments_of(X[20:], Y[20:], -(Y[20:] ** 2))]
    whole = moments_of(X, Y, -(Y**2))
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a + b, c, rtol=1e-4, atol=1e-3), *parts, whole)
    mixed, direct = whole.mixed(jnp.array([0.3, 0.7])), moments_of(X, 0.3 * Y - 0.7 * Y**2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), mixed, direct)


def test_log_loss_is_the_mean_over_draws_of_the_weights() -> None:
    belief, held_out = posterior_of(20), moments_of(X[20:], Y[20:])
    drawn = np.asarray(belief.mean) + RNG.multivariate_normal(np.zeros(COLUMNS), belief.covariance, 4000)
    errors = Y[20:] - drawn @ X[20:].T
    noise = float(belief.noise)
    each = np.log(noise) + 0.5 * np.mean(errors**2, -1) / noise**2
    assert float(expected_log_loss(belief, held_out)) == pytest.approx(each.mean(), abs=4 * each.std() / 4000**0.5)
    assert float(expected_log_loss(belief, moments_of(X[:0], Y[:0]))) == 0.0


def test_gradients_are_those_of_differences_and_finite_where_eigenvalues_are_equal() -> None:
    held_out, given = moments_of(X[20:], Y[20:]), moments_of(X[:20], Y[:20])

    @jax.jit
    def value(log_precision: jax.Array, prior_mean: jax.Array) -> tuple[jax.Array, jax.Array]:
        belief = posterior(given, jnp.exp(log_precision), prior_mean)
        return expected_log_loss(belief, held_out), belief.log_ratio

    at = jnp.asarray(np.log(PRECISION), jnp.float32), jnp.asarray(PRIOR_MEAN, jnp.float32)
    gradients = jax.jit(jax.grad(lambda *at: value(*at)[0], argnums=(0, 1)))(*at)
    assert all(np.isfinite(leaf).all() for leaf in gradients)
    step = 1e-2
    for argument, gradient in enumerate(gradients):
        for column in range(COLUMNS):
            ends = [list(at), list(at)]
            for end, sign in zip(ends, (1.0, -1.0), strict=True):
                end[argument] = end[argument].at[column].add(sign * step)
            (above, ratio), (below, same) = value(*ends[0]), value(*ends[1])
            assert ratio == same, "the grid is held"
            assert float(gradient[column]) == pytest.approx(float(above - below) / (2 * step), abs=2e-3)
    # Without rows all eigenvalues are equal.
    empty = jax.grad(lambda p: posterior(moments_of(X[:0], Y[:0]), jnp.exp(p), at[1]).covariance.sum())(at[0])
    assert np.isfinite(empty).all()


def test_a_batch_is_that_of_its_members() -> None:
    """The eigendecompositions run one by one, whatever is mapped and differentiated around them."""
    pair = jax.tree.map(lambda *leaves: jnp.stack(leaves), moments_of(X, Y), moments_of(X[:20], Y[:20]))
    at = jnp.asarray(PRECISION, jnp.float32), jnp.asarray(PRIOR_MEAN, jnp.float32)
    found = jax.jit(jax.vmap(posterior, in_axes=(0, None, None)))(pair, *at)
    for row, rows in enumerate((ROWS, 20)):
        jax.tree.map(lambda a, b, row=row: np.testing.assert_allclose(a[row], b, atol=1e-5), found, posterior_of(rows))

    def loss(precision: jax.Array) -> jax.Array:
        return jax.vmap(posterior, in_axes=(0, None, None))(pair, precision, at[1]).mean.sum()

    def alone(precision: jax.Array) -> jax.Array:
        return sum(posterior(moments_of(X[:n], Y[:n]), precision, at[1]).mean.sum() for n in (ROWS, 20))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(at[0]), jax.jit(jax.grad(alone))(at[0]), atol=1e-4)
    text = jax.jit(jax.vmap(ridge)).lower(pair).as_text()
    assert "syevd" in text or jax.default_backend() != "cpu"
    assert f"tensor<2x{COLUMNS}x{COLUMNS}xf32>) -> (tensor<2x{COLUMNS}x{COLUMNS}xf32>" not in text
