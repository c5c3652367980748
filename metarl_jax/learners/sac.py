"""Soft actor-critic for discrete actions (Christodoulou 2019; Haarnoja 2018): multitask, no memory, no meta-learning.

From replayed choices, with the policy pi, two critics Q_1, Q_2, their slow averages Q^- and the temperature alpha:

    critics      1/2 (Q_i(s, a) - y)^2,    y = r + d pi(s')^T (min_i Q_i^-(s') - alpha log pi(s'))
    actor        pi(s)^T (alpha log pi(s) - min_i Q_i(s))
    temperature  -alpha pi(s)^T (log pi(s) + H(s)),    H(s) = c log(number of legal actions in s)

All three are exact sums over the legal actions of a state. It explores by its entropy: choices of an episode are drawn
from pi (``learning.epsilon`` and ``learning.temperature`` are not read). In a new task it takes plain gradient steps of
its own loss, critics and actor, on the support; which steps is chosen on validation tasks of its training domains.

Differs from the paper: critics and actor are heads on one Transformer, which by reward the critics alone train (the
gradient of an actor in a shared encoder makes both unstable: Yarats 2019), so that it acts by the network of all other
learners. The target entropy is each state's own, because numbers of legal actions differ; its share c defaults to .7:
with .98 the policy stays close to uniform. Outcomes are of n periods, as the Q-learners' are; the entropy counts once,
in the state that bootstraps. One Adam, whose rate decays along a cosine, for all parts. Rewards are normalised by the
domain's scale; alpha starts as one standard deviation of them. Labels add the cross-entropy of pi to the reference's
choices in query episodes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp

from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax import adaptation
from metarl_jax.adaptation import weighted_mean
from metarl_jax.checks import check_fields, number
from metarl_jax.configs import DataConfig, FineTuningConfig, NetworkConfig, QLearningConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.actor_critic import nearly_uniform
from metarl_jax.learners.base import Exploration, Learner, Metrics, Needs, Phase
from metarl_jax.learners.q_learning import CONTEXT, FIRST_ORDER, Recipe, Trained, read_support
from metarl_jax.losses import soft
from metarl_jax.networks.actor import Policy
from metarl_jax.networks.agent import Features, Params
from metarl_jax.types import REWARD_SCALE, Support, Transition, flatten_axes


@dataclasses.dataclass(frozen=True)
class SacConfig:
    """Configuration of ``sac``.

    Attributes:
      network: shape of the network.
      data: what is collected.
      learning: how is learned from it; its exploration and its temperature are not read.
      fine_tuning: how it adapts, to choose from by validation on training domains.
      learning_rate: peak rate.
      target_entropy: c, share of the largest entropy that a state allows.
      reference_weight: weight of the cross-entropy to the reference action, in the arm that uses labels.
    """

    labels: ClassVar[bool] = True

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    learning: QLearningConfig = QLearningConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    learning_rate: float = number(2e-3, 0.0, 1e3, open_low=True)
    target_entropy: float = number(0.7, 0.0, 1.0)
    reference_weight: float = number(0.2, 0.0, 1e6)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class SacRecipe(Recipe):
    """A Q-learner's replay, filled by drawing from the policy."""

    @property
    def needs(self) -> Needs:
        """What is played and recorded."""
        of_support = Exploration(self.learning.support_epsilon, temperature=1.0)
        return dataclasses.replace(
            super().needs, explore_support=of_support, explore_query=Exploration(temperature=1.0)
        )


