"""What the Q-learners share: frozen data or a task-indexed replay, the outer update, adapting by memory and gradient.

A learner built on this states a :class:`Recipe` and how it adapts; see ``transformer_maml_dqn``, and
:func:`make_multitask` for those that fine-tune. A variant of the target or of a loss changes one entry of the recipe,
and with it both loops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs_jax.suite import Suite
from metarl_jax import adaptation
from metarl_jax.adaptation import InnerLoss, weighted_mean
from metarl_jax.configs import DataConfig, FrozenConfig, NetworkConfig, Optimiser, QLearningConfig
from metarl_jax.learners.base import Exploration, Learner, Metrics, Needs, Phase
from metarl_jax.losses import value
from metarl_jax.networks.actor import Policy, TransformerActor, acting_parameters
from metarl_jax.networks.agent import AgentNetwork, Params
from metarl_jax.networks.memory import Memory
from metarl_jax.recording import Recorder, empty_support
from metarl_jax.types import FrozenBatch, MetaBatch, Support, Transition, flatten_axes

CONTEXT = Phase("none")
FIRST_ORDER = Phase("first", inner_steps=True)
SECOND_ORDER = Phase("second", inner_steps=True)

Trained = dict[str, Any]
"""``{"params", "target", "step_sizes"}``: network parameters theta, their Polyak average, what else adapting reads."""

Adapt = Callable[[Trained, Support, Phase], Policy]
"""How a recipe adapts to one task's support. ``phase`` is static."""

TaskGradient = Callable[[Trained, Params, Support, Transition, chex.Array, chex.PRNGKey], tuple[Metrics, Trained]]
"""``(learned, target, support, query, reference_weight, key) -> (metrics, pseudo-gradient)`` of one task."""

OuterLoss = Callable[[Trained, Params, Support, Transition, chex.Array], tuple[chex.Array, Metrics]]
"""``(learned, target, support, query, reference_weight) -> (loss, metrics)`` of one task."""


class Auxiliary(NamedTuple):
    """A further loss on queries, with parameters of its own.

    Attributes:
      name: of the parameters, at their top level.
      init: ``(key, suite) -> parameters``.
      loss: ``(parameters, memory, query) -> (f32[], metrics)`` of one task.
    """

    name: str
    init: Callable[[chex.PRNGKey, Suite], Params]
    loss: Callable[[Params, Memory, Transition], tuple[chex.Array, Metrics]]


@struct.dataclass
class Hyperparams:
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
      replay: :class:`~metarl_jax.types.MetaBatch` with a leading axis ``[R]``; its support and query belong together
        per task. Empty where data are frozen.
      iteration: ``i32[]`` meta-iterations done.
      hyperparams: numeric hyperparameters.
    """

    params: Params
    target: Params
    step_sizes: adaptation.StepSizes
    optimiser: optax.OptState
    replay: Any
    iteration: chex.Array
    hyperparams: Hyperparams


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a Q-learner is made of.

    Attributes:
      network: shape of the network.
      data: what is collected.
      learning: how is learned from it.
      reward_weight: weight of the reward-prediction error when adapting.
      use_memory: whether the support is read by the context memory.
      dueling: whether the head takes the mean advantage off.
      td: whether the outer loss has a TD error.
      td_target: of one transition, in the inner and the outer loop: ``(reward, discount, next_q_online f32[A],
        next_q_target f32[A]) -> f32[]``, without gradient.
      td_loss: ``(q f32[A], action, target) -> f32[]``.
      imitation_loss: ``(q f32[A], action_mask, reference, temperature) -> f32[]``.
      auxiliary: a further loss on the queries.
      frozen: the data that training uses instead of what is collected, if it keeps any.
    """

    network: NetworkConfig
    data: DataConfig
    learning: QLearningConfig
    reward_weight: float
    use_memory: bool = True
    dueling: bool = True
    td: bool = True
    td_target: adaptation.TdTarget = value.double_q_target
    td_loss: adaptation.TdLoss = value.squared_td_error
    imitation_loss: Callable[..., chex.Array] = value.reference_cross_entropy
    auxiliary: Auxiliary | None = None
    frozen: FrozenConfig = FrozenConfig()

    @property
    def loss(self) -> InnerLoss:
        """The loss on a task's support, with the network."""
        network = AgentNetwork(self.network, self.use_memory, dueling=self.dueling)
        return InnerLoss(network, self.td_target, self.td_loss, self.reward_weight)

    @property
    def needs(self) -> Needs:
        """What is played and recorded."""
        data, learning = self.data, self.learning
        return Needs(
            tasks=data.tasks,
            support_episodes=data.episodes,
            query_episodes=data.episodes,
            record=Recorder(data.periods, learning.samples, learning.num_steps),
            support="random" if learning.support_epsilon == 1.0 else "own",
            labels=True,
            explore_support=Exploration(epsilon=learning.support_epsilon),
            explore_query=Exploration(epsilon=learning.epsilon),
            frozen=self.frozen,
        )

    def td_queries(self, queries: int) -> int:
        """How many of a task's queries take part in the TD error: their order is random."""
        if not self.td:
            return 0
        return queries if self.frozen.tasks == 0 else round(self.frozen.td_share * queries)


