"""Frozen data: what they hold, how gradient steps take from them, on-policy rounds, and files that keep them."""

from __future__ import annotations

import dataclasses
import pathlib
import types
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import ACTION_COLUMNS, Observation
from envs_jax.suite import Suite
from experiments.harness import datasets
from metarl_jax import dataset, evaluation, learners, training
from metarl_jax.collection import Collector
from metarl_jax.configs import AdaptationConfig, DataConfig, FrozenConfig, QLearningConfig, TransformerMamlDqnConfig
from metarl_jax.dataset import DomainData
from metarl_jax.rollouts import POLICIES, Behaviour, DomainPrograms
from metarl_jax.runtime.checkpointing import Checkpointer
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place
from metarl_jax.sources import FrozenSource, groups_of, put
from metarl_jax.training import Hooks, Interval, Pace, Stopped, train
from tests.metarl_jax import probes, small

FROZEN = FrozenConfig(
    tasks=8, batch=4, steps=3, queries=3, samples=4, kept=3, stretch=2, rounds=2, rounds_from=0.3, round_tasks=4
)
CONFIG = TransformerMamlDqnConfig(
    network=small.NETWORK,
    data=DataConfig(tasks=2, episodes=2),
    frozen=FROZEN,
    learning=QLearningConfig(samples=2, num_steps=1),
    adaptation=AdaptationConfig(steps=1),
    order="none",
    reference_weight=1.0,
)
KEY = jax.random.key(7)


class Sometimes(probes.Hidden):
    """As Hidden, but the second action is legal only where 1 is on show: half of the choices are forced."""

    name = "sometimes"

    def observation(self, state: probes.ProbeState, params: probes.ProbeParams) -> Observation:
        seen = super().observation(state, params)
        return seen.replace(action_mask=jnp.array([True, False]) | (state.shown > 0))


SUITE = Suite.of((probes.Hidden(), Sometimes(), probes.Match()))
LEARNER = learners.make("transformer_maml_dqn", CONFIG, SUITE)


def made(programs: Programs, name: str, key: chex.PRNGKey = KEY, inner_steps: bool = False) -> DomainData:
    collector, domain = Collector(LEARNER, SUITE, programs), DomainPrograms.of(SUITE, name, programs)
    data = dataset.make(collector, domain, key, inner_steps)
    assert data is not None
    return data


@pytest.fixture(scope="module")
def programs() -> Programs:
    return Programs(2)


@pytest.fixture(scope="module")
def hidden(programs: Programs) -> DomainData:
    return made(programs, "hidden")


@pytest.fixture(scope="module")
def sometimes(programs: Programs) -> DomainData:
    return made(programs, "sometimes")


def bits(key: chex.PRNGKey) -> np.ndarray:
    """The hidden bit of every task of the data of a key."""
    return np.asarray(jax.vmap(probes.Hidden().sample_params)(dataset.task_keys(key, FROZEN.tasks)).bit)


def test_data_are_a_function_of_the_key_and_not_of_how_many_replicas_play_them(hidden: DomainData) -> None:
    chex.assert_trees_all_equal(made(Programs(1), "hidden"), hidden)
    other = made(Programs(1), "hidden", jax.random.key(8))
    assert np.any(other.support.history.tokens != hidden.support.history.tokens)


def test_queries_are_labelled_by_the_reference_and_belong_to_the_tasks_of_the_support(hidden: DomainData) -> None:
    assert set(bits(KEY)) == {0, 1}
    np.testing.assert_array_equal(hidden.query.reference, np.broadcast_to(bits(KEY)[:, None], (8, 8)))
    # In this probe a period's reward tells the bit: 1 is paid for the action that is the bit.
    history = hidden.support.history
    chosen = history.decisions[..., 0, :].any(-1) & history.valid  # the decision of a period is on the first token
    assert chosen.all()
    signed = signed_of(history.decisions[:, :, :, 0])
    paid = history.reward * np.where(history.valid, 1.0, 0.0) > 0
    np.testing.assert_array_equal(paid, (signed > 0) == bits(KEY)[:, None, None].astype(bool))


def signed_of(decisions: np.ndarray) -> np.ndarray:
    return decisions[..., ACTION_COLUMNS.index("signed")]


