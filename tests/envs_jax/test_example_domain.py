"""The example of docs/extending.md: conforms, is optimal as it says, and is registered as that page says."""

import importlib.util
import itertools
import pathlib

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import domains
from envs_jax.suite import Suite
from envs_jax.testing import DomainError, check_domain

PATH = pathlib.Path(__file__).parents[2] / "docs/examples/reservoir.py"


def load():
    specification = importlib.util.spec_from_file_location("reservoir", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


reservoir = load()


def test_the_example_is_short():
    assert len(PATH.read_text().splitlines()) <= 140


@pytest.mark.slow
def test_the_example_keeps_the_whole_contract():
    check_domain(reservoir.Reservoir())


def test_the_reference_is_the_optimum_of_all_policies_of_two_periods():
    env = reservoir.Reservoir(num_periods=2)
    params = env.default_params.replace(wetness=jnp.float32(0.6), spill_cost=jnp.float32(0.7))
    rain = [(w, chance) for w, chance in enumerate(np.array([0.0256, 0.1536, 0.3456, 0.3456, 0.1296]))]

    def period(level, release):
        return [
            (chance, release**0.5 - 0.7 * max(level - release + w - 10, 0), min(level - release + w, 10))
            for w, chance in rain
        ]

    def last(level):
        return max(sum(chance * reward for chance, reward, _ in period(level, a)) for a in range(min(level, 3) + 1))

    plan = jax.jit(env.solve)(params)
    for level, release in itertools.product(range(11), range(4)):
        if release <= level:
            value = sum(chance * (reward + last(then)) for chance, reward, then in period(level, release))
            assert value <= plan.value[0, level] + 1e-5
            assert release != plan.actions[0, 0, level] or abs(value - plan.value[0, level]) < 1e-5


def test_one_line_registers_it(monkeypatch):
    monkeypatch.setattr(domains, "_registered", {})
    monkeypatch.setattr(gymnax.registration, "_registry", dict(gymnax.registration._registry))
    monkeypatch.setattr(gymnax.registration, "registered_envs", list(gymnax.registered_envs))
    domains._instance.cache_clear()
    envs_jax.register("reservoir", reservoir.Reservoir)
    try:
        assert envs_jax.registered()[-1] == "reservoir"
        env, params = envs_jax.make("reservoir", num_periods=5)
        assert env.horizon == int(params.max_steps_in_episode) == 5
        assert gymnax.make("reservoir", num_periods=5)[0] is env
        assert Suite.make(("supply_chain", "reservoir")).names == ("supply_chain", "reservoir")
        for name in ("reservoir", "supply_chain"):
            with pytest.raises(ValueError, match=f"'{name}' is registered already"):
                envs_jax.register(name, reservoir.Reservoir)
    finally:
        domains._instance.cache_clear()


@pytest.mark.parametrize(
    ("check", "message", "attributes"),
    [
        (
            "hidden_fields_can_be_felt",
            "without effect on rewards or observations: idle",
            {
                "hidden": ("wetness", "idle"),
            },
        ),
        ("states_its_sizes_and_kinds", "which are no parameters", {"hidden": ("wettness",)}),
    ],
)
def test_a_fault_is_named(check, message, attributes):
    class Faulty(reservoir.Reservoir):
        @property
        def default_params(self):
            own = super().default_params
            return Params(**vars(own), idle=jnp.float32(0.0)) if "idle" in self.hidden else own

        def sample_params(self, key):
            task = super().sample_params(key)
            luck = envs_jax.sampling.uniforms(key, envs_jax.sampling.TASK_INDEX, 3)[2]
            return task.replace(idle=luck) if "idle" in self.hidden else task

    for name, value in attributes.items():
        setattr(Faulty, name, value)
    with pytest.raises(DomainError, match=message) as raised:
        check_domain(Faulty(num_periods=3), only=(check,))
    assert "reservoir" in str(raised.value)
    assert check in str(raised.value)


@envs_jax.environment.struct.dataclass
class Params(reservoir.ReservoirParams):
    idle: jax.Array


def test_an_expected_reward_that_is_off_by_three_per_cent_is_found():
    class Off(reservoir.Reservoir):
        def advance(self, state, uniforms, params):
            state, reward, info = super().advance(state, uniforms, params)
            return state, reward, info | {"expected_reward": 1.03 * info["expected_reward"]}

    with pytest.raises(DomainError, match="expected_reward is off"):
        check_domain(Off(num_periods=8), only=("expected_reward_is_the_mean_reward",))


def test_a_task_drawn_from_the_uniforms_of_a_period_is_found():
    class Shared(reservoir.Reservoir):
        def sample_params(self, key):
            return self.default_params.replace(wetness=envs_jax.sampling.uniforms(key, 0, 1)[0])

    with pytest.raises(DomainError, match="sample_params draws uniforms of index"):
        check_domain(Shared(num_periods=3), only=("noise_comes_from_key_and_period_alone",))


def test_unknown_checks_are_refused():
    with pytest.raises(ValueError, match="unknown checks"):
        check_domain(reservoir.Reservoir(num_periods=3), only=("all",))
