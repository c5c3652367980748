"""The part of an experiment that computes: builds learners, trains and evaluates them. Imports jax and the domains.

All randomness comes from keys folded from fixed numbers: the seed, the purpose, and what an agent is trained or tested
on. It does not depend on the order of the work, on the clock, or on which other domains take part.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import gc
import hashlib
import math
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from envs_jax.suite import Suite
from experiments.harness import datasets, machine
from experiments.harness.errors import UnequalTreatmentError, UsageError
from experiments.harness.learners import learns_from_reward, uses_labels
from experiments.harness.plan import TrainingRun, untrained
from experiments.harness.progress import Display, Kind, duration
from experiments.harness.runs import VALIDATION, RunFolder
from experiments.harness.settings import ExperimentConfig
from experiments.harness.treatment import Treatment
from experiments.report.results import BASELINES, DomainBaselines
from metarl_jax import curricula, dataset, evaluation, learners, statistics, training
from metarl_jax.collection import Collector
from metarl_jax.configs import FrozenConfig
from metarl_jax.curricula import CurriculumSource
from metarl_jax.dataset import DomainData
from metarl_jax.evaluation import Condition, EvaluationSet
from metarl_jax.learners.base import Learner
from metarl_jax.rewards import UNKNOWN_SCALE
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from metarl_jax.runtime.replicas import place, release_memory
from metarl_jax.sources import FrozenSource, Source
from metarl_jax.types import RewardScale

TRAINING, EVALUATION_SET, EXPLORATION, UNTRAINED_WEIGHTS, VALIDATION_SET, FROZEN_DATA = range(6)
"""Purposes that keys are folded with."""

COMPILERS = 2
"""Domains looked at side by side: XLA compiles each program on one core."""

MOST_MAPPINGS = 42_000
"""Memory mappings of this process above which programs are let go between agents. Linux gives 65,530; beyond, XLA ends
the process. Fifteen domains with the programs of one learner took 38,000."""

BENCHMARK_SEED = 20251121
"""Of the evaluation tasks and their noise: frozen, the same for every run with as many tasks and episodes."""


def _fold(key: Any, purpose: int, *names: str) -> Any:
    key = jax.random.fold_in(key, purpose)
    # CRC-32 is the same on every machine and in every process; Python's hash is not.
    return functools.reduce(jax.random.fold_in, (zlib.crc32(name.encode()) for name in sorted(names)), key)


class Once:
    """Remembers what was made for a key; each thing is made by one thread, others wait for it."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}
        self._locks: dict[Any, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` returned the first time."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]

    def forget(self, kind: str) -> None:
        """Lets go of everything whose key begins with ``kind``; it is made anew if it is asked for again."""
        with self._lock:
            for key in [key for key in self._made if key[0] == kind]:
                del self._made[key]


class Session:
    """Trains and evaluates the agents of one configuration.

    Threads work on different domains. What they share, they only read: arrays are placed on the devices once, before a
    pool starts, because JAX may lose count of an array's buffers if two threads move it.
    """

    def __init__(self, config: ExperimentConfig[Any]):
        self.config = config
        self.suite = Suite.make(config.domains)
        self.conditions = evaluation.conditions(config.evaluation.support_episodes)
        self.replicas = config.replicas
        self.programs = Programs(self.replicas)
        self._once = Once()

    def collector(self, agent: TrainingRun) -> Collector:
        """The agent's learner and its programs."""
        config = self.config.agent_of(agent)

        def make() -> Collector:
            learner = learners.make(agent.learner, config, self.suite.subset(agent.trained_on))
            return Collector(learner, self.suite, self.programs)

        return self._once.get(("collector", agent.learner, config, agent.trained_on), make)

    def let_go(self) -> None:
        """Lets go of all compiled programs, if there are many; what is needed again comes from the cache on disk.

        Every kernel takes some of the mappings that a process may have. Domains' acting programs, of several learners
        that cannot share them, would take more than there are.
        """
        if machine.mappings() > MOST_MAPPINGS:
            self._once.forget("collector")
            self.programs.clear()
            jax.clear_caches()
            gc.collect()
            release_memory()

    def learner(self, agent: TrainingRun) -> Learner:
        """The agent's learner."""
        return self.collector(agent).learner

    def domain(self, name: str) -> DomainPrograms:
        """Programs of a domain, the same for all agents."""
        return DomainPrograms.of(self.suite, name, self.programs)

    def hyperparams(self, agent: TrainingRun, iterations: int) -> Any:
        """Numeric hyperparameters of all replicas, stacked: arm by arm, one a seed."""
        learner = self.learner(agent)
        arms = (learner.hyperparams(iterations, arm == "reference") for arm in self.config.arms_of(agent))
        return training.stack([own for own in arms for _ in range(self.config.seeds)])

    def work(self, agent: TrainingRun, done: int = 0) -> Counter[Kind]:
        """What is left of an agent after ``done`` iterations, by kind."""
        left: Counter[Kind] = Counter({("evaluation", agent.role, agent.learner): 1})
        if agent.role != "random weights":
            schedule, total = self.learner(agent).schedule, self.config.iterations_of(agent)
            left.update(("iteration", agent.role, agent.learner, schedule(i / total).name) for i in range(done, total))
            left["compilation", agent.role, agent.learner] = int(done == 0)
        return left

    def choices(self, agent: TrainingRun) -> float:
        """Choices that one meta-iteration of one replica makes, a mean over the training domains; 0 of frozen data."""
        needs = self.learner(agent).needs
        if needs.frozen.tasks:
            return 0.0
        horizon = np.mean([env.horizon for env in self.suite.subset(agent.trained_on).envs])
        return float(needs.tasks * needs.episodes * horizon)

    def training_choices(self, agent: TrainingRun) -> float:
        """Choices that the training of one replica takes: of frozen data and rounds, or of what is collected.

        Raises:
          UsageError: if the learner cannot be trained by the curriculum.
        """
        config, needs, total = self.config, self.learner(agent).needs, self.config.iterations_of(agent)
        horizons, frozen = [env.horizon for env in self.suite.subset(agent.trained_on).envs], needs.frozen
        if frozen.tasks:
            played = math.ceil(frozen.round_tasks / needs.tasks) * needs.tasks * frozen.rounds
            return float(sum(horizons) * (frozen.tasks * needs.episodes + played * needs.query_episodes))
        self._check_curriculum(self.learner(agent))
        more, once = curricula.episodes(config.training.curriculum, needs)
        turns = [total // len(horizons) + (d < total % len(horizons)) for d in range(len(horizons))]
        # What the scale of rewards is measured on, a first collection of each domain, is not trained on.
        return float(np.dot(horizons, [turn * (needs.tasks * needs.episodes + more) + once for turn in turns]))

    def treatment(self, agent: TrainingRun) -> Treatment:
        """What an agent is given: of its learner's needs, and of the tests that it will meet."""
        config, learner = self.config, self.learner(agent)
        needs, (arm,) = learner.needs, config.arms_of(agent)
        asked = getattr(config.agent_of(agent), "frozen", FrozenConfig())
        if needs.frozen.tasks != asked.tasks:
            told = f"{needs.frozen.tasks} tasks of frozen data, its configuration says {asked.tasks}"
            raise UnequalTreatmentError(f"equal treatment: {agent.label} wants {told}")
        kind = type(config.agent_of(agent))
        keys, hyper = jax.random.split(jax.random.key(0), self.replicas), learner.hyperparams(1, arm == "reference")
        params = jax.eval_shape(jax.vmap(lambda key: learner.params(learner.init(key, hyper))), keys)
        own = {name: part for name, part in params.items() if name != "target"} if isinstance(params, dict) else params
        candidates = len(jax.eval_shape(learner.candidates, params))
        few = spread_out(agent.trained_on, config.evaluation.validation_domains) if candidates > 1 else ()
        return Treatment(
            labels=(arm == "reference" and uses_labels(kind)) or not learns_from_reward(kind),
            trained_on=list(agent.trained_on),
            seeds=config.seeds,
            tests={name: self._digest(name) for name in agent.tested_on(config.domains)},
            conditions=[condition.label for condition in self.conditions],
            validated_on=list(few),
            candidates=candidates,
            most_support=max(config.evaluation.support_episodes),
            trained_support=needs.support_episodes,
            support=needs.support,
            data="frozen" if needs.frozen.tasks else "collected",
            iterations=config.iterations_of(agent),
            choices=self.training_choices(agent),
            parameters=sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(own)),
        )

    def _digest(self, name: str) -> str:
        """Of the tasks, and of the keys of support and query episodes, on which a domain's tests are made."""
        own = self.evaluation_set(name)
        keys = jax.random.key_data(own.support_keys), jax.random.key_data(own.query_keys)
        leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves((own.tasks, keys))]
        return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()[:16]

    def train(self, agent: TrainingRun, folder: RunFolder, display: Display, should_stop: Callable[[], bool]) -> Any:
        """Trains an agent, from its newest checkpoint if there is one, and returns its stacked states.

        Raises:
          training.Stopped: if asked to stop, after saving.
          training.DivergedError: if a metric is not finite.
        """
        learner, config, iterations = self.learner(agent), self.config.training, self.config.iterations_of(agent)
        key = _fold(jax.random.key(self.config.seed), TRAINING, agent.role, *agent.trained_on)
        if agent.role == "random weights":
            keys = training.replica_keys(key, self.replicas, 0, UNTRAINED_WEIGHTS)
            initial = self.programs.get("init", learner.spec, lambda: learner.init)
            return training.Run(initial(*place((keys, self.hyperparams(agent, 1)), self.replicas)), UNKNOWN_SCALE)
        choices = self.choices(agent) * self.replicas
        source = self.source(agent, display, should_stop)  # made before the clock starts: data are for all
        reached, compiling, cpu = 0, 0.0, time.process_time()

        def on_phase(phase: str) -> None:
            nonlocal compiling, cpu
            if phase == "train":
                compiling, cpu = time.process_time() - cpu, time.process_time()
            display.state(f"{agent.label}: {phase}")

        def on_interval(interval: training.Interval) -> None:
            nonlocal reached, compiling, cpu
            spent, cpu = time.process_time() - cpu, time.process_time()
            # The first interval after a restart tells where the restart began.
            count = interval.iteration - reached if reached else (interval.iteration - 1) % config.interval + 1
            display.advance(interval.iteration - reached)
            reached = interval.iteration
            display.work.plan(agent.id, self.work(agent, reached))
            display.work.measured(("iteration", agent.role, agent.learner, interval.phase), count, interval.seconds)
            if interval.compiling:
                display.work.measured(("compilation", agent.role, agent.learner), 1, interval.compiling)
            rate = count / interval.seconds
            steps = float(np.sum(interval.metrics.get("gradient_steps", 0.0)))
            folder.log(
                agent.id,
                interval.iteration,
                {
                    "phase": interval.phase,
                    "seconds": round(interval.seconds, 3),
                    "compiling": round(interval.compiling, 3),
                    "cpu_seconds": round(spent, 3),
                    "cpu_compiling": round(compiling, 3),
                    "gradient_steps_per_second": round(rate * steps, 2),
                    "env_steps_per_second": round(rate * choices),
                    "metrics": {name: np.asarray(value).tolist() for name, value in interval.metrics.items()},
                },
            )
            compiling = 0.0
            loss = float(np.mean(interval.metrics["loss"])) if "loss" in interval.metrics else float("nan")
            display.state(
                f"{agent.label}: train",
                f"{interval.iteration}/{interval.iterations} ({interval.phase}), loss {loss:.3f}, "
                f"{rate * steps:,.1f} gradient steps/s, {rate * choices:,.0f} environment steps/s",
            )

        return training.train(
            learner,
            self.collector(agent),
            [self.domain(name) for name in agent.trained_on],
            key,
            self.hyperparams(agent, iterations),
            training.Pace(iterations, config.interval, config.checkpoint_every),
            checkpointer=folder.checkpointer(agent.id, display.note),
            metadata=folder.metadata,
            resume=True,
            hooks=training.Hooks(
                on_interval=on_interval,
                on_phase=on_phase,
                should_stop=should_stop,
            ),
            source=source,
        )

    def source(
        self, agent: TrainingRun, display: Display, should_stop: Callable[[], bool] = lambda: False
    ) -> Source | None:
        """Where the batches of an agent come from: frozen data of its training domains and of no other, tasks that a
        curriculum chooses, or fresh tasks (None).

        Raises:
          training.Stopped: if asked to stop while data are made.
        """
        collector = self.collector(agent)
        domains, curriculum = [self.domain(name) for name in agent.trained_on], self.config.training.curriculum
        if not collector.needs.frozen.tasks:
            self._check_curriculum(collector.learner)
            return None if curriculum.kind == "uniform" else CurriculumSource(collector, domains, curriculum)
        data = []
        for domain in domains:
            own = self.data(domain, collector, display, should_stop)
            if own is None:
                raise training.Stopped(0)
            data.append(own)
        return FrozenSource(collector, domains, data, [self._data_key(name) for name in agent.trained_on])

    def _check_curriculum(self, learner: Learner) -> None:
        try:
            curricula.check(self.config.training.curriculum, learner)
        except ValueError as error:
            raise UsageError(f"training.{error}") from error

    def _data_key(self, name: str) -> Any:
        return _fold(jax.random.key(BENCHMARK_SEED), FROZEN_DATA, name)

    def data(
        self, domain: DomainPrograms, collector: Collector, display: Display, should_stop: Callable[[], bool]
    ) -> DomainData | None:
        """Frozen data of a domain: made once, kept on disk between runs, shared by agents and seeds."""
        iterations = range(100)
        inner_steps = any(collector.learner.schedule(i / len(iterations)).inner_steps for i in iterations)
        key = self._data_key(domain.name)
        asked = dataset.specification(collector, domain, key, inner_steps)

        def make() -> DomainData | None:
            display.state(f"{domain.name}: play {collector.needs.frozen.tasks} tasks for the frozen data")
            return dataset.make(collector, domain, key, inner_steps, should_stop)

        def find() -> DomainData | None:
            folder = machine.cache_folder(self.config.cache_dir)
            template = dataset.template(collector, inner_steps)
            return datasets.kept(folder, asked, template, make, display.note)

        return self._once.get(("data", domain.name, repr(asked)), find)

    def evaluation_set(self, name: str, purpose: int = EVALUATION_SET) -> EvaluationSet:
        """The evaluation set of a domain, or its validation set, which is one collection's worth of tasks."""

        def make() -> EvaluationSet:
            asked, collector = self.config.evaluation, self.collector(untrained(self.config.learner))
            tasks = asked.tasks if purpose == EVALUATION_SET else min(asked.tasks, collector.needs.tasks)
            key = _fold(jax.random.key(BENCHMARK_SEED), purpose, name)
            return evaluation.make_evaluation_set(
                self.domain(name), collector, key, tasks, max(asked.support_episodes), asked.episodes
            )

        return self._once.get(("evaluation set", name, purpose), make)

    def support(self, name: str, purpose: int, collector: Collector) -> Any:
        """Random support of a domain's evaluation set; None for learners that collect their own."""
        if collector.needs.support == "own":
            return None
        return self._once.get(
            ("support", name, purpose, collector.needs.record),
            lambda: evaluation.random_support(self.evaluation_set(name, purpose), collector),
        )

    def baselines_of(self, name: str) -> DomainBaselines:
        """Baseline returns of a domain's evaluation set."""
        own = self.evaluation_set(name)
        found = {policy: np.asarray(getattr(own.baselines, policy)) for policy in BASELINES}
        return DomainBaselines(found, own.env.reward_unit, own.env.reference_kind)

    def evaluate(
        self,
        agent: TrainingRun,
        scales: RewardScale,
        candidates: Sequence[Any],
        target: str,
        asked: tuple[Condition, ...],
        purpose: int = EVALUATION_SET,
    ) -> np.ndarray:
        """Query returns ``f32[R, C, B, E]`` of an agent in one domain, trained on or not.

        Args:
          agent: the agent.
          scales: of its training domains ``[R, D]``, on the host.
          candidates: trained parameters, placed.
          target: the domain.
          asked: the conditions.
          purpose: which set of tasks.
        """
        # Only of a domain it was trained on does an agent know the scale of rewards.
        scale = None
        if target in agent.trained_on:
            scale = jax.tree.map(lambda leaf: leaf[:, agent.trained_on.index(target)], scales)
        key = _fold(jax.random.key(BENCHMARK_SEED), EXPLORATION, target)
        collector = self.collector(agent)
        support = self.support(target, purpose, collector)
        own = self.evaluation_set(target, purpose)
        return evaluation.evaluate(collector, candidates, scale, own, support, asked, key)

    def scored(
        self, agent: TrainingRun, scales: RewardScale, candidates: Sequence[Any], domains: Sequence[str], asked: Any
    ) -> np.ndarray:
        """Scores ``[arms, C]`` on the validation sets of some domains: means over domains and seeds."""

        def scores(domain: str) -> np.ndarray:
            returns = self.evaluate(agent, scales, candidates, domain, asked, VALIDATION_SET).mean(-1)
            at = self.evaluation_set(domain, VALIDATION_SET).baselines
            score = statistics.pooled_score(returns, np.asarray(at.floor), np.asarray(at.reference)).score  # [R, C]
            return score.reshape(len(self.config.arms_of(agent)), -1, len(asked)).mean(1)

        with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
            return np.mean(list(pool.map(scores, domains)), axis=0)

    def validated(
        self,
        agent: TrainingRun,
        scales: RewardScale,
        candidates: Sequence[Any],
        labels: Sequence[str],
        folder: RunFolder,
    ) -> np.ndarray:
        """Which candidate each replica is tested with, ``i64[R]``: of each arm the best on validation tasks.

        What is compared is the score at the largest K, on a few of the training domains. An agent that is not tested in
        its training domains is scored there too, even if there is nothing to choose: what it learned.
        """
        arms, seeds = self.config.arms_of(agent), self.config.seeds
        elsewhere = agent.tested_on(agent.trained_on) != agent.trained_on
        if not agent.trained_on or (len(candidates) == 1 and not elsewhere):
            return np.zeros(self.replicas, int)
        most = max(self.config.evaluation.support_episodes)
        best, table = np.zeros(len(arms), int), np.zeros((len(arms), 0))
        if len(candidates) > 1:
            few = spread_out(agent.trained_on, self.config.evaluation.validation_domains)
            asked = tuple(Condition(most, candidate=i) for i in range(len(candidates)))
            table = self.scored(agent, scales, candidates, few, asked)
            best = table.argmax(1)
        chosen: dict[str, Any] = {}
        known = np.zeros((len(arms), 2))
        if elsewhere:
            for i in sorted(set(best)):
                asked = (Condition(most, candidate=i), Condition(0, candidate=i))
                known[best == i] = self.scored(agent, scales, candidates, agent.trained_on, asked)[best == i]
        for arm, i, row, (adapted, before) in zip(arms, best, table, known, strict=True):
            chosen[arm] = {"chosen": labels[i], "scores": dict(zip(labels, map(float, row), strict=False))}
            if elsewhere:
                chosen[arm]["training domains"] = {f"K={most}": float(adapted), "K=0": float(before)}
        folder.write_json(f"agents/{agent.id}/{VALIDATION}", chosen)
        return np.repeat(best, seeds)

    def baselines(self) -> dict[str, DomainBaselines]:
        """Baseline returns of every domain."""
        with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
            return dict(zip(self.config.domains, pool.map(self.baselines_of, self.config.domains), strict=True))

    def evaluate_everywhere(
        self, agent: TrainingRun, state: Any, folder: RunFolder, display: Display
    ) -> dict[str, np.ndarray]:
        """Query returns of an agent in every domain that it is tested on."""
        domains, clock = agent.tested_on(self.config.domains), display.seconds()
        display.state(f"{agent.label}: test on {', '.join(domains)}")
        learner = self.learner(agent)
        found = learner.candidates(learner.params(state.learner))
        candidates = [place(params, self.replicas) for params in found.values()]
        scales = jax.device_get(state.scales)
        which = self.validated(agent, scales, candidates, list(found), folder)

        def returns(domain: str) -> np.ndarray:
            """Every replica with its own candidate: all are played with each that was chosen, and their rows picked."""
            distinct = sorted(set(which))
            asked = tuple(dataclasses.replace(c, candidate=int(i)) for i in distinct for c in self.conditions)
            measured = self.evaluate(agent, scales, candidates, domain, asked)
            blocks = measured.reshape(self.replicas, len(distinct), len(self.conditions), *measured.shape[2:])
            return blocks[np.arange(self.replicas), np.searchsorted(distinct, which)]

        with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
            measured = dict(zip(domains, pool.map(returns, domains), strict=True))
        display.work.measured(("evaluation", agent.role, agent.learner), 1, display.seconds() - clock)
        display.work.plan(agent.id, {})
        display.note(f"{agent.label}: tested on {len(measured)} domains after {duration(display.seconds())}")
        return measured


def spread_out(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """``count`` of the names at equal distances; all of them for 0 or if there are no more."""
    if not 0 < count < len(names):
        return names
    return tuple(names[i * len(names) // count] for i in range(count))
