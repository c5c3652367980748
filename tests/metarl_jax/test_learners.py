"""The registry, and the contract that every registered learner keeps, on one tiny suite."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs_jax.suite import Suite
from metarl_jax import learners
from metarl_jax.collection import Collector
from metarl_jax.configs import (
    AdaptationConfig,
    DataConfig,
    FineTuningConfig,
    LearnedOptimizerConfig,
    MamlDqnConfig,
    NetworkConfig,
    OptimizerGatingConfig,
    QLearningConfig,
    TransformerDqnConfig,
    TransformerMamlDqnConfig,
)
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner
from metarl_jax.learners.bayes_readout import BayesReadoutConfig
from metarl_jax.networks.actor import ActingMode, TransformerActor, choose, epsilon_greedy
from metarl_jax.recording import empty_support
from metarl_jax.rewards import KNOWN_SCALE, prepare_support
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.checkpointing import Checkpointer
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place
from metarl_jax.types import REWARD_SCALE, RewardScale
from tests.metarl_jax import probes, small

DATA = DataConfig(tasks=3, episodes=2)
LEARNING = QLearningConfig(samples=2, num_steps=1, updates=2, replay=2)
TUNING = FineTuningConfig(step_sizes=(0.1,), steps=(1,), adapt=("head",))
SUITE = Suite.of((probes.Match(), probes.Hidden()))
OWN: dict[str, dict[str, Any]] = {
    "transformer_maml_dqn": {"learning": LEARNING, "adaptation": AdaptationConfig(steps=1)},
    "transformer_dqn": {"learning": LEARNING, "fine_tuning": TUNING},
    "ppo": {"epochs": 1, "minibatches": 2, "fine_tuning": TUNING},
    "rl2": {"epochs": 1, "minibatches": 1, "trials": 2},
    "a2c": {"minibatches": 2, "fine_tuning": TUNING},
    "sac": {"learning": LEARNING, "fine_tuning": TUNING},
    "maml_pg": {"epochs": 1},
    "bayes_readout": {"samples": 2, "updates": 2, "replay": 2, "kappas": (1.0, 0.0)},
    "dqn": {"learning": LEARNING, "fine_tuning": TUNING},
    "double_dueling_dqn": {"learning": LEARNING, "fine_tuning": TUNING},
    "decision_pretrained": {"learning": LEARNING},
    "context": {"learning": LEARNING},
    "optimizer_gating": {"learning": LEARNING, "adaptation": AdaptationConfig(steps=1)},
    "learned_optimizer": {"learning": LEARNING, "adaptation": AdaptationConfig(steps=1)},
    "reptile": {"learning": LEARNING, "fine_tuning": TUNING, "steps": 2},
    "maml_dqn": {"learning": LEARNING, "adaptation": AdaptationConfig(steps=1)},
}
META_LEARNED = ("transformer_maml_dqn", "optimizer_gating", "learned_optimizer", "maml_dqn")
"""Q-learners that learn how to take gradient steps."""
FINE_TUNED = ("transformer_dqn", "dqn", "double_dueling_dqn", "reptile", "sac")
BY_GRADIENT = (*META_LEARNED, *FINE_TUNED)
IN_CONTEXT = ("context", "decision_pretrained")
"""Q-learners that take no gradient steps in a new task."""
VALUE_BASED = (*BY_GRADIENT, *IN_CONTEXT)
ON_POLICY = ("ppo", "rl2", "a2c", "maml_pg")
ON_NETWORK = (*VALUE_BASED, *ON_POLICY)
"""Learners on the agent network."""
OTHER_TRUNK = ("maml_dqn",)
"""Those whose blocks are others, so that they need an acting program of their own."""
PERIODS = probes.Probe.num_periods


def make(name: str, suite: Suite = SUITE, **more: Any) -> Learner:
    network = {"network": small.NETWORK} if name in ON_NETWORK else {}
    config = learners.config_class(name)(**({"data": DATA} | network | OWN[name] | more))
    return learners.make(name, config, suite)


class Iteration(NamedTuple):
    name: str
    learner: Learner
    start: Any
    scale: RewardScale
    raw: Any  # the support episodes of which the scale is, in the domain's unit
    batch: Any
    again: Any
    states: Any  # after the first update, after the second
    metrics: Any
    update: Any


PROGRAMS = Programs(1)
"""All learners share them, as in a run."""


@pytest.fixture(scope="module", params=learners.registered())
def iteration(request: pytest.FixtureRequest) -> Iteration:
    """Two meta-iterations of every registered learner, as the training loop runs them."""
    learner = make(request.param)
    collector, hidden = Collector(learner, SUITE, PROGRAMS), DomainPrograms.of(SUITE, "hidden", PROGRAMS)
    update = jax.jit(learner.update, static_argnums=3)
    start = jax.jit(learner.init)(jax.random.key(0), learner.hyperparams(10, True))
    trained = place(jax.tree.map(lambda leaf: leaf[None], learner.params(start)), 1)
    keys = place(jax.random.split(jax.random.key(1), 1), 1)
    scale = collector.scale(hidden, keys)
    task_keys, support_keys, query_keys, _, key, _ = collector._keys(keys)
    episodes = support_keys if learner.needs.support_episodes else query_keys
    played = collector.rollout_policy(hidden, "random", *hidden.draw(task_keys), episodes, key)
    batch, again = (
        jax.tree.map(lambda leaf: leaf[0], collector.collect(hidden, trained, scale, keys, inner_steps=False))
        for _ in range(2)
    )
    one, metrics = update(start, batch, jax.random.key(3), learner.schedule(0.0))
    two, _ = update(one, batch, jax.random.key(4), learner.schedule(0.0))
    raw = np.asarray(played.trajectory.reward)[0]
    return Iteration(request.param, learner, start, scale, raw, batch, again, (one, two), metrics, update)


@pytest.mark.slow
def test_an_iteration_changes_what_is_learned_and_keeps_its_type(iteration: Iteration) -> None:
    one, two = iteration.states
    chex.assert_trees_all_equal_shapes_and_dtypes(iteration.start, one)
    chex.assert_tree_all_finite((one.params, two.params, iteration.metrics))
    for before, after in ((iteration.start, one), (one, two)):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
        assert max(jax.tree.leaves(moved)) > 1e-5
    assert int(two.iteration) == 2
    assert {"loss", "gradient_norm", "query_reward", "gradient_steps"} <= set(iteration.metrics)
    if iteration.name in VALUE_BASED:
        assert {"td_loss", "cross_entropy", "agreement"} <= set(iteration.metrics)
        assert iteration.metrics["gradient_steps"] == LEARNING.updates
    if iteration.name == "decision_pretrained":
        assert iteration.metrics["td_loss"] == 0.0
        assert iteration.metrics["loss"] == iteration.metrics["cross_entropy"] > 0.0
    if iteration.name in ON_POLICY:
        # Before the first step the policy is that which collected: its recomputed probabilities are those acted by.
        assert iteration.metrics["first_ratio_error"] < 1e-5
    assert all(np.shape(value) == () for value in iteration.metrics.values())


@pytest.mark.slow
def test_what_is_saved_goes_on_bitwise(iteration: Iteration, tmp_path: pathlib.Path) -> None:
    one, two = iteration.states
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, one, {})
    saved = checkpointer.latest_valid(jax.eval_shape(lambda: one))
    assert saved is not None
    again, _ = iteration.update(saved.tree, iteration.batch, jax.random.key(4), iteration.learner.schedule(0.0))
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, again), jax.tree.map(np.asarray, two))


@pytest.mark.slow
def test_collection_is_a_function_of_its_key(iteration: Iteration) -> None:
    chex.assert_trees_all_equal(iteration.batch, iteration.again)


@pytest.mark.slow
def test_what_is_collected_is_what_is_needed(iteration: Iteration) -> None:
    needs, batch = iteration.learner.needs, iteration.batch
    assert needs.tasks == DATA.tasks
    assert (batch.support is not None) == (needs.support_episodes > 0 and needs.order == "parallel")
    if needs.record.ordered:
        episodes = needs.support_episodes + 1 if needs.order == "sequential" else 1
        assert batch.query.action.shape == (needs.tasks, needs.query_episodes, episodes * PERIODS)
        assert batch.query.valid.all()
    else:
        assert batch.query.weight.shape == (needs.tasks, needs.query_episodes, needs.record.samples)
    assert needs.labels or not iteration.name.startswith("transformer"), "Q-learners may learn from labels"
    assert needs.labels == learners.config_class(iteration.name).labels


@pytest.mark.slow
def test_replay_keeps_the_last_collections_task_by_task(iteration: Iteration) -> None:
    if iteration.name not in VALUE_BASED:
        pytest.skip("no replay of transitions")
    one, _ = iteration.states
    newest = jax.tree.map(lambda ring: ring[0], one.replay)
    query = jax.tree.map(lambda leaf: leaf.reshape(DATA.tasks, -1, *leaf.shape[3:]), iteration.batch.query)
    chex.assert_trees_all_equal(newest, iteration.batch.replace(query=query))
    empty = jax.tree.map(lambda ring: ring[1], one.replay)
    assert not np.any(empty.query.weight)
    support = iteration.batch.support
    assert support.transitions.weight.shape == (DATA.tasks, DATA.episodes, LEARNING.samples)
    assert newest.query.weight.shape == (DATA.tasks, DATA.episodes * LEARNING.samples)


@pytest.mark.slow
def test_calibration_normalises_the_domain(iteration: Iteration) -> None:
    """Scales are exactly those of the first random episodes, which pay 0 or 1 a period; batches are normalised so."""
    mean, sd = float(iteration.scale.mean[0]), float(iteration.scale.sd[0])
    paid = iteration.raw  # [P, B, K], one choice a period
    assert set(np.unique(paid)) == {0.0, 1.0}
    np.testing.assert_allclose([mean, sd], [paid.mean(), paid.std()], rtol=1e-5)
    levels = [REWARD_SCALE * (reward - mean) / sd for reward in (0.0, 1.0)]
    needs, batch = iteration.learner.needs, iteration.batch
    rewards = batch.query.reward if needs.record.ordered else batch.query.immediate
    near = np.abs(np.asarray(rewards)[..., None] - np.asarray(levels))
    assert near.min(-1).max() < 1e-5, "a normalised reward is neither of the two that the probe pays"
    assert set(near.argmin(-1).flat) == {0, 1}
    if batch.support is not None and needs.support == "random":
        # Played with the keys of the first collection: the very episodes of which the scale is.
        rewards = np.asarray(batch.support.history.reward)
        np.testing.assert_allclose(rewards, REWARD_SCALE * (np.moveaxis(paid, 0, -1) - mean) / sd, atol=1e-5)
        np.testing.assert_allclose([rewards.mean(), rewards.std()], [0.0, REWARD_SCALE], atol=1e-6)


@pytest.mark.slow
def test_adapts_and_acts(iteration: Iteration) -> None:
    learner, state = iteration.learner, iteration.states[0]
    needs, count = learner.needs, 6
    seen = small.observations(np.random.default_rng(0), count, actions=2)
    support = iteration.batch.support

    @jax.jit
    def program(trained: Any, key: chex.PRNGKey, mode: ActingMode) -> tuple[chex.Array, Any, Any]:
        policy = learner.adapt(trained, task)
        acting = learner.acting(trained)
        carry = learner.actor.start(acting, policy)
        carry = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), carry)
        return *learner.actor.act(acting, policy, carry, seen, key, mode), policy

    if support is None:
        whole = empty_support(SUITE, needs.record, 1, 2)
        whole = prepare_support(whole, KNOWN_SCALE, jnp.zeros(1, jnp.int32), jnp.bool_(False))
    else:
        whole = support
    task = jax.tree.map(lambda leaf: leaf[0], whole)
    trained = learner.params(state)
    modes = {
        "greedy": ActingMode(jnp.float32(0.0), jnp.float32(0.0)),
        "random": ActingMode(jnp.float32(1.0), jnp.float32(0.0)),
        "sampled": ActingMode(jnp.float32(0.0), jnp.float32(1.0)),
    }
    chosen = {name: program(trained, jax.random.key(0), mode) for name, mode in modes.items()}
    for name, (action, carry, _) in chosen.items():
        assert action.dtype == jnp.int32, name
        assert np.all(np.asarray(seen.action_mask)[np.arange(count), action]), name
        described = np.take_along_axis(np.asarray(seen.actions), np.asarray(action)[:, None, None], 1)[:, 0]
        if iteration.name in ON_NETWORK:
            np.testing.assert_array_equal(carry.last, described, err_msg=name)
    again = program(trained, jax.random.key(1), modes["greedy"])[0]
    np.testing.assert_array_equal(again, chosen["greedy"][0])


@pytest.mark.slow
def test_candidates_differ_in_what_adapting_reads_alone(iteration: Iteration) -> None:
    """Who acts is compiled, and placed on the devices, once for all of them."""
    learner = iteration.learner
    stacked = jax.tree.map(lambda leaf: leaf[None], learner.params(iteration.states[0]))
    found = learner.candidates(stacked)
    assert len(found) >= 1
    tuned, cautious = ["head, 1 steps of 0.1"], [f"kappa {k} over {d}" for k in (1, 0) for d in ("noop", "average")]
    expected = {"ppo": tuned, "a2c": tuned, "bayes_readout": cautious} | dict.fromkeys(FINE_TUNED, tuned)
    assert list(found) == expected.get(iteration.name, ["as trained"])
    for way in found.values():
        one = jax.tree.map(lambda leaf: leaf[0], way)
        acting = learner.acting(learner.params(iteration.states[0]))
        chex.assert_trees_all_equal(learner.acting(one), acting)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_GRADIENT)
def test_gradients_are_taken_on_transitions_alone(name: str) -> None:
    """With transitions the head moves, at test time; without, and on nothing, it does not."""
    learner, rng = make(name), np.random.default_rng(0)
    state = jax.jit(learner.init)(jax.random.key(0), learner.hyperparams(10, True))
    trained = learner.params(state)
    (way,) = learner.candidates(jax.tree.map(lambda leaf: leaf[None], trained)).values()
    trained = jax.tree.map(lambda leaf: leaf[0], way)
    task = small.support(rng)  # two of its three actions are legal: who has no choice has no gradient of a policy
    adapt = jax.jit(learner.adapt)

    def moved(support: Any) -> float:
        own, head = adapt(trained, support).adapted["head"], trained["params"]["head"]
        return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), own, head)))

    assert moved(task) > 1e-5
    assert moved(task.without_gradients()) == 0.0, "without inner steps nothing moves"
    assert moved(task.first(0)) == 0.0


@pytest.mark.slow
def test_who_has_a_memory(iteration: Iteration) -> None:
    if iteration.name not in ON_NETWORK:
        pytest.skip("no network")
    remembering = ("transformer_maml_dqn", "optimizer_gating", "learned_optimizer", "decision_pretrained")
    parts = {"rl2": {"cell"}, "context": {"memory", "decoder"}, "sac": {"critics", "log_alpha"}}
    parts |= {"maml_pg": {"step_sizes"}} | {name: {"memory"} for name in remembering}
    parts = parts.get(iteration.name, set())
    assert set(iteration.start.params) == {"trunk", "head"} | parts


@pytest.mark.parametrize("name", ["transformer_dqn", "dqn", "double_dueling_dqn", *IN_CONTEXT])
def test_no_inner_steps_in_training(name: str) -> None:
    learner = make(name)
    found = {learner.schedule(x / 10) for x in range(10)}
    assert {(phase.name, phase.inner_steps) for phase in found} == {("none", False)}


@pytest.mark.parametrize("name", learners.registered())
def test_equal_learners_share_their_programs(name: str) -> None:
    one, other = make(name), make(name)
    assert one.spec == other.spec
    assert hash(one.spec) == hash(other.spec)
    assert one.needs == other.needs
    assert one.name == name
    more: dict[str, Any] = {"learning_rate" if name in ON_NETWORK else "outer_rate": 0.123}
    changed = make(name, **more)
    assert changed.spec != one.spec, "a learner of another configuration would run this one's programs"
    longer = make(name, Suite.of((probes.Match(), Longer())))
    assert longer.spec != one.spec, "arrays of other shapes need programs of their own"


class Longer(probes.Hidden):
    """As Hidden, with more periods."""

    name = "longer"
    num_periods = 6


def test_all_learners_on_the_network_act_alike() -> None:
    """Equal actors, and policies and acting parameters of equal shapes: each domain is compiled once for all."""
    alike = [name for name in ON_NETWORK if name not in OTHER_TRUNK]
    actors = {make(name).actor for name in alike}
    assert actors == {TransformerActor(small.NETWORK, SUITE.action_features)}
    assert {make(name).actor for name in OTHER_TRUNK}.isdisjoint(actors)
    shapes = []
    for name in alike:
        learner = make(name)
        hyperparams = jax.eval_shape(lambda learner=learner: learner.hyperparams(1, True))
        trained = jax.eval_shape(
            lambda key, hyper, learner=learner: learner.params(learner.init(key, hyper)), jax.random.key(0), hyperparams
        )
        shapes.append(jax.eval_shape(learner.acting, trained))
    for other in shapes[1:]:
        chex.assert_trees_all_equal_shapes_and_dtypes(shapes[0], other)


def test_muon_moves_matrices_along_all_directions_alike_and_leaves_the_rest_to_adam() -> None:
    gradient = {"matrix": jnp.diag(jnp.asarray([4.0, 1.0, 0.25])), "bias": jnp.asarray([4.0, 1.0, 0.25])}
    found = {}
    for name, rule in {"adam": optax.scale_by_adam(nesterov=True), "muon": q_learning.direction("muon")}.items():
        found[name], _ = rule.update(gradient, rule.init(gradient), gradient)
    # Newton-Schulz steps bring singular values near 1, not to it; then 0.2 sqrt(largest side) makes the size Adam's.
    singular = jnp.linalg.svd(found["muon"]["matrix"], compute_uv=False)
    np.testing.assert_allclose(singular, 0.2 * 3**0.5, rtol=0.35)
    assert np.all(np.diagonal(found["muon"]["matrix"]) > 0), "ascends, as Adam's direction does"
    np.testing.assert_allclose(found["muon"]["bias"], found["adam"]["bias"], rtol=1e-4)


def test_registry() -> None:
    names = learners.registered()
    assert set(names) == set(OWN)
    for name in names:
        assert learners.config_class(name).__name__ == "".join(map(str.capitalize, name.split("_"))) + "Config"
    assert learners.config_class("bayes_readout") is BayesReadoutConfig
    known = ", ".join(names)
    with pytest.raises(ValueError, match=f"^unknown learner 'impala'; registered: {known}$"):
        learners.make("impala", TransformerDqnConfig(), SUITE)
    with pytest.raises(ValueError, match=r"unknown learner 'transformer-dqn' \(did you mean transformer_dqn\?\)"):
        learners.config_class("transformer-dqn")
    with pytest.raises(ValueError, match="takes a TransformerDqnConfig, got a TransformerMamlDqnConfig"):
        learners.make("transformer_dqn", TransformerMamlDqnConfig(), SUITE)


def test_decision_pretraining_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="decision_pretrained learns from labels alone: labels must be True, got Fal"):
        make("decision_pretrained").hyperparams(10, False)


def test_what_a_learner_fixes_is_kept_and_another_choice_refused() -> None:
    gated = OptimizerGatingConfig(adaptation=AdaptationConfig(steps=2))
    assert gated.adaptation == AdaptationConfig(steps=2, rule="gated")
    assert MamlDqnConfig().network.mixing == "mean"
    assert MamlDqnConfig().adaptation.adapt == "all"
    with pytest.raises(ValueError, match=r"adaptation\.rule must be learned for this learner, got sgd"):
        LearnedOptimizerConfig(adaptation=AdaptationConfig(rule="sgd"))
    with pytest.raises(ValueError, match=r"steps must be at most the 8 choices kept of a task, got 9"):
        make("reptile", steps=9)


@pytest.mark.parametrize("name", ON_NETWORK)
def test_what_does_not_fit_the_suite_is_refused(name: str) -> None:
    config = learners.config_class(name)(network=NetworkConfig(slots=1))
    with pytest.raises(ValueError, match=r"network\.slots must be at least 2 for this suite, got 1"):
        learners.make(name, config, SUITE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"order": "third"}, "order must be one of none, first, second"),
        ({"context_share": -0.1}, "context_share must be a finite number at least 0 and at most 1, got -0.1"),
        ({"context_share": 0.9, "first_order_share": 0.2}, "must be at most 1, got 1.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number above 0"),
    ],
)
def test_impossible_schedules_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerMamlDqnConfig(**changed)


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (DataConfig, "tasks", 0),
        (DataConfig, "episodes", 2.5),
        (DataConfig, "periods", True),
        (QLearningConfig, "replay", 0),
        (QLearningConfig, "epsilon", 1.5),
        (QLearningConfig, "polyak", -0.1),
        (QLearningConfig, "temperature", 0.0),
        (QLearningConfig, "max_grad_norm", float("inf")),
    ],
)
def test_impossible_data_are_refused(config: Any, field: str, value: float) -> None:
    prefix = {DataConfig: "data", QLearningConfig: "learning"}[config]
    with pytest.raises(ValueError, match=rf"^{prefix}\.{field} must be .*, got {value}$"):
        config(**{field: value})


@pytest.fixture(scope="module")
def preferences() -> tuple[Any, chex.Array]:
    """4000 observations of three actions, the last illegal, and what is thought of them."""
    seen = small.observations(np.random.default_rng(1), 4000)
    return seen, jnp.tile(jnp.array([0.0, 1.0, -1e9]), (4000, 1))


def share_of(chosen: chex.Array) -> np.ndarray:
    return np.bincount(chosen, minlength=3) / len(chosen)


def test_epsilon_greedy_explores_legal_actions_as_often_as_asked(preferences: tuple[Any, chex.Array]) -> None:
    seen, q = preferences
    chosen = jax.jit(epsilon_greedy)(q, seen, jax.random.key(0), 0.5)
    np.testing.assert_allclose(share_of(chosen), [0.25, 0.75, 0.0], atol=0.03)


def test_choices_follow_the_mode(preferences: tuple[Any, chex.Array]) -> None:
    """Greedy, drawn from ``softmax(q / temperature)``, and mixed with random legal ones: four standard errors."""
    seen, q = preferences
    program = jax.jit(lambda epsilon, temperature: choose(q, seen, jax.random.key(0), ActingMode(epsilon, temperature)))
    np.testing.assert_array_equal(program(jnp.float32(0.0), jnp.float32(0.0)), 1)
    for epsilon, temperature in ((0.0, 1.0), (0.0, 0.5), (0.4, 0.5), (1.0, 1.0)):
        drawn = np.exp(np.array([0.0, 1.0]) / temperature)
        expected = (1 - epsilon) * drawn / drawn.sum() + epsilon / 2
        found = share_of(program(jnp.float32(epsilon), jnp.float32(temperature)))
        np.testing.assert_allclose(found, [*expected, 0.0], atol=4 * np.sqrt(0.25 / 4000))
    np.testing.assert_array_equal(
        program(jnp.float32(0.5), jnp.float32(0.0)), jax.jit(epsilon_greedy)(q, seen, jax.random.key(0), 0.5)
    )