def make(config: SacConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    recipe = SacRecipe(config.network, config.data, config.learning, reward_weight=0.0, use_memory=False)
    network = recipe.loss.network
    sizes = (suite.num_tokens, suite.num_actions, suite.token_features, suite.action_features)

    def initial(key: chex.PRNGKey, params: Params) -> Params:
        twins = jax.vmap(lambda key: network.init(key, *sizes)["head"])(jax.random.split(jax.random.fold_in(key, 1)))
        return {**nearly_uniform(params), "critics": twins, "log_alpha": jnp.log(jnp.float32(REWARD_SCALE))}

    def features_of(params: Params, seen: Observation) -> Features:
        return network.trunk(params, seen, network.no_memory(seen.tokens.shape[-2]))

    def log_policy(params: Params, features: Features, seen: Observation) -> chex.Array:
        return soft.log_policy(network.head(params, features, seen)[0], seen.action_mask)

    def critics(params: Params, features: Features, seen: Observation) -> chex.Array:
        """``Q f32[2, S, A]``."""
        return jax.vmap(lambda head: network.head({"head": head}, features, seen)[0])(params["critics"])

    def targets(params: Params, target: Params, batch: Transition) -> chex.Array:
        """``y f32[S]``."""
        seen = batch.next_observation
        log_pi = log_policy(params, features_of(params, seen), seen)
        q = critics(target, features_of(target, seen), seen)
        alpha = jnp.exp(params["log_alpha"])
        return soft.soft_target(batch.reward, batch.discount, log_pi, q, seen.action_mask, alpha)

    def loss(
        params: Params, batch: Transition, goal: chex.Array, features: Features
    ) -> tuple[chex.Array, Metrics, chex.Array]:
        """Critics', actor's and temperature's on transitions ``[S]``; also ``log pi f32[S, A]``."""
        seen, mask = batch.observation, batch.observation.action_mask
        q = critics(params, features, seen)
        chosen = jnp.take_along_axis(q, jnp.broadcast_to(batch.action, q.shape[:2])[..., None], axis=-1)[..., 0]
        log_pi = log_policy(params, jax.lax.stop_gradient(features), seen)
        parts = {
            "td_loss": 0.5 * jnp.sum(jnp.square(chosen - goal), axis=0),
            "actor_loss": soft.actor_loss(log_pi, mask, q, jnp.exp(params["log_alpha"])),
            "temperature_loss": soft.temperature_loss(params["log_alpha"], log_pi, mask, config.target_entropy),
            "entropy": -soft.expectation(log_pi, mask, log_pi),
        }
        parts = {name: weighted_mean(part, batch.weight) for name, part in parts.items()}
        total = parts["td_loss"] + parts["actor_loss"] + parts["temperature_loss"]
        return total, parts | {"alpha": jnp.exp(params["log_alpha"])}, log_pi

    def outer_loss(
        learned: Trained, target: Params, support: Support, query: Transition, reference_weight: chex.Array
    ) -> tuple[chex.Array, Metrics]:
        """Of one task, on all its choices: who does not adapt in training need not tell support from query."""
        params = learned["params"]
        known: Transition = flatten_axes(support.transitions, 0, 2)
        batch = jax.tree.map(lambda *both: jnp.concatenate(both), known, query)
        labelled = batch.weight * (jnp.arange(batch.weight.shape[0]) >= known.weight.shape[0])
        features = features_of(params, batch.observation)
        total, metrics, log_pi = loss(params, batch, targets(params, target, batch), features)
        # Imitation may train the Transformer, as it does for the Q-learners.
        imitating = log_policy(params, features, batch.observation)
        imitation = -jnp.take_along_axis(imitating, batch.reference[:, None], axis=-1)[:, 0]
        same = (jnp.argmax(log_pi, axis=-1) == batch.reference).astype(jnp.float32)
        metrics |= {"cross_entropy": weighted_mean(imitation, labelled), "agreement": weighted_mean(same, labelled)}
        return total + reference_weight * metrics["cross_entropy"], metrics

    def adapt(trained: Trained, support: Support, phase: Phase) -> Policy:
        params, tuned = trained["params"], trained["step_sizes"]  # as chosen by validation; while training none
        policy = read_support(recipe, params, support, {name: params[name] for name in tuned or ("head",)})
        if not (phase.inner_steps and tuned):
            return policy
        batch: Transition = flatten_axes(support.transitions, 0, 2)
        goal = targets(params, trained["target"], batch)
        fixed = None if "trunk" in tuned else features_of(params, batch.observation)

        def tuning_loss(subset: Params) -> chex.Array:
            current = {**params, **subset}
            return loss(current, batch, goal, features_of(current, batch.observation) if fixed is None else fixed)[0]

        start = {**policy.adapted, "critics": params["critics"]}
        moved = adaptation.fine_tune(tuning_loss, start, tuned["head"]["size"], tuned["head"]["steps"])
        return policy.replace(adapted={name: moved[name] for name in tuned})

    def candidates(params: dict[str, Any]) -> dict[str, Any]:
        ways = adaptation.tuning_candidates(config.fine_tuning, params["params"])
        return {label: {**params, "step_sizes": way} for label, way in ways.items()}

    learner = q_learning.make_learner(
        "sac",
        config,
        suite,
        recipe,
        step_sizes=lambda params: {},
        adapt=adapt,
        schedule=lambda progress: CONTEXT,
        test_phase=FIRST_ORDER,
        initial=initial,
        outer_loss=outer_loss,
    )
    return learner._replace(candidates=candidates)
