"""Healthcare: queueing laws, invariants, agreement with two NumPy models, and exact values of two wards."""

import dataclasses
import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks.numpy_models.healthcare import BatchModel, LoopModel
from benchmarks.studies import ward_gap
from envs_jax import policies, sampling, scoring
from envs_jax import rollout as engine
from envs_jax.domains import healthcare
from envs_jax.domains.healthcare import Healthcare
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import bed_pools
from envs_jax.testing import Recording, check_numpy_model

ENV = Healthcare()
W, E, P = ENV.num_wards, ENV.epochs_per_day, ENV.num_periods
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)

sample = jax.jit(ENV.sample_params)
advance = jax.jit(ENV.advance)
observe = jax.jit(ENV.observation)
solve = jax.jit(ENV.solve)
reference_action = jax.jit(ENV.reference_action)


@jax.jit
def play(params, key, policy_key, greedy):
    """One episode of random legal choices; with ``greedy`` 1 the largest move of the last class, with -1 none."""

    def body(state, time):
        seen = ENV.observation(state, params)
        random = policies.random_actions(seen, jax.random.fold_in(policy_key, time))
        most = ENV.num_actions - 1 - jnp.argmax(seen.action_mask[::-1])
        action = jnp.select([greedy > 0, greedy < 0], [most, 0], random).astype(jnp.int32)
        uniforms = sampling.uniforms(key, time // W, ENV.num_uniforms)
        _, following, reward, terminated, info = ENV.step_env(key, state, action, params)
        return following, (seen, state, action, uniforms, reward, terminated, info)

    _, start = ENV.reset_env(key, params)
    last, trace = jax.lax.scan(body, start, jnp.arange(ENV.horizon))
    return sampling.uniforms(key, sampling.RESET_INDEX, ENV.num_reset_uniforms), trace, last


def leaves(params):
    return {field.name: np.asarray(getattr(params, field.name)) for field in dataclasses.fields(params)}


def one_ward(num_days, beds, arrivals, discharge):
    """A single queue with one step a day: the midnight census."""
    env = Healthcare(1, num_days, 1, beds)
    return env, env.instance(
        beds=beds,
        start_census=min(arrivals / discharge, beds),
        arrival_rate=arrivals,
        discharge_rate=discharge,
        off_service=1.0,
    )


@functools.partial(jax.jit, static_argnums=0)
def census_path(env, params, key):
    """Census ``i32[P]`` of the first ward and its class at the start of each period; nobody is moved."""

    def body(state, time):
        uniforms = sampling.uniforms(key, time, env.num_uniforms)
        following, *_ = env.advance(state.replace(time=time * env.num_turns), uniforms, params)
        return following, state.waiting[0] + state.in_ward[:, 0].sum()

    uniforms = sampling.uniforms(key, sampling.RESET_INDEX, env.num_reset_uniforms)
    _, path = jax.lax.scan(body, env.init_state(key, uniforms, params), jnp.arange(env.num_periods))
    return path


# ---- queueing laws --------------------------------------------------------------------------------------------------


def stationary(beds, discharge, arrivals, size):
    """Stationary law of the census chain that the reference values are computed with."""
    with jax.enable_x64(True):
        table = np.asarray(bed_pools.census_transition(beds, discharge, arrivals, size, beds))
    np.testing.assert_allclose(table.sum(1), 1.0, atol=1e-12)
    system = np.vstack([table.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0]


@pytest.mark.parametrize(
    ("beds", "arrivals", "discharge", "census", "waiting"),
    [(10, 2.0, 0.25, 9.4373, 1.4373), (20, 3.6, 0.2, 22.4680, 4.4680)],
)
def test_midnight_census_has_the_published_stationary_means(beds, arrivals, discharge, census, waiting):
    law = stationary(beds, discharge, arrivals, 160)
    n = np.arange(160)
    np.testing.assert_allclose([law @ n, law @ np.maximum(n - beds, 0)], [census, waiting], atol=5e-5)
    # What comes must leave: E min(X, N) mu = L.
    np.testing.assert_allclose(law @ np.minimum(n, beds) * discharge, arrivals, rtol=1e-7)


def test_the_environments_census_is_that_chain():
    env, params = one_ward(400, 10, 2.0, 0.25)
    paths = jax.vmap(functools.partial(census_path, env, params))(jax.random.split(jax.random.key(0), 1024))
    late = np.asarray(paths)[:, 100:].astype(float)
    means = late.mean(1), np.maximum(late - 10, 0).mean(1)
    for path_means, expected in zip(means, (9.4373, 1.4373), strict=True):
        assert abs(path_means.mean() - expected) < 4 * path_means.std() / math.sqrt(1024)
        assert path_means.std() / math.sqrt(1024) < 0.05


def test_with_beds_for_all_the_census_is_poisson():
    env, params = one_ward(64, 60, 0.9, 0.06)
    paths = np.asarray(jax.vmap(functools.partial(census_path, env, params))(jax.random.split(jax.random.key(1), 2048)))
    for day in (0, 31, 63):
        counts = np.bincount(np.clip(paths[:, day], 7, 24), minlength=25)[7:]
        law = stats.poisson.pmf(np.arange(7, 25), 15.0)
        law[0], law[-1] = stats.poisson.cdf(7, 15.0), stats.poisson.sf(23, 15.0)
        assert stats.chisquare(counts, 2048 * law / law.sum()).pvalue > 1e-3
    assert abs(paths.mean() - 15.0) < 0.25


@pytest.mark.parametrize(
    ("servers", "load", "blocking", "delay", "queue"),
    [
        (10, 8.0, 0.121661, 0.409180, 1.6367),
        (20, 16.0, 0.064411, 0.256078, 1.0243),
        (5, 4.0, 0.199067, 0.554113, 2.2165),
    ],
)
def test_short_epochs_give_erlangs_formulas(servers, load, blocking, delay, queue):
    erlang_b = 1.0
    for k in range(1, servers + 1):
        erlang_b = load * erlang_b / (k + load * erlang_b)
    erlang_c = servers * erlang_b / (servers - load * (1.0 - erlang_b))
    expected = erlang_c, erlang_c * load / (servers - load)
    np.testing.assert_allclose((erlang_b, *expected), (blocking, delay, queue), rtol=5e-5)
    # The census chain with epochs of length d tends to M/M/c; two lengths remove the error of first order in d.
    n, found = np.arange(130), []
    for d in (0.04, 0.02):
        law = stationary(servers, d, load * d, 130)
        found.append(np.array([law[servers:].sum(), law @ np.maximum(n - servers, 0)]))
    np.testing.assert_allclose(2 * found[1] - found[0], expected, rtol=4e-3)
    assert np.abs(found[0] / expected - 1).max() > 4e-3  # without that the two lengths would prove nothing


def test_binomial_quantiles_are_exact():
    u = (np.arange(1, 512) / 512).astype(np.float32)
    trials, chance = np.meshgrid([0, 1, 5, 20], [0.0, 1e-3, 0.07, 0.4, 0.9, 1.0])
    draw = jax.jit(sampling.binomial, static_argnums=3)
    found = draw(u[:, None, None], trials.astype(np.int32), chance.astype(np.float32), 20)
    np.testing.assert_array_equal(
        found, stats.binom.ppf(u[:, None, None].astype(float), trials, chance.astype(np.float32))
    )


# ---- the environment against its NumPy models -----------------------------------------------------------------------


def models_agree(params, key, greedy):
    start, trace, _ = jax.device_get(play(params, key, jax.random.fold_in(key, 9), greedy))
    seen, _, actions, uniforms, rewards, terminated, info = trace
    recording = Recording.of(params, start, seen, actions, uniforms, rewards, info)
    check_numpy_model(ENV, LoopModel, BatchModel, [recording])
    assert not terminated.any()
    return seen, info


@pytest.mark.parametrize("greedy", [0, 1, -1])
def test_agrees_with_the_independent_models_on_the_nominal_instance(greedy):
    _, info = models_agree(ENV.default_params, jax.random.key(5), greedy)
    assert (info["overflowed"].sum() > 0) == (greedy >= 0)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_independent_models_on_sampled_tasks(seed):
    seen, _ = models_agree(sample(jax.random.key(seed)), jax.random.key(100 + seed), 0)
    assert (seen.tokens[..., COLUMN["unit_cost"]] > 0).any()


def test_agrees_with_the_independent_models_when_the_hospital_overflows():
    params = sample(jax.random.key(3))
    rate = 8.0 * params.arrival_rate
    params = params.replace(
        arrival_rate=rate,
        arrival_cdf=ENV._law(rate, params.arrival_profile),
        discharge_rate=0.1 * params.discharge_rate,
    )
    _, info = models_agree(params, jax.random.key(8), 1)
    assert info["dropped"].sum() > 0


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(seed=SEEDS, greedy=st.sampled_from([0, 0, 1, -1]))
def test_episode_invariants(seed, greedy):
    params = sample(jax.random.key(seed))
    _, (seen, states, actions, _, rewards, _, info), last = jax.device_get(
        play(params, jax.random.key(seed + 1), jax.random.key(seed), greedy)
    )
    everywhere = np.concatenate([states.in_ward, last.in_ward[None]])
    queue = np.concatenate([states.waiting, last.waiting[None]])
    free = params.beds - everywhere.sum(1)
    assert (free >= 0).all()
    assert (queue >= 0).all()
    assert (everywhere >= 0).all()
    # Own patients never wait beside a free bed of theirs.
    assert (queue * free == 0).all()
    # Patients: what came is what left, what was turned away and what is more than at the start.
    more = everywhere[-1].sum() + queue[-1].sum() - everywhere[0].sum() - queue[0].sum()
    assert info["arrived"].sum() - info["discharged"].sum() - info["dropped"].sum() == more
    assert info["dropped"].sum() == 0
    # Choices move patients and nothing else; never within a class's own ward.
    assert (np.diagonal(states.moved, axis1=1, axis2=2) == 0).all()
    number = np.asarray(ENV.size)[actions]
    inside = np.arange(ENV.horizon) % W != W - 1
    np.testing.assert_array_equal((queue[:-1] - queue[1:]).sum(1)[inside], number[inside])
    np.testing.assert_array_equal(np.diff(everywhere.sum((1, 2)))[inside], number[inside])
    assert info["overflowed"].sum() == number.sum()
    # Costs.
    np.testing.assert_array_equal(rewards[inside], 0.0)
    costs = info["holding_cost"] + info["overflow_cost"]
    np.testing.assert_allclose(rewards, -costs, rtol=1e-6)
    np.testing.assert_allclose(info["expected_reward"], rewards)
    np.testing.assert_array_equal(info["discount"], np.where(inside, 1.0, np.float32(0.97)))
    assert (rewards <= 0).all()
    assert seen.action_mask[np.arange(ENV.horizon), actions].all()
    # The cost of a choice is felt in the tokens of the class and the ward, one epoch later.
    for t in range(W, ENV.horizon, W):
        moved = states.moved[t - 1].copy()
        if number[t - 1] > 0:
            moved[(actions[t - 1] - 1) // 3, W - 1] += number[t - 1]
        cost = (moved * params.overflow_cost).sum(0) / np.maximum(moved.sum(0), 1) / 40
        np.testing.assert_allclose(seen.tokens[t, W : 2 * W, COLUMN["unit_cost"]], cost, rtol=1e-5)


def random_world(seed):
    """A task and a crowded state between two periods, and the uniforms of the next."""
    rng = np.random.default_rng(seed)
    params = sample(jax.random.key(seed))
    _, state = jax.device_get(ENV.reset_env(jax.random.key(seed + 1), params))
    beds = np.asarray(params.beds)
    in_ward = np.stack([rng.multinomial(rng.integers(n // 2, n + 1), np.full(W, 1 / W)) for n in beds], axis=1)
    full = in_ward.sum(0) == beds
    state = state.replace(
        time=jnp.int32(4 * rng.integers(P - 1) + 3),
        in_ward=jnp.asarray(in_ward, jnp.int32),
        waiting=jnp.asarray(full * rng.integers(0, 9, W), jnp.int32),
        moved=jnp.asarray(rng.integers(0, 3, (W, W)) * (1 - np.eye(W, dtype=int)), jnp.int32),
    )
    return params, state, jnp.asarray(rng.uniform(0.01, 0.99, ENV.num_uniforms), jnp.float32)


def test_moves_relieve_the_class_and_load_the_ward():
    params, state, _ = random_world(3)
    state = state.replace(time=jnp.int32(W + 2), waiting=jnp.array([5, 0, 3, 8], jnp.int32))
    seen = observe(state, params)
    cost = np.asarray(params.holding_cost) * [5, 0, 3, 8]
    np.testing.assert_allclose(seen.column("urgency")[:W], cost / cost.max(), rtol=1e-5)
    assert (seen.column("urgency")[W:] == 0).all()
    np.testing.assert_array_equal(seen.column("is_turn"), np.arange(2 * W + 1) == W + 2)
    moved = np.asarray(state.moved)
    np.testing.assert_allclose(seen.column("decided")[:-1], np.append(moved.sum(1), -moved.sum(0)) / 8)
    np.testing.assert_array_equal(seen.action_target[:4], [W + 2, 0, 0, 0])
    for column, values in (("is_noop", [1, 0, 0, 0]), ("amount", [0, 0.25, 0.5, 1]), ("signed", [0, 0.25, 0.5, 1])):
        np.testing.assert_array_equal(seen.action_column(column)[:4], values)


@hypothesis.given(seed=SEEDS)
def test_permuting_classes_with_their_wards_permutes_tokens(seed):
    params, state, uniforms = random_world(seed)
    order = np.random.default_rng(seed).permutation(W)
    both = np.ix_(order, order)
    twin = params.replace(
        **{
            k: getattr(params, k)[order]
            for k in ("beds", "start_census", "holding_cost", "arrival_rate", "discharge_rate")
        },
        overflow_cost=params.overflow_cost[both],
        arrival_cdf=params.arrival_cdf[:, order],
    )
    twin_state = state.replace(
        waiting=state.waiting[order], in_ward=state.in_ward[both], moved=state.moved[both], arrived=state.arrived[order]
    )
    square, rest = uniforms[: W * W].reshape(W, W), uniforms[W * W :]
    after, reward, info = advance(state, uniforms, params)
    after_, reward_, info_ = advance(twin_state, jnp.append(square[both].ravel(), rest[order]), twin)
    np.testing.assert_allclose(reward, reward_, rtol=1e-5)
    for name, value in info.items():
        np.testing.assert_allclose(value, info_[name], rtol=1e-5, err_msg=name)
    tokens, tokens_ = (
        np.array(observe(s.replace(time=s.time + 1), p).tokens) for s, p in ((after, params), (after_, twin))
    )
    turn = [COLUMN["is_turn"], COLUMN["is_candidate"]]
    tokens[:, turn] = tokens_[:, turn] = 0
    rows = [*order, *(W + order), 2 * W]
    np.testing.assert_allclose(tokens[rows], tokens_, rtol=1e-5, atol=1e-6)


@hypothesis.given(seed=SEEDS)
def test_more_uniform_means_more_events(seed):
    # Inversion is monotone: larger uniforms bring no fewer discharges and no fewer arrivals.
    params, state, uniforms = random_world(seed)
    few, _, _ = advance(state, 0.5 * uniforms, params)
    many, _, _ = advance(state, 0.5 + 0.5 * uniforms, params)
    assert (many.discharged >= few.discharged).all()
    assert (many.discharged <= state.in_ward).all()
    assert (many.arrived >= few.arrived).all()


def test_a_saturated_ward_discharges_all_that_its_beds_can():
    env, params = one_ward(200, 12, 5.0, 0.25)  # load 5 / (12 * .25) = 1.67

    @jax.jit
    def throughput(key):
        def body(state, time):
            following, _, info = env.advance(state.replace(time=time), sampling.uniforms(key, time, 2), params)
            return following, info["discharged"]

        _, state = env.reset_env(key, params)
        return jax.lax.scan(body, state, jnp.arange(200))[1][40:].mean()

    means = np.asarray(jax.vmap(throughput)(jax.random.split(jax.random.key(0), 64)))
    assert abs(means.mean() - 12 * 0.25) < 4 * means.std() / 8
    assert means.std() / 8 < 0.02


def test_a_crowded_hospital_discharges_its_beds_by_the_profile():
    # Nobody is moved and more come than can leave: every bed is taken, so N_w mu_w f_e patients leave on average.
    params = sample(jax.random.key(4))
    rate = 8.0 * params.beds * params.discharge_rate
    params = params.replace(arrival_rate=rate, arrival_cdf=ENV._law(rate, params.arrival_profile))

    @jax.jit
    @jax.vmap
    def week(key):
        def body(state, period):
            uniforms = sampling.uniforms(key, period, ENV.num_uniforms)
            following, *_ = ENV.advance(state.replace(time=W * period), uniforms, params)
            return following, (following.discharged.sum(0), following.in_ward.sum(0) == params.beds)

        return jax.lax.scan(body, ENV.reset_env(key, params)[1], jnp.arange(7 * E))[1]

    left, full = (np.asarray(x) for x in week(jax.random.split(jax.random.key(5), 512)))
    assert full[:, 2 * E - 1 :].all()
    # The first two days fill the beds; what period t ends with are the discharges of epoch t + 1.
    left = left[:, 2 * E - 1 : -1].reshape(512, 5, E, W).mean(1)
    expected = np.asarray(params.discharge_profile)[:, None] * np.asarray(params.beds * params.discharge_rate)
    error = left.std(0) / math.sqrt(512)
    assert (np.abs(left.mean(0) - expected) <= 4 * error).all()
    assert (error < 0.05).all()
    assert np.ptp(expected) > 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_wards": 0}, "num_wards must be a whole number from 1 to 10, got 0"),
        ({"num_wards": 11}, "num_wards must be .* got 11"),
        ({"num_days": 0}, "num_days must be .* got 0"),
        ({"epochs_per_day": 2.5}, "epochs_per_day must be .* got 2.5"),
        ({"max_beds": 65}, "max_beds must be a whole number from 1 to 64, got 65"),
        ({"max_arrivals": 0}, "max_arrivals must be .* got 0"),
    ],
)
def test_impossible_shapes_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        Healthcare(**fields)


def test_unknown_fields_of_an_instance_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"healthcare.instance has no argument 'bed' .*must be one of beds, .*did you mean 'beds'"
    ):
        ENV.instance(bed=10)


def test_sampled_tasks_keep_to_the_stated_ranges():
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 2000))
    beds = np.asarray(tasks.beds)
    assert (beds.min(), beds.max()) == healthcare.BEDS_RANGE
    off_diagonal = np.asarray(tasks.overflow_cost)[:, ~np.eye(W, dtype=bool)]
    for values, (low, high) in (
        (tasks.arrival_rate / (tasks.beds * tasks.discharge_rate), healthcare.LOAD_RANGE),
        (1 / tasks.discharge_rate, healthcare.STAY_RANGE),
        (tasks.holding_cost, healthcare.HOLDING_RANGE),
        (off_diagonal, healthcare.OVERFLOW_RANGE),
    ):
        margin = 0.01 * (high - low)
        assert low - 1e-4 <= np.min(values) < low + margin
        assert high - margin < np.max(values) <= high + 1e-4
    for profile, nominal in (
        (tasks.discharge_profile, healthcare.DISCHARGE_PROFILE),
        (tasks.arrival_profile, healthcare.ARRIVAL_PROFILE),
    ):
        np.testing.assert_allclose(np.sum(profile, 1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(np.mean(profile, 0), nominal, atol=0.02)
    assert sorted(np.unique(tasks.off_service)) == pytest.approx(healthcare.OFF_SERVICE)


# ---- policies -------------------------------------------------------------------------------------------------------


def two_wards(queue):
    """A small crowded hospital of two wards and its exact model."""
    env = Healthcare(2, 2, 8, 3)
    params = env.instance(
        holding_cost=[2.0, 0.5],
        overflow_cost=[[0.0, 4.0], [9.0, 0.0]],
        arrival_rate=[1.1, 0.5],
        discharge_rate=[0.3, 0.25],
    )
    return env, params, ward_gap.TwoWards(leaves(params), env.num_periods, queue)


def test_pools_that_send_nobody_away_have_the_exact_value():
    env, params, exact = two_wards(10)
    value = np.asarray(env.solve(params), np.float64)
    law = stats.poisson.pmf(np.arange(4), np.asarray(params.start_census, float)[:, None])
    law[:, 3] = 1 - law[:, :3].sum(1)
    # Without moves the wards are independent; no pool starts with anybody waiting.
    np.testing.assert_allclose(np.sum(law * value[0, :, :4]), exact.cost(ward_gap.never), rtol=1e-3)


def test_the_reference_is_near_the_exact_optimum_of_two_wards():
    env, params, _ = two_wards(8)
    found = ward_gap.compare(env, params, ward_gap.Config(beds=3, queue=8, episodes=2048))
    optimum = found["optimum"]
    assert optimum < found["index"] < found["never"]
    assert found["reference"] > optimum - 3 * found["error"]
    assert found["reference"] - optimum < 0.05 * optimum + 3 * found["error"]
    # The environment costs what the tables say.
    _, index = ward_gap.simulate(env, params, found["patience"], found["reserve"], 2048, 1)
    assert abs(index.mean() - found["index"]) < 4 * index.std() / math.sqrt(2048)


def test_equal_sights_and_other_hidden_parameters_ask_for_other_choices():
    params, other = (sample(jax.random.key(seed)) for seed in (0, 1))
    twin = params.replace(**{name: getattr(other, name) for name in ENV.hidden})
    plan, twin_plan = solve(params), solve(twin)
    differs = 0
    for seed in range(12):
        _, state, _ = random_world(seed)
        beds = np.asarray(params.beds)
        own = np.where(np.arange(W) % 2, beds // 2, beds)
        state = state.replace(
            time=jnp.int32(4 * 8 + seed % W),
            in_ward=jnp.asarray(np.diag(own), jnp.int32),
            waiting=jnp.asarray((own == beds) * (2 + seed), jnp.int32),
        )
        jax.tree.map(np.testing.assert_array_equal, observe(state, params), observe(state, twin))
        key = jax.random.key(0)
        differs += int(reference_action(plan, state, params, key)) != int(reference_action(twin_plan, state, twin, key))
    assert differs > 0


def test_the_reference_does_not_move_patients_where_moving_is_never_worth_it():
    params = ENV.default_params.replace(overflow_cost=1e4 * (1.0 - jnp.eye(W)))
    plan = solve(params)
    for seed in range(4):
        _, state, _ = random_world(seed)
        state = state.replace(in_ward=jnp.diag(jnp.array([14, 3, 14, 5])), waiting=jnp.array([6, 0, 9, 0]))
        assert int(reference_action(plan, state.replace(time=jnp.int32(seed)), params, jax.random.key(0))) == 0


def test_free_moves_into_an_empty_ward_are_made():
    # Ward 1 has no patients of its own, so a bed there is worth nothing to it, and waiting costs.
    params = ENV.default_params.replace(overflow_cost=0.01 * (1.0 - jnp.eye(W)))
    rate = params.arrival_rate.at[1].set(1e-3)
    params = params.replace(arrival_rate=rate, arrival_cdf=ENV._law(rate, params.arrival_profile))
    _, state = ENV.reset_env(jax.random.key(0), params)
    state = state.replace(
        time=jnp.int32(1), in_ward=jnp.diag(jnp.array([14, 0, 14, 14])), waiting=jnp.array([4, 0, 0, 0])
    )
    action = int(reference_action(solve(params), state, params, jax.random.key(0)))
    assert action == 3  # four patients of class 0


def test_the_reference_beats_index_rules_that_know_the_costs():
    # Differences scatter by 14 to 18 from task to task around 10 and 13: 64 tasks are five standard errors.
    count = 64
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(11), count))
    keys = jax.random.split(jax.random.key(12), (count, 2))
    axes = engine.state_axes(ENV, tasks)
    plan = jax.vmap(ENV.solve)(tasks)
    # The best of patience 1, 2, 3, 4, .. 16 and reserve 0..3 on sampled tasks are the two without reserve below.
    rules = [lambda s, p, x=x: ward_gap.index_action(ENV, s, p, x, 0.0) for x in (2.0, 3.0)]

    def act(seen, states, key):
        (state,) = states
        part = lambda i: jax.tree.map(lambda x: x[:, 2 * i : 2 * i + 2] if x.ndim else x, state)  # noqa: E731
        known = policies.reference_actions(ENV, plan, part(0), tasks, key)
        others = [
            jax.vmap(jax.vmap(rule, in_axes=(axes, None)), in_axes=(axes, 0))(part(i), tasks)
            for i, rule in enumerate(rules, start=1)
        ]
        return (jnp.concatenate([known, *others], axis=1),)

    together = jnp.concatenate([keys] * 3, axis=1)
    (rewards,), _ = jax.jit(
        lambda: engine.rollout((ENV,), (tasks,), (together,), act, keys[0, 0], record=scoring.score_reward)
    )()
    reference, *others = np.moveaxis(np.asarray(rewards.sum(0)).reshape(count, 3, 2).mean(-1), 1, 0)
    for other in others:
        assert (reference - other).mean() > 3 * (reference - other).std() / np.sqrt(count)
