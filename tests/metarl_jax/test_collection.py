"""What is collected: by whom, in which order, for which needs; and a learner that fails is named."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import Observation
from envs_jax.suite import Suite
from metarl_jax import evaluation
from metarl_jax.collection import Collector
from metarl_jax.evaluation import Condition
from metarl_jax.learners.base import Exploration, Learner, LearnerError, Needs
from metarl_jax.networks.actor import ActingMode
from metarl_jax.recording import Recorder
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.types import MetaBatch, RewardScale
from tests.envs_jax.toys import Toy, ToyParams
from tests.metarl_jax import planted


class SampledToy(Toy):
    """Tasks differ in their gain; only half a step is noise."""

    def sample_params(self, key: chex.PRNGKey) -> ToyParams:
        return self.task(0.0, 0.5).replace(gain=jax.random.uniform(key, (), jnp.float32, 1.0, 5.0))


TOY = SampledToy()
SUITE = Suite.of((TOY,))
KEYS = jax.random.split(jax.random.key(1), 1)
SCALE = RewardScale(jnp.full(1, 2.0), jnp.full(1, 4.0))
TASKS, SUPPORT, QUERY = 2, 2, 3
PARALLEL = planted.needs(query_episodes=QUERY)
SEQUENTIAL = planted.needs(query_episodes=QUERY, support="own", order="sequential", record=Recorder(64, ordered=True))
TRIALS = planted.Counter(turns=TOY.horizon, actions=3)  # one action in the first episode, the next in the second ...
TRAINED = {"offset": jnp.zeros(1, jnp.int32), "iteration": jnp.zeros(1, jnp.int32)}


def on(programs: Programs) -> DomainPrograms:
    return DomainPrograms.of(SUITE, "toy", programs)


class Batches(NamedTuple):
    programs: Programs
    parallel: MetaBatch
    sequential: MetaBatch


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Two learners with different needs, collected for in one object of programs."""
    programs = Programs(1)
    found = []
    for learner in (
        planted.make("parallel", planted.Rule(planted.offset_of_policy), own=PARALLEL, offset=0),
        planted.make("sequential", TRIALS, own=SEQUENTIAL, offset=0),
    ):
        batch = Collector(learner, SUITE, programs).collect(on(programs), TRAINED, SCALE, KEYS, inner_steps=True)
        found.append(jax.tree.map(lambda leaf: leaf[0], jax.device_get(batch)))
    return Batches(programs, *found)


def legal(wanted: Any, seen: Observation) -> np.ndarray:
    """What is wanted where that is legal, else 0."""
    wanted = np.broadcast_to(wanted, seen.action_mask.shape[:-1])
    return np.where(np.take_along_axis(seen.action_mask, wanted[..., None], -1)[..., 0], wanted, 0)


def test_random_parallel_transitions(batches: Batches) -> None:
    """Support is uniformly random; query episodes are the learner's, which acts as many episodes as it knows."""
    support, query, known = batches.parallel.support, batches.parallel.query, batches.parallel.known
    assert support.transitions.action.shape == (TASKS, SUPPORT, 2)
    assert support.trajectory is None
    assert query.action.shape == (TASKS, QUERY, 2)
    np.testing.assert_array_equal(query.action, legal(known[:, None, None], query.observation))
    assert np.all((known >= 0) & (known <= SUPPORT))
    assert support.history.valid.all()
    assert query.weight.all()


def test_own_sequential_trajectories(batches: Batches) -> None:
    """Each trial is its support episodes and a query episode in order, and what it remembers goes through all."""
    batch, trial = batches.sequential, batches.sequential.query
    assert batch.support is None
    assert trial.action.shape == (TASKS, QUERY, (SUPPORT + 1) * TOY.horizon)
    episode = np.arange(trial.action.shape[-1]) // TOY.horizon
    assert legal(episode, trial.observation).max() == SUPPORT
    np.testing.assert_array_equal(trial.action, legal(episode, trial.observation))
    gamma, turns = TOY.discount_factor, TOY.num_turns
    expected = np.where(np.arange(trial.action.shape[-1]) % turns == turns - 1, gamma, 1.0)
    expected[-1] = 0.0  # the ends of the episodes within do not cut the trial
    np.testing.assert_allclose(trial.discount, np.broadcast_to(expected, trial.discount.shape), rtol=1e-6)
    noise = trial.reward.reshape(TASKS, QUERY, SUPPORT + 1, TOY.horizon)
    for one in range(SUPPORT + 1):
        for other in range(one):
            assert (noise[:, :, one] != noise[:, :, other]).any(), "every episode has noise of its own"
    assert len({trial_.tobytes() for trial_ in noise.reshape(TASKS * QUERY, -1)}) == TASKS * QUERY


