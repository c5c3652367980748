"""Topologies of MARO's Container Inventory Management (``config.yml`` of the scenario ``cim``).

Read are ``total_containers``, ``container_usage_proportion``, the two cost factors, and of every port, route and vessel
what :class:`Topology` holds. ``seed``, ``stop_number`` and a port's ``capacity`` have no part in the model and are not
looked at. What the model cannot play is refused: services that are not weekly, noise of times and destinations.

Source: microsoft/maro (MIT licence): ``maro/data_lib/cim``, parsers and generator (read).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from envs_jax.checks import near, shown
from envs_jax.data import cim
from envs_jax.data.readers.text import Word, number, refusal, whole

SAILING, PARKING = 6, 1
"""Days of a leg and of a call: services are weekly."""
TOKENS, LARGEST_TABLE = 32, 2**22
"""Of an observation: one a port, one a vessel, one the clock. Entries of the timetable: weeks x lanes x lanes."""
LONGEST_DELAY = 3
"""Days at a shipper or consignee."""


@dataclasses.dataclass(frozen=True, eq=False)
class Topology:
    """A network of weekly services and its trade: P ports, V vessels.

    Attributes:
      network: ports, routes, vessels, capacities (both levels alike), shares and lanes.
      containers: in all.
      orders: ``f64[112]`` containers ordered on each day of the season.
      order_noise: nu_0, largest deviation of the orders relative to their mean, in [0, 1].
      source_noise: ``f64[P]`` nu, the same of each port's share.
      move_cost: of loading or discharging a container [served orders].
      shipper_days: ``f64[P]`` until a port's shippers return containers full, 1 to 3.
      consignee_days: ``f64[P]`` until its consignees return them empty, 1 to 3.
    """

    network: cim.Network
    containers: int
    orders: np.ndarray
    order_noise: float
    source_noise: np.ndarray
    move_cost: float
    shipper_days: np.ndarray
    consignee_days: np.ndarray


def shipped(name: str, season: bool) -> Topology:
    """A network of :data:`envs_jax.data.cim.NETWORKS` with level 0.0's noise (none) and delays (a day)."""
    network = cim.NETWORKS[name]
    days = np.ones(len(network.ports))
    return Topology(network, cim.CONTAINERS, cim.orders(season), 0.0, 0.0 * days, 0.05, days, days)


def parse(text: str, where: str) -> Topology:
    """A topology from the text of a file.

    Raises:
      ValueError: for what is no YAML, keys that are missing or there twice, words, ports and routes that do not exist,
        shares that do not add up to 1, and what the model cannot play (see the module). Named by line and key.
    """
    file = _Reader(where).mapping(text)
    mode = file.get("order_generate_mode")
    if mode is not None and mode.text() != "fixed":
        raise mode.refusal("'fixed'", mode.text())
    if (volumes := file.get("container_volumes")) is not None:
        sizes = volumes.items_of()
        if len(sizes) != 1 or sizes[0].number(0.0) != 1:
            raise volumes.refusal("[1]: one size of container", f"{len(sizes)} entries")
    containers = file["total_containers"].whole(1, 2**24)
    orders, order_noise = _usage(file["container_usage_proportion"], containers)
    load, discharge = (file[f"{name}_cost_factor"].number(0.0, 100.0) for name in ("load", "dsch"))
    if load != discharge:
        raise file["dsch_cost_factor"].refusal(f"load_cost_factor, {load:g}: the model has one cost", f"{discharge:g}")
    ports = file["ports"].entries()
    names = tuple(ports)
    routes = {name: _route(entry, names) for name, entry in file["routes"].entries().items()}
    _apart(routes, names, file["routes"])
    vessels, capacity = _vessels(file["vessels"], file["routes"], routes, names)
    start = _shares(
        [port["initial_container_proportion"] for port in ports.values()], file["ports"], "initial_container_proportion"
    )
    sources = [port["order_distribution"]["source"] for port in ports.values()]
    source = _shares([entry["proportion"] for entry in sources], file["ports"], "order_distribution.source.proportion")
    noise = np.array([_noise(entry, share) for entry, share in zip(sources, source, strict=True)])
    return Topology(
        network=cim.Network(
            ports=names,
            routes=tuple(routes.values()),
            vessels=vessels,
            capacity=(capacity, capacity),
            start=start,
            source=source,
            lanes=_lanes(ports, source, tuple(routes.values())),
        ),
        containers=containers,
        orders=orders,
        order_noise=order_noise,
        source_noise=noise,
        move_cost=load,
        shipper_days=np.array([_delay(port["full_return"]) for port in ports.values()]),
        consignee_days=np.array([_delay(port["empty_return"]) for port in ports.values()]),
    )


