"""From a command line to a configuration: preset, then learner, then YAML file, then flags; refusals in one line.

Flags are read here, by the converter that reads the file (:mod:`experiments.harness.values`), and not by tyro, which
shows the help: its refusals are drawings of boxes, in which no message can be relied on.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, NoReturn, TypeVar, get_origin

from experiments.harness import learners, runs, values
from experiments.harness.errors import UsageError
from experiments.harness.settings import LOCATIONS
from experiments.harness.values import Text, unknown
from metarl_jax.checks import shown

ConfigT = TypeVar("ConfigT")

COMMAND = {"preset": str, "config": pathlib.Path, "resume": str, "report": str}
"""Options of every command beside those of its configuration."""

_COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


@dataclasses.dataclass(frozen=True)
class Command(Generic[ConfigT]):
    """What a command line asks for.

    Attributes:
      run: the configuration; of a run to resume, the one it was started with.
      folder: of the run to resume or to report; None starts a new one.
      report: only write that run's report anew, from its stored returns.
    """

    run: ConfigT
    folder: pathlib.Path | None = None
    report: bool = False


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag as it was written: its text, the key it stands for, and what followed."""

    text: str
    key: str
    values: tuple[str, ...]


def split_flags(arguments: Sequence[str]) -> list[Flag]:
    """Takes a command line apart: ``--key value ...`` or ``--key=value``.

    Raises:
      UsageError: for a value without a flag.
    """
    flags: list[Flag] = []
    for argument in arguments:
        if argument.startswith("--"):
            text, equals, value = argument.partition("=")
            flags.append(Flag(text, text[2:].replace("-", "_"), (value,) if equals else ()))
        elif not flags:
            raise UsageError(f"unexpected argument {shown(argument)}; options begin with --, see --help")
        else:
            flags[-1] = dataclasses.replace(flags[-1], values=(*flags[-1].values, argument))
    return flags


def _one(flag: Flag, kind: Any) -> Text:
    """The value of a flag that takes one."""
    if len(flag.values) != 1:
        problem = f"unexpected argument {shown(flag.values[1])}: " if flag.values else ""
        raise UsageError(f"{problem}{flag.text} takes one value, {values.describe(kind)}")
    return Text(flag.values[0])


def _refuse_unknown(flag: Flag, options: Mapping[str, Any]) -> NoReturn:
    known = [f"--{name.replace('_', '-')}" for name in options]
    near = difflib.get_close_matches(flag.text[:100], known, 1, cutoff=0.5)
    raise UsageError(
        f"unknown option {shown(flag.text)[1:-1]}{f'; did you mean {near[0]}?' if near else ''}; see --help"
    )


def _own(flags: Sequence[Flag]) -> dict[str, str]:
    """Values of the options in :data:`COMMAND`; an earlier run that is not named is the latest."""
    found = {}
    for flag in flags:
        if flag.key not in COMMAND:
            continue
        earlier = flag.key in ("resume", "report")
        found[flag.key] = runs.LATEST if earlier and not flag.values else _one(flag, COMMAND[flag.key]).text
    return found


def to_nested(flags: Sequence[Flag], config: Any) -> dict[str, Any]:
    """The flags of a configuration as nested dictionaries of text, checked to exist.

    Raises:
      UsageError: for a flag that is unknown, given twice, or has not as many values as it takes.
    """
    options = values.options_of(config)
    nested: dict[str, Any] = {}
    given: dict[str, str] = {}
    for flag in flags:
        key, text = flag.key, None
        parent, _, last = key.rpartition(".")
        off = f"{parent}.{last[3:]}".lstrip(".")
        if key not in options and last.startswith("no_") and options.get(off) is bool:
            key, text = off, "false"
        if key in given:
            raise UsageError(f"{flag.text} is given twice" + ("" if given[key] == flag.text else f" ({given[key]})"))
        given[key] = flag.text
        if key in COMMAND:
            continue
        if key not in options:
            _refuse_unknown(flag, {**options, **COMMAND})
        kind = options[key]
        value: Text | list[Text]
        if get_origin(kind) is tuple:
            if not flag.values:
                raise UsageError(f"{flag.text} takes at least one value, {values.describe(kind)}")
            value = [Text(item) for item in flag.values]
        elif kind is bool and not flag.values:
            value = Text(text or "true")
        elif text is not None:
            raise UsageError(f"{flag.text} takes no value, got {shown(flag.values[0])}")
        else:
            one = _one(flag, kind)
            value = dataclasses.replace(one, null=one.text == "None")
        place = nested
        *parents, leaf = key.split(".")
        for name in parents:
            place = place.setdefault(name, {})
        place[leaf] = value
    return nested


def _apply(config: ConfigT, nested: Mapping[str, Any], names: Mapping[str, str]) -> ConfigT:
    """Flags over a configuration; messages name the flag as it was written."""
    try:
        return values.from_mapping(config, nested)
    except UsageError as error:
        message = str(error)
        key = message.split(" ", 1)[0]
        raise UsageError(f"{names[key]}{message[len(key) :]}" if key in names else message) from error


