"""Reptile: its inner steps are Adam's without first momentum, its outer step goes towards where they lead."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs_jax.suite import Suite
from metarl_jax import adaptation, learners
from metarl_jax.adaptation import SquareMean
from metarl_jax.configs import DataConfig, QLearningConfig, ReptileConfig
from metarl_jax.learners import reptile
from metarl_jax.learners.q_learning import Recipe, empty_batch
from tests.metarl_jax import probes, small

STEPS, RATE = 3, 0.01
CONFIG = ReptileConfig(
    network=small.NETWORK,
    data=DataConfig(tasks=2, episodes=2),
    learning=QLearningConfig(samples=3, num_steps=1, updates=1, replay=1),
    steps=STEPS,
    inner_rate=RATE,
)
RECIPE = Recipe(CONFIG.network, CONFIG.data, CONFIG.learning, 0.0, use_memory=False)


def test_square_mean_is_adams_without_first_momentum() -> None:
    adam, rng = optax.scale_by_adam(b1=0.0, b2=0.999, eps=adaptation.EPSILON), np.random.default_rng(0)
    own, theirs = SquareMean.like(jnp.zeros(4)), adam.init(jnp.zeros(4))
    np.testing.assert_array_equal(own.root(), 1.0)
    for _ in range(3):
        gradient = jnp.asarray(rng.normal(size=4), jnp.float32)
        own = own.seen(gradient)
        expected, theirs = adam.update(gradient, theirs)
        np.testing.assert_allclose(gradient / own.root(), expected, rtol=1e-5)


def test_fine_tuning_divides_by_what_it_is_given() -> None:
    loss = lambda p: jnp.sum(p["w"] ** 2) / 2  # noqa: E731
    start, scale = {"w": jnp.array([1.0, 8.0])}, {"w": jnp.array([1.0, 4.0])}
    moved = adaptation.fine_tune(loss, start, jnp.float32(0.5), jnp.int32(2), scale)
    np.testing.assert_allclose(moved["w"], [1.0 * 0.5**2, 8.0 * (1 - 0.5 / 4) ** 2])


@pytest.mark.slow
def test_the_pseudo_gradient_is_the_way_back_from_where_the_inner_steps_lead() -> None:
    """Against a loop with optax on the same minibatches, drawn from the same key."""
    network, rng, key = RECIPE.loss.network, np.random.default_rng(0), jax.random.key(5)
    params, target = (small.init(network, jax.random.key(i)) for i in (0, 1))
    learned = {"params": params, "step_sizes": {"moments": SquareMean.like(params)}}
    support, query = small.support(rng), small.transitions(rng, 6)
    weight = jnp.float32(0.3)
    back = jax.jit(reptile.inner_loop(CONFIG, RECIPE))
    metrics, gradient = back(learned, target, support, query, weight, key)

    known = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), support.transitions)
    whole = jax.tree.map(lambda *both: jnp.concatenate(both), known, query)
    memory = network.no_memory(small.TOKENS)
    targets = RECIPE.loss.targets(params, memory, target, memory, whole)
    rows = jax.random.permutation(key, 12).reshape(STEPS, 4)
    assert len(np.unique(rows)) == 12, "every step sees other choices"

    @jax.jit
    @jax.value_and_grad
    def loss(own: Any, row: chex.Array) -> chex.Array:
        some, goal = jax.tree.map(lambda leaf: leaf[row], (whole, targets))
        q = network.q_values(own, some.observation, memory)
        td = jnp.square(jnp.take_along_axis(q, some.action[:, None], 1)[:, 0] - goal).mean() / 2
        logits = jnp.where(some.observation.action_mask, q / CONFIG.learning.temperature, -1e9)
        entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), some.reference[:, None], 1)[:, 0]
        labelled = row >= 6  # support has no labels
        return td + weight * jnp.sum(entropy * labelled) / jnp.maximum(labelled.sum(), 1)

    adam = optax.adam(RATE, b1=0.0, eps=adaptation.EPSILON)
    phi, state, losses = params, adam.init(params), []
    for row in rows:
        value, slope = loss(phi, row)
        updates, state = adam.update(slope, state, phi)
        phi = optax.apply_updates(phi, updates)
        losses.append(value)
    chex.assert_trees_all_close(gradient["params"], jax.tree.map(jnp.subtract, params, phi), atol=2e-4)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(gradient["step_sizes"]["moments"].weight, -(1 - 0.999**STEPS), rtol=1e-4)


@pytest.mark.slow
def test_the_outer_step_decays_to_nothing() -> None:
    learner = learners.make("reptile", CONFIG, suite := Suite.of((probes.Match(),)))
    rng = np.random.default_rng(0)
    batch = jax.tree.map(
        lambda a: (
            jnp.asarray(rng.random(a.shape), a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.ones_like(a)
        ),
        empty_batch(suite, learner.needs),
    )
    batch = batch.replace(query=jax.tree.map(lambda a: a.reshape(2, 2, -1, *a.shape[2:]), batch.query))
    state = learner.init(jax.random.key(0), learner.hyperparams(10, True))
    update = jax.jit(learner.update, static_argnums=3)

    def moved(iteration: int) -> np.ndarray:
        begin = state.replace(iteration=jnp.int32(iteration))
        after, _ = update(begin, batch, jax.random.key(1), reptile.INNER)
        ways = jax.tree.map(jnp.subtract, after.params, state.params)
        return np.concatenate([np.ravel(way) for way in jax.tree.leaves(ways)])

    whole, half = moved(0), moved(5)
    assert np.abs(whole).max() > RATE / 2
    np.testing.assert_allclose(half, whole / 2, atol=1e-6)
    np.testing.assert_array_equal(moved(10), 0.0)


def test_one_inner_step_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must be a whole number at least 2 and at most 10000, got 1"):
        ReptileConfig(steps=1)
