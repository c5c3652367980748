"""Transformer + MAML + dueling Q: the learner this project is about.

A Transformer over entity tokens reads a context memory of the support episodes; a dueling head gives Q; the head (or
everything) is also adapted by a few differentiable gradient steps on the support's TD loss. Context memory infers the
hidden task inside domains that were trained on; the gradient is what can still move in a domain never seen.

Training is staged by cost: context alone, then first-order, then second-order inner steps.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from envs_jax.suite import Suite
from metarl_jax.adaptation import AdaptationConfig
from metarl_jax.learners.base import Learner
from metarl_jax.learners.q_learning import Hyper, QLearningConfig, Stage, make_learner
from metarl_jax.networks.agent import NetworkConfig


@dataclasses.dataclass(frozen=True)
class TransformerMamlDqnConfig:
    """Configuration.

    Attributes:
      network: shape of the network.
      data: data and optimisation.
      adaptation: the inner loop.
      order: highest derivative order of the meta-gradient: "none" (context only), "first" or "second".
      context_share: share of the meta-iterations without inner steps.
      first_order_share: share with first-order inner steps; the rest is of the highest order.
      learning_rate: peak outer rate.
      reference_weight: weight of the cross-entropy to the reference action; 0 is the RL-only arm.
    """

    network: NetworkConfig = NetworkConfig()
    data: QLearningConfig = QLearningConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    order: Stage = "second"
    context_share: float = 0.8
    first_order_share: float = 0.1
    learning_rate: float = 2e-3
    reference_weight: float = 0.2

    def __post_init__(self) -> None:
        """Refuses shares that do not add up."""
        if not (self.context_share >= 0 and self.first_order_share >= 0):
            raise ValueError("context_share and first_order_share must not be negative")
        if self.context_share + self.first_order_share > 1:
            total = self.context_share + self.first_order_share
            raise ValueError(f"context_share + first_order_share must be at most 1, got {total}")


def make(config: TransformerMamlDqnConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""

    def stage(progress: float) -> Stage:
        if config.order == "none" or progress < config.context_share:
            return "none"
        if config.order == "first" or progress < config.context_share + config.first_order_share:
            return "first"
        return "second"

    hyper = Hyper(jnp.float32(config.learning_rate), jnp.float32(config.reference_weight), jnp.float32(1.0))
    return make_learner(
        suite,
        config.network,
        config.data,
        config.adaptation,
        hyper,
        use_memory=True,
        stage=stage,
        # At test time nothing is differentiated through the inner steps: first order is the same steps, cheaper.
        test_order="none" if config.order == "none" else "first",
    )
