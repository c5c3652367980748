"""The command of a study: an experiment that trains no agents, made of parts whose results are JSON.

A part is computed once and stored whole, sealed, as ``parts/<part>.json``; a run that was killed at any moment goes on
with the first part that is missing or damaged. Summary, page and figures are made from the stored parts alone. An entry
point is a package as in :mod:`experiments.harness.main`, with a :class:`Study` in place of an Experiment;
command line, run folder, seals, signals and errors in one line are the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from experiments.harness.errors import UsageError
from experiments.harness.main import carry_through, program
from experiments.harness.settings import check_locations
from experiments.harness.stopping import Phase, Signals
from metarl_jax.checks import check_fields

if TYPE_CHECKING:
    from experiments.harness.runs import RunFolder

ConfigT = TypeVar("ConfigT", bound="StudyConfig")
Results = Mapping[str, Any]
"""Results of parts by name."""


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """What all studies have in common; one extends it by its own fields, each with a default.

    Attributes:
      seed: of all randomness.
      results: folder of all runs; this one gets ``<results>/<study>/<name>``.
      name: of the run; empty takes the time and the label.
      cache_dir: where compiled programs are kept between runs; default: JAX_COMPILATION_CACHE_DIR, else the user's
        cache folder.
    """

    seed: int = 0
    results: pathlib.Path = pathlib.Path("results")
    name: str = ""
    cache_dir: pathlib.Path | None = None

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return "study"

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, by name, before anything is compiled."""
        check_fields(self)
        if not 0 <= self.seed < 2**32:  # a key holds no more: beyond, seeds would repeat
            raise ValueError(f"seed must be a whole number at least 0 and at most {2**32 - 1}, got {self.seed}")
        check_locations(self)


class Part(NamedTuple):
    """A part of a study: its name, and a function of the results before it that returns what can be JSON."""

    name: str
    compute: Callable[[Results], Any]


@dataclasses.dataclass(frozen=True)
class Study(Generic[ConfigT]):
    """What a study is, beyond what all have in common. Making one loads neither jax nor numpy.

    Attributes:
      name: folder of its runs below ``results``, and of its package.
      description: first lines of the help text.
      presets: configurations by name, the default one first.
      check: ``config ->``; refuses by ``ValueError`` what the configuration alone could not, before anything is
        written. Jax is prepared by then.
      parts: ``config -> parts``, in the order in which they are computed.
      announce: ``config ->`` one line that says what will be done.
      summary: ``(config, results) -> summary.json``.
      report: ``(config, results, folder)``: writes the page and the figures by ``folder.write``.
      cpu_devices: ``config -> devices`` that a CPU shows; 0 shows one a core.
    """

    name: str
    description: str
    presets: Mapping[str, ConfigT]
    check: Callable[[ConfigT], None]
    parts: Callable[[ConfigT], Sequence[Part]]
    announce: Callable[[ConfigT], str]
    summary: Callable[[ConfigT, Results], dict[str, Any]]
    report: Callable[[ConfigT, Results, RunFolder], None]
    cpu_devices: Callable[[ConfigT], int] = lambda config: 0

    @property
    def program(self) -> str:
        """The command as it was called."""
        return program(self.name)


@dataclasses.dataclass(frozen=True)
class Opened(Generic[ConfigT]):
    """A command that may go ahead; see :class:`experiments.harness.main.Opened`."""

    config: ConfigT
    folder: RunFolder
    cache: pathlib.Path | None
    report: bool = False


