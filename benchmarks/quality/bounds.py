"""How far references are from what is possible: ``python -m benchmarks.quality.bounds``.

Scores are scaled by a reference that jit can compute. Where oracles too slow for jit bound every policy's return, this
command runs them on the frozen tasks and episodes of ``benchmarks.quality.headroom`` and scores the bound like a
policy: 0 is the floor, 1 the reference. A foresight bound of 1.3 says that no policy whatever scores more than 1.3 on
these episodes.

``--out docs/bounds.md`` writes the table and, beside it, the same results as JSON. Domains measured there before with
the same settings stay, so that a new one needs no run of all.
"""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from benchmarks import command
from benchmarks.quality import headroom
from benchmarks.quality.store import chosen, kept, load, merged, prepare, publish, worlds

Kind = Literal["foresight bound", "relaxation", "best found"]


@dataclasses.dataclass(frozen=True)
class Bound:
    """What is computed for a domain.

    Attributes:
      name: what it is, in a few words.
      kind: "foresight bound": no policy earns more in that episode, even with all noise known. "relaxation": no policy
        without foreknowledge earns more in expectation. "best found": the best plan a search found for known noise,
        not a bound.
      oracle: ``module.function`` of :mod:`benchmarks.quality.oracles`, ``(env, task, keys[E]) -> f64[E]``.
      tasks: how many of the frozen tasks, from the first on.
      episodes: how many of each task's episodes.
    """

    name: str
    kind: Kind
    oracle: str
    tasks: int = 64
    episodes: int = 8


BOUNDS: dict[str, tuple[Bound, ...]] = {
    "agriculture": (
        Bound("linear programme, weather known", "foresight bound", "agriculture.hindsight", 64, 4),
        Bound("Lagrangian of permit and pump, up to its grid", "relaxation", "agriculture.lagrangian", 64, 4),
    ),
    "cloud_scheduling": (
        Bound("time-indexed linear programme, all jobs known", "foresight bound", "cloud_scheduling.hindsight"),
    ),
    "edge_computing": (
        Bound("linear programme, noise known", "foresight bound", "edge_computing.hindsight"),
        Bound("annealing of 20,000 moves, noise known", "best found", "edge_computing.best_found", 64, 2),
    ),
    "maritime": (Bound("linear programme, orders known", "foresight bound", "maritime.hindsight"),),
    "network_traffic": (Bound("linear programme, all draws known", "foresight bound", "network_traffic.hindsight"),),
    "portfolio": (Bound("continuous trades, exact", "relaxation", "portfolio.continuous"),),
    "smart_grid": (Bound("dynamic programme, weather known", "foresight bound", "smart_grid.foresight"),),
    "supply_chain": (Bound("Clark and Scarf, orders of any size", "relaxation", "supply_chain.any_order"),),
    "vehicle_fleet": (Bound("linear programme, requests known", "foresight bound", "vehicle_fleet.hindsight"),),
}
"""One line a bound; a domain's oracles are in the file of its name."""

WITHOUT: dict[str, str] = {
    "air_traffic": "the reference is the exact optimum of what scores add up, which holds no noise: its own bound.",
    "data_center": "states of six servers with queues and setups are too many; exact for two servers "
    "(`python -m benchmarks.studies.dispatch_gap`).",
    "energy_trading": "the reference is the exact optimum given the task: its own bound for whoever cannot foresee "
    "prices. The optimum with foresight is computed for a recorded path only (a test).",
    "healthcare": "states of four wards of 8 to 20 beds are too many; exact for two small wards "
    "(`python -m benchmarks.studies.ward_gap`).",
    "manufacturing": "the optimum that knows every operation's outcome needs CP-SAT, which is no dependency: "
    "`python -m benchmarks.studies.job_shop_optimum`, figures in domains/manufacturing.md.",
    "recommender": "what a user likes is moved by the slates themselves, so that no programme for known noise is "
    "linear; exact for small sessions (a test).",
    "smart_city": "states of a network's queues are too many; exact for one intersection (a test).",
    "warehouse": "the reference is the exact optimum given the task: its own bound for whoever cannot foresee demand.",
}
"""Domains without an entry in :data:`BOUNDS`, and why."""

