"""Hand-worked numbers, agreement with scipy, and the coverage of the intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from metarl_jax import statistics as s

# Student's (1908) sleep data: extra hours with two soporifics on ten patients; t = -4.0621, p = 0.002833.
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])

finite = st.floats(-1e3, 1e3, width=32)
vectors = hnp.arrays(np.float64, st.integers(1, 24), elements=finite)


def test_iqm_of_hand_worked_samples():
    assert s.interquartile_mean([7.0]) == 7.0
    assert s.interquartile_mean([1.0, 5.0]) == 3.0
    # n = 3: n/4 = .75 goes at each end, leaving weights .25, 1, .25 of 1.5.
    np.testing.assert_allclose(s.interquartile_mean([0.0, 3.0, 9.0]), (0.25 * 0 + 3 + 0.25 * 9) / 1.5)
    # n = 4: the middle two; an outlier does not matter, not even an infinite one.
    np.testing.assert_allclose(s.interquartile_mean([math.inf, 1.0, 2.0, -50.0]), 1.5)
    # n = 6: weights 0, .5, 1, 1, .5, 0.
    np.testing.assert_allclose(s.interquartile_mean([1.0, 2, 3, 5, 8, 100]), (1 + 3 + 5 + 4) / 3)


def test_iqm_keeps_other_axes_and_never_hides_nan():
    x = np.arange(24.0).reshape(2, 3, 4)
    assert s.interquartile_mean(x, axis=1).shape == (2, 4)
    np.testing.assert_allclose(s.interquartile_mean(x, axis=-1), x.mean(-1))
    np.testing.assert_array_equal(s.interquartile_mean([[1.0, 2, 3, math.nan], [1, 2, 3, 4]]), [math.nan, 2.5])
    with pytest.raises(ValueError, match="no values"):
        s.interquartile_mean([])


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 6).map(lambda k: 4 * k), st.integers(1, 3)), elements=finite))
def test_iqm_is_scipys_trimmed_mean_when_four_divides_n(x):
    np.testing.assert_allclose(s.interquartile_mean(x, axis=0), stats.trim_mean(x, 0.25, axis=0), atol=1e-9)


@given(vectors, st.floats(-10, 10), st.randoms(use_true_random=False))
def test_iqm_moves_with_the_data_and_ignores_their_order(x, shift, random):
    iqm = s.interquartile_mean(x)
    shuffled = np.array(random.sample(list(x), len(x)))
    assert s.interquartile_mean(shuffled) == iqm
    np.testing.assert_allclose(s.interquartile_mean(x + shift), iqm + shift, atol=1e-6)
    np.testing.assert_allclose(s.interquartile_mean(-x), -iqm, atol=1e-9)
    assert x.min() - 1e-9 <= iqm <= x.max() + 1e-9


def test_pooled_score_is_a_ratio_of_sums_and_is_not_clipped():
    # Headrooms 1, 3; gains 2, 1: pooled 3/4, where the mean of ratios would say 7/6.
    result = s.pooled_score([12.0, 6.0], [10.0, 5.0], [11.0, 8.0])
    assert (float(result.score), float(result.denominator), result.degenerate, result.tasks) == (0.75, 4.0, 0, 2)
    returns = np.array([[10.0, 5.0], [11.0, 8.0], [0.0, 0.0], [20.0, 20.0]])
    np.testing.assert_allclose(s.pooled_score(returns, [10.0, 5.0], [11.0, 8.0]).score, [0, 1, -15 / 4, 25 / 4])
    np.testing.assert_allclose(s.pooled_score(returns.T, [[10.0], [5.0]], [[11.0], [8.0]], axis=0).score[3], 25 / 4)


def test_degenerate_denominators_are_counted_not_hidden():
    # The second task's reference does not beat its floor by more than rounding; it stays in both sums.
    result = s.pooled_score([2.0, 9.0, 1.0], [1.0, 7.0, 0.0], [3.0, 7.0 + 1e-7, 0.0])
    assert (result.degenerate, result.tasks) == (2, 3)
    np.testing.assert_allclose(result.score, 4 / 2, rtol=1e-6)
    nothing = s.pooled_score([[1.0, 2.0], [5.0, 5.0]], [1.0, 2.0], [1.0, 2.0])
    assert np.isnan(nothing.score).all()
    assert (nothing.degenerate, nothing.tasks) == (2, 2)
    assert np.isnan(s.pooled_score([1.0], [1.0], [0.0]).score)  # a reference below the floor is no yardstick


def test_bootstrap_resamples_each_stratum_by_itself_and_repeats_exactly():
    # Constant strata cannot vary: were units drawn across strata, the interval would have width.
    fixed = s.stratified_bootstrap([np.zeros(3), np.full(5, 4.0)], resamples=200)
    assert fixed.low == fixed.high == fixed.estimate
    data = [np.arange(6.0), np.arange(4.0) ** 2]
    first = s.stratified_bootstrap(data, resamples=300, seed=1)
    assert first == s.stratified_bootstrap(data, resamples=300, seed=1)
    assert first != s.stratified_bootstrap(data, resamples=300, seed=2)
    np.testing.assert_allclose(first.estimate, s.interquartile_mean(np.concatenate(data)))
    assert first.low < first.estimate < first.high


def test_shared_units_keep_a_run_together_across_strata():
    run = np.array([0.0, 1.0, 2.0, 3.0])

    def gap(strata):
        return (strata[0] - strata[1]).mean(1)

    together = s.stratified_bootstrap([run, run - 1], gap, resamples=200, shared_units=True)
    assert (together.low, together.estimate, together.high) == (1.0, 1.0, 1.0)
    apart = s.stratified_bootstrap([run, run - 1], gap, resamples=200)
    assert apart.high - apart.low > 1.0


def test_undefined_resamples_are_counted_and_all_undefined_gives_nan():
    def log_of_mean(strata):
        mean = strata[0].mean(1)
        return np.log(mean, out=np.full_like(mean, np.nan), where=mean > 0)

    some = s.stratified_bootstrap([np.array([0.0, 1.0])], log_of_mean, resamples=400)
    assert 50 < some.degenerate < 150  # a quarter of the resamples is (0, 0)
    assert math.isfinite(some.low)
    none = s.stratified_bootstrap([np.zeros(3)], log_of_mean, resamples=50)
    assert math.isnan(none.low)
    assert none.degenerate == 50


def test_bootstrap_refuses_what_it_cannot_resample():
    with pytest.raises(ValueError, match="at least one unit"):
        s.stratified_bootstrap([np.zeros(3), np.zeros(0)])
    with pytest.raises(ValueError, match="one size"):
        s.stratified_bootstrap([np.zeros(3), np.zeros(2)], shared_units=True)
    with pytest.raises(ValueError, match="one value a resample"):
        s.stratified_bootstrap([np.zeros((3, 2))], lambda x: x[0].mean(1))
    with pytest.raises(ValueError, match="confidence"):
        s.stratified_bootstrap([np.zeros(3)], confidence=95)
    with pytest.raises(ValueError, match=r"\[seeds, tasks\]"):
        s.hierarchical_bootstrap(np.zeros(3), 0.0, 1.0)
    with pytest.raises(ValueError, match="baseline"):
        s.hierarchical_bootstrap(np.zeros((3, 2)), 0.0, 1.0, baseline=np.zeros((2, 2)))


def test_bootstrap_covers_the_mean_of_normal_draws():
    draws = np.random.default_rng(5).normal(3.0, 2.0, size=(600, 32))
    hits = 0
    for index, sample in enumerate(draws):
        interval = s.stratified_bootstrap([sample], lambda x: x[0].mean(1), resamples=400, seed=index)
        hits += interval.low <= 3.0 <= interval.high
    # Known: a percentile interval of 32 normals covers about 94 % (t quantile against normal, n-1 against n).
    assert 0.91 <= hits / len(draws) <= 0.97


def test_percentile_interval_of_a_large_sample_is_the_normal_interval():
    sample = np.random.default_rng(0).normal(size=400)
    interval = s.stratified_bootstrap([sample], lambda x: x[0].mean(1), resamples=4000)
    half = 1.96 * sample.std() / 20
    np.testing.assert_allclose([interval.low, interval.high], [sample.mean() - half, sample.mean() + half], atol=0.01)


def _seeds_by_tasks(rng, seeds, tasks, seed_sd, task_sd, noise_sd):
    cells = noise_sd * rng.normal(size=(seeds, tasks))
    return 1 + seed_sd * rng.normal(size=(seeds, 1)) + task_sd * rng.normal(size=(1, tasks)) + cells


@pytest.mark.parametrize("crossed", [True, False])
def test_hierarchical_interval_agrees_with_loops_over_indices(crossed):
    returns = _seeds_by_tasks(np.random.default_rng(0), 4, 6, 0.5, 1.0, 0.3)
    floor, reference = np.linspace(-1, 0, 6), np.linspace(1, 3, 6)
    fast = s.hierarchical_bootstrap(returns, floor, reference, resamples=20_000, crossed=crossed)
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(4000):
        columns = rng.integers(6, size=6)
        gain, headroom = 0.0, 0.0
        for row in rng.integers(4, size=4):
            if not crossed:
                columns = rng.integers(6, size=6)
            gain += (returns[row] - floor)[columns].sum()
            headroom += (reference - floor)[columns].sum()
        draws.append(gain / headroom)
    np.testing.assert_allclose([fast.low, fast.high], np.quantile(draws, [0.025, 0.975]), atol=0.03)
    pooled = s.pooled_score(returns.ravel(), np.tile(floor, 4), np.tile(reference, 4)).score
    np.testing.assert_allclose(fast.estimate, pooled, rtol=1e-12)


def test_hierarchical_interval_covers_where_seeds_share_the_tasks():
    rng = np.random.default_rng(2)
    hits = {True: 0, False: 0}
    for index in range(200):
        returns = _seeds_by_tasks(rng, 10, 24, 0.3, 1.0, 0.3)
        for crossed in hits:
            interval = s.hierarchical_bootstrap(returns, 0.0, 2.0, resamples=300, seed=index, crossed=crossed)
            hits[crossed] += interval.low <= 0.5 <= interval.high
    assert hits[True] >= 0.88 * 200
    # Why crossed is the default: tasks resampled within seeds take a shared hard task for noise.
    assert hits[False] <= 0.85 * 200


def test_paired_arms_meet_the_same_resamples():
    returns = _seeds_by_tasks(np.random.default_rng(0), 3, 48, 1.0, 1.0, 0.1)
    constant = s.hierarchical_bootstrap(returns + 0.5, 0.0, 2.0, baseline=returns)
    np.testing.assert_allclose([constant.low, constant.estimate, constant.high], 0.25)  # .5 of a headroom of 2
    alone = s.hierarchical_bootstrap(returns, 0.0, 2.0)
    assert alone.high - alone.low > 0.2
    assert alone == s.hierarchical_bootstrap(returns, 0.0, 2.0)


def test_hierarchical_bootstrap_counts_degenerate_denominators():
    # One of two tasks has all the headroom: a quarter of the resamples misses it.
    interval = s.hierarchical_bootstrap(np.ones((3, 2)), 0.0, [0.0, 2.0], resamples=1000)
    assert 200 < interval.degenerate < 300
    assert (interval.low, interval.estimate, interval.high) == (0.5, 1.0, 1.0)


def test_the_statistic_is_called_twice_not_once_a_resample():
    # Counting, not timing: the count is what keeps 2000 resamples of 3 seeds x 48 tasks at some ten milliseconds.
    calls = 0

    def counted(strata):
        nonlocal calls
        calls += 1
        return strata[0].mean((1, 2))

    s.stratified_bootstrap([np.ones((3, 48))], counted)
    assert calls == 2


def test_sleep_data():
    test = s.paired_t(SLEEP_1, SLEEP_2)
    np.testing.assert_allclose([test.statistic, test.p_value], [-4.0621, 0.002833], rtol=2e-4)
    np.testing.assert_allclose(s.cohen_dz(SLEEP_1, SLEEP_2), -1.58 / 1.229995, rtol=1e-5)
    np.testing.assert_allclose(s.jzs_bayes_factor(test.statistic, test.n), 17.259, rtol=1e-4)  # BayesFactor manual


@given(st.integers(2, 40), st.integers(0, 1000))
def test_paired_t_agrees_with_scipy(n, seed):
    x, y = np.random.default_rng(seed).normal(size=(2, n))
    x = x + 0.3
    expected = stats.ttest_rel(x, y)
    test = s.paired_t(x, y)
    np.testing.assert_allclose([test.statistic, test.p_value], [expected.statistic, expected.pvalue], rtol=1e-7)
    assert test.n == n


def test_identical_and_constantly_better_arms_have_defined_tests():
    same = s.paired_t([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.statistic, same.p_value) == (0.0, 1.0)
    better = s.paired_t([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (better.statistic, better.p_value) == (math.inf, 0.0)
    assert s.cohen_dz([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]) == -math.inf
    assert s.wilcoxon([1.0, 2.0], [1.0, 2.0]).p_value == 1.0


def test_paired_tests_refuse_unpaired_or_missing_values():
    with pytest.raises(ValueError, match="one length"):
        s.paired_t([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="finite"):
        s.wilcoxon([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least 2"):
        s.cohen_dz([1.0], [2.0])


def test_wilcoxon_exact_by_enumeration():
    # Differences 1, -2, 3, 4: W- = 2. Of the 16 sign patterns W- <= 2 holds for {}, {1}, {2}: p = 2 * 3/16.
    test = s.wilcoxon([1.0, 0.0, 3.0, 4.0], [0.0, 2.0, 0.0, 0.0])
    assert (test.statistic, test.p_value, test.n) == (2.0, 0.375, 4)
    assert "exact" in test.name
    # 32 pairs, all better: the smallest p there is, 2/2^32.
    np.testing.assert_allclose(s.wilcoxon(np.arange(1.0, 33), np.zeros(32)).p_value, 2.0**-31, rtol=1e-6)


@pytest.mark.parametrize(("n", "digits"), [(30, 1), (60, 1), (60, 12), (25, 12)])
def test_wilcoxon_agrees_with_scipy_with_and_without_ties(n, digits):
    x, y = np.random.default_rng(n + digits).normal(size=(2, n)).round(digits)
    x = x + 0.2
    test = s.wilcoxon(x, y)
    difference = (x - y)[x != y]
    exact = len(difference) <= 50 and len(np.unique(np.abs(difference))) == len(difference)
    expected = stats.wilcoxon(difference, correction=False, method="exact" if exact else "asymptotic")
    np.testing.assert_allclose([test.statistic, test.p_value], [expected.statistic, expected.pvalue], rtol=1e-7)
    assert exact == ("exact" in test.name)


def test_holm_by_hand():
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1 = .04, .06, .06, .04, made monotone.
    np.testing.assert_allclose(s.holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(s.holm([0.6, 0.7]), [1.0, 1.0])
    assert s.holm([]).shape == (0,)
    with pytest.raises(ValueError, match="between 0 and 1"):
        s.holm([0.1, math.nan])


@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_order(p):
    adjusted = s.holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_jzs_at_the_t_values_of_the_claims():
    # n = 32, computed independently when the claims were written down (two digits).
    for t, expected in ((6.73, 9.8e4), (8.94, 2.5e7), (15.82, 2.6e13), (7.63, 1.0e6)):
        np.testing.assert_allclose(s.jzs_bayes_factor(t, 32), expected, rtol=0.02)
    assert s.jzs_bayes_factor(0.0, 32) < 1
    assert s.jzs_bayes_factor(math.inf, 32) == math.inf
    with pytest.raises(ValueError, match="n >= 2"):
        s.jzs_bayes_factor(1.0, 1)


@pytest.mark.parametrize("n", [2, 10, 32])
@pytest.mark.parametrize("t", [0.0, -2.0, 5.0])
@pytest.mark.parametrize("scale", [math.sqrt(0.5), 0.2])
def test_jzs_agrees_with_the_marginal_over_effect_sizes(t, n, scale):
    # Another route to the same number: noncentral t averaged over the Cauchy prior of the effect.
    effect = np.linspace(-30, 30, 4001)
    likelihood = stats.nct.pdf(t, n - 1, effect * math.sqrt(n))
    marginal = (likelihood * stats.cauchy.pdf(effect, scale=scale)).sum() * (effect[1] - effect[0])
    np.testing.assert_allclose(s.jzs_bayes_factor(t, n, scale), marginal / stats.t.pdf(t, n - 1), rtol=1e-3)


def test_probability_of_improvement_by_hand_and_as_mann_whitney():
    # Pairs (2,1) (2,2) (3,1) (3,2): 1 + .5 + 1 + 1 of 4.
    assert s.probability_of_improvement([2.0, 3.0], [1.0, 2.0]) == 3.5 / 4
    x, y = np.random.default_rng(0).normal(size=(2, 5, 7)).round(1)
    expected = stats.mannwhitneyu(x, y, axis=-1).statistic / 49
    np.testing.assert_allclose(s.probability_of_improvement(x, y), expected)
    np.testing.assert_allclose(s.probability_of_improvement(x, y) + s.probability_of_improvement(y, x), 1.0)


@given(st.integers(1, 300), st.data())
def test_wilson_agrees_with_scipy(trials, data):
    successes = data.draw(st.integers(0, trials))
    interval = s.wilson(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high], atol=1e-12)
    assert interval.low <= interval.estimate <= interval.high


def test_wilson_refuses_impossible_counts():
    with pytest.raises(ValueError, match="3 of 2"):
        s.wilson(3, 2)
