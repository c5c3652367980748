"""What the networks may and may not depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import NUM_TOKEN_FEATURES, Observation, pad
from metarl_jax.configs import NetworkConfig
from metarl_jax.networks.agent import AgentNetwork, action_basis
from metarl_jax.networks.memory import Memory, half_rectified
from metarl_jax.networks.transformer import SetBlock, masked_mean
from metarl_jax.types import PeriodHistory
from tests.metarl_jax import small

NETWORK = AgentNetwork(small.NETWORK)
PARAMS = small.init(NETWORK, jax.random.key(0))


@jax.jit
def q_values(observation: Observation, memory: Memory) -> chex.Array:
    return NETWORK.q_values(PARAMS, observation, memory)


@jax.jit
def remember(support: PeriodHistory) -> Memory:
    return NETWORK.remember(PARAMS, support)


@pytest.fixture(scope="module")
def seen() -> Observation:
    return small.observations(np.random.default_rng(3), 4)


@pytest.fixture(scope="module")
def support() -> PeriodHistory:
    return small.history(np.random.default_rng(4))


@pytest.fixture(scope="module")
def memory(support: PeriodHistory) -> Memory:
    return remember(support)


def legal(q: chex.Array, seen: Observation) -> np.ndarray:
    return np.asarray(q)[np.asarray(seen.action_mask)]


def test_q_depends_on_the_state_when_a_context_is_given(seen: Observation, memory: Memory) -> None:
    """In the earlier project every position had the same key and value and no residual, and Q forgot the state."""

    @jax.jit
    def slope(tokens: chex.Array) -> chex.Array:
        one = jax.tree.map(lambda leaf: leaf[0], seen).replace(tokens=tokens)
        return NETWORK.q_values(PARAMS, one, memory)[:-1]

    jacobian = np.asarray(jax.jit(jax.jacrev(slope))(seen.tokens[0]))  # [A - 1, N, F]
    assert jacobian.shape == (small.ACTIONS - 1, small.TOKENS, NUM_TOKEN_FEATURES)
    assert np.all(np.abs(jacobian).max(-1) > 1e-3), "an action's Q ignores an entity"
    q = legal(q_values(seen, memory), seen)
    assert np.ptp(q.reshape(4, -1), axis=0).min() > 1e-3


def test_q_depends_on_the_memory(seen: Observation, memory: Memory) -> None:
    nothing = NETWORK.no_memory(small.TOKENS)
    base = legal(q_values(seen, nothing), seen)
    for part in ("association", "summary"):
        changed = nothing.replace(**{part: getattr(memory, part)})
        assert np.abs(legal(q_values(seen, changed), seen) - base).max() > 1e-4, part


def test_memory_reads_with_a_query_made_from_the_state(seen: Observation, memory: Memory) -> None:
    """What the association adds to Q differs from state to state: it is not one number a task."""
    without = memory.replace(association=jnp.zeros_like(memory.association))
    added = legal(q_values(seen, memory), seen) - legal(q_values(seen, without), seen)
    assert np.ptp(added.reshape(4, -1), axis=0).max() > 1e-4


def test_memory_depends_on_everything_it_is_fed(support: PeriodHistory, memory: Memory) -> None:
    for part in ("tokens", "decisions", "reward"):
        other = remember(support.replace(**{part: getattr(support, part) + 0.5}))
        assert np.abs(other.association - memory.association).max() > 1e-3, part
        assert np.abs(other.summary - memory.summary).max() > 1e-3, part


def test_no_support_leaves_no_memory(support: PeriodHistory) -> None:
    empty = remember(support.replace(valid=jnp.zeros_like(support.valid)))
    chex.assert_trees_all_equal(empty, NETWORK.no_memory(small.TOKENS))


def test_memory_ignores_unused_periods_and_episodes(support: PeriodHistory) -> None:
    used = support.valid.at[1].set(False).at[0, 1].set(False)
    masked = support.replace(valid=used)
    poisoned = masked.replace(
        tokens=masked.tokens.at[1].add(9.0).at[0, 2].add(9.0),  # tokens after the last used period's end
        decisions=masked.decisions.at[1].add(9.0).at[0, 1].add(9.0),
        reward=masked.reward.at[1].add(9.0).at[0, 1].add(9.0),
    )
    chex.assert_trees_all_equal(remember(poisoned), remember(masked))


def test_memory_is_blind_to_the_order_of_episodes(support: PeriodHistory, memory: Memory) -> None:
    swapped = support.replace(
        tokens=support.tokens[::-1], decisions=support.decisions[::-1], reward=support.reward[::-1]
    )
    chex.assert_trees_all_close(remember(swapped), memory, atol=1e-6)


def test_memory_is_blind_to_the_order_of_periods() -> None:
    """With the same tokens at the start of every period, only what was done and what came of it counts."""
    support = small.history(np.random.default_rng(5))
    support = support.replace(tokens=jnp.broadcast_to(support.tokens[:, :1], support.tokens.shape))
    reversed_ = support.replace(decisions=support.decisions[:, ::-1], reward=support.reward[:, ::-1])
    chex.assert_trees_all_close(remember(reversed_), remember(support), atol=1e-6)


def test_memory_of_padded_support_is_padded_memory(support: PeriodHistory, memory: Memory) -> None:
    axes = {"tokens": ((0, 0), (0, 1), (0, 1), (0, 0)), "token_mask": ((0, 1),)}
    axes |= {"decisions": axes["tokens"], "reward": ((0, 0), (0, 1)), "valid": ((0, 0), (0, 1))}
    padded = remember(PeriodHistory(**{name: jnp.pad(getattr(support, name), widths) for name, widths in axes.items()}))
    own = jax.tree.map(lambda leaf: leaf[: small.TOKENS], padded)
    chex.assert_trees_all_close(own, memory, atol=1e-6)


def test_more_episodes_shrink_the_memory_less(support: PeriodHistory, memory: Memory) -> None:
    """The same two episodes again: the mean stays, ``n / (n + tau)`` grows from 2 to 4 episodes."""
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), support.replace(token_mask=jnp.ones(1, bool)))
    twice = twice.replace(token_mask=support.token_mask)
    tau = np.log1p(np.exp(np.asarray(PARAMS["memory"]["tau"])))
    ratio = (4 / (4 + tau)) / (2 / (2 + tau))
    expected = memory.association * ratio
    np.testing.assert_allclose(remember(twice).association, expected, rtol=1e-5, atol=1e-7)


def test_absent_tokens_and_illegal_actions_have_no_influence(seen: Observation, memory: Memory) -> None:
    hidden = seen.replace(
        token_mask=seen.token_mask.at[:, 1].set(False),
        action_target=jnp.minimum(seen.action_target, 0),  # actions on absent tokens are illegal in every domain
    )
    poisoned = hidden.replace(tokens=hidden.tokens.at[:, 1].add(3.0), actions=hidden.actions.at[:, -1].add(3.0))
    chex.assert_trees_all_equal(q_values(poisoned, memory), q_values(hidden, memory))


def test_padding_does_not_change_q(seen: Observation, memory: Memory) -> None:
    padded = pad(seen, small.TOKENS + 2, small.ACTIONS + 2)
    longer = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 2), *((0, 0),) * (leaf.ndim - 1))), memory)
    q = q_values(padded, longer)
    np.testing.assert_allclose(q[:, : small.ACTIONS], q_values(seen, memory), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(q[:, small.ACTIONS :], np.float32(-1e9))


def test_q_is_value_plus_centred_advantage(seen: Observation, memory: Memory) -> None:
    """Illegal actions are about -1e9; over the legal ones advantages average to zero, so Q averages to V."""

    @jax.jit
    def value(seen: Observation) -> chex.Array:
        pooled = NETWORK.trunk(PARAMS, seen, memory).pooled
        hidden, out = PARAMS["head"]["value_hidden"], PARAMS["head"]["value"]
        return (jax.nn.gelu(pooled @ hidden["kernel"] + hidden["bias"]) @ out["kernel"] + out["bias"])[:, 0]

    q = np.asarray(q_values(seen, memory))
    np.testing.assert_array_equal(q[:, -1], np.float32(-1e9))
    np.testing.assert_allclose(q[:, :-1].mean(-1), value(seen), rtol=1e-5, atol=1e-6)
    assert np.ptp(q[:, :-1], axis=-1).min() > 1e-3


def test_a_plain_head_prefers_the_same_actions(seen: Observation, memory: Memory) -> None:
    """Without the dueling head's mean, Q differs by a number a state: every program that acts greedily serves both."""
    plain = AgentNetwork(small.NETWORK, dueling=False)
    q = jax.jit(lambda seen: plain.q_values(PARAMS, seen, memory))(seen)
    gap = np.asarray(q - q_values(seen, memory))[:, : small.ACTIONS - 1]
    assert np.abs(gap).min() > 1e-4
    np.testing.assert_allclose(gap, np.broadcast_to(gap[:, :1], gap.shape), atol=1e-5)
    np.testing.assert_array_equal(q.argmax(-1), q_values(seen, memory).argmax(-1))