def open_study(study: Study[Any], arguments: Sequence[str]) -> Opened[Any]:
    """Reads the command line, checks what can be checked, and opens the run's folder. Writes nothing before.

    Raises:
      UsageError: if anything is not allowed, cannot fit, cannot be written, or does not fit the run to resume.
    """
    from experiments.harness import cli, machine, runs

    command = cli.parse(study.name, study.presets, arguments, study.program, study.description)
    config, path = command.run, command.folder
    if command.report:
        assert path is not None
        return Opened(config, runs.RunFolder(path, config, resume=True), None, report=True)
    cache = machine.cache_folder(config.cache_dir, make=False)
    prepare_jax(study, config, cache)
    try:
        study.check(config)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if path is not None:
        return Opened(config, runs.RunFolder(path, config, resume=True), cache)
    config = dataclasses.replace(config, name=config.name or runs.default_name(config.label))
    return Opened(config, runs.RunFolder(config.results / study.name / config.name, config, resume=False), cache)


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays and tuples as lists, numbers of NumPy as numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def _file(part: str) -> str:
    return f"parts/{part}.json"


def _compute(study: Study[Any], opened: Opened[Any], signals: Signals) -> dict[str, Any]:
    """Computes the parts that are not stored; returns all as they are stored, by name."""
    from experiments.harness import execution, machine

    config, folder = opened.config, opened.folder
    signals.enter("loading")
    if opened.cache is not None:
        machine.cache_folder(config.cache_dir)
    import jax

    execution.note_versions(folder, machine.versions(jax.devices()))
    stored: dict[str, Any] = {}
    for part in study.parts(config):
        found = folder.read_json(_file(part.name), "it is computed anew")
        if found is None:
            signals.enter("testing")
            wall, cpu = time.monotonic(), time.process_time()
            result = plain(part.compute({name: entry["result"] for name, entry in stored.items()}))
            usage = {"seconds": round(time.monotonic() - wall, 3), "cpu_seconds": round(time.process_time() - cpu, 3)}
            # What is stored is what is read back: a run that was stopped then ends as one that was not.
            found = json.loads(json.dumps({"result": result, "usage": usage}))
            folder.write_json(_file(part.name), found)
            print(f"{part.name}: {usage['seconds']} s, {usage['cpu_seconds']} CPU-s", flush=True)
        stored[part.name] = found
    return stored


def prepare_jax(study: Study[Any], config: Any, cache: pathlib.Path | None) -> None:
    """As :func:`experiments.harness.machine.prepare_jax`, with as many CPU devices as the study asks for."""
    from experiments.harness import machine

    # Where jax has computed already, in a test or a notebook, it keeps the devices it has.
    with contextlib.suppress(RuntimeError):
        machine.prepare_jax(cache, study.cpu_devices(config) or None)


def _restore(study: Study[Any], opened: Opened[Any], signals: Signals) -> dict[str, Any]:
    stored = {}
    for part in study.parts(opened.config):
        found = opened.folder.read_json(_file(part.name), f"compute it anew with: {signals.go_on}")
        if found is None:
            place = opened.folder.path / _file(part.name)
            raise UsageError(f"report: there is no usable {place}; go on with: {signals.go_on}")
        stored[part.name] = found
    return stored


def _run(study: Study[Any], opened: Opened[Any], signals: Signals, start: float) -> None:
    from experiments.harness.values import to_mapping

    config, folder = opened.config, opened.folder
    if opened.report:
        stored = _restore(study, opened, signals)
    else:
        print(study.announce(config))
        print(f"results: {folder.path}", flush=True)
        stored = _compute(study, opened, signals)
    signals.enter("reporting")
    results = {name: entry["result"] for name, entry in stored.items()}
    study.report(config, results, folder)
    made_by = {"experiment": study.name, "config": to_mapping(config)}
    usage = {"usage": {name: entry["usage"] for name, entry in stored.items()}}
    folder.write_json("summary.json", plain(made_by | study.summary(config, results) | usage))
    print(f"report: {folder.path / 'report.md'}")


def main(
    load: Callable[[], Study[Any]],
    arguments: Sequence[str] | None = None,
    on_phase: Callable[[Phase], object] = lambda phase: None,
) -> int:
    """Runs a study's command; arguments and exit codes as of :func:`experiments.harness.main.main`."""
    return carry_through(load, open_study, _run, arguments, on_phase)
