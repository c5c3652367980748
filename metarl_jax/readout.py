"""Advantages that are linear in fixed features, the same in all domains, and acting by a lower bound of them.

Features of an action: its description; the token it concerns; that token and the mean of all tokens, times the
direction ``signed``; the mean token of doing nothing; which token it is, and that times ``signed``. All are centred
over the legal actions of the state, so that the features of a uniformly random choice are uncorrelated with the state:
a regression on them estimates advantages whatever the state is worth, as in a randomised experiment. ``last_reward`` is
left out: nothing in a feature repeats what is to be predicted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax.observation import ACTION_COLUMNS, PRIVATE_ACTION_COLUMNS, ROLES, TOKEN_COLUMNS, Observation, column_index
from metarl_jax.networks.actor import ActingMode, choose
from metarl_jax.types import MASKED

_KEPT = tuple(name for name in TOKEN_COLUMNS if name != "last_reward")
_ROWS = np.array([column_index(name) for name in _KEPT])
_NOOP, _SIGNED = (column_index(name, ACTION_COLUMNS) for name in ("is_noop", "signed"))

_MEANING = {
    **dict.fromkeys(("urgency", "slack"), "need"),
    **dict.fromkeys((f"role_{role}" for role in ROLES), "role"),
    **dict.fromkeys(("level", "capacity", "inflow", "outflow", "waiting", "age"), "amount"),
    **dict.fromkeys(("unit_cost", "unit_value"), "price"),
    **dict.fromkeys(("is_turn", "is_candidate", "decided"), "turn"),
    **dict.fromkeys(("cycle_sin", "cycle_cos", "progress"), "time"),
}
"""Token columns that share a precision; what is not here is private."""

_BLOCKS = ("target", "target x signed", "mean x signed", "mean x no-op")


@dataclasses.dataclass(frozen=True)
class AdvantageBasis:
    """The features of a suite. Hashable.

    Attributes:
      slots: N of the suite; a domain may have fewer tokens.
    """

    slots: int

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each of the D features; features of a group share a precision."""
        action = [f"action {'private' if name in PRIVATE_ACTION_COLUMNS else name}" for name in ACTION_COLUMNS]
        tokens = [f"{block} {_MEANING.get(name, 'private')}" for block in _BLOCKS for name in _KEPT]
        return (*action, *tokens, *("slot",) * self.slots, *("slot x signed",) * self.slots)

    @property
    def private(self) -> np.ndarray:
        """``bool[D]``: whose columns have a scale of their domain's own."""
        return np.array([group.endswith("private") for group in self.groups])

    @property
    def peers(self) -> np.ndarray:
        """``f32[D, D]``: row d averages over the columns of d's block that have a definition."""
        block = np.array([group.rpartition(" ")[0] for group in self.groups])
        alike = (block[:, None] == block) & ~self.private
        return (alike / alike.sum(1, keepdims=True)).astype(np.float32)

    @property
    def aligned(self) -> np.ndarray:
        """``f32[D]`` the direction (urgency - slack) x signed of the target: give to whom waiting costs most."""
        start = len(ACTION_COLUMNS) + len(_KEPT) * _BLOCKS.index("target x signed")
        direction = np.zeros(len(self.groups), np.float32)
        direction[start + _KEPT.index("urgency")], direction[start + _KEPT.index("slack")] = 1.0, -1.0
        return direction

    def actions(self, seen: Observation) -> chex.Array:
        """Features ``f32[..., A, D]`` of all actions; their mean over the legal ones is 0."""
        tokens = jnp.where(seen.token_mask[..., None], seen.tokens, 0.0)[..., _ROWS]
        mean = (tokens.sum(-2) / jnp.maximum(seen.token_mask.sum(-1, keepdims=True), 1))[..., None, :]
        which = (seen.action_target[..., None] == jnp.arange(self.slots)).astype(jnp.float32)  # none is -1: all 0
        target = which[..., : tokens.shape[-2]] @ tokens
        noop, signed = seen.actions[..., _NOOP, None], seen.actions[..., _SIGNED, None]
        blocks = (seen.actions, target, target * signed, mean * signed, mean * noop, which, which * signed)
        features = jnp.concatenate(blocks, axis=-1)
        legal = seen.action_mask[..., None].astype(jnp.float32)
        return features - (features * legal).sum(-2, keepdims=True) / jnp.maximum(legal.sum(-2, keepdims=True), 1.0)

    def chosen(self, seen: Observation, action: chex.Array) -> chex.Array:
        """Features ``f32[..., D]`` of the actions ``i32[...]`` that were chosen."""
        return jnp.take_along_axis(self.actions(seen), action[..., None, None], axis=-2)[..., 0, :]

    def state(self, seen: Observation) -> chex.Array:
        """Features ``f32[..., S]`` in which a state's value is linear: 1, the mean token, those whose turn it is."""
        tokens = jnp.where(seen.token_mask[..., None], seen.tokens, 0.0)[..., _ROWS]
        mean = tokens.sum(-2) / jnp.maximum(seen.token_mask.sum(-1, keepdims=True), 1)
        turn = (tokens * tokens[..., _KEPT.index("is_turn"), None]).sum(-2)
        return jnp.concatenate([jnp.ones((*mean.shape[:-1], 1)), mean, turn], axis=-1)


@struct.dataclass
class Policy:
    """The posterior of one task, and how it is acted on.

    Attributes:
      mean: ``f32[D]`` of the weights.
      covariance: ``f32[D, D]``.
      kappa: ``f32[]`` standard deviations of caution.
      to_noop: ``f32[]`` 1: advantages over doing nothing; 0: over the average legal action.
    """

    mean: chex.Array
    covariance: chex.Array
    kappa: chex.Array
    to_noop: chex.Array

    def lower_bounds(self, features: chex.Array, seen: Observation) -> chex.Array:
        """``mean - kappa sd`` of each action's advantage over the default, ``f32[..., A]``; illegal ones about -1e9.

        Args:
          features: ``f32[..., A, D]`` of the actions.
          seen: the observations.
        """
        noop = seen.actions[..., _NOOP] * seen.action_mask
        default = self.to_noop * noop / jnp.maximum(noop.sum(-1, keepdims=True), 1.0)
        over = features - (default[..., None] * features).sum(-2, keepdims=True)
        variance = ((over @ self.covariance) * over).sum(-1)
        deviation = jnp.sqrt(jnp.maximum(variance, 1e-12))  # the no-op has none, and a gradient nevertheless
        bound = over @ self.mean - self.kappa * deviation * (1.0 - self.to_noop * noop)
        return jnp.where(seen.action_mask, bound + 1e-6 * noop, MASKED)  # of equals, doing nothing


@dataclasses.dataclass(frozen=True)
class ReadoutActor:
    """Acts by the largest lower bound; remembers nothing.

    Attributes:
      basis: the features.
    """

    basis: AdvantageBasis

    def start(self, params: Any, policy: Policy) -> tuple[()]:
        """Nothing is carried."""
        del params, policy
        return ()

    def act(
        self, params: Any, policy: Policy, carry: tuple[()], seen: Observation, key: chex.PRNGKey, mode: ActingMode
    ) -> tuple[chex.Array, tuple[()]]:
        """Choices ``i32[E]`` in a batch of one task's observations."""
        del params
        return choose(policy.lower_bounds(self.basis.actions(seen), seen), seen, key, mode), carry