def query_loss(
    recipe: Recipe,
    params: Params,
    policy: Policy,
    target: Params,
    target_policy: Policy,
    query: Transition,
    reference_weight: chex.Array,
) -> tuple[chex.Array, Metrics]:
    """Outer loss of one task: TD error of the adapted policy on query transitions, plus the weighted imitation loss.

    The bootstrap comes from the *adapted* target network: an unadapted one would estimate the average task's values.
    """
    loss, own = recipe.loss, policy.parameters(params)
    q, _ = loss.network.head(own, loss.network.trunk(own, query.observation, policy.memory), query.observation)
    td, count = jnp.float32(0.0), recipe.td_queries(q.shape[0])
    if count:
        some = jax.tree.map(lambda leaf: leaf[:count], query)
        targets = loss.targets(own, policy.memory, target_policy.parameters(target), target_policy.memory, some)
        td = weighted_mean(jax.vmap(recipe.td_loss)(q[:count], some.action, targets), some.weight)
    imitation = jax.vmap(recipe.imitation_loss, in_axes=(0, 0, 0, None))(
        q, query.observation.action_mask, query.reference, recipe.learning.temperature
    )
    imitation = weighted_mean(imitation, query.weight)
    agreement = weighted_mean((jnp.argmax(q, -1) == query.reference).astype(jnp.float32), query.weight)
    metrics = {"td_loss": td, "cross_entropy": imitation, "agreement": agreement}
    total = td + reference_weight * imitation
    if recipe.auxiliary is not None:
        more, its = recipe.auxiliary.loss(params[recipe.auxiliary.name], policy.memory, query)
        total, metrics = total + more, metrics | its
    return total, metrics


def read_support(recipe: Recipe, params: Params, support: Support, adapted: Params) -> Policy:
    """The policy that the memory makes of a support, with the given adapted parameters."""
    memory = recipe.loss.network.remember(params, support.history)
    return Policy(adapted, memory, jnp.zeros(recipe.network.hidden))


def cosine(rate: chex.Array, progress: chex.Array) -> chex.Array:
    """A rate that decays to a tenth along a cosine."""
    return rate * (0.55 + 0.45 * jnp.cos(jnp.pi * jnp.minimum(progress, 1.0)))


