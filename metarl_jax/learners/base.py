"""The contract of a learner: a value of pure functions, in the manner of ``optax.GradientTransformation``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import chex

TrainState = Any
Metrics = dict[str, chex.Array]


def only_one(params: Any) -> Mapping[str, Any]:
    """Candidates of a learner that leaves nothing to choose after training."""
    return {"as trained": params}


class Learner(NamedTuple):
    """What training and evaluation know of a learner. Nothing outside its file knows how it works.

    One meta-iteration is ``update(state, collect(state, key), key, stage)``. The halves are separate because only
    ``collect`` depends on the domains: learners of the same configuration return the *same* ``update`` and ``adapt``
    functions for every subset of a suite, so their compiled programs are shared.

    Attributes:
      init: ``(key, hyper) -> TrainState``; ``hyper`` are the numeric hyperparameters, traced, so they can be vmapped.
      prepare: ``(state, experience) -> state``: called once, with a first collection, before the first update.
      collect: ``(state, key) -> experience``: roll-outs in the suite.
      update: ``(state, experience, key, stage) -> (state, metrics)``; ``stage`` is static.
      stage: ``progress in [0, 1) -> stage``, on the host: which program the next iteration runs.
      params: ``state -> params`` needed to adapt and act.
      adapt: ``(params, support) -> policy``: K support episodes of one task to an adapted policy (any pytree).
      act: ``(params, policy, observation, key, epsilon) -> i32``: one task's batch of observations; epsilon-greedy.
      support_epsilon: exploration with which the learner collects its own support episodes.
      hyper: default numeric hyperparameters.
      candidates: ``params -> {label: params}``: variants among which validation on new tasks of the *training* domains
        chooses before any test. They differ in what ``adapt`` reads only.
    """

    init: Callable[[chex.PRNGKey, Any], TrainState]
    prepare: Callable[[TrainState, Any], TrainState]
    collect: Callable[[TrainState, chex.PRNGKey], Any]
    update: Callable[[TrainState, Any, chex.PRNGKey, Any], tuple[TrainState, Metrics]]
    stage: Callable[[float], Hashable]
    params: Callable[[TrainState], Any]
    adapt: Callable[[Any, Any], Any]
    act: Callable[[Any, Any, Any, chex.PRNGKey, chex.Numeric], chex.Array]
    support_epsilon: float
    hyper: Any
    candidates: Callable[[Any], Mapping[str, Any]] = only_one
