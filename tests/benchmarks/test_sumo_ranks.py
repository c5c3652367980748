"""The parts of the comparison with SUMO that need no SUMO: the grid, the routes and the pressures."""

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np

from benchmarks.studies import sumo_ranks
from benchmarks.studies.sumo_ranks import CORNERS, beside, links, turns
from envs_jax.references import grid

# Corners in the order of ``envs_jax.references.grid``, which counts sides clockwise from the corner's first outer one.
ORDER = ((0, 1), (1, 1), (1, 0), (0, 0))


def test_the_grid_is_that_of_the_domain():
    edges = links()
    assert len(set(edges)) == len(edges) == 24
    rng = np.random.default_rng(0)
    queue = rng.integers(0, 30, (4, 4, 2))
    vehicles = {edge: [0, 0] for edge in edges}
    for i, corner in enumerate(ORDER):
        for r in range(4):
            vehicles[beside(corner, (i + r) % 4), corner] = queue[i, r].tolist()
    weight = np.maximum(queue - grid.ahead(queue.astype(np.float32), sumo_ranks.LEFT, sumo_ranks.RIGHT), 0)
    pressure = np.asarray(grid.by_phase(weight))
    for i, corner in enumerate(ORDER):
        found = sumo_ranks.indices(vehicles, corner)
        # Phases of the domain belong to a corner's sides 0 and 2 first, which are east-west at every second corner.
        np.testing.assert_allclose(np.roll(found, 2 * (i % 2)), pressure[i], rtol=1e-5)


def test_trips_follow_the_roads_and_turn_as_stated(tmp_path):
    path = sumo_ranks.trips(tmp_path, (2.0, 1.0), 20_000, 0)
    by_name = {sumo_ranks.name(*edge): edge for edge in links()}
    taken, entries, leaves = {"s": 0, "r": 0, "l": 0}, {0: 0, 1: 0}, ElementTree.parse(path).getroot()
    for vehicle in leaves:
        route = [by_name[word] for word in vehicle[0].attrib["edges"].split()]
        assert route[0][0] not in CORNERS
        assert route[-1][1] not in CORNERS
        entries[int(route[0][0][0] != route[0][1][0])] += 1
        for edge, following in itertools.pairwise(route):
            (turn,) = (turn for turn, to in turns(edge).items() if to == following)
            taken[turn] += 1
    # Four links of each direction, 2000 slots.
    for rate, count in zip((2.0, 1.0), entries.values(), strict=True):
        assert abs(count - 8000 * rate) < 4 * np.sqrt(8000 * rate)
    total = sum(taken.values())
    for turn, share in (("s", 0.64), ("r", 0.16), ("l", 0.2)):
        assert abs(taken[turn] / total - share) < 4 * np.sqrt(share * (1 - share) / total)
    departures = [float(vehicle.attrib["depart"]) for vehicle in leaves]
    assert departures == sorted(departures)


def test_controllers_by_hand():
    rng = np.random.default_rng(0)
    index = np.array([4.0, 5.0, 1.0, 0.0])
    assert [sumo_ranks.CONTROLLERS[name](9, rng, index, 0) for name in ("plan 1:1:1:1", "plan 3:1:3:1")] == [1, 0]
    assert [sumo_ranks.CONTROLLERS[name](9, rng, index, 0) for name in ("h = 0", "h = .3", "h = 1")] == [1, 0, 0]
