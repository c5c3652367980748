"""Average-cost potentials estimated from simulated paths, and rollout on them (Algorithm 1).

A path of an epsilon-soft policy gives the gain as its mean cost and, for a visited stock ``x``, the potential

    g(x) = E[sum_{k < N} (f(X_k) - eta) | X_0 = x],

the mean over its visits of the ``N`` steps that follow. A table alone leaves stocks that were never met without a
value, so a fit (linear, or a network with one hidden layer) of the table answers for those: ``fill = "fit"`` keeps the
table where there is one, ``fill = "all"`` uses the fit everywhere. Deterministic policies need the ``epsilon``: a path
of "order up to 4" may visit a single stock for good.

Inputs of a fit (:func:`features`):

* ``levels``: the stock of every level in binary, enough bits for its cap (3 for a cap of 6).
* ``seed28``: the number of the joint stock in 14 bits, each twice, as itself and negated. 14 bits tell 16,384 stocks
  apart; of the 16,807 of EX2 423 collide (:func:`collisions`).
* ``onehot``: one input for every stock of every level; a linear fit is then any sum over levels.

Everything runs in float64; randomness comes from the given key alone.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from envs_jax.games import warehouse as model
from envs_jax.games.warehouse import Warehouse
from envs_jax.references import warehouse as exact
from metarl_jax.rollout import improvement, parallel

INPUTS = ("levels", "seed28", "onehot")
FITS = ("none", "linear", "network")
SEED_BITS = 14
HIDDEN = 15


class Sampling(NamedTuple):
    """How paths are drawn.

    Attributes:
      paths: number of paths; each starts in a stock drawn uniformly, a single one in the empty warehouse.
      length: periods of each path that count.
      horizon: ``N``, periods summed for a potential; each path is that much longer.
      epsilon: chance of a random feasible joint flow instead of the policy's.
    """

    paths: int = 1
    length: int = 20_000
    horizon: int = 20
    epsilon: float = 0.1


class Fit(NamedTuple):
    """How a table of potentials is continued to all stocks.

    Attributes:
      kind: ``none`` (0 elsewhere), ``linear`` or ``network``.
      inputs: one of :data:`INPUTS`.
      fill: ``fit``: the fit only where the table is empty; ``all``: everywhere.
      steps: full-batch Adam steps of the network.
      learning_rate: of the network.
      biases: whether the network has them; without, 28 inputs and 15 units make 435 weights. Inputs ``levels`` need
        them: the empty warehouse is all zeros there, and a network without biases gives it the mean of all potentials.
    """

    kind: str = "linear"
    inputs: str = "levels"
    fill: str = "fit"
    steps: int = 2000
    learning_rate: float = 0.01
    biases: bool = False


class Estimate(NamedTuple):
    """Potentials from paths.

    Attributes:
      gain: mean cost of a period of the epsilon-soft policy [money].
      potentials: ``f64[|X|]``, 0 at the empty warehouse.
      visits: ``i64[|X|]`` how often a stock was met.
    """

    gain: float
    potentials: np.ndarray
    visits: np.ndarray


class Step(NamedTuple):
    """One policy of Algorithm 1.

    Attributes:
      flows: ``i8[n, |X|]`` the policy.
      gain: its exact gain.
      estimate: what its paths said.
      error: root mean square of estimated less exact potentials over the visited stocks, weighted by visits [money].
    """

    flows: np.ndarray
    gain: float
    estimate: Estimate
    error: float


# --- paths -----------------------------------------------------------------------------------------------------------


def _random_flows(stock: chex.Array, uniform: chex.Array, caps: chex.Array, is_chain: bool) -> chex.Array:
    """Feasible flows, into level ``n`` first, each uniform on what is left to it: ``i32[n]``."""

    def turn(given: chex.Array, own: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
        stock, cap, supplier, uniform = own
        most = cap - stock + given
        if is_chain:
            most = jnp.minimum(most, supplier)
        amount = jnp.minimum(jnp.floor(uniform * (most + 1)).astype(jnp.int32), most)
        return (amount if is_chain else jnp.zeros_like(amount)), amount

    outside = jnp.full(1, jnp.iinfo(jnp.int32).max, jnp.int32)
    supplier = jnp.concatenate([outside, stock[:-1]])
    return jax.lax.scan(turn, jnp.int32(0), (stock, caps, supplier, uniform), reverse=True)[1]


@functools.partial(jax.jit, static_argnames=("is_chain", "side", "paths", "periods"))
def _play(
    flows: chex.Array,
    caps: chex.Array,
    cdf: chex.Array,
    cost: chex.Array,
    unit: chex.Array,
    order: chex.Array,
    epsilon: chex.Array,
    start: chex.Array,
    key: chex.PRNGKey,
    is_chain: bool,
    side: int,
    paths: int,
    periods: int,
) -> tuple[chex.Array, chex.Array]:
    n = caps.shape[0]
    level = jnp.arange(n)
    stride = side ** (n - 1 - level)

    def period(stock: chex.Array, uniform: chex.Array) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        index = jnp.sum(stock * stride)
        random = _random_flows(stock, uniform[1 : n + 1], caps, is_chain)
        flow = jnp.where(uniform[0] < epsilon, random, flows[:, index].astype(jnp.int32))
        y = stock + flow
        if is_chain:
            y = y.at[:-1].add(-flow[1:])
        paid = jnp.sum(unit * flow + order * (flow > 0) + cost[level, y])
        after = jnp.sum(uniform[n + 1 :, None] > cdf[level, y], axis=-1, dtype=jnp.int32)
        return jnp.minimum(after, y), (index, paid)

    def path(start: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
        def one(stock: chex.Array, t: chex.Array) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
            return period(stock, jax.random.uniform(jax.random.fold_in(key, t), (2 * n + 1,), cost.dtype))

        return jax.lax.scan(one, start, jnp.arange(periods))[1]

    return jax.vmap(path)(start, jax.random.split(key, paths))


def play(
    warehouse: Warehouse, flows: np.ndarray, sampling: Sampling, key: chex.PRNGKey
) -> tuple[np.ndarray, np.ndarray]:
    """Paths of the epsilon-soft policy.

    Args:
      warehouse: the model.
      flows: ``i8[n, |X|]``.
      sampling: how many, how long.
      key: all randomness.

    Returns:
      Numbers of the stocks met ``i64[paths, length + horizon]``, in the order of :func:`model.states`, and the expected
      cost of each period ``f64`` of that shape [money].
    """
    law, cost = model.tables(warehouse)
    starts, draws = jax.random.split(key)
    caps = np.asarray(warehouse.caps)
    with jax.enable_x64(True):
        if sampling.paths == 1:
            start = np.zeros((1, len(caps)), np.int32)
        else:
            uniform = np.asarray(jax.random.uniform(starts, (sampling.paths, len(caps)), float))
            start = np.minimum(np.floor(uniform * (caps + 1)), caps).astype(np.int32)
        met, paid = _play(
            exact.padded(warehouse, flows),
            caps.astype(np.int32),
            np.cumsum(law, -1),
            cost,
            np.asarray(warehouse.unit_cost),
            np.asarray(warehouse.order_cost),
            sampling.epsilon,
            start,
            draws,
            is_chain=warehouse.is_chain,
            side=warehouse.side,
            paths=sampling.paths,
            periods=sampling.length + sampling.horizon,
        )
        met = np.asarray(met)
    if warehouse.is_ragged:
        number = np.zeros(warehouse.side**warehouse.num_levels, np.int64)
        number[model.padded_index(warehouse)] = np.arange(warehouse.num_states)
        met = number[met]
    return met, np.asarray(paid)


def tabulate(
    warehouse: Warehouse, met: np.ndarray, paid: np.ndarray, horizon: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """The gain, and for every stock met the mean cost of the next ``horizon`` periods less their gain.

    The gain is the mean of a single path, and of the later half of several short ones (they start anywhere).

    Returns:
      Gain, potentials ``f64[|X|]`` (0 where not met, not yet relative to the empty warehouse), visits ``i64[|X|]``.
    """
    counted = met[:, : met.shape[1] - horizon]
    gain = float(paid.mean() if len(met) == 1 else paid[:, paid.shape[1] // 2 :].mean())
    running = np.concatenate([np.zeros((len(paid), 1)), np.cumsum(paid - gain, axis=1)], axis=1)
    ahead = running[:, horizon:-1] - running[:, : -horizon - 1]
    visits = np.bincount(counted.reshape(-1), minlength=warehouse.num_states)
    total = np.bincount(counted.reshape(-1), ahead.reshape(-1), minlength=warehouse.num_states)
    return gain, total / np.maximum(visits, 1), visits


# --- fits ------------------------------------------------------------------------------------------------------------


def features(warehouse: Warehouse, inputs: str) -> np.ndarray:
    """What a fit sees of every joint stock: ``f64[|X|, F]``.

    Raises:
      ValueError: unknown ``inputs``.
    """
    stock = model.states(warehouse)
    if inputs == "levels":
        columns = []
        for i, cap in enumerate(warehouse.caps):
            columns += [stock[:, i] >> bit & 1 for bit in range(cap.bit_length())]
        return np.stack(columns, axis=1).astype(float)
    if inputs == "seed28":
        bits = np.arange(warehouse.num_states)[:, None] >> np.arange(SEED_BITS) & 1
        return np.concatenate([bits, 1 - bits], axis=1).astype(float)
    if inputs == "onehot":
        return np.concatenate(
            [np.equal.outer(stock[:, i], np.arange(cap + 1)) for i, cap in enumerate(warehouse.caps)], axis=1
        ).astype(float)
    raise ValueError(f"inputs = {inputs!r}: allowed are {', '.join(INPUTS)}")


def collisions(warehouse: Warehouse, inputs: str) -> int:
    """How many joint stocks a fit cannot tell from an earlier one."""
    return warehouse.num_states - len(np.unique(features(warehouse, inputs), axis=0))


def linear(inputs: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted least squares with an intercept, the shortest among equals: values ``f64[|X|]`` of all stocks."""
    design = np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)
    known = weight > 0
    root = np.sqrt(weight[known])
    coefficients = np.linalg.lstsq(design[known] * root[:, None], target[known] * root, rcond=None)[0]
    return design @ coefficients


