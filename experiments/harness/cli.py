"""From a command line to a configuration: preset, then YAML file, then flags; refusals in one line.

YAML is checked against the dataclasses here; flags are parsed by tyro, whose boxed messages are reduced to one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import pathlib
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

from experiments.config import unknown

ConfigT = TypeVar("ConfigT")

LATEST = "latest"
PLACES = frozenset({"results", "name", "cache_dir"})
"""Fields that say where things are kept. A resumed run may differ in them."""


class UsageError(Exception):
    """The command cannot be carried out as given; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Command(Generic[ConfigT]):
    """Options of this command. A flag overrides the YAML file, which overrides the preset.

    Attributes:
      run: the experiment's configuration.
      preset: where to start from.
      config: a YAML file with the keys of ``--help`` (nested), such as the config.yaml of an earlier run.
      resume: go on with a run that was stopped: its folder, or nothing for the newest one.
    """

    run: Annotated[ConfigT, tyro.conf.arg(name="")]
    preset: str
    config: pathlib.Path | None = None
    resume: str | None = None


def to_mapping(config: Any) -> dict[str, Any]:
    """A configuration as nested dictionaries, lists, strings and numbers, ready for YAML."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, pathlib.Path) else value

    return plain(config)


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a list, each {_describe(get_args(kind)[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", pathlib.Path: "a path"}
    return names.get(kind, str(kind))


def _convert(kind: Any, value: Any, base: Any, where: str) -> Any:
    """``value`` as a ``kind``, refused by name where it is none."""
    if dataclasses.is_dataclass(kind):
        return from_mapping(base, value, where)
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        (kind,) = (option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(kind)[0], item, None, where) for item in value)
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if kind is pathlib.Path and isinstance(value, str):
        return pathlib.Path(value)
    if kind is float and not isinstance(value, bool):
        # YAML 1.1 reads 2e-3, without a point, as text.
        with contextlib.suppress(TypeError, ValueError):
            if math.isfinite(number := float(value)):
                return number
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise UsageError(f"{where} must be {_describe(kind)}, got {value!r}")


def from_mapping(base: ConfigT, values: Any, where: str = "") -> ConfigT:
    """``base`` with the values of nested dictionaries in place of its own.

    Raises:
      UsageError: for an unknown key, a wrong type, or a value that the dataclass refuses.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where or 'the file'} must hold keys and values, got {values!r}")
    hints = get_type_hints(type(base))
    allowed = [field.name for field in dataclasses.fields(base)]  # type: ignore[arg-type]
    changes = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in allowed:
            raise UsageError(unknown("key", path, [f"{where}.{name}" if where else name for name in allowed]))
        changes[key] = _convert(hints[key], value, getattr(base, key), path)
    try:
        return dataclasses.replace(base, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(str(error)) from error


def from_yaml(base: ConfigT, path: pathlib.Path) -> ConfigT:
    """``base`` with the values of a YAML file.

    Raises:
      UsageError: naming the file, if it cannot be read or says something that is not allowed.
    """
    try:
        values = yaml.safe_load(path.read_text())
        return from_mapping(base, {} if values is None else values)
    except OSError as error:
        raise UsageError(f"config: cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"config: {path} is not YAML: {' '.join(str(error).split())}") from error
    except UsageError as error:
        raise UsageError(f"config: {path}: {error}") from error


def differences(saved: Any, asked: Any) -> list[str]:
    """Fields in which two configurations differ, those that say where things are kept aside."""
    old, new = flatten(to_mapping(saved)), flatten(to_mapping(asked))
    return [f"{key}={old[key]!r}, not {new[key]!r}" for key in old if key not in PLACES and old[key] != new[key]]


def _peek(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag that must be known before the others can be parsed; the last one counts."""
    found = None
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            found = arguments[i + 1]
        elif argument.startswith(f"{flag}="):
            found = argument.partition("=")[2]
    return found


def _spell_out_resume(arguments: Sequence[str]) -> list[str]:
    """``--resume`` alone means the newest run."""
    spelled: list[str] = []
    for argument, following in itertools.pairwise([*arguments, "--"]):
        spelled.append(argument)
        if argument == "--resume" and following.startswith("--"):
            spelled.append(LATEST)
    return spelled


def one_line(boxed: str) -> str:
    """What a boxed message of tyro says, without box, help text and line breaks."""
    rows = [row.strip(" │╭╮╰╯─\n") if not re.match(r"^│ ─+ │$", row) else "---" for row in boxed.splitlines()[1:]]
    sections = [" ".join(part.split()) for part in "\n".join(rows).split("---")]
    # Where a dataclass refused a value, tyro names the option group, and the message names the field itself.
    message = re.sub(r"^Error parsing (run[\w.]*: )?", "", sections[0])
    hint = next((s for s in sections[1:] if s.startswith(("Perhaps you meant", "Argument helptext"))), "")
    flag = re.search(r"--[\w.-]+(?: [A-Z{\[|][^ ]*(?: \[[A-Z ]+\.\.\.\]+)?)?", hint)
    if flag:
        message += f"; {'did you mean' if hint.startswith('Perhaps') else 'expected'} {flag[0]}"
    return message


def parse(
    presets: Mapping[str, ConfigT], saved: Any, arguments: Sequence[str], prog: str, description: str
) -> Command[ConfigT]:
    """Reads a command line.

    Args:
      presets: configurations by name, the default one first.
      saved: ``(folder, results) -> configuration`` of the run to resume.
      arguments: the command line without the program.
      prog: name of the program in the help text.
      description: first lines of the help text.

    Raises:
      UsageError: if anything in it is not allowed.
    """
    arguments = _spell_out_resume(arguments)
    preset, file, resume = (_peek(arguments, flag) for flag in ("--preset", "--config", "--resume"))
    if preset is not None and preset not in presets:
        raise UsageError(f"preset: {unknown('preset', preset, list(presets))}")
    base: Any = presets[preset or next(iter(presets))]
    if resume is not None and preset is None and file is None and not {"-h", "--help"} & set(arguments):
        base = saved(resume, pathlib.Path(_peek(arguments, "--results") or base.results))
    if file is not None:
        base = from_yaml(base, pathlib.Path(file))
    default = Command(base, preset or next(iter(presets)), None if file is None else pathlib.Path(file), resume)
    kind: Any = Command[type(base)]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            command: Command[ConfigT] = tyro.cli(
                kind,
                default=default,
                args=arguments,
                prog=prog,
                description=f"{description}\n\nPresets: {', '.join(presets)}.",
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        raise UsageError(one_line(errors.getvalue())) from None
    except ValueError as error:  # refused by the outermost dataclass
        raise UsageError(str(error)) from error
    return command


def refuse(error: Exception) -> int:
    """Prints one line to stderr; the exit code of a command that was not understood."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
