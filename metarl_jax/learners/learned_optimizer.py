"""Learned optimizer: MAML whose inner steps are computed by a small network for every parameter.

    phi_{k+1} = phi_k - size exp(a) (b + g_k / rms),    (a, b) = MLP(features of g, momenta, second moment, phi, c, k)

The network (:mod:`metarl_jax.update_rules`, rule "learned") starts with zero outputs, so that the first inner loop is
normalised descent of step size ``adaptation.step_size``; it, its size and theta are trained together by the outer loss.
Context c is the mean summary of the task's memory.

Sources: Andrychowicz 2016 (learning to learn by gradient descent), Metz 2020 (an MLP for every parameter, features
normalised, small outputs at the start). Differs: it unrolls as few steps as the inner loop has, its start theta is
meta-learned too, three momenta and one second moment instead of six and factored ones, and it knows the task's memory.
"""

from __future__ import annotations

from envs_jax.suite import Suite
from metarl_jax.configs import LearnedOptimizerConfig
from metarl_jax.learners import transformer_maml_dqn
from metarl_jax.learners.base import Learner


def make(config: LearnedOptimizerConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``; its configuration fixes the rule."""
    return transformer_maml_dqn.make(config, suite, name="learned_optimizer")
