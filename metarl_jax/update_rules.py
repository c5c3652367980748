"""Learned update rules: one mechanism for the inner loop of reinforcement learners and for unrolled solvers.

A rule says how parameters theta move by a gradient g: ``theta' = theta - Delta``. What of it is learned, psi, is a tree
that an outer optimiser treats like any other parameters:

=========== ======================================================================================================
sgd         ``Delta = alpha g`` with one step size, which is not learned (MAML, Finn 2017)
meta_sgd    ``Delta = exp(psi[leaf, step]) g`` (Meta-SGD, Li 2017; a size for every step: MAML++, Antoniou 2019)
gated       ``Delta = gamma Opt(g)``: Opt is meta_sgd, or Adam with these sizes; a gate ``gamma = 2 sigmoid(MLP(context,
            theta, g, momenta, step))`` for every element opens and closes it (optimizer gating of the seed document)
learned     a small network for every element: ``Delta = size exp(a) (b + g / rms)`` with outputs a and b from g, three
            momenta, the second moment, theta, context and step (features as in Metz 2020, recalled)
=========== ======================================================================================================

``meta_sgd_elementwise`` has a size for every parameter, not every leaf, of either sign, as Meta-SGD was published:
``Delta = alpha psi[element, step] g``.

Networks end in zeros: at first every gate is exactly 1, so that ``gated`` is its optimiser bit by bit (in the
document's form, a gate of .5 with doubled steps), and ``learned`` is normalised descent. All can be differentiated
through.

An element's context is what its rule may know beyond its own gradient: one vector for all (a memory's summary), or one
vector an element (what a solver knows of the plant).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp
from flax import struct

RuleName = Literal["sgd", "meta_sgd", "meta_sgd_elementwise", "gated", "learned"]
Tree = Any

HIDDEN = 16
"""Hidden width of a gate or a learned rule."""
DECAYS = (0.5, 0.9, 0.99)
"""Of the momenta."""
SECOND_DECAY = 0.95
"""Of the second moment."""


@struct.dataclass
class Moments:
    """Running means of one leaf's gradient, corrected for their start when read.

    Attributes:
      momenta: a leaf like the gradient for each of :data:`DECAYS`.
      second: of its square.
      count: ``f32[]`` gradients seen.
    """

    momenta: tuple[chex.Array, ...]
    second: chex.Array
    count: chex.Array


class UpdateRule(NamedTuple):
    """A rule, as functions of what is learned of it.

    Attributes:
      learnable: ``(key, theta, steps) -> psi``, for so many steps.
      by_step: ``psi ->`` the part of psi with a leading axis of steps, which a loop scans over; None where it has none.
      init: ``theta -> state`` before the first step.
      update: ``(psi, psi of this step, state, g, theta, context, step i32[]) -> (Delta, state)``; context is
        ``f32[F]``, or ``f32[*theta, F]`` where theta is one array, or None.
    """

    learnable: Callable[[chex.PRNGKey, Tree, int], Tree]
    by_step: Callable[[Tree], Tree]
    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree, Tree, Tree, chex.Array | None, chex.Array], tuple[Tree, Tree]]


def make(name: str, step_size: float = 0.01, optimiser: Literal["sgd", "adam"] = "sgd", context: int = 0) -> UpdateRule:
    """A rule by name.

    Args:
      name: one of :data:`RuleName`.
      step_size: initial step size; of ``sgd`` the only one.
      optimiser: what a gate opens and closes.
      context: F, features of the context; 0 reads none.

    Raises:
      ValueError: for an unknown name, with what is known.
    """
    if name == "sgd":
        return _sgd(step_size)
    if name == "meta_sgd":
        return _meta_sgd(step_size)
    if name == "meta_sgd_elementwise":
        return _meta_sgd_elementwise(step_size)
    if name == "gated":
        return _gated(step_size, optimiser, context)
    if name == "learned":
        return _learned(step_size, context)
    raise ValueError(f"rule must be one of {', '.join(get_args(RuleName))}, got {name!r}")


def log_sizes(theta: Tree, steps: int, step_size: float) -> Tree:
    """Logarithms of step sizes: for every leaf ``f32[steps]``."""
    return jax.tree.map(lambda _: jnp.full((steps,), jnp.log(step_size), jnp.float32), theta)


def _stateless(theta: Tree) -> Tree:
    return ()


def _sgd(step_size: float) -> UpdateRule:
    def update(psi: Tree, now: Tree, state: Tree, g: Tree, theta: Tree, context: Any, step: Any) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda leaf: step_size * leaf, g), state

    return UpdateRule(lambda key, theta, steps: {}, lambda psi: None, _stateless, update)


def _meta_sgd(step_size: float) -> UpdateRule:
    def update(psi: Tree, now: Tree, state: Tree, g: Tree, theta: Tree, context: Any, step: Any) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda leaf, size: jnp.exp(size) * leaf, g, now), state

    return UpdateRule(lambda key, theta, steps: log_sizes(theta, steps, step_size), lambda psi: psi, _stateless, update)


def _meta_sgd_elementwise(step_size: float) -> UpdateRule:
    def learnable(key: chex.PRNGKey, theta: Tree, steps: int) -> Tree:
        # Relative to the initial size, so that the outer optimiser moves sizes as far as it does their logarithms.
        return jax.tree.map(lambda leaf: jnp.ones((steps, *leaf.shape), jnp.float32), theta)

    def update(psi: Tree, now: Tree, state: Tree, g: Tree, theta: Tree, context: Any, step: Any) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda leaf, size: step_size * size * leaf, g, now), state

    return UpdateRule(learnable, lambda psi: psi, _stateless, update)


def _moments(theta: Tree) -> Tree:
    def of(leaf: chex.Array) -> Moments:
        zero = jnp.zeros_like(leaf)
        return Moments((zero,) * len(DECAYS), zero, jnp.zeros((), leaf.dtype))

    return jax.tree.map(of, theta)


def _seen(moments: Moments, g: chex.Array) -> Moments:
    momenta = tuple(b * m + (1.0 - b) * g for b, m in zip(DECAYS, moments.momenta, strict=True))
    second = SECOND_DECAY * moments.second + (1.0 - SECOND_DECAY) * jnp.square(g)
    return Moments(momenta, second, moments.count + 1.0)


def _read(moments: Moments) -> tuple[list[chex.Array], chex.Array]:
    """Momenta and root mean square without the bias of their zero start."""
    momenta = [m / (1.0 - b**moments.count) for b, m in zip(DECAYS, moments.momenta, strict=True)]
    return momenta, jnp.sqrt(moments.second / (1.0 - SECOND_DECAY**moments.count) + 1e-12)


def _sign_log(g: chex.Array) -> list[chex.Array]:
    """The size of a number on a logarithmic scale from 1e-6 to 1, and its sign near there (Andrychowicz 2016)."""
    size = jnp.clip(jnp.log(jnp.abs(g) + 1e-9) / 14.0, -1.0, 1.0)
    return [size, jnp.clip(g * 1e6, -1.0, 1.0)]


INPUTS = 2 + len(DECAYS) + 1 + 2 + 2
"""Features of an element: its gradient, momenta by their size, second moment, theta, step."""


def _features(moments: Moments, g: chex.Array, theta: chex.Array, step: chex.Array) -> chex.Array:
    """``f32[*g, INPUTS]``."""
    momenta, root = _read(moments)
    time = step.astype(g.dtype)
    columns = [
        *_sign_log(g),
        *(m / root for m in momenta),
        jnp.log(root) / 14.0,
        jnp.tanh(theta),
        jnp.sign(theta),
        jnp.full_like(g, 1.0) * jnp.tanh(time / 10.0),
        jnp.full_like(g, 1.0) / (1.0 + time),
    ]
    return jnp.stack(columns, axis=-1)


def _network(key: chex.PRNGKey, context: int, outputs: int) -> dict[str, chex.Array]:
    """Parameters of a network of one hidden layer that gives zeros at first."""
    own_key, context_key = jax.random.split(key)
    return {
        "own": jax.random.normal(own_key, (INPUTS, HIDDEN)) * INPUTS**-0.5,
        "context": jax.random.normal(context_key, (context, HIDDEN)) * max(context, 1) ** -0.5,
        "bias": jnp.zeros(HIDDEN),
        "out": jnp.zeros((HIDDEN, outputs)),
        "out_bias": jnp.zeros(outputs),
    }


def _evaluate(net: dict[str, chex.Array], features: chex.Array, context: chex.Array | None) -> chex.Array:
    """``f32[*g, outputs]``; the context's part is computed once where one context is for all."""
    hidden = features @ net["own"] + net["bias"]
    if context is not None and net["context"].shape[0]:
        hidden = hidden + context @ net["context"]
    return jnp.tanh(hidden) @ net["out"] + net["out_bias"]


