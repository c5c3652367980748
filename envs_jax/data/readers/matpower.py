"""The DC part of a MATPOWER case (``.m``, case format version 2): buses, units and their costs, lines.

Of ``mpc.bus`` number, type and Pd are read; of ``mpc.gen`` bus, status and Pmax; of ``mpc.branch`` ends, x, rateA,
ratio, angle and status; of ``mpc.gencost`` polynomials of at most second order. What is out of service, units of no
capacity (condensers) and isolated buses are left out. All else (voltages, reactive power, r, Pmin, ramps, areas,
constant costs, names) has no part in the model and is not looked at.

Source: MATPOWER's manual, appendix B, and ``case14.m`` (file read; manual recalled).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from envs_jax.checks import refusal as field_refusal
from envs_jax.checks import shown, whole_number
from envs_jax.data import ieee14
from envs_jax.data.readers.text import Word, number, refusal, whole

MOST = 10_000
"""Rows of a matrix; number of a bus at most 99 times as many."""
_START = re.compile(r"\s*mpc\.(\w+)\s*=\s*(.*)")


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A connected network in the DC approximation: B buses, L lines, n thermal units.

    Attributes:
      bus: ``i64[B]`` the buses' numbers.
      load: ``f64[B]`` Pd [MW].
      lines: ``i64[L, 2]`` start and end of each line, as positions in ``bus`` from 1.
      reactance: ``f64[L]`` per unit, times the tap ratio of a transformer.
      rating: ``f64[L]`` [MW]; infinite where the file has 0, which is MATPOWER's "unlimited".
      unit_bus: ``i64[n]`` position of each unit's bus, from 1.
      unit_max: ``f64[n]`` Pmax [MW].
      unit_cost: ``f64[n, 2]`` costs ``a P^2 + b P`` $/h: rows ``(a, b)``.
    """

    bus: np.ndarray
    load: np.ndarray
    lines: np.ndarray
    reactance: np.ndarray
    rating: np.ndarray
    unit_bus: np.ndarray
    unit_max: np.ndarray
    unit_cost: np.ndarray

    def places(self, owner: str, buses: Mapping[str, object]) -> tuple[int, ...]:
        """Positions from 1 of buses given by number, each under the name of the argument that gives it.

        Raises:
          ValueError: for a number that no bus has.
        """
        place = {int(bus): i + 1 for i, bus in enumerate(self.bus)}
        found = []
        for field, bus in buses.items():
            number = whole_number(owner, field, bus, 1, int(self.bus.max()))
            if number not in place:
                raise field_refusal(owner, field, f"one of the buses {shown(sorted(place))[1:-1]}", str(number))
            found.append(place[number])
        return tuple(found)


def shipped() -> Case:
    """The IEEE 14-bus network of :mod:`envs_jax.data.ieee14`."""
    return Case(
        bus=np.arange(1, len(ieee14.BUS_LOAD) + 1),
        load=ieee14.BUS_LOAD,
        lines=ieee14.LINES,
        reactance=ieee14.REACTANCE,
        rating=ieee14.RATING,
        unit_bus=ieee14.UNIT_BUS,
        unit_max=ieee14.UNIT_MAX,
        unit_cost=ieee14.UNIT_COST,
    )


