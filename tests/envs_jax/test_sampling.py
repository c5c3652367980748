"""Draws by inversion: against scipy's distributions, and the uniforms they start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs_jax import sampling

GRID = (np.arange(1, 2**12, dtype=np.float64) / 2**12).astype(np.float32)
"""Exact in f32, so that both sides of a comparison invert the same number."""


@pytest.mark.parametrize("split", sampling.TASK_SPLITS)
def test_splits_of_tasks_lie_apart_and_stay_open_and_ordered(split):
    step = 2.0**-24
    uniform = jnp.concatenate([jnp.array([step, 0.5 - step, 0.5 + step, 1 - step]), jnp.linspace(0.01, 0.99, 99)])
    moved = np.asarray(sampling.stretched(uniform, split))
    inside, outside = (moved >= 0.1) & (moved <= 0.9), (moved <= 0.1) | (moved >= 0.9)
    expected = {"all": (False, False), "inside": (True, False), "outside": (False, True)}
    assert (inside.all(), outside.all()) == expected[split]
    assert np.isfinite(sampling.normal(moved)).all()
    assert (np.diff(moved[np.argsort(uniform)]) > 0).all()


def test_uniforms_are_a_function_of_key_and_index_alone():
    draw = jax.jit(sampling.uniforms, static_argnames="count")
    key, other = jax.random.key(3), jax.random.key(4)
    first = draw(key, 7, count=5)
    np.testing.assert_array_equal(first, draw(key, 7, count=5))
    np.testing.assert_array_equal(first, sampling.uniforms(key, jnp.int32(7), 5))
    batch = jax.vmap(lambda i: sampling.uniforms(key, i, 5))(jnp.arange(6, 9))
    np.testing.assert_array_equal(first, batch[1])
    for different in (draw(key, 8, count=5), draw(other, 7, count=5), draw(key, sampling.RESET_INDEX, count=5)):
        assert not np.intersect1d(first, different).size


def test_the_uniforms_of_a_key_are_those_that_they_always_were():
    # uniform(fold_in(key, index)) of threefry, half a step up: recorded at commit 5a3c370.
    recorded = [float.fromhex(x) for x in ("0x1.bf6de4p-2", "0x1.77b1acp-2", "0x1.9d3c6ap-1")]
    for key in (jax.random.key(3), jax.random.PRNGKey(3), jnp.array([0, 3], jnp.uint32)):
        np.testing.assert_array_equal(sampling.uniforms(key, 7, 3), recorded)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_other_generators_have_two_words_of_their_own(impl):
    one, other = (jax.random.key(seed, impl=impl) for seed in (0, 1))
    words = sampling.key_words(one)
    assert (words.shape, words.dtype) == ((2,), jnp.uint32)
    np.testing.assert_array_equal(words, sampling.key_words(one))
    assert (words != sampling.key_words(other)).any()
    np.testing.assert_array_equal(sampling.uniforms(one, 7, 3), sampling.uniforms(words, 7, 3))
    with jax.default_prng_impl(impl):
        np.testing.assert_array_equal(words, sampling.key_words(jax.random.PRNGKey(0)))
        assert len(np.unique(sampling.uniforms(words, 7, 3))) == 3


def test_tasks_resets_and_periods_have_indices_of_their_own():
    assert len({sampling.TASK_INDEX, sampling.RESET_INDEX}) == 2
    assert min(sampling.TASK_INDEX, sampling.RESET_INDEX) > 2**30


def test_tables_of_any_rank_broadcast_without_rank_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        rates = jnp.array([[1.0, 2.0], [3.0, 4.0]], jnp.float32)
        one = sampling.poisson_cdf(jnp.float32(4.0), 9)
        np.testing.assert_array_equal(sampling.poisson_cdf(rates, 9)[1, 1], one)
        drawn = sampling.categorical(jnp.full((2, 3), 0.4, jnp.float32), one)
        np.testing.assert_array_equal(drawn, np.full((2, 3), int(sampling.categorical(jnp.float32(0.4), one))))
        chance = jnp.array([[0.1, 0.5]], jnp.float32)
        table = sampling.binomial_cdf(jnp.array([[3], [5]], jnp.int32), chance, 6)
        np.testing.assert_array_equal(table[1, 1], sampling.binomial_cdf(5, 0.5, 6))


def test_uniforms_lie_strictly_inside_the_unit_interval():
    draws = np.asarray(sampling.uniforms(jax.random.key(0), 0, 2**20))
    assert draws.dtype == np.float32
    assert draws.min() > 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    # The ends of the grid the draws come from: the smallest and the largest value jax.random.uniform can return.
    ends = jnp.array([0.0, 1.0 - 2.0**-23], jnp.float32) + jnp.float32(2.0**-24)
    assert (np.asarray(ends) > 0).all()
    assert (np.asarray(ends) < 1).all()
    assert np.isfinite(sampling.normal(ends)).all()


def test_normal_is_the_quantile_function():
    np.testing.assert_allclose(sampling.normal(GRID), stats.norm.ppf(GRID.astype(np.float64)), rtol=2e-6, atol=2e-6)
    tail = np.float32(2.0**-24)
    np.testing.assert_allclose(sampling.normal(tail), stats.norm.ppf(float(tail)), rtol=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.3, 5.0, 15.0])
def test_poisson_table(rate):
    size = 40
    table = np.asarray(sampling.poisson_cdf(rate, size), np.float64)
    np.testing.assert_allclose(table, stats.poisson.cdf(np.arange(size), rate), atol=2e-6)
    draws = np.asarray(sampling.categorical(GRID, jnp.asarray(table, jnp.float32)))
    expected = stats.poisson.ppf(GRID.astype(np.float64), rate)
    # Where a grid point falls within rounding of a step of the distribution function either side of it is right.
    differs = draws != expected
    assert differs.mean() < 2e-3
    np.testing.assert_allclose(stats.poisson.cdf(draws[differs], rate), GRID[differs], atol=2e-5)


def test_poisson_tail_beyond_the_table_is_what_the_docstring_says():
    assert stats.poisson.sf(39, 15.0) == pytest.approx(6.5e-8, rel=0.1)
    assert int(sampling.categorical(jnp.float32(1.0), sampling.poisson_cdf(15.0, 40))) == 39


def test_poisson_table_batches_over_rates():
    rates = jnp.array([0.0, 1.0, 9.0])
    whole = sampling.poisson_cdf(rates, 16)
    assert whole.shape == (3, 16)
    for row, rate in zip(whole, rates, strict=True):
        np.testing.assert_allclose(row, sampling.poisson_cdf(rate, 16), atol=1e-7)


@pytest.mark.parametrize(("trials", "probability"), [(12, 0.3), (7, 0.0), (7, 1.0), (0, 0.4)])
def test_binomial_table(trials, probability):
    size = 16
    table = sampling.binomial_cdf(trials, probability, size)
    np.testing.assert_allclose(table, stats.binom.cdf(np.arange(size), trials, probability), atol=2e-6)
    draws = np.asarray(sampling.categorical(GRID, table))
    assert draws.max() <= trials
    assert draws.mean() == pytest.approx(trials * probability, abs=0.02)


def assert_quantiles(draws, law, tolerance):
    """``draws`` at ``GRID`` are the quantiles of scipy's ``law``, but for steps within rounding of a grid point."""
    uniform = GRID.astype(np.float64)
    # A count k is the quantile of u if cdf(k-1) < u <= cdf(k).
    assert (law.cdf(draws) >= uniform - tolerance).all()
    assert (law.cdf(draws - 1) < uniform + tolerance).all()
    assert (draws != law.ppf(uniform)).mean() < 5e-3


