"""The part of an experiment that computes: builds agents, trains and evaluates them. Imports jax and the domains.

All randomness comes from keys folded from fixed numbers: the seed, the purpose, and what an agent is trained or tested
on. It does not depend on the order of the work, on the clock, or on which other domains take part.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.suite import Suite
from experiments.harness.plan import TrainingRun, untrained
from experiments.harness.progress import Display, Kind, duration
from experiments.harness.runs import VALIDATION, RunFolder
from experiments.harness.settings import ExperimentConfig
from experiments.report.results import BASELINES, DomainBaselines
from metarl_jax import arena, evaluation, learners, statistics, training
from metarl_jax.arena import Arena
from metarl_jax.collection import Collector
from metarl_jax.configs import TransformerDqnConfig
from metarl_jax.evaluation import Condition
from metarl_jax.experience import UNKNOWN_SCALE
from metarl_jax.learners.base import Learner

TRAINING, EVALUATION_SET, EXPLORATION, UNTRAINED_WEIGHTS, VALIDATION_SET = range(5)
"""Purposes that keys are folded with."""

COMPILERS = 2
"""Domains looked at side by side: XLA compiles each program on one core."""

BENCHMARK_SEED = 20251121
"""Of the evaluation tasks and their noise: frozen, the same for every run with as many tasks and episodes."""


def _fold(key: Any, purpose: int, *names: str) -> Any:
    key = jax.random.fold_in(key, purpose)
    # CRC-32 is the same on every machine and in every process; Python's hash is not.
    return functools.reduce(jax.random.fold_in, (zlib.crc32(name.encode()) for name in sorted(names)), key)


class Laboratory:
    """Trains and evaluates the agents of one configuration."""

    def __init__(self, config: ExperimentConfig[Any]):
        self.config = config
        self.suite = Suite.make(config.domains)
        self.conditions = evaluation.conditions(config.evaluation.support_episodes)
        self.members = config.replicas
        self._trials: dict[tuple[str, int], evaluation.Trials] = {}
        self._collectors: dict[tuple[str, int], Collector] = {}

    def collector(self, agent: TrainingRun) -> Collector:
        """The agent's learner and its programs: one object for all agents that share them."""
        # Every training domain keeps a place in the replay.
        replay = max(self.config.agent.data.replay, len(agent.trained_on))
        if (agent.learner, replay) not in self._collectors:
            learner = self._make_learner(agent, replay)
            self._collectors[agent.learner, replay] = Collector(learner, self.suite, self.members)
        return self._collectors[agent.learner, replay]

    def learner(self, agent: TrainingRun) -> Learner:
        """The agent's learner."""
        return self.collector(agent).learner

    def _make_learner(self, agent: TrainingRun, replay: int) -> Learner:
        given = self.config.agent
        data = dataclasses.replace(given.data, replay=replay)
        config: Any = dataclasses.replace(given, data=data)
        if agent.role == "multitask":
            config = TransformerDqnConfig(
                network=given.network,
                data=data,
                adaptation=given.adaptation,
                learning_rate=given.learning_rate,
                reference_weight=given.reference_weight,
            )
        return learners.make(agent.learner, config, self.suite)

    def arena(self, name: str) -> Arena:
        """Programs of a domain; the same for all agents, which share a network and hence how they act."""
        own = self.learner(untrained(self.config.learner))
        return arena.make(self.suite, name, own.act, own.data, self.members)

    def hyper(self, learner: Learner) -> Any:
        """Numeric hyperparameters of all members, stacked: arm by arm, one a seed."""
        weights = {"reference": self.config.agent.reference_weight, "rl-only": 0.0}
        own = learner.hyper.replace(iterations=jnp.float32(self.config.training.iterations))
        return training.stack(
            [
                own.replace(reference_weight=jnp.float32(weights[arm]))
                for arm in self.config.arms
                for _ in range(self.config.seeds)
            ]
        )

    def work(self, agent: TrainingRun, done: int = 0) -> Counter[Kind]:
        """What is left of an agent after ``done`` iterations, by kind."""
        left: Counter[Kind] = Counter({("evaluation", agent.role): 1})
        if agent.role != "random weights":
            stage, total = self.learner(agent).stage, self.config.training.iterations
            left.update(("iteration", agent.role, stage(i / total)) for i in range(done, total))
            left["compilation", agent.role] = int(done == 0)
        return left

    def steps(self, agent: TrainingRun) -> tuple[int, float]:
        """Gradient steps and (mean) environment steps of one meta-iteration of all members."""
        data = self.config.agent.data
        choices = np.mean([env.horizon for env in self.suite.subset(agent.trained_on).envs])
        # There are as many support as query episodes.
        return self.members * data.updates, float(self.members * data.tasks * choices * data.episodes * 2)

    def train(self, agent: TrainingRun, folder: RunFolder, display: Display, should_stop: Callable[[], bool]) -> Any:
        """Trains an agent, from its newest checkpoint if there is one, and returns its stacked states.

        Raises:
          training.Stopped: if asked to stop, after saving.
          training.DivergedError: if a metric is not finite.
        """
        learner, config = self.learner(agent), self.config.training
        key = _fold(jax.random.key(self.config.seed), TRAINING, agent.role, *agent.trained_on)
        if agent.role == "random weights":
            keys = training.member_keys(key, self.members, 0, UNTRAINED_WEIGHTS)
            fresh = training.initial_states(learner, keys, self.hyper(learner))
            return training.Run(fresh, UNKNOWN_SCALE)
        updates, choices = self.steps(agent)
        reached = 0

        def on_interval(interval: training.Interval) -> None:
            nonlocal reached
            # The first interval after a restart tells where the restart began.
            count = interval.iteration - reached if reached else (interval.iteration - 1) % config.interval + 1
            display.advance(interval.iteration - reached)
            reached = interval.iteration
            display.work.plan(agent.id, self.work(agent, reached))
            display.work.measured(("iteration", agent.role, interval.stage), count, interval.seconds)
            if interval.compiling:
                display.work.measured(("compilation", agent.role), 1, interval.compiling)
            rate = count / interval.seconds
            folder.log(
                agent.id,
                interval.iteration,
                {
                    "stage": interval.stage,
                    "seconds": round(interval.seconds, 3),
                    "compiling": round(interval.compiling, 3),
                    "updates_per_second": round(rate * updates, 2),
                    "env_steps_per_second": round(rate * choices),
                    "metrics": {name: np.asarray(value).tolist() for name, value in interval.metrics.items()},
                },
            )
            loss = float(np.mean(interval.metrics["loss"])) if "loss" in interval.metrics else float("nan")
            display.state(
                f"{agent.label}: train",
                f"{interval.iteration}/{interval.iterations} ({interval.stage}), loss {loss:.3f}, "
                f"{rate * updates:,.1f} updates/s, {rate * choices:,.0f} env steps/s",
            )

        return training.train(
            learner,
            self.collector(agent),
            [self.arena(name) for name in agent.trained_on],
            key,
            self.hyper(learner),
            iterations=config.iterations,
            interval=config.interval,
            checkpointer=folder.checkpointer(agent.id, display.note),
            checkpoint_every=config.checkpoint_every,
            resume=True,
            on_interval=on_interval,
            on_phase=lambda phase: display.state(f"{agent.label}: {phase}"),
            should_stop=should_stop,
        )

    def trials(self, name: str, purpose: int = EVALUATION_SET) -> evaluation.Trials:
        """The evaluation set of a domain, or its validation set, which is one collection's worth of tasks."""
        if (name, purpose) not in self._trials:
            asked = self.config.evaluation
            tasks = asked.tasks if purpose == EVALUATION_SET else min(asked.tasks, self.config.agent.data.tasks)
            key = _fold(jax.random.key(BENCHMARK_SEED), purpose, name)
            self._trials[name, purpose] = evaluation.make_trials(
                self.arena(name),
                self.collector(untrained(self.config.learner)),
                key,
                tasks,
                max(asked.support_episodes),
                asked.episodes,
            )
        return self._trials[name, purpose]

    def target(self, name: str) -> DomainBaselines:
        """Anchor returns of a domain's evaluation set."""
        trials = self.trials(name)
        found = {policy: np.asarray(getattr(trials.anchors, policy)) for policy in BASELINES}
        return DomainBaselines(found, trials.env.reward_unit, trials.env.reference_kind)

    def evaluate(
        self,
        agent: TrainingRun,
        state: Any,
        candidates: Sequence[Any],
        target: str,
        asked: tuple[Condition, ...],
        purpose: int = EVALUATION_SET,
    ) -> np.ndarray:
        """Query returns ``f32[M, C, B, E]`` of an agent in one domain, trained on or not."""
        # Only of a domain it was trained on does an agent know the scale of rewards.
        scale = None
        if target in agent.trained_on:
            scale = jax.tree.map(lambda leaf: leaf[:, agent.trained_on.index(target)], state.scales)
        key = _fold(jax.random.key(BENCHMARK_SEED), EXPLORATION, target)
        return evaluation.evaluate(self.collector(agent), candidates, scale, self.trials(target, purpose), asked, key)

    def validated(self, agent: TrainingRun, state: Any, folder: RunFolder) -> list[Any]:
        """The trained parameters to test: of each arm the candidate that is best on new tasks of its training domains.

        What is compared is the score at the largest K, a mean over training domains and seeds. An agent that is not
        tested in its training domains is scored there too, even if there is nothing to choose: what it learned.
        """
        learner, arms = self.learner(agent), self.config.arms
        found = learner.candidates(learner.params(state.learner))
        labels, candidates = list(found), list(found.values())
        if not agent.trained_on or (len(candidates) == 1 and agent.tested_on(agent.trained_on) == agent.trained_on):
            return candidates
        most = max(self.config.evaluation.support_episodes)
        asked = (*(Condition(most, candidate=i) for i in range(len(candidates))), Condition(0))

        def scores(domain: str) -> np.ndarray:
            returns = self.evaluate(agent, state, candidates, domain, asked, VALIDATION_SET).mean(-1)
            at = self.trials(domain, VALIDATION_SET).anchors
            score = statistics.pooled_score(returns, np.asarray(at.floor), np.asarray(at.reference)).score  # [M, C]
            return score.reshape(len(arms), -1, len(asked)).mean(1)

        with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
            table = np.mean(list(pool.map(scores, agent.trained_on)), axis=0)  # [arms, V + 1]
        best = table[:, :-1].argmax(1)
        chosen = {
            arm: {"chosen": labels[i], "scores": dict(zip([*labels, "K=0"], map(float, row), strict=True))}
            for arm, i, row in zip(arms, best, table, strict=True)
        }
        folder.write_json(f"agents/{agent.id}/{VALIDATION}", chosen)
        of_member, rows = np.repeat(best, self.config.seeds), np.arange(self.members)
        return [jax.tree.map(lambda *leaves: jnp.stack(leaves)[of_member, rows], *candidates)]

    def targets(self) -> dict[str, DomainBaselines]:
        """Anchor returns of every domain."""
        with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
            return dict(zip(self.config.domains, pool.map(self.target, self.config.domains), strict=True))

    def evaluate_everywhere(
        self, agent: TrainingRun, state: Any, folder: RunFolder, display: Display
    ) -> dict[str, np.ndarray]:
        """Query returns of an agent in every domain that it is tested on."""
        domains, clock = agent.tested_on(self.config.domains), display.seconds()
        display.state(f"{agent.label}: test on {', '.join(domains)}")
        candidates = self.validated(agent, state, folder)
        with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
            returns = list(pool.map(lambda d: self.evaluate(agent, state, candidates, d, self.conditions), domains))
        display.work.measured(("evaluation", agent.role), 1, display.seconds() - clock)
        display.work.plan(agent.id, {})
        display.note(f"{agent.label}: tested on {len(returns)} domains after {duration(display.seconds())}")
        return dict(zip(domains, returns, strict=True))
