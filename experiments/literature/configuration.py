"""What a run of literature may be asked to do, and presets. Free of jax."""

from __future__ import annotations

import dataclasses

from experiments.harness.study import StudyConfig
from experiments.harness.values import unknown
from metarl_jax import learners
from metarl_jax.checks import whole
from metarl_jax.literature.rows import INNER_LOOPS, ROWS, SINE, Row


@dataclasses.dataclass(frozen=True)
class LiteratureConfig(StudyConfig):
    """Which learner, on which task of the literature.

    Attributes:
      learner: as registered; of the task sine an inner loop: maml, fomaml, meta_sgd, gated, learned.
      task: cartpole, acrobot, catch, bandit-10x5, bandit-100x5, navigation, gridnavi or sine.
      steps: of training, each seed: environment steps, of sine meta-iterations; 0 for as many as the row asks for.
      seeds: independent trainings; the rows ask for 5.
      looks: points of a learning curve.
      episodes: of each test; 0 for as many as the row asks for.
    """

    learner: str = "ppo"
    task: str = "cartpole"
    steps: int = whole(0, 0, 10**10)
    seeds: int = whole(5, 1, 1000)
    looks: int = whole(10, 1, 1000)
    episodes: int = whole(0, 0, 10**6)

    @property
    def label(self) -> str:
        """Last part of a name that was not given."""
        return f"{self.task}-{self.learner}"

    @property
    def row(self) -> Row:
        """What the literature says of the task."""
        return ROWS[self.task]

    @property
    def length(self) -> int:
        """Steps of training, each seed."""
        return self.steps or self.row.steps

    def with_learner(self, name: str) -> LiteratureConfig:
        """The same task with another learner; a preset keeps nothing of the one before."""
        return dataclasses.replace(self, learner=name)

    def __post_init__(self) -> None:
        """Refuses unknown names and values that have no meaning."""
        super().__post_init__()
        if self.task not in ROWS:
            raise ValueError(f"task: {unknown('task', self.task, tuple(ROWS))}")
        everyone = (*learners.registered(), *INNER_LOOPS)
        if self.learner not in everyone:
            raise ValueError(f"learner: {unknown('learner', self.learner, everyone)}")

    def check_pair(self) -> None:
        """Refuses a learner that the task does not have.

        Raises:
          ValueError: with what is allowed.
        """
        allowed = INNER_LOOPS if self.task == SINE else learners.registered()
        if self.learner not in allowed:
            raise ValueError(f"learner: {self.learner} does not learn {self.task}; allowed: {', '.join(allowed)}")
        if self.length < self.looks:
            raise ValueError(f"looks must be at most the number of steps ({self.length}), got {self.looks}")


PRESETS: dict[str, LiteratureConfig] = {
    "default": LiteratureConfig(),
    "smoke": LiteratureConfig(task="catch", steps=4096, seeds=1, looks=2, episodes=8),
}
