"""A study: an experiment without training of agents, made of sections whose results are JSON.

A section is computed once and stored whole in ``parts/<section>.json``; a run that was killed at any moment goes on
with the first section that is missing. ``summary.json``, ``report.md`` and the figures are written from the stored
sections alone. Flags are the fields of a frozen dataclass, whose constructor refuses by name what is not allowed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import sys
import tempfile
import time
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

ConfigT = TypeVar("ConfigT")
CONFIG, PARTS = "config.json", "parts"


class Section(NamedTuple):
    """A part of a study: its name, and a function of the sections before it that returns what can be JSON."""

    name: str
    compute: Callable[[Mapping[str, Any]], Any]


class Study(NamedTuple):
    """What an entry point runs.

    Attributes:
      name: of the entry point, and of the folder of its runs below ``results``.
      description: first line of the help text.
      presets: configurations by name, the default one first.
      prepare: ``config ->``; settings that must be made before jax computes anything, and refusals (``ValueError``).
      sections: ``config -> sections``.
      summary: ``(config, parts) -> summary.json``.
      report: ``(config, parts, folder)`` writes the page and the figures.
    """

    name: str
    description: str
    presets: Mapping[str, Any]
    prepare: Callable[[Any], None]
    sections: Callable[[Any], Sequence[Section]]
    summary: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    report: Callable[[Any, Mapping[str, Any], pathlib.Path], None]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def plain(value: Any) -> Any:
    """A value as JSON has it: paths as text, arrays and tuples as lists, numbers of NumPy as numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, pathlib.Path):
        return str(value)
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def _flags(parser: argparse.ArgumentParser, base: Any) -> None:
    hints = typing.get_type_hints(type(base))
    for field in dataclasses.fields(base):
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):  # X | None
            kind = next(option for option in typing.get_args(kind) if option is not type(None))
        many = typing.get_origin(kind) is tuple
        if kind is bool:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=field.metadata.get("help"),
            )
            continue
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=typing.get_args(kind)[0] if many else kind,
            nargs="+" if many else None,
            default=argparse.SUPPRESS,
            help=f"{field.metadata.get('help', '')} (default: {plain(getattr(base, field.name))})",
        )


def parse(study: Study, arguments: Sequence[str]) -> tuple[Any, pathlib.Path, bool]:
    """The configuration that a command line asks for, its folder, and whether to go on there.

    Raises:
      ValueError: naming what is not allowed.
    """
    first = _Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=next(iter(study.presets)))
    first.add_argument("--resume", default=None)
    own, rest = first.parse_known_args(arguments)
    if own.preset not in study.presets:
        raise ValueError(f"preset = {own.preset!r}: allowed are {', '.join(study.presets)}")
    base = study.presets[own.preset]
    parser = _Parser(prog=f"python -m experiments.{study.name}", description=study.description, allow_abbrev=False)
    parser.add_argument("--preset", help=f"one of {', '.join(study.presets)}")
    parser.add_argument("--resume", help="folder or name of a run that was stopped; takes its configuration")
    _flags(parser, base)
    given = {
        key: tuple(value) if isinstance(value, list) else value for key, value in vars(parser.parse_args(rest)).items()
    }
    given = {key: value for key, value in given.items() if key not in ("preset", "resume")}
    if own.resume is None:
        config = dataclasses.replace(base, **given)
        name = config.name or f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
        if pathlib.PurePath(name).name != name or name.startswith((".", "-")):
            raise ValueError(f"name = {name!r}: must be one folder's name")
        config = dataclasses.replace(config, name=name)
        folder = config.results / study.name / name
        if (folder / CONFIG).exists():
            raise ValueError(f"name = {name!r}: {folder} holds a run already; go on with --resume {folder}")
        return config, folder, False
    results = pathlib.Path(given.pop("results", base.results))
    places = (pathlib.Path(own.resume), results / study.name / own.resume)
    folder = next((place for place in places if (place / CONFIG).is_file()), None)
    if folder is None:
        raise ValueError(f"resume = {own.resume!r}: neither {places[0]} nor {places[1]} holds a {CONFIG}")
    saved = json.loads((folder / CONFIG).read_text())
    hints = typing.get_type_hints(type(base))
    loaded = {
        key: tuple(value) if isinstance(value, list) else pathlib.Path(value) if hints[key] is pathlib.Path else value
        for key, value in saved.items()
    }
    different = [key for key, value in given.items() if loaded[key] != value]
    if different:
        raise ValueError(
            f"{different[0]} = {given[different[0]]!r}: {folder} was started with {loaded[different[0]]!r}"
        )
    return dataclasses.replace(base, **loaded), folder, True


def run(study: Study, arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns 0, or 2 for a command that was refused in one line."""
    try:
        config, folder, _ = parse(study, sys.argv[1:] if arguments is None else list(arguments))
        study.prepare(config)
        sections = study.sections(config)
        folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"results: {folder}", flush=True)
    write(folder / CONFIG, json.dumps(plain(dataclasses.asdict(config)), indent=1))
    parts: dict[str, Any] = {}
    for section in sections:
        path = folder / PARTS / f"{section.name}.json"
        if path.exists():
            parts[section.name] = json.loads(path.read_text())
            print(f"{section.name}: stored", flush=True)
            continue
        wall, cpu = time.monotonic(), time.process_time()
        computed = plain(section.compute(parts))
        usage = {"seconds": round(time.monotonic() - wall, 3), "cpu_seconds": round(time.process_time() - cpu, 3)}
        text = json.dumps({"result": computed, "usage": usage}, indent=1)
        write(path, text)
        parts[section.name] = json.loads(text)
        print(f"{section.name}: {usage['seconds']} s, {usage['cpu_seconds']} CPU-s", flush=True)
    results = {name: part["result"] for name, part in parts.items()}
    summary = {
        "experiment": study.name,
        "config": plain(dataclasses.asdict(config)),
        **study.summary(config, results),
        "usage": {name: part["usage"] for name, part in parts.items()},
    }
    study.report(config, results, folder)
    write(folder / "summary.json", json.dumps(plain(summary), indent=1))
    print(f"report: {folder / 'report.md'}")
    return 0


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(_cell(entry) for entry in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _cell(entry: Any) -> str:
    if isinstance(entry, bool) or entry is None:
        return {True: "yes", False: "no", None: ""}[entry]
    return f"{entry:.8g}" if isinstance(entry, float) else str(entry)
