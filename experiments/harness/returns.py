"""Raw returns on disk: sealed, checked by name and shape, and enough to compute every interval again. Free of jax.

``agents/<id>/returns.npz`` holds one array ``f32[M, C, B, E]`` a domain (replicas, conditions, tasks, query episodes).
``returns.npz`` of the run holds all of them, compressed, with the returns of the baselines: with ``config.yaml`` it is
what tables, figures and page are made from.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.harness.plan import TrainingRun
from experiments.harness.runs import RETURNS, RunFolder
from experiments.report.results import BASELINES, DomainBaselines, conditions

Shapes = Mapping[str, tuple[int, ...]]


class Measured(NamedTuple):
    """What a run has measured.

    Attributes:
      baselines: of every domain, in the order of the tables.
      returns: ``f32[M, C, B, E]`` by training run's id and domain.
    """

    baselines: Mapping[str, DomainBaselines]
    returns: Mapping[tuple[str, str], np.ndarray]


def to_bytes(arrays: Mapping[str, Any], compress: bool = False) -> bytes:
    """An npz file; equal arrays make equal bytes."""
    buffer = io.BytesIO()
    save: Any = np.savez_compressed if compress else np.savez
    save(buffer, **{name: np.asarray(array) for name, array in arrays.items()})
    return buffer.getvalue()


def from_bytes(content: bytes, shapes: Shapes) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of an npz file, and what is wrong with them: empty text if names and shapes are as they should be."""
    try:
        with np.load(io.BytesIO(content)) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        return {}, f"cannot be read: {error}"
    if missing := [name for name in shapes if name not in arrays]:
        return {}, f"lacks {', '.join(missing)}"
    if strange := [name for name in arrays if name not in shapes]:
        return {}, f"holds {', '.join(strange)}, which this configuration does not measure"
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            return {}, f"{name} has shape {arrays[name].shape}, not {shape}"
        if arrays[name].dtype.kind not in "fU":
            return {}, f"{name} holds {arrays[name].dtype}"
    return arrays, ""


def read(folder: RunFolder, name: str, shapes: Shapes, otherwise: str) -> dict[str, np.ndarray] | None:
    """Arrays of a file of the run; None if it is missing, or damaged or of other arrays, which is told."""
    content = folder.read(name, otherwise)
    if content is None:
        return None
    arrays, fault = from_bytes(content, shapes)
    if fault:
        folder.notify(f"{folder.path / name} {fault}; {otherwise}")
        return None
    return arrays


def _shape(config: Any) -> tuple[int, ...]:
    asked = config.evaluation
    return (config.replicas, len(conditions(asked.support_episodes)), asked.tasks, asked.episodes)


def file_of(run: TrainingRun) -> str:
    """Name of a training run's returns, relative to the folder."""
    return f"agents/{run.id}/{RETURNS}"


def finished(folder: RunFolder, config: Any, run: TrainingRun) -> dict[str, np.ndarray] | None:
    """Returns of a training run that was measured before, by domain; None if it is to be measured."""
    shapes = dict.fromkeys(run.tested_on(config.domains), _shape(config))
    return read(folder, file_of(run), shapes, f"{run.label} is measured anew")


def store(folder: RunFolder, config: Any, measured: Measured) -> None:
    """Writes the returns of the whole run."""
    raw: dict[str, Any] = {f"returns/{run}/{domain}": array for (run, domain), array in measured.returns.items()}
    for domain, its in measured.baselines.items():
        raw |= {f"anchors/{domain}/{policy}": array for policy, array in its.returns.items()}
        raw |= {f"unit/{domain}": its.unit, f"reference_kind/{domain}": its.reference_kind}
    raw["conditions"] = [condition.label for condition in conditions(config.evaluation.support_episodes)]
    folder.write(RETURNS, to_bytes(raw, compress=True))


def restore(folder: RunFolder, config: Any, plan: tuple[TrainingRun, ...], otherwise: str) -> Measured | None:
    """What :func:`store` wrote; None if it is missing, or damaged, which is told."""
    shapes: dict[str, tuple[int, ...]] = {
        f"returns/{run.id}/{domain}": _shape(config) for run in plan for domain in run.tested_on(config.domains)
    }
    for domain in config.domains:
        shapes |= {f"anchors/{domain}/{policy}": (config.evaluation.tasks,) for policy in BASELINES}
        shapes |= {f"unit/{domain}": (), f"reference_kind/{domain}": ()}
    shapes["conditions"] = (_shape(config)[1],)
    raw = read(folder, RETURNS, shapes, otherwise)
    if raw is None:
        return None
    baselines = {
        domain: DomainBaselines(
            {policy: raw[f"anchors/{domain}/{policy}"] for policy in BASELINES},
            str(raw[f"unit/{domain}"]),
            str(raw[f"reference_kind/{domain}"]),
        )
        for domain in config.domains
    }
    returns = {
        (run.id, domain): raw[f"returns/{run.id}/{domain}"] for run in plan for domain in run.tested_on(config.domains)
    }
    return Measured(baselines, returns)
