"""The agent network: Q(s, a) for described actions over entity tokens, with an optional task memory.

``trunk`` maps an observation (and a memory) to token features, ``head`` maps those and the action descriptions to Q.
They are separate so that adapting only the head reuses the trunk's features over all inner steps. Parameters are one
dict ``{"trunk": ..., "memory": ..., "head": ...}``.
"""

from __future__ import annotations

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.observation import NUM_ACTION_FEATURES, NUM_TOKEN_FEATURES, Observation
from metarl_jax.configs import NetworkConfig
from metarl_jax.networks.memory import ContextMemory, Memory, MemoryRead
from metarl_jax.networks.recurrence import Recurrence
from metarl_jax.networks.transformer import Block, SetBlock, masked_mean
from metarl_jax.types import MASKED, PeriodHistory

Params = dict[str, Any]

SLOT_SCALE = 0.1
"""Standard deviation of the initial slot embeddings."""


@struct.dataclass
class Features:
    """What the trunk says of an observation: ``tokens f32[..., N, d]`` and their mean ``pooled f32[..., d]``."""

    tokens: chex.Array
    pooled: chex.Array


class Trunk(nn.Module):
    """Token embedding, slot embedding, memory, blocks."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, observation: Observation, memory: Memory, extra: chex.Array | None = None) -> Features:
        """Features of a batch ``[..., N, F]`` given a task's memory, and what is added to every token ``[..., d]``."""
        c = self.config
        tokens = observation.tokens.shape[-2]
        # A permutation-equivariant network cannot learn by gradient what is special about one entity: slots differ.
        slots = self.param("slots", nn.initializers.normal(SLOT_SCALE), (c.slots, c.width))[:tokens]
        x = nn.Dense(c.width, name="embed")(observation.tokens) + slots
        x = x + MemoryRead(c.width, name="read")(observation.tokens, memory)
        if extra is not None:
            x = x + extra[..., None, :]
        for i in range(c.layers):
            if c.mixing == "attention":
                x = Block(c.heads, c.expansion, name=f"block_{i}")(x, observation.token_mask)
            else:
                x = SetBlock(c.expansion, name=f"block_{i}")(x, observation.token_mask)
        x = nn.LayerNorm(name="norm")(x)
        return Features(x, masked_mean(x, observation.token_mask))


def action_basis(actions: chex.Array) -> chex.Array:
    """Action descriptions ``f32[..., G]`` with their Chebyshev polynomials T2..T5, ``f32[..., 5 G]``.

    Through these, near amounts can have different values at once. Descriptions are about [-1, 1]; the polynomials take
    what is cut to that. Sines would do as well, at a third of the time of the whole network on a CPU.
    """
    x = jnp.clip(actions, -1.0, 1.0)
    polynomials = [x, 2.0 * x * x - 1.0]
    for _ in range(3):
        polynomials.append(2.0 * x * polynomials[-1] - polynomials[-2])
    return jnp.concatenate([actions, *polynomials[1:]], axis=-1)


class DuelingHead(nn.Module):
    """``Q(s, a) = V(pooled) + A(pooled, target token, description) - mean over legal actions of A`` (Wang 2016).

    Attributes:
      config: shape of the network.
      dueling: whether the mean is taken off. Without, ``Q = V + A`` is one plain output with a part that all actions
        share; parameters and greedy choices are the same.
    """

    config: NetworkConfig
    dueling: bool = True

    @nn.compact
    def __call__(self, features: Features, observation: Observation) -> tuple[chex.Array, chex.Array]:
        """Q values and predicted rewards, both ``f32[..., A]``; Q of illegal actions is about -1e9."""
        width = self.config.head_width
        hidden = nn.gelu(nn.Dense(width, name="value_hidden")(features.pooled))
        value = nn.Dense(1, name="value")(hidden)

        per_token = nn.Dense(width, name="target")(features.tokens)
        n = per_token.shape[-2]
        chosen = jax.nn.one_hot(observation.action_target, n, dtype=per_token.dtype)  # -1 selects no token
        z = jnp.einsum("...an,...nh->...ah", chosen, per_token)
        z = z + nn.Dense(width, use_bias=False, name="state")(features.pooled)[..., None, :]
        z = nn.gelu(z + nn.Dense(width, use_bias=False, name="action")(action_basis(observation.actions)))
        advantage, reward = jnp.split(nn.Dense(2, name="advantage")(z), 2, axis=-1)
        advantage, reward = advantage[..., 0], reward[..., 0]

        q = value + advantage
        if self.dueling:
            legal = observation.action_mask.astype(advantage.dtype)
            total = jnp.sum(advantage * legal, axis=-1, keepdims=True)
            q = q - total / jnp.maximum(legal.sum(-1, keepdims=True), 1.0)
        return jnp.where(observation.action_mask, q, MASKED), reward