def test_a_set_block_is_equivariant_and_blind_to_absent_tokens() -> None:
    rng = np.random.default_rng(0)
    x, mask = jnp.asarray(rng.normal(size=(3, 4, 8)), jnp.float32), jnp.array([True, True, True, False])
    block = SetBlock(2)
    params = block.init(jax.random.key(0), x[0], mask)
    apply = jax.jit(lambda x, mask: block.apply(params, x, mask))
    out, order = apply(x, mask), jnp.array([2, 3, 0, 1])
    np.testing.assert_allclose(apply(x[:, order], mask[order]), out[:, order], atol=1e-5)
    np.testing.assert_array_equal(apply(x.at[:, 3].set(9.0), mask)[:, :3], out[:, :3])
    other = apply(x.at[:, 0].multiply(-1.0), mask)[:, 1]
    assert np.abs(other - out[:, 1]).max() > 1e-3, "tokens do not know of each other"


def test_an_action_is_what_it_says_not_its_number(seen: Observation, memory: Memory) -> None:
    order = np.array([1, 0, 2])
    other = seen.replace(actions=seen.actions[:, order], action_target=seen.action_target[:, order])
    np.testing.assert_allclose(q_values(other, memory), q_values(seen, memory)[:, order], rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_with_no_legal_action(seen: Observation, memory: Memory) -> None:
    """Padding makes such rows; -inf inside a ``where`` would turn their gradients into NaN."""
    none = seen.replace(action_mask=jnp.zeros_like(seen.action_mask), token_mask=jnp.zeros_like(seen.token_mask))

    @jax.jit
    def gradient(params: Any, seen: Observation) -> Any:
        return jax.grad(lambda p: NETWORK.head(p, NETWORK.trunk(p, seen, memory), seen)[0].sum())(params)

    chex.assert_tree_all_finite(gradient(PARAMS, none))


def test_without_memory_there_is_nothing_to_remember(support: PeriodHistory) -> None:
    network = AgentNetwork(small.NETWORK, use_memory=False)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), small.TOKENS, small.ACTIONS))
    assert set(params) == {"trunk", "head"}
    chex.assert_trees_all_equal(network.remember({}, support), network.no_memory(small.TOKENS))