def _each(function: Callable[..., tuple[chex.Array, Moments]], g: Tree, *others: Tree) -> tuple[Tree, Tree]:
    """Maps leaves of g and the parts of other trees that belong to them; returns deltas and moments apart."""
    leaves, structure = jax.tree.flatten(g)
    pairs = [function(leaf, *rest) for leaf, *rest in zip(leaves, *map(structure.flatten_up_to, others), strict=True)]
    return tuple(structure.unflatten(part) for part in zip(*pairs, strict=True))


def _gated(step_size: float, optimiser: str, context_size: int) -> UpdateRule:
    def learnable(key: chex.PRNGKey, theta: Tree, steps: int) -> Tree:
        return {"sizes": log_sizes(theta, steps, step_size), "gate": _network(key, context_size, 1)}

    def update(psi: Tree, now: Tree, state: Tree, g: Tree, theta: Tree, context: Any, step: Any) -> tuple[Tree, Tree]:
        def one(g: chex.Array, before: Moments, theta: chex.Array, size: chex.Array) -> tuple[chex.Array, Moments]:
            moments = _seen(before, g)
            momenta, root = _read(moments)
            plain = jnp.exp(size) * (g if optimiser == "sgd" else momenta[1] / root)
            opening = _evaluate(psi["gate"], _features(moments, g, theta, step), context)[..., 0]
            return 2.0 * jax.nn.sigmoid(opening) * plain, moments

        return _each(one, g, state, theta, now)

    return UpdateRule(learnable, lambda psi: psi["sizes"], _moments, update)


