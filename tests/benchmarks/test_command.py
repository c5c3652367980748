"""Command lines of all benchmarks: bad input is one line and exit code 2, before jax loads and anything is written."""

import dataclasses
import pathlib
import subprocess
import sys
from typing import Literal

import pytest

from benchmarks import command

ROOT = pathlib.Path(command.__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of a command.

    Attributes:
      names: some.
      count: how many.
      share: of it.
      mode: how.
      store: keep it.
      out: where.
    """

    names: tuple[str, ...] = ()
    count: int = 1
    share: float = 0.5
    mode: Literal["fast", "slow"] = "fast"
    store: bool = True
    out: pathlib.Path | None = None

    def __post_init__(self) -> None:
        command.check_range(self, 1, 100, "count")
        command.check_range(self, 0, 1, "share")


def test_flags_are_read_into_their_types():
    assert command.read(Config, []) == Config()
    arguments = ["--names", "a", "b", "--count=3", "--share", ".25", "--mode", "slow", "--no-store", "--out", "~/x"]
    assert command.read(Config, arguments) == Config(("a", "b"), 3, 0.25, "slow", False, pathlib.Path.home() / "x")
    assert command.read(Config, ["--names"]) == Config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--count 0", "count must be from 1 to 100, got 0"),
        ("--count -1", "count must be from 1 to 100, got -1"),
        ("--count 1000000000000", "count must be from 1 to 100, got 1000000000000"),
        ("--count x", "--count: expected a whole number, got 'x'"),
        ("--count 1.5", "--count: expected a whole number, got '1.5'"),
        ("--count " + "9" * 5000, f"--count: expected a whole number, got '{'9' * 40}...'"),
        ("--share nan", "--share: expected a finite number, got 'nan'"),
        ("--share inf", "--share: expected a finite number, got 'inf'"),
        ("--share 1.01", "share must be from 0 to 1, got 1.01"),
        ("--count", "--count: expected one value, got none"),
        ("--count 1 2", "--count: expected one value, got 1 2"),
        ("--count 1 --count 2", "flag --count is listed more than once"),
        ("--coutn 1", "unknown flag '--coutn'; did you mean --count?"),
        ("--mode fasst", "unknown --mode 'fasst'; did you mean fast?"),
        ("--store yes", "--store takes no value, got 'yes'"),
        ("--store --no-store", "--no-store contradicts another flag"),
        ("--out=", "--out: '' is no path"),
        ("portfolio", "expected a flag, got 'portfolio'"),
    ],
)
def test_what_is_not_allowed_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.parse(Config, "", arguments.split())
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_seeds_and_domains_are_checked():
    @dataclasses.dataclass
    class Seeded:
        seed: int

    command.check_seed(Seeded(2**32 - 1))
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="seed must be from 0 to 4294967295"):
            command.check_seed(Seeded(seed))
    command.check_domains(("portfolio", "maritime"))
    with pytest.raises(ValueError, match=r"unknown domain 'maritme'; did you mean maritime\?"):
        command.check_domains(("maritme",))
    with pytest.raises(ValueError, match="domain portfolio is listed more than once"):
        command.check_domains(("portfolio", "portfolio"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out: cannot write to .*file"):
        command.prepare_folder(tmp_path / "file" / "folder")


COMMANDS = sorted(
    f"benchmarks.{path.parent.name}.{path.stem}"
    for path in (ROOT / "benchmarks").glob("*/*.py")
    if "\ndef main(" in path.read_text(encoding="utf-8")
)

# In one process for all, because each would take a second: the command line of each, with what no command knows.
ONE_PROCESS = """
import importlib, io, contextlib, sys, time
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for arguments in ("--atlantis", "--seed nan", "--seed -1", "--domains atlantis", "--tasks -1", "stray"):
        sys.argv = [name, *arguments.split()]
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            try:
                module.main()
            except SystemExit as stop:
                code = stop.code
            else:
                code = "none"
        lines = errors.getvalue().splitlines()
        if code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
            sys.exit(f"{name} {arguments}: code {code}, {lines}")
    loaded = {"jax", "gymnax", "envs_jax", "scipy"} & sys.modules.keys()
    if loaded:
        sys.exit(f"{name} imported {loaded}")
"""


def test_every_command_refuses_in_one_line_before_jax_loads(tmp_path):
    assert len(COMMANDS) == 19
    done = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, *COMMANDS],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
