"""Recommender: the published setting, invariants, agreement with NumPy models, exact values of small sessions."""

import dataclasses
import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.numpy_models.recommender import BatchModel, LoopModel
from envs_jax import policies, sampling, scoring
from envs_jax.domains.recommender import PRESETS, Recommender
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.references import fractional_slate
from envs_jax.testing import Recording, Tolerances, check_numpy_model

ENV = Recommender()
G, M, K, P = ENV.num_topics, ENV.num_candidates, ENV.slate_size, ENV.num_periods
PUBLISHED = Recommender(num_topics=20, num_periods=220)
SHORT = Recommender(num_topics=20, num_periods=220, slate_size=2)
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
SEEDS = st.integers(0, 2**31 - 1)

sample = jax.jit(ENV.sample_params)
advance = jax.jit(ENV.advance)
observe = jax.jit(ENV.observation)


@jax.jit
def play(params, key, policy_key, greedy):
    """One episode of random legal choices; with ``greedy`` 1 the first legal topic, with -1 nothing at all."""

    def body(state, time):
        seen = ENV.observation(state, params)
        random = policies.random_actions(seen, jax.random.fold_in(policy_key, time))
        action = jnp.select([greedy > 0, greedy < 0], [jnp.argmax(seen.action_mask), G], random).astype(jnp.int32)
        uniforms = sampling.uniforms(key, time // K, ENV.num_uniforms)
        _, following, reward, terminated, info = ENV.step_env(key, state, action, params)
        return following, (seen, state, action, uniforms, reward, terminated, info)

    _, start = ENV.reset_env(key, params)
    last, trace = jax.lax.scan(body, start, jnp.arange(ENV.horizon))
    return sampling.uniforms(key, sampling.RESET_INDEX, ENV.num_reset_uniforms), trace, last


def leaves(params):
    return {field.name: np.asarray(getattr(params, field.name)) for field in dataclasses.fields(params)}


# ---- the published setting ------------------------------------------------------------------------------------------


@functools.cache
def published_sessions(env, count=1024):
    """Minutes, steps, qualities, clicks and whether the user stayed, ``[policies, count]``, of published sessions.

    Each fills all slots: random candidates; the topics of largest u; the best minutes per budget, knowing u and Q (the
    ratio with the choice model's normaliser cancelled, by Dinkelbach); the same knowing Q only (u = 0).
    """
    params = env.default_params
    kept = params.minutes * (1 - params.bonus * params.topic_quality)

    def full(values, offered):
        return fractional_slate.largest(values - values.min() + 1.0, offered, env.slate_size, env.slate_size)

    def ratio_slate(weights, outside, offered):
        slate, rate = full(weights, offered), 0.0
        for _ in range(6):
            mass = slate * weights
            rate = params.minutes * mass.sum() / ((mass * kept).sum() + params.skip * outside)
            slate = full(weights * (params.minutes - rate * kept), offered)
        return slate

    def body(policy, key, state, period):
        u = env.interests(state, params)
        weights, outside = env.appeal(u, params)
        topic_of = jnp.searchsorted(jnp.cumsum(state.offered), jnp.arange(M), side="right")
        drawn = jax.random.permutation(jax.random.fold_in(key, 1000 + period), topic_of)[: env.slate_size]
        random = (drawn[:, None] == jnp.arange(20)).sum(0).astype(jnp.float32)
        known, blind = (ratio_slate(w, outside, state.offered) for w in (weights, jnp.ones(20)))
        slate = jnp.select([policy == i for i in range(4)], [random, full(u, state.offered), known, blind])
        uniforms = sampling.uniforms(key, period, env.num_uniforms)
        state, reward, info = env.advance(state.replace(slate=slate), uniforms, params)
        return state, (reward, info["session"], info["quality"], info["click"])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def session(policy, key):
        _, state = env.reset_env(key, params)
        end, paid = jax.lax.scan(functools.partial(body, policy, key), state, jnp.arange(P * 5))
        return *(x.sum(0) for x in paid), end.active

    return jax.device_get(session(jnp.arange(4), jax.random.split(jax.random.key(0), count)))


RULES = ("random", "myopic", "ratio, u and Q known", "Q known")
LISTED = {
    PUBLISHED: ((160.1, 1.0), (168.3, 2.0), (279.0, 4.0), (274.0, 4.0)),
    SHORT: ((155.4, 1.6), (166.9, 3.1), (282.8, 6.0)),
}
"""Mean return and standard error of 150 sessions of the peer itself, as listed in the domain's specification."""


@pytest.mark.parametrize(("env", "rule"), [(env, i) for env, rows in LISTED.items() for i in range(len(rows))])
def test_returns_in_the_published_setting_are_those_of_the_peer(env, rule):
    minutes, steps, quality, clicks, active = (x[rule] for x in published_sessions(env))
    mean, error = minutes.mean(), minutes.std() / np.sqrt(len(minutes))
    listed, listed_error = LISTED[env][rule]
    print(
        f"k = {env.slate_size}, {RULES[rule]}: {mean:.1f} +- {error:.1f} minutes, {steps.mean():.1f} steps,",
        f"mean quality {quality.sum() / clicks.sum():.3f}",
    )
    assert error < 0.02 * mean
    assert abs(mean - listed) < 3 * np.hypot(error, listed_error)
    assert active.mean() < 0.01  # sessions end by themselves


def test_the_published_constants():
    params = PUBLISHED.default_params
    cost = params.minutes * (1 - params.bonus * params.topic_quality)
    np.testing.assert_allclose([cost.min(), cost.max()], [0.82, 7.18], atol=0.005)
    np.testing.assert_allclose(params.topic_quality[:14], np.linspace(-3, 0, 14), atol=1e-6)
    np.testing.assert_allclose(params.topic_quality[14:], np.linspace(0, 3, 6), atol=1e-6)
    assert (params.budget, params.skip, params.minutes) == (200.0, 0.5, 4.0)


# ---- two NumPy models -----------------------------------------------------------------------------------------------


def models_agree(params, key, greedy):
    start, trace, _ = jax.device_get(play(params, key, jax.random.key(7), greedy))
    seen, state, actions, uniforms, rewards, terminated, info = trace

    def user(model, t):
        np.testing.assert_allclose(model.u, np.clip(params.interests + state.shift[t], -1, 1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(model.budget, params.budget - state.spent[t], rtol=1e-4, atol=1e-3)

    check_numpy_model(
        ENV,
        LoopModel,
        BatchModel,
        [Recording.of(params, start, seen, actions, uniforms, rewards, info)],
        Tolerances(tokens=(1e-4, 1e-4), reward=(1e-4, 1e-3), figures=(1e-4, 1e-3)),
        inspect=user,
    )
    assert not terminated.any()
    return rewards, info


@pytest.mark.parametrize("greedy", [0, 1, -1])
def test_agrees_with_the_independent_models_on_the_faithful_instance(greedy):
    rewards, info = models_agree(ENV.default_params, jax.random.key(5), greedy)
    # An empty slate is never clicked and has no diversity.
    assert (rewards.sum() > 0) == (info["diversity"].sum() > 0) == (greedy >= 0)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_independent_models_on_sampled_tasks(seed):
    _, info = models_agree(sample(jax.random.key(seed)), jax.random.key(100 + seed), 0)
    assert info["session"][-1] == 0, "the user should have left: the absorbing state is compared, too"


# ---- invariants -----------------------------------------------------------------------------------------------------


@hypothesis.given(seed=SEEDS, greedy=st.sampled_from([0, 0, 1, -1]))
def test_episode_invariants(seed, greedy):
    params = sample(jax.random.key(seed))
    _, trace, last = jax.device_get(play(params, jax.random.key(seed + 1), jax.random.key(seed), greedy))
    seen, states, actions, uniforms, rewards, _, info = trace
    turn = np.arange(ENV.horizon) % K
    ends = turn == K - 1
    # Slates: distinct documents, at most k, no more of a topic than there are; all candidates are somebody's.
    slate = states.slate + (actions[:, None] == np.arange(G))
    assert (states.slate[turn == 0] == 0).all()
    assert (slate <= states.offered).all()
    assert (slate.sum(1) <= turn + 1).all()
    assert (states.offered.sum(1) == M).all()
    # Rewards: minutes of one document at most, nothing after the user left, which is for good.
    here = states.active[ends] > 0
    minutes, click = rewards[ends], info["click"][ends]
    assert (rewards[~ends] == 0).all()
    assert ((minutes >= 0) & (minutes <= params.minutes)).all()
    assert (minutes[~here] == 0).all()
    assert (np.diff(here.astype(int)) <= 0).all()
    left = params.budget - np.append(states.spent[ends], last.spent)
    np.testing.assert_array_equal(np.append(here, last.active > 0), left > 0)
    np.testing.assert_allclose(minutes, click * np.minimum(left[:-1], params.minutes), rtol=1e-6)
    # The budget's change, from what was seen alone.
    given_back = np.float32(params.bonus) * minutes * info["quality"][ends]
    cost = np.where(click > 0, minutes - given_back, params.skip) * here
    np.testing.assert_allclose(-np.diff(left), cost, rtol=1e-3, atol=1e-4)
    # Interests: in bounds, and moved only for the topic watched, by the formula.
    u = np.clip(params.interests + np.concatenate([states.shift[ends], last.shift[None]]), -1, 1)
    clicked = np.diff(np.concatenate([states.clicked[ends], last.clicked[None]]), axis=0)
    np.testing.assert_array_equal(clicked.sum(1), click)
    step = params.interest_step * (1 - np.abs(u[:-1])) * (1 - u[:-1])
    up = uniforms[ends, -1:] < (1 + u[:-1]) / 2
    moved = np.clip(np.where(up, u[:-1] + step, u[:-1] - step), -1, 1)
    np.testing.assert_allclose(u[1:], np.where(clicked > 0, moved, u[:-1]), atol=1e-5)
    shift = np.concatenate([states.shift[ends], last.shift[None]])
    assert (np.diff(shift, axis=0)[clicked == 0] == 0).all()
    # Key figures.
    np.testing.assert_allclose(
        info["expected_reward"][ends],
        info["click_probability"][ends] * here * np.minimum(left[:-1], params.minutes),
        rtol=1e-5,
    )
    assert (info["diversity"] <= np.log(K) + 1e-6).all()
    spans = np.diff(np.append(-1, np.flatnonzero(click)))
    np.testing.assert_array_equal(info["response_time"][ends][click > 0], spans)
    assert np.abs(seen.tokens).max() <= 10
    # The view: a present user alone is urgent, and every document is taken from its topic.
    np.testing.assert_array_equal(seen.column("urgency")[:, :G], 0.0)
    np.testing.assert_array_equal(seen.column("urgency")[:, G], states.active)
    np.testing.assert_array_equal(seen.column("is_candidate")[:, :G], seen.action_mask[:, :G])
    empty = np.broadcast_to(np.arange(G + 1) == ENV.noop_action, seen.action_mask.shape)
    np.testing.assert_array_equal(seen.action_column("is_noop"), empty)
    np.testing.assert_array_equal(seen.action_column("signed"), empty - 1.0)


def world(seed, **fixed):
    """A task and a state with a full slate, some history, and interests that have moved."""
    params = sample(jax.random.key(seed)).replace(**{k: jnp.float32(v) for k, v in fixed.items()})
    rng = np.random.default_rng(seed)
    _, state = ENV.reset_env(jax.random.key(seed + 1), params)
    offered = rng.multinomial(M, np.full(G, 1 / G))
    slate = rng.multivariate_hypergeometric(offered, K)
    shown = rng.integers(0, 9, G)
    clicked = rng.integers(0, shown + 1)
    arrays = {
        "offered": offered,
        "slate": slate,
        "shown": shown,
        "clicked": clicked,
        "quality": clicked * rng.normal(size=G),
    }
    drift = np.clip(params.interests + 0.2 * rng.normal(size=G), -1, 1) - params.interests
    return params, state.replace(shift=drift, **{k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()})


def choice_law(state, params):
    """P(topic) and P(none) in float64."""
    u = np.clip(np.asarray(params.interests + state.shift, float), -1, 1)
    logit, n = params.logit > 0, float(params.no_click)
    mass = np.asarray(state.slate, float) * (np.exp(float(params.sharpness) * u) if logit else 1 + u)
    none = np.exp(n) if logit else 1 + n
    return mass / (mass.sum() + none), none / (mass.sum() + none)


@jax.jit
def clicks_on_a_grid(state, params):
    """Share of 4000 even click uniforms on each topic."""
    grid = (jnp.arange(4000) + 0.5) / 4000
    rows = jnp.full((4000, ENV.num_uniforms), 0.5).at[:, M].set(grid)
    return jax.vmap(lambda u: ENV.advance(state, u, params)[0].last_click)(rows).mean(0)


@hypothesis.given(seed=SEEDS, logit=st.sampled_from([0, 1]))
def test_choice_probabilities_are_those_of_both_choice_models(seed, logit):
    params, state = world(seed, logit=logit)
    law, none = choice_law(state, params)
    assert abs(law.sum() + none - 1) < 1e-12
    np.testing.assert_allclose(clicks_on_a_grid(state, params), law, atol=1 / 3000)
    _, _, info = advance(state, jnp.full(ENV.num_uniforms, 0.5), params)
    np.testing.assert_allclose(info["click_probability"], 1 - none, rtol=1e-5)


@hypothesis.given(seed=SEEDS, logit=st.sampled_from([0, 1]))
def test_relabelling_topics_relabels_everything(seed, logit):
    params, state = world(seed, logit=logit)
    order = np.random.default_rng(seed).permutation(G)

    def relabel(tree):
        return jax.tree.map(lambda x: x[order] if x.shape == (G,) else x, tree)

    law, _ = choice_law(state, params)
    topic = int(np.argmax(law))
    worlds = []
    for p, s, target in (
        (params, state, topic),
        (relabel(params), relabel(state), int(np.argwhere(order == topic)[0, 0])),
    ):
        own = choice_law(s, p)[0]
        middle = own[:target].sum() + own[target] / 2  # a uniform that clicks on the same topic
        uniforms = jnp.full(ENV.num_uniforms, 0.3).at[M].set(middle)
        after, reward, info = advance(s, uniforms, p)
        after = after.replace(offered=s.offered, time=jnp.int32(K))  # candidates are drawn anew by topic number
        worlds.append((after, reward, info, observe(after, p)))
    (one, reward, info, seen), (other, reward_, info_, seen_) = worlds
    assert one.last_click[topic] == 1
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, relabel(one.replace(key=None)), other.replace(key=None))
    jax.tree.map(close, (reward, info), (reward_, info_))
    close(seen.tokens[np.append(order, G)], seen_.tokens)
    np.testing.assert_array_equal(seen.action_mask[np.append(order, G)], seen_.action_mask)


@hypothesis.given(seed=SEEDS)
def test_without_a_step_interests_never_change(seed):
    params, state = world(seed, interest_step=0.0)
    rng = np.random.default_rng(seed)
    after, *_ = advance(state, jnp.asarray(rng.uniform(0.01, 0.99, ENV.num_uniforms), jnp.float32), params)
    np.testing.assert_allclose(after.shift, state.shift, atol=1e-6)


def test_candidates_and_qualities_follow_their_laws():
    params, state = world(3)
    uniforms = jax.random.uniform(jax.random.key(0), (20_000, ENV.num_uniforms), minval=1e-7).at[:, M].set(1e-6)
    after, _, info = jax.jit(jax.vmap(ENV.advance, in_axes=(None, 0, None)))(state, uniforms, params)
    # Counts are multinomial: mean m/G, variance m/G (1 - 1/G), 5 standard errors.
    np.testing.assert_allclose(after.offered.mean(0), M / G, atol=5 * np.sqrt(M / G / 20_000))
    np.testing.assert_allclose(after.offered.var(0), M / G * (1 - 1 / G), rtol=0.08)
    assert (info["click"] == 1).all()
    topic = int(after.last_click[0].argmax())
    np.testing.assert_allclose(info["quality"].mean(), params.topic_quality[topic], atol=5 * 0.1 / np.sqrt(20_000))
    np.testing.assert_allclose(info["quality"].std(), 0.1, rtol=0.03)
    up = (after.shift[:, topic] > state.shift[topic]).mean()
    assert abs(up - (1 + params.interests[topic] + state.shift[topic]) / 2) < 5 * 0.5 / np.sqrt(20_000)


def test_what_is_hidden_changes_what_the_reference_chooses():
    _, state = world(1)
    state = state.replace(slate=jnp.zeros(G), offered=jnp.ones(G), shift=jnp.zeros(G))
    tasks = [world(seed)[0] for seed in range(6)]
    act = jax.jit(lambda p: ENV.reference_action(ENV.solve(p), state, p, state.key))
    for name in ("topic_quality", "interests"):
        first = tasks[0].replace(sharpness=jnp.float32(2.0))
        chosen = {int(act(first.replace(**{name: getattr(t, name)}))) for t in tasks}
        assert len(chosen) > 1, name


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"num_topics": 1}, "num_topics must be .* got 1"),
        ({"num_periods": 0}, "num_periods must be .* got 0"),
        ({"slate_size": 0}, "slate_size must be .* got 0"),
        ({"slate_size": 11}, "slate_size must be a whole number from 1 to 10, got 11"),
        ({"preset": "radio"}, "preset must be one of video, .* got 'radio'"),
    ],
)
def test_impossible_shapes_are_refused_by_name(shapes, message):
    with pytest.raises(ValueError, match=message):
        Recommender(**shapes)


