"""Losses of single transitions; the caller vmaps them.

Targets are stopped here, in both the inner and the outer loop: letting the meta-gradient flow into an inner target
teaches the inner loop to predict its own bootstrap.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from metarl_jax.types import MASKED


def double_q_target(
    reward: chex.Array, discount: chex.Array, next_q_online: chex.Array, next_q_target: chex.Array
) -> chex.Array:
    """n-step double-Q target (van Hasselt 2016): ``R + gamma^n Q_target(s', argmax_a Q_online(s', a))``.

    Args:
      reward: ``f32[]`` discounted sum of the n periods' rewards.
      discount: ``f32[]`` ``gamma^n``, 0 where the episode ends within the n periods.
      next_q_online: ``f32[A]``, illegal actions at about -1e9.
      next_q_target: ``f32[A]``.

    Returns:
      ``f32[]`` target, without gradient.
    """
    chex.assert_rank([reward, discount, next_q_online, next_q_target], [0, 0, 1, 1])
    best = jnp.argmax(next_q_online)
    return jax.lax.stop_gradient(reward + discount * next_q_target[best])


def max_q_target(
    reward: chex.Array, discount: chex.Array, next_q_online: chex.Array, next_q_target: chex.Array
) -> chex.Array:
    """n-step target of Mnih 2015: ``R + gamma^n max_a Q_target(s', a)``. Shapes as :func:`double_q_target`."""
    chex.assert_rank([reward, discount, next_q_online, next_q_target], [0, 0, 1, 1])
    return jax.lax.stop_gradient(reward + discount * jnp.max(next_q_target))


def squared_td_error(q: chex.Array, action: chex.Array, target: chex.Array) -> chex.Array:
    """``(Q(s, a) - target)^2 / 2``. Not Huber: outside its core that has no curvature, and second order vanishes.

    Args:
      q: ``f32[A]``.
      action: ``i32[]``.
      target: ``f32[]``, from :func:`double_q_target`.
    """
    chex.assert_rank([q, action, target], [1, 0, 0])
    return 0.5 * jnp.square(q[action] - jax.lax.stop_gradient(target))


def reference_cross_entropy(
    q: chex.Array, action_mask: chex.Array, reference: chex.Array, temperature: float
) -> chex.Array:
    """Cross-entropy of ``softmax(Q / temperature)`` over legal actions to the reference policy's action.

    Args:
      q: ``f32[A]``.
      action_mask: ``bool[A]``.
      reference: ``i32[]`` the reference's action, legal.
      temperature: scale of the logits.
    """
    chex.assert_rank([q, action_mask, reference], [1, 1, 0])
    logits = jnp.where(action_mask, q / temperature, MASKED)
    return -jax.nn.log_softmax(logits)[reference]
