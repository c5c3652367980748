"""The parts of a rollout run, and what its summary says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.harness.study import Part
from experiments.rollout.configuration import MOST_CPU_DEVICES, RolloutConfig

if TYPE_CHECKING:
    from envs_jax.games.warehouse import Warehouse

GIB = 2**30


def cpu_devices(config: RolloutConfig) -> int:
    """Devices that a CPU shows: as many as are compared or shared over."""
    return MOST_CPU_DEVICES if config.studies else max(config.devices, 1)


def build(config: RolloutConfig) -> Warehouse:
    """The warehouse.

    Raises:
      ValueError: naming field, value and what is allowed.
    """
    from envs_jax.games import warehouse as model

    return model.make(config.example, config.reading, config.levels)


def check(config: RolloutConfig) -> None:
    """Refuses an order, a size or a number of devices that this warehouse or machine does not have."""
    from envs_jax.references import warehouse as exact
    from experiments.harness import machine
    from metarl_jax.rollout import parallel
    from metarl_jax.rollout.study import MOST_PAIRS

    warehouse = build(config)
    levels, states = warehouse.num_levels, warehouse.num_states
    if config.order and sorted(config.order) != list(range(1, levels + 1)):
        raise ValueError(f"order must name each of the levels 1 to {levels} once, got {config.order}")
    if warehouse.is_chain or config.potentials != "exact" or config.devices:
        free, need = available_memory(), exact.working_bytes(warehouse) + levels * states
        if need > free:
            sizes = f"{states:,} joint stocks need {need / GIB:.1f} GB, there are {free / GIB:.1f} GB"
            raise ValueError(f"levels must be fewer than {levels}: {sizes}")
    if not config.devices:
        return
    if config.devices > MOST_CPU_DEVICES and not machine.has_accelerator():
        most = f"{MOST_CPU_DEVICES}, the most that a CPU is split into here"
        raise ValueError(f"devices must be at most {most}, got {config.devices}")
    if states**2 > 10 * MOST_PAIRS:
        most = f"at most {10 * MOST_PAIRS:,}; 0 improves by structure"
        raise ValueError(f"devices: enumeration would visit {states**2:,} pairs of stock and joint flow, {most}")
    parallel.check_devices(config.devices)


def available_memory() -> int:
    """Memory that is free for this process [bytes]."""
    try:
        with open("/proc/meminfo") as file:
            entries = dict(line.split(":") for line in file)
        return int(entries["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def announce(config: RolloutConfig) -> str:
    """What will be done, in one line."""
    levels = "" if config.levels is None else f", {config.levels} levels"
    return (
        f"rollout: {config.example}{levels}, reading {config.reading}, {config.improve} choice, {config.potentials} "
        f"potentials{', with the comparisons' if config.studies else ''}"
    )


def parts(config: RolloutConfig) -> Sequence[Part]:
    """The parts of a run, in the order in which they are computed."""
    from metarl_jax.rollout import study

    warehouse = build(config)
    states, pairs = warehouse.num_states, warehouse.num_states**2
    order = tuple(level - 1 for level in config.order) or None

    def part(name: str, function: Callable[..., Any], *arguments: Any) -> Part:
        return Part(name, lambda results: function(*arguments))

    found = [
        part("warehouse", study.describe, warehouse, config.inputs),
        part("optimum", study.optimum, warehouse),
        _gains(config, warehouse, order),
    ]
    if not config.studies:
        return found
    if warehouse.is_chain and states <= 10 * study.MOST_STATES_SAMPLED:
        found.append(part("joint", study.exact_gains, warehouse, "joint", None, True))
        found.append(part("agents", study.exact_gains, warehouse, "agents", order, True))
    paths = (config.iterations, config.path)
    if states <= study.MOST_STATES_SAMPLED:
        fits = study.fits(config.inputs)
        found.append(part("sampled", study.sampled, warehouse, fits, config.seeds, *paths, "joint", config.seed))
        found.append(part("estimate", study.estimate_against_truth, warehouse, config.path, config.seed))
    if 100 * pairs <= study.MOST_PAIRS:
        found.append(part("next_states", study.sampled_next_states, warehouse, 50, *paths, config.seed))
    if pairs <= study.MOST_PAIRS:
        found.append(part("devices", study.devices, warehouse))
    if config.scale >= 2:
        found.append(part("scaling", study.scaling, tuple(range(2, config.scale + 1))))
    return found


def _gains(config: RolloutConfig, warehouse: Warehouse, order: tuple[int, ...] | None) -> Part:
    """The gains of successive policies, as asked for."""
    from metarl_jax.rollout import study

    def compute(results: Mapping[str, Any]) -> dict[str, Any]:
        if config.potentials != "exact":
            fits = {config.potentials: study.fits(config.inputs)[config.potentials]}
            sizes = (config.seeds, config.iterations, config.path)
            return study.sampled(warehouse, fits, *sizes, config.improve, config.seed)
        if config.devices:
            return study.exact_gains_on_devices(warehouse, config.devices)
        return study.exact_gains(warehouse, config.improve, order)

    return Part("gains", compute)


def summary(config: RolloutConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of ``summary.json``: ``optimum``, ``gains``, and those of the comparisons."""
    gains, optimum = results["gains"], results["optimum"]
    out = {
        "reading": config.reading,
        "optimum": optimum["gain"],
        "optimum_bounds": [optimum["lower"], optimum["upper"]],
        "states": int(results["warehouse"]["states"]),
        "gains": gains["gains"] if config.potentials == "exact" else gains[config.potentials][0]["gains"],
    }
    out |= {f"{name}_gains": results[name]["gains"] for name in ("joint", "agents") if name in results}
    if config.potentials != "exact":
        out["gains_by_seed"] = [own["gains"] for own in gains[config.potentials]]
    if "scaling" in results:
        out["factor_per_level"] = results["scaling"]["factor_per_level"]
    return out