def init_network(inputs: int, biases: bool, key: chex.PRNGKey) -> dict[str, chex.Array]:
    """Weights of a network ``inputs - 15 - 1``: ``15 (inputs + 1)`` of them, 16 more with biases."""
    first, second = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(first, (inputs, HIDDEN)) / np.sqrt(inputs),
        "out": jax.random.normal(second, (HIDDEN,)) / np.sqrt(HIDDEN),
    }
    if biases:
        params |= {"hidden_bias": jnp.zeros(HIDDEN), "out_bias": jnp.zeros(())}
    return params


def apply_network(params: dict[str, chex.Array], inputs: chex.Array) -> chex.Array:
    """``tanh`` hidden units, linear output: ``f64[S]`` of ``f64[S, F]``."""
    hidden = inputs @ params["hidden"] + params.get("hidden_bias", 0.0)
    return jnp.tanh(hidden) @ params["out"] + params.get("out_bias", 0.0)


@functools.partial(jax.jit, static_argnames=("steps", "biases"))
def _train(
    inputs: chex.Array,
    rows: chex.Array,
    target: chex.Array,
    weight: chex.Array,
    rate: chex.Array,
    key: chex.PRNGKey,
    steps: int,
    biases: bool,
) -> chex.Array:
    """A network fitted to ``target f64[R]`` with ``weight f64[R]`` at ``rows i[R]``: its values ``f64[|X|]``."""
    known = inputs[rows]
    centre = jnp.sum(weight * target)
    scale = jnp.sqrt(jnp.sum(weight * (target - centre) ** 2)) + 1e-12
    wanted = (target - centre) / scale
    optimiser = optax.adam(rate)
    params = init_network(inputs.shape[1], biases, key)

    def loss(params: dict[str, chex.Array]) -> chex.Array:
        return jnp.sum(weight * (apply_network(params, known) - wanted) ** 2)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), None, length=steps)
    return centre + scale * apply_network(params, inputs)


