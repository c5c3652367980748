"""SIGTERM, SIGINT and SIGHUP in every phase of a command: one line that says how to go on, exit code 128 + signal.

A thread of its own hears the signal, so that it is answered at once, also while the main thread compiles. While agents
train, the interval is finished and saved first. In all other phases there is nothing to save: files are written whole
or not at all, and what is lost of a run that ends at once is what a kill would cost it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal

from experiments.harness.errors import Interrupted, one_line, tell

Phase = Literal["parsing", "loading", "building", "compiling", "training", "testing", "reporting"]
"""Phases of a command, in order; the middle ones repeat for every training run."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))


class Signals:
    """Answers signals while it is open; use as a context manager, in the main thread.

    Args:
      on_phase: told every phase that begins; a test sends its signal from here.

    Attributes:
      phase: what is going on.
      received: number of the signal that came, or 0.
      go_on: the command that goes on with the run; empty before there is one.
    """

    def __init__(self, on_phase: Callable[[Phase], object] = lambda phase: None):
        self.phase: Phase = "parsing"
        self.received = 0
        self.go_on = ""
        self._on_phase = on_phase
        self._before: dict[int, Any] = {}
        self._wakeup = -1
        self._pipe: tuple[int, int] | None = None
        self._told = threading.Event()

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may ask for signals
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._pipe = reading, writing
        self._wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in SIGNALS:
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup
            self._before[number] = signal.signal(number, lambda number, frame: None)
        threading.Thread(target=self._listen, args=(reading,), daemon=True, name="signals").start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._pipe is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._pipe[1])  # ends the thread, which closes the other end
        self._pipe = None

    def enter(self, phase: Phase) -> None:
        """A phase begins."""
        self.phase = phase
        self._on_phase(phase)

    def training(self) -> bool:
        """Whether to save and stop; asked after every interval of training, and not before the first.

        The first time it is asked, compiling is over: from now on a signal waits for the end of the interval.
        """
        if self.phase != "training":
            self.enter("training")
        return bool(self.received)

    def check(self) -> None:
        """Raises :class:`Interrupted` if a signal came and everything is saved."""
        if self.received:
            raise Interrupted

    def wait(self, seconds: float = 60.0) -> None:
        """Waits until a signal was heard, for callers that have just sent one to this process."""
        self._told.wait(seconds)

    def line(self, number: int, state: str) -> str:
        """What is said in the end."""
        how = f"go on with: {self.go_on}" if self.go_on else "nothing was written"
        return f"{signal.Signals(number).name}: {state}; {how}"

    def _listen(self, reading: int) -> None:
        while sent := os.read(reading, 1):
            self._answer(sent[0])
        os.close(reading)

    def _answer(self, number: int) -> None:
        if number not in self._before:  # a signal of somebody else in this process
            return
        if self.phase == "training" and not self.received:
            self.received = number
            tell(f"{signal.Signals(number).name}: finishing this interval, then saving; once more ends at once")
            self._told.set()
            return
        # The main thread may hold the streams' locks, for instance where a pipe is full.
        flushing = threading.Thread(target=_flush, daemon=True)
        flushing.start()
        flushing.join(1.0)
        with contextlib.suppress(OSError):
            os.write(2, f"{one_line(self.line(number, f'stopped while {self.phase}'))}\n".encode())
        os._exit(128 + number)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream.isatty():
                stream.write("\r\x1b[2K\x1b[?25h")  # a progress bar hides the cursor
            stream.flush()
