"""How much knowing the task is worth: ``python -m benchmarks.quality.headroom``.

For every domain the returns of six policies on the same tasks and the same noise: random, no-op, *urgent* (serves the
most urgent entity, else does nothing: :func:`envs_jax.policies.urgent_action`), the heuristic that sees only what an
agent sees, the reference planned for the *average* task, and the reference. The score of a policy is
``sum (J - floor) / sum (J_reference - floor)`` over tasks, floor = max(random, no-op) of each. Adaptation headroom is
one minus the best score of urgent, heuristic and average: what is left for somebody who learns the task to gain.

``--out docs/headroom.md`` writes the table and, beside it, the same results as JSON. Domains measured there before with
the same settings stay, so that a new one needs no run of all.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.quality.store import chosen, kept, load, merged, prepare, publish, worlds

HEADER = """\
Returns J are means over {tasks} tasks x {episodes} episodes of each domain with common random numbers (seed {seed}),
undiscounted and with the noise-free expected reward where a domain states one. Scores are pooled over tasks; in
brackets the 95 % interval of a bootstrap over tasks. *Average* is the reference policy planned for the mean hidden
parameters of {population} other tasks. *Urgent* knows the vocabulary and no domain, and learns nothing: it takes the
action of the largest (urgency - slack) x signed, or does nothing. Headroom = 1 - max(urgent, heuristic, average). A
reference that is itself a heuristic is marked +: scores above 1 are then possible.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      domains: which; none means all.
      tasks: tasks of each domain.
      episodes: episodes of each task.
      population: tasks that the average is taken over.
      seed: of tasks and noise.
      out: a Markdown file to write the table to; the results go beside it, as JSON.
    """

    domains: tuple[str, ...] = ()
    tasks: int = 64
    episodes: int = 8
    population: int = 1024
    seed: int = 0
    out: pathlib.Path | None = None

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_domains(self.domains)
        command.check_range(self, 1, 10**6, "tasks", "episodes", "population")
        command.check_seed(self)


@dataclasses.dataclass(frozen=True)
class Row:
    """One policy on one domain.

    Attributes:
      domain: its name, marked + where the reference is a heuristic.
      policy: random, noop, urgent, heuristic, average or reference.
      mean_return: J in the domain's ``unit``.
      unit: of the return.
      score: pooled score, with the ends of its interval.
      low: see ``score``.
      high: see ``score``.
    """

    domain: str
    policy: str
    mean_return: float
    unit: str
    score: float
    low: float
    high: float


def frozen(env: Any, config: Config) -> tuple[Any, Any, Any]:
    """What is drawn of a domain: tasks ``[tasks]``, other tasks ``[population]``, keys ``[tasks, episodes]``."""
    import jax

    sample = jax.jit(jax.vmap(env.sample_params))
    task_key, population_key, episode_key = jax.random.split(jax.random.key(config.seed), 3)
    tasks = sample(jax.random.split(task_key, config.tasks))
    population = sample(jax.random.split(population_key, config.population))
    return tasks, population, jax.random.split(episode_key, (config.tasks, config.episodes))


def measure(name: str, config: Config) -> list[Row]:
    """All policies on one domain."""
    import envs_jax
    from envs_jax import policies, scoring
    from metarl_jax import statistics

    env, _ = envs_jax.make(name)
    tasks, population, keys = frozen(env, config)
    found = scoring.reference_returns(env, tasks, keys)
    others = {
        "urgent": scoring.returns(env, "urgent", tasks, keys).mean(-1),
        "average": scoring.returns(env, "average", tasks, keys, population).mean(-1),
    }
    returns = {
        policy: np.asarray(others[policy] if policy in others else getattr(found, policy), np.float64)
        for policy in policies.POLICIES
    }
    floor = np.maximum(returns["random"], returns["noop"])
    mark = "+" if env.reference_kind == "heuristic" else ""
    rows = []
    for policy, mean in returns.items():
        score = statistics.hierarchical_bootstrap(mean[None], floor, returns["reference"], seed=config.seed)
        rows.append(
            Row(name + mark, policy, float(mean.mean()), env.reward_unit, score.estimate, score.low, score.high)
        )
    return rows


def headroom(rows: Iterable[Row]) -> float:
    """``1 - max(urgent, heuristic, average)`` of one domain's rows: beyond whoever does not know the task."""
    return 1.0 - max(row.score for row in rows if row.policy in ("urgent", "heuristic", "average"))


def table(domains: Iterable[list[Row]]) -> str:
    """Markdown: a line a policy and the headroom beside the domain's last."""
    lines = [
        "| domain | policy | J | unit | score | headroom |",
        "|---|---|---:|---|---:|---:|",
    ]
    for rows in domains:
        for row in rows:
            score, low, high = (round(value, 3) + 0.0 for value in (row.score, row.low, row.high))  # no "-0.000"
            left = f"{headroom(rows):.2f}" if row is rows[-1] else ""
            cells = (row.domain, row.policy, f"{row.mean_return:.4g}", row.unit, f"{score:.3f} [{low:.3f}, {high:.3f}]")
            lines.append(f"| {' | '.join((*cells, left))} |")
    return "\n".join(lines) + "\n"


def settings(config: Config) -> dict[str, int]:
    """What results must share to stand in one table."""
    return {name: getattr(config, name) for name in ("tasks", "episodes", "population", "seed")}


def joined(stored: dict[str, Any], config: Config, measured: dict[str, list[Row]]) -> dict[str, Any]:
    """``stored`` with newly ``measured`` domains; raises like :func:`~benchmarks.quality.store.kept`.

    A domain's entry: ``reference_kind``, ``headroom`` and ``rows`` (fields of :class:`Row`).
    """
    entries = {}
    for name, rows in measured.items():
        kind = "heuristic" if rows[0].domain.endswith("+") else "optimal"
        written = [dataclasses.asdict(row) for row in rows]
        entries[name] = {"reference_kind": kind, "headroom": headroom(rows), "rows": written}
    return merged(stored, settings(config), entries, everything=not config.domains)


def document(stored: dict[str, Any]) -> str:
    """The Markdown page of stored results."""
    asked = stored["settings"]
    arguments = chosen(stored, settings(Config()))
    text = f"# Adaptation headroom\n\n`python -m benchmarks.quality.headroom{arguments}`\n\n{HEADER.format(**asked)}\n"
    text += worlds(stored)
    return text + table([Row(**row) for row in entry["rows"]] for entry in stored["domains"].values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    config = command.parse(Config, __doc__, arguments)
    names = config.domains or tuple(command.registry()["DOMAINS"])
    try:
        stored = load(config.out)
        kept(stored, settings(config), names)  # refuses before minutes of measuring
        prepare(config.out)
    except ValueError as error:
        command.refuse(error)
    result = joined(stored, config, {name: measure(name, config) for name in names})
    publish(config.out, document(result), result)


if __name__ == "__main__":
    main()
