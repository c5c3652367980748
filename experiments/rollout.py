"""A team runs a warehouse: rollout on average-cost potentials, exact and estimated, beside the optimum.

``python -m experiments.rollout [--example ex1|ex2|chain --levels N --reading R5 --improve joint|agents
--potentials exact|path|network --devices H]``. ``summary.json`` holds ``optimum`` (the smallest gain) and ``gains``
(the exact gains of successive policies from "order nothing"); ``report.md`` everything else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.study import Section, Study, run

if TYPE_CHECKING:
    from envs_jax.games.warehouse import Warehouse

POTENTIALS = ("exact", "path", "network")
MOST_CPU_DEVICES = 8
GIB = 2**30


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """What is run; every flag is one of these fields."""

    example: str = _setting("chain", "ex1, ex2 or chain")
    levels: int | None = _setting(
        None, "number of levels of a chain (3 if not given), or the first so many of the rest"
    )
    reading: str = _setting("R5", "R1, R2, R2b, R4 or R5: who supplies whom, and what the order cost is")
    improve: str = _setting("joint", "joint or agents (in turn, level 1 first)")
    order: tuple[int, ...] = _setting((), "levels, from 1, in the order of their turns")
    potentials: str = _setting("exact", "exact, path (table and linear fit) or network")
    inputs: str = _setting("levels", "of a fit: levels, seed28 or onehot")
    devices: int = _setting(0, "share the joint flows over so many devices; 0: improve by structure")
    path: int = _setting(20_000, "periods of a path")
    iterations: int = _setting(8, "policies improved upon from paths")
    seeds: int = _setting(3, "independent runs from paths")
    seed: int = _setting(0, "of all randomness")
    scale: int = _setting(6, "levels of the longest chain that is timed; 0: none")
    studies: bool = _setting(True, "also the comparisons: agents, paths, devices, scale")
    results: pathlib.Path = _setting(pathlib.Path("results"), "folder of all runs")
    name: str = _setting("", "of the run")

    def __post_init__(self) -> None:
        """Refuses values that have no meaning; those of the warehouse are refused by :func:`build`."""
        for field, allowed in (
            ("improve", ("joint", "agents")),
            ("potentials", POTENTIALS),
            ("inputs", ("levels", "seed28", "onehot")),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} = {getattr(self, field)!r}: allowed are {', '.join(allowed)}")
        for field, least in (
            *(("devices", 0), ("path", 100), ("iterations", 1), ("seeds", 1), ("seed", 0), ("scale", 0)),
        ):
            if getattr(self, field) < least:
                raise ValueError(f"{field} = {getattr(self, field)}: at least {least}")
        if self.devices and self.improve == "agents":
            raise ValueError(f"devices = {self.devices}: shares out joint flows, so improve must be joint")


PRESETS = {
    "default": RolloutConfig(),
    "smoke": RolloutConfig(path=2000, iterations=3, seeds=1, scale=4),
}


def build(config: RolloutConfig) -> Warehouse:
    """The warehouse, after every check that needs no compiler.

    Raises:
      ValueError: naming field, value and what is allowed.
    """
    from envs_jax.games import warehouse as model
    from envs_jax.references import warehouse as exact

    warehouse = model.make(config.example, config.reading, config.levels)
    if config.order and sorted(config.order) != list(range(1, warehouse.num_levels + 1)):
        raise ValueError(f"order = {config.order}: must name each of the levels 1 to {warehouse.num_levels} once")
    needs_table = warehouse.is_chain or config.potentials != "exact" or config.devices
    if needs_table:
        free = available_memory()
        need = exact.working_bytes(warehouse) + warehouse.num_levels * warehouse.num_states
        if need > free:
            raise ValueError(
                f"levels = {warehouse.num_levels}: {warehouse.num_states:,} joint stocks need {need / GIB:.1f} GB, "
                f"there are {free / GIB:.1f} GB"
            )
    if config.devices:
        pairs = warehouse.num_states**2
        if pairs > 10 * _most_pairs():
            raise ValueError(
                f"devices = {config.devices}: enumeration would visit {pairs:,} pairs of stock and joint flow, at most "
                f"{10 * _most_pairs():,}; 0 improves by structure"
            )
    return warehouse


def _most_pairs() -> int:
    from experiments.rollout_sections import MOST_PAIRS

    return MOST_PAIRS


def available_memory() -> int:
    """Memory that is free for this process [bytes]."""
    try:
        with open("/proc/meminfo") as file:
            entries = dict(line.split(":") for line in file)
        return int(entries["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def prepare(config: RolloutConfig) -> None:
    """Splits a CPU into devices, which must happen first, and refuses what cannot be done."""
    import jax

    if config.devices > MOST_CPU_DEVICES and not _has_accelerator():
        raise ValueError(
            f"devices = {config.devices}: allowed are 0 to {MOST_CPU_DEVICES}, the most that a CPU is split into here"
        )
    # Where jax has computed already, in a test or a notebook, it keeps the devices it has.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", MOST_CPU_DEVICES if config.studies else max(config.devices, 1))
    build(config)
    if config.devices:
        from metarl_jax.rollout import parallel

        parallel.check_devices(config.devices)


def _has_accelerator() -> bool:
    return any(pathlib.Path("/dev").glob("nvidia[0-9]*")) or any(pathlib.Path("/dev").glob("accel*"))


def sections(config: RolloutConfig) -> Sequence[Section]:
    """The parts of a run, in the order in which they are computed."""
    from experiments import rollout_sections as parts
    from metarl_jax.rollout.potentials import Fit

    warehouse = build(config)
    order = tuple(level - 1 for level in config.order) or None
    fits = {
        "path": Fit("linear", config.inputs),
        "network": Fit("network", config.inputs, fill="all"),
    }
    found = [Section("optimum", lambda _: parts.optimum(warehouse))]
    if config.potentials != "exact":
        chosen = {config.potentials: fits[config.potentials]}
        found.append(
            Section(
                "gains",
                lambda _: parts.sampled(
                    warehouse, chosen, config.seeds, config.iterations, config.path, config.improve, config.seed
                ),
            )
        )
    elif config.devices:
        found.append(Section("gains", lambda _: parts.exact_gains_on_devices(warehouse, config.devices)))
    else:
        found.append(Section("gains", lambda _: parts.exact_gains(warehouse, config.improve, order)))
    if not config.studies:
        return found
    if warehouse.is_chain and warehouse.num_states <= parts.MOST_STATES_SAMPLED * 10:
        found += [
            Section("joint", lambda _: parts.exact_gains(warehouse, "joint")),
            Section("agents", lambda _: parts.exact_gains(warehouse, "agents", order)),
        ]
    if warehouse.num_states <= parts.MOST_STATES_SAMPLED:
        found += [
            Section(
                "sampled",
                lambda _: parts.sampled(
                    warehouse, fits, config.seeds, config.iterations, config.path, "joint", config.seed
                ),
            ),
            Section("estimate", lambda _: parts.estimate_against_truth(warehouse, config.path, config.seed)),
        ]
    if warehouse.num_states**2 <= parts.MOST_PAIRS / 100:
        found.append(
            Section(
                "next_states",
                lambda _: parts.sampled_next_states(warehouse, 50, config.iterations, config.path, config.seed),
            )
        )
    if warehouse.num_states**2 <= parts.MOST_PAIRS:
        found.append(Section("devices", lambda _: parts.devices(warehouse)))
    if config.scale >= 2:
        found.append(Section("scaling", lambda _: parts.scaling(tuple(range(2, config.scale + 1)))))
    return found


def summary(config: RolloutConfig, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of ``summary.json``: ``optimum``, ``gains``, and those of the comparisons."""
    gains = parts["gains"]
    first = gains["gains"] if config.potentials == "exact" else gains[config.potentials][0]["gains"]
    out = {
        "reading": config.reading,
        "optimum": parts["optimum"]["gain"],
        "optimum_bounds": [parts["optimum"]["lower"], parts["optimum"]["upper"]],
        "states": int(parts["optimum"]["states"]),
        "gains": first,
    }
    for name in ("joint", "agents"):
        if name in parts:
            out[f"{name}_gains"] = parts[name]["gains"]
    if config.potentials != "exact":
        out["gains_by_seed"] = [own["gains"] for own in gains[config.potentials]]
    if "scaling" in parts:
        out["factor_per_level"] = parts["scaling"]["factor_per_level"]
    return out


def report(config: RolloutConfig, parts: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes ``report.md`` and its figures."""
    from experiments import rollout_report

    rollout_report.write_report(config, parts, folder, build(config))


STUDY = Study(
    "rollout",
    "A team runs a warehouse: rollout on average-cost potentials, beside the optimum.",
    PRESETS,
    prepare,
    sections,
    summary,
    report,
)

if __name__ == "__main__":
    sys.exit(run(STUDY))
