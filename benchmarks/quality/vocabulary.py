"""What every column is in every domain: ``python -m benchmarks.quality.vocabulary``.

Writes ``docs/vocabulary.md`` from the definitions in :mod:`envs_jax.observation`, the tables in the domains' class
docstrings, and what fixed random play and the reference say of signs, which is stored beside it as JSON. Without flags
the statistics of all domains are measured, with ``--domains`` those of some (the others stay as stored), with
``--no-measure`` none. ``--check`` writes nothing and exits with 1 if the page is out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import command

ROOT = pathlib.Path(__file__).parents[2]
PAGE = "docs/vocabulary.md"

WITHOUT_EXCHANGE: dict[str, str] = {
    "air_traffic": "aircraft stand in the order of their targets, and action 0 is the first of them",
    "maritime": "ports are told apart by the network of services, which is fixed",
    "smart_city": "intersections are told apart by their place in the grid",
    "supply_chain": "the chain is serial: a stage is told apart by its place",
    "warehouse": "levels are told apart by their place",
}
"""Domains without a test that two entities which are exchanged exchange rows and nothing else, and why."""
EXCHANGE_WORDS = ("permuting", "relabelling", "exchange", "knows_no_order")
"""Such a test has one of these in its name."""

INTRODUCTION = """\
# Vocabulary

`python -m benchmarks.quality.vocabulary`. Worlds of version {version}.

An observation is a table of entities (tokens) and a table of actions. Their *strict* columns mean the same in every
domain; `envs_jax.testing.check_domain` holds each domain to the definitions. *Private* columns promise nothing beyond
their domain. Read columns by name: `observation.column("level")`, `observation.action_column("signed")`.
"""

SIGNS = """\
## Signs

- *t*: of (urgency - slack) of the target x signed on the returns of random play (discounted expected rewards of the
  next eight periods, {tasks} tasks x {episodes} episodes, clustered by episode). Below -2 a domain must say why acting
  costs more than it serves there.
- *Served*: correlation of an entity's urgency (rank; where it cannot differ, that of less slack) with what the
  reference would give it beyond chance in the states of play that does not look, mean over {tried} tasks with 95 %
  interval. Above 0 the reference serves the urgent more than random play does.
- *Slack*: rank correlation of urgency and slack over entities of a role and times; it should not be positive.
- *Reads*: columns on which the heuristic's choices depend.
- *Exchange*: the test that two entities which are exchanged exchange rows and nothing else.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      domains: whose statistics are measured; none means all.
      measure: whether any are.
      check: write nothing; exit with 1 if docs/vocabulary.md is out of date.
    """

    domains: tuple[str, ...] = ()
    measure: bool = True
    check: bool = False

    def __post_init__(self) -> None:
        """Refuses what is not registered."""
        command.check_domains(self.domains)


def measure(name: str) -> dict[str, Any]:
    """Statistics of a domain: ``t``, ``served``, ``slack`` (mean, low, high; null where nothing varies), ``reads``."""
    import envs_jax
    from envs_jax.testing import signs
    from envs_jax.testing.evidence import Evidence

    k = Evidence(envs_jax.make(name)[0])
    t, served, slack = signs.what_serving_brings(k), signs.serving_of_the_reference(k), signs.urgency_against_slack(k)
    return {
        "t": None if t is None else round(t, 2),
        "served": None if served is None else [round(x, 3) for x in served],
        "slack": None if slack is None else [round(x, 3) for x in slack],
        "reads": k.heuristic_reads,
    }


def class_of(root: pathlib.Path, name: str, of: str) -> tuple[str | None, dict[str, str]]:
    """Docstring and ``exceptions`` of a domain's class, from its file: importing it would load and build data."""
    tree = ast.parse((root / "envs_jax" / "domains" / f"{name}.py").read_text(encoding="utf-8"))
    (node,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == of)
    for statement in node.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == "exceptions" for target in targets):
                return ast.get_docstring(node), ast.literal_eval(statement.value)
    return ast.get_docstring(node), {}


