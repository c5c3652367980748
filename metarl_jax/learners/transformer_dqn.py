"""Multitask Transformer DQN: no memory, no meta-learning; adapts by fine-tuning.

The control for every claim of few-shot adaptation: same network but for the memory, same episodes, trained on all tasks
at once. In a new task it takes plain gradient steps on the same support transitions. The meta-learner learns its step
sizes; this one gets the best of several step sizes, numbers of steps and sets of parameters, chosen on validation tasks
of its training domains. Its loss is that of the meta-learner, reward-prediction error included.
"""

from __future__ import annotations

from envs_jax.suite import Suite
from metarl_jax.configs import TransformerDqnConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner
from metarl_jax.learners.q_learning import Recipe


def make(config: TransformerDqnConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    parts = (config.network, config.data, config.learning, config.adaptation.reward_weight)
    return q_learning.make_multitask(
        "transformer_dqn", config, suite, Recipe(*parts, use_memory=False, frozen=config.frozen)
    )