def drawn(key: chex.PRNGKey, shapes: Params) -> Params:
    """Parameters of given shapes by flax's defaults (LeCun normal kernels, zero biases), drawn at once.

    One draw cut into pieces is a program of a few operations; one a layer compiles for seconds.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path(shapes)
    draws = jax.random.truncated_normal(key, -2.0, 2.0, (sum(leaf.size for _, leaf in paths),), jnp.float32)
    draws = draws / 0.87962566  # the standard deviation of what is left of a normal cut at two
    leaves, used = [], 0
    for path, leaf in paths:
        name = path[-1].key
        own = draws[used : used + leaf.size].reshape(leaf.shape)
        used += leaf.size
        if name == "kernel":
            leaves.append(own * leaf.shape[0] ** -0.5)
        elif name == "slots":
            leaves.append(own * SLOT_SCALE)
        else:
            leaves.append(jnp.full(leaf.shape, 1.0 if name == "scale" else 0.0, jnp.float32))
    return jax.tree.unflatten(tree, leaves)


class AgentNetwork:
    """Pure functions of explicit parameters around the modules above.

    Args:
      config: shape of the network.
      use_memory: False drops the context memory (multitask agents without meta-learning).
      recurrent: True adds a recurrent state (parameters ``"cell"``).
      dueling: False makes Q a plain output, see :class:`DuelingHead`.
    """

    def __init__(self, config: NetworkConfig, use_memory: bool = True, recurrent: bool = False, dueling: bool = True):
        self.config = config
        self.use_memory = use_memory
        self.recurrent = recurrent
        self._trunk = Trunk(config)
        self._cell = Recurrence(config)
        self._memory = ContextMemory(config.width, config.channels)
        self._head = DuelingHead(config, dueling)

    def init(
        self,
        key: chex.PRNGKey,
        num_tokens: int,
        num_actions: int,
        token_features: int = NUM_TOKEN_FEATURES,
        action_features: int = NUM_ACTION_FEATURES,
    ) -> Params:
        """Initial parameters, see :func:`drawn`."""
        sizes = (num_tokens, num_actions, token_features, action_features)
        return drawn(key, jax.eval_shape(lambda key: self._modules(key, *sizes), key))

    def _modules(
        self, key: chex.PRNGKey, num_tokens: int, num_actions: int, token_features: int, action_features: int
    ) -> Params:
        observation = Observation(
            tokens=jnp.zeros((num_tokens, token_features)),
            token_mask=jnp.ones((num_tokens,), bool),
            actions=jnp.zeros((num_actions, action_features)),
            action_target=jnp.zeros((num_actions,), jnp.int32),
            action_mask=jnp.ones((num_actions,), bool),
        )
        memory = self.no_memory(num_tokens)
        trunk = self._trunk.init(key, observation, memory)
        features = self._trunk.apply(trunk, observation, memory)
        params = {"trunk": trunk["params"], "head": self._head.init(key, features, observation)["params"]}
        if self.use_memory:
            support = PeriodHistory(
                tokens=jnp.zeros((1, 2, num_tokens, token_features)),
                token_mask=jnp.ones((num_tokens,), bool),
                decisions=jnp.zeros((1, 1, num_tokens, action_features)),
                reward=jnp.zeros((1, 1)),
                valid=jnp.ones((1, 1), bool),
            )
            params["memory"] = self._memory.init(key, support)["params"]
        if self.recurrent:
            params["cell"] = self._cell.init(key, observation, jnp.zeros(action_features))["params"]
        return params

    def no_memory(self, num_tokens: int) -> Memory:
        """The memory of a task of which nothing was seen."""
        c = self.config
        association = jnp.zeros((num_tokens, c.channels, c.channels))
        return Memory(association, jnp.zeros((num_tokens, c.width)))

    def remember(self, params: Params, support: PeriodHistory) -> Memory:
        """Memory of one task's support."""
        if not self.use_memory:
            return self.no_memory(support.tokens.shape[-2])
        memory: Any = self._memory.apply({"params": params["memory"]}, support)
        return memory

    def trunk(
        self, params: Params, observation: Observation, memory: Memory, extra: chex.Array | None = None
    ) -> Features:
        """Features of a batch of one task's observations, with ``extra f32[..., d]`` added to every token."""
        features: Any = self._trunk.apply({"params": params["trunk"]}, observation, memory, extra)
        return features

    def recurrent_inputs(self, params: Params, observation: Observation, last: chex.Array) -> chex.Array:
        """What the recurrent state is updated from: an observation and the description of the choice before it."""
        inputs: Any = self._cell.apply({"params": params["cell"]}, observation, last, method="inputs")
        return inputs

    def recur(self, params: Params, hidden: chex.Array, inputs: chex.Array) -> chex.Array:
        """The next recurrent state ``f32[..., H]``."""
        following: Any = self._cell.apply({"params": params["cell"]}, hidden, inputs, method="step")
        return following

    def recurrent_answer(self, params: Params, hidden: chex.Array) -> chex.Array:
        """What the recurrent state adds to every token: ``f32[..., d]``."""
        answer: Any = self._cell.apply({"params": params["cell"]}, hidden, method="read")
        return answer

    def head(self, params: Params, features: Features, observation: Observation) -> tuple[chex.Array, chex.Array]:
        """Q values and predicted rewards ``f32[..., A]``."""
        return self._head.apply({"params": params["head"]}, features, observation)

    def q_values(self, params: Params, observation: Observation, memory: Memory) -> chex.Array:
        """``Q f32[..., A]`` of one task's observations."""
        return self.head(params, self.trunk(params, observation, memory), observation)[0]