def make_learner(
    name: str,
    config: Any,
    suite: Suite,
    recipe: Recipe,
    *,
    step_sizes: Callable[[Params], Any],
    adapt: Adapt,
    schedule: Callable[[float], Phase],
    test_phase: Phase,
    optimiser: optax.GradientTransformation | None = None,
    rate_of: Callable[[chex.Array, chex.Array], chex.Array] = cosine,
    task_gradient: TaskGradient | None = None,
    initial: Callable[[chex.PRNGKey, Params], Params] = lambda key, params: params,
    outer_loss: OuterLoss | None = None,
) -> Learner:
    """Assembles a Q-learner of the :class:`~metarl_jax.learners.base.Learner` contract.

    Args:
      name: its registered name.
      config: its configuration; ``learning_rate`` and ``reference_weight`` are read here.
      suite: the training domains, whose padded shapes all arrays have.
      recipe: what it is made of.
      step_sizes: initial parameters -> logarithms of the inner step sizes, which are learned beside them.
      adapt: how it adapts.
      schedule: progress -> phase.
      test_phase: phase in which it adapts at test time.
      optimiser: of the outer loop, by a rate of one; Adam after a clip by global norm if not given.
      rate_of: ``(learning rate, progress) -> rate``.
      task_gradient: what replaces the gradient of the outer loss, task by task.
      initial: the network's initial parameters to those that are learned, and averaged in the target.
      outer_loss: of one task; by default :func:`query_loss` of the adapted policy.

    Raises:
      ValueError: if the network has fewer slots than the suite has tokens.
    """
    slots = recipe.network.slots
    if suite.num_tokens > slots:
        raise ValueError(f"network.slots must be at least {suite.num_tokens} for this suite, got {slots}")
    learning, needs, network = recipe.learning, recipe.needs, recipe.loss.network
    frozen = needs.frozen.tasks > 0
    replay_size = max(learning.replay, len(suite.names))  # every training domain keeps a place
    features = (suite.token_features, suite.action_features)
    if optimiser is None:
        optimiser = optax.chain(optax.clip_by_global_norm(learning.max_grad_norm), direction(learning.optimiser))

    def init(key: chex.PRNGKey, hyperparams: Hyperparams) -> TrainState:
        params = initial(key, network.init(key, suite.num_tokens, suite.num_actions, *features))
        if recipe.auxiliary is not None:
            params[recipe.auxiliary.name] = recipe.auxiliary.init(jax.random.fold_in(key, 1), suite)
        sizes = step_sizes(params)
        shapes: Any = () if frozen else jax.eval_shape(lambda: empty_batch(suite, needs))
        return TrainState(
            params=params,
            # A copy: donating a state whose leaves alias each other fails at run time.
            target=jax.tree.map(jnp.copy, params),
            step_sizes=sizes,
            optimiser=optimiser.init({"params": params, "step_sizes": sizes}),
            replay=jax.tree.map(lambda leaf: jnp.zeros((replay_size, *leaf.shape), leaf.dtype), shapes),
            iteration=jnp.int32(0),
            hyperparams=jax.tree.map(jnp.float32, hyperparams),
        )

    def task_loss(
        learned: Trained, target: Params, support: Support, query: Transition, weight: chex.Array, phase: Phase
    ) -> tuple[chex.Array, Metrics]:
        if outer_loss is not None:
            return outer_loss(learned, target, support, query, weight)
        policy = adapt({**learned, "target": target}, support, phase)
        # Nothing is differentiated through the target: first order is the same steps, cheaper.
        cheaper = FIRST_ORDER if phase.inner_steps else phase
        slow = {**learned, "params": target, "target": target}
        target_policy = jax.lax.stop_gradient(adapt(slow, support, cheaper))
        return query_loss(recipe, learned["params"], policy, target, target_policy, query, weight)

    def update(
        state: TrainState, batch: MetaBatch | FrozenBatch, key: chex.PRNGKey, phase: Phase
    ) -> tuple[TrainState, Metrics]:
        replay, filled = state.replay, jnp.minimum(state.iteration + 1, replay_size)
        if isinstance(batch, MetaBatch):
            slot = state.iteration % replay_size
            batch = batch.replace(query=flatten_axes(batch.query, 1, 2))
            replay = jax.tree.map(lambda ring, new: ring.at[slot].set(new), replay, batch)
        progress = state.iteration / jnp.maximum(state.hyperparams.iterations, 1.0)
        rate = rate_of(state.hyperparams.learning_rate, progress)

        def gradient_step(carry: tuple[Any, ...], inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], Metrics]:
            learned, target, opt_state = carry
            key, groups = inputs
            which_key, known_key = jax.random.split(key)
            if groups:
                keys = list(jax.random.split(known_key, len(groups)))
                drawn = [(single(group.support), single(group.query), group.weight) for group in groups]
            else:
                which, rows = jax.random.randint(which_key, (needs.tasks,), 0, filled), jnp.arange(needs.tasks)
                support, query = jax.tree.map(lambda ring: ring[which, rows], (replay.support, replay.query))
                keys, drawn = [known_key], [(support, query, jnp.full(needs.tasks, 1.0 / needs.tasks))]

            def over_tasks(of_task: Callable[..., Any], with_key: bool = False) -> Any:
                """Weighted mean over all tasks of what ``(support, query)``, and perhaps a key, gives of one."""
                found = []
                for known_key, (support, query, weight) in zip(keys, drawn, strict=True):
                    # Support of every size from one model: what a test gives may be any number of episodes.
                    known = jax.random.randint(known_key, weight.shape, 0, needs.support_episodes + 1)
                    given: tuple[Any, ...] = (jax.vmap(Support.first)(support, known), query)
                    if with_key:
                        given = (*given, jax.random.split(jax.random.fold_in(known_key, 1), weight.shape[0]))
                    of_tasks = jax.vmap(of_task)(*given)
                    found.append(jax.tree.map(lambda leaf, weight=weight: weighted_sum(leaf, weight), of_tasks))
                return jax.tree.map(lambda *parts: sum(parts), *found)

            reference_weight = state.hyperparams.reference_weight
            if task_gradient is None:
                (value, metrics), gradient = jax.value_and_grad(
                    lambda learned: over_tasks(
                        lambda support, query: task_loss(learned, target, support, query, reference_weight, phase)
                    ),
                    has_aux=True,
                )(learned)
                metrics |= {"loss": value}
            else:
                metrics, gradient = over_tasks(
                    lambda support, query, key: task_gradient(learned, target, support, query, reference_weight, key),
                    with_key=True,
                )
            updates, opt_state = optimiser.update(gradient, opt_state, learned)
            learned = jax.tree.map(lambda p, u: p - rate * u, learned, updates)
            target = optax.incremental_update(learned["params"], target, 1.0 - learning.polyak)
            metrics |= {"gradient_norm": optax.global_norm(gradient)}
            return (learned, target, opt_state), metrics

        start = ({"params": state.params, "step_sizes": state.step_sizes}, state.target, state.optimiser)
        groups = batch.groups if isinstance(batch, FrozenBatch) else ()
        steps = groups[0].weight.shape[0] if groups else learning.updates
        inputs = (jax.random.split(key, steps), groups)
        (learned, target, opt_state), metrics = jax.lax.scan(gradient_step, start, inputs)
        metrics = jax.tree.map(jnp.mean, metrics) | {"gradient_steps": jnp.float32(steps)}
        if isinstance(batch, MetaBatch):
            metrics |= {"query_reward": batch.reward.mean()}
        state = state.replace(
            params=learned["params"],
            step_sizes=learned["step_sizes"],
            target=target,
            optimiser=opt_state,
            replay=replay,
            iteration=state.iteration + 1,
        )
        return state, metrics

    def hyperparams(iterations: int, labels: bool) -> Hyperparams:
        weight = config.reference_weight if labels else 0.0
        return Hyperparams(jnp.float32(config.learning_rate), jnp.float32(weight), jnp.float32(iterations))

    return Learner(
        name=name,
        spec=(name, config, replay_size, suite.shapes),
        init=init,
        update=update,
        schedule=schedule,
        params=lambda state: {"params": state.params, "target": state.target, "step_sizes": state.step_sizes},
        adapt=lambda trained, support: adapt(trained, support, CONTEXT if support.transitions is None else test_phase),
        actor=TransformerActor(recipe.network, suite.action_features),
        acting=lambda trained: acting_parameters(network, trained["params"], *features),
        needs=needs,
        hyperparams=hyperparams,
    )


