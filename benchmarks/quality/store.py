"""Results that a benchmark keeps as JSON beside its page, so that one more domain needs no run of all.

The file holds ``version`` of the worlds (:data:`envs_jax.VERSION`; results of a time that stated none lack it),
``settings`` (what results must share to stand in one table), ``asked`` (domains named on the command line; none means
all) and ``domains``, which maps a name to whatever was measured there.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from benchmarks import command
from benchmarks.command import prepare_folder


def load(page: pathlib.Path | None) -> dict[str, Any]:
    """Results stored beside a page; a page that does not exist has none.

    Raises:
      ValueError: if there is a file that holds something else.
    """
    path = None if page is None else page.with_suffix(".json")
    if path is None or not path.exists():
        return {"settings": {}, "asked": [], "domains": {}}
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"out: cannot read {path}: {error}") from error
    if not isinstance(results, dict) or not {"settings", "asked", "domains"} <= results.keys():
        raise ValueError(f"out: {path} holds no stored results; choose another --out")
    return results


def prepare(page: pathlib.Path | None) -> None:
    """Sees, before minutes of measuring, that a page can be written.

    Raises:
      ValueError: saying what is in the way.
    """
    if page is None:
        return
    if page.suffix == ".json":
        raise ValueError(f"out: {page.name} is the page, beside which the results go as .json; name it .md")
    for file in (page, page.with_suffix(".json")):
        if file.is_dir():
            raise ValueError(f"out: {file} is a folder")
    prepare_folder(page.parent)


def kept(stored: dict[str, Any], settings: dict[str, Any], measured: Iterable[str]) -> list[str]:
    """Stored domains that stay beside the ``measured`` ones.

    Raises:
      ValueError: if they have other settings, or are of another version of the worlds.
    """
    left = [name for name in stored["domains"] if name not in set(measured)]
    if left and (theirs := stored.get("version", "1.0")) != (ours := command.version()):
        raise ValueError(
            f"stored of worlds {theirs}, not {ours}: {', '.join(left)}; measure all or choose another --out"
        )
    if left and stored["settings"] != settings:
        raise ValueError(f"stored with other settings {stored['settings']}: {', '.join(left)}; choose another --out")
    return left


def merged(
    stored: dict[str, Any], settings: dict[str, Any], measured: dict[str, Any], everything: bool
) -> dict[str, Any]:
    """``stored`` with newly ``measured`` domains, in the registry's order; raises like :func:`kept`.

    ``everything``: no domains were named, all were measured.
    """
    from envs_jax.domains.names import DOMAINS

    left = kept(stored, settings, measured)
    domains = {name: stored["domains"][name] for name in left} | measured
    order = {name: place for place, name in enumerate(DOMAINS)}
    names = sorted(domains, key=lambda name: order.get(name, len(order)))
    everything = everything or bool(left and not stored["asked"])
    return {
        "version": command.version(),
        "settings": settings,
        "asked": [] if everything else names,
        "domains": {name: domains[name] for name in names},
    }


def worlds(stored: dict[str, Any]) -> str:
    """A line that says the version of the worlds; empty for results of a time that stated none."""
    return f"Worlds of version {stored['version']}.\n\n" if "version" in stored else ""


def chosen(stored: dict[str, Any], default: dict[str, Any]) -> str:
    """The command line options that make such results, where they differ from none and the ``default`` settings."""
    domains = f" --domains {' '.join(stored['asked'])}" if stored["asked"] else ""
    given = stored["settings"].items()
    return domains + "".join(f" --{name} {value}" for name, value in given if value != default[name])


def publish(out: pathlib.Path | None, page: str, results: dict[str, Any]) -> None:
    """Prints the page; if there is a file for it, writes it there and the results beside it, as JSON."""
    print(page)
    if out is not None:
        out.write_text(page, encoding="utf-8")
        out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
