"""Gradient truths of the inner loop, on a tiny network in double precision where numbers are compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import adaptation, learners
from metarl_jax.configs import (
    AdaptationConfig,
    AdaptSet,
    DataConfig,
    FineTuningConfig,
    Order,
    QLearningConfig,
    TransformerDqnConfig,
    TransformerMamlDqnConfig,
)
from metarl_jax.learners.q_learning import Recipe, query_loss, read_support
from metarl_jax.networks.actor import Policy
from metarl_jax.networks.agent import AgentNetwork
from metarl_jax.types import Support
from tests.metarl_jax import probes, small

NETWORK = AgentNetwork(small.NETWORK)
ADAPT_SETS: tuple[AdaptSet, ...] = ("head", "all")
SUITE = Suite.of((probes.Match(),))


class Setting(NamedTuple):
    trained: dict[str, Any]  # parameters and logarithms of the step sizes: what the outer loop learns
    target: Any
    support: Any
    query: Any


def inner(adapt: AdaptSet = "head", steps: int = 2, step_size: float = 0.3) -> AdaptationConfig:
    return AdaptationConfig(adapt=adapt, steps=steps, step_size=step_size)


def make_setting(config: AdaptationConfig) -> Setting:
    rng = np.random.default_rng(0)
    params, target = (small.init(NETWORK, jax.random.key(i)) for i in (0, 1))
    sizes = adaptation.init_step_sizes(params, config.adapt, config.steps, config.step_size)
    trained = {"params": params, "step_sizes": sizes}
    return Setting(trained, target, small.support(rng), small.transitions(rng, small.SAMPLES))


def recipe_of(config: AdaptationConfig) -> Recipe:
    return Recipe(small.NETWORK, DataConfig(), QLearningConfig(), config.reward_weight)


def adapt(config: AdaptationConfig, trained: Any, target: Any, support: Support, *, second_order: bool) -> Policy:
    """The inner loop of a Q-learner on one task's support, put together from its public parts."""
    recipe, params = recipe_of(config), trained["params"]
    start = {name: params[name] for name in adaptation.adapted_names(config.adapt)}
    policy = read_support(recipe, params, support, start)
    loss = recipe.loss.on(params, target, policy.memory, support, fixed_trunk=config.adapt == "head")
    moved = adaptation.descend(
        loss,
        start,
        trained["step_sizes"],
        second_order=second_order,
        unroll=config.unroll,
        checkpoint=config.adapt == "all",
    )
    return policy.replace(adapted=moved)


def outer_loss(config: AdaptationConfig, *, second_order: bool) -> Any:
    """The outer loss of one task as a function of what is learned; the adapted target is an argument: it is fixed."""

    def loss(trained: Any, target: Any, target_policy: Any, support: Any, query: Any) -> chex.Array:
        policy = adapt(config, trained, target, support, second_order=second_order)
        weight = jnp.float64(0.2)
        return query_loss(recipe_of(config), trained["params"], policy, target, target_policy, query, weight)[0]

    return loss


class Gradients(NamedTuple):
    adapt: AdaptSet
    program: Any  # value, second-order and first-order gradient
    setting: Setting
    target_policy: Any
    second: Any
    first: Any


@pytest.fixture(scope="module", params=ADAPT_SETS)
def gradients(request: pytest.FixtureRequest) -> Iterator[Gradients]:
    with jax.enable_x64(True):
        config = inner(request.param)
        setting = small.as_float64(make_setting(config))
        # The loss gives no gradient to the adapted target, so it must be held fixed here; any one will do.
        memory = jax.tree.map(jnp.float64, NETWORK.no_memory(small.TOKENS))
        target_policy = Policy({}, memory, jnp.zeros(small.NETWORK.hidden))
        loss = jax.value_and_grad(outer_loss(config, second_order=True))
        first_order = jax.grad(outer_loss(config, second_order=False))
        program = jax.jit(lambda *a: (*loss(*a), first_order(*a)))  # one program: much is common to both
        _, second, first = program(setting.trained, setting.target, target_policy, setting.support, setting.query)
        yield Gradients(request.param, program, setting, target_policy, *jax.device_get((second, first)))


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def paths(tree: Any) -> list[str]:
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


