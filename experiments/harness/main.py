"""Does an agent that learned in one field adapt to another within a few episodes?

    python -m experiments.transfer [--preset cpu|three|smoke|gpu] [--protocol both|pairs|leave-out] [--resume [RUN]]

Trains an agent on each domain, and agents on all domains but a few; adapts them to new tasks of every domain, or of
those left out, with a few support episodes; and sets the scores beside controls: random weights, no adaptation, another
task's support, support without rewards, a multitask agent.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from experiments import cli, machine, runs
from experiments.config import PRESETS, TransferConfig
from experiments.plan import agents

if TYPE_CHECKING:  # jax and what needs it load after the configuration was checked
    from experiments.results import Results

EXPERIMENT = "transfer"
PROGRAM = f"python -m experiments.{EXPERIMENT}"


class Interrupted(Exception):  # noqa: N818 - not an error, somebody asked
    """The run was asked to stop and everything worth keeping is saved."""


class StopRequest:
    """Remembers that SIGTERM or SIGINT came, so that the interval can be finished; a second one ends at once."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        print(f"{signal.Signals(number).name}: finishing this interval, then saving", file=sys.stderr, flush=True)

    def __bool__(self) -> bool:
        return bool(self.signal)

    def check(self) -> None:
        """Raises if the signal came."""
        if self:
            raise Interrupted


def _saved(which: str, results: pathlib.Path) -> TransferConfig:
    return runs.saved_config(TransferConfig(), runs.find(EXPERIMENT, which, results))


def open_run(arguments: Sequence[str]) -> tuple[TransferConfig, runs.RunFolder, pathlib.Path | None]:
    """Reads the command line and opens the run's folder: configuration, folder, folder of compiled programs.

    Raises:
      UsageError: if anything is not allowed, cannot be written, or does not fit the run to resume.
    """
    command = cli.parse(PRESETS, _saved, arguments, PROGRAM, (__doc__ or "").split("\n\n")[0])
    config = command.run
    cache = machine.cache_folder(config.cache_dir)
    if command.resume is None:
        name = config.name or runs.default_name(config.protocol)
        config = dataclasses.replace(config, name=name)
        return config, runs.RunFolder(config.results / EXPERIMENT / name, config, resume=False), cache
    path = runs.find(EXPERIMENT, command.resume, config.results)
    saved = runs.saved_config(TransferConfig(), path)
    if different := cli.differences(saved, config):
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        named = f"{'; '.join(different[:3])}{more}"
        raise cli.UsageError(f"resume: {path} was started with {named}; leave these away or start anew")
    return saved, runs.RunFolder(path, saved, resume=True), cache


def announce(config: TransferConfig, folder: runs.RunFolder, cache: pathlib.Path | None) -> None:
    """Says what will be done, before anything heavy is loaded."""
    plan = agents(config.protocol, config.domains, config.groups)
    trained = sum(agent.role != "random weights" for agent in plan)
    shots = ", ".join(map(str, config.evaluation.shots))
    print(
        f"transfer ({config.protocol}): {trained} agents x {len(config.arms)} arms x {config.seeds} seeds, "
        f"{config.training.iterations} meta-iterations each; tested on {', '.join(config.domains)} "
        f"with K = {shots} support episodes, {config.evaluation.tasks} tasks x {config.evaluation.episodes} episodes"
    )
    print(f"results: {folder.path}")
    print(f"compiled programs: {cache or 'not kept, the cache folder cannot be written'}; loading JAX", flush=True)


def carry_out(config: TransferConfig, folder: runs.RunFolder, stop: StopRequest) -> Results:
    """Trains and evaluates whatever is not finished yet, agent by agent.

    Raises:
      Interrupted: if asked to stop, after saving.
      training.DivergedError: if an agent's loss is no longer finite.
    """
    import jax
    from rich.console import Console

    from experiments.laboratory import Laboratory
    from experiments.progress import Display
    from experiments.results import Results, load_arrays, save_arrays
    from metarl_jax.training import Stopped

    note_versions(folder, machine.versions(jax.devices()))
    plan = agents(config.protocol, config.domains, config.groups)
    trained = [agent for agent in plan if agent.role != "random weights"]
    with Display(len(trained) * config.training.iterations, Console()) as display:
        display.state("building domains and evaluation sets")
        lab = Laboratory(config)
        finished = {agent: load_arrays(folder.agent(agent.id) / "returns.npz") for agent in plan}
        for agent in plan:
            if finished[agent] is None:
                display.work.plan(agent.id, lab.work(agent))
        stop.check()
        display.state("returns of random, no-op, heuristic and reference policies")
        targets = lab.targets()
        returns = {}
        for agent in plan:
            stop.check()
            measured = finished[agent]
            if measured is None:
                try:
                    state = lab.train(agent, folder, display, lambda: bool(stop))
                except Stopped as stopped:
                    display.note(f"{agent.label}: saved at iteration {stopped.iteration}")
                    raise Interrupted from stopped
                stop.check()
                measured = lab.evaluate_everywhere(agent, state, folder, display)
                save_arrays(folder.agent(agent.id) / "returns.npz", measured)
            else:
                display.note(f"{agent.label}: finished before")
                display.advance(config.training.iterations if agent in trained else 0)
            returns.update({(agent.id, target): array for target, array in measured.items()})
    return Results(config.protocol, config.seeds, config.arms, lab.conditions, plan, targets, returns)


def note_versions(folder: runs.RunFolder, now: dict[str, object]) -> None:
    """Writes the versions of a new run; warns if a resumed one was started with others."""
    before = folder.read_json(runs.VERSIONS)
    if before is None:
        folder.write_json(runs.VERSIONS, now)
        return
    changed = [key for key in now if key != "command" and before.get(key) != now[key]]
    if changed:
        print(f"warning: {', '.join(changed)} changed since this run was started; scores may differ in the last bits")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment; returns the exit code."""
    start = time.monotonic()
    try:
        config, folder, cache = open_run(sys.argv[1:] if arguments is None else arguments)
    except cli.UsageError as error:
        return cli.refuse(error)
    with folder:
        return _run(config, folder, cache, start)


def _run(config: TransferConfig, folder: runs.RunFolder, cache: pathlib.Path | None, start: float) -> int:
    stop = StopRequest()
    announce(config, folder, cache)

    machine.prepare_jax(cache)
    from experiments import report
    from metarl_jax.training import DivergedError

    try:
        results = carry_out(config, folder, stop)
    except Interrupted:
        print(f"stopped; go on with: {PROGRAM} --resume {folder.path}", flush=True)
        return 128 + stop.signal
    except (DivergedError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    usage = {
        "seconds_of_this_process": round(time.monotonic() - start, 1),
        "cpu_seconds_of_this_process": round(sum(os.times()[:2]), 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    report.write(results, config, folder, usage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