def direction(name: Optimiser) -> optax.GradientTransformation:
    """Gradients to directions of ascent of about unit size, which a rate scales."""
    if name == "adam":
        return optax.scale_by_adam()
    # 0.2 is the root mean square of Adam's directions: the rates of both are alike.
    return optax.chain(optax.contrib.muon(1.0, consistent_rms=0.2), optax.scale(-1.0))


def make_multitask(name: str, config: Any, suite: Suite, recipe: Recipe, **changed: Any) -> Learner:
    """A learner without meta-learning: one model of all tasks, which in a new task takes plain steps of its own loss.

    Validation on tasks of the training domains chooses among the ways of ``config.fine_tuning``.

    Args:
      name: its registered name.
      config: its configuration.
      suite: the training domains.
      recipe: what it is made of.
      **changed: what :func:`make_learner` is given instead. Where ``step_sizes`` has ``"moments"`` (of
        :class:`~metarl_jax.adaptation.SquareMean`), gradients are divided by their root.
    """

    def adapt(trained: Trained, support: Support, phase: Phase) -> Policy:
        params, moments = trained["params"], trained["step_sizes"].get("moments")
        # As chosen by validation; while training there are none.
        tuned = {name: how for name, how in trained["step_sizes"].items() if name != "moments"}
        own = {name: params[name] for name in tuned or ("head",)}
        policy = read_support(recipe, params, support, own)
        if not (phase.inner_steps and tuned):
            return policy
        loss = recipe.loss.on(params, trained["target"], policy.memory, support, fixed_trunk="trunk" not in own)
        scale = None if moments is None else {name: moments.root()[name] for name in own}
        how = (tuned["head"]["size"], tuned["head"]["steps"])
        return policy.replace(adapted=adaptation.fine_tune(loss, own, *how, scale))

    def candidates(params: dict[str, Any]) -> dict[str, Any]:
        ways = adaptation.tuning_candidates(config.fine_tuning, params["params"])
        return {label: {**params, "step_sizes": {**params["step_sizes"], **way}} for label, way in ways.items()}

    given: dict[str, Any] = {"step_sizes": lambda params: {}, "schedule": lambda progress: CONTEXT}
    given |= {"adapt": adapt, "test_phase": FIRST_ORDER}
    return make_learner(name, config, suite, recipe, **(given | changed))._replace(candidates=candidates)


