"""Bitwise round trips, every kind of damage, and a real kill."""

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarl_jax.runtime import checkpointing
from metarl_jax.runtime.checkpointing import Checkpointer, latest_valid


class Pair(NamedTuple):
    first: Any
    second: Any


def _bits(leaf):
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    return str(np.asarray(leaf).dtype), np.shape(leaf), np.asarray(leaf).tobytes()


def assert_same(actual, expected):
    """Equal structure, leaf types and bits (NaN payloads and signed zeros included)."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(e)
        assert _bits(a) == _bits(e)


def _train_state(seed=0):
    key = jax.random.key(seed)
    params = {"w": jax.random.normal(key, (5, 3)), "half": jax.random.normal(key, (4,), jnp.bfloat16)}
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(1e-3, 0.0, 10)))
    updates, state = optimiser.update(jax.tree.map(jnp.ones_like, params), optimiser.init(params))
    return Pair(optax.apply_updates(params, updates), Pair(state, key))


def _small(step):
    return {"w": np.arange(64, dtype=np.float32) * np.float32(step), "step": step, "key": jax.random.key(step)}


def _save_steps(directory, *steps, **options):
    checkpointer = Checkpointer(directory, **options)
    for step in steps:
        checkpointer.save(step, _small(step), {"step": step})
    return checkpointer


def _files(step_directory):
    return sorted(path for path in step_directory.rglob("*") if path.is_file())


def test_a_train_state_comes_back_bitwise_and_trains_on_identically(tmp_path):
    tree = _train_state()
    checkpointer = Checkpointer(tmp_path)
    path = checkpointer.save(7, tree, {"loss": 0.1, "history": [1, 2], "note": None})
    restored = checkpointer.latest_valid(jax.tree.map(lambda x: x, _train_state(seed=1)))
    assert restored is not None
    assert (restored.step, restored.metadata) == (7, {"loss": 0.1, "history": [1, 2], "note": None})
    assert_same(restored.tree, tree)
    draw = jax.jit(jax.random.normal)
    assert _bits(draw(restored.tree.second.second)) == _bits(draw(tree.second.second))
    assert path.parent == tmp_path


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param((), id="nothing"),
        pytest.param({"a": (), "b": None, "c": Pair({}, [])}, id="no leaves"),
        pytest.param(jnp.float32(2.5), id="one scalar"),
        pytest.param({"empty": jnp.zeros((0, 3)), "numpy": np.zeros((2, 0), np.int8), "keys": None}, id="no elements"),
        pytest.param(Pair(7, (True, -0.0, 1 + 2j, 2**40)), id="python numbers"),
        pytest.param([np.float64(1.5), np.int64(2**40), np.bool_(True), np.array([1, 2], np.uint8)], id="numpy"),
        pytest.param(np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324]), id="odd floats"),
        pytest.param(np.asfortranarray(np.arange(6.0).reshape(2, 3)), id="column-major"),
        pytest.param({"dots.and/slashes": {"in": jnp.ones(2)}, "ünicode ": jnp.arange(3)}, id="odd names"),
        pytest.param(
            [jnp.asarray([0, 1, 2], d) for d in (jnp.bfloat16, jnp.float8_e4m3fn, jnp.int8, bool)], id="narrow"
        ),
    ],
)
def test_every_leaf_comes_back_as_it_went(tmp_path, tree):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(0, tree)
    restored = checkpointer.latest_valid(tree)
    assert restored is not None
    assert_same(restored.tree, tree)


def test_typed_keys_of_every_implementation_and_shape(tmp_path):
    keys = {
        name: jax.random.split(jax.random.key(3, impl=name), (2, 3)) for name in ("threefry2x32", "rbg", "unsafe_rbg")
    }
    tree = {
        **keys,
        "one": jax.random.key(1),
        "none": jax.random.split(jax.random.key(1), 0),
        "raw": jax.random.PRNGKey(4),
    }
    Checkpointer(tmp_path).save(1, tree)
    restored = latest_valid(tmp_path, tree)
    assert restored is not None
    assert_same(restored.tree, tree)
    abstract = latest_valid(tmp_path, jax.eval_shape(lambda: tree))
    assert abstract is not None
    assert_same(abstract.tree, tree)


def test_placement_follows_the_template(tmp_path):
    device = jax.devices()[0]
    Checkpointer(tmp_path).save(0, {"w": jnp.ones(3), "k": jax.random.key(0)})
    pinned = latest_valid(tmp_path, jax.device_put({"w": jnp.ones(3), "k": jax.random.key(0)}, device))
    free = latest_valid(tmp_path, {"w": jnp.ones(3), "k": jax.random.key(0)})
    assert pinned is not None
    assert free is not None
    assert pinned.tree["w"].committed
    assert pinned.tree["k"].committed
    assert not free.tree["w"].committed  # committed, it would retrace what was compiled for the first state


def test_a_restored_state_neither_retraces_nor_resists_donation(tmp_path):
    traces = 0

    def step(tree):
        nonlocal traces
        traces += 1
        return jax.tree.map(lambda x: x + 1, tree)

    jitted = jax.jit(step, donate_argnums=0)
    tree = jitted({"w": jnp.ones(3), "n": jnp.zeros((), jnp.int32)})
    Checkpointer(tmp_path).save(0, tree)
    restored = latest_valid(tmp_path, tree)
    assert restored is not None
    expected, actual = jitted(tree), jitted(restored.tree)
    assert_same(actual, expected)
    assert traces == 1


def test_one_flipped_bit_anywhere_falls_back_and_says_where(tmp_path):
    rng = random.Random(0)
    pristine = tmp_path / "pristine"
    checkpointer = _save_steps(pristine, 10, 20)
    newest = pristine / "step_000000000020"
    assert len(_files(newest)) > 5
    expected = _small(10)
    for original in _files(newest) * 3:
        damaged = tmp_path / "damaged"
        shutil.copytree(pristine, damaged)
        victim = damaged / original.relative_to(pristine)
        content = bytearray(victim.read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << (bit % 8)
        victim.write_bytes(content)
        messages: list[str] = []
        restored = latest_valid(damaged, _small(0), messages.append)
        assert restored is not None
        assert restored.step == 10
        assert_same(restored.tree, expected)
        assert len(messages) == 1
        assert "step_000000000020" in messages[0]
        assert victim.relative_to(damaged / newest.name).as_posix() in messages[0]
        shutil.rmtree(damaged)
    intact = checkpointer.latest_valid(_small(0))
    assert intact is not None
    assert intact.step == 20


def test_truncated_and_missing_files_fall_back_and_are_named(tmp_path):
    pristine = tmp_path / "pristine"
    _save_steps(pristine, 1, 2)
    for original in _files(pristine / "step_000000000002"):
        for damage in ("truncate", "empty", "unlink"):
            damaged = tmp_path / "damaged"
            shutil.copytree(pristine, damaged)
            victim = damaged / original.relative_to(pristine)
            if damage == "unlink":
                victim.unlink()
            else:
                victim.write_bytes(victim.read_bytes()[: -1 if damage == "truncate" else 0])
            messages: list[str] = []
            restored = latest_valid(damaged, _small(0), messages.append)
            assert restored is not None
            assert restored.step == 1
            assert len(messages) == 1
            assert original.name in messages[0]
            shutil.rmtree(damaged)


def test_walks_back_over_several_broken_steps_with_a_reason_each(tmp_path):
    messages: list[str] = []
    checkpointer = _save_steps(tmp_path, 1, 2, 3, 4, keep=4, notify=messages.append)
    (tmp_path / "step_000000000004" / "manifest.sha256").unlink()
    (tmp_path / "step_000000000003" / "description.json").write_text("{}")
    (tmp_path / "step_000000000002").rename(tmp_path / "step_000000000005")  # a step under a false number
    restored = checkpointer.latest_valid(_small(0))
    assert restored is not None
    assert restored.step == 1
    reasons = ("says step 2", "cut short", "description.json is damaged")
    assert all(reason in message for reason, message in zip(reasons, messages, strict=True)), messages
    (tmp_path / "step_000000000001" / "manifest.sha256").unlink()
    assert checkpointer.latest_valid(_small(0)) is None
    assert Checkpointer(tmp_path / "new").latest_valid(_small(0)) is None


def test_a_save_that_dies_before_its_manifest_does_not_count(tmp_path, monkeypatch):
    checkpointer = _save_steps(tmp_path, 1)

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    for stage in ("_orbax_save", "_sync_and_digest", "_compare", "_write_manifest"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpointing, stage, die)
            with pytest.raises(Killed):
                checkpointer.save(2, _small(2))
        messages: list[str] = []
        restored = latest_valid(tmp_path, _small(0), messages.append)
        assert restored is not None
        assert restored.step == 1
        assert "manifest.sha256 is missing" in messages[0]
    checkpointer.save(2, _small(2))  # the leftover is replaced
    restored = checkpointer.latest_valid(_small(0))
    assert restored is not None
    assert restored.step == 2


def test_a_write_that_reads_back_differently_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    checkpointer = _save_steps(tmp_path, 1)
    honest = checkpointing._orbax_restore

    def one_bit_off(*args):
        arrays = honest(*args)
        name = next(name for name, array in arrays.items() if array.size > 1)
        arrays[name] = arrays[name].copy()
        arrays[name].view(np.uint8).flat[3] ^= 1
        return arrays

    monkeypatch.setattr(checkpointing, "_orbax_restore", one_bit_off)
    with pytest.raises(OSError, match=r"step_000000000002.*other bits"):
        checkpointer.save(2, _small(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000000001"]


def test_keeps_the_newest_and_never_the_last_valid_one_goes(tmp_path):
    messages: list[str] = []
    checkpointer = _save_steps(tmp_path, *range(5), keep=2, notify=messages.append)
    assert sorted(path.name[-2:] for path in tmp_path.iterdir()) == ["03", "04"]
    assert messages == []
    assert checkpointer.keep == 2
    only = _save_steps(tmp_path / "one", 1, 2, keep=1)
    assert [path.name[-1] for path in only.directory.iterdir()] == ["2"]


def test_pruning_waits_for_the_new_step(tmp_path, monkeypatch):
    checkpointer = _save_steps(tmp_path, 1, keep=1)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "_write_manifest", full_disk)
    with pytest.raises(OSError, match=r"cannot write checkpoint .*step_000000000002.*No space left"):
        checkpointer.save(2, _small(2))
    restored = checkpointer.latest_valid(_small(0))
    assert restored is not None
    assert restored.step == 1


def test_resuming_after_a_fallback_clears_the_abandoned_continuation(tmp_path):
    messages: list[str] = []
    checkpointer = _save_steps(tmp_path, 10, 20, notify=messages.append)
    (tmp_path / "step_000000000020" / "description.json").write_text("")
    (tmp_path / "step_000000000005").mkdir()  # an old kill
    checkpointer.save(15, _small(15))
    assert sorted(path.name[-2:] for path in tmp_path.iterdir()) == ["10", "15"]
    assert len(messages) == 2
    assert "description.json is damaged" in messages[0]
    assert "cut short" in messages[1]


def test_a_valid_step_is_never_overwritten_or_overtaken(tmp_path):
    checkpointer = _save_steps(tmp_path, 10)
    for step in (10, 9):
        with pytest.raises(ValueError, match="already holds step 10"):
            checkpointer.save(step, _small(step))
    with pytest.raises(ValueError, match="0 or more"):
        checkpointer.save(-1, _small(1))
    with pytest.raises(ValueError, match="keep"):
        Checkpointer(tmp_path, keep=0)


def test_a_template_that_does_not_fit_is_refused_by_leaf(tmp_path):
    tree = {"w": jnp.ones((2, 3)), "k": jax.random.key(0), "opt": optax.adam(1e-3).init(jnp.ones(2))}
    Checkpointer(tmp_path).save(0, tree)
    wrong = {
        r"\['w'\]: checkpoint float32\[2, 3\], template float32\[3, 2\]": tree | {"w": jnp.ones((3, 2))},
        r"\['w'\]: .* template bfloat16": tree | {"w": jnp.ones((2, 3), jnp.bfloat16)},
        r"\['k'\]: checkpoint key<fry>.* template key<rbg>": tree | {"k": jax.random.key(0, impl="rbg")},
        r"\['k'\]: checkpoint key<fry>.* template uint32": tree | {"k": jax.random.PRNGKey(0)},
        r"\['extra'\]: checkpoint has none": tree | {"extra": 1},
        r"\.mu: checkpoint float32\[2\], template has none": tree | {"opt": optax.sgd(1e-3).init(jnp.ones(2))},
    }
    for message, template in wrong.items():
        with pytest.raises(ValueError, match=message) as caught:
            latest_valid(tmp_path, template)
        assert str(tmp_path / "step_000000000000") in str(caught.value)


def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    for tree in ({"name": "text"}, {"f": print}, [np.array(["a"])], [np.array([None])], [2**80]):
        with pytest.raises(ValueError, match=r"leaf \[.*not numeric"):
            checkpointer.save(0, tree)
    bad: list[dict[Any, Any]] = [{"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": np.int64(3)}, {"a": {1, 2}}]
    for metadata in bad:
        with pytest.raises(ValueError, match="metadata"):
            checkpointer.save(0, (), metadata)
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_directory_is_named_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="cannot write checkpoints to") as caught:
            Checkpointer(directory)
        assert str(directory) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="absent"):
        latest_valid(tmp_path / "absent", ())


def test_importing_does_not_load_orbax():
    code = "import sys, metarl_jax.runtime.checkpointing; sys.exit('orbax.checkpoint' in sys.modules)"
    root = pathlib.Path(checkpointing.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_the_manifest_has_the_format_of_sha256sum(tmp_path):
    _save_steps(tmp_path, 1)
    step = tmp_path / "step_000000000001"
    *lines, seal = (step / "manifest.sha256").read_text().splitlines()
    listed = dict(line.split("  ")[::-1] for line in lines)
    digests = {f.relative_to(step).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in _files(step)}
    assert digests.pop("manifest.sha256") not in listed.values()
    assert listed == digests
    assert seal.startswith("# ")  # a comment to sha256sum


_SAVE_FOREVER = """
import itertools, os, sys
import numpy as np, orbax.checkpoint
from metarl_jax.runtime.checkpointing import Checkpointer

