"""Checkpoints that are durable on return and never restored damaged.

orbax stores the arrays. What it does not do is done here: it has no check of contents (of twenty single-bit flips all
twenty were restored silently wrong), does not step back from a broken newest step, and does not sync all of its files.

One directory a step::

    step_000000000120/
      state/             orbax, one array a leaf, named by position
      description.json   step, the user's metadata, and path, shape, dtype of every leaf
      manifest.sha256    digest of every file above, in the format of sha256sum, sealed by the digest of its own lines

The manifest is written last, by rename, after everything else was synced and read back bit for bit. A step without one
was cut short and does not count. ``sha256sum -c manifest.sha256`` inside a step checks it without this program.
One process writes a directory; arrays must be addressable from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# orbax takes about three seconds to import and is imported where it is used.
PyTree = Any
Path = str | os.PathLike[str]
Notify = Callable[[str], object]

_STATE, _DESCRIPTION, _MANIFEST = "state", "description.json", "manifest.sha256"
_STEP = re.compile(r"step_(\d{12,})")
_SEAL = b"# sha256 of the lines above: "


class Checkpoint(NamedTuple):
    """A restored step.

    Attributes:
      step: its number.
      tree: structure and leaf types of the template, bitwise the saved values.
      metadata: the saved dictionary.
    """

    step: int
    tree: PyTree
    metadata: dict[str, Any]


class Checkpointer:
    """Saves steps to a directory, keeps the newest few, finds the newest good one.

    Args:
      directory: made if missing; a file is written and removed at once, so that a run fails here and not at its first
        save hours later.
      keep: complete steps to keep, 1 or more.
      notify: told every step that was skipped or thrown away, and why. Default: a logged warning.

    Raises:
      ValueError: ``keep`` is not a positive integer.
      OSError: the directory cannot be made or written; the message names it.
    """

    def __init__(self, directory: Path, keep: int = 3, notify: Notify | None = None):
        if keep < 1:
            raise ValueError(f"keep must be 1 or more, not {keep}")
        self.directory = pathlib.Path(directory).absolute()  # orbax refuses relative paths
        self.keep = keep
        self.notify = notify or logging.getLogger(__name__).warning
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory):
                pass
        except OSError as error:
            raise OSError(f"cannot write checkpoints to {self.directory}: {error}") from error

    def save(self, step: int, tree: PyTree, metadata: dict[str, Any] | None = None) -> pathlib.Path:
        """Writes a step, verifies it, removes the oldest beyond ``keep`` and returns the step's directory.

        A broken step of the same number is replaced. Broken newer steps (an abandoned continuation) and unfinished ones
        are removed; complete older ones go by age alone. The step just verified always stays.

        Args:
          step: 0 or more, above every valid step in the directory.
          tree: leaves are jax arrays, typed keys (any implementation), numpy arrays or scalars, or Python numbers.
          metadata: must come back from JSON unchanged (no tuples, NaN or infinity; string keys).

        Raises:
          ValueError: a leaf or the metadata cannot be stored, or a valid step of this or a higher number exists.
          OSError: writing or reading back failed; the message names the step's directory, which is removed.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step must be 0 or more, not {step}")
        leaves = _describe(tree)
        text = _to_json({"step": step, "metadata": metadata or {}, "leaves": leaves})
        arrays = _to_host(tree)
        for later in _steps(self.directory):
            if later >= step and _fault(_path(self.directory, later)) is None:
                raise ValueError(f"{self.directory} already holds step {later}, valid; refusing to save step {step}")
        path = _path(self.directory, step)
        try:
            if path.exists():
                _remove(path)
            path.mkdir()
            _orbax_save(path / _STATE, arrays)
            (path / _DESCRIPTION).write_text(text)
            manifest = _sync_and_digest(path)
            _compare(arrays, _orbax_restore(path / _STATE, leaves))
            _write_manifest(path, manifest)
        except Exception as error:  # orbax and tensorstore raise many kinds; a full disk can arrive as ValueError
            shutil.rmtree(path, ignore_errors=True)
            raise OSError(f"cannot write checkpoint {path}: {error}") from error
        self._prune(step)
        return path

    def latest_valid(self, template: PyTree) -> Checkpoint | None:
        """See :func:`latest_valid`."""
        return latest_valid(self.directory, template, self.notify)

    def _prune(self, newest: int) -> None:
        kept = 1
        for step in (s for s in _steps(self.directory) if s != newest):
            path = _path(self.directory, step)
            complete = (path / _MANIFEST).exists()
            if complete and step < newest and kept < self.keep:
                kept += 1
                continue
            try:
                if step > newest or not complete:
                    self.notify(f"{path}: removed, {_fault(path)}")
                _remove(path)
            except OSError as error:  # the new step is safe; a full run must not end over an old one
                self.notify(f"{path}: could not be removed, {error}")


