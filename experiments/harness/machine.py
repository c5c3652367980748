"""The machine a run works on: cores, memory, devices, versions, and where compiled programs are kept."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

from experiments.harness.errors import UsageError
from metarl_jax.checks import shown

PACKAGES = (
    *("metarl-jax", "jax", "jaxlib", "flax", "optax", "chex", "gymnax", "distrax", "orbax-checkpoint"),
    *("numpy", "scipy", "matplotlib", "rich", "tyro", "pyyaml"),
)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limits() -> dict[str, int]:
    """Bytes that this process may use, by what sets the limit: resident memory, and address space if it is limited."""
    limits = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        limits["memory"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for control in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max", or no such group
            limits["memory"] = min(limits.get("memory", sys.maxsize), int(pathlib.Path(control).read_text()))
    for name in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(name)
        if soft != resource.RLIM_INFINITY:
            limits["address space"] = min(limits.get("address space", sys.maxsize), soft)
    return limits


def mappings() -> int:
    """Memory mappings of this process; 0 where the system does not tell."""
    try:
        return pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


def has_accelerator() -> bool:
    """Whether jax may find one; without asking it, so a guess from what the system shows."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    return any(any(pathlib.Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "accel*", "kfd", "vfio/[0-9]*"))


def before_jax() -> None:
    """Says by variables what :func:`prepare_jax` says later, where jax may be loaded, and compute, on the way to it.

    The module of a learner that keeps its configuration with it loads jax, and importing a domain computes. Nothing is
    loaded here; once jax is, this does nothing.
    """
    if "jax" in sys.modules:
        return
    os.environ["JAX_ENABLE_X64"] = "0"
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores()))


def prepare_jax(cache: pathlib.Path | None, cpu_devices: int | None = None) -> None:
    """Settings that must be made before jax computes anything, which importing a domain does.

    A CPU shows one device a core, over which replicas are spread; an accelerator is used as it is. Numbers have 32
    bits, whatever JAX_ENABLE_X64 says: results must not depend on a variable that nobody recorded.

    Args:
      cache: folder of compiled programs; None keeps none.
      cpu_devices: devices that a CPU shows, if not one a core.

    Raises:
      RuntimeError: if jax has computed already and shows another number of devices; the rest is set all the same.
    """
    import jax

    jax.config.update("jax_enable_x64", False)
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        wanted = cpu_devices or cores()
        if jax.config.jax_num_cpu_devices != wanted:  # refused, even of the same number, once jax has computed
            jax.config.update("jax_num_cpu_devices", wanted)


def cache_folder(asked: pathlib.Path | None, make: bool = True) -> pathlib.Path | None:
    """Where compiled programs are kept: as asked, as jax is told by its own variable, or in the user's cache folder.

    Args:
      asked: what the configuration says.
      make: make the folder and write to it once; else only look whether that can be expected.

    Returns:
      The folder; None where the user's own cannot be written: the run is then only slower to start.

    Raises:
      UsageError: if a folder that was asked for cannot be written.
    """
    named = asked or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(named).expanduser() if named else pathlib.Path(home) / "metarl-jax" / "compiled"
    except RuntimeError as error:  # this user has no home
        if named:
            raise UsageError(f"cache_dir names a home folder that is not there, got {shown(str(named))}") from error
        return None
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        above = folder
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return folder
    except OSError as error:
        if named:
            raise UsageError(f"cache_dir: cannot write to {shown(str(folder))[1:-1]}: {error.strerror}") from error
        return None


def _git(*arguments: str) -> str | None:
    folder = pathlib.Path(__file__).parent
    try:
        out = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()


def versions(devices: Iterable[Any]) -> dict[str, Any]:
    """What a result depends on beside the configuration: versions, of the worlds too, devices, source."""
    from envs_jax.version import VERSION

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    devices = list(devices)
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "python": platform.python_version(),
        "packages": found,
        "worlds": VERSION,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": cores(),
        "devices": [f"{device.platform} {device.device_kind}" for device in devices],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": None if changed is None else bool(changed),
        "command": sys.argv[1:],
    }
