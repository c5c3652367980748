"""The roll-out engine: whole episodes of one domain or several, stepped as one program.

Domains are grouped statically: each has its own ``vmap`` over tasks and episodes inside one ``lax.scan``. A domain
index is never vmapped (``lax.switch`` under ``vmap`` runs every branch of every domain).

Episodes run in lockstep: all of a batch share one clock, which stays unbatched under ``vmap``. The environment's "is
this the period's last turn?" is then a real branch, reset happens once per episode, and nothing is reset inside.

Notation: a suite has domains d with ``B_d`` tasks each, ``E`` episodes a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation

Tasks = tuple[EnvParams, ...]
"""One stacked ``EnvParams`` (leading axis ``B_d``) a domain."""

Act = Callable[[tuple[Observation, ...], tuple[EnvState, ...], chex.PRNGKey], tuple[chex.Array, ...]]
"""Chooses for all domains at once: observations and states ``[B_d, E, ...]``, a key -> actions ``i32[B_d, E]``."""

RecurrentAct = Callable[
    [tuple[Observation, ...], tuple[EnvState, ...], Any, chex.PRNGKey], tuple[tuple[chex.Array, ...], Any, Any]
]
"""An :data:`Act` that remembers: it is also given its carry, and returns actions, notes to be recorded, next carry."""


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
      notes: what a :data:`RecurrentAct` wants recorded of its choice.
    """

    observation: Observation
    state: EnvState
    action: chex.Array
    reward: chex.Array
    info: dict[str, chex.Array]
    valid: chex.Array
    notes: Any = ()


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

    def remembering(seen: Any, states: Any, carry: Any, key: chex.PRNGKey) -> tuple[tuple[chex.Array, ...], Any, Any]:
        return act(seen, states, key), (), carry

    trajectory, finals, _ = recurrent_rollout(envs, tasks, keys, remembering, (), key, record)
    return trajectory, finals


def recurrent_rollout(
    envs: Sequence[ResourceEnv],
    tasks: Tasks,
    keys: tuple[chex.PRNGKey, ...],
    act: RecurrentAct,
    carry: Any,
    key: chex.PRNGKey,
    record: Callable[[int, Step], Any] = lambda domain, step: step,
) -> tuple[tuple[Any, ...], tuple[Observation, ...], Any]:
    """:func:`rollout` with an ``act`` that remembers: from ``carry`` to the carry after the last choice."""
    horizon = max(env.horizon for env in envs)
    starts = tuple(lockstep_reset(env, params, k)[1] for env, params, k in zip(envs, tasks, keys, strict=True))

    def body(before: tuple[Any, Any], time: chex.Array) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
        # Only states are carried: carried observations, far larger, would be copied at every step, used or not.
        states, carry = before
        seens = tuple(lockstep_observe(env, p, s) for env, p, s in zip(envs, tasks, states, strict=True))
        actions, notes, carry = act(seens, states, carry, jax.random.fold_in(key, time))
        following, recorded = [], []
        for d, (env, params, state, action) in enumerate(zip(envs, tasks, states, actions, strict=True)):
            valid = time < env.horizon

            def move(state: EnvState, env: ResourceEnv = env, params: Any = params, action: Any = action) -> Any:
                return lockstep_step(env, params, state, action)[1:]

            if env.horizon == horizon:
                moved, reward, info = move(state)
            else:
                _, *outputs = jax.eval_shape(move, state)

                def stay(state: EnvState, outputs: Any = outputs) -> Any:
                    return state, *jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)

                moved, reward, info = jax.lax.cond(valid, move, stay, state)
            recorded.append(record(d, Step(seens[d], state, action, reward, info, valid, notes)))
            following.append(moved)
        return (tuple(following), carry), tuple(recorded)

    (ends, carry), trajectory = jax.lax.scan(body, (starts, carry), jnp.arange(horizon))
    finals = tuple(lockstep_observe(env, p, s) for env, p, s in zip(envs, tasks, ends, strict=True))
    return trajectory, finals, carry
