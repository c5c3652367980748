"""What the Q-learners share: the task-indexed replay, the outer update, adapting and acting.

A learner built on this states its network, how it adapts, and which transitions it learns from; see
``transformer_maml_dqn`` and ``transformer_dqn``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs_jax.observation import Observation
from envs_jax.suite import Suite, random_actions
from metarl_jax import adaptation, losses
from metarl_jax import experience as xp
from metarl_jax.adaptation import Policy
from metarl_jax.configs import AdaptationConfig, NetworkConfig, Order, QLearningConfig
from metarl_jax.learners.base import Learner, Metrics
from metarl_jax.networks.agent import AgentNetwork, Params

Stage = Order


@struct.dataclass
class Hyper:
    """Numeric hyperparameters, traced ``f32[]``: they can be vmapped beside seeds.

    Attributes:
      learning_rate: peak rate of the outer Adam; it decays to a tenth along a cosine.
      reference_weight: weight of the cross-entropy to the reference action; 0 learns from reward alone.
      iterations: length of the run in meta-iterations, for the decay.
    """

    learning_rate: chex.Array
    reference_weight: chex.Array
    iterations: chex.Array


@struct.dataclass
class TrainState:
    """Everything a Q-learner carries between meta-iterations.

    Attributes:
      params: network parameters theta.
      target: their Polyak average theta^-.
      step_sizes: logarithms of the inner step sizes.
      optimiser: state of the outer optimiser.
      replay: :class:`~metarl_jax.experience.Experience` with a leading axis ``[R]``; its support and query belong
        together per task.
      iteration: ``i32[]`` meta-iterations done.
      hyper: numeric hyperparameters.
    """

    params: Params
    target: Params
    step_sizes: adaptation.StepSizes
    optimiser: optax.OptState
    replay: Any
    iteration: chex.Array
    hyper: Hyper


def epsilon_greedy(q: chex.Array, seen: Observation, key: chex.PRNGKey, epsilon: chex.Numeric) -> chex.Array:
    """Greedy choices ``i32[...]`` of ``q f32[..., A]``, each replaced by a random legal one with chance ``epsilon``."""
    explore_key, action_key = jax.random.split(key)
    greedy = jnp.argmax(q, axis=-1).astype(jnp.int32)
    explore = jax.random.uniform(explore_key, greedy.shape) < epsilon
    return jnp.where(explore, random_actions(seen, action_key), greedy)


TaskLoss = Callable[..., tuple[chex.Array, Metrics]]


def query_loss(
    network: AgentNetwork,
    params: Params,
    policy: Policy,
    target: Params,
    target_policy: Policy,
    query: xp.Transition,
    hyper: Hyper,
    config: QLearningConfig,
) -> tuple[chex.Array, Metrics]:
    """Outer loss of one task: TD error of the adapted policy on query transitions, plus the weighted cross-entropy.

    The bootstrap comes from the *adapted* target network: an unadapted one would estimate the average task's values.
    """
    own = policy.parameters(params)
    q, _ = network.head(own, network.trunk(own, query.observation, policy.memory), query.observation)
    targets = adaptation.td_targets(
        network, own, policy.memory, target_policy.parameters(target), target_policy.memory, query
    )
    td = adaptation.weighted_mean(jax.vmap(losses.squared_td_error)(q, query.action, targets), query.weight)
    imitation = jax.vmap(losses.reference_cross_entropy, in_axes=(0, 0, 0, None))(
        q, query.observation.action_mask, query.reference, config.temperature
    )
    imitation = adaptation.weighted_mean(imitation, query.weight)
    agreement = adaptation.weighted_mean((jnp.argmax(q, -1) == query.reference).astype(jnp.float32), query.weight)
    metrics = {"td_loss": td, "cross_entropy": imitation, "agreement": agreement}
    return td + hyper.reference_weight * imitation, metrics


@functools.cache
def make_update(
    network_config: NetworkConfig,
    use_memory: bool,
    config: QLearningConfig,
    inner: AdaptationConfig,
) -> Callable[[TrainState, xp.Experience, chex.PRNGKey, Stage], tuple[TrainState, Metrics]]:
    """The outer update. Cached, so that learners of equal configuration share one function and its programs."""
    network = AgentNetwork(network_config, use_memory)
    optimiser = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam())

    def task_loss(
        trained: dict[str, Any], target: Params, support: xp.Support, query: xp.Transition, hyper: Hyper, stage: Stage
    ) -> tuple[chex.Array, Metrics]:
        params, sizes = trained["params"], trained["step_sizes"]
        policy = adaptation.adapt(network, params, target, sizes, support, inner, stage)
        cheaper: Stage = "none" if stage == "none" else "first"
        target_policy = jax.lax.stop_gradient(adaptation.adapt(network, target, target, sizes, support, inner, cheaper))
        return query_loss(network, params, policy, target, target_policy, query, hyper, config)

    def update(state: TrainState, fresh: xp.Experience, key: chex.PRNGKey, stage: Stage) -> tuple[TrainState, Metrics]:
        slot = state.iteration % config.replay
        replay = jax.tree.map(lambda ring, new: ring.at[slot].set(new), state.replay, fresh)
        filled = jnp.minimum(state.iteration + 1, config.replay)
        progress = state.iteration / jnp.maximum(state.hyper.iterations, 1.0)
        rate = state.hyper.learning_rate * (0.55 + 0.45 * jnp.cos(jnp.pi * jnp.minimum(progress, 1.0)))

        def gradient_step(carry: tuple[Any, ...], key: chex.PRNGKey) -> tuple[tuple[Any, ...], Metrics]:
            trained, target, opt_state = carry
            which_key, known_key = jax.random.split(key)
            which = jax.random.randint(which_key, (config.tasks,), 0, filled)
            rows = jnp.arange(config.tasks)
            support, query = jax.tree.map(lambda ring: ring[which, rows], (replay.support, replay.query))
            known = jax.random.randint(known_key, (config.tasks,), 0, config.episodes + 1)
            support = jax.vmap(xp.Support.first)(support, known)

            def loss(trained: dict[str, Any]) -> tuple[chex.Array, Metrics]:
                one = functools.partial(task_loss, stage=stage)
                value, metrics = jax.vmap(one, in_axes=(None, None, 0, 0, None))(
                    trained, target, support, query, state.hyper
                )
                return value.mean(), jax.tree.map(jnp.mean, metrics)

            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
            moves, opt_state = optimiser.update(gradient, opt_state, trained)
            trained = jax.tree.map(lambda p, m: p - rate * m, trained, moves)
            target = optax.incremental_update(trained["params"], target, 1.0 - config.polyak)
            metrics |= {"loss": value, "gradient_norm": optax.global_norm(gradient)}
            return (trained, target, opt_state), metrics

        start = ({"params": state.params, "step_sizes": state.step_sizes}, state.target, state.optimiser)
        (trained, target, opt_state), metrics = jax.lax.scan(
            gradient_step, start, jax.random.split(key, config.updates)
        )
        metrics = jax.tree.map(jnp.mean, metrics) | {"query_reward": fresh.reward.mean()}
        state = state.replace(
            params=trained["params"],
            step_sizes=trained["step_sizes"],
            target=target,
            optimiser=opt_state,
            replay=replay,
            iteration=state.iteration + 1,
        )
        return state, metrics

    return update


@functools.cache
def make_adapt(
    network_config: NetworkConfig, use_memory: bool, inner: AdaptationConfig, order: Stage
) -> Callable[[Any, xp.Support, chex.Array], Policy]:
    """``adapt`` of the contract. Cached for the same reason as :func:`make_update`."""
    network = AgentNetwork(network_config, use_memory)

    def adapt(trained: dict[str, Any], support: xp.Support, take_steps: chex.Array) -> Policy:
        params, rest = trained["params"], (trained["target"], trained["step_sizes"], support, inner)

        def by_context() -> Policy:
            # Policies of every stage have the same leaves, or each would need programs of its own to be played.
            own = {name: params[name] for name in adaptation.adapted_names(inner)}
            return adaptation.adapt(network, params, *rest, "none").replace(adapted=own)

        if order == "none" or inner.steps == 0:
            return by_context()
        return jax.lax.cond(take_steps, lambda: adaptation.adapt(network, params, *rest, order), by_context)

    return adapt


@functools.cache
def make_act(network_config: NetworkConfig) -> Callable[..., chex.Array]:
    """``act`` of the contract; the same for all learners on one network, so what plays their policies is shared."""
    network = AgentNetwork(network_config)

    def act(shared: Params, policy: Policy, seen: Observation, key: chex.PRNGKey, epsilon: chex.Numeric) -> chex.Array:
        # Adaptation knows the suite's padded entities; a domain's own are the first of them.
        memory = jax.tree.map(lambda leaf: leaf[: seen.tokens.shape[-2]], policy.memory)
        q = network.q_values(policy.parameters(shared), seen, memory)
        return jax.lax.cond(
            epsilon > 0,
            lambda: epsilon_greedy(q, seen, key, epsilon),
            lambda: jnp.argmax(q, axis=-1).astype(jnp.int32),
        )

    return act


def make_learner(
    suite: Suite,
    network_config: NetworkConfig,
    config: QLearningConfig,
    inner: AdaptationConfig,
    hyper: Hyper,
    *,
    use_memory: bool,
    stage: Callable[[float], Stage],
    test_order: Stage,
) -> Learner:
    """Assembles a Q-learner of the :class:`~metarl_jax.learners.base.Learner` contract."""
    if suite.num_tokens > network_config.slots:
        raise ValueError(
            f"network.slots must be at least {suite.num_tokens} for this suite, got {network_config.slots}"
        )
    network = AgentNetwork(network_config, use_memory)
    optimiser = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam())

    def init(key: chex.PRNGKey, hyper: Hyper) -> TrainState:
        params = network.init(key, suite.num_tokens, suite.num_actions)
        step_sizes = adaptation.init_step_sizes(params, inner)
        shapes = jax.eval_shape(lambda: xp.no_experience(suite, config))
        return TrainState(
            params=params,
            # A copy: donating a state whose leaves alias each other fails at run time.
            target=jax.tree.map(jnp.copy, params),
            step_sizes=step_sizes,
            optimiser=optimiser.init({"params": params, "step_sizes": step_sizes}),
            replay=jax.tree.map(lambda leaf: jnp.zeros((config.replay, *leaf.shape), leaf.dtype), shapes),
            iteration=jnp.int32(0),
            hyper=jax.tree.map(jnp.float32, hyper),
        )

    def params(state: TrainState) -> dict[str, Any]:
        return {"params": state.params, "target": state.target, "step_sizes": state.step_sizes}

    def shared(trained: dict[str, Any]) -> Params:
        return {name: trained["params"][name] for name in ("trunk", "head")}

    return Learner(
        init=init,
        update=make_update(network_config, use_memory, config, inner),
        stage=stage,
        params=params,
        adapt=make_adapt(network_config, use_memory, inner, test_order),
        shared=shared,
        act=make_act(network_config),
        data=config,
        hyper=hyper,
    )
