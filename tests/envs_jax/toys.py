"""A domain small enough to work out every return by hand."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, make_observation


@struct.dataclass
class ToyState(EnvState):
    """``earned f32[]``: what this period's choices will pay; ``noise f32[]``: of the last period."""

    earned: chex.Array
    noise: chex.Array


@struct.dataclass
class ToyParams(EnvParams):
    """``gain f32[]`` is hidden, ``toll f32[]`` shown."""

    gain: chex.Array
    toll: chex.Array


class Toy(ResourceEnv[ToyState, ToyParams]):
    """Choice 0 pays nothing, 1 pays ``g = gain - toll``, ``a >= 2`` pays ``a - 1`` but is illegal on turn 0.

    The realised reward adds ``u - 1/2``. With three actions and two turns an episode of P periods is worth: no-op 0;
    heuristic (the last legal action) ``P (g + 1)``; reference ``P (max(g, 0) + max(g, 1))``; random, on average,
    ``P (g / 2 + (g + 1) / 3)``.
    """

    name = "toy"
    hidden = ("gain",)
    reference_kind = "optimal"
    num_uniforms = 1

    def __init__(self, num_turns: int = 2, num_periods: int = 3, num_actions: int = 3) -> None:
        self.num_turns = self.num_tokens = num_turns
        self.num_periods = num_periods
        self.num_actions = num_actions

    @property
    def default_params(self) -> ToyParams:
        return self.task(2.0, 0.5)

    def task(self, gain: float, toll: float) -> ToyParams:
        return ToyParams(jnp.int32(self.horizon), jnp.float32(gain), jnp.float32(toll))

    def sample_params(self, key: chex.PRNGKey) -> ToyParams:
        gain, toll = jax.random.uniform(key, (2,)) * jnp.array([4.0, 1.0])
        return self.default_params.replace(gain=gain, toll=toll)

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: ToyParams) -> ToyState:
        del uniforms, params
        return ToyState(**self.clock(key), earned=jnp.float32(0.0), noise=jnp.float32(0.0))

    def choose(self, state: ToyState, turn: chex.Array, action: chex.Array, params: ToyParams) -> ToyState:
        pay = jnp.append(jnp.array([0.0]), jnp.arange(self.num_actions - 1.0)).at[1].set(params.gain - params.toll)
        return state.replace(earned=state.earned + pay[action])

    def advance(
        self, state: ToyState, uniforms: chex.Array, params: ToyParams
    ) -> tuple[ToyState, chex.Array, dict[str, chex.Array]]:
        noise = uniforms[0] - 0.5
        following = state.replace(earned=jnp.float32(0.0), noise=noise)
        return following, state.earned + noise, {"expected_reward": state.earned}

    def observation(self, state: ToyState, params: ToyParams) -> Observation:
        turn, actions = self.turn(state), jnp.arange(self.num_actions)
        store = {
            "private_a": state.noise,
            "unit_cost": params.toll,
            "is_turn": jnp.arange(self.num_tokens) == turn,
            "progress": self.progress(state),
        }
        return make_observation(
            tokens=[("store", self.num_tokens, store)],
            actions={"is_noop": actions == 0, "amount": actions / 2},
            action_target=jnp.full(self.num_actions, turn, jnp.int32),
            action_mask=(actions < 2) | (turn > 0),
        )

    def solve(self, params: ToyParams) -> chex.Array:
        return params.gain - params.toll

    def reference_action(self, plan: chex.Array, state: ToyState, params: ToyParams, key: chex.PRNGKey) -> chex.Array:
        del params, key
        best = jnp.where(self.turn(state) > 0, self.num_actions - 1, 0)
        return jnp.where(plan > jnp.maximum(best - 1, 0), 1, best).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        del key
        return jnp.sum(observation.action_mask, dtype=jnp.int32) - 1


class RememberingToy(Toy):
    """Its heuristic does nothing in the first period of an episode, then what :class:`Toy`'s does."""

    def heuristic_start(self) -> chex.Array:
        return jnp.int32(0)

    def heuristic_step(
        self, memory: chex.Array, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, chex.Array]:
        served = self.heuristic_action(observation, key)
        return jnp.where(memory < self.num_turns, self.noop_action, served), memory + 1
