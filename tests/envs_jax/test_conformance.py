"""What every registered domain must satisfy, tested alike on each; a new domain is covered by registering it."""

import functools

import gymnax
import pytest

import envs_jax
from envs_jax.testing import CHECKS
from envs_jax.testing.evidence import Evidence, leaves

LONG = (
    "expected_reward_is_the_mean_reward",
    "lockstep_equals_plain_vmap",
    "jit_equals_no_jit",
    "hidden_fields_can_be_felt",
    "equal_keys_give_equal_episodes",
    "serving_the_urgent_pays",
    "the_reference_serves_the_urgent",
    "the_heuristic_reads_what_is_shown",
    "an_optimal_reference_cannot_be_improved",
    "corners_of_every_range_keep_all_this",
)
"""Checks that compile programs of their own or need many episodes: slow in every domain, and run in CI."""

every_domain = pytest.mark.parametrize("name", envs_jax.registered())


@functools.lru_cache(maxsize=2)
def evidence(name):
    """A domain's tasks, episodes and compiled programs, shared by all tests of this module."""
    return Evidence(envs_jax.make(name)[0])


@pytest.mark.parametrize("check", [pytest.param(c, marks=[pytest.mark.slow] * (c in LONG)) for c in CHECKS])
@every_domain
def test_a_domain_keeps_the_contract(name, check):
    CHECKS[check](evidence(name))


@every_domain
def test_a_domain_is_made_once_under_its_name_and_gymnax_gives_the_same(name):
    env, default = envs_jax.make(name)
    assert env.name == name
    assert envs_jax.make(name)[0] is env
    same, params = gymnax.make(name)
    assert same is env
    assert all((x == y).all() for x, y in zip(leaves(params).values(), leaves(default).values(), strict=True))
