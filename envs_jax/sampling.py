"""Random draws by inversion of shared uniforms.

Every domain turns the uniforms of :func:`uniforms` into its noise by a monotone inverse distribution function. Three
things follow. All policies meet the same noise (common random numbers), because the uniforms depend on the episode key
and the period alone. An independent model in another language can be fed the very same draws. And the loops inside
``jax.random.poisson`` and ``jax.random.binomial``, ten times slower under ``vmap``, are avoided.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from envs_jax.arrays import aligned, vary_like

RESET_INDEX = 0x7FFFFFFF
"""Index of the uniforms that draw an episode's initial state; periods count up from 0 and never reach it."""
TASK_INDEX = RESET_INDEX - 1
"""Index of the uniforms that draw a task: one key may draw a task and then an episode, and the two share nothing."""

TASK_SPLITS = ("all", "inside", "outside")
"""Parts of a domain's ranges that a task may be drawn from, see :func:`stretched`."""
RIM = 0.1
"""Probability that a number of a task lies at one end of its range, outside."""

GENERATOR = "threefry2x32"
"""Of all draws, whatever generator JAX is set to: an episode is the same on every machine."""


def key_words(key: chex.PRNGKey) -> chex.Array:
    """A key of any kind as the two raw words ``u32[2]`` from which all draws are made.

    Threefry's own words for keys of ``jax.random.key``, ``jax.random.PRNGKey`` and for raw words. A key of another
    generator is hashed: its first 64 random bits.
    """
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        words = jax.random.key_data(key)
        return words if str(jax.random.key_impl(key)) in (GENERATOR, "fry") else jax.random.bits(key, (2,), jnp.uint32)
    return key if key.shape == (2,) else jax.random.bits(jax.random.wrap_key_data(key), (2,), jnp.uint32)


def typed_key(key: chex.PRNGKey) -> chex.PRNGKey:
    """A key of any kind as the typed key of :data:`GENERATOR` that :func:`key_words` makes of it."""
    return jax.random.wrap_key_data(key_words(key), impl=GENERATOR)


def uniforms(key: chex.PRNGKey, index: chex.Numeric, count: int) -> chex.Array:
    """Returns ``f32[count]`` uniforms in the open interval (0, 1), a function of ``(key, index)`` alone.

    Args:
      key: the episode's or the task's key, of any kind that :func:`key_words` takes.
      index: the period, :data:`RESET_INDEX` for the initial state, or :data:`TASK_INDEX` for a task.
      count: how many uniforms are needed (static).
    """
    draws = jax.random.uniform(jax.random.fold_in(typed_key(key), index), (count,), jnp.float32)
    # jax.random.uniform returns multiples of 2^-23 in [0, 1); half a step up keeps inverse CDFs finite at both ends.
    return draws + jnp.float32(2.0**-24)


def stretched(uniform: chex.Array, split: str) -> chex.Array:
    """Uniforms moved to a part of (0, 1), elementwise: ``inside`` its middle, ``outside`` the :data:`RIM` at each end.

    Both keep the order of uniforms, so that inversion stays monotone; ``all`` changes nothing.
    """
    if split == "all":
        return uniform
    if split == "inside":
        return RIM + (1.0 - 2.0 * RIM) * uniform
    moved = jnp.where(uniform < 0.5, 2.0 * RIM * uniform, 1.0 - 2.0 * RIM * (1.0 - uniform))
    # No nearer to 0 and 1 than uniforms are, so that inverse CDFs stay finite.
    return jnp.clip(moved, 2.0**-24, 1.0 - 2.0**-24)


def normal(uniform: chex.Array) -> chex.Array:
    """Standard normal quantile of ``uniform`` (any shape), elementwise."""
    return jnp.sqrt(jnp.float32(2.0)) * jax.lax.erf_inv(2.0 * uniform - 1.0)


def categorical(uniform: chex.Array, cdf: chex.Array) -> chex.Array:
    """Index drawn from a table: the number of entries of ``cdf f32[..., K]`` below ``uniform f32[...]``, capped at K-1.

    The cap absorbs the rounding of the last entry; a table that leaves mass beyond K-1 is truncated there.
    """
    drawn, table = aligned(uniform[..., None], cdf)
    index = jnp.sum(drawn > table, axis=-1, dtype=jnp.int32)
    return jnp.minimum(index, cdf.shape[-1] - 1)


def integers(uniform: chex.Array, low: chex.Numeric, high: chex.Numeric) -> chex.Array:
    """Uniform integer in ``[low, high]`` inclusive, elementwise, ``i32``."""
    span = jnp.asarray(high - low + 1, jnp.float32)
    return jnp.asarray(low, jnp.int32) + jnp.minimum(jnp.floor(uniform * span), span - 1).astype(jnp.int32)


