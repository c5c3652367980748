"""Update rules: what each is at the start, and that the shared Meta-SGD is bit by bit the loop it replaced."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import adaptation, learners, update_rules
from metarl_jax.configs import AdaptationConfig, DataConfig, QLearningConfig, TransformerMamlDqnConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.q_learning import empty_batch
from tests.metarl_jax import probes, small

STEPS = 3
START = {"w": jnp.array([[1.0, -2.0], [0.3, 0.7]]), "b": jnp.float32(0.5)}


def loss(theta: Any) -> chex.Array:
    return jnp.sum((theta["w"] - 3.0) ** 4) * 1e-2 + jnp.sin(theta["b"] * theta["w"]).sum()


def outer(theta: Any) -> chex.Array:
    return jnp.sum(jnp.cos(theta["w"])) + theta["b"] ** 2


def replaced(loss: Any, start: Any, step_sizes: Any, *, second_order: bool, unroll: bool, checkpoint: bool) -> Any:
    """``adaptation.descend`` as it was before there were rules, line by line."""

    def step(subset: Any, log_sizes: Any) -> tuple[Any, None]:
        gradient = jax.grad(loss)(subset)
        if not second_order:
            gradient = jax.lax.stop_gradient(gradient)
        moved = jax.tree.map(lambda p, g, size: p - jnp.exp(size) * g, subset, gradient, log_sizes)
        return moved, None

    count = jax.tree.leaves(step_sizes)[0].shape[0]
    body = jax.checkpoint(step) if checkpoint else step
    adapted, _ = jax.lax.scan(body, start, step_sizes, length=count, unroll=unroll)
    return adapted


def run(name: str, second_order: bool = True, *, step_size: float = 0.05, **more: Any) -> tuple[Any, Any]:
    """What a rule makes of :data:`START`, and the meta-gradient of the outer loss in start and in what is learned."""
    rule = update_rules.make(name, step_size, context=2, **more)
    psi = rule.learnable(jax.random.key(0), START, STEPS)

    def ends(start: Any, psi: Any) -> Any:
        return update_rules.descend(rule, psi, loss, start, STEPS, jnp.ones(2), second_order=second_order)

    return jax.jit(lambda start, psi: (ends(start, psi), jax.grad(lambda *a: outer(ends(*a)), (0, 1))(start, psi)))(
        START, psi
    )


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize(("unroll", "checkpoint"), [(False, False), (True, False), (False, True)])
def test_meta_sgd_is_bitwise_the_loop_it_replaced(second_order, unroll, checkpoint):
    sizes = jax.tree.map(lambda leaf: leaf + jnp.array([0.1, 0.0, -0.2]), update_rules.log_sizes(START, STEPS, 0.05))
    how = {"second_order": second_order, "unroll": unroll, "checkpoint": checkpoint}

    def of(descend: Any) -> Any:
        value = lambda start, sizes: outer(descend(loss, start, sizes, **how))  # noqa: E731
        return jax.jit(lambda *a: (descend(loss, *a, **how), jax.grad(value, (0, 1))(*a)))(START, sizes)

    chex.assert_trees_all_equal(of(adaptation.descend), of(replaced))


@pytest.mark.slow
def test_a_learners_update_is_bitwise_that_with_the_replaced_loop(monkeypatch):
    """A whole update of ``transformer_maml_dqn`` of second order, through the rule and through the old loop."""
    suite = Suite.of((probes.Match(),))
    config = TransformerMamlDqnConfig(
        network=small.NETWORK,
        data=DataConfig(tasks=2, episodes=2),
        learning=QLearningConfig(samples=2, num_steps=1, updates=2, replay=1),
        adaptation=AdaptationConfig(steps=2, step_size=0.1),
    )

    def updated() -> Any:
        learner = learners.make("transformer_maml_dqn", config, suite)
        state = learner.init(jax.random.key(0), learner.hyperparams(10, True))
        leaves, structure = jax.tree.flatten(empty_batch(suite, learner.needs))
        rng = np.random.default_rng(0)
        leaves = [
            jnp.asarray(rng.random(a.shape), a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.ones_like(a)
            for a in leaves
        ]
        batch = structure.unflatten(leaves)
        batch = batch.replace(query=jax.tree.map(lambda a: a.reshape(2, 2, -1, *a.shape[2:]), batch.query))
        return jax.jit(learner.update, static_argnums=3)(state, batch, jax.random.key(1), q_learning.SECOND_ORDER)

    now = updated()

    def as_before(rule, psi, loss, start, steps, context, **how):
        return replaced(loss, start, psi, **how)

    monkeypatch.setattr(update_rules, "descend", as_before)
    then = updated()
    chex.assert_trees_all_equal(now, then)
    before = jax.tree.leaves(now[0].step_sizes)[0]
    assert np.any(before != jnp.log(0.1)), "nothing was learned: this test sees no difference"


def test_a_gate_that_is_open_is_the_plain_optimiser_bitwise():
    """In the document's form: a gate of .5 (sigmoid of 0) with doubled steps is MAML's step, exactly."""
    chex.assert_trees_all_equal(run("gated")[0], run("meta_sgd")[0])
    chex.assert_trees_all_equal(run("gated")[1][0], run("meta_sgd")[1][0])
    sizes = run("gated")[1][1]["sizes"]
    chex.assert_trees_all_equal(sizes, run("meta_sgd")[1][1])
    moved = run("gated", optimiser="adam")[0]
    assert np.all(moved["w"] != run("gated")[0]["w"])


def test_a_size_for_every_element_begins_as_one_for_all_and_may_change_its_sign():
    start, (gradient, sizes) = run("meta_sgd_elementwise")
    chex.assert_trees_all_close((start, gradient), (run("sgd")[0], run("sgd")[1][0]), rtol=1e-6)
    chex.assert_trees_all_equal_shapes(sizes, jax.tree.map(lambda leaf: jnp.zeros((STEPS, *leaf.shape)), START))
    assert np.ptp(sizes["w"][0]) > 0, "every element has a gradient of its own"
    rule = update_rules.make("meta_sgd_elementwise", 0.05)
    up = jax.tree.map(lambda size: -size, rule.learnable(jax.random.key(0), START, 1))
    moved = update_rules.descend(rule, up, loss, START, 1, second_order=False)
    expected = jax.tree.map(lambda p, g: p + 0.05 * g, START, jax.grad(loss)(START))
    chex.assert_trees_all_close(moved, expected, rtol=1e-6)


def test_sgd_and_learned_begin_as_plain_and_as_normalised_descent():
    expected = START
    for _ in range(STEPS):
        expected = jax.tree.map(lambda p, g: p - 0.05 * g, expected, jax.grad(loss)(expected))
    chex.assert_trees_all_close(run("sgd")[0], expected, rtol=1e-6)
    rule = update_rules.make("learned", 0.05)
    psi = rule.learnable(jax.random.key(0), START, 1)
    moved = update_rules.descend(rule, psi, loss, START, 1, second_order=False)
    signs = jax.tree.map(lambda p, g: p - 0.05 * jnp.sign(g), START, jax.grad(loss)(START))
    chex.assert_trees_all_close(moved, signs, rtol=1e-4)


@pytest.mark.parametrize("name", ["meta_sgd", "meta_sgd_elementwise", "gated", "learned"])
def test_meta_gradients_equal_finite_differences_and_are_of_second_order(name):
    with jax.enable_x64(True):
        rule = update_rules.make(name, 0.05, context=2)
        start = jax.tree.map(jnp.float64, START)
        rng = np.random.default_rng(0)
        psi = jax.tree.map(
            lambda a: jnp.asarray(a + 0.1 * rng.normal(size=a.shape), jnp.float64),
            rule.learnable(jax.random.key(0), start, STEPS),
        )
        context = jnp.array([0.5, -1.0], jnp.float64)

        def value(start: Any, psi: Any, second_order: bool = True) -> chex.Array:
            return outer(update_rules.descend(rule, psi, loss, start, STEPS, context, second_order=second_order))

        leaves, structure = jax.tree.flatten((start, psi))
        direction = [jnp.asarray(rng.normal(size=leaf.shape), jnp.float64) for leaf in leaves]

        def along(amount: chex.Array) -> chex.Array:
            moved = [leaf + amount * d for leaf, d in zip(leaves, direction, strict=True)]
            return value(*structure.unflatten(moved))

        program = jax.jit(along)
        numeric = (program(jnp.float64(1e-6)) - program(jnp.float64(-1e-6))) / 2e-6
        gradient = jax.jit(jax.grad(along))(jnp.float64(0.0))
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6)
        first = jax.jit(jax.grad(lambda s: value(s, psi, False)))(start)
        second = jax.jit(jax.grad(lambda s: value(s, psi)))(start)
        assert np.linalg.norm(second["w"] - first["w"]) > 1e-2 * np.linalg.norm(first["w"])


@pytest.mark.parametrize("name", ["sgd", "meta_sgd", "meta_sgd_elementwise", "gated", "learned"])
def test_without_a_gradient_nothing_moves(name):
    """Support without transitions has no gradient: adapting by it must change nothing, whatever was learned."""
    rule = update_rules.make(name, 0.05)
    psi = jax.tree.map(lambda a: a + 0.3, rule.learnable(jax.random.key(0), START, STEPS))
    flat = update_rules.descend(rule, psi, lambda theta: 0.0 * outer(theta), START, STEPS, second_order=False)
    chex.assert_trees_all_equal(flat, START)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "meta_sgd_elementwise", "gated", "learned"])
def test_the_learner_trains_by_every_rule(name):
    config = TransformerMamlDqnConfig(
        network=small.NETWORK,
        data=DataConfig(tasks=2, episodes=2),
        learning=QLearningConfig(samples=2, num_steps=1, updates=2, replay=1),
        adaptation=AdaptationConfig(steps=2, step_size=0.1, rule=name),
    )
    learner = learners.make("transformer_maml_dqn", config, suite := Suite.of((probes.Match(),)))
    state = learner.init(jax.random.key(0), learner.hyperparams(10, True))
    rng = np.random.default_rng(0)
    batch = jax.tree.map(
        lambda a: (
            jnp.asarray(rng.random(a.shape), a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.ones_like(a)
        ),
        empty_batch(suite, learner.needs),
    )
    batch = batch.replace(query=jax.tree.map(lambda a: a.reshape(2, 2, -1, *a.shape[2:]), batch.query))
    after, metrics = jax.jit(learner.update, static_argnums=3)(state, batch, jax.random.key(1), q_learning.SECOND_ORDER)
    assert np.isfinite(metrics["loss"])
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (state.step_sizes, after.step_sizes)), strict=True)]
    assert any(moved) or name == "sgd"


def test_an_unknown_rule_is_refused():
    with pytest.raises(
        ValueError, match="rule must be one of sgd, meta_sgd, meta_sgd_elementwise, gated, learned, got 'momentum'"
    ):
        update_rules.make("momentum")
    with pytest.raises(ValueError, match=r"adaptation\.rule must be one of .*, got 'gate'"):
        AdaptationConfig(rule="gate")  # type: ignore[arg-type]
