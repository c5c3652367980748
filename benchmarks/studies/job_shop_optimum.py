"""Exact job-shop optima beside the policies of ``manufacturing``: ``python -m benchmarks.studies.job_shop_optimum``.

Needs OR-Tools, which is not a dependency of this project (ortools 9.15 asks for protobuf 6.33, our lock has a later
one): run it in an environment of its own, ``uv run --with ortools python -m benchmarks.studies.job_shop_optimum``.

CP-SAT solves the published instances (makespan, and total weighted tardiness with the weights 4, 2, 1 and tightness
1.3), then sampled tasks with every operation's time *known beforehand*. That bounds what any dispatcher can attain,
however well it knows the machines: it knows means, not outcomes.

Schedules that were found can be kept in a file, ``--store``, which the tests read: they check each schedule and its
value on their own. The lower bounds in it are the solver's word.

A solve begins with the schedule kept, if any, and looks for cheaper ones alone: what costs U in all lets no job of
weight w be later than U / w, which bounds every start from above. The solver's large-neighbourhood searches find good
schedules and prove nothing; its exact searches prove, and with two workers find little. So there are eight workers
however few the cores, and ``--improve`` gives the former a time of their own first.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
from typing import Any, Literal

import numpy as np

from benchmarks import command

STORED = pathlib.Path(__file__).parents[2] / "tests" / "envs_jax" / "job_shop_schedules.json"
INSTANCES = ("ft06", "ft10", "la01", "la17", "la20", "ta01")
"""Where the schedules that the tests check are kept."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      instances: published instances to solve, of ft06, ft10, la01, la17, la20, ta01.
      objectives: what to minimise on them.
      tasks: sampled tasks, one episode each; 0 for none.
      seconds: limit for each solve; beyond it the best schedule found is reported with the bound reached.
      improve: seconds of large-neighbourhood search before, for published instances.
      workers: searches of the solver that share the cores.
      seed: of tasks and noise.
      store: keep the schedules of published instances, where better than what is there, in the file that tests read.
    """

    instances: tuple[str, ...] = ("ft06", "la01", "ft10")
    objectives: tuple[Literal["makespan", "tardiness"], ...] = ("makespan", "tardiness")
    tasks: int = 16
    seconds: float = 60.0
    improve: float = 0.0
    workers: int = 8
    seed: int = 0
    store: bool = False

    def __post_init__(self) -> None:
        """Refuses instances that are not there, and numbers without a meaning."""
        for name in self.instances:
            if name not in INSTANCES:
                raise ValueError(command.unknown("instance", name, INSTANCES))
        command.check_range(self, 0, 10**6, "tasks")
        command.check_range(self, 0, 10**6, "seconds", "improve")
        command.check_range(self, 1, 1024, "workers")
        command.check_seed(self)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a solver found.

    Attributes:
      value: of the objective; nan if nothing was found.
      bound: the solver's lower bound.
      status: OPTIMAL if both agree.
      start: ``[J, M]`` start of job j on machine m, as lists.
      seconds: the solver took.
    """

    value: float
    bound: float
    status: str
    start: list[list[int]]
    seconds: float


def value_of(start: np.ndarray, minutes: np.ndarray, weight: np.ndarray | None, due: np.ndarray) -> int:
    """Makespan of a schedule with starts ``[J, M]``, or with ``weight [J]`` its total weighted tardiness."""
    completion = (start + minutes).max(1)
    value = completion.max() if weight is None else weight @ np.maximum(completion - due, 0)
    return int(value)


