"""The exact solver of the warehouse against enumeration, closed forms, and figures computed independently."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax.games import warehouse as model
from envs_jax.references import warehouse as exact
from envs_jax.references import warehouse_sweep


def brute_force(warehouse: model.Warehouse, worth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and first minimiser over all joint flows, one state after the other."""
    stock, flows = model.states(warehouse), model.joint_flows(warehouse)
    number = {tuple(x): k for k, x in enumerate(stock.tolist())}
    least, best = [], []
    for x in stock:
        good = flows[model.is_feasible(warehouse, np.broadcast_to(x, flows.shape).copy(), flows)]
        y = model.after_orders(warehouse, np.broadcast_to(x, good.shape).copy(), good)
        cost = model.order_costs(warehouse, good) + worth[[number[tuple(after)] for after in y.tolist()]]
        least.append(cost.min())
        best.append(good[np.argmax(cost <= cost.min() + exact.TIE)])
    return np.array(least), np.array(best).T


@st.composite
def warehouses(draw: st.DrawFn, supply: str | None = None, min_rate: float = 0.1) -> model.Warehouse:
    n = draw(st.integers(1, 3))
    cost = st.lists(st.floats(0, 10), min_size=n, max_size=n).map(tuple)
    return model.Warehouse(
        caps=tuple(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))),
        rates=tuple(draw(st.lists(st.floats(min_rate, 3), min_size=n, max_size=n))),
        holding=draw(cost),
        shortage=draw(cost),
        unit_cost=draw(cost),
        order_cost=draw(cost),
        supply=supply or draw(st.sampled_from(model.SUPPLIES)),
    )


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "reading", "levels", "optimum", "digits", "gains"),
    [
        ("ex1", "R1", None, 111.2586903701, 10, (160, 127.8174, 111.2587)),
        ("ex1", "R2b", None, 126.2822640488, 10, (160, 127.8220, 126.3006, 126.2823)),
        ("ex1", "R4", None, 62.7732733359, 10, (160, 120.2676, 62.7733)),
        # Printed as ..9618, but the closed form gives ..96195: their last digit carries the tail they cut off.
        ("ex2", "R1", None, 61.80794896195, 10, (86, 69.3513, 61.8079)),
        # Printed as ..4760; the certified bounds are ..47612 and ..47614.
        ("ex2", "R2", None, 81.41972047613, 10, (86, 81.4197)),
        ("chain", "R5", 2, 7.763715292, 9, (18, 13.751434, 9.143995, 8.050469, 7.768058, 7.763715)),
        # Printed as ..736, cut off rather than rounded.
        ("chain", "R5", 3, 13.1913077367, 9, (27, 20.613365, 15.422707, 13.908317, 13.235713, 13.191386, 13.191308)),
    ],
)
def test_optimal_gains_and_those_of_successive_rollouts(example, reading, levels, optimum, digits, gains):
    warehouse = model.make(example, reading, levels)
    solution = exact.optimum(warehouse)
    assert abs(solution.gain - optimum) < 0.51 * 10.0**-digits
    assert solution.lower <= solution.gain <= solution.upper <= solution.lower + 1e-11
    found = exact.successive_gains(list(exact.policy_iteration(warehouse)))
    assert len(found) == len(gains)
    places = 6 if example == "chain" else 4
    np.testing.assert_allclose(found, gains, rtol=0, atol=0.51 * 10.0**-places)


def test_potentials_of_ex1_are_those_computed_independently():
    warehouse = model.make("ex1", "R1")
    potentials = exact.optimum(warehouse).potentials.reshape(21, 17)
    np.testing.assert_allclose(potentials[0, :4], (0, -10, -20, -30), atol=1e-8)
    assert abs(potentials[20, 16] - 204.055670) < 5.1e-7


def test_twenty_independent_levels_cost_twenty_times_one():
    one = exact.optimum(model.make("chain", "R5", 1)).gain
    assert abs(one - 3.359631357) < 5.1e-10
    levels = model.make("chain", "R4", 20).levels()
    gains = exact.sum_of_levels([exact.successive_gains(list(exact.policy_iteration(level))) for level in levels])
    assert abs(gains[-1] - 67.192627) < 5.1e-7
    assert gains[0] == pytest.approx(180)


def test_discounted_value_of_ex1():
    warehouse = model.make("ex1", "R1")
    value = exact.discounted(warehouse, 0.95)
    assert abs(value[0] - 2240.8032) < 5.1e-5


@pytest.mark.parametrize(("example", "levels"), [("ex1", (4, 4)), ("ex2", (2, 3, 0, 3, 3))])
def test_linear_costs_have_the_newsvendors_solution(example, levels):
    warehouse = model.make(example, "R1")
    gain, best = exact.newsvendor(warehouse)
    assert best == levels
    assert exact.optimum(warehouse).gain == pytest.approx(gain, abs=1e-10)
    assert exact.evaluate(warehouse, exact.base_stock(warehouse, best)).gain == pytest.approx(gain, abs=1e-10)


def test_sizes():
    assert [model.make("ex1", "R1").num_states, model.make("ex2", "R1").num_states] == [357, 16_807]
    assert [model.count_pairs(model.make("ex2", reading)) for reading in ("R1", "R2")] == [17_210_368, 7_911_970]


