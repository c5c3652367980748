"""The variant of docs/extending.md, as it stands there: one file, one registry line."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.suite import Suite
from metarl_jax import learners, training
from metarl_jax.collection import Collector
from metarl_jax.configs import AdaptationConfig, DataConfig, QLearningConfig
from metarl_jax.rollouts import DomainPrograms
from metarl_jax.runtime.programs import Programs
from tests.metarl_jax import probes, small

PAGE = (pathlib.Path(__file__).parents[2] / "docs/extending.md").read_text()
NAME = "soft_maml_dqn"
FILE, LINE = re.findall(r"```python\n(.*?)```", PAGE[PAGE.index("### A variant") :], re.DOTALL)


@pytest.fixture
def variant(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The file beside the other learners, its line in the registry."""
    path = tmp_path / f"{NAME}.py"
    path.write_text(FILE)
    name = f"metarl_jax.learners.{NAME}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    key, value = re.fullmatch(r'\s*"(\w+)": "(\w+)",\s*', LINE).groups()  # type: ignore[union-attr]
    monkeypatch.setitem(learners._LEARNERS, key, value)
    return module


def test_it_is_short() -> None:
    assert FILE.count("\n") <= 150
    assert LINE.count("\n") == 1


def test_the_soft_target_by_hand(variant: object) -> None:
    q = jnp.array([0.1, 0.3, -1e9])
    tau = variant.TEMPERATURE  # type: ignore[attr-defined]
    expected = 1.0 + 0.5 * tau * np.log((np.exp(0.1 / tau) + np.exp(0.3 / tau)) / 2)
    found = variant.soft_target(jnp.float32(1.0), jnp.float32(0.5), q, q)  # type: ignore[attr-defined]
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_variant_trains_by_its_name(variant: object) -> None:
    suite, programs = Suite.of((probes.Match(),)), Programs(1)
    config = learners.config_class(NAME)(
        network=small.NETWORK,
        data=DataConfig(tasks=2, episodes=1, periods=4),
        learning=QLearningConfig(samples=2, num_steps=1, updates=1, replay=1),
        adaptation=AdaptationConfig(steps=1),
        order="none",
    )
    learner = learners.make(NAME, config, suite)
    assert learner.name == NAME
    collector, domain = Collector(learner, suite, programs), DomainPrograms.of(suite, "match", programs)
    hyperparams = training.stack([learner.hyperparams(2, True)])
    run = training.train(learner, collector, [domain], jax.random.key(0), hyperparams, training.Pace(2, 1))
    assert int(run.learner.iteration[0]) == 2
