"""Presets, YAML and flags: what is asked is what is configured, and what is not allowed is refused by name."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import pytest
import yaml
from experiments.config import PRESETS, EvaluationConfig, TransferConfig

import envs_jax
from experiments import cli, config, plan, transfer
from metarl_jax import learners

KNOWN = ", ".join(config.domain_names())


def parsed(*arguments: str) -> TransferConfig:
    return cli.parse(PRESETS, transfer._saved, arguments, "prog", "text").run


def test_domain_names_are_those_of_the_registry() -> None:
    assert config.domain_names() == envs_jax.registered()


def test_every_role_has_a_registered_learner() -> None:
    assert set(plan.LEARNERS.values()) <= set(learners.registered())


def test_default_is_the_cpu_preset() -> None:
    assert parsed() == PRESETS["cpu"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_yaml(name: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(cli.to_mapping(PRESETS[name])))
    assert parsed("--config", str(path)) == PRESETS[name]


def test_flags_override_the_file_which_overrides_the_preset(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("seeds: 7\nagent: {learning_rate: 1e-3, data: {tasks: 5}}\n")
    asked = parsed("--preset", "smoke", "--config", str(path), "--agent.data.tasks", "6", "--domains", "portfolio")
    assert asked.domains == ("portfolio",)
    assert (asked.seeds, asked.agent.learning_rate, asked.agent.data.tasks) == (7, 1e-3, 6)
    assert asked.agent.network == PRESETS["smoke"].agent.network


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sedes: 3", "unknown key 'sedes' (did you mean seeds?)"),
        ("agent: {data: {taks: 3}}", "unknown key 'agent.data.taks' (did you mean agent.data.tasks?)"),
        ("seeds: three", "seeds must be a whole number, got 'three'"),
        ("seeds: 2.0", "seeds must be a whole number, got 2.0"),
        ("seeds: true", "seeds must be a whole number, got True"),
        ("agent: {learning_rate: .nan}", "agent.learning_rate must be a number, got nan"),
        ("agent: {adaptation: {unroll: 1}}", "agent.adaptation.unroll must be true or false, got 1"),
        ("protocol: triples", "protocol must be one of both, pairs, leave-out, got 'triples'"),
        ("domains: portfolio", "domains must be a list, each text, got 'portfolio'"),
        ("evaluation: {shots: [0, one]}", "evaluation.shots must be a whole number, got 'one'"),
        ("agent: 3", "agent must hold keys and values, got 3"),
        ("evaluation: {shots: [0, -1]}", "evaluation.shots must be 0 and at least one larger K"),
        ("agent: {network: {width: 30}}", "network.width must be a multiple of network.heads=4, got 30"),
        ("- 1", "the file must hold keys and values"),
        ("seeds: [", "is not YAML"),
    ],
)
def test_yaml_is_refused_by_name(text: str, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(cli.UsageError) as error:
        parsed("--config", str(path))
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
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


@pytest.mark.parametrize("shots", [(1, 5), (0,), (0, 5, 5), (), (-1, 0)])
def test_shots_need_a_control_and_a_dose(shots: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.shots"):
        EvaluationConfig(shots=shots)


def test_plan_of_pairs() -> None:
    everyone = plan.agents("pairs", ("a", "b", "c"))
    assert [agent.label for agent in everyone] == [
        "random weights",
        "source: a",
        "source: b",
        "source: c",
        "multitask: all",
    ]
    assert len({agent.id for agent in everyone}) == len(everyone)
    source = everyone[2]
    assert [source.place(t) for t in "abc"] == [plan.OTHER, plan.OWN, plan.OTHER]
    assert plan.multitask_beside(source, everyone).trained_on == ("a", "b", "c")


def test_plan_of_leave_one_out_never_trains_on_what_it_claims() -> None:
    everyone = plan.agents("leave-out", ("a", "b", "c"))
    sources = [agent for agent in everyone if agent.role == "source"]
    assert [agent.trained_on for agent in sources] == [("b", "c"), ("a", "c"), ("a", "b")]
    for agent in sources:
        (target,) = agent.tested_on(("a", "b", "c"))
        assert agent.place(target) == plan.LEFT_OUT
        assert target not in agent.trained_on
        assert plan.multitask_beside(agent, everyone).trained_on == agent.trained_on


def test_differences_name_fields_but_not_places() -> None:
    one = TransferConfig()
    other = dataclasses.replace(one, seeds=4, results=pathlib.Path("elsewhere"), name="x")
    assert cli.differences(one, other) == ["seeds=3, not 4"]
