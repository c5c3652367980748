"""Maritime: published figures, agreement with NumPy and with MARO, invariants, and linear programmes as bounds."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.numpy_models.maritime import BatchModel, LoopModel
from benchmarks.quality.oracles.maritime import constraints, hindsight, most_served
from envs_jax import sampling
from envs_jax.data import cim
from envs_jax.domains.maritime import Maritime
from envs_jax.references import keep_shares, liner_services
from envs_jax.references.liner_services import MAX_DELAY, WEEK
from envs_jax.testing import Recording, Tolerances, check_numpy_model, leaves_by_name

ENV = Maritime()
P, V, L, A = ENV.num_ports, ENV.num_turns, ENV.num_lanes, ENV.num_actions
FAITHFUL = ENV.default_params
SEEDS = st.integers(0, 2**31 - 1)
NOOP = ENV.noop_action

sample = jax.jit(ENV.sample_params)
orders = jax.jit(ENV.orders)


def containers(stock):
    return sum(x.sum(tuple(range(1, x.ndim))) for x in jax.tree.leaves(stock))


@jax.jit
def play(params, key, wishes):
    """An episode of the wished choices ``i32[T]``, where they are legal: a trace ``[T]``, with what came after each."""

    def body(carry, step):
        seen, state = carry
        time, wish = step
        action = jnp.where(seen.action_mask[wish], wish, NOOP)
        uniforms = sampling.uniforms(key, time // V, ENV.num_uniforms)
        after, following, reward, _, info = ENV.step_env(key, state, action, params)
        return (after, following), (seen, state, action, uniforms, reward, info, following)

    first, state = ENV.reset_env(key, params)
    return jax.lax.scan(body, (first, state), (jnp.arange(ENV.horizon), wishes))[1]


@functools.cache
def episode(seed):
    """A task and an episode of random wishes, half of them extreme."""
    rng = np.random.default_rng(seed)
    wishes = np.where(
        rng.random(ENV.horizon) < 0.5, rng.choice([0, A - 1], ENV.horizon), rng.integers(0, A, ENV.horizon)
    )
    params, key = sample(jax.random.key(seed)), jax.random.key(seed + 1)
    return params, key, jax.device_get(play(params, key, jnp.asarray(wishes, jnp.int32)))


# ---- published figures ----------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("env", "move"))
def thousand_days(env, params, key, move):
    """Containers ordered, lost and moved in 1120 days: days 0..7, 158 weeks, 6 days; calls on days 7, 14, .. 1113.

    ``move``: (to load, to discharge, ``f32[2]`` uniforms) -> containers discharged (+) or loaded (-) at a call.
    """
    quiet = lambda days: jnp.full((days, 1 + env.num_ports), 0.5)  # noqa: E731
    _, start = env.reset_env(key, params)
    stock, booked, lost = env._days(start.stock, jnp.int32(0), quiet(1 + WEEK), params)

    def call(carry, time):
        state, moved = carry
        vessel, port, load, discharge = env.scope(state, params)
        amount = move(load, discharge, jax.random.uniform(jax.random.fold_in(key, time), (2,)))
        empty, aboard = state.stock.empty + port * amount, state.stock.aboard - vessel * amount
        stock = state.stock.replace(empty=empty, aboard=aboard)
        return (state.replace(stock=stock, time=state.time + 1), moved + jnp.abs(amount)), None

    def calls(stock, number, moved):
        stock = env.services.calls(stock, number, params.capacity, params.consignee_days)
        times = number * env.num_turns + jnp.arange(env.num_turns)
        (state, moved), _ = jax.lax.scan(call, (start.replace(stock=stock, time=times[0]), moved), times)
        return state.stock, moved

    def week(carry, number):
        stock, booked, lost, moved = carry
        stock, moved = calls(stock, number, moved)
        stock, more, fewer = env._days(stock, WEEK * number + 1, quiet(WEEK), params)
        return (stock, booked + more.sum(), lost + fewer.sum(), moved), None

    carry = (stock, booked.sum(), lost.sum(), jnp.float32(0.0))
    (stock, booked, lost, moved), _ = jax.lax.scan(week, carry, jnp.arange(1, 159))
    stock, moved = calls(stock, jnp.int32(159), moved)
    _, more, fewer = env._days(stock, jnp.int32(WEEK * 159 + 1), quiet(WEEK - 1), params)
    return booked + more.sum(), lost + fewer.sum(), moved


def leave(load, discharge, uniforms):
    """No repositioning."""
    del load, discharge
    return 0.0 * uniforms[0]


def at_random(load, discharge, uniforms):
    """The random choice of MARO's manual: discharge with chance 1/2 if possible, else load; any number alike."""
    which, share = uniforms
    ashore = (discharge > 0) & (which < 0.5)
    return jnp.where(ashore, jnp.floor(share * (discharge + 1)), -jnp.floor(share * (load + 1)))


