"""Tunes the constants of a domain's heuristic: ``python -m benchmarks.studies.tune_heuristics --domain healthcare``.

A tunable heuristic states its constants as ``rule``, a NamedTuple of floats, and chooses by ``heuristic_by(rule,
memory, observation, key)``. The cross-entropy method draws candidates around the present constants, plays them all on
the same new tasks and the same noise, and moves to the best quarter, iteration by iteration. Constants above 0 are
searched by their logarithm and stay above 0; the others are searched as they are.

Then the present constants, the tuned ones and the average player of ``benchmarks.quality.headroom`` are scored on fresh
tasks: ``sum (J - floor) / sum (J_reference - floor)``, with the 95 % interval of a bootstrap over tasks, and the
constants are printed as they are to be pasted. All tasks are drawn from keys that nothing else draws from, so neither
the headroom nor any stored set of tasks has been seen.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks import command

if TYPE_CHECKING:
    import chex

    from envs_jax.environment import EnvParams
    from envs_jax.observation import Observation
    from metarl_jax.statistics import Interval

STREAM = 0x74756E65
"""Folded into the seed's key: tasks of this command are of their own."""
SPREAD = 0.3
"""First standard deviation of a constant: relative, or of one not above 0 this share of ``max(|constant|, .1)``."""
ELITE, STEP, CALM = 0.25, 0.7, 0.25
"""Share of the candidates that the search moves to; how far it moves there in one iteration, and how far its standard
deviations go to theirs: slowly, or noise would end the search early."""


class TunableEnv(Protocol):
    """A domain whose heuristic has constants."""

    rule: Any

    def heuristic_by(
        self, rule: Any, memory: Any, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, Any]:
        """The choice ``i32[]`` by other constants than :attr:`rule`, and what is remembered then."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; the defaults take one to two minutes on two cores.

    Attributes:
      domain: which; one with a tunable heuristic.
      iterations: of the search; 0 scores the present constants.
      candidates: an iteration, the centre of the search among them.
      tasks: an iteration, new ones each time.
      fresh_tasks: tasks that the scores are of.
      episodes: of each of these.
      population: tasks that the average is taken over.
      seed: of tasks, noise and candidates.
    """

    domain: str = "network_traffic"
    iterations: int = 24
    candidates: int = 24
    tasks: int = 64
    fresh_tasks: int = 256
    episodes: int = 4
    population: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_domains((self.domain,))
        command.check_range(self, 0, 10**4, "iterations")
        command.check_range(self, 4, 10**4, "candidates")
        command.check_range(self, 1, 10**6, "tasks", "fresh_tasks", "episodes", "population")
        command.check_seed(self)


def returns(env: Any, rules: Any, tasks: EnvParams, keys: chex.PRNGKey) -> chex.Array:
    """Mean returns ``f32[C, B]`` of a heuristic with C sets of constants, on the same episodes.

    Args:
      env: a :class:`TunableEnv`.
      rules: its constants, leaves ``f32[C]``.
      tasks: stacked, ``[B]``.
      keys: of the episodes, ``[B, E]``.
    """
    return _player(env)(rules, tasks, keys)


@functools.cache
def _player(env: Any) -> Callable[..., chex.Array]:
    """:func:`returns` of one domain, compiled once a shape."""
    import jax
    import jax.numpy as jnp

    from envs_jax import policies, scoring
    from envs_jax import rollout as engine

    @jax.jit
    def play(rules: Any, tasks: EnvParams, keys: chex.PRNGKey) -> chex.Array:
        candidates, episodes = jax.tree.leaves(rules)[0].shape[0], keys.shape[1]
        # Candidates stand side by side as episodes: so the batch keeps its one clock, and all meet the same noise.
        side_by_side = jax.tree.map(lambda leaf: jnp.repeat(leaf, episodes), rules)
        over_episodes = jax.vmap(env.heuristic_by)
        choose = jax.vmap(over_episodes, in_axes=(None, 0, 0, 0))

        def act(seen: Any, states: Any, memory: Any, key: chex.PRNGKey) -> tuple[tuple[chex.Array], Any, Any]:
            del states
            own = jnp.tile(jax.random.split(key, keys.shape), (1, candidates))
            chosen, memory = choose(side_by_side, memory, seen[0], own)
            return (chosen,), (), memory

        repeated = jnp.tile(keys, (1, candidates))
        memory = policies.memory(env, *repeated.shape)
        (rewards,), *_ = engine.recurrent_rollout(
            (env,), (tasks,), (repeated,), act, memory, jax.random.fold_in(keys[0, 0], 1), record=scoring.score_reward
        )
        return rewards.sum(0).reshape(-1, candidates, episodes).mean(-1).T

    return play


