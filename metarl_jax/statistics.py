"""Scores, intervals and paired tests of the protocol.

Scores, bootstrap intervals and the Bayes factor are numpy alone. The p-values take their distributions from
``scipy.stats``, a dependency of jax itself, imported inside the functions because the import costs about a second.

The unit of evidence is an independent training run ("seed"); episodes of one run are never pooled as repeats. With
few seeds a percentile interval is too short. Measured coverage of a nominal 95 % for the mean of n normal draws (1000
repetitions): 75 % at n=3, 84 % at 5, 90 % at 10, 94 % at 32. Say so beside any interval over a handful of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Sequence[Floats]], ArrayLike]
"""Maps resampled strata ``f64[R, n_k, ...]`` to one value a resample, ``f64[R]``."""


@dataclass(frozen=True)
class Interval:
    """A point estimate and its two-sided interval.

    Attributes:
      estimate: the statistic of the data as they are.
      low, high: its ends.
      confidence: nominal coverage.
      degenerate: resamples whose statistic was undefined and which the ends therefore leave out.
    """

    estimate: float
    low: float
    high: float
    confidence: float = 0.95
    degenerate: int = 0


@dataclass(frozen=True)
class PooledScore:
    """Result of :func:`pooled_score`.

    Attributes:
      score: ``f64[...]``; NaN where the pooled denominator has no headroom, so that it cannot pass for a result.
      denominator: ``f64[...]`` pooled headroom, the sum of ``reference - floor``.
      degenerate: tasks whose own headroom is not positive. They stay in both sums: leaving them out would choose tasks.
      tasks: all tasks counted.
    """

    score: Floats
    denominator: Floats
    degenerate: int
    tasks: int


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test on paired differences.

    Attributes:
      name: the test and how its p-value was found.
      statistic: t, or the smaller signed-rank sum.
      p_value: two-sided.
      n: pairs that entered.
    """

    name: str
    statistic: float
    p_value: float
    n: int


def interquartile_mean(x: ArrayLike, axis: int = -1) -> Floats:
    """Mean of the middle half of ``x`` along ``axis`` (Agarwal et al. 2021, "Statistical Precipice").

    Sorted value ``i`` weighs the overlap of ``[i, i+1]`` with ``[n/4, 3n/4]``: a quarter of the mass goes at each end,
    whether or not four divides ``n``. NaN anywhere gives NaN: sorted last, it would otherwise be trimmed.
    """
    values = np.sort(np.moveaxis(np.asarray(x, np.float64), axis, -1), axis=-1)
    n = values.shape[-1]
    if n == 0:
        raise ValueError("the interquartile mean of no values is undefined")
    edges = np.clip(np.arange(n + 1.0), n / 4, 3 * n / 4)
    weights = np.diff(edges) / (n / 2)
    kept = weights > 0  # a trimmed infinity must not become 0 * inf
    mean = values[..., kept] @ weights[kept]
    return np.where(np.isnan(values[..., -1]), np.nan, mean)


def pooled_score(
    returns: ArrayLike, floor: ArrayLike, reference: ArrayLike, *, axis: int = -1, tolerance: float = 1e-6
) -> PooledScore:
    """Score of a domain over its tasks, as a ratio of sums: ``sum(J - floor) / sum(reference - floor)``.

    A mean of ratios would be ruled by the task with the smallest denominator. Nothing is clipped: below 0 is worse than
    the floor, above 1 better than the reference.

    Args:
      returns: mean return J per task, ``[..., T]`` along ``axis``.
      floor: ``max(random, no-op)`` per task, broadcast against ``returns``.
      reference: return of the reference policy per task, broadcast likewise.
      axis: the axis of tasks.
      tolerance: a denominator up to this fraction of ``|reference| + |floor|`` counts as degenerate.
    """
    arrays = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (returns, floor, reference)))
    # Sums run over copies in memory order, not over broadcast views, so that equal inputs sum in equal order.
    return_of, floor_of, reference_of = (np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in arrays)
    numerator = (return_of - floor_of).sum(-1)
    denominator = (reference_of - floor_of).sum(-1)
    # Relative to the returns themselves: what rounding of two equal returns leaves is not headroom.
    usable = denominator > tolerance * (np.abs(reference_of) + np.abs(floor_of)).sum(-1)
    # Counted per task of the benchmark, not once for every arm or seed that was scored on it.
    low, high = np.broadcast_arrays(np.asarray(floor, np.float64), np.asarray(reference, np.float64))
    return PooledScore(
        score=np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=usable),
        denominator=denominator,
        degenerate=int((high - low <= tolerance * (np.abs(high) + np.abs(low))).sum()),
        tasks=low.size,
    )


