"""Context memory: what the support episodes of a task say, one vector an entity.

Support transitions are encoded once per task and pooled, so acting costs the same however many episodes were seen.
An entity keeps its slot from episode to episode, so the memory is keyed by slot: what happened to entity i is pooled
into the memory of entity i. What is lost by pooling is the order of the periods.
"""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from metarl_jax.networks.transformer import MASKED, masked_mean


@struct.dataclass
class Periods:
    """Support episodes of one task at the resolution of periods. Leading batch axes may stand before each shape.

    Attributes:
      tokens: ``f32[K, P+1, N, F]`` tokens at the start of each period and after the last.
      token_mask: ``bool[N]`` which tokens exist.
      decisions: ``f32[K, P, N, G]`` descriptions of the actions chosen in a period, added to the token they concern.
      reward: ``f32[K, P]`` normalised reward of each period.
      valid: ``bool[K, P]`` which periods exist and may be used.
    """

    tokens: chex.Array
    token_mask: chex.Array
    decisions: chex.Array
    reward: chex.Array
    valid: chex.Array


class ContextMemory(nn.Module):
    """Encodes a task's support periods into one vector an entity.

    For entity i and period t: ``m_ti = g(x_ti, x_t+1,i, decision_ti, r_t, means of x over entities)``; the memory is
    an attention-weighted mean of ``m_ti`` over all periods of all support episodes, one learned query a head, followed
    by a nonlinear layer (a regression needs a division after its sums). Without support it is zero.

    Attributes:
      width: size of the memory vectors.
      heads: pooling heads.
    """

    width: int
    heads: int

    @nn.compact
    def __call__(self, support: Periods) -> chex.Array:
        """Memory ``f32[N, width]`` of one task (no batch axes)."""
        chex.assert_rank([support.tokens, support.decisions, support.reward, support.valid], [4, 4, 2, 2])
        # One nonlinear layer: a linear one before the pooling could as well stand after it, where it costs nothing.
        # x_t and x_t+1 are projected together, once, and shifted: building the features would be the dearest step.
        both = nn.Dense(2 * self.width, name="own")(support.tokens)
        overall = masked_mean(support.tokens, support.token_mask)
        both = both + nn.Dense(2 * self.width, use_bias=False, name="overall")(overall)[..., None, :]
        start, end = jnp.split(both, 2, axis=-1)
        events = start[:, :-1] + end[:, 1:] + nn.Dense(self.width, use_bias=False, name="decision")(support.decisions)
        reward = nn.Dense(self.width, use_bias=False, name="reward")(support.reward[..., None])
        events = nn.relu(events + reward[..., None, :])
        scores = nn.Dense(self.heads, use_bias=False, name="score")(events)

        periods = support.valid.size
        flat_valid = support.valid.reshape(periods, 1, 1)
        tokens = support.tokens.shape[-2]
        weights = jax.nn.softmax(jnp.where(flat_valid, scores.reshape(periods, tokens, self.heads), MASKED), axis=0)
        weights = jnp.where(flat_valid, weights, 0.0)
        events = events.reshape(periods, tokens, self.heads, self.width // self.heads)
        pooled = jnp.einsum("pnh,pnhc->nhc", weights, events).reshape(tokens, self.width)

        # How much was seen tells how far to trust it.
        episodes = jnp.sum(jnp.any(support.valid, axis=-1)) / support.valid.shape[0]
        seen = jnp.broadcast_to(episodes, (tokens, 1)).astype(pooled.dtype)
        memory = nn.gelu(nn.Dense(4 * self.width, name="combine")(jnp.concatenate([pooled, seen], axis=-1)))
        memory = nn.Dense(self.width, name="memory")(memory)
        return jnp.where(jnp.any(support.valid), memory, 0.0)