def poisson_cdf(rate: chex.Numeric, size: int) -> chex.Array:
    """Distribution function ``P(D <= k)`` of a Poisson law for ``k = 0..size-1``: ``f32[..., size]``.

    Args:
      rate: mean ``f32[...]``, 0 or more.
      size: number of tabulated values (static). The mass beyond is dropped: with ``size=40`` it is 6.5e-8 at rate 15.
    """
    rate, k = aligned(jnp.asarray(rate, jnp.float32)[..., None], jnp.arange(size, dtype=jnp.float32))
    # xlogy gives the point mass at 0 for rate 0.
    log_pmf = jax.scipy.special.xlogy(k, rate) - rate - jax.scipy.special.gammaln(k + 1.0)
    return jnp.cumsum(jnp.exp(log_pmf), axis=-1)


def poisson(uniform: chex.Array, rate: chex.Array, size: int) -> chex.Array:
    """Poisson counts ``i32``, elementwise, for rates up to 80 that change too often for a table to be worth storing.

    The same law as :func:`categorical` on :func:`poisson_cdf`, cut off at ``size - 1``. Each probability follows from
    the last by ``p_k = p_{k-1} rate / k``, a few instructions. Above 80 the first one, ``exp(-rate)``, nears the end of
    float32's range; where it underflows (from a rate of 88 to 104 on, by device) every count is ``size - 1``. A loop,
    because XLA would fuse straight code into every sum over the counts and draw them anew for each of its terms: fifty
    times slower on CPU.
    """
    uniform, rate = jnp.broadcast_arrays(uniform, rate)
    mass = jnp.exp(-rate)

    def term(carry: tuple[chex.Array, ...], inverse: chex.Array) -> tuple[tuple[chex.Array, ...], None]:
        mass, below, count = carry
        count = count + (uniform > below).astype(jnp.int32)
        mass = mass * (rate * inverse)
        return (mass, below + mass, count), None

    inverses = 1.0 / jnp.arange(1.0, size, dtype=jnp.float32)
    start = vary_like((mass, mass, jnp.zeros(rate.shape, jnp.int32)), uniform, rate)
    (_, _, count), _ = jax.lax.scan(term, start, inverses, unroll=8)
    return count


def binomial_cdf(trials: chex.Numeric, probability: chex.Numeric, size: int) -> chex.Array:
    """Distribution function of a binomial law for ``k = 0..size-1``: ``f32[..., size]``, whole if ``size > trials``."""
    n, p = (jnp.asarray(x, jnp.float32)[..., None] for x in (trials, probability))
    n, p, k = aligned(n, p, jnp.arange(size, dtype=jnp.float32))
    inside = k <= n
    j = jnp.where(inside, k, 0.0)
    lgamma = jax.scipy.special.gammaln
    log_pmf = (
        lgamma(n + 1.0)
        - lgamma(j + 1.0)
        - lgamma(n - j + 1.0)
        + jax.scipy.special.xlogy(j, p)
        + jax.scipy.special.xlog1py(n - j, -p)
    )
    return jnp.cumsum(jnp.where(inside, jnp.exp(log_pmf), 0.0), axis=-1)


def binomial(uniform: chex.Array, trials: chex.Array, probability: chex.Array, size: int) -> chex.Array:
    """Binomial quantiles of ``uniform``, elementwise, ``i32``; no trials above ``size`` (static).

    The recursion of the point masses, unrolled: without tables it fuses into one pass. Exact unless
    ``(1 - probability) ** trials`` underflows (float32: 1e-38); then every trial succeeds. Probabilities above
    ``1 - 2^-20`` count as that, so that a sure trial fails once in a million draws.
    """
    p = jnp.minimum(probability, 1.0 - 2.0**-20)
    n, odds = trials.astype(jnp.float32), p / (1.0 - p)
    mass = jnp.exp(n * jnp.log1p(-p))
    below, count = mass, jnp.zeros_like(trials)
    for k in range(size):
        count += ((uniform > below) & (k < trials)).astype(jnp.int32)
        mass = mass * odds * ((n - k) / (k + 1.0))
        below = below + mass
    return count


def ar1(value: chex.Array, persistence: chex.Numeric, innovation_sd: chex.Numeric, uniform: chex.Array) -> chex.Array:
    """One step of ``x' = phi x + sd z`` with persistence phi, z standard normal; stationary sd is sd/sqrt(1-phi^2)."""
    return persistence * value + innovation_sd * normal(uniform)
