"""Pre-layer-norm Transformer blocks over a small set of entity tokens (Vaswani 2017; Xiong 2020)."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax.numpy as jnp

MASKED = -1e9
"""Logit of what must not be chosen: finite, because -inf inside a ``where`` gives NaN gradients."""


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens.

    Attributes:
      heads: number of heads; divides the width.
    """

    heads: int

    @nn.compact
    def __call__(self, x: chex.Array, mask: chex.Array) -> chex.Array:
        """Maps ``x f32[..., N, d]`` with ``mask bool[..., N]`` to ``f32[..., N, d]``."""
        *_, width = x.shape
        qkv = nn.Dense(3 * width, use_bias=False, name="qkv")(x)
        qkv = qkv.reshape(*x.shape[:-1], 3, self.heads, width // self.heads)
        query, key, value = qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]
        logits = jnp.einsum("...nhc,...mhc->...hnm", query, key) * (width // self.heads) ** -0.5
        weights = nn.softmax(jnp.where(mask[..., None, None, :], logits, MASKED), axis=-1)
        mixed = jnp.einsum("...hnm,...mhc->...nhc", weights, value)
        return nn.Dense(width, use_bias=False, name="out")(mixed.reshape(x.shape))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Attributes:
      heads: attention heads.
      expansion: width of the hidden layer relative to the width.
    """

    heads: int
    expansion: int

    @nn.compact
    def __call__(self, x: chex.Array, mask: chex.Array) -> chex.Array:
        """Maps ``x f32[..., N, d]`` with ``mask bool[..., N]`` to ``f32[..., N, d]``."""
        *_, width = x.shape
        x = x + SelfAttention(self.heads, name="attention")(nn.LayerNorm(name="norm_1")(x), mask)
        hidden = nn.gelu(nn.Dense(self.expansion * width, name="expand")(nn.LayerNorm(name="norm_2")(x)))
        return x + nn.Dense(width, name="contract")(hidden)


def masked_mean(x: chex.Array, mask: chex.Array) -> chex.Array:
    """Mean of ``x f32[..., N, d]`` over the tokens that ``mask bool[..., N]`` keeps: ``f32[..., d]``, 0 for none."""
    weight = mask[..., None].astype(x.dtype)
    return jnp.sum(x * weight, axis=-2) / jnp.maximum(jnp.sum(weight, axis=-2), 1.0)
