"""Foreign tasks in the shape of the suite: a learner that hits its literature there is the code that runs the suite."""

from __future__ import annotations

from typing import Any

import chex
import gymnax
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from envs_jax import sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation


@struct.dataclass
class ForeignState(EnvState):
    """State of a :class:`GymnaxTask`.

    Attributes:
      inner: the gymnax environment's own state.
      seen: ``f32[F]`` its flat observation.
      action: ``i32[]`` the choice that is made in this step; after it, the action that was carried out.
      before: ``i32[]`` the action that was carried out in the step before, 0 at first.
      first: ``f32[]`` 1 until the first episode of the window has terminated.
    """

    inner: Any
    seen: chex.Array
    action: chex.Array
    before: chex.Array
    first: chex.Array


@struct.dataclass
class ForeignParams(EnvParams):
    """Parameters of a :class:`GymnaxTask`: the gymnax environment's own, all leaves arrays."""

    inner: Any


class GymnaxTask(ResourceEnv[ForeignState, ForeignParams]):
    """A gymnax environment with discrete actions, as one token and one-hot actions.

    An episode here is a window of steps from a reset. Where the inner episode terminates, the discount is 0 and another
    one starts, so that no step of a window is wasted; returns count the first inner episode alone. The window is no
    longer than the environment's time limit, so no inner episode is truncated within it, and learners bootstrap from
    what is seen at its end.

    Foreign tasks have no hidden parameters and no reference policy; ``noop``, heuristic and reference choose action 0.

    Args:
      name: as ``gymnax.make`` knows it.
      num_periods: steps of a window; default: the environment's time limit.
      discount_factor: gamma.
      sticky: chance that the action of the step before is carried out in place of the one chosen (Machado 2018). Young
        and Tian's MinAtar has .1, gymnax's none.
      **options: of the gymnax environment's constructor, such as ``use_minimal_action_set=False`` of MinAtar's.

    Raises:
      ValueError: for actions that are not discrete, a window beyond the time limit, or a chance outside [0, 1).

    Example:
      >>> env = GymnaxTask("CartPole-v1")
      >>> (env.num_tokens, env.num_token_features, env.num_actions, env.num_periods)
      (1, 4, 2, 500)
    """

    horizon_terminates = False
    own_reward_scale = True
    num_turns = 1
    num_tokens = 1
    num_uniforms = 1
    num_reset_uniforms = 1

    def __init__(
        self,
        name: str,
        num_periods: int | None = None,
        discount_factor: float = 0.99,
        sticky: float = 0.0,
        **options: Any,
    ):
        super().__init__()
        self.inner, self._inner_params = gymnax.make(name, **options)
        limit = int(self._inner_params.max_steps_in_episode)
        space = self.inner.action_space(self._inner_params)
        if not isinstance(space, spaces.Discrete):
            raise ValueError(f"{name}: actions must be discrete, got {type(space).__name__}")
        self.num_periods = limit if num_periods is None else num_periods
        if not 1 <= self.num_periods <= limit:
            raise ValueError(f"{name}: num_periods must be from 1 to {limit}, its time limit, got {num_periods}")
        if not 0.0 <= sticky < 1.0:
            raise ValueError(f"{name}: sticky must be at least 0 and below 1, got {sticky}")
        self.name, self.sticky = name, sticky
        self.discount_factor = discount_factor
        self.num_actions = self.num_action_features = int(space.n)
        seen, _ = jax.eval_shape(self.inner.reset_env, jax.eval_shape(lambda: jax.random.key(0)), self._inner_params)
        self.num_token_features = sum(leaf.size for leaf in jax.tree.leaves(seen))

    @property
    def default_params(self) -> ForeignParams:
        """The environment's own defaults."""
        as_array = lambda x: jnp.asarray(x, jnp.float32 if isinstance(x, float) else None)  # noqa: E731
        return ForeignParams(jnp.int32(self.horizon), jax.tree.map(as_array, self._inner_params))

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> ForeignParams:
        """There is one task."""
        del key, split
        return self.default_params

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: ForeignParams) -> ForeignState:
        """A reset of the inner environment."""
        del uniforms
        seen, inner = self.inner.reset_env(jax.random.fold_in(sampling.typed_key(key), self.horizon), params.inner)
        clock = self.clock(key)
        none = jnp.int32(0)
        return ForeignState(**clock, inner=inner, seen=_flat(seen), action=none, before=none, first=jnp.float32(1.0))

    def choose(self, state: ForeignState, turn: chex.Array, action: chex.Array, params: ForeignParams) -> ForeignState:
        """Keeps the action for :meth:`advance`."""
        del turn, params
        return state.replace(action=action)

    def advance(
        self, state: ForeignState, uniforms: chex.Array, params: ForeignParams
    ) -> tuple[ForeignState, chex.Array, dict[str, chex.Array]]:
        """One step of the inner environment, and a reset where it terminated."""
        action = jnp.where(uniforms[0] < self.sticky, state.before, state.action) if self.sticky else state.action
        step_key, reset_key = jax.random.split(jax.random.fold_in(sampling.typed_key(state.key), self.period(state)))
        seen, inner, reward, terminated, _ = self.inner.step_env(step_key, state.inner, action, params.inner)
        again = self.inner.reset_env(reset_key, params.inner)
        seen, inner = jax.tree.map(lambda new, old: jnp.where(terminated, new, old), again, (seen, inner))
        reward, alive = jnp.float32(reward), 1.0 - jnp.float32(terminated)
        before = jnp.where(terminated, 0, action)
        following = state.replace(
            inner=inner, seen=_flat(seen), action=action, before=before, first=state.first * alive
        )
        return following, reward, {"expected_reward": reward * state.first, "continuation": alive}

    def observation(self, state: ForeignState, params: ForeignParams) -> Observation:
        """One token: the flat observation."""
        del params
        return Observation(
            tokens=state.seen[None],
            token_mask=jnp.ones(1, bool),
            actions=jnp.eye(self.num_actions),
            action_target=jnp.zeros(self.num_actions, jnp.int32),
            action_mask=jnp.ones(self.num_actions, bool),
        )

    def reference_action(self, plan: Any, state: ForeignState, params: ForeignParams, key: chex.PRNGKey) -> chex.Array:
        """Action 0: there is no reference."""
        return jnp.int32(0)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Action 0: there is no heuristic."""
        return jnp.int32(0)


def _flat(seen: Any) -> chex.Array:
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(seen)])
