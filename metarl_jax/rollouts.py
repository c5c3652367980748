"""Programs of one domain: draw tasks, play episodes, record them.

Everything that depends on a domain's equations is in the first two, and both take what varies between their uses as
arguments: whether a learner, chance, a heuristic or the reference chooses, how much is explored, on which tasks. So
each domain is compiled once for each actor, whichever learners train on it, alone or with others, and whoever is tested
on it. What is kept of the played episodes is the matter of a third, small program for each kind of record.

All work on R *replicas* side by side, spread over the devices: the members of a training run, each with tasks of its
own, or blocks of an evaluation set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import policies as scripted
from envs_jax.environment import EnvParams, ResourceEnv
from envs_jax.observation import Observation
from envs_jax.policies import PolicyName as ScriptedName
from envs_jax.rollout import Step, recurrent_rollout
from envs_jax.suite import Suite
from metarl_jax.learners.base import Actor, Carry, Exploration
from metarl_jax.networks.actor import ActingMode
from metarl_jax.recording import Recorder
from metarl_jax.rewards import without_last_reward
from metarl_jax.runtime.programs import Programs
from metarl_jax.types import Support, Trajectory

PolicyName = Literal["learner", "random", "noop", "heuristic", "reference", "mixture"]
POLICIES: tuple[PolicyName, ...] = get_args(PolicyName)

LEAST_EPSILON, MOST_EPSILON = 0.03, 0.75
"""Chance of a random choice of the reference in a mixture: its logarithm is uniform between these."""

TAKES_PART = 0.5
"""Chance that the heuristic takes part in a block of episodes of the mixture: some plan in every turn."""


@struct.dataclass
class Behaviour:
    """Who chooses in an episode of a mixture, ``[B, E]`` each.

    Attributes:
      first: ``i32`` index in :data:`POLICIES` of who begins.
      second: of who goes on.
      switch: ``i32`` the choice from which on the second chooses.
      epsilon: ``f32`` chance of a random choice where the reference chooses.
    """

    first: chex.Array
    second: chex.Array
    switch: chex.Array
    epsilon: chex.Array

    @classmethod
    def draw(cls, key: chex.PRNGKey, shape: tuple[int, ...], horizon: int, heuristic: chex.Array) -> Behaviour:
        """The reference half of the time, else chance or, if ``heuristic bool[]``, one of both."""
        who_key, which_key, when_key, epsilon_key = jax.random.split(key, 4)
        reference = jax.random.bernoulli(who_key, 0.5, (2, *shape))
        ruled = jax.random.bernoulli(which_key, 0.5, (2, *shape)) & heuristic
        other = jnp.where(ruled, POLICIES.index("heuristic"), POLICIES.index("random"))
        first, second = jnp.where(reference, POLICIES.index("reference"), other).astype(jnp.int32)
        low, high = jnp.log(LEAST_EPSILON), jnp.log(MOST_EPSILON)
        return cls(
            first=first,
            second=second,
            switch=jax.random.randint(when_key, shape, 0, horizon),
            epsilon=jnp.exp(jax.random.uniform(epsilon_key, shape, minval=low, maxval=high)),
        )

    def chooses(self, time: chex.Array, key: chex.PRNGKey) -> chex.Array:
        """Index ``i32[B, E]`` in :data:`POLICIES` of who makes the choice of this time."""
        who = jnp.where(time < self.switch, self.first, self.second)
        slips = jax.random.uniform(key, who.shape) < self.epsilon
        return jnp.where(slips & (who == POLICIES.index("reference")), POLICIES.index("random"), who)


@struct.dataclass
class RolloutMode:
    """How episodes are played; scalars, the same in all replicas, so that what is not asked for is not computed.

    Attributes:
      policy: ``i32[]`` index in :data:`POLICIES`.
      acting: exploration of the learner.
      labelled: ``bool[]`` whether to record what the reference would have chosen.
      blank_rewards: ``bool[]`` whether the learner sees 0 for the last reward.
    """

    policy: chex.Array
    acting: ActingMode
    labelled: chex.Array
    blank_rewards: chex.Array

    @classmethod
    def of(
        cls,
        policy: PolicyName,
        explore: Exploration = Exploration(),  # noqa: B008 - frozen
        labelled: bool = False,
        blank_rewards: bool = False,
    ) -> RolloutMode:
        """From plain values."""
        acting = ActingMode(jnp.float32(explore.epsilon), jnp.float32(explore.temperature))
        return cls(jnp.int32(POLICIES.index(policy)), acting, jnp.bool_(labelled), jnp.bool_(blank_rewards))


MIXTURE = 1
"""What the key of a play's choices is folded with for who makes them in a mixture."""


