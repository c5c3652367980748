"""The sine test of the inner loop by hand, and learners of the suite on small tasks of the literature."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax import learners
from metarl_jax.literature import settings, sine, study
from metarl_jax.literature.rows import INNER_LOOPS, ROWS, SINE


def test_every_row_has_a_task_and_every_learner_settings_for_it() -> None:
    assert set(ROWS) == {*settings.ENVIRONMENTS, SINE}
    assert set(settings.ENVIRONMENTS) == set(settings.PROTOCOLS) == set(settings.TASK_SETTINGS)
    assert set(sine.LOOPS) == set(INNER_LOOPS)
    for task in settings.ENVIRONMENTS:
        for learner in learners.registered():
            config = settings.configuration(task, learner)
            own = getattr(config, "network", settings.MLP)
            assert dataclasses.replace(own, mixing="attention") == settings.MLP  # maml_dqn mixes by means
    for task, learner in settings.LEARNER_SETTINGS:
        assert task in ROWS
        kind = learners.config_class(learner)
        assert set(settings.LEARNER_SETTINGS[task, learner]) <= set(kind.__dataclass_fields__)


def test_sines_are_drawn_from_the_papers_ranges() -> None:
    support, query = sine.draw(jax.random.key(0), 400, 90)
    assert support.x.shape == (400, 10, 1)
    assert query.y.shape == (400, 90, 1)
    x = np.concatenate([support.x, query.x], 1)
    y = np.concatenate([support.y, query.y], 1)
    assert -5 <= x.min() < -4.99
    assert 4.99 < x.max() <= 5
    # A sine and a cosine fit each task exactly; their coefficients are amplitude and phase.
    for points, values in zip(x[:40], y[:40], strict=True):
        basis = np.concatenate([np.sin(points), np.cos(points)], 1)
        (a, b), *_ = np.linalg.lstsq(basis, values[:, 0], rcond=None)
        np.testing.assert_allclose(basis @ [a, b], values[:, 0], atol=1e-4)
        assert 0.1 <= np.hypot(a, b) <= 5
        assert 0 <= np.arctan2(-b, a) <= np.pi


def test_one_inner_step_is_plain_descent_and_orders_differ_in_its_gradient_alone() -> None:
    theta = sine.initial(jax.random.key(1))
    support, query = jax.tree.map(lambda leaf: leaf[0], sine.draw(jax.random.key(2), 1, 10))
    meta = {"theta": theta, "rule": {}}

    def outer(name: str) -> tuple[jax.Array, object]:
        loop = sine.LOOPS[name]
        return jax.value_and_grad(lambda m: sine.error(sine.adapted(loop, m, support, 1), query))(meta)

    (second, gradient), (first, other) = outer("maml"), outer("fomaml")
    np.testing.assert_allclose(second, first, rtol=1e-6)
    stepped = jax.tree.map(lambda p, g: p - 0.01 * g, theta, jax.grad(sine.error)(theta, support))
    np.testing.assert_allclose(second, sine.error(stepped, query), rtol=1e-6)
    # First order is the gradient at the stepped parameters; second order is not.
    at_stepped = jax.grad(sine.error)(stepped, query)
    for one, expected in zip(jax.tree.leaves(other["theta"]), jax.tree.leaves(at_stepped), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-6)
    difference = [jnp.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (gradient, other)), strict=True)]
    assert max(difference) > 1e-3


@pytest.mark.parametrize("rule", ["meta_sgd", "gated"])
def test_learned_rules_begin_as_plain_descent(rule: str) -> None:
    theta = sine.initial(jax.random.key(1))
    support, _ = jax.tree.map(lambda leaf: leaf[0], sine.draw(jax.random.key(2), 1, 10))
    loop = sine.LOOPS[rule]
    psi = sine.update_rules.make(loop.rule, sine.STEP_SIZE).learnable(jax.random.key(0), theta, 1)
    own = sine.adapted(loop, {"theta": theta, "rule": psi}, support, 1)
    plain = sine.adapted(sine.LOOPS["maml"], {"theta": theta, "rule": {}}, support, 1)
    for one, expected in zip(jax.tree.leaves(own), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-7)


def test_rl2_plays_a_bandit_as_one_trial_that_begins_without_memory() -> None:
    bench = study.Bench.of("bandit-10x5", "rl2", episodes=1024)
    assert bench.learner.needs.support_episodes == 0
    assert bench.steps == 512 * 2 * 10
    found = bench.learn(2 * bench.steps, 2, seed=0)
    assert [steps for steps, _ in found["curve"]] == [bench.steps, 2 * bench.steps]
    assert found["first_ratio_error"] < 1e-5
    assert found["figure"] < ROWS["bandit-10x5"].bound + 3 * found["standard_error"]
    assert found["random policy"] == pytest.approx(5.0, abs=0.2)
    assert found["reference policy"] == pytest.approx(10 * 5 / 6, abs=0.2)
    assert 5.2 < found["heuristic policy"] < 6.2, "Thompson sampling; Duan et al. have 5.7"


def test_ppo_learns_to_catch() -> None:
    """100,352 steps, as many as the published run."""
    found = study.Bench.of("catch", "ppo").learn(ROWS["catch"].steps, 4, seed=0)
    assert found["figure"] >= 0.95
