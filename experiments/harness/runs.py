"""A run's folder: made and checked before anything is loaded, written so that a kill at any moment leaves it usable.

Every file is sealed. ``manifest.sha256`` lists the digest of each (see :mod:`experiments.harness.files`); a line of
``metrics.jsonl``, which grows, carries its own; each step of a checkpoint has a manifest of its own, and its metadata
name the configuration that it belongs to. Whatever does not have the digest that it should have is named, and then
refused (the configuration), measured or written anew (returns, report), or dropped (a line of the metrics).
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import pathlib
import re
import threading
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

from experiments.harness import values
from experiments.harness.errors import UsageError, tell
from experiments.harness.files import MANIFEST, PART, Manifest, digest, write_atomically
from metarl_jax.checks import shown

if TYPE_CHECKING:
    from metarl_jax.runtime.checkpointing import Checkpointer

CONFIG, METRICS, VERSIONS, VALIDATION = "config.yaml", "metrics.jsonl", "versions.json", "validation.json"
RETURNS, LOCK, LATEST = "returns.npz", ".lock", "latest"
CONFIG_DIGEST = "config_sha256"
"""Key of a checkpoint's metadata: digest of the configuration's file."""

_SEALED_LINE = re.compile(rb'(\{.*), "sha256": "([0-9a-f]{64})"\}')


def find(option: str, experiment: str, which: str, results: pathlib.Path) -> pathlib.Path:
    """The folder of an earlier run: a path, a run's name, or "latest".

    Args:
      option: that asks for it, for the message.
      experiment: its name.
      which: what the user gave.
      results: folder of all runs.

    Raises:
      UsageError: if there is none.
    """
    home = results / experiment
    try:
        if which == LATEST:
            runs = [path.parent for path in home.glob(f"*/{CONFIG}")]
            if not runs:
                raise UsageError(f"{option}: there is no run in {home}")
            return max(runs, key=lambda run: (run / CONFIG).stat().st_mtime)
        for folder in (pathlib.Path(which).expanduser(), home / which):
            if (folder / CONFIG).is_file():
                return folder
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{option}: cannot read {shown(which)}: {error}") from error
    raise UsageError(f"{option}: {shown(which)} is not the folder of a run (it holds no {CONFIG})")


def default_name(label: str) -> str:
    """A name that sorts by time."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{label}"


def seal_line(entry: Mapping[str, Any]) -> bytes:
    """One line of the metrics, with its own digest as the last key."""
    body = json.dumps(entry)
    return f'{body[:-1]}, "sha256": "{digest(body.encode())}"}}\n'.encode()


def open_line(line: bytes) -> dict[str, Any] | None:
    """What a line of the metrics says; None if its digest does not hold."""
    match = _SEALED_LINE.fullmatch(line)
    if match is None or digest(match[1] + b"}") != match[2].decode():
        return None
    return json.loads(match[1] + b"}")


def steps_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """All complete steps of a run's checkpoints."""
    return sorted(path.parent for path in folder.glob(f"agents/*/checkpoints/step_*/{MANIFEST}"))


def read_config(option: str, folder: pathlib.Path) -> bytes:
    """The configuration's file of a run, if it is the one the run was started with.

    Raises:
      UsageError: if its digest is not the one in the manifest, or not the one that the checkpoints were saved with.
    """
    manifest = Manifest.read(folder)
    content, fault = manifest.check(CONFIG)
    anew = "put it back, or start a new run"
    if content is None:
        if not manifest.entries:
            raise UsageError(f"{option}: {folder / MANIFEST} {manifest.fault or 'is empty'}: {anew}")
        raise UsageError(f"{option}: {folder / CONFIG} {fault}: {anew}")
    for step in steps_of(folder):
        description, _ = Manifest.read(step).check("description.json")
        if description is None:
            continue  # damaged: it will be skipped, by name, where it is to be restored
        stated = json.loads(description)["metadata"].get(CONFIG_DIGEST)
        if stated != digest(content):
            told = (
                f"under another configuration than {CONFIG} holds" if stated else "without its configuration's digest"
            )
            raise UsageError(f"{option}: {step} was saved {told}: {anew}")
    return content


def faults(folder: pathlib.Path) -> list[str]:
    """Everything in a run's folder that is not as it was written, a line each, naming the file. Needs no jax."""
    manifest = Manifest.read(folder)
    found = manifest.faults()
    for place, folders, names in os.walk(folder):
        inside = os.path.relpath(place, folder)
        prefix = "" if inside == "." else f"{inside}/"
        if MANIFEST in names and prefix:  # a complete step of a checkpoint
            found += [f"{prefix}{fault}" for fault in Manifest.read(pathlib.Path(place)).faults()]
            folders.clear()
            continue
        aside = (MANIFEST, LOCK) if not prefix else ()
        for name in sorted(set(names).difference(aside)):
            if prefix + name not in manifest.entries and prefix + name != METRICS:
                found.append(f"{prefix}{name} is not listed in {MANIFEST}")
    lines = _lines(folder / METRICS)
    return found + [f"{METRICS} line {i} is damaged" for i, line in enumerate(lines, 1) if open_line(line) is None]