def read(text: str, where: str) -> Topology:
    """:func:`parse`, of what the domain can play.

    Raises:
      ValueError: for more ports and vessels than an observation has tokens for, routes so different in length that
        their common timetable is too long.
    """
    topology = parse(text, where)
    ports, vessels = len(topology.network.ports), len(topology.network.vessels)
    if ports + vessels + 1 > TOKENS:
        raise refusal(where, 0, "ports + vessels", f"at most {TOKENS - 1}", f"{ports} + {vessels}")
    lengths = list(map(len, topology.network.routes))
    lanes = sum(n * (n - 1) for n in lengths)
    if (entries := math.lcm(*lengths) * lanes**2) > LARGEST_TABLE:
        allowed = f"of lengths whose common timetable has at most {LARGEST_TABLE} entries"
        raise refusal(where, 0, "routes", allowed, f"{', '.join(map(str, lengths))} stops: {entries}")
    return topology


def _usage(usage: _Entry, containers: int) -> tuple[np.ndarray, float]:
    """Orders by day ``f64[112]`` and their relative noise."""
    period = usage["period"].whole(1, cim.SEASON_DAYS)
    if cim.SEASON_DAYS % period:
        raise usage["period"].refusal(f"a divisor of the season's {cim.SEASON_DAYS} days", str(period))
    days: list[int] = []
    shares: list[float] = []
    for node in usage["sample_nodes"].items_of():
        pair = node.items_of()
        if len(pair) != 2:
            raise node.refusal("a day and a share", f"{len(pair)} values")
        days.append(pair[0].whole(days[-1] + 1 if days else 0, period - 1))
        shares.append(pair[1].number(0.0, 1.0))
    if not days:
        raise usage["sample_nodes"].refusal("at least one day and share", "none")
    # As the source does: 0 at either end of the period, if it is not said.
    if days[0] != 0:
        days, shares = [0, *days], [0.0, *shares]
    if days[-1] != period - 1:
        days, shares = [*days, period - 1], [*shares, 0.0]
    share = np.interp(np.arange(cim.SEASON_DAYS) % period, days, shares)
    noise = usage["sample_noise"].number(0.0, 1.0)
    if noise > 0 and np.ptp(share) > 0:
        got = f"{noise:g} with shares from {share.min():g} to {share.max():g}"
        raise usage["sample_noise"].refusal("0 where orders vary by day: the model's noise is relative", got)
    if noise > share[0]:
        raise usage["sample_noise"].refusal(f"at most the share itself, {share[0]:g}", f"{noise:g}")
    return share * containers, noise / share[0] if noise else 0.0


def _route(entry: _Entry, names: tuple[str, ...]) -> tuple[int, ...]:
    stops = entry.items_of()
    calls = tuple(stop["port_name"].one_of(names, "a port") for stop in stops)
    if len(calls) < 2:
        raise entry.refusal("at least two stops", str(len(calls)))
    return calls


def _apart(routes: dict[str, tuple[int, ...]], names: tuple[str, ...], entry: _Entry) -> None:
    """Full containers must have one way: no route calls twice at a port, no two routes share two ports."""
    seen: dict[frozenset[int], str] = {}
    for name, calls in routes.items():
        if len(set(calls)) < len(calls):
            raise entry[name].refusal("of ports that are called at once a round", ", ".join(names[i] for i in calls))
        for pair in {frozenset((i, j)) for i in calls for j in calls if i != j}:
            if pair in seen:
                both = " and ".join(names[i] for i in sorted(pair))
                raise entry[name].refusal("of ports of which no other route has two", f"{both}, as in {seen[pair]}")
            seen[pair] = name


