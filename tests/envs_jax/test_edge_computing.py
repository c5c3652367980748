"""Edge computing: published figures, closed forms, invariants, agreement with two independent NumPy models."""

import dataclasses
import functools
import itertools
import os
import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from benchmarks.numpy_models.edge_computing import BatchModel, LoopModel, one_server
from benchmarks.studies import offloading_bound
from envs_jax import policies, sampling, scoring
from envs_jax import rollout as engine
from envs_jax.domains.edge_computing import EdgeComputing
from envs_jax.references import offloading
from envs_jax.references.offloading import Graph, Rates
from envs_jax.testing import Recording, Tolerances, check_numpy_model

ENV = EdgeComputing()
N, S, P, W = ENV.num_turns, ENV.num_servers, ENV.num_periods, ENV.window
SEEDS = st.integers(0, 2**31 - 1)
PUBLISHED = Rates(link=jnp.full((1,), 0.875), server=jnp.full((1,), 10.0), device=jnp.float32(1.0))

sample = jax.jit(ENV.sample_params)
reset = jax.jit(ENV.reset_env)
step = jax.jit(ENV.step_env)
look = jax.jit(ENV.observation)
refer = jax.jit(ENV.reference_action)
applications = jax.jit(jax.vmap(ENV.application, in_axes=(0, None)))
spans = jax.jit(jax.vmap(offloading.makespan, in_axes=(None, None, 0)))


def application(seed, params=None):
    uniforms = np.random.default_rng(seed).random((1, N, 4), np.float32)
    return jax.tree.map(lambda x: x[0], applications(uniforms, ENV.default_params if params is None else params))


def some_rates(seed):
    return ENV.rates(sample(jax.random.key(seed)))


