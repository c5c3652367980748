"""A run's folder: made and checked before anything is loaded, written so that a kill at any moment leaves it usable."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import IO, Any

import yaml

from experiments.cli import LATEST, ConfigT, UsageError, from_yaml, to_mapping

CONFIG, METRICS, VERSIONS, VALIDATION = "config.yaml", "metrics.jsonl", "versions.json", "validation.json"


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all, and durably."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)  # temporary files are private
    os.replace(file.name, path)


def find(experiment: str, which: str, results: pathlib.Path) -> pathlib.Path:
    """The folder of a run to resume: a path, a run's name, or "latest".

    Raises:
      UsageError: if there is none.
    """
    home = results / experiment
    if which == LATEST:
        runs = [path.parent for path in home.glob(f"*/{CONFIG}")]
        if not runs:
            raise UsageError(f"resume: there is no run in {home}")
        return max(runs, key=lambda run: (run / CONFIG).stat().st_mtime)
    for folder in (pathlib.Path(which), home / which):
        if (folder / CONFIG).is_file():
            return folder
    raise UsageError(f"resume: {which} is not the folder of a run (it holds no {CONFIG})")


def default_name(protocol: str) -> str:
    """A name that sorts by time."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{protocol}"


class RunFolder:
    """Files of one run; held by one process at a time, until it is closed (use it as a context manager) or ends.

    Args:
      path: the folder.
      config: the resolved configuration.
      resume: the folder must exist already, else it must not.

    Raises:
      UsageError: if it cannot be written, exists already, or is in use.
    """

    def __init__(self, path: pathlib.Path, config: Any, resume: bool):
        self.path = path
        if not resume and (path / CONFIG).exists():
            raise UsageError(f"name: {path} holds a run already; give another --name, or go on with --resume {path}")
        try:
            self.figures.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (path / ".lock").open("w")
            if not resume:
                text = yaml.safe_dump(to_mapping(config), sort_keys=False)
                write_atomically(path / CONFIG, text.encode())
        except OSError as error:
            raise UsageError(f"results: cannot write to {path}: {error.strerror}") from error
        try:
            # Released by the system when the process ends, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):  # other errors: a file system that knows no locks
                self._lock.close()
                raise UsageError(f"resume: {path} is in use by another process") from error
        self._seen = self._repair_metrics()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    @property
    def figures(self) -> pathlib.Path:
        """Folder of the figures."""
        return self.path / "figures"

    def agent(self, agent_id: str) -> pathlib.Path:
        """Folder of one agent: its checkpoints and returns."""
        folder = self.path / "agents" / agent_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _repair_metrics(self) -> set[tuple[str, int]]:
        """Drops a last line that was cut short; returns what is logged already, which a repeat must not log twice."""
        path = self.path / METRICS
        if not path.exists():
            return set()
        whole = []
        for line in path.read_text().splitlines():
            try:
                whole.append((line, json.loads(line)))
            except json.JSONDecodeError:
                break
        write_atomically(path, "".join(f"{line}\n" for line, _ in whole).encode())
        return {(entry["agent"], entry["iteration"]) for _, entry in whole}

    def log(self, agent_id: str, iteration: int, entry: Mapping[str, Any]) -> None:
        """Adds one line to the metrics, unless the same interval was logged before an interruption."""
        if (agent_id, iteration) in self._seen:
            return
        self._seen.add((agent_id, iteration))
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps({"agent": agent_id, "iteration": iteration, **entry}) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of the metrics."""
        path = self.path / METRICS
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def read_json(self, name: str) -> Any:
        """Reads a JSON file; None if there is none."""
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else None

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file."""
        write_atomically(self.path / name, (json.dumps(content, indent=1) + "\n").encode())


def saved_config(base: ConfigT, folder: pathlib.Path) -> ConfigT:
    """The configuration with which a run was started."""
    return from_yaml(base, folder / CONFIG)
