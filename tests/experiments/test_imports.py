"""The tree: imports run one way and in no circle, no file is too long to read, entry points are small."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("envs_jax", "metarl_jax", "experiments", "benchmarks")
MAY_IMPORT = {
    "envs_jax": {"envs_jax"},
    "metarl_jax": {"envs_jax", "metarl_jax"},
    "experiments": {"envs_jax", "metarl_jax", "experiments"},
    "benchmarks": set(PACKAGES),
}
ENTRY_POINTS = sorted(path.parent for path in (ROOT / "experiments").glob("*/__main__.py"))


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, late: bool) -> set[str]:
    """Modules of ours that a module imports while it loads, or anywhere if ``late``; not those for type checkers."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not late:
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            base = node.module or ""
            for alias in node.names:  # what is no module of a package is one of the names that it defines
                found.add(full if (full := f"{base}.{alias.name}") in MODULES else base)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(MODULES[name].read_text()))
    return {target for target in found if target.split(".")[0] in PACKAGES and target != name}


def test_imports_run_one_way() -> None:
    for name in MODULES:
        package = name.split(".")[0]
        strange = {target for target in imports(name, late=True) if target.split(".")[0] not in MAY_IMPORT[package]}
        assert not strange, f"{name} imports {strange}"


@pytest.mark.parametrize("late", [False, True])
def test_no_import_circles(late: bool) -> None:
    """Also none among the experiments' imports inside functions, which only hide a circle."""
    graph = {name: {target for target in imports(name, late) if target in MODULES} for name in MODULES}
    if late:  # in the libraries, a registry loads its entries when they are asked for
        graph = {name: targets for name, targets in graph.items() if name.startswith("experiments")}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name in done or name not in graph:
            return
        for target in sorted(graph[name]):
            visit(target, (*above, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_the_report_knows_nothing_of_sessions() -> None:
    for name in MODULES:
        if name.startswith("experiments.report"):
            strange = {t for t in imports(name, late=True) if t.startswith(("envs_jax", "experiments.harness.session"))}
            assert not strange, f"{name} imports {strange}"


def test_the_harness_knows_no_entry_point() -> None:
    names = tuple(f"experiments.{path.name}" for path in ENTRY_POINTS)
    for name in MODULES:
        if name.startswith(("experiments.harness", "experiments.report")):
            assert not {target for target in imports(name, late=True) if target.startswith(names)}, name


def test_files_can_be_read() -> None:
    assert {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > 600} == {}
    assert ENTRY_POINTS
    for folder in ENTRY_POINTS:
        assert {path.name for path in folder.glob("*.py")} == {
            *("__init__.py", "__main__.py", "configuration.py", "plan.py", "sections.py")
        }
        assert all(len(path.read_text().splitlines()) <= 150 for path in folder.glob("*.py"))


def test_reports_are_made_without_jax() -> None:
    script = (
        "import sys, experiments.transfer.sections, experiments.rollout.sections, experiments.games.sections\n"
        "import experiments.energy.sections, experiments.literature.sections, experiments.compare.sections\n"
        "import experiments.harness.returns, experiments.harness.execution\n"
        "print([name for name in ('jax', 'gymnax', 'flax', 'orbax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