def test_rewards_of_a_batch_are_normalised_by_the_domains_scale(batches: Batches) -> None:
    """The toy pays its choices on a period's last turn, plus at most half a step of noise."""
    trial, mean, sd = batches.sequential.query, SCALE.mean[0], SCALE.sd[0]
    last = np.asarray(trial.period_end)
    assert not trial.reward[~last].any()
    paid = trial.reward[last] / 0.2 * sd + mean
    third = paid.reshape(TASKS, QUERY, SUPPORT + 1, TOY.num_periods)[:, :, 2]  # action 2 pays 1, on the second turn
    assert np.all(np.abs(third - 1.0) <= 0.5 + 1e-5)
    assert np.ptp(third) > 0.1
    query = (third - mean) / sd * 0.2
    np.testing.assert_allclose(batches.sequential.reward, query.mean(), rtol=1e-4)


def test_both_needs_share_what_depends_on_the_domain_alone(batches: Batches) -> None:
    built = batches.programs.built
    assert built["draw"] == 1
    assert built["play"] == built["record"] - 1 == 2, "an actor each; a query episode ends where others go on"


def test_needs_count_their_episodes() -> None:
    assert PARALLEL.episodes == QUERY + SUPPORT
    assert SEQUENTIAL.episodes == QUERY * (SUPPORT + 1)
    with pytest.raises(ValueError, match=r"needs\.support must be own where needs\.order is sequential, got random"):
        dataclasses.replace(SEQUENTIAL, support="random")


def test_support_of_ones_own_is_collected_from_the_empty_policy() -> None:
    """A learner that explores by itself records what its policy without support does, with its own exploration."""

    def explored(params: Any, policy: Any, seen: Observation, key: chex.PRNGKey, mode: ActingMode) -> chex.Array:
        return planted.offset_of_policy({"offset": jnp.int32(10 * mode.epsilon)}, policy, seen, key, mode)

    own = planted.needs(support="own", explore_support=Exploration(epsilon=0.2), explore_query=Exploration(0.0))
    programs = Programs(1)
    collector = Collector(planted.make("explorer", planted.Rule(explored), own=own, offset=0), SUITE, programs)
    batch = jax.tree.map(lambda leaf: leaf[0], collector.collect(on(programs), TRAINED, SCALE, KEYS, True))
    support, query = batch.support.transitions, batch.query
    assert support.observation.action_mask[..., 2].any()
    np.testing.assert_array_equal(support.action, legal(2, support.observation))
    np.testing.assert_array_equal(query.action, legal(batch.known[:, None, None], query.observation))


def test_the_scale_of_a_domain_is_that_of_random_choices(batches: Batches) -> None:
    """Whoever asks gets mean and deviation of all periods of random episodes, whatever the learner itself would do."""
    learner = planted.make("parallel", planted.Rule(planted.offset_of_policy), own=PARALLEL, offset=0)
    collector, domain = Collector(learner, SUITE, batches.programs), on(batches.programs)
    scale = collector.scale(domain, KEYS)
    assert scale.mean.shape == scale.sd.shape == (1,)
    task_keys, support_keys, _, _, key, _ = collector._keys(KEYS)
    played = collector.rollout_policy(domain, "random", *domain.draw(task_keys), support_keys, key).trajectory
    paid = np.asarray(played.reward)[0].reshape(TOY.num_periods, TOY.num_turns, TASKS, SUPPORT).sum(1)
    np.testing.assert_allclose([scale.mean[0], scale.sd[0]], [paid.mean(), paid.std()], rtol=1e-5)
    assert set(np.unique(played.action)) == {0, 1, 2}


