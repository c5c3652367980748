"""Context memory: what the support episodes of a task say about each entity.

Support transitions are encoded once per task and pooled, so acting costs the same however many episodes were seen.
An entity keeps its slot from episode to episode, so the memory is keyed by slot: what happened to entity i is pooled
into the memory of entity i. What is lost by pooling is the order of the periods.
"""

from __future__ import annotations

import chex
import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from metarl_jax.types import PeriodHistory


@struct.dataclass
class Memory:
    """What the support episodes of one task say about each of its N entities.

    Attributes:
      association: ``f32[N, C, C]`` mean outer product of keys and values over the support's periods, shrunk.
      summary: ``f32[N, d]`` what can be read from it without a query.
    """

    association: chex.Array
    summary: chex.Array


def half_rectified(x: chex.Array) -> chex.Array:
    """Keeps one half of the last axis linear (correlations) and rectifies the other (thresholds, local kernels)."""
    linear = jnp.arange(x.shape[-1]) < x.shape[-1] // 2
    return jnp.where(linear | (x > 0), x, 0.0)


class Affine(nn.Module):
    """Kernel ``f32[inputs, outputs]`` and bias ``f32[outputs]`` of a dense layer, for inputs that come in parts."""

    inputs: int
    outputs: int

    @nn.compact
    def __call__(self) -> tuple[chex.Array, chex.Array]:
        """The parameters, named and initialised as those of ``flax.linen.Dense``."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.inputs, self.outputs))
        return kernel, self.param("bias", nn.initializers.zeros, (self.outputs,))


class ContextMemory(nn.Module):
    """Attention over the support's transitions, compressed to a constant size: fast weights.

    For entity i and period t, a key ``k_ti`` is read from what was seen and decided, a value ``v_ti`` from that and
    what followed (next tokens, reward). Linear attention (Katharopoulos 2020; Schlag 2021) of a query ``q`` over them:
    ``mean_t <q, k_ti> v_ti = q^T A_i`` with ``A_i = mean_t k_ti v_ti^T``: a regression of outcomes on situations that
    is computed once per task and costs the same to ask however many episodes were seen. With n episodes it is shrunk by
    ``n / (n + tau)``, as a posterior mean is. Without support it is zero. What is lost: the order of the periods.

    Attributes:
      width: d, of the summary.
      channels: C, of keys and values.
    """

    width: int
    channels: int

    @nn.compact
    def __call__(self, support: PeriodHistory) -> Memory:
        """Memory of one task (no batch axes)."""
        chex.assert_rank([support.tokens, support.decisions, support.reward, support.valid], [4, 4, 2, 2])
        features, channels = support.tokens.shape[-1], self.channels
        decided = support.decisions.shape[-1]
        key_kernel, key_bias = Affine(2 * features + decided, channels, name="key")()
        value_kernel, value_bias = Affine(4 * features + decided + 1, channels, name="value")()
        # A key is an affine map of own token, mean token and decision, a value of these, both tokens a period later and
        # the reward. What all entities have in common meets its own rows of a kernel once, not once an entity; and each
        # product is what one map needs, because cutting a wider one in pieces costs a CPU more than all sums in it.
        key_own, key_mean, key_decided = jnp.split(key_kernel, [features, 2 * features])
        cuts = [features, 2 * features, 2 * features + decided, 3 * features + decided, 4 * features + decided]
        now_own, now_mean, now_decided, next_own, next_mean, paid = jnp.split(value_kernel, cuts)
        tokens, decisions = jnp.moveaxis(support.tokens, 2, 0), jnp.moveaxis(support.decisions, 2, 0)  # [N, K, ...]
        own = jnp.concatenate([tokens[:, :, :-1], decisions], axis=-1)
        share = support.token_mask / jnp.maximum(support.token_mask.sum(), 1)
        mean = jnp.einsum("kpnf,n->kpf", support.tokens, share)  # [K, P+1, F]
        now, later = mean[:, :-1], mean[:, 1:]
        key = own @ jnp.concatenate([key_own, key_decided]) + (now @ key_mean + key_bias)
        value = own @ jnp.concatenate([now_own, now_decided]) + tokens[:, :, 1:] @ next_own
        value += now @ now_mean + later @ next_mean + support.reward[..., None] * paid + value_bias

        used = support.valid.astype(key.dtype)
        key, value = half_rectified(key) * used[..., None], half_rectified(value)
        association = jnp.einsum("nkpc,nkpd->ncd", key, value) / jnp.maximum(used.sum(), 1.0)

        episodes = jnp.sum(jnp.any(support.valid, axis=-1)).astype(key.dtype)
        tau = nn.softplus(self.param("tau", nn.initializers.zeros, ()))
        association = association * (episodes / (episodes + tau))

        flat = association.reshape(association.shape[0], -1)
        share = jnp.full((flat.shape[0], 1), episodes / support.valid.shape[0])
        summary = nn.gelu(nn.Dense(2 * self.width, name="combine")(jnp.concatenate([flat, share], axis=-1)))
        summary = nn.Dense(self.width, name="summary")(summary)
        return Memory(association, jnp.where(episodes > 0, summary, 0.0))


class MemoryRead(nn.Module):
    """Asks every entity's memory with a query made from its present token.

    Attributes:
      width: d, of the answer.
    """

    width: int

    @nn.compact
    def __call__(self, tokens: chex.Array, memory: Memory) -> chex.Array:
        """Answers ``f32[..., N, width]`` to a batch of ``tokens f32[..., N, F]`` of the task that was remembered."""
        query = half_rectified(nn.Dense(memory.association.shape[-1], name="query")(tokens))
        # Entities first: a matrix product for each, over the whole batch. A product and a sum would cost as little
        # forwards, but fifteen times as much backwards, where a CPU writes every pair of query and value out.
        entities, channels = memory.association.shape[:2]
        rows = jnp.moveaxis(query, -2, 0).reshape(entities, -1, channels)
        answer = jnp.moveaxis((rows @ memory.association).reshape(entities, *query.shape[:-2], channels), 0, -2)
        return nn.Dense(self.width, use_bias=False, name="answer")(answer) + memory.summary
