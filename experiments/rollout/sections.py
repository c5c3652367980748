"""The page and the figures of a rollout run, from its stored parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.harness.runs import RunFolder
from experiments.report.markdown import band, image, table
from experiments.rollout.configuration import RolloutConfig

Results = Mapping[str, Any]
LOWEST = 1e-12
"""Distance to the optimum that a logarithmic axis shows for none."""


def _series(config: RolloutConfig, results: Results) -> dict[str, list[list[float]]]:
    """Gains by iteration: one list a seed."""
    found: dict[str, list[list[float]]] = {}
    if "joint" in results:
        found |= {"joint": [results["joint"]["gains"]], "agent by agent": [results["agents"]["gains"]]}
    elif config.potentials == "exact":
        found[config.improve] = [results["gains"]["gains"]]
    for source in ("sampled", "gains"):
        for name, runs in results.get(source, {}).items():
            if name in ("path", "network"):
                found[f"{name}, {len(runs)} seeds"] = [own["gains"] for own in runs]
    if "next_states" in results:
        found[f"m = {results['next_states']['samples']} next states"] = [results["next_states"]["gains"]]
    return found


def _gains_figure(config: RolloutConfig, results: Results, best: float) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, runs in _series(config, results).items():
        longest = max(map(len, runs))
        padded = np.array([own + [own[-1]] * (longest - len(own)) for own in runs]) / best - 1
        middle, low, high = (np.maximum(x, LOWEST) for x in (np.median(padded, 0), padded.min(0), padded.max(0)))
        band(axis, range(longest), middle, low, high, name)
    axis.set(xlabel="policy", ylabel="gain above the optimum, relative", yscale="log", ylim=(1e-6, None))
    axis.legend(fontsize=8)
    return figure


def write(config: RolloutConfig, results: Results, folder: RunFolder) -> None:
    """Writes ``report.md`` and ``figures/``."""
    own, optimum = results["warehouse"], results["optimum"]
    best = optimum["gain"]
    page = [
        f"# Rollout of a team: {config.example}, {len(own['caps'])} levels, reading {config.reading}\n",
        f"{own['supply']}; caps {own['caps']}, demand {own['rates']}, h {own['holding']}, p {own['shortage']}, "
        f"c {own['unit_cost']} a unit, K {own['order_cost']} an order. {int(own['states']):,} joint stocks.\n",
        f"Optimal gain **{best:.10f}** money/period, proved between {optimum['lower']:.12g} and "
        f"{optimum['upper']:.12g} ({optimum['sweeps']} sweeps, {optimum['warm_seconds']:.3g} s warm).\n",
        "## Gain by policy\n",
        'Exact gains, whatever the potentials came from; the first policy is "order nothing". Bands span the seeds.\n',
        image(folder, "gains", _gains_figure(config, results, best)),
    ]
    rows = [
        [name, k + 1, len(gains) - 1, gains[-1], gains[-1] / best - 1, " ".join(f"{gain:.6g}" for gain in gains)]
        for name, runs in _series(config, results).items()
        for k, gains in enumerate(runs)
    ]
    page.append(table(["potentials", "seed", "improvements", "last gain", "above optimum", "gains"], rows))
    page += [*_agents(results, best), *_sampled(config, results, folder), *_devices(results), *_scaling(results)]
    folder.write("report.md", "\n".join(page).encode())


def _agents(results: Results, best: float) -> list[str]:
    if "joint" not in results:
        return []
    keys = ("policies", "choices_per_state", "seconds")
    rows = [
        [name, own["gains"][-1], own["gains"][-1] / best - 1, *(own[key] for key in keys)]
        for name, own in (("joint", results["joint"]), ("agent by agent", results["agents"]))
    ]
    return [
        "## All at once, or agent by agent\n",
        table(["choice", "last gain", "above optimum", "policies", "choices a state", "seconds, warm"], rows),
        "Agents who choose in turn never raise the gain, and may stop where no one of them alone can lower it.\n",
    ]


def _sampled(config: RolloutConfig, results: Results, folder: RunFolder) -> list[str]:
    page: list[str] = []
    runs = {**results.get("sampled", {})} | {k: v for k, v in results["gains"].items() if k in ("path", "network")}
    if runs:
        rows = [
            [name, k + 1, own["visited"][-1], own["error"][-1], " ".join(f"{g:.5g}" for g in own["estimated_gains"])]
            for name, seeds in runs.items()
            for k, own in enumerate(seeds)
        ]
        page += [
            "## Potentials from paths\n",
            f"Paths of {config.path} periods, epsilon .1, horizon 20; inputs `{config.inputs}`, "
            f"{results['warehouse']['collisions']} of {results['warehouse']['states']} stocks collide in them. "
            "Error: root mean square over visits [money], the constant left out; it does not vanish with longer paths, "
            "because the epsilon-soft policy is not the policy.\n",
            table(["fit", "seed", "stocks visited", "error", "estimated gains"], rows),
        ]
    if "estimate" in results:
        truth, guess, visits = (np.array(results["estimate"][key]) for key in ("truth", "estimate", "visits"))
        figure = Figure(figsize=(5, 4), layout="constrained")
        axis = figure.subplots()
        axis.scatter(truth, guess, s=4 + 8 * np.log1p(visits), alpha=0.5)
        ends = [truth.min(), truth.max()]
        axis.plot(ends, ends, color="black", lw=0.8)
        axis.set(xlabel="exact potential [money]", ylabel="estimate from a path [money]")
        page += [
            "Estimate against truth under the optimal policy; larger dots were visited more often.\n",
            image(folder, "estimate", figure),
        ]
    return page


def _devices(results: Results) -> list[str]:
    if "devices" not in results:
        return []
    own = results["devices"]
    keys = ("devices", "seconds", "speedup", "efficiency", "gathered_bytes", "equals_serial")
    head = ["devices H", "seconds T_H", "S_H = T_1 / T_H", "S_H / H", "bytes gathered", "equals serial"]
    return [
        "## Joint flows over devices\n",
        f"{own['joint_flows']} joint flows in every stock, on {own['device']}. Serial enumeration "
        f"{own['serial_seconds']:.3g} s, by structure {own['structured_seconds']:.3g} s (same policy: "
        f"{'yes' if own['structured_equals_serial'] else 'no'}). Devices that are threads of one CPU show that the "
        "result is right, not that it is fast.\n",
        table(head, [[row[key] for key in keys] for row in own["rows"]]),
    ]


def _scaling(results: Results) -> list[str]:
    if "scaling" not in results:
        return []
    own = results["scaling"]
    return [
        "## Time against the number of levels\n",
        f"CHAIN(n), optimum with bounds 1e-11 apart. One more level takes {own['factor_per_level']:.2f} times as "
        "long (it has 7 times the stocks).\n",
        table(list(own["rows"][0]), [list(row.values()) for row in own["rows"]]),
    ]