@pytest.mark.parametrize(
    ("network", "lost", "lost_in_season"),
    [("4p", 2_190_000, 2_189_460), ("5p", 2_140_000, 2_139_460), ("6p", 2_087_000, 2_086_460)],
)
def test_published_shortage_without_repositioning(network, lost, lost_in_season):
    env = Maritime(network)
    scarce = jnp.asarray(env.network.capacity[1], jnp.float32)
    for season, expected in ((False, (2_240_000, lost)), (True, (2_239_460, lost_in_season))):
        # Level 0.0, then level 0.3; vessels of level 0.0 and of levels 0.2 and 0.3 lose the same.
        params = env.default_params.replace(orders=jnp.asarray(cim.orders(season), jnp.float32))
        for task in (params, params.replace(capacity=scarce)):
            assert tuple(map(int, thousand_days(env, task, jax.random.key(0), leave))) == (*expected, 0)


@pytest.mark.parametrize("network", ["4p", "5p", "6p"])
def test_shortage_without_repositioning_in_closed_form(network):
    """A port serves what it has on day 0 and what comes to it laden, once each."""
    env = Maritime(network)
    served = np.array([int(share * cim.CONTAINERS) for share in env.network.start])
    for i in sorted(range(env.num_ports), key=lambda i: len(upstream(env.network.lanes, i))):
        came = sum(round(served[j] * env.network.lanes[j, k]) for j, k in env.network.lanes if k == i)
        served[i] = (served[i] + came) * (env.network.source[i] > 0)
    _, lost, _ = thousand_days(env, env.default_params, jax.random.key(0), leave)
    assert int(lost) == 2_240_000 - served.sum()


def upstream(lanes, port):
    """All ports from which containers reach a port laden."""
    before = {i for i, j in lanes if j == port}
    return before.union(*(upstream(lanes, i) for i in before))


# Shortage and moves of random repositioning at level 0.0, with their spreads, as published.
RANDOM = {"4p": (1_497_138, 30_423, 4_185_080, 185_140), "6p": (1_529_774, 73_104, 3_989_560, 232_740)}


@pytest.mark.parametrize("network", ["4p", "5p", "6p"])
def test_random_repositioning_loses_what_is_published(network):
    env, runs = Maritime(network), 64
    keys = jax.random.split(jax.random.key(0), runs)
    many = jax.vmap(functools.partial(thousand_days, env, move=at_random), in_axes=(None, 0))
    booked, lost, moved = (np.asarray(x, float) for x in many(env.default_params, keys))
    print(f"{network}: lost {lost.mean():.0f} +- {lost.std():.0f}, moved {moved.mean():.0f} +- {moved.std():.0f}")
    assert (booked == 2_240_000).all()
    # 5p does not come out (docs/domains/maritime.md): there the spread is all that is asserted.
    assert 40_000 < lost.std() < 120_000
    if network in RANDOM:
        shortage, spread, moves, moves_spread = RANDOM[network]
        assert abs(lost.mean() - shortage) < spread
        assert abs(moved.mean() - moves) < moves_spread


def test_season_is_that_of_the_published_levels():
    # cos of level 0.3: 1500 on day 0, 2500 on day 56 (read in the source's configuration).
    wave = cim.orders(True)
    assert (wave[0], wave[56], wave.argmin(), wave.argmax()) == (1500, 2500, 0, 56)
    assert np.floor(wave).sum() * 10 == 2_239_460
    assert (cim.orders(False) == 2000).all()


