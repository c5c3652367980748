"""Markov games: exact values against published ones, and the one update against them."""

import jax
import numpy as np
import pytest

from envs_jax.games import grid_games, markov_game, matrix_games, soccer
from metarl_jax import equilibria, equilibrium_q, markov_values

KICK_OFF = (*soccer.START, 0)


@pytest.fixture(scope="module")
def soccer_values():
    return markov_values.solve(soccer.make().game, "minimax")


@pytest.mark.slow
def test_soccer_is_worth_what_it_should_be(soccer_values):
    described = soccer.make()
    assert described.game.num_states == 760
    value = soccer_values.value[0]
    assert value[described.index(KICK_OFF)] == pytest.approx(0.2184844404, abs=5.1e-11)
    # Turned around, with the ball at the other player, the field is the same.
    for k, (a, b, ball) in enumerate(described.states):
        turned = tuple((3 - row, 4 - column) for row, column in (b, a))
        assert value[described.index((*turned, 1 - ball))] == pytest.approx(-value[k], abs=1e-9)
    assert markov_values.exploitability(described.game, soccer_values.joint).max() < 1e-8


def test_rules_of_soccer():
    def after(state, a, b):
        return {(o.state, o.reward, o.ends): o.probability for o in soccer.outcomes(state, a, b)}

    north, _, east, west, stand = range(5)
    # A with the ball on the left edge, in a goal row, scores; in another row it does not.
    assert after(((1, 0), (3, 3), 0), west, stand) == {(((1, 0), (3, 3), 0), (1.0, -1.0), True): 0.5}
    assert not any(ends for _, _, ends in after(((0, 0), (3, 3), 0), west, stand))
    # Nor without the ball, nor at its own end.
    assert not any(ends for _, _, ends in after(((1, 0), (3, 3), 1), west, stand))
    assert not any(ends for _, _, ends in after(((1, 4), (3, 3), 0), east, stand))
    # Running into the other loses the ball.
    assert set(after(((2, 2), (2, 1), 0), west, stand)) == {(((2, 2), (2, 1), 1), (0.0, 0.0), False)}
    assert set(after(((2, 2), (2, 1), 1), west, stand)) == {(((2, 2), (2, 1), 1), (0.0, 0.0), False)}
    # Who moves first matters: B gets away, or does not.
    assert len(list(soccer.outcomes(((2, 2), (2, 1), 0), west, north))) == 2


@pytest.mark.slow
def test_grid_game_one_has_the_published_value():
    described = grid_games.make(1)
    start = described.index(grid_games.STARTS)
    for operator in ("nash", "nash-first", "nash-second", "friend", "ce-utilitarian"):
        values = markov_values.solve(described.game, operator, max_sweeps=100)
        assert values.converged
        np.testing.assert_allclose(values.value[:, start], 97.0299, atol=1e-9)
        assert values.action_value[0, start, 3, 2] == pytest.approx(95.059601, abs=1e-9)


@pytest.mark.slow
def test_grid_game_two_has_equilibria_for_either_and_some_in_between():
    described = grid_games.make(2)
    start = described.index(grid_games.STARTS)
    first, second = (markov_values.solve(described.game, f"nash-{who}", max_sweeps=100) for who in ("first", "second"))
    np.testing.assert_allclose(first.value[:, start], (98.01, 49.005), atol=1e-9)
    np.testing.assert_allclose(second.value[:, start], (49.005, 98.01), atol=1e-9)
    found = np.array(markov_values.stationary_equilibria(described.game, start, draws=40))
    assert len(found) >= 4
    np.testing.assert_allclose(found[0], (98.01, 49.005), atol=1e-6)
    np.testing.assert_allclose(found[-1], (49.005, 98.01), atol=1e-6)
    assert all(49 < pair[0] < 98 and pair[0] == pytest.approx(pair[1], abs=1e-6) for pair in found[1:-1])


def test_the_chicken_has_three_equilibria():
    found = markov_values.start_equilibria(
        matrix_games.make("chicken").game, markov_values.solve(matrix_games.make("chicken").game, "nash"), 0
    )
    np.testing.assert_allclose(found, [(7, 2), (14 / 3, 14 / 3), (2, 7)], atol=1e-9)


