"""Tasks of the meta-learning literature that gymnax lacks, in the contract of the suite; none is registered there.

Each has what the registered domains have (hidden task, reference that knows it, rule that does not) and one token, as
the adapter of gymnax's environments has. Rewards of the first episode of a trial to its last are what a paper adds up.
"""

from envs_jax.foreign.bandits import BernoulliBandit
from envs_jax.foreign.grid_navigation import GridNavigation
from envs_jax.foreign.point_navigation import PointNavigation

__all__ = ["BernoulliBandit", "GridNavigation", "PointNavigation"]
