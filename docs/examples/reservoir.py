"""A reservoir, the smallest domain with everything a domain has.

Every period some of the ``x`` units of water in it are released, then it rains, and what does not fit spills:

    a in {0, .., 3}, a <= x        x' = min(x - a + w, 10),   w ~ Binomial(4, q)
    R = sqrt(a) - c max(x - a + w - 10, 0)                               [value of a first unit released]

How wet the place is, q, is hidden; c is shown. The reference is the optimum for known q, by backward induction.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import EnvParams, EnvState, Observation, ResourceEnv, sampling
from envs_jax.arrays import vary_like
from envs_jax.observation import make_observation
from envs_jax.references import backward_dp

CAPACITY, MOST, STORMS = 10, 3, 4


@struct.dataclass
class ReservoirState(EnvState):
    """``i32[]`` each [units]: level x, release a chosen for this period, rain w of the last one."""

    level: chex.Array
    release: chex.Array
    rain: chex.Array


@struct.dataclass
class ReservoirParams(EnvParams):
    """``wetness f32[]`` q, hidden; ``spill_cost f32[]`` c per unit."""

    wetness: chex.Array
    spill_cost: chex.Array


class Reservoir(ResourceEnv[ReservoirState, ReservoirParams]):
    """One choice a period: action a releases a units; more than there are is illegal, 0 is the no-op.

    ===== =========== ==================================================
    token column      quantity
    ===== =========== ==================================================
    store urgency     c times what the heaviest rain would spill
    store slack       1 - x / 10
    store level       x / 10
    store capacity    10 units
    store inflow      w, the last rain [4 units]
    store unit_cost   c
    store is_turn     1
    store progress    share of the episode gone
    store last_reward reward of the last period [value of a first unit]
    ===== =========== ==================================================

    Roles: ``store``. An action's ``amount`` and ``signed`` are a / 3: to release relieves the store.
    """

    name = "reservoir"
    hidden = ("wetness",)
    reference_kind = "optimal"
    num_turns = num_tokens = num_uniforms = num_reset_uniforms = 1
    num_actions = MOST + 1

    def __init__(self, num_periods: int = 30) -> None:
        self.num_periods = num_periods

    @property
    def default_params(self) -> ReservoirParams:
        """One unit of rain a period, on average."""
        return ReservoirParams(jnp.int32(self.horizon), jnp.float32(0.25), jnp.float32(0.5))

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> ReservoirParams:
        """Wetness ~ U(.2, .9), spill cost ~ U(0, 1)."""
        u = self.task_uniforms(key, split, 2)
        return self.default_params.replace(wetness=0.2 + 0.7 * u[0], spill_cost=u[1])

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: ReservoirParams) -> ReservoirState:
        """Any level is as likely as another."""
        level = sampling.integers(uniforms[0], 0, CAPACITY)
        return ReservoirState(**self.clock(key), level=level, release=jnp.int32(0), rain=jnp.int32(0))

    def choose(self, state: ReservoirState, turn: chex.Array, action: chex.Array, params: ReservoirParams):
        """Opens the gate."""
        return state.replace(release=action)

    def advance(self, state: ReservoirState, uniforms: chex.Array, params: ReservoirParams):
        """Releases, then it rains. Key figures: ``released`` and ``spilled`` [units]."""
        cdf, kept = sampling.binomial_cdf(STORMS, params.wetness, STORMS + 1), state.level - state.release
        rain, released = sampling.categorical(uniforms[0], cdf), state.release.astype(jnp.float32)
        spilled = jnp.maximum(kept + jnp.arange(STORMS + 1, dtype=jnp.int32) - CAPACITY, 0).astype(jnp.float32)
        reward = jnp.sqrt(released) - params.spill_cost * spilled[rain]
        expected = jnp.sqrt(released) - params.spill_cost * jnp.sum(jnp.diff(cdf, prepend=0.0) * spilled)
        state = state.replace(level=jnp.minimum(kept + rain, CAPACITY), rain=rain)
        return state, reward, {"expected_reward": expected, "released": released, "spilled": spilled[rain]}

    def observation(self, state: ReservoirState, params: ReservoirParams) -> Observation:
        """See the class."""
        level, action = state.level.astype(jnp.float32) / CAPACITY, jnp.arange(self.num_actions, dtype=jnp.int32)
        rain, share = state.rain.astype(jnp.float32) / STORMS, action.astype(jnp.float32) / MOST
        spill = params.spill_cost * jnp.maximum(state.level + STORMS - CAPACITY, 0).astype(jnp.float32)
        water = {"urgency": spill, "slack": 1.0 - level, "level": level, "capacity": CAPACITY, "inflow": rain}
        water |= {"unit_cost": params.spill_cost, "is_turn": 1.0}
        water |= {"progress": self.progress(state), "last_reward": state.last_reward}
        return make_observation(
            tokens=[("store", 1, water)],
            actions={"is_noop": action == 0, "amount": share, "signed": share},
            action_target=jnp.zeros((self.num_actions,), jnp.int32),
            action_mask=action <= state.level,
        )

    def solve(self, params: ReservoirParams) -> backward_dp.Plan:
        """The best release ``i8[P, 1, 11]`` by period and level; water left at the end is worth nothing."""
        level, action, rain = jnp.ix_(*(jnp.arange(n, dtype=jnp.int32) for n in (CAPACITY + 1, MOST + 1, STORMS + 1)))
        chance = jnp.diff(sampling.binomial_cdf(STORMS, params.wetness, STORMS + 1), prepend=0.0)[None, None, :]
        full = level - action + rain
        spill = params.spill_cost * jnp.maximum(full - CAPACITY, 0).astype(jnp.float32)

        def stage(period: chex.Array, value: chex.Array) -> chex.Array:
            ahead = jnp.sum(chance * (value[0][jnp.clip(full, 0, CAPACITY)] - spill), axis=-1)
            gain = jnp.sqrt(action.astype(jnp.float32))[..., 0] + ahead
            return jnp.where((action <= level)[..., 0], gain, -jnp.inf)[None]

        return backward_dp.solve(stage, vary_like(jnp.zeros((1, CAPACITY + 1), jnp.float32), params), self.num_periods)

    def reference_action(self, plan: backward_dp.Plan, state: ReservoirState, params: ReservoirParams, key: jax.Array):
        """Looks the plan up."""
        return plan.actions[self.period(state), 0, state.level].astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """A fifth of what is there, as far as whole units go."""
        return jnp.round(observation.column("level")[0] * CAPACITY / 5.0).astype(jnp.int32)
