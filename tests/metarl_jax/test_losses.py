"""Losses of transitions against numbers worked out by hand, those of single ones each plain, jitted, and vmapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.losses import soft
from metarl_jax.losses import value as losses
from metarl_jax.types import MASKED

WAYS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda *a: jax.vmap(f)(*(jnp.stack([jnp.asarray(x)] * 2) for x in a))[1],
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return WAYS[request.param]


def test_double_q_target(way: Any) -> None:
    # The online network prefers action 2 of the legal ones; the target network says it is worth 3: 0.5 + 0.9 * 3.
    arguments = (jnp.float32(0.5), jnp.float32(0.9), jnp.array([1.0, MASKED, 2.0]), jnp.array([7.0, MASKED, 3.0]))
    np.testing.assert_allclose(way(losses.double_q_target)(*arguments), 3.2, rtol=1e-6)


def test_double_q_target_stops_at_the_horizon(way: Any) -> None:
    arguments = (jnp.float32(0.5), jnp.float32(0.0), jnp.array([1.0, 2.0]), jnp.array([7.0, 3.0]))
    assert way(losses.double_q_target)(*arguments) == 0.5


def test_max_q_target(way: Any) -> None:
    # Whatever the online network prefers: the target network's best legal action is worth 7, so 0.5 + 0.9 * 7.
    arguments = (jnp.float32(0.5), jnp.float32(0.9), jnp.array([1.0, MASKED, 2.0]), jnp.array([7.0, MASKED, 3.0]))
    np.testing.assert_allclose(way(losses.max_q_target)(*arguments), 6.8, rtol=1e-6)


def test_squared_td_error(way: Any) -> None:
    arguments = (jnp.array([1.0, 4.0, MASKED]), jnp.int32(1), jnp.float32(1.0))
    assert way(losses.squared_td_error)(*arguments) == 4.5


def test_squared_td_error_has_curvature_far_from_the_target() -> None:
    """A Huber loss is linear there, and the second-order term of the inner loop would vanish."""
    second = jax.hessian(lambda q: losses.squared_td_error(q, jnp.int32(0), jnp.float32(0.0)))(jnp.array([100.0, 0.0]))
    np.testing.assert_array_equal(second, [[1.0, 0.0], [0.0, 0.0]])


def test_reference_cross_entropy(way: Any) -> None:
    # Logits 0 and log 3 over two legal actions: probabilities 1/4 and 3/4.
    q = jnp.array([0.0, 50.0, 0.5 * np.log(3.0)])
    mask = jnp.array([True, False, True])
    for reference, probability in ((0, 0.25), (2, 0.75)):
        loss = way(losses.reference_cross_entropy)(q, mask, jnp.int32(reference), jnp.float32(0.5))
        np.testing.assert_allclose(loss, -np.log(probability), rtol=1e-6)


def test_targets_carry_no_gradient() -> None:
    q, discount = jnp.array([1.0, 2.0]), jnp.float32(0.9)
    parts = jax.grad(losses.double_q_target, argnums=(0, 1, 2, 3))(jnp.float32(1.0), discount, q, q)
    assert not any(np.any(part) for part in parts)
    assert jax.grad(losses.squared_td_error, argnums=2)(q, jnp.int32(0), jnp.float32(5.0)) == 0.0


def test_illegal_actions_get_no_gradient_and_no_nan() -> None:
    q, mask = jnp.array([1.0, MASKED, 2.0]), jnp.array([True, False, True])
    td = jax.grad(losses.squared_td_error)(q, jnp.int32(2), jnp.float32(1.0))
    np.testing.assert_array_equal(td, [0.0, 0.0, 1.0])
    cross = jax.grad(losses.reference_cross_entropy)(q, mask, jnp.int32(0), 0.1)
    assert np.all(np.isfinite(cross))
    assert cross[1] == 0.0
    np.testing.assert_allclose(cross.sum(), 0.0, atol=1e-5)


def test_batches_are_refused() -> None:
    with pytest.raises(AssertionError, match="rank"):
        losses.squared_td_error(jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32), jnp.zeros(2))


def test_soft_losses_by_hand() -> None:
    """Sums over legal actions; the illegal one is worth most and counts for nothing."""
    mask = jnp.array([[True, True, False], [True, False, False]])
    logits = jnp.array([[0.0, np.log(3.0), 50.0], [2.0, 50.0, 50.0]])
    q = jnp.array([[[1.0, 2.0, MASKED], [3.0, MASKED, MASKED]], [[2.0, 1.0, MASKED], [4.0, MASKED, MASKED]]])
    log_pi, alpha = soft.log_policy(logits, mask), 0.5
    np.testing.assert_allclose(jnp.exp(log_pi), [[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]], atol=1e-6)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(-soft.expectation(log_pi, mask, log_pi), [entropy, 0.0], atol=1e-6)
    # The least of both critics is 1 for either action: 1 + alpha H; and 3.
    target = soft.soft_target(jnp.array([0.1, 0.2]), jnp.array([0.9, 0.0]), log_pi, q, mask, alpha)
    np.testing.assert_allclose(target, [0.1 + 0.9 * (1.0 + alpha * entropy), 0.2], rtol=1e-6)
    np.testing.assert_allclose(soft.actor_loss(log_pi, mask, q, alpha), [-alpha * entropy - 1.0, -3.0], rtol=1e-6)
    np.testing.assert_allclose(soft.target_entropy(mask, 0.5), [0.5 * np.log(2.0), 0.0], rtol=1e-6)
    found, gradient = jax.value_and_grad(lambda x: soft.temperature_loss(x, log_pi, mask, 0.5)[0])(jnp.log(alpha))
    np.testing.assert_allclose([found, gradient], alpha * (entropy - 0.5 * np.log(2.0)), rtol=1e-5)


def test_soft_losses_send_gradients_where_they_belong() -> None:
    mask, q = jnp.array([True, True, False]), jnp.array([[1.0, 2.0, MASKED], [2.0, 0.5, MASKED]])
    logits = jnp.array([0.1, -0.2, 3.0])

    def actor(logits: jax.Array, q: jax.Array, log_alpha: jax.Array) -> jax.Array:
        return soft.actor_loss(soft.log_policy(logits, mask), mask, q, jnp.exp(log_alpha))

    def temperature(logits: jax.Array, log_alpha: jax.Array) -> jax.Array:
        return soft.temperature_loss(log_alpha, soft.log_policy(logits, mask), mask, 0.5)

    of_logits, of_q, of_alpha = jax.grad(actor, argnums=(0, 1, 2))(logits, q, jnp.float32(-1.0))
    assert np.all(np.isfinite(of_logits))
    assert of_logits[2] == 0.0
    assert of_logits[0] < 0 < of_logits[1], "descent prefers the action whose least value is larger"
    assert not np.any(of_q)
    assert of_alpha == 0.0
    of_logits, of_alpha = jax.grad(temperature, argnums=(0, 1))(logits, jnp.float32(-1.0))
    assert not np.any(of_logits)
    assert of_alpha != 0.0