def test_rewards_have_the_scale_of_random_choices(hidden: DomainData) -> None:
    reward = hidden.support.history.reward[hidden.support.history.valid]
    assert abs(reward.mean()) < 1e-6
    assert reward.std() == pytest.approx(0.2, rel=1e-5)
    values = np.unique(np.round(hidden.query.immediate, 5))
    np.testing.assert_allclose(values, np.unique(np.round(reward, 5)))


def test_forced_choices_are_left_out(sometimes: DomainData) -> None:
    used = sometimes.query.weight > 0
    assert used.any()
    assert (sometimes.query.observation.action_mask.sum(-1)[used] == 2).all()
    assert (sometimes.query.observation.action_mask.sum(-1)[~used] == 1).all()  # an episode without a free choice


def test_mixture_is_half_the_reference_and_slips_as_its_epsilon_says() -> None:
    shape = (200, 50)
    drawn = Behaviour.draw(jax.random.key(0), shape, 40, jnp.bool_(True))
    share = {name: float(np.mean(np.asarray(drawn.first) == POLICIES.index(name))) for name in POLICIES}
    assert share["reference"] == pytest.approx(0.5, abs=0.02)
    assert share["heuristic"] == pytest.approx(0.25, abs=0.02)
    assert share["random"] == pytest.approx(0.25, abs=0.02)
    assert drawn.epsilon.min() >= 0.03
    assert drawn.epsilon.max() <= 0.75
    assert np.quantile(drawn.epsilon, 0.5) == pytest.approx(np.sqrt(0.03 * 0.75), rel=0.05)
    blind = Behaviour.draw(jax.random.key(0), shape, 40, jnp.bool_(False))
    assert not np.any(np.asarray(blind.second) == POLICIES.index("heuristic"))
    always = drawn.replace(epsilon=jnp.ones(shape))
    assert not np.any(np.asarray(always.chooses(jnp.int32(3), jax.random.key(1))) == POLICIES.index("reference"))
    never = drawn.replace(epsilon=jnp.zeros(shape))
    chosen = np.asarray(never.chooses(jnp.int32(20), jax.random.key(1)))
    np.testing.assert_array_equal(chosen, np.where(drawn.switch > 20, drawn.first, drawn.second))


def source(
    programs: Programs, names: tuple[str, ...], data: dict[str, DomainData]
) -> tuple[FrozenSource, Collector, list[Any]]:
    suite = SUITE.subset(names)
    learner = learners.make("transformer_maml_dqn", CONFIG, suite)
    collector = Collector(learner, suite, programs)
    domains = [DomainPrograms.of(SUITE, name, programs) for name in names]
    return FrozenSource(collector, domains, [data[n] for n in names], [KEY] * len(names)), collector, domains


def keys_of(iteration: int, purpose: int) -> chex.PRNGKey:
    return place(training.replica_keys(jax.random.key(3), 2, iteration, purpose), 2)


@dataclasses.dataclass
class Fake:
    pool: Any


def test_a_step_takes_support_and_queries_of_one_task(programs: Programs, hidden: DomainData) -> None:
    own, _, _ = source(programs, ("hidden",), {"hidden": hidden})
    batch, _ = own.batch(0, 10, Fake(own.pool()), keys_of)
    (group,) = batch.groups
    chex.assert_shape(group.query.action, (2, 3, 4, 3))
    chex.assert_shape(group.support.history.reward, (2, 3, 4, 2, 2))
    paid, signed = (
        np.asarray(group.support.history.reward) > 0,
        signed_of(np.asarray(group.support.history.decisions[..., 0, :])),
    )
    said = paid == (signed > 0)  # [R, S, M, K, P]: what the support says of the bit
    np.testing.assert_array_equal(
        said, np.broadcast_to(np.asarray(group.query.reference)[..., :1, None] == 1, said.shape)
    )
    np.testing.assert_allclose(sum(g.weight.sum(-1) for g in batch.groups), 1.0, rtol=1e-6)
    again, _ = own.batch(0, 10, Fake(own.pool()), keys_of)
    chex.assert_trees_all_equal(batch, again)
    later, _ = own.batch(1, 10, Fake(own.pool()), keys_of)
    assert np.any(np.asarray(later.groups[0].query.reward) != np.asarray(group.query.reward))


