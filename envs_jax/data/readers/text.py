"""What all formats share: a file as text, numbers with the line on which they stand, and refusals."""

from __future__ import annotations

import hashlib
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from envs_jax.checks import refusal as field_refusal
from envs_jax.checks import shown

LARGEST = 16 * 2**20
"""Bytes of the largest file that is read."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BYTE_ORDER_MARK = "\ufeff"
ParsedT = TypeVar("ParsedT")


def path_of(value: object) -> object:
    """A path as a string with ``~`` expanded; what is no path comes back as it is, for :func:`load` to refuse."""
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        return os.path.expanduser(path) if isinstance(path, str) else value
    return value


def digest(path: object) -> str | None:
    """Of a file's content, so that a file that has changed is another instance; None if it cannot be read."""
    try:
        if isinstance(path, str) and os.path.isfile(path):  # a number would be an open file's
            with open(path, "rb") as file:
                return hashlib.sha256(file.read(LARGEST + 1)).hexdigest()
    except (OSError, ValueError):
        pass
    return None


def load(owner: str, field: str, path: object, parse: Callable[[str, str], ParsedT]) -> ParsedT:
    """What ``parse(text, where)`` makes of a file of UTF-8 text.

    Args:
      owner: who refuses, a domain's name.
      field: its constructor's argument.
      path: of the file, ``~`` allowed.
      parse: of one of the formats; ``where`` begins its refusals.

    Raises:
      ValueError: if there is no such file, it is a folder, cannot be read, is larger than :data:`LARGEST`, is no UTF-8
        text, or ``parse`` refuses it.
    """
    name = path_of(path)
    if not isinstance(name, str):
        raise field_refusal(owner, field, "the path of a file", shown(path))
    try:
        file = pathlib.Path(name)
        if file.is_dir():
            raise field_refusal(owner, field, "the path of a file", f"a folder: {shown(name)}")
        if not file.is_file():  # nor a pipe or device, which may never end
            raise field_refusal(owner, field, "the path of a file", f"{shown(name)}, where there is none")
        if (size := file.stat().st_size) > LARGEST:
            raise field_refusal(owner, field, f"a file of at most {LARGEST} bytes", f"{size}: {shown(name)}")
        content = file.read_bytes()
    except OSError as error:
        raise field_refusal(owner, field, "a file that can be read", f"{shown(name)}: {error.strerror}") from error
    where = f"{owner}.{field}: {' '.join(name.split())}"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refusal(where, line, "the file", "UTF-8 text", f"byte {content[error.start]:#04x}") from error
    if "\0" in text:
        raise refusal(where, text.count("\n", 0, text.index("\0")) + 1, "the file", "text", "a zero byte")
    return parse(text.removeprefix(_BYTE_ORDER_MARK), where)


class Word(NamedTuple):
    """A piece of a file and the line, from 1, on which it stands."""

    text: str
    line: int


def refusal(where: str, line: int, what: str, allowed: str, got: str) -> ValueError:
    """The error of something on a line; line 0 is the file as a whole."""
    place = f"{where}:{line}" if line else where
    return ValueError(f"{place}: {what} must be {allowed}, got {got}")


def number(
    where: str,
    word: Word,
    what: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    whole: bool = False,
    above: bool = False,
) -> float:
    """The number that a word is, finite in single precision and in ``[low, high]``; with ``above`` not ``low`` itself.

    Raises:
      ValueError: for anything else: other words, "nan", "inf".
    """
    value = float(word.text) if _NUMBER.fullmatch(word.text) else math.nan
    inside = low < value <= high if above else low <= value <= high
    if inside and abs(value) < 3e38 and not (whole and value != round(value)):
        return value
    kind = "a whole number" if whole else "a number"
    if math.isfinite(low) and math.isfinite(high):
        kind += f" above {low:g} and at most {high:g}" if above else f" from {low:g} to {high:g}"
    elif math.isfinite(low):
        kind += f" above {low:g}" if above else f" of {low:g} or more"
    raise refusal(where, word.line, what, kind, shown(word.text))


def whole(where: str, word: Word, what: str, low: int, high: int) -> int:
    """:func:`number` that is whole, as an ``int``."""
    return int(number(where, word, what, low, high, whole=True))


def lines_of(text: str, comment: str = "#") -> list[tuple[int, list[str]]]:
    """Line numbers and words of the lines that have any, without what follows ``comment``."""
    split = ((at, line.split(comment, 1)[0].split()) for at, line in enumerate(text.splitlines(), 1))
    return [(at, words) for at, words in split if words]


class Words:
    """Words of a file, taken one after another however they are broken into lines."""

    def __init__(self, where: str, lines: Iterable[tuple[int, list[str]]]) -> None:
        self.where = where
        self._words = [Word(text, line) for line, texts in lines for text in texts]
        self._next = 0

    def take(self, what: str, low: float = -math.inf, high: float = math.inf, **bounds: bool) -> float:
        """The next word as a :func:`number`.

        Raises:
          ValueError: if the file has ended, too, naming ``what`` is missing.
        """
        if self._next == len(self._words):
            last = self._words[-1].line if self._words else 1
            raise refusal(self.where, last, what, "there", "the end of the file")
        self._next += 1
        return number(self.where, self._words[self._next - 1], what, low, high, **bounds)

    def take_whole(self, what: str, low: int, high: int) -> int:
        """The next word as a whole number."""
        return int(self.take(what, low, high, whole=True))

    @property
    def line(self) -> int:
        """Of the word last taken; 1 before the first."""
        return self._words[self._next - 1].line if self._next else 1

    def end(self, what: str) -> None:
        """Refuses what is left; ``what`` names it."""
        if self._next < len(self._words):
            word = self._words[self._next]
            raise refusal(self.where, word.line, what, "the end of the file", shown(word.text))