# ---- every learner is played by its own actor ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Failing:
    """An actor that cannot act."""

    def start(self, params: Any, policy: Any) -> tuple[()]:
        return ()

    def act(self, params: Any, policy: Any, carry: Any, seen: Any, key: Any, mode: Any) -> Any:
        raise ValueError("no idea")


def failing(name: str, own: Needs) -> tuple[Collector, DomainPrograms]:
    programs = Programs(1)
    return Collector(planted.make(name, Failing(), own=own, offset=0), SUITE, programs), on(programs)


@pytest.mark.parametrize("own", [PARALLEL, SEQUENTIAL], ids=["parallel", "sequential"])
def test_a_learner_that_cannot_act_stops_collection_and_is_named(own: Needs) -> None:
    """It once trained, was tested and wrote scores under its own name: another learner acted for it."""
    collector, domain = failing("hopeless", own)
    with pytest.raises(LearnerError, match=r"^learner hopeless: act raised ValueError: no idea$"):
        collector.collect(domain, TRAINED, SCALE, KEYS, inner_steps=False)


def test_a_learner_that_cannot_act_stops_evaluation_and_is_named() -> None:
    good, programs = planted.make("good", planted.Rule(planted.first_legal), offset=0), Programs(1)
    able = Collector(good, SUITE, programs)
    tests = evaluation.make_evaluation_set(on(programs), able, jax.random.key(3), TASKS, SUPPORT, QUERY)
    support = evaluation.random_support(tests, able)
    for own in (PARALLEL, SEQUENTIAL):
        hopeless = Collector(planted.make("hopeless", Failing(), own=own, offset=0), SUITE, programs)
        with pytest.raises(LearnerError, match=r"^learner hopeless: act raised ValueError: no idea$"):
            evaluation.evaluate(hopeless, [TRAINED], None, tests, support, (Condition(1),), jax.random.key(4))


def test_a_learner_that_cannot_adapt_is_named() -> None:
    def adapt(trained: Any, support: Any) -> Any:
        raise KeyError("head")

    learner = planted.make("stuck", planted.Rule(planted.first_legal), adapt, offset=0)
    with pytest.raises(LearnerError, match=r"^learner stuck: adapt raised KeyError: 'head'$"):
        Collector(learner, SUITE, Programs(1))


def chooses(action: int) -> Learner:
    def choose(params: Any, policy: Any, seen: Observation, key: chex.PRNGKey, mode: ActingMode) -> chex.Array:
        return planted.offset_of_policy({"offset": jnp.int32(action)}, jnp.int32(0), seen, key, mode)

    return planted.make(f"always {action}", planted.Rule(choose), own=PARALLEL, offset=0)


def test_learners_of_all_kinds_come_out_with_the_returns_of_their_own_choices() -> None:
    """In one object of programs, on one set of tests: choice 1 pays gain - toll on both turns, choice 2 pays 1 on one.

    The learner of trials makes choice K after K support episodes; the others make their own whatever they are given.
    """
    programs = Programs(1)
    learners = [chooses(1), chooses(2), planted.make("trials", TRIALS, own=SEQUENTIAL, offset=0)]
    collectors = [Collector(learner, SUITE, programs) for learner in learners]
    tests = evaluation.make_evaluation_set(on(programs), collectors[0], jax.random.key(3), 3, SUPPORT, QUERY)
    support = evaluation.random_support(tests, collectors[0])
    gain = np.asarray(tests.tasks.gain - tests.tasks.toll)
    assert np.ptp(gain) > 0.1
    pays = [np.zeros(3), TOY.num_periods * 2 * gain, np.full(3, TOY.num_periods * 1.0)]
    asked = tuple(Condition(k) for k in range(SUPPORT + 1))
    for collector in collectors:
        own = support if collector.needs.support == "random" else None
        score = evaluation.evaluate(collector, [TRAINED], None, tests, own, asked, jax.random.key(4))[0]
        for condition, row in zip(asked, score, strict=True):
            name = collector.learner.name
            choice = condition.episodes if name == "trials" else int(name[-1])
            expected = np.broadcast_to(pays[choice][:, None], (3, QUERY))
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5, err_msg=f"{name} {condition.label}")
    assert programs.built["play"] == len(learners)
