"""A view of a domain as a Gymnasium environment, the way ``gymnasium.utils.env_checker.check_env`` wants one."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import jax
import numpy as np
from gymnax.environments.spaces import gymnax_space_to_gym_space

from envs_jax.adapters.views import DictObservation, FlatObservation
from envs_jax.environment import EnvParams, EnvState


class GymnasiumEnv(gymnasium.Env):
    """One environment that is stepped from Python, for a look at a domain and for tools of Gymnasium.

    Gymnax's own ``GymnaxToGymWrapper`` takes a view as well; this one gives NumPy arrays and plain numbers and seeds
    the generator that Gymnasium's checks ask for. Whatever trains should stay with gymnax's interface and ``vmap``.

    Args:
      env: the view whose observations it gives, of six values a step.
      params: the task; default: the domain's faithful instance.

    Raises:
      TypeError: if ``env`` is no such view.

    Example:
      >>> env = GymnasiumEnv(DictObservation(envs_jax.make("supply_chain")[0]))
      >>> seen, _ = env.reset(seed=0)
      >>> seen, reward, terminated, truncated, info = env.step(env.sample_action())
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, env: FlatObservation | DictObservation, params: EnvParams | None = None) -> None:
        if not isinstance(env, FlatObservation | DictObservation) or env.legacy_step:
            raise TypeError(
                f"GymnasiumEnv takes a FlatObservation or DictObservation of six values a step, got {env!r}"
            )
        self.env = env
        self.params = env.default_params if params is None else params
        self.action_space = gymnax_space_to_gym_space(env.action_space(self.params))
        self.observation_space = gymnax_space_to_gym_space(env.observation_space(self.params))
        self._state: EnvState | None = None
        self._seen: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; ``options={"params": task}`` changes the task. Equal seeds give equal episodes."""
        super().reset(seed=seed)
        self.params = (options or {}).get("params", self.params)
        return self._show(*self.env.reset(self._key(), self.params)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One choice; the last observation of an episode is that of its end, as Gymnasium has it.

        Raises:
          RuntimeError: before the first ``reset``.
        """
        if self._state is None:
            raise RuntimeError("GymnasiumEnv.step was called before reset")
        seen, state, reward, terminated, *_, info = self.env.step_env(
            self._key(), self._state, np.int32(action), self.params
        )
        truncated = self.env.is_truncated(state, self.params)
        return self._show(seen, state), float(reward), bool(terminated), bool(truncated), jax.device_get(info)

    def sample_action(self) -> int:
        """Uniform over the actions that are legal now (``action_space.sample`` may draw others)."""
        return int(self.env.sample_action(self._key(), self._seen))

    def _key(self) -> jax.Array:
        return jax.random.key(int(self.np_random.integers(2**31)))

    def _show(self, seen: Any, state: EnvState) -> Any:
        self._state, self._seen = state, jax.device_get(seen)
        return self._seen