def make_context(name: str, config: Any, suite: Suite, recipe: Recipe) -> Learner:
    """A learner whose memory alone adapts: no gradient step in a new task. Arguments as :func:`make_multitask`."""

    def adapt(trained: Trained, support: Support, phase: Phase) -> Policy:
        del phase
        return read_support(recipe, trained["params"], support, {"head": trained["params"]["head"]})

    return make_learner(
        *(name, config, suite, recipe),
        step_sizes=lambda params: {},
        adapt=adapt,
        schedule=lambda progress: CONTEXT,
        test_phase=CONTEXT,
    )


def weighted_sum(x: chex.Array, weight: chex.Array) -> chex.Array:
    """Sum of ``x f32[M, ...]`` over tasks with ``weight f32[M]``."""
    return jnp.sum(x * weight.reshape(-1, *(1,) * (x.ndim - 1)), axis=0)


def single(tree: Any) -> Any:
    """Numbers of sixteen bits as those of thirty-two."""
    wider = {jnp.dtype(jnp.float16): jnp.float32, jnp.dtype(jnp.int16): jnp.int32}
    return jax.tree.map(lambda leaf: leaf.astype(wider.get(leaf.dtype, leaf.dtype)), tree)


def empty_batch(suite: Suite, needs: Needs) -> MetaBatch:
    """A batch of a Q-learner's shapes, all zero."""
    support = empty_support(suite, needs.record, needs.tasks, needs.support_episodes)
    query = flatten_axes(empty_support(suite, needs.record, needs.tasks, needs.query_episodes).transitions, 1, 2)
    return MetaBatch(support, query, jnp.zeros(needs.tasks, jnp.int32), jnp.float32(0.0))
