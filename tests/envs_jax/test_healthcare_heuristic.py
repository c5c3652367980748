"""Healthcare: the heuristic learns within the episode what placements cost, and that pays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from benchmarks.studies import tune_heuristics
from envs_jax import scoring
from envs_jax.domains import healthcare
from envs_jax.domains.healthcare import Healthcare
from envs_jax.heuristics.healthcare import chance_of_gain, value_now
from envs_jax.references import bed_pools
from metarl_jax import statistics

ENV = Healthcare()
W = ENV.num_wards


class Stateless(Healthcare):
    """The best index rule found that remembers nothing: one overflow cost and one load for all tasks."""

    def heuristic_step(self, memory, observation, key):
        column, w, (patience, reserve) = observation.column, self.num_wards, (4.0, 0.15)
        beds = self.max_beds * column("private_a")
        waiting = healthcare.PATIENTS * column("waiting")[:w]
        own = beds * column("is_turn")
        room = jnp.sum(own * column("slack")) - reserve * jnp.sum(own)
        worth = patience * healthcare.HOLDING_SCALE * column("unit_value")[:w] / beds[:w]
        legal = observation.action_mask
        return bed_pools.index_choice(worth, waiting, jnp.ones(w), legal, room, self.sender, self.size), memory


def drawn(tasks, episodes):
    """Tasks and episodes of this file, of keys that the tuning does not draw."""
    task_key, episode_key = jax.random.split(jax.random.key(78))
    params = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(task_key, tasks))
    return params, jax.random.split(episode_key, (tasks, episodes))


@jax.jit
def play(params, key):
    """Memories, observations, states and actions of one episode under the heuristic."""

    def body(carry, time):
        seen, state, memory = carry
        action, memory = ENV.heuristic_step(memory, seen, key)
        following, state_, *_ = ENV.step_env(key, state, action, params)
        return (following, state_, memory), (memory, seen, state, action)

    start = (*ENV.reset_env(key, params), ENV.heuristic_start())
    _, trace = jax.lax.scan(body, start, jnp.arange(ENV.horizon))
    return trace


def test_costs_are_known_of_the_pairs_that_were_used_and_of_no_others():
    params, keys = drawn(3, 1)
    for i in range(3):
        task = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        memory, _, state, action = jax.device_get(play(task, keys[i, 0]))
        first = np.arange(ENV.horizon) % W == 0
        used = np.cumsum(np.where(first[:, None, None], state.moved_before, 0), axis=0) > 0
        np.testing.assert_array_equal(memory.known, used)
        assert used[-1].any()
        assert not used[-1].all()
        charged = np.broadcast_to(np.asarray(task.overflow_cost), used.shape)
        np.testing.assert_allclose(memory.overflow[used], charged[used], rtol=1e-5)
        assert (memory.overflow[~used] == 0.0).all()
        # A pair is tried with one patient.
        turn, sender, size = np.arange(ENV.horizon) % W, ENV.sender[action], ENV.size[action]
        before = np.concatenate([np.zeros((1, W, W), bool), memory.known[:-1]])
        before[first] = memory.known[first]
        assert (size[~before[np.arange(ENV.horizon), sender, turn]] <= 1).all()


@pytest.mark.parametrize("num_days", [4, 6])
def test_values_are_those_of_the_average_hospital(num_days):
    env = Healthcare(num_days=num_days)
    beds = jnp.array([8, 12, 15, 20], jnp.int32)
    rate = 1.0 / (0.5 * sum(healthcare.STAY_RANGE))
    task = env.instance(beds=beds, discharge_rate=rate, arrival_rate=0.5 * sum(healthcare.LOAD_RANGE) * beds * rate)
    exact = jax.jit(env.solve)(task)
    for period in (0, 3, env.num_periods - 32, env.num_periods - 9, env.num_periods - 1):
        ahead = env.num_periods - period
        # Beyond four days the values are those of the same hour that far from the end.
        same = period if ahead <= 32 else env.num_periods - 32 + period % 8
        found = value_now(env._usual_values, jnp.int32(period), env.num_periods, 8, beds)
        # What one patient more costs: levels are sums of up to some thousand in float32.
        np.testing.assert_allclose(np.diff(found), np.diff(exact[same]), rtol=1e-4, atol=5e-4)


def test_the_chance_of_gain_is_an_expectation_over_the_range_of_costs():
    low, high = healthcare.OVERFLOW_RANGE
    for saved in (-5.0, 1.0, 2.0, 9.0, 39.0, 55.0):
        exact, _ = integrate.quad(
            lambda b, saved=saved: max(saved - b, 0.0) / b / np.log(high / low),
            low,
            high,
            points=[np.clip(saved, low, high)],
        )
        found = float(chance_of_gain(jnp.float32(saved), healthcare.OVERFLOW_RANGE))
        assert found == pytest.approx(exact, rel=1e-4, abs=1e-5)


def test_an_episode_does_not_know_of_the_others():
    params, keys = drawn(4, 2)
    found = scoring.returns(ENV, "heuristic", params, keys)
    turned = jax.tree.map(lambda leaf: leaf[::-1], params)
    np.testing.assert_allclose(
        scoring.returns(ENV, "heuristic", turned, keys[::-1, ::-1])[::-1, ::-1], found, rtol=1e-5
    )


@pytest.mark.slow
def test_what_it_learns_is_worth_more_than_a_third_of_what_the_reference_knows():
    params, keys = drawn(96, 2)
    baselines = scoring.reference_returns(ENV, params, keys)
    other = scoring.returns(Stateless(), "heuristic", params, keys).mean(-1)
    score = functools.partial(statistics.hierarchical_bootstrap, floor=baselines.floor, reference=baselines.reference)
    gain = score(baselines.heuristic[None], baseline=other[None])
    print(score(baselines.heuristic[None]), score(other[None]), gain)
    assert gain.low > 1 / 3


def test_other_constants_than_its_own_can_be_tried():
    params, keys = drawn(4, 2)
    rules = [ENV.rule, ENV.rule._replace(assumed=1.0)]
    found = tune_heuristics.returns(ENV, tune_heuristics.stacked(rules), params, keys)
    np.testing.assert_allclose(found[0], scoring.returns(ENV, "heuristic", params, keys).mean(-1), rtol=1e-4)
    assert (found[1] != found[0]).any()