def assert_distributed(draws, law):
    """Chi-square of independent ``draws`` against ``law``, its tails pooled to at least 10 expected draws."""
    low, high = (int(law.ppf(10 / len(draws))), int(law.isf(10 / len(draws))))
    values = np.arange(low, high + 1)
    expected = law.pmf(values)
    expected[0], expected[-1] = law.cdf(low), law.sf(high - 1)
    observed = np.bincount(np.clip(draws, low, high) - low, minlength=len(values))
    assert stats.chisquare(observed, expected * len(draws)).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.3, 5.0, 30.0, 80.0])
def test_poisson_draws_are_quantiles(rate):
    draws = np.asarray(sampling.poisson(jnp.asarray(GRID), jnp.float32(rate), 160))
    assert draws.dtype == np.int32
    assert (np.diff(draws) >= 0).all()
    assert_quantiles(draws, stats.poisson(float(np.float32(rate))), 2e-5)


def test_poisson_draws_follow_the_law():
    uniform = sampling.uniforms(jax.random.key(5), 0, 2**16)
    assert_distributed(np.asarray(sampling.poisson(uniform, jnp.float32(6.5), 64)), stats.poisson(6.5))


def test_poisson_draws_broadcast_rise_with_the_rate_and_stop_at_the_last():
    rates = jnp.linspace(0.0, 20.0, 81)
    draws = np.asarray(sampling.poisson(jnp.asarray(GRID)[::64, None], rates, 96))
    assert draws.shape == (len(GRID[::64]), 81)
    assert (draws[:, 0] == 0).all()
    assert (np.diff(draws, axis=1) >= 0).all()
    top = jnp.float32(1.0 - 2.0**-24)
    assert int(sampling.poisson(top, jnp.float32(30.0), 8)) == 7
    # Beyond float32's range, as the docstring says: exp(-110) is 0.
    assert int(sampling.poisson(jnp.float32(0.5), jnp.float32(110.0), 200)) == 199


