"""Stage games against closed forms, HiGHS, and their own certificates."""

import functools

import jax
import numpy as np
import pytest
import scipy.optimize

from envs_jax.games.matrix_games import PAYOFFS
from metarl_jax import equilibria


@pytest.fixture(scope="module", autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def value_of(name: str, game: str) -> np.ndarray:
    outcome = equilibria.get(name)(PAYOFFS[game])
    assert float(outcome.gap) < 1e-12
    return np.asarray(outcome.value)


def games(shape: tuple[int, ...], count: int = 40) -> np.ndarray:
    """Random games, the later half of whole numbers: full of ties."""
    drawn = np.random.default_rng(0).normal(size=(count, *shape)) * 2
    drawn[count // 2 :] = np.round(drawn[count // 2 :])
    return drawn


def linear_programme(payoff: np.ndarray) -> float:
    rows, columns = payoff.shape
    solved = scipy.optimize.linprog(
        np.r_[np.zeros(rows), -1.0],
        np.c_[-payoff.T, np.ones(columns)],
        np.zeros(columns),
        np.r_[np.ones(rows), 0.0][None],
        [1.0],
        [(0, None)] * rows + [(None, None)],
    )
    return -solved.fun


def best_correlated(payoff: np.ndarray, objective: np.ndarray) -> float:
    with jax.enable_x64(True):
        deviations = np.asarray(equilibria._deviations(payoff))
    solved = scipy.optimize.linprog(
        -objective.reshape(-1), deviations, np.zeros(len(deviations)), np.ones((1, objective.size)), [1.0]
    )
    return -solved.fun


def test_a_two_by_two_game():
    value, rows, columns, gap = equilibria.zero_sum(PAYOFFS["zero_sum"][0])
    np.testing.assert_allclose(value, 1 / 7, atol=1e-15)
    np.testing.assert_allclose(rows, (3 / 7, 4 / 7), atol=1e-15)
    np.testing.assert_allclose(columns, (2 / 7, 5 / 7), atol=1e-15)
    assert gap < 1e-15


@pytest.mark.slow
def test_the_dilemma_has_one_equilibrium():
    for name in ("nash", "nash-first", "nash-second", "ce-utilitarian", "ce-egalitarian", "ce-republican"):
        np.testing.assert_allclose(value_of(name, "prisoners_dilemma"), (1, 1), atol=1e-12)
    np.testing.assert_allclose(value_of("ce-libertarian", "prisoners_dilemma"), (1, 1), atol=1e-12)
    every = equilibria.extreme_equilibria(PAYOFFS["prisoners_dilemma"])
    assert {tuple(pair) for pair in np.asarray(every.value)[:, np.asarray(every.found)].T.tolist()} == {(1.0, 1.0)}


def test_chicken():
    outcome = equilibria.correlated(PAYOFFS["chicken"], "utilitarian")
    np.testing.assert_allclose(outcome.joint, [[0.5, 0.25], [0.25, 0]], atol=1e-12)
    assert float(outcome.value.sum()) == pytest.approx(10.5)
    np.testing.assert_allclose(value_of("nash-first", "chicken"), (7, 2), atol=1e-12)
    np.testing.assert_allclose(value_of("nash-second", "chicken"), (2, 7), atol=1e-12)
    np.testing.assert_allclose(value_of("nash", "chicken"), (14 / 3, 14 / 3), atol=1e-12)  # mixed: the largest sum
    np.testing.assert_allclose(value_of("ce-republican", "chicken"), (7, 2), atol=1e-12)
    np.testing.assert_allclose(value_of("ce-libertarian", "chicken"), (7, 7), atol=1e-12)
    np.testing.assert_allclose(value_of("friend", "chicken"), (7, 7))
    np.testing.assert_allclose(value_of("foe", "chicken"), (2, 2))


def test_the_climbing_game():
    np.testing.assert_array_equal(value_of("team", "climbing"), (11, 11))
    np.testing.assert_allclose(value_of("nash-coordination", "climbing"), (11, 11), atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 2), (5, 5), (3, 4), (4, 2), (1, 3)])
