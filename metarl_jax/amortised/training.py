"""Training of price networks and of unrolled solvers on new sites without end, by the certified gap.

Everything is one scan a training, so that an iteration costs its arithmetic. Sites are drawn anew for every iteration:
there is no training set to be remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from envs_jax.allocation import family
from envs_jax.allocation.transport import Transport
from envs_jax.references import interior_point
from metarl_jax import update_rules
from metarl_jax.amortised import unrolled
from metarl_jax.amortised.prices import PriceNetwork, scaled
from metarl_jax.amortised.unrolled import Solver

Params = Any
DIRECT = Solver("sgd", 0)
"""No steps: an allocation of the predicted prices."""


class Source(NamedTuple):
    """Where training instances come from.

    Attributes:
      family: ``seed`` or ``dispatch``.
      demands: n.
      plants: m, without the import.
    """

    family: str
    demands: int
    plants: int

    def instances(self, key: chex.PRNGKey, count: int) -> Transport:
        """``count`` independent instances, scaled."""
        keys = jax.random.split(key, count)
        if self.family == "seed":
            return scaled(jax.vmap(lambda k: family.seed_instance(k, self.demands, self.plants))(keys))

        def one(key: chex.PRNGKey) -> Transport:
            site_key, drift_key, time_key = jax.random.split(key, 3)
            drift = jax.random.normal(drift_key, (self.demands + 2 * self.plants,))
            period = jax.random.randint(time_key, (), 0, family.PERIODS).astype(jnp.float32)
            return family.instance(family.sample_site(site_key, self.demands, self.plants), drift, period)

        return scaled(jax.vmap(one)(keys))

    def paths(self, key: chex.PRNGKey, sites: int, periods: int) -> Transport:
        """Consecutive periods of new sites, scaled: leading axes ``[sites, periods]``; of ``seed``, new instances."""
        if self.family == "seed":
            flat = self.instances(key, sites * periods)
            return jax.tree.map(lambda a: a.reshape(sites, periods, *a.shape[1:]), flat)
        return scaled(family.dispatch_paths(key, sites, self.demands, self.plants, periods))


def _train(
    loss: Callable[[Params, chex.PRNGKey], chex.Array],
    params: Params,
    key: chex.PRNGKey,
    iterations: int,
    rate: float,
) -> tuple[Params, chex.Array]:
    """Adam with a cosine to a hundredth; returns parameters and the losses of all iterations."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.1 * rate, rate, max(iterations // 20, 1), max(iterations, 2), 0.01 * rate
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def step(carry: tuple[Params, Any], key: chex.PRNGKey) -> tuple[tuple[Params, Any], chex.Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    keys = jax.random.split(key, iterations)
    (params, _), values = jax.lax.scan(step, (params, optimiser.init(params)), keys)
    return params, values


def init_prices(network: PriceNetwork, key: chex.PRNGKey, source: Source) -> Params:
    """Random parameters: the network's, and the temperature at which its prices become an allocation."""
    example = source.instances(jax.random.key(0), 1)
    return {"network": network.init(key, example), "direct": unrolled.init(DIRECT, key)}


def direct_gap(network: PriceNetwork, params: Params, problem: Transport) -> chex.Array:
    """Certified gap of the predicted prices alone, ``f32[...]``, of scaled instances."""
    return unrolled.loss(DIRECT, params["direct"], problem, network.apply(params["network"], problem))


def train_prices(
    network: PriceNetwork, source: Source, key: chex.PRNGKey, iterations: int, batch: int, rate: float = 3e-3
) -> tuple[Params, chex.Array]:
    """A price network by the certified gap of what it predicts; returns parameters and losses."""
    init_key, key = jax.random.split(key)

    def loss(params: Params, key: chex.PRNGKey) -> chex.Array:
        return jnp.mean(direct_gap(network, params, source.instances(key, batch)))

    return _train(loss, init_prices(network, init_key, source), key, iterations, rate)


def train_regression(
    network: PriceNetwork, source: Source, key: chex.PRNGKey, iterations: int, batch: int, rate: float = 3e-3
) -> tuple[Params, chex.Array]:
    """The rival without a certificate in training: regression to optimal prices, labelled by the interior point."""
    init_key, label_key, key = jax.random.split(key, 3)
    pool = source.instances(label_key, 16 * batch)
    optimal = interior_point.solve(*pool, tolerance=1e-4).prices

    def loss(params: Params, key: chex.PRNGKey) -> chex.Array:
        at = jax.random.randint(key, (batch,), 0, optimal.shape[0])
        some = jax.tree.map(lambda a: a[at], pool)
        error = network.apply(params["network"], some) - optimal[at]
        return jnp.mean(jnp.sum(some.supply * jnp.abs(error), axis=-1))

    return _train(loss, init_prices(network, init_key, source), key, iterations, rate)


def train_solver(
    solver: Solver,
    pool: Transport,
    first: chex.Array,
    key: chex.PRNGKey,
    iterations: int,
    batch: int,
    rate: float = 1e-2,
) -> tuple[Params, chex.Array]:
    """A solver by the certified gap after its steps.

    Args:
      solver: the rule and its steps.
      pool: scaled instances to draw from, a leading axis ``[P]``; a few already give a fair schedule of step sizes.
      first: ``f32[P, m]`` prices to begin with; no gradient goes there.
      key: of all randomness.
      iterations: of Adam.
      batch: instances an iteration.
      rate: largest learning rate.
    """
    init_key, key = jax.random.split(key)

    def loss(weights: Params, key: chex.PRNGKey) -> chex.Array:
        at = jax.random.randint(key, (batch,), 0, first.shape[0])
        problem, prices = jax.tree.map(lambda a: a[at], (pool, first))
        return jnp.mean(unrolled.loss(solver, weights, problem, prices))

    return _train(loss, unrolled.init(solver, init_key), key, iterations, rate)


# ---- adapting a network to a site ------------------------------------------------------------------------------------


def adapt(
    network: PriceNetwork,
    rule: update_rules.UpdateRule,
    meta: Params,
    support: Transport,
    weight: chex.Array,
    steps: int,
    *,
    second_order: bool = True,
) -> Params:
    """Parameters for one site from its past periods, which need no labels.

    Args:
      network: the price network.
      rule: of the inner steps.
      meta: ``{"params", "psi"}``: shared parameters, and what is learned of the rule.
      support: past periods, scaled, a leading axis ``[K]``.
      weight: ``f32[K]`` 1 for a period that is known; without any the parameters stay as they are.
      steps: inner steps.
      second_order: whether the gradient of the steps' gradients is taken too.
    """

    def loss(params: Params) -> chex.Array:
        gaps = direct_gap(network, params, support)
        return jnp.sum(weight * gaps) / jnp.maximum(jnp.sum(weight), 1.0)

    return update_rules.descend(rule, meta["psi"], loss, meta["params"], steps, second_order=second_order)


def meta_train(
    network: PriceNetwork,
    rule: update_rules.UpdateRule,
    params: Params,
    source: Source,
    key: chex.PRNGKey,
    *,
    iterations: int,
    sites: int,
    support: int,
    query: int,
    steps: int,
    rate: float = 1e-3,
) -> tuple[Params, chex.Array]:
    """Meta-learns parameters and inner rule: adapt trained ``params`` to K <= ``support`` periods, be judged later.

    Returns:
      ``{"params", "psi"}`` and losses.
    """
    rule_key, key = jax.random.split(key)
    meta = {"params": params, "psi": rule.learnable(rule_key, params, steps)}

    def loss(meta: Params, key: chex.PRNGKey) -> chex.Array:
        path_key, known_key = jax.random.split(key)
        paths = source.paths(path_key, sites, support + query)
        known = jax.random.randint(known_key, (sites,), 0, support + 1)

        def of(path: Transport, known: chex.Array) -> chex.Array:
            past = jax.tree.map(lambda a: a[:support], path)
            later = jax.tree.map(lambda a: a[support:], path)
            # The last K of the past are known.
            weight = (jnp.arange(support) >= support - known).astype(jnp.float32)
            own = adapt(network, rule, meta, past, weight, steps)
            return jnp.mean(direct_gap(network, own, later))

        return jnp.mean(jax.vmap(of)(paths, known))

    return _train(loss, meta, key, iterations, rate)
