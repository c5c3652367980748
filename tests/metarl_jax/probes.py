"""Probe environments: each can only be learned if one particular part of the learner works.

All have the same shapes, so one compiled update serves them. Two tokens, two actions, one choice a period, no noise:
what is on show in token 0 is redrawn every period, ``bit`` is drawn once a task and never shown.
"""

from __future__ import annotations

from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import TOKEN_COLUMNS, Observation, make_observation


@struct.dataclass
class ProbeState(EnvState):
    """``shown f32[]`` in {-1, 1}; ``chosen i32[]`` in this period; ``before i32[]`` in the last."""

    shown: chex.Array
    chosen: chex.Array
    before: chex.Array


@struct.dataclass
class ProbeParams(EnvParams):
    """``bit i32[]`` in {0, 1} is hidden."""

    bit: chex.Array


class Probe(ResourceEnv[ProbeState, ProbeParams]):
    """What all probes share; each states its reward and its best action."""

    hidden: ClassVar[tuple[str, ...]] = ("bit",)
    reference_kind = "optimal"
    num_turns = 1
    num_periods = 4
    num_tokens = 2
    num_actions = 2
    num_uniforms = 1
    num_reset_uniforms = 1
    discount_factor = 0.5

    def pay(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        raise NotImplementedError

    def best(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return jnp.int32(0)

    @property
    def default_params(self) -> ProbeParams:
        return ProbeParams(jnp.int32(self.horizon), jnp.int32(0))

    def sample_params(self, key: chex.PRNGKey) -> ProbeParams:
        return ProbeParams(jnp.int32(self.horizon), jax.random.bernoulli(key).astype(jnp.int32))

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: ProbeParams) -> ProbeState:
        return ProbeState(
            **self.clock(key), shown=jnp.where(uniforms[0] < 0.5, -1.0, 1.0), chosen=jnp.int32(0), before=jnp.int32(0)
        )

    def choose(self, state: ProbeState, turn: chex.Array, action: chex.Array, params: ProbeParams) -> ProbeState:
        return state.replace(chosen=action)

    def advance(
        self, state: ProbeState, uniforms: chex.Array, params: ProbeParams
    ) -> tuple[ProbeState, chex.Array, dict[str, chex.Array]]:
        reward = jnp.asarray(self.pay(state, params), jnp.float32)
        following = state.replace(shown=jnp.where(uniforms[0] < 0.5, -1.0, 1.0), before=state.chosen)
        return following, reward, {"expected_reward": reward}

    def observation(self, state: ProbeState, params: ProbeParams) -> Observation:
        first = jnp.arange(self.num_tokens) == 0
        store = {
            "private_a": jnp.where(first, state.shown, 0.0),
            "level": jnp.where(first, 2.0 * state.before - 1.0, 0.0),
            "is_turn": first,
            "progress": self.progress(state),
        }
        return make_observation(
            tokens=[("store", self.num_tokens, store)],
            actions={"signed": 2.0 * jnp.arange(self.num_actions) - 1.0},
            action_target=jnp.zeros(self.num_actions, jnp.int32),
            action_mask=jnp.ones(self.num_actions, bool),
        )

    def reference_action(self, plan: object, state: ProbeState, params: ProbeParams, key: chex.PRNGKey) -> chex.Array:
        return jnp.asarray(self.best(state, params), jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        return jnp.int32(0)


class Shown(Probe):
    """Pays what is shown, whatever is chosen: only the value of an observation is to be learned."""

    name = "shown"

    def pay(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return state.shown


class Late(Probe):
    """Pays 1 in the last period and 0 before, whatever is chosen: values of earlier periods come from bootstrapping."""

    name = "late"

    def pay(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return self.period(state) == self.num_periods - 1


class Choice(Probe):
    """Pays 1 for action 1: the simplest choice."""

    name = "choice"

    def pay(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return state.chosen == 1

    def best(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return jnp.int32(1)


class Match(Probe):
    """Pays 1 for the action that has the sign of what is shown."""

    name = "match"

    def pay(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return state.chosen == self.best(state, params)

    def best(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return (state.shown > 0).astype(jnp.int32)


class Hidden(Probe):
    """Two tasks: the hidden bit says which action pays. Nothing on show tells: without support one can only guess."""

    name = "hidden"

    def pay(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return state.chosen == params.bit

    def best(self, state: ProbeState, params: ProbeParams) -> chex.Array:
        return params.bit


class Felt(Hidden):
    """As :class:`Hidden`, but the last reward is on show, as in every domain: who remembers it knows the task."""

    name = "felt"

    def observation(self, state: ProbeState, params: ProbeParams) -> Observation:
        seen = super().observation(state, params)
        column = TOKEN_COLUMNS.index("last_reward")
        return seen.replace(tokens=seen.tokens.at[:, column].set(state.last_reward))


PROBES = (Shown(), Late(), Choice(), Match(), Hidden(), Felt())