# ---- tasks and presets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_sampled_tasks_keep_to_the_ranges_of_their_preset(preset):
    env, constants = Recommender(preset=preset), PRESETS[preset]
    tasks = jax.jit(jax.vmap(env.sample_params))(jax.random.split(jax.random.key(0), 1000))
    ranges = {
        "budget": tuple(constants.minutes * x for x in constants.budget),
        "sharpness": constants.sharpness,
        "interest_step": constants.interest_step,
        "interests": (-1.0, 1.0),
    }
    for name, (low, high) in ranges.items():
        values, room = np.asarray(getattr(tasks, name)), 0.02 * (high - low)
        assert low <= values.min() <= low + room, name
        assert high - room <= values.max() <= high, name
    quality = np.sort(tasks.topic_quality, axis=1)
    scale = quality[:, -1:] / 3.0
    assert 0.5 <= scale.min() < 0.51 < 0.99 < scale.max() <= 1.0
    np.testing.assert_allclose(
        quality / scale, np.sort(env.default_params.topic_quality)[None].repeat(1000, 0), atol=1e-5
    )
    # Every topic is as likely the best one.
    best = np.bincount(tasks.topic_quality.argmax(1), minlength=G)
    assert np.abs(best - 100).max() < 5 * np.sqrt(90)
    # A watched minute never gives back more than it took, so that budgets only fall.
    assert (1 - np.float32(env.default_params.bonus) * (quality.max() + 0.5)) > 0


