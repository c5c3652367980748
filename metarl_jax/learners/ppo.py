"""Proximal policy optimisation (Schulman 2017): multitask, no memory, no meta-learning; adapts by fine-tuning.

Every meta-iteration collects episodes of fresh tasks with the policy's own choices, recomputes their probabilities and
values, and takes a few epochs of clipped surrogate steps on minibatches of choices. In a new task it plays the support
episodes itself and takes plain gradient steps of the same loss on them; step size, number of steps and which parameters
move are chosen on validation tasks of its training domains.

Differs from the paper: actor and critic share the Transformer and the head (see ``losses/policy.py``); advantages
accumulate between periods, not between the turns of one; rewards are normalised by the domain's scale.
"""

from __future__ import annotations

from envs_jax.suite import Suite
from metarl_jax.configs import PpoConfig
from metarl_jax.learners import actor_critic
from metarl_jax.learners.base import Learner


def make(config: PpoConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    return actor_critic.make_memoryless(
        "ppo",
        config,
        suite,
        loss=lambda q, items: actor_critic.surrogate(q, items, config),
        trace=lambda trajectory: config.trace,
        epochs=config.epochs,
    )
