"""A transmitter that learns within the episode what its packets are worth and how good its links are.

What a frame cost is linear in the packets of each service class that it left: with the classes' backlogs H and their
weights c, ``-K reward = sum_c c_c H_c`` exactly, as long as no packet is lost. H follows from the queues before the
frame and the acknowledgements. The delay budgets are known, but not of which class each is: the posterior over all
orders of the weights is sure after two frames or a few more. Where no order explains the costs, recursive least squares
give c after a few frames. Success rates mu and connectivities p are counted. The transmitter serves the ready flow of
the largest

    c mu w^(queue + fading (1 - p)) (inflow + .02)^inflow / p^connectivity,

the c-mu rule with estimates, corrected for links that fade (see :class:`envs_jax.domains.network_traffic`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.heuristics import least_squares

NOISE, PRIOR, LEAST = 1e-2, 0.1, 0.05
"""Variances assumed of a cost [weighted packets^2] and of the mean weight; least weight that is believed."""
UNLIKELY = -10.0
"""Log-likelihood, 0 of a sure prediction, at which no order of the weights is believed any more."""
NO_ARRIVALS = 0.02
"""Added to the arrivals seen [packets/slot]."""


class Rule(NamedTuple):
    """Constants.

    queue, fading, connectivity, inflow: exponents, see the module.
    success: mean of mu before anything is sent.
    attempts: what that is worth in attempts.
    link: mean of p before anything is seen.
    frames: what that is worth in frames.
    """

    queue: float
    fading: float
    connectivity: float
    inflow: float
    success: float
    attempts: float
    link: float
    frames: float


class Memory(NamedTuple):
    """Of an episode.

    orders: ``f32[C!]`` log-likelihood of each order of the weights.
    weights: what least squares believe of the classes' weights c.
    backlog: ``f32[C]`` packets of each class before this frame.
    attempts: ``f32[K]`` packets sent in earlier frames.
    acked: ``f32[K]`` acknowledged ones of them.
    """

    orders: chex.Array
    weights: least_squares.Belief
    backlog: chex.Array
    attempts: chex.Array
    acked: chex.Array


def orders(weights: Sequence[float]) -> np.ndarray:
    """All orders ``f32[C!, C]`` of the classes' ``weights``, the hypotheses."""
    return np.array(list(itertools.permutations(weights)), np.float32)


def start(hypotheses: np.ndarray, num_flows: int) -> Memory:
    """Before an episode: all ``hypotheses f32[H, C]`` are equally likely."""
    covariance = np.cov(hypotheses, rowvar=False, bias=True) + PRIOR * np.eye(hypotheses.shape[1])
    belief = least_squares.Belief(jnp.asarray(hypotheses.mean(0), jnp.float32), jnp.asarray(covariance, jnp.float32))
    equal, backlog, none = (jnp.zeros((n,), jnp.float32) for n in (*hypotheses.shape, num_flows))
    return Memory(equal, belief, backlog, none, none)


def frame_seen(
    memory: Memory,
    hypotheses: np.ndarray,
    classes: chex.Array,
    queue: chex.Array,
    acked: chex.Array,
    sent: chex.Array,
    cost: chex.Array,
    valid: chex.Array,
) -> Memory:
    """What is known at the beginning of a frame.

    Args:
      memory: at the beginning of the frame before.
      hypotheses: ``f32[H, C]`` of the weights.
      classes: ``bool[K, C]`` of which class each flow is.
      queue: ``f32[K]`` packets now.
      acked: ``f32[K]`` packets acknowledged in the last frame.
      sent: ``f32[K]`` packets sent in it.
      cost: ``f32[]`` what it cost, sum over flows.
      valid: ``bool[]`` whether that was seen.
    """
    backlog, delivered = (jnp.sum(jnp.where(classes, x[:, None], 0.0), axis=0) for x in (queue, acked))
    held = memory.backlog - delivered
    residual = jnp.where(valid, cost - jnp.asarray(hypotheses) @ held, 0.0)
    return Memory(
        memory.orders - residual**2 / (2.0 * NOISE),
        least_squares.observed(memory.weights, held, cost, NOISE, valid),
        backlog,
        memory.attempts + sent,
        memory.acked + acked,
    )


def class_weights(memory: Memory, hypotheses: np.ndarray) -> chex.Array:
    """Expected weights of the classes ``f32[C]``, above 0."""
    posterior = jax.nn.softmax(memory.orders)
    explained = jnp.max(memory.orders) > UNLIKELY
    return jnp.maximum(jnp.where(explained, posterior @ jnp.asarray(hypotheses), memory.weights.mean), LEAST)


def index(
    rule: Rule,
    memory: Memory,
    weight: chex.Array,
    waiting: chex.Array,
    inflow: chex.Array,
    times_up: chex.Array,
    frames: chex.Array,
    shared: bool,
) -> chex.Array:
    """Index of each flow, ``f32[K]``.

    Args:
      rule: constants.
      memory: what is known.
      weight: ``f32[K]`` c.
      waiting: ``f32[K]`` w, packets not yet granted.
      inflow: ``f32[K]`` mean arrivals so far [packets/slot].
      times_up: ``f32[K]`` frames with the link up.
      frames: ``f32[]`` frames seen.
      shared: whether several flows may share a slot; then max-weight, proportional to w.
    """
    success = (memory.acked + rule.attempts * rule.success) / (memory.attempts + rule.attempts)
    link = jnp.clip((times_up + rule.frames * rule.link) / (frames + rule.frames), 0.01, 1.0)
    exponent = 1.0 if shared else rule.queue + rule.fading * (1.0 - link)
    crowd = jnp.maximum(waiting, 0.0) ** exponent * (inflow + NO_ARRIVALS) ** rule.inflow
    return weight * success * crowd / link**rule.connectivity