def _learned(step_size: float, context_size: int) -> UpdateRule:
    def learnable(key: chex.PRNGKey, theta: Tree, steps: int) -> Tree:
        return {"net": _network(key, context_size, 2), "log_size": jnp.full((), jnp.log(step_size), jnp.float32)}

    def update(psi: Tree, now: Tree, state: Tree, g: Tree, theta: Tree, context: Any, step: Any) -> tuple[Tree, Tree]:
        def one(g: chex.Array, before: Moments, theta: chex.Array) -> tuple[chex.Array, Moments]:
            moments = _seen(before, g)
            _, root = _read(moments)
            out = _evaluate(psi["net"], _features(moments, g, theta, step), context)
            # Where there never was a gradient there is nothing to learn from: no support, no step.
            direction = jnp.where(moments.second > 0, out[..., 1], 0.0) + g / root
            return jnp.exp(psi["log_size"] + out[..., 0]) * direction, moments

        return _each(one, g, state, theta)

    return UpdateRule(learnable, lambda psi: None, _moments, update)


def descend(
    rule: UpdateRule,
    psi: Tree,
    loss: Callable[[Tree], chex.Array],
    start: Tree,
    steps: int,
    context: chex.Array | None = None,
    *,
    second_order: bool,
    unroll: bool = False,
    checkpoint: bool = False,
) -> Tree:
    """``steps`` steps of a rule on ``loss`` that can be differentiated through.

    Args:
      rule: how to move.
      psi: what is learned of it.
      loss: of theta.
      start: theta before the first step.
      steps: how many.
      context: of the rule.
      second_order: whether the gradient of the steps' gradients is taken too.
      unroll: unroll the loop instead of scanning it.
      checkpoint: recompute a step in the backward pass instead of storing it.
    """

    def one(carry: tuple[Tree, Tree], now: tuple[Tree, chex.Array]) -> tuple[tuple[Tree, Tree], None]:
        theta, state = carry
        psi_now, step = now
        gradient = jax.grad(loss)(theta)
        if not second_order:
            gradient = jax.lax.stop_gradient(gradient)
        delta, state = rule.update(psi, psi_now, state, gradient, theta, context, step)
        return (jax.tree.map(lambda p, d: p - d, theta, delta), state), None

    body = jax.checkpoint(one) if checkpoint else one
    along = (rule.by_step(psi), jnp.arange(steps, dtype=jnp.int32))
    (theta, _), _ = jax.lax.scan(body, (start, rule.init(start)), along, length=steps, unroll=unroll)
    return theta
