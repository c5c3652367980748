"""DQN (Mnih 2015): multitask, no memory, no meta-learning; adapts by fine-tuning.

    y    = R + gamma^n max_a Q^-(s', a)
    loss = (Q(s, a) - y)^2 / 2

The head is plain: ``Q = V + A``, one output of each action with a part that all share and without the dueling head's
mean. Its greedy choice is that of the dueling head with the same parameters, so it acts by the program that all
learners on the shared network act by. In a new task it takes plain gradient steps of this loss on the support; how
many, how large and on which parameters is chosen by validation on training domains.

Differs from the paper as ``double_dueling_dqn`` does from its: the shared network instead of convolutions, a Polyak
average as the target network, replay of tasks, returns of n periods, no clipping of errors, the labels' cross-entropy
in the arm that has labels.
"""

from __future__ import annotations

from envs_jax.suite import Suite
from metarl_jax.configs import DqnConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner
from metarl_jax.learners.q_learning import Recipe
from metarl_jax.losses import value


def make(config: DqnConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    recipe = Recipe(
        *(config.network, config.data, config.learning, 0.0),
        use_memory=False,
        dueling=False,
        td_target=value.max_q_target,
        frozen=config.frozen,
    )
    return q_learning.make_multitask("dqn", config, suite, recipe)