# One leaf of every part of the network, and a step size of the inner loop.
PARTS = (
    "params/trunk/embed/kernel",
    "params/trunk/block_0/attention/qkv/kernel",
    "params/trunk/read/answer/kernel",
    "params/memory/value/kernel",
    "params/memory/tau",
    "params/head/value/kernel",
    "params/head/advantage/kernel",
    "step_sizes/head/value_hidden/kernel",
    "step_sizes/head/advantage/bias",
)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_meta_gradient_equals_finite_differences(gradients: Gradients, part: str) -> None:
    at, width = paths(gradients.second).index(part), 1e-5
    with jax.enable_x64(True):
        leaves, structure = jax.tree.flatten(gradients.setting.trained)
        direction = np.random.default_rng(1).normal(size=leaves[at].shape)

        def moved(amount: float) -> float:
            changed = list(leaves)
            changed[at] = leaves[at] + amount * direction
            _, target, support, query = gradients.setting
            trained = jax.tree.unflatten(structure, changed)
            return float(gradients.program(trained, target, gradients.target_policy, support, query)[0])

        numeric = (moved(width) - moved(-width)) / (2 * width)
    analytic = np.sum(np.asarray(jax.tree.leaves(gradients.second)[at]) * direction)
    assert abs(analytic) > 1e-6, "the outer loss does not depend on this part of the network"
    np.testing.assert_allclose(analytic, numeric, rtol=1e-5)


@pytest.mark.slow
def test_second_order_differs_from_first(gradients: Gradients) -> None:
    first, second = flat(gradients.first["params"]), flat(gradients.second["params"])
    assert np.linalg.norm(second - first) > 0.01 * np.linalg.norm(first)


@pytest.mark.slow
def test_learned_step_sizes_receive_gradient(gradients: Gradients) -> None:
    # Q is blind to the bias of the advantage (the mean over actions is taken off) and to that of the predicted reward;
    # only through a second step's own gradient can the step size of the latter matter.
    for gradient, blind in ((gradients.first, {"head/advantage/bias"}), (gradients.second, set())):
        sizes = gradient["step_sizes"]
        assert set(sizes) == set(adaptation.adapted_names(gradients.adapt))
        for path, leaf in zip(paths(sizes), jax.tree.leaves(sizes), strict=True):
            assert leaf.shape == (2,), path
            assert path in blind or np.any(leaf != 0), path


@pytest.mark.slow
def test_all_parameters_of_the_network_receive_gradient(gradients: Gradients) -> None:
    """The earlier project's outer update was a no-op."""
    for path, leaf in zip(paths(gradients.second), jax.tree.leaves(gradients.second), strict=True):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_targets_carry_no_gradient() -> None:
    """Of the target network, nothing but bootstrapped values enters the adapted head: it must get no gradient."""
    config = inner()
    setting = make_setting(config)

    def head(target: Any, setting: Setting) -> chex.Array:
        policy = adapt(config, setting.trained, target, setting.support, second_order=True)
        return policy.adapted["head"]["value_hidden"]["kernel"]

    def pull(target: Any, setting: Setting) -> Any:
        value, pullback = jax.vjp(lambda target: head(target, setting), target)
        return value, *pullback(jnp.ones_like(value))

    value, gradient = jax.device_get(jax.jit(pull)(setting.target, setting))
    assert np.any(value != setting.trained["params"]["head"]["value_hidden"]["kernel"])
    assert not np.any(flat(gradient))


class Adapted(NamedTuple):
    setting: Setting
    policy: Any
    memory: Any
    empty: Any
    before: float
    after: float


@pytest.fixture(scope="module", params=ADAPT_SETS)
def adapted(request: pytest.FixtureRequest) -> Adapted:
    """One small inner step and, with the same program, what no support gives."""
    config = inner(request.param, steps=1, step_size=0.01)
    setting = make_setting(config)

    @jax.jit
    def program(setting: Setting, episodes: chex.Array) -> tuple[Any, ...]:
        params, support = setting.trained["params"], setting.support.first(episodes)
        policy = adapt(config, setting.trained, setting.target, support, second_order=False)
        loss = recipe_of(config).loss.on(params, setting.target, policy.memory, support, fixed_trunk=False)
        return policy, loss(params), loss(policy.parameters(params))

    policy, before, after = program(setting, jnp.int32(small.EPISODES))
    empty = program(setting, jnp.int32(0))[0]
    return Adapted(setting, policy, policy.memory, empty, float(before), float(after))


def test_inner_step_reduces_the_loss_on_the_support(adapted: Adapted) -> None:
    assert 0 < adapted.after < adapted.before


