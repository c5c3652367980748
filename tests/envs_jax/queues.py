"""A domain whose columns mean what they should, small enough to be solved by an exchange argument."""

from __future__ import annotations

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, make_observation


@struct.dataclass
class QueuesState(EnvState):
    """``queue f32[2]`` jobs; ``served i32[]`` the queue that is served in this period, 2 for none."""

    queue: chex.Array
    served: chex.Array


@struct.dataclass
class QueuesParams(EnvParams):
    """``price f32[2]`` of a job that waits for a period, shown; ``rate f32[]`` arrivals a period of each, hidden."""

    price: chex.Array
    rate: chex.Array


class Queues(ResourceEnv[QueuesState, QueuesParams]):
    """Two queues, one server: a job a period. The dearer queue first is optimal, by an interchange of two jobs.

    ====== =========== =================================
    token  column      quantity
    ====== =========== =================================
    queue  urgency     jobs times their price
    queue  slack       1 / (1 + jobs)
    queue  level       jobs [16]
    queue  waiting     jobs [8]
    server capacity    1 job a period
    server is_turn     1
    all    progress    share of the episode gone
    all    last_reward reward of the last period [10]
    ====== =========== =================================

    Roles: queue ``demand``, server ``carrier``. Action 1 + i serves queue i, which it relieves.
    """

    name = "queues"
    hidden = ("rate",)
    reference_kind = "optimal"
    num_turns, num_tokens, num_actions, num_uniforms, num_reset_uniforms = 1, 3, 3, 2, 2

    def __init__(self, num_periods: int = 16) -> None:
        self.num_periods = num_periods

    @property
    def default_params(self) -> QueuesParams:
        return QueuesParams(jnp.int32(self.horizon), jnp.ones((2,), jnp.float32), jnp.float32(0.4))

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> QueuesParams:
        u = self.task_uniforms(key, split, 3)
        return self.default_params.replace(price=0.5 + u[:2], rate=0.3 + 0.2 * u[2])

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: QueuesParams) -> QueuesState:
        queue = sampling.integers(uniforms, 0, 4).astype(jnp.float32)
        return QueuesState(**self.clock(key), queue=queue, served=jnp.int32(2))

    def choose(self, state: QueuesState, turn: chex.Array, action: chex.Array, params: QueuesParams) -> QueuesState:
        return state.replace(served=jnp.where(action == 0, 2, action - 1).astype(jnp.int32))

    def advance(
        self, state: QueuesState, uniforms: chex.Array, params: QueuesParams
    ) -> tuple[QueuesState, chex.Array, dict[str, chex.Array]]:
        left = state.queue - (jnp.arange(2, dtype=jnp.int32) == state.served).astype(jnp.float32)
        queue = left + (uniforms < params.rate).astype(jnp.float32)
        expected = -jnp.sum(params.price * (left + params.rate))
        return state.replace(queue=queue), -jnp.sum(params.price * queue), {"expected_reward": expected}

    def observation(self, state: QueuesState, params: QueuesParams) -> Observation:
        jobs, reward = state.queue, 0.1 * jnp.maximum(state.last_reward, -100.0)
        everywhere = {"progress": self.progress(state), "last_reward": reward}
        queue = {
            "urgency": params.price * jobs,
            "slack": 1.0 / (1.0 + jobs),
            "level": jobs / 16.0,
            "waiting": jobs / 8.0,
        }
        action = jnp.arange(3, dtype=jnp.int32)
        acts = (action > 0).astype(jnp.float32)
        return make_observation(
            tokens=[("demand", 2, queue | everywhere), ("carrier", 1, {"capacity": 1.0, "is_turn": 1.0} | everywhere)],
            actions={"is_noop": action == 0, "amount": acts, "signed": acts},
            action_target=action - 1,
            action_mask=jnp.concatenate([jnp.ones((1,), bool), jobs > 0]),
        )

    def reference_action(self, plan: tuple[()], state: QueuesState, params: QueuesParams, key: chex.PRNGKey):
        worth = jnp.append(jnp.float32(0.0), jnp.where(state.queue > 0, params.price, -1.0))
        return jnp.argmax(worth).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """The longer queue."""
        waiting = observation.column("waiting")[:2]
        return jnp.where(jnp.max(waiting) > 0, 1 + jnp.argmax(waiting), 0).astype(jnp.int32)