HEADER = """\
What is possible on the frozen tasks of [headroom](headroom.md) (seed {seed}), or on the first so many of them, as the
table says, where an oracle is slow. The reference and the floor are those of exactly these episodes. Returns J are
undiscounted. Score: 0 is the floor max(random, no-op), 1 the reference, pooled over tasks, in brackets the 95 %
interval of a bootstrap over tasks. *Least gap* is the smallest difference, over all episodes and the policies random,
no-op, heuristic and reference, between what is possible and what was earned.

- *Foresight bound*: even with everything known that chance will bring in the episode, no policy earns more. Linear
  programmes also let whole things be divided, and leave out rules that `benchmarks/quality/oracles` names. So the
  distance from the reference is what nobody can know, plus what the programme may do beyond the rules, plus what the
  reference misses; how much is which is not known.
- *Relaxation*: no policy without foreknowledge earns more in expectation. An episode may, and so may a mean of some.
- *Best found*: the best plan that a search found with the noise known. It can be attained, and it is no bound.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      domains: which; none means all that have a bound.
      tasks: at most so many of each domain's frozen tasks, from the first on.
      episodes: at most so many of each task's frozen episodes.
      seed: of tasks and noise.
      out: a Markdown file to write the table to; the results go beside it, as JSON.
    """

    domains: tuple[str, ...] = ()
    tasks: int = 64
    episodes: int = 8
    seed: int = 0
    out: pathlib.Path | None = None

    def __post_init__(self) -> None:
        """Refuses what has no bound, and numbers without a meaning."""
        command.check_domains(self.domains)
        for name in self.domains:
            if name not in BOUNDS:
                raise ValueError(f"no bound for {name!r}; there is one for {', '.join(BOUNDS)}")
        for name in ("tasks", "episodes"):
            command.check_range(self, 1, getattr(headroom.Config(), name), name)
        command.check_seed(self)


@dataclasses.dataclass(frozen=True)
class Row:
    """One bound.

    Attributes:
      domain: its name, marked + where the reference is a heuristic.
      bound: what it is.
      kind: see :class:`Bound`.
      tasks: the first so many of the frozen ones.
      episodes: of each task, the first.
      mean_return: of the bound, in ``unit``.
      reference: mean return of the reference on the same episodes.
      floor: mean over tasks of max(random, no-op).
      unit: of returns.
      score: of the bound, with the ends of its interval.
      low: see ``score``.
      high: see ``score``.
      least_gap: smallest difference between bound and a policy's return in an episode; None for a relaxation.
    """

    domain: str
    bound: str
    kind: str
    tasks: int
    episodes: int
    mean_return: float
    reference: float
    floor: float
    unit: str
    score: float
    low: float
    high: float
    least_gap: float | None


def score(env: Any, bound: Bound, values: np.ndarray, earned: dict[str, np.ndarray], seed: int) -> Row:
    """A row of the table.

    Args:
      env: the domain.
      bound: what was computed.
      values: ``[tasks, episodes]`` of it.
      earned: returns ``[tasks, episodes]`` of random, noop, heuristic, reference on the same episodes.
      seed: of the bootstrap.

    Raises:
      RuntimeError: if a policy earned more than a bound that holds episode by episode allows.
    """
    from metarl_jax import statistics

    means = {name: returns.mean(-1) for name, returns in earned.items()}
    floor = np.maximum(means["random"], means["noop"])
    mean, best = values.mean(-1), np.max(list(earned.values()), axis=0)
    gap = values - best
    # Returns are float32 sums; linear programmes stop within 1e-7 of feasible.
    if bound.kind == "foresight bound" and (gap < -1e-4 * (1.0 + np.abs(best))).any():
        raise RuntimeError(f"{env.name}: a policy earned {-gap.min():.4g} more than the bound {bound.name!r}")
    found = statistics.hierarchical_bootstrap(mean[None], floor, means["reference"], seed=seed)
    return Row(
        domain=env.name + ("+" if env.reference_kind == "heuristic" else ""),
        bound=bound.name,
        kind=bound.kind,
        tasks=values.shape[0],
        episodes=values.shape[1],
        mean_return=float(mean.mean()),
        reference=float(means["reference"].mean()),
        floor=float(floor.mean()),
        unit=env.reward_unit,
        score=found.estimate,
        low=found.low,
        high=found.high,
        least_gap=None if bound.kind == "relaxation" else float(gap.min()),
    )