def exchange_tests(root: pathlib.Path, name: str) -> list[str]:
    """Names of a domain's tests of exchange, ``file::test``."""
    found = []
    for path in sorted((root / "tests" / "envs_jax").glob(f"test_{name}*.py")):
        functions = (n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef))
        names = (f.name for f in functions if f.name.startswith("test_") and any(w in f.name for w in EXCHANGE_WORDS))
        found += [f"{path.name}::{test}" for test in names]
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; bars within cells are escaped, the double ticks of docstrings are single ones."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("``", "`") for cell in line) + " |\n" for line in lines
    )


def _interval(found: Sequence[float] | None) -> str:
    return "-" if found is None else f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def document(root: pathlib.Path, stored: Mapping[str, Any]) -> str:
    """The page: definitions, each strict column by domain, private columns, signs.

    Raises:
      ValueError: naming the domain and the line of its docstring that cannot be read.
    """
    from envs_jax.observation import (
        ACTION_MEANINGS,
        DERIVED,
        PRIVATE_ACTION_COLUMNS,
        PRIVATE_TOKEN_COLUMNS,
        TOKEN_MEANINGS,
    )
    from envs_jax.testing import documentation, evidence

    classes = {name: class_of(root, name, of) for name, of in command.registry()["DOMAINS"].items()}
    said = {name: documentation.read(name, docstring) for name, (docstring, _) in classes.items()}
    parts = [INTRODUCTION.format(version=command.version())]
    kinds = (
        ("tokens", "Entities", TOKEN_MEANINGS, PRIVATE_TOKEN_COLUMNS),
        ("actions", "Actions", ACTION_MEANINGS, PRIVATE_ACTION_COLUMNS),
    )
    for _, title, meanings, _ in kinds:
        parts.append(f"## {title}\n\n" + table(("column", "meaning"), ((f"`{c}`", m) for c, m in meanings.items())))
    roles = (
        (f"[`{name}`](domains/{name}.md)", found.notes.removeprefix("Roles:").strip()) for name, found in said.items()
    )
    parts.append("## Roles and actions of each domain\n\n" + table(("domain", "in its own words"), roles))
    for of, title, meanings, _ in kinds:
        for column in (c for c in meanings if c not in DERIVED):
            rows = [
                (f"`{name}`", line.kind, line.quantity, line.unit)
                for name, found in said.items()
                for line in getattr(found, of)
                if line.column == column
            ]
            if rows:
                parts.append(
                    f"## {title}: {column}\n\n{meanings[column]}.\n\n"
                    + table(("domain", of.removesuffix("s"), "quantity", "unit"), rows)
                )
    parts.append(
        "## Private columns\n\nWhat they hold, domain by domain; the same letter may mean something else for "
        "another kind of entity.\n"
    )
    for name, found in said.items():
        rows = [
            (of.removesuffix("s"), line.kind, f"`{line.column}`", line.quantity, line.unit)
            for of, _, _, private in kinds
            for line in getattr(found, of)
            if line.column in private
        ]
        shown = table(("of", "kind", "column", "quantity", "unit"), rows) if rows else "None.\n"
        parts.append(f"### {name}\n\n{shown}")
    counts = {"tasks": evidence.BATCHES * evidence.TASKS, "episodes": evidence.LUCKS}
    parts.append(SIGNS.format(**counts, tried=evidence.TRIED * evidence.TASKS))
    measured: list[Sequence[str]] = []
    for name in said:
        one = stored.get(name)
        tests = ", ".join(f"`{test}`" for test in exchange_tests(root, name))
        exchange = tests or WITHOUT_EXCHANGE.get(name, "untested")
        if one is None:
            measured.append((f"`{name}`", *["not measured"] * 4, exchange))
            continue
        reads = ", ".join(f"`{column}`" for part in ("tokens", "actions") for column in one["reads"][part])
        t = "-" if one["t"] is None else f"{one['t']:.1f}"
        measured.append((f"`{name}`", t, _interval(one["served"]), _interval(one["slack"]), reads, exchange))
    parts.append(table(("domain", "t", "served", "slack", "the heuristic reads", "exchange"), measured))
    reasons = [
        f"- `{n}`, {check.replace('_', ' ')}: {why}\n" for n, (_, own) in classes.items() for check, why in own.items()
    ]
    if reasons:
        parts.append("## Exceptions\n\nWhat does not hold, and why.\n\n" + "".join(reasons))
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None, root: pathlib.Path = ROOT) -> None:
    """Command line; ``root`` holds docs, envs_jax and tests."""
    config = command.parse(Config, __doc__, arguments)
    page = root / PAGE
    store = page.with_suffix(".json")
    stored = json.loads(store.read_text(encoding="utf-8"))["domains"] if store.exists() else {}
    try:
        document(root, stored)  # refuses before minutes of measuring
    except ValueError as error:
        command.refuse(error)
    if config.check:
        if not page.exists() or document(root, stored) != page.read_text(encoding="utf-8"):
            sys.exit(f"{PAGE} is out of date: python -m benchmarks.quality.vocabulary --no-measure")
        return
    registered = command.registry()["DOMAINS"]
    for name in (config.domains or registered) if config.measure else ():
        stored[name] = measure(name)
        print(
            f"{name}: t {stored[name]['t']}, served {stored[name]['served']}, slack {stored[name]['slack']}", flush=True
        )
    ordered = {name: stored[name] for name in registered if name in stored}
    store.write_text(json.dumps({"version": command.version(), "domains": ordered}, indent=1) + "\n", encoding="utf-8")
    page.write_text(document(root, ordered), encoding="utf-8")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
