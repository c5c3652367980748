"""Public checks for whoever writes a domain of their own: what it must satisfy, and agreement with NumPy models."""

from envs_jax.testing.checks import CHECKS, check_domain
from envs_jax.testing.numpy_model import (
    BatchModel,
    LoopModel,
    Recording,
    Tolerances,
    check_numpy_model,
    columns,
    leaves_by_name,
    record_episode,
    relative,
)
from envs_jax.testing.requirements import DomainError

__all__ = [
    "CHECKS",
    "BatchModel",
    "DomainError",
    "LoopModel",
    "Recording",
    "Tolerances",
    "check_domain",
    "check_numpy_model",
    "columns",
    "leaves_by_name",
    "record_episode",
    "relative",
]