def test_masked_mean_by_hand() -> None:
    x = jnp.array([[1.0, 10.0], [3.0, 20.0], [100.0, 100.0]])
    np.testing.assert_array_equal(masked_mean(x, jnp.array([True, True, False])), [2.0, 15.0])
    np.testing.assert_array_equal(masked_mean(x, jnp.zeros(3, bool)), [0.0, 0.0])


def test_features_by_hand() -> None:
    np.testing.assert_array_equal(half_rectified(jnp.array([-1.0, 2.0, -3.0, 4.0])), [-1.0, 2.0, 0.0, 4.0])
    # cos(k * 60 degrees), and beyond [-1, 1] the value at its end.
    np.testing.assert_allclose(action_basis(jnp.array([0.5])), [0.5, -0.5, -1.0, -0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(action_basis(jnp.array([-3.0])), [-3.0, 1.0, -1.0, 1.0, -1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NetworkConfig(width=0), r"network\.width must be a whole number at least 1 and at most 4096, got 0"),
        (lambda: NetworkConfig(layers=-1), r"network\.layers must be a whole number at least 0 and at most 64, got -1"),
        (lambda: NetworkConfig(width=10, heads=4), r"network\.width must be a multiple of network\.heads=4, got 10"),
        (lambda: NetworkConfig(channels=3), r"network\.channels must be even, got 3"),
    ],
)
def test_impossible_shapes_are_refused(build: Callable[[], NetworkConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