# ---- the reference --------------------------------------------------------------------------------------------------


@jax.jit
def best(weights, gains, available, fixed, slots):
    return fractional_slate.best_slate(weights, gains, jnp.float32(2.0), jnp.float32(5.0), available, slots, K, fixed)


@hypothesis.given(seed=SEEDS, slots=st.integers(1, K))
def test_the_fractional_programme_finds_the_best_of_all_slates(seed, slots):
    rng = np.random.default_rng(seed)
    weights, gains = rng.exponential(size=6), 5.0 + 3.0 * rng.normal(size=6)
    available = rng.integers(0, 3, 6)
    fixed = np.bincount(rng.integers(0, 6, K - slots), minlength=6)
    ratio, added, _ = best(*(jnp.asarray(x, jnp.float32) for x in (weights, gains, available, fixed, slots)))

    def ratio_of(amounts):
        mass = (amounts + fixed) * weights
        return (mass @ gains + 10.0) / (mass.sum() + 2.0)

    slates = [np.array(a) for a in itertools.product(*(range(n + 1) for n in available)) if sum(a) <= slots]
    exact = max(map(ratio_of, slates))
    added = np.asarray(added)
    assert (added <= available).all()
    assert added.sum() <= slots
    np.testing.assert_allclose([ratio, ratio_of(added)], exact, rtol=1e-5)


