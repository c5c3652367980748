"""Do signal controllers rank in SUMO as in ``smart_city``? ``python -m benchmarks.studies.sumo_ranks``.

Needs SUMO 1.28, which is no dependency of this project: ``uv run --with libsumo --with eclipse-sumo python -m
benchmarks.studies.sumo_ranks``. The domain's 2 x 2 grid with vehicles that follow each other and change lanes: links of
300 m, a through-and-right lane and a left lane, 13.9 m/s, slots of 10 s, a switch takes 4 s of yellow. Controllers see
the number of vehicles on every lane. Printed is the mean number of vehicles on the roads or waiting to enter, driving
ones included: levels are not comparable with the model's mean queues, the order of controllers is.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import command

LINK, SLOT, CHANGE = 300, 10, 4  # m; s; s
LEFT, RIGHT = 0.2, 0.2  # share of all who turn left; of the through lane who turn right
SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))  # N, E, S, W
CORNERS = {(0, 1), (1, 1), (1, 0), (0, 0)}
DEMANDS = ((1.0, 1.0), (1.8, 1.2))  # vehicles a slot on every outer link, north-south and east-west
PLAN = (0, 0, 0, 1, 2, 2, 2, 3)


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      seconds: of an episode, from empty roads.
      seeds: episodes of each controller; all controllers meet the same vehicles.
    """

    seconds: int = 2000
    seeds: int = 2

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 1, 10**6, "seconds")
        command.check_range(self, 1, 1000, "seeds")


Place = tuple[int, int]
Edge = tuple[Place, Place]


def name(*places: Place) -> str:
    """Of a node, or of the link between two."""
    return "_".join(f"{x + 1}{y + 1}" for x, y in places)


def beside(place: Place, side: int) -> Place:
    """The next crossing or outer end in the direction of a side."""
    return place[0] + SIDES[side][0], place[1] + SIDES[side][1]


def links() -> list[Edge]:
    """All links, both ways."""
    inner = [(beside(corner, side), corner) for corner in sorted(CORNERS) for side in range(4)]
    return inner + [(b, a) for a, b in inner if a not in CORNERS]


def turns(edge: Edge) -> dict[str, Edge]:
    """Where a link leads: straight ``s``, right ``r`` and left ``l``."""
    (x, y), here = edge
    came = SIDES.index((x - here[0], y - here[1]))
    return {turn: (here, beside(here, (came + step) % 4)) for turn, step in (("s", 2), ("r", 3), ("l", 1))}


def build(folder: pathlib.Path) -> None:
    """Writes the net."""
    import sumo  # the package eclipse-sumo: SUMO's programs

    nodes, edges, connections = (ElementTree.Element(tag) for tag in ("nodes", "edges", "connections"))
    for x, y in sorted({place for edge in links() for place in edge}):
        kind = "traffic_light" if (x, y) in CORNERS else "priority"
        ElementTree.SubElement(nodes, "node", id=name((x, y)), x=str(LINK * x), y=str(LINK * y), type=kind)
    for edge in links():
        ends = {"from": name(edge[0]), "to": name(edge[1])}
        ElementTree.SubElement(edges, "edge", {"id": name(*edge), **ends, "numLanes": "2", "speed": "13.9"})
        for turn, target in turns(edge).items() if edge[1] in CORNERS else ():
            lane = "1" if turn == "l" else "0"
            pair = {"from": name(*edge), "to": name(*target), "fromLane": lane, "toLane": lane}
            ElementTree.SubElement(connections, "connection", pair)
    arguments = [f"{sumo.SUMO_HOME}/bin/netconvert", "-o", str(folder / "grid.net.xml"), "--no-turnarounds", "true"]
    for flag, root in (("-n", nodes), ("-e", edges), ("-x", connections)):
        path = folder / f"grid{flag}.xml"
        ElementTree.ElementTree(root).write(path)
        arguments += [flag, str(path)]
    subprocess.run(arguments, check=True, capture_output=True)


def trips(folder: pathlib.Path, demand: tuple[float, float], seconds: int, seed: int) -> pathlib.Path:
    """Writes Poisson arrivals on the outer links, each vehicle turning at random until it leaves."""
    rng = np.random.default_rng(seed)
    entries = []
    for edge in links():
        if edge[0] not in CORNERS:
            rate = demand[0] if edge[0][0] == edge[1][0] else demand[1]
            entries += [(t, edge) for t in rng.uniform(0, seconds, rng.poisson(rate * seconds / SLOT))]
    root = ElementTree.Element("routes")
    chances = {"s": (1 - LEFT) * (1 - RIGHT), "r": (1 - LEFT) * RIGHT, "l": LEFT}
    for number, (t, edge) in enumerate(sorted(entries)):
        route = [edge]
        while route[-1][1] in CORNERS:
            route.append(turns(route[-1])[rng.choice(list(chances), p=list(chances.values()))])
        start = {"depart": f"{t:.2f}", "departLane": "best", "departSpeed": "max"}
        vehicle = ElementTree.SubElement(root, "vehicle", {"id": str(number), **start})
        ElementTree.SubElement(vehicle, "route", edges=" ".join(name(*e) for e in route))
    ElementTree.ElementTree(root).write(folder / "trips.xml")
    return folder / "trips.xml"