def test_without_support_the_policy_is_the_shared_one(adapted: Adapted) -> None:
    params = adapted.setting.trained["params"]
    chex.assert_trees_all_equal(adapted.empty.parameters(params), params)
    chex.assert_trees_all_equal(adapted.empty.memory, NETWORK.no_memory(small.TOKENS))


def test_only_the_chosen_parameters_move(adapted: Adapted) -> None:
    params, own = adapted.setting.trained["params"], adapted.policy.parameters(adapted.setting.trained["params"])
    chosen = set(adapted.policy.adapted)
    assert chosen == set(adapted.setting.trained["step_sizes"])
    assert chosen in ({"head"}, {"head", "trunk"})
    for name in params:
        moved = flat(own[name]) != flat(params[name])
        assert np.mean(moved) > 0.3 if name in chosen else not np.any(moved), name


def maml(config: AdaptationConfig, order: Order) -> Any:
    own = TransformerMamlDqnConfig(network=small.NETWORK, adaptation=config, order=order)
    return learners.make("transformer_maml_dqn", own, SUITE)


@pytest.fixture(scope="module")
def context_alone() -> dict[str, Any]:
    """What three ways make of one support, and what the shared parameters were."""
    setting = make_setting(inner())
    trained = {**setting.trained, "target": setting.target}

    @jax.jit
    def program(trained: Any, support: Support) -> dict[str, Any]:
        without = {**trained, "step_sizes": jax.tree.map(lambda leaf: leaf[:0], trained["step_sizes"])}
        return {
            "no order": maml(inner(), "none").adapt(trained, support),
            "no step": maml(inner(steps=0), "second").adapt(without, support),
            "nothing to step on": maml(inner(), "second").adapt(trained, support.without_gradients()),
            "steps": maml(inner(), "second").adapt(trained, support),
            "memory": NETWORK.remember(trained["params"], support.history),
        }

    return jax.device_get(program(trained, setting.support)) | {"params": setting.trained["params"]}


@pytest.mark.parametrize("way", ["no order", "no step", "nothing to step on"])
def test_context_alone_takes_no_step(context_alone: dict[str, Any], way: str) -> None:
    params, policy = context_alone["params"], context_alone[way]
    chex.assert_trees_all_equal(policy.parameters(params), params)
    chex.assert_trees_all_close(policy.memory, context_alone["memory"], rtol=1e-6)
    assert np.any(flat(context_alone["steps"].parameters(params)) != flat(params)), "this test cannot see a step"
    # Acting is compiled for one structure of policies.
    chex.assert_trees_all_equal_shapes_and_dtypes(policy, context_alone["steps"])


# ---- fine-tuning -----------------------------------------------------------------------------------------------------


def test_fine_tuning_equals_a_loop_of_gradient_steps() -> None:
    """One program for every number and size of steps: both are traced."""

    def loss(params: Any) -> chex.Array:
        return jnp.sum((params["w"] - 3.0) ** 2) + jnp.sin(params["b"] * params["w"]).sum()

    start = {"w": jnp.array([1.0, -2.0]), "b": jnp.float32(0.5)}
    program = jax.jit(lambda size, steps: adaptation.fine_tune(loss, start, size, steps))
    gradient = jax.jit(jax.grad(loss))
    for size, steps in ((0.1, 0), (0.1, 1), (0.1, 7), (0.02, 30)):
        expected = start
        for _ in range(steps):
            expected = jax.tree.map(lambda p, g, size=size: p - size * g, expected, gradient(expected))
        found = program(jnp.float32(size), jnp.int32(steps))
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
        assert (steps == 0) == bool(np.all(found["w"] == start["w"]))
    assert program._cache_size() == 1


TUNING = FineTuningConfig(step_sizes=(0.01, 0.1), steps=(1, 3), adapt=("head", "all"))


