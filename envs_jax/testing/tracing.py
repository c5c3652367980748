"""Checks that only trace a domain, in JAX's other modes: nothing is compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from envs_jax import arrays, sampling
from envs_jax.environment import ResourceEnv

Call = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""A function of a domain, its name, and shapes to call it with."""


def calls(env: ResourceEnv) -> list[Call]:
    """Every function of a domain, with shapes of arguments in 32 bits."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(lambda: env.default_params)
    seen, state = jax.eval_shape(env.reset_env, key, params)
    plan = jax.eval_shape(env.solve, params)
    memory = jax.eval_shape(env.heuristic_start)
    number, uniforms = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((env.num_uniforms,), jnp.float32)
    start = jax.ShapeDtypeStruct((env.num_reset_uniforms,), jnp.float32)
    population = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), params)
    return [
        ("default_params", lambda: env.default_params, ()),
        ("sample_params", env.sample_params, (key,)),
        ("init_state", env.init_state, (key, start, params)),
        ("reset_env", env.reset_env, (key, params)),
        ("choose", env.choose, (state, number, number, params)),
        ("advance", env.advance, (state, uniforms, params)),
        ("observation", env.observation, (state, params)),
        ("step_env", env.step_env, (key, state, number, params)),
        ("step_env of a Python number", lambda k, s, p: env.step_env(k, s, env.noop_action, p), (key, state, params)),
        ("reset", env.reset, (key, params)),
        ("step", env.step, (key, state, number, params)),
        ("solve", env.solve, (params,)),
        ("reference_action", env.reference_action, (plan, state, params, key)),
        ("heuristic_start", env.heuristic_start, ()),
        ("heuristic_step", env.heuristic_step, (memory, seen, key)),
        ("sample_action", env.sample_action, (key, seen)),
        ("average_task", env.average_task, (params, population)),
    ]


def types(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every leaf, by its path."""
    return {jax.tree_util.keystr(p): (x.shape, str(x.dtype)) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


@contextlib.contextmanager
def wide() -> Iterator[None]:
    """``jax_enable_x64``."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def faults_in_64_bits(env: ResourceEnv) -> list[str]:
    """Functions that fail with ``jax_enable_x64`` or return leaves of other types than without."""
    narrow = [
        (name, function, shapes, types(jax.eval_shape(function, *shapes))) for name, function, shapes in calls(env)
    ]
    faults = []
    with wide():
        for name, function, shapes, expected in narrow:
            try:
                found = types(jax.eval_shape(function, *shapes))
            except Exception as error:
                faults.append(f"{name} fails: {_first_line(error)}")
            else:
                faults += [
                    f"{name}{path} is {x[1]}, without {expected.get(path)}"
                    for path, x in found.items()
                    if x != expected.get(path)
                ]
    return faults


def faults_in_strict_modes(env: ResourceEnv) -> list[str]:
    """Functions that leave dtypes to promotion or broadcast arrays of different rank without saying so."""
    faults = []
    traced = calls(env)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for name, function, shapes in traced:
            try:
                jax.eval_shape(function, *shapes)
            except Exception as error:
                faults.append(f"{name}: {_first_line(error)}")
    return faults


def faults_under_shard_map(env: ResourceEnv) -> list[str]:
    """Functions that do not trace inside ``jax.shard_map`` over two devices, for one task and for sampled ones."""
    each, mesh = PartitionSpec("d"), AbstractMesh((2,), ("d",), axis_types=(AxisType.Auto,))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))

    def episode(params: Any, key: chex.PRNGKey) -> Any:
        def body(carry: Any, nothing: None) -> Any:
            seen, state, memory = carry
            action, memory = env.heuristic_step(memory, seen, key)
            seen, state, reward, *_ = env.step(key, state, action, params)
            return (seen, state, memory), reward

        seen, state = env.reset(key, params)
        outputs = env.step(key, state, jnp.int32(env.noop_action), params)
        memory = arrays.vary_like(env.heuristic_start(), key, params)
        return jax.lax.scan(body, (seen, state, memory), None, length=2), outputs

    def policies(key: chex.PRNGKey) -> Any:
        params = env.sample_params(key)
        _, state = env.reset(key, params)
        return env.reference_action(env.solve(params), state, params, key)

    faults = []
    for name, function in (
        ("step", lambda key: episode(env.default_params, key)),
        ("step of sampled tasks", lambda key: episode(env.sample_params(key), key)),
        ("solve and reference_action", policies),
    ):
        try:
            jax.eval_shape(jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=each, out_specs=each), keys)
        except Exception as error:
            faults.append(f"{name}: {_first_line(error)}")
    return faults


def draws(function: Callable[..., Any], *shapes: Any) -> tuple[list[Any], str]:
    """Indices of the uniforms that a function draws, and its jaxpr with those draws left out."""
    indices = []

    def record(key: chex.PRNGKey, index: chex.Numeric, count: int) -> chex.Array:
        del key
        indices.append(index)
        return jnp.full((count,), 0.5, jnp.float32)

    with mock.patch.object(sampling, "uniforms", record):
        return indices, str(jax.make_jaxpr(function)(*shapes))


def faults_of_draws(env: ResourceEnv) -> list[str]:
    """Draws that two purposes would share: a task, a reset and every period have uniforms of their own."""
    shapes = {name: (function, arguments) for name, function, arguments in calls(env)}
    faults = []
    for name, wanted in (
        ("sample_params", sampling.TASK_INDEX),
        ("reset_env", sampling.RESET_INDEX),
        ("step_env", None),
    ):
        function, arguments = shapes[name]
        indices, jaxpr = draws(function, *arguments)
        if any(word in jaxpr for word in ("random_bits", "threefry", "random_fold_in", "random_split")):
            faults.append(f"{name} draws by other means than sampling.uniforms")
        if wanted is not None and any(isinstance(i, jax.core.Tracer) or int(i) != wanted for i in indices):
            faults.append(f"{name} draws uniforms of index {indices}, not {wanted} alone")
        if wanted is None and not all(isinstance(i, jax.core.Tracer) or 0 <= int(i) < env.num_periods for i in indices):
            faults.append(f"{name} draws uniforms of index {indices}, not of its period")
    # Other draws than the uniforms they are given would not be shared between policies.
    for name in ("init_state", "choose", "advance", "observation"):
        function, arguments = shapes[name]
        jaxpr = str(jax.make_jaxpr(function)(*arguments)) if name != "init_state" else draws_of_start(env)
        if "random_bits" in jaxpr or "threefry" in jaxpr:
            faults.append(f"{name} draws its own noise")
    return faults


def draws_of_start(env: ResourceEnv) -> str:
    """The jaxpr of ``init_state`` for raw key words, which need no derivation."""
    words, params = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.eval_shape(lambda: env.default_params)
    start = jax.ShapeDtypeStruct((env.num_reset_uniforms,), jnp.float32)
    return str(jax.make_jaxpr(env.init_state)(words, start, params))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
