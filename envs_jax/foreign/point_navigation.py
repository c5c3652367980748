"""Navigation of a point in the plane to a goal that is not shown (Finn 2017, MAML), with moves of a fixed set."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import observation as vocabulary
from envs_jax.checks import refusal
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, make_observation

STEPS = (0.0, 0.02, -0.02, 0.1, -0.1)
"""Of a coordinate in one move."""
LARGEST = max(STEPS)
REACH = 0.5
"""Goals lie within so much of the start in each coordinate."""


@struct.dataclass
class PointState(EnvState):
    """``position f32[2]``, and ``move f32[2]`` of this step."""

    position: chex.Array
    move: chex.Array


@struct.dataclass
class PointParams(EnvParams):
    """``goal f32[2]`` is hidden."""

    goal: chex.Array


class PointNavigation(ResourceEnv[PointState, PointParams]):
    """A point starts at 0 and moves 100 times; a step costs its distance from the goal ~ U(-.5, .5)^2 after the move.

    The reward alone tells of the goal. MAML's environment (``point_env_randgoal``) has continuous moves of at most .1 a
    coordinate and ends within .01 of the goal; here the 25 moves are ``{0, +-.02, +-.1}^2`` and no episode ends early,
    so that a policy stands still at the goal for next to nothing. Deterministic.

    ==========  =============  =============================================
    token       column         quantity
    ==========  =============  =============================================
    place       private_a, b   position, within [-10, 10]
    place       last_reward    minus the distance after the last move
    place       progress       share of the moves gone
    ==========  =============  =============================================

    An action is described by its move in units of .1 (``private_a``, ``private_b``) and ``is_noop``. The reference goes
    to the goal; without knowing it no rule is published, and the heuristic stays.

    Args:
      num_periods: moves of an episode.
      discount_factor: gamma.

    Raises:
      ValueError: for fewer than 1 move.
    """

    name = "navigation"
    hidden: ClassVar[tuple[str, ...]] = ("goal",)
    reference_kind = "optimal"
    reward_unit = "distance"
    num_turns = 1
    num_tokens = 1
    num_uniforms = 0
    num_actions = len(STEPS) ** 2

    def __init__(self, num_periods: int = 100, discount_factor: float = 0.99):
        super().__init__()
        if num_periods < 1:
            raise refusal(self.name, "num_periods", "at least 1", str(num_periods))
        self.num_periods, self.discount_factor = num_periods, discount_factor
        self.moves = jnp.array(list(itertools.product(STEPS, STEPS)), jnp.float32)

    @property
    def default_params(self) -> PointParams:
        """A goal on the way up and to the right."""
        return PointParams(jnp.int32(self.horizon), jnp.array([0.3, 0.2], jnp.float32))

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> PointParams:
        """A uniform goal."""
        goal = REACH * (2.0 * self.task_uniforms(key, split, 2) - 1.0)
        return PointParams(jnp.int32(self.horizon), goal)

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: PointParams) -> PointState:
        """At 0."""
        del uniforms, params
        return PointState(**self.clock(key), position=jnp.zeros(2), move=jnp.zeros(2))

    def choose(self, state: PointState, turn: chex.Array, action: chex.Array, params: PointParams) -> PointState:
        """Which move."""
        del turn, params
        return state.replace(move=self.moves[action])

    def advance(
        self, state: PointState, uniforms: chex.Array, params: PointParams
    ) -> tuple[PointState, chex.Array, dict[str, chex.Array]]:
        """Moves, and pays the distance that is left."""
        del uniforms
        position = state.position + state.move
        reward = -jnp.linalg.norm(position - params.goal)
        return state.replace(position=position), reward, {"expected_reward": reward}

    def observation(self, state: PointState, params: PointParams) -> Observation:
        """One token: where the point is, and what the last step cost."""
        del params
        at = vocabulary.bounded(state.position)
        place = {
            "private_a": at[0],
            "private_b": at[1],
            "last_reward": vocabulary.bounded(state.last_reward),
            "is_turn": 1.0,
            "progress": self.progress(state),
        }
        still = (jnp.arange(self.num_actions) == self.noop_action).astype(jnp.float32)
        columns = {"private_a": self.moves[:, 0] / LARGEST, "private_b": self.moves[:, 1] / LARGEST, "is_noop": still}
        target = jnp.zeros(self.num_actions, jnp.int32)
        return make_observation([("place", 1, place)], columns, target, jnp.ones(self.num_actions, bool))

    def reference_action(self, plan: Any, state: PointState, params: PointParams, key: chex.PRNGKey) -> chex.Array:
        """The move that ends nearest to the goal: in each coordinate no sequence of moves is ever nearer."""
        after = state.position + self.moves - params.goal
        return jnp.argmin(jnp.sum(jnp.square(after), axis=-1)).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Stays."""
        return jnp.int32(self.noop_action)
