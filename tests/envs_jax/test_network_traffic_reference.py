"""Network traffic: the reference and the classical rules against exact dynamic programmes of two and three flows."""

import itertools

import jax
import numpy as np
import pytest

from envs_jax.domains.network_traffic import CLASS_WEIGHTS, NUM_CLASSES, NetworkTraffic
from tests.envs_jax.network_programs import mean_and_error

ENV = NetworkTraffic()
sample = jax.jit(ENV.sample_params)


class Flows:
    """Exact finite-horizon dynamic programme of K flows with one slot a frame, in float64.

    The state is the queues and which links are up; ``V_t(q, link) = min_a E_service [c q' + E (loss c drop + V)]``.
    """

    def __init__(self, rate, success, connectivity, weight, buffer=10, loss=20.0, periods=40):
        self.rate, self.success, self.p, self.c = (np.asarray(x, float) for x in (rate, success, connectivity, weight))
        self.buffer, self.loss, self.periods, self.flows = buffer, loss, periods, len(self.rate)
        self.q = np.indices((buffer + 1,) * self.flows)
        self.outcomes = list(itertools.product((0, 1), repeat=self.flows))

    def chance(self, happens, probability):
        """Of independent events ``happens``, each with its ``probability``."""
        return np.prod(np.where(happens, probability, 1 - probability))

    def after_service(self, value):
        """Expected cost ``[B + 1, ...]`` from what is left, given the next frame's ``value [2^K, B + 1, ...]``."""
        following = np.tensordot([self.chance(links, self.p) for links in self.outcomes], value, axes=1)
        total = np.tensordot(self.c, self.q, axes=1)
        for arrivals in self.outcomes:
            full = self.q + np.reshape(arrivals, (-1,) + (1,) * self.flows)
            now = np.minimum(full, self.buffer)
            lost = np.tensordot(self.loss * self.c, full - now, axes=1)
            total = total + self.chance(arrivals, self.rate) * (lost + following[tuple(now)])
        return total

    def solve(self, index=None):
        """Cost from empty queues with all links up: optimal, or of the largest ``index`` callable ``(k, q)``."""
        value = np.zeros((2**self.flows, *self.q.shape[1:]))
        for _ in range(self.periods):
            left = self.after_service(value)
            served = np.stack([left + u * (np.roll(left, 1, axis=k) - left) for k, u in enumerate(self.success)])
            value = np.empty_like(value)
            for number, links in enumerate(self.outcomes):
                ready = (self.q > 0) & np.reshape(links, (-1,) + (1,) * self.flows).astype(bool)
                if index is None:
                    value[number] = np.minimum(left, np.where(ready, served, np.inf).min(0))
                else:
                    weight = np.stack([index(k, np.maximum(q, 1)) + 0.0 * q for k, q in enumerate(self.q)])
                    best = np.where(ready, weight, -1.0).argmax(0)[None]
                    value[number] = np.where(ready.any(0), np.take_along_axis(served, best, 0)[0], left)
        return value[(-1, *[0] * self.flows)]


def reference_index(env, params):
    factor, exponent = (np.asarray(x, float) for x in env.solve(params))
    return lambda k, q: factor[k] * q ** exponent[k]


def small_task(env, exact, **fixed):
    weight = [*exact.c, *[1.0] * (NUM_CLASSES - exact.flows)]
    return env.instance(exact.rate, exact.success, exact.p, weight, buffer=exact.buffer, loss=exact.loss, **fixed)


TWO = NetworkTraffic(2, 1, 40)


@pytest.mark.parametrize(("rate", "success", "p"), [(0.3, 0.9, 0.5), (0.2, 0.5, 0.8), (0.4, 1.0, 0.6)])
def test_longest_connected_queue_is_optimal_for_equal_flows(rate, success, p):
    # A loss must cost more than waiting to the end, else it can pay to let a full buffer overflow.
    exact = Flows([rate] * 2, [success] * 2, [p] * 2, [1.0, 1.0], loss=50.0)
    optimum = exact.solve()
    np.testing.assert_allclose(exact.solve(lambda k, q: q), optimum, rtol=1e-9)
    # The reference is that rule here.
    np.testing.assert_allclose(exact.solve(reference_index(TWO, small_task(TWO, exact))), optimum, rtol=1e-9)
    # And not every rule is.
    assert exact.solve(lambda k, q: 1.0 / q) > 1.001 * optimum


