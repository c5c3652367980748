"""How good the offloading rules are, and the published figures: ``python -m benchmarks.studies.offloading_bound``.

First, applications of sampled tasks without noise: mean makespans of random and all-local plans, of earliest finish at
nominal and at true rates, of its roll-out (the reference), and of simulated annealing, which is too slow to be a
reference (20,000 schedules an application) and shows what the reference leaves.

With ``--graphs FOLDER`` (``.gv`` files of one set of github.com/linkpark/metarl-offloading) instead: the published
model with one server, as its code has it and with the fault mended, and optima by trying all plans.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from benchmarks import command

MEBIBYTE = 1024.0 * 1024.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      tasks: sampled tasks, one application each.
      moves: of an annealing.
      seed: of the tasks.
      graphs: folder of published graphs; then nothing is sampled.
      optima: so many of these graphs are solved by trying all 2^n plans (seconds each for n = 20).
    """

    tasks: int = 100
    moves: int = 20_000
    seed: int = 0
    graphs: pathlib.Path | None = None
    optima: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 1, 10**6, "tasks")
        command.check_range(self, 1, 10**9, "moves")
        command.check_range(self, 0, 10**6, "optima")
        command.check_seed(self)


@dataclasses.dataclass(frozen=True)
class PublishedGraph:
    """A graph as published: ``size``, ``result`` [MiB] and ``parents`` (indices) of each task."""

    size: list[float]
    result: list[float]
    parents: list[list[int]]


def read_graph(text: str) -> PublishedGraph:
    """One ``.gv`` file: tasks ``1 [size="...", ..., expect_size="..."]`` [bytes] and edges ``1 -> 4 [...]``."""
    tasks = re.findall(r'^\s*(\d+) \[size="(\d+)".*expect_size="(\d+)"\]', text, re.MULTILINE)
    edges = re.findall(r"^\s*(\d+) -> (\d+) ", text, re.MULTILINE)
    if [int(number) for number, *_ in tasks] != list(range(1, len(tasks) + 1)):
        raise ValueError(f"tasks are not numbered from 1 on: {[number for number, *_ in tasks]}")
    parents: list[list[int]] = [[] for _ in tasks]
    for source, target in edges:
        parents[int(target) - 1].append(int(source) - 1)
    return PublishedGraph([int(s) / MEBIBYTE for _, s, _ in tasks], [int(e) / MEBIBYTE for *_, e in tasks], parents)


def rank_order(graph: PublishedGraph) -> list[int]:
    """Tasks in descending upward rank at the published rates; their numbers are topological, as daggen's are."""
    rank = [0.0] * len(graph.size)
    for i in reversed(range(len(rank))):
        own = min(graph.size[i], (graph.size[i] + graph.result[i]) / 0.875 + graph.size[i] / 10.0)
        rank[i] = own + max((rank[c] for c, parents in enumerate(graph.parents) if i in parents), default=0.0)
    return sorted(range(len(rank)), key=lambda i: -rank[i])


def all_plans(count: int, chunk: int = 2**16) -> Iterator[np.ndarray]:
    """All ``2^count`` plans ``[chunk, count]``, piece by piece."""
    for start in range(0, 2**count, chunk):
        index = np.arange(start, min(start + chunk, 2**count))
        yield (index[:, None] >> np.arange(count)) & 1