def solve(
    order: np.ndarray,
    minutes: np.ndarray,
    weight: np.ndarray | None,
    due: np.ndarray,
    config: Config,
    known: list[list[int]] | None = None,
    improve: bool = False,
) -> Schedule:
    """Least makespan, or with ``weight [J]`` least total weighted tardiness.

    Args:
      order: ``[J, M]`` place of machine m in job j's route.
      minutes: ``[J, M]`` whole numbers: CP-SAT knows no others.
      weight: whole numbers, positive.
      due: ``[J]`` whole numbers, not negative.
      config: limits.
      known: starts of a schedule to begin with; only schedules that are as good are looked at.
      improve: large-neighbourhood search alone, for ``config.improve`` seconds.
    """
    from ortools.sat.python import cp_model

    jobs, machines = order.shape
    minutes, due = minutes.astype(int), due.astype(int)
    weight = None if weight is None else weight.astype(int)
    latest = np.full(jobs, minutes.sum())  # no job need end later: some optimal schedule is never idle as a whole
    if known:
        value = value_of(np.array(known), minutes, weight, due)
        latest = np.minimum(latest, value if weight is None else due + value // weight)
    model = cp_model.CpModel()
    start: list[dict[int, Any]] = []
    ends = []
    for j in range(jobs):
        route = np.argsort(order[j]).tolist()
        time = minutes[j, route]
        after = time.cumsum()
        # From the job's earliest start of each operation to the last that lets the job end in time.
        windows = zip(route, after - time, latest[j] - (after[-1] - after + time), strict=True)
        start.append({m: model.new_int_var(int(low), int(high), "") for m, low, high in windows})
        for a, b in itertools.pairwise(route):
            model.add(start[j][b] >= start[j][a] + int(minutes[j, a]))
        ends.append(start[j][route[-1]] + int(minutes[j, route[-1]]))
    for m in range(machines):
        model.add_no_overlap(
            model.new_fixed_size_interval_var(start[j][m], int(minutes[j, m]), "") for j in range(jobs)
        )
    if weight is None:
        makespan = model.new_int_var(0, int(latest.max()), "")
        for end in ends:
            model.add(makespan >= end)
        model.minimize(makespan)
    else:
        late = [model.new_int_var(0, max(int(latest[j] - due[j]), 0), "") for j in range(jobs)]
        for j in range(jobs):
            model.add(late[j] >= ends[j] - int(due[j]))
        model.minimize(sum(int(w) * x for w, x in zip(weight, late, strict=True)))
    for variables, times in zip(start, known or [], strict=False):
        for m, x in variables.items():
            model.add_hint(x, times[m])
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = config.improve if improve else config.seconds
    solver.parameters.num_workers = config.workers
    solver.parameters.use_lns_only = improve
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Schedule(math.nan, solver.best_objective_bound, solver.status_name(status), [], solver.wall_time)
    found = [[int(solver.value(variables[m])) for m in range(machines)] for variables in start]
    return Schedule(
        solver.objective_value, solver.best_objective_bound, solver.status_name(status), found, solver.wall_time
    )


def stored() -> dict[str, dict[str, Any]]:
    """Schedules of published instances by "instance objective", as the fields of :class:`Schedule`."""
    return json.loads(STORED.read_text()) if STORED.exists() else {}


def store(name: str, found: Schedule) -> None:
    """Keeps a schedule in the file of :func:`stored` if it has a better value than the one there, or a better bound."""
    kept = stored()
    old = kept.get(name)
    if old is None or (found.value, -found.bound) < (old["value"], -old["bound"]):
        kept[name] = dataclasses.asdict(found) | {"seconds": round(found.seconds)}
        rows = [f"{json.dumps(key)}: {json.dumps(kept[key])}" for key in sorted(kept)]
        STORED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def published(config: Config) -> None:
    """Solves published instances and prints what was found."""
    from envs_jax import data
    from envs_jax.domains.manufacturing import Manufacturing

    print("| instance, objective | value | bound | status | seconds |\n|---|---:|---:|---|---:|")
    for name, objective in itertools.product(config.instances, config.objectives):
        route, minutes = data.job_shop(name)
        params = Manufacturing(*route.shape).instance(route, minutes)
        order, nominal, weight, due = map(np.asarray, (params.order, params.nominal, params.weight, params.due))
        known = stored().get(f"{name} {objective}", {}).get("start")
        args = (order, nominal, weight if objective == "tardiness" else None, due, config)
        if config.improve:
            known = solve(*args, known, improve=True).start or known
        found = solve(*args, known)
        cells = (f"{found.value:.0f}", f"{found.bound:.0f}", found.status, f"{found.seconds:.0f}")
        print(f"| {name} {objective} | {' | '.join(cells)} |", flush=True)
        if config.store and found.start:
            store(f"{name} {objective}", found)


def sampled(config: Config) -> None:
    """Prints mean returns of the policies on sampled tasks, and that of the optimum that knows all outcomes."""
    import jax

    import envs_jax
    from envs_jax import scoring

    env, _ = envs_jax.make("manufacturing")
    tasks = jax.vmap(env.sample_params)(jax.random.split(jax.random.key(config.seed), config.tasks))
    keys = jax.random.split(jax.random.key(config.seed + 1), (config.tasks, 1))
    found = scoring.reference_returns(env, tasks, keys)
    _, states = jax.vmap(env.reset_env)(keys[:, 0], tasks)
    params: Any = jax.device_get(tasks)
    # Tenths of minutes: rounding moves an optimum by far less than the policies differ.
    minutes, due = np.rint(10.0 * np.asarray(states.minutes)), np.rint(10.0 * params.due)
    solved = [solve(*x, config) for x in zip(params.order, minutes, params.weight, due, strict=True)]
    best = -np.array([schedule.value for schedule in solved]) / 10.0 / params.nominal.mean((1, 2))
    proven = sum(schedule.status == "OPTIMAL" for schedule in solved)
    print(f"\n| policy | return, mean of {config.tasks} tasks [{env.reward_unit}] |\n|---|---:|")
    for name in ("random", "noop", "heuristic", "reference"):
        print(f"| {name} | {float(np.mean(getattr(found, name))):.2f} |")
    print(f"| optimum that knows all outcomes ({proven} proven) | {best.mean():.2f} |")


def main() -> None:
    """Command line."""
    import importlib.util

    config = command.parse(Config, __doc__)
    if importlib.util.find_spec("ortools") is None:
        command.refuse("this study needs OR-Tools: uv run --with ortools python -m benchmarks.studies.job_shop_optimum")
    published(config)
    if config.tasks:
        sampled(config)


if __name__ == "__main__":
    main()