def test_matrix_games_as_markov_games():
    for name, operator, value in (("climbing", "team", (11, 11)), ("zero_sum", "minimax", (1 / 7, -1 / 7))):
        values = markov_values.solve(matrix_games.make(name).game, operator)
        np.testing.assert_allclose(values.value[:, 0], value, atol=1e-12)
    with pytest.raises(equilibria.NoEquilibriumError, match="state 0"):
        markov_values.solve(matrix_games.make("chicken").game, "nash-coordination")


def test_a_step_follows_the_tables():
    game = jax.tree.map(np.asarray, grid_games.make(2).game)
    described = grid_games.make(2)
    start = described.index(grid_games.STARTS)
    keys = jax.random.split(jax.random.key(0), 4000)
    with jax.enable_x64(True):
        moved = jax.vmap(lambda key: markov_game.step(game, key, np.int32(start), np.array([0, 0])))(keys)
    counts = np.bincount(np.asarray(moved.state), minlength=game.num_states) / len(keys)
    for to in (((0, 1), (2, 1)), ((0, 0), (2, 1)), ((0, 1), (2, 0)), ((0, 0), (2, 0))):
        assert abs(counts[described.index(to)] - 0.25) < 3 * np.sqrt(0.25 * 0.75 / len(keys))


@pytest.mark.parametrize("described", [soccer.make(), grid_games.make(1), grid_games.make(2)], ids=["soccer", "1", "2"])
def test_tables_are_those_of_a_game(described):
    markov_game.check(described.game)


def learn(game, operator, steps, seeds=2, **changes):
    settings = equilibrium_q.Settings(**{"behaviour": "random", "schedule": "visits", **changes})
    with jax.enable_x64(True):
        tables = equilibrium_q.start(game, operator, settings, jax.random.key(0), seeds)
        tables = equilibrium_q.advance(game, tables, jax.random.key(0), operator, settings, total=steps, steps=steps)
        return jax.tree.map(np.asarray, tables)


@pytest.mark.parametrize(
    ("game", "operator", "value"),
    [
        ("climbing", "team", (11, 11)),
        ("zero_sum", "minimax", (1 / 7, -1 / 7)),
        ("zero_sum", "foe", (1 / 7, -1 / 7)),
        ("prisoners_dilemma", "nash", (1, 1)),
        ("chicken", "ce-utilitarian", (5.25, 5.25)),
        ("chicken", "friend", (7, 7)),
    ],
)
def test_the_one_update_learns_matrix_games_with_any_operator(game, operator, value):
    tables = learn(matrix_games.make(game).game, operator, 200)
    np.testing.assert_allclose(tables.value[:, :, 0], np.broadcast_to(value, (2, 2)), atol=1e-9)


@pytest.mark.slow
def test_independent_agents_do_not_climb():
    tables = learn(
        matrix_games.make("climbing").game,
        "independent",
        2000,
        seeds=8,
        behaviour="explore",
        schedule="decay",
        learning_rate=0.2,
    )
    assert tables.value[:, 0, 0].max() < 10.5


@pytest.mark.slow
def test_nash_q_finds_grid_game_one():
    described = grid_games.make(1)
    tables = learn(described.game, "nash", 15_000, behaviour="explore", explore=0.5, power=0.6)
    np.testing.assert_allclose(tables.value[:, :, described.index(grid_games.STARTS)], 97.0299, atol=0.05)


@pytest.mark.slow
def test_a_run_cut_in_two_is_the_run_in_one():
    game, operator, key = soccer.make().game, "minimax", jax.random.key(5)
    settings = equilibrium_q.Settings()
    with jax.enable_x64(True):
        whole = equilibrium_q.start(game, operator, settings, key, 2)
        parts = equilibrium_q.start(game, operator, settings, key, 2)
        for _ in range(2):
            whole = equilibrium_q.advance(game, whole, key, operator, settings, total=400, steps=100)
        saved = jax.tree.map(
            np.asarray, equilibrium_q.advance(game, parts, key, operator, settings, total=400, steps=100)
        )
        parts = equilibrium_q.advance(
            game, jax.tree.map(jax.numpy.asarray, saved), key, operator, settings, total=400, steps=100
        )
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_bad_settings_are_refused():
    for changes, message in (({"schedule": "never"}, "schedule"), ({"explore": 2.0}, "explore = 2.0")):
        with pytest.raises(ValueError, match=message):
            equilibrium_q.check_settings(equilibrium_q.Settings(**changes))
