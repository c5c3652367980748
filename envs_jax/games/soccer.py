"""Littman's soccer: two players on a 4 x 5 field, one ball, a zero-sum Markov game of 760 states.

Both choose at once among north, south, east, west and stand; the moves happen in random order. Who runs into the other
stays, and loses the ball if it had it. Player A attacks to the left, B to the right: a player with the ball that moves
off the field there in the rows of the goal, 1 and 2, scores; everywhere else the edge is a wall. A goal is worth 1 to
who scores and -1 to the other and ends the episode. The next one starts with A at row 2, column 3, B at row 1, column
1 and the ball with either at random, which is worth 0 to both: so a game that goes on after a goal has the same values.

Source: M. L. Littman, Markov games as a framework for multi-agent reinforcement learning, ICML 1994 (recalled). There a
game also ends as a draw with chance .1 a step; learning uses that as the discount .9.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from envs_jax.games import markov_game
from envs_jax.games.markov_game import Described, Outcome

ROWS, COLUMNS = 4, 5
GOAL_ROWS = (1, 2)
ACTIONS = ("north", "south", "east", "west", "stand")
MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1), (0, 0))
START = ((2, 3), (1, 1))
DISCOUNT = 0.9

State = tuple[tuple[int, int], tuple[int, int], int]
"""Where A is, where B is (row, column), who has the ball (0 for A)."""


def _move(state: State, player: int, action: int) -> tuple[State, int | None]:
    """One player moves. Returns what comes of it, and who scored."""
    places, ball = [state[0], state[1]], state[2]
    row, column = places[player][0] + MOVES[action][0], places[player][1] + MOVES[action][1]
    scores_at = -1 if player == 0 else COLUMNS
    if ball == player and column == scores_at and row in GOAL_ROWS:
        return state, player
    if not (0 <= row < ROWS and 0 <= column < COLUMNS):
        return state, None
    if (row, column) == places[1 - player]:
        return (places[0], places[1], 1 - player if ball == player and action != 4 else ball), None
    places[player] = (row, column)
    return (places[0], places[1], ball), None


def outcomes(state: State, *actions: int) -> Iterator[Outcome]:
    """What may come of two choices: the two orders of moves, 1/2 each."""
    for first in range(2):
        after, scorer = _move(state, first, actions[first])
        if scorer is None:
            after, scorer = _move(after, 1 - first, actions[1 - first])
        reward = (0.0, 0.0) if scorer is None else ((1.0, -1.0) if scorer == 0 else (-1.0, 1.0))
        yield Outcome(0.5, after, reward, scorer is not None)


@functools.cache
def make(discount: float = DISCOUNT) -> Described:
    """The game."""
    squares = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]
    states = [(a, b, ball) for a in squares for b in squares if a != b for ball in range(2)]
    game = markov_game.tabulate(
        states, (len(ACTIONS),) * 2, outcomes, lambda state: 0.5 * (state in ((*START, 0), (*START, 1))), discount
    )
    return Described(game, states, ACTIONS, "place of A, place of B (row, column), who has the ball")