@functools.partial(jax.jit, static_argnames="length")
def episode(params, key, actions, length=ENV.horizon):
    """``actions i32[T]``, -1 for a random one: everything by time, and what came last."""

    def body(carry, xs):
        (seen, state), (time, action) = carry, xs
        random = policies.random_actions(seen, jax.random.fold_in(key, time))
        action = jnp.where(action < 0, random, action)
        uniforms = sampling.uniforms(key, time // N, ENV.num_uniforms)
        after, following, reward, _, info = ENV.step_env(key, state, action, params)
        return (after, following), (seen, state, action, uniforms, reward, info)

    last, trace = jax.lax.scan(body, ENV.reset_env(key, params), (jnp.arange(length), actions))
    return sampling.uniforms(key, sampling.RESET_INDEX, ENV.num_reset_uniforms), trace, last


# ---- closed forms -------------------------------------------------------------------------------------------------


def chain(size, result, linked):
    n = len(size)
    parents = np.eye(n, k=-1, dtype=bool) if linked else np.zeros((n, n), bool)
    return Graph(jnp.asarray(size, jnp.float32), jnp.asarray(result, jnp.float32), jnp.asarray(parents))


@pytest.mark.parametrize("linked", [False, True])
def test_tasks_on_one_server_are_a_two_machine_flow_shop(linked):
    # A chain on one server uploads ahead of its computation, so it takes as long as unrelated tasks.
    rng = np.random.default_rng(3)
    size, result = rng.uniform(10, 160, N), rng.uniform(5, 50, N)
    upload, work = size / 0.875, size / 10.0 * rng.uniform(0.5, 20)
    speed = size[0] / work[0]
    rates = PUBLISHED.replace(server=jnp.full((1,), speed, jnp.float32))
    done = [max(upload[: j + 1].sum() + work[j : i + 1].sum() for j in range(i + 1)) for i in range(N)]
    expected = max(d + e / 0.875 for d, e in zip(done, result, strict=True))
    plan = jnp.ones((1, N), jnp.int32)
    np.testing.assert_allclose(spans(chain(size, result, linked), rates, plan)[0], expected, rtol=1e-5)


def test_a_task_stays_home_just_when_that_is_sooner():
    choose = jax.jit(offloading.earliest_finish)
    graph = chain([80.0], [30.0], True)
    remote = 80 / 0.875 + 80 / 10.0 + 30 / 0.875
    for sooner, device in ((0, 80.0 / (remote - 0.01)), (1, 80.0 / (remote + 0.01))):
        rates = PUBLISHED.replace(device=jnp.float32(device))
        assert choose(graph, offloading.empty(1, 1), jnp.int32(0), rates) == sooner


def test_square_root_rule_splits_a_load_between_two_servers_for_least_delay():
    """M/M/1: least sum of rates over slack; the specification's figures for servers of 10 and 4, load 6."""
    speed, load = np.array([10.0, 4.0]), 6.0
    rule = speed - np.sqrt(speed) * (speed.sum() - load) / np.sqrt(speed).sum()
    np.testing.assert_allclose(rule, [5.0994, 0.9006], atol=5e-5)
    jobs = lambda first: sum(x / (m - x) for x, m in zip((first, load - first), speed, strict=True))  # noqa: E731
    found = optimize.minimize_scalar(jobs, bounds=(2.1, 5.9), method="bounded", options={"xatol": 1e-9})
    np.testing.assert_allclose(found.x, rule[0], atol=1e-5)


def test_the_published_fault_lets_entry_uploads_overlap():
    # Two entry tasks and their child, all sent: 70 MiB take 80 s up and 7 s to compute, 35 MiB 40 s back.
    graph = ([70.0] * 3, [35.0] * 3, [[], [], [0, 1]], [0, 1, 2], np.ones((1, 3)))
    # As it should be: sent at 80, 160, 240; computed at 87, 167, 247; home at 287.
    assert one_server(*graph)[0] == pytest.approx(287.0)
    # With the fault: both entries sent at 80, computed at 87 and 94; the child sent at 160, home at 207.
    assert one_server(*graph, entry_upload_free=True)[0] == pytest.approx(207.0)
    ours = Graph(jnp.full(3, 70.0), jnp.full(3, 35.0), jnp.asarray([[0, 0, 0], [0, 0, 0], [1, 1, 0]], bool))
    assert offloading.makespan(ours, PUBLISHED, jnp.ones(3, jnp.int32)) == pytest.approx(287.0)


# ---- the published figures ------------------------------------------------------------------------------------------


@pytest.mark.skipif("MRLCO_GRAPHS" not in os.environ, reason="MRLCO_GRAPHS must name data/meta_offloading_20")
@pytest.mark.parametrize(
    ("number", "local", "faulty", "mended", "greedy"),
    [(4, 1432.009, 1480.805, 1654.466, 837.017), (12, 1478.057, 1052.014, 1703.901, 808.917)],
)
def test_mean_makespans_of_the_published_graphs(number, local, faulty, mended, greedy):
    files = (pathlib.Path(os.environ["MRLCO_GRAPHS"]) / f"offload_random20_{number}").glob("*.gv")
    found = offloading_bound.published([offloading_bound.read_graph(file.read_text()) for file in files], 0)
    expected = {
        "all local": local,
        "all remote, as published": faulty,
        "all remote, mended": mended,
        "greedy": greedy,
    }
    assert {name: round(value, 3) for name, value in found.items()} == expected


def plain_times(graph, order, plan, fault):
    """When each result is home [s] with ``plan`` (1 offloads, by task): one server, published rates, task by task.

    A third telling of the model, with a calendar for every resource. ``fault``: uploads of tasks without parents are
    not entered in the uplink's.
    """
    calendar = {"device": [0.0], "uplink": [0.0], "server": [0.0]}
    home, sent, done = {}, {}, {}
    for i in order:
        parents = graph.parents[i]
        if not plan[i]:
            home[i] = max(calendar["device"] + [home[j] for j in parents]) + graph.size[i]
            calendar["device"].append(home[i])
            continue
        needs = [sent[j] if plan[j] else home[j] for j in parents]
        sent[i] = max(calendar["uplink"] + needs) + graph.size[i] * 8 / 7
        done[i] = max([*calendar["server"], sent[i]] + [done[j] for j in parents if plan[j]]) + graph.size[i] / 10
        home[i] = done[i] + graph.result[i] * 8 / 7
        calendar["server"].append(done[i])
        if parents or not fault:
            calendar["uplink"].append(sent[i])
    return home


def own_graphs(count, n):
    """Applications of the faithful instance as the published files tell them, drawn by the independent model."""
    leaves = {f.name: np.asarray(getattr(ENV.default_params, f.name)) for f in dataclasses.fields(ENV.default_params)}
    rng = np.random.default_rng(7)
    for _ in range(count):
        device = LoopModel(leaves)
        device.reset(rng.uniform(0.01, 0.99, 7 * n))
        yield offloading_bound.PublishedGraph(device.size, device.result, device.parents)


def test_figures_with_and_without_the_published_fault_are_those_of_all_plans_one_by_one():
    # What the tests above do to graphs that are not ours to publish, on graphs of our own generator and one by hand.
    by_hand = offloading_bound.PublishedGraph([80.0, 80.0, 80.0, 40.0], [1.0, 2.0, 1.0, 3.0], [[], [], [], [0, 1]])
    for graphs in ([by_hand], list(own_graphs(5, 8))):
        totals = dict.fromkeys(offloading_bound.published(graphs, 0), 0.0)
        for graph in graphs:
            n, order = len(graph.size), offloading_bound.rank_order(graph)
            spans = {
                fault: {
                    plan: max(plain_times(graph, order, plan, fault).values())
                    for plan in itertools.product((0, 1), repeat=n)
                }
                for fault in (False, True)
            }
            # Every plan, by the model that the figures come from, whose columns are places in the order.
            by_place = np.array([[plan[i] for i in order] for plan in spans[False]])
            tasks = (graph.size, graph.result, graph.parents, order, by_place)
            for fault, expected in spans.items():
                np.testing.assert_allclose(
                    one_server(*tasks, entry_upload_free=fault), [*expected.values()], rtol=1e-12
                )
            greedy = [0] * n  # earliest finish, where the tasks that are not placed yet do not count
            for place, i in enumerate(order):
                local, remote = (
                    plain_times(graph, order[: place + 1], {**dict(enumerate(greedy)), i: away}, False)[i]
                    for away in (0, 1)
                )
                greedy[i] = int(remote < local)
            best, faulty = (min(spans[fault].values()) for fault in (False, True))
            assert faulty <= best <= spans[False][tuple(greedy)]
            totals["all local"] += spans[False][(0,) * n]
            totals["all remote, as published"] += spans[True][(1,) * n]
            totals["all remote, mended"] += spans[False][(1,) * n]
            totals["greedy"] += spans[False][tuple(greedy)]
            for name, value in (("as published", faulty), ("mended", best)):
                totals[f"optimum, {name}"] = totals.get(f"optimum, {name}", 0.0) + value
        found = offloading_bound.published(graphs, len(graphs))
        assert found.pop("greedy of those with an optimum") == found["greedy"]
        assert found == pytest.approx({name: total / len(graphs) for name, total in totals.items()}, rel=1e-9)
        print(found)
        assert found["all remote, as published"] < found["all remote, mended"]
        # By hand the results are small: offloading all entry tasks is best if their uploads overlap for free, else not.
        assert graphs != [by_hand] or found["optimum, as published"] < 0.9 * found["optimum, mended"]


def test_a_published_file_is_read_as_its_format_says():
    text = """// ./daggen --dot -n 3
    digraph G {
      1 [size="2097152", alpha="0.14", expect_size="1048576"]
      1 -> 3 [size ="1048576"]
      2 [size="4194304", alpha="0.01", expect_size="524288"]
      2 -> 3 [size ="524288"]
      3 [size="1048576", alpha="0.07", expect_size="1048576"]
    }"""
    graph = offloading_bound.read_graph(text)
    assert graph == offloading_bound.PublishedGraph([2.0, 4.0, 1.0], [1.0, 0.5, 1.0], [[], [], [0, 1]])
    assert offloading_bound.rank_order(graph) == [1, 0, 2]
    with pytest.raises(ValueError, match="numbered"):
        offloading_bound.read_graph(text.replace("  2 [", "  5 ["))


def test_published_instance_runs_to_its_makespan_step_by_step():
    env = EdgeComputing(num_servers=1, num_periods=2)
    params = env.default_params
    assert (params.link_rate[0], params.server_speed[0], params.device_speed) == (7.0, 10.0, 1.0)
    _, start = jax.jit(env.reset_env)(jax.random.key(4), params)
    choose, advance = jax.jit(env.choose), jax.jit(env.advance)
    graph = jax.device_get(start.graph)
    parents = [list(np.flatnonzero(row)) for row in graph.parents]
    plans = np.stack([np.zeros(N), np.ones(N), np.arange(N) % 2]).astype(int)
    expected = one_server(graph.size.astype(float), graph.result.astype(float), parents, range(N), plans)
    assert expected[0] == pytest.approx(graph.size.sum())
    for plan, makespan in zip(plans, expected, strict=True):
        state = start
        for turn, action in enumerate(plan):
            state = choose(state, jnp.int32(turn), jnp.int32(action), params)
        _, reward, info = advance(state, jnp.full((env.num_uniforms,), 0.5), params)
        assert info["makespan"] == pytest.approx(makespan, rel=1e-5)
        assert reward == pytest.approx(-makespan / graph.size.sum(), rel=1e-5)


# ---- the generator of applications ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # Mean edges, largest numbers of parents and entry tasks of the published sets 4, 12, 17, 100 graphs each.
    ("fat", "density", "edges", "most", "entries"),
    [(0.5, 0.7, 30.08, 3.40, 3.54), (0.8, 0.6, 33.26, 5.67, 9.18), (0.4, 0.4, 19.52, 1.87, 2.69)],
)
def test_applications_look_like_the_published_ones(fat, density, edges, most, entries):
    params = ENV.default_params.replace(fat=jnp.float32(fat), density=jnp.float32(density))
    graph, rank = jax.device_get(applications(jax.random.uniform(jax.random.key(0), (2000, N, 4)), params))
    parents = graph.parents
    assert abs(parents.sum((1, 2)).mean() / edges - 1) < 0.06
    assert abs(parents.sum(2).max(1).mean() / most - 1) < 0.06
    assert abs((parents.sum(2) == 0).sum(1).mean() / entries - 1) < 0.08
    assert (np.diff(rank, axis=1) <= 0).all()
    assert not np.triu(parents).any()  # parents come first
    assert graph.result.min() >= 5
    assert graph.result.max() <= 50
    np.testing.assert_allclose(graph.result, 0.3 * graph.size, rtol=1e-5)


