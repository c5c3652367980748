"""The parts of a run of energy, and what its summary says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.energy.configuration import RULES, EnergyConfig
from experiments.harness.study import Part
from experiments.harness.values import unknown

Results = Mapping[str, Any]
GOALS = {0: 0.04, 10: 0.02, 30: 0.007}
"""Mean certified gap on new sites, dispatch 10x10, by steps."""


def check(config: EnergyConfig) -> None:
    """Refuses unknown rules."""
    for field, names in (("rules", config.rules), ("inner_rule", (config.inner_rule,))):
        for rule in names:
            if rule not in RULES:
                raise ValueError(f"{field}: {unknown('rule', rule, RULES)}")


def announce(config: EnergyConfig) -> str:
    """What will be done, in one line."""
    steps = ", ".join(map(str, config.steps))
    return f"energy: {config.family} {config.size}; rules {', '.join(config.rules)}; S = {steps}; {config.seeds} seeds"


def sizes(config: EnergyConfig) -> Any:
    """The study's plan."""
    from metarl_jax.amortised.study import Plan
    from metarl_jax.amortised.training import Source

    iterations = (config.iterations, config.solver_iterations, config.meta_iterations)
    return Plan(Source(config.family, *config.sides), *iterations, config.sites, config.shots)


def solver_part(rule: str, steps: int, seed: int) -> str:
    """Name of a solver's part."""
    return f"solver.{rule}.{steps}.{seed}"


def label(rule: str, steps: int) -> str:
    """Name of a solver in tables."""
    return f"{rule}, S = {steps}"


def stepped(config: EnergyConfig) -> list[int]:
    """Numbers of steps, without 0."""
    return [steps for steps in config.steps if steps]


def few_solver(config: EnergyConfig) -> tuple[str, int]:
    """Rule and steps of the schedule that is learned from few instances."""
    return "meta_sgd", max(config.steps)


def parts(config: EnergyConfig) -> Sequence[Part]:
    """Test set, price networks and regressions, adapting, solvers; then shifts, a day, and the front."""
    from metarl_jax.amortised import study
    from metarl_jax.amortised.unrolled import Solver

    plan = sizes(config)
    seeds = [(config.seed + 7919 * which) % (2**31 - 2) for which in range(config.seeds)]  # none is a test's
    found = [Part("test", lambda results: study.describe(plan))]
    for which, seed in enumerate(seeds):
        found.append(Part(f"prices.{which}", lambda results, seed=seed: study.train_prices(plan, seed)))
        found.append(Part(f"regression.{which}", lambda results, seed=seed: study.train_prices(plan, seed, True)))

    def adapted(which: int, seed: int) -> Part:
        return Part(
            f"adapt.{which}",
            lambda results: study.adapt(plan, results[f"prices.{which}"], config.inner_rule, seed),
        )

    def solver(rule: str, steps: int, which: int, seed: int, few: int = 0) -> Part:
        def compute(results: Results) -> dict[str, Any]:
            network = None if few else study.restore(plan, results[f"prices.{which}"])["network"]
            return study.train_solver(plan, network, Solver(rule, steps), seed, few)

        return Part(f"few.{which}" if few else solver_part(rule, steps, which), compute)

    found += [adapted(which, seed) for which, seed in enumerate(seeds)]
    for rule in config.rules:
        for steps in stepped(config):
            found += [solver(rule, steps, which, seed) for which, seed in enumerate(seeds)]
    if stepped(config):
        found += [solver(*few_solver(config), which, seed, study.FEW) for which, seed in enumerate(seeds)]

    def trained(results: Results) -> tuple[Any, dict[str, tuple[Solver, Any]]]:
        network = study.restore(plan, results["prices.0"])
        made = {}
        for rule in config.rules:
            for steps in stepped(config):
                own = Solver(rule, steps)
                made[label(rule, steps)] = (own, study.restore_solver(own, results[solver_part(rule, steps, 0)]))
        return network, made

    def shifts(results: Results) -> dict[str, Any]:
        network, made = trained(results)
        last = dict(list(made.items())[-1:])
        return study.shifts(plan, network["network"], {"S = 0": (Solver("sgd", 0), network["direct"])} | last)

    def day(results: Results) -> dict[str, Any]:
        network, made = trained(results)
        last = list(made.values())[-1] if made else (Solver("sgd", 0), network["direct"])
        return study.day(plan, network["network"], *last)

    def front(results: Results) -> dict[str, Any]:
        from metarl_jax.amortised import front

        network, made = trained(results)
        few = None
        if stepped(config):
            own = Solver(*few_solver(config))
            few = (own, study.restore_solver(own, results["few.0"]))
        return front.measure(plan, network, study.restore(plan, results["regression.0"]), made, few)

    if config.family == "dispatch":
        found += [Part("shifts", shifts)] if config.shifts else []
        found.append(Part("day", day))
    return [*found, Part("front", front)]


def summary(config: EnergyConfig, results: Results) -> dict[str, Any]:
    """The figures of ``summary.json``: ``goals``, ``violation``, ``front``."""
    from experiments.report import front

    def over_seeds(name: str, entry: str = "gaps") -> Any:
        return front.interval([results[f"{name}.{which}"][entry] for which in range(config.seeds)])

    gaps = {"S = 0": over_seeds("prices")}
    for rule in config.rules:
        gaps |= {label(rule, steps): over_seeds(f"solver.{rule}.{steps}") for steps in stepped(config)}
    return {
        "certified_gap": gaps,
        "goals": {f"S = {steps}": goal for steps, goal in GOALS.items() if steps in config.steps},
        "violation": max(part["violation"] for part in results.values() if "violation" in part),
        "front": {name: results["front"][name] for name in front.ranked(results["front"])},
        "failed_exact_solves": results["test"]["failed"],
    }
