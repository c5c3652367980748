"""What every registered domain must satisfy, tested alike on each; a new domain is covered by registering it."""

import functools

import gymnax
import pytest

import envs_jax
from envs_jax.testing import CHECKS
from envs_jax.testing.evidence import Evidence, leaves

QUICK = ("data_center", "portfolio", "supply_chain")
"""Domains whose contract is cheap to check; that of the others is slow, and checked in CI (``-m slow -k NAME``)."""

every_domain = pytest.mark.parametrize("name", envs_jax.registered())


@functools.lru_cache(maxsize=2)
def evidence(name):
    """A domain's tasks, episodes and compiled programs, shared by all tests of this module."""
    return Evidence(envs_jax.make(name)[0])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in envs_jax.registered()]
)
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
