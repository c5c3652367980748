"""The machine a run works on: cores, devices, versions, and where compiled programs are kept."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

from experiments.cli import UsageError

PACKAGES = (
    *("metarl-jax", "jax", "jaxlib", "flax", "optax", "chex", "gymnax", "distrax", "orbax-checkpoint"),
    *("numpy", "scipy", "matplotlib", "rich", "tyro", "pyyaml"),
)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_jax(cache: pathlib.Path | None) -> None:
    """Settings that must be made before jax computes anything, which importing a domain does.

    A CPU shows one device a core, over which members are spread; an accelerator is used as it is.
    """
    import jax

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", cores())
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def cache_folder(asked: pathlib.Path | None) -> pathlib.Path | None:
    """Where compiled programs are kept: as asked, as jax is told by its own variable, or in the user's cache folder.

    Returns None where the user's folder cannot be written: the run is then only slower to start.

    Raises:
      UsageError: if a folder that was asked for cannot be written.
    """
    named = asked or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(named) if named else pathlib.Path(home) / "metarl-jax" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if named:
            raise UsageError(f"cache_dir: cannot write to {folder}: {error.strerror}") from error
        return None


def _git(*arguments: str) -> str | None:
    folder = pathlib.Path(__file__).parent
    try:
        out = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()


def versions(devices: Iterable[Any]) -> dict[str, Any]:
    """What a result depends on beside the configuration: versions, devices, source."""
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
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": cores(),
        "devices": [f"{device.platform} {device.device_kind}" for device in devices],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": None if changed is None else bool(changed),
        "command": sys.argv[1:],
    }
