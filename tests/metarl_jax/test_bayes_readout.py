"""The Bayesian readout: its features, what the posterior of a planted advantage recovers, and how it acts on it."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import ACTION_COLUMNS, TOKEN_COLUMNS, Observation
from envs_jax.suite import Suite
from metarl_jax import evaluation, learners
from metarl_jax.collection import Collector
from metarl_jax.configs import DataConfig
from metarl_jax.learners.bayes_readout import OUTCOMES, BayesReadoutConfig
from metarl_jax.posterior import TYPICAL
from metarl_jax.readout import AdvantageBasis, Policy
from metarl_jax.rewards import KNOWN_SCALE, prepare_support
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place
from metarl_jax.training import stack
from metarl_jax.types import PeriodHistory, Rows, Support
from tests.metarl_jax import probes, small

TOKENS, ACTIONS, EPISODES, LENGTH = 3, 5, 5, 30
BASIS = AdvantageBasis(TOKENS)
GROUPS = np.array(BASIS.groups)
SUITE = Suite.of((probes.Hidden(), probes.Match()))
CONFIG = BayesReadoutConfig(DataConfig(tasks=4, episodes=EPISODES), prior_mean="aligned")


class Wide(probes.Probe):
    """Shapes alone: as many tokens and actions as the planted worlds here."""

    num_tokens, num_actions = TOKENS, ACTIONS


@functools.cache
def planted() -> Any:
    learner = learners.make("bayes_readout", CONFIG, Suite.of((Wide(),)))
    state = learner.init(jax.random.key(0), learner.hyperparams(10, True))
    return learner.params(state), jax.jit(learner.adapt)


def observations(rng: np.random.Generator, *batch: int) -> Observation:
    """Random ones; action 0 does nothing and concerns nobody, the last is illegal in every second."""
    seen = small.observations(rng, *batch, tokens=TOKENS, actions=ACTIONS)
    noop = np.zeros((*batch, ACTIONS, 1), np.float32)
    noop[..., 0, :] = 1.0
    described = jnp.concatenate([noop, np.asarray(seen.actions)[..., 1:] * (1 - noop)], axis=-1)
    legal = np.ones((*batch, ACTIONS), bool)
    legal[..., ::2, -1] = False
    return seen.replace(
        actions=described, action_target=seen.action_target.at[..., 0].set(-1), action_mask=jnp.asarray(legal)
    )


def support_of(seen: Observation, weights: np.ndarray, rng: np.random.Generator, noise: float = 1.0) -> Any:
    """What uniformly random choices in ``seen [K, L]`` earn, if their advantage is linear with these weights."""
    legal = np.asarray(seen.action_mask)
    action = jnp.asarray(np.argmax(rng.uniform(size=legal.shape) * legal, -1), jnp.int32)
    features = BASIS.chosen(seen, action)
    earned = np.asarray(features) @ weights + noise * rng.normal(size=action.shape)
    many = (*action.shape, len(OUTCOMES))
    rows = Rows(
        features=features.astype(jnp.float16),
        state=BASIS.state(seen).astype(jnp.float16),
        outcome=jnp.asarray(np.broadcast_to(earned[..., None], many), jnp.float32),
        span=jnp.ones(many),
        discount=jnp.zeros(many),
        later=jnp.zeros(many, jnp.int32),
        weight=jnp.ones(action.shape),
    )
    episodes = action.shape[0]
    history = PeriodHistory(
        tokens=jnp.zeros((episodes, 2, 1, 1)),
        token_mask=jnp.ones(1, bool),
        decisions=jnp.zeros((episodes, 1, 1, 1)),
        reward=jnp.zeros((episodes, 1)),
        valid=jnp.ones((episodes, 1), bool),
    )
    return Support(history, rows=rows)


def planted_weights(rng: np.random.Generator) -> np.ndarray:
    """Strong ones of three groups."""
    strong = np.isin(GROUPS, ("target need", "target x signed need", "action amount"))
    weights = np.where(strong, rng.normal(size=len(GROUPS)), 0.0)
    return 3.0 * weights / np.linalg.norm(weights)


@jax.jit
def chosen_by(policy: Policy, seen: Observation) -> chex.Array:
    return policy.lower_bounds(BASIS.actions(seen), seen).argmax(-1)


def test_features_are_as_many_as_their_groups_and_centred() -> None:
    seen = observations(np.random.default_rng(0), 20)
    features, legal = np.asarray(BASIS.actions(seen)), np.asarray(seen.action_mask)
    assert features.shape == (20, ACTIONS, len(GROUPS))
    np.testing.assert_allclose((features * legal[..., None]).sum(1), 0.0, atol=1e-5)
    chosen = BASIS.chosen(seen, jnp.full(20, 2))
    np.testing.assert_allclose(chosen, features[:, 2])


def test_features_are_what_they_are_called() -> None:
    """Of a world whose only token is also its mean, by hand; differences of actions do not depend on the centre."""
    basis, row = AdvantageBasis(1), np.arange(1.0, len(TOKEN_COLUMNS) + 1)
    described = np.zeros((2, len(ACTION_COLUMNS)))
    described[0, 0], described[1, ACTION_COLUMNS.index("signed")] = 1.0, -0.5
    seen = Observation(
        jnp.asarray(row[None]), jnp.ones(1, bool), jnp.asarray(described), jnp.array([-1, 0]), jnp.ones(2, bool)
    )
    groups, features = np.array(basis.groups), np.asarray(basis.actions(seen))
    difference = features[1] - features[0]
    kept = np.delete(row, TOKEN_COLUMNS.index("last_reward"))
    starts = {block: [g.startswith(f"{block} ") for g in groups] for block in ("mean x signed", "mean x no-op")}
    np.testing.assert_allclose(difference[starts["mean x signed"]], -0.5 * kept)
    np.testing.assert_allclose(difference[starts["mean x no-op"]], -kept)
    np.testing.assert_allclose(difference[groups == "slot"], 1.0)
    np.testing.assert_allclose(difference[groups == "slot x signed"], -0.5)
    assert difference @ basis.aligned == pytest.approx(-0.5 * (row[0] - row[1]))
    state = basis.state(seen)
    np.testing.assert_allclose(state[1 : 1 + len(kept)], kept)
    assert basis.private.sum() == 4 + 4 * 6


def test_what_is_observed_of_rewards_is_in_no_feature() -> None:
    seen = observations(np.random.default_rng(0), 4)
    other = seen.replace(tokens=seen.tokens.at[..., TOKEN_COLUMNS.index("last_reward")].set(7.0))
    np.testing.assert_array_equal(BASIS.actions(seen), BASIS.actions(other))
    np.testing.assert_array_equal(BASIS.state(seen), BASIS.state(other))


def test_a_planted_advantage_is_recovered_the_better_the_more_episodes_there_are() -> None:
    rng = np.random.default_rng(3)
    trained, adapt = planted()
    trained = trained | {"kappa": jnp.float32(0.0), "to_noop": jnp.float32(0.0)}
    test = observations(rng, 400)
    features, legal = np.asarray(BASIS.actions(test)), np.asarray(test.action_mask)
    share: dict[int, list[float]] = {k: [] for k in (0, 1, 5, 40)}
    for _ in range(4):
        weights = planted_weights(rng)
        worth = np.where(legal, features @ weights, -np.inf)
        best = worth.max(-1)
        for episodes in share:
            support = support_of(observations(rng, 40, LENGTH), weights, rng).first(episodes)
            choice = np.asarray(chosen_by(adapt(trained, support), test))
            share[episodes].append(np.take_along_axis(worth, choice[:, None], 1).mean() / best.mean())
    mean = {episodes: np.mean(found) for episodes, found in share.items()}
    assert mean[0] < mean[1] < mean[5] < mean[40]
    assert mean[5] > 0.7
    assert mean[40] > 0.95


def test_nothing_known_is_the_prior() -> None:
    trained, adapt = planted()
    rng = np.random.default_rng(0)
    trained = trained | {"prior": trained["prior"].replace(aligned=jnp.float32(0.3))}
    support = support_of(observations(rng, EPISODES, LENGTH), planted_weights(rng), rng)
    for policy in (adapt(trained, support.first(0)), adapt(trained, support.without_gradients())):
        np.testing.assert_allclose(policy.mean, 0.3 * BASIS.aligned, atol=1e-6)
        np.testing.assert_allclose(policy.covariance, TYPICAL * np.eye(len(GROUPS)), atol=1e-6)
    wiser = adapt(trained, support)
    assert np.abs(wiser.mean - policy.mean).max() > 0.05


def test_it_deviates_from_doing_nothing_only_where_the_lower_bound_says_so() -> None:
    rng = np.random.default_rng(1)
    seen, size = observations(rng, 200), len(GROUPS)
    features, legal = np.asarray(BASIS.actions(seen)), np.asarray(seen.action_mask)
    factor = rng.normal(size=(size, size)) * 0.05
    policy = Policy(
        jnp.asarray(rng.normal(size=size), jnp.float32),
        jnp.asarray(factor.T @ factor, jnp.float32),
        jnp.float32(0.7),
        jnp.float32(1.0),
    )
    over = features - features[:, :1]
    bound = over @ np.asarray(policy.mean) - 0.7 * np.linalg.norm(over @ factor.T, axis=-1)
    found = np.asarray(policy.lower_bounds(BASIS.actions(seen), seen))
    np.testing.assert_allclose(found[legal], bound[legal], atol=1e-3)
    assert np.all(found[~legal] < -1e8)
    acts = np.asarray(chosen_by(policy, seen))
    assert 0 < (acts == 0).sum() < len(acts)
    np.testing.assert_array_equal(acts == 0, np.where(legal, bound, -np.inf)[:, 1:].max(-1) <= 0)
    unsure = policy.replace(mean=jnp.zeros(size))
    np.testing.assert_array_equal(chosen_by(unsure, seen), 0)
    average = policy.replace(to_noop=jnp.float32(0.0), kappa=jnp.float32(0.0))
    expected = np.where(legal, features @ np.asarray(policy.mean), -np.inf).argmax(-1)
    np.testing.assert_array_equal(chosen_by(average, seen), expected)
    gradient = jax.grad(lambda kappa: policy.replace(kappa=kappa).lower_bounds(BASIS.actions(seen), seen).sum())(0.7)
    assert np.isfinite(gradient)


def test_permuting_entities_and_actions_permutes_choices() -> None:
    rng = np.random.default_rng(5)
    trained, adapt = planted()
    seen, test, weights = observations(rng, EPISODES, LENGTH), observations(rng, 100), planted_weights(rng)
    support = support_of(seen, weights, rng)
    order, turned = np.array([2, 0, 1]), np.array([3, 0, 4, 1, 2])  # new places of what was at 0, 1, ...

    def renamed(seen: Observation) -> Observation:
        target = jnp.where(seen.action_target < 0, -1, jnp.asarray(order)[seen.action_target])
        place = np.argsort(turned)
        return seen.replace(
            tokens=seen.tokens[..., np.argsort(order), :],
            actions=seen.actions[..., place, :],
            action_target=target[..., place],
            action_mask=seen.action_mask[..., place],
        )

    actions = jnp.argmax(
        jnp.isclose(BASIS.actions(seen).astype(jnp.float16), support.rows.features[..., None, :], atol=1e-3).all(-1), -1
    )
    again = renamed(seen)
    rows = support.rows.replace(
        features=BASIS.chosen(again, jnp.asarray(turned)[actions]).astype(jnp.float16),
        state=BASIS.state(again).astype(jnp.float16),
    )
    one, other = adapt(trained, support), adapt(trained, support.replace(rows=rows))
    before, after = chosen_by(one, test), chosen_by(other, renamed(test))
    assert len(set(np.asarray(before))) > 2
    assert np.mean(np.asarray(after) == turned[np.asarray(before)]) > 0.99  # float16 rows may turn a tie


def test_rewards_are_normalised_and_removed_in_rows_too() -> None:
    rng = np.random.default_rng(0)
    support = support_of(observations(rng, EPISODES, LENGTH), planted_weights(rng), rng)
    batch = jax.tree.map(lambda leaf: leaf[None], support)
    scale = KNOWN_SCALE.replace(mean=jnp.float32(0.5), sd=jnp.float32(2.0))
    for zero in (False, True):
        found: Any = prepare_support(batch, scale, jnp.array([2]), jnp.bool_(zero)).rows
        expected = (not zero) * 0.2 * (np.asarray(support.rows.outcome) - 0.5) / 2.0
        np.testing.assert_allclose(found.outcome[0], expected, atol=1e-5)
        assert found.weight[0, :2].all()
        assert not found.weight[0, 2:].any()


@pytest.mark.slow
def test_the_hidden_task_and_what_is_shown_are_told_by_two_episodes_without_any_training() -> None:
    programs = Programs(1)
    config = BayesReadoutConfig(DataConfig(tasks=8, episodes=4))
    learner = learners.make("bayes_readout", config, SUITE)
    collector = Collector(learner, SUITE, programs)
    state = jax.vmap(learner.init)(jax.random.split(jax.random.key(0), 1), stack([learner.hyperparams(1, True)]))
    trained = [place(way, 1) for way in learner.candidates(learner.params(state)).values()]
    best = float(probes.Probe.num_periods)
    for name in ("hidden", "match"):
        domain = DomainPrograms.of(SUITE, name, programs)
        tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(7), tasks=24, support=4, episodes=4)
        support = evaluation.random_support(tests, collector)
        asked = evaluation.conditions((0, 1, 4))
        returns = evaluation.evaluate(collector, trained, None, tests, support, asked, jax.random.key(8))[0].mean(
            (1, 2)
        )
        score = dict(zip((condition.label for condition in asked), returns, strict=True))
        assert score["K=4"] > 0.9 * best, name
        assert score["K=0"] < score["K=1"] < score["K=4"] + 1e-6, name
        assert score["K=4 zero"] < 0.75 * best, "adaptation does not come from rewards"
        if name == "hidden":
            assert score["K=4 swap"] < 0.75 * best, "another task's support is not believed"