def parse(text: str, where: str) -> Case:
    """The DC part of a case from the text of a file.

    Raises:
      ValueError: for a matrix that is missing or cut, rows too short, words; unknown or repeated buses; negative loads,
        capacities or ratings; a line without reactance, a phase shifter, DC lines; costs that are piecewise linear,
        concave, falling or of higher order; no load; too little capacity for it; a network in parts. Named by line.
    """
    values, tables = _fields(text, where)
    if (version := values.get("version")) and version.text.strip("'\"") != "2":
        raise refusal(where, version.line, "mpc.version", "'2'", shown(version.text))
    if "baseMVA" not in values:
        raise refusal(where, 0, "the file", "a MATPOWER case with mpc.baseMVA", "none")
    number(where, values["baseMVA"], "mpc.baseMVA", 0.0, above=True)
    for name in ("bus", "gen", "branch", "gencost"):
        if not tables.get(name):
            raise refusal(where, 0, "the file", f"a MATPOWER case with rows of mpc.{name}", "none")
    if tables.get("dcline"):
        raise refusal(where, tables["dcline"][0][0].line, "mpc.dcline", "empty: DC lines are not modelled", "rows")
    bus, load = _buses(tables["bus"], where)
    place = {name: i + 1 for i, name in enumerate(bus)}
    lines, reactance, rating = _branches(tables["branch"], place, where)
    units, high, cost = _units(tables["gen"], tables["gencost"], place, where)
    case = Case(
        bus=np.array(bus),
        load=np.array(load),
        lines=np.array(lines),
        reactance=np.array(reactance),
        rating=np.array(rating),
        unit_bus=np.array(units),
        unit_max=np.array(high),
        unit_cost=np.array(cost),
    )
    _connected(case, where)
    if case.load.sum() <= 0:
        raise refusal(where, 0, "the sum of Pd", "above 0", "0")
    if case.unit_max.sum() < case.load.sum():
        got = f"{case.unit_max.sum():g} MW for {case.load.sum():g} MW"
        raise refusal(where, 0, "Pmax of all units", "at least the whole load", got)
    return case


def _buses(rows: list[list[Word]], where: str) -> tuple[list[int], list[float]]:
    bus, load = [], []
    for row in rows:
        _long(row, 13, "mpc.bus", where)
        name = whole(where, row[0], "bus number", 1, 99 * MOST)
        kind = whole(where, row[1], f"type of bus {name}", 1, 4)
        if name in bus:
            raise refusal(where, row[0].line, "bus number", "there once", f"{name} again")
        power = number(where, row[2], f"Pd of bus {name}", 0.0)
        if kind != 4:  # isolated
            bus.append(name)
            load.append(power)
    return bus, load


def _branches(
    rows: list[list[Word]], place: dict[int, int], where: str
) -> tuple[list[tuple[int, int]], list[float], list[float]]:
    lines, reactance, rating = [], [], []
    for row in rows:
        _long(row, 11, "mpc.branch", where)
        if not whole(where, row[10], "status of a branch", 0, 1):
            continue
        start, end = (_place(where, word, place, "branch") for word in row[:2])
        of = f"of branch {row[0].text}-{row[1].text}"
        if start == end:
            raise refusal(where, row[0].line, f"ends {of}", "two buses", "one")
        x = number(where, row[3], f"x {of}")
        if x == 0:
            raise refusal(where, row[3].line, f"x {of}", "other than 0", "0")
        limit = number(where, row[5], f"rateA {of}", 0.0)
        tap = number(where, row[8], f"ratio {of}", 0.0)
        if number(where, row[9], f"angle {of}") != 0:
            raise refusal(where, row[9].line, f"angle {of}", "0: phase shifters are not modelled", row[9].text)
        lines.append((start, end))
        reactance.append(x * (tap or 1.0))
        rating.append(limit or math.inf)
    if not lines:
        raise refusal(where, rows[0][0].line, "mpc.branch", "at least one branch in service", "none")
    return lines, reactance, rating


def _units(
    rows: list[list[Word]], costs: list[list[Word]], place: dict[int, int], where: str
) -> tuple[list[int], list[float], list[tuple[float, float]]]:
    if len(costs) not in (len(rows), 2 * len(rows)):  # a second half is of reactive power
        raise refusal(where, costs[0][0].line, "mpc.gencost", f"{len(rows)} rows, one a unit", str(len(costs)))
    units, high, cost = [], [], []
    for row, own in zip(rows, costs, strict=False):
        _long(row, 10, "mpc.gen", where)
        of = f"of the unit at bus {row[0].text}"
        limit = number(where, row[8], f"Pmax {of}", 0.0)
        if number(where, row[7], f"status {of}") <= 0 or limit == 0:
            continue
        units.append(_place(where, row[0], place, "unit"))
        high.append(limit)
        cost.append(_cost(own, of, where))
    if not units:
        raise refusal(where, rows[0][0].line, "mpc.gen", "at least one unit in service with Pmax above 0", "none")
    return units, high, cost


