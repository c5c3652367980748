"""Exact values of Markov games by value iteration with any value operator, and exact values of fixed policies.

``Q_i(s, a) = r_i(s, a) + discount sum_s' P(s' | s, a) V_i(s')`` and ``V(s) = operator(Q(., s, .))``. With ``foe`` (of a
zero-sum game), ``team`` and ``friend`` that is a contraction. With ``nash`` and the ``ce`` operators it need not
converge, and where it does the result depends on which equilibrium is chosen; so the result says whether it did.
float64, switched on locally.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.games import markov_game
from envs_jax.games.markov_game import MarkovGame
from metarl_jax import equilibria

STAGE_GAMES_AT_ONCE = 64
"""Stage games solved side by side: the 252 x 252 pairs of vertices of a 5 x 5 game take a megabyte each."""


class Values(NamedTuple):
    """What a game is worth.

    Attributes:
      value: ``f64[N, S]``.
      action_value: ``f64[N, S, A_1, .., A_N]``.
      joint: ``f64[S, A_1, .., A_N]`` the joint strategies.
      gap: ``f64[S]`` certificates of the last stage games.
      sweeps: how many.
      change: largest change of a value in the last sweep.
      converged: whether that is at most the tolerance.
    """

    value: np.ndarray
    action_value: np.ndarray
    joint: np.ndarray
    gap: np.ndarray
    sweeps: int
    change: float
    converged: bool


def action_values(game: MarkovGame, value: chex.Array) -> chex.Array:
    """``Q f64[N, S, A_1, .., A_N]`` of continuation values ``f64[N, S]``."""
    follows = jnp.where(game.ends, 0.0, value[:, game.successor])
    return jnp.sum(game.probability * (game.reward + game.discount * follows), axis=-1)


def solve_stages(operator: equilibria.Operator, q: chex.Array) -> equilibria.Outcome:
    """The operator on every state of ``f64[N, S, A_1, .., A_N]``; fields lead with ``S``."""
    return jax.lax.map(operator, jnp.moveaxis(q, 1, 0), batch_size=min(STAGE_GAMES_AT_ONCE, q.shape[1]))


@functools.partial(jax.jit, static_argnames=("name", "sweeps"))
def _iterate(game: MarkovGame, value: chex.Array, tolerance: chex.Array, name: str, sweeps: int) -> tuple:
    operator = equilibria.get(name)

    def unfinished(carry: tuple) -> chex.Array:
        _, change, count, worst = carry
        return (change > tolerance) & (count < sweeps) & (worst <= equilibria.TOLERANCE)

    def sweep(carry: tuple) -> tuple:
        value, _, count, _ = carry
        outcome = solve_stages(operator, action_values(game, value))
        after = outcome.value.T
        return after, jnp.abs(after - value).max(), count + 1, outcome.gap.max()

    value, change, count, _ = jax.lax.while_loop(unfinished, sweep, (value, jnp.inf, 0, 0.0))
    q = action_values(game, value)
    return value, q, solve_stages(operator, q), change, count


def solve(
    game: MarkovGame,
    operator: str,
    *,
    start: np.ndarray | None = None,
    tolerance: float = 1e-11,
    max_sweeps: int = 2000,
) -> Values:
    """Value iteration.

    Args:
      game: the game.
      operator: a name in :data:`equilibria.OPERATORS`.
      start: ``f64[N, S]`` first values; 0 if None. For ``nash`` of a zero-sum game those of ``minimax``, which are the
        only ones.
      tolerance: largest change of a value in the last sweep.
      max_sweeps: stops there, with ``converged`` false.

    Raises:
      ValueError: an unknown operator.
      equilibria.NoEquilibriumError: a stage game without the wanted equilibrium, naming the state.
    """
    equilibria.get(operator)
    reward = np.asarray(game.reward)
    if start is None and operator.startswith("nash") and game.num_agents == 2 and not reward.sum(0).any():
        start = solve(game, "minimax", tolerance=tolerance, max_sweeps=max_sweeps).value
    with jax.enable_x64(True):
        value = np.zeros(reward.shape[:2]) if start is None else start
        value, q, outcome, change, sweeps = jax.tree.map(
            np.asarray, _iterate(game, value, tolerance, operator, max_sweeps)
        )
    equilibria.check(outcome.gap, operator)
    return Values(value, q, outcome.joint, outcome.gap, int(sweeps), float(change), bool(change <= tolerance))


def evaluate(game: MarkovGame, joint: np.ndarray) -> np.ndarray:
    """Exact values ``f64[N, S]`` of joint strategies ``f64[S, A_1, .., A_N]``, by solving the linear equations."""
    states = game.num_states
    axes = tuple(range(1, joint.ndim))
    reward = np.moveaxis(np.sum(markov_game.expected_reward(game) * joint, axis=tuple(a + 1 for a in axes)), 0, 1)
    weight = np.where(game.ends, 0.0, game.probability) * joint[..., None]
    rows = np.broadcast_to(np.arange(states).reshape(-1, *(1,) * len(axes), 1), weight.shape)
    move = np.zeros((states, states))
    np.add.at(move, (rows.reshape(-1), np.asarray(game.successor).reshape(-1)), weight.reshape(-1))
    return np.linalg.solve(np.eye(states) - float(game.discount) * move, reward).T


def against(game: MarkovGame, agent: int, strategy: np.ndarray) -> MarkovGame:
    """The game of the other agent, alone, against a fixed strategy ``f64[S, A]`` of ``agent`` (0 or 1).

    Returns:
      A game of one agent with ``A K`` outcomes.
    """
    axis = 1 + agent

    def fold(table: np.ndarray, offset: int = 0) -> np.ndarray:
        moved = np.moveaxis(np.asarray(table), axis + offset, -2)
        return moved.reshape(*moved.shape[:-2], -1)

    shape = (strategy.shape[0], *(strategy.shape[1] if k == agent else 1 for k in range(2)), 1)
    other = 1 - agent
    return MarkovGame(
        fold(game.successor),
        fold(np.asarray(game.probability) * strategy.reshape(shape)),
        fold(game.reward, 1)[other : other + 1],
        fold(game.ends),
        game.start,
        game.discount,
    )


def start_equilibria(game: MarkovGame, values: Values, state: int) -> list[np.ndarray]:
    """The payoffs ``f64[2]`` of all extreme Nash equilibria of one state's stage game, given what follows, distinct."""
    with jax.enable_x64(True):
        every = equilibria.extreme_equilibria(values.action_value[:, state])
        payoffs = np.asarray(every.value)[:, np.asarray(every.found)].T
    distinct: list[np.ndarray] = []
    for payoff in payoffs:
        if not any(np.allclose(payoff, other, atol=1e-7) for other in distinct):
            distinct.append(payoff)
    return sorted(distinct, key=lambda payoff: tuple(-payoff))


