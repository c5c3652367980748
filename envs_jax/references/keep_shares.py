"""Plans for stock that passes through many hands: shares to keep at each stop, fitted by gradient ascent.

A decision that splits what is at hand between "stay here" and "travel on" is described by the share that stays. Shares
beat quantities as the variables of a plan in two ways. Every plan is feasible, so that the value of a fluid forecast
can be followed uphill without constraints; and a plan followed by shares corrects itself, because whatever noise
brings or takes is split in the planned proportion. The value is not concave in the shares: what is found is a local
maximum, which tests compare with linear programmes.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from envs_jax.arrays import vary_like

_DECAY, _DECAY_SQUARE, _TINY = 0.9, 0.99, 1e-8  # of the means in Adam (Kingma & Ba 2015)


def ascend(
    value: Callable[[chex.Array], chex.Array], start: chex.Array, iterations: int, step: float
) -> tuple[chex.Array, chex.Array]:
    """Maximises ``value(shares)`` over shares in (0, 1) by Adam on their logits, with a step that shrinks to 0.

    Args:
      value: differentiable almost everywhere, of ``f32[...]`` to ``f32[]``.
      start: ``f32[...]`` first shares.
      iterations: evaluations of the gradient (static).
      step: first step of a logit.

    Returns:
      The best shares met, and their value.
    """

    def climb(carry: tuple[chex.Array, ...], time: chex.Array) -> tuple[tuple[chex.Array, ...], None]:
        logits, mean, square, best, best_value = carry
        shares = jax.nn.sigmoid(logits)
        found, slope = jax.value_and_grad(lambda x: value(jax.nn.sigmoid(x)))(logits)
        best = jnp.where(found > best_value, shares, best)
        mean = _DECAY * mean + (1.0 - _DECAY) * slope
        square = _DECAY_SQUARE * square + (1.0 - _DECAY_SQUARE) * slope**2
        unbiased = mean / (1.0 - _DECAY ** (time + 1.0))
        scale = jnp.sqrt(square / (1.0 - _DECAY_SQUARE ** (time + 1.0))) + _TINY
        logits = logits + step * (1.0 - time / iterations) * unbiased / scale
        return (logits, mean, square, best, jnp.maximum(best_value, found)), None

    logits = jnp.log(start) - jnp.log1p(-start)
    carry = (logits, jnp.zeros_like(start), jnp.zeros_like(start), start, vary_like(jnp.float32(-jnp.inf), start))
    (*_, best, best_value), _ = jax.lax.scan(climb, carry, jnp.arange(iterations, dtype=jnp.float32))
    return best, best_value
