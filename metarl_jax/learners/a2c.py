"""Advantage actor-critic: synchronous A3C (Mnih 2016); multitask, no memory, no meta-learning; adapts by fine-tuning.

Every meta-iteration collects episodes of fresh tasks with the policy's own choices and takes one pass of gradient steps
over them on

    -log pi(a_t | s_t) A_t + .5 (R_t - V(s_t))^2 - .01 H(pi(. | s_t)),    A_t = R_t - V(s_t),

where ``R_t`` is what is paid up to the end of the window of n periods that t lies in, and the value of the state that
follows it. ``trace`` below 1 makes ``A_t`` a generalised advantage within the window; ``num_steps`` 0 takes the whole
episode for it. Advantages are not normalised and probabilities are not clipped: both are what sets PPO apart.

Settings are those of the reference implementation of the synchronous variant (Kostrikov 2018): windows of 5, RMSprop
with rate 7e-4, decay .99 and epsilon 1e-5 outside the root, gradient norm .5. The rate decays to 0 linearly, as in the
paper.

Differs from the paper: nobody works asynchronously. Its workers push gradients that were computed on parameters some
updates old; here the gradient steps of a meta-iteration take disjoint parts of what was collected before the first of
them, which is as stale (``ratio_error`` says how stale) and can be repeated. One minibatch is strictly on-policy. Actor
and critic share the Transformer and the head (see ``losses/policy.py``); windows are of periods, not of the turns of
one; rewards are normalised by the domain's scale.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import chex
import optax

from envs_jax.suite import Suite
from metarl_jax.checks import check_fields, number, whole
from metarl_jax.configs import DataConfig, FineTuningConfig, NetworkConfig
from metarl_jax.learners import actor_critic
from metarl_jax.learners.actor_critic import Items
from metarl_jax.learners.base import Learner, Metrics
from metarl_jax.losses import policy


@dataclasses.dataclass(frozen=True)
class A2cConfig:
    """Configuration of ``a2c``.

    Attributes:
      network: shape of the network.
      data: what is collected.
      fine_tuning: how it adapts, to choose from by validation on training domains.
      learning_rate: of RMSprop at the start; it decays to 0 linearly.
      minibatches: gradient steps of a meta-iteration, each on other choices; 1 is strictly on-policy.
      num_steps: n, periods of a window; 0 for the whole episode.
      trace: lambda of the generalised advantage estimate within a window, between periods; 1 for none.
      value_weight: weight of the value loss.
      entropy_weight: weight of the entropy bonus.
      max_grad_norm: global-norm clip of the gradient.
    """

    labels: ClassVar[bool] = False

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    learning_rate: float = number(7e-4, 0.0, 1e3, open_low=True)
    minibatches: int = whole(16, 1, 65536)
    num_steps: int = whole(5, 0, 65536)
    trace: float = number(1.0, 0.0, 1.0)
    value_weight: float = number(0.5, 0.0, 1e6)
    entropy_weight: float = number(0.01, 0.0, 1e6)
    max_grad_norm: float = number(0.5, 0.0, 1e6, open_low=True)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self)


def make(config: A2cConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""

    def loss(q: chex.Array, items: Items) -> tuple[chex.Array, Metrics]:
        trajectory = items.trajectory
        return policy.advantage_actor_critic(
            q,
            trajectory.observation.action_mask,
            trajectory.action,
            trajectory.valid,
            items.targets,
            value_weight=config.value_weight,
            entropy_weight=config.entropy_weight,
        )

    return actor_critic.make_memoryless(
        "a2c",
        config,
        suite,
        loss=loss,
        trace=lambda trajectory: policy.cut_trace(trajectory, config.trace, config.num_steps),
        epochs=1,
        scaling=optax.scale_by_rms(decay=0.99, eps=1e-5, eps_in_sqrt=False),
    )
