"""pyfao56 itself, day by day, against the NumPy model of irrigation; skipped where pyfao56 is not installed.

Needs no JAX: ``pip install pyfao56==1.4.3 scipy pytest`` in an environment of its own, then ``pytest --noconftest
-o addopts= -o filterwarnings= tests/envs_jax/test_agriculture_pyfao56.py -s``. pyfao56 splits evapotranspiration in two
(dual crop coefficients), so the model is given a demand that makes its use of water pyfao56's; what stress,
percolation and depletion follow is compared.
"""

import datetime
import math
import time

import numpy as np
import pytest

from benchmarks.numpy_models.agriculture import LoopModel

pyfao56 = pytest.importorskip("pyfao56")
DAYS, SET, EFFICIENCY, ROOTS, WATER, FRACTION = 126, 40.0, 0.75, 1.2, 150.0, 0.55
WATERED = (40, 60, 75)


def season(seed):
    """pyfao56's table of a season of random weather, no runoff, p as given, roots that do not grow."""
    rng = np.random.default_rng(seed)
    weather, irrigation = pyfao56.Weather(), pyfao56.Irrigation()
    weather.z, weather.lat, weather.wndht = 300.0, 35.0, 2.0
    start = datetime.date(2021, 4, 15)
    days = [(start + datetime.timedelta(days=k)).strftime("%Y-%j") for k in range(DAYS)]
    for k, day in enumerate(days):
        rain = float(rng.exponential(25.0)) if rng.random() < 0.12 else 0.0
        weather.wdata.loc[day] = {"ETref": rng.uniform(3.0, 8.0), "Rain": rain, "Wndsp": 2.0, "RHmin": 45.0}
        if k in WATERED:
            irrigation.addevent(int(day[:4]), int(day[5:]), SET, 1.0, 100.0 * EFFICIENCY)
    crop = pyfao56.Parameters(
        Lini=25, Ldev=35, Lmid=40, Lend=26, thetaFC=0.25, thetaWP=0.1, theta0=0.25, Zrini=ROOTS, Zrmax=ROOTS, pbase=0.55
    )
    model = pyfao56.Model(days[0], days[-1], crop, weather, irr=irrigation, cons_p=True)
    began = time.perf_counter()
    model.run()
    print(f"pyfao56: {DAYS / (time.perf_counter() - began):.0f} days/s")
    return model.odata


@pytest.mark.parametrize("seed", range(4))
def test_stress_percolation_and_depletion_are_those_of_pyfao56(seed):
    table = season(seed)
    use, stress = table["ETa"].to_numpy(float), table["Ks"].to_numpy(float)
    assert (stress > 0).all()
    demand = use / stress
    one = np.ones(1)
    model = LoopModel(
        {
            "kc": demand[None],
            "kc_left": np.append(demand[::-1].cumsum()[::-1], 0.0)[None],
            "root_depth": ROOTS * one,
            "fraction": FRACTION * one,
            "response": one,
            "value": one,
            "available_water": WATER * one,
            "efficiency": EFFICIENCY * one,
            "sensitivity": one,
            "set_depth": SET,
            "permit": len(WATERED),
            "probe_noise": 0.0,
            "canopy_noise": 0.0,
            "variation": 0.0,
            "eto": 1.0,
            "rain_chance": 0.5,
            "rain_depth": 10.0,
        },
        DAYS,
    )
    model.reset(0.5 * one)
    depletion, drained, stressed = (np.zeros(DAYS) for _ in range(3))
    for day, rain in enumerate(table["Rain"].to_numpy(float)):
        uniforms = np.full(4, 0.5)
        uniforms[0] = 0.5 * math.exp(-rain / 10.0) if rain else 0.75
        _, info = model.step(int(day in WATERED), uniforms)
        depletion[day], drained[day] = model.dr[0], info["percolation"]
        stressed[day] = 1.0 - model.canopy[0]
    for name, found in (("Ks", stressed), ("DP", drained), ("Dr", depletion)):
        print(f"{name}: largest difference {np.abs(found - table[name].to_numpy(float)).max():.1e}")
        np.testing.assert_allclose(found, table[name].to_numpy(float), atol=1e-11)
    assert (stressed < 0.9).sum() > 10
    assert (drained > 1.0).any()
