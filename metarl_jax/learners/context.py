"""Task inference in context with a decoding loss; no gradient step in a new task.

    m    = memory(support),   Q(s, a | m) by the shared network
    loss = TD error + w_r (r^(s, a, m) - r)^2 + w_s |s'^(s, a, m) - s'|^2

r is the reward of a query choice's period, s' the tokens at the same turn n periods later; both are predicted by a
decoder that reads the memory and what was seen and chosen, but shares no parameter with the network that acts. So the
memory must hold what tells tasks apart by their rewards and dynamics, even where values do not show it yet.

Sources: PEARL (Rakelly 2019) infers the task from unordered transitions, and lets the critic's gradient into the
encoder; VariBAD (Zintgraf 2020) trains the encoder to decode rewards and next states, of periods beyond those it read;
MQL (Fakoor 2020) shows that context with a multitask Q-learner is a strong baseline.

Differs from all: what is inferred is a memory for every entity, shrunk towards 0 as a posterior mean is, not a sampled
vector, so there is no KL term and no exploration by posterior sampling; the critic's gradient enters the memory (as in
PEARL, unlike VariBAD). From MQL: nothing is adapted off-policy at test time. From ``transformer_maml_dqn`` with
``order="none"`` it differs by the decoder alone.
"""

from __future__ import annotations

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax.adaptation import weighted_mean
from metarl_jax.configs import ContextConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner, Metrics
from metarl_jax.learners.q_learning import Auxiliary, Recipe
from metarl_jax.networks.agent import Params, drawn
from metarl_jax.networks.memory import Memory, MemoryRead
from metarl_jax.networks.transformer import masked_mean
from metarl_jax.types import Transition


class Decoder(nn.Module):
    """What a memory says will follow a choice.

    Attributes:
      width: d, of hidden layers.
    """

    width: int

    @nn.compact
    def __call__(self, seen: Observation, action: chex.Array, memory: Memory) -> tuple[chex.Array, chex.Array]:
        """Reward ``f32[...]`` and change of the tokens ``f32[..., N, F]`` of one task's choices ``i32[...]``."""
        described = jnp.take_along_axis(seen.actions, action[..., None, None], axis=-2)[..., 0, :]
        target = jnp.take_along_axis(seen.action_target, action[..., None], axis=-1)[..., 0]
        at = jax.nn.one_hot(target, seen.tokens.shape[-2], dtype=described.dtype)  # -1 is no token
        x = nn.Dense(self.width, name="embed")(seen.tokens) + MemoryRead(self.width, name="read")(seen.tokens, memory)
        x = x + at[..., None] * nn.Dense(self.width, use_bias=False, name="decision")(described)[..., None, :]
        x = nn.gelu(x)
        both = jnp.concatenate([masked_mean(x, seen.token_mask), described], axis=-1)
        x = nn.gelu(nn.Dense(self.width, name="own")(x) + nn.Dense(self.width, name="mean")(both)[..., None, :])
        change = nn.Dense(seen.tokens.shape[-1], name="change")(x)
        return nn.Dense(1, name="reward")(masked_mean(x, seen.token_mask))[..., 0], change


def decoding(config: ContextConfig) -> Auxiliary:
    """The decoding loss of a task's queries."""
    decoder = Decoder(config.network.width)

    def init(key: chex.PRNGKey, suite: Suite) -> Params:
        n, a = suite.num_tokens, suite.num_actions

        def shapes() -> Any:
            seen = Observation(
                tokens=jnp.zeros((n, suite.token_features)),
                token_mask=jnp.ones(n, bool),
                actions=jnp.zeros((a, suite.action_features)),
                action_target=jnp.zeros(a, jnp.int32),
                action_mask=jnp.ones(a, bool),
            )
            channels = config.network.channels
            memory = Memory(jnp.zeros((n, channels, channels)), jnp.zeros((n, config.network.width)))
            return decoder.init(key, seen, jnp.int32(0), memory)["params"]

        return drawn(key, jax.eval_shape(shapes))

    def loss(params: Params, memory: Memory, query: Transition) -> tuple[chex.Array, Metrics]:
        seen = query.observation
        predicted: Any = decoder.apply({"params": params}, seen, query.action, memory)
        reward, change = predicted
        of_reward = weighted_mean(jnp.square(reward - query.immediate), query.weight)
        # Beyond the horizon nothing was seen; entities that do not exist do not change.
        error = jnp.square(change - (query.next_observation.tokens - seen.tokens)).mean(-1)
        error = masked_mean(error[..., None], seen.token_mask)[..., 0]
        of_tokens = weighted_mean(error, query.weight * (query.discount > 0))
        metrics = {"reward_decoding": of_reward, "token_decoding": of_tokens}
        return config.reward_decoding * of_reward + config.token_decoding * of_tokens, metrics

    return Auxiliary("decoder", init, loss)


def make(config: ContextConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    parts = (config.network, config.data, config.learning, 0.0)
    recipe = Recipe(*parts, auxiliary=decoding(config), frozen=config.frozen)
    return q_learning.make_context("context", config, suite, recipe)
