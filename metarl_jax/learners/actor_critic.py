"""What the actor-critics share: state, epochs over minibatches, the assembled contract.

:func:`make_learner` is for all of them, :func:`make_memoryless` for those whose policy neither remembers nor
meta-learns and that adapt by fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax import adaptation
from metarl_jax.learners.base import Exploration, Learner, Metrics, Needs, Phase
from metarl_jax.losses import policy
from metarl_jax.losses.policy import Targets
from metarl_jax.networks.actor import Policy, TransformerActor, acting_parameters
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.recording import Recorder
from metarl_jax.types import MetaBatch, Support, Trajectory, flatten_axes

TRAINING = Phase("train")

SAMPLING = Exploration(temperature=1.0)
"""Actor-critics explore by drawing from their policy."""

POLICY_SCALE = 0.01
"""The initial policy is nearly uniform: its last layer starts so much smaller than the others."""


@struct.dataclass
class Hyperparams:
    """Numeric hyperparameters, traced ``f32[]``: they can be vmapped beside seeds.

    Attributes:
      learning_rate: at the start; it decays to 0 linearly.
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


def nearly_uniform(params: Params) -> Params:
    """A network's initial parameters, with a last layer of the head that makes its policy nearly uniform."""
    last = params["head"]["advantage"]
    head = {**params["head"], "advantage": {**last, "kernel": POLICY_SCALE * last["kernel"]}}
    return {**params, "head": head}


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


def q_of(network: AgentNetwork, params: Params, seen: Observation, names: Sequence[str]) -> Callable[[Params], Any]:
    """``Q f32[..., A]`` of one task's observations as a function of those parameters, by top-level name, that change.

    Where the trunk stays, its features are computed once.
    """
    memory = network.no_memory(seen.tokens.shape[-2])
    fixed = None if "trunk" in names else network.trunk(params, seen, memory)

    def q(subset: Params) -> chex.Array:
        current = {**params, **subset}
        features = network.trunk(current, seen, memory) if fixed is None else fixed
        return network.head(current, features, seen)[0]

    return q


def make_learner(
    name: str,
    config: Any,
    suite: Suite,
    network: AgentNetwork,
    needs: Needs,
    *,
    collected: Callable[[Params, MetaBatch], Any],
    loss: Callable[[Params, Any], tuple[chex.Array, Metrics]],
    adapt: Callable[[Params, Any], Any],
    epochs: int,
    scaling: optax.GradientTransformation | None = None,
    learned: Callable[[Params], Params] = lambda params: params,
    phase: Phase = TRAINING,
) -> Learner:
    """Assembles a learner of the :class:`~metarl_jax.learners.base.Learner` contract.

    Args:
      name: its registered name.
      config: its configuration: ``minibatches``, ``learning_rate`` and ``max_grad_norm`` are read here.
      suite: the training domains, whose padded shapes all arrays have.
      network: the network.
      needs: what is played and recorded; trajectories.
      collected: the parameters that collected and a batch to what minibatches are drawn from, leading axis S.
      loss: parameters and a minibatch to a loss and its parts, among them ``ratio_error``, the mean of |rho - 1|.
      adapt: ``learner.params(state)`` and a support to a policy.
      epochs: passes over what a meta-iteration collected.
      scaling: of the clipped gradient, before the learning rate; by default Adam's.
      learned: the network's initial parameters to those that are learned.
      phase: of the whole training.

    Raises:
      ValueError: if the network has fewer slots than the suite has tokens.
    """
    if suite.num_tokens > network.config.slots:
        slots = network.config.slots
        raise ValueError(f"network.slots must be at least {suite.num_tokens} for this suite, got {slots}")
    features = (suite.token_features, suite.action_features)
    scaling = optax.scale_by_adam(eps=1e-5) if scaling is None else scaling
    optimiser = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), scaling)

    def init(key: chex.PRNGKey, hyperparams: Hyperparams) -> TrainState:
        params = learned(nearly_uniform(network.init(key, suite.num_tokens, suite.num_actions, *features)))
        return TrainState(params, optimiser.init(params), jnp.int32(0), jax.tree.map(jnp.float32, hyperparams))

    def update(state: TrainState, batch: MetaBatch, key: chex.PRNGKey, phase: Phase) -> tuple[TrainState, Metrics]:
        del phase
        progress = state.iteration / jnp.maximum(state.hyperparams.iterations, 1.0)
        rate = state.hyperparams.learning_rate * jnp.maximum(1.0 - progress, 0.0)
        items = collected(state.params, batch)
        count = jax.tree.leaves(items)[0].shape[0]
        minibatches = min(config.minibatches, count)
        size = count // minibatches

        def gradient_step(carry: tuple[Params, Any], rows: chex.Array) -> tuple[tuple[Params, Any], Metrics]:
            params, opt_state = carry
            minibatch = jax.tree.map(lambda leaf: leaf[rows], items)
            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params, minibatch)
            updates, opt_state = optimiser.update(gradient, opt_state, params)
            params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
            return (params, opt_state), metrics | {"loss": value, "gradient_norm": optax.global_norm(gradient)}

        def shuffled(key: chex.PRNGKey) -> chex.Array:
            return jax.random.permutation(key, count)[: minibatches * size].reshape(minibatches, size)

        rows = jax.vmap(shuffled)(jax.random.split(key, epochs)).reshape(-1, size)
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
        schedule=lambda progress: phase,
        params=lambda state: {"params": state.params, "tuning": {}},
        adapt=adapt,
        actor=TransformerActor(network.config, suite.action_features),
        acting=lambda trained: acting_parameters(network, trained["params"], *features),
        needs=needs,
        hyperparams=hyperparams,
    )


