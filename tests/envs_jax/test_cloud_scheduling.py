"""Cloud scheduling: published figures, invariants, and step-by-step agreement with two independent NumPy models."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.numpy_models.cloud_scheduling import BatchModel, LoopModel
from envs_jax import policies, scoring
from envs_jax import rollout as engine
from envs_jax.domains.cloud_scheduling import LONGEST, UNITS, CloudScheduling
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import slowdown_index
from envs_jax.testing import Recording, Tolerances, check_numpy_model

ENV = CloudScheduling()
M, R, P, A, PICKS = ENV.num_slots, ENV.num_resources, ENV.num_periods, ENV.num_arrivals, ENV.num_turns
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)
sample = jax.jit(ENV.sample_params)
observe = jax.jit(ENV.observation)


def program(env):
    """``replay(params, uniforms[P, U], actions[P, K])``: an episode of given picks; illegal ones do nothing."""

    def replay(params, uniforms, actions, state=None):
        def pick(state, action):
            seen = env.observation(state, params)
            state = env.choose(state, env.turn(state), action, params)
            return state.replace(time=state.time + 1), seen

        def tick(state, xs):
            uniforms, actions = xs
            state, seen = jax.lax.scan(pick, state, actions)
            before = state.replace(time=state.time - 1)
            moved, reward, info = env.advance(before, uniforms, params)
            return moved.replace(time=state.time, last_reward=reward), (seen, before, reward, info)

        if state is None:
            state = env.init_state(jax.random.key(0), jnp.zeros(0), params)
        return jax.lax.scan(tick, state, (uniforms, actions))

    return jax.jit(replay)


replay = program(ENV)


def episode(seed, env=ENV, keen=True):
    """Uniforms and picks of an episode; ``keen`` picks are seldom nothing."""
    rng = np.random.default_rng(seed)
    uniforms = rng.random((env.num_periods, env.num_uniforms), np.float32)
    uniforms = np.clip(uniforms, 2.0**-24, 1 - 2.0**-24)
    actions = rng.integers(0, env.num_slots + (not keen), (env.num_periods, env.num_turns))
    return uniforms, actions.astype(np.int32)


# ---- the environment against its NumPy models -----------------------------------------------------------------------


def models_agree(env, play, params, uniforms, actions, batched=True, **rules):
    _, (seen, _, rewards, info) = jax.device_get(play(params, uniforms, actions))
    sizes = {"num_picks": env.num_turns, "num_arrivals": env.num_arrivals}
    # Played period by period: only its last pick pays, and every pick knows the period's uniforms.
    pays = np.arange(env.horizon) % env.num_turns == env.num_turns - 1
    spread = {name: np.repeat(x, env.num_turns) for name, x in info.items()}
    recording = Recording.of(
        params,
        np.zeros(0),
        jax.tree.map(lambda x: x.reshape(env.horizon, *x.shape[2:]), seen),
        actions.reshape(-1),
        np.repeat(uniforms, env.num_turns, axis=0),
        np.where(pays, np.repeat(rewards, env.num_turns), 0.0),
        spread,
    )
    check_numpy_model(
        env,
        functools.partial(LoopModel, **sizes, **rules),
        functools.partial(BatchModel, **sizes) if batched else None,
        [recording],
        Tolerances(tokens=(1e-5, 2e-6)),
    )
    return seen, info


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
@pytest.mark.parametrize("keen", [True, False])
def test_agrees_with_the_independent_models(seed, keen):
    params = ENV.default_params if seed is None else sample(jax.random.key(seed))
    uniforms, actions = episode(10 + (seed or 0), keen=keen)
    _, info = models_agree(ENV, replay, params, uniforms, actions)
    assert info["finished"].sum() > 2


def test_agrees_with_the_independent_models_where_nothing_is_ever_started():
    uniforms, actions = episode(5)
    uniforms[:, 0] = 0.01  # a job in every tick
    _, info = models_agree(ENV, replay, ENV.default_params, uniforms, np.full_like(actions, ENV.noop_action))
    assert info["waiting"][-1] == A
    assert info["finished"].sum() == 0


def test_agrees_with_the_independent_model_by_the_rules_of_deeprm():
    env = CloudScheduling(num_resources=2, num_picks=3, num_periods=100, num_arrivals=49, deeprm=True)
    uniforms, actions = episode(3, env)
    play = program(env)
    _, (_, states, *_) = play(env.default_params, uniforms, actions)
    # Both peculiarities of the published code happen here.
    over = states.start + states.duration < states.time[:, None]
    assert ((states.listed > 0) & over).any()
    assert (states.start[-1] > 0).sum() > 20
    models_agree(env, play, env.default_params, uniforms, actions, batched=False, deeprm=True)


# ---- queues with a known answer -------------------------------------------------------------------------------------


def full_jobs(env, ticks, share, rate):
    """Every job needs the whole cluster."""
    ten, ticks = jnp.int32(UNITS), jnp.asarray(ticks, jnp.int32)
    return env.default_params.replace(
        arrival_rate=jnp.float32(rate),
        kind_share=jnp.asarray(share, jnp.float32),
        shortest=ticks,
        longest=ticks,
        dominant_low=ten,
        dominant_high=ten,
    )


@pytest.mark.parametrize(("rate", "ticks", "wait"), [(0.2, 4, 6.0), (0.1, 5, 2.0), (0.05, 15, 21.0)])
def test_waits_of_full_size_jobs_of_one_length_are_those_of_the_geo_d_1_queue(rate, ticks, wait):
    assert abs(rate * ticks * (ticks - 1) / (2 * (1 - rate * ticks)) - wait) < 1e-9
    env = CloudScheduling(num_slots=2, num_resources=1, num_picks=1, num_periods=400, num_arrivals=360)
    uniforms, actions = episode(1, env)
    end, _ = jax.device_get(program(env)(full_jobs(env, [ticks] * 2, [1, 0], rate), uniforms, 0 * actions))
    arrivals = np.flatnonzero(end.duration)
    started = end.start[arrivals]
    # Lindley: one starts when it is there and the one before it has finished.
    finish, expected = 0, []
    for arrival in arrivals + 1:
        expected.append(max(arrival, finish))
        finish = expected[-1] + ticks
    expected = np.array(expected)
    seen = expected < env.num_periods
    np.testing.assert_array_equal(started[seen], expected[seen])
    assert seen.sum() > 10
    # And that recursion has the known mean.
    gaps = np.random.default_rng(0).geometric(rate, (4000, 2000))
    delay, total = np.zeros(2000), 0.0
    for i, gap in enumerate(gaps):
        delay = np.maximum(delay + ticks - gap, 0)
        total += delay.mean() if i >= 1000 else 0.0
    assert abs(total / 3000 / wait - 1) < 0.02


def waiting_state(env, kinds, ticks, needs, picks=None):
    """A state in which all these jobs wait and no other will come."""
    count = len(kinds)
    state = env.init_state(jax.random.key(0), jnp.zeros(0), env.default_params)
    state = state.replace(
        time=jnp.int32(env.num_arrivals * env.num_turns),
        kind=state.kind.at[:count].set(jnp.asarray(kinds, jnp.int32)),
        duration=state.duration.at[:count].set(jnp.asarray(ticks, jnp.int32)),
        need=state.need.at[:count].set(jnp.asarray(needs, jnp.int32)),
        waiting=jnp.bincount(jnp.asarray(kinds), length=env.num_slots).astype(jnp.int32),
    )
    return state.replace(slot=state.slot.at[jnp.asarray(kinds)].set(jnp.arange(count, dtype=jnp.int32)))


SMALL = CloudScheduling(num_periods=64, num_arrivals=5, num_picks=5)


@jax.jit
def follow(state, orders, params):
    """Returns of starting the waiting jobs in fixed orders ``[B, 5]``, each as soon as it fits, none overtaking."""
    none = jnp.zeros(SMALL.num_uniforms) + 0.5

    def one(order):
        def tick(carry, _):
            def pick(_, carry):
                state, done = carry
                action = jnp.where(done < 5, order[jnp.minimum(done, 4)], SMALL.noop_action)
                after = SMALL.choose(state, 0, action, params)
                return after, done + (after.start != state.start).any()

            state, done = jax.lax.fori_loop(0, 5, pick, carry)
            state, reward, _ = SMALL.advance(state, none, params)
            return (state.replace(time=state.time + 5), done), reward

        periods = SMALL.num_periods - SMALL.num_arrivals
        return jax.lax.scan(tick, (state, 0), None, length=periods)[1].sum()

    return jax.vmap(one)(orders)


@jax.jit
def refer(state, params):
    """Return of the reference rule from a state."""
    plan = SMALL.solve(params)

    def turn(state, t):
        action = SMALL.reference_action(plan, state, params, state.key)
        state = SMALL.choose(state, 0, action, params)
        moved, reward, _ = SMALL.advance(state, jnp.zeros(SMALL.num_uniforms) + 0.5, params)
        last = t % 5 == 4
        state = jax.tree.map(lambda a, b: jnp.where(last, a, b), moved, state)
        return state.replace(time=state.time + 1), jnp.where(last, reward, 0.0)

    turns = jnp.arange(5 * (SMALL.num_periods - SMALL.num_arrivals))
    return jax.lax.scan(turn, state, turns)[1].sum()


ORDERS = np.array(list(itertools.permutations(range(5))), np.int32)


@pytest.mark.parametrize("seed", range(3))
def test_full_size_jobs_are_best_served_shortest_first_and_the_reference_does(seed):
    ticks = np.random.default_rng(seed).choice(np.arange(1, 13), 5, replace=False)
    params = full_jobs(SMALL, ticks, [0.2] * 5, 0.0)
    state = waiting_state(SMALL, range(5), ticks, [[UNITS] * R] * 5)
    returns = np.asarray(follow(state, ORDERS, params))
    best = ORDERS[returns.argmax()]
    np.testing.assert_array_equal(ticks[best], np.sort(ticks))  # Smith: weight 1/L over duration L
    finish = np.cumsum(np.sort(ticks))
    # The tick at whose end a job finishes is not paid for any more.
    np.testing.assert_allclose(returns.max(), -((finish - 1) / np.sort(ticks)).sum(), rtol=1e-5)
    np.testing.assert_allclose(refer(state, params), returns.max(), rtol=1e-5)


def test_the_reference_is_near_the_best_order_of_small_jobs():
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ticks = rng.integers(1, 13, 5)
        needs = rng.integers(1, 3, (5, R))
        needs[np.arange(5), rng.integers(0, R, 5)] = rng.integers(5, 11, 5)
        params = full_jobs(SMALL, ticks, [0.2] * 5, 0.0)
        state = waiting_state(SMALL, range(5), ticks, needs)
        best = float(follow(state, ORDERS, params).max())
        ratios.append(float(refer(state, params)) / best)
    print(
        f"cost of the reference / of the best of 120 list schedules: mean {np.mean(ratios):.3f}, max {max(ratios):.3f}"
    )
    assert np.mean(ratios) < 1.05


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(seed=SEEDS, keen=st.booleans())
def test_jobs_are_conserved_and_served_in_order(seed, keen):
    params = sample(jax.random.key(seed))
    uniforms, actions = episode(seed, keen=keen)
    end, (seen, states, rewards, info) = jax.device_get(replay(params, uniforms, actions))
    tick = np.arange(P)[:, None]
    arrived, begun = states.duration > 0, states.start >= 0
    over = begun & (states.start + states.duration <= tick)
    active = begun & ~over
    # Resources.
    held = (states.need * active[..., None]).sum(1)
    np.testing.assert_array_equal(states.free, UNITS - held)
    assert ((states.free >= 0) & (states.free <= UNITS)).all()
    # Every job is in one place, counted there, and counted by kind.
    np.testing.assert_array_equal(info["arrived"].sum(), (end.duration > 0).sum())
    total = info["waiting"] + info["running"] + np.cumsum(info["finished"])
    np.testing.assert_array_equal(total, np.cumsum(info["arrived"]))
    for kind in range(M):
        own = states.kind == kind
        np.testing.assert_array_equal(states.waiting[:, kind], (own & arrived & ~begun).sum(1))
        np.testing.assert_array_equal(states.running[:, kind], (own & active).sum(1))
        starts = end.start[(end.kind == kind) & (end.duration > 0)]
        served = starts[starts >= 0]
        assert (np.diff(served) >= 0).all()
        assert (starts[: len(served)] >= 0).all()  # nobody overtakes
    # A start is final and not before the arrival; what is drawn stays.
    for name in ("start", "duration", "kind"):
        was, now = getattr(states, name)[:-1], getattr(states, name)[1:]
        fixed = begun[:-1] if name == "start" else arrived[:-1]
        np.testing.assert_array_equal(was[fixed], now[fixed])
    job = np.arange(A)
    assert (end.start[end.start >= 0] > job[end.start >= 0]).all()
    # Rewards are minus the slowdowns, counted up to the horizon.
    real = end.duration > 0
    finish = np.where(end.start >= 0, end.start + end.duration, P + 1)
    inside = np.minimum(finish, P + 1) - (job + 1)
    np.testing.assert_allclose(rewards.sum(), -(inside[real] / end.duration[real]).sum(), rtol=1e-4)
    gone = real & (finish <= P)
    np.testing.assert_allclose(info["slowdown"].sum(), (inside[gone] / end.duration[gone]).sum(), rtol=1e-4, atol=1e-4)
    # What an agent may pick, and what it sees.
    assert np.isfinite(seen.tokens).all()
    assert np.abs(seen.tokens).max() <= 10
    assert seen.action_mask[..., M].all()


@hypothesis.given(seed=SEEDS)
def test_permuting_kinds_permutes_queues(seed):
    params = sample(jax.random.key(seed))
    uniforms, actions = episode(seed, keen=False)
    order = np.random.default_rng(seed).permutation(M)
    renamed = np.argsort(order)  # kind k is called renamed[k]
    shares = np.asarray(params.kind_share)
    kinds = np.minimum((uniforms[:, 1, None] > np.cumsum(shares)).sum(1), M - 1)
    other = params.replace(**{name: getattr(params, name)[order] for name in ("kind_share", "shortest", "longest")})
    upper = np.cumsum(shares[order])
    uniforms_, actions_ = uniforms.copy(), np.append(renamed, M)[actions].astype(np.int32)
    uniforms_[:, 1] = (upper - shares[order] / 2)[renamed[kinds]]
    _, (seen, _, rewards, info) = jax.device_get(replay(params, uniforms, actions))
    _, (seen_, _, rewards_, info_) = jax.device_get(replay(other, uniforms_, actions_))
    np.testing.assert_allclose(rewards, rewards_, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), info, info_)
    np.testing.assert_array_equal(seen.tokens[:, :, :M][:, :, order], seen_.tokens[:, :, :M])
    np.testing.assert_allclose(seen.tokens[:, :, M:], seen_.tokens[:, :, M:], atol=1e-6)
    np.testing.assert_array_equal(seen.action_mask[..., :M][..., order], seen_.action_mask[..., :M])


@hypothesis.given(seed=SEEDS)
def test_permuting_resources_permutes_their_tokens(seed):
    params = sample(jax.random.key(seed))
    uniforms, actions = episode(seed)
    order = np.random.default_rng(seed).permutation(R)
    shares = np.asarray(params.dominance)
    most = np.minimum((uniforms[:, 3, None] > np.cumsum(shares)).sum(1), R - 1)
    uniforms_ = uniforms.copy()
    uniforms_[:, 4:] = uniforms[:, 4:][:, order]
    uniforms_[:, 3] = (np.cumsum(shares[order]) - shares[order] / 2)[np.argsort(order)[most]]
    _, (seen, _, rewards, _) = jax.device_get(replay(params, uniforms, actions))
    _, (seen_, _, rewards_, _) = jax.device_get(replay(params.replace(dominance=shares[order]), uniforms_, actions))
    np.testing.assert_allclose(rewards, rewards_, rtol=1e-6)
    # Two columns name the first two resources.
    tokens, tokens_ = (np.delete(x.tokens, [COLUMN["private_c"], COLUMN["private_d"]], axis=-1) for x in (seen, seen_))
    index = np.r_[np.arange(M), M + order, M + R]
    np.testing.assert_allclose(tokens[:, :, index], tokens_, atol=1e-6)


def test_a_finished_job_shows_its_duration_in_the_token_of_its_queue_for_one_tick():
    params = full_jobs(ENV, [3, 5, 7, 9, 11], [0, 0, 1, 0, 0], 0.9)
    uniforms, actions = episode(0)
    uniforms[:, 0], uniforms[1:, 0] = 0.5, 0.95  # one job, in the first tick
    _, (seen, *_) = jax.device_get(replay(params, uniforms, np.full_like(actions, 2)))
    duration = seen.column("private_e")[:, 0, :M]
    expected = np.zeros((P, M), np.float32)
    expected[8, 2] = 7 / LONGEST  # arrives at 1, starts at once, is over at 8
    np.testing.assert_allclose(duration, expected, atol=1e-6)


@hypothesis.given(seed=SEEDS)
def test_durations_are_not_seen_before_a_job_finishes(seed):
    params = sample(jax.random.key(seed))
    uniforms, actions = episode(seed, keen=False)
    _, (_, states, *_) = replay(params, uniforms, actions)
    t = int(np.random.default_rng(seed).integers(10, P))
    state = jax.tree.map(lambda x: x[t], states)
    pending = (state.start < 0) | (state.start + state.duration > t)
    longer = state.replace(duration=jnp.where(pending, 2 * state.duration, state.duration))
    jax.tree.map(np.testing.assert_array_equal, observe(state, params), observe(longer, params))


def test_jobs_follow_the_stated_laws():
    params = ENV.default_params
    rng = np.random.default_rng(0)
    uniforms = rng.random((20_000, ENV.num_uniforms), np.float32).clip(2.0**-24)
    state = ENV.init_state(jax.random.key(0), jnp.zeros(0), params)
    first = jax.jit(jax.vmap(lambda u: ENV.advance(state, u, params)[0]))(uniforms)
    came = np.asarray(first.duration[:, 0]) > 0
    assert abs(came.mean() - 0.7) < 0.015
    ticks, need = np.asarray(first.duration[came, 0]), np.asarray(first.need[came, 0])
    values, counts = np.unique(ticks, return_counts=True)
    np.testing.assert_array_equal(values, [1, 2, 3, 10, 11, 12, 13, 14, 15])
    np.testing.assert_allclose(counts / len(ticks), [0.8 / 3] * 3 + [0.2 / 6] * 6, atol=0.015)
    most = need.max(1)
    assert set(most) == {5, 6, 7, 8, 9, 10}
    assert set(np.sort(need, axis=1)[:, :-1].ravel()) == {1, 2}
    np.testing.assert_allclose(np.bincount(need.argmax(1)) / len(need), 1 / 3, atol=0.015)


# ---- tasks and policies ---------------------------------------------------------------------------------------------


def test_impossible_shapes_are_refused_by_name():
    for field, value in (
        ("num_slots", 1),
        ("num_resources", 0),
        ("num_picks", 0),
        ("num_periods", 0),
        ("num_arrivals", 65),
    ):
        with pytest.raises(ValueError, match=f"{field} must be a whole number from . to [0-9]+, got {value}"):
            CloudScheduling(**{field: value})


def test_sampled_tasks_keep_to_the_stated_ranges():
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 2000))
    assert 0.3 <= tasks.arrival_rate.min() < 0.31 < 0.89 < tasks.arrival_rate.max() <= 0.9
    np.testing.assert_allclose(tasks.kind_share.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(tasks.dominance.sum(1), 1, atol=1e-5)
    # Dirichlet(a) of n parts: each has variance (1/n)(1 - 1/n)/(n a + 1).
    np.testing.assert_allclose(tasks.kind_share.var(0), 0.2 * 0.8 / 11, rtol=0.1)
    np.testing.assert_allclose(tasks.dominance.var(0), (2 / 9) / 16, rtol=0.1)
    assert tasks.shortest.min() == 1
    assert 14 <= tasks.longest.max() <= LONGEST
    assert (tasks.shortest <= tasks.longest).all()
    # The median mean duration is the root of 12.
    assert abs(np.median((tasks.shortest + tasks.longest) / 2) - 12**0.5) < 0.55


def test_other_durations_ask_for_other_actions():
    task = ENV.default_params.replace(
        shortest=jnp.array([1, 4, 4, 4, 12], jnp.int32), longest=jnp.array([1, 4, 4, 4, 12], jnp.int32)
    )
    twin = task.replace(shortest=task.shortest[::-1], longest=task.longest[::-1])
    state = waiting_state(ENV, [0, 4], [1, 1], [[6, 1, 1], [6, 1, 1]])
    act = jax.jit(lambda params: ENV.reference_action(ENV.solve(params), state, params, state.key))
    jax.tree.map(np.testing.assert_array_equal, observe(state, task), observe(state, twin))
    assert int(act(task)) == 0
    assert int(act(twin)) == 4
    # A long job is refused while many short ones are to come, even if it fits.
    early = state.replace(time=jnp.int32(0), slot=state.slot.at[0].set(-1), waiting=state.waiting.at[0].set(0))
    refuse = jax.jit(lambda params: ENV.reference_action(ENV.solve(params), early, params, state.key))
    assert int(refuse(task)) == ENV.noop_action
    assert int(refuse(twin)) == 4


def test_index_of_a_lone_kind_by_hand():
    known = slowdown_index.moments(jnp.array([2, 4]), jnp.array([4, 4]), jnp.array([0.5, 0.1]), 15)
    np.testing.assert_allclose(known.mean, [3.0, 4.0])
    np.testing.assert_allclose(known.weight, [(1 / 2 + 1 / 3 + 1 / 4) / 3, 1 / 4], rtol=1e-6)
    index = slowdown_index.index(known, jnp.array([2, 1]), jnp.int32(20), jnp.int32(3))
    # The longer kind blocks two that wait and 3 ticks of arrivals of the shorter.
    blocked = (2 + 3 * 0.5) * float(known.weight[0])
    np.testing.assert_allclose(index, [known.weight[0] * 17**0.5 / 3 / 0.05, 4 / 4 / 4 / (blocked + 0.05)], rtol=1e-5)


def returns(act, tasks, keys):
    """Mean return of an :data:`Act`."""
    rewards, _ = engine.rollout((ENV,), (tasks,), (keys,), act, jax.random.key(1), record=scoring.score_reward)
    return rewards[0].sum(0).mean()


def experience(tasks, keys):
    """Tokens ``[T, B, E, N, F]`` of random episodes as each period starts."""
    keep = lambda domain, step: step.observation.tokens  # noqa: E731
    return engine.rollout((ENV,), (tasks,), (keys,), policies.random_act, jax.random.key(2), record=keep)


@pytest.mark.slow
def test_blind_rules_leave_headroom_and_a_few_random_episodes_identify_the_durations():
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 64))
    keys = jax.random.split(jax.random.key(1), (64, 4))
    support = jax.random.split(jax.random.key(3), (64, 5))
    (tokens,), _ = jax.jit(experience)(tasks, support)
    seen = np.asarray(tokens)[::PICKS, :, :, :M]
    count, mean = 4 * seen[..., COLUMN["outflow"]], LONGEST * seen[..., COLUMN["private_e"]]

    def estimated(episodes):
        n = count[:, :, :episodes].sum((0, 2))
        # A prior observation of the tasks' median mean duration.
        guess = ((count * mean)[:, :, :episodes].sum((0, 2)) + 12**0.5) / (n + 1)
        bounds = (np.clip(np.round(f * guess), 1, LONGEST).astype(np.int32) for f in (0.7, 1.3))
        low, high = bounds
        average = {"arrival_rate": 0.6 + 0 * tasks.arrival_rate, "kind_share": 0.2 + 0 * tasks.kind_share}
        return tasks.replace(shortest=jnp.asarray(low), longest=jnp.asarray(high), **average)

    @jax.jit
    def informed(believed):
        plan = jax.vmap(ENV.solve)(believed)
        act = lambda seen, states, key: (policies.reference_actions(ENV, plan, states[0], tasks, key),)  # noqa: E731
        return returns(act, tasks, keys)

    def packer(seen, states, key):
        score = seen[0].action_column("private_b")
        return (jnp.argmax(jnp.where(seen[0].action_mask, score, -1.0), -1).astype(jnp.int32),)

    def first_come(seen, states, key):
        age = jnp.append(seen[0].column("age")[..., :M], jnp.full((*keys.shape, 1), -0.5), -1)
        return (jnp.argmax(jnp.where(seen[0].action_mask, age, -1.0), -1).astype(jnp.int32),)

    found = {name: float(scoring.returns(ENV, name, tasks, keys).mean()) for name in ("random", "heuristic")}
    found |= {"packer": float(jax.jit(returns, static_argnums=0)(packer, tasks, keys))}
    found |= {"first come": float(jax.jit(returns, static_argnums=0)(first_come, tasks, keys))}
    found |= {f"K={k}": float(informed(estimated(k))) for k in (0, 1, 3, 5)}
    found["reference"] = float(informed(tasks))
    score = {k: (v - found["random"]) / (found["reference"] - found["random"]) for k, v in found.items()}
    print({name: (round(found[name], 1), round(score[name], 3)) for name in found})
    assert 0.1 < score["packer"] < score["heuristic"] < 0.7
    assert 0.1 < score["first come"] < score["heuristic"]
    assert score["K=0"] < 0.5
    assert 0.7 < score["K=1"] < score["K=5"] < 1.02
