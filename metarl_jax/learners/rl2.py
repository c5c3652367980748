"""RL2 (Duan 2016; Wang 2016): a recurrent policy that learns, over a trial of several episodes, to learn a task.

The recurrent state lives through all K support episodes and the query episode of a trial and starts anew with the next
task only. It is fed the pooled observation (which shows the last reward) and the last action. It is trained by proximal
policy optimisation over whole trials: the end of an episode within a trial does not cut the advantage, so that what is
explored early may pay later. It adapts by remembering: no gradient is taken in a new task.

Differs from the papers: PPO for TRPO and A3C, a Transformer reads the observation beside the recurrent state, and the
advantage accumulates between periods, not between the turns of one.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax.configs import Rl2Config
from metarl_jax.learners import actor_critic
from metarl_jax.learners.actor_critic import Items
from metarl_jax.learners.base import Learner, Metrics, Needs
from metarl_jax.losses import policy
from metarl_jax.networks.actor import Policy
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.recording import Recorder
from metarl_jax.types import MetaBatch, Support, Trajectory, flatten_axes


def make(config: Rl2Config, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    network = AgentNetwork(config.network, use_memory=False, recurrent=True)
    needs = Needs(
        tasks=config.data.tasks,
        support_episodes=config.data.episodes,
        query_episodes=config.trials,
        record=Recorder(config.data.periods, ordered=True),
        support="own",
        order="sequential",
        explore_support=actor_critic.SAMPLING,
        explore_query=actor_critic.SAMPLING,
    )
    hidden = config.network.hidden

    def q_at(params: Params, seen: Observation, state: chex.Array) -> chex.Array:
        memory = network.no_memory(seen.tokens.shape[-2])
        features = network.trunk(params, seen, memory, network.recurrent_answer(params, state))
        return network.head(params, features, seen)[0]

    def unrolled(params: Params, trajectory: Trajectory) -> tuple[chex.Array, chex.Array, chex.Array]:
        """``Q f32[L, A]`` along one trial; after it, the recurrent state and the description of the last action."""
        seen = trajectory.observation
        chosen = jnp.take_along_axis(seen.actions, trajectory.action[:, None, None], axis=1)[:, 0]

        # What was chosen last, where choices that do not exist lie between.
        def remember(last: chex.Array, now: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
            description, valid = now
            return jnp.where(valid, description, last), last

        latest, last = jax.lax.scan(remember, jnp.zeros(chosen.shape[-1]), (chosen, trajectory.valid))
        inputs = network.recurrent_inputs(params, seen, last)

        def step(state: chex.Array, now: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
            inputs, valid = now
            following = jnp.where(valid, network.recur(params, state, inputs), state)
            return following, following

        end, states = jax.lax.scan(step, jnp.zeros(hidden), (inputs, trajectory.valid))
        return q_at(params, seen, states), end, latest

    def targets(params: Params, trajectory: Trajectory) -> policy.Targets:
        q, state, latest = unrolled(params, trajectory)
        state = network.recur(params, state, network.recurrent_inputs(params, trajectory.final, latest))
        return policy.collecting_targets(q, q_at(params, trajectory.final, state), trajectory, config.trace)

    def collected(params: Params, batch: MetaBatch) -> Items:
        found = jax.lax.map(lambda task: jax.vmap(lambda one: targets(params, one))(task), batch.query)
        return Items(*flatten_axes((batch.query.replace(final=()), found), 0, 2))

    def loss(params: Params, items: Items) -> tuple[chex.Array, Metrics]:
        return actor_critic.surrogate(jax.vmap(lambda one: unrolled(params, one)[0])(items.trajectory), items, config)

    def adapt(trained: dict[str, Any], support: Support) -> Policy:
        del support  # it is remembered in the carry
        own = {"head": trained["params"]["head"]}
        return Policy(own, network.no_memory(suite.num_tokens), jnp.zeros(hidden))

    return actor_critic.make_learner(
        "rl2",
        config,
        suite,
        network,
        needs,
        collected=collected,
        loss=loss,
        adapt=adapt,
        epochs=config.epochs,
    )