def test_candidate_sets_are_balanced():
    for sets, topics in ((ENV.sets, G), (PUBLISHED.sets, 20)):
        assert (sets.sum(1) == M).all()
        np.testing.assert_array_equal(sets.sum(0), M * len(sets) / topics)
        assert len(np.unique(sets, axis=0)) > 10


SMALL = Recommender(num_topics=3, num_candidates=3, slate_size=2, num_periods=4)
SMALL_SETS = [(np.bincount(c, minlength=3), 1 / 27) for c in itertools.product(range(3), repeat=3)]
SMALL_SLATES = [np.array(s) for s in itertools.product(range(3), repeat=3) if sum(s) <= 2]


def small_task(seed, y):
    """Three topics, spread-free qualities, a budget that may or may not last."""
    rng = np.random.default_rng(seed)
    return dataclasses.replace(
        SMALL.default_params,
        logit=jnp.float32(1.0),
        interest_spread=jnp.float32(0.0),
        quality_sd=jnp.float32(0.0),
        interest_step=jnp.float32(y),
        budget=jnp.float32(rng.uniform(5.0, 14.0)),
        sharpness=jnp.float32(rng.uniform(0.5, 3.0)),
        topic_quality=jnp.asarray(rng.permutation([-2.5, 0.0, 2.5]), jnp.float32),
        interests=jnp.asarray(rng.uniform(-1, 1, 3), jnp.float32),
    )


