"""Losses of single transitions against numbers worked out by hand, each plain, jitted, and vmapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
