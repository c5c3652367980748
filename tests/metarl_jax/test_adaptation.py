"""Gradient truths of the inner loop, on a tiny network in double precision where numbers are compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax import adaptation
from metarl_jax.configs import AdaptationConfig, AdaptSet, Order, QLearningConfig
from metarl_jax.learners.q_learning import Hyper, query_loss
from metarl_jax.networks.agent import AgentNetwork
from tests.metarl_jax import small

NETWORK = AgentNetwork(small.NETWORK)
ADAPT_SETS: tuple[AdaptSet, ...] = ("head", "all")


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
    trained = {"params": params, "step_sizes": adaptation.init_step_sizes(params, config)}
    return Setting(trained, target, small.support(rng), small.transitions(rng, small.SAMPLES))


def outer_loss(config: AdaptationConfig, order: Order) -> Any:
    """The outer loss of one task as a function of what is learned; the adapted target is an argument: it is fixed."""
    data = QLearningConfig()
    hyper = Hyper(*(jnp.float64(x) for x in (1e-3, 0.2, 1.0)))

    def loss(trained: Any, target: Any, target_policy: Any, support: Any, query: Any) -> chex.Array:
        params, sizes = trained["params"], trained["step_sizes"]
        policy = adaptation.adapt(NETWORK, params, target, sizes, support, config, order)
        return query_loss(NETWORK, params, policy, target, target_policy, query, hyper, data)[0]

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
        target_policy = adaptation.Policy({}, jax.tree.map(jnp.float64, NETWORK.no_memory(small.TOKENS)))
        loss = jax.value_and_grad(outer_loss(config, "second"))
        first_order = jax.grad(outer_loss(config, "first"))
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
        assert set(sizes) == set(adaptation.adapted_names(inner(gradients.adapt)))
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
        trained = setting.trained
        adapted = adaptation.adapt(
            NETWORK, trained["params"], target, trained["step_sizes"], setting.support, config, "second"
        )
        return adapted.adapted["head"]["value_hidden"]["kernel"]

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
        policy = adaptation.adapt(
            NETWORK, params, setting.target, setting.trained["step_sizes"], support, config, "first"
        )
        batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), support.transitions)
        remembered = NETWORK.remember(setting.target, support.periods)
        targets = adaptation.td_targets(NETWORK, params, policy.memory, setting.target, remembered, batch)

        def loss(current: Any) -> chex.Array:
            features = NETWORK.trunk(current, batch.observation, policy.memory)
            q, predicted = NETWORK.head(current, features, batch.observation)
            return adaptation.inner_loss(q, predicted, batch, targets, config.reward_weight)

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


@pytest.mark.parametrize(("config", "order"), [(inner(), "none"), (inner(steps=0), "second")])
def test_context_alone_takes_no_step(config: AdaptationConfig, order: Order) -> None:
    trained, target, support, _ = make_setting(config)
    arguments = (trained["params"], target, trained["step_sizes"], support)
    policy: Any = jax.eval_shape(lambda *a: adaptation.adapt(NETWORK, *(*a, config, order)), *arguments)
    assert policy.adapted == {}


def test_impossible_inner_loops_are_refused() -> None:
    with pytest.raises(ValueError, match=r"adaptation\.adapt must be one of head, all"):
        AdaptationConfig(adapt="trunk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"adaptation\.steps"):
        AdaptationConfig(steps=-1)
    with pytest.raises(ValueError, match=r"adaptation\.step_size"):
        AdaptationConfig(step_size=0.0)