class ActingError(Exception):
    """An actor raised while its program was traced; the cause is chained."""


@struct.dataclass
class Rollouts:
    """E episodes of each of B tasks, as played.

    Attributes:
      trajectory: all choices in the domain's own shapes, leaves ``[T, B, E, ...]``, rewards in its unit.
      score: ``f32[B, E]`` undiscounted returns; of the noise-free expected reward where the domain states one.
      carry: what the actor remembers after the last choice, ``[B, E, ...]``.
    """

    trajectory: Trajectory
    score: chex.Array
    carry: Carry


def _draw(env: ResourceEnv) -> Callable[[chex.PRNGKey], tuple[EnvParams, Any]]:
    def draw(keys: chex.PRNGKey) -> tuple[EnvParams, Any]:
        tasks = jax.vmap(env.sample_params)(keys)
        return tasks, jax.vmap(env.solve)(tasks)

    return draw


def _play(env: ResourceEnv, actor: Actor) -> Callable[..., Rollouts]:
    def play(
        acting: Any,
        policies: Any,
        carry: Carry,
        tasks: EnvParams,
        plans: Any,
        keys: chex.PRNGKey,
        key: chex.PRNGKey,
        mode: RolloutMode,
    ) -> Rollouts:
        *_, act_key = jax.random.split(key, 3)  # the others are the recorder's
        mixed = mode.policy == POLICIES.index("mixture")
        part_key, behaviour_key, slip_key = jax.random.split(jax.random.fold_in(act_key, MIXTURE), 3)
        takes_part = jax.random.bernoulli(part_key, TAKES_PART)
        behaviour = Behaviour.draw(behaviour_key, keys.shape, env.horizon, takes_part)

        def act(seens: Any, states: Any, carries: Any, key: chex.PRNGKey) -> tuple[tuple[chex.Array], Any, Any]:
            (seen,), (state,), (carry, memory) = seens, states, carries
            nothing = scripted.actions(env, "noop", seen, state, tasks, plans, key)

            def follow(name: ScriptedName) -> chex.Array:
                return scripted.actions(env, name, seen, state, tasks, plans, key)

            asked = mode.labelled | (mode.policy == POLICIES.index("reference")) | mixed
            best = jax.lax.cond(asked, lambda: follow("reference"), lambda: nothing)

            def learner() -> tuple[chex.Array, Carry]:
                shown = jax.lax.cond(mode.blank_rewards, without_last_reward, lambda seen: seen, seen)

                def one(policy: Any, carry: Carry, seen: Observation, key: chex.PRNGKey) -> tuple[chex.Array, Carry]:
                    try:
                        return actor.act(acting, policy, carry, seen, key, mode.acting)
                    except Exception as error:
                        raise ActingError from error

                return jax.vmap(one)(policies, carry, shown, jax.random.split(key, seen.token_mask.shape[0]))

            def heuristic() -> tuple[chex.Array, Any]:
                action, remembered = scripted.heuristic_actions(env, memory, seen, key)
                return action, (carry, remembered)

            def with_memory(chosen: tuple[chex.Array, Carry]) -> tuple[chex.Array, Any]:
                action, carry = chosen
                return action, (carry, memory)

            def scripted_ones() -> tuple[chex.Array, Any]:
                slip = jax.random.fold_in(slip_key, state.time)
                who = jnp.where(mixed, behaviour.chooses(state.time, slip), mode.policy)
                needed = jnp.where(mixed, takes_part, mode.policy == POLICIES.index("heuristic"))
                ruled, carries = jax.lax.cond(needed, heuristic, lambda: with_memory((nothing, carry)))
                drawn = follow("random")
                by_name = {"random": drawn, "noop": nothing, "heuristic": ruled, "reference": best}
                chosen = (by_name.get(name, nothing) for name in POLICIES)
                return jax.lax.select_n(jnp.broadcast_to(who, nothing.shape), *chosen), carries

            # A branch over a scalar, outside any vmap, is a real one, and one program serves all policies.
            learns = mode.policy == POLICIES.index("learner")
            action, carries = jax.lax.cond(learns, lambda: with_memory(learner()), scripted_ones)
            return (action,), best, carries

        def record(domain: int, step: Step) -> tuple[Trajectory, chex.Array]:
            period_end = jnp.broadcast_to(step.state.time % env.num_turns == env.num_turns - 1, step.action.shape)
            chosen = Trajectory(
                observation=step.observation,
                action=step.action,
                reward=step.reward,
                discount=step.info["discount"],
                period_end=period_end,
                reference=step.notes,
                valid=jnp.ones(step.action.shape, bool),
                final=(),
            )
            return chosen, step.info["expected_reward"]

        carries = (carry, scripted.memory(env, *keys.shape))  # the heuristic's, of one episode
        played, (final,), (carry, _) = recurrent_rollout((env,), (tasks,), (keys,), act, carries, act_key, record)
        trajectory, expected = played[0]
        return Rollouts(trajectory.replace(final=final), expected.sum(0), carry)

    return play


