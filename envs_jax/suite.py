"""Several domains stepped as one program.

Domains are grouped statically: each has its own ``vmap`` over tasks and episodes inside one ``lax.scan``, and the
padded observations are concatenated along one flat task axis, so that a network runs once on the whole batch. A domain
index is never vmapped (``lax.switch`` under ``vmap`` runs every branch of every domain).

Episodes run in lockstep: all of a batch share one clock, which stays unbatched under ``vmap``. The environment's "is
this the period's last turn?" is then a real branch, reset happens once per episode, and nothing is reset inside.

Notation: a suite has domains d with ``B_d`` tasks each, ``M = sum B_d`` tasks in all, ``E`` episodes a task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import domains, observation
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation

Tasks = tuple[EnvParams, ...]
"""One stacked ``EnvParams`` (leading axis ``B_d``) a domain."""

Act = Callable[[tuple[Observation, ...], tuple[EnvState, ...], chex.PRNGKey], tuple[chex.Array, ...]]
"""Chooses for all domains at once: observations and states ``[B_d, E, ...]``, a key -> actions ``i32[B_d, E]``."""


@struct.dataclass
class Step:
    """One domain's slice of one lockstep choice, ``[B_d, E, ...]``; stacked over time it is a trajectory.

    Attributes:
      observation: what was seen before choosing.
      state: the state in which the choice was made.
      action: ``i32`` the choice.
      reward: ``f32`` realised reward (0 except on a period's last turn).
      info: the environment's key figures, with ``discount`` and ``expected_reward``.
      valid: ``bool[]`` False once the domain's own horizon is over.
    """

    observation: Observation
    state: EnvState
    action: chex.Array
    reward: chex.Array
    info: dict[str, chex.Array]
    valid: chex.Array


def state_axes(env: ResourceEnv, params: EnvParams) -> EnvState:
    """``in_axes``/``out_axes`` of a lockstep batch: every leaf of the state batched, its clock not."""
    one_task = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params)
    _, state = jax.eval_shape(env.reset_env, jax.eval_shape(lambda: jax.random.key(0)), one_task)
    return jax.tree.map(lambda _: 0, state).replace(time=None)


def lockstep_reset(env: ResourceEnv, params: EnvParams, keys: chex.PRNGKey) -> tuple[Observation, EnvState]:
    """Starts ``E`` episodes of each of ``B`` tasks: ``params`` stacked ``[B]``, ``keys[B, E]``."""
    axes = state_axes(env, params)
    over_episodes = jax.vmap(env.reset_env, in_axes=(0, None), out_axes=(0, axes))
    return jax.vmap(over_episodes, in_axes=(0, 0), out_axes=(0, axes))(keys, params)


def lockstep_step(
    env: ResourceEnv, params: EnvParams, state: EnvState, action: chex.Array
) -> tuple[Observation, EnvState, chex.Array, dict[str, chex.Array]]:
    """One choice in each of ``[B, E]`` episodes that share a clock."""
    axes = state_axes(env, params)

    def step(state: EnvState, action: chex.Array, params: EnvParams) -> tuple[Any, ...]:
        observation, state, reward, _, info = env.step_env(state.key, state, action, params)
        return observation, state, reward, info

    outputs = (0, axes, 0, 0)
    over_episodes = jax.vmap(step, in_axes=(axes, 0, None), out_axes=outputs)
    return jax.vmap(over_episodes, in_axes=(axes, 0, 0), out_axes=outputs)(state, action, params)


def lockstep_observe(env: ResourceEnv, params: EnvParams, state: EnvState) -> Observation:
    """What is seen in each of ``[B, E]`` episodes that share a clock."""
    over_episodes = jax.vmap(env.observation, in_axes=(state_axes(env, params), None))
    return jax.vmap(over_episodes, in_axes=(state_axes(env, params), 0))(state, params)


def rollout(
    envs: Sequence[ResourceEnv],
    tasks: Tasks,
    keys: tuple[chex.PRNGKey, ...],
    act: Act,
    key: chex.PRNGKey,
    record: Callable[[int, Step], Any] = lambda domain, step: step,
) -> tuple[tuple[Any, ...], tuple[Observation, ...]]:
    """Runs one whole episode of every task of every domain, all domains in one scan.

    Args:
      envs: the domains.
      tasks: a stacked ``EnvParams`` for each.
      keys: the episodes' keys ``[B_d, E]`` for each: the same keys mean the same noise for every policy.
      act: chooses; see :data:`Act`.
      key: randomness of ``act``; it is folded with the time.
      record: what to keep of a domain's (index) :class:`Step`, a pytree; keep little, it is stacked over time.

    Returns:
      One recorded pytree a domain, with a leading time axis of the *longest* horizon, and each domain's observation
      after its last choice. Beyond a domain's own horizon ``valid`` is False, rewards are 0, the world stands still.
    """
    horizon = max(env.horizon for env in envs)
    starts = tuple(lockstep_reset(env, params, k)[1] for env, params, k in zip(envs, tasks, keys, strict=True))

    def body(states: tuple[EnvState, ...], time: chex.Array) -> tuple[tuple[EnvState, ...], tuple[Any, ...]]:
        # Only states are carried: carried observations, far larger, would be copied at every step, used or not.
        seens = tuple(lockstep_observe(env, p, s) for env, p, s in zip(envs, tasks, states, strict=True))
        actions = act(seens, states, jax.random.fold_in(key, time))
        following, recorded = [], []
        for d, (env, params, before, action) in enumerate(zip(envs, tasks, states, actions, strict=True)):
            valid = time < env.horizon

            def move(state: EnvState, env: ResourceEnv = env, params: Any = params, action: Any = action) -> Any:
                return lockstep_step(env, params, state, action)[1:]

            if env.horizon == horizon:
                state, reward, info = move(before)
            else:
                _, *outputs = jax.eval_shape(move, before)

                def stay(state: EnvState, outputs: Any = outputs) -> Any:
                    return state, *jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)

                state, reward, info = jax.lax.cond(valid, move, stay, before)
            recorded.append(record(d, Step(seens[d], before, action, reward, info, valid)))
            following.append(state)
        return tuple(following), tuple(recorded)

    ends, trajectory = jax.lax.scan(body, starts, jnp.arange(horizon))
    return trajectory, tuple(lockstep_observe(env, p, s) for env, p, s in zip(envs, tasks, ends, strict=True))


def reference_actions(env: ResourceEnv, plan: Any, state: EnvState, params: EnvParams, key: chex.PRNGKey) -> chex.Array:
    """The reference's choices ``i32[B, E]`` in a lockstep batch of states, with ``plan`` and ``params`` ``[B]``."""
    axes = state_axes(env, params)
    over_episodes = jax.vmap(env.reference_action, in_axes=(None, axes, None, 0))
    keys = jax.random.split(key, state.last_reward.shape)
    return jax.vmap(over_episodes, in_axes=(0, axes, 0, 0))(plan, state, params, keys)


def random_actions(seen: Observation, key: chex.PRNGKey) -> chex.Array:
    """Uniform over legal actions: ``i32`` of the observation's batch shape."""
    mask = seen.action_mask
    count = mask.shape[-1]
    # Running counts as a product with a triangle of ones: exact, and on CPU several times faster than a cumulative sum.
    upto = mask.astype(jnp.float32) @ jnp.triu(jnp.ones((count, count), jnp.float32))
    legal = upto[..., -1]
    rank = jnp.minimum(jnp.floor(jax.random.uniform(key, mask.shape[:-1]) * legal), legal - 1)
    return jnp.sum(upto <= rank[..., None], axis=-1, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class Suite:
    """Domains and the common shapes to which their observations are padded.

    Suites that share ``num_tokens``, ``num_actions`` and ``num_periods`` share compiled network programs, whichever
    domains they hold: build one suite of all domains and take ``subset`` of it.

    Attributes:
      names: registered names.
      envs: the environments.
      num_tokens: padded entities (N).
      num_actions: padded actions (A).
      num_periods: padded periods of an episode (P).
    """

    names: tuple[str, ...]
    envs: tuple[ResourceEnv, ...]
    num_tokens: int
    num_actions: int
    num_periods: int

    @classmethod
    def make(cls, names: Sequence[str]) -> Suite:
        """Builds the named domains with common padding.

        Raises:
          ValueError: for an unknown or repeated name, or none.
        """
        if not names:
            raise ValueError("a suite needs at least one domain")
        if len(set(names)) != len(names):
            raise ValueError(f"domains are listed more than once: {', '.join(names)}")
        return cls.of(tuple(domains.make(name)[0] for name in names), tuple(names))

    @classmethod
    def of(cls, envs: tuple[ResourceEnv, ...], names: tuple[str, ...] | None = None) -> Suite:
        """Wraps environments that need not be registered (probe environments in tests)."""
        return cls(
            names=names or tuple(env.name for env in envs),
            envs=envs,
            num_tokens=max(env.num_tokens for env in envs),
            num_actions=max(env.num_actions for env in envs),
            num_periods=max(env.num_periods for env in envs),
        )

    def subset(self, names: Sequence[str], tight: bool = False) -> Suite:
        """The named domains, in this suite's order.

        Args:
          names: of domains in this suite.
          tight: False keeps this suite's padding (fewer programs to compile, more to compute), True pads no more than
            the named domains need.

        Raises:
          ValueError: for a name that is not in this suite.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise ValueError(f"domains {unknown} are not in this suite: {', '.join(self.names)}")
        chosen = [i for i, name in enumerate(self.names) if name in names]
        kept, envs = tuple(self.names[i] for i in chosen), tuple(self.envs[i] for i in chosen)
        return Suite.of(envs, kept) if tight else dataclasses.replace(self, names=kept, envs=envs)

    @property
    def horizon(self) -> int:
        """Choices of the longest episode."""
        return max(env.horizon for env in self.envs)

    def sample_tasks(self, key: chex.PRNGKey, count: int) -> Tasks:
        """``count`` tasks of every domain."""
        keys = jax.random.split(key, len(self.envs))
        return tuple(
            jax.vmap(env.sample_params)(jax.random.split(k, count)) for env, k in zip(self.envs, keys, strict=True)
        )

    def solve(self, tasks: Tasks) -> tuple[Any, ...]:
        """The reference policies' plans for stacked tasks."""
        return tuple(jax.vmap(env.solve)(params) for env, params in zip(self.envs, tasks, strict=True))

    def episode_keys(self, key: chex.PRNGKey, count: int, episodes: int) -> tuple[chex.PRNGKey, ...]:
        """Keys ``[count, episodes]`` for every domain."""
        return tuple(jax.random.split(k, (count, episodes)) for k in jax.random.split(key, len(self.envs)))

    def join(self, observations: Sequence[Observation]) -> Observation:
        """Pads and concatenates the domains' observations ``[B_d, ...]`` into one ``[M, ...]``."""
        padded = [observation.pad(o, self.num_tokens, self.num_actions) for o in observations]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=0), *padded)

    def split(self, flat: chex.Array, sizes: Sequence[int]) -> tuple[chex.Array, ...]:
        """Inverse of concatenation along the task axis: ``[M, ...]`` into ``[B_d, ...]`` each."""
        offsets = [sum(sizes[:i]) for i in range(1, len(sizes))]
        return tuple(jnp.split(flat, offsets, axis=0))

    def batched(self, act: Callable[[Observation, chex.PRNGKey], chex.Array]) -> Act:
        """Turns a function of one padded batch ``[M, E, ...]`` into an :data:`Act`."""

        def act_all(seen: tuple[Observation, ...], states: Any, key: chex.PRNGKey) -> tuple[chex.Array, ...]:
            del states
            actions = act(self.join(seen), key)
            return self.split(actions, [o.token_mask.shape[0] for o in seen])

        return act_all

    def random_act(self, seen: tuple[Observation, ...], states: Any, key: chex.PRNGKey) -> tuple[chex.Array, ...]:
        """An :data:`Act`: uniform over legal actions."""
        del states
        return tuple(random_actions(o, jax.random.fold_in(key, d)) for d, o in enumerate(seen))
