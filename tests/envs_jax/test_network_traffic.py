"""Network traffic: queueing theory, exact dynamic programmes, invariants, and agreement with two NumPy models."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.numpy_models.network_traffic import BatchModel, LoopModel
from envs_jax import policies, sampling
from envs_jax.domains.network_traffic import CLASS_WEIGHTS, NetworkTraffic
from envs_jax.heuristics import least_squares
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import max_weight
from envs_jax.testing import Recording, Tolerances, check_numpy_model
from tests.envs_jax.network_programs import BLIND, INDEX, LONGEST, SCATTERED, mean_and_error, simulate, stack

ENV = NetworkTraffic()
K, R, P = ENV.num_flows, ENV.num_turns, ENV.num_periods
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)
RANDOM, OWN, FIRST, LAST = range(4)  # rules that `play` follows

reset = jax.jit(ENV.reset_env)
sample = jax.jit(ENV.sample_params)
reference = jax.jit(lambda params, state: ENV.reference_action(ENV.solve(params), state, params, jax.random.key(0)))


@functools.partial(jax.jit, static_argnums=0)
def play(env, params, key, rule):
    """One episode: random legal choices, the transmitter's own, or always the first or last legal activation."""

    def body(carry, time):
        seen, state = carry
        legal = seen.action_mask[:-1]
        none = ~legal.any()
        action = jnp.stack(
            [
                policies.random_actions(seen, jax.random.fold_in(key, time + 10_000)),
                env.noop_action,
                jnp.where(none, env.noop_action, jnp.argmax(legal)),
                jnp.where(none, env.noop_action, env.noop_action - 1 - jnp.argmax(legal[::-1])),
            ]
        )[rule].astype(jnp.int32)
        uniforms = sampling.uniforms(key, time // env.num_turns, env.num_uniforms)
        after, following, reward, terminated, info = env.step_env(key, state, action, params)
        return (after, following), (seen, state, action, uniforms, reward, terminated, info)

    last, trace = jax.lax.scan(body, env.reset_env(key, params), jnp.arange(env.horizon))
    return sampling.uniforms(key, sampling.RESET_INDEX, env.num_reset_uniforms), trace, last


# ---- the environment against its NumPy models -----------------------------------------------------------------------


def models_agree(env, params, key, rule, activations=None):
    start, trace, (last, _) = jax.device_get(play(env, params, key, rule))
    seen, _, actions, uniforms, rewards, terminated, info = trace
    check_numpy_model(
        env,
        functools.partial(LoopModel, activations=activations),
        functools.partial(BatchModel, activations=activations),
        [Recording.of(params, start, seen, actions, uniforms, rewards, info, last)],
        Tolerances(tokens=(1e-5, 1e-6), reward=(1e-5, 1e-6)),
    )
    assert not terminated.any()
    return trace


@pytest.mark.parametrize("rule", [RANDOM, OWN, FIRST, LAST])
def test_agrees_with_the_independent_models_on_the_faithful_instance(rule):
    models_agree(ENV, ENV.default_params, jax.random.key(5), rule)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_independent_models_on_sampled_tasks(seed):
    # Every other one with buffers so small that packets are lost at any load.
    params = sample(jax.random.key(seed))
    params = params.replace(buffer=jnp.int32(50 if seed % 2 else 2))
    *_, info = models_agree(ENV, params, jax.random.key(100 + seed), RANDOM)
    assert (info["dropped"].sum() > 0) == (seed % 2 == 0)


def test_agrees_with_the_independent_models_as_a_crossbar_switch():
    activations = max_weight.crossbar(3)
    env = NetworkTraffic(9, 2, 16, activations)
    params = env.instance(0.9 * 2 / 3, success_rate=0.8, connectivity=0.9, class_weight=CLASS_WEIGHTS)
    for rule in (RANDOM, OWN):
        models_agree(env, params, jax.random.key(rule), rule, activations)


def test_is_the_published_switch():
    # Park's SwitchEnv (equations read in its code): a matching serves, what is left is paid for, packets arrive.
    env = NetworkTraffic(9, 1, 40, max_weight.crossbar(3))
    rates = np.random.default_rng(0).dirichlet(np.ones(3), 3)
    params = env.instance(0.9 * rates.ravel(), buffer=10_000)
    _, trace, _ = jax.device_get(play(env, params, jax.random.key(0), RANDOM))
    seen, states, actions, uniforms, rewards, *_ = trace
    queue = states.queue[0].reshape(3, 3).copy()
    matchings = list(itertools.permutations(range(3)))
    for t in range(env.horizon):
        np.testing.assert_array_equal(queue.ravel(), states.queue[t])
        if actions[t] < 6:
            for i, j in enumerate(matchings[actions[t]]):
                queue[i, j] = max(queue[i, j] - 1, 0)
        else:  # the switch's own rule
            best = max(matchings, key=lambda m: sum(queue[i, j] for i, j in enumerate(m)))
            for i, j in enumerate(best):
                queue[i, j] = max(queue[i, j] - 1, 0)
        np.testing.assert_allclose(rewards[t] * 9, -queue.sum(), rtol=1e-5)
        queue += uniforms[t, 9:18].reshape(3, 3) > 1 - np.float32(0.9) * rates
    # One action for each matching, told apart by what it serves.
    assert seen.actions.shape[1] == 7


# ---- published figures and queueing theory --------------------------------------------------------------------------


def test_geo_geo_1_queue():
    env = NetworkTraffic(1, 1, 3000)
    chains, rates = 1024, ((0.2, 1 / 3), (0.4, 2.0))
    tasks = stack([env.instance(rate, 0.5, buffer=10_000) for rate, _ in rates], chains)
    keys = jax.random.split(jax.random.key(0), 2 * chains)
    held = simulate(env, tasks, jnp.full(len(keys), LONGEST), jnp.ones((len(keys), 1)), keys)
    for (rate, theory), part in zip(rates, np.split(np.asarray(held)[:, 500:], 2), strict=True):
        assert theory == pytest.approx(rate * (1 - 0.5) / (0.5 - rate))
        mean, error = mean_and_error(part)
        assert error < 0.01 * theory
        assert abs(mean - theory) < 4 * error


def test_the_flow_that_always_comes_first_is_a_geo_geo_1_queue_whatever_the_others_do():
    env, chains, rate = NetworkTraffic(2, 1, 3000), 1024, 0.3
    task = env.instance(jnp.array([rate, 0.3]), 0.6, class_weight=jnp.array([1.0, 0.0, 0.0, 0.0]), buffer=10_000)
    index = jnp.tile(jnp.array([2.0, 1.0]), (chains, 1))
    keys = jax.random.split(jax.random.key(3), chains)
    held = np.asarray(simulate(env, stack([task], chains), jnp.full(chains, INDEX), index, keys))[:, 500:]
    mean, error = mean_and_error(held)  # of the first flow alone: the second weighs nothing
    theory = rate * (1 - 0.6) / (0.6 - rate)
    print(mean, error, theory)
    assert error < 0.01 * theory
    assert abs(mean - theory) < 4 * error


def test_flows_whose_links_cannot_carry_them_grow_at_the_excess_though_the_whole_is_not_overloaded():
    """Capacity is a condition for every set of flows: two of p = .3 and load .6 > 1 - .7^2, beside one of p = 1."""
    env, chains = NetworkTraffic(3, 1, 8000), 64
    weights = jnp.array([1.0, 1.0, 0.0, 0.0])  # the third flow weighs nothing
    task = env.instance(
        jnp.array([0.3, 0.3, 0.2]), connectivity=jnp.array([0.3, 0.3, 1.0]), class_weight=weights, buffer=100_000
    ).replace(service_class=jnp.array([0, 1, 2], jnp.int32))
    keys = jax.random.split(jax.random.key(4), chains)
    held = np.asarray(simulate(env, stack([task], chains), jnp.full(chains, LONGEST), jnp.ones((chains, 3)), keys))
    mean, error = mean_and_error((held[:, -1] - held[:, 3999]) / 4000)
    print(mean, error)
    assert abs(mean - (0.6 - (1 - 0.7**2))) < 4 * error
    assert mean > 20 * error


FOUR = NetworkTraffic(4, 1, 12_000)


@functools.cache
def four_flows():
    """Held packets ``[rule, load, chains, T]`` of four equal flows, p = 1/2, mu = 1, loads .8, .9, .95."""
    chains, loads = 64, (0.8, 0.9, 0.95)
    tasks = [FOUR.instance(load / 4, connectivity=0.5, buffer=100_000) for load in loads]
    tasks = stack(tasks * 2, chains)
    rules = jnp.repeat(jnp.array([LONGEST, SCATTERED]), 3 * chains)
    keys = jnp.tile(jax.random.split(jax.random.key(1), chains), 6)
    held = simulate(FOUR, tasks, rules, jnp.ones((len(keys), 4)), keys)
    return np.asarray(held).reshape(2, 3, chains, -1)


def test_longest_connected_queue_below_capacity():
    # The specification's figures, of a prototype: 4.31, 13.3 (longest connected), 5.91, 24.9 (a random connected flow).
    held = four_flows()[:, :2, :, 3000:]
    for ours, prototype in zip(held.reshape(4, *held.shape[2:]), (4.31, 13.3, 5.91, 24.9), strict=True):
        mean, error = mean_and_error(ours)
        print(mean, error, prototype)
        assert abs(mean - prototype) < 4 * error + 0.05 * prototype


def test_beyond_the_capacity_of_the_links_queues_grow_at_the_excess():
    # Capacity: some link must be up, 1 - (1 - p)^K = .9375. Load .95 exceeds it.
    held = four_flows()[:, 2]
    growth = (held[..., -1] - held[..., 5999]) / 6000
    for rule in growth:
        mean, error = mean_and_error(rule)
        assert abs(mean - (0.95 - 0.9375)) < 4 * error
        assert mean > 4 * error


@pytest.mark.slow
def test_beyond_capacity_the_backlog_is_in_the_thousands_after_400_000_slots():
    # The specification's mean backlogs, one run of a prototype each: 2685 (longest connected), 2866 (a random connected
    # flow). The queues never being empty, the total is a random walk whose drift .0125 a slot makes 2500 of it.
    env, chains = NetworkTraffic(4, 1, 400_000), 8
    tasks = stack([env.instance(0.95 / 4, connectivity=0.5, buffer=1_000_000)], 2 * chains)
    rules = jnp.repeat(jnp.array([LONGEST, SCATTERED]), chains)
    keys = jax.random.split(jax.random.key(4), 2 * chains)
    held = np.asarray(simulate(env, tasks, rules, jnp.ones((2 * chains, 4)), keys))
    for part, prototype in zip(np.split(held, 2), (2685, 2866), strict=True):
        mean, error = mean_and_error(part)
        print(mean, error, prototype)
        assert (part[:, -1] > 1000).all()
        assert abs(mean - 0.0125 * 200_000) < 4 * error + 50  # 50: what the links' idle slots at the start add
        # One run scatters by the spread of a chain, not by the error of their mean.
        assert abs(prototype - mean) < 3 * error * np.sqrt(chains)


def test_workload_does_not_depend_on_the_policy_when_links_are_always_up():
    success = np.array([0.4, 0.6, 0.8, 1.0])
    task = FOUR.instance(0.85 * success / 4, success, class_weight=1 / success, buffer=100_000)
    chains = 128
    rules = jnp.repeat(jnp.array([LONGEST, INDEX, INDEX]), chains)
    index = jnp.repeat(jnp.array([[1.0, 1, 1, 1], success, 1 / success]), chains, axis=0)
    keys = jax.random.split(jax.random.key(2), 3 * chains)
    held = simulate(FOUR, stack([task], 3 * chains), rules, index, keys)
    figures = [mean_and_error(part) for part in np.split(np.asarray(held)[:, 1000:], 3)]
    for (one, error), (other, error_) in itertools.combinations(figures, 2):
        assert abs(one - other) < 4 * np.hypot(error, error_)
        assert error < 0.03 * one


def sinkhorn(rng, ports):
    matrix = rng.uniform(size=(ports, ports))
    for _ in range(200):
        matrix /= matrix.sum(1, keepdims=True)
        matrix /= matrix.sum(0)
    return matrix


@pytest.mark.parametrize(("ports", "random", "max_weight_cost"), [(3, (401, 54), None), (4, (623, 37), (17.99, 0.94))])
def test_switch_figures_measured_on_park(ports, random, max_weight_cost):
    # Cost a slot over 2000 slots at load .9, measured on Park's own code: mean and spread of eight seeds.
    env = NetworkTraffic(ports**2, 1, 2000, max_weight.crossbar(ports))
    rng, chains = np.random.default_rng(3), 24
    tasks = [env.instance(0.9 * sinkhorn(rng, ports).ravel(), buffer=100_000) for _ in range(chains)]
    keys = jnp.tile(jax.random.split(jax.random.key(3), chains), 2)
    rules = jnp.repeat(jnp.array([BLIND, LONGEST]), chains)
    held = simulate(env, stack(tasks * 2, 1), rules, jnp.ones((2 * chains, ports**2)), keys)
    for part, published in zip(np.split(np.asarray(held), 2), (random, max_weight_cost), strict=True):
        if published:
            mean, error = mean_and_error(part)
            print(ports, mean, error, published)
            assert abs(mean - published[0]) < 4 * error + published[1]


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(seed=SEEDS, rule=st.sampled_from([RANDOM, OWN, FIRST, LAST]), buffer=st.sampled_from([3, 50]))
def test_episode_invariants(seed, rule, buffer):
    params = sample(jax.random.key(seed)).replace(buffer=jnp.int32(buffer), start=jnp.int32(3))
    _, trace, (_, end) = jax.device_get(play(ENV, params, jax.random.key(seed + 1), rule))
    seen, states, _, _, rewards, _, info = trace
    queue = np.concatenate([states.queue, end.queue[None]])
    assert queue.min() >= 0
    assert queue.max() <= buffer
    # Packets are conserved, flow by flow over the episode and in sum frame by frame.
    last = np.arange(ENV.horizon) % R == R - 1
    arrived, acked, dropped = (info[name][last] for name in ("arrived", "acked", "dropped"))
    np.testing.assert_array_equal(np.diff(queue[::R].sum(1)), arrived - acked - dropped)
    lost = end.arrivals - end.successes - (end.queue - queue[0])
    assert (lost >= 0).all()
    assert lost.sum() == dropped.sum()
    assert (lost.sum() == 0) or buffer == 3
    # Grants: at most one a slot, none over a link that is down or for a packet that is not there.
    granted = np.concatenate([states.granted, end.granted[None]])
    step = np.diff(granted, axis=0)[~last]
    assert step.min() >= 0
    assert step.sum(1).max() <= 1
    assert (granted[:-1] <= states.queue).all()
    assert (granted[:-1] * ~states.connected == 0).all()
    assert (end.successes <= end.attempts).all()
    # Never idle while a flow is ready, whatever is chosen.
    ready = states.connected & (states.queue > states.granted)
    np.testing.assert_array_equal(step.sum(1), ready[~last].any(1))
    np.testing.assert_array_equal(seen.action_mask[:, :K], ready)
    # The view: who may be sent, whose link is up, and an own rule that is a no-op only where it has nothing to send.
    np.testing.assert_array_equal(seen.column("is_candidate")[:, :K], ready)
    np.testing.assert_array_equal(seen.column("private_f")[:, :K] > 0, states.connected)
    idle, own = ~ready.any(1), ENV.noop_action
    np.testing.assert_array_equal(seen.action_column("is_noop"), idle[:, None] & (np.arange(K + 1) == own))
    np.testing.assert_array_equal(seen.action_column("signed")[:, own], ~idle)
    np.testing.assert_array_equal(seen.action_target[:, own] < 0, idle)
    # Rewards are what is held and lost.
    np.testing.assert_array_equal(rewards[~last], 0.0)
    assert rewards.max() <= 0
    weight = np.asarray(params.contract) * np.asarray(params.class_weight)[np.asarray(params.service_class)]
    left = np.diff(end.successes - states.successes[::R], axis=0)  # minus what each frame acknowledged
    left = states.queue[::R][:-1] + left
    np.testing.assert_allclose(info["holding_cost"][last][:-1], left @ weight, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(-rewards[last] * K, (info["holding_cost"] + info["loss_cost"])[last], rtol=1e-5)


def world(seed):
    """A task, a state in mid-frame, the frame's uniforms, and what a heuristic that has seen as much remembers."""
    params, rng = sample(jax.random.key(seed)), np.random.default_rng(seed)
    _, state = reset(jax.random.key(seed + 1), params)
    # Queues and indices without ties: which of two equals is served depends on their order.
    state = state.replace(
        queue=jnp.asarray(rng.permutation(12)[:K] + 3, jnp.int32),
        granted=jnp.asarray(rng.integers(0, 2, K), jnp.int32),
        connected=jnp.asarray(rng.random(K) < 0.7).at[0].set(True),
        attempts=jnp.asarray(rng.integers(5, 9, K), jnp.int32),
        successes=jnp.asarray(rng.integers(0, 5, K), jnp.int32),
    )
    counts = {"attempts": state.attempts.astype(jnp.float32), "acked": state.successes.astype(jnp.float32)}
    memory = ENV.heuristic_start()._replace(orders=jnp.asarray(rng.normal(size=24), jnp.float32), **counts)
    return params, state, jnp.asarray(rng.uniform(0.001, 0.999, ENV.num_uniforms), jnp.float32), memory


@jax.jit
def slot_and_frame(params, state, action, uniforms, memory):
    """What is seen, what the reference and the heuristic do, and the frame after ``action``."""
    seen = ENV.observation(state, params)
    chosen = ENV.reference_action(ENV.solve(params), state, params, jax.random.key(0))
    guessed, _ = ENV.heuristic_step(memory, seen, jax.random.key(0))
    own = ENV.choose(state, 0, ENV.noop_action, params).granted
    following, reward, _ = ENV.advance(ENV.choose(state, 0, action, params), uniforms, params)
    return seen, chosen, guessed, own, following, reward


@hypothesis.given(seed=SEEDS)
def test_permuting_flows_permutes_everything(seed):
    params, state, uniforms, memory = world(seed)
    order = np.random.default_rng(seed).permutation(K)
    where = np.append(np.argsort(order), K)  # new number of each old flow; the no-op stays
    move = lambda tree, names: tree.replace(**{n: getattr(tree, n)[order] for n in names})  # noqa: E731
    per_flow = [n for n, x in vars(state).items() if getattr(x, "shape", ()) == (K,)]
    state_ = move(state, per_flow)
    per_flow_task = ("service_class", "contract", "success_rate", "connectivity", "arrival_rate")
    params_ = move(params, (*per_flow_task, "success_cdf", "arrival_cdf"))
    uniforms_ = uniforms.reshape(4, K)[:, order].ravel()
    action = seed % K
    seen, chosen, guessed, own, following, reward = slot_and_frame(params, state, action, uniforms, memory)
    memory_ = memory._replace(
        backlog=memory.backlog[order],
        attempts=memory.attempts[order],
        acked=memory.acked[order],
        weights=least_squares.Belief(memory.weights.mean[:, order], memory.weights.covariance[:, order][:, :, order]),
    )
    there = slot_and_frame(params_, state_, where[action], uniforms_, memory_)
    seen_, chosen_, guessed_, own_, following_, reward_ = there
    rows = np.append(order, K)
    np.testing.assert_allclose(seen.tokens[rows], seen_.tokens, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(seen.action_mask[rows], seen_.action_mask)
    np.testing.assert_array_equal(seen.actions[rows], seen_.actions)
    np.testing.assert_array_equal(where[np.asarray(seen.action_target)[rows]], seen_.action_target)
    np.testing.assert_array_equal(own[order], own_)
    assert (where[chosen], where[guessed]) == (chosen_, guessed_)
    np.testing.assert_allclose(reward, reward_, rtol=1e-6)
    for name in per_flow:
        np.testing.assert_array_equal(getattr(following, name)[order], getattr(following_, name), err_msg=name)


# ---- tasks ----------------------------------------------------------------------------------------------------------


def test_tasks_have_the_stated_law():
    tasks = jax.device_get(jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 2000)))
    np.testing.assert_allclose(np.sort(tasks.class_weight, axis=1), np.tile(CLASS_WEIGHTS, (2000, 1)), rtol=1e-6)
    np.testing.assert_allclose(tasks.class_weight.mean(0), 1.0, atol=0.06)
    assert (np.sort(tasks.service_class, axis=1) == np.repeat(np.arange(4), 2)).all()
    np.testing.assert_allclose(np.log(tasks.contract).mean(0), 0.0, atol=0.06)
    ranges = (("success_rate", 0.3, 1.0), ("connectivity", 0.4, 1.0), ("contract", 1 / 3, 3.0))
    for field, low, high in ranges:
        values = getattr(tasks, field)
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
    assert abs((tasks.on_fraction == 1).mean() - 0.5) < 0.05
    load = (tasks.arrival_rate / tasks.success_rate).sum(1) / R
    assert load.max() <= 0.95 + 1e-6
    # Only loads whose sources would have to send in more than 95 % of their on slots are cut.
    assert load[tasks.on_fraction == 1].min() >= 0.5 - 1e-6
    assert (tasks.arrival_rate <= 0.95 * R * tasks.on_fraction[:, None] + 1e-6).all()
    # The tables' means are the rates.
    mean = tasks.on_fraction * (1 - tasks.arrival_cdf[..., :-1]).sum(-1).T
    np.testing.assert_allclose(mean.T, tasks.arrival_rate, rtol=1e-4, atol=1e-5)  # sums of float32 tables
    acked = (1 - tasks.success_cdf[..., :-1]).sum(-1)
    np.testing.assert_allclose(acked, np.arange(R + 1) * tasks.success_rate[..., None], rtol=1e-4, atol=1e-5)


def test_bursts_have_the_stated_length_and_share():
    env = NetworkTraffic(8, 4, 4000)
    params = env.instance(0.5, on_fraction=0.3, on_length=2.5, buffer=10_000)

    @jax.jit
    def sources(key):
        def body(state, time):
            state, *_ = env.advance(state, sampling.uniforms(key, time, env.num_uniforms), params)
            return state, (state.source_on, state.arrivals)

        return jax.lax.scan(body, env.reset_env(key, params)[1], jnp.arange(env.num_periods))[1]

    on, arrivals = map(np.asarray, sources(jax.random.key(0)))
    starts = (on[1:] & ~on[:-1]).sum()
    assert abs(on.mean() - 0.3) < 0.02
    assert abs(on.sum() / starts - 2.5) < 0.15
    assert abs(arrivals[-1].mean() / env.num_periods - 0.5) < 0.03


@pytest.mark.parametrize("field", ["class_weight", "contract", "success_rate", "connectivity"])
def test_equal_shown_and_different_hidden_parts_ask_for_different_choices(field):
    different = 0
    for seed in range(12):
        (params, state, *_), (other, *_) = world(seed), world(seed + 100)
        state = state.replace(connected=jnp.ones((K,), bool))
        hidden = params.replace(**{field: getattr(other, field)})
        different += int(reference(params, state)) != int(reference(hidden, state))
    assert different >= 3


@pytest.mark.parametrize("seed", range(3))
def test_one_episode_of_random_choices_tells_what_the_flows_are_worth(seed):
    params = sample(jax.random.key(seed))
    _, trace, (after, _) = jax.device_get(play(ENV, params, jax.random.key(seed), RANDOM))
    # The observations at the start of each frame after the first one, all columns as an agent sees them.
    tokens = np.concatenate([trace[0].tokens[R::R], after.tokens[None]])
    flows = tokens[:, :K]
    level, change, sent = (flows[..., COLUMN[name]] for name in ("level", "private_b", "outflow"))
    left = 50 * level - R * change - R * sent
    weights, *_ = np.linalg.lstsq(left, -K * tokens[:, 0, COLUMN["last_reward"]])
    told = left.max(0) > 0.5  # of a flow that never kept a packet waiting no cost says anything
    assert told.sum() >= 6
    worth = params.contract * params.class_weight[params.service_class]
    np.testing.assert_allclose(weights[told], worth[told], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_flows": 0}, "num_flows must be a whole number from 1 to 31, got 0"),
        ({"slots_per_frame": 17}, "slots_per_frame must be a whole number from 1 to 16, got 17"),
        ({"num_periods": 2.5}, "num_periods must be a whole number from 1 to 10000000, got 2.5"),
        ({"activations": ()}, "activations must be 1 to 31 sets of flows, got 0 sets"),
        ({"activations": ((0, 8),)}, r"activations\[0\]\[1\] must be a whole number from 0 to 7, got 8"),
        ({"activations": ((1, 1),)}, r"activations\[0\] must be distinct flows, got \(1, 1\)"),
    ],
)
def test_bad_sizes_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        NetworkTraffic(**arguments)
