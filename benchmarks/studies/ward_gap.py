"""How far rules and reference are from optimal with two wards: ``python -m benchmarks.studies.ward_gap``.

With two wards the whole state (waiting patients, both wards' beds by class) fits a table, and the episode of
``envs_jax.domains.healthcare`` can be solved and any index rule evaluated exactly, by backward induction in float64.
The reference is simulated on common random numbers, with the best index rule as control variate.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import command

if TYPE_CHECKING:
    import chex

PATIENCE = (2.0, 4.0, 8.0, 16.0)
RESERVE = (0.0, 1.0)
SIZES = (0, 1, 2, 4)

Rule = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Waiting patients, free beds, ward -> index into SIZES wanted; what is not legal counts as the next smaller one."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      beds: of each ward.
      queue: most waiting patients of a class that the tables hold.
      tasks: random tasks besides the one with nominal parameters.
      episodes: simulated for the reference.
      seed: of tasks and episodes.
    """

    beds: int = 6
    queue: int = 12
    tasks: int = 4
    episodes: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 1, 100, "beds", "queue")
        command.check_range(self, 0, 10**6, "tasks")
        command.check_range(self, 1, 10**6, "episodes")
        command.check_seed(self)


class TwoWards:
    """Backward induction; tables have axes ``Q0, Q1, X00, X10, X01, X11`` (``X_jw``: class j in ward w)."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int, queue: int) -> None:
        self.beds = [int(n) for n in params["beds"]]
        self.hold, self.over = np.asarray(params["holding_cost"], float), np.asarray(params["overflow_cost"], float)
        self.mu, self.lam = np.asarray(params["discharge_rate"], float), np.asarray(params["arrival_rate"], float)
        self.start = np.asarray(params["start_census"], float)
        self.kappa = float(params["off_service"])
        self.leave, self.come = (np.asarray(params[f"{k}_profile"], float) for k in ("discharge", "arrival"))
        self.num_periods, self.queue, most = num_periods, queue, max(self.beds)
        self.shape = (queue + 1, queue + 1, *([most + 1] * 4))
        # Enough asking patients that the cut at ``queue`` comes after admission, as in the environment.
        asking = queue + most + 1
        q0, q1, x00, x10, x01, x11 = np.indices((asking, asking, *self.shape[2:]), sparse=True)
        k0 = np.clip(self.beds[0] - x00 - x10, 0, q0)
        k1 = np.clip(self.beds[1] - x01 - x11, 0, q1)
        self.admit = tuple(
            np.minimum(index, size - 1)
            for index, size in zip((q0 - k0, q1 - k1, x00 + k0, x10, x01, x11 + k1), self.shape, strict=True)
        )
        q0, q1, x00, x10, x01, x11 = np.indices(self.shape, sparse=True)
        self.waiting = (q0, q1)
        self.free = (self.beds[0] - x00 - x10, self.beds[1] - x01 - x11)

    def _ahead(self, value: np.ndarray, period: int) -> np.ndarray:
        """Holding cost and expected cost of the next period, after the decisions of ``period``."""
        from scipy.stats import binom, poisson

        epoch = (period + 1) % len(self.leave)
        value = value[self.admit]
        for axis, (patients, ward) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1)), start=2):
            rate = self.mu[patients] / (1.0 if patients == ward else self.kappa)
            size = np.arange(self.shape[axis])
            law = binom.pmf(size[:, None] - size, size[:, None], min(1.0, rate * self.leave[epoch]))
            value = np.moveaxis(np.tensordot(law, value, (1, axis)), 0, axis)
        for axis in (0, 1):
            now, then = np.arange(self.queue + 1)[:, None], np.arange(value.shape[axis])
            law = poisson.pmf(then - now, self.lam[axis] * self.come[epoch])
            law[:, -1] += 1.0 - law.sum(1)
            value = np.moveaxis(np.tensordot(law, value, (1, axis)), 0, axis)
        return value + self.hold[0] * self.waiting[0] + self.hold[1] * self.waiting[1]

    def _decide(self, value: np.ndarray, ward: int, rule: Rule | None) -> np.ndarray:
        """Cost before ward ``ward`` decides: by ``rule``, or the least."""
        patients = 1 - ward
        queue_axis, bed_axis = patients, 2 + 2 * ward + patients
        best = value.copy()
        wanted = None if rule is None else rule(self.waiting[patients], self.free[ward], ward)
        for index, number in enumerate(SIZES):
            if number > min(self.queue, self.shape[bed_axis] - 1) or number == 0:
                continue
            here, there = [slice(None)] * 6, [slice(None)] * 6
            here[queue_axis], there[queue_axis] = slice(number, None), slice(None, -number)
            here[bed_axis], there[bed_axis] = slice(None, -number), slice(number, None)
            moved = np.full(self.shape, np.inf)
            moved[tuple(here)] = number * self.over[patients, ward] + value[tuple(there)]
            legal = np.broadcast_to((self.waiting[patients] >= number) & (self.free[ward] >= number), self.shape)
            take = legal & (moved < best if wanted is None else wanted >= index)
            best = np.where(take, moved, best)
        return best

    def cost(self, rule: Rule | None = None) -> float:
        """Expected cost of an episode from the environment's initial law, under a rule or the optimum."""
        from scipy.stats import poisson

        value = np.zeros(self.shape)
        for period in reversed(range(self.num_periods)):
            value = self._ahead(value, period)
            for ward in (1, 0):
                value = self._decide(value, ward, rule)
        laws = []
        for w in (0, 1):
            law = poisson.pmf(np.arange(self.beds[w] + 1), self.start[w])
            law[-1] = 1.0 - law[:-1].sum()
            laws.append(law)
        start = value[0, 0, : len(laws[0]), 0, 0, : len(laws[1])]
        return float(laws[0] @ start @ laws[1])

    def index_rule(self, patience: float, reserve: float) -> Rule:
        """Move n while ``h Q patience >= b`` for the last of them and ``reserve`` beds stay free."""

        def rule(waiting: np.ndarray, free: np.ndarray, ward: int) -> np.ndarray:
            patients = 1 - ward
            wanted = np.zeros(np.broadcast_shapes(waiting.shape, free.shape), int)
            for index, n in enumerate(SIZES[1:], start=1):
                worth = patience * self.hold[patients] * (waiting - n + 1) >= self.over[patients, ward]
                wanted = np.where(worth & (waiting >= n) & (free - n >= reserve), index, wanted)
            return wanted

        return rule