def latest_valid(directory: Path, template: PyTree, notify: Notify | None = None) -> Checkpoint | None:
    """Restores the newest step whose every file has the digest that its manifest lists; needs no right to write.

    Args:
      directory: of a :class:`Checkpointer`.
      template: a tree of the structure, shapes and dtypes saved. Its leaves also say what comes back: jax array, placed
        likewise (``jax.ShapeDtypeStruct`` too), numpy array or scalar, Python number. Weak types come back strong.
      notify: told each newer step that was skipped, which file and what is wrong. Default: a logged warning.

    Returns:
      The checkpoint, or None where no step is valid.

    Raises:
      ValueError: the newest valid step has another structure, shape, dtype or key implementation than the template.
      OSError: the directory cannot be read, or orbax cannot read a step although its digests hold.
    """
    directory = pathlib.Path(directory).absolute()
    notify = notify or logging.getLogger(__name__).warning
    for step in _steps(directory):
        path = _path(directory, step)
        fault = _fault(path)
        if fault is not None:
            notify(f"{path}: skipped, {fault}")
            continue
        description = json.loads((path / _DESCRIPTION).read_text())
        leaves = description["leaves"]
        _match(path, leaves, _describe(template))
        try:
            arrays = _orbax_restore(path / _STATE, leaves)
        except Exception as error:
            raise OSError(f"cannot read checkpoint {path}: {error}") from error
        targets, structure = jax.tree.flatten(template)
        values = [_place(*triple) for triple in zip(targets, leaves, arrays.values(), strict=True)]
        return Checkpoint(step, jax.tree.unflatten(structure, values), description["metadata"])
    return None


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(tree: PyTree) -> list[dict[str, Any]]:
    """Path, shape and dtype of every leaf as stored; a typed key is stored as its raw data."""
    leaves = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        entry: dict[str, Any] = {"path": jax.tree_util.keystr(path) or "(root)"}
        stored = leaf
        if _is_key(leaf):
            stored = jax.eval_shape(jax.random.key_data, leaf)
            entry["key"] = str(leaf.dtype)
            if isinstance(leaf, jax.Array):  # an abstract template does not name it, and its dtype says enough
                entry["impl"] = jax.random.key_impl(leaf)
        dtype = np.dtype(stored.dtype) if hasattr(stored, "dtype") else np.asarray(stored).dtype
        if not (jax.dtypes.issubdtype(dtype, np.number) or dtype == np.bool_):
            raise ValueError(f"leaf {entry['path']} of type {type(leaf).__name__} is not numeric; use the metadata")
        leaves.append(entry | {"shape": list(np.shape(stored)), "dtype": dtype.name})
    return leaves


def _to_host(tree: PyTree) -> dict[str, np.ndarray]:
    """Leaves by position as numpy arrays."""
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return {f"{i:06d}": np.asarray(leaf) for i, leaf in enumerate(jax.device_get(leaves))}


def _place(target: Any, leaf: dict[str, Any], array: np.ndarray) -> Any:
    if isinstance(target, np.ndarray | np.generic):
        return array if isinstance(target, np.ndarray) else array[()]
    if isinstance(target, bool | int | float | complex):
        return type(target)(array.item())
    # A copy: a CPU array may otherwise alias the numpy buffer, which cannot be donated.
    value = jnp.array(array)
    if "impl" in leaf:
        value = jax.random.wrap_key_data(value, impl=leaf["impl"])
    # Committing what was uncommitted would pin it to a device and retrace every jitted function that takes it.
    sharding = target.sharding if getattr(target, "committed", True) else None
    return value if sharding is None else jax.device_put(value, sharding)


