"""Tries to improve on a reference that is called optimal: on the same noise, nothing may earn more on average."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import policies
from envs_jax import rollout as engine
from envs_jax.environment import EnvParams
from envs_jax.testing.evidence import TASKS, Evidence, quick_jit

DEVIATING, ROUNDS = 64, 2
"""Episodes of each task with one deviation each, and how often they are played: 1024 deviations in all."""
FEW = 30
"""Deviations of one kind below which nothing is said of them."""
NEVER = -1


def improvements(k: Evidence) -> list[str]:
    """What earns more than the reference by more than chance allows, in words; empty for an optimum.

    Tried are the other policies, the reference planned for the average task and for another task (three standard
    errors over tasks), and *one-step deviations*: at a random time a random other legal action, then the reference
    again. A deviation on average is no threat to a bad reference, so they are also taken by the action that was chosen
    and by whether its number is larger or smaller than the reference's (four standard errors, because they are many).
    """
    faults: list[str] = []
    other = {name: [t.returns[name] - t.returns["reference"] for t in k.trials] for name in ("noop", "heuristic")}
    for name, by_batch in other.items():
        faults += _above(f"the {name} policy", np.concatenate(by_batch).mean(-1), 3.0)
    faults += _above("random play", np.concatenate([t.random - t.returns["reference"][:, 0] for t in k.trials]), 3.0)
    play, solve = deviating(k), quick_jit(jax.vmap(k.env.solve))
    plan = solve(k.tasks)
    keys = jax.random.split(jax.random.key(8), (TASKS, DEVIATING))
    never = jnp.full((TASKS, DEVIATING), NEVER, jnp.int32)
    base_actions, base = play(plan, k.tasks, k.tasks, keys, never, keys[0, 0])
    average = quick_jit(jax.vmap(k.env.average_task, in_axes=(0, None)))(k.tasks, k.tasks)
    rolled = k.swapped(*k.env.hidden)
    for what, believed in (("the average task", average), ("another task", rolled)):
        _, total = play(solve(believed), believed, k.tasks, keys, never, keys[0, 0])
        faults += _above(f"the reference planned for {what}", (total - base).mean(-1), 3.0)
    gain: list[np.ndarray] = []
    chosen: list[np.ndarray] = []
    instead: list[np.ndarray] = []
    for index in range(ROUNDS):
        one, luck = jax.random.split(jax.random.fold_in(jax.random.key(9), index))
        when = np.asarray(jax.random.randint(one, (TASKS, DEVIATING), 0, k.env.horizon))
        actions, total = play(plan, k.tasks, k.tasks, keys, jnp.asarray(when), luck)
        before, after = (np.take_along_axis(x, when[None], 0)[0] for x in (base_actions, actions))
        deviates = before != after
        gain.append((total - base)[deviates])
        chosen.append(after[deviates])
        instead.append(before[deviates])
    gains, new, own = np.concatenate(gain), np.concatenate(chosen), np.concatenate(instead)
    scale = 1e-5 * float(np.abs(base).mean())
    kinds = {"one other choice": (np.ones(new.shape, bool), 3.0)}
    kinds["one choice of a larger number"], kinds["one choice of a smaller number"] = (new > own, 4.0), (new < own, 4.0)
    kinds |= {f"one choice of action {a} instead of another": (new == a, 4.0) for a in np.unique(new)}
    kinds |= {f"one other choice instead of action {a}": (own == a, 4.0) for a in np.unique(own)}
    for what, (which, errors) in kinds.items():
        if which.sum() >= FEW:
            faults += _above(what, gains[which], errors, scale)
    return faults


def _above(what: str, gains: np.ndarray, errors: float, allowed: float = 0.0) -> list[str]:
    """A sentence if the mean of gains is above 0 by so many standard errors."""
    mean, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(gains.size))
    if mean <= errors * error + allowed + 1e-6:
        return []
    return [f"{what} earns {mean:.4g} more, standard error {error:.2g} over {gains.size}"]


def deviating(k: Evidence) -> Any:
    """Compiles play of the reference that chooses at random once: actions ``i32[T, B, E]`` and returns ``f64[B, E]``.

    Its arguments: plans, the tasks they are for, those it is in, keys of episodes, when to deviate (``i32[B, E]``), a
    key.
    """
    env = k.env

    @quick_jit
    def play(
        plan: Any, believed: EnvParams, tasks: EnvParams, keys: chex.PRNGKey, when: chex.Array, luck: chex.PRNGKey
    ) -> Any:
        def act(seens: Any, states: Any, key: chex.PRNGKey) -> tuple[chex.Array]:
            (seen,), (state,) = seens, states
            own = policies.reference_actions(env, plan, state, believed, key)
            return (jnp.where(when == state.time, policies.random_actions(seen, key), own),)

        def kept(domain: int, step: engine.Step) -> Any:
            return step.action, step.info["expected_reward"]

        (steps,), _ = engine.rollout((env,), (tasks,), (keys,), act, luck, record=kept)
        return steps

    def played(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        actions, rewards = jax.device_get(play(*arguments))
        return actions, rewards.astype(np.float64).sum(0)

    return played
