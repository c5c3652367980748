"""Command lines of the benchmarks: flags from a flat dataclass, refusals in one line before jax loads.

tyro draws the help; its refusals are boxes of many lines, so flags are read here. What a configuration refuses in
``__post_init__`` (ValueError) and what is refused later (:func:`refuse`) end alike: ``error: ...`` and exit code 2.
"""

from __future__ import annotations

import difflib
import math
import pathlib
import runpy
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn, TypeVar

ConfigT = TypeVar("ConfigT")

WORLDS = pathlib.Path(__file__).parents[1] / "envs_jax"
NAMES = WORLDS / "domains" / "names.py"


def refuse(error: object) -> NoReturn:
    """Ends the program with one line and exit code 2."""
    print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    sys.exit(2)


def unknown(kind: str, name: object, allowed: Iterable[str]) -> str:
    """``name`` is none of ``allowed``: a sentence with the nearest one, or with all if none is near."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(name), allowed, 1)
    return f"unknown {kind} {str(name)!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(allowed)}")


def registry() -> dict[str, Any]:
    """``DOMAINS`` and ``EXTRAS`` of the registry, by its path: importing the package loads gymnax, several seconds."""
    return runpy.run_path(str(NAMES))


def version() -> str:
    """``envs_jax.VERSION``, likewise by its path."""
    found: str = runpy.run_path(str(WORLDS / "version.py"))["VERSION"]
    return found


def check_domains(names: Sequence[str]) -> None:
    """Raises ValueError for a domain that is not registered, or is named twice."""
    for name in names:
        if name not in (known := registry()["DOMAINS"]):
            raise ValueError(unknown("domain", name, known))
    check_once("domain", names)


def check_once(kind: str, names: Sequence[object]) -> None:
    """Raises ValueError for what is listed twice."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{kind} {name} is listed more than once")


def check_range(config: Any, least: float, most: float, *names: str) -> None:
    """Raises ValueError for a field, or one of a tuple field, outside ``[least, most]`` or not a number."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not least <= number <= most:  # NaN is refused, too
                raise ValueError(f"{name} must be from {least} to {most}, got {number}")


def check_seed(config: Any) -> None:
    """Raises ValueError for a seed that is no ``u32``: jax would take it for another one."""
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {config.seed}")


def _convert(flag: str, kind: Any, text: str) -> Any:
    """One value of a flag."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if text not in options:
            raise ValueError(unknown(flag, text, options))
        return text
    if types.NoneType in options:
        kind = next(option for option in options if option is not types.NoneType)
    if kind is pathlib.Path:
        if not text or "\0" in text:
            raise ValueError(f"{flag}: {text!r} is no path")
        return pathlib.Path(text).expanduser()
    if kind is str:
        return text
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if len(text) > 40 or not math.isfinite(number):
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise ValueError(f"{flag}: expected {'a whole' if kind is int else 'a finite'} number, got {shown!r}")
    return number


def read(config: type[ConfigT], arguments: Sequence[str]) -> ConfigT:
    """The configuration that flags ask for: ``--name value ...`` or ``--name=value``; ``--name``, ``--no-name``.

    Args:
      config: a dataclass whose fields have defaults and are numbers, strings, paths, booleans or tuples of these.
      arguments: the command line without the program.

    Raises:
      ValueError: for whatever is not allowed, by flag and value.
    """
    kinds = typing.get_type_hints(config)
    flags = {f"--{name.replace('_', '-')}": name for name in kinds}
    flags |= {f"--no-{name.replace('_', '-')}": name for name, kind in kinds.items() if kind is bool}
    given: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            given.append((flag.replace("_", "-"), [value] if equals else []))
        elif given:
            given[-1][1].append(argument)
        else:
            raise ValueError(f"expected a flag, got {argument!r}")
    check_once("flag", [flag for flag, _ in given])
    changes: dict[str, Any] = {}
    for flag, values in given:
        if flag not in flags:
            raise ValueError(unknown("flag", flag, flags))
        name = flags[flag]
        kind = kinds[name]
        if name in changes:
            raise ValueError(f"{flag} contradicts another flag")
        if kind is bool:
            if values:
                raise ValueError(f"{flag} takes no value, got {values[0]!r}")
            changes[name] = not flag.startswith("--no-")
        elif typing.get_origin(kind) is tuple:
            changes[name] = tuple(_convert(flag, typing.get_args(kind)[0], value) for value in values)
        elif len(values) != 1:
            raise ValueError(f"{flag}: expected one value, got {' '.join(values) or 'none'}")
        else:
            changes[name] = _convert(flag, kind, values[0])
    return config(**changes)


def parse(config: type[ConfigT], description: str | None, arguments: Sequence[str] | None = None) -> ConfigT:
    """Reads a command line, ``sys.argv`` if there are no ``arguments``; ``--help`` shows it, bad input is refused."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if {"-h", "--help"} & set(arguments):
        import tyro

        tyro.cli(config, args=["--help"], description=description)
    try:
        return read(config, arguments)
    except ValueError as error:
        refuse(error)


def prepare_folder(folder: pathlib.Path) -> None:
    """Makes a folder for results before minutes of measuring, or refuses.

    Raises:
      ValueError: saying what is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out: cannot write to {str(folder)[:200]}: {error.strerror}") from error