MARO = {
    ("4p", 0): (
        2_242_000,
        1_460_162,
        4_295_464,
        535_634,
        (0, 0, 0, 0, 0, 0, 0, 0, 30267, 0, 0, 3481, 14816, 0, 0, 3400),
    ),
    ("5p", 0): (
        *(2_242_000, 1_717_347, 4_555_227, 310_896),
        (0, 0, 0, 0, 0, 0, 0, 0, 5399, 0, 0, 403, 3788, 0, 0, 500, 43333, 0, 1000, 2362),
    ),
    ("6p", 0): (
        *(2_242_000, 1_341_025, 5_276_057, 539_881),
        (0, 0, 0, 0, 13383, 0, 340, 0, 16331, 0, 0, 1468, 6581, 0, 0, 1170, 0, 0, 528, 2380, 0, 0, 245, 3432),
    ),
    ("4p", 3): (
        2_240_960,
        1_777_365,
        1_882_524,
        343_214,
        (0, 0, 0, 0, 0, 0, 0, 0, 10604, 0, 0, 218, 64084, 0, 0, 1148),
    ),
    ("5p", 3): (
        *(2_240_960, 1_877_875, 1_361_165, 203_641),
        (0, 0, 0, 0, 0, 0, 0, 0, 77159, 0, 0, 407, 1735, 0, 0, 0, 2462, 0, 750, 274),
    ),
}
"""What MARO itself (commit 34c2dc9, built and run for this) gives; see :func:`whole_run` for what it is."""


@pytest.mark.parametrize(("network", "level"), MARO)
def test_totals_and_stocks_equal_those_of_maro(network, level):
    """The k-th call moves ((5 k + 3) mod 21) - 10 tenths, none on the last day; 1121 days."""
    model = LoopModel(
        leaves_by_name(Maritime(network, season=level == 3, scarce=level == 3).default_params), 160, network
    )
    assert whole_run(model) == MARO[network, level]


def whole_run(model):
    """Booked, lost, moved, a running hash of all scopes, and empty, full, on_shipper, on_consignee by port."""
    uniforms = np.full(8 * (1 + model.ports), 0.5, np.float32)
    model.reset(uniforms[:0])
    booked, lost, moved, digest = 0, 0, 0, 0
    for _ in model.vessels:
        _, info = model.step(NOOP, uniforms)
    booked, lost = info["booked"], info["lost"]
    for k in range(159 * len(model.vessels)):
        _, _, load, discharge = model.scope()
        digest = (digest * 31 + load * 7 + discharge) % 1_000_003
        _, info = model.step((5 * k + 3) % 21, uniforms)
        if info:
            booked, lost, moved = (
                booked + info["booked"],
                lost + info["lost"],
                moved + info["loaded"] + info["discharged"],
            )
    for _ in model.vessels:
        _, _, load, discharge = model.scope()
        digest = (digest * 31 + load * 7 + discharge) % 1_000_003
        model.time += 1
    ports = [
        (
            model.empty[i],
            sum(model.full[i].values()),
            sum(b[3] for b in model.packing if b[1] == i),
            sum(b[2] for b in model.unpacking if b[1] == i),
        )
        for i in range(model.ports)
    ]
    return int(booked), int(lost), int(moved), digest, tuple(x for port in ports for x in port)


# ---- agreement with the NumPy models --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, "faithful"])
def test_both_numpy_models_agree_step_by_step(seed):
    if seed == "faithful":
        params, key, wishes = FAITHFUL, jax.random.key(7), jnp.arange(ENV.horizon, dtype=jnp.int32) * 5 % A
        trace = jax.device_get(play(params, key, wishes))
    else:
        params, key, trace = episode(seed)
    seen, _, action, uniforms, reward, info, _ = trace
    start = np.asarray(sampling.uniforms(key, sampling.RESET_INDEX, ENV.num_reset_uniforms))
    # Orders round to whole containers: a rounding error may tip one or two of 20 000, and shift later ones.
    whole = 0.0 if seed == "faithful" else 3.0
    tolerances = Tolerances(
        tokens=(1e-7, 1e-5 + whole / 20_000), reward=(0.0, 1e-5 + 4 * whole / 1000), figures=(0.0, 4 * whole)
    )
    recording = Recording.of(params, start, seen, action, uniforms, reward, info)
    check_numpy_model(ENV, LoopModel, BatchModel, [recording], tolerances)