def _vessels(
    vessels: _Entry, routes: _Entry, calls: dict[str, tuple[int, ...]], names: tuple[str, ...]
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """``(route, first call)`` and capacity of each vessel, all of which call on the same day of the week."""
    found, capacity = [], []
    for vessel in vessels.entries().values():
        route = vessel["route"]["route_name"].one_of(tuple(calls), "a route")
        name = tuple(calls)[route]
        first = vessel["route"]["initial_port_name"].one_of(names, "a port")
        if first not in calls[name]:
            raise vessel["route"]["initial_port_name"].refusal(f"a port of {name}", names[first])
        stay, sail = vessel["parking"], vessel["sailing"]
        for part in (stay, sail):
            part["noise"].exactly(0, "times are not random in the model")
        stay["duration"].exactly(PARKING, "services are weekly: a day in port and six at sea")
        speed = sail["speed"].number(0.0, above=True)
        for stop in routes[name].items_of():
            distance = stop["distance_to_next_port"]
            days = math.ceil(distance.number(0.0, above=True) / speed)
            if days != SAILING:
                allowed = f"sailed in {SAILING} days (services are weekly: a day in port and six at sea)"
                raise distance.refusal(allowed, f"{days} days at speed {speed:g}")
        found.append((route, calls[name].index(first)))
        capacity.append(vessel["capacity"].whole(1, 2**24))
    if not found:
        raise vessels.refusal("at least one vessel", "none")
    return tuple(found), tuple(capacity)


def _shares(entries: Iterable[_Entry], ports: _Entry, what: str) -> tuple[float, ...]:
    shares = tuple(entry.number(0.0, 1.0) for entry in entries)
    if abs(sum(shares) - 1.0) > 1e-6:
        raise ports.refusal(f"of {what} that adds up to 1", f"a sum of {sum(shares):g}")
    return shares


def _noise(entry: _Entry, share: float) -> float:
    noise = entry["noise"].number(0.0, 1.0)
    if noise > share:
        raise entry["noise"].refusal(f"at most the proportion, {share:g}", f"{noise:g}")
    return noise / share if noise else 0.0


def _delay(entry: _Entry) -> int:
    entry["noise"].exactly(0, "times are not random in the model")
    return entry["buffer_ticks"].whole(1, LONGEST_DELAY)


def _lanes(
    ports: dict[str, _Entry], source: tuple[float, ...], routes: tuple[tuple[int, ...], ...]
) -> dict[tuple[int, int], float]:
    lanes = {}
    for i, port in enumerate(ports.values()):
        trade = port["order_distribution"]
        targets = trade.get("targets")
        entries = targets.entries() if targets is not None else {}
        for entry in entries.values():
            j = entry.key.one_of(tuple(ports), "a port")
            entry["noise"].exactly(0, "destinations are not random in the model")
            if not any(i in calls and j in calls for calls in routes) or i == j:
                raise entry.key.refusal("a port that a route joins to this one", entry.key.text())
            lanes[i, j] = entry["proportion"].number(0.0, 1.0)
        shares = sum(share for (start, _), share in lanes.items() if start == i)
        if (source[i] > 0 or entries) and abs(shares - 1.0) > 1e-6:
            raise trade.refusal("of targets whose proportions add up to 1", f"a sum of {shares:g}")
    return lanes


class _Entry:
    """A value of the file with the keys that lead to it and its line."""

    def __init__(self, reader: _Reader, node: Any, path: str, key: _Entry | None = None) -> None:
        self.reader, self.node, self.path, self._key = reader, node, path or "the file", key
        self._within = f"{path}." if path else ""

    @property
    def line(self) -> int:
        return self.node.start_mark.line + 1

    @property
    def key(self) -> _Entry:
        """The key under which this stands."""
        assert self._key is not None
        return self._key

    def refusal(self, allowed: str, got: str) -> ValueError:
        return refusal(self.reader.where, self.line, self.path, allowed, got)

    def _value(self, kind: str, name: str) -> Any:
        if self.node.id != kind:
            kinds = {"scalar": "one value", "sequence": "a list", "mapping": "keys and values"}
            raise self.refusal(name, kinds[self.node.id])
        return self.node.value

    def text(self) -> str:
        return self._value("scalar", "one value")

    def number(self, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
        return number(self.reader.where, Word(self.text(), self.line), self.path, low, high, above=above)

    def whole(self, low: int, high: int) -> int:
        return whole(self.reader.where, Word(self.text(), self.line), self.path, low, high)

    def exactly(self, value: float, why: str) -> None:
        if self.number() != value:
            raise self.refusal(f"{value:g} ({why})", self.text())

    def one_of(self, names: tuple[str, ...], what: str) -> int:
        """Position among names."""
        name = self.text()
        if name not in names:
            raise self.refusal(f"{what} of the file", shown(name) + near(name, names))
        return names.index(name)

    def items_of(self) -> list[_Entry]:
        """Entries of a list."""
        items = self._value("sequence", "a list")
        return [self.reader.entry(node, f"{self.path}[{i}]") for i, node in enumerate(items)]

    def entries(self) -> dict[str, _Entry]:
        """Values by key."""
        found: dict[str, _Entry] = {}
        for key, node in self._value("mapping", "keys and values"):
            named = self.reader.entry(key, f"a key of {self.path}")
            name = named.text()
            path = self._within + name
            if name in found:
                raise refusal(self.reader.where, named.line, path, "there once", "a second one")
            found[name] = self.reader.entry(node, path, named)
        return found

    def get(self, key: str) -> _Entry | None:
        return self.entries().get(key)

    def __getitem__(self, key: str) -> _Entry:
        found = self.entries()
        if key not in found:
            got = f"{', '.join(found) or 'nothing'}{near(key, found)}"
            raise self.refusal(f"keys and values with {key!r}", got if len(got) < 160 else got[:157] + "...")
        return found[key]


class _Reader:
    """Nodes of a YAML file as entries."""

    def __init__(self, where: str) -> None:
        self.where = where

    def mapping(self, text: str) -> _Entry:
        """The file as a whole.

        Raises:
          ValueError: if it is no YAML or holds no keys.
        """
        import yaml  # slow, and of no other reader

        try:
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):  # one that refers to itself would never end
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    raise refusal(self.where, line, "a value", "written out", "an alias (*name)")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            problem = getattr(error, "problem", None) or "cannot be read"
            raise refusal(self.where, mark.line + 1 if mark else 1, "the file", "YAML", str(problem)) from error
        except RecursionError as error:
            raise refusal(self.where, 1, "the file", "YAML", "lists and keys that are nested too deeply") from error
        if node is None or node.id != "mapping":
            raise refusal(self.where, 1, "the file", "keys and values of a topology", "none")
        return _Entry(self, node, "")

    def entry(self, node: Any, path: str, key: _Entry | None = None) -> _Entry:
        return _Entry(self, node, path, key)
