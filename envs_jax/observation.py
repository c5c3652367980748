"""The observation vocabulary that all domains share.

One set of network weights can only mean something in a domain it has never seen if every domain speaks the same
language. So an observation is a set of entity *tokens* whose columns mean the same everywhere (and have the same sign:
more urgency always means "needs resource"), and an action is *described* (which token it concerns, how much, in which
direction) rather than numbered. The name of the domain is never in an observation.
"""

from __future__ import annotations

from collections.abc import Mapping

import chex
import jax.numpy as jnp
from flax import struct

ROLES = ("supplier", "demand", "store", "carrier", "market", "place", "clock")
"""What an entity is. A token carries exactly one role, one-hot in the columns ``role_<name>``."""

TOKEN_COLUMNS = (
    "urgency",  # shortfall against need, in [0, 1]; higher = needs resource, in every domain
    "slack",  # room or time left before the entity becomes urgent, in [0, 1]
    *(f"role_{role}" for role in ROLES),
    "level",  # what the entity holds now, relative to its capacity or to the domain's scale; signed for positions
    "capacity",  # its capacity relative to the largest of the domain
    "inflow",  # what will arrive by the next period, as far as the agent can see
    "pipeline",  # what is committed but arrives later than that
    "outflow",  # what left in the last period: served demand, sold energy
    "waiting",  # what waits for service
    "age",  # age of the oldest waiting unit, or a lead time, relative to the domain's scale
    "change",  # last change of what the entity observes (return, price change), signed
    "signal_a",  # a public indicator that concerns this entity (a forecast, a factor's value), signed
    "signal_b",  # a second public indicator
    "unit_cost",  # what holding or moving one unit costs
    "unit_value",  # what one unit earns, or what missing it costs
    "rate",  # efficiency or observed rate
    "is_turn",  # 1 if the present choice is this entity's
    "decided",  # what has already been chosen for this entity in this period, signed
    "cycle_sin",  # phase of the day or season
    "cycle_cos",
    "progress",  # t / T: share of the episode gone
    "last_reward",  # reward of the last finished period, in the domain's reward scale
)
NUM_TOKEN_FEATURES = len(TOKEN_COLUMNS)

ACTION_COLUMNS = (
    "is_noop",  # 1 for "do nothing / keep going"
    "amount",  # size of the allocation as a fraction of the largest, in [0, 1]
    "signed",  # amount with its direction: + gives resource to the target, - takes it away
    "low",  # lower threshold of a conditional action (a bid to buy), relative; 0 if none
    "high",  # upper threshold (an offer to sell), relative; 0 if none
    "second_urgency",  # summary of a second entity involved (origin of a move, server of a job)
    "second_slack",
    "second_level",
)
NUM_ACTION_FEATURES = len(ACTION_COLUMNS)


BOUND = 10.0
"""Features lie within plus or minus this; most within 1."""


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


def bounded(feature: chex.Array) -> chex.Array:
    """Keeps a feature that has no bounds of its own, such as a price, within those of the observation space."""
    return jnp.clip(feature, -BOUND, BOUND)


Values = Mapping[str, chex.Numeric]
"""Columns by name, each a scalar or ``f32[rows]``; columns left out are 0."""


def _table(columns: tuple[str, ...], *blocks: tuple[int, Values]) -> chex.Array:
    unknown = sorted({name for _, values in blocks for name in values} - set(columns))
    if unknown:
        raise ValueError(f"unknown columns {unknown}; the vocabulary has {', '.join(columns)}")
    total = sum(rows for rows, _ in blocks)

    def column(name: str) -> chex.Array:
        parts = [values.get(name, 0.0) for _, values in blocks]
        if all(part is parts[0] for part in parts) and jnp.ndim(parts[0]) == 0:
            return jnp.broadcast_to(jnp.asarray(parts[0], jnp.float32), (total,))
        rows = (jnp.broadcast_to(jnp.asarray(p, jnp.float32), (n,)) for p, (n, _) in zip(parts, blocks, strict=True))
        return jnp.concatenate(list(rows))

    # Whole columns side by side: on CPU cheaper than a table a block, joined row by row.
    return jnp.stack([column(name) for name in columns], axis=-1)


def token_table(*blocks: tuple[str, int, Values]) -> chex.Array:
    """Tokens ``f32[total rows, F]`` of several roles, one block ``(role, rows, values)`` after another.

    Raises:
      ValueError: for a role or column outside the vocabulary.
    """
    for role, _, _ in blocks:
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; the vocabulary has {', '.join(ROLES)}")
    return _table(TOKEN_COLUMNS, *((rows, {**values, f"role_{role}": 1.0}) for role, rows, values in blocks))


def token_rows(role: str, rows: int, **values: chex.Numeric) -> chex.Array:
    """Tokens ``f32[rows, F]`` of one role; each keyword names a column and gives a scalar or ``f32[rows]``.

    Raises:
      ValueError: for a role or column outside the vocabulary.
    """
    return token_table((role, rows, values))


def action_rows(rows: int, **values: chex.Numeric) -> chex.Array:
    """Action descriptions ``f32[rows, G]``; each keyword names a column and gives a scalar or ``f32[rows]``.

    Raises:
      ValueError: for a column outside the vocabulary.
    """
    return _table(ACTION_COLUMNS, (rows, values))


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
