"""Double DQN (van Hasselt 2016) with a dueling head (Wang 2016): multitask, no memory; adapts by fine-tuning.

    y      = R + gamma^n Q^-(s', argmax_a Q(s', a))
    Q(s,a) = V(s) + A(s, a) - mean over legal b of A(s, b)
    loss   = (Q(s, a) - y)^2 / 2

In a new task it takes plain gradient steps of this loss on the support, how many, how large and on which parameters by
validation on training domains. From ``transformer_dqn`` it differs in that its loss is this and nothing else: rewards
are not predicted. Both are here, because the control of an experiment must have its meta-learner's loss, and a baseline
its paper's.

Differs from the papers: entities are read by the network that all learners here share, not by convolutions, and its
gradient is not rescaled where value and advantage part; the target network is a Polyak average; replay is of tasks;
returns are of n periods (``learning.num_steps``; 1 in the papers); errors are not clipped, because rewards are
normalised to a deviation of 0.2; the reference's labels, in the arm that has any, add the cross-entropy that all
Q-learners here have.
"""

from __future__ import annotations

from envs_jax.suite import Suite
from metarl_jax.configs import DoubleDuelingDqnConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner
from metarl_jax.learners.q_learning import Recipe


def make(config: DoubleDuelingDqnConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    recipe = Recipe(config.network, config.data, config.learning, 0.0, use_memory=False, frozen=config.frozen)
    return q_learning.make_multitask("double_dueling_dqn", config, suite, recipe)
