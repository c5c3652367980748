"""Multitask Transformer DQN: no memory, no meta-learning; adapts by fine-tuning.

The control for every claim of few-shot adaptation: same network but for the memory, same episodes, trained on all tasks
at once. In a new task it takes plain gradient steps on the same support transitions. The meta-learner learns its step
sizes; this one gets the best of several step sizes, numbers of steps and sets of parameters, chosen on validation tasks
of its training domains.
"""

from __future__ import annotations

from typing import Any

from envs_jax.suite import Suite
from metarl_jax import adaptation
from metarl_jax.configs import TransformerDqnConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner, Phase
from metarl_jax.learners.q_learning import CONTEXT, FIRST_ORDER, Recipe, Trained, read_support
from metarl_jax.networks.actor import Policy
from metarl_jax.types import Support


def make(config: TransformerDqnConfig, suite: Suite) -> Learner:
    """Builds the learner for the training domains of ``suite``."""
    parts = (config.network, config.data, config.learning, config.adaptation.reward_weight)
    recipe = Recipe(*parts, use_memory=False, frozen=config.frozen)

    def adapt(trained: Trained, support: Support, phase: Phase) -> Policy:
        params = trained["params"]
        tuned = trained["step_sizes"]  # as chosen by validation; while training there are none
        own = {name: params[name] for name in tuned or ("head",)}
        policy = read_support(recipe, params, support, own)
        if not (phase.inner_steps and tuned):
            return policy
        loss = recipe.loss.on(params, trained["target"], policy.memory, support, fixed_trunk="trunk" not in own)
        return policy.replace(adapted=adaptation.fine_tune(loss, own, tuned["head"]["size"], tuned["head"]["steps"]))

    def candidates(params: dict[str, Any]) -> dict[str, Any]:
        ways = adaptation.tuning_candidates(config.fine_tuning, params["params"])
        return {label: {**params, "step_sizes": way} for label, way in ways.items()}

    learner = q_learning.make_learner(
        "transformer_dqn",
        config,
        suite,
        recipe,
        step_sizes=lambda params: {},
        adapt=adapt,
        schedule=lambda progress: CONTEXT,
        test_phase=FIRST_ORDER,
    )
    return learner._replace(candidates=candidates)
