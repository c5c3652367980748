"""A linear baseline of one task's returns (Duan 2016): fitted to the episodes whose advantages it is for."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from envs_jax.observation import Observation
from metarl_jax.losses.policy import generalised_advantage, masked_mean
from metarl_jax.types import Trajectory

ITERATIONS = 30
"""Of conjugate gradients; what they leave is far below the noise of returns, and no decomposition is called."""


def features(seen: Observation, period: chex.Array) -> chex.Array:
    """``o, o^2, t, t^2, t^3 f32[..., D]`` of the mean token ``o`` within +-10 and ``t`` in hundreds of periods."""
    mask = seen.token_mask.astype(seen.tokens.dtype)[..., None]
    mean = jnp.sum(seen.tokens * mask, axis=-2) / jnp.maximum(jnp.sum(mask, axis=-2), 1.0)
    o, t = jnp.clip(mean, -10.0, 10.0), period[..., None] / 100.0
    return jnp.concatenate([o, o * o, t, t * t, t * t * t], axis=-1)


def fitted_values(episodes: Trajectory) -> tuple[chex.Array, chex.Array]:
    """Values ``f32[E, L]`` of the states of one task's episodes ``[E, L]``, and of what was seen last ``f32[E]``.

    Ridge regression of discounted returns on standardised features with a free mean. The penalty is worth as many
    choices as there are features: hundreds of choices are hardly shrunk, while to an episode or two a free fit would
    come so near that no advantage is left.
    """
    weight = episodes.valid.astype(jnp.float32)
    ended = jnp.cumsum(episodes.period_end & episodes.valid, axis=-1).astype(jnp.float32)
    here = features(episodes.observation, ended - episodes.period_end)
    last = features(episodes.final, ended[:, -1])
    zero = jnp.zeros_like(episodes.reward)
    returns = jax.vmap(generalised_advantage, in_axes=(0, 0, 0, None))(episodes, zero, zero[:, 0], 1.0)

    each = jax.vmap(masked_mean, in_axes=(-1, None))  # over all choices of the task
    mean = each(here, weight)
    deviation = jnp.sqrt(each(jnp.square(here - mean), weight))
    unit = jnp.where(deviation > 1e-6, 1.0 / jnp.maximum(deviation, 1e-6), 0.0)
    here, last, level = (here - mean) * unit, (last - mean) * unit, masked_mean(returns, weight)

    def penalised(w: chex.Array) -> chex.Array:
        return jnp.einsum("eld,el->d", here, weight * (here @ w)) + w.shape[0] * w

    aim = jnp.einsum("eld,el->d", here, weight * (returns - level))
    w, _ = jax.scipy.sparse.linalg.cg(penalised, aim, maxiter=ITERATIONS)
    return jax.lax.stop_gradient((level + here @ w, level + last @ w))
