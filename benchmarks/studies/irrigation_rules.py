"""Simpler ways to irrigate beside the reference, and its bound: ``python -m benchmarks.studies.irrigation_rules``.

On tasks of ``agriculture``, all on the same weather: nothing, random choices, the domain's heuristic; watering the
driest field, or of the dry fields the one to which a set is worth most (*weighted depletion*), the latter also with the
average task's soils, and a *roll-out* of it (each day the choice after which that rule would lose least in mean
weather); the reference. The rules from "driest" on know the hidden parameters and the true depletions. The bound is
what nobody can expect to exceed without foreknowledge (``Agriculture.upper_bound``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks import command

if TYPE_CHECKING:
    import chex

    from envs_jax.domains.agriculture import Agriculture, AgricultureParams, AgricultureState
    from envs_jax.policies import PolicyName

Rule = Callable[["Agriculture", "AgricultureState", "AgricultureParams"], "chex.Array"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      tasks: how many.
      episodes: of each.
      population: tasks whose soils are averaged.
      seed: of tasks and weather.
    """

    tasks: int = 32
    episodes: int = 4
    population: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers without a meaning."""
        command.check_range(self, 1, 10**6, "tasks", "episodes", "population")
        command.check_seed(self)


def driest(env: Agriculture, state: AgricultureState, params: AgricultureParams) -> chex.Array:
    """Choice ``i32[]``: the field of largest Dr / RAW, if RAW will be used up by the end of tomorrow; else none.

    Args:
      env: the domain.
      state: of the world; its true depletions are used.
      params: the task, as it is believed to be.
    """
    farm = env.farm(params)
    return _first(env, state, params, state.depletion / (farm.fraction * farm.available))


def weighted_depletion(env: Agriculture, state: AgricultureState, params: AgricultureParams) -> chex.Array:
    """Like :func:`driest`, but of the fields whose RAW will be used up the one to which a set is worth most."""
    farm = env.farm(params)
    return _first(env, state, params, farm.worth * farm.gain)


def _first(env: Agriculture, state: AgricultureState, params: AgricultureParams, merit: chex.Array) -> chex.Array:
    import jax.numpy as jnp

    farm, day = env.farm(params), env.period(state)
    ready = state.depletion + 2.0 * farm.demand[:, day] > farm.fraction * farm.available
    growing = (state.sets >= 1.0) & (params.kc_left[:, day] > 0.0)
    merit = jnp.where(ready & growing, merit, -1.0)
    return jnp.where(jnp.max(merit) > 0.0, 1 + jnp.argmax(merit), 0).astype(jnp.int32)


def roll_out(env: Agriculture, state: AgricultureState, params: AgricultureParams) -> chex.Array:
    """Choice ``i32[]`` after which weighted depletion loses least until harvest, were all weather at its mean."""
    import jax
    import jax.numpy as jnp

    from envs_jax.references import fao56

    farm, fields = env.farm(params), jnp.arange(1, env.num_actions)

    def loss(first: chex.Array) -> chex.Array:
        def one(carry: AgricultureState, day: chex.Array) -> tuple[AgricultureState, chex.Array]:
            now = carry.replace(time=day)
            given = fields == jnp.where(day == state.time, first, weighted_depletion(env, now, params))
            demand = farm.demand[:, day]
            use = fao56.water_stress(now.depletion, farm.available, farm.fraction) * demand
            gain = farm.rain_chance * farm.rain_depth + farm.gain * given
            depletion, _ = fao56.water_balance(now.depletion, gain, use, farm.available)
            gone = day < state.time  # in the past: nothing happens
            after = now.replace(
                depletion=jnp.where(gone, now.depletion, depletion), sets=now.sets - jnp.where(gone, 0, given.sum())
            )
            return after, jnp.where(gone, 0.0, jnp.sum(farm.worth * (demand - use)))

        return jax.lax.scan(one, state, jnp.arange(env.num_periods))[1].sum()

    legal = env.observation(state, params).action_mask
    return jnp.argmin(jnp.where(legal, jax.vmap(loss)(jnp.arange(env.num_actions)), jnp.inf)).astype(jnp.int32)


def mean_return(
    env: Agriculture, rule: Rule, tasks: AgricultureParams, believed: AgricultureParams, keys: chex.PRNGKey
) -> chex.Array:
    """Mean return ``f32[B]`` of a rule on the episodes ``keys[B, E]`` of ``tasks[B]``, told ``believed[B]``."""
    return _program(env, rule)(tasks, believed, keys)


@functools.cache
def _program(env: Agriculture, rule: Rule) -> Callable[..., chex.Array]:
    """:func:`mean_return` of one rule, compiled once."""
    import jax

    from envs_jax import rollout as engine

    def run(tasks: AgricultureParams, believed: AgricultureParams, keys: chex.PRNGKey) -> chex.Array:
        axes = engine.state_axes(env, tasks)
        over_episodes = jax.vmap(functools.partial(rule, env), in_axes=(axes, None))
        choose = jax.vmap(over_episodes, in_axes=(axes, 0))

        def act(seen: Any, states: Any, key: chex.PRNGKey) -> tuple[chex.Array]:
            del seen, key
            return (choose(states[0], believed),)

        (reward,), _ = engine.rollout((env,), (tasks,), (keys,), act, keys[0, 0], record=lambda _, step: step.reward)
        return reward.sum(0).mean(-1)

    return jax.jit(run)


def measure(config: Config) -> dict[str, chex.Array]:
    """Mean returns ``f32[tasks]`` of everything compared, and ``bound``."""
    import jax
    import jax.numpy as jnp

    from envs_jax import scoring
    from envs_jax.domains.agriculture import Agriculture

    env = Agriculture()
    sample = jax.jit(jax.vmap(env.sample_params))
    task_key, population_key, episode_key = jax.random.split(jax.random.key(config.seed), 3)
    tasks = sample(jax.random.split(task_key, config.tasks))
    soil = sample(jax.random.split(population_key, config.population)).available_water.mean(0)
    average = tasks.replace(available_water=jnp.broadcast_to(soil, tasks.available_water.shape))
    keys = jax.random.split(episode_key, (config.tasks, config.episodes))
    names: tuple[PolicyName, ...] = ("noop", "random", "heuristic", "reference")
    found: dict[str, chex.Array] = {name: scoring.returns(env, name, tasks, keys).mean(-1) for name in names}
    found |= {
        "driest field": mean_return(env, driest, tasks, tasks, keys),
        "weighted depletion": mean_return(env, weighted_depletion, tasks, tasks, keys),
        "the same with average soils": mean_return(env, weighted_depletion, tasks, average, keys),
        "its roll-out": mean_return(env, roll_out, tasks, tasks, keys),
        "bound": jax.jit(jax.vmap(env.upper_bound))(tasks),
    }
    return dict(sorted(found.items(), key=lambda item: float(item[1].mean())))


def main() -> None:
    """Command line."""
    config = command.parse(Config, __doc__)
    for name, found in measure(config).items():
        print(f"{name:28s} {float(found.mean()):7.3f}")


if __name__ == "__main__":
    main()
