"""The contract of a learner: a value of pure functions, in the manner of ``optax.GradientTransformation``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import chex

from metarl_jax.configs import QLearningConfig

TrainState = Any
Metrics = dict[str, chex.Array]


def only_one(params: Any) -> Mapping[str, Any]:
    """Candidates of a learner that leaves nothing to choose after training."""
    return {"as trained": params}


class Learner(NamedTuple):
    """What training and evaluation know of a learner. Nothing outside its file knows how it works.

    A learner does not know on which domains it is trained: all arrays have the padded shapes of its suite, so that one
    compiled program serves every choice of training domains. One meta-iteration is an ``update`` on an
    :class:`~metarl_jax.experience.Experience` that :mod:`metarl_jax.training` has collected in one of them.

    Attributes:
      init: ``(key, hyper) -> TrainState``; ``hyper`` are the numeric hyperparameters, traced, so they can be vmapped.
      update: ``(state, experience, key, stage) -> (state, metrics)``; ``stage`` is static.
      stage: ``progress in [0, 1) -> stage``, on the host: which program the next iteration runs. Those of stage
        "none" train without inner steps, and so collect without.
      params: ``state -> params`` needed to adapt and act.
      adapt: ``(params, support, inner bool[]) -> policy``: K support episodes of one task to an adapted policy (any
        pytree), with or without inner steps.
      shared: ``params ->`` the part of them that acting reads, whatever it has adapted to.
      act: ``(shared, policy, observation, key, epsilon) -> i32``: one task's batch of observations; epsilon-greedy.
      data: what is collected.
      hyper: default numeric hyperparameters.
      candidates: ``params -> {label: params}``: variants among which validation on new tasks of the *training* domains
        chooses before any test. They differ in what ``adapt`` reads only.
    """

    init: Callable[[chex.PRNGKey, Any], TrainState]
    update: Callable[[TrainState, Any, chex.PRNGKey, Any], tuple[TrainState, Metrics]]
    stage: Callable[[float], Hashable]
    params: Callable[[TrainState], Any]
    adapt: Callable[[Any, Any, chex.Array], Any]
    shared: Callable[[Any], Any]
    act: Callable[[Any, Any, Any, chex.PRNGKey, chex.Numeric], chex.Array]
    data: QLearningConfig
    hyper: Any
    candidates: Callable[[Any], Mapping[str, Any]] = only_one
