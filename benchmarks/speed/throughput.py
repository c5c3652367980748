"""Environment steps per second beside independent models: ``python -m benchmarks.speed.throughput``.

In one run, under a uniformly random legal policy and with every observation produced: the domain in JAX (lockstep
roll-outs), its NumPy models (a batch, and one environment in Python loops), and gymnax CartPole; all domains in one
batch against the sum of single ones; and a meta-gradient step of first against second order. JAX spreads a batch over
all devices, on a CPU one a core, as training does; NumPy and Python use one core. So CPU seconds stand beside wall
seconds. Compile time is apart, repeats are interleaved, and ratios are medians of ratios within a round.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import command

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.speed.timing import Timing
    from envs_jax.suite import Suite

JAX, BATCH, LOOP = "JAX", "NumPy, vectorised", "Python, one environment"
CARTPOLE, MIXED = "gymnax CartPole", "all domains, one batch"
FLOOR_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      domains: which; none means all.
      batches: parallel environments (of each domain).
      repeats: timed repeats; medians of at least five.
      steps: environment steps from an episode's start that a timed run makes; 0 is the whole episode.
      seconds: a timed stretch repeats its run for about that long.
      meta: time the learner's meta-gradient steps too.
      out: folder for throughput.json and throughput.txt.
    """

    domains: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 64, 1024, 16384)
    repeats: int = 5
    steps: int = 0
    seconds: float = 0.2
    meta: bool = True
    out: pathlib.Path = pathlib.Path("results/benchmarks")

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_domains(self.domains)
        command.check_range(self, 5, 1000, "repeats")
        command.check_range(self, 1, 2**24, "batches")
        command.check_range(self, 0, 10**6, "steps")
        command.check_range(self, 0, 3600, "seconds")
        if not self.batches:
            raise ValueError("batches: expected at least one")