# ---- orders ---------------------------------------------------------------------------------------------------------


def test_orders_are_whole_and_split_as_stated():
    rng = np.random.default_rng(3)
    params = sample(jax.random.key(3))
    noise, day = rng.random((400, 1 + P)).astype(np.float32), np.arange(400)
    found = np.asarray(jax.jit(jax.vmap(ENV.orders, in_axes=(0, 0, None)))(day, noise, params), np.float64)
    exact = {name: x.astype(np.float64) for name, x in leaves_by_name(params).items()}
    e = 2.0 * noise.astype(np.float64) - 1.0
    number = np.floor(exact["orders"][day % 112] * (1 + exact["order_noise"] * e[:, 0]))
    share = exact["source"][day % 112 // 7] * (1 + exact["source_noise"] * e[:, 1:])
    lane = (share / share.sum(1, keepdims=True))[:, ENV.services.origin] * exact["destination"] * number[:, None]
    np.testing.assert_array_equal(found, np.round(found))
    # What is split is split to the last container; float32 may tip the total by one.
    assert np.abs(found.sum(1) - number).max() <= 1
    # Exactly: ports in order take their share rounded up of what the ports before them left, then each port's lanes.
    expected = np.zeros_like(found)
    for row, total, shares in zip(expected, number, share / share.sum(1, keepdims=True), strict=True):
        left = total
        for port in range(P):
            taken = min(np.ceil(total * shares[port] - 1e-3), left)
            left -= taken
            for k in np.flatnonzero(ENV.services.origin == port):
                room = taken - row[ENV.services.origin == port].sum()
                row[k] = min(np.ceil(taken * exact["destination"][k] - 1e-3), room)
    # float32 may tip the total, or a share next to a whole number, by one; nearly everywhere it does not.
    assert (found != expected).mean() < 0.01
    assert np.abs(found - expected).max() <= 1
    # Rounding up goes to the lanes of low number at the expense of the last: less than one a lane before it.
    assert np.abs(found - lane).max() < P + L
    assert found.min() >= 0
    mean = np.stack([np.asarray(ENV.mean_orders(jnp.int32(d), params)) for d in range(0, 112, 16)])
    many = jax.jit(jax.vmap(jax.vmap(ENV.orders, in_axes=(None, 0, None)), in_axes=(0, None, None)))
    average = np.asarray(many(jnp.arange(0, 112, 16), rng.random((4000, 1 + P)).astype(np.float32), params)).mean(1)
    # Dividing by the sum of noisy shares draws them a little together; the total keeps its mean.
    np.testing.assert_allclose(average.sum(1), mean.sum(1), rtol=0.01)
    np.testing.assert_allclose(average, mean, atol=0.07 * mean.sum(1).max())


def test_without_noise_the_4p_split_is_the_published_one():
    env = Maritime("4p")
    wanted = np.asarray(env.orders(jnp.int32(0), jnp.full((5,), 0.5), env.default_params))
    lanes = dict(zip(zip(env.services.origin.tolist(), env.services.target.tolist(), strict=True), wanted, strict=True))
    assert {k: x for k, x in lanes.items() if x} == {(0, 2): 660.0, (1, 2): 268.0, (1, 3): 1072.0}


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.settings(max_examples=8)
@hypothesis.given(SEEDS)
def test_containers_are_neither_made_nor_lost_and_orders_either_served_or_lost(seed):
    params, _, (_, state, action, _, reward, info, after) = episode(seed)
    for stock in (state.stock, after.stock):
        np.testing.assert_array_equal(containers(stock), cim.CONTAINERS)
        for leaf in jax.tree.leaves(stock):
            assert leaf.min() >= 0
            np.testing.assert_array_equal(leaf, np.round(leaf))
        assert (stock.aboard + stock.laden.sum(-1) <= params.capacity).all()
    np.testing.assert_array_equal(info["booked"], info["served"] + info["lost"])
    # No choice moves more than there is, and none that is a no-op moves anything.
    turn = np.arange(ENV.horizon) % V
    moved = (after.stock.aboard - state.stock.aboard)[np.arange(ENV.horizon), turn][turn < V - 1]
    before = state.stock.aboard[np.arange(ENV.horizon), turn][turn < V - 1]
    ashore = np.sum(state.stock.empty, -1)[turn < V - 1]
    assert (-moved <= before).all()
    assert (moved <= ashore).all()
    assert (moved[action[turn < V - 1] == NOOP] == 0).all()
    assert np.abs(moved).max() > 0
    paid = (info["served"] - info["lost"] - 0.05 * (info["loaded"] + info["discharged"])) / 1000
    np.testing.assert_allclose(reward, paid, rtol=1e-5, atol=1e-4)


def test_a_call_is_described_by_what_it_does_to_its_port():
    _, _, (seen, state, action, *_, after) = episode(0)
    times = np.arange(ENV.horizon)
    np.testing.assert_array_equal(seen.column("is_turn")[:, P:-1], times[:, None] % V == np.arange(V))
    np.testing.assert_array_equal(seen.column("is_turn")[:, :P], 0.0)
    at = np.asarray(ENV.services.here(times // V))[times, times % V].argmax(-1)
    np.testing.assert_array_equal(seen.action_target, at[:, None].repeat(A, 1))
    movable = seen.action_mask.sum(1) > 1
    np.testing.assert_array_equal(seen.column("is_candidate")[times, at], movable)
    np.testing.assert_array_equal(seen.column("is_candidate").sum(1), movable)
    # What lands is positive and in the port afterwards (a week's last call is followed by its days).
    landed = (after.stock.empty - state.stock.empty)[times, at]
    calls = times % V < V - 1
    landed, signed = landed[calls], seen.action_column("signed")[times, action][calls]
    assert (landed * signed >= 0).all()
    assert (landed[signed == 0] == 0).all()
    whole = np.abs(signed) == 1
    np.testing.assert_array_equal(np.sign(landed[whole]), signed[whole])
    np.testing.assert_array_equal(seen.action_column("is_noop") == 1, np.arange(A)[None].repeat(ENV.horizon, 0) == NOOP)
    # Urgent is the port that lacks most of what it was asked for last week.
    short = np.maximum(state.booked - state.stock.empty - state.stock.consignee.sum(1), 0)
    largest = short.max(1, keepdims=True)
    assert (largest > 0).any()
    np.testing.assert_allclose(seen.column("urgency")[:, :P], short / np.maximum(largest, 1), rtol=1e-6)
    assert seen.column("urgency")[:, P:].max() == 0


def test_orders_do_not_depend_on_choices():
    params, key, (*_, info, after) = episode(0)
    *_, untouched, still = play(params, key, jnp.full((ENV.horizon,), NOOP, jnp.int32))
    np.testing.assert_array_equal(info["booked"], untouched["booked"])
    np.testing.assert_array_equal(after.booked, still.booked)
    assert (info["served"] != untouched["served"]).any()


@hypothesis.settings(max_examples=5)
@hypothesis.given(SEEDS, st.integers(1, 10))
def test_more_empties_at_the_start_never_serve_fewer(seed, more):
    """Without choices and with ample vessels, every port's containers come back sooner or in greater number."""
    ample = sample(jax.random.key(seed)).replace(capacity=jnp.full((V,), 1e6))
    wishes = jnp.full((ENV.horizon,), NOOP, jnp.int32)
    served = []
    for params in (ample, ample.replace(start=ample.start + 1000.0 * more)):
        *_, info, _ = play(params, jax.random.key(seed), wishes)
        served.append(float(info["served"].sum()))
    assert served[1] >= served[0]
    assert served[1] > served[0] or float(info["lost"].sum()) == 0


def test_services_that_mirror_each_other_give_mirrored_worlds():
    """5p's two routes are alike: exchanging D1, D2 with S1, S2 and their vessels exchanges everything that happens."""
    ports, vessels = np.array([2, 3, 0, 1, 4]), np.array([3, 4, 5, 0, 1, 2])
    lanes = {(i, j): k for k, (i, j) in enumerate(zip(ENV.services.origin, ENV.services.target, strict=True))}
    swap = np.array([lanes[ports[i], ports[j]] for i, j in zip(ENV.services.origin, ENV.services.target, strict=True)])
    # The transfer port exports nothing, so that the order in which its lanes are served does not matter.
    source = jnp.asarray([0.125, 0.25, 0.375, 0.25, 0.0])
    params = sample(jax.random.key(5)).replace(
        orders=jnp.full((112,), 4000.0),
        source=jnp.tile(source, (16, 1)),
        destination=jnp.where(ENV.services.origin == 4, 0.25, 0.5),
        order_noise=jnp.float32(0),
        source_noise=jnp.zeros((P,)),
    )
    mirrored = params.replace(
        source=params.source[:, ports],
        destination=params.destination[swap],
        capacity=params.capacity[vessels],
        start=params.start[ports],
        shipper_days=params.shipper_days[ports],
        consignee_days=params.consignee_days[ports],
    )
    # Where both routes' vessels meet, who comes first matters; choices are made elsewhere.
    wishes = np.random.default_rng(1).integers(0, A, (ENV.num_periods, V))
    for week in range(ENV.num_periods):
        wishes[week, ENV.services.port[week % ENV.services.cycle] == 4] = NOOP
    one, other = (
        jax.device_get(play(p, jax.random.key(0), jnp.asarray(w.reshape(-1), jnp.int32)))[6]
        for p, w in ((params, wishes), (mirrored, wishes[:, vessels]))
    )
    end = slice(V - 1, None, V)
    np.testing.assert_array_equal(one.stock.empty[end][:, ports], other.stock.empty[end])
    np.testing.assert_array_equal(one.stock.aboard[end][:, vessels], other.stock.aboard[end])
    np.testing.assert_array_equal(one.stock.laden[end][:, vessels][:, :, ports], other.stock.laden[end])
    np.testing.assert_array_equal(one.lost[end][:, ports], other.lost[end])
    assert np.abs(one.stock.empty - other.stock.empty).max() > 0


def test_delays_are_those_of_the_task():
    """One lane, one order: full f days later, empty at the other end g days after the call."""
    services = ENV.services
    for pack, unpack in ((1, 3), (3, 1)):
        stock = services.start(jnp.asarray([100.0, 0, 0, 0, 0]))
        k = list(zip(services.origin.tolist(), services.target.tolist(), strict=True)).index((0, 4))
        wanted = jnp.zeros((L,)).at[k].set(100.0)
        full, empty = [], []
        for day in range(1, 29):
            stock, served = services.day(stock, wanted * (day == 1), jnp.full((P,), float(pack)))
            full.append(float(stock.full[k]))
            empty.append(float(stock.empty[4]))
            if day % 7 == 0:
                stock = services.calls(stock, jnp.int32(day // 7), jnp.full((V,), 1e3), jnp.full((P,), float(unpack)))
            assert float(served[k]) == (100.0 if day == 1 else 0.0)
        assert full.index(100.0) == pack  # the order was made on day 1, index 0
        # D1 is called at every week; from there the vessel reaches T1 two calls later.
        assert empty.index(100.0) + 1 == 7 * 3 + unpack


# ---- plans and bounds -----------------------------------------------------------------------------------------------


def test_ascend_finds_the_top_of_a_hill_it_can_reach():
    top = jnp.asarray([[0.2, 0.7], [0.5, 0.9]])
    shares, value = jax.jit(
        lambda: keep_shares.ascend(lambda x: 3.0 - jnp.sum((x - top) ** 2), jnp.full((2, 2), 0.5), 200, 0.3)
    )()
    np.testing.assert_allclose(shares, top, atol=0.01)
    assert 2.999 < float(value) <= 3.0


def test_forecast_of_keeping_everything_is_the_noise_free_episode_without_choices():
    orders_ = jnp.stack([ENV.mean_orders(jnp.int32(0), FAITHFUL)] * (1 + 7 * ENV.num_periods))
    value = ENV.services.forecast(jnp.ones((ENV.num_periods - 1, V)), orders_, FAITHFUL)
    reward = play(FAITHFUL, jax.random.key(0), jnp.full((ENV.horizon,), NOOP, jnp.int32))[4]
    np.testing.assert_allclose(value / 1000, reward[V:].sum(), rtol=1e-5)


@pytest.mark.parametrize("network", ["4p", "5p", "6p"])
def test_no_order_need_be_lost_at_level_0(network):
    env = Maritime(network)
    daily = np.asarray(env.mean_orders(jnp.int32(0), env.default_params), np.float64)
    days = 8 + 7 * 16
    _, lost = most_served(constraints(env, env.default_params, days), np.tile(daily, (days, 1)), move_cost=0.0)
    assert abs(lost) < 1e-3


def test_as_many_containers_are_needed_as_littles_law_says():
    """4p: orders a day times the days a container is away.

    That is a week for every stop there and back, one with the shipper and until the call, one with the consignee and
    until the call (the programme lets empties be ordered on the day they are landed).
    """
    env = Maritime("4p")
    params, daily = env.default_params, np.asarray(env.mean_orders(jnp.int32(0), env.default_params), np.float64)
    needed = np.zeros(env.num_ports)
    for (i, j), rate in zip(env.services.lanes, daily, strict=True):
        route = next(r for r in env.network.routes if i in r and j in r)
        # There and back is once round the route: the vessels sail in one direction.
        needed[i] += rate * WEEK * (len(route) + 2)
    assert needed.sum() == 660 * 28 + 1340 * 35 < cim.CONTAINERS
    for share in (1.0, 0.99):
        task = params.replace(start=jnp.asarray(share * needed, jnp.float32))
        orders = np.tile(daily, (8 + WEEK * 16, 1))
        _, lost = most_served(constraints(env, task, len(orders)), orders, move_cost=0.0)
        # What is missing is missed once in each of the three cycles that fit.
        np.testing.assert_allclose(lost, 3 * (1 - share) * needed.sum(), rtol=1e-4, atol=1e-3)


def test_reference_comes_near_the_linear_programme():
    """On new tasks, against the best with perfect foresight of the noise and divisible containers."""
    gained, possible, planned, fluid = 0.0, 0.0, 0.0, 0.0
    for seed in range(3):
        params, key = sample(jax.random.key(seed)), jax.random.key(seed + 1)
        value, reward, early, mean = (np.asarray(x) for x in follow(params, key))
        gained += reward
        possible += 1000.0 * hindsight(ENV, params, key[None])[0]
        # The forecast begins with week 1; before it nothing can be chosen.
        planned += value + early
        fluid += most_served(constraints(ENV, params, len(mean)), mean.astype(np.float64), float(params.move_cost))[0]
    print(f"reference / bound {gained / possible:.4f}, plan / programme {planned / fluid:.4f}")
    assert planned <= fluid * 1.0005
    assert planned >= 0.92 * fluid
    assert 0.87 * possible <= gained <= possible * 1.0005


@jax.jit
def follow(params, key):
    """Of the plan: its forecast, its return, what week 0 earns on mean orders [containers]; and mean orders by day."""
    plan = ENV.solve(params)
    mean = jax.vmap(ENV.mean_orders, in_axes=(0, None))(jnp.arange(1 + 7 * ENV.num_periods), params)

    def body(state, time):
        action = ENV.reference_action(plan, state, params, key)
        _, state, reward, _, _ = ENV.step_env(key, state, action, params)
        return state, reward

    def day(stock, wanted):
        stock, served = ENV.services.day(stock, wanted, params.shipper_days)
        return stock, jnp.sum(2.0 * served - wanted)

    _, reward = jax.lax.scan(body, ENV.reset_env(key, params)[1], jnp.arange(ENV.horizon))
    _, early = jax.lax.scan(day, ENV.services.start(params.start), mean[:8])
    return ENV.services.forecast(plan, mean, params), 1000.0 * reward.sum(), early.sum(), mean


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "7p"}, "must be one of 4p, 5p, 6p"),
        ({"num_periods": 1}, "from 2 to 10000, got 1"),
        ({"num_periods": 1.5}, "whole number"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Maritime(**arguments)


def test_ports_that_share_two_routes_are_refused():
    with pytest.raises(ValueError, match="more than one route"):
        liner_services.Services(((0, 1), (1, 0, 2)), ((0, 0), (1, 0)), 3)


def test_delays_beyond_the_pipeline_are_never_drawn():
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(9), 64))
    for days in (tasks.shipper_days, tasks.consignee_days):
        assert set(np.unique(days)) == set(range(1, MAX_DELAY + 1))
    np.testing.assert_allclose(np.asarray(tasks.source).sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(tasks.destination) @ ENV.services.from_port, 1.0, rtol=1e-5)
    assert np.asarray(tasks.source).min() >= -1e-6
