"""Vehicle fleet: the reference against an exact optimum, linear programmes, and what a few episodes tell."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks.quality.oracles.vehicle_fleet import best_flows, clairvoyant, requests
from envs_jax import policies, scoring
from envs_jax import rollout as engine
from envs_jax.domains.vehicle_fleet import SMOOTHING, VehicleFleet
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.testing import leaves_by_name
from tests.envs_jax.fleet_rules import with_flows

ENV = VehicleFleet()
N, P = ENV.num_regions, ENV.num_periods
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
PAIR = VehicleFleet(rows=1, columns=2, num_periods=4, max_requests=4)
sample_many = jax.jit(jax.vmap(ENV.sample_params))


def exact_values(params):
    """Backward induction over all states of :data:`PAIR`: what the best and the reference policy earn in all."""
    p, env = leaves_by_name(params), PAIR
    fleet, cost, counts = int(p["initial"].sum()), float(p["cost"]), np.arange(env.max_requests)
    # Idle vehicles of both regions, those that arrive at the next matching, and those at the one after it.
    states = [s for s in itertools.product(range(fleet + 1), repeat=6) if sum(s) == fleet]
    plan = env.solve(params)
    _, blank = env.reset_env(jax.random.key(0), params)

    def act(time, world):
        arriving = blank.arriving.at[:2].set(world[2:].reshape(2, 2))
        return env.reference_action(
            plan, blank.replace(time=time, idle=world[:2], arriving=arriving), params, blank.key
        )

    pick = jax.jit(jax.vmap(act, in_axes=(None, 0)))

    def send(state, turn, action):
        amount = [0, state[turn] // 2, state[turn]][action]
        after = list(state)
        after[turn] -= amount
        after[4 + 1 - turn] += amount  # one period of driving: there for the matching after the next
        return tuple(after), cost * amount

    def law(rate):
        mass = stats.poisson.pmf(counts, rate)
        return np.append(mass[:-1], 1 - mass[:-1].sum())

    def match(state, value, t):
        """Expected value of a state in which all choices are made."""
        idle, total = [state[0] + state[2], state[1] + state[3]], 0.0
        net = p["price"][t] - cost * p["trip_time"][t]
        chance = np.outer(law(p["rate"][t, 0, 1]), law(p["rate"][t, 1, 0]))
        for a, b in itertools.product(counts, counts):
            out, back = min(idle[0], a), min(idle[1], b)
            following = (idle[0] - out, idle[1] - back, state[4], state[5], back, out)
            total += chance[a, b] * (out * net[0, 1] + back * net[1, 0] + value[following])
        return total

    best = followed = dict.fromkeys(states, 0.0)
    for t in reversed(range(env.num_periods)):
        ends = [{s: match(s, value, t) for s in states} for value in (best, followed)]
        theirs = [
            dict(zip(states, np.asarray(pick(2 * t + turn, jnp.array(states))).tolist(), strict=True))
            for turn in (0, 1)
        ]
        for turn in (1, 0):
            every = {s: [send(s, turn, action) for action in range(env.num_actions)] for s in states}
            wise = {s: max(ends[0][after] - paid for after, paid in every[s]) for s in states}
            theirs_now = {s: every[s][theirs[turn][s]] for s in states}
            ends = [wise, {s: ends[1][after] - paid for s, (after, paid) in theirs_now.items()}]
        best, followed = ends
    start = (*p["initial"].tolist(), 0, 0, 0, 0)
    return best[start], followed[start]


@pytest.mark.parametrize(
    ("rates", "cost"), [((1.5, 0.3), 0.3), ((0.2, 1.2), 1.0), ((1.0, 1.0), 0.6), ((0.05, 2.0), 0.6)]
)
def test_reference_is_close_to_the_exact_optimum_of_a_small_city(rates, cost):
    rate = jnp.zeros((4, 2, 2)).at[:, 0, 1].set(rates[0]).at[:, 1, 0].set(rates[1])
    params = PAIR.default_params.replace(rate=rate, initial=jnp.array([2, 2]), cost=jnp.float32(cost))
    best, followed = exact_values(params)
    print(f"rates {rates}, cost {cost}: optimum {best:.3f}, reference {followed:.3f} ({followed / best:.4f})")
    assert 0.95 * best < followed <= best + 1e-4


@pytest.fixture(scope="module")
def population():
    tasks, keys = sample_many(jax.random.split(jax.random.key(0), 32)), jax.random.split(jax.random.key(1), (32, 2))
    return tasks, keys, jax.device_get(scoring.reference_returns(ENV, tasks, keys))


def of_task(tasks, index):
    return jax.tree.map(lambda x: x[index], tasks)


def test_no_policy_beats_hindsight_and_the_reference_beats_the_rest(population):
    tasks, keys, found = population
    episodes = [(of_task(tasks, b), keys[b]) for b in range(12)]
    bound = np.array([np.mean([clairvoyant(p, d) for d in requests(ENV, p, k)]) for p, k in episodes])
    means = {name: float(total[:12].mean()) for name, total in vars(found).items()}
    print(f"{ {k: round(v) for k, v in means.items()} }, hindsight {bound.mean():.0f}")
    for name, total in vars(found).items():
        assert (total[:12] <= bound + 1e-2).all(), name
    assert means["random"] < means["noop"] < means["heuristic"] < means["reference"]
    assert means["reference"] > 0.85 * bound.mean()


def test_reference_keeps_up_with_linear_programming_in_a_receding_horizon(population):
    tasks, keys, found = population
    totals = []
    for b in range(6):
        params = of_task(tasks, b)
        p = leaves_by_name(params)

        def plan(t, idle, due, p=p):
            ahead = slice(t, min(t + 8, P))
            tables = (p[k][ahead] for k in ("rate", "price", "trip_time"))
            return best_flows(idle, due, *tables, p["move_time"], p["cost"])[1]

        totals += [with_flows(ENV, params, d, plan) for d in requests(ENV, params, keys[b])]
    print(f"receding horizon {np.mean(totals):.0f}, reference {found.reference[:6].mean():.0f}")
    assert found.reference[:6].mean() > 0.97 * np.mean(totals)


def estimated(tasks, tokens):
    """Tasks with rates and fares as requests and fares in tokens ``[P, B, E, N+1, F]`` suggest: first of each period.

    Requests of a period follow from two running averages. Rates are those of independent origins and destinations, in
    windows of five periods; fares per unit of (time + 1) are taken to differ by origin alone.
    """
    rows = np.asarray(tokens, float)[..., :N, :]
    fleet = np.asarray(tasks.initial).sum(1)[None, :, None, None] / N
    asked = []
    for name in ("private_c", "private_d"):
        average = rows[..., COLUMN[name]] * fleet
        asked.append((average[:-1] + np.diff(average, axis=0) / SMOOTHING)[: P - 1].mean(2))  # [P - 1, B, N]
    window = np.abs(np.arange(P)[:, None] - np.arange(P - 1)) <= 2
    window = window / window.sum(1, keepdims=True)
    out, into = (np.maximum(np.einsum("pt,tbn->bpn", window, x), 0.02) for x in asked)
    pairs = np.ones((*out.shape, N)) * (1 - np.eye(N))
    for _ in range(30):  # iterative proportional fitting: independent laws without a diagonal
        pairs *= (out / pairs.sum(-1))[..., None]
        pairs *= (into / pairs.sum(-2))[..., None, :]
    fare = rows[..., COLUMN["unit_value"]][1:].mean((0, 2)) * np.asarray(tasks.price_scale)[:, None]
    time = np.asarray(tasks.trip_time) + 1.0
    length = (pairs * time).sum(-1).mean(1) / pairs.sum(-1).mean(1)
    each = np.clip(fare / length, 1.0, 3.0)
    price = 0.5 * (2.0 + each[:, None, :, None]) * time
    return tasks.replace(rate=jnp.asarray(pairs, jnp.float32), price=jnp.asarray(price, jnp.float32))


@pytest.mark.slow
def test_a_few_episodes_identify_what_is_hidden(population):
    tasks, keys, found = population
    others = sample_many(jax.random.split(jax.random.key(5), 256))
    average = jax.jit(jax.vmap(ENV.average_task, in_axes=(0, None)))(tasks, others)

    def random_act(seen, states, key):
        return (policies.random_actions(seen[0], key),)

    @jax.jit
    def watch(keys):
        look = lambda d, step: step.observation.tokens  # noqa: E731
        return engine.rollout((ENV,), (tasks,), (keys,), random_act, jax.random.key(7), record=look)[0][0]

    @jax.jit
    def mean_return(believed):
        plans = jax.vmap(ENV.solve)(believed)
        act = lambda seen, states, key: (policies.reference_actions(ENV, plans, states[0], believed, key),)  # noqa: E731
        (rewards,), _ = engine.rollout(
            (ENV,), (tasks,), (keys,), act, jax.random.key(0), record=lambda d, step: step.reward
        )
        return rewards.sum(0).mean()

    tokens = watch(jax.random.split(jax.random.key(8), (32, 5)))
    informed, floor = found.reference.mean(), found.floor.mean()
    score = lambda believed: float((mean_return(believed) - floor) / (informed - floor))  # noqa: E731
    ignorant, learned = score(average), [score(estimated(tasks, tokens[::N, :, :k])) for k in (1, 5)]
    print(f"average parameters {ignorant:.3f}, estimated from 1 and 5 random episodes {np.round(learned, 3)}")
    assert abs(score(tasks) - 1) < 1e-3
    assert ignorant < 0.65
    assert ignorant + 0.2 < learned[0] < learned[1] < 1