def _interval(estimate: ArrayLike, draws: ArrayLike, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    values = np.asarray(draws, np.float64)
    finite = values[~np.isnan(values)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail]) if finite.size else (math.nan, math.nan)
    return Interval(float(np.asarray(estimate)), float(low), float(high), confidence, int(values.size - finite.size))


def pooled_interquartile_mean(strata: Sequence[Floats]) -> Floats:
    """Interquartile mean over all units of all strata: ``[R, n_k]`` each to ``f64[R]``."""
    return interquartile_mean(np.concatenate(strata, axis=1), axis=1)


def stratified_bootstrap(
    data: Sequence[ArrayLike],
    statistic: Statistic = pooled_interquartile_mean,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    shared_units: bool = False,
) -> Interval:
    """Percentile interval with units resampled with replacement within each stratum (Agarwal et al. 2021, section 4.1).

    Args:
      data: a stratum (domain) each, ``[n_k, ...]``: units (training seeds) first. What must stay together, such as the
        arms of a paired comparison, goes in trailing axes. One stratum whose units are domains gives the bootstrap
        clustered by domain.
      statistic: from the resampled strata, ``[R, n_k, ...]`` each, to ``f64[R]``; applied to the data with ``R = 1``.
      resamples: R.
      confidence: nominal coverage.
      seed: of the resampling. Equal seeds and shapes give equal indices.
      shared_units: unit ``i`` of every stratum is the same training run, as for one agent trained on the whole suite:
        the indices are then drawn once for all strata. Drawn apart, they would average out what a run's domains share.

    Raises:
      ValueError: no units, or units shared between strata of different sizes.
    """
    strata = [np.asarray(stratum, np.float64) for stratum in data]
    sizes = [len(stratum) for stratum in strata]
    if not sizes or min(sizes) == 0:
        raise ValueError(f"every stratum needs at least one unit, sizes are {sizes}")
    if shared_units and len(set(sizes)) > 1:
        raise ValueError(f"shared units need strata of one size, sizes are {sizes}")
    rng = np.random.default_rng(seed)
    if shared_units:
        indices = [rng.integers(sizes[0], size=(resamples, sizes[0]))] * len(sizes)
    else:
        indices = [rng.integers(n, size=(resamples, n)) for n in sizes]
    draws = np.asarray(statistic([s[i] for s, i in zip(strata, indices, strict=True)]))
    estimate = np.asarray(statistic([stratum[None] for stratum in strata]))
    if draws.shape != (resamples,) or estimate.shape != (1,):
        raise ValueError(f"the statistic must return one value a resample, [{resamples}], not {list(draws.shape)}")
    return _interval(estimate[0], draws, confidence)


