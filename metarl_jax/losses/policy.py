"""Losses of actor-critics on trajectories. A period is a cycle of turns: trace and discount act between periods only.

The dueling head serves as actor and critic: its Q over legal actions are logits, because a softmax ignores the value in
them, and their mean is the value, exactly.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from metarl_jax.types import MASKED, Trajectory


def categorical(q: chex.Array, action_mask: chex.Array) -> Any:
    """``distrax.Categorical`` of ``softmax(q f32[..., A])`` over the legal actions of ``action_mask bool[..., A]``."""
    import distrax  # pulls in tensorflow_probability: slow to import

    return distrax.Categorical(logits=jnp.where(action_mask, q, MASKED))


def entropy(q: chex.Array, action_mask: chex.Array) -> chex.Array:
    """Entropy ``f32[...]`` [nats] of the same, over legal actions; 0 where only one is."""
    log = jax.nn.log_softmax(jnp.where(action_mask, q, MASKED))
    return -jnp.sum(jnp.where(action_mask, jnp.exp(log) * log, 0.0), axis=-1)


def state_value(q: chex.Array, action_mask: chex.Array) -> chex.Array:
    """The dueling head's value ``f32[...]``: the mean of Q over legal actions."""
    count = jnp.maximum(action_mask.sum(-1), 1)
    return jnp.sum(jnp.where(action_mask, q, 0.0), axis=-1) / count


@struct.dataclass
class Targets:
    """What a surrogate loss compares with, ``f32[...]`` each: of the policy that collected, before any update.

    Attributes:
      log_prob: of the choices.
      value: of the states.
      advantage: generalised advantage estimate.
    """

    log_prob: chex.Array
    value: chex.Array
    advantage: chex.Array


def generalised_advantage(
    trajectory: Trajectory, value: chex.Array, final_value: chex.Array, trace: chex.Numeric
) -> chex.Array:
    """Generalised advantage estimate (Schulman 2016) of one trajectory, between periods: ``f32[L]``.

    ``delta_t = r_t + d_t V_{t+1} - V_t`` and ``A_t = delta_t + d_t l_t A_{t+1}``, where the discount ``d_t`` and the
    trace ``l_t`` are 1 within a period: twenty turns would else leave .95^20 = .36 of what the period pays. Choices
    that do not exist are passed over.

    Args:
      trajectory: leaves ``[L]``.
      value: ``f32[L]``.
      final_value: ``f32[]`` of what was seen last; counts where the last discount is not 0.
      trace: lambda, of all periods or ``f32[L]``: what counts stands at a period's last turn.
    """
    chex.assert_rank([value, final_value, trajectory.reward], [1, 0, 1])

    def back(after: tuple[chex.Array, chex.Array], now: tuple[chex.Array, ...]) -> tuple[Any, chex.Array]:
        advantage_after, value_after = after
        reward, discount, passed_on, valid, value = now
        delta = reward + discount * value_after - value
        advantage = delta + discount * passed_on * advantage_after
        kept = jnp.where(valid, advantage, advantage_after), jnp.where(valid, value, value_after)
        return kept, jnp.where(valid, advantage, 0.0)

    between = jnp.where(trajectory.period_end, trace, 1.0)
    steps = (trajectory.reward, trajectory.discount, between, trajectory.valid, value)
    _, advantage = jax.lax.scan(back, (jnp.zeros_like(final_value), final_value), steps, reverse=True)
    return jax.lax.stop_gradient(advantage)


def cut_trace(trajectory: Trajectory, trace: chex.Numeric, periods: int) -> chex.Array:
    """A trace ``f32[L]`` that is cut after every so many periods of one trajectory; never for ``periods`` 0.

    With lambda 1 the advantage is then that of A3C's windows: what is paid up to the end of the window, and the value
    of the state that follows it.
    """
    if periods == 0:
        return jnp.broadcast_to(jnp.float32(trace), trajectory.reward.shape)
    ended = jnp.cumsum(trajectory.period_end & trajectory.valid, dtype=jnp.int32)
    return jnp.where(trajectory.period_end & (ended % periods == 0), 0.0, jnp.float32(trace))


def collecting_targets(q: chex.Array, final_q: chex.Array, trajectory: Trajectory, trace: chex.Numeric) -> Targets:
    """Targets ``[L]`` of one trajectory from ``q f32[L, A]`` of the policy that collected it, recomputed."""
    mask = trajectory.observation.action_mask
    value, final_value = state_value(q, mask), state_value(final_q, trajectory.final.action_mask)
    log_prob = categorical(q, mask).log_prob(trajectory.action)
    advantage = generalised_advantage(trajectory, value, final_value, trace)
    return jax.lax.stop_gradient(Targets(log_prob, value, advantage))


