"""Transformer + MAML + dueling Q: the learner this project is about.

A Transformer over entity tokens reads a context memory of the support episodes; a dueling head gives Q; the head (or
everything) is also adapted by a few differentiable gradient steps on the support's TD loss. Context memory infers the
hidden task inside domains that were trained on; the gradient is what can still move in a domain never seen.

Training is staged by cost: context alone, then first-order, then second-order inner steps.
"""

from __future__ import annotations

import jax.numpy as jnp

from envs_jax.suite import Suite
from metarl_jax.configs import TransformerMamlDqnConfig
from metarl_jax.learners.base import Learner
from metarl_jax.learners.q_learning import Hyper, Stage, make_learner


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