def _cost(row: list[Word], of: str, where: str) -> tuple[float, float]:
    """``(a, b)`` of a polynomial; the constant does not depend on what a unit gives, and is left out."""
    _long(row, 5, "mpc.gencost", where)
    if whole(where, row[0], f"cost model {of}", 1, 2) == 1:
        raise refusal(where, row[0].line, f"cost model {of}", "2 (polynomial)", "1 (piecewise linear)")
    count = whole(where, row[3], f"number of cost coefficients {of}", 1, 9)
    _long(row, 4 + count, "mpc.gencost", where)
    highest = [number(where, word, f"cost coefficient {of}") for word in row[4 : 4 + count]]
    *higher, a, b, _ = [0.0, 0.0, 0.0, *highest]
    if any(higher):
        raise refusal(where, row[4].line, f"cost {of}", "a polynomial of at most second order", row[4].text)
    if a < 0 or b < 0:
        raise refusal(where, row[4].line, f"cost {of}", "of coefficients of 0 or more", f"{a:g} P^2 + {b:g} P")
    return a, b


def _place(where: str, word: Word, place: dict[int, int], what: str) -> int:
    bus = whole(where, word, f"bus of a {what}", 1, 99 * MOST)
    if bus not in place:
        raise refusal(where, word.line, f"bus of a {what}", "one of mpc.bus that is not isolated", str(bus))
    return place[bus]


def _long(row: list[Word], least: int, name: str, where: str) -> None:
    if len(row) < least:
        raise refusal(where, row[0].line, f"a row of {name}", f"at least {least} numbers", str(len(row)))


def _connected(case: Case, where: str) -> None:
    reached, left = {1}, True
    while left:
        more = {int(x) for pair in case.lines for x in pair if reached & set(pair.tolist())} - reached
        reached, left = reached | more, bool(more)
    if missing := sorted(set(range(1, len(case.bus) + 1)) - reached):
        got = f"bus {case.bus[missing[0] - 1]} that no branch in service joins to bus {case.bus[0]}"
        raise refusal(where, 0, "the network", "connected", got)


def _fields(text: str, where: str) -> tuple[dict[str, Word], dict[str, list[list[Word]]]]:
    """``mpc.name = value;`` as words, ``mpc.name = [ ... ];`` as rows of words; other statements are passed over."""
    values: dict[str, Word] = {}
    tables: dict[str, list[list[Word]]] = {}
    rows: list[list[Word]] | None = None
    row: list[Word] = []
    name, closing, begun = "", "]", 0
    for at, line in enumerate(text.splitlines(), 1):
        content = line.split("%", 1)[0]
        if rows is None:
            found = _START.match(content)
            if not found:
                continue
            name, content = found.groups()
            if name in values or name in tables:
                raise refusal(where, at, f"mpc.{name}", "there once", "a second one")
            if content[:1] not in ("[", "{"):
                values[name] = Word(content.rstrip("; \t"), at)
                continue
            closing, begun, content, rows, row = {"[": "]", "{": "}"}[content[0]], at, content[1:], [], []
        inside, end, _ = content.partition(closing)
        continued = inside.rstrip().endswith("...")
        for i, piece in enumerate(inside.replace("...", " ").split(";")):
            if i and row:
                rows.append(row)
                row = []
            row = row + [Word(word, at) for word in piece.replace(",", " ").split()]
        if row and not continued:
            rows.append(row)
            row = []
        if len(rows) > MOST:
            raise refusal(where, at, f"mpc.{name}", f"at most {MOST} rows", "more")
        if end:
            tables[name], rows = rows, None
    if rows is not None:
        raise refusal(where, begun, f"mpc.{name}", f"closed by '{closing}'", "the end of the file")
    return values, tables