def _met(visits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stocks that were met, and their shares of all visits, filled up by ones without weight to one of few sizes.

    A path meets a small part of many stocks, and a network is fitted where the path was; few sizes compile seldom.
    """
    met = np.flatnonzero(visits)
    size = 256
    while size < len(met):
        size *= 4
    rows = np.concatenate([met, np.full(max(min(size, len(visits)) - len(met), 0), met[0])])
    share = np.zeros(len(rows))
    share[: len(met)] = visits[met] / visits.sum()
    return rows, share


def estimate(warehouse: Warehouse, flows: np.ndarray, sampling: Sampling, fit: Fit, key: chex.PRNGKey) -> Estimate:
    """Potentials of a policy from paths of it.

    Args:
      warehouse: the model.
      flows: ``i8[n, |X|]`` the policy.
      sampling: the paths.
      fit: how the table is continued.
      key: all randomness.

    Raises:
      ValueError: unknown ``fit.kind``, ``fit.inputs`` or ``fit.fill``.
    """
    check_fit(fit)
    paths, weights = jax.random.split(key)
    met, paid = play(warehouse, flows, sampling, paths)
    gain, table, visits = tabulate(warehouse, met, paid, sampling.horizon)
    values = table
    if fit.kind != "none":
        inputs = features(warehouse, fit.inputs)
        if fit.kind == "linear":
            fitted = linear(inputs, table, visits.astype(float))
        else:
            rows, share = _met(visits)
            target = table[rows]
            with jax.enable_x64(True):
                fitted = np.asarray(
                    _train(inputs, rows, target, share, fit.learning_rate, weights, steps=fit.steps, biases=fit.biases)
                )
        values = fitted if fit.fill == "all" else np.where(visits > 0, table, fitted)
    return Estimate(gain, values - values[0], visits)


def check_fit(fit: Fit) -> None:
    """Raises ``ValueError`` naming the field of ``fit`` that is not allowed."""
    for field, allowed in (("kind", FITS), ("inputs", INPUTS), ("fill", ("fit", "all"))):
        if getattr(fit, field) not in allowed:
            raise ValueError(f"fit.{field} = {getattr(fit, field)!r}: allowed are {', '.join(allowed)}")


def algorithm1(
    warehouse: Warehouse,
    key: chex.PRNGKey,
    *,
    iterations: int,
    sampling: Sampling,
    fit: Fit,
    improve: improvement.Improvement = improvement.joint,
    samples: int = 0,
    devices: int = 0,
) -> list[Step]:
    """Rollout on estimated potentials, from "order nothing" on; every policy beside its exact gain.

    Args:
      warehouse: the model.
      key: all randomness.
      iterations: how many policies to improve upon; stops earlier if a policy does not change.
      sampling: the paths.
      fit: how tables are continued.
      improve: joint or agent by agent, with the expectation under the model.
      samples: next states drawn for every state and joint flow instead, if above 0 (then always joint).
      devices: if above 0, improves by enumeration with the joint flows over so many devices.

    Returns:
      ``iterations + 1`` steps or fewer, the last one's policy the final one.
    """
    flows = exact.order_nothing(warehouse)
    start: np.ndarray | None = None
    steps: list[Step] = []
    for iteration in range(iterations + 1):
        paths, draws = jax.random.split(jax.random.fold_in(key, iteration))
        truth = exact.evaluate(warehouse, flows, start=start)
        start = truth.potentials
        guess = estimate(warehouse, flows, sampling, fit, paths)
        weight = guess.visits / guess.visits.sum()
        error = guess.potentials - truth.potentials
        centred = error - weight @ error  # a constant changes no decision
        steps.append(Step(flows, truth.gain, guess, float(np.sqrt(weight @ centred**2))))
        if iteration == iterations:
            break
        if samples or devices:
            better = parallel.improve(warehouse, guess.potentials, devices=devices, samples=samples, key=draws)
        else:
            better = improve(warehouse, flows, guess.potentials)
        if np.array_equal(better, flows):
            break
        flows = better
    return steps