class Tuned(NamedTuple):
    params: Any
    candidates: dict[str, Any]  # stacked, one replica
    policies: dict[str, Policy]
    untuned: Policy
    loops: dict[str, Any]  # the same by Python loops


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    """Every way of fine-tuning the multitask learner on one support, by its own ``adapt`` and by loops."""
    config = TransformerDqnConfig(network=small.NETWORK, fine_tuning=TUNING)
    learner = learners.make("transformer_dqn", config, SUITE)
    rng, network = np.random.default_rng(0), AgentNetwork(small.NETWORK, use_memory=False)
    params, target = (small.init(network, jax.random.key(i)) for i in (0, 1))
    trained, support = {"params": params, "target": target, "step_sizes": {}}, small.support(rng)
    candidates = dict(learner.candidates(jax.tree.map(lambda leaf: leaf[None], trained)))
    adapt = jax.jit(learner.adapt)
    policies = {label: adapt(jax.tree.map(lambda leaf: leaf[0], way), support) for label, way in candidates.items()}

    def loss(subset: Any) -> chex.Array:
        recipe = Recipe(small.NETWORK, config.data, config.learning, config.adaptation.reward_weight, use_memory=False)
        memory = network.no_memory(small.TOKENS)
        return recipe.loss.on(params, target, memory, support, fixed_trunk=False)({**params, **subset})

    gradients = {names: jax.jit(jax.grad(loss)) for names in (("head",), ("head", "trunk"))}
    loops = {}
    for names, gradient in gradients.items():
        for size in TUNING.step_sizes:
            current = {name: params[name] for name in names}
            for step in range(max(TUNING.steps)):
                current = jax.tree.map(lambda p, g, size=size: p - size * g, current, gradient(current))
                if step + 1 in TUNING.steps:
                    which = "head" if len(names) == 1 else "all"
                    loops[f"{which}, {step + 1} steps of {size:g}"] = current
    return Tuned(params, candidates, policies, adapt(trained, support), loops)


def test_candidates_cover_sizes_steps_and_sets(tuned: Tuned) -> None:
    labels = [f"{which}, {n} steps of {size:g}" for which in TUNING.adapt for n in TUNING.steps for size in (0.01, 0.1)]
    assert list(tuned.candidates) == labels
    found = set()
    for label, way in tuned.candidates.items():
        names = tuple(way["step_sizes"])
        for leaf in way["step_sizes"].values():
            assert leaf["size"].shape == leaf["steps"].shape == (1,)
            found.add((names, int(leaf["steps"][0]), round(float(leaf["size"][0]), 6)))
        untouched = {name: leaf for name, leaf in way.items() if name != "step_sizes"}
        chex.assert_trees_all_equal(untouched["params"], jax.tree.map(lambda leaf: leaf[None], tuned.params))
        assert set(untouched) == {"params", "target"}, label
    sets = (("head",), ("head", "trunk"))
    assert found == {(names, n, size) for names in sets for n in TUNING.steps for size in TUNING.step_sizes}


def test_every_candidate_adapts_as_a_loop_of_gradient_steps(tuned: Tuned) -> None:
    assert set(tuned.loops) == set(tuned.policies)
    for label, expected in tuned.loops.items():
        chex.assert_trees_all_close(tuned.policies[label].adapted, expected, rtol=1e-3, atol=1e-5)
        moved = flat(expected) - flat({name: tuned.params[name] for name in expected})
        assert np.abs(moved).max() > 1e-3, f"{label}: these steps are too small to be told from none"


def test_fine_tuning_the_head_leaves_the_trunk_untouched(tuned: Tuned) -> None:
    for label, policy in tuned.policies.items():
        own = policy.parameters(tuned.params)
        assert np.any(flat(own["head"]) != flat(tuned.params["head"])), label
        assert np.any(flat(own["trunk"]) != flat(tuned.params["trunk"])) == label.startswith("all"), label
    chex.assert_trees_all_equal(tuned.untuned.parameters(tuned.params), tuned.params)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"step_sizes": ()}, r"fine_tuning\.step_sizes must hold at least 1, got 0"),
        ({"step_sizes": (0.1, 0.1)}, r"fine_tuning\.step_sizes"),
        (
            {"steps": (0,)},
            r"fine_tuning\.steps must be a list, each a whole number at least 1 and at most 100000, got 0",
        ),
        ({"adapt": ("trunk",)}, r"fine_tuning\.adapt must be a list, each one of head, all, got 'trunk'"),
    ],
)
def test_impossible_fine_tuning_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTuningConfig(**changed)


def test_impossible_inner_loops_are_refused() -> None:
    with pytest.raises(ValueError, match=r"adaptation\.adapt must be one of head, all"):
        AdaptationConfig(adapt="trunk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"adaptation\.steps"):
        AdaptationConfig(steps=-1)
    with pytest.raises(ValueError, match=r"adaptation\.step_size"):
        AdaptationConfig(step_size=0.0)