def hierarchical_bootstrap(
    returns: ArrayLike,
    floor: ArrayLike,
    reference: ArrayLike,
    baseline: ArrayLike | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    crossed: bool = True,
    tolerance: float = 1e-6,
) -> Interval:
    """Percentile interval of the pooled score of one domain, resampling training seeds and evaluation tasks.

    Args:
      returns: ``[S, T]``, seeds by tasks.
      floor: ``[T]`` or ``[S, T]``.
      reference: ``[T]`` or ``[S, T]``.
      baseline: another arm's returns ``[S, T]`` on the same tasks, seed by seed; the interval is then that of the score
        difference ``returns - baseline`` and both arms meet the same resampled indices.
      resamples: R.
      confidence: nominal coverage.
      seed: of the resampling.
      crossed: every seed is evaluated on the same T frozen tasks, so seeds and tasks are resampled independently
        (the pigeonhole bootstrap, Owen 2007). False where each seed has tasks of its own: these are then resampled anew
        within every resampled seed. On frozen tasks that takes a task all seeds find hard for independent noise:
        measured coverage at 10 seeds x 48 tasks, task effects three times the seed effects, was 94 % crossed, 76 % not.
      tolerance: see :func:`pooled_score`; a resample with a degenerate denominator is counted and left out.
    """
    values = np.asarray(returns, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"returns must be [seeds, tasks], not {list(values.shape)}")
    other = None if baseline is None else np.asarray(baseline, np.float64)
    if other is not None and other.shape != values.shape:
        raise ValueError(f"baseline must match returns {list(values.shape)}, not {list(other.shape)}")
    low, high = (np.broadcast_to(np.asarray(a, np.float64), values.shape) for a in (floor, reference))
    # The difference of two scores over one denominator is one ratio: floors cancel in the numerator.
    gain = values - low if other is None else values - other
    terms = np.stack([gain, high - low, np.abs(high) + np.abs(low)])  # [3, S, T]
    n_seeds, n_tasks = values.shape
    rng = np.random.default_rng(seed)
    if crossed:
        # How often each unit was drawn says as much as the indices and turns resampling into a bilinear form.
        seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples).astype(np.float64)
        tasks = rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=resamples).astype(np.float64)
        sums = np.einsum("krt,rt->kr", seeds @ terms, tasks)
    else:
        rows = rng.integers(n_seeds, size=(resamples, n_seeds, 1))
        columns = rng.integers(n_tasks, size=(resamples, n_seeds, n_tasks))
        sums = terms[:, rows, columns].sum((-1, -2))
    draws, estimate = (
        np.divide(s[0], s[1], out=np.full_like(s[0], np.nan), where=s[1] > tolerance * s[2])
        for s in (sums, terms.sum((-1, -2), keepdims=True)[..., 0])
    )
    return _interval(estimate[0], draws, confidence)


def _differences(x: ArrayLike, y: ArrayLike, minimum: int) -> Floats:
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired samples must be vectors of one length, not {first.shape} and {second.shape}")
    if len(first) < minimum or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"paired samples need at least {minimum} finite pairs")
    return first - second


def cohen_dz(x: ArrayLike, y: ArrayLike) -> float:
    """Paired effect size: mean over standard deviation (``n-1``) of the differences; 0/0 is 0, c/0 infinite."""
    difference = _differences(x, y, 2)
    mean = float(difference.mean())
    # The deviation of equal numbers is what rounding leaves of it: compare the numbers instead.
    if np.ptp(difference) == 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / float(difference.std(ddof=1))


def paired_t(x: ArrayLike, y: ArrayLike) -> PairedTest:
    """Student's t on paired samples ``[n]``: ``t = d_z sqrt(n)`` with ``n-1`` degrees of freedom."""
    from scipy import stats

    n = len(_differences(x, y, 2))
    t = cohen_dz(x, y) * math.sqrt(n)
    return PairedTest("paired t", t, 2 * float(stats.t.sf(abs(t), n - 1)), n)