def test_upward_rank_is_the_longest_path_to_the_end():
    graph, rank = application(1)
    own = np.minimum(graph.size, (graph.size + graph.result) / 0.875 + graph.size / 10)

    def longest(i):
        return own[i] + max((longest(c) for c in np.flatnonzero(graph.parents[:, i])), default=0.0)

    np.testing.assert_allclose(rank, [longest(i) for i in range(N)], rtol=1e-5)


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(SEEDS)
def test_precedence_and_capacity_hold_and_nothing_waits_without_a_reason(seed):
    params, rng = sample(jax.random.key(seed)), np.random.default_rng(seed)
    actions = jnp.asarray(rng.choice(S + 1, ENV.horizon, p=rng.dirichlet(np.ones(S + 1))), jnp.int32)
    _, (_, state, action, *_), _ = jax.device_get(episode(params, jax.random.key(seed), actions))
    period = rng.integers(P)
    state = jax.tree.map(lambda x: x[period * N : (period + 1) * N], state.replace(key=None))
    place = action[period * N : (period + 1) * N]
    graph, factors = jax.tree.map(lambda x: x[0], (state.graph, state.noise))
    rates = ENV.rates(params)
    # Times of all tasks but the last, as they stood before the last choice.
    home, done = state.schedule.home[-1].astype(float), state.schedule.done[-1].astype(float)
    free = {}  # when each link and processor is free again
    for i in range(N - 1):
        k, parents = place[i], np.flatnonzero(graph.parents[i])
        work = factors[i, 1] * graph.size[i] / (rates.server[k - 1] if k else rates.device)
        data = max((home[j] for j in parents if k == 0 or place[j] != k), default=0.0)
        if k == 0:
            start = max(free.get("device", 0.0), data)
            np.testing.assert_allclose(home[i] - work, start, rtol=1e-5, atol=1e-2)
            free["device"] = home[i]
            continue
        there = max((done[j] for j in parents if place[j] == k), default=0.0)
        sent = max(free.get(("link", k), 0.0), data) + factors[i, 0] * graph.size[i] / rates.link[k - 1]
        start = max(sent, there, free.get(("processor", k), 0.0))
        np.testing.assert_allclose(done[i] - work, start, rtol=1e-5, atol=1e-2)
        back = factors[i, 2] * graph.result[i] / rates.link[k - 1]
        np.testing.assert_allclose(home[i] - back, done[i], rtol=1e-5, atol=1e-2)
        free["link", k], free["processor", k] = sent, done[i]
    span = state.schedule.home.max(-1)
    assert (np.diff(span) >= 0).all()


