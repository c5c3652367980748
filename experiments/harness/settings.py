"""What every experiment may be asked to do: frozen dataclasses that refuse, by name, what has no meaning.

Agent (``metarl_jax.configs``), training and evaluation each have their own; an experiment's configuration extends
:class:`ExperimentConfig`, which holds one of each. Nothing here imports jax or a domain, so that help and refusals come
at once.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
import runpy
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar, get_args

from experiments.harness.learners import config_class, needs_labels, uses_labels
from experiments.harness.plan import TrainingRun
from experiments.harness.values import unknown
from metarl_jax.checks import check_fields, shown, whole, wholes
from metarl_jax.configs import CurriculumConfig, TransformerDqnConfig, TransformerMamlDqnConfig

Arm = Literal["reference", "rl-only"]
AgentT = TypeVar("AgentT")

LOCATIONS = frozenset({"results", "name", "cache_dir"})
"""Fields that say where things are kept. A resumed run may differ in them."""

LONGEST_NAME = 100
"""Characters of a run's name; file systems allow 255 bytes, of which agents' files take none."""


@functools.cache
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


def _different(field: str, values: Sequence[object]) -> None:
    if not values:
        raise ValueError(f"{field} must not be empty")
    if len(set(values)) != len(values):
        raise ValueError(f"{field} must not repeat a value, got {shown(' '.join(map(str, values)))}")


def _printable(field: str, text: str) -> None:
    """Refuses what cannot be written to a file or would break a line: control characters, undecodable bytes."""
    if not text.isprintable():
        raise ValueError(f"{field} must hold printable characters only, got {shown(text)}")


def check_locations(config: Any) -> None:
    """Refuses a name that is no folder's, and text that cannot be written, in the fields of :data:`LOCATIONS`."""
    _printable("results", str(config.results))
    _printable("cache_dir", str(config.cache_dir or ""))
    _printable("name", config.name)
    if config.name.startswith((".", "-")) or pathlib.PurePath(config.name).name != config.name:
        raise ValueError(f"name must be one folder's name without slashes, got {shown(config.name)}")
    if len(config.name.encode()) > LONGEST_NAME:
        raise ValueError(f"name must be at most {LONGEST_NAME} bytes long, got {shown(config.name)}")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long agents train, and how often the host looks.

    Attributes:
      iterations: meta-iterations of each agent; of an agent of several domains, if one of the next is given.
      single: meta-iterations of an agent of one domain; 0 for as many.
      left_out: of an agent for which domains were left out, and of its control; 0 for as many.
      interval: meta-iterations between two looks of the host (progress, metrics, asking whether to stop).
      checkpoint_every: intervals between two checkpoints; a run that is killed repeats at most these.
      curriculum: on which tasks learners are trained that collect while they train; never on which they are tested.
    """

    iterations: int = whole(200, 1, 10_000_000)
    single: int = whole(0, 0, 10_000_000)
    left_out: int = whole(0, 0, 10_000_000)
    interval: int = whole(10, 1, 10_000_000)
    checkpoint_every: int = whole(2, 1, 10_000_000)
    curriculum: CurriculumConfig = CurriculumConfig()

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "training.")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The evaluation set of every domain; it does not depend on the seed.

    Attributes:
      support_episodes: numbers K of support episodes an agent adapts from; 0 must be among them, it is the control of
        all others.
      tasks: new tasks of each domain; at least two, so that there is another task whose support can be swapped in.
      episodes: query episodes of each task.
      validation_domains: training domains on which validation compares ways to adapt; 0 takes all.
    """

    support_episodes: tuple[int, ...] = wholes((0, 1, 3, 5), 0, 1000)
    tasks: int = whole(64, 2, 100_000)
    episodes: int = whole(8, 1, 1000)
    validation_domains: int = whole(3, 0, 1000)

    def __post_init__(self) -> None:
        """Refuses values that have no meaning."""
        check_fields(self, "evaluation.")
        if min(self.support_episodes) != 0 or max(self.support_episodes) == 0:
            asked = " ".join(map(str, self.support_episodes))
            raise ValueError(f"evaluation.support_episodes must be 0 and at least one larger K, got {asked}")


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(Generic[AgentT]):
    """What all experiments have in common; one extends it by its own fields, each with a default.

    Attributes:
      domains: the domains; if not given, all but the registry's extras.
      seeds: independent training runs of every agent, the unit of evidence.
      seed: which training runs; the evaluation tasks are the same for all.
      arms: "reference" adds the cross-entropy to the reference policy's action to the outer loss; "rl-only" learns from
        reward alone. Each is trained with all seeds.
      learner: name of the learner that is studied; its flags are those of ``--agent``.
      agent: the learner's configuration. The multitask control takes its network, data and adaptation from here too.
      training: how long.
      evaluation: on what.
      results: folder of all runs; this one gets ``<results>/<experiment>/<name>``.
      name: of the run; empty takes the time and the label.
      cache_dir: where compiled programs are kept between runs; default: JAX_COMPILATION_CACHE_DIR, else the user's
        cache folder.
    """

    domains: tuple[str, ...] = dataclasses.field(default_factory=standard_domains)
    seeds: int = whole(3, 1, 1000)
    seed: int = whole(0, 0, 2**32 - 1)  # a key holds no more: beyond, seeds would repeat
    arms: tuple[Arm, ...] = ("reference", "rl-only")
    learner: str = "transformer_maml_dqn"
    agent: AgentT = TransformerMamlDqnConfig()  # type: ignore[assignment]
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    results: pathlib.Path = pathlib.Path("results")
    name: str = ""
    cache_dir: pathlib.Path | None = None

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return self.learner

    @property
    def replicas(self) -> int:
        """Replicas of a training run, side by side: arm by arm, one a seed. All runs have as many."""
        return len(self.arms) * self.seeds

    def arms_of(self, run: TrainingRun) -> tuple[str, ...]:
        """The arms that a training run's replicas are trained for."""
        return (run.arm,) if run.arm else self.arms

    def agent_of(self, run: TrainingRun) -> Any:
        """Configuration of a training run's learner; a multitask control shares with the agent whatever both have."""
        if run.role != "multitask":
            return self.agent
        own = {field.name for field in dataclasses.fields(TransformerDqnConfig)}
        fields: Any = dataclasses.fields(self.agent)  # type: ignore[arg-type]
        return TransformerDqnConfig(**{f.name: getattr(self.agent, f.name) for f in fields if f.name in own})

    def iterations_of(self, run: TrainingRun) -> int:
        """Meta-iterations of a training run."""
        if run.left_out:
            return self.training.left_out or self.training.iterations
        if len(run.trained_on) == 1:
            return self.training.single or self.training.iterations
        return self.training.iterations

    def __post_init__(self) -> None:
        """Refuses values that have no meaning, by name, before anything is compiled."""
        check_fields(self)
        known = domain_names()
        for domain in self.domains:
            if domain not in known:
                raise ValueError(f"domains: {unknown('domain', domain, known)}")
        _different("domains", self.domains)
        for arm in self.arms:
            if arm not in get_args(Arm):
                raise ValueError(f"arms: {unknown('arm', arm, get_args(Arm))}")
        _different("arms", self.arms)
        expected = config_class(self.learner)
        if not isinstance(self.agent, expected):
            its = type(self.agent).__name__
            raise ValueError(f"agent: learner {self.learner} takes a {expected.__name__}, got a {its}")
        if "reference" in self.arms:
            self._check_labels()
        if "rl-only" in self.arms and needs_labels(expected):
            raise ValueError(
                f"arms: learner {self.learner} learns from labels alone, arm rl-only has none; give reference"
            )
        check_locations(self)

    def _check_labels(self) -> None:
        if not uses_labels(type(self.agent)):
            raise ValueError(f"arms: learner {self.learner} takes no labels, which arm reference needs; give rl-only")
        weight = getattr(self.agent, "reference_weight", None)
        if weight is not None and not weight > 0:
            raise ValueError(
                f"agent.reference_weight must be above 0 for arm reference, got {weight}; or give --arms rl-only"
            )
