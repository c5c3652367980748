"""Dispatch, prices and flows of the 14-bus network beside a DC optimal power flow of its own and PYPOWER figures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from envs_jax.data import ieee14
from envs_jax.domains.smart_grid import OVERLOAD_COST, SHED_COST, SmartGrid
from envs_jax.references import dc_network
from tests.envs_jax.smart_grid_programs import serve, units

ENV = SmartGrid()

# rundcpf of PYPOWER 5.1.21 on case14 as it comes: 219 MW at bus 1, 40 MW at bus 2.
PYPOWER_FLOWS = [
    147.8386,
    71.1614,
    70.0146,
    55.1519,
    40.9721,
    -24.1854,
    -61.7465,
    28.3612,
    16.5518,
    42.787,
    6.7283,
    7.6074,
    17.2513,
    0,
    28.3612,
    5.7717,
    9.6413,
    -3.2283,
    1.5074,
    5.2587,
]


def test_case14_dispatch_is_that_of_the_dc_optimal_power_flow():
    served, cost = serve(ENV.supply(ENV.default_params), jnp.float32([259.0]))
    assert abs(float(cost[0]) - 7642.5937) < 2e-3
    assert abs(float(served.price[0]) - 39.01617) < 1e-4
    np.testing.assert_allclose(served.output[0], [220.968, 38.032, 0, 0, 0], atol=1e-3)
    # The full digits of MATPOWER's first coefficient.
    exact = units([0.0430292599, 0.25], [20, 20], [0, 0], [332.4, 140])
    served, cost = serve(exact, jnp.float32([259.0]))
    assert abs(float(cost[0]) - 7642.59178) < 1e-3
    assert abs(float(served.price[0]) - 39.016153) < 1e-5


# rundcopf of PYPOWER 5.1.21 on case14: loads times the first number, lines limited to PGLib's ratings (data/ieee14.py)
# times the second (None: not at all). Cost [$/h], outputs [MW], prices at PRICED [$/MWh], binding lines.
PRICED = [0, 1, 2, 8, 13]  # buses 1, 2, 3, 9 and 14
DC_OPF = {
    (0.5, None): (3205.6484, [110.484, 19.016, 0, 0, 0], [29.5081] * 5, []),
    (1.0, None): (7642.5937, [220.968, 38.032, 0, 0, 0], [39.0162] * 5, []),
    (1.0, 0.6): (7642.5937, [220.968, 38.032, 0, 0, 0], [39.0162] * 5, []),
    (1.4, 0.7): (11804.8649, [238.806, 41.103, 27.564, 27.564, 27.564], [40.5513] * 5, []),
    (1.6, None): (13913.6207, [242.484, 41.736, 43.393, 43.393, 43.393], [40.8679] * 5, []),
    (2.5, None): (23683.0524, [296.472, 51.028, 100, 100, 100], [45.514] * 5, []),
    (1.0, 0.5): (
        7683.4711,
        [200.895, 37.229, 0, 16.189, 4.687],
        [37.2888, 38.6144, 39.3633, 40.1387, 40.2082],
        [1],
    ),
    (1.4, 0.5): (
        11850.2677,
        [209.375, 38.473, 25.299, 49.528, 39.925],
        [38.0185, 39.2365, 40.506, 40.836, 40.8941],
        [1, 2],
    ),
    (1.0, 0.4): (
        7861.2725,
        [164.432, 33.469, 10.154, 35.013, 15.932],
        [34.1508, 36.7344, 40.2031, 40.3931, 40.5085],
        [1, 2],
    ),
    (1.6, 0.4): (
        14158.3808,
        [172.374, 34.929, 65.731, 80.131, 61.235],
        [34.8343, 37.4646, 41.3146, 41.2985, 41.4127],
        [1, 2],
    ),
}


INCIDENCE = np.zeros((20, 14))  # of lines on buses
INCIDENCE[np.arange(20), ieee14.LINES[:, 0] - 1], INCIDENCE[np.arange(20), ieee14.LINES[:, 1] - 1] = 1, -1
TO_FLOW = INCIDENCE / ieee14.REACTANCE[:, None]  # from angles
AT_BUS = np.zeros((14, 5))  # of units
AT_BUS[ieee14.UNIT_BUS - 1, np.arange(5)] = 1


def dc_optimal_power_flow(load, limit, toll=np.inf):
    """Least cost with nodal angles as variables: cost, outputs, prices at buses, flows.

    A linear programme whose tangents to the quadratic costs are added where the last solution lies, until none is
    missing. Flows beyond ``limit`` are impossible, or cost ``toll``.
    Variables: outputs (5), their costs (5), angles (14), overloads (20).
    """
    a, b = ieee14.UNIT_COST.T
    balance = np.hstack([AT_BUS, np.zeros((14, 5)), -INCIDENCE.T @ TO_FLOW, np.zeros((14, 20))])
    within = np.vstack([np.hstack([np.zeros((20, 10)), sign * TO_FLOW, -np.eye(20)]) for sign in (1, -1)])
    bounds = [(0, high) for high in ieee14.UNIT_MAX] + [(None, None)] * 5 + [(0, 0)] + [(None, None)] * 13
    bounds += [(0, 0 if np.isinf(toll) else None)] * 20
    cost = np.r_[np.zeros(5), np.ones(5), np.zeros(14), np.full(20, 0 if np.isinf(toll) else toll)]
    points = [np.linspace(0, high, 9) for high in ieee14.UNIT_MAX]
    for _ in range(60):
        tangents = [(i, x) for i, own in enumerate(points) for x in own]
        rows = np.zeros((len(tangents), 44))
        for row, (i, x) in zip(rows, tangents, strict=True):
            row[i], row[5 + i] = 2 * a[i] * x + b[i], -1
        above = [a[i] * x * x for i, x in tangents]
        found = scipy.optimize.linprog(
            cost, np.vstack([rows, within]), np.r_[above, limit, limit], balance, load, bounds, method="highs"
        )
        assert found.status == 0
        output, costs = found.x[:5], found.x[5:10]
        missing = a * output**2 + b * output - costs
        if missing.max() < 1e-7:
            break
        points = [np.append(own, x) for own, x in zip(points, output, strict=True)]
    else:
        raise AssertionError(f"tangents miss {missing} $/h")
    return found.fun, output, found.eqlin.marginals, TO_FLOW @ found.x[10:24]


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def hour_without_storage(supply, load, limit):
    return dc_network.operate(ENV.network, supply, load, jnp.zeros(2), jnp.zeros(ENV.num_turns), limit, SHED_COST)


def test_dispatch_price_and_flows_are_those_of_the_dc_optimal_power_flow_until_a_line_binds():
    unlimited = np.full(20, 1e4)
    limits = [unlimited if rate is None else rate * ieee14.RATING for _, rate in DC_OPF]
    totals = 259.0 * np.array([scale for scale, _ in DC_OPF])
    ours = hour_without_storage(ENV.supply(ENV.default_params), jnp.float32(totals), jnp.float32(limits))
    for n, ((scale, _), (cost, output, price, binding)) in enumerate(DC_OPF.items()):
        hour, limit, load = (
            jax.tree.map(lambda x, n=n: np.asarray(x[n], float), ours),
            limits[n],
            scale * ieee14.BUS_LOAD,
        )
        # The independent programme is PYPOWER's, congested or not.
        best, best_output, best_price, best_flow = dc_optimal_power_flow(load, limit)
        assert abs(best - cost) < 2e-3
        np.testing.assert_allclose(best_output, output, atol=2e-2)
        np.testing.assert_allclose(best_price[PRICED], price, atol=2e-3)
        np.testing.assert_array_equal(np.flatnonzero(np.abs(best_flow) > limit - 1e-3), binding)
        # Given our outputs, the flows are the angles'.
        angle = np.linalg.pinv(INCIDENCE.T @ TO_FLOW) @ (AT_BUS @ hour.dispatch.output - load)
        flow = TO_FLOW @ angle
        np.testing.assert_allclose(hour.flow, flow, atol=2e-3)
        np.testing.assert_allclose(hour.overload, np.maximum(np.abs(flow) - limit, 0), atol=2e-3)
        if not binding:
            assert abs(hour.fuel_cost - best) < 1e-6 * best + 2e-3
            np.testing.assert_allclose(hour.dispatch.output, best_output, atol=1e-2)
            np.testing.assert_allclose(hour.dispatch.price, best_price, atol=1e-3)
            np.testing.assert_allclose(hour.flow, best_flow, atol=2e-2)
            assert not hour.overload.any()
            continue
        # Where lines bind, ours ignores them: cheaper fuel, the same lines beyond their limits, and a price between
        # the extremes of the buses'. A dispatch that heeds overloads at their toll saves some of what ours pays.
        assert hour.fuel_cost < best - 1
        np.testing.assert_array_equal(np.flatnonzero(hour.overload), binding)
        assert best_price.min() < hour.dispatch.price < best_price.max()
        soft, *_ = dc_optimal_power_flow(load, limit, OVERLOAD_COST)
        paid = hour.fuel_cost + OVERLOAD_COST * hour.overload.sum()
        print(
            f"load x {scale}: fuel alone {hour.fuel_cost:.0f} $/h, with overloads {paid:.0f}, heeding them {soft:.0f}"
        )
        assert hour.fuel_cost < soft <= min(best, paid) + 1e-4


def test_case9_dispatch_is_that_of_the_dc_optimal_power_flow():
    supply = units([0.11, 0.085, 0.1225], [5, 1.2, 1], [10, 10, 10], [250, 300, 270])
    served, cost = serve(supply, jnp.float32([315.0, 30.0]))
    np.testing.assert_allclose(served.output[0], [86.564, 134.378, 94.058], atol=1e-3)
    assert abs(float(served.price[0]) - 24.044) < 5e-4
    at_least = 10 * np.array([5, 1.2, 1]) + 100 * np.array([0.11, 0.085, 0.1225])  # what 10 MW each cost
    constant = 150 + 600 + 335
    assert abs(float(cost[0] - cost[1]) + at_least.sum() + constant - 5216.0266) < 2e-3


def test_wood_and_wollenberg_three_units():
    a, b = np.array([0.00142 * 1.1, 0.00194, 0.00482]), np.array([7.2 * 1.1, 7.85, 7.97])
    low, high = np.array([150, 100, 50]), np.array([600, 400, 200])
    served, cost = serve(units(a, b, low, high), jnp.float32([850.0, 300.0]))
    assert abs(float(served.price[0]) - 9.14826) < 1e-4
    np.testing.assert_allclose(served.output[0], [393.17, 334.60, 122.23], atol=6e-3)
    fixed = 510 * 1.1 + 310 + 78 + (a * low**2 + b * low).sum()
    assert abs(float(cost[0] - cost[1]) + fixed - 8194.356) < 2e-3


def test_flows_are_those_of_pypower():
    factors = dc_network.transfer_factors(ieee14.LINES[:, 0] - 1, ieee14.LINES[:, 1] - 1, ieee14.REACTANCE)
    np.testing.assert_allclose(
        factors[0],
        [
            0,
            -0.838,
            -0.7465,
            -0.6675,
            -0.6106,
            -0.6291,
            -0.6573,
            -0.6573,
            -0.6518,
            -0.6477,
            -0.6386,
            -0.6309,
            -0.6323,
            -0.6433,
        ],
        atol=5e-5,
    )
    injection = -ieee14.BUS_LOAD.copy()
    injection[:2] += 219, 40
    np.testing.assert_allclose(factors @ injection, PYPOWER_FLOWS, atol=1e-4)
    # And its angles, in degrees to four digits: .0042 MW at most on the line of least reactance (100 MVA per unit).
    angle = [0, -5.012, -12.9537, -10.5837, -9.0939, -14.8521, -13.9071]
    angle += [-13.9071, -15.6947, -15.9741, -15.6189, -15.9671, -16.1397, -17.1883]
    np.testing.assert_allclose(100 * TO_FLOW @ np.radians(angle), factors @ injection, atol=4.2e-3)


def test_transfer_factors_give_the_published_cost_of_the_pjm_five_bus_case():
    """PGLib's baseline for case5_pjm in the DC approximation is 1.7480e4 $/h; buses, units and lines are recalled."""
    lines = np.array([[0, 1], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4]])
    reactance = np.array([0.0281, 0.0304, 0.0064, 0.0108, 0.0297, 0.0297])
    rating = np.array([400.0, 426, 426, 426, 426, 240])
    at, price, most = np.array([0, 0, 2, 3, 4]), np.array([14.0, 15, 30, 40, 10]), np.array([40.0, 170, 520, 200, 600])
    load = np.array([0.0, 300, 300, 400, 0])
    factors = dc_network.transfer_factors(lines[:, 0], lines[:, 1], reactance)
    of_unit, of_load = factors[:, at], factors @ load
    limits = np.r_[rating + of_load, rating - of_load]
    found = scipy.optimize.linprog(
        price, np.vstack([of_unit, -of_unit]), limits, np.ones((1, 5)), [load.sum()], np.c_[0 * most, most]
    )
    assert abs(found.fun - 17480) < 0.5
    flow = of_unit @ found.x - of_load
    np.testing.assert_allclose(np.flatnonzero(np.abs(flow) > rating - 1e-6), [5])  # the line from D to E binds, alone
    merit_order = 10 * 600 + 14 * 40 + 15 * 170 + 30 * 190  # what it would cost without lines
    assert found.fun > merit_order + 2000
