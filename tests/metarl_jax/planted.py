"""Learners that learn nothing, act by a rule that is known, and so come out with returns that are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax.numpy as jnp

from envs_jax.observation import Observation
from metarl_jax.learners.base import Learner, Needs, Phase
from metarl_jax.networks.actor import ActingMode
from metarl_jax.recording import Recorder
from metarl_jax.types import Support

PHASE = Phase("none")

Choose = Callable[[Any, Any, Observation, chex.PRNGKey, ActingMode], chex.Array]
"""Acting parameters, a task's policy, observations ``[E, ...]``, a key, a mode -> choices ``i32[E]``."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """An actor that remembers nothing."""

    choose: Choose

    def start(self, params: Any, policy: Any) -> tuple[()]:
        del params, policy
        return ()

    def act(
        self, params: Any, policy: Any, carry: Any, seen: Observation, key: chex.PRNGKey, mode: ActingMode
    ) -> tuple[chex.Array, Any]:
        return self.choose(params, policy, seen, key, mode), carry


@dataclasses.dataclass(frozen=True)
class Counter:
    """An actor whose choice is how many choices the trial has seen before, over ``turns``, modulo ``actions``."""

    turns: int
    actions: int

    def start(self, params: Any, policy: Any) -> chex.Array:
        del params, policy
        return jnp.int32(0)

    def act(
        self, params: Any, policy: Any, carry: chex.Array, seen: Observation, key: chex.PRNGKey, mode: ActingMode
    ) -> tuple[chex.Array, chex.Array]:
        del params, policy, key, mode
        wanted = carry // self.turns % self.actions
        legal = jnp.take_along_axis(seen.action_mask, wanted[..., None], axis=-1)[..., 0]
        return jnp.where(legal, wanted, 0).astype(jnp.int32), carry + 1


def first_legal(params: Any, policy: Any, seen: Observation, key: chex.PRNGKey, mode: ActingMode) -> chex.Array:
    del params, policy, key, mode
    return jnp.argmax(seen.action_mask, axis=-1).astype(jnp.int32)


def offset_of_policy(params: Any, policy: Any, seen: Observation, key: chex.PRNGKey, mode: ActingMode) -> chex.Array:
    """The policy's number plus the trained offset, where that is legal, else 0."""
    del key, mode
    wanted = jnp.full(seen.action_mask.shape[:-1], policy, jnp.int32) + params["offset"]
    legal = jnp.take_along_axis(seen.action_mask, wanted[..., None], axis=-1)[..., 0]
    return jnp.where(legal, wanted, 0)


def episodes_given(trained: Any, support: Support) -> chex.Array:
    """How many support episodes may be used."""
    del trained
    return support.history.valid.any(-1).sum()


def needs(**changed: Any) -> Needs:
    """Blocks of two tasks, two support episodes, transitions."""
    base: dict[str, Any] = {"tasks": 2, "support_episodes": 2, "query_episodes": 2}
    return Needs(**(base | {"record": Recorder(periods=64, samples=2)} | changed))


def nothing(*arguments: Any) -> Any:
    raise NotImplementedError


def make(
    name: str, actor: Any, adapt: Callable[..., Any] = episodes_given, own: Needs | None = None, **trained: int
) -> Learner:
    """A learner whose trained state is ``trained``; ``update`` counts iterations."""

    def init(key: chex.PRNGKey, hyperparams: Any) -> dict[str, chex.Array]:
        del key
        return {name: jnp.int32(value) for name, value in trained.items()} | {"iteration": jnp.int32(0) * hyperparams}

    def update(state: Any, batch: Any, key: chex.PRNGKey, phase: Phase) -> tuple[Any, dict[str, chex.Array]]:
        del key, phase
        return state | {"iteration": state["iteration"] + 1}, {"reward": batch.reward}

    return Learner(
        name=name,
        spec=("planted", name),
        init=init,
        update=update,
        schedule=lambda progress: PHASE,
        params=lambda state: state,
        adapt=adapt,
        actor=actor,
        acting=lambda trained: trained,
        needs=needs() if own is None else own,
        hyperparams=lambda iterations, labels: jnp.int32(1),
    )
