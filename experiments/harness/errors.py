"""Errors that a user can do something about, each in one line that says what.

Whatever ends a command is told by :func:`explain`; only what it does not know, a fault of this program, keeps its
traceback.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

LONGEST = 400
"""Characters of a message; what comes from below may hold whole file listings."""

_REPLACEMENTS = {
    "→": "->",
    "•": "*",
    "±": "+/-",
    "…": "...",
    "×": "x",
    "–": "-",
    "—": "-",
    "─": "-",
    "│": "|",
    "≤": "<=",
}


class UsageError(ValueError):
    """The command cannot be carried out as given; the message is one line."""


class UnequalTreatmentError(RuntimeError):
    """Agents that are compared were not given the same; the message is one line and names who and what."""


class Interrupted(Exception):  # noqa: N818 - not an error, somebody asked
    """The run was asked to stop and everything worth keeping is saved."""


def _encodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    bad = error.object[error.start : error.end]
    return "".join(_REPLACEMENTS.get(character, "?") for character in bad), error.end


def replace_what_cannot_be_encoded() -> None:
    """Lets both streams replace what their encoding lacks, so that no message is lost and none ends the run."""
    codecs.register_error("metarl", _encodable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="metarl")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences what libraries and their threads print about an error that this program tells in one line.

    orbax logs the trace of every failed write, asyncio that of every task nobody waited for, and a thread that dies
    prints its own. The error itself still arrives where the library was called.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    before, hook = logging.root.manager.disable, threading.excepthook
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda arguments: None
    try:
        yield
    finally:
        logging.disable(before)
        threading.excepthook = hook


def one_line(text: object) -> str:
    """Text without line breaks and other control characters, cut to a length that can be read; never empty."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return (flat if len(flat) <= LONGEST else f"{flat[: LONGEST - 3]}...") or type(text).__name__


def tell(text: object) -> None:
    """Prints one line to stderr."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens; the exit code still tells
        print(one_line(text), file=sys.stderr, flush=True)


def refuse(error: Exception) -> int:
    """Tells a command that was not understood; returns its exit code."""
    tell(f"error: {error}")
    return 2


def _ran_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    exhausted = "RESOURCE_EXHAUSTED" in text or re.search(r"out of memory|can't start new thread|bad_alloc", text, re.I)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(exhausted))


def _advice(error: OSError, go_on: str) -> str:
    """What to do about a file system that refuses; libraries wrap its numbers, so their texts are read too."""
    text = str(error)

    def is_(*numbers: int) -> bool:
        return error.errno in numbers or any(os.strerror(number) in text for number in numbers)

    if is_(errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no room is left there: free some, then go on with: {go_on}"
    if is_(errno.EROFS, errno.EACCES, errno.EPERM):
        return f"make it writable, then go on with: {go_on}"
    if is_(errno.ENOENT, errno.ESTALE, errno.ENOTDIR):
        return "the run's folder or a part of it is gone: put it back and resume, or start anew"
    return f"once that is repaired, go on with: {go_on}"


def explain(error: BaseException, go_on: str) -> str | None:
    """One line for what ended a run, with what to do about it; None for a fault of this program.

    Args:
      error: what was raised.
      go_on: the command that goes on with the run.
    """
    if _ran_out_of_memory(error):
        return (
            f"memory ran out ({one_line(error)[:150]}): give it more, or give a new run smaller --evaluation.tasks, "
            f"--agent.data.tasks or --seeds; this one goes on with: {go_on}"
        )
    if isinstance(error, BrokenPipeError):
        return f"nobody reads the output any more; go on with: {go_on}"
    if isinstance(error, OSError):
        what = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else one_line(error)[:250]
        return f"{what}; {_advice(error, go_on)}"
    if isinstance(error, UnequalTreatmentError):
        return one_line(error)
    if type(error).__name__ == "LearnerError":  # of metarl_jax.learners.base, which imports jax
        return f"{one_line(error)[:250]}; once that is repaired, go on with: {go_on}"
    if type(error).__name__ == "DivergedError":  # of metarl_jax.training, which imports jax
        return (
            f"{one_line(error)[:250]}; the checkpoint before stays: try a smaller --agent.learning-rate in a new run, "
            f"or repeat with: {go_on}"
        )
    return None
