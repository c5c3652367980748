"""Views: a domain whose observations are what a client can take, an array or a plain dict."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment
from gymnax.environments import spaces as gymnax_spaces

from envs_jax import observation as vocabulary
from envs_jax import spaces
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import BOUND, Observation


class _View(environment.Environment):
    """A gymnax environment that shows another form of a domain's observations; all else is the domain's.

    States, tasks, rewards and ``info`` are untouched, and what the view does not have itself is asked of the domain:
    ``view.sample_params``, ``view.solve``, ``view.reference_action``. Build a view once and keep it, as gymnax compiles
    ``step`` anew for every object.
    """

    def __init__(self, env: ResourceEnv, final_observation: bool = True, legacy_step: bool = False) -> None:
        if not isinstance(env, ResourceEnv):
            raise TypeError(f"{type(self).__name__} takes an envs_jax.ResourceEnv, got {type(env).__name__}")
        super().__init__()
        self.env = env
        self.final_observation = final_observation
        self.legacy_step = legacy_step

    def view(self, observation: Observation) -> Any:
        """The observation as this view shows it; leading batch dimensions are kept."""
        raise NotImplementedError

    def unview(self, shown: Any) -> Observation:
        """Inverse of :meth:`view`: the masks, tokens and actions of what was shown."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling look for special names before there is a domain to ask.
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r})"

    @property
    def name(self) -> str:
        """The domain's."""
        return self.env.name

    @property
    def num_actions(self) -> int:
        """The domain's, A."""
        return self.env.num_actions

    @property
    def default_params(self) -> EnvParams:
        """The domain's faithful instance."""
        return self.env.default_params

    def reset(self, key: chex.PRNGKey, params: EnvParams | None = None) -> tuple[Any, EnvState]:
        """Gymnax's reset."""
        self.env.check_params(params)
        return super().reset(key, params)

    def step(
        self, key: chex.PRNGKey, state: EnvState, action: chex.Array, params: EnvParams | None = None
    ) -> tuple[Any, ...]:
        """Gymnax's step, which begins the next episode at the end of one.

        Returns:
          ``(observation, state, reward, terminated, truncated, info)``; with ``legacy_step`` the five values
          ``(observation, state, reward, done, info)`` of gymnax before 1.0.
        """
        self.env.check_params(params)
        return self._step(key, state, action, params)

    @functools.partial(jax.jit, static_argnames=("self",))
    def _step(
        self, key: chex.PRNGKey, state: EnvState, action: chex.Array, params: EnvParams | None = None
    ) -> tuple[Any, ...]:
        seen, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        if not self.final_observation:
            del info["final_observation"]
        if self.legacy_step:
            return seen, state, reward, jnp.logical_or(terminated, truncated), info
        return seen, state, reward, terminated, truncated, info

    def reset_env(self, key: chex.PRNGKey, params: EnvParams) -> tuple[Any, EnvState]:
        """The domain's, shown."""
        seen, state = self.env.reset_env(key, params)
        return self.view(seen), state

    def step_env(
        self, key: chex.PRNGKey, state: EnvState, action: chex.Array, params: EnvParams
    ) -> tuple[Any, EnvState, chex.Array, chex.Array, dict[str, chex.Array]]:
        """The domain's, shown."""
        seen, *rest = self.env.step_env(key, state, action, params)
        return (self.view(seen), *rest)

    def observe(self, key: chex.PRNGKey, state: EnvState, action: chex.Array | None, params: EnvParams) -> Any:
        """The domain's, shown."""
        return self.view(self.env.observe(key, state, action, params))

    def is_terminated(self, state: EnvState, params: EnvParams) -> chex.Array:
        """The domain's."""
        return self.env.is_terminated(state, params)

    def is_truncated(self, state: EnvState, params: EnvParams) -> chex.Array:
        """The domain's."""
        return self.env.is_truncated(state, params)

    def action_space(self, params: EnvParams | None = None) -> gymnax_spaces.Discrete:
        """The domain's."""
        return self.env.action_space(params)

    def state_space(self, params: EnvParams | None = None) -> gymnax_spaces.Dict:
        """The domain's."""
        return self.env.state_space(params)

    def sample_action(self, key: chex.PRNGKey, observation: Any) -> chex.Array:
        """Uniform over legal actions, from what this view shows: ``i32`` of its batch shape."""
        return spaces.random_actions(self.unview(observation), key)

    def heuristic_action(self, observation: Any, key: chex.PRNGKey) -> chex.Array:
        """The domain's heuristic, from what this view shows: ``i32[]``."""
        return self.env.heuristic_action(self.unview(observation), key)


