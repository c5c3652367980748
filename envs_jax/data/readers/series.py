"""Series and tables of numbers as CSV: prices, loads, demands.

Lines of values between commas (or semicolons, or white space, as the file's first line has them). A first line whose
values are no numbers names the columns; lines that begin with ``#`` are comments. Of several columns the last is the
series, the others say when and are not read; :func:`parse_table` reads all.
"""

from __future__ import annotations

import csv
import math

import numpy as np

from envs_jax.checks import shown
from envs_jax.data.readers.text import Word, number, refusal

MOST, LARGEST_COUNT = 100_000, 127
"""Rows; units asked for in a period, more of which a table of demand cannot hold."""


def parse(
    text: str, where: str, *, low: float = -math.inf, high: float = math.inf, whole: bool = False, rows: int = 1
) -> np.ndarray:
    """The last column of a CSV, ``f64[rows]``.

    Args:
      text: of the file.
      where: begins refusals.
      low: least value allowed.
      high: largest value allowed.
      whole: whether values must be whole.
      rows: at least as many are needed.

    Raises:
      ValueError: for words, missing values, rows of different lengths, values out of bounds, too few or too many rows;
        named by line.
    """
    names, lines = _cells(text, where)
    if not rows <= len(lines) <= MOST:
        raise refusal(where, 0, "the series", f"{rows} to {MOST} rows of numbers", str(len(lines)))
    name = names[-1] if names else f"column {len(lines[0][1])}"
    values = [number(where, Word(cells[-1], at), name, low, high, whole=whole) for at, cells in lines]
    return np.array(values)


def parse_counts(text: str, where: str) -> np.ndarray:
    """Units asked for by period, ``i64[periods]``: whole numbers from 0 to :data:`LARGEST_COUNT`, not all alike.

    Raises:
      ValueError: as :func:`parse`; for a constant series, of which no law can be made.
    """
    counts = parse(text, where, low=0.0, high=LARGEST_COUNT, whole=True, rows=2).astype(int)
    if np.ptp(counts) == 0:
        raise refusal(where, 0, "the series", "of at least two different numbers", f"{counts[0]} always")
    return counts


def parse_prices(text: str, where: str) -> np.ndarray:
    """Hourly prices ``f64[hours]`` [$/MWh], which may be negative.

    Raises:
      ValueError: as :func:`parse`; for a mean beyond 5 to 10000, around which bids of whole $ could not be told apart.
    """
    prices = parse(text, where, low=-1e5, high=1e5, rows=2)
    if not 5.0 <= prices.mean() <= 1e4:
        raise refusal(where, 0, "the mean price", "from 5 to 10000 $/MWh", f"{prices.mean():g}")
    return prices


def parse_days(text: str, where: str) -> np.ndarray:
    """Mean by hour of the day, ``f64[24]``, of a series of hours that begins at midnight: whole days, not all 0.

    Raises:
      ValueError: as :func:`parse`; for negative values, hours that are no whole days.
    """
    hours = parse(text, where, low=0.0, rows=24)
    if len(hours) % 24:
        raise refusal(where, 0, "the series", "of whole days, a multiple of 24 rows", str(len(hours)))
    if not hours.any():
        raise refusal(where, 0, "the series", "above 0 at least once", "0 always")
    return hours.reshape(-1, 24).mean(0)


def parse_table(text: str, where: str, columns: dict[str, tuple[float, float, bool]]) -> dict[str, np.ndarray]:
    """Named columns of a CSV, each ``f64[rows]``, in any order beside others.

    Args:
      text: of the file, whose first line names the columns.
      where: begins refusals.
      columns: name -> least value, largest value, whether values must be whole.

    Raises:
      ValueError: as :func:`parse`; for a column that is missing or there twice.
    """
    names, lines = _cells(text, where)
    for name in columns:
        if names.count(name) != 1:
            got = ", ".join(names) or "no line of names"
            raise refusal(where, 1, "the first line", f"names of columns with {name} once", shown(got))
    if not 1 <= len(lines) <= MOST:
        raise refusal(where, 0, "the table", f"1 to {MOST} rows of numbers", str(len(lines)))
    return {
        name: np.array(
            [number(where, Word(cells[names.index(name)], at), name, low, high, whole=whole) for at, cells in lines]
        )
        for name, (low, high, whole) in columns.items()
    }


def _cells(text: str, where: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, if there are any, and the other lines' number and cells, equally many on each."""
    lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip() and line.lstrip()[0] != "#"]
    first = lines[0][1] if lines else ""
    mark = next((mark for mark in ",;\t" if mark in first), None)
    rows = [(at, _split(line, mark)) for at, line in lines]
    names: list[str] = []
    if rows and not any(_is_number(cell) for cell in rows[0][1]):
        names = rows.pop(0)[1]
    width = len(names) or (len(rows[0][1]) if rows else 0)
    for at, cells in rows:
        if len(cells) != width:
            raise refusal(where, at, "the row", f"{width} values, as in the first", str(len(cells)))
    return names, rows


def _split(line: str, mark: str | None) -> list[str]:
    cells = line.split() if mark is None else next(csv.reader([line], delimiter=mark))
    return [cell.strip() for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