def _learner_in(nested: Mapping[str, Any], where: str) -> str | None:
    if "learner" not in nested:
        return None
    name = nested["learner"]
    if not isinstance(name, Text) or name.null:
        raise UsageError(f"{where}learner must be text, one of {', '.join(learners.registered())}")
    return name.text


def from_yaml(base: ConfigT, path: pathlib.Path, content: bytes | None = None, learner: str | None = None) -> ConfigT:
    """``base`` with the values of a YAML file.

    Args:
      base: where to start from; switched to the file's learner, if it names one.
      path: of the file.
      content: of the file, if it was read before.
      learner: takes the place of the one that the file names.

    Raises:
      UsageError: naming the file, if it cannot be read or says something that is not allowed.
    """
    try:
        nested = values.read_yaml(values.read_file(path) if content is None else content)
        named = learner or _learner_in(nested, "")
        if named is not None:
            base = learners.for_learner(base, named)
            nested["learner"] = Text(named)
        return values.from_mapping(base, nested)
    except OSError as error:
        raise UsageError(f"config: cannot read {shown(str(path))[1:-1]}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"config: {shown(str(path))[1:-1]}: {error}") from error


def saved_config(option: str, base: ConfigT, folder: pathlib.Path) -> ConfigT:
    """The configuration with which a run was started, checked by its digest; see :func:`runs.read_config`."""
    return from_yaml(base, folder / runs.CONFIG, runs.read_config(option, folder))


def parse(
    experiment: str, presets: Mapping[str, ConfigT], arguments: Sequence[str], program: str, description: str
) -> Command[ConfigT]:
    """Reads a command line.

    Args:
      experiment: its name.
      presets: configurations by name, the default one first.
      arguments: the command line without the program.
      program: how it was called, for the help text.
      description: first lines of the help text.

    Raises:
      UsageError: if anything in it is not allowed.
      SystemExit: after showing the help.
    """
    if any(argument.startswith(_COMPLETION) for argument in arguments):
        first = next(iter(presets))
        _show_help(presets, first, presets[first], arguments, program, description)
    wants_help = bool({"-h", "--help"} & set(arguments))
    flags = split_flags([argument for argument in arguments if argument not in ("-h", "--help")])
    own = _own(flags)
    preset = own.get("preset", next(iter(presets)))
    if preset not in presets:
        raise UsageError(f"preset: {unknown('preset', preset, list(presets))}")
    if "report" in own and "resume" in own:
        raise UsageError("--report and --resume exclude each other")
    named = next((_one(flag, str).text for flag in flags if flag.key == "learner"), None)
    base: Any = presets[preset]
    if named is not None:
        base = learners.for_learner(base, named)
    if wants_help:
        _show_help(presets, preset, base, ["--help"], program, description)
    folder, saved = None, None
    option = "report" if "report" in own else "resume"
    if option in own:
        results = next((_one(flag, pathlib.Path).text for flag in flags if flag.key == "results"), None)
        home = pathlib.Path(results).expanduser() if results is not None else base.results
        folder = runs.find(option, experiment, own[option], home)
        saved = saved_config(option, presets[next(iter(presets))], folder)
        if "preset" not in own and "config" not in own:
            base = saved if named is None else learners.for_learner(saved, named)
    if "config" in own:
        base = from_yaml(base, pathlib.Path(own["config"]).expanduser(), learner=named)
    nested = to_nested(flags, base)
    asked = _apply(base, nested, {flag.key: flag.text for flag in flags})
    if saved is None:
        return Command(asked)
    if different := values.differences(saved, asked, LOCATIONS):
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        told = f"{'; '.join(different[:3])}{more}"
        raise UsageError(f"{option}: {folder} was started with {told}; leave these away or start anew")
    # Where compiled programs are kept may differ, and is as asked now.
    resumed = dataclasses.replace(saved, cache_dir=asked.cache_dir)  # type: ignore[type-var]
    return Command(resumed, folder, "report" in own)


def _show_help(
    presets: Mapping[str, Any], preset: str, base: Any, arguments: Sequence[str], program: str, description: str
) -> NoReturn:
    """Lets tyro show what there is, with the flags of the chosen learner; then exits."""
    import tyro

    @dataclasses.dataclass(frozen=True)
    class Options:
        """Options of this command. A flag overrides the YAML file, which overrides the preset.

        Attributes:
          run: the experiment's configuration.
          preset: where to start from.
          config: a YAML file with the keys shown here (nested), such as the config.yaml of an earlier run.
          resume: go on with a run that was stopped: its folder or name, or nothing for the newest one.
          report: write an earlier run's report anew from its stored returns: its folder or name, or nothing likewise.
        """

        run: Any
        preset: str
        config: pathlib.Path | None = None
        resume: str | None = None
        report: str | None = None

    kind, names = type(base), f"Presets: {', '.join(presets)}."
    if hasattr(base, "agent"):  # a study has none
        kind, names = kind[type(base.agent)], f"{names} Learners: {', '.join(learners.registered())}."
    Options.__annotations__["run"] = Annotated[kind, tyro.conf.arg(name="")]
    options: Any = Options
    tyro.cli(
        options,
        default=Options(base, preset),
        args=list(arguments),
        prog=program,
        description=f"{description}\n\n{names}",
    )
    raise SystemExit(0)