def masked_mean(x: chex.Array, weight: chex.Array) -> chex.Array:
    """Mean of ``x`` where ``weight`` is; 0 if it is nowhere."""
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def standardised(advantage: chex.Array, weight: chex.Array) -> chex.Array:
    """Advantages of mean 0 and deviation 1 over those that have a weight."""
    mean = masked_mean(advantage, weight)
    deviation = jnp.sqrt(masked_mean(jnp.square(advantage - mean), weight))
    return (advantage - mean) / (deviation + 1e-8)


def likelihood_ratio_loss(
    q: chex.Array, action_mask: chex.Array, action: chex.Array, valid: chex.Array, targets: Targets
) -> chex.Array:
    """``-mean(rho A)`` with ``rho = pi(a | s) / pi_old(a | s)``, of a minibatch of choices ``[...]``.

    Where pi is the policy that collected, this has the first and the second derivative of the expected return;
    ``-mean(log pi A)`` has the first alone.
    """
    ratio = jnp.exp(categorical(q, action_mask).log_prob(action) - targets.log_prob)
    return -masked_mean(ratio * targets.advantage, valid.astype(q.dtype))


def clipped_surrogate(
    q: chex.Array,
    action_mask: chex.Array,
    action: chex.Array,
    valid: chex.Array,
    targets: Targets,
    *,
    clip: chex.Numeric,
    value_weight: chex.Numeric,
    entropy_weight: chex.Numeric,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of proximal policy optimisation (Schulman 2017) on a minibatch of choices, and its parts.

    ``-min(rho A, clip(rho) A) + value_weight max(L_V, L_V clipped) / 2 - entropy_weight H``, with the advantage
    normalised in the minibatch and the value's change clipped as the ratio is.

    Args:
      q: ``f32[..., A]`` of the policy that is updated.
      action_mask: ``bool[..., A]``.
      action: ``i32[...]``.
      valid: ``bool[...]`` which choices exist.
      targets: ``[...]`` of the policy that collected.
      clip: of the ratio and of the value.
      value_weight: of the value loss.
      entropy_weight: of the entropy.
    """
    weight = valid.astype(q.dtype)
    advantage = standardised(targets.advantage, weight)

    policy = categorical(q, action_mask)
    ratio = jnp.exp(policy.log_prob(action) - targets.log_prob)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)

    value, goal = state_value(q, action_mask), targets.advantage + targets.value
    near = targets.value + jnp.clip(value - targets.value, -clip, clip)
    value_loss = 0.5 * jnp.maximum(jnp.square(value - goal), jnp.square(near - goal))

    parts = {
        "policy_loss": -masked_mean(gain, weight),
        "value_loss": masked_mean(value_loss, weight),
        "entropy": masked_mean(entropy(q, action_mask), weight),
        "ratio_error": masked_mean(jnp.abs(ratio - 1.0), weight),
    }
    loss = parts["policy_loss"] + value_weight * parts["value_loss"] - entropy_weight * parts["entropy"]
    return loss, parts


def advantage_actor_critic(
    q: chex.Array,
    action_mask: chex.Array,
    action: chex.Array,
    valid: chex.Array,
    targets: Targets,
    *,
    value_weight: chex.Numeric,
    entropy_weight: chex.Numeric,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of advantage actor-critics (Mnih 2016) on a minibatch of choices, and its parts.

    ``-log pi(a | s) A + value_weight (R - V(s))^2 - entropy_weight H`` with ``R = A + V`` of the policy that collected.
    The advantage is not normalised.

    Args:
      q: ``f32[..., A]`` of the policy that is updated.
      action_mask: ``bool[..., A]``.
      action: ``i32[...]``.
      valid: ``bool[...]`` which choices exist.
      targets: ``[...]`` of the policy that collected.
      value_weight: of the value loss.
      entropy_weight: of the entropy.
    """
    weight = valid.astype(q.dtype)
    log_prob = categorical(q, action_mask).log_prob(action)
    value = state_value(q, action_mask)
    parts = {
        "policy_loss": -masked_mean(log_prob * targets.advantage, weight),
        "value_loss": masked_mean(jnp.square(targets.advantage + targets.value - value), weight),
        "entropy": masked_mean(entropy(q, action_mask), weight),
        "ratio_error": masked_mean(jnp.abs(jnp.exp(log_prob - targets.log_prob) - 1.0), weight),
    }
    loss = parts["policy_loss"] + value_weight * parts["value_loss"] - entropy_weight * parts["entropy"]
    return loss, parts
