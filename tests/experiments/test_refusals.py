"""What is not allowed is refused: one line, exit code 2, nothing written, nothing heavy loaded."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from experiments.harness import runs
from experiments.transfer.__main__ import command
from experiments.transfer.configuration import PRESETS
from tests.experiments.bad_inputs import AGENT_BOUNDS, FLAGS, YAML

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 3.0


def _named(case: tuple[object, str]) -> str:
    given = " ".join(case[0]) if isinstance(case[0], list) else str(case[0])
    return ascii(given)[1:41]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A working folder with a run to resume, an empty folder, and a file in the way of a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way of a folder")
    with runs.RunFolder(tmp_path / "results/transfer/old", PRESETS["smoke"], resume=False):
        return tmp_path


def _everything(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def _refused(arguments: Sequence[str], expected: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _everything(folder)
    code = command(arguments)
    shown = capsys.readouterr()
    assert code == 2, shown.err
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert any(part in line for part in expected.split("|")), line
    assert 10 < len(line) <= 420
    assert line.isprintable()
    assert _everything(folder) == before


def test_there_are_enough_of_them() -> None:
    assert len(FLAGS) + len(YAML) >= 150
    assert len({json.dumps(arguments) for arguments, _ in FLAGS}) == len(FLAGS)
    assert len({str(text) for text, _ in YAML}) == len(YAML)


@pytest.mark.parametrize(("arguments", "expected"), FLAGS, ids=[_named(case) for case in FLAGS])
def test_bad_flags(
    arguments: list[str], expected: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(arguments, expected, folder, capsys)


@pytest.mark.parametrize(("text", "expected"), YAML, ids=[_named(case) for case in YAML])
def test_bad_files(text: str | bytes, expected: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    _refused(["--config", "bad.yaml"], expected, folder, capsys)
    _refused(["--config", "bad.yaml"], "config: bad.yaml: ", folder, capsys)


@pytest.mark.parametrize(("arguments", "expected"), AGENT_BOUNDS, ids=[_named(case) for case in AGENT_BOUNDS])
def test_numbers_of_the_agent_that_have_no_meaning(
    arguments: list[str], expected: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A run that is not refused would start: the memory that there is ends it.
    _refused([*arguments, "--evaluation.tasks", "100000", "--evaluation.episodes", "1000"], expected, folder, capsys)


def test_as_processes_jax_free_and_at_once(folder: pathlib.Path) -> None:
    """All of the flags in one process, which then has loaded nothing heavy, and one alone, which is timed."""
    script = (
        "import json, sys\n"
        "from experiments.transfer.__main__ import command\n"
        "codes = [command(arguments) for arguments in json.loads(sys.stdin.read())]\n"
        "heavy = [name for name in ('jax', 'numpy', 'gymnax', 'tyro', 'rich') if name in sys.modules]\n"
        "print(json.dumps([codes, heavy]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    asked = [arguments for arguments, _ in FLAGS if "--report" not in arguments]  # which reads arrays
    given = json.dumps(asked)
    done = subprocess.run(
        [sys.executable, "-c", script], input=given, cwd=folder, env=environment, capture_output=True, text=True
    )
    codes, heavy = json.loads(done.stdout)
    assert codes == [2] * len(asked)
    assert heavy == []
    lines = done.stderr.splitlines()
    assert len(lines) == len(asked)
    assert all(line.startswith("error: ") and len(line) > 10 for line in lines)

    before, clock = os.times(), time.monotonic()
    alone = [sys.executable, "-m", "experiments.transfer", "--seeds", "x"]
    done = subprocess.run(alone, cwd=folder, env=environment, capture_output=True, text=True)
    after = os.times()
    assert (done.returncode, done.stderr) == (2, "error: --seeds must be a whole number, got 'x'\n")
    used = after.children_user - before.children_user + after.children_system - before.children_system
    assert min(used, time.monotonic() - clock) < SECONDS


def test_no_other_experiments_can_hide_the_console_script(tmp_path: pathlib.Path) -> None:
    """Installed-like: packages in a folder of their own, the script elsewhere, another ``experiments`` in two ways."""
    installed, elsewhere = tmp_path / "site", tmp_path / "work"
    installed.mkdir()
    (elsewhere / "experiments").mkdir(parents=True)
    (elsewhere / "experiments/__init__.py").write_text("raise ImportError('the other experiments')")
    for name in ("envs_jax", "metarl_jax", "experiments", "metarl_commands.py"):
        (installed / name).symlink_to(ROOT / name)
    script = tmp_path / "bin/metarl-transfer"  # as installers write it
    script.parent.mkdir()
    script.write_text("import sys\nfrom metarl_commands import transfer\nsys.exit(transfer())\n")
    for path in (f"{installed}", f"{elsewhere}:{installed}", f":{installed}"):
        done = subprocess.run(
            [sys.executable, str(script), "--resume", "nowhere"],
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: resume: 'nowhere' is not the folder of a run")
