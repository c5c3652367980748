"""Equilibrium Q-learning: one tabular update for several agents, whose value operator is an argument.

After joint action ``a`` in state ``s``, rewards ``r`` and next state ``s'``:

    Q_i(s, a) <- (1 - alpha) Q_i(s, a) + alpha (r_i + discount V_i(s')),     V(s) = operator(Q(., s, .)).

``team``, ``minimax``, ``friend``, ``foe``, ``nash`` and the ``ce`` operators of :mod:`metarl_jax.equilibria` make
team-Q, minimax-Q, friend-or-foe-Q, Nash-Q and CE-Q of it. All agents see all actions and rewards. Only the visited
state's table changes, so one stage game is solved a step. ``independent`` is beside them: every agent learns by itself
from its own action and reward, as if the others were part of the world.

Everything is pure; seeds are vmapped, their stage games solved side by side. Call under ``jax.enable_x64(True)``:
stage games in float32 go wrong without a sign of it. The worst certificate met is kept and checked afterwards.

Not in the registry of :mod:`metarl_jax.learners`: those adapt networks to tasks, this one fills a table of one game.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.games import markov_game
from envs_jax.games.markov_game import MarkovGame
from metarl_jax import equilibria

INDEPENDENT = "independent"
SCHEDULES = ("decay", "visits")
TOLERANCE = 1e-5
"""Largest certificate that a learner lets pass: its values carry noise far above; exact values are held to less."""

BEHAVIOURS = ("explore", "random-opponent", "random")


class Settings(NamedTuple):
    """How a table is learned; Littman's numbers.

    Attributes:
      learning_rate: ``alpha`` of the first step.
      final_rate: ``alpha`` of the last step; between them it falls geometrically (schedule ``decay``).
      explore: chance that an agent acts at random.
      initial: first value of every entry.
      schedule: ``decay``, or ``visits``: ``alpha = visits ** -power`` of the state and joint action (static).
      power: of the latter.
      behaviour: ``explore``: both follow the learned strategies but for ``explore``; ``random-opponent``: the second
        agent always acts at random; ``random``: both do (static).
    """

    learning_rate: float = 1.0
    final_rate: float = 0.01
    explore: float = 0.2
    initial: float = 0.0
    schedule: str = "decay"
    power: float = 0.8
    behaviour: str = "explore"


class Tables(NamedTuple):
    """What is learned.

    Attributes:
      q: ``f64[N, S, A_1, .., A_N]``; ``f64[N, S, A]`` for independent agents.
      value: ``f64[N, S]``.
      strategy: ``f64[N, S, A]`` what each agent plays.
      joint: ``f64[S, A_1, .., A_N]`` what they play together; correlated operators correlate it. Of independent agents
        the empty array.
      visits: ``i32[S, A_1, .., A_N]``.
      state: ``i32[]`` of the game.
      step: ``i32[]``.
      gap: ``f64[]`` worst certificate so far.
    """

    q: chex.Array
    value: chex.Array
    strategy: chex.Array
    joint: chex.Array
    visits: chex.Array
    state: chex.Array
    step: chex.Array
    gap: chex.Array


def check_settings(settings: Settings) -> None:
    """Raises ``ValueError`` naming the setting that is not allowed."""
    for field, allowed in (("schedule", SCHEDULES), ("behaviour", BEHAVIOURS)):
        if getattr(settings, field) not in allowed:
            raise ValueError(f"{field} = {getattr(settings, field)!r}: allowed are {', '.join(allowed)}")
    for field in ("learning_rate", "final_rate", "explore"):
        if not 0.0 <= getattr(settings, field) <= 1.0:
            raise ValueError(f"{field} = {getattr(settings, field)}: must lie in [0, 1]")


def init(game: MarkovGame, operator: str, settings: Settings, key: chex.PRNGKey) -> Tables:
    """Tables full of ``settings.initial``, strategies uniform."""
    check_settings(settings)
    agents, states, actions = game.num_agents, game.num_states, game.num_actions
    if len(set(actions)) > 1:
        raise ValueError(f"num_actions = {actions}: agents must have equally many")
    dtype = jnp.asarray(game.reward).dtype
    if operator == INDEPENDENT:
        q = jnp.full((agents, states, actions[0]), settings.initial, dtype)
        joint = jnp.zeros((states, 0), dtype)
    else:
        equilibria.get(operator)
        q = jnp.full((agents, states, *actions), settings.initial, dtype)
        joint = jnp.full((states, *actions), 1.0 / np.prod(actions), dtype)
    return Tables(
        q=q,
        value=jnp.full((agents, states), settings.initial, dtype),
        strategy=jnp.full((agents, states, actions[0]), 1.0 / actions[0], dtype),
        joint=joint,
        visits=jnp.zeros((states, *actions), jnp.int32),
        state=markov_game.reset(game, key),
        step=jnp.int32(0),
        gap=jnp.zeros((), dtype),
    )


def update(
    tables: Tables,
    operator: str,
    state: chex.Array,
    actions: chex.Array,
    reward: chex.Array,
    after: chex.Array,
    ends: chex.Array,
    alpha: chex.Array,
    discount: chex.Array,
) -> Tables:
    """The one update. ``operator`` is a name in :data:`equilibria.OPERATORS` or ``independent`` (static)."""
    agents = tables.value.shape[0]
    target = reward + discount * jnp.where(ends, 0.0, tables.value[:, after])
    stage = tables.q[:, state]  # read once, written once: XLA then updates the table in place
    if operator == INDEPENDENT:
        where: tuple = (jnp.arange(agents), actions)
    else:
        where = (slice(None), *(actions[i] for i in range(agents)))
    stage = stage.at[where].add(alpha * (target - stage[where]))
    if operator == INDEPENDENT:
        value, joint = stage.max(1), tables.joint[state]
        strategy = jax.nn.one_hot(jnp.argmax(stage, axis=1), stage.shape[1], dtype=stage.dtype)
        gap = tables.gap
    else:
        value, joint, gap = equilibria.get(operator)(stage)
        gap = jnp.maximum(tables.gap, gap)
        marginals = [joint.sum(tuple(k for k in range(joint.ndim) if k != i)) for i in range(agents)]
        strategy = jnp.stack(marginals)
    return tables._replace(
        q=tables.q.at[:, state].set(stage),
        value=tables.value.at[:, state].set(value),
        strategy=tables.strategy.at[:, state].set(strategy),
        joint=tables.joint.at[state].set(joint),
        gap=gap,
    )


def _act(tables: Tables, operator: str, settings: Settings, uniform: chex.Array) -> chex.Array:
    """Actions ``i32[N]`` from ``f[3 N]`` uniforms."""
    agents, count = tables.strategy.shape[0], tables.strategy.shape[-1]
    state = tables.state
    if operator.startswith("ce-") and operator != "ce-libertarian":
        flat = tables.joint[state].reshape(-1)
        drawn = jnp.minimum(jnp.sum(uniform[0] >= jnp.cumsum(flat)), flat.size - 1)
        told = jnp.stack(jnp.unravel_index(drawn, tables.joint.shape[1:]))
    else:
        below = jnp.cumsum(tables.strategy[:, state], axis=-1)
        told = jnp.minimum(jnp.sum(uniform[:agents, None] >= below, axis=-1), count - 1)
    random = jnp.minimum(jnp.floor(uniform[agents : 2 * agents] * count).astype(jnp.int32), count - 1)
    explores = uniform[2 * agents :] < settings.explore
    if settings.behaviour == "random":
        explores = jnp.ones_like(explores)
    elif settings.behaviour == "random-opponent":
        explores = explores.at[1:].set(True)
    return jnp.where(explores, random, told).astype(jnp.int32)


def one_step(
    game: MarkovGame, operator: str, settings: Settings, total: int, tables: Tables, key: chex.PRNGKey
) -> Tables:
    """Acts once, learns once; a new episode begins where one ends."""
    choose, move, again = jax.random.split(jax.random.fold_in(key, tables.step), 3)
    uniform = jax.random.uniform(choose, (3 * game.num_agents,), tables.q.dtype)
    actions = _act(tables, operator, settings, uniform)
    happened = markov_game.step(game, move, tables.state, actions)
    where = (tables.state, *(actions[i] for i in range(game.num_agents)))
    count = tables.visits[where] + 1
    if settings.schedule == "visits":
        alpha = count.astype(tables.q.dtype) ** -settings.power
    else:
        fraction = tables.step / max(total - 1, 1)
        alpha = settings.learning_rate * (settings.final_rate / settings.learning_rate) ** fraction
    tables = update(
        tables, operator, tables.state, actions, happened.reward, happened.state, happened.ends, alpha, game.discount
    )
    following = jnp.where(happened.ends, markov_game.reset(game, again), happened.state)
    return tables._replace(visits=tables.visits.at[where].set(count), state=following, step=tables.step + 1)


@functools.partial(jax.jit, static_argnames=("operator", "settings", "total", "steps"), donate_argnames="tables")
def _advance(
    game: MarkovGame,
    tables: Tables,
    keys: chex.PRNGKey,
    operator: str,
    settings: Settings,
    total: int,
    steps: int,
) -> Tables:
    def one(_: chex.Array, tables: Tables) -> Tables:
        return jax.vmap(functools.partial(one_step, game, operator, settings, total))(tables, keys)

    return jax.lax.fori_loop(0, steps, one, tables)


def start(game: MarkovGame, operator: str, settings: Settings, key: chex.PRNGKey, seeds: int) -> Tables:
    """Tables of several seeds; every field leads with ``seeds``."""
    return jax.vmap(lambda one: init(game, operator, settings, one))(
        jax.random.split(jax.random.fold_in(key, 1), seeds)
    )


def advance(
    game: MarkovGame, tables: Tables, key: chex.PRNGKey, operator: str, settings: Settings, *, total: int, steps: int
) -> Tables:
    """``steps`` more steps of all seeds; depends on the tables and the key alone, so a run can be cut anywhere.

    Args:
      game: the game.
      tables: of :func:`start` or of this; given up.
      key: the run's key, always the same.
      operator: name of the value operator or ``independent``.
      settings: how to learn.
      total: steps of the whole run, for the learning rate.
      steps: how many now.

    Raises:
      equilibria.NoEquilibriumError: a stage game without the wanted equilibrium, or solved too inexactly.
    """
    keys = jax.random.split(jax.random.fold_in(key, 2), tables.step.shape[0])
    tables = _advance(game, tables, keys, operator, settings, total, steps)
    equilibria.check(tables.gap, f"{operator} (by seed)", TOLERANCE)
    return tables
