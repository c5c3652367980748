"""The contract of a learner: a value of pure functions, in the manner of ``optax.GradientTransformation``.

Nothing outside a learner's file knows how it works. What the harness has to play and record for it stands in
:class:`Needs`; who chooses, in its :class:`Actor`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import chex

from envs_jax.observation import Observation
from metarl_jax.configs import FrozenConfig
from metarl_jax.recording import Recorder
from metarl_jax.types import Support

TrainState = Any
Params = Any
Policy = Any
Carry = Any
Hyperparams = Any
Metrics = dict[str, chex.Array]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the training schedule. Static: each has an update program of its own.

    Attributes:
      name: what the learner calls it.
      inner_steps: whether adaptation takes gradient steps, in the update and in collecting for it. The harness reads
        no other word of a phase.
    """

    name: str
    inner_steps: bool = False


@dataclasses.dataclass(frozen=True)
class Exploration:
    """How a learner chooses while it collects.

    Attributes:
      epsilon: chance of a random legal choice.
      temperature: of sampling from its preferences; 0 is greedy.
    """

    epsilon: float = 0.0
    temperature: float = 0.0


@dataclasses.dataclass(frozen=True)
class Needs:
    """What the harness plays and records for a learner.

    Attributes:
      tasks: tasks a meta-iteration, of one domain.
      support_episodes: largest number of support episodes K that training gives; 0 collects no support to train.
      query_episodes: query episodes a task; with sequential order, trials a task.
      record: what is kept of an episode.
      support: "random" adapts to uniformly random choices, the same for all learners; "own" to the learner's own.
      order: "parallel" plays a task's episodes side by side; "sequential" plays the K support episodes and a query
        episode of each trial one after another and hands the carry on: support is then what the carry remembers.
      labels: whether query episodes record what the reference would have chosen.
      explore_support: how the learner chooses in its own support episodes.
      explore_query: how it chooses in the query episodes of training.
      frozen: with ``tasks`` above 0 the update takes a :class:`~metarl_jax.types.FrozenBatch` of the frozen data that
        this describes (:mod:`metarl_jax.dataset`) instead of a freshly collected :class:`~metarl_jax.types.MetaBatch`.
    """

    tasks: int
    support_episodes: int
    query_episodes: int
    record: Recorder
    support: Literal["random", "own"] = "random"
    order: Literal["parallel", "sequential"] = "parallel"
    labels: bool = False
    explore_support: Exploration = Exploration(epsilon=1.0)
    explore_query: Exploration = Exploration()
    frozen: FrozenConfig = FrozenConfig()

    def __post_init__(self) -> None:
        """Refuses needs that cannot be met together.

        Raises:
          ValueError: for a sequential order without own support.
        """
        if self.order == "sequential" and self.support != "own":
            raise ValueError(f"needs.support must be own where needs.order is sequential, got {self.support}")

    @property
    def episodes(self) -> int:
        """Episodes of a task that a meta-iteration plays."""
        if self.order == "sequential":
            return self.query_episodes * (self.support_episodes + 1)
        return self.query_episodes + self.support_episodes


class Actor(Protocol):
    """Who chooses: a frozen, hashable specification. Learners with equal actors share a domain's acting program."""

    def __hash__(self) -> int:
        """Equal actors have equal hashes."""

    def start(self, params: Params, policy: Policy) -> Carry:
        """The carry of one episode with which a trial of a task begins; ``()`` if nothing is remembered."""

    def act(
        self, params: Params, policy: Policy, carry: Carry, seen: Observation, key: chex.PRNGKey, mode: Any
    ) -> tuple[chex.Array, Carry]:
        """Choices ``i32[E]`` in E episodes of one task, and the next carry; ``mode``: epsilon and temperature."""


class LearnerError(RuntimeError):
    """A function of a learner raised; the message names both."""


@contextlib.contextmanager
def blamed_on(name: str, function: str) -> Iterator[None]:
    """Errors inside are the learner's: they are raised again with its name.

    Raises:
      LearnerError: for any exception inside.
    """
    try:
        yield
    except LearnerError:
        raise
    except Exception as error:
        raise LearnerError(f"learner {name}: {function} raised {type(error).__name__}: {error}") from error


def no_choice(params: Params) -> Mapping[str, Params]:
    """Candidates of a learner that leaves nothing to choose after training."""
    return {"as trained": params}


class Learner(NamedTuple):
    """What training and evaluation know of a learner.

    A learner does not know on which domains it is trained: all arrays have the padded shapes of its suite, so that one
    compiled program serves every choice of training domains.

    Attributes:
      name: what it is called, in messages too.
      spec: what tells it from other learners, hashable: equal specifications share compiled programs.
      init: ``(key, hyperparams) -> TrainState``.
      update: ``(state, batch, key, phase) -> (state, metrics)``, one meta-iteration; ``phase`` is static. What the
        batch is, ``needs.frozen`` says.
      schedule: ``progress in [0, 1) -> Phase``, on the host.
      params: ``state -> params`` needed to adapt and act.
      adapt: ``(params, support) -> policy``: one task's support in padded shapes to an adapted policy (any pytree).
        A support without transitions and trajectory is not to be followed by gradients.
      actor: who chooses.
      acting: ``params ->`` the part of them that the actor reads.
      needs: what is played and recorded.
      hyperparams: ``(iterations, labels) ->`` numeric hyperparameters, traced, so they can be vmapped: for a run of so
        many meta-iterations, with or without the reference's labels.
      candidates: ``params -> {label: params}``: variants among which validation on new tasks of the *training* domains
        chooses before any test. They differ in what ``adapt`` reads only.
    """

    name: str
    spec: Hashable
    init: Callable[[chex.PRNGKey, Hyperparams], TrainState]
    update: Callable[[TrainState, Any, chex.PRNGKey, Phase], tuple[TrainState, Metrics]]
    schedule: Callable[[float], Phase]
    params: Callable[[TrainState], Params]
    adapt: Callable[[Params, Support], Policy]
    actor: Actor
    acting: Callable[[Params], Any]
    needs: Needs
    hyperparams: Callable[[int, bool], Hyperparams]
    candidates: Callable[[Params], Mapping[str, Params]] = no_choice
