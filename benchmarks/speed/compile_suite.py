"""What compiling many domains as one program costs: ``python -m benchmarks.speed.compile_suite``.

One jitted program plays a whole episode of every domain in lockstep, under the random policy and, in a program of its
own that also solves the tasks, under the reference policy. Tracing, lowering, compiling with an empty persistent cache
and with a filled one, peak memory, program size and run time stand beside the sum of compiling each domain alone. Each
measurement has a fresh process, so that nothing is traced, loaded or resident from the one before.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import command

if TYPE_CHECKING:
    from rich.table import Table

    from envs_jax.suite import Suite

POLICIES = ("random", "reference")
TOGETHER = "all domains, one program"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      domains: which; none means the standard ones (extras take part only if named).
      batch: tasks of each domain, one episode each.
      repeats: timed runs of a compiled program, after one that is not timed.
      alone: compile each domain alone too.
      out: folder for compile.json and compile.txt.
    """

    domains: tuple[str, ...] = ()
    batch: int = 4
    repeats: int = 5
    alone: bool = True
    out: pathlib.Path = pathlib.Path("results/benchmarks")

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_domains(self.domains)
        command.check_range(self, 1, 2**24, "batch")
        command.check_range(self, 1, 1000, "repeats")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One program in a process of its own.

    Attributes:
      program: the name of a domain, or all in one.
      policy: random or reference.
      cache: "cold" (an empty persistent cache) or "warm" (filled by the cold process).
      from_cache: whether jax took the program from the cache.
      trace_seconds: Python to jaxpr.
      lower_seconds: jaxpr to StableHLO.
      compile_seconds: StableHLO to machine code; where ``from_cache``, looking it up and loading it.
      run_seconds: wall seconds of one episode of everything, one number a repeat.
      instructions: of the optimised HLO, fused ones included.
      stablehlo_lines: of the program as lowered.
      start_bytes: largest resident memory of the process up to tracing: jax, domains, tasks.
      peak_bytes: the same up to the end of compiling.
    """

    program: str
    policy: str
    cache: str
    from_cache: bool
    trace_seconds: float
    lower_seconds: float
    compile_seconds: float
    run_seconds: tuple[float, ...]
    instructions: int
    stablehlo_lines: int
    start_bytes: int
    peak_bytes: int


def play(suite: Suite, policy: str) -> Callable[..., Any]:
    """A function of tasks, episode keys and a key: each domain's returns ``[B, 1]`` and a checksum of what was seen."""
    import jax

    from envs_jax import policies, scoring
    from envs_jax.policies import reference_actions
    from envs_jax.rollout import Step, rollout

    def record(domain: int, step: Step) -> Any:
        # Summed up, because XLA would drop features that nothing reads.
        seen = step.observation
        return scoring.score_reward(domain, step), seen.tokens.sum((-1, -2)) + seen.actions.sum((-1, -2))

    def run(tasks: Any, keys: Any, key: Any) -> Any:
        plans: tuple[Any, ...] = ()
        if policy == "reference":
            plans = tuple(jax.vmap(env.solve)(own) for env, own in zip(suite.envs, tasks, strict=True))

        def reference(seen: Any, states: Any, key: Any) -> Any:
            del seen
            parts = enumerate(zip(suite.envs, plans, states, tasks, strict=True))
            return tuple(reference_actions(*part, jax.random.fold_in(key, d)) for d, part in parts)

        act = reference if policy == "reference" else policies.random_act
        recorded, _ = rollout(suite.envs, tasks, keys, act, key, record)
        return jax.tree.map(lambda leaf: leaf.sum(0), recorded)

    return run


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(program: str, domains: Sequence[str], policy: str, cache: str, batch: int, repeats: int) -> Measurement:
    """Traces, compiles and runs one program in this process."""
    import jax
    from jax import monitoring

    from envs_jax.suite import Suite

    events: list[str] = []
    monitoring.register_event_listener(lambda event, **_: events.append(event))
    suite, key = Suite.make(domains), jax.random.key(0)
    arguments = jax.block_until_ready((suite.sample_tasks(key, batch), suite.episode_keys(key, batch, 1), key))
    start = peak_bytes()
    clock = [time.perf_counter()]
    traced = jax.jit(play(suite, policy)).trace(*arguments)
    clock.append(time.perf_counter())
    lowered = traced.lower()
    clock.append(time.perf_counter())
    events.clear()
    compiled = lowered.compile()
    clock.append(time.perf_counter())
    from_cache, peak = any(event.endswith("cache_hits") for event in events), peak_bytes()
    jax.block_until_ready(compiled(*arguments))
    runs = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        runs.append(time.perf_counter() - begin)
    trace, lower, compiling = (after - before for before, after in itertools.pairwise(clock))
    return Measurement(
        program,
        policy,
        cache,
        from_cache,
        trace,
        lower,
        compiling,
        tuple(runs),
        instructions=len(re.findall(r"^\s+(?:ROOT )?\S+ = ", compiled.as_text(), re.MULTILINE)),
        stablehlo_lines=lowered.as_text().count("\n"),
        start_bytes=start,
        peak_bytes=peak,
    )


