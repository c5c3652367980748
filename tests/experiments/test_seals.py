"""A run's folder: every file sealed, damage named and never accepted, one process at a time, gone means gone."""

from __future__ import annotations

import multiprocessing
import pathlib
import random
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from experiments.harness import cli, files, learners, returns, runs, values
from experiments.harness.errors import UsageError
from experiments.harness.runs import RunFolder, faults
from experiments.transfer.configuration import PRESETS
from experiments.transfer.plan import plan

SMOKE = PRESETS["smoke"]
FLIPS = 10_000
LINES = 5


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Everything that a finished run leaves behind, small: figures are bytes, checkpoints hold one array."""
    path = tmp_path_factory.mktemp("seals") / "transfer/run"
    with RunFolder(path, SMOKE, resume=False) as folder:
        folder.write_json(runs.VERSIONS, {"python": "3"})
        for i in range(LINES):
            folder.log("source-portfolio", i, {"loss": [0.1 * i, 0.2]})
        folder.checkpointer("source-portfolio").save(1, {"w": jnp.arange(3.0)})
        folder.write_json(f"agents/source-portfolio/{runs.VALIDATION}", {"reference": {"chosen": "as trained"}})
        folder.write("agents/source-portfolio/returns.npz", returns.to_bytes({"portfolio": np.zeros((4, 5, 4, 2))}))
        folder.write(runs.RETURNS, returns.to_bytes({"returns/source-portfolio/portfolio": np.zeros(9)}, compress=True))
        for name in ("scores.csv", "summary.json", "report.html", "figures/adaptation.png"):
            folder.write(name, f"content of {name}".encode() * 20)
    return path


def _copy(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished, tmp_path / "transfer/run"))


def _flip(path: pathlib.Path, bit: int) -> bytes:
    content = path.read_bytes()
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(changed))
    return content


def test_a_whole_folder_has_no_faults(finished: pathlib.Path) -> None:
    assert faults(finished) == []
    check = subprocess.run(["sha256sum", "-c", files.MANIFEST], cwd=finished, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
    assert "config.yaml: OK" in check.stdout


def test_no_flipped_bit_is_accepted(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A bit of a file drawn by its size, or of any file alike, so that small ones are met too."""
    copy = _copy(finished, tmp_path)
    all_files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.stat().st_size]
    assert {"config.yaml", "manifest.sha256", "metrics.jsonl", "description.json", "report.html"} <= {
        path.name for path in all_files
    }
    sizes = [path.stat().st_size for path in all_files]
    rng = random.Random(20251121)
    missed, met = [], set()
    for i in range(FLIPS):
        (path,) = rng.choices(all_files, sizes if i % 2 else None)
        bit = rng.randrange(8 * path.stat().st_size)
        before = _flip(path, bit)
        found = faults(copy)
        if not any(line.startswith(path.relative_to(copy).as_posix()) for line in found):
            missed.append((path, bit, found))
        met.add(path)
        path.write_bytes(before)
    assert missed == []
    assert met == set(all_files)
    assert faults(copy) == []


