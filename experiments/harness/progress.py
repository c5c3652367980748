"""What a run shows while it works: phase, rates and time left; a bar on a terminal, else a line every ten seconds.

A ticker thread repeats the state of the moment, so that a long compilation does not look like a hang.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

PLAIN_SECONDS = 10.0
Kind = tuple[Hashable, ...]


def duration(seconds: float) -> str:
    """``7 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Work:
    """What is left to do, by kind, and from what each kind has cost so far, how long it will take.

    Work is timed per (phase, learner, stage): a second-order iteration costs several times one without inner steps.
    """

    def __init__(self) -> None:
        self._left: dict[str, Counter[Kind]] = {}
        self._seconds: dict[Kind, float] = {}
        self._done: Counter[Kind] = Counter()

    def plan(self, part: str, left: Mapping[Kind, int]) -> None:
        """States what is left of a part of the run."""
        self._left[part] = Counter(left)

    def measured(self, kind: Kind, count: int, seconds: float) -> None:
        """Tells what a kind has cost."""
        self._done[kind] += count
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def seconds_left(self) -> float | None:
        """Estimate; None before the first iteration. A kind not met yet is taken for the dearest met of its sort."""
        cost = {kind: self._seconds[kind] / count for kind, count in self._done.items() if count}
        dearest: dict[Hashable, float] = {}
        for (sort, *_), seconds in cost.items():
            dearest[sort] = max(seconds, dearest.get(sort, 0.0))
        if "iteration" not in dearest:
            return None
        left: Counter[Kind] = sum(self._left.values(), Counter())
        return sum(count * cost.get(kind, dearest.get(kind[0], 0.0)) for kind, count in left.items())


class Display:
    """Shows the state of a run; use as a context manager.

    Args:
      total: units of work, for the bar.
      console: where to.
    """

    def __init__(self, total: int, console: Console):
        self.console = console
        self.total = total
        self.work = Work()
        self._start = self._since = time.monotonic()
        self._state, self._phase = "starting", ""
        self._done = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task(self._state, total=self.total)
            self._bar.start()
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._ticker.join()
        if self._bar is not None:
            self._bar.stop()

    def state(self, phase: str, detail: str = "") -> None:
        """What is going on now."""
        if phase != self._phase:
            self._since = time.monotonic()
        self._phase, self._state = phase, f"{phase}{': ' + detail if detail else ''}"
        self._refresh()

    def advance(self, units: int) -> None:
        """Units of work that were done."""
        self._done += units
        self._refresh()

    def note(self, text: str) -> None:
        """A line that stays."""
        self.console.print(f"[{self.seconds():6.1f} s] {text}", markup=False, highlight=False, soft_wrap=True)

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def _line(self) -> str:
        left = self.work.seconds_left()
        since = time.monotonic() - self._since
        waited = f" (for {duration(since)})" if self._phase == self._state and since > PLAIN_SECONDS else ""
        estimate = "" if left is None else f", about {duration(left)} left"
        return f"{self._state}{waited}{estimate}"

    def _refresh(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=self._line(), completed=self._done)

    def _tick(self) -> None:
        while not self._stop.wait(1.0 if self._bar is not None else PLAIN_SECONDS):
            if self._bar is None:
                self.note(f"{self._line()} [{self._done} of {self.total} iterations]")
            else:
                self._refresh()