@pytest.mark.parametrize(("trials", "probability"), [(1, 0.25), (12, 0.3), (24, 0.02), (24, 0.95), (60, 0.5)])
def test_binomial_draws_are_quantiles(trials, probability):
    draws = np.asarray(sampling.binomial(jnp.asarray(GRID), jnp.int32(trials), jnp.float32(probability), trials))
    assert draws.dtype == np.int32
    assert (np.diff(draws) >= 0).all()
    assert_quantiles(draws, stats.binom(trials, float(np.float32(probability))), 2e-5)
    larger = sampling.binomial(jnp.asarray(GRID), jnp.int32(trials), jnp.float32(probability), trials + 9)
    np.testing.assert_array_equal(draws, larger)  # ``size`` is a bound, not a parameter of the law


def test_binomial_draws_follow_the_law():
    uniform = sampling.uniforms(jax.random.key(6), 0, 2**16)
    draws = sampling.binomial(uniform, jnp.full(uniform.shape, 20), jnp.float32(0.35), 24)
    assert_distributed(np.asarray(draws), stats.binom(20, 0.35))


def test_binomial_draws_at_the_edges():
    ends = jnp.array([2.0**-24, 0.5, 1.0 - 2.0**-24], jnp.float32)
    trials = jnp.arange(0, 31)

    def draw(uniform, probability):
        return np.asarray(sampling.binomial(uniform, trials, jnp.float32(probability), 30))

    for uniform in ends:
        np.testing.assert_array_equal(draw(uniform, 0.0), np.zeros(31))
    for uniform in ends[1:]:
        np.testing.assert_array_equal(draw(uniform, 1.0), trials)
    # A sure trial counts as one of probability 1 - 2^-20: below that share of the uniforms a single one fails.
    np.testing.assert_array_equal(draw(jnp.float32(2.0**-21), 1.0)[:2], [0, 0])
    assert draw(jnp.float32(2.0**-19), 1.0)[1] == 1
    # Beyond float32's range, as the docstring says: 1e-3 ** 30 is 0, and all succeed where the quantile is 27.
    assert stats.binom.ppf(2.0**-24, 30, 0.999) == 27
    assert draw(ends[0], 0.999)[30] == 30


def test_binomial_draws_rise_with_trials_and_probability():
    uniform = jnp.asarray(GRID)[::64, None]
    by_trials = sampling.binomial(uniform, jnp.arange(0, 25)[None], jnp.float32(0.4), 24)
    by_chance = sampling.binomial(uniform, jnp.full((1, 41), 24), jnp.linspace(0.0, 0.99, 41), 24)
    assert (np.diff(by_trials, axis=1) >= 0).all()
    assert (np.diff(by_chance, axis=1) >= 0).all()


def test_categorical_counts_the_entries_below_and_stops_at_the_last():
    cdf = jnp.array([0.25, 0.25, 0.75, 0.999])
    u = jnp.array([0.1, 0.25, 0.2500001, 0.75, 0.8, 0.9999])
    np.testing.assert_array_equal(sampling.categorical(u, cdf), [0, 0, 2, 2, 3, 3])
    batched = sampling.categorical(jnp.array([0.5, 0.5]), jnp.array([[0.4, 1.0], [0.6, 1.0]]))
    np.testing.assert_array_equal(batched, [1, 0])


def test_integers_are_uniform_and_inclusive():
    low, high = jnp.array([-2, 5]), jnp.array([3, 5])
    draws = np.asarray(jax.vmap(lambda u: sampling.integers(u, low, high))(jnp.asarray(GRID)))
    assert draws.dtype == np.int32
    values, counts = np.unique(draws[:, 0], return_counts=True)
    np.testing.assert_array_equal(values, np.arange(-2, 4))
    assert np.ptp(counts) <= 1
    assert (draws[:, 1] == 5).all()
    # A uniform that rounds up to 1 still stays inside.
    assert int(sampling.integers(jnp.float32(1.0), 0, 9)) == 9


def test_ar1_keeps_its_stationary_deviation():
    u = sampling.uniforms(jax.random.key(1), 0, 2**16)
    x = 2.5 * sampling.normal(u[::2])
    phi = 0.8
    after = sampling.ar1(x, phi, 2.5 * np.sqrt(1 - phi**2), u[1::2])
    assert float(after.std()) == pytest.approx(2.5, rel=0.02)
    assert float(jnp.corrcoef(x, after)[0, 1]) == pytest.approx(phi, abs=0.01)
