"""The README's table of all domains: ``python -m benchmarks.quality.domain_table [--check]``.

Puts together what is described here, the stored results of ``benchmarks.quality.headroom`` and of
``benchmarks.speed.throughput``, and the registry, and writes the table between two marker lines of the README. With
``--check`` it writes nothing and exits with 1 if the README is out of date. It imports neither jax nor gymnax, so that
a check takes no time.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import command

ROOT = pathlib.Path(__file__).parents[2]
BEGIN = "<!-- domains: written by python -m benchmarks.quality.domain_table -->"
END = "<!-- domains: end -->"
UNMEASURED = "not measured"
KINDS = {"optimal": "exact", "heuristic": "heuristic"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      check: write nothing; exit with 1 if README.md is out of date.
    """

    check: bool = False


class Description(NamedTuple):
    """What the table says of a domain in words.

    Attributes:
      model: the published model, its authors and year.
      hides: what of a task an agent does not see.
      reference: the policy that scores are measured against.
    """

    model: str
    hides: str
    reference: str


UNDESCRIBED = Description("not described", "not described", "not described")

DESCRIPTIONS: dict[str, Description] = {
    "air_traffic": Description(
        "aircraft landing, Beasley et al. 2000",
        "airlines' weights, separation inflation",
        "exact dynamic programme over sequences",
    ),
    "agriculture": Description(
        "limited irrigation, FAO-56 water balance, Allen et al. 1998, and FAO-33 yields",
        "soils, efficiencies, cultivars' sensitivity, climate",
        "priced exact single-field programmes",
    ),
    "cloud_scheduling": Description(
        "multi-resource job scheduling, DeepRM, Mao et al. 2016",
        "durations by kind, arrivals",
        "tuned slowdown index",
    ),
    "data_center": Description(
        "energy-aware dispatch to servers with setup, Hyytiä et al. 2014",
        "speeds, setups, powers, cooling, load",
        "first policy iteration",
    ),
    "edge_computing": Description(
        "offloading of task graphs, MRLCO, Wang et al. 2021",
        "link and server speeds",
        "roll-out of earliest finish",
    ),
    "energy_trading": Description(
        "hour-ahead storage bids, Jiang & Powell 2015",
        "price process, losses, wear",
        "exact backward dynamic programme",
    ),
    "healthcare": Description(
        "ward overflow with atomic bed decisions, Dai & Shi 2019",
        "overflow costs, arrivals, stays",
        "one policy improvement on exact single-ward values",
    ),
    "manufacturing": Description(
        "job shop with total weighted tardiness, Singer & Pinedo 1998",
        "weights, machine speeds, breakdowns",
        "roll-out of apparent tardiness cost",
    ),
    "maritime": Description(
        "empty container repositioning, MARO (Microsoft 2020)",
        "orders by port, week and destination, buffers",
        "gradient plan on a fluid forecast",
    ),
    "network_traffic": Description(
        "parallel queues with random links, Tassiulas & Ephremides 1993",
        "weights of classes and contracts, success and arrival rates",
        "tuned c-mu index",
    ),
    "portfolio": Description(
        "dynamic trading with quadratic costs, Gârleanu & Pedersen 2013",
        "factor loadings, mean reversion",
        "finite-horizon Riccati, rounded to the menu",
    ),
    "warehouse": Description(
        "multi-level warehouse run by a team, on Cao 2007",
        "demand rates, shortage and order costs",
        "exact backward dynamic programme",
    ),
    "recommender": Description(
        "slates for an evolving user, RecSim, Ie et al. 2019",
        "topics' quality, interests, attention budget",
        "fractional programme over remaining attention",
    ),
    "smart_city": Description(
        "traffic signals, max-pressure, Varaiya 2013",
        "occupancies, demand, turning, saturation",
        "best of look-ahead max-pressure and fixed plans",
    ),
    "smart_grid": Description(
        "storages in the IEEE 14-bus network, DC optimal power flow",
        "plants, fuel, wind and sun, lines, efficiency",
        "exact backward dynamic programme",
    ),
    "supply_chain": Description(
        "serial multi-echelon inventory, Clark & Scarf 1960",
        "demand rate, backlog cost",
        "finite-horizon echelon base-stock levels",
    ),
    "vehicle_fleet": Description(
        "rebalancing autonomous taxis, amod cities of Gammelli et al. 2021",
        "demand, its changes, fares",
        "one policy improvement on a fluid forecast",
    ),
}
"""Here and not in the files of the domains, because it is text for this table and no part of the contract."""


def common_batch(throughput: Sequence[dict[str, Any]], names: Sequence[str]) -> int | None:
    """The largest number of parallel environments at which every measured domain was timed; None if there is none."""
    batches = [{row["batch"] for row in throughput if row["program"] == "JAX" and row["domain"] == n} for n in names]
    shared = set.intersection(*measured) if (measured := [found for found in batches if found]) else set()
    return max(shared, default=None)


def table(
    names: Sequence[str], extras: frozenset[str], headroom: dict[str, Any], throughput: Sequence[dict[str, Any]]
) -> str:
    """Markdown, a line a domain, extras last.

    Args:
      names: registered domains.
      extras: which of them stand beside the standard fifteen.
      headroom: ``domains`` of the stored headroom.
      throughput: ``throughput`` of the stored speeds.
    """
    batch = common_batch(throughput, names)
    speed = {r["domain"]: r["steps_per_second"] for r in throughput if r["program"] == "JAX" and r["batch"] == batch}
    where = "" if batch is None else f" ({batch} in parallel)"
    lines = [
        f"| domain | model | hidden from the agent | reference | kind | headroom | environment steps/s{where} |",
        "|---|---|---|---|---|---:|---:|",
    ]
    for name in sorted(names, key=lambda name: name in extras):  # stable: the registry's order otherwise
        described, found = DESCRIPTIONS.get(name, UNDESCRIBED), headroom.get(name)
        lines.append(
            "| "
            + " | ".join(
                (
                    f"[`{name}`](docs/domains/{name}.md)" + (" (extra)" if name in extras else ""),
                    *described,
                    UNMEASURED if found is None else KINDS[found["reference_kind"]],
                    UNMEASURED if found is None else f"{found['headroom']:.2f}",
                    f"{speed[name]:,.0f}" if name in speed else UNMEASURED,
                )
            )
            + " |"
        )
    return "\n".join(lines) + "\n"


def stored(root: pathlib.Path) -> str:
    """The table of the registry and the results stored under ``root``; what is not stored is not measured."""

    def read(path: str, part: str, default: Any) -> Any:
        file = root / path
        return json.loads(file.read_text(encoding="utf-8"))[part] if file.exists() else default

    registry = command.registry()
    return table(
        tuple(registry["DOMAINS"]),
        registry["EXTRAS"],
        read("docs/headroom.json", "domains", {}),
        read("docs/results/throughput/throughput.json", "throughput", []),
    )


def placed(readme: str, text: str) -> str:
    """``readme`` with ``text`` between its marker lines.

    Raises:
      ValueError: unless each marker stands there once, in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"README.md needs one line {BEGIN!r} and after it one line {END!r}")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str] | None = None, root: pathlib.Path = ROOT) -> None:
    """Command line; ``root`` holds README.md and docs."""
    config = command.parse(Config, __doc__, arguments)
    file = root / "README.md"
    old = file.read_text(encoding="utf-8")
    try:
        new = placed(old, stored(root))
    except ValueError as error:
        sys.exit(str(error))
    if config.check and new != old:
        sys.exit("README.md is out of date: python -m benchmarks.quality.domain_table")
    if not config.check:
        file.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
