"""Rollout agent by agent and over devices, and rollout on potentials from paths."""

import functools
import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax.games import warehouse as model
from envs_jax.references import warehouse as exact
from metarl_jax.rollout import improvement, parallel, potentials, study
from tests.envs_jax.test_warehouse_reference import warehouses

OPTIMUM = 111.2586903701


def gains_of(warehouse: model.Warehouse, order: tuple[int, ...] | None = None) -> list[float]:
    chosen = improvement.get("agents", order)
    return [iterate.solution.gain for iterate in exact.policy_iteration(warehouse, improvement=chosen)]


def test_agents_of_a_chain_of_two_stop_short_of_the_optimum():
    gains = gains_of(model.make("chain", "R5", 2))
    np.testing.assert_allclose(gains[:5], (18, 10.479651, 8.520688, 7.871386, 7.785438), atol=5.1e-7)
    assert gains[-1] == pytest.approx(7.785438, abs=5.1e-7)
    assert gains[-1] / 7.763715292 - 1 == pytest.approx(0.0028, abs=5e-5)


def test_the_order_of_turns_matters():
    warehouse = model.make("chain", "R5", 2)
    assert gains_of(warehouse, (1, 0))[-1] > gains_of(warehouse, (0, 1))[-1] + 0.1


@settings(max_examples=6)
@given(warehouses(), st.randoms(use_true_random=False))
def test_agent_by_agent_never_rises_and_ends_person_by_person_optimal(warehouse, random):
    order = list(range(warehouse.num_levels))
    random.shuffle(order)
    iterates = list(exact.policy_iteration(warehouse, improvement=improvement.get("agents", tuple(order))))
    gains = [iterate.solution.gain for iterate in iterates]
    assert all(after <= before + 1e-10 for before, after in itertools.pairwise(gains))
    flows, solution = iterates[-1]
    stock = model.states(warehouse)
    worth = exact.lookahead(warehouse, solution.potentials)
    number = {tuple(x): k for k, x in enumerate(stock.tolist())}

    def cost(flows: np.ndarray) -> np.ndarray:
        y = model.after_orders(warehouse, stock, flows.T.astype(np.int32))
        return model.order_costs(warehouse, flows.T) + worth[[number.get(tuple(after), 0) for after in y.tolist()]]

    for level, amount in itertools.product(range(warehouse.num_levels), range(warehouse.side)):
        alone = flows.copy()
        alone[level] = amount
        feasible = model.is_feasible(warehouse, stock, alone.T.astype(np.int32))
        assert (cost(alone) >= cost(flows) - 1e-7)[feasible].all()


def test_independent_agents_lose_nothing_by_taking_turns():
    warehouse = model.make("ex1", "R4")
    assert gains_of(warehouse)[-1] == pytest.approx(62.7732733359, abs=1e-9)


def test_a_sum_of_choices_instead_of_a_product():
    warehouse = model.make("chain", "R5", 5)
    assert [improvement.choices_per_state(warehouse, name) for name in ("joint", "agents")] == [16_807, 35]


def test_improvements_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"improve = 'simultaneous': allowed are joint, agents .*infeasible together"):
        improvement.get("simultaneous")
    with pytest.raises(ValueError, match=r"order = .0, 0.: must name each of the levels"):
        improvement.agent_by_agent(model.make("chain", "R5", 2), np.zeros((2, 49), np.int8), np.zeros(49), order=(0, 0))


# --- devices ---------------------------------------------------------------------------------------------------------

_ON_EIGHT_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from envs_jax.games import warehouse as model
from envs_jax.references import warehouse as exact
from metarl_jax.rollout import parallel

assert len(jax.devices()) == 8
for example, reading, levels in (("ex1", "R2b", None), ("chain", "R5", 3)):
    warehouse = model.make(example, reading, levels)
    known = exact.evaluate(warehouse, exact.order_nothing(warehouse)).potentials
    serial = parallel.improve(warehouse, known)
    assert np.array_equal(serial, exact.improve(warehouse, known)), "enumeration against structure"
    count = len(model.joint_flows(warehouse))
    assert count % 2, "does not divide"
    for devices in (1, 2, 4, 8):
        assert np.array_equal(parallel.improve(warehouse, known, devices=devices), serial), devices