@pytest.mark.parametrize("seed", range(4))
def test_c_mu_rule_is_optimal_when_links_are_always_up(seed):
    rng = np.random.default_rng(seed)
    success = rng.uniform(0.3, 1, 2)
    exact = Flows(0.4 * success, success, [1.0, 1.0], rng.permutation([1 / 3, 2.0]), buffer=40)
    optimum = exact.solve()
    np.testing.assert_allclose(exact.solve(reference_index(TWO, small_task(TWO, exact))), optimum, rtol=1e-6)
    assert exact.solve(lambda k, q: -exact.c[k] * success[k] + 10.0) > 1.01 * optimum


def random_pair(rng):
    success, p = rng.uniform(0.3, 1, 2), rng.uniform(0.4, 1, 2)
    rate = 0.9 * rng.uniform(0.5, 0.95) * success * rng.dirichlet([2, 2])
    return Flows(rate, success, p, rng.permutation(CLASS_WEIGHTS)[:2], buffer=25)


def test_reference_is_near_the_optimum_of_small_instances():
    rng = np.random.default_rng(0)
    gaps, longest = [], []
    for _ in range(16):
        exact = random_pair(rng)
        optimum = exact.solve()
        gaps.append(exact.solve(reference_index(TWO, small_task(TWO, exact))) / optimum - 1)
        longest.append(exact.solve(lambda k, q: q) / optimum - 1)
    print("cost over the optimum: reference", np.mean(gaps), max(gaps), "longest queue", np.mean(longest), max(longest))
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.01
    assert max(gaps) < 0.05
    assert np.mean(longest) > 5 * np.mean(gaps)


THREE = NetworkTraffic(3, 1, 40)


@pytest.mark.parametrize(("rate", "success", "p"), [(0.2, 0.9, 0.5), (0.25, 1.0, 0.7)])
def test_longest_connected_queue_is_optimal_for_three_equal_flows(rate, success, p):
    exact = Flows([rate] * 3, [success] * 3, [p] * 3, [1.0] * 3, buffer=8, loss=50.0)
    optimum = exact.solve()
    np.testing.assert_allclose(exact.solve(lambda k, q: q), optimum, rtol=1e-9)
    np.testing.assert_allclose(exact.solve(reference_index(THREE, small_task(THREE, exact))), optimum, rtol=1e-9)
    assert exact.solve(lambda k, q: 1.0 / q) > 1.001 * optimum


def test_c_mu_rule_is_optimal_for_three_flows_when_links_are_always_up():
    success = np.array([0.95, 0.6, 0.8])
    exact = Flows(0.15 * success, success, [1.0] * 3, [1 / 3, 2.0, 1.0], buffer=8)
    optimum = exact.solve()
    # A buffer of 8 is full so seldom that the rule's optimality without bounds shows.
    np.testing.assert_allclose(exact.solve(reference_index(THREE, small_task(THREE, exact))), optimum, rtol=1e-6)
    assert exact.solve(lambda k, q: -exact.c[k] * success[k] + 10.0) > 1.01 * optimum


def test_reference_is_near_the_optimum_of_three_flows():
    rng = np.random.default_rng(1)
    gaps, longest = [], []
    for _ in range(8):
        success, p = rng.uniform(0.3, 1, 3), rng.uniform(0.4, 1, 3)
        rate = 0.9 * rng.uniform(0.5, 0.95) * success * rng.dirichlet([2, 2, 2])
        exact = Flows(rate, success, p, rng.permutation(CLASS_WEIGHTS)[:3], buffer=8)
        optimum = exact.solve()
        gaps.append(exact.solve(reference_index(THREE, small_task(THREE, exact))) / optimum - 1)
        longest.append(exact.solve(lambda k, q: q) / optimum - 1)
    print("cost over the optimum: reference", np.mean(gaps), max(gaps), "longest queue", np.mean(longest), max(longest))
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.015
    assert max(gaps) < 0.05
    assert np.mean(longest) > 5 * np.mean(gaps)


def test_simulated_return_is_the_value_of_the_policy_in_the_exact_programme():
    exact = random_pair(np.random.default_rng(6))
    params = small_task(TWO, exact)
    factor, exponent = TWO.solve(params)
    keys = jax.random.split(jax.random.key(8), 20_000)

    @jax.jit
    @jax.vmap
    def cost(key):
        def body(state, _):
            action = TWO.reference_action((factor, exponent), state, params, key)
            _, state, reward, *_ = TWO.step_env(key, state, action, params)
            return state, -reward * 2

        return jax.lax.scan(body, TWO.reset_env(key, params)[1], None, TWO.horizon)[1].sum()

    mean, error = mean_and_error(cost(keys))
    value = exact.solve(reference_index(TWO, params))
    assert error < 0.01 * value
    assert abs(mean - value) < 4 * error
