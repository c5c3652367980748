"""Resource-allocation domains as pure, jittable JAX environments with reference policies."""

from envs_jax.domains import make, register, registered
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation
from envs_jax.spaces import random_actions
from envs_jax.tasks import load_tasks
from envs_jax.version import VERSION

__all__ = [
    "VERSION",
    "EnvParams",
    "EnvState",
    "Observation",
    "ResourceEnv",
    "load_tasks",
    "make",
    "random_actions",
    "register",
    "registered",
]
