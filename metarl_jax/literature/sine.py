"""Sine regression (Finn 2017, section 5.1): a supervised test of the inner loop that reinforcement learners use.

A task is ``y = a sin(x - p)`` with amplitude a ~ U(.1, 5) and phase p ~ U(0, pi). From K = 10 points x ~ U(-5, 5) a
network of two hidden layers of 40 ReLU takes one step of :func:`metarl_jax.update_rules.descend` on its mean squared
error; Adam descends the error of the stepped networks on K other points, mean over 25 tasks.

Differs from the authors' code: step size .01 (the paper's; the code's default is .001); kernels drawn as LeCun has it,
where the code's are .01 wide. ``first order`` stops the gradient of the inner gradient.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metarl_jax import update_rules

SUPPORT, QUERY_TEST = 10, 100
"""Points that are adapted to, and new points on which an adapted network is tested."""
TASKS, TEST_TASKS = 25, 2000
"""Of a meta-iteration, and of the test."""
HIDDEN = 40
LEARNING_RATE, STEP_SIZE = 1e-3, 0.01
TEST_STEPS = 10
"""Steps after which plain descent is tested once more."""

Params = Any


class InnerLoop(NamedTuple):
    """Which rule steps, and whether the gradient of its gradients is taken.

    Attributes:
      rule: of :mod:`metarl_jax.update_rules`.
      second_order: whether gradients of gradients are taken.
    """

    rule: str
    second_order: bool


LOOPS = {
    "maml": InnerLoop("sgd", True),
    "fomaml": InnerLoop("sgd", False),
    "meta_sgd": InnerLoop("meta_sgd", True),
    "gated": InnerLoop("gated", True),
    "learned": InnerLoop("learned", True),
}
"""By the learner's name, see :data:`metarl_jax.literature.rows.INNER_LOOPS`."""


class Points(NamedTuple):
    """Points ``x, y f32[..., K, 1]`` of sines."""

    x: chex.Array
    y: chex.Array


def draw(key: chex.PRNGKey, tasks: int, query: int) -> tuple[Points, Points]:
    """Support ``[tasks, 10, 1]`` and query ``[tasks, query, 1]`` of fresh sines."""
    amplitude_key, phase_key, x_key = jax.random.split(key, 3)
    amplitude = jax.random.uniform(amplitude_key, (tasks, 1, 1), minval=0.1, maxval=5.0)
    phase = jax.random.uniform(phase_key, (tasks, 1, 1), maxval=jnp.pi)
    x = jax.random.uniform(x_key, (tasks, SUPPORT + query, 1), minval=-5.0, maxval=5.0)
    y = amplitude * jnp.sin(x - phase)
    return Points(x[:, :SUPPORT], y[:, :SUPPORT]), Points(x[:, SUPPORT:], y[:, SUPPORT:])


def initial(key: chex.PRNGKey) -> Params:
    """Parameters of the network: kernels and biases of three layers."""
    sizes = (1, HIDDEN, HIDDEN, 1)
    kernel = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"kernel": kernel(key, (fan_in, fan_out)), "bias": jnp.zeros(fan_out)}
        for key, fan_in, fan_out in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def predict(params: Params, x: chex.Array) -> chex.Array:
    """``f32[..., 1]`` of ``x f32[..., 1]``."""
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def error(params: Params, points: Points) -> chex.Array:
    """Mean squared error of one task's points."""
    return jnp.mean(jnp.square(predict(params, points.x) - points.y))


def adapted(loop: InnerLoop, meta: dict[str, Any], support: Points, steps: int) -> Params:
    """One task's parameters after ``steps`` steps on its support; ``meta`` holds theta and what the rule learned."""
    rule = update_rules.make(loop.rule, STEP_SIZE)
    return update_rules.descend(
        *(rule, meta["rule"], lambda theta: error(theta, support), meta["theta"], steps),
        second_order=loop.second_order,
    )


@functools.partial(jax.jit, static_argnames=("loop", "iterations", "tasks"))
def _train(
    meta: Any, opt: Any, key: chex.PRNGKey, first: chex.Array, loop: InnerLoop, iterations: int, tasks: int
) -> Any:
    def loss(meta: Any, support: Points, query: Points) -> chex.Array:
        return jnp.mean(jax.vmap(lambda s, q: error(adapted(loop, meta, s, 1), q))(support, query))

    def one(carry: tuple[Any, Any], iteration: chex.Array) -> tuple[tuple[Any, Any], None]:
        meta, opt = carry
        gradient = jax.grad(loss)(meta, *draw(jax.random.fold_in(key, iteration), tasks, SUPPORT))
        updates, opt = optax.adam(LEARNING_RATE).update(gradient, opt)
        return (optax.apply_updates(meta, updates), opt), None

    (meta, opt), _ = jax.lax.scan(one, (meta, opt), first + jnp.arange(iterations))
    return meta, opt


@functools.partial(jax.jit, static_argnames=("loop", "steps", "tasks"))
def _test(meta: Any, key: chex.PRNGKey, loop: InnerLoop, steps: tuple[int, ...], tasks: int) -> list[chex.Array]:
    support, query = draw(key, tasks, QUERY_TEST)

    def after(steps: int) -> chex.Array:
        return jnp.mean(jax.vmap(lambda s, q: error(adapted(loop, meta, s, steps), q))(support, query))

    return [after(count) for count in steps]


def learn(learner: str, iterations: int, looks: int, seed: int, tasks: int = TASKS, tests: int = TEST_TASKS) -> Any:
    """Meta-trains one seed and tests it on the way.

    Args:
      learner: one of :data:`LOOPS`.
      iterations: of meta-training.
      looks: points of the learning curve.
      seed: of initial parameters and tasks; all seeds are tested on the same tasks.
      tasks: of a meta-iteration.
      tests: sines of the test.

    Returns:
      ``figure``, the error after one step; ``before`` and, of plain descent, ``after_10``; ``curve`` of
      ``[iteration, error after one step]``.
    """
    loop = LOOPS[learner]
    theta_key, rule_key, key = jax.random.split(jax.random.key(seed), 3)
    theta = initial(theta_key)
    meta: dict[str, Any] = {
        "theta": theta,
        "rule": update_rules.make(loop.rule, STEP_SIZE).learnable(rule_key, theta, 1),
    }
    opt = optax.adam(LEARNING_RATE).init(meta)
    test_key = jax.random.key(2017)
    # The learned sizes are of one step; plain descent may go on.
    steps = (0, 1, TEST_STEPS) if loop.rule == "sgd" else (0, 1)
    curve, errors = [], []
    for look in range(looks):
        done = iterations * look // looks
        count = iterations * (look + 1) // looks - done
        meta, opt = _train(meta, opt, key, jnp.int32(done), loop, count, tasks)
        errors = [float(value) for value in _test(meta, test_key, loop, steps, tests)]
        curve.append([done + count, errors[1]])
    if not np.all(np.isfinite(errors)):
        raise FloatingPointError(f"sine, {learner}, seed {seed}: errors {errors} after {iterations} iterations")
    found: dict[str, Any] = {"figure": errors[1], "before": errors[0], "curve": curve}
    return found | ({f"after_{TEST_STEPS}": errors[2]} if len(errors) > 2 else {})