def child() -> None:
    """A process of :func:`fresh`: arguments of :func:`measure` as JSON from stdin, the answer as JSON to stdout."""
    import jax

    from experiments.harness.machine import versions

    found = measure(**json.load(sys.stdin))
    print(json.dumps({"measurement": dataclasses.asdict(found), "machine": versions(jax.devices())}))


def fresh(folder: str, **asked: Any) -> tuple[Measurement, dict[str, Any]]:
    """:func:`measure` in a new process with its persistent cache in ``folder``; also the machine it saw."""
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    child_command = [sys.executable, "-c", "from benchmarks.speed.compile_suite import child; child()"]
    done = subprocess.run(child_command, input=json.dumps(asked), env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring {asked['program']} ({asked['policy']}, {asked['cache']}) failed")
    answer = json.loads(done.stdout.splitlines()[-1])
    row = Measurement(**answer["measurement"])
    return dataclasses.replace(row, run_seconds=tuple(row.run_seconds)), answer["machine"]


def table(rows: Sequence[Measurement]) -> Table:
    """One line a measurement, and one with the sum of the domains compiled alone."""
    import statistics

    from rich.table import Table

    found = Table(title="Compiling")
    columns = ("policy", "program", "cache", "trace s", "lower s", "compile s", "run s", "HLO", "peak MiB", "at start")
    for column in columns:
        found.add_column(column, justify="left" if column in columns[:3] else "right")
    for policy in POLICIES:
        mine = [row for row in rows if row.policy == policy]
        for row in mine:
            found.add_row(
                policy,
                row.program,
                row.cache + ("" if row.from_cache == (row.cache == "warm") else " (MISSED)"),
                *(f"{s:.2f}" for s in (row.trace_seconds, row.lower_seconds, row.compile_seconds)),
                f"{statistics.median(row.run_seconds):.4f}",
                f"{row.instructions:,}",
                *(f"{size / 2**20:,.0f}" for size in (row.peak_bytes, row.start_bytes)),
            )
        if alone := [row for row in mine if row.program != TOGETHER]:
            seconds = ("trace_seconds", "lower_seconds", "compile_seconds")
            sums = [f"{sum(getattr(row, name) for row in alone):.2f}" for name in seconds]
            run = f"{sum(statistics.median(row.run_seconds) for row in alone):.4f}"
            size = f"{sum(row.instructions for row in alone):,}"
            found.add_row(policy, f"sum of {len(alone)} alone", "cold", *sums, run, size, "", "", end_section=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    from rich.console import Console

    config = command.parse(Config, __doc__, arguments)
    # This process stays without jax: on Linux a child's peak memory starts from its parent's.
    registry = command.registry()
    names = config.domains or tuple(name for name in registry["DOMAINS"] if name not in registry["EXTRAS"])
    try:
        command.prepare_folder(config.out)
    except ValueError as error:
        command.refuse(error)
    load = os.getloadavg()
    rows: list[Measurement] = []
    machine: dict[str, Any] = {}
    console = Console(record=True, width=None if sys.stdout.isatty() else 150)
    programs: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [(TOGETHER, names, ("cold", "warm"))]
    programs += [(name, (name,), ("cold",)) for name in names if config.alone]
    with console.status("") as status:
        for policy in POLICIES:
            for program, domains, caches in programs:
                with tempfile.TemporaryDirectory() as folder:
                    for cache in caches:
                        status.update(f"{policy}: {program}, {cache} cache")
                        asked: dict[str, Any] = {
                            "program": program,
                            "domains": domains,
                            "policy": policy,
                            "cache": cache,
                        }
                        row, machine = fresh(folder, **asked, batch=config.batch, repeats=config.repeats)
                        rows.append(row)
    console.print(f"{', '.join(machine['devices'])}, {machine['cores']} cores, load before {load[0]:.1f}")
    console.print(table(rows))
    result = {
        "config": {**dataclasses.asdict(config), "domains": names, "out": str(config.out)},
        "machine": {**machine, "command": sys.argv[1:] if arguments is None else list(arguments)},
        "load_before": load,
        "load_after": os.getloadavg(),
        "compile": [dataclasses.asdict(row) for row in rows],
    }
    (config.out / "compile.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (config.out / "compile.txt").write_text(console.export_text(), encoding="utf-8")
    print(f"written to {config.out}/compile.json and compile.txt")


if __name__ == "__main__":
    main()
