"""Smart city, the model: invariants, laws, and step-by-step agreement with two independent NumPy models."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from benchmarks.numpy_models.smart_city import BatchModel, LoopModel
from envs_jax import policies, sampling
from envs_jax.domains.smart_city import PLAN, SmartCity, binomial, poisson
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references.grid import ahead, by_movement, by_phase
from envs_jax.testing import Recording, Tolerances, check_numpy_model

ENV = SmartCity()
P, T = ENV.num_periods, ENV.horizon
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)
RANDOM, HOLD, ALTERNATE, FOLLOW = range(4)

sample = jax.jit(ENV.sample_params)
reset = jax.jit(ENV.reset_env)
advance = jax.jit(ENV.advance)
observe = jax.jit(ENV.observation)


@jax.jit
def play(params, key, policy_key, mode):
    """One episode: random phases, never switching, switching every slot, or following the plan."""

    def body(carry, time):
        seen, state = carry
        random = policies.random_actions(seen, jax.random.fold_in(policy_key, time))
        green = state.green[time % 4]
        wanted = jnp.where(mode == HOLD, green, (green + 1) % 4)
        directed = (wanted - ENV.planned(time // 4)[time % 4]) % 4
        action = jnp.select([mode == RANDOM, mode == FOLLOW], [random, 0], directed).astype(jnp.int32)
        uniforms = sampling.uniforms(key, time // 4, ENV.num_uniforms)
        after, following, reward, terminated, info = ENV.step_env(key, state, action, params)
        return (after, following), (seen, state, action, uniforms, reward, terminated, info)

    start = ENV.reset_env(key, params)
    last, trace = jax.lax.scan(body, start, jnp.arange(ENV.horizon))
    return sampling.uniforms(key, sampling.RESET_INDEX, ENV.num_reset_uniforms), trace, last


def episode(params, seed, mode):
    return jax.device_get(play(params, jax.random.key(seed), jax.random.key(seed + 1), mode))


# ---- the environment against its NumPy models -----------------------------------------------------------------------


def models_agree(params, seed, mode):
    start, trace, (last, _) = episode(params, seed, mode)
    seen, _, actions, uniforms, rewards, terminated, info = trace
    # Vehicles are whole numbers: they agree exactly.
    tolerances = Tolerances(tokens=(1e-5, 1e-6), reward=(1e-5, 0.0), figures=(0.0, 0.0), named={"persons": (1e-5, 0.0)})
    recording = Recording.of(params, start, seen, actions, uniforms, rewards, info, last)
    check_numpy_model(ENV, LoopModel, BatchModel, [recording], tolerances)
    assert not terminated.any()
    return trace


@pytest.mark.parametrize("mode", [RANDOM, HOLD, ALTERNATE, FOLLOW])
def test_agrees_with_the_independent_models_on_the_faithful_instance(mode):
    *_, info = models_agree(ENV.default_params, 5, mode)
    assert info["switches"].sum() == {HOLD: 0, ALTERNATE: 4 * P}.get(mode, info["switches"].sum())


@pytest.mark.parametrize(("seed", "mode"), [(0, RANDOM), (1, RANDOM), (2, HOLD), (3, ALTERNATE), (4, FOLLOW)])
def test_agrees_with_the_independent_models_on_sampled_tasks(seed, mode):
    models_agree(sample(jax.random.key(seed)), 100 + seed, mode)


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(seed=SEEDS, mode=st.sampled_from([RANDOM, RANDOM, HOLD, ALTERNATE]))
def test_episode_invariants(seed, mode):
    params = sample(jax.random.key(seed))
    _, trace, (seen, last) = episode(params, seed, mode)
    looks, states, actions, _, rewards, _, info = trace
    paying = np.arange(T) % 4 == 3
    queues = np.concatenate([states.queue[::4], last.queue[None]])
    assert queues.min() >= 0
    total = queues.sum((1, 2, 3))
    np.testing.assert_array_equal(np.diff(total), (info["arrived"] - info["exited"])[paying])
    np.testing.assert_array_equal(total[1:], info["queue"][paying])
    served = np.concatenate([states.served[4::4], last.served[None]])  # [P, i, phase]
    joined = np.concatenate([states.joined[4::4], last.joined[None]])
    by_phase_ = queues[:, :, :2] + queues[:, :, 2:]
    np.testing.assert_array_equal(np.diff(by_phase_.reshape(P + 1, 4, 4), axis=0), joined - served)
    # Whoever is served leaves the grid or joins a queue; whoever joins came from a queue or from outside.
    np.testing.assert_array_equal(
        joined.sum((1, 2)) - info["arrived"][paying], served.sum((1, 2)) - info["exited"][paying]
    )
    green = np.concatenate([states.green[4::4], last.green[None]])
    before = states.green[::4]
    is_green = green[..., None] == np.arange(4)
    assert (served[~is_green] == 0).all()
    switched = (green != before)[..., None]
    np.testing.assert_array_equal(info["switches"][paying], switched.sum((1, 2)))
    saturation = np.asarray(params.saturation)
    assert (served <= 2 * np.ceil(np.where(switched, saturation * (1 - params.lost), saturation))).all()
    persons = (np.asarray(params.occupancy) * by_phase_.reshape(P + 1, 4, 4)[1:]).sum((1, 2))
    np.testing.assert_allclose(rewards[paying], -persons / 32, rtol=1e-5)
    np.testing.assert_array_equal(rewards[~paying], 0.0)
    plan = np.array(PLAN)[(np.arange(P)[:, None] + [0, 4, 0, 4]) % 8]
    phase = (green - plan) % 4
    np.testing.assert_array_equal(actions.reshape(P, 4), phase)
    everything = np.concatenate([looks.tokens, seen.tokens[None]])
    assert np.isfinite(everything).all()
    assert np.abs(everything).max() <= 10
    turns, candidates = (everything[..., COLUMN[name]].reshape(-1, 4, 4) for name in ("is_turn", "is_candidate"))
    in_turn = np.arange(4 * P + 1)[:, None] % 4 == np.arange(4)
    np.testing.assert_array_equal(candidates, np.broadcast_to(in_turn[..., None], candidates.shape))
    showing = np.append(states.green, last.green[None], axis=0)
    np.testing.assert_array_equal(turns, in_turn[..., None] & (showing[..., None] == np.arange(4)))
    np.testing.assert_array_equal(looks.action_column("private_a"), np.arange(4)[None].repeat(T, 0) == 0)
    aimed = np.take_along_axis(looks.column("level"), looks.action_target, 1)
    np.testing.assert_array_equal(looks.action_column("private_c"), aimed)
    assert looks.action_column("is_noop").max() == 0
    targets = looks.action_target.reshape(P, 4, 4)
    np.testing.assert_array_equal(np.sort(targets), np.arange(16).reshape(4, 4)[None].repeat(P, 0))
    assert last.time == params.max_steps_in_episode


def random_world(seed):
    """A task, a state at the end of a slot's choices and the slot's uniforms."""
    params, rng = sample(jax.random.key(seed)), np.random.default_rng(seed)
    _, state = reset(jax.random.key(seed + 1), params)
    draw = lambda high, *shape: jnp.asarray(rng.integers(0, high, shape), jnp.int32)  # noqa: E731
    state = state.replace(queue=draw(30, 4, 4, 2), green=draw(4, 4), chosen=draw(4, 4), red=draw(9, 4, 4))
    return params, state, jnp.asarray(rng.uniform(0.001, 0.999, ENV.num_uniforms), jnp.float32)


@hypothesis.given(seed=SEEDS, quarters=st.integers(1, 3))
def test_turning_the_city_by_quarters_turns_everything(seed, quarters):
    params, state, uniforms = random_world(seed)
    turn = lambda x: np.roll(np.asarray(x), quarters, axis=0)  # noqa: E731
    leaves = ("queue", "green", "chosen", "red", "served", "joined")
    state_ = state.replace(**{name: turn(getattr(state, name)) for name in leaves})
    params_ = params.replace(**{name: turn(getattr(params, name)) for name in ("demand", "saturation", "occupancy")})
    blocks = np.split(np.asarray(uniforms), [8, 16, 24])
    uniforms_ = np.concatenate([turn(block.reshape(4, -1)).reshape(-1) for block in blocks])
    after, reward, info = advance(state, uniforms, params)
    after_, reward_, info_ = advance(state_, uniforms_, params_)
    np.testing.assert_allclose(reward, reward_, rtol=1e-5)
    for name in ("queue", "arrived", "exited", "switches"):
        assert info[name] == info_[name]
    for name in leaves:
        np.testing.assert_array_equal(turn(getattr(after, name)), getattr(after_, name))
    of_the_turn = [COLUMN["is_turn"], COLUMN["is_candidate"]]
    tokens, tokens_ = (
        np.delete(np.reshape(observe(s.replace(time=jnp.int32(0)), p).tokens, (4, 4, -1)), of_the_turn, axis=-1)
        for s, p in ((after, params), (after_, params_))
    )
    np.testing.assert_allclose(turn(tokens), tokens_, rtol=1e-5, atol=1e-6)


@hypothesis.given(seed=SEEDS)
def test_keeping_green_loses_no_time_and_switching_does(seed):
    params, state, uniforms = random_world(seed)
    state = state.replace(queue=jnp.full((4, 4, 2), 50, jnp.int32))
    keeping = state.replace(chosen=state.green)
    careless, careful = (params.replace(lost=jnp.float32(x)) for x in (1.0, 0.0))
    kept, free = (advance(keeping, uniforms, p)[0] for p in (careless, careful))
    np.testing.assert_array_equal(kept.served, free.served)
    assert (np.asarray(kept.served).sum(-1) >= 2 * 3).all()  # 3.5 or more on each of two lanes
    moved = advance(state.replace(chosen=(state.green + 1) % 4), uniforms, careless)[0]
    assert (np.asarray(moved.served) == 0).all()


@hypothesis.given(seed=SEEDS)
def test_hidden_parameters_show_only_through_what_happens(seed):
    params, other = sample(jax.random.key(seed)), sample(jax.random.key(seed + 1))
    twin = params.replace(**{name: getattr(other, name) for name in ENV.hidden})
    _, state, uniforms = random_world(seed)
    for a, b in zip(jax.tree.leaves(observe(state, params)), jax.tree.leaves(observe(state, twin)), strict=True):
        np.testing.assert_array_equal(a, b)
    (one, reward, _), (two, reward_, _) = (advance(state, uniforms, p) for p in (params, twin))
    assert reward != reward_
    assert not np.array_equal(one.queue, two.queue)


def test_sixteen_slots_of_any_play_determine_the_occupancies():
    params = sample(jax.random.key(8))
    _, (_, states, _, _, rewards, *_), (_, last) = episode(params, 3, RANDOM)
    queues = np.concatenate([states.queue[4::4], last.queue[None]])
    waiting = (queues[:, :, :2] + queues[:, :, 2:]).reshape(P, 16)
    found, _, rank, _ = np.linalg.lstsq(waiting.astype(float)[:17], -32.0 * rewards[3::4][:17], rcond=None)
    assert rank == 16
    np.testing.assert_allclose(found, np.asarray(params.occupancy).reshape(-1), atol=0.01)


def test_vehicles_go_where_the_road_leads():
    # Eight vehicles wait at the north side of NW; a slot later they are where their lanes lead.
    params = ENV.default_params.replace(
        demand=jnp.zeros(4), left_share=jnp.float32(0.0), right_share=jnp.float32(0.0), lost=jnp.float32(0.0)
    )
    _, state = reset(jax.random.key(0), params)
    uniforms = jnp.full((ENV.num_uniforms,), 0.5)
    nw, ne, sw = 0, 1, 3
    for phase, lane, right, place in (
        (0, 0, 0.0, (sw, 1, 0)),  # straight on to the south, SW's side towards NW
        (1, 1, 0.0, (ne, 3 - 1, 0)),  # left to the east, NE's side towards NW
    ):
        waiting = state.replace(queue=state.queue.at[nw, 0, lane].set(4), chosen=jnp.full(4, phase, jnp.int32))
        after, _, info = advance(waiting, uniforms, params.replace(right_share=jnp.float32(right)))
        assert after.queue[place] == 4
        assert info["queue"] == 4
        assert info["exited"] == 0
    # Right from the north is west: outside.
    waiting = state.replace(queue=state.queue.at[nw, 0, 0].set(4), chosen=jnp.zeros(4, jnp.int32))
    _, _, info = advance(waiting, uniforms, params.replace(right_share=jnp.float32(1 - 1e-6)))
    assert info["exited"] == 4


def test_mean_value_ahead_is_what_vehicles_find():
    rng = np.random.default_rng(0)
    value = rng.uniform(size=(4, 4, 2))
    mean = np.asarray(ahead(jnp.asarray(value, jnp.float32), 0.3, 0.2))
    link = 0.7 * value[..., 0] + 0.3 * value[..., 1]
    for i in range(4):
        # Side 0 leads straight to the previous intersection's side 1 and right to outside; side 2 straight to outside
        # and right to the next one's side 2; side 1 straight outside, right outside; side 3 straight on to the next.
        following, previous = link[(i + 1) % 4, 2], link[(i - 1) % 4, 1]
        straight = [previous, 0.0, 0.0, following]
        right = [0.0, 0.0, following, previous]
        left = [following, previous, 0.0, 0.0]
        through = 0.8 * np.array(straight) + 0.2 * np.array(right)
        np.testing.assert_allclose(mean[i], np.stack([through, left], -1), rtol=1e-5)


def test_phases_serve_opposite_sides():
    values = jnp.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(by_phase(by_movement(values)), 2 * values)
    lanes = by_movement(values)[1]
    np.testing.assert_array_equal(lanes, [[4, 5], [6, 7], [4, 5], [6, 7]])


# ---- laws -----------------------------------------------------------------------------------------------------------


def test_draws_follow_their_laws():
    count, split = jax.jit(poisson), jax.jit(binomial)
    u = (jnp.arange(100_000) + 0.5) / 100_000
    for rate in (0.06, 1.5, 3.0):
        share = np.bincount(count(u, jnp.float32(rate)), minlength=15) / 1e5
        np.testing.assert_allclose(share, scipy.stats.poisson.pmf(np.arange(15), rate), atol=2e-5)
    for n, p in ((0, 0.3), (1, 0.1), (5, 0.35), (8, 0.2)):
        share = np.bincount(split(u, jnp.full(u.shape, n), jnp.float32(p)), minlength=9) / 1e5
        np.testing.assert_allclose(share, scipy.stats.binom.pmf(np.arange(9), n, p), atol=2e-5)


def test_a_single_approach_is_the_bulk_service_queue():
    """x' = (x - s)^+ + Poisson(lambda): simulated mean against the chain's stationary one."""
    rate, capacity, size = 1.5, 2, 200
    chain = np.zeros((size, size))
    law = scipy.stats.poisson.pmf(np.arange(size), rate)
    for x in range(size):
        left = max(x - capacity, 0)
        chain[x, left:] = law[: size - left]
    chain[:, -1] += 1 - chain.sum(1)
    system = np.vstack([chain.T - np.eye(size), np.ones(size)])
    stationary = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0]
    mean = stationary @ np.arange(size)
    params = ENV.default_params.replace(
        demand=jnp.asarray([rate, 0.0, 0.0, 0.0]),
        left_share=jnp.float32(0.0),
        saturation=jnp.full((4, 4), float(capacity)),
    )

    @jax.jit
    @jax.vmap
    def run(key):
        _, state = ENV.reset_env(key, params)

        def slot(state, t):
            state, *_ = ENV.advance(state, sampling.uniforms(key, t, ENV.num_uniforms), params)
            return state, state.queue[0, 0, 0]

        # NW starts with phase 0 green and keeps it.
        return jax.lax.scan(slot, state, jnp.arange(400))[1][100:].mean()

    means = np.asarray(run(jax.random.split(jax.random.key(0), 256)))
    print(f"mean queue: simulated {means.mean():.3f}, chain {mean:.3f}")
    assert abs(means.mean() - mean) < 4 * means.std() / 16
    assert means.std() / 16 < 0.03 * mean  # enough episodes to tell


# ---- tasks and shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -3, 2.5, "48"])
def test_impossible_shapes_are_refused_by_name(value):
    with pytest.raises(ValueError, match="num_periods must be a whole number from 1 to 100000, got "):
        SmartCity(num_periods=value)


def test_sampled_tasks_keep_to_the_stated_ranges():
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 2000))
    ranges = {
        "demand": (0.6, 1.6),
        "left_share": (0.1, 0.35),
        "right_share": (0.1, 0.3),
        "saturation": (3.5, 6.0),
        "lost": (0.2, 0.6),
        "occupancy": (1.0, 16.0),
    }
    for name, (low, high) in ranges.items():
        values, width = np.asarray(getattr(tasks, name)), 0.01 * (high - low)
        assert low <= values.min() < low + width
        assert high - width < values.max() <= high
    buses = np.asarray(tasks.occupancy) >= 6
    assert abs(buses.mean() - 0.3) < 0.01
    assert np.asarray(tasks.occupancy)[~buses].max() <= 2
    assert (tasks.start_queue == 4).all()