def stacked(rules: Sequence[Any]) -> Any:
    """Sets of constants as one of leaves ``f32[C]``."""
    import jax.numpy as jnp

    return type(rules[0])(*(jnp.asarray(column, jnp.float32) for column in zip(*rules, strict=True)))


def draw(env: Any, key: chex.PRNGKey, tasks: int, episodes: int) -> tuple[EnvParams, chex.PRNGKey]:
    """New tasks ``[tasks]`` and keys of their episodes ``[tasks, episodes]``."""
    import jax

    task_key, episode_key = jax.random.split(key)
    drawn = jax.jit(jax.vmap(env.sample_params))(jax.random.split(task_key, tasks))
    return drawn, jax.random.split(episode_key, (tasks, episodes))


def tuned(env: Any, rule: Any, config: Config, report: Callable[[str], None] = print) -> Any:
    """The constants to which the search from ``rule`` comes, rounded to three digits."""
    import jax

    rng = np.random.default_rng(config.seed)
    base = jax.random.fold_in(jax.random.key(config.seed), STREAM)
    first = np.asarray(rule, np.float64)
    above = first > 0.0
    centre = np.where(above, np.log(np.where(above, first, 1.0)), first)
    spread = np.where(above, SPREAD, SPREAD * np.maximum(np.abs(first), 0.1))

    def constants(point: np.ndarray) -> Any:
        return type(rule)(*(float(f"{x:.3g}") for x in np.where(above, np.exp(np.where(above, point, 0.0)), point)))

    for iteration in range(config.iterations):
        points = centre + spread * rng.standard_normal((config.candidates, len(first)))
        points[0] = centre
        rules = [constants(point) for point in points]
        tasks, keys = draw(env, jax.random.fold_in(base, 1 + iteration), config.tasks, 1)
        found = np.asarray(returns(env, stacked(rules), tasks, keys), np.float64).mean(1)
        best = points[np.argsort(-found)[: max(2, round(ELITE * config.candidates))]]
        centre = centre + STEP * (best.mean(0) - centre)
        spread = spread + CALM * (best.std(0) - spread)
        report(f"{iteration + 1:3d}  centre {found[0]:9.4f}  best {found.max():9.4f}  {constants(centre)}")
    return constants(centre)


def scored(env: Any, rules: Sequence[Any], config: Config) -> tuple[list[Interval], Interval, Interval]:
    """Scores of sets of constants and of the average player on fresh tasks, and the last set's minus the first's."""
    import jax

    from envs_jax import scoring
    from metarl_jax import statistics

    base = jax.random.fold_in(jax.random.key(config.seed), STREAM)
    fresh, others = jax.random.split(jax.random.fold_in(base, 0))
    tasks, keys = draw(env, fresh, config.fresh_tasks, config.episodes)
    population, _ = draw(env, others, config.population, 1)
    found = np.asarray(returns(env, stacked(rules), tasks, keys), np.float64)
    average = np.asarray(scoring.returns(env, "average", tasks, keys, population).mean(-1), np.float64)
    baselines = scoring.reference_returns(env, tasks, keys)
    score = functools.partial(
        statistics.hierarchical_bootstrap, floor=baselines.floor, reference=baselines.reference, seed=config.seed
    )
    gain = score(found[-1:], baseline=found[:1])
    return [score(mean[None]) for mean in found], score(average[None]), gain


def pasted(rule: Any) -> str:
    """The constants as they stand in the domain's file."""
    return f"{type(rule).__name__}({', '.join(f'{name}={value:g}' for name, value in rule._asdict().items())})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    config = command.parse(Config, __doc__, arguments)

    import envs_jax

    env, _ = envs_jax.make(config.domain)
    if not hasattr(env, "heuristic_by"):
        command.refuse(f"domain: the heuristic of {config.domain} has no constants that can be tuned")
    now = env.rule
    new = tuned(env, now, config, functools.partial(print, flush=True))
    (old_score, new_score), average, gain = scored(env, (now, new), config)
    lines = (("present", old_score), ("tuned", new_score), ("tuned - present", gain), ("average", average))
    print(f"\n{config.domain}: scores on {config.fresh_tasks} fresh tasks x {config.episodes} episodes")
    for name, interval in lines:
        print(f"{name:16s} {interval.estimate:6.3f} [{interval.low:.3f}, {interval.high:.3f}]")
    print(f"\n{pasted(new)}")


if __name__ == "__main__":
    main()
