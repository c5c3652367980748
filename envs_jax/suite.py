"""Domains that are padded to common shapes, so that one network program serves them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from envs_jax import domains, observation
from envs_jax.environment import ResourceEnv
from envs_jax.observation import Observation
from envs_jax.rollout import Tasks


@dataclasses.dataclass(frozen=True)
class Suite:
    """Domains and the common shapes to which their observations are padded.

    Suites that share their padded shapes share compiled network programs, whichever
    domains they hold: build one suite of all domains and take ``subset`` of it.

    Attributes:
      names: registered names.
      envs: the environments.
      num_tokens: padded entities (N).
      num_actions: padded actions (A).
      num_periods: padded periods of an episode (P).
      horizon: padded choices of an episode (L).
      token_features: columns of a token (F), the same in all domains.
      action_features: columns of an action's description (G), the same in all domains.
    """

    names: tuple[str, ...]
    envs: tuple[ResourceEnv, ...]
    num_tokens: int
    num_actions: int
    num_periods: int
    horizon: int
    token_features: int
    action_features: int

    @property
    def shapes(self) -> tuple[int, ...]:
        """The padded shapes: ``(N, A, P, L, F, G)``. Learners of suites that agree in them share programs."""
        features = (self.token_features, self.action_features)
        return (self.num_tokens, self.num_actions, self.num_periods, self.horizon, *features)

    @classmethod
    def make(cls, names: Sequence[str]) -> Suite:
        """Builds the named domains with common padding.

        Raises:
          ValueError: for an unknown or repeated name, or none.
        """
        if not names:
            raise ValueError("a suite needs at least one domain")
        if len(set(names)) != len(names):
            raise ValueError(f"domains are listed more than once: {', '.join(names)}")
        return cls.of(tuple(domains.make(name)[0] for name in names), tuple(names))

    @classmethod
    def of(cls, envs: tuple[ResourceEnv, ...], names: tuple[str, ...] | None = None) -> Suite:
        """Wraps environments that need not be registered (probe environments, foreign tasks).

        Raises:
          ValueError: if their tokens or actions have different columns.
        """
        features = {(env.num_token_features, env.num_action_features) for env in envs}
        if len(features) != 1:
            raise ValueError(f"the domains of a suite must share their columns, got {sorted(features)}")
        ((token_features, action_features),) = features
        return cls(
            names=names or tuple(env.name for env in envs),
            envs=envs,
            num_tokens=max(env.num_tokens for env in envs),
            num_actions=max(env.num_actions for env in envs),
            num_periods=max(env.num_periods for env in envs),
            horizon=max(env.horizon for env in envs),
            token_features=token_features,
            action_features=action_features,
        )

    def subset(self, names: Sequence[str], tight: bool = False) -> Suite:
        """The named domains, in this suite's order.

        Args:
          names: of domains in this suite.
          tight: False keeps this suite's padding (fewer programs to compile, more to compute), True pads no more than
            the named domains need.

        Raises:
          ValueError: for a name that is not in this suite.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise ValueError(f"domains {unknown} are not in this suite: {', '.join(self.names)}")
        chosen = [i for i, name in enumerate(self.names) if name in names]
        kept, envs = tuple(self.names[i] for i in chosen), tuple(self.envs[i] for i in chosen)
        return Suite.of(envs, kept) if tight else dataclasses.replace(self, names=kept, envs=envs)

    def buckets(self, count: int = 3) -> tuple[Suite, ...]:
        """The domains in at most ``count`` groups of like shape, each padded no more than it needs.

        One padding for all lets the domain of most tokens and that of most actions set the cost of every other. The
        groups are merged from single domains, always the two that add the fewest padded features to a batch of one
        environment a domain. Within a group the suite's order is kept; groups come in the order of their first domain.

        Args:
          count: most groups, 1 or more; each is one more program to compile.

        Raises:
          ValueError: for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count of buckets must be at least 1, got {count}")

        def features(group: Sequence[int]) -> int:
            tokens = max(self.envs[i].num_tokens for i in group)
            actions = max(self.envs[i].num_actions for i in group)
            return len(group) * (tokens * self.token_features + actions * self.action_features)

        groups: list[tuple[int, ...]] = [(i,) for i in range(len(self.envs))]
        while len(groups) > count:
            pairs = [(a, b) for i, a in enumerate(groups) for b in groups[i + 1 :]]
            one, other = min(pairs, key=lambda pair: features(pair[0] + pair[1]) - sum(map(features, pair)))
            merged = tuple(sorted(one + other))
            groups = sorted([merged, *(group for group in groups if group not in (one, other))])
        return tuple(self.subset([self.names[i] for i in group], tight=True) for group in groups)

    def sample_tasks(self, key: chex.PRNGKey, count: int) -> Tasks:
        """``count`` tasks of every domain."""
        keys = jax.random.split(key, len(self.envs))
        return tuple(
            jax.vmap(env.sample_params)(jax.random.split(k, count)) for env, k in zip(self.envs, keys, strict=True)
        )

    def episode_keys(self, key: chex.PRNGKey, count: int, episodes: int) -> tuple[chex.PRNGKey, ...]:
        """Keys ``[count, episodes]`` for every domain."""
        return tuple(jax.random.split(k, (count, episodes)) for k in jax.random.split(key, len(self.envs)))

    def join(self, observations: Sequence[Observation]) -> Observation:
        """Pads and concatenates the domains' observations ``[B_d, ...]`` into one ``[M, ...]``."""
        padded = [observation.pad(o, self.num_tokens, self.num_actions) for o in observations]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=0), *padded)

    def split(self, flat: chex.Array, sizes: Sequence[int]) -> tuple[chex.Array, ...]:
        """Inverse of concatenation along the task axis: ``[M, ...]`` into ``[B_d, ...]`` each."""
        offsets = [sum(sizes[:i]) for i in range(1, len(sizes))]
        return tuple(jnp.split(flat, offsets, axis=0))
