"""Frozen data on disk, between runs: a file a domain in the cache folder, named by what the data are a function of.

A file holds a line of JSON (its specification, and shape and type of every array), the arrays one after another, and
the digest of all that. One that is damaged, cut off or of another specification is told and made anew.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.harness.files import write_atomically

SUFFIX = ".data"
_DIGEST = 32


def path_of(folder: pathlib.Path, specification: Mapping[str, Any]) -> pathlib.Path:
    """Where data of a specification are kept below the cache folder."""
    text = json.dumps(specification, sort_keys=True).encode()
    return folder / "datasets" / f"{specification['domain']}-{hashlib.sha256(text).hexdigest()[:16]}{SUFFIX}"


def to_bytes(specification: Mapping[str, Any], data: Any) -> bytes:
    """The content of a file."""
    leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(data)]
    arrays = [[list(leaf.shape), leaf.dtype.str] for leaf in leaves]
    header = json.dumps({"specification": specification, "arrays": arrays}, sort_keys=True).encode() + b"\n"
    body = header + b"".join(leaf.tobytes() for leaf in leaves)
    return body + hashlib.sha256(body).digest()


def from_bytes(content: bytes, specification: Mapping[str, Any], template: Any) -> Any:
    """The data of a file, in the structure of a template.

    Raises:
      ValueError: says what is wrong with it.
    """
    if len(content) < _DIGEST or hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        raise ValueError("is damaged: its digest does not hold")
    header, _, body = content[:-_DIGEST].partition(b"\n")
    found = json.loads(header)
    if found["specification"] != json.loads(json.dumps(specification)):
        raise ValueError("holds data of another specification")
    leaves, offset = [], 0
    for shape, dtype in found["arrays"]:
        size = int(np.prod(shape, dtype=np.int64))
        leaves.append(np.frombuffer(body, np.dtype(dtype), size, offset).reshape(shape))
        offset += leaves[-1].nbytes
    structure = jax.tree.structure(template)
    if structure.num_leaves != len(leaves):
        raise ValueError(f"holds {len(leaves)} arrays, not {structure.num_leaves}")
    return jax.tree.unflatten(structure, leaves)


def kept(
    folder: pathlib.Path | None,
    specification: Mapping[str, Any],
    template: Any,
    make: Callable[[], Any],
    notify: Callable[[str], object],
) -> Any:
    """Data of a specification: from the folder if they are there and whole, else made, and kept if that is possible.

    Args:
      folder: the cache folder; None keeps nothing.
      specification: of the data.
      template: a pytree of their structure.
      make: makes them; None if it was stopped.
      notify: told what is wrong with a file, or that none can be written.
    """
    if folder is None:
        return make()
    path = path_of(folder, specification)
    try:
        return from_bytes(path.read_bytes(), specification, template)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        notify(f"{path.name} {error}; the data are made anew")
    data = make()
    if data is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_bytes(specification, data))
        except OSError as error:
            notify(f"{path.name} cannot be kept: {error.strerror}")
    return data