def large(step):
    return {"w": np.random.default_rng(step).random((300, 100)), "step": step}

# Importing takes seconds: import once and fork, before jax has started any thread, a child to be killed.
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        checkpointer = Checkpointer(sys.argv[1], keep=2)
        found = checkpointer.latest_valid(large(0))
        for step in itertools.count(0 if found is None else found.step + 1):
            checkpointer.save(step, large(step), {"step": step})
            print(step, flush=True)
    print("pid", pid, flush=True)
    print("died", os.waitpid(pid, 0)[1], flush=True)
"""


def _large(step):
    # A few hundred kilobytes that no compressor shortens, so that a kill lands inside a write.
    return {"w": np.random.default_rng(step).random((300, 100)), "step": step}


def test_kill_9_while_saving_loses_nothing_that_was_reported_saved(tmp_path):
    rng = random.Random(1)
    command = [sys.executable, "-c", _SAVE_FOREVER, str(tmp_path)]
    root = pathlib.Path(checkpointing.__file__).parents[2]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=root, text=True, **pipes) as process:
        for _ in range(4):  # each continues from what the one before left
            print("go", file=process.stdin, flush=True)
            pid = int(process.stdout.readline().removeprefix("pid "))
            steps = [int(process.stdout.readline()) for _ in range(2)]
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
            while not (line := process.stdout.readline()).startswith("died"):
                steps.append(int(line))
            assert int(line.removeprefix("died ")) == signal.SIGKILL
            messages: list[str] = []
            restored = latest_valid(tmp_path, _large(0), messages.append)
            assert restored is not None
            assert restored.step >= max(steps)
            assert restored.metadata == {"step": restored.step}
            assert_same(restored.tree, _large(restored.step))
            assert all("cut short" in message for message in messages), messages
        process.stdin.close()


def test_the_description_is_plain_json(tmp_path):
    _save_steps(tmp_path, 1)
    description = json.loads((tmp_path / "step_000000000001" / "description.json").read_text())
    assert description["metadata"] == {"step": 1}
    assert [leaf["path"] for leaf in description["leaves"]] == ["['key']", "['step']", "['w']"]
    assert description["leaves"][0] == {
        "path": "['key']", "key": "key<fry>", "impl": "threefry2x32", "shape": [2], "dtype": "uint32",
    }  # fmt: skip