def _match(path: pathlib.Path, saved: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> None:
    """Raises ValueError that names the step and the first few leaves in which it differs from the template."""
    stored, asked = (
        {leaf["path"]: f"{leaf.get('key', '')}{leaf['dtype']}{leaf['shape']}" for leaf in leaves}
        for leaves in (saved, wanted)
    )
    differences = [
        f"leaf {where}: checkpoint {stored.get(where, 'has none')}, template {asked.get(where, 'has none')}"
        for where in {**stored, **asked}
        if stored.get(where) != asked.get(where)
    ]
    if differences or list(stored) != list(asked):
        shown = "; ".join(differences[:5]) or "the same leaves in another order"
        raise ValueError(f"checkpoint {path} does not fit the template ({len(differences)} leaves differ): {shown}")


def _to_json(description: dict[str, Any]) -> str:
    try:
        text = json.dumps(description, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint metadata cannot be written as JSON: {error}") from error
    if json.loads(text) != description:
        raise ValueError("checkpoint metadata would not come back from JSON unchanged; use lists and string keys")
    return text


def _path(directory: pathlib.Path, step: int) -> pathlib.Path:
    return directory / f"step_{step:012d}"


def _steps(directory: pathlib.Path) -> list[int]:
    """Numbers of all steps that were begun, newest first."""
    matches = (_STEP.fullmatch(entry.name) for entry in directory.iterdir() if entry.is_dir())
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def _orbax_save(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    import orbax.checkpoint as ocp

    # orbax refuses arrays of no elements; they hold nothing beyond their description.
    if stored := {name: array for name, array in arrays.items() if array.size}:
        # ``Checkpointer`` is the synchronous class; ``StandardCheckpointer`` returns before its files are complete.
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(path, args=ocp.args.StandardSave(stored))


def _orbax_restore(path: pathlib.Path, leaves: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    arrays = {f"{i:06d}": np.empty(leaf["shape"], jnp.dtype(leaf["dtype"])) for i, leaf in enumerate(leaves)}
    if stored := {name: array for name, array in arrays.items() if array.size}:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            arrays |= checkpointer.restore(path, args=ocp.args.StandardRestore(stored))
    return arrays


def _compare(written: dict[str, np.ndarray], read: dict[str, np.ndarray]) -> None:
    for name, array in written.items():
        if array.dtype != read[name].dtype or array.tobytes() != read[name].tobytes():
            raise OSError(f"array {name} was read back with other bits than were written")


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)  # works for directories, whose entries need it too
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_and_digest(path: pathlib.Path) -> str:
    """Makes everything below ``path`` durable and returns the manifest's lines."""
    lines = []
    for entry in sorted(path.rglob("*")):
        _sync(entry)
        if entry.is_file():
            lines.append(f"{_digest(entry)}  {entry.relative_to(path).as_posix()}\n")
    return "".join(lines)


def _write_manifest(path: pathlib.Path, lines: str) -> None:
    body = lines.encode()
    temporary = path / f"{_MANIFEST}.tmp"
    temporary.write_bytes(body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n")
    _sync(temporary)
    os.replace(temporary, path / _MANIFEST)
    _sync(path)
    _sync(path.parent)  # the entry of the step's own directory


def _fault(path: pathlib.Path) -> str | None:
    """What is wrong with the step at ``path``, naming the file, or None where every digest holds."""
    try:
        body, seal, digest = (path / _MANIFEST).read_bytes().rpartition(_SEAL)
    except FileNotFoundError:
        return f"{_MANIFEST} is missing: the step was cut short while it was written"
    except OSError as error:
        return f"{_MANIFEST} cannot be read: {error}"
    if not seal or digest != hashlib.sha256(body).hexdigest().encode() + b"\n":
        return f"{_MANIFEST} is damaged: its own digest does not hold"
    for line in body.decode().splitlines():
        expected, _, name = line.partition("  ")
        try:
            if _digest(path / name) != expected:
                return f"{name} is damaged: its sha256 is not the manifest's"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error}"
    stated = json.loads((path / _DESCRIPTION).read_text())["step"]
    return None if path.name == _path(path.parent, stated).name else f"{_DESCRIPTION} says step {stated}"


def _remove(path: pathlib.Path) -> None:
    # Manifest first: killed halfway, what is left must not look like a damaged step.
    (path / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)