Controller = Callable[[int, np.random.Generator, np.ndarray, int], int]
"""Slot, random numbers, pressure of the four phases, phase that is green -> phase."""


def held(index: np.ndarray, green: int, hysteresis: float) -> int:
    """Max-pressure that switches if another phase has more than ``1 + h`` times the pressure."""
    return int(index.argmax()) if index.max() > (1 + hysteresis) * index[green] else green


CONTROLLERS: dict[str, Controller] = {
    "random": lambda slot, rng, index, green: int(rng.integers(4)),
    "plan 1:1:1:1": lambda slot, rng, index, green: slot % 4,
    "plan 3:1:3:1": lambda slot, rng, index, green: PLAN[slot % 8],
    "h = 0": lambda slot, rng, index, green: held(index, green, 0.0),
    "h = .3": lambda slot, rng, index, green: held(index, green, 0.3),
    "h = 1": lambda slot, rng, index, green: held(index, green, 1.0),
}


def indices(vehicles: dict[Edge, list[int]], corner: Place) -> np.ndarray:
    """Pressure of a crossing's four phases from the vehicles on both lanes of every link."""

    def ahead(edge: Edge) -> float:
        through, left = vehicles[edge]
        return (1 - LEFT) * through + LEFT * left if edge[1] in CORNERS else 0.0

    index = np.zeros(4)
    for side in range(4):
        edge = (beside(corner, side), corner)
        to, (through, left) = turns(edge), vehicles[edge]
        index[2 * (side % 2)] += max(through - (1 - RIGHT) * ahead(to["s"]) - RIGHT * ahead(to["r"]), 0.0)
        index[2 * (side % 2) + 1] += max(left - ahead(to["l"]), 0.0)
    return index


def simulate(folder: pathlib.Path, routes: pathlib.Path, controller: Controller, seconds: int, seed: int) -> float:
    """Mean number of vehicles on the roads or waiting to enter."""
    import libsumo

    simulator: Any = libsumo
    options = ["--seed", str(seed), "--no-warnings", "--no-step-log", "--time-to-teleport", "-1"]
    simulator.start(["sumo", "-n", str(folder / "grid.net.xml"), "-r", str(routes), *options])
    rng = np.random.default_rng(seed)
    corners, edges = sorted(CORNERS), links()
    ways = {name(*edge): edge for edge in edges}
    # Of every signal of a crossing: 0, 1 north-south through, left; 2, 3 east-west.
    phase_of: dict[Place, list[int]] = {}
    for corner in corners:
        incoming = [link[0][0].rsplit("_", 1) for link in simulator.trafficlight.getControlledLinks(name(corner))]
        phase_of[corner] = [2 * (ways[edge][0][0] != ways[edge][1][0]) + int(lane) for edge, lane in incoming]
    count, green, total = simulator.lane.getLastStepVehicleNumber, dict.fromkeys(corners, 0), 0.0
    for slot in range(seconds // SLOT):
        vehicles = {e: [count(f"{name(*e)}_{lane}") for lane in (0, 1)] for e in edges}
        before = dict(green)
        for corner in corners:
            green[corner] = controller(slot, rng, indices(vehicles, corner), green[corner])
        for second in range(SLOT):
            for corner in corners:
                old, new = before[corner], green[corner]
                changing = old != new and second < CHANGE
                lights = {old: "y"} if changing else {new: "G"}
                state = "".join(lights.get(phase, "r") for phase in phase_of[corner])
                simulator.trafficlight.setRedYellowGreenState(name(corner), state)
            simulator.simulationStep()
            total += simulator.vehicle.getIDCount() + len(simulator.simulation.getPendingVehicles())
    simulator.close()
    return total / (seconds // SLOT * SLOT)


def main() -> None:
    """Command line."""
    import importlib.util

    config = command.parse(Config, __doc__)
    if importlib.util.find_spec("libsumo") is None or importlib.util.find_spec("sumo") is None:
        command.refuse(
            "this study needs SUMO: uv run --with libsumo --with eclipse-sumo python -m benchmarks.studies.sumo_ranks"
        )
    print(f"| demand NS, EW | seed | {' | '.join(CONTROLLERS)} |\n|---|---|{'---:|' * len(CONTROLLERS)}")
    with tempfile.TemporaryDirectory() as path:
        folder = pathlib.Path(path)
        build(folder)
        for demand, seed in itertools.product(DEMANDS, range(config.seeds)):
            routes = trips(folder, demand, config.seconds, seed)
            means = [simulate(folder, routes, c, config.seconds, seed) for c in CONTROLLERS.values()]
            cells = " | ".join(f"{mean:.1f}" for mean in means)
            print(f"| {demand[0]}, {demand[1]} | {seed} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
