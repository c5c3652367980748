"""Reptile (Nichol 2018): moves towards where a few steps on a task lead; no gradient of a gradient.

    phi_0 = theta,  phi_{k+1} = phi_k - alpha g_k / rms(g),  g_k = grad of the loss on the k-th minibatch,  k < S
    theta <- theta + e (mean over tasks of phi_S - theta),   e decays to 0 linearly

S is at least 2 and each step sees other choices of the task: the expectation then has a term that makes gradients of
different minibatches of one task agree; with one step this would be multitask learning. The inner steps are those of
Adam without first momentum (beta1 = 0), as in the paper's code; its mean squares go on from task to task and move with
theta, e of the way. The loss is that of ``double_dueling_dqn``, on support and queries alike: like the paper, it does
not tell them apart. Queries of the arm with labels add the cross-entropy.

In a new task it takes steps on the support, divided by the mean squares of training; how many, how large and on which
parameters is chosen by validation on training domains, as for the other learners that fine-tune.

Differs from the paper: a value learner (the paper classifies images); double-Q targets of a slow average of theta,
which the inner steps do not move.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from envs_jax.suite import Suite
from metarl_jax.adaptation import SquareMean, weighted_mean
from metarl_jax.configs import ReptileConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner, Metrics, Phase
from metarl_jax.learners.q_learning import Recipe, TaskGradient, Trained
from metarl_jax.networks.agent import Params
from metarl_jax.types import Support, Transition

INNER = Phase("reptile", inner_steps=True)


def inner_loop(config: ReptileConfig, recipe: Recipe) -> TaskGradient:
    """From theta to where the inner steps on a task lead; the way back is the pseudo-gradient."""
    parts = recipe.loss
    network = parts.network

    def back(
        learned: Trained,
        target: Params,
        support: Support,
        query: Transition,
        reference_weight: chex.Array,
        key: chex.PRNGKey,
    ) -> tuple[Metrics, Trained]:
        known: Any = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), support.transitions)
        batch = jax.tree.map(lambda *both: jnp.concatenate(both), known, query)
        queries, size = query.action.shape[0], batch.action.shape[0]
        labelled = (jnp.arange(size) >= size - queries) * batch.weight
        with_td = (jnp.arange(size) < size - queries + recipe.td_queries(queries)) * batch.weight
        memory = network.no_memory(query.observation.tokens.shape[-2])
        start = learned["params"]
        targets = parts.targets(start, memory, target, memory, batch)
        rows = jax.random.permutation(key, size)[: size // config.steps * config.steps].reshape(config.steps, -1)

        def loss(params: Params, row: chex.Array) -> tuple[chex.Array, Metrics]:
            some, goal = jax.tree.map(lambda leaf: leaf[row], (batch, targets))
            q = network.q_values(params, some.observation, memory)
            td = weighted_mean(jax.vmap(recipe.td_loss)(q, some.action, goal), with_td[row])
            imitation = jax.vmap(recipe.imitation_loss, in_axes=(0, 0, 0, None))(
                q, some.observation.action_mask, some.reference, recipe.learning.temperature
            )
            imitation = weighted_mean(imitation, labelled[row])
            same = (jnp.argmax(q, -1) == some.reference).astype(jnp.float32)
            total = td + reference_weight * imitation
            metrics = {"loss": total, "td_loss": td, "cross_entropy": imitation}
            return total, metrics | {"agreement": weighted_mean(same, labelled[row])}

        def step(carry: tuple[Params, SquareMean], row: chex.Array) -> tuple[tuple[Params, SquareMean], Metrics]:
            params, moments = carry
            gradient, metrics = jax.grad(loss, has_aux=True)(params, row)
            moments = moments.seen(gradient)
            moved = lambda p, g, rms: p - config.inner_rate * g / rms  # noqa: E731
            return (jax.tree.map(moved, params, gradient, moments.root()), moments), metrics

        begin = {"params": start, "step_sizes": learned["step_sizes"]}
        (params, moments), metrics = jax.lax.scan(step, (start, begin["step_sizes"]["moments"]), rows)
        end = {"params": params, "step_sizes": {"moments": moments}}
        return jax.tree.map(jnp.mean, metrics), jax.tree.map(jnp.subtract, begin, end)

    return back


def make(config: ReptileConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``.

    Raises:
      ValueError: if a task has fewer choices than there are inner steps.
    """
    recipe = Recipe(config.network, config.data, config.learning, 0.0, use_memory=False, frozen=config.frozen)
    of_support = config.data.episodes * config.learning.samples
    of_query = min(config.frozen.queries, config.data.episodes * config.frozen.samples)
    choices = of_support + (of_query if config.frozen.tasks else of_support)
    if config.steps > choices:
        raise ValueError(f"steps must be at most the {choices} choices kept of a task, got {config.steps}")
    return q_learning.make_multitask(
        "reptile",
        config,
        suite,
        recipe,
        step_sizes=lambda params: {"moments": SquareMean.like(params)},
        schedule=lambda progress: INNER,
        optimiser=optax.identity(),
        rate_of=lambda rate, progress: rate * jnp.maximum(1.0 - progress, 0.0),
        task_gradient=inner_loop(config, recipe),
    )
