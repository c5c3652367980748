"""Decision-pretrained Transformer (DPT, Lee 2023): imitation of the reference, given random support, and nothing else.

    loss = -log softmax(Q(s, . | D) / temperature)[a*],    D: support of random choices in the same task

with the action a* that the reference, which knows the task, would have chosen in a query state s. There is no TD error
and no inner step: whatever it makes of rewards, it makes in context. The paper shows that the minimiser samples from
the posterior of the best action; here the most likely one is taken. It is trained as the context memory of
``transformer_maml_dqn`` is in the arm with labels, but without the TD error: what that is worth is their difference.

Without labels there is nothing to learn: the arm without them is refused.

Differs from the paper: the support is pooled into the context memory, constant in size, instead of being read by a
causal Transformer in order; query states come from a mixture of behaviours and from rounds of its own play (DAgger),
as for all who learn from frozen data, not from a uniform distribution.
"""

from __future__ import annotations

from typing import Any

from envs_jax.suite import Suite
from metarl_jax.configs import DecisionPretrainedConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner
from metarl_jax.learners.q_learning import Recipe


def make(config: DecisionPretrainedConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    recipe = Recipe(config.network, config.data, config.learning, 0.0, td=False, frozen=config.frozen)
    learner = q_learning.make_context("decision_pretrained", config, suite, recipe)

    def hyperparams(iterations: int, labels: bool) -> Any:
        if not labels:
            raise ValueError("learner decision_pretrained learns from labels alone: labels must be True, got False")
        return learner.hyperparams(iterations, labels)

    return learner._replace(hyperparams=hyperparams)
