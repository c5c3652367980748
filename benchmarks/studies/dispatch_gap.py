"""How far dispatching by first policy iteration is from optimal: ``python -m benchmarks.studies.dispatch_gap``.

Two servers that switch off when empty, sampled as the tasks of ``data_center`` are; their long-run mean cost under a
policy, and the least of all policies, by relative value iteration in float64. Queues are cut off at ``--queue`` jobs
each, where a job goes to the other server; the policies compared: first policy iteration (the reference), sending where
the job itself fares best (shortest expected delay, with setup and energy), the shorter queue, the best split by chance.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from benchmarks import command


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      tasks: how many.
      queue: most jobs of a server.
      seed: of the tasks.
    """

    tasks: int = 16
    queue: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 1, 10**6, "tasks")
        command.check_range(self, 1, 1000, "queue")
        command.check_seed(self)


def states(queue: int) -> tuple[np.ndarray, np.ndarray]:
    """Jobs and whether in setup, of the ``2 queue + 1`` states of a server: off, on with 1.., in setup with 1.. ."""
    jobs = np.concatenate([np.arange(queue + 1), np.arange(1, queue + 1)])
    return jobs, np.arange(2 * queue + 1) > queue


class TwoServers:
    """The Markov chain of two servers between which a dispatcher chooses. ``servers``: its five rates, ``[2]`` each."""

    def __init__(self, servers: dict[str, np.ndarray], arrivals: float, queue: int) -> None:
        self.arrivals = arrivals
        jobs, in_setup = states(queue)
        here = np.arange(len(jobs))
        full = jobs == queue
        self.full = full
        joined = np.where(full, here, here + 1)
        joined[0] = queue + 1
        after = here - 1  # a job leaves
        after[0], after[in_setup] = 0, jobs[in_setup]  # or the setup ends
        self.joined, self.after = joined, after
        self.cost, self.leave = [], []
        self.value = np.zeros((len(jobs), len(jobs)))  # where the next iteration starts
        for i in range(2):
            mu, delta, busy, setup, holding = (
                float(servers[k][i]) for k in ("speed", "setup_rate", "busy_cost", "setup_cost", "holding")
            )
            self.leave.append(np.where(in_setup, delta, np.where(jobs > 0, mu, 0.0)))
            self.cost.append(holding * jobs + np.where(in_setup, setup, np.where(jobs > 0, busy, 0.0)))

    def mean_cost(self, share: np.ndarray | None = None, tolerance: float = 1e-6, most: int = 400_000) -> float:
        """Long-run cost per second, optimal or when the first server gets a job with chance ``share[S, S]``.

        Raises:
          RuntimeError: if bounds on the mean cost are not within ``tolerance`` (relative) after ``most`` rounds.
        """
        pace = self.arrivals + sum(rate.max() for rate in self.leave)  # of the chain made uniform
        cost = (self.cost[0][:, None] + self.cost[1]) / pace
        first, second = self.leave[0][:, None] / pace, self.leave[1] / pace
        arrive = self.arrivals / pace
        stay = 1.0 - arrive - first - second
        full_first, full_second = np.broadcast_arrays(self.full[:, None], self.full)
        if share is not None:
            share = np.where(full_first, 0.0, np.where(full_second, 1.0, share))
        value = self.value
        for _ in range(most):
            to_first, to_second = value[self.joined], value[:, self.joined]
            if share is None:
                # A full server cannot be chosen; if both are, the job is lost.
                best = np.minimum(
                    np.where(full_first & ~full_second, np.inf, to_first),
                    np.where(full_second & ~full_first, np.inf, to_second),
                )
            else:
                best = share * to_first + (1.0 - share) * to_second
            new = cost + arrive * best + first * value[self.after] + second * value[:, self.after] + stay * value
            change = new - value
            low, high = change.min(), change.max()
            if high - low <= tolerance * high:
                self.value = value
                return float((low + high) / 2 * pace)
            value = new - new[0, 0]
        raise RuntimeError(f"mean cost between {low * pace} and {high * pace} after {most} rounds")


def compare(env: Any, task: Any, queue: int, tolerance: float = 1e-6) -> dict[str, float]:
    """Mean cost of each policy on a ``task`` of two servers, in units of the optimum; ``optimum`` itself in cost/s."""
    import jax
    import jax.numpy as jnp

    from envs_jax.references import setup_queue

    servers = env.servers(task)
    chain = TwoServers({k: np.asarray(v, float) for k, v in vars(servers).items()}, float(task.arrival_rate), queue)
    jobs, in_setup = states(queue)
    rates = jax.jit(env.solve)(task)
    marginal_costs = jax.jit(setup_queue.marginal_costs)

    def dispatch(rates: Any) -> np.ndarray:
        costs = np.asarray(marginal_costs(servers, rates, jobs[:, None], in_setup[:, None]))
        return (costs[:, 0][:, None] <= costs[:, 1]).astype(float)

    costs = {"FPI": chain.mean_cost(dispatch(rates), tolerance)}
    optimum = chain.mean_cost(tolerance=tolerance)  # starts from the values of a policy not far from it
    shorter = np.where(jobs[:, None] == jobs, 0.5, jobs[:, None] < jobs)
    shares = {
        "own delay": dispatch(jnp.zeros(2)),
        "shorter queue": shorter,
        "best split": np.full(shorter.shape, float(rates[0] / rates.sum())),
    }
    costs |= {name: chain.mean_cost(share, tolerance) for name, share in shares.items()}
    return {"optimum": optimum} | {name: cost / optimum for name, cost in costs.items()}


def main() -> None:
    """Command line."""
    config = command.parse(Config, __doc__)

    import jax

    from envs_jax.domains.data_center import DataCenter

    env = DataCenter(num_servers=2, num_periods=2 * config.queue, queue=config.queue)
    found = []
    for key in jax.random.split(jax.random.key(config.seed), config.tasks):
        found.append(compare(env, env.sample_params(key), config.queue))
        print("  ".join(f"{name} {value:.4f}" for name, value in found[-1].items()), flush=True)
    for name in found[0]:
        if name != "optimum":
            ratios = np.array([row[name] for row in found])
            print(f"{name}: mean {ratios.mean():.4f}, largest {ratios.max():.4f} of the optimum's cost")


if __name__ == "__main__":
    main()
