"""How much memory a run cannot do without, from its numbers alone, so that what cannot fit is refused at once.

A lower bound: arrays that are certainly held at the same time, plus what jax and the compiled programs were measured to
take. A run that passes may still need more; one that is refused could not have been carried out. Free of jax.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments.harness import machine
from experiments.harness.errors import UsageError

FLOAT, HALF = 4, 2
TOKEN_FEATURES, ACTION_FEATURES = 30, 7
"""Columns of a token and of an action's description (``envs_jax.observation``, which imports jax; a test compares)."""

OBSERVATION = 4 * TOKEN_FEATURES + 2 * ACTION_FEATURES
"""Floats of the smallest observation: four tokens, two actions."""

RESIDENT, RESIDENT_DOMAIN = 1.2 * 2**30, 0.1 * 2**30
"""Bytes of jax with its compiled programs, and more a domain. Measured at the peak of smoke runs on two cores: 2.6 GiB
with three domains; of the default run: 5.1 GiB with fifteen. Half of that is certain."""

ADDRESS_SPACE = 4.0 * 2**30
"""Bytes of address space that jax reserves, threads, libraries and compilers included; below, XLA ends the process by
``std::bad_alloc``, which nobody can catch."""


class Need(NamedTuple):
    """Bytes that a run needs at least.

    Attributes:
      state: parameters, target network and moments of all replicas, and their gradient.
      replay: support and query records that stay for the losses, frozen data included.
      evaluation: recorded support of all evaluation sets.
      returns: measured returns.
      programs: jax and compiled programs.
    """

    state: float
    replay: float
    evaluation: float
    returns: float
    programs: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def parameters(network: Any) -> float:
    """The fewest parameters that a network of this shape has: its large matrices."""
    width, head = float(network.width), float(network.head_width)
    block = (4.0 + 2.0 * network.expansion) * width * width
    return width * (TOKEN_FEATURES + network.slots) + network.layers * block + 3.0 * width * head


def estimate(config: Any, training_runs: int) -> Need:
    """Bytes that a run of this configuration needs at least.

    Args:
      config: an :class:`~experiments.harness.settings.ExperimentConfig`; an agent without ``network`` or ``data`` (of
        another learner) counts for nothing.
      training_runs: how many, whose returns are kept.
    """
    network, data = getattr(config.agent, "network", None), getattr(config.agent, "data", None)
    replicas, asked = config.replicas, config.evaluation
    state = 0.0 if network is None else 5.0 * replicas * parameters(network) * FLOAT
    replay = evaluation = 0.0
    if data is not None:
        learning = getattr(config.agent, "learning", None)
        samples, periods = getattr(learning, "samples", 0), getattr(data, "periods", 0)
        episode = (2.0 * samples * OBSERVATION + periods * TOKEN_FEATURES) * FLOAT
        replay = 2.0 * replicas * getattr(learning, "replay", 1) * data.tasks * data.episodes * episode
        frozen = getattr(config.agent, "frozen", None)
        if frozen is not None and frozen.tasks:
            # Half precision; shared by the replicas, but for what each meets in on-policy rounds.
            query = data.episodes * 2.0 * frozen.samples * OBSERVATION * HALF
            support = data.episodes * min(frozen.kept, periods) * 2.0 * TOKEN_FEATURES * HALF
            rounds = float(replicas) * frozen.rounds * frozen.round_tasks
            replay = len(config.domains) * (frozen.tasks * (query + support) + rounds * query)
        most = max(asked.support_episodes)
        evaluation = float(len(config.domains)) * asked.tasks * most * episode
    conditions = len(asked.support_episodes) + 2
    returns = float(training_runs) * replicas * conditions * asked.tasks * asked.episodes * FLOAT
    return Need(state, replay, evaluation, returns, RESIDENT + RESIDENT_DOMAIN * len(config.domains))


def _size(number: float) -> str:
    gib = number / 2**30
    return f"{gib:.1f} GiB" if gib < 1e4 else f"{gib:.0e} GiB"


def check(config: Any, training_runs: int) -> None:
    """Refuses a run that this machine cannot hold.

    Raises:
      UsageError: says how much is needed, what for, and how much there is.
    """
    need, limits = estimate(config, training_runs), machine.memory_limits()
    on_host = need.total - (need.state + need.replay if machine.has_accelerator() else 0.0)
    wanted = {"memory": on_host, "address space": max(ADDRESS_SPACE, need.total)}
    largest = max(zip(need, Need._fields, strict=True))[1]
    causes = {
        "state": "agent.network, seeds and arms",
        "replay": "agent.data, seeds and arms",
        "evaluation": "evaluation.tasks and evaluation.support_episodes",
        "returns": "evaluation.tasks, evaluation.episodes and seeds",
        "programs": "jax and the number of domains",
    }
    for what, there in limits.items():
        if wanted[what] > there:
            hint = "raise ulimit -v" if what == "address space" and need.total < ADDRESS_SPACE else causes[largest]
            raise UsageError(
                f"{what}: this run needs at least {_size(wanted[what])}, there are {_size(there)}; most of it is for "
                f"{causes[largest]}" + (f": {hint}" if hint != causes[largest] else "")
            )