def _lines(path: pathlib.Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return content.removesuffix(b"\n").split(b"\n") if content else []


class RunFolder:
    """Files of one run; held by one process at a time, until it is closed (use it as a context manager) or ends.

    Args:
      path: the folder.
      config: the resolved configuration.
      resume: the folder must exist already, else it must not.
      notify: told what was found damaged and what follows.

    Raises:
      UsageError: if it cannot be written, exists already, or is in use. Before the lock is held nothing is written.
    """

    def __init__(self, path: pathlib.Path, config: Any, resume: bool, notify: Callable[[str], object] | None = None):
        self.path = path
        self.notify = notify or (lambda text: tell(f"warning: {text}"))
        self._writing = threading.RLock()
        try:
            if not resume:
                path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[bytes] = (path / LOCK).open("ab")
        except (OSError, ValueError) as error:
            raise self._refusal(error) from error
        try:
            self._hold(resume)
            self._manifest = Manifest.read(path)
            for part in path.rglob(f".*{PART}"):  # of a process that was killed
                part.unlink(missing_ok=True)
            if resume:
                if self._manifest.fault:
                    self.notify(f"{path / MANIFEST} {self._manifest.fault}; what it lists was checked file by file")
                    self._manifest.write()
            else:
                import yaml

                self._manifest = Manifest(path)
                text = yaml.safe_dump(values.to_mapping(config), sort_keys=False, allow_unicode=True)
                self.write(CONFIG, text.encode())
            self._seen = self._repair_metrics()
        except BaseException as error:
            self._lock.close()
            if isinstance(error, OSError):
                raise self._refusal(error) from error
            raise

    def _refusal(self, error: Exception) -> UsageError:
        return UsageError(
            f"results: cannot write to {shown(str(self.path))[1:-1]}: {getattr(error, 'strerror', error)}"
        )

    def _hold(self, resume: bool) -> None:
        try:
            # Released by the system when the process ends, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            option = "resume" if resume else "name"
            raise UsageError(f"{option}: {self.path} is in use by another process") from error
        except OSError:  # a file system that knows no locks
            pass
        if not resume and (self.path / CONFIG).exists():
            to_it = f"give another --name, or go on with --resume {self.path}"
            raise UsageError(f"name: {self.path} holds a run already; {to_it}")

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    @property
    def metadata(self) -> dict[str, Any]:
        """What every checkpoint of this run must carry, so that it is never continued under another configuration."""
        return {CONFIG_DIGEST: self._manifest.entries[CONFIG]}

    def agent(self, agent_id: str) -> pathlib.Path:
        """Folder of one training run: its checkpoints and returns."""
        self._still_there()
        folder = self.path / "agents" / agent_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def checkpointer(self, agent_id: str, notify: Callable[[str], object] | None = None) -> Checkpointer:
        """Checkpoints of one training run, which carry :attr:`metadata`."""
        from metarl_jax.runtime import checkpointing

        run = self

        class RunCheckpointer(checkpointing.Checkpointer):
            def save(self, step: int, tree: Any, metadata: dict[str, Any] | None = None) -> pathlib.Path:
                run._still_there()
                return super().save(step, tree, {**(metadata or {}), **run.metadata})

        return RunCheckpointer(self.agent(agent_id) / "checkpoints", keep=2, notify=notify)

    def _still_there(self) -> None:
        """Raises where the folder was deleted or replaced under the process, before anything is written beside it."""
        try:
            held, there = os.fstat(self._lock.fileno()), os.stat(self.path / LOCK)
            if (held.st_ino, held.st_dev) == (there.st_ino, there.st_dev):
                return
        except FileNotFoundError:
            pass
        raise FileNotFoundError(2, "the folder of the run was deleted or replaced", str(self.path))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the run, sealed.

        Raises:
          OSError: if it cannot be written, or the folder is gone.
        """
        with self._writing:
            self._still_there()
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if self._manifest.entries.get(name) != digest(content):
                self._manifest.entries[name] = digest(content)
                self._manifest.write()
            write_atomically(target, content)

    def read(self, name: str, otherwise: str = "it is written anew") -> bytes | None:
        """Content of a file of the run; None if there is none, or if it is damaged, which is told with what follows."""
        content, fault = self._manifest.check(name)
        if content is None and fault != "is missing":
            self.notify(f"{self.path / name} {fault}; {otherwise}")
        return content

    def read_json(self, name: str, otherwise: str = "it is written anew") -> Any:
        """Reads a JSON file; None if there is none or it is damaged."""
        content = self.read(name, otherwise)
        return None if content is None else json.loads(content)

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file."""
        self.write(name, (json.dumps(content, indent=1) + "\n").encode())

    def _repair_metrics(self) -> set[tuple[str, int]]:
        """Drops and names damaged lines; returns what is logged, which must not be logged twice.

        Good lines stay byte for byte.
        """
        path = self.path / METRICS
        kept, seen = [], set()
        lines = _lines(path)
        for i, line in enumerate(lines, 1):
            entry = open_line(line)
            if entry is None:
                what = "was cut short while it was written" if i == len(lines) else "is damaged"
                self.notify(f"{path} line {i} {what}; it is dropped")
                continue
            kept.append(line + b"\n")
            seen.add((entry["agent"], entry["iteration"]))
        if lines and b"".join(kept) != path.read_bytes():
            write_atomically(path, b"".join(kept))
        return seen

    def log(self, agent_id: str, iteration: int, entry: Mapping[str, Any]) -> None:
        """Adds one line to the metrics, unless the same interval was logged before an interruption."""
        if (agent_id, iteration) in self._seen:
            return
        self._still_there()
        self._seen.add((agent_id, iteration))
        with (self.path / METRICS).open("ab") as file:
            file.write(seal_line({"agent": agent_id, "iteration": iteration, **entry}))

    def metrics(self) -> list[dict[str, Any]]:
        """All good lines of the metrics."""
        entries = map(open_line, _lines(self.path / METRICS))
        return [entry for entry in entries if entry is not None]
