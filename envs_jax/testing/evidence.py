"""What the checks of a domain look at: its tasks, whole episodes, and a handful of compiled programs.

Compiling is what costs, so every program is compiled once and serves many checks: one draws tasks, one plays plain
vmapped episodes, one plays all policies in lockstep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import policies, sampling
from envs_jax import rollout as engine
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import ACTION_COLUMNS, TOKEN_COLUMNS, Observation

TASKS, EPISODES = 8, 3
POLICIES = ("replay", "noop", "heuristic", "reference")
"""Policies played on the same keys; ``replay`` repeats the random choices of the plain episodes."""
DRAWS = 128
"""Episodes a task that the mean reward is taken over: of 8 tasks and P periods each, 1024 P periods."""
BATCHES = 8
"""Batches of other tasks that the signs of columns are judged on; on :data:`TRIED` of them the policies play."""
TRIED = 2
LUCKS = 4
"""Random episodes of each of their tasks."""

# These programs run for milliseconds: halving LLVM's work on them halves the time of all checks.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by their paths, as NumPy arrays."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


class Look(NamedTuple):
    """Everything that was seen in some way of playing, flat: ``[n, ...]``.

    Attributes:
      play: in words.
      seen: the observations.
      time, task: of each, ``i[n]``.
      last_reward: the state's, ``f32[n]``.
    """

    play: str
    seen: Observation
    time: np.ndarray
    task: np.ndarray
    last_reward: np.ndarray

    @classmethod
    def flat(cls, play: str, seen: Observation, last_reward: np.ndarray, time: np.ndarray, tasks_first: bool) -> Look:
        """Of observations ``[TASKS, T, ...]``, or ``[T, TASKS, ...]``, at times ``i[T]``."""
        tasks, times = np.arange(TASKS), np.asarray(time)
        task, when = np.meshgrid(tasks, times, indexing="ij") if tasks_first else np.meshgrid(tasks, times)
        flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), seen)
        return cls(play, flat, when.ravel(), task.ravel(), np.asarray(last_reward).ravel())


class RandomPlay(NamedTuple):
    """Random episodes of a batch of tasks: what was seen, chosen and earned, ``[TASKS, T, ...]``."""

    seen: Observation
    action: np.ndarray
    expected_reward: np.ndarray


class Trial(NamedTuple):
    """Policies on a batch of tasks.

    Attributes:
      seen: in play that does not follow what is seen: choices that were random in another episode are repeated, and
        are no-ops where they are not legal, ``[T, TASKS, EPISODES, ...]``.
      choice: what the reference would choose there.
      returns: ``f64[TASKS, EPISODES]`` of no-op, heuristic and reference, on the same noise.
      random: ``f64[TASKS]`` returns of random choices on the noise of the first episode.
    """

    seen: Observation
    choice: np.ndarray
    returns: dict[str, np.ndarray]
    random: np.ndarray


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
        self.sample = quick_jit(jax.vmap(env.sample_params))
        self.tasks = self.sample(jax.random.split(jax.random.key(1), TASKS))
        self.keys = jax.random.split(jax.random.key(2), (TASKS, EPISODES))
        self._luck = jnp.broadcast_to(jax.random.key(3), TASKS)
        self._episodes = quick_jit(jax.vmap(self._random_episode))
        played = self.random_episodes(self.tasks)
        (self.final, self.end), (self.seen, self.state, self.action, self.reward, *rest) = played
        self.terminated, self.truncated, self.info = rest

    def random_episodes(self, tasks: EnvParams, keys: chex.PRNGKey | None = None) -> Any:
        """The random episodes of :attr:`tasks` for other tasks or keys: the same noise by default, and the same luck.

        Choices are functions of what is seen: as long as that is the same, so are they.
        """
        return jax.device_get(self._episodes(tasks, (self.keys if keys is None else keys)[:, 0], self._luck))

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
        """Steps ``[T, TASKS, policies, EPISODES]`` of all :data:`POLICIES` for tasks and keys.

        Their ``notes`` are what the reference would choose in the state, whoever plays.
        """
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
                return (jnp.choose(which, chosen, mode="clip").astype(jnp.int32),), chosen[-1], carry

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

    def looks_at(self, where: str, random: Any, steps: engine.Step) -> list[Look]:
        """What random choices saw, to the end, and in their first episode the policies that ``steps`` are of."""
        (final, end), (seen, state, *_) = random
        times = np.arange(self.env.horizon)
        found = [Look.flat(f"random play{where}", seen, state.last_reward, times, True)]
        final = jax.tree.map(lambda x: x[:, None], final)
        found.append(Look.flat(f"the end of random play{where}", final, end.last_reward, times[-1:] + 1, True))
        for place, name in enumerate(POLICIES):
            if name != "replay":
                one = jax.tree.map(lambda x, at=place: np.asarray(x)[:, :, at, 0], steps.observation)
                paid = np.asarray(steps.state.last_reward)[:, :, place, 0]
                found.append(Look.flat(f"play of {name}{where}", one, paid, times, False))
        return found

    @functools.cached_property
    def looks(self) -> list[Look]:
        """Random episodes and those of the policies."""
        random = (self.final, self.end), (self.seen, self.state)
        return self.looks_at("", random, self.played)

    @functools.cached_property
    def heuristic_reads(self) -> dict[str, list[str]]:
        """Columns of ``tokens`` and ``actions`` on which the heuristic's choices depend.

        It follows the random episodes, remembering what it does. Found by exchanging a column's values between all
        that was seen, by random numbers if the column is always 0.
        """
        env = self.env

        @quick_jit
        def follow(seen: Observation) -> chex.Array:
            def body(memory: Any, now: Observation) -> tuple[Any, chex.Array]:
                action, memory = policies.heuristic_actions(env, memory, now, jax.random.key(10))
                return memory, action

            one = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1)[:, None], seen)
            return jax.lax.scan(body, policies.memory(env, 1, TASKS), one)[1]

        own, draw = np.asarray(follow(self.seen)), np.random.default_rng(0)
        found: dict[str, list[str]] = {}
        order = draw.permutation(TASKS * env.horizon)
        for part, names in (("tokens", TOKEN_COLUMNS), ("actions", ACTION_COLUMNS)):
            found[part] = []
            for index, name in enumerate(names):
                table = getattr(self.seen, part).copy()
                column = table[..., index]
                flat = column.reshape(len(order), -1)
                other = flat[order] if column.any() else draw.random(flat.shape)
                table[..., index] = other.reshape(column.shape)
                if (np.asarray(follow(self.seen.replace(**{part: table}))) != own).any():
                    found[part].append(name)
        return found

    @functools.cached_property
    def corners(self) -> EnvParams:
        """Tasks whose uniforms are as near to 0 or 1 as any can be: all, every other one, half of them, any of them."""
        ends = np.float32(2.0**-24), np.float32(1.0 - 2.0**-24)
        uniforms, asked = sampling.uniforms, []

        def at_a_corner(which: chex.Array, key: chex.PRNGKey) -> EnvParams:
            def extreme(key: chex.PRNGKey, index: chex.Numeric, count: int) -> chex.Array:
                if isinstance(index, jax.core.Tracer) or int(index) != sampling.TASK_INDEX:
                    return uniforms(key, index, count)
                asked.append(count)
                place = np.arange(count)
                rules = [place < 0, place % 2 > 0, place < (count + 1) // 2]
                some = np.random.default_rng(0).random((TASKS - 2 * len(rules), count)) < 0.5
                high = np.concatenate([np.stack([up for rule in rules for up in (rule, ~rule)]), some])
                return jnp.where(jnp.asarray(high)[which], ends[1], ends[0])

            with mock.patch.object(sampling, "uniforms", extreme):
                return self.env.sample_params(key)

        keys = jax.random.split(jax.random.key(7), TASKS)
        tasks = quick_jit(jax.vmap(at_a_corner))(jnp.arange(TASKS), keys)
        if not asked:
            raise AssertionError("sample_params draws no sampling.uniforms of TASK_INDEX")
        return tasks

    def batch(self, index: int) -> tuple[EnvParams, chex.PRNGKey]:
        """Tasks and keys ``[TASKS, EPISODES]`` of episodes: :attr:`tasks` for 0, then others."""
        if index == 0:
            return self.tasks, self.keys
        own, episodes = jax.random.split(jax.random.fold_in(jax.random.key(5), index))
        return self.sample(jax.random.split(own, TASKS)), jax.random.split(episodes, (TASKS, EPISODES))

    def random_choices(self) -> Iterator[list[RandomPlay]]:
        """A batch of tasks at a time, :data:`LUCKS` episodes of random choices: other noise, other luck in each."""
        for index in range(BATCHES):
            tasks, _ = self.batch(index)
            keys = jax.random.split(jax.random.fold_in(jax.random.key(6), index), (2, LUCKS, TASKS))
            plays = []
            for noise, luck in zip(*keys, strict=True):
                _, (seen, _, action, _, _, _, info) = self._episodes(tasks, noise, luck)
                plays.append(RandomPlay(*jax.device_get((seen, action, info["expected_reward"]))))
            yield plays

    @functools.cached_property
    def trials(self) -> list[Trial]:
        """All policies on :data:`TRIED` batches of tasks."""
        found, replay = [], POLICIES.index("replay")
        for index in range(TRIED):
            tasks, keys = self.batch(index)
            steps = self.played if index == 0 else self.play(tasks, keys)
            _, (*_, info) = self._episodes(tasks, keys[:, 0], self._luck)
            totals = np.asarray(steps.info["expected_reward"], np.float64).sum(0)
            returns = {name: totals[:, place] for place, name in enumerate(POLICIES) if name != "replay"}
            seen, choice = jax.tree.map(lambda x: np.asarray(x)[:, :, replay], (steps.observation, steps.notes))
            chance = np.asarray(info["expected_reward"], np.float64).sum(1)
            found.append(Trial(seen, choice, returns, chance))
        return found

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