class Small:
    """A small session by exhaustive recursion in float64: all candidate sets, slates, answers, moves of interests."""

    def __init__(self, params):
        self.p = {k: np.asarray(v, float) for k, v in leaves(params).items()}
        self.known = {}

    def outcomes(self, slate, b, u):
        """(probability, minutes, next budget, next interests) of a slate."""
        p, out = self.p, []
        mass = slate * np.exp(p["sharpness"] * np.array(u))
        total = mass.sum() + np.exp(p["no_click"])
        out.append((np.exp(p["no_click"]) / total, 0.0, b - p["skip"], u))
        for g in np.flatnonzero(slate):
            w = min(b, p["minutes"])
            after = b - w + p["bonus"] * w * p["topic_quality"][g]
            step = p["interest_step"] * (1 - abs(u[g])) * (1 - u[g])
            for sign, chance in ((1, (1 + u[g]) / 2), (-1, (1 - u[g]) / 2)):
                moved = tuple(min(max(u[g] + sign * step, -1), 1) if i == g else x for i, x in enumerate(u))
                out.append((mass[g] / total * chance, w, after, moved))
        return out

    def value(self, t, b, u, policy=None):
        """Expected minutes from here, under the best slates or those of ``policy[(t, b, u), set]``."""
        if t == SMALL.num_periods or b <= 0:
            return 0.0
        key = (t, round(b, 9), tuple(round(x, 9) for x in u))
        if (key, policy is None) in self.known:
            return self.known[key, policy is None]
        worth = {}
        for s in SMALL_SLATES:
            worth[tuple(s)] = sum(
                q * (w + self.value(t + 1, bb, uu, policy)) for q, w, bb, uu in self.outcomes(s, b, u)
            )
        total = 0.0
        for offered, chance in SMALL_SETS:
            legal = [s for s in worth if (np.array(s) <= offered).all()]
            total += chance * (max(worth[s] for s in legal) if policy is None else worth[policy[key, tuple(offered)]])
        self.known[key, policy is None] = total
        return total


