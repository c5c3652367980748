"""Multitask Transformer DQN: no memory, no meta-learning; adapts by fine-tuning.

The control for every claim of few-shot adaptation: same network but for the memory, same episodes, same number of
gradient steps, trained on all tasks at once. In a new task it takes plain gradient steps on the same support
transitions, as many as the meta-learner's inner loop. The meta-learner learns its step sizes; this one gets the best of
a few, chosen on validation tasks of its training domains.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from envs_jax.suite import Suite
from metarl_jax.configs import TransformerDqnConfig
from metarl_jax.learners.base import Learner
from metarl_jax.learners.q_learning import Hyper, make_learner


def make(config: TransformerDqnConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    hyper = Hyper(jnp.float32(config.learning_rate), jnp.float32(config.reference_weight), jnp.float32(1.0))

    def candidates(params: dict[str, Any]) -> dict[str, Any]:
        def with_size(size: float) -> dict[str, Any]:
            return {
                **params,
                "step_sizes": jax.tree.map(lambda x: jnp.full_like(x, jnp.log(size)), params["step_sizes"]),
            }

        return {f"step size {size:g}": with_size(size) for size in config.step_sizes}

    learner = make_learner(
        suite,
        config.network,
        config.data,
        config.adaptation,
        hyper,
        use_memory=False,
        stage=lambda progress: "none",
        test_order="first",
    )
    return learner._replace(candidates=candidates)
