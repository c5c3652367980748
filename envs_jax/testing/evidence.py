"""What the checks of a domain look at: its tasks, whole episodes, and a handful of compiled programs.

Compiling is what costs, so every program is compiled once and serves many checks: one draws tasks, one plays plain
vmapped episodes, one plays all policies in lockstep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import policies
from envs_jax import rollout as engine
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation

TASKS, EPISODES = 8, 3
POLICIES = ("replay", "noop", "heuristic", "reference")
"""Policies played on the same keys; ``replay`` repeats the random choices of the plain episodes."""
DRAWS = 128
"""Episodes a task that the mean reward is taken over."""

# These programs run for milliseconds: halving LLVM's work on them halves the time of all checks.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by their paths, as NumPy arrays."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


class Evidence:
    """A domain at work, everything ``[TASKS, ...]``.

    Attributes:
      env: the domain.
      default: its default task.
      tasks: sampled tasks, stacked.
      keys: ``[TASKS, EPISODES]`` typed keys of episodes.
      seen, state, action, reward, terminated, truncated, info: random legal episodes ``[TASKS, T, ...]``, one a task,
        under plain ``vmap``; ``seen`` and ``state`` before each choice.
      final, end: observation and state after the last choice.
    """

    def __init__(self, env: ResourceEnv) -> None:
        self.env, self.default = env, env.default_params
        self.tasks = quick_jit(jax.vmap(env.sample_params))(jax.random.split(jax.random.key(1), TASKS))
        self.keys = jax.random.split(jax.random.key(2), (TASKS, EPISODES))
        self._episodes = quick_jit(jax.vmap(self._random_episode))
        played = self.random_episodes(self.tasks)
        (self.final, self.end), (self.seen, self.state, self.action, self.reward, *rest) = played
        self.terminated, self.truncated, self.info = rest

    def random_episodes(self, tasks: EnvParams) -> Any:
        """The random episodes of :attr:`tasks` for other tasks: the same noise, the same luck in choosing.

        Choices are functions of what is seen: as long as that is the same, so are they.
        """
        luck = jnp.broadcast_to(jax.random.key(3), TASKS)
        return jax.device_get(self._episodes(tasks, self.keys[:, 0], luck))

    def _random_episode(self, params: EnvParams, key: chex.PRNGKey, luck: chex.PRNGKey) -> Any:
        env = self.env

        def body(carry: tuple[Observation, EnvState], time: chex.Array) -> tuple[Any, Any]:
            seen, state = carry
            action = policies.random_actions(seen, jax.random.fold_in(luck, time))
            after, following, reward, terminated, info = env.step_env(key, state, action, params)
            truncated = env.is_truncated(following, params)
            return (after, following), (seen, state, action, reward, terminated, truncated, info)

        return jax.lax.scan(body, env.reset_env(key, params), jnp.arange(env.horizon, dtype=jnp.int32))

    @functools.cached_property
    def play(self) -> Callable[[EnvParams, chex.PRNGKey], engine.Step]:
        """Steps ``[T, TASKS, policies, EPISODES]`` of all :data:`POLICIES` for tasks and keys."""
        env, replayed = self.env, self.action

        @quick_jit
        def play(params: EnvParams, keys: chex.PRNGKey) -> engine.Step:
            names: tuple[policies.PolicyName, ...] = ("noop", "heuristic", "reference")
            rules = [policies.policy(env, name, params) for name in names]
            which = jnp.repeat(jnp.arange(len(POLICIES)), EPISODES)

            def act(seen: Any, states: Any, carry: Any, key: chex.PRNGKey) -> tuple[tuple[chex.Array], Any, Any]:
                chosen = [jnp.asarray(replayed)[:, states[0].time, None]]
                for rule in rules:
                    (action,), _, carry = rule(seen, states, carry, key)
                    chosen.append(action)
                return (jnp.choose(which, chosen, mode="clip").astype(jnp.int32),), (), carry

            repeated = jnp.tile(keys, len(POLICIES))
            memory = policies.memory(env, *repeated.shape)
            (steps,), *_ = engine.recurrent_rollout((env,), (params,), (repeated,), act, memory, keys[0, 0])
            apart = (env.horizon, TASKS, len(POLICIES), EPISODES)
            return jax.tree.map(lambda x: x if x.ndim == 1 else x.reshape(*apart, *x.shape[3:]), steps)

        return play

    @functools.cached_property
    def played(self) -> engine.Step:
        """:attr:`play` on the domain's own tasks and keys."""
        return jax.device_get(self.play(self.tasks, self.keys))

    @functools.cached_property
    def rewards(self) -> tuple[np.ndarray, np.ndarray]:
        """Realised and expected reward ``f64[DRAWS, TASKS, P]`` of every period of fresh random episodes."""
        keys = jax.random.split(jax.random.key(4), (2, DRAWS, TASKS))
        last = slice(self.env.num_turns - 1, None, self.env.num_turns)
        reward, expected = [], []
        for draw in range(DRAWS):
            _, (_, _, _, paid, _, _, info) = self._episodes(self.tasks, keys[0, draw], keys[1, draw])
            reward.append(np.asarray(paid, np.float64)[:, last])
            expected.append(np.asarray(info["expected_reward"], np.float64)[:, last])
        return np.stack(reward), np.stack(expected)

    def swapped(self, *fields: str) -> EnvParams:
        """Every task with the named fields of the next one."""
        others = {name: jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), getattr(self.tasks, name)) for name in fields}
        return self.tasks.replace(**others)

    def task(self, index: int) -> EnvParams:
        """One of the tasks."""
        return jax.tree.map(lambda x: x[index], self.tasks)


def replayed(tree: Any) -> Any:
    """The replayed episode's leaves ``[TASKS, T, ...]`` of what :attr:`Evidence.play` returns."""
    return jax.tree.map(lambda x: np.moveaxis(np.asarray(x)[:, :, 0, 0], 0, 1), tree)
