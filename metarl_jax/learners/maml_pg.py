"""Policy-gradient MAML, its outer loss clipped (Finn 2017; ProMP, Rothfuss 2019): adapts by steps on own episodes.

In each task theta plays the support episodes and takes S steps, phi those of the query:

    inner    phi = theta - a grad[-mean(rho A)],   rho = pi_theta(a | s) / stop(pi_theta_old(a | s))
    outer    -mean(min(rho A, clip(rho) A)) of pi_phi on the query + eta KL(pi_theta_old || pi_theta) on the support

``theta_old`` collected, so rho is 1 at first; its first derivative is then that of log pi, and unlike log pi it has the
second derivative of the expected return as well (Foerster 2018; Rothfuss 2019), which the outer gradient goes through.
``order`` "first" stops there. Probabilities of both policies are recomputed before the first outer step. Advantages are
returns minus a linear baseline, fitted to each task's support and to its query (:mod:`metarl_jax.losses.baseline`), and
are normalised per task.

Settings are ProMP's: 5 outer steps of Adam with rate 1e-3 on all tasks, clip .3, eta 5e-4, inner step .1, lambda 1.

Differs from the papers: all S steps take the same support (theirs collect anew before each), of any number of episodes
from 0 on, as few as a test may give; step sizes are learned for every leaf (``rule`` "sgd" fixes them); by default the
head alone adapts. The outer loss is not TRPO's. Advantages accumulate between periods, not between the turns of one.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.suite import Suite
from metarl_jax import update_rules
from metarl_jax.adaptation import adapted_names
from metarl_jax.checks import check_fields, choice, number, whole
from metarl_jax.configs import AdaptSet, DataConfig, NetworkConfig
from metarl_jax.learners import actor_critic
from metarl_jax.learners.base import Learner, Metrics, Needs, Phase
from metarl_jax.losses import policy
from metarl_jax.losses.baseline import fitted_values
from metarl_jax.losses.policy import Targets
from metarl_jax.networks.actor import Policy
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.recording import Recorder
from metarl_jax.types import MetaBatch, Support, Trajectory

TRAINING = Phase("train", inner_steps=True)

Order = Literal["first", "second"]
InnerRule = Literal["sgd", "meta_sgd"]


@dataclasses.dataclass(frozen=True)
class MamlPgConfig:
    """Configuration of ``maml_pg``.

    Attributes:
      network: shape of the network.
      data: what is collected.
      adapt: which parameters the inner steps change.
      steps: inner steps S.
      step_size: of the inner steps; where it is learned, at the start.
      rule: whether step sizes are fixed ("sgd") or learned ("meta_sgd").
      order: of the derivatives in the meta-gradient.
      learning_rate: of Adam at the start; it decays to 0 linearly.
      epochs: passes over the tasks that a meta-iteration collected.
      minibatches: gradient steps an epoch, each on other tasks.
      clip: of the probability ratio.
      trace: lambda of the generalised advantage estimate, between periods.
      kl_weight: eta, weight of the divergence from the policy that collected the support.
      entropy_weight: weight of the entropy bonus.
      max_grad_norm: global-norm clip of the gradient.
    """

    labels: ClassVar[bool] = False

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    adapt: AdaptSet = choice("head", get_args(AdaptSet))
    steps: int = whole(1, 1, 10000)
    step_size: float = number(0.1, 0.0, 1e3, open_low=True)
    rule: InnerRule = choice("meta_sgd", get_args(InnerRule))
    order: Order = choice("second", get_args(Order))
    learning_rate: float = number(1e-3, 0.0, 1e3, open_low=True)
    epochs: int = whole(5, 1, 1000)
    minibatches: int = whole(1, 1, 65536)
    clip: float = number(0.3, 0.0, 1e3, open_low=True)
    trace: float = number(1.0, 0.0, 1.0)
    kl_weight: float = number(5e-4, 0.0, 1e6)
    entropy_weight: float = number(0.0, 0.0, 1e6)
    max_grad_norm: float = number(0.5, 0.0, 1e6, open_low=True)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self)


@struct.dataclass
class Task:
    """What one task gave, before any outer step.

    Attributes:
      support: ``[K, L]``; what is not known is not valid.
      before: of theta on it, ``[K, L]``.
      before_q: ``f32[K, L, A]``.
      query: ``[E, L]``.
      after: of phi on it, ``[E, L]``.
    """

    support: Trajectory
    before: Targets
    before_q: chex.Array
    query: Trajectory
    after: Targets


def make(config: MamlPgConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    network = AgentNetwork(config.network, use_memory=False)
    names, rule = adapted_names(config.adapt), update_rules.make(config.rule, config.step_size)
    needs = Needs(
        tasks=config.data.tasks,
        support_episodes=config.data.episodes,
        query_episodes=config.data.episodes,
        record=Recorder(config.data.periods, ordered=True),
        support="own",
        explore_support=actor_critic.SAMPLING,
        explore_query=actor_critic.SAMPLING,
    )

    def q_values(params: Params, seen: Any) -> chex.Array:
        return network.q_values(params, seen, network.no_memory(seen.tokens.shape[-2]))

    def targets(q: chex.Array, episodes: Trajectory) -> Targets:
        """Of one task's episodes ``[E, L]`` from ``q f32[E, L, A]`` of the policy that played them."""
        value, final = fitted_values(episodes)
        advantage = jax.vmap(policy.generalised_advantage, in_axes=(0, 0, 0, None))(
            episodes, value, final, config.trace
        )
        advantage = policy.standardised(advantage, episodes.valid.astype(q.dtype))
        log_prob = policy.categorical(q, episodes.observation.action_mask).log_prob(episodes.action)
        return jax.lax.stop_gradient(Targets(log_prob, value, advantage))

    def adapted(params: Params, support: Trajectory, before: Targets) -> Params:
        """``phi``, what of it differs from theta."""
        seen = support.observation
        q = actor_critic.q_of(network, params, seen, names)

        def loss(subset: Params) -> chex.Array:
            return policy.likelihood_ratio_loss(q(subset), seen.action_mask, support.action, support.valid, before)

        own = {name: params[name] for name in names}
        second = config.order == "second"
        return update_rules.descend(rule, params["step_sizes"], loss, own, config.steps, second_order=second)

    def collected(params: Params, batch: MetaBatch) -> Task:
        def of_task(one: tuple[Support, Trajectory, chex.Array]) -> Task:
            support, query, known = one
            own: Any = support.first(known).trajectory
            q = q_values(params, own.observation)
            before = targets(q, own)
            phi = {**params, **adapted(params, own, before)}
            return Task(own, before, q, query, targets(q_values(phi, query.observation), query))

        return jax.lax.stop_gradient(jax.lax.map(of_task, (batch.support, batch.query, batch.known)))

    def loss(params: Params, tasks: Task) -> tuple[chex.Array, Metrics]:
        @jax.checkpoint  # the activations of one task at a time
        def of_task(task: Task) -> tuple[chex.Array, Metrics]:
            phi = {**params, **adapted(params, task.support, task.before)}
            query, mask = task.query, task.query.observation.action_mask
            clipped, parts = policy.clipped_surrogate(
                q_values(phi, query.observation),
                mask,
                query.action,
                query.valid,
                task.after,
                clip=config.clip,
                value_weight=0.0,
                entropy_weight=config.entropy_weight,
            )
            mask, valid = task.support.observation.action_mask, task.support.valid.astype(jnp.float32)
            old, new = task.before_q, q_values(params, task.support.observation)
            divergence = policy.categorical(old, mask).kl_divergence(policy.categorical(new, mask))
            parts["kl"] = policy.masked_mean(divergence, valid)
            del parts["value_loss"]  # the baseline is fitted, not learned
            return clipped + config.kl_weight * parts["kl"], parts

        return jax.tree.map(jnp.mean, jax.lax.map(of_task, tasks))

    def adapt(trained: dict[str, Any], support: Support) -> Policy:
        params, memory = trained["params"], network.no_memory(suite.num_tokens)
        own = {name: params[name] for name in names}
        if (episodes := support.trajectory) is not None:
            own = adapted(params, episodes, targets(q_values(params, episodes.observation), episodes))
        return Policy(own, memory, jnp.zeros(config.network.hidden))

    def learned(params: Params) -> Params:
        sizes = rule.learnable(jax.random.key(0), {name: params[name] for name in names}, config.steps)
        return {**params, "step_sizes": sizes}

    return actor_critic.make_learner(
        *("maml_pg", config, suite, network, needs),
        collected=collected,
        loss=loss,
        adapt=adapt,
        epochs=config.epochs,
        learned=learned,
        phase=TRAINING,
    )
