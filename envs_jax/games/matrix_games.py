"""Matrix games from the textbooks: one state, one joint action, and it is over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from envs_jax.games import markov_game
from envs_jax.games.markov_game import Described, Outcome

PAYOFFS: dict[str, np.ndarray] = {
    # Value 1/7 with (3/7, 4/7) against (2/7, 5/7).
    "zero_sum": np.array([[[3, -1], [-2, 1]], [[-3, 1], [2, -1]]], float),
    # Cooperate, defect: defecting is the only Nash and the only correlated equilibrium.
    "prisoners_dilemma": np.array([[[3, 0], [5, 1]], [[3, 5], [0, 1]]], float),
    # Swerve, dare. R. Aumann, J. Mathematical Economics 1 (1974): correlation earns 10.5 together.
    "chicken": np.array([[[6, 2], [7, 0]], [[6, 7], [2, 0]]], float),
    # C. Claus and C. Boutilier, AAAI 1998: the best joint action is next to the worst.
    "climbing": np.stack([np.array([[11, -30, 0], [-30, 7, 6], [0, 0, 5]], float)] * 2),
}
"""``f64[2, A, B]`` by name."""

ACTIONS: dict[str, tuple[str, ...]] = {
    "zero_sum": ("first", "second"),
    "prisoners_dilemma": ("cooperate", "defect"),
    "chicken": ("swerve", "dare"),
    "climbing": ("a", "b", "c"),
}


def make(name: str) -> Described:
    """A matrix game as a Markov game of one state that ends at once.

    Raises:
      ValueError: unknown ``name``.
    """
    if name not in PAYOFFS:
        raise ValueError(f"matrix game {name!r}: allowed are {', '.join(PAYOFFS)}")
    payoff = PAYOFFS[name]

    def outcomes(state: str, *actions: int) -> Iterator[Outcome]:
        yield Outcome(1.0, state, tuple(float(own[actions]) for own in payoff), True)

    game = markov_game.tabulate([name], payoff.shape[1:], outcomes, lambda _: 1.0, 1.0)
    return Described(game, [name], ACTIONS[name], "the only one")
