"""Spaces whose samples are what they describe: fair masks, whole numbers to both ends, values of the right type.

Gymnax's ``Box`` draws a mask that is always true and integers that miss their ends, and its ``Dict`` draws an
``OrderedDict`` where an environment gives a dataclass. The spaces here are subclasses of gymnax's, so that its wrappers
and its conversion to Gymnasium's spaces take them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from envs_jax.observation import BOUND, Observation


class Binary(spaces.Box):
    """Booleans ``bool[shape]``; a sample is fair coins."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(0, 1, shape, jnp.bool_)

    def sample(self, key: chex.PRNGKey) -> chex.Array:
        """``bool[shape]``, each true with probability 1/2."""
        return jax.random.bernoulli(key, 0.5, self.shape)


class Integers(spaces.Box):
    """Whole numbers ``i32[shape]`` from ``low`` to ``high``, both included."""

    def __init__(self, low: int, high: int, shape: tuple[int, ...]) -> None:
        super().__init__(low, high, shape, jnp.int32)

    def sample(self, key: chex.PRNGKey) -> chex.Array:
        """``i32[shape]``, uniform."""
        return jax.random.randint(key, self.shape, self.low, self.high + 1, jnp.int32)


class Unbounded(spaces.Box):
    """Arrays of a shape and dtype of which nothing more is promised: finite numbers, or all integers of the dtype."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        kind = np.dtype(dtype)
        info: Any = np.iinfo(kind) if kind.kind in "iu" else jnp.finfo(kind)
        super().__init__(kind.type(info.min), kind.type(info.max), shape, kind)

    def sample(self, key: chex.PRNGKey) -> chex.Array:
        """Standard normal numbers, as Gymnasium draws where there is no bound; random bits for integers."""
        if self.dtype.kind in "iu":
            bits = jax.random.bits(key, self.shape, jnp.dtype(f"uint{8 * self.dtype.itemsize}"))
            return jax.lax.bitcast_convert_type(bits, self.dtype)
        return jax.random.normal(key, self.shape, self.dtype)


class Record(spaces.Dict):
    """Named spaces, the values of which are of one type: a plain dict, or a dataclass.

    Args:
      parts: the spaces by name.
      of: makes a value of its parts, given by keyword.
    """

    def __init__(self, parts: Mapping[str, spaces.Space], of: Callable[..., Any] = dict) -> None:
        super().__init__(dict(parts))
        self.of = of

    def sample(self, key: chex.PRNGKey) -> Any:
        """A value of the type, every part drawn by itself."""
        keys = jax.random.split(key, max(self.num_spaces, 1))
        return self.of(**{name: part.sample(k) for (name, part), k in zip(self.spaces.items(), keys, strict=False)})

    def contains(self, x: Any) -> chex.Array:
        """``bool[]`` whether every part lies in its space; False where one is missing, or there are others."""
        parts = x if isinstance(x, Mapping) else vars(x) if hasattr(x, "__dict__") else {}
        if parts.keys() != self.spaces.keys():
            return jnp.bool_(False)
        inside = [jnp.bool_(part.contains(parts[name])) for name, part in self.spaces.items()]
        return jnp.all(jnp.stack(inside)) if inside else jnp.bool_(True)


class ObservationSpace(Record):
    """Observations of N tokens and A actions: features never leave plus or minus :data:`envs_jax.observation.BOUND`.

    Args:
      num_tokens: N.
      num_token_features: F.
      num_actions: A.
      num_action_features: G.
      noop_action: legal in every observation.
    """

    def __init__(
        self, num_tokens: int, num_token_features: int, num_actions: int, num_action_features: int, noop_action: int
    ) -> None:
        n, a = num_tokens, num_actions
        parts = {
            "tokens": spaces.Box(-BOUND, BOUND, (n, num_token_features), jnp.float32),
            "token_mask": Binary((n,)),
            "actions": spaces.Box(-BOUND, BOUND, (a, num_action_features), jnp.float32),
            "action_target": Integers(-1, n - 1, (a,)),
            "action_mask": Binary((a,)),
        }
        super().__init__(parts, Observation)
        self.noop_action = noop_action

    def as_type(self, of: Callable[..., Any]) -> ObservationSpace:
        """The same parts in values of another type, such as ``dict``."""
        other = copy.copy(self)
        other.of = of
        return other

    def sample(self, key: chex.PRNGKey) -> Any:
        """Random features and masks as they may come: a token is present, the no-op legal, absent tokens are 0."""
        drawn = {
            name: part.sample(k) for (name, part), k in zip(self.spaces.items(), jax.random.split(key, 5), strict=True)
        }
        drawn["token_mask"] = drawn["token_mask"].at[0].set(True)
        drawn["tokens"] = jnp.where(drawn["token_mask"][:, None], drawn["tokens"], 0.0)
        drawn["action_mask"] = drawn["action_mask"].at[self.noop_action].set(True)
        return self.of(**drawn)


def of_tree(shapes: Any) -> spaces.Space:
    """The space of a tree of arrays, by shape and dtype alone: dataclasses, dicts and tuples of arrays.

    Args:
      shapes: the tree, of arrays or of ``jax.ShapeDtypeStruct``.

    Raises:
      TypeError: for a part that is none of these.
    """
    if dataclasses.is_dataclass(shapes) and not isinstance(shapes, type):
        return Record({f.name: of_tree(getattr(shapes, f.name)) for f in dataclasses.fields(shapes)}, type(shapes))
    if isinstance(shapes, Mapping):
        return Record({name: of_tree(part) for name, part in shapes.items()})
    if isinstance(shapes, tuple | list):
        return spaces.Tuple([of_tree(part) for part in shapes])
    if not hasattr(shapes, "shape") or not hasattr(shapes, "dtype"):
        raise TypeError(f"no space for a part of type {type(shapes).__name__}")
    return Binary(shapes.shape) if shapes.dtype == jnp.bool_ else Unbounded(shapes.shape, shapes.dtype)


def random_actions(observation: Observation, key: chex.PRNGKey) -> chex.Array:
    """Uniform over legal actions.

    Args:
      observation: one, or a batch with any leading dimensions.
      key: of this choice.

    Returns:
      ``i32`` of the observation's batch shape; 0 where nothing is legal, as in padding.
    """
    mask = observation.action_mask
    count = mask.shape[-1]
    # Running counts as a product with a triangle of ones: exact, and on CPU several times faster than a cumulative sum.
    upto = mask.astype(jnp.float32) @ jnp.triu(jnp.ones((count, count), jnp.float32))
    legal = upto[..., -1]
    rank = jnp.minimum(jnp.floor(jax.random.uniform(key, mask.shape[:-1], jnp.float32) * legal), legal - 1)
    return jnp.sum(upto <= rank[..., None], axis=-1, dtype=jnp.int32)