@hypothesis.given(SEEDS)
def test_makespans_scale_and_keep_to_the_lower_bound(seed):
    rng = np.random.default_rng(seed)
    (graph, _), rates = application(seed), some_rates(seed)
    plans = jnp.asarray([*rng.integers(0, S + 1, (8, N)).tolist(), [0] * N], jnp.int32)
    base = np.asarray(spans(graph, rates, plans))
    assert base[-1] == pytest.approx(float(graph.size.sum() / rates.device), rel=1e-5)
    assert (base >= offloading.lower_bound(graph, rates) * (1 - 1e-5)).all()
    larger = graph.replace(size=3 * graph.size, result=3 * graph.result)
    np.testing.assert_allclose(spans(larger, rates, plans), 3 * base, rtol=1e-4)
    np.testing.assert_allclose(spans(graph, jax.tree.map(lambda x: 2 * x, rates), plans), base / 2, rtol=1e-4)


@hypothesis.given(SEEDS)
def test_servers_are_exchangeable(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(S)
    params, key = sample(jax.random.key(seed)), jax.random.key(seed + 1)
    other = params.replace(link_rate=params.link_rate[order], server_speed=params.server_speed[order])
    renamed = np.append(0, 1 + np.argsort(order))  # what server k of ``params`` is called in ``other``
    actions = rng.integers(0, S + 1, ENV.horizon)
    _, (seen, state, _, _, reward, _), _ = episode(params, key, jnp.asarray(actions, jnp.int32))
    _, (seen_o, state_o, _, _, reward_o, _), _ = episode(other, key, jnp.asarray(renamed[actions], jnp.int32))
    np.testing.assert_allclose(reward, reward_o, rtol=1e-6)
    rows = np.concatenate([[0], 1 + order, np.arange(1 + S, ENV.num_tokens)])
    np.testing.assert_allclose(np.asarray(seen.tokens)[:, rows], seen_o.tokens, rtol=1e-5, atol=1e-6)
    for time in rng.integers(0, ENV.horizon, 5):
        now, now_o = (jax.tree.map(lambda x, t=time: x[t], s) for s in (state, state_o))
        choice = refer(ENV.solve(params), now, params, key)
        assert refer(ENV.solve(other), now_o, other, key) == renamed[choice]


# ---- the environment against its NumPy models -----------------------------------------------------------------------


def models_agree(params, key, actions):
    start, trace, (final, _) = jax.device_get(episode(params, key, actions))
    seen, _, actions, uniforms, rewards, info = trace
    recording = Recording.of(params, start, seen, actions, uniforms, rewards, info, final)
    tolerances = Tolerances(tokens=(1e-4, 2e-5), reward=(1e-4, 0.0), figures=(1e-4, 0.0))
    check_numpy_model(ENV, LoopModel, BatchModel, [recording], tolerances)


@pytest.mark.parametrize("action", [-1, 0, S])
def test_agrees_with_the_independent_models_on_the_faithful_instance(action):
    models_agree(ENV.default_params, jax.random.key(5), jnp.full((ENV.horizon,), action, jnp.int32))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_independent_models_on_sampled_tasks(seed):
    # Random choices; one server alone at the ends of the ranges, where features are clipped.
    params = sample(jax.random.key(seed))
    action = -1
    if seed == 3:
        action = 2
        params = params.replace(link_rate=jnp.full((S,), 0.3), server_speed=jnp.full((S,), 0.2))
    models_agree(params, jax.random.key(100 + seed), jnp.full((ENV.horizon,), action, jnp.int32))


# ---- policies -------------------------------------------------------------------------------------------------------


def test_small_applications_are_solved_by_trying_all_plans():
    env = EdgeComputing(num_tasks=7, num_servers=2, window=4)
    plans = jnp.asarray(list(itertools.product(range(3), repeat=7)), jnp.int32)

    @jax.jit
    @jax.vmap
    def solve(key):
        params = env.sample_params(key)
        graph, _ = env.application(sampling.uniforms(key, 1, 28).reshape(7, 4), params)
        rates = env.rates(params)
        every = jax.vmap(offloading.makespan, in_axes=(None, None, 0))(graph, rates, plans)
        greedy, rolled = (offloading.greedy_plan(graph, rates, rule) for rule in ("earliest_finish", "roll_out"))
        _, annealed = offloading.anneal(graph, rates, greedy, key, moves=8000)
        spans = [offloading.makespan(graph, rates, plan) for plan in (greedy, rolled)]
        return jnp.min(every), *spans, annealed, offloading.lower_bound(graph, rates)

    best, greedy, rolled, annealed, bound = map(np.asarray, solve(jax.random.split(jax.random.key(0), 24)))
    np.testing.assert_allclose(annealed, best, rtol=2e-2)
    assert np.isclose(annealed, best, rtol=1e-5).mean() > 0.9
    assert (bound <= best * (1 + 1e-5)).all()
    assert (best <= rolled * (1 + 1e-5)).all()
    # Roll-out is never worse than its base rule; ties are decided at a thousandth of a task's finish.
    assert (rolled <= greedy * 1.001).all()
    excess = [float(x.mean() / best.mean() - 1) for x in (greedy, rolled)]
    print(f"7 tasks, 2 servers, above the optimum: earliest finish {excess[0]:.3f}, roll-out {excess[1]:.3f}")
    assert excess[1] < 0.5 * excess[0]


def test_one_server_plans_agree_with_the_independent_enumeration():
    env = EdgeComputing(num_tasks=10, num_servers=1)
    uniforms = np.random.default_rng(2).random((10, 4), np.float32)
    graph, _ = jax.device_get(jax.jit(env.application)(uniforms, env.default_params))
    (plans,) = offloading_bound.all_plans(10)
    parents = [list(np.flatnonzero(row)) for row in graph.parents]
    expected = one_server(graph.size.astype(float), graph.result.astype(float), parents, range(10), plans)
    np.testing.assert_allclose(spans(graph, PUBLISHED, jnp.asarray(plans, jnp.int32)), expected, rtol=1e-5)


def test_tasks_that_differ_in_what_is_hidden_have_different_references():
    params = ENV.default_params
    seen, state = reset(jax.random.key(0), params)
    chosen = []
    for best in range(S + 1):
        link = jnp.full((S,), 3.0).at[best - 1].set(17.0) if best else jnp.full((S,), 0.1)
        task = params.replace(link_rate=link)
        same, _ = reset(jax.random.key(0), task)
        jax.tree.map(np.testing.assert_array_equal, seen, same)
        chosen.append(int(refer(ENV.solve(task), state, task, jax.random.key(0))))
    assert chosen == list(range(S + 1))


@pytest.fixture(scope="module")
def population():
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(0), 64))
    return tasks, jax.random.split(jax.random.key(1), (64, 4))


