"""The observation vocabulary that all domains share.

One set of network weights can only mean something in a domain it has never seen if every domain speaks the same
language. So an observation is a set of entity *tokens* whose columns mean the same everywhere (and have the same sign:
more urgency always means "needs resource"), and an action is *described* (which token it concerns, how much, in which
direction) rather than numbered. The name of the domain is never in an observation.

The *strict* columns have a definition that a test checks in every domain (:mod:`envs_jax.testing.meaning`); the private
ones promise nothing: a domain says what it puts there. ``docs/vocabulary.md`` lists what each column is in each domain.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence

import chex
import jax
import jax.numpy as jnp
from flax import struct

ROLES = ("supplier", "demand", "store", "carrier", "market", "place", "clock")
"""What an entity is. A token carries exactly one role, one-hot in the columns ``role_<name>``."""

TOKEN_MEANINGS: Mapping[str, str] = {
    "urgency": "in [0, 1]: what waiting here costs a period, in the domain's own price, relative to the entity where "
    "it costs most now; 1 there, unless it costs nothing anywhere. Of hidden prices, the public part",
    "slack": "in [0, 1]: room or time left before waiting here costs; 0 none, 1 all there can be",
    **{f"role_{role}": f"1 if the entity is a {role}, else 0; one role each" for role in ROLES},
    "level": "what the entity holds now, relative to its own capacity or the domain's scale; signed for positions",
    "capacity": "in [0, 1]: its capacity as a share of the largest of its role; 0 if it has none",
    "inflow": "0 or more: what arrives by the next period, as far as can be seen, in the domain's scale",
    "outflow": "0 or more: what left in the last period (served demand, sold energy), in the domain's scale",
    "waiting": "0 or more: what waits for service, in the domain's scale",
    "age": "0 or more: age of the oldest that waits, or how long the entity has been as it is, in the domain's scale",
    "unit_cost": "0 or more: what holding, moving or using one unit costs, in the domain's price scale",
    "unit_value": "what one unit earns, or what missing it costs, in the domain's price scale",
    "is_turn": "1 for exactly one entity: whose choice this is; where the chooser is none, a place or the clock",
    "is_candidate": "1 if a legal action other than doing nothing concerns the entity, else 0",
    "decided": "what has been chosen for the entity in this period so far, signed; 0 at a period's first choice",
    "cycle_sin": "phase of the day or season, with cycle_cos on the unit circle; both 0 if there is none",
    "cycle_cos": "see cycle_sin",
    "progress": "in [0, 1]: share of the episode gone, of every entity",
    "last_reward": "reward of the last finished period in the domain's reward scale, of every entity",
}
"""The strict columns of a token and what they mean in every domain."""

ACTION_MEANINGS: Mapping[str, str] = {
    "is_noop": "1 only for doing nothing, which is then the domain's no-op, and describes neither amount nor direction",
    "amount": "in [0, 1]: size of the allocation as a fraction of the largest",
    "signed": "amount with the direction in which the target feels it: + relieves what waits or is short there, - "
    "takes resource away or loads it, 0 neither",
}
"""The strict columns of an action's description; ``action_target`` says which entity it concerns."""

PRIVATE_TOKEN_COLUMNS = tuple(f"private_{letter}" for letter in "abcdef")
PRIVATE_ACTION_COLUMNS = tuple(f"private_{letter}" for letter in "abcd")
"""Columns that promise nothing beyond their domain."""

TOKEN_COLUMNS = (*TOKEN_MEANINGS, *PRIVATE_TOKEN_COLUMNS)
NUM_TOKEN_FEATURES = len(TOKEN_COLUMNS)

ACTION_COLUMNS = (*ACTION_MEANINGS, *PRIVATE_ACTION_COLUMNS)
NUM_ACTION_FEATURES = len(ACTION_COLUMNS)

BOUND = 10.0
"""Features lie within plus or minus this; most within 1."""


