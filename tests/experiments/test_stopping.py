"""SIGTERM and SIGINT in every phase, and errors of the machine: one line that says what to do, the right exit code."""

from __future__ import annotations

import errno
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import pytest

from experiments.harness import errors, files, returns, runs
from experiments.harness import main as harness
from experiments.harness.stopping import Phase
from experiments.report.results import BASELINES, DomainBaselines
from experiments.transfer.__main__ import experiment

ROOT = pathlib.Path(__file__).parents[2]
NEW = ["--preset", "smoke", "--name", "run"]
COMMAND = "python -m experiments.transfer --resume results/transfer/run"
GO_ON = f"go on with: {COMMAND}"


def _signalled(phase: str, name: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.experiments.signalled", phase, name, "fake", *NEW],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("phase", get_args(Phase))
def test_a_signal_in_any_phase(phase: str, tmp_path: pathlib.Path) -> None:
    name = "SIGINT" if get_args(Phase).index(phase) % 2 else "SIGTERM"
    done = _signalled(phase, name, tmp_path)
    assert done.returncode == 128 + signal.Signals[name], done.stderr
    *before, last = done.stderr.splitlines()
    if phase == "parsing":
        assert last == f"{name}: stopped while parsing; nothing was written"
        assert not (tmp_path / "results").exists()
    elif phase == "training":
        assert before == [f"{name}: finishing this interval, then saving; once more ends at once"]
        assert last == f"{name}: saved; {GO_ON}"
        assert json.loads((tmp_path / "results/transfer/run/intervals.json").read_text()) == 0
    else:
        assert last == f"{name}: stopped while {phase}; {GO_ON}"
    if phase != "training":
        assert before == []
    if phase != "parsing":
        assert runs.faults(tmp_path / "results/transfer/run") == []


def test_no_signal_no_word(tmp_path: pathlib.Path) -> None:
    done = _signalled("never", "SIGTERM", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def _command(carry_out: Callable[..., Any], *arguments: str) -> int:
    import dataclasses

    return harness.main(lambda: dataclasses.replace(experiment(), carry_out=carry_out), arguments or NEW)


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _raising(error: BaseException) -> Callable[..., Any]:
    def carry_out(*arguments: Any) -> Any:
        raise error

    return carry_out


class DivergedError(RuntimeError):
    """Has the name of the one in ``metarl_jax.training``, whose message it is given here."""


FULL = "RESOURCE_EXHAUSTED: Error writing /x/step_1: No space left on device"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "No space left on device: /x/y; no room is left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y"), "Disk quota exceeded: /x/y; no room is left"),
        (OSError(errno.EFBIG, "File too large", "/x/y"), "File too large: /x/y; no room is left"),
        (
            OSError(f"cannot write checkpoint /x: {FULL}\nsource: a\n  b"),
            "no room is left there: free some, then go on",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x/y"),
            "Permission denied: /x/y; make it writable, then go",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/x"),
            "Read-only file system: /x; make it writable, then go on",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "/x"),
            "the run's folder or a part of it is gone: put it back",
        ),
        (OSError(errno.EIO, "Input/output error", "/x"), "Input/output error: /x; once that is repaired, go on with"),
        (MemoryError(), "memory ran out (MemoryError): give it more"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "memory ran out (RESOURCE_EXHAUSTED"),
        (RuntimeError("can't start new thread"), "memory ran out (can't start new thread)"),
        (DivergedError("not finite in iterations 0-2: loss; nothing was saved"), "not finite in iterations 0-2: loss;"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "nobody reads the output any more"),
    ],
)
def test_what_the_machine_refuses(
    error: BaseException, says: str, folder: pathlib.Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("os.dup2", lambda *descriptors: None)  # of the process that this test runs in
    assert _command(_raising(error)) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert COMMAND in line or "start anew" in line
    assert len(line) < 600


def test_a_fault_of_the_program_keeps_its_trace(folder: pathlib.Path) -> None:
    with pytest.raises(ZeroDivisionError):
        _command(_raising(ZeroDivisionError("ours")))


def test_names_that_a_shell_would_take_apart_are_quoted(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _command(_raising(MemoryError()), "--preset", "smoke", "--name", "two words") == 1
    assert "--resume 'results/transfer/two words'" in capsys.readouterr().err


def test_what_libraries_print_about_an_error_is_not_shown(folder: pathlib.Path, capfd: Any) -> None:
    """As orbax does when the disk is full: traces in the log, in threads, and only then the error."""
    import logging
    import threading

    def carry_out(*arguments: Any) -> Any:
        logging.getLogger("orbax").error("trace\n" * 100)
        logging.getLogger("asyncio").critical("task was never retrieved")
        thread = threading.Thread(target=_raising(ValueError("in a thread")))
        thread.start()
        thread.join()
        raise OSError(errno.ENOSPC, "No space left on device", "/x")

    assert _command(carry_out) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert logging.root.manager.disable == 0


def _limited(limit: str, value: int, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """The command under a limit of the system, set in between: a fork of a process that runs jax may hang."""
    script = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.{limit}, ({value}, {value}))\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    return subprocess.run(
        [sys.executable, "-c", script, "-m", "experiments.transfer", *NEW],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_disk_that_is_full(tmp_path: pathlib.Path) -> None:
    """A true one: the system refuses to write more than a few bytes a file, from the first file on."""
    done = _limited("RLIMIT_FSIZE", 300, tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: results: cannot write to results/transfer/run: File too large\n"
    left = [path.name for path in (tmp_path / "results/transfer/run").iterdir()]
    assert files.PART not in "".join(left)


def test_little_address_space(tmp_path: pathlib.Path) -> None:
    done = _limited("RLIMIT_AS", 1_500_000 * 1024, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: address space: this run needs at least 4.0 GiB, there are 1.4 GiB")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_console_can_show_the_report(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    errors.replace_what_cannot_be_encoded()
    print("K=0 → K=5 • ±1 … ü ψ")
    said = raw.getvalue().decode(encoding)
    assert (
        said
        == {
            "ascii": "K=0 -> K=5 * +/-1 ... ? ?\n",
            "latin-1": "K=0 -> K=5 * ±1 ... ü ?\n",
            "utf-8": "K=0 → K=5 • ±1 … ü ψ\n",
        }[encoding]
    )


def _measured(config: Any, plan: Any) -> returns.Measured:
    import numpy as np

    rng = np.random.default_rng(0)
    asked = config.evaluation
    shape = (config.replicas, len(asked.support_episodes) + 2, asked.tasks, asked.episodes)
    levels = {policy: np.full(asked.tasks, float(i), np.float32) for i, policy in enumerate(BASELINES)}
    return returns.Measured(
        dict.fromkeys(config.domains, DomainBaselines(levels, "EUR", "optimal")),
        {(r.id, d): rng.normal(size=shape).astype("f4") for r in plan for d in r.tested_on(config.domains)},
    )


def test_a_finished_run_resumed_on_an_ascii_console_is_reported_without_jax(folder: pathlib.Path) -> None:
    assert _command(lambda config, plan, folder, signals: _finish(config, plan, folder)) == 0
    script = (
        "import sys; from experiments.transfer.__main__ import command\n"
        "code = command(['--resume', 'run'])\n"
        "assert 'jax' not in sys.modules\n"
        "sys.exit(code)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    scores = (folder / "results/transfer/run/scores.csv").read_bytes()
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all agents were finished before" in done.stdout
    assert "Score K=0 -> K=2" in done.stdout
    assert (folder / "results/transfer/run/scores.csv").read_bytes() == scores
    assert runs.faults(folder / "results/transfer/run") == []


def _finish(config: Any, plan: Any, folder: Any) -> returns.Measured:
    measured = _measured(config, plan)
    for run in plan:
        arrays = {domain: measured.returns[run.id, domain] for domain in run.tested_on(config.domains)}
        folder.write(returns.file_of(run), returns.to_bytes(arrays))
    return measured