@dataclasses.dataclass(frozen=True)
class DomainPrograms:
    """One domain's compiled programs.

    Attributes:
      name: of the domain.
      suite: whose padded shapes records have.
      env: the domain.
      programs: of the run.
    """

    name: str
    suite: Suite
    env: ResourceEnv
    programs: Programs

    @classmethod
    def of(cls, suite: Suite, name: str, programs: Programs) -> DomainPrograms:
        """Programs of one domain of a suite; the same arguments give the same programs."""
        (env,) = suite.subset([name]).envs
        return cls(name, suite, env, programs)

    def draw(self, keys: chex.PRNGKey) -> tuple[EnvParams, Any]:
        """Keys ``[R, B]`` to tasks and the reference's plans for them, ``[R, B, ...]``."""
        return self.programs.get("draw", self.env, lambda: _draw(self.env))(keys)

    def play(self, actor: Actor, *arguments: Any) -> Rollouts:
        """Plays whole episodes.

        Args:
          actor: who chooses where the mode's policy is "learner".
          *arguments: acting parameters ``[R, ...]``; policies ``[R, B, ...]``; the actor's carry ``[R, B, E, ...]``;
            tasks and plans ``[R, B, ...]``; keys of the episodes ``[R, B, E]``; a key ``[R]`` for choices and samples;
            :class:`RolloutMode`.
        """
        program = self.programs.get("play", (self.env, actor), lambda: _play(self.env, actor), shared=1)
        return program(*arguments)

    def record(self, recorder: Recorder, rollouts: Rollouts, key: chex.PRNGKey) -> Support:
        """What a recorder keeps of roll-outs: axes ``[R, B, E, ...]``; the key ``[R]`` is that of the play."""

        def make() -> Callable[..., Support]:
            return lambda played, key: recorder.record(self.suite, self.env, played, key)

        spec = (self.env, recorder, self.suite.shapes)
        return self.programs.get("record", spec, make)(rollouts.trajectory, key)