class FlatObservation(_View):
    """A domain with one flat vector ``f32[D]`` as its observation, for clients that take arrays.

    The vector holds, with N tokens of F columns and A actions described by G,

    ================= =========== ========================================================================
    part              length      content
    ================= =========== ========================================================================
    ``tokens``        N F         token after token, columns as in ``envs_jax.observation.TOKEN_COLUMNS``
    ``token_mask``    N           1 where a token exists
    ``actions``       A G         action after action, columns as in ``ACTION_COLUMNS``
    ``action_mask``   A           1 where an action is legal
    ``action_target`` A           the token that an action concerns, over N; -1/N for none
    ================= =========== ========================================================================

    in this order; :attr:`layout` gives each part's slice, :meth:`unview` the :class:`~envs_jax.Observation` again, so
    the mask is ``env.unview(flat).action_mask``. A client that ignores it may choose illegal actions: they act as the
    no-op and are counted in ``info["illegal_actions"]``.

    Attributes:
      env: the domain.
      layout: slice of every part.
      size: D.

    Args:
      env: the domain.
      final_observation: whether ``info["final_observation"]`` holds the flat observation before auto-reset, as gymnax
        has it. Clients that stack ``info`` over a whole training keep every observation of it: False leaves it out.
      legacy_step: whether ``step`` returns the five values of gymnax before 1.0, as rejax 0.1 and PureJaxRL expect.

    Raises:
      TypeError: if ``env`` is no :class:`~envs_jax.ResourceEnv`.

    Example:
      >>> env = FlatObservation(envs_jax.make("supply_chain")[0])
      >>> flat, state = env.reset(jax.random.key(0))
      >>> action = env.sample_action(jax.random.key(1), flat)
    """

    def __init__(self, env: ResourceEnv, final_observation: bool = True, legacy_step: bool = False) -> None:
        super().__init__(env, final_observation, legacy_step)
        n, a = env.num_tokens, env.num_actions
        lengths = {
            "tokens": n * env.num_token_features,
            "token_mask": n,
            "actions": a * env.num_action_features,
            "action_mask": a,
            "action_target": a,
        }
        ends = np.cumsum(list(lengths.values())).tolist()
        self.layout = {
            part: slice(end - length, end) for (part, length), end in zip(lengths.items(), ends, strict=True)
        }
        self.size = ends[-1]

    def view(self, observation: Observation) -> chex.Array:
        """``f32[..., D]``, see the class."""
        target = observation.action_target.astype(jnp.float32) / self.env.num_tokens
        return jnp.concatenate([vocabulary.flatten(observation), target], axis=-1)

    def unview(self, shown: chex.Array) -> Observation:
        """The observation that :meth:`view` showed as ``f32[..., D]``; masks are what is above 1/2."""
        env, batch = self.env, jnp.shape(shown)[:-1]
        part = {name: shown[..., where] for name, where in self.layout.items()}
        return Observation(
            tokens=part["tokens"].reshape(*batch, env.num_tokens, env.num_token_features),
            token_mask=part["token_mask"] > 0.5,
            actions=part["actions"].reshape(*batch, env.num_actions, env.num_action_features),
            action_target=jnp.round(part["action_target"] * env.num_tokens).astype(jnp.int32),
            action_mask=part["action_mask"] > 0.5,
        )

    def observation_space(self, params: EnvParams | None = None) -> gymnax_spaces.Box:
        """``f32[D]`` with the bounds of each part."""
        del params
        ends = {
            "tokens": (-BOUND, BOUND),
            "token_mask": (0.0, 1.0),
            "actions": (-BOUND, BOUND),
            "action_mask": (0.0, 1.0),
            "action_target": (np.float32(-1) / np.float32(self.env.num_tokens), 1.0),
        }
        low, high = np.empty((2, self.size), np.float32)
        for part, where in self.layout.items():
            low[where], high[where] = ends[part]
        return gymnax_spaces.Box(low, high, (self.size,), jnp.float32)


class DictObservation(_View):
    """A domain with a plain dict as its observation, as its ``Dict`` space says: for Gymnasium and its wrappers.

    Keys and arrays are those of :class:`~envs_jax.Observation`.

    Args:
      env: the domain.
      final_observation: whether ``info["final_observation"]`` holds the dict before auto-reset, as gymnax has it.
      legacy_step: whether ``step`` returns the five values of gymnax before 1.0.

    Raises:
      TypeError: if ``env`` is no :class:`~envs_jax.ResourceEnv`.
    """

    def view(self, observation: Observation) -> dict[str, chex.Array]:
        """The observation's parts by name."""
        return dict(vars(observation))

    def unview(self, shown: dict[str, chex.Array]) -> Observation:
        """Inverse of :meth:`view`."""
        return Observation(**shown)

    def observation_space(self, params: EnvParams | None = None) -> spaces.ObservationSpace:
        """The domain's space, of plain dicts."""
        return self.env.observation_space(params).as_type(dict)
