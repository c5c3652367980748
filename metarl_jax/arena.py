"""Programs around one domain: draw tasks, play episodes.

Everything that depends on a domain's equations is in these two programs, and both take what varies between their uses
as arguments: whether a learner, chance, a heuristic or the reference chooses, how much is explored, on which tasks. So
each domain is compiled once, whichever learners train on it, alone or with others, and whoever is tested on it.

Both work on L *lanes* side by side, spread over the devices: the members of a training run, each with tasks of its own,
or blocks of an evaluation set.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation
from envs_jax.suite import (
    Suite,
    lockstep_observe,
    lockstep_reset,
    lockstep_step,
    random_actions,
    reference_actions,
)
from metarl_jax import experience as xp
from metarl_jax.configs import QLearningConfig
from metarl_jax.lanes import over_lanes

Who = Literal["learner", "random", "noop", "heuristic", "reference"]
PLAYERS: tuple[Who, ...] = get_args(Who)

Act = Callable[[Any, Any, Observation, chex.PRNGKey, chex.Numeric], chex.Array]


@struct.dataclass
class Conduct:
    """How episodes are played; scalars, the same in all lanes, so that what is not asked for is not computed.

    Attributes:
      who: ``i32[]`` index in :data:`PLAYERS`.
      epsilon: ``f32[]`` exploration of the learner.
      labelled: ``bool[]`` whether to record what the reference would have chosen.
    """

    who: chex.Array
    epsilon: chex.Array
    labelled: chex.Array

    @classmethod
    def of(cls, who: Who, epsilon: float = 0.0, labelled: bool = False) -> Conduct:
        """From plain values."""
        return cls(jnp.int32(PLAYERS.index(who)), jnp.float32(epsilon), jnp.bool_(labelled))


@struct.dataclass
class Played:
    """What is kept of E episodes of each of B tasks.

    Attributes:
      support: axes ``[B, E, ...]``, rewards in the domain's unit.
      score: ``f32[B, E]`` undiscounted returns; of the noise-free expected reward where the domain states one.
    """

    support: xp.Support
    score: chex.Array


@functools.cache
def _draw(env: ResourceEnv) -> Callable[[chex.PRNGKey], tuple[EnvParams, Any]]:
    def draw(keys: chex.PRNGKey) -> tuple[EnvParams, Any]:
        tasks = jax.vmap(env.sample_params)(keys)
        return tasks, jax.vmap(env.solve)(tasks)

    return draw


@functools.cache
def _play(suite: Suite, act: Act, samples: int, num_steps: int, length: int) -> Callable[..., Played]:
    (env,) = suite.envs

    def play(
        shared: Any,
        policies: Any,
        tasks: EnvParams,
        plans: Any,
        keys: chex.PRNGKey,
        key: chex.PRNGKey,
        conduct: Conduct,
    ) -> Played:
        period_key, sample_key, act_key = jax.random.split(key, 3)

        def choose(state: EnvState, seen: Observation, key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
            batch = seen.token_mask.shape[:2]

            def learner() -> chex.Array:
                one = lambda policy, seen, key: act(shared, policy, seen, key, conduct.epsilon)  # noqa: E731
                return jax.vmap(one)(policies, seen, jax.random.split(key, batch[0]))

            nothing = jnp.full(batch, env.noop_action, jnp.int32)
            asked = conduct.labelled | (conduct.who == PLAYERS.index("reference"))
            best = jax.lax.cond(asked, lambda: reference_actions(env, plans, state, tasks, key), lambda: nothing)
            by_player: dict[Who, Callable[[], chex.Array]] = {
                "learner": learner,
                "random": lambda: random_actions(seen, key),
                "noop": lambda: nothing,
                "heuristic": lambda: jax.vmap(jax.vmap(env.heuristic_action))(seen, jax.random.split(key, batch)),
                "reference": lambda: best,
            }
            return jax.lax.switch(conduct.who, [by_player[who] for who in PLAYERS]), best

        def body(state: EnvState, time: chex.Array) -> tuple[EnvState, tuple[xp.Episodes, chex.Array]]:
            # Only the state is carried: carried observations, far larger, would be copied at every step.
            seen = lockstep_observe(env, tasks, state)
            action, best = choose(state, seen, jax.random.fold_in(act_key, time))
            _, state, reward, info = lockstep_step(env, tasks, state, action)
            return state, (xp.Episodes(seen, action, reward, best), info["expected_reward"])

        _, start = lockstep_reset(env, tasks, keys)
        end, (episodes, expected) = jax.lax.scan(body, start, jnp.arange(env.horizon))
        final = lockstep_observe(env, tasks, end)
        support = xp.Support(
            xp.periods(suite, env, episodes, final, period_key, length),
            xp.transitions(suite, env, episodes, sample_key, samples, num_steps),
        )
        return Played(support, expected.sum(0))

    return play


@dataclasses.dataclass(frozen=True)
class Arena:
    """One domain's compiled programs.

    Attributes:
      name: of the domain.
      env: the domain.
      lanes: L.
      draw: keys ``[L, B]`` to tasks and the reference's plans for them, ``[L, B, ...]``.
      play: what acting reads of the learner ``[L, ...]``, its policies, tasks and plans ``[L, B, ...]``, keys of the
        episodes ``[L, B, E]``, a key ``[L]`` for choices and samples, :class:`Conduct` -> :class:`Played`
        ``[L, B, E]``.
    """

    name: str
    env: ResourceEnv
    lanes: int
    draw: Callable[[chex.PRNGKey], tuple[EnvParams, Any]]
    play: Callable[..., Played]


def make(suite: Suite, name: str, act: Act, data: QLearningConfig, lanes: int) -> Arena:
    """Programs of one domain of a suite; the same arguments give the same programs.

    Args:
      suite: whose padding to use.
      name: the domain.
      act: the learner's.
      data: what to keep of each episode.
      lanes: L.
    """
    alone = suite.subset([name])
    (env,) = alone.envs
    play = _play(alone, act, data.samples, data.num_steps, xp.remembered(suite, data))
    return Arena(name, env, lanes, over_lanes(_draw(env), lanes), over_lanes(play, lanes, shared=1))
