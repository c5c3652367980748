"""The page and the figures of a run of energy, from its stored parts alone, without jax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.energy.configuration import EnergyConfig
from experiments.harness.runs import RunFolder
from experiments.report.front import advice, interval, percent, plot, rows
from experiments.report.markdown import band, image, table

Results = Mapping[str, Any]


def _of(config: EnergyConfig, results: Results, name: str, entry: str = "gaps") -> list[Any]:
    return [results[f"{name}.{which}"][entry] for which in range(config.seeds)]


def write(config: EnergyConfig, results: Results, folder: RunFolder) -> None:
    """Writes ``report.md`` and ``figures/``."""
    page = ["# Allocation of energy by meta-learned solvers\n", *_front(config, results, folder)]
    page += [*_gaps(config, results, folder), *_shots(config, results)]
    page += _shifts(results) if "shifts" in results else []
    page += _day(results, folder) if "day" in results else []
    page += _training(config, results)
    folder.write("report.md", "\n".join(page).encode())


def _front(config: EnergyConfig, results: Results, folder: RunFolder) -> list[str]:
    front, test = results["front"], results["test"]
    head = ["method", "certified gap, mean", "median", "90 %", "CPU us an instance", "failed", "on the front"]
    return [
        f"Certified gap against CPU time, {test['instances']} instances of {config.sites} new sites ({config.family} "
        f"{config.size}), {test['failed']} failed exact solves, {test['binding']:.1f} plants bind on average.\n",
        image(folder, "front", plot(front)),
        advice(front, config.rules),
        table(head, rows(front)),
    ]


def _gaps(config: EnergyConfig, results: Results, folder: RunFolder) -> list[str]:
    lines = [["S = 0", percent(_of(config, results, "prices"))]]
    lines += [["S = 0, regression to optimal prices", percent(_of(config, results, "regression"))]]
    steps = [count for count in config.steps if count]
    figure = Figure(figsize=(6 * max(len(steps), 1), 4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, max(len(steps), 1)))
    for axis, count in zip(axes, steps, strict=False):
        for rule in config.rules:
            name = f"solver.{rule}.{count}"
            lines.append([f"{rule}, S = {count}", percent(_of(config, results, name))])
            path = np.asarray(_of(config, results, name, "bound_by_step")).mean(0)
            mean, spread = path.mean(1), 1.96 * path.std(1) / np.sqrt(path.shape[1])
            band(axis, range(len(mean)), mean, mean - spread, mean + spread, rule)
        axis.set(xlabel="step", ylabel="bound below the optimum", yscale="log")
        axis.legend()
    if steps:
        lines.append([f"schedule of few instances, S = {max(steps)}", percent(_of(config, results, "few"))])
    head = ["solver", "certified gap on new sites"]
    return ["## Gap by steps\n", f"Mean of {config.seeds} seeds; 95 % over sites.\n", table(head, lines)] + (
        [image(folder, "steps", figure)] if steps else []
    )


def _shots(config: EnergyConfig, results: Results) -> list[str]:
    parts = [results[f"adapt.{which}"] for which in range(config.seeds)]
    by_shots = {str(k): np.asarray([part["by_shots"][str(k)] for part in parts]).mean(0) for k in config.shots}
    lines = [[f"K = {k}", percent([gaps])] for k, gaps in by_shots.items()]
    for name, text in (("swapped", "another site's past"), ("random_weights", "random weights")):
        lines.append([text, percent([part[name] for part in parts])])
    first, last = str(min(config.shots)), str(max(config.shots))
    gain = interval([by_shots[first] - by_shots[last]])
    verdict = "helps: the interval of the gain is above 0" if gain[1] > 0 else "is not shown to help"
    swap = interval([np.asarray([part["swapped"] for part in parts]).mean(0) - by_shots[last]])
    worse = "is worse" if swap[1] > 0 else "is not shown to be worse"
    return [
        "## Adapting to a site\n",
        "Prices of the network alone, no step, no rule. "
        f"Adapting by K = {last} {verdict} ({100 * gain[0]:.2f} % [{100 * gain[1]:.2f}, {100 * gain[2]:.2f}]); another "
        f"site's past {worse} ({100 * swap[0]:.2f} % [{100 * swap[1]:.2f}, {100 * swap[2]:.2f}]).\n",
        table(["support", "certified gap"], lines),
    ]


def _shifts(results: Results) -> list[str]:
    shifts = results["shifts"]
    home = next(iter(shifts.values()))
    lines = []
    for where, own in shifts.items():
        lines += [[where, k, percent([g]), float(np.mean(g) / max(np.mean(home[k]), 1e-9))] for k, g in own.items()]
    return ["## Other sizes and shifts\n", table(["tested on", "solver", "certified gap", "times that at home"], lines)]


def _day(results: Results, folder: RunFolder) -> list[str]:
    day = {name: np.asarray(value) for name, value in results["day"].items()}
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(100 * (day["cost"] / day["optimum"] - 1), label="cost above the optimum")
    left.plot(100 * day["gap"], label="certified gap")
    left.set(xlabel="quarter hour", ylabel="%")
    left.legend()
    right.plot(day["optimal_prices"], color="C0", alpha=0.6)
    right.plot(day["prices"], color="C1", ls="--", alpha=0.6)
    right.set(xlabel="quarter hour", ylabel="price of each plant: optimal (blue), learned (dashed)")
    total, best = day["cost"].sum() / 4, day["optimum"].sum() / 4
    most = np.argsort(-day["moved_by_plant"])[:3]
    where = ", ".join(f"plant {j} ({day['moved_by_plant'][j]:.1f} MW, loaded {day['loading'][j]:.0%})" for j in most)
    text = f"Cost {total:.0f} against {best:.0f} (+{100 * (total / best - 1):.2f} %). It errs most at {where}.\n"
    return ["## A day of one site\n", text, image(folder, "day", figure)]


def _training(config: EnergyConfig, results: Results) -> list[str]:
    front = results["front"]
    slow = next((front[name]["microseconds"] for name in front if name.startswith("highspy, warm")), None)
    slow = slow or front["HiGHS by SciPy, cold"]["microseconds"]
    own = float(np.mean(_of(config, results, "prices", "training_cpu_seconds")))
    lines = [["network, S = 0", own, front["network, S = 0"]["microseconds"]]]
    for rule in config.rules:
        for steps in (count for count in config.steps if count):
            cost = float(np.mean(_of(config, results, f"solver.{rule}.{steps}", "training_cpu_seconds")))
            lines.append([f"{rule}, S = {steps}", own + cost, front[f"{rule}, S = {steps}"]["microseconds"]])
    point = front["interior point, 0.01"]["microseconds"]
    for row in lines:
        for rival in (slow, point):
            row.append(round(row[1] / (1e-6 * (rival - row[2]))) if rival > row[2] else "never")
    head = ["solver", "training [CPU-s]", "us a solve", "paid against HiGHS after", "against the interior point at 1 %"]
    return ["## What training costs, and after how many solves it has paid\n", table(head, lines)]
