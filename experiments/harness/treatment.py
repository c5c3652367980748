"""Equal treatment of agents that are compared: what may not differ between them is checked, by name, and stops the run.

What each is given is taken from what the session really holds (its learner's needs, the tasks and keys of its tests)
before anything is trained; it is stored beside the returns, so that a run that goes on with other code is told too.
What may differ (choices, gradient steps, parameters) the report says. Free of jax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.harness.errors import UnequalTreatmentError
from experiments.harness.plan import TrainingRun
from experiments.harness.runs import RunFolder

TREATMENT = "treatment.json"


@dataclasses.dataclass(frozen=True)
class Treatment:
    """What a training run is given.

    Attributes:
      labels: whether its outer loss may see the reference's choices.
      trained_on: training domains.
      seeds: replicas.
      tests: by domain, a digest of the test's tasks and of the keys of its support and query episodes.
      conditions: labels of what it is given before its query episodes.
      validated_on: training domains on whose validation tasks its candidates are compared; none with one candidate.
      candidates: how many are compared there.
      most_support: largest K that tests give.
      trained_support: largest K that training gives; 0 for learners that train without support.
      support: whose choices its support episodes are: "random", the same for all, or its "own".
      data: "collected" as it trains, or "frozen": made before, by behaviours that include the reference.
      iterations: meta-iterations.
      choices: choices in environments that training takes, of one replica; frozen data count for each learner.
      parameters: how many numbers adapt and act, without target networks.
    """

    labels: bool
    trained_on: list[str]
    seeds: int
    tests: dict[str, str]
    conditions: list[str]
    validated_on: list[str]
    candidates: int
    most_support: int
    trained_support: int
    support: str
    data: str
    iterations: int
    choices: float
    parameters: int


EQUAL = {
    "trained_on": "was trained on other domains",
    "seeds": "has other seeds",
    "conditions": "was tested under other conditions",
    "tests": "was tested on other tasks or keys",
    "most_support": "is given other numbers of support episodes",
}
"""What must be the same for all that are compared, and what a difference means."""

TOLERANCE = 0.25
"""Choices and gradient steps that differ by more than this share are named in the table."""


def _differ(field: str, one: Any, other: Any) -> str:
    """How two values of a field differ, with the domains where it is one of a domain each."""
    if not isinstance(one, dict):
        return f"{field}: {one}, not {other}"
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return f"{field}: {', '.join(names)}"


def check(given: Mapping[TrainingRun, Treatment]) -> None:
    """Compares all training runs with the first.

    Raises:
      UnequalTreatmentError: naming the run, what differs, and from what.
    """
    if not given:
        return
    (first, norm), *_ = given.items()
    validated: tuple[str, list[str]] | None = None
    for run, its in given.items():

        def unequal(what: str, run: TrainingRun = run) -> UnequalTreatmentError:
            return UnequalTreatmentError(f"equal treatment: {run.label} {what}")

        for field, told in EQUAL.items():
            one, other = getattr(its, field), getattr(norm, field)
            if one != other:
                raise unequal(f"{told} than {first.label} ({_differ(field, one, other)})")
        if its.trained_support > its.most_support:
            raise unequal(f"trains with {its.trained_support} support episodes, tests give {its.most_support}")
        if strange := sorted({*its.validated_on} - {*its.trained_on}):
            raise unequal(f"was validated on domains that it is not trained on ({', '.join(strange)})")
        if its.labels != (run.arm == "reference"):
            raise unequal(f"is in arm {run.arm} {'with' if its.labels else 'without'} labels")
        if its.validated_on:
            validated = validated or (run.label, its.validated_on)
            if its.validated_on != validated[1]:
                raise unequal(f"was validated on other domains than {validated[0]}")


def file_of(run: TrainingRun) -> str:
    """Name of a training run's treatment, relative to the folder."""
    return f"agents/{run.id}/{TREATMENT}"


def store(folder: RunFolder, run: TrainingRun, its: Treatment) -> None:
    """Writes what a training run was given."""
    folder.write_json(file_of(run), dataclasses.asdict(its))


def stored(folder: RunFolder, run: TrainingRun, otherwise: str) -> Treatment | None:
    """What a training run was given; None if that is missing, damaged or of another version, which is told."""
    content = folder.read_json(file_of(run), otherwise)
    try:
        return None if content is None else Treatment(**content)
    except TypeError:
        folder.notify(f"{folder.path / file_of(run)} is of another version; {otherwise}")
        return None


def check_stored(run: TrainingRun, before: Treatment, now: Treatment) -> None:
    """What was measured earlier in a run must have been given what the rest of it is given now.

    Raises:
      UnequalTreatmentError: naming the run and the first thing that differs.
    """
    for field in dataclasses.fields(Treatment):
        one, other = getattr(before, field.name), getattr(now, field.name)
        if one != other:
            raise UnequalTreatmentError(
                f"equal treatment: {run.label} was measured before under what is no longer so "
                f"({_differ(field.name, one, other)}): start a new run"
            )