def never(waiting: np.ndarray, free: np.ndarray, ward: int) -> np.ndarray:
    """Everybody waits for the own ward."""
    del waiting, free, ward
    return np.zeros((1,) * 6, int)


def index_action(env: Any, state: Any, params: Any, patience: chex.Numeric, reserve: chex.Numeric) -> Any:
    """The index rule in an environment of any number of wards: ``i32[]``."""
    from envs_jax.references import bed_pools

    turn = env.turn(state)
    free = (params.beds - state.in_ward.sum(0))[turn]
    worth, cost = patience * params.holding_cost, params.overflow_cost[:, turn]
    legal = env.legal(turn, state.waiting, free)
    return bed_pools.index_choice(worth, state.waiting, cost, legal, free - reserve, env.sender, env.size)


@functools.cache
def _player(env: Any, episodes: int) -> Callable[..., Any]:
    """A compiled episode of both policies, for any task: rewards' sums ``f32[2 episodes]``."""
    import jax
    import jax.numpy as jnp

    from envs_jax import policies, scoring
    from envs_jax import rollout as engine

    @jax.jit
    def play(params: Any, patience: jax.Array, reserve: jax.Array, keys: jax.Array) -> jax.Array:
        tasks = jax.tree.map(lambda leaf: leaf[None], params)
        plan = jax.vmap(env.solve)(tasks)
        axes = engine.state_axes(env, tasks)

        def index(state: Any) -> jax.Array:
            return index_action(env, state, params, patience, reserve)

        def act(seen: Any, states: Any, key: jax.Array) -> tuple[jax.Array]:
            del seen
            both = policies.reference_actions(env, plan, states[0], tasks, key)
            other = jax.vmap(jax.vmap(index, in_axes=(axes,)), in_axes=(axes,))(states[0])
            return (jnp.where(jnp.arange(2 * episodes) < episodes, both, other),)

        (rewards,), _ = engine.rollout((env,), (tasks,), (keys,), act, jax.random.key(0), record=scoring.score_reward)
        return -rewards.sum(0)[0]

    return play


def simulate(env: Any, params: Any, patience: float, reserve: float, episodes: int, seed: int) -> np.ndarray:
    """Costs ``f64[2, episodes]`` of the reference and of the index rule on the same noise."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(seed), (1, episodes))
    both = jnp.concatenate([keys, keys], axis=1)
    rule = (jnp.float32(patience), jnp.float32(reserve))
    return np.asarray(_player(env, episodes)(params, *rule, both), np.float64).reshape(2, episodes)


def compare(env: Any, params: Any, config: Config) -> dict[str, float]:
    """Expected cost of an episode: nobody moved, the best index rule, the reference (with standard error), optimum."""
    leaves = {field.name: np.asarray(getattr(params, field.name)) for field in dataclasses.fields(params)}
    model = TwoWards(leaves, env.num_periods, config.queue)
    rules = {(p, r): model.cost(model.index_rule(p, r)) for p in PATIENCE for r in RESERVE}
    patience, reserve = min(rules, key=lambda rule: rules[rule])
    reference, index = simulate(env, params, patience, reserve, config.episodes, config.seed)
    difference = reference - index
    return {
        "never": model.cost(never),
        "index": rules[patience, reserve],
        "patience": patience,
        "reserve": reserve,
        "reference": rules[patience, reserve] + float(difference.mean()),
        "error": float(difference.std() / np.sqrt(config.episodes)),
        "optimum": model.cost(),
    }


def main() -> None:
    """Command line."""
    config = command.parse(Config, __doc__)

    import jax

    import envs_jax

    env, nominal = envs_jax.make("healthcare", num_wards=2, max_beds=config.beds)
    tasks = [
        nominal,
        *map(env.sample_params, jax.random.split(jax.random.key(config.seed), config.tasks)),
    ]
    print("| task | never | best index rule (patience, reserve) | reference | optimum |\n|---|---:|---:|---:|---:|")
    for number, params in enumerate(tasks):
        found = compare(env, params, config)
        name = "nominal" if number == 0 else f"sampled {number}"
        index = f"{found['index']:.3f} ({found['patience']:g}, {found['reserve']:g})"
        reference = f"{found['reference']:.3f} +- {found['error']:.3f}"
        print(f"| {name} | {found['never']:.3f} | {index} | {reference} | {found['optimum']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