def oracle(bound: Bound) -> Callable[[Any, Any, Any], np.ndarray]:
    """The function that computes a bound."""
    module, function = bound.oracle.split(".")
    found: Callable[[Any, Any, Any], np.ndarray] = getattr(
        importlib.import_module(f"benchmarks.quality.oracles.{module}"), function
    )
    return found


def measure(name: str, config: Config) -> list[Row]:
    """All bounds of one domain."""
    import jax

    import envs_jax
    from envs_jax import scoring

    env, _ = envs_jax.make(name)
    sizes = [(min(b.tasks, config.tasks), min(b.episodes, config.episodes)) for b in BOUNDS[name]]
    many, most = (max(size) for size in zip(*sizes, strict=True))
    tasks, _, keys = headroom.frozen(env, headroom.Config(population=1, seed=config.seed))
    tasks, keys = jax.tree.map(lambda x: x[:many], tasks), keys[:many, :most]
    found = {k: np.asarray(v, np.float64) for k, v in vars(scoring.reference_episodes(env, tasks, keys)).items()}
    rows = []
    for bound, (count, episodes) in zip(BOUNDS[name], sizes, strict=True):
        began = time.process_time()
        compute = oracle(bound)
        each = [compute(env, jax.tree.map(lambda x, i=i: x[i], tasks), keys[i, :episodes]) for i in range(count)]
        earned = {policy: returns[:count, :episodes] for policy, returns in found.items()}
        rows.append(score(env, bound, np.stack(each), earned, config.seed))
        print(f"{name}, {bound.name}: {time.process_time() - began:.0f} CPU-seconds", flush=True)
    return rows


def table(domains: Iterable[list[Row]]) -> str:
    """Markdown: a line a bound."""
    lines = [
        "| domain | bound | kind | tasks x episodes | J bound | J reference | unit | score of the bound | least gap |",
        "|---|---|---|---:|---:|---:|---|---:|---:|",
    ]
    for row in (row for rows in domains for row in rows):
        cells = (
            *(row.domain, row.bound, row.kind, f"{row.tasks} x {row.episodes}"),
            *(f"{row.mean_return:.4g}", f"{row.reference:.4g}", row.unit),
            f"{row.score:.3f} [{row.low:.3f}, {row.high:.3f}]",
            "" if row.least_gap is None else f"{row.least_gap:.2g}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def settings(config: Config) -> dict[str, int]:
    """What results must share to stand in one table."""
    return {name: getattr(config, name) for name in ("tasks", "episodes", "seed")}


def document(stored: dict[str, Any]) -> str:
    """The Markdown page of stored results."""
    shown = f"`python -m benchmarks.quality.bounds{chosen(stored, settings(Config()))}`"
    rows = table([Row(**row) for row in entry["rows"]] for entry in stored["domains"].values())
    without = "".join(f"- **{name}**: {reason}\n" for name, reason in WITHOUT.items())
    head = HEADER.format(**stored["settings"])
    return f"# Bounds\n\n{shown}\n\n{head}\n{worlds(stored)}{rows}\n## Domains without one\n\n{without}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    config = command.parse(Config, __doc__, arguments)
    names = config.domains or tuple(BOUNDS)
    try:
        stored = load(config.out)
        kept(stored, settings(config), names)  # refuses before minutes of measuring
        prepare(config.out)
    except ValueError as error:
        command.refuse(error)
    entries = {name: {"rows": [dataclasses.asdict(row) for row in measure(name, config)]} for name in names}
    result = merged(stored, settings(config), entries, everything=not config.domains)
    publish(config.out, document(result), result)


if __name__ == "__main__":
    main()