def published(graphs: list[PublishedGraph], optima: int) -> dict[str, float]:
    """Mean makespans [s] of the published model with one server at its own rates."""
    import jax
    import jax.numpy as jnp

    from benchmarks.numpy_models.edge_computing import one_server
    from envs_jax.references import offloading

    rates = offloading.Rates(link=jnp.full((1,), 0.875), server=jnp.full((1,), 10.0), device=jnp.float32(1.0))
    greedy_plan = jax.jit(offloading.greedy_plan)
    found: dict[str, list[float]] = {}
    for index, graph in enumerate(graphs):
        order = rank_order(graph)
        size, result = (np.asarray(x)[order] for x in (graph.size, graph.result))
        parents = [[i in graph.parents[child] for i in order] for child in order]
        ours = offloading.Graph(
            size=jnp.asarray(size, jnp.float32),
            result=jnp.asarray(result, jnp.float32),
            parents=jnp.asarray(parents),
        )
        greedy = np.asarray(greedy_plan(ours, rates))
        plans = np.stack([np.zeros(len(order)), np.ones(len(order)), greedy])
        fixed, faulty = (
            one_server(graph.size, graph.result, graph.parents, order, plans, entry_upload_free=fault)
            for fault in (False, True)
        )
        row = {
            "all local": fixed[0],
            "all remote, as published": faulty[1],
            "all remote, mended": fixed[1],
            "greedy": fixed[2],
        }
        if index < optima:
            row["greedy of those with an optimum"] = fixed[2]
            for name, fault in (("optimum, as published", True), ("optimum, mended", False)):
                row[name] = min(
                    one_server(graph.size, graph.result, graph.parents, order, some, entry_upload_free=fault).min()
                    for some in all_plans(len(order))
                )
        for name, value in row.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def compare(tasks: int, moves: int, seed: int) -> dict[str, float]:
    """Mean makespans [s] of applications of the domain's tasks without noise, and the mean lower bound."""
    import jax
    import jax.numpy as jnp

    import envs_jax
    from envs_jax import sampling
    from envs_jax.domains.edge_computing import GRAPH_DRAWS
    from envs_jax.references import offloading

    env, _ = envs_jax.make("edge_computing")
    n, servers = env.num_turns, env.num_servers

    @jax.jit
    @jax.vmap
    def row(key: jax.Array) -> dict[str, jax.Array]:
        params = env.sample_params(key)
        draws = sampling.uniforms(key, 1, n * GRAPH_DRAWS).reshape(n, GRAPH_DRAWS)
        graph, _ = env.application(draws, params)
        rates = env.rates(params)
        nominal = env.rates(env.default_params)
        guess, anneal = jax.random.split(key)
        plans = {
            "random": jax.random.randint(guess, (n,), 0, servers + 1),
            "all local": jnp.zeros((n,), jnp.int32),
            "earliest finish, true rates": offloading.greedy_plan(graph, rates),
            "roll-out, true rates (reference)": offloading.greedy_plan(graph, rates, "roll_out"),
        }
        spans = {name: offloading.makespan(graph, rates, plan) for name, plan in plans.items()}
        spans["earliest finish, nominal rates, clocks seen"] = _blind(graph, rates, nominal)
        start = plans["roll-out, true rates (reference)"]
        spans["annealing from there"] = offloading.anneal(graph, rates, start, anneal, moves)[1]
        spans["lower bound"] = offloading.lower_bound(graph, rates)
        return spans

    def _blind(graph: offloading.Graph, rates: offloading.Rates, believed: offloading.Rates) -> jax.Array:
        def body(task: jax.Array, schedule: offloading.Schedule) -> offloading.Schedule:
            choice = offloading.earliest_finish(graph, schedule, task, believed)
            return offloading.place(schedule, task, choice, offloading.options(graph, schedule, task, rates))

        return jax.lax.fori_loop(0, n, body, offloading.empty(n, servers)).makespan

    spans = row(jax.random.split(jax.random.key(seed), tasks))
    return {name: float(values.mean()) for name, values in spans.items()}


def main() -> None:
    """Command line."""
    config = command.parse(Config, __doc__)
    if config.graphs is None:
        found = compare(config.tasks, config.moves, config.seed)
    else:
        files = sorted(config.graphs.glob("*.gv"), key=lambda path: int(path.stem.split(".")[-1]))
        if not files:
            command.refuse(f"graphs: no .gv files in {config.graphs}")
        found = published([read_graph(path.read_text()) for path in files], config.optima)
    print("| plan | mean makespan [s] |\n|---|---:|")
    for name, value in sorted(found.items(), key=lambda item: -item[1]):
        print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    main()
