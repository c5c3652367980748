"""The command of any experiment: one call, of what the experiment is.

An entry point is a package ``experiments/<name>`` of a configuration (presets), a plan (which agents are trained, on
what) and sections (what the report says), and this in its ``__main__``::

    def experiment() -> Experiment:
        from experiments.<name>.configuration import PRESETS
        from experiments.<name>.plan import announce, plan

        return Experiment("<name>", "What it asks.", PRESETS, plan, announce, report)

    if __name__ == "__main__":
        sys.exit(main(experiment))

The command line, the run folder with its seals and lock, resuming, signals, errors in one line, memory and progress are
the same for all, and are here.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import resource
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from experiments.harness.errors import (
    Interrupted,
    UsageError,
    explain,
    quiet_libraries,
    refuse,
    replace_what_cannot_be_encoded,
    tell,
)
from experiments.harness.stopping import Phase, Signals

if TYPE_CHECKING:  # what takes long to load is loaded after the command line was checked
    from experiments.harness.plan import TrainingRun
    from experiments.harness.returns import Measured
    from experiments.harness.runs import RunFolder

ConfigT = TypeVar("ConfigT")
Usage = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[ConfigT]):
    """What an experiment is, beyond what all have in common. Making one loads neither jax nor numpy.

    Attributes:
      name: folder of its runs below ``results``, and of its package.
      description: first lines of the help text.
      presets: configurations (:class:`~experiments.harness.settings.ExperimentConfig`) by name, the default one first.
      plan: ``config -> training runs``, in the order in which they are trained.
      announce: ``config ->`` one line that says what will be done.
      report: ``(config, plan, measured, folder, usage)``: writes everything that a finished run leaves behind, by
        ``folder.write``, from the returns alone, without jax.
      resolve: ``config -> config``: fills in what a new run's configuration leaves open, before it is written.
      carry_out: ``(config, plan, folder, signals) -> Measured``; None trains and tests every run of the plan. One of
        your own calls :func:`experiments.harness.machine.prepare_jax` before it uses jax.
    """

    name: str
    description: str
    presets: Mapping[str, ConfigT]
    plan: Callable[[ConfigT], tuple[TrainingRun, ...]]
    announce: Callable[[ConfigT], str]
    report: Callable[[ConfigT, tuple[TrainingRun, ...], Measured, RunFolder, Usage], None]
    resolve: Callable[[ConfigT], ConfigT] = lambda config: config
    carry_out: Callable[[ConfigT, tuple[TrainingRun, ...], RunFolder, Signals], Measured] | None = None

    @property
    def program(self) -> str:
        """The command as it was called: the console script, or the module."""
        return program(self.name)


def program(name: str) -> str:
    """The command of an entry point as it was called: the console script, or the module."""
    script = f"metarl-{name}"
    called = pathlib.Path(sys.argv[0]).stem if sys.argv else ""
    return script if called == script else f"python -m experiments.{name}"


@dataclasses.dataclass(frozen=True)
class Opened(Generic[ConfigT]):
    """A command that may go ahead.

    Attributes:
      config: its configuration.
      plan: its training runs.
      folder: of the run, held by this process.
      cache: folder of compiled programs; None keeps none.
      report: only the report is asked for.
    """

    config: ConfigT
    plan: tuple[TrainingRun, ...]
    folder: RunFolder
    cache: pathlib.Path | None
    report: bool = False


def open_run(experiment: Experiment[Any], arguments: Sequence[str]) -> Opened[Any]:
    """Reads the command line, checks what can be checked, and opens the run's folder. Writes nothing before.

    Raises:
      UsageError: if anything is not allowed, cannot fit, cannot be written, or does not fit the run to resume.
    """
    from experiments.harness import cli, machine, memory, runs

    command = cli.parse(experiment.name, experiment.presets, arguments, experiment.program, experiment.description)
    config, path = command.run, command.folder
    if path is None:
        config = experiment.resolve(config)
    plan = experiment.plan(config)
    if command.report:
        assert path is not None
        return Opened(config, plan, runs.RunFolder(path, config, resume=True), None, report=True)
    memory.check(config, len(plan))
    cache = machine.cache_folder(config.cache_dir, make=False)
    if path is not None:
        return Opened(config, plan, runs.RunFolder(path, config, resume=True), cache)
    name = config.name or runs.default_name(config.label)
    config = dataclasses.replace(config, name=name)
    return Opened(config, plan, runs.RunFolder(config.results / experiment.name / name, config, resume=False), cache)


def main(
    load: Callable[[], Experiment[Any]],
    arguments: Sequence[str] | None = None,
    on_phase: Callable[[Phase], object] = lambda phase: None,
) -> int:
    """Runs an experiment's command.

    Args:
      load: makes the experiment; called after signals are answered.
      arguments: the command line without the program; default: of this process.
      on_phase: told every phase that begins.

    Returns:
      The exit code: 0; 1 for an error on the way, told in one line; 2 for a command that was refused, in one line,
      before anything was written; 128 + signal for a run that was asked to stop.
    """
    return carry_through(load, open_run, _run, arguments, on_phase)


def carry_through(
    load: Callable[[], Any],
    open_it: Callable[[Any, Sequence[str]], Any],
    run: Callable[[Any, Any, Signals, float], None],
    arguments: Sequence[str] | None,
    on_phase: Callable[[Phase], object],
) -> int:
    """Signals, errors in one line, and exit codes around any command that works in a run's folder.

    Args:
      load: makes what is run, which has a ``program``; called after signals are answered.
      open_it: ``(what is run, arguments) -> opened``, which has a ``folder``; raises :class:`UsageError`.
      run: ``(what is run, opened, signals, start)``, with the time of the start [s].
      arguments: the command line without the program; None takes this process's.
      on_phase: told every phase that begins.

    Returns:
      The exit code, see :func:`main`.
    """
    start = time.monotonic()
    replace_what_cannot_be_encoded()
    with Signals(on_phase) as signals:
        signals.enter("parsing")
        try:
            loaded = load()
            opened = open_it(loaded, sys.argv[1:] if arguments is None else arguments)
        except UsageError as error:
            return refuse(error)
        except BrokenPipeError:  # ``--help | head``
            _let_go_of_stdout()
            return 1
        except (OSError, MemoryError) as error:
            tell(f"error: {explain(error, 'the same command')}")
            return 1
        with opened.folder, quiet_libraries():
            return _guarded(loaded.program, opened.folder, signals, lambda: run(loaded, opened, signals, start))


def _let_go_of_stdout() -> None:
    """Where nobody reads it any more; or the interpreter stumbles over that again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _guarded(called: str, folder: RunFolder, signals: Signals, run: Callable[[], None]) -> int:
    signals.go_on = f"{called} --resume {shlex.quote(str(folder.path))}"
    try:
        run()
        sys.stdout.flush()
        return 0
    except Interrupted:
        tell(signals.line(signals.received, "saved"))
        return 128 + signals.received
    except UsageError as error:
        return refuse(error)
    except BaseException as error:
        line = explain(error, signals.go_on)
        if line is None:
            raise
        if isinstance(error, BrokenPipeError):
            _let_go_of_stdout()
        tell(f"error: {line}")
        return 1


def _run(experiment: Experiment[Any], opened: Opened[Any], signals: Signals, start: float) -> None:
    config, plan, folder = opened.config, opened.plan, opened.folder
    if opened.report:
        from experiments.harness import returns

        measured = returns.restore(folder, config, plan, f"measure it anew with: {signals.go_on}")
        if measured is None:
            raise UsageError(f"report: {folder.path} holds no usable {returns.RETURNS}; go on with: {signals.go_on}")
        usage = (folder.read_json("summary.json") or {}).get("usage", {})
    else:
        print(experiment.announce(config))
        print(f"results: {folder.path}")
        kept = opened.cache or "not kept, the cache folder cannot be written"
        print(f"compiled programs: {kept}", flush=True)
        from experiments.harness import execution, returns

        carry_out = experiment.carry_out or execution.train_and_test
        measured = carry_out(config, plan, folder, signals)
        returns.store(folder, config, measured)
        usage = {
            "seconds_of_this_process": round(time.monotonic() - start, 1),
            "cpu_seconds_of_this_process": round(sum(os.times()[:2]), 1),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
    signals.enter("reporting")
    experiment.report(config, plan, measured, folder, usage)