warehouse = model.make("chain", "R5", 2)
known, key = np.arange(49.0), jax.random.key(3)
serial = parallel.improve(warehouse, known, samples=5, key=key)
for devices in (1, 2, 4, 8):
    assert np.array_equal(parallel.improve(warehouse, known, samples=5, key=key, devices=devices), serial), devices
print("equal")
"""


@pytest.mark.slow
def test_any_number_of_devices_gives_the_serial_policy_bit_for_bit():
    done = subprocess.run([sys.executable, "-c", _ON_EIGHT_DEVICES], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_more_devices_than_there_are_is_refused():
    warehouse = model.make("chain", "R5", 2)
    with pytest.raises(ValueError, match="devices = 99: 1 to"):
        parallel.improve(warehouse, np.zeros(49), devices=99)
    with pytest.raises(ValueError, match="samples = 3"):
        parallel.improve(warehouse, np.zeros(49), samples=3)


def test_bytes_that_are_gathered():
    assert parallel.padded_count(357, 8) == 360
    assert parallel.gathered_bytes(model.make("ex1", "R1"), 8) == 8 * 357 * (360 - 45)


# --- paths -----------------------------------------------------------------------------------------------------------


def test_a_simulated_gain_is_the_exact_one():
    warehouse = model.make("ex1", "R5")
    flows = exact.improve(warehouse, exact.evaluate(warehouse, exact.order_nothing(warehouse)).potentials)
    truth = exact.evaluate(warehouse, flows).gain
    sampling = potentials.Sampling(paths=64, length=400, horizon=0, epsilon=0.0)
    _, paid = potentials.play(warehouse, flows, sampling, jax.random.key(0))
    means = paid[:, 100:].mean(1)
    assert abs(means.mean() - truth) < 3 * means.std(ddof=1) / np.sqrt(len(means))


def test_tabulated_potentials_are_those_of_the_policy():
    warehouse = model.make("chain", "R5", 2)
    flows = exact.improve(warehouse, exact.evaluate(warehouse, exact.order_nothing(warehouse)).potentials)
    truth = exact.evaluate(warehouse, flows)
    sampling = potentials.Sampling(paths=4000, length=60, horizon=30, epsilon=0.0)
    met, paid = potentials.play(warehouse, flows, sampling, jax.random.key(1))
    batches = [potentials.tabulate(warehouse, met[k::20], paid[k::20], sampling.horizon) for k in range(20)]
    known = np.all([visits > 20 for _, _, visits in batches], axis=0)
    assert known.sum() >= 20
    # A constant is free, so compare with the mean over these stocks; 20 independent estimates of each difference.
    differences = np.array([table[known] - table[known].mean() for _, table, _ in batches])
    error = differences.mean(0) - (truth.potentials[known] - truth.potentials[known].mean())
    deviations = error / (differences.std(0, ddof=1) / np.sqrt(len(batches)))
    assert np.abs(deviations).max() < 4  # the largest of twenty and more
    assert np.sqrt((deviations**2).mean()) < 1.5
    gain, _, _ = potentials.tabulate(warehouse, met, paid, sampling.horizon)
    assert gain == pytest.approx(truth.gain, rel=0.01)


def test_random_flows_are_feasible_and_reach_every_stock():
    warehouse = model.Warehouse((3, 2, 4), (0.3, 0.3, 0.3), (1.0,) * 3, (1.0,) * 3, (1.0,) * 3, (0.0,) * 3, "chain")
    sampling = potentials.Sampling(length=20_000, horizon=0, epsilon=1.0)
    met, _ = potentials.play(warehouse, exact.order_nothing(warehouse), sampling, jax.random.key(2))
    assert len(np.unique(met)) == warehouse.num_states


def test_a_deterministic_policy_may_visit_one_stock_only():
    warehouse = model.make("ex1", "R1")
    nothing = exact.order_nothing(warehouse)
    sampling = potentials.Sampling(length=1000, epsilon=0.0)
    assert (
        potentials.estimate(warehouse, nothing, sampling, potentials.Fit("none"), jax.random.key(0)).visits > 0
    ).sum() == 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_algorithm_1_comes_within_1_2_percent_from_the_fourth_policy_on(seed):
    fit = potentials.Fit("linear", "onehot", fill="all")
    steps = potentials.algorithm1(
        model.make("ex1", "R1"), jax.random.key(seed), iterations=6, sampling=potentials.Sampling(), fit=fit
    )
    gains = [step.gain for step in steps]
    assert gains[0] == pytest.approx(160)
    assert min(gains) >= OPTIMUM - 1e-9
    assert max(gains[min(4, len(gains) - 1) :]) < OPTIMUM * 1.0121


@pytest.mark.slow
def test_sampled_next_states_wander_more_than_the_model_expectation():
    fit = potentials.Fit("linear", "onehot", fill="all")
    kwargs = {"iterations": 4, "sampling": potentials.Sampling(), "fit": fit}
    warehouse, key = model.make("ex1", "R1"), jax.random.key(0)
    by_model = potentials.algorithm1(warehouse, key, **kwargs)[-1].gain
    by_samples = potentials.algorithm1(warehouse, key, samples=50, **kwargs)[-1].gain
    assert by_model == pytest.approx(OPTIMUM, abs=1e-9)
    assert OPTIMUM * 1.0005 < by_samples < OPTIMUM * 1.15


def test_inputs_of_a_fit():
    ex2 = model.make("ex2", "R1")
    assert potentials.collisions(ex2, "seed28") == 423
    assert potentials.collisions(ex2, "levels") == 0
    assert [potentials.features(ex2, name).shape[1] for name in potentials.INPUTS] == [15, 28, 35]
    weights = potentials.init_network(28, False, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 435


def test_a_network_learns_a_table():
    warehouse = model.make("chain", "R5", 2)
    truth = exact.optimum(warehouse).potentials
    inputs = potentials.features(warehouse, "levels")
    with jax.enable_x64(True):
        share = np.full(49, 1 / 49)
        fit = functools.partial(potentials._train, steps=3000, biases=True)
        fitted = fit(inputs, np.arange(49), truth, share, 0.01, jax.random.key(0))
    assert np.std(np.asarray(fitted) - truth) < 0.1 * np.std(truth)


def test_a_network_sees_that_the_empty_warehouse_is_the_dearest():
    """Of inputs ``levels`` it is all zeros: without biases its potential would be the mean of all."""
    warehouse = model.make("chain", "R5", 2)
    flows = exact.improve(warehouse, exact.optimum(warehouse).potentials)
    truth = exact.evaluate(warehouse, flows).potentials
    sampling = potentials.Sampling(length=5000)
    fit = study.fits("levels")["network"]
    guess = potentials.estimate(warehouse, flows, sampling, fit, jax.random.key(0))
    share = guess.visits / guess.visits.sum()
    assert share @ guess.potentials == pytest.approx(share @ truth, rel=0.3)
    assert not study.fits("seed28")["network"].biases, "two-sided inputs need none"


def test_a_fit_reads_the_stocks_that_were_met_and_no_others():
    visits = np.zeros(5000, int)
    visits[[7, 40, 4000]] = [1, 2, 5]
    rows, share = potentials._met(visits)
    assert rows.shape == share.shape == (256,)
    np.testing.assert_array_equal(rows[:3], [7, 40, 4000])
    np.testing.assert_allclose(share[:3], [0.125, 0.25, 0.625])
    assert not share[3:].any()
    assert len(potentials._met(np.ones(300, int))[0]) == 300


def test_unknown_fits_are_refused():
    warehouse = model.make("chain", "R5", 1)
    for fit in (potentials.Fit("tree"), potentials.Fit(inputs="pixels"), potentials.Fit(fill="some")):
        with pytest.raises(ValueError, match=r"fit.* allowed are"):
            potentials.estimate(
                warehouse, exact.order_nothing(warehouse), potentials.Sampling(), fit, jax.random.key(0)
            )
