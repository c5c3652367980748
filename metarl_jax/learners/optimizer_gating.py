"""Optimizer gating: MAML whose inner steps a learned gate opens and closes, parameter by parameter.

    phi_{k+1} = phi_k - 2 sigma(G(c, phi_k, g_k, m_k, k)) * alpha_{leaf,k} g_k,    g_k = grad of the support's loss

G is one small network for every element (:mod:`metarl_jax.update_rules`, rule "gated"), whose context c is the mean
summary of the task's memory; its last layer starts at zeros, so that every gate is .5 and, with the doubled step, the
first inner loop is that of ``transformer_maml_dqn`` bit by bit. Gate, step sizes and theta are trained together by the
outer loss.

Sources: the optimizer gating of this project's seed document. Near: ALFA (Baik 2020) generates a factor and a decay
for every leaf and step from the leaf's mean parameter and gradient; sparse-MAML (von Oswald 2021) learns a 0/1 mask of
elements that knows neither task nor gradient. Differs from ALFA: elementwise, knows the task's memory, no decay of
theta; from sparse-MAML: a soft gate that depends on the task and the gradient, no straight-through estimator.
"""

from __future__ import annotations

from envs_jax.suite import Suite
from metarl_jax.configs import OptimizerGatingConfig
from metarl_jax.learners import transformer_maml_dqn
from metarl_jax.learners.base import Learner


def make(config: OptimizerGatingConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``; its configuration fixes the rule."""
    return transformer_maml_dqn.make(config, suite, name="optimizer_gating")