def test_files_that_are_missing_or_strange_are_named(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = _copy(finished, tmp_path)
    (copy / "scores.csv").unlink()
    (copy / "agents/source-portfolio/notes.txt").write_text("not ours")
    assert faults(copy) == [
        "scores.csv is missing",
        f"agents/source-portfolio/notes.txt is not listed in {files.MANIFEST}",
    ]


@pytest.mark.parametrize("damage", ["empty", "cut", "digit", "bit", "gone"])
def test_another_configuration_is_refused(damage: str, finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = _copy(finished, tmp_path)
    config = copy / runs.CONFIG
    text = config.read_bytes()
    changed = {"empty": b"", "cut": text[: len(text) // 2], "digit": text.replace(b"seeds: 2", b"seeds: 3")}
    if damage == "bit":
        _flip(config, 1000)
    elif damage == "gone":
        config.unlink()
    else:
        assert changed[damage] != text
        config.write_bytes(changed[damage])
    with pytest.raises(UsageError, match=r"config\.yaml"):
        cli.parse("transfer", PRESETS, ["--resume", "run", "--results", str(tmp_path)], "prog", "")


def test_a_configuration_resealed_is_refused_by_the_checkpoints(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = _copy(finished, tmp_path)
    changed = (copy / runs.CONFIG).read_bytes().replace(b"seeds: 2", b"seeds: 3")
    (copy / runs.CONFIG).write_bytes(changed)
    manifest = files.Manifest.read(copy)
    manifest.entries[runs.CONFIG] = files.digest(changed)
    manifest.write()
    assert faults(copy) == []
    with pytest.raises(UsageError, match=r"step_0+1 was saved under another configuration than config\.yaml"):
        runs.read_config("resume", copy)


def test_a_manifest_that_is_damaged_or_gone(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = _copy(finished, tmp_path)
    seal = (copy / files.MANIFEST).read_bytes()
    _flip(copy / files.MANIFEST, 8 * (len(seal) - 10))
    told: list[str] = []
    with RunFolder(copy, SMOKE, resume=True, notify=told.append) as folder:
        assert folder.read("scores.csv") is not None
    assert len(told) == 1
    assert "manifest.sha256 is damaged" in told[0]
    assert (copy / files.MANIFEST).read_bytes() == seal
    (copy / files.MANIFEST).unlink()
    with pytest.raises(UsageError, match=r"manifest\.sha256 is missing"):
        runs.read_config("resume", copy)


def test_damaged_lines_of_the_metrics_are_dropped_and_the_others_stay(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = _copy(finished, tmp_path)
    path = copy / runs.METRICS
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"\xff", b"\n", b"0"):
        broken = lines[1][:20] + damage + lines[1][21:]
        path.write_bytes(b"".join([lines[0], broken, *lines[2:], lines[0][:30]]))
        told: list[str] = []
        with RunFolder(copy, SMOKE, resume=True, notify=told.append) as folder:
            assert path.read_bytes() == b"".join([lines[0], *lines[2:]])
            assert [entry["iteration"] for entry in folder.metrics()] == [0, 2, 3, 4]
            for i in range(LINES):
                folder.log("source-portfolio", i, {"loss": "again"})
            assert [entry["iteration"] for entry in folder.metrics()] == [0, 2, 3, 4, 1]
        assert any("line 2 is damaged; it is dropped" in line for line in told)
        assert "cut short" in told[-1]


def test_a_line_without_its_end_is_completed(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = (copy := _copy(finished, tmp_path)) / runs.METRICS
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with RunFolder(copy, SMOKE, resume=True) as folder:
        folder.log("source-portfolio", LINES, {})
        assert path.read_bytes().startswith(whole)
        assert len(folder.metrics()) == LINES + 1


def test_damaged_returns_are_measured_anew(tmp_path: pathlib.Path) -> None:
    """On the old code, nineteen of 21,664 flips lost arrays without a word, and sixty ended in an error."""
    run = plan(SMOKE)[1]
    arrays = {domain: np.zeros((4, 5, 4, 2), np.float32) for domain in SMOKE.domains}
    told: list[str] = []
    path = tmp_path / "transfer/run"
    with RunFolder(path, SMOKE, resume=False, notify=told.append) as folder:
        assert returns.finished(folder, SMOKE, run) is None
        folder.write(returns.file_of(run), returns.to_bytes(arrays))
        found = returns.finished(folder, SMOKE, run)
        assert found is not None
        assert list(found) == list(SMOKE.domains)
        assert told == []
        file = path / returns.file_of(run)
        for bit in range(0, 8 * file.stat().st_size, 31):
            before = _flip(file, bit)
            assert returns.finished(folder, SMOKE, run) is None
            assert "returns.npz is damaged" in told[-1]
            assert told[-1].endswith(f"{run.label} is measured anew")
            file.write_bytes(before)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"portfolio": np.zeros((4, 5, 4, 2), "f4")}, "lacks energy_trading, supply_chain"),
        (
            dict.fromkeys((*SMOKE.domains, "extra"), np.zeros((4, 5, 4, 2), "f4")),
            "holds extra, which this configuration",
        ),
        (dict.fromkeys(SMOKE.domains, np.zeros((4, 5, 4, 3), "f4")), "has shape (4, 5, 4, 3), not (4, 5, 4, 2)"),
        (dict.fromkeys(SMOKE.domains, np.zeros((4, 5, 4, 2), "i4")), "holds int32"),
    ],
)
def test_sealed_returns_of_other_arrays_are_measured_anew(
    arrays: dict[str, np.ndarray], message: str, tmp_path: pathlib.Path
) -> None:
    run, told = plan(SMOKE)[1], []
    with RunFolder(tmp_path / "run", SMOKE, resume=False, notify=told.append) as folder:
        folder.write(returns.file_of(run), returns.to_bytes(arrays))
        assert returns.finished(folder, SMOKE, run) is None
        assert message in told[-1]


def test_equal_arrays_make_equal_bytes() -> None:
    arrays = {"a": np.arange(1000.0)}
    for compress in (False, True):
        assert returns.to_bytes(arrays, compress) == returns.to_bytes(arrays, compress)


def _start(path: pathlib.Path, seeds: int, barrier: object, results: object) -> None:
    config = learners.for_learner(SMOKE, "transformer_maml_dqn")
    config = values.from_mapping(config, {"seeds": values.Text(str(seeds))})
    barrier.wait()  # type: ignore[attr-defined]
    try:
        with RunFolder(path, config, resume=False):
            results.put((path.name, seeds))  # type: ignore[attr-defined]
            barrier.wait()  # type: ignore[attr-defined]
    except UsageError as error:
        results.put((path.name, str(error)))  # type: ignore[attr-defined]
        barrier.wait()  # type: ignore[attr-defined]


def _starts(seeds: int, paths: list[pathlib.Path], barrier: object, results: object) -> None:
    for path in paths:
        _start(path, seeds, barrier, results)


def test_of_two_runs_of_one_name_the_winner_keeps_its_configuration(tmp_path: pathlib.Path) -> None:
    """Sixty tries; on the old code the refused run had overwritten the winner's configuration in all of them."""
    context = multiprocessing.get_context("spawn")
    paths = [tmp_path / f"run{i}" for i in range(60)]
    barrier, results = context.Barrier(2, timeout=120), context.Queue()
    both = [context.Process(target=_starts, args=(seeds, paths, barrier, results)) for seeds in (3, 4)]
    for process in both:
        process.start()
    for process in both:
        process.join(240)
        assert process.exitcode == 0
    said = [results.get(timeout=10) for _ in range(2 * len(paths))]
    for path in paths:
        told = [what for name, what in said if name == path.name]
        (winner,) = (what for what in told if isinstance(what, int))
        (loser,) = (what for what in told if isinstance(what, str))
        assert "in use by another process" in loser
        assert yaml.safe_load((path / runs.CONFIG).read_text())["seeds"] == winner
        assert faults(path) == []


def test_a_run_is_held_by_one_process(tmp_path: pathlib.Path) -> None:
    with RunFolder(tmp_path / "run", SMOKE, resume=False), pytest.raises(UsageError, match="in use by another process"):
        RunFolder(tmp_path / "run", SMOKE, resume=True)


def test_a_folder_that_was_deleted_is_not_made_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    with RunFolder(path, SMOKE, resume=False) as folder:
        shutil.rmtree(path)
        acts = [
            lambda: folder.log("a", 1, {}),
            lambda: folder.write("scores.csv", b""),
            lambda: folder.agent("a"),
            lambda: folder.checkpointer("a"),
        ]
        for act in acts:
            with pytest.raises(FileNotFoundError, match="was deleted or replaced"):
                act()
            assert not path.exists()


def test_leftovers_of_a_killed_process_are_cleared(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = _copy(finished, tmp_path)
    (copy / f"agents/source-portfolio/.returns.npz.abc{files.PART}").write_bytes(b"half")
    with RunFolder(copy, SMOKE, resume=True):
        assert faults(copy) == []


def test_a_write_that_fails_leaves_the_file_before(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_kill_between_manifest_and_file_costs_the_file_only(tmp_path: pathlib.Path) -> None:
    with RunFolder(tmp_path / "run", SMOKE, resume=False) as folder:
        folder._manifest.entries["scores.csv"] = files.digest(b"new")
        folder._manifest.write()
    told: list[str] = []
    with RunFolder(tmp_path / "run", SMOKE, resume=True, notify=told.append) as folder:
        assert folder.read("scores.csv") is None
        assert told == []  # it was never written
        folder.write("scores.csv", b"new")
        assert folder.read("scores.csv") == b"new"


def test_the_newest_run_is_found(tmp_path: pathlib.Path) -> None:
    import os

    for age, name in enumerate(("new", "old")):
        with RunFolder(tmp_path / "transfer" / name, SMOKE, resume=False) as folder:
            os.utime(folder.path / runs.CONFIG, (1000 - age, 1000 - age))
    assert runs.find("resume", "transfer", "latest", tmp_path).name == "new"
    assert runs.find("resume", "transfer", "old", tmp_path).name == "old"
    asked = cli.parse("transfer", PRESETS, ["--resume", "--results", str(tmp_path)], "prog", "")
    assert asked.folder == tmp_path / "transfer/new"
    assert asked.run == SMOKE
