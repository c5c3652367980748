"""Proximal policy optimisation (Schulman 2017): multitask, no memory, no meta-learning; adapts by fine-tuning.

Every meta-iteration collects episodes of fresh tasks with the policy's own choices, recomputes their probabilities and
values, and takes a few epochs of clipped surrogate steps on minibatches of choices. In a new task it plays the support
episodes itself and takes plain gradient steps of the same loss on them; step size, number of steps and which parameters
move are chosen on validation tasks of its training domains.

Differs from the paper: actor and critic share the Transformer and the head (see ``losses/policy.py``); advantages
accumulate between periods, not between the turns of one; rewards are normalised by the domain's scale.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

from envs_jax.suite import Suite
from metarl_jax import adaptation
from metarl_jax.configs import PpoConfig
from metarl_jax.learners import actor_critic
from metarl_jax.learners.actor_critic import Items
from metarl_jax.learners.base import Exploration, Learner, Needs
from metarl_jax.losses import policy
from metarl_jax.networks.actor import Policy
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.recording import Recorder
from metarl_jax.types import Support, Trajectory, flatten_axes


def make(config: PpoConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    network = AgentNetwork(config.network, use_memory=False)
    sampling = Exploration(temperature=1.0)
    needs = Needs(
        tasks=config.data.tasks,
        support_episodes=0,
        query_episodes=2 * config.data.episodes,  # as many as others play for support and query
        record=Recorder(config.data.periods, ordered=True),
        support="own",
        explore_support=sampling,
        explore_query=sampling,
    )

    def q_values(params: Params, seen: Any) -> chex.Array:
        return network.q_values(params, seen, network.no_memory(seen.tokens.shape[-2]))

    def targets(params: Params, trajectory: Trajectory) -> policy.Targets:
        """Of one episode ``[L]``."""
        q, final_q = q_values(params, trajectory.observation), q_values(params, trajectory.final)
        return policy.collecting_targets(q, final_q, trajectory, config.trace)

    def collected(params: Params, trajectory: Trajectory) -> Items:
        # Task by task: a whole batch's activations would take a gigabyte.
        found = jax.lax.map(lambda task: jax.vmap(lambda one: targets(params, one))(task), trajectory)
        choices = flatten_axes((trajectory.replace(final=()), found), 0, 3)
        return Items(*choices)

    def adapt(trained: dict[str, Any], support: Support) -> Policy:
        params, tuned = trained["params"], trained["tuning"]  # as chosen by validation; while training there is none
        own = {name: params[name] for name in tuned or ("head",)}
        memory, hidden = network.no_memory(suite.num_tokens), jnp.zeros(config.network.hidden)
        if support.trajectory is None or not tuned:
            return Policy(own, memory, hidden)
        episodes = support.trajectory
        items = Items(episodes, jax.vmap(lambda one: targets(params, one))(episodes))
        fixed = None if "trunk" in own else network.trunk(params, episodes.observation, memory)

        def loss(subset: Params) -> chex.Array:
            current = {**params, **subset}
            features = network.trunk(current, episodes.observation, memory) if fixed is None else fixed
            q, _ = network.head(current, features, episodes.observation)
            return actor_critic.surrogate(q, items, config)[0]

        adapted = adaptation.fine_tune(loss, own, tuned["head"]["size"], tuned["head"]["steps"])
        return Policy(adapted, memory, hidden)

    def candidates(params: dict[str, Any]) -> dict[str, Any]:
        ways = adaptation.tuning_candidates(config.fine_tuning, params["params"])
        return {label: {**params, "tuning": way} for label, way in ways.items()}

    learner = actor_critic.make_learner(
        "ppo",
        config,
        suite,
        network,
        needs,
        collected=collected,
        q_values=lambda params, trajectory: q_values(params, trajectory.observation),
        adapt=adapt,
    )
    return learner._replace(candidates=candidates)
