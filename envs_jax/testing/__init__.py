"""What a domain must satisfy, as one call: for domains of this package and of others'."""

from envs_jax.testing.conformance import CHECKS, DomainError, check_domain

__all__ = ["CHECKS", "DomainError", "check_domain"]