@jax.jit
def small_slates(params, time, budget, interests, offered):
    """The reference's slates ``[N, 3]`` in N states."""
    plan = SMALL.solve(params)
    _, start = SMALL.reset_env(jax.random.key(0), params)

    def one(time, budget, interests, offered):
        state = start.replace(
            time=2 * time, spent=params.budget - budget, shift=interests - params.interests, offered=offered
        )
        for turn in range(2):
            action = SMALL.reference_action(plan, state, params, state.key)
            state = SMALL.choose(state, turn, action, params).replace(time=state.time + 1)
        return state.slate

    return jax.vmap(one)(time, budget, interests, offered)


@pytest.mark.parametrize("y", [0.0, 0.3])
def test_the_reference_is_close_to_the_exact_optimum_of_small_sessions(y):
    lost = []
    for seed in range(6):
        params = small_task(seed, y)
        small = Small(params)
        start = (0, float(params.budget), tuple(small.p["interests"]))
        optimum = small.value(*start)
        keys = [key for key, _ in small.known]
        offered = sorted({tuple(s) for s, _ in SMALL_SETS})
        rows = [(*key, s) for key in keys for s in offered]
        size = 40_000  # one shape, one program
        assert len(rows) <= size
        padded = rows + rows[:1] * (size - len(rows))
        columns = [
            jnp.asarray(np.array(c), jnp.int32 if i == 0 else jnp.float32)
            for i, c in enumerate(zip(*padded, strict=True))
        ]
        slates = np.asarray(small_slates(params, *columns)).astype(int)
        policy = {
            (key, s): tuple(slates[i * len(offered) + j]) for i, key in enumerate(keys) for j, s in enumerate(offered)
        }
        lost.append(1 - small.value(*start, policy) / optimum)
    print(f"y = {y}: the reference loses {100 * np.mean(lost):.3f} % on average, {100 * np.max(lost):.3f} % at most")
    assert min(lost) > -1e-9
    assert np.mean(lost) < 0.0005
    assert max(lost) < 0.001


@functools.cache
def population(count=32):
    tasks = jax.jit(jax.vmap(ENV.sample_params))(jax.random.split(jax.random.key(3), count))
    return tasks, jax.random.split(jax.random.key(4), (count, 4))


@pytest.mark.slow
def test_the_order_of_policies_leaves_headroom():
    tasks, keys = population()
    found = scoring.reference_returns(ENV, tasks, keys)
    floor = found.floor.mean()
    heuristic, reference = float(found.heuristic.mean()), float(found.reference.mean())
    score = (heuristic - floor) / (reference - floor)
    print(f"random {found.random.mean():.2f}, heuristic {heuristic:.2f}, reference {reference:.2f}, score {score:.3f}")
    assert (found.noop == 0).all()
    assert 0.3 < score < 0.7
    assert (found.reference > found.random).mean() > 0.9
