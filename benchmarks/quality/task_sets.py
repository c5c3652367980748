"""Seals the frozen sets of tasks: ``python -m benchmarks.quality.task_sets [--version v1] [--domains NAME ...]``.

Draws every split of every domain and writes what identifies it to ``envs_jax/data/task_sets.json``, from which
``envs_jax.load_tasks`` knows that it hands out the same tasks. What is sealed stays as it is: tasks that have changed
since are another version, unless ``--replace`` says that nobody has used the old ones.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from benchmarks import command

FILE = pathlib.Path(__file__).parents[2] / "envs_jax" / "data" / "task_sets.json"

Seals = dict[str, dict[str, dict[str, list[float] | None]]]
"""Seals of a version: by domain, split and field."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      version: of the sets.
      domains: which; none means all of this package.
      replace: seal anew what draws other tasks now.
    """

    version: str = "v1"
    domains: tuple[str, ...] = ()
    replace: bool = False

    def __post_init__(self) -> None:
        """Refuses what is no domain, and a version without a name."""
        command.check_domains(self.domains)
        if not self.version.isalnum():
            raise ValueError(f"version must be letters and digits, got {self.version!r}")


def write(config: Config, file: pathlib.Path = FILE) -> list[str]:
    """Seals the domains that are not sealed yet and returns which they are.

    Raises:
      ValueError: if one is sealed otherwise already and ``replace`` is not set; nothing is written then.
    """
    from envs_jax import tasks  # loads jax: after the command line is read

    names = tuple(command.registry()["DOMAINS"])
    sealed: dict[str, Seals] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    of_version, written = dict(sealed.get(config.version, {})), []
    for name in config.domains or names:
        drawn = {split: tasks.draw(name, split, config.version) for split in tasks.SPLITS}
        old = of_version.get(name)
        if old is not None and not any(tasks.differences(drawn[split], old[split]) for split in drawn):
            continue
        if old is not None and not config.replace:
            raise ValueError(f"{name} draws other tasks than were sealed as {config.version}: seal another version")
        of_version[name] = {split: tasks.seal(stack) for split, stack in drawn.items()}
        for split, found in of_version[name].items():
            other = tasks.draw(name, split, config.version, optimised=False)
            for field in tasks.differences(other, found):
                found[field] = None
        written.append(name)
    ordered = {name: of_version[name] for name in names if name in of_version}
    file.write_text(_text({**sealed, config.version: ordered}), encoding="utf-8")
    return written


def _text(sealed: dict[str, Seals]) -> str:
    """JSON with one line a set."""
    versions = []
    for version, of_version in sealed.items():
        lines = []
        for name, splits in of_version.items():
            sets = ",\n".join(f"      {json.dumps(split)}: {json.dumps(found)}" for split, found in splits.items())
            lines.append(f"    {json.dumps(name)}: {{\n{sets}\n    }}")
        versions.append(f"  {json.dumps(version)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(versions) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    config = command.parse(Config, __doc__, arguments)
    try:
        written = write(config)
    except ValueError as error:
        command.refuse(error)
    print(f"sealed as {config.version}: {', '.join(written) or 'nothing new'}")


if __name__ == "__main__":
    main()