@dataclasses.dataclass(frozen=True)
class Row:
    """One program at one batch size.

    Attributes:
      domain: name of the domain; the mixed batch and CartPole stand in its place.
      program: who ran.
      batch: parallel environments of each domain.
      environments: parallel environments that this program ran: 1 for the loop model.
      steps_per_second: environment steps (one choice of one environment) a second, median over rounds.
      steps_per_cpu_second: the same by CPU time of all threads.
      wall: seconds a step of all its environments, one number a round.
      cpu: CPU seconds likewise.
      jax_speedup: by what factor JAX makes more steps a second in this domain than this program, median over rounds;
        below 1 we lose. None for JAX itself.
      jax_speedup_cpu: the same by CPU time.
      compile_seconds: trace and compile.
      state_bytes: of one environment.
      observation_bytes: of one environment.
    """

    domain: str
    program: str
    batch: int
    environments: int
    steps_per_second: float
    steps_per_cpu_second: float
    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    jax_speedup: float | None = None
    jax_speedup_cpu: float | None = None
    compile_seconds: float | None = None
    state_bytes: int | None = None
    observation_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Floor:
    """A promised ratio: ``measured`` by wall clock (``cpu`` by CPU time) against ``limit``."""

    name: str
    measured: float
    cpu: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """By wall clock."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclasses.dataclass(frozen=True)
class Entry:
    """A subject before it is timed: its ``run`` makes ``length`` steps in each of ``environments``."""

    domain: str
    program: str
    environments: int
    length: int
    run: Callable[[], object]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def row(self, batch: int, timing: Timing, ours: Row | None) -> Row:
        """What ``timing`` says of it; ``ours`` is JAX in the same domain."""
        from benchmarks.speed.timing import ratio

        steps, facts = self.environments * self.length, dict(self.facts)
        wall, cpu = (tuple(t / self.length for t in times) for times in (timing.wall, timing.cpu))
        if ours is not None:
            scale = ours.environments / self.environments
            facts |= {"jax_speedup": scale * ratio(wall, ours.wall), "jax_speedup_cpu": scale * ratio(cpu, ours.cpu)}
        return Row(
            domain=self.domain,
            program=self.program,
            batch=batch,
            environments=self.environments,
            steps_per_second=steps / timing.median_wall,
            steps_per_cpu_second=steps / max(timing.median_cpu, 1e-9),
            wall=wall,
            cpu=cpu,
            **facts,
        )


def entries(suite: Suite, batch: int, steps: int) -> Iterator[Entry]:
    """All subjects at one batch size, JAX first in every domain; compiles as it goes."""
    import jax
    import numpy as np

    from benchmarks.numpy_models import has_models
    from benchmarks.speed import subjects, timing

    key, rng = jax.random.key(0), np.random.default_rng(0)
    tasks, keys = suite.sample_tasks(key, batch), suite.episode_keys(key, batch, 1)

    def jitted(domain: str, environments: int, length: int, function: Callable[..., Any], *batched: Any) -> Entry:
        spread, arguments = subjects.over_devices(function, batch, key, *batched)
        program = timing.compiled(spread, *arguments)
        facts = {"compile_seconds": program.trace_seconds + program.compile_seconds}
        return Entry(domain, JAX, environments, length, program.call, facts)

    for name, env, params, own_keys in zip(suite.names, suite.envs, tasks, keys, strict=True):
        length = steps or env.horizon
        alone = functools.partial(subjects.lockstep, [suite.subset([name], tight=True)], length)
        entry = jitted(name, batch, length, alone, [(params,)], [(own_keys,)])
        entry.facts.update(zip(("state_bytes", "observation_bytes"), subjects.bytes_of(env), strict=True))
        yield entry
        if has_models(name):
            batch_model, loop_model = subjects.numpy_models(env, params)
            play = functools.partial(subjects.batch_model, env, length, batch_model, batch, rng)
            yield Entry(name, BATCH, batch, length, play)
            yield Entry(name, LOOP, 1, length, functools.partial(subjects.loop_model, env, length, loop_model, rng))
    length = steps or suite.horizon
    if len(suite.envs) > 1:
        buckets = suite.buckets()
        places = [[suite.names.index(name) for name in bucket.names] for bucket in buckets]
        together = functools.partial(subjects.lockstep, buckets, length)
        grouped = [[tuple(of[i] for i in place) for place in places] for of in (tasks, keys)]
        yield jitted(MIXED, batch * len(suite.envs), length, together, *grouped)
    starts = jax.random.split(key, batch)
    yield jitted(CARTPOLE, batch, length, functools.partial(subjects.cartpole, length), starts)


def measure(suite: Suite, batch: int, config: Config, say: Callable[[str], None]) -> list[Row]:
    """All subjects at one batch size, timed in turns."""
    from benchmarks.speed import timing

    made = []
    for entry in entries(suite, batch, config.steps):
        say(f"batch {batch}: {entry.domain}, {entry.program} is ready")
        made.append(entry)
    say(f"batch {batch}: timing {len(made)} programs in {config.repeats} rounds")
    timings = timing.interleaved([entry.run for entry in made], config.repeats, config.seconds)
    ours: dict[str, Row] = {}
    rows = []
    for entry, timed in zip(made, timings, strict=True):
        rows.append(entry.row(batch, timed, ours.get(entry.domain)))
        ours.setdefault(entry.domain, rows[-1])
    return rows


def floors(rows: Sequence[Row]) -> list[Floor]:
    """The promised ratios of one batch size: domains against their NumPy models, the mixed batch against the sum."""
    from benchmarks.speed.timing import ratio

    limits = {BATCH: 1.0, LOOP: 100.0}
    found = [
        Floor(
            f"{row.domain}: JAX / {row.program} (batch {row.batch})",
            row.jax_speedup,
            row.jax_speedup_cpu,
            limits[row.program],
            at_least=True,
        )
        for row in rows
        if row.jax_speedup is not None and row.jax_speedup_cpu is not None
    ]
    singles = [row for row in rows if row.program == JAX and row.domain not in (MIXED, CARTPOLE)]
    for mixed in (row for row in rows if row.domain == MIXED):
        wall, cpu = (
            ratio(
                getattr(mixed, clock), [sum(times) for times in zip(*(getattr(r, clock) for r in singles), strict=True)]
            )
            for clock in ("wall", "cpu")
        )
        found.append(Floor(f"{MIXED} / sum of single ones (batch {mixed.batch})", wall, cpu, 1.8, at_least=False))
    return found


def throughput_table(rows: Sequence[Row]) -> Table:
    """One line a program; speed-ups below 1, where we lose, are marked."""
    from rich.table import Table

    table = Table(title="Random legal policy, observations included; medians")
    for column in ("domain", "batch", "program", "steps/s", "steps/CPU-s", "ns/step", "JAX is faster by", "compile s"):
        table.add_column(column, justify="left" if column in ("domain", "program") else "right")
    for row in rows:
        speedup = "" if row.jax_speedup is None else f"{row.jax_speedup:.3g}" + (" LOST" if row.jax_speedup < 1 else "")
        table.add_row(
            row.domain,
            str(row.batch),
            row.program,
            f"{row.steps_per_second:,.0f}",
            f"{row.steps_per_cpu_second:,.0f}",
            f"{1e9 / row.steps_per_second:,.0f}",
            speedup,
            "" if row.compile_seconds is None else f"{row.compile_seconds:.1f}",
            end_section=row.program == LOOP,
        )
    return table


def size_table(rows: Sequence[Row]) -> Table:
    """Bytes of one environment."""
    from rich.table import Table

    table = Table("domain", "state bytes", "observation bytes", title="Size of one environment")
    for row in {row.domain: row for row in rows if row.state_bytes is not None}.values():
        table.add_row(row.domain, f"{row.state_bytes:,}", f"{row.observation_bytes:,}")
    return table


def floor_table(found: Sequence[Floor]) -> Table:
    """Promised ratios, and whether they hold here."""
    from rich.table import Table

    table = Table("ratio", "wall clock", "CPU time", "promised", "", title="Speed floors")
    for floor in found:
        promised = f"{'at least' if floor.at_least else 'at most'} {floor.limit:g}"
        table.add_row(
            floor.name, f"{floor.measured:.3g}", f"{floor.cpu:.3g}", promised, "met" if floor.met else "MISSED"
        )
    return table


def run(config: Config, suite: Suite, console: Console) -> dict[str, Any]:
    """Measures, prints, and returns what goes into the JSON file."""
    import jax

    from benchmarks.speed import meta_step
    from experiments.harness.machine import versions

    load = os.getloadavg()
    machine = versions(jax.devices())
    console.print(f"{', '.join(machine['devices'])}, {machine['cores']} cores, load {load[0]:.1f}")
    rows: list[Row] = []
    by_batch: dict[int, list[Row]] = {}
    with console.status("") as status:
        for batch in config.batches:
            by_batch[batch] = measure(suite, batch, config, status.update)
            rows += by_batch[batch]
        steps = meta_step.measure(suite, config.repeats, config.seconds, status.update) if config.meta else []
    # Promised at 1024 environments; with other batches, at the nearest below.
    promised = by_batch[max((b for b in config.batches if b <= FLOOR_BATCH), default=min(config.batches))]
    found = floors(promised) + [Floor(*ratio, at_least=False) for ratio in meta_step.ratios(steps)]
    for table in (throughput_table(rows), size_table(rows), meta_step.table(steps), floor_table(found)):
        if table.row_count:
            console.print(table)
    return {
        "config": {**dataclasses.asdict(config), "out": str(config.out)},
        "machine": machine,
        "load_before": load,
        "load_after": os.getloadavg(),
        "throughput": [dataclasses.asdict(row) for row in rows],
        "meta_step": [dataclasses.asdict(step) for step in steps],
        "floors": [{**dataclasses.asdict(floor), "met": floor.met} for floor in found],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    config = command.parse(Config, __doc__, arguments)
    try:
        command.prepare_folder(config.out)
    except ValueError as error:
        command.refuse(error)

    from rich.console import Console

    import envs_jax
    from envs_jax.suite import Suite

    suite = Suite.make(config.domains or envs_jax.registered())
    console = Console(record=True, width=None if sys.stdout.isatty() else 150)
    result = run(config, suite, console)
    (config.out / "throughput.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (config.out / "throughput.txt").write_text(console.export_text(), encoding="utf-8")
    print(f"written to {config.out}/throughput.json and throughput.txt")


if __name__ == "__main__":
    # A benchmark of compiling must compile, also where the user's other programs come from a cache.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    from experiments.harness.machine import cores

    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores()))
    main()
