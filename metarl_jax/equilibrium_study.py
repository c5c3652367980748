"""What the study of games computes: functions of a game's name to results that can be JSON."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.games import grid_games, markov_game, matrix_games, soccer
from envs_jax.games.markov_game import Described, MarkovGame
from metarl_jax import equilibria, equilibrium_q, markov_values

GAMES = ("soccer", "grid1", "grid2", *matrix_games.PAYOFFS)

DRAW_CHANCE = 0.1
"""Of soccer, a step; the discount .9 stands for it while learning."""

BY_MARGINALS = ("minimax", "foe", "nash", "independent")
"""Operators whose learned strategies are a product, so that leaving it can be weighed."""


def make(name: str) -> Described:
    """A game by name."""
    if name == "soccer":
        return soccer.make()
    if name in ("grid1", "grid2"):
        return grid_games.make(int(name[-1]))
    return matrix_games.make(name)


def first_state(described: Described) -> int:
    """The first state an episode may start in; of soccer the one with the ball at A."""
    return int(np.flatnonzero(described.game.start)[0])


def exact_values(name: str, operator: str, max_sweeps: int) -> dict[str, Any]:
    """Value iteration with one operator, and the equilibria of the first stage game if it has two players."""
    described = make(name)
    start = first_state(described)
    try:
        values = markov_values.solve(described.game, operator, max_sweeps=max_sweeps)
    except equilibria.NoEquilibriumError as error:
        return {"error": str(error)}
    found = {
        "start": values.value[:, start],
        "start_state": str(described.states[start]),
        "value": values.value,
        "converged": values.converged,
        "sweeps": values.sweeps,
        "change": values.change,
        "gap": float(values.gap.max()),
    }
    if operator.startswith("nash"):
        found["start_equilibria"] = markov_values.start_equilibria(described.game, values, start)
    if operator.startswith(("nash", "minimax")):
        found["exploitability"] = float(markov_values.exploitability(described.game, values.joint)[:, start].max())
    return found


def learn(
    name: str,
    operator: str,
    settings: equilibrium_q.Settings,
    steps: int,
    looks: int,
    seeds: int,
    seed: int,
    truth: list[list[float]] | None,
) -> dict[str, Any]:
    """Learns a table with one operator; the value's error along the way, and what the strategies are worth."""
    described = make(name)
    start = first_state(described)
    key = jax.random.key(seed)
    with jax.enable_x64(True):
        game = jax.tree.map(jnp.asarray, described.game)
        tables = equilibrium_q.start(game, operator, settings, key, seeds)
        curve: list[dict[str, Any]] = []
        for look in range(looks):
            done = steps * look // looks
            count = steps * (look + 1) // looks - done
            tables = equilibrium_q.advance(game, tables, key, operator, settings, total=steps, steps=count)
            value = np.asarray(tables.value)
            entry: dict[str, Any] = {"step": done + count, "start": value[:, :, start]}
            if truth is not None:
                met = np.asarray(tables.visits).reshape(*tables.visits.shape[:2], -1).sum(-1) > 0
                error = np.abs(value - np.asarray(truth)[None]).max(1)
                entry["error"] = [float(own[seen].max()) for own, seen in zip(error, met, strict=True)]
                entry["start_error"] = np.abs(value[:, :, start] - np.asarray(truth)[:, start]).max(1)
            curve.append(entry)
        strategy = np.asarray(tables.strategy)
    found: dict[str, Any] = {"curve": curve, "worst_gap": float(np.asarray(tables.gap).max())}
    if operator in BY_MARGINALS:
        joints = [own[0][:, :, None] * own[1][:, None] for own in strategy]
        found["exploitability"] = [
            float(markov_values.exploitability(described.game, joint)[:, start].max()) for joint in joints
        ]
    if name == "soccer":
        found["won"] = [won_by(described.game, own[0], seed) for own in strategy]
    return found


def won_by(game: MarkovGame, strategy: np.ndarray, seed: int) -> dict[str, Any]:
    """Share of games that A wins with ``strategy f64[S, A]`` against random play and against its best challenger."""
    states, actions = strategy.shape
    challenger = markov_values.best_response(game, 0, strategy).joint
    found = {}
    for name, other in (("random", np.full((states, actions), 1 / actions)), ("challenger", challenger)):
        won, lost = play(game, strategy, other, seed)
        games = won + lost
        found[name] = {"won": won / games if games else 0.0, "games": games}
    return found


@functools.partial(jax.jit, static_argnames=("lanes", "steps"))
def _play(
    game: MarkovGame, first: chex.Array, second: chex.Array, key: chex.PRNGKey, lanes: int, steps: int
) -> chex.Array:
    both = jnp.stack([jnp.cumsum(first, -1), jnp.cumsum(second, -1)])

    def one(carry: tuple[chex.Array, chex.Array], key: chex.PRNGKey) -> tuple[tuple[chex.Array, chex.Array], None]:
        state, score = carry
        choose, move, draw, again = jax.random.split(key, 4)
        uniform = jax.random.uniform(choose, (2, 1), both.dtype)
        actions = jnp.minimum(jnp.sum(uniform >= both[:, state], axis=-1), both.shape[-1] - 1)
        happened = markov_game.step(game, move, state, actions)
        ends = happened.ends | (jax.random.uniform(draw) < DRAW_CHANCE)
        score = score + jnp.stack([happened.reward[0] > 0, happened.reward[0] < 0])
        return (jnp.where(ends, markov_game.reset(game, again), happened.state), score), None

    def lane(key: chex.PRNGKey) -> chex.Array:
        begin, rest = jax.random.split(key)
        start = (markov_game.reset(game, begin), jnp.zeros(2, jnp.int32))
        return jax.lax.scan(one, start, jax.random.split(rest, steps))[0][1]

    return jax.vmap(lane)(jax.random.split(key, lanes)).sum(0)


def play(game: MarkovGame, first: np.ndarray, second: np.ndarray, seed: int, steps: int = 100_000) -> tuple[int, int]:
    """Goals of both in ``steps`` steps, in which a game also ends as a draw with chance .1 a step."""
    with jax.enable_x64(True):
        tables = jax.tree.map(jnp.asarray, game)
        won, lost = _play(tables, first, second, jax.random.key(seed), lanes=100, steps=steps // 100)
    return int(won), int(lost)
