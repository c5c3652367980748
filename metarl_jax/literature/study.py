"""Trains a registered learner on a task of the literature and tests it: the code that trains and tests on the suite."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from envs_jax.suite import Suite
from metarl_jax import evaluation, learners, training
from metarl_jax.collection import Collector
from metarl_jax.evaluation import Condition, EvaluationSet
from metarl_jax.learners.base import Learner
from metarl_jax.literature import settings
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.types import RewardScale

TEST_SEED = 20170309
"""Of the tests' tasks and noise: the same for all learners and seeds."""
TRAINING, CHOOSING = range(2)
"""Purposes that keys are folded with."""


def _whole_trials(learner: Learner) -> Learner:
    """A learner that carries its memory from episode to episode, on a task whose episode is a whole trial.

    No support goes before it: memory starts with the episode, as in the papers on a bandit of n pulls.
    """
    needs = learner.needs
    if needs.order != "sequential":
        return learner
    return learner._replace(needs=dataclasses.replace(needs, support_episodes=0))


@dataclasses.dataclass(frozen=True)
class Bench:
    """A learner on one task, with its compiled programs, for any number of seeds one after another.

    Attributes:
      learner: the learner.
      collector: its programs.
      domain: the task's programs.
      config: the learner's configuration.
      protocol: of the test.
      tests: the tasks and episodes of the test, and what random, heuristic and reference earn on them.
    """

    learner: Learner
    collector: Collector
    domain: DomainPrograms
    config: Any
    protocol: settings.Protocol
    tests: EvaluationSet

    @classmethod
    def of(cls, task: str, learner: str, episodes: int = 0) -> Bench:
        """A learner on a task by name.

        Args:
          task: one of ``settings.ENVIRONMENTS``.
          learner: as registered.
          episodes: of the test, shared out over its tasks; 0 for as many as the protocol says.

        Raises:
          ValueError: if the learner refuses the task's settings.
        """
        protocol = settings.PROTOCOLS[task]
        if episodes and protocol.tasks == 1:
            protocol = dataclasses.replace(protocol, episodes=episodes)
        elif episodes:
            protocol = dataclasses.replace(protocol, tasks=math.ceil(episodes / protocol.episodes))
        suite = Suite.of((settings.ENVIRONMENTS[task](),), (task,))
        config = settings.configuration(task, learner)
        made = learners.make(learner, config, suite)
        if not protocol.support:
            made = _whole_trials(made)
        programs = Programs(1)
        collector, domain = Collector(made, suite, programs), DomainPrograms.of(suite, task, programs)
        key = jax.random.key(TEST_SEED)
        support = max(protocol.support, *protocol.beside, 0)
        tests = evaluation.make_evaluation_set(domain, collector, key, protocol.tasks, support, protocol.episodes)
        return cls(made, collector, domain, config, protocol, tests)

    @property
    def steps(self) -> int:
        """Environment steps of a meta-iteration."""
        needs = self.learner.needs
        return needs.tasks * needs.episodes * self.domain.env.horizon

    def learn(self, steps: int, looks: int, seed: int) -> dict[str, Any]:
        """Trains one seed and tests it on the way.

        Args:
          steps: of the environment, rounded up to whole meta-iterations.
          looks: points of the learning curve, at most.
          seed: of the training.

        Returns:
          ``figure``: mean return of the test; its ``standard_error`` over tasks (over episodes where there is one
          task); ``curve`` of ``[steps, figure]``, but for the last with the first way of adapting; what random,
          heuristic and reference earn; and the learner's configuration.
        """
        iterations = max(1, math.ceil(steps / self.steps))
        hyperparams = training.stack([self.learner.hyperparams(iterations, False)])
        curve: list[list[float]] = []
        most = Condition(self.protocol.support)
        metrics: dict[str, float] = {}

        def look(iteration: int, run: training.Run) -> None:
            if iteration < iterations:
                curve.append([iteration * self.steps, float(self._returns(run, (most,), 0).mean())])

        def note(interval: training.Interval) -> None:
            metrics.update({name: float(np.mean(value)) for name, value in interval.metrics.items()})

        run = training.train(
            self.learner,
            self.collector,
            [self.domain],
            jax.random.fold_in(jax.random.key(seed), TRAINING),
            hyperparams,
            training.Pace(iterations, math.ceil(iterations / looks)),
            hooks=training.Hooks(on_run=look, on_interval=note),
        )
        chosen, label = self._chosen(run, seed)
        asked = (most, *(Condition(k) for k in self.protocol.beside))
        own, *others = self._returns(run, asked, chosen)
        curve.append([iterations * self.steps, float(own.mean())])
        units = own.mean(-1) if own.shape[0] > 1 else own[0]
        found: dict[str, Any] = {
            "figure": float(own.mean()),
            "standard_error": float(units.std(ddof=1) / math.sqrt(len(units))) if len(units) > 1 else None,
            "curve": curve,
            "iterations": iterations,
        }
        found |= {f"K={k}": float(row.mean()) for k, row in zip(self.protocol.beside, others, strict=True)}
        if label is not None:
            found["adapts by"] = label
        found |= {name: metrics[name] for name in ("entropy", "first_ratio_error") if name in metrics}
        baselines = self.tests.baselines
        found |= {
            f"{name} policy": float(np.mean(getattr(baselines, name))) for name in ("random", "heuristic", "reference")
        }
        return found | {"agent": dataclasses.asdict(self.config)}

    def _scale(self, run: training.Run) -> RewardScale:
        return jax.tree.map(lambda leaf: np.asarray(leaf[:, 0]), run.scales)

    def _returns(self, run: training.Run, asked: tuple[Condition, ...], candidate: int) -> np.ndarray:
        """Test returns ``f32[C, B, E]``."""
        trained = list(self.learner.candidates(self.learner.params(run.learner)).values())[candidate]
        key = jax.random.key(TEST_SEED + 1)
        return evaluation.evaluate(self.collector, [trained], self._scale(run), self.tests, None, asked, key)[0]

    def _chosen(self, run: training.Run, seed: int) -> tuple[int, str | None]:
        """Which way of adapting is best on tasks that are neither trained nor tested on, and what it is called."""
        ways = self.learner.candidates(self.learner.params(run.learner))
        if len(ways) == 1:
            return 0, None
        if not self.protocol.support:
            return 0, None
        key = jax.random.fold_in(jax.random.key(seed), CHOOSING)
        protocol, collector = self.protocol, self.collector
        tasks = min(protocol.tasks, collector.needs.tasks)
        own = evaluation.make_evaluation_set(self.domain, collector, key, tasks, protocol.support, protocol.episodes)
        asked = tuple(Condition(protocol.support, candidate=i) for i in range(len(ways)))
        returns = evaluation.evaluate(collector, list(ways.values()), self._scale(run), own, None, asked, key)[0]
        best = int(returns.mean((1, 2)).argmax())
        return best, list(ways)[best]
