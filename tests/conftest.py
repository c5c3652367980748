"""Shared set-up: CPU, cheap compiling, a persistent cache of compiled programs, workers bounded by memory.

Tests compile thousands of programs that run for milliseconds, so XLA's optimisation is off: it would double the time of
the suite. A long simulation may ask for it: ``jax.jit(..., compiler_options={"xla_backend_optimization_level": 3})``.
XLA's older emitters (``xla_cpu_disable_new_fusion_emitters``) would compile a domain's step in a third of the time, but
round otherwise than what users run: figures that must come out to the digit then do not.
"""

import ctypes
import ctypes.util
import gc
import os
import pathlib
import re
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
# Even a single operation takes longer to compile than to load, and both workers, both test commands and every command
# that a test starts need it.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_CACHE = pathlib.Path(__file__).parent.parent / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(_CACHE)))

# Tracing makes much garbage without cycles, and the collector would look through all imported modules each time.
gc.freeze()
gc.set_threshold(50_000, 20, 50)

# Compiling is slow and the same examples must fail on every machine.
hypothesis.settings.register_profile("repo", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("repo")

WORKER = 2.0 * 2**30
"""Bytes that a worker may take: as many work side by side as the memory holds."""

KEPT = 0.8 * 2**30
"""Bytes at which a worker lets go of compiled programs after a file; the persistent cache has them for the next."""

GROWTH = 0.7 * 2**30
"""Bytes by which a worker may grow within a file before it lets go."""

LONGEST = (
    "test_transfer_smoke",
    "test_training",
    "test_probes",
    "test_own_data",
    "test_learners",
    "test_evaluation",
    "test_compile_suite",
    "test_planted",
    "test_programs",
    "test_actor_critics",
    "test_cloud_scheduling_deeprm",
    "test_conformance smart_grid",
)
"""Groups that take minutes, by length: they begin first, so that none is left for one worker at the end."""

MAPPINGS = 20_000
"""Linux gives a process 65,530 memory mappings, every compiled kernel takes some, and beyond XLA crashes."""


def _available() -> float:
    """Bytes of memory that are free or can be made so, within the limits of the container."""
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.exists():
        return WORKER
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = 1024.0 * int(lines["MemAvailable"].split()[0])
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return free if text == "max" else min(free, float(text))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker a core, but no more than memory holds."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_available() // WORKER)))


def _group(nodeid: str) -> str:
    """Which tests share a worker: those of a file, and so what they compile; of the contract's, those of a domain."""
    path, _, test = nodeid.partition("::")
    stem = pathlib.PurePosixPath(path).stem
    if stem == "test_conformance" and "[" in test:
        return f"{stem} {re.split('[][-]', test)[1]}"
    return stem


class _Together(LoadScopeScheduling):
    """Sends a group to one worker. ``--dist loadgroup`` would, but xdist 3.8 cannot name groups in pytest 9.2's ids."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Together:
    """Instead of the one that ``--dist`` names."""
    return _Together(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow tests of ``slow.txt``, and puts groups in order: the longest first, then those of most tests."""
    lines = (pathlib.Path(__file__).parent / "slow.txt").read_text().splitlines()
    slow = tuple(line for line in lines if not line.startswith("#"))
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.nodeid.startswith(slow):
            item.add_marker(pytest.mark.slow)
        groups.setdefault(_group(item.nodeid), []).append(item)
    later = sorted(groups.keys() - set(LONGEST), key=lambda group: (-len(groups[group]), group))
    first = [group for group in LONGEST if group in groups]
    items[:] = [item for group in (*first, *later) for item in groups[group]]


def _resident() -> float:
    status = pathlib.Path("/proc/self/statm")
    return float(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0.0


_after_letting_go = 0.0


def _let_go() -> None:
    global _after_letting_go
    jax.clear_caches()
    gc.collect()
    libc = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(libc), "malloc_trim", None) if libc else None
    if trim is not None:
        trim(0)
    _after_letting_go = _resident()


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Lets go of compiled programs in the middle of a file that has made very many."""
    yield
    if _resident() > max(KEPT, _after_letting_go) + GROWTH:
        _let_go()


@pytest.fixture(scope="module", autouse=True)
def _forget_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lets go of what a file made: its cached kits, and compiled programs once there are many."""
    yield
    for value in vars(request.module).values():
        if callable(clear := getattr(value, "cache_clear", None)) and value.__module__ == request.module.__name__:
            clear()
    mappings = pathlib.Path("/proc/self/maps")
    many = mappings.exists() and mappings.read_bytes().count(b"\n") > MAPPINGS
    if many or _resident() > KEPT:
        _let_go()
