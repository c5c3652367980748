"""Resource-allocation domains as pure, jittable JAX environments with reference policies."""

from envs_jax.domains import make, register, registered
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation

VERSION = "2.0"
"""Of observations and rewards: results of different versions cannot be compared (``docs/changelog.md``)."""

__all__ = ["VERSION", "EnvParams", "EnvState", "Observation", "ResourceEnv", "make", "register", "registered"]