def test_zero_sum_values_are_those_of_highs(shape):
    drawn = games(shape)
    value, rows, columns, gap = jax.jit(jax.vmap(equilibria.zero_sum))(drawn)
    np.testing.assert_allclose(value, [linear_programme(payoff) for payoff in drawn], atol=1e-8)
    assert float(gap.max()) < 1e-12
    for strategy in (rows, columns):
        np.testing.assert_allclose(strategy.sum(-1), 1, atol=1e-12)
        assert float(strategy.min()) >= 0


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "utilitarian" else pytest.param(kind, marks=pytest.mark.slow) for kind in equilibria.CORRELATED],
)
def test_correlated_equilibria_are_as_good_as_highs_says(kind):
    drawn = games((2, 3, 4), 12)
    outcome = jax.jit(jax.vmap(functools.partial(equilibria.correlated, kind=kind)))(drawn)
    assert float(outcome.gap.max()) < 1e-8
    for payoff, value in zip(drawn, np.asarray(outcome.value), strict=True):
        own = [best_correlated(payoff, payoff[i]) for i in range(2)]
        if kind == "utilitarian":
            assert value.sum() == pytest.approx(best_correlated(payoff, payoff.sum(0)), abs=1e-8)
        elif kind == "republican":
            assert value.max() == pytest.approx(max(own), abs=1e-8)
        elif kind == "libertarian":
            np.testing.assert_allclose(value, own, atol=1e-8)
        else:
            # No lottery's smallest payoff is larger: the dual, min over mixtures of both objectives.
            mixtures = [best_correlated(payoff, w * payoff[0] + (1 - w) * payoff[1]) for w in np.linspace(0, 1, 41)]
            assert value.min() <= min(mixtures) + 1e-8
            assert value.min() == pytest.approx(min(mixtures), abs=0.1)


@pytest.mark.parametrize("shape", [(2, 3, 3), pytest.param((2, 4, 3), marks=pytest.mark.slow), (2, 2, 2)])
def test_nash_equilibria_survive_every_deviation_and_are_the_best_of_those_found_by_supports(shape):
    for payoff in games(shape, 12):
        outcome = equilibria.nash(payoff)
        assert float(outcome.gap) < 1e-9
        rows, columns = np.asarray(outcome.joint.sum(1)), np.asarray(outcome.joint.sum(0))
        now = np.einsum("i,kij,j->k", rows, payoff, columns)
        np.testing.assert_allclose(outcome.value, now, atol=1e-10)
        assert (payoff[0] @ columns).max() <= now[0] + 1e-8
        assert (rows @ payoff[1]).max() <= now[1] + 1e-8
        pure = [
            payoff[:, i, j].sum()
            for i in range(shape[1])
            for j in range(shape[2])
            if payoff[0, i, j] >= payoff[0, :, j].max() and payoff[1, i, j] >= payoff[1, i].max()
        ]
        assert now.sum() >= max(pure, default=-np.inf) - 1e-8


@pytest.mark.slow
def test_payoffs_that_hardly_differ_are_no_failure():
    drawn = 0.7 + 1e-10 * games((2, 5, 5), 20)
    assert float(jax.jit(jax.vmap(equilibria.foe))(drawn).gap.max()) < equilibria.TOLERANCE
    assert float(jax.jit(jax.vmap(equilibria.correlated))(drawn).gap.max()) < equilibria.TOLERANCE


@pytest.mark.slow
def test_payoffs_of_twelve_orders_of_magnitude_are_solved():
    rng = np.random.default_rng(0)
    drawn = np.sign(rng.normal(size=(20_000, 5, 5))) * 10.0 ** -rng.uniform(0, 12, (20_000, 5, 5))
    drawn *= rng.uniform(size=drawn.shape) < rng.uniform(0.05, 1, (20_000, 1, 1))
    gap = np.asarray(jax.jit(jax.vmap(equilibria.zero_sum))(drawn)[3])
    assert gap.max() < 1e-5
    assert np.mean(gap < 1e-7) > 0.999
    pairs = drawn[:400].reshape(200, 2, 5, 5)
    assert (
        float(jax.jit(jax.vmap(equilibria.correlated))(pairs).gap.max()) < 1e-5
    )  # a coarse attempt counts what rounding may cost


@pytest.mark.slow
def test_zero_sum_games_have_one_nash_value():
    for payoff in games((4, 4), 10):
        outcome = equilibria.nash(np.stack([payoff, -payoff]))
        assert float(outcome.value[0]) == pytest.approx(linear_programme(payoff), abs=1e-8)
        saddle = equilibria.nash(np.stack([payoff, -payoff]), "adversarial")
        np.testing.assert_allclose(saddle.value, outcome.value, atol=1e-8)


def test_what_does_not_exist_is_an_error_with_the_state():
    gaps = [equilibria.nash(PAYOFFS[game], "coordination").gap for game in ("climbing", "chicken")]
    with pytest.raises(equilibria.NoEquilibriumError, match=r"nash-coordination: no equilibrium .* at state 1"):
        equilibria.check(np.stack(gaps), "nash-coordination")
    with pytest.raises(equilibria.NoEquilibriumError, match=r"gap 1.0e-03"):
        equilibria.check(np.array([0.0, 1e-3]), "foe")


def test_unbounded_programmes_and_unknown_names_are_told():
    solved = equilibria.simplex(np.array([[-1.0, 0.0]]), np.ones(1), np.array([[1.0, 0.0]]))
    assert np.isinf(solved.gap)
    with pytest.raises(ValueError, match="operator = 'maximin': allowed are team"):
        equilibria.get("maximin")
    with pytest.raises(ValueError, match="choice = 'best'"):
        equilibria.nash(PAYOFFS["chicken"], "best")
    with pytest.raises(ValueError, match="two agents only"):
        equilibria.foe(np.zeros((3, 2, 2, 2)))
