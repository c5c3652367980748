"""Hu and Wellman's two grid games: two agents on 3 x 3 squares, each to reach a goal, general-sum.

Both choose at once among up, down, left and right. An agent stays where the edge is; if both would be in the same
square that is no goal, both stay where they were and pay 1. Reaching the own goal earns 100 and ends the episode, for
both at once if both arrive together. Squares are (column, row), (0, 0) at the lower left; agent 1 starts there and
agent 2 at the lower right.

* Game 1: the goals are the opposite upper corners, so the paths cross.
* Game 2: both have the goal at the top centre, and an upward move from either start passes a barrier with chance 1/2.

Source: J. Hu and M. P. Wellman, Nash Q-learning for general-sum stochastic games, JMLR 4 (2003) 1039-1069 (recalled).
That agents may swap squares, and that who does not move may be run into, is our reading.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from envs_jax.games import markov_game
from envs_jax.games.markov_game import Described, Outcome

SIDE = 3
ACTIONS = ("up", "down", "left", "right")
MOVES = ((0, 1), (0, -1), (-1, 0), (1, 0))
STARTS = ((0, 0), (2, 0))
GOAL_REWARD, BUMP, DISCOUNT = 100.0, -1.0, 0.99
BARRIER = 0.5

Square = tuple[int, int]
State = tuple[Square, Square]


def _targets(square: Square, action: int, barrier: bool) -> Iterator[tuple[float, Square]]:
    column, row = square[0] + MOVES[action][0], square[1] + MOVES[action][1]
    if not (0 <= column < SIDE and 0 <= row < SIDE):
        yield 1.0, square
    elif barrier and square in STARTS and ACTIONS[action] == "up":
        yield BARRIER, (column, row)
        yield 1.0 - BARRIER, square
    else:
        yield 1.0, (column, row)


@functools.cache
def make(number: int, discount: float = DISCOUNT) -> Described:
    """Game 1 or 2.

    Raises:
      ValueError: any other ``number``.
    """
    if number not in (1, 2):
        raise ValueError(f"grid game {number!r}: allowed are 1, 2")
    goals = ((2, 2), (0, 2)) if number == 1 else ((1, 2), (1, 2))
    squares = [(column, row) for column in range(SIDE) for row in range(SIDE)]
    states = [
        (first, second)
        for first in squares
        for second in squares
        if first != second and first != goals[0] and second != goals[1]
    ]

    def outcomes(state: State, *actions: int) -> Iterator[Outcome]:
        for chance, first in _targets(state[0], actions[0], number == 2):
            for other, second in _targets(state[1], actions[1], number == 2):
                probability = chance * other
                arrived = (first == goals[0], second == goals[1])
                if first == second and not all(arrived):
                    yield Outcome(probability, state, (BUMP, BUMP), False)
                elif any(arrived):
                    reward = tuple(GOAL_REWARD * own for own in arrived)
                    yield Outcome(probability, state, reward, True)
                else:
                    yield Outcome(probability, (first, second), (0.0, 0.0), False)

    game = markov_game.tabulate(states, (4, 4), outcomes, lambda state: float(state == STARTS), discount)
    return Described(game, states, ACTIONS, "squares of the two agents (column, row)")