@functools.partial(jax.jit, static_argnames="sweeps")
def _weighted(game: MarkovGame, weight: chex.Array, value: chex.Array, tolerance: chex.Array, sweeps: int) -> tuple:
    """Value iteration in which state ``s`` takes the equilibrium of the largest ``weight[s] @ value``."""

    def unfinished(carry: tuple) -> chex.Array:
        return (carry[1] > tolerance) & (carry[2] < sweeps)

    def sweep(carry: tuple) -> tuple:
        value, _, count = carry
        stages = jnp.moveaxis(action_values(game, value), 1, 0)
        outcome = jax.lax.map(lambda own: equilibria.nash_weighted(*own), (stages, weight), batch_size=8)
        return outcome.value.T, jnp.abs(outcome.value.T - value).max(), count + 1

    value, change, _ = jax.lax.while_loop(unfinished, sweep, (value, jnp.inf, 0))
    stages = jnp.moveaxis(action_values(game, value), 1, 0)
    return value, change, jax.lax.map(lambda own: equilibria.nash_weighted(*own), (stages, weight), batch_size=8).joint


def stationary_equilibria(
    game: MarkovGame, state: int, *, draws: int, seed: int = 0, tolerance: float = 1e-9, max_sweeps: int = 100
) -> list[np.ndarray]:
    """Values ``f64[2]`` of one state in the stationary Nash equilibria that a search finds, distinct.

    A stationary equilibrium chooses one of each stage game's equilibria. Every draw gives each state a random direction
    of the payoff plane, chooses the extreme equilibrium furthest in it, and iterates. Where that converges it is a Nash
    equilibrium of the whole game, which is checked: no agent gains by leaving it, from any state. The list grows with
    ``draws`` and need not be all there is.
    """
    rng = np.random.default_rng(seed)
    distinct: list[np.ndarray] = []
    with jax.enable_x64(True):
        for _ in range(draws):
            angle = rng.uniform(0, 2 * np.pi, game.num_states)
            weight = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            start = np.zeros((2, game.num_states))
            value, change, joint = map(np.asarray, _weighted(game, weight, start, tolerance, max_sweeps))
            own = value[:, state]
            known = any(np.allclose(own, other, atol=1e-6) for other in distinct)
            if change <= tolerance and not known and exploitability(game, joint).max() < 1e-6:
                distinct.append(own)
    return sorted(distinct, key=lambda own: tuple(-own))


def best_response(game: MarkovGame, agent: int, strategy: np.ndarray, tolerance: float = 1e-11) -> Values:
    """The other agent's best play, and its worth, against ``strategy f64[S, A]`` of ``agent``."""
    return solve(against(game, agent, strategy), "team", tolerance=tolerance)


def exploitability(game: MarkovGame, joint: np.ndarray) -> np.ndarray:
    """What either agent gains at most, from each state, by leaving the product of the marginals: ``f64[N, S]``.

    0 at a Nash equilibrium. In a zero-sum game the two entries add up to the duality gap.
    """
    rows, columns = joint.sum(2), joint.sum(1)
    now = evaluate(game, rows[:, :, None] * columns[:, None])
    return np.stack(
        [
            best_response(game, 1, columns).value[0] - now[0],
            best_response(game, 0, rows).value[0] - now[1],
        ]
    )
