"""From text to configuration: YAML files and flags are read by one converter, so both allow and refuse the same.

A scalar stays the text that was written until the field that takes it is known. YAML's own guesses (``yes`` is true,
``010`` is eight, ``1:30`` is ninety) are never made.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import pathlib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from experiments.harness.errors import UsageError
from metarl_jax.checks import shown

ConfigT = TypeVar("ConfigT")

LARGEST_FILE = 64 * 1024
"""Bytes of a configuration file; one of ours has about a thousand."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?")
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclasses.dataclass(frozen=True)
class Text:
    """A scalar as it was written.

    Attributes:
      text: what was written.
      null: whether it stands for "nothing given".
      where: line of the file, such as ``"line 3: "``; empty for a flag.
    """

    text: str
    null: bool = False
    where: str = ""

    def __repr__(self) -> str:
        return "nothing" if self.null else shown(self.text)


def unknown(what: str, name: object, allowed: Sequence[str]) -> str:
    """One line that refuses a name, says what is allowed and, if one is near, what was probably meant."""
    near = difflib.get_close_matches(str(name)[:200], allowed, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown {what} {shown(name)}{hint}; allowed: {', '.join(allowed)}"


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


def fields_of(config: Any) -> dict[str, tuple[Any, Any]]:
    """``{name: (kind, value)}`` of a dataclass; what a type variable stands for is taken from the value."""
    hints = get_type_hints(type(config))
    found = {}
    for field in dataclasses.fields(config):
        kind, value = hints[field.name], getattr(config, field.name)
        found[field.name] = (type(value) if dataclasses.is_dataclass(value) else kind, value)
    return found


def options_of(config: Any, prefix: str = "") -> dict[str, Any]:
    """Kinds of all fields that hold no dataclass, by dotted name."""
    found: dict[str, Any] = {}
    for name, (kind, value) in fields_of(config).items():
        dotted = prefix + name
        found |= options_of(value, f"{dotted}.") if dataclasses.is_dataclass(value) else {dotted: kind}
    return found


def describe(kind: Any) -> str:
    """A kind as a message says it."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a list, each {describe(get_args(kind)[0])}"
    if get_origin(kind) in (Union, types.UnionType):
        return describe(next(option for option in get_args(kind) if option is not type(None)))
    names = {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "text",
        pathlib.Path: "a path",
    }
    return names.get(kind, str(kind))


def _scalar(kind: Any, given: Text, where: str) -> Any:
    """The value that a text stands for; None where it stands for none of this kind."""
    text = given.text
    if get_origin(kind) is Literal:
        return next((value for value in get_args(kind) if str(value) == text), None)
    if given.null:
        return None
    if kind is str:
        return text
    if kind is pathlib.Path:
        if not text or any(not character.isprintable() for character in text):
            return None
        try:
            return pathlib.Path(text).expanduser()
        except RuntimeError as error:  # no such user
            raise UsageError(f"{given.where}{where} names a home folder that is not there, got {given!r}") from error
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if kind is int:
        return int(text) if _WHOLE.fullmatch(text) else None
    if kind is float and _NUMBER.fullmatch(text) and len(text) < 400 and math.isfinite(number := float(text)):
        return number
    return None


def convert(kind: Any, given: Any, base: Any, where: str) -> Any:
    """What was written as a ``kind``.

    Args:
      kind: type of the field.
      given: nested dictionaries and lists of :class:`Text`.
      base: the field's present value, whose own fields are kept where nothing is given.
      where: the field's name for messages.

    Raises:
      UsageError: naming the field, what it must be, and what it got.
    """
    if dataclasses.is_dataclass(base):
        return from_mapping(base, given, where)
    if get_origin(kind) in (Union, types.UnionType):
        if isinstance(given, Text) and given.null and type(None) in get_args(kind):
            return None
        (kind,) = (option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is tuple and isinstance(given, list):
        return tuple(convert(get_args(kind)[0], item, None, where) for item in given)
    value = _scalar(kind, given, where) if isinstance(given, Text) and get_origin(kind) is not tuple else None
    if value is None:
        line = given.where if isinstance(given, Text) else ""
        got = repr(given) if isinstance(given, Text) else f"a {'list' if isinstance(given, list) else 'mapping'}"
        raise UsageError(f"{line}{where} must be {describe(kind)}, got {got}")
    return value


def from_mapping(base: ConfigT, given: Any, where: str = "") -> ConfigT:
    """``base`` with values in place of its own.

    Args:
      base: a dataclass.
      given: nested dictionaries and lists of :class:`Text`.
      where: name of the field that holds ``base``; empty at the top.

    Raises:
      UsageError: for an unknown key, a wrong type, or a value that the dataclass refuses.
    """
    if not isinstance(given, Mapping):
        line = given.where if isinstance(given, Text) else ""
        got = repr(given) if isinstance(given, Text) else "a list"
        raise UsageError(f"{line}{where or 'the file'} must hold keys and values, got {got}")
    fields = fields_of(base)
    changes = {}
    for key, value in given.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise UsageError(unknown("key", path, [f"{where}.{name}" if where else name for name in fields]))
        changes[key] = convert(*(fields[key][0], value, fields[key][1]), path)
    try:
        return dataclasses.replace(base, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(str(error)) from error


def read_yaml(content: bytes) -> dict[str, Any]:
    """A YAML file as nested dictionaries and lists of :class:`Text`; empty for an empty file.

    Raises:
      UsageError: if it is not YAML, is too large, or says what one cannot be sure of: a key twice (named with its
        line), aliases and merge keys, tags, keys that are no text.
    """
    import yaml

    if len(content) > LARGEST_FILE:
        raise UsageError(f"is larger than {LARGEST_FILE // 1024} KiB, which no configuration is")
    try:
        text = content.decode()
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{line}aliases (*{shown(event.anchor)[1:-1]}) are not read; write the values out")
            if getattr(event, "tag", None):
                raise UsageError(f"{line}tags ({shown(event.tag)}) are not read")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"is not UTF-8 text: byte {error.start} cannot be read") from error
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, OverflowError) as error:  # an escape of no character
        raise UsageError(f"is not YAML: {error}") from error
    except RecursionError as error:
        raise UsageError("is nested too deeply") from error

    def plain(node: Any) -> Any:
        line = f"line {node.start_mark.line + 1}: "
        if isinstance(node, yaml.ScalarNode):
            return Text(node.value, node.style is None and node.value in _NULLS, line)
        if isinstance(node, yaml.SequenceNode):
            return [plain(item) for item in node.value]
        found: dict[str, Any] = {}
        for key, value in node.value:
            at = f"line {key.start_mark.line + 1}: "
            if not isinstance(key, yaml.ScalarNode):
                raise UsageError(f"{at}a key must be text")
            if key.style is None and key.value == "<<":
                raise UsageError(f"{at}merge keys (<<) are not read; write the values out")
            if key.value in found:
                raise UsageError(f"{at}key {shown(key.value)} is there twice")
            found[key.value] = plain(value)
        return found

    if node is None:
        return {}
    whole = plain(node)
    if isinstance(whole, Text) and whole.null:
        return {}
    if not isinstance(whole, dict):
        raise UsageError(f"must hold keys and values, got {'a list' if isinstance(whole, list) else repr(whole)}")
    return whole


def read_file(path: pathlib.Path) -> bytes:
    """The first bytes of a file, one more than a configuration may have, so that an endless one ends too."""
    with path.open("rb") as file:
        return file.read(LARGEST_FILE + 1)


def differences(saved: Any, asked: Any, aside: frozenset[str]) -> list[str]:
    """Fields in which two configurations differ, but for those in ``aside``; another learner is told alone."""
    old, new = flatten(to_mapping(saved)), flatten(to_mapping(asked))
    keys = ["learner"] if old.get("learner") != new.get("learner") else [key for key in old if key not in aside]
    return [f"{key}={old[key]!r}, not {new.get(key)!r}" for key in keys if old[key] != new.get(key)]
