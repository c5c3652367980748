"""GridNavi (Zintgraf 2020, VariBAD): a search for a hidden cell of a grid, remembered over a few episodes."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, make_observation

SIZE = 5
NEAR = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The start and the cells around it, where no goal is."""
GOALS = tuple(cell for cell in itertools.product(range(SIZE), repeat=2) if cell not in NEAR)
MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
"""Stay, up, right, down, left."""
AT_GOAL, ELSEWHERE = 1.0, -0.1
"""Reward of a step."""
SEARCH = (1, 1, 1, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 3, 3)
"""Actions of a best first episode: from its second step on, each enters a cell that may be the goal and is new."""


@struct.dataclass
class GridState(EnvState):
    """``position i32[2]``, and ``move i32[2]`` of this step."""

    position: chex.Array
    move: chex.Array


@struct.dataclass
class GridParams(EnvParams):
    """``goal i32[2]`` is hidden."""

    goal: chex.Array


@struct.dataclass
class Searched:
    """What the search remembers: ``steps i32[]`` made so far."""

    steps: chex.Array


class GridNavigation(ResourceEnv[GridState, GridParams]):
    """From a corner of a 5x5 grid, 15 steps; a step pays 1 at the goal and -.1 elsewhere. 21 goals are equally likely.

    The first episode of a trial is a search, later ones go straight to the goal. Deterministic. Two figures are exact.
    Who knows the goal, d steps away, earns ``(16 - d) - .1 (d - 1)``: 11.071 on average. Who finds it in step t of the
    first episode earns ``16.1 - 1.1 t``, who does not -1.5; at best each step but the first enters a new cell that may
    be the goal, and :data:`SEARCH` does: ``(sum_{t=2}^{15} (17.6 - 1.1 t)) / 21 - 1.5 = 4``.

    ==========  =============  =============================
    token       column         quantity
    ==========  =============  =============================
    place       private_a, b   position [4 cells]
    place       last_reward    of the last step
    place       progress       share of the steps gone
    ==========  =============  =============================

    An action is described by its move (``private_a``, ``private_b``) and ``is_noop``. The reference goes to the goal;
    the heuristic searches as above, one episode alone.

    Args:
      discount_factor: gamma.
    """

    name = "gridnavi"
    hidden: ClassVar[tuple[str, ...]] = ("goal",)
    reference_kind = "optimal"
    reward_unit = "reward"
    num_turns = 1
    num_periods = 15
    num_tokens = 1
    num_uniforms = 0
    num_actions = len(MOVES)

    def __init__(self, discount_factor: float = 0.95):
        super().__init__()
        self.discount_factor = discount_factor

    @property
    def default_params(self) -> GridParams:
        """The far corner."""
        return GridParams(jnp.int32(self.horizon), jnp.full(2, SIZE - 1, jnp.int32))

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> GridParams:
        """One of the 21 goals."""
        index = sampling.integers(self.task_uniforms(key, split, 1)[0], 0, len(GOALS) - 1)
        return GridParams(jnp.int32(self.horizon), jnp.array(GOALS, jnp.int32)[index])

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: GridParams) -> GridState:
        """In the corner."""
        del uniforms, params
        none = jnp.zeros(2, jnp.int32)
        return GridState(**self.clock(key), position=none, move=none)

    def choose(self, state: GridState, turn: chex.Array, action: chex.Array, params: GridParams) -> GridState:
        """Which way."""
        del turn, params
        return state.replace(move=jnp.array(MOVES, jnp.int32)[action])

    def advance(
        self, state: GridState, uniforms: chex.Array, params: GridParams
    ) -> tuple[GridState, chex.Array, dict[str, chex.Array]]:
        """A step; at the edge it stays."""
        del uniforms
        position = jnp.clip(state.position + state.move, 0, SIZE - 1)
        reward = jnp.where(jnp.all(position == params.goal), jnp.float32(AT_GOAL), jnp.float32(ELSEWHERE))
        return state.replace(position=position), reward, {"expected_reward": reward}

    def observation(self, state: GridState, params: GridParams) -> Observation:
        """One token: where it is, and what the last step paid."""
        del params
        at = state.position.astype(jnp.float32) / (SIZE - 1)
        place = {
            "private_a": at[0],
            "private_b": at[1],
            "last_reward": state.last_reward,
            "is_turn": 1.0,
            "progress": self.progress(state),
        }
        ways = jnp.array(MOVES, jnp.float32)
        still = (jnp.arange(self.num_actions) == self.noop_action).astype(jnp.float32)
        columns = {"private_a": ways[:, 0], "private_b": ways[:, 1], "is_noop": still}
        target = jnp.zeros(self.num_actions, jnp.int32)
        return make_observation([("place", 1, place)], columns, target, jnp.ones(self.num_actions, bool))

    def reference_action(self, plan: Any, state: GridState, params: GridParams, key: chex.PRNGKey) -> chex.Array:
        """Straight to the goal, then stays."""
        left = jnp.sign(params.goal - state.position)
        towards = jnp.where(left[0] != 0, jnp.stack([left[0], 0]), jnp.stack([0, left[1]]))
        return jnp.argmax(jnp.all(jnp.array(MOVES, jnp.int32) == towards, axis=-1)).astype(jnp.int32)

    def heuristic_start(self) -> Searched:
        """Nothing searched."""
        return Searched(jnp.int32(0))

    def heuristic_step(
        self, memory: Searched, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, Searched]:
        """The next step of :data:`SEARCH`, until one paid."""
        found = observation.column("last_reward")[0] == AT_GOAL
        action = jnp.where(found, 0, jnp.array(SEARCH, jnp.int32)[jnp.minimum(memory.steps, len(SEARCH) - 1)])
        return action, Searched(memory.steps + 1)