def test_all_and_most_domains_share_the_shapes_of_a_step() -> None:
    def world(tokens: int, actions: int) -> Any:
        shapes = {"num_tokens": tokens, "num_actions": actions, "num_periods": 3, "horizon": 3}
        return types.SimpleNamespace(**shapes, num_token_features=30, num_action_features=7)

    sizes = [(2, 2), (2, 3), (3, 3), (9, 4), (9, 5), (4, 21), (5, 20)]
    suite = Suite.of(tuple(world(*size) for size in sizes), tuple("abcdefg"))
    everyone, most = groups_of(suite, suite.names, 3, 8), groups_of(suite, suite.names[1:5] + suite.names[6:], 3, 8)
    layout = lambda groups: [(g.suite.shapes, g.slots) for g in groups]  # noqa: E731
    assert layout(everyone) == layout(most)
    assert [group.slots for group in everyone] == [3, 2, 2]
    assert sorted(d for group in most for d in group.domains) == list(range(5))
    (single,) = groups_of(suite, ("b",), 3, 16)
    assert (single.slots, single.domains) == (16, (0,))


def test_arrays_of_less_are_written_into_the_front_of_larger_ones() -> None:
    out = {"a": np.zeros((3, 2, 4))}
    put(out, (np.array([0, 2]), np.array([1, 0])), {"a": np.ones((2, 3))})
    assert out["a"].sum() == 6
    assert (out["a"][0, 1, :3].sum(), out["a"][2, 0, :3].sum()) == (3, 3)


def trained(programs: Programs, data: dict[str, DomainData], iterations: int, **more: Any) -> Any:
    own, collector, domains = source(programs, tuple(data), data)
    hyperparams = training.stack([collector.learner.hyperparams(iterations, True)] * 2)
    return train(
        collector.learner, collector, domains, jax.random.key(0), hyperparams, Pace(iterations, 1), source=own, **more
    )


def test_rounds_gather_labelled_choices_and_a_stopped_run_ends_bitwise_the_same(
    programs: Programs, hidden: DomainData, sometimes: DomainData, tmp_path: pathlib.Path
) -> None:
    data = {"hidden": hidden, "sometimes": sometimes}
    whole = trained(programs, data, 6)
    for row, met in whole.pool:
        assert row.shape == (2, FROZEN.rounds * FROZEN.round_tasks)
        used = met.weight > 0
        labels = np.broadcast_to(bits(KEY)[row][..., None], used.shape)
        np.testing.assert_array_equal(met.reference[used], labels[used])
        assert (met.observation.action_mask.sum(-1)[used] == 2).all()
        assert np.any(row[0] != row[1])  # every replica meets its own
    seen = []

    def should_stop() -> bool:
        return len(seen) == 3

    def on_interval(interval: Interval) -> None:
        seen.append(interval.iteration)

    with pytest.raises(Stopped):
        trained(
            programs, data, 6, checkpointer=Checkpointer(tmp_path), hooks=Hooks(on_interval, should_stop=should_stop)
        )
    resumed = trained(programs, data, 6, checkpointer=Checkpointer(tmp_path), resume=True)
    chex.assert_trees_all_equal(jax.device_get(whole), jax.device_get(resumed))


def test_the_hidden_bit_is_learned_from_frozen_data(programs: Programs) -> None:
    config = dataclasses.replace(
        CONFIG, learning_rate=1e-2, frozen=dataclasses.replace(FROZEN, tasks=32, steps=20, batch=16, rounds=1)
    )
    suite = SUITE.subset(["hidden"])
    learner = learners.make("transformer_maml_dqn", config, suite)
    collector, domain = Collector(learner, suite, programs), DomainPrograms.of(SUITE, "hidden", programs)
    data = dataset.make(collector, domain, KEY)
    assert data is not None
    own = FrozenSource(collector, [domain], [data], [KEY])
    hyperparams = training.stack([learner.hyperparams(40, True)] * 2)
    run = train(learner, collector, [domain], jax.random.key(0), hyperparams, Pace(40, 40), source=own)
    tests = evaluation.make_evaluation_set(domain, collector, jax.random.key(1), 16, 2, 2)
    support = evaluation.random_support(tests, collector)
    scale = jax.tree.map(lambda leaf: leaf[:, 0], jax.device_get(run.scales))
    asked = (evaluation.Condition(0), evaluation.Condition(2))
    candidates = [place(learner.params(run.learner), 2)]
    returns = evaluation.evaluate(collector, candidates, scale, tests, support, asked, jax.random.key(2)).mean((2, 3))
    assert (returns[:, 1] > 3.8).all(), returns  # of 4 periods
    assert (returns[:, 0] < 3.5).all(), returns  # without support one can only guess


