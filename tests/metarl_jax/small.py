"""Networks, observations and supports small enough to compile in a second."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.observation import NUM_ACTION_FEATURES, NUM_TOKEN_FEATURES, Observation
from metarl_jax.configs import NetworkConfig
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.types import PeriodHistory, Support, Transition

NETWORK = NetworkConfig(width=8, layers=1, heads=2, expansion=1, channels=4, head_width=8, slots=4)
TOKENS, ACTIONS = 2, 3
EPISODES, PERIODS, SAMPLES = 2, 2, 3


@functools.partial(jax.jit, static_argnums=(0,))  # run op by op, initialising costs several seconds
def init(network: AgentNetwork, key: chex.PRNGKey) -> Params:
    return network.init(key, TOKENS, ACTIONS)


def observations(rng: np.random.Generator, *batch: int, tokens: int = TOKENS, actions: int = ACTIONS) -> Observation:
    """Random observations in which every token exists and the last action is illegal."""
    legal = np.ones((*batch, actions), bool)
    legal[..., -1] = False
    return Observation(
        tokens=jnp.asarray(rng.uniform(-1, 1, (*batch, tokens, NUM_TOKEN_FEATURES)), jnp.float32),
        token_mask=jnp.ones((*batch, tokens), bool),
        actions=jnp.asarray(rng.uniform(-1, 1, (*batch, actions, NUM_ACTION_FEATURES)), jnp.float32),
        action_target=jnp.asarray(rng.integers(-1, tokens, (*batch, actions)), jnp.int32),
        action_mask=jnp.asarray(legal),
    )


def history(rng: np.random.Generator, episodes: int = EPISODES) -> PeriodHistory:
    """Random support periods of one task."""
    shape = (episodes, PERIODS)
    return PeriodHistory(
        tokens=jnp.asarray(rng.uniform(-1, 1, (episodes, PERIODS + 1, TOKENS, NUM_TOKEN_FEATURES)), jnp.float32),
        token_mask=jnp.ones(TOKENS, bool),
        decisions=jnp.asarray(rng.uniform(-1, 1, (*shape, TOKENS, NUM_ACTION_FEATURES)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=shape), jnp.float32),
        valid=jnp.ones(shape, bool),
    )


def transitions(rng: np.random.Generator, *batch: int, actions: int = ACTIONS) -> Transition:
    """Random legal choices with random outcomes."""
    return Transition(
        observation=observations(rng, *batch, actions=actions),
        action=jnp.asarray(rng.integers(0, actions - 1, batch), jnp.int32),
        reward=jnp.asarray(rng.normal(size=batch), jnp.float32),
        span=jnp.ones(batch, jnp.float32),
        discount=jnp.full(batch, 0.9, jnp.float32),
        next_observation=observations(rng, *batch, actions=actions),
        immediate=jnp.asarray(rng.normal(size=batch), jnp.float32),
        reference=jnp.asarray(rng.integers(0, actions - 1, batch), jnp.int32),
        weight=jnp.ones(batch, jnp.float32),
    )


def support(rng: np.random.Generator, actions: int = ACTIONS) -> Support:
    """Random support of one task."""
    return Support(history(rng), transitions(rng, EPISODES, SAMPLES, actions=actions))


def as_float64(tree: Any) -> Any:
    """The same pytree with its floats in double precision (inside ``jax.enable_x64``)."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