# --- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(warehouses(), st.integers(0, 2**31))
def test_minimum_and_expectation_are_those_of_enumeration(warehouse, seed):
    potentials = np.random.default_rng(seed).normal(size=warehouse.num_states) * 5
    law, cost = model.tables(warehouse)
    stock = model.states(warehouse)
    chance = np.prod([law[i][np.ix_(stock[:, i], stock[:, i])] for i in range(warehouse.num_levels)], axis=0)
    worth = sum(cost[i, stock[:, i]] for i in range(warehouse.num_levels)) + chance @ potentials
    np.testing.assert_allclose(exact.lookahead(warehouse, potentials), worth, atol=1e-10)
    _, best = brute_force(warehouse, worth)
    np.testing.assert_array_equal(exact.improve(warehouse, potentials), best)


@settings(max_examples=8)
@given(warehouses())
def test_rollout_is_never_worse_and_ends_at_the_optimum(warehouse):
    iterates = list(exact.policy_iteration(warehouse))
    gains = [iterate.solution.gain for iterate in iterates]
    assert all(after <= before + 1e-10 for before, after in itertools.pairwise(gains))
    assert gains[-1] == pytest.approx(exact.optimum(warehouse).gain, abs=1e-9)
    for flows, solution in iterates:
        assert exact.poisson_residual(warehouse, flows, solution) < 1e-8
        assert solution.potentials[0] == 0


@settings(max_examples=8)
@given(warehouses(supply="independent"), st.randoms(use_true_random=False))
def test_relabelled_levels_cost_the_same(warehouse, random):
    order = list(range(warehouse.num_levels))
    random.shuffle(order)
    assert exact.optimum(warehouse.take(order)).gain == pytest.approx(exact.optimum(warehouse).gain, abs=1e-9)


@settings(max_examples=8)
@given(warehouses(supply="independent"))
def test_linear_costs_and_the_closed_form(warehouse):
    warehouse = dataclasses.replace(warehouse, order_cost=(0.0,) * warehouse.num_levels)
    assert exact.optimum(warehouse).gain == pytest.approx(exact.newsvendor(warehouse)[0], abs=1e-9)


def test_independent_levels_add_up_policy_by_policy():
    warehouse = model.make("ex1", "R4")
    joint = exact.successive_gains(list(exact.policy_iteration(warehouse)))
    apart = exact.sum_of_levels(
        [exact.successive_gains(list(exact.policy_iteration(level))) for level in warehouse.levels()]
    )
    np.testing.assert_allclose(apart, joint, atol=1e-9)


def test_many_periods_cost_the_gain_each():
    warehouse = model.make("chain", "R5", 3)
    with jax.enable_x64(True):
        tables = exact.build(warehouse)
        short, long = (warehouse_sweep.finite_horizon(tables, periods, True)[0][0] for periods in (200, 201))
    assert float(long - short) == pytest.approx(13.1913077367, abs=1e-9)


def test_one_program_serves_any_number_of_levels():
    texts = []
    for levels in (4, 6):
        warehouse = model.make("chain", "R5", levels)
        value = np.zeros(warehouse.num_states)
        lowered = exact._optimise.lower(exact.build(warehouse), value, 1e-9, 1.0, is_chain=True, max_sweeps=9)
        texts.append(len(lowered.as_text().splitlines()))
    assert texts[0] == texts[1]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caps": (0, 3)}, "caps = .0, 3."),
        ({"rates": (-1.0, 1.0)}, "rates = .-1.0, 1.0."),
        ({"rates": (1.0, float("nan"))}, "rates"),
        ({"holding": (1.0,)}, "holding = .1.0,.: 1 values for 2 levels"),
        ({"supply": "ring"}, "supply = 'ring': allowed are independent, chain"),
    ],
)
def test_bad_warehouses_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(model.make("chain", "R5", 2), **change)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="reading = 'R3': allowed are R1, R2, R2b, R4, R5"):
        model.make("ex1", "R3")
    with pytest.raises(ValueError, match="example = 'ex3'"):
        model.make("ex3", "R1")
    with pytest.raises(ValueError, match="levels = 3: ex1 has 2"):
        model.make("ex1", "R1", 3)


def test_multichain_policies_are_refused_and_unichain_ones_of_rate_zero_are_not():
    warehouse = dataclasses.replace(model.make("chain", "R5", 2), rates=(1.0, 0.0), caps=(2, 2))
    with pytest.raises(exact.MultichainError, match="3 recurrent classes"):
        exact.evaluate(warehouse, exact.order_nothing(warehouse))
    # Level 2 fills up, whatever it holds, once level 1 has something to give; level 1 keeps buying.
    stock = model.states(warehouse)
    into_second = np.minimum(stock[:, 0], 2 - stock[:, 1])
    flows = np.stack([2 - stock[:, 0] + into_second, into_second]).astype(np.int8)
    solution = exact.evaluate(warehouse, flows)
    assert exact.poisson_residual(warehouse, flows, solution) < 1e-8


def test_infeasible_flows_are_refused_with_the_state():
    warehouse = model.make("chain", "R5", 2)
    flows = exact.order_nothing(warehouse)
    flows[1] = 1
    with pytest.raises(ValueError, match=r"flows \[0, 1\] at stock \[0, 0\]"):
        exact.evaluate(warehouse, flows)
