"""Reads what the docstring of a domain's class says of its columns.

The layout, an RST simple table with one line a column and kind of token, units (the scale) in square brackets::

    ======= ============ =======================================
    token   column       quantity
    ======= ============ =======================================
    server  urgency      w_T times the jobs not in service
    server  level        jobs there [8]
    all     progress     share of the episode gone
    ======= ============ =======================================

    Roles: server ``supplier``, the job to be sent ``demand``.

A second table with the header ``action  column  quantity`` describes actions; it may be left out if they have no
private columns. ``cycle_*`` stands for ``cycle_sin`` and ``cycle_cos``, ``private_a, b`` for both.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import NamedTuple

from envs_jax.observation import ACTION_COLUMNS, DERIVED, TOKEN_COLUMNS


class Line(NamedTuple):
    """What a column is of one kind of token or action.

    Attributes:
      kind: of token or action, as the domain calls it.
      column: of the vocabulary.
      quantity: in words.
      unit: the scale in which it is given; empty for shares and flags.
    """

    kind: str
    column: str
    quantity: str
    unit: str


class Documented(NamedTuple):
    """What a class docstring says.

    Attributes:
      tokens: lines of the tokens' table.
      actions: lines of the actions' table; none without one.
      notes: the paragraph that begins with ``Roles:``.
    """

    tokens: list[Line]
    actions: list[Line]
    notes: str

    def columns(self, of: str) -> set[str]:
        """Names of the columns of ``tokens`` or ``actions``."""
        return {line.column for line in getattr(self, of)}


def read(name: str, docstring: str | None) -> Documented:
    """Parses a class docstring.

    Args:
      name: of the domain, for messages.
      docstring: of its class.

    Raises:
      ValueError: naming the domain and the line that is wrong.
    """
    lines = inspect.cleandoc(docstring or "").splitlines()
    tables = {kind: _table(name, lines, kind, known) for kind, known in _TABLES.items()}
    if not tables["token"]:
        raise ValueError(f"{name}: the class docstring has no table with the header 'token  column  quantity'")
    start = next((i for i, line in enumerate(lines) if line.startswith(("Roles:", "Role:"))), None)
    if start is None:
        raise ValueError(f"{name}: the class docstring has no paragraph that begins with 'Roles:'")
    end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
    return Documented(tables["token"], tables["action"], " ".join(line.strip() for line in lines[start:end]))


_TABLES = {"token": TOKEN_COLUMNS, "action": ACTION_COLUMNS}


def _table(name: str, lines: Sequence[str], kind: str, known: Sequence[str]) -> list[Line]:
    """Lines of the one table whose header begins with ``kind``, ``column``, ``quantity``; none without one."""
    headers = [i for i, line in enumerate(lines) if line.split()[:3] == [kind, "column", "quantity"]]
    if not headers:
        return []
    if len(headers) > 1:
        raise ValueError(f"{name}: the class docstring has {len(headers)} tables of {kind}s")
    (header,) = headers
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"=+( +=+){2}", line.strip()) and abs(i - header) >= 1]
    if header - 1 not in rules or header + 1 not in rules:
        raise ValueError(f"{name}: the header of the table of {kind}s does not stand between two lines of three ===")
    end = next((i for i in rules if i > header + 1), None)
    if end is None:
        raise ValueError(f"{name}: the table of {kind}s has no closing line of ===")
    spans = [match.span() for match in re.finditer("=+", lines[header + 1])]
    found: list[Line] = []
    for line in lines[header + 2 : end]:
        what, columns, quantity = (line[a:b].strip() for a, b in (*spans[:2], (spans[2][0], None)))
        if not what and not columns and quantity and found:  # the last line goes on
            found[-1] = _line(found[-1].kind, found[-1].column, f"{_written(found[-1])} {quantity}")
            continue
        if not (what and columns and quantity):
            raise ValueError(f"{name}: this line of the table of {kind}s has an empty cell: {line.strip()!r}")
        for column in _names(columns):
            if column not in known:
                raise ValueError(f"{name}: unknown column {column!r} in this line: {line.strip()!r}")
            if column in DERIVED:
                raise ValueError(f"{name}: {column} means the same everywhere, leave it out: {line.strip()!r}")
            if any((other.kind, other.column) == (what, column) for other in found):
                raise ValueError(f"{name}: {column} of {what} stands in two lines, the second is {line.strip()!r}")
            found.append(_line(what, column, quantity))
    return found


def _names(cell: str) -> list[str]:
    """Columns that a cell names: ``private_a, b`` and ``cycle_*`` are two each."""
    names: list[str] = []
    for part in re.split(r"\s*,\s*", cell.replace("`", "")):
        if part == "cycle_*":
            names += ["cycle_sin", "cycle_cos"]
        elif re.fullmatch("[a-f]", part) and names and names[-1].startswith("private_"):
            names.append(f"private_{part}")
        else:
            names.append(part)
    return names


def _line(kind: str, column: str, quantity: str) -> Line:
    """Takes the unit, in the last square brackets that do not hold an interval, out of a quantity."""
    units = [match for match in re.finditer(r" ?\[([^\[\]]+)\]", quantity) if not _is_interval(match[1])]
    if not units:
        return Line(kind, column, quantity, "")
    unit = units[-1]
    return Line(kind, column, (quantity[: unit.start()] + quantity[unit.end() :]).strip(), unit[1])


def _written(line: Line) -> str:
    return f"{line.quantity} [{line.unit}]" if line.unit else line.quantity


def _is_interval(text: str) -> bool:
    """Whether brackets hold two ends, as in [-10, 10]."""
    return re.fullmatch(r"\s*[-+.\d\w]+\s*,\s*[-+.\d\w]+\s*", text) is not None
