"""Public checks for whoever writes a domain of their own."""

from envs_jax.testing.numpy_model import (
    BatchModel,
    LoopModel,
    Recording,
    Tolerances,
    check_numpy_model,
    columns,
    leaves_by_name,
    record_episode,
)

__all__ = [
    "BatchModel",
    "LoopModel",
    "Recording",
    "Tolerances",
    "check_numpy_model",
    "columns",
    "leaves_by_name",
    "record_episode",
]
