"""Losses of soft actor-critics with discrete actions (Christodoulou 2019): exact expectations over the legal actions.

With few actions nothing need be sampled: every mean over the policy is a sum over actions. All take the policy as its
logarithm over legal actions (:func:`log_policy`); what is not legal adds nothing and gets no gradient.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from metarl_jax.losses.policy import categorical


def log_policy(logits: chex.Array, action_mask: chex.Array) -> chex.Array:
    """``log pi f32[..., A]``: log-softmax over the legal actions of ``bool[..., A]``; about -1e9 elsewhere."""
    return jnp.asarray(categorical(logits, action_mask).logits)


def expectation(log_pi: chex.Array, action_mask: chex.Array, x: chex.Array) -> chex.Array:
    """``sum_a pi(a) x_a`` over legal actions: ``f32[...]`` of ``x f32[..., A]``."""
    return jnp.sum(jnp.where(action_mask, jnp.exp(log_pi) * jnp.where(action_mask, x, 0.0), 0.0), axis=-1)


def soft_target(
    reward: chex.Array,
    discount: chex.Array,
    next_log_pi: chex.Array,
    next_q: chex.Array,
    next_action_mask: chex.Array,
    alpha: chex.Numeric,
) -> chex.Array:
    """``r + d pi^T (min_i Q_i^- - alpha log pi)`` of the states that follow, without gradient.

    Args:
      reward: ``f32[...]``.
      discount: ``f32[...]``.
      next_log_pi: ``f32[..., A]`` of the policy as it is.
      next_q: ``f32[2, ..., A]`` of both target critics.
      next_action_mask: ``bool[..., A]``.
      alpha: temperature.
    """
    value = expectation(next_log_pi, next_action_mask, jnp.min(next_q, axis=0) - alpha * next_log_pi)
    return jax.lax.stop_gradient(reward + discount * value)


def actor_loss(log_pi: chex.Array, action_mask: chex.Array, q: chex.Array, alpha: chex.Numeric) -> chex.Array:
    """``pi^T (alpha log pi - min_i Q_i)``, ``f32[...]``, of ``q f32[2, ..., A]``; a gradient into the policy alone."""
    least = jax.lax.stop_gradient(jnp.min(q, axis=0))
    return expectation(log_pi, action_mask, jax.lax.stop_gradient(alpha) * log_pi - least)


def target_entropy(action_mask: chex.Array, share: chex.Numeric) -> chex.Array:
    """A share of the largest entropy that a state allows, ``share * log(number of its legal actions) f32[...]``."""
    return share * jnp.log(jnp.maximum(action_mask.sum(-1), 1).astype(jnp.float32))


def temperature_loss(
    log_alpha: chex.Array, log_pi: chex.Array, action_mask: chex.Array, share: chex.Numeric
) -> chex.Array:
    """``-alpha pi^T (log pi + H)``, ``f32[...]``, with the target entropy H; a gradient into alpha alone."""
    entropy = -expectation(log_pi, action_mask, log_pi)
    return jnp.exp(log_alpha) * jax.lax.stop_gradient(entropy - target_entropy(action_mask, share))
