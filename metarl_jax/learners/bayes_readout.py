"""Bayesian readout: from five random episodes of an unseen field, which actions are better, and how sure that is.

Of every choice of the support, what followed is explained by fixed features of the action, centred over the legal ones
(:mod:`metarl_jax.readout`). The posterior of their weights is exact (:mod:`metarl_jax.posterior`): nothing of
the support is thrown away, and nothing but a few numbers is learned beforehand: which groups of features matter
(precisions), which outcomes to trust (a mixture), optionally how much to believe a rule that holds in every domain
(the mean of the prior). It acts by the lower confidence bound of the advantage over a default, which is doing nothing
or the average legal action: it deviates from doing nothing only where the bound says that this pays.

The outer loss is differentiated through the closed form: cross-entropy of the lower bounds to the reference's choices
in query episodes, or without labels the log-loss of predicting those support episodes that the posterior was not given.
How cautious it is (kappa), and the default, are chosen by validation on tasks of the training domains.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax.adaptation import weighted_mean
from metarl_jax.checks import check_fields, choice, choices, number, numbers, whole
from metarl_jax.configs import DataConfig
from metarl_jax.learners.base import Exploration, Learner, Metrics, Needs, Phase
from metarl_jax.posterior import Moments, Posterior, expected_log_loss, posterior, ridge
from metarl_jax.readout import AdvantageBasis, Policy, ReadoutActor
from metarl_jax.recording import Outcome, Recorder, empty_support
from metarl_jax.types import MetaBatch, Rows, Support, flatten_axes

POSTERIOR = Phase("posterior", inner_steps=True)

OUTCOMES = (Outcome(1), Outcome(3), Outcome(8), Outcome(20), Outcome(1, bootstrap=True), Outcome(3, bootstrap=True))
"""Of a choice: returns of 1, 3, 8, 20 periods, and the value in 1 and 3. No one horizon is best everywhere."""

VALUE = 3
"""Which of :data:`OUTCOMES` is the value of a state that bootstraps."""

UNSEEN = 1e-6
"""Variance of a column, or of an outcome, below which it says nothing."""

Default = Literal["noop", "average"]
PriorMean = Literal["zero", "aligned"]


@dataclasses.dataclass(frozen=True)
class BayesReadoutConfig:
    """Configuration of ``bayes_readout``.

    Attributes:
      data: what is collected.
      samples: query choices kept of each episode, for imitation.
      updates: gradient steps per meta-iteration; 0 leaves everything as it starts: no meta-training.
      replay: meta-iterations whose tasks are kept; never fewer than there are training domains.
      epsilon: exploration of the query episodes.
      kappas: posterior standard deviations taken off an advantage; candidates, training uses the first.
      defaults: what an advantage is relative to: doing nothing (where that is legal) or the average legal action;
        candidates, training uses the first.
      prior_mean: of the weights: 0, or along (urgency - slack) x signed of the target, as far as training says.
      outer_rate: peak rate of Adam; it decays to a tenth along a cosine.
      max_grad_norm: global-norm clip of the gradient.
    """

    labels: ClassVar[bool] = True

    data: DataConfig = DataConfig()
    samples: int = whole(8, 1, 65536)
    updates: int = whole(2, 0, 65536)
    replay: int = whole(16, 1, 65536)
    epsilon: float = number(0.5, 0.0, 1.0)
    kappas: tuple[float, ...] = numbers((1.0, 0.0, 2.0), 0.0, 100.0, distinct=True)
    defaults: tuple[Default, ...] = choices(("noop", "average"), get_args(Default))
    prior_mean: PriorMean = choice("zero", get_args(PriorMean))
    outer_rate: float = number(0.05, 0.0, 1e3, open_low=True)
    max_grad_norm: float = number(1.0, 0.0, 1e6, open_low=True)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self)


@struct.dataclass
class Prior:
    """What is meta-learned.

    Attributes:
      log_precision: ``f32[groups]``.
      mixture: ``f32[M]`` logits of the outcomes.
      aligned: ``f32[]`` prior mean along (urgency - slack) x signed.
      log_temperature: ``f32[]`` of the softmax in the imitation loss.
    """

    log_precision: chex.Array
    mixture: chex.Array
    aligned: chex.Array
    log_temperature: chex.Array


@struct.dataclass
class Queries:
    """Choices of one task in which more than one action was legal, where ``weight`` is 1.

    Attributes:
      observation: ``[S, ...]``.
      reference: ``i32[S]`` what the reference would have chosen.
      weight: ``f32[S]``.
    """

    observation: Observation
    reference: chex.Array
    weight: chex.Array


@struct.dataclass
class Lesson:
    """What is kept of a task to learn from.

    Attributes:
      given: moments of the support episodes that the posterior is given.
      held_out: of the others.
      queries: for imitation.
    """

    given: Moments
    held_out: Moments
    queries: Queries


@struct.dataclass
class Hyperparams:
    """Numeric hyperparameters, traced ``f32[]``: they can be vmapped beside seeds.

    Attributes:
      outer_rate: peak rate of Adam.
      imitation: weight of the cross-entropy to the reference's choices.
      prediction: weight of the log-loss of held-out support episodes.
      iterations: length of the run in meta-iterations, for the decay.
    """

    outer_rate: chex.Array
    imitation: chex.Array
    prediction: chex.Array
    iterations: chex.Array


@struct.dataclass
class TrainState:
    """Everything that is carried between meta-iterations.

    Attributes:
      params: what is learned.
      optimiser: state of the optimiser.
      replay: :class:`Lesson` with leading axes ``[R, M]``.
      iteration: ``i32[]`` meta-iterations done.
      hyperparams: numeric hyperparameters.
    """

    params: Prior
    optimiser: optax.OptState
    replay: Lesson
    iteration: chex.Array
    hyperparams: Hyperparams


def moments(rows: Rows) -> Moments:
    """Sums over one task's rows ``[K, L, ...]``: outcomes without what the state is worth, of unit variance.

    What a state is worth is a ridge on the mean token, its strength by evidence, of each outcome.
    """
    episodes, length = rows.weight.shape
    rows = rows.replace(later=rows.later + length * jnp.arange(episodes)[:, None, None])
    rows = flatten_axes(rows, 0, 2)
    weight = rows.weight
    features, state = rows.features.astype(jnp.float32), rows.state.astype(jnp.float32)
    value = state @ ridge(Moments.of(state, rows.outcome[:, VALUE, None], weight))[:, 0]
    target = rows.outcome + rows.discount * value[rows.later]
    left = target - state @ ridge(Moments.of(state, target, weight))
    count = jnp.maximum(weight.sum(), 1.0)
    variance = jnp.sum(jnp.square(left) * weight[:, None], axis=0) / count
    return Moments.of(features, left * jax.lax.rsqrt(jnp.maximum(variance, UNSEEN**2)), weight)


def make(config: BayesReadoutConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    basis = AdvantageBasis(suite.num_tokens)
    names, group = np.unique(basis.groups, return_inverse=True)
    aligned, private, peers = (jnp.asarray(leaf) for leaf in (basis.aligned, basis.private, basis.peers))
    size = len(basis.groups)
    episodes, tasks = config.data.episodes, config.data.tasks
    replay_size = max(config.replay, len(suite.names))  # every training domain keeps a place
    needs = Needs(
        tasks=tasks,
        support_episodes=episodes,
        query_episodes=episodes,
        record=Recorder(config.data.periods, config.samples, basis=basis, outcomes=OUTCOMES),
        labels=True,
        explore_query=Exploration(epsilon=config.epsilon),
    )
    optimiser = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam())
    nothing = Moments(
        jnp.zeros((size, size)), jnp.zeros((size, len(OUTCOMES))), jnp.zeros((len(OUTCOMES),) * 2), jnp.float32(0.0)
    )

    def empty_queries() -> Queries:
        batch: Any = empty_support(suite, needs.record, tasks, episodes).transitions
        return flatten_axes(Queries(batch.observation, batch.reference, batch.weight), 1, 2)

    def init(key: chex.PRNGKey, hyperparams: Hyperparams) -> TrainState:
        del key  # nothing is random: no network
        params = Prior(jnp.zeros(len(names)), jnp.zeros(len(OUTCOMES)), jnp.float32(0.0), jnp.log(jnp.float32(0.1)))
        shape = lambda leaf: jnp.zeros((replay_size, tasks, *leaf.shape))  # noqa: E731
        queries = jax.tree.map(
            lambda leaf: jnp.zeros((replay_size, *leaf.shape), leaf.dtype), jax.eval_shape(empty_queries)
        )
        replay = Lesson(jax.tree.map(shape, nothing), jax.tree.map(shape, nothing), queries)
        hyperparams = jax.tree.map(jnp.float32, hyperparams)
        return TrainState(params, optimiser.init(params), replay, jnp.int32(0), hyperparams)

    def believe(trained: dict[str, Any], given: Moments) -> tuple[Policy, Posterior]:
        """The policy of one task from the moments of its rows, and its whole posterior."""
        prior = trained["prior"]
        # A private column has a scale of its domain's own: it is given that of the defined columns of its block.
        variance = jnp.diag(given.gram) / jnp.maximum(given.count, 1.0)
        scale = jnp.where(private & (variance > UNSEEN), variance / jnp.maximum(peers @ variance, UNSEEN), 1.0)
        mean = (prior.aligned if config.prior_mean == "aligned" else 0.0) * aligned
        mixed = given.mixed(jax.nn.softmax(prior.mixture))
        belief = posterior(mixed, jnp.exp(prior.log_precision[group]) * scale, mean)
        return Policy(belief.mean, belief.covariance, trained["kappa"], trained["to_noop"]), belief

    def trained(prior: Prior, kappa: float, default: Default) -> dict[str, Any]:
        like = prior.aligned  # of one replica or of all
        return {
            "prior": prior,
            "kappa": jnp.full_like(like, kappa),
            "to_noop": jnp.full_like(like, float(default == "noop")),
        }

    def task_loss(prior: Prior, lesson: Lesson, hyperparams: Hyperparams) -> tuple[chex.Array, Metrics]:
        policy, belief = believe(trained(prior, config.kappas[0], config.defaults[0]), lesson.given)
        queries = lesson.queries
        bounds = policy.lower_bounds(basis.actions(queries.observation), queries.observation)
        chances = jax.nn.log_softmax(bounds * jnp.exp(-prior.log_temperature))
        imitation = -jnp.take_along_axis(chances, queries.reference[:, None], axis=-1)[:, 0]
        imitation = weighted_mean(imitation, queries.weight)
        agreement = weighted_mean((bounds.argmax(-1) == queries.reference).astype(jnp.float32), queries.weight)
        held_out = lesson.held_out.mixed(jax.nn.softmax(prior.mixture))
        prediction = expected_log_loss(belief, held_out)
        loss = hyperparams.imitation * imitation + hyperparams.prediction * prediction
        metrics = {
            "loss": loss,
            "cross_entropy": imitation,
            "agreement": agreement,
            "log_loss": prediction,
            "log_ratio": belief.log_ratio,
        }
        return loss, metrics

    def lessons(batch: MetaBatch, key: chex.PRNGKey) -> Lesson:
        """Of a meta-iteration's tasks, each given the first so many of its support episodes."""

        def of_task(rows: Rows, known: chex.Array) -> tuple[Moments, Moments]:
            given = (jnp.arange(episodes) < known)[:, None]
            return (
                moments(rows.replace(weight=rows.weight * given)),
                moments(rows.replace(weight=rows.weight * ~given)),
            )

        support: Any = batch.support
        known = jax.random.randint(key, (tasks,), 1, episodes + 1)
        given, held_out = jax.lax.map(lambda task: of_task(*task), (support.rows, known))
        query = flatten_axes(batch.query, 1, 2)
        seen = query.observation
        weight = query.weight * (seen.action_mask.sum(-1) > 1)
        return Lesson(given, held_out, Queries(seen, query.reference, weight))

    def update(state: TrainState, batch: MetaBatch, key: chex.PRNGKey, phase: Phase) -> tuple[TrainState, Metrics]:
        del phase
        known_key, key = jax.random.split(key)
        slot = state.iteration % replay_size
        replay = jax.tree.map(lambda ring, new: ring.at[slot].set(new), state.replay, lessons(batch, known_key))
        filled = jnp.minimum(state.iteration + 1, replay_size)
        progress = state.iteration / jnp.maximum(state.hyperparams.iterations, 1.0)
        rate = state.hyperparams.outer_rate * (0.55 + 0.45 * jnp.cos(jnp.pi * jnp.minimum(progress, 1.0)))

        def loss(prior: Prior, which: chex.Array) -> tuple[chex.Array, Metrics]:
            lesson = jax.tree.map(lambda ring: ring[which, jnp.arange(tasks)], replay)
            value, metrics = jax.vmap(task_loss, in_axes=(None, 0, None))(prior, lesson, state.hyperparams)
            return value.mean(), jax.tree.map(jnp.mean, metrics)

        def gradient_step(carry: tuple[Prior, Any], key: chex.PRNGKey) -> tuple[tuple[Prior, Any], Metrics]:
            prior, opt_state = carry
            which = jax.random.randint(key, (tasks,), 0, filled)
            gradient, metrics = jax.grad(loss, has_aux=True)(prior, which)
            updates, opt_state = optimiser.update(gradient, opt_state, prior)
            prior = jax.tree.map(lambda p, u: p - rate * u, prior, updates)
            return (prior, opt_state), metrics | {"gradient_norm": optax.global_norm(gradient)}

        keys = jax.random.split(key, max(config.updates, 1))
        (params, opt_state), metrics = jax.lax.scan(gradient_step, (state.params, state.optimiser), keys)
        if config.updates == 0:
            params, opt_state = state.params, state.optimiser
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics |= {"query_reward": batch.reward, "gradient_steps": jnp.float32(config.updates)}
        iteration = state.iteration + 1
        return state.replace(params=params, optimiser=opt_state, replay=replay, iteration=iteration), metrics

    def adapt(trained: dict[str, Any], support: Support) -> Policy:
        given = nothing if support.rows is None else moments(support.rows)
        return believe(trained, given)[0]

    def candidates(params: dict[str, Any]) -> dict[str, Any]:
        return {
            f"kappa {kappa:g} over {default}": trained(params["prior"], kappa, default)
            for kappa in config.kappas
            for default in config.defaults
        }

    def hyperparams(iterations: int, labels: bool) -> Hyperparams:
        weights = (1.0, 0.0) if labels else (0.0, 1.0)
        return Hyperparams(*map(jnp.float32, (config.outer_rate, *weights, iterations)))

    return Learner(
        name="bayes_readout",
        spec=("bayes_readout", config, replay_size, suite.shapes),
        init=init,
        update=update,
        schedule=lambda progress: POSTERIOR,
        params=lambda state: trained(state.params, config.kappas[0], config.defaults[0]),
        adapt=adapt,
        actor=ReadoutActor(basis),
        acting=lambda trained: (),
        needs=needs,
        hyperparams=hyperparams,
        candidates=candidates,
    )
