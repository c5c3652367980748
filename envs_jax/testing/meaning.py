"""Checks of meaning: that the columns of a domain are what :mod:`envs_jax.observation` says of them.

Those of one observation look at everything that random choices, no-op, heuristic and reference saw. Those of signs are
statistics over fixed keys, so they always give the same answer; ``python -m benchmarks.quality.vocabulary`` prints
them. What a domain may differ in, with a reason, is in :attr:`envs_jax.ResourceEnv.exceptions`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from envs_jax.observation import (
    ACTION_COLUMNS,
    DERIVED,
    PRIVATE_ACTION_COLUMNS,
    PRIVATE_TOKEN_COLUMNS,
    ROLES,
    TOKEN_COLUMNS,
    TOKEN_MEANINGS,
)
from envs_jax.testing import improvement, signs
from envs_jax.testing.conformance import Check
from envs_jax.testing.documentation import read
from envs_jax.testing.evidence import POLICIES, Evidence, Look, leaves
from envs_jax.testing.requirements import DomainError, require

SHARES = tuple(name for name, meaning in TOKEN_MEANINGS.items() if meaning.startswith("in [0, 1]"))
QUANTITIES = tuple(name for name, meaning in TOKEN_MEANINGS.items() if meaning.startswith("0 or more"))
FLAGS = ("is_turn", "is_candidate")
CLOSE = 1e-5
"""By which values may be off that rounding makes."""

WRONG_SIDE = -2.0
"""The t-value of (urgency - slack) x signed below which acting costs more than it serves."""
EXCUSABLE = ("serving_the_urgent_pays", "the_reference_serves_the_urgent")
"""Checks that :attr:`envs_jax.ResourceEnv.exceptions` may name."""

BY_SIZE = "0 by default"
"""What a table says of a column that is only set by other sizes of the domain than the registered ones."""

LookCheck = Callable[[Evidence, Look], None]


def of_all_that_is_seen(check: LookCheck) -> Check:
    """Makes a check of observations one of a domain: of all its :attr:`~Evidence.looks`."""

    @functools.wraps(check)
    def checked(k: Evidence) -> None:
        for look in k.looks:
            check(k, look)

    return checked


def require_all(holds: np.ndarray, look: Look, message: str, values: np.ndarray | None = None) -> None:
    """Raises :class:`DomainError` with the first place where something does not hold: ``bool[n]`` or ``bool[n, N]``."""
    if np.all(holds):
        return
    first = tuple(int(i) for i in np.argwhere(~holds)[0])
    token = ""
    if len(first) > 1:
        tokens = look.seen.tokens[first]
        role = next((role for role in ROLES if tokens[TOKEN_COLUMNS.index(f"role_{role}")] == 1), "no role")
        token = f" at token {first[1]} ({role})"
    found = "" if values is None else f": it is {values[first]:.4g}"
    where = f"choice {look.time[first[0]]} of task {look.task[first[0]]} in {look.play}"
    raise DomainError(f"{message}{found}{token}, {where}; so in {np.mean(~holds):.1%} of what was seen")


# ---- one observation ----------------------------------------------------------------------------------------------


@of_all_that_is_seen
def one_entity_has_the_turn(k: Evidence, look: Look) -> None:
    """``is_turn`` is 1 for exactly one entity that exists, in every state, also after the last choice."""
    turn = look.seen.column("is_turn")
    require_all(np.isin(turn, (0, 1)), look, "is_turn is neither 0 nor 1", turn)
    count = (turn * look.seen.token_mask).sum(-1)
    require_all(count == 1, look, "is_turn is not 1 for exactly one entity; sum over entities", count)


@of_all_that_is_seen
def candidates_are_what_legal_actions_concern(k: Evidence, look: Look) -> None:
    """``is_candidate`` is 1 where a legal action other than doing nothing has its target, else 0."""
    seen = look.seen
    acts = seen.action_mask & (seen.action_column("is_noop") == 0)
    entities = np.arange(seen.tokens.shape[1])
    concerned = np.zeros(seen.token_mask.shape, bool)
    for action in range(acts.shape[1]):
        concerned |= acts[:, action, None] & (seen.action_target[:, action, None] == entities)
    found = seen.column("is_candidate")
    require_all(found == concerned, look, "is_candidate is not whether a legal action concerns the entity", found)


@of_all_that_is_seen
def the_noop_means_doing_nothing(k: Evidence, look: Look) -> None:
    """``is_noop`` is 1 for ``noop_action`` alone, and only where that does nothing: no amount, no direction."""
    marked = look.seen.action_column("is_noop")
    require_all(np.isin(marked, (0, 1)), look, "is_noop is neither 0 nor 1")
    others = np.delete(marked, k.env.noop_action, -1)
    require_all((others == 0).all(-1), look, f"is_noop is 1 for another action than noop_action {k.env.noop_action}")
    own = marked[:, k.env.noop_action]
    for name in ("amount", "signed"):
        value = np.where(own == 1, look.seen.action_column(name)[:, k.env.noop_action], 0.0)
        require_all(value == 0, look, f"{name} of doing nothing is not 0", value)


@of_all_that_is_seen
def amounts_and_directions_are_shares(k: Evidence, look: Look) -> None:
    """``amount`` is in [0, 1] and ``signed`` in [-1, 1]."""
    amount, signed = (look.seen.action_column(name) for name in ("amount", "signed"))
    require_all(((amount >= 0) & (amount <= 1 + CLOSE)).all(-1), look, "an action's amount is outside [0, 1]")
    require_all((np.abs(signed) <= 1 + CLOSE).all(-1), look, "an action's signed is outside [-1, 1]")


@of_all_that_is_seen
def shares_lie_between_0_and_1(k: Evidence, look: Look) -> None:
    """What the vocabulary says is in [0, 1]; flags are 0 or 1."""
    for name in SHARES:
        value = look.seen.column(name)
        require_all((value >= 0) & (value <= 1 + CLOSE), look, f"{name} is outside [0, 1]", value)
    for name in FLAGS:
        value = look.seen.column(name)
        require_all(np.isin(value, (0, 1)), look, f"{name} is neither 0 nor 1", value)


@of_all_that_is_seen
def urgency_is_relative_to_the_largest(k: Evidence, look: Look) -> None:
    """The most urgent entity has 1, unless waiting costs nothing anywhere."""
    largest = look.seen.column("urgency").max(-1)
    holds = (np.abs(largest - 1) <= CLOSE) | (largest == 0)
    require_all(holds, look, "the largest urgency is neither 1 nor 0", largest)


@of_all_that_is_seen
def capacity_is_a_share_of_the_largest_of_its_role(k: Evidence, look: Look) -> None:
    """Of each role the largest capacity is 1, unless none has one."""
    capacity = look.seen.column("capacity")
    for role in ROLES:
        largest = np.where(look.seen.column(f"role_{role}") == 1, capacity, 0.0).max(-1)
        holds = (np.abs(largest - 1) <= CLOSE) | (largest == 0)
        require_all(holds, look, f"the largest capacity of role {role} is neither 1 nor 0", largest)


@of_all_that_is_seen
def quantities_are_not_negative(k: Evidence, look: Look) -> None:
    """What the vocabulary says is 0 or more."""
    for name in QUANTITIES:
        value = look.seen.column(name)
        require_all(value >= 0, look, f"{name} is below 0", value)


@of_all_that_is_seen
def nothing_is_decided_at_a_periods_first_choice(k: Evidence, look: Look) -> None:
    """``decided`` counts the choices of this period only."""
    decided = look.seen.column("decided")
    first = (look.time % k.env.num_turns == 0)[:, None]
    require_all(~first | (decided == 0), look, "decided is not 0 at a period's first choice", decided)


@of_all_that_is_seen
def cycles_lie_on_the_unit_circle(k: Evidence, look: Look) -> None:
    """``cycle_sin`` and ``cycle_cos`` are a phase, or both 0."""
    radius = np.hypot(look.seen.column("cycle_sin"), look.seen.column("cycle_cos"))
    holds = (np.abs(radius - 1) <= 1e-4) | (radius == 0)
    require_all(holds, look, "cycle_sin and cycle_cos are not on the unit circle; radius", radius)


@of_all_that_is_seen
def every_entity_shows_progress_and_last_reward(k: Evidence, look: Look) -> None:
    """``progress`` is ``time / horizon``; ``last_reward`` rises with the state's, in proportion until it is clipped.

    The factor is the task's: it may depend on what is shown, such as prices.
    """
    present = look.seen.token_mask
    gone = np.broadcast_to((look.time / k.env.horizon)[:, None], present.shape)
    progress, shown = look.seen.column("progress"), look.seen.column("last_reward")
    require_all(~present | (np.abs(progress - gone) <= CLOSE), look, "progress is not time / horizon", progress)
    first = np.take_along_axis(shown, present.argmax(-1)[:, None], -1)
    require_all(~present | (shown == first), look, "last_reward differs between entities", shown)
    for task in np.unique(look.task):
        at = look.task == task
        value, paid = first[at, 0].astype(np.float64), look.last_reward[at].astype(np.float64)
        require_all(_of(at, (paid != 0) | (value == 0)), look, "last_reward is not 0 before any reward", first[:, 0])
        if (paid == 0).all():
            continue
        ratio = value[paid != 0] / paid[paid != 0]
        factor = ratio.max()
        require_all(_of(at, np.full(len(paid), factor > 0)), look, "last_reward never rises with the reward")
        wanted = np.clip(factor * paid, value.min(), value.max())
        holds = np.abs(value - wanted) <= 1e-3 * np.maximum(np.abs(wanted), CLOSE)
        require_all(_of(at, holds), look, f"last_reward is not {factor:.4g} times the last reward", first[:, 0])


def _of(at: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """``holds`` of some observations, as ``bool[n]`` of all."""
    all_hold = np.ones(at.shape, bool)
    all_hold[at] = holds
    return all_hold


# ---- a whole domain -----------------------------------------------------------------------------------------------


def columns_that_are_set(k: Evidence) -> tuple[set[str], set[str]]:
    """Columns of tokens and of actions that are ever other than 0."""
    tokens, actions = (
        np.any([np.any(getattr(look.seen, part) != 0, axis=(0, 1)) for look in k.looks], axis=0)
        for part in ("tokens", "actions")
    )
    return (
        {name for name, is_set in zip(TOKEN_COLUMNS, tokens, strict=True) if is_set},
        {name for name, is_set in zip(ACTION_COLUMNS, actions, strict=True) if is_set},
    )


def private_columns_are_contiguous(k: Evidence) -> None:
    """Letters from a on; those after the last that is used are 0 always."""
    for kind, columns, used in zip(
        ("token", "action"), (PRIVATE_TOKEN_COLUMNS, PRIVATE_ACTION_COLUMNS), columns_that_are_set(k), strict=True
    ):
        own = [name in used for name in columns]
        gaps = [name for name, is_set in zip(columns[: sum(own)], own, strict=False) if not is_set]
        require(not gaps, f"private {kind} columns are not contiguous from a: {', '.join(gaps)} is always 0")


def documents_its_columns(k: Evidence) -> None:
    """The tables of the class docstring list the columns that are set, and no other."""
    try:
        documented = read(k.env.name, inspect.getdoc(type(k.env)))
    except ValueError as error:
        raise DomainError(str(error)) from error
    tokens, actions = columns_that_are_set(k)
    tokens -= set(DERIVED)
    # What the strict columns of actions are may be said in words beside the table.
    for of, used, needed in (("tokens", tokens, tokens), ("actions", actions, actions & set(PRIVATE_ACTION_COLUMNS))):
        listed = documented.columns(of)
        by_size = {line.column for line in getattr(documented, of) if BY_SIZE in line.quantity}
        missing, idle = sorted(needed - listed), sorted(listed - used - by_size)
        require(not missing, f"the table of {of} lacks {', '.join(missing)}, not always 0")
        message = f"the table of {of} lists {', '.join(idle)}, which is 0 in all that was played; if other sizes of "
        require(not idle, message + f"the domain set it, say {BY_SIZE!r} in its line")


def urgent_entities_have_little_slack(k: Evidence) -> None:
    """Over entities of a role and times, urgency and slack do not rise together."""
    found = signs.urgency_against_slack(k)
    message = f"urgency and slack rise together: their rank correlation is {found}, mean over tasks and roles"
    require(found is None or found.low <= 0, message)


def serving_the_urgent_pays(k: Evidence) -> None:
    """Under random play (urgency - slack) x signed does not go with lower returns; t-value not below -2."""
    found = signs.what_serving_brings(k)
    message = (
        f"(urgency - slack) x signed of random choices goes with lower returns, t = {found or 0.0:.1f}: one of the "
        "three has the wrong sign; if all are right and acting costs more than it serves here, say so in "
        "`exceptions`"
    )
    _hold_or_excuse(k, "serving_the_urgent_pays", found is None or found >= WRONG_SIDE, message)


def the_reference_serves_the_urgent(k: Evidence) -> None:
    """The more urgent an entity, the more the reference gives it beyond chance: correlation above 0 by its interval."""
    found = signs.serving_of_the_reference(k)
    message = "what legal actions concern never differs in urgency or slack, so that nothing can be served first"
    if found is not None:
        message = (
            "the reference does not serve urgent entities more than chance does: the correlation of urgency with "
            f"signed towards an entity is {found}, mean over tasks"
        )
    message += "; if there is a reason, say so in `exceptions`"
    _hold_or_excuse(k, "the_reference_serves_the_urgent", found is not None and found.low > 0, message)


def _hold_or_excuse(k: Evidence, name: str, holds: bool, message: str) -> None:
    """Requires that a check holds, or that it does not where the domain says why."""
    unknown = sorted(set(k.env.exceptions) - set(EXCUSABLE))
    require(not unknown, f"exceptions names {', '.join(unknown)}; allowed are {', '.join(EXCUSABLE)}")
    reason = k.env.exceptions.get(name)
    if reason is None:
        require(holds, message)
    else:
        require(not holds, f"exceptions gives a reason against {name}, which holds: take it out")
        require(reason.strip().endswith("."), f"the reason against {name} is no sentence: {reason!r}")


def the_heuristic_reads_what_is_shown(k: Evidence) -> None:
    """Its choices depend on columns, none of which is always 0; it earns more than chance, and not less than no-op."""
    reads = k.heuristic_reads
    require(any(reads.values()), "the heuristic's choices depend on no column")
    for part, used in zip(("tokens", "actions"), columns_that_are_set(k), strict=True):
        idle = [name for name in reads[part] if name not in used]
        require(not idle, f"the heuristic reads {', '.join(idle)} of {part}, which is always 0: is it another column?")
    for other, least in (("random", "mean"), ("noop", "high")):
        gain = signs.heuristic_against(k, other)
        message = f"the heuristic earns {gain} more than {other} choices: does it read the right columns? It reads "
        require(getattr(gain, least) > 0, message + ", ".join((*reads["tokens"], *reads["actions"])))


def an_optimal_reference_cannot_be_improved(k: Evidence) -> None:
    """No other policy and no single other choice earns more, on the same noise, where ``reference_kind`` says so."""
    if k.env.reference_kind == "optimal":
        faults = improvement.improvements(k)
        require(not faults, f'reference_kind is "optimal", but {"; ".join(faults)}')


def corners_of_every_range_keep_all_this(k: Evidence) -> None:
    """Tasks at the corners of their ranges are finite, are played to the end by all policies, and mean the same."""
    for path, x in leaves(k.corners).items():
        require(np.isfinite(x).all(), f"{path} is not finite at a corner of the ranges of tasks")
    random = k.random_episodes(k.corners)
    steps = jax.device_get(k.play(k.corners, k.keys))
    space = k.env.observation_space(k.default).spaces
    played = {"random play": random, "the policies' play": (steps.state, steps.reward, steps.info)}
    for who, tree in played.items():
        for path, x in leaves(tree).items():
            require(np.isfinite(x).all(), f"{path} is not finite in {who} at a corner of the ranges of tasks")
    legal = np.take_along_axis(steps.observation.action_mask, steps.action[..., None], -1)[..., 0]
    for place, policy in enumerate(POLICIES):
        require(policy == "replay" or legal[:, :, place].all(), f"{policy} chooses an illegal action at a corner")
    for look in k.looks_at(" at a corner of the ranges of tasks", random, steps):
        for part, box in space.items():
            require(box.contains(getattr(look.seen, part)), f"{part} leaves its space in {look.play}")
        for check in OF_ALL_THAT_IS_SEEN:
            check.__wrapped__(k, look)


OF_ALL_THAT_IS_SEEN: tuple[Any, ...] = (
    one_entity_has_the_turn,
    candidates_are_what_legal_actions_concern,
    the_noop_means_doing_nothing,
    amounts_and_directions_are_shares,
    shares_lie_between_0_and_1,
    urgency_is_relative_to_the_largest,
    capacity_is_a_share_of_the_largest_of_its_role,
    quantities_are_not_negative,
    nothing_is_decided_at_a_periods_first_choice,
    cycles_lie_on_the_unit_circle,
    every_entity_shows_progress_and_last_reward,
)

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        *OF_ALL_THAT_IS_SEEN,
        private_columns_are_contiguous,
        documents_its_columns,
        urgent_entities_have_little_slack,
        serving_the_urgent_pays,
        the_reference_serves_the_urgent,
        the_heuristic_reads_what_is_shown,
        an_optimal_reference_cannot_be_improved,
        corners_of_every_range_keep_all_this,
    )
}
"""Requirements by name, in the order in which they are run."""
