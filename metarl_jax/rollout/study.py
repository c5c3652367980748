"""What the study of rollout computes: functions of a warehouse to results that can be JSON."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from envs_jax.games import warehouse as model
from envs_jax.games.warehouse import Warehouse
from envs_jax.references import warehouse as exact
from metarl_jax.rollout import improvement, parallel, potentials

MOST_PAIRS = 30_000_000
"""Joint state-action pairs that enumeration is asked to visit, at most."""

MOST_STATES_SAMPLED = 20_000
"""Joint stocks up to which potentials are estimated from paths."""


def timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    """A result and how long it took [s]."""
    start = time.perf_counter()
    result = compute()
    return result, time.perf_counter() - start


def optimum(warehouse: Warehouse) -> dict[str, Any]:
    """The smallest gain with its bounds; level by level if levels are independent, at any size."""
    parts = [warehouse] if warehouse.is_chain else warehouse.levels()
    _, first = timed(lambda: [exact.optimum(part) for part in parts])
    solved, warm = timed(lambda: [exact.optimum(part) for part in parts])
    return {
        "gain": sum(part.gain for part in solved),
        "lower": sum(part.lower for part in solved),
        "upper": sum(part.upper for part in solved),
        "sweeps": max(part.sweeps for part in solved),
        "first_seconds": first,
        "warm_seconds": warm,
    }


def describe(warehouse: Warehouse, inputs: str) -> dict[str, Any]:
    """A warehouse as its report names it, and how many of its stocks the inputs of a fit cannot tell apart."""
    small = warehouse.num_states <= MOST_STATES_SAMPLED
    return {
        **{field.name: getattr(warehouse, field.name) for field in dataclasses.fields(warehouse)},
        "states": str(warehouse.num_states),  # as text: may exceed what JSON readers keep exactly
        "collisions": potentials.collisions(warehouse, inputs) if small else None,
    }


def fits(inputs: str) -> dict[str, potentials.Fit]:
    """The two fits that the study compares, by name.

    The network has biases where its inputs are one-sided: of ``levels`` those of the empty warehouse are all zeros, for
    which one without can only answer the mean potential, so that the dearest stock of all looks like any other.
    """
    network = potentials.Fit("network", inputs, fill="all", biases=inputs == "levels")
    return {"path": potentials.Fit("linear", inputs), "network": network}


def exact_gains(
    warehouse: Warehouse, improve: str, order: tuple[int, ...] | None = None, warm: bool = False
) -> dict[str, Any]:
    """Gains of successive policies on exact potentials, from "order nothing".

    Args:
      warehouse: the model.
      improve: ``joint`` or ``agents``.
      order: of the agents' turns.
      warm: compute all a second time, so that ``seconds`` hold no compiling and can be compared.
    """
    if not warehouse.is_chain:  # level by level: agents of independent levels do not disturb each other
        levels = [exact.successive_gains(list(exact.policy_iteration(level))) for level in warehouse.levels()]
        return {"gains": exact.sum_of_levels(levels), "by_level": levels}
    chosen = improvement.get(improve, order)
    for _ in range(1 + warm):
        iterates, seconds = timed(lambda: list(exact.policy_iteration(warehouse, improvement=chosen)))
    return {
        "gains": exact.successive_gains(iterates),
        "policies": len(iterates),
        "sweeps": [iterate.solution.sweeps for iterate in iterates],
        "seconds": seconds,
        "choices_per_state": improvement.choices_per_state(warehouse, improve),
    }


def exact_gains_on_devices(warehouse: Warehouse, devices: int) -> dict[str, Any]:
    """The same by enumeration, with the joint flows over ``devices``."""

    def improve(warehouse: Warehouse, flows: np.ndarray, known: np.ndarray) -> np.ndarray:
        del flows
        return parallel.improve(warehouse, known, devices=devices)

    iterates, seconds = timed(lambda: list(exact.policy_iteration(warehouse, improvement=improve)))
    return {"gains": exact.successive_gains(iterates), "policies": len(iterates), "seconds": seconds}


def sampled(
    warehouse: Warehouse,
    fits: Mapping[str, potentials.Fit],
    seeds: int,
    iterations: int,
    length: int,
    improve: str,
    seed: int,
) -> dict[str, Any]:
    """Algorithm 1 from paths, by fit and seed: exact gains of its policies, stocks visited, error of the potentials."""
    found: dict[str, Any] = {}
    for name, fit in fits.items():
        runs = []
        for replica in range(seeds):
            steps = potentials.algorithm1(
                warehouse,
                jax.random.fold_in(jax.random.key(seed), replica),
                iterations=iterations,
                sampling=potentials.Sampling(length=length),
                fit=fit,
                improve=improvement.get(improve),
            )
            runs.append(
                {
                    "gains": [step.gain for step in steps],
                    "estimated_gains": [step.estimate.gain for step in steps],
                    "visited": [int((step.estimate.visits > 0).sum()) for step in steps],
                    "error": [step.error for step in steps],
                }
            )
        found[name] = runs
    return found


def sampled_next_states(warehouse: Warehouse, samples: int, iterations: int, length: int, seed: int) -> dict[str, Any]:
    """Algorithm 1 that weighs flows by ``samples`` next states a pair instead of by the model."""
    steps = potentials.algorithm1(
        warehouse,
        jax.random.key(seed),
        iterations=iterations,
        sampling=potentials.Sampling(length=length),
        fit=potentials.Fit(inputs="onehot", fill="all"),
        samples=samples,
    )
    return {"samples": samples, "gains": [step.gain for step in steps]}


def estimate_against_truth(warehouse: Warehouse, length: int, seed: int) -> dict[str, Any]:
    """Estimated and exact potentials of the optimal policy, stock by stock."""
    flows = exact.improve(warehouse, exact.optimum(warehouse).potentials)
    truth = exact.evaluate(warehouse, flows)
    sampling = potentials.Sampling(length=length)
    guess = potentials.estimate(warehouse, flows, sampling, potentials.Fit(), jax.random.key(seed))
    pick = np.unique(np.linspace(0, warehouse.num_states - 1, 400).astype(int))
    return {
        "truth": truth.potentials[pick],
        "estimate": guess.potentials[pick],
        "visits": guess.visits[pick],
        "exact_gain": truth.gain,
        "estimated_gain": guess.gain,
    }


def devices(warehouse: Warehouse) -> dict[str, Any]:
    """One improvement by enumeration, serially and on 1, 2, 4, 8 devices: equality, time, bytes."""
    known = exact.evaluate(warehouse, exact.order_nothing(warehouse)).potentials
    parallel.improve(warehouse, known)
    serial, seconds = timed(lambda: parallel.improve(warehouse, known))
    structured, structured_seconds = timed(lambda: exact.improve(warehouse, known))
    rows, one = [], 0.0
    for count in (1, 2, 4, 8):
        if count > len(jax.devices()):
            break
        parallel.improve(warehouse, known, devices=count)
        flows, spent = timed(lambda count=count: parallel.improve(warehouse, known, devices=count))
        one = one or spent
        rows.append(
            {
                **parallel.Speedup(
                    count, spent, one / spent, one / spent / count, parallel.gathered_bytes(warehouse, count)
                )._asdict(),
                "equals_serial": bool(np.array_equal(flows, serial)),
            }
        )
    return {
        "device": jax.devices()[0].device_kind,
        "joint_flows": len(model.joint_flows(warehouse)),
        "serial_seconds": seconds,
        "structured_seconds": structured_seconds,
        "structured_equals_serial": bool(np.array_equal(structured, serial)),
        "rows": rows,
    }


def scaling(levels: tuple[int, ...]) -> dict[str, Any]:
    """Seconds of the optimum of chains, warm, and their growth: the factor by which one more level lengthens it."""
    rows = []
    for count in levels:
        warehouse = model.make("chain", "R5", count)
        _, first = timed(lambda warehouse=warehouse: exact.optimum(warehouse))
        start = time.process_time()
        solution, warm = timed(lambda warehouse=warehouse: exact.optimum(warehouse))
        cpu = time.process_time() - start
        rows.append(
            {
                "levels": count,
                "states": warehouse.num_states,
                "gain": solution.gain,
                "sweeps": solution.sweeps,
                "first_seconds": first,
                "seconds": warm,
                "cpu_seconds": cpu,
            }
        )
    late = rows[-min(3, len(rows)) :]
    slope = np.polyfit([row["levels"] for row in late], np.log([row["cpu_seconds"] for row in late]), 1)[0]
    return {"rows": rows, "factor_per_level": float(np.exp(slope))}