def make_memoryless(
    name: str,
    config: Any,
    suite: Suite,
    *,
    loss: Callable[[chex.Array, Items], tuple[chex.Array, Metrics]],
    trace: Callable[[Trajectory], chex.Numeric],
    epochs: int,
    scaling: optax.GradientTransformation | None = None,
) -> Learner:
    """A multitask actor-critic: minibatches of choices; in a new task, gradient steps of its loss on own episodes.

    Args:
      name: its registered name.
      config: its configuration: also ``network``, ``data`` and ``fine_tuning`` are read here.
      suite: the training domains.
      loss: ``q f32[..., A]`` and the choices they belong to, ``[...]``, to a loss and its parts.
      trace: of one trajectory, see :func:`~metarl_jax.losses.policy.generalised_advantage`.
      epochs: passes over what a meta-iteration collected.
      scaling: see :func:`make_learner`.
    """
    network = AgentNetwork(config.network, use_memory=False)
    needs = Needs(
        tasks=config.data.tasks,
        support_episodes=0,
        query_episodes=2 * config.data.episodes,  # as many as others play for support and query
        record=Recorder(config.data.periods, ordered=True),
        support="own",
        explore_support=SAMPLING,
        explore_query=SAMPLING,
    )

    def q_values(params: Params, seen: Any) -> chex.Array:
        return network.q_values(params, seen, network.no_memory(seen.tokens.shape[-2]))

    def targets(params: Params, trajectory: Trajectory) -> Targets:
        """Of one episode ``[L]``."""
        q, final_q = q_values(params, trajectory.observation), q_values(params, trajectory.final)
        return policy.collecting_targets(q, final_q, trajectory, trace(trajectory))

    def collected(params: Params, batch: MetaBatch) -> Items:
        # Task by task: a whole batch's activations would take a gigabyte.
        found = jax.lax.map(lambda task: jax.vmap(lambda one: targets(params, one))(task), batch.query)
        choices = flatten_axes((batch.query.replace(final=()), found), 0, 3)
        return Items(*choices)

    def adapt(trained: dict[str, Any], support: Support) -> Policy:
        params, tuned = trained["params"], trained["tuning"]  # as chosen by validation; while training there is none
        own = {name: params[name] for name in tuned or ("head",)}
        memory, hidden = network.no_memory(suite.num_tokens), jnp.zeros(config.network.hidden)
        if support.trajectory is None or not tuned:
            return Policy(own, memory, hidden)
        episodes = support.trajectory
        items = Items(episodes, jax.vmap(lambda one: targets(params, one))(episodes))
        q, how = q_of(network, params, episodes.observation, tuple(own)), tuned["head"]
        adapted = adaptation.fine_tune(lambda subset: loss(q(subset), items)[0], own, how["size"], how["steps"])
        return Policy(adapted, memory, hidden)

    def candidates(params: dict[str, Any]) -> dict[str, Any]:
        ways = adaptation.tuning_candidates(config.fine_tuning, params["params"])
        return {label: {**params, "tuning": way} for label, way in ways.items()}

    learner = make_learner(
        name,
        config,
        suite,
        network,
        needs,
        collected=collected,
        loss=lambda params, items: loss(q_values(params, items.trajectory.observation), items),
        adapt=adapt,
        epochs=epochs,
        scaling=scaling,
    )
    return learner._replace(candidates=candidates)