@jax.jit
def informed(tasks, rates, keys):
    """Returns ``[B, E]`` of the reference that plans with ``rates`` ``[B]``."""

    def act(seen, states, key):
        return (policies.reference_actions(ENV, rates, states[0], tasks, key),)

    (rewards,), _ = engine.rollout((ENV,), (tasks,), (keys,), act, keys[0, 0], record=scoring.score_reward)
    return rewards.sum(0)


def test_one_random_episode_identifies_what_is_hidden(population):
    tasks, keys = population
    actions = jnp.full((ENV.horizon,), -1, jnp.int32)
    _, (seen, _, action, *_), (final, _) = jax.device_get(
        jax.vmap(episode, in_axes=(0, 0, None))(tasks, keys[:, 0], actions)
    )
    # All that is used: amounts of the actions, and the resources' own tokens as periods begin.
    amount = np.take_along_axis(seen.action_column("amount"), action[..., None], -1)[..., 0].reshape(64, P, N)
    sent = np.stack([(amount * (action.reshape(64, P, N) == k)).sum((1, 2)) for k in range(S + 1)], -1) * 200
    linking, working = (
        1000 * np.concatenate([seen.column(name)[:, N::N], final.column(name)[:, None]], 1)[:, :, : S + 1].sum(1)
        for name in ("private_c", "private_d")
    )
    found = Rates(
        link=sent[:, 1:] / linking[:, 1:], server=sent[:, 1:] / working[:, 1:], device=sent[:, 0] / working[:, 0]
    )
    true = jax.vmap(ENV.rates)(tasks)
    for estimate, value in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        error = np.abs(np.log(estimate / np.asarray(value)))
        assert error.mean() < 0.04
        assert error.max() < 0.2
    reference = informed(tasks, true, keys).mean()
    estimated = informed(tasks, jax.tree.map(jnp.asarray, found), keys).mean()
    average = jax.vmap(ENV.average_task, in_axes=(0, None))(tasks, tasks)
    ignorant = informed(tasks, jax.vmap(ENV.rates)(average), keys).mean()
    heuristic = scoring.returns(ENV, "heuristic", tasks, keys).mean()
    rows = {"reference": reference, "one random episode": estimated, "heuristic": heuristic, "average": ignorant}
    print({name: round(float(value) / P, 4) for name, value in rows.items()})
    assert abs(estimated / reference - 1) < 0.02
    assert 1.1 * reference > heuristic > ignorant


@pytest.mark.parametrize(
    ("field", "value"), [("num_tasks", 0), ("num_servers", 9), ("num_periods", 2.5), ("window", 21), ("window", 0)]
)
def test_impossible_sizes_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a whole number from 1 to [0-9]+, got {value}"):
        EdgeComputing(**{field: value})
