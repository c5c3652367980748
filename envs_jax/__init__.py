"""Resource-allocation domains as pure, jittable JAX environments with reference policies."""

from envs_jax.domains import make, register, registered
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation

__all__ = ["EnvParams", "EnvState", "Observation", "ResourceEnv", "make", "register", "registered"]
