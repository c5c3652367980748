"""Bernoulli bandits of independent arms (Duan 2016, RL2), and what the best possible policy earns in them."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.checks import refusal
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, make_observation


@struct.dataclass
class BanditState(EnvState):
    """``arm i32[]``: the one pulled in this step."""

    arm: chex.Array


@struct.dataclass
class BanditParams(EnvParams):
    """``probabilities f32[k]`` with which the arms pay 1, hidden."""

    probabilities: chex.Array


@struct.dataclass
class Beliefs:
    """What Thompson sampling remembers.

    Attributes:
      paid, failed: ``f32[k]`` pulls of each arm so far.
      arm: ``i32[]`` the one pulled last, -1 before the first pull.
    """

    paid: chex.Array
    failed: chex.Array
    arm: chex.Array


class BernoulliBandit(ResourceEnv[BanditState, BanditParams]):
    """An episode is a whole trial: n pulls of k arms that pay 1 with probabilities p ~ U(0, 1) each, independent.

    Noise: one uniform a pull, below p pays. The expected reward is p of the arm pulled. Gymnax's bandit has two
    dependent arms and is another task.

    ==========  =============  ===========================================
    token       column         quantity
    ==========  =============  ===========================================
    place       last_reward    of the pull before, 0 or 1
    place       private_a      1 before the first pull, else 0
    place       progress       share of the pulls gone
    ==========  =============  ===========================================

    An action is described by its arm, one-hot. The reference knows p; the heuristic is Thompson sampling.

    Args:
      pulls: n.
      arms: k.
      discount_factor: gamma.

    Raises:
      ValueError: for fewer than 1 pull or 2 arms.

    Example:
      >>> env = BernoulliBandit(10, 5)
      >>> (env.num_tokens, env.num_actions, env.num_periods, env.name)
      (1, 5, 10, 'bandit-10x5')
    """

    hidden: ClassVar[tuple[str, ...]] = ("probabilities",)
    reference_kind = "optimal"
    reward_unit = "payment"
    num_turns = 1
    num_tokens = 1
    num_uniforms = 1

    def __init__(self, pulls: int = 10, arms: int = 5, discount_factor: float = 0.99):
        super().__init__()
        self.name = f"bandit-{pulls}x{arms}"
        if pulls < 1:
            raise refusal(self.name, "pulls", "at least 1", str(pulls))
        if arms < 2:
            raise refusal(self.name, "arms", "at least 2", str(arms))
        self.num_periods, self.discount_factor = pulls, discount_factor
        self.num_actions = self.num_action_features = arms

    @property
    def default_params(self) -> BanditParams:
        """Arms in even steps, the last the best."""
        return BanditParams(jnp.int32(self.horizon), jnp.linspace(0.1, 0.9, self.num_actions))

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> BanditParams:
        """Independent uniform probabilities."""
        return BanditParams(jnp.int32(self.horizon), self.task_uniforms(key, split, self.num_actions))

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: BanditParams) -> BanditState:
        """Nothing was pulled."""
        del uniforms, params
        return BanditState(**self.clock(key), arm=jnp.int32(0))

    def choose(self, state: BanditState, turn: chex.Array, action: chex.Array, params: BanditParams) -> BanditState:
        """Which arm."""
        del turn, params
        return state.replace(arm=action)

    def advance(
        self, state: BanditState, uniforms: chex.Array, params: BanditParams
    ) -> tuple[BanditState, chex.Array, dict[str, chex.Array]]:
        """The arm pays or not."""
        probability = params.probabilities[state.arm]
        return state, (uniforms[0] < probability).astype(jnp.float32), {"expected_reward": probability}

    def observation(self, state: BanditState, params: BanditParams) -> Observation:
        """One token: what the last pull paid."""
        del params
        arms = self.num_actions
        store = {
            "last_reward": state.last_reward,
            "private_a": (state.time == 0).astype(jnp.float32),
            "is_turn": 1.0,
            "progress": self.progress(state),
        }
        place = jnp.zeros(arms, jnp.int32)
        seen = make_observation([("place", 1, store)], {}, place, jnp.ones(arms, bool))
        return seen.replace(actions=jnp.eye(arms))

    def reference_action(self, plan: Any, state: BanditState, params: BanditParams, key: chex.PRNGKey) -> chex.Array:
        """The arm that pays most often."""
        return jnp.argmax(params.probabilities).astype(jnp.int32)

    def heuristic_start(self) -> Beliefs:
        """Uniform beliefs."""
        none = jnp.zeros(self.num_actions)
        return Beliefs(none, none, jnp.int32(-1))

    def heuristic_step(
        self, memory: Beliefs, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, Beliefs]:
        """Thompson sampling: the arm whose draw from its Beta posterior is largest."""
        pulled = jax.nn.one_hot(memory.arm, self.num_actions)  # -1 is none
        reward = observation.column("last_reward")[0]
        paid, failed = memory.paid + pulled * reward, memory.failed + pulled * (1.0 - reward)
        arm = jnp.argmax(jax.random.beta(key, 1.0 + paid, 1.0 + failed)).astype(jnp.int32)
        return arm, Beliefs(paid, failed, arm)


def bayes_optimum(pulls: int, arms: int) -> float:
    """Largest expected payment of any policy that does not know p ~ U(0, 1), by dynamic programming over counts.

    ``V(c) = max_i [m_i (1 + V(c + paid_i)) + (1 - m_i) V(c + failed_i)]`` with ``m_i = (paid_i + 1) / (paid_i +
    failed_i + 2)``. Arms are exchangeable: a state is the sorted counts of the arms that were pulled. For a dozen
    pulls; the states grow beyond count with them.
    """

    @functools.cache
    def value(counts: tuple[tuple[int, int], ...]) -> float:
        if sum(map(sum, counts)) == pulls:
            return 0.0
        best = 0.0
        fresh = ((0, 0),) if len(counts) < arms else ()
        for paid, failed in set(counts + fresh):
            others = list(counts)
            if (paid, failed) != (0, 0):
                others.remove((paid, failed))
            after = [tuple(sorted([*others, own])) for own in ((paid + 1, failed), (paid, failed + 1))]
            chance = (paid + 1) / (paid + failed + 2)
            best = max(best, chance * (1.0 + value(after[0])) + (1.0 - chance) * value(after[1]))
        return best

    return value(())
