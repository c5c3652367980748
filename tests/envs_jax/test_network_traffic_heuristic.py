"""Network traffic: the heuristic learns within the episode what packets are worth, and that pays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.studies import tune_heuristics
from envs_jax import policies, scoring
from envs_jax.domains.network_traffic import ORDERS, NetworkTraffic
from envs_jax.heuristics import least_squares
from envs_jax.heuristics.network_traffic import flow_weights
from envs_jax.references import max_weight
from metarl_jax import statistics

ENV = NetworkTraffic()


class Stateless(NetworkTraffic):
    """The best rule found that remembers nothing: equal weights, what an observation shows of success and links."""

    def heuristic_step(self, memory, observation, key):
        waiting, inflow, success, apart = (
            observation.column(name)[: self.num_flows] for name in ("waiting", "inflow", "private_e", "private_f")
        )
        index = success * waiting**0.4 * jnp.abs(apart) * (inflow + 0.02) ** 0.25
        return max_weight.best(self.menu, index, (apart > 0) & (waiting > 0)), memory


def drawn(tasks, episodes):
    """Tasks and episodes of this file, of keys that the tuning does not draw."""
    task_key, episode_key = jax.random.split(jax.random.key(77))
    params = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(task_key, tasks))
    return params, jax.random.split(episode_key, (tasks, episodes))


@functools.partial(jax.jit, static_argnames="frames")
def remembered(params, key, frames):
    """What the heuristic remembers at the beginning of a frame, choices being random."""

    def body(carry, time):
        seen, state, memory = carry
        _, memory = ENV.heuristic_step(memory, seen, key)
        action = policies.random_actions(seen, jax.random.fold_in(key, time))
        seen, state, *_ = ENV.step_env(key, state, action, params)
        return (seen, state, memory), None

    seen, state = ENV.reset_env(key, params)
    start = (seen, state, ENV.heuristic_start())
    (seen, _, memory), _ = jax.lax.scan(body, start, jnp.arange(frames * ENV.num_turns))
    return ENV.heuristic_step(memory, seen, key)[1]


def true_weights(params):
    return params.contract * jnp.take_along_axis(params.class_weight, params.service_class, -1)


def test_an_episode_tells_what_the_flows_are_worth():
    params, keys = drawn(16, 1)
    memory = jax.vmap(remembered, (0, 0, None))(params, keys[:, 0], 20)
    found = jax.vmap(flow_weights)(memory)
    spread = ENV.rule.spread * true_weights(params).mean()
    assert np.median(np.abs(found - true_weights(params))) < 0.05 * spread
    # Counts are those of the frames that are over.
    assert (memory.attempts.sum(1) > 0).all()
    assert (memory.acked <= memory.attempts).all()


def test_where_contracts_are_equal_a_few_frames_tell_the_order_of_the_class_weights():
    params, keys = drawn(16, 1)
    params = params.replace(contract=jnp.full_like(params.contract, ENV.rule.contract))
    memory = jax.vmap(remembered, (0, 0, None))(params, keys[:, 0], 12)
    right = np.abs(ORDERS - np.asarray(params.class_weight)[:, None]).max(-1) < 1e-5
    assert (np.where(right, jax.nn.softmax(memory.orders), 0.0).sum(1) > 0.5).mean() > 0.5


def test_before_any_cost_the_classes_are_all_alike():
    params, keys = drawn(4, 1)
    memory = jax.vmap(remembered, (0, 0, None))(params, keys[:, 0], 0)
    np.testing.assert_allclose(jax.vmap(flow_weights)(memory), ENV.rule.contract, rtol=1e-5)


def test_weights_that_no_order_explains_are_found_all_the_same():
    weights = jnp.array([0.2, 1.5, 0.6, 3.0])
    task = ENV.instance(0.35, 0.7, 0.7, class_weight=weights, start=4)
    memory = remembered(task, jax.random.key(3), 16)
    np.testing.assert_allclose(flow_weights(memory), jnp.tile(weights, 2), atol=0.15)


def test_least_squares_are_those_of_all_observations_at_once():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    belief = start = least_squares.Belief(jnp.zeros(3), jnp.diag(jnp.array([1.0, 2.0, 0.5])))
    for row, value in zip(x, y, strict=True):
        belief = least_squares.observed(belief, row, value, 0.3, jnp.bool_(True))
        belief = least_squares.observed(belief, row, 100.0, 0.3, jnp.bool_(False))  # not seen: nothing changes
    precision = np.linalg.inv(start.covariance) + x.T @ x / 0.3
    np.testing.assert_allclose(belief.covariance, np.linalg.inv(precision), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(belief.mean, np.linalg.solve(precision, x.T @ y / 0.3), rtol=1e-4, atol=1e-6)


def test_an_episode_does_not_know_of_the_others():
    params, keys = drawn(4, 2)
    found = scoring.returns(ENV, "heuristic", params, keys)
    turned = jax.tree.map(lambda leaf: leaf[::-1], params)
    np.testing.assert_allclose(
        scoring.returns(ENV, "heuristic", turned, keys[::-1, ::-1])[::-1, ::-1], found, rtol=1e-5
    )


@pytest.mark.slow
def test_what_it_learns_is_worth_more_than_half_of_what_the_reference_knows():
    params, keys = drawn(96, 2)
    baselines = scoring.reference_returns(ENV, params, keys)
    other = scoring.returns(Stateless(), "heuristic", params, keys).mean(-1)
    score = functools.partial(statistics.hierarchical_bootstrap, floor=baselines.floor, reference=baselines.reference)
    gain = score(baselines.heuristic[None], baseline=other[None])
    print(score(baselines.heuristic[None]), score(other[None]), gain)
    assert gain.low > 0.5


def test_other_constants_than_its_own_can_be_tried():
    params, keys = drawn(4, 2)
    rules = [ENV.rule, ENV.rule._replace(fading=3.0)]
    found = tune_heuristics.returns(ENV, tune_heuristics.stacked(rules), params, keys)
    np.testing.assert_allclose(found[0], scoring.returns(ENV, "heuristic", params, keys).mean(-1), rtol=1e-5)
    assert (found[1] != found[0]).any()
