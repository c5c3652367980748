"""Carries out a plan: trains and tests, agent by agent, whatever is not finished yet."""

from __future__ import annotations

from typing import Any

from experiments.harness import machine, returns, runs, treatment
from experiments.harness.errors import Interrupted
from experiments.harness.plan import TrainingRun
from experiments.harness.returns import Measured
from experiments.harness.runs import RunFolder
from experiments.harness.stopping import Signals
from experiments.harness.treatment import Treatment


def note_versions(folder: RunFolder, now: dict[str, object]) -> None:
    """Writes the versions of a new run; warns if a resumed one was started with others."""
    before = folder.read_json(runs.VERSIONS)
    if before is None:
        folder.write_json(runs.VERSIONS, now)
        return
    changed = [key for key in now if key != "command" and before.get(key) != now[key]]
    if changed:
        folder.notify(f"{', '.join(changed)} changed since this run was started; scores may differ in the last bits")
    if "worlds" in changed:
        theirs = before.get("worlds", "1.0")
        folder.notify(f"observations or rewards are those of worlds {now['worlds']}, not {theirs}: start a new run")


def train_and_test(config: Any, plan: tuple[TrainingRun, ...], folder: RunFolder, signals: Signals) -> Measured:
    """Trains every training run of a plan and tests it in its domains.

    What was measured before and is sealed is not measured again; if that is everything, jax is not even loaded.

    Args:
      config: an :class:`~experiments.harness.settings.ExperimentConfig`.
      plan: the training runs, in order.
      folder: of the run.
      signals: told the phases, and asked whether to stop.

    Raises:
      Interrupted: if asked to stop, after saving.
      UnequalTreatmentError: if agents that are compared are not given the same; before any is trained.
      training.DivergedError: if an agent's loss is no longer finite.
      OSError: if a file cannot be written.
    """
    measured_before = {run: returns.finished(folder, config, run) for run in plan}
    given_before: dict[TrainingRun, Treatment] = {}
    for run in plan:
        if run.is_compared and measured_before[run] is not None:
            its = treatment.stored(folder, run, f"{run.label} is measured anew")
            if its is None:
                measured_before[run] = None
            else:
                given_before[run] = its
    if all(found is not None for found in measured_before.values()):
        stored = returns.restore(folder, config, plan, "it is put together anew")
        if stored is not None:
            print("all agents were finished before: their stored returns are reported", flush=True)
            return stored
    signals.enter("loading")
    print("loading JAX", flush=True)
    machine.prepare_jax(machine.cache_folder(config.cache_dir))
    import jax
    from rich.console import Console

    from experiments.harness.progress import Display
    from experiments.harness.session import Session
    from metarl_jax.training import Stopped

    note_versions(folder, machine.versions(jax.devices()))
    total = sum(config.iterations_of(run) for run in plan if run.is_trained)
    with Display(total, Console()) as display:
        signals.enter("building")
        display.state("building domains and evaluation sets")
        session = Session(config)
        for run in plan:
            if measured_before[run] is None:
                display.work.plan(run.id, session.work(run))
        display.state("returns of random, no-op, heuristic and reference policies")
        baselines = session.baselines()
        given = {run: session.treatment(run) for run in plan if run.is_compared}
        for run, its in given_before.items():
            treatment.check_stored(run, its, given[run])
        treatment.check(given)
        measured = {}
        for run in plan:
            found = measured_before[run]
            if found is None:
                signals.enter("compiling")
                try:
                    state = session.train(run, folder, display, signals.training)
                except Stopped as stopped:
                    display.note(f"{run.label}: saved at iteration {stopped.iteration}")
                    raise Interrupted from stopped
                signals.check()
                signals.enter("testing")
                found = session.evaluate_everywhere(run, state, folder, display)
                if run in given:
                    treatment.store(folder, run, given[run])
                folder.write(returns.file_of(run), returns.to_bytes(found))
                if run.is_compared:  # the next is another learner's
                    session.let_go()
            else:
                display.note(f"{run.label}: finished before")
                display.advance(config.iterations_of(run) if run.is_trained else 0)
            measured.update({(run.id, domain): array for domain, array in found.items()})
    return Measured(baselines, measured)