def wilcoxon(x: ArrayLike, y: ArrayLike) -> PairedTest:
    """Wilcoxon's signed-rank test on paired samples ``[n]``; zero differences are dropped, as Wilcoxon (1945) does.

    Exact for up to 50 differences without ties, else normal with the variance corrected for ties (Cureton 1967) and no
    continuity correction. With ties and fewer than about ten pairs the normal p-value is only a guide.
    """
    from scipy import stats

    difference = _differences(x, y, 1)
    difference = difference[difference != 0]
    n = len(difference)
    if n == 0:
        return PairedTest("Wilcoxon signed-rank (no differences)", 0.0, 1.0, 0)
    _, ties = np.unique(np.abs(difference), return_counts=True)
    if n <= 50 and ties.max() == 1:
        exact = stats.wilcoxon(difference, method="exact")
        return PairedTest("Wilcoxon signed-rank (exact)", float(exact.statistic), float(exact.pvalue), n)
    ranks = stats.rankdata(np.abs(difference))
    positive = float(ranks[difference > 0].sum())
    total = n * (n + 1) / 2
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((ties**3 - ties).sum()) / 48
    z = (positive - total / 2) / math.sqrt(variance)
    p = math.erfc(abs(z) / math.sqrt(2))
    return PairedTest("Wilcoxon signed-rank (normal)", min(positive, total - positive), p, n)


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values ``[m]`` of m tests (Holm 1979): the i-th smallest times ``m-i``, made monotone, at most 1."""
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must be a vector of numbers between 0 and 1")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def jzs_bayes_factor(t: float, n: int, scale: float = math.sqrt(0.5)) -> float:
    """Bayes factor BF10 of a one-sample or paired t statistic (Rouder, Speckman, Sun, Morey & Iverson 2009, eq. 1).

    Effect ``~ Cauchy(0, scale)`` against none: with ``v = n-1`` and ``g ~ InverseGamma(1/2, scale^2/2)``, BF10 is the
    mean over g of ``(1+ng)^(-1/2) [1 + t^2/((1+ng)v)]^(-(v+1)/2) / [1 + t^2/v]^(-(v+1)/2)``. In ``log g`` the integrand
    dies off exponentially at both ends, where the trapezoidal rule converges geometrically. Infinite above 1e308.
    """
    if n < 2 or scale <= 0 or math.isnan(t):
        raise ValueError(f"needs n >= 2, scale > 0 and a number t; got n={n}, scale={scale}, t={t}")
    if math.isinf(t):
        return math.inf
    v = n - 1
    # Centred on the prior's scale; the upper end covers the likelihood's ridge at g = t^2/n.
    log_g = 2 * math.log(scale) + np.linspace(-8.0, 80.0 + 2 * math.log1p(abs(t)), 20001)
    shrink = np.logaddexp(0.0, math.log(n) + log_g)  # log(1 + n g)
    log_prior = math.log(scale) - 0.5 * math.log(2 * math.pi) - 0.5 * log_g - scale**2 / 2 * np.exp(-log_g)
    log_ratio = -0.5 * shrink - n / 2 * (np.log1p(t * t / v * np.exp(-shrink)) - math.log1p(t * t / v))
    integrand = log_prior + log_ratio
    peak = float(integrand.max())
    log_bf = peak + math.log(float(np.exp(integrand - peak).sum() * (log_g[1] - log_g[0])))
    return math.exp(log_bf) if log_bf < 709 else math.inf


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> Floats:
    """``P(X > Y) + P(X = Y)/2`` over all pairs of runs, ``[..., m]`` and ``[..., n]`` to ``f64[...]``.

    The mean over leading axes (domains) is the quantity of Agarwal et al. (2021), section 4.3.
    """
    difference = np.asarray(x, np.float64)[..., :, None] - np.asarray(y, np.float64)[..., None, :]
    return ((np.sign(difference) + 1) / 2).mean((-1, -2))


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Score interval of a binomial rate (Wilson 1927); unlike ``p +- z s`` it holds for rates near 0 and 1."""
    from scipy import stats

    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"needs 0 <= successes <= trials and trials >= 1; got {successes} of {trials}")
    z = float(stats.norm.ppf((1 + confidence) / 2))
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    # The rate lies inside in exact arithmetic; rounding must not push it out at 0 and 1.
    return Interval(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), confidence)
