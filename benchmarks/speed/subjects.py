"""What is timed: random episodes of a domain in JAX, of its two NumPy models, and of gymnax CartPole.

All play episodes of uniformly random *legal* choices and produce the complete observation after every one: the
NumPy models their tokens and action mask, JAX the padded :class:`~envs_jax.observation.Observation`. All features go
through a linear read-out, so that no compiler can leave a part out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.numpy_models import models
from envs_jax import policies
from envs_jax import rollout as engine
from envs_jax.environment import ResourceEnv
from envs_jax.observation import Observation
from envs_jax.rollout import Tasks
from envs_jax.suite import Suite
from envs_jax.testing.numpy_model import BatchModel, LoopModel, leaves_by_name
from metarl_jax.runtime.replicas import AXIS, replica_mesh


def read_out(seen: Observation, key: chex.PRNGKey) -> chex.Array:
    """A random linear read-out of all features, and the sum of targets: ``f32[]``. The least that a network reads."""
    total = jnp.sum(seen.action_target, dtype=jnp.int32).astype(jnp.float32)
    for part in (seen.tokens, seen.actions):
        flat = part.reshape(*part.shape[:-2], -1)
        total += jnp.sum(flat @ jax.random.normal(key, flat.shape[-1:]))
    return total


def lockstep(
    suites: Sequence[Suite],
    length: int,
    tasks: Sequence[Tasks],
    keys: Sequence[tuple[chex.PRNGKey, ...]],
    key: chex.PRNGKey,
) -> chex.Array:
    """``length`` steps from the start of an episode of every domain of the suites, in one scan; checksums ``f32[2]``.

    The observations of a suite's domains are padded and joined before every choice, as a network would read them.
    ``tasks`` ``[B]`` and ``keys`` ``[B, 1]`` are those of each domain of each suite. A domain with a shorter horizon
    goes on stepping: cost per step is what is compared.
    """
    # Not engine.rollout: it plays whole episodes (--steps asks for a part of one), and in a batch of many domains those
    # that are done stand still, which would count as steps what are none. For one whole domain both take the same time
    # (portfolio and maritime, 1024 in parallel: ratios of CPU time 1.000 and 1.002, the same checksums).
    starts = [
        tuple(engine.lockstep_reset(env, t, k)[1] for env, t, k in zip(suite.envs, own_tasks, own_keys, strict=True))
        for suite, own_tasks, own_keys in zip(suites, tasks, keys, strict=True)
    ]

    def choices(suite: Suite, own_tasks: Tasks, states: tuple[Any, ...], now: chex.PRNGKey) -> tuple[Any, chex.Array]:
        """Random legal actions of every domain of a suite, and the read-out of what was seen."""
        views = [engine.lockstep_observe(env, t, s) for env, t, s in zip(suite.envs, own_tasks, states, strict=True)]
        seen = suite.join(views)
        actions = suite.split(policies.random_actions(seen, now), [view.token_mask.shape[0] for view in views])
        # By the key that does not change: its weights are drawn once, as NumPy's are, not at every step.
        return actions, read_out(seen, key)

    def body(carry: tuple[Any, ...], time: chex.Array) -> tuple[tuple[Any, ...], None]:
        before, checksum, total = carry
        after = []
        for suite, own_tasks, states in zip(suites, tasks, before, strict=True):
            actions, read = choices(suite, own_tasks, states, jax.random.fold_in(key, time))
            checksum, following = checksum + read, []
            for env, params, state, action in zip(suite.envs, own_tasks, states, actions, strict=True):
                _, state, reward, _ = engine.lockstep_step(env, params, state, action)
                following.append(state)
                total = total + reward.sum()
            after.append(tuple(following))
        return (after, checksum, total), None

    zero = jnp.float32(0.0)
    (_, checksum, total), _ = jax.lax.scan(body, (starts, zero, zero), jnp.arange(length))
    return jnp.stack([checksum, total])


def over_devices(
    function: Callable[..., chex.Array], batch: int, key: chex.PRNGKey, *batched: Any
) -> tuple[Callable[..., chex.Array], tuple[Any, ...]]:
    """Spreads a batch over all devices, as training spreads its members: a CPU shows one device a core.

    Args:
      function: of a device's share of ``batched`` and a key; returns a checksum.
      batch: length of the leading axis of ``batched``; as many devices are used as divide it.
      key: folded with the device's number.
      *batched: arguments with a leading axis ``[batch]``.

    Returns:
      A function to compile, and its arguments where they belong.
    """
    mesh = replica_mesh(batch)

    def local(keys: chex.PRNGKey, *own: Any) -> chex.Array:
        return function(*own, keys[0])[None]

    def spread(keys: chex.PRNGKey, *batched: Any) -> chex.Array:
        specs = (PartitionSpec(AXIS),) * (1 + len(batched))
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)(
            keys, *batched
        )

    arguments = (jax.random.split(key, mesh.size), *batched)
    return spread, jax.device_put(arguments, NamedSharding(mesh, PartitionSpec(AXIS)))


def cartpole(length: int, starts: chex.PRNGKey, key: chex.PRNGKey) -> chex.Array:
    """CartPole of gymnax, auto-reset, random actions, ``length`` steps from each of ``starts [B]``; a checksum."""
    env, params = gymnax.make("CartPole-v1")
    weights, batch = jax.random.normal(key, (4,)), starts.shape[0]

    def body(carry: tuple[Any, ...], time: chex.Array) -> tuple[tuple[Any, ...], None]:
        seen, state, checksum = carry
        step_key, act_key = jax.random.split(jax.random.fold_in(key, time))
        action = jax.random.randint(act_key, (batch,), 0, 2)
        keys = jax.random.split(step_key, batch)
        checksum = checksum + jnp.sum(seen @ weights)
        seen, state, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, action, params)
        return (seen, state, checksum), None

    start = jax.vmap(env.reset, in_axes=(0, None))(starts, params)
    (_, _, checksum), _ = jax.lax.scan(body, (*start, jnp.float32(0)), jnp.arange(length))
    return checksum


def random_legal(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniform over the legal actions of ``mask bool[B, A]``: ``[B]``."""
    upto = np.cumsum(mask, axis=1, dtype=np.int8)
    rank = (rng.random(len(mask), np.float32) * upto[:, -1]).astype(np.int8)
    return (upto > rank[:, None]).argmax(axis=1)


