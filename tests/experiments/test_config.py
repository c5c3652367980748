"""Presets, YAML and flags: what is asked is what is configured, and what is not allowed is refused by name."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any, get_type_hints

import pytest
import yaml

import envs_jax
from envs_jax import observation
from experiments.harness import cli, learners, memory, settings, values
from experiments.harness.errors import UsageError
from experiments.harness.plan import CROSS_DOMAIN, HELD_OUT, IN_DOMAIN, MULTITASK_LEARNER, ONE_AGENT, multitask_beside
from experiments.harness.settings import EvaluationConfig, TrainingConfig
from experiments.transfer import plan
from experiments.transfer.configuration import PRESETS, TransferConfig
from metarl_jax import checks
from metarl_jax import learners as registry
from metarl_jax.configs import TransformerDqnConfig

KNOWN = ", ".join(settings.domain_names())


def parsed(*arguments: str) -> TransferConfig[Any]:
    return cli.parse("transfer", PRESETS, arguments, "prog", "text").run


def test_domain_names_are_those_of_the_registry() -> None:
    assert settings.domain_names() == envs_jax.registered()


def test_learners_are_those_of_the_registry() -> None:
    assert learners.registered() == registry.registered()
    assert MULTITASK_LEARNER in registry.registered()
    for name in registry.registered():
        assert learners.config_class(name) is registry.config_class(name)


FIXED = {
    "optimizer_gating": (("adaptation", "rule"),),
    "learned_optimizer": (("adaptation", "rule"),),
    "maml_dqn": (("network", "mixing"), ("adaptation", "adapt")),
}
"""Part and field that a learner does not leave open."""


@pytest.mark.parametrize("name", registry.registered())
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_one_of_every_learner(preset: str, name: str, tmp_path: pathlib.Path) -> None:
    given, asked = PRESETS[preset].agent, parsed("--preset", preset, "--learner", name)
    assert type(asked.agent) is learners.config_class(name)
    for field in ("network", "data", "adaptation"):
        own = getattr(asked.agent, field, None)
        fixed = {key: getattr(own, key) for owner, key in FIXED.get(name, ()) if owner == field}
        assert own in (dataclasses.replace(getattr(given, field), **fixed), None)
    arms = PRESETS[preset].arms if learners.uses_labels(type(asked.agent)) else ("rl-only",)
    assert asked.arms == (("reference",) if learners.needs_labels(type(asked.agent)) else arms)
    runs = plan.plan(asked)
    assert {run.learner for run in runs if run.role != "multitask"} == {name}
    assert {run.learner for run in runs if run.role == "multitask"} == {MULTITASK_LEARNER}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values.to_mapping(asked)))
    assert parsed("--config", str(path)) == asked


def test_flags_of_the_chosen_learner(tmp_path: pathlib.Path) -> None:
    asked = parsed("--agent.fine-tuning.step-sizes", "0.5", "1e-3", "--learner", "transformer_dqn")
    assert asked.agent.fine_tuning.step_sizes == (0.5, 0.001)
    path = tmp_path / "some.yaml"
    path.write_text("learner: transformer_dqn\nagent: {fine_tuning: {step_sizes: [0.5]}}\n")
    assert parsed("--config", str(path)).agent.fine_tuning.step_sizes == (0.5,)
    over = parsed("--config", str(path), "--agent.fine-tuning.step-sizes", "0.1", "--agent.network.layers", "2")
    assert (over.agent.fine_tuning.step_sizes, over.agent.network.layers) == ((0.1,), 2)


def test_a_learner_without_labels_has_one_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformerDqnConfig, "labels", False, raising=False)
    assert learners.for_learner(PRESETS["smoke"], "transformer_dqn").arms == ("rl-only",)
    with pytest.raises(UsageError, match="takes no labels"):
        parsed("--preset", "smoke", "--learner", "transformer_dqn", "--arms", "reference")


def test_a_learner_takes_its_own_configuration() -> None:
    with pytest.raises(ValueError, match="learner transformer_dqn takes a TransformerDqnConfig, got a TransformerMaml"):
        dataclasses.replace(PRESETS["cpu"], learner="transformer_dqn")


def test_every_number_has_bounds() -> None:
    for kind in (TransferConfig, TrainingConfig, EvaluationConfig):
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if hints[field.name] in (int, float, tuple[int, ...], tuple[float, ...]):
                assert checks.allowed(field) is not None, f"{kind.__name__}.{field.name}"


def test_memory_knows_the_observation() -> None:
    assert memory.TOKEN_FEATURES == observation.NUM_TOKEN_FEATURES
    assert memory.ACTION_FEATURES == observation.NUM_ACTION_FEATURES


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"memory": 8 * 2**30}
    monkeypatch.setattr("experiments.harness.machine.memory_limits", lambda: limits)
    runs = len(plan.plan(PRESETS[name]))
    if name != "gpu":
        memory.check(PRESETS[name], runs)
    limits["memory"] = 2**30
    with pytest.raises(UsageError, match=r"memory: this run needs at least [0-9.]+ GiB, there are 1.0 GiB"):
        memory.check(PRESETS[name], runs)
    limits |= {"memory": 64 * 2**30, "address space": 1_500_000 * 1024}
    with pytest.raises(UsageError, match=r"address space: this run needs at least .*raise ulimit -v"):
        memory.check(PRESETS["smoke"], 5)


def test_results_are_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "some.yaml").write_text("results: ~/x\ncache_dir: ~/y\n")
    assert parsed("--results=~/x").results == tmp_path / "x"
    asked = parsed("--config=~/some.yaml")
    assert (asked.results, asked.cache_dir) == (tmp_path / "x", tmp_path / "y")


def test_booleans_and_nothing(tmp_path: pathlib.Path) -> None:
    assert parsed("--agent.adaptation.unroll").agent.adaptation.unroll is True
    path = tmp_path / "some.yaml"
    path.write_text("agent: {adaptation: {unroll: true}}\ncache_dir: /tmp\nname: no\n")
    asked = parsed("--config", str(path), "--agent.adaptation.no-unroll", "--cache-dir", "None")
    assert (asked.agent.adaptation.unroll, asked.cache_dir, asked.name) == (False, None, "no")


@pytest.mark.parametrize("text", ["", "~", "# nothing\n", "---\n"])
def test_an_empty_file_changes_nothing(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    assert parsed("--config", str(path)) == PRESETS["cpu"]


def test_default_is_the_cpu_preset() -> None:
    assert parsed() == PRESETS["cpu"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_yaml(name: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values.to_mapping(PRESETS[name])))
    assert parsed("--config", str(path)) == PRESETS[name]


def test_flags_override_the_file_which_overrides_the_preset(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("seeds: 7\nagent: {learning_rate: 1e-3, data: {tasks: 5}}\n")
    asked = parsed("--preset", "smoke", "--config", str(path), "--agent.data.tasks", "6", "--domains", "portfolio")
    assert asked.domains == ("portfolio",)
    assert (asked.seeds, asked.agent.learning_rate, asked.agent.data.tasks) == (7, 1e-3, 6)
    assert asked.agent.network == PRESETS["smoke"].agent.network


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds must be a whole number at least 1 and at most 1000, got 0"),
        ({"seed": -1}, "seed must be a whole number at least 0 and at most 4294967295, got -1"),
        ({"domains": ("portfolio", "atlantis")}, f"domains: unknown domain 'atlantis'; allowed: {KNOWN}"),
        ({"domains": ("portfolio", "portfolio")}, "domains must not repeat a value"),
        ({"domains": ()}, "domains must not be empty"),
        (
            {"domains": ("portfolio",)},
            "protocol both needs at least 2 domains, got portfolio; or give --protocol pairs",
        ),
        ({"groups": 1}, "groups must be 0 or at least 2, got 1"),
        ({"arms": ("rl-only", "rlonly")}, "arms: unknown arm 'rlonly' (did you mean rl-only?)"),
        ({"name": "a/b"}, "name must be one folder's name"),
        ({"name": ".."}, "name must be one folder's name"),
    ],
)
def test_values_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(TransferConfig(), **changes)  # type: ignore[arg-type]


def test_an_arm_without_weight_is_refused() -> None:
    smoke = PRESETS["smoke"]
    one = dataclasses.replace(smoke.agent, reference_weight=0.0)
    with pytest.raises(ValueError, match="reference_weight must be above 0 for arm reference"):
        dataclasses.replace(smoke, agent=one)
    assert dataclasses.replace(smoke, agent=one, arms=("rl-only",)).arms == ("rl-only",)


@pytest.mark.parametrize("doses", [(1, 5), (0,), (0, 5, 5), (), (-1, 0)])
def test_support_episodes_need_a_control_and_a_dose(doses: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.support_episodes"):
        EvaluationConfig(support_episodes=doses)


def test_plan_of_pairs() -> None:
    everyone = plan.training_runs("pairs", ("a", "b", "c"))
    assert [agent.label for agent in everyone] == [
        "random weights",
        "source: all",
        "source: a",
        "source: b",
        "source: c",
        "multitask: all",
    ]
    assert len({agent.id for agent in everyone}) == len(everyone)
    assert {everyone[1].setting(t) for t in "abc"} == {ONE_AGENT}
    source = everyone[3]
    assert [source.setting(t) for t in "abc"] == [CROSS_DOMAIN, IN_DOMAIN, CROSS_DOMAIN]
    assert "source: all" not in [agent.label for agent in plan.training_runs("pairs", ("a",))]
    assert multitask_beside(source, everyone).trained_on == ("a", "b", "c")


def test_plan_of_leave_one_out_never_trains_on_what_it_claims() -> None:
    everyone = plan.training_runs("leave-out", ("a", "b", "c"))
    sources = [agent for agent in everyone if agent.role == "source"]
    assert [agent.trained_on for agent in sources] == [("b", "c"), ("a", "c"), ("a", "b")]
    for agent in sources:
        (target,) = agent.tested_on(("a", "b", "c"))
        assert agent.setting(target) == HELD_OUT
        assert target not in agent.trained_on
        assert multitask_beside(agent, everyone).trained_on == agent.trained_on


def test_differences_name_fields_but_not_locations() -> None:
    one = TransferConfig()
    other = dataclasses.replace(one, seeds=4, results=pathlib.Path("elsewhere"), name="x")
    assert values.differences(one, other, settings.LOCATIONS) == ["seeds=3, not 4"]
