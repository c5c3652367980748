"""The page and the figures of the rollout study, from its stored sections alone."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from envs_jax.games.warehouse import Warehouse
from experiments.study import table, write
from metarl_jax.rollout import potentials


def save(figure: Any, path: pathlib.Path) -> str:
    """Writes a figure whole; returns its Markdown."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    write(path, buffer.getvalue())
    return f"![{path.stem}]({path.parent.name}/{path.name})\n"


def _series(config: Any, parts: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    """Gains by iteration: one list a seed."""
    found: dict[str, list[list[float]]] = {}
    if "joint" in parts:
        found |= {"joint": [parts["joint"]["gains"]], "agent by agent": [parts["agents"]["gains"]]}
    elif config.potentials == "exact":
        found[config.improve] = [parts["gains"]["gains"]]
    for source in ("sampled", "gains"):
        for name, runs in parts.get(source, {}).items():
            if name in ("path", "network"):
                found[f"{name}, {len(runs)} seeds"] = [own["gains"] for own in runs]
    if "next_states" in parts:
        found[f"m = {parts['next_states']['samples']} next states"] = [parts["next_states"]["gains"]]
    return found


def _gains_figure(config: Any, parts: Mapping[str, Any], best: float) -> Any:
    figure, axis = plt.subplots(figsize=(7, 4))
    for name, runs in _series(config, parts).items():
        longest = max(map(len, runs))
        padded = np.array([own + [own[-1]] * (longest - len(own)) for own in runs]) / best - 1
        (line,) = axis.plot(np.maximum(np.median(padded, 0), 1e-12), marker="o", ms=3, label=name)
        if len(runs) > 1:
            low, high = np.maximum(padded.min(0), 1e-12), np.maximum(padded.max(0), 1e-12)
            axis.fill_between(range(longest), low, high, alpha=0.2, color=line.get_color())
    axis.set(xlabel="policy", ylabel="gain above the optimum, relative", yscale="log", ylim=(1e-6, None))
    axis.legend(fontsize=8)
    return figure


def write_report(config: Any, parts: Mapping[str, Any], folder: pathlib.Path, warehouse: Warehouse) -> None:
    """Writes ``report.md`` and ``figures/``."""
    best = parts["optimum"]["gain"]
    figures = folder / "figures"
    page = [
        f"# Rollout of a team: {config.example}, {warehouse.num_levels} levels, reading {config.reading}\n",
        f"{warehouse.supply}; caps {warehouse.caps}, demand {warehouse.rates}, h {warehouse.holding}, "
        f"p {warehouse.shortage}, c {warehouse.unit_cost} a unit, K {warehouse.order_cost} an order. "
        f"{int(parts['optimum']['states']):,} joint stocks.\n",
        f"Optimal gain **{best:.10f}** money/period, proved between {parts['optimum']['lower']:.12g} and "
        f"{parts['optimum']['upper']:.12g} ({parts['optimum']['sweeps']} sweeps, "
        f"{parts['optimum']['warm_seconds']:.3g} s warm).\n",
        "## Gain by policy\n",
        'Exact gains, whatever the potentials came from; the first policy is "order nothing". Bands span the seeds.\n',
        save(_gains_figure(config, parts, best), figures / "gains.png"),
    ]
    rows = [
        [name, k + 1, len(own) - 1, own[-1], own[-1] / best - 1, " ".join(f"{gain:.6g}" for gain in own)]
        for name, runs in _series(config, parts).items()
        for k, own in enumerate(runs)
    ]
    page.append(table(["potentials", "seed", "improvements", "last gain", "above optimum", "gains"], rows))
    if "joint" in parts:
        page += [
            "## All at once, or agent by agent\n",
            table(
                ["choice", "last gain", "above optimum", "policies", "choices a state", "seconds"],
                [
                    [
                        name,
                        own["gains"][-1],
                        own["gains"][-1] / best - 1,
                        own["policies"],
                        own["choices_per_state"],
                        own["seconds"],
                    ]
                    for name, own in (("joint", parts["joint"]), ("agent by agent", parts["agents"]))
                ],
            ),
            "Agents who choose in turn never raise the gain, and may stop where no one of them alone can lower it.\n",
        ]
    page += _sampled(config, parts, warehouse, figures)
    if "devices" in parts:
        own = parts["devices"]
        page += [
            "## Joint flows over devices\n",
            f"{own['joint_flows']} joint flows in every stock, on {own['device']}. Serial enumeration "
            f"{own['serial_seconds']:.3g} s, by structure {own['structured_seconds']:.3g} s (same policy: "
            f"{'yes' if own['structured_equals_serial'] else 'no'}). Devices that are threads of one CPU show that the "
            "result is right, not that it is fast.\n",
            table(
                ["devices H", "seconds T_H", "S_H = T_1 / T_H", "S_H / H", "bytes gathered", "equals serial"],
                [
                    [
                        *(row[key] for key in ("devices", "seconds", "speedup", "efficiency", "gathered_bytes")),
                        row["equals_serial"],
                    ]
                    for row in own["rows"]
                ],
            ),
        ]
    if "scaling" in parts:
        own = parts["scaling"]
        page += [
            "## Time against the number of levels\n",
            f"CHAIN(n), optimum with bounds 1e-11 apart. One more level takes {own['factor_per_level']:.2f} times as "
            "long (it has 7 times the stocks).\n",
            table(list(own["rows"][0]), [list(row.values()) for row in own["rows"]]),
        ]
    write(folder / "report.md", "\n".join(page))


def _sampled(config: Any, parts: Mapping[str, Any], warehouse: Warehouse, figures: pathlib.Path) -> list[str]:
    page: list[str] = []
    runs = {**parts.get("sampled", {})} | {k: v for k, v in parts["gains"].items() if k in ("path", "network")}
    if runs:
        page += [
            "## Potentials from paths\n",
            f"Paths of {config.path} periods, epsilon .1, horizon 20; inputs `{config.inputs}`, "
            f"{potentials.collisions(warehouse, config.inputs)} of {warehouse.num_states} stocks collide in them. "
            "Error: root mean square over visits [money], the constant left out; it does not vanish with longer paths, "
            "because the epsilon-soft policy is not the policy.\n",
            table(
                ["fit", "seed", "stocks visited", "error", "estimated gains"],
                [
                    [
                        name,
                        k + 1,
                        own["visited"][-1],
                        own["error"][-1],
                        " ".join(f"{g:.5g}" for g in own["estimated_gains"]),
                    ]
                    for name, seeds in runs.items()
                    for k, own in enumerate(seeds)
                ],
            ),
        ]
    if "estimate" in parts:
        own = parts["estimate"]
        truth, guess, visits = (np.array(own[key]) for key in ("truth", "estimate", "visits"))
        figure, axis = plt.subplots(figsize=(5, 4))
        axis.scatter(truth, guess, s=4 + 8 * np.log1p(visits), alpha=0.5)
        ends = [truth.min(), truth.max()]
        axis.plot(ends, ends, color="black", lw=0.8)
        axis.set(xlabel="exact potential [money]", ylabel="estimate from a path [money]")
        page += [
            "Estimate against truth under the optimal policy; larger dots were visited more often.\n",
            save(figure, figures / "estimate.png"),
        ]
    return page
