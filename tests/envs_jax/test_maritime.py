"""Maritime: published figures, agreement with NumPy and with MARO, invariants, and linear programmes as bounds."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.contestants import leaves_by_name
from benchmarks.peers.maritime import Scalar, Vector
from envs_jax import sampling
from envs_jax.data import cim
from envs_jax.domains.maritime import Maritime
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import keep_shares, liner_services
from envs_jax.references.liner_services import MAX_DELAY, WEEK
from tests.envs_jax.maritime_programme import programme

ENV = Maritime()
P, V, L, A = ENV.num_ports, ENV.num_turns, ENV.num_lanes, ENV.num_actions
FAITHFUL = ENV.default_params
SEEDS = st.integers(0, 2**31 - 1)
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
NOOP = ENV.noop_action

sample = jax.jit(ENV.sample_params)
orders = jax.jit(ENV.orders)


def containers(stock):
    return sum(x.sum(tuple(range(1, x.ndim))) for x in jax.tree.leaves(stock))


@jax.jit
def play(params, key, wishes, start=None):
    """An episode of the wished choices ``i32[T]``, where they are legal: a trace ``[T]``, with what came after each."""

    def body(carry, step):
        seen, state = carry
        time, wish = step
        action = jnp.where(seen.action_mask[wish], wish, NOOP)
        uniforms = sampling.uniforms(key, time // V, ENV.num_uniforms)
        after, following, reward, _, info = ENV.step_env(key, state, action, params)
        return (after, following), (seen, state, action, uniforms, reward, info, following)

    first, state = ENV.reset_env(key, params)
    if start is not None:
        state = state.replace(stock=start, booked=jnp.zeros((P,)), lost=jnp.zeros((P,)))
        first = ENV.observation(state, params)
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


@functools.partial(jax.jit, static_argnames="env")
def without_moves(env, params):
    """Containers ordered and lost in 1120 days if nobody repositions: days 0..7, 158 weeks, 6 days."""
    quiet = lambda days: jnp.full((days, 1 + env.num_ports), 0.5)  # noqa: E731
    stock, booked, lost = env._days(env.services.start(params.start), jnp.int32(0), quiet(1 + WEEK), params)

    def week(carry, number):
        stock, booked, lost = carry
        stock = env.services.calls(stock, number, params.capacity, params.consignee_days)
        stock, more, fewer = env._days(stock, WEEK * number + 1, quiet(WEEK), params)
        return (stock, booked + more.sum(), lost + fewer.sum()), None

    (stock, booked, lost), _ = jax.lax.scan(week, (stock, booked.sum(), lost.sum()), jnp.arange(1, 159))
    stock = env.services.calls(stock, jnp.int32(159), params.capacity, params.consignee_days)
    _, more, fewer = env._days(stock, jnp.int32(WEEK * 159 + 1), quiet(WEEK - 1), params)
    return booked + more.sum(), lost + fewer.sum()


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
            assert tuple(map(int, without_moves(env, task))) == expected


def test_season_is_that_of_the_published_levels():
    # cos of level 0.3: 1500 on day 0, 2500 on day 56 (read in the source's configuration).
    wave = cim.orders(True)
    assert (wave[0], wave[56], wave.argmin(), wave.argmax()) == (1500, 2500, 0, 56)
    assert np.floor(wave).sum() * 10 == 2_239_460
    assert (cim.orders(False) == 2000).all()


MARO = {
    ("4p", 0): (2_242_000, 1_460_162, 4_295_464, 535_634, (0, 0, 0, 0, 0, 0, 0, 0, 30267, 0, 0, 3481, 14816, 0, 0, 3400)),
    ("5p", 0): (
        *(2_242_000, 1_717_347, 4_555_227, 310_896),
        (0, 0, 0, 0, 0, 0, 0, 0, 5399, 0, 0, 403, 3788, 0, 0, 500, 43333, 0, 1000, 2362),
    ),
    ("6p", 0): (
        *(2_242_000, 1_341_025, 5_276_057, 539_881),
        (0, 0, 0, 0, 13383, 0, 340, 0, 16331, 0, 0, 1468, 6581, 0, 0, 1170, 0, 0, 528, 2380, 0, 0, 245, 3432),
    ),
    ("4p", 3): (2_240_960, 1_777_365, 1_882_524, 343_214, (0, 0, 0, 0, 0, 0, 0, 0, 10604, 0, 0, 218, 64084, 0, 0, 1148)),
    ("5p", 3): (
        *(2_240_960, 1_877_875, 1_361_165, 203_641),
        (0, 0, 0, 0, 0, 0, 0, 0, 77159, 0, 0, 407, 1735, 0, 0, 0, 2462, 0, 750, 274),
    ),
}
"""What MARO itself (commit 34c2dc9, built and run for this) gives; see :func:`whole_run` for what it is."""


@pytest.mark.parametrize(("network", "level"), MARO)
def test_totals_and_stocks_equal_those_of_maro(network, level):
    """The k-th call moves ((5 k + 3) mod 21) - 10 tenths, none on the last day; 1121 days."""
    peer = Scalar(leaves_by_name(Maritime(network, season=level == 3, scarce=level == 3).default_params), 159, network)
    assert whole_run(peer) == MARO[network, level]


def whole_run(peer):
    """Booked, lost, moved, a running hash of all scopes, and empty, full, on_shipper, on_consignee by port."""
    uniforms = np.full(8 * (1 + peer.ports), 0.5, np.float32)
    peer.reset(uniforms)
    booked, lost, moved, digest = sum(peer.booked), sum(peer.lost), 0, 0
    for k in range(159 * len(peer.vessels)):
        _, _, load, discharge = peer.scope()
        digest = (digest * 31 + load * 7 + discharge) % 1_000_003
        _, info = peer.step((5 * k + 3) % 21, uniforms[: 7 * (1 + peer.ports)])
        if info:
            booked, lost, moved = (
                booked + info["booked"],
                lost + info["lost"],
                moved + info["loaded"] + info["discharged"],
            )
    for peer.time in range(peer.time, peer.time + len(peer.vessels)):
        _, _, load, discharge = peer.scope()
        digest = (digest * 31 + load * 7 + discharge) % 1_000_003
    ports = [
        (
            peer.empty[i],
            sum(peer.full[i].values()),
            sum(b[3] for b in peer.packing if b[1] == i),
            sum(b[2] for b in peer.unpacking if b[1] == i),
        )
        for i in range(peer.ports)
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
    scalar = Scalar(leaves_by_name(params))
    vector = Vector({name: np.stack([x, x]) for name, x in leaves_by_name(params).items()})
    scalar.reset(start)
    vector.reset(np.stack([start, start]))
    # Orders round to whole containers: a rounding error may tip one or two of 20 000, and shift later ones.
    whole = 0.0 if seed == "faithful" else 3.0
    for time in range(ENV.horizon):
        np.testing.assert_array_equal(scalar.action_mask(), seen.action_mask[time])
        np.testing.assert_allclose(scalar.tokens(), seen.tokens[time], atol=1e-5 + whole / 20_000, err_msg=f"{time}")
        np.testing.assert_allclose(vector.tokens()[1], seen.tokens[time], atol=1e-5 + whole / 20_000, err_msg=f"{time}")
        np.testing.assert_array_equal(vector.action_mask()[1], seen.action_mask[time])
        paid, figures = scalar.step(int(action[time]), uniforms[time])
        both, batch = vector.step(np.full(2, action[time]), np.stack([uniforms[time]] * 2))
        assert abs(paid - reward[time]) <= 1e-5 + 4 * whole / 1000
        assert abs(both[1] - reward[time]) <= 1e-5 + 4 * whole / 1000
        for name, x in figures.items():
            assert abs(x - info[name][time]) <= 4 * whole, name
            assert abs(batch[name][1] - info[name][time]) <= 4 * whole, name
