"""Markov games of a few agents who act at once, as tables: what is played, learned on and solved exactly.

A game is data: for every state and joint action a few outcomes, each with its probability, the next state, the agents'
rewards and whether play ends there. :func:`step` draws one of them; exact solvers sum over them. Everything is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np


class MarkovGame(NamedTuple):
    """A game of ``N`` agents with ``S`` states, ``A_i`` actions of agent ``i`` and at most ``K`` outcomes.

    Attributes:
      successor: ``i32[S, A_1, .., A_N, K]`` next state.
      probability: ``f64[S, A_1, .., A_N, K]``, sums to 1 over outcomes.
      reward: ``f64[N, S, A_1, .., A_N, K]``.
      ends: ``bool[S, A_1, .., A_N, K]``: the episode is over, nothing follows.
      start: ``f64[S]`` law of the first state.
      discount: ``f64[]``.
    """

    successor: chex.Array
    probability: chex.Array
    reward: chex.Array
    ends: chex.Array
    start: chex.Array
    discount: chex.Array

    @property
    def num_agents(self) -> int:
        """``N``."""
        return self.reward.shape[0]

    @property
    def num_states(self) -> int:
        """``S``."""
        return self.successor.shape[0]

    @property
    def num_actions(self) -> tuple[int, ...]:
        """``(A_1, .., A_N)``."""
        return self.successor.shape[1:-1]


class Described(NamedTuple):
    """A game with the meaning of its states and actions.

    Attributes:
      game: the tables, NumPy.
      states: what each state stands for.
      actions: the names of an agent's actions.
      labels: what the attributes of a state are.
    """

    game: MarkovGame
    states: list
    actions: tuple[str, ...]
    labels: str

    def index(self, state: Hashable) -> int:
        """The number of a state."""
        return self.states.index(state)


class Outcome(NamedTuple):
    """One thing that may happen: probability, next state (as described), rewards, whether play ends."""

    probability: float
    state: Hashable
    reward: tuple[float, ...]
    ends: bool


def tabulate(
    states: Sequence,
    num_actions: Sequence[int],
    outcomes: Callable[..., Iterable[Outcome]],
    start: Callable[[Hashable], float],
    discount: float,
) -> MarkovGame:
    """The tables of a game that is given by its rules.

    Args:
      states: descriptions of all states.
      num_actions: ``(A_1, .., A_N)``.
      outcomes: ``(state, a_1, .., a_N) -> outcomes``; like ones are merged.
      start: ``state -> probability``.
      discount: in [0, 1].
    """
    number = {state: k for k, state in enumerate(states)}
    listed = {}
    for k, state in enumerate(states):
        for joint in np.ndindex(*num_actions):
            merged: dict[tuple, float] = {}
            for outcome in outcomes(state, *joint):
                what = (number[outcome.state], outcome.reward, outcome.ends)
                merged[what] = merged.get(what, 0.0) + outcome.probability
            listed[(k, *joint)] = merged
    most = max(map(len, listed.values()))
    shape = (len(states), *num_actions, most)
    agents = len(num_actions)
    successor = np.zeros(shape, np.int32)
    probability, reward, ends = np.zeros(shape), np.zeros((agents, *shape)), np.zeros(shape, bool)
    for where, merged in listed.items():
        for j, ((after, rewards, end), chance) in enumerate(merged.items()):
            successor[(*where, j)], probability[(*where, j)], ends[(*where, j)] = after, chance, end
            reward[(slice(None), *where, j)] = rewards
    first = np.array([start(state) for state in states])
    return MarkovGame(successor, probability, reward, ends, first, np.asarray(discount))


class Transition(NamedTuple):
    """What one joint action led to: next state ``i32[]``, rewards ``f[N]``, whether play ended ``bool[]``."""

    state: chex.Array
    reward: chex.Array
    ends: chex.Array


def reset(game: MarkovGame, key: chex.PRNGKey) -> chex.Array:
    """A first state ``i32[]``."""
    below = jnp.cumsum(jnp.asarray(game.start))
    drawn = jnp.searchsorted(below, jax.random.uniform(key, dtype=below.dtype) * below[-1], side="right")
    return jnp.minimum(drawn, below.size - 1).astype(jnp.int32)


def step(game: MarkovGame, key: chex.PRNGKey, state: chex.Array, actions: chex.Array) -> Transition:
    """All agents act at once.

    Args:
      game: the tables.
      key: draws the outcome.
      state: ``i32[]``.
      actions: ``i32[N]``.
    """
    where = (state, *(actions[i] for i in range(game.num_agents)))
    chances = jnp.asarray(game.probability)[where]
    uniform = jax.random.uniform(key, dtype=chances.dtype)
    outcome = jnp.minimum(jnp.sum(uniform >= jnp.cumsum(chances)), jnp.sum(chances > 0) - 1)
    return Transition(
        jnp.asarray(game.successor)[where][outcome],
        jnp.asarray(game.reward)[(slice(None), *where)][:, outcome],
        jnp.asarray(game.ends)[where][outcome],
    )


def expected_reward(game: MarkovGame) -> np.ndarray:
    """``f64[N, S, A_1, .., A_N]``."""
    return np.sum(np.asarray(game.probability) * np.asarray(game.reward), axis=-1)


def check(game: MarkovGame) -> None:
    """Raises ``ValueError`` if tables are not those of a game."""
    total = np.asarray(game.probability).sum(-1)
    if not np.allclose(total, 1.0, atol=1e-12) or np.asarray(game.probability).min() < 0:
        raise ValueError(f"probability: outcomes sum to {total.min()} .. {total.max()}, must be 1")
    if not 0 <= np.asarray(game.successor).min() <= np.asarray(game.successor).max() < game.num_states:
        raise ValueError(f"successor: states must lie in 0..{game.num_states - 1}")
    if not np.isclose(np.asarray(game.start).sum(), 1.0):
        raise ValueError(f"start: probabilities sum to {np.asarray(game.start).sum()}, must be 1")
    if not 0.0 <= float(game.discount) <= 1.0:
        raise ValueError(f"discount = {float(game.discount)}: must lie in [0, 1]")
