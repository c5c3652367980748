"""What the learners by proximal policy optimisation share: state, epochs over minibatches, the assembled contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs_jax.suite import Suite
from metarl_jax.learners.base import Learner, Metrics, Needs, Phase
from metarl_jax.losses import policy
from metarl_jax.losses.policy import Targets
from metarl_jax.networks.actor import TransformerActor, acting_parameters
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.types import MetaBatch, Trajectory

TRAINING = Phase("train")

POLICY_SCALE = 0.01
"""The initial policy is nearly uniform: its last layer starts so much smaller than the others."""


@struct.dataclass
class Hyperparams:
    """Numeric hyperparameters, traced ``f32[]``: they can be vmapped beside seeds.

    Attributes:
      learning_rate: of Adam at the start; it decays to 0 linearly.
      iterations: length of the run in meta-iterations, for the decay.
    """

    learning_rate: chex.Array
    iterations: chex.Array


@struct.dataclass
class TrainState:
    """Everything that is carried between meta-iterations.

    Attributes:
      params: network parameters.
      optimiser: state of the optimiser.
      iteration: ``i32[]`` meta-iterations done.
      hyperparams: numeric hyperparameters.
    """

    params: Params
    optimiser: optax.OptState
    iteration: chex.Array
    hyperparams: Hyperparams


@struct.dataclass
class Items:
    """What minibatches are drawn from, leading axis S: choices of memoryless policies, whole trials of recurrent ones.

    Attributes:
      trajectory: ``[S, ...]``.
      targets: ``[S, ...]``.
    """

    trajectory: Trajectory
    targets: Targets


def surrogate(q: chex.Array, items: Items, config: Any) -> tuple[chex.Array, Metrics]:
    """The clipped surrogate loss with the weights of a learner's configuration."""
    trajectory = items.trajectory
    return policy.clipped_surrogate(
        q,
        trajectory.observation.action_mask,
        trajectory.action,
        trajectory.valid,
        items.targets,
        clip=config.clip,
        value_weight=config.value_weight,
        entropy_weight=config.entropy_weight,
    )


def make_learner(
    name: str,
    config: Any,
    suite: Suite,
    network: AgentNetwork,
    needs: Needs,
    *,
    collected: Callable[[Params, Trajectory], Items],
    q_values: Callable[[Params, Trajectory], chex.Array],
    adapt: Callable[[Params, Any], Any],
) -> Learner:
    """Assembles a learner of the :class:`~metarl_jax.learners.base.Learner` contract.

    Args:
      name: its registered name.
      config: its configuration: ``epochs``, ``minibatches``, ``learning_rate`` and the weights of the loss.
      suite: the training domains, whose padded shapes all arrays have.
      network: the network.
      needs: what is played and recorded; trajectories.
      collected: parameters and the batch's trajectories ``[M, E, L]`` to what minibatches are drawn from.
      q_values: parameters and a minibatch of trajectories ``[S, ...]`` to ``f32[S, ..., A]``.
      adapt: ``learner.params(state)`` and a support to a policy.

    Raises:
      ValueError: if the network has fewer slots than the suite has tokens.
    """
    if suite.num_tokens > network.config.slots:
        slots = network.config.slots
        raise ValueError(f"network.slots must be at least {suite.num_tokens} for this suite, got {slots}")
    features = (suite.token_features, suite.action_features)
    optimiser = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5))

    def init(key: chex.PRNGKey, hyperparams: Hyperparams) -> TrainState:
        params = network.init(key, suite.num_tokens, suite.num_actions, *features)
        last = params["head"]["advantage"]
        params["head"] = {**params["head"], "advantage": {**last, "kernel": POLICY_SCALE * last["kernel"]}}
        return TrainState(params, optimiser.init(params), jnp.int32(0), jax.tree.map(jnp.float32, hyperparams))

    def update(state: TrainState, batch: MetaBatch, key: chex.PRNGKey, phase: Phase) -> tuple[TrainState, Metrics]:
        del phase
        progress = state.iteration / jnp.maximum(state.hyperparams.iterations, 1.0)
        rate = state.hyperparams.learning_rate * jnp.maximum(1.0 - progress, 0.0)
        items = collected(state.params, batch.query)
        count = items.targets.value.shape[0]
        minibatches = min(config.minibatches, count)
        size = count // minibatches

        def loss(params: Params, items: Items) -> tuple[chex.Array, Metrics]:
            return surrogate(q_values(params, items.trajectory), items, config)

        def gradient_step(carry: tuple[Params, Any], rows: chex.Array) -> tuple[tuple[Params, Any], Metrics]:
            params, opt_state = carry
            minibatch = jax.tree.map(lambda leaf: leaf[rows], items)
            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params, minibatch)
            updates, opt_state = optimiser.update(gradient, opt_state, params)
            params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
            return (params, opt_state), metrics | {"loss": value, "gradient_norm": optax.global_norm(gradient)}

        def shuffled(key: chex.PRNGKey) -> chex.Array:
            return jax.random.permutation(key, count)[: minibatches * size].reshape(minibatches, size)

        rows = jax.vmap(shuffled)(jax.random.split(key, config.epochs)).reshape(-1, size)
        (params, opt_state), metrics = jax.lax.scan(gradient_step, (state.params, state.optimiser), rows)
        first = metrics["ratio_error"][0]  # 0 but for rounding: old probabilities are recomputed
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics |= {
            "first_ratio_error": first,
            "query_reward": batch.reward,
            "gradient_steps": jnp.float32(rows.shape[0]),
        }
        state = state.replace(params=params, optimiser=opt_state, iteration=state.iteration + 1)
        return state, metrics

    def hyperparams(iterations: int, labels: bool) -> Hyperparams:
        del labels
        return Hyperparams(jnp.float32(config.learning_rate), jnp.float32(iterations))

    return Learner(
        name=name,
        spec=(name, config, suite.shapes),
        init=init,
        update=update,
        schedule=lambda progress: TRAINING,
        params=lambda state: {"params": state.params, "tuning": {}},
        adapt=adapt,
        actor=TransformerActor(network.config, suite.action_features),
        acting=lambda trained: acting_parameters(network, trained["params"], *features),
        needs=needs,
        hyperparams=hyperparams,
    )
