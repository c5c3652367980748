"""Exact job-shop optima beside the policies of ``manufacturing``: ``python -m benchmarks.job_shop_optimum``.

Needs OR-Tools, which is not a dependency of this project (ortools 9.15 asks for protobuf 6.33, our lock has a later
one): run it in an environment of its own, ``uv run --with ortools python -m benchmarks.job_shop_optimum``.

CP-SAT solves the published instances (makespan, and total weighted tardiness with the weights 4, 2, 1 and tightness
1.3), then sampled tasks with every operation's time *known beforehand*. That bounds what any dispatcher can attain,
however well it knows the machines: it knows means, not outcomes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      instances: published instances to solve, of ft06, la01, ft10.
      tasks: sampled tasks, one episode each.
      seconds: limit for each solve; beyond it the best schedule found is reported as a bound that was not proven.
      workers: threads of the solver.
      seed: of tasks and noise.
    """

    instances: tuple[str, ...] = ("ft06", "la01", "ft10")
    tasks: int = 16
    seconds: float = 60.0
    workers: int = 2
    seed: int = 0


def solve(
    order: np.ndarray, minutes: np.ndarray, weight: np.ndarray | None, due: np.ndarray, config: Config
) -> tuple[float, str]:
    """Least makespan, or with ``weight [J]`` least total weighted tardiness; and the solver's status.

    Args:
      order: ``[J, M]`` place of machine m in job j's route.
      minutes: ``[J, M]`` whole numbers: CP-SAT knows no others.
      weight: whole numbers.
      due: ``[J]`` whole numbers.
      config: limits.
    """
    from ortools.sat.python import cp_model

    jobs, machines = order.shape
    horizon = int(minutes.sum())
    model = cp_model.CpModel()
    start = [[model.new_int_var(0, horizon, "") for _ in range(machines)] for _ in range(jobs)]
    for m in range(machines):
        model.add_no_overlap(
            model.new_fixed_size_interval_var(start[j][m], int(minutes[j, m]), "") for j in range(jobs)
        )
    ends = []
    for j in range(jobs):
        route = np.argsort(order[j])
        for a, b in itertools.pairwise(route):
            model.add(start[j][b] >= start[j][a] + int(minutes[j, a]))
        ends.append(start[j][route[-1]] + int(minutes[j, route[-1]]))
    if weight is None:
        makespan = model.new_int_var(0, horizon, "")
        for end in ends:
            model.add(makespan >= end)
        model.minimize(makespan)
    else:
        late = [model.new_int_var(0, horizon, "") for _ in range(jobs)]
        for j in range(jobs):
            model.add(late[j] >= ends[j] - int(due[j]))
        model.minimize(sum(int(w) * x for w, x in zip(weight, late, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = config.seconds
    solver.parameters.num_workers = config.workers
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return math.nan, solver.status_name(status)
    return solver.objective_value, solver.status_name(status)


def published(config: Config) -> None:
    """Prints the optima of published instances."""
    from envs_jax import data
    from envs_jax.domains.manufacturing import Manufacturing

    print("| instance | makespan | status | weighted tardiness | status |\n|---|---:|---|---:|---|")
    for name in config.instances:
        route, minutes = data.job_shop(name)
        params = Manufacturing(*route.shape).instance(route, minutes)
        order, nominal, weight, due = map(np.asarray, (params.order, params.nominal, params.weight, params.due))
        cells = [x for w in (None, weight) for x in solve(order, nominal, w, due, config)]
        print(f"| {name} | {cells[0]:.0f} | {cells[1]} | {cells[2]:.0f} | {cells[3]} |", flush=True)


def sampled(config: Config) -> None:
    """Prints mean returns of the policies on sampled tasks, and that of the optimum that knows all outcomes."""
    import jax

    import envs_jax
    from envs_jax import anchors

    env, _ = envs_jax.make("manufacturing")
    tasks = jax.vmap(env.sample_params)(jax.random.split(jax.random.key(config.seed), config.tasks))
    keys = jax.random.split(jax.random.key(config.seed + 1), (config.tasks, 1))
    found = anchors.anchors(env, tasks, keys)
    _, states = jax.vmap(env.reset_env)(keys[:, 0], tasks)
    params: Any = jax.device_get(tasks)
    # Tenths of minutes: rounding moves an optimum by far less than the policies differ.
    minutes, due = np.rint(10.0 * np.asarray(states.minutes)), np.rint(10.0 * params.due)
    solved = [solve(*x, config) for x in zip(params.order, minutes, params.weight, due, strict=True)]
    best = -np.array([cost for cost, _ in solved]) / 10.0 / params.nominal.mean((1, 2))
    proven = sum(status == "OPTIMAL" for _, status in solved)
    print(f"\n| policy | return, mean of {config.tasks} tasks [{env.reward_unit}] |\n|---|---:|")
    for name in ("random", "noop", "heuristic", "reference"):
        print(f"| {name} | {float(np.mean(getattr(found, name))):.2f} |")
    print(f"| optimum that knows all outcomes ({proven} proven) | {best.mean():.2f} |")


def main() -> None:
    """Command line."""
    import importlib.util
    import sys

    import tyro

    config = tyro.cli(Config, description=__doc__)
    if importlib.util.find_spec("ortools") is None:
        sys.exit("this benchmark needs OR-Tools: uv run --with ortools python -m benchmarks.job_shop_optimum")
    published(config)
    sampled(config)


if __name__ == "__main__":
    main()
