"""Both ways across gymnax's interface: other suites' tasks in the shape of this one, and this suite for other clients.

:class:`GymnaxTask` makes a gymnax environment a domain. :class:`FlatObservation` and :class:`DictObservation` show a
domain to clients that take arrays or plain dicts, :class:`GymnasiumEnv` to those of Gymnasium.
"""

from envs_jax.adapters.gymnasium_env import GymnasiumEnv
from envs_jax.adapters.gymnax_task import GymnaxTask
from envs_jax.adapters.views import DictObservation, FlatObservation

__all__ = ["DictObservation", "FlatObservation", "GymnasiumEnv", "GymnaxTask"]
