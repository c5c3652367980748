"""A recurrent state beside the Transformer: what an agent remembers from choice to choice, from episode to episode."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax.numpy as jnp

from envs_jax.observation import Observation
from metarl_jax.configs import NetworkConfig
from metarl_jax.networks.transformer import masked_mean


class Recurrence(nn.Module):
    """A gated recurrent unit (Cho 2014) over pooled tokens and the description of the last action.

    The last reward is a column of the tokens. The state's read-out is added to every token before the first block, as
    the memory's answer is.
    """

    config: NetworkConfig

    def setup(self) -> None:
        """Names the parts."""
        c = self.config
        self.encode = nn.Dense(c.width)
        self.slots = self.param("slots", nn.initializers.normal(0.1), (c.slots, c.width))
        self.unit = nn.GRUCell(c.hidden)
        self.out = nn.Dense(c.width, use_bias=False)

    def inputs(self, observation: Observation, last: chex.Array) -> chex.Array:
        """``f32[..., d + G]`` from an observation and the last action's description ``f32[..., G]``."""
        tokens = nn.gelu(self.encode(observation.tokens) + self.slots[: observation.tokens.shape[-2]])
        return jnp.concatenate([masked_mean(tokens, observation.token_mask), last], axis=-1)

    def step(self, hidden: chex.Array, inputs: chex.Array) -> chex.Array:
        """The next state ``f32[..., H]``."""
        return self.unit(hidden, inputs)[0]

    def read(self, hidden: chex.Array) -> chex.Array:
        """What is added to every token: ``f32[..., d]``."""
        return self.out(hidden)

    def __call__(self, observation: Observation, last: chex.Array) -> chex.Array:
        """One step from the zero state; names all parameters."""
        inputs = self.inputs(observation, last)
        return self.read(self.step(jnp.zeros((*inputs.shape[:-1], self.config.hidden)), inputs))
