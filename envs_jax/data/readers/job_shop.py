"""Job-shop instances as text, in either of the two forms that are exchanged.

*Standard* (JSPLIB, OR-Library): a line ``jobs machines``, then a line a job of pairs ``machine time`` in the order of
its route, machines counted from 0. *Taillard's*: ``jobs machines`` (seeds and bounds may follow on that line), the word
``Times``, a row of times a job, the word ``Machines``, a row of machines a job counted from 1. Lines before the first
that begins with a number, as in ``Nb of jobs, Nb of Machines, Time seed, ...``, and what follows ``#`` are comments.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from envs_jax.checks import shown
from envs_jax.data.readers.text import Word, Words, lines_of, refusal, whole

MOST = 1000
"""Jobs or machines."""
LONGEST = 10**6
"""Of an operation."""


@dataclasses.dataclass(frozen=True, eq=False)
class JobShop:
    """An instance of J jobs that visit each of M machines once.

    Attributes:
      route: ``i64[J, M]`` machines from 0 in the order of each job's route.
      minutes: ``f64[J, M]`` times in the same order, above 0.
    """

    route: np.ndarray
    minutes: np.ndarray


def parse(text: str, where: str) -> JobShop:
    """An instance from the text of a file, in either form.

    Raises:
      ValueError: for missing or further numbers, words, times that are not above 0, machines that do not exist or that
        a job visits twice; named by line and job.
    """
    lines = list(itertools.dropwhile(lambda line: not line[1][0][0].isdigit(), lines_of(text)))
    if not lines:
        raise refusal(where, 1, "the file", "'jobs machines' and a row a job", "nothing of that")
    marks = {words[0].lower().rstrip(":"): i for i, (_, words) in enumerate(lines) if _mark(words)}
    if marks:
        return _taillard(lines, marks, where)
    (at, size), rows = lines[0], lines[1:]
    jobs, machines = _sizes(where, at, size)
    _count(where, at, len(size), 2, "the line of jobs and machines", "numbers")
    table = np.zeros((jobs, 2 * machines))
    _rows(where, at, rows, jobs)
    for job, (at, row) in enumerate(rows):
        _count(where, at, len(row), 2 * machines, f"job {job}", "numbers, a machine and a time for each operation")
        words = Words(where, [(at, row)])
        for k in range(machines):
            table[job, 2 * k] = words.take_whole(f"machine of job {job}, operation {k}", 0, machines - 1)
            table[job, 2 * k + 1] = words.take(f"time of job {job}, operation {k}", 0.0, LONGEST, above=True)
        _once(where, at, job, table[job, ::2], 0)
    return JobShop(table[:, ::2].astype(int), table[:, 1::2])


def _taillard(lines: list[tuple[int, list[str]]], marks: dict[str, int], where: str) -> JobShop:
    """The form of two matrices."""
    if set(marks) != {"times", "machines"} or marks["times"] > marks["machines"]:
        got = ", ".join(sorted(marks, key=marks.__getitem__))
        raise refusal(where, lines[-1][0], "the parts of the file", "'jobs machines', Times, Machines", got)
    (at, size), first, second = lines[0], marks["times"], marks["machines"]
    jobs, machines = _sizes(where, at, size)
    if first > 1:
        raise refusal(where, lines[1][0], "the line after jobs and machines", "Times", shown(" ".join(lines[1][1])))
    parts = []
    for mark, rows, what in ((first, lines[first + 1 : second], "times"), (second, lines[second + 1 :], "machines")):
        _rows(where, lines[mark][0], rows, jobs)
        part = np.zeros((jobs, machines))
        for job, (at, row) in enumerate(rows):
            _count(where, at, len(row), machines, f"{what} of job {job}", "numbers, one an operation")
            words = Words(where, [(at, row)])
            for k in range(machines):
                if what == "times":
                    part[job, k] = words.take(f"time of job {job}, operation {k}", 0.0, LONGEST, above=True)
                else:
                    part[job, k] = words.take_whole(f"machine of job {job}, operation {k}", 1, machines)
            if what == "machines":
                _once(where, at, job, part[job], 1)
        parts.append(part)
    return JobShop(parts[1].astype(int) - 1, parts[0])


def _mark(words: list[str]) -> bool:
    return len(words) == 1 and words[0].lower().rstrip(":") in ("times", "machines")


def _sizes(where: str, at: int, size: list[str]) -> tuple[int, int]:
    if len(size) < 2:
        raise refusal(where, at, "the first line", "the numbers of jobs and of machines", shown(" ".join(size)))
    jobs, machines = (
        whole(where, Word(text, at), f"number of {what}", 1, MOST)
        for text, what in zip(size[:2], ("jobs", "machines"), strict=True)
    )
    return jobs, machines


def _count(where: str, at: int, got: int, wanted: int, what: str, kind: str) -> None:
    if got != wanted:
        raise refusal(where, at, what, f"{wanted} {kind}", str(got))


def _rows(where: str, at: int, rows: list[tuple[int, list[str]]], jobs: int) -> None:
    if len(rows) != jobs:
        last = rows[-1][0] if rows else at
        raise refusal(where, last, "the table", f"{jobs} rows, one a job", f"{len(rows)}")


def _once(where: str, at: int, job: int, machines: np.ndarray, first: int) -> None:
    if (np.sort(machines) != np.arange(first, first + len(machines))).any():
        raise refusal(where, at, f"job {job}", "on every machine once", str(machines.astype(int).tolist()))