def _uniforms(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """``f32`` in the open interval: an inverse distribution function must not meet 0."""
    draws = rng.random(shape, np.float32)
    return np.maximum(draws, np.float32(2.0**-25), out=draws)


def batch_model(env: ResourceEnv, length: int, model: BatchModel, batch: int, rng: np.random.Generator) -> float:
    """``length`` steps from an episode's start of ``batch`` environments in vectorised NumPy; the checksum."""
    model.reset(_uniforms(rng, batch, env.num_reset_uniforms))
    weights = rng.standard_normal(model.tokens()[0].size, np.float32)
    checksum, total = 0.0, 0.0
    for time in range(length):
        checksum += float((model.tokens().reshape(batch, -1) @ weights).sum())
        action = random_legal(model.action_mask(), rng)
        last = time % env.num_turns == env.num_turns - 1
        # Between the last turns nothing is random, so nothing is drawn.
        reward, _ = model.step(action, _uniforms(rng, batch, env.num_uniforms) if last else None)
        total += float(reward.sum()) if last else 0.0
    return checksum + total


def loop_model(env: ResourceEnv, length: int, model: LoopModel, rng: np.random.Generator) -> float:
    """``length`` steps from an episode's start of one environment in plain Python loops; the checksum."""
    model.reset(_uniforms(rng, env.num_reset_uniforms))
    weights = rng.standard_normal(model.tokens().size, np.float32)
    checksum = 0.0
    for time in range(length):
        checksum += float(model.tokens().reshape(-1) @ weights)
        legal = np.flatnonzero(model.action_mask())
        last = time % env.num_turns == env.num_turns - 1
        uniforms = _uniforms(rng, env.num_uniforms) if last else None
        reward, _ = model.step(int(legal[int(rng.random() * len(legal))]), uniforms)
        checksum += float(reward)
    return checksum


def numpy_models(env: ResourceEnv, tasks: Any) -> tuple[BatchModel, LoopModel]:
    """The domain's batch model of stacked ``tasks`` and its loop model of the first of them."""
    loop, batch = models(env.name)
    whole = leaves_by_name(tasks)
    one = {name: value[0] for name, value in whole.items()}
    return batch(whole, num_periods=env.num_periods), loop(one, num_periods=env.num_periods)  # type: ignore[call-arg]


def bytes_of(env: ResourceEnv) -> tuple[int, int]:
    """Bytes of one environment's state and of its observation."""

    def start(params: Any) -> tuple[Observation, Any]:
        seen, state = env.reset_env(jax.random.key(0), params)
        return seen, state

    sizes = [
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in jax.eval_shape(start, env.default_params)
    ]
    return sizes[1], sizes[0]
