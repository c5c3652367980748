"""A transmitter that learns within the episode what its packets are worth and how good its links are.

What a frame cost is linear in the packets of each flow that it left: with the flows' backlogs H and their weights c,
``-K reward = sum_k c_k H_k`` exactly, as long as no packet is lost. H follows from the queues before the frame and the
acknowledgements. c is the weight of the flow's class times what its contract makes of it. The delay budgets are known,
but not of which class each is: under each order of the class weights the flows' c have a normal prior, which recursive
least squares update frame by frame (a Kalman filter of constants), and how well an order foretold the costs is its
likelihood. Success rates mu and connectivities p are counted. The transmitter serves the ready flow of the largest

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

NOISE, LEAST = 1e-2, 0.05
"""Variance assumed of a cost [weighted packets^2]; least weight that is believed."""
NO_ARRIVALS = 0.02
"""Added to the arrivals seen [packets/slot]."""


class Rule(NamedTuple):
    """Constants.

    queue, fading, connectivity, inflow: exponents, see the module.
    success: mean of mu before anything is sent.
    attempts: what that is worth in attempts.
    link: mean of p before anything is seen.
    frames: what that is worth in frames.
    contract: mean of a contract's factor before any cost is seen.
    spread: its standard deviation.
    """

    queue: float
    fading: float
    connectivity: float
    inflow: float
    success: float
    attempts: float
    link: float
    frames: float
    contract: float
    spread: float


class Memory(NamedTuple):
    """Of an episode.

    orders: ``f32[H]`` log-likelihood of each order of the class weights.
    weights: what is believed of the flows' weights c under each, ``[H, K]`` and ``[H, K, K]``.
    backlog: ``f32[K]`` packets of each flow before this frame.
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
    """Before an episode, when no class has been seen: all ``hypotheses f32[H, C]`` are equally likely."""
    none, flows = jnp.zeros((num_flows,), jnp.float32), (len(hypotheses), num_flows)
    belief = least_squares.Belief(jnp.ones(flows, jnp.float32), jnp.zeros((*flows, num_flows), jnp.float32))
    return Memory(jnp.zeros((len(hypotheses),), jnp.float32), belief, none, none, none)


def prior(rule: Rule, hypotheses: np.ndarray, classes: chex.Array) -> least_squares.Belief:
    """What is believed of the flows' weights under each hypothesis once their ``classes bool[K, C]`` are seen."""
    of_class = jnp.where(classes[None], jnp.asarray(hypotheses)[:, None, :], 0.0).sum(-1)
    variance = (rule.spread * of_class) ** 2
    return least_squares.Belief(
        rule.contract * of_class, variance[:, :, None] * jnp.eye(classes.shape[0], dtype=jnp.float32)[None]
    )


def frame_seen(
    rule: Rule,
    memory: Memory,
    hypotheses: np.ndarray,
    classes: chex.Array,
    queue: chex.Array,
    acked: chex.Array,
    sent: chex.Array,
    cost: chex.Array,
    valid: chex.Array,
    first: chex.Array,
) -> Memory:
    """What is known at the beginning of a frame.

    Args:
      rule: constants.
      memory: at the beginning of the frame before.
      hypotheses: ``f32[H, C]`` of the class weights.
      classes: ``bool[K, C]`` of which class each flow is.
      queue: ``f32[K]`` packets now.
      acked: ``f32[K]`` packets acknowledged in the last frame.
      sent: ``f32[K]`` packets sent in it.
      cost: ``f32[]`` what it cost, sum over flows.
      valid: ``bool[]`` whether that was seen.
      first: ``bool[]`` whether this is the episode's first frame.
    """
    held = memory.backlog - acked
    before = jax.tree.map(lambda x, y: jnp.where(first, x, y), prior(rule, hypotheses, classes), memory.weights)
    variance = NOISE + jnp.einsum("k,hkl,l->h", held, before.covariance, held)
    surprise = (cost - before.mean @ held) ** 2 / variance + jnp.log(variance)
    learn = jax.vmap(least_squares.observed, in_axes=(0, None, None, None, None))
    return Memory(
        memory.orders - jnp.where(valid, 0.5 * surprise, 0.0),
        learn(before, held, cost, NOISE, valid),
        queue,
        memory.attempts + sent,
        memory.acked + acked,
    )


def flow_weights(memory: Memory) -> chex.Array:
    """Expected weights of the flows ``f32[K]``, above 0."""
    return jnp.maximum(jax.nn.softmax(memory.orders) @ memory.weights.mean, LEAST)


def index(
    rule: Rule,
    memory: Memory,
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
    return flow_weights(memory) * success * crowd / link**rule.connectivity
