"""All checks of a domain: of the contract and of what its columns mean."""

from __future__ import annotations

from collections.abc import Collection

from envs_jax.environment import ResourceEnv
from envs_jax.testing import conformance, meaning
from envs_jax.testing.conformance import Check
from envs_jax.testing.evidence import Evidence
from envs_jax.testing.requirements import DomainError

CHECKS: dict[str, Check] = conformance.CHECKS | meaning.CHECKS
"""All requirements by name, in the order in which :func:`check_domain` runs them."""


def check_domain(env: ResourceEnv, only: Collection[str] = ()) -> None:
    """Checks a domain against the whole contract; about half a minute on two cores.

    Args:
      env: the domain; it need not be registered.
      only: names of :data:`CHECKS` to run, all if none are given.

    Raises:
      DomainError: with the domain's name and one line for each check that fails.
      ValueError: for the name of a check that does not exist.
    """
    if unknown := sorted(set(only) - set(CHECKS)):
        raise ValueError(f"unknown checks {unknown}; there are {', '.join(CHECKS)}")
    evidence, faults = Evidence(env), []
    for name, check in CHECKS.items():
        if only and name not in only:
            continue
        try:
            check(evidence)
        except AssertionError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise DomainError(f"{env!r} fails {len(faults)} of its checks\n" + "\n".join(faults))
