"""Checks of what gymnax's clients meet: splits of tasks, spaces, sampling of legal actions, views, the horizon."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.views import DictObservation, FlatObservation
from envs_jax.testing.evidence import TASKS, Evidence, leaves, quick_jit
from envs_jax.testing.requirements import require, require_equal

SPLITS = ("inside", "outside")


def tasks_can_be_drawn_inside_and_outside(k: Evidence) -> None:
    """``sample_params`` takes ``split``: finite tasks of the same types, of other parts of the ranges."""
    require("split" in inspect.signature(k.env.sample_params).parameters, "sample_params takes no split")
    keys = jax.random.split(jax.random.key(1), TASKS)
    drawn = quick_jit(lambda keys: [jax.vmap(lambda key, s=s: k.env.sample_params(key, split=s))(keys) for s in SPLITS])
    stacks = dict(zip(SPLITS, drawn(keys), strict=True))
    for split, stack in stacks.items():
        chex.assert_trees_all_equal_shapes_and_dtypes(stack, k.tasks)
        for path, x in leaves(stack).items():
            require(np.isfinite(x).all(), f"{path} is not finite in a task drawn {split}")
    for one, other in (("inside", "outside"), ("inside", "all"), ("outside", "all")):
        tasks = [k.tasks if split == "all" else stacks[split] for split in (one, other)]
        same = all(np.array_equal(x, y) for x, y in zip(*(leaves(t).values() for t in tasks), strict=True))
        require(not same, f"tasks drawn {one} and {other} are the same: sample_params does not use task_uniforms")


def spaces_and_values_are_of_one_type(k: Evidence) -> None:
    """Spaces contain what comes and what they sample; samples have the type, shapes and dtypes of what comes."""
    one = lambda tree: jax.tree.map(lambda x: jnp.asarray(x[0]), tree)  # noqa: E731
    for what, space, came in (
        ("observation_space", k.env.observation_space(k.default), one(k.final)),
        ("state_space", k.env.state_space(k.default), one(k.end)),
    ):
        drawn = quick_jit(space.sample)(jax.random.key(0))
        require(type(drawn) is type(came), f"{what} samples a {type(drawn).__name__}, not a {type(came).__name__}")
        chex.assert_trees_all_equal_shapes_and_dtypes(drawn, came)
        require(space.contains(drawn), f"{what} does not contain its own sample")
        require(space.contains(came), f"{what} does not contain what came")
    sampled = quick_jit(k.env.observation_space(k.default).sample)(jax.random.key(1))
    require(sampled.action_mask[k.env.noop_action], "observation_space samples a mask without the no-op")
    require(k.env.action_space(k.default).contains(k.action).all(), "action_space does not contain the choices made")


def legal_actions_can_be_sampled(k: Evidence) -> None:
    """``sample_action`` takes one observation or a batch and is legal, and not always the same."""
    seen = jax.tree.map(jnp.asarray, k.seen)
    sample = quick_jit(k.env.sample_action)
    action = np.asarray(sample(jax.random.key(0), seen))
    require((action.shape, action.dtype) == (k.action.shape, np.int32), f"they are {action.dtype}{action.shape}")
    require(np.take_along_axis(k.seen.action_mask, action[..., None], -1).all(), "an illegal action is sampled")
    require((action != action.flat[0]).any(), "the same action is always sampled")
    single = sample(jax.random.key(1), jax.tree.map(lambda x: x[0, 0], k.seen))
    require(single.shape == () and k.seen.action_mask[0, 0, int(single)], "for one observation it is none, or illegal")


def views_show_what_the_domain_shows(k: Evidence) -> None:
    """The flat and the dict view keep everything, obey their spaces, and step with the types that they say."""
    key = jax.random.key(0)
    views: tuple[FlatObservation | DictObservation, ...] = (FlatObservation(k.env), DictObservation(k.env))
    for view in views:
        what = type(view).__name__
        shown = quick_jit(view.view)(k.seen)
        require(view.observation_space(k.default).contains(shown), f"{what} leaves its space")
        require_equal(quick_jit(view.unview)(shown), k.seen, f"{what} loses a part: ")
        first, state = jax.eval_shape(view.reset, key, k.default)
        after, following, *_, info = jax.eval_shape(view.step, key, state, jnp.int32(k.env.noop_action), k.default)
        one = jax.tree.map(lambda x: np.asarray(x)[0, 0], shown)
        for name, seen in (("reset", first), ("step", after), ("final_observation", info["final_observation"])):
            require(_types(seen) == _types(one), f"{what}.{name} gives {_types(seen)}, not {_types(one)}")
        require(_types(following) == _types(state), f"{what} changes the types of the state")
    flat = quick_jit(lambda key: views[0].view(k.env.observation_space(k.default).sample(key)))(key)
    require(views[0].observation_space(k.default).contains(flat), "a sample, flat, leaves the flat space")


def the_horizon_is_the_constructors(k: Evidence) -> None:
    """Another ``max_steps_in_episode`` is refused where it has a value, and without effect under a trace."""
    other = k.default.replace(max_steps_in_episode=jnp.int32(k.env.horizon - 1))
    last = jax.tree.map(lambda x: jnp.asarray(x[0]), k.end)
    calls: dict[str, Callable[[], Any]] = {
        "reset": lambda: k.env.reset(jax.random.key(0), other),
        "step": lambda: k.env.step(jax.random.key(0), last, jnp.int32(k.env.noop_action), other),
    }
    for name, call in calls.items():
        refused = ""
        try:
            call()
        except ValueError as error:
            refused = str(error)
        require("num_periods" in refused, f"{name} with another max_steps_in_episode says {refused!r}, not num_periods")
    require(k.env.is_truncated(last, other), "an episode is not truncated at its horizon")
    require(not k.env.is_truncated(last.replace(time=last.time - 1), other), "max_steps_in_episode moves the horizon")


def _types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (tuple(x.shape), np.dtype(x.dtype)), tree)