def column_index(name: str, columns: Sequence[str] = TOKEN_COLUMNS) -> int:
    """Position of a column of the vocabulary.

    Raises:
      ValueError: for a name outside ``columns``.
    """
    if name not in columns:
        near = difflib.get_close_matches(name, columns, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the vocabulary has {', '.join(columns)}"
        raise ValueError(f"unknown column {name!r}; {hint}")
    return columns.index(name)


@struct.dataclass
class Observation:
    """What an agent sees. Leading batch dimensions may stand before each shape.

    Attributes:
      tokens: ``f32[N, F]`` entities, columns as in :data:`TOKEN_COLUMNS`, dimensionless, roughly in [-1, 1].
      token_mask: ``bool[N]`` which tokens exist.
      actions: ``f32[A, G]`` descriptions of the actions, columns as in :data:`ACTION_COLUMNS`.
      action_target: ``i32[A]`` the token an action concerns, -1 for none.
      action_mask: ``bool[A]`` which actions are legal; at least one always is.
    """

    tokens: chex.Array
    token_mask: chex.Array
    actions: chex.Array
    action_target: chex.Array
    action_mask: chex.Array

    def column(self, name: str) -> chex.Array:
        """A column of all tokens by name, ``f32[..., N]``.

        Raises:
          ValueError: for a name outside :data:`TOKEN_COLUMNS`.
        """
        return self.tokens[..., column_index(name)]

    def action_column(self, name: str) -> chex.Array:
        """A column of all actions' descriptions by name, ``f32[..., A]``.

        Raises:
          ValueError: for a name outside :data:`ACTION_COLUMNS`.
        """
        return self.actions[..., column_index(name, ACTION_COLUMNS)]


def bounded(feature: chex.Array) -> chex.Array:
    """Keeps a feature that has no bounds of its own, such as a price, within those of the observation space."""
    return jnp.clip(feature, -BOUND, BOUND)


Values = Mapping[str, chex.Numeric]
"""Columns by name, each a scalar or ``f32[rows]``; columns left out are 0."""

DERIVED = ("is_candidate", *(f"role_{role}" for role in ROLES))
"""Columns that :func:`make_observation` fills in itself."""


def _rows(part: chex.Numeric, rows: int) -> chex.Array:
    """A column of so many rows from a scalar or ``f32[rows]``."""
    return jnp.broadcast_to(jnp.asarray(part, jnp.float32), (rows,))


def _shares(parts: Sequence[chex.Array]) -> list[chex.Array]:
    """Several parts of a column, relative to the largest of all; all 0 where none is above 0."""
    largest = functools.reduce(jnp.maximum, [jnp.max(part) for part in parts])
    unit = jnp.where(largest > 0.0, largest, 1.0)
    return [part / unit for part in parts]


def make_observation(
    tokens: Sequence[tuple[str, int, Values]],
    actions: Values,
    action_target: chex.Array,
    action_mask: chex.Array,
    token_mask: chex.Array | None = None,
) -> Observation:
    """Assembles what an agent sees from named columns.

    Three things are the same in every domain and are done here: ``urgency`` is given as a cost in the domain's own
    price, 0 or more, and becomes relative to the largest of all entities that exist; ``capacity`` is given in the
    domain's own unit and becomes a share of the largest of its role; ``is_candidate`` follows from the legal actions.

    Args:
      tokens: one block ``(role, rows, columns)`` after another; each column a scalar or ``f32[rows]``.
      actions: columns of the actions' descriptions, each a scalar or ``f32[A]``.
      action_target: ``i32[A]`` the token an action concerns, -1 for none.
      action_mask: ``bool[A]`` which actions are legal.
      token_mask: ``bool[N]`` which tokens exist, all by default; the columns of the others are 0.

    Raises:
      ValueError: for a role or column outside the vocabulary, or a column that is filled in here.
    """
    for role, _, values in tokens:
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; the vocabulary has {', '.join(ROLES)}")
        for name in values:
            column_index(name)
            if name in DERIVED:
                raise ValueError(f"column {name!r} is filled in by make_observation")
    for name in actions:
        column_index(name, ACTION_COLUMNS)
    sizes, num_actions = [rows for _, rows, _ in tokens], action_target.shape[-1]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    exists = [None if token_mask is None else token_mask[at : at + n] for at, n in zip(starts, sizes, strict=True)]

    def given(name: str, i: int) -> chex.Array:
        part, here = _rows(tokens[i][2].get(name, 0.0), sizes[i]), exists[i]
        return part if here is None else jnp.where(here, part, 0.0)

    everyone = range(len(tokens))
    urgency = _shares([given("urgency", i) for i in everyone])
    capacity: dict[int, chex.Array] = {}
    for role in dict.fromkeys(role for role, _, _ in tokens):
        own = [i for i in everyone if tokens[i][0] == role]
        capacity |= zip(own, _shares([given("capacity", i) for i in own]), strict=True)
    serves = action_mask & (_rows(actions.get("is_noop", 0.0), num_actions) == 0.0)
    candidates = [_concerned(action_target, serves, at, n) for at, n in zip(starts, sizes, strict=True)]

    def block(i: int) -> chex.Array:
        role, rows, values = tokens[i]
        shared = {"urgency": urgency[i], "capacity": capacity[i], "is_candidate": candidates[i], f"role_{role}": 1.0}
        filled: dict[str, chex.Numeric] = {**values, **shared}
        # Whole columns one after another, then turned: on CPU far cheaper than side by side, joined number by number.
        table, here = jnp.stack([_rows(filled.get(name, 0.0), rows) for name in TOKEN_COLUMNS]).T, exists[i]
        return table if here is None else jnp.where(here[:, None], table, 0.0)

    return Observation(
        tokens=jnp.concatenate([block(i) for i in everyone]),
        token_mask=jnp.ones((sum(sizes),), bool) if token_mask is None else token_mask,
        actions=jnp.stack([_rows(actions.get(name, 0.0), num_actions) for name in ACTION_COLUMNS], axis=-1),
        action_target=action_target,
        action_mask=action_mask,
    )


def _concerned(target: chex.Array, serves: chex.Array, first: int, rows: int) -> chex.Array:
    """1 for each entity of a block that an action of ``serves bool[A]`` has as ``target i32[A]``, ``f32[rows]``.

    Entities are bits of words: A + rows operations, where a table of both would take their product.
    """
    parts = []
    for at in range(first, first + rows, 32):
        here = serves & (target >= at) & (target < at + 32)
        bits = jnp.where(here, jnp.uint32(1) << ((target - at) & 31).astype(jnp.uint32), jnp.uint32(0))
        word = jax.lax.reduce_or(bits, axes=(0,))
        parts.append((word >> jnp.arange(min(32, first + rows - at), dtype=jnp.uint32)) & jnp.uint32(1))
    return jnp.concatenate(parts).astype(jnp.float32)


def pad(observation: Observation, num_tokens: int, num_actions: int) -> Observation:
    """Pads a batch of observations to common ``N`` and ``A`` with absent tokens and illegal actions."""
    *_, tokens, _ = observation.tokens.shape
    *_, actions, _ = observation.actions.shape
    if tokens > num_tokens or actions > num_actions:
        raise ValueError(f"cannot pad {tokens} tokens, {actions} actions to {num_tokens}, {num_actions}")

    def extend(x: chex.Array, amount: int, trailing: int, fill: float) -> chex.Array:
        axis = x.ndim - 1 - trailing
        widths = [(0, amount if i == axis else 0) for i in range(x.ndim)]
        return jnp.pad(x, widths, constant_values=fill)

    return Observation(
        tokens=extend(observation.tokens, num_tokens - tokens, 1, 0),
        token_mask=extend(observation.token_mask, num_tokens - tokens, 0, False),
        actions=extend(observation.actions, num_actions - actions, 1, 0),
        action_target=extend(observation.action_target, num_actions - actions, 0, -1),
        action_mask=extend(observation.action_mask, num_actions - actions, 0, False),
    )


def flatten(observation: Observation) -> chex.Array:
    """One vector ``f32[..., N*F + N + A*G + A]`` for learners that take flat inputs."""
    batch = observation.token_mask.shape[:-1]
    parts = (observation.tokens, observation.token_mask, observation.actions, observation.action_mask)
    return jnp.concatenate([p.astype(jnp.float32).reshape(*batch, -1) for p in parts], axis=-1)