def test_data_on_disk_are_read_back_and_made_anew_if_damaged_or_of_another_version(
    programs: Programs, hidden: DomainData, tmp_path: pathlib.Path
) -> None:
    collector, domain = Collector(LEARNER, SUITE, programs), DomainPrograms.of(SUITE, "hidden", programs)
    asked = dataset.specification(collector, domain, KEY, False)
    template, calls, said = dataset.template(collector, False), [], []

    def make() -> DomainData:
        calls.append(1)
        return hidden

    def get(specification: dict[str, Any] = asked) -> DomainData:
        return datasets.kept(tmp_path, specification, template, make, said.append)

    chex.assert_trees_all_equal(get(), hidden)
    chex.assert_trees_all_equal(get(), hidden)
    assert (len(calls), said) == (1, [])
    path = datasets.path_of(tmp_path, asked)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place_ in rng.integers(len(content), size=20):
        flipped = content.copy()
        flipped[place_] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        calls.clear()
        said.clear()
        chex.assert_trees_all_equal(get(), hidden)
        assert len(calls) == 1
        assert "damaged" in said[0]
    path.write_bytes(content[:100])
    calls.clear()
    get()
    path.unlink()
    get()
    get({**asked, "worlds": "0.1"})
    assert len(calls) == 3
    path.write_bytes(datasets.path_of(tmp_path, {**asked, "worlds": "0.1"}).read_bytes())
    get()
    assert len(calls) == 4
    assert "another specification" in said[-1]


def test_folders_that_cannot_be_written_keep_nothing(
    programs: Programs, hidden: DomainData, tmp_path: pathlib.Path
) -> None:
    asked = dataset.specification(
        Collector(LEARNER, SUITE, programs), DomainPrograms.of(SUITE, "hidden", programs), KEY, False
    )
    (tmp_path / "datasets").write_text("in the way")
    said: list[str] = []
    assert datasets.kept(tmp_path, asked, hidden, lambda: hidden, said.append) is hidden
    assert "cannot be kept" in said[-1]


def test_frozen_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"frozen\.stretch must be at most frozen\.kept=8"):
        FrozenConfig(kept=8, stretch=9)
    with pytest.raises(ValueError, match=r"frozen\.td_share"):
        FrozenConfig(td_share=1.5)


def test_data_of_a_domain_that_is_left_out_never_reach_its_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.harness import session
    from experiments.harness.plan import TrainingRun
    from experiments.transfer.configuration import PRESETS

    own = session.Session(PRESETS["smoke"])
    first, second, left_out = PRESETS["smoke"].domains
    monkeypatch.setattr(own, "data", lambda domain, *rest: domain.name)
    monkeypatch.setattr(
        session, "FrozenSource", lambda collector, domains, data, keys: (collector, domains, data, keys)
    )
    run = TrainingRun("source", "transformer_maml_dqn", (first, second), (left_out,))
    _, domains, data, keys = own.source(run, None)  # type: ignore[arg-type]
    assert [domain.name for domain in domains] == data == [first, second]
    assert len(keys) == 2


def test_rounds_of_one_moment_differ_and_none_need_no_room(programs: Programs, hidden: DomainData) -> None:
    own, collector, domains = source(programs, ("hidden",), {"hidden": hidden})
    state = jax.vmap(collector.learner.init)(
        keys_of(0, 0), training.stack([collector.learner.hyperparams(1, True)] * 2)
    )
    run = training.Run(place(state, 2), own.scales(keys_of), own.pool())
    _, ((rows, _),) = own.batch(0, 1, run.replace(pool=own.pool()), keys_of)
    assert not np.any(rows)  # the first round comes after the only meta-iteration
    (played,) = own._play(0, 0, 1, run, run.pool, keys_of)
    (again,) = own._play(1, 0, 1, run, run.pool, keys_of)
    size = FROZEN.round_tasks
    assert np.any(played[0][:, :size] != again[0][:, size : 2 * size])
    none = dataclasses.replace(collector.learner.needs, frozen=dataclasses.replace(FROZEN, rounds=0))
    blind = Collector(collector.learner._replace(needs=none), SUITE.subset(["hidden"]), programs)
    without = FrozenSource(blind, domains, [hidden], [KEY])
    batch, pool = without.batch(0, 1, Fake(without.pool()), keys_of)
    assert pool == ()
    assert batch.groups[0].query.action.shape == (2, 3, 4, 3)
