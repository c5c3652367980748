"""What an experiment may be asked to do: frozen dataclasses in three layers, and presets.

Agent (``metarl_jax.configs``), training and evaluation each have their own; an experiment's configuration holds one of
each. Nothing here imports jax or a domain, so that help and refusals come at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import pathlib
import runpy
from collections.abc import Sequence
from typing import Any, Literal, get_args

from metarl_jax.configs import AdaptationConfig, NetworkConfig, QLearningConfig, TransformerMamlDqnConfig

Protocol = Literal["both", "pairs", "leave-out"]
Arm = Literal["reference", "rl-only"]


def _names() -> dict[str, Any]:
    """The registry, read without loading the package (which loads jax and gymnax)."""
    spec = importlib.util.find_spec("envs_jax")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("envs_jax is not installed")
    return runpy.run_path(str(pathlib.Path(spec.origin).parent / "domains" / "names.py"))


def domain_names() -> tuple[str, ...]:
    """Names of all domains."""
    return tuple(_names()["DOMAINS"])


def standard_domains() -> tuple[str, ...]:
    """Names of the suite's domains: all but the extras, which take part only if named."""
    names = _names()
    return tuple(name for name in names["DOMAINS"] if name not in names["EXTRAS"])


def unknown(what: str, name: object, allowed: Sequence[str]) -> str:
    """One line that refuses a name, says what is allowed and, if one is near, what was probably meant."""
    near = difflib.get_close_matches(str(name), allowed, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown {what} {name!r}{hint}; allowed: {', '.join(allowed)}"


def _at_least(owner: object, minimum: int, *fields: str, prefix: str = "") -> None:
    for field in fields:
        if getattr(owner, field) < minimum:
            raise ValueError(f"{prefix}{field} must be at least {minimum}, got {getattr(owner, field)}")


def _different(field: str, values: Sequence[object]) -> None:
    if not values:
        raise ValueError(f"{field} must not be empty")
    if len(set(values)) != len(values):
        raise ValueError(f"{field} must not repeat a value, got {' '.join(map(str, values))}")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long agents train, and how often the host looks.

    Attributes:
      iterations: meta-iterations of each agent.
      interval: meta-iterations between two looks of the host (progress, metrics, asking whether to stop).
      checkpoint_every: intervals between two checkpoints; a run that is killed repeats at most these.
    """

    iterations: int = 200
    interval: int = 10
    checkpoint_every: int = 2

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        _at_least(self, 1, "iterations", "interval", "checkpoint_every", prefix="training.")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The evaluation set of every domain; it does not depend on the seed.

    Attributes:
      shots: numbers K of support episodes an agent adapts from; 0 must be among them, it is the control of all others.
      tasks: new tasks of each domain.
      episodes: query episodes of each task.
    """

    shots: tuple[int, ...] = (0, 1, 3, 5)
    tasks: int = 64
    episodes: int = 8

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        _different("evaluation.shots", self.shots)
        if min(self.shots) != 0 or max(self.shots) == 0:
            asked = " ".join(map(str, self.shots))
            raise ValueError(f"evaluation.shots must be 0 and at least one larger K, none negative, got {asked}")
        _at_least(self, 1, "episodes", prefix="evaluation.")
        # Below two there is no other task whose support could be swapped in.
        _at_least(self, 2, "tasks", prefix="evaluation.")


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Which agents are trained, and on which domains each is tested.

    Attributes:
      protocol: "pairs" trains an agent on each domain and tests it on new tasks of every domain; "leave-out" trains on
        all domains but some and tests on those; "both" does both.
      groups: domains are left out in so many groups, one at a time, or in as many as there are domains; 0 leaves out
        each alone (leave-one-out).
      domains: the domains, as sources and as targets; if not given, all but the registry's extras.
      seeds: independent training runs of every agent, the unit of evidence.
      seed: which training runs; the evaluation tasks are the same for all.
      arms: "reference" adds the cross-entropy to the reference policy's action to the outer loss; "rl-only" learns from
        reward alone. Each is trained with all seeds.
      agent: the learner. The multitask control takes its network, data and adaptation from here too.
      training: how long.
      evaluation: on what.
      results: folder of all runs; this one gets ``<results>/transfer/<name>``.
      name: of the run; empty takes the protocol and the time.
      cache_dir: where compiled programs are kept between runs; default: JAX_COMPILATION_CACHE_DIR, else the user's
        cache folder.
    """

    protocol: Protocol = "both"
    groups: int = 0
    domains: tuple[str, ...] = dataclasses.field(default_factory=standard_domains)
    seeds: int = 3
    seed: int = 0
    arms: tuple[Arm, ...] = ("reference", "rl-only")
    agent: TransformerMamlDqnConfig = TransformerMamlDqnConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    results: pathlib.Path = pathlib.Path("results")
    name: str = ""
    cache_dir: pathlib.Path | None = None

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, by name, before anything is compiled."""
        if self.protocol not in get_args(Protocol):
            raise ValueError(unknown("protocol", self.protocol, get_args(Protocol)))
        _different("domains", self.domains)
        known = domain_names()
        for domain in self.domains:
            if domain not in known:
                raise ValueError(f"domains: {unknown('domain', domain, known)}")
        if self.protocol != "pairs":
            if len(self.domains) < 2:
                only = f"got {', '.join(self.domains)}; or give --protocol pairs"
                raise ValueError(f"domains: protocol {self.protocol} needs at least 2 domains, {only}")
            if self.groups != 0 and self.groups < 2:
                raise ValueError(f"groups must be 0 or at least 2, got {self.groups}")
        _at_least(self, 1, "seeds")
        _at_least(self, 0, "seed")
        _different("arms", self.arms)
        for arm in self.arms:
            if arm not in get_args(Arm):
                raise ValueError(f"arms: {unknown('arm', arm, get_args(Arm))}")
        if "reference" in self.arms and not self.agent.reference_weight > 0:
            raise ValueError(
                f"agent.reference_weight must be above 0 for arm reference, got {self.agent.reference_weight}; "
                "or give --arms rl-only"
            )
        if self.name in (".", "..") or pathlib.PurePath(self.name).name != self.name:
            raise ValueError(f"name must be one folder's name without slashes, got {self.name!r}")


SMALL = ("energy_trading", "portfolio", "supply_chain")
"""Domains of the small presets: cheap, references exact but for rounding. ``--domains`` takes others."""

_ON_CPU = TransformerMamlDqnConfig(
    network=NetworkConfig(layers=1),
    data=QLearningConfig(tasks=8, replay=4),
    # Compiling a first-order stage of its own would take longer than it would save.
    context_share=0.93,
    first_order_share=0.0,
    learning_rate=3e-3,
)

CPU = TransferConfig(
    groups=5,
    seeds=2,
    arms=("reference",),
    agent=_ON_CPU,
    training=TrainingConfig(iterations=50, interval=2, checkpoint_every=13),
    # As many query episodes as support episodes: training's programs then serve the tests.
    evaluation=EvaluationConfig(shots=(0, 3, 5), tasks=16, episodes=5),
)
"""All standard domains on two cores in half an hour: one arm, two seeds, a small network, five groups left out."""

THREE = dataclasses.replace(
    CPU,
    protocol="pairs",
    domains=SMALL,
    arms=("reference", "rl-only"),
    training=TrainingConfig(iterations=104, interval=4, checkpoint_every=8),
    evaluation=EvaluationConfig(tasks=48, episodes=5),
)
"""Three domains on two cores in a quarter of an hour: both arms, longer training."""

SMOKE = TransferConfig(
    protocol="pairs",
    domains=SMALL,
    seeds=2,
    agent=TransformerMamlDqnConfig(
        network=NetworkConfig(width=8, layers=1, heads=2, channels=2, head_width=8),
        data=QLearningConfig(tasks=4, episodes=2, samples=2, periods=8, num_steps=2, updates=1, replay=2),
        adaptation=AdaptationConfig(steps=1),
        order="first",
        context_share=0.5,
        first_order_share=0.5,
    ),
    training=TrainingConfig(iterations=4, interval=1, checkpoint_every=1),
    evaluation=EvaluationConfig(shots=(0, 1, 2), tasks=4, episodes=2),
)
"""Seconds of training: shows that everything runs. Its scores mean nothing."""

GPU = TransferConfig(
    groups=5,
    seeds=10,
    agent=TransformerMamlDqnConfig(
        network=NetworkConfig(width=64, layers=3, channels=16, head_width=128),
        data=QLearningConfig(tasks=48, samples=16, periods=128),
    ),
    training=TrainingConfig(iterations=3000, interval=50),
    evaluation=EvaluationConfig(tasks=256, episodes=16),
)
"""One accelerator; not timed yet. ``--groups 0`` leaves out each domain alone, at three times the cost."""

PRESETS: dict[str, TransferConfig] = {"cpu": CPU, "three": THREE, "smoke": SMOKE, "gpu": GPU}
