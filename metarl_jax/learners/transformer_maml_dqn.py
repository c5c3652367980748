"""Transformer + MAML + dueling Q: the learner this project is about.

A Transformer over entity tokens reads a context memory of the support episodes; a dueling head gives Q; the head (or
everything) is also adapted by a few differentiable gradient steps on the support's TD loss. Context memory infers the
hidden task inside domains that were trained on; the gradient is what can still move in a domain never seen.

Training is staged by cost: context alone, then first-order, then second-order inner steps.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from envs_jax.suite import Suite
from metarl_jax import adaptation, update_rules
from metarl_jax.configs import TransformerMamlDqnConfig
from metarl_jax.learners import q_learning
from metarl_jax.learners.base import Learner, Phase
from metarl_jax.learners.q_learning import CONTEXT, FIRST_ORDER, SECOND_ORDER, Recipe, Trained, read_support
from metarl_jax.networks.actor import Policy
from metarl_jax.networks.agent import Params
from metarl_jax.types import Support


def make(config: TransformerMamlDqnConfig, suite: Suite, name: str = "transformer_maml_dqn", **changed: Any) -> Learner:
    """Builds the learner for the training domains of ``suite``.

    Args:
      config: its configuration.
      suite: the training domains.
      name: that of a variant.
      **changed: what a variant has in its :class:`~metarl_jax.learners.q_learning.Recipe` instead.
    """
    inner = config.adaptation
    changed = {"frozen": config.frozen, **changed}
    recipe = Recipe(config.network, config.data, config.learning, inner.reward_weight, **changed)
    names = adaptation.adapted_names(inner.adapt)
    rule = adaptation.inner_rule(inner, config.network.width)

    def adapt(trained: Trained, support: Support, phase: Phase) -> Policy:
        params = trained["params"]
        own = {name: params[name] for name in names}
        policy = read_support(recipe, params, support, own)
        if not phase.inner_steps or inner.steps == 0:
            return policy
        head_only = names == ("head",)
        adapted = update_rules.descend(
            rule,
            trained["step_sizes"],
            recipe.loss.on(params, trained["target"], policy.memory, support, fixed_trunk=head_only),
            own,
            inner.steps,
            jnp.mean(policy.memory.summary, axis=0),
            second_order=phase == SECOND_ORDER,
            unroll=inner.unroll,
            checkpoint=not (inner.unroll or head_only),
        )
        return policy.replace(adapted=adapted)

    def schedule(progress: float) -> Phase:
        if config.order == "none" or progress < config.context_share:
            return CONTEXT
        if config.order == "first" or progress < config.context_share + config.first_order_share:
            return FIRST_ORDER
        return SECOND_ORDER

    def step_sizes(params: Params) -> Any:
        # Gates and learned rules begin as plain steps; that hidden layers are the same for every seed is no loss.
        return rule.learnable(jax.random.key(0), {name: params[name] for name in names}, inner.steps)

    return q_learning.make_learner(
        name,
        config,
        suite,
        recipe,
        step_sizes=step_sizes,
        adapt=adapt,
        schedule=schedule,
        # At test time nothing is differentiated through the inner steps: first order is the same steps, cheaper.
        test_phase=CONTEXT if config.order == "none" else FIRST_ORDER,
    )
